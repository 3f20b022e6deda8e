"""The client of ``mfactl radius test`` against servers that behave, and servers that do not."""

from __future__ import annotations

import hashlib
import hmac
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from mfa_core.errors import InvalidInput, NotFound
from mfa_core.secret import Secret
from radius_plugin.authenticators import Doubt, SharedSecret, chap_in
from radius_plugin.trial import (
    MAX_CHALLENGES,
    Believed,
    Doubted,
    Login,
    Method,
    Nas,
    Patience,
    Protection,
    Signature,
    Silence,
    Step,
    Trial,
    accounting_requests,
    can_send_from,
    login_request,
    status_request,
)
from radius_plugin.wire import Code, Packet, Type, attribute, parse, text_attributes
from tests.end_to_end.programs import PATIENCE_S
from tests.end_to_end.radius_packets import packet, signed

SECRET = b"a secret of the test, long enough"
OURS = SharedSecret(Secret(SECRET))
THEIRS = SharedSecret(Secret(b"another one, of the same length.."))
SOON = Patience(0.2, 0)
ENOUGH = Patience(PATIENCE_S, 0)

Reply = Callable[[Packet], Sequence[bytes]]
"""What a server sends for a request: nothing, a datagram, or several."""


@dataclass(slots=True)
class Server:
    """Answers the first request by the first of ``replies``, and so on; the last one goes on for ever."""

    replies: Sequence[Reply]
    socket: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    asked: list[bytes] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def work(self) -> None:
        while True:
            datagram, peer = self.socket.recvfrom(4097)
            if not datagram:
                return
            reply = self.replies[min(len(self.asked), len(self.replies) - 1)]
            self.asked.append(datagram)
            for octets in reply(parse(datagram)):
                self.socket.sendto(octets, peer)


@contextmanager
def server(*replies: Reply) -> Iterator[Server]:
    one = Server(replies)
    one.socket.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=one.work)
    thread.start()
    try:
        yield one
    finally:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stopper:
            stopper.sendto(b"", ("127.0.0.1", one.port))
        thread.join()
        one.socket.close()


def accepts(request: Packet) -> Sequence[bytes]:
    return [OURS.reply(Code.ACCESS_ACCEPT, request, text_attributes(Type.REPLY_MESSAGE, "come in"))]


def is_silent(_: Packet) -> Sequence[bytes]:
    return []


def asks(request: Packet) -> Sequence[bytes]:
    more = text_attributes(Type.REPLY_MESSAGE, "Code: ") + attribute(Type.STATE, b"state of the server")
    return [OURS.reply(Code.ACCESS_CHALLENGE, request, more)]


def login(typed: str = "123456", method: Method = Method.PAP) -> Login:
    return Login("alice", Secret.from_text(typed), method)


def ask(one: Server, patience: Patience, *, must_be_signed: bool = True) -> Believed | Doubted | Silence:
    octets = login_request(login(), OURS, identifier=7, protection=Protection.SIGNED, random=bytes)
    with Nas("127.0.0.1", one.port) as nas:
        return nas.ask(octets, OURS, patience, must_be_signed=must_be_signed)


def test_a_signed_accept_is_believed() -> None:
    """Message-Authenticator first, as every reply should have it."""
    with server(accepts) as one:
        answer = ask(one, ENOUGH)

    assert isinstance(answer, Believed)
    assert (answer.packet.code, answer.signature, answer.sent) == (Code.ACCESS_ACCEPT, Signature.FIRST, 1)


def test_a_signature_that_is_not_first_is_told() -> None:
    """Believed, since it is right, and pointed out, since some clients drop it."""

    def signs_last(request: Packet) -> Sequence[bytes]:
        first = signed(SECRET, Code.ACCESS_ACCEPT, request.identifier, request.authenticator, b"\x12\x04ok")
        moved = first[38:] + b"\x50\x12" + bytes(16)
        octets = packet(Code.ACCESS_ACCEPT, request.identifier, request.authenticator, moved)
        moved = first[38:] + b"\x50\x12" + hmac.digest(SECRET, octets, "md5")
        whole = packet(Code.ACCESS_ACCEPT, request.identifier, request.authenticator, moved)
        return [whole[:4] + hashlib.md5(whole + SECRET).digest() + moved]

    with server(signs_last) as one:
        answer = ask(one, ENOUGH)

    assert isinstance(answer, Believed)
    assert answer.signature is Signature.LATER


def test_an_unsigned_reply_is_doubted_unless_it_is_expected() -> None:
    """CVE-2024-3596; Check Point before it is reconfigured wants them so."""

    def signs_nothing(request: Packet) -> Sequence[bytes]:
        return [OURS.reply(Code.ACCESS_ACCEPT, request, sign=False)]

    with server(signs_nothing) as one:
        doubted = ask(one, SOON)
        believed = ask(one, ENOUGH, must_be_signed=False)

    assert isinstance(doubted, Doubted)
    assert doubted.doubt is Doubt.UNSIGNED
    assert isinstance(believed, Believed)
    assert believed.signature is Signature.NONE


def test_a_reply_of_another_secret_is_doubted() -> None:
    """The commonest mistake of all."""
    with server(lambda request: [THEIRS.reply(Code.ACCESS_ACCEPT, request)]) as one:
        answer = ask(one, SOON)

    assert isinstance(answer, Doubted)
    assert answer.doubt is Doubt.RESPONSE_AUTHENTICATOR


def test_what_is_not_believed_ends_nothing() -> None:
    """Whoever answers first, and wrongly, must not keep the right answer away."""
    with server(lambda request: [b"x", THEIRS.reply(Code.ACCESS_REJECT, request), *accepts(request)]) as one:
        answer = ask(one, ENOUGH)

    assert isinstance(answer, Believed)
    assert answer.packet.code == Code.ACCESS_ACCEPT


def test_a_retry_sends_the_same_octets_again() -> None:
    """A true retransmit (RFC 2865 section 2.5): the server knows it by them."""
    with server(is_silent, accepts) as one:
        answer = ask(one, Patience(0.2, 20))

    assert isinstance(answer, Believed)
    assert answer.sent >= 2
    assert len(set(one.asked)) == 1


def test_silence_is_told_from_a_port_where_nobody_is() -> None:
    """The kernel of the server says the latter."""
    with server(is_silent) as one:
        assert ask(one, SOON) is Silence.TIMED_OUT
    assert ask(_gone(), SOON) is Silence.NOBODY_LISTENS


def _gone() -> Server:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    class Gone(Server):
        @property
        def port(self) -> int:
            return int(port)

    gone = Gone(())
    gone.socket.close()
    return gone


def trial(nas: Nas, steps: list[Step], *, protection: Protection = Protection.SIGNED) -> Trial:
    return Trial(nas, OURS, ENOUGH, steps.append, protection)


def test_a_challenge_is_shown_answered_and_sent_back_with_its_state() -> None:
    """A new request each time: identifier and authenticator differ, the State is the server's."""
    steps: list[Step] = []
    prompts: list[str] = []

    def answers(prompt: str) -> Secret:
        prompts.append(prompt)
        return Secret.from_text("654321")

    with server(asks, accepts) as one, Nas("127.0.0.1", one.port) as nas:
        answer = trial(nas, steps).log_in(login("password"), answers)

    first, second = map(parse, one.asked)
    assert isinstance(answer, Believed)
    assert answer.packet.code == Code.ACCESS_ACCEPT
    assert prompts == ["Code: "]
    assert (first.first(Type.STATE), second.first(Type.STATE)) == (None, b"state of the server")
    assert first.identifier != second.identifier
    assert first.authenticator != second.authenticator
    assert OURS.reveal(second.first(Type.USER_PASSWORD) or b"", second.authenticator) == b"654321"
    assert [step.request for step in steps] == ["Access-Request, PAP, signed"] * 2


def test_giving_up_leaves_the_challenge_as_the_answer() -> None:
    """An empty standard input, for instance."""
    with server(asks) as one, Nas("127.0.0.1", one.port) as nas:
        answer = trial(nas, []).log_in(login(), lambda _: None)

    assert isinstance(answer, Believed)
    assert answer.packet.code == Code.ACCESS_CHALLENGE
    assert len(one.asked) == 1


def test_a_server_that_asks_for_ever_is_left() -> None:
    """Bounded, whatever comes."""
    with server(asks) as one, Nas("127.0.0.1", one.port) as nas:
        answer = trial(nas, []).log_in(login(), lambda _: Secret.from_text("1"))

    assert isinstance(answer, Believed)
    assert len(one.asked) == MAX_CHALLENGES + 1


def test_requests_are_signed_first_or_not_at_all() -> None:
    """As a client of today, or as an old one."""
    signed_one = parse(login_request(login(), OURS, identifier=1, protection=Protection.SIGNED, random=bytes))
    unsigned = parse(login_request(login(), OURS, identifier=1, protection=Protection.UNSIGNED, random=bytes))

    assert signed_one.message_authenticator_at == 22
    assert OURS.signed(signed_one)
    assert unsigned.message_authenticator_at == 0


def test_chap_is_what_a_server_expects() -> None:
    """The Request Authenticator is the challenge."""
    request = parse(login_request(login("123456", Method.CHAP), OURS, identifier=1, protection=Protection.SIGNED, random=bytes))

    answer = chap_in(request)

    assert answer is not None
    assert answer("123456")
    assert not answer("123457")
    assert Type.USER_PASSWORD not in request


def test_status_and_accounting_are_made_with_the_secret() -> None:
    """Status-Server is signed, accounting is by its authenticator."""
    status = parse(status_request(OURS, identifier=1, protection=Protection.SIGNED, random=bytes))
    start, stop = map(parse, accounting_requests("alice", OURS, identifier=255, random=bytes))

    assert OURS.signed(status)
    assert OURS.accounting_request_is_good(start)
    assert OURS.accounting_request_is_good(stop)
    assert (start.first(Type.ACCT_STATUS_TYPE), stop.first(Type.ACCT_STATUS_TYPE)) == (b"\0\0\0\1", b"\0\0\0\2")
    assert start.first(Type.ACCT_SESSION_ID) == stop.first(Type.ACCT_SESSION_ID)
    assert (start.identifier, stop.identifier) == (255, 0)


@pytest.mark.parametrize(("name", "typed"), [("", "1"), ("a" * 254, "1"), ("alice", "1" * 129)])
def test_what_no_packet_carries_is_refused(name: str, typed: str) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidInput):
        login_request(
            Login(name, Secret.from_text(typed)), OURS, identifier=1, protection=Protection.SIGNED, random=bytes
        )


def test_addresses_that_cannot_be_had_are_told() -> None:
    """TEST-NET-1 is nobody's address."""
    assert can_send_from("127.0.0.9")
    assert not can_send_from("192.0.2.1")
    with pytest.raises(NotFound, match=r"from 192\.0\.2\.1"):
        Nas("127.0.0.1", 1812, source="192.0.2.1")


def test_what_was_typed_is_in_no_repr() -> None:
    """A traceback shows values."""
    assert "123456" not in repr(login())
