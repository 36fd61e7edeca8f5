from typing import Literal

State = Literal['cancelled', 'dead', 'queued', 'retrying', 'running', 'scheduled', 'succeeded', 'waiting']

STATE_VALUES: set[State] = { 'cancelled', 'dead', 'queued', 'retrying', 'running', 'scheduled', 'succeeded', 'waiting',  }

def check_state(value: str) -> State:
    if value in STATE_VALUES:
        return value
    raise TypeError(f"Unexpected value {value!r}. Expected one of {STATE_VALUES!r}")
