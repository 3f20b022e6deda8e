"""Which process is at the other end, whose is it, and how often may it come?

Room rule: what the kernel and the user database say of a peer lives here, and the bounds on one uid. Nothing here reads a
message: the uid is that of connect(), so a setuid program is root and a screen locker is its user.
"""

from __future__ import annotations

import asyncio
import pwd
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

NAMES_MAX = 256
NAME_KEPT_S = 60.0
"""A renamed user is believed the old name for a minute; an uncached lookup may ask a directory server every time."""
BUCKETS_MAX = 1_024
"""Uids whose rate is remembered; the longest unseen is forgotten first. Somebody with subordinate uids (subuid(5)) can cycle
through more: ordinary users have a bound together, which server.py keeps."""


def look_up_name(uid: int) -> bytes | None:
    """Return the user name of ``uid`` from NSS, None when it has none or nobody can say. May block on a directory server."""
    try:
        return pwd.getpwuid(uid).pw_name.encode("utf-8", "surrogateescape")
    except (KeyError, OSError):
        return None


class UserNames:
    """Names of uids, looked up in a thread of our own, so that a hanging directory server stalls no conversation of root's."""

    def __init__(self, monotonic: Callable[[], float], look_up: Callable[[int], bytes | None] = look_up_name) -> None:
        self._monotonic = monotonic
        self._look_up = look_up
        self._known: OrderedDict[int, tuple[bytes | None, float]] = OrderedDict()
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="pam-names")

    async def of(self, uid: int) -> bytes | None:
        """Return the name of ``uid``, at most a minute old."""
        known = self._known.get(uid)
        if known is not None and self._monotonic() < known[1]:
            return known[0]
        name = await asyncio.get_running_loop().run_in_executor(self._threads, self._look_up, uid)
        self._known[uid] = (name, self._monotonic() + NAME_KEPT_S)
        self._known.move_to_end(uid)
        if len(self._known) > NAMES_MAX:
            self._known.popitem(last=False)
        return name

    def close(self) -> None:
        """End the threads; a lookup that hangs is left to itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class UidRates:
    """A token bucket for each uid: ``burst`` conversations at once, one more every ``interval_s``."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._buckets: OrderedDict[int, tuple[float, float]] = OrderedDict()

    def take(self, uid: int, *, burst: int, interval_s: float) -> bool:
        """Take one token of ``uid``; False when there is none."""
        now = self._monotonic()
        tokens, seen = self._buckets.get(uid, (float(burst), now))
        tokens = min(float(burst), tokens + (now - seen) / interval_s)
        allowed = tokens >= 1.0
        self._buckets[uid] = (tokens - 1.0 if allowed else tokens, now)
        self._buckets.move_to_end(uid)
        if len(self._buckets) > BUCKETS_MAX:
            self._buckets.popitem(last=False)
        return allowed
