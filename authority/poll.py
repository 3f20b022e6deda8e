"""Has anything changed in the store?

Room rule: one look at one number, four times a second, however many hosts wait; what follows from it is told to
:mod:`authority.waiting`. mfactl and other authorities write to the store: nobody but the store knows of all changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select

from authority.at_the_store import AtTheStore
from authority.feed import Feed
from authority.waiting import REMEMBERED, Waiting, wake
from mfa_core.errors import MfaError
from mfa_runtime.store import changes
from mfa_runtime.store.schema import alarms, hosts

EVERY_S: Final = 0.25
CENSUS_EVERY_S: Final = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Census:
    """What is counted once a minute. ``hosts`` by state; ``alarms`` that nobody has acknowledged."""

    hosts: dict[str, int]
    alarms: int
    oldest: int


class Poll:
    """Looks until it is cancelled. ``monotonic`` is seconds."""

    def __init__(self, store: AtTheStore, waiting: Waiting, feed: Feed, *, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._waiting = waiting
        self._feed = feed
        self._monotonic = monotonic
        self._counted_at = float("-inf")
        self._failed = False
        self.census = Census({}, 0, 0)

    async def run(self) -> None:
        """Look, and look again."""
        while True:
            try:
                await self.look()
            except MfaError as err:
                if not self._failed:
                    log.error("hosts hear of no change for now: %s; %s", err, err.cure)
                self._failed = True
            except Exception:
                log.exception("the look for changes failed")
            else:
                self._failed = False
            self._waiting.tick(self._monotonic())
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Look once. Raises: as reading the store does."""
        waiting = self._waiting
        now = self._monotonic()
        if now - self._counted_at >= CENSUS_EVERY_S:
            self._counted_at = now
            self.census = await self._store.read(_census)
            self._feed.oldest = self.census.oldest
            self._feed.forget_old_pages()
        seq = await self._store.glance(changes.now_at)
        if seq == waiting.seq:
            return
        before = waiting.seq
        if before < 0 or seq < before:
            await wake(waiting.start_over(seq))
            return
        news = await self._store.read(lambda connection: changes.topics_since(connection, before, REMEMBERED + 1))
        if len(news) > REMEMBERED:
            await wake(waiting.start_over(seq))
        else:
            await wake(waiting.heard(max([seq, *(number for number, _ in news)]), news))


def _census(connection: Connection) -> Census:
    states = connection.execute(select(hosts.c.state, func.count()).group_by(hosts.c.state))
    unseen = connection.execute(select(func.count()).select_from(alarms).where(alarms.c.seen_at == 0)).scalar_one()
    return Census({str(state): int(count) for state, count in states}, int(unseen), changes.oldest(connection))
