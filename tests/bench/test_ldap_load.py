"""Does the generator behind the figures of the LDAP door count what happened? Against servers that this test plays, against
slapd, and against the directory that answers at once."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.ldap_stage import (
    BRANCH_ENTRIES,
    Certificate,
    Generator,
    Passwords,
    Run,
    Server,
    answers,
    bind,
    find,
    list_branch,
    service_bind,
    slapd,
    unbind,
    write_book,
)
from tests.end_to_end.programs import must_have

USERS = 20
Answering = Callable[[bytes], bytes]
"""What a played server says when it is told something."""


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    must_have("cc", "/usr/include/openssl/ssl.h")
    return Generator(tmp_path_factory.mktemp("generator"))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    must_have("slapd", "openssl")
    folder = tmp_path_factory.mktemp("directory")
    with slapd(folder / "slapd", users=USERS, tls=Certificate.make(folder)) as server:
        yield server


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return write_book(tmp_path / "first", [[service_bind()]])


@contextmanager
def playing(answer: Answering) -> Iterator[Server]:
    """A server in a thread, one connection after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                connection, _ = listening.accept()
                with connection:
                    while data := connection.recv(65_536):
                        if data == b"end":
                            return
                        said = answer(data)
                        if not said:
                            break
                        connection.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Server("played", (), listening.getsockname()[1], Passwords(0))
        finally:
            with socket.create_connection(listening.getsockname()) as ending:
                ending.sendall(b"end")
            thread.join()


def response(request: bytes, tag: int, code: int = 0, *, skew: int = 0) -> bytes:
    """An LDAPResult with the message id of a request, or one beside it."""
    identifier = bytes((request[4], request[5] + skew & 0xFF))
    return b"\x30\x0d\x02\x02" + identifier + bytes((tag, 7, 0x0A, 1, code, 4, 0, 4, 0))


def test_every_answer_is_counted_once_by_its_code(generator: Generator, first: Path, tmp_path: Path) -> None:
    """The bind before the clock runs is not; ids are filled in, so that more requests fit than there are octets in an id."""
    seen = 0

    def answer(request: bytes) -> bytes:
        nonlocal seen
        seen += 1
        return response(request, 0x61, 49 if seen % 4 == 0 else 0)

    with playing(answer) as server:
        book = write_book(tmp_path / "book", [[bind("uid=a", "b")]])
        run = generator.run(server, book, first=first, connections=1, repeat=400)

    assert seen == 401
    assert (run.exchanges, run.good, run.broken) == (400, 300, 0)
    assert run.results == {"0": 300, "49": 100}
    assert 0 < run.p50_ms <= run.p99_ms <= run.max_ms


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: response(request, 0x61, skew=1),
        lambda request: response(request, 0x78),
        lambda _: b"\x30\x80\x00\x00",
        lambda _: b"",
    ],
    ids=["another id", "another operation", "no message", "closed"],
)
def test_what_is_no_answer_is_broken(generator: Generator, first: Path, tmp_path: Path, answer: Answering) -> None:
    """It is never counted as good, and the connection starts afresh."""
    turn = 0

    def badly(request: bytes) -> bytes:
        nonlocal turn
        turn += 1
        return answer(request) if turn in {3, 6} else response(request, 0x61)

    with playing(badly) as server:
        book = write_book(tmp_path / "book", [[bind("uid=a", "b")]])
        run = generator.run(server, book, first=first, connections=1, repeat=10)

    assert (run.exchanges, run.good, run.broken) == (8, 8, 2)


def test_a_connection_that_may_not_begin_ends_the_program(generator: Generator, first: Path, tmp_path: Path) -> None:
    """A figure of connections that are not bound would be about something else."""
    with playing(lambda request: response(request, 0x61, 49)) as server, pytest.raises(subprocess.CalledProcessError):
        generator.run(server, write_book(tmp_path / "book", [[bind("uid=a", "b")]]), first=first)


def test_slapd_lets_in_who_has_the_password_and_nobody_else(
    generator: Generator, directory: Server, first: Path, tmp_path: Path
) -> None:
    """The requests that the figures stand on are such as another server understands."""
    logins = directory.people.take(USERS)
    good = write_book(tmp_path / "good", [[bind(login.dn, login.password)] for login in logins])
    wrong = write_book(tmp_path / "wrong", [[bind(login.dn, login.password + "!")] for login in logins])

    accepted, refused = (generator.run(directory, book, first=first) for book in (good, wrong))

    assert accepted.results == {"0": USERS}
    assert refused.results == {"49": USERS}
    assert (accepted.good, refused.good, refused.broken) == (USERS, 0, 0)
    assert accepted.server_cpu_s > 0


@pytest.mark.parametrize("tls", [False, True], ids=["in clear", "TLS"])
def test_entries_are_counted(generator: Generator, directory: Server, first: Path, tmp_path: Path, tls: bool) -> None:
    """One by name, and a branch of many, whose answer is larger than any buffer."""
    one = write_book(tmp_path / "one", [[find(login.name)] for login in directory.people.take(USERS)])
    many = write_book(tmp_path / "many", [[list_branch()]])

    found = generator.run(directory, one, first=first, entries=1, tls=tls)
    listed = generator.run(directory, many, first=first, entries=BRANCH_ENTRIES, repeat=5, connections=2, tls=tls)

    assert (found.good, found.entries, found.broken) == (USERS, USERS, 0)
    assert (listed.good, listed.entries, listed.broken) == (5, 5 * BRANCH_ENTRIES, 0)
    assert bool(found.cipher) == tls


def test_a_search_with_too_few_entries_is_broken(generator: Generator, directory: Server, first: Path, tmp_path: Path) -> None:
    """An empty answer is quick, and success."""
    book = write_book(tmp_path / "book", [[find("nobody")]])

    run = generator.run(directory, book, first=first, entries=1, repeat=10)

    assert (run.good, run.broken) == (0, 10)


def test_a_whole_login_ends_with_the_first_refusal(generator: Generator, directory: Server, tmp_path: Path) -> None:
    """Each on a connection of its own."""
    logins = directory.people.take(USERS)
    wrong = {logins[3].name, logins[7].name}
    book = write_book(
        tmp_path / "book",
        [
            [service_bind(), find(who.name), bind(who.dn, "wrong" if who.name in wrong else who.password), unbind()]
            for who in logins
        ],
    )

    run = generator.run(directory, book, "fresh", connections=4)

    assert (run.exchanges, run.good, run.broken) == (USERS, USERS - 2, 0)
    assert run.results == {"0": 3 * USERS - 2, "49": 2}


def test_time_ends_a_run(generator: Generator, directory: Server, first: Path, tmp_path: Path) -> None:
    """The book is played again until then."""
    book = write_book(tmp_path / "book", [[find(login.name)] for login in directory.people.take(USERS)])

    run = generator.run(directory, book, first=first, repeat=0, seconds=0.2)

    assert run.good == run.exchanges > USERS


def test_held_connections_are_bound(generator: Generator, directory: Server, tmp_path: Path) -> None:
    """More than a listening socket keeps waiting, and all of them at a time."""
    book = write_book(tmp_path / "book", [[service_bind()]])
    command = [generator.program, f"--to=127.0.0.1:{directory.port}", f"--book={book}", "--mode=hold", "--connections=200"]

    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as held:
        assert held.stdout is not None
        said = held.stdout.readline()
        sockets = Path(f"/proc/{held.pid}/fd").iterdir()
        held_sockets = sum(str(path.readlink()).startswith("socket:") for path in sockets)

        assert '"broken": 0' in said
        assert held_sockets == 200
        held.send_signal(signal.SIGTERM)


def test_the_directory_that_answers_at_once_answers_all(generator: Generator, first: Path, tmp_path: Path) -> None:
    """Binds, searches and, for the proxy that asks, who somebody is."""
    who_am_i = b"\x30\x1f\x02\x02\x01\x00\x77\x19\x80\x171.3.6.1.4.1.4203.1.11.3"
    book = write_book(tmp_path / "book", [[bind("uid=a", "b"), find("a")]])

    with answers(tmp_path / "answers") as server:
        run: Run = generator.run(server, book, first=first, entries=1, repeat=1000)
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(bind("uid=a", "b"))
            bound = connection.recv(100)
            connection.sendall(who_am_i)
            identity = connection.recv(100)

    assert (run.good, run.broken, run.results) == (1000, 0, {"0": 2000})
    assert b"\x0a\x01\x00" in bound
    assert identity.endswith(b"dn:uid=a")
