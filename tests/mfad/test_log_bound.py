"""The bound on lines of one kind."""

from __future__ import annotations

import logging

from mfad.log_bound import BoundedLog


class Clock:
    """Seconds that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def written(bound: BoundedLog, name: str, text: str, *arguments: object) -> str | None:
    """What stands in the log after this call; None when nothing does."""
    record = logging.LogRecord(name, logging.WARNING, "", 0, text, arguments, None)
    return record.getMessage() if bound.filter(record) else None


def test_a_flood_of_one_kind_is_cut_and_counted() -> None:
    """However many peers send junk, the log grows by a burst in an interval, and says what it left out."""
    clock = Clock()
    bound = BoundedLog(clock, burst=3, interval_s=10)

    lines = [written(bound, "mfad.pam", "uid %d sent junk", uid) for uid in range(100)]
    clock.now = 10.0
    after = written(bound, "mfad.pam", "uid %d sent junk", 7)

    assert [line for line in lines if line] == ["uid 0 sent junk", "uid 1 sent junk", "uid 2 sent junk"]
    assert after == "uid 7 sent junk (97 more such lines left out)"


def test_a_flood_of_one_kind_hides_no_other() -> None:
    """An attacker cannot push the line that tells of him out of the log with another one."""
    bound = BoundedLog(Clock(), burst=1)

    assert written(bound, "mfad.pam", "junk") == "junk"
    assert written(bound, "mfad.pam", "junk") is None
    assert written(bound, "mfad.pam", "untrusted %s", "x") == "untrusted x"
    assert written(bound, "mfad", "junk") == "junk"
