"""On which thread is the store asked?

Room rule: threads and transactions; what is read or written in them is handed in. SQLite's pages are in memory: a few rows are
read where they are wanted, on the loop. Everything else, and all of it where the store is across a network, happens in a small
pool, so that a slow store makes its callers wait and nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from sqlalchemy import Connection

from mfa_core.errors import Overloaded
from mfa_runtime.store.database import Store

T = TypeVar("T")

READERS: Final = 4
WRITERS: Final = 2
MAX_WAITING: Final = 20_000
"""Reads and writes that wait for a thread; ten thousand hosts may hear of one change."""


class AtTheStore:
    """The store, as requests use it. Lives on one loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._session = store.session() if store.answers_at_once else None
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="authority-read")
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="authority-write")
        self._waiting = 0

    async def glance(self, read: Callable[[Connection], T]) -> T:
        """Read a few rows by index, with prepared statements only. Raises: as :meth:`Store.reading`."""
        if self._session is None:
            return await self.read(read)
        with self._session.reading() as connection:
            return read(connection)

    async def read(self, read: Callable[[Connection], T]) -> T:
        """Read as much as is wanted. Raises: Overloaded, and as :meth:`Store.reading`."""
        return await self._run(self._readers, self._reading, read)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """One transaction; durable when it returns. Raises: Overloaded, and as :meth:`Store.writing`."""
        return await self._run(self._writers, self._writing, work)

    async def compute(self, work: Callable[[], T]) -> T:
        """What needs a processor and no store: seals and signatures. Raises: Overloaded."""
        return await self._run(self._readers, _plain, work)

    def close(self) -> None:
        """Begin nothing more."""
        for pool in (self._readers, self._writers):
            pool.shutdown(wait=True, cancel_futures=True)
        if self._session is not None:
            self._session.close()

    def _reading(self, read: Callable[[Connection], T]) -> T:
        with self._store.reading() as connection:
            return read(connection)

    def _writing(self, work: Callable[[Connection], T]) -> T:
        with self._store.writing() as connection:
            return work(connection)

    async def _run(self, pool: ThreadPoolExecutor, run: Callable[[Callable[..., T]], T], work: Callable[..., T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise Overloaded(f"{self._waiting} requests wait for the store already")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, run, work)
        finally:
            self._waiting -= 1


def _plain(work: Callable[[], T]) -> T:
    return work()
