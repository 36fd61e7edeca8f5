from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from typing import cast

if TYPE_CHECKING:
  from ..models.kind_info_schemas import KindInfoSchemas
  from ..models.kind_worker import KindWorker





T = TypeVar("T", bound="KindInfo")



@_attrs_define
class KindInfo:
    """ 
        Attributes:
            kind (str):
            max_attempts (int):
            queue (str): Where its jobs go, and how many attempts they get, unless the enqueue says otherwise.
            schemas (KindInfoSchemas): The JSON Schema of the payload in each version that has one.
            version (int): The newest that a worker has ever handled.
            workers (list[KindWorker]): The workers that handle it now.
     """

    kind: str
    max_attempts: int
    queue: str
    schemas: KindInfoSchemas
    version: int
    workers: list[KindWorker]
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)





    def to_dict(self) -> dict[str, Any]:
        from ..models.kind_info_schemas import KindInfoSchemas # noqa: PLC0415
        from ..models.kind_worker import KindWorker # noqa: PLC0415
        kind = self.kind

        max_attempts = self.max_attempts

        queue = self.queue

        schemas = self.schemas.to_dict()

        version = self.version

        workers = []
        for workers_item_data in self.workers:
            workers_item = workers_item_data.to_dict()
            workers.append(workers_item)




        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({
            "kind": kind,
            "max_attempts": max_attempts,
            "queue": queue,
            "schemas": schemas,
            "version": version,
            "workers": workers,
        })

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.kind_info_schemas import KindInfoSchemas # noqa: PLC0415
        from ..models.kind_worker import KindWorker # noqa: PLC0415
        d = dict(src_dict)
        kind = d.pop("kind")

        max_attempts = d.pop("max_attempts")

        queue = d.pop("queue")

        schemas = KindInfoSchemas.from_dict(d.pop("schemas"))




        version = d.pop("version")

        workers = []
        _workers = d.pop("workers")
        for workers_item_data in (_workers):
            workers_item = KindWorker.from_dict(workers_item_data)



            workers.append(workers_item)


        kind_info = cls(
            kind=kind,
            max_attempts=max_attempts,
            queue=queue,
            schemas=schemas,
            version=version,
            workers=workers,
        )


        kind_info.additional_properties = d
        return kind_info

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
