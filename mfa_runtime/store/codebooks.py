"""Books of codes to come, a credential each: an authority keeps those that it has made, an agent those that it was sent.

Room rule: the only file that reads or writes ``codebooks``. What stands in a book :mod:`mfa_core.codebook` knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import BigInteger, ClauseElement, Connection, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect

from mfa_core.secret import Secret
from mfa_runtime.sealing import SEAL_BYTES, Keyring, Place
from mfa_runtime.store.prepared import Prepared, PreparedIn, Row
from mfa_runtime.store.schema import codebooks


@dataclass(frozen=True, slots=True)
class Codebook:
    """The packed codes of a credential, from the absolute time step ``first_step`` on."""

    credential_id: int
    first_step: int
    codes: Secret = field(repr=False)


def place_of(credential_id: int) -> Place:
    """Where the codes of a credential are sealed."""
    return Place("codebooks", "codes", credential_id, credential_id)


def _upsert(dialect: Dialect) -> ClauseElement:
    insert = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
    statement = insert(codebooks)
    changed = {name: statement.excluded[name] for name in ("first_step", "codes")}
    return statement.on_conflict_do_update(index_elements=["credential_id"], set_=changed)


_WRITE = Prepared(_upsert)
_READ = PreparedIn(
    lambda wanted: select(codebooks.c.credential_id, codebooks.c.first_step, codebooks.c.codes).select_from(
        wanted.join(codebooks, codebooks.c.credential_id == wanted.c.wanted)
    ),
    BigInteger(),
)


def put(connection: Connection, keyring: Keyring, books: Iterable[Codebook]) -> None:
    """Write these books in place of older ones. Callers check their keyring first (:meth:`Act.check_keys`)."""
    rows = [
        (book.credential_id, book.first_step, keyring.seal(book.codes, place_of(book.credential_id))) for book in books
    ]
    if rows:
        _WRITE.run_rows(connection, ("credential_id", "first_step", "codes"), rows)


def read(connection: Connection, credential_ids: Sequence[int]) -> list[Row]:
    """The rows of these credentials, sealed: id, first step, codes."""
    return _READ.rows(connection, credential_ids)


def get(connection: Connection, keyring: Keyring, credential_ids: Sequence[int]) -> dict[int, Codebook]:
    """The books of these credentials; one without a book is not in the answer.

    Raises:
        UnknownKey, StoreCorrupt: as :meth:`Keyring.unseal`.
    """
    return {
        int(number): Codebook(int(number), int(first), keyring.unseal(bytes(sealed), place_of(int(number))))
        for number, first, sealed in read(connection, credential_ids)
    }


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a book begins, and how many octets of codes it has."""

    first_step: int
    octets: int


def lengths(connection: Connection) -> dict[int, Extent]:
    """The extent of every book, by credential, without opening one."""
    query = select(codebooks.c.credential_id, codebooks.c.first_step, func.length(codebooks.c.codes))
    return {int(n): Extent(int(first), int(size) - SEAL_BYTES) for n, first, size in connection.execute(query)}


def forget(connection: Connection, credential_ids: Sequence[int]) -> int:
    """Forget the books of these credentials; how many there were."""
    if not credential_ids:
        return 0
    return connection.execute(delete(codebooks).where(codebooks.c.credential_id.in_(credential_ids))).rowcount


def clear(connection: Connection) -> int:
    """Forget every book."""
    return connection.execute(delete(codebooks)).rowcount
