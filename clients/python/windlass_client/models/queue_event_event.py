from typing import Literal

QueueEventEvent = Literal['job', 'lagged', 'ready']

QUEUE_EVENT_EVENT_VALUES: set[QueueEventEvent] = { 'job', 'lagged', 'ready',  }

def check_queue_event_event(value: str) -> QueueEventEvent:
    if value in QUEUE_EVENT_EVENT_VALUES:
        return value
    raise TypeError(f"Unexpected value {value!r}. Expected one of {QUEUE_EVENT_EVENT_VALUES!r}")
