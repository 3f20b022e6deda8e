"""What is a connection allowed to be, and for how long?

Room rule: one connection's octets, bounds and times; no route and no store. uvicorn's protocol knows HTTP/1.1; here it learns
whose certificate was shown, how long a request's head may be, and that there is an end to every patience. Time is looked at
once a second by :mod:`authority.server`, for all connections: no timer is set for a message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from authority.certificate_authority import Shown, read_shown
from mfa_core.errors import InvalidInput

MAX_HEAD_OCTETS: Final = 16 * 1024
"""Request line and headers; those of an agent have 300."""
SHOWN: Final = "mfad.shown"
"""Of the ASGI scope's extensions: the certificate of the peer, or nothing."""
MADE_AT: Final = "mfad.made_at"
"""Of the ASGI scope's extensions: when the connection was made, by the monotonic clock."""

log = logging.getLogger("authority.http")
_silent = logging.getLogger("authority.uvicorn")
_silent.setLevel(logging.ERROR)  # what a stranger can make it say is counted, and not told


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a connection may take, in seconds."""

    request_s: float = 30.0
    """From the first octet of a request to its last, or from the handshake to the first."""
    idle_s: float = 90.0
    """Between two requests, or for reading an answer."""


class Connections:
    """What the connections of one server share: counts, and the clock."""

    def __init__(self, patience: Patience, *, monotonic: Callable[[], float]) -> None:
        self.patience = patience
        self.monotonic = monotonic
        self.open: set[HttpConnection] = set()
        self.events: dict[str, int] = {}

    def count(self, event: str) -> None:
        """Count an event."""
        self.events[event] = self.events.get(event, 0) + 1

    def sweep(self) -> None:
        """Hang up on whoever takes too long."""
        now = self.monotonic()
        for one in [one for one in self.open if one.deadline <= now]:
            self.count("too_slow" if one.has_begun else "idle")
            one.abort()


class HttpConnection(HttpToolsProtocol):
    """One connection, whose TLS handshake is done."""

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        shared: Connections,
        left: Callable[[], None],
    ) -> None:
        super().__init__(config, state, {}, asyncio.get_running_loop())
        self.logger = _silent
        self._shared = shared
        self._left = left
        self._extensions: dict[str, object] = {}
        self._head_octets = 0
        self._in_head = False
        self.has_begun = True
        self.deadline = 0.0
        """When it is hung up on, by the monotonic clock; infinite while we make it wait."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn says it
        """See :class:`asyncio.Protocol`."""
        super().connection_made(transport)
        shared = self._shared
        shared.open.add(self)
        now = shared.monotonic()
        self.deadline = now + shared.patience.request_s
        self._extensions[MADE_AT] = now
        shown = _shown(transport)
        if shown is not None:
            self._extensions[SHOWN] = shown

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.Protocol`."""
        self._shared.open.discard(self)
        self._left()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        super().data_received(data)
        if self._in_head:
            self._head_octets += len(data)
            if self._head_octets > MAX_HEAD_OCTETS:
                self._refuse_head()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        self._shared.count("malformed")
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _refuse_head(self) -> None:
        self._shared.count("head_too_long")
        self._in_head = False
        if not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
            self.transport.close()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        scope: Any = self.scope
        scope["extensions"] = self._extensions
        self._in_head, self._head_octets = True, 0
        self.has_begun = True
        self.deadline = self._shared.monotonic() + self._shared.patience.request_s

    def on_headers_complete(self) -> None:
        """Its head is here."""
        self._in_head = False
        if sum(len(name) + len(value) + 4 for name, value in self.headers) + len(self.url) > MAX_HEAD_OCTETS:
            # All of it came at once; it is taken for what it is, and not looked at.
            self._refuse_head()
            raise ValueError("the head of the request is too long")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of it is here: from now on it is we who take time."""
        super().on_message_complete()
        self.deadline = float("inf")

    def on_response_complete(self) -> None:
        """It is answered. uvicorn would set a timer for each connection that then waits; the sweep has them all."""
        super().on_response_complete()
        self._unset_keepalive_if_required()
        self.has_begun = False
        self.deadline = self._shared.monotonic() + self._shared.patience.idle_s

    def abort(self) -> None:
        """Hang up without waiting for anything."""
        self.transport.abort()


def _shown(transport: asyncio.Transport) -> Shown | None:
    opened = transport.get_extra_info("ssl_object")
    der = None if opened is None else opened.getpeercert(binary_form=True)
    if not der:
        return None
    try:
        return read_shown(der)
    except InvalidInput:  # OpenSSL could read it, and has checked who signed it
        return Shown(b"", 0, 0.0, 0.0)
