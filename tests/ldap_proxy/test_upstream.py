"""Connections to directories that answer, refuse, stall, lie and come back."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from ldap_proxy.link import UNBIND, Link
from ldap_proxy.message import (
    EXTENDED_REQUEST,
    SEARCH_REQUEST,
    START_TLS,
    UNBIND_REQUEST,
    WHO_AM_I,
    ResultCode,
    build_extended_request,
    build_extended_response,
    build_result,
    notice_of_disconnection,
    parse_result,
)
from ldap_proxy.settings import Limits, Scheme, Server, UpstreamSettings, Verify
from ldap_proxy.upstream import LINGER_S, MAX_DIALS, NoUpstream, Upstreams
from ldap_proxy.upstream_probe import ProbeStep, Weight, probe
from mfa_core.errors import ConfigurationError
from tests.doubles import FakeClock
from tests.end_to_end.programs import must_have
from tests.end_to_end.radius_certificates import Authority, Certificate
from tests.end_to_end.slapd import PROGRAMS, SERVICE_DN, Slapd
from tests.ldap_proxy.directories import (
    LOOPS,
    Caller,
    Directory,
    Ear,
    connect,
    directory,
    done,
    free_port,
    honest,
    linked,
    run,
    silent,
    until,
    upstream_settings,
)

LIMITS = Limits()
WHO = build_extended_request(7, WHO_AM_I)
START_TLS_REQUEST = build_extended_request(1, START_TLS)


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    """Every loop that the daemon may run in."""
    return str(request.param)


@asynccontextmanager
async def upstreams(
    settings: UpstreamSettings, *, limits: Limits = LIMITS, clock: Any = time.monotonic, started: bool = True
) -> AsyncIterator[Upstreams]:
    one = Upstreams(settings, monotonic=clock, limits=limits)
    if started:
        await one.start()
    try:
        yield one
    finally:
        await one.stop()


def down() -> Server:
    return Server(Scheme.LDAP, "127.0.0.1", free_port())


# -- octets -------------------------------------------------------------------------------------------------------------------


def test_octets_go_both_ways(loop: str) -> None:
    """What is written arrives, and what the directory says is heard as it came."""

    async def main() -> None:
        async with directory() as one, upstreams(upstream_settings(one.server)) as all_of_them:
            ear = Ear()
            link = await linked(all_of_them, ear)
            assert link.server == f"ldap://127.0.0.1:{one.port}"

            link.write(WHO)
            await until(lambda: ear.heard)

            assert parse_result(bytes(ear.heard)).code == 0
            assert WHO in [pdu for caller in one.callers for pdu in caller.pdus]
            link.close()

    run(main(), loop)


def test_small_messages_are_sent_at_once(loop: str) -> None:
    """TCP_NODELAY is set: without it an answer in two writes comes 40 ms late."""

    async def main() -> None:
        async with directory() as one, upstreams(upstream_settings(one.server)) as all_of_them:
            link = await linked(all_of_them)
            assert link.about("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            link.abort()

    run(main(), loop)


def test_close_takes_leave_and_abort_does_not(loop: str) -> None:
    """An Unbind goes behind what was written; after it nothing is written or heard."""

    async def main() -> None:
        async with directory() as one, upstreams(upstream_settings(one.server), started=False) as all_of_them:
            polite, rude = Ear(), Ear()
            first, second = await linked(all_of_them, polite), await linked(all_of_them, rude)
            first.write(WHO)
            first.close()
            first.write(WHO)
            first.close()
            second.abort()
            second.write(WHO)

            await until(lambda: all(caller.ended for caller in one.callers))

            assert sorted(bytes(caller.received) for caller in one.callers) == [b"", WHO + UNBIND]
            assert (polite.heard, polite.lost, rude.heard, rude.lost) == (b"", [], b"", [])
            await until(lambda: all_of_them.states()[0].connections == 0)

    run(main(), loop)


def test_the_end_of_a_connection_is_told_once(loop: str) -> None:
    """When the directory hangs up; nothing is written to it any more."""

    async def main() -> None:
        async with directory() as one, upstreams(upstream_settings(one.server), started=False) as all_of_them:
            ear = Ear()
            link = await linked(all_of_them, ear)
            assert all_of_them.states() == [(f"ldap://127.0.0.1:{one.port}", True, 1)]
            await until(lambda: one.callers)
            one.callers[0].end()
            await until(lambda: ear.lost)

            assert ear.lost == [None]
            assert not link.is_open
            link.write(WHO)
            link.pause()
            link.resume()
            link.close()
            link.abort()
            assert all_of_them.states()[0].connections == 0

    run(main(), loop)


def test_a_directory_that_does_not_read_is_told_of(loop: str) -> None:
    """Above the bound the receiver hears "full", and "drained" when it was taken."""

    async def main() -> None:
        reading = asyncio.Event()

        async def slow(caller: Caller) -> None:
            await reading.wait()

        limits = Limits(write_buffer=64 * 1024)
        async with (
            directory(lambda caller, *_: slow(caller)) as one,
            upstreams(upstream_settings(one.server), limits=limits, started=False) as all_of_them,
        ):
            ear = Ear()
            link = await linked(all_of_them, ear)
            for _ in range(400):
                if ear.full:
                    break
                link.write(build_extended_request(1, WHO_AM_I, bytes(32 * 1024)))
                await asyncio.sleep(0)
            await until(lambda: ear.full)
            assert (ear.full, ear.drained) == (1, 0)

            reading.set()
            await until(lambda: ear.drained)

            assert (ear.full, ear.drained) == (1, 1)
            link.abort()

    run(main(), loop)


def test_a_directory_that_does_not_read_keeps_no_connection_for_ever(loop: str) -> None:
    """What it is still to be sent when leave was taken is given up after a while."""

    async def main() -> None:
        clock = FakeClock()
        never = asyncio.Event()

        async def slow(caller: Caller) -> None:
            await never.wait()

        settings = Limits(write_buffer=64 * 1024)
        async with directory() as one:
            watching = upstream_settings(one.server, health_interval_s=0.02)
            async with upstreams(watching, limits=settings, clock=clock) as all_of_them:
                await until(lambda: one.callers and one.callers[0].pdus)
                ear = Ear()
                link = await linked(all_of_them, ear)
                one.behave = lambda caller, *_: slow(caller)
                for _ in range(24):  # more than the kernel takes for both sides
                    link.write(build_extended_request(1, WHO_AM_I, bytes(1024 * 1024)))
                assert ear.full
                link.close()
                await asyncio.sleep(0.1)
                assert all_of_them.states()[0].connections == 1

                clock.advance(LINGER_S + 1)
                await until(lambda: all_of_them.states()[0].connections == 0)

    run(main(), loop)


def test_a_paused_link_hears_nothing(loop: str) -> None:
    """Until it is resumed; nothing is lost meanwhile."""

    async def main() -> None:
        async with directory() as one, upstreams(upstream_settings(one.server), started=False) as all_of_them:
            ear = Ear()
            link = await linked(all_of_them, ear)
            link.pause()
            link.write(WHO)
            await until(lambda: one.callers and one.callers[0].pdus)
            await asyncio.sleep(0.05)
            assert not ear.heard

            link.resume()
            await until(lambda: ear.heard)
            link.abort()

    run(main(), loop)


# -- stock --------------------------------------------------------------------------------------------------------------------


def test_a_connection_in_stock_is_there_at_once_and_was_never_used(loop: str) -> None:
    """``done`` is called before ``connect`` returns; the next connection is another one."""

    async def main() -> None:
        async with directory() as one, upstreams(upstream_settings(one.server, warm=2)) as all_of_them:
            await until(lambda: len(one.callers) == 3)  # two in stock, one for the check
            taken: list[Link] = []
            for number in range(1, 6):
                ear = Ear()
                before = len(taken)
                all_of_them.connect(ear, lambda link: taken.append(link))  # type: ignore[arg-type]
                assert len(taken) == before + 1
                taken[-1].write(build_extended_request(number, WHO_AM_I))
                await until(lambda ear=ear: ear.heard)
                await until(lambda: all_of_them.counts["dialled"] == len(taken) + 3)

            assert len(set(map(id, taken))) == 5
            asked = [caller.pdus for caller in one.callers if caller.pdus and caller.tags() != [SEARCH_REQUEST]]
            assert sorted(len(pdus) for pdus in asked) == [1] * 5
            assert all_of_them.counts["from_stock"] == 5
            for link in taken:
                link.close()

    run(main(), loop)


def test_a_connection_that_the_directory_closed_is_not_handed_out(loop: str) -> None:
    """Whether the loop has seen the end already or not."""

    async def main() -> None:
        async with directory() as one, upstreams(upstream_settings(one.server, warm=3)) as all_of_them:
            await until(lambda: len(one.callers) == 4 and any(caller.pdus for caller in one.callers))
            await until(lambda: all_of_them.counts["dialled"] == 4)
            for caller in list(one.callers):
                # In one go, below the loop: it has not looked when the connection is asked for.
                caller.writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            ear = Ear()
            link = await linked(all_of_them, ear)
            link.write(WHO)
            await until(lambda: ear.heard)
            assert all_of_them.counts["from_stock"] == 0
            link.abort()

    run(main(), "asyncio")  # transports of uvloop lend no socket to shut


def test_a_connection_that_speaks_unasked_is_not_handed_out(loop: str) -> None:
    """A Notice of Disconnection in stock, or anything else: the next one would read it as an answer."""

    async def main() -> None:
        async with directory() as one, upstreams(upstream_settings(one.server, warm=2)) as all_of_them:
            await until(lambda: all_of_them.counts["dialled"] == 3 and len(one.callers) == 3)
            await until(lambda: any(caller.pdus for caller in one.callers))
            idle = [caller for caller in one.callers if not caller.pdus]
            for caller in idle:
                caller.send(notice_of_disconnection(52))
            await until(lambda: all(caller.ended for caller in idle))

            ear = Ear()
            link = await linked(all_of_them, ear)
            await asyncio.sleep(0.02)
            assert not ear.heard
            assert link.is_open
            link.abort()

    run(main(), loop)


def test_a_connection_that_is_old_is_replaced() -> None:
    """What stands in between may have forgotten it without a word."""

    async def main() -> None:
        clock = FakeClock()
        async with directory() as one:
            settings = upstream_settings(one.server, warm=1, health_interval_s=0.02)
            async with upstreams(settings, clock=clock) as all_of_them:
                await until(lambda: len(one.callers) == 2 and any(caller.pdus for caller in one.callers))
                first = next(caller for caller in one.callers if not caller.pdus)
                clock.advance(61)
                await until(lambda: first.ended)
                await until(lambda: all_of_them.counts["dialled"] == 3)
                assert bytes(first.received) == UNBIND

    run(main())


# -- choice and health --------------------------------------------------------------------------------------------------------


def test_the_second_server_takes_over_and_the_first_comes_back(loop: str) -> None:
    """In their order; nobody waits for one that is known to be down."""

    async def main() -> None:
        async with directory() as second:
            first = Directory()
            await first.start()
            await first.stop()
            settings = upstream_settings(first.server, second.server, health_interval_s=0.05)
            async with upstreams(settings) as all_of_them:
                link = await linked(all_of_them)
                assert link.server == str(second.server)
                link.abort()
                await until(lambda: [state.healthy for state in all_of_them.states()] == [False, True])

                await first.start()
                await until(lambda: all_of_them.states()[0].healthy)
                link = await linked(all_of_them)

                assert link.server == str(first.server)
                link.abort()
            await first.stop()

    run(main(), loop)


def test_one_that_comes_and_goes_stays_aside_for_the_dead_time() -> None:
    """As long as another one serves, and no longer than that."""

    async def main() -> None:
        clock = FakeClock()
        first = await Directory().start()
        await first.stop()
        async with directory() as second:
            settings = upstream_settings(first.server, second.server, health_interval_s=0.02, dead_time_s=10.0)
            async with upstreams(settings, clock=clock) as all_of_them:
                await until(lambda: not all_of_them.states()[0].healthy)
                await first.start()
                await until(lambda: len(first.callers) >= 1 and len(first.callers[0].pdus) >= 3)  # it has been looked at
                assert not all_of_them.states()[0].healthy

                clock.advance(11)
                await until(lambda: all_of_them.states()[0].healthy)
        await first.stop()

    run(main())


def test_the_only_server_is_used_again_as_soon_as_it_is_there() -> None:
    """A restart costs those who ask meanwhile their bind, and nobody else: checks may be an hour apart."""

    async def main() -> None:
        one = await Directory().start()
        await one.stop()
        async with upstreams(upstream_settings(one.server, dead_time_s=600.0)) as all_of_them:
            assert isinstance(await connect(all_of_them), NoUpstream)
            assert not all_of_them.states()[0].healthy

            await one.start()
            link = await linked(all_of_them)
            await until(lambda: all_of_them.states()[0].healthy)
            link.abort()
        await one.stop()

    run(main())


def test_a_server_that_takes_connections_and_does_not_answer_is_dead(loop: str) -> None:
    """The kernel of a machine whose directory hangs still says yes."""

    async def main() -> None:
        async with directory(silent) as frozen, directory() as second:
            settings = upstream_settings(
                frozen.server, second.server, connect_timeout_s=0.5, health_interval_s=0.05, warm=2
            )
            async with upstreams(settings) as all_of_them:
                await until(lambda: not all_of_them.states()[0].healthy)
                link = await linked(all_of_them)
                assert link.server == str(second.server)
                link.abort()

                frozen.behave = honest
                await until(lambda: all_of_them.states()[0].healthy)

    run(main(), loop)


def test_a_server_that_falls_silent_is_noticed_over_the_kept_connection() -> None:
    """Also when it has answered for long: one connection for all checks, and no second try where nobody answers."""

    async def main() -> None:
        async with (
            directory() as one,
            upstreams(upstream_settings(one.server, connect_timeout_s=0.5)) as all_of_them,
        ):
            for _ in range(3):
                await until(lambda: not all_of_them._checks)
                all_of_them._check_soon(all_of_them._servers[0])
            await until(lambda: not all_of_them._checks)
            assert all_of_them.states()[0].healthy

            one.behave = silent
            all_of_them._check_soon(all_of_them._servers[0])
            await until(lambda: not all_of_them._checks)
            assert not all_of_them.states()[0].healthy
            assert len(one.callers) == 1

    run(main())


def test_a_server_that_closes_idle_connections_is_not_dead() -> None:
    """The check is repeated over a new one."""

    async def main() -> None:
        seen: list[bool] = []
        async with directory() as one, upstreams(upstream_settings(one.server, health_interval_s=0.02)) as all_of_them:
            for _ in range(3):
                before = len(one.callers)
                await until(lambda: one.open_callers and one.open_callers[-1].pdus)
                for caller in one.open_callers:
                    caller.end()
                await until(lambda before=before: len(one.callers) > before)
                seen.append(all_of_them.states()[0].healthy)
        assert seen == [True] * 3

    run(main())


@pytest.mark.parametrize(("code", "healthy"), [(0, True), (50, True), (48, True), (1, True), (51, False), (52, False)])
def test_a_refusal_is_an_answer_and_busy_is_none(code: int, healthy: bool) -> None:
    """Anonymous searches may be forbidden; a server that says that it does not serve is believed."""

    async def main() -> None:
        async with (
            directory(lambda caller, pdu, number, tag: done(number, tag, code)) as one,
            upstreams(upstream_settings(one.server)) as all_of_them,
        ):
            await until(lambda: one.callers and one.callers[0].pdus)
            await until(lambda: not all_of_them._checks)
            assert all_of_them.states()[0].healthy is healthy

    run(main())


def lie_in_pieces(answer: bytes) -> Any:
    """Send an answer octet by octet."""

    async def behave(caller: Caller) -> None:
        for octet in answer:
            caller.send(bytes((octet,)))
            await asyncio.sleep(0)

    return lambda caller, *_: behave(caller)


@pytest.mark.parametrize(
    ("answer", "healthy"),
    [
        pytest.param(build_result(1, 0x65, 0), True, id="in pieces"),
        pytest.param(build_result(9, 0x65, 0), False, id="to another message"),
        pytest.param(build_result(1, 0x61, 0), False, id="to another operation"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", False, id="no LDAP"),
        pytest.param(b"\x30\x84\x7f\xff\xff\xff", False, id="two gigabytes"),
        pytest.param(b"\x30\x80", False, id="indefinite"),
        pytest.param(notice_of_disconnection(52), False, id="farewell"),
        pytest.param(build_result(0, 0x65, 0), False, id="message 0"),
    ],
)
def test_a_check_believes_nothing_but_an_answer(answer: bytes, healthy: bool) -> None:
    """Whatever listens there."""

    async def main() -> None:
        async with (
            directory(lie_in_pieces(answer)) as one,
            upstreams(upstream_settings(one.server, connect_timeout_s=1.0)) as all_of_them,
        ):
            await until(lambda: one.callers and one.callers[0].pdus)
            await until(lambda: not all_of_them._checks)
            assert all_of_them.states()[0].healthy is healthy

    run(main())


def test_spread_goes_where_the_fewest_connections_are() -> None:
    """And not to one that is down."""

    async def main() -> None:
        async with directory() as first, directory() as second:
            settings = upstream_settings(first.server, down(), second.server, spread=True)
            async with upstreams(settings) as all_of_them:
                links = [await linked(all_of_them) for _ in range(8)]
                assert [state.connections for state in all_of_them.states()] == [4, 0, 4]
                for link in links:
                    link.abort()
                await until(lambda: sum(state.connections for state in all_of_them.states()) == 0)

    run(main())


def test_with_all_servers_down_each_is_named_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The log says why and how to mend it, once for each outage."""

    async def main() -> None:
        caplog.set_level(logging.INFO)
        servers = (down(), down())
        async with upstreams(upstream_settings(*servers)) as all_of_them:
            for _ in range(5):
                found = await connect(all_of_them)
                assert isinstance(found, NoUpstream)
                assert all(str(server) in str(found) for server in servers)
                assert not found.overloaded
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == 2
        assert all("Connection refused" in line and "see whether it runs" in line for line in said)
        assert all_of_them.counts["refused"] == 5

    run(main())


def test_a_server_that_swallows_connections_costs_one_timeout(loop: str) -> None:
    """Those who come later go to the second at once."""

    async def main() -> None:
        with closing(socket.socket()) as swallowing:
            swallowing.bind(("127.0.0.1", 0))
            swallowing.listen(0)
            port = swallowing.getsockname()[1]
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))  # its queue is full from here on, and the kernel drops what comes
            try:
                async with directory() as second:
                    settings = upstream_settings(Server(Scheme.LDAP, "127.0.0.1", port), second.server, connect_timeout_s=0.5)
                    async with upstreams(settings, started=False) as all_of_them:
                        link = await linked(all_of_them)
                        assert link.server == str(second.server)
                        assert [state.healthy for state in all_of_them.states()] == [False, True]
                        link.abort()
            finally:
                for filler in fillers:
                    filler.close()

    run(main(), loop)


def test_a_server_that_hangs_up_at_once_is_passed_over(loop: str) -> None:
    """One that takes no more connections, for instance."""

    async def main() -> None:
        accepted = asyncio.Event()

        async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.set()
            writer.transport.abort()

        rude = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        port = rude.sockets[0].getsockname()[1]
        async with directory() as second:
            settings = upstream_settings(Server(Scheme.LDAP, "127.0.0.1", port), second.server)
            async with upstreams(settings) as all_of_them:
                await until(lambda: not all_of_them.states()[0].healthy)
                assert accepted.is_set()
                link = await linked(all_of_them)
                assert link.server == str(second.server)
                link.abort()
        rude.close()

    run(main(), loop)


def test_a_name_with_several_addresses_is_tried_at_each() -> None:
    """``localhost`` is ::1 as well, where nobody listens."""

    async def main() -> None:
        async with directory() as one:
            settings = upstream_settings(Server(Scheme.LDAP, "localhost", one.port))
            async with upstreams(settings, started=False) as all_of_them:
                for _ in range(2):
                    link = await linked(all_of_them)
                    link.abort()

    run(main())


@pytest.mark.parametrize("name", ["directory.invalid", "a..b", "x" * 64 + ".example.org"])
def test_a_name_that_does_not_exist_is_said_to(loop: str, name: str) -> None:
    """RFC 6761 section 6.4: nobody has a name under .invalid; nor one that is none."""

    async def main() -> None:
        settings = upstream_settings(Server(Scheme.LDAP, name, 389))
        async with upstreams(settings, started=False) as all_of_them:
            found = await connect(all_of_them)
            assert isinstance(found, NoUpstream)
            assert "cannot be looked up" in str(found)

    run(main(), loop)


def test_ldapi(loop: str, tmp_path: Path) -> None:
    """A socket in the file system, there or not."""

    async def main() -> None:
        path = tmp_path / "ldapi"
        settings = upstream_settings(Server(Scheme.LDAPI, str(path)), connect_timeout_s=2.0)
        async with upstreams(settings, started=False) as all_of_them:
            found = await connect(all_of_them)
            assert isinstance(found, NoUpstream)
            assert "No such file" in str(found)

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                # A check comes as well, now that there is somebody.
                if await reader.read(65536) == WHO:
                    writer.write(build_extended_response(7, 0))
                writer.close()
                await writer.wait_closed()
                served.append(True)

            served: list[bool] = []
            listening = await asyncio.start_unix_server(serve, str(path))
            ear = Ear()
            link = await linked(all_of_them, ear)
            link.write(WHO)
            await until(lambda: ear.lost)
            assert parse_result(bytes(ear.heard)).message_id == 7
            await until(lambda: served)
            listening.close()

    run(main(), loop)


# -- bounds and endings -------------------------------------------------------------------------------------------------------


def test_who_waits_is_bounded_in_number() -> None:
    """So many are dialled, so many wait behind them, and the next one hears at once that there is no room."""

    async def main() -> None:
        async with directory(silent) as one:
            # StartTLS is never answered: each attempt lasts.
            settings = upstream_settings(one.server, start_tls=True, connect_timeout_s=60.0)
            async with upstreams(settings, limits=Limits(connections=5), started=False) as all_of_them:
                told: list[Link | NoUpstream] = []
                cancels = [all_of_them.connect(Ear(), told.append) for _ in range(MAX_DIALS + 5)]
                assert not told
                all_of_them.connect(Ear(), told.append)
                assert isinstance(told[0], NoUpstream)
                assert told[0].overloaded
                await until(lambda: len(one.callers) == MAX_DIALS)

                for cancel in cancels[:6]:
                    cancel()
                await until(lambda: len(one.callers) == MAX_DIALS + 5)
                await until(lambda: len(one.open_callers) == MAX_DIALS - 1)
                assert len(told) == 1
            # and whoever was left is told at the end
            assert len(told) == MAX_DIALS
            assert all(isinstance(one, NoUpstream) for one in told)

    run(main())


def test_who_calls_off_hears_nothing_and_leaves_nothing_open(loop: str) -> None:
    """In the middle of a connection that is being made, and just when it was made."""

    async def main() -> None:
        async with directory(silent) as one:
            settings = upstream_settings(one.server, start_tls=True, connect_timeout_s=60.0)
            async with upstreams(settings, started=False) as all_of_them:
                told: list[Link | NoUpstream] = []
                cancel = all_of_them.connect(Ear(), told.append)
                await until(lambda: one.callers and one.callers[0].pdus)
                cancel()
                cancel()
                await until(lambda: one.callers[0].ended)
                assert not told
                assert all_of_them.states() == [(str(one.server), True, 0)]

    run(main(), loop)


def test_who_calls_off_just_when_it_was_made_hears_nothing_either(loop: str) -> None:
    """The connection takes leave."""

    async def main() -> None:
        async with directory() as one, upstreams(upstream_settings(one.server), started=False) as all_of_them:
            told: list[Link | NoUpstream] = []
            cancel = all_of_them.connect(Ear(), told.append)
            (dial,) = all_of_them._dials
            while not dial.done():  # noqa: ASYNC110  between its end and what comes of it
                await asyncio.sleep(0)
            cancel()
            await until(lambda: one.callers and one.callers[0].ended)
            assert bytes(one.callers[0].received) == UNBIND
            assert not told

    run(main(), loop)


def test_after_the_end_there_are_no_connections() -> None:
    """And those in stock take leave."""

    async def main() -> None:
        async with directory() as one:
            async with upstreams(upstream_settings(one.server, warm=2)) as all_of_them:
                await until(lambda: len(one.callers) == 3)
                await until(lambda: all_of_them.counts["dialled"] == 3)
            told: list[Link | NoUpstream] = []
            all_of_them.connect(Ear(), told.append)
            assert isinstance(told[0], NoUpstream)
            await until(lambda: not one.open_callers)
            assert all(caller.tags()[-1] == UNBIND_REQUEST for caller in one.callers)

    run(main())


def test_a_reload_moves_new_connections_and_leaves_the_others() -> None:
    """Stock of the old server is given up; a file that cannot be used changes nothing."""

    async def main() -> None:
        async with (
            directory() as old, directory() as new,
            upstreams(upstream_settings(old.server, warm=2)) as all_of_them,
        ):
            await until(lambda: all_of_them.counts["dialled"] == 3)
            ear = Ear()
            kept = await linked(all_of_them, ear)

            bad = upstream_settings(Server(Scheme.LDAPS, "127.0.0.1", 636), ca_file=Path("/nowhere/ca.pem"))
            with pytest.raises(ConfigurationError, match="ca_file"):
                all_of_them.reload(bad)
            assert [state.server for state in all_of_them.states()] == [str(old.server)]

            all_of_them.reload(upstream_settings(new.server, warm=2))
            link = await linked(all_of_them)
            assert link.server == str(new.server)
            await until(lambda: len(old.open_callers) == 1)
            kept.write(WHO)
            await until(lambda: ear.heard)
            kept.close()
            link.close()

    run(main())


# -- TLS ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def other_ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other_ca"), "another CA")


@pytest.fixture(scope="module")
def certificate(ca: Authority) -> Certificate:
    return ca.issue("localhost", server=True)


def server_tls(
    certificate: Certificate, *, client_ca: Path | None = None, most: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    if most is not None:
        context.maximum_version = most
    return context


@pytest.fixture(params=["ldaps", "StartTLS"])
def way(request: pytest.FixtureRequest) -> str:
    """How TLS begins."""
    return str(request.param)


def tls_settings(one: Directory, way: str, *, host: str = "localhost", **more: Any) -> UpstreamSettings:
    server = Server(Scheme.LDAPS if way == "ldaps" else Scheme.LDAP, host, one.port)
    return upstream_settings(server, start_tls=way != "ldaps", **more)


def in_clear(one: Directory, way: str) -> bool:
    """Whether the directory read anything but StartTLS that was not inside TLS, or anything after a handshake that failed."""
    return any(bytes(caller.received) not in (b"", START_TLS_REQUEST if way != "ldaps" else b"") for caller in one.callers)


def test_octets_go_both_ways_inside_tls(loop: str, way: str, ca: Authority, certificate: Certificate) -> None:
    """With the host name, and with the address that stands in the certificate."""

    async def main(host: str) -> None:
        async with (
            directory(tls=server_tls(certificate), ldaps=way == "ldaps") as one,
            upstreams(tls_settings(one, way, host=host, ca_file=ca.path, warm=1)) as all_of_them,
        ):
            await until(lambda: all_of_them.counts["dialled"] == 2)
            for _ in range(3):
                ear = Ear()
                link = await linked(all_of_them, ear)
                assert link.about("ssl_object").version() == "TLSv1.3"
                link.write(WHO)
                await until(lambda ear=ear: ear.heard)
                link.close()
            await until(lambda: all_of_them.states()[0].connections == 0)

    run(main("localhost"), loop)
    run(main("127.0.0.1"), loop)


def test_back_pressure_works_inside_tls(loop: str, way: str, ca: Authority, certificate: Certificate) -> None:
    """Full, drained, paused and resumed, as in clear."""

    async def main() -> None:
        reading = asyncio.Event()
        answers = b"".join(build_extended_response(7, 0) for _ in range(3))

        async def slow(caller: Caller) -> None:
            await reading.wait()
            caller.send(answers)

        async with (
            directory(lambda caller, *_: slow(caller), tls=server_tls(certificate), ldaps=way == "ldaps") as one,
            upstreams(
                tls_settings(one, way, ca_file=ca.path), limits=Limits(write_buffer=64 * 1024), started=False
            ) as all_of_them,
        ):
            ear = Ear()
            link = await linked(all_of_them, ear)
            written = 0
            while not ear.full:
                link.write(build_extended_request(1, WHO_AM_I, bytes(32 * 1024)))
                written += 1
                await asyncio.sleep(0)
            link.pause()
            reading.set()
            await until(lambda: ear.drained)
            await until(lambda: len(one.callers[0].pdus) >= written)
            assert (ear.full, ear.drained) == (1, 1)
            assert not ear.heard

            link.resume()
            await until(lambda: len(ear.heard) == written * len(answers))
            link.abort()

    run(main(), loop)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("another CA", "name the CA that issued it"),
        ("another name", "by a name that stands in its certificate"),
        ("expired", "renew the server's certificate"),
        ("another pin", "not among `pins`"),
        ("another pin, unverified", "not among `pins`"),
        ("old TLS", "no TLS"),
    ],
)
def test_a_server_that_is_not_the_one_hears_nothing(
    loop: str, way: str, case: str, said: str, ca: Authority, other_ca: Authority, certificate: Certificate,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """No octet of LDAP, in clear or inside TLS; the log says why and how to mend it."""
    more: dict[str, Any] = {"ca_file": ca.path}
    shown, most, host = certificate, None, "localhost"
    match case:
        case "another CA":
            more["ca_file"] = other_ca.path
        case "another name":
            shown = ca.issue("elsewhere.example.org", server=True)
        case "expired":
            shown = ca.issue("localhost", server=True, expired=True)
        case "another pin":
            more["pins"] = frozenset({"ab" * 32})
        case "another pin, unverified":
            more |= {"pins": frozenset({"ab" * 32}), "verify": Verify.NONE}
        case "old TLS":
            more["minimum_version"], most = "1.3", ssl.TLSVersion.TLSv1_2

    async def main() -> None:
        async with directory(tls=server_tls(shown, most=most), ldaps=way == "ldaps") as one:
            async with upstreams(tls_settings(one, way, host=host, **more)) as all_of_them:
                found = await connect(all_of_them)
                assert isinstance(found, NoUpstream)
                await until(lambda: not all_of_them.states()[0].healthy and not all_of_them._checks)
            await asyncio.sleep(0)
            assert not in_clear(one, way)

    caplog.set_level(logging.ERROR, logger="ldap_proxy")
    run(main(), loop)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("ldap_proxy")]
    assert len(lines) == 1
    assert said in lines[0]


def test_a_pinned_certificate_stands_for_its_ca(way: str, certificate: Certificate) -> None:
    """Written with colons and capitals too, as openssl writes it; any of several."""
    written = ":".join(certificate.fingerprint[at : at + 2] for at in range(0, 64, 2)).upper()

    async def main() -> None:
        async with directory(tls=server_tls(certificate), ldaps=way == "ldaps") as one:
            settings = tls_settings(one, way, verify=Verify.NONE, pins=frozenset({"ab" * 32, written}))
            async with upstreams(settings, started=False) as all_of_them:
                (await linked(all_of_them)).close()

    run(main())


def test_a_directory_may_want_a_certificate_of_ours(loop: str, way: str, ca: Authority, certificate: Certificate) -> None:
    """With it there is a connection, without it there is none."""
    ours = ca.issue("mfad")

    async def main() -> None:
        # TLS 1.2: in 1.3 the client's handshake is over before the server has looked at the certificate.
        tls = server_tls(certificate, client_ca=ca.path, most=ssl.TLSVersion.TLSv1_2)
        async with directory(tls=tls, ldaps=way == "ldaps") as one:
            without = tls_settings(one, way, ca_file=ca.path)
            async with upstreams(without, started=False) as all_of_them:
                assert isinstance(await connect(all_of_them), NoUpstream)
            settings = tls_settings(one, way, ca_file=ca.path, certificate_file=ours.certificate, key_file=ours.key)
            async with upstreams(settings, started=False) as all_of_them:
                (await linked(all_of_them)).close()

    run(main(), loop)


def test_a_certificate_that_cannot_be_used_is_said_before_anything_else(ca: Authority, certificate: Certificate) -> None:
    """A key of another certificate, and a CA file that holds none."""
    server = Server(Scheme.LDAPS, "localhost", 636)
    other = ca.issue("other")
    for more, said in (
        ({"certificate_file": certificate.certificate, "key_file": other.key}, "certificate_file and key_file"),
        ({"ca_file": certificate.key}, "ca_file"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            Upstreams(upstream_settings(server, **more), monotonic=time.monotonic, limits=LIMITS)


def test_a_reload_reads_the_files_again(tmp_path: Path, ca: Authority, other_ca: Authority, certificate: Certificate) -> None:
    """Under the same settings: a CA or a certificate is renewed in its place."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(other_ca.path.read_bytes())

    async def main() -> None:
        async with directory(tls=server_tls(certificate), ldaps=True) as one:
            settings = tls_settings(one, "ldaps", ca_file=ca_file)
            async with upstreams(settings, started=False) as all_of_them:
                assert isinstance(await connect(all_of_them), NoUpstream)
                ca_file.write_bytes(ca.path.read_bytes())
                assert isinstance(await connect(all_of_them), NoUpstream)
                all_of_them.reload(settings)
                (await linked(all_of_them)).close()

    run(main())


REFUSALS = {
    "protocol error": build_extended_response(1, 2),
    "unavailable": build_extended_response(1, 52),
    "another message": build_extended_response(2, 0),
    "another operation": build_result(1, 0x65, 0),
    "more in clear": build_extended_response(1, 0) + build_result(2, 0x61, 0),
    "no LDAP": b"220 ready when you are\r\n",
    "too long": b"\x30\x84\x7f\xff\xff\xff",
    "nothing": b"",
}


@pytest.mark.parametrize("case", REFUSALS)
def test_without_start_tls_nothing_is_said_at_all(loop: str, case: str, ca: Authority) -> None:
    """A server that refuses it, or answers it with anything but yes, hears no more; there is no way back to clear text."""

    async def main() -> None:
        def behave(caller: Caller, pdu: bytes, number: int, tag: int) -> None:
            caller.send(REFUSALS[case])
            if case == "nothing":
                caller.end()

        async with directory(behave) as one, upstreams(tls_settings(one, "StartTLS", ca_file=ca.path)) as all_of_them:
            found = await connect(all_of_them)
            assert isinstance(found, NoUpstream)
            assert "StartTLS" in str(found)
            await until(lambda: not all_of_them._checks)
            assert {bytes(caller.received) for caller in one.callers} == {START_TLS_REQUEST}

    run(main(), loop)


def test_the_answer_to_start_tls_may_come_in_pieces(ca: Authority, certificate: Certificate) -> None:
    """Octet by octet, and then TLS."""

    async def main() -> None:
        context = server_tls(certificate)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.readexactly(len(START_TLS_REQUEST)) == START_TLS_REQUEST
            for octet in build_extended_response(1, 0):
                await asyncio.sleep(0.001)
                writer.write(bytes((octet,)))
            await writer.start_tls(context)
            assert await reader.readexactly(len(WHO)) == WHO
            writer.write(build_extended_response(7, 0))
            await reader.read()
            writer.close()

        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        settings = upstream_settings(Server(Scheme.LDAP, "localhost", port), start_tls=True, ca_file=ca.path)
        async with upstreams(settings, started=False) as all_of_them:
            ear = Ear()
            link = await linked(all_of_them, ear)
            link.write(WHO)
            await until(lambda: ear.heard)
            link.close()
            await until(lambda: all_of_them.states()[0].connections == 0)
        listening.close()

    run(main())


# -- a real directory ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory, ca: Authority, certificate: Certificate) -> Iterator[Slapd]:
    must_have(*PROGRAMS)
    one = Slapd(tmp_path_factory.mktemp("slapd"), {"alice": "secret"}, certificate=certificate, ca=ca.path).start()
    yield one
    one.stop()


def ways_to(slapd: Slapd, ca: Authority) -> dict[str, UpstreamSettings]:
    return {
        "ldap": upstream_settings(Server(Scheme.LDAP, "127.0.0.1", slapd.port)),
        "StartTLS": upstream_settings(Server(Scheme.LDAP, "localhost", slapd.port), start_tls=True, ca_file=ca.path),
        "ldaps": upstream_settings(Server(Scheme.LDAPS, "localhost", slapd.tls_port), ca_file=ca.path),
        "ldapi": upstream_settings(Server(Scheme.LDAPI, str(slapd.socket))),
    }


@pytest.mark.parametrize("how", ["ldap", "StartTLS", "ldaps", "ldapi"])
def test_slapd_is_reached(loop: str, how: str, slapd: Slapd, ca: Authority) -> None:
    """In every way, from stock and without."""
    settings = ways_to(slapd, ca)[how]

    async def main() -> None:
        async with upstreams(UpstreamSettings(settings.servers, settings.start_tls, settings.ca_file, warm=2)) as all_of_them:
            await until(lambda: all_of_them.counts["dialled"] >= 3)
            for _ in range(4):
                ear = Ear()
                link = await linked(all_of_them, ear)
                link.write(WHO)
                await until(lambda ear=ear: ear.heard)
                assert parse_result(bytes(ear.heard)).code == ResultCode.SUCCESS
                link.close()
            assert all_of_them.states()[0].healthy

    run(main(), loop)


@pytest.mark.parametrize("how", ["ldap", "StartTLS", "ldaps", "ldapi"])
def test_the_probe_sees_what_slapd_offers(how: str, slapd: Slapd, ca: Authority) -> None:
    """Each step, and what is weak about passwords in clear."""
    settings = ways_to(slapd, ca)[how]

    async def main() -> None:
        seen = await probe(settings.servers[0], settings, monotonic=time.monotonic)
        expected = [ProbeStep.CONNECTION, ProbeStep.ROOT_DSE, ProbeStep.ANONYMOUS, ProbeStep.WHO_AM_I]
        if how in ("StartTLS", "ldaps"):
            expected.insert(1, ProbeStep.TLS)
        assert [one.step for one in seen] == expected
        weak = [one for one in seen if one.weight is not Weight.GOOD]
        assert [one.step for one in weak] == ([ProbeStep.ROOT_DSE] if how == "ldap" else [])
        assert all("StartTLS" in one.said and one.cure for one in weak)
        assert any("dc=example,dc=org" in one.said for one in seen)

    run(main())


def test_the_probe_says_what_is_wrong(slapd: Slapd, ca: Authority, other_ca: Authority) -> None:
    """The step where it ends, and a cure."""

    async def problem(settings: UpstreamSettings) -> tuple[ProbeStep, str]:
        seen = await probe(settings.servers[0], settings, monotonic=time.monotonic)
        assert seen[-1].weight is Weight.PROBLEM
        assert all(one.weight is Weight.GOOD for one in seen[:-1])
        return seen[-1].step, seen[-1].cure

    async def main() -> None:
        ldaps = Server(Scheme.LDAPS, "localhost", slapd.tls_port)
        assert (await problem(upstream_settings(down())))[0] is ProbeStep.CONNECTION
        step, cure = await problem(upstream_settings(ldaps, ca_file=other_ca.path))
        assert (step, cure) == (ProbeStep.TLS, "name the CA that issued it in `ca_file`")
        async with directory(lambda caller, pdu, number, tag: done(number, tag, 2 if tag == EXTENDED_REQUEST else 0)) as one:
            seen = await probe(one.server, upstream_settings(one.server), monotonic=time.monotonic)
            assert (seen[-1].step, seen[-1].weight) == (ProbeStep.WHO_AM_I, Weight.PROBLEM)
            assert "as_bound" in seen[-1].cure
        async with directory(silent) as one:
            assert (await problem(upstream_settings(one.server, connect_timeout_s=1.0)))[0] is ProbeStep.ROOT_DSE

    run(main())
    assert SERVICE_DN not in slapd.log()
