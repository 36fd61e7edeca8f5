from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from ..models.changed_webhook_events_type_0_item import ChangedWebhookEventsType0Item
from ..models.changed_webhook_events_type_0_item import check_changed_webhook_events_type_0_item
from ..types import UNSET, Unset
from typing import cast






T = TypeVar("T", bound="ChangedWebhook")



@_attrs_define
class ChangedWebhook:
    """ Where a webhook is, and what it hears of.

        Attributes:
            url (str): `https`, to a public address, unless the settings `webhook_allow` and `webhook_allow_http` say
                otherwise.
            events (list[ChangedWebhookEventsType0Item] | None | Unset): All unless given.
            kinds (list[str] | None | Unset): The kinds of jobs; all unless given.
            queues (list[str] | None | Unset): The queues of jobs; all unless given.
     """

    url: str
    events: list[ChangedWebhookEventsType0Item] | None | Unset = UNSET
    kinds: list[str] | None | Unset = UNSET
    queues: list[str] | None | Unset = UNSET





    def to_dict(self) -> dict[str, Any]:
        url = self.url

        events: list[str] | None | Unset
        if isinstance(self.events, Unset):
            events = UNSET
        elif isinstance(self.events, list):
            events = []
            for events_type_0_item_data in self.events:
                events_type_0_item: str = events_type_0_item_data
                events.append(events_type_0_item)


        else:
            events = self.events

        kinds: list[str] | None | Unset
        if isinstance(self.kinds, Unset):
            kinds = UNSET
        elif isinstance(self.kinds, list):
            kinds = self.kinds


        else:
            kinds = self.kinds

        queues: list[str] | None | Unset
        if isinstance(self.queues, Unset):
            queues = UNSET
        elif isinstance(self.queues, list):
            queues = self.queues


        else:
            queues = self.queues


        field_dict: dict[str, Any] = {}

        field_dict.update({
            "url": url,
        })
        if events is not UNSET:
            field_dict["events"] = events
        if kinds is not UNSET:
            field_dict["kinds"] = kinds
        if queues is not UNSET:
            field_dict["queues"] = queues

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        url = d.pop("url")

        def _parse_events(data: object) -> list[ChangedWebhookEventsType0Item] | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, list):
                    raise TypeError()
                events_type_0 = []
                _events_type_0 = data
                for events_type_0_item_data in (_events_type_0):
                    events_type_0_item = check_changed_webhook_events_type_0_item(events_type_0_item_data)



                    events_type_0.append(events_type_0_item)

                return events_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(list[ChangedWebhookEventsType0Item] | None | Unset, data)

        events = _parse_events(d.pop("events", UNSET))


        def _parse_kinds(data: object) -> list[str] | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, list):
                    raise TypeError()
                kinds_type_0 = cast(list[str], data)

                return kinds_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(list[str] | None | Unset, data)

        kinds = _parse_kinds(d.pop("kinds", UNSET))


        def _parse_queues(data: object) -> list[str] | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, list):
                    raise TypeError()
                queues_type_0 = cast(list[str], data)

                return queues_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(list[str] | None | Unset, data)

        queues = _parse_queues(d.pop("queues", UNSET))


        changed_webhook = cls(
            url=url,
            events=events,
            kinds=kinds,
            queues=queues,
        )

        return changed_webhook

