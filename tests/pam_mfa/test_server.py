"""The PAM door over real sockets, with a scripted gate."""

from __future__ import annotations

from pathlib import Path

from pam_mfa.wire import Ask, Error, Log, Result
from tests.pam_mfa.doubles import CODE, Module, answer, begin, result, running_door


def test_a_right_code_is_success(tmp_path: Path) -> None:
    """BEGIN, prompt, code, PAM_SUCCESS."""
    with running_door(tmp_path / "run") as door, Module(tmp_path / "run") as module:
        assert module.exchange(begin()) == (Ask("Verification code: "),)

        assert module.exchange(answer(CODE)) == (Result(0),)

        assert module.hung_up()
        assert door.gate.attempts[1].challenge_id == "c1"


def test_a_wrong_code_is_auth_err(tmp_path: Path) -> None:
    with running_door(tmp_path / "run"), Module(tmp_path / "run") as module:
        module.exchange(begin())

        ops = module.exchange(answer(b"000000"))

        assert [type(op) for op in ops] == [Error, Log, Result]
        assert result(ops) == 7
