"""What an agent was told by its authority: one row, read at every start and changed a little at a time.

Room rule: the only file that reads or writes ``agent_state``. What the terms, the rules and the trouble say, others know: here
they are texts.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from mfa_core.errors import StoreCorrupt
from mfa_runtime.store.prepared import Prepared
from mfa_runtime.store.schema import agent_state

_ROW = 1


@dataclass(frozen=True, slots=True)
class AgentState:
    """The row. Times are Unix seconds by the authority's clock, ``boottime_s`` is CLOCK_BOOTTIME.

    ``authorities`` are the URLs given when it joined; ``trust`` is the PEM of the authority's CA; ``signers`` are Ed25519
    public keys by key id. ``generation`` and ``cursor`` (-1: nothing) say how far it has been told, ``digest`` what it should
    hold then, ``seq`` is that of the last signed answer. ``not_after`` ends the lease. No clock is right that is behind
    ``floor``. ``host`` (terms), ``rules`` and ``trouble`` are JSON texts, "" for nothing. The authority has the journal of
    ``journal_epoch`` up to ``journal_seq``.
    """

    host_id: int
    host_name: str
    authority_id: str
    authorities: tuple[str, ...]
    trust: bytes
    signers: Mapping[str, bytes]
    standing: str = "joined"
    generation: str = ""
    cursor: int = -1
    digest: str = ""
    seq: int = 0
    not_after: float = 0.0
    floor: float = 0.0
    synced_at: float = 0.0
    boot_id: str = ""
    boottime_s: float = 0.0
    host: str = ""
    rules: str = field(default="", repr=False)
    journal_epoch: int = 1
    journal_seq: int = 0
    trouble: str = ""


_NAMES = tuple(field.name for field in fields(AgentState))
_LOAD = Prepared(select(*(agent_state.c[name] for name in _NAMES)).where(agent_state.c.id == _ROW))


def load(connection: Connection) -> AgentState | None:
    """The row; None where nothing has joined an authority.

    Raises:
        StoreCorrupt: it holds what no row can.
    """
    rows = _LOAD.rows(connection, {})
    if not rows:
        return None
    values: dict[str, Any] = dict(zip(_NAMES, rows[0], strict=True))
    try:
        signers = {str(name): base64.b64decode(key, validate=True) for name, key in json.loads(values["signers"]).items()}
        values["authorities"] = tuple(str(url) for url in json.loads(values["authorities"]))
    except (ValueError, TypeError, AttributeError, binascii.Error) as err:
        raise StoreCorrupt(
            f"the state of this agent cannot be read: {err}", cure="join the authority again with `mfactl agent join`"
        ) from err
    values["signers"] = MappingProxyType(signers)
    values["trust"] = bytes(values["trust"])
    return AgentState(**values)


def save(connection: Connection, state: AgentState) -> None:
    """Write the whole row, in place of another one (joining)."""
    values = _encoded({name: getattr(state, name) for name in _NAMES})
    if connection.execute(update(agent_state).where(agent_state.c.id == _ROW).values(values)).rowcount == 0:
        connection.execute(insert(agent_state).values(id=_ROW, **values))


def change(connection: Connection, **values: Any) -> bool:
    """Write some fields of the row, named and typed as in :class:`AgentState`. False when there is no row."""
    unknown = values.keys() - set(_NAMES)
    if unknown:
        raise TypeError(f"an agent's state has no {', '.join(sorted(unknown))}")
    moved = update(agent_state).where(agent_state.c.id == _ROW).values(_encoded(values))
    return connection.execute(moved).rowcount > 0


_RAISE_FLOOR = Prepared(
    update(agent_state)
    .where(agent_state.c.id == _ROW, agent_state.c.floor < bindparam("seen_floor"))
    .values(floor=bindparam("new_floor"))
)


def raise_floor(connection: Connection, floor: float) -> bool:
    """Raise the floor of the clock; it never falls. Whether it was lower. A login's transaction may do this."""
    return _RAISE_FLOOR.run(connection, {"seen_floor": floor, "new_floor": floor}) > 0


def _encoded(values: Mapping[str, Any]) -> dict[str, Any]:
    encoded = dict(values)
    if "authorities" in encoded:
        encoded["authorities"] = json.dumps(list(encoded["authorities"]))
    if "signers" in encoded:
        encoded["signers"] = json.dumps(
            {name: base64.b64encode(key).decode("ascii") for name, key in encoded["signers"].items()}, sort_keys=True
        )
    return encoded
