from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from ..models.queue_event_event import check_queue_event_event
from ..models.queue_event_event import QueueEventEvent
from typing import cast






T = TypeVar("T", bound="QueueEvent")



@_attrs_define
class QueueEvent:
    """ An event of a queue's stream, as clients read it.

        Attributes:
            data (str): JSON: of `job` where it stands (`id`, `state`, `attempt`, `run_at`, `cancel_requested`,
                `progress_at`), of `lagged` how many events were `missed`, of `ready` an empty object.
            event (QueueEventEvent): - `ready`: From here on, changes are told: the first event.
                - `job`: A job is new, or stands elsewhere.
                - `lagged`: Events were not read in time, and are gone; the stream goes on.
     """

    data: str
    event: QueueEventEvent
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)





    def to_dict(self) -> dict[str, Any]:
        data = self.data

        event: str = self.event


        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({
            "data": data,
            "event": event,
        })

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        data = d.pop("data")

        event = check_queue_event_event(d.pop("event"))




        queue_event = cls(
            data=data,
            event=event,
        )


        queue_event.additional_properties = d
        return queue_event

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
