"""RADIUS over TLS on this host: which certificate is whose, and what slow, odd and greedy connections do to the others."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.errors import ConfigurationError
from mfa_core.secret import Secret
from mfa_core.verdict import Accepted
from radius_plugin import radsec
from radius_plugin.door import RadiusDoor, Sockets
from radius_plugin.radsec import RadSecServer, end_of, identity_of
from radius_plugin.settings import Listen, RadiusDoorSettings, RequireSignature, TlsClient, TlsSettings, Transport
from tests.end_to_end.radius_certificates import Authority, Certificate
from tests.end_to_end.radius_packets import Answer, read_answer
from tests.radius_plugin.door_doubles import CLIENT, HeldGate, accepted, login, rejected, status, unavailable
from tests.radius_plugin.test_server import PATIENCE_S, exchange, run, until

SECRET = b"radsec"
VPN = replace(
    CLIENT, name="vpn", network=ipaddress.ip_network("::/0"), secrets=(Secret(SECRET),),
    require_message_authenticator=RequireSignature.NO,
)  # fmt: skip
WIFI = replace(VPN, name="wifi")
SHORT_S = 0.15


@dataclass(frozen=True, slots=True)
class Certificates:
    """Everything that tests show each other; made once."""

    ca: Path
    other_ca: Path
    server: Certificate
    renewed: Certificate
    vpn: Certificate
    wifi: Certificate
    both: Certificate
    pinned: Certificate
    unknown: Certificate
    expired: Certificate
    foreign: Certificate


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    ours = Authority(tmp_path_factory.mktemp("ca"))
    theirs = Authority(tmp_path_factory.mktemp("other-ca"))
    server = ours.issue("radius.example", server=True)
    return Certificates(
        ours.path, theirs.path, server, ours.issue("renewed.radius.example", server=True), ours.issue("vpn.example"),
        ours.issue("wifi.example"), ours.issue("both.example", "vpn.example", "wifi.example"), ours.issue("pinned.example"),
        ours.issue("unknown.example"), ours.issue("vpn.example", expired=True), theirs.issue("vpn.example"),
    )  # fmt: skip


def settings(made: Certificates, **more: Any) -> RadiusDoorSettings:
    files = TlsSettings(str(made.server.certificate), str(made.server.key), str(made.ca))
    return RadiusDoorSettings(
        listen=(Listen("127.0.0.1", 0, Transport.TLS),),
        clients=(),
        tls=files,
        tls_clients=(
            TlsClient(VPN, frozenset({"VPN.example"}), frozenset({made.pinned.fingerprint})),
            TlsClient(WIFI, frozenset({"wifi.example"})),
        ),
        **more,
    )


@dataclass
class Running:
    door: RadiusDoor
    gate: HeldGate
    port: int
    made: Certificates

    @property
    def tls(self) -> RadSecServer:
        assert self.door._tls is not None
        return self.door._tls

    def counts(self, name: str = "vpn") -> dict[str, int]:
        return self.door.exchange.counts_by_client()[name]

    async def connect(self, shown: Certificate | None, **how: Any) -> Connection:
        context = client_context(self.made, shown, **how)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname="127.0.0.1")
        return Connection(reader, writer)

    async def is_refused(self, shown: Certificate | None, **how: Any) -> bool:
        """Whether a connection ends without an answer: under TLS 1.3 it seems to be there for a moment."""
        try:
            one = await self.connect(shown, **how)
        except OSError:
            return True
        return await one.is_hung_up(status())


def client_context(made: Certificates, shown: Certificate | None, *, at_most: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(made.ca))
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    if at_most is not None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, at_most
    return context


@dataclass
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def packet(self) -> bytes:
        head = await asyncio.wait_for(self.reader.readexactly(4), PATIENCE_S)
        return head + await asyncio.wait_for(self.reader.readexactly(int.from_bytes(head[2:4], "big") - 4), PATIENCE_S)

    async def ask(self, octets: bytes) -> Answer:
        self.send(octets)
        return read_answer(await self.packet(), SECRET, octets)

    async def is_hung_up(self, octets: bytes = b"") -> bool:
        """Whether the other side closes, and says nothing before."""
        try:
            if octets:
                self.send(octets)
            return await asyncio.wait_for(self.reader.read(1), PATIENCE_S) == b""
        except OSError:
            return True


def asked(identifier: int = 1, name: str = "alice", **more: Any) -> bytes:
    return login(name, "123456", identifier=identifier, secret=SECRET, **more)


def live(identifier: int = 1) -> bytes:
    return status(identifier=identifier, secret=SECRET)


@asynccontextmanager
async def running(made: Certificates, **more: Any) -> AsyncIterator[Running]:
    gate = HeldGate(at_once=accepted())
    chosen = settings(made, **more)
    sockets = Sockets.open(chosen)
    door = RadiusDoor(chosen, exchange(gate, chosen))
    await door.start(sockets)
    try:
        yield Running(door, gate, sockets.tls[0].getsockname()[1], made)
    finally:
        await door.stop()


# Who


def test_a_certificate_says_who_it_is(made: Certificates) -> None:
    async def test() -> None:
        async with running(made) as one:
            for shown, name in ((made.vpn, "vpn"), (made.pinned, "vpn"), (made.wifi, "wifi")):
                connection = await one.connect(shown)
                assert (await connection.ask(asked())).what == "Accept"
                assert one.gate.attempts[-1].client == name
                assert (await connection.ask(asked(2, sign=False))).signed_first
                assert (await connection.ask(live(3))).what == "Accept"
            assert one.door.counters()["tls_connections"] == 3

    run(test())


@pytest.mark.parametrize("shown", ["both", "unknown", "expired", "foreign", "none"])
def test_any_other_certificate_is_nobodys(made: Certificates, shown: str) -> None:
    """And whoever has a good one is answered after it."""

    async def test() -> None:
        async with running(made) as one:
            assert await one.is_refused(None if shown == "none" else getattr(made, shown))
            assert (await (await one.connect(made.vpn)).ask(asked())).what == "Accept"
            assert len(one.gate.questions) == 1
            if shown in {"expired", "foreign", "none"}:
                assert one.door.exchange.counts == {"tls_handshake_failed": 1}

    run(test())


def test_old_versions_of_tls_are_refused(made: Certificates) -> None:
    async def test() -> None:
        async with running(made) as one:
            with pytest.warns(DeprecationWarning, match="TLS"):
                context = client_context(made, made.vpn, at_most=ssl.TLSVersion.TLSv1_1)
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", one.port, ssl=context, server_hostname="127.0.0.1")
            assert (await (await one.connect(made.vpn, at_most=ssl.TLSVersion.TLSv1_2)).ask(asked())).what == "Accept"

    run(test())


def test_a_lower_bound_of_1_3_holds(made: Certificates) -> None:
    async def test() -> None:
        async with running(made) as one:
            chosen = settings(made)
            assert chosen.tls is not None
            one.door.reload(replace(chosen, tls=replace(chosen.tls, minimum_version="1.3")))
            assert await one.is_refused(made.vpn, at_most=ssl.TLSVersion.TLSv1_2)
            assert (await (await one.connect(made.vpn)).ask(asked())).what == "Accept"

    run(test())


def test_a_certificate_ends_at_its_date_on_a_connection_that_stays(made: Certificates) -> None:
    async def test() -> None:
        async with running(made) as one:
            connection = await one.connect(made.vpn)
            assert (await connection.ask(asked())).what == "Accept"
            one.tls.clock = lambda: time.time() + 2 * 86_400
            assert await connection.is_hung_up(asked(2))
            assert await one.is_refused(made.vpn), "and a session that is taken up again shows the same certificate"
            assert len(one.gate.questions) == 1

    run(test())


@pytest.mark.parametrize(
    ("certificate", "names"),
    [
        ({"subjectAltName": (("DNS", "A.example"), ("IP Address", "192.0.2.1"))}, {"a.example", "192.0.2.1"}),
        ({"subject": ((("commonName", "A.example"),),)}, {"a.example"}),
        ({"subject": ((("commonName", "cn.example"),),), "subjectAltName": (("DNS", "san.example"),)}, {"san.example"}),
        ({"subject": ((("organizationName", "a.example"),),)}, set()),
        ({"subject": ((("commonName", "a.example"),),), "subjectAltName": (("email", "x@y"),)}, {"a.example"}),
        ({}, set()),
    ],
)
def test_names_stand_in_the_alternative_names_and_in_the_common_name_where_there_are_none(
    certificate: dict[str, Any], names: set[str]
) -> None:
    assert identity_of(certificate, b"octets").names == names


# Reload


def test_a_client_that_a_reload_takes_away_is_hung_up_on_at_its_next_packet(made: Certificates) -> None:
    async def test() -> None:
        async with running(made) as one:
            gone, stays = await one.connect(made.vpn), await one.connect(made.wifi)
            assert (await gone.ask(live())).what == "Accept"
            chosen = settings(made)
            one.door.reload(replace(chosen, tls_clients=chosen.tls_clients[1:]))
            assert await gone.is_hung_up(asked())
            assert (await stays.ask(asked())).what == "Accept"
            assert await one.is_refused(made.vpn)

    run(test())


def test_a_reload_takes_a_renewed_certificate_and_leaves_connections_alone(made: Certificates) -> None:
    def common_name(one: Connection) -> str:
        return dict(part[0] for part in one.writer.get_extra_info("peercert")["subject"])["commonName"]

    async def test() -> None:
        async with running(made) as one:
            before = await one.connect(made.vpn)
            chosen = settings(made)
            renewed = TlsSettings(str(made.renewed.certificate), str(made.renewed.key), str(made.ca))
            one.door.reload(replace(chosen, tls=renewed))
            after = await one.connect(made.vpn)
            assert [common_name(connection) for connection in (before, after)] == ["radius.example", "renewed.radius.example"]
            assert (await before.ask(asked())).what == "Accept"
            assert (await after.ask(asked())).what == "Accept"

    run(test())


def test_an_authority_that_a_reload_takes_away_vouches_for_nobody(made: Certificates) -> None:
    async def test() -> None:
        async with running(made) as one:
            chosen = settings(made)
            assert chosen.tls is not None
            one.door.reload(replace(chosen, tls=replace(chosen.tls, client_ca_file=str(made.other_ca))))
            assert await one.is_refused(made.vpn)
            assert (await (await one.connect(made.foreign)).ask(asked())).what == "Accept"

    run(test())


@pytest.mark.parametrize("field", ["certificate_file", "key_file", "client_ca_file"])
def test_a_reload_with_a_file_that_cannot_be_used_changes_nothing(made: Certificates, tmp_path: Path, field: str) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")

    async def test() -> None:
        async with running(made) as one:
            chosen = settings(made)
            assert chosen.tls is not None
            for path in (bad, tmp_path / "missing.pem"):
                with pytest.raises(ConfigurationError, match="cannot be used"):
                    one.door.reload(replace(chosen, tls=replace(chosen.tls, **{field: str(path)}), tls_clients=()))
            assert (await (await one.connect(made.vpn)).ask(asked())).what == "Accept"

    run(test())


# Streams


def test_requests_of_a_connection_are_under_way_side_by_side(made: Certificates) -> None:
    """Row 56: a fast one is answered while a slow one waits, whatever their order."""

    async def test() -> None:
        async with running(made) as one:
            one.gate.at_once = None
            connection = await one.connect(made.vpn)
            slow, fast = asked(1, "slow"), asked(2, "fast")
            connection.send(slow + fast)
            await until(lambda: len(one.gate.questions) == 2)
            one.gate.questions[1][1](accepted())
            assert read_answer(await connection.packet(), SECRET, fast).what == "Accept"
            one.gate.questions[0][1](rejected())
            assert read_answer(await connection.packet(), SECRET, slow).what == "Reject"

    run(test())


def test_a_connection_has_all_identifiers_at_once(made: Certificates) -> None:
    async def test() -> None:
        async with running(made) as one:
            one.gate.at_once = None
            connection = await one.connect(made.vpn)
            connection.send(b"".join(asked(number) for number in range(256)))
            await until(lambda: len(one.gate.questions) == 256)
            for _, answer in reversed(one.gate.questions):
                answer(accepted())
            assert {(await connection.packet())[1] for _ in range(256)} == set(range(256))

    run(test())


def test_the_same_identifier_on_another_connection_is_another_request(made: Certificates) -> None:
    async def test() -> None:
        async with running(made) as one:
            octets = asked()
            first, second = await one.connect(made.vpn), await one.connect(made.vpn)
            assert [(await connection.ask(octets)).what for connection in (first, second, first)] == ["Accept"] * 3
            assert len(one.gate.questions) == 2

    run(test())


def test_a_connection_has_no_more_under_way_than_is_set_and_gets_its_room_back(made: Certificates) -> None:
    async def test() -> None:
        async with running(made, max_requests_per_connection=4) as one:
            one.gate.at_once = None
            connection = await one.connect(made.vpn)
            dropped = b"".join(login(identifier=number, secret=b"wrong") for number in range(100, 140))
            connection.send(dropped + b"".join(asked(number) for number in range(6)) + live(9))
            await until(lambda: one.counts().get("dropped_too_many_on_connection", 0) == 3)
            assert len(one.gate.questions) == 4
            # One ends without an answer, one with: both give their room back.
            one.gate.questions[0][1](unavailable())
            one.gate.questions[1][1](accepted())
            await connection.packet()
            connection.send(asked(20) + asked(21) + asked(22))
            await until(lambda: one.counts()["dropped_too_many_on_connection"] == 4)
            assert len(one.gate.questions) == 6
            for _, answer in one.gate.questions[2:]:
                answer(accepted())

    run(test())


def test_a_slow_client_is_waited_for(made: Certificates) -> None:
    async def test() -> None:
        async with running(made) as one:
            connection = await one.connect(made.vpn)
            octets = asked()
            for at in range(len(octets)):
                connection.send(octets[at : at + 1])
                await connection.writer.drain()
                await asyncio.sleep(0)
            assert read_answer(await connection.packet(), SECRET, octets).what == "Accept"

    run(test())


@pytest.mark.parametrize(
    "octets",
    [b"GET / HTTP/1.1\r\n\r\n", bytes(64), b"\1\1\0\x13" + bytes(20), b"\1\1\x10\x01" + bytes(4100), b"\1\1\xff\xff"],
    ids=["http", "zeros", "19", "4097", "65535"],
)
def test_a_stream_that_is_no_radius_ends(made: Certificates, octets: bytes) -> None:
    async def test() -> None:
        async with running(made) as one:
            connection = await one.connect(made.vpn)
            assert (await connection.ask(live())).what == "Accept"
            assert await connection.is_hung_up(octets)
            assert (await (await one.connect(made.vpn)).ask(asked())).what == "Accept"
            await until(lambda: len(one.tls.connections) == 1)

    run(test())


def test_a_packet_that_is_no_good_inside_costs_itself_alone(made: Certificates) -> None:
    """Its end is known: the stream can be followed."""

    async def test() -> None:
        async with running(made) as one:
            connection = await one.connect(made.vpn)
            connection.send(b"\1\7\0\x16" + bytes(16) + b"\1\0")
            assert (await connection.ask(asked())).what == "Accept"
            assert one.counts()["dropped_attribute_length"] == 1

    run(test())


def test_half_a_packet_and_silence_ends_with_the_idle_time(made: Certificates) -> None:
    async def test() -> None:
        async with running(made, tls_idle_s=SHORT_S) as one:
            connection = await one.connect(made.vpn)
            assert await connection.is_hung_up(asked()[:30])
            await until(lambda: not one.tls.connections)

    run(test())


def test_who_leaves_answers_unread_is_hung_up_on(made: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(radsec, "MAX_UNSENT", 4096)

    async def test() -> None:
        async with running(made) as one:
            other = await one.connect(made.wifi)
            connection = await one.connect(made.vpn)
            connection.writer.transport.pause_reading()
            octets = b"".join(live(number) for number in range(256))

            async def flood() -> None:
                while len(one.tls.connections) > 1:
                    connection.send(octets)
                    await asyncio.wait_for(connection.writer.drain(), PATIENCE_S)
                    await asyncio.sleep(0)

            with suppress(OSError):
                await flood()
            await until(lambda: len(one.tls.connections) == 1)
            assert (await other.ask(asked())).what == "Accept"
            connection.writer.transport.abort()

    run(test())


# Room


def test_one_client_has_half_of_the_connections(made: Certificates) -> None:
    async def test() -> None:
        async with running(made, max_tls_connections=4) as one:
            first = [await one.connect(made.vpn) for _ in range(2)]
            for connection in first:
                assert (await connection.ask(live())).what == "Accept"
            assert await one.is_refused(made.vpn)
            assert one.counts()["tls_too_many_connections"] == 1
            assert (await (await one.connect(made.wifi)).ask(live())).what == "Accept"
            first[0].writer.close()
            await until(lambda: len(one.tls.connections) == 2)
            assert (await (await one.connect(made.vpn)).ask(live())).what == "Accept"

    run(test())


async def silent(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that says nothing, not even that it wants TLS."""
    return await asyncio.open_connection("127.0.0.1", port)


def test_handshakes_that_hang_are_few_and_end(made: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """From one address there are so many; whoever comes from another is served meanwhile."""
    monkeypatch.setattr(radsec, "MAX_ARRIVING_FROM_ONE", 3)
    origins: Iterator[str] = iter(["a"] * 10)
    monkeypatch.setattr(radsec, "_origin", lambda _: next(origins, "b"))

    async def test() -> None:
        async with running(made, tls_handshake_s=SHORT_S) as one:
            hanging = [await silent(one.port) for _ in range(10)]
            await until(lambda: one.door.exchange.counts.get("tls_too_many_handshakes", 0) == 7)
            assert len(one.tls._arriving) <= 3
            assert (await (await one.connect(made.vpn)).ask(asked())).what == "Accept"
            for reader, writer in hanging:
                with suppress(ConnectionError):
                    assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
                writer.close()
            await until(lambda: not one.tls._arriving)
            assert one.door.exchange.counts["tls_handshake_failed"] == 3

    run(test())


def test_handshakes_are_bounded_in_all(made: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(radsec, "MAX_ARRIVING", 2)

    async def test() -> None:
        async with running(made) as one:
            hanging = [await silent(one.port) for _ in range(3)]
            await until(lambda: one.door.exchange.counts.get("tls_too_many_handshakes", 0) == 1)
            for _, writer in hanging:
                writer.close()
            await until(lambda: not one.tls._arriving)
            assert (await (await one.connect(made.vpn)).ask(asked())).what == "Accept"

    run(test())


@pytest.mark.parametrize(
    ("certificate", "end"),
    [({"notAfter": "Jan  1 00:00:00 2030 GMT"}, 1_893_456_000.0), ({"notAfter": "some day"}, 0.0), ({}, 0.0)],
)
def test_a_certificate_that_does_not_say_when_it_ends_has_ended(certificate: dict[str, str], end: float) -> None:
    assert end_of(certificate) == end


def test_a_bug_costs_one_connection(
    made: Certificates, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with running(made) as one:
            with monkeypatch.context() as patched:
                patched.setattr(radsec, "_Connection", lambda _: 1 / 0)
                assert await one.is_refused(made.vpn)
            assert (await (await one.connect(made.vpn)).ask(asked())).what == "Accept"
            assert not one.tls._arriving

    run(test())
    assert "could not be made" in caplog.text


def test_one_origin_begins_so_often(made: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each handshake costs a signature; those of others are made all the same."""
    monkeypatch.setattr(radsec, "HANDSHAKES_AT_ONCE", 3.0)
    monkeypatch.setattr(radsec, "HANDSHAKES_PER_S", 0.0)
    monkeypatch.setattr(radsec, "MAX_ORIGINS", 2)
    origins = ["a"]
    monkeypatch.setattr(radsec, "_origin", lambda _: origins[-1])

    async def test() -> None:
        async with running(made) as one:
            for _ in range(3):
                assert (await (await one.connect(made.vpn)).ask(live())).what == "Accept"
            assert await one.is_refused(made.vpn)
            for other in "bcd":
                origins.append(other)
                assert (await (await one.connect(made.vpn)).ask(live())).what == "Accept"
                assert len(one.tls._begun) <= 2

    run(test())


def test_what_is_no_tls_ends(made: Certificates) -> None:
    async def test() -> None:
        async with running(made) as one:
            reader, writer = await silent(one.port)
            writer.write(asked())
            try:
                heard = await asyncio.wait_for(reader.read(), PATIENCE_S)
            except ConnectionError:
                heard = b""
            assert len(heard) < 20, "an alert at most"
            writer.close()
            await until(lambda: one.door.exchange.counts == {"tls_handshake_failed": 1})
            assert one.gate.questions == []

    run(test())


def test_addresses_of_one_customer_count_as_one() -> None:
    assert radsec._origin("2001:db8::1") == radsec._origin("2001:db8::ffff:1%eth0") != radsec._origin("2001:db8:0:1::1")
    assert radsec._origin("192.0.2.1") != radsec._origin("192.0.2.2")


def test_without_descriptors_it_takes_a_breath_and_goes_on(
    made: Certificates, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(radsec, "BREATHER_S", 0.01)

    class Exhausted:
        def __init__(self, real: socket.socket) -> None:
            self.real = real

        def fileno(self) -> int:
            return self.real.fileno()

        def accept(self) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

    async def test() -> None:
        async with running(made) as one:
            (listening,) = one.tls._sockets
            listened: list[Any] = []
            monkeypatch.setattr(one.tls, "_listen_to", listened.append)
            exhausted: Any = Exhausted(listening)
            one.tls._accept(exhausted)
            await until(lambda: listened == [exhausted])
            asyncio.get_running_loop().add_reader(listening.fileno(), one.tls._accept, listening)
            assert (await (await one.connect(made.vpn)).ask(asked())).what == "Accept"

    run(test())
    assert "no TLS connection can be taken" in caplog.text


def test_a_stop_answers_what_is_under_way_and_hangs_up(made: Certificates) -> None:
    async def test() -> None:
        async with running(made) as one:
            one.gate.at_once = None
            connection = await one.connect(made.vpn)
            hanging = await silent(one.port)
            octets = asked()
            connection.send(octets)
            await until(lambda: len(one.gate.questions) == 1)
            stopping = asyncio.get_running_loop().create_task(one.door.stop())
            await asyncio.sleep(0.02)
            with pytest.raises(OSError):
                await silent(one.port)
            one.gate.questions[0][1](accepted())
            assert read_answer(await connection.packet(), SECRET, octets).what == "Accept"
            await stopping
            assert await connection.is_hung_up()
            hanging[1].close()

    run(test())


# However the stream is cut


class _Wire:
    """A transport whose other side shows a certificate."""

    def __init__(self, certificate: dict[str, Any]) -> None:
        self.certificate = certificate
        self.sent = b""
        self.closed = False

    def getpeercert(self, binary_form: bool = False) -> Any:
        return b"octets" if binary_form else self.certificate

    def get_extra_info(self, name: str) -> Any:
        return {"ssl_object": self, "peername": ("192.0.2.1", 1)}[name]

    def set_write_buffer_limits(self, **_: Any) -> None:
        return

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def write(self, octets: bytes) -> None:
        self.sent += octets

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        return


class _SameGate(HeldGate):
    """Answers before ``ask`` returns."""

    def ask(self, attempt: Any, answer: Any) -> None:
        super().ask(attempt, answer)
        answer(Accepted("0" * 26, "totp", "totp:1", user="alice"))


@given(st.lists(st.integers(0, 3), max_size=6), st.lists(st.integers(1, 200), max_size=30), st.binary(max_size=8))
def test_however_the_stream_is_cut_the_packets_are_the_same(kinds: list[int], cuts: list[int], rest: bytes) -> None:
    """And octets that follow are the beginning of a packet, or the end of the connection."""
    makes = (asked, live, lambda n: login(identifier=n, secret=b"wrong"), lambda n: asked(n, sign=False))
    packets = [makes[kind](number) for number, kind in enumerate(kinds)]
    stream = b"".join(packets) + rest
    good = [packet for packet, kind in zip(packets, kinds, strict=True) if kind != 2]

    async def heard(pieces: list[bytes]) -> tuple[bytes, bool]:
        files = TlsSettings("", "", "")
        tls_clients = (TlsClient(VPN, frozenset({"vpn.example"})),)
        chosen = RadiusDoorSettings(listen=(), clients=(), tls=files, tls_clients=tls_clients)
        server = RadSecServer(exchange(_SameGate(), chosen), chosen, ())
        wire: Any = _Wire({"subjectAltName": (("DNS", "vpn.example"),), "notAfter": "Jan  1 00:00:00 2100 GMT"})
        connection = radsec._Connection(server)
        connection.connection_made(wire)
        for piece in pieces:
            connection.data_received(piece)
        connection.connection_lost(None)
        return wire.sent, wire.closed

    pieces, left = [], stream
    for cut in cuts:
        pieces.append(left[:cut])
        left = left[cut:]
    pieces.append(left)
    whole = asyncio.run(heard([stream]))
    assert asyncio.run(heard([piece for piece in pieces if piece])) == whole
    assert asyncio.run(heard([bytes([octet]) for octet in stream])) == whole
    at = 0
    for packet in good:
        length = int.from_bytes(whole[0][at + 2 : at + 4], "big")
        assert read_answer(whole[0][at : at + length], SECRET, packet).what == "Accept"
        at += length
