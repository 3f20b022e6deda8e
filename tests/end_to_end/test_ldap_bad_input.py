"""Octets that are no LDAP, or LDAP that nobody would send: what do they do to the door, to its directory, to everybody else?

Wherever nonsense can carry a request along, it carries an exempt account's bind with its right password: what slipped through
would be seen at the directory.
"""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.ldap_directory import ADMIN, BASE, PASSWORDS, SERVICE, THINGS, dn_of, password_of
from tests.end_to_end.ldap_door import Setting, full, ldap_setting
from tests.end_to_end.ldap_relay import Relay
from tests.end_to_end.ldap_wire import (
    ADD_RESPONSE,
    AUTH_METHOD_NOT_SUPPORTED,
    BIND_REQUEST,
    BIND_RESPONSE,
    BUSY,
    EVERYTHING,
    EXTENDED_RESPONSE,
    INVALID_CREDENTIALS,
    PROTOCOL_ERROR,
    SEARCH_DONE,
    SEARCH_ENTRY,
    SEARCH_REQUEST,
    SUCCESS,
    WHOAMI,
    Client,
    add,
    bind,
    delete,
    entry,
    extended,
    integer,
    message,
    octets,
    result,
    sasl_bind,
    search,
    tlv,
    unbind,
)
from tests.end_to_end.programs import PATIENCE_S, wait_until

CROWDED = "127.0.5.2"
"""An address that takes all its connections."""
PER_SOURCE = 20
GOOD = bind(1, SERVICE, PASSWORDS[SERVICE])
HEADER_S, IDLE_S = 2, 10


@pytest.fixture(scope="module")
def setting(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    limits = {"header": f"{HEADER_S}s", "idle": f"{IDLE_S}s", "connections_per_source": PER_SOURCE}
    # a relay that holds things up is no directory that is away; nor does slapd mind how much it is asked at once
    door, slapd = {"limits": limits, "health_interval": "10m"}, "conn_max_pending 10000\nconn_max_pending_auth 10000\n"
    with ldap_setting(template, tmp_path_factory.mktemp("ldap"), door=door, slapd=slapd) as one:
        yield one


@pytest.fixture
def seen(setting: Setting) -> Relay:
    """What the directory sees in this test."""
    return setting.relay.forget()


@pytest.fixture
def person(setting: Setting) -> Person:
    return setting.door.person()


@pytest.fixture(autouse=True)
def bystander(setting: Setting) -> Iterator[Client]:
    """Somebody who was there before is still there afterwards, and others can come."""
    with setting.door.client("127.0.5.9") as bystander:
        assert bystander.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
        yield bystander
        assert bystander.whoami() == f"dn:{SERVICE}"
    with setting.door.client("127.0.5.9") as other:
        assert other.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
    assert setting.door.mfad.running
    assert "Traceback" not in setting.door.mfad.log()


def is_refused(client: Client) -> None:
    """A Notice of Disconnection with protocolError (RFC 4511 section 4.4.1), and the end."""
    answers = client.rest()
    assert [(one.is_notice, one.code) for one in answers] == [(True, PROTOCOL_ERROR)], answers


def inner(number: bytes, operation: bytes) -> bytes:
    return tlv(0x30, number, operation)


SIMPLE = tlv(BIND_REQUEST, integer(3), octets(SERVICE), octets(PASSWORDS[SERVICE], 0x80))
BODY = integer(3) + octets(SERVICE) + octets(PASSWORDS[SERVICE], 0x80)

NO_PDU = {
    "indefinite length": b"\x30\x80" + integer(1) + SIMPLE + b"\0\0",
    "length of 2 GiB": b"\x30\x84\x7f\xff\xff\xff" + GOOD,
    "length of 4 GiB": b"\x30\x84\xff\xff\xff\xff" + GOOD,
    "length in 5 octets": b"\x30\x85\x00\x00\x00\x00\x10" + GOOD,
    "length in 8 octets": b"\x30\x88\xff\xff\xff\xff\xff\xff\xff\xff",
    "length in 127 octets": b"\x30\xff" + bytes(127),
    "empty message": b"\x30\x00" + GOOD,
    "HTTP": b"GET / HTTP/1.1\r\nHost: ldap.example.org\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "SSH": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "NULs": bytes(4096),
    "set": b"\x31" + GOOD[1:],
    "message id of five octets": inner(b"\x02\x05\x00\x00\x00\x00\x01", SIMPLE),
    "message id without octets": inner(b"\x02\x00", SIMPLE),
    "negative message id": inner(b"\x02\x01\xff", SIMPLE),
    "message id as a string": inner(b"\x04\x01\x01", SIMPLE),
    "message id alone": inner(integer(1), b""),
    "operation that does not fit": tlv(0x30, integer(1), b"\x60\x7f" + BODY),
    "operation of indefinite length": tlv(0x30, integer(1), b"\x60\x80" + BODY + b"\0\0"),
    "operation of a huge length": tlv(0x30, integer(1), b"\x60\x84\x7f\xff\xff\xff" + BODY),
}
NO_REQUEST = {
    "operation that nobody knows": message(1, tlv(0x7E, BODY)),
    "operation with a universal tag": message(1, tlv(0x30, BODY)),
    "operation with a long tag": message(1, b"\x7f\x60" + bytes((len(BODY),)) + BODY),
    "bind response": result(1, BIND_RESPONSE, 0),
    "search result done": result(1, SEARCH_DONE, 0),
    "search result entry": entry(1, BASE),
    "extended response": result(1, EXTENDED_RESPONSE, 0),
    "primitive bind": message(1, tlv(0x40, BODY)),
    "octets behind the password": message(1, tlv(BIND_REQUEST, BODY, b"\x04\x01x")),
    "two passwords": message(1, tlv(BIND_REQUEST, BODY, octets("", 0x80))),
    "bind without a password": message(1, tlv(BIND_REQUEST, integer(3), octets(SERVICE))),
    "empty bind": message(1, tlv(BIND_REQUEST)),
    "name of indefinite length": message(1, tlv(BIND_REQUEST, integer(3), b"\x04\x80abc\0\0", octets("x", 0x80))),
    "name in pieces": message(1, tlv(BIND_REQUEST, integer(3), tlv(0x24, octets(SERVICE)), octets("x", 0x80))),
    "name that does not fit": message(1, tlv(BIND_REQUEST, integer(3), b"\x04\x7fabc")),
    "version as a string": message(1, tlv(BIND_REQUEST, octets("3"), octets(SERVICE), octets("x", 0x80))),
    "version without octets": message(1, tlv(BIND_REQUEST, b"\x02\x00", octets(SERVICE), octets("x", 0x80))),
    "SASL without a mechanism": message(1, tlv(BIND_REQUEST, integer(3), octets(""), tlv(0xA3))),
    "SASL and more": message(1, tlv(BIND_REQUEST, integer(3), octets(""), tlv(0xA3, octets("A"), octets("b"), octets("c")))),
    "extended request without a name": message(1, tlv(0x77)),
    "extended request with a broken name": message(1, tlv(0x77, b"\x80\x7fabc")),
    "something else behind the operation": inner(integer(1), SIMPLE + octets("x")),
    "two operations": inner(integer(1), SIMPLE + SIMPLE),
    "controls that do not fit": inner(integer(1), SIMPLE + b"\xa0\x7f\x30\x00"),
}


UNKNOWN_CREDENTIALS = {
    "a tag that nobody knows": octets("x", 0x8F),
    "a password in pieces": tlv(0xA0, octets("x")),
    "Kerberos of LDAP version 2": octets("x", 0x81),
}


@pytest.mark.parametrize("what", UNKNOWN_CREDENTIALS)
def test_credentials_of_another_kind_are_refused(setting: Setting, seen: Relay, what: str) -> None:
    """RFC 4511 section 4.2: authMethodNotSupported, and the connection goes on, as nobody's."""
    with setting.door.client() as client:
        assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
        body = integer(3) + octets(SERVICE) + UNKNOWN_CREDENTIALS[what]
        assert client.ask(message(9, tlv(BIND_REQUEST, body))).code == AUTH_METHOD_NOT_SUPPORTED
        assert client.whoami() == ""
    assert len(seen.requests(BIND_REQUEST)) == 1


@pytest.mark.parametrize("what", NO_PDU)
def test_what_is_no_pdu_ends_the_connection(setting: Setting, seen: Relay, what: str) -> None:
    """Row 39: by a Notice of Disconnection; nothing of it is handed on, nor what comes behind it."""
    with setting.door.client() as client:
        client.send(NO_PDU[what], GOOD)
        is_refused(client)
    assert seen.requests(BIND_REQUEST) == []


@pytest.mark.parametrize("what", NO_REQUEST)
def test_what_is_no_request_ends_the_connection(setting: Setting, seen: Relay, what: str) -> None:
    """Row 41: also as the second message, and nothing of it is handed on."""
    for first in (b"", extended(7, WHOAMI)):
        with setting.door.client() as client:
            client.send(first)
            if first:
                assert client.receive().code == SUCCESS
            client.send(NO_REQUEST[what], GOOD)
            is_refused(client)
    assert seen.requests(BIND_REQUEST) == []


def test_random_octets(setting: Setting, seen: Relay) -> None:
    """Row 39: a megabyte, and short ones; seeded."""
    draw = random.Random(4511)
    before = setting.door.resident_kib()
    for size in [1 << 20] + [draw.randrange(1, 200) for _ in range(100)]:
        with setting.door.client() as client:
            data = draw.randbytes(size)
            try:
                client.send(data)
                client.socket.shutdown(socket.SHUT_WR)
                client.rest()
            except (ConnectionError, OSError):
                # it ended while we were still sending
                continue
    assert seen.requests(BIND_REQUEST) == []
    assert setting.door.resident_kib() - before < 20_000


def test_announced_lengths_cost_no_memory(setting: Setting) -> None:
    """Row 39: many who announce the most that they may, and send nothing of it."""
    before = setting.door.resident_kib()
    clients = [setting.door.client(f"127.0.5.{20 + number % 8}") for number in range(120)]
    try:
        for client in clients:
            client.send(b"\x30\x83\x03\xff\x00\x02\x01\x01\x63\x83\x03\xfe\x00")
        assert setting.door.resident_kib() - before < 10_000
    finally:
        for client in clients:
            client.close()


def test_octet_by_octet(setting: Setting, seen: Relay, person: Person) -> None:
    """A bind and a search in segments of one octet are what they are."""
    with setting.door.client() as client:
        for octet in bind(1, dn_of(person.name), full(person)) + search(2, BASE):
            client.send(bytes((octet,)))
        assert client.receive().code == SUCCESS
        assert [one.tag for one in client.until(SEARCH_DONE, 2)] == [SEARCH_ENTRY, SEARCH_DONE]
    assert seen.binds() == [(dn_of(person.name), password_of(person.name).encode())]


@pytest.mark.parametrize("cut", range(1, len(GOOD), 7))
def test_any_cut_of_a_bind_is_the_bind(setting: Setting, seen: Relay, cut: int) -> None:
    """The peers that we know let a bind pass unseen when its first segment is one octet."""
    request = bind(1, dn_of("person1000"), password_of("person1000"))
    with setting.door.client() as client:
        client.search("")
        client.send(request[:cut])
        client.send(request[cut:], search(2, BASE))
        assert client.receive().code == INVALID_CREDENTIALS
        assert [one.tag for one in client.until(SEARCH_DONE, 2)] == [SEARCH_DONE]
    assert seen.binds() == []


def test_lengths_need_not_be_the_shortest(setting: Setting, seen: Relay, person: Person) -> None:
    """BER allows it, and clients do it; the directory sees the shortest."""
    typed = full(person)

    def longer(element: bytes) -> bytes:
        body = element[2:] if element[1] < 0x80 else element[2 + (element[1] & 0x7F) :]
        return element[:1] + b"\x84" + len(body).to_bytes(4, "big") + body

    body = b"\x02\x81\x01\x03" + longer(octets(dn_of(person.name))) + longer(octets(typed, 0x80))
    with setting.door.client() as client:
        client.send(longer(tlv(0x30, b"\x02\x04\x00\x00\x00\x05", longer(tlv(BIND_REQUEST, body)))))
        answer = client.receive()
        assert (answer.number, answer.code) == (5, SUCCESS)
    (request,) = seen.requests(BIND_REQUEST)
    assert request.octets == bind(5, dn_of(person.name), password_of(person.name))


@pytest.mark.parametrize("number", [0, 1, 127, 128, 65_536, 2**31 - 1])
def test_message_ids(setting: Setting, number: int) -> None:
    """All of 0 to 2^31-1 come back, or 0 ends it (RFC 4511 section 4.1.1.1 reserves it)."""
    with setting.door.client() as client:
        client.send(bind(number, SERVICE, PASSWORDS[SERVICE]))
        if number == 0:
            try:
                first = client.receive()
            except EOFError:
                return
            assert first.is_notice or first.code == SUCCESS
            return
        assert client.receive().number == number
        client.send(search(number, BASE))
        assert [one.number for one in client.until(SEARCH_DONE, number)] == [number, number]


def deep_filter(depth: int) -> bytes:
    """``(!(!(!...)))``, built without recursion."""
    wanted = EVERYTHING
    for _ in range(depth):
        wanted = tlv(0xA2, wanted)
    return wanted


def test_nested_filter(setting: Setting, seen: Relay) -> None:
    """Row 43: 8,000 deep; the directory's answer, octet by octet, and the directory's end of a connection."""
    request = search(5, BASE, wanted=deep_filter(8000))
    heard = []
    for client in (Client(setting.straight), setting.door.client()):
        with client:
            assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
            client.send(request)
            heard.append(client.receive())
    assert heard[1].octets == heard[0].octets
    assert request in seen.sent()


def test_wide_filter(setting: Setting) -> None:
    """Row 43: more than an anonymous session may send, from one that is bound."""
    wanted = tlv(0xA1, *(tlv(0xA3, octets("cn"), octets(f"nobody{number:06}")) for number in range(15_000)))
    request = search(5, THINGS, scope=2, wanted=wanted)
    assert len(request) > 300_000
    with setting.door.client() as client:
        assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
        client.send(request)
        assert client.until(SEARCH_DONE, 5)[-1].code == SUCCESS
    with setting.door.client() as client:
        client.send(request[: len(request) // 2])
        is_refused(client)


@pytest.mark.parametrize("how", ["whole", "in pieces"])
def test_large_entry(setting: Setting, how: str) -> None:
    """Row 43: nearly 4 MiB, added and found again."""
    dn, value = f"cn=large {how},{THINGS}", os.urandom(1_950_000).hex()
    request = add(9, dn, [("objectClass", "device"), ("serialNumber", value)])
    with setting.door.client() as client:
        assert client.bind(ADMIN, PASSWORDS[ADMIN]).code == SUCCESS
        if how == "whole":
            client.send(request)
        else:
            for start in range(0, len(request), 100_001):
                client.send(request[start : start + 100_001])
        answer = client.receive()
        assert (answer.tag, answer.code) == (ADD_RESPONSE, SUCCESS), answer.text
        found = client.search(dn)[0]
        assert value.encode() in found.octets
        client.ask(delete(10, dn))


def test_too_large(setting: Setting, seen: Relay) -> None:
    """Row 43: 5 MiB of somebody who is bound."""
    before = setting.door.resident_kib()
    with setting.door.client() as client:
        assert client.bind(ADMIN, PASSWORDS[ADMIN]).code == SUCCESS
        request = add(9, f"cn=huge,{THINGS}", [("objectClass", "device"), ("description", "x" * 5_242_880)])
        client.send(request[:100])
        is_refused(client)
    assert b"cn=huge" not in seen.sent()
    assert setting.door.resident_kib() - before < 10_000


def test_credentials_of_any_size(setting: Setting, seen: Relay) -> None:
    """Names and passwords of 100 KiB are refused, like any wrong ones."""
    with setting.door.client() as client:
        for dn, typed in ((SERVICE, "x" * 100_000), ("x" * 100_000, "y,123456"), (dn_of("z" * 100_000), "y,123456")):
            answer = client.bind(dn, typed)
            assert answer.code in {INVALID_CREDENTIALS, 34, 1}
        answer = client.ask(sasl_bind(5, "PLAIN", b"x" * 100_000))
        assert answer.code != SUCCESS


def test_dns_of_all_kinds(setting: Setting) -> None:
    """Nothing of a DN breaks anything."""
    names = [
        "uid=", "=", ",", "uid=a,,dc=b", "uid=\\", "uid=\\zz", "uid=#04", "uid=#zz", 'uid="x', "uid=a+", "uid=" + "a+b=" * 3000,
        "\0", "uid=\0", "uid=a\nb,dc=c", "u\u0131d=x", "uid=\u202e", "dc=" + ",dc=x" * 5000, "1.2.3=x", "1.=x", " " * 500,
    ]  # fmt: skip
    with setting.door.client() as client:
        for name in [*(one.encode() for one in names), b"\xff\xfe", b"uid=\xc3\x28," + BASE.encode()]:
            assert client.bind(name, "password,123456").code != SUCCESS  # type: ignore[arg-type]
            assert client.bind(name, "password").code != SUCCESS  # type: ignore[arg-type]


def test_passwords_of_all_kinds(setting: Setting, seen: Relay, person: Person) -> None:
    """Octets, NULs, other encodings; none is let in, and none that has no code goes to the directory as a user's."""
    with setting.door.client() as client:
        for typed in (
            b"\0",
            b"\xff",
            b"\xff,123456",
            b",",
            b",,",
            b"," * 1000,
            b"\0,123456",
            "\u0661\u0662\u0663,123456".encode(),
        ):
            assert client.bind(dn_of(person.name), typed).code == INVALID_CREDENTIALS
    assert (dn_of(person.name), b"") not in seen.binds()


def test_slow_client_is_not_waited_for(setting: Setting) -> None:
    """Row 44: a PDU that has begun must be complete in time, however busily its octets trickle."""
    stop = threading.Event()
    with setting.door.client() as client:
        request = search(1, BASE)

        def trickle() -> None:
            try:
                for octet in request[:-1]:
                    client.socket.sendall(bytes((octet,)))
                    if stop.wait(0.2):
                        return
            except OSError:
                return

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            answers = client.rest()
        finally:
            stop.set()
            thread.join()
        assert all(one.is_notice for one in answers)


def test_idle_client_is_told_to_go(setting: Setting, bystander: Client) -> None:
    """Row 44: one that says nothing; who says something every now and then stays."""
    with setting.door.client() as client:
        client.socket.settimeout(1)
        for _ in range(3 * IDLE_S):
            bystander.whoami()
            try:
                assert [(one.is_notice, one.code) for one in client.rest()] == [(True, BUSY)]
                break
            except TimeoutError:
                continue
        else:
            pytest.fail("it is still there")


def test_half_open_client_is_not_kept(setting: Setting) -> None:
    """Row 44: one that sends no more."""
    with setting.door.client() as client:
        client.search("")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.rest() == []


def test_request_is_answered_although_its_client_sends_no_more(setting: Setting) -> None:
    """A client that closes its half behind the last request, as `nc` does, may still read; or the connection ends."""
    with setting.door.client() as client:
        client.send(bind(1, SERVICE, PASSWORDS[SERVICE]))
        client.socket.shutdown(socket.SHUT_WR)
        assert [one.code for one in client.rest()] in ([SUCCESS], [])


def test_one_address_has_its_share(setting: Setting) -> None:
    """Row 44: as many as the limit says, and no more; others come as before."""
    clients = [setting.door.client(CROWDED) for _ in range(PER_SOURCE)]
    try:
        for client in clients:
            assert client.search("")[-1].code == SUCCESS
        with setting.door.client(CROWDED) as one_more:
            assert all(one.is_notice for one in one_more.rest())
    finally:
        for client in clients:
            client.close()

    def has_room() -> bool:
        with setting.door.client(CROWDED) as again:
            try:
                return again.search("")[-1].code == SUCCESS
            except (AssertionError, EOFError, OSError):
                return False

    wait_until(has_room, "there is room again")


def test_client_that_never_reads(setting: Setting, seen: Relay) -> None:
    """Its answers wait at the directory, not in our memory."""
    before = setting.door.resident_kib()
    with setting.door.client() as client:
        assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
        numbers = range(10, 410)
        client.send(*(search(number, BASE, scope=2) for number in numbers))
        wait_until(lambda: len(seen.received()) > 500_000, "the directory answers")
        with setting.door.client() as other:
            assert other.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
            assert len(other.search(BASE, scope=2)) > 400
        assert setting.door.resident_kib() - before < 20_000
        counted = sum(client.receive().tag == SEARCH_DONE for _ in range(30_000))
        assert counted > 50


def test_flood_behind_a_bind_is_bounded(setting: Setting, seen: Relay, person: Person) -> None:
    """What comes while a bind is pending is kept up to a limit, and then not read; none of it is lost."""
    numbers = range(100, 800)
    request = b"".join(search(number, "", attributes=["objectClass"] * 40) for number in numbers)
    assert len(request) > 4 * 65_536
    before = setting.door.resident_kib()
    with setting.door.client() as client:
        client.search("")
        seen.hold()
        try:
            client.send(bind(1, dn_of(person.name), full(person)))
            wait_until(lambda: seen.requests(BIND_REQUEST), "the bind comes to the relay")
            sender = threading.Thread(target=client.send, args=(request,))
            sender.start()
            assert client.is_silent()
            assert len(seen.requests(SEARCH_REQUEST)) == 1
            assert setting.door.resident_kib() - before < 8_000
        finally:
            seen.release()
        assert client.receive().code == SUCCESS
        done = [client.receive() for _ in range(2 * len(numbers))]
        sender.join(PATIENCE_S)
        assert {one.number for one in done if one.tag == SEARCH_DONE} == set(numbers)


def test_directory_that_does_not_read_fills_no_memory(setting: Setting, seen: Relay) -> None:
    """What it does not take waits at the client; when it takes it again, nothing is missing."""
    wanted = tlv(0xA1, *(tlv(0xA3, octets("cn"), octets(f"nobody{number:06}")) for number in range(45_000)))
    numbers = range(100, 140)
    requests = [search(number, f"cn=thing00,{THINGS}", wanted=wanted) for number in numbers]
    assert sum(map(len, requests)) > 30_000_000
    before = setting.door.resident_kib()
    with setting.door.client() as client:
        assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
        seen.hold()
        try:
            sender = threading.Thread(target=client.send, args=requests)
            sender.start()
            assert client.is_silent()
            assert setting.door.resident_kib() - before < 10_000
        finally:
            seen.release()
        found = [client.receive() for _ in numbers]
        sender.join(PATIENCE_S)
    assert {(one.number, one.tag, one.code) for one in found} == {(number, SEARCH_DONE, SUCCESS) for number in numbers}


def test_nothing_comes_after_an_unbind(setting: Setting, seen: Relay) -> None:
    with setting.door.client() as client:
        client.send(bind(1, SERVICE, PASSWORDS[SERVICE]), unbind(2), search(3, BASE), b"\x30\x80nonsense")
        assert [(one.number, one.code) for one in client.rest()] in ([(1, SUCCESS)], [])
    assert seen.requests(SEARCH_REQUEST) == []
