"""Which host asks, and may it?

Room rule: from the certificate that was shown to the row of a host, at every request, and while one waits. There is no list of
revoked certificates: a host's state is read each time. The store is read here, and written only when something is wrong or a
new certificate is shown for the first time.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from authority.acts import Acts
from authority.at_the_store import AtTheStore
from authority.certificate_authority import Shown
from authority.requests import Asked, Refuse
from mfa_core.errors import StoreCorrupt
from mfa_runtime.administration.act import Act
from mfa_runtime.administration.hosts import quarantine_host
from mfa_runtime.protocol.words import Refusal
from mfa_runtime.store import changes, entitlement, hosts
from mfa_runtime.store.alarms import AlarmKind
from mfa_runtime.store.hosts import Host, HostGroup, HostState

PROMOTIONS_REMEMBERED: Final = 20_000
OVERLAP_S: Final = 60.0
"""For so long after a new certificate was first shown, a connection from before it may still carry a request: that host is
asked to come again, and not taken for a copy of itself."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Present:
    """A host that may ask, with its group and who may log in there."""

    host: Host
    group: HostGroup
    scope: frozenset[str]

    @property
    def topics(self) -> frozenset[str]:
        """What concerns it among the changes."""
        return frozenset(
            {
                changes.host_topic(self.host.id),
                changes.host_group_topic(self.group.name),
                *map(changes.group_topic, self.scope),
            }
        )


def read_present(connection: Connection, shown: Shown) -> Present | Host | None:
    """Who has shown this certificate: a host; one that may not show it (any more); or nobody that is known."""
    host = hosts.find_by_fingerprint(connection, shown.fingerprint)
    if host is None:
        return hosts.find(connection, shown.host_id) if shown.host_id else None
    return _present(connection, host)


def read_again(connection: Connection, host_id: int) -> Present | None:
    """A host that was present a while ago."""
    host = hosts.find(connection, host_id)
    return None if host is None else _present(connection, host)


def _present(connection: Connection, host: Host) -> Present:
    group = hosts.find_group(connection, host.host_group)
    if group is None:
        raise StoreCorrupt(f"host {host.id} is in a group that is not there", cure="restore the store from a backup")
    return Present(host, group, entitlement.scope_of(connection, host.host_group))


class HostsAtTheDoor:
    """Knows who asks. ``clock`` is Unix seconds, ``monotonic`` seconds."""

    def __init__(
        self, store: AtTheStore, acts: Acts, *, clock: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        self._store = store
        self._acts = acts
        self._clock = clock
        self._monotonic = monotonic
        self._promoted: OrderedDict[int, float] = OrderedDict()
        """When a new certificate was first shown to this process, by host."""

    def shown_by(self, asked: Asked) -> Shown:
        """The certificate of a request, if it is in time. Raises: Refuse."""
        shown = asked.shown
        if shown is None:
            raise Refuse(Refusal.NO_CERTIFICATE, "a host shows its certificate here", cure="join: `mfactl agent join URL`")
        if not shown.not_before <= self._clock() < shown.not_after:
            raise Refuse(
                Refusal.NO_CERTIFICATE, "the certificate of this host is over, or its time has not come",
                cure="look at the clocks of both; if it is over, let this host join again",
            )  # fmt: skip
        return shown

    async def who(self, asked: Asked) -> Present:
        """The host that asks. Raises: Refuse, and what reading the store raises."""
        shown = self.shown_by(asked)
        return await self.admitted(await self._store.glance(lambda connection: read_present(connection, shown)), shown, asked)

    async def admitted(self, found: Present | Host | None, shown: Shown, asked: Asked) -> Present:
        """What :func:`read_present` found, if it may ask. Raises: Refuse."""
        if isinstance(found, Present):
            check_state(found.host)
            if found.host.next_certificate == shown.fingerprint:
                return await self._promote(found, shown)
            return found
        if found is None:
            raise Refuse(
                Refusal.UNKNOWN_HOST, "this certificate is of no host that is known here", cure="let this host join again"
            )
        check_state(found)
        promoted_at = self._promoted.get(found.id)
        if promoted_at is not None and asked.connected_at < promoted_at and self._monotonic() - promoted_at < OVERLAP_S:
            raise Refuse(Refusal.NO_CERTIFICATE, "this connection is from before the new certificate", cure="connect again")
        raise await self._cloned(found)

    async def again(self, present: Present) -> Present:
        """The same host after it has waited. Raises: Refuse."""
        found = await self._store.glance(lambda connection: read_again(connection, present.host.id))
        if found is None:
            raise Refuse(Refusal.UNKNOWN_HOST, "this host is known no more", cure="let this host join again")
        check_state(found.host)
        return found

    async def _promote(self, found: Present, shown: Shown) -> Present:
        """The new certificate is shown for the first time: the old one is none from now on."""
        moved = await self._store.write(
            lambda connection: hosts.promote_certificate(connection, found.host.id, shown.fingerprint)
        )
        if moved:
            self._promoted[found.host.id] = self._monotonic()
            self._promoted.move_to_end(found.host.id)
            if len(self._promoted) > PROMOTIONS_REMEMBERED:
                self._promoted.popitem(last=False)
        return await self.again(found)

    async def _cloned(self, host: Host) -> Refuse:
        reason = "a certificate was shown that another one has replaced"
        await self.quarantine(host, AlarmKind.CLONE_SUSPECTED, reason=reason)
        return Refuse(Refusal.QUARANTINED, reason, cure=f"{_RELEASE}; one that was put back to a state of before joins anew")

    async def quarantine(self, host: Host, kind: AlarmKind, *, reason: str) -> None:
        """Refuse a host from now on, with an alarm, until an administrator has looked."""

        def work(connection: Connection, act: Act) -> bool:
            return quarantine_host(connection, act, host, kind, reason=reason)

        if await self._acts.do(work):
            log.error("host %s (%d) is in quarantine: %s", host.name, host.id, reason)


_RELEASE = "find out which machine is the real one, then at the authority: `mfactl agent release HOST`"


def check_state(host: Host) -> None:
    """Raises: Refuse, when the host may not ask."""
    match host.state:
        case HostState.ACTIVE:
            return
        case HostState.QUARANTINED:
            raise Refuse(Refusal.QUARANTINED, "this host is in quarantine", cure=_RELEASE)
        case HostState.REVOKED:
            raise Refuse(Refusal.REVOKED, "this host was revoked", cure="let it join again, with a new token")
