"""The authority says no to this host: what that means for what is here.

Room rule: one transaction, which every process of a host may make. It stands in the store before any login is decided here by
reason of that answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mfa_runtime.administration.act import Act
from mfa_runtime.agent import cache
from mfa_runtime.agent.http import Refused
from mfa_runtime.agent.joining import ACTOR
from mfa_runtime.agent.journal import node_of
from mfa_runtime.protocol.words import Refusal
from mfa_runtime.sealing import Keyring, RandomBytes
from mfa_runtime.store import agent_state
from mfa_runtime.store.database import Store

REVOKED, QUARANTINED = "revoked", "quarantined"
_MEANING = {Refusal.REVOKED: REVOKED, Refusal.UNKNOWN_HOST: REVOKED, Refusal.QUARANTINED: QUARANTINED}


def standing_after(err: Refused) -> str | None:
    """What this host is after this refusal; None where that changes nothing."""
    return _MEANING.get(Refusal(err.code)) if err.code in list(Refusal) else None


def write_standing(
    store: Store,
    err: Refused,
    *,
    keyring: Keyring,
    now: float,
    random: RandomBytes,
    tell: Callable[[Sequence[str]], None],
) -> bool:
    """Write what this host is from now on. Whether a secret is not to be here any more, in no file.

    A revoked host forgets every user. One in quarantine keeps them, decides nothing by them, and asks for everything anew when
    it is released.

    Raises:
        StoreFull, StoreUnavailable: as writing does.
    """
    standing = standing_after(err)
    if standing is None:
        return False
    with store.writing() as connection:
        state = agent_state.load(connection)
        if state is None or state.standing == standing:
            return False
        act = Act(ACTOR, now, random, keyring, node_of(state.journal_epoch))
        erased = False
        if standing == REVOKED:
            erased = cache.wipe(connection, standing, act, err.code)
        else:
            agent_state.change(connection, standing=standing, generation=cache.NO_GENERATION, not_after=0.0)
            act.record(connection, f"agent.{standing}", state.host_name, reason=err.code)
    tell(act.told)
    return erased
