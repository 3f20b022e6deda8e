"""The numbers of the daemon, put together, and where they are read.

Room rule: choices. What a number means stands in the package that counts it; how it is read, in :mod:`mfa_runtime.metrics`.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterator

from mfa_runtime.config import Config
from mfa_runtime.metrics import Family, Kind, MetricsServer, Reading
from mfad.build import Parts
from mfad.workers import Workers
from radius_plugin.metrics import radius_readings

EVENTS = Family("mfad_audit_events_total", Kind.COUNTER, "Audit events that this process has written since its start.")
WAITING = Family("mfad_verifications_waiting", Kind.GAUGE, "Attempts at this process that wait for the store.")

log = logging.getLogger(__name__)


def build_metrics(config: Config, parts: Parts, workers: Workers | None) -> MetricsServer | None:
    """Make the listener, if one is configured. Nothing listens yet."""
    listen = config.metrics.listen
    if listen is None:
        return None
    if not ipaddress.ip_address(listen.host).is_loopback:
        log.warning("metrics.listen is %s: whoever reaches it reads how many logins each RADIUS client has", listen)

    def read() -> Iterator[Reading]:
        yield Reading(EVENTS, parts.ledger.written)
        yield Reading(WAITING, parts.gate.waiting)
        if parts.radius is not None:
            yield from radius_readings(parts.radius.settings, [parts.radius.counters()])
        elif workers is not None and parts.radius_settings is not None:
            yield from radius_readings(parts.radius_settings, workers.counters())

    return MetricsServer(listen.host, listen.port, read)
