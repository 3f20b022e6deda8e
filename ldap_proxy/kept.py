"""What was asked a moment ago, and is still taken for true?

Room rule: a bounded table with a time; what it holds is its user's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Kept(Generic[Key, Value]):
    """Values for a while, at most ``max_entries``; the oldest goes first. ``monotonic`` returns seconds."""

    def __init__(self, *, max_entries: int, monotonic: Callable[[], float]) -> None:
        self._max_entries = max_entries
        self._monotonic = monotonic
        self._kept: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key) -> Value | None:
        """What is kept and still good; else None."""
        found = self._kept.get(key)
        if found is None or self._monotonic() >= found[0]:
            return None
        return found[1]

    def put(self, key: Key, value: Value, keep_s: float) -> None:
        """Keep it for so long; 0 is not at all."""
        self._kept.pop(key, None)
        if keep_s <= 0:
            return
        self._kept[key] = (self._monotonic() + keep_s, value)
        if len(self._kept) > self._max_entries:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget all of it."""
        self._kept.clear()
