"""Recovery codes: ten numbered ones and one long key, made anew in whole, stored as hashes.

Room rule: rows of kind ``recovery`` and ``recovery_key`` are written in this file. A new batch leaves nothing of the old one:
a code that was printed and lost must not open the door years later.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert

from mfa_core.model import FactorKind, User
from mfa_core.passcode import (
    RECOVERY_CODE_BYTES,
    RECOVERY_KEY_BYTES,
    format_recovery_code,
    format_recovery_key,
    read_passcode,
)
from mfa_core.secret import Secret
from mfa_runtime.administration.act import Act
from mfa_runtime.one_time_hash import hash_code, place_of
from mfa_runtime.store.ids import take
from mfa_runtime.store.schema import one_time_codes

RECOVERY_CODES = 10


@dataclass(frozen=True, slots=True)
class RecoveryBatch:
    """What is shown once: ``codes`` as ``NN-XXXX-XXXX-XXXX-XXXX``, ``key`` as six groups of four."""

    codes: tuple[Secret, ...]
    key: Secret


def new_recovery_codes(connection: Connection, act: Act, user: User, *, count: int = RECOVERY_CODES) -> RecoveryBatch:
    """Replace all recovery codes of a user by ``count`` new ones (0 to 99), and the key. About 5 ms of hashing each."""
    _forget(connection, user, FactorKind.RECOVERY)
    codes = []
    for position in range(1, count + 1):
        text = format_recovery_code(position, act.random(RECOVERY_CODE_BYTES))
        _keep(connection, act, user, FactorKind.RECOVERY, position, text)
        codes.append(Secret.from_text(text))
    key = replace_recovery_key(connection, act, user)
    act.record(connection, "recovery.new", user.name, codes=count)
    return RecoveryBatch(tuple(codes), key)


def replace_recovery_key(connection: Connection, act: Act, user: User) -> Secret:
    """Give a user a new recovery key in place of the old one. The caller's event tells of it."""
    _forget(connection, user, FactorKind.RECOVERY_KEY)
    text = format_recovery_key(act.random(RECOVERY_KEY_BYTES))
    _keep(connection, act, user, FactorKind.RECOVERY_KEY, 0, text)
    return Secret.from_text(text)


def _forget(connection: Connection, user: User, kind: FactorKind) -> None:
    connection.execute(
        delete(one_time_codes).where(one_time_codes.c.user_id == user.id, one_time_codes.c.kind == kind)
    )


def _keep(connection: Connection, act: Act, user: User, kind: FactorKind, position: int, text: str) -> None:
    number = take(connection, "one_time_codes")
    connection.execute(
        insert(one_time_codes).values(
            id=number,
            user_id=user.id,
            kind=kind,
            position=position,
            # Hashed in the one spelling that read_passcode gives what is typed later.
            hash=hash_code(read_passcode(text.encode("ascii")).text, place_of(number, user.id), keyring=act.keyring),
            uses_left=1,
            not_after=0.0,
            created_at=act.now,
            used_at=0.0,
            reason="",
            approver="",
        )
    )
