"""One conversation, event by event, without a socket."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.model import Attempt, FirstFactor, Grammar, Interaction, SplitMode
from mfa_core.secret import Secret
from mfa_core.verdict import (
    Accepted,
    Challenge,
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
from pam_mfa.conversation import NOTHING, Conversation, Event, HangUp, State, Step, Withdrawn, could_hold_code
from pam_mfa.login import Peer, Trust
from pam_mfa.results import Refusal
from pam_mfa.settings import ExemptAnswer, Mode, PamDoorSettings, QrStyle, ServiceSettings
from pam_mfa.wire import (
    Answer,
    Ask,
    Begin,
    Cancel,
    Echo,
    Error,
    Fault,
    Info,
    Level,
    Log,
    MessageRefused,
    Ops,
    Phase,
    Result,
    SetAuthtok,
    Wait,
    encode_ops,
)
from tests.pam_mfa.doubles import ACCEPTED, CODE, WRONG, answer, ask, begin, event_ids, offer, only, result

ROOT = Peer(Trust.ANYBODY, 0)
ALICE = Peer(Trust.ITSELF, 1000, b"alice")
PASSWORD = Secret(b"hunter2")
APPEND = Grammar(SplitMode.APPEND)
SEPARATE = Grammar(SplitMode.SEPARATE)
JUNK = b"\b\n\r\x7fIN"
"""What sshd answers for a user that it will refuse anyway, cut to the length of a code."""


def settings(**service: object) -> PamDoorSettings:
    return PamDoorSettings(Path("/nowhere"), default_service=ServiceSettings(**service))  # type: ignore[arg-type]


class Dialogue:
    """A conversation with the operations and attempts that came out of it."""

    def __init__(self, door: PamDoorSettings | None = None, peer: Peer = ROOT, **service: object) -> None:
        self.conversation = Conversation(door or settings(**service), peer, event_ids())
        self.ops: Ops = ()
        self.attempt: Attempt | None = None
        self.step: Step = NOTHING

    @property
    def state(self) -> State:
        return self.conversation.state

    def __call__(self, *events: Event) -> Dialogue:
        for event in events:
            self.step = self.conversation.receive(event)
            self.ops, self.attempt = self.step.ops, self.step.attempt
            if self.ops:
                encode_ops(self.ops)
        return self

    @property
    def typed(self) -> bytes | None:
        assert self.attempt is not None
        return None if self.attempt.typed is None else self.attempt.typed.reveal()

    @property
    def code(self) -> int | None:
        """The PAM code, when it is over."""
        assert (self.state is State.OVER) == (bool(self.ops) and isinstance(self.ops[-1], Result))
        return result(self.ops) if self.ops else None


# The code mode


def test_the_gate_is_asked_who_then_what() -> None:
    """BEGIN makes an attempt with nothing typed; the answer makes one that names the challenge."""
    talk = Dialogue()(begin(ssh_connection=b"192.0.2.7 1 192.0.2.1 22", options=(b"timeout=30",)))
    first = talk.attempt
    assert first is not None
    assert (first.username, first.service, first.source, first.typed) == ("alice", "sshd", "192.0.2.7", None)
    assert first.interaction is Interaction.PROMPTS
    assert first.wait_s == 30.0

    talk(ask())
    assert talk.ops == (Ask("Verification code: "),)

    talk(answer(CODE))
    second = talk.attempt
    assert second is not None
    assert (talk.typed, second.challenge_id, second.grammar) == (CODE, "c1", SEPARATE)
    assert second.event_id != first.event_id

    assert talk(ACCEPTED).ops == (Result(0),)


def test_a_wrong_code_ends_the_call_because_sshd_itself_asks_again() -> None:
    talk = Dialogue()(begin(), ask(), answer(b"000000"), WRONG)

    assert talk.code == 7
    assert talk.ops[0] == Error("Access denied.")


@pytest.mark.parametrize("typed", [b"", JUNK, b"\b\n\r\x7fINCORRECT", b"\xff\xfe", b"x" * 4_096])
def test_whatever_is_typed_is_the_gates_to_judge(typed: bytes) -> None:
    """Empty answers and sshd's filler go to the gate as they are: it knows that they do not count."""
    assert Dialogue()(begin(flags=1), ask(), answer(typed)).typed == typed


def test_a_configured_service_asks_again() -> None:
    """The refusal and the next question travel together, and the gate says each time whether to ask."""
    talk = Dialogue(attempts=2)(begin(service=b"su"), ask(), answer(b"000000"), WRONG)
    assert talk.state is State.OPENING
    assert talk.typed is None

    talk(ask())
    assert talk.ops == (Error("Access denied."), Ask("Verification code: "))

    assert talk(answer(b"111111"), WRONG).code == 7


def test_a_lock_that_comes_between_two_attempts_ends_them() -> None:
    talk = Dialogue(attempts=3)(begin(), ask(), answer(b"000000"), WRONG, Rejected("e", Reason.LOCKED, "Locked."))

    assert talk.code == 11
    assert [op.text for op in only(talk.ops, Error)] == ["Access denied.", "Locked."]


@pytest.mark.parametrize("reason", [Reason.LOCKED, Reason.THROTTLED, Reason.JUNK, Reason.POLICY_DENIED, Reason.GRACE_ENDED])
def test_what_another_try_cannot_mend_is_not_asked_again(reason: Reason) -> None:
    assert Dialogue(attempts=3)(begin(), ask(), answer(CODE), Rejected("e", reason)).state is State.OVER


@pytest.mark.parametrize("reason", [Reason.UNKNOWN_USER, Reason.NOT_ENROLLED, Reason.FIRST_FACTOR_FAILED, Reason.MISMATCH])
def test_strangers_are_asked_as_often_as_users(reason: Reason) -> None:
    """Number and text of prompts, and the code, say nothing about who exists."""
    talk = Dialogue(attempts=2, peer=ALICE)(begin(), ask(), answer(CODE), Rejected("e", reason), ask())
    assert talk.ops == (Error("Access denied."), Ask("Verification code: "))

    talk(answer(CODE), Rejected("e", reason))
    assert talk.ops == (Error("Access denied."), Result(7))


def test_no_conversation_asks_for_more_codes_than_max_prompts() -> None:
    """Whatever a service configures and whatever the gate says."""
    talk = Dialogue(attempts=100)(begin())
    prompts = 0
    while talk.state is not State.OVER:
        talk(ask())
        if talk.state is State.PROMPTED:
            prompts += 1
            talk(answer(CODE), WRONG)
    assert prompts == 3
    assert talk.code == 7

    stubborn = Dialogue()(begin(), *[event for _ in range(3) for event in (ask(), answer(CODE))], ask())
    assert stubborn.code == 7


def test_the_prompt_is_what_the_administrator_wants() -> None:
    assert Dialogue(prompt="OTP: ")(begin(), ask()).ops == (Ask("OTP: "),)
    assert Dialogue(prompt="OTP: ")(begin(options=(b"prompt=PIN: \x1b",)), ask()).ops == (Ask("PIN: "),)
    assert Dialogue()(begin(options=(b"echo",)), ask()).ops == (Ask("Verification code: ", Echo.ON),)


def test_notices_come_before_the_prompt() -> None:
    challenge = ask()
    challenge = replace(challenge, prompts=(replace(challenge.prompts[0], notices=("Enrol soon\x1b.",)),))

    assert Dialogue()(begin(), challenge).ops == (Info("Enrol soon."), Ask("Verification code: "))


def test_a_cancel_of_a_visible_prompt_names_the_cause() -> None:
    """sshd's password method answers no echo-on prompt (PAM_CONV_ERR), and nobody finds out why by himself."""
    talk = Dialogue(echo=Echo.ON)(begin(), ask(), Cancel(19))

    assert talk.code == 7
    (log,) = only(talk.ops, Log)
    assert "PasswordAuthentication" in log.text
    assert "KbdInteractiveAuthentication yes" in log.text


def test_a_cancel_of_a_hidden_prompt_blames_nobody() -> None:
    talk = Dialogue()(begin(), ask(), Cancel(19))

    assert talk.code == 7
    assert "KbdInteractive" not in only(talk.ops, Log)[0].text


# Exempt, refused, unavailable before a question


@pytest.mark.parametrize(
    ("options", "code"), [((), 25), ((b"exempt=success",), 0), ((b"exempt=success", b"exempt=ignore"), 25)]
)
def test_the_exempt_are_not_asked(options: tuple[bytes, ...], code: int) -> None:
    assert Dialogue()(begin(options=options), Exempt("e", Exemption.POLICY, "r")).code == code


def test_exempt_success_can_be_set_for_a_service() -> None:
    assert Dialogue(exempt=ExemptAnswer.SUCCESS)(begin(), Exempt("e", Exemption.POLICY, "r")).code == 0


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (Rejected("e", Reason.NOT_ENROLLED, "Enrol first."), 8),
        (Rejected("e", Reason.POLICY_DENIED), 6),
        (Rejected("e", Reason.LOCKED), 11),
        (Unavailable("e", Unready.STORE), 9),
        (Unavailable("e", Unready.CONFIGURATION), 3),
    ],
)
def test_a_refusal_before_a_question(verdict: Verdict, code: int) -> None:
    assert Dialogue()(begin(), verdict).code == code


def test_an_accept_of_nothing_typed_is_a_mistake_and_no_login() -> None:
    assert Dialogue()(begin(), ACCEPTED).code == 3


# Arguments


def test_an_unknown_argument_is_service_err_and_a_log_line() -> None:
    talk = Dialogue()(begin(options=(b"requre_mfa\x1b",)))

    assert talk.code == 3
    assert 'unknown module argument "requre_mfa\\x1b"' in only(talk.ops, Log)[0].text


def test_the_modules_timeout_limits_the_conversation() -> None:
    assert Dialogue()(begin(options=(b"timeout=7",))).conversation.limit_s == 7
    door = replace(settings(), conversation_s=5.0)
    assert Dialogue(door)(begin(options=(b"timeout=600",))).conversation.limit_s == 5.0


# Password and code in one answer


def test_combined_asks_for_both_and_hands_the_password_on() -> None:
    talk = Dialogue(mode=Mode.COMBINED)(begin(), ask())
    assert talk.ops == (Ask("Password and code: "),)

    talk(answer(b"hunter2123456"))
    assert talk.attempt is not None
    assert talk.attempt.grammar == APPEND
    assert talk.attempt.first_factor is FirstFactor.ELSEWHERE

    talk(Accepted("e", "totp", "1", password=PASSWORD))
    assert [op.password.reveal() for op in only(talk.ops, SetAuthtok)] == [b"hunter2"]
    assert talk.code == 0


def test_a_primary_backend_is_asked_to_verify_it() -> None:
    talk = Dialogue(mode=Mode.COMBINED, first_factor=FirstFactor.OURS)(begin(), ask(PromptKind.PASSWORD_AND_CODE, "Both: "))
    assert talk.ops == (Ask("Both: "),)

    talk(answer(b"x"))
    assert talk.attempt is not None
    assert talk.attempt.first_factor is FirstFactor.OURS


def test_a_primary_backend_gets_nothing_from_a_code_prompt() -> None:
    """``mode=code`` on the PAM line takes the password away from the backend: then it is not ours to verify."""
    talk = Dialogue(mode=Mode.COMBINED, first_factor=FirstFactor.OURS)(begin(options=(b"mode=code",)))

    assert talk.attempt is not None
    assert talk.attempt.first_factor is FirstFactor.ELSEWHERE


def test_another_mode_on_the_pam_line_drops_the_prompt_of_the_first() -> None:
    assert Dialogue(prompt="Code: ")(begin(options=(b"mode=combined",)), ask()).ops == (Ask("Password and code: "),)
    assert Dialogue(prompt="Code: ")(begin(options=(b"mode=code",)), ask()).ops == (Ask("Code: "),)


TRY = (b"try_first_pass",)
USE = (b"use_first_pass",)


@pytest.mark.parametrize(
    ("mode", "authtok", "options", "grammar"),
    [
        (Mode.AUTO, b"hunter2123456", TRY, APPEND),
        (Mode.COMBINED, b"hunter2123456", TRY, APPEND),
        (Mode.CODE, b"123456", TRY, SEPARATE),
        (Mode.CODE, b"hunter2", USE, SEPARATE),
        (Mode.COMBINED, b"hunter2", USE, APPEND),
        (Mode.AUTO, b"hunter2", TRY, None),
        (Mode.AUTO, b"12345", TRY, None),
        (Mode.AUTO, b"", TRY, None),
        (Mode.CODE, b"hunter2123456", TRY, None),
    ],
)
def test_the_stacks_password_is_tried_when_it_could_hold_a_code(
    mode: Mode, authtok: bytes, options: tuple[bytes, ...], grammar: Grammar | None
) -> None:
    talk = Dialogue(mode=mode)(begin(authtok=Secret(authtok), options=options))

    assert talk.attempt is not None
    if grammar is None:
        assert talk.typed is None
        assert talk.state is State.OPENING
    else:
        assert talk.typed == authtok
        assert talk.attempt.grammar == grammar


def test_a_stacked_password_that_is_no_code_leads_to_one_prompt() -> None:
    talk = Dialogue(mode=Mode.AUTO)(begin(authtok=Secret(b"pass123456"), options=TRY), WRONG)
    assert talk.typed is None

    assert talk(ask()).ops == (Ask("Verification code: "),)
    assert talk(answer(CODE), ACCEPTED).code == 0


def test_a_stacked_password_that_holds_the_code_needs_no_prompt() -> None:
    talk = Dialogue(mode=Mode.AUTO)(begin(authtok=Secret(b"hunter2123456"), options=TRY))

    assert talk(Accepted("e", "totp", "1", password=PASSWORD)).code == 0


def test_a_locked_user_is_not_prompted_after_the_stacked_password() -> None:
    talk = Dialogue(mode=Mode.AUTO)(begin(authtok=Secret(b"hunter2123456"), options=TRY), Rejected("e", Reason.LOCKED))

    assert talk.code == 11


def test_use_first_pass_never_asks() -> None:
    assert Dialogue()(begin(options=USE)).code == 7
    assert Dialogue()(begin(authtok=Secret(b"123456"), options=USE), WRONG).code == 7


def test_a_separator_shows_whether_a_code_could_be_there() -> None:
    comma = Grammar(SplitMode.SEPARATOR, ",")

    assert could_hold_code(Secret(b"hunter2,push"), comma)
    assert not could_hold_code(Secret(b"hunter2123456"), comma)


# sshd's password method gives the password to every prompt


def test_the_password_as_answer_is_read_as_password_and_code_once() -> None:
    talk = Dialogue()(begin(authtok=Secret(b"hunter2x123456"), options=TRY), ask(), answer(b"hunter2x123456"))
    assert talk.attempt is not None
    assert talk.attempt.grammar == APPEND

    talk(Rejected("e", Reason.NO_CODE))
    assert talk.code == 7
    assert any(log.level is Level.WARNING and "KbdInteractiveAuthentication" in log.text for log in only(talk.ops, Log))


def test_the_separator_is_used_when_the_service_has_one() -> None:
    comma = Grammar(SplitMode.SEPARATOR, ",")
    talk = Dialogue(grammar=comma)(begin(authtok=PASSWORD, options=TRY), ask(), answer(b"hunter2"))

    assert talk.attempt is not None
    assert talk.attempt.grammar == comma


def test_the_password_is_not_judged_twice() -> None:
    """AUTO has tried it already: the second time would count a failure for one password typed once."""
    talk = Dialogue(mode=Mode.AUTO)(begin(authtok=Secret(b"pass123456"), options=TRY), WRONG, ask(), answer(b"pass123456"))

    assert talk.code == 7
    assert talk.attempt is None
    assert "KbdInteractiveAuthentication" in only(talk.ops, Log)[0].text


# Enrolment at login


def test_enrolment_shows_qr_and_key_in_one_message_then_asks() -> None:
    talk = Dialogue()(begin(options=(b"first_factor=done",)))
    assert talk.attempt is not None
    assert talk.attempt.first_factor is FirstFactor.DONE

    talk(ask(PromptKind.ENROLMENT_CODE, "Code: ", enrolment=offer()))
    info, prompt = talk.ops
    assert isinstance(info, Info)
    assert prompt == Ask("Code: ")
    lines = info.text.split("\n")
    assert len(lines) + 1 <= 24
    assert max(map(len, lines)) <= 80
    assert "JBSW Y3DP EHPK 3PXP JBSW Y3DP EHPK 3PXP" in lines[-1]

    talk(answer(CODE), ask(PromptKind.ACKNOWLEDGEMENT, "Last four: ", recovery_key=Secret(b"ABCDEFGHIJKLMNOPQRSTUVWX")))
    info, prompt = talk.ops
    assert isinstance(info, Info)
    assert "ABCD EFGH IJKL MNOP QRST UVWX" in info.text
    assert prompt == Ask("Last four: ")

    assert talk(answer(b"UVWX"), ACCEPTED).code == 0


def test_a_wrong_enrolment_code_may_be_typed_again_without_a_second_qr() -> None:
    enrol = ask(PromptKind.ENROLMENT_CODE, "Code: ", enrolment=offer())
    talk = Dialogue()(begin(), enrol, answer(b"000000"), WRONG, enrol)

    assert talk.ops == (Error("Access denied."), Ask("Code: "))


def test_a_uri_with_all_its_parameters_still_fits_a_screen_with_key_and_prompt() -> None:
    """134 bytes: a long name, and the defaults spelt out. The line above the code may have scrolled away."""
    uri = offer().otpauth_uri.reveal() + b"&algorithm=SHA1&digits=6&period=30"
    long = replace(offer(), otpauth_uri=Secret(uri.ljust(134, b"x")))
    (info, _) = Dialogue()(begin(), ask(PromptKind.ENROLMENT_CODE, enrolment=long)).ops

    assert isinstance(info, Info)
    assert len(info.text.split("\n")[1:]) + 1 <= 24


@pytest.mark.parametrize("style", [QrStyle.NONE, QrStyle.ASCII])
def test_other_drawings(style: QrStyle) -> None:
    (info, _) = Dialogue(qr=style)(begin(), ask(PromptKind.ENROLMENT_CODE, enrolment=offer())).ops

    assert isinstance(info, Info)
    assert info.text.isascii()
    assert ("otpauth://totp/" in info.text) == (style is QrStyle.NONE)


def test_greeters_get_a_link_by_default() -> None:
    door = PamDoorSettings(Path("/nowhere"))
    (info, _) = Dialogue(door)(begin(service=b"gdm-password"), ask(PromptKind.ENROLMENT_CODE, enrolment=offer())).ops

    assert isinstance(info, Info)
    assert "otpauth://" in info.text


@pytest.mark.parametrize("secret", [{"enrolment": offer()}, {"recovery_key": Secret(b"ABCD")}])
def test_no_secret_goes_to_the_user_socket_nor_into_silence(secret: dict[str, object]) -> None:
    challenge = ask(PromptKind.ENROLMENT_CODE, **secret)

    assert Dialogue(peer=ALICE)(begin(), challenge).code == 8
    assert Dialogue()(begin(flags=0x8000), challenge).code == 8


# Users on the user socket


@pytest.mark.parametrize("user", [b"root", b"bob", b"alice\xff", b"", b"ALICE"])
def test_a_user_process_verifies_only_itself(user: bytes) -> None:
    assert Dialogue(peer=ALICE)(begin(user)).code == 6


def test_a_uid_without_a_name_verifies_nobody() -> None:
    assert Dialogue(peer=Peer(Trust.ITSELF, 1000, None))(begin(b"")).code == 6


def test_a_user_process_cannot_bring_a_password_nor_get_one() -> None:
    talk = Dialogue(peer=ALICE, mode=Mode.COMBINED)(begin(authtok=Secret(b"hunter2123456"), options=TRY))
    assert talk.typed is None

    talk(ask(), answer(b"hunter2123456"), Accepted("e", "totp", "1", password=PASSWORD))
    assert talk.ops == (Result(0),)


def test_root_may_use_the_user_socket_for_anybody() -> None:
    assert Dialogue(peer=Peer(Trust.ITSELF, 0))(begin(b"bob")).state is State.OPENING


# The account phase


def account(*options: bytes, service: bytes = b"sshd") -> Begin:
    return begin(service=service, phase=Phase.ACCOUNT, options=options)


def test_account_without_require_mfa_has_no_opinion() -> None:
    assert Dialogue()(account()).ops == (Result(25),)


@pytest.mark.parametrize("service", [b"cron", b"crond", b"atd", b"systemd-user", b"sudo"])
def test_services_that_nobody_logs_in_to_are_let_through(service: bytes) -> None:
    assert Dialogue()(account(b"require_mfa", service=service)).ops == (Result(0),)


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (ask(), 6),
        (ACCEPTED, 6),
        (Pending("p", "", 2e9), 6),
        (Rejected("e", Reason.NOT_ENROLLED), 6),
        (Exempt("e", Exemption.POLICY, "r"), 0),
        (Unavailable("e", Unready.STORE), 9),
        (Unavailable("e", Unready.STORE_FULL), 6),
    ],
)
def test_account_asks_whether_no_second_factor_is_fine(verdict: Verdict, code: int) -> None:
    talk = Dialogue()(account(b"require_mfa"))
    assert talk.attempt is not None
    assert talk.attempt.interaction is Interaction.ONE_SHOT

    assert talk(verdict).code == code
    assert bool(only(talk.ops, Error)) == (code != 0)


# Out of band


def test_an_out_of_band_factor_is_waited_for() -> None:
    talk = Dialogue()(begin(options=(b"timeout=60",)), ask(), answer(b"push"), Pending("p1", "Approve 47", 2e9))
    assert talk.ops == (Info("Approve 47"), Wait(60))
    assert talk.step.pause_s > 0
    assert talk.attempt is not None
    assert (talk.attempt.challenge_id, talk.typed) == ("p1", None)

    talk(Pending("p1", "Approve 47", 2e9))
    assert talk.ops == ()
    assert talk.attempt is not None

    assert talk(ACCEPTED).code == 0


# The whole table

EVENTS: dict[str, Event] = {
    "begin": begin(),
    "account": account(b"require_mfa"),
    "answer": answer(CODE),
    "two answers": Answer((Secret(b"1"), Secret(b"2"))),
    "cancel": Cancel(19),
    "junk": MessageRefused(Fault.MAGIC, "x"),
    "hang-up": HangUp(),
    "withdrawn": Withdrawn(Refusal.DEADLINE, "late"),
    "accepted": ACCEPTED,
    "exempt": Exempt("e", Exemption.POLICY, "r"),
    "challenge": ask(),
    "no question": Challenge("c", (), 2e9),
    "two questions": Challenge("c", ask().prompts * 2, 2e9),
    "enrolment": ask(PromptKind.ENROLMENT_CODE, enrolment=offer()),
    "acknowledgement": ask(PromptKind.ACKNOWLEDGEMENT, recovery_key=Secret(b"ABCD")),
    "pending": Pending("p", "Approve", 2e9),
    "rejected": WRONG,
    "locked": Rejected("e", Reason.LOCKED),
    "unavailable": Unavailable("e", Unready.STORE),
}

WAYS: dict[State, tuple[Event, ...]] = {
    State.FRESH: (),
    State.OPENING: (begin(),),
    State.FIRST_PASS: (begin(authtok=Secret(b"123456"), options=TRY),),
    State.PROMPTED: (begin(), ask()),
    State.JUDGING: (begin(), ask(), answer(CODE)),
    State.POLLING: (begin(), ask(), answer(CODE), Pending("p", "", 2e9)),
    State.ACCOUNT: (account(b"require_mfa"),),
    State.OVER: (begin(), ask(), Cancel(19)),
}
SUCCESSES = {
    (State.JUDGING, "accepted"),
    (State.POLLING, "accepted"),
    (State.FIRST_PASS, "accepted"),
    (State.ACCOUNT, "exempt"),
}
"""The only ways to PAM_SUCCESS."""


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("state", State, ids=lambda state: state.value)
def test_every_event_in_every_state_ends_in_a_known_state(state: State, name: str) -> None:
    """Either the conversation goes on with exactly one party to wait for, or it is over and has said a result once."""
    talk = Dialogue(attempts=2)(*WAYS[state])
    assert talk.state is state

    talk(EVENTS[name])

    if state is State.OVER:
        assert talk.step is NOTHING
    elif name == "hang-up":
        assert (talk.state, talk.ops, talk.attempt) == (State.OVER, (), None)
    elif talk.state is State.OVER:
        assert talk.attempt is None
        assert (talk.code == 0) == ((state, name) in SUCCESSES)
    elif talk.state is State.PROMPTED:
        assert isinstance(talk.ops[-1], Ask)
        assert talk.attempt is None
    else:
        assert talk.attempt is not None
        assert not only(talk.ops, Ask)


@given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=25), st.sampled_from([ROOT, ALICE]), st.sampled_from(Mode))
def test_no_order_of_events_breaks_a_conversation(names: list[str], peer: Peer, mode: Mode) -> None:
    """Results come once, prompts never pass their bound, and success needs an Accepted or an Exempt of the gate."""
    talk = Dialogue(peer=peer, mode=mode, attempts=3)
    results, prompts, last = 0, 0, ""
    for name in names:
        over = talk.state is State.OVER
        talk(EVENTS[name])
        if not over:
            last = name
        results += len(only(talk.ops, Result))
        prompts += len(only(talk.ops, Ask))
        if over:
            assert talk.step is NOTHING
    assert results <= 1
    assert prompts <= 3 + 3
    if talk.state is State.OVER and talk.ops and result(talk.ops) == 0:
        assert last in ("accepted", "exempt")


def test_wrong_turns_of_the_peer_are_protocol_errors() -> None:
    for state, event in [
        (State.FRESH, answer(CODE)),
        (State.FRESH, Cancel(19)),
        (State.OPENING, begin()),
        (State.OPENING, answer(CODE)),
        (State.JUDGING, answer(CODE)),
        (State.PROMPTED, begin()),
    ]:
        talk = Dialogue()(*WAYS[state], event)
        assert talk.code == 3
        assert "protocol error" in only(talk.ops, Log)[0].text


def test_a_verdict_after_the_end_is_dropped() -> None:
    assert Dialogue()(begin(), ask(), answer(CODE), HangUp(), ACCEPTED).step is NOTHING


def test_no_secret_stands_in_a_step() -> None:
    talk = Dialogue()(begin(authtok=PASSWORD, options=TRY), ask(), answer(b"654321"))

    assert "654321" not in repr(talk.step)
    assert "hunter2" not in repr(talk.step)
