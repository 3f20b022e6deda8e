"""What does a test put at mfad's end of the socket, to see the module alone?

``FakeMfad`` serves priv.sock and user.sock of a directory in a thread, each connection in one of its own, and plays a script:
it reads BEGIN, sends the messages, and reads an ANSWER after each one that has a prompt. The bytes are built here by hand, not
by pam_mfa/wire.py: a mistake there shall not hide one in the module.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

BEGIN: Final = 1
OPS: Final = 2
ANSWER: Final = 3

PHASE, FLAGS, USER, SERVICE, TTY, RHOST, RUSER = range(0x0101, 0x0108)
SSH_CONNECTION, SSH_AUTH_INFO_0, UID, EUID, AUTHTOK, OPTION, MODULE = range(0x0108, 0x010F)
PROMPT_OFF, PROMPT_ON, INFO, ERROR, WAIT, SET_AUTHTOK, PUTENV, FAIL_DELAY, LOG, RESULT = range(0x0201, 0x020B)
RESP, CANCEL = 0x0301, 0x0302

Field = tuple[int, bytes]


def fields(message: bytes) -> list[Field]:
    """The fields of a message that is well formed. Raises: AssertionError."""
    assert message[:6] == b"MFA1\x00\x01", message[:8]
    found = []
    at = 8
    while at < len(message):
        tag, size = struct.unpack_from(">HH", message, at)
        value = message[at + 4 : at + 4 + size]
        assert len(value) == size, "a field cut short"
        found.append((tag, value))
        at += 4 + size
    return found


def frame(kind: int, *values: Field, version: int = 1, magic: bytes = b"MFA1") -> bytes:
    """A message, whatever stands in it."""
    body = b"".join(struct.pack(">HH", tag, len(value)) + value for tag, value in values)
    return magic + struct.pack(">HH", version, kind) + body


def ops(*values: Field) -> bytes:
    return frame(OPS, *values)


def _text(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def prompt(text: str | bytes = "Verification code: ") -> Field:
    return PROMPT_OFF, _text(text)


def prompt_on(text: str | bytes = "Verification code: ") -> Field:
    return PROMPT_ON, _text(text)


def info(text: str | bytes) -> Field:
    return INFO, _text(text)


def error(text: str | bytes) -> Field:
    return ERROR, _text(text)


def wait(seconds: int) -> Field:
    return WAIT, struct.pack(">I", seconds)


def set_authtok(text: str | bytes) -> Field:
    return SET_AUTHTOK, _text(text)


def putenv(text: str | bytes) -> Field:
    return PUTENV, _text(text)


def fail_delay(microseconds: int) -> Field:
    return FAIL_DELAY, struct.pack(">I", microseconds)


def log(level: int, text: str | bytes) -> Field:
    return LOG, bytes([level]) + _text(text)


def result(code: int) -> Field:
    return RESULT, bytes([code])


@dataclass(frozen=True, slots=True)
class Begin:
    """BEGIN as it came."""

    fields: tuple[Field, ...]

    def get(self, tag: int) -> bytes | None:
        values = self.all(tag)
        assert len(values) < 2, f"{tag:#06x} stands twice"
        return values[0] if values else None

    def number(self, tag: int) -> int:
        value = self.get(tag)
        assert value is not None
        return int.from_bytes(value)

    def all(self, tag: int) -> list[bytes]:
        return [value for seen, value in self.fields if seen == tag]


class Peer:
    """mfad's end of one connection, for a handler of a test's own."""

    def __init__(self, connection: socket.socket, fake: FakeMfad) -> None:
        self.connection = connection
        self.fake = fake

    def begin(self) -> Begin:
        """Raises: ConnectionResetError when the module has closed without a word."""
        message = self.connection.recv(65536)
        if not message:
            raise ConnectionResetError
        assert message[6:8] == b"\x00\x01", message[:8]
        begin = Begin(tuple(fields(message)))
        self.fake.begins.append(begin)
        return begin

    def send(self, message: bytes) -> None:
        self.connection.send(message)

    def answer(self) -> list[Field]:
        """The fields of an ANSWER; none when the module has closed."""
        message = self.connection.recv(65536)
        if not message:
            return []
        assert message[6:8] == b"\x00\x03", message[:8]
        answer = fields(message)
        self.fake.answers.append(answer)
        return answer

    def wait_for_close(self) -> bool:
        """True when the module closed without another word."""
        return self.connection.recv(65536) == b""


Handler = Callable[[Peer], None]


def play(script: Sequence[bytes]) -> Handler:
    """BEGIN, then each message; an ANSWER is read after those with prompts."""

    def handle(peer: Peer) -> None:
        peer.begin()
        for message in script:
            peer.send(message)
            if _has_prompt(message) and not peer.answer():
                return

    return handle


def _has_prompt(message: bytes) -> bool:
    with contextlib.suppress(AssertionError, struct.error):
        return any(tag in (PROMPT_OFF, PROMPT_ON) for tag, _ in fields(message))
    return False


@dataclass(slots=True)
class FakeMfad:
    """Serves ``directory`` while it is entered. ``script`` is what ``play`` plays, or a handler.

    After leaving, ``begins`` and ``answers`` hold what the module sent, in order, and an assertion that failed in a handler
    is raised.
    """

    directory: Path
    script: Sequence[bytes] | Handler
    serve_uid: int | None = None
    """listen() is called as this uid (root only): what SO_PEERCRED will tell the module."""
    backlog: int = 64
    accepting: bool = True
    begins: list[Begin] = field(default_factory=list)
    answers: list[list[Field]] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    _listeners: list[socket.socket] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        for name, mode in (("priv.sock", 0o600), ("user.sock", 0o666)):
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            listener.bind(str(self.directory / name))
            (self.directory / name).chmod(mode)
            with _as_uid(self.serve_uid):
                listener.listen(self.backlog)
            self._listeners.append(listener)
            if self.accepting:
                self._start(self._accept, listener)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for thread in self._threads:
            thread.join(timeout=30)
        for name in ("priv.sock", "user.sock"):
            (self.directory / name).unlink(missing_ok=True)
        if kind is None and self.failures:
            raise self.failures[0]

    def _start(self, function: Callable[[socket.socket], None], argument: socket.socket) -> None:
        thread = threading.Thread(target=function, args=(argument,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self._start(self._handle, connection)

    def _handle(self, connection: socket.socket) -> None:
        handler = self.script if callable(self.script) else play(self.script)
        with connection:
            connection.settimeout(30)
            try:
                handler(Peer(connection, self))
            except (BrokenPipeError, ConnectionResetError):
                pass  # the module has had enough, which is what some tests are about
            except BaseException as error:  # noqa: BLE001 - raised again by __exit__, in the thread of the test
                self.failures.append(error)


@contextlib.contextmanager
def _as_uid(uid: int | None) -> Iterator[None]:
    if uid is None:
        yield
        return
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
