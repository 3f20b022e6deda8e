"""What the clocks of this host say, as one value.

Room rule: the one place that reads CLOCK_BOOTTIME and the boot id.
"""

from __future__ import annotations

import time
from pathlib import Path

from mfa_core.offline import Moment

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """The id of this boot; "" where the kernel does not tell it."""
    try:
        return BOOT_ID.read_text("ascii").strip()[:64]
    except (OSError, UnicodeDecodeError):
        return ""


class HostClock:
    """The wall clock, and the one that runs on through suspends and that nobody can set."""

    def __init__(self, boot: str) -> None:
        self._boot = boot

    def __call__(self, now: float) -> Moment:
        """What they say when the wall clock says ``now``, Unix seconds."""
        return Moment(now=now, boottime_s=time.clock_gettime(time.CLOCK_BOOTTIME), boot_id=self._boot)
