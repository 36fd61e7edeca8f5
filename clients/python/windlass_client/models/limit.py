from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from typing import cast






T = TypeVar("T", bound="Limit")



@_attrs_define
class Limit:
    """ A limit as clients see it.

        Attributes:
            burst (int | None):
            max_running (int | None):
            name (str):
            per (None | str):
            rate (int | None):
     """

    burst: int | None
    max_running: int | None
    name: str
    per: None | str
    rate: int | None
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)





    def to_dict(self) -> dict[str, Any]:
        burst: int | None
        burst = self.burst

        max_running: int | None
        max_running = self.max_running

        name = self.name

        per: None | str
        per = self.per

        rate: int | None
        rate = self.rate


        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({
            "burst": burst,
            "max_running": max_running,
            "name": name,
            "per": per,
            "rate": rate,
        })

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        def _parse_burst(data: object) -> int | None:
            if data is None:
                return data
            return cast(int | None, data)

        burst = _parse_burst(d.pop("burst"))


        def _parse_max_running(data: object) -> int | None:
            if data is None:
                return data
            return cast(int | None, data)

        max_running = _parse_max_running(d.pop("max_running"))


        name = d.pop("name")

        def _parse_per(data: object) -> None | str:
            if data is None:
                return data
            return cast(None | str, data)

        per = _parse_per(d.pop("per"))


        def _parse_rate(data: object) -> int | None:
            if data is None:
                return data
            return cast(int | None, data)

        rate = _parse_rate(d.pop("rate"))


        limit = cls(
            burst=burst,
            max_running=max_running,
            name=name,
            per=per,
            rate=rate,
        )


        limit.additional_properties = d
        return limit

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
