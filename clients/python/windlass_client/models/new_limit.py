from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from ..types import UNSET, Unset
from typing import cast






T = TypeVar("T", bound="NewLimit")



@_attrs_define
class NewLimit:
    """ What a limit allows; what is left out is not limited.

        Attributes:
            burst (int | None | Unset): How many may start at once after a rest; as many as `rate` unless given, and only
                with it.
            max_running (int | None | Unset): How many jobs run at a time.
            per (None | str | Unset): One second unless given; only with `rate`. From a millisecond to a year.
            rate (int | None | Unset): How many may start in the time of `per`.
     """

    burst: int | None | Unset = UNSET
    max_running: int | None | Unset = UNSET
    per: None | str | Unset = UNSET
    rate: int | None | Unset = UNSET





    def to_dict(self) -> dict[str, Any]:
        burst: int | None | Unset
        if isinstance(self.burst, Unset):
            burst = UNSET
        else:
            burst = self.burst

        max_running: int | None | Unset
        if isinstance(self.max_running, Unset):
            max_running = UNSET
        else:
            max_running = self.max_running

        per: None | str | Unset
        if isinstance(self.per, Unset):
            per = UNSET
        else:
            per = self.per

        rate: int | None | Unset
        if isinstance(self.rate, Unset):
            rate = UNSET
        else:
            rate = self.rate


        field_dict: dict[str, Any] = {}

        field_dict.update({
        })
        if burst is not UNSET:
            field_dict["burst"] = burst
        if max_running is not UNSET:
            field_dict["max_running"] = max_running
        if per is not UNSET:
            field_dict["per"] = per
        if rate is not UNSET:
            field_dict["rate"] = rate

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        def _parse_burst(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        burst = _parse_burst(d.pop("burst", UNSET))


        def _parse_max_running(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        max_running = _parse_max_running(d.pop("max_running", UNSET))


        def _parse_per(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        per = _parse_per(d.pop("per", UNSET))


        def _parse_rate(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        rate = _parse_rate(d.pop("rate", UNSET))


        new_limit = cls(
            burst=burst,
            max_running=max_running,
            per=per,
            rate=rate,
        )

        return new_limit

