"""Are the long books of a scope ready, and who makes them?

Room rule: one task that works through what was ordered, scope by scope, beside everything else; a host never waits for it. What
is made goes into the store, is lengthened when a quarter of it is over, and never made again. Whoever has ordered is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select

from authority.acts import Acts
from authority.at_the_store import AtTheStore
from authority.book_making import BookMaker
from authority.books import Lack, lack_of_all, last_step
from authority.pages import opened
from mfa_core.errors import MfaError
from mfa_core.model import CredentialState, FactorKind
from mfa_runtime.administration.act import Act
from mfa_runtime.sealing import Keyring, UnknownKey
from mfa_runtime.store import codebooks, entitlement
from mfa_runtime.store.codebooks import Codebook
from mfa_runtime.store.schema import credentials

USERS_AT_ONCE: Final = 100
NICE: Final = 10
"""Of what nobody waits for: logins come first."""
SCOPES_KEPT: Final = 1024
ROUNDS: Final = 3
"""How often one scope is gone through because somebody has come in meanwhile; then the others have their turn."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shelf:
    """Whose books, and for how long a host may be alone with them."""

    scope: frozenset[str]
    max_offline_s: float


@dataclass(frozen=True, slots=True)
class _Read:
    """Of some users: the last of them, what their books lack, and when the books end that lack nothing."""

    last_id: int
    lacks: list[Lack]
    ends: float


class Bookkeeper:
    """Has long books made. Lives on one loop. ``tell`` hears when those of a shelf are there, and which hosts wanted them."""

    def __init__(
        self,
        store: AtTheStore,
        acts: Acts,
        *,
        keyring: Callable[[], Keyring],
        reload_keyring: Callable[[], Keyring],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._acts = acts
        self._for_hosts = BookMaker()
        self._beside = BookMaker(nice=NICE)
        self._keyring = keyring
        self._reload_keyring = reload_keyring
        self._clock = clock
        self._ends: OrderedDict[Shelf, float] = OrderedDict()
        self._ordered: OrderedDict[Shelf, set[int]] = OrderedDict()
        self._short: set[Shelf] = set()
        self._task: asyncio.Task[None] | None = None
        self.tell: Callable[[Shelf, frozenset[int]], Awaitable[None]] | None = None

    def is_ready(self, shelf: Shelf) -> bool:
        """Whether every book on it lasts as long as a lease that is given now."""
        return self._ends.get(shelf, 0.0) >= self._clock() + shelf.max_offline_s

    def order(self, shelf: Shelf, host_id: int) -> None:
        """Have them made, and this host told."""
        if shelf not in self._ordered and len(self._ordered) >= SCOPES_KEPT:
            return  # it asks again
        self._ordered.setdefault(shelf, set()).add(host_id)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    def is_short(self, shelf: Shelf) -> None:
        """A book was seen that does not go far enough: whatever was found before, it must be looked at again."""
        self._ends.pop(shelf, None)
        if shelf in self._ordered:
            self._short.add(shelf)

    @property
    def made(self) -> int:
        """Codes, since the start."""
        return self._for_hosts.made + self._beside.made

    async def make(self, lacks: Sequence[Lack]) -> dict[int, Codebook]:
        """Make these now, and keep them. Raises: as :meth:`Acts.do`."""
        return await self._make(lacks, self._for_hosts)

    async def _make(self, lacks: Sequence[Lack], maker: BookMaker) -> dict[int, Codebook]:
        if not lacks:
            return {}
        codes = await maker.make(lacks)
        made = {one.credential.id: one.filled(some) for one, some in zip(lacks, codes, strict=True)}
        await self._acts.do(lambda connection, act: _keep(connection, act, list(made.values())))
        return made

    async def stop(self) -> None:
        """Make nothing more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for maker in (self._for_hosts, self._beside):
            await maker.stop()

    async def _work(self) -> None:
        while self._ordered:
            shelf = next(iter(self._ordered))
            try:
                await self._fill(shelf)
            except MfaError as err:
                log.error("books of codes were not made, hosts go on with short ones: %s; %s", err, err.cure)
            except Exception:
                log.exception("books of codes were not made, hosts go on with short ones")
            hosts = self._ordered.pop(shelf)
            self._short.discard(shelf)
            if self.tell is not None:
                await self.tell(shelf, frozenset(hosts))

    async def _fill(self, shelf: Shelf) -> None:
        for _ in range(ROUNDS):
            self._short.discard(shelf)
            ends = await self._go_through(shelf)
            if shelf not in self._short:
                self._ends[shelf] = ends
                self._ends.move_to_end(shelf)
                if len(self._ends) > SCOPES_KEPT:
                    self._ends.popitem(last=False)
                return

    async def _go_through(self, shelf: Shelf) -> float:
        """Lengthen every book that needs it; when the first of them all ends."""
        after, ends = 0, math.inf
        while True:
            found = await self._read(shelf, after)
            if found is None:
                return ends
            after, ends = found.last_id, min(ends, found.ends)
            made = await self._make(found.lacks, self._beside)
            for one in found.lacks:
                ends = min(ends, _end(one, made[one.credential.id]))

    async def _read(self, shelf: Shelf, after: int) -> _Read | None:
        now = self._clock()
        try:
            keyring = self._keyring()
            return await self._store.read(lambda connection: _read(connection, keyring, shelf, after, now))
        except UnknownKey:
            keyring = await self._store.compute(self._reload_keyring)
            return await self._store.read(lambda connection: _read(connection, keyring, shelf, after, now))


def _read(connection: Connection, keyring: Keyring, shelf: Shelf, after: int, now: float) -> _Read | None:
    ids = entitlement.entitled_page(connection, shelf.scope, after, USERS_AT_ONCE)
    if not ids:
        return None
    owned = [
        (one, user.id)
        for user in entitlement.documents(connection, ids)
        for one in user.credentials
        if one.kind is FactorKind.TOTP and one.state is CredentialState.ACTIVE
    ]
    books = codebooks.get(connection, keyring, [one.id for one, _ in owned])
    lacks: list[Lack] = []
    ends = math.inf
    for one, user_id in owned:
        credential = opened(one, user_id, keyring)
        kept = books.get(one.id)
        missing = lack_of_all(credential, kept, now, shelf.max_offline_s)
        if missing is not None:
            lacks.append(missing)
        elif kept is not None:
            ends = min(ends, (last_step(credential, kept) + 1) * float(credential.period_s))
    return _Read(ids[-1], lacks, ends)


def _end(one: Lack, book: Codebook) -> float:
    return (last_step(one.credential, book) + 1) * float(one.credential.period_s)


def _keep(connection: Connection, act: Act, books: Sequence[Codebook]) -> None:
    act.check_keys(connection)
    query = select(credentials.c.id).where(credentials.c.id.in_([book.credential_id for book in books]))
    there = set(connection.execute(query).scalars())  # making took a while: some may be gone
    codebooks.put(connection, act.keyring, [book for book in books if book.credential_id in there])
