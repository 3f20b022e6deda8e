"""What is a connection to the directory, for those who use it?

Room rule: octets both ways and the word when it ends; how it came about is :mod:`ldap_proxy.dialling`'s, and what the octets
say is its user's. Nothing here costs a task, a future or a copy for what goes through.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final, Protocol

from ldap_proxy.ber import MESSAGE_ID_MAX
from ldap_proxy.message import build_unbind

UNBIND: Final = build_unbind(MESSAGE_ID_MAX)
"""An Unbind is answered by nobody, so that any message ID will do; the highest is the last that a client would come to."""


class Receiver(Protocol):
    """Who hears what the directory says. All of it is called on the loop and must not block."""

    def upstream_data(self, data: bytes) -> None:
        """Octets came, as they came: parts of messages, or several."""
        ...

    def upstream_lost(self, error: Exception | None) -> None:
        """The directory closed the connection (None), or it broke. Called once, and not after ``close`` and ``abort``."""
        ...

    def upstream_full(self) -> None:
        """More than ``limits.write_buffer`` octets are not taken by the directory yet: write no more."""
        ...

    def upstream_drained(self) -> None:
        """Write again."""
        ...


class Owner(Protocol):
    """Who keeps account of connections."""

    def link_closing(self, link: Link) -> None:
        """It was closed by its user; octets may still have to go."""
        ...

    def link_ended(self, link: Link) -> None:
        """It is gone."""
        ...


class _Nobody:
    """Hears what comes after the end."""

    def upstream_data(self, data: bytes) -> None:
        """Nobody waits for it."""

    def upstream_lost(self, error: Exception | None) -> None:
        """It was given up before."""

    def upstream_full(self) -> None:
        """Nobody writes."""

    def upstream_drained(self) -> None:
        """Nobody writes."""


class _TooEarly(_Nobody):
    """Hears what comes before somebody listens. A directory says nothing unasked but farewell: the connection is of no use."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def upstream_data(self, data: bytes) -> None:  # noqa: ARG002  whatever it is
        """End it, before a part of a message is taken for the beginning of one."""
        self._link.abort()


_NOBODY = _Nobody()


def _unwritten(data: bytes) -> None:
    """Where octets go that are written after the end: nowhere."""


class Link(asyncio.Protocol):
    """One connection to ``server``, TLS and all. ``write`` sends octets; after the end it does nothing."""

    __slots__ = ("__weakref__", "_closed", "_owner", "_receiver", "_transport", "server", "write")

    def __init__(self, server: str, owner: Owner) -> None:
        self.server: Final = server
        self.write: Callable[[bytes], None] = _unwritten
        self._owner = owner
        self._receiver: Receiver = _TooEarly(self)
        self._transport: asyncio.Transport | None = None
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether neither side has ended it, as far as is known."""
        return self._transport is not None and not self._closed

    def about(self, name: str) -> Any:
        """What :meth:`asyncio.BaseTransport.get_extra_info` knows, such as ``ssl_object``; None after the end."""
        return None if self._transport is None else self._transport.get_extra_info(name)

    @property
    def descriptor(self) -> int:
        """The number of its socket; -1 when it has none."""
        found = self.about("socket")
        return -1 if found is None else int(found.fileno())

    def give_to(self, receiver: Receiver) -> None:
        """From now on this is who hears of it."""
        self._receiver = receiver

    def use(self, transport: asyncio.Transport, write_buffer: int) -> None:
        """Carry octets over ``transport``; ``write_buffer`` octets may wait in it. Not when it has ended already."""
        if self._closed:
            transport.abort()
            return
        self._transport = transport
        self.write = transport.write
        transport.set_write_buffer_limits(high=write_buffer)

    def pause(self) -> None:
        """Read no more, until :meth:`resume`."""
        if self._transport is not None and not self._closed and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._transport is not None and not self._closed and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Take leave (Unbind), send what waits, and close. Nothing is heard any more."""
        if self._transport is None or self._closed:
            return
        self.write(UNBIND)
        self._end()
        self._transport.close()
        self._owner.link_closing(self)

    def abort(self) -> None:
        """Close at once, whatever waits. Nothing is heard any more."""
        self._end()
        transport, self._transport = self._transport, None
        if transport is not None:
            # Once: asyncio's TLS transports of Python 3.11 break when they are aborted again.
            transport.abort()

    def _end(self) -> None:
        self._closed = True
        self._receiver = _NOBODY
        self.write = _unwritten

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        self._receiver.upstream_data(data)

    def pause_writing(self) -> None:
        """See :class:`asyncio.Protocol`."""
        self._receiver.upstream_full()

    def resume_writing(self) -> None:
        """See :class:`asyncio.Protocol`."""
        self._receiver.upstream_drained()

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.Protocol`."""
        receiver = self._receiver
        self._end()
        self._transport = None
        self._owner.link_ended(self)
        receiver.upstream_lost(exc)


def set_socket_options(transport: asyncio.BaseTransport) -> None:
    """Send small messages at once, and notice a peer that is gone without a word.

    The loop sets TCP_NODELAY only on sockets that it knows to be TCP; without it an entry and its SearchResultDone, two writes
    of a directory, came 40 ms apart.
    """
    found = transport.get_extra_info("socket")
    if found is not None and found.family in (socket.AF_INET, socket.AF_INET6):
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
