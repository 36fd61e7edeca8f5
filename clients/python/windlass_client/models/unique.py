from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from ..models.unique_on_conflict_type_1 import check_unique_on_conflict_type_1
from ..models.unique_on_conflict_type_1 import UniqueOnConflictType1
from ..models.unique_on_conflict_type_2_type_1 import check_unique_on_conflict_type_2_type_1
from ..models.unique_on_conflict_type_2_type_1 import UniqueOnConflictType2Type1
from ..models.unique_on_conflict_type_3_type_1 import check_unique_on_conflict_type_3_type_1
from ..models.unique_on_conflict_type_3_type_1 import UniqueOnConflictType3Type1
from ..types import UNSET, Unset
from typing import cast






T = TypeVar("T", bound="Unique")



@_attrs_define
class Unique:
    """ There is one such job at a time. Either `key` or `fields`.

        Attributes:
            fields (list[str] | None | Unset): JSON pointers into the payload, whose values are the key.
            for_ (None | str | Unset): For this long, and not just until the job is over.
            key (None | str | Unset):
            on_conflict (None | UniqueOnConflictType1 | UniqueOnConflictType2Type1 | UniqueOnConflictType3Type1 | Unset):
                What becomes of a second one; `existing` unless given.
     """

    fields: list[str] | None | Unset = UNSET
    for_: None | str | Unset = UNSET
    key: None | str | Unset = UNSET
    on_conflict: None | UniqueOnConflictType1 | UniqueOnConflictType2Type1 | UniqueOnConflictType3Type1 | Unset = UNSET





    def to_dict(self) -> dict[str, Any]:
        fields: list[str] | None | Unset
        if isinstance(self.fields, Unset):
            fields = UNSET
        elif isinstance(self.fields, list):
            fields = self.fields


        else:
            fields = self.fields

        for_: None | str | Unset
        if isinstance(self.for_, Unset):
            for_ = UNSET
        else:
            for_ = self.for_

        key: None | str | Unset
        if isinstance(self.key, Unset):
            key = UNSET
        else:
            key = self.key

        on_conflict: None | str | Unset
        if isinstance(self.on_conflict, Unset):
            on_conflict = UNSET
        elif isinstance(self.on_conflict, str):
            on_conflict = self.on_conflict
        elif isinstance(self.on_conflict, str):
            on_conflict = self.on_conflict
        elif isinstance(self.on_conflict, str):
            on_conflict = self.on_conflict
        else:
            on_conflict = self.on_conflict


        field_dict: dict[str, Any] = {}

        field_dict.update({
        })
        if fields is not UNSET:
            field_dict["fields"] = fields
        if for_ is not UNSET:
            field_dict["for"] = for_
        if key is not UNSET:
            field_dict["key"] = key
        if on_conflict is not UNSET:
            field_dict["on_conflict"] = on_conflict

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        def _parse_fields(data: object) -> list[str] | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, list):
                    raise TypeError()
                fields_type_0 = cast(list[str], data)

                return fields_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(list[str] | None | Unset, data)

        fields = _parse_fields(d.pop("fields", UNSET))


        def _parse_for_(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        for_ = _parse_for_(d.pop("for", UNSET))


        def _parse_key(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        key = _parse_key(d.pop("key", UNSET))


        def _parse_on_conflict(data: object) -> None | UniqueOnConflictType1 | UniqueOnConflictType2Type1 | UniqueOnConflictType3Type1 | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                on_conflict_type_1 = check_unique_on_conflict_type_1(data)



                return on_conflict_type_1
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            try:
                if not isinstance(data, str):
                    raise TypeError()
                on_conflict_type_2_type_1 = check_unique_on_conflict_type_2_type_1(data)



                return on_conflict_type_2_type_1
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            try:
                if not isinstance(data, str):
                    raise TypeError()
                on_conflict_type_3_type_1 = check_unique_on_conflict_type_3_type_1(data)



                return on_conflict_type_3_type_1
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | UniqueOnConflictType1 | UniqueOnConflictType2Type1 | UniqueOnConflictType3Type1 | Unset, data)

        on_conflict = _parse_on_conflict(d.pop("on_conflict", UNSET))


        unique = cls(
            fields=fields,
            for_=for_,
            key=key,
            on_conflict=on_conflict,
        )

        return unique

