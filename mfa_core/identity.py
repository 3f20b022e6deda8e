"""Which identity a presented user name is.

Room rule: one presented name is exactly one identity, or an explicit refusal; never two spellings with two failure counters.
This file knows nothing of directories or of who exists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mfa_core.errors import InvalidInput, UsernameRefused

MAX_NAME_CHARS = 256
"""As presented, realm included. Linux stops at 32, directories at 256."""

# Printable ASCII without the blank; "@" and "\" join a name to its realm and so cannot stand inside either.
_PLAIN = re.compile(r"[!-?A-\[\]-~]{1,256}").fullmatch
_REALM = re.compile(r"[!-?A-\[\]-~]{1,255}").fullmatch

_CURE = (
    "use the plain login name: 1 to 256 printable ASCII characters without blanks; "
    "name@realm and DOMAIN\\name only where identity.realms lists the realm"
)


@dataclass(frozen=True, slots=True)
class IdentityRules:
    """How names are compared.

    ``fold_case``: ``Alice`` and ``alice`` are one identity. ``realms`` are the domains and realms that may stand with a
    name and are taken off it: list one only where its users *are* the users of this installation. Kept in lower case.

    Raises: InvalidInput, when a realm could never match.
    """

    fold_case: bool = True
    realms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for realm in self.realms:
            if not _REALM(realm):
                raise InvalidInput(
                    f"realm {realm[:64]!a} holds characters that no realm has",
                    cure=r"write it as users type it, without @ or \ and in ASCII: example.org or CORP",
                )
        # Realms are host-like names, which compare without case whatever the users' names do.
        object.__setattr__(self, "realms", tuple(realm.lower() for realm in self.realms))


def normalise(presented: str, rules: IdentityRules) -> str:
    r"""Return the canonical name of ``presented``.

    ``presented`` holds undecodable bytes as surrogates. ASCII only: folding anything else needs tables that differ between
    the directory, NSS and us, and each difference is a second counter for one person.

    Raises: UsernameRefused, for an empty or long name, for blanks, control and non-ASCII characters, for a realm that is not
    listed, and for more than one realm (``CORP\alice@example.org``). The message quotes nothing of the name.
    """
    if not _PLAIN(presented):
        presented = _without_realm(presented, rules)
    return presented.lower() if rules.fold_case else presented


def _without_realm(presented: str, rules: IdentityRules) -> str:
    if not presented:
        raise UsernameRefused("the user name is empty", cure=_CURE)
    if len(presented) > MAX_NAME_CHARS:
        raise UsernameRefused(f"the user name has {len(presented)} characters, expected at most 256", cure=_CURE)
    if "\\" in presented:
        realm, _, name = presented.partition("\\")
    elif "@" in presented:
        name, _, realm = presented.rpartition("@")
    else:
        raise UsernameRefused("the user name holds a blank, a control or a non-ASCII character", cure=_CURE)
    if not _PLAIN(name) or not _REALM(realm):
        raise UsernameRefused("the user name is not one name with one realm", cure=_CURE)
    if realm.lower() not in rules.realms:
        raise UsernameRefused("the user name carries a realm that is not listed", cure="add it to identity.realms if "
                              "its users are the users of this installation; else have them log in without it")
    return name
