"""The first factor by another RADIUS server: FreeRADIUS, and servers that lie."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyrad.packet import AuthPacket

from mfa_core.secret import Secret
from mfa_runtime.config.primary import RadiusSection
from mfa_runtime.primary import PrimaryUnavailable
from mfa_runtime.primary_radius import RadiusPrimary, _address, _doubt
from tests.doubles import attempt
from tests.end_to_end.freeradius import PROGRAMS, SECRET, FreeRadius
from tests.end_to_end.programs import must_have

ACCEPT, REJECT, CHALLENGE = 2, 3, 11
USERS_TEXT = r"""
latin Cleartext-Password := "p\344\377\001"
bob@corp Cleartext-Password := "correct horse"
"""


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreeRadius]:
    """The one that nobody stops."""
    must_have(*PROGRAMS)
    users = {"alice": "correct horse", "bob": "another one", "long": "x" * 128}
    one = FreeRadius(tmp_path_factory.mktemp("freeradius") / "one", users, users_text=USERS_TEXT)
    yield one.start()
    one.stop()


def section(servers: str | list[str], **keys: object) -> RadiusSection:
    """A section as the file would give it."""
    usual: dict[str, object] = {"type": "radius", "secret_file": "unread", "timeout": "1s", "retries": 1, "dead_time": "1h"}
    return RadiusSection.model_validate(usual | {"servers": servers} | keys)


class Asked:
    """A backend of a section, asked from tests that are not asynchronous. Its clock stands."""

    def __init__(self, servers: str | list[str], *, secret: str = SECRET, **keys: object) -> None:
        self.now = 1000.0
        self._backend = RadiusPrimary(section(servers, **keys), secret=Secret(secret.encode()), monotonic=lambda: self.now)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._backend.close()

    def check(self, name: str, password: str | bytes, *, presented: str | None = None) -> bool:
        raw = password.encode() if isinstance(password, str) else password
        return asyncio.run(self._backend.check(name, Secret(raw), attempt(name if presented is None else presented)))


def test_right_and_wrong_passwords(upstream: FreeRadius) -> None:
    """Right, wrong, of another user, nobody's; FreeRADIUS signs, and we believe it."""
    with Asked(upstream.address) as primary:
        assert primary.check("alice", "correct horse") is True
        assert primary.check("alice", "correct horse ") is False
        assert primary.check("alice", "another one") is False
        assert primary.check("nobody", "correct horse") is False
        assert primary.check("long", "x" * 128) is True


def test_octets_of_a_password_stay_as_they_are(upstream: FreeRadius) -> None:
    """Not UTF-8, and more than one block."""
    with Asked(upstream.address) as primary:
        assert primary.check("latin", b"p\xe4\xff\x01") is True
        assert primary.check("latin", "p") is False


@pytest.mark.parametrize("password", [b"", b"\0", b"correct horse\0", b"x" * 129])
def test_what_pap_cannot_carry_is_wrong_and_asks_nobody(password: bytes) -> None:
    """NULs at the end are padding there: "secret\\0" would be "secret"."""
    with Rogue(lambda request: signed(request, ACCEPT)) as rogue, Asked(rogue.address) as primary:
        assert primary.check("alice", password) is False
    assert rogue.requests == []


def test_the_name_that_is_sent(upstream: FreeRadius) -> None:
    """Canonical, or as it was presented."""
    with Asked(upstream.address) as primary:
        assert primary.check("alice", "correct horse", presented="EXAMPLE\\Alice") is True
    with Asked(upstream.address, user_name="presented") as primary:
        assert primary.check("bob", "correct horse", presented="bob@corp") is True
        assert primary.check("bob", "correct horse", presented="bob") is False


def test_a_request_is_signed_first_of_all() -> None:
    """Message-Authenticator is the first attribute; no password stands in it, and we say who we are."""
    with Rogue(lambda request: signed(request, ACCEPT)) as rogue, Asked(rogue.address, nas_identifier="gate") as primary:
        assert primary.check("alice", "correct horse") is True

    (request,) = rogue.requests
    kinds = [kind for kind, _ in attributes(request)]
    assert kinds[0] == 80
    assert dict(attributes(request))[32] == b"gate"
    assert b"correct horse" not in request
    zeroed = request[:22] + bytes(16) + request[38:]
    assert hmac.digest(SECRET.encode(), zeroed, "md5") == request[22:38]


def test_the_same_octets_are_sent_again() -> None:
    """A retransmission that its receiver can tell for one (RFC 5080 section 2.2.2)."""
    rogue = Rogue(lambda request: signed(request, ACCEPT) if len(rogue.requests) == 3 else None)
    with rogue, Asked(rogue.address, retries=3) as primary:
        assert primary.check("alice", "correct horse") is True

    assert len(set(rogue.requests)) == 1


def test_a_server_that_does_not_sign_is_not_believed(tmp_path: Path) -> None:
    """FreeRADIUS 3.2.1 as it comes: its Accept could be anybody's (CVE-2024-3596). The reason names the cure."""
    must_have(*PROGRAMS)
    unsigned = FreeRadius(tmp_path / "unsigned", {"alice": "correct horse"}, signs=False)
    unsigned.start()
    try:
        with Asked(unsigned.address) as primary, pytest.raises(PrimaryUnavailable, match="must sign its replies"):
            primary.check("alice", "correct horse")
    finally:
        unsigned.stop()


def attributes(packet: bytes) -> list[tuple[int, bytes]]:
    """Kinds and values."""
    found, rest = [], packet[20:]
    while rest:
        found.append((rest[0], rest[2 : rest[1]]))
        rest = rest[rest[1] :]
    return found


def reply(request: bytes, code: int, body: bytes, *, secret: str = SECRET, number: int | None = None) -> bytes:
    """A reply with a right Response Authenticator."""
    head = bytes([code, request[1] if number is None else number]) + (20 + len(body)).to_bytes(2, "big")
    return head + hashlib.md5(head + request[4:20] + body + secret.encode()).digest() + body


def signed(
    request: bytes,
    code: int,
    more: bytes = b"",
    *,
    secret: str = SECRET,
    sign: str | None = None,
    count: int = 1,
    number: int | None = None,
) -> bytes:
    """The same with a Message-Authenticator made with ``sign``, ``count`` times, before ``more``."""
    body = (b"\x50\x12" + bytes(16)) * count + more
    head = bytes([code, request[1] if number is None else number]) + (20 + len(body)).to_bytes(2, "big")
    mac = hmac.digest((secret if sign is None else sign).encode(), head + request[4:20] + body, "md5")
    return reply(request, code, (b"\x50\x12" + mac) * count + more, secret=secret, number=number)


LIES: dict[str, Callable[[bytes], bytes]] = {
    "no Message-Authenticator": lambda q: reply(q, ACCEPT, b""),
    "no Message-Authenticator, with text": lambda q: reply(q, ACCEPT, b"\x12\x04hi"),
    "a Message-Authenticator of another secret": lambda q: signed(q, ACCEPT, sign="another secret"),
    "a Message-Authenticator of zeros": lambda q: reply(q, ACCEPT, b"\x50\x12" + bytes(16)),
    "a short Message-Authenticator": lambda q: reply(q, ACCEPT, b"\x50\x0a" + bytes(8)),
    "an empty Message-Authenticator": lambda q: reply(q, ACCEPT, b"\x50\x02"),
    "two Message-Authenticators": lambda q: signed(q, ACCEPT, count=2),
    "a Proxy-State that was not sent": lambda q: signed(q, ACCEPT, b"\x21\x06junk"),
    "an empty Proxy-State": lambda q: signed(q, ACCEPT, b"\x21\x02"),
    "another secret": lambda q: signed(q, ACCEPT, secret="another secret"),
    "another Response Authenticator": lambda q: signed(q, ACCEPT)[:4] + bytes(16) + signed(q, ACCEPT)[20:],
    "another identifier": lambda q: signed(q, ACCEPT, number=q[1] ^ 1),
    "the request itself": lambda q: q,
    "another code": lambda q: signed(q, 5),
    "an Accept made of a Reject": lambda q: bytes([ACCEPT]) + signed(q, REJECT)[1:],
    "nothing": lambda _: b"",
    "a header and no more": lambda q: bytes([ACCEPT, q[1], 0, 20]),
    "a length beyond the end": lambda q: bytes([ACCEPT, q[1], 15, 255]) + signed(q, ACCEPT)[4:],
    "a length inside the header": lambda q: bytes([ACCEPT, q[1], 0, 19]) + signed(q, ACCEPT)[4:],
    "an attribute beyond the end": lambda q: signed(q, ACCEPT, b"\x12\xffhi"),
    "an attribute without a length": lambda q: signed(q, ACCEPT, b"\x12"),
    "an attribute of length 1": lambda q: signed(q, ACCEPT, b"\x12\x01"),
    "4097 octets": lambda q: signed(q, ACCEPT) + bytes(4097),
    "a broken vendor attribute": lambda q: reply(q, ACCEPT, b"\x1a\x04\x00\x00"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_reply_that_cannot_be_believed_is_passed_over(lie: str) -> None:
    """Whoever can send packets, or has found a collision, does not log in: what comes behind it counts."""
    with Rogue(lambda q: [LIES[lie](q), signed(q, REJECT)]) as rogue, Asked(rogue.address) as primary:
        assert primary.check("alice", "correct horse") is False


ALONE = ["no Message-Authenticator", "a Message-Authenticator of another secret", "a Proxy-State that was not sent", "nothing"]


@pytest.mark.parametrize("lie", ALONE)
def test_a_lie_alone_is_no_answer(lie: str) -> None:
    """Nor does it refuse anybody: nobody knows."""
    rogue = Rogue(LIES[lie])
    with rogue, Asked(rogue.address) as primary, pytest.raises(PrimaryUnavailable, match="cannot be believed"):
        primary.check("alice", "correct horse")
    assert len(rogue.requests) == 1


def test_all_lies_together_do_not_hide_the_answer() -> None:
    """Junk that comes first is passed over."""
    with Rogue(lambda q: [*(lie(q) for lie in LIES.values()), signed(q, ACCEPT)]) as rogue, Asked(rogue.address) as primary:
        assert primary.check("alice", "correct horse") is True


def test_padding_behind_the_length_is_passed_over() -> None:
    """RFC 2865 section 3."""
    with Rogue(lambda q: signed(q, ACCEPT) + b"padding") as rogue, Asked(rogue.address) as primary:
        assert primary.check("alice", "correct horse") is True


def test_a_challenge_is_refused_and_explained(caplog: pytest.LogCaptureFixture) -> None:
    """It cannot be passed on: nobody would answer it."""
    with Rogue(lambda q: signed(q, CHALLENGE, b"\x18\x06stat\x12\x06code")) as rogue, Asked(rogue.address) as primary:
        assert primary.check("alice", "correct horse") is False

    assert "Access-Challenge" in caplog.text


def test_a_server_that_is_silent_is_passed_over(upstream: FreeRadius, caplog: pytest.LogCaptureFixture) -> None:
    """The next one is asked, and the first left alone for a while; one warning, not one a login."""
    caplog.set_level(logging.WARNING)
    with Rogue(lambda _: None) as silent, Asked([silent.address, upstream.address], retries=2) as primary:
        assert primary.check("alice", "correct horse") is True
        assert primary.check("alice", "wrong") is False

    assert len(silent.requests) == 2
    assert caplog.text.count("stands aside") == 1


def test_a_server_that_does_not_listen_is_passed_over_at_once(upstream: FreeRadius) -> None:
    """The kernel says so; after its dead-time it is asked again."""
    nobody = f"127.0.0.1:{free_port()}"
    with Asked([nobody, upstream.address], timeout="30s") as primary:
        assert primary.check("alice", "correct horse") is True
        with Rogue(lambda q: signed(q, REJECT), port=int(nobody.rpartition(":")[2])) as back:
            primary.now += 3601
            assert primary.check("alice", "correct horse") is False
            assert len(back.requests) == 1


def test_another_secret_is_no_answer(upstream: FreeRadius) -> None:
    """FreeRADIUS drops what it cannot verify."""
    with Asked(upstream.address, secret="of somebody else") as primary, pytest.raises(PrimaryUnavailable, match="no answer"):
        primary.check("alice", "correct horse")


def test_a_probe_asks_without_a_user(upstream: FreeRadius) -> None:
    """Status-Server, which FreeRADIUS answers; for the doctor."""
    backend = RadiusPrimary(section(upstream.address), secret=Secret(SECRET.encode()))
    backend.probe(upstream.address)
    with pytest.raises(PrimaryUnavailable):
        backend.probe(f"127.0.0.1:{free_port()}")
    backend.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_only_the_server_is_heard(family: socket.AddressFamily) -> None:
    """A right reply from another port is not one: nobody else may send it."""
    rogue = Rogue(lambda q: signed(q, ACCEPT), family=family, from_elsewhere=True)
    with rogue, Asked(rogue.address) as primary, pytest.raises(PrimaryUnavailable):
        primary.check("alice", "correct horse")
    assert len(rogue.requests) == 1


@settings(deadline=None)
@given(st.binary(max_size=80), st.booleans())
def test_no_octets_are_believed(octets: bytes, behind_a_header: bool) -> None:
    """Any octets are doubted, and nothing else happens."""
    request = AuthPacket(code=1, id=7, secret=SECRET.encode(), authenticator=bytes(16), message_authenticator=True)
    head = bytes([ACCEPT, 7]) + (20 + len(octets)).to_bytes(2, "big") + bytes(16)

    assert _doubt(request, head + octets if behind_a_header else octets)


def test_every_octet_of_a_reply_counts() -> None:
    """One bit changed anywhere, or the end cut off: doubted. Unchanged: believed."""
    request = AuthPacket(code=1, id=7, secret=SECRET.encode(), authenticator=bytes(range(16)), message_authenticator=True)
    good = signed(bytes([1, 7, 0, 20]) + bytes(range(16)), ACCEPT, b"\x12\x07hello")

    assert _doubt(request, good) is None
    for at in range(len(good)):
        assert _doubt(request, good[:at])
        for bit in range(8):
            assert _doubt(request, good[:at] + bytes([good[at] ^ (1 << bit)]) + good[at + 1 :])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("radius.example.org", ("radius.example.org", 1812)),
        ("10.0.0.1:1645", ("10.0.0.1", 1645)),
        ("[2001:db8::1]", ("2001:db8::1", 1812)),
        ("[2001:db8::1]:1645", ("2001:db8::1", 1645)),
    ],
)
def test_addresses(written: str, meant: tuple[str, int]) -> None:
    """With and without a port."""
    assert _address(section(written).servers[0]) == meant


Said = bytes | list[bytes] | None


class Rogue:
    """A UDP server that answers what a test made up, or nothing."""

    def __init__(
        self,
        answer: Callable[[bytes], Said],
        *,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,
        from_elsewhere: bool = False,
    ) -> None:
        host = "::1" if family is socket.AF_INET6 else "127.0.0.1"
        self.requests: list[bytes] = []
        self._answer = answer
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.bind((host, port))
        self._speaks = socket.socket(family, socket.SOCK_DGRAM) if from_elsewhere else self._socket
        number = self._socket.getsockname()[1]
        self.address = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with closing(socket.socket(self._socket.family, socket.SOCK_DGRAM)) as last:
            last.sendto(b"end", self._socket.getsockname())
        self._thread.join()
        self._socket.close()
        self._speaks.close()

    def _serve(self) -> None:
        while True:
            request, sender = self._socket.recvfrom(4096)
            if request == b"end":
                return
            self.requests.append(request)
            said = self._answer(request)
            for one in said if isinstance(said, list) else [said]:
                if one is not None:
                    self._speaks.sendto(one, sender)


def free_port() -> int:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
