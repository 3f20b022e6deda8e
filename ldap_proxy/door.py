"""The door as a whole: what listens, how it starts, reloads and stops.

Room rule: life, and which part knows which; no decision. Nothing is promised before the listeners are there, and the parts
behind them end after the last client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypedDict

from ldap_proxy.bind import Services
from ldap_proxy.bind_log import BindLog
from ldap_proxy.exemptions import Exemptions
from ldap_proxy.guessing import Guessing
from ldap_proxy.lookup import Identities, Lookups
from ldap_proxy.mapping import Names
from ldap_proxy.remember import Remember
from ldap_proxy.server import LdapServer, Opened, tls_context
from ldap_proxy.settings import LdapDoorSettings
from ldap_proxy.upstream import Upstreams
from ldap_proxy.upstream_tls import upstream_tls
from mfa_core.secret import Secret
from mfa_runtime.gate import Gate

KEY_OCTETS = 32
"""Of the keys under which this process remembers; nothing outlives it."""


class ServerCounters(TypedDict):
    """One directory server, as one process sees it."""

    healthy: bool
    connections: int


class Counters(TypedDict):
    """The counters of one process. ``applications``: by name, then by outcome, how many binds and how many seconds of them."""

    connections: int
    accepted: int
    events: dict[str, int]
    applications: dict[str, dict[str, list[float]]]
    servers: dict[str, ServerCounters]
    upstream: dict[str, int]
    lookups: dict[str, int]
    remembered: int
    remember_hits: int


def check_files(settings: LdapDoorSettings) -> None:
    """Read the certificates. Raises: ConfigurationError, when one of them cannot be used."""
    if settings.tls is not None:
        tls_context(settings.tls)
    upstream_tls(settings.upstream)


class LdapDoor:
    """The listeners of one process, with all that stands behind them.

    ``clock`` is Unix seconds, ``monotonic`` seconds, ``random`` gives so many octets.
    """

    def __init__(
        self,
        settings: LdapDoorSettings,
        gate: Gate,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        random: Callable[[int], bytes],
        new_event_id: Callable[[], str],
    ) -> None:
        """Raises: ConfigurationError, when a certificate cannot be used."""
        self.settings = settings
        self._monotonic = monotonic
        self._random = random
        self._log = BindLog(settings.bind_log, clock=clock)
        self.upstreams = Upstreams(settings.upstream, monotonic=monotonic, limits=settings.limits)
        self._lookups = Lookups(settings.lookup, self.upstreams, monotonic=monotonic)
        self._remember = Remember(key=Secret(random(KEY_OCTETS)), monotonic=monotonic)
        self._gate = gate
        self._new_event_id = new_event_id
        self._guessing = self._new_guessing(settings)
        self.server = LdapServer(settings, self._services(settings))

    def _new_guessing(self, settings: LdapDoorSettings) -> Guessing:
        return Guessing(settings.limits.failed_binds, key=Secret(self._random(KEY_OCTETS)), monotonic=self._monotonic)

    def _services(self, settings: LdapDoorSettings) -> Services:
        return Services(
            gate=self._gate,
            upstreams=self.upstreams,
            names=Names(settings.mapping, self._lookups, max_entries=settings.lookup.max_entries),
            exemptions={one.name: Exemptions(one.exempt, self._lookups) for one in settings.applications},
            identities=Identities(
                keep_s=settings.identity_keep_s, max_entries=settings.lookup.max_entries, monotonic=self._monotonic
            ),
            guessing=self._guessing,
            remember=self._remember,
            journal=self._log,
            monotonic=self._monotonic,
            new_event_id=self._new_event_id,
        )

    async def start(self, sockets: Sequence[Opened] | None = None) -> None:
        """Listen. ``sockets`` are those that somebody else has opened (for a worker).

        Raises: ConfigurationError, when an address cannot be had.
        """
        self._log.start()
        await self.upstreams.start()
        await self.server.start(sockets)

    def counters(self) -> Counters:
        """What was counted since the start, as values that JSON carries: a worker hands them to the daemon."""
        counted = self.server.counters()
        applications: dict[str, dict[str, list[float]]] = {}
        for (application, outcome), count in counted.binds.items():
            seconds = counted.bind_seconds.get((application, outcome), 0.0)
            applications.setdefault(application, {})[outcome] = [count, seconds]
        return {
            "connections": counted.connections,
            "accepted": counted.accepted,
            "events": counted.events,
            "applications": applications,
            "servers": {
                one.server: {"healthy": one.healthy, "connections": one.connections} for one in self.upstreams.states()
            },
            "upstream": dict(self.upstreams.counts),
            "lookups": dict(self._lookups.counts),
            "remembered": len(self._remember),
            "remember_hits": self._remember.hits,
        }

    def reload(self, settings: LdapDoorSettings) -> None:
        """From now on these hold: at once for new connections, and from their next bind on for those that are there.

        Listeners need a restart. Raises: ConfigurationError, when a certificate cannot be used; nothing is changed then.
        """
        check_files(settings)
        before, self.settings = self.settings, settings
        # Also where they did not change: a certificate may have been renewed in its file, and a reload is how an administrator
        # has mfad forget what the directory said.
        self.upstreams.reload(settings.upstream, settings.limits)
        self._lookups.reload(settings.lookup)
        if (settings.applications, settings.mapping, settings.confirm) != (
            before.applications, before.mapping, before.confirm
        ):  # fmt: skip
            self._remember.clear()
        if settings.limits.failed_binds != before.limits.failed_binds:
            self._guessing = self._new_guessing(settings)
        self._log.use(settings.bind_log)
        self.server.reload(settings, self._services(settings))

    async def stop(self) -> None:
        """Take no more connections, let what is under way end, tell clients, and close what is behind them."""
        await self.server.drain_and_stop()
        self._lookups.close()
        await self.upstreams.stop()
        await asyncio.get_running_loop().run_in_executor(None, self._log.close)
