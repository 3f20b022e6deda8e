"""Which directory server does a connection go to, and is there one ready?

Room rule: choice, health and stock. Servers are tried in their order; one that failed stands aside until it answers a check.
Connections are made by :mod:`ldap_proxy.dialling`, a few of them beforehand; one that has carried anything is never handed on.
Everything waits in bounded numbers for a bounded time.
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from ldap_proxy.dialling import Addresses, DialFailed, dial
from ldap_proxy.directory_client import Cancel, DirectoryClient, NoAnswer, Silence, result_name
from ldap_proxy.link import Link, Receiver
from ldap_proxy.message import SEARCH_REQUEST, ResultCode, Scope, build_search, present
from ldap_proxy.settings import Limits, Server, UpstreamSettings
from ldap_proxy.upstream_tls import UpstreamTls, upstream_tls
from mfa_core.errors import MfaError

__all__ = ["Cancel", "Link", "NoUpstream", "Receiver", "ServerState", "Upstreams"]

log = logging.getLogger(__name__)

MAX_DIALS: Final = 64
"""Connections that are made at once: more TLS handshakes than that would time out over each other."""
WARM_S: Final = 60.0
"""A connection that nobody took for so long is replaced: what stands in between may have forgotten it without a word."""
LINGER_S: Final = 5.0
"""How long a server may take for what it is still to be sent, after leave was taken."""
STOP_S: Final = 1.0
"""How long at the end of the process."""
TOLD_AGAIN_S: Final = 60.0
"""How often the log says why a server is down when the reason changes."""
_NOT_SERVING = frozenset({ResultCode.BUSY, ResultCode.UNAVAILABLE})


class NoUpstream(MfaError):
    """No server gives a connection now: answer 52, or 51 where ``overloaded`` says that too many wait."""

    def __init__(self, message: str, *, cure: str = "see `mfactl doctor`", overloaded: bool = False) -> None:
        super().__init__(message, cure=cure)
        self.overloaded = overloaded


class ServerState(NamedTuple):
    """One server, for metrics. ``connections`` are those of clients and look-ups, not those in stock."""

    server: str
    healthy: bool
    connections: int


Done = Callable[[Link | NoUpstream], None]


def _nothing() -> None:
    """There is nothing to call off."""


@dataclass(slots=True, eq=False)
class _Request:
    """Somebody who waits for a connection."""

    receiver: Receiver
    done: Done
    until: float
    task: asyncio.Task[Link | NoUpstream] | None = None
    off: bool = False

    def call_off(self) -> None:
        self.off = True
        if self.task is not None:
            self.task.cancel()


class _InStock:
    """Hears of a connection that nobody has taken yet. A directory says nothing on its own but farewell: then it goes."""

    def __init__(self, server: _Server, link: Link, since: float) -> None:
        self.server = server
        self.link = link
        self.since = since
        link.give_to(self)

    def upstream_data(self, data: bytes) -> None:  # noqa: ARG002  the protocol's shape
        self.server.drop(self)
        self.link.abort()

    def upstream_lost(self, error: Exception | None) -> None:  # noqa: ARG002  the protocol's shape
        self.server.drop(self)

    def upstream_full(self) -> None: ...

    def upstream_drained(self) -> None: ...


class _Server:
    """One server, what is known of it, and its stock. Owner of its links."""

    def __init__(self, server: Server, *, monotonic: Callable[[], float]) -> None:
        self.server = server
        self.name = str(server)
        self.addresses = Addresses(server, monotonic=monotonic)
        self.failed_at: float | None = None
        self.why = ""
        self.told_at = 0.0
        self.links: set[Link] = set()
        self.closing: dict[Link, float] = {}
        self.stock: deque[_InStock] = deque()
        self.being_stocked = 0
        self.checker: DirectoryClient | None = None
        self._monotonic = monotonic

    @property
    def healthy(self) -> bool:
        return self.failed_at is None

    @property
    def connections(self) -> int:
        return max(0, len(self.links) - len(self.stock) - (self.checker is not None))

    def link_closing(self, link: Link) -> None:
        self.closing[link] = self._monotonic()

    def link_ended(self, link: Link) -> None:
        self.links.discard(link)
        self.closing.pop(link, None)

    def take(self) -> Link | None:
        """A connection of the stock that is good as far as can be seen."""
        while self.stock:
            link = self.stock.popleft().link
            if link.is_open and not _has_something_to_read(link):
                return link
            link.abort()
        return None

    def drop(self, one: _InStock) -> None:
        if one in self.stock:
            self.stock.remove(one)

    def clear_stock(self, *, before: float | None = None) -> None:
        """Take leave of connections in stock: all, or those from before ``before``."""
        while self.stock and (before is None or self.stock[0].since < before):
            self.stock.popleft().link.close()

    def sweep(self, *, after_s: float = LINGER_S) -> None:
        """End what has lingered."""
        before = self._monotonic() - after_s
        for link in [link for link, since in self.closing.items() if since <= before]:
            link.abort()

    def leave(self) -> None:
        """Give up stock and check."""
        self.clear_stock()
        if self.checker is not None:
            self.checker.close()
            self.checker = None


class Upstreams:
    """The directory. Belongs to one event loop. ``monotonic`` returns seconds."""

    def __init__(self, settings: UpstreamSettings, *, monotonic: Callable[[], float], limits: Limits) -> None:
        """Raises: ConfigurationError, when a CA file or a certificate cannot be used."""
        self._settings = settings
        self._limits = limits
        self._monotonic = monotonic
        self._tls: UpstreamTls | None = upstream_tls(settings)
        self._servers = [_Server(server, monotonic=monotonic) for server in settings.servers]
        self._left: list[_Server] = []
        self._waiting: deque[_Request] = deque()
        self._dials: set[asyncio.Task[Link | NoUpstream]] = set()
        self._stocking: set[asyncio.Task[None]] = set()
        self._checks: dict[_Server, asyncio.Task[None]] = {}
        self._watch: asyncio.Task[None] | None = None
        self._stopped = False
        self.counts: dict[str, int] = {"dialled": 0, "dial_failed": 0, "from_stock": 0, "refused": 0}
        """Events since the start: connections made, not made, taken out of the stock; and clients that got none."""

    async def start(self) -> None:
        """Begin to check the servers and to stock connections. Servers that are down are no failure: they may come."""
        self._watch = asyncio.get_running_loop().create_task(self._keep_watch())

    async def stop(self) -> None:
        """Hand out no more connections, close those in stock, and end what is under way. Those in use are their users'."""
        self._stopped = True
        tasks: list[asyncio.Task[Any]] = [*self._dials, *self._stocking, *self._checks.values()]
        if self._watch is not None:
            tasks.append(self._watch)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for request in self._waiting:
            self._tell(request, NoUpstream("mfad is stopping"))
        self._waiting.clear()
        servers = (*self._servers, *self._left)
        for server in servers:
            server.leave()
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + STOP_S
        while any(server.closing for server in servers) and loop.time() < give_up_at:  # noqa: ASYNC110  once, at the end
            # uvloop will not be closed over connections that are still being closed.
            await asyncio.sleep(STOP_S / 100)
        for server in servers:
            server.sweep(after_s=0.0)
        await asyncio.sleep(0)

    def reload(self, settings: UpstreamSettings, limits: Limits | None = None) -> None:
        """Take over new settings, and limits where there are some; connections in use stay where they are.

        Raises: ConfigurationError, when a file cannot be used; the old settings hold then.
        """
        self._tls = upstream_tls(settings)
        self._settings = settings
        if limits is not None:
            self._limits = limits
        known = {one.server: one for one in self._servers}
        self._servers = [
            known.pop(server) if server in known else _Server(server, monotonic=self._monotonic) for server in settings.servers
        ]
        for server in self._servers:
            # They were made under the old settings: other pins, another certificate.
            server.leave()
        for server in known.values():
            server.leave()
            self._left.append(server)
        if self._watch is not None:
            # What was wrong may have been mended by this.
            for server in self._servers:
                self._check_soon(server)
        self._stock_up()

    def states(self) -> list[ServerState]:
        """The servers in their order."""
        return [ServerState(one.name, one.healthy, one.connections) for one in self._servers]

    def connect(self, receiver: Receiver, done: Done) -> Cancel:
        """Get a connection that was never bound, and tell ``done`` once; ``receiver`` then hears what comes over it.

        With one in stock, and with a refusal for lack of room, ``done`` is called before this returns; else later, on the loop.
        The :data:`Cancel` that it returns calls it off: nothing is told any more. It does nothing when ``done`` was called.
        """
        if self._stopped:
            done(NoUpstream("mfad is stopping"))
            return _nothing
        link = self._from_stock()
        if link is not None:
            self.counts["from_stock"] += 1
            link.give_to(receiver)
            done(link)
            self._stock_up()
            return _nothing
        healthy = sum(one.healthy for one in self._servers)
        request = _Request(receiver, done, self._monotonic() + self._settings.connect_timeout_s * max(1, healthy))
        if len(self._dials) < MAX_DIALS:
            self._begin(request)
        elif len(self._waiting) < self._limits.connections:
            self._waiting.append(request)
        else:
            self.counts["refused"] += 1
            done(NoUpstream("too many connections to the directory are waited for", overloaded=True))
        return request.call_off

    def _from_stock(self) -> Link | None:
        for server in self._candidates():
            if not server.healthy:
                return None
            link = server.take()
            if link is not None:
                return link
            if not self._settings.spread:
                return None
        return None

    def _candidates(self) -> Sequence[_Server]:
        """Servers as they are to be tried: the healthy ones, and behind them the one that failed longest ago first."""
        if len(self._servers) == 1:
            return self._servers
        healthy = [one for one in self._servers if one.healthy]
        if self._settings.spread:
            healthy.sort(key=lambda one: one.connections)
        aside = [(one.failed_at, at, one) for at, one in enumerate(self._servers) if one.failed_at is not None]
        return [*healthy, *(one for _, _, one in sorted(aside, key=lambda item: item[:2]))]

    # -- making connections ---------------------------------------------------------------------------------------------------

    def _begin(self, request: _Request) -> None:
        task = asyncio.get_running_loop().create_task(self._dial_one(request.until))
        request.task = task
        self._dials.add(task)
        task.add_done_callback(partial(self._dialled, request))

    def _dialled(self, request: _Request, task: asyncio.Task[Link | NoUpstream]) -> None:
        self._dials.discard(task)
        self._begin_next()
        if task.cancelled():
            self._tell(request, NoUpstream("mfad is stopping"))
            return
        bug = task.exception()
        if bug is not None:
            # One client's trouble: he must not wait for ever because of it.
            log.error("a connection to the directory could not be made", exc_info=bug)
            self._tell(request, NoUpstream("an internal error", cure="report what stands in the log"))
            return
        self._tell(request, task.result())

    def _begin_next(self) -> None:
        while self._waiting and len(self._dials) < MAX_DIALS and not self._stopped:
            request = self._waiting.popleft()
            if request.off:
                continue
            if request.until < self._monotonic():
                self._tell(request, NoUpstream("the directory gave no connection in time", overloaded=True))
            else:
                self._begin(request)

    def _tell(self, request: _Request, answer: Link | NoUpstream) -> None:
        if isinstance(answer, NoUpstream):
            if not request.off:
                self.counts["refused"] += 1
                request.done(answer)
            return
        if request.off:
            answer.close()
            return
        if not answer.is_open:
            self.counts["refused"] += 1
            request.done(NoUpstream(f"{answer.server} closed the connection at once", cure="see the server's log"))
            return
        answer.give_to(request.receiver)
        request.done(answer)

    async def _dial_one(self, until: float) -> Link | NoUpstream:
        """A connection to the first server that gives one."""
        reasons: list[str] = []
        for server in self._candidates():
            left = until - self._monotonic()
            if left <= 0:
                break
            try:
                link = await self._dial(server, min(left, self._settings.connect_timeout_s))
            except DialFailed as err:
                reasons.append(f"{server.name}: {err}")
                self._failed(server, err)
                continue
            if not server.healthy:
                # It was asked for lack of a better one. A look at it now ends the outage now.
                self._check_soon(server)
            return link
        return NoUpstream("; ".join(reasons) or "the directory gave no connection in time")

    async def _dial(self, server: _Server, timeout_s: float) -> Link:
        """Raises: DialFailed."""
        try:
            link = await dial(
                server.server, server, addresses=server.addresses, tls=self._tls, start_tls=self._settings.start_tls,
                timeout_s=timeout_s, write_buffer=self._limits.write_buffer,
            )  # fmt: skip
        except DialFailed:
            self.counts["dial_failed"] += 1
            raise
        self.counts["dialled"] += 1
        server.links.add(link)
        return link

    # -- stock ----------------------------------------------------------------------------------------------------------------

    def _stock_up(self) -> None:
        """Begin to make what is missing. A server that fails is left alone until the next look at it."""
        if self._stopped or self._watch is None:
            return
        for server, wanted in self._wanted():
            while len(server.stock) + server.being_stocked < wanted and len(self._stocking) < MAX_DIALS:
                server.being_stocked += 1
                task = asyncio.get_running_loop().create_task(self._add_to_stock(server, self._settings))
                self._stocking.add(task)
                task.add_done_callback(self._stocking.discard)

    def _wanted(self) -> Iterable[tuple[_Server, int]]:
        healthy = [one for one in self._servers if one.healthy]
        if not self._settings.spread:
            healthy = healthy[:1]
        return [(one, -(-self._settings.warm // len(healthy))) for one in healthy]

    async def _add_to_stock(self, server: _Server, settings: UpstreamSettings) -> None:
        try:
            link = await self._dial(server, settings.connect_timeout_s)
        except DialFailed as err:
            self._failed(server, err)
            return
        finally:
            server.being_stocked -= 1
        if settings is not self._settings or not server.healthy or self._stopped:
            link.close()
        elif link.is_open:
            server.stock.append(_InStock(server, link, self._monotonic()))

    # -- health ---------------------------------------------------------------------------------------------------------------

    async def _keep_watch(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            for server in (*self._servers, *self._left):
                server.sweep()
            self._left = [one for one in self._left if one.links]
            if loop.time() >= due:
                due = loop.time() + self._settings.health_interval_s
                self._look_round()
            await asyncio.sleep(min(LINGER_S, max(0.0, due - loop.time())))

    def _look_round(self) -> None:
        wanted = {one for one, _ in self._wanted()}
        for server in self._servers:
            server.clear_stock(before=self._monotonic() - WARM_S if server in wanted else None)
            self._check_soon(server)
        self._stock_up()

    def _check_soon(self, server: _Server) -> None:
        if server not in self._checks and not self._stopped:
            task = asyncio.get_running_loop().create_task(self._check(server, self._settings))
            self._checks[server] = task
            task.add_done_callback(lambda _: self._checks.pop(server, None))

    async def _check(self, server: _Server, settings: UpstreamSettings) -> None:
        """Ask for the root DSE, over a connection that is kept for it: a server that takes connections may still be dead."""
        try:
            if server.checker is not None:
                try:
                    await self._ask_root_dse(server.checker)
                except Silence:
                    raise
                except NoAnswer:
                    # The server may close idle connections: that alone is no outage.
                    server.checker = None
            if server.checker is None:
                link = await self._dial(server, self._settings.connect_timeout_s)
                server.checker = DirectoryClient(link, ended=partial(self._checker_ended, server))
                await self._ask_root_dse(server.checker)
        except (DialFailed, NoAnswer) as err:
            if server.checker is not None:
                server.checker.close()
                server.checker = None
            self._failed(server, err)
        else:
            self._answered(server)
        if settings is not self._settings:
            # It was reached under settings that hold no more, and is perhaps not one of ours any more.
            server.leave()

    def _checker_ended(self, server: _Server, checker: DirectoryClient) -> None:
        if server.checker is checker:
            server.checker = None

    async def _ask_root_dse(self, checker: DirectoryClient) -> None:
        """Raises: NoAnswer. A refusal is an answer too: anonymous searches may be forbidden."""
        answer = await checker.asked(
            lambda message_id: build_search(message_id, b"", Scope.BASE, present("objectClass"), ("1.1",)),
            SEARCH_REQUEST,
            timeout_s=self._settings.connect_timeout_s,
        )
        if answer.result.code in _NOT_SERVING:
            raise NoAnswer(f"{checker.server} answers {result_name(answer.result.code)} to a look at its root DSE")

    def _failed(self, server: _Server, err: MfaError) -> None:
        now = self._monotonic()
        said = str(err)
        news = server.healthy or (said != server.why and now >= server.told_at + TOLD_AGAIN_S)
        server.failed_at = now
        server.clear_stock()
        if news:
            server.why, server.told_at = said, now
            log.error("%s is not used: %s%s", server.name, said, f" ({err.cure})" if err.cure else "")
            self._stock_up()

    def _answered(self, server: _Server) -> None:
        if server.failed_at is None:
            return
        others = any(one.healthy for one in self._servers)
        if others and self._monotonic() < server.failed_at + self._settings.dead_time_s:
            return  # one that comes and goes costs more than it gives, as long as another one serves
        server.failed_at = None
        log.warning("%s answers again", server.name)
        self._stock_up()


def _has_something_to_read(link: Link) -> bool:
    """Whether the server has closed an idle connection, or said that it will, and the loop has not looked yet."""
    descriptor = link.descriptor
    if descriptor < 0:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
