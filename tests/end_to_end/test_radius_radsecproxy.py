"""RADIUS over TLS: radsecproxy as the client, good and bad certificates, and one connection for many logins."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.programs import PATIENCE_S, must_have, wait_until
from tests.end_to_end.radius_certificates import Authority, Certificate
from tests.end_to_end.radius_door import Door, radius_door
from tests.end_to_end.radius_packets import ACCESS_ACCEPT, ACCESS_REJECT, ACCT_SESSION_ID, ACCT_STATUS_TYPE, GRACE_S, START, Nas
from tests.end_to_end.radius_programs import radclient
from tests.end_to_end.radius_upstream import Upstream
from tests.end_to_end.radsecproxy import RADSECPROXY, UdpToTls

SERVER_NAME, PROXY_NAME = "radius.example.org", "proxy.example.org"
PROXY_SECRET = "between-the-NAS-and-the-proxy"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def pinned(authority: Authority) -> Certificate:
    """A certificate whose name nobody knows: its fingerprint stands in the configuration."""
    return authority.issue("somebody.example.org")


@pytest.fixture(scope="module")
def door(template: Mfad, authority: Authority, pinned: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    must_have(RADSECPROXY)
    own = authority.issue(SERVER_NAME, server=True)
    with radius_door(
        template,
        tmp_path_factory.mktemp("door"),
        [
            {"name": "proxy", "tls": {"subject": PROXY_NAME}, "mode": "mfa_only"},
            {"name": "pinned", "tls": {"fingerprint": pinned.fingerprint}, "mode": "mfa_only"},
        ],
        door={"tls": tls_section(own, authority)},
        listen=("tls://127.0.0.1:{tls}",),
    ) as one:
        yield one


def tls_section(own: Certificate, authority: Authority) -> dict[str, str]:
    return {"certificate_file": str(own.certificate), "key_file": str(own.key), "client_ca_file": str(authority.path)}


@contextmanager
def proxy(door: Door, directory: Path, authority: Authority, own: Certificate) -> Iterator[UdpToTls]:
    """A radsecproxy in front of ``door`` with the certificate ``own``."""
    address = ("127.0.0.1", door.ports["tls"])
    one = UdpToTls(directory, address, authority, own, secret=PROXY_SECRET, server_name=SERVER_NAME)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture(scope="module")
def front(door: Door, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UdpToTls]:
    with proxy(door, tmp_path_factory.mktemp("front") / "proxy", authority, authority.issue(PROXY_NAME)) as one:
        yield one


@pytest.fixture
def person(door: Door) -> Person:
    return door.person()


def nas_of(front: UdpToTls) -> Nas:
    return Nas(("127.0.0.1", front.port), PROXY_SECRET.encode())


def test_code_lets_in_once_through_the_proxy(front: UdpToTls, person: Person, tmp_path: Path) -> None:
    words = f'User-Name = "{person.name}"\nUser-Password = "{person.next_code()}"'
    server = f"127.0.0.1:{front.port}"

    assert radclient(server, PROXY_SECRET, tmp_path, words).what == "Access-Accept"
    assert radclient(server, PROXY_SECRET, tmp_path, words).what == "Access-Reject"


def test_accounting_goes_through_the_same_connection(front: UdpToTls) -> None:
    """RFC 6614 section 2.5: one port for both."""
    with nas_of(front) as nas:
        assert nas.ask(nas.accounting((ACCT_STATUS_TYPE, START), (ACCT_SESSION_ID, b"1"))).what == "Accounting-Response"


def test_client_is_known_by_its_fingerprint(
    door: Door, authority: Authority, pinned: Certificate, person: Person, tmp_path: Path
) -> None:
    with proxy(door, tmp_path / "proxy", authority, pinned) as front, nas_of(front) as nas:
        assert nas.ask(nas.login(person.name, person.next_code())).what == "Accept"


def certificate(which: str, authority: Authority, directory: Path) -> Certificate | None:
    match which:
        case "expired":
            return authority.issue(PROXY_NAME, expired=True)
        case "unknown name":
            return authority.issue("stranger.example.org")
        case "another CA":
            return Authority(directory / "other", "another CA").issue(PROXY_NAME)
        case _:
            return None


@pytest.mark.parametrize("which", ["expired", "unknown name", "another CA", "none"])
def test_stranger_gets_no_answer(
    door: Door, front: UdpToTls, authority: Authority, person: Person, tmp_path: Path, which: str
) -> None:
    """Whatever is wrong with the certificate; and nobody else feels it."""
    assert not answered_over_tls(door, authority, certificate(which, authority, tmp_path), person)
    with nas_of(front) as nas:
        assert nas.ask(nas.login(person.name, person.code_at(person.last_step))).what == "Accept"
    assert "Traceback" not in door.mfad.log()


@pytest.mark.parametrize(
    ("which", "reason"),
    [
        pytest.param("expired", "certificate has expired", id="expired"),
        pytest.param("unknown name", "no client has this certificate", id="unknown name"),
        pytest.param("another CA", "unable to get local issuer certificate", id="another CA"),
        pytest.param("none", "PEER_DID_NOT_RETURN_A_CERTIFICATE", id="none"),
    ],
)
def test_refused_connection_is_told_in_the_log(
    door: Door, authority: Authority, person: Person, tmp_path: Path, which: str, reason: str
) -> None:
    """With the address: an administrator looks for a reason on this side first."""

    def told() -> int:
        return sum("127.0.0.1" in line and reason in line for line in door.mfad.log().splitlines())

    before = told()
    assert not answered_over_tls(door, authority, certificate(which, authority, tmp_path), person)
    wait_until(lambda: told() > before, f"{reason} in the log:\n{door.mfad.log()}")


def answered_over_tls(door: Door, authority: Authority, own: Certificate | None, person: Person) -> bool:
    """Whether a login over a TLS connection with this certificate gets any answer. (TLS 1.3 tells a client late.)"""
    context = ssl.create_default_context(cafile=str(authority.path))
    if own is not None:
        context.load_cert_chain(own.certificate, own.key)
    with Nas(("127.0.0.1", 9), b"radsec") as nas, socket.create_connection(("127.0.0.1", door.ports["tls"])) as plain:
        request = nas.login(person.name, person.next_code())
        plain.settimeout(PATIENCE_S)
        try:
            with context.wrap_socket(plain, server_hostname=SERVER_NAME) as tls:
                tls.sendall(request)
                return tls.recv(4096) != b""
        except (ssl.SSLError, ConnectionError):
            return False


def test_good_certificate_is_answered_by_the_same_means(door: Door, authority: Authority, person: Person) -> None:
    """So the refusals above are the certificate's."""
    assert answered_over_tls(door, authority, authority.issue(PROXY_NAME), person)


def test_proxy_with_an_expired_certificate_gets_no_answer_and_another_one_does(
    door: Door, front: UdpToTls, authority: Authority, person: Person, tmp_path: Path
) -> None:
    with proxy(door, tmp_path / "proxy", authority, authority.issue(PROXY_NAME, expired=True)) as bad, nas_of(bad) as nas:
        wait_until(lambda: "tlsconnect" in bad.log(), f"radsecproxy has connected:\n{bad.log()}")
        nas.send(nas.login(person.name, person.next_code()))
        with nas_of(front) as good:
            assert good.ask(good.login(person.name, person.code_at(person.last_step))).what == "Accept"
        nas.socket.settimeout(GRACE_S)
        with pytest.raises(TimeoutError):
            nas.socket.recv(4096)


def test_garbage_on_one_connection_hurts_no_other(door: Door, front: UdpToTls, authority: Authority, person: Person) -> None:
    """Not TLS, half a handshake, TLS with no RADIUS in it, a packet that breaks off, a Length of 19."""
    context = ssl.create_default_context(cafile=str(authority.path))
    own = authority.issue(PROXY_NAME)
    context.load_cert_chain(own.certificate, own.key)
    address = ("127.0.0.1", door.ports["tls"])
    with socket.create_connection(address) as plain:
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n" * 20)
    silent = socket.create_connection(address)
    try:
        for text in (b"\xff" * 4096, b"\1\1\0\x13" + bytes(15), b"\1\1\x10\0" + bytes(30), b"\1\1\xff\xff" + bytes(100)):
            with (
                socket.create_connection(address) as plain,
                context.wrap_socket(plain, server_hostname=SERVER_NAME) as tls,
            ):
                tls.sendall(text)
        with nas_of(front) as nas:
            assert nas.ask(nas.login(person.name, person.next_code())).what == "Accept"
    finally:
        silent.close()
    assert "Traceback" not in door.mfad.log()


def test_fast_user_is_answered_before_a_slow_one_on_the_same_connection(
    template: Mfad, authority: Authority, tmp_path: Path
) -> None:
    """Row 56: the slow one's password is at a server that answers only when the fast one is in."""
    must_have(RADSECPROXY)
    own = authority.issue(SERVER_NAME, server=True)
    with (
        Upstream(b"the secret of the upstream") as upstream,
        radius_door(
            template,
            tmp_path / "door",
            [{"name": "proxy", "tls": {"subject": PROXY_NAME}, "mode": "concat"}],
            door={
                "tls": tls_section(own, authority),
                "primary": upstream.primary(tmp_path),
            },
            listen=("tls://127.0.0.1:{tls}",),
        ) as door,
        proxy(door, tmp_path / "proxy", authority, authority.issue(PROXY_NAME)) as front,
        nas_of(front) as nas,
    ):
        slow, fast = door.person(), door.person()
        waiting = nas.login(slow.name, "password" + slow.next_code())
        nas.send(waiting)
        held = upstream.next()
        assert held.name == slow.name
        quick = nas.login(fast.name, "password" + fast.next_code())
        nas.send(quick)
        second = upstream.next()
        assert second.name == fast.name
        upstream.answer(second, ACCESS_ACCEPT)
        assert nas.receive(quick).what == "Accept"
        upstream.answer(held, ACCESS_REJECT)
        assert nas.receive(waiting).what == "Reject"


def test_daemon_that_is_killed_listens_again(door: Door, front: UdpToTls, authority: Authority, person: Person) -> None:
    """Though connections of its clients were open. (The last test: the proxy takes its time to connect again.)"""
    with nas_of(front) as nas:
        assert nas.ask(nas.login(person.name, person.next_code())).what == "Accept"
    door.mfad.kill()
    door.mfad.start()

    assert answered_over_tls(door, authority, authority.issue(PROXY_NAME), person)
