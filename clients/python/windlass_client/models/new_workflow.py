from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, BinaryIO, TextIO, TYPE_CHECKING, Generator

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

from typing import cast

if TYPE_CHECKING:
  from ..models.new_workflow_job import NewWorkflowJob





T = TypeVar("T", bound="NewWorkflow")



@_attrs_define
class NewWorkflow:
    """ Jobs that wait for each other.

        Attributes:
            jobs (list[NewWorkflowJob]):
            name (str): What it is called; any number may have the same name.
     """

    jobs: list[NewWorkflowJob]
    name: str





    def to_dict(self) -> dict[str, Any]:
        from ..models.new_workflow_job import NewWorkflowJob # noqa: PLC0415
        jobs = []
        for jobs_item_data in self.jobs:
            jobs_item = jobs_item_data.to_dict()
            jobs.append(jobs_item)



        name = self.name


        field_dict: dict[str, Any] = {}

        field_dict.update({
            "jobs": jobs,
            "name": name,
        })

        return field_dict



    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.new_workflow_job import NewWorkflowJob # noqa: PLC0415
        d = dict(src_dict)
        jobs = []
        _jobs = d.pop("jobs")
        for jobs_item_data in (_jobs):
            jobs_item = NewWorkflowJob.from_dict(jobs_item_data)



            jobs.append(jobs_item)


        name = d.pop("name")

        new_workflow = cls(
            jobs=jobs,
            name=name,
        )

        return new_workflow

