from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from ..models.webhook_event import check_webhook_event
from ..models.webhook_event import WebhookEvent
from typing import cast
from uuid import UUID
import datetime






T = TypeVar("T", bound="Webhook")



@_attrs_define
class Webhook:
    """ A webhook as clients see it.

        Attributes:
            created_at (datetime.datetime):
            enabled (bool):
            events (list[WebhookEvent]):
            id (UUID): Names one webhook for ever.
            kinds (list[str] | None): Of which kinds; without any, of all.
            old_secret_until (datetime.datetime | None): Until when the secret before the newest one signs as well.
            queues (list[str] | None): Of which queues; without any, of all.
            tenant (None | str): Whose jobs it hears of; without one, of everyone's.
            url (str):
     """

    created_at: datetime.datetime
    enabled: bool
    events: list[WebhookEvent]
    id: UUID
    kinds: list[str] | None
    old_secret_until: datetime.datetime | None
    queues: list[str] | None
    tenant: None | str
    url: str
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)





    def to_dict(self) -> dict[str, Any]:
        created_at = self.created_at.isoformat()

        enabled = self.enabled

        events = []
        for events_item_data in self.events:
            events_item: str = events_item_data
            events.append(events_item)



        id = str(self.id)

        kinds: list[str] | None
        if isinstance(self.kinds, list):
            kinds = self.kinds


        else:
            kinds = self.kinds

        old_secret_until: None | str
        if isinstance(self.old_secret_until, datetime.datetime):
            old_secret_until = self.old_secret_until.isoformat()
        else:
            old_secret_until = self.old_secret_until

        queues: list[str] | None
        if isinstance(self.queues, list):
            queues = self.queues


        else:
            queues = self.queues

        tenant: None | str
        tenant = self.tenant

        url = self.url


        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({
            "created_at": created_at,
            "enabled": enabled,
            "events": events,
            "id": id,
            "kinds": kinds,
            "old_secret_until": old_secret_until,
            "queues": queues,
            "tenant": tenant,
            "url": url,
        })

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        created_at = datetime.datetime.fromisoformat(d.pop("created_at"))




        enabled = d.pop("enabled")

        events = []
        _events = d.pop("events")
        for events_item_data in (_events):
            events_item = check_webhook_event(events_item_data)



            events.append(events_item)


        id = UUID(d.pop("id"))




        def _parse_kinds(data: object) -> list[str] | None:
            if data is None:
                return data
            try:
                if not isinstance(data, list):
                    raise TypeError()
                kinds_type_0 = cast(list[str], data)

                return kinds_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(list[str] | None, data)

        kinds = _parse_kinds(d.pop("kinds"))


        def _parse_old_secret_until(data: object) -> datetime.datetime | None:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                old_secret_until_type_0 = datetime.datetime.fromisoformat(data)



                return old_secret_until_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None, data)

        old_secret_until = _parse_old_secret_until(d.pop("old_secret_until"))


        def _parse_queues(data: object) -> list[str] | None:
            if data is None:
                return data
            try:
                if not isinstance(data, list):
                    raise TypeError()
                queues_type_0 = cast(list[str], data)

                return queues_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(list[str] | None, data)

        queues = _parse_queues(d.pop("queues"))


        def _parse_tenant(data: object) -> None | str:
            if data is None:
                return data
            return cast(None | str, data)

        tenant = _parse_tenant(d.pop("tenant"))


        url = d.pop("url")

        webhook = cls(
            created_at=created_at,
            enabled=enabled,
            events=events,
            id=id,
            kinds=kinds,
            old_secret_until=old_secret_until,
            queues=queues,
            tenant=tenant,
            url=url,
        )


        webhook.additional_properties = d
        return webhook

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
