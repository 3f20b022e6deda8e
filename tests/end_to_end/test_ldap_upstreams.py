"""Directories that are away, slow, die or lie: what do clients of the door see, and what does it take at its word?"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.ldap_directory import BASE, IN_GROUP, PASSWORDS, SERVICE, SERVICES, directory, dn_of, password_of
from tests.end_to_end.ldap_door import EXEMPT, LdapDoor, full, ldap_door
from tests.end_to_end.ldap_liar import Behaviour, Liar, Line
from tests.end_to_end.ldap_relay import Relay
from tests.end_to_end.ldap_wire import (
    BIND_REQUEST,
    BIND_RESPONSE,
    EXTENDED_RESPONSE,
    INTERMEDIATE_RESPONSE,
    INVALID_CREDENTIALS,
    MODIFY_REQUEST,
    PROTOCOL_ERROR,
    SEARCH_DONE,
    SEARCH_ENTRY,
    SEARCH_REQUEST,
    SUCCESS,
    UNAVAILABLE,
    UNWILLING_TO_PERFORM,
    WHOAMI,
    Client,
    Pdu,
    bind,
    control,
    entry,
    extended,
    integer,
    message,
    modify,
    notice,
    octets,
    result,
    search,
    tlv,
)
from tests.end_to_end.programs import wait_until
from tests.end_to_end.slapd import Slapd

OPERATIONS = 64
QUICK = {
    "connect_timeout": "1s",
    "health_interval": "1s",
    "dead_time": "1s",
    "warm": 0,
    "limits": {"bind": "5s", "operations": OPERATIONS},
}
AD_TEXT = "80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data 532, v3839"


# Directories that are away


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    """The second directory: it is always there."""
    one = directory(tmp_path_factory.mktemp("second") / "slapd").start()
    yield one
    one.stop()


@pytest.fixture(scope="module")
def failing(template: Mfad, slapd: Slapd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LdapDoor, list[Slapd]]]:
    """A door with two directories; the first one is a list, so that a test may put another into the same place."""
    first = directory(tmp_path_factory.mktemp("first") / "slapd").start()
    place = [first]
    with ExitStack() as life:
        life.callback(lambda: place[0].stop())
        door = life.enter_context(
            ldap_door(
                template, tmp_path_factory.mktemp("door"), [first.url, slapd.url], people=12, door={**QUICK, "exempt": EXEMPT}
            )
        )
        yield door, place


def binds_as_service(door: LdapDoor) -> int:
    with door.client() as client:
        return client.bind(SERVICE, PASSWORDS[SERVICE]).code


def test_second_directory_is_used_while_the_first_is_down(failing: tuple[LdapDoor, list[Slapd]], slapd: Slapd) -> None:
    """Row 45: no bind fails but those under way; and the first one is used again when it is back."""
    door, (first,) = failing
    assert binds_as_service(door) == SUCCESS
    assert (first.asked(f'BIND dn="{SERVICE}" method'), slapd.asked(f'BIND dn="{SERVICE}" method')) == (1, 0)

    first.stop()
    person = door.person()
    with door.client() as client:
        assert client.bind(dn_of(person.name), full(person)).code == SUCCESS
        assert client.whoami() == f"dn:{dn_of(person.name)}"
    assert slapd.asked(f'BIND dn="{dn_of(person.name)}" method') == 1

    first.start()
    before = first.asked(f'BIND dn="{SERVICE}" method')

    def is_used() -> bool:
        assert binds_as_service(door) == SUCCESS
        return first.asked(f'BIND dn="{SERVICE}" method') > before

    wait_until(is_used, "the first directory is used again")


def test_directory_that_answers_nothing_is_passed_over(failing: tuple[LdapDoor, list[Slapd]], slapd: Slapd) -> None:
    """Row 45: the kernel takes its connections, and nothing comes; a look at its health finds out."""
    door, (first,) = failing
    wait_until(lambda: binds_as_service(door) == SUCCESS, "a directory is there")
    first.freeze()
    try:
        with door.client() as client:
            wait_until(lambda: client_finds(client), "the second directory is used")
    finally:
        first.thaw()


def client_finds(client: Client) -> bool:
    return client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS


@pytest.mark.parametrize("how", ["refuses", "swallows"])
def test_no_directory(template: Mfad, tmp_path: Path, how: str) -> None:
    """Row 45: 52 for a bind, a Notice of Disconnection or 52 for all else; and no code is spent."""
    with ExitStack() as life:
        taken = life.enter_context(closing(socket.create_server(("127.0.0.1", 0), backlog=1)))
        port = taken.getsockname()[1]
        if how == "refuses":
            taken.close()
        else:
            # nobody accepts: what is beyond the backlog gets no SYN+ACK
            for _ in range(3):
                waiting = life.enter_context(closing(socket.socket()))
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.1", port))
        door = life.enter_context(
            ldap_door(template, tmp_path, [f"ldap://127.0.0.1:{port}"], people=1, door={**QUICK, "exempt": EXEMPT})
        )
        person = door.person()
        code = person.next_code()
        with door.client() as client:
            assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == UNAVAILABLE
            assert client.bind(dn_of(person.name), f"{password_of(person.name)},{code}").code == UNAVAILABLE
            assert client.bind(dn_of(person.name), password_of(person.name)).code in {UNAVAILABLE, INVALID_CREDENTIALS}
            answer = client.ask(search(9, BASE))
            assert answer.code == UNAVAILABLE
        door.wait_for_bind(user=person.name, outcome="unavailable")
        assert not door.logged(outcome="accepted")
        assert door.mfad.running


@pytest.mark.parametrize("bound", [True, False])
def test_directory_that_dies_in_a_search(
    template: Mfad, slapd: Slapd, tmp_path: Path, bound: bool
) -> None:  # fmt: skip
    """Row 46: a Notice of Disconnection with 52, and the end; the next connection is served."""
    relay = Relay(("127.0.0.1", slapd.port))
    try:
        with ldap_door(template, tmp_path, [relay.url], people=1, door={**QUICK, "exempt": EXEMPT}) as door:
            with door.client() as client:
                if bound:
                    assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
                else:
                    client.search("")
                relay.hold()
                client.send(search(8, BASE, scope=2))
                wait_until(lambda: any(one.number == 8 for one in relay.requests(SEARCH_REQUEST)), "the search comes")
                relay.cut()
                relay.release()
                answers = [one for one in client.rest() if one.tag != SEARCH_ENTRY]
                assert [(one.is_notice, one.code) for one in answers] == [(True, UNAVAILABLE)]
            wait_until(lambda: binds_as_service(door) == SUCCESS, "the next one is served")
    finally:
        relay.close()


def test_directory_that_dies_under_a_session(template: Mfad, slapd: Slapd, tmp_path: Path) -> None:
    """Row 46: who was bound is told; an anonymous session that was idle does not notice."""
    relay = Relay(("127.0.0.1", slapd.port))
    try:
        with (
            ldap_door(template, tmp_path, [relay.url], people=1, door={**QUICK, "exempt": EXEMPT}) as door,
            door.client() as bound,
            door.client() as nobody,
        ):
            assert bound.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
            assert nobody.search("")[-1].code == SUCCESS
            relay.cut()
            assert [(one.is_notice, one.code) for one in bound.rest()] == [(True, UNAVAILABLE)]
            wait_until(lambda: binds_as_service(door) == SUCCESS, "the directory is used again")
            assert nobody.search("")[-1].code == SUCCESS
            assert nobody.whoami() == ""
    finally:
        relay.close()


def test_group_that_cannot_be_looked_up(template: Mfad, slapd: Slapd, tmp_path: Path) -> None:
    """Row 14: nobody is exempt by a failure."""
    door = LdapDoor(tmp_path, [slapd.url], {**QUICK, "exempt": EXEMPT})
    door.mfad.copy_from(template)
    door.lookup_password.write_text("not the password\n")
    try:
        door.mfad.start()
        with door.client() as client:
            assert client.bind(IN_GROUP, PASSWORDS[IN_GROUP]).code in {INVALID_CREDENTIALS, UNAVAILABLE}
            assert client.whoami() == ""
            assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS, "his exemption needs no look-up"
    finally:
        door.mfad.close()


def test_directory_over_ldapi(template: Mfad, slapd: Slapd, tmp_path: Path) -> None:
    """Row 54: upstream over a Unix socket."""
    with ldap_door(template, tmp_path, [slapd.ipc_url], people=2, door={"exempt": EXEMPT}) as door, door.client() as client:
        person = door.person()
        assert client.bind(dn_of(person.name), full(person)).code == SUCCESS
        assert client.whoami() == f"dn:{dn_of(person.name)}"


# Directories that lie


@pytest.fixture(scope="module")
def liar() -> Iterator[Liar]:
    one = Liar()
    yield one
    one.close()


@pytest.fixture(scope="module")
def believing(template: Mfad, liar: Liar, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LdapDoor]:
    """A door in front of it. Nothing is asked of it but what a client asked: no look-ups, no stock of connections."""
    exempt = {"dn": SERVICE, "subtree": SERVICES}
    settings = {**QUICK, "exempt": exempt, "lookup": {}, "identity_cache": "0s", "health_interval": "10m"}
    with ldap_door(template, tmp_path_factory.mktemp("door"), [liar.url], people=120, door=settings) as one:
        yield one


@pytest.fixture
def person(believing: LdapDoor) -> Person:
    return believing.person()


@pytest.fixture
def says(liar: Liar) -> Iterator[Callable[[Behaviour], None]]:
    """``says(behave)``: until the test ends."""
    honest = liar.behave

    def put(behave: Behaviour) -> None:
        liar.behave = behave

    yield put
    liar.behave = honest


def on(tag: int, answer: Callable[[Line, Pdu], Iterable[bytes]]) -> Behaviour:
    """Lies to requests of one kind."""
    return lambda line, request: answer(line, request) if request.tag == tag else None


def user_bind(request: Pdu) -> bool:
    return request.tag == BIND_REQUEST and request.name.startswith("uid=")


ACCEPTED = tlv(BIND_RESPONSE, integer(0, 0x0A), octets(""), octets(""))


def coded(asked: Pdu, code: bytes) -> bytes:
    """A BindResponse whose result code is ``code``, an element or not."""
    return message(asked.number, tlv(BIND_RESPONSE, code, octets(""), octets("")))


LIES: dict[str, Callable[[Pdu], list[bytes]]] = {
    "another message id": lambda asked: [result(asked.number + 1, BIND_RESPONSE, 0)],
    "message id 0": lambda asked: [result(0, BIND_RESPONSE, 0)],
    "a search's end": lambda asked: [result(asked.number, SEARCH_DONE, 0)],
    "an extended response": lambda asked: [result(asked.number, EXTENDED_RESPONSE, 0)],
    "an intermediate response": lambda asked: [message(asked.number, tlv(INTERMEDIATE_RESPONSE))],
    "an entry": lambda asked: [entry(asked.number, "cn=injected")],
    "an entry that nobody asked for": lambda asked: [entry(77, "cn=injected"), result(asked.number, BIND_RESPONSE, 0)],
    "a request": lambda asked: [bind(asked.number, SERVICE, "x")],
    "garbage": lambda asked: [b"HTTP/1.1 200 OK\r\n\r\n"],
    "a huge length": lambda asked: [b"\x30\x84\x7f\xff\xff\xff"],
    "an indefinite length": lambda asked: [b"\x30\x80\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00\x00\x00"],
    "no result code": lambda asked: [message(asked.number, tlv(BIND_RESPONSE))],
    "a result code as a string": lambda asked: [coded(asked, octets("\0"))],
    "a result code without octets": lambda asked: [coded(asked, b"\x0a\x00")],
    "a result code in two octets": lambda asked: [coded(asked, b"\x0a\x02\x01\x00")],
    "something behind the result": lambda asked: [message(asked.number, ACCEPTED + octets("x"))],
    "the result of a referral": lambda asked: [result(asked.number, BIND_RESPONSE, 10, "", tlv(0xA3, octets("ldap://other.example.org")))],
    "sasl in progress": lambda asked: [result(asked.number, BIND_RESPONSE, 14)],
    "a notice": lambda asked: [notice(UNAVAILABLE, "going down")],
    "a notice, and success": lambda asked: [notice(UNAVAILABLE), result(asked.number, BIND_RESPONSE, 0)],
    "nothing, and it ends": lambda asked: [],
}  # fmt: skip


@pytest.mark.parametrize("what", LIES)
def test_lie_about_a_bind_lets_nobody_in(
    believing: LdapDoor, says: Callable[[Behaviour], None], person: Person, what: str
) -> None:
    """Row 38 and more: only a BindResponse with our message id and code 0 is one."""

    def behave(line: Line, request: Pdu) -> list[bytes] | None:
        if not user_bind(request):
            return None
        answers = LIES[what](request)
        if not answers:
            line.end()
        return answers

    says(behave)
    code = person.next_code()
    with believing.client() as client:
        client.send(bind(5, dn_of(person.name), f"{password_of(person.name)},{code}"))
        answers = client.rest() if what not in SURVIVED else [client.receive()]
        for one in answers:
            assert one.tag != SEARCH_ENTRY
            assert one.is_notice or (one.number, one.tag) == (5, BIND_RESPONSE)
            assert one.code != SUCCESS
    assert not believing.logged(user=person.name, outcome="accepted")
    says(lambda line, request: None)
    with believing.client() as client:
        assert client.bind(dn_of(person.name), f"{password_of(person.name)},{code}").code == SUCCESS, "the code is unspent"


SURVIVED = {"the result of a referral", "a result code in two octets", "nothing, and it ends"}
"""Refusals in the right form, and none at all: the client is answered, and may go on."""


@pytest.mark.parametrize("code", [32, 34, 48, 19, 53, 1, 51, 52, 80, 3, 8, 118, 4096])
def test_result_of_the_directory_is_the_clients(
    believing: LdapDoor, says: Callable[[Behaviour], None], person: Person, code: int
) -> None:
    """Row 51: whatever code and text it has, without a change."""
    says(lambda line, request: [result(request.number, BIND_RESPONSE, code, AD_TEXT)] if user_bind(request) else None)
    with believing.client() as client:
        answer = client.bind(dn_of(person.name), full(person))
        assert answer.octets == result(1, BIND_RESPONSE, code, AD_TEXT)
        assert client.whoami() == ""


def test_text_of_a_wrong_password_is_the_directorys(
    believing: LdapDoor, says: Callable[[Behaviour], None], person: Person
) -> None:
    """Row 51: Active Directory's reasons, with controls and a matched DN."""
    told = control("1.2.3.4", b"grace")

    def behave(line: Line, request: Pdu) -> list[bytes] | None:
        if not user_bind(request):
            return None
        return [result(request.number, BIND_RESPONSE, INVALID_CREDENTIALS, AD_TEXT, matched=BASE, controls=told)]

    says(behave)
    with believing.client() as client:
        answer = client.bind(dn_of(person.name), full(person))
        assert answer.octets == result(1, BIND_RESPONSE, INVALID_CREDENTIALS, AD_TEXT, matched=BASE, controls=told)


WHO: dict[str, Callable[[Pdu, Person], bytes]] = {
    "somebody else": lambda asked, person: who(asked, f"dn:{dn_of('person1399')}"),
    "an exempt account": lambda asked, person: who(asked, f"dn:{SERVICE}"),
    "nobody": lambda asked, person: who(asked, ""),
    "a refusal": lambda asked, person: result(asked.number, EXTENDED_RESPONSE, UNWILLING_TO_PERFORM),
    "an unknown operation": lambda asked, person: result(asked.number, EXTENDED_RESPONSE, PROTOCOL_ERROR),
    "no name": lambda asked, person: result(asked.number, EXTENDED_RESPONSE, SUCCESS),
    "no DN": lambda asked, person: who(asked, "dn:this is none"),
    "another form": lambda asked, person: who(asked, "x-form:whatever"),
    "another message id": lambda asked, person: who(Pdu(extended(99, WHOAMI)), f"dn:{dn_of(person.name)}"),
    "octets": lambda asked, person: result(asked.number, EXTENDED_RESPONSE, 0, "", octets(b"dn:uid=\xff\xfe", 0x8B)),
}


def who(asked: Pdu, name: str) -> bytes:
    return result(asked.number, EXTENDED_RESPONSE, SUCCESS, "", octets(name, 0x8B))


@pytest.mark.parametrize("what", WHO)
def test_code_is_the_one_of_whom_the_directory_names(
    believing: LdapDoor, says: Callable[[Behaviour], None], person: Person, what: str
) -> None:
    """Pitfall 7: a name that the directory does not confirm lets nobody in, code or no code."""

    def behave(line: Line, request: Pdu) -> list[bytes] | None:
        return [WHO[what](request, person)] if request.oid == WHOAMI and line.bound.startswith("uid=") else None

    says(lambda line, request: behave(line, request) if request.tag == 0x77 else None)
    with believing.client() as client:
        client.send(bind(5, dn_of(person.name), full(person)))
        answer = client.receive()
        assert answer.is_notice or answer.code != SUCCESS
    assert not believing.logged(user=person.name, outcome="accepted")


def test_exemption_is_of_whom_the_directory_names(believing: LdapDoor, liar: Liar, says: Callable[[Behaviour], None]) -> None:
    """A spelling that looks exempt to us, of an entry that is not: refused, and the connection that is bound is gone."""

    def behave(line: Line, request: Pdu) -> list[bytes] | None:
        return [who(request, f"dn:{dn_of('person1399')}")] if request.oid == WHOAMI else None

    says(lambda line, request: behave(line, request) if request.tag == 0x77 else None)
    with believing.client() as client:
        assert client.bind(SERVICE, "whatever").code == INVALID_CREDENTIALS
        says(lambda line, request: None)
        found = client.search(BASE)
        assert [one.tag for one in found] == [SEARCH_DONE]


STREAM_LIES: dict[str, list[bytes]] = {
    "garbage": [b"\0" * 20],
    "half a PDU, and the end": [entry(6, "cn=half")[:-3]],
    "an unsolicited notification that nobody knows": [result(0, EXTENDED_RESPONSE, 0, "", octets("1.2.3.4", 0x8A))],
    "an answer to another message": [entry(7, "cn=another"), result(7, SEARCH_DONE, 0)],
    "a bind response": [result(6, BIND_RESPONSE, 0)],
    "a request": [search(6, BASE)],
    "an operation that nobody knows": [message(6, tlv(0x7E))],
    "a length beyond all limits": [b"\x30\x84\x40\x00\x00\x00\x02\x01\x06\x64"],
}


@pytest.mark.parametrize("what", STREAM_LIES)
def test_lie_in_a_search(believing: LdapDoor, says: Callable[[Behaviour], None], what: str) -> None:
    """Whatever is no answer to what was asked ends both sides, with a notice."""

    def behave(line: Line, request: Pdu) -> list[bytes] | None:
        if request.tag != SEARCH_REQUEST or request.number != 6:
            return None
        line.send(*STREAM_LIES[what])
        if "end" in what:
            line.end()
        return []

    with believing.client() as client:
        assert client.bind(SERVICE, "x").code == SUCCESS
        says(behave)
        client.send(search(6, BASE))
        if "half" in what:
            # nothing more can be said to somebody who has half a message
            client.rest_or_nothing()
            return
        answers = client.rest()
        assert [one.number for one in answers] == [0]
        assert answers[0].is_notice or "unsolicited" in what


def test_notice_of_the_directory_reaches_the_client(believing: LdapDoor, says: Callable[[Behaviour], None]) -> None:
    """Row 46, 24: with its words, then the end."""

    def behave(line: Line, request: Pdu) -> list[bytes] | None:
        if request.tag != SEARCH_REQUEST or request.number != 6:
            return None
        line.send(notice(UNAVAILABLE, "maintenance"))
        line.end()
        return []

    with believing.client() as client:
        assert client.bind(SERVICE, "x").code == SUCCESS
        says(behave)
        client.send(search(6, BASE))
        (last,) = client.rest()
        assert (last.is_notice, last.code) == (True, UNAVAILABLE)


def test_answer_that_comes_before_its_question(believing: LdapDoor, liar: Liar, says: Callable[[Behaviour], None]) -> None:
    """A success that lies ready on the connection is not taken for the answer to the next bind."""

    def behave(line: Line, request: Pdu) -> list[bytes] | None:
        if request.tag == SEARCH_REQUEST and request.number == 6:
            return [result(6, SEARCH_DONE, 0) + result(7, BIND_RESPONSE, 0)]
        if request.tag == BIND_REQUEST:
            return [result(request.number, BIND_RESPONSE, INVALID_CREDENTIALS)]
        return None

    says(behave)
    with believing.client() as client:
        client.send(search(6, ""), bind(7, SERVICE, "wrong"))
        answers = client.rest()
        assert not [one for one in answers if one.tag == BIND_RESPONSE and one.code == SUCCESS]


def test_stalled_bind_lets_nobody_in(
    believing: LdapDoor, liar: Liar, says: Callable[[Behaviour], None], person: Person
) -> None:
    """Nothing comes: the door's limit ends it, and the connection to the directory."""
    says(lambda line, request: [] if user_bind(request) else None)
    code = person.next_code()
    with believing.client() as client:
        answer = client.bind(dn_of(person.name), f"{password_of(person.name)},{code}")
        assert answer.code not in {SUCCESS, INVALID_CREDENTIALS}
        says(lambda line, request: None)
        assert client.bind(dn_of(person.name), f"{password_of(person.name)},{code}").code == SUCCESS


def test_drip_of_octets(believing: LdapDoor, says: Callable[[Behaviour], None], person: Person) -> None:
    """A directory whose answers come octet by octet is understood."""

    def behave(line: Line, request: Pdu) -> list[bytes] | None:
        if user_bind(request):
            line.bound = request.name
            return [bytes((one,)) for one in result(request.number, BIND_RESPONSE, 0)]
        if request.tag == SEARCH_REQUEST:
            return [bytes((one,)) for one in entry(request.number, "cn=slow") + result(request.number, SEARCH_DONE, 0)]
        return None

    says(behave)
    with believing.client() as client:
        assert client.bind(dn_of(person.name), full(person)).code == SUCCESS
        assert [one.tag for one in client.search(BASE)] == [SEARCH_ENTRY, SEARCH_DONE]


def test_operations_under_way_are_bounded(believing: LdapDoor, liar: Liar, says: Callable[[Behaviour], None]) -> None:
    """The directory has so many of one client's requests at a time; the others wait, and none is lost."""
    held: list[tuple[Line, Pdu]] = []

    def behave(line: Line, request: Pdu) -> list[bytes] | None:
        if request.tag == SEARCH_REQUEST and request.number >= 1000:
            held.append((line, request))
            return []
        return None

    numbers = range(1000, 1000 + 3 * OPERATIONS)
    with believing.client() as client:
        assert client.bind(SERVICE, "x").code == SUCCESS
        says(behave)
        client.send(*(search(number, BASE) for number in numbers))
        wait_until(lambda: len(held) >= OPERATIONS, "the directory has as many as it may have")
        assert client.is_silent()
        assert len(held) == OPERATIONS
        answered = 0
        while answered < len(numbers):
            line, request = held[answered]
            line.send(result(request.number, SEARCH_DONE, 0))
            assert client.receive().number == request.number
            answered += 1
            wait_until(lambda: len(held) > answered or answered == len(numbers), "the next one comes")  # noqa: B023
            assert len(held) <= answered + OPERATIONS


def test_modification_is_never_made_twice(believing: LdapDoor, liar: Liar, says: Callable[[Behaviour], None]) -> None:
    """A directory that dies on a request does not get it again from us: nobody knows whether it was done."""

    def behave(line: Line, request: Pdu) -> list[bytes] | None:
        if request.tag == MODIFY_REQUEST:
            line.end()
            return []
        return None

    says(behave)
    with believing.client() as client:
        assert client.bind(SERVICE, "x").code == SUCCESS
        client.send(modify(66, BASE, "o", "once"))
        assert [(one.is_notice, one.code) for one in client.rest()] == [(True, UNAVAILABLE)]
    assert len([one for one in liar.requests(MODIFY_REQUEST) if one.number == 66]) == 1
