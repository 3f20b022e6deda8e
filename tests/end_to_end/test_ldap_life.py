"""The door as a service: who is told to have come, addresses, reload and drain, floods, and what stands in which file."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.ldap_directory import BASE, PASSWORDS, SERVICE, dn_of, password_of
from tests.end_to_end.ldap_door import EXEMPT, LdapDoor, Setting, full, ldap_door, ldap_setting, wrong_guesses
from tests.end_to_end.ldap_relay import Relay
from tests.end_to_end.ldap_wire import (
    BIND_REQUEST,
    INVALID_CREDENTIALS,
    PROTOCOL_ERROR,
    SEARCH_REQUEST,
    SUCCESS,
    UNAVAILABLE,
    Client,
    Pdu,
    bind,
    extended,
    search,
)
from tests.end_to_end.programs import wait_until

BALANCER, STRANGER = "127.0.7.2", "127.0.7.3"
PROXY_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
LISTEN = ("ldap://127.0.0.1:{plain}", "ldap://[::1]:{other}", "ldapi://{socket}")


@pytest.fixture(scope="module")
def setting(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with ldap_setting(
        template, tmp_path_factory.mktemp("ldap"), door={"proxy_protocol": BALANCER}, listen=LISTEN, people=120
    ) as one:
        yield one


@pytest.fixture
def door(setting: Setting) -> LdapDoor:
    return setting.door


@pytest.fixture
def seen(setting: Setting) -> Relay:
    """What the directory sees in this test."""
    return setting.relay.forget()


@pytest.fixture
def person(door: LdapDoor) -> Person:
    return door.person()


# Addresses


def test_ipv6_and_unix_socket(door: LdapDoor) -> None:
    """Row 54; the bind log says where somebody came from."""
    for address in (("::1", door.ports["other"]), str(door.socket_path)):
        person = door.person()
        with Client(address) as client:
            assert client.bind(dn_of(person.name), full(person)).code == SUCCESS
            assert client.whoami() == f"dn:{dn_of(person.name)}"
        line = door.wait_for_bind(user=person.name)
        assert (line.get("source") == "::1") is isinstance(address, tuple)


def proxied(source: str) -> bytes:
    """A PROXY header, version 2, as a load balancer sends it."""
    addresses = [ipaddress.ip_address(one) for one in (source, "2001:db8::1" if ":" in source else "192.0.2.1")]
    family = 0x11 if addresses[0].version == 4 else 0x21
    body = b"".join(one.packed for one in addresses) + struct.pack("!HH", 40_000, 389)
    return PROXY_SIGNATURE + bytes((0x21, family)) + struct.pack("!H", len(body)) + body


@pytest.mark.parametrize("source", ["203.0.113.7", "2001:db8::7"])
@pytest.mark.parametrize("cut", [0, 1, 15, 20])
def test_balancer_says_who_comes(door: LdapDoor, person: Person, source: str, cut: int) -> None:
    """Row 53: also in pieces, and in one segment with the bind."""
    header = proxied(source)
    with door.client(BALANCER) as client:
        client.send(header[:cut])
        client.send(header[cut:], bind(1, dn_of(person.name), full(person)))
        assert client.receive().code == SUCCESS
    assert door.wait_for_bind(user=person.name)["source"] == source


def test_balancers_own_connection(door: LdapDoor) -> None:
    """Row 53: a health check (LOCAL) comes from the balancer."""
    with door.client(BALANCER) as client:
        client.send(PROXY_SIGNATURE + b"\x20\x00\x00\x00")
        assert client.search("")[-1].code == SUCCESS


BROKEN = {
    "version 1": b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 389\r\n",
    "none": b"",
    "version 3": PROXY_SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12),
    "no command": PROXY_SIGNATURE + b"\x2f\x11\x00\x0c" + bytes(12),
    "addresses that do not fit": PROXY_SIGNATURE + b"\x21\x11\x00\x04" + bytes(4),
    "datagrams": PROXY_SIGNATURE + b"\x21\x12\x00\x0c" + bytes(12),
    "broken signature": PROXY_SIGNATURE[:-1] + b"X" + b"\x21\x11\x00\x0c" + bytes(12),
    "two": proxied("203.0.113.7") + proxied("203.0.113.8"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_balancer_that_cannot_be_read_is_closed(door: LdapDoor, seen: Relay, what: str) -> None:
    """Row 53."""
    with door.client(BALANCER) as client:
        client.send(BROKEN[what] + bind(1, SERVICE, PASSWORDS[SERVICE]))
        assert all(one.is_notice for one in client.rest())
    assert seen.requests(BIND_REQUEST) == []


def test_nobody_else_says_who_comes(door: LdapDoor, seen: Relay) -> None:
    """Row 53: of a stranger a header is octets that are no LDAP."""
    with door.client(STRANGER) as client:
        client.send(proxied("203.0.113.7"), bind(1, SERVICE, PASSWORDS[SERVICE]))
        assert [(one.is_notice, one.code) for one in client.rest()] in ([(True, PROTOCOL_ERROR)], [])
    assert seen.requests(BIND_REQUEST) == []


# Floods


def test_guesses_at_one_user_disturb_nobody_else(door: LdapDoor, seen: Relay, person: Person) -> None:
    """Row 48: 64 connections with wrong codes; 49 each time, and all others log in."""
    guesses = wrong_guesses(person, 6 * 64)
    codes: list[int] = []

    def guess(number: int) -> None:
        with door.client("127.0.7.9") as client:
            codes.extend(client.bind(dn_of(person.name), one).code for one in guesses[number::64])

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(64)]
    for one in threads:
        one.start()
    for _ in range(5):
        other = door.person()
        with door.client() as client:
            assert client.bind(dn_of(other.name), full(other)).code == SUCCESS
    for one in threads:
        one.join()

    assert codes == [INVALID_CREDENTIALS] * (6 * 64)
    with door.client() as client:
        assert client.bind(dn_of(person.name), full(person)).code == INVALID_CREDENTIALS, "guessing has made this user wait"
    assert len([one for one in seen.binds() if one[0] == dn_of(person.name)]) < 6 * 64, "who waits is not asked about"


def test_guesses_at_an_exempt_account_are_held_up(template: Mfad, setting: Setting, tmp_path: Path) -> None:
    """The core counts nothing for them: the door does, by source."""
    settings = {"exempt": EXEMPT, "limits": {"failed_binds": 3}}
    with ldap_door(template, tmp_path / "door", [setting.relay.url], people=1, door=settings) as door:
        seen = setting.relay.forget()
        with door.client("127.0.7.10") as client:
            for _ in range(20):
                assert client.bind(SERVICE, "guess").code == INVALID_CREDENTIALS
            assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == INVALID_CREDENTIALS
        assert len(seen.binds()) < 20
        with door.client("127.0.7.11") as client:
            assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS


# Reload and end


def test_reload_keeps_connections(template: Mfad, setting: Setting, tmp_path: Path) -> None:
    """Row 55: a hundred of them stand as they are; new ones get the new settings."""
    with ExitStack() as life:
        door = life.enter_context(
            ldap_door(template, tmp_path / "door", [setting.relay.url], people=4, door={"exempt": {"dn": SERVICE}})
        )
        old = [life.enter_context(door.client(f"127.0.8.{number // 50 + 1}")) for number in range(100)]
        for client in old:
            assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS

        door.change(exempt={}, separator="+")

        person = door.person()
        with door.client() as client:
            assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == INVALID_CREDENTIALS
            assert client.bind(dn_of(person.name), full(person, separator="+")).code == SUCCESS
        for client in old:
            assert client.whoami() == f"dn:{SERVICE}"
        assert door.mfad.running


def test_reload_with_a_mistake_changes_nothing(template: Mfad, setting: Setting, tmp_path: Path) -> None:
    """It is told, and the door goes on as it was."""
    settings = {"exempt": EXEMPT}
    with ldap_door(template, tmp_path / "door", [setting.relay.url], people=1, door=settings) as door:
        door.mfad.configure({**door.settings(), "doors": {"ldap": {**door.settings()["doors"]["ldap"], "upstream": []}}})
        door.mfad.signal_reload()
        wait_until(lambda: "upstream" in door.mfad.log(), "the mistake is told")
        with door.client() as client:
            assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS


def test_end_waits_for_what_is_under_way(template: Mfad, setting: Setting, tmp_path: Path) -> None:
    """Row 55: nobody new comes; a bind that is pending is answered; then everybody is told, with 52."""
    with ldap_door(template, tmp_path / "door", [setting.relay.url], people=1, door={"exempt": EXEMPT}) as door:
        seen, person = setting.relay.forget(), door.person()
        with door.client() as idle, door.client() as busy:
            assert idle.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
            busy.search("")
            seen.hold()
            busy.send(bind(5, dn_of(person.name), full(person)))
            wait_until(lambda: any(one[0] == dn_of(person.name) for one in seen.binds()), "the bind comes to the relay")
            assert door.mfad._program is not None
            door.mfad._program.send_signal(signal.SIGTERM)
            wait_until(lambda: refuses(door), "nobody new comes")
            seen.release()
            answer = busy.receive()
            assert (answer.number, answer.code) == (5, SUCCESS)
            for client in (busy, idle):
                assert [(one.is_notice, one.code) for one in client.rest()] == [(True, UNAVAILABLE)]
        assert door.mfad.stop() == 0


def refuses(door: LdapDoor) -> bool:
    """Whether nobody can connect."""
    with socket.socket() as probe:
        return probe.connect_ex(door.address) != 0


def test_two_workers_on_one_port(template: Mfad, setting: Setting, tmp_path: Path) -> None:
    """Both serve, and a code is good once, whoever is asked."""
    settings = {"exempt": EXEMPT, "workers": 2}
    with ldap_door(template, tmp_path / "door", [setting.relay.url], people=30, door=settings) as door:
        for _ in range(12):
            person = door.person()
            typed = full(person)
            codes = []
            for _ in range(3):
                with door.client() as client:
                    codes.append(client.bind(dn_of(person.name), typed).code)
            assert codes == [SUCCESS, INVALID_CREDENTIALS, INVALID_CREDENTIALS]
        clients = [door.client() for _ in range(16)]
        try:
            for client in clients:
                assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
        finally:
            for client in clients:
                client.close()


# What it tells


def test_each_bind_has_a_line(door: LdapDoor) -> None:
    """Who, from where, as which application, how it ended; accepted, refused, exempt, anonymous."""
    person, before = door.person(), len(door.logged())
    with door.client("127.0.7.20") as client:
        client.bind(dn_of(person.name), full(person))
        client.bind(dn_of(person.name), "wrong")
        client.bind(SERVICE, PASSWORDS[SERVICE])
        client.bind("", "")
        client.bind(dn_of(person.name), "")
    wait_until(lambda: len(door.logged()) >= before + 5, f"five lines: {door.logged()[before:]}")
    lines = door.logged()[before:]
    assert len(lines) == 5
    assert {one["source"] for one in lines} == {"127.0.7.20"}
    assert len({one["outcome"] for one in lines}) >= 3


def test_log_is_told_no_lies(door: LdapDoor) -> None:
    """A DN with line ends and escapes stays in its line."""
    with door.client() as client:
        for dn in ('uid=x\n{"outcome": "accepted"}', "uid=\x1b[31mred", 'uid="},{"', "uid=\u2028x"):
            client.bind(dn, "wrong,123456")
    wait_until(lambda: "red" in door.log_path.read_text(), "the bind log has them")
    text = door.log_path.read_text()
    assert "\x1b" not in text
    assert all(line.startswith("{") and line.endswith("}") for line in text.split("\n") if line)
    assert not door.logged(user="x", outcome="accepted")


def test_binds_are_counted(door: LdapDoor, person: Person) -> None:
    """Prometheus sees what happened, and no name of anybody."""
    with door.client() as client:
        client.bind(dn_of(person.name), full(person))
        client.bind(dn_of(person.name), "wrong")
    wait_until(lambda: "mfad_ldap" in door.metrics(), "the door's counters")
    text = door.metrics()
    assert person.name not in text
    assert re.search(r"(?m)^mfad_ldap\w*\{[^}]*\} [1-9]", text), text


def test_no_password_and_no_code_is_kept_anywhere(template: Mfad, setting: Setting, tmp_path: Path) -> None:
    """Row 52: the log at its most talkative, bind log, audit, metrics, state, command line and environment."""
    passwords = {
        "user": password_of("eight"),
        "service": PASSWORDS[SERVICE],
        "wrong": "a wrong password for the log",
        "clear": "a password inside garbage",
        "sasl": "a password inside SASL",
        "new": "a password that is set",
    }
    audit = tmp_path / "audit.json"
    with ldap_door(
        template, tmp_path / "door", [setting.relay.url], people=1,
        door={"exempt": EXEMPT, "remember": {"mode": "same_credential"}}, more={"audit": {"json_file": str(audit)}},
    ) as door:  # fmt: skip
        person = door.person("eight")
        codes = [person.next_code(), person.wrong_code()]
        dn = dn_of(person.name)
        with door.client() as client:
            client.bind(dn, f"{passwords['user']},{codes[1]}")
            client.bind(dn, f"{passwords['wrong']},{codes[0]}")
            client.bind(dn, passwords["user"])
            assert client.bind(dn, f"{passwords['user']},{codes[0]}").code == SUCCESS
            assert client.bind(dn, f"{passwords['user']},{codes[0]}").code == SUCCESS, "remembered"
            client.bind("no dn", f"{passwords['wrong']},{codes[0]}")
            client.bind(SERVICE, passwords["service"])
            client.bind(SERVICE, passwords["wrong"])
            client.ask(extended(9, "1.3.6.1.4.1.4203.1.11.1", b"0" + passwords["new"].encode()))
        for junk in (b"\x30\x80", b"", bind(1, dn, passwords["clear"])[:-3], b"\x60\x60"):
            with door.client() as client:
                client.send(junk + passwords["clear"].encode())
                client.socket.shutdown(socket.SHUT_WR)
                client.rest_or_nothing()
        wait_until(lambda: len(door.logged()) >= 8, "the binds are in the log")
        assert door.mfad._program is not None
        process = Path(f"/proc/{door.mfad._program.pid}")
        told = {"metrics": door.metrics().encode(), **{name: (process / name).read_bytes() for name in ("cmdline", "environ")}}
        alive = {path: path.read_bytes() for path in (door.mfad.log_path, door.log_path, audit)}
        door.mfad.stop()
    assert all(alive.values()), "each of them says something"
    files = [path for path in (tmp_path / "door").rglob("*") if path.is_file()] + [audit]
    told |= {str(path): path.read_bytes() for path in files if path != door.lookup_password}
    wanted = [one.encode() for one in [*passwords.values(), *codes]]
    wanted += [digest(one).encode() for one in wanted]
    for name, text in told.items():
        for secret in wanted:
            assert secret not in text, f"{secret!r} in {name}"


def digest(secret: bytes) -> str:
    """What would be as good as the secret, where secrets are short."""
    return hashlib.sha256(secret).hexdigest()


def test_search_after_reading_its_answer_in_part(door: LdapDoor, seen: Relay) -> None:
    """A client that leaves in the middle of an answer takes the connection to the directory with it."""
    client = door.client()
    assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
    client.send(search(9, BASE, scope=2))
    assert isinstance(client.receive(), Pdu)
    crossing = seen.crossing_of(SEARCH_REQUEST, number=9)
    client.reset()
    wait_until(lambda: crossing.is_left, "the door leaves the directory")
