"""What the store of an agent says of its lease.

Room rule: one reading of one row. The rules over it are :mod:`mfa_core.offline`.
"""

from __future__ import annotations

import json
from functools import lru_cache

from sqlalchemy import Connection

from mfa_core.errors import StoreCorrupt
from mfa_core.offline import Lease, Terms
from mfa_runtime.store import agent_state
from mfa_runtime.store.agent_state import AgentState

NO_TERMS = Terms("", "", 0.0, 0.0, ())
"""What a host may do that has not heard yet: nothing alone."""


def read_lease(connection: Connection) -> Lease | None:
    """The lease of this host; None where it has joined no authority.

    Raises:
        StoreCorrupt: the row holds what no row can.
    """
    state = agent_state.load(connection)
    return None if state is None else lease_of(state)


def lease_of(state: AgentState) -> Lease:
    """The lease in this row. Raises: StoreCorrupt, when its terms cannot be read."""
    return Lease(
        not_after=state.not_after,
        floor=state.floor,
        synced_at=state.synced_at,
        boot_id=state.boot_id,
        boottime_s=state.boottime_s,
        terms=terms_in(state.host) if state.host else NO_TERMS,
        standing=state.standing,
        cursor=state.cursor,
    )


@lru_cache(maxsize=2)
def terms_in(text: str) -> Terms:
    """The terms in their JSON text; what else stands there is not for us. Raises: StoreCorrupt, when it cannot be read."""
    try:
        found = json.loads(text)
        services = found["offline_services"]
        if not isinstance(services, list):
            raise TypeError("offline_services is no list")
        return Terms(
            host_group=str(found["host_group"]),
            material=str(found["material"]),
            max_offline_s=float(found["max_offline_s"]),
            offline_after_s=float(found["offline_after_s"]),
            offline_services=tuple(str(one) for one in services),
        )
    except (ValueError, TypeError, KeyError) as err:
        raise StoreCorrupt(
            f"the terms of this host cannot be read: {err}", cure="start mfad again, or join the authority again"
        ) from err
