"""Whom does the module believe to be mfad? Before it sends a byte, path, owner, mode and peer have to be right."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.pam_mfa import fake_mfad as wire
from tests.pam_mfa.fake_mfad import FakeMfad, ops, prompt, result
from tests.pam_mfa.module.driver import NOBODY, Driven, drive
from tests.pam_mfa.pam_harness import PamCode, auth_line, run_pam, socket_directory

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 and "CI" not in os.environ, reason="only root can give files and sockets to another uid"
)

ACCEPTS = [ops(prompt()), ops(result(0))]


def refused_as_untrusted(directory: Path, *words: str, lines: list[str] | None = None) -> Driven:
    """A login that must end in SERVICE_ERR with one line at LOG_CRIT, before anything is asked."""
    driven = drive(lines or [auth_line(*words, socket_dir=directory)], "alice", ["123456"])
    assert driven.auth == [PamCode.SERVICE_ERR]
    assert driven.shown == []
    assert [level for level, _ in driven.logs] == [2], driven.logs
    return driven


def test_sockets_of_the_own_uid_or_root_are_trusted(directory: Path) -> None:
    """The control: the same set-up, untouched, works in the C program too, and logs nothing."""
    with FakeMfad(directory, ACCEPTS):
        driven = drive([auth_line(socket_dir=directory)], "alice", ["123456"])

    assert (driven.auth, driven.logs) == ([PamCode.SUCCESS], [])


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777, 0o720, 0o702])
def test_directory_that_others_may_write_is_refused(directory: Path, mode: int) -> None:
    """Who can write there can put a socket of his own in place; the sticky bit does not help."""
    with FakeMfad(directory, ACCEPTS) as mfad:
        directory.chmod(mode)
        driven = refused_as_untrusted(directory)

    assert "writable by others" in driven.logs[0][1]
    assert mfad.begins == []


@needs_root
def test_directory_of_another_uid_is_refused(directory: Path) -> None:
    """Unless it is server_uid's, and then all three must be root's or that uid's."""
    with FakeMfad(directory, ACCEPTS) as mfad:
        os.chown(directory, NOBODY, NOBODY)
        refused_as_untrusted(directory)
        refused_as_untrusted(directory, f"server_uid={NOBODY + 1}")
        assert mfad.begins == []
        trusting = drive([auth_line(f"server_uid={NOBODY}", socket_dir=directory)], "alice", ["123456"])

    assert trusting.auth == [PamCode.SUCCESS]


@needs_root
def test_socket_file_of_another_uid_is_refused(directory: Path) -> None:
    """A socket that root did not make, in a directory of root."""
    with FakeMfad(directory, ACCEPTS) as mfad:
        os.chown(directory / "priv.sock", NOBODY, NOBODY)
        refused_as_untrusted(directory)

    assert mfad.begins == []


@needs_root
def test_socket_served_by_another_uid_is_refused(directory: Path) -> None:
    """Path and file are root's, but SO_PEERCRED names another: not a byte is sent; server_uid makes it good."""
    with FakeMfad(directory, ACCEPTS, serve_uid=NOBODY) as mfad:
        driven = refused_as_untrusted(directory)
        refused_as_untrusted(directory, f"server_uid={NOBODY + 1}")
        assert mfad.begins == []
        trusting = drive([auth_line(f"server_uid={NOBODY}", socket_dir=directory)], "alice", ["123456"])

    assert "served" in driven.logs[0][1]
    assert trusting.auth == [PamCode.SUCCESS]


def test_symbolic_link_to_the_directory_is_refused(directory: Path) -> None:
    """Also when it leads to a good one."""
    with FakeMfad(directory, ACCEPTS), socket_directory() as other:
        (other / "link").symlink_to(directory)
        refused_as_untrusted(other / "link")


@pytest.mark.parametrize("tail", ["/", "//"])
def test_slash_behind_the_directory_is_a_bad_option(directory: Path, tail: str) -> None:
    """lstat() of "link/" would look through the link."""
    with FakeMfad(directory, ACCEPTS), socket_directory() as other:
        (other / "link").symlink_to(directory)
        driven = drive([auth_line(f"socket_dir={other}/link{tail}")], "alice", ["123456"])

    assert driven.auth == [PamCode.SERVICE_ERR]
    assert [level for level, _ in driven.logs] == [3]


def test_symbolic_link_to_the_socket_is_refused(directory: Path) -> None:
    """Also when it leads to a good one."""
    name = "priv.sock" if os.geteuid() == 0 else "user.sock"
    with FakeMfad(directory, ACCEPTS), socket_directory() as other:
        (other / name).symlink_to(directory / name)
        refused_as_untrusted(other)


@pytest.mark.parametrize("kind", ["file", "fifo", "directory"])
def test_something_else_in_the_place_of_the_socket_is_refused(directory: Path, kind: str) -> None:
    """It is not opened, read or waited for."""
    for name in ("priv.sock", "user.sock"):
        if kind == "file":
            (directory / name).touch()
        elif kind == "fifo":
            os.mkfifo(directory / name)
        else:
            (directory / name).mkdir()

    refused_as_untrusted(directory)


def test_file_in_the_place_of_the_directory_is_refused(directory: Path) -> None:
    """socket_dir= names a directory."""
    (directory / "file").touch()

    refused_as_untrusted(directory / "file")


def test_path_that_is_too_long_for_a_socket_is_refused(directory: Path) -> None:
    """It is not cut to another path."""
    refused_as_untrusted(directory / ("d" * 100))


def unavailable_at_once(directory: Path) -> None:
    seen = run_pam([auth_line(socket_dir=directory)], "alice")
    assert seen.code == PamCode.AUTHINFO_UNAVAIL
    assert seen.elapsed_s < 0.1
    driven = drive([auth_line(socket_dir=directory)], "alice")
    assert [level for level, _ in driven.logs] == [3]


def test_absent_directory_is_unavailable(directory: Path) -> None:
    """mfad is not installed or not started."""
    unavailable_at_once(directory / "absent")


def test_absent_socket_is_unavailable(directory: Path) -> None:
    """mfad is not running."""
    unavailable_at_once(directory)


@pytest.fixture
def stale(directory: Path) -> Path:
    """A socket file whose server is gone."""
    for name in ("priv.sock", "user.sock"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as gone:
            gone.bind(str(directory / name))
            gone.listen()
    return directory


def test_stale_socket_is_unavailable(stale: Path) -> None:
    """mfad was killed."""
    unavailable_at_once(stale)


def test_stream_socket_is_unavailable(directory: Path) -> None:
    """Another kind of server at that path: the connection is refused by the kernel."""
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        for listener, name in ((first, "priv.sock"), (second, "user.sock")):
            listener.bind(str(directory / name))
            listener.listen()
        unavailable_at_once(directory)


@needs_root
def test_caller_without_root_uses_the_socket_for_everybody(directory: Path) -> None:
    """A screen locker connects to user.sock; priv.sock is not even tried, though it is there."""
    with FakeMfad(directory, ACCEPTS) as mfad:
        driven = drive([auth_line(socket_dir=directory)], "nobody", ["123456"], uid=NOBODY)

    assert driven.auth == [PamCode.SUCCESS], driven
    assert (mfad.begins[0].number(wire.UID), mfad.begins[0].number(wire.EUID)) == (NOBODY, NOBODY)


@needs_root
def test_caller_without_root_trusts_no_socket_of_its_own_uid(directory: Path) -> None:
    """A user who points a setuid-less program at his own directory is not root, and not believed."""
    with FakeMfad(directory, ACCEPTS, serve_uid=NOBODY):
        driven = drive([auth_line(socket_dir=directory)], "nobody", ["123456"], uid=NOBODY)

    assert driven.auth == [PamCode.SERVICE_ERR]
