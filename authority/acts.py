"""How does this process change hosts, and who hears of it?

Room rule: acts of the authority itself (a host joins, renews, is quarantined): with the keys of the moment, in a transaction of
the writing threads, and told to the audit sinks when it is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from sqlalchemy import Connection

from authority.at_the_store import AtTheStore
from mfa_runtime.administration.act import Act
from mfa_runtime.sealing import Keyring, RandomBytes, UnknownKey

T = TypeVar("T")

ACTOR: Final = "mfad"


class Acts:
    """Makes acts. ``keyring`` gives the keys as last loaded, ``tell`` hands canonical texts to the audit sinks."""

    def __init__(
        self,
        store: AtTheStore,
        *,
        keyring: Callable[[], Keyring],
        reload_keyring: Callable[[], Keyring],
        node: str,
        clock: Callable[[], float],
        random: RandomBytes,
        tell: Callable[[Sequence[str]], None],
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._reload_keyring = reload_keyring
        self._node = node
        self._clock = clock
        self._random = random
        self._tell = tell

    async def do(self, work: Callable[[Connection, Act], T]) -> T:
        """Do ``work`` in one transaction. Raises: as :meth:`Store.writing`, Overloaded, and what ``work`` raises."""
        try:
            return await self._do(work, self._keyring())
        except UnknownKey:
            return await self._do(work, await self._store.compute(self._reload_keyring))

    async def _do(self, work: Callable[[Connection, Act], T], keyring: Keyring) -> T:
        act = Act(ACTOR, self._clock(), self._random, keyring, self._node)
        done = await self._store.write(lambda connection: work(connection, act))
        if act.told:
            self._tell(act.told)
        return done
