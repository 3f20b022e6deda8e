"""The whole door: real libpam, the real pam_mfa.so, the real server, and a scripted gate behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mfa_core.secret import Secret
from mfa_core.verdict import (
    Accepted,
    Exempt,
    Exemption,
    Pending,
    PromptKind,
    Reason,
    Rejected,
    Unavailable,
    Unready,
    Verdict,
)
from pam_mfa.settings import Mode, ServiceSettings
from tests.pam_mfa.doubles import ACCEPTED, WRONG, ScriptedGate, ask, offer, running_door
from tests.pam_mfa.pam_harness import (
    SILENT,
    Answer,
    Expect,
    Fails,
    Items,
    PamCode,
    PamTransaction,
    Phase,
    Seen,
    Style,
    account_line,
    auth_line,
    probe_line,
    run_pam,
    socket_directory,
)

FULLWIDTH = "\uff11\uff12\uff13\uff14\uff15\uff16"
"""123456 in digits that str.isdigit() takes for digits."""


@pytest.fixture
def directory() -> Iterator[Path]:
    with socket_directory() as made:
        yield made


def log_in(
    directory: Path, answers: Sequence[Answer | Expect], *script: Verdict, words: Sequence[str] = (), **settings: object
) -> tuple[Seen, ScriptedGate]:
    """One pam_authenticate against a gate with ``script``; ``report`` shows what PAM_AUTHTOK was afterwards."""
    gate = ScriptedGate(*script)
    more = {name: settings.pop(name) for name in ("items", "env", "service", "flags") if name in settings}
    with running_door(directory, gate, default_service=ServiceSettings(**settings)):  # type: ignore[arg-type]
        stack = [auth_line(*words, socket_dir=directory), probe_line("report")]
        return run_pam(stack, "alice", answers, **more), gate  # type: ignore[arg-type]


def test_a_right_code_lets_in_and_a_wrong_one_does_not(directory: Path) -> None:
    with running_door(directory):
        stack = [auth_line(socket_dir=directory)]

        assert run_pam(stack, "alice", [Expect("Verification code: ", "123456")]).code == PamCode.SUCCESS
        wrong = run_pam(stack, "alice", ["000000"])

    assert wrong.code == PamCode.AUTH_ERR
    assert wrong.errors == ["Access denied."]


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (Rejected("e", Reason.REPLAYED), PamCode.AUTH_ERR),
        (Rejected("e", Reason.LOCKED, "Locked, try again in 5 minutes."), PamCode.MAXTRIES),
        (Rejected("e", Reason.POLICY_DENIED), PamCode.PERM_DENIED),
        (Unavailable("e", Unready.STORE), PamCode.AUTHINFO_UNAVAIL),
        (Unavailable("e", Unready.STORE_FULL), PamCode.AUTH_ERR),
        (Unavailable("e", Unready.CONFIGURATION), PamCode.SERVICE_ERR),
        (Accepted("e", "totp", "1"), PamCode.SUCCESS),
    ],
    ids=repr,
)
def test_verdicts_come_through_as_their_codes(directory: Path, verdict: Verdict, code: PamCode) -> None:
    seen, _ = log_in(directory, ["123456"], ask(), verdict)

    assert seen.code == code


def test_must_enrol_but_cannot_here(directory: Path) -> None:
    seen, _ = log_in(directory, [], Rejected("e", Reason.NOT_ENROLLED, "You have no second factor yet."))

    assert seen.code == PamCode.CRED_INSUFFICIENT
    assert seen.errors == ["You have no second factor yet."]


def test_ignore_alone_lets_nobody_in_and_success_does(directory: Path) -> None:
    """libpam wants a module that says yes (case 14)."""
    exempt = Exempt("e", Exemption.GRACE, "rule", ("Enrol until Friday.",))

    with running_door(directory, ScriptedGate(exempt, exempt)):
        alone = run_pam([auth_line(socket_dir=directory)], "alice")
        success = run_pam([auth_line("exempt=success", socket_dir=directory)], "alice")

    assert alone.code == PamCode.PERM_DENIED
    assert alone.infos == ["Enrol until Friday."]
    assert success.code == PamCode.SUCCESS


@pytest.mark.parametrize("typed", [b"", b"\b\n\r\x7fIN", b"\xff\xfe\x80", b" 123456 ", FULLWIDTH.encode(), b"7" * 4_096])
def test_what_is_typed_arrives_as_it_was(directory: Path, typed: bytes) -> None:
    seen, gate = log_in(directory, [typed], ask(), WRONG, flags=0)

    assert seen.code == PamCode.AUTH_ERR
    secret = gate.attempts[1].typed
    assert secret is not None
    assert secret.reveal() == typed


@pytest.mark.parametrize("broken", [Fails(), Fails(PamCode.CONV_AGAIN), b"x" * 100_000], ids=["fails", "again", "100 kB"])
def test_a_prompt_that_is_not_answered_is_auth_err(directory: Path, broken: Answer) -> None:
    seen, gate = log_in(directory, [broken], ask())

    assert seen.code == PamCode.AUTH_ERR
    assert len(gate.attempts) == 1


def test_su_may_ask_again(directory: Path) -> None:
    seen, _ = log_in(directory, ["000000", "123456"], ask(), WRONG, ask(), ACCEPTED, attempts=3)

    assert seen.code == PamCode.SUCCESS
    assert seen.errors == ["Access denied."]
    assert len(seen.prompts) == 2


# Where it comes from


def test_the_attempt_knows_what_sshd_says(directory: Path) -> None:
    _, gate = log_in(
        directory,
        ["123456"],
        items=Items(rhost="client.example.org", tty="ssh"),
        env={"SSH_CONNECTION": "::ffff:192.0.2.7 51234 192.0.2.1 22", "SSH_AUTH_INFO_0": "publickey ssh-ed25519 AAAA\n"},
    )

    (first, second) = gate.attempts
    assert (first.source, first.client, first.methods) == ("192.0.2.7", "192.0.2.7", ("publickey ssh-ed25519",))
    assert (first.first_factor.value, first.service) == ("done", "mfad-test")
    assert (second.source, second.challenge_id) == (first.source, "c1")


def test_a_host_name_is_no_source(directory: Path) -> None:
    _, gate = log_in(directory, ["123456"], items=Items(rhost="UNKNOWN", tty="/dev/pts/3"))

    assert (gate.attempts[0].source, gate.attempts[0].client) == (None, "/dev/pts/3")


# Password and code


def test_combined_hands_the_password_to_the_next_module(directory: Path) -> None:
    accepted = Accepted("e", "totp", "1", password=Secret(b"hunter2"))
    seen, _ = log_in(directory, [Expect("Password and code: ", "hunter2123456")], ask(), accepted, mode=Mode.COMBINED)

    assert seen.code == PamCode.SUCCESS
    assert seen.authtok == "hunter2"


def test_auto_takes_the_code_out_of_the_stacks_password(directory: Path) -> None:
    seen, gate = log_in(
        directory,
        [],
        Accepted("e", "totp", "1", password=Secret(b"hunter2")),
        words=["try_first_pass", "mode=auto"],
        items=Items(authtok="hunter2123456"),
    )

    assert seen.code == PamCode.SUCCESS
    assert seen.authtok == "hunter2"
    assert gate.attempts[0].grammar.mode.value == "append"


def test_the_password_method_of_sshd_is_recognised(directory: Path) -> None:
    """It gives the password to every prompt: read as password and code once, not counted twice."""
    seen, gate = log_in(
        directory,
        ["hunter2"],
        ask(),
        Rejected("e", Reason.NO_CODE),
        words=["try_first_pass"],
        items=Items(authtok="hunter2"),
    )

    assert seen.code == PamCode.AUTH_ERR
    assert gate.attempts[1].grammar.mode.value == "append"


def test_an_echo_on_prompt_that_fails_is_auth_err(directory: Path) -> None:
    prompt = Expect("Verification code: ", Fails(), Style.PROMPT_ON)

    assert log_in(directory, [prompt], ask(), words=["echo"])[0].code == PamCode.AUTH_ERR


# Arguments


def test_a_prompt_with_blanks_comes_in_brackets(directory: Path) -> None:
    seen, _ = log_in(directory, ["123456"], words=["prompt=One-time [code]: "])

    assert seen.prompts == ["One-time [code]: "]


def test_a_misspelt_argument_lets_nobody_in(directory: Path) -> None:
    seen, gate = log_in(directory, [], words=["exempt=sucess"])

    assert seen.code == PamCode.SERVICE_ERR
    assert gate.attempts == []


# Enrolment


def test_enrolment_at_login_shows_one_message_with_the_qr_code(directory: Path) -> None:
    key = Secret(b"ABCDEFGHIJKLMNOPQRSTUVWX")
    seen, _ = log_in(
        directory,
        [Expect("Code from the app: ", "123456"), Expect("Last four: ", "UVWX")],
        ask(PromptKind.ENROLMENT_CODE, "Code from the app: ", enrolment=offer()),
        ask(PromptKind.ACKNOWLEDGEMENT, "Last four: ", recovery_key=key),
        ACCEPTED,
        words=["first_factor=done"],
    )

    assert seen.code == PamCode.SUCCESS
    drawing, recovery = seen.infos
    assert drawing.count("\n") + 2 <= 24, "the code, the key and the prompt fit a screen"
    assert "▄" in drawing
    assert "JBSW Y3DP EHPK 3PXP JBSW Y3DP EHPK 3PXP" in drawing
    assert "ABCD EFGH IJKL MNOP QRST UVWX" in recovery


def test_no_enrolment_where_nothing_may_be_shown(directory: Path) -> None:
    seen, _ = log_in(directory, [], ask(PromptKind.ENROLMENT_CODE, enrolment=offer()), flags=SILENT)

    assert seen.code == PamCode.CRED_INSUFFICIENT
    assert seen.shown == ()


# The account phase


def test_a_login_with_a_second_factor_passes_the_account_phase(directory: Path) -> None:
    gate = ScriptedGate()
    with running_door(directory, gate):
        stack = [auth_line(socket_dir=directory), account_line("require_mfa", socket_dir=directory)]
        with PamTransaction(stack, "alice", ["123456"]) as pam:
            assert pam.authenticate().code == PamCode.SUCCESS
            assert pam.acct_mgmt().code == PamCode.SUCCESS
    assert len(gate.attempts) == 2


def test_a_login_without_one_is_stopped_there(directory: Path) -> None:
    """publickey alone never calls pam_authenticate."""
    with running_door(directory):
        seen = run_pam([account_line("require_mfa", socket_dir=directory)], "alice", phase=Phase.ACCOUNT)

    assert seen.code == PamCode.PERM_DENIED
    assert len(seen.errors) == 1


def test_cron_passes_the_account_phase(directory: Path) -> None:
    with running_door(directory):
        line = account_line("require_mfa", socket_dir=directory)
        assert run_pam([line], "alice", phase=Phase.ACCOUNT, service="cron").code == PamCode.SUCCESS


# When things end early


def test_a_daemon_that_is_not_there_is_authinfo_unavail(directory: Path) -> None:
    assert run_pam([auth_line(socket_dir=directory)], "alice").code == PamCode.AUTHINFO_UNAVAIL


def test_a_daemon_that_stops_in_mid_dialogue_is_authinfo_unavail(directory: Path) -> None:
    with running_door(directory) as door:

        def stop_first(prompt: str) -> str:
            door.await_(door.door.stop(grace_s=0.01))
            return "123456"

        assert run_pam([auth_line(socket_dir=directory)], "alice", [stop_first]).code == PamCode.AUTHINFO_UNAVAIL


def test_an_out_of_band_factor_is_waited_for(directory: Path) -> None:
    seen, _ = log_in(directory, ["push"], ask(), Pending("p", "Approve 47 on your phone", 2e9), ACCEPTED)

    assert seen.code == PamCode.SUCCESS
    assert seen.infos == ["Approve 47 on your phone"]


def test_many_logins_at_once(directory: Path) -> None:
    """Threads of one process, each with its own handle, as in a multi-threaded RADIUS or mail server."""
    with running_door(directory) as door, ThreadPoolExecutor(8) as threads:
        stack = [auth_line(socket_dir=directory)]

        def one(number: int) -> int:
            return run_pam(stack, f"user{number}", ["123456" if number % 2 else "000000"]).code

        codes = list(threads.map(one, range(100)))
        door.until(lambda: not door.door._connections)

    assert codes == [PamCode.SUCCESS if number % 2 else PamCode.AUTH_ERR for number in range(100)]
    assert door.door.counters.crashes == 0


def test_a_user_name_with_everything_in_it_arrives_whole(directory: Path) -> None:
    name = b"al\x1b[2J ice\xff\n"
    gate = ScriptedGate()
    with running_door(directory, gate):
        run_pam([auth_line(socket_dir=directory)], name, ["000000"])

    assert gate.attempts[0].username.encode("utf-8", "surrogateescape") == name
