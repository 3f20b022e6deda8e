"""TLS on both sides of the door: what is said in clear, to whom, and what a handshake wants."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.ldap_directory import BASE, PASSWORDS, SERVICE, directory, dn_of, password_of
from tests.end_to_end.ldap_door import EXEMPT, LdapDoor, Setting, full, ldap_door, ldap_setting
from tests.end_to_end.ldap_liar import Liar, Line
from tests.end_to_end.ldap_programs import tool
from tests.end_to_end.ldap_relay import Relay
from tests.end_to_end.ldap_wire import (
    BIND_REQUEST,
    BIND_RESPONSE,
    CONFIDENTIALITY_REQUIRED,
    EXTENDED_REQUEST,
    EXTENDED_RESPONSE,
    INVALID_CREDENTIALS,
    OPERATIONS_ERROR,
    PROTOCOL_ERROR,
    SEARCH_DONE,
    STARTTLS,
    SUCCESS,
    UNAVAILABLE,
    Client,
    Pdu,
    bind,
    compare,
    extended,
    result,
    search,
    unbind,
)
from tests.end_to_end.programs import PATIENCE_S, clean_environment, must_have, wait_until
from tests.end_to_end.radius_certificates import Authority, Certificate
from tests.end_to_end.slapd import Slapd

NAME = "localhost"
"""The door's name in its certificate. Its addresses are 127.0.0.1 and what the name gives."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA that nobody here has heard of."""
    return Authority(tmp_path_factory.mktemp("strangers"), "another CA")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Certificate:
    return authority.issue(NAME, server=True)


@pytest.fixture(scope="module")
def trusting(authority: Authority) -> ssl.SSLContext:
    """A client that believes the CA and wants the name."""
    return ssl.create_default_context(cafile=str(authority.path))


def files(certificate: Certificate) -> dict[str, str]:
    return {"certificate_file": str(certificate.certificate), "key_file": str(certificate.key)}


BOTH = ("ldap://127.0.0.1:{plain}", "ldaps://127.0.0.1:{tls}")


@pytest.fixture(scope="module")
def setting(template: Mfad, server: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """A door with a certificate, that does not insist."""
    with ldap_setting(template, tmp_path_factory.mktemp("ldap"), door={"tls": files(server)}, listen=BOTH) as one:
        yield one


@pytest.fixture(scope="module")
def strict(template: Mfad, setting: Setting, authority: Authority, server: Certificate,
           tmp_path_factory: pytest.TempPathFactory) -> Iterator[LdapDoor]:  # fmt: skip
    """One that takes nothing in clear, TLS 1.3 alone, and a client certificate by LDAPS and StartTLS."""
    tls = {**files(server), "required": True, "minimum_version": "1.3", "client_certificate": "require"}
    with ldap_door(
        template, tmp_path_factory.mktemp("strict"), [setting.relay.url],
        door={"exempt": EXEMPT, "tls": {**tls, "client_ca_file": str(authority.path)}}, listen=BOTH,
    ) as one:  # fmt: skip
        yield one


@pytest.fixture
def seen(setting: Setting) -> Relay:
    """What the directory sees in this test."""
    return setting.relay.forget()


@pytest.fixture
def person(setting: Setting) -> Person:
    return setting.door.person()


# StartTLS of clients


def test_ldapwhoami_insists_on_starttls(setting: Setting, authority: Authority, person: Person) -> None:
    """Row 34, with OpenLDAP's client (-ZZ), which verifies the certificate."""
    env = clean_environment(LDAPCONF="/dev/null", LDAPTLS_CACERT=str(authority.path), LDAPTLS_REQCERT="demand")
    said = tool("ldapwhoami", "-x", "-ZZ", "-H", setting.door.url, "-D", dn_of(person.name), "-w", full(person), env=env)

    assert (said.status, said.output) == (SUCCESS, f"dn:{dn_of(person.name)}\n")


def test_ldaps(setting: Setting, authority: Authority, person: Person) -> None:
    env = clean_environment(LDAPCONF="/dev/null", LDAPTLS_CACERT=str(authority.path), LDAPTLS_REQCERT="demand")
    said = tool("ldapwhoami", "-x", "-H", setting.door.tls_url, "-D", dn_of(person.name), "-w", full(person), env=env)

    assert (said.status, said.output) == (SUCCESS, f"dn:{dn_of(person.name)}\n")


def test_starttls_forgets_who_was_bound(setting: Setting, trusting: ssl.SSLContext) -> None:
    """RFC 4511 section 4.14: what was said in clear is worth nothing inside."""
    with setting.door.client() as client:
        assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
        assert client.start_tls(trusting, NAME).code == SUCCESS
        assert client.whoami() == ""
        assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
        assert client.whoami() == f"dn:{SERVICE}"


def test_second_starttls(setting: Setting, trusting: ssl.SSLContext) -> None:
    """Row 34: operationsError, and the connection goes on; also on LDAPS."""
    for ldaps in (False, True):
        with setting.door.client(port="tls" if ldaps else "plain") as client:
            if ldaps:
                client.begin_tls(trusting, NAME)
            else:
                assert client.start_tls(trusting, NAME).code == SUCCESS
            answer = client.ask(extended(5, STARTTLS))
            assert (answer.number, answer.code) == (5, OPERATIONS_ERROR)
            assert client.whoami() == ""


def test_starttls_never_reaches_the_directory(setting: Setting, seen: Relay, trusting: ssl.SSLContext) -> None:
    with setting.door.client() as client:
        client.start_tls(trusting, NAME)
        client.search("")
    assert STARTTLS not in {one.oid for one in seen.requests(EXTENDED_REQUEST)}


def test_starttls_while_operations_are_outstanding(setting: Setting, seen: Relay) -> None:
    """Row 34: operationsError, for a search and for a bind; both are answered, in clear."""
    with setting.door.client() as client:
        client.search("")
        seen.hold()
        try:
            client.send(search(20, ""))
            answer = client.ask(extended(21, STARTTLS))
            assert (answer.number, answer.code) == (21, OPERATIONS_ERROR)
        finally:
            seen.release()
        client.until(SEARCH_DONE, 20)


def test_starttls_behind_a_bind_that_is_pending(setting: Setting, seen: Relay, trusting: ssl.SSLContext) -> None:
    """Row 34: it waits for the bind, or is refused; nothing of the bind is said inside TLS."""
    with setting.door.client() as client:
        client.search("")
        seen.hold()
        try:
            client.send(bind(20, SERVICE, PASSWORDS[SERVICE]), extended(21, STARTTLS))
            wait_until(lambda: seen.requests(BIND_REQUEST), "the bind comes to the relay")
        finally:
            seen.release()
        answers = {one.number: one for one in (client.receive(), client.receive())}
        assert answers[20].tag == BIND_RESPONSE
        if answers[21].code == SUCCESS:
            client.begin_tls(trusting, NAME)
            assert client.whoami() == ""
        else:
            assert answers[21].code == OPERATIONS_ERROR


@pytest.mark.parametrize("behind", [search(2, BASE), bind(2, SERVICE, PASSWORDS[SERVICE]), b"\x30", b"\0" * 100])
def test_what_stands_behind_a_starttls_is_not_inside(setting: Setting, seen: Relay, behind: bytes) -> None:
    """A request in the segment of the StartTLS would be taken for one inside TLS (CVE-2011-0411): the connection ends."""
    with setting.door.client() as client:
        client.send(extended(1, STARTTLS), behind)
        for one in client.rest():
            assert one.code != SUCCESS
    assert seen.requests(BIND_REQUEST) == []


def test_no_certificate_no_starttls(template: Mfad, setting: Setting, tmp_path: Path) -> None:
    """Row 34: protocolError, as of an operation that is not known; and the connection goes on."""
    with ldap_door(template, tmp_path / "door", [setting.relay.url], people=1) as door, door.client() as client:
        answer = client.ask(extended(1, STARTTLS))
        assert (answer.code, answer.oid) in {(PROTOCOL_ERROR, STARTTLS), (PROTOCOL_ERROR, "")}
        assert client.whoami() == ""


# TLS required


def test_nothing_is_done_in_clear_where_tls_is_required(strict: LdapDoor, seen: Relay) -> None:
    """Row 36: 13 for all but StartTLS and unbind; the password goes nowhere, and is in no log."""
    password = "a password that was said in clear"
    with strict.client() as client:
        for request in (
            bind(1, SERVICE, password),
            bind(1, "", ""),
            search(1, BASE),
            search(1, ""),
            compare(1, BASE, "o", "x"),
        ):
            answer = client.ask(request)
            assert (answer.number, answer.code) == (1, CONFIDENTIALITY_REQUIRED)
        client.send(unbind(2))
        assert client.rest() == []
    assert password.encode() not in seen.sent()
    assert seen.requests(BIND_REQUEST) == []
    for told in (strict.mfad.log(), str(strict.logged()), strict.metrics()):
        assert password not in told


def test_starttls_satisfies_a_door_that_requires_tls(strict: LdapDoor, authority: Authority, trusting: ssl.SSLContext) -> None:
    """Row 36; the client shows its certificate."""
    with strict.client() as client:
        assert client.start_tls(showing(authority, authority.issue("client.example.org")), NAME).code == SUCCESS
        assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS


def showing(authority: Authority, certificate: Certificate) -> ssl.SSLContext:
    """A client that shows a certificate."""
    context = ssl.create_default_context(cafile=str(authority.path))
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


def handshake(door: LdapDoor, context: ssl.SSLContext, name: str = NAME) -> str:
    """Whether a connection over LDAPS answers: "" or what went wrong."""
    with door.client(port="tls") as client:
        try:
            client.begin_tls(context, name)
            client.bind(SERVICE, PASSWORDS[SERVICE])
        except (OSError, EOFError) as err:
            return str(err) or type(err).__name__
    return ""


def test_clients_show_certificates_where_they_must(
    strict: LdapDoor, seen: Relay, authority: Authority, strangers: Authority, trusting: ssl.SSLContext
) -> None:
    """Row 37: a good one; none, another CA's, one that has run out."""
    assert handshake(strict, showing(authority, authority.issue("client.example.org"))) == ""
    binds = len(seen.requests(BIND_REQUEST))

    assert handshake(strict, trusting)
    assert handshake(strict, showing(authority, strangers.issue("client.example.org")))
    assert handshake(strict, showing(authority, authority.issue("client.example.org", expired=True)))
    assert len(seen.requests(BIND_REQUEST)) == binds


def test_old_tls_is_refused(setting: Setting, strict: LdapDoor, authority: Authority) -> None:
    """Row 37: TLS 1.1 everywhere, TLS 1.2 where 1.3 is the least."""
    must_have("openssl")
    for door, version, expected in (
        (setting.door, "-tls1_1", False),
        (setting.door, "-tls1_2", True),
        (strict, "-tls1_2", False),
    ):
        said = openssl(door, version)
        assert ("Cipher is (NONE)" not in said and "handshake failure" not in said and "alert" not in said) is expected, said


def openssl(door: LdapDoor, *words: str) -> str:
    """What s_client says of a handshake."""
    where = f"127.0.0.1:{door.ports['tls']}"
    done = subprocess.run(
        ["openssl", "s_client", "-connect", where, "-cipher", "ALL:@SECLEVEL=0", *words],
        input="", capture_output=True, text=True, check=False, timeout=PATIENCE_S, env=clean_environment(),
    )  # fmt: skip
    return done.stdout + done.stderr


def test_openssl_starttls_ldap(setting: Setting, authority: Authority) -> None:
    """Row 34: s_client's own StartTLS for LDAP, with the certificate verified."""
    done = subprocess.run(
        ["openssl", "s_client", "-starttls", "ldap", "-connect", f"127.0.0.1:{setting.door.ports['plain']}",
         "-CAfile", str(authority.path), "-verify_return_error", "-verify_hostname", NAME, "-brief"],
        input="", capture_output=True, text=True, check=False, timeout=PATIENCE_S, env=clean_environment(),
    )  # fmt: skip

    assert "Verification: OK" in done.stdout + done.stderr


def test_wrong_name_is_seen_by_the_client(setting: Setting, trusting: ssl.SSLContext) -> None:
    """Row 37: another name in the SNI is no reason for the door; the client does not believe the certificate."""
    assert "Hostname mismatch" in handshake(setting.door, trusting, "other.example.org")
    anyhow = ssl.create_default_context()
    anyhow.check_hostname = False
    anyhow.verify_mode = ssl.CERT_NONE
    assert handshake(setting.door, anyhow, "other.example.org") == ""


def test_plain_ldap_at_the_tls_port_and_the_other_way_round(setting: Setting, seen: Relay, trusting: ssl.SSLContext) -> None:
    """Nothing of either is taken for the other."""
    with setting.door.client(port="tls") as client:
        client.send(bind(1, SERVICE, PASSWORDS[SERVICE]))
        client.socket.shutdown(socket.SHUT_WR)
        answer = b""
        while more := client.socket.recv(4096):
            answer += more
        assert not answer.startswith(b"\x30")
    with setting.door.client() as client, pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
        client.begin_tls(trusting, NAME)
    assert seen.requests(BIND_REQUEST) == []


def test_certificate_is_changed_by_a_reload(
    template: Mfad, setting: Setting, authority: Authority, trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    """New connections see the new one; those that stand go on."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def put(one: Certificate) -> None:
        shutil.copy(one.certificate, certificate)
        shutil.copy(one.key, key)

    def serial(client: Client) -> object:
        assert isinstance(client.socket, ssl.SSLSocket)
        return (client.socket.getpeercert() or {})["serialNumber"]

    put(authority.issue(NAME, server=True))
    tls = {"certificate_file": str(certificate), "key_file": str(key)}
    with (
        ldap_door(
            template, tmp_path / "door", [setting.relay.url], people=1, door={"exempt": EXEMPT, "tls": tls}, listen=BOTH
        ) as door,
        door.client(port="tls") as old,
        door.client(port="tls") as new,
    ):
        old.begin_tls(trusting, NAME)
        put(authority.issue(NAME, server=True))
        door.mfad.reload()
        with door.client(port="tls") as fresh:
            fresh.begin_tls(trusting, NAME)
            assert serial(fresh) != serial(old)
            assert fresh.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
        assert old.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
        new.begin_tls(trusting, NAME)


# TLS to the directory


@pytest.fixture
def behind(
    template: Mfad, authority: Authority, server: Certificate, tmp_path: Path
) -> Iterator[Callable[..., tuple[LdapDoor, Relay, Slapd]]]:
    """A door in front of a directory with TLS: ``behind("ldaps", upstream_tls)``; its octets cross a relay."""
    with ExitStack() as life:

        def make(
            scheme: str, tls: Mapping[str, Any], *, certificate: Certificate = server, host: str = NAME
        ) -> tuple[LdapDoor, Relay, Slapd]:
            served = directory(tmp_path / "slapd", certificate=certificate, ca=authority.path).start()
            life.callback(served.stop)
            relay = Relay(("127.0.0.1", served.tls_port if scheme == "ldaps" else served.port))
            life.callback(relay.close)
            url = f"{scheme}://{host}:{relay.port}"
            settings = {"exempt": EXEMPT, "upstream_tls": {"ca_file": str(authority.path), **tls}}
            door = life.enter_context(ldap_door(template, tmp_path / "door", [url], people=4, door=settings))
            return door, relay, served

        yield make


@pytest.mark.parametrize(("scheme", "tls"), [("ldaps", {}), ("ldap", {"start_tls": True})], ids=["ldaps", "starttls"])
def test_directory_is_reached_inside_tls(
    behind: Callable[..., tuple[LdapDoor, Relay, Slapd]], scheme: str, tls: Mapping[str, Any]
) -> None:
    """Verified by CA and by name; nothing of a bind or of its answers crosses in clear."""
    door, relay, _ = behind(scheme, tls)
    person = door.person()
    with door.client() as client:
        assert client.bind(dn_of(person.name), full(person)).code == SUCCESS
        assert client.whoami() == f"dn:{dn_of(person.name)}"
        assert len(client.search(BASE, scope=2)) > 400
    assert_in_tls(relay)
    for word in (password_of(person.name).encode(), dn_of(person.name).encode(), b"inetOrgPerson"):
        assert word not in relay.sent() + relay.received()


def assert_in_tls(relay: Relay) -> None:
    """In clear there was at most a StartTLS and its answer."""
    for crossing in relay.crossings:
        sent = bytes(crossing.sent)
        if sent.startswith(b"\x30"):
            first = Pdu(sent[: 2 + sent[1]])
            assert first.oid == STARTTLS
            sent = sent[len(first.octets) :]
        assert not sent or sent[0] in {0x14, 0x15, 0x16, 0x17}, "a TLS record"


@pytest.mark.parametrize("scheme", ["ldaps", "ldap"])
@pytest.mark.parametrize("what", ["wrong CA", "wrong name", "expired", "wrong pin"])
def test_directory_that_is_not_believed(
    behind: Callable[..., tuple[LdapDoor, Relay, Slapd]], authority: Authority, strangers: Authority, scheme: str, what: str
) -> None:
    """Row 38: 52, and no password has crossed."""
    certificate = {
        "wrong CA": lambda: strangers.issue(NAME, server=True),
        "wrong name": lambda: authority.issue("elsewhere.example.org", server=True),
        "expired": lambda: authority.issue(NAME, server=True, expired=True),
        "wrong pin": lambda: authority.issue(NAME, server=True),
    }[what]()
    tls = {"start_tls": scheme == "ldap", **({"pins": ["00" * 32]} if what == "wrong pin" else {})}
    door, relay, served = behind(scheme, tls, certificate=certificate)
    person = door.person()
    for dn, typed in ((SERVICE, PASSWORDS[SERVICE]), (dn_of(person.name), full(person))):
        with door.client() as client:
            assert client.bind(dn, typed).code == UNAVAILABLE
    assert_in_tls(relay)
    assert served.asked() == 0


def test_pinned_certificate(behind: Callable[..., tuple[LdapDoor, Relay, Slapd]], authority: Authority) -> None:
    """The certificate itself, without a look at who signed it."""
    certificate = authority.issue("elsewhere.example.org", server=True)
    door, _, _ = behind("ldaps", {"verify": "none", "pins": [certificate.fingerprint]}, certificate=certificate)
    with door.client() as client:
        assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS


@pytest.mark.parametrize("refusal", [PROTOCOL_ERROR, UNAVAILABLE, "closes", "injects"])
def test_directory_that_refuses_starttls_gets_no_password(
    template: Mfad, authority: Authority, tmp_path: Path, refusal: int | str
) -> None:
    """Row 38: there is no fallback to clear text. Nor is what stands behind the answer taken for something inside TLS."""

    def behave(line: Line, request: Pdu) -> list[bytes] | None:
        if request.oid != STARTTLS:
            return None
        if refusal == "closes":
            line.end()
            return []
        code = SUCCESS if refusal == "injects" else int(refusal)
        answer = result(request.number, EXTENDED_RESPONSE, code)
        return [answer + result(1, BIND_RESPONSE, SUCCESS) * (refusal == "injects")]

    liar = Liar(behave)
    try:
        settings = {"exempt": EXEMPT, "upstream_tls": {"start_tls": True, "ca_file": str(authority.path)}}
        with ldap_door(template, tmp_path / "door", [liar.url], people=1, door=settings) as door, door.client() as client:
            assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == UNAVAILABLE
            assert client.bind(SERVICE, "wrong").code in {UNAVAILABLE, INVALID_CREDENTIALS}
    finally:
        liar.close()
    assert {one.oid for one in liar.requests() if one.tag == EXTENDED_REQUEST} == {STARTTLS}
    assert liar.requests(BIND_REQUEST) == []
