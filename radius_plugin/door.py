"""The door as a whole: what listens, how it starts, reloads and stops.

Room rule: life, no decision. Sockets are opened before anything is promised, and closed after the last answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from radius_plugin.authentication_log import AuthenticationLog
from radius_plugin.exchange import Exchange
from radius_plugin.freeradius.through_exchange import ThroughExchange
from radius_plugin.local_socket import LocalSocket, LocalSocketSettings
from radius_plugin.radsec import RadSecServer, open_tls_sockets
from radius_plugin.server import Opened, UdpServer, open_sockets
from radius_plugin.settings import RadiusDoorSettings

SWEEP_EVERY_S = 0.5
DRAIN_S = 5.0
"""How long a stop waits for verdicts under way."""

log = logging.getLogger(__name__)


class Counters(TypedDict):
    """The counters of one process. ``clients``: by name, then by event (the words that the exchange counts under)."""

    strangers: dict[str, int]
    clients: dict[str, dict[str, int]]
    under_way: int
    answers_forgotten_early: int
    answers_unsent: int
    tls_connections: int


@dataclass(frozen=True, slots=True)
class Sockets:
    """What one process listens on."""

    udp: Sequence[Opened]
    tls: Sequence[socket.socket]

    @classmethod
    def open(cls, settings: RadiusDoorSettings, *, shared: bool = False) -> Sockets:
        """Bind every address; with ``shared`` several processes may. Raises: ConfigurationError; nothing stays open then."""
        udp = open_sockets(settings.listen, receive_buffer_bytes=settings.receive_buffer_bytes, shared=shared)
        try:
            return cls(udp, open_tls_sockets(settings.listen, shared=shared))
        except BaseException:
            for _, opened in udp:
                opened.close()
            raise


class RadiusDoor:
    """All listeners of one process over one exchange."""

    def __init__(self, settings: RadiusDoorSettings, exchange: Exchange, *, journal: AuthenticationLog | None = None) -> None:
        self.settings = settings
        self.exchange = exchange
        self._journal = journal
        self._udp: UdpServer | None = None
        self._tls: RadSecServer | None = None
        self._freeradius: ThroughExchange | None = None
        self._local: LocalSocket | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self, sockets: Sockets | None = None) -> None:
        """Listen. ``sockets`` are those that somebody else has opened (for a worker).

        Raises: ConfigurationError, when an address cannot be had or a certificate cannot be used.
        """
        if sockets is None:
            sockets = Sockets.open(self.settings)
        if sockets.tls:
            self._tls = RadSecServer(self.exchange, self.settings, sockets.tls)
            await self._tls.start()
        freeradius = self.settings.freeradius
        if freeradius is not None:
            self._freeradius = ThroughExchange(self.exchange, freeradius.client)
            self._local = LocalSocket(
                LocalSocketSettings(freeradius.socket, freeradius.users), self._freeradius, monotonic=time.monotonic
            )
            await self._local.start()
        self._udp = UdpServer(self.exchange, sockets.udp)
        self._udp.start()
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    def counters(self) -> Counters:
        """What was counted since the start, as values that JSON carries: a worker hands them to the daemon."""
        clients = self.exchange.counts_by_client()
        if self._freeradius is not None:
            clients.setdefault(self._freeradius.name, self._freeradius.counts)
        return {
            "strangers": dict(self.exchange.counts),
            "clients": clients,
            "under_way": self.exchange.under_way,
            "answers_forgotten_early": self.exchange.answers_forgotten_early,
            "answers_unsent": 0 if self._udp is None else self._udp.unsent,
            "tls_connections": 0 if self._tls is None else len(self._tls.connections),
        }

    def reload(self, settings: RadiusDoorSettings) -> None:
        """From the next request on, these hold; addresses need a restart.

        Raises: ConfigurationError, when a certificate cannot be used; nothing is changed then.
        """
        if self._tls is not None:
            self._tls.reload(settings)
        self.settings = settings
        self.exchange.reload(settings)
        if self._freeradius is not None and settings.freeradius is not None:
            self._freeradius.reload(settings.freeradius.client)

    async def stop(self) -> None:
        """Receive no more, send the answers that are under way, close."""
        if self._tls is not None:
            self._tls.stop()
        if self._local is not None:
            await self._local.stop(DRAIN_S)
        if self._udp is not None:
            self._udp.stop()
            await self.exchange.drain(DRAIN_S)
        if self._tls is not None:
            self._tls.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        if self._udp is not None:
            self._udp.close()
        if self._journal is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._journal.close)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            try:
                self.exchange.sweep()
            except Exception:
                # One request's trouble must not end the deadlines of all others.
                log.exception("the sweep of the RADIUS door failed")
