from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset







T = TypeVar("T", bound="Quota")



@_attrs_define
class Quota:
    """ A tenant's quota, and how far it is used.

        Attributes:
            max_unfinished (int):
            tenant (str):
            unfinished (int): Of the jobs accepted since the quota was set: those that are not over, or have been for a
                moment only.
     """

    max_unfinished: int
    tenant: str
    unfinished: int
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)





    def to_dict(self) -> dict[str, Any]:
        max_unfinished = self.max_unfinished

        tenant = self.tenant

        unfinished = self.unfinished


        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({
            "max_unfinished": max_unfinished,
            "tenant": tenant,
            "unfinished": unfinished,
        })

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        max_unfinished = d.pop("max_unfinished")

        tenant = d.pop("tenant")

        unfinished = d.pop("unfinished")

        quota = cls(
            max_unfinished=max_unfinished,
            tenant=tenant,
            unfinished=unfinished,
        )


        quota.additional_properties = d
        return quota

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
