"""The connections of one process to the authorities of its host, as the store says now.

Room rule: what stands in the store becomes connections, and other connections when it says otherwise (another join, a renewed
certificate). Nothing is asked here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from mfa_core.errors import MfaError
from mfa_runtime.agent import own_keys
from mfa_runtime.agent.http import Authorities, Unreachable
from mfa_runtime.agent.own_keys import OwnKeys, ShownContext
from mfa_runtime.protocol.words import KeyProtection
from mfa_runtime.sealing import Keyring, UnknownKey
from mfa_runtime.store import agent_state
from mfa_runtime.store.agent_state import AgentState
from mfa_runtime.store.database import Store

log = logging.getLogger(__name__)

Given = ParamSpec("Given")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Habits:
    """How a host asks. Times are seconds; ``authorities`` empty: those that were given when it joined."""

    authorities: tuple[str, ...] = ()
    budget_s: float = 3.0
    try_s: float = 1.2
    retry_s: float = 2.0
    sync_wait_s: float = 50.0
    key_protection: KeyProtection = KeyProtection.FILE
    software: str = ""


class Contact:
    """Reads the store in a thread of its own. ``keyring`` gives the keys as last loaded, ``reload_keyring`` loads them anew."""

    def __init__(
        self,
        store: Store,
        *,
        keyring: Callable[[], Keyring],
        reload_keyring: Callable[[], Keyring],
        habits: Habits,
        clock: Callable[[], float],
    ) -> None:
        self.store = store
        self.keyring = keyring
        self.reload_keyring = reload_keyring
        self.habits = habits
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="agent")
        self._authorities: Authorities | None = None
        self._urls: tuple[str, ...] = ()
        self._context: ShownContext | None = None
        self.state: AgentState | None = None
        """As last read; None where this host has not joined."""

    async def run(self, work: Callable[Given, Result], *given: Given.args, **named: Given.kwargs) -> Result:
        """Do what waits for the store in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(*given, **named))

    @property
    def authorities(self) -> Authorities:
        """Whom to ask. Raises: Unreachable, where this host has not joined."""
        if self._authorities is None:
            raise Unreachable("this host has not joined an authority", cure="join with `mfactl agent join URL`")
        return self._authorities

    @property
    def keys(self) -> OwnKeys:
        """What this host shows and opens seals with. Raises: Unreachable, where it has not joined."""
        if self._context is None:
            raise Unreachable("this host has not joined an authority", cure="join with `mfactl agent join URL`")
        return self._context.keys

    async def read(self) -> AgentState | None:
        """Read the store, and be in contact with whom it names; None where this host has not joined.

        Raises:
            MfaError: the store cannot be read, or the keys in it cannot be used.
        """
        state, keys = await self.run(self._load)
        if state is None or keys is None:
            await self._leave()
            self.state = None
            return None
        if self.state is not None and self.state.host_id != state.host_id:
            await self._leave()
        urls = self.habits.authorities or state.authorities
        if self._context is None:
            self._context = ShownContext(keys, self._clock)
        self._context.keys = keys
        if self._authorities is None or urls != self._urls:
            await self._close()
            self._urls, self._authorities = urls, Authorities(urls, self._context)
        self.state = state
        return state

    def _load(self) -> tuple[AgentState | None, OwnKeys | None]:
        with self.store.reading() as connection:
            state = agent_state.load(connection)
            if state is None:
                return None, None
            known = self._context.keys if self._context is not None else None
            if known is not None and known.stamp == own_keys.stamp(connection):
                return state, known
            try:
                return state, own_keys.load(connection, self.keyring())
            except UnknownKey:
                return state, own_keys.load(connection, self.reload_keyring())

    async def _leave(self) -> None:
        self._context = None
        await self._close()

    async def _close(self) -> None:
        authorities, self._authorities = self._authorities, None
        if authorities is not None:
            await authorities.close()

    async def close(self) -> None:
        """Close all connections, and end the thread."""
        try:
            await self._leave()
        except (MfaError, OSError) as err:
            log.debug("a connection could not be closed: %s", err)
        self._thread.shutdown(wait=False, cancel_futures=True)
