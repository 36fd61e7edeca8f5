from typing import Literal

UniqueOnConflictType1 = Literal['existing', 'refuse', 'replace', 'replace_all']

UNIQUE_ON_CONFLICT_TYPE_1_VALUES: set[UniqueOnConflictType1] = { 'existing', 'refuse', 'replace', 'replace_all',  }

def check_unique_on_conflict_type_1(value: str) -> UniqueOnConflictType1:
    if value in UNIQUE_ON_CONFLICT_TYPE_1_VALUES:
        return value
    raise TypeError(f"Unexpected value {value!r}. Expected one of {UNIQUE_ON_CONFLICT_TYPE_1_VALUES!r}")
