"""How do hosts come in, and how many at once?

Room rule: sockets, TLS handshakes and bounds. What a request means is the application's; how one connection behaves is
:mod:`authority.http_connection`'s. It runs on the loop it is started on, and takes no signals.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from authority.http_connection import Connections, HttpConnection, Patience
from mfa_core.errors import ConfigurationError
from mfa_runtime.config.listen import Endpoint
from mfa_runtime.sitting import source_key

BACKLOG: Final = 4096
"""Ten thousand hosts come back at once after an outage."""
ACCEPTS_AT_ONCE: Final = 64
"""Connections that are taken in one turn of the loop: logins are answered in between."""
HANDSHAKE_S: Final = 10.0
SHUTDOWN_S: Final = 2.0
SWEEP_S: Final = 1.0
DRAIN_S: Final = 5.0
"""How long a stop waits for answers that are under way."""
RETRY_S: Final = 1.0
"""How long nobody is taken after the system had no descriptor left."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many may come. ``per_address`` counts connections of one address: behind one NAT may stand many hosts."""

    connections: int = 65_536
    handshakes: int = 512
    per_address: int = 65_536


def open_sockets(listen: Sequence[Endpoint]) -> list[socket.socket]:
    """Bind the addresses. Raises: ConfigurationError, when one cannot be had; nothing stays open then."""
    found: list[socket.socket] = []
    try:
        for endpoint, host in ((one, host) for one in listen for host in one.hosts):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            try:
                opened = socket.socket(family, kind, socket.IPPROTO_TCP)
            except OSError as err:
                raise ConfigurationError(
                    f"authority.listen: {endpoint} cannot be listened on: {err.strerror}",
                    cure="list addresses of the families that this host has: 0.0.0.0 stands for all of IPv4",
                ) from err
            found.append(opened)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Connections inherit both (tcp(7), socket(7)): nothing waits for an acknowledgement, and a dead host shows.
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            try:
                opened.bind((host, endpoint.port))
                opened.listen(BACKLOG)
            except OSError as err:
                raise ConfigurationError(
                    f"authority.listen: {endpoint} cannot be listened on: {err.strerror}",
                    cure="see who has it (`ss -tlpn`), or choose an address of this host and a free port",
                ) from err
    except BaseException:
        for opened in found:
            opened.close()
        raise
    return found


class Server:
    """The listeners of this process and their connections."""

    def __init__(
        self,
        app: ASGIApp,
        context: ssl.SSLContext,
        *,
        bounds: Bounds | None = None,
        patience: Patience | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.context = context
        """May be replaced: later handshakes use the new one."""
        self._bounds = bounds or Bounds()
        self.connections = Connections(patience or Patience(), monotonic=monotonic)
        self._state = ServerState()
        self._config = uvicorn.Config(
            app, http="httptools", ws="none", lifespan="off", interface="asgi3", log_config=None, access_log=False,
            proxy_headers=False, server_header=False, date_header=False, timeout_keep_alive=3600,
        )  # fmt: skip
        self._config.load()
        self._sockets: list[socket.socket] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._shaking: dict[str, dict[asyncio.Task[None], None]] = {}
        """Those that nobody has hung up on, by network, oldest first."""
        self._by_address: dict[str, int] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.stopping = False

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens."""
        return [(str(one[0]), int(one[1])) for one in (opened.getsockname() for opened in self._sockets)]

    def start(self, sockets: Sequence[socket.socket]) -> None:
        """Take connections from ``sockets``, which listen already."""
        self._loop = asyncio.get_running_loop()
        self._sockets = list(sockets)
        for opened in self._sockets:
            self._loop.add_reader(opened, self._accept, opened)
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    async def stop(self) -> None:
        """Take no more connections; let what is under way be answered, for :data:`DRAIN_S` at most; hang up."""
        self.stopping = True
        loop = asyncio.get_running_loop()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for opened in self._sockets:
            loop.remove_reader(opened)
            opened.close()
        for handshake in list(self._handshakes):
            handshake.cancel()
        for one in list(self.connections.open):
            one.shutdown()
        until = loop.time() + DRAIN_S
        while self._state.tasks and loop.time() < until:  # noqa: ASYNC110  requests end by themselves, each in its own time
            await asyncio.sleep(0.02)
        for task in list(self._state.tasks):
            task.cancel()
        await asyncio.gather(*self._state.tasks, *self._handshakes, return_exceptions=True)
        for one in list(self.connections.open):
            one.abort()
        await asyncio.sleep(0)  # aborted transports tell their protocols in the next round

    def counters(self) -> dict[str, int]:
        """Events until now, and the connections that are there."""
        return {**self.connections.events, "connections": len(self.connections.open) + len(self._handshakes)}

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                opened, peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as err:
                self._rest(listener, err)
                return
            self._arrived(opened, str(peer[0]).partition("%")[0])

    def _rest(self, listener: socket.socket, err: OSError) -> None:
        """The system has no room (EMFILE, ENOMEM): the listener would stay readable, and the loop do nothing else."""
        self.connections.count("accept_failed")
        log.error("no connection can be accepted: %s; raise LimitNOFILE of mfad", err.strerror)
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(RETRY_S, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        if not self.stopping and self._loop is not None:
            self._loop.add_reader(listener, self._accept, listener)

    def _arrived(self, opened: socket.socket, address: str) -> None:
        bounds, here, network = self._bounds, self._by_address.get(address, 0), source_key(address)
        full = len(self.connections.open) + len(self._handshakes) >= bounds.connections or here >= bounds.per_address
        if full or (sum(map(len, self._shaking.values())) >= bounds.handshakes and not self._make_way(network)):
            self.connections.count("too_many_connections")
            opened.close()
            return
        opened.setblocking(False)
        self._by_address[address] = here + 1  # given back by _Place
        task = asyncio.get_running_loop().create_task(self._carry(opened, address))
        self._handshakes.add(task)
        self._shaking.setdefault(network, {})[task] = None
        task.add_done_callback(partial(self._shaken, network))

    def _make_way(self, network: str) -> bool:
        """Hang up on the oldest handshake of whoever has most under way, where whoever comes has fewer.

        Else a stranger who opens connections and says nothing would keep all hosts away, and they would decide alone.
        """
        greedy = max(self._shaking, key=lambda one: len(self._shaking[one]))
        if len(self._shaking[greedy]) <= len(self._shaking.get(network, ())) + 1:
            return False
        oldest = next(iter(self._shaking[greedy]))
        self._forget(greedy, oldest)
        oldest.cancel()
        self.connections.count("handshake_made_way")
        return True

    def _shaken(self, network: str, task: asyncio.Task[None]) -> None:
        self._handshakes.discard(task)
        self._forget(network, task)

    def _forget(self, network: str, task: asyncio.Task[None]) -> None:
        under_way = self._shaking.get(network, {})
        under_way.pop(task, None)
        if not under_way:
            self._shaking.pop(network, None)

    async def _carry(self, opened: socket.socket, address: str) -> None:
        place = _Place(self._by_address, address)

        def connection() -> HttpConnection:
            return HttpConnection(self._config, self._state, self.connections, place.give_back)

        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                connection, opened, ssl=self.context, ssl_handshake_timeout=HANDSHAKE_S, ssl_shutdown_timeout=SHUTDOWN_S
            )
        except OSError as err:  # ssl.SSLError and TimeoutError are
            self.connections.count("handshake_failed")
            log.debug("no TLS with %s: %s", address, getattr(err, "verify_message", None) or err)
            place.give_back()
            opened.close()
        except BaseException:
            place.give_back()
            opened.close()
            raise

    def _sweep(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        try:
            self.connections.sweep()
        except Exception:
            log.exception("connections could not be looked at")


class _Place:
    """A connection's share of what its address may have; given back once, whoever notices first that it is over."""

    __slots__ = ("_address", "_counts", "_held")

    def __init__(self, counts: dict[str, int], address: str) -> None:
        self._counts = counts
        self._address = address
        self._held = True

    def give_back(self) -> None:
        """It is over."""
        if not self._held:
            return
        self._held = False
        left = self._counts.get(self._address, 0) - 1
        if left > 0:
            self._counts[self._address] = left
        else:
            self._counts.pop(self._address, None)
