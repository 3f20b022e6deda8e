"""Enrolment inside the login dialogue: offer, code, recovery key, in.

Room rule: sequences what :mod:`mfa_runtime.administration.enrolment` does. It is reached only from an attempt whose first
factor is known to be verified, at a door that can ask (mfa_core.verifier says so), and from a network that may enrol.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from sqlalchemy import Connection, select

from mfa_core import texts
from mfa_core.audit import AttemptDecided, Outcome
from mfa_core.errors import Conflict, Overloaded
from mfa_core.model import Attempt, CredentialState, EnrolmentState, FactorKind, User
from mfa_core.secret import Secret
from mfa_core.verdict import (
    Accepted,
    Challenge,
    EnrolmentOffer,
    Prompt,
    PromptKind,
    Reason,
    Rejected,
    Verdict,
)
from mfa_runtime.administration.act import Act
from mfa_runtime.administration.enrolment import Begun, Confirmed, Parameters, begin, confirm
from mfa_runtime.administration.recovery import replace_recovery_key
from mfa_runtime.administration.users import find_or_add_user, find_user
from mfa_runtime.sealing import Keyring, RandomBytes, UnknownKey
from mfa_runtime.store import audit_log
from mfa_runtime.store.database import Store
from mfa_runtime.store.schema import credentials

T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_UNDER_WAY = 256
"""Dialogues at once; over this the person is told to try again."""
MAX_CODES = 3
"""Codes that may be wrong in one dialogue: each is a typing mistake of somebody who sees the secret."""
MAX_ACKNOWLEDGEMENTS = 3
DIALOGUE_S = 600.0


@dataclass(frozen=True, slots=True)
class _Dialogue:
    name: str
    begun: Begun
    expires_at: float
    wrong: int = 0
    confirmed: Confirmed | None = None


class LoginEnrolment:
    """The dialogues of this process, by challenge id. Lives on one event loop; the store is used in one thread."""

    def __init__(
        self,
        store: Store,
        *,
        keyring: Callable[[], Keyring],
        reload_keyring: Callable[[], Keyring],
        tell: Callable[[Sequence[str]], None],
        parameters: Parameters,
        may_enrol_from: Callable[[str | None], bool],
        clock: Callable[[], float],
        random: RandomBytes,
        node: str,
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._reload_keyring = reload_keyring
        self._tell = tell
        self._parameters = parameters
        self._may_enrol_from = may_enrol_from
        self._clock = clock
        self._random = random
        self._node = node
        self._dialogues: OrderedDict[str, _Dialogue] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="enrolment")

    def replace_settings(self, parameters: Parameters, may_enrol_from: Callable[[str | None], bool]) -> None:
        """From the next dialogue on, these hold."""
        self._parameters = parameters
        self._may_enrol_from = may_enrol_from

    def knows(self, challenge_id: str) -> bool:
        """Whether a dialogue with this challenge is under way."""
        return challenge_id in self._dialogues

    async def offer(self, attempt: Attempt, name: str) -> Verdict:
        """Make a pending credential and show it, once."""
        if not self._may_enrol_from(attempt.source):
            return Rejected(attempt.event_id, Reason.ENROLMENT_OFFERED, texts.MUST_ENROL)
        self._forget_old()
        if len(self._dialogues) >= MAX_UNDER_WAY:
            self._forget_superseded()
        if len(self._dialogues) >= MAX_UNDER_WAY:
            raise Overloaded(f"{MAX_UNDER_WAY} enrolments are under way")
        try:
            begun = await self._in_thread(self._begin, name)
        except Conflict as err:
            log.warning("%s cannot enrol at login: %s", attempt.event_id, err)
            return Rejected(attempt.event_id, Reason.NOT_ENROLLED, texts.MUST_ENROL)
        self._dialogues[attempt.event_id] = _Dialogue(name, begun, self._clock() + DIALOGUE_S)
        offer = EnrolmentOffer(begun.uri, begun.secret_base32, begun.issuer, name)
        return self._challenge(attempt.event_id, PromptKind.ENROLMENT_CODE, texts.ENROLMENT_PROMPT, enrolment=offer)

    async def answer(self, attempt: Attempt, name: str) -> Verdict:
        """Take the code, then the acknowledgement of the recovery key."""
        dialogue = self._dialogues.get(attempt.challenge_id)
        typed = attempt.typed
        if dialogue is None or dialogue.name != name or typed is None or self._clock() >= dialogue.expires_at:
            self._dialogues.pop(attempt.challenge_id, None)
            return Rejected(attempt.event_id, Reason.CHALLENGE_EXPIRED)
        try:
            if dialogue.confirmed is None:
                return await self._code(attempt, dialogue, typed)
            return await self._acknowledgement(attempt, dialogue, dialogue.confirmed, typed)
        except Conflict as err:
            log.warning("%s ends an enrolment at login: %s", attempt.event_id, err)
            self._dialogues.pop(attempt.challenge_id, None)
            return Rejected(attempt.event_id, Reason.CHALLENGE_EXPIRED)

    async def _code(self, attempt: Attempt, dialogue: _Dialogue, typed: Secret) -> Verdict:
        challenge_id = attempt.challenge_id
        outcome = await self._in_thread(self._confirm, dialogue, typed)
        if isinstance(outcome, Confirmed):
            self._dialogues[challenge_id] = replace(dialogue, confirmed=outcome, wrong=0)
            return self._challenge(
                challenge_id, PromptKind.ACKNOWLEDGEMENT, texts.ACKNOWLEDGE_PROMPT, recovery_key=outcome.recovery_key
            )
        if dialogue.wrong + 1 >= MAX_CODES:
            self._dialogues.pop(challenge_id, None)
            return Rejected(attempt.event_id, Reason.MISMATCH, texts.WRONG_ENROLMENT_CODE)
        self._dialogues[challenge_id] = replace(dialogue, wrong=dialogue.wrong + 1)
        return self._challenge(
            challenge_id, PromptKind.ENROLMENT_CODE, texts.ENROLMENT_PROMPT, notices=(texts.WRONG_ENROLMENT_CODE,)
        )

    async def _acknowledgement(
        self, attempt: Attempt, dialogue: _Dialogue, confirmed: Confirmed, typed: Secret
    ) -> Verdict:
        challenge_id = attempt.challenge_id
        expected = confirmed.recovery_key.reveal().replace(b"-", b"")[-4:]
        if hmac.compare_digest(typed.reveal().strip().upper(), expected):
            self._dialogues.pop(challenge_id, None)
            await self._in_thread(self._record_login, attempt, dialogue, confirmed)
            return Accepted(attempt.event_id, FactorKind.TOTP, f"totp:{confirmed.credential_id}", (texts.ENROLLED,))
        if dialogue.wrong + 1 >= MAX_ACKNOWLEDGEMENTS:
            self._dialogues.pop(challenge_id, None)
            return Rejected(attempt.event_id, Reason.CANCELLED, texts.NOT_ACKNOWLEDGED)
        self._dialogues[challenge_id] = replace(dialogue, wrong=dialogue.wrong + 1)
        return self._challenge(
            challenge_id,
            PromptKind.ACKNOWLEDGEMENT,
            texts.ACKNOWLEDGE_PROMPT,
            notices=(texts.WRONG_ACKNOWLEDGEMENT,),
        )

    async def replace_recovery_key(self, name: str) -> Secret:
        """Give the user a new recovery key."""
        return await self._in_thread(self._replace_key, name)

    def _replace_key(self, name: str) -> Secret:
        def work(keyring: Keyring) -> Secret:
            with self._changing(keyring, name) as (connection, act):
                key = replace_recovery_key(connection, act, find_user(connection, name))
                act.record(connection, "recovery.replace_key", name)
                return key

        return self._with_keys(work)

    def _challenge(
        self,
        challenge_id: str,
        kind: PromptKind,
        text: str,
        *,
        notices: tuple[str, ...] = (),
        enrolment: EnrolmentOffer | None = None,
        recovery_key: Secret | None = None,
    ) -> Challenge:
        expires_at = self._dialogues[challenge_id].expires_at
        return Challenge(challenge_id, (Prompt(kind, text, notices),), expires_at, enrolment, recovery_key)

    def _forget_old(self) -> None:
        now = self._clock()
        while self._dialogues and next(iter(self._dialogues.values())).expires_at <= now:
            self._dialogues.popitem(last=False)

    def _forget_superseded(self) -> None:
        """Somebody who begins again and again has one secret that counts, and takes one place."""
        latest = {dialogue.name: challenge_id for challenge_id, dialogue in self._dialogues.items()}
        for challenge_id, dialogue in list(self._dialogues.items()):
            if dialogue.confirmed is None and latest[dialogue.name] != challenge_id:
                del self._dialogues[challenge_id]

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    @contextmanager
    def _changing(self, keyring: Keyring, name: str) -> Iterator[tuple[Connection, Act]]:
        act = Act(actor=f"login:{name}", now=self._clock(), random=self._random, keyring=keyring, node=self._node)
        with self._store.writing() as connection:
            yield connection, act
        self._tell(act.told)

    def _begin(self, name: str) -> Begun:
        def work(keyring: Keyring) -> Begun:
            with self._changing(keyring, name) as (connection, act):
                user = find_or_add_user(connection, act, name)
                _may_still_enrol(user)
                return begin(connection, act, user, self._parameters)

        return self._with_keys(work)

    def _with_keys(self, work: Callable[[Keyring], T]) -> T:
        """Do ``work``, and once more with keys loaded anew when rotation has overtaken ours."""
        try:
            return work(self._keyring())
        except UnknownKey:
            return work(self._reload_keyring())

    def _confirm(self, dialogue: _Dialogue, typed: Secret) -> Confirmed | None:
        text = typed.reveal().decode("utf-8", "surrogateescape")

        def work(keyring: Keyring) -> Confirmed | None:
            with self._changing(keyring, dialogue.name) as (connection, act):
                user = find_user(connection, dialogue.name)
                _may_still_enrol(user)
                outcome = confirm(connection, act, user, text, credential_id=dialogue.begun.credential_id)
                return outcome if isinstance(outcome, Confirmed) else None

        return self._with_keys(work)

    def _record_login(self, attempt: Attempt, dialogue: _Dialogue, confirmed: Confirmed) -> None:
        event = AttemptDecided(
            event_id=attempt.event_id,
            at=self._clock(),
            door=attempt.door,
            service=attempt.service,
            user=dialogue.name,
            outcome=Outcome.ACCEPTED,
            source=attempt.source or "",
            client=attempt.client,
            factor=FactorKind.TOTP,
            credential=f"totp:{confirmed.credential_id}",
            step=confirmed.step,
            note="enrolled at this login",
        )
        with self._store.writing() as connection:
            user = find_user(connection, dialogue.name)
            state = connection.execute(select(credentials.c.state).where(credentials.c.id == confirmed.credential_id)).scalar()
            if user.locked or user.state is not EnrolmentState.ACTIVE or state != CredentialState.ACTIVE:
                raise Conflict(f"{user.name} was locked, or the new credential taken away, before the key was acknowledged")
            bodies = audit_log.append(connection, [event], node=self._node, keyring=self._keyring())
        self._tell(bodies)

    async def stop(self) -> None:
        """Let the thread go."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _may_still_enrol(user: User) -> None:
    """The attempt was judged a moment or some minutes ago: look again, in the transaction that changes something.

    Raises:
        Conflict: the user was locked since, or has got a factor in another way, beside which a stranger would put his own.
    """
    if user.locked:
        raise Conflict(f"{user.name} is locked")
    if user.state not in {EnrolmentState.NONE, EnrolmentState.INVITED, EnrolmentState.PENDING}:
        raise Conflict(f"the enrolment of {user.name} is {user.state} by now")
