"""How do the requests of FreeRADIUS's module get to mfad's answers, and back?

Room rule: moves bytes. Accepting, reading, writing, bounds and hang-ups live here; what a message says is
:mod:`radius_plugin.freeradius.messages`'s business, where the socket stands :mod:`radius_plugin.freeradius.place`'s, and what a
login is answered the :class:`Answerer`'s.

Connections stay open: FreeRADIUS has one for each of its threads that is busy, and one request at a time is under way on each.
uvloop and asyncio have no transport for SOCK_SEQPACKET, so sockets are read with ``add_reader``: one recv() is one message.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mfa_runtime.seqpacket import peer_uid
from radius_plugin.freeradius.messages import (
    MESSAGE_MAX,
    MessageRefused,
    PluginAccounting,
    PluginReply,
    PluginRequest,
    ReplyKind,
    decode_from_plugin,
    encode_recorded,
    encode_reply,
)
from radius_plugin.freeradius.place import Place, allowed_uids, open_place

ACCEPT_PAUSE_S = 0.5
COMPLAINT_INTERVAL_S = 10.0

_log = logging.getLogger("mfad.radius.freeradius")


class Answerer(Protocol):
    """What stands behind the socket: the same exchange that packets of our own server go through."""

    async def answer(self, request: PluginRequest) -> PluginReply:
        """Answer one login; what is spent is durable when the reply is there. It asks no question where none can be asked."""
        ...

    async def account(self, record: PluginAccounting) -> bool:
        """Write one accounting record down; False when that could not be done."""
        ...


@dataclass(frozen=True, slots=True)
class LocalSocketSettings:
    """Where the socket is, and whose FreeRADIUS may ask. ``users`` that do not exist are passed over."""

    path: Path
    users: tuple[str, ...] = ("freerad",)
    max_connections: int = 512
    """FreeRADIUS has 32 threads unless it is told otherwise; several of them may share a machine."""


@dataclass(slots=True)
class LocalSocketCounters:
    """What the socket has seen since it started."""

    accepted: int = 0
    """Connections."""
    refused_peers: int = 0
    overloaded: int = 0
    logins: int = 0
    records: int = 0
    junk: int = 0
    dropped_replies: int = 0
    """Verdicts that came when the module was gone, or had stopped to wait."""
    crashes: int = 0
    """Exceptions that should not be: each has a traceback in the log."""


class LocalSocket:
    """The socket: give it settings and an answerer, ``start`` it, ``stop`` it. Everything runs in the loop that started it."""

    def __init__(self, settings: LocalSocketSettings, answerer: Answerer, *, monotonic: Callable[[], float]) -> None:
        self.counters = LocalSocketCounters()
        self._settings = settings
        self._answerer = answerer
        self._monotonic = monotonic
        self._place: Place | None = None
        self._uids: frozenset[int] = frozenset()
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._complained_at = float("-inf")
        self._unspoken = 0

    async def start(self) -> None:
        """Listen. Returns when modules can connect.

        Raises: ConfigurationError when the place cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        self._uids = allowed_uids(self._settings.users)
        self._place = open_place(self._settings.path, self._settings.users)
        self._loop.add_reader(self._place.listener, self._acceptable)

    async def stop(self, grace_s: float = 5.0) -> None:
        """Stop listening, let requests under way finish for ``grace_s`` seconds, then hang up: the module fails closed.

        A decision under way is never cancelled: its spend is durable or it is not, and its reply is dropped.
        """
        if self._place is not None:
            self._loop.remove_reader(self._place.listener)
            self._place.close()
            self._place = None
        for connection in list(self._connections):
            connection.close_when_idle()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace_s)
            if late:
                _log.info("%d requests of FreeRADIUS still under way after %.0f s", len(late), grace_s)
        for connection in list(self._connections):
            connection.close()

    # accepting

    def _acceptable(self) -> None:
        if self._place is None:
            return
        try:
            accepted, _ = self._place.listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            # the peer stays in the queue and the loop would spin on it: look away for a moment
            self.complain(f"cannot accept: {error.strerror}; raise LimitNOFILE")
            self._loop.remove_reader(self._place.listener)
            self._loop.call_later(ACCEPT_PAUSE_S, self._listen_again)
            return
        self._admit(accepted)

    def _listen_again(self) -> None:
        if self._place is not None:
            self._loop.add_reader(self._place.listener, self._acceptable)

    def _admit(self, accepted: socket.socket) -> None:
        uid = peer_uid(accepted)
        if uid not in self._uids:
            self.counters.refused_peers += 1
            self.complain(f"uid {uid} may not ask: expected root, mfad's own user, or one of doors.radius.freeradius.users")
            accepted.close()
            return
        if len(self._connections) >= self._settings.max_connections:
            self.counters.overloaded += 1
            self.complain(f"{len(self._connections)} connections of FreeRADIUS at once")
            accepted.close()
            return
        accepted.setblocking(False)
        self.counters.accepted += 1
        connection = _Connection(self, accepted)
        self._connections.add(connection)
        self._loop.add_reader(accepted, connection.readable)

    # answering

    def take(self, connection: _Connection, number: int, request: PluginRequest | PluginAccounting) -> None:
        """Answer ``request``; the answer goes to ``connection.answered``."""
        task = self._loop.create_task(self._answer(connection, number, request))
        self._tasks.add(task)  # the loop itself keeps only weak references to tasks
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, connection: _Connection, number: int, request: PluginRequest | PluginAccounting) -> None:
        try:
            if isinstance(request, PluginRequest):
                self.counters.logins += 1
                message = encode_reply(number, _possible(request, await self._answerer.answer(request)))
            else:
                self.counters.records += 1
                message = encode_recorded(number, recorded=await self._answerer.account(request))
        except Exception:  # noqa: BLE001  the outermost frame of one request
            self.counters.crashes += 1
            _log.exception("a request of FreeRADIUS was not answered")
            message = _nothing(number, request)
        connection.answered(message)

    def forget(self, connection: _Connection) -> None:
        """It is closed."""
        self._loop.remove_reader(connection.socket)
        self._connections.discard(connection)

    def complain(self, text: str) -> None:
        """Log a line about a peer, at most one in ten seconds: peers must not fill the disk."""
        now = self._monotonic()
        if now - self._complained_at < COMPLAINT_INTERVAL_S:
            self._unspoken += 1
            return
        unspoken, self._unspoken, self._complained_at = self._unspoken, 0, now
        _log.warning("%s%s", text, f" ({unspoken} more such lines left out)" if unspoken else "")


def _nothing(number: int, request: PluginRequest | PluginAccounting) -> bytes:
    if isinstance(request, PluginRequest):
        return encode_reply(number, PluginReply(ReplyKind.NO_ANSWER))
    return encode_recorded(number, recorded=False)


def _possible(request: PluginRequest, reply: PluginReply) -> PluginReply:
    """Inside a tunnel no question can be asked: whoever asks one all the same has not accepted."""
    if reply.kind is ReplyKind.CHALLENGE and not request.challenges:
        return PluginReply(ReplyKind.REJECT, reply.messages)
    return reply


class _Connection:
    """One connection of the module's: its socket, and whether a request is under way on it."""

    __slots__ = ("_answering", "_door", "_last", "open", "socket")

    def __init__(self, door: LocalSocket, accepted: socket.socket) -> None:
        self.socket = accepted
        self.open = True
        self._door = door
        self._answering = False
        self._last = False

    def readable(self) -> None:
        """Take one message, or the hang-up."""
        try:
            message = self.socket.recv(MESSAGE_MAX + 1)  # one byte more than allowed, to see that it was more
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            message = b""
        if not message:
            self.close()
            return
        if self._answering:
            self._refuse("a second request before the first was answered")
            return
        try:
            number, request = decode_from_plugin(message)
        except MessageRefused as refused:
            self._refuse(str(refused))
            return
        self._answering = True
        self._door.take(self, number, request)

    def answered(self, message: bytes) -> None:
        """Send the answer to the request under way."""
        self._answering = False
        if not self.open:
            self._door.counters.dropped_replies += 1
            return
        try:
            self.socket.send(message)
        except OSError:
            self._door.counters.dropped_replies += 1
            self.close()
            return
        if self._last:
            self.close()

    def close_when_idle(self) -> None:
        """Close it after the answer that is under way, or now."""
        self._last = True
        if not self._answering:
            self.close()

    def close(self) -> None:
        """Hang up."""
        if self.open:
            self.open = False
            self._door.forget(self)
            self.socket.close()

    def _refuse(self, why: str) -> None:
        with contextlib.suppress(OSError):
            peer = peer_uid(self.socket)
            self._door.complain(f"uid {peer} sent no message of ours: {why}")
        self._door.counters.junk += 1
        self.close()
