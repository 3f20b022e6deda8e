"""``mfactl radius test`` against a real mfad: what an administrator is told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.programs import clean_environment
from tests.end_to_end.radius_door import Door, radius_door
from tests.end_to_end.radius_programs import free_port

ASKED, STRANGER, UNSIGNED = "127.0.6.2", "127.0.6.9", "127.0.6.3"
CLIENTS = [
    {"name": "loopback", "network": "127.0.0.1", "mode": "mfa_only"},
    {"name": "asked", "network": ASKED, "empty_password": "challenge", "secret": "the secret of another client"},
    {"name": "old", "network": UNSIGNED, "require_message_authenticator": "no", "mode": "mfa_only"},
]
REPLY = [{"attributes": {"Filter-Id": "staff", "Tunnel-Type:1": "VLAN", "Class": [{"octets": "0x00ff"}]}}]


@pytest.fixture(scope="module")
def door(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    listen = ("127.0.0.1:{auth}", "acct://127.0.0.1:{acct}")
    with radius_door(template, tmp_path_factory.mktemp("door"), CLIENTS, door={"reply": REPLY}, listen=listen) as one:
        yield one


@pytest.fixture
def person(door: Door) -> Person:
    return door.person()


def run(door: Door, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The command as it is typed."""
    return subprocess.run(
        [sys.executable, "-m", "mfactl", "--config", str(door.mfad.config_path), "radius", "test", *words],
        input=stdin, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def ask(door: Door, *words: str, stdin: str = "") -> tuple[int, Any]:
    done = run(door, *words, "--stdin", "--json", stdin=stdin)
    return done.returncode, json.loads(done.stdout)


def test_code_is_accepted_once_and_the_refusal_explained(door: Door, person: Person) -> None:
    """With the reply attributes by name, and the reason out of the audit log."""
    code = person.next_code()

    first = run(door, person.name, "--stdin", stdin=f"{code}\n")
    status, again = ask(door, person.name, stdin=f"{code}\n")

    assert first.returncode == 0, first.stdout + first.stderr
    assert "as client loopback" in first.stdout
    for words in ("Access-Accept", "signed", "Filter-Id", "staff", "Tunnel-Type:1", "VLAN", "0x00ff"):
        assert words in first.stdout
    assert code not in first.stdout
    assert (status, again["accepted"], again["reason"]) == (1, False, "replayed")
    assert door.mfad.mfactl_json("why", again["event"])[0]["user"] == person.name


def test_challenge_is_followed(door: Door, person: Person) -> None:
    """An empty password asks for the code; --client sends from that client's address with its secret."""
    status, told = ask(door, person.name, "--client", "asked", stdin=f"\n{person.next_code()}\n")

    assert (status, told["accepted"], told["source"]) == (0, True, ASKED)
    assert [step["answer"] for step in told["steps"]] == ["Access-Challenge", "Access-Accept"]


def test_chap_carries_a_code_alone(door: Door, person: Person) -> None:
    """In mfa_only mode."""
    status, told = ask(door, person.name, "--chap", stdin=f"{person.next_code()}\n")

    assert (status, told["steps"][0]["request"]) == (0, "Access-Request, CHAP, signed")


def test_unsigned_request_is_answered_where_it_may_be(door: Door, person: Person) -> None:
    """And explained where it may not."""
    status, told = ask(door, person.name, "--client", "old", "--unsigned", stdin=f"{person.next_code()}\n")
    refused, why = ask(door, person.name, "--unsigned", "--timeout", "0.2", "--retries", "0", stdin="123456\n")

    assert (status, told["accepted"]) == (0, True)
    assert refused == 5
    assert "must sign" in why["outcome"]


def test_stranger_is_told_that_nobody_knows_him(door: Door) -> None:
    """Before anything is sent, and after it."""
    done = run(door, "alice", "--stdin", "--source", STRANGER, stdin="1\n")
    status, told = ask(
        door, "alice", "--client", "old", "--source", STRANGER, "--timeout", "0.2", "--retries", "0", stdin="1\n"
    )

    assert done.returncode == 4
    assert f"would be sent from, {STRANGER}" in done.stderr
    assert status == 5
    assert "strangers are not answered" in told["outcome"]


def test_wrong_secret_is_the_first_guess(door: Door) -> None:
    """mfad does not answer what is signed wrongly, and answers unsigned requests in its own way."""
    wrong = [
        "--secret-file",
        str(door.write_secret("wrong", "not the secret of anybody")),
        "--timeout",
        "0.2",
        "--retries",
        "0",
    ]
    silent, told = ask(door, "alice", *wrong, stdin="1\n")
    doubted, seen = ask(door, "alice", *wrong, "--source", UNSIGNED, "--unsigned", stdin="1\n")

    assert (silent, doubted) == (5, 1)
    assert "secret" in told["cures"][0]
    assert seen["steps"][0]["doubt"] == "response_authenticator"


def test_silence_is_explained_by_what_mfad_recorded(template: Mfad, tmp_path: Path) -> None:
    """Its backend for passwords is down, and on_unavailable is silence: the secret is not what is to be looked at."""
    secret = tmp_path / "backend.secret"
    secret.touch(0o600)
    secret.write_text("the secret of a backend that is down")
    backend = {
        "type": "radius",
        "servers": [f"127.0.0.1:{free_port()}"],
        "secret_file": str(secret),
        "timeout": "1s",
        "retries": 1,
    }
    clients = [{"name": "loopback", "network": "127.0.0.1", "mode": "concat"}]
    with radius_door(template, tmp_path / "door", clients, door={"primary": backend}) as door:
        person = door.person()
        typed = f"a password{person.next_code()}\n"
        done = run(door, person.name, "--stdin", "--timeout", "10", "--retries", "0", stdin=typed)

    assert done.returncode == 5, done.stdout + done.stderr
    assert "the backend for passwords did not answer (`mfactl why " in done.stdout


def test_status_and_accounting(door: Door) -> None:
    """Nobody is logged in by them."""
    assert ask(door, "--status")[1]["steps"][0]["answer"] == "Access-Accept"
    status, told = ask(door, "alice", "--accounting")

    assert status == 0
    assert [step["answer"] for step in told["steps"]] == ["Accounting-Response"] * 2


def test_port_without_a_server_is_told(door: Door) -> None:
    """Without the configuration: an address and a secret are enough."""
    secret = str(door.directory / "loopback.secret")
    status, told = ask(door, "alice", "--server", f"127.0.0.1:{door.ports['tls']}", "--secret-file", secret, stdin="1\n")

    assert status == 5
    assert "nobody listens" in told["outcome"]


@pytest.mark.parametrize(
    "words", [["alice", "--status", "--accounting"], [], ["alice", "--server", "a b"], ["alice", "--server", "h:0"]]
)
def test_misuse_is_refused(door: Door, words: list[str]) -> None:
    """With nothing sent."""
    assert run(door, *words, "--stdin").returncode == 2
