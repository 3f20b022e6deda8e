"""Copies of the events go where they are wanted, and a copy that cannot be made refuses nobody."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from mfa_core.verdict import Accepted
from mfa_runtime.audit_sinks import JsonLines, Syslog, join, no_sink, write_stderr
from tests.doubles import ALICE, T0, Installation, RecordingSink, attempt

LINES = ['{"id":"e1"}', '{"id":"e2"}']


def test_lines_are_appended(tmp_path: Path) -> None:
    """To what is there; a new file is for its owner alone."""
    path = tmp_path / "audit.json"
    sink = JsonLines(path)

    sink(LINES)
    sink(LINES[:1])
    sink.close()

    assert path.read_text().splitlines() == [*LINES, LINES[0]]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
def test_a_file_that_was_rotated_away_is_opened_anew(tmp_path: Path, how: str) -> None:
    """logrotate needs no signal."""
    path = tmp_path / "audit.json"
    sink = JsonLines(path)
    sink(LINES[:1])
    if how == "moved":
        path.rename(tmp_path / "audit.json.1")
    else:
        path.unlink()
    if how == "replaced":
        (tmp_path / "new").write_text("")
        (tmp_path / "new").rename(path)

    sink(LINES[1:])
    sink.close()

    assert path.read_text().splitlines() == LINES[1:]


def test_a_link_is_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody sends the log of a root process into a file of his choice."""
    (tmp_path / "audit.json").symlink_to(tmp_path / "elsewhere")

    JsonLines(tmp_path / "audit.json")(LINES)

    assert not (tmp_path / "elsewhere").exists()
    assert "cannot be appended" in caplog.text


def test_a_file_that_cannot_be_written_is_told_once_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The events are in the store; the log is not filled with complaints."""
    path = tmp_path / "logs" / "audit.json"
    sink = JsonLines(path)
    for _ in range(5):
        sink(LINES)
    assert len(caplog.records) == 1

    path.parent.mkdir()
    sink(LINES[1:])
    sink.close()
    assert path.read_text().splitlines() == LINES[1:]


def test_a_queue_that_nobody_reads_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without a reader it cannot be opened, with an idle one it is full at some time: neither is waited for."""
    path = tmp_path / "audit.json"
    os.mkfifo(path)
    sink = JsonLines(path)
    for idle in (False, True):
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if idle else -1
        many = threading.Thread(target=lambda: [sink(LINES) for _ in range(10_000)], daemon=True)

        many.start()
        many.join(10)

        assert not many.is_alive()
        if idle:
            os.close(reader)
    assert 1 <= len(caplog.records) <= 2
    sink.close()


def test_a_full_disk_is_survived(caplog: pytest.LogCaptureFixture) -> None:
    """core-5-58: the copy is lost, said once, and nobody is refused for it."""
    sink = JsonLines(Path("/dev/full"))

    sink(LINES)
    sink(LINES)

    assert len(caplog.records) == 1


def test_a_closed_stderr_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon whose terminal went away goes on."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    closed = io.StringIO()
    closed.close()
    for stream in (Gone(), closed):
        with monkeypatch.context() as here:
            here.setattr(sys, "stderr", stream)
            write_stderr(LINES)


def test_stderr_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """One each."""
    write_stderr(LINES)

    assert capsys.readouterr().err.splitlines() == LINES


def test_syslog_gets_one_message_for_each_event(tmp_path: Path) -> None:
    """With facility authpriv and our name."""
    address = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(5)
        sink = Syslog(address)

        sink(LINES)

        received = [receiver.recv(1_000).rstrip(b"\0").decode() for _ in LINES]
        assert received == [f"<{10 * 8 + 6}>mfad: {line}" for line in LINES]
        sink.close()


def test_an_absent_syslog_is_survived(tmp_path: Path, installed: Installation, caplog: pytest.LogCaptureFixture) -> None:
    """The login goes on; the event is in the store; the log says it once."""
    sink = Syslog(str(tmp_path / "none"))
    installed.sink = sink  # type: ignore[assignment]

    found = installed.in_order(attempt("alice", ALICE.code(T0)), attempt("alice", ""), attempt("alice", ""))
    sink.close()

    assert isinstance(found[0], Accepted)
    assert [record.levelname for record in caplog.records if "syslog" in record.message] == ["ERROR"]


def test_a_syslog_that_reads_no_more_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its queue is full for good: the thread that commits must not wait for it, and hears of it once."""
    address = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        sink = Syslog(address)
        many = threading.Thread(target=lambda: [sink(LINES) for _ in range(2_000)], daemon=True)

        many.start()
        many.join(10)

        assert not many.is_alive()
        assert len(caplog.records) == 1
        receiver.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                receiver.recv(1_000)
        sink(LINES[:1])
        assert receiver.recv(1_000).endswith(LINES[0].encode())
        sink.close()


def test_sinks_are_joined() -> None:
    """Each gets everything; none is as good as none."""
    first, second = RecordingSink(), RecordingSink()

    join([first, second])(LINES)

    assert first.lines == second.lines == LINES
    assert join([]) is no_sink
    assert join([first]) is first
