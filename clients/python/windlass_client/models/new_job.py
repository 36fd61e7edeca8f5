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
import datetime

if TYPE_CHECKING:
  from ..models.debounce import Debounce
  from ..models.new_job_labels_type_0 import NewJobLabelsType0
  from ..models.throttle import Throttle
  from ..models.unique import Unique





T = TypeVar("T", bound="NewJob")



@_attrs_define
class NewJob:
    """ A job to be done.

    At most one of `run_at` and `delay`, of `expires_at` and `expires_in`, and of `unique`, `debounce` and `throttle`.

        Attributes:
            kind (str): What the job is. Unless `api_unknown_kinds` is `accept`, a worker must have handled it before.
            payload (Any): What the handler gets: any JSON that fits the kind's schema, if it has one.
            deadline (datetime.datetime | None | Unset): It is over by then, whatever happens. To come, and after it is due.
            debounce (Debounce | None | Unset):
            delay (None | str | Unset): In what time it is due.
            expires_at (datetime.datetime | None | Unset): It is not started from then on. To come, and after it is due.
            expires_in (None | str | Unset): In what time it is no longer started.
            labels (NewJobLabelsType0 | None | Unset): Up to 64 names of 1 to 63 bytes, each with a text of up to 255.
            limits (list[str] | None | Unset): The limits that must have room for it, each `name` or `name/key`.
            max_attempts (int | None | Unset): How many attempts it gets; unless given, as many as the kind says.
            on_failure (None | OnFailure | Unset): What a failure means to its successors; only with an `ordering_key`.
            ordering_key (None | str | Unset): Jobs of one key run one at a time, in the order of their acceptance.
            priority (int | None | Unset): 1 (normal) unless given.
            queue (None | str | Unset): Unless given, the queue of the kind.
            run_at (datetime.datetime | None | Unset): When it is due; at once unless given.
            tenant (None | str | Unset): On whose behalf it runs.
            throttle (None | Throttle | Unset):
            timeout (None | str | Unset): How long an attempt may take.
            unique (None | Unique | Unset):
            version (int | None | Unset): The version of the payload; 1 unless given.
     """

    kind: str
    payload: Any
    deadline: datetime.datetime | None | Unset = UNSET
    debounce: Debounce | None | Unset = UNSET
    delay: None | str | Unset = UNSET
    expires_at: datetime.datetime | None | Unset = UNSET
    expires_in: None | str | Unset = UNSET
    labels: NewJobLabelsType0 | None | Unset = UNSET
    limits: list[str] | None | Unset = UNSET
    max_attempts: int | None | Unset = UNSET
    on_failure: None | OnFailure | Unset = UNSET
    ordering_key: None | str | Unset = UNSET
    priority: int | None | Unset = UNSET
    queue: None | str | Unset = UNSET
    run_at: datetime.datetime | None | Unset = UNSET
    tenant: None | str | Unset = UNSET
    throttle: None | Throttle | Unset = UNSET
    timeout: None | str | Unset = UNSET
    unique: None | Unique | Unset = UNSET
    version: int | None | Unset = UNSET





    def to_dict(self) -> dict[str, Any]:
        from ..models.debounce import Debounce # noqa: PLC0415
        from ..models.new_job_labels_type_0 import NewJobLabelsType0 # noqa: PLC0415
        from ..models.throttle import Throttle # noqa: PLC0415
        from ..models.unique import Unique # noqa: PLC0415
        kind = self.kind

        payload = self.payload

        deadline: None | str | Unset
        if isinstance(self.deadline, Unset):
            deadline = UNSET
        elif isinstance(self.deadline, datetime.datetime):
            deadline = self.deadline.isoformat()
        else:
            deadline = self.deadline

        debounce: dict[str, Any] | None | Unset
        if isinstance(self.debounce, Unset):
            debounce = UNSET
        elif isinstance(self.debounce, Debounce):
            debounce = self.debounce.to_dict()
        else:
            debounce = self.debounce

        delay: None | str | Unset
        if isinstance(self.delay, Unset):
            delay = UNSET
        else:
            delay = self.delay

        expires_at: None | str | Unset
        if isinstance(self.expires_at, Unset):
            expires_at = UNSET
        elif isinstance(self.expires_at, datetime.datetime):
            expires_at = self.expires_at.isoformat()
        else:
            expires_at = self.expires_at

        expires_in: None | str | Unset
        if isinstance(self.expires_in, Unset):
            expires_in = UNSET
        else:
            expires_in = self.expires_in

        labels: dict[str, Any] | None | Unset
        if isinstance(self.labels, Unset):
            labels = UNSET
        elif isinstance(self.labels, NewJobLabelsType0):
            labels = self.labels.to_dict()
        else:
            labels = self.labels

        limits: list[str] | None | Unset
        if isinstance(self.limits, Unset):
            limits = UNSET
        elif isinstance(self.limits, list):
            limits = self.limits


        else:
            limits = self.limits

        max_attempts: int | None | Unset
        if isinstance(self.max_attempts, Unset):
            max_attempts = UNSET
        else:
            max_attempts = self.max_attempts

        on_failure: None | str | Unset
        if isinstance(self.on_failure, Unset):
            on_failure = UNSET
        elif isinstance(self.on_failure, str):
            on_failure = self.on_failure
        else:
            on_failure = self.on_failure

        ordering_key: None | str | Unset
        if isinstance(self.ordering_key, Unset):
            ordering_key = UNSET
        else:
            ordering_key = self.ordering_key

        priority: int | None | Unset
        if isinstance(self.priority, Unset):
            priority = UNSET
        else:
            priority = self.priority

        queue: None | str | Unset
        if isinstance(self.queue, Unset):
            queue = UNSET
        else:
            queue = self.queue

        run_at: None | str | Unset
        if isinstance(self.run_at, Unset):
            run_at = UNSET
        elif isinstance(self.run_at, datetime.datetime):
            run_at = self.run_at.isoformat()
        else:
            run_at = self.run_at

        tenant: None | str | Unset
        if isinstance(self.tenant, Unset):
            tenant = UNSET
        else:
            tenant = self.tenant

        throttle: dict[str, Any] | None | Unset
        if isinstance(self.throttle, Unset):
            throttle = UNSET
        elif isinstance(self.throttle, Throttle):
            throttle = self.throttle.to_dict()
        else:
            throttle = self.throttle

        timeout: None | str | Unset
        if isinstance(self.timeout, Unset):
            timeout = UNSET
        else:
            timeout = self.timeout

        unique: dict[str, Any] | None | Unset
        if isinstance(self.unique, Unset):
            unique = UNSET
        elif isinstance(self.unique, Unique):
            unique = self.unique.to_dict()
        else:
            unique = self.unique

        version: int | None | Unset
        if isinstance(self.version, Unset):
            version = UNSET
        else:
            version = self.version


        field_dict: dict[str, Any] = {}

        field_dict.update({
            "kind": kind,
            "payload": payload,
        })
        if deadline is not UNSET:
            field_dict["deadline"] = deadline
        if debounce is not UNSET:
            field_dict["debounce"] = debounce
        if delay is not UNSET:
            field_dict["delay"] = delay
        if expires_at is not UNSET:
            field_dict["expires_at"] = expires_at
        if expires_in is not UNSET:
            field_dict["expires_in"] = expires_in
        if labels is not UNSET:
            field_dict["labels"] = labels
        if limits is not UNSET:
            field_dict["limits"] = limits
        if max_attempts is not UNSET:
            field_dict["max_attempts"] = max_attempts
        if on_failure is not UNSET:
            field_dict["on_failure"] = on_failure
        if ordering_key is not UNSET:
            field_dict["ordering_key"] = ordering_key
        if priority is not UNSET:
            field_dict["priority"] = priority
        if queue is not UNSET:
            field_dict["queue"] = queue
        if run_at is not UNSET:
            field_dict["run_at"] = run_at
        if tenant is not UNSET:
            field_dict["tenant"] = tenant
        if throttle is not UNSET:
            field_dict["throttle"] = throttle
        if timeout is not UNSET:
            field_dict["timeout"] = timeout
        if unique is not UNSET:
            field_dict["unique"] = unique
        if version is not UNSET:
            field_dict["version"] = version

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.debounce import Debounce # noqa: PLC0415
        from ..models.new_job_labels_type_0 import NewJobLabelsType0 # noqa: PLC0415
        from ..models.throttle import Throttle # noqa: PLC0415
        from ..models.unique import Unique # noqa: PLC0415
        d = dict(src_dict)
        kind = d.pop("kind")

        payload = d.pop("payload")

        def _parse_deadline(data: object) -> datetime.datetime | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                deadline_type_0 = datetime.datetime.fromisoformat(data)



                return deadline_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None | Unset, data)

        deadline = _parse_deadline(d.pop("deadline", UNSET))


        def _parse_debounce(data: object) -> Debounce | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                debounce_type_0 = Debounce.from_dict(data)



                return debounce_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(Debounce | None | Unset, data)

        debounce = _parse_debounce(d.pop("debounce", UNSET))


        def _parse_delay(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        delay = _parse_delay(d.pop("delay", UNSET))


        def _parse_expires_at(data: object) -> datetime.datetime | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                expires_at_type_0 = datetime.datetime.fromisoformat(data)



                return expires_at_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None | Unset, data)

        expires_at = _parse_expires_at(d.pop("expires_at", UNSET))


        def _parse_expires_in(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        expires_in = _parse_expires_in(d.pop("expires_in", UNSET))


        def _parse_labels(data: object) -> NewJobLabelsType0 | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                labels_type_0 = NewJobLabelsType0.from_dict(data)



                return labels_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(NewJobLabelsType0 | None | Unset, data)

        labels = _parse_labels(d.pop("labels", UNSET))


        def _parse_limits(data: object) -> list[str] | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, list):
                    raise TypeError()
                limits_type_0 = cast(list[str], data)

                return limits_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(list[str] | None | Unset, data)

        limits = _parse_limits(d.pop("limits", UNSET))


        def _parse_max_attempts(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        max_attempts = _parse_max_attempts(d.pop("max_attempts", UNSET))


        def _parse_on_failure(data: object) -> None | OnFailure | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                on_failure_type_0 = check_on_failure(data)



                return on_failure_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | OnFailure | Unset, data)

        on_failure = _parse_on_failure(d.pop("on_failure", UNSET))


        def _parse_ordering_key(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        ordering_key = _parse_ordering_key(d.pop("ordering_key", UNSET))


        def _parse_priority(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        priority = _parse_priority(d.pop("priority", UNSET))


        def _parse_queue(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        queue = _parse_queue(d.pop("queue", UNSET))


        def _parse_run_at(data: object) -> datetime.datetime | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                run_at_type_0 = datetime.datetime.fromisoformat(data)



                return run_at_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None | Unset, data)

        run_at = _parse_run_at(d.pop("run_at", UNSET))


        def _parse_tenant(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        tenant = _parse_tenant(d.pop("tenant", UNSET))


        def _parse_throttle(data: object) -> None | Throttle | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                throttle_type_0 = Throttle.from_dict(data)



                return throttle_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | Throttle | Unset, data)

        throttle = _parse_throttle(d.pop("throttle", UNSET))


        def _parse_timeout(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        timeout = _parse_timeout(d.pop("timeout", UNSET))


        def _parse_unique(data: object) -> None | Unique | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                unique_type_0 = Unique.from_dict(data)



                return unique_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | Unique | Unset, data)

        unique = _parse_unique(d.pop("unique", UNSET))


        def _parse_version(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        version = _parse_version(d.pop("version", UNSET))


        new_job = cls(
            kind=kind,
            payload=payload,
            deadline=deadline,
            debounce=debounce,
            delay=delay,
            expires_at=expires_at,
            expires_in=expires_in,
            labels=labels,
            limits=limits,
            max_attempts=max_attempts,
            on_failure=on_failure,
            ordering_key=ordering_key,
            priority=priority,
            queue=queue,
            run_at=run_at,
            tenant=tenant,
            throttle=throttle,
            timeout=timeout,
            unique=unique,
            version=version,
        )

        return new_job

