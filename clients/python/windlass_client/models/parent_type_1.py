from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from ..models.needs import check_needs
from ..models.needs import Needs
from ..types import UNSET, Unset
from typing import cast






T = TypeVar("T", bound="ParentType1")



@_attrs_define
class ParentType1:
    """ 
        Attributes:
            job (str):
            needs (Needs | Unset): What a child wants of a parent.

                - `succeeded`: That it succeeds. If it ends otherwise, the child is cancelled.
                - `finished`: That it is over, whatever became of it.
     """

    job: str
    needs: Needs | Unset = UNSET





    def to_dict(self) -> dict[str, Any]:
        job = self.job

        needs: str | Unset = UNSET
        if not isinstance(self.needs, Unset):
            needs = self.needs



        field_dict: dict[str, Any] = {}

        field_dict.update({
            "job": job,
        })
        if needs is not UNSET:
            field_dict["needs"] = needs

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        job = d.pop("job")

        _needs = d.pop("needs", UNSET)
        needs: Needs | Unset
        if isinstance(_needs,  Unset):
            needs = UNSET
        else:
            needs = check_needs(_needs)




        parent_type_1 = cls(
            job=job,
            needs=needs,
        )

        return parent_type_1

