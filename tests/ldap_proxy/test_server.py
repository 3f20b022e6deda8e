"""How clients come in over real sockets: addresses, TLS, PROXY headers, limits and the end, on both loops."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import stat
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from ldap_proxy import message, server
from ldap_proxy.ber import head
from ldap_proxy.message import ResultCode
from ldap_proxy.proxy_header import SIGNATURE
from ldap_proxy.server import LdapServer, open_sockets, tls_context
from ldap_proxy.settings import ClientCertificate, Limits, Listen, Scheme, ServerTls
from ldap_proxy.upstream import Upstreams
from mfa_core.errors import ConfigurationError
from tests.end_to_end.radius_certificates import Authority, Certificate
from tests.ldap_proxy.directories import Directory, directory, run, until
from tests.ldap_proxy.door_doubles import (
    BOB,
    SERVICE,
    Stage,
    bind_result,
    codes,
    done,
    door_settings,
    entry,
    is_notice,
    modify,
    search,
    who_is,
)

LOOPS = ["asyncio", "uvloop"]
START_TLS = message.build_extended_request(1, message.START_TLS)
REFUSED_BIND = message.build_bind(7, BOB, b"")
"""What the door answers by itself."""
HERE = Listen(Scheme.LDAP, "127.0.0.1", 0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at connections more often than once a second."""
    monkeypatch.setattr(server, "SWEEP_S", 0.02)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA for this file."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def certificate(authority: Authority) -> Certificate:
    """The door's."""
    return authority.issue("door.example.org", server=True)


class Client:
    """One client of the door."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._buffer = b""

    def send(self, *octets: bytes) -> None:
        """Send these."""
        self.writer.write(b"".join(octets))

    async def next(self) -> bytes:
        """The next message."""
        while True:
            found = head(self._buffer, 0, 1 << 30)
            if found is not None and len(self._buffer) >= found[0]:
                pdu, self._buffer = self._buffer[: found[0]], self._buffer[found[0] :]
                return pdu
            data = await self.reader.read(65536)
            assert data, "the door hung up"
            self._buffer += data

    async def ask(self, *octets: bytes) -> bytes:
        """Send these; the next message."""
        self.send(*octets)
        return await self.next()

    async def ended(self) -> bool:
        """Wait until the door hangs up; True when it says nothing more before."""
        try:
            return not await self.reader.read()
        except ConnectionError:
            return True

    def close(self) -> None:
        """Hang up."""
        self.writer.transport.abort()


class Door:
    """A server on ports of its own, with the directory behind it."""

    def __init__(self, stage: Stage, one: LdapServer, ports: list[tuple[Any, ...]]) -> None:
        self.stage, self.server, self.ports = stage, one, ports
        self.clients: list[Client] = []

    async def connect(self, which: int = 0, *, tls: ssl.SSLContext | None = None) -> Client:
        """A client at the address with this number."""
        host, port = self.ports[which][:2]
        made = Client(*await asyncio.open_connection(host, port, ssl=tls, server_hostname="door.example.org" if tls else None))
        self.clients.append(made)
        return made


@asynccontextmanager
async def door(behind: Directory | None = None, *, listens: tuple[Listen, ...] = (HERE,), **given: Any) -> AsyncIterator[Door]:
    """A door that listens until the end of the block."""
    settings = door_settings(listens=listens, **given)
    if behind is not None:
        settings = replace(settings, upstream=replace(settings.upstream, servers=(behind.server,), warm=0))
    stage = Stage(settings)
    services = stage.services
    loop = asyncio.get_running_loop()
    services.monotonic = loop.time
    services.upstreams = Upstreams(settings.upstream, monotonic=loop.time, limits=settings.limits)
    one = LdapServer(settings, services)
    sockets = open_sockets(listens)
    ports = [opened.getsockname() for _, opened in sockets]
    await one.start(sockets)
    made = Door(stage, one, ports)
    try:
        yield made
    finally:
        for client in made.clients:
            with suppress(Exception):
                client.close()
        await one.drain_and_stop()
        await services.upstreams.stop()


def _tls(certificate: Certificate, **given: Any) -> ServerTls:
    return ServerTls(certificate.certificate, certificate.key, **given)


def _trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.path)


# -- addresses ----------------------------------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_an_address_that_somebody_has_is_said() -> None:
    """And what was opened before it is closed again."""
    port = _free_port()
    taken = open_sockets([Listen(Scheme.LDAP, "127.0.0.1", port)])
    taken[0][1].listen()

    with pytest.raises(ConfigurationError, match=str(port)):
        open_sockets([Listen(Scheme.LDAP, "127.0.0.1", 0), Listen(Scheme.LDAP, "127.0.0.1", port)])

    taken[0][1].close()


def test_several_workers_may_have_one_address() -> None:
    """With ``shared``, and not without."""
    listen = [Listen(Scheme.LDAP, "127.0.0.1", _free_port())]
    opened = open_sockets(listen, shared=True) + open_sockets(listen, shared=True)

    assert len({one.getsockname() for _, one in opened}) == 1
    for _, one in opened:
        one.close()


def test_a_star_is_both_families() -> None:
    """IPv4 and IPv6, each by a socket of its own."""
    opened = open_sockets([Listen(Scheme.LDAP, "*", _free_port())])

    assert [one.family for _, one in opened] == [socket.AF_INET, socket.AF_INET6]
    for _, one in opened:
        one.close()


def test_a_socket_that_was_left_behind_is_taken_over(tmp_path: Path) -> None:
    """One that nobody answers; one that somebody answers is his, and a file is no socket."""
    path = tmp_path / "ldapi"
    listen = [Listen(Scheme.LDAPI, str(path))]
    open_sockets(listen)[0][1].close()

    again = open_sockets(listen)[0][1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    again.listen()
    with pytest.raises(ConfigurationError, match="ldapi"):
        open_sockets(listen)
    again.close()
    path.unlink()
    path.write_text("a file")
    with pytest.raises(ConfigurationError, match="ldapi"):
        open_sockets(listen)
    assert path.read_text() == "a file"
    with pytest.raises(ConfigurationError, match="workers"):
        open_sockets(listen, shared=True)


def test_certificate_files_that_cannot_be_used(tmp_path: Path, certificate: Certificate) -> None:
    """What is wrong is said, and which."""
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="certificate_file"):
        tls_context(ServerTls(tmp_path / "none", certificate.key))
    with pytest.raises(ConfigurationError, match="client_ca_file"):
        tls_context(_tls(certificate, client_ca_file=tmp_path / "empty"))


def test_ldaps_needs_a_certificate() -> None:
    """It is found out before anybody is listened to."""

    async def main() -> None:
        with pytest.raises(ConfigurationError, match="no certificate"):
            async with door(listens=(Listen(Scheme.LDAPS, "127.0.0.1", 0),)):
                pass

    run(main())


# -- octets -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_a_login_and_a_search_over_real_sockets(loop: str) -> None:
    """From a client through the door to a directory, and back; nothing waits for an acknowledgement."""

    def behave(caller: Any, pdu: bytes, message_id: int, tag: int) -> bytes | None:
        if tag == message.BIND_REQUEST:
            return bind_result(message_id)
        if tag == message.EXTENDED_REQUEST:
            return who_is(message_id, b"dn:" + BOB)
        return entry(message_id, 100_000) + done(message_id) if tag == message.SEARCH_REQUEST else None

    async def main() -> None:
        async with directory(behave) as behind, door(behind) as one:
            client = await one.connect()
            assert codes([await client.ask(message.build_bind(2, BOB, b"secret,123456"))]) == [(2, 0x61, 0)]
            assert await client.ask(search(3), search(4)) == entry(3, 100_000)
            assert await client.next() == done(3)
            assert await client.next() == entry(4, 100_000)
            assert await client.next() == done(4)
            (session,) = one.server._sessions
            assert session.transport is not None
            accepted = session.transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            client.send(message.build_unbind(5))
            assert await client.ended()
            await until(lambda: behind.callers[0].ended)
            assert behind.callers[0].pdus[-1] == message.build_unbind(0x7FFFFFFF)
            counted = one.server.counters()
            assert (counted.connections, counted.accepted, counted.binds) == (0, 1, {("ldap", "accepted"): 1})

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_big_messages_meet_slow_readers(loop: str) -> None:
    """Megabytes each way, against a client and a directory that read when they like: all of it comes, and in order."""
    answers = b"".join(entry(3, 50_000) for _ in range(100)) + done(3)

    async def behave(caller: Any, message_id: int) -> None:
        caller.send(answers)

    def choose(caller: Any, pdu: bytes, message_id: int, tag: int) -> Any:
        if tag == message.SEARCH_REQUEST:
            return behave(caller, message_id)
        if tag == message.BIND_REQUEST:
            return bind_result(message_id)
        if tag == message.EXTENDED_REQUEST:
            return who_is(message_id, b"dn:" + SERVICE)
        return message.build_result(message_id, message.MODIFY_RESPONSE, 0)

    async def main() -> None:
        async with directory(choose) as behind, door(behind, limits=Limits(write_buffer=32 * 1024)) as one:
            client = await one.connect()
            await client.ask(message.build_bind(1, SERVICE, b"secret"))
            await client.ask(modify(2, 3_000_000))
            assert behind.callers[0].pdus[-1] == modify(2, 3_000_000)
            client.send(search(3))
            await asyncio.sleep(0.1)
            assert one.server._sessions
            (session,) = one.server._sessions
            assert session.transport is not None
            waiting = session.transport.get_write_buffer_size()
            assert waiting < 1_000_000
            heard = b""
            while len(heard) < len(answers):
                heard += await client.reader.read(65536)
            assert heard == answers

    run(main(), loop)


# -- TLS ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_ldaps(loop: str, authority: Authority, certificate: Certificate) -> None:
    """TLS from the first octet."""

    async def main() -> None:
        listens = (Listen(Scheme.LDAPS, "127.0.0.1", 0),)
        async with door(listens=listens, tls=_tls(certificate, required=True)) as one:
            client = await one.connect(tls=_trusting(authority))
            assert codes([await client.ask(REFUSED_BIND)]) == [(7, 0x61, 53)]
            assert codes([await client.ask(START_TLS)]) == [(1, 0x78, 1)]

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_start_tls(loop: str, authority: Authority, certificate: Certificate) -> None:
    """In clear 13; after the handshake a session like any other."""

    async def main() -> None:
        async with door(tls=_tls(certificate, required=True)) as one:
            client = await one.connect()
            assert codes([await client.ask(REFUSED_BIND)]) == [(7, 0x61, 13)]
            assert codes([await client.ask(START_TLS)]) == [(1, 0x78, 0)]
            await client.writer.start_tls(_trusting(authority), server_hostname="door.example.org")
            assert codes([await client.ask(REFUSED_BIND)]) == [(7, 0x61, 53)]

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_octets_in_clear_behind_a_start_tls(loop: str, certificate: Certificate) -> None:
    """They are not read as if TLS had protected them."""

    async def main() -> None:
        async with door(tls=_tls(certificate)) as one:
            client = await one.connect()
            assert is_notice([await client.ask(START_TLS, REFUSED_BIND)], ResultCode.PROTOCOL_ERROR)
            assert await client.ended()

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("how", ["no TLS", "silence", "gone", "TLS 1.1"])
def test_a_handshake_that_comes_to_nothing(loop: str, how: str, authority: Authority, certificate: Certificate) -> None:
    """It is one connection's trouble, and counted; nothing of it stays."""

    async def main() -> None:
        limits = Limits(tls_handshake_s=0.1 if how == "silence" else 5.0)
        listens = (Listen(Scheme.LDAPS, "127.0.0.1", 0),)
        async with door(listens=listens, tls=_tls(certificate), limits=limits) as one:
            if how == "TLS 1.1":
                context = _trusting(authority)
                context.set_ciphers("ALL:@SECLEVEL=0")
                with pytest.warns(DeprecationWarning, match="TLSv1_1"):
                    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await one.connect(tls=context)
            else:
                client = await one.connect()
                if how == "no TLS":
                    client.send(REFUSED_BIND)
                if how == "gone":
                    await until(lambda: one.server._sessions)
                    client.close()
                else:
                    await client.ended()
            await until(lambda: one.server.counters().events.get("tls_handshake_failed"))
            await until(lambda: not one.server._sessions and not one.server._by_origin)

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_client_certificates(loop: str, authority: Authority, certificate: Certificate, tmp_path: Path) -> None:
    """Where one is required nobody comes in without; where one is wanted, a bad one is no way in."""
    mine, stranger = authority.issue("client"), Authority(tmp_path / "other", "other CA").issue("client")

    async def tries(how: ClientCertificate, shown: Certificate | None) -> bool:
        settings = _tls(certificate, client_ca_file=authority.path, client_certificate=how)
        context = _trusting(authority)
        if shown is not None:
            context.load_cert_chain(shown.certificate, shown.key)
        async with door(listens=(Listen(Scheme.LDAPS, "127.0.0.1", 0),), tls=settings) as one:
            try:
                client = await one.connect(tls=context)
                client.send(REFUSED_BIND)
                return bool(await client.reader.read(100))
            except (ssl.SSLError, ConnectionError):
                return False

    async def main() -> None:
        assert await tries(ClientCertificate.REQUIRE, mine)
        assert not await tries(ClientCertificate.REQUIRE, None)
        assert not await tries(ClientCertificate.REQUIRE, stranger)
        assert await tries(ClientCertificate.REQUEST, None)
        assert not await tries(ClientCertificate.REQUEST, stranger)

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_reload_brings_new_certificates(loop: str, authority: Authority, certificate: Certificate, tmp_path: Path) -> None:
    """For handshakes from now on; one that cannot be used changes nothing."""
    other = Authority(tmp_path / "other", "other CA")
    new = other.issue("door.example.org", server=True)

    async def main() -> None:
        async with door(listens=(Listen(Scheme.LDAPS, "127.0.0.1", 0),), tls=_tls(certificate)) as one:
            await one.connect(tls=_trusting(authority))
            with pytest.raises(ConfigurationError):
                one.server.reload(replace(one.stage.settings, tls=ServerTls(tmp_path / "none", tmp_path / "none")))
            await one.connect(tls=_trusting(authority))
            one.server.reload(replace(one.stage.settings, tls=_tls(new)))
            await one.connect(tls=_trusting(other))
            with pytest.raises(ssl.SSLCertVerificationError):
                await one.connect(tls=_trusting(authority))

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_reload_that_requires_tls_reaches_connections_in_clear(loop: str, certificate: Certificate) -> None:
    """At once, whatever they ask for."""

    async def main() -> None:
        async with door(tls=_tls(certificate)) as one:
            client = await one.connect()
            assert codes([await client.ask(REFUSED_BIND)]) == [(7, 0x61, 53)]
            one.server.reload(replace(one.stage.settings, tls=_tls(certificate, required=True)))
            assert codes([await client.ask(search(8))]) == [(8, 0x65, 13)]

    run(main(), loop)


# -- where they come from -----------------------------------------------------------------------------------------------------


def _header(source: str = "203.0.113.9", *, command: int = 0x21) -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 4711, 389)
    return SIGNATURE + struct.pack("!BBH", command, 0x11, len(addresses)) + addresses


LOOPBACK = (ip_network("127.0.0.0/8"),)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("split", [0, 5, 20])
def test_a_balancer_says_for_whom_it_speaks(loop: str, split: int) -> None:
    """Its header is believed, in one piece with what follows or in pieces."""

    async def main() -> None:
        async with door(proxy_protocol=LOOPBACK) as one:
            client = await one.connect()
            octets = _header() + REFUSED_BIND
            if split:
                client.send(octets[:split])
                await asyncio.sleep(0.02)
            assert codes([await client.ask(octets[split:])]) == [(7, 0x61, 53)]
            assert one.stage.journal.lines[0]["source"] == "203.0.113.9"

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_header_in_front_of_tls(loop: str, authority: Authority, certificate: Certificate) -> None:
    """The handshake may come in the same piece: not an octet of it is lost."""

    async def main() -> None:
        listens = (Listen(Scheme.LDAPS, "127.0.0.1", 0),)
        async with door(listens=listens, tls=_tls(certificate), proxy_protocol=LOOPBACK) as one:
            host, port = one.ports[0]
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            secured = _trusting(authority).wrap_bio(incoming, outgoing, server_hostname="door.example.org")
            reader, writer = await asyncio.open_connection(host, port)
            with suppress(ssl.SSLWantReadError):
                secured.do_handshake()
            writer.write(_header() + outgoing.read())
            while True:
                incoming.write(await reader.read(65536))
                try:
                    secured.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
            secured.write(REFUSED_BIND)
            writer.write(outgoing.read())
            answer = b""
            while not answer:
                incoming.write(await reader.read(65536))
                with suppress(ssl.SSLWantReadError):
                    answer = secured.read()
            assert codes([answer]) == [(7, 0x61, 53)]
            assert one.stage.journal.lines[0]["source"] == "203.0.113.9"
            writer.transport.abort()

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_who_may_not_say_so_is_no_balancer(loop: str) -> None:
    """A header from anybody else is no LDAP; and a balancer that leaves it out, or speaks version 1, is hung up on."""

    async def main() -> None:
        async with door(proxy_protocol=(ip_network("192.0.2.0/24"),)) as one:
            client = await one.connect()
            assert is_notice([await client.ask(_header() + REFUSED_BIND)], ResultCode.PROTOCOL_ERROR)
        for octets in (REFUSED_BIND, b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 389\r\n" + REFUSED_BIND):
            async with door(proxy_protocol=LOOPBACK) as one:
                client = await one.connect()
                client.send(octets)
                assert await client.ended()
                assert one.server.counters().events == {"malformed_client": 1}

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_header_that_does_not_come(loop: str) -> None:
    """``header_s``, or until it hangs up itself; a health check of the balancer's own is the balancer."""

    async def main() -> None:
        async with door(proxy_protocol=LOOPBACK, limits=Limits(header_s=0.1)) as one:
            client = await one.connect()
            client.send(_header()[:20])
            assert await client.ended()
            assert one.server.counters().events == {"slow_header": 1}
        async with door(proxy_protocol=LOOPBACK) as one:
            client = await one.connect()
            client.send(_header()[:20])
            await until(lambda: one.server._arriving)
            client.close()
            await until(lambda: not one.server._arriving)
            client = await one.connect()
            assert codes([await client.ask(_header(command=0x20) + REFUSED_BIND)]) == [(7, 0x61, 53)]
            assert one.stage.journal.lines[0]["source"] == "127.0.0.1"

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_local_socket(loop: str, tmp_path: Path) -> None:
    """It has no address, and needs no TLS."""
    path = tmp_path / "ldapi"

    async def main() -> None:
        listens = (Listen(Scheme.LDAPI, str(path)),)
        async with door(listens=listens) as one:
            client = Client(*await asyncio.open_unix_connection(path))
            one.clients.append(client)
            assert codes([await client.ask(REFUSED_BIND)]) == [(7, 0x61, 53)]
            assert one.stage.journal.lines[0]["source"] == ""
            assert one.stage.journal.lines[0]["listener"] == f"ldapi://{path}"
        assert not path.exists()

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_ipv6(loop: str) -> None:
    """The address as it is written, without a zone."""

    async def main() -> None:
        async with door(listens=(Listen(Scheme.LDAP, "::1", 0),)) as one:
            client = await one.connect()
            assert codes([await client.ask(REFUSED_BIND)]) == [(7, 0x61, 53)]
            assert one.stage.journal.lines[0]["source"] == "::1"

    run(main(), loop)


# -- limits -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("limits", "event"),
    [
        (Limits(connections=2), "too_many_connections"),
        (Limits(connections_per_source=2), "too_many_connections_from_source"),
    ],
)
def test_one_connection_too_many(loop: str, limits: Limits, event: str) -> None:
    """It is told so and hung up on; who is there stays, and who leaves makes room."""

    async def main() -> None:
        async with door(limits=limits) as one:
            clients = [await one.connect() for _ in range(2)]
            for client in clients:
                await client.ask(REFUSED_BIND)
            third = await one.connect()
            assert is_notice([await third.next()], ResultCode.BUSY)
            assert await third.ended()
            assert one.server.counters().events == {event: 1}
            assert codes([await clients[0].ask(REFUSED_BIND)]) == [(7, 0x61, 53)]
            clients[0].close()
            await until(lambda: one.server.counters().connections == 1)
            assert codes([await (await one.connect()).ask(REFUSED_BIND)]) == [(7, 0x61, 53)]

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_slow_and_idle_clients_are_hung_up_on(loop: str) -> None:
    """A message that has begun has ``header_s``, a client that says nothing ``idle_s``."""

    async def main() -> None:
        async with door(limits=Limits(header_s=0.1)) as one:
            client = await one.connect()
            client.send(b"\x30")
            assert is_notice([await client.next()], ResultCode.BUSY)
            assert await client.ended()
        async with door(limits=Limits(idle_s=0.1)) as one:
            client = await one.connect()
            assert is_notice([await client.next()], ResultCode.BUSY)

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_those_who_speak_no_ldap_get_one_line(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """However many they are."""

    async def main() -> None:
        async with door() as one:
            for _ in range(20):
                client = await one.connect()
                client.send(b"GET / HTTP/1.0\r\n\r\n" + os.urandom(1000))
                assert is_notice([await client.next()], ResultCode.PROTOCOL_ERROR)
            assert one.server.counters().events == {"malformed_client": 20}

    with caplog.at_level(logging.WARNING):
        run(main(), loop)
    lines = [record.getMessage() for record in caplog.records if "no LDAP" in record.getMessage()]
    assert 1 <= len(lines) <= 2
    assert all(len(line) < 1000 for line in lines)


# -- the end ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_a_door_that_closes_tells_its_clients(loop: str) -> None:
    """Idle ones at once, busy ones when they have their answer, at the latest after ``drain_s``; new ones find nobody."""

    async def main() -> None:
        held: list[Any] = []

        def behave(caller: Any, pdu: bytes, message_id: int, tag: int) -> None:
            held.append((caller, message_id))

        async with directory(behave) as behind, door(behind, limits=Limits(drain_s=0.3)) as one:
            idle, busy, stuck = [await one.connect() for _ in range(3)]
            await idle.ask(REFUSED_BIND)
            busy.send(search(3))
            await until(lambda: len(held) == 1)
            stuck.send(search(4))
            await until(lambda: len(held) == 2)
            closing = asyncio.ensure_future(one.server.drain_and_stop())
            assert is_notice([await idle.next()], ResultCode.UNAVAILABLE)
            caller, message_id = held[0]
            caller.send(done(message_id))
            assert await busy.next() == done(3)
            assert is_notice([await busy.next()], ResultCode.UNAVAILABLE)
            with pytest.raises(ConnectionRefusedError):
                await one.connect()
            assert is_notice([await stuck.next()], ResultCode.UNAVAILABLE)
            await closing
            assert one.server.counters().connections == 0

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_reload_reaches_connections_that_stay(loop: str) -> None:
    """From their next bind on."""

    async def main() -> None:
        async with door() as one:
            client = await one.connect()
            refused = message.build_bind(2, BOB, b"no code")
            assert message.parse_result(await client.ask(refused)).diagnostic == b""
            (application,) = one.stage.settings.applications
            one.server.reload(replace(one.stage.settings, applications=(replace(application, refusal_text="data 52e"),)))
            assert message.parse_result(await client.ask(refused)).diagnostic == b"data 52e"

    run(main(), loop)
