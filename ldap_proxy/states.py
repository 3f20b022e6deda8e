"""Who is a client to the directory, and what changes that?

Room rule: the table, and nothing beside it. What is not in it does not happen.

    ANONYMOUS --bind--> BINDING --granted--> BOUND --bind--> BINDING ...
                           `--refused, stepped, granted without a name--> ANONYMOUS
    any --over--> CLOSING
"""

from __future__ import annotations

import enum
from typing import Final


class State(enum.Enum):
    """Who the client is to the directory."""

    __hash__ = object.__hash__  # by identity, as it compares: Enum's own takes five times as long

    ANONYMOUS = "anonymous"
    """Nobody: never bound, or its last bind was refused (RFC 4513 section 4)."""
    BINDING = "binding"
    """A bind is pending: nothing of the client passes."""
    BOUND = "bound"
    """The identity that its last bind has proved, with its factor."""
    CLOSING = "closing"
    """It is over; what comes is not looked at."""


class Event(enum.Enum):
    """What moves a session."""

    __hash__ = object.__hash__

    BIND = "bind"
    GRANTED = "granted"
    GRANTED_TO_NOBODY = "granted to nobody"
    """An anonymous bind."""
    STEPPED = "stepped"
    """A SASL bind goes on with another request (RFC 4511 section 4.2.1)."""
    REFUSED = "refused"
    TLS = "tls"
    """StartTLS was granted: who the client was in clear does not count any more (RFC 4513 section 3.1.5)."""
    UPSTREAM_LOST = "upstream lost"
    """The directory has closed a connection that nothing depended on."""
    OVER = "over"


MOVES: Final[dict[State, dict[Event, State]]] = {
    State.ANONYMOUS: {
        Event.BIND: State.BINDING,
        Event.TLS: State.ANONYMOUS,
        Event.UPSTREAM_LOST: State.ANONYMOUS,
        Event.OVER: State.CLOSING,
    },
    State.BINDING: {
        Event.GRANTED: State.BOUND,
        Event.GRANTED_TO_NOBODY: State.ANONYMOUS,
        Event.STEPPED: State.ANONYMOUS,
        Event.REFUSED: State.ANONYMOUS,
        Event.UPSTREAM_LOST: State.BINDING,
        Event.OVER: State.CLOSING,
    },
    State.BOUND: {
        Event.BIND: State.BINDING,
        Event.TLS: State.ANONYMOUS,
        Event.OVER: State.CLOSING,
    },
    State.CLOSING: {},
}
"""A move that is not here is a bug, and ends the connection."""
