"""What the module inside FreeRADIUS makes of mfad's answers, and of mfads that are none. A rogue one never logs anybody in."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.end_to_end.programs import wait_until
from tests.radius_plugin.freeradius_module import FAIL, HANDLED, OK, REJECT, module

DICTIONARY = """
# comment
ATTRIBUTE User-Name 1 string
ATTRIBUTE Framed-IP-Address 8 ipaddr
ATTRIBUTE Filter-Id 11 string # a comment
ATTRIBUTE Reply-Message 18 string
ATTRIBUTE Class 25 octets
ATTRIBUTE Session-Timeout 27 integer
ATTRIBUTE Tunnel-Type 64 integer has_tag
ATTRIBUTE Tunnel-Password 69 string has_tag,encrypt=2
ATTRIBUTE Tunnel-Private-Group-Id 81 string has_tag
ATTRIBUTE Framed-IPv6-Prefix 97 ipv6prefix
ATTRIBUTE Framed-IPv6-Address 168 ipv6addr
ATTRIBUTE Delegated 155 ipv4prefix
ATTRIBUTE Small 200 byte
ATTRIBUTE Middle 201 short
ATTRIBUTE Wide 202 integer64
ATTRIBUTE Below 203 signed
ATTRIBUTE When 204 date
ATTRIBUTE Fixed 205 octets[2]
ATTRIBUTE Extended-1 241 extended
ATTRIBUTE Inside 241.1 integer
$INCLUDE more
$INCLUDE- not-there
"""
MORE = """
VENDOR Cisco 9
BEGIN-VENDOR Cisco
ATTRIBUTE Cisco-AVPair 1 string
ATTRIBUTE Cisco-Number 2 integer
END-VENDOR Cisco
VENDOR Odd 429 format=4,0
BEGIN-VENDOR Odd
ATTRIBUTE Odd-Thing 1 integer
END-VENDOR Odd
VENDOR Even 5 format=1,1
BEGIN-VENDOR Even
BEGIN-TLV Container
ATTRIBUTE In-It 1 integer
END-TLV Container
ATTRIBUTE Even-Thing 0x02 ipaddr
END-VENDOR Even
"""
NOBODY = 65_534


@pytest.fixture(name="dictionary")
def _dictionary(tmp_path: Path) -> str:
    (tmp_path / "more").write_text(MORE)
    path = tmp_path / "dictionary"
    path.write_text(DICTIONARY)
    return str(path)


def one(kind: int, value: bytes) -> bytes:
    return bytes((kind, len(value) + 2)) + value


def vendor(number: int, inside: bytes) -> bytes:
    return one(26, struct.pack(">I", number) + inside)


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (one(11, b"vpn-users"), ("Filter-Id", "vpn-users")),
        (one(11, 'münchen \\ "%{x}" `id`'.encode()), ("Filter-Id", r"m\303\274nchen \134 \042\045{x}\042 \140id\140")),
        (one(11, b"a\0\xff"), ("Filter-Id", r"a\000\377")),
        (one(25, b"ou\0"), ("Class", "0x6f7500")),
        (one(205, b"ab"), ("Fixed", "0x6162")),
        (one(27, struct.pack(">I", 3600)), ("Session-Timeout", "3600")),
        (one(8, bytes([100, 65, 32, 33])), ("Framed-IP-Address", "100.65.32.33")),
        (one(168, ip_address("2001:db8::1").packed), ("Framed-IPv6-Address", "2001:db8::1")),
        (one(97, bytes([0, 32]) + bytes.fromhex("20010db8")), ("Framed-IPv6-Prefix", "2001:db8::/32")),
        (one(155, bytes([0, 24, 10, 1, 2, 0])), ("Delegated", "10.1.2.0/24")),
        (one(200, b"\xff"), ("Small", "255")),
        (one(201, b"\1\0"), ("Middle", "256")),
        (one(202, b"\1" + bytes(7)), ("Wide", str(1 << 56))),
        (one(203, b"\xff\xff\xff\xfe"), ("Below", "-2")),
        (one(64, b"\1\0\0\x0d"), ("Tunnel-Type:1", "13")),
        (one(64, b"\0\0\0\x0d"), ("Tunnel-Type", "13")),
        (one(81, b"\x0142"), ("Tunnel-Private-Group-Id:1", "42")),
        (one(81, b"42"), ("Tunnel-Private-Group-Id", "42")),
        (one(250, b"raw"), ("Attr-250", "0x726177")),
        (vendor(9, one(1, b"shell:priv-lvl=15")), ("Cisco-AVPair", "shell:priv-lvl=15")),
        (vendor(9, one(2, struct.pack(">I", 5))), ("Cisco-Number", "5")),
        (vendor(5, one(2, bytes([10, 0, 0, 1]))), ("Even-Thing", "10.0.0.1")),
        (vendor(99999, one(7, b"\0x")), ("Vendor-99999-Attr-7", "0x0078")),
        (vendor(5, one(1, b"\0\0\0\1")), ("Vendor-5-Attr-1", "0x00000001")),
    ],
)
def test_a_reply_attribute_is_written_in_the_form_of_freeradius_s_own_type(
    dictionary: str, encoded: bytes, expected: tuple[str, str]
) -> None:
    with module() as (plugin, _):
        assert plugin.read_dictionary(dictionary).pairs(encoded) == [(expected[0], "+=", expected[1])]


def test_several_attributes_keep_their_order_and_their_number(dictionary: str) -> None:
    encoded = one(25, b"a") + one(25, b"b") + vendor(9, one(1, b"x=1") + one(1, b"y=2")) + one(25, b"c")
    with module() as (plugin, _):
        values = [value for _, _, value in plugin.read_dictionary(dictionary).pairs(encoded)]
    assert values == ["0x61", "0x62", "x=1", "y=2", "0x63"]


@pytest.mark.parametrize(
    "encoded",
    [
        b"\x0b",
        b"\x0b\x01",
        b"\x0b\x00",
        b"\x0b\x05ab",
        one(26, b"\0\0"),
        vendor(9, b"\1"),
        vendor(9, b"\1\1"),
        vendor(9, b"\1\7ab"),
        one(27, b"\0\0\1"),
        one(8, b"\0\0\1"),
        one(25, b""),
        one(204, b"\0\0\0\1"),
        one(69, b"\1\x80\x01hidden"),
        one(241, b"\1\0\0\0\1"),
        one(155, bytes([0, 33, 10, 1, 2, 0])),
        one(97, bytes([0, 129])),
    ],
)
def test_an_attribute_that_freeradius_cannot_be_told_fails_the_login(dictionary: str, encoded: bytes) -> None:
    """It could be the one that keeps the person in a network of their own: none of it is left out in silence."""
    with module() as (plugin, _), pytest.raises(plugin.Trouble):
        plugin.read_dictionary(dictionary).pairs(encoded)


@given(encoded=st.binary(max_size=80))
def test_attributes_are_written_or_refused_and_nothing_else(encoded: bytes) -> None:
    with module() as (plugin, _):
        known = {(0, 11): ("Filter-Id", "string", False), (0, 64): ("Tunnel-Type", "integer", True)}
        try:
            pairs = plugin.Dictionary(known).pairs(encoded)
        except plugin.Trouble:
            return
    for name, _, value in pairs:
        assert name.isascii()
        assert value.isascii()
        assert value.isprintable()
        assert "%" not in value
        assert "`" not in value


@given(st.binary(max_size=253))
def test_a_quoted_string_gives_its_octets_back(value: bytes) -> None:
    with module() as (plugin, _):
        written = plugin.quoted(value)
    assert written.encode().decode("unicode_escape").encode("latin-1") == value


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"sokcet": "/x"}, "sokcet"),
        ({"timeout": "0"}, "timeout"),
        ({"timeout": "301"}, "timeout"),
        ({"timeout": "soon"}, "timeout"),
        ({"on_unavailable": "accept"}, "on_unavailable"),
        ({"server_user": "nobody-has-this-name"}, "server_user"),
        ({"dictionary": "/not/there"}, "/not/there"),
    ],
)
def test_a_wrong_setting_keeps_freeradius_from_starting(dictionary: str, config: dict[str, str], word: str) -> None:
    with module({"dictionary": dictionary, **config}) as (plugin, lines):
        assert plugin.instantiate(None) == -1
        assert len(lines) == 1
        assert word in lines[0]
        assert plugin.authenticate((("Tmp-Integer-0", "0"),)) == FAIL


def test_a_dictionary_that_includes_itself_keeps_freeradius_from_starting(tmp_path: Path) -> None:
    path = tmp_path / "dictionary"
    path.write_text("$INCLUDE dictionary\n")
    with module({"dictionary": str(path)}) as (plugin, lines):
        assert plugin.instantiate(None) == -1
        assert "include each other" in lines[0]


# mfads that are none

Answers = Callable[[bytes], Sequence[bytes]]


class Rogue:
    """Answers every message with what it is told to; an empty sequence hangs up."""

    def __init__(self, path: Path, answers: Answers, *, uid: int | None = None) -> None:
        self.heard: list[bytes] = []
        self.connections = 0
        self.sent = 0
        self._answers = answers
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(os.fspath(path))
        path.chmod(0o666)
        before = os.geteuid()
        if uid is not None:
            os.seteuid(uid)  # SO_PEERCRED of whoever connects names who called listen()
        try:
            self._listener.listen(8)
        finally:
            os.seteuid(before)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection, contextlib.suppress(ConnectionError):  # the module hangs up where it is told nonsense
                self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        while message := connection.recv(20_000):
            self.heard.append(message)
            answers = self._answers(message)
            for answer in answers:
                connection.send(answer)
                self.sent += 1
            if not answers:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def verdict(question: bytes, *fields: tuple[int, bytes], kind: int = 2, number: int | None = None) -> bytes:
    asked = struct.unpack_from(">I", question, 8)[0] if number is None else number
    body = b"".join(struct.pack(">HH", tag, len(value)) + value for tag, value in fields)
    return struct.pack(">4sHHI", b"MFR1", 1, kind, asked) + body


LOGIN = (("Tmp-Octets-0", "0x616c696365"), ("Tmp-Octets-1", "0x78"), ("Tmp-String-0", "192.0.2.1"), ("Tmp-Integer-0", "0"))
INNER = (*LOGIN[:3], ("Tmp-Integer-0", "1"))
STOP = (*LOGIN, ("Tmp-Integer-1", "2"))
SILENCE = (FAIL, {"config": (("Response-Packet-Type", ":=", "Do-Not-Respond"),)})


@contextmanager
def plugin_with(
    tmp_path: Path, dictionary: str, answers: Answers | None, *, uid: int | None = None, **config: str
) -> Iterator[tuple[Any, list[str], Rogue | None]]:
    path = tmp_path / "radius.sock"
    rogue = Rogue(path, answers, uid=uid) if answers is not None else None
    try:
        with module({"socket": str(path), "dictionary": dictionary, "timeout": "1", **config}) as (plugin, lines):
            assert plugin.instantiate(None) == 0, lines
            yield plugin, lines, rogue
    finally:
        if rogue is not None:
            rogue.close()


def test_each_verdict_becomes_one_word_of_freeradius(tmp_path: Path, dictionary: str) -> None:
    said: list[tuple[int, bytes]] = []
    with plugin_with(tmp_path, dictionary, lambda message: [verdict(message, *said)]) as (plugin, lines, rogue):
        said[:] = [(0x0201, b"\1"), (0x0202, "grüß dich".encode()), (0x0204, one(25, b"c"))]
        reply = (("Reply-Message", "+=", r"gr\303\274\303\237 dich"), ("Class", "+=", "0x63"))
        assert plugin.authenticate(LOGIN) == (OK, {"reply": reply})
        said[:] = [(0x0201, b"\2"), (0x0202, b"Access denied.")]
        assert plugin.authenticate(LOGIN) == (REJECT, {"reply": (("Reply-Message", "+=", "Access denied."),)})
        said[:] = [(0x0201, b"\3"), (0x0202, b"Code: "), (0x0203, b"\0\1")]
        code, lists = plugin.authenticate(LOGIN)
        assert code == HANDLED
        assert lists["reply"][0] == ("Message-Authenticator", "=", "0x00")
        assert lists["reply"][1:] == (("State", ":=", "0x0001"), ("Reply-Message", "+=", "Code: "))
        assert lists["config"] == (("Response-Packet-Type", ":=", "Access-Challenge"),)
        said[:] = [(0x0201, b"\4")]
        assert plugin.authenticate(LOGIN) == SILENCE
        assert lines == []
        assert rogue is not None
        assert rogue.connections == 1, "one connection carries them all"


def test_a_question_inside_a_tunnel_fails(tmp_path: Path, dictionary: str) -> None:
    challenge = ((0x0201, b"\3"), (0x0203, b"\0\1"))
    with plugin_with(tmp_path, dictionary, lambda message: [verdict(message, *challenge)]) as (plugin, lines, _):
        assert plugin.authenticate(INNER) == FAIL
        assert len(lines) == 1


@pytest.mark.parametrize(
    "answers",
    [
        lambda message: [b"junk"],
        lambda message: [message],
        lambda message: [verdict(message, (0x0201, b"\1"), number=0)],
        lambda message: [verdict(message, (0x0201, b"\1"), kind=4)],
        lambda message: [verdict(message, (0x0201, b"\2"), (0x0201, b"\1"))],
        lambda message: [verdict(message, (0x0201, b"\1"))[:-1]],
        lambda message: [verdict(message, (0x0201, b"\1"), (0x0204, b"\x0b\x05ab"))],
        lambda message: [verdict(message, (0x0201, b"\1"), (0x0204, one(204, b"\0\0\0\1")))],
        lambda message: [verdict(message, (0x0201, b"\1"), (0x0202, bytes(16_384)))],
        lambda message: [],
    ],
    ids=["junk", "echo", "number", "type", "two-kinds", "cut", "attributes", "unwritable", "long", "hang-up"],
)
def test_a_broken_answer_is_no_answer(tmp_path: Path, dictionary: str, answers: Answers) -> None:
    with plugin_with(tmp_path, dictionary, answers) as (plugin, lines, _):
        assert plugin.authenticate(LOGIN) == SILENCE
        assert plugin.authenticate(INNER) == FAIL
        assert plugin.accounting(STOP) == FAIL
        assert 1 <= len(lines) <= 3
        assert not any("616c696365" in line or "alice" in line for line in lines)


def test_nothing_is_asked_twice(tmp_path: Path, dictionary: str) -> None:
    """mfad may have spent the code before it hung up."""
    with plugin_with(tmp_path, dictionary, lambda message: []) as (plugin, _, rogue):
        assert plugin.authenticate(LOGIN) == SILENCE
        assert rogue is not None
        assert len(rogue.heard) == 1


def test_a_verdict_that_nobody_asked_for_is_never_an_answer(tmp_path: Path, dictionary: str) -> None:
    """What waits on a connection before the question was sent is not read: the connection is given up."""
    accept = (0x0201, b"\1")

    def answers(message: bytes) -> list[bytes]:
        number = struct.unpack_from(">I", message, 8)[0]
        ahead = [verdict(message, accept, number=number + step) for step in (1, 2, 3)]
        return [verdict(message, (0x0201, b"\2")), *ahead]

    with plugin_with(tmp_path, dictionary, answers) as (plugin, _, rogue):
        assert rogue is not None
        for times in range(1, 4):
            assert plugin.authenticate(LOGIN) == (REJECT, {"reply": ()})
            wait_until(lambda: rogue.sent == 4 * times, "all of it is sent")  # noqa: B023  called before the loop goes on
            assert rogue.connections == times


def test_a_daemon_that_says_nothing_is_waited_for_no_longer_than_the_timeout(tmp_path: Path, dictionary: str) -> None:
    asked = threading.Event()
    go_on = threading.Event()

    def answers(message: bytes) -> list[bytes]:
        asked.set()
        go_on.wait()
        return [verdict(message, (0x0201, b"\1"))]

    with plugin_with(tmp_path, dictionary, answers) as (plugin, lines, _):
        try:
            assert plugin.authenticate(LOGIN) == SILENCE
            assert asked.is_set()
            assert "said nothing within 1 s" in lines[0]
        finally:
            go_on.set()


def test_without_a_daemon_every_request_fails(tmp_path: Path, dictionary: str) -> None:
    with plugin_with(tmp_path, dictionary, None) as (plugin, lines, _):
        for _ in range(5):
            assert plugin.authenticate(LOGIN) == SILENCE
        assert plugin.authenticate(INNER) == FAIL
        assert plugin.accounting(STOP) == FAIL
        assert len(lines) == 1, "one line, however many requests"


def test_without_a_daemon_the_person_hears_of_it_where_that_is_wanted(tmp_path: Path, dictionary: str) -> None:
    with plugin_with(tmp_path, dictionary, None, on_unavailable="reject") as (plugin, _, _):
        assert plugin.authenticate(LOGIN) == FAIL


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_socket_of_somebody_else_is_not_believed(tmp_path: Path, dictionary: str) -> None:
    accept = (0x0201, b"\1")
    with plugin_with(tmp_path, dictionary, lambda message: [verdict(message, accept)], uid=NOBODY) as (plugin, lines, rogue):
        assert plugin.authenticate(LOGIN) == SILENCE
        assert f"served by uid {NOBODY}" in lines[0]
        assert rogue is not None
        wait_until(lambda: rogue.connections == 1, "it was connected to")
        assert rogue.heard == [], "and heard no password"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_socket_of_the_configured_user_is_believed(tmp_path: Path, dictionary: str) -> None:
    reject = (0x0201, b"\2")
    answers: Answers = lambda message: [verdict(message, reject)]  # noqa: E731
    with plugin_with(tmp_path, dictionary, answers, uid=NOBODY, server_user=str(NOBODY)) as (plugin, _, _):
        assert plugin.authenticate(LOGIN) == (REJECT, {"reply": ()})


@pytest.mark.parametrize(
    "pairs",
    [
        (),
        LOGIN[:3],
        (*LOGIN, LOGIN[0]),
        (*LOGIN[1:], ("Tmp-Octets-0", "alice")),
        (*LOGIN[1:], ("Tmp-Octets-0", "0x616")),
        (*LOGIN[1:], ("Tmp-Octets-0", "0x" + "61" * 254)),
        (*LOGIN[:2], ("Tmp-String-0", "nowhere"), LOGIN[3]),
        (*LOGIN[:2], LOGIN[3]),
        (*LOGIN, ("NAS-IP-Address", "x")),
    ],
    ids=["nothing", "no-policy", "twice", "text", "odd", "long", "no-address", "no-source", "nas"],
)
def test_a_request_that_the_policy_has_not_prepared_fails_before_mfad_hears_of_it(
    tmp_path: Path, dictionary: str, pairs: tuple[tuple[str, str], ...]
) -> None:
    accept = (0x0201, b"\1")
    with plugin_with(tmp_path, dictionary, lambda message: [verdict(message, accept)]) as (plugin, lines, rogue):
        assert plugin.authenticate(pairs) == SILENCE
        assert rogue is not None
        assert rogue.heard == []
        assert len(lines) == 1


def test_a_mistake_in_the_module_lets_nobody_in_and_shows_no_value(
    tmp_path: Path, dictionary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> None:
        raise RuntimeError("the password is hunter2")

    with plugin_with(tmp_path, dictionary, None) as (plugin, lines, _):
        monkeypatch.setattr(plugin, "login_fields", wrong)
        assert plugin.authenticate(LOGIN) == FAIL
        assert lines == ["mfad: a mistake in this module: RuntimeError"]
