"""One transaction for a batch of attempts: read, judge, spend, record.

Room rule: the only place where judgements become durable. Inside one writing transaction the attempts are judged one after
another, each on what the ones before it left, so that a batch is simple, serial and right; answers leave after its commit.
"""

from __future__ import annotations

import ipaddress
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from mfa_core import texts
from mfa_core.audit import AttemptDecided, Event, Outcome
from mfa_core.errors import MfaError, StoreCorrupt, StoreFull, StoreUnavailable
from mfa_core.model import Attempt, Credential, FactorKind, User
from mfa_core.policy import Decision
from mfa_core.split import Split
from mfa_core.throttle import CLEAN, UNTOUCHED, Record, Throttle
from mfa_core.verdict import Accepted, Challenge, Unavailable, Unready, Verdict
from mfa_core.verifier import Judgement, Password, Proof, ProofState, Settings, Situation, judge
from mfa_runtime.sealing import Keyring, UnknownKey
from mfa_runtime.store import accounts, audit_log
from mfa_runtime.store.accounts import Account
from mfa_runtime.store.database import Session, Store

log = logging.getLogger(__name__)

UNKNOWN_NAMES = 1 << 16
"""Names that the store does not know share this many throttle records: a flood of names cannot fill the disk."""
MAX_DEFERRED = 10_000
"""Challenge events that may wait for the next transaction."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An attempt that is ready to be judged: name normalised, policy asked, password and hash checked where there were any."""

    attempt: Attempt
    name: str
    decision: Decision
    settings: Settings
    password: Password = Password.NOT_ASKED
    proof: Proof | None = None
    proof_position: int = 0
    reading: Split | None = None
    tag: bytes = b""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What became of an entry. ``may_enrol``: the refusal may be turned into an enrolment."""

    verdict: Verdict
    may_enrol: bool = False


Sink = Callable[[Sequence[str]], None]
"""Receives canonical audit texts after their commit."""


class Lost(MfaError):
    """A compare-and-set did not win: another process was faster. Judge again on what is there now."""


class Ledger:
    """Judges batches against the store. One thread uses it (the group commit's)."""

    def __init__(
        self,
        store: Store,
        *,
        keyring: Keyring,
        reload_keyring: Callable[[], Keyring],
        node: str,
        clock: Callable[[], float],
        sink: Sink,
    ) -> None:
        self._session = store.session()
        self._asking = store.session()
        self._asks_at_once = store.answers_at_once
        self._keyring = keyring
        self._reload_keyring = reload_keyring
        self._node = node
        self._clock = clock
        self._sink = sink
        self._deferred: deque[AttemptDecided] = deque()
        self._told: deque[str] = deque(maxlen=MAX_DEFERRED)
        self.written = 0
        """Events that were committed: what the write-ahead log holds is about ten kilobytes each."""

    @property
    def keyring(self) -> Keyring:
        """The keys as last loaded."""
        return self._keyring

    def process(self, entries: Sequence[Entry]) -> list[Ruling]:
        """Answer every entry, in order. Never raises: what breaks is ``Unavailable``.

        Questions (nothing typed) are answered from a reading transaction when the answer is a challenge: it gives nothing
        away, so its event may wait for the next write. Everything else is written before it is answered.
        """
        rulings: list[Ruling | None] = [None] * len(entries)
        asking = [i for i, e in enumerate(entries) if e.attempt.typed is None]
        if asking:
            answers = self._questions(self._session, [entries[i] for i in asking])
            for i, ruling in zip(asking, answers, strict=True):
                rulings[i] = ruling
        rest = [i for i, ruling in enumerate(rulings) if ruling is None]
        if rest:
            for i, ruling in zip(rest, self._batch([entries[i] for i in rest]), strict=True):
                rulings[i] = ruling
        return [ruling for ruling in rulings if ruling is not None]

    def note(self, event: AttemptDecided) -> None:
        """Keep the event of a verdict that was found elsewhere, for the next transaction. Any thread may call it."""
        if len(self._deferred) < MAX_DEFERRED:
            self._deferred.append(event)

    def tell(self, bodies: Sequence[str]) -> None:
        """Hand the sinks what somebody else has committed to the audit log. Any thread may call it."""
        self._told.extend(bodies)

    def reload_keys(self) -> Keyring:
        """Load the keys again, because a value was sealed under one that is not here. Raises: MfaError."""
        self._keyring = self._reload_keyring()
        return self._keyring

    def flush(self) -> None:
        """Write the events that wait. Called when there is nothing else to do, and at the end."""
        try:
            if self._deferred:
                self._write([])
            elif self._told:
                self._speak([])
        except MfaError as err:
            log.error("%d audit events wait: %s", len(self._deferred), err)

    def question(self, entry: Entry) -> Ruling | None:
        """Answer one question where it is asked, on the loop's thread; None when it has to be queued.

        Most logins begin with one. A challenge is decided by a read of a few pages, which never waits for a writer; two
        hand-overs between threads cost more than that.
        """
        return self._questions(self._asking, [entry])[0] if self._asks_at_once else None

    def standing(self, connection: Connection, entry: Entry) -> tuple[Account | None, Throttle]:
        """What the store holds now about an entry's user and its throttle, for what must be known before it is judged.

        Raises:
            UnknownKey, StoreCorrupt, StoreUnavailable: as reading does.
        """
        sitting = _Sitting(connection, [entry], self._keyring, self._clock())
        return sitting.account(entry), sitting.throttle(entry)

    def _questions(self, session: Session, entries: Sequence[Entry]) -> list[Ruling | None]:
        try:
            with session.reading() as connection:
                sitting = _Sitting(connection, entries, self._keyring, self._clock())
                judged = [sitting.judge(entry) for entry in entries]
        except StoreCorrupt:
            # The writing path loads the keys again, and finds out whose row it is: the others are asked all the same.
            return [None] * len(entries)
        except MfaError as err:
            return [self._broken(entry, err) for entry in entries]
        rulings: list[Ruling | None] = []
        for judgement in judged:
            if isinstance(judgement.verdict, Challenge) and len(self._deferred) < MAX_DEFERRED:
                self._deferred.append(judgement.event)
                rulings.append(Ruling(judgement.verdict))
            else:
                rulings.append(None)
        return rulings

    def _batch(self, entries: Sequence[Entry]) -> list[Ruling]:
        try:
            return self._write(entries)
        except UnknownKey as err:
            return self._with_new_keys(entries, err)
        except (StoreCorrupt, Lost) as err:
            if len(entries) == 1:
                return [self._alone(entries[0], err)]
            # One row that does not open, or one lost race, is one login's trouble and not its neighbours'.
            return [ruling for entry in entries for ruling in self._batch([entry])]
        except MfaError as err:
            return [self._broken(entry, err) for entry in entries]
        except Exception:
            # A row or a text that nobody thought of: whose it is shows when each is judged alone, and nothing was written.
            if len(entries) > 1:
                return [ruling for entry in entries for ruling in self._batch([entry])]
            log.exception("attempt %s broke its judgement", entries[0].attempt.event_id)
            return [self._broken(entries[0], StoreCorrupt("internal error", cure="report the traceback above"))]

    def _with_new_keys(self, entries: Sequence[Entry], err: UnknownKey) -> list[Ruling]:
        try:
            keyring = self._reload_keyring()
        except MfaError as problem:
            return [self._broken(entry, problem) for entry in entries]
        if keyring.numbers == self._keyring.numbers:
            if len(entries) == 1:
                return [self._broken(entries[0], err)]
            return [ruling for entry in entries for ruling in self._batch([entry])]
        self._keyring = keyring
        return self._batch(entries)

    def _alone(self, entry: Entry, err: MfaError) -> Ruling:
        if isinstance(err, Lost):
            for _ in range(_RACES):
                try:
                    return self._write([entry])[0]
                except Lost:
                    continue
                except MfaError as problem:
                    return self._broken(entry, problem)
        return self._broken(entry, err)

    def _write(self, entries: Sequence[Entry]) -> list[Ruling]:
        deferred = [self._deferred.popleft() for _ in range(len(self._deferred))]
        try:
            with self._session.writing() as connection:
                sitting = _Sitting(connection, entries, self._keyring, self._clock())
                judged = [sitting.judge(entry) for entry in entries]
                sitting.write()
                events: list[Event] = [*deferred, *(judgement.event for judgement in judged)]
                bodies = audit_log.append(connection, events, node=self._node, keyring=self._keyring)
        except BaseException:
            self._deferred.extendleft(reversed(deferred))
            raise
        self.written += len(bodies)
        self._speak(bodies)
        return [Ruling(judgement.verdict, judgement.may_enrol) for judgement in judged]

    def _speak(self, bodies: Sequence[str]) -> None:
        told = [self._told.popleft() for _ in range(len(self._told))]
        self._sink([*told, *bodies])

    def _broken(self, entry: Entry, err: MfaError) -> Ruling:
        """Refuse, say why in the log, and keep the event for when the store can be written again."""
        attempt = entry.attempt
        reason = _UNREADY.get(type(err), Unready.INTERNAL)
        log.error("attempt %s could not be decided (%s): %s; %s", attempt.event_id, reason, err, err.cure)
        self.note(
            AttemptDecided(
                event_id=attempt.event_id,
                at=self._clock(),
                door=attempt.door,
                service=attempt.service,
                user=entry.name or attempt.username,
                outcome=Outcome.UNAVAILABLE,
                reason=reason,
                rule=entry.decision.rule,
                source=attempt.source or "",
                client=attempt.client,
            )
        )
        if reason is Unready.STORE_FULL:
            return Ruling(Unavailable(attempt.event_id, reason, texts.CANNOT_RECORD))
        return Ruling(Unavailable(attempt.event_id, reason))


_RACES = 5
_UNREADY = {StoreFull: Unready.STORE_FULL, StoreUnavailable: Unready.STORE, Lost: Unready.STORE}


class _Sitting:
    """The state of one batch: what the store held, and what the judgements so far made of it."""

    def __init__(self, connection: Connection, entries: Sequence[Entry], keyring: Keyring, now: float) -> None:
        self._connection = connection
        self._keyring = keyring
        self._now = now
        names = list({entry.name for entry in entries if entry.name})
        self._accounts = accounts.load(connection, names, keyring) if names else {}
        # A question is answered from the throttle only where a trust window may hold.
        keys = {
            key
            for entry in entries
            if entry.attempt.typed is not None or entry.decision.trust_window_s
            for key in self._keys(entry)
            if key
        }
        self._records = accounts.load_records(connection, list(keys)) if keys else {}
        self._changed: dict[str, Record] = {}
        self._spent: dict[int, Credential] = {}
        self._outside: dict[int, Credential] = {}
        self._used: dict[int, int] = {}
        self._grace: dict[int, float] = {}
        carried = {entry.attempt.challenge_id for entry in entries if entry.attempt.challenge_until and _carries(entry.attempt)}
        self._answered = accounts.answered_challenges(connection, list(carried)) if carried else set()
        self._answers: dict[str, float] = {}

    def _keys(self, entry: Entry) -> tuple[str, str, str]:
        """The throttle keys of an entry: account, lane, source; "" where there is none."""
        source = entry.attempt.source
        known = entry.name in self._accounts
        if known:
            account = f"account:{entry.name}"
        else:
            tag = self._keyring.tag("unknown-name", entry.name.encode())
            account = f"unknown:{int.from_bytes(tag[:4], 'big') % UNKNOWN_NAMES}" if entry.name else ""
        if source is None:
            return account, "", ""
        return account, f"lane:{entry.name} {source}" if known else "", f"source:{source_key(source)}"

    def account(self, entry: Entry) -> Account | None:
        """The entry's account as it stands now."""
        return self._accounts.get(entry.name)

    def throttle(self, entry: Entry) -> Throttle:
        """The entry's throttle records as they stand now."""
        records = self._records
        if not records:
            return UNTOUCHED
        account, lane, source = self._keys(entry)
        return Throttle(records.get(account, CLEAN), records.get(lane, CLEAN), records.get(source, CLEAN))

    def judge(self, entry: Entry) -> Judgement:
        """Judge one entry on what stands now, and note what it changes."""
        account = self._accounts.get(entry.name)
        user: User | None = account.user if account else None
        throttle = self.throttle(entry)
        situation = Situation(
            name=entry.name,
            user=user,
            credentials=account.credentials if account else (),
            throttle=throttle,
            decision=entry.decision,
            now=self._now,
            password=entry.password,
            proof=self._fresh(entry),
            tag=entry.tag,
            reading=entry.reading,
            challenge_spent=entry.attempt.challenge_until > 0 and self._is_answered(entry.attempt),
        )
        judgement = judge(entry.attempt, situation, entry.settings)
        after = judgement.throttle
        if after is not throttle:
            account_key, lane_key, source_key_ = self._keys(entry)
            for key, old, new in (
                (account_key, throttle.account, after.account),
                (lane_key, throttle.lane, after.lane),
                (source_key_, throttle.source, after.source),
            ):
                if key and new is not old:
                    self._records[key] = self._changed[key] = new
        if account is not None and judgement.credential is not None:
            changed = judgement.credential
            owned = tuple([changed if c.id == changed.id else c for c in account.credentials])
            self._accounts[entry.name] = account = accounts.Account(account.user, owned)
            if isinstance(judgement.verdict, Accepted):
                self._spent[changed.id] = changed
                self._outside.pop(changed.id, None)
            else:
                self._outside[changed.id] = changed
        if judgement.spent_code:
            self._used[judgement.spent_code] = self._used.get(judgement.spent_code, 0) + 1
        if judgement.grace_until and account is not None:
            self._grace[account.user.id] = judgement.grace_until
            self._accounts[entry.name] = replace(account, user=replace(account.user, grace_until=judgement.grace_until))
        return judgement

    def _is_answered(self, attempt: Attempt) -> bool:
        """Whether a carried challenge is over or was answered before; from here on this one was."""
        if not _carries(attempt):
            return False
        if self._now >= attempt.challenge_until or attempt.challenge_id in self._answered:
            return True
        self._answered.add(attempt.challenge_id)
        self._answers[attempt.challenge_id] = attempt.challenge_until
        return False

    def _fresh(self, entry: Entry) -> Proof | None:
        """The proof as it stands in this transaction: hashes were compared before it began."""
        proof = entry.proof
        if proof is None or proof.state is not ProofState.USABLE:
            return proof
        row = accounts.one_time_row(self._connection, entry.name, proof.kind, entry.proof_position)
        left = 0 if row is None or row.id != proof.code_id else row.uses_left - self._used.get(proof.code_id, 0)
        if left <= 0:
            return replace(proof, state=ProofState.USED)
        if proof.kind is FactorKind.RECOVERY:
            return replace(proof, remaining=max(0, accounts.recovery_left(self._connection, entry.name) - 1))
        return proof

    def write(self) -> None:
        """Write what changed.

        Raises:
            Lost: a compare-and-set found that another process had been here.
        """
        if not accounts.spend(self._connection, self._spent.values(), self._now):
            raise Lost("a code was spent by another process at the same time")
        for code, uses in self._used.items():
            for _ in range(uses):
                if not accounts.use_codes(self._connection, [code], self._now):
                    raise Lost("a one-time code was used by another process at the same time")
        accounts.remember_resync(self._connection, self._outside.values())
        accounts.start_grace(self._connection, self._grace)
        accounts.write_records(self._connection, self._changed)
        if not accounts.answer_challenges(self._connection, self._answers):
            raise Lost("a challenge was answered in another process at the same time")


def _carries(attempt: Attempt) -> bool:
    """Whether this answers a challenge that its client carried: such a one may be answered once."""
    return attempt.challenge_until > 0 and attempt.typed is not None and bool(attempt.challenge_id)


def source_key(source: str) -> str:
    """What failures are counted under: an IPv4 address, or the /64 that one IPv6 customer controls."""
    if ":" not in source:
        return source
    try:
        return str(ipaddress.IPv6Network((source.partition("%")[0], 64), strict=False))
    except ValueError:
        return source
