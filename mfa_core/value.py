"""How is a value declared that every login makes several of?

Room rule: one decorator, and why. A frozen dataclass sets each field through ``object.__setattr__``, which refuses nothing here
and takes four times as long as an assignment: of a login's processor time it was a tenth. A *hot value* is frozen to the type
checker, which refuses every assignment to a field, and an ordinary class with slots when the program runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def hot_value(cls: type[T]) -> type[T]:
    """A dataclass with slots, equality and a hash over its fields; frozen where types are checked."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
