from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from ..types import UNSET, Unset
from typing import cast
from uuid import UUID






T = TypeVar("T", bound="BatchItemResultType0")



@_attrs_define
class BatchItemResultType0:
    """ It is committed, as `enqueue` would have answered 202.

        Attributes:
            id (UUID): Names one job for ever. Time-ordered, so that the store can partition by it.
            idempotency_replayed (bool | None | Unset):
            unique_conflict (None | str | Unset):
     """

    id: UUID
    idempotency_replayed: bool | None | Unset = UNSET
    unique_conflict: None | str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)





    def to_dict(self) -> dict[str, Any]:
        id = str(self.id)

        idempotency_replayed: bool | None | Unset
        if isinstance(self.idempotency_replayed, Unset):
            idempotency_replayed = UNSET
        else:
            idempotency_replayed = self.idempotency_replayed

        unique_conflict: None | str | Unset
        if isinstance(self.unique_conflict, Unset):
            unique_conflict = UNSET
        else:
            unique_conflict = self.unique_conflict


        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({
            "id": id,
        })
        if idempotency_replayed is not UNSET:
            field_dict["idempotency_replayed"] = idempotency_replayed
        if unique_conflict is not UNSET:
            field_dict["unique_conflict"] = unique_conflict

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        id = UUID(d.pop("id"))




        def _parse_idempotency_replayed(data: object) -> bool | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(bool | None | Unset, data)

        idempotency_replayed = _parse_idempotency_replayed(d.pop("idempotency_replayed", UNSET))


        def _parse_unique_conflict(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        unique_conflict = _parse_unique_conflict(d.pop("unique_conflict", UNSET))


        batch_item_result_type_0 = cls(
            id=id,
            idempotency_replayed=idempotency_replayed,
            unique_conflict=unique_conflict,
        )


        batch_item_result_type_0.additional_properties = d
        return batch_item_result_type_0

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
