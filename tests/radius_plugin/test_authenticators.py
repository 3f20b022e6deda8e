"""Signatures, hidden passwords and CHAP: the shared vectors, properties, and what a forger would try."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import hmac
import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mfa_core.model import ChapAnswer, chap_response
from mfa_core.secret import Secret
from radius_plugin.authenticators import BadCredential, Doubt, ReplyRefused, SharedSecret, chap_in
from radius_plugin.wire import PACKET_MAX, Code, Malformed, Packet, PacketTooLong, Type, attribute, frame, parse
from tests.radius_plugin.packet_vectors import (
    SECRET,
    AccountingCase,
    Case,
    Exchange,
    Reply,
    read_accounting,
    read_cases,
    read_exchanges,
    read_replies,
)

GOOD = [case for case in read_cases() if not case.flaw]
AUTHENTICATOR = bytes(range(0x80, 0x90))
OURS = SharedSecret(Secret(SECRET))
THEIRS = SharedSecret(Secret(b"another secret"))

octets_16 = st.binary(min_size=16, max_size=16)


def asked(attributes: bytes = attribute(1, b"alice"), code: int = Code.ACCESS_REQUEST) -> bytes:
    """A signed request of ours."""
    return OURS.request(code, 7, attributes, authenticator=AUTHENTICATOR)


def doubt(request: bytes, reply: bytes, **policy: bool) -> Doubt:
    """Why this reply is not believed."""
    with pytest.raises(ReplyRefused) as caught:
        OURS.verify_reply(request, reply, **policy)
    return caught.value.doubt


def response_authenticated(request: bytes, code: int, attributes: bytes, identifier: int = 7) -> bytes:
    """A reply with a good Response Authenticator around anything: what a collision would yield (CVE-2024-3596)."""
    reply = frame(code, identifier, request[4:20], attributes)
    return reply[:4] + hashlib.md5(reply + SECRET).digest() + attributes


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_signatures_of_requests(case: Case) -> None:
    """A signature is good, or it is not; a packet without one is not signed."""
    assert OURS.signed(parse(case.octets)) == (case.signature == "good")
    assert not THEIRS.signed(parse(case.octets))


@pytest.mark.parametrize("case", [case for case in GOOD if case.typed is not None], ids=lambda case: case.name)
def test_passwords_of_requests(case: Case) -> None:
    """User-Password comes out as it was typed, and as garbage with another secret."""
    assert case.typed is not None
    packet = parse(case.octets)
    hidden = packet.first(Type.USER_PASSWORD)
    assert hidden is not None
    assert OURS.reveal(hidden, packet.authenticator) == case.typed.encode()
    assert THEIRS.reveal(hidden, packet.authenticator) != case.typed.encode()
    assert OURS.hide(case.typed.encode(), packet.authenticator) == hidden


@pytest.mark.parametrize("case", [case for case in GOOD if case.chap is not None], ids=lambda case: case.name)
def test_chap_answers_of_requests(case: Case) -> None:
    """The right code fits, another does not; the challenge is CHAP-Challenge or else the Request Authenticator."""
    assert case.chap is not None
    answer = chap_in(parse(case.octets))
    assert answer is not None
    assert answer(case.chap)
    assert not answer(case.chap + "0")
    assert not answer(case.chap[:-1])


@pytest.mark.parametrize("case", [case for case in GOOD if case.bad_credential], ids=lambda case: case.name)
def test_credentials_of_impossible_lengths(case: Case) -> None:
    """A length that User-Password or CHAP-Password cannot have is said to be one."""
    packet = parse(case.octets)
    hidden = packet.first(Type.USER_PASSWORD)
    with pytest.raises(BadCredential, match="octets, expected"):
        chap_in(packet) if hidden is None else OURS.reveal(hidden, packet.authenticator)


@pytest.mark.parametrize("case", read_accounting(), ids=lambda case: case.name)
def test_accounting_requests(case: AccountingCase) -> None:
    """The Request Authenticator and the signature of an Accounting-Request are checked each by its own rule."""
    packet = parse(case.octets)
    assert OURS.accounting_request_is_good(packet) == case.good
    assert OURS.signed(packet) == (case.signature == "good")
    assert not THEIRS.accounting_request_is_good(packet) or case.name.startswith("another")


@pytest.mark.parametrize("exchange", read_exchanges(), ids=lambda exchange: exchange.source)
def test_the_examples_of_the_rfcs(exchange: Exchange) -> None:
    """Passwords, CHAP answers, signatures and Response Authenticators as the RFCs print them."""
    secret = SharedSecret(Secret(exchange.secret))
    request, reply = parse(exchange.request), parse(exchange.reply)
    assert secret.signed(request) == (exchange.signature == "good")
    if exchange.typed is not None:
        hidden = request.first(Type.USER_PASSWORD)
        assert hidden is not None
        assert secret.reveal(hidden, request.authenticator) == exchange.typed
    if exchange.chap is not None:
        answer = chap_in(request)
        assert answer is not None
        assert answer(exchange.chap)
    attributes = exchange.reply[20:]
    assert secret.reply(reply.code, request, attributes, sign=False) == exchange.reply
    assert secret.verify_reply(exchange.request, exchange.reply, require_message_authenticator=False).octets == exchange.reply


@pytest.mark.parametrize("reply", read_replies(), ids=lambda reply: reply.name)
def test_replies_to_the_octet(reply: Reply) -> None:
    """Exactly these answers leave, and the client of the request believes them."""
    assert OURS.reply(reply.code, parse(reply.request), reply.attributes, sign=reply.sign) == reply.octets
    signed = reply.sign and reply.request[0] != Code.ACCOUNTING_REQUEST
    believed = OURS.verify_reply(reply.request, reply.octets, require_message_authenticator=signed)
    assert (next(believed.attributes())[0] == Type.MESSAGE_AUTHENTICATOR) if signed else not believed.message_authenticator_at


def test_no_chap_in_a_request() -> None:
    """Nothing is made up where CHAP-Password is missing."""
    assert chap_in(parse(asked())) is None


@given(octets_16, st.text(max_size=12), st.binary(max_size=40), st.integers(0, 255))
def test_chap_fits_what_was_typed(authenticator: bytes, typed: str, challenge: bytes, identifier: int) -> None:
    """The answer to any challenge fits what it was made from."""
    answer = ChapAnswer(identifier, challenge, chap_response(identifier, typed.encode("utf-8", "surrogateescape"), challenge))
    assert answer(typed)
    assert not ChapAnswer(identifier, challenge, authenticator)(typed)


def test_a_chap_challenge_of_no_octets_is_a_challenge() -> None:
    """An empty CHAP-Challenge is not replaced by the Request Authenticator."""
    answer = attribute(3, b"\x01" + chap_response(1, b"123456", b""))
    chap = chap_in(parse(asked(answer + attribute(60, b""))))
    assert chap is not None
    assert chap("123456")


@given(st.binary(max_size=128), octets_16)
@example(b"", bytes(16))
@example(b"x" * 128, bytes(16))
@example(b"x" * 16, bytes(16))
def test_what_is_hidden_can_be_revealed(typed: bytes, authenticator: bytes) -> None:
    """Any octets but NULs at the end come out as they went in; those are with the padding."""
    hidden = OURS.hide(typed, authenticator)
    assert len(hidden) % 16 == 0
    assert 16 <= len(hidden) <= 128
    assert OURS.reveal(hidden, authenticator) == typed.rstrip(b"\0")
    padded = OURS.reveal_padded(hidden, authenticator)
    assert padded == typed.ljust(len(hidden), b"\0")


@given(st.binary(max_size=260), octets_16)
def test_any_user_password_is_revealed_or_refused(hidden: bytes, authenticator: bytes) -> None:
    """Octets of a length that RFC 2865 section 5.2 allows give as many, all others BadCredential, and nothing else happens."""
    if len(hidden) in range(16, 129, 16):
        assert len(OURS.reveal_padded(hidden, authenticator)) == len(hidden)
    else:
        with pytest.raises(BadCredential):
            OURS.reveal_padded(hidden, authenticator)


def test_too_long_a_password_is_not_hidden() -> None:
    """129 octets have no place in User-Password."""
    with pytest.raises(ValueError, match="129 octets"):
        OURS.hide(b"x" * 129, AUTHENTICATOR)


@given(st.binary(min_size=1, max_size=200), octets_16, st.binary(max_size=253))
@example(b"x" * 64, bytes(16), b"")
@example(b"x" * 65, bytes(16), b"")
def test_hmac_md5_as_the_standard_library_makes_it(secret: bytes, authenticator: bytes, value: bytes) -> None:
    """Secrets shorter, as long as and longer than MD5's block sign alike (RFC 2104)."""
    octets = SharedSecret(Secret(secret)).request(Code.ACCESS_REQUEST, 3, attribute(1, value), authenticator=authenticator)
    zeroed = octets[:22] + bytes(16) + octets[38:]
    assert octets[22:38] == hmac.digest(secret, zeroed, "md5")


def test_any_changed_bit_of_a_signed_request_shows() -> None:
    """Code, identifier, Length, authenticator and every attribute are under the signature."""
    octets = asked()
    for at in range(len(octets)):
        for bit in range(8):
            with contextlib.suppress(Malformed):
                assert not OURS.signed(parse(octets[:at] + bytes([octets[at] ^ 1 << bit]) + octets[at + 1 :]))


@pytest.mark.parametrize("code", [Code.ACCESS_ACCEPT, Code.ACCESS_REJECT, Code.ACCESS_CHALLENGE])
def test_a_reply_is_signed_first_then_proxy_states_then_the_rest(code: Code) -> None:
    """Order matters: the signature in front is what closes CVE-2024-3596, and proxies want their states back in order."""
    request = asked(attribute(33, b"one") + attribute(1, b"alice") + attribute(33, b"two") + attribute(33, b"one"))
    reply = OURS.verify_reply(request, OURS.reply(code, parse(request), attribute(18, b"hello") + attribute(25, b"c")))
    assert [kind for kind, _ in reply.attributes()] == [80, 33, 33, 33, 18, 25]
    assert reply.proxy_states == [b"one", b"two", b"one"]
    assert (reply.code, reply.identifier) == (code, 7)


def test_a_status_server_reply_is_signed() -> None:
    """On both ports (RFC 5997 section 3, CVE-2024-3596)."""
    request = asked(b"", Code.STATUS_SERVER)
    for code in (Code.ACCESS_ACCEPT, Code.ACCOUNTING_RESPONSE):
        assert OURS.verify_reply(request, OURS.reply(code, parse(request))).message_authenticator_at


@pytest.mark.parametrize("sign", [True, False])
def test_an_accounting_response_is_never_signed(sign: bool) -> None:
    """Peers do not agree on what its signature would be over."""
    request = OURS.request(Code.ACCOUNTING_REQUEST, 7, attribute(40, bytes(4)) + attribute(33, b"p"), sign=sign)
    assert OURS.accounting_request_is_good(parse(request))
    reply = OURS.reply(Code.ACCOUNTING_RESPONSE, parse(request))
    assert [kind for kind, _ in parse(reply).attributes()] == [33]
    assert OURS.verify_reply(request, reply, require_message_authenticator=False).code == Code.ACCOUNTING_RESPONSE


def test_a_reply_of_4096_octets_is_the_longest() -> None:
    """Proxy-States are the client's doing, so a reply that does not fit is an expected failure, and has its own error."""
    states = attribute(33, b"s" * 253) * 15  # 3,825 octets
    request = parse(OURS.request(Code.ACCESS_REQUEST, 7, states, authenticator=AUTHENTICATOR))
    room = PACKET_MAX - 20 - 18 - len(states)
    assert len(OURS.reply(Code.ACCESS_REJECT, request, attribute(18, b"x" * (room - 2)))) == PACKET_MAX
    with pytest.raises(PacketTooLong, match="4097 octets"):
        OURS.reply(Code.ACCESS_REJECT, request, attribute(18, b"x" * (room - 1)))


@given(st.lists(st.binary(max_size=253), max_size=6), st.binary(max_size=253), st.booleans(), octets_16)
def test_every_reply_verifies(states: list[bytes], text: bytes, sign: bool, authenticator: bytes) -> None:
    """What a server makes a client believes, and only with this request and this secret."""
    proxied = b"".join(attribute(33, state) for state in states)
    request = OURS.request(Code.ACCESS_REQUEST, 9, attribute(1, b"alice") + proxied, authenticator=authenticator)
    datagram = OURS.reply(Code.ACCESS_REJECT, parse(request), attribute(18, text), sign=sign)
    reply = OURS.verify_reply(request, datagram, require_message_authenticator=sign)
    assert reply.proxy_states == states
    assert bool(reply.message_authenticator_at) == sign
    with pytest.raises(ReplyRefused):
        THEIRS.verify_reply(request, datagram, require_message_authenticator=False)
    other = OURS.request(Code.ACCESS_REQUEST, 9, proxied, authenticator=bytes(16))
    if authenticator != bytes(16):
        assert doubt(other, datagram, require_message_authenticator=False) == Doubt.RESPONSE_AUTHENTICATOR


@given(st.binary(max_size=120))
def test_any_octets_are_a_believed_reply_or_refused(datagram: bytes) -> None:
    """Nobody without the secret makes a reply, and nothing but ReplyRefused says so."""
    with pytest.raises(ReplyRefused):
        OURS.verify_reply(asked(), datagram)
    with pytest.raises(ReplyRefused):
        OURS.verify_reply(asked(), b"\x02\x07" + datagram, require_message_authenticator=False)


def test_any_changed_bit_of_a_reply_shows() -> None:
    """Every octet of a reply is under its authenticators."""
    request = asked()
    reply = OURS.reply(Code.ACCESS_ACCEPT, parse(request), attribute(18, b"welcome"))
    for at in range(len(reply)):
        for bit in range(8):
            with pytest.raises(ReplyRefused):
                OURS.verify_reply(request, reply[:at] + bytes([reply[at] ^ 1 << bit]) + reply[at + 1 :])


def test_replies_that_are_not_to_this_request() -> None:
    """Each doubt by its name."""
    request = asked()
    accept = OURS.reply(Code.ACCESS_ACCEPT, parse(request))
    assert doubt(request, accept[:-1]) == Doubt.MALFORMED
    assert doubt(request, b"\x02\x08" + accept[2:]) == Doubt.IDENTIFIER
    assert doubt(request, OURS.reply(Code.ACCOUNTING_RESPONSE, parse(request))) == Doubt.CODE
    assert doubt(request, request) == Doubt.CODE
    assert doubt(request, THEIRS.reply(Code.ACCESS_ACCEPT, parse(request))) == Doubt.RESPONSE_AUTHENTICATOR


def test_a_forged_reply_without_a_signature_is_refused() -> None:
    """A good Response Authenticator alone proves nothing any more (CVE-2024-3596)."""
    request = asked()
    assert doubt(request, response_authenticated(request, Code.ACCESS_ACCEPT, b"")) == Doubt.UNSIGNED


def test_a_forged_reply_with_a_wrong_signature_is_refused_even_where_none_is_needed() -> None:
    """A signature that is there must be right."""
    request = asked()
    forged = response_authenticated(request, Code.ACCESS_ACCEPT, attribute(80, bytes(16)))
    assert doubt(request, forged) == Doubt.MESSAGE_AUTHENTICATOR
    assert doubt(request, forged, require_message_authenticator=False) == Doubt.MESSAGE_AUTHENTICATOR


@pytest.mark.parametrize("over", [bytes(16), None], ids=["zeros", "request-authenticator"])
def test_a_signed_accounting_response_is_believed_by_either_reading(over: bytes | None) -> None:
    """FreeRADIUS signs it over zeros, others over the Request Authenticator; a signature over neither is wrong."""
    request = OURS.request(Code.ACCOUNTING_REQUEST, 7, attribute(40, bytes(4)))
    unsigned = frame(Code.ACCOUNTING_RESPONSE, 7, over or request[4:20], attribute(80, bytes(16)))
    signature = hmac.digest(SECRET, unsigned, "md5")
    reply = response_authenticated(request, Code.ACCOUNTING_RESPONSE, attribute(80, signature))
    assert OURS.verify_reply(request, reply).code == Code.ACCOUNTING_RESPONSE
    wrong = response_authenticated(request, Code.ACCOUNTING_RESPONSE, attribute(80, signature[::-1]))
    assert doubt(request, wrong) == Doubt.MESSAGE_AUTHENTICATOR


@pytest.mark.parametrize("states", [[b"junk"], [b"one", b"junk"], [b"two", b"one"], [b"one", b"two", b"two"]], ids=str)
def test_a_proxy_state_that_was_not_sent_is_refused(states: list[bytes]) -> None:
    """What a forger appends to make two packets collide (CVE-2024-3596)."""
    request = asked(attribute(33, b"one") + attribute(33, b"two"))
    forged = response_authenticated(request, Code.ACCESS_ACCEPT, b"".join(attribute(33, state) for state in states))
    assert doubt(request, forged, require_message_authenticator=False) == Doubt.PROXY_STATE


def test_a_shared_secret_is_not_shown() -> None:
    """Neither by repr, nor by str, nor by pickle or copy."""
    assert repr(OURS) == str(OURS) == f"{OURS}" == "SharedSecret(...)"
    for act in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            act(OURS)
    with pytest.raises(TypeError):
        vars(OURS)


def test_an_empty_secret_is_none() -> None:
    """With it everybody could sign."""
    with pytest.raises(ValueError, match="empty shared secret"):
        SharedSecret(Secret(b""))


def test_errors_quote_neither_password_nor_secret() -> None:
    """What stands in a log line is lengths."""
    with pytest.raises(BadCredential) as caught:
        OURS.reveal(b"visible", AUTHENTICATOR)
    with pytest.raises(ValueError) as hidden:
        OURS.hide(b"visible" * 30, AUTHENTICATOR)
    assert "visible" not in f"{caught.value}{hidden.value}"


def test_reading_what_a_client_of_another_secret_sent_never_raises() -> None:
    """Garbage is garbage: User-Password has no check of its own."""
    packet: Packet = parse(OURS.request(1, 1, attribute(2, OURS.hide(b"hello", AUTHENTICATOR)), authenticator=AUTHENTICATOR))
    hidden = packet.first(2)
    assert hidden is not None
    assert b"hello" not in THEIRS.reveal(hidden, packet.authenticator)
