"""Metrics and the authentication log of a mfad that runs, with one process and with two."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.daemon import Mfad
from tests.end_to_end.programs import wait_until
from tests.end_to_end.radius_door import SECRET, Door, radius_door
from tests.end_to_end.radius_packets import (
    ACCT_SESSION_ID,
    ACCT_STATUS_TYPE,
    CALLING_STATION_ID,
    START,
    USER_NAME,
    Nas,
)
from tests.end_to_end.radius_programs import free_port

CLIENTS = [
    {"name": "vpn", "network": "127.0.0.1", "mode": "mfa_only"},
    {"name": "old", "network": "127.0.7.1", "mode": "mfa_only", "require_message_authenticator": "no"},
]
KEYS = {"time", "kind", "client", "nas", "user", "source", "outcome", "reason", "event", "milliseconds"}


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def door(request: pytest.FixtureRequest, template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    port = free_port()
    with radius_door(
        template, tmp_path_factory.mktemp("door"), CLIENTS,
        door={"workers": request.param},
        listen=("127.0.0.1:{auth}", "acct://127.0.0.1:{acct}"),
        ports={"auth": free_port(), "acct": free_port(), "tls": free_port(), "metrics": port},
        more={"metrics": {"listen": f"127.0.0.1:{port}"}},
    ) as one:  # fmt: skip
        yield one


def scrape(door: Door) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", door.ports["metrics"], timeout=20)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode()
    finally:
        connection.close()


def wait_for(door: Door, *wanted: str) -> None:
    """Workers tell what they counted each second."""
    wait_until(lambda: set(wanted) <= set(scrape(door).splitlines()), f"{wanted} in\n{scrape(door)}")


def test_logins_are_counted_and_clients_that_need_not_sign_are_seen(door: Door) -> None:
    """Whichever process served them."""
    person = door.person()
    code = person.next_code()
    with door.nas() as nas:
        assert nas.ask(nas.login(person.name, code)).what == "Accept"
        assert nas.ask(nas.login(person.name, code)).what == "Reject"
    with Nas(("127.0.0.1", door.ports["auth"]), SECRET.encode(), "127.0.7.9") as stranger:
        stranger.socket.send(b"x" * 20)

    wait_for(
        door,
        'mfad_radius_requests_total{client="vpn",kind="access"} 2.0',
        'mfad_radius_replies_total{client="vpn",outcome="accepted"} 1.0',
        'mfad_radius_replies_total{client="vpn",outcome="rejected"} 1.0',
        'mfad_radius_strangers_total{reason="unknown_client"} 1.0',
        'mfad_radius_client_requires_signature{client="vpn"} 1.0',
        'mfad_radius_client_requires_signature{client="old"} 0.0',
        "mfad_radius_in_flight 0.0",
    )


def test_reload_is_seen(door: Door) -> None:
    """A client that signs now."""
    door.change([CLIENTS[0], {**CLIENTS[1], "require_message_authenticator": "yes"}])
    try:
        wait_for(door, 'mfad_radius_client_requires_signature{client="old"} 1.0')
    finally:
        door.change(CLIENTS)


def test_authentication_log_has_the_lines_that_are_documented(door: Door) -> None:
    """The same keys whatever happened, and neither code nor secret."""
    person = door.person()
    code = person.next_code()
    with door.nas() as nas:
        nas.ask(nas.login(person.name, code, (CALLING_STATION_ID, b"198.51.100.7")))
        nas.ask(nas.login(person.name, code))
        nas.ask(nas.login(None, code))
    with door.nas(port="acct") as accounting:
        session = ((USER_NAME, person.name.encode()), (ACCT_STATUS_TYPE, START), (ACCT_SESSION_ID, b"5F3A"))
        assert accounting.ask(accounting.accounting(*session)).what == "Accounting-Response"

    accepted = door.wait_for_login(user=person.name, outcome="accepted")
    rejected = door.wait_for_login(user=person.name, outcome="rejected")
    refused = door.wait_for_login(reason="no_user_name")
    wait_until(lambda: door.logged(kind="accounting"), "the accounting line")
    (told,) = door.logged(kind="accounting", user=person.name)

    assert set(accepted) == set(rejected) == set(refused) == KEYS
    assert (accepted["client"], accepted["nas"], accepted["source"]) == ("vpn", "127.0.0.1", "198.51.100.7")
    assert accepted["reason"] == "totp"
    assert rejected["reason"] == "replayed"
    assert (refused["outcome"], refused["event"]) == ("rejected", "")
    assert door.mfad.mfactl_json("why", rejected["event"])[0]["reason"] == "replayed"
    assert (told["status"], told["session"]) == ("start", "5F3A")
    assert code not in Path(door.log_path).read_text()


def test_log_goes_on_after_it_was_rotated(door: Door) -> None:
    """Nobody needs to be told."""
    person = door.person()
    door.log_path.rename(door.log_path.with_suffix(".1"))
    with door.nas() as nas:
        nas.ask(nas.login(person.name, person.next_code()))

    assert door.wait_for_login(user=person.name)["outcome"] == "accepted"
    assert door.log_path.stat().st_mode & 0o007 == 0
