"""RADIUS over TLS, octet by octet: framing, identifiers, duplicates, certificates that change while connections are open."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.programs import PATIENCE_S
from tests.end_to_end.radius_certificates import Authority, Certificate
from tests.end_to_end.radius_door import Door, radius_door
from tests.end_to_end.radius_packets import (
    ACCESS_REQUEST,
    ACCT_SESSION_ID,
    ACCT_STATUS_TYPE,
    GRACE_S,
    PROXY_STATE,
    START,
    STATE,
    Answer,
    Nas,
    read_answer,
    signed,
)

SERVER_NAME, CLIENT_NAME, OTHER_NAME = "radius.example.org", "nas.example.org", "other.example.org"
SECRET = b"radsec"
CLIENTS = [
    {"name": "nas", "tls": {"subject": CLIENT_NAME}, "mode": "mfa_only", "empty_password": "challenge"},
    {"name": "other", "tls": {"subject": OTHER_NAME}, "mode": "mfa_only", "empty_password": "challenge"},
]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server_certificate(authority: Authority) -> Certificate:
    return authority.issue(SERVER_NAME, server=True)


@pytest.fixture(scope="module")
def client_certificate(authority: Authority) -> Certificate:
    return authority.issue(CLIENT_NAME)


@pytest.fixture(scope="module")
def door(
    template: Mfad, authority: Authority, server_certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Door]:
    files = {
        "certificate_file": str(server_certificate.certificate),
        "key_file": str(server_certificate.key),
        "client_ca_file": str(authority.path),
    }
    with radius_door(
        template, tmp_path_factory.mktemp("door"), CLIENTS, door={"tls": files}, listen=("tls://127.0.0.1:{tls}",)
    ) as one:
        yield one


@pytest.fixture
def person(door: Door) -> Person:
    return door.person()


class Connection:
    """One TLS connection. Packets are made as over UDP, with the secret that RFC 6614 fixes."""

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self.tls = tls
        # only makes packets: nothing is sent over its own socket
        self.nas = Nas(("127.0.0.1", 9), SECRET)
        self._buffer = b""

    def send(self, octets: bytes) -> None:
        self.tls.sendall(octets)

    def receive(self, *requests: bytes) -> list[Answer]:
        """Answers to ``requests``, in the order of these, whatever order they come in."""
        left = {request[1]: request for request in requests}
        found: dict[int, Answer] = {}
        while left:
            raw = self._packet()
            assert raw[1] in left, "an answer that nobody waits for"
            found[raw[1]] = read_answer(raw, SECRET, left.pop(raw[1]))
        return [found[request[1]] for request in requests]

    def ask(self, request: bytes) -> Answer:
        self.send(request)
        return self.receive(request)[0]

    def _packet(self) -> bytes:
        while len(self._buffer) < 4 or len(self._buffer) < struct.unpack("!H", self._buffer[2:4])[0]:
            more = self.tls.recv(65_536)
            assert more, "the connection ended"
            self._buffer += more
        length = struct.unpack("!H", self._buffer[2:4])[0]
        raw, self._buffer = self._buffer[:length], self._buffer[length:]
        return raw

    def is_silent(self, octets: bytes) -> bool:
        """Whether a Status-Server is all that is answered."""
        self.send(octets)
        assert self.ask(self.nas.status()).what == "Accept"
        self.tls.settimeout(GRACE_S)
        try:
            self._buffer += self.tls.recv(1)
        except TimeoutError:
            return not self._buffer
        else:
            return False
        finally:
            self.tls.settimeout(PATIENCE_S)

    def has_ended(self) -> bool:
        """Whether the other side hangs up."""
        try:
            return self.tls.recv(1) == b""
        except (ConnectionError, ssl.SSLError):
            return True


@contextmanager
def connection(
    door: Door, authority: Authority, own: Certificate, *, version: ssl.TLSVersion | None = None
) -> Iterator[Connection]:
    context = ssl.create_default_context(cafile=str(authority.path))
    context.load_cert_chain(own.certificate, own.key)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", door.ports["tls"])) as plain:
        plain.settimeout(PATIENCE_S)
        with context.wrap_socket(plain, server_hostname=SERVER_NAME) as tls:
            one = Connection(tls)
            with one.nas:
                yield one


@pytest.fixture
def tls(door: Door, authority: Authority, client_certificate: Certificate) -> Iterator[Connection]:
    with connection(door, authority, client_certificate) as one:
        yield one


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_both_versions_are_spoken(
    door: Door, authority: Authority, client_certificate: Certificate, person: Person, version: ssl.TLSVersion
) -> None:
    with connection(door, authority, client_certificate, version=version) as tls:
        assert tls.ask(tls.nas.login(person.name, person.next_code())).what == "Accept"


def test_signature_is_the_clients_choice_inside_tls_but_must_be_right(tls: Connection, person: Person) -> None:
    """4.1 rule 8."""
    code = person.next_code()
    wrong = tls.nas.login(person.name, code)
    wrong = signed(b"another", ACCESS_REQUEST, wrong[1], wrong[4:20], wrong[38:])

    assert tls.is_silent(wrong)
    assert tls.ask(tls.nas.login(person.name, code, (PROXY_STATE, b"x"), sign=False)).what == "Accept"


def test_packets_come_in_any_pieces(tls: Connection, door: Door, person: Person) -> None:
    """Octet by octet, and many in one."""
    request = tls.nas.login(person.name, person.next_code())
    for octet in request:
        tls.send(bytes((octet,)))
    assert tls.receive(request)[0].what == "Accept"

    requests = [tls.nas.login(f"nobody{number}", "123456") for number in range(100)]
    late = tls.nas.login(person.name, person.next_code())
    tls.send(b"".join(requests) + late[:30])
    assert {one.what for one in tls.receive(*requests)} == {"Reject"}
    tls.send(late[30:])
    assert tls.receive(late)[0].what == "Accept"


def test_every_identifier_may_be_under_way_at_once(tls: Connection, person: Person) -> None:
    requests = [tls.nas.login(f"nobody{number}", "123456", identifier=number) for number in range(256)]
    requests[77] = tls.nas.login(person.name, person.next_code(), identifier=77)
    tls.send(b"".join(requests))
    heard = [one.what for one in tls.receive(*requests)]

    assert heard.count("Accept") == 1
    assert heard[77] == "Accept"


def test_duplicates_are_those_of_one_connection(
    tls: Connection, door: Door, authority: Authority, client_certificate: Certificate, person: Person
) -> None:
    """Rows 37, 38: the same octets again get the same answer here, and are another request on another connection."""
    request = tls.nas.login(person.name, person.next_code())
    first = tls.ask(request)

    assert first.what == "Accept"
    assert tls.ask(request).raw == first.raw
    with connection(door, authority, client_certificate) as other:
        assert other.ask(request).what == "Reject"


def test_identifier_is_free_again_after_its_answer(tls: Connection, door: Door) -> None:
    for _ in range(3):
        one = door.person()
        assert tls.ask(tls.nas.login(one.name, one.next_code(), identifier=5)).what == "Accept"


def test_challenge_is_answered_over_another_connection(
    tls: Connection, door: Door, authority: Authority, client_certificate: Certificate, person: Person
) -> None:
    """Row 42: of the same client; over another client's it is nothing."""
    state = tls.ask(tls.nas.login(person.name, "")).state
    with connection(door, authority, authority.issue(OTHER_NAME)) as stranger:
        assert stranger.ask(stranger.nas.login(person.name, person.code_at(0), (STATE, state))).what == "Reject"
    with connection(door, authority, client_certificate) as other:
        assert other.ask(other.nas.login(person.name, person.next_code(), (STATE, state))).what == "Accept"


def test_accounting_and_logins_share_a_connection(tls: Connection, person: Person) -> None:
    """RFC 6614 section 2.5."""
    accounting = tls.nas.accounting((ACCT_STATUS_TYPE, START), (ACCT_SESSION_ID, b"1"))
    login = tls.nas.login(person.name, person.next_code())
    tls.send(accounting + login)

    assert [one.what for one in tls.receive(accounting, login)] == ["Accounting-Response", "Accept"]


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"\1\1\0\x13" + bytes(16), id="length-19"),
        pytest.param(b"\1\1\0\0" + bytes(16), id="length-0"),
        pytest.param(b"\1\1\x10\1" + bytes(16), id="length-4097"),
        pytest.param(b"\xff" * 64, id="noise"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="http"),
    ],
)
def test_stream_that_cannot_be_followed_is_ended(tls: Connection, octets: bytes) -> None:
    """Where the next packet begins is not known any more."""
    tls.send(octets)

    assert tls.has_ended()


@pytest.mark.parametrize(
    "attribute",
    [pytest.param(b"\x1a\0", id="7"), pytest.param(b"\x1a\6\0", id="8"), pytest.param(b"\x1a", id="9")],
)
def test_packet_that_is_wrong_inside_is_silence_or_the_end(
    door: Door, authority: Authority, client_certificate: Certificate, tls: Connection, person: Person, attribute: bytes
) -> None:
    """Rows 7 to 9: never an answer, and never the trouble of another connection."""
    raw = tls.nas.login(person.name, person.next_code(), sign=False) + attribute
    tls.send(raw[:2] + struct.pack("!H", len(raw)) + raw[4:])
    tls.send(tls.nas.status())
    try:
        assert tls._packet()[1] != raw[1]
    except (AssertionError, ConnectionError, ssl.SSLError):
        assert tls.has_ended()
    with connection(door, authority, client_certificate) as other:
        assert other.ask(other.nas.login(person.name, person.code_at(person.last_step))).what == "Accept"


def test_client_that_never_reads_is_hung_up_on(door: Door, authority: Authority, client_certificate: Certificate) -> None:
    """Its answers would fill the memory."""
    states = [(PROXY_STATE, os.urandom(250)) for _ in range(8)]
    with connection(door, authority, client_certificate) as tls:
        batch = b"".join(tls.nas.login("nobody", "123456", *states, identifier=number) for number in range(256))
        with pytest.raises((ConnectionError, ssl.SSLError)):
            _send_again_and_again(tls, batch)
    with connection(door, authority, client_certificate) as other:
        assert other.ask(other.nas.status()).what == "Accept"


def _send_again_and_again(tls: Connection, batch: bytes) -> None:
    for _ in range(500):
        tls.send(batch)


def test_certificate_is_replaced_by_a_reload(
    template: Mfad, authority: Authority, client_certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """New connections see the new one, open ones go on; a client that is gone from the configuration is hung up on."""
    place = tmp_path_factory.mktemp("replaced")
    first, own = authority.issue(SERVER_NAME, server=True), Certificate(place / "own.pem", place / "own.key", "")
    shutil.copy(first.certificate, own.certificate)
    shutil.copy(first.key, own.key)
    files = {"certificate_file": str(own.certificate), "key_file": str(own.key), "client_ca_file": str(authority.path)}
    with radius_door(template, place / "mfad", CLIENTS, door={"tls": files}, listen=("tls://127.0.0.1:{tls}",)) as door:
        with connection(door, authority, client_certificate) as tls:
            before = tls.tls.getpeercert(binary_form=True)
            second = authority.issue(SERVER_NAME, server=True)
            shutil.copy(second.certificate, own.certificate)
            shutil.copy(second.key, own.key)
            door.mfad.reload()
            assert tls.ask(tls.nas.status()).what == "Accept"
            with connection(door, authority, client_certificate) as other:
                after = other.tls.getpeercert(binary_form=True)
                assert other.ask(other.nas.status()).what == "Accept"
            door.change(CLIENTS[1:])
            tls.send(tls.nas.status())
            assert tls.has_ended()

        assert before != after
