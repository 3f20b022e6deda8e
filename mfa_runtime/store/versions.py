"""Which schema a store has: create it, bring it up to date, refuse another one.

Room rule: Alembic is imported in this file only, and only where a schema is made or moved: it costs start-up time.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from mfa_core.errors import StoreCorrupt
from mfa_runtime.store.database import Store

SCHEMA = "0004"
"""The newest revision under ``migrations/versions``."""
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
        StoreCorrupt: not a store of mfad, or a version that this program does not know.
    """
    with store.reading() as connection:
        if not connection.execute(text(_IS_OURS[connection.dialect.name])).scalar():
            raise StoreCorrupt(f"{store}: is not a store of mfad", cure="run `mfactl init`")
        seen = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if seen != SCHEMA:
        raise StoreCorrupt(
            f"{store}: has schema {seen}, this version of mfad expects {SCHEMA}",
            cure="run `mfactl init` to bring an older store up to date, or install the mfad that wrote it",
        )


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
