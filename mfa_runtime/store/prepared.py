"""Core statements compiled once: what the login path executes.

Room rule: this file knows how a compiled statement meets a driver, and no table. SQLAlchemy's executor costs 25 to 45
microseconds a statement, and a login needs eight; the compiled text on the driver's own cursor costs 3 to 6. The statements
stay Core expressions, so that PostgreSQL remains a dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ClauseElement, Connection
from sqlalchemy.engine import Dialect

from mfa_core.errors import StoreUnavailable

Row = tuple[Any, ...]

_IN_SIZES = (1, 8, 64, 256)
"""Lists of values come in these lengths; shorter ones are filled up by repeating the last value."""


class Prepared:
    """A statement with named parameters, compiled on first use for each dialect."""

    __slots__ = ("_build", "_compiled")

    def __init__(self, build: ClauseElement | Callable[[Dialect], ClauseElement]) -> None:
        self._build = build
        self._compiled: dict[str, tuple[str, tuple[str, ...] | None]] = {}

    def _for(self, dialect: Dialect) -> tuple[str, tuple[str, ...] | None]:
        known = self._compiled.get(dialect.name)
        if known is None:
            statement = self._build if isinstance(self._build, ClauseElement) else self._build(dialect)
            compiled: Any = statement.compile(dialect=dialect)
            known = (str(compiled), tuple(compiled.positiontup) if compiled.positional else None)
            self._compiled[dialect.name] = known
        return known

    def rows(self, connection: Connection, parameters: Mapping[str, Any]) -> list[Row]:
        """Execute, and fetch every row."""
        return list(self._execute(connection, parameters).fetchall())

    def run(self, connection: Connection, parameters: Mapping[str, Any]) -> int:
        """Execute; how many rows were touched."""
        return int(self._execute(connection, parameters).rowcount)

    def run_each(self, connection: Connection, parameters: Sequence[Mapping[str, Any]]) -> int:
        """Execute once for each set of parameters; how many rows were touched in all."""
        text, order = self._for(connection.dialect)
        cursor = _cursor(connection)
        cursor.executemany(text, [[p[name] for name in order] for p in parameters] if order else list(parameters))
        return int(cursor.rowcount)

    def _execute(self, connection: Connection, parameters: Mapping[str, Any]) -> Any:
        text, order = self._for(connection.dialect)
        cursor = _cursor(connection)
        cursor.execute(text, [parameters[name] for name in order] if order else parameters)
        return cursor


class PreparedIn:
    """A query over a list of values: ``build`` receives the names of the parameters that stand for them."""

    __slots__ = ("_build", "_sizes")

    def __init__(self, build: Callable[[list[str]], ClauseElement]) -> None:
        self._build = build
        self._sizes: dict[int, Prepared] = {}

    def rows(self, connection: Connection, values: Sequence[Any]) -> list[Row]:
        """The rows for all values; long lists are asked in pieces."""
        found: list[Row] = []
        for start in range(0, len(values), _IN_SIZES[-1]):
            piece = values[start : start + _IN_SIZES[-1]]
            size = next(s for s in _IN_SIZES if s >= len(piece))
            statement = self._sizes.get(size)
            if statement is None:
                statement = self._sizes[size] = Prepared(self._build([f"v{i}" for i in range(size)]))
            last = len(piece) - 1
            found += statement.rows(connection, {f"v{i}": piece[min(i, last)] for i in range(size)})
        return found


def _cursor(connection: Connection) -> Any:
    raw = connection.connection.driver_connection
    if raw is None:
        raise StoreUnavailable("the connection to the store is closed")
    return raw.cursor()
