"""A whole store into another database: copied by ranges of keys, taken up where it broke off, and compared at the end.

Room rule: rows are moved as they are, sealed values too (the same key opens them); nothing is decided about what stands in
them. How far the copy has come is written in the transaction of the rows themselves, so that a kill at any point loses none and
copies none twice. Until it is whole the copy cannot be opened as a store (:func:`mfa_runtime.store.versions.check_version`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Boolean,
    Connection,
    Double,
    Integer,
    LargeBinary,
    Table,
    delete,
    func,
    insert,
    select,
    tuple_,
    update,
)

from mfa_core.errors import Conflict, StoreCorrupt
from mfa_runtime.store.database import Store, read_meta
from mfa_runtime.store.schema import audit_head, meta, metadata
from mfa_runtime.store.versions import COPYING

ROWS_AT_ONCE = 1_000
"""Rows in one transaction."""

Advance = Callable[[str, int, int], None]
"""Told the table, and how many rows of how many are done."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """What was copied: rows by table. ``resumed`` is how many stood there from an earlier run."""

    rows: dict[str, int]
    resumed: int

    @property
    def total(self) -> int:
        """Rows of all tables."""
        return sum(self.rows.values())


def transfer(source: Store, target: Store, *, advance: Advance, rows_at_once: int = ROWS_AT_ONCE) -> Transfer:
    """Copy ``source``, which nobody may write to meanwhile, into ``target``, which has the schema and no row.

    Run it again where it broke off. If ``source`` was written to since then, it begins anew.

    Raises:
        Conflict: ``target`` is not empty and no unfinished copy of this store; or ``source`` was written to meanwhile.
        StoreCorrupt: ``target`` does not hold what ``source`` does, or takes not every value of it.
    """
    copy = _Copy(source, target, advance, rows_at_once)
    resumed = copy.begin()
    for table in metadata.sorted_tables:
        copy.take(table)
    copy.compare()
    copy.finish()
    return Transfer(copy.counts, resumed)


class _Copy:
    """One run."""

    def __init__(self, source: Store, target: Store, advance: Advance, rows_at_once: int) -> None:
        self._source = source
        self._target = target
        self._advance = advance
        self._rows_at_once = rows_at_once
        self._mark = ""
        self._store_id = ""
        self._done: dict[str, list[Any] | None] = {}
        """By table: the last key that was copied; None when all of them were."""
        self.counts: dict[str, int] = {}
        self._copied = 0

    @property
    def _total(self) -> int:
        return sum(self.counts.values())

    def begin(self) -> int:
        """See what is to be copied and what of it is there; how many rows are."""
        with self._source.reading() as connection:
            self._mark = _mark_of(connection)
            self._store_id = read_meta(connection, "store_id") or ""
            self.counts = {table.name: _count(connection, table) for table in metadata.sorted_tables}
        with self._target.writing() as connection:
            there = {table.name: _count(connection, table) for table in metadata.sorted_tables}
            state = read_meta(connection, COPYING)
            if state is None:
                if any(there.values()):
                    filled = ", ".join(name for name, rows in there.items() if rows)
                    raise Conflict(
                        f"{self._target}: is not empty ({filled})", cure="name an empty database, or move the file away"
                    )
                connection.execute(insert(meta).values(name=COPYING, value=self._state()))
                return 0
            known = json.loads(state)
            if known["store"] != self._store_id:
                raise Conflict(
                    f"{self._target}: holds the unfinished copy of another store ({known['store'][:8]})",
                    cure="name an empty database, or drop this one",
                )
            if known["mark"] == self._mark:
                self._done = known["done"]
                self._copied = sum(there.values()) - 1
                return self._copied
            for table in reversed(metadata.sorted_tables):
                connection.execute(delete(table))
            connection.execute(insert(meta).values(name=COPYING, value=self._state()))
            return 0

    def take(self, table: Table) -> None:
        """Copy what is missing of a table."""
        key = list(table.primary_key.columns)
        after = self._done.get(table.name, [])
        while after is not None:
            query = select(table).order_by(*key).limit(self._rows_at_once)
            if after:
                query = query.where(
                    tuple_(*key) > tuple_(*(column.type.python_type(value) for column, value in zip(key, after, strict=True)))
                )
            with self._source.reading() as connection:
                rows = [dict(row._mapping) for row in connection.execute(query)]  # noqa: SLF001  its documented name
            whole = len(rows) < self._rows_at_once
            after = None if whole else [rows[-1][column.name] for column in key]
            self._done[table.name] = after
            if rows:
                self._write(table, rows)
            self._copied += len(rows)
            self._advance(table.name, self._copied, self._total)

    def _write(self, table: Table, rows: list[dict[str, Any]]) -> None:
        try:
            with self._target.writing() as connection:
                connection.execute(insert(table), rows)
                connection.execute(update(meta).where(meta.c.name == COPYING).values(value=self._state()))
        except StoreCorrupt as err:
            first, last = ([rows[at][column.name] for column in table.primary_key.columns] for at in (0, -1))
            raise StoreCorrupt(
                f"{self._target}: does not take the rows {first} to {last} of {table.name}: {err}",
                cure="look at these rows in the old store: a text that is too long, or holds a NUL",
            ) from err

    def compare(self) -> None:
        """Read both whole and compare them."""
        for table in metadata.sorted_tables:
            with self._source.reading() as connection:
                wanted = _digest(connection, table)
            with self._target.reading() as connection:
                found = _digest(connection, table)
            if wanted != found:
                with self._target.writing() as connection:
                    # So that the next run begins anew.
                    self._mark = ""
                    connection.execute(update(meta).where(meta.c.name == COPYING).values(value=self._state()))
                raise StoreCorrupt(
                    f"{self._target}: {table.name} has {found[0]} rows, {wanted[0]} were expected, or they differ",
                    cure="run this again: the copy begins anew",
                )
            self._advance(f"{table.name} compared", self._copied, self._total)

    def finish(self) -> None:
        """Make the copy a store."""
        with self._source.reading() as connection:
            if _mark_of(connection) != self._mark:
                raise Conflict(
                    f"{self._source}: was written to while it was copied", cure="stop mfad everywhere, and run this again"
                )
        with self._target.writing() as connection:
            connection.execute(delete(meta).where(meta.c.name == COPYING))

    def _state(self) -> str:
        return json.dumps({"store": self._store_id, "mark": self._mark, "done": self._done})


def _mark_of(connection: Connection) -> str:
    """What changes when anything worth an event happens: its identity, its generation and the heads of its chains."""
    heads = connection.execute(select(audit_head.c.node, audit_head.c.seq).order_by(audit_head.c.node))
    chains = ",".join(f"{row.node}:{row.seq}" for row in heads)
    return f"{read_meta(connection, 'store_id')} {read_meta(connection, 'generation')} {chains}"


def _count(connection: Connection, table: Table) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def _digest(connection: Connection, table: Table) -> tuple[int, int]:
    """How many rows, and the sum of their hashes: the same in whichever order a database sorts its texts."""
    count, total = 0, 0
    for row in _rows(connection, table):
        count += 1
        total += int.from_bytes(hashlib.sha256(repr(row).encode("utf-8", "surrogatepass")).digest(), "big")
    return count, total % 2**256


def _rows(connection: Connection, table: Table) -> Iterator[tuple[Any, ...]]:
    forms = [_form(column.type) for column in table.columns]
    query = select(table)
    if table is meta:
        query = query.where(meta.c.name != COPYING)
    for row in connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE}):
        yield tuple(form(value) for form, value in zip(forms, row, strict=True))


def _form(kind: Any) -> Callable[[Any], Any]:
    """The one form of a value: drivers give 0 for False, and 0 for 0.0."""
    for known, form in ((Boolean, int), (Integer, int), (Double, float), (LargeBinary, bytes)):
        if isinstance(kind, known):
            return form
    return str
