"""The two sockets: made where it is safe, and only then."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mfa_core.errors import ConfigurationError
from pam_mfa.listeners import inherited_listeners, open_listeners


def modes(directory: Path) -> dict[str, int]:
    return {one.name: stat.S_IMODE(one.lstat().st_mode) for one in directory.iterdir()}


def connect(path: Path) -> socket.socket:
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.connect(os.fspath(path))
    return one


def test_the_directory_and_the_sockets_have_the_modes_that_the_module_demands(tmp_path: Path) -> None:
    directory = tmp_path / "var" / "run"
    previous = os.umask(0o077)
    try:
        listeners = open_listeners(directory)
    finally:
        os.umask(previous)

    assert stat.S_IMODE(directory.lstat().st_mode) == 0o755
    assert modes(directory) == {"priv.sock": 0o600, "user.sock": 0o666}
    listeners.close()
    assert modes(directory) == {}


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """A daemon that was killed leaves its sockets; nobody answers there."""
    directory = tmp_path / "run"
    crashed = open_listeners(directory)
    crashed.privileged.close()
    crashed.user.close()

    listeners = open_listeners(directory)

    connect(directory / "priv.sock").close()
    listeners.close()


def test_a_socket_that_answers_is_left_alone(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    first = open_listeners(directory)

    with pytest.raises(ConfigurationError, match="another mfad answers"):
        open_listeners(directory)

    connect(directory / "user.sock").close()
    first.close()


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir(mode=0o755)
    (directory / "priv.sock").write_text("precious")

    with pytest.raises(ConfigurationError, match="in the way"):
        open_listeners(directory)

    assert (directory / "priv.sock").read_text() == "precious"


def test_a_link_in_the_way_is_left_alone(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir(mode=0o755)
    (directory / "user.sock").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ConfigurationError, match="in the way"):
        open_listeners(directory)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    directory.chmod(mode)

    with pytest.raises(ConfigurationError, match="will not trust"):
        open_listeners(directory)


def test_a_link_to_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o755)
    (tmp_path / "run").symlink_to(tmp_path / "real")

    with pytest.raises(ConfigurationError, match="is no directory"):
        open_listeners(tmp_path / "run")


def test_a_path_too_long_for_a_socket_is_refused_with_a_cure(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        open_listeners(tmp_path / ("x" * 100))

    assert "shorter" in refused.value.cure


def test_closing_leaves_the_sockets_of_a_successor(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    first = open_listeners(directory)
    first.privileged.close()
    first.user.close()
    second = open_listeners(directory)

    first.close()

    connect(directory / "priv.sock").close()
    second.close()


# systemd


def test_sockets_for_another_process_are_none_of_ours() -> None:
    assert inherited_listeners({"LISTEN_PID": "1", "LISTEN_FDS": "2"}, 2) is None
    assert inherited_listeners({}, 2) is None


SCRIPT = """
import os, sys
from pam_mfa.listeners import inherited_listeners
from mfa_core.errors import ConfigurationError
try:
    found = inherited_listeners({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": sys.argv[1]}, os.getpid())
    names = [os.path.basename(one.getsockname()) for one in (found.privileged, found.user)]
    print(*names, found.user.gettimeout(), os.get_inheritable(3), dict(found.inodes))
except ConfigurationError as error:
    print("refused", error)
"""
WRAPPER = """
import os, sys
for number, descriptor in enumerate([os.dup(int(one)) for one in sys.argv[2:]], 3):
    os.dup2(descriptor, number)
    os.set_inheritable(number, True)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], str(len(sys.argv) - 2)])
"""


def inherit(directory: Path, *kinds_and_names: tuple[int, str]) -> str:
    """What a process says that gets listening sockets as descriptors 3, 4, ..., as from systemd."""
    with contextlib.ExitStack() as stack:
        made = []
        for kind, name in kinds_and_names:
            one = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            one.bind(os.fspath(directory / name))
            one.listen()
            made.append(one.fileno())
        done = subprocess.run(
            [sys.executable, "-c", WRAPPER, SCRIPT, *map(str, made)],
            pass_fds=made,
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).resolve().parents[2],
            timeout=60,
        )
    return done.stdout.strip()


def test_sockets_of_systemd_are_told_apart_by_their_names(tmp_path: Path) -> None:
    said = inherit(tmp_path, (socket.SOCK_SEQPACKET, "user.sock"), (socket.SOCK_SEQPACKET, "priv.sock"))

    assert said == "priv.sock user.sock 0.0 False {}"


def test_a_stream_socket_of_systemd_is_refused(tmp_path: Path) -> None:
    """``ListenStream=`` instead of ``ListenSequentialPacket=``."""
    said = inherit(tmp_path, (socket.SOCK_STREAM, "user.sock"), (socket.SOCK_SEQPACKET, "priv.sock"))

    assert said.startswith("refused")


def test_one_socket_of_systemd_is_not_enough(tmp_path: Path) -> None:
    assert "priv.sock alone" in inherit(tmp_path, (socket.SOCK_SEQPACKET, "priv.sock"))
