from typing import Literal

StreamEventEvent = Literal['end', 'job', 'removed', 'unavailable']

STREAM_EVENT_EVENT_VALUES: set[StreamEventEvent] = { 'end', 'job', 'removed', 'unavailable',  }

def check_stream_event_event(value: str) -> StreamEventEvent:
    if value in STREAM_EVENT_EVENT_VALUES:
        return value
    raise TypeError(f"Unexpected value {value!r}. Expected one of {STREAM_EVENT_EVENT_VALUES!r}")
