"""What does a real mfad answer to single datagrams, right ones and wrong ones? Ids are the rows of CASES-radius.md.

Every wrong packet carries a login that would be good, and goes to a client that need not sign where it can: what was
overlooked would be an Access-Accept.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.programs import wait_until
from tests.end_to_end.radius_door import SECRET, Door, radius_door
from tests.end_to_end.radius_packets import (
    ACCESS_ACCEPT,
    ACCESS_REQUEST,
    ACCT_STATUS_TYPE,
    CHAP_CHALLENGE,
    CHAP_PASSWORD,
    EAP_MESSAGE,
    MESSAGE_AUTHENTICATOR,
    NAS_IP_ADDRESS,
    NAS_PORT,
    PROXY_STATE,
    SILENCE,
    START,
    STATE,
    STATUS_SERVER,
    USER_NAME,
    USER_PASSWORD,
    Nas,
    attribute,
    chap,
    hidden,
    packet,
    signed,
)
from tests.radius_plugin.packet_vectors import SECRET as VECTOR_SECRET
from tests.radius_plugin.packet_vectors import Case, read_cases

STRICT, LAX, PROXIES, AUTO, NEVER, CHALLENGED = (f"127.0.1.{number}" for number in range(1, 7))
"""Clients by address: signs always; need not sign; and may forward without it; learns; gets no signature; asks for a code."""
CLIENTS = [
    {"name": "strict", "network": STRICT, "mode": "mfa_only"},
    {"name": "lax", "network": LAX, "mode": "mfa_only", "require_message_authenticator": "no"},
    {
        "name": "proxies",
        "network": PROXIES,
        "mode": "mfa_only",
        "require_message_authenticator": "no",
        "limit_proxy_state": False,
    },
    {"name": "auto", "network": AUTO, "mode": "mfa_only", "require_message_authenticator": "auto"},
    {"name": "never", "network": NEVER, "mode": "mfa_only", "reply_message_authenticator": "never"},
    {"name": "challenged", "network": CHALLENGED, "mode": "mfa_only", "empty_password": "challenge"},
]
IDENTIFIER, AUTHENTICATOR = 77, bytes(range(1, 17))
VENDOR = 26


@pytest.fixture(scope="module")
def door(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door for codes alone; mfad checks no passwords here."""
    with radius_door(template, tmp_path_factory.mktemp("door"), CLIENTS, people=100) as one:
        yield one


@pytest.fixture
def person(door: Door) -> Person:
    return door.person()


# Packets. Each is (nas, person) -> datagram.


def good(nas: Nas, person: Person) -> bytes:
    """A login that is accepted everywhere."""
    return nas.login(person.name, person.next_code())


def unsigned(nas: Nas, person: Person) -> bytes:
    """A login that is accepted where no signature is required."""
    return nas.login(person.name, person.next_code(), sign=False)


def body_of(nas: Nas, person: Person) -> bytes:
    name = attribute(USER_NAME, person.name.encode())
    return name + attribute(USER_PASSWORD, hidden(nas.secret, AUTHENTICATOR, person.next_code().encode()))


def with_length(length: int) -> Callable[[Nas, Person], bytes]:
    """A good login whose Length field is off by ``length``."""

    def make(nas: Nas, person: Person) -> bytes:
        raw = unsigned(nas, person)
        return raw[:2] + struct.pack("!H", len(raw) + length) + raw[4:]

    return make


def ending_in(tail: bytes) -> Callable[[Nas, Person], bytes]:
    """A good login with ``tail`` inside its Length."""
    return lambda nas, person: packet(ACCESS_REQUEST, nas.identifier(), AUTHENTICATOR, body_of(nas, person) + tail)


def of_size(size: int) -> Callable[[Nas, Person], bytes]:
    """A good, signed login of ``size`` octets."""

    def make(nas: Nas, person: Person) -> bytes:
        body = body_of(nas, person)
        left = size - 20 - 18 - len(body)
        while left:
            # no attribute of one octet may be left over
            part = min(left, 255) if left - min(left, 255) != 1 else 254
            body += attribute(200, bytes(part - 2))
            left -= part
        raw = signed(nas.secret, ACCESS_REQUEST, nas.identifier(), AUTHENTICATOR, body)
        assert len(raw) == size
        return raw

    return make


def with_more(count: int) -> Callable[[Nas, Person], bytes]:
    """A good, signed login with ``count`` attributes."""
    return lambda nas, person: signed(
        nas.secret,
        ACCESS_REQUEST,
        nas.identifier(),
        AUTHENTICATOR,
        body_of(nas, person) + attribute(NAS_PORT, bytes(4)) * (count - 3),
    )


def of_code(code: int) -> Callable[[Nas, Person], bytes]:
    return lambda nas, person: signed(nas.secret, code, nas.identifier(), AUTHENTICATOR, body_of(nas, person))


def with_hidden(octets: int) -> Callable[[Nas, Person], bytes]:
    """A User-Password of a size that no hiding gives, or of more than 128 octets."""

    def make(nas: Nas, person: Person) -> bytes:
        value = hidden(nas.secret, AUTHENTICATOR, person.next_code().encode() + bytes(144))[:octets]
        return nas.request([(USER_NAME, person.name.encode()), (USER_PASSWORD, value)], authenticator=AUTHENTICATOR)

    return make


def by_chap(nas: Nas, person: Person, *, challenge: bool, pap: bool = False) -> bytes:
    code = person.next_code().encode()
    authenticator = os.urandom(16)
    drawn = os.urandom(24) if challenge else authenticator
    attributes = [(USER_NAME, person.name.encode()), (CHAP_PASSWORD, chap(9, code, drawn))]
    attributes += [(CHAP_CHALLENGE, drawn)] if challenge else []
    attributes += [(USER_PASSWORD, hidden(nas.secret, authenticator, code))] if pap else []
    return nas.request(attributes, authenticator=authenticator)


def wrongly_signed(nas: Nas, person: Person) -> bytes:
    """Hidden with the right secret, signed with another."""
    return signed(b"another secret altogether", ACCESS_REQUEST, nas.identifier(), AUTHENTICATOR, body_of(nas, person))


def signed_twice(nas: Nas, person: Person) -> bytes:
    raw = unsigned(nas, person)
    tail = attribute(MESSAGE_AUTHENTICATOR, bytes(16))
    return signed(nas.secret, ACCESS_REQUEST, raw[1], raw[4:20], raw[20:] + tail)


def short_signature(nas: Nas, person: Person) -> bytes:
    return packet(
        ACCESS_REQUEST, nas.identifier(), AUTHENTICATOR, attribute(MESSAGE_AUTHENTICATOR, bytes(15)) + body_of(nas, person)
    )


EAP_IDENTITY = (EAP_MESSAGE, b"\2\1\0\6\1a")
SPEC: list[tuple[str, str, Callable[[Nas, Person], bytes], str]] = [
    ("1", STRICT, good, "Accept"),
    ("2-required", STRICT, unsigned, SILENCE),
    ("2-not-required", LAX, unsigned, "Accept"),
    ("3-padding", STRICT, lambda nas, person: good(nas, person) + b"\xff\0\x01", "Accept"),
    ("4-length-over-datagram", LAX, with_length(1), SILENCE),
    ("5-length-19", LAX, lambda nas, person: (raw := unsigned(nas, person))[:2] + b"\0\x13" + raw[4:], SILENCE),
    ("6-19-octets", LAX, lambda nas, person: unsigned(nas, person)[:19], SILENCE),
    ("6-empty", LAX, lambda _nas, _person: b"", SILENCE),
    ("7-attribute-of-0", LAX, ending_in(b"\x1a\0"), SILENCE),
    ("7-attribute-of-1", LAX, ending_in(b"\x1a\1"), SILENCE),
    ("8-overrun", LAX, ending_in(b"\x1a\6\0"), SILENCE),
    ("9-trailing-octet", LAX, ending_in(b"\x1a"), SILENCE),
    ("10-4096", STRICT, of_size(4096), "Accept"),
    ("10-4097", STRICT, of_size(4097), SILENCE),
    ("11-200-attributes", STRICT, with_more(200), "Accept"),
    ("11-250-attributes", STRICT, with_more(250), SILENCE),
    ("12-code-99", LAX, of_code(99), SILENCE),
    ("12-code-2", LAX, of_code(ACCESS_ACCEPT), SILENCE),
    ("12-accounting", LAX, lambda nas, _: nas.accounting((ACCT_STATUS_TYPE, START)), SILENCE),
    ("13-required", STRICT, wrongly_signed, SILENCE),
    ("13-not-required", LAX, wrongly_signed, SILENCE),
    ("13-twice", LAX, signed_twice, SILENCE),
    ("13-short", LAX, short_signature, SILENCE),
    (
        "15-wrong-secret",
        LAX,
        lambda nas, person: nas.login(person.name, person.next_code(), sign=False, secret=b"the wrong secret"),
        "Reject",
    ),
    (
        "16-eap-unsigned",
        LAX,
        lambda nas, person: nas.request([(USER_NAME, person.name.encode()), EAP_IDENTITY], sign=False),
        SILENCE,
    ),
    ("17-eap-and-password", STRICT, lambda nas, person: nas.login(person.name, person.next_code(), EAP_IDENTITY), SILENCE),
    ("18-15-octets", STRICT, with_hidden(15), "Reject"),
    ("18-17-octets", STRICT, with_hidden(17), "Reject"),
    ("19-144-octets", STRICT, with_hidden(144), "Reject"),
    ("20-blank", STRICT, lambda nas, person: nas.login(person.name, ""), "Reject"),
    (
        "20-no-octets",
        STRICT,
        lambda nas, person: nas.request([(USER_NAME, person.name.encode()), (USER_PASSWORD, b"")]),
        "Reject",
    ),
    ("21-no-name", STRICT, lambda nas, person: nas.login(None, person.next_code()), "Reject"),
    ("21-empty-name", STRICT, lambda nas, person: nas.login("", person.next_code()), "Reject"),
    ("22-no-password", STRICT, lambda nas, person: nas.request([(USER_NAME, person.name.encode())]), "Reject"),
    (
        "22-no-password-asks",
        CHALLENGED,
        lambda nas, person: nas.request([(USER_NAME, person.name.encode())]),
        "Challenge",
    ),
    ("22-empty-password-asks", CHALLENGED, lambda nas, person: nas.login(person.name, ""), "Challenge"),
    (
        "24-name-not-utf8",
        STRICT,
        lambda nas, person: nas.login(b"\xff\xfe\x1b[31m" + person.name.encode(), person.next_code()),
        "Reject",
    ),
    ("24-name-with-nul", STRICT, lambda nas, person: nas.login(person.name.encode() + b"\0x", person.next_code()), "Reject"),
    ("26-name-of-253", STRICT, lambda nas, person: nas.login("n" * 253, person.next_code()), "Reject"),
    (
        "29-proxied",
        STRICT,
        lambda nas, person: nas.login(person.name, person.next_code(), *[(PROXY_STATE, os.urandom(8))] * 3),
        "Accept",
    ),
    (
        "30-limited",
        LAX,
        lambda nas, person: nas.login(person.name, person.next_code(), (PROXY_STATE, b"x"), sign=False),
        SILENCE,
    ),
    (
        "30-not-limited",
        PROXIES,
        lambda nas, person: nas.login(person.name, person.next_code(), (PROXY_STATE, b"x"), sign=False),
        "Accept",
    ),
    (
        "31-unknown-state",
        STRICT,
        lambda nas, person: nas.login(person.name, person.next_code(), (STATE, os.urandom(24))),
        "Reject",
    ),
    ("33-chap", STRICT, lambda nas, person: by_chap(nas, person, challenge=True), "Accept"),
    ("33-chap-authenticator", STRICT, lambda nas, person: by_chap(nas, person, challenge=False), "Accept"),
    ("33-chap-and-pap", STRICT, lambda nas, person: by_chap(nas, person, challenge=True, pap=True), "Reject"),
    ("34-signed", LAX, lambda nas, _: nas.status(), "Accept"),
    ("34-unsigned", LAX, lambda nas, _: nas.request([], code=STATUS_SERVER, sign=False), SILENCE),
    (
        "35-zero-authenticator",
        STRICT,
        lambda nas, person: nas.login(person.name, person.next_code(), authenticator=bytes(16)),
        "Accept",
    ),
]


@pytest.mark.parametrize(
    ("source", "make", "expected"),
    [pytest.param(*rest, id=name) for name, *rest in SPEC],
)
def test_datagram_is_answered_as_the_table_says(
    door: Door, person: Person, source: str, make: Callable[[Nas, Person], bytes], expected: str
) -> None:
    """And in every case the daemon goes on to serve."""
    other = door.person()
    with door.nas(source) as nas:
        raw = make(nas, person)
        nas.send(raw)
        if expected != SILENCE:
            assert nas.receive(raw).what == expected
        # takes as long as an answer to the first would have taken
        assert nas.ask(nas.login(other.name, other.next_code())).what == "Accept"
        assert nas.stays_silent()


def test_nothing_but_silence_is_unsigned(door: Door, person: Person) -> None:
    """4.1 (b), (d), (f): the signature comes first in all codes; a replay changes nothing."""
    with door.nas(LAX) as lax:
        request = unsigned(lax, person)
        accept = lax.ask(request)
        again = lax.ask(request)
        reject = lax.ask(lax.login(person.name, person.wrong_code(), sign=False))
        status = lax.ask(lax.status())
    with door.nas(CHALLENGED) as nas:
        challenge = nas.ask(nas.login(person.name, ""))

    assert [one.what for one in (accept, reject, challenge, status)] == ["Accept", "Reject", "Challenge", "Accept"]
    assert all(one.signed_first for one in (accept, reject, challenge, status))
    assert again.raw == accept.raw


def test_signature_is_left_out_for_the_client_that_drops_it(door: Door, person: Person) -> None:
    """Rule 9: by that client's setting alone."""
    with door.nas(NEVER) as nas:
        heard = nas.ask(good(nas, person))

    assert heard.what == "Accept"
    assert not heard.all(MESSAGE_AUTHENTICATOR)


def test_client_that_has_signed_once_must_sign_from_then_on(door: Door, person: Person) -> None:
    """Rule 2, ``auto``: upwards only, and over a restart."""
    other = door.person()
    with door.nas(AUTO) as nas:
        assert nas.ask(unsigned(nas, person)).what == "Accept"
        assert nas.ask(nas.login(other.name, other.next_code())).what == "Accept"
        assert nas.is_silent(unsigned(nas, person))
        door.mfad.stop()
        door.mfad.start()
        third = door.person()
        assert nas.is_silent(unsigned(nas, third))
        assert nas.ask(nas.login(third.name, third.code_at(third.last_step))).what == "Accept"


def test_forged_signature_of_an_unknown_client_is_nobodys(door: Door, person: Person) -> None:
    """An address that no client has is not answered, whatever it knows."""
    with door.nas("127.0.9.9") as stranger, door.nas(STRICT) as nas:
        stranger.send(good(stranger, person))
        assert nas.stays_silent()
        stranger.socket.settimeout(0.05)
        with pytest.raises(TimeoutError):
            stranger.socket.recv(4096)
        # the code was not looked at
        assert nas.ask(nas.login(person.name, person.code_at(person.last_step))).what == "Accept"


def test_proxy_states_come_back_in_their_order(door: Door, person: Person) -> None:
    """Row 29, in a Reject as well."""
    states = [os.urandom(size) for size in (1, 253, 20)]
    with door.nas(STRICT) as nas:
        accept = nas.ask(nas.login(person.name, person.next_code(), *((PROXY_STATE, one) for one in states)))
        reject = nas.ask(nas.login(person.name, person.wrong_code(), *((PROXY_STATE, one) for one in states)))

    assert (accept.what, reject.what) == ("Accept", "Reject")
    assert accept.all(PROXY_STATE) == reject.all(PROXY_STATE) == states


def test_nothing_else_of_an_unsigned_request_is_echoed(door: Door, person: Person) -> None:
    """4.1 rule 7."""
    mark = os.urandom(16)
    with door.nas(PROXIES) as nas:
        more = [(PROXY_STATE, b"kept"), (NAS_IP_ADDRESS, mark[:4]), (VENDOR, b"\0\0\0\x09" + mark), (200, mark), (25, mark)]
        heard = nas.ask(nas.login(person.name, person.next_code(), *more, sign=False))

    assert heard.what == "Accept"
    assert heard.all(PROXY_STATE) == [b"kept"]
    assert mark[:4] not in heard.raw[20:].replace(b"kept", b"")


@pytest.mark.parametrize(
    "row", ["20-blank", "21-no-name", "22-no-password", "31-unknown-state", "33-chap-and-pap", "17-eap-and-password"]
)
def test_what_is_no_try_is_not_counted_and_spends_no_code(door: Door, person: Person, row: str) -> None:
    """Rows 17 to 33: nobody gets locked out by a packet that means nothing."""
    source, make = next((source, make) for name, source, make, _ in SPEC if name == row)
    with door.nas(source) as nas:
        nas.send(make(nas, person))
        nas.stays_silent()
        assert door.mfad.failures(person.name) == 0
        code = person.code_at(person.last_step) if person.last_step > 0 else person.next_code()
        assert nas.ask(nas.login(person.name, code)).what == "Accept"


def test_log_has_no_raw_octets_of_a_name_and_no_code(door: Door, person: Person) -> None:
    """Row 24."""
    with door.nas(STRICT) as nas:
        code = person.next_code()
        assert nas.ask(nas.login(b"\xff\xfe\x1b[31mnobody\n", code)).what == "Reject"
        assert nas.ask(nas.login(person.name, code)).what == "Accept"
    log = door.mfad.log_path.read_bytes()

    assert b"\x1b" not in log
    assert b"\xff\xfe" not in log
    assert code.encode() not in log
    assert SECRET.encode() not in log
    assert b"Traceback" not in log


def test_wrong_secret_is_named_in_the_log(door: Door, person: Person) -> None:
    """Row 15: the commonest mistake of an administrator is told to him, and to nobody else."""
    hint = "client lax whose passwords are no text: is its secret wrong"
    before = door.mfad.log().count(hint)
    with door.nas(LAX) as nas:
        heard = nas.ask(nas.login(person.name, person.next_code(), sign=False, secret=b"some other secret"))
        wait_until(lambda: door.mfad.log().count(hint) > before, "the log tells of the secret")
        before = door.mfad.log().count(hint)
        assert nas.ask(nas.login(person.name, person.wrong_code(), sign=False)).what == "Reject"

    assert heard.what == "Reject"
    assert "secret" not in heard.text
    assert door.mfad.log().count(hint) == before


def test_code_is_taken_once_whatever_the_packet(door: Door, person: Person) -> None:
    """Rows 37, 38: the same datagram gets the same octets; the same code in another packet, or as CHAP, is refused."""
    code = person.next_code()
    with door.nas(STRICT) as nas, door.nas(LAX) as other:
        request = nas.login(person.name, code)
        first, second, third = nas.ask(request), nas.ask(request), nas.ask(request)
        replayed = nas.ask(nas.login(person.name, code))
        elsewhere = other.ask(other.login(person.name, code))
        authenticator = os.urandom(16)
        by_chap_again = nas.ask(
            nas.request(
                [(USER_NAME, person.name.encode()), (CHAP_PASSWORD, chap(1, code.encode(), authenticator))],
                authenticator=authenticator,
            )
        )

    assert first.what == "Accept"
    assert first.raw == second.raw == third.raw
    assert [replayed.what, elsewhere.what, by_chap_again.what] == ["Reject"] * 3


def test_same_octets_from_another_port_are_another_request(door: Door, person: Person) -> None:
    """RFC 5080 section 2.2.2: who sniffs a datagram and sends it from elsewhere does not get its answer again."""
    with door.nas(STRICT) as nas, door.nas(STRICT) as thief:
        request = good(nas, person)
        assert nas.ask(request).what == "Accept"
        assert thief.ask(request).what == "Reject"


# Challenges without a password: the client has checked it


def ask_for_code(nas: Nas, person: Person) -> bytes:
    """The State of a challenge."""
    challenge = nas.ask(nas.login(person.name, ""))
    assert challenge.what == "Challenge"
    assert challenge.text
    return challenge.state


def test_challenge_is_answered_by_the_code(door: Door, person: Person) -> None:
    """Rows 22, 44: and a retransmitted answer gets the same reply."""
    with door.nas(CHALLENGED) as nas:
        state = ask_for_code(nas, person)
        request = nas.login(person.name, person.next_code(), (STATE, state))
        first, again = nas.ask(request), nas.ask(request)

    assert first.what == "Accept"
    assert not first.all(STATE)
    assert again.raw == first.raw


def test_state_is_no_ticket(door: Door, person: Person) -> None:
    """Row 42: used, altered, of somebody else, from another client. Each with a code that is good."""
    other = door.person()
    with door.nas(CHALLENGED) as nas, door.nas(STRICT) as elsewhere:
        used = ask_for_code(nas, person)
        assert nas.ask(nas.login(person.name, person.next_code(), (STATE, used))).what == "Accept"
        code = person.next_code()
        assert nas.ask(nas.login(person.name, code, (STATE, used))).what == "Reject"
        for name, state, at in (
            (other.name, ask_for_code(nas, person), nas),
            (person.name, ask_for_code(nas, person), elsewhere),
            (person.name, ask_for_code(nas, person)[:-1], nas),
            (person.name, ask_for_code(nas, person) + b"x", nas),
            (person.name, bytes(64), nas),
        ):
            one = other if name == other.name else person
            good_code = one.next_code() if one is other else code
            assert at.ask(at.login(name, good_code, (STATE, state))).what == "Reject"
        assert nas.ask(nas.login(person.name, code, (STATE, ask_for_code(nas, person)))).what == "Accept"


def test_wrong_code_gets_another_question_until_the_tries_are_used(door: Door, person: Person) -> None:
    """Row 43: a new State each time, three tries, then a Reject; and a dialogue with a wrong code in it can end well."""
    other = door.person()
    with door.nas(CHALLENGED) as nas:
        states = [ask_for_code(nas, person)]
        for _ in range(2):
            heard = nas.ask(nas.login(person.name, person.wrong_code(), (STATE, states[-1])))
            assert heard.what == "Challenge"
            states.append(heard.state)
        assert nas.ask(nas.login(person.name, person.wrong_code(), (STATE, states[-1]))).what == "Reject"
        assert len(set(states)) == 3

        heard = nas.ask(nas.login(other.name, other.wrong_code(), (STATE, ask_for_code(nas, other))))
        assert heard.what == "Challenge"
        assert nas.ask(nas.login(other.name, other.next_code(), (STATE, heard.state))).what == "Accept"


def test_challenge_outlives_the_daemon(door: Door, person: Person) -> None:
    """A restart, and a kill, between question and answer."""
    other = door.person()
    with door.nas(CHALLENGED) as nas:
        states = {one.name: ask_for_code(nas, one) for one in (person, other)}
        door.mfad.stop()
        door.mfad.start()
        assert nas.ask(nas.login(person.name, person.next_code(), (STATE, states[person.name]))).what == "Accept"
        door.mfad.kill()
        door.mfad.start()
        assert nas.ask(nas.login(other.name, other.next_code(), (STATE, states[other.name]))).what == "Accept"
        # spent stays spent
        assert nas.ask(nas.login(other.name, other.next_code(), (STATE, states[other.name]))).what == "Reject"


@pytest.mark.parametrize("size", [0, 1, 253])
def test_state_of_any_size_is_only_refused(door: Door, person: Person, size: int) -> None:
    """Row 31."""
    with door.nas(CHALLENGED) as nas:
        assert nas.ask(nas.login(person.name, person.next_code(), (STATE, os.urandom(size)))).what == "Reject"
    assert door.mfad.failures(person.name) == 0


# The packets that the codec is tested with, sent to a daemon


def _variant(case: Case) -> str:
    """The address of the client that a case wants. mfad is asked about somebody whom it does not know."""
    return f"127.0.5.{VARIANTS.index(case.client) + 1}"


VECTORS = read_cases()
VARIANTS: list[dict[str, object]] = []
for _case in VECTORS:
    if _case.client not in VARIANTS:
        VARIANTS.append(_case.client)


@pytest.fixture(scope="module")
def vector_door(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    clients = [
        {
            "name": f"variant{number}",
            "network": f"127.0.5.{number}",
            "secret": VECTOR_SECRET.decode(),
            "allow_weak_secret": True,
            **variant,
        }
        for number, variant in enumerate(VARIANTS, 1)
    ]
    with radius_door(template, tmp_path_factory.mktemp("vectors"), clients, door={"primary": {"type": "local"}}) as one:
        yield one


@pytest.mark.parametrize(
    "case",
    [pytest.param(one, id=f"{one.row}-{one.name}") for one in VECTORS],
)
def test_vector_is_answered_or_not(vector_door: Door, case: Case) -> None:
    """The codes in them were never right, so what would be accepted is rejected; Status-Server is accepted."""
    with vector_door.nas(_variant(case), secret=VECTOR_SECRET.decode()) as nas:
        nas.send(case.octets)
        if case.outcome == "silent":
            assert nas.ask(nas.login("nobody", "password123456")).what == "Reject"
            assert nas.stays_silent()
        else:
            heard = nas.receive(case.octets)
            assert heard.what == ("Accept" if case.octets[0] == STATUS_SERVER else "Reject")
            assert heard.signed_first
            assert heard.all(PROXY_STATE) == list(case.proxy_states)
