from typing import Literal

NewWebhookEventsType0Item = Literal['job.cancelled', 'job.dead', 'job.succeeded']

NEW_WEBHOOK_EVENTS_TYPE_0_ITEM_VALUES: set[NewWebhookEventsType0Item] = { 'job.cancelled', 'job.dead', 'job.succeeded',  }

def check_new_webhook_events_type_0_item(value: str) -> NewWebhookEventsType0Item:
    if value in NEW_WEBHOOK_EVENTS_TYPE_0_ITEM_VALUES:
        return value
    raise TypeError(f"Unexpected value {value!r}. Expected one of {NEW_WEBHOOK_EVENTS_TYPE_0_ITEM_VALUES!r}")
