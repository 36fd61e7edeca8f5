from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from ..models.workflow_status import check_workflow_status
from ..models.workflow_status import WorkflowStatus
from ..types import UNSET, Unset
from typing import cast
from uuid import UUID
import datetime

if TYPE_CHECKING:
  from ..models.workflow_counts import WorkflowCounts
  from ..models.workflow_job import WorkflowJob





T = TypeVar("T", bound="Workflow")



@_attrs_define
class Workflow:
    """ 
        Attributes:
            counts (WorkflowCounts): How many jobs are in each state.
            created_at (datetime.datetime):
            id (UUID): Names one workflow for ever.
            jobs (list[WorkflowJob]):
            name (str):
            next_cursor (None | UUID):
            status (WorkflowStatus): Where a workflow stands, as its jobs say.

                - `running`: Some jobs are not over.
                - `succeeded`: All have succeeded.
                - `failed`: All are over, and some are dead.
                - `cancelled`: All are over, none is dead, and some were called off.
            tenant (None | str | Unset):
     """

    counts: WorkflowCounts
    created_at: datetime.datetime
    id: UUID
    jobs: list[WorkflowJob]
    name: str
    next_cursor: None | UUID
    status: WorkflowStatus
    tenant: None | str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)





    def to_dict(self) -> dict[str, Any]:
        from ..models.workflow_counts import WorkflowCounts # noqa: PLC0415
        from ..models.workflow_job import WorkflowJob # noqa: PLC0415
        counts = self.counts.to_dict()

        created_at = self.created_at.isoformat()

        id = str(self.id)

        jobs = []
        for jobs_item_data in self.jobs:
            jobs_item = jobs_item_data.to_dict()
            jobs.append(jobs_item)



        name = self.name

        next_cursor: None | str
        if isinstance(self.next_cursor, UUID):
            next_cursor = str(self.next_cursor)
        else:
            next_cursor = self.next_cursor

        status: str = self.status

        tenant: None | str | Unset
        if isinstance(self.tenant, Unset):
            tenant = UNSET
        else:
            tenant = self.tenant


        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({
            "counts": counts,
            "created_at": created_at,
            "id": id,
            "jobs": jobs,
            "name": name,
            "next_cursor": next_cursor,
            "status": status,
        })
        if tenant is not UNSET:
            field_dict["tenant"] = tenant

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.workflow_counts import WorkflowCounts # noqa: PLC0415
        from ..models.workflow_job import WorkflowJob # noqa: PLC0415
        d = dict(src_dict)
        counts = WorkflowCounts.from_dict(d.pop("counts"))




        created_at = datetime.datetime.fromisoformat(d.pop("created_at"))




        id = UUID(d.pop("id"))




        jobs = []
        _jobs = d.pop("jobs")
        for jobs_item_data in (_jobs):
            jobs_item = WorkflowJob.from_dict(jobs_item_data)



            jobs.append(jobs_item)


        name = d.pop("name")

        def _parse_next_cursor(data: object) -> None | UUID:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                next_cursor_type_0 = UUID(data)



                return next_cursor_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | UUID, data)

        next_cursor = _parse_next_cursor(d.pop("next_cursor"))


        status = check_workflow_status(d.pop("status"))




        def _parse_tenant(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        tenant = _parse_tenant(d.pop("tenant", UNSET))


        workflow = cls(
            counts=counts,
            created_at=created_at,
            id=id,
            jobs=jobs,
            name=name,
            next_cursor=next_cursor,
            status=status,
            tenant=tenant,
        )


        workflow.additional_properties = d
        return workflow

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
