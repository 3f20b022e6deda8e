"""Does the generator behind the figures count what happened? Against a server that this test plays, and against FreeRADIUS."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.processes import processors
from bench.radius_stage import (
    Generator,
    Login,
    Run,
    Server,
    Shared,
    freeradius_files,
    identifier_of,
    login_book,
    new_secret,
    peer_password,
    status_server,
    write_book,
)
from bench.stage import name_of
from tests.end_to_end.programs import must_have

ACCEPT, REJECT = 2, 3
Answering = Callable[[bytes], list[bytes]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    return new_secret(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory, shared: Shared) -> Generator:
    must_have("cc")
    return Generator(tmp_path_factory.mktemp("generator"), shared, cpu=None)


class NoLogins:
    """For servers that are asked nothing by a roster."""

    def take(self, count: int) -> list[Login]:
        """None."""
        raise AssertionError(count)


@contextmanager
def playing(answer: Answering) -> Iterator[Server]:
    """A server in a thread that sends what ``answer`` makes of each datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                packet, source = listening.recvfrom(4096)
                if packet == b"end":
                    return
                for reply in answer(packet):
                    listening.sendto(reply, source)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Server("played", (), listening.getsockname()[1], NoLogins())
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
                ending.sendto(b"end", listening.getsockname())
            thread.join()


def reply(code: int, request: bytes, secret: bytes) -> bytes:
    """An answer without attributes, RFC 2865 section 3."""
    head = bytes((code, request[1], 0, 20))
    return head + hashlib.md5(head + request[4:20] + secret).digest()


def book(path: Path, shared: Shared, count: int, sockets: int) -> Path:
    return write_book(path / "book", (status_server(identifier_of(i, sockets), shared.value) for i in range(count)))


def ask(
    generator: Generator,
    shared: Shared,
    folder: Path,
    answer: Answering,
    mode: str = "closed",
    *,
    count: int,
    **options: str | float,
) -> Run:
    """What the generator says of a played server."""
    with playing(answer) as server:
        return generator.run(server, book(folder, shared, count, 4), mode, sockets=4, **options)


def test_every_answer_is_counted_once_by_its_code(generator: Generator, shared: Shared, tmp_path: Path) -> None:
    """More requests than a socket has identifiers; every fourth is refused."""
    run = ask(
        generator,
        shared,
        tmp_path,
        lambda packet: [reply(REJECT if packet[1] % 4 == 0 else ACCEPT, packet, shared.value)],
        count=2048,
    )

    assert (run.sent, run.answered, run.accept, run.reject) == (2048, 2048, 1536, 512)
    assert (run.bad, run.stray, run.lost) == (0, 0, 0)
    assert 0 < run.p50_ms <= run.p99_ms <= run.max_ms


def test_an_answer_signed_with_another_secret_is_none(generator: Generator, shared: Shared, tmp_path: Path) -> None:
    """The Response Authenticator is checked, and a forged answer does not keep the true one out."""
    run = ask(
        generator,
        shared,
        tmp_path,
        lambda packet: [reply(ACCEPT, packet, b"other"), reply(REJECT, packet, shared.value)],
        count=100,
    )

    assert (run.bad, run.accept, run.reject) == (100, 0, 100)


def test_a_second_answer_is_stray(generator: Generator, shared: Shared, tmp_path: Path) -> None:
    """One request has one answer."""
    run = ask(generator, shared, tmp_path, lambda packet: 2 * [reply(ACCEPT, packet, shared.value)], count=100, outstanding=1)

    assert run.accept == 100
    assert run.stray > 0


def test_a_request_without_an_answer_is_sent_again_and_then_lost(
    generator: Generator, shared: Shared, tmp_path: Path
) -> None:
    """The first datagram of each request is lost; requests with an even identifier never have an answer."""
    seen: set[bytes] = set()

    def forgetful(packet: bytes) -> list[bytes]:
        if packet not in seen:
            seen.add(packet)
            return []
        return [reply(ACCEPT, packet, shared.value)] if packet[1] % 2 else []

    run = ask(generator, shared, tmp_path, forgetful, count=64, outstanding=16, timeout_ms=500, retries=2)

    assert run.sent == 64
    assert (run.accept, run.lost) == (32, 32)
    assert run.retransmits >= 32 + 64


@pytest.mark.parametrize("mode", ["paced", "burst"])
def test_all_that_was_due_is_sent(generator: Generator, shared: Shared, tmp_path: Path, mode: str) -> None:
    """Neither mode waits for answers before it sends, and both count them all. So few fit into any socket's buffer."""
    run = ask(
        generator,
        shared,
        tmp_path,
        lambda packet: [reply(ACCEPT, packet, shared.value)],
        mode,
        count=100,
        rate=2000,
        timeout_ms=10_000,
    )

    assert (run.sent, run.accept, run.lost, run.retransmits) == (100, 100, 0, 0)


def test_a_flood_expects_nothing(generator: Generator, shared: Shared, tmp_path: Path) -> None:
    """A silent server costs no time-outs; what it answers after all is stray."""
    run = ask(generator, shared, tmp_path, lambda _: [], "flood", count=200, rate=20_000, repeat=2)

    assert (run.sent, run.answered, run.stray, run.lost) == (400, 0, 0, 0)


def test_freeradius_lets_in_who_has_the_password_and_nobody_else(
    generator: Generator, shared: Shared, tmp_path: Path
) -> None:
    """The packets that the figures stand on are such as another server understands."""
    must_have("freeradius", "taskset")
    users = 50

    with freeradius_files(tmp_path / "freeradius", shared, users=users, cpus=processors()[:1]) as server:
        good = login_book(tmp_path / "good", server.logins.take(users), shared.value)
        wrong = [Login(name_of(n), peer_password(n + 1)) for n in range(users)]
        accepted = generator.run(server, good)
        refused = generator.run(server, login_book(tmp_path / "wrong", wrong, shared.value))

        assert (accepted.accept, accepted.bad) == (users, 0)
        assert (refused.reject, refused.bad) == (users, 0)
        assert server.cpu_s() > 0
