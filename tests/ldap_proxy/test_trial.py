"""The client of ``mfactl ldap test`` against servers that behave, and servers that do not."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldap_proxy import message
from ldap_proxy.message import ResultCode
from ldap_proxy.settings import Scheme, Server
from ldap_proxy.trial import (
    MAX_PDU,
    Account,
    Act,
    Connection,
    Done,
    Failed,
    Failure,
    Login,
    Search,
    Step,
    Tls,
    Trial,
    dn_of,
)
from mfa_core.errors import InvalidInput
from mfa_core.secret import Secret
from tests.end_to_end.programs import PATIENCE_S
from tests.end_to_end.radius_certificates import Authority, Certificate

ALICE, SERVICE, BASE = "uid=alice,ou=people,dc=example,dc=org", "cn=search,dc=example,dc=org", "dc=example,dc=org"
SOON_S = 0.2

Reply = Callable[[bytes], bytes]
"""What a server sends for the octets that came; empty to end the connection."""


@dataclass(slots=True)
class Peer:
    """Answers what it reads by the first of ``replies``, then the second, and so on; keeps quiet after the last one.

    A ``context`` is TLS from the first octet; where ``start`` is set, after the first answer.
    """

    replies: Sequence[Reply]
    context: ssl.SSLContext | None = None
    start: bool = False
    asked: list[bytes] = field(default_factory=list)
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def server(self) -> Server:
        scheme = Scheme.LDAPS if self.context is not None and not self.start else Scheme.LDAP
        return Server(scheme, "127.0.0.1", int(self.listener.getsockname()[1]))

    def serve(self) -> None:
        while True:
            try:
                opened, _ = self.listener.accept()
            except OSError:
                return
            opened.settimeout(PATIENCE_S)
            # A client that goes concludes something, which is asserted elsewhere.
            with ExitStack() as stack, suppress(OSError):
                self._answer(stack.enter_context(opened), stack)

    def _answer(self, one: socket.socket, stack: ExitStack) -> None:
        if self.context is not None and not self.start:
            one = stack.enter_context(self.context.wrap_socket(one, server_side=True))
        for number, reply in enumerate(self.replies):
            octets = one.recv(65_536)
            if not octets:
                return
            self.asked.append(octets)
            answer = reply(octets)
            if not answer:
                return
            one.sendall(answer)
            if number == 0 and self.start and self.context is not None:
                one = stack.enter_context(self.context.wrap_socket(one, server_side=True))
        one.recv(1)


@contextmanager
def peer(*replies: Reply, context: ssl.SSLContext | None = None, start: bool = False) -> Iterator[Peer]:
    one = Peer(replies, context, start)
    thread = threading.Thread(target=one.serve)
    thread.start()
    try:
        yield one
    finally:
        one.listener.shutdown(socket.SHUT_RDWR)
        one.listener.close()
        thread.join(PATIENCE_S)


def answers(number: int, tag: int, code: int = 0, text: str = "") -> Reply:
    return lambda _: message.build_result(number, tag, code, text)


def octets(value: bytes) -> Reply:
    return lambda _: value


def ended(_: bytes) -> bytes:
    return b""


def entry(number: int, dn: str) -> bytes:
    from ldap_proxy.ber import wrapped

    return message.message(number, message.SEARCH_ENTRY, wrapped(0x04, dn.encode()) + wrapped(0x30, b""))


def run(server: Server, login: Login, typed: str = "secret,123456", *, tls: Tls | None = None) -> tuple[Step, list[Step]]:
    told: list[Step] = []
    last = Trial(server, told.append, tls, PATIENCE_S).log_in(login, lambda _: Secret.from_text(typed))
    return last, told


def failure_of(step: Step) -> Failure:
    assert isinstance(step.answer, Failed), step
    return step.answer.failure


def test_login_is_bound_and_asks_who_it_is() -> None:
    """A right one, with the octets that an application sends."""
    who = message.build_extended_response(2, 0, value=b"dn:" + ALICE.encode())
    with peer(answers(1, message.BIND_RESPONSE), octets(who)) as one:
        last, told = run(one.server, Login(ALICE))

    assert [step.act for step in told] == [Act.CONNECT, Act.BIND, Act.WHO_AM_I]
    assert last is told[1]
    assert last.is_good
    assert isinstance(told[2].answer, Done)
    assert told[2].answer.seen == f"dn:{ALICE}"
    request = message.parse_bind(one.asked[0])
    assert (request.name.decode(), request.version) == (ALICE, 3)
    assert request.password is not None
    assert request.password.same_as(Secret(b"secret,123456"))


def test_refusal_ends_it_and_carries_code_and_text() -> None:
    """The identity is not asked for any more."""
    with peer(answers(1, message.BIND_RESPONSE, 49, "80090308: data 532")) as one:
        last, told = run(one.server, Login(ALICE))

    assert [step.act for step in told] == [Act.CONNECT, Act.BIND]
    assert last.answer.result is not None
    assert (last.is_good, last.answer.result.code, last.answer.result.diagnostic) == (False, 49, b"80090308: data 532")


def test_search_by_the_account_finds_whom_to_bind() -> None:
    """Service bind, search, and the bind as the one that was found, on one connection."""
    found = entry(2, ALICE) + message.build_result(2, message.SEARCH_DONE, 0)
    with peer(
        answers(1, message.BIND_RESPONSE),
        octets(found),
        answers(3, message.BIND_RESPONSE),
        answers(4, message.EXTENDED_RESPONSE, 2),
    ) as one:
        last, told = run(one.server, Login(account=Account(SERVICE, Secret(b"s")), search=Search(BASE, "uid", "alice")))

    assert [step.act for step in told] == [Act.CONNECT, Act.SERVICE_BIND, Act.SEARCH, Act.BIND, Act.WHO_AM_I]
    assert message.parse_bind(one.asked[2]).name.decode() == ALICE
    # a directory without WhoAmI lets in nonetheless
    assert (last.act, last.is_good, told[-1].is_good) == (Act.BIND, True, False)


@pytest.mark.parametrize(
    ("names", "code", "failure"),
    [
        ([], 0, Failure.NOT_FOUND),
        ([ALICE, SERVICE], 0, Failure.AMBIGUOUS),
        ([ALICE, SERVICE], ResultCode.SIZE_LIMIT_EXCEEDED, Failure.AMBIGUOUS),
        ([ALICE, SERVICE, BASE], 0, Failure.AMBIGUOUS),
    ],
    ids=["nobody", "two", "two of many", "more than was asked for"],
)
def test_search_must_find_exactly_one(names: list[str], code: int, failure: Failure) -> None:
    """Nobody is asked for a password before that is known."""
    found = b"".join(entry(1, name) for name in names) + message.build_result(1, message.SEARCH_DONE, code)
    with peer(octets(found)) as one:
        last, _ = run(one.server, Login(search=Search(BASE, "uid", "alice")))

    assert failure_of(last) is failure


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (entry(1, ALICE) + message.build_result(1, message.SEARCH_DONE, 0), None),
        (message.build_result(1, message.SEARCH_DONE, 0), Failure.NOT_FOUND),
    ],
    ids=["there", "hidden"],
)
def test_entry_is_looked_for(reply: bytes, failure: Failure | None) -> None:
    """By whoever is bound: the doctor asks so for exempt accounts."""
    with peer(octets(reply)) as one, Connection(one.server, timeout_s=PATIENCE_S) as connection:
        assert isinstance(connection.open(), Done)
        answer = connection.look(ALICE)

    assert (answer.failure if isinstance(answer, Failed) else None) is failure


def test_name_that_is_no_text_goes_as_it_is() -> None:
    """Bytes of the command line that no decoder took."""
    with peer(answers(1, message.BIND_RESPONSE, 49)) as one:
        run(one.server, Login("uid=\udcff"))

    assert message.parse_bind(one.asked[0]).name == b"uid=\xff"


def test_second_bind_comes_on_a_connection_of_its_own() -> None:
    """With the same text, as an application sends it that has kept it."""
    with peer(answers(1, message.BIND_RESPONSE), answers(2, message.EXTENDED_RESPONSE)) as one:
        last, told = run(one.server, Login(ALICE, again=True))

    assert [step.act for step in told] == [Act.CONNECT, Act.BIND, Act.WHO_AM_I, Act.CONNECT, Act.BIND_AGAIN]
    assert last.is_good
    assert one.asked[0] == one.asked[2]


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (ended, Failure.CLOSED),
        (octets(message.notice_of_disconnection(52, "gone")), Failure.DISCONNECTED),
        (octets(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Failure.NOT_LDAP),
        (octets(b"\x30\x80"), Failure.NOT_LDAP),
        (octets(b"\x30\x84" + (MAX_PDU + 1).to_bytes(4, "big") + b"\x02\x01\x01"), Failure.NOT_LDAP),
        (answers(7, message.BIND_RESPONSE), Failure.NOT_LDAP),
        (answers(1, message.SEARCH_DONE), Failure.NOT_LDAP),
        (lambda _: entry(1, ALICE), Failure.NOT_LDAP),
    ],
    ids=["end", "notice", "web server", "indefinite", "huge", "another message", "another operation", "entry"],
)
def test_whatever_is_no_answer_is_told(reply: Reply, failure: Failure) -> None:
    """Nothing of it is taken for a login."""
    with peer(reply) as one:
        last, _ = run(one.server, Login(ALICE))

    assert failure_of(last) is failure
    if failure is Failure.DISCONNECTED:
        assert last.answer.result is not None
        assert last.answer.result.code == ResultCode.UNAVAILABLE


def test_answer_that_comes_octet_by_octet_is_read() -> None:
    """As the network may cut it."""
    parts = iter(message.build_result(1, message.BIND_RESPONSE, 0))
    client, server = socket.socketpair()
    with client, server:
        connection = Connection(Server(Scheme.LDAP, "127.0.0.1", 389), timeout_s=PATIENCE_S)
        connection._socket = client
        thread = threading.Thread(target=lambda: [server.sendall(bytes([part])) for part in parts])
        thread.start()
        answer = connection.bind(ALICE, Secret(b"x"))
        thread.join()

    assert isinstance(answer, Done)
    assert answer.is_good


def test_silence_is_told() -> None:
    """A server that takes the connection, and says nothing."""
    told: list[Step] = []
    with peer(lambda _: _wait()) as one:
        last = Trial(one.server, told.append, timeout_s=SOON_S).log_in(Login(ALICE), lambda _: Secret(b"x"))

    assert failure_of(last) is Failure.TIMED_OUT


def _wait() -> bytes:
    threading.Event().wait(3 * SOON_S)
    return b""


def test_places_without_a_server_are_told(tmp_path: Path) -> None:
    """A port, a socket and a name."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    expected = {
        Server(Scheme.LDAP, "127.0.0.1", port): Failure.NOBODY_LISTENS,
        Server(Scheme.LDAPI, str(tmp_path / "ldapi")): Failure.NOBODY_LISTENS,
        Server(Scheme.LDAP, "no-such-host.invalid", 389): Failure.NO_ADDRESS,
    }

    assert {server: failure_of(run(server, Login(ALICE))[0]) for server in expected} == expected


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.issue("localhost", server=True)


def served(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


def test_certificate_is_judged_by_ca_and_name(authority: Authority, certificate: Certificate) -> None:
    """As an application does that is set up well; the name of another host is not good."""
    good = Tls(ca_file=authority.path, name="localhost")
    for tls, failure in (
        (good, None),
        (Tls(ca_file=authority.path, name="ldap.example.org"), Failure.UNTRUSTED),
        (Tls(name="localhost"), Failure.UNTRUSTED),
        (Tls(verify=False), None),
        (Tls(exactly=certificate.certificate), None),
        (Tls(exactly=authority.path), Failure.UNTRUSTED),
        (Tls(ca_file=authority.path, name="localhost", pins=frozenset({certificate.fingerprint})), None),
        (Tls(verify=False, pins=frozenset({"00" * 32})), Failure.UNTRUSTED),
    ):
        with peer(answers(1, message.BIND_RESPONSE), context=served(certificate)) as one:
            last, told = run(one.server, Login(ALICE), tls=tls)
        if failure is None:
            assert last.is_good
            assert [step.act for step in told[:2]] == [Act.CONNECT, Act.TLS]
        else:
            assert (failure_of(last), last.act, one.asked) == (failure, Act.TLS, [])


def test_start_tls_begins_after_its_answer(authority: Authority, certificate: Certificate) -> None:
    """The bind travels inside."""
    tls = Tls(start=True, ca_file=authority.path, name="localhost")
    with peer(
        answers(1, message.EXTENDED_RESPONSE), answers(2, message.BIND_RESPONSE), context=served(certificate), start=True
    ) as one:
        last, told = run(one.server, Login(ALICE), tls=tls)

    assert last.is_good
    assert message.extended_oid(one.asked[0]) == message.START_TLS
    assert [step.act for step in told[:3]] == [Act.CONNECT, Act.TLS, Act.BIND]


@pytest.mark.parametrize(
    ("reply", "good"),
    [
        (answers(1, message.EXTENDED_RESPONSE, ResultCode.PROTOCOL_ERROR), Done),
        (lambda _: message.build_result(1, message.EXTENDED_RESPONSE, 0) + b"\x30\x05\x02\x01\x02\x42\x00", Failed),
    ],
    ids=["refused", "octets in clear behind it"],
)
def test_start_tls_that_is_not_to_be_trusted_ends_it(reply: Reply, good: type[object], authority: Authority) -> None:
    """No password leaves."""
    with peer(reply) as one:
        last, _ = run(one.server, Login(ALICE), tls=Tls(start=True, ca_file=authority.path))

    assert (last.act, last.is_good, len(one.asked)) == (Act.TLS, False, 1)
    assert isinstance(last.answer, good)


def test_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    """Before a password is asked for."""
    nothing = tmp_path / "nothing"
    nothing.write_text("nothing")
    with peer() as one:
        for tls in (Tls(ca_file=nothing), Tls(exactly=nothing), Tls(certificate=nothing), Tls(exactly=tmp_path / "absent")):
            with pytest.raises(InvalidInput):
                run(one.server, Login(ALICE), tls=tls)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("alice", "alice"),
        ("a,b+c", "a\\,b\\+c"),
        (" a ", "\\ a\\ "),
        ("#1", "\\#1"),
        ("a\0", "a\\00"),
        (" ", "\\ "),
        ('"\\', '\\"\\\\'),
    ],
)
def test_names_are_escaped_in_a_dn(value: str, written: str) -> None:
    """RFC 4514 section 2.4: nobody becomes another entry by his name."""
    assert dn_of("uid", value, BASE) == f"uid={written},{BASE}"


@given(st.binary(max_size=64))
def test_any_octets_are_an_answer_or_a_failure(answer: bytes) -> None:
    """Never another exception."""
    client, server = socket.socketpair()
    with client, server:
        connection = Connection(Server(Scheme.LDAP, "127.0.0.1", 389), timeout_s=PATIENCE_S)
        connection._socket = client
        server.sendall(answer)
        server.shutdown(socket.SHUT_WR)

        assert isinstance(connection.bind(ALICE, Secret(b"x")), Done | Failed)
