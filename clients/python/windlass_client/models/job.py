from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from ..models.on_failure import check_on_failure
from ..models.on_failure import OnFailure
from ..models.state import check_state
from ..models.state import State
from ..types import UNSET, Unset
from typing import cast
from uuid import UUID
import datetime

if TYPE_CHECKING:
  from ..models.attempt_error import AttemptError
  from ..models.job_labels import JobLabels
  from ..models.progress import Progress





T = TypeVar("T", bound="Job")



@_attrs_define
class Job:
    """ A job as clients see it.

        Attributes:
            attempt (int):
            created_at (datetime.datetime):
            deadline (datetime.datetime | None):
            errors (list[AttemptError]):
            expires_at (datetime.datetime | None):
            finished_at (datetime.datetime | None):
            id (UUID): Names one job for ever. Time-ordered, so that the store can partition by it.
            kind (str):
            labels (JobLabels):
            max_attempts (int):
            priority (int): 0 (low), 1 (normal), 2 (high) or 3 (urgent).
            progress (None | Progress):
            queue (str):
            result (Any):
            run_at (datetime.datetime | None):
            started_at (datetime.datetime | None):
            state (State): Where a job stands. The number is what stores keep; it never changes meaning.

                - `scheduled`: Waits for its time.
                - `queued`: Waits for a worker.
                - `running`: A worker holds it under a lease.
                - `retrying`: Failed, and waits for its next attempt.
                - `succeeded`: Done. Terminal.
                - `cancelled`: Called off. Terminal.
                - `dead`: Given up: attempts used up, discarded, quarantined, or expired. Terminal.
                - `waiting`: Waits for other jobs: for its parents, for its turn, or for room under a limit.
            version (int):
            limits (list[str] | Unset): At most `MAX_LIMITS`, all of which must have room.
            on_failure (OnFailure | Unset): What happens to the successors of a job with an ordering key while it waits for
                its next attempt, or is snoozed.

                - `block`: They wait until it is over, in whatever way: then they go on, also after a dead one.
                - `skip`: They go ahead; it comes first again once it is due.
            ordering_key (None | str | Unset): Whose jobs run one after the other.
            tenant (None | str | Unset): On whose behalf it runs; none is a tenant, too.
     """

    attempt: int
    created_at: datetime.datetime
    deadline: datetime.datetime | None
    errors: list[AttemptError]
    expires_at: datetime.datetime | None
    finished_at: datetime.datetime | None
    id: UUID
    kind: str
    labels: JobLabels
    max_attempts: int
    priority: int
    progress: None | Progress
    queue: str
    result: Any
    run_at: datetime.datetime | None
    started_at: datetime.datetime | None
    state: State
    version: int
    limits: list[str] | Unset = UNSET
    on_failure: OnFailure | Unset = UNSET
    ordering_key: None | str | Unset = UNSET
    tenant: None | str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)





    def to_dict(self) -> dict[str, Any]:
        from ..models.attempt_error import AttemptError # noqa: PLC0415
        from ..models.job_labels import JobLabels # noqa: PLC0415
        from ..models.progress import Progress # noqa: PLC0415
        attempt = self.attempt

        created_at = self.created_at.isoformat()

        deadline: None | str
        if isinstance(self.deadline, datetime.datetime):
            deadline = self.deadline.isoformat()
        else:
            deadline = self.deadline

        errors = []
        for errors_item_data in self.errors:
            errors_item = errors_item_data.to_dict()
            errors.append(errors_item)



        expires_at: None | str
        if isinstance(self.expires_at, datetime.datetime):
            expires_at = self.expires_at.isoformat()
        else:
            expires_at = self.expires_at

        finished_at: None | str
        if isinstance(self.finished_at, datetime.datetime):
            finished_at = self.finished_at.isoformat()
        else:
            finished_at = self.finished_at

        id = str(self.id)

        kind = self.kind

        labels = self.labels.to_dict()

        max_attempts = self.max_attempts

        priority = self.priority

        progress: dict[str, Any] | None
        if isinstance(self.progress, Progress):
            progress = self.progress.to_dict()
        else:
            progress = self.progress

        queue = self.queue

        result = self.result

        run_at: None | str
        if isinstance(self.run_at, datetime.datetime):
            run_at = self.run_at.isoformat()
        else:
            run_at = self.run_at

        started_at: None | str
        if isinstance(self.started_at, datetime.datetime):
            started_at = self.started_at.isoformat()
        else:
            started_at = self.started_at

        state: str = self.state

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
            "attempt": attempt,
            "created_at": created_at,
            "deadline": deadline,
            "errors": errors,
            "expires_at": expires_at,
            "finished_at": finished_at,
            "id": id,
            "kind": kind,
            "labels": labels,
            "max_attempts": max_attempts,
            "priority": priority,
            "progress": progress,
            "queue": queue,
            "result": result,
            "run_at": run_at,
            "started_at": started_at,
            "state": state,
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
        from ..models.attempt_error import AttemptError # noqa: PLC0415
        from ..models.job_labels import JobLabels # noqa: PLC0415
        from ..models.progress import Progress # noqa: PLC0415
        d = dict(src_dict)
        attempt = d.pop("attempt")

        created_at = datetime.datetime.fromisoformat(d.pop("created_at"))




        def _parse_deadline(data: object) -> datetime.datetime | None:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                deadline_type_0 = datetime.datetime.fromisoformat(data)



                return deadline_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None, data)

        deadline = _parse_deadline(d.pop("deadline"))


        errors = []
        _errors = d.pop("errors")
        for errors_item_data in (_errors):
            errors_item = AttemptError.from_dict(errors_item_data)



            errors.append(errors_item)


        def _parse_expires_at(data: object) -> datetime.datetime | None:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                expires_at_type_0 = datetime.datetime.fromisoformat(data)



                return expires_at_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None, data)

        expires_at = _parse_expires_at(d.pop("expires_at"))


        def _parse_finished_at(data: object) -> datetime.datetime | None:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                finished_at_type_0 = datetime.datetime.fromisoformat(data)



                return finished_at_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None, data)

        finished_at = _parse_finished_at(d.pop("finished_at"))


        id = UUID(d.pop("id"))




        kind = d.pop("kind")

        labels = JobLabels.from_dict(d.pop("labels"))




        max_attempts = d.pop("max_attempts")

        priority = d.pop("priority")

        def _parse_progress(data: object) -> None | Progress:
            if data is None:
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                progress_type_0 = Progress.from_dict(data)



                return progress_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | Progress, data)

        progress = _parse_progress(d.pop("progress"))


        queue = d.pop("queue")

        result = d.pop("result")

        def _parse_run_at(data: object) -> datetime.datetime | None:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                run_at_type_0 = datetime.datetime.fromisoformat(data)



                return run_at_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None, data)

        run_at = _parse_run_at(d.pop("run_at"))


        def _parse_started_at(data: object) -> datetime.datetime | None:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                started_at_type_0 = datetime.datetime.fromisoformat(data)



                return started_at_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None, data)

        started_at = _parse_started_at(d.pop("started_at"))


        state = check_state(d.pop("state"))




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


        job = cls(
            attempt=attempt,
            created_at=created_at,
            deadline=deadline,
            errors=errors,
            expires_at=expires_at,
            finished_at=finished_at,
            id=id,
            kind=kind,
            labels=labels,
            max_attempts=max_attempts,
            priority=priority,
            progress=progress,
            queue=queue,
            result=result,
            run_at=run_at,
            started_at=started_at,
            state=state,
            version=version,
            limits=limits,
            on_failure=on_failure,
            ordering_key=ordering_key,
            tenant=tenant,
        )


        job.additional_properties = d
        return job

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
