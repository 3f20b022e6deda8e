"""The numbers of the daemon, put together, and where they are read.

Room rule: choices. What a number means stands in the package that counts it; how it is read, in :mod:`mfa_runtime.metrics`.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from authority.metrics import authority_readings
from ldap_proxy.metrics import ldap_readings
from mfa_core.model import Door
from mfa_runtime.config import Config
from mfa_runtime.metrics import Family, Kind, MetricsServer, Reading
from mfad.agent import agent_readings
from mfad.build import Parts
from mfad.workers import Workers
from radius_plugin.metrics import radius_readings

EVENTS = Family("mfad_audit_events_total", Kind.COUNTER, "Audit events that this process has written since its start.")
WAITING = Family("mfad_verifications_waiting", Kind.GAUGE, "Attempts at this process that wait for the store.")

log = logging.getLogger(__name__)


def build_metrics(config: Config, parts: Parts, workers: Mapping[Door, Workers]) -> MetricsServer | None:
    """Make the listener, if one is configured. ``workers`` are those of doors that several processes serve.

    Nothing listens yet.
    """
    listen = config.metrics.listen
    if listen is None:
        return None
    if not ipaddress.ip_address(listen.host).is_loopback:
        log.warning("metrics.listen is %s: whoever reaches it reads how many logins each client and application has", listen)

    def read() -> Iterator[Reading]:
        yield Reading(EVENTS, parts.ledger.written)
        yield Reading(WAITING, parts.gate.waiting)
        if parts.agent is not None:
            processes = [counted for some in workers.values() for counted in some.counters()]
            yield from agent_readings(parts.agent, [counted["agent"] for counted in processes if "agent" in counted])
        if parts.authority is not None:
            yield from authority_readings(parts.authority.counters())
        if parts.radius is not None:
            yield from radius_readings(parts.radius.settings, [parts.radius.counters()])
        elif Door.RADIUS in workers and parts.radius_settings is not None:
            told: list[Any] = list(workers[Door.RADIUS].counters())
            yield from radius_readings(parts.radius_settings, told)
        if parts.ldap is not None:
            yield from ldap_readings([parts.ldap.counters()])
        elif Door.LDAP in workers:
            said: list[Any] = list(workers[Door.LDAP].counters())
            yield from ldap_readings(said)

    return MetricsServer(listen.host, listen.port, read)
