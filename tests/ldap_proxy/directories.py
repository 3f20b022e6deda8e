"""Directories in the test's own loop, which answer, lie, stall and go away as they are told."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import uvloop

from ldap_proxy.ber import head, wrapped
from ldap_proxy.link import Link
from ldap_proxy.message import (
    EXTENDED_REQUEST,
    FINAL,
    START_TLS,
    build_extended_response,
    build_result,
    extended_oid,
    message,
)
from ldap_proxy.settings import Scheme, Server, UpstreamSettings
from ldap_proxy.upstream import NoUpstream, Upstreams

PATIENCE_S = 20.0
"""How long anything may take before a test gives up. None asserts that something was fast."""
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T], loop: str = "asyncio") -> T:
    """Run a test in a loop of its own; whatever the loop complains of is a failure."""
    complaints: list[dict[str, Any]] = []

    async def watched() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with asyncio.timeout(PATIENCE_S):
            return await coroutine

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        found = runner.run(watched())
    assert not complaints
    return found


async def until(condition: Callable[[], object], what: str = "something") -> None:
    """Wait for ``condition``; the patience of :func:`run` ends it."""
    while not condition():  # noqa: ASYNC110  the condition is of any kind
        await asyncio.sleep(0.005)


@dataclass(eq=False)
class Caller:
    """One connection, seen by the directory."""

    writer: asyncio.StreamWriter
    received: bytearray = field(default_factory=bytearray)
    pdus: list[bytes] = field(default_factory=list)
    ended: bool = False

    def send(self, *pieces: bytes) -> None:
        self.writer.write(b"".join(pieces))

    def end(self) -> None:
        self.writer.close()

    def tags(self) -> list[int]:
        """What was asked, in order."""
        return [head(pdu, 0, len(pdu))[2] for pdu in self.pdus]  # type: ignore[index]


Behaviour = Callable[[Caller, bytes, int, int], Awaitable[None] | bytes | None]
"""Answers one PDU (with its message ID and tag), or awaits something."""


def entry(message_id: int, dn: bytes, **attributes: list[bytes]) -> bytes:
    """A SearchResultEntry."""
    listed = b"".join(
        wrapped(0x30, wrapped(0x04, kind.encode()) + wrapped(0x31, b"".join(wrapped(0x04, one) for one in values)))
        for kind, values in attributes.items()
    )
    return message(message_id, 0x64, wrapped(0x04, dn) + wrapped(0x30, listed))


def done(message_id: int, tag: int, code: int = 0) -> bytes:
    """The final response to a request with this tag."""
    if tag == EXTENDED_REQUEST:
        return build_extended_response(message_id, code)
    return build_result(message_id, FINAL[tag], code)


def honest(caller: Caller, pdu: bytes, message_id: int, tag: int) -> bytes | None:
    """Success for everybody, and entries for nobody."""
    return done(message_id, tag) if tag in FINAL else None


def silent(caller: Caller, pdu: bytes, message_id: int, tag: int) -> None:
    """Takes everything, and never answers."""


class Directory:
    """Listens on loopback. ``behave`` may be changed at any time; ``tls`` is for StartTLS, or from the start with ``ldaps``."""

    def __init__(self, behave: Behaviour = honest, *, tls: ssl.SSLContext | None = None, ldaps: bool = False) -> None:
        self.behave = behave
        self.callers: list[Caller] = []
        self.port = 0
        self._tls = tls
        self._ldaps = ldaps
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def server(self) -> Server:
        return Server(Scheme.LDAPS if self._ldaps else Scheme.LDAP, "127.0.0.1", self.port)

    @property
    def open_callers(self) -> list[Caller]:
        return [caller for caller in self.callers if not caller.ended]

    async def start(self) -> Directory:
        """Listen, on the same port as before if there was one."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls if self._ldaps else None, reuse_address=True
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def stop(self) -> None:
        """Listen no more, and hang up on everybody."""
        assert self._server is not None
        self._server.close()
        for caller in self.callers:
            if not caller.ended:  # asyncio's TLS transports of Python 3.11 break when they are aborted after their end
                caller.writer.transport.abort()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        caller = Caller(writer)
        self.callers.append(caller)
        at = 0
        try:
            while data := await reader.read(65536):
                caller.received += data
                while (found := head(caller.received, at, 1 << 24)) is not None and len(caller.received) >= found[0]:
                    end, message_id, tag, _, _ = found
                    pdu = bytes(caller.received[at:end])
                    at = end
                    caller.pdus.append(pdu)
                    if tag == EXTENDED_REQUEST and extended_oid(pdu) == START_TLS and self._tls is not None:
                        caller.send(build_extended_response(message_id, 0, oid=START_TLS))
                        await writer.start_tls(self._tls)
                        continue
                    answer = self.behave(caller, pdu, message_id, tag)
                    if isinstance(answer, bytes):
                        caller.send(answer)
                    elif answer is not None:
                        await answer
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            caller.ended = True
            with suppress(Exception):
                writer.close()


@asynccontextmanager
async def directory(
    behave: Behaviour = honest, *, tls: ssl.SSLContext | None = None, ldaps: bool = False
) -> AsyncIterator[Directory]:
    """A directory that listens until the end of the block."""
    one = await Directory(behave, tls=tls, ldaps=ldaps).start()
    try:
        yield one
    finally:
        await one.stop()


class Ear:
    """Hears a link, and keeps it all."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.lost: list[Exception | None] = []
        self.full = 0
        self.drained = 0

    def upstream_data(self, data: bytes) -> None:
        self.heard += data

    def upstream_lost(self, error: Exception | None) -> None:
        self.lost.append(error)

    def upstream_full(self) -> None:
        self.full += 1

    def upstream_drained(self) -> None:
        self.drained += 1


async def connect(upstreams: Upstreams, ear: Ear | None = None) -> Link | NoUpstream:
    """What ``connect`` tells."""
    told: list[Link | NoUpstream] = []
    upstreams.connect(Ear() if ear is None else ear, told.append)
    await until(lambda: told, "a connection")
    assert len(told) == 1
    return told[0]


async def linked(upstreams: Upstreams, ear: Ear | None = None) -> Link:
    """A connection. Fails when there is none."""
    found = await connect(upstreams, ear)
    assert isinstance(found, Link), found
    return found


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def upstream_settings(*servers: Server, **more: Any) -> UpstreamSettings:
    """Settings that fail fast; nothing in stock unless it is asked for."""
    usual = {"warm": 0, "connect_timeout_s": 5.0, "health_interval_s": 3600.0, "dead_time_s": 0.0}
    return UpstreamSettings(servers, **{**usual, **more})

