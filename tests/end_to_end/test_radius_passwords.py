"""Passwords that mfad itself keeps, typed in every way that clients have: with a code, beside it, before it, re-coded."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.radius_door import Door, radius_door
from tests.end_to_end.radius_packets import CHAP_PASSWORD, NAS_IP_ADDRESS, STATE, USER_NAME, Answer, chap

APPEND, SEPARATOR, AUTO, CHALLENGE, KEYWORD, LATIN, DEAF, REALM = (f"127.0.1.{number}" for number in range(1, 9))
CLIENTS = [
    {"name": "append", "network": APPEND, "mode": "concat"},
    {"name": "separator", "network": SEPARATOR, "mode": "concat", "split": "separator", "separator": ";"},
    {"name": "auto", "network": AUTO, "mode": "auto"},
    {"name": "challenge", "network": CHALLENGE, "mode": "challenge"},
    {"name": "keyword", "network": KEYWORD, "mode": "keyword"},
    {"name": "latin", "network": LATIN, "mode": "concat", "password_encoding": "latin-1"},
    {"name": "deaf", "network": DEAF, "mode": "auto", "challenges": False},
    {"name": "realm", "network": REALM, "mode": "concat", "realms": ["example.org", "CORP"]},
]
PASSWORD = "grün; 123456 pass,word"
"""Not ASCII, and with whatever is taken for a separator or a code."""


@pytest.fixture(scope="module")
def door(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with radius_door(template, tmp_path_factory.mktemp("door"), CLIENTS, door={"primary": {"type": "local"}}) as one:
        yield one


@pytest.fixture
def person(door: Door) -> Person:
    """Somebody with PASSWORD."""
    one = door.person()
    door.set_password(one.name, PASSWORD)
    return one


def ask(door: Door, source: str, name: str, typed: str | bytes) -> Answer:
    with door.nas(source) as nas:
        return nas.ask(nas.login(name, typed))


def scrv1(password: str, code: str) -> str:
    return f"SCRV1:{base64.b64encode(password.encode()).decode()}:{base64.b64encode(code.encode()).decode()}"


@pytest.mark.parametrize(
    ("source", "good", "bad"),
    [
        pytest.param(
            APPEND, "{password}{code}", ["{password}", "{code}", "{password},{code}", "x{password}{code}"], id="append"
        ),
        pytest.param(
            SEPARATOR, "{password};{code}", ["{password}", "{code}", "{password},{code}", "x{password};{code}"], id="separator"
        ),
        pytest.param(AUTO, "{password}{code}", ["x{password}{code}"], id="auto"),
        pytest.param(DEAF, "{password}{code}", ["{password}", "{code}", "x{password}{code}"], id="auto-without-challenges"),
        pytest.param(KEYWORD, "{password},{code}", ["{password}", "{code}", "x{password},{code}"], id="keyword"),
    ],
)
def test_only_password_and_code_in_the_right_form_let_in(
    door: Door, person: Person, source: str, good: str, bad: list[str]
) -> None:
    """Row 61: and what was not let in has spent no code."""
    code = person.next_code()

    def enter(form: str) -> str:
        return ask(door, source, person.name, form.format(password=PASSWORD, code=code)).what

    assert [enter(form) for form in bad] == ["Reject"] * len(bad)
    assert enter(good) == "Accept"
    assert enter(good) == "Reject"


@pytest.mark.parametrize("source", [APPEND, AUTO, DEAF, CHALLENGE])
def test_static_challenge_is_password_and_code(door: Door, person: Person, source: str) -> None:
    """Row 60."""
    code = person.next_code()

    assert ask(door, source, person.name, scrv1("x" + PASSWORD, code)).what == "Reject"
    assert ask(door, source, person.name, scrv1(PASSWORD, person.wrong_code())).what == "Reject"
    assert ask(door, source, person.name, scrv1(PASSWORD, code)).what == "Accept"
    assert ask(door, source, person.name, scrv1(PASSWORD, code)).what == "Reject"


@pytest.mark.parametrize(
    "typed", ["SCRV1:", "SCRV1::", "SCRV1:A:B", "SCRV1:!!!!:MTIz", "SCRV1:MTIz", "SCRV1:MTIz:MTIz:MTIz", "SCRV1:AAAA:AAAA"]
)
def test_broken_static_challenge_is_refused(door: Door, person: Person, typed: str) -> None:
    """Row 60."""
    assert ask(door, DEAF, person.name, typed).what == "Reject"


def test_password_of_a_client_with_another_encoding(door: Door) -> None:
    """Row 28: re-coded for the one client that says so; bytes that are no text there are refused."""
    person = door.person()
    door.set_password(person.name, "müller 9")
    typed = ("müller 9" + person.next_code()).encode("latin-1")

    assert ask(door, APPEND, person.name, typed).what == "Reject"
    assert ask(door, LATIN, person.name, typed).what == "Accept"


@pytest.mark.parametrize("source", [CHALLENGE, AUTO])
def test_password_then_code(door: Door, person: Person, source: str) -> None:
    """A wrong password gets no question; the answer is a code alone, and the State is the proof of the password."""
    with door.nas(source) as nas:
        assert nas.ask(nas.login(person.name, "x" + PASSWORD)).what == "Reject"
        challenge = nas.ask(nas.login(person.name, PASSWORD))
        assert challenge.what == "Challenge"
        assert nas.ask(nas.login(person.name, PASSWORD, (STATE, challenge.state))).what != "Accept"
        challenge = nas.ask(nas.login(person.name, PASSWORD))
        assert nas.ask(nas.login(person.name, person.next_code(), (STATE, challenge.state))).what == "Accept"


def test_unknown_user_is_not_asked_for_a_code(door: Door, person: Person) -> None:
    """He has no password; what he hears is what a wrong password hears."""
    unknown = ask(door, CHALLENGE, "nosuchuser", PASSWORD)
    wrong = ask(door, CHALLENGE, person.name, "x" + PASSWORD)

    assert (unknown.what, unknown.text) == (wrong.what, wrong.text) == ("Reject", wrong.text)
    assert [kind for kind, _ in unknown.attributes] == [kind for kind, _ in wrong.attributes]


def test_challenge_is_answered_by_chap_too(door: Door, person: Person) -> None:
    """Row 33: a code can be verified so; a password of ours cannot, and is refused."""
    with door.nas(CHALLENGE) as nas:

        def by_chap(word: str, *more: tuple[int, bytes]) -> bytes:
            drawn = bytes(range(16))
            attributes = [(USER_NAME, person.name.encode()), (CHAP_PASSWORD, chap(5, word.encode(), drawn)), *more]
            return nas.request(attributes, authenticator=drawn)

        assert nas.ask(by_chap(PASSWORD)).what == "Reject"
        challenge = nas.ask(nas.login(person.name, PASSWORD))
        assert nas.ask(by_chap(person.next_code(), (STATE, challenge.state))).what == "Accept"


@pytest.mark.parametrize("form", ["{}@example.org", "{}@EXAMPLE.org", "CORP\\{}", "{}"])
def test_realms_of_a_client_are_taken_off(door: Door, person: Person, form: str) -> None:
    name = form.format(person.name)

    assert ask(door, REALM, f"{name}@elsewhere.example", PASSWORD + person.wrong_code()).what == "Reject"
    assert ask(door, REALM, name, PASSWORD + person.next_code()).what == "Accept"


def test_nas_address_is_not_where_the_person_is(door: Door, person: Person) -> None:
    """The address of a client never stands in for the person's."""
    with door.nas(APPEND) as nas:
        one = nas.login(person.name, PASSWORD + person.next_code(), (NAS_IP_ADDRESS, bytes((192, 0, 2, 9))))
        assert nas.ask(one).what == "Accept"
    door.wait_for_login(user=person.name, outcome="accepted", source=None)


def test_password_stands_in_no_log(door: Door, person: Person) -> None:
    code = person.next_code()
    assert ask(door, APPEND, person.name, PASSWORD + code).what == "Accept"
    door.wait_for_login(user=person.name, outcome="accepted")
    for text in (door.mfad.log(), door.log_path.read_text(), door.mfad.mfactl("audit", "tail", "-n", "100")):
        assert "pass,word" not in text
        assert code not in text
