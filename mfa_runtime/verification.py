"""The gate: everything that an attempt needs before it can be judged, then the queue to the ledger.

Room rule: sequence, no decision. Name and policy first; what is slow (a first-factor backend, argon2) happens here, in bounded
pools and outside the transaction; what counts is judged in :mod:`mfa_runtime.ledger`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, assert_never

from mfa_core import oath, texts
from mfa_core.audit import AttemptDecided, Outcome
from mfa_core.errors import MfaError, Overloaded, StoreUnavailable, UsernameRefused
from mfa_core.identity import IdentityRules, normalise
from mfa_core.model import (
    Attempt,
    ChapAnswer,
    CredentialState,
    Door,
    FactorKind,
    FirstFactor,
    Interaction,
    Material,
    SplitMode,
)
from mfa_core.passcode import Passcode, PasscodeKind, read_passcode
from mfa_core.policy import Action, Decision, Policy, PolicyQuestion
from mfa_core.secret import Secret
from mfa_core.split import Split
from mfa_core.throttle import UNTOUCHED, Standing, Throttle, standing
from mfa_core.verdict import Accepted, Rejected, Unavailable, Unready, Verdict
from mfa_core.verifier import CHALLENGE_LIFETIME_S, Password, Proof, ProofState, Settings, Situation, Tag, readings
from mfa_runtime import one_time_hash
from mfa_runtime.counsel import Counsel, Counselled, Referral, Referred
from mfa_runtime.directory import Groups
from mfa_runtime.door_check import ByDoor, Told
from mfa_runtime.gate import Check
from mfa_runtime.group_commit import GroupCommit
from mfa_runtime.ledger import Ledger, Ruling
from mfa_runtime.look import Look
from mfa_runtime.primary import Primary, PrimaryUnavailable
from mfa_runtime.sealing import UnknownKey
from mfa_runtime.sitting import Entry, Origin
from mfa_runtime.store import accounts
from mfa_runtime.store.database import Store

log = logging.getLogger(__name__)

_Answer = Callable[[Verdict], None]
_Tell = Callable[[Ruling | BaseException], None]

HASHES_AT_ONCE = 2
"""Concurrent argon2 runs: 8 MiB each. More wait; a flood of long codes must not slow the others down."""
MAX_WAITING_HASHES = 64
MAX_HASHES_OF_ONE = MAX_WAITING_HASHES // 2
"""Of these, for one name: who floods it keeps nobody else from a recovery code."""
READS_AT_ONCE = 2


class Enroller(Protocol):
    """Turns a refusal into an enrolment inside the dialogue."""

    async def offer(self, attempt: Attempt, name: str) -> Verdict:
        """Begin: a challenge that shows a new credential."""
        ...

    def knows(self, challenge_id: str) -> bool:
        """Whether an enrolment with this challenge is under way."""
        ...

    async def answer(self, attempt: Attempt, name: str) -> Verdict:
        """Go on with the enrolment that ``attempt.challenge_id`` names."""
        ...

    async def replace_recovery_key(self, name: str) -> Secret:
        """Give the user a new recovery key in place of the one that was used."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """What a reload replaces, as one value."""

    identity: IdentityRules
    policy: Policy
    settings: Settings
    host_groups: frozenset[str] = frozenset()


_LETTERS = {
    PasscodeKind.RECOVERY: FactorKind.RECOVERY,
    PasscodeKind.RECOVERY_KEY: FactorKind.RECOVERY_KEY,
    PasscodeKind.BYPASS: FactorKind.BYPASS,
}


class Verification:
    """The gate of this process. Lives on one event loop."""

    def __init__(
        self,
        *,
        store: Store,
        ledger: Ledger,
        rules: Rules,
        groups: Groups,
        clock: Callable[[], float],
        capacity: int,
        primaries: Mapping[Door, Primary] | None = None,
        enroller: Enroller | None = None,
        counsel: Counsel | None = None,
    ) -> None:
        """``counsel`` is asked about every attempt, where this host has an authority; its ledger has a ``moment`` then."""
        self._counsel = counsel
        self._store = store
        self._ledger = ledger
        self._rules = rules
        self._groups = groups
        self._clock = clock
        self._primaries = dict(primaries or {})
        self._enroller = enroller
        self._capacity = capacity
        self._consulting: set[object] = set()
        self._scoped: dict[str, Settings] = {}
        self._writer: GroupCommit[Entry, Ruling] = GroupCommit(
            ledger.commit, capacity=capacity, idle=ledger.flush, settle=ledger.settle, process_now=ledger.commit_now
        )
        self._hashers = ThreadPoolExecutor(HASHES_AT_ONCE, thread_name_prefix="hash")
        self._hashing: Counter[str] = Counter()
        self._asked: set[asyncio.Task[Verdict]] = set()
        self._looking: list[tuple[Entry, Check, _Answer]] = []
        self._readers = ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="read")
        self._proving: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Attempts that wait for the store."""
        return self._writer.waiting

    def start(self) -> None:
        """Start the writer; call it on the loop that will decide."""
        self._writer.start()

    async def stop(self) -> None:
        """Answer what waits, write what is left, stop."""
        await self._writer.stop()
        for pool in (self._hashers, self._readers):
            pool.shutdown(wait=False, cancel_futures=True)

    def replace_rules(self, rules: Rules, primaries: Mapping[Door, Primary]) -> None:
        """From the next attempt on, these hold."""
        self._rules = rules
        self._primaries = dict(primaries)
        self._scoped = {}

    async def decide(self, attempt: Attempt) -> Verdict:
        """Decide one attempt: see :class:`mfa_runtime.gate.Gate`."""
        return await self._decided(attempt, self._primaries.get(attempt.door))

    async def _decided(self, attempt: Attempt, primary: Primary | None) -> Verdict:
        try:
            return await self._decide(attempt, primary)
        except Exception as err:  # noqa: BLE001  logged there, and refused
            return self._unavailable(attempt, err)

    def _unavailable(self, attempt: Attempt, err: BaseException) -> Verdict:
        """What broke, as a refusal. A bug refuses its login and leaves the others alone (ASVS 16.5.3: no fail-open)."""
        match err:
            case Overloaded():
                log.warning("attempt %s refused: %s", attempt.event_id, err)
                reason = Unready.OVERLOADED
            case PrimaryUnavailable():
                log.warning("attempt %s refused: the first factor could not be checked: %s", attempt.event_id, err)
                reason = Unready.BACKEND
            case StoreUnavailable():
                log.error("attempt %s refused: %s; %s", attempt.event_id, err, err.cure)
                reason = Unready.STORE
            case _:
                log.error("attempt %s refused: internal error", attempt.event_id, exc_info=err)
                reason = Unready.INTERNAL
        return self._noted(attempt, Unavailable(attempt.event_id, reason))

    def _noted(self, attempt: Attempt, verdict: Verdict) -> Verdict:
        """Give a refusal that the ledger did not judge its line in the audit log, with the next transaction."""
        if isinstance(verdict, Rejected | Unavailable):
            self._ledger.note(
                AttemptDecided(
                    event_id=verdict.event_id,
                    at=self._clock(),
                    door=attempt.door,
                    service=attempt.service,
                    user=attempt.username,
                    outcome=Outcome.REJECTED if isinstance(verdict, Rejected) else Outcome.UNAVAILABLE,
                    reason=verdict.reason,
                    source=attempt.source or "",
                    client=attempt.client,
                )
            )
        return verdict

    def ask(self, attempt: Attempt, answer: _Answer) -> None:
        """Decide one attempt: see :class:`mfa_runtime.gate.Gate`."""
        loop = asyncio.get_running_loop()
        try:
            entry = self._plain_entry(attempt)
            if entry is not None and self._counsel is not None:
                if self._consult_at_once(entry, self._counsel, partial(self._ruled, attempt, answer)):
                    return
            elif entry is not None:
                ruling = self._ledger.question(entry) if attempt.typed is None else None
                if ruling is None:
                    self._writer.submit_to(entry, partial(self._ruled, attempt, answer))
                else:
                    loop.call_soon(answer, ruling.verdict)
                return
        except Exception as err:  # noqa: BLE001  logged there, and refused
            loop.call_soon(answer, self._unavailable(attempt, err))
            return
        self._in_a_task(attempt, self._primaries.get(attempt.door), answer)

    def _in_a_task(self, attempt: Attempt, primary: Primary | None, answer: _Answer) -> None:
        task = asyncio.get_running_loop().create_task(self._decided(attempt, primary))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)
        # Cancelled is what is under way when the daemon stops: nobody is told anything then.
        task.add_done_callback(lambda decided: None if decided.cancelled() else answer(decided.result()))

    def ask_with(self, attempt: Attempt, check: Check, answer: _Answer) -> None:
        """Decide one attempt: see :class:`mfa_runtime.gate.Gate`.

        Those that are asked in one turn of the loop are looked up together after it.
        """
        rules, loop = self._rules, asyncio.get_running_loop()
        try:
            if attempt.first_factor is not FirstFactor.OURS or attempt.typed is None:
                raise ValueError("a door asked with a check of a password that is not in the attempt")
            if rules.policy.needs_groups or attempt.interaction is Interaction.PROMPTS:
                self._in_a_task(attempt, ByDoor(check), answer)
                return
            entry = self._entry(attempt, _canonical(attempt.username, rules), None, rules)
        except Exception as err:  # noqa: BLE001  logged there, and refused
            loop.call_soon(answer, self._unavailable(attempt, err))
            return
        if not self._looking:
            loop.call_soon(self._look)
        self._looking.append((entry, check, answer))

    def _look(self) -> None:
        """Look up who asks, in one read on the loop's thread, and have the passwords checked."""
        asking, self._looking = self._looking, []
        seen = self._ledger.look([entry for entry, _, _ in asking])
        if seen is None:
            for entry, check, answer in asking:
                self._in_a_task(entry.attempt, ByDoor(check), answer)
            return
        for (entry, check, answer), look in zip(asking, seen, strict=True):
            try:
                self._have_checked(entry, look, check, answer)
            except Exception as err:  # noqa: BLE001  logged there, and refused
                answer(self._unavailable(entry.attempt, err))

    def _have_checked(self, entry: Entry, look: Look, check: Check, answer: _Answer) -> None:
        situation = self._situation(entry, look.account, look.throttle)
        found = readings(entry.attempt, situation, entry.settings)
        hidden = False
        if found:
            chosen = _likeliest(found, situation, entry.settings)
            hidden = _hides_code(chosen, found)
            if chosen.passcode.kind in _LETTERS:
                self._in_a_task(entry.attempt, ByDoor(check), answer)
                return
            # A directory would take an empty one for an unauthenticated bind and say yes (RFC 4513 section 5.1.2).
            if chosen.password and self._may_ask_backend(situation, entry.settings, chosen):
                told = Told(entry.attempt.event_id, partial(self._checked, entry, chosen, look, answer, hidden))
                try:
                    check(chosen.password, told)
                except Exception as err:  # noqa: BLE001  as if it had told it
                    told(err)
                return
            entry = entry.read_as(chosen, Password.BAD, look)
        self._submit(entry, hidden, partial(self._ruled, entry.attempt, answer))

    def _checked(
        self, entry: Entry, chosen: Split, look: Look, answer: _Answer, hidden: bool, outcome: Password | Exception
    ) -> None:
        try:
            if isinstance(outcome, Exception):
                raise outcome
            self._submit(entry.read_as(chosen, outcome, look), hidden, partial(self._ruled, entry.attempt, answer))
        except Exception as err:  # noqa: BLE001  logged there, and refused
            answer(self._unavailable(entry.attempt, err))

    def _submit(self, entry: Entry, hidden: bool, tell: _Tell) -> None:
        """To the ledger, where there is one to ask by way of the authority."""
        if self._counsel is None:
            self._writer.submit_to(entry, tell)
        else:
            self._consult(entry, self._counsel, () if entry.reading is None else (entry.reading,), hidden, None, tell)

    def _consult_at_once(self, entry: Entry, counsel: Counsel, tell: _Tell) -> bool:
        """Ask about an entry that needs nothing else; False where it takes longer to know how it can be read."""
        found: tuple[Split, ...] = ()
        if entry.attempt.typed is not None:
            account, throttle = None, UNTOUCHED
            if not _reads_alike(entry):
                seen = self._ledger.look([entry])
                if seen is None:
                    return False
                account, throttle = seen[0].account, seen[0].throttle
            found = readings(entry.attempt, self._situation(entry, account, throttle), entry.settings)
        self._consult(entry, counsel, found, False, None, tell)
        return True

    def _consult(
        self,
        entry: Entry,
        counsel: Counsel,
        found: tuple[Split, ...],
        hidden: bool,
        groups: frozenset[str] | None,
        tell: _Tell,
    ) -> None:
        """Ask the authority, and then the ledger with what it says; a question that is answered by another one stays here.

        Whoever waited for the answer may be gone when it comes: what the authority has accepted is written all the same.

        Raises:
            Overloaded: too many wait already.
        """
        loop = asyncio.get_running_loop()
        if entry.attempt.typed is None and not entry.decision.trust_window_s:
            ruling = self._ledger.question(entry)
            if ruling is not None:
                loop.call_soon(tell, ruling)
                return
        if not entry.name:
            self._writer.submit_to(entry, tell)  # nobody's: the authority has no other answer to it
            return
        waiting = self._writer.waiting + len(self._consulting)
        if waiting >= self._capacity:
            raise Overloaded(f"{waiting} attempts wait for the authority or the store already")
        asked = object()
        self._consulting.add(asked)

        def told(counselled: Counselled) -> None:
            if asked not in self._consulting:
                log.error("attempt %s: the counsel has told twice", entry.attempt.event_id)
                return
            self._consulting.discard(asked)
            try:
                self._writer.submit_to(entry.after(counselled, found), tell)
            except Exception as err:  # noqa: BLE001  logged where it is answered, and refused
                loop.call_soon(tell, err)

        try:
            counsel.ask(Referred(entry.attempt, entry.name, found, entry.password, hidden, groups), told)
        except Exception:
            if asked in self._consulting:
                self._consulting.discard(asked)
                raise
            log.exception("attempt %s: the counsel broke after it had told", entry.attempt.event_id)

    def refer(self, referral: Referral, told: Callable[[Ruling | BaseException], None]) -> None:
        """Decide, on an authority, what a host asks: by this authority's policy, accounts, throttle and hashes.

        ``told`` is called once, on the loop, after this has returned; the ruling is durable then, and
        :func:`mfa_runtime.ledger.ruled_of` makes of it what the host is told. An exception is told where nothing could be
        decided: the host is to take this authority for out of reach. Whether the user is entitled to the host was asked before,
        and so was whether this event was decided already. Never raises.
        """
        loop = asyncio.get_running_loop()
        tell = partial(self._tell_referred, referral.attempt, told)
        try:
            entry = self._referred(referral)
            ruling = self._ledger.question(entry) if referral.attempt.typed is None else None
            letters = next((one.passcode for one in referral.found if one.passcode.kind in _LETTERS), None)
            if ruling is not None:
                loop.call_soon(told, ruling)
            elif letters is None:
                self._writer.submit_to(entry, tell)
            else:
                task = loop.create_task(self._prove_referred(entry, letters, tell))
                self._proving.add(task)
                task.add_done_callback(self._proving.discard)
        except Exception as err:  # noqa: BLE001  logged there, and told
            loop.call_soon(tell, err)

    def action_for(self, referral: Referral) -> Action:
        """What the policy does with such an attempt: where it denies or exempts, nobody has to be entitled."""
        name = _canonical(referral.name, self._rules)
        return self._decision(self._rules, referral.attempt, name, referral.groups, referral.host_groups).action

    def _tell_referred(
        self, attempt: Attempt, told: Callable[[Ruling | BaseException], None], result: Ruling | BaseException
    ) -> None:
        if isinstance(result, BaseException):
            self._unavailable(attempt, result)  # for the log
        told(result)

    async def _prove_referred(self, entry: Entry, passcode: Passcode, tell: _Tell) -> None:
        try:
            proof = await self._proof(entry.name, _LETTERS[passcode.kind], passcode)
            self._writer.submit_to(replace(entry, proof=proof, proof_position=passcode.recovery_index), tell)
        except Exception as err:  # noqa: BLE001  logged there, and told
            tell(err)

    def _referred(self, referral: Referral) -> Entry:
        """What a host asks, as if it had been typed here, except for what only the host knows."""
        rules, attempt = self._rules, referral.attempt
        name = _canonical(referral.name, rules)
        decision = self._decision(rules, attempt, name, referral.groups, referral.host_groups)
        group = next(iter(referral.host_groups), "")
        settings = self._scoped.get(group)
        if settings is None:
            settings = self._scoped[group] = replace(rules.settings, scope=group)
        tag: Tag = b""
        if attempt.challenge_until:
            # When it ends the host's clock says, which has made it; that it is answered once is for us to see to.
            attempt = replace(attempt, challenge_until=self._clock() + CHALLENGE_LIFETIME_S)
        elif attempt.typed is not None and attempt.interaction in _RETRANSMITS:
            tag = partial(self._referral_tag, referral)
        origin = Origin(referral.host_id, referral.host_name, referral.hidden)
        return Entry(
            attempt, name, decision, settings, referral.password, tag=tag, found=referral.found, origin=origin,
        )  # fmt: skip

    def _referral_tag(self, referral: Referral) -> bytes:
        """As :meth:`_tag`, of the codes: b"", which is like no other, where there is none, for the passwords are not here."""
        attempt = referral.attempt
        if isinstance(attempt.veiled, ChapAnswer):
            typed = bytes((attempt.veiled.identifier,)) + attempt.veiled.challenge + attempt.veiled.response
        else:
            codes = [one.passcode for one in referral.found if one.passcode.text]
            typed = b"\0".join(f"{one.kind}{one.recovery_index}:".encode() + one.text.reveal() for one in codes)
        label = f"typed|{attempt.client}|{attempt.source}"
        return self._ledger.keyring.tag(label, typed)[:8] if typed else b""

    def canonical(self, username: str) -> str:
        """The identity of a name: see :class:`mfa_runtime.gate.Gate`."""
        return _canonical(username, self._rules)

    def _plain_entry(self, attempt: Attempt) -> Entry | None:
        """The entry, if nothing has to be waited for: no group, backend or hash, and no dialogue that goes on; else None."""
        rules, typed = self._rules, attempt.typed
        if rules.policy.needs_groups or attempt.interaction is Interaction.PROMPTS:
            return None
        if typed is not None and attempt.first_factor is FirstFactor.OURS:
            return None
        entry = self._entry(attempt, _canonical(attempt.username, rules), None, rules)
        if typed and attempt.veiled is None and not _is_plainly_digits(attempt, entry.decision, typed):
            return None
        return entry

    def _ruled(self, attempt: Attempt, answer: _Answer, result: Ruling | BaseException) -> None:
        answer(self._unavailable(attempt, result) if isinstance(result, BaseException) else result.verdict)

    async def _decide(self, attempt: Attempt, primary: Primary | None) -> Verdict:
        rules = self._rules
        name = _canonical(attempt.username, rules)
        if attempt.challenge_id and self._enroller is not None and self._enroller.knows(attempt.challenge_id):
            return self._noted(attempt, await self._enroller.answer(attempt, name))
        groups = await self._groups.groups_of(name) if rules.policy.needs_groups and name else None
        entry = self._entry(attempt, name, groups, rules)
        typed = attempt.typed
        found, hidden = None, False
        if typed and attempt.veiled is None:
            ours = attempt.first_factor is FirstFactor.OURS
            if ours or not _is_plainly_digits(attempt, entry.decision, typed) or not self._may_consult_at_once(entry):
                entry, found, hidden = await self._prepare(entry, primary)
        if self._counsel is not None:
            ruling = await self._counselled(entry, self._counsel, found, hidden, groups)
        else:
            at_once = self._ledger.question(entry) if typed is None else None
            ruling = await self._writer.submit(entry) if at_once is None else at_once
        if ruling.may_enrol and self._enroller is not None:
            return await self._enroller.offer(attempt, name)
        return await self._with_new_key(attempt, name, ruling.verdict)

    def _may_consult_at_once(self, entry: Entry) -> bool:
        """Whether how a text can be read depends on nobody's codes, or nobody else has to know."""
        return self._counsel is None or _reads_alike(entry)

    async def _counselled(
        self,
        entry: Entry,
        counsel: Counsel,
        found: tuple[Split, ...] | None,
        hidden: bool,
        groups: frozenset[str] | None,
    ) -> Ruling:
        """As the callers of :meth:`ask` are told, for one that waits. ``found`` is None where nothing was prepared."""
        if found is None:
            found = readings(entry.attempt, self._situation(entry, None, UNTOUCHED), entry.settings)
        future: asyncio.Future[Ruling] = asyncio.get_running_loop().create_future()

        def tell(result: Ruling | BaseException) -> None:
            if future.done():
                return
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

        self._consult(entry, counsel, found, hidden, groups, tell)
        return await future

    def _decision(
        self, rules: Rules, attempt: Attempt, name: str, groups: frozenset[str] | None, host_groups: frozenset[str]
    ) -> Decision:
        """Ask the policy."""
        return rules.policy.decide(
            PolicyQuestion(
                door=attempt.door,
                service=attempt.service,
                username=name,
                groups=groups,
                source=attempt.source,
                now=self._clock(),
                host_groups=host_groups,
                methods=attempt.methods,
            )
        )

    def _entry(self, attempt: Attempt, name: str, groups: frozenset[str] | None, rules: Rules) -> Entry:
        """What the policy says of an attempt at one of our doors."""
        decision = self._decision(rules, attempt, name, groups, rules.host_groups)
        typed = attempt.typed
        tag: Tag = b""
        if typed and not attempt.challenge_until and attempt.interaction in _RETRANSMITS:
            tag = partial(self._tag, attempt, typed)
        return Entry(attempt, name, decision, rules.settings, tag=tag)

    async def _with_new_key(self, attempt: Attempt, name: str, verdict: Verdict) -> Verdict:
        if (
            isinstance(verdict, Accepted)
            and verdict.factor == FactorKind.RECOVERY_KEY
            and attempt.interaction is Interaction.PROMPTS
            and self._enroller is not None
        ):
            # A saved recovery code is replaced when it is used (NIST SP 800-63B-4 section 4.2.1.1).
            try:
                key = await self._enroller.replace_recovery_key(name)
            except MfaError as err:  # the login is recorded and good; the old key is spent all the same
                log.error("attempt %s: the recovery key could not be replaced: %s; %s", attempt.event_id, err, err.cure)
                return verdict
            return replace(verdict, recovery_key=key, notices=(texts.RECOVERY_KEY_REPLACED,))
        return verdict

    def _tag(self, attempt: Attempt, typed: Secret) -> bytes:
        label = f"typed|{attempt.client}|{attempt.source}"
        return self._ledger.keyring.tag(label, typed.reveal())[:8]

    def _situation(self, entry: Entry, account: accounts.Account | None, throttle: Throttle) -> Situation:
        return Situation(
            name=entry.name,
            user=account.user if account else None,
            credentials=account.credentials if account else (),
            throttle=throttle,
            decision=entry.decision,
            now=self._clock(),
        )

    async def _prepare(self, entry: Entry, primary: Primary | None) -> tuple[Entry, tuple[Split, ...], bool]:
        """Check the password where it is ours, and the hash where letters were typed and we have it: at most one of each.

        The readings that are left, and whether a code may stand in what is taken for a password, are for the authority.
        """
        account, throttle = await asyncio.get_running_loop().run_in_executor(self._readers, self._read, entry)
        situation = self._situation(entry, account, throttle)
        found = readings(entry.attempt, situation, entry.settings)
        hidden = False
        if not found:
            return entry, found, hidden
        if entry.attempt.first_factor is FirstFactor.OURS:
            chosen = _likeliest(found, situation, entry.settings)
            hidden = _hides_code(chosen, found)
            found = (chosen,)
            entry = entry.read_as(chosen, Password.BAD)
            if self._may_ask_backend(situation, entry.settings, chosen):
                entry = entry.read_as(chosen, await self._check(entry, chosen.password, primary))
        for reading in found if self._counsel is None else ():
            kind = _LETTERS.get(reading.passcode.kind)
            if kind is not None:
                proof = await self._proof(entry.name, kind, reading.passcode)
                return replace(entry, proof=proof, proof_position=reading.passcode.recovery_index), found, hidden
        return entry, found, hidden

    def _may_ask_backend(self, situation: Situation, settings: Settings, reading: Split) -> bool:
        """Whether the password is worth asking about: directories count wrong ones, and a throttled guesser must not get there.

        What is not asked stays BAD, so that nothing is let in when the wait ends between this look and the judgement.
        """
        if situation.decision.action is Action.DENY:
            return False  # refused whatever it says, and not charged
        where, _ = standing(situation.throttle, situation.now, settings.throttle)
        return where is Standing.OPEN or (where is Standing.LOCKED and reading.passcode.kind in _LETTERS)

    async def _proof(self, name: str, kind: FactorKind, passcode: Passcode) -> Proof | None:
        if self._hashing.total() >= MAX_WAITING_HASHES or self._hashing[name] >= MAX_HASHES_OF_ONE:
            raise Overloaded(f"{self._hashing.total()} attempts wait for a hash already, {self._hashing[name]} of this user")
        self._hashing[name] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._hashers, self._prove, name, kind, passcode)
        finally:
            self._hashing[name] -= 1
            if not self._hashing[name]:
                del self._hashing[name]

    @staticmethod
    async def _check(entry: Entry, password: Secret, primary: Primary | None) -> Password:
        if primary is None:
            raise PrimaryUnavailable("no first-factor backend is configured", cure="set `primary` for this door")
        if not password:
            # A directory would take this for an unauthenticated bind and say yes (RFC 4513 section 5.1.2).
            return Password.BAD
        good = await primary.check(entry.name, password, entry.attempt)
        return Password.GOOD if good else Password.BAD

    def _read(self, entry: Entry) -> tuple[accounts.Account | None, Throttle]:
        try:
            with self._store.reading() as connection:
                return self._ledger.standing(connection, entry)
        except UnknownKey:
            self._ledger.reload_keys()
            with self._store.reading() as connection:
                return self._ledger.standing(connection, entry)

    def _prove(self, name: str, kind: FactorKind, passcode: Passcode) -> Proof | None:
        with self._store.reading() as connection:
            row = accounts.one_time_row(connection, name, kind, passcode.recovery_index)
        keyring = self._ledger.keyring
        stored, place = one_time_hash.DUMMY, one_time_hash.NOWHERE
        if row is not None:
            stored, place = row.hash, one_time_hash.place_of(row.id, row.user_id)
        fits = one_time_hash.matches(stored, passcode.text, place, keyring=keyring)
        if row is None or not fits:
            return None
        state = ProofState.USABLE
        if row.uses_left <= 0:
            state = ProofState.USED
        elif row.not_after and self._clock() >= row.not_after:
            state = ProofState.EXPIRED
        return Proof(kind, row.id, state)


def _canonical(username: str, rules: Rules) -> str:
    try:
        return normalise(username, rules.identity)
    except UsernameRefused:
        return ""


def _is_plainly_digits(attempt: Attempt, decision: Decision, typed: Secret) -> bool:
    """Whether no letters can be a code here: the common case, which needs nothing but the ledger."""
    raw = typed.reveal()
    grammar = attempt.grammar if attempt.grammar_is_final else decision.grammar or attempt.grammar
    match grammar.mode:
        case SplitMode.SEPARATE | SplitMode.OTP_ONLY:
            return raw.isdigit()
        case SplitMode.APPEND:
            return raw[-6:].isdigit()
        case SplitMode.PASSWORD:
            return True
        case SplitMode.AUTO:
            return raw.isdigit() or (raw[-6:].isdigit() and read_passcode(raw).kind not in _LETTERS)
        case SplitMode.SEPARATOR | SplitMode.KEYWORD:
            return raw.rpartition(grammar.separator.encode("utf-8", "surrogateescape") or b",")[2].isdigit()
        case _:
            assert_never(grammar.mode)


def _likeliest(found: tuple[Split, ...], situation: Situation, settings: Settings) -> Split:
    """Which reading's password to check, as there may be only one check.

    The one whose code fits now; else one with a code of letters, which nobody ends a password in; else one whose code may be
    that of a credential of which nothing is here; else that all of it is the password, where that may be; else the first.
    """
    if len(found) == 1:
        return found[0]
    elsewhere: Split | None = None
    for reading in found:
        if reading.passcode.kind is not PasscodeKind.DIGITS:
            continue
        code = reading.passcode.text.reveal().decode("ascii")
        for credential in situation.credentials:
            if credential.material is Material.NONE:
                if elsewhere is None and len(code) == credential.digits:
                    elsewhere = reading
            elif credential.state is CredentialState.ACTIVE:
                result = oath.match(credential, code, now=situation.now, window=settings.window, max_drift=settings.max_drift)
                if result.fit is not oath.Fit.NONE:
                    return reading
    for reading in found:
        if reading.passcode.kind in _LETTERS:
            return reading
    if elsewhere is not None:
        return elsewhere
    return found[-1] if found[-1].passcode.kind is PasscodeKind.ABSENT else found[0]


def _hides_code(chosen: Split, found: tuple[Split, ...]) -> bool:
    """Whether all of it was taken for the password, and a code could be read behind a shorter one."""
    return chosen.passcode.kind is PasscodeKind.ABSENT and any(one.passcode.kind is not PasscodeKind.ABSENT for one in found)


def _reads_alike(entry: Entry) -> bool:
    """Whether what was typed is read in the same way whoever has typed it."""
    attempt = entry.attempt
    grammar = attempt.grammar if attempt.grammar_is_final else entry.decision.grammar or attempt.grammar
    return attempt.veiled is not None or grammar.mode is SplitMode.SEPARATE


_RETRANSMITS = {Interaction.ONE_SHOT, Interaction.CHALLENGES}
