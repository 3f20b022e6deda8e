"""Several authorities in front of one database: every code is somebody's, and nobody's twice, whoever is killed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from mfa_core.verdict import Accepted, Rejected, Unavailable
from mfa_runtime.store import audit_log
from tests.doubles import ALICE, NO_WAITING, T0, Installation, Person, attempt
from tests.end_to_end.postgresql import Cluster, cluster
from tests.runtime.on_postgresql import install_on

ROOT = Path(__file__).parents[2]
CODES = 300
PEOPLE = [Person(f"person{number}") for number in range(CODES)]


@contextmanager
def racers(
    installation: Installation, directory: Path, mode: str, nodes: Sequence[str]
) -> Iterator[list[subprocess.Popen[str]]]:
    """A process for each node, all of them at the line."""
    found = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.runtime.racer", str(directory), mode, str(CODES), str(installation.store), node],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for node in nodes
    ]  # fmt: skip
    try:
        for one in found:
            assert one.stdout is not None
            assert one.stdout.readline() == "here\n"
        yield found
    finally:
        for one in found:
            one.kill()
            one.communicate()


def go(found: Sequence[subprocess.Popen[str]]) -> None:
    """Let them begin."""
    for one in found:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()


def accepted_on_record(installation: Installation) -> Counter[str]:
    """How often each user was accepted, by the audit log of every node."""
    with installation.store.reading() as connection:
        events = [json.loads(entry.body) for entry in audit_log.every(connection)]
    return Counter(event["user"] for event in events if event.get("outcome") == "accepted")


def chains_are_whole(installation: Installation) -> list[str]:
    """The nodes; their chains are looked through."""
    with installation.store.reading() as connection:
        reports = list(audit_log.verify(connection, keyring=installation.keyring()))
    assert [problem for report in reports for problem in report.problems] == []
    return [report.node for report in reports]


@pytest.mark.parametrize(
    ("mode", "nodes"),
    [
        ("people", ["one", "two", "three", "four"]),
        ("people", ["same", "same", "same"]),
        ("steps", ["one", "two", "three"]),
    ],
    ids=["all-at-once", "one-chain", "one-user"],
)
def test_authorities_spend_every_code_once(postgresql: Cluster, tmp_path: Path, mode: str, nodes: list[str]) -> None:
    """All codes at once, and one user's one after another; also where two processes were given one node by mistake."""
    people = PEOPLE if mode == "people" else [ALICE]
    installation = install_on(postgresql, tmp_path, *people, settings=NO_WAITING)

    with racers(installation, tmp_path, mode, nodes) as found:
        go(found)
        won = [json.loads(one.communicate(timeout=120)[0]) for one in found]

    assert sorted(number for one in won for number in one) == list(range(CODES))
    assert sum(accepted_on_record(installation).values()) == CODES
    assert chains_are_whole(installation) == sorted(set(nodes))
    installation.close()


@pytest.fixture
def own_server() -> Iterator[Cluster]:
    """A server to be killed."""
    with cluster() as one:
        yield one


def test_kills_of_authorities_and_of_the_database_accept_nothing_twice_and_lose_nothing(
    own_server: Cluster, tmp_path: Path
) -> None:
    """Whoever was told "accepted" is on record for good; whatever is not on record can still be used, once."""
    installation = install_on(own_server, tmp_path, *PEOPLE, settings=NO_WAITING)
    chance = random.Random(4)

    with racers(installation, tmp_path, "each", [f"node{number}" for number in range(5)]) as found:
        go(found)
        wait_for_accepts(installation, 40)
        found[0].kill()
        wait_for_accepts(installation, 80)
        time.sleep(chance.random() * 0.02)
        own_server.kill()
        found[1].kill()
        own_server.start()
        told = [[int(line) for line in one.communicate(timeout=120)[0].splitlines() if line.isdigit()] for one in found]

    said = Counter(f"person{number}" for one in told for number in one)
    record = accepted_on_record(installation)
    assert max(said.values()) == 1
    assert max(record.values()) == 1
    assert said.keys() <= record.keys()
    assert len(installation.rows("users")) == len(installation.rows("credentials")) == CODES
    chains_are_whole(installation)

    verdicts = installation.decide(*(attempt(one.name, one.code(T0)) for one in PEOPLE))
    again = [one.name for one, verdict in zip(PEOPLE, verdicts, strict=True) if isinstance(verdict, Accepted)]
    assert set(again) == {one.name for one in PEOPLE} - record.keys()
    assert not any(isinstance(verdict, Unavailable) for verdict in verdicts)
    installation.close()


def wait_for_accepts(installation: Installation, count: int) -> None:
    """Until so many stand in the store."""
    while sum(accepted_on_record(installation).values()) < count:
        time.sleep(0.01)


def test_logins_fail_closed_while_the_database_is_away_and_go_on_by_themselves(own_server: Cluster, tmp_path: Path) -> None:
    """One gate over the whole time: nothing is started anew but the server."""
    installation = install_on(own_server, tmp_path, *PEOPLE[:6], settings=NO_WAITING)
    ledger = installation.ledger()
    ledger._session.patience_s = 0.2
    codes = [attempt(one.name, one.code(T0)) for one in PEOPLE[:6]]

    def log_in(number: int) -> object:
        return installation.process(ledger, codes[number])[0].verdict

    assert isinstance(log_in(0), Accepted)
    own_server.kill()
    gone = [log_in(1), log_in(1)]
    own_server.start()
    back = log_in(1)
    own_server.stop()
    own_server.start()
    restarted = log_in(2)

    assert [type(verdict) for verdict in gone] == [Unavailable, Unavailable]
    assert isinstance(back, Accepted)
    assert isinstance(restarted, Accepted), "a restart between two logins is nobody's trouble"
    assert isinstance(log_in(0), Rejected)
    assert accepted_on_record(installation) == Counter({one.name: 1 for one in PEOPLE[:3]})
    chains_are_whole(installation)
    installation.close()


def test_a_server_that_stands_still_refuses_logins_and_the_next_one_is_free(own_server: Cluster, tmp_path: Path) -> None:
    """Its connections stay, and nobody answers: a login waits for so long and no longer."""
    installation = install_on(own_server, tmp_path, settings=NO_WAITING)
    ledger = installation.ledger()
    installation.process(ledger)
    raw = ledger._session.connect().connection.driver_connection
    raw.patience_s = 0.3  # type: ignore[union-attr]
    ledger._session.patience_s = 0.2
    own_server.stand_still()
    try:
        (ruling,) = installation.process(ledger, attempt("alice", ALICE.code(T0)))
    finally:
        own_server.go_on()
    (after,) = installation.process(ledger, attempt("alice", ALICE.code(T0)))

    assert isinstance(ruling.verdict, Unavailable)
    assert isinstance(after.verdict, Accepted)
    installation.close()
