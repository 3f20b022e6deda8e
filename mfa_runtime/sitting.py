"""One batch of attempts over one look at the store: what was there, and what the judgements make of it.

Room rule: reads once, judges one after another, writes once; when that happens, and what follows from it, is the business of
:mod:`mfa_runtime.ledger`. The judgements depend on nothing but the entries, the time and :class:`Seen`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from sqlalchemy import Connection

from mfa_core import offline, texts
from mfa_core.errors import MfaError
from mfa_core.mirror import Ruled, mirror
from mfa_core.model import Attempt, Credential, FactorKind
from mfa_core.offline import Lease, Moment
from mfa_core.policy import Decision
from mfa_core.split import Split
from mfa_core.throttle import CLEAN, UNTOUCHED, Record, Throttle, is_known_lane
from mfa_core.value import hot_value
from mfa_core.verdict import Accepted, Reason
from mfa_core.verifier import Judgement, Password, Proof, ProofState, Settings, Situation, Tag, judge
from mfa_runtime.counsel import Alone, Counselled
from mfa_runtime.lease import read_lease
from mfa_runtime.look import Keys, Look, Mark
from mfa_runtime.sealing import Keyring
from mfa_runtime.store import accounts, agent_state, changes, uses
from mfa_runtime.store.accounts import Account, Known
from mfa_runtime.store.prepared import Row
from mfa_runtime.store.uses import Use

UNKNOWN_NAMES = 1 << 16
"""Names that the store does not know share this many throttle records: a flood of names cannot fill the disk."""


@hot_value
class Origin:
    """The host that asks an authority, and what it said of what was typed: ``hidden`` is that of a referral."""

    host_id: int
    host: str
    hidden: bool


@hot_value
class Entry:
    """An attempt that is ready to be judged: name normalised, policy asked, password and hash checked where there were any.

    ``told`` is what became of asking the authority, on a host that has one. ``found`` are the readings that the authority was
    asked about; ``origin`` is there at an authority, where another host asks.
    """

    attempt: Attempt
    name: str
    decision: Decision
    settings: Settings
    password: Password = Password.NOT_ASKED
    proof: Proof | None = None
    proof_position: int = 0
    reading: Split | None = None
    tag: Tag = b""
    look: Look | None = None
    told: Counselled | None = None
    found: tuple[Split, ...] = ()
    origin: Origin | None = None

    def read_as(self, reading: Split, password: Password, look: Look | None = None) -> Entry:
        """This, with what became of the password in one reading, and what the store held then.

        (Spelt out: ``replace`` costs a login 5 microseconds.)
        """
        return Entry(
            self.attempt, self.name, self.decision, self.settings, password, self.proof, self.proof_position, reading, self.tag,
            look,
        )  # fmt: skip

    def after(self, told: Counselled, found: tuple[Split, ...]) -> Entry:
        """This, after the authority was asked about these readings."""
        return Entry(
            self.attempt, self.name, self.decision, self.settings, self.password, None, 0, self.reading, self.tag,
            None, told, found,
        )  # fmt: skip


class Lost(MfaError):
    """A compare-and-set did not win: another process was faster. Judge again on what is there now."""


class Seen(NamedTuple):
    """All that a batch depends on in the store, as it was read: rows are compared to know that nothing has changed."""

    accounts: list[Row]
    records: list[Row]
    answered: list[Row]
    lease: Lease | None
    offline: Mapping[int, tuple[int, float]]


class Sitting:
    """The state of one batch: what the store held, and what the judgements so far made of it."""

    def __init__(
        self,
        connection: Connection,
        entries: Sequence[Entry],
        keyring: Keyring,
        now: float,
        holds: Callable[[Look], bool] | None = None,
        *,
        moment: Callable[[float], Moment] | None = None,
        is_asking: bool = False,
        records_uses: bool = False,
    ) -> None:
        """Read what is not known already: ``holds`` says which looks are as good as reading again; None for none of them.

        With ``moment`` this host is an agent: nobody is let in but by what was told, or, where that was nothing, by the rules
        of a host that is alone. ``is_asking``: the authority is asked about whatever is no challenge.
        """
        self._moment = moment
        self._is_asking = is_asking
        self._records_uses = records_uses
        self._connection = connection
        self._entries = entries
        self._keyring = keyring
        self.now = now
        both = [(entry, entry.look if holds is not None and entry.look and holds(entry.look) else None) for entry in entries]
        self._names = list({entry.name: None for entry, look in both if look is None and entry.name})
        rows = self._read_accounts(connection)
        known = {row[1] for row in rows}
        self._keys = [self._keys_of(entry, known) if look is None else look.keys for entry, look in both]
        # A question is answered from the throttle only where a trust window may hold.
        wanted = {
            key
            for (entry, look), keys in zip(both, self._keys, strict=True)
            if look is None and (entry.attempt.typed is not None or entry.decision.trust_window_s)
            for key in keys
        }
        wanted.discard("")
        self._wanted = list(wanted)
        self._carried = list({entry.attempt.challenge_id: None for entry in entries if _carries(entry.attempt)})
        self.seen = Seen(rows, *self._read_rest(connection), *(self._read_agent(connection, rows) if moment else _NO_AGENT))
        self._accounts = accounts.unsealed(rows, keyring)
        self._records = accounts.records(self.seen.records)
        self._lanes = set(self._records)
        for entry, look in both:
            if look is not None:
                self._take(entry.name, look)
        self._find_lanes()
        self._answered = {row[0] for row in self.seen.answered}
        self._changed: dict[str, Record] = {}
        self._spent: dict[int, tuple[Credential, Known]] = {}
        self._outside: dict[int, Credential] = {}
        self._used: dict[int, int] = {}
        self._grace: dict[int, float] = {}
        self._answers: dict[str, float] = {}
        self._touched: set[str] = set()
        self._counted: dict[int, tuple[int, float]] = {}
        self._floor = 0.0
        self._uses: list[Use] = []

    def _find_lanes(self) -> None:
        """Lanes without a row may stand with a credential."""
        wanted = set(self._wanted)
        for entry, keys in zip(self._entries, self._keys, strict=True):
            if keys.lane in wanted and keys.lane not in self._records:
                account = self._accounts.get(entry.name)
                lane = account.lane(entry.attempt.source or "") if account is not None else None
                if lane is not None:
                    self._records[keys.lane] = lane

    def _take(self, name: str, look: Look) -> None:
        if look.account is not None:
            self._accounts[name] = look.account
        throttle = look.throttle
        if look.has_row:
            self._lanes.add(look.keys.lane)
        if throttle is not UNTOUCHED:
            for key, record in zip(look.keys, (throttle.account, throttle.lane, throttle.source), strict=True):
                if record is not CLEAN:
                    self._records[key] = record

    def _read_accounts(self, connection: Connection) -> list[Row]:
        return accounts.read(connection, self._names) if self._names else []

    def _read_rest(self, connection: Connection) -> tuple[list[Row], list[Row]]:
        return (
            accounts.read_records(connection, self._wanted) if self._wanted else [],
            accounts.answered_challenges(connection, self._carried) if self._carried else [],
        )

    def _read_agent(self, connection: Connection, rows: list[Row]) -> tuple[Lease | None, Mapping[int, tuple[int, float]]]:
        """What an agent has to know of itself, and of the users that it has let in alone; nothing is read elsewhere."""
        if self._is_asking:
            return _NO_AGENT
        is_alone = any(not isinstance(entry.told, Ruled) for entry in self._entries)
        lease = read_lease(connection) if is_alone else None
        return lease, accounts.offline_counts(connection, list({row[0]: None for row in rows}))

    def still_holds(self, connection: Connection) -> bool:
        """Whether the store is, in this transaction, what the judgements were made on; if so, :meth:`write` may follow.

        A judgement is a pure function: the same rows give the same answers, whoever wrote in between, and whatever.
        """
        rows = self._read_accounts(connection)
        # The keys of the throttle follow from the names that are known: the same rows, the same keys.
        if rows != self.seen.accounts:
            return False
        mine = self._read_agent(connection, rows) if self._moment else _NO_AGENT
        if Seen(rows, *self._read_rest(connection), *mine) != self.seen:
            return False
        self._connection = connection
        return True

    def _keys_of(self, entry: Entry, known: set[str]) -> Keys:
        source, name = entry.attempt.source, entry.name
        if name in known:
            account = f"account:{name}"
            if source is None:
                return Keys(account, "", "")
            return Keys(account, f"lane:{name} {source}", f"source:{source_key(source)}")
        account = ""
        if name:
            tag = self._keyring.tag("unknown-name", name.encode())
            account = f"unknown:{int.from_bytes(tag[:4], 'big') % UNKNOWN_NAMES}"
        return Keys(account, "", "" if source is None else f"source:{source_key(source)}")

    def throttle(self, keys: Keys) -> Throttle:
        """The throttle records under these keys as they stand now."""
        find = self._records.get
        account, lane, source = find(keys.account), find(keys.lane), find(keys.source)
        if account is None and lane is None and source is None:
            return UNTOUCHED
        return Throttle(account or CLEAN, lane or CLEAN, source or CLEAN)

    def looks(self, mark: Mark) -> list[Look]:
        """What concerns each entry; ``mark`` was taken before."""
        known = self._accounts.get
        return [
            Look(mark, keys, known(entry.name), self.throttle(keys), keys.lane in self._lanes)
            for entry, keys in zip(self._entries, self._keys, strict=True)
        ]

    def touched(self) -> set[str]:
        """The keys of what :meth:`write` has written."""
        return self._touched | self._changed.keys()

    def judge(self) -> list[Judgement]:
        """Judge the entries one after another, each on what stands then, and note what they change."""
        return [self._judge(entry, keys) for entry, keys in zip(self._entries, self._keys, strict=True)]

    def _judge(self, entry: Entry, keys: Keys) -> Judgement:
        attempt = entry.attempt
        account = self._accounts.get(entry.name)
        throttle = self.throttle(keys)
        situation = Situation(
            entry.name,
            account.user if account else None,
            account.credentials if account else (),
            throttle,
            entry.decision,
            self.now,
            entry.password,
            self._fresh(entry) if entry.proof is not None else None,
            entry.tag,
            entry.reading,
            attempt.challenge_until > 0 and self._is_answered(attempt),
        )
        if self._moment is not None or entry.told is not None:
            judgement = self._judge_as_agent(entry, situation)
        elif entry.origin is not None:
            judgement = judge(attempt, _as_referred(situation, entry, entry.origin), entry.settings)
        else:
            judgement = judge(attempt, situation, entry.settings)
        after = judgement.throttle
        moved = False
        if after is not throttle:
            for key, old, new in (
                (keys.account, throttle.account, after.account),
                (keys.source, throttle.source, after.source),
            ):
                if key and new is not old:
                    self._records[key] = self._changed[key] = new
            moved = bool(keys.lane) and after.lane is not throttle.lane
        changed = judgement.credential
        if self._records_uses and changed is not None and isinstance(judgement.verdict, Accepted):
            host_id = 0 if entry.origin is None else entry.origin.host_id
            self._uses.append(Use(changed.id, changed.last_step, host_id, attempt.event_id, self.now))
        if account is not None and changed is not None:
            self._touched.add(keys.account)
            at = [one.id for one in account.credentials].index(changed.id)
            owned, known = account.credentials, account.known
            owned = (*owned[:at], changed, *owned[at + 1 :])
            if isinstance(judgement.verdict, Accepted):
                if moved and self._fits(known[at], entry, keys):
                    moved = False
                    self._records[keys.lane] = after.lane
                    place = Known(attempt.source or "", after.lane.last_success_at, after.lane.scope)
                    known = (*known[:at], place, *known[at + 1 :])
                self._spent[changed.id] = (changed, known[at])
                self._outside.pop(changed.id, None)
            else:
                self._outside[changed.id] = changed
            self._accounts[entry.name] = account = Account(account.user, owned, known)
        if moved:
            self._records[keys.lane] = self._changed[keys.lane] = after.lane
        if judgement.spent_code:
            self._used[judgement.spent_code] = self._used.get(judgement.spent_code, 0) + 1
        if judgement.grace_until and account is not None:
            self._touched.add(keys.account)
            self._grace[account.user.id] = judgement.grace_until
            self._accounts[entry.name] = replace(account, user=replace(account.user, grace_until=judgement.grace_until))
        return judgement

    def _judge_as_agent(self, entry: Entry, situation: Situation) -> Judgement:
        """What the authority has ruled, or what this host may say alone."""
        attempt, told = entry.attempt, entry.told
        if isinstance(told, Ruled):
            judgement = mirror(attempt, situation, entry.settings, told, entry.found)
        else:
            # A name that is no identity is nobody here and nobody there: it is refused without asking.
            refusal = None if self._is_asking or not entry.name else self._refusal(entry, told)
            rules = replace(entry.settings, throttle=offline.stricter(entry.settings.throttle))
            judgement = judge(attempt, replace(situation, partial=True, refusal=refusal), rules)
        verdict, user = judgement.verdict, situation.user
        if user is None or not isinstance(verdict, Accepted):
            return judgement
        count, since = self._counted.get(user.id) or self.seen.offline.get(user.id, (0, 0.0))
        if count:
            verdict = replace(verdict, notices=(*verdict.notices, texts.offline_notice(count, since)))
        if not isinstance(told, Ruled):
            self._counted[user.id] = (count + 1, since if count else self.now)
            self._raise_floor(judgement)
        elif count:
            self._counted[user.id] = (0, 0.0)
        return replace(judgement, verdict=verdict)

    def _refusal(self, entry: Entry, alone: Alone | None) -> Reason | None:
        """Why this host may not decide alone."""
        lease = self.seen.lease
        if self._moment is None or lease is None:
            return Reason.NEVER_SYNCED
        if alone is None:
            return Reason.TOO_EARLY  # who has not asked does not know whether nobody answers
        reason = offline.may_verify(lease, self._moment(self.now), entry.attempt.service, alone.unreachable_s)
        return Reason.NOT_OFFLINE if reason is None and not entry.decision.offline else reason

    def _raise_floor(self, judgement: Judgement) -> None:
        """A right code shows what time it is at least."""
        spent = judgement.credential
        if spent is not None and spent.kind is FactorKind.TOTP:
            self._floor = offline.floor_after(
                self._floor, spent.last_step, spent.period_s, drift_steps=spent.drift_steps, now=self.now
            )

    def _fits(self, known: Known, entry: Entry, keys: Keys) -> bool:
        """Whether a lane may stand with a credential: it has no row, and the credential has none that still counts."""
        if keys.lane in self._lanes or keys.lane in self._changed:
            return False
        return known.source in {"", entry.attempt.source} or not is_known_lane(
            Throttle(lane=known.record()), self.now, entry.settings.throttle
        )

    def _is_answered(self, attempt: Attempt) -> bool:
        """Whether a carried challenge is over or was answered before; from here on this one was."""
        if not _carries(attempt):
            return False
        if self.now >= attempt.challenge_until or attempt.challenge_id in self._answered:
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
        if not accounts.spend(self._connection, self._spent.values(), self.now):
            raise Lost("a code was spent by another process at the same time")
        for code, times in self._used.items():
            for _ in range(times):
                if not accounts.use_codes(self._connection, [code], self.now):
                    raise Lost("a one-time code was used by another process at the same time")
        accounts.remember_resync(self._connection, self._outside.values())
        accounts.start_grace(self._connection, self._grace)
        changes.note_users(self._connection, list(self._grace), self.now)  # hosts count the days as well
        accounts.write_records(self._connection, self._changed)
        if not accounts.answer_challenges(self._connection, self._answers):
            raise Lost("a challenge was answered in another process at the same time")
        if self._counted:
            accounts.write_offline_counts(self._connection, self._counted)
        if self._floor:
            agent_state.raise_floor(self._connection, self._floor)
        if self._uses and uses.record(self._connection, self._uses):
            raise Lost("a code was used on another host before")


def _as_referred(situation: Situation, entry: Entry, origin: Origin) -> Situation:
    """What another host has read, and who it is."""
    return replace(situation, found=entry.found, hidden=origin.hidden, host_id=origin.host_id, host=origin.host)


_NO_AGENT: tuple[None, Mapping[int, tuple[int, float]]] = (None, MappingProxyType({}))


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
