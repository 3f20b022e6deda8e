"""Which of several servers is asked first, after some of them failed?

Room rule: order and times; it asks nobody. Threads share it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence


class ServerOrder:
    """Servers in the order of the configuration; one that failed stands aside for ``dead_time_s``."""

    def __init__(self, servers: Sequence[str], *, dead_time_s: float, monotonic: Callable[[], float]) -> None:
        self._servers = tuple(servers)
        self._dead_time_s = dead_time_s
        self._monotonic = monotonic
        self._failed_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def to_ask(self) -> tuple[str, ...]:
        """The servers that are not aside. When all are, the one that failed first: a login then waits for one, not for all."""
        now = self._monotonic()
        with self._lock:
            alive = tuple(one for one in self._servers if not self._is_aside(one, now))
            return alive or (min(self._servers, key=self._failed_at.__getitem__),)

    def failed(self, server: str) -> bool:
        """Put a server aside. Whether that is news."""
        now = self._monotonic()
        with self._lock:
            news = not self._is_aside(server, now)
            self._failed_at[server] = now
            return news

    def answered(self, server: str) -> bool:
        """It is well. Whether it had failed."""
        with self._lock:
            return self._failed_at.pop(server, None) is not None

    def _is_aside(self, server: str, now: float) -> bool:
        failed_at = self._failed_at.get(server)
        return failed_at is not None and now < failed_at + self._dead_time_s
