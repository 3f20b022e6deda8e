"""The keys table: load a keyring from it, make the first keys, rotate.

Room rule: the only file that reads or writes the ``keys`` table. Data keys lie here wrapped by the key-encryption key, which
never does.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from mfa_core.errors import StoreCorrupt
from mfa_core.secret import Secret
from mfa_runtime.key_file import KeyEncryptionKeys, new_key
from mfa_runtime.sealing import Keyring, RandomBytes, key_id, unwrap_key, wrap_key
from mfa_runtime.store.schema import keys

DATA, PEPPER, AUDIT = "data", "pepper", "audit"
ACTIVE, RETIRED = "active", "retired"


def load_keyring(connection: Connection, keks: KeyEncryptionKeys, *, random: RandomBytes) -> Keyring:
    """Unwrap every key of the store.

    Raises:
        ConfigurationError: the key file does not hold the key that the store was sealed under.
        StoreCorrupt: keys are missing or damaged.
    """
    data: dict[int, Secret] = {}
    current = -1
    singles: dict[str, Secret] = {}
    for row in connection.execute(select(keys).order_by(keys.c.number)):
        key = unwrap_key(keks.by_id(row.kek_id), bytes(row.wrapped), number=row.number, purpose=row.purpose)
        if row.purpose == DATA:
            data[row.number] = key
            if row.state == ACTIVE:
                current = row.number
        else:
            singles[row.purpose] = key
    if current < 0 or PEPPER not in singles or AUDIT not in singles:
        raise StoreCorrupt("the store's key table is not complete", cure="restore the store from a backup")
    return Keyring(data, current=current, pepper=singles[PEPPER], audit_key=singles[AUDIT], random=random)


def create_keys(connection: Connection, keks: KeyEncryptionKeys, *, now: float, random: RandomBytes) -> None:
    """Make the first keys of an empty store."""
    for number, purpose in enumerate((DATA, PEPPER, AUDIT), start=1):
        _insert(connection, keks, number, purpose, now=now, random=random)


def add_data_key(connection: Connection, keks: KeyEncryptionKeys, *, now: float, random: RandomBytes) -> int:
    """Make a new data key the one that seals; the others still open. Returns its number."""
    number = 1 + max(int(seen) for seen in connection.execute(select(keys.c.number)).scalars())
    connection.execute(update(keys).where(keys.c.purpose == DATA).values(state=RETIRED))
    _insert(connection, keks, number, DATA, now=now, random=random)
    return number


def sealing_key(connection: Connection) -> int:
    """The number of the data key that new values are sealed under."""
    return int(connection.execute(select(keys.c.number).where(keys.c.purpose == DATA, keys.c.state == ACTIVE)).scalar_one())


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key without the key. ``state`` is active or retired; ``created_at`` Unix seconds."""

    number: int
    purpose: str
    state: str
    kek_id: str
    created_at: float


def list_keys(connection: Connection) -> list[ListedKey]:
    """Every key of the store, by number."""
    query = select(keys.c.number, keys.c.purpose, keys.c.state, keys.c.kek_id, keys.c.created_at).order_by(keys.c.number)
    return [ListedKey(*row) for row in connection.execute(query)]


def drop_data_keys(connection: Connection, numbers: frozenset[int]) -> None:
    """Delete retired data keys that no row needs any more (the caller has looked)."""
    connection.execute(delete(keys).where(keys.c.purpose == DATA, keys.c.state == RETIRED, keys.c.number.in_(numbers)))


def rewrap(connection: Connection, keks: KeyEncryptionKeys, *, random: RandomBytes) -> int:
    """Wrap every key under the current key-encryption key. Returns how many were wrapped anew."""
    wanted = key_id(keks.current)
    count = 0
    for row in connection.execute(select(keys)).all():
        if row.kek_id == wanted:
            continue
        key = unwrap_key(keks.by_id(row.kek_id), bytes(row.wrapped), number=row.number, purpose=row.purpose)
        wrapped = wrap_key(keks.current, key, number=row.number, purpose=row.purpose, random=random)
        connection.execute(update(keys).where(keys.c.number == row.number).values(wrapped=wrapped, kek_id=wanted))
        count += 1
    return count


def _insert(
    connection: Connection, keks: KeyEncryptionKeys, number: int, purpose: str, *, now: float, random: RandomBytes
) -> None:
    connection.execute(
        insert(keys).values(
            number=number,
            purpose=purpose,
            state=ACTIVE,
            wrapped=wrap_key(keks.current, new_key(random), number=number, purpose=purpose, random=random),
            kek_id=key_id(keks.current),
            created_at=now,
        )
    )
