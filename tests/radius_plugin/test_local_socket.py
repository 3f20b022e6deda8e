"""The daemon's side of FreeRADIUS's socket: who may ask, what is answered, and what a peer cannot break."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mfa_core.errors import ConfigurationError
from radius_plugin.freeradius.messages import PluginAccounting, PluginReply, PluginRequest, ReplyKind
from radius_plugin.freeradius.place import allowed_uids, open_place
from radius_plugin.local_socket import LocalSocket, LocalSocketSettings

NOBODY = 65_534
ACCEPT = PluginReply(ReplyKind.ACCEPT)
PATIENCE_S = 30.0


def run(test: Callable[[], object]) -> None:
    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))  # type: ignore[arg-type]


def put(tag: int, value: bytes) -> bytes:
    return struct.pack(">HH", tag, len(value)) + value


def login(name: bytes = b"alice", number: int = 7, *, challenges: bytes = b"\1") -> bytes:
    fields = (put(0x0101, name), put(0x010A, bytes(4)), put(0x010C, b"\0"), put(0x010D, challenges), put(0x0110, b"\0\5"))
    return struct.pack(">4sHHI", b"MFR1", 1, 1, number) + b"".join(fields)


def record(number: int = 7) -> bytes:
    return struct.pack(">4sHHI", b"MFR1", 1, 3, number) + put(0x010A, bytes(4)) + put(0x0301, b"\0\0\0\2")


def reject(number: int = 7) -> bytes:
    return struct.pack(">4sHHI", b"MFR1", 1, 2, number) + put(0x0201, b"\2")


def accept(number: int = 7) -> bytes:
    return struct.pack(">4sHHI", b"MFR1", 1, 2, number) + put(0x0201, b"\1")


def no_answer(number: int = 7) -> bytes:
    return struct.pack(">4sHHI", b"MFR1", 1, 2, number) + put(0x0201, b"\4")


def recorded(value: bytes, number: int = 7) -> bytes:
    return struct.pack(">4sHHI", b"MFR1", 1, 4, number) + put(0x0401, value)


@dataclass
class Answerer:
    """Says what it is told to, when it is told to."""

    reply: PluginReply = ACCEPT
    keeps: bool = True
    breaks: bool = False
    asked: list[PluginRequest | PluginAccounting] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.go_on.set()

    async def answer(self, request: PluginRequest) -> PluginReply:
        self.asked.append(request)
        await self.go_on.wait()
        if self.breaks:
            raise RuntimeError("a mistake")
        return self.reply

    async def account(self, record: PluginAccounting) -> bool:
        self.asked.append(record)
        if self.breaks:
            raise RuntimeError("a mistake")
        return self.keeps


class Module:
    """FreeRADIUS's end of one connection."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.setblocking(False)
        self.socket.connect(os.fspath(path))

    async def send(self, message: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, message)

    async def hears(self) -> bytes:
        """The next message; empty when mfad has hung up."""
        try:
            return await asyncio.get_running_loop().sock_recv(self.socket, 20_000)
        except ConnectionResetError:
            return b""

    async def ask(self, message: bytes) -> bytes:
        await self.send(message)
        return await self.hears()

    def close(self) -> None:
        self.socket.close()


@asynccontextmanager
async def listening(
    tmp_path: Path, answerer: Answerer, *, max_connections: int = 8
) -> AsyncIterator[tuple[LocalSocket, Callable[[], Module]]]:
    path = tmp_path / "run" / "radius.sock"
    door = LocalSocket(
        LocalSocketSettings(path, ("root",), max_connections), answerer, monotonic=asyncio.get_running_loop().time
    )
    await door.start()
    modules: list[Module] = []

    def connect() -> Module:
        modules.append(Module(path))
        return modules[-1]

    try:
        yield door, connect
    finally:
        await door.stop(grace_s=1.0)
        for one in modules:
            one.close()
    assert not path.exists(), "the socket is removed"


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  what is waited for has no event
        await asyncio.sleep(0.005)


def test_logins_and_records_of_one_connection_are_answered_one_after_another(tmp_path: Path) -> None:
    async def test() -> None:
        answerer = Answerer()
        async with listening(tmp_path, answerer) as (door, connect):
            module = connect()
            for number in (1, 0xFFFFFFFF, 3):
                assert await module.ask(login(number=number)) == accept(number)
            assert await module.ask(record(9)) == recorded(b"\1", 9)
            answerer.keeps = False
            assert await module.ask(record()) == recorded(b"\0")
            assert (door.counters.accepted, door.counters.logins, door.counters.records) == (1, 3, 2)

    run(test)


def test_connections_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async def test() -> None:
        answerer = Answerer()
        answerer.go_on.clear()
        async with listening(tmp_path, answerer) as (_, connect):
            first, second = connect(), connect()
            await first.send(login(b"slow"))
            await until(lambda: len(answerer.asked) == 1)
            assert await second.ask(record()) == recorded(b"\1")
            answerer.go_on.set()
            assert await first.hears() == accept()

    run(test)


def test_a_question_where_none_can_be_asked_is_a_refusal(tmp_path: Path) -> None:
    async def test() -> None:
        answerer = Answerer(PluginReply(ReplyKind.CHALLENGE, state=b"s"))
        async with listening(tmp_path, answerer) as (_, connect):
            assert await connect().ask(login(challenges=b"\0")) == reject()

    run(test)


def test_a_mistake_behind_the_socket_is_no_answer_and_a_traceback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        answerer = Answerer(breaks=True)
        async with listening(tmp_path, answerer) as (door, connect):
            module = connect()
            assert await module.ask(login()) == no_answer()
            assert await module.ask(record()) == recorded(b"\0")
            answerer.breaks = False
            assert await module.ask(login()) == accept(), "the next one is answered"
            assert door.counters.crashes == 2

    with caplog.at_level(logging.ERROR):
        run(test)
    assert caplog.text.count("RuntimeError: a mistake") == 2


@pytest.mark.parametrize(
    "junk",
    [b"x", b"GET / HTTP/1.1\r\n\r\n", login()[:-1], login() + put(0x0101, b"bob"), bytes(16_385), b"MFR1" + bytes(8)],
    ids=["byte", "http", "cut", "two-names", "long", "version-0"],
)
def test_junk_is_hung_up_on_and_hurts_nobody_else(tmp_path: Path, junk: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        answerer = Answerer()
        async with listening(tmp_path, answerer) as (door, connect):
            good, bad = connect(), connect()
            assert await bad.ask(junk) == b""
            assert await good.ask(login()) == accept()
            assert door.counters.junk == 1
            assert len(answerer.asked) == 1

    run(test)
    assert "alice" not in caplog.text


def test_many_pieces_of_junk_are_few_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with listening(tmp_path, Answerer()) as (door, connect):
            for _ in range(50):
                assert await connect().ask(b"junk") == b""
            assert door.counters.junk == 50

    run(test)
    assert len([one for one in caplog.records if one.levelno >= logging.WARNING]) == 1


def test_a_second_question_before_the_answer_to_the_first_is_hung_up_on(tmp_path: Path) -> None:
    async def test() -> None:
        answerer = Answerer()
        answerer.go_on.clear()
        async with listening(tmp_path, answerer) as (door, connect):
            module = connect()
            await module.send(login(number=1))
            await until(lambda: len(answerer.asked) == 1)
            assert await module.ask(login(number=2)) == b""
            answerer.go_on.set()
            await until(lambda: door.counters.dropped_replies == 1)
            assert len(answerer.asked) == 1

    run(test)


def test_a_module_that_is_killed_in_mid_request_costs_its_own_verdict(tmp_path: Path) -> None:
    async def test() -> None:
        answerer = Answerer()
        answerer.go_on.clear()
        async with listening(tmp_path, answerer) as (door, connect):
            module = connect()
            await module.send(login())
            await until(lambda: len(answerer.asked) == 1)
            module.close()
            answerer.go_on.set()
            await until(lambda: door.counters.dropped_replies == 1)
            assert await connect().ask(login()) == accept()

    run(test)


def test_no_more_connections_than_the_bound(tmp_path: Path) -> None:
    async def test() -> None:
        async with listening(tmp_path, Answerer(), max_connections=2) as (door, connect):
            first, second, third = connect(), connect(), connect()
            assert await first.ask(login()) == accept()
            assert await second.ask(login()) == accept()
            assert await third.hears() == b""
            assert door.counters.overloaded == 1
            second.close()
            await until(lambda: len(door._connections) == 1)
            assert await connect().ask(login()) == accept(), "there is room again"

    run(test)


def test_stopping_lets_a_login_finish(tmp_path: Path) -> None:
    async def test() -> None:
        answerer = Answerer()
        answerer.go_on.clear()
        async with listening(tmp_path, answerer) as (door, connect):
            busy, idle = connect(), connect()
            assert await idle.ask(record()) == recorded(b"\1")
            await busy.send(login())
            await until(lambda: len(answerer.asked) == 2)
            stopping = asyncio.create_task(door.stop(grace_s=PATIENCE_S))
            assert await idle.hears() == b""
            answerer.go_on.set()
            assert await busy.hears() == accept()
            await stopping

    run(test)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_peer_of_another_user_is_hung_up_on_before_it_says_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        answerer = Answerer()
        async with listening(tmp_path, answerer) as (door, connect):
            (tmp_path / "run" / "radius.sock").chmod(0o666)
            os.seteuid(NOBODY)
            try:
                stranger = Module(Path(f"/proc/self/fd/{directory}") / "radius.sock")
            finally:
                os.seteuid(0)
            assert await stranger.hears() == b""
            stranger.close()
            assert answerer.asked == []
            assert door.counters.refused_peers == 1
            assert await connect().ask(login()) == accept()

    (tmp_path / "run").mkdir()
    directory = os.open(tmp_path / "run", os.O_PATH)
    (tmp_path / "run").chmod(0o755)
    try:
        run(test)
    finally:
        os.close(directory)
    assert f"uid {NOBODY} may not ask" in caplog.text


# the place


def test_root_and_we_ourselves_and_the_named_users_may_ask() -> None:
    assert allowed_uids(()) == {0, os.geteuid()}
    assert allowed_uids(("nobody", "nobody-has-this-name")) == {0, os.geteuid(), NOBODY}


def test_the_directory_is_for_the_group_of_freeradius_alone(tmp_path: Path) -> None:
    place = open_place(tmp_path / "run" / "radius.sock", ("nobody",))
    try:
        directory = (tmp_path / "run").stat()
        if os.geteuid() == 0:
            assert (stat.S_IMODE(directory.st_mode), directory.st_gid) == (0o750, NOBODY)
            assert stat.S_IMODE((tmp_path / "run" / "radius.sock").stat().st_mode) == 0o660
        else:
            assert stat.S_IMODE(directory.st_mode) == 0o755
    finally:
        place.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to lose")
def test_freeradius_finds_us_also_where_we_may_give_nothing_to_its_group(tmp_path: Path) -> None:
    """As in packaging/systemd/mfad.service: root, and no capability."""
    path = tmp_path / "run" / "radius.sock"
    opens = (
        "import sys, pathlib; from radius_plugin.freeradius.place import open_place;"
        " path = pathlib.Path(sys.argv[1]); place = open_place(path, ('nobody',));"
        " print(*(oct(one.stat().st_mode & 0o777) for one in (path.parent, path))); place.close()"
    )
    bare = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--clear-groups")
    for _ in range(2):  # the second time the directory is there
        command = [*bare, sys.executable, "-c", opens, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        assert (done.returncode, done.stdout) == (0, "0o755 0o666\n"), done.stderr


def test_freeradius_can_pass_through_what_stands_above_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        place = open_place(tmp_path / "run" / "mfad" / "radius.sock", ("nobody",))
    finally:
        os.umask(before)
    place.close()
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    with pytest.raises(ConfigurationError, match="somebody else could put a socket there"):
        open_place(tmp_path / "run" / "radius.sock", ())


def test_a_link_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigurationError, match="no directory"):
        open_place(tmp_path / "run" / "radius.sock", ())


def test_what_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "radius.sock"
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="no socket of ours"):
        open_place(path, ())
    assert path.read_text() == "precious"


def test_a_second_mfad_is_refused_and_a_dead_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "radius.sock"
    first = open_place(path, ())
    with pytest.raises(ConfigurationError, match="another mfad answers"):
        open_place(path, ())
    first.listener.close()  # as when it is killed: the file stays
    second = open_place(path, ())
    first.close()  # removes nothing: the socket is the second one's
    assert path.exists()
    second.close()
    assert not path.exists()


def test_a_path_that_is_too_long_is_refused_with_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="107 bytes"):
        open_place(tmp_path / ("x" * 100) / "radius.sock", ())
