"""What does a page of a sync say, and for whom is it the same?

Room rule: rows in, one page out: documents without secrets as JSON, and the secrets apart, still in clear and not yet for
anybody. Nothing here depends on which host asks, but for credentials that are for one host alone: a change that ten thousand
hosts hear of is read, unsealed and written out once, and then sealed for each.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from authority import books as making
from authority.books import Lack
from mfa_core.model import Credential, CredentialState, FactorKind
from mfa_core.secret import Secret
from mfa_runtime.protocol.message import wire_text
from mfa_runtime.protocol.syncing import CredentialDoc, Material, SealedEntry, UserDoc, write_entries
from mfa_runtime.protocol.words import MAX_CREDENTIALS, MAX_PAGE_USERS, PAGE_MATERIAL_OCTETS
from mfa_runtime.sealing import Keyring, Place
from mfa_runtime.store import changes, codebooks, entitlement
from mfa_runtime.store.codebooks import Codebook
from mfa_runtime.store.entitlement import CredentialRow, UserRow
from mfa_runtime.store.hosts import HostGroup, HostMaterial

MAX_LABEL_CHARS: Final = 128
CACHED_OCTETS: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which page. ``ids`` are the users that have changed, in order; None for all. ``after``: those above this number.

    ``latest`` is the last change that concerns the group: after another one the page would say something else. ``granted``:
    the host keeps its keys as well as its group demands. ``host_id`` is 0 where it does not matter which host asks, and
    ``bucket`` changes with the time where the page has codes of a stretch of time. ``short``: for now the host gets codes of
    half an hour only.
    """

    group: HostGroup
    scope: frozenset[str]
    generation: str
    latest: int
    granted: bool
    ids: tuple[int, ...] | None
    after: int = 0
    host_id: int = 0
    bucket: int = 0
    short: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """What the store says for a page. ``ends``: there is nothing behind it. ``latest`` is as in :class:`Wanted`, now."""

    users: tuple[UserRow, ...]
    gone: tuple[int, ...]
    last_id: int
    ends: bool
    latest: int
    books: dict[int, Codebook] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Page:
    """One page. ``users`` is a JSON list; ``entries`` is what is to be sealed, None for nothing. ``shared``: any host's.

    ``consistent``: it shows the users as they were at ``latest``. ``lacking``: books in it are shorter than what the host
    is granted, because longer ones were not there.
    """

    users: bytes
    gone: tuple[int, ...]
    entries: Secret | None
    last_id: int
    more: bool
    shared: bool
    consistent: bool
    lacking: bool = False

    @property
    def octets(self) -> int:
        """About how much memory it takes."""
        return len(self.users) + (0 if self.entries is None else len(self.entries)) + 512


def group_topics(group: HostGroup, scope: frozenset[str]) -> frozenset[str]:
    """What concerns all hosts of a group among the changes."""
    return frozenset({changes.host_group_topic(group.name), *map(changes.group_topic, scope)})


def read_rows(connection: Connection, keyring: Keyring, wanted: Wanted) -> Rows:
    """Read what the page needs, and a user more where there is more. Raises: UnknownKey, StoreCorrupt."""
    latest = changes.latest(connection, group_topics(wanted.group, wanted.scope))
    if wanted.ids is None:
        ids = entitlement.entitled_page(connection, wanted.scope, wanted.after, MAX_PAGE_USERS + 1)
        ends = len(ids) <= MAX_PAGE_USERS
        ids = ids[:MAX_PAGE_USERS]
        users = entitlement.documents(connection, ids)
        gone: tuple[int, ...] = ()
    else:
        asked = [number for number in wanted.ids if number > wanted.after]
        ends = len(asked) <= MAX_PAGE_USERS
        ids = asked[:MAX_PAGE_USERS]
        entitled = entitlement.entitled_among(connection, ids, wanted.scope)
        users = entitlement.documents(connection, sorted(entitled))
        here = {user.id for user in users}
        gone = tuple(number for number in ids if number not in here)
    books: dict[int, Codebook] = {}
    if wanted.group.material is HostMaterial.CODEBOOK and wanted.granted:
        books = codebooks.get(connection, keyring, [one.id for user in users for one in user.credentials])
    return Rows(tuple(users), gone, ids[-1] if ids else wanted.after, ends, latest, books)


def lacks(rows: Rows, wanted: Wanted, keyring: Keyring, *, now: float) -> list[Lack]:
    """The books that must be made before the page can be. Raises: UnknownKey, StoreCorrupt."""
    if wanted.group.material is not HostMaterial.CODEBOOK:
        return []
    found: list[Lack] = []
    room = 0 if wanted.short else making.AT_ONCE
    for user in rows.users:
        for one in user.credentials:
            if _material(one, wanted.group, granted=wanted.granted, host_id=0) != "codebook":
                continue
            credential = opened(one, user.id, keyring)
            kept = rows.books.get(one.id)
            more = making.lack_for_now(credential, kept, now, wanted.group.max_offline_s, most=room)
            if more is not None:
                found.append(more)
                room = max(0, room - more.count)
    return found


def make_page(rows: Rows, wanted: Wanted, keyring: Keyring, *, host_id: int, now: float) -> Page:
    """Write a page out, for ``host_id`` and, where it is shared, for everybody. ``rows`` have every book by now.

    Raises:
        UnknownKey, StoreCorrupt: a secret does not open.
    """
    documents: list[bytes] = []
    entries: list[SealedEntry] = []
    shared, octets, last_id, full, lacking = True, 0, rows.last_id, False, False
    for user in rows.users:
        if octets >= PAGE_MATERIAL_OCTETS:
            full = True
            break
        last_id = user.id
        shared = shared and all(one.host_id == 0 for one in user.credentials)
        mine = [one for one in user.credentials if one.host_id in {0, host_id}][:MAX_CREDENTIALS]
        docs = []
        for one in mine:
            material = _material(one, wanted.group, granted=wanted.granted, host_id=host_id)
            docs.append(_credential_doc(one, material))
            if material == "none":
                continue
            if material == "seed":
                entry = SealedEntry(credential=one.id, first_step=-1, secret=opened(one, user.id, keyring).secret)
            else:
                entry, whole = _codes(opened(one, user.id, keyring), rows.books[one.id], wanted, now)
                lacking = lacking or not whole
            octets += len(entry.secret)
            entries.append(entry)
        documents.append(_user_doc(user, docs).octets())
    if not full:
        last_id = rows.last_id
    return Page(
        users=b"[" + b",".join(documents) + b"]",
        gone=tuple(number for number in rows.gone if not full or number <= last_id),
        entries=write_entries(entries) if entries else None,
        last_id=last_id,
        more=full or not rows.ends,
        shared=shared,
        consistent=rows.latest <= wanted.latest,
        lacking=lacking,
    )


def opened(one: CredentialRow, user_id: int, keyring: Keyring) -> Credential:
    """The credential with its secret. Raises: UnknownKey, StoreCorrupt."""
    secret = keyring.unseal(one.sealed, Place("credentials", "secret", one.id, user_id))
    return Credential(one.id, one.kind, one.state, secret, one.digest, one.digits, one.period_s)


def _codes(credential: Credential, kept: Codebook, wanted: Wanted, now: float) -> tuple[SealedEntry, bool]:
    """The part of a book that this host gets, and whether that is all that it is to get in the end."""
    most, period_s = wanted.group.max_offline_s, credential.period_s
    stretch = making.short(now, most, period_s) if wanted.short else making.granted(now, most, period_s)
    whole = wanted.short or making.reaches(credential, kept, making.granted(now, most, period_s, making.LEAST_HORIZON))
    book = making.cut(credential, kept, stretch)
    return SealedEntry(credential=credential.id, first_step=book.first_step, secret=book.codes), whole


def _material(one: CredentialRow, group: HostGroup, *, granted: bool, host_id: int) -> Material:
    """What a host holds of a credential: as little as it can do with."""
    by_time = one.kind is FactorKind.TOTP and one.state is CredentialState.ACTIVE
    if not granted or not by_time or group.max_offline_s <= 0:
        return "none"
    match group.material:
        case HostMaterial.SEED:
            return "seed"
        case HostMaterial.CODEBOOK:
            return "codebook"
        case HostMaterial.PER_HOST:
            return "seed" if one.host_id == host_id else "none"


def _credential_doc(one: CredentialRow, material: Material) -> CredentialDoc:
    return CredentialDoc(
        id=one.id, kind=one.kind, state=one.state, digest=one.digest, digits=one.digits, period_s=one.period_s,
        drift_steps=one.drift_steps, last_step=one.last_step, label=wire_text(one.label, MAX_LABEL_CHARS), material=material,
        host_id=one.host_id,
    )  # fmt: skip


def _user_doc(user: UserRow, credentials: Sequence[CredentialDoc]) -> UserDoc:
    return UserDoc(
        id=user.id, name=user.name, state=user.state, requirement=user.requirement, grace_until=user.grace_until,
        locked=user.locked, version=user.version, credentials=tuple(credentials),
    )  # fmt: skip


class KeptPages:
    """The pages that were made last, as many as fit into ``limit`` octets. Any thread may not: one loop has it."""

    def __init__(self, limit: int = CACHED_OCTETS) -> None:
        self._limit = limit
        self._pages: OrderedDict[Wanted, Page] = OrderedDict()
        self._octets = 0
        self.hits = 0
        self.misses = 0

    def get(self, keys: Sequence[Wanted]) -> Page | None:
        """The page under the first of these keys that has one."""
        for key in keys:
            page = self._pages.get(key)
            if page is not None:
                self._pages.move_to_end(key)
                self.hits += 1
                return page
        self.misses += 1
        return None

    def put(self, key: Wanted, page: Page) -> None:
        """Keep a page; the ones that nobody has asked for longest go."""
        before = self._pages.pop(key, None)
        self._octets += page.octets - (0 if before is None else before.octets)
        self._pages[key] = page
        while self._octets > self._limit and self._pages:
            _, oldest = self._pages.popitem(last=False)
            self._octets -= oldest.octets

    def drop_if(self, stale: Callable[[Wanted, Page], bool]) -> None:
        """Forget pages: their secrets need not lie in memory any longer, or there are better ones."""
        for key in [key for key, page in self._pages.items() if stale(key, page)]:
            self._octets -= self._pages.pop(key).octets
