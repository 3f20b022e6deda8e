"""A login asks the authority: what waits together goes together, and everybody hears in time.

Room rule: a queue, deadlines and the breaker; what a question and a ruling look like on the way is known to ``exchange``, and
what follows from an answer to the ledger. Lives on one event loop.

Nobody waits longer than ``budget_s``. The first request that fails tells everybody who waits that the authority is gone, those
of other requests that are under way too: if it has decided one of them meanwhile, it finds the same event in our journal.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mfa_core.audit import Outcome
from mfa_core.verdict import Unready
from mfa_runtime.agent.breaker import Breaker, Happening, State, at_start
from mfa_runtime.agent.http import Refused, Unreachable
from mfa_runtime.counsel import Alone, Counselled, Referred, Ruled

log = logging.getLogger(__name__)

MAX_WAITING = 4096
"""Logins that wait for the authority; more are refused."""
MAX_TOGETHER = 64
"""In one request."""
REQUESTS_AT_ONCE = 4
"""More wait and go together: the authority commits together what comes together."""

LEAST = 0.25
"""Of the budget: with less of it left nothing is asked."""
RETURN_SHARE = 0.4
"""Of the budget: so long a login waits at most for an authority that is back and is being told what was decided here."""

_TOO_MANY = Ruled(Outcome.UNAVAILABLE, Unready.OVERLOADED)
"""There is an authority, and no room to ask it: whoever makes a flood of logins must not choose who decides."""

Told = Callable[[Counselled], None]


class Exchange(Protocol):
    """Carries questions to the authority."""

    async def verify(self, referred: Sequence[Referred], *, budget_s: float) -> Sequence[Ruled | None]:
        """Its rulings, in the order of the questions; None where it could not decide one.

        Raises:
            Unreachable: no answer that counts.
            Refused: it says no to us.
        """
        ...


@dataclass(slots=True, eq=False)
class _Asked:
    """One login that waits. ``told`` is None when it has been told."""

    referred: Referred
    told: Told | None
    asked_at: float


class Link:
    """The way of this process's logins to the authority: a :class:`mfa_runtime.counsel.Counsel`.

    ``lost`` is called, on the loop, when it turns out that the authority is gone, and ``refused`` is awaited when it says no to
    this host, before anybody is told to decide here. ``chance`` gives numbers from [0, 1).
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        monotonic: Callable[[], float],
        chance: Callable[[], float],
        budget_s: float,
        retry_s: float,
        lost: Callable[[], None],
        refused: Callable[[Refused], Awaitable[None]],
    ) -> None:
        self._exchange = exchange
        self._monotonic = monotonic
        self._chance = chance
        self._budget_s = budget_s
        self._retry_s = retry_s
        self._lost = lost
        self._refused = refused
        self._breaker = at_start(monotonic())
        self._held_until = monotonic() + budget_s
        self._hold: asyncio.TimerHandle | None = None
        self._waiting: deque[_Asked] = deque()
        self._under_way: dict[asyncio.Task[None], list[_Asked]] = {}
        self._scheduled = False
        self.asked = 0
        """Logins that the authority was asked about."""
        self.alone = 0
        """Logins that had to be decided here."""

    @property
    def breaker(self) -> Breaker:
        """Whether it is asked."""
        return self._breaker

    @property
    def unreachable_s(self) -> float:
        """For how long the authority has been gone; 0 while it is there."""
        return self._breaker.unreachable_s(self._monotonic())

    def ask(self, referred: Referred, told: Told) -> None:
        """Ask about one login: see :class:`mfa_runtime.counsel.Counsel`."""
        loop = asyncio.get_running_loop()
        now = self._monotonic()
        held = self._breaker.is_about_to_ask and now < self._held_until
        if not (self._breaker.asks or held):
            self.alone += 1
            loop.call_soon(told, Alone(self.unreachable_s))
            return
        if len(self._waiting) >= MAX_WAITING:
            loop.call_soon(told, _TOO_MANY)
            return
        self.asked += 1
        self._waiting.append(_Asked(referred, told, now))
        if held and self._hold is None:
            self._hold = loop.call_later(self._held_until - now, self._held_long_enough)
        self._schedule()

    def happened(self, what: Happening) -> None:
        """Somebody else has heard of the authority, or has failed to."""
        before = self._breaker.state
        self._breaker = self._breaker.after(what, self._monotonic(), retry_s=self._retry_s, chance=self._chance())
        if self._breaker.state is before:
            return
        log.info("the authority is %s", _WORDS[self._breaker.state])
        match self._breaker.state:
            case State.CLOSED:
                self._let_go()
                self._schedule()
            case State.OPEN:
                self._let_go()
                self._tell_everybody()
            case State.RETURNING if before is State.OPEN:
                self._held_until = self._monotonic() + RETURN_SHARE * self._budget_s
            case _:
                pass  # who waits since the start goes on waiting, as long as was said then
        if before is State.CLOSED:
            self._lost()

    def look_in_s(self) -> float:
        """When the authority is to be looked for next, seconds from now."""
        return max(0.0, self._breaker.look_at - self._monotonic())

    async def stop(self) -> None:
        """Tell everybody who waits to decide here, and end."""
        self._breaker = Breaker(State.OPEN, self._monotonic(), self._monotonic())
        self._let_go()
        tasks = list(self._under_way)
        self._tell_everybody()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _held_long_enough(self) -> None:
        self._hold = None
        self._tell_everybody()

    def _let_go(self) -> None:
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None

    def _schedule(self) -> None:
        if not self._scheduled and self._breaker.asks and self._waiting and len(self._under_way) < REQUESTS_AT_ONCE:
            # Not now but after the callbacks that are ready: what they ask goes along.
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._scheduled = False
        loop = asyncio.get_running_loop()
        while self._waiting and len(self._under_way) < REQUESTS_AT_ONCE:
            together = [self._waiting.popleft() for _ in range(min(MAX_TOGETHER, len(self._waiting)))]
            task = loop.create_task(self._put(together))
            self._under_way[task] = together
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        for one in self._under_way.pop(task, ()):
            self._tell(one, None)  # it was cancelled, or broke: nobody waits for ever
        if not task.cancelled() and task.exception() is not None:
            log.error("asking the authority broke", exc_info=task.exception())
        self._schedule()

    async def _put(self, together: Sequence[_Asked]) -> None:
        began = self._monotonic()
        # Who waited in the queue has less time left: all must be answered in the time of the first.
        budget_s = self._budget_s - (began - together[0].asked_at)
        if budget_s < LEAST * self._budget_s:
            for one in together:
                self._tell(one, _TOO_MANY)
            return
        try:
            async with asyncio.timeout(budget_s):
                rulings = await self._exchange.verify([one.referred for one in together], budget_s=budget_s)
        except TimeoutError:
            log.warning("the authority does not answer within %.1f s, this host decides", budget_s)
            self.happened(Happening.LOST)
        except Unreachable as err:
            log.warning("the authority does not answer, this host decides: %s; %s", err, err.cure)
            self.happened(Happening.LOST)
        except Refused as err:
            log.error("the authority refuses this host: %s; %s", err, err.cure)
            await self._refused(err)
            self.happened(Happening.LOST)
        else:
            if len(rulings) != len(together):
                raise RuntimeError(f"{len(together)} logins got {len(rulings)} rulings")
            for one, ruling in zip(together, rulings, strict=True):
                self._tell(one, ruling)

    def _tell_everybody(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for together in list(self._under_way.values()):
            for one in together:
                self._tell(one, None)
        for one in waiting:
            self._tell(one, None)
        here = asyncio.current_task()
        for task in list(self._under_way):
            if task is not here:
                task.cancel()

    def _tell(self, one: _Asked, ruling: Ruled | None) -> None:
        told, one.told = one.told, None
        if told is None:
            return
        if ruling is None:
            self.alone += 1
        try:
            told(Alone(self.unreachable_s) if ruling is None else ruling)
        except Exception:
            log.exception("a ruling could not be delivered")


_WORDS = {
    State.STARTING: "looked for",
    State.CLOSED: "there: it is asked",
    State.OPEN: "gone: this host decides",
    State.RETURNING: "back: it is told what was decided here",
}
