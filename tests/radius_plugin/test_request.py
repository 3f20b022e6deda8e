"""What does an Access-Request ask? Every mode, first factor and credential; names, realms, encodings, places."""

from __future__ import annotations

import base64
import ipaddress
import itertools
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.model import Door, FirstFactor, Grammar, Interaction, SplitMode
from mfa_core.secret import Secret
from radius_plugin.authenticators import SharedSecret
from radius_plugin.request import Login, RequestRefused, Unasked, read_login, without_realm
from radius_plugin.settings import AttributeName, ClientSettings, EmptyPassword, Mode, Split
from radius_plugin.state import KEY_SIZE, Carried, StateSeal
from radius_plugin.wire import parse
from tests.doubles import T0
from tests.end_to_end.radius_packets import (
    CALLING_STATION_ID,
    CHAP_CHALLENGE,
    CHAP_PASSWORD,
    EAP_MESSAGE,
    STATE,
    USER_NAME,
    USER_PASSWORD,
    Attribute,
    chap,
    hidden,
)
from tests.radius_plugin.door_doubles import NAS, SECRET, login, new_authenticator, request

SEAL = StateSeal([Secret(bytes(KEY_SIZE))], random=os.urandom)
CLIENT = ClientSettings("vpn", ipaddress.ip_network(NAS), (Secret(SECRET),))
CHALLENGE_ID = "01HV0000000000000000000000"
OURS, DONE, ELSEWHERE = FirstFactor.OURS, FirstFactor.DONE, FirstFactor.ELSEWHERE
ONE_SHOT, CHALLENGES = Interaction.ONE_SHOT, Interaction.CHALLENGES
OTP_ONLY = Grammar(SplitMode.OTP_ONLY)


def read(octets: bytes, client: ClientSettings = CLIENT, *, now: float = T0) -> Login:
    return read_login(
        parse(octets), client, SharedSecret(Secret(SECRET)), address=NAS, seal=SEAL, now=now, event_id="0" * 26
    )


def refusal(octets: bytes, client: ClientSettings = CLIENT, *, now: float = T0) -> Unasked:
    with pytest.raises(RequestRefused) as refused:
        read(octets, client, now=now)
    return refused.value.why


def typed(one: Login) -> bytes | None:
    return None if one.attempt.typed is None else one.attempt.typed.reveal()


def state(
    *, done: bool = False, name: bytes = b"alice", address: str = NAS, client: str = "vpn", until: float = T0 + 60
) -> bytes:
    return SEAL.seal(Carried(CHALLENGE_ID, int(until), 1, done), client=f"{client}|{address}", user_name=name)


def by_chap(code: bytes = b"123456", *more: Attribute, challenge: bytes | None = b"c" * 16) -> bytes:
    one = new_authenticator()
    digest = chap(7, code, one if challenge is None else challenge)
    beside = [] if challenge is None else [(CHAP_CHALLENGE, challenge)]
    return request((USER_NAME, b"alice"), (CHAP_PASSWORD, digest), *beside, *more, authenticator=one)


# Modes


@pytest.mark.parametrize("first", FirstFactor)
@pytest.mark.parametrize("challenges", [True, False])
@pytest.mark.parametrize(
    ("mode", "split", "grammar", "asks"),
    [
        (Mode.AUTO, Split.APPEND, SplitMode.AUTO, True),
        (Mode.CONCAT, Split.APPEND, SplitMode.APPEND, False),
        (Mode.CONCAT, Split.SEPARATOR, SplitMode.SEPARATOR, False),
        (Mode.CHALLENGE, Split.APPEND, SplitMode.PASSWORD, True),
        (Mode.MFA_ONLY, Split.APPEND, SplitMode.OTP_ONLY, False),
        (Mode.KEYWORD, Split.APPEND, SplitMode.KEYWORD, False),
    ],
)
def test_a_typed_password_is_read_as_the_mode_says(
    mode: Mode, split: Split, grammar: SplitMode, asks: bool, first: FirstFactor, challenges: bool
) -> None:
    client = replace(CLIENT, mode=mode, split=split, separator=";", challenges=challenges, first_factor=first)
    one = read(login("alice", "secret;123456"), client)
    attempt = one.attempt
    assert typed(one) == b"secret;123456"
    assert attempt.grammar.mode is grammar
    if grammar in {SplitMode.SEPARATOR, SplitMode.KEYWORD, SplitMode.AUTO}:
        assert attempt.grammar.separator == ";"
    assert attempt.interaction is (CHALLENGES if asks and challenges else ONE_SHOT)
    assert attempt.first_factor is (ELSEWHERE if mode is Mode.MFA_ONLY and first is OURS else first)
    assert not attempt.grammar_is_final, "a policy rule may say otherwise"
    assert (attempt.door, attempt.service, attempt.client) == (Door.RADIUS, "vpn", "vpn")
    assert (attempt.challenge_id, attempt.challenge_until, one.carried) == ("", 0.0, None)


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("first", FirstFactor)
@pytest.mark.parametrize("challenges", [True, False])
@pytest.mark.parametrize("empty", EmptyPassword)
@pytest.mark.parametrize("octets", [login("alice", ""), request((USER_NAME, b"alice"))], ids=["empty", "none"])
def test_an_empty_password_may_only_ask(
    octets: bytes, empty: EmptyPassword, challenges: bool, first: FirstFactor, mode: Mode
) -> None:
    """Rows 20, 22: and where the password is ours to check, leaving it out does not skip it."""
    client = replace(CLIENT, mode=mode, first_factor=first, challenges=challenges, empty_password=empty)
    if empty is EmptyPassword.CHALLENGE and challenges and first is not OURS:
        attempt = read(octets, client).attempt
        assert attempt.typed is None
        assert attempt.interaction is CHALLENGES
        assert attempt.first_factor is first
    else:
        assert refusal(octets, client) is Unasked.NO_CREDENTIAL


# Answers to challenges


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("first", FirstFactor)
@pytest.mark.parametrize("done", [True, False])
def test_the_answer_to_a_challenge_is_a_code_and_what_was_proved_is_in_the_state(
    done: bool, first: FirstFactor, mode: Mode
) -> None:
    """What the client's settings say of the first factor now does not matter: the State knows what was checked."""
    client = replace(CLIENT, mode=mode, first_factor=first)
    attempt = read(login("alice", "123456", (STATE, state(done=done))), client).attempt
    assert attempt.first_factor is (DONE if done else ELSEWHERE)
    assert attempt.grammar == OTP_ONLY
    assert attempt.grammar_is_final
    assert attempt.interaction is CHALLENGES
    assert (attempt.challenge_id, attempt.challenge_until) == (CHALLENGE_ID, T0 + 60)


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (state(name=b"bob"), Unasked.UNKNOWN_CHALLENGE),
        (state(name=b"Alice"), Unasked.UNKNOWN_CHALLENGE),
        (state(address="192.0.2.10"), Unasked.UNKNOWN_CHALLENGE),
        (state(client="other"), Unasked.UNKNOWN_CHALLENGE),
        (state(until=T0), Unasked.EXPIRED_CHALLENGE),
        (b"", Unasked.UNKNOWN_CHALLENGE),
        (bytes(51), Unasked.UNKNOWN_CHALLENGE),
        (state()[:-1], Unasked.UNKNOWN_CHALLENGE),
        (state() + b"x", Unasked.UNKNOWN_CHALLENGE),
    ],
    ids=["other name", "other case", "other address", "other client", "over", "empty", "zeros", "short", "long"],
)
def test_another_state_asks_nothing(octets: bytes, why: Unasked) -> None:
    assert refusal(login("alice", "123456", (STATE, octets))) is why


def test_of_two_states_the_first_counts_and_the_second_mends_nothing() -> None:
    assert refusal(login("alice", "1", (STATE, b"other"), (STATE, state()))) is Unasked.UNKNOWN_CHALLENGE
    assert read(login("alice", "1", (STATE, state()), (STATE, b"other"))).carried is not None


@pytest.mark.parametrize(
    "octets",
    [login("alice", "", (STATE, state())), request((USER_NAME, b"alice"), (STATE, state()))],
    ids=["empty password", "no password"],
)
def test_an_empty_answer_is_no_new_question(octets: bytes) -> None:
    assert refusal(octets, replace(CLIENT, empty_password=EmptyPassword.CHALLENGE)) is Unasked.NO_CREDENTIAL


# CHAP (row 33)


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("first", FirstFactor)
def test_chap_is_for_a_code_alone(mode: Mode, first: FirstFactor) -> None:
    client = replace(CLIENT, mode=mode, first_factor=first)
    if mode is Mode.MFA_ONLY or (mode is Mode.AUTO and first is not OURS):
        attempt = read(by_chap(), client).attempt
        assert attempt.veiled is not None
        assert attempt.veiled("123456")
        assert not attempt.veiled("123457")
        assert attempt.grammar_is_final
        assert attempt.interaction is ONE_SHOT
        assert attempt.first_factor is (DONE if first is DONE else ELSEWHERE)
        assert read(by_chap(challenge=None), client).attempt.veiled("123456")  # type: ignore[misc]  # the authenticator
    else:
        assert refusal(by_chap(), client) is Unasked.CHAP_NOT_POSSIBLE


@pytest.mark.parametrize("mode", Mode)
def test_a_challenge_may_be_answered_by_chap_in_every_mode(mode: Mode) -> None:
    attempt = read(by_chap(b"123456", (STATE, state())), replace(CLIENT, mode=mode, first_factor=OURS)).attempt
    assert attempt.veiled is not None
    assert attempt.interaction is CHALLENGES
    assert attempt.challenge_id == CHALLENGE_ID


@pytest.mark.parametrize("size", [0, 1, 16, 18])
def test_a_chap_password_of_another_size_is_refused(size: int) -> None:
    assert refusal(request((USER_NAME, b"alice"), (CHAP_PASSWORD, bytes(size)))) is Unasked.BAD_CREDENTIAL


SECOND = (USER_PASSWORD, bytes(16))


@pytest.mark.parametrize(
    "octets",
    [
        by_chap(b"123456", SECOND),
        by_chap(b"123456", (CHAP_PASSWORD, bytes(17))),
        login("alice", "123456", SECOND),
        login("alice", "123456", SECOND, SECOND, (CHAP_PASSWORD, bytes(17))),
    ],
    ids=["both", "chap-twice", "pap-twice", "all"],
)
@pytest.mark.parametrize("mode", Mode)
def test_several_credentials_are_none(octets: bytes, mode: Mode) -> None:
    assert refusal(octets, replace(CLIENT, mode=mode)) is Unasked.SEVERAL_CREDENTIALS


# Passwords


@pytest.mark.parametrize("size", [0, 1, 15, 17, 31, 129, 144, 253])
def test_a_password_of_a_size_that_none_has_is_refused(size: int) -> None:
    """Rows 18, 19."""
    assert refusal(request((USER_NAME, b"alice"), (USER_PASSWORD, bytes(size)))) is Unasked.BAD_CREDENTIAL


@pytest.mark.parametrize(
    ("encoding", "octets", "expected"),
    [
        ("utf-8", "müller".encode(), "müller".encode()),
        ("utf-8", b"m\xfcller", b"m\xfcller"),
        ("iso8859-1", b"m\xfcller", "müller".encode()),
        ("cp1252", b"\x80uro", "€uro".encode()),
        ("cp1252", b"\x81", None),
        ("ascii", b"m\xfcller", None),
        ("gb18030", b"\xff", None),
        ("shift_jis", b"\x83\x5c", "ソ".encode()),
        ("utf-8", b"a\0b", None),
        ("iso8859-1", b"a\0b", None),
        ("utf-8", b"\0", b""),
        ("utf-8", b" secret ", b" secret "),
        ("utf-8", b"x" * 128, b"x" * 128),
    ],
)
def test_passwords_keep_their_bytes_or_are_recoded_or_refused(encoding: str, octets: bytes, expected: bytes | None) -> None:
    """Row 28. What does not decode is never guessed at, and a NUL ends nothing."""
    client = replace(CLIENT, password_encoding=encoding)
    asked = login("alice", octets)
    if expected is None:
        assert refusal(asked, client) is Unasked.BAD_ENCODING
    elif not expected:
        assert refusal(asked, client) is Unasked.NO_CREDENTIAL
    else:
        assert typed(read(asked, client)) == expected


# OpenVPN's static challenge (row 60)


def static(password: bytes, code: bytes) -> bytes:
    return b"SCRV1:" + base64.b64encode(password) + b":" + base64.b64encode(code)


@pytest.mark.parametrize("mode", Mode)
def test_a_static_challenge_shows_its_parts_in_every_mode(mode: Mode) -> None:
    asked = login("alice", static(b"se:cr,et 1", b"123456"))
    for first in (DONE, ELSEWHERE):
        attempt = read(asked, replace(CLIENT, mode=mode, first_factor=first)).attempt
        assert (attempt.typed.reveal() if attempt.typed else None) == b"123456"
        assert attempt.grammar == OTP_ONLY
        assert attempt.grammar_is_final
        assert attempt.first_factor is first
    attempt = read(asked, replace(CLIENT, mode=mode, first_factor=OURS)).attempt
    assert (attempt.typed.reveal() if attempt.typed else None) == b"se:cr,et 1\x00123456"
    assert attempt.grammar == Grammar(SplitMode.SEPARATOR, "\0")
    assert attempt.grammar_is_final
    assert attempt.first_factor is OURS, "the password is there, and it is ours to check"


@pytest.mark.parametrize(
    "text",
    [
        b"SCRV1:c2VjcmV0:",
        b"SCRV1::",
        b"SCRV1:c2VjcmV0:MTIzNDU",
        b"SCRV1:=:MTIzNDU2",
        b"SCRV1:c2VjcmV0:" + base64.b64encode(b"12\x0034"),
        b"SCRV1:" + base64.b64encode(b"a\0b") + b":MTIzNDU2",
    ],
)
@pytest.mark.parametrize("first", [OURS, ELSEWHERE])
def test_a_static_challenge_that_is_none_is_refused(text: bytes, first: FirstFactor) -> None:
    assert refusal(login("alice", text), replace(CLIENT, first_factor=first)) is Unasked.BAD_CREDENTIAL


@pytest.mark.parametrize(
    "text", [b"SCRV1:", b"SCRV1:a", b"scrv1:YQ==:MQ==", b"SCRV1:a b:c", b"SCRV1:YQ==:MQ==:x", b" SCRV1:YQ==:MQ=="]
)
def test_what_only_looks_like_one_is_a_password(text: bytes) -> None:
    one = read(login("alice", text))
    assert typed(one) == text
    assert not one.attempt.grammar_is_final


def test_a_long_static_challenge_takes_no_time() -> None:
    """The pattern has nothing to go back over; 128 octets is all there can be."""
    assert typed(read(login("alice", b"SCRV1:" + b"A" * 122))) == b"SCRV1:" + b"A" * 122


# Names


@pytest.mark.parametrize(
    ("presented", "expected"),
    [
        ("alice", "alice"),
        ("alice@corp.example", "alice"),
        ("alice@CORP.Example", "alice"),
        ("CORP\\alice", "alice"),
        ("corp\\alice", "alice"),
        ("alice@corp.example@corp.example", "alice@corp.example"),
        ("CORP\\alice@corp.example", "CORP\\alice"),
        ("alice@other.example", "alice@other.example"),
        ("OTHER\\alice", "OTHER\\alice"),
        ("@corp.example", ""),
        ("CORP\\", ""),
        ("alice@", "alice@"),
        ("\\alice", "\\alice"),
        ("alice@corp.example ", "alice@corp.example "),
        ("alice@\u212aorp", "alice@\u212aorp"),
        ("\u212aORP\\alice", "\u212aORP\\alice"),
        ("alic\u0435@corp.example", "alic\u0435"),
        ("alice%corp.example", "alice%corp.example"),
        ("corp.example/alice", "corp.example/alice"),
    ],
)
def test_only_listed_realms_are_taken_off(presented: str, expected: str) -> None:
    """Once, from outside, without guessing; what remains strange is refused behind the gate."""
    realms = ("corp.example", "corp", "korp")
    assert without_realm(presented, realms) == expected
    one = read(login(presented, "x"), replace(CLIENT, realms=realms))
    assert one.attempt.username == expected
    assert one.user_name == presented.encode()
    assert without_realm(presented, ()) == presented


@pytest.mark.parametrize("octets", [request((USER_PASSWORD, bytes(16))), login("", "x"), login("", "x", (USER_NAME, b"bob"))])
def test_without_a_name_nothing_is_asked(octets: bytes) -> None:
    """Row 21."""
    assert refusal(octets) is Unasked.NO_USER_NAME


@pytest.mark.parametrize("name", [b"x" * 253, b"al\xffice", b"al\0ice", b"alice\n", "ålice".encode(), b" ", b"\xed\xa0\x80"])
def test_a_strange_name_arrives_as_it_is(name: bytes) -> None:
    """Rows 24, 26: not shortened at a NUL, not mended; whether it is anybody is asked behind the gate."""
    one = read(login(name, "x"))
    assert one.user_name == name
    assert one.attempt.username.encode("utf-8", "surrogateescape") == name


def test_of_two_names_the_first_counts() -> None:
    assert read(login("alice", "x", (USER_NAME, b"bob"))).attempt.username == "alice"


# Places


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"192.0.2.7", "192.0.2.7"),
        (b"2001:DB8::7", "2001:db8::7"),
        (b"2001:db8:0:0:0:0:0:7", "2001:db8::7"),
        (b"::ffff:192.0.2.7", "192.0.2.7"),
        (b"fe80::1%eth0", "fe80::1"),
        (b"\xc0\x00\x02\x07", "192.0.2.7"),
        (bytes.fromhex("20010db8000000000000000000000007"), "2001:db8::7"),
        (b"00-11-22-33-44-55", None),
        (b"192.0.2.7:4500", None),
        (b"192.0.2", None),
        (b"192.0.2.07", None),
        (b" 192.0.2.7", None),
        (b"192.0.2.7\0", None),
        (b"1234", None),
        (b"+49 30 123456 78", None),
        (b"", None),
        (b"\xff" * 5, None),
    ],
)
def test_a_place_is_an_address_or_unknown(value: bytes, expected: str | None) -> None:
    assert read(login("alice", "x", (CALLING_STATION_ID, value))).attempt.source == expected


def test_a_vendors_attribute_can_be_the_place_and_nothing_stands_in_for_it() -> None:
    client = replace(CLIENT, source_attribute=AttributeName(8, 12356))
    inside = (26, (12356).to_bytes(4, "big") + b"\x08\x0b192.0.2.7")
    assert read(login("alice", "x", inside), client).attempt.source == "192.0.2.7"
    for other in ((CALLING_STATION_ID, b"192.0.2.8"), (4, bytes([192, 0, 2, 9])), (26, inside[1][:-1])):
        assert read(login("alice", "x", other), client).attempt.source is None


# Whatever


KINDS = st.sampled_from([USER_NAME, USER_PASSWORD, CHAP_PASSWORD, CHAP_CHALLENGE, STATE, EAP_MESSAGE, CALLING_STATION_ID, 26])


@given(
    st.lists(st.tuples(st.one_of(KINDS, st.integers(1, 79)), st.binary(max_size=140)), max_size=8),
    st.sampled_from(list(itertools.product(Mode, FirstFactor, [True, False], EmptyPassword))),
    st.sampled_from(["utf-8", "ascii", "cp1252", "gb18030"]),
)
def test_whatever_stands_in_it_a_request_asks_or_is_refused(
    attributes: list[tuple[int, bytes]], how: tuple[Mode, FirstFactor, bool, EmptyPassword], encoding: str
) -> None:
    mode, first, challenges, empty = how
    client = replace(
        CLIENT, mode=mode, first_factor=first, challenges=challenges, empty_password=empty, password_encoding=encoding,
        realms=("corp",),
    )  # fmt: skip
    try:
        one = read(request(*attributes), client)
    except RequestRefused:
        return
    assert one.user_name
    assert one.attempt.typed is None or one.attempt.typed
    assert one.attempt.typed is not None or one.attempt.first_factor is not OURS


@given(st.binary(min_size=1, max_size=128))
def test_whatever_is_typed_arrives_or_is_refused(octets: bytes) -> None:
    one = new_authenticator()
    asked = request((USER_NAME, b"alice"), (USER_PASSWORD, hidden(SECRET, one, octets)), authenticator=one)
    stripped = octets.rstrip(b"\0")
    if not stripped:
        assert refusal(asked) is Unasked.NO_CREDENTIAL
    elif b"\0" in stripped:
        assert refusal(asked) is Unasked.BAD_ENCODING
    elif not stripped.startswith(b"SCRV1:"):
        assert typed(read(asked)) == stripped


def test_nothing_shows_what_was_typed() -> None:
    marker = b"PLANTED-7351"
    for asked in (
        login("alice", marker),
        login("alice", marker + b"\0x"),
        login("alice", b"SCRV1:" + marker + b":="),
        login("alice", marker, (STATE, marker)),
    ):
        try:
            text = repr(read(asked))
        except RequestRefused as refused:
            text = f"{refused!r} {refused} {vars(refused)}"
        assert "PLANTED" not in text


def test_a_chap_answer_is_not_shown() -> None:
    """Whoever reads it tries a million codes."""
    asked = by_chap()
    digest = parse(asked).first(CHAP_PASSWORD) or b""
    assert repr(digest[1:])[2:-1] not in repr(read(asked))
