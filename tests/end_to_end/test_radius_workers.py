"""Several processes on one port: what one of them knows, all of them know."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.radius_door import Door, radius_door
from tests.end_to_end.radius_packets import STATE, Nas

WORKERS = 3
PORTS = 12
"""As many ports of a client: that the kernel gives all of them to one worker has a chance of 3^-11."""
CLIENT = {"name": "nas", "network": "127.0.0.0/8", "mode": "mfa_only", "empty_password": "challenge"}


@pytest.fixture(scope="module")
def door(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with radius_door(template, tmp_path_factory.mktemp("door"), [CLIENT], door={"workers": WORKERS}) as one:
        yield one


@pytest.fixture
def person(door: Door) -> Person:
    return door.person()


@pytest.fixture
def sockets(door: Door) -> Iterator[list[Nas]]:
    with ExitStack() as opened:
        yield [opened.enter_context(door.nas()) for _ in range(PORTS)]


def test_every_worker_listens(door: Door) -> None:
    """So that the tests below are about several."""
    table = Path("/proc/net/udp").read_text().splitlines()[1:]
    inodes = {row.split()[9] for row in table if row.split()[1] == f"0100007F:{door.ports['auth']:04X}"}

    assert len(inodes) == WORKERS


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


def test_stop_ends_all_workers(door: Door, person: Person) -> None:
    """And a start after it serves again."""
    assert door.mfad.stop() == 0
    door.mfad.start()
    with door.nas() as nas:
        assert nas.ask(nas.login(person.name, person.next_code())).what == "Accept"
