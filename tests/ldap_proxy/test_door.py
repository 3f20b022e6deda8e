"""The life of the door: it counts, it is told of changes, and it leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ldap_proxy.dn import parse_dn
from ldap_proxy.door import LdapDoor, check_files
from ldap_proxy.message import BIND_RESPONSE, build_bind, parse_result
from ldap_proxy.server import open_sockets
from ldap_proxy.settings import (
    Application,
    ExemptSettings,
    LdapDoorSettings,
    Limits,
    Listen,
    RememberMode,
    RememberSettings,
    Scheme,
    Server,
    ServerTls,
    UpstreamSettings,
)
from mfa_core.errors import ConfigurationError
from mfa_core.model import Attempt
from mfa_core.secret import Secret
from mfa_core.verdict import Verdict
from mfa_runtime.gate import Check

EXEMPT = Application(exempt=ExemptSettings(dns=frozenset({parse_dn("cn=svc")})))
REMEMBERS = replace(EXEMPT, remember=RememberSettings(RememberMode.SAME_CREDENTIAL))


class NoGate:
    """Nobody asks it here."""

    async def decide(self, attempt: Attempt) -> Verdict:
        raise AssertionError(attempt)

    def ask(self, attempt: Attempt, answer: Callable[[Verdict], None]) -> None:
        raise AssertionError(attempt)

    def ask_with(self, attempt: Attempt, check: Check, answer: Callable[[Verdict], None]) -> None:
        raise AssertionError(attempt)

    def canonical(self, username: str) -> str:
        return username


def closed_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(log: Path | None, application: Application = EXEMPT, **more: Any) -> LdapDoorSettings:
    """Of a door whose directory is down."""
    directory = UpstreamSettings(servers=(Server(Scheme.LDAP, "127.0.0.1", closed_port()),), warm=0)
    return LdapDoorSettings(
        (Listen(Scheme.LDAP, "127.0.0.1", 0),), directory, (application,), bind_log=log, limits=Limits(drain_s=0.1), **more
    )


def door_of(wanted: LdapDoorSettings) -> LdapDoor:
    return LdapDoor(
        wanted, NoGate(), clock=time.time, monotonic=time.monotonic, random=os.urandom, new_event_id=lambda: "01EVENT"
    )


def run(door: LdapDoor, work: Callable[[tuple[str, int]], Coroutine[Any, Any, None]]) -> None:
    """Start the door, do ``work`` with its address, and stop the door."""

    async def test() -> None:
        sockets = open_sockets(door.settings.listens)
        try:
            await door.start(sockets)
            async with asyncio.timeout(30):
                await work(sockets[0][1].getsockname())
        finally:
            await door.stop()

    asyncio.run(test())


async def bind(address: tuple[str, int], name: bytes = b"cn=svc") -> int:
    """The result of a bind."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(build_bind(1, name, b"a password of the test"))
        octets = await reader.readexactly(2)
        answer = parse_result(octets + await reader.readexactly(octets[1]))
        assert answer.tag == BIND_RESPONSE
        return answer.code
    finally:
        writer.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_what_it_counts_can_be_handed_on_as_json(tmp_path: Path) -> None:
    """A worker's numbers reach the daemon so."""
    door = door_of(settings(tmp_path / "log"))

    async def work(address: tuple[str, int]) -> None:
        assert await bind(address) == 52
        assert await bind(address, b"CN=SVC") == 52
        counters = door.counters()
        assert json.loads(json.dumps(counters)) == counters
        [count, seconds] = counters["applications"]["ldap"]["unavailable"]
        assert count == 2
        assert seconds >= 0
        assert counters["accepted"] == 2
        [server] = counters["servers"].values()
        assert not server["healthy"]

    run(door, work)
    first, second = lines(tmp_path / "log")
    assert (first["event"], first["dn"], second["dn"]) == ("01EVENT", "cn=svc", "CN=SVC")
    assert first["code"] == 52
    assert "a password of the test" not in (tmp_path / "log").read_text()


def test_no_log_is_no_log(tmp_path: Path) -> None:
    door = door_of(settings(None))

    async def work(address: tuple[str, int]) -> None:
        assert await bind(address) == 52

    run(door, work)
    assert list(tmp_path.iterdir()) == []


def test_a_reload_may_begin_move_and_end_the_log(tmp_path: Path) -> None:
    """Its thread ends with it."""
    before = set(threading.enumerate())
    wanted = settings(None)
    door = door_of(wanted)

    async def work(address: tuple[str, int]) -> None:
        await bind(address)
        for path in (tmp_path / "a", tmp_path / "b", None, tmp_path / "a"):
            door.reload(replace(wanted, bind_log=path))
            await bind(address)

    run(door, work)
    assert len(lines(tmp_path / "a")) == 2
    assert len(lines(tmp_path / "b")) == 1
    assert [thread for thread in set(threading.enumerate()) - before if thread.name == "bind-log"] == []


def test_what_is_remembered_ends_when_it_would_mean_something_else(tmp_path: Path) -> None:
    wanted = settings(None, REMEMBERS)
    door = door_of(wanted)

    def remember() -> None:
        door._remember.store(
            REMEMBERS, listener="l", source="s", user="alice",
            typed=Secret(b"pw,123456"), password=Secret(b"pw"), credential="totp:1",
        )  # fmt: skip

    async def work(address: tuple[str, int]) -> None:
        remember()
        door.reload(replace(wanted, limits=replace(wanted.limits, operations=5)))
        assert door.counters()["remembered"] == 1
        door.reload(replace(wanted, applications=(replace(REMEMBERS, refusal_text="other"),)))
        assert door.counters()["remembered"] == 0

    run(door, work)


def test_those_who_guess_are_not_forgiven_by_a_reload(tmp_path: Path) -> None:
    """Unless the bound itself changes."""
    wanted = settings(None)
    door = door_of(wanted)

    async def work(address: tuple[str, int]) -> None:
        kept = door.server.rules.services.guessing
        door.reload(replace(wanted, identity_keep_s=1.0))
        assert door.server.rules.services.guessing is kept
        door.reload(replace(wanted, limits=replace(wanted.limits, failed_binds=1)))
        assert door.server.rules.services.guessing is not kept

    run(door, work)


def test_new_limits_hold_on_both_sides(tmp_path: Path) -> None:
    wanted = settings(None)
    door = door_of(wanted)

    async def work(address: tuple[str, int]) -> None:
        limits = replace(wanted.limits, connections=1, write_buffer=65_536)
        door.reload(replace(wanted, limits=limits))
        assert door.server.rules.limits is limits
        assert door.upstreams._limits is limits
        _, first = await asyncio.open_connection(*address)
        second_reads, second = await asyncio.open_connection(*address)
        assert b"too many connections" in await second_reads.read()
        for writer in (first, second):
            writer.close()

    run(door, work)


@pytest.mark.parametrize("which", ["tls", "upstream"])
def test_a_reload_with_a_certificate_that_cannot_be_used_changes_nothing(tmp_path: Path, which: str) -> None:
    wanted = settings(None)
    door = door_of(wanted)
    absent = tmp_path / "absent"
    broken = replace(wanted, tls=ServerTls(absent, absent), applications=(REMEMBERS,))
    if which == "upstream":
        directory = replace(wanted.upstream, start_tls=True, ca_file=absent)
        broken = replace(wanted, upstream=directory, applications=(REMEMBERS,))

    async def work(address: tuple[str, int]) -> None:
        rules = door.server.rules
        with pytest.raises(ConfigurationError, match="No such file"):
            door.reload(broken)
        assert door.server.rules is rules
        assert door.settings is wanted
        assert await bind(address) == 52

    run(door, work)
    with pytest.raises(ConfigurationError, match="No such file"):
        check_files(broken)
    check_files(wanted)


def test_a_stop_lets_go_of_the_address(tmp_path: Path) -> None:
    door = door_of(settings(None))
    seen: list[tuple[str, int]] = []

    async def work(address: tuple[str, int]) -> None:
        seen.append(address)

    run(door, work)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(seen[0])
