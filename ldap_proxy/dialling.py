"""How is one connection to one directory server made?

Room rule: name, connection, StartTLS, certificate, in this order and in bounded time; which server is somebody else's choice.
With TLS wanted, nothing but the StartTLS request goes in clear: a server that refuses it, or shows a wrong certificate, is not
spoken to.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable

from ldap_proxy.ber import Malformed, head
from ldap_proxy.link import Link, Owner, set_socket_options
from ldap_proxy.message import EXTENDED_RESPONSE, START_TLS, ResultCode, build_extended_request, parse_result
from ldap_proxy.settings import Scheme, Server
from ldap_proxy.upstream_tls import UpstreamTls, WrongCertificate, what_is_wrong
from mfa_core.errors import MfaError

log = logging.getLogger(__name__)

RESOLVED_S = 30.0
"""How long the addresses of a name are used without asking again; for as long as nobody answers they stay in use."""
SHUTDOWN_S = 2.0
"""How long a server that is left may take to end TLS."""
_MAX_ANSWER = 64 * 1024
_START_TLS_ID = 1
_START_TLS_REQUEST = build_extended_request(_START_TLS_ID, START_TLS)


class DialFailed(MfaError):
    """This server gives no connection now: try another one."""


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
        except OSError as err:
            if self._found:
                # A resolver that is away must not take the directory with it.
                log.warning("%s cannot be looked up (%s); its last addresses stay in use", host, err.strerror)
                self._until = self._monotonic() + RESOLVED_S
                return self._found
            raise DialFailed(
                f"the name {host} cannot be looked up: {err.strerror}", cure=f"see `getent hosts {host}`"
            ) from err
        self._found = tuple(dict.fromkeys(str(address[0]) for *_, address in answer))
        self._until = self._monotonic() + RESOLVED_S
        return self._found


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
    begun: list[str] = []
    try:
        async with asyncio.timeout(timeout_s):
            return await _dial(server, owner, addresses, tls, start_tls=start_tls, write_buffer=write_buffer, begun=begun)
    except TimeoutError as err:
        said = f"{begun[-1] if begun else 'no address'} within {timeout_s:g} s"
        raise DialFailed(said, cure="see whether it runs, and whether a firewall drops what goes there") from err


async def _dial(
    server: Server,
    owner: Owner,
    addresses: Addresses,
    tls: UpstreamTls | None,
    *,
    start_tls: bool,
    write_buffer: int,
    begun: list[str],
) -> Link:
    link = Link(str(server), owner)
    if server.scheme is Scheme.LDAPI:
        begun.append("no connection")
        try:
            transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: link, server.host)
        except OSError as err:
            raise DialFailed(
                f"no connection: {_strerror(err)}", cure=f"see whether the server runs and who may open {server.host}"
            ) from err
        link.use(transport, write_buffer)
        return link

    begun.append("the name was not looked up")
    found = await addresses.find()
    begun.append("no connection")
    if server.scheme is Scheme.LDAPS:
        transport = await _first(server, found, lambda: link, begun, tls=tls)
    elif start_tls:
        transport = await _start_tls(server, found, link, tls, begun)
    else:
        transport = await _first(server, found, lambda: link, begun)
    try:
        if tls is not None and (start_tls or server.scheme is Scheme.LDAPS):
            tls.check_pin(transport)
    except WrongCertificate as err:
        transport.abort()
        said, cure = what_is_wrong(err)
        raise DialFailed(said, cure=cure) from err
    set_socket_options(transport)
    link.use(transport, write_buffer)
    return link


async def _first(
    server: Server,
    found: tuple[str, ...],
    factory: Callable[[], asyncio.Protocol],
    begun: list[str],
    *,
    tls: UpstreamTls | None = None,
) -> asyncio.Transport:
    """A connection to the first address that takes one. Raises: DialFailed."""
    loop = asyncio.get_running_loop()
    why: DialFailed | None = None
    for address in found:
        try:
            if tls is None:
                transport, _ = await loop.create_connection(factory, address, server.port)
            else:
                begun.append("no TLS connection")
                transport, _ = await loop.create_connection(
                    factory, address, server.port,
                    ssl=tls.context, server_hostname=server.host, ssl_shutdown_timeout=SHUTDOWN_S,
                )  # fmt: skip
        except ssl.SSLError as err:
            said, cure = what_is_wrong(err)
            why = DialFailed(said, cure=cure)
        except OSError as err:
            # The loop says "Connect call failed (...)" in strerror of some; the errno has the reason.
            why = DialFailed(
                f"no connection to {address} port {server.port}: {_strerror(err)}",
                cure="see whether it runs, and `servers` for the port",
            )
        else:
            return transport
    assert why is not None  # noqa: S101  an empty answer of the resolver is an error of its own
    raise why


async def _start_tls(
    server: Server, found: tuple[str, ...], link: Link, tls: UpstreamTls | None, begun: list[str]
) -> asyncio.Transport:
    assert tls is not None  # noqa: S101  upstream_tls made it
    loop = asyncio.get_running_loop()
    asking = _AsksForTls()
    plain = await _first(server, found, lambda: asking, begun)
    try:
        begun.append("no answer to StartTLS")
        set_socket_options(plain)
        plain.write(_START_TLS_REQUEST)
        await asking.answered
        begun.append("no TLS handshake")
        plain.set_protocol(link)
        try:
            secured = await loop.start_tls(
                plain, link, tls.context, server_hostname=server.host, ssl_shutdown_timeout=SHUTDOWN_S
            )
        except OSError as err:
            said, cure = what_is_wrong(err)
            raise DialFailed(said, cure=cure) from err
    except BaseException:
        plain.abort()
        raise
    if secured is None:
        # The loop says so where the connection ended under its hands.
        said, cure = what_is_wrong(ConnectionResetError())
        raise DialFailed(said, cure=cure)
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
                f"it refuses StartTLS with result {int(result.code)}",
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
            self.answered.set_exception(DialFailed(why, cure=cure))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _strerror(err: OSError) -> str:
    if err.errno is not None and err.errno > 0:
        import os

        return os.strerror(err.errno)
    return str(err.strerror or err)
