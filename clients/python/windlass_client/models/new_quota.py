from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset







T = TypeVar("T", bound="NewQuota")



@_attrs_define
class NewQuota:
    """ How many unfinished jobs a tenant may have.

        Attributes:
            max_unfinished (int): 0 takes no jobs at all; jobs beyond a lower number stay.
     """

    max_unfinished: int





    def to_dict(self) -> dict[str, Any]:
        max_unfinished = self.max_unfinished


        field_dict: dict[str, Any] = {}

        field_dict.update({
            "max_unfinished": max_unfinished,
        })

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        max_unfinished = d.pop("max_unfinished")

        new_quota = cls(
            max_unfinished=max_unfinished,
        )

        return new_quota

