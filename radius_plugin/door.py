"""The door as a whole: what listens, how it starts, reloads and stops.

Room rule: life, no decision. Sockets are opened before anything is promised, and closed after the last answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from radius_plugin.authentication_log import AuthenticationLog
from radius_plugin.exchange import Exchange
from radius_plugin.server import Opened, UdpServer, open_sockets
from radius_plugin.settings import RadiusDoorSettings

SWEEP_EVERY_S = 0.5
DRAIN_S = 5.0
"""How long a stop waits for verdicts under way."""

log = logging.getLogger(__name__)


class RadiusDoor:
    """All listeners of one process over one exchange."""

    def __init__(self, settings: RadiusDoorSettings, exchange: Exchange, *, journal: AuthenticationLog | None = None) -> None:
        self._settings = settings
        self.exchange = exchange
        self._journal = journal
        self._udp: UdpServer | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self, sockets: Sequence[Opened] | None = None) -> None:
        """Listen. ``sockets`` are UDP sockets that somebody else has opened (for workers).

        Raises: ConfigurationError, when an address cannot be had.
        """
        if sockets is None:
            sockets = open_sockets(self._settings.listen, receive_buffer_bytes=self._settings.receive_buffer_bytes)
        self._udp = UdpServer(self.exchange, sockets)
        self._udp.start()
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    def reload(self, settings: RadiusDoorSettings) -> None:
        """From the next request on, these hold; addresses need a restart."""
        self._settings = settings
        self.exchange.reload(settings)

    async def stop(self) -> None:
        """Receive no more, send the answers that are under way, close."""
        if self._udp is not None:
            self._udp.stop()
            await self.exchange.drain(DRAIN_S)
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
