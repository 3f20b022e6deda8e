"""Core statements compiled once: what the login path executes.

Room rule: this file knows how a compiled statement meets a driver, and no table. SQLAlchemy's executor costs 25 to 45
microseconds a statement, and a login needs eight; the compiled text on the driver's own cursor costs 3 to 6. The statements
stay Core expressions, so that PostgreSQL remains a dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import CTE, ClauseElement, Connection, String, bindparam, column, values
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from mfa_core.errors import StoreUnavailable

Row = tuple[Any, ...]

_MISSING: Any = object()

_SIZES = (1, 8, 16, 32, 64, 128, 256)
"""Lists of values come in these lengths; shorter ones are filled up with NULL, which nothing is equal to."""


class Prepared:
    """A statement with named parameters, compiled on first use for each dialect."""

    __slots__ = ("_build", "_compiled")

    def __init__(self, build: ClauseElement | Callable[[Dialect], ClauseElement]) -> None:
        self._build = build
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, connection: Connection, parameters: Mapping[str, Any]) -> list[Row]:
        """Execute, and fetch every row."""
        return list(self._execute(connection, parameters).fetchall())

    def rows_of(self, connection: Connection, names: tuple[str, ...], row: Sequence[Any]) -> list[Row]:
        """As :meth:`rows`, with the parameters in one row."""
        compiled = self._for(connection.dialect)
        cursor = _cursor(connection)
        cursor.execute(compiled.text, compiled.shaped(names, [row])[0])
        return list(cursor.fetchall())

    def run(self, connection: Connection, parameters: Mapping[str, Any]) -> int:
        """Execute; how many rows were touched."""
        return _count(connection, self._execute(connection, parameters))

    def send(self, connection: Connection, parameters: Mapping[str, Any]) -> None:
        """As :meth:`run`, where nobody asks what came of it: a server is told together with what follows."""
        self._execute(connection, parameters)

    def send_rows(self, connection: Connection, names: tuple[str, ...], rows: Sequence[Sequence[Any]]) -> None:
        """As :meth:`run_rows`, where nobody asks what came of it."""
        compiled = self._for(connection.dialect)
        _cursor(connection).executemany(compiled.text, compiled.shaped(names, rows))

    def run_each(self, connection: Connection, parameters: Sequence[Mapping[str, Any]]) -> int:
        """Execute once for each set of parameters; how many rows were touched in all."""
        compiled = self._for(connection.dialect)
        cursor = _cursor(connection)
        cursor.executemany(compiled.text, [compiled.arguments(p) for p in parameters])
        return _count(connection, cursor)

    def run_rows(self, connection: Connection, names: tuple[str, ...], rows: Sequence[Sequence[Any]]) -> int:
        """As :meth:`run_each`, with the parameters in rows: ``names`` says in which order. Cheapest in the statement's own."""
        compiled = self._for(connection.dialect)
        cursor = _cursor(connection)
        cursor.executemany(compiled.text, compiled.shaped(names, rows))
        return _count(connection, cursor)

    def _execute(self, connection: Connection, parameters: Mapping[str, Any]) -> Any:
        compiled = self._for(connection.dialect)
        cursor = _cursor(connection)
        cursor.execute(compiled.text, compiled.arguments(parameters))
        return cursor

    def _for(self, dialect: Dialect) -> _Compiled:
        known = self._compiled.get(dialect.name)
        if known is None:
            known = self._compiled[dialect.name] = _Compiled(
                self._build if isinstance(self._build, ClauseElement) else self._build(dialect), dialect
            )
        return known


class _Compiled:
    """The text of a statement, and how parameters are handed over: a list in order, or a mapping, as the driver wants."""

    __slots__ = ("_constants", "_in_order", "_slots", "text")

    def __init__(self, statement: ClauseElement, dialect: Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        self.text = str(compiled)
        # Values that the expression itself holds (state = 'active') are parameters too.
        self._constants: dict[str, Any] = {name: value for name, value in compiled.params.items() if value is not None}
        self._slots: list[tuple[str, Any]] | None = None
        if compiled.positional:
            self._slots = [(name, self._constants.get(name, _MISSING)) for name in compiled.positiontup]
        # Nothing has to be put in order where the statement takes the rows as they come.
        self._in_order = tuple(compiled.positiontup) if compiled.positional and not self._constants else None

    def arguments(self, parameters: Mapping[str, Any]) -> list[Any] | dict[str, Any]:
        if self._slots is None:
            return {**self._constants, **parameters}
        return [parameters[name] if constant is _MISSING else constant for name, constant in self._slots]

    def shaped(self, names: tuple[str, ...], rows: Sequence[Sequence[Any]]) -> Sequence[Any]:
        if self._in_order == names:
            return rows
        return [self.arguments(dict(zip(names, row, strict=True))) for row in rows]


class PreparedIn:
    """A query over a list of different values: ``build`` receives a table of one column, ``wanted``, to join with.

    A join and not ``IN (?, ?, ...)``, which SQLite prepares anew at each execution: it took three times as long.
    """

    __slots__ = ("_build", "_sizes", "_type")

    def __init__(self, build: Callable[[CTE], ClauseElement], type_: TypeEngine[Any] | None = None) -> None:
        self._build = build
        self._type = String() if type_ is None else type_
        self._sizes: dict[int, Prepared] = {}

    def sized(self, size: int) -> Prepared:
        """The statement for lists of this length."""
        statement = self._sizes.get(size)
        if statement is None:
            parameters = [(bindparam(f"v{i}", type_=self._type),) for i in range(size)]
            wanted = values(column("wanted", self._type), name="list").data(parameters).cte("list")
            statement = self._sizes[size] = Prepared(self._build(wanted))
        return statement

    def rows(self, connection: Connection, wanted: Sequence[Any]) -> list[Row]:
        """The rows for all values; long lists are asked in pieces."""
        found: list[Row] = []
        for start in range(0, len(wanted), _SIZES[-1]):
            piece = wanted[start : start + _SIZES[-1]]
            size = next(s for s in _SIZES if s >= len(piece))
            filled = [*piece, *[None] * (size - len(piece))]
            found += self.sized(size).rows_of(connection, _NAMES[size], filled)
        return found


_NAMES = {size: tuple([f"v{i}" for i in range(size)]) for size in _SIZES}


def _count(connection: Connection, cursor: Any) -> int:
    gathered = getattr(connection.connection.driver_connection, "gathered", None)
    if gathered is not None:
        gathered.sync()
    return int(cursor.rowcount)


def _cursor(connection: Connection) -> Any:
    raw = connection.connection.driver_connection
    if raw is None:
        raise StoreUnavailable("the connection to the store is closed")
    return raw.cursor()
