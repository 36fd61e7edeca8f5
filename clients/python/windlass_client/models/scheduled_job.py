from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from ..models.on_failure import check_on_failure
from ..models.on_failure import OnFailure
from ..types import UNSET, Unset
from typing import cast

if TYPE_CHECKING:
  from ..models.scheduled_job_labels import ScheduledJobLabels





T = TypeVar("T", bound="ScheduledJob")



@_attrs_define
class ScheduledJob:
    """ What a job may have to wait for when it is due: the gates on its way to a worker, apart from its queue's.

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
            limits (list[str] | Unset): At most `MAX_LIMITS`, all of which must have room.
            on_failure (OnFailure | Unset): What happens to the successors of a job with an ordering key while it waits for
                its next attempt, or is snoozed.

                - `block`: They wait until it is over, in whatever way: then they go on, also after a dead one.
                - `skip`: They go ahead; it comes first again once it is due.
            ordering_key (None | str | Unset): Whose jobs run one after the other.
            tenant (None | str | Unset): On whose behalf it runs; none is a tenant, too.
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
    limits: list[str] | Unset = UNSET
    on_failure: OnFailure | Unset = UNSET
    ordering_key: None | str | Unset = UNSET
    tenant: None | str | Unset = UNSET
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

        limits: list[str] | Unset = UNSET
        if not isinstance(self.limits, Unset):
            limits = self.limits



        on_failure: str | Unset = UNSET
        if not isinstance(self.on_failure, Unset):
            on_failure = self.on_failure


        ordering_key: None | str | Unset
        if isinstance(self.ordering_key, Unset):
            ordering_key = UNSET
        else:
            ordering_key = self.ordering_key

        tenant: None | str | Unset
        if isinstance(self.tenant, Unset):
            tenant = UNSET
        else:
            tenant = self.tenant


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
        if limits is not UNSET:
            field_dict["limits"] = limits
        if on_failure is not UNSET:
            field_dict["on_failure"] = on_failure
        if ordering_key is not UNSET:
            field_dict["ordering_key"] = ordering_key
        if tenant is not UNSET:
            field_dict["tenant"] = tenant

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

        limits = cast(list[str], d.pop("limits", UNSET))


        _on_failure = d.pop("on_failure", UNSET)
        on_failure: OnFailure | Unset
        if isinstance(_on_failure,  Unset):
            on_failure = UNSET
        else:
            on_failure = check_on_failure(_on_failure)




        def _parse_ordering_key(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        ordering_key = _parse_ordering_key(d.pop("ordering_key", UNSET))


        def _parse_tenant(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        tenant = _parse_tenant(d.pop("tenant", UNSET))


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
            limits=limits,
            on_failure=on_failure,
            ordering_key=ordering_key,
            tenant=tenant,
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
