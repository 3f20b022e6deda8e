"""The life of an agent's worker process: hear from the store what the main process was told, and ask the authority by itself.

Room rule: reads the store and looks for the authority; writes nothing but that the authority has cut this host off. A worker
asks again when the main process has told the authority everything that was decided here by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import NoReturn

from mfa_core.errors import MfaError
from mfa_runtime.agent import journal
from mfa_runtime.agent.breaker import Happening, State
from mfa_runtime.agent.contact import Contact
from mfa_runtime.agent.cut_off import write_standing
from mfa_runtime.agent.exchange import VerifyExchange
from mfa_runtime.agent.http import Refused, Unreachable
from mfa_runtime.agent.link import Link
from mfa_runtime.agent.news import News
from mfa_runtime.protocol.message import ProtocolError
from mfa_runtime.protocol.reporting import JournalHead, read_health
from mfa_runtime.protocol.words import HEALTH
from mfa_runtime.sealing import RandomBytes
from mfa_runtime.store.agent_state import AgentState

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often the store is read."""
RETURN_LOOK_S = 0.2
"""How often, while the authority is told what was decided here."""


class Watcher:
    """Watches the store of an agent; :attr:`link` is the counsel of this process. ``news`` hears what it says,
    and ``tell`` gets audit texts for the sinks."""

    def __init__(
        self,
        contact: Contact,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        random: RandomBytes,
        news: News,
        tell: Callable[[Sequence[str]], None],
    ) -> None:
        self._contact = contact
        self._habits = contact.habits
        self._clock = clock
        self._random = random
        self._news = news
        self._tell = tell
        self._woken = asyncio.Event()
        self._to_be_told: JournalHead | None = None
        self.link = Link(
            VerifyExchange(lambda: contact.authorities, try_s=self._habits.try_s),
            monotonic=monotonic,
            chance=lambda: int.from_bytes(random(4), "big") / 2**32,
            budget_s=self._habits.budget_s,
            retry_s=self._habits.retry_s,
            lost=self._woken.set,
            refused=self._was_refused,
        )

    async def _was_refused(self, err: Refused) -> None:
        try:
            await self._contact.run(self._write_standing, err)
        except MfaError as problem:
            log.error("that the authority refuses this host could not be written: %s; %s", problem, problem.cure)

    def _write_standing(self, err: Refused) -> None:
        write_standing(
            self._contact.store, err, keyring=self._contact.keyring(), now=self._clock(), random=self._random, tell=self._tell
        )

    async def run(self) -> NoReturn:
        """Watch until cancelled."""
        while True:
            self._woken.clear()
            pause_s = LOOK_S
            try:
                pause_s = await self._turn()
            except MfaError as err:
                log.error("the state of this agent cannot be read: %s; %s", err, err.cure)
                self.link.happened(Happening.LOST)
            except Exception:
                log.exception("watching the store broke")
                self.link.happened(Happening.LOST)
            # Not wait_for: before Python 3.12 that takes a cancellation for an event that comes at the same time.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._woken.wait()

    async def stop(self) -> None:
        """Let those who wait be decided here, and close the connections. :meth:`run` was cancelled before."""
        await self.link.stop()
        await self._contact.close()

    async def _turn(self) -> float:
        state = await self._contact.read()
        if state is None:
            self.link.happened(Happening.LOST)
            return LOOK_S
        self._news.hear(state)
        if self.link.breaker.state in {State.STARTING, State.OPEN} and not self.link.look_in_s():
            await self._look(state)
        if self.link.breaker.state is State.RETURNING:
            told = self._to_be_told
            if told is not None and state.standing == "joined" and (told.epoch, told.seq) <= (
                state.journal_epoch, state.journal_seq,
            ):  # fmt: skip
                self.link.happened(Happening.RECONCILED)
                return LOOK_S
            return RETURN_LOOK_S
        return min(LOOK_S, self.link.look_in_s()) if self.link.breaker.state is State.OPEN else LOOK_S

    async def _look(self, state: AgentState) -> None:
        tries = self._habits.try_s
        try:
            answer = await self._contact.authorities.get(HEALTH, try_s=tries, budget_s=2 * tries)
            if read_health(answer.body).authority_id != state.authority_id:
                raise Unreachable(f"{answer.url} is another authority than this host joined")
        except (Unreachable, Refused, ProtocolError) as err:
            log.debug("the authority is still gone: %s", err)
            self.link.happened(Happening.LOST)
            with contextlib.suppress(Unreachable):
                await self._contact.authorities.forget_connections()
            return
        self._to_be_told = await self._contact.run(self._head, state.journal_epoch)
        self.link.happened(Happening.FOUND)

    def _head(self, epoch: int) -> JournalHead:
        with self._contact.store.reading() as connection:
            return journal.head(connection, epoch)
