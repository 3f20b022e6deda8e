"""How does RADIUS come over TLS? (RFC 6614, framing of RFC 6613)

Room rule: connections. A certificate says who the client is; each packet then takes the path of every other packet, with an
identifier space and duplicates of its own. Requests of one connection are under way side by side: a slow one holds none up.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import socket
import ssl
from collections.abc import Sequence
from typing import Any

from mfa_core.errors import ConfigurationError
from radius_plugin.clients import Client, PeerIdentity
from radius_plugin.exchange import Exchange
from radius_plugin.server import ANY
from radius_plugin.settings import Listen, Purpose, RadiusDoorSettings, TlsSettings, Transport
from radius_plugin.wire import PACKET_MAX, Malformed, packet_length

BACKLOG = 256
MAX_UNSENT = 256 * 1024
"""Octets of answers that a client may leave unread before it is hung up on."""
_BOTH = frozenset(Purpose)
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
    """The TLS listeners and their connections."""

    def __init__(self, exchange: Exchange, settings: RadiusDoorSettings, sockets: Sequence[socket.socket]) -> None:
        self.exchange = exchange
        self.settings = settings
        self._sockets = list(sockets)
        self._servers: list[asyncio.Server] = []
        self._contexts: list[ssl.SSLContext] = []
        self.connections: set[_Connection] = set()
        self.numbers = itertools.count()

    async def start(self) -> None:
        """Begin to listen. Raises: ConfigurationError, when a certificate file cannot be used."""
        if self.settings.tls is None:
            raise ConfigurationError("doors.radius: a tls:// address and no certificate", cure="add a section tls")
        context = tls_context(self.settings.tls)
        for opened in self._sockets:
            self._servers.append(
                await asyncio.get_running_loop().create_server(
                    lambda: _Connection(self), sock=opened, ssl=context, backlog=BACKLOG,
                    ssl_handshake_timeout=self.settings.tls_handshake_s,
                )
            )  # fmt: skip
        self._contexts.append(context)

    def reload(self, settings: RadiusDoorSettings) -> None:
        """Take over limits and certificates: connections that are there stay, as far as their client does.

        Raises: ConfigurationError, when a certificate file cannot be used; the old ones hold then.
        """
        if settings.tls is not None:
            tls_context(settings.tls)  # what cannot be used is found before anything is changed
            for context in self._contexts:
                context.load_cert_chain(settings.tls.certificate_file, settings.tls.key_file)
                context.load_verify_locations(cafile=settings.tls.client_ca_file)
                context.minimum_version = _VERSIONS[settings.tls.minimum_version]
        self.settings = settings

    def stop(self) -> None:
        """Take no more connections, and read no more from those that are there."""
        for server in self._servers:
            server.close()
        for connection in self.connections:
            connection.read_no_more()

    def close(self) -> None:
        """Hang up."""
        for connection in list(self.connections):
            connection.hang_up()


class _Connection(asyncio.Protocol):
    """One client over one TLS connection."""

    def __init__(self, server: RadSecServer) -> None:
        self._server = server
        self._number = next(server.numbers)
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._identity: PeerIdentity | None = None
        self._address = ""
        self._asked: dict[int, float] = {}
        self._idle: asyncio.TimerHandle | None = None
        self._heard_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find out who it is: only here, so that a reload holds for connections that are there."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")  # noqa: S101  uvloop's own class
        self._transport = transport  # type: ignore[assignment]
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if peer else ""
        server = self._server
        if len(server.connections) >= server.settings.max_tls_connections:
            self._refuse("too many TLS connections")
            return
        secured = transport.get_extra_info("ssl_object")
        self._identity = identity_of(secured.getpeercert() or {}, secured.getpeercert(binary_form=True) or b"")
        server.connections.add(self)
        if self._client() is None:
            self._refuse(f"no client has this certificate ({self._identity})")
            return
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
        if client is None or self._transport is None:
            self._refuse("its client is no longer in the configuration")
            return
        self._heard_at = asyncio.get_running_loop().time()
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= 4:
                length = packet_length(bytes(buffer[at : at + 4]))
                if len(buffer) - at < length:
                    break
                self._take(client, bytes(buffer[at : at + length]))
                at += length
        except Malformed as err:
            client.count(f"dropped_{err.flaw}")
            self._refuse(str(err))
            return
        del buffer[:at]
        if len(buffer) > PACKET_MAX:
            self._refuse("more than a packet without its end")

    def _take(self, client: Client, packet: bytes) -> None:
        settings, now = self._server.settings, asyncio.get_running_loop().time()
        if len(self._asked) >= settings.max_requests_per_connection and packet[1] not in self._asked:
            # What was never answered is over by then.
            gone = now - settings.decision_s - client.settings.wait_s
            self._asked = {number: at for number, at in self._asked.items() if at > gone}
            if len(self._asked) >= settings.max_requests_per_connection:
                client.count("dropped_too_many_on_connection")
                return
        self._asked[packet[1]] = now
        try:
            self._server.exchange.receive_from(
                client, packet, ("tls", self._number, self._address), self._send, packet[1], _BOTH, self._address,
                protected=True,
            )  # fmt: skip
        except Exception:
            # A bug is one packet's trouble, not that of everybody behind this client.
            log.exception("a packet of client %s could not be handled", client.settings.name)
            client.count("dropped_internal")

    def _send(self, octets: bytes, to: Any) -> None:
        self._asked.pop(to, None)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(octets)

    def _client(self) -> Client | None:
        return None if self._identity is None else self._server.exchange.client_with(self._identity)

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


def identity_of(certificate: Any, octets: bytes) -> PeerIdentity:
    """Who a certificate says it is: its names (RFC 6125: of SubjectAltName; the common name where there is none)."""
    names = {value.lower() for kind, value in certificate.get("subjectAltName", ()) if kind in {"DNS", "IP Address", "URI"}}
    if not names:
        names = {
            value.lower() for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"
        }
    return PeerIdentity(frozenset(names), hashlib.sha256(octets).hexdigest())
