from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from ..models.state import check_state
from ..models.state import State
from ..types import UNSET, Unset
from typing import cast
import datetime

if TYPE_CHECKING:
  from ..models.job_filter_labels_type_0 import JobFilterLabelsType0





T = TypeVar("T", bound="JobFilter")



@_attrs_define
class JobFilter:
    """ What fits all that is given.

        Attributes:
            created_after (datetime.datetime | None | Unset):
            created_before (datetime.datetime | None | Unset):
            kind (None | str | Unset):
            labels (JobFilterLabelsType0 | None | Unset): With all of these labels.
            queue (None | str | Unset):
            state (list[State] | None | State | Unset): In one of these states, of which the operation must have a use for
                each.
            tenant (None | str | Unset): On behalf of this tenant.
     """

    created_after: datetime.datetime | None | Unset = UNSET
    created_before: datetime.datetime | None | Unset = UNSET
    kind: None | str | Unset = UNSET
    labels: JobFilterLabelsType0 | None | Unset = UNSET
    queue: None | str | Unset = UNSET
    state: list[State] | None | State | Unset = UNSET
    tenant: None | str | Unset = UNSET





    def to_dict(self) -> dict[str, Any]:
        from ..models.job_filter_labels_type_0 import JobFilterLabelsType0 # noqa: PLC0415
        created_after: None | str | Unset
        if isinstance(self.created_after, Unset):
            created_after = UNSET
        elif isinstance(self.created_after, datetime.datetime):
            created_after = self.created_after.isoformat()
        else:
            created_after = self.created_after

        created_before: None | str | Unset
        if isinstance(self.created_before, Unset):
            created_before = UNSET
        elif isinstance(self.created_before, datetime.datetime):
            created_before = self.created_before.isoformat()
        else:
            created_before = self.created_before

        kind: None | str | Unset
        if isinstance(self.kind, Unset):
            kind = UNSET
        else:
            kind = self.kind

        labels: dict[str, Any] | None | Unset
        if isinstance(self.labels, Unset):
            labels = UNSET
        elif isinstance(self.labels, JobFilterLabelsType0):
            labels = self.labels.to_dict()
        else:
            labels = self.labels

        queue: None | str | Unset
        if isinstance(self.queue, Unset):
            queue = UNSET
        else:
            queue = self.queue

        state: list[str] | None | str | Unset
        if isinstance(self.state, Unset):
            state = UNSET
        elif isinstance(self.state, str):
            state = self.state
        elif isinstance(self.state, list):
            state = []
            for state_type_0_type_1_item_data in self.state:
                state_type_0_type_1_item: str = state_type_0_type_1_item_data
                state.append(state_type_0_type_1_item)


        else:
            state = self.state

        tenant: None | str | Unset
        if isinstance(self.tenant, Unset):
            tenant = UNSET
        else:
            tenant = self.tenant


        field_dict: dict[str, Any] = {}

        field_dict.update({
        })
        if created_after is not UNSET:
            field_dict["created_after"] = created_after
        if created_before is not UNSET:
            field_dict["created_before"] = created_before
        if kind is not UNSET:
            field_dict["kind"] = kind
        if labels is not UNSET:
            field_dict["labels"] = labels
        if queue is not UNSET:
            field_dict["queue"] = queue
        if state is not UNSET:
            field_dict["state"] = state
        if tenant is not UNSET:
            field_dict["tenant"] = tenant

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.job_filter_labels_type_0 import JobFilterLabelsType0 # noqa: PLC0415
        d = dict(src_dict)
        def _parse_created_after(data: object) -> datetime.datetime | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                created_after_type_0 = datetime.datetime.fromisoformat(data)



                return created_after_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None | Unset, data)

        created_after = _parse_created_after(d.pop("created_after", UNSET))


        def _parse_created_before(data: object) -> datetime.datetime | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                created_before_type_0 = datetime.datetime.fromisoformat(data)



                return created_before_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None | Unset, data)

        created_before = _parse_created_before(d.pop("created_before", UNSET))


        def _parse_kind(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        kind = _parse_kind(d.pop("kind", UNSET))


        def _parse_labels(data: object) -> JobFilterLabelsType0 | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                labels_type_0 = JobFilterLabelsType0.from_dict(data)



                return labels_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(JobFilterLabelsType0 | None | Unset, data)

        labels = _parse_labels(d.pop("labels", UNSET))


        def _parse_queue(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        queue = _parse_queue(d.pop("queue", UNSET))


        def _parse_state(data: object) -> list[State] | None | State | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                state_type_0_type_0 = check_state(data)



                return state_type_0_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            try:
                if not isinstance(data, list):
                    raise TypeError()
                state_type_0_type_1 = []
                _state_type_0_type_1 = data
                for state_type_0_type_1_item_data in (_state_type_0_type_1):
                    state_type_0_type_1_item = check_state(state_type_0_type_1_item_data)



                    state_type_0_type_1.append(state_type_0_type_1_item)

                return state_type_0_type_1
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(list[State] | None | State | Unset, data)

        state = _parse_state(d.pop("state", UNSET))


        def _parse_tenant(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        tenant = _parse_tenant(d.pop("tenant", UNSET))


        job_filter = cls(
            created_after=created_after,
            created_before=created_before,
            kind=kind,
            labels=labels,
            queue=queue,
            state=state,
            tenant=tenant,
        )

        return job_filter

