from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset







T = TypeVar("T", bound="Throttle")



@_attrs_define
class Throttle:
    """ At most one job in each period.

        Attributes:
            key (str):
            period (str): A duration, such as `30s`, `1h 30m` or, in ISO 8601, `PT1H30M`; at most ten years.
     """

    key: str
    period: str





    def to_dict(self) -> dict[str, Any]:
        key = self.key

        period = self.period


        field_dict: dict[str, Any] = {}

        field_dict.update({
            "key": key,
            "period": period,
        })

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        key = d.pop("key")

        period = d.pop("period")

        throttle = cls(
            key=key,
            period=period,
        )

        return throttle

