"""Who is to be told that something has changed?

Room rule: hosts that wait, the topics that concern each, and time; nothing is read from the store here. One poll hears what has
changed since the poll before and wakes those whom it concerns: what the others cost then is nothing. A wait is a future and an
entry in the sets of its topics; no task and no timer stands behind it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

REMEMBERED: Final = 4096
"""Changes that are kept for hosts which have looked before them and begin to wait after them."""
AT_ONCE: Final = 50
"""Hosts that are woken in one turn of the loop: logins are answered in between."""


class Wait:
    """One host that waits. ``woken`` ends with True when something may be new for it, with False when its time is over."""

    __slots__ = ("host_id", "topics", "woken")

    def __init__(self, host_id: int, topics: frozenset[str], woken: asyncio.Future[bool]) -> None:
        self.host_id = host_id
        self.topics = topics
        self.woken = woken

    def tell(self, news: bool) -> None:
        """End it, if it has not ended."""
        if not self.woken.done():
            self.woken.set_result(news)


class Waiting:
    """The hosts of one process that wait, by topic. Lives on one loop."""

    def __init__(self) -> None:
        self.seq = -1
        """How far the poll has heard; -1: it has not begun."""
        self._reaches_back_to = -1
        self._by_topic: dict[str, set[Wait]] = {}
        self._of_host: dict[int, Wait] = {}
        self._ends: list[tuple[float, int, Wait]] = []
        self._numbers = itertools.count()
        self._recent: deque[tuple[int, str]] = deque()
        self._closed = False

    def __len__(self) -> int:
        return len(self._of_host)

    def begin(self, host_id: int, topics: frozenset[str], *, since: int, until: float) -> Wait:
        """Let a host wait for changes of its topics after ``since``, until ``until`` by the clock that :meth:`tick` hears.

        A host waits once: who asks again has given up the request before.
        """
        before = self._of_host.get(host_id)
        if before is not None:
            self.end(before)
            before.tell(False)
        wait = Wait(host_id, topics, asyncio.get_running_loop().create_future())
        if self._closed:
            wait.tell(False)
            return wait
        self._of_host[host_id] = wait
        for topic in topics:
            self._by_topic.setdefault(topic, set()).add(wait)
        heapq.heappush(self._ends, (until, next(self._numbers), wait))
        if since < self.seq and (
            since < self._reaches_back_to or any(seq > since and topic in topics for seq, topic in self._recent)
        ):
            wait.tell(True)
        return wait

    def end(self, wait: Wait) -> None:
        """It waits no more, for whatever reason."""
        if self._of_host.get(wait.host_id) is wait:
            del self._of_host[wait.host_id]
        for topic in wait.topics:
            waits = self._by_topic.get(topic)
            if waits is not None:
                waits.discard(wait)
                if not waits:
                    del self._by_topic[topic]

    def heard(self, seq: int, changes: Iterable[tuple[int, str]]) -> list[Wait]:
        """The store has come to ``seq`` by these changes (number, topic). Returns whom they concern, for the caller to tell."""
        self.seq = seq
        found: dict[Wait, None] = {}
        for number, topic in changes:
            if len(self._recent) >= REMEMBERED:
                self._reaches_back_to = self._recent.popleft()[0]
            self._recent.append((number, topic))
            found.update(dict.fromkeys(self._by_topic.get(topic, ())))
        return [wait for wait in found if not wait.woken.done()]

    def start_over(self, seq: int) -> list[Wait]:
        """Nobody knows what has changed (the first look, or another store): everybody is to look for himself."""
        self.seq = self._reaches_back_to = seq
        self._recent.clear()
        return self.everybody()

    def everybody(self) -> list[Wait]:
        """All who wait."""
        return list(self._of_host.values())

    def of(self, host_ids: Iterable[int]) -> list[Wait]:
        """Those of these hosts that wait."""
        return [wait for wait in map(self._of_host.get, host_ids) if wait is not None]

    def close(self) -> None:
        """Nobody waits any more: mfad stops."""
        self._closed = True
        for wait in self.everybody():
            wait.tell(False)

    def tick(self, now: float) -> None:
        """Let go of those whose time is over."""
        while self._ends and (self._ends[0][0] <= now or self._ends[0][2].woken.done()):
            _, _, wait = heapq.heappop(self._ends)
            wait.tell(False)


async def wake(waits: Sequence[Wait]) -> None:
    """Tell them that there may be something new, a few in each turn of the loop."""
    for start in range(0, len(waits), AT_ONCE):
        for wait in waits[start : start + AT_ONCE]:
            wait.tell(True)
        await asyncio.sleep(0)
