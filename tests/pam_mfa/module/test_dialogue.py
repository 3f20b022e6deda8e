"""Does the module perform what mfad sends, in order, and send back what the user said?"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.pam_mfa import fake_mfad as wire
from tests.pam_mfa.fake_mfad import FakeMfad, Peer, ops, prompt, result
from tests.pam_mfa.pam_harness import (
    SILENT,
    Answer,
    Broken,
    Expect,
    Fails,
    PamCode,
    Seen,
    Shown,
    Style,
    auth_line,
    probe_line,
    run_pam,
)

CODE = "Verification code: "


def login(directory: Path, answers: Sequence[Answer | Expect] = (), flags: int = 0) -> Seen:
    return run_pam([auth_line(socket_dir=directory), probe_line("report")], "alice", answers, flags=flags)


def test_code_is_asked_and_the_result_returned(directory: Path) -> None:
    """The plainest login: one prompt, one answer, SUCCESS."""
    with FakeMfad(directory, [ops(prompt()), ops(result(0))]) as mfad:
        seen = login(directory, [Expect(CODE, "123456")])

    assert seen.code == PamCode.SUCCESS
    assert seen.shown == (Shown(Style.PROMPT_OFF, CODE),)
    assert mfad.answers == [[(wire.RESP, b"123456")]]


@pytest.mark.parametrize("code", [3, 6, 7, 8, 9, 10, 11, 13])
def test_refusal_of_mfad_is_returned_as_it_is(directory: Path, code: int) -> None:
    """Every code of the auth phase reaches the caller."""
    with FakeMfad(directory, [ops(result(code))]):
        assert login(directory).code == code


def test_ignore_leaves_the_decision_to_the_rest_of_the_stack(directory: Path) -> None:
    """IGNORE beside a module that succeeds is a login; alone in the stack libpam makes PERM_DENIED of it."""
    with FakeMfad(directory, [ops(result(25))]):
        beside = run_pam([auth_line(socket_dir=directory), "auth required pam_permit.so"], "alice")
        alone = run_pam([auth_line(socket_dir=directory)], "alice")

    assert (beside.code, alone.code) == (PamCode.SUCCESS, PamCode.PERM_DENIED)


@pytest.mark.parametrize("code", [1, 2, 4, 5, 12, 14, 19, 24, 26, 31, 32, 99, 255])
def test_result_that_the_phase_does_not_have_is_a_protocol_error(directory: Path, code: int) -> None:
    """A number outside the list is SERVICE_ERR, and nothing of its message is performed."""
    with FakeMfad(directory, [ops(wire.info("Welcome"), wire.set_authtok("x"), result(code))]):
        seen = login(directory)

    assert seen.code == PamCode.SERVICE_ERR
    assert seen.shown == ()
    assert seen.authtok is None


def test_rounds_and_messages_follow_one_another(directory: Path) -> None:
    """Password, then code, then a second try after an error text, each prompt a call of its own."""
    script = [ops(prompt("Password: ")), ops(prompt()), ops(wire.error("Access denied."), prompt()), ops(result(0))]
    with FakeMfad(directory, script) as mfad:
        seen = login(directory, [Expect("Password: ", "secret"), Expect(CODE, "000000"), Expect(CODE, "123456")])

    assert seen.code == PamCode.SUCCESS
    assert seen.errors == ["Access denied."]
    assert mfad.answers == [[(wire.RESP, b"secret")], [(wire.RESP, b"000000")], [(wire.RESP, b"123456")]]


def test_two_prompts_in_one_message_are_two_calls_and_one_answer(directory: Path) -> None:
    """RESP fields stand in the order of the prompts, with texts shown between them in place."""
    with FakeMfad(directory, [ops(prompt("Password: "), wire.info("Now the code."), prompt()), ops(result(0))]) as mfad:
        seen = login(directory, ["secret", "123456"])

    assert [one.style for one in seen.shown] == [Style.PROMPT_OFF, Style.INFO, Style.PROMPT_OFF]
    assert mfad.answers == [[(wire.RESP, b"secret"), (wire.RESP, b"123456")]]


def test_echo_on_prompt_keeps_its_style(directory: Path) -> None:
    """PROMPT_ON reaches the caller as PAM_PROMPT_ECHO_ON."""
    with FakeMfad(directory, [ops(wire.prompt_on()), ops(result(0))]):
        assert login(directory, [Expect(CODE, "123456", Style.PROMPT_ON)]).code == PamCode.SUCCESS


@pytest.mark.parametrize("answer", ["", "ünïcode ✓", b"\xff\xfe\x80", "\b\n\r\x7fIN", "1" * 4096], ids=repr)
def test_answer_reaches_mfad_byte_for_byte(directory: Path, answer: str | bytes) -> None:
    """Empty, not UTF-8, sshd's junk, and the longest there is."""
    with FakeMfad(directory, [ops(prompt()), ops(result(7))]) as mfad:
        assert login(directory, [answer]).code == PamCode.AUTH_ERR

    assert mfad.answers == [[(wire.RESP, answer if isinstance(answer, bytes) else answer.encode())]]


@pytest.mark.parametrize("size", [4097, 100_000, 1_000_000])
def test_answer_over_the_limit_is_a_cancel(directory: Path, size: int) -> None:
    """An answer of 100 kB is neither cut nor sent."""
    with FakeMfad(directory, [ops(prompt()), ops(result(7))]) as mfad:
        assert login(directory, ["1" * size]).code == PamCode.AUTH_ERR

    assert mfad.answers == [[(wire.CANCEL, b"\x13")]]


def test_answers_that_do_not_fit_into_one_message_are_a_cancel(directory: Path) -> None:
    """Four answers of 4,096 bytes are more than a message holds."""
    with FakeMfad(directory, [ops(*[prompt()] * 4), ops(result(7))]) as mfad:
        assert login(directory, ["1" * 4096] * 4).code == PamCode.AUTH_ERR

    assert mfad.answers == [[(wire.CANCEL, b"\x13")]]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Fails(PamCode.CONV_ERR), 19),
        (Fails(PamCode.CONV_AGAIN), 30),
        (Fails(PamCode.BUF_ERR), 5),
        (Fails(-1), 19),
        (Fails(1000), 19),
        (Broken.NULL_TEXT, 19),
        (Broken.NULL_ARRAY, 19),
        (Broken.DANGLING, 19),
    ],
    ids=str,
)
def test_prompt_without_an_answer_is_a_cancel(directory: Path, answer: Fails | Broken, told: int) -> None:
    """A conversation that fails, or says SUCCESS with nothing in its hands, is told to mfad, which decides."""
    with FakeMfad(directory, [ops(prompt()), ops(result(7))]) as mfad:
        assert login(directory, [answer]).code == PamCode.AUTH_ERR

    assert mfad.answers == [[(wire.CANCEL, bytes([told]))]]


def test_cancel_ends_the_message_and_stands_alone(directory: Path) -> None:
    """What stands behind the cancelled prompt is not performed, and no earlier answer is sent with the CANCEL."""
    first = ops(prompt("Password: "), prompt(), prompt("Again: "), wire.set_authtok("x"), wire.info("Thank you."))
    with FakeMfad(directory, [first, ops(result(7))]) as mfad:
        seen = login(directory, ["secret", Fails()])

    assert seen.prompts == ["Password: ", CODE]
    assert (seen.infos, seen.authtok) == ([], None)
    assert mfad.answers == [[(wire.CANCEL, b"\x13")]]


def test_silent_hides_texts_but_not_prompts(directory: Path) -> None:
    """Under PAM_SILENT nothing is shown that needs no answer, and mfad is told the flag."""
    with FakeMfad(directory, [ops(wire.info("Welcome"), wire.error("Careful"), prompt()), ops(result(0))]) as mfad:
        seen = login(directory, ["123456"], flags=SILENT)

    assert seen.shown == (Shown(Style.PROMPT_OFF, CODE),)
    assert mfad.begins[0].number(wire.FLAGS) == SILENT


def test_texts_are_shown_whole_and_in_one_message(directory: Path) -> None:
    """A QR code of 8,192 bytes is one INFO; a prompt may have 2,048 bytes."""
    qr = "█" * 2730
    with FakeMfad(directory, [ops(wire.info(qr), prompt("p" * 2048)), ops(result(0))]):
        seen = login(directory, ["123456"])

    assert seen.shown == (Shown(Style.INFO, qr), Shown(Style.PROMPT_OFF, "p" * 2048))


def test_percent_signs_in_texts_are_texts(directory: Path) -> None:
    """No text of mfad is a format string, nor is one in LOG."""
    with FakeMfad(directory, [ops(wire.info("%s%n%x"), wire.log(6, "%s%n"), prompt("%n%s")), ops(result(0))]):
        assert login(directory, ["%s%n"]).shown == (Shown(Style.INFO, "%s%n%x"), Shown(Style.PROMPT_OFF, "%n%s"))


def test_authtok_is_set_for_the_modules_behind(directory: Path) -> None:
    """SET_AUTHTOK is what pam_unix behind us reads, up to 4,096 bytes."""
    with FakeMfad(directory, [ops(prompt("Password and code: ")), ops(wire.set_authtok("p" * 4096), result(0))]):
        assert login(directory, ["secret123456"]).authtok == "p" * 4096


def test_variables_of_ours_reach_the_pam_environment(directory: Path) -> None:
    """PUTENV sets MFA_ names; a later one of the same name wins."""
    told = [wire.putenv("MFA_METHOD=totp"), wire.putenv("MFA_NOTE=a=b c"), wire.putenv("MFA_METHOD=push")]
    with FakeMfad(directory, [ops(*told, result(0))]):
        seen = login(directory)

    assert seen.env == {"MFA_METHOD": "push", "MFA_NOTE": "a=b c"}


@pytest.mark.parametrize("assignment", ["LD_PRELOAD=/tmp/x.so", "PATH=/tmp", "MFA_X", "MFA_X=", "MFA_=1", "KRB5CCNAME=x"])
def test_other_variables_are_refused_with_their_whole_message(directory: Path, assignment: str) -> None:
    """A daemon gone wrong cannot set what ld.so or another module listens to."""
    with FakeMfad(directory, [ops(wire.putenv("MFA_GOOD=1"), wire.putenv(assignment), result(0))]):
        seen = login(directory)

    assert (seen.code, dict(seen.env)) == (PamCode.SERVICE_ERR, {})


def test_fail_delay_is_asked_of_libpam(directory: Path) -> None:
    """FAIL_DELAY goes to pam_fail_delay, which spreads it by half in both directions."""
    with FakeMfad(directory, [ops(wire.fail_delay(2_000_000), result(7))]):
        assert 1_000_000 <= login(directory).fail_delay_us <= 3_000_000


def test_waits_read_on_without_a_word_to_mfad(directory: Path) -> None:
    """WAIT keeps the dialogue open; beside a prompt it speaks of the message after the answer."""
    script = [ops(wire.info("Push sent"), wire.wait(60)), ops(wire.wait(60)), ops(prompt(), wire.wait(60)), ops(result(0))]
    with FakeMfad(directory, script) as mfad:
        assert login(directory, ["123456"]).code == PamCode.SUCCESS

    assert len(mfad.answers) == 1


def test_more_than_32_rounds_are_refused(directory: Path) -> None:
    """32 rounds are held, the 33rd prompt is not asked."""
    with FakeMfad(directory, [ops(prompt())] * 33):
        seen = login(directory, ["1"] * 32)

    assert seen.code == PamCode.SERVICE_ERR
    assert len(seen.prompts) == 32

    with FakeMfad(directory, [ops(prompt())] * 32 + [ops(result(0))]):
        assert login(directory, ["1"] * 32).code == PamCode.SUCCESS


def test_more_than_256_messages_are_refused(directory: Path) -> None:
    """Keep-alives without end stop at 256 messages."""
    with FakeMfad(directory, [ops(wire.wait(300))] * 257):
        assert login(directory).code == PamCode.SERVICE_ERR

    with FakeMfad(directory, [ops(wire.wait(300))] * 255 + [ops(result(0))]):
        assert login(directory).code == PamCode.SUCCESS


def test_module_closes_after_the_result(directory: Path) -> None:
    """mfad sees the end at once, and may wait for it."""
    closed = threading.Event()

    def handle(peer: Peer) -> None:
        peer.begin()
        peer.send(ops(result(0)))
        if peer.wait_for_close():
            closed.set()

    with FakeMfad(directory, handle):
        assert login(directory).code == PamCode.SUCCESS

    assert closed.is_set()


def test_word_said_before_a_close_without_reading_is_heard(directory: Path) -> None:
    """A daemon that is full says so and closes, BEGIN unread: the kernel resets, the module still finds the RESULT."""

    def handle(peer: Peer) -> None:
        peer.connection.recv(1, 2)  # MSG_PEEK: BEGIN is there, and stays
        peer.send(ops(wire.error("Try again later."), result(11)))

    with FakeMfad(directory, handle):
        seen = login(directory)

    assert (seen.code, seen.errors) == (PamCode.MAXTRIES, ["Try again later."])


def test_word_said_before_a_close_while_the_user_types_is_heard(directory: Path) -> None:
    """mfad shuts down in an orderly way: the answer finds nobody, the RESULT sent before is still there."""
    closed = threading.Event()

    def handle(peer: Peer) -> None:
        peer.begin()
        peer.send(ops(prompt()))
        peer.send(ops(wire.error("Try again later."), result(9)))
        peer.connection.close()
        closed.set()

    def answer(_prompt: str) -> str:
        closed.wait(5)
        return "123456"

    with FakeMfad(directory, handle):
        seen = login(directory, [answer])

    assert (seen.code, seen.errors) == (PamCode.AUTHINFO_UNAVAIL, ["Try again later."])


def test_answer_may_be_read_out_of_the_prompt(directory: Path) -> None:
    """A script can answer a push with the number that it shows."""
    with FakeMfad(directory, [ops(prompt("Approve 47: ")), ops(result(0))]) as mfad:
        assert login(directory, [lambda text: text.removeprefix("Approve ").removesuffix(": ")]).code == PamCode.SUCCESS

    assert mfad.answers == [[(wire.RESP, b"47")]]


def test_many_dialogues_at_once_do_not_meet(directory: Path) -> None:
    """16 threads, 200 logins, each answered with its own words."""

    def handle(peer: Peer) -> None:
        user = peer.begin().get(wire.USER)
        assert user is not None
        peer.send(ops(prompt(b"Code of " + user + b": ")))
        answer = peer.answer()
        peer.send(ops(result(0 if answer == [(wire.RESP, user[::-1])] else 7)))

    def one(number: int) -> int:
        user = f"user{number}"
        return run_pam([auth_line(socket_dir=directory)], user, [Expect(f"Code of {user}: ", user[::-1])]).code

    with FakeMfad(directory, handle), ThreadPoolExecutor(16) as pool:
        assert set(pool.map(one, range(200))) == {PamCode.SUCCESS}
