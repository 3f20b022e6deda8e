"""One line for each bind: JSON, whole, in order, without holding anybody up."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldap_proxy import bind_log
from ldap_proxy.bind_log import MAX_LINE, BindLog
from ldap_proxy.results import Outcome
from tests.doubles import FakeClock

Opener = Callable[[Path], BindLog]


@pytest.fixture
def opens() -> Iterator[Opener]:
    made: list[BindLog] = []

    def opened(path: Path) -> BindLog:
        made.append(BindLog(path, clock=FakeClock(1_700_000_000.25)))
        made[-1].start()
        return made[-1]

    yield opened
    for one in made:
        one.close()


def add(log: BindLog, number: int = 0, *, dn: str = "", user: str = "", outcome: str = "rejected") -> None:
    """A line; its code is ``number``."""
    log.write(
        event="E", listener="ldap://127.0.0.1:389", application="ldap", source="192.0.2.1", dn=dn, user=user, way="factor",
        outcome=outcome, reason="mismatch", code=number, server="ldap://127.0.0.1:390", directory_s=0.0005, took_s=0.25,
    )  # fmt: skip


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_are_json_with_a_time_in_utc_and_all_is_written_at_the_end(opens: Opener, tmp_path: Path) -> None:
    one = opens(tmp_path / "log")
    for number in range(1000):
        add(one, number, user="alice")
    one.close()
    found = lines(tmp_path / "log")
    assert [line["code"] for line in found] == list(range(1000))
    assert found[0] == {
        "time": "2023-11-14T22:13:20.250+00:00", "kind": "bind", "event": "E", "listener": "ldap://127.0.0.1:389",
        "application": "ldap", "source": "192.0.2.1", "dn": "", "user": "alice", "way": "factor", "outcome": "rejected",
        "reason": "mismatch", "code": 0, "server": "ldap://127.0.0.1:390", "directory_ms": 0.5, "milliseconds": 250.0,
    }  # fmt: skip


def test_nobody_else_can_read_it(opens: Opener, tmp_path: Path) -> None:
    one = opens(tmp_path / "log")
    add(one, 1)
    one.close()
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_the_time_goes_on(tmp_path: Path) -> None:
    clock = FakeClock(1_700_000_000.999)
    one = BindLog(tmp_path / "log", clock=clock)
    one.start()
    add(one, 1)
    clock.advance(seconds=0.002)
    add(one, 2)
    one.close()
    assert [line["time"] for line in lines(tmp_path / "log")] == [
        "2023-11-14T22:13:20.999+00:00",
        "2023-11-14T22:13:21.001+00:00",
    ]


@pytest.mark.parametrize("name", ["a\nb", "a\r\x0b\x0c\x85b", "\u2028", '"},{"kind":"x', "\x00\x1b[2J", "\udcff", "ü"])
def test_whatever_a_name_holds_the_line_is_one_line(opens: Opener, tmp_path: Path, name: str) -> None:
    one = opens(tmp_path / "log")
    add(one, dn=name)
    one.close()
    octets = (tmp_path / "log").read_bytes()
    assert octets.isascii()
    assert octets.count(b"\n") == 1
    assert b"\x1b" not in octets
    assert lines(tmp_path / "log")[0]["dn"] == name


@pytest.mark.parametrize("name", ["x", "\x00", "\U0001f600"])
def test_a_name_that_nobody_has_is_cut(opens: Opener, tmp_path: Path, name: str) -> None:
    """A client may send a quarter of a megabyte as a DN."""
    one = opens(tmp_path / "log")
    add(one, 49, dn=name * 250_000, user=name * 10_000)
    one.close()
    [line] = lines(tmp_path / "log")
    assert len((tmp_path / "log").read_bytes()) <= MAX_LINE
    assert line["dn"] == line["user"] == name * 100 + "..."
    assert line["code"] == 49


def test_a_file_that_was_moved_away_is_made_anew(opens: Opener, tmp_path: Path) -> None:
    path = tmp_path / "log"
    one = opens(path)
    add(one, 1)
    one._flush()
    path.rename(tmp_path / "log.1")
    add(one, 2)
    one._flush()
    assert [line["code"] for line in lines(tmp_path / "log.1")] == [1]
    assert [line["code"] for line in lines(path)] == [2]


def test_a_reload_may_name_another_file_or_none(opens: Opener, tmp_path: Path) -> None:
    """What was added before goes where it was to go."""
    one = opens(tmp_path / "log")
    for number, name in enumerate(("log", "other", None, "log")):
        one.use(tmp_path / name if name else None)
        add(one, number)
    one.close()
    assert [line["code"] for line in lines(tmp_path / "log")] == [0, 3]
    assert [line["code"] for line in lines(tmp_path / "other")] == [1]


def test_one_that_was_never_started_can_be_closed(tmp_path: Path) -> None:
    """A door that could not be opened."""
    BindLog(tmp_path / "log", clock=FakeClock(0.0)).close()


def test_what_cannot_be_written_is_said_without_its_content(
    opens: Opener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = opens(tmp_path / "missing" / "log")
    add(one, user="alice")
    one.close()
    assert "cannot be written" in caplog.text
    assert "up to 1 lines are lost" in caplog.text
    assert "alice" not in caplog.text


def test_what_does_not_fit_is_counted_and_said(opens: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bind_log, "MAX_WAITING_OCTETS", 900)
    monkeypatch.setattr(bind_log, "WRITE_EVERY_S", 3600.0)
    one = opens(tmp_path / "log")
    for number in range(10):
        add(one, number)
    one._flush()
    add(one, 10)
    one._flush()
    found = lines(tmp_path / "log")
    written = [line["code"] for line in found]
    assert written[:-1] == list(range(len(found) - 1))
    assert written[-1] == 10
    assert found[-1]["lines_left_out_before"] == 10 - (len(found) - 1) > 0
    add(one, 11)
    one.close()
    assert "lines_left_out_before" not in lines(tmp_path / "log")[-1]


def test_those_who_are_not_let_in_have_so_many_lines_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is let in has his always; what is left out is counted. A clock that is set back changes nothing."""
    monkeypatch.setattr(bind_log, "OTHERS_AT_ONCE", 5.0)
    monkeypatch.setattr(bind_log, "OTHERS_PER_S", 2.0)
    clock = FakeClock(1_700_000_000.0)
    one = BindLog(tmp_path / "log", clock=clock)
    one.start()
    for number in range(100):
        add(one, number, outcome=Outcome.UNAVAILABLE if number % 2 else Outcome.REJECTED)
    add(one, 100, outcome=Outcome.ACCEPTED)
    add(one, 101, outcome=Outcome.ANONYMOUS)
    add(one, 102, outcome=Outcome.EXEMPT)
    clock.advance(seconds=1.0)
    for number in range(200, 210):
        add(one, number)
    clock.advance(seconds=-3600.0)
    add(one, 300)
    clock.advance(seconds=0.5)
    add(one, 301)
    clock.advance(seconds=1000.0)
    for number in range(400, 410):
        add(one, number)
    one.close()

    assert [(line["code"], line.get("lines_left_out_before", 0)) for line in lines(tmp_path / "log")] == [
        (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (100, 95), (102, 1), (200, 0), (201, 0), (301, 9),
        (400, 0), (401, 0), (402, 0), (403, 0), (404, 0),
    ]  # fmt: skip


def test_those_who_are_let_in_are_always_written(opens: Opener, tmp_path: Path) -> None:
    """Service accounts may bind thousands of times a second."""
    one = opens(tmp_path / "log")
    for number in range(5000):
        add(one, number, outcome=Outcome.EXEMPT if number % 2 else Outcome.ACCEPTED)
    one.close()

    assert [line["code"] for line in lines(tmp_path / "log")] == list(range(5000))


def test_to_standard_error(opens: Opener, capfd: pytest.CaptureFixture[str]) -> None:
    one = opens(Path("-"))
    add(one, 1)
    one.close()
    assert json.loads(capfd.readouterr().err)["code"] == 1


def test_a_standard_error_that_nobody_reads_holds_nobody_up(
    opens: Opener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a bind nor a stop."""
    monkeypatch.setattr(bind_log, "STUCK_S", 0.01)
    reading, writing = os.pipe()
    monkeypatch.setattr(bind_log, "_STDERR", writing)
    try:
        one = opens(Path("-"))
        for number in range(1000):
            add(one, number, dn="x" * 200)
        one.close()
        assert "nobody has read it" in caplog.text
        written = os.read(reading, 1 << 20)
        # Nothing but whole lines came before.
        assert written.endswith(b"\n")
        assert [json.loads(line)["code"] for line in written.splitlines()] == list(range(written.count(b"\n")))
    finally:
        os.close(reading)
        os.close(writing)


@given(st.lists(st.integers(1, MAX_LINE), max_size=50))
def test_parts_are_whole_lines_that_a_pipe_takes_at_once(lengths: list[int]) -> None:
    whole = [b"x" * (length - 1) + b"\n" for length in lengths]
    parts = list(bind_log._parts(whole))
    assert b"".join(parts) == b"".join(whole)
    assert all(0 < len(part) <= MAX_LINE and part.endswith(b"\n") for part in parts)
