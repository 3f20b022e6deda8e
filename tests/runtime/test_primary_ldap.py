"""The first factor by LDAP, with a real slapd: yes, no, or nobody knows; whatever is typed, and whatever stands in between."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ldap3.utils.dn import parse_dn

from mfa_core.errors import ConfigurationError
from mfa_core.secret import Secret
from mfa_runtime.config.primary import LdapSection
from mfa_runtime.primary import PrimaryUnavailable
from mfa_runtime.primary_ldap import LdapPrimary, _Down, _Errand, escaped
from tests.doubles import attempt
from tests.end_to_end.programs import must_have
from tests.end_to_end.radius_certificates import Authority
from tests.end_to_end.slapd import BASE, PEOPLE, PROGRAMS, SERVICE_DN, SERVICE_PASSWORD, Slapd, person

USER_DN = f"uid={{user}},{PEOPLE}"
ODD = "o'brien+vpn#1"
SOFT = "pass­word"
"""With a soft hyphen, which SASLprep takes out."""
TWINS = f"dn: ou=guests,{BASE}\nobjectClass: organizationalUnit\n\n" + person("twin", "first", parent=f"ou=guests,{BASE}")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca") / "ca")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Slapd]:
    """The one that nobody stops."""
    must_have(*PROGRAMS)
    people: dict[str, str | bytes] = {
        "alice": "correct horse", "uml": "pä55wörd", "soft": SOFT, "twin": "first", "nul": b"se\0cret",
    }  # fmt: skip
    odd = f"\ndn: uid=o'brien\\2Bvpn\\231,{PEOPLE}\nobjectClass: inetOrgPerson\nuid: {ODD}\n"
    odd += "cn: x\nsn: x\nuserPassword: odd one\n"
    one = Slapd(
        tmp_path_factory.mktemp("slapd") / "one",
        people,
        certificate=authority.issue("localhost", server=True),
        ca=authority.path,
        ldif=TWINS + odd,
    )
    yield one.start()
    one.stop()


@pytest.fixture
def make_slapd(tmp_path: Path, authority: Authority) -> Iterator[Callable[..., Slapd]]:
    """Directories to be broken: ``make_slapd("localhost", expired=True)``; stopped afterwards."""
    must_have(*PROGRAMS)
    made: list[Slapd] = []
    numbers = count()

    def make(name: str = "localhost", *, expired: bool = False, signed_by: Authority | None = None, more: str = "") -> Slapd:
        certificate = (signed_by or authority).issue(name, server=True, expired=expired)
        one = Slapd(tmp_path / f"slapd{next(numbers)}", {"alice": "correct horse"}, certificate=certificate, more=more)
        made.append(one)
        return one.start()

    yield make
    for one in made:
        one.stop()


def section(**keys: object) -> LdapSection:
    """A section as the file would give it, with quick patience; ``user_dn`` unless there is a ``base_dn``."""
    usual: dict[str, object] = {"type": "ldap", "timeout": "1s", "dead_time": "1h"}
    if "base_dn" not in keys:
        usual["user_dn"] = USER_DN
    return LdapSection.model_validate(usual | keys)


def searching(**keys: object) -> LdapSection:
    """With the service account."""
    return section(**{"base_dn": BASE, "bind_dn": SERVICE_DN, "bind_password_file": "unread"} | keys)


class Asked:
    """A backend of a section, asked from tests that are not asynchronous. Its clock stands."""

    def __init__(self, of: LdapSection, *, password: str = SERVICE_PASSWORD) -> None:
        self.now = 1000.0
        self.backend = LdapPrimary(of, bind_password=Secret(password.encode()), monotonic=lambda: self.now)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.backend.close()

    def check(self, name: str, password: str | bytes) -> bool:
        raw = password.encode() if isinstance(password, str) else password
        return asyncio.run(self.backend.check(name, Secret(raw), attempt(name)))


def ways(directory: Slapd, authority: Authority) -> dict[str, LdapSection]:
    """Every way to the entry and every transport."""
    ca = str(authority.path)
    return {
        "clear": section(servers=directory.url),
        "ldaps by address": section(servers=directory.tls_url, ca_file=ca),
        "ldaps by name": section(servers=directory.named_tls_url, ca_file=ca),
        "start_tls": section(servers=directory.url, start_tls=True, ca_file=ca),
        "ldapi": section(servers=directory.ipc_url),
        "search": searching(servers=directory.url),
        "search inside TLS": searching(servers=directory.tls_url, ca_file=ca),
        "a filter with more": searching(servers=directory.url, filter="(&(objectClass=person)(|(uid={user})(mail={user})))"),
    }


WAYS = ["clear", "ldaps by address", "ldaps by name", "start_tls", "ldapi", "search", "search inside TLS", "a filter with more"]


@pytest.mark.parametrize("way", WAYS)
def test_right_and_wrong_passwords(way: str, directory: Slapd, authority: Authority) -> None:
    """Right, wrong, of another user, and nobody's; twice, so that kept connections are used too."""
    with Asked(ways(directory, authority)[way]) as primary:
        for _ in range(2):
            assert primary.check("alice", "correct horse") is True
            assert primary.check("alice", "correct horse ") is False
            assert primary.check("alice", "pä55wörd") is False
            assert primary.check("nobody", "correct horse") is False
            assert primary.check("uml", "pä55wörd") is True


def test_connections_are_kept(directory: Slapd) -> None:
    """Ten logins by search are two connections, and one bind of the service account."""
    before = directory.asked("ACCEPT from"), directory.asked(f'BIND dn="{SERVICE_DN}"')
    with Asked(searching(servers=directory.url)) as primary:
        assert all(primary.check("alice", "correct horse") for _ in range(10))

    assert directory.asked("ACCEPT from") - before[0] == 2
    assert directory.asked(f'BIND dn="{SERVICE_DN}"') - before[1] == 1


def test_a_connection_that_was_idle_for_long_is_not_used_again(directory: Slapd) -> None:
    """A firewall between may have forgotten it."""
    before = directory.asked("ACCEPT from")
    with Asked(section(servers=directory.url)) as primary:
        primary.check("alice", "correct horse")
        primary.now += 31
        assert primary.check("alice", "correct horse") is True

    assert directory.asked("ACCEPT from") - before == 2


@pytest.mark.parametrize("password", [b"", b"\0", b"correct horse\0", b"se\0cret", b"\xff\xfe", "pä55wörd".encode("latin-1")])
def test_what_is_no_password_is_wrong_and_asks_nobody(password: bytes, directory: Slapd) -> None:
    """RFC 4513 section 5.1.2: an empty one would be an unauthenticated bind, and a success."""
    before = directory.asked("BIND dn="), directory.asked("SRCH base=")
    with Asked(searching(servers=directory.url)) as primary:
        assert primary.check("alice", password) is False
        assert primary.check("nul", password) is False

    assert (directory.asked("BIND dn="), directory.asked("SRCH base=")) == before


def test_no_preparation_makes_another_password_of_it(directory: Slapd) -> None:
    """ldap3 would map text by SASLprep: then two passwords are one."""
    with Asked(section(servers=directory.url)) as primary:
        assert primary.check("soft", SOFT) is True
        assert primary.check("soft", SOFT.replace("­", "")) is False


INJECTIONS = [
    "*", "al*", "alice)(uid=*", "*)(|(uid=*", "alice)(cn=alice))(|(uid=*", "(alice", "alice)", "alice\\2a", "\\2a", "\\61lice",
    "alice,ou=people", f"alice,{PEOPLE}", f"mfad,{BASE}", "alice+cn=alice", "alice;x", '"alice"', "alice=x", "#616c696365",
    "<alice>", "nobody,uid=alice", "alice\r\n", "alice\0", " alice", "alice ", "\uff41lice",
]  # fmt: skip


@pytest.mark.parametrize("name", INJECTIONS)
@pytest.mark.parametrize("way", ["clear", "search", "a filter with more"])
def test_a_name_is_a_value_and_nothing_else(way: str, name: str, directory: Slapd, authority: Authority) -> None:
    """With the password of somebody who exists, no other spelling is that somebody: nor with identity's checks left out."""
    with Asked(ways(directory, authority)[way]) as primary:
        assert primary.check(name, "correct horse") is False
        assert primary.check(name, SERVICE_PASSWORD) is False


@pytest.mark.parametrize("way", ["clear", "search"])
def test_a_name_with_special_characters_finds_its_own_entry(way: str, directory: Slapd, authority: Authority) -> None:
    """Escaping hides nobody."""
    with Asked(ways(directory, authority)[way]) as primary:
        assert primary.check(ODD, "odd one") is True


@given(st.text(min_size=1, max_size=40))
def test_an_escaped_name_is_one_value(name: str) -> None:
    """Whatever stands in it, a DN has as many parts as its template, and the value comes back as it was."""
    name = name.encode("utf-8", "ignore").decode() or "x"
    value = escaped(name)

    parts = parse_dn(f"uid={value},{PEOPLE}")

    assert [attribute for attribute, _, _ in parts] == ["uid", "ou", "dc", "dc"]
    octets = bytearray()
    rest = parts[0][1]
    while rest:
        octets += bytes.fromhex(rest[1:3]) if rest[0] == "\\" else rest[0].encode()
        rest = rest[3 if rest[0] == "\\" else 1 :]
    assert octets.decode() == name


def test_an_entry_that_is_not_one_is_refused(directory: Slapd, caplog: pytest.LogCaptureFixture) -> None:
    """Two entries with this uid: the password of either is no good, and the log says why."""
    with Asked(searching(servers=directory.url)) as primary:
        assert primary.check("twin", "first") is False

    assert "more than one entry" in caplog.text


def test_a_server_that_does_not_listen_is_passed_over(directory: Slapd, caplog: pytest.LogCaptureFixture) -> None:
    """The next one is asked, and the first left alone for a while; one warning, not one a login."""
    caplog.set_level(logging.WARNING)
    with Asked(section(servers=[f"ldap://127.0.0.1:{free_port()}", directory.url])) as primary:
        assert primary.check("alice", "correct horse") is True
        assert primary.check("alice", "wrong") is False

    assert caplog.text.count("stands aside") == 1


def test_when_none_listens_nobody_knows() -> None:
    """Neither yes nor no."""
    servers = [f"ldap://127.0.0.1:{free_port()}", f"ldap://127.0.0.1:{free_port()}"]
    with Asked(section(servers=servers)) as primary:
        for _ in range(2):
            with pytest.raises(PrimaryUnavailable):
                primary.check("alice", "correct horse")


def test_a_dead_server_comes_back(make_slapd: Callable[..., Slapd], authority: Authority) -> None:
    """After its dead-time it is asked again; when it is the only one, at once."""
    one = make_slapd()
    with Asked(section(servers=one.tls_url, ca_file=str(authority.path), dead_time="10s")) as primary:
        assert primary.check("alice", "correct horse") is True
        one.stop()
        with pytest.raises(PrimaryUnavailable):
            primary.check("alice", "correct horse")
        one.start()
        assert primary.check("alice", "correct horse") is True


@pytest.mark.parametrize(
    ("name", "expired", "stranger"),
    [("other.example.org", False, False), ("localhost", True, False), ("localhost", False, True)],
    ids=["another name", "expired", "another CA"],
)
@pytest.mark.parametrize("start_tls", [False, True], ids=["ldaps", "start_tls"])
def test_a_certificate_that_is_not_right_gets_no_password(
    name: str,
    expired: bool,
    stranger: bool,
    start_tls: bool,
    make_slapd: Callable[..., Slapd],
    authority: Authority,
    tmp_path: Path,
) -> None:
    """Nothing is sent there; `verify: none` sends it, with a warning."""
    one = make_slapd(name, expired=expired, signed_by=Authority(tmp_path / "stranger") if stranger else None)
    url = one.url.replace("127.0.0.1", "localhost") if start_tls else one.named_tls_url
    strict = section(servers=url, ca_file=str(authority.path), start_tls=start_tls)
    with Asked(strict) as primary, pytest.raises(PrimaryUnavailable, match=r"(?i)certificate"):
        primary.check("alice", "correct horse")
    assert one.asked("BIND dn=") == 0

    with Asked(section(servers=url, verify="none", start_tls=start_tls)) as primary:
        assert primary.check("alice", "correct horse") is True


def test_insecure_settings_are_told(directory: Slapd, caplog: pytest.LogCaptureFixture) -> None:
    """At every start."""
    with Asked(section(servers=[directory.url, directory.tls_url], verify="none")):
        pass

    assert "reads every password" in caplog.text
    assert "in clear" in caplog.text


def test_tls_below_1_2_is_not_spoken(make_slapd: Callable[..., Slapd], authority: Authority) -> None:
    """GnuTLS of the server offers TLS 1.1 alone."""
    one = make_slapd(more="TLSCipherSuite NORMAL:-VERS-ALL:+VERS-TLS1.1")
    with Asked(section(servers=one.tls_url, ca_file=str(authority.path))) as primary, pytest.raises(PrimaryUnavailable):
        primary.check("alice", "correct horse")

    assert one.asked("BIND dn=") == 0


@pytest.mark.parametrize("start_tls", [False, True], ids=["clear", "start_tls"])
def test_a_server_that_hangs_is_given_up_on(start_tls: bool, make_slapd: Callable[..., Slapd], authority: Authority) -> None:
    """Connections are taken and nothing is said."""
    one = make_slapd()
    one.freeze()
    impatient = section(servers=one.url, start_tls=start_tls, ca_file=str(authority.path))
    with Asked(impatient) as primary, pytest.raises(PrimaryUnavailable):
        primary.check("alice", "correct horse")


def test_a_hanging_first_server_costs_one_login_its_patience(
    make_slapd: Callable[..., Slapd], directory: Slapd, authority: Authority
) -> None:
    """It hangs before it could hear the password: the second is asked at once, and from then on alone."""
    one = make_slapd()
    one.freeze()
    with Asked(section(servers=[one.tls_url, directory.tls_url], ca_file=str(authority.path))) as primary:
        assert primary.check("alice", "correct horse") is True
        assert primary.check("alice", "wrong") is False


def test_a_password_goes_to_one_server(make_slapd: Callable[..., Slapd], directory: Slapd) -> None:
    """The first one has it and hangs: it may have counted it, so that this login ends there; the next one asks the second."""
    one = make_slapd()
    before = directory.asked("BIND dn=")
    with Asked(section(servers=[one.url, directory.url])) as primary:
        assert primary.check("alice", "correct horse") is True
        one.freeze()
        with pytest.raises(PrimaryUnavailable):
            primary.check("alice", "wrong")
        assert directory.asked("BIND dn=") == before
        assert primary.check("alice", "correct horse") is True


class Peer:
    """A server that says what a test made up, then holds the line. ``say`` gets the messageID of the question, as octets."""

    def __init__(self, say: Callable[[bytes], bytes]) -> None:
        self._say = say
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ldap://127.0.0.1:{self._listener.getsockname()[1]}"
        self._lines: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with closing(socket.create_connection(self._listener.getsockname())) as last:
            last.sendall(b"end")
            self._thread.join()
        for line in (*self._lines, self._listener):
            line.close()

    def _serve(self) -> None:
        while True:
            line, _ = self._listener.accept()
            self._lines.append(line)
            asked = line.recv(4096)
            if asked == b"end":
                return
            line.sendall(self._say(asked[2 : 4 + asked[3]]))


class Dripper(Peer):
    """A server that says one octet of a long message a moment, so that no single wait is ever too long."""

    def __init__(self) -> None:
        super().__init__(lambda _: b"")
        self.ended = threading.Event()

    def _serve(self) -> None:
        line, _ = self._listener.accept()
        self._lines.append(line)
        line.recv(4096)
        line.sendall(b"\x30\x84\x00\xff\xff\xff")
        line.settimeout(0.1)
        while True:
            try:
                line.send(b"\x00")
                if line.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        self.ended.set()
        while line is not self._listener:
            line, _ = self._listener.accept()
            self._lines.append(line)
            if line.recv(4096) == b"end":
                return


def test_a_server_that_drips_is_given_up_on_and_frees_its_thread() -> None:
    """Each octet comes in time, and the answer never does: the connection is shut from outside."""
    with Dripper() as peer, Asked(section(servers=peer.url)) as primary:
        with pytest.raises(PrimaryUnavailable, match="no answer within"):
            primary.check("alice", "correct horse")
        assert peer.ended.wait(30)


def test_an_errand_that_was_given_up_on_shuts_only_its_own_connection() -> None:
    """What it has handed on is somebody else's; what comes too late is closed at once."""
    ours, others = socket.socketpair()
    connection = SimpleNamespace(socket=ours, unbind=lambda: None)
    early, late = _Errand(), _Errand()
    with ours, others:
        early.works_on(connection)
        early.done()
        early.give_up()
        ours.send(b"still open")
        assert others.recv(16) == b"still open"

        late.give_up()
        with pytest.raises(_Down):
            late.works_on(connection)
        assert ours.fileno() == -1


def test_many_at_once_are_not_mixed_up(directory: Slapd, authority: Authority) -> None:
    """Right and wrong passwords of several users over the same kept connections: each hears of his own."""
    people = {"alice": "correct horse", "uml": "pä55wörd", "soft": SOFT}
    backend = LdapPrimary(
        searching(servers=directory.tls_url, ca_file=str(authority.path), timeout="10s"),
        bind_password=Secret(SERVICE_PASSWORD.encode()),
        monotonic=lambda: 0.0,
    )

    async def ask(number: int) -> bool:
        name = list(people)[number % 3]
        good = number % 2 == 0
        typed = people[name] if good else people[list(people)[(number + 1) % 3]]
        async with places[name]:
            return await backend.check(name, Secret(typed.encode()), attempt(name, source=None)) is good

    async def run() -> list[bool]:
        return await asyncio.gather(*(ask(number) for number in range(120)))

    places = {name: asyncio.Semaphore(4) for name in people}
    try:
        assert all(asyncio.run(run()))
    finally:
        backend.close()


def test_no_password_stays_behind(directory: Slapd) -> None:
    """Not in a connection that waits for its next use."""
    with Asked(searching(servers=directory.url)) as primary:
        primary.check("alice", "correct horse")
        kept = [
            connection
            for store in (primary.backend._binders, primary.backend._searchers)
            for waiting in store._idle.values()
            for _, connection in waiting
        ]
        assert len(kept) == 2
        for connection in kept:
            held = repr({**vars(connection), **vars(connection.strategy)})
            assert "correct horse" not in held
            assert SERVICE_PASSWORD not in held


def message(operation: bytes) -> Callable[[bytes], bytes]:
    """An LDAPMessage that answers what was asked."""
    return lambda number: bytes([0x30, len(number) + len(operation)]) + number + operation


def bind_response(code: int, text: bytes = b"") -> bytes:
    """RFC 4511 section 4.2.2."""
    result = bytes([0x0A, 1, code, 4, 0, 4, len(text)]) + text
    return bytes([0x61, len(result)]) + result


REFUSED = {
    10: None, 11: None, 1: None, 2: None, 8: None, 13: None, 14: None, 51: None, 52: None, 53: None, 80: None, 118: None,
    49: False, 48: False, 32: False, 34: False, 19: False, 0: True,
}  # fmt: skip


@pytest.mark.parametrize(("code", "expected"), REFUSED.items())
def test_what_a_result_means(code: int, expected: bool | None) -> None:
    """49 and its like are "no"; a server that is busy, wants TLS or points elsewhere says nothing about a password."""
    with Peer(message(bind_response(code))) as peer, Asked(section(servers=peer.url)) as primary:
        if expected is None:
            with pytest.raises(PrimaryUnavailable):
                primary.check("alice", "correct horse")
        else:
            assert primary.check("alice", "correct horse") is expected


def test_what_active_directory_says_is_for_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Its code is explained there; its text is not repeated."""
    caplog.set_level(logging.INFO)
    text = b"80090308: LdapErr: DSID-0C09044E, comment: AcceptSecurityContext error, data 775, v2580"
    with Peer(message(bind_response(49, text))) as peer, Asked(section(servers=peer.url)) as primary:
        assert primary.check("alice", "correct horse") is False

    assert "the account is locked" in caplog.text
    assert "LdapErr" not in caplog.text
    assert "correct horse" not in caplog.text


JUNK: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda _: bytes(64),
    "http": lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a message of 4 GiB": lambda _: b"\x30\x84\xff\xff\xff\xff",
    "an indefinite length": lambda _: b"\x30\x80",
    "a message without operation": message(b""),
    "an answer to another question": lambda _: message(bind_response(0))(b"\x02\x02\x7f\xff"),
    "a searchResDone": message(b"\x65" + bind_response(0)[1:]),
    "an extendedResp": message(b"\x78" + bind_response(0)[1:]),
    "an empty bindResponse": message(b"\x61\x00"),
    "a cut bindResponse": message(bind_response(0)[:-3]),
}


@pytest.mark.parametrize("what", JUNK)
def test_junk_is_no_answer(what: str) -> None:
    """Never a yes, never another error."""
    with Peer(JUNK[what]) as peer, Asked(section(servers=peer.url)) as primary, pytest.raises(PrimaryUnavailable):
        primary.check("alice", "correct horse")


def test_a_service_account_that_is_refused_is_not_tried_again_at_once(directory: Slapd) -> None:
    """The directory would lock it. Nobody's password is counted as wrong for that."""
    before = directory.asked("BIND dn=")
    with Asked(searching(servers=directory.url), password="not it") as primary:
        for _ in range(3):
            with pytest.raises(PrimaryUnavailable, match="bind as"):
                primary.check("alice", "correct horse")
        assert directory.asked("BIND dn=") - before == 1
        primary.now += 31
        with pytest.raises(PrimaryUnavailable):
            primary.check("alice", "correct horse")
        assert directory.asked("BIND dn=") - before == 2


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"ca_file": "/nonexistent/ca.pem"}, "ca_file"),
        ({"ca_file": __file__}, "ca_file"),
        ({"user_dn": "uid={user},,x"}, "user_dn"),
        ({"base_dn": "no dn at all"}, "base_dn"),
        ({"base_dn": BASE, "filter": "(&(uid={user}))(x)"}, "filter"),
    ],
)
def test_what_cannot_be_used_is_told_at_the_start(keys: dict[str, object], named: str) -> None:
    """Not at the first login."""
    with pytest.raises(ConfigurationError, match=named):
        LdapPrimary(section(servers="ldap://127.0.0.1", **keys), bind_password=None, monotonic=lambda: 0.0)


def test_a_probe_says_what_is_wrong(directory: Slapd, authority: Authority) -> None:
    """For the doctor."""
    with Asked(searching(servers=directory.tls_url, ca_file=str(authority.path))) as good:
        good.backend.probe(directory.tls_url)
    with Asked(searching(servers=directory.tls_url)) as untrusted, pytest.raises(PrimaryUnavailable, match="certificate"):
        untrusted.backend.probe(directory.tls_url)
    with Asked(searching(servers=directory.url), password="not it") as refused, pytest.raises(PrimaryUnavailable, match="bind"):
        refused.backend.probe(directory.url)


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        return int(probe.getsockname()[1])
