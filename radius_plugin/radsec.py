"""How does RADIUS come over TLS? (RFC 6614, framing of RFC 6613)

Room rule: connections. A certificate says who the client is; each packet then takes the path of every other packet, with an
identifier space and duplicates of its own. Requests of one connection are under way side by side: a slow one holds none up.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import itertools
import logging
import socket
import ssl
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from mfa_core.errors import ConfigurationError
from radius_plugin.clients import Client, PeerIdentity
from radius_plugin.exchange import Exchange
from radius_plugin.server import ANY
from radius_plugin.settings import Listen, Purpose, RadiusDoorSettings, TlsSettings, Transport
from radius_plugin.wire import Malformed, packet_length

BACKLOG = 256
MAX_UNSENT = 256 * 1024
"""Octets of answers that a client may leave unread before it is hung up on."""
MAX_ARRIVING = 256
"""Handshakes under way at once: whoever begins one has shown nothing yet."""
MAX_ARRIVING_FROM_ONE = 16
"""Of these, from one IPv4 address, or from one /64 of IPv6."""
HANDSHAKES_PER_S, HANDSHAKES_AT_ONCE = 4.0, 64.0
"""How often one origin may begin, sustained and in a burst: each time costs a signature, and connections live long."""
MAX_ORIGINS = 4096
ACCEPT_AT_ONCE = 16
BREATHER_S = 1.0
"""How long no connection is taken when the process has no descriptors left."""
SHUTDOWN_S = 2.0
"""How long a client that is hung up on may take to say goodbye."""
_BOTH = frozenset(Purpose)
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

log = logging.getLogger(__name__)


def tls_context(settings: TlsSettings) -> ssl.SSLContext:
    """What the listeners speak: our certificate, and one of each client that ``client_ca_file`` vouches for.

    Raises: ConfigurationError, when a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.minimum_version]
    context.verify_mode = ssl.CERT_REQUIRED
    what = "certificate_file and key_file"
    try:
        context.load_cert_chain(settings.certificate_file, settings.key_file)
        what = "client_ca_file"
        context.load_verify_locations(cafile=settings.client_ca_file)
    except OSError as err:  # ssl.SSLError is one
        reason = getattr(err, "reason", None) or err.strerror or str(err)
        raise ConfigurationError(
            f"doors.radius.tls: {what} cannot be used: {reason}",
            cure="give PEM files that mfad may read; `openssl x509 -in FILE -noout -text` shows a certificate",
        ) from err
    return context


def open_tls_sockets(listen: Sequence[Listen], *, shared: bool = False) -> list[socket.socket]:
    """Bind the TLS addresses of ``listen``. Raises: ConfigurationError; nothing stays open then."""
    found: list[socket.socket] = []
    try:
        for one in listen:
            if one.transport is Transport.TLS:
                hosts = ("0.0.0.0", "::") if one.host == ANY else (one.host,)  # noqa: S104  what "*" says
                found.extend(_bound(host, one.port, shared=shared) for host in hosts)
    except BaseException:
        for opened in found:
            opened.close()
        raise
    return found


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.bind((host, port))
    except OSError as err:
        opened.close()
        raise ConfigurationError(
            f"doors.radius.listen: {host} port {port} (TLS) cannot be listened on: {err.strerror}",
            cure="see who has it (`ss -tlpn`), or choose an address of this host and a free port",
        ) from err
    return opened


class RadSecServer:
    """The TLS listeners and their connections. ``clock`` is Unix seconds, for the dates of certificates."""

    def __init__(
        self,
        exchange: Exchange,
        settings: RadiusDoorSettings,
        sockets: Sequence[socket.socket],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.exchange = exchange
        self.settings = settings
        self.clock = clock
        self._sockets = list(sockets)
        self._context: ssl.SSLContext | None = None
        self._arriving: dict[asyncio.Task[None], Hashable] = {}
        self._begun: dict[Hashable, tuple[float, float]] = {}
        self._listening = False
        self.connections: set[_Connection] = set()
        self.numbers = itertools.count()

    async def start(self) -> None:
        """Begin to listen. Raises: ConfigurationError, when a certificate file cannot be used."""
        if self.settings.tls is None:
            raise ConfigurationError("doors.radius: a tls:// address and no certificate", cure="add a section tls")
        self._context = tls_context(self.settings.tls)
        self._listening = True
        for opened in self._sockets:
            opened.listen(BACKLOG)
            self._listen_to(opened)

    def reload(self, settings: RadiusDoorSettings) -> None:
        """Take over limits and certificates: connections that are there stay, as far as their client does.

        Raises: ConfigurationError, when a certificate file cannot be used; the old ones hold then.
        """
        if settings.tls is not None:
            # A new one: an authority that is no longer named would stay in the old one.
            self._context = tls_context(settings.tls)
        self.settings = settings

    def stop(self) -> None:
        """Take no more connections, and read no more from those that are there."""
        self._listening = False
        loop = asyncio.get_running_loop()
        for opened in self._sockets:
            loop.remove_reader(opened.fileno())
            opened.close()
        self._sockets.clear()
        for task in self._arriving:
            task.cancel()
        for connection in self.connections:
            connection.read_no_more()

    def close(self) -> None:
        """Hang up."""
        for connection in list(self.connections):
            connection.hang_up()

    def count(self, event: str) -> None:
        """Count an event of somebody who is no client yet."""
        self.exchange.counts[event] = self.exchange.counts.get(event, 0) + 1

    def has_room_for(self, name: str) -> bool:
        """Whether a client may have one connection more: half of all is for one of them, the rest for the others."""
        if len(self.connections) >= self.settings.max_tls_connections:
            return False
        if len(self.settings.tls_clients) < 2:
            return True
        own = sum(connection.client_name == name for connection in self.connections)
        return own < max(1, self.settings.max_tls_connections // 2)

    def _listen_to(self, opened: socket.socket) -> None:
        if self._listening:
            asyncio.get_running_loop().add_reader(opened.fileno(), self._accept, opened)

    def _accept(self, opened: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(ACCEPT_AT_ONCE):
            try:
                connection, peer = opened.accept()
            except BlockingIOError:
                return
            except OSError as err:
                if err.errno in _EXHAUSTED:
                    log.error("no TLS connection can be taken: %s", err)
                    loop.remove_reader(opened.fileno())
                    loop.call_later(BREATHER_S, self._listen_to, opened)
                return  # else: it was gone before it was taken
            connection.setblocking(False)
            origin = _origin(peer[0])
            if not self._may_begin(origin):
                connection.close()
                self.count("tls_too_many_handshakes")
                continue
            task = loop.create_task(self._secure(connection, peer[0]))
            self._arriving[task] = origin
            task.add_done_callback(self._arriving.pop)

    def _may_begin(self, origin: Hashable) -> bool:
        if len(self._arriving) >= MAX_ARRIVING:
            return False
        if sum(one == origin for one in self._arriving.values()) >= MAX_ARRIVING_FROM_ONE:
            return False
        now = asyncio.get_running_loop().time()
        left, since = self._begun.get(origin, (HANDSHAKES_AT_ONCE, now))
        left = min(HANDSHAKES_AT_ONCE, left + (now - since) * HANDSHAKES_PER_S)
        if origin not in self._begun and len(self._begun) >= MAX_ORIGINS:
            self._begun.clear()
        self._begun[origin] = (left - 1 if left >= 1 else left, now)
        return left >= 1

    async def _secure(self, connection: socket.socket, address: str) -> None:
        """One handshake. Nobody is let in by anything that goes wrong here."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Connection(self), connection, ssl=self._context,
                ssl_handshake_timeout=self.settings.tls_handshake_s, ssl_shutdown_timeout=SHUTDOWN_S,
            )  # fmt: skip
        except OSError as err:  # ssl.SSLError and TimeoutError are
            connection.close()
            self.count("tls_handshake_failed")
            log.warning("no TLS connection with %s: %s", address, getattr(err, "verify_message", None) or err)
        except asyncio.CancelledError:
            connection.close()
            raise
        except Exception:
            # A bug is one connection's trouble.
            connection.close()
            self.count("tls_handshake_failed")
            log.exception("a TLS connection with %s could not be made", address)


def _origin(address: str) -> Hashable:
    """What handshakes are counted under."""
    if ":" not in address:
        return address
    return socket.inet_pton(socket.AF_INET6, address.partition("%")[0])[:8]


class _Connection(asyncio.Protocol):
    """One client over one TLS connection."""

    def __init__(self, server: RadSecServer) -> None:
        self._server = server
        self._number = next(server.numbers)
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._identity: PeerIdentity | None = None
        self._address = ""
        self._peer: tuple[Any, ...] = ()
        self._asked: set[Hashable] = set()
        self._idle: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._good_until = 0.0
        self.client_name = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find out who it is: only here, so that a reload holds for connections that are there."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")  # noqa: S101  uvloop's own class
        self._transport = transport  # type: ignore[assignment]
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if peer else ""
        self._peer = ("tls", self._number, self._address)
        server = self._server
        secured = transport.get_extra_info("ssl_object")
        certificate = secured.getpeercert() or {}
        self._identity = identity_of(certificate, secured.getpeercert(binary_form=True) or b"")
        # Asked here as well: a session that is taken up again shows its certificate without verifying it.
        self._good_until = end_of(certificate)
        client = self._client()
        if client is None:
            self._refuse(f"no client has this certificate ({self._identity})")
            return
        if not server.has_room_for(client.settings.name):
            client.count("tls_too_many_connections")
            self._refuse(f"too many TLS connections, of client {client.settings.name} or of all")
            return
        self.client_name = client.settings.name
        server.connections.add(self)
        transport.set_write_buffer_limits(high=MAX_UNSENT)  # type: ignore[attr-defined]
        self._heard_at = asyncio.get_running_loop().time()
        self._watch_idle()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the protocol's shape
        """Forget it; answers under way find nobody."""
        self._server.connections.discard(self)
        self._transport = None
        if self._idle is not None:
            self._idle.cancel()

    def pause_writing(self) -> None:
        """It asks and does not listen."""
        self._refuse("it leaves its answers unread")

    def data_received(self, data: bytes) -> None:
        """Take the packets out of the stream. A stream that is no RADIUS cannot be followed, and ends here."""
        buffer, client = self._buffer, self._client()
        if self._transport is None:
            return
        if client is None:
            self._refuse("its client is no longer in the configuration, or its certificate has expired")
            return
        self._heard_at = asyncio.get_running_loop().time()
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= 4:
                length = packet_length(bytes(buffer[at : at + 4]))
                if len(buffer) - at < length or self._transport is None:
                    break
                self._take(client, bytes(buffer[at : at + length]))
                at += length
        except Malformed as err:
            client.count(f"dropped_{err.flaw}")
            self._refuse(str(err))
            return
        del buffer[:at]  # what remains is less than a packet

    def _take(self, client: Client, packet: bytes) -> None:
        exchange = self._server.exchange
        key = (*self._peer, packet[0], packet[1])
        most = self._server.settings.max_requests_per_connection
        if len(self._asked) >= most and key not in self._asked:
            # Some may have ended without an answer.
            self._asked = {one for one in self._asked if exchange.is_under_way(one)}
            if len(self._asked) >= most:
                client.count("dropped_too_many_on_connection")
                return
        try:
            exchange.receive_from(
                client, packet, self._peer, self._send, key, _BOTH, self._address, protected=True
            )
        except Exception:
            # A bug is one packet's trouble, not that of everybody behind this client.
            log.exception("a packet of client %s could not be handled", client.settings.name)
            client.count("dropped_internal")
        if exchange.is_under_way(key):
            self._asked.add(key)

    def _send(self, octets: bytes, to: Any) -> None:
        self._asked.discard(to)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(octets)

    def _client(self) -> Client | None:
        if self._identity is None or self._server.clock() >= self._good_until:
            return None
        return self._server.exchange.client_with(self._identity)

    def _watch_idle(self) -> None:
        loop = asyncio.get_running_loop()
        left = self._heard_at + self._server.settings.tls_idle_s - loop.time()
        if left <= 0:
            self.hang_up()
        else:
            self._idle = loop.call_later(left, self._watch_idle)

    def _refuse(self, why: str) -> None:
        log.warning("TLS connection from %s ended: %s", self._address, why)
        self.hang_up()

    def read_no_more(self) -> None:
        """Take no more requests."""
        if self._transport is not None:
            self._transport.pause_reading()

    def hang_up(self) -> None:
        """Close, at once where the other side does not read."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort() if transport.get_write_buffer_size() else transport.close()


def end_of(certificate: Any) -> float:
    """Unix seconds from which on a certificate is no longer good; 0 where it does not say."""
    try:
        return float(ssl.cert_time_to_seconds(certificate["notAfter"]))
    except (KeyError, ValueError):
        return 0.0


def identity_of(certificate: Any, octets: bytes) -> PeerIdentity:
    """Who a certificate says it is: its names (RFC 6125: of SubjectAltName; the common name where there is none)."""
    names = {value.lower() for kind, value in certificate.get("subjectAltName", ()) if kind in {"DNS", "IP Address", "URI"}}
    if not names:
        names = {
            value.lower() for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"
        }
    return PeerIdentity(frozenset(names), hashlib.sha256(octets).hexdigest())
