"""The UDP sockets on this host: who is answered from where, and what a burst, an odd datagram or a closed port does."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pytest
import uvloop

from mfa_core.errors import ConfigurationError
from mfa_core.secret import Secret
from radius_plugin.door import RadiusDoor, Sockets
from radius_plugin.exchange import Exchange
from radius_plugin.server import open_sockets
from radius_plugin.settings import ClientSettings, Listen, Purpose, RadiusDoorSettings
from radius_plugin.state import KEY_SIZE, StateSeal
from tests.end_to_end.radius_packets import Answer, read_answer
from tests.radius_plugin.door_doubles import (
    CLIENT,
    SECRET,
    HeldGate,
    KnownGroups,
    RememberedSigners,
    accepted,
    accounting,
    login,
    status,
)

PATIENCE_S = 20.0
T = TypeVar("T")
HERE = (
    replace(CLIENT, name="v4", network=ipaddress.ip_network("127.0.0.0/8")),
    replace(CLIENT, name="v6", network=ipaddress.ip_network("::1")),
)


def exchange(gate: HeldGate, settings: RadiusDoorSettings) -> Exchange:
    numbers = itertools.count(1)
    return Exchange(
        settings,
        gate,
        seal=StateSeal([Secret(bytes(KEY_SIZE))], random=os.urandom),
        groups=KnownGroups(),
        signers=RememberedSigners(),
        clock=time.time,
        monotonic=time.monotonic,
        new_event_id=lambda: f"{next(numbers):026d}",
    )


@dataclass
class Running:
    """A door that listens."""

    door: RadiusDoor
    gate: HeldGate
    ports: list[int] = field(default_factory=list)


@asynccontextmanager
async def running(*listen: Listen, clients: tuple[ClientSettings, ...] = HERE, **more: Any) -> AsyncIterator[Running]:
    gate = HeldGate(at_once=accepted())
    settings = RadiusDoorSettings(listen=listen, clients=clients, **more)
    sockets = Sockets.open(settings)
    door = RadiusDoor(settings, exchange(gate, settings))
    await door.start(sockets)
    try:
        yield Running(door, gate, [opened.getsockname()[1] for _, opened in sockets.udp])
    finally:
        await door.stop()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(coroutine, PATIENCE_S)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # the loop that mfad has
        return runner.run(bounded())


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  what is waited for has no event
        await asyncio.sleep(0.001)


@contextlib.contextmanager
def asker(source: str) -> Iterator[socket.socket]:
    """A client's socket; it hears from anybody."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.bind((source, 0))
        one.setblocking(False)
        yield one


async def heard(one: socket.socket) -> tuple[bytes, Any]:
    while True:
        try:
            return one.recvfrom(65_535)
        except BlockingIOError:
            await asyncio.sleep(0.001)


async def ask(one: socket.socket, octets: bytes, to: tuple[str, int]) -> tuple[Answer, Any]:
    one.sendto(octets, to)
    answer, peer = await heard(one)
    return read_answer(answer, SECRET, octets), peer


@pytest.mark.parametrize(
    ("host", "source", "asked"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.1", "127.0.0.2"),
        ("0.0.0.0", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1", "127.0.0.2"),
        ("0.0.0.0", "127.0.0.3", "127.0.0.44"),
        ("::1", "::1", "::1"),
        ("::", "::1", "::1"),
    ],
)
def test_an_answer_leaves_from_the_address_that_was_asked(host: str, source: str, asked: str) -> None:
    """Row 51."""

    async def test() -> None:
        async with running(Listen(host, 0)) as one:
            with asker(source) as nas:
                answer, peer = await ask(nas, login(), (asked, one.ports[0]))
                assert answer.what == "Accept"
                assert peer[:2] == (asked, one.ports[0])

    run(test())


def test_a_star_listens_on_both_families() -> None:
    with asker("127.0.0.1") as probe:
        port = probe.getsockname()[1]

    async def test() -> None:
        async with running(Listen("*", port)) as one:
            assert one.ports == [port, port]
            for source, asked in (("127.0.0.1", "127.0.0.7"), ("::1", "::1")):
                with asker(source) as nas:
                    answer, peer = await ask(nas, login(), (asked, port))
                    assert (answer.what, peer[0]) == ("Accept", asked)

    run(test())


def test_the_same_number_at_two_addresses_is_two_requests() -> None:
    async def test() -> None:
        async with running(Listen("0.0.0.0", 0)) as one:
            with asker("127.0.0.1") as nas:
                octets = login()
                for asked in ("127.0.0.1", "127.0.0.2"):
                    assert (await ask(nas, octets, (asked, one.ports[0])))[0].what == "Accept"
            assert len(one.gate.questions) == 2

    run(test())


def test_ports_have_their_purpose() -> None:
    async def test() -> None:
        async with running(Listen("127.0.0.1", 0), Listen("127.0.0.1", 0, purpose=Purpose.ACCOUNTING)) as one:
            authentication, accounts = (("127.0.0.1", port) for port in one.ports)
            with asker("127.0.0.1") as nas:
                nas.sendto(accounting(identifier=1), authentication)
                nas.sendto(login(identifier=2), accounts)
                assert (await ask(nas, status(identifier=3), authentication))[0].what == "Accept"
                assert (await ask(nas, accounting(identifier=4), accounts))[0].what == "Accounting-Response"
            counts = one.door.exchange.counts_by_client()["v4"]
            assert counts["dropped_unexpected_code"] == 2
            assert one.gate.questions == []

    run(test())


def test_a_burst_loses_none() -> None:
    """Row 50, four times over: 1,024 requests before the door looks at one."""
    count, sockets = 1024, 4

    async def test() -> None:
        async with running(Listen("127.0.0.1", 0)) as one:
            with ExitStack() as opened:
                askers = [opened.enter_context(asker("127.0.0.1")) for _ in range(sockets)]
                for nas in askers:
                    nas.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)
                    for identifier in range(count // sockets):
                        nas.sendto(login(identifier=identifier), ("127.0.0.1", one.ports[0]))
                for nas in askers:
                    numbers = {(await heard(nas))[0][1] for _ in range(count // sockets)}
                    assert numbers == set(range(count // sockets))
            assert len(one.gate.questions) == count

    run(test())


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "too_short"),
        (b"\1", "too_short"),
        (login()[:19], "too_short"),
        (login()[:-1], "length_beyond_datagram"),
        (login() + bytes(4096), "too_long"),
        (b"\1\0\xff\xff" + bytes(60_000), "too_long"),
    ],
    ids=["empty", "one", "19", "short", "4159", "60004"],
)
def test_an_odd_datagram_is_dropped_and_the_next_one_answered(octets: bytes, why: str) -> None:
    """Rows 4 to 6, 10."""

    async def test() -> None:
        async with running(Listen("127.0.0.1", 0)) as one:
            with asker("127.0.0.1") as nas:
                nas.sendto(octets, ("127.0.0.1", one.ports[0]))
                assert (await ask(nas, login(), ("127.0.0.1", one.ports[0])))[0].what == "Accept"
            assert one.door.exchange.counts_by_client()["v4"][f"dropped_{why}"] == 1

    run(test())


def test_a_packet_of_the_greatest_size_is_answered() -> None:
    """Row 10."""
    short = len(login("alice", "123456"))
    fill = [(25, bytes(253))] * ((4096 - short) // 255)
    rest = 4096 - len(login("alice", "123456", *fill))
    octets = login("alice", "123456", *fill, (25, bytes(rest - 2)))
    assert len(octets) == 4096

    async def test() -> None:
        async with running(Listen("127.0.0.1", 0)) as one:
            with asker("127.0.0.1") as nas:
                assert (await ask(nas, octets, ("127.0.0.1", one.ports[0])))[0].what == "Accept"

    run(test())


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_clients_that_do_not_wait_for_their_answer_harm_nobody(host: str) -> None:
    """Their closed ports come back as ICMP errors."""

    async def test() -> None:
        async with running(Listen(host, 0)) as one:
            one.gate.at_once = None
            for _ in range(20):
                with asker("127.0.0.1") as gone:
                    gone.sendto(login(), ("127.0.0.1", one.ports[0]))
            await until(lambda: len(one.gate.questions) == 20)
            for _, answer in one.gate.questions:
                answer(accepted())
            one.gate.at_once = accepted()
            with asker("127.0.0.1") as nas:
                for identifier in range(30):
                    answered, _ = await ask(nas, login(identifier=identifier), ("127.0.0.1", one.ports[0]))
                    assert answered.what == "Accept"

    run(test())


def test_answers_that_the_kernel_does_not_take_are_counted_and_come_with_the_retransmit() -> None:
    """An answer to port 0 is no destination: what the kernel refuses is no reason to end."""

    async def test() -> None:
        async with running(Listen("127.0.0.1", 0)) as one:
            udp = one.door._udp
            assert udp is not None
            receive = udp._receiver(0, Listen("127.0.0.1", 0), _Deaf(login()))  # type: ignore[arg-type]
            receive()
            await asyncio.sleep(0.01)
            assert udp.unsent == 1
            assert one.door.counters()["answers_unsent"] == 1

    run(test())


class _Deaf:
    """A socket that has one datagram and takes none."""

    def __init__(self, datagram: bytes) -> None:
        self._waiting = [datagram]

    def recvfrom(self, size: int) -> tuple[bytes, tuple[str, int]]:
        if not self._waiting:
            raise BlockingIOError
        return self._waiting.pop(), ("127.0.0.1", 9)

    def sendto(self, octets: bytes, to: tuple[str, int]) -> int:
        raise OSError(105, "No buffer space available")


def test_an_address_that_is_taken_is_told_and_leaves_nothing_open() -> None:
    with asker("127.0.0.1") as taken:
        port = taken.getsockname()[1]
        free = Listen("127.0.0.1", 0)
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(ConfigurationError, match=f"127.0.0.1 port {port} cannot be listened on: Address already in use"):
            open_sockets([free, Listen("127.0.0.1", port)], receive_buffer_bytes=1 << 20)
        assert len(os.listdir("/proc/self/fd")) == before


def test_an_address_of_another_host_is_told() -> None:
    with pytest.raises(ConfigurationError, match="cannot be listened on"):
        open_sockets([Listen("192.0.2.1", 0)], receive_buffer_bytes=1 << 20)


def test_several_processes_may_share_an_address_only_where_they_say_so() -> None:
    (first,) = open_sockets([Listen("127.0.0.1", 0)], receive_buffer_bytes=1 << 20, shared=True)
    port = first[1].getsockname()[1]
    with first[1]:
        (second,) = open_sockets([Listen("127.0.0.1", port)], receive_buffer_bytes=1 << 20, shared=True)
        second[1].close()
        with pytest.raises(ConfigurationError):
            open_sockets([Listen("127.0.0.1", port)], receive_buffer_bytes=1 << 20)


def test_the_receive_buffer_is_as_large_as_it_is_set() -> None:
    ((_, opened),) = open_sockets([Listen("127.0.0.1", 0)], receive_buffer_bytes=2 << 20)
    with opened:
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 2 << 20


def test_a_stop_answers_what_is_under_way_and_takes_nothing_new() -> None:
    async def test() -> None:
        async with running(Listen("127.0.0.1", 0)) as one:
            one.gate.at_once = None
            with asker("127.0.0.1") as nas:
                octets = login(identifier=1)
                nas.sendto(octets, ("127.0.0.1", one.ports[0]))
                await until(lambda: bool(one.gate.questions))
                stopping = asyncio.get_running_loop().create_task(one.door.stop())
                await asyncio.sleep(0.02)
                nas.sendto(login(identifier=2), ("127.0.0.1", one.ports[0]))
                one.gate.questions[0][1](accepted())
                answer, _ = await heard(nas)
                assert read_answer(answer, SECRET, octets).what == "Accept"
                await stopping
                assert len(one.gate.questions) == 1

    run(test())


def test_a_sweep_that_breaks_is_not_the_last(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("radius_plugin.door.SWEEP_EVERY_S", 0.005)

    async def test() -> None:
        async with running(Listen("127.0.0.1", 0)) as one:
            swept: list[int] = []

            def sweep() -> None:
                swept.append(1)
                if len(swept) == 1:
                    raise RuntimeError("a sweep that breaks")

            monkeypatch.setattr(one.door.exchange, "sweep", sweep)
            await until(lambda: len(swept) >= 3)

    run(test())
    assert "a sweep that breaks" in caplog.text


def test_ancillary_data_without_an_address_answers_from_wherever() -> None:
    from radius_plugin.server import _asked

    assert _asked([]) == ([], b"")
    assert _asked([(socket.IPPROTO_IP, 8, b"short")]) == ([], b"")
    info = struct.pack("@I4s4s", 7, b"\x7f\0\0\2", b"\xff" * 4)
    ((level, kind, data),), local = _asked([(socket.SOL_SOCKET, 29, b"x"), (socket.IPPROTO_IP, 8, info)])
    assert (level, kind, local) == (socket.IPPROTO_IP, 8, b"\x7f\0\0\2")
    assert data == struct.pack("@I4s4s", 0, b"\x7f\0\0\2", bytes(4))
