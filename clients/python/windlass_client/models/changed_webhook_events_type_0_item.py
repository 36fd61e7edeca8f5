from typing import Literal

ChangedWebhookEventsType0Item = Literal['job.cancelled', 'job.dead', 'job.succeeded']

CHANGED_WEBHOOK_EVENTS_TYPE_0_ITEM_VALUES: set[ChangedWebhookEventsType0Item] = { 'job.cancelled', 'job.dead', 'job.succeeded',  }

def check_changed_webhook_events_type_0_item(value: str) -> ChangedWebhookEventsType0Item:
    if value in CHANGED_WEBHOOK_EVENTS_TYPE_0_ITEM_VALUES:
        return value
    raise TypeError(f"Unexpected value {value!r}. Expected one of {CHANGED_WEBHOOK_EVENTS_TYPE_0_ITEM_VALUES!r}")
