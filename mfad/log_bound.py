"""How many lines of one kind may stand in the log: what peers can cause must not fill a disk.

Room rule: one filter on the daemon's handler, so that no place that logs has to think of it. Lines are of one kind when they
come from the same logger with the same format.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

BURST = 20
INTERVAL_S = 10.0
"""At most BURST lines of a kind in this many seconds; the next one after that says how many were left out."""


@dataclass(slots=True)
class _Kind:
    since: float
    lines: int = 0
    left_out: int = 0


class BoundedLog(logging.Filter):
    """Lets a burst of each kind through and counts the rest. ``monotonic`` is seconds."""

    def __init__(self, monotonic: Callable[[], float], *, burst: int = BURST, interval_s: float = INTERVAL_S) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._burst = burst
        self._interval_s = interval_s
        # Formats are literals of the program: the table is as large as the program has log calls.
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this line is written."""
        now = self._monotonic()
        kind = self._kinds.setdefault((record.name, str(record.msg)), _Kind(now))
        if now - kind.since >= self._interval_s:
            if kind.left_out:
                record.msg = f"{record.msg} ({kind.left_out} more such lines left out)"
            kind.since, kind.lines, kind.left_out = now, 0, 0
        if kind.lines >= self._burst:
            kind.left_out += 1
            return False
        kind.lines += 1
        return True
