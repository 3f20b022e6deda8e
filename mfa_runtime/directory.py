"""Which groups a user is in.

Room rule: the only file that asks NSS. An answer is a set of names or None, "not known", which a policy rule's ``on_missing``
turns into a decision; nothing here guesses. NSS may block for as long as a directory server is away, so that lookups run in
threads of their own, wait a bounded time, and are bounded in number.
"""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol


class Groups(Protocol):
    """Says which groups a user is in."""

    async def groups_of(self, name: str) -> frozenset[str] | None:
        """Return the group names of the canonical ``name``, empty for a user who does not exist; None when not known."""
        ...


class NoGroups:
    """For installations without a directory: nobody's groups are known."""

    async def groups_of(self, name: str) -> frozenset[str] | None:  # noqa: ARG002  the protocol's shape
        """See :class:`Groups`."""
        return None


def lookup_nss(name: str) -> frozenset[str]:
    """Ask NSS, as ``id`` does; blocks. A group without a name counts as its number.

    Raises: OSError, when NSS cannot answer.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        # Python says KeyError for "no such user" and raises OSError for "could not ask".
        return frozenset()
    return frozenset(map(_group_name, os.getgrouplist(entry.pw_name, entry.pw_gid)))


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


@dataclass(frozen=True, slots=True)
class _Kept:
    groups: frozenset[str]
    until: float


class CachedGroups:
    """Groups from a blocking ``lookup``, cached for ``keep_s`` whether the user exists or not; failures are not kept.

    ``timeout_s`` bounds how long one caller waits. A lookup that hangs keeps its thread; when ``workers`` of them hang and
    as many wait behind them, further users are answered None at once rather than queued. ``monotonic`` returns seconds. Belongs
    to one event loop.
    """

    def __init__(
        self,
        lookup: Callable[[str], frozenset[str]] = lookup_nss,
        *,
        monotonic: Callable[[], float],
        workers: int = 4,
        timeout_s: float = 3.0,
        keep_s: float = 60.0,
        max_entries: int = 10_000,
    ) -> None:
        self._lookup = lookup
        self._monotonic = monotonic
        self._timeout_s = timeout_s
        self._keep_s = keep_s
        self._max_entries = max_entries
        self._max_under_way = 2 * workers
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="groups")
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._under_way: dict[str, asyncio.Future[frozenset[str]]] = {}

    async def groups_of(self, name: str) -> frozenset[str] | None:
        """See :class:`Groups`. Callers who ask for one user at the same time share one lookup."""
        kept = self._kept.get(name)
        if kept is not None and kept.until > self._monotonic():
            return kept.groups
        under_way = self._under_way.get(name)
        if under_way is None:
            if len(self._under_way) >= self._max_under_way:
                return None
            under_way = asyncio.get_running_loop().run_in_executor(self._threads, self._lookup, name)
            self._under_way[name] = under_way
            under_way.add_done_callback(lambda answer: self._answered(name, answer))
        # asyncio.wait leaves the lookup alone when this caller gives up: others wait for it, and its answer is worth keeping.
        done, _ = await asyncio.wait([under_way], timeout=self._timeout_s)
        if not done or under_way.cancelled() or under_way.exception() is not None:
            return None
        return under_way.result()

    def _answered(self, name: str, answer: asyncio.Future[frozenset[str]]) -> None:
        del self._under_way[name]
        if answer.cancelled() or answer.exception() is not None:
            return
        self._kept.pop(name, None)
        self._kept[name] = _Kept(answer.result(), self._monotonic() + self._keep_s)
        while len(self._kept) > self._max_entries:
            # The oldest answer goes first: it is the next to expire.
            self._kept.popitem(last=False)

    def close(self) -> None:
        """Start no further lookups; those that hang are left behind."""
        self._threads.shutdown(wait=False, cancel_futures=True)
