"""Does a login without a second factor get past the account phase?"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pam_mfa import fake_mfad as wire
from tests.pam_mfa.fake_mfad import FakeMfad, Peer, ops, prompt, result
from tests.pam_mfa.pam_harness import Fails, PamCode, PamTransaction, Phase, account_line, auth_line, run_pam


def stack(directory: Path, *words: str) -> list[str]:
    """Both phases, the account line with words; pam_permit lets IGNORE of the auth phase through."""
    return [
        auth_line(socket_dir=directory),
        "auth optional pam_permit.so",
        account_line(*words, socket_dir=directory),
        "account optional pam_permit.so",
    ]


@pytest.mark.parametrize("code", [PamCode.SUCCESS, PamCode.IGNORE])
def test_verified_or_exempt_login_is_not_asked_again(directory: Path, code: PamCode) -> None:
    """The mark that the auth phase left on the handle is enough, with require_mfa and without a daemon."""
    with PamTransaction(stack(directory, "require_mfa"), "alice") as pam:
        with FakeMfad(directory, [ops(result(code))]) as mfad:
            assert pam.authenticate().code == PamCode.SUCCESS
        assert pam.acct_mgmt().code == PamCode.SUCCESS

    assert len(mfad.begins) == 1


def test_without_require_mfa_the_phase_has_no_opinion(directory: Path) -> None:
    """IGNORE: alone in its stack libpam makes PERM_DENIED of it, and mfad is not asked."""
    with FakeMfad(directory, [ops(result(0))]) as mfad:
        beside = run_pam(stack(directory), "alice", phase=Phase.ACCOUNT)
        alone = run_pam([account_line(socket_dir=directory)], "alice", phase=Phase.ACCOUNT)

    assert (beside.code, alone.code) == (PamCode.SUCCESS, PamCode.PERM_DENIED)
    assert mfad.begins == []


@pytest.mark.parametrize("code", [0, 3, 6, 9, 10, 13])
def test_require_mfa_asks_mfad_about_a_login_without_a_mark(directory: Path, code: int) -> None:
    """publickey alone: PHASE 2, and the answer is mfad's."""
    with FakeMfad(directory, [ops(result(code))]) as mfad:
        seen = run_pam([account_line("require_mfa", socket_dir=directory)], "alice", phase=Phase.ACCOUNT)

    assert seen.code == code
    assert mfad.begins[0].number(wire.PHASE) == 2
    assert b"require_mfa" in mfad.begins[0].all(wire.OPTION)


def test_denial_is_shown_with_its_reason(directory: Path) -> None:
    """sshd shows texts of the account phase as a banner."""
    with FakeMfad(directory, [ops(wire.error("A second factor is required."), result(6))]):
        seen = run_pam([account_line("require_mfa", socket_dir=directory)], "alice", phase=Phase.ACCOUNT)

    assert (seen.code, seen.errors) == (PamCode.PERM_DENIED, ["A second factor is required."])


@pytest.mark.parametrize("code", [7, 8, 11, 1, 99])
def test_result_of_the_auth_phase_is_refused_in_account(directory: Path, code: int) -> None:
    """AUTH_ERR, CRED_INSUFFICIENT and MAXTRIES are not for this phase."""
    with FakeMfad(directory, [ops(result(code))]):
        seen = run_pam([account_line("require_mfa", socket_dir=directory)], "alice", phase=Phase.ACCOUNT)

    assert seen.code == PamCode.SERVICE_ERR


def test_success_in_account_leaves_no_mark(directory: Path) -> None:
    """That a service is allowed without a second factor is asked each time."""
    with FakeMfad(directory, [ops(result(0))]) as mfad, PamTransaction(stack(directory, "require_mfa"), "alice") as pam:
        assert pam.acct_mgmt().code == PamCode.SUCCESS
        assert pam.acct_mgmt().code == PamCode.SUCCESS

    assert len(mfad.begins) == 2


@pytest.mark.parametrize("code", [3, 6, 7, 8, 9, 10, 11, 13])
def test_refused_login_leaves_no_mark(directory: Path, code: int) -> None:
    """A caller that goes on after a refusal, or a stack that ignores it, meets require_mfa."""

    def handle(peer: Peer) -> None:
        peer.send(ops(result(code if peer.begin().number(wire.PHASE) == 1 else 6)))

    lines = [auth_line(socket_dir=directory, control="optional"), *stack(directory, "require_mfa")[1:]]
    with FakeMfad(directory, handle), PamTransaction(lines, "alice") as pam:
        pam.authenticate()
        assert pam.acct_mgmt().code == PamCode.PERM_DENIED


def test_mark_of_an_earlier_attempt_is_removed(directory: Path) -> None:
    """One handle, SUCCESS and then a refusal: the last attempt counts."""
    codes = iter([0, 7, 6])

    def handle(peer: Peer) -> None:
        peer.begin()
        peer.send(ops(result(next(codes))))

    with FakeMfad(directory, handle), PamTransaction(stack(directory, "require_mfa"), "alice") as pam:
        assert pam.authenticate().code == PamCode.SUCCESS
        assert pam.authenticate().code == PamCode.AUTH_ERR
        assert pam.acct_mgmt().code == PamCode.PERM_DENIED


def test_mark_is_removed_also_when_mfad_is_gone(directory: Path) -> None:
    """The second attempt never reaches mfad; the first one's mark is not its success."""
    with PamTransaction(stack(directory, "require_mfa"), "alice") as pam:
        with FakeMfad(directory, [ops(result(0))]):
            assert pam.authenticate().code == PamCode.SUCCESS
        assert pam.authenticate().code == PamCode.AUTHINFO_UNAVAIL
        assert pam.acct_mgmt().code == PamCode.AUTHINFO_UNAVAIL


def test_mark_is_for_the_user_who_was_verified(directory: Path) -> None:
    """A caller that changes PAM_USER between the phases carries nothing over."""

    def handle(peer: Peer) -> None:
        peer.send(ops(result(0 if peer.begin().number(wire.PHASE) == 1 else 6)))

    with FakeMfad(directory, handle) as mfad, PamTransaction(stack(directory, "require_mfa"), "alice") as pam:
        assert pam.authenticate().code == PamCode.SUCCESS
        pam.set_user("root")
        assert pam.acct_mgmt().code == PamCode.PERM_DENIED
        assert mfad.begins[1].get(wire.USER) == b"root"
        pam.set_user("alice")
        assert pam.acct_mgmt().code == PamCode.SUCCESS


def test_user_changed_while_asked_is_not_the_one_verified(directory: Path) -> None:
    """The name is copied before the dialogue: a conversation that sets PAM_USER frees the old one."""

    def handle(peer: Peer) -> None:
        if peer.begin().number(wire.PHASE) == 1:
            peer.send(ops(prompt()))
            peer.answer()
            peer.send(ops(result(0)))
        else:
            peer.send(ops(result(6)))

    def change(_prompt: str) -> str:
        pam.set_user("root")
        return "123456"

    with FakeMfad(directory, handle), PamTransaction(stack(directory, "require_mfa"), "alice", [change]) as pam:
        assert pam.authenticate().code == PamCode.SUCCESS
        assert pam.acct_mgmt().code == PamCode.PERM_DENIED


def test_prompt_that_account_may_not_ask_is_a_cancel(directory: Path) -> None:
    """sshd fails prompts in account: mfad hears of it and decides."""
    with FakeMfad(directory, [ops(prompt()), ops(result(6))]) as mfad:
        lines = [account_line("require_mfa", socket_dir=directory)]
        assert run_pam(lines, "alice", [Fails()], phase=Phase.ACCOUNT).code == PamCode.PERM_DENIED

    assert mfad.answers == [[(wire.CANCEL, b"\x13")]]


def test_password_is_never_sent_in_account(directory: Path) -> None:
    """AUTHTOK is a field of PHASE 1, also where mfad itself has set a password in the line before."""
    lines = [account_line("require_mfa", "use_first_pass", socket_dir=directory)] * 2
    with FakeMfad(directory, [ops(wire.set_authtok("secret"), result(0))]) as mfad:
        assert run_pam(lines, "alice", phase=Phase.ACCOUNT).code == PamCode.SUCCESS

    assert [begin.get(wire.AUTHTOK) for begin in mfad.begins] == [None, None]


def test_setcred_succeeds_and_other_phases_do_not_exist(directory: Path) -> None:
    """setcred has nothing to do; session and password are not ours to be stacked in."""
    module = auth_line(socket_dir=directory)
    lines = [module, module.replace("auth ", "session ", 1), module.replace("auth ", "password ", 1)]
    with PamTransaction(lines, "alice") as pam:
        assert pam.setcred().code == PamCode.SUCCESS
        assert pam.open_session().code == PamCode.MODULE_UNKNOWN
        assert pam.chauthtok().code == PamCode.MODULE_UNKNOWN
