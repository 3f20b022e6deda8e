"""What is an authority asked, how does it answer, and how do its hosts stand?

Room rule: counters in, readings out: names, help texts and labels. Where they are read from :mod:`mfad.metrics` knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from authority.door import Counters
from mfa_runtime.metrics import Family, Kind, Reading

REQUESTS: Final = Family(
    "mfad_authority_requests_total", Kind.COUNTER, "Requests of hosts, by path and how they ended.", ("path", "result")
)
SECONDS: Final = Family(
    "mfad_authority_request_seconds_total", Kind.COUNTER, "Time until the answer, waiting for news included.", ("path",)
)
CONNECTIONS: Final = Family("mfad_authority_connections", Kind.GAUGE, "Connections of hosts to this process.")
EVENTS: Final = Family(
    "mfad_authority_connection_events_total", Kind.COUNTER, "Connections that ended badly, by what was wrong.", ("event",)
)
WAITING: Final = Family("mfad_authority_hosts_waiting", Kind.GAUGE, "Hosts that wait for news at this process.")
WOKEN: Final = Family("mfad_authority_hosts_woken_total", Kind.COUNTER, "Hosts that were told of a change.")
WOKEN_SECONDS: Final = Family(
    "mfad_authority_hosts_woken_seconds_total", Kind.COUNTER, "From the moment a change was seen until each was told."
)
OUTCOMES: Final = Family(
    "mfad_authority_verifications_total", Kind.COUNTER, "Attempts that hosts asked about.", ("outcome",)
)
UNDER_WAY: Final = Family("mfad_authority_verifications_under_way", Kind.GAUGE, "Attempts that are being decided.")
JOURNAL: Final = Family("mfad_authority_journal_events_total", Kind.COUNTER, "Events taken in from journals of hosts.")
PAGES: Final = Family(
    "mfad_authority_pages_total", Kind.COUNTER, "Pages of syncs: kept ones that were used again, and new ones.", ("page",)
)
HOSTS: Final = Family("mfad_authority_hosts", Kind.GAUGE, "Hosts of the store, by state, to the minute.", ("state",))
ALARMS: Final = Family("mfad_authority_alarms", Kind.GAUGE, "Alarms that nobody has acknowledged, to the minute.")


def authority_readings(counters: Counters) -> Iterator[Reading]:
    """The numbers of one process."""
    for path, results in counters["requests"].items():
        for result, count in results.items():
            yield Reading(REQUESTS, count, (path, result))
    for path, seconds in counters["seconds"].items():
        yield Reading(SECONDS, seconds, (path,))
    yield Reading(CONNECTIONS, counters["connections"])
    for event, count in counters["events"].items():
        yield Reading(EVENTS, count, (event,))
    yield Reading(WAITING, counters["waiting"])
    yield Reading(WOKEN, counters["woken"])
    yield Reading(WOKEN_SECONDS, counters["woken_s"])
    for outcome, count in counters["outcomes"].items():
        yield Reading(OUTCOMES, count, (outcome,))
    yield Reading(UNDER_WAY, counters["under_way"])
    yield Reading(JOURNAL, counters["journal_events"])
    yield Reading(PAGES, counters["pages_kept"], ("kept",))
    yield Reading(PAGES, counters["pages_made"], ("made",))
    for state, count in counters["hosts"].items():
        yield Reading(HOSTS, count, (state,))
    yield Reading(ALARMS, counters["alarms"])
