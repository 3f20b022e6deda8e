"""Put a backup in the place of the store, without bringing a spent code, a revoked credential or a lifted lock back.

Room rule: a restored store is never more permissive than the one it replaces. Everything happens in a copy; one rename makes it
the store, so that a crash leaves the old one or the new one. The old one is kept beside it.

What the backup cannot know is taken from the present store, when that can be read and is the same one (``store_id``):

* TOTP: no step up to ``now + window + drift`` can be used again; codes work again some minutes later.
* HOTP: the counter of the present store; without one the credential is suspended until two codes resynchronise it.
* recovery and bypass codes: those that are used or gone in the present store are used; without a present store all of them are.
* credentials that were revoked or suspended, and locks, stay; failures and waiting times are those of the present store.
* passwords of our own: those of the present store. Without one those of the backup hold, as nobody could log in otherwise;
  whoever knows an old one still needs a code that counts from now on.
* hosts, their groups, their scopes and who is in which group: those of the present store. Without one every host is in
  quarantine until an administrator releases it, as nobody knows which were revoked; all of them fetch everything anew.
* an agent: its lease is over, so that it verifies nothing alone before it has heard from its authority.
* users: of two requirements and deadlines of grace the stricter one; who has enrolled since is revoked, not "not enrolled".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Connection, func, select

from mfa_core.errors import MfaError, StoreCorrupt
from mfa_core.model import CredentialState, FactorKind
from mfa_core.oath import DEFAULT_WINDOW, MAX_DRIFT, step_at
from mfa_runtime.administration.act import LOCAL_NODE, Act
from mfa_runtime.administration.restored_hosts import settle_hosts
from mfa_runtime.administration.restored_rows import (
    Circumstances,
    attach,
    make_strict,
    next_generation,
    replaced_heads,
    without_factor,
)
from mfa_runtime.key_file import KeyEncryptionKeys
from mfa_runtime.ownership import belong_like
from mfa_runtime.sealing import Place, RandomBytes
from mfa_runtime.store import audit_log
from mfa_runtime.store.database import STORE_FILE, Store, connect, read_meta, restrict_file_mode
from mfa_runtime.store.key_table import load_keyring
from mfa_runtime.store.schema import credentials, one_time_codes, users
from mfa_runtime.store.snapshot import check_integrity, copy_store, put_in_place, remove, settle
from mfa_runtime.store.versions import check_version

RESTORING = STORE_FILE + ".restoring"
REPLACED = STORE_FILE + ".replaced"
"""The store that was replaced, until the next restore."""
_SEALS_TRIED = 1_000


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore came to. ``usable_from`` (Unix seconds) is when TOTP codes count again.

    ``present_known``: the replaced store was read, and was the same one. ``suspended`` are users with a counter-based token
    that must be resynchronised; ``without_codes`` are users whose recovery codes are all used up or revoked; ``without_factor``
    are users whose only factors are newer than the backup. ``quarantined`` are hosts that were active in the backup.
    """

    generation: int
    present_known: bool
    usable_from: float
    users: int
    suspended: tuple[str, ...]
    without_codes: tuple[str, ...]
    without_factor: tuple[str, ...]
    bypass_revoked: int
    kept: Path | None
    quarantined: tuple[str, ...] = ()


def restore(
    state_dir: Path,
    backup: Path,
    keks: KeyEncryptionKeys,
    *,
    actor: str,
    now: float,
    random: RandomBytes,
    window: int = DEFAULT_WINDOW,
    max_drift: int = MAX_DRIFT,
) -> RestoreReport:
    """Replace the store of ``state_dir`` by ``backup``. The caller holds the state lock alone.

    Raises:
        InvalidInput: not a file of ``mfactl backup``.
        ConfigurationError: the key file does not open it.
        StoreCorrupt: damaged, of another schema, or its audit chain was tampered with. The present store is untouched.
    """
    restrict_file_mode()
    copy, place = state_dir / RESTORING, state_dir / STORE_FILE
    copy_store(backup, copy)
    try:
        check_integrity(copy)
        store = connect(copy)
        try:
            check_version(store)
            present = _present_twin(store, place)
            report = _write(store, keks, place if present else None, actor, now, random, window, max_drift)
        finally:
            store.close()
        settle(copy)
    except BaseException:
        remove(copy)
        raise
    belong_like(copy, state_dir.stat())
    aside = state_dir / REPLACED if place.exists() else None
    if present:
        settle(place)
    put_in_place(copy, place, aside=aside)
    return replace(report, kept=aside)


def settle_restored(
    store: Store,
    keks: KeyEncryptionKeys,
    *,
    actor: str,
    now: float,
    random: RandomBytes,
    node: str,
    window: int = DEFAULT_WINDOW,
    max_drift: int = MAX_DRIFT,
) -> RestoreReport:
    """Make a database that was put back by its own tools as strict as :func:`restore` makes a file, nothing being known of what
    it replaced. ``node`` is the audit chain of who does it. No mfad may run on it.

    Raises:
        ConfigurationError: the key file does not open it.
        StoreCorrupt: its audit chain is broken: that was no whole backup. Nothing was changed.
        StoreUnavailable: it cannot be written.
    """
    return _write(store, keks, None, actor, now, random, window, max_drift, node)


def _present_twin(copy: Store, place: Path) -> bool:
    """Whether the store at ``place`` can be read and is the one that the backup was made of."""
    if not place.exists():
        return False
    present = connect(place)
    try:
        check_version(present)
        with present.reading() as connection, copy.reading() as copied:
            connection.execute(select(func.max(credentials.c.last_step))).scalar()
            store_id = read_meta(connection, "store_id")
            return store_id is not None and store_id == read_meta(copied, "store_id")
    except MfaError:
        return False
    finally:
        present.close()


def _write(
    store: Store,
    keks: KeyEncryptionKeys,
    present: Path | None,
    actor: str,
    now: float,
    random: RandomBytes,
    window: int,
    max_drift: int,
    node: str = LOCAL_NODE,
) -> RestoreReport:
    with store.reading() as connection:
        ring = load_keyring(connection, keks, random=random)
        for row in connection.execute(select(credentials).order_by(credentials.c.id).limit(_SEALS_TRIED)):
            ring.unseal(bytes(row.secret), Place("credentials", "secret", int(row.id), int(row.user_id)))
        broken = [problem for chain in audit_log.verify(connection, keyring=ring) for problem in chain.problems]
        if broken:
            raise StoreCorrupt(f"the audit chain of the backup is broken: {broken[0]}", cure="take another backup")
    with store.writing() as connection:
        at = Circumstances(now=now, reach=window + max_drift, present=present is not None)
        if present is not None:
            attach(connection, present)
        bypasses = make_strict(connection, at)
        generation = next_generation(connection, at)
        quarantined = settle_hosts(connection, ring, at)
        report = RestoreReport(
            generation=generation,
            present_known=present is not None,
            usable_from=_usable_from(connection, now, max_drift),
            users=int(connection.execute(select(func.count()).select_from(users)).scalar_one()),
            suspended=_with_suspended_counters(connection),
            without_codes=_without_codes(connection),
            without_factor=without_factor(connection) if present is not None else (),
            bypass_revoked=bypasses,
            kept=None,
            quarantined=quarantined,
        )
        Act(actor, now, random, ring, node).record(
            connection,
            "store.restore",
            read_meta(connection, "store_id") or "",
            generation=generation,
            replaced_head=replaced_heads(connection) if present is not None else "",
            suspended=len(report.suspended),
            without_codes=len(report.without_codes),
            without_factor=len(report.without_factor),
            quarantined=len(report.quarantined),
        )
    return report


def _usable_from(connection: Connection, now: float, max_drift: int) -> float:
    longest = select(func.max(credentials.c.period_s)).where(credentials.c.kind == FactorKind.TOTP)
    period_s = int(connection.execute(longest).scalar() or 0)
    # The watermark is a window above the drift; the code that everybody's device shows then is the first one above it.
    return float((step_at(now, period_s) + max_drift + 2) * period_s) if period_s else now


def _with_suspended_counters(connection: Connection) -> tuple[str, ...]:
    query = (
        select(users.c.name)
        .join(credentials, credentials.c.user_id == users.c.id)
        .where(credentials.c.kind == FactorKind.HOTP, credentials.c.state == CredentialState.SUSPENDED)
    )
    return tuple(connection.execute(query.distinct().order_by(users.c.name)).scalars())


def _without_codes(connection: Connection) -> tuple[str, ...]:
    query = (
        select(users.c.name)
        .join(one_time_codes, one_time_codes.c.user_id == users.c.id)
        .where(one_time_codes.c.kind.in_([FactorKind.RECOVERY, FactorKind.RECOVERY_KEY]))
        .group_by(users.c.id)
        .having(func.max(one_time_codes.c.uses_left) == 0)
    )
    return tuple(connection.execute(query.order_by(users.c.name)).scalars())
