from typing import Literal

OnFailure = Literal['block', 'skip']

ON_FAILURE_VALUES: set[OnFailure] = { 'block', 'skip',  }

def check_on_failure(value: str) -> OnFailure:
    if value in ON_FAILURE_VALUES:
        return value
    raise TypeError(f"Unexpected value {value!r}. Expected one of {ON_FAILURE_VALUES!r}")
