"""Logins whose password takes time: another RADIUS server is asked, and answers when the test lets it.

Here are the rows with something pending: copies of a request that is under way, retries that look new, backends that fail.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.radius_door import Door, radius_door
from tests.end_to_end.radius_packets import (
    ACCESS_ACCEPT,
    ACCESS_REJECT,
    ACCT_SESSION_ID,
    GRACE_S,
    NAS_IDENTIFIER,
    PROXY_STATE,
    REPLY_MESSAGE,
    STATE,
    Nas,
)
from tests.end_to_end.radius_upstream import Asked, Upstream

CONCAT, SEPARATOR, AUTO, CHALLENGE, JOINED, REFUSING, SILENT = (f"127.0.1.{number}" for number in range(1, 8))
CLIENTS = [
    {"name": "concat", "network": CONCAT, "mode": "concat"},
    {"name": "separator", "network": SEPARATOR, "mode": "concat", "split": "separator"},
    {"name": "auto", "network": AUTO, "mode": "auto"},
    {"name": "challenge", "network": CHALLENGE, "mode": "challenge"},
    {"name": "joined", "network": JOINED, "mode": "concat", "join_retries": True},
    {"name": "refusing", "network": REFUSING, "mode": "concat", "on_unavailable": "reject"},
]
PASSWORD = "pass,word 99"
SPENT = "the code is spent"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(b"the secret of the upstream") as one:
        yield one


@pytest.fixture(scope="module")
def door(template: Mfad, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    place = tmp_path_factory.mktemp("door")
    with radius_door(template, place / "mfad", CLIENTS, door={"primary": upstream.primary(place, dead_time="0s")}) as one:
        yield one


@pytest.fixture
def person(door: Door) -> Person:
    return door.person()


def test_same_datagram_while_it_is_under_way_is_asked_once(door: Door, upstream: Upstream, person: Person) -> None:
    """Row 36: three copies, one question, one answer; and row 37: another copy gets the same octets."""
    with door.nas(CONCAT) as nas:
        request = nas.login(person.name, PASSWORD + person.next_code())
        nas.send(request)
        asked = upstream.next()
        nas.send(request)
        nas.send(request)
        assert nas.stays_silent()
        upstream.answer(asked)
        first = nas.receive(request)
        assert nas.stays_silent()
        again = nas.ask(request)

    assert asked.password == PASSWORD.encode()
    assert first.what == "Accept"
    assert again.raw == first.raw
    assert not upstream.is_asked()


def test_other_request_with_the_same_identifier_takes_its_place(door: Door, upstream: Upstream, person: Person) -> None:
    """Row 39: nobody waits for the old one any more, and nothing is sent for it."""
    other = door.person()
    with door.nas(CONCAT) as nas:
        old = nas.login(person.name, PASSWORD + person.next_code(), identifier=9)
        new = nas.login(other.name, PASSWORD + other.next_code(), identifier=9)
        nas.send(old)
        first = upstream.next()
        nas.send(new)
        second = upstream.next()
        upstream.answer(first)
        upstream.answer(second)
        # checked against the authenticator of the new one
        assert nas.receive(new).what == "Accept"
        assert nas.stays_silent()


def login_of(nas: Nas, person: Person, code: str, session: bytes = b"5EED") -> bytes:
    return nas.login(person.name, PASSWORD + code, (NAS_IDENTIFIER, b"vpn"), (ACCT_SESSION_ID, session), identifier=3)


def test_retry_from_a_new_port_joins_what_is_under_way(door: Door, upstream: Upstream, person: Person) -> None:
    """Row 40: new port, new authenticator, same session. One question; the newest gets its own answer."""
    code = person.next_code()
    with door.nas(JOINED) as nas, door.nas(JOINED) as retry:
        first, second = login_of(nas, person, code), login_of(retry, person, code)
        nas.send(first)
        asked = upstream.next()
        retry.send(second)
        assert retry.stays_silent()
        assert not upstream.is_asked()
        upstream.answer(asked)
        assert retry.receive(second).what == "Accept"
        third = login_of(retry, person, code)
        assert retry.ask(third).what == "Accept", "just after its answer the same session is still the same login"
    assert not upstream.is_asked()


def test_retry_is_not_joined_where_it_is_not_wanted_or_not_the_same(door: Door, upstream: Upstream, person: Person) -> None:
    """Row 40: without the setting, and with it for another session, the code is spent."""
    code = person.next_code()
    with door.nas(CONCAT) as nas, door.nas(CONCAT) as retry:
        first, second = login_of(nas, person, code), login_of(retry, person, code)
        nas.send(first)
        upstream.answer(upstream.next())
        assert nas.receive(first).what == "Accept"
        retry.send(second)
        upstream.answer(upstream.next())
        assert retry.receive(second).what == "Reject", SPENT
    other = door.person()
    code = other.next_code()
    with door.nas(JOINED) as nas, door.nas(JOINED) as retry:
        first, second = login_of(nas, other, code), login_of(retry, other, code, b"0DD")
        nas.send(first)
        upstream.answer(upstream.next())
        assert nas.receive(first).what == "Accept"
        retry.send(second)
        upstream.answer(upstream.next())
        assert retry.receive(second).what == "Reject", SPENT


@pytest.mark.parametrize(
    ("source", "typed", "password"),
    [
        pytest.param(CONCAT, PASSWORD + "{code}", PASSWORD, id="61-append"),
        pytest.param(SEPARATOR, PASSWORD + ",{code}", PASSWORD, id="61-separator-in-the-password"),
        pytest.param(AUTO, "plain password{code}", "plain password", id="61-auto-append"),
        pytest.param(AUTO, PASSWORD + "{code}", PASSWORD, id="61-auto-append-with-a-separator"),
        pytest.param(AUTO, PASSWORD + ",{code}", PASSWORD, id="61-auto-separator"),
    ],
)
def test_password_and_code_are_told_apart(
    door: Door, upstream: Upstream, person: Person, source: str, typed: str, password: str
) -> None:
    with door.nas(source) as nas:
        request = nas.login(person.name, typed.format(code=person.next_code()))
        nas.send(request)
        asked = upstream.next()
        upstream.answer(asked)

        assert asked.password == password.encode()
        assert nas.receive(request).what == "Accept"
        assert not upstream.is_asked()


def test_eight_digits_are_a_code_of_whom_has_such(door: Door, upstream: Upstream) -> None:
    """Row 61."""
    eight = door.mfad.person("eight")
    with door.nas(CONCAT) as nas:
        request = nas.login(eight.name, PASSWORD + eight.next_code())
        nas.send(request)
        asked = upstream.next()
        upstream.answer(asked)

        assert nas.receive(request).what == "Accept"
        assert asked.password == PASSWORD.encode()


@pytest.mark.parametrize("source", [CONCAT, SEPARATOR, AUTO])
def test_wrong_password_is_asked_about_once(door: Door, upstream: Upstream, person: Person, source: str) -> None:
    """Row 62: never twice in other cuts, or a directory would lock its people out; and no code is spent by it."""
    code = person.next_code()
    glue = "," if source == SEPARATOR else ""
    with door.nas(source) as nas:
        request = nas.login(person.name, "not," + PASSWORD + glue + code)
        nas.send(request)
        upstream.answer(upstream.next(), ACCESS_REJECT, (REPLY_MESSAGE, b"the upstream says why"))
        refused = nas.receive(request)
        assert not upstream.is_asked()
        request = nas.login(person.name, PASSWORD + glue + code)
        nas.send(request)
        upstream.answer(upstream.next())
        assert nas.receive(request).what == "Accept"

    assert refused.what == "Reject"
    assert "upstream" not in refused.text
    assert door.mfad.failures(person.name) == 0


@pytest.mark.parametrize("source", [CHALLENGE, AUTO])
def test_password_first_and_the_code_when_asked(door: Door, upstream: Upstream, person: Person, source: str) -> None:
    """Row 43: the password is asked about once, in the first round; a wrong one is refused there."""
    with door.nas(source) as nas:
        wrong = nas.login(person.name, "wrong password")
        nas.send(wrong)
        upstream.answer(upstream.next(), ACCESS_REJECT)
        assert nas.receive(wrong).what == "Reject"

        right = nas.login(person.name, "right password")
        nas.send(right)
        upstream.answer(upstream.next())
        challenge = nas.receive(right)
        assert challenge.what == "Challenge"
        again = nas.ask(nas.login(person.name, person.wrong_code(), (STATE, challenge.state)))
        assert again.what == "Challenge"
        assert nas.ask(nas.login(person.name, person.next_code(), (STATE, again.state))).what == "Accept"
    assert not upstream.is_asked()


def test_answers_that_a_forger_could_make_are_no_answers(door: Door, upstream: Upstream, person: Person) -> None:
    """4.1 (e): a right Response Authenticator without a signature, or with a Proxy-State that nobody sent."""
    with door.nas(CONCAT) as nas:
        request = nas.login(person.name, PASSWORD + person.next_code())
        nas.send(request)
        asked = upstream.next()
        upstream.answer(asked, sign=False)
        upstream.answer(asked, ACCESS_ACCEPT, (PROXY_STATE, os.urandom(32)))
        upstream.answer(asked, ACCESS_ACCEPT, (PROXY_STATE, os.urandom(32)), sign=False)
        assert nas.stays_silent()
        upstream.answer(asked, ACCESS_REJECT)
        assert nas.receive(request).what == "Reject"


def test_broken_backend_is_silence_or_reject_as_the_client_wants(template: Mfad, upstream: Upstream, tmp_path: Path) -> None:
    """Row 47: nobody is let in, and the code is as good as before."""
    section = upstream.primary(tmp_path, timeout="1s", dead_time="0s")
    with radius_door(template, tmp_path / "mfad", CLIENTS, door={"primary": section}) as door:
        person = door.person()
        code = person.next_code()
        with door.nas(REFUSING) as nas:
            assert nas.ask(nas.login(person.name, PASSWORD + code)).what == "Reject"
            upstream.next()
        with door.nas(CONCAT) as nas:
            request = nas.login(person.name, PASSWORD + code)
            nas.send(request)
            upstream.next()
            # the refusal of another client, asked later and as long, marks the time
            with door.nas(REFUSING) as marker:
                assert marker.ask(marker.login(door.person().name, PASSWORD + "123456")).what == "Reject"
                upstream.next()
            assert nas.stays_silent()
            retry = nas.login(person.name, PASSWORD + code)
            nas.send(retry)
            upstream.answer(upstream.next())
            assert nas.receive(retry).what == "Accept"
        assert door.mfad.failures(person.name) == 0
        assert "Traceback" not in door.mfad.log()


@pytest.mark.parametrize("source", [CONCAT, SILENT])
def test_login_that_takes_too_long_is_ended_as_the_client_wants(
    template: Mfad, upstream: Upstream, tmp_path: Path, source: str
) -> None:
    """Row 46: Reject or silence; and what the backend says later lets nobody in."""
    with radius_door(
        template,
        tmp_path / "mfad",
        [{"name": "concat", "network": CONCAT}, {"name": "silent", "network": SILENT, "on_timeout": "silence"}],
        door={"primary": upstream.primary(tmp_path), "mode": "concat", "limits": {"decision": "1s"}},
    ) as door:
        person, other = door.person(), door.person()
        with door.nas(source) as nas, door.nas(CONCAT) as marker:
            request = nas.login(person.name, PASSWORD + person.next_code())
            nas.send(request)
            held = upstream.next()
            if source == SILENT:
                # asked after it, ended after it
                assert marker.ask(marker.login(other.name, PASSWORD + other.next_code())).what == "Reject"
                upstream.next()
            else:
                assert nas.receive(request).what == "Reject"
            upstream.answer(held)
            assert nas.stays_silent()
            again = nas.login(person.name, PASSWORD + person.next_code())
            nas.send(again)
            upstream.answer(upstream.next())
            assert nas.receive(again).what == "Accept"


def test_door_that_is_full_is_silent_and_serves_when_there_is_room(template: Mfad, upstream: Upstream, tmp_path: Path) -> None:
    """A client's next server is better than a queue. Half of the room is for one client: others still have the rest of it."""
    with (
        radius_door(
            template,
            tmp_path / "mfad",
            CLIENTS,
            door={"primary": upstream.primary(tmp_path), "limits": {"in_flight": 4}},
        ) as door,
        door.nas(CONCAT) as nas,
        door.nas(REFUSING) as elsewhere,
    ):
        people, other = [door.person() for _ in range(3)], door.person()
        requests = [nas.login(one.name, PASSWORD + one.next_code()) for one in people]
        held: list[Asked] = []
        for request in requests[:2]:
            nas.send(request)
            held.append(upstream.next())
        nas.send(requests[0])
        nas.send(requests[2])
        assert nas.stays_silent()
        assert not upstream.is_asked()
        request = elsewhere.login(other.name, PASSWORD + other.next_code())
        elsewhere.send(request)
        upstream.answer(upstream.next())
        assert elsewhere.receive(request).what == "Accept"
        for asked, request in zip(held, requests, strict=False):
            upstream.answer(asked)
            assert nas.receive(request).what == "Accept"
        nas.send(requests[2])
        upstream.answer(upstream.next())
        assert nas.receive(requests[2]).what == "Accept"


def test_reload_meanwhile_changes_nothing_for_what_is_under_way(template: Mfad, upstream: Upstream, tmp_path: Path) -> None:
    """A request keeps the settings, and the secret, that it began with."""
    with (
        radius_door(template, tmp_path / "mfad", CLIENTS, door={"primary": upstream.primary(tmp_path)}) as door,
        door.nas(CONCAT) as nas,
    ):
        person = door.person()
        request = nas.login(person.name, PASSWORD + person.next_code())
        nas.send(request)
        held = upstream.next()
        door.change([{**CLIENTS[0], "secret": "quite-another-secret"}, *CLIENTS[1:]])
        upstream.answer(held)

        assert nas.receive(request).what == "Accept"


def test_slow_password_of_one_holds_up_nobody_else(door: Door, upstream: Upstream, person: Person) -> None:
    """Another client, and another person of the same client."""
    other, third = door.person(), door.person()
    with door.nas(CONCAT) as nas, door.nas(SEPARATOR) as elsewhere:
        slow = nas.login(person.name, PASSWORD + person.next_code())
        nas.send(slow)
        held = upstream.next()
        for one, who, glue in ((nas, other, ""), (elsewhere, third, ",")):
            quick = one.login(who.name, PASSWORD + glue + who.next_code())
            one.send(quick)
            upstream.answer(upstream.next())
            assert one.receive(quick).what == "Accept"
        upstream.answer(held)
        assert nas.receive(slow).what == "Accept"


def test_daemon_stops_while_an_answer_is_awaited(template: Mfad, upstream: Upstream, tmp_path: Path) -> None:
    """Nobody is let in by it, and the stop is clean."""
    with (
        radius_door(template, tmp_path / "mfad", CLIENTS, door={"primary": upstream.primary(tmp_path)}) as door,
        door.nas(CONCAT) as nas,
    ):
        person = door.person()
        nas.send(nas.login(person.name, PASSWORD + person.next_code()))
        held = upstream.next()
        assert door.mfad.stop() == 0
        upstream.answer(held)
        nas.socket.settimeout(GRACE_S)
        try:
            heard = nas.socket.recv(4096)[0]
        except (TimeoutError, ConnectionRefusedError):
            heard = 0
        assert heard != ACCESS_ACCEPT
        assert "Traceback" not in door.mfad.log()
