"""Applications that bind again and again with what somebody typed once: for whom is it good, and what ends it?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.ldap_directory import ADMIN, PASSWORDS, dn_of, password_of
from tests.end_to_end.ldap_door import LdapDoor, Setting, full, ldap_setting
from tests.end_to_end.ldap_relay import Relay
from tests.end_to_end.ldap_wire import INVALID_CREDENTIALS, SUCCESS, Client, modify
from tests.end_to_end.programs import wait_until

SAME, ONLY, SHORT, THRICE, ANYWHERE, NOWHERE = (f"127.0.6.{number}" for number in range(2, 8))
"""Applications: the same text, the password alone, for a second, three times, from both of two addresses, never."""
ELSEWHERE = "127.0.6.20"
APPLICATIONS = [
    {"name": "same", "network": SAME, "remember": {"mode": "same_credential", "ttl": "10m"}},
    {"name": "only", "network": ONLY, "remember": {"mode": "password_only", "ttl": "10m"}},
    {"name": "short", "network": SHORT, "remember": {"mode": "same_credential", "ttl": "1s"}},
    {"name": "thrice", "network": THRICE, "remember": {"mode": "same_credential", "ttl": "10m", "max_uses": 3}},
    {
        "name": "anywhere",
        "network": [ANYWHERE, ELSEWHERE],
        "remember": {"mode": "same_credential", "scope": "listener", "ttl": "10m"},
    },
]


@pytest.fixture(scope="module")
def setting(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with ldap_setting(template, tmp_path_factory.mktemp("ldap"), door={"applications": APPLICATIONS}) as one:
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


def code_of(door: LdapDoor, source: str, person: Person, typed: str) -> int:
    """What one bind over a new connection ends in."""
    with door.client(source) as client:
        answer = client.bind(dn_of(person.name), typed)
        assert client.whoami() == (f"dn:{dn_of(person.name)}" if answer.code == SUCCESS else "")
        return answer.code


def test_same_text_is_good_again(door: LdapDoor, seen: Relay, person: Person) -> None:
    """Rows 4, 59. The directory is asked each time."""
    typed = full(person)
    assert [code_of(door, SAME, person, typed) for _ in range(5)] == [SUCCESS] * 5
    assert seen.binds() == [(dn_of(person.name), password_of(person.name).encode())] * 5


def test_what_is_remembered_for_one_is_not_for_another(door: LdapDoor, person: Person) -> None:
    """Row 4: neither from another address, nor of another application, nor another user's, nor another text."""
    typed = full(person)
    assert code_of(door, SAME, person, typed) == SUCCESS
    other = door.person()
    assert code_of(door, NOWHERE, person, typed) == INVALID_CREDENTIALS
    assert code_of(door, ONLY, person, typed) == INVALID_CREDENTIALS
    assert code_of(door, SAME, other, typed) == INVALID_CREDENTIALS
    assert code_of(door, SAME, other, f"{password_of(other.name)},{typed.rpartition(',')[2]}") == INVALID_CREDENTIALS


def test_password_alone_is_not_remembered_where_the_text_is(door: LdapDoor, person: Person) -> None:
    assert code_of(door, SAME, person, full(person)) == SUCCESS
    assert code_of(door, SAME, person, password_of(person.name)) == INVALID_CREDENTIALS


def test_password_alone_is_good_where_that_is_configured(door: LdapDoor, person: Person) -> None:
    """Row 59: Nextcloud's clients, which keep the password. Not before a code was shown, and not another password."""
    assert code_of(door, ONLY, person, password_of(person.name)) == INVALID_CREDENTIALS
    assert code_of(door, ONLY, person, full(person)) == SUCCESS
    assert [code_of(door, ONLY, person, password_of(person.name)) for _ in range(3)] == [SUCCESS] * 3
    assert code_of(door, ONLY, person, "another password") == INVALID_CREDENTIALS
    assert code_of(door, ONLY, person, password_of(person.name)) == INVALID_CREDENTIALS, "a refusal ends it"


def test_scope_of_a_listener(door: LdapDoor, person: Person) -> None:
    """Several machines of one application."""
    typed = full(person)
    assert code_of(door, ANYWHERE, person, typed) == SUCCESS
    assert code_of(door, ELSEWHERE, person, typed) == SUCCESS
    assert code_of(door, SAME, person, typed) == INVALID_CREDENTIALS


def test_so_many_times(door: LdapDoor, person: Person) -> None:
    """After the first one, three."""
    typed = full(person)
    assert [code_of(door, THRICE, person, typed) for _ in range(5)] == [SUCCESS] * 4 + [INVALID_CREDENTIALS]


def test_so_long(door: LdapDoor, person: Person) -> None:
    """Row 49: then a code is wanted again."""
    typed = full(person)
    assert code_of(door, SHORT, person, typed) == SUCCESS
    wait_until(lambda: code_of(door, SHORT, person, typed) == INVALID_CREDENTIALS, "it is forgotten")
    assert code_of(door, SHORT, person, full(person)) == SUCCESS


def test_password_that_the_directory_no_longer_takes(setting: Setting, door: LdapDoor, person: Person) -> None:
    """Row 49: at once; and it is over also when the old password comes back."""
    typed = full(person)
    assert code_of(door, SAME, person, typed) == SUCCESS
    change_password(setting, person, "a new one")
    assert code_of(door, SAME, person, typed) == INVALID_CREDENTIALS
    change_password(setting, person, password_of(person.name))
    assert code_of(door, SAME, person, typed) == INVALID_CREDENTIALS


def change_password(setting: Setting, person: Person, new: str) -> None:
    with Client(setting.straight) as admin:
        assert admin.bind(ADMIN, PASSWORDS[ADMIN]).code == SUCCESS
        assert admin.ask(modify(5, dn_of(person.name), "userPassword", new)).code == SUCCESS


@pytest.mark.parametrize("words", [("user", "lock"), ("user", "reset")], ids=" ".join)
def test_what_an_administrator_does_ends_it(door: LdapDoor, person: Person, words: tuple[str, str]) -> None:
    """Row 49: a user who is locked, and one whose authenticator is taken away."""
    typed = full(person)
    assert code_of(door, SAME, person, typed) == SUCCESS
    door.mfad.mfactl(*words, person.name)
    assert code_of(door, SAME, person, typed) == INVALID_CREDENTIALS


def test_failures_are_not_remembered(door: LdapDoor, person: Person) -> None:
    """Row 50."""
    wrong = f"{password_of(person.name)},{person.wrong_code()}"
    assert [code_of(door, SAME, person, wrong) for _ in range(2)] == [INVALID_CREDENTIALS] * 2
    assert code_of(door, SAME, person, full(person)) == SUCCESS


def test_nothing_outlives_the_process(template: Mfad, setting: Setting, door: LdapDoor, person: Person) -> None:
    """Row 49: the key of what is remembered is in no file."""
    typed = full(person)
    assert code_of(door, SAME, person, typed) == SUCCESS
    door.mfad.stop()
    door.mfad.start()
    assert code_of(door, SAME, person, typed) == INVALID_CREDENTIALS
    assert code_of(door, SAME, person, full(person)) == SUCCESS
