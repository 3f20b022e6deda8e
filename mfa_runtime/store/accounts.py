"""What the login path reads and writes: accounts, throttle records, spends.

Room rule: the statements of a verification, and no decision. Everything here runs inside a transaction of the caller and takes
lists, because logins that wait together are committed together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import BigInteger, ClauseElement, Connection, bindparam, delete, func, literal_column, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect

from mfa_core.errors import StoreCorrupt
from mfa_core.model import Credential, CredentialState, Digest, EnrolmentState, FactorKind, Material, Requirement, User
from mfa_core.secret import Secret
from mfa_core.throttle import Record
from mfa_core.value import hot_value
from mfa_runtime.sealing import Keyring, Place
from mfa_runtime.store import codebooks
from mfa_runtime.store.prepared import Prepared, PreparedIn, Row
from mfa_runtime.store.schema import credentials, offline_logins, one_time_codes, spent_challenges, throttle, users


class Known(NamedTuple):
    """Where a credential was used from: the lane of its user that needs no row of its own. ``source`` "" is nowhere."""

    source: str = ""
    at: float = 0.0
    scope: str = ""

    def record(self) -> Record:
        """The lane."""
        return Record(last_success_at=self.at, scope=self.scope)


NOWHERE = Known()
_NOTHING = Secret(b"")


@hot_value
class Account:
    """A user and the credentials that are not revoked, unsealed; ``known`` has one for each of them."""

    user: User
    credentials: tuple[Credential, ...]
    known: tuple[Known, ...] = ()

    def lane(self, source: str) -> Record | None:
        """What the credentials know of a source: of several the latest."""
        found = [one for one in self.known if one.source == source]
        return max(found, key=lambda one: one.at).record() if found else None


_TIMED = FactorKind.TOTP.value
_LIVE = (CredentialState.ACTIVE.value, CredentialState.SUSPENDED.value)

_BY_NAME = PreparedIn(
    lambda names: (
        select(
            users.c.id,
            users.c.name,
            users.c.state,
            users.c.requirement,
            users.c.grace_until,
            users.c.locked,
            credentials.c.id,
            credentials.c.kind,
            credentials.c.state,
            credentials.c.digest,
            credentials.c.digits,
            credentials.c.period_s,
            credentials.c.last_step,
            credentials.c.drift_steps,
            credentials.c.resync_step,
            credentials.c.secret,
            credentials.c.known_source,
            credentials.c.known_at,
            credentials.c.known_scope,
            credentials.c.host_id,
            # NULL for nearly every row: no text has to be made of it.
            func.nullif(credentials.c.material, literal_column(f"'{Material.SEED.value}'")),
        )
        .select_from(
            names.join(users, users.c.name == names.c.wanted).outerjoin(credentials, credentials.c.user_id == users.c.id)
        )
    )
)

_STATES = {s.value: s for s in EnrolmentState}
_REQUIREMENTS = {r.value: r for r in Requirement}
_KINDS = {k.value: k for k in FactorKind}
_CREDENTIAL_STATES = {s.value: s for s in CredentialState}
_DIGESTS = {d.value: d for d in Digest}
_MATERIALS = {m.value: m for m in Material}
_BOOK = Material.CODEBOOK.value


def load(connection: Connection, names: Sequence[str], keyring: Keyring) -> dict[str, Account]:
    """The accounts of these canonical names, each once; a name that is not known is not in the answer.

    Raises: as :func:`unsealed`.
    """
    return unsealed(read(connection, names), keyring)


def read(connection: Connection, names: Sequence[str]) -> list[Row]:
    """The rows of these canonical names, each once, for :func:`unsealed`. The second column is the name.

    Nobody else decides about them in a writing transaction: SQLite's writer is alone, and PostgreSQL's have locked the names.
    """
    rows = _BY_NAME.rows(connection, names)
    for row in rows:
        if row[-1] == _BOOK:
            return _with_books(connection, rows)
    return rows


def _with_books(connection: Connection, rows: Sequence[Row]) -> list[Row]:
    """The rows with the codebooks of those that have one: two more columns."""
    numbers = [row[6] for row in rows if row[-1] == _BOOK]
    books = {row[0]: row[1:] for row in codebooks.read(connection, numbers)}
    return [(*row, *books.get(row[6], ())) if row[-1] == _BOOK else row for row in rows]


def unsealed(rows: Sequence[Row], keyring: Keyring) -> dict[str, Account]:
    """The accounts in these rows.

    Raises:
        UnknownKey: a secret is sealed under a key that came after this keyring.
        StoreCorrupt: a secret does not open, or a row holds what no row can.
    """
    try:
        return _accounts(rows, keyring)
    except KeyError as err:
        raise StoreCorrupt(
            f"a row of users or credentials holds {err}, which this version of mfad does not know",
            cure="look into the audit log for who wrote to the store; restore it from a backup",
        ) from err


def _accounts(rows: Sequence[Row], keyring: Keyring) -> dict[str, Account]:
    found: dict[str, Account] = {}
    for (
        user_id, name, state, requirement, grace_until, locked,
        number, kind, credential_state, digest, digits, period_s, last_step, drift_steps, resync_step, sealed,
        source, known_at, scope, host_id, material, *book
    ) in rows:  # fmt: skip
        before = found.get(name)
        if before is None:
            user = User(user_id, name, _STATES[state], _REQUIREMENTS[requirement], grace_until, bool(locked))
            owned: tuple[Credential, ...] = ()
            known: tuple[Known, ...] = ()
        else:
            user, owned, known = before.user, before.credentials, before.known
        if number is not None and credential_state in _LIVE:
            if period_s <= 0 and kind == _TIMED:
                raise KeyError(f"a period of {period_s} s")
            if material is None:
                secret = keyring.unseal(bytes(sealed), Place("credentials", "secret", number, user_id))
                one = Credential(
                    number, _KINDS[kind], _CREDENTIAL_STATES[credential_state], secret, _DIGESTS[digest],
                    digits, period_s, last_step, drift_steps, resync_step, host_id=host_id,
                )  # fmt: skip
            else:
                first_step, secret = 0, _NOTHING
                if book:
                    first_step, secret = book[0], keyring.unseal(bytes(book[1]), codebooks.place_of(number))
                one = Credential(
                    number, _KINDS[kind], _CREDENTIAL_STATES[credential_state], secret, _DIGESTS[digest],
                    digits, period_s, last_step, drift_steps, resync_step, "", _MATERIALS[material], first_step, host_id,
                )  # fmt: skip
            owned, known = (*owned, one), (*known, Known(source, known_at, scope) if source else NOWHERE)
        found[name] = Account(user, owned, known)
    return found


_RECORDS = PreparedIn(
    lambda keys: select(
        throttle.c.key,
        throttle.c.failures,
        throttle.c.consecutive,
        throttle.c.not_before,
        throttle.c.last_failure_at,
        throttle.c.last_success_at,
        throttle.c.last_tag,
        throttle.c.scope,
    ).select_from(keys.join(throttle, throttle.c.key == keys.c.wanted))
)


def load_records(connection: Connection, keys: Sequence[str]) -> dict[str, Record]:
    """The throttle records under these keys; a key without one is not in the answer."""
    return records(read_records(connection, keys))


def read_records(connection: Connection, keys: Sequence[str]) -> list[Row]:
    """The rows of these keys, for :func:`records`."""
    return _RECORDS.rows(connection, keys)


def records(rows: Sequence[Row]) -> dict[str, Record]:
    """The throttle records in these rows."""
    return {
        key: Record(failures, consecutive, not_before, failed_at, succeeded_at, bytes(tag), scope)
        for key, failures, consecutive, not_before, failed_at, succeeded_at, tag, scope in rows
    }


def _upsert_record(dialect: Dialect) -> ClauseElement:
    insert = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
    statement = insert(throttle)
    changed = {c.name: statement.excluded[c.name] for c in throttle.c if c.name != "key"}
    return statement.on_conflict_do_update(index_elements=["key"], set_=changed)


_WRITE_RECORD = Prepared(_upsert_record)


_RECORD = ("key", "failures", "consecutive", "not_before", "last_failure_at", "last_success_at", "last_tag", "scope")


def write_records(connection: Connection, records: Mapping[str, Record]) -> None:
    """Write these records under their keys."""
    if records:
        _WRITE_RECORD.send_rows(
            connection,
            _RECORD,
            [
                (
                    key, r.failures, r.consecutive, r.not_before, r.last_failure_at, r.last_success_at,
                    bytearray(r.last_tag), r.scope,
                )
                for key, r in records.items()
            ],
        )  # fmt: skip


_SPEND = Prepared(
    update(credentials)
    .where(
        credentials.c.id == bindparam("i"),
        credentials.c.last_step < bindparam("step"),
        credentials.c.state == literal_column(f"'{CredentialState.ACTIVE.value}'"),
    )
    .values(
        last_step=bindparam("new_step"),
        drift_steps=bindparam("drift"),
        resync_step=literal_column("-1"),
        last_used_at=bindparam("now"),
        known_source=bindparam("source"),
        known_at=bindparam("known"),
        known_scope=bindparam("scope"),
    )
)
_SPENT = ("new_step", "drift", "now", "source", "known", "scope", "i", "step")


def spend(connection: Connection, spent: Iterable[tuple[Credential, Known]], now: float) -> bool:
    """Move watermarks: one compare-and-set for each credential. True when every one of them won.

    ``UPDATE ... WHERE last_step < :step`` is what makes a code single-use, whatever was read before and by whom. A False
    means that the caller must roll back and judge again on what is there now.
    """
    rows = [(c.last_step, c.drift_steps, now, *known, c.id, c.last_step) for c, known in spent]
    return not rows or _SPEND.run_rows(connection, _SPENT, rows) == len(rows)


_REMEMBER = Prepared(
    update(credentials).where(credentials.c.id == bindparam("i")).values(resync_step=bindparam("step"))
)


def remember_resync(connection: Connection, outside: Iterable[Credential]) -> None:
    """Remember a good code outside the window: the next consecutive one moves the drift."""
    rows = [{"i": c.id, "step": c.resync_step} for c in outside]
    if rows:
        _REMEMBER.run_each(connection, rows)


_USE_CODE = Prepared(
    update(one_time_codes)
    .where(one_time_codes.c.id == bindparam("i"), one_time_codes.c.uses_left > 0)
    .values(uses_left=one_time_codes.c.uses_left - 1, used_at=bindparam("now"))
)


def use_codes(connection: Connection, ids: Iterable[int], now: float) -> bool:
    """Use up one-time codes, compare-and-set. True when every one of them was still good."""
    rows = [{"i": i, "now": now} for i in ids]
    return not rows or _USE_CODE.run_each(connection, rows) == len(rows)


_START_GRACE = Prepared(
    update(users)
    .where(users.c.id == bindparam("i"), users.c.grace_until == 0)
    .values(grace_until=bindparam("deadline"))
)


def start_grace(connection: Connection, deadlines: Mapping[int, float]) -> None:
    """Write the deadline of users (by id) that have none: it never moves by itself."""
    if deadlines:
        _START_GRACE.run_each(connection, [{"i": i, "deadline": until} for i, until in deadlines.items()])


_ANSWERED = PreparedIn(
    lambda ids: select(spent_challenges.c.id).select_from(ids.join(spent_challenges, spent_challenges.c.id == ids.c.wanted))
)


def answered_challenges(connection: Connection, ids: Sequence[str]) -> list[Row]:
    """Which of these carried challenges were answered already: a row of one id each."""
    return _ANSWERED.rows(connection, ids)


def _insert_once(dialect: Dialect) -> ClauseElement:
    insert = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
    return insert(spent_challenges).on_conflict_do_nothing(index_elements=["id"])


_ANSWER = Prepared(_insert_once)


def answer_challenges(connection: Connection, answers: Mapping[str, float]) -> bool:
    """Spend carried challenges (id: its end, Unix seconds). True when nobody else had answered any of them."""
    rows = [{"id": challenge, "expires_at": until} for challenge, until in answers.items()]
    return not rows or _ANSWER.run_each(connection, rows) == len(rows)


_OFFLINE = PreparedIn(
    lambda ids: select(offline_logins.c.user_id, offline_logins.c.count, offline_logins.c.since).select_from(
        ids.join(offline_logins, offline_logins.c.user_id == ids.c.wanted)
    ),
    BigInteger(),
)


def offline_counts(connection: Connection, user_ids: Sequence[int]) -> dict[int, tuple[int, float]]:
    """How often these users were let in here without the authority, and since when (Unix seconds); who was not is not there."""
    return {user_id: (count, since) for user_id, count, since in _OFFLINE.rows(connection, user_ids)}


def _upsert_offline(dialect: Dialect) -> ClauseElement:
    insert = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
    statement = insert(offline_logins)
    changed = {name: statement.excluded[name] for name in ("count", "since")}
    return statement.on_conflict_do_update(index_elements=["user_id"], set_=changed)


_WRITE_OFFLINE = Prepared(_upsert_offline)
_FORGET_OFFLINE = Prepared(delete(offline_logins).where(offline_logins.c.user_id == bindparam("i")))


def write_offline_counts(connection: Connection, counts: Mapping[int, tuple[int, float]]) -> None:
    """Write these counts, by user; a count of 0 is forgotten."""
    kept = [(user_id, *count) for user_id, count in counts.items() if count[0]]
    gone = [{"i": user_id} for user_id, count in counts.items() if not count[0]]
    if kept:
        _WRITE_OFFLINE.run_rows(connection, ("user_id", "count", "since"), kept)
    if gone:
        _FORGET_OFFLINE.run_each(connection, gone)


@dataclass(frozen=True, slots=True)
class OneTimeRow:
    """A one-time code that a typed one could be."""

    id: int
    user_id: int
    hash: str
    uses_left: int
    not_after: float


_ONE_TIME = Prepared(
    select(
        one_time_codes.c.id,
        one_time_codes.c.user_id,
        one_time_codes.c.hash,
        one_time_codes.c.uses_left,
        one_time_codes.c.not_after,
    )
    .select_from(one_time_codes.join(users, users.c.id == one_time_codes.c.user_id))
    .where(
        users.c.name == bindparam("user_name"),
        one_time_codes.c.kind == bindparam("code_kind"),
        one_time_codes.c.position == bindparam("place"),
    )
)


def one_time_row(connection: Connection, name: str, kind: FactorKind, position: int) -> OneTimeRow | None:
    """The one row that a typed code of this kind and number could fit, used or not."""
    rows = _ONE_TIME.rows(connection, {"user_name": name, "code_kind": kind.value, "place": position})
    return OneTimeRow(*rows[0]) if rows else None


_LEFT = Prepared(
    select(one_time_codes.c.id)
    .select_from(one_time_codes.join(users, users.c.id == one_time_codes.c.user_id))
    .where(
        users.c.name == bindparam("user_name"),
        one_time_codes.c.kind == FactorKind.RECOVERY.value,
        one_time_codes.c.uses_left > 0,
    )
)


def recovery_left(connection: Connection, name: str) -> int:
    """How many numbered recovery codes this user has not used."""
    return len(_LEFT.rows(connection, {"user_name": name}))
