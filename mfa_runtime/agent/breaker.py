"""Whether the authority is asked at all: a circuit breaker.

Room rule: a table of states and pure functions over it; time (monotonic, seconds) and randomness are arguments. Who asks, how
long he waits and what he does meanwhile is for :mod:`mfa_runtime.agent.link` and :mod:`mfa_runtime.agent.follower`.

A login must not find out again what the one before it has found out: the first that gets no answer opens the breaker, and until
the authority has been reached *and told what was decided without it* nobody asks it. Who comes at the start, or while it is
being told, waits a little for what becomes of that: a code must not be judged by what this host knows when the one who knows
more is about to be asked.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

JITTER = 0.2
"""Of the time between two looks, more or less: hosts that lost an authority together do not come back in step."""


class State(enum.Enum):
    """What is known of the authority."""

    STARTING = "starting"
    """Nothing is known: it is being looked for, for the first time."""
    CLOSED = "closed"
    """It answers: ask it."""
    OPEN = "open"
    """It does not: nobody asks, and it is looked for from time to time."""
    RETURNING = "returning"
    """It was reached again, and is being told what was decided meanwhile: nobody asks yet."""


class Happening(enum.Enum):
    """What moves it."""

    LOST = "lost"
    """A request got no answer that counts."""
    FOUND = "found"
    """A look found it alive."""
    RECONCILED = "reconciled"
    """It knows all that was decided without it, and we know what it says."""


TABLE: dict[tuple[State, Happening], State] = {
    (State.STARTING, Happening.LOST): State.OPEN,
    (State.STARTING, Happening.FOUND): State.RETURNING,
    (State.STARTING, Happening.RECONCILED): State.STARTING,
    (State.CLOSED, Happening.LOST): State.OPEN,
    (State.OPEN, Happening.LOST): State.OPEN,
    (State.OPEN, Happening.FOUND): State.RETURNING,
    (State.RETURNING, Happening.LOST): State.OPEN,
    (State.RETURNING, Happening.FOUND): State.RETURNING,
    (State.RETURNING, Happening.RECONCILED): State.CLOSED,
    # While it answers, a look that finds it alive and a sync that ends say nothing new.
    (State.CLOSED, Happening.FOUND): State.CLOSED,
    (State.CLOSED, Happening.RECONCILED): State.CLOSED,
    # A sync that was under way when somebody else got no answer: it says nothing of what was decided since.
    (State.OPEN, Happening.RECONCILED): State.OPEN,
}
"""Every move. What is decided alone after the authority was lost, or before the last stop, must reach it first, so that CLOSED
is reached only through RETURNING."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """A state, since when the authority is gone (monotonic seconds; nothing while CLOSED), and when to look for it next."""

    state: State = State.OPEN
    since: float = 0.0
    look_at: float = 0.0

    def after(self, what: Happening, now: float, *, retry_s: float, chance: float) -> Breaker:
        """The breaker after something happened. ``chance`` is from [0, 1) and spreads the next look around ``retry_s``."""
        state = TABLE[self.state, what]
        if what is not Happening.LOST:
            return replace(self, state=state)
        since = now if self.state is State.CLOSED else self.since
        if self.state is State.OPEN and self.look_at > now:
            return self  # one of many that were under way: the look that is due stays due
        return Breaker(state, since, now + spread(retry_s, chance))

    @property
    def asks(self) -> bool:
        """Whether a login may ask."""
        return self.state is State.CLOSED

    @property
    def is_about_to_ask(self) -> bool:
        """Whether it will be known soon if logins may ask."""
        return self.state is State.STARTING or self.state is State.RETURNING

    def unreachable_s(self, now: float) -> float:
        """For how long the authority has been gone, seconds; 0 while it is there."""
        return 0.0 if self.state is State.CLOSED else max(0.0, now - self.since)


def spread(retry_s: float, chance: float) -> float:
    """A time around ``retry_s``, by ``chance`` from [0, 1)."""
    return retry_s * (1.0 + JITTER * (2.0 * chance - 1.0))


def at_start(now: float) -> Breaker:
    """Nothing is known yet: it is gone since now, and looked for at once."""
    return Breaker(State.STARTING, now, now)
