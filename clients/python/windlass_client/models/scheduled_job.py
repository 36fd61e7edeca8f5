from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from typing import cast

if TYPE_CHECKING:
  from ..models.scheduled_job_labels import ScheduledJobLabels





T = TypeVar("T", bound="ScheduledJob")



@_attrs_define
class ScheduledJob:
    """ 
        Attributes:
            expires_in (None | str):
            kind (str):
            labels (ScheduledJobLabels):
            max_attempts (int):
            payload (Any):
            priority (int): 0 (low), 1 (normal), 2 (high) or 3 (urgent).
            queue (str):
            timeout (None | str):
            version (int):
     """

    expires_in: None | str
    kind: str
    labels: ScheduledJobLabels
    max_attempts: int
    payload: Any
    priority: int
    queue: str
    timeout: None | str
    version: int
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)





    def to_dict(self) -> dict[str, Any]:
        from ..models.scheduled_job_labels import ScheduledJobLabels # noqa: PLC0415
        expires_in: None | str
        expires_in = self.expires_in

        kind = self.kind

        labels = self.labels.to_dict()

        max_attempts = self.max_attempts

        payload = self.payload

        priority = self.priority

        queue = self.queue

        timeout: None | str
        timeout = self.timeout

        version = self.version


        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({
            "expires_in": expires_in,
            "kind": kind,
            "labels": labels,
            "max_attempts": max_attempts,
            "payload": payload,
            "priority": priority,
            "queue": queue,
            "timeout": timeout,
            "version": version,
        })

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.scheduled_job_labels import ScheduledJobLabels # noqa: PLC0415
        d = dict(src_dict)
        def _parse_expires_in(data: object) -> None | str:
            if data is None:
                return data
            return cast(None | str, data)

        expires_in = _parse_expires_in(d.pop("expires_in"))


        kind = d.pop("kind")

        labels = ScheduledJobLabels.from_dict(d.pop("labels"))




        max_attempts = d.pop("max_attempts")

        payload = d.pop("payload")

        priority = d.pop("priority")

        queue = d.pop("queue")

        def _parse_timeout(data: object) -> None | str:
            if data is None:
                return data
            return cast(None | str, data)

        timeout = _parse_timeout(d.pop("timeout"))


        version = d.pop("version")

        scheduled_job = cls(
            expires_in=expires_in,
            kind=kind,
            labels=labels,
            max_attempts=max_attempts,
            payload=payload,
            priority=priority,
            queue=queue,
            timeout=timeout,
            version=version,
        )


        scheduled_job.additional_properties = d
        return scheduled_job

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
