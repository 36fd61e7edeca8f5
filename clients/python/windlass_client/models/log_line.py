from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from ..models.log_level import check_log_level
from ..models.log_level import LogLevel
from typing import cast
import datetime






T = TypeVar("T", bound="LogLine")



@_attrs_define
class LogLine:
    """ 
        Attributes:
            at (datetime.datetime):
            attempt (int):
            fields (Any):
            level (LogLevel): How much a log line matters. The number is what stores keep.

                - `debug`: For whoever is looking for a fault.
                - `info`: What happens.
                - `warn`: What should not happen.
                - `error`: What went wrong.
            message (str):
     """

    at: datetime.datetime
    attempt: int
    fields: Any
    level: LogLevel
    message: str
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)





    def to_dict(self) -> dict[str, Any]:
        at = self.at.isoformat()

        attempt = self.attempt

        fields = self.fields

        level: str = self.level

        message = self.message


        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({
            "at": at,
            "attempt": attempt,
            "fields": fields,
            "level": level,
            "message": message,
        })

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        at = datetime.datetime.fromisoformat(d.pop("at"))




        attempt = d.pop("attempt")

        fields = d.pop("fields")

        level = check_log_level(d.pop("level"))




        message = d.pop("message")

        log_line = cls(
            at=at,
            attempt=attempt,
            fields=fields,
            level=level,
            message=message,
        )


        log_line.additional_properties = d
        return log_line

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
