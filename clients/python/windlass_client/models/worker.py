from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from typing import cast
from uuid import UUID
import datetime

if TYPE_CHECKING:
  from ..models.worker_kind import WorkerKind





T = TypeVar("T", bound="Worker")



@_attrs_define
class Worker:
    """ 
        Attributes:
            alive (bool): If not, its jobs are about to be given to others.
            id (UUID): Names one run of one worker process. New at every start: host and pod names come back, this never
                does.
            jobs (list[UUID]): Their ids, oldest first; in a list no more than a hundred.
            kinds (list[WorkerKind]):
            label (str):
            lease (str): How long it may be silent.
            running (int): How many jobs it runs.
            seen_at (datetime.datetime | None): Null once it has said goodbye.
            started_at (datetime.datetime):
     """

    alive: bool
    id: UUID
    jobs: list[UUID]
    kinds: list[WorkerKind]
    label: str
    lease: str
    running: int
    seen_at: datetime.datetime | None
    started_at: datetime.datetime
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)





    def to_dict(self) -> dict[str, Any]:
        from ..models.worker_kind import WorkerKind # noqa: PLC0415
        alive = self.alive

        id = str(self.id)

        jobs = []
        for jobs_item_data in self.jobs:
            jobs_item = str(jobs_item_data)
            jobs.append(jobs_item)



        kinds = []
        for kinds_item_data in self.kinds:
            kinds_item = kinds_item_data.to_dict()
            kinds.append(kinds_item)



        label = self.label

        lease = self.lease

        running = self.running

        seen_at: None | str
        if isinstance(self.seen_at, datetime.datetime):
            seen_at = self.seen_at.isoformat()
        else:
            seen_at = self.seen_at

        started_at = self.started_at.isoformat()


        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({
            "alive": alive,
            "id": id,
            "jobs": jobs,
            "kinds": kinds,
            "label": label,
            "lease": lease,
            "running": running,
            "seen_at": seen_at,
            "started_at": started_at,
        })

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.worker_kind import WorkerKind # noqa: PLC0415
        d = dict(src_dict)
        alive = d.pop("alive")

        id = UUID(d.pop("id"))




        jobs = []
        _jobs = d.pop("jobs")
        for jobs_item_data in (_jobs):
            jobs_item = UUID(jobs_item_data)



            jobs.append(jobs_item)


        kinds = []
        _kinds = d.pop("kinds")
        for kinds_item_data in (_kinds):
            kinds_item = WorkerKind.from_dict(kinds_item_data)



            kinds.append(kinds_item)


        label = d.pop("label")

        lease = d.pop("lease")

        running = d.pop("running")

        def _parse_seen_at(data: object) -> datetime.datetime | None:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                seen_at_type_0 = datetime.datetime.fromisoformat(data)



                return seen_at_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None, data)

        seen_at = _parse_seen_at(d.pop("seen_at"))


        started_at = datetime.datetime.fromisoformat(d.pop("started_at"))




        worker = cls(
            alive=alive,
            id=id,
            jobs=jobs,
            kinds=kinds,
            label=label,
            lease=lease,
            running=running,
            seen_at=seen_at,
            started_at=started_at,
        )


        worker.additional_properties = d
        return worker

    @property
    def additional_keys(self) -> list[str]:
        return list(self.additional_properties.keys())

    def __getitem__(self, key: str) -> Any:
        return self.additional_properties[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.additional_properties[key] = value

    def __delitem__(self, key: str) -> None:
        del self.additional_properties[key]

    def __contains__(self, key: str) -> bool:
        return key in self.additional_properties
