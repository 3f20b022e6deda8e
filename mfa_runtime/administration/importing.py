"""Bring rows of another product into the store: in batches, once, however often it is run.

Room rule: a batch is one transaction with its own audit event, so that an import that breaks off leaves whole batches. Run
again, it passes over what is there: the same secret of the same user (by its keyed tag) is imported once, also when it was
revoked since. Nothing but the rows of one batch is in memory.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import BigInteger, bindparam, insert, select, update
from sqlalchemy.engine import Connection

from mfa_core.enrolment import Move, moved
from mfa_core.errors import InvalidInput, UsernameRefused
from mfa_core.identity import IdentityRules, normalise
from mfa_core.model import CredentialState, EnrolmentState, Material, Requirement
from mfa_runtime.administration.act import Act
from mfa_runtime.administration.groups import check_group, join_groups
from mfa_runtime.imports.row import ImportedCredential, ImportRow, RowNote, RowProblem
from mfa_runtime.sealing import Place
from mfa_runtime.store import changes
from mfa_runtime.store.database import Store
from mfa_runtime.store.ids import take
from mfa_runtime.store.prepared import Prepared, PreparedIn
from mfa_runtime.store.schema import credentials, users

BATCH_ROWS = 5_000
"""Rows of a transaction: some 0.2 s in which logins wait, and a two-hundredth of the fsyncs of row by row."""

_FIND_USERS = PreparedIn(
    lambda names: select(users.c.id, users.c.name, users.c.state).select_from(
        names.join(users, users.c.name == names.c.wanted)
    )
)
_FIND_TAGS = PreparedIn(
    lambda owners: select(credentials.c.user_id, credentials.c.secret_tag).select_from(
        owners.join(credentials, credentials.c.user_id == owners.c.wanted)
    ),
    BigInteger(),
)
_ADD_USER = Prepared(insert(users))
_ADD_CREDENTIAL = Prepared(insert(credentials))
_SET_STATE = Prepared(update(users).where(users.c.id == bindparam("number")).values(state=bindparam("new_state")))


class RowStatus(enum.StrEnum):
    """What became of a row."""

    IMPORTED = "imported"
    PRESENT = "present"
    """The same secret of the same user is in the store already."""
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """One line of the report."""

    line: int
    status: RowStatus
    user: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """What an import came to."""

    imported: int = 0
    present: int = 0
    problems: int = 0
    users_added: int = 0

    def plus(self, other: ImportCounts) -> ImportCounts:
        """Both together."""
        return ImportCounts(
            self.imported + other.imported,
            self.present + other.present,
            self.problems + other.problems,
            self.users_added + other.users_added,
        )


class _NothingKept(Exception):
    """Rolls a batch of a rehearsal back."""


def import_rows(
    store: Store,
    new_act: Callable[[], Act],
    rows: Iterable[ImportRow],
    *,
    rules: IdentityRules,
    source: str,
    dry_run: bool,
    report: Callable[[Sequence[RowOutcome]], None],
) -> ImportCounts:
    """Import rows; ``report`` hears of each batch when it is durable. A rehearsal does all of it and keeps nothing.

    ``source`` names file and format in the audit log: an event a batch, and one at the end.

    Raises:
        StoreUnavailable, StoreFull: what was reported stays imported; run it again for the rest.
    """
    counts = ImportCounts()
    iterator = iter(rows)
    while batch := list(islice(iterator, BATCH_ROWS)):
        outcomes: list[RowOutcome] = []
        try:
            with store.writing() as connection:
                done = _import_batch(connection, new_act(), batch, rules=rules, source=source, outcomes=outcomes)
                if dry_run:
                    raise _NothingKept
        except _NothingKept:
            pass
        counts = counts.plus(done)
        report(outcomes)
    if not dry_run:
        with store.writing() as connection:
            new_act().record(
                connection,
                "import.done",
                source,
                imported=counts.imported,
                present=counts.present,
                problems=counts.problems,
                users_added=counts.users_added,
            )
    return counts


def _import_batch(
    connection: Connection,
    act: Act,
    batch: Sequence[ImportRow],
    *,
    rules: IdentityRules,
    source: str,
    outcomes: list[RowOutcome],
) -> ImportCounts:
    act.check_keys(connection)
    named = list(_named(batch, rules, outcomes))
    problems = sum(outcome.status is RowStatus.PROBLEM for outcome in outcomes)
    names = list(dict.fromkeys(name for name, _ in named))
    known = {name: (int(number), EnrolmentState(state)) for number, name, state in _FIND_USERS.rows(connection, names)}
    seen = {
        (int(user_id), bytes(tag))
        for user_id, tag in _FIND_TAGS.rows(connection, [number for number, _ in known.values()])
    }
    added = _add_users(connection, act, [name for name in names if name not in known])
    fresh: list[tuple[int, bytes, ImportedCredential]] = []
    activated: dict[int, EnrolmentState] = {}
    for name, row in named:
        number, state = known[name] if name in known else (added[name], EnrolmentState.ACTIVE)
        tag = act.keyring.tag("credential-secret", f"{number}|".encode() + row.secret.reveal())
        if (number, tag) in seen:
            outcomes.append(RowOutcome(row.line, RowStatus.PRESENT, name))
            continue
        seen.add((number, tag))
        fresh.append((number, tag, row))
        if state is not EnrolmentState.ACTIVE:
            activated[number] = moved(state, Move.PROVISION)
        outcomes.append(RowOutcome(row.line, RowStatus.IMPORTED, name))
    _add_credentials(connection, act, fresh)
    if activated:
        _SET_STATE.run_each(connection, [{"number": n, "new_state": s.value} for n, s in activated.items()])
    join_groups(connection, [(user_id, group) for user_id, _, row in fresh for group in row.groups])
    changes.note_users(connection, list(dict.fromkeys(user_id for user_id, _, _ in fresh)), act.now)
    present = len(named) - len(fresh)
    outcomes.sort(key=lambda outcome: outcome.line)
    if fresh:
        act.record(
            connection,
            "import.batch",
            source,
            imported=len(fresh),
            users_added=len(added),
            first_line=batch[0].line,
            last_line=batch[-1].line,
        )
    return ImportCounts(len(fresh), present, problems, len(added))


def _named(
    batch: Sequence[ImportRow], rules: IdentityRules, outcomes: list[RowOutcome]
) -> Iterator[tuple[str, ImportedCredential]]:
    for row in batch:
        match row:
            case RowProblem():
                outcomes.append(RowOutcome(row.line, RowStatus.PROBLEM, message=row.message))
            case RowNote():
                outcomes.append(RowOutcome(row.line, RowStatus.NOTE, message=row.message))
            case ImportedCredential():
                try:
                    for group in row.groups:
                        check_group(group)
                    yield normalise(row.username, rules), row
                except (UsernameRefused, InvalidInput) as err:
                    outcomes.append(RowOutcome(row.line, RowStatus.PROBLEM, message=str(err)))


def _add_users(connection: Connection, act: Act, names: Sequence[str]) -> dict[str, int]:
    if not names:
        return {}
    first = take(connection, "users", len(names))
    numbers = {name: first + at for at, name in enumerate(names)}
    _ADD_USER.run_each(
        connection,
        [
            {
                "id": number,
                "name": name,
                # Active from the start: a user is added here only together with a credential that is.
                "state": EnrolmentState.ACTIVE.value,
                "requirement": Requirement.INHERIT.value,
                "grace_until": 0.0,
                "locked": False,
                "created_at": act.now,
                "version": 0,
            }
            for name, number in numbers.items()
        ],
    )
    return numbers


def _add_credentials(connection: Connection, act: Act, fresh: Sequence[tuple[int, bytes, ImportedCredential]]) -> None:
    if not fresh:
        return
    first = take(connection, "credentials", len(fresh))
    _ADD_CREDENTIAL.run_each(
        connection,
        [
            {
                "id": number,
                "user_id": user_id,
                "kind": row.kind.value,
                "state": CredentialState.ACTIVE.value,
                "digest": row.digest.value,
                "digits": row.digits,
                "period_s": row.period_s,
                "last_step": row.last_step,
                "drift_steps": row.drift_steps,
                "resync_step": -1,
                "secret": act.keyring.seal(row.secret, Place("credentials", "secret", number, user_id)),
                "secret_tag": tag,
                "label": row.label,
                "created_at": act.now,
                "verified_at": 0.0,
                "last_used_at": 0.0,
                "expires_at": 0.0,
                "known_source": "",
                "known_at": 0.0,
                "known_scope": "",
                "host_id": 0,
                "material": Material.SEED.value,
            }
            for number, (user_id, tag, row) in enumerate(fresh, start=first)
        ],
    )
