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
  from ..models.new_job import NewJob





T = TypeVar("T", bound="NewSchedule")



@_attrs_define
class NewSchedule:
    """ When, and what. Either `cron` or `every`.

        Attributes:
            job (NewJob): A job to be done.

                At most one of `run_at` and `delay`, of `expires_at` and `expires_in`, and of `unique`, `debounce` and
                `throttle`.
            cron (None | str | Unset): A cron expression of five fields, or six with seconds first.
            enabled (bool | None | Unset): Unless given, a new schedule is enabled, and one that is there stays as it is.
            every (None | str | Unset): An interval.
            jitter (None | str | Unset): By how much each run is put off at most, at random; up to a day.
            missed (Missed | None | Unset):
            zone (None | str | Unset): The time zone of the expression, such as `Europe/Berlin`; UTC unless given.
     """

    job: NewJob
    cron: None | str | Unset = UNSET
    enabled: bool | None | Unset = UNSET
    every: None | str | Unset = UNSET
    jitter: None | str | Unset = UNSET
    missed: Missed | None | Unset = UNSET
    zone: None | str | Unset = UNSET





    def to_dict(self) -> dict[str, Any]:
        from ..models.new_job import NewJob # noqa: PLC0415
        job = self.job.to_dict()

        cron: None | str | Unset
        if isinstance(self.cron, Unset):
            cron = UNSET
        else:
            cron = self.cron

        enabled: bool | None | Unset
        if isinstance(self.enabled, Unset):
            enabled = UNSET
        else:
            enabled = self.enabled

        every: None | str | Unset
        if isinstance(self.every, Unset):
            every = UNSET
        else:
            every = self.every

        jitter: None | str | Unset
        if isinstance(self.jitter, Unset):
            jitter = UNSET
        else:
            jitter = self.jitter

        missed: None | str | Unset
        if isinstance(self.missed, Unset):
            missed = UNSET
        elif isinstance(self.missed, str):
            missed = self.missed
        else:
            missed = self.missed

        zone: None | str | Unset
        if isinstance(self.zone, Unset):
            zone = UNSET
        else:
            zone = self.zone


        field_dict: dict[str, Any] = {}

        field_dict.update({
            "job": job,
        })
        if cron is not UNSET:
            field_dict["cron"] = cron
        if enabled is not UNSET:
            field_dict["enabled"] = enabled
        if every is not UNSET:
            field_dict["every"] = every
        if jitter is not UNSET:
            field_dict["jitter"] = jitter
        if missed is not UNSET:
            field_dict["missed"] = missed
        if zone is not UNSET:
            field_dict["zone"] = zone

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.new_job import NewJob # noqa: PLC0415
        d = dict(src_dict)
        job = NewJob.from_dict(d.pop("job"))




        def _parse_cron(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        cron = _parse_cron(d.pop("cron", UNSET))


        def _parse_enabled(data: object) -> bool | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(bool | None | Unset, data)

        enabled = _parse_enabled(d.pop("enabled", UNSET))


        def _parse_every(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        every = _parse_every(d.pop("every", UNSET))


        def _parse_jitter(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        jitter = _parse_jitter(d.pop("jitter", UNSET))


        def _parse_missed(data: object) -> Missed | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                missed_type_0 = check_missed(data)



                return missed_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(Missed | None | Unset, data)

        missed = _parse_missed(d.pop("missed", UNSET))


        def _parse_zone(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        zone = _parse_zone(d.pop("zone", UNSET))


        new_schedule = cls(
            job=job,
            cron=cron,
            enabled=enabled,
            every=every,
            jitter=jitter,
            missed=missed,
            zone=zone,
        )

        return new_schedule

