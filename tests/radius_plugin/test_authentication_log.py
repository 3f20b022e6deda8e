"""The lines for people and collectors: one JSON object each, written by a thread that holds nobody up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from radius_plugin import authentication_log
from radius_plugin.authentication_log import AuthenticationLog
from tests.doubles import FakeClock

Opener = Callable[..., AuthenticationLog]


@pytest.fixture
def opens() -> Iterator[Opener]:
    made: list[AuthenticationLog] = []

    def opened(path: Path) -> AuthenticationLog:
        made.append(AuthenticationLog(path, clock=FakeClock(1_700_000_000.25)))
        return made[-1]

    yield opened
    for one in made:
        one.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_are_json_with_a_time_in_utc_and_all_is_written_at_the_end(opens: Opener, tmp_path: Path) -> None:
    one = opens(tmp_path / "log")
    for number in range(1000):
        one.write(kind="authentication", user="alice", number=number)
    one.close()
    found = lines(tmp_path / "log")
    assert [line["number"] for line in found] == list(range(1000))
    assert found[0] == {"time": "2023-11-14T22:13:20.250+00:00", "kind": "authentication", "user": "alice", "number": 0}
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("user", ["a\nb", "a\r\x0b\x0c\x85b", "\u2028", '"},{"kind":"x', "\x00\x1b[2J", "\udcff", "ü"])
def test_whatever_a_name_holds_the_line_is_one_line(opens: Opener, tmp_path: Path, user: str) -> None:
    one = opens(tmp_path / "log")
    one.write(user=user)
    one.close()
    octets = (tmp_path / "log").read_bytes()
    assert octets.isascii()
    assert octets.count(b"\n") == 1
    assert b"\x1b" not in octets
    assert lines(tmp_path / "log")[0]["user"] == user


def test_a_file_that_was_moved_away_is_made_anew(opens: Opener, tmp_path: Path) -> None:
    path = tmp_path / "log"
    one = opens(path)
    one.write(number=1)
    one._flush()
    path.rename(tmp_path / "log.1")
    one.write(number=2)
    one._flush()
    assert [line["number"] for line in lines(tmp_path / "log.1")] == [1]
    assert [line["number"] for line in lines(path)] == [2]


def test_what_cannot_be_written_is_said_without_its_content(
    opens: Opener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = opens(tmp_path / "missing" / "log")
    one.write(user="alice")
    one.close()
    assert "cannot be written" in caplog.text
    assert "1 lines are lost" in caplog.text
    assert "alice" not in caplog.text


def test_what_does_not_fit_is_counted_and_said(opens: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication_log, "MAX_WAITING", 3)
    monkeypatch.setattr(authentication_log, "WRITE_EVERY_S", 3600.0)
    one = opens(tmp_path / "log")
    for number in range(10):
        one.write(number=number)
    one._flush()
    one.write(number=10)
    one._flush()
    found = lines(tmp_path / "log")
    assert [line["number"] for line in found] == [0, 1, 2, 10]
    assert found[-1]["lines_left_out_before"] == 7
    one.write(number=11)
    one.close()
    assert "lines_left_out_before" not in lines(tmp_path / "log")[-1]


def test_to_standard_error(opens: Opener, capfd: pytest.CaptureFixture[str]) -> None:
    one = opens(Path("-"))
    one.write(number=1)
    one.close()
    assert json.loads(capfd.readouterr().err)["number"] == 1
