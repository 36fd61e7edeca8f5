from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from typing import cast

if TYPE_CHECKING:
  from ..models.lane import Lane
  from ..models.queue_counts import QueueCounts





T = TypeVar("T", bound="Queue")



@_attrs_define
class Queue:
    """ A queue with what is in it.

        Attributes:
            burst (int | None):
            counts (QueueCounts): How many jobs are in those states that are counted at once.
            counts_complete (bool): If not, there are more jobs in these states than are counted at once, in this queue or
                in others.
            depth (int | None): How many jobs wait for a worker, as the broker counts them; null where it cannot, or does
                not answer.
            draining (bool):
            fair (bool):
            fair_window (int | None):
            lanes (list[Lane]): The same by priority, most urgent first.
            max_running (int | None):
            name (str):
            paused (bool):
            per (None | str):
            rate (int | None):
     """

    burst: int | None
    counts: QueueCounts
    counts_complete: bool
    depth: int | None
    draining: bool
    fair: bool
    fair_window: int | None
    lanes: list[Lane]
    max_running: int | None
    name: str
    paused: bool
    per: None | str
    rate: int | None
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)





    def to_dict(self) -> dict[str, Any]:
        from ..models.lane import Lane # noqa: PLC0415
        from ..models.queue_counts import QueueCounts # noqa: PLC0415
        burst: int | None
        burst = self.burst

        counts = self.counts.to_dict()

        counts_complete = self.counts_complete

        depth: int | None
        depth = self.depth

        draining = self.draining

        fair = self.fair

        fair_window: int | None
        fair_window = self.fair_window

        lanes = []
        for lanes_item_data in self.lanes:
            lanes_item = lanes_item_data.to_dict()
            lanes.append(lanes_item)



        max_running: int | None
        max_running = self.max_running

        name = self.name

        paused = self.paused

        per: None | str
        per = self.per

        rate: int | None
        rate = self.rate


        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({
            "burst": burst,
            "counts": counts,
            "counts_complete": counts_complete,
            "depth": depth,
            "draining": draining,
            "fair": fair,
            "fair_window": fair_window,
            "lanes": lanes,
            "max_running": max_running,
            "name": name,
            "paused": paused,
            "per": per,
            "rate": rate,
        })

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.lane import Lane # noqa: PLC0415
        from ..models.queue_counts import QueueCounts # noqa: PLC0415
        d = dict(src_dict)
        def _parse_burst(data: object) -> int | None:
            if data is None:
                return data
            return cast(int | None, data)

        burst = _parse_burst(d.pop("burst"))


        counts = QueueCounts.from_dict(d.pop("counts"))




        counts_complete = d.pop("counts_complete")

        def _parse_depth(data: object) -> int | None:
            if data is None:
                return data
            return cast(int | None, data)

        depth = _parse_depth(d.pop("depth"))


        draining = d.pop("draining")

        fair = d.pop("fair")

        def _parse_fair_window(data: object) -> int | None:
            if data is None:
                return data
            return cast(int | None, data)

        fair_window = _parse_fair_window(d.pop("fair_window"))


        lanes = []
        _lanes = d.pop("lanes")
        for lanes_item_data in (_lanes):
            lanes_item = Lane.from_dict(lanes_item_data)



            lanes.append(lanes_item)


        def _parse_max_running(data: object) -> int | None:
            if data is None:
                return data
            return cast(int | None, data)

        max_running = _parse_max_running(d.pop("max_running"))


        name = d.pop("name")

        paused = d.pop("paused")

        def _parse_per(data: object) -> None | str:
            if data is None:
                return data
            return cast(None | str, data)

        per = _parse_per(d.pop("per"))


        def _parse_rate(data: object) -> int | None:
            if data is None:
                return data
            return cast(int | None, data)

        rate = _parse_rate(d.pop("rate"))


        queue = cls(
            burst=burst,
            counts=counts,
            counts_complete=counts_complete,
            depth=depth,
            draining=draining,
            fair=fair,
            fair_window=fair_window,
            lanes=lanes,
            max_running=max_running,
            name=name,
            paused=paused,
            per=per,
            rate=rate,
        )


        queue.additional_properties = d
        return queue

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
