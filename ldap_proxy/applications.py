"""Which application does a connection belong to?

Room rule: addresses and listeners only. Of the applications that fit, the longest prefix wins, and of those the one that
names the listener; whom none fits has the door's own settings, which come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ldap_proxy.settings import Application, Listen
from ldap_proxy.sources import address_of

MAX_REMEMBERED: Final = 8192
"""Connections' origins whose search is remembered; a flood from invented ones costs the search again, and no memory."""


class Applications:
    """The applications by where their connections come from."""

    def __init__(self, applications: Sequence[Application]) -> None:
        self._own = applications[0]
        self._others = tuple(applications[1:])
        self._remembered: dict[tuple[str, Listen], Application] = {}

    def find(self, source: str, listen: Listen) -> Application:
        """Whose connection it is that came from ``source`` (an address literal; "" when not known) to ``listen``."""
        key = (source, listen)
        found = self._remembered.get(key)
        if found is None:
            found = self._search(source, listen)
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = found
        return found

    def _search(self, source: str, listen: Listen) -> Application:
        address = address_of(source)
        best, found = (-1, False), self._own
        for one in self._others:
            if one.listens and listen not in one.listens:
                continue
            if one.networks:
                prefixes = [network.prefixlen for network in one.networks if address is not None and address in network]
                if not prefixes:
                    continue
                fit = (max(prefixes), bool(one.listens))
            elif one.listens:
                fit = (-1, True)
            else:
                continue  # it says nothing of where it comes from
            if fit > best:
                best, found = fit, one
        return found
