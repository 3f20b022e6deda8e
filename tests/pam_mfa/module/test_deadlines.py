"""Does the module come back in time, whatever mfad, the kernel or a signal does?

The deadlines are real seconds, so one fixture runs all the slow logins at once.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.pam_mfa import fake_mfad as wire
from tests.pam_mfa.fake_mfad import FakeMfad, Handler, Peer, ops, prompt, result
from tests.pam_mfa.pam_harness import PamCode, Seen, auth_line, run_pam, socket_directory


def never_answers(peer: Peer) -> None:
    peer.begin()
    peer.wait_for_close()


def asks_and_never_answers(peer: Peer) -> None:
    peer.begin()
    peer.send(ops(prompt()))
    peer.answer()
    peer.wait_for_close()


def waits_without_end(peer: Peer) -> None:
    peer.begin()
    while True:  # until the module has closed, and send() fails
        peer.send(ops(wire.wait(300)))
        time.sleep(0.1)


def waits_two_seconds_and_is_silent(peer: Peer) -> None:
    peer.begin()
    peer.send(ops(wire.wait(2)))
    peer.wait_for_close()


def waits_and_keeps_its_word(peer: Peer) -> None:
    peer.begin()
    peer.send(ops(prompt(), wire.wait(13)))
    peer.answer()
    time.sleep(11)
    peer.send(ops(result(0)))


SLOW: dict[str, tuple[Handler, list[str]]] = {
    "first reply": (never_answers, []),
    "later reply": (asks_and_never_answers, []),
    "whole phase": (asks_and_never_answers, ["timeout=6"]),
    "keep-alives": (waits_without_end, ["timeout=5"]),
    "short wait": (waits_two_seconds_and_is_silent, []),
    "long wait": (waits_and_keeps_its_word, []),
}


@pytest.fixture(scope="module")
def slow() -> Iterator[dict[str, Future[Seen]]]:
    """Every slow login, under its name, running since the first of the tests below."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(len(SLOW) + 2))
        started: dict[str, Future[Seen]] = {}
        for name, (handler, words) in SLOW.items():
            directory = stack.enter_context(socket_directory())
            stack.enter_context(FakeMfad(directory, handler))
            answers = ["123456"] if handler in (asks_and_never_answers, waits_and_keeps_its_word) else []
            started[name] = pool.submit(run_pam, [auth_line(*words, socket_dir=directory)], "alice", answers)
        full = stack.enter_context(socket_directory())
        stack.enter_context(FakeMfad(full, [], backlog=0, accepting=False))
        first = pool.submit(run_pam, [auth_line("timeout=5", socket_dir=full)], "alice")
        time.sleep(0.3)
        started["full queue"] = pool.submit(run_pam, [auth_line(socket_dir=full)], "alice")
        yield started
        first.result()


@pytest.mark.parametrize(
    ("name", "after_s"),
    [("full queue", 1), ("short wait", 2), ("first reply", 5), ("keep-alives", 5), ("whole phase", 6), ("later reply", 10)],
)
def test_deadline_ends_the_phase_as_unavailable(slow: dict[str, Future[Seen]], name: str, after_s: int) -> None:
    """AUTHINFO_UNAVAIL, not before the deadline and not long after it."""
    seen = slow[name].result()

    assert seen.code == PamCode.AUTHINFO_UNAVAIL
    assert after_s - 0.05 <= seen.elapsed_s < after_s + 1.5


def test_deadline_of_a_reply_is_moved_by_wait(slow: dict[str, Future[Seen]]) -> None:
    """WAIT beside a prompt allows the reply to its answer more than 10 s."""
    seen = slow["long wait"].result()

    assert seen.code == PamCode.SUCCESS
    assert seen.elapsed_s > 10.5


@pytest.mark.parametrize("after", ["begin", "answer"])
def test_mfad_killed_in_the_dialogue_is_noticed_at_once(directory: Path, after: str) -> None:
    """A close is AUTHINFO_UNAVAIL without a wait and without a spin."""

    def handle(peer: Peer) -> None:
        peer.begin()
        if after == "answer":
            peer.send(ops(prompt()))
            peer.answer()

    with FakeMfad(directory, handle):
        seen = run_pam([auth_line(socket_dir=directory)], "alice", ["123456"] * (after == "answer"))

    assert seen.code == PamCode.AUTHINFO_UNAVAIL
    assert seen.elapsed_s < 0.5


def test_mfad_killed_while_the_user_types_is_noticed_at_once(directory: Path) -> None:
    """The answer goes to a closed socket: no SIGPIPE, no SUCCESS."""
    closed = threading.Event()

    def handle(peer: Peer) -> None:
        peer.begin()
        peer.send(ops(prompt()))
        peer.connection.close()
        closed.set()

    def answer(_prompt: str) -> str:
        closed.wait(5)
        return "123456"

    with FakeMfad(directory, handle):
        seen = run_pam([auth_line(socket_dir=directory)], "alice", [answer])

    assert seen.code == PamCode.AUTHINFO_UNAVAIL
    assert seen.elapsed_s < 0.5


def test_empty_message_is_a_close(directory: Path) -> None:
    """SOCK_SEQPACKET cannot tell the two apart, and there is no spin on it."""
    with FakeMfad(directory, [b"", ops(result(0))]):
        assert run_pam([auth_line(socket_dir=directory)], "alice").code == PamCode.AUTHINFO_UNAVAIL


def test_signals_interrupt_no_wait(directory: Path) -> None:
    """A caller with a timer, EINTR every 10 ms: the wait goes on, and no deadline is moved."""
    caught = []

    def handle(peer: Peer) -> None:
        peer.begin()
        time.sleep(0.5)
        peer.send(ops(result(0)))

    before = signal.signal(signal.SIGALRM, lambda number, _frame: caught.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        with FakeMfad(directory, handle):
            seen = run_pam([auth_line(socket_dir=directory)], "alice")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert seen.code == PamCode.SUCCESS
    assert 0.45 < seen.elapsed_s < 1.5
    assert caught
