"""Which user is it who binds under this name, or whom the directory calls so?

Room rule: names to names; whether they are enough is nobody's decision here. A name that gives no user stays without one:
it is refused further on, like a user who does not exist. Most answers are there at once; where an attribute of the entry
must be looked up first, the answer comes to a callback.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from ldap_proxy.directory_client import Cancel
from ldap_proxy.dn import Dn, NotADn, parse_dn
from ldap_proxy.lookup import MAX_KEY, LookupFailed, Lookups
from ldap_proxy.settings import MappingKind, MappingSettings
from mfa_core.value import hot_value

log = logging.getLogger(__name__)

MAX_READ: Final = 4096
"""Names whose reading is remembered; a flood of invented ones costs the reading again, and no memory."""
MAX_PATTERN_CHARS: Final = 1024
"""Of a DN that a pattern is tried on: a pattern may take time that grows with the square of it."""
_MAX_TOLD: Final = 100


class Unknown(enum.Enum):
    """Nobody knows yet: ask with ``look_up``."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN
User = str | None | Unknown
"""A user name as the core takes it, None for nobody's, or that it must be looked up."""
Found = Callable[[str | LookupFailed | None], None]


@hot_value
class Who:
    """One name, read. ``dn`` is None when it is no DN, and the empty one for nobody (anonymous).

    ``user`` is what it says of the user without asking anybody. ``asked`` are the octets of the DN that an attribute is to be
    looked up of; empty when nothing is.
    """

    dn: Dn | None
    user: str | None
    asked: bytes = b""


NOBODY: Final = Who(Dn(), None)
"""Who is not bound."""


class Names:
    """Reads the names of binds, and the identities that the directory confirms (RFC 4513 section 5.2.1.8)."""

    def __init__(self, settings: MappingSettings, lookups: Lookups, *, max_entries: int = MAX_READ) -> None:
        """``max_entries``: names that are kept as they were read, and as many identities."""
        self._settings = settings
        self._max_entries = max_entries
        self._lookups = lookups
        # As a DN names them: "userid", "UID" and 0.9.2342.19200300.100.1.1 are "uid" there.
        self._types = tuple(_type_of(one) for one in settings.attributes)
        self._read: dict[bytes, Who] = {}
        self._confirmed: dict[bytes, Who] = {}
        self._told: set[Dn] = set()

    def who(self, name: bytes) -> Who:
        """The name of a BindRequest, read."""
        found = self._read.get(name)
        if found is None:
            found = self._remember(self._read, name, self._read_name(name))
        return found

    def confirmed(self, authzid: bytes) -> Who:
        """What the directory says that somebody is: ``dn:uid=...``, ``u:name``, or nothing for nobody.

        A ``u:`` name is the directory's own word, so that it is a user name as it stands whatever names of binds may be; it has
        no DN. Anything else is no identity: nobody's name and no DN.
        """
        found = self._confirmed.get(authzid)
        if found is None:
            found = self._remember(self._confirmed, authzid, self._read_authzid(authzid))
        return found

    def user_of(self, who: Who) -> User:
        """The user name of ``who``, as far as it is known now."""
        if not who.asked:
            return who.user
        values = self._lookups.kept_values(who.asked, self._settings.attributes[0])
        return UNKNOWN if values is None else self._only(who, values)

    def look_up(self, who: Who, done: Found) -> Cancel:
        """Find the user name of ``who`` out, and tell ``done`` once, after this has returned."""
        return self._lookups.values(who.asked, self._settings.attributes[0], partial(self._looked_up, who, done))

    def name_of(self, name: bytes) -> User:
        """The user name of the name of a BindRequest, as far as it is known now."""
        return self.user_of(self.who(name))

    def _looked_up(self, who: Who, done: Found, values: tuple[str, ...] | LookupFailed) -> None:
        done(values if isinstance(values, LookupFailed) else self._only(who, values))

    def _only(self, who: Who, values: tuple[str, ...]) -> str | None:
        if len(values) > 1 and who.dn is not None and who.dn not in self._told and len(self._told) < _MAX_TOLD:
            self._told.add(who.dn)
            log.warning("%s has %d values of %s: it is nobody", who.dn, len(values), self._settings.attributes[0])
        return values[0] if len(values) == 1 else None

    def _read_name(self, name: bytes) -> Who:
        if not name:
            return NOBODY
        # Surrogates for what is no UTF-8: the core refuses such a name, and tells it apart from every other one.
        text = name.decode("utf-8", "surrogateescape")
        try:
            dn = parse_dn(text)
        except NotADn:
            return Who(None, text if self._settings.bind_names else None)
        return self._of_dn(dn, name)

    def _read_authzid(self, authzid: bytes) -> Who:
        if not authzid or authzid == b"dn:":
            return NOBODY
        text = authzid.decode("utf-8", "surrogateescape")
        if authzid.startswith(b"u:"):
            return Who(None, text[2:] or None)
        if not authzid.startswith(b"dn:"):
            return Who(None, None)
        try:
            dn = parse_dn(text[3:])
        except NotADn:
            return Who(None, None)
        return self._of_dn(dn, authzid[3:])

    def _of_dn(self, dn: Dn, octets: bytes) -> Who:
        settings = self._settings
        if not dn.rdns:
            return NOBODY
        if settings.bases and not any(dn.is_under(base) for base in settings.bases):
            return Who(dn, None)
        match settings.kind:
            case MappingKind.RDN:
                return Who(dn, self._from_leaf(dn))
            case MappingKind.PATTERN:
                text = dn.text
                found = settings.pattern.fullmatch(text) if settings.pattern and len(text) <= MAX_PATTERN_CHARS else None
                return Who(dn, (found["user"] or None) if found else None)
            case MappingKind.ATTRIBUTE:
                return Who(dn, None, octets)

    def _remember(self, table: dict[bytes, Who], key: bytes, who: Who) -> Who:
        if len(key) <= MAX_KEY:
            if len(table) >= self._max_entries:
                table.clear()
            table[key] = who
        return who

    def _from_leaf(self, dn: Dn) -> str | None:
        # A type stands there once: uid=a+uid=b is no DN.
        leaf = dict(dn.leaf)
        return next((leaf[wanted] for wanted in self._types if wanted in leaf), None)


def _type_of(attribute: str) -> str:
    try:
        return parse_dn(f"{attribute}=x").leaf[0][0]
    except NotADn:
        return attribute.lower()
