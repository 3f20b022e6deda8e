"""Several processes on one port: what one of them knows, all of them know."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.programs import wait_until
from tests.end_to_end.radius_door import Door, radius_door
from tests.end_to_end.radius_packets import STATE, Nas

WORKERS = 3
PORTS = 12
"""As many ports of a client: that the kernel gives all of them to one worker has a chance of 3^-11."""
AUTO = "127.0.1.4"
CLIENT = {"name": "nas", "network": "127.0.0.0/8", "mode": "mfa_only", "empty_password": "challenge"}
CLIENTS = [CLIENT, {"name": "auto", "network": AUTO, "mode": "mfa_only", "require_message_authenticator": "auto"}]


@pytest.fixture(scope="module")
def door(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with radius_door(template, tmp_path_factory.mktemp("door"), CLIENTS, door={"workers": WORKERS}) as one:
        yield one


@pytest.fixture
def person(door: Door) -> Person:
    return door.person()


@pytest.fixture
def sockets(door: Door) -> Iterator[list[Nas]]:
    with ExitStack() as opened:
        yield [opened.enter_context(door.nas()) for _ in range(PORTS)]


def listening(door: Door) -> int:
    """How many sockets hold the port."""
    table = Path("/proc/net/udp").read_text().splitlines()[1:]
    return len({row.split()[9] for row in table if row.split()[1] == f"0100007F:{door.ports['auth']:04X}"})


def test_every_worker_listens(door: Door) -> None:
    """So that the tests below are about several."""
    assert listening(door) == WORKERS


def test_challenge_of_one_worker_is_answered_at_another(door: Door, sockets: list[Nas]) -> None:
    """Row 48: each question at one port, each answer at another."""
    people = [door.person() for _ in sockets]
    challenges = [nas.ask(nas.login(one.name, "")) for nas, one in zip(sockets, people, strict=True)]
    assert [one.what for one in challenges] == ["Challenge"] * PORTS
    others = [*sockets[1:], sockets[0]]
    answers = [
        nas.ask(nas.login(one.name, one.next_code(), (STATE, challenge.state)))
        for nas, one, challenge in zip(others, people, challenges, strict=True)
    ]

    assert [one.what for one in answers] == ["Accept"] * PORTS


def test_one_code_at_all_workers_at_once_lets_one_in(sockets: list[Nas], person: Person) -> None:
    """Row 38: the store decides, not a process."""
    code = person.next_code()
    requests = [nas.login(person.name, code) for nas in sockets]
    for nas, request in zip(sockets, requests, strict=True):
        nas.send(request)
    heard = [nas.receive(request).what for nas, request in zip(sockets, requests, strict=True)]

    assert sorted(heard) == ["Accept"] + ["Reject"] * (PORTS - 1)


def test_answered_challenge_is_spent_at_all_workers(door: Door, sockets: list[Nas], person: Person) -> None:
    """Row 42."""
    state = sockets[0].ask(sockets[0].login(person.name, "")).state
    assert sockets[1].ask(sockets[1].login(person.name, person.next_code(), (STATE, state))).what == "Accept"
    code = person.next_code()

    assert {nas.ask(nas.login(person.name, code, (STATE, state))).what for nas in sockets[2:]} == {"Reject"}


def test_retransmit_finds_the_worker_that_has_the_answer(sockets: list[Nas], person: Person) -> None:
    """Row 37: same port, same worker, same octets."""
    nas = sockets[5]
    request = nas.login(person.name, person.next_code())
    first = nas.ask(request)

    assert first.what == "Accept"
    assert nas.ask(request).raw == first.raw


def test_worker_that_is_killed_is_replaced(door: Door) -> None:
    """Nobody is without an answer for long, and what was spent stays spent."""
    person = door.person()
    code = person.next_code()
    with door.nas() as nas:
        assert nas.ask(nas.login(person.name, code)).what == "Accept"
    before = workers(door)
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(set(workers(door)) - set(before)) == 1 and listening(door) == WORKERS, "another worker")
    with ExitStack() as opened:
        for _ in range(PORTS):
            nas = opened.enter_context(door.nas())
            assert nas.ask(nas.status()).what == "Accept"
            assert nas.ask(nas.login(person.name, code)).what == "Reject"


def test_signature_seen_by_one_worker_is_wanted_by_all(door: Door, sockets: list[Nas]) -> None:
    """``auto``: learnt by whichever worker the first signed request came to."""
    with ExitStack() as opened:
        learning = [opened.enter_context(door.nas(AUTO)) for _ in range(PORTS)]
        unsigned = [nas.login("nobody", "123456", sign=False) for nas in learning]
        assert {nas.ask(raw).what for nas, raw in zip(learning, unsigned, strict=True)} == {"Reject"}
        assert learning[0].ask(learning[0].login("nobody", "123457")).what == "Reject"

        def all_silent() -> bool:
            return all(nas.is_silent(nas.login("nobody", "123458", sign=False)) for nas in learning)

        wait_until(all_silent, "every worker wants a signature")


def test_reload_reaches_all_workers(door: Door) -> None:
    """Row 53."""
    try:
        door.change([{**CLIENT, "secret": "another-secret-of-the-test"}])
        with ExitStack() as opened:
            for _ in range(PORTS):
                nas = opened.enter_context(door.nas(secret="another-secret-of-the-test"))
                wait_until(lambda nas=nas: answers(nas), "the new secret at every worker")
    finally:
        door.change(CLIENTS)
        with ExitStack() as opened:
            for _ in range(PORTS):
                nas = opened.enter_context(door.nas())
                wait_until(lambda nas=nas: answers(nas), "the old secret at every worker")


def answers(nas: Nas) -> bool:
    """Whether a Status-Server is answered at once."""
    raw = nas.status()
    nas.send(raw)
    try:
        return nas.receive(raw, patience_s=0.2).what == "Accept"
    except AssertionError:
        return False


def workers(door: Door) -> list[int]:
    """Process ids of the children of mfad."""
    main = door.mfad._program
    assert main is not None
    return [int(one) for one in Path(f"/proc/{main.pid}/task/{main.pid}/children").read_text().split()]


def test_workers_end_with_the_daemon_that_is_killed(door: Door, person: Person) -> None:
    """Nobody answers for a daemon that is gone, and the next one finds the port free."""
    before = workers(door)
    door.mfad.kill()
    wait_until(lambda: not any(Path(f"/proc/{one}").exists() for one in before), "the workers end")
    assert listening(door) == 0
    door.mfad.start()
    with door.nas() as nas:
        assert nas.ask(nas.login(person.name, person.next_code())).what == "Accept"


def test_stop_ends_all_workers(door: Door, person: Person) -> None:
    """And a start after it serves again."""
    before = workers(door)
    assert door.mfad.stop() == 0
    assert not any(Path(f"/proc/{one}").exists() for one in before)
    door.mfad.start()
    with door.nas() as nas:
        assert nas.ask(nas.login(person.name, person.next_code())).what == "Accept"
