from typing import Literal

Needs = Literal['finished', 'succeeded']

NEEDS_VALUES: set[Needs] = { 'finished', 'succeeded',  }

def check_needs(value: str) -> Needs:
    if value in NEEDS_VALUES:
        return value
    raise TypeError(f"Unexpected value {value!r}. Expected one of {NEEDS_VALUES!r}")
