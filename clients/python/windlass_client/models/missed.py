from typing import Literal

Missed = Literal['all', 'once', 'skip']

MISSED_VALUES: set[Missed] = { 'all', 'once', 'skip',  }

def check_missed(value: str) -> Missed:
    if value in MISSED_VALUES:
        return value
    raise TypeError(f"Unexpected value {value!r}. Expected one of {MISSED_VALUES!r}")
