"""Do others understand our packets, and we theirs? FreeRADIUS's radclient over a socket, and pyrad's codec, both ways."""

from __future__ import annotations

import hashlib
import socket
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyrad import packet as pyrad_packet
from pyrad.dictionary import Dictionary

from mfa_core.secret import Secret
from radius_plugin.authenticators import Doubt, ReplyRefused, SharedSecret, chap_in
from radius_plugin.wire import Code, Packet, Type, attribute, frame, integer_attribute, parse, text_attributes
from tests.end_to_end.programs import PATIENCE_S, must_have

SECRET = b"testing123"
OURS = SharedSecret(Secret(SECRET))
THEIRS = SharedSecret(Secret(b"another secret"))
EMPTY = Dictionary()  # pyrad then keeps attributes by number, as octets; a Packet of it *is* an OrderedDict of them

LOGIN = 'User-Name = "bench", User-Password = "hello123456", NAS-Port = 3, Proxy-State = 0x0001, Message-Authenticator = 0x00'
UNSIGNED = 'User-Name = "bench", User-Password = "hello123456"'
CHAP = 'User-Name = "bench", CHAP-Password = "123456", Message-Authenticator = 0x00'
START = 'User-Name = "bench", Acct-Status-Type = Start, Acct-Session-Id = "5F3A0001"'

octets_16 = st.binary(min_size=16, max_size=16)
values = st.tuples(st.integers(1, 255).filter(lambda kind: kind not in (26, 33, 80)), st.binary(min_size=1, max_size=60))


@dataclass(frozen=True, slots=True)
class Heard:
    """What radclient sent, and what it made of the answer."""

    request: Packet
    said: str
    success: bool


def radclient(attributes: str, answer: Callable[[Packet], bytes], *, command: str = "auth", wait_s: int = 20) -> Heard:
    """Let radclient send one request to a plain socket, and answer it."""
    must_have("radclient")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(PATIENCE_S)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        # After a datagram that it does not believe it waits on, -t in all.
        client = subprocess.Popen(
            ["radclient", "-x", "-r", "1", "-t", str(wait_s), address, command, SECRET.decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert client.stdin is not None
            client.stdin.write(attributes)
            client.stdin.close()
            client.stdin = None
            datagram, source = server.recvfrom(65_535)
            request = parse(datagram)
            server.sendto(answer(request), source)
            said, _ = client.communicate(timeout=PATIENCE_S)
        finally:
            client.kill()
            client.wait()
            assert client.stdout is not None
            client.stdout.close()
    return Heard(request, said, client.returncode == 0)


def response_authenticated(request: Packet, code: int, attributes: bytes) -> bytes:
    """A reply with a good Response Authenticator around anything."""
    reply = frame(code, request.identifier, request.authenticator, attributes)
    return reply[:4] + hashlib.md5(reply + SECRET).digest() + attributes


def test_radclient_signs_and_believes_our_signature() -> None:
    """Its Message-Authenticator is good to us, and ours, in front, is to it."""
    heard = radclient(LOGIN, lambda request: OURS.reply(Code.ACCESS_ACCEPT, request, text_attributes(18, "welcome")))
    hidden = heard.request.first(Type.USER_PASSWORD)
    assert hidden is not None
    assert OURS.signed(heard.request)
    assert not THEIRS.signed(heard.request)
    assert OURS.reveal(hidden, heard.request.authenticator) == b"hello123456"
    assert heard.success
    assert "Received Access-Accept" in heard.said
    assert 'Reply-Message = "welcome"' in heard.said
    assert "Proxy-State = 0x0001" in heard.said.partition("Received")[2]


def test_radclient_does_not_believe_a_reply_with_one_changed_bit() -> None:
    """Neither in the Response Authenticator nor behind it."""

    def changed(request: Packet) -> bytes:
        reply = OURS.reply(Code.ACCESS_ACCEPT, request)
        return reply[:4] + bytes([reply[4] ^ 1]) + reply[5:]

    heard = radclient(LOGIN, changed, wait_s=2)
    assert not heard.success
    assert "invalid Response Authenticator" in heard.said
    assert "Received Access-Accept Id" not in heard.said


def test_radclient_does_not_believe_a_signature_of_another_secret() -> None:
    """The Message-Authenticator of a reply is looked at: were ours wrong, the test before this one would fail."""

    def forged(request: Packet) -> bytes:
        return response_authenticated(request, Code.ACCESS_ACCEPT, attribute(80, bytes(16)))

    heard = radclient(LOGIN, forged, wait_s=2)
    assert not heard.success
    assert "invalid Message-Authenticator" in heard.said
    assert "Received Access-Accept Id" not in heard.said


def test_radclient_reads_a_signed_challenge_and_a_signed_reject() -> None:
    """All three answers are signed alike."""
    state = bytes(range(51))
    heard = radclient(LOGIN, lambda request: OURS.reply(Code.ACCESS_CHALLENGE, request, attribute(24, state)))
    assert f"State = 0x{state.hex()}" in heard.said
    assert "Received Access-Challenge" in heard.said
    heard = radclient(LOGIN, lambda request: OURS.reply(Code.ACCESS_REJECT, request))
    assert "Received Access-Reject" in heard.said
    assert not heard.success


def test_radclient_without_a_signature_hears_a_signed_reply() -> None:
    """A client that does not sign may still check."""
    heard = radclient(UNSIGNED, lambda request: OURS.reply(Code.ACCESS_ACCEPT, request))
    assert not heard.request.message_authenticator_at
    assert not OURS.signed(heard.request)
    assert heard.success


def test_radclient_speaks_chap() -> None:
    """Its answer fits the code that was typed, and no other."""
    heard = radclient(CHAP, lambda request: OURS.reply(Code.ACCESS_ACCEPT, request))
    answer = chap_in(heard.request)
    assert answer is not None
    assert answer("123456")
    assert not answer("123457")
    assert heard.success


@pytest.mark.parametrize("code", [Code.ACCESS_ACCEPT, Code.ACCOUNTING_RESPONSE])
def test_radclient_asks_for_the_status(code: Code) -> None:
    """Status-Server is signed, and so is the answer, on both ports."""
    heard = radclient("Message-Authenticator = 0x00", lambda request: OURS.reply(code, request), command="status")
    assert heard.request.code == Code.STATUS_SERVER
    assert OURS.signed(heard.request)
    assert heard.success
    assert "Message-Authenticator = 0x" in heard.said.partition("Received")[2]


@pytest.mark.parametrize("signature", ["", ", Message-Authenticator = 0x00"], ids=["unsigned", "signed"])
def test_radclient_counts(signature: str) -> None:
    """Accounting-Requests are good to us, signed or not, and the acknowledgement is to radclient."""
    heard = radclient(START + signature, lambda request: OURS.reply(Code.ACCOUNTING_RESPONSE, request), command="acct")
    assert OURS.accounting_request_is_good(heard.request)
    assert not THEIRS.accounting_request_is_good(heard.request)
    assert OURS.signed(heard.request) == bool(signature)
    assert heard.success


@given(st.text(min_size=1, max_size=60).filter(lambda typed: "\0" not in typed), octets_16, st.lists(values, max_size=6))
def test_pyrad_reads_our_requests(typed: str, authenticator: bytes, row: list[tuple[int, bytes]]) -> None:
    """Signature and password of any request of ours are good to pyrad."""
    typed = typed.encode()[:100].decode(errors="ignore")
    attributes = attribute(2, OURS.hide(typed.encode(), authenticator)) + b"".join(
        attribute(kind, value) for kind, value in row if kind not in (2, 3)
    )
    octets = OURS.request(Code.ACCESS_REQUEST, 5, attributes, authenticator=authenticator)
    read = pyrad_packet.AuthPacket(secret=SECRET, dict=EMPTY, packet=octets)
    assert read.verify_message_authenticator()
    assert read.PwDecrypt(OrderedDict.__getitem__(read, 2)[0]) == typed


@given(st.text(min_size=1, max_size=60).filter(lambda typed: "\0" not in typed), st.lists(values, max_size=6))
def test_we_read_requests_of_pyrad(typed: str, row: list[tuple[int, bytes]]) -> None:
    """And the other way round."""
    made = pyrad_packet.AuthPacket(secret=SECRET, dict=EMPTY, id=5)
    made.add_message_authenticator()
    typed = typed.encode()[:100].decode(errors="ignore")
    OrderedDict.__setitem__(made, 2, [made.PwCrypt(typed)])
    for kind, value in row:
        if kind != 2:
            OrderedDict.__setitem__(made, kind, [value])
    read = parse(made.RequestPacket())
    hidden = read.first(2)
    assert hidden is not None
    assert OURS.signed(read)
    assert not THEIRS.signed(read)
    assert OURS.reveal(hidden, read.authenticator) == typed.encode()
    assert {kind: read.first(kind) for kind, _ in row if kind != 2} == {kind: value for kind, value in row if kind != 2}


@given(st.text(min_size=1, max_size=12).filter(lambda typed: typed == typed.strip()), octets_16, st.integers(0, 255))
def test_pyrad_judges_chap_as_we_do(typed: str, authenticator: bytes, identifier: int) -> None:
    """The same answers fit."""
    made = hashlib.md5(bytes([identifier]) + typed.encode() + authenticator).digest()
    octets = OURS.request(1, 5, attribute(3, bytes([identifier]) + made), authenticator=authenticator)
    read = pyrad_packet.AuthPacket(secret=SECRET, dict=EMPTY, packet=octets)
    answer = chap_in(parse(octets))
    assert answer is not None
    assert answer(typed)
    assert read.VerifyChapPasswd(typed)
    assert not answer(typed + "x")
    assert not read.VerifyChapPasswd(typed + "x")


@given(st.sampled_from([2, 3, 11]), st.lists(st.binary(min_size=1, max_size=40), max_size=4), octets_16)
def test_pyrad_believes_our_replies(code: int, states: list[bytes], authenticator: bytes) -> None:
    """Signed, with Proxy-States copied in order; not with another secret."""
    proxied = b"".join(attribute(33, state) for state in states)
    octets = OURS.request(Code.ACCESS_REQUEST, 5, attribute(1, b"bench") + proxied, authenticator=authenticator)
    asked = pyrad_packet.AuthPacket(secret=SECRET, dict=EMPTY, packet=octets)
    reply = OURS.reply(code, parse(octets), integer_attribute(27, 3600))
    assert asked.VerifyReply(asked.CreateReply(packet=reply), reply, enforce_ma=True)
    other = THEIRS.reply(code, parse(octets))
    assert not asked.VerifyReply(asked.CreateReply(packet=other), other, enforce_ma=True)


@given(st.sampled_from([2, 3, 11]), st.lists(st.binary(min_size=1, max_size=40), max_size=4), octets_16)
def test_we_believe_replies_of_pyrad(code: int, states: list[bytes], authenticator: bytes) -> None:
    """Signed ones; those without a signature only where none is required."""
    proxied = b"".join(attribute(33, state) for state in states)
    octets = OURS.request(Code.ACCESS_REQUEST, 5, attribute(1, b"bench") + proxied, authenticator=authenticator)
    asked = pyrad_packet.AuthPacket(secret=SECRET, dict=EMPTY, packet=octets)
    answer = asked.CreateReply()
    answer.code = code
    plain = response_authenticated(parse(octets), code, proxied)
    answer.add_message_authenticator()
    believed = OURS.verify_reply(octets, answer.ReplyPacket())
    assert believed.code == code
    assert believed.proxy_states == states
    with pytest.raises(ReplyRefused) as caught:
        OURS.verify_reply(octets, plain)
    assert caught.value.doubt == Doubt.UNSIGNED
    assert OURS.verify_reply(octets, plain, require_message_authenticator=False).proxy_states == states


@given(st.lists(values, max_size=6), st.booleans())
def test_pyrad_and_we_judge_accounting_alike(row: list[tuple[int, bytes]], sign: bool) -> None:
    """The Request Authenticator of an Accounting-Request, made by either and read by the other."""
    octets = OURS.request(Code.ACCOUNTING_REQUEST, 5, b"".join(attribute(kind, value) for kind, value in row), sign=sign)
    read = pyrad_packet.AcctPacket(secret=SECRET, dict=EMPTY, packet=octets)
    assert read.VerifyAcctRequest()
    assert not sign or read.verify_message_authenticator()
    made = pyrad_packet.AcctPacket(secret=SECRET, dict=EMPTY, id=5)
    for kind, value in row:
        OrderedDict.__setitem__(made, kind, [value])
    if sign:
        made.add_message_authenticator()
    written = parse(made.RequestPacket())
    assert OURS.accounting_request_is_good(written)
    assert not THEIRS.accounting_request_is_good(written)
    assert OURS.signed(written) == sign
