"""How far behind is a host?

Room rule: reads only, and one value out: which users have changed since its cursor, or that it needs everything. A host that is
up to date costs a few looks into indexes, however many users there are and whatever others have heard.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, select

from authority.books import HORIZON
from authority.hosts_at_the_door import Present
from authority.pages import group_topics
from mfa_core.errors import StoreCorrupt
from mfa_runtime.protocol.syncing import SyncRequest
from mfa_runtime.protocol.words import PAGE_MATERIAL_OCTETS
from mfa_runtime.store import changes, entitlement
from mfa_runtime.store.hosts import HostMaterial
from mfa_runtime.store.prepared import Prepared
from mfa_runtime.store.schema import meta

MAX_CHANGES: Final = 2_000
"""A host that has missed more gets everything anew: that takes no longer."""
DIGEST_SHARE: Final = 20
"""Of the time, one part in so many may go into digests of large scopes; a host that gets none compares next time."""
LONGEST_WITHOUT_S: Final = 60.0
"""However dear: agents that hear of no digest for long ask for everything, which is dearer."""
CHEAP_S: Final = 0.02
"""A digest that takes no longer than this is always made."""
DIGESTS_KEPT: Final = 1024
OCTETS_A_DAY: Final = 3 * 2_880
"""Of codes, three octets each, one for 30 seconds: what most credentials have."""

_GENERATION = Prepared(select(meta.c.value).where(meta.c.name == bindparam("of")))


@dataclass(frozen=True, slots=True)
class Look:
    """What there is to tell a host. ``ids`` None: everything. ``seq`` is where its cursor comes to when it has heard all.

    ``latest`` is the last change that concerns its group; ``since`` the cursor that it was looked at from, -1 for everything.
    ``short``: of codes it gets those of half an hour first.
    """

    generation: str
    seq: int
    latest: int
    since: int
    ids: tuple[int, ...] | None
    short: bool = False

    @property
    def is_news(self) -> bool:
        """Whether there is anything."""
        return self.ids is None or bool(self.ids)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sync of several pages has come to, as the host carries it from one to the next.

    ``seq``, ``latest``, ``since``, ``short`` and ``generation`` are those of the :class:`Look` at its beginning, ``after`` the
    last user that was told.
    """

    seq: int
    latest: int
    since: int
    after: int
    short: bool
    generation: str

    def text(self) -> str:
        """As it travels."""
        return f"{self.seq}.{self.latest}.{self.since}.{self.after}.{self.short:d}.{self.generation}"

    @classmethod
    def read(cls, text: str) -> Place | None:
        """None for what nobody has given out."""
        *numbers, generation = text.split(".", 5)
        if len(numbers) != 5 or not all(_is_number(one) for one in numbers):
            return None
        seq, latest, since, after, short = map(int, numbers)
        return cls(seq, latest, since, after, short == 1, generation)


def _is_number(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) <= 18


def look(connection: Connection, present: Present, request: SyncRequest, *, oldest: int, place: Place | None) -> Look:
    """Compare a host with the store; prepared statements only. ``oldest`` is :func:`changes.oldest` of a while ago.

    With ``place`` it is in the middle of several pages, which go on up to the change that they began at: what is newer comes
    with the next sync.
    """
    generation = _generation(connection)
    seq = changes.now_at(connection)
    # Not below what is remembered: what was forgotten must not look as if it had never been.
    latest = max(oldest, latest_of(connection, present))
    everything = Look(generation, seq, latest, -1, None)
    # What lies ahead nobody was given: pages and digests are kept under it, for all hosts of the scope.
    goes_on = (
        place is not None and place.generation == generation and place.seq <= seq and place.latest <= latest
    )
    if place is not None and goes_on and place.since < 0:
        return Look(generation, place.seq, place.latest, -1, None, place.short)
    cursor = request.cursor
    if cursor is None or cursor.generation != generation or not oldest <= cursor.seq <= seq:
        return everything
    found = changes.since(connection, present.topics, cursor.seq, MAX_CHANGES + 1)
    scope = changes.host_group_topic(present.group.name)
    if len(found) > MAX_CHANGES or any(change.user_id == 0 and change.topic == scope for change in found):
        return everything
    if place is not None and goes_on and place.since == cursor.seq:
        seq, latest = place.seq, place.latest
    ids = tuple(sorted({change.user_id for change in found if change.user_id and change.seq <= seq}))
    return Look(generation, seq, latest, cursor.seq, ids)


def latest_of(connection: Connection, present: Present) -> int:
    """The last change that concerns the group of a host."""
    return changes.latest(connection, group_topics(present.group, present.scope))


def gets_codes(present: Present, *, granted: bool) -> bool:
    """Whether the host holds books of codes."""
    return present.group.material is HostMaterial.CODEBOOK and granted and present.group.max_offline_s > 0


def needs_codes(present: Present, request: SyncRequest, *, now: float, granted: bool) -> bool:
    """Whether the codes that a host holds would end before its lease."""
    if not request.codes_until or not gets_codes(present, granted=granted):
        return False
    return request.codes_until < now + present.group.max_offline_s


def is_much(connection: Connection, present: Present) -> bool:
    """Whether all the codes that the host is granted are more than a page: then it gets a part of them first."""
    each = OCTETS_A_DAY * present.group.max_offline_s * HORIZON / 86_400.0
    most = int(PAGE_MATERIAL_OCTETS / each)
    return len(entitlement.entitled_page(connection, present.scope, 0, most + 1)) > most


def _generation(connection: Connection) -> str:
    rows = _GENERATION.rows(connection, {"of": "generation"})
    if not rows:
        raise StoreCorrupt("the store has no generation", cure="restore it from a backup")
    return str(rows[0][0])


class Digests:
    """The digests of the manifests that were made last. Threads may share it.

    ``monotonic`` is seconds; ``worked`` the seconds that a processor has spent on the thread that asks.
    """

    def __init__(self, monotonic: Callable[[], float], worked: Callable[[], float] = time.thread_time) -> None:
        self._monotonic = monotonic
        self._worked = worked
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[frozenset[str], str, int], str] = OrderedDict()
        self._not_before: dict[frozenset[str], float] = {}

    def known(self, scope: frozenset[str], generation: str, latest: int) -> str | None:
        """The digest of all entitled users after change ``latest``, if it was made."""
        return self._kept.get((scope, generation, latest))

    def of(self, connection: Connection, scope: frozenset[str], generation: str, latest: int) -> str | None:
        """The same, made where it is not known; None where making one has taken much of the last time.

        The connection shows the store as it is after that change, and not a later one.
        """
        known = self.known(scope, generation, latest)
        if known is not None:
            return known
        now, began = self._monotonic(), self._worked()
        if now < self._not_before.get(scope, 0.0):
            return None
        digest = entitlement.manifest_digest(entitlement.manifest(connection, scope))
        took = self._worked() - began
        with self._lock:
            if took > CHEAP_S:
                if len(self._not_before) >= DIGESTS_KEPT:
                    self._not_before.clear()
                self._not_before[scope] = now + min(DIGEST_SHARE * took, LONGEST_WITHOUT_S)
            self._kept[scope, generation, latest] = digest
            while len(self._kept) > DIGESTS_KEPT:
                self._kept.popitem(last=False)
        return digest
