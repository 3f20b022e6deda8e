"""Stand-ins for the two ends of the PAM door: a gate that follows a script, and a module that speaks the wire from Python."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar

from mfa_core.model import Attempt
from mfa_core.secret import Secret
from mfa_core.verdict import (
    Accepted,
    Challenge,
    EnrolmentOffer,
    Prompt,
    PromptKind,
    Reason,
    Rejected,
    Verdict,
)
from pam_mfa.server import PamDoor
from pam_mfa.settings import PamDoorSettings
from pam_mfa.wire import (
    Answer,
    Begin,
    Cancel,
    Op,
    Ops,
    Phase,
    Result,
    decode_ops,
    encode_answer,
    encode_begin,
)

CODE = b"123456"

T = TypeVar("T", bound=Op)


def begin(user: bytes = b"alice", service: bytes = b"sshd", **fields: object) -> Begin:
    """BEGIN as sshd sends it."""
    defaults: dict[str, object] = {"phase": Phase.AUTHENTICATE, "flags": 0, "uid": 0, "euid": 0}
    return Begin(user=user, service=service, **{**defaults, **fields})  # type: ignore[arg-type]


def answer(text: bytes) -> Answer:
    return Answer((Secret(text),))


def ask(kind: PromptKind = PromptKind.CODE, text: str = "Verification code: ", **more: object) -> Challenge:
    return Challenge("c1", (Prompt(kind, text),), 2e9, **more)  # type: ignore[arg-type]


def offer() -> EnrolmentOffer:
    secret = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
    uri = f"otpauth://totp/mfad:alice?secret={secret}&issuer=mfad"
    return EnrolmentOffer(Secret.from_text(uri), Secret.from_text(secret), "mfad", "alice")


ACCEPTED = Accepted("e", "totp", "totp-1")
WRONG = Rejected("e", Reason.MISMATCH)


class ScriptedGate:
    """Answers attempts with what its script says, in order; then by a fixed rule: asks, and accepts :data:`CODE`."""

    def __init__(self, *script: Verdict | Callable[[Attempt], Verdict] | Exception) -> None:
        self.script = list(script)
        self.attempts: list[Attempt] = []
        self.hold: asyncio.Event | None = None
        """When set, decisions on something typed wait for it."""
        self.holding = 0

    async def decide(self, attempt: Attempt) -> Verdict:
        self.attempts.append(attempt)
        if self.hold is not None and attempt.typed is not None:
            self.holding += 1
            await self.hold.wait()
            self.holding -= 1
        if self.script:
            verdict = self.script.pop(0)
            if isinstance(verdict, Exception):
                raise verdict
            return verdict(attempt) if callable(verdict) else verdict
        if attempt.typed is None:
            return ask()
        return ACCEPTED if attempt.typed.reveal() == CODE else WRONG


class FakeClock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def event_ids() -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"e{next(numbers)}"


class RunningDoor:
    """A door in a loop of its own in a thread, so that tests may block on sockets."""

    def __init__(
        self,
        settings: PamDoorSettings,
        gate: ScriptedGate,
        clock: Callable[[], float],
        loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
        look_up: Callable[[int], bytes | None] | None = None,
    ) -> None:
        self.settings = settings
        self.gate = gate
        more = {} if look_up is None else {"look_up": look_up}
        self.door = PamDoor(settings, gate, monotonic=clock, new_event_id=event_ids(), **more)
        self.loop = loop_factory()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def call(self, act: Callable[[], object]) -> object:
        """Run ``act`` in the loop and return what it returns."""

        async def acted() -> object:
            return act()

        return asyncio.run_coroutine_threadsafe(acted(), self.loop).result(10)

    def await_(self, work: object) -> object:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)  # type: ignore[arg-type]

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds, looked at in the loop."""

        async def held() -> None:
            while not condition():  # noqa: ASYNC110  conditions of the door have no event of their own
                await asyncio.sleep(0.001)

        asyncio.run_coroutine_threadsafe(asyncio.wait_for(held(), 10), self.loop).result(11)

    def close(self) -> None:
        self.await_(self.door.stop(grace_s=0.2))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@contextmanager
def running_door(
    directory: Path,
    gate: ScriptedGate | None = None,
    *,
    clock: Callable[[], float] | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    look_up: Callable[[int], bytes | None] | None = None,
    **settings: object,
) -> Iterator[RunningDoor]:
    """A started door on sockets in ``directory``."""
    chosen = PamDoorSettings(socket_dir=directory, **settings)  # type: ignore[arg-type]
    running = RunningDoor(chosen, gate or ScriptedGate(), clock or FakeClock(), loop_factory, look_up)
    try:
        running.await_(running.door.start())
        yield running
    finally:
        running.close()


class Module:
    """What pam_mfa.so does, on a blocking socket."""

    def __init__(self, directory: Path, name: str = "priv.sock") -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        try:
            self.socket.connect(os.fspath(directory / name))
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, message: Begin | Answer | Cancel | bytes) -> None:
        if isinstance(message, Begin):
            message = encode_begin(message)
        elif not isinstance(message, bytes):
            message = encode_answer(message)
        self.socket.send(message)

    def receive(self) -> Ops:
        return decode_ops(self.socket.recv(20_000))

    def exchange(self, message: Begin | Answer | Cancel | bytes) -> Ops:
        self.send(message)
        return self.receive()

    def hung_up(self) -> bool:
        """Whether mfad has closed its end (waits for it)."""
        try:
            return self.socket.recv(20_000) == b""
        except ConnectionResetError:
            return True


def result(ops: Ops) -> int | None:
    """The PAM code that ``ops`` end in."""
    return ops[-1].code if isinstance(ops[-1], Result) else None


def only(ops: Ops, kind: type[T]) -> list[T]:
    return [op for op in ops if isinstance(op, kind)]
