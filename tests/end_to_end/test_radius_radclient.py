"""Logins and accounting by FreeRADIUS's radclient, and what an administrator does to a door that runs."""

from __future__ import annotations

import json
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.end_to_end.daemon import FAR, Mfad, Person
from tests.end_to_end.programs import must_have, wait_until
from tests.end_to_end.radius_door import SECRET, Door, radius_door
from tests.end_to_end.radius_packets import (
    ACCT_SESSION_ID,
    ACCT_STATUS_TYPE,
    START,
    USER_NAME,
    Nas,
)
from tests.end_to_end.radius_programs import Heard, radclient

TRIES = 4
SETTINGS = {"throttle": {"free": 10, "hard_cap": TRIES}}
NETWORK, HALF, HOST = "127.0.2.0/24", "127.0.2.128/25", "127.0.2.200"
ROTATING = "127.0.3.1"
CLIENTS = [
    {"name": "loopback", "network": "127.0.0.0/8", "mode": "mfa_only"},
    {"name": "six", "network": "::1", "mode": "mfa_only"},
    {"name": "network", "network": NETWORK, "mode": "mfa_only", "secret": "secret of the network"},
    {"name": "half", "network": HALF, "mode": "mfa_only", "secret": "secret of half of it"},
    {"name": "host", "network": HOST, "mode": "mfa_only", "secret": "secret of the one host"},
    {"name": "rotating", "network": ROTATING, "mode": "mfa_only", "secret": "secret of last year"},
]
REPLY = [
    {
        "when": {"client": "loopback"},
        "attributes": {
            "Filter-Id": ["vpn", "second"],
            "Class": {"octets": "0x00ff10"},
            "Tunnel-Type:1": "VLAN",
            "Tunnel-Medium-Type:1": "IEEE-802",
            "Tunnel-Private-Group-Id:1": "42",
            "Cisco-AVPair": "shell:priv-lvl=15",
            "Session-Timeout": 28800,
        },
    },
    {"when": {"user": "keyholder1"}, "attributes": {"Filter-Id": "third"}},
]
"""As FreeRADIUS's own dictionaries must understand them."""
BURST = 256
"""Identifiers that one socket has."""
_SO_RCVBUFFORCE = 33
"""Of socket(7): as SO_RCVBUF, over the host's bound."""


@pytest.fixture(scope="module")
def door(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """On all addresses of both families."""
    must_have("radclient")
    with radius_door(
        template,
        tmp_path_factory.mktemp("door"),
        CLIENTS,
        more=SETTINGS,
        door={"reply": REPLY},
        listen=("*:{auth}", "acct://*:{acct}"),
        people=40,
    ) as one:
        yield one


@pytest.fixture
def person(door: Door) -> Person:
    return door.person()


@pytest.fixture
def log_in(door: Door, tmp_path: Path) -> Callable[[str, str], Heard]:
    """Ask as a person would have it: name and what she typed."""

    def ask(name: str, typed: str) -> Heard:
        return radclient(door.server, SECRET, tmp_path, f'User-Name = "{name}"\nUser-Password = "{typed}"')

    return ask


def wrong_codes(person: Person, count: int) -> list[str]:
    """Different ones: the same again would be taken for a retransmit of one try."""
    now = int(time.time()) // 30
    near = {person.code_at(step) for step in range(now - FAR, now + FAR + 1)}
    return [code for code in (f"{number:06}" for number in range(count + len(near))) if code not in near][:count]


def test_code_lets_in_once(log_in: Callable[[str, str], Heard], person: Person) -> None:
    code = person.next_code()

    assert log_in(person.name, code).what == "Access-Accept"
    assert log_in(person.name, code).what == "Access-Reject"


def test_replies_are_signed_as_radclient_sees_it(log_in: Callable[[str, str], Heard], person: Person) -> None:
    """Row 1: it also checks what it finds."""
    for typed in (person.next_code(), person.wrong_code()):
        assert "Message-Authenticator" in log_in(person.name, typed).attributes


def test_wrong_unknown_and_locked_look_the_same(door: Door, log_in: Callable[[str, str], Heard], person: Person) -> None:
    """Nobody learns by asking who exists and whom a lock has hit."""
    locked = door.person()
    for code in wrong_codes(locked, TRIES):
        log_in(locked.name, code)
    heard = [
        log_in(person.name, person.wrong_code()),
        log_in("nosuchuser", "123456"),
        log_in("tokenless", "123456"),
        log_in(locked.name, locked.next_code()),
    ]

    assert {one.what for one in heard} == {"Access-Reject"}
    assert len({tuple(sorted(set(one.attributes) - {"Message-Authenticator"})) for one in heard}) == 1
    assert len({one.attributes.get("Reply-Message") for one in heard}) == 1


def test_lock_is_the_same_at_every_door_and_outlives_a_restart(
    door: Door, log_in: Callable[[str, str], Heard], person: Person
) -> None:
    for wrong in wrong_codes(person, TRIES):
        log_in(person.name, wrong)
    code = person.next_code()
    assert log_in(person.name, code).what == "Access-Reject"
    door.mfad.kill()
    door.mfad.start()

    assert log_in(person.name, code).what == "Access-Reject"
    door.mfad.mfactl("user", "unlock", person.name)
    assert log_in(person.name, code).what == "Access-Accept"


def test_spent_code_stays_spent_over_a_kill(door: Door, log_in: Callable[[str, str], Heard], person: Person) -> None:
    code = person.next_code()
    assert log_in(person.name, code).what == "Access-Accept"
    door.mfad.kill()
    door.mfad.start()

    assert log_in(person.name, code).what == "Access-Reject"


def test_recovery_code_lets_in_once(door: Door, log_in: Callable[[str, str], Heard], person: Person) -> None:
    code = str(door.mfad.mfactl_json("recovery", "new", person.name)["recovery_codes"][0])

    assert log_in(person.name, code).what == "Access-Accept"
    assert log_in(person.name, code).what == "Access-Reject"


def test_wrong_secret_hears_nothing_that_radclient_believes(door: Door, tmp_path: Path, person: Person) -> None:
    """It signs: so mfad knows, and is silent."""
    with door.nas(secret="not this one at all") as nas, door.nas() as good:
        nas.send(nas.login(person.name, person.next_code()))
        assert good.stays_silent()
        nas.socket.settimeout(0.05)
        with pytest.raises(TimeoutError):
            nas.socket.recv(4096)


def test_reply_attributes_are_what_freeradius_reads(door: Door, log_in: Callable[[str, str], Heard], person: Person) -> None:
    """Several values, a tag, a vendor's, octets, a number; and nothing of it in a Reject."""
    heard = log_in(person.name, person.next_code())
    named = door.mfad.person("keyholder1")
    third = log_in(named.name, named.next_code())
    refused = log_in(person.name, person.wrong_code())

    for line in (
        'Filter-Id = "vpn"',
        'Filter-Id = "second"',
        "Class = 0x00ff10",
        "Tunnel-Type:1 = VLAN",
        "Tunnel-Medium-Type:1 = IEEE-802",
        'Tunnel-Private-Group-Id:1 = "42"',
        'Cisco-AVPair = "shell:priv-lvl=15"',
        "Session-Timeout = 28800",
    ):
        assert f"\t{line}\n" in heard.screen
    assert "third" not in heard.screen
    assert 'Filter-Id = "third"' in third.screen
    assert set(refused.attributes) == {"Message-Authenticator", "Reply-Message"}


def test_status_server_is_accepted_at_both_ports(door: Door, tmp_path: Path) -> None:
    assert radclient(door.server, SECRET, tmp_path, "", command="status").what == "Access-Accept"
    with door.nas(port="acct") as nas:
        assert nas.ask(nas.status()).what == "Accounting-Response"


@pytest.mark.parametrize("kind", ["Start", "Stop", "Interim-Update", "Accounting-On", "Accounting-Off"])
def test_accounting_is_acknowledged(door: Door, tmp_path: Path, kind: str) -> None:
    server = f"127.0.0.1:{door.ports['acct']}"
    words = f'User-Name = "somebody"\nAcct-Status-Type = {kind}\nAcct-Session-Id = "session-{kind}"\nNAS-IP-Address = 192.0.2.1'
    heard = radclient(server, SECRET, tmp_path, words, command="acct")

    assert heard.what == "Accounting-Response"


def test_accounting_with_a_wrong_checksum_is_silent(door: Door) -> None:
    with Nas(("127.0.0.1", door.ports["acct"]), SECRET.encode()) as nas:
        wanted = [(ACCT_STATUS_TYPE, START), (USER_NAME, b"somebody"), (ACCT_SESSION_ID, b"1")]
        nas.send(nas.accounting(*wanted, secret=b"another"))
        good = nas.accounting(*wanted)
        first, again = nas.ask(good), nas.ask(good)
        nas.socket.settimeout(0.05)
        with pytest.raises(TimeoutError):
            nas.socket.recv(4096)

    assert first.what == "Accounting-Response"
    assert again.raw == first.raw


@pytest.mark.parametrize(
    ("source", "secret"),
    [
        pytest.param("127.0.2.1", "secret of the network", id="network"),
        pytest.param("127.0.2.130", "secret of half of it", id="half"),
        pytest.param(HOST, "secret of the one host", id="host"),
        pytest.param("127.0.4.1", SECRET, id="none-of-them"),
    ],
)
def test_longest_prefix_wins(door: Door, source: str, secret: str) -> None:
    """Row 52."""
    with door.nas(source, secret=secret) as nas:
        assert nas.ask(nas.status()).what == "Accept"


@pytest.mark.parametrize(
    ("host", "source"),
    [
        pytest.param("127.0.0.1", "127.0.0.1", id="v4"),
        pytest.param("127.0.0.2", "127.0.0.1", id="v4-second"),
        pytest.param("::1", "::1", id="v6"),
        pytest.param("::ffff:127.0.0.3", "::ffff:127.0.0.1", id="v4-mapped"),
    ],
)
def test_answer_comes_from_the_address_that_was_asked(door: Door, person: Person, host: str, source: str) -> None:
    """Row 51: the client's socket is connected, and would not get it from another."""
    with door.nas(source, host=host) as nas:
        assert nas.ask(nas.login(person.name, person.next_code())).what == "Accept"
    with Nas((host, door.ports["acct"]), SECRET.encode(), source) as nas:
        assert nas.ask(nas.accounting((ACCT_STATUS_TYPE, START), (ACCT_SESSION_ID, b"2"))).what == "Accounting-Response"


def test_burst_loses_nothing(door: Door, person: Person) -> None:
    """Row 50: 1,024 logins from four sockets before the first answer is read; one of them is good."""
    sockets = [door.nas() for _ in range(4)]
    try:
        sent: list[tuple[Nas, bytes]] = []
        for nas in sockets:
            nas.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)
            sent += [(nas, nas.login(f"nobody{number}", "123456", identifier=number)) for number in range(BURST)]
        sent[500] = (sent[500][0], sent[500][0].login(person.name, person.next_code(), identifier=sent[500][1][1]))
        for nas, raw in sent:
            nas.send(raw)
        heard = [nas.receive(raw).what for nas, raw in sent]
    finally:
        for nas in sockets:
            nas.socket.close()

    assert heard.count("Accept") == 1
    assert heard.count("Reject") == 4 * BURST - 1


def test_secret_is_rotated_without_a_pause(door: Door) -> None:
    """Row 53: the new one and the previous one, then the new one alone."""
    others = [client for client in CLIENTS if client["name"] != "rotating"]
    rotating = {"name": "rotating", "network": ROTATING, "mode": "mfa_only", "secret": "secret of this year"}

    def accepted(secret: str) -> bool:
        person = door.person()
        with door.nas(ROTATING, secret=secret) as nas:
            return nas.ask(nas.login(person.name, person.next_code())).what == "Accept"

    try:
        assert accepted("secret of last year")
        door.change([*others, {**rotating, "previous_secret": "secret of last year"}])
        assert accepted("secret of this year")
        assert accepted("secret of last year")
        door.change([*others, rotating])
        assert accepted("secret of this year")
        with door.nas(ROTATING, secret="secret of last year") as old, door.nas() as nas:
            old.send(old.status())
            assert nas.stays_silent()
            old.socket.settimeout(0.05)
            with pytest.raises(TimeoutError):
                old.socket.recv(4096)
    finally:
        door.change(CLIENTS)


def test_broken_reload_leaves_everything_as_it_was(door: Door, person: Person) -> None:
    """Row 54, and a secret file that is not there."""
    good = door.mfad.config_path.read_text()
    for broken in (
        {"clients": [{"name": "x", "network": "127.0.0.0/8", "secret_file": "/nonexistent/secret"}]},
        {"reply": [{"attributes": {"Filter-Id": "x" * 254}}]},
        {"reply": [{"attributes": {"Filter-Id": ["x" * 250] * 17}}]},
    ):
        settings = door.settings()
        settings["doors"]["radius"].update(broken)
        door.mfad.configure(settings)
        before = door.mfad.log().count("\n")
        door.mfad.signal_reload()
        wait_until(lambda before=before: door.mfad.log().count("\n") > before, "the refusal of the reload in the log")
        with door.nas() as nas:
            assert nas.ask(nas.status()).what == "Accept"
        assert "configuration reloaded" not in "\n".join(door.mfad.log().splitlines()[before:])
    door.mfad.config_path.write_text(good)

    door.mfad.reload()
    with door.nas() as nas:
        assert nas.ask(nas.login(person.name, person.next_code())).what == "Accept"


def test_store_that_is_locked_lets_nobody_in_and_spends_nothing(door: Door, person: Person) -> None:
    """Row 47: somebody else holds the lock for longer than mfad waits; the client hears nothing, and asks its next server."""
    path = door.mfad.directory / "state" / "mfad.sqlite"
    code = person.next_code()
    with door.nas() as nas:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            before = door.mfad.log().count("could not be decided")
            nas.send(nas.login(person.name, code))
            wait_until(lambda: door.mfad.log().count("could not be decided") > before, "the log tells of the attempt")
            assert nas.stays_silent()
            other.execute("ROLLBACK")
        assert nas.ask(nas.login(person.name, code)).what == "Accept"


def test_clean_stop_ends_with_status_0_and_frees_the_port(door: Door, person: Person) -> None:
    assert door.mfad.stop() == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", door.ports["auth"]))
    door.mfad.start()
    with door.nas() as nas:
        assert nas.ask(nas.login(person.name, person.next_code())).what == "Accept"


def test_audit_names_door_client_and_source(door: Door, log_in: Callable[[str, str], Heard], person: Person) -> None:
    """Who let whom in, from where, stands in the log that is for it; and the chain is whole."""
    assert log_in(person.name, person.next_code()).what == "Access-Accept"
    tail = door.mfad.mfactl("audit", "tail", "-n", "50", "--json")
    events = [json.loads(line) for line in tail.splitlines() if line.startswith("{")] or json.loads(tail)
    event = next(one for one in events if one.get("user") == person.name and "radius" in json.dumps(one))

    assert "loopback" in json.dumps(event)
    door.mfad.mfactl("audit", "verify")
