"""How do clients come in, and how long may they stay?

Room rule: sockets, TLS and time. What their octets mean is the session's; here they are taken, counted, secured and timed. One
look a second at every connection stands for all timers: none is set for a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from ldap_proxy import message, proxy_header
from ldap_proxy.ber import Malformed
from ldap_proxy.bind import Services
from ldap_proxy.message import ResultCode
from ldap_proxy.results import Outcome
from ldap_proxy.session import Rules, Session
from ldap_proxy.settings import ClientCertificate, LdapDoorSettings, Listen, Scheme, ServerTls
from ldap_proxy.sources import address_of, origin_of
from mfa_core.errors import ConfigurationError

ANY: Final = "*"
BACKLOG: Final = 1024
SWEEP_S: Final = 1.0
"""How often connections are looked at: the accuracy of their time limits."""
TELL_S: Final = 60.0
"""How often the log speaks of those who send what is no LDAP."""
SHUTDOWN_S: Final = 2.0
"""How long a client that is hung up on may take to say goodbye inside TLS."""
LAST_WORDS_S: Final = 1.0
"""How long clients may take to read that the door closes."""
_MOST_TOLD: Final = 8
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_CERTIFICATES: Final = {
    ClientCertificate.NONE: ssl.CERT_NONE,
    ClientCertificate.REQUEST: ssl.CERT_OPTIONAL,
    ClientCertificate.REQUIRE: ssl.CERT_REQUIRED,
}

log = logging.getLogger(__name__)

_origin_of = lru_cache(maxsize=4096)(origin_of)
"""Taking an address apart costs as much as a search; most connections come from few."""
Opened = tuple[Listen, socket.socket]


def open_sockets(listens: Sequence[Listen], *, shared: bool = False) -> list[Opened]:
    """Bind the addresses of ``listens``; with ``shared`` other sockets of ours may bind them too (several workers).

    Raises: ConfigurationError, when an address cannot be had; nothing stays open then.
    """
    found: list[Opened] = []
    try:
        for one in listens:
            if one.scheme is Scheme.LDAPI:
                found.append((one, _bound_path(one, shared=shared)))
            else:
                hosts = ("0.0.0.0", "::") if one.host == ANY else (one.host,)  # noqa: S104  what "*" says
                found.extend((one, _bound(one, host, shared=shared)) for host in hosts)
    except BaseException:
        for _, opened in found:
            opened.close()
        raise
    return found


def _bound(listen: Listen, host: str, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named: asyncio sets TCP_NODELAY on no other socket.
    opened = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.IPPROTO_TCP)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Connections inherit both (tcp(7), socket(7)): nothing waits for an acknowledgement, and a dead client shows.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        opened.bind((host, listen.port))
    except OSError as err:
        opened.close()
        raise ConfigurationError(
            f"doors.ldap.listen: {listen} cannot be listened on: {err.strerror}",
            cure="see who has it (`ss -tlpn`), or choose an address of this host and a free port",
        ) from err
    return opened


def _bound_path(listen: Listen, *, shared: bool) -> socket.socket:
    if shared:
        raise ConfigurationError(
            f"doors.ldap.listen: {listen} cannot be shared by several workers", cure="set `workers: 1`, or leave it out"
        )
    path = Path(listen.host)
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode) and not _is_answered(path):
            path.unlink()  # left behind by one that was killed
        opened.bind(str(path))
        path.chmod(0o666)  # who may come is decided by who can bind, as at any other address
    except OSError as err:
        opened.close()
        raise ConfigurationError(
            f"doors.ldap.listen: {listen} cannot be listened on: {err.strerror}",
            cure="give a path in a directory that mfad may write to, and that no other server has",
        ) from err
    return opened


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        return True


def tls_context(settings: ServerTls) -> ssl.SSLContext:
    """What clients are met with. Raises: ConfigurationError, when a file cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.minimum_version]
    what = f"certificate_file {settings.certificate_file} with key_file {settings.key_file}"
    try:
        context.load_cert_chain(settings.certificate_file, settings.key_file)
        if settings.client_ca_file is not None:
            what = f"client_ca_file {settings.client_ca_file}"
            context.load_verify_locations(cafile=settings.client_ca_file)
    except OSError as err:  # ssl.SSLError is one
        reason = getattr(err, "reason", None) or err.strerror or str(err)
        if reason == "KEY_VALUES_MISMATCH":
            reason = "the key is of another certificate"
        raise ConfigurationError(
            f"doors.ldap.tls: {what} cannot be used: {reason}",
            cure="give PEM files that mfad may read; `openssl x509 -in FILE -noout -text` shows a certificate",
        ) from err
    context.verify_mode = _CERTIFICATES[settings.client_certificate]
    return context


@dataclass(frozen=True, slots=True)
class Counters:
    """What happened since the start. ``binds`` and ``bind_seconds`` are by application and outcome."""

    connections: int
    accepted: int
    events: dict[str, int]
    binds: dict[tuple[str, str], int]
    bind_seconds: dict[tuple[str, str], float]


class LdapServer:
    """The listeners and all connections of this process: the :class:`ldap_proxy.session.Host` of its sessions."""

    def __init__(self, settings: LdapDoorSettings, services: Services) -> None:
        self.rules = Rules(settings, services)
        self._context = None if settings.tls is None else tls_context(settings.tls)
        self._listeners: list[asyncio.AbstractServer] = []
        self._paths: list[Path] = []
        self._sessions: set[Session] = set()
        self._arriving: dict[_Arrival, float] = {}
        self._by_origin: dict[object, int] = {}
        self._handshakes: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._accepted = 0
        self._events: dict[str, int] = {}
        self._binds: dict[tuple[str, str], int] = {}
        self._bind_seconds: dict[tuple[str, str], float] = {}
        self._names: dict[Listen, str] = {}
        self._malformed: dict[str, None] = {}
        self._malformed_count = 0
        self._told_at = 0.0
        self._stopping = False

    # -- life -----------------------------------------------------------------------------------------------------------------

    async def start(self, sockets: Sequence[Opened] | None = None) -> None:
        """Begin to listen, on ``sockets`` or on new ones. Raises: ConfigurationError, when an address cannot be had."""
        if sockets is None:
            sockets = open_sockets(self.rules.settings.listens)
        try:
            await self._listen(sockets)
        except BaseException:
            for listener in self._listeners:
                listener.close()
            for _, opened in sockets:
                opened.close()
            raise
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    async def _listen(self, sockets: Sequence[Opened]) -> None:
        loop = asyncio.get_running_loop()
        for listen, _ in sockets:
            if listen.scheme is Scheme.LDAPS and self._context is None:
                raise ConfigurationError(f"doors.ldap.listen: {listen} and no certificate", cure="add a section `tls`")
        for listen, opened in sockets:
            if listen.scheme is Scheme.LDAPI:
                self._paths.append(Path(listen.host))
                made = loop.create_unix_server(self._factory(listen), sock=opened, backlog=BACKLOG)
                self._listeners.append(await made)
            else:
                self._listeners.append(await loop.create_server(self._factory(listen), sock=opened, backlog=BACKLOG))

    def _factory(self, listen: Listen) -> Any:
        return lambda: _Arrival(self, listen)

    def reload(self, settings: LdapDoorSettings, services: Services | None = None) -> None:
        """From now on these hold: for connections that are there, from their next bind on, but for TLS that is now required:
        in clear that holds at once. Listeners stay as they are.

        Raises: ConfigurationError, when a certificate file cannot be used; the old settings hold then.
        """
        context = None if settings.tls is None else tls_context(settings.tls)
        self.rules = Rules(settings, services or self.rules.services)
        self._context = context
        for session in self._sessions:
            session.rules_changed()

    async def drain_and_stop(self) -> None:
        """Take no more connections; let what is under way end, for ``drain_s`` at most; tell clients, and hang up."""
        self._stopping = True
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for path in self._paths:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        for arrival in list(self._arriving):
            arrival.abort()
        until = loop.time() + self.rules.limits.drain_s
        while self._sessions and loop.time() < until:
            for session in list(self._sessions):
                session.drain()
            await asyncio.sleep(0.02)
        for session in list(self._sessions):
            session.dismiss()
        until = loop.time() + LAST_WORDS_S
        while self._sessions and loop.time() < until:  # noqa: ASYNC110  connections end by themselves, each in its own time
            await asyncio.sleep(0.02)
        for session in list(self._sessions):
            if session.transport is not None:
                session.transport.abort()
        for task in self._handshakes:
            task.cancel()
        await asyncio.sleep(0)  # aborted transports tell their sessions in the next round
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._tell()

    def counters(self) -> Counters:
        """What happened until now."""
        return Counters(
            len(self._sessions) + len(self._arriving),
            self._accepted,
            dict(self._events),
            dict(self._binds),
            dict(self._bind_seconds),
        )

    # -- the sessions' host ---------------------------------------------------------------------------------------------------

    def name_of(self, listen: Listen) -> str:
        """The listener as text."""
        name = self._names.get(listen)
        if name is None:
            name = self._names[listen] = str(listen)
        return name

    def can_secure(self) -> bool:
        """Whether there is a certificate for StartTLS."""
        return self._context is not None

    def secure(self, session: Session) -> None:
        """Begin a TLS handshake on the session's transport."""
        task = asyncio.get_running_loop().create_task(self._secure(session))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _secure(self, session: Session) -> None:
        transport, context = session.transport, self._context
        if transport is None or context is None:
            session.connection_lost(None)
            return
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport, session, context, server_side=True,
                ssl_handshake_timeout=self.rules.limits.tls_handshake_s, ssl_shutdown_timeout=SHUTDOWN_S,
            )  # fmt: skip
        except OSError as err:  # ssl.SSLError and TimeoutError are
            self._no_tls(session, err)
            transport.abort()
            session.connection_lost(err)
        except asyncio.CancelledError:
            transport.abort()
            session.connection_lost(None)
            raise
        else:
            if secured is None:  # the client was gone before it began
                session.connection_lost(None)
            else:
                session.secured_by(secured)

    def _no_tls(self, session: Session, err: OSError) -> None:
        self.count("tls_handshake_failed")
        log.info("no TLS with %s: %s", session.source or "a local client", getattr(err, "verify_message", None) or err)

    def later(self, session: Session) -> None:
        """In the loop's next round: sockets are looked at in between."""
        asyncio.get_running_loop().call_soon(session.take_turn)

    def left(self, session: Session) -> None:
        """Its connection is gone."""
        if session in self._sessions:
            self._sessions.discard(session)
            self._discount(session.origin)

    def count(self, event: str) -> None:
        """Count an event."""
        self._events[event] = self._events.get(event, 0) + 1

    def count_bind(self, application: str, outcome: Outcome, seconds: float) -> None:
        """Count how a bind ended."""
        key = (application, str(outcome))
        self._binds[key] = self._binds.get(key, 0) + 1
        self._bind_seconds[key] = self._bind_seconds.get(key, 0.0) + seconds

    def note_malformed(self, source: str, whose: str, text: str) -> None:
        """Somebody sent what is no LDAP: a line for each would let anybody fill the disk."""
        self.count(f"malformed_{whose}")
        self._malformed_count += 1
        if len(self._malformed) < _MOST_TOLD:
            who = "the directory" if whose == "upstream" else source or "a local client"
            self._malformed[f"{who}: {text}"] = None

    # -- arrivals -------------------------------------------------------------------------------------------------------------

    def arrived(self, arrival: _Arrival, transport: asyncio.Transport, listen: Listen) -> None:
        """Somebody has connected. A balancer that may say for whom it speaks must say so first."""
        self._accepted += 1
        limits = self.rules.limits
        if self._stopping or len(self._sessions) + len(self._arriving) >= limits.connections:
            self.count("too_many_connections")
            _turn_away(transport, listen)
            return
        source = ""
        if listen.scheme is not Scheme.LDAPI:
            peer = transport.get_extra_info("peername")
            if not peer:  # it is gone already
                transport.abort()
                return
            source = str(peer[0]).partition("%")[0]
            if self.rules.settings.proxy_protocol and self._is_balancer(source):
                self._arriving[arrival] = asyncio.get_running_loop().time()
                arrival.await_header(_taken_from(transport), source)
                return
        if listen.scheme is Scheme.LDAPS:
            self.introduced(_taken_from(transport), listen, source)
            return
        session = self._admit(listen, source)
        if session is None:
            _turn_away(transport, listen)
        else:
            transport.set_protocol(session)
            session.connection_made(transport)

    def _is_balancer(self, source: str) -> bool:
        address = address_of(source)
        return address is not None and any(address in network for network in self.rules.settings.proxy_protocol)

    def introduced(self, opened: socket.socket, listen: Listen, source: str) -> None:
        """It is known for whom it comes, and what it sends from now on is the client's own: LDAP, or a TLS handshake."""
        session = self._admit(listen, source)
        if session is None:
            if listen.scheme is not Scheme.LDAPS:
                with contextlib.suppress(OSError):
                    opened.send(_NO_ROOM)
            opened.close()
            return
        task = asyncio.get_running_loop().create_task(self._carry(session, opened))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _carry(self, session: Session, opened: socket.socket) -> None:
        """Give a connection that was taken from the loop back to it, as the session's."""
        loop, seconds = asyncio.get_running_loop(), self.rules.limits.tls_handshake_s
        context = self._context if session.listen.scheme is Scheme.LDAPS else None
        limits = {} if context is None else {"ssl_handshake_timeout": seconds, "ssl_shutdown_timeout": SHUTDOWN_S}
        try:
            if session.listen.scheme is Scheme.LDAPS and context is None:  # a reload has taken the certificate away
                raise OSError("no certificate")
            await loop.connect_accepted_socket(lambda: session, opened, ssl=context, **limits)
        except OSError as err:  # ssl.SSLError and TimeoutError are
            self._no_tls(session, err)
            opened.close()
            self.left(session)
        except asyncio.CancelledError:
            opened.close()
            self.left(session)
            raise

    def gone(self, arrival: _Arrival) -> None:
        """It has said for whom it speaks, or has left before."""
        self._arriving.pop(arrival, None)

    def _admit(self, listen: Listen, source: str) -> Session | None:
        """A session for a connection; None where its address has enough of them."""
        origin = _origin_of(source) if source else None
        if origin is not None:
            count = self._by_origin.get(origin, 0)
            if count >= self.rules.limits.connections_per_source:
                self.count("too_many_connections_from_source")
                return None
            self._by_origin[origin] = count + 1
        session = Session(self, listen, source, secured=listen.scheme is not Scheme.LDAP)
        session.origin = origin
        self._sessions.add(session)
        return session

    def _discount(self, origin: object) -> None:
        if origin is not None:
            left = self._by_origin.get(origin, 0) - 1
            if left > 0:
                self._by_origin[origin] = left
            else:
                self._by_origin.pop(origin, None)

    # -- time -----------------------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(SWEEP_S, self._sweep)
        now = self.rules.services.monotonic()
        for session in list(self._sessions):
            try:
                session.sweep(now)
            except Exception:
                # A bug is one connection's trouble.
                log.exception("a connection from %s could not be looked at", session.source or "a local client")
                if session.transport is not None:
                    session.transport.abort()
        late = loop.time() - self.rules.limits.header_s
        for arrival in [one for one, since in self._arriving.items() if since < late]:
            self.count("slow_header")
            arrival.abort()
        if now - self._told_at >= TELL_S:
            self._told_at = now
            self._tell()

    def _tell(self) -> None:
        if self._malformed_count:
            shown = "; ".join(self._malformed)
            log.warning("%d connections ended for what is no LDAP, such as %s", self._malformed_count, shown)
            self._malformed, self._malformed_count = {}, 0


class _Arrival(asyncio.Protocol):
    """A connection until it is known whose it is: at once, unless a PROXY header is to come first.

    The header is read off the socket, not an octet more than it has: TLS may begin right behind it, and what a transport has
    read once nobody can give to a handshake.
    """

    __slots__ = ("_buffer", "_listen", "_peer", "_server", "_socket")

    def __init__(self, server: LdapServer, listen: Listen) -> None:
        self._server = server
        self._listen = listen
        self._peer = ""
        self._socket: socket.socket | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.Protocol`."""
        self._server.arrived(self, transport, self._listen)  # type: ignore[arg-type]  # uvloop's are of its own class

    def await_header(self, opened: socket.socket, peer: str) -> None:
        """Read the header off ``opened``, which ``peer`` has connected to, then tell the server."""
        self._socket, self._peer = opened, peer
        asyncio.get_running_loop().add_reader(opened, self._readable)

    def _readable(self) -> None:
        opened = self._socket
        if opened is None:
            return
        have = len(self._buffer)
        whole = 16 if have < 16 else 16 + int.from_bytes(self._buffer[14:16], "big")
        try:
            data = opened.recv(whole - have)
            if not data:
                self.abort()
                return
            self._buffer += data
            header = proxy_header.read(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        except Malformed as err:
            self._server.note_malformed(self._peer, "client", err.text)
            self.abort()
            return
        if header is not None:
            self._stop_reading()
            self._server.introduced(opened, self._listen, self._peer if header.source is None else header.source)

    def _stop_reading(self) -> None:
        opened, self._socket = self._socket, None
        if opened is not None:
            asyncio.get_running_loop().remove_reader(opened)
        self._server.gone(self)

    def abort(self) -> None:
        """Hang up."""
        opened = self._socket
        self._stop_reading()
        if opened is not None:
            opened.close()


def _taken_from(transport: asyncio.Transport) -> socket.socket:
    """The connection, taken from the loop: this begins to read it as soon as connection_made returns, whatever was asked of it
    there (a pause is forgotten, by asyncio and by uvloop)."""
    taken = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    taken.setblocking(False)
    transport.abort()
    return taken


_NO_ROOM: Final = message.notice_of_disconnection(ResultCode.BUSY, "too many connections")


def _turn_away(transport: asyncio.Transport, listen: Listen) -> None:
    """There is no room. In clear the client is told so."""
    if listen.scheme is Scheme.LDAPS:
        transport.abort()
        return
    transport.write(_NO_ROOM)
    transport.close()
