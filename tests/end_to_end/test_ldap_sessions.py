"""Who is a connection, before, during and after binds? A refusal leaves nobody, and what waits runs as what the bind made."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.ldap_directory import ADMIN, BASE, PASSWORDS, SERVICE, THINGS, dn_of, password_of
from tests.end_to_end.ldap_door import Setting, full, ldap_setting, wrong_guesses
from tests.end_to_end.ldap_relay import Relay
from tests.end_to_end.ldap_wire import (
    BIND_REQUEST,
    BIND_RESPONSE,
    EXTENDED_RESPONSE,
    FAST_BIND,
    INSUFFICIENT_ACCESS,
    INVALID_CREDENTIALS,
    MODIFY_REQUEST,
    MODIFY_RESPONSE,
    PROTOCOL_ERROR,
    SEARCH_DONE,
    SEARCH_ENTRY,
    SEARCH_REQUEST,
    SUCCESS,
    VERIFY_CREDENTIALS,
    WHOAMI,
    Client,
    Pdu,
    abandon,
    bind,
    compare,
    control,
    extended,
    modify,
    sasl_bind,
    search,
    unbind,
)
from tests.end_to_end.programs import wait_until

SLOW = {"limits": {"bind": "5s"}, "health_interval": "10m"}
"""A directory that is held up is not looked at meanwhile: it would be taken for one that is away."""
AUTHORIZATION_DENIED = 123
"""RFC 4370 section 3."""


@pytest.fixture(scope="module")
def setting(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with ldap_setting(template, tmp_path_factory.mktemp("ldap"), door=SLOW) as one:
        yield one


@pytest.fixture
def seen(setting: Setting) -> Relay:
    """What the directory sees in this test."""
    return setting.relay.forget()


@pytest.fixture
def person(setting: Setting) -> Person:
    return setting.door.person()


def bind_service(client: Client) -> None:
    assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
    assert len(client.search(THINGS, scope=2)) > 10


REFUSED = {
    "wrong password": lambda person: bind(99, dn_of(person.name), f"wrong,{person.next_code()}"),
    "wrong code": lambda person: bind(99, dn_of(person.name), f"{password_of(person.name)},{person.wrong_code()}"),
    "no code": lambda person: bind(99, dn_of(person.name), password_of(person.name)),
    "code alone": lambda person: bind(99, dn_of(person.name), f",{person.next_code()}"),
    "no password": lambda person: bind(99, dn_of(person.name), ""),
    "nobody": lambda person: bind(99, dn_of("nobody-here"), full(person)),
    "no dn": lambda person: bind(99, "this is no dn", full(person)),
    "not UTF-8": lambda person: bind(99, b"uid=\xff\xfe," + BASE.encode(), full(person)),
    "version 2": lambda person: bind(99, dn_of(person.name), full(person), version=2),
    "SASL": lambda person: sasl_bind(99, "PLAIN", b"\0x\0y"),
    "exempt, wrong password": lambda person: bind(99, SERVICE, "wrong"),
    "empty name": lambda person: bind(99, "", "something"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_refused_bind_leaves_nobody(setting: Setting, person: Person, how: str) -> None:
    """Rows 15, 16 (RFC 4513 section 4): wherever it is refused, also the directory takes the session for anonymous."""
    with setting.door.client() as client:
        bind_service(client)
        answer = client.ask(REFUSED[how](person))
        assert (answer.number, answer.tag) == (99, BIND_RESPONSE)
        assert answer.code != SUCCESS
        assert [one.tag for one in client.search(THINGS, scope=2)] == [SEARCH_DONE]
        assert client.whoami() == ""
        bind_service(client)


def test_lockout_leaves_nobody(setting: Setting, person: Person) -> None:
    """Row 16: too many wrong codes."""
    with setting.door.client() as client:
        for wrong in wrong_guesses(person, 12):
            assert client.bind(dn_of(person.name), wrong).code == INVALID_CREDENTIALS
        bind_service(client)
        assert client.bind(dn_of(person.name), full(person)).code == INVALID_CREDENTIALS
        assert client.whoami() == ""


def test_service_user_service(setting: Setting, seen: Relay, person: Person) -> None:
    """Row 17: the pattern of PHP programs, on one connection."""
    with setting.door.client() as client:
        for dn, typed in ((SERVICE, PASSWORDS[SERVICE]), (dn_of(person.name), full(person)), (SERVICE, PASSWORDS[SERVICE])):
            assert client.bind(dn, typed).code == SUCCESS
            assert client.whoami() == f"dn:{dn}"


def test_search_behind_a_bind_in_one_segment(setting: Setting, person: Person) -> None:
    """Row 18: it runs as whom the bind made."""
    for typed, code, entries in ((full(person), SUCCESS, 1), (f"wrong,{person.wrong_code()}", INVALID_CREDENTIALS, 0)):
        with setting.door.client() as client:
            bind_service(client)
            client.send(bind(90, dn_of(person.name), typed), search(91, dn_of(person.name)), extended(92, WHOAMI))
            assert client.receive().code == code
            found = client.until(SEARCH_DONE, 91)
            assert [one.tag for one in found] == [SEARCH_ENTRY] * entries + [SEARCH_DONE]
            who = client.receive()
            assert who.tag == EXTENDED_RESPONSE
            assert (who.part(0x8B) or b"") == (f"dn:{dn_of(person.name)}".encode() if entries else b"")


@pytest.mark.parametrize("good", [True, False], ids=["accepted", "refused"])
def test_nothing_passes_while_a_bind_is_pending(setting: Setting, seen: Relay, person: Person, good: bool) -> None:
    """Row 19: a modification waits for the verdict, and is made as the user, or as nobody; never as who was bound before."""
    typed = full(person) if good else f"{password_of(person.name)},{person.wrong_code()}"
    with setting.door.client() as client:
        bind_service(client)
        seen.hold()
        try:
            client.send(
                bind(50, dn_of(person.name), typed),
                modify(51, dn_of(person.name), "userPassword", password_of(person.name)),
                search(52, THINGS),
            )
            wait_until(lambda: len(seen.requests(BIND_REQUEST)) == 2, "the bind comes to the relay")
            client.send(search(53, THINGS))
            assert client.is_silent()
            assert seen.requests(MODIFY_REQUEST) == []
            assert len(seen.requests(SEARCH_REQUEST)) == 1
        finally:
            seen.release()
        assert client.receive().code == (SUCCESS if good else INVALID_CREDENTIALS)
        answers: dict[int, Pdu] = {}
        while answers.keys() != {51, 52, 53}:
            one = client.receive()
            if one.tag in {MODIFY_RESPONSE, SEARCH_DONE}:
                answers[one.number] = one
        if good:
            assert answers[51].code == SUCCESS
        else:
            # strongerAuthRequired: slapd lets nobody modify; whatever it says, it is said to an anonymous session
            assert answers[51].code not in {SUCCESS, INSUFFICIENT_ACCESS}
    assert seen.requests(MODIFY_REQUEST)[0].number == 51
    # the connection on which the modification came: its last bind is the user's, or there was none
    before = [one for one in seen.crossing_of(MODIFY_REQUEST).requests() if one.tag == BIND_REQUEST]
    assert [one.name for one in before][-1:] == ([dn_of(person.name)] if good else [])


def test_searches_under_way_are_answered_around_a_bind(setting: Setting, person: Person) -> None:
    """RFC 4511 section 4.2.1: what was asked before the bind may be finished or given up, and the bind is answered."""
    with setting.door.client() as client:
        bind_service(client)
        client.send(search(60, BASE, scope=2), bind(61, dn_of(person.name), full(person)), search(62, dn_of(person.name)))
        found = client.until(SEARCH_DONE, 62)
        assert {one.number for one in found} <= {60, 61, 62}
        (answer,) = [one for one in found if one.tag == BIND_RESPONSE]
        assert answer.code == SUCCESS
        assert [one.tag for one in found if one.number == 62] == [SEARCH_ENTRY, SEARCH_DONE]


@pytest.mark.parametrize("how", ["unbind", "fin", "rst"])
def test_client_that_leaves_while_its_bind_is_pending(setting: Setting, seen: Relay, person: Person, how: str) -> None:
    """Rows 22, 23: the connection to the directory ends, nobody is let in, and no code is spent."""
    typed = full(person)
    client = setting.door.client()
    client.search("")
    seen.hold()
    try:
        client.send(bind(7, dn_of(person.name), typed))
        wait_until(lambda: seen.requests(BIND_REQUEST), "the bind comes to the relay")
        crossing = seen.crossing_of(BIND_REQUEST)
        if how == "rst":
            client.reset()
        elif how == "fin":
            client.close()
        else:
            client.send(unbind(8))
        wait_until(lambda: setting.door.logged(user=person.name), "the bind is given up, in the bind log")
    finally:
        seen.release()
    client.close()
    (line,) = setting.door.logged(user=person.name)
    assert line["outcome"] != "accepted"
    wait_until(lambda: crossing.is_left, "the door leaves the directory")
    with setting.door.client() as again:
        assert again.bind(dn_of(person.name), typed).code == SUCCESS


def test_bind_that_takes_too_long(setting: Setting, seen: Relay, person: Person) -> None:
    """Row 23: an answer of the directory that comes after the door's limit lets nobody in."""
    typed = full(person)
    with setting.door.client() as client:
        seen.hold()
        try:
            answer = client.bind(dn_of(person.name), typed)
        finally:
            seen.release()
        assert answer.code not in {SUCCESS, INVALID_CREDENTIALS}
        assert client.whoami() == ""
        assert client.bind(dn_of(person.name), typed).code == SUCCESS


def test_unbind_closes(setting: Setting, seen: Relay) -> None:
    """Both sides; nothing is answered."""
    with setting.door.client() as client:
        bind_service(client)
        client.send(unbind(30), search(31, BASE))
        assert client.rest() == []
    assert seen.requests(SEARCH_REQUEST)[-1].number != 31


def test_abandon_is_silent(setting: Setting) -> None:
    """And what comes behind it is answered."""
    with setting.door.client() as client:
        bind_service(client)
        client.send(abandon(40, 39), extended(41, WHOAMI))
        assert client.receive().number == 41


def test_abandon_of_a_pending_bind_changes_nothing(setting: Setting, seen: Relay, person: Person) -> None:
    """RFC 4511 section 4.11: a bind cannot be abandoned."""
    with setting.door.client() as client:
        client.search("")
        seen.hold()
        try:
            client.send(bind(44, dn_of(person.name), full(person)), abandon(45, 44))
            wait_until(lambda: seen.requests(BIND_REQUEST), "the bind comes to the relay")
        finally:
            seen.release()
        answer = client.receive()
        assert (answer.number, answer.code) == (44, SUCCESS)
        assert client.whoami() == f"dn:{dn_of(person.name)}"


def test_bind_on_the_way_is_not_another_connections(setting: Setting, seen: Relay, person: Person) -> None:
    """Nobody else waits, and nobody else is who is bound here."""
    with setting.door.client() as first, setting.door.client() as second:
        bind_service(first)
        assert second.whoami() == ""
        assert first.bind(dn_of(person.name), full(person)).code == SUCCESS
        assert second.whoami() == ""
        bind_service(second)
        assert first.whoami() == f"dn:{dn_of(person.name)}"


def test_application_that_searches_then_binds(setting: Setting, person: Person) -> None:
    """Row 59: one connection of the service's, one of the user's, and the service's goes on."""
    with setting.door.client() as service:
        bind_service(service)
        (found, _) = service.search(dn_of(person.name))
        with setting.door.client() as user:
            assert user.bind(found.name, full(person)).code == SUCCESS
            assert user.search(found.name)[0].name == found.name
        assert service.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
        bind_service(service)


def test_extended_operations_are_no_way_round(setting: Setting, seen: Relay) -> None:
    """Those that check passwords, one that nobody knows, and StartTLS behind our back never reach the directory."""
    for oid in (VERIFY_CREDENTIALS, FAST_BIND, "1.2.3.4"):
        for bound in (False, True):
            with setting.door.client() as client:
                if bound:
                    bind_service(client)
                answer = client.ask(extended(5, oid, b"\x80\x00"))
                assert (answer.tag, answer.number) == (EXTENDED_RESPONSE, 5)
                assert answer.code == PROTOCOL_ERROR
        assert oid.encode() not in seen.sent()


@pytest.mark.parametrize("oid", ["2.16.840.1.113730.3.4.18", "2.16.840.1.113730.3.4.12"])
@pytest.mark.parametrize("dn", [SERVICE, ""])
def test_nobody_is_somebody_else_by_a_control(setting: Setting, seen: Relay, oid: str, dn: str) -> None:
    """Proxied authorization (RFC 4370) is denied by default, on every operation, also where it is not critical."""
    for critical in (True, False):
        proxied = control(oid, f"dn:{ADMIN}".encode(), critical=critical)
        with setting.door.client() as client:
            assert client.bind(dn, PASSWORDS.get(dn, "")).code == SUCCESS
            assert client.search(BASE, controls=proxied)[-1].code == AUTHORIZATION_DENIED
            for request in (
                modify(70, BASE, "o", "taken over", controls=proxied),
                compare(70, BASE, "o", "example", controls=proxied),
                extended(70, WHOAMI, controls=proxied),
            ):
                assert client.ask(request).code == AUTHORIZATION_DENIED
    assert oid.encode() not in seen.sent()
