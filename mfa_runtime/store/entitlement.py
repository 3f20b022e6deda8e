"""Who may log in on which group of hosts, and what a host of it is told about them.

Room rule: reads only. A host group's scope names groups of users, or ``*`` for everybody. Whatever is asked here costs what the
entitled users cost: each group is a range of an index over ``memberships``, and users outside of it are never touched.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import BigInteger, Connection, Integer, bindparam, func, select

from mfa_core.model import CredentialState, Digest, EnrolmentState, FactorKind, Requirement
from mfa_runtime.store.prepared import Prepared, PreparedIn
from mfa_runtime.store.schema import credentials, host_scope, memberships, users

EVERYBODY = "*"
"""In a scope: every user."""
_PAGE = 2_000
_LIVE = frozenset({CredentialState.ACTIVE.value, CredentialState.SUSPENDED.value})


@dataclass(frozen=True, slots=True)
class CredentialRow:
    """A credential as it lies in the store; ``sealed`` opens at ``Place("credentials", "secret", id, user_id)``."""

    id: int
    kind: FactorKind
    state: CredentialState
    digest: Digest
    digits: int
    period_s: int
    last_step: int
    drift_steps: int
    label: str
    host_id: int
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user and the credentials that are active or suspended, oldest first. ``grace_until`` is Unix seconds."""

    id: int
    name: str
    state: EnrolmentState
    requirement: Requirement
    grace_until: float
    locked: bool
    version: int
    credentials: tuple[CredentialRow, ...]


_SCOPE = Prepared(select(host_scope.c.user_group).where(host_scope.c.host_group == bindparam("of")))
_GROUPS_OF_NAME = Prepared(
    select(memberships.c.user_group)
    .select_from(users.join(memberships, memberships.c.user_id == users.c.id))
    .where(users.c.name == bindparam("of"))
)
_GROUPS_OF_ID = Prepared(select(memberships.c.user_group).where(memberships.c.user_id == bindparam("of")))
_GROUPS_OF_IDS = PreparedIn(
    lambda wanted: select(memberships.c.user_id, memberships.c.user_group).select_from(
        wanted.join(memberships, memberships.c.user_id == wanted.c.wanted)
    ),
    BigInteger(),
)


def scope_of(connection: Connection, host_group: str) -> frozenset[str]:
    """The groups of users that may log in on the hosts of this group; ``*`` among them: everybody."""
    return frozenset(str(row[0]) for row in _SCOPE.rows(connection, {"of": host_group}))


def is_entitled(connection: Connection, who: str | int, scope: frozenset[str]) -> bool:
    """Whether a user, by canonical name or number, is in the scope. A name that is not known is so where everybody is."""
    if EVERYBODY in scope:
        return True
    if not scope:
        return False
    statement = _GROUPS_OF_NAME if isinstance(who, str) else _GROUPS_OF_ID
    return any(row[0] in scope for row in statement.rows(connection, {"of": who}))


def entitled_among(connection: Connection, user_ids: Sequence[int], scope: frozenset[str]) -> frozenset[int]:
    """Those of these users that are in the scope."""
    if EVERYBODY in scope:
        return frozenset(user_ids)
    return frozenset(int(user) for user, group in _GROUPS_OF_IDS.rows(connection, list(user_ids)) if group in scope)


_PAGE_OF_GROUP = Prepared(
    select(memberships.c.user_id)
    .where(memberships.c.user_group == bindparam("of"), memberships.c.user_id > bindparam("after"))
    .order_by(memberships.c.user_id)
    .limit(bindparam("most", type_=Integer))
)
_PAGE_OF_ALL = Prepared(
    select(users.c.id)
    .where(users.c.id > bindparam("after"))
    .order_by(users.c.id)
    .limit(bindparam("most", type_=Integer))
)


def entitled_page(connection: Connection, scope: frozenset[str], after_id: int, limit: int) -> list[int]:
    """The numbers of the first ``limit`` entitled users above ``after_id``, in order."""
    if EVERYBODY in scope:
        return [int(row[0]) for row in _PAGE_OF_ALL.rows(connection, {"after": after_id, "most": limit})]
    # The first of all of them are among the first of each.
    each = [
        [int(row[0]) for row in _PAGE_OF_GROUP.rows(connection, {"of": group, "after": after_id, "most": limit})]
        for group in sorted(scope)
    ]
    return list(dict.fromkeys(heapq.merge(*each)))[:limit]


_DOCUMENTS = PreparedIn(
    lambda wanted: (
        select(
            users.c.id,
            users.c.name,
            users.c.state,
            users.c.requirement,
            users.c.grace_until,
            users.c.locked,
            users.c.version,
            credentials.c.id,
            credentials.c.kind,
            credentials.c.state,
            credentials.c.digest,
            credentials.c.digits,
            credentials.c.period_s,
            credentials.c.last_step,
            credentials.c.drift_steps,
            credentials.c.label,
            credentials.c.host_id,
            credentials.c.secret,
        )
        .select_from(
            wanted.join(users, users.c.id == wanted.c.wanted).outerjoin(credentials, credentials.c.user_id == users.c.id)
        )
        .order_by(users.c.id, credentials.c.id)
    ),
    BigInteger(),
)


def documents(connection: Connection, user_ids: Sequence[int]) -> list[UserRow]:
    """These users as they are, by number; one that is not there is not in the answer."""
    found: dict[int, tuple[UserRow, list[CredentialRow]]] = {}
    for row in _DOCUMENTS.rows(connection, sorted(set(user_ids))):
        user_id, name, state, requirement, grace_until, locked, version, number, kind, credential_state, *more = row
        if user_id not in found:
            found[int(user_id)] = (
                UserRow(
                    int(user_id), name, EnrolmentState(state), Requirement(requirement), float(grace_until), bool(locked),
                    int(version), (),
                ),
                [],
            )  # fmt: skip
        if number is None or credential_state not in _LIVE:
            continue
        digest, digits, period_s, last_step, drift_steps, label, host_id, sealed = more
        found[int(user_id)][1].append(
            CredentialRow(
                int(number), FactorKind(kind), CredentialState(credential_state), Digest(digest), int(digits), int(period_s),
                int(last_step), int(drift_steps), label, int(host_id), bytes(sealed),
            )
        )  # fmt: skip
    return [
        UserRow(u.id, u.name, u.state, u.requirement, u.grace_until, u.locked, u.version, tuple(owned))
        for u, owned in found.values()
    ]


_VERSIONS = PreparedIn(
    lambda wanted: select(users.c.id, users.c.version).select_from(wanted.join(users, users.c.id == wanted.c.wanted)),
    BigInteger(),
)
_VERSIONS_OF_ALL = Prepared(
    select(users.c.id, users.c.version)
    .where(users.c.id > bindparam("after"))
    .order_by(users.c.id)
    .limit(bindparam("most", type_=Integer))
)


def manifest(connection: Connection, scope: frozenset[str]) -> Iterator[tuple[int, int]]:
    """Number and version of every entitled user, by number; two thousand are in memory at a time."""
    after = -1
    while True:
        if EVERYBODY in scope:
            page = [(int(n), int(v)) for n, v in _VERSIONS_OF_ALL.rows(connection, {"after": after, "most": _PAGE})]
        else:
            numbers = entitled_page(connection, scope, after, _PAGE)
            page = sorted((int(n), int(v)) for n, v in _VERSIONS.rows(connection, numbers))
        if not page:
            return
        yield from page
        after = page[-1][0]


def manifest_digest(entries: Iterable[tuple[int, int]]) -> str:
    """SHA-256, in hex, over ``NUMBER|VERSION`` of each user, by number, a line each: the same set has the same digest."""
    digest = hashlib.sha256()
    separator = b""
    for number, version in entries:
        digest.update(separator + f"{number}|{version}".encode("ascii"))
        separator = b"\n"
    return digest.hexdigest()


def count(connection: Connection, scope: frozenset[str]) -> int:
    """How many users are entitled."""
    if EVERYBODY in scope:
        return int(connection.execute(select(func.count()).select_from(users)).scalar_one())
    distinct = func.count(memberships.c.user_id.distinct())
    return int(connection.execute(select(distinct).where(memberships.c.user_group.in_(sorted(scope)))).scalar_one())
