"""Several processes for one door: they die, are told of changes, and end with the daemon."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldap_proxy.settings import LdapDoorSettings, Scheme, UpstreamSettings
from ldap_proxy.settings import Listen as LdapListen
from mfa_core.errors import ConfigurationError
from mfa_core.model import Door as DoorName
from mfad import ldap, radius
from mfad.inherited import Handed, Inherited
from mfad.worker import News, with_news
from mfad.workers import CANNOT_START, MAX_LINE, Workers
from radius_plugin.settings import Listen, Purpose, RadiusDoorSettings, Transport
from tests.end_to_end.daemon import CROWD, Mfad
from tests.end_to_end.programs import wait_until
from tests.end_to_end.radius_certificates import Authority
from tests.end_to_end.radius_door import Door
from tests.end_to_end.radius_packets import Nas

PORTS = 10
"""As many ports of a client: that the kernel gives all of them to one of two workers has a chance of 2^-9."""
CLIENT = {"name": "nas", "network": "127.0.0.0/8", "mode": "mfa_only"}
OTHER = {"name": "other", "network": "127.0.0.77", "mode": "mfa_only", "secret": "another secret of the test"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Mfad:
    """With people in it, to be copied."""
    one = Mfad(tmp_path_factory.mktemp("installed") / "m")
    one.init()
    one.import_people({f"{CROWD}{number}": 6 for number in range(40)})
    return one


@pytest.fixture
def door(installed: Mfad, tmp_path: Path) -> Iterator[Door]:
    one = Door(tmp_path / "door", [CLIENT], door={"workers": 2}, listen=("127.0.0.1:{auth}", "acct://127.0.0.1:{acct}"))
    one.mfad.copy_from(installed)
    one.mfad.start()
    yield one
    one.mfad.close()


def processes(door: Door) -> list[int]:
    """The workers."""
    program = door.mfad._program
    assert program is not None
    return [int(pid) for pid in Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()]


def is_there(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextmanager
def ports(door: Door, source: str = "127.0.0.1", **more: Any) -> Iterator[list[Nas]]:
    with ExitStack() as opened:
        yield [opened.enter_context(door.nas(source, **more)) for _ in range(PORTS)]


def all_are_in(door: Door, sockets: list[Nas]) -> bool:
    """Whether a login at each port is accepted."""
    people = [door.person() for _ in sockets]
    requests = [nas.login(one.name, one.next_code()) for nas, one in zip(sockets, people, strict=True)]
    for nas, request in zip(sockets, requests, strict=True):
        nas.send(request)
    return {nas.receive(request).what for nas, request in zip(sockets, requests, strict=True)} == {"Accept"}


def test_what_comes_for_a_worker_that_was_killed_is_answered_by_the_next(door: Door) -> None:
    """Its sockets are the daemon's. And it is the same worker whatever the configuration says by then."""
    before = processes(door)
    assert len(before) == 2
    door.listen = ("acct://127.0.0.1:{acct}", "127.0.0.1:{auth}")
    door.change([CLIENT])
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    with ports(door) as sockets, ports(door, port="acct") as accounts:
        assert all_are_in(door, sockets)
        assert {nas.ask(nas.accounting()).what for nas in accounts} == {"Accounting-Response"}
    after = processes(door)
    assert len(after) == 2
    assert not set(before) & set(after)
    assert door.mfad.log().count("ended with -9; it is started again") == 2


def test_a_reload_reaches_every_worker(door: Door) -> None:
    with ports(door, "127.0.0.77", secret=OTHER["secret"]) as sockets:
        assert not any(map(is_answered, sockets[:2])), "its secret is that of another client"
        door.change([CLIENT, OTHER])
        for nas in sockets:
            wait_until(partial(is_answered, nas), "every worker knows the new client")
        assert all_are_in(door, sockets)


def is_answered(nas: Nas) -> bool:
    """Whether a Status-Server is answered soon."""
    request = nas.status()
    nas.send(request)
    try:
        return nas.receive(request, patience_s=0.2).what == "Accept"
    except AssertionError:
        return False


def test_a_reload_that_is_refused_reaches_none(door: Door) -> None:
    door.mfad.config_path.write_text("role: nonsense\n")
    door.mfad.signal_reload()
    wait_until(lambda: "was not reloaded" in door.mfad.log(), "the reload is refused")
    with ports(door) as sockets:
        assert all_are_in(door, sockets)
    assert door.mfad.log().count("was not reloaded") == 1


def test_a_reload_with_a_certificate_that_cannot_be_used_changes_nothing(
    installed: Mfad, tmp_path: Path
) -> None:
    """Neither the door nor the policy behind it, neither here nor in a worker."""
    authority = Authority(tmp_path / "ca")
    ours = authority.issue("radius.example", server=True)
    tls = {"certificate_file": str(ours.certificate), "key_file": str(ours.key), "client_ca_file": str(authority.path)}
    clients = [{**CLIENT, "tls": {"subject": ["vpn.example"]}}]
    one = Door(
        tmp_path / "door", clients, door={"workers": 2, "tls": tls}, listen=("127.0.0.1:{auth}", "tls://127.0.0.1:{tls}")
    )
    one.mfad.copy_from(installed)
    try:
        one.mfad.start()
        one.door = {**one.door, "tls": {**tls, "client_ca_file": str(ours.key)}}
        one.more = {"policy": [{"id": "nobody", "when": {"door": "radius"}, "deny": True}]}
        one.mfad.configure(one.settings())
        one.mfad.signal_reload()
        wait_until(lambda: "client_ca_file cannot be used" in one.mfad.log(), "the reload is refused")
        with ports(one) as sockets:
            assert all_are_in(one, sockets)
    finally:
        one.mfad.close()


def test_a_stop_ends_all_of_them(door: Door) -> None:
    pids = processes(door)
    assert door.mfad.stop() == 0
    assert not any(map(is_there, pids))


def test_a_daemon_that_is_killed_takes_them_with_it(door: Door) -> None:
    pids = processes(door)
    assert all(map(is_there, pids))
    door.mfad.kill()
    wait_until(lambda: not any(map(is_there, pids)), "the workers end")
    door.mfad.start()
    with ports(door) as sockets:
        assert all_are_in(door, sockets)


# Started from here


@contextmanager
def sockets_of(*listen: Listen) -> Iterator[Handed]:
    handed = radius.sockets_for_worker(RadiusDoorSettings(listen=listen or (Listen("127.0.0.1", 0),), clients=()))
    yield handed
    for _, opened in handed:
        opened.close()


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def children() -> set[str]:
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())


def test_a_worker_that_cannot_start_is_told_at_once_and_none_is_left(tmp_path: Path) -> None:
    """The others are ended: half a door would look like a whole one."""

    async def test() -> None:
        with sockets_of() as first, sockets_of() as second:
            workers = Workers(DoorName.RADIUS, tmp_path / "missing.yaml", [first, second])
            with pytest.raises(ConfigurationError, match="a RADIUS worker ended with 78"):
                await workers.start()
            assert all(keeper.done() for keeper in workers._keepers)
            assert workers.counters() == []

    before = children()  # other tests' fixtures live on
    asyncio.run(test())
    assert children() <= before


def test_a_process_that_cannot_be_had_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fails)

    async def test() -> None:
        with sockets_of() as sockets:
            before = len(descriptors())
            with pytest.raises(ConfigurationError, match=f"ended with {CANNOT_START}"):
                await Workers(DoorName.RADIUS, tmp_path / "mfad.yaml", [sockets]).start()
            assert len(descriptors()) == before - len(sockets)

    asyncio.run(test())
    assert "RADIUS worker 0 cannot be started: [Errno 11]" in caplog.text


def test_what_is_handed_down_arrives_as_it_was() -> None:
    """Which socket is for what does not depend on the configuration of the moment."""
    listen = (
        Listen("127.0.0.1", 0), Listen("127.0.0.1", 0, purpose=Purpose.ACCOUNTING), Listen("127.0.0.1", 0, Transport.TLS)
    )  # fmt: skip
    with sockets_of(*listen) as sockets:
        handed = Inherited.of(DoorName.RADIUS, 99, sockets)
        assert Inherited.read(handed.written()) == handed
        assert len(handed.descriptors) == 4
        copies = replace(handed, sockets=tuple((what, os.dup(number)) for what, number in handed.sockets))
        arrived = radius.handed_down(copies.handed())
        assert [one.purpose for one, _ in arrived.udp] == [Purpose.AUTHENTICATION, Purpose.ACCOUNTING]
        for (listens, mine), (_, original) in zip(arrived.udp, sockets, strict=False):
            with mine:
                assert (listens.host, listens.port) == mine.getsockname() == original.getsockname()
                assert not mine.getblocking()
        (tls,) = arrived.tls
        with tls:
            assert tls.getsockname() == sockets[2][1].getsockname()


@pytest.mark.parametrize(
    "listen", [LdapListen(Scheme.LDAP, "127.0.0.1"), LdapListen(Scheme.LDAPS, "*"), LdapListen(Scheme.LDAP, "::1")], ids=str
)
def test_ldap_listeners_arrive_by_the_names_that_the_file_gives_them(listen: LdapListen) -> None:
    """Applications are told apart by them: ``*`` is not 0.0.0.0."""
    settings = LdapDoorSettings((listen,), UpstreamSettings(servers=()))
    handed = ldap.sockets_for_worker(settings)
    try:
        arrived = ldap.handed_down(handed)
        assert {listens for listens, _ in arrived} == {listen}
        assert [opened for _, opened in arrived] == [opened for _, opened in handed]
        assert len(arrived) == (2 if listen.host == "*" else 1)
    finally:
        for _, opened in handed:
            opened.close()


WORDS = st.dictionaries(st.sampled_from("xy"), st.integers(0, 3), max_size=2)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), WORDS, max_size=3), min_size=1, max_size=8))
def test_the_daemon_knows_what_its_worker_has_counted(said: list[dict[str, dict[str, int]]]) -> None:
    """Line after line, whatever came and went."""
    news, known = News("clients"), None
    for number, clients in enumerate(said):
        counters: Any = {"strangers": {"unknown_client": number}, "clients": clients, "under_way": number}
        known = with_news(known, json.loads(json.dumps(news.of(counters))))
        assert known == counters


def test_clients_that_say_nothing_take_no_room_in_a_line() -> None:
    counters: Any = {"clients": {f"client-{number}": {"access_request": 1} for number in range(10_000)}}
    news = News("clients")
    first = json.dumps(news.of(counters))
    assert len(first) < MAX_LINE
    clients = {name: dict(counts) for name, counts in counters["clients"].items()}
    clients["client-7"]["access_request"] = 2
    assert news.of({**counters, "clients": clients}) == {
        "counters": {"clients": {"client-7": {"access_request": 2}}}, "table": "clients", "whole": False
    }  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [{}, [], 1, None, {"counters": 1}, {"counters": {}, "whole": False}, {"counters": {}, "whole": False, "table": "x"},
     {"whole": True}],
)  # fmt: skip
def test_any_other_line_is_refused(line: Any) -> None:
    with pytest.raises(ValueError, match="a line without"):
        with_news(None, line)


@pytest.mark.parametrize(
    "text", ["", "x", "5", "null", "{}", "[]", '["radius", 5]', '["other", 5, []]', '["radius", "x", []]',
             '["ldap", 5, [["a"]]]', '["ldap", 5, [["a", null]]]', '["ldap", 5, 6]', '[5, 5, []]']
)  # fmt: skip
def test_anything_else_is_not_for_people(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--worker is for mfad itself"):
        Inherited.read(text)
