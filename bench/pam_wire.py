"""What does the daemon side of the PAM door cost? Median of connect, BEGIN, prompt, ANSWER, result, with an instant gate.

The peer of the comparison is a bare SEQPACKET echo server in a thread-free loop: the same system calls, and no door. Run:
``python bench/pam_wire.py [logins]``. The client and the server are two processes, as sshd and mfad are.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from mfa_core.model import Attempt
from mfa_core.secret import Secret
from mfa_core.verdict import Accepted, Challenge, Prompt, PromptKind, Verdict
from pam_mfa.server import PamDoor
from pam_mfa.settings import PamDoorSettings
from pam_mfa.wire import Answer, Begin, Phase, encode_answer, encode_begin


class InstantGate:
    """Asks, then accepts anything."""

    async def decide(self, attempt: Attempt) -> Verdict:
        if attempt.typed is None:
            return Challenge("c", (Prompt(PromptKind.CODE, "Verification code: "),), 2e9)
        return Accepted(attempt.event_id, "totp", "1")

    def ask(self, attempt: Attempt, answer: Callable[[Verdict], None]) -> None:
        deciding = asyncio.ensure_future(self.decide(attempt))
        deciding.add_done_callback(lambda decided: answer(decided.result()))


def serve_door(directory: Path) -> None:
    """Run the door until killed."""

    async def main() -> None:
        door = PamDoor(
            PamDoorSettings(socket_dir=directory), InstantGate(), monotonic=time.monotonic, new_event_id=lambda: "event"
        )
        await door.start()
        await asyncio.Event().wait()

    uvloop.run(main())


def serve_echo(directory: Path) -> None:
    """Answer two messages on each connection, with nothing in between: the floor."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(directory / "priv.sock"))
        listener.listen(64)
        while True:
            connection, _ = listener.accept()
            with connection:
                for _ in range(2):
                    connection.send(connection.recv(16_385))


def measure(directory: Path, logins: int) -> list[float]:
    """Return the seconds of each login."""
    begin = encode_begin(
        Begin(
            phase=Phase.AUTHENTICATE,
            flags=1,
            user=b"alice",
            service=b"sshd",
            uid=0,
            euid=0,
            tty=b"ssh",
            rhost=b"192.0.2.7",
            ssh_connection=b"192.0.2.7 51234 192.0.2.1 22",
            options=(b"socket_dir=/run/mfad",),
            module="0.1.0",
        )
    )
    answer = encode_answer(Answer((Secret(b"123456"),)))
    path = str(directory / "priv.sock")
    taken = []
    for _ in range(logins):
        start = time.perf_counter()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as module:
            module.connect(path)
            module.send(begin)
            module.recv(16_385)
            module.send(answer)
            module.recv(16_385)
        taken.append(time.perf_counter() - start)
    return taken


def bench(serve: object, logins: int) -> list[float]:
    """Fork a server, measure it, end it."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / "run"
        directory.mkdir(mode=0o755)
        child = os.fork()
        if child == 0:
            serve(directory)  # type: ignore[operator]  # one of two functions from a table
            os._exit(0)
        try:
            while not (directory / "priv.sock").exists():
                time.sleep(0.01)
            measure_or_wait(directory)
            return measure(directory, logins)
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)


def measure_or_wait(directory: Path) -> None:
    """Warm up; the echo server binds before it listens."""
    while True:
        try:
            measure(directory, 200)
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            return


def main() -> None:
    logins = int(sys.argv[1]) if len(sys.argv) > 1 else 3_000
    echo = statistics.median(bench(serve_echo, logins))
    taken = bench(serve_door, logins)
    door = statistics.median(taken)
    worst = statistics.quantiles(taken, n=100)[98]
    print(f"echo  median {echo * 1e3:.3f} ms")
    print(f"door  median {door * 1e3:.3f} ms  p99 {worst * 1e3:.3f} ms  {door / echo:.2f}x echo")


if __name__ == "__main__":
    main()
