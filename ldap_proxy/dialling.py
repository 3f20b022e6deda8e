"""How is one connection to one directory server made?

Room rule: name, connection, StartTLS, certificate, in this order and in bounded time; which server is somebody else's choice.
With TLS wanted, nothing but the StartTLS request goes in clear: a server that refuses it, or shows a wrong certificate, is not
spoken to.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import ipaddress
import logging
import os
import socket
import ssl
from collections.abc import Callable

from ldap_proxy.ber import Malformed, head
from ldap_proxy.directory_client import result_name
from ldap_proxy.link import Link, Owner, set_socket_options
from ldap_proxy.message import EXTENDED_RESPONSE, START_TLS, ResultCode, build_extended_request, parse_result
from ldap_proxy.settings import Scheme, Server
from ldap_proxy.upstream_tls import UpstreamTls, WrongCertificate, needs_tls, what_is_wrong
from mfa_core.errors import MfaError

log = logging.getLogger(__name__)

RESOLVED_S = 30.0
"""How long the addresses of a name are used without asking again; for as long as nobody answers they stay in use."""
SHUTDOWN_S = 2.0
"""How long a server that is left may take to end TLS."""
_MAX_ANSWER = 64 * 1024
_ENDED = frozenset({None, errno.ECONNRESET, errno.EPIPE})
"""How a connection ends that was made: the loops raise ConnectionResetError without a number, or with this one."""
_START_TLS_ID = 1
_START_TLS_REQUEST = build_extended_request(_START_TLS_ID, START_TLS)


class Stage(enum.Enum):
    """How far a connection came. The value is what there is none of when it comes no further in time."""

    NAME = "no address"
    CONNECTION = "no connection"
    TLS_CONNECTION = "no TLS connection"
    START_TLS = "no answer to StartTLS"
    TLS = "no TLS handshake"
    PIN = "no pinned certificate"


class DialFailed(MfaError):
    """This server gives no connection now: try another one. ``stage`` is where it ended."""

    def __init__(self, message: str, *, cure: str, stage: Stage) -> None:
        super().__init__(message, cure=cure)
        self.stage = stage


def _tls_failed(err: BaseException, stage: Stage = Stage.TLS) -> DialFailed:
    said, cure = what_is_wrong(err)
    return DialFailed(said, cure=cure, stage=stage)


class Addresses:
    """Where a server is. Names are looked up in threads of the loop's own, a literal costs nothing."""

    def __init__(self, server: Server, *, monotonic: Callable[[], float]) -> None:
        self._server = server
        self._monotonic = monotonic
        self._literal = _is_address(server.host)
        self._found: tuple[str, ...] = (server.host,) if self._literal else ()
        self._until = 0.0

    async def find(self) -> tuple[str, ...]:
        """Its addresses, in the resolver's order, at least one. Raises: DialFailed."""
        if self._literal or self._monotonic() < self._until:
            return self._found
        host, port = self._server.host, self._server.port
        try:
            answer = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as err:  # the latter for what cannot be a name (RFC 3490)
            if self._found:
                # A resolver that is away must not take the directory with it.
                log.warning("%s cannot be looked up (%s); its last addresses stay in use", host, _strerror(err))
                self._until = self._monotonic() + RESOLVED_S
                return self._found
            raise DialFailed(
                f"the name {host} cannot be looked up: {_strerror(err)}", cure=f"see `getent hosts {host}`", stage=Stage.NAME
            ) from err
        self._found = tuple(dict.fromkeys(str(address[0]) for *_, address in answer))
        self._until = self._monotonic() + RESOLVED_S
        return self._found

    def answered(self, address: str) -> None:
        """This one gave a connection: it is the first to be tried until the name is looked up again."""
        if self._found[0] != address:
            self._found = (address, *(one for one in self._found if one != address))


async def dial(
    server: Server,
    owner: Owner,
    *,
    addresses: Addresses,
    tls: UpstreamTls | None,
    start_tls: bool,
    timeout_s: float,
    write_buffer: int,
) -> Link:
    """A connection to ``server``, secured as wanted, on which nothing of LDAP was said but StartTLS.

    Raises: DialFailed; nothing stays open then.
    """
    dialling = _Dialling(server, tls, addresses, timeout_s)
    link = Link(str(server), owner)
    try:
        async with asyncio.timeout(timeout_s):
            if server.scheme is Scheme.LDAPI:
                transport = await dialling.unix(link)
            elif server.scheme is Scheme.LDAPS:
                transport = await dialling.connect(lambda: link, tls=tls)
            elif start_tls:
                transport = await dialling.start_tls(link)
            else:
                transport = await dialling.connect(lambda: link)
    except TimeoutError as err:
        raise DialFailed(
            f"{dialling.stage.value} within {timeout_s:.3g} s",
            cure=_TOO_LATE[dialling.stage],
            stage=dialling.stage,
        ) from err
    if tls is not None and needs_tls(server.scheme, start_tls=start_tls):
        try:
            tls.check_pin(transport)
        except WrongCertificate as err:
            transport.abort()
            raise _tls_failed(err, Stage.PIN) from err
    try:
        set_socket_options(transport)
    except OSError as err:
        transport.abort()
        raise _ended_at_once() from err
    link.use(transport, write_buffer)
    if not link.is_open:
        raise _ended_at_once()
    return link


def _ended_at_once() -> DialFailed:
    cure = "see its log: it may take no more connections, or none from here"
    return DialFailed("it ended the connection at once", cure=cure, stage=Stage.CONNECTION)


_TOO_LATE = {
    Stage.NAME: "see the resolver: `getent hosts NAME`",
    Stage.CONNECTION: "see whether it runs, and whether a firewall drops what goes there",
    Stage.TLS_CONNECTION: "see whether it runs, speaks TLS on this port, and whether a firewall drops what goes there",
    Stage.START_TLS: "it takes connections and does not answer: see its log",
    Stage.TLS: "see whether it speaks TLS, and what stands between it and here",
}


class _Dialling:
    """One attempt, and how far it has come."""

    def __init__(self, server: Server, tls: UpstreamTls | None, addresses: Addresses, timeout_s: float) -> None:
        self.stage = Stage.NAME
        self._server = server
        self._tls = tls
        self._addresses = addresses
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()

    async def unix(self, link: Link) -> asyncio.Transport:
        """Raises: DialFailed."""
        self.stage = Stage.CONNECTION
        path = self._server.host
        try:
            transport, _ = await self._loop.create_unix_connection(lambda: link, path)
        except OSError as err:
            cure = f"see whether the server runs and who may open {path}"
            raise DialFailed(f"no connection: {_strerror(err)}", cure=cure, stage=self.stage) from err
        return transport

    async def connect(
        self, factory: Callable[[], asyncio.Protocol], *, tls: UpstreamTls | None = None
    ) -> asyncio.Transport:
        """A connection to the first of the addresses that gives one. Raises: DialFailed."""
        found = await self._addresses.find()
        self.stage = Stage.CONNECTION if tls is None else Stage.TLS_CONNECTION
        why = DialFailed("no address", cure=_TOO_LATE[Stage.NAME], stage=Stage.NAME)
        for address in found:
            try:
                if len(found) == 1:
                    return await self._connect_to(address, factory, tls)
                # Each has its share: an IPv6 that leads nowhere must not take the time of the IPv4 behind it.
                async with asyncio.timeout(self._timeout_s / len(found)):
                    transport = await self._connect_to(address, factory, tls)
            except TimeoutError:
                why = DialFailed(f"{self.stage.value} to {address} in time", cure=_TOO_LATE[self.stage], stage=self.stage)
            except OSError as err:
                why = self._no_connection(address, err)
            else:
                self._addresses.answered(address)
                return transport
        raise why

    async def _connect_to(
        self, address: str, factory: Callable[[], asyncio.Protocol], tls: UpstreamTls | None
    ) -> asyncio.Transport:
        """Raises: OSError."""
        if tls is None:
            transport, _ = await self._loop.create_connection(factory, address, self._server.port)
        else:
            transport, _ = await self._loop.create_connection(
                factory, address, self._server.port,
                ssl=tls.context, server_hostname=self._server.host, ssl_shutdown_timeout=SHUTDOWN_S,
            )  # fmt: skip
        return transport

    def _no_connection(self, address: str, err: OSError) -> DialFailed:
        # Both are OSErrors; a connection that was made has no errno of connecting.
        if isinstance(err, ssl.SSLError) or (self._server.scheme is Scheme.LDAPS and err.errno in _ENDED):
            return _tls_failed(err)
        return DialFailed(
            f"no connection to {address} port {self._server.port}: {_strerror(err)}",
            cure="see whether it runs, and `upstream` for the port",
            stage=Stage.CONNECTION,
        )

    async def start_tls(self, link: Link) -> asyncio.Transport:
        """Raises: DialFailed."""
        tls = self._tls
        assert tls is not None  # noqa: S101  upstream_tls made it
        asking = _AsksForTls()
        plain = await self.connect(lambda: asking)
        try:
            self.stage = Stage.START_TLS
            plain.write(_START_TLS_REQUEST)
            await asking.answered
            self.stage = Stage.TLS
            plain.set_protocol(link)
            secured = await self._loop.start_tls(
                plain, link, tls.context, server_hostname=self._server.host, ssl_shutdown_timeout=SHUTDOWN_S
            )
            if secured is None:
                # What the loop gives where the connection ended under its hands.
                raise _tls_failed(ConnectionResetError())
        except (OSError, RuntimeError) as err:  # the latter is what uvloop says of a connection that has just ended
            plain.abort()
            raise _tls_failed(err) from err
        except BaseException:
            plain.abort()
            raise
        return secured


class _AsksForTls(asyncio.Protocol):
    """Waits for the answer to StartTLS, exactly that, in clear."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # the loops give a full one

    def data_received(self, data: bytes) -> None:
        if self.answered.done():
            # In clear, and yet after the answer: whoever wrote it wants it to be read as if it came inside TLS.
            if self._transport is not None:
                self._transport.abort()
            return
        self._buffer += data
        try:
            found = head(self._buffer, 0, _MAX_ANSWER)
            if found is None or len(self._buffer) < found[0]:
                return
            end, message_id, tag, _, _ = found
            if tag != EXTENDED_RESPONSE or message_id != _START_TLS_ID:
                self._refuse("it answered StartTLS with something else")
                return
            result = parse_result(bytes(self._buffer[:end]))
        except Malformed as err:
            self._refuse(f"it answered StartTLS with what is no LDAP: {err}")
            return
        if result.code != ResultCode.SUCCESS:
            self._refuse(
                f"it refuses StartTLS with {result_name(result.code)}",
                "give the server a certificate, or use ldaps://; passwords are not sent in clear in place of it",
            )
        elif len(self._buffer) != end:
            self._refuse("it sent octets in clear behind its answer to StartTLS")
        else:
            # What comes from now on is TLS's: the loop must not read it before.
            assert self._transport is not None  # noqa: S101  it has received something
            self._transport.pause_reading()
            self.answered.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the protocol's shape
        if not self.answered.done():
            self._refuse("it ended the connection in place of an answer to StartTLS", "see the server's log")

    def _refuse(self, why: str, cure: str = "see what listens there: it is no directory server that can be trusted") -> None:
        if not self.answered.cancelled():
            self.answered.set_exception(DialFailed(why, cure=cure, stage=Stage.START_TLS))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _strerror(err: OSError | UnicodeError) -> str:
    # The loops put words of their own into strerror; a negative number is the resolver's.
    if isinstance(err, OSError):
        return os.strerror(err.errno) if err.errno is not None and err.errno > 0 else str(err.strerror or err)
    return str(err)
