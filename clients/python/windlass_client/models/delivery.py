from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from ..models.state import check_state
from ..models.state import State
from ..models.webhook_event import check_webhook_event
from ..models.webhook_event import WebhookEvent
from typing import cast
from uuid import UUID
import datetime






T = TypeVar("T", bound="Delivery")



@_attrs_define
class Delivery:
    """ A delivery, and what its newest attempt came to.

        Attributes:
            at (datetime.datetime):
            attempt (int): Which attempt was the newest; 0 before the first.
            attempted_at (datetime.datetime | None):
            error (None | str):
            event (WebhookEvent): What is told.

                - `job.succeeded`: A job has succeeded.
                - `job.dead`: A job is dead.
                - `job.cancelled`: A job has been cancelled.
                - `webhook.test`: Someone tries the webhook.
            id (UUID): Names one job for ever. Time-ordered, so that the store can partition by it.
            job (None | UUID): The job that is over; none for a test.
            next_attempt_at (datetime.datetime | None):
            state (None | State): Where the job that makes it stands; none once that is no longer kept.
            status_code (int | None): What the receiver answered to it.
     """

    at: datetime.datetime
    attempt: int
    attempted_at: datetime.datetime | None
    error: None | str
    event: WebhookEvent
    id: UUID
    job: None | UUID
    next_attempt_at: datetime.datetime | None
    state: None | State
    status_code: int | None
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)





    def to_dict(self) -> dict[str, Any]:
        at = self.at.isoformat()

        attempt = self.attempt

        attempted_at: None | str
        if isinstance(self.attempted_at, datetime.datetime):
            attempted_at = self.attempted_at.isoformat()
        else:
            attempted_at = self.attempted_at

        error: None | str
        error = self.error

        event: str = self.event

        id = str(self.id)

        job: None | str
        if isinstance(self.job, UUID):
            job = str(self.job)
        else:
            job = self.job

        next_attempt_at: None | str
        if isinstance(self.next_attempt_at, datetime.datetime):
            next_attempt_at = self.next_attempt_at.isoformat()
        else:
            next_attempt_at = self.next_attempt_at

        state: None | str
        if isinstance(self.state, str):
            state = self.state
        else:
            state = self.state

        status_code: int | None
        status_code = self.status_code


        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({
            "at": at,
            "attempt": attempt,
            "attempted_at": attempted_at,
            "error": error,
            "event": event,
            "id": id,
            "job": job,
            "next_attempt_at": next_attempt_at,
            "state": state,
            "status_code": status_code,
        })

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        at = datetime.datetime.fromisoformat(d.pop("at"))




        attempt = d.pop("attempt")

        def _parse_attempted_at(data: object) -> datetime.datetime | None:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                attempted_at_type_0 = datetime.datetime.fromisoformat(data)



                return attempted_at_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None, data)

        attempted_at = _parse_attempted_at(d.pop("attempted_at"))


        def _parse_error(data: object) -> None | str:
            if data is None:
                return data
            return cast(None | str, data)

        error = _parse_error(d.pop("error"))


        event = check_webhook_event(d.pop("event"))




        id = UUID(d.pop("id"))




        def _parse_job(data: object) -> None | UUID:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                job_type_0 = UUID(data)



                return job_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | UUID, data)

        job = _parse_job(d.pop("job"))


        def _parse_next_attempt_at(data: object) -> datetime.datetime | None:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                next_attempt_at_type_0 = datetime.datetime.fromisoformat(data)



                return next_attempt_at_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None, data)

        next_attempt_at = _parse_next_attempt_at(d.pop("next_attempt_at"))


        def _parse_state(data: object) -> None | State:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                state_type_0 = check_state(data)



                return state_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | State, data)

        state = _parse_state(d.pop("state"))


        def _parse_status_code(data: object) -> int | None:
            if data is None:
                return data
            return cast(int | None, data)

        status_code = _parse_status_code(d.pop("status_code"))


        delivery = cls(
            at=at,
            attempt=attempt,
            attempted_at=attempted_at,
            error=error,
            event=event,
            id=id,
            job=job,
            next_attempt_at=next_attempt_at,
            state=state,
            status_code=status_code,
        )


        delivery.additional_properties = d
        return delivery

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
