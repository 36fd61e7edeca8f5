from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from typing import cast

if TYPE_CHECKING:
  from ..models.batch_item_result_type_0 import BatchItemResultType0
  from ..models.batch_item_result_type_1 import BatchItemResultType1





T = TypeVar("T", bound="BatchResult")



@_attrs_define
class BatchResult:
    """ 
        Attributes:
            jobs (list[BatchItemResultType0 | BatchItemResultType1]): In the order of the request's.
     """

    jobs: list[BatchItemResultType0 | BatchItemResultType1]
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)





    def to_dict(self) -> dict[str, Any]:
        from ..models.batch_item_result_type_0 import BatchItemResultType0 # noqa: PLC0415
        from ..models.batch_item_result_type_1 import BatchItemResultType1 # noqa: PLC0415
        jobs = []
        for jobs_item_data in self.jobs:
            jobs_item: dict[str, Any]
            if isinstance(jobs_item_data, BatchItemResultType0):
                jobs_item = jobs_item_data.to_dict()
            else:
                jobs_item = jobs_item_data.to_dict()

            jobs.append(jobs_item)




        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({
            "jobs": jobs,
        })

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.batch_item_result_type_0 import BatchItemResultType0 # noqa: PLC0415
        from ..models.batch_item_result_type_1 import BatchItemResultType1 # noqa: PLC0415
        d = dict(src_dict)
        jobs = []
        _jobs = d.pop("jobs")
        for jobs_item_data in (_jobs):
            def _parse_jobs_item(data: object) -> BatchItemResultType0 | BatchItemResultType1:
                try:
                    if not isinstance(data, dict):
                        raise TypeError()
                    componentsschemas_batch_item_result_type_0 = BatchItemResultType0.from_dict(data)



                    return componentsschemas_batch_item_result_type_0
                except (TypeError, ValueError, AttributeError, KeyError):
                    pass
                if not isinstance(data, dict):
                    raise TypeError()
                componentsschemas_batch_item_result_type_1 = BatchItemResultType1.from_dict(data)



                return componentsschemas_batch_item_result_type_1

            jobs_item = _parse_jobs_item(jobs_item_data)

            jobs.append(jobs_item)


        batch_result = cls(
            jobs=jobs,
        )


        batch_result.additional_properties = d
        return batch_result

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
