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

from sqlalchemy import Connection, LargeBinary, bindparam, func, select, update

from mfa_core.errors import StoreCorrupt
from mfa_runtime.administration.act import Act
from mfa_runtime.key_file import KeyEncryptionKeys, new_key, write_key_file
from mfa_runtime.ownership import belong_like
from mfa_runtime.sealing import Keyring, Place, RandomBytes, key_id, sealed_under
from mfa_runtime.store import key_table
from mfa_runtime.store.database import Store
from mfa_runtime.store.key_table import ListedKey
from mfa_runtime.store.prepared import Prepared
from mfa_runtime.store.schema import credentials

BATCH_ROWS = 1_000
"""Rows sealed anew in a transaction: some 30 ms in which logins wait."""

_ROWS_AFTER = (
    select(credentials.c.id, credentials.c.user_id, credentials.c.secret)
    .where(credentials.c.id > bindparam("last"))
    .order_by(credentials.c.id)
    .limit(BATCH_ROWS)
)
_SET_SECRET = Prepared(update(credentials).where(credentials.c.id == bindparam("number")).values(secret=bindparam("sealed")))


@dataclass(frozen=True, slots=True)
class KeyReport:
    """The keys of a store. ``rows`` says how many secrets each data key seals; ``unfinished`` that a rotation broke off."""

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
    """How many secrets are sealed under each data key."""
    # Bytes 2 to 5 of a sealed value are the key's number: mfa_runtime.sealing.
    number = func.substr(credentials.c.secret, 2, 4, type_=LargeBinary)
    return {
        int.from_bytes(bytes(key), "big"): int(count)
        for key, count in connection.execute(select(number, func.count()).group_by(number))
    }


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
    """Seal every secret under a new data key; return its number. Finishes a rotation that broke off instead.

    ``advance(done, total)`` hears of progress, in rows.
    """
    with store.writing() as connection:
        ring = key_table.load_keyring(connection, keks, random=random)
        act = new_act(ring)
        if all(number == ring.current for number in count_by_key(connection)) and len(ring.numbers) == 1:
            number = key_table.add_data_key(connection, keks, now=act.now, random=random)
            act.record(connection, "key.data.add", str(number))
            ring = key_table.load_keyring(connection, keks, random=random)
        total = int(connection.execute(select(func.count()).select_from(credentials)).scalar_one())
    done, last = 0, 0
    while True:
        with store.writing() as connection:
            rows = connection.execute(_ROWS_AFTER, {"last": last}).all()
            _seal_anew(connection, ring, [(int(n), int(user), bytes(sealed)) for n, user, sealed in rows])
        if not rows:
            break
        last = int(rows[-1].id)
        done += len(rows)
        advance(done, total)
    with store.writing() as connection:
        act = new_act(ring)
        act.check_keys(connection)
        left = {number: count for number, count in count_by_key(connection).items() if number != ring.current}
        if left:
            raise StoreCorrupt(
                f"secrets are still sealed under data keys {', '.join(map(str, left))}",
                cure="run `mfactl key rotate --data` again",
            )
        retired = ring.numbers - {ring.current}
        key_table.drop_data_keys(connection, retired)
        act.record(connection, "key.data.done", str(ring.current), rows=done, dropped=len(retired))
    return ring.current


def _seal_anew(connection: Connection, ring: Keyring, rows: list[tuple[int, int, bytes]]) -> None:
    changes = []
    for number, user_id, sealed in rows:
        if sealed_under(sealed) == ring.current:
            continue
        place = Place("credentials", "secret", number, user_id)
        changes.append({"number": number, "sealed": ring.seal(ring.unseal(sealed, place), place)})
    if changes:
        _SET_SECRET.run_each(connection, changes)
