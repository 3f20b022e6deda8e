"""PostgreSQL is a second dialect of the same statements: this holds it without a server."""

from __future__ import annotations

import io
from pathlib import Path
from types import ModuleType

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect

import mfa_runtime.store
from mfa_runtime.administration import groups
from mfa_runtime.store import (
    accounts,
    agent_state,
    alarms,
    audit_log,
    changes,
    codebooks,
    entitlement,
    hosts,
    ids,
    key_pairs,
    uses,
)
from mfa_runtime.store.prepared import Prepared, PreparedIn
from mfa_runtime.store.schema import metadata

DIALECTS = {"postgresql": postgresql.dialect(), "sqlite": sqlite.dialect()}


def statements(module: ModuleType) -> dict[str, Prepared]:
    """Every statement of the login path that a module holds; lists in their shortest and longest form."""
    found: dict[str, Prepared] = {}
    for name, value in vars(module).items():
        if isinstance(value, Prepared):
            found[name] = value
        elif isinstance(value, PreparedIn):
            for size in (1, 256):
                found[f"{name}[{size}]"] = value.sized(size)
    return found


MODULES = (
    accounts, agent_state, alarms, audit_log, changes, codebooks, entitlement, groups, hosts, ids, key_pairs, uses,
)  # fmt: skip
ALL = {f"{m.__name__.rpartition('.')[2]}.{name}": s for m in MODULES for name, s in statements(m).items()}


def test_the_login_path_has_statements() -> None:
    """So that the tests below cannot pass over nothing."""
    assert len(ALL) >= 40


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
@pytest.mark.parametrize("name", sorted(ALL))
def test_a_statement_of_the_login_path_compiles_for_both_dialects(name: str, dialect: Dialect) -> None:
    """What is written once must be SQL on both."""
    assert ALL[name]._for(dialect).text


def test_nothing_of_the_login_path_locks_accounts_by_rows() -> None:
    """PostgreSQL would write every row that it locks; the names are locked before, and a view that only reads must work too."""
    locking = [name for name, one in ALL.items() if "FOR UPDATE" in one._for(DIALECTS["postgresql"]).text]

    assert locking == ["audit_log._READ_HEAD"]


def test_a_spend_is_a_compare_and_set_on_both() -> None:
    """The watermark itself decides, in the statement that moves it."""
    for dialect in DIALECTS.values():
        assert "last_step <" in ALL["accounts._SPEND"]._for(dialect).text


def test_migrations_are_sql_for_postgresql() -> None:
    """The revisions run through PostgreSQL's compiler without a server."""
    out = io.StringIO()
    context = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True, "output_buffer": out})
    folder = Path(mfa_runtime.store.__file__).parent / "migrations"

    with Operations.context(context):
        for revision in reversed(list(ScriptDirectory(str(folder)).walk_revisions())):
            revision.module.upgrade()

    assert out.getvalue().count("CREATE TABLE") == len(metadata.tables)
