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

_MISSING: Any = object()

_IN_SIZES = (1, 8, 64, 256)
"""Lists of values come in these lengths; shorter ones are filled up by repeating the last value."""


class Prepared:
    """A statement with named parameters, compiled on first use for each dialect."""

    __slots__ = ("_build", "_compiled")

    def __init__(self, build: ClauseElement | Callable[[Dialect], ClauseElement]) -> None:
        self._build = build
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, connection: Connection, parameters: Mapping[str, Any]) -> list[Row]:
        """Execute, and fetch every row."""
        return list(self._execute(connection, parameters).fetchall())

    def run(self, connection: Connection, parameters: Mapping[str, Any]) -> int:
        """Execute; how many rows were touched."""
        return int(self._execute(connection, parameters).rowcount)

    def run_each(self, connection: Connection, parameters: Sequence[Mapping[str, Any]]) -> int:
        """Execute once for each set of parameters; how many rows were touched in all."""
        compiled = self._for(connection.dialect)
        cursor = _cursor(connection)
        cursor.executemany(compiled.text, [compiled.arguments(p) for p in parameters])
        return int(cursor.rowcount)

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

    __slots__ = ("_constants", "_slots", "text")

    def __init__(self, statement: ClauseElement, dialect: Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        self.text = str(compiled)
        # Values that the expression itself holds (state = 'active') are parameters too.
        self._constants: dict[str, Any] = {name: value for name, value in compiled.params.items() if value is not None}
        self._slots: list[tuple[str, Any]] | None = None
        if compiled.positional:
            self._slots = [(name, self._constants.get(name, _MISSING)) for name in compiled.positiontup]

    def arguments(self, parameters: Mapping[str, Any]) -> list[Any] | dict[str, Any]:
        if self._slots is None:
            return {**self._constants, **parameters}
        return [parameters[name] if constant is _MISSING else constant for name, constant in self._slots]


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
