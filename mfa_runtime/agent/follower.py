"""The life of an agent beside its doors: look for the authority, tell it what was decided, hear what is new, hold the lease.

Room rule: the order of things. What was decided here alone reaches the authority before it is asked about any other login, or
a code that was spent here could be good once more elsewhere by our own asking. One process of a host does this; the others
read in the store what it has written (:mod:`mfa_runtime.agent.watcher`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from mfa_core.errors import MfaError, StoreUnavailable
from mfa_core.offline import Moment
from mfa_runtime.administration.act import Act
from mfa_runtime.agent import cache, journal, own_keys
from mfa_runtime.agent.breaker import Happening, State
from mfa_runtime.agent.http import Authorities, Refused, Unreachable
from mfa_runtime.agent.joining import ACTOR, renew
from mfa_runtime.agent.link import Link
from mfa_runtime.agent.own_keys import OwnKeys, ShownContext
from mfa_runtime.agent.snapshot import MAX_CLOCK_OFFSET_S, Expected, Snapshot, SnapshotRefused, Why, clock_offset_s, read_snapshot
from mfa_runtime.agent.trouble import Trouble, What
from mfa_runtime.protocol.message import ProtocolError
from mfa_runtime.protocol.reporting import read_health
from mfa_runtime.protocol.syncing import NONCE_OCTETS, Cursor, SyncRequest, rules_digest
from mfa_runtime.protocol.words import HEALTH, SYNC, KeyProtection, Refusal
from mfa_runtime.sealing import Keyring, RandomBytes, UnknownKey
from mfa_runtime.store import agent_state
from mfa_runtime.store.agent_state import AgentState
from mfa_runtime.store.database import Store
from mfa_runtime.upkeep import LOG_BYTES

log = logging.getLogger(__name__)

Result = TypeVar("Result")

JOURNAL_EVERY_S = 1.0
JOIN_LOOK_S = 1.0
"""How often a host that has not joined looks whether somebody has let it join meanwhile."""
REFUSED_LOOK_S = 10.0
"""How often a host that is cut off asks whether it still is."""
AFTER_TROUBLE_S = 5.0
"""How long nothing is asked after an answer that could not be used, or stored."""
SYNC_EXTRA_S = 10.0
"""So much longer than it asked the authority to wait does a host wait for a sync."""
SYNC_PAGE_S = 30.0
"""For a page of a sync that need not wait for news."""
SAME_AGAIN_S = 3600.0
"""The same trouble is written into the audit log once in so long."""
"""How often a secret that is to be in no file is looked after, as long as somebody reads the log that it is in."""

_CUT_OFF = {Refusal.REVOKED: "revoked", Refusal.UNKNOWN_HOST: "revoked", Refusal.QUARANTINED: "quarantined"}


@dataclass(frozen=True, slots=True)
class Habits:
    """How a host asks: times in seconds; ``authorities`` empty: those that were given when it joined."""

    authorities: tuple[str, ...] = ()
    budget_s: float = 3.0
    try_s: float = 1.2
    retry_s: float = 2.0
    sync_wait_s: float = 50.0
    key_protection: KeyProtection = KeyProtection.FILE
    software: str = ""


class Follower:
    """Follows the authority. ``rules_came`` is called on the loop with the text of new rules, ``chain_begun`` with the name of
    a new audit chain. ``keyring`` gives the keys as last loaded, ``reload_keyring`` loads them again."""

    def __init__(
        self,
        store: Store,
        *,
        keyring: Callable[[], Keyring],
        reload_keyring: Callable[[], Keyring],
        habits: Habits,
        link: Callable[[Authorities], Link],
        clock: Callable[[], float],
        moment: Callable[[float], Moment],
        random: RandomBytes,
        rules_came: Callable[[str], None],
        chain_begun: Callable[[str], None],
        tell: Callable[[list[str]], None],
    ) -> None:
        raise NotImplementedError
