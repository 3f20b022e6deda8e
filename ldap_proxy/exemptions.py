"""Who needs no code?

Room rule: one identity and one address, against the settings of one application. The spelling of a name decides nothing:
the same question is asked of the identity that the directory has confirmed, and that answer counts. What is not known is
not an exemption.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import Final

from ldap_proxy.directory_client import Cancel
from ldap_proxy.dn import Dn
from ldap_proxy.lookup import LookupFailed, Lookups
from ldap_proxy.settings import ExemptSettings, Network
from ldap_proxy.sources import address_of

MAX_SOURCES: Final = 4096
"""Addresses whose search is remembered; a flood from invented ones costs the search again, and no memory."""


class Exempt(enum.Enum):
    """What is known of one identity at one address."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"
    """It depends on a group that must be looked up."""


YES: Final = Exempt.YES
NO: Final = Exempt.NO
UNKNOWN: Final = Exempt.UNKNOWN
Told = Callable[[Exempt | LookupFailed], None]


class Exemptions:
    """Decides by ``settings``. ``networks`` narrow everything else, and exempt by themselves where there is nothing else."""

    def __init__(self, settings: ExemptSettings, lookups: Lookups) -> None:
        self._settings = settings
        self._lookups = lookups
        self._by_who = bool(settings.dns or settings.subtrees or settings.groups)
        self.nobody: Final = not self._by_who and not settings.networks
        """Whether there are no exemptions at all."""
        self._sources: dict[str, bool] = {}

    def of(self, identity: Dn | None, source: str) -> Exempt:
        """Whether ``identity`` is exempt when it binds from ``source``, as far as it is known now.

        ``identity`` is None for somebody whose DN is not known: nothing but the network can exempt him. ``source`` is an
        address literal, or "" when it is not known. Nobody (the empty DN) is never exempt.
        """
        settings = self._settings
        if self.nobody or (settings.networks and not self._is_near(source)):
            return NO
        if identity is None:
            return NO if self._by_who else YES
        if not identity.rdns:
            return NO
        if not self._by_who or identity in settings.dns:
            return YES
        if any(identity.is_under(base) for base in settings.subtrees):
            return YES
        answer = NO
        for group in settings.groups:
            is_member = self._lookups.kept_membership(group, identity)
            if is_member:
                return YES
            if is_member is None:
                answer = UNKNOWN
        return answer

    def look_up(self, identity: Dn, told: Told) -> Cancel:
        """Ask about the groups that :meth:`of` did not know, and tell YES, NO or that the directory did not say.

        Tells once, after this has returned. To be asked after :meth:`of` has answered UNKNOWN, which has seen to the address.
        """
        return _GroupQuestion(self._settings, self._lookups, identity, told).call_off

    def _is_near(self, source: str) -> bool:
        found = self._sources.get(source)
        if found is None:
            found = _is_in(source, self._settings.networks)
            if len(self._sources) >= MAX_SOURCES:
                self._sources.clear()
            self._sources[source] = found
        return found


class _GroupQuestion:
    """Whether somebody is in one of several groups: the first yes is enough, a no needs all of them."""

    def __init__(self, settings: ExemptSettings, lookups: Lookups, identity: Dn, told: Told) -> None:
        self._told: Told | None = told
        self._failed: LookupFailed | None = None
        self._cancels: list[Cancel] = []
        asked = [group for group in settings.groups if lookups.kept_membership(group, identity) is not False]
        self._open = len(asked)
        if not asked:
            # All of them became known since.
            self._open = 1
            self._cancels.append(asyncio.get_running_loop().call_soon(self._answered, False).cancel)
            return
        self._cancels = [lookups.membership(group, identity, settings.member_attributes, self._answered) for group in asked]

    def call_off(self) -> None:
        """Tell nothing any more."""
        self._told = None
        for cancel in self._cancels:
            cancel()

    def _answered(self, is_member: bool | LookupFailed) -> None:
        self._open -= 1
        told = self._told
        if told is None:
            return
        if is_member is True:
            self.call_off()
            told(YES)
            return
        if isinstance(is_member, LookupFailed):
            self._failed = is_member
        if self._open == 0:
            self._told = None
            told(NO if self._failed is None else self._failed)


def _is_in(source: str, networks: tuple[Network, ...]) -> bool:
    address = address_of(source)
    return address is not None and any(address in network for network in networks)
