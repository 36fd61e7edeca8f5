from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from ..models.missed import check_missed
from ..models.missed import Missed
from ..types import UNSET, Unset
from typing import cast

if TYPE_CHECKING:
  from ..models.scheduled_job import ScheduledJob





T = TypeVar("T", bound="Schedule")



@_attrs_define
class Schedule:
    """ A schedule as clients see it.

        Attributes:
            enabled (bool):
            jitter (str):
            job (ScheduledJob): What a job may have to wait for when it is due: the gates on its way to a worker, apart from
                its queue's.
            last_run (None | str):
            missed (Missed): What becomes of ticks for which no scheduler was there in time (half a minute).

                - `skip`: They are dropped.
                - `once`: One run stands for all of them: the next one, if that is in time, else one for the newest of them.
                - `all`: Each runs, up to the newest hundred.
            name (str):
            next_runs (list[str]): Before jitter; none while it is disabled.
            cron (None | str | Unset):
            every (None | str | Unset):
            zone (None | str | Unset):
     """

    enabled: bool
    jitter: str
    job: ScheduledJob
    last_run: None | str
    missed: Missed
    name: str
    next_runs: list[str]
    cron: None | str | Unset = UNSET
    every: None | str | Unset = UNSET
    zone: None | str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)





    def to_dict(self) -> dict[str, Any]:
        from ..models.scheduled_job import ScheduledJob # noqa: PLC0415
        enabled = self.enabled

        jitter = self.jitter

        job = self.job.to_dict()

        last_run: None | str
        last_run = self.last_run

        missed: str = self.missed

        name = self.name

        next_runs = self.next_runs



        cron: None | str | Unset
        if isinstance(self.cron, Unset):
            cron = UNSET
        else:
            cron = self.cron

        every: None | str | Unset
        if isinstance(self.every, Unset):
            every = UNSET
        else:
            every = self.every

        zone: None | str | Unset
        if isinstance(self.zone, Unset):
            zone = UNSET
        else:
            zone = self.zone


        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({
            "enabled": enabled,
            "jitter": jitter,
            "job": job,
            "last_run": last_run,
            "missed": missed,
            "name": name,
            "next_runs": next_runs,
        })
        if cron is not UNSET:
            field_dict["cron"] = cron
        if every is not UNSET:
            field_dict["every"] = every
        if zone is not UNSET:
            field_dict["zone"] = zone

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.scheduled_job import ScheduledJob # noqa: PLC0415
        d = dict(src_dict)
        enabled = d.pop("enabled")

        jitter = d.pop("jitter")

        job = ScheduledJob.from_dict(d.pop("job"))




        def _parse_last_run(data: object) -> None | str:
            if data is None:
                return data
            return cast(None | str, data)

        last_run = _parse_last_run(d.pop("last_run"))


        missed = check_missed(d.pop("missed"))




        name = d.pop("name")

        next_runs = cast(list[str], d.pop("next_runs"))


        def _parse_cron(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        cron = _parse_cron(d.pop("cron", UNSET))


        def _parse_every(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        every = _parse_every(d.pop("every", UNSET))


        def _parse_zone(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        zone = _parse_zone(d.pop("zone", UNSET))


        schedule = cls(
            enabled=enabled,
            jitter=jitter,
            job=job,
            last_run=last_run,
            missed=missed,
            name=name,
            next_runs=next_runs,
            cron=cron,
            every=every,
            zone=zone,
        )


        schedule.additional_properties = d
        return schedule

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
