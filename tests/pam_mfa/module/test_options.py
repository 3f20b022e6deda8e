"""Which words of the PAM line are refused, and what is left to mfad?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.pam_mfa import fake_mfad as wire
from tests.pam_mfa.fake_mfad import FakeMfad, ops, result
from tests.pam_mfa.module.driver import drive
from tests.pam_mfa.pam_harness import PamCode, Phase, account_line, auth_line, run_pam

BAD_NUMBERS = ["", " 5", "5 ", "+5", "-5", "5s", "0x10", "1e2", "5.0", "five", "99999999999", "18446744073709551621"]
BAD = [
    *[f"timeout={number}" for number in (*BAD_NUMBERS, "0", "4", "601", "4294967301")],
    *[f"server_uid={number}" for number in (*BAD_NUMBERS, "4294967295", "4294967296")],
    *[f"socket_dir={path}" for path in ("", "run/mfad", "./run", "/", "/run/mfad/")],
]


@pytest.mark.parametrize("word", BAD)
@pytest.mark.parametrize("phase", [Phase.AUTHENTICATE, Phase.ACCOUNT])
def test_bad_value_is_refused_in_both_phases(directory: Path, word: str, phase: Phase) -> None:
    """SERVICE_ERR, mfad is not asked, and no default stands in."""
    lines = [auth_line(word, socket_dir=directory), account_line(word, socket_dir=directory)]
    with FakeMfad(directory, [ops(result(0))]) as mfad:
        assert run_pam(lines, "alice", phase=phase).code == PamCode.SERVICE_ERR

    assert mfad.begins == []


def test_bad_values_are_counted_and_logged_each() -> None:
    """An administrator sees all of them at once."""
    driven = drive([auth_line("timeout=4", "socket_dir=run", "server_uid=-1", "use_first_pass")], "alice")

    assert driven.auth == [PamCode.SERVICE_ERR]
    assert [(level, text.rpartition("bad option ")[2]) for level, text in driven.logs] == [
        (3, "1: timeout=4"),
        (3, "2: socket_dir=run"),
        (3, "3: server_uid=-1"),
    ]


@pytest.mark.parametrize("word", ["timeout=5", "timeout=600", "timeout=0100", "server_uid=0", "server_uid=4294967294"])
def test_limits_of_good_values(directory: Path, word: str) -> None:
    """The ends of the ranges belong to them."""
    with FakeMfad(directory, [ops(result(0))]):
        trusting = f"server_uid={os.geteuid()}"  # the last one counts, so that the fake mfad is trusted without root, too
        assert run_pam([auth_line(word, trusting, socket_dir=directory)], "alice").code == PamCode.SUCCESS


@pytest.mark.parametrize("word", ["mode=combined", "debug", "timeout", "timeouts=1", "require_mfa=no", "USE_FIRST_PASS", "%s"])
def test_unknown_word_is_left_to_mfad(directory: Path, word: str) -> None:
    """New options need no new module: mfad knows them, or refuses."""
    with FakeMfad(directory, [ops(result(0))]) as mfad:
        assert run_pam([auth_line(word, socket_dir=directory)], "alice").code == PamCode.SUCCESS

    assert mfad.begins[0].all(wire.OPTION)[1] == word.encode()


def test_last_of_a_repeated_word_counts(directory: Path) -> None:
    """As everywhere in PAM lines; but a bad one is refused, wherever it stands."""
    lines = [auth_line("socket_dir=/nowhere", "timeout=5", "timeout=600", f"socket_dir={directory}")]
    with FakeMfad(directory, [ops(result(0))]):
        assert run_pam(lines, "alice").code == PamCode.SUCCESS
        assert run_pam([auth_line("timeout=1", "timeout=9", socket_dir=directory)], "alice").code == PamCode.SERVICE_ERR
