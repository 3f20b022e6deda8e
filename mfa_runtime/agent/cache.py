"""What the authority says about users and codes comes into this host's store.

Room rule: one page, one transaction. Watermarks rise and never fall, a secret is sealed anew for its place here, and what the
authority does not list any more goes, with every octet of it. The lease is written with the last page: an interrupted sync
leaves the old cache and the old end of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, case, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from mfa_core.codebook import width
from mfa_core.model import CredentialState, Material
from mfa_core.offline import Moment
from mfa_core.secret import Secret
from mfa_runtime.administration.act import Act
from mfa_runtime.agent.snapshot import Snapshot
from mfa_runtime.protocol.message import ProtocolError
from mfa_runtime.protocol.syncing import CredentialDoc, SealedEntry, UserDoc, manifest_digest
from mfa_runtime.sealing import Place
from mfa_runtime.store import agent_state, codebooks
from mfa_runtime.store.codebooks import Codebook
from mfa_runtime.store.schema import credentials, users

NO_GENERATION = "none"
"""Of no store: an authority that is asked for what is new since then sends everything. Else what is here stays as it was."""
_AT_ONCE = 500
"""Rows of one statement: SQLite takes 32,766 values."""
_NOTHING = Secret(b"")

T = TypeVar("T")


class ManifestMismatch(ProtocolError):
    """What is here after a page is not what the authority believes: nothing of the page stands, and all is asked for anew."""


@dataclass(slots=True)
class Progress:
    """A sync of several pages that is under way. ``seen`` are the users that its pages had."""

    seen: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Applied:
    """What a page changed. ``erased``: a secret that was here is not to be here any more, in no file.

    ``compared``: what is here now is what the authority lists; False where it did not say this time.
    """

    users: int = 0
    gone: int = 0
    erased: bool = False
    compared: bool = False


def apply(connection: Connection, snapshot: Snapshot, progress: Progress, moment: Moment, act: Act) -> Applied:
    """Bring one page into the store, in the caller's writing transaction.

    Raises:
        UnknownKey: the keyring is not the one that seals by now.
        ManifestMismatch: the last page is in, and what is here is not what the authority says.
        StoreFull, StoreUnavailable: as writing does; nothing of the page stands.
    """
    act.check_keys(connection)
    answer = snapshot.answer
    erased = _write_users(connection, answer.users, snapshot.entries, act)
    progress.seen.update(user.id for user in answer.users)
    gone = set(answer.gone) - {user.id for user in answer.users}
    if answer.full and not answer.more:
        gone |= set(connection.execute(select(users.c.id)).scalars()) - progress.seen
    erased = _remove_users(connection, gone) or erased
    if answer.rules is not None:
        agent_state.change(connection, rules=answer.rules)
    if answer.more:
        agent_state.change(connection, seq=answer.seq)
        return Applied(len(answer.users), len(gone), erased)
    here, compared = _compare(connection, snapshot, changed=bool(answer.users or gone or answer.full))
    agent_state.change(
        connection,
        standing="joined",
        seq=answer.seq,
        generation=answer.cursor.generation,
        cursor=answer.cursor.seq,
        digest=here,
        not_after=answer.not_after,
        floor=answer.server_time,
        synced_at=answer.server_time,
        boot_id=moment.boot_id,
        boottime_s=moment.boottime_s,
        host=answer.terms.model_dump_json(),
    )
    return Applied(len(answer.users), len(gone), erased, compared)


def _compare(connection: Connection, snapshot: Snapshot, *, changed: bool) -> tuple[str, bool]:
    """The digest of what is here, and whether the authority has said the same. Raises: ManifestMismatch."""
    said = snapshot.answer.digest
    state = agent_state.load(connection)
    before = "" if state is None else state.digest
    if not changed and before and said in {None, before}:
        return before, said is not None
    here = digest_here(connection)
    if said is not None and said != here:
        raise ManifestMismatch(
            "the users of this host are not those that the authority lists", cure="a full sync follows; else see its log"
        )
    return here, said is not None


def digest_here(connection: Connection) -> str:
    """The digest of the users that are here."""
    return manifest_digest((row.id, row.version) for row in connection.execute(select(users.c.id, users.c.version)))


def codes_until(connection: Connection) -> float:
    """When the codebook that ends first ends, Unix seconds; 0 where there is none."""
    lengths = codebooks.lengths(connection)
    query = select(credentials.c.id, credentials.c.digits, credentials.c.period_s).where(
        credentials.c.material == Material.CODEBOOK.value, credentials.c.state == CredentialState.ACTIVE.value
    )
    ends = [
        (lengths[row.id].first_step + lengths[row.id].octets // width(row.digits)) * float(row.period_s)
        for row in connection.execute(query)
        if row.id in lengths
    ]
    return min(ends, default=0.0)


def wipe(connection: Connection, standing: str, act: Act, reason: str) -> bool:
    """The authority has cut this host off: forget every user and secret. Whether anything was here."""
    gone = set(connection.execute(select(users.c.id)).scalars())
    _remove_users(connection, gone)
    agent_state.change(connection, standing=standing, generation=NO_GENERATION, digest="", not_after=0.0)
    act.record(connection, f"agent.{standing}", reason=reason, users=len(gone))
    return bool(gone)


def _write_users(
    connection: Connection, docs: Sequence[UserDoc], entries: Mapping[int, SealedEntry], act: Act
) -> bool:
    if not docs:
        return False
    _give_way(connection, docs)
    rows = [
        {
            "id": doc.id, "name": doc.name, "state": doc.state.value, "requirement": doc.requirement.value,
            "grace_until": doc.grace_until, "locked": doc.locked, "created_at": act.now, "version": doc.version,
        }
        for doc in docs
    ]  # fmt: skip
    _upsert(connection, users, rows, kept={"created_at"})
    return _write_credentials(connection, docs, entries, act)


def _give_way(connection: Connection, docs: Sequence[UserDoc]) -> None:
    """Names are unique, and may have changed hands: who bears one that is another's by now has none until his own page."""
    of = {doc.name: doc.id for doc in docs}
    for some in _slices(list(of)):
        for row in connection.execute(select(users.c.id, users.c.name).where(users.c.name.in_(some))).all():
            if of[row.name] != row.id:
                # No identity has a control character: nobody can log in under this.
                connection.execute(update(users).where(users.c.id == row.id).values(name=f"\x1f{row.id}"))


@dataclass(frozen=True, slots=True)
class _Held:
    """A credential that is here: whose, what is here of it, and that as it is sealed."""

    user_id: int
    material: Material
    secret: bytes = field(repr=False)


def _write_credentials(
    connection: Connection, docs: Sequence[UserDoc], entries: Mapping[int, SealedEntry], act: Act
) -> bool:
    owners = {one.id: doc.id for doc in docs for one in doc.credentials}
    if sum(len(doc.credentials) for doc in docs) != len(owners):
        raise ProtocolError("a credential stands twice in one page", cure="see the log of the authority")
    held = _held(connection, [doc.id for doc in docs], list(owners))
    unlisted = [number for number in held if number not in owners]
    rows: list[dict[str, Any]] = []
    books: list[Codebook] = []
    bookless = list(unlisted)
    erased = False
    for doc in docs:
        for one in doc.credentials:
            before, entry = held.get(one.id), entries.get(one.id)
            material, sealed = Material(one.material), None
            if entry is None and material is not Material.NONE:
                # Nothing was sent for it: what is here stays, if it is that; else its codes are the authority's to check.
                if before is not None and before.material is material and before.user_id == doc.id:
                    sealed = before.secret
                else:
                    material = Material.NONE
            if sealed is None:
                secret = entry.secret if entry is not None and material is Material.SEED else _NOTHING
                sealed = act.keyring.seal(secret, Place("credentials", "secret", one.id, doc.id))
                erased = erased or (before is not None and before.material is Material.SEED)
                if material is Material.CODEBOOK and entry is not None:
                    books.append(Codebook(one.id, entry.first_step, entry.secret))
            if material is not Material.CODEBOOK:
                bookless.append(one.id)
            rows.append(_row(one, doc.id, sealed, material, act.now))
    for some in _slices(bookless):
        erased = codebooks.forget(connection, some) > 0 or erased
    for some in _slices(unlisted):
        erased = connection.execute(delete(credentials).where(credentials.c.id.in_(some))).rowcount > 0 or erased
    _upsert(connection, credentials, rows, kept=_OURS, watermark=("last_step", "drift_steps"))
    codebooks.put(connection, act.keyring, books)
    return erased


_OURS = {"created_at", "verified_at", "resync_step", "last_used_at", "expires_at", "known_source", "known_at", "known_scope"}
"""What this host knows of a credential by itself."""


def _row(doc: CredentialDoc, user_id: int, sealed: bytes, material: Material, now: float) -> dict[str, Any]:
    return {
        "id": doc.id, "user_id": user_id, "kind": doc.kind.value, "state": doc.state.value, "digest": doc.digest.value,
        "digits": doc.digits, "period_s": doc.period_s, "last_step": doc.last_step, "drift_steps": doc.drift_steps,
        "resync_step": -1, "secret": sealed, "secret_tag": b"", "label": doc.label, "created_at": now, "verified_at": now,
        "last_used_at": 0.0, "expires_at": 0.0, "known_source": "", "known_at": 0.0, "known_scope": "",
        # Whatever is sent here may answer here: this host's gate need not know its own number.
        "host_id": 0, "material": material.value,
    }  # fmt: skip


def _held(connection: Connection, user_ids: Sequence[int], numbers: Sequence[int]) -> dict[int, _Held]:
    found: dict[int, _Held] = {}
    c = credentials.c
    for wanted, column in ((user_ids, c.user_id), (numbers, c.id)):
        for some in _slices(wanted):
            query = select(c.id, c.user_id, c.material, c.secret).where(column.in_(some))
            for row in connection.execute(query):
                found[row.id] = _Held(row.user_id, Material(row.material), bytes(row.secret))
    return found


def _remove_users(connection: Connection, gone: set[int]) -> bool:
    """Forget users and all that hangs on them. Whether a credential went."""
    had = False
    for some in _slices(sorted(gone)):
        owned = select(credentials.c.id).where(credentials.c.user_id.in_(some)).limit(1)
        had = had or connection.execute(owned).first() is not None
        connection.execute(delete(users).where(users.c.id.in_(some)))
    return had


def _upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    kept: AbstractSet[str],
    watermark: tuple[str, str] | None = None,
) -> None:
    """Write rows in place of those with their ids, but for columns that are ``kept``. The ``watermark`` never falls, and the
    column that goes with it comes from whoever has the higher one."""
    if not rows:
        return
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table)
    new = statement.excluded
    changed: dict[str, Any] = {name: new[name] for name in rows[0] if name != "id" and name not in kept}
    if watermark is not None:
        mark, with_it = watermark
        changed[mark] = case((new[mark] > table.c[mark], new[mark]), else_=table.c[mark])
        changed[with_it] = case((new[mark] >= table.c[mark], new[with_it]), else_=table.c[with_it])
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changed), list(rows))


def _slices(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]
