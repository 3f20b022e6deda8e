"""What comes next in one conversation between a PAM module and the gate?

Room rule: the order of things in one PAM phase lives here, in ``Conversation.TRANSITIONS``, and only here. Sans-IO: an event
goes in (a message of the module, a verdict of the gate, a hang-up), a :class:`Step` comes out (operations for the module, an
attempt for the gate, or both). This file knows no socket, no clock and no PAM number, and decides nobody's login: verdicts do.

::

    FRESH --Begin--> OPENING --Challenge--> PROMPTED --Answer--> JUDGING --Accepted/Rejected/...--> OVER
                 |      ^                      ^  ^                |  |
                 |      +----- Rejected, and attempts are left ----+  |
                 |      |                      +------ Challenge -----+
                 +--> FIRST_PASS (a password that the stack has)      +--Pending--> POLLING
                 +--> ACCOUNT (phase 2) --any verdict--> OVER

A missing key is an error: of the peer when the event is its message, of ours when it is a verdict. Both end in OVER, refused.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from mfa_core.errors import InvalidInput
from mfa_core.model import SEPARATE, Attempt, FirstFactor, Grammar, Interaction, SplitMode
from mfa_core.secret import Secret
from mfa_core.verdict import (
    Accepted,
    Challenge,
    Exempt,
    Pending,
    Prompt,
    PromptKind,
    Reason,
    Rejected,
    Unavailable,
    Verdict,
)
from pam_mfa.arguments import FirstPass, ModuleArguments, read_arguments
from pam_mfa.login import Login, Peer, Trust, read_login
from pam_mfa.plain_text import one_line, paragraph, quoted
from pam_mfa.qr import draw_enrolment, draw_recovery_key
from pam_mfa.results import (
    ACCOUNT_EXEMPT_SERVICE,
    ACCOUNT_NOT_ASKED,
    NOTICE_MAX,
    NOTICES_MAX,
    Dialogue,
    Final,
    Refusal,
    account_ops,
    authenticate_ops,
    cut_log,
    refusal_ops,
)
from pam_mfa.settings import Mode, PamDoorSettings, ServiceSettings
from pam_mfa.wire import (
    TEXT_MAX,
    WAIT_MAX_S,
    Answer,
    Ask,
    Begin,
    Cancel,
    Echo,
    Error,
    Info,
    Level,
    Log,
    MessageRefused,
    Op,
    Ops,
    Phase,
    Wait,
)

CODE_DIGITS_LEAST = 6
PAM_SILENT = 0x8000
POLL_S = 1.0
"""Pause between two questions after an out-of-band factor."""
ACKNOWLEDGEMENTS_MAX = 3
COMBINED_PROMPT = "Password and code: "

KBDINT_HINT = (
    "sshd's password method cannot answer this prompt: set KbdInteractiveAuthentication yes and PasswordAuthentication no"
    " in sshd_config"
)


class State(enum.Enum):
    """Where a conversation stands."""

    FRESH = "fresh"
    OPENING = "opening"
    """The gate was told who is asking, and says whether and what to ask."""
    FIRST_PASS = "first_pass"  # noqa: S105  the name of a state
    """The gate judges the password that the stack already had."""
    PROMPTED = "prompted"
    """The module waits for the person."""
    JUDGING = "judging"
    """The gate judges what was typed."""
    POLLING = "polling"
    """An out-of-band factor is under way."""
    ACCOUNT = "account"
    """The gate says whether this login may do without a second factor."""
    OVER = "over"


@dataclass(frozen=True, slots=True)
class HangUp:
    """The module has closed its end."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The door ends the conversation for a reason of its own: a deadline, a limit, a shutdown."""

    refusal: Refusal
    why: str


Event = Begin | Answer | Cancel | MessageRefused | HangUp | Withdrawn | Verdict


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now: send ``ops`` if there are any, then ask the gate ``attempt`` if there is one, after ``pause_s``."""

    ops: Ops = ()
    attempt: Attempt | None = None
    pause_s: float = 0.0


NOTHING = Step()

RETRYABLE = frozenset(
    {
        Reason.MISMATCH,
        Reason.REPLAYED,
        Reason.MALFORMED,
        Reason.NO_CODE,
        Reason.EMPTY,
        Reason.REPEATED,
        Reason.FACTOR_NOT_ALLOWED,
        Reason.EXPIRED,
        Reason.CHALLENGE_EXPIRED,
        Reason.NEEDS_AUTHORITY,
        # who is unknown, not enrolled or has a wrong password is asked as often as who types a wrong code
        Reason.UNKNOWN_USER,
        Reason.USERNAME_REFUSED,
        Reason.NOT_ENROLLED,
        Reason.FIRST_FACTOR_FAILED,
    }
)


def could_hold_code(password: Secret, grammar: Grammar) -> bool:
    """Whether trying ``password`` as password and code makes sense: a try may cost a failure on the account's throttle."""
    raw = password.reveal()
    if grammar.mode in (SplitMode.SEPARATOR, SplitMode.KEYWORD):
        return grammar.separator.encode() in raw
    tail = raw[-CODE_DIGITS_LEAST:]
    ends_in_code = len(tail) == CODE_DIGITS_LEAST and tail.isdigit()
    if grammar.mode is SplitMode.APPEND:
        return ends_in_code
    return ends_in_code and raw.isdigit()


class Conversation:
    """One PAM phase of one peer. Feed it events with :meth:`receive`; it is done when :attr:`state` is OVER."""

    __slots__ = (
        "_acknowledgements",
        "_arguments",
        "_asked",
        "_authtok",
        "_challenge_id",
        "_codes",
        "_dialogue",
        "_echo",
        "_first_pass_tried",
        "_held",
        "_kind",
        "_login",
        "_new_event_id",
        "_peer",
        "_service",
        "_settings",
        "_shown_uri",
        "_silent",
        "limit_s",
        "state",
    )

    def __init__(self, settings: PamDoorSettings, peer: Peer, new_event_id: Callable[[], str]) -> None:
        self.state = State.FRESH
        self.limit_s = settings.conversation_s
        """The longest that this conversation may take, seconds; BEGIN may shorten it."""
        self._settings = settings
        self._peer = peer
        self._new_event_id = new_event_id
        self._service: ServiceSettings = settings.default_service
        self._arguments: ModuleArguments = _NO_ARGUMENTS
        self._login: Login = _NOBODY
        self._authtok: Secret | None = None
        self._first_pass_tried = False
        self._silent = False
        self._dialogue = Dialogue.NONE
        self._held: list[Op] = []
        """Texts and log lines that go out with the next operations."""
        self._kind = PromptKind.CODE
        self._echo = Echo.OFF
        self._challenge_id = ""
        self._codes = 0
        self._acknowledgements = 0
        self._asked = 0
        """Code prompts that count against the service's ``attempts``."""
        self._shown_uri: Secret | None = None

    @property
    def username(self) -> str:
        """The name that BEGIN presented; empty before."""
        return self._login.username

    def receive(self, event: Event) -> Step:
        """Take one event and say what is next. Never raises for what a peer or the gate can do."""
        if self.state is State.OVER:
            return NOTHING  # a verdict that nobody waits for any more
        act = self.TRANSITIONS.get((self.state, type(event)))
        if act is not None:
            return act(self, event)
        match event:
            case MessageRefused():
                return self._refuse(Refusal.PROTOCOL, f"protocol error: {event}")
            case Withdrawn(refusal, why):
                return self._refuse(refusal, why)
            case HangUp():
                self.state = State.OVER
                return NOTHING
            case Begin() | Answer() | Cancel():
                name = type(event).__name__.upper()
                return self._refuse(Refusal.PROTOCOL, f"protocol error: {name} while {self.state.value}")
            case _:
                name = type(event).__name__
                return self._refuse(Refusal.INTERNAL, f"the gate answered {name} while {self.state.value}")

    # FRESH

    def _begin(self, begin: Begin) -> Step:
        try:
            arguments = read_arguments(begin.options)
        except InvalidInput as error:
            return self._refuse(Refusal.ARGUMENT, f"{error}; {error.cure}")
        peer = self._peer
        if peer.trust is Trust.ITSELF and peer.uid != 0 and begin.user != peer.name:
            return self._refuse(Refusal.NOT_ITSELF, f"uid {peer.uid} may verify only itself, not {quoted(begin.user)}")
        self._arguments = arguments
        self._service = _with_arguments(self._settings.service(begin.service.decode("utf-8", "replace")), arguments)
        self._login = read_login(begin, peer, self._service, arguments)
        self.limit_s = min(self._settings.conversation_s, arguments.timeout_s)
        self._silent = bool(begin.flags & PAM_SILENT)
        if begin.phase is Phase.ACCOUNT:
            return self._begin_account()
        if peer.trust is Trust.ANYBODY:
            self._authtok = begin.authtok
        return self._begin_authenticate()

    def _begin_account(self) -> Step:
        if not self._arguments.require_mfa:
            return self._end(ACCOUNT_NOT_ASKED)
        if self._login.service in self._settings.account_exempt:
            return self._end(ACCOUNT_EXEMPT_SERVICE)
        # ONE_SHOT: sshd answers no prompt in this phase (PAM_CONV_ERR), so nothing may be offered that needs one
        return self._ask_gate(State.ACCOUNT, interaction=Interaction.ONE_SHOT)

    def _begin_authenticate(self) -> Step:
        authtok, grammar = self._authtok, self._service.grammar
        alone = self._service.mode is Mode.CODE
        if self._arguments.first_pass is FirstPass.USE:
            if authtok is None:
                return self._refuse(Refusal.NO_PASSWORD, "use_first_pass, but no module before this one has set a password")
            return self._try_first_pass(authtok, SEPARATE if alone else grammar)
        if authtok is not None and could_hold_code(authtok, SEPARATE if alone else grammar):
            return self._try_first_pass(authtok, SEPARATE if alone else grammar)
        return self._open()

    def _try_first_pass(self, authtok: Secret, grammar: Grammar) -> Step:
        self._first_pass_tried = True
        return self._ask_gate(State.FIRST_PASS, typed=authtok, grammar=grammar)

    def _open(self) -> Step:
        return self._ask_gate(State.OPENING)

    # FIRST_PASS

    def _first_pass_rejected(self, rejected: Rejected) -> Step:
        if self._arguments.first_pass is FirstPass.USE or rejected.reason not in RETRYABLE:
            return self._finish(rejected)
        return self._open()  # what was typed for another module was no code: that is no error of the person

    # OPENING, JUDGING, FIRST_PASS, POLLING: the gate wants something asked

    def _challenged(self, challenge: Challenge) -> Step:
        if len(challenge.prompts) != 1:
            why = f"the gate asks {len(challenge.prompts)} questions at once, an attempt carries one answer"
            return self._refuse(Refusal.INTERNAL, why)
        shows_secret = challenge.enrolment is not None or challenge.recovery_key is not None
        if shows_secret and (self._peer.trust is not Trust.ANYBODY or self._silent):
            return self._refuse(Refusal.ENROLMENT_NOT_HERE, "an enrolment cannot be shown to this caller")
        prompt = challenge.prompts[0]
        if prompt.kind is PromptKind.ACKNOWLEDGEMENT:
            self._acknowledgements += 1
        else:
            self._codes += 1
        if self._codes > self._settings.max_prompts or self._acknowledgements > ACKNOWLEDGEMENTS_MAX:
            return self._refuse(Refusal.TOO_MANY_PROMPTS, f"more than {self._settings.max_prompts} questions in one login")
        self._kind = prompt.kind
        self._challenge_id = challenge.id
        self._echo = self._service.echo if prompt.kind is not PromptKind.PASSWORD_AND_CODE else Echo.OFF
        self.state = State.PROMPTED
        ops = self._release()
        ops += [Info(paragraph(one, limit=NOTICE_MAX)) for one in prompt.notices[:NOTICES_MAX]]
        ops += self._secrets_to_show(challenge)
        ops.append(Ask(self._prompt_text(prompt), self._echo))
        return Step(tuple(ops))

    def _secrets_to_show(self, challenge: Challenge) -> list[Op]:
        shown: list[Op] = []
        if challenge.enrolment is not None:
            uri = challenge.enrolment.otpauth_uri
            if self._shown_uri is None or not uri.same_as(self._shown_uri):
                shown.append(Info(draw_enrolment(challenge.enrolment, self._service.qr)))
            self._shown_uri = uri
        if challenge.recovery_key is not None:
            shown.append(Info(draw_recovery_key(challenge.recovery_key)))
        return shown

    def _prompt_text(self, prompt: Prompt) -> str:
        text = prompt.text
        if prompt.kind in (PromptKind.CODE, PromptKind.PASSWORD_AND_CODE):
            if self._service.prompt:
                text = self._service.prompt
            elif prompt.kind is PromptKind.CODE and self._service.mode is Mode.COMBINED:
                text = COMBINED_PROMPT
        return one_line(text, limit=TEXT_MAX)

    # PROMPTED

    def _answered(self, answer: Answer) -> Step:
        if len(answer.responses) != 1:
            return self._refuse(Refusal.PROTOCOL, f"protocol error: {len(answer.responses)} answers to one prompt")
        typed = answer.responses[0]
        self._dialogue = Dialogue.PROMPTED
        asks_code = self._kind in (PromptKind.CODE, PromptKind.PASSWORD_AND_CODE)
        if not asks_code:
            return self._ask_gate(State.JUDGING, typed=typed, grammar=SEPARATE)
        if self._service.mode is Mode.COMBINED or self._kind is PromptKind.PASSWORD_AND_CODE:
            return self._ask_gate(State.JUDGING, typed=typed, grammar=self._service.grammar)
        if self._authtok and typed.same_as(self._authtok):
            # sshd's password method gives the one password to every prompt (OpenSSH auth-pam.c, sshpam_passwd_conv)
            if self._first_pass_tried:
                return self._refuse(Refusal.REPEATED_PASSWORD, f"the password came back as the code; {KBDINT_HINT}")
            self._first_pass_tried = True
            self._held.append(Log(Level.WARNING, cut_log(f"mfad: the password came back as the code; {KBDINT_HINT}")))
            return self._ask_gate(State.JUDGING, typed=typed, grammar=self._service.grammar)
        return self._ask_gate(State.JUDGING, typed=typed, grammar=SEPARATE)

    def _cancelled(self, cancel: Cancel) -> Step:
        why = f"the prompt was not answered (PAM code {cancel.code}), user {quoted(self._login.username)}"
        if self._echo is Echo.ON:
            why += f"; with echo on, {KBDINT_HINT}, or turn echo off"
        return self._refuse(Refusal.CANCELLED, why)

    # JUDGING and POLLING

    def _rejected(self, rejected: Rejected) -> Step:
        self._asked += 1
        limit = self._settings.max_prompts
        if self._kind in (PromptKind.CODE, PromptKind.PASSWORD_AND_CODE):
            limit = min(limit, self._service.attempts)
        if rejected.reason not in RETRYABLE or self._asked >= limit or self._codes >= self._settings.max_prompts:
            return self._finish(rejected)
        if rejected.public_text:
            self._held.append(Error(paragraph(rejected.public_text, limit=NOTICE_MAX)))
        return self._open()

    def _pending(self, pending: Pending) -> Step:
        self._challenge_id = pending.id
        first = self.state is not State.POLLING
        step = self._ask_gate(State.POLLING, challenge_id=pending.id)
        if not first:
            return replace(step, pause_s=POLL_S)
        ops = self._release()
        if pending.text:
            ops.append(Info(paragraph(pending.text, limit=NOTICE_MAX)))
        ops.append(Wait(max(1, min(WAIT_MAX_S, int(self.limit_s)))))
        return replace(step, ops=tuple(ops), pause_s=POLL_S)

    def _finish(self, verdict: Final) -> Step:
        ops = authenticate_ops(
            verdict,
            login=self._login,
            trust=self._peer.trust,
            exempt=self._service.exempt,
            dialogue=self._dialogue,
        )
        return self._end(ops)

    # ACCOUNT

    def _account_decided(self, verdict: Verdict) -> Step:
        return self._end(account_ops(verdict, login=self._login, trust=self._peer.trust))

    # every state

    def _ask_gate(
        self,
        state: State,
        *,
        typed: Secret | None = None,
        grammar: Grammar | None = None,
        interaction: Interaction = Interaction.PROMPTS,
        challenge_id: str = "",
    ) -> Step:
        if grammar is None:
            grammar = self._service.grammar if self._service.mode is Mode.COMBINED else SEPARATE
        prompts = interaction is Interaction.PROMPTS
        attempt = self._login.attempt(
            self._new_event_id(),
            interaction=Interaction.ASKS if prompts and self._peer.trust is Trust.ITSELF else interaction,
            grammar=grammar,
            typed=typed,
            challenge_id=self._challenge_id if state is State.JUDGING else challenge_id,
            wait_s=self.limit_s if prompts else 0.0,
        )
        self.state = state
        return Step(attempt=attempt)

    def _release(self) -> list[Op]:
        held, self._held = self._held, []
        return held

    def _refuse(self, refusal: Refusal, why: str) -> Step:
        return self._end(refusal_ops(refusal, why))

    def _end(self, ops: Ops) -> Step:
        self.state = State.OVER
        self._authtok = None
        return Step((*self._release(), *ops))

    TRANSITIONS: ClassVar[Mapping[tuple[State, type], Callable[[Conversation, Any], Step]]] = {
        (State.FRESH, Begin): _begin,
        # the gate says whether to ask
        (State.OPENING, Challenge): _challenged,
        (State.OPENING, Pending): _pending,
        (State.OPENING, Exempt): _finish,
        (State.OPENING, Rejected): _finish,
        (State.OPENING, Unavailable): _finish,
        # it judges the stack's password
        (State.FIRST_PASS, Accepted): _finish,
        (State.FIRST_PASS, Rejected): _first_pass_rejected,
        (State.FIRST_PASS, Challenge): _challenged,
        (State.FIRST_PASS, Pending): _pending,
        (State.FIRST_PASS, Exempt): _finish,
        (State.FIRST_PASS, Unavailable): _finish,
        # the person types
        (State.PROMPTED, Answer): _answered,
        (State.PROMPTED, Cancel): _cancelled,
        # it judges that
        (State.JUDGING, Accepted): _finish,
        (State.JUDGING, Rejected): _rejected,
        (State.JUDGING, Challenge): _challenged,
        (State.JUDGING, Pending): _pending,
        (State.JUDGING, Exempt): _finish,
        (State.JUDGING, Unavailable): _finish,
        # an out-of-band factor
        (State.POLLING, Accepted): _finish,
        (State.POLLING, Rejected): _rejected,
        (State.POLLING, Challenge): _challenged,
        (State.POLLING, Pending): _pending,
        (State.POLLING, Exempt): _finish,
        (State.POLLING, Unavailable): _finish,
        # the account phase: anything but Exempt refuses
        (State.ACCOUNT, Accepted): _account_decided,
        (State.ACCOUNT, Rejected): _account_decided,
        (State.ACCOUNT, Challenge): _account_decided,
        (State.ACCOUNT, Pending): _account_decided,
        (State.ACCOUNT, Exempt): _account_decided,
        (State.ACCOUNT, Unavailable): _account_decided,
    }
    """The machine. Any: the key says which event the method takes. Accepted is missing in OPENING: nothing was typed yet."""


def _with_arguments(service: ServiceSettings, arguments: ModuleArguments) -> ServiceSettings:
    """Return ``service`` as the PAM line wants it. A primary backend verifies nothing in a mode that types no password."""
    changes: dict[str, object] = {
        name: value for name in ("mode", "prompt", "echo", "exempt") if (value := getattr(arguments, name)) is not None
    }
    if not changes:
        return service
    if arguments.mode is not None and arguments.mode is not service.mode:
        changes.setdefault("prompt", "")  # it was written for the other mode
        if service.first_factor is FirstFactor.OURS:
            changes["first_factor"] = FirstFactor.ELSEWHERE
    return replace(service, **changes)  # type: ignore[arg-type]  # keys are field names


_NO_ARGUMENTS = ModuleArguments()
_NOBODY = Login("", "", None, "", (), FirstFactor.ELSEWHERE)
