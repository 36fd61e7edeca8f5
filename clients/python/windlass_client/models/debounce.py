from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from ..types import UNSET, Unset
from typing import cast






T = TypeVar("T", bound="Debounce")



@_attrs_define
class Debounce:
    """ The job starts once there has been none with this key for some time.

        Attributes:
            delay (str): A duration, such as `30s`, `1h 30m` or, in ISO 8601, `PT1H30M`; at most ten years.
            key (str):
            max_wait (None | str | Unset): How long after the first one it starts at the latest.
     """

    delay: str
    key: str
    max_wait: None | str | Unset = UNSET





    def to_dict(self) -> dict[str, Any]:
        delay = self.delay

        key = self.key

        max_wait: None | str | Unset
        if isinstance(self.max_wait, Unset):
            max_wait = UNSET
        else:
            max_wait = self.max_wait


        field_dict: dict[str, Any] = {}

        field_dict.update({
            "delay": delay,
            "key": key,
        })
        if max_wait is not UNSET:
            field_dict["max_wait"] = max_wait

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        delay = d.pop("delay")

        key = d.pop("key")

        def _parse_max_wait(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        max_wait = _parse_max_wait(d.pop("max_wait", UNSET))


        debounce = cls(
            delay=delay,
            key=key,
            max_wait=max_wait,
        )

        return debounce

