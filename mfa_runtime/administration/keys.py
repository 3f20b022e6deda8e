"""Rotation of keys, while mfad runs.

Room rule: the order of the steps is the point of this file: after each of them a crash leaves a key file and a store that fit
together, and the same command run again goes on where it stopped.

* The key-encryption key: the key file holds [new, old], durably; one transaction wraps every key anew; the file holds [new].
* The data key: one transaction adds a key that seals from then on; batches seal every row anew; the last transaction looks once
  more and drops what no row needs. Whoever seals with a keyring that this has overtaken is refused by :meth:`Act.seal`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, LargeBinary, Select, bindparam, func, literal, select, update

from mfa_core.errors import StoreCorrupt
from mfa_runtime.administration.act import Act
from mfa_runtime.key_file import KeyEncryptionKeys, new_key, write_key_file
from mfa_runtime.ownership import belong_like
from mfa_runtime.sealing import Keyring, Place, RandomBytes, key_id, sealed_under
from mfa_runtime.store import key_table
from mfa_runtime.store.codebooks import place_of as codebook_place
from mfa_runtime.store.database import Store
from mfa_runtime.store.key_pairs import place_of as key_pair_place
from mfa_runtime.store.key_table import ListedKey
from mfa_runtime.store.prepared import Prepared
from mfa_runtime.store.schema import codebooks, credentials, key_pairs

BATCH_ROWS = 1_000
"""Rows sealed anew in a transaction: some 30 ms in which logins wait."""


@dataclass(frozen=True, slots=True)
class _Sealed:
    """A column of sealed values: its rows after a key, in order, as (key, owner, value); the write; the place of a value."""

    column: Column[bytes]
    first: Any
    after: Select[Any]
    write: Prepared
    place: Callable[[Any, int], Place]


def _sealed(
    column: Column[bytes], key: Column[Any], owner: Column[int] | None, first: Any, place: Callable[[Any, int], Place]
) -> _Sealed:
    after = (
        select(key, literal(0) if owner is None else owner, column)
        .where(key > bindparam("last"))
        .order_by(key)
        .limit(BATCH_ROWS)
    )
    write = update(column.table).where(key == bindparam("row_key")).values({column.name: bindparam("sealed")})
    return _Sealed(column, first, after, Prepared(write), place)


_SEALED = (
    _sealed(
        credentials.c.secret,
        credentials.c.id,
        credentials.c.user_id,
        0,
        lambda number, owner: Place("credentials", "secret", number, owner),
    ),
    _sealed(codebooks.c.codes, codebooks.c.credential_id, None, 0, lambda number, _: codebook_place(number)),
    _sealed(key_pairs.c.private, key_pairs.c.name, None, "", lambda name, _: key_pair_place(name)),
)
"""Everything that a data key seals."""


@dataclass(frozen=True, slots=True)
class KeyReport:
    """The keys of a store. ``rows`` says how many values each data key seals; ``unfinished`` that a rotation broke off."""

    kek_ids: tuple[str, ...]
    keys: tuple[ListedKey, ...]
    rows: dict[int, int]
    unfinished: bool


def report_keys(connection: Connection, keks: KeyEncryptionKeys) -> KeyReport:
    """What keys there are, and what they seal."""
    rows = count_by_key(connection)
    listed = tuple(key_table.list_keys(connection))
    current = key_table.sealing_key(connection)
    return KeyReport(
        kek_ids=tuple(key_id(key) for key in keks.keys),
        keys=listed,
        rows=rows,
        unfinished=len(keks.keys) > 1 or any(number != current for number in rows),
    )


def count_by_key(connection: Connection) -> dict[int, int]:
    """How many values are sealed under each data key."""
    found: dict[int, int] = {}
    for one in _SEALED:
        # Bytes 2 to 5 of a sealed value are the key's number: mfa_runtime.sealing.
        number = func.substr(one.column, 2, 4, type_=LargeBinary)
        for key, count in connection.execute(select(number, func.count()).group_by(number)):
            seals = int.from_bytes(bytes(key), "big")
            found[seals] = found.get(seals, 0) + int(count)
    return found


def replace_key_file(path: Path, keks: KeyEncryptionKeys) -> None:
    """Replace a key file by one of the same owner: mfad reads it again."""
    before = path.stat()
    write_key_file(path, keks)
    belong_like(path, before)


def rotate_kek(
    store: Store,
    act: Act,
    keks: KeyEncryptionKeys,
    key_file: Path,
    *,
    write: Callable[[Path, KeyEncryptionKeys], None] = replace_key_file,
) -> KeyEncryptionKeys:
    """Replace the key-encryption key; return what the key file holds then. Finishes a rotation that broke off instead.

    Raises:
        StoreUnavailable: the store could not be written; the key file holds both keys, and the store opens.
    """
    both = keks
    if len(keks.keys) == 1:
        both = KeyEncryptionKeys((new_key(act.random), *keks.keys))
        write(key_file, both)
    with store.writing() as connection:
        wrapped = key_table.rewrap(connection, both, random=act.random)
        act.record(connection, "key.rotate", key_id(both.current), wrapped=wrapped)
    alone = KeyEncryptionKeys((both.current,))
    write(key_file, alone)
    return alone


def rotate_data_key(
    store: Store,
    keks: KeyEncryptionKeys,
    new_act: Callable[[Keyring], Act],
    *,
    random: RandomBytes,
    advance: Callable[[int, int], None],
) -> int:
    """Seal everything under a new data key; return its number. Finishes a rotation that broke off instead.

    ``advance(done, total)`` hears of progress, in rows.
    """
    with store.writing() as connection:
        ring = key_table.load_keyring(connection, keks, random=random)
        act = new_act(ring)
        if all(number == ring.current for number in count_by_key(connection)) and len(ring.numbers) == 1:
            number = key_table.add_data_key(connection, keks, now=act.now, random=random)
            act.record(connection, "key.data.add", str(number))
            ring = key_table.load_keyring(connection, keks, random=random)
        total = sum(count_by_key(connection).values())
    done = 0
    for one in _SEALED:
        last = one.first
        while True:
            with store.writing() as connection:
                rows = connection.execute(one.after, {"last": last}).all()
                _seal_anew(connection, ring, one, [(key, int(owner), bytes(value)) for key, owner, value in rows])
            if not rows:
                break
            last = rows[-1][0]
            done += len(rows)
            advance(done, total)
    with store.writing() as connection:
        act = new_act(ring)
        act.check_keys(connection)
        left = {number: count for number, count in count_by_key(connection).items() if number != ring.current}
        if left:
            raise StoreCorrupt(
                f"values are still sealed under data keys {', '.join(map(str, left))}",
                cure="run `mfactl key rotate --data` again",
            )
        retired = ring.numbers - {ring.current}
        key_table.drop_data_keys(connection, retired)
        act.record(connection, "key.data.done", str(ring.current), rows=done, dropped=len(retired))
    return ring.current


def _seal_anew(connection: Connection, ring: Keyring, one: _Sealed, rows: list[tuple[Any, int, bytes]]) -> None:
    changes = []
    for key, owner, value in rows:
        if sealed_under(value) == ring.current:
            continue
        place = one.place(key, owner)
        changes.append({"row_key": key, "sealed": ring.seal(ring.unseal(value, place), place)})
    if changes:
        one.write.run_each(connection, changes)
