""" Contains all the data models used in inputs/outputs """

from .attempt_error import AttemptError
from .attempt_errors import AttemptErrors
from .batch_item_result_type_0 import BatchItemResultType0
from .batch_item_result_type_1 import BatchItemResultType1
from .batch_result import BatchResult
from .bulk_result import BulkResult
from .bulk_selection import BulkSelection
from .changed_webhook import ChangedWebhook
from .changed_webhook_events_type_0_item import ChangedWebhookEventsType0Item
from .dead_selection import DeadSelection
from .debounce import Debounce
from .delivery import Delivery
from .delivery_list import DeliveryList
from .field_error import FieldError
from .job import Job
from .job_filter import JobFilter
from .job_filter_labels_type_0 import JobFilterLabelsType0
from .job_labels import JobLabels
from .job_list import JobList
from .job_progress import JobProgress
from .kind_info import KindInfo
from .kind_info_schemas import KindInfoSchemas
from .kind_list import KindList
from .kind_worker import KindWorker
from .lane import Lane
from .limit import Limit
from .limit_list import LimitList
from .log_level import LogLevel
from .log_line import LogLine
from .log_lines import LogLines
from .missed import Missed
from .needs import Needs
from .new_batch import NewBatch
from .new_batch_job import NewBatchJob
from .new_batch_job_labels_type_0 import NewBatchJobLabelsType0
from .new_job import NewJob
from .new_job_labels_type_0 import NewJobLabelsType0
from .new_limit import NewLimit
from .new_queue_limit import NewQueueLimit
from .new_quota import NewQuota
from .new_schedule import NewSchedule
from .new_webhook import NewWebhook
from .new_webhook_events_type_0_item import NewWebhookEventsType0Item
from .new_workflow import NewWorkflow
from .new_workflow_job import NewWorkflowJob
from .new_workflow_job_labels_type_0 import NewWorkflowJobLabelsType0
from .on_failure import OnFailure
from .parent_type_1 import ParentType1
from .problem import Problem
from .progress import Progress
from .queue import Queue
from .queue_counts import QueueCounts
from .queue_event import QueueEvent
from .queue_event_event import QueueEventEvent
from .queue_list import QueueList
from .quota import Quota
from .readiness import Readiness
from .schedule import Schedule
from .schedule_list import ScheduleList
from .scheduled_job import ScheduledJob
from .scheduled_job_labels import ScheduledJobLabels
from .state import State
from .stream_event import StreamEvent
from .stream_event_event import StreamEventEvent
from .throttle import Throttle
from .unique import Unique
from .unique_on_conflict_type_1 import UniqueOnConflictType1
from .unique_on_conflict_type_2_type_1 import UniqueOnConflictType2Type1
from .unique_on_conflict_type_3_type_1 import UniqueOnConflictType3Type1
from .webhook import Webhook
from .webhook_event import WebhookEvent
from .webhook_list import WebhookList
from .webhook_test import WebhookTest
from .webhook_with_secret import WebhookWithSecret
from .worker import Worker
from .worker_kind import WorkerKind
from .worker_list import WorkerList
from .workflow import Workflow
from .workflow_counts import WorkflowCounts
from .workflow_job import WorkflowJob
from .workflow_job_labels import WorkflowJobLabels
from .workflow_status import WorkflowStatus

__all__ = (
    "AttemptError",
    "AttemptErrors",
    "BatchItemResultType0",
    "BatchItemResultType1",
    "BatchResult",
    "BulkResult",
    "BulkSelection",
    "ChangedWebhook",
    "ChangedWebhookEventsType0Item",
    "DeadSelection",
    "Debounce",
    "Delivery",
    "DeliveryList",
    "FieldError",
    "Job",
    "JobFilter",
    "JobFilterLabelsType0",
    "JobLabels",
    "JobList",
    "JobProgress",
    "KindInfo",
    "KindInfoSchemas",
    "KindList",
    "KindWorker",
    "Lane",
    "Limit",
    "LimitList",
    "LogLevel",
    "LogLine",
    "LogLines",
    "Missed",
    "Needs",
    "NewBatch",
    "NewBatchJob",
    "NewBatchJobLabelsType0",
    "NewJob",
    "NewJobLabelsType0",
    "NewLimit",
    "NewQueueLimit",
    "NewQuota",
    "NewSchedule",
    "NewWebhook",
    "NewWebhookEventsType0Item",
    "NewWorkflow",
    "NewWorkflowJob",
    "NewWorkflowJobLabelsType0",
    "OnFailure",
    "ParentType1",
    "Problem",
    "Progress",
    "Queue",
    "QueueCounts",
    "QueueEvent",
    "QueueEventEvent",
    "QueueList",
    "Quota",
    "Readiness",
    "Schedule",
    "ScheduledJob",
    "ScheduledJobLabels",
    "ScheduleList",
    "State",
    "StreamEvent",
    "StreamEventEvent",
    "Throttle",
    "Unique",
    "UniqueOnConflictType1",
    "UniqueOnConflictType2Type1",
    "UniqueOnConflictType3Type1",
    "Webhook",
    "WebhookEvent",
    "WebhookList",
    "WebhookTest",
    "WebhookWithSecret",
    "Worker",
    "WorkerKind",
    "WorkerList",
    "Workflow",
    "WorkflowCounts",
    "WorkflowJob",
    "WorkflowJobLabels",
    "WorkflowStatus",
)
