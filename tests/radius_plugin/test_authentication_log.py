"""The log of RADIUS logins: whole lines, none lost without a word, nobody held up."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.secret import Secret
from radius_plugin import authentication_log
from radius_plugin.accounting import accounting_line
from radius_plugin.authentication_log import AuthenticationLog
from radius_plugin.authenticators import SharedSecret
from radius_plugin.wire import Code, Type, attribute, integer_attribute, parse

NOON = 1_800_000_000.25


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_are_written_in_order_with_their_time(tmp_path: Path) -> None:
    """All of them, at the latest when mfad stops; the file is not everybody's."""
    path = tmp_path / "log"
    log = AuthenticationLog(path, clock=lambda: NOON)
    for number in range(100):
        log.write(kind="authentication", number=number)
    log.close()

    assert [line["number"] for line in lines(path)] == list(range(100))
    assert {line["time"] for line in lines(path)} == {"2027-01-15T08:00:00.250+00:00"}
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


@pytest.mark.parametrize("name", ["a\nb", "a\u2028b", '"}', "\\xff", "\x1b[2J", "ü"])
def test_a_line_stays_one_line_whatever_a_client_sent(tmp_path: Path, name: str) -> None:
    """For every reader: the file is ASCII."""
    path = tmp_path / "log"
    log = AuthenticationLog(path, clock=lambda: NOON)
    log.write(user=name)
    log.close()

    assert path.read_bytes().isascii()
    assert path.read_bytes().count(b"\n") == 1
    assert lines(path)[0]["user"] == name


def test_what_did_not_fit_is_counted_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hangs holds nobody up: here a pipe that nobody reads yet."""
    monkeypatch.setattr(authentication_log, "MAX_WAITING", 3)
    monkeypatch.setattr(authentication_log, "WRITE_EVERY_S", 0.01)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    log = AuthenticationLog(path, clock=lambda: NOON)
    for number in range(10):
        log.write(number=number)

    with path.open() as pipe:
        found = [json.loads(pipe.readline())]
        while "lines_left_out_before" not in found[-1]:
            log.write(number=100)
            line = pipe.readline()  # empty between two writes: each opens the file anew
            found += [json.loads(line)] if line else []
        kept = [one["number"] for one in found if one["number"] < 100]
        log.close()

    assert kept == list(range(len(kept)))
    assert len(kept) < 10
    assert found[-1]["lines_left_out_before"] >= 10 - len(kept)


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With how much is lost; logins go on."""
    log = AuthenticationLog(tmp_path / "absent" / "log", clock=lambda: NOON)
    log.write(number=1)
    log.close()

    assert "cannot be written" in caplog.text
    assert "1 lines are lost" in caplog.text


SECRET = SharedSecret(Secret(b"a secret of the test"))


@given(st.lists(st.tuples(st.integers(1, 255), st.binary(max_size=60)), max_size=12))
def test_any_accounting_becomes_a_line(attributes: list[tuple[int, bytes]]) -> None:
    """Whatever a client puts into it."""
    body = b"".join(attribute(kind, value) for kind, value in attributes if kind != Type.MESSAGE_AUTHENTICATOR)
    line = accounting_line(parse(SECRET.request(Code.ACCOUNTING_REQUEST, 1, body, sign=False)), "vpn")

    assert json.loads(json.dumps(line)) == line
    assert {"kind", "client", "status", "user", "session", "source"} <= set(line)


def test_numbers_of_a_session_are_numbers() -> None:
    """As the page says."""
    body = (
        integer_attribute(Type.ACCT_STATUS_TYPE, 2)
        + attribute(Type.USER_NAME, b"alice\xff")
        + attribute(Type.ACCT_SESSION_ID, b"5F3A")
        + integer_attribute(Type.ACCT_SESSION_TIME, 90)
        + integer_attribute(Type.ACCT_INPUT_OCTETS, 1234)
        + attribute(Type.ACCT_OUTPUT_OCTETS, b"12")
    )
    line = accounting_line(parse(SECRET.request(Code.ACCOUNTING_REQUEST, 1, body, sign=False)), "vpn")

    assert line == {
        "kind": "accounting", "client": "vpn", "status": "stop", "user": "alice\\xff", "session": "5F3A", "source": "",
        "session_seconds": 90, "input_octets": 1234,
    }  # fmt: skip
