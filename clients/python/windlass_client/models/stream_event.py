from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from ..models.stream_event_event import check_stream_event_event
from ..models.stream_event_event import StreamEventEvent
from typing import cast






T = TypeVar("T", bound="StreamEvent")



@_attrs_define
class StreamEvent:
    """ An event of a stream, as clients read it.

        Attributes:
            data (str): JSON: the job, or an object with its `id`; of `end`, an empty one.
            event (StreamEventEvent): - `job`: What the job is now.
                - `removed`: The job has been removed.
                - `unavailable`: The job can no longer be followed from here.
                - `end`: All are over.
            id (None | str): The `ETag` of the job, in streams of one.
     """

    data: str
    event: StreamEventEvent
    id: None | str
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)





    def to_dict(self) -> dict[str, Any]:
        data = self.data

        event: str = self.event

        id: None | str
        id = self.id


        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({
            "data": data,
            "event": event,
            "id": id,
        })

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        data = d.pop("data")

        event = check_stream_event_event(d.pop("event"))




        def _parse_id(data: object) -> None | str:
            if data is None:
                return data
            return cast(None | str, data)

        id = _parse_id(d.pop("id"))


        stream_event = cls(
            data=data,
            event=event,
            id=id,
        )


        stream_event.additional_properties = d
        return stream_event

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
