"""How do datagrams come in and go out? (RFC 2865 section 3)

Room rule: sockets. Every datagram goes to the exchange as it came, with the means to answer it from the address that was asked:
a client drops an answer from another one. No task and no future for a datagram.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

from mfa_core.errors import ConfigurationError
from radius_plugin.exchange import Exchange
from radius_plugin.settings import Listen, Transport

RECEIVE_AT_ONCE = 64
"""Datagrams taken before the loop may do something else."""
BUFFER = 4097
"""One octet more than a packet may have, so that a longer one shows."""
ANY = "*"

_ANCILLARY = socket.CMSG_SPACE(64)
_IP_PKTINFO = getattr(socket, "IP_PKTINFO", 8)  # Python 3.11 does not name it; linux/in.h
_PKTINFO4 = struct.Struct("@I4s4s")
_WILD = {"0.0.0.0", "::"}  # noqa: S104  compared, not bound
_TRANSIENT = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM}

log = logging.getLogger(__name__)


Opened = tuple[Listen, socket.socket]


def open_sockets(listen: Sequence[Listen], *, receive_buffer_bytes: int, shared: bool = False) -> list[Opened]:
    """Bind the UDP addresses of ``listen``; with ``shared`` other sockets of ours may bind them too (several workers).

    Raises: ConfigurationError, when an address cannot be had; nothing stays open then.
    """
    found: list[Opened] = []
    try:
        for one in listen:
            if one.transport is Transport.UDP:
                hosts = ("0.0.0.0", "::") if one.host == ANY else (one.host,)  # noqa: S104  what "*" says
                found.extend((one, _bound(host, one.port, receive_buffer_bytes, shared=shared)) for host in hosts)
    except BaseException:
        for _, opened in found:
            opened.close()
        raise
    return found


def _bound(host: str, port: int, receive_buffer_bytes: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _widen(opened, receive_buffer_bytes)
        if host in _WILD:
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                opened.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        opened.bind((host, port))
    except OSError as err:
        opened.close()
        raise ConfigurationError(
            f"doors.radius.listen: {host} port {port} cannot be listened on: {err.strerror}",
            cure="see who has it (`ss -ulpn`), or choose an address of this host and a free port",
        ) from err
    return opened


def _widen(opened: socket.socket, octets: int) -> None:
    try:
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, octets)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, octets)
    got = opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    if got < octets:
        log.warning("the receive buffer has %d octets, %d were wanted: raise net.core.rmem_max", got, octets)


_SO_RCVBUFFORCE = 33
"""asm-generic/socket.h: over net.core.rmem_max, for CAP_NET_ADMIN."""


class UdpServer:
    """Moves datagrams between sockets and the exchange."""

    def __init__(self, exchange: Exchange, sockets: Sequence[Opened]) -> None:
        self._exchange = exchange
        self._sockets = list(sockets)
        self.unsent = 0
        """Answers that the kernel did not take: the client will ask again."""

    def start(self) -> None:
        """Begin to receive; call it on the loop."""
        loop = asyncio.get_running_loop()
        for scope, (listen, opened) in enumerate(self._sockets):
            wild = opened.getsockname()[0] in _WILD
            receive = self._receiver_of_any(scope, listen, opened) if wild else self._receiver(scope, listen, opened)
            loop.add_reader(opened.fileno(), receive)

    def stop(self) -> None:
        """Receive no more. Answers that come later are still sent until :meth:`close`."""
        loop = asyncio.get_running_loop()
        for _, opened in self._sockets:
            loop.remove_reader(opened.fileno())

    def close(self) -> None:
        """Close the sockets."""
        for _, opened in self._sockets:
            opened.close()
        self._sockets.clear()

    def _receiver(self, scope: int, listen: Listen, opened: socket.socket) -> Callable[[], None]:
        """The callback of a socket with one address: the hot path."""
        receive_from, handle, purposes = opened.recvfrom, self._exchange.receive, frozenset({listen.purpose})

        def send(octets: bytes, to: Any) -> None:
            try:
                opened.sendto(octets, to)
            except OSError as err:
                self._not_sent(err)

        def receive() -> None:
            try:
                for _ in range(RECEIVE_AT_ONCE):
                    datagram, peer = receive_from(BUFFER)
                    handle(datagram, peer[0], peer[1], send, peer, scope, purposes)
            except BlockingIOError:
                pass
            except OSError as err:  # an ICMP error for an answer of ours: the next datagram is another matter
                log.debug("receiving: %s", err)

        return receive

    def _receiver_of_any(self, scope: int, listen: Listen, opened: socket.socket) -> Callable[[], None]:
        """The callback of a wildcard socket: which address was asked comes beside each datagram, and is answered from."""
        handle, purposes = self._exchange.receive, frozenset({listen.purpose})

        def send(octets: bytes, to: Any) -> None:
            peer, asked = to
            try:
                opened.sendmsg((octets,), asked, 0, peer)
            except OSError as err:
                self._not_sent(err)

        def receive() -> None:
            try:
                for _ in range(RECEIVE_AT_ONCE):
                    datagram, ancillary, _, peer = opened.recvmsg(BUFFER, _ANCILLARY)
                    asked, local = _asked(ancillary)
                    handle(datagram, peer[0], peer[1], send, (peer, asked), (scope, local), purposes)
            except BlockingIOError:
                pass
            except OSError as err:
                log.debug("receiving: %s", err)

        return receive

    def _not_sent(self, err: OSError) -> None:
        self.unsent += 1
        if err.errno not in _TRANSIENT:
            log.debug("an answer could not be sent: %s", err)


def _asked(ancillary: list[tuple[int, int, bytes]]) -> tuple[list[tuple[int, int, bytes]], bytes]:
    """What to send with an answer so that it leaves from the address that was asked (ip(7), ipv6(7)), and that address."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and len(data) >= _PKTINFO4.size:
            _, specific, _ = _PKTINFO4.unpack_from(data)
            return [(level, kind, _PKTINFO4.pack(0, specific, bytes(4)))], specific
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO and len(data) >= 20:
            return [(level, kind, data[:20])], data[:16]
    return [], b""


