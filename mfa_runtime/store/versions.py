"""Which schema a store has: create it, bring it up to date, refuse another one.

Room rule: Alembic is imported in this file only, and only where a schema is made or moved: it costs start-up time.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, text

from mfa_core.errors import StoreCorrupt
from mfa_runtime.store.database import Store, read_meta

SCHEMA = "0004"
"""The newest revision under ``migrations/versions``."""
COPYING = "copying"
"""The name in ``meta`` that an unfinished copy has: :mod:`.transfer`."""
_IS_OURS = {
    "sqlite": "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'",
    "postgresql": "SELECT to_regclass('alembic_version') IS NOT NULL",
}
_HOT = {"credentials": 80, "throttle": 80, "users": 90, "audit_head": 20, "counters": 20, "sync_clock": 20, "hosts": 70}
"""Tables whose rows change at logins, and how full (percent) PostgreSQL fills their pages: a changed row that finds room in its
page, and whose indexed columns stay, leaves every index alone."""


def check_version(store: Store) -> None:
    """Refuse a store of another schema.

    Raises:
        StoreCorrupt: not a store of mfad, a version that this program does not know, or an unfinished copy.
    """
    with store.reading() as connection:
        if not _has_schema(connection):
            raise StoreCorrupt(f"{store}: is not a store of mfad", cure="run `mfactl init`")
        seen = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        copying = seen == SCHEMA and read_meta(connection, COPYING) is not None
    if copying:
        raise StoreCorrupt(
            f"{store}: is the unfinished copy of another store", cure="run the same `mfactl store migrate` again to finish it"
        )
    if seen != SCHEMA:
        raise StoreCorrupt(
            f"{store}: has schema {seen}, this version of mfad expects {SCHEMA}",
            cure="run `mfactl init` to bring an older store up to date, or install the mfad that wrote it",
        )


def has_schema(store: Store) -> bool:
    """Whether there is a store of mfad, of whichever version."""
    with store.reading() as connection:
        return _has_schema(connection)


def _has_schema(connection: Connection) -> bool:
    return bool(connection.execute(text(_IS_OURS[connection.dialect.name])).scalar())


def bring_up_to_date(store: Store) -> None:
    """Create the schema, or migrate it to the newest revision. Two who do it at the same time take turns."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with store.writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        if connection.dialect.name == "postgresql":
            for table, percent in _HOT.items():
                connection.execute(text(f"ALTER TABLE {table} SET (fillfactor = {percent})"))
