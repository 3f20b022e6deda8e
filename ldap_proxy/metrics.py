"""What are the counters of the LDAP door called outside?

Room rule: names. The door counts under words of its own, without a thought of metrics; here each word gets the name, the help
and the labels under which it is read. Labels are names of applications and servers and words of this program: the configuration
bounds how many there can be. Counts of several processes are added up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from ldap_proxy.door import Counters
from mfa_runtime.metrics import Family, Kind, Reading


def _counter(name: str, text: str, *labels: str) -> Family:
    return Family(f"mfad_ldap_{name}_total", Kind.COUNTER, text, labels)


def _gauge(name: str, text: str, *labels: str) -> Family:
    return Family(f"mfad_ldap_{name}", Kind.GAUGE, text, labels)


BINDS: Final = _counter("binds", "Binds that were decided, by outcome.", "application", "outcome")
SECONDS: Final = _counter("bind_seconds", "Time that these took, the directory's part included.", "application", "outcome")
ACCEPTED: Final = _counter("connections_accepted", "Connections of clients that were taken from the kernel.")
TURNED_AWAY: Final = _counter("connections_refused", "Connections that were turned away, by cause.", "cause")
ENDED: Final = _counter("connections_ended", "Connections that the door ended, by cause.", "cause")
DENIED: Final = _counter("operations_refused", "Operations that were not let through to the directory.")
OTHER: Final = _counter("events", "Events that have no name of their own.", "event")
DIALLED: Final = _counter("upstream_connections_made", "Connections to the directory, by how they came about.", "how")
LOOKUPS: Final = _counter("lookups", "Questions of our own to the directory (attributes, groups).", "state")
HITS: Final = _counter("remember_hits", "Binds in which a factor shown before was found; the core may still refuse them.")

CONNECTIONS: Final = _gauge("connections", "Connections of clients that are open.")
HEALTHY: Final = _gauge("upstream_healthy", "1 where every process finds this directory server well, else 0.", "server")
UPSTREAM: Final = _gauge("upstream_connections", "Connections to this directory server that are in use.", "server")
REMEMBERED: Final = _gauge("remembered", "Logins that are remembered now.")
PROCESSES: Final = _gauge("processes", "Processes that answer.")

_NAMES: Final[dict[str, tuple[Family, tuple[str, ...]]]] = {
    "refused_operation": (DENIED, ()),
    "too_many_connections": (TURNED_AWAY, ("all",)),
    "too_many_connections_from_source": (TURNED_AWAY, ("source",)),
    **{
        cause: (ENDED, (cause,))
        for cause in (
            "idle", "slow_header", "slow_message", "malformed_client", "malformed_upstream", "octets_behind_header",
            "tls_handshake_failed", "upstream_lost", "upstream_notice",
        )
    },
}  # fmt: skip


def name_of(event: str) -> tuple[Family, tuple[str, ...]]:
    """The family of an event, and the values of its labels."""
    return _NAMES.get(event, (OTHER, (event,)))


def ldap_readings(processes: Sequence[Counters]) -> Iterator[Reading]:
    """Everything that is known of the door. ``processes`` are the counters of each process that answers."""
    binds: dict[tuple[str, str], list[float]] = {}
    events: Counter[str] = Counter()
    made: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    healthy: dict[str, bool] = {}
    used: Counter[str] = Counter()
    for one in processes:
        for application, outcomes in one["applications"].items():
            for outcome, (count, seconds) in outcomes.items():
                sums = binds.setdefault((application, outcome), [0, 0.0])
                sums[0] += count
                sums[1] += seconds
        events.update(one["events"])
        made.update(one["upstream"])
        asked.update(one["lookups"])
        for server, state in one["servers"].items():
            healthy[server] = healthy.get(server, True) and state["healthy"]
            used[server] += state["connections"]
    for labels, (count, seconds) in sorted(binds.items()):
        yield Reading(BINDS, count, labels)
        yield Reading(SECONDS, seconds, labels)
    for event, count in sorted(events.items()):
        family, values = name_of(event)
        yield Reading(family, count, values)
    for how, count in sorted(made.items()):
        yield Reading(DIALLED, count, (how,))
    for state_of, count in sorted(asked.items()):
        yield Reading(LOOKUPS, count, (state_of,))
    for server, well in healthy.items():
        yield Reading(HEALTHY, float(well), (server,))
        yield Reading(UPSTREAM, used[server], (server,))
    yield Reading(ACCEPTED, sum(one["accepted"] for one in processes))
    yield Reading(CONNECTIONS, sum(one["connections"] for one in processes))
    yield Reading(REMEMBERED, sum(one["remembered"] for one in processes))
    yield Reading(HITS, sum(one["remember_hits"] for one in processes))
    yield Reading(PROCESSES, len(processes))
