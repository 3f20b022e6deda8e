"""Which rules do the authorities of one store go by? Each says so now and then, and the doctor compares.

Room rule: the only file that reads or writes the rows ``rules:...`` of ``meta``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from mfa_runtime.store.schema import meta

EVERY_S = 3_600.0
"""So often an authority says it, beside its start and every reload."""
_PREFIX = "rules:"


@dataclass(frozen=True, slots=True)
class Noted:
    """An authority went by the rules of this digest at ``at``, Unix seconds."""

    authority: str
    digest: str
    at: float


def note(connection: Connection, authority: str, digest: str, now: float) -> None:
    """Say it, in place of what this authority said before."""
    name = _PREFIX + hashlib.sha256(authority.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    value = json.dumps({"authority": authority, "digest": digest, "at": now}, sort_keys=True)
    if connection.execute(update(meta).where(meta.c.name == name).values(value=value)).rowcount == 0:
        connection.execute(insert(meta).values(name=name, value=value))


def noted(connection: Connection, *, since: float) -> list[Noted]:
    """What authorities have said since this Unix time, by name; one that is gone does not count for long."""
    found = []
    for (value,) in connection.execute(select(meta.c.value).where(meta.c.name.like(f"{_PREFIX}%"))):
        row = json.loads(value)
        if row["at"] >= since:
            found.append(Noted(str(row["authority"]), str(row["digest"]), float(row["at"])))
    return sorted(found, key=lambda one: one.authority)
