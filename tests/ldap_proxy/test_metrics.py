"""Every event that the door counts has a name outside, and counts of several processes are one."""

from __future__ import annotations

import re
from pathlib import Path

import ldap_proxy
from ldap_proxy.door import Counters
from ldap_proxy.metrics import OTHER, ldap_readings, name_of
from mfa_runtime.metrics import exposition

SOURCES = Path(str(ldap_proxy.__path__[0]))


def counters(*, healthy: bool = True, **events: int) -> Counters:
    return {
        "connections": 3,
        "accepted": 7,
        "events": events,
        "applications": {"wiki": {"accepted": [4, 0.5], "rejected": [1, 0.25]}},
        "servers": {"ldap://dc1:389": {"healthy": healthy, "connections": 2}},
        "upstream": {"dialled": 5, "from_stock": 6},
        "lookups": {"asked": 8},
        "remembered": 9,
        "remember_hits": 10,
    }


def lines(*processes: Counters) -> set[str]:
    text, _ = exposition(list(ldap_readings(processes)))
    return set(text.decode().splitlines())


def test_every_event_in_the_source_has_a_name() -> None:
    """An event that somebody adds without naming it is found here, and read under `events` meanwhile."""
    sources = [path.read_text() for path in SOURCES.rglob("*.py")]
    words = {word for text in sources for word in re.findall(r'\.count\("([a-z_]+)"\)', text)}
    words |= {f"malformed_{whose}" for text in sources for whose in re.findall(r'malformed\([^)]*"(client|upstream)"', text)}

    assert {"refused_operation", "idle", "too_many_connections", "malformed_client", "malformed_upstream"} <= words
    assert [word for word in sorted(words) if name_of(word)[0] is OTHER] == []


def test_names_are_those_that_dashboards_know() -> None:
    """They change only with a note in the changelog."""
    found = lines(counters(idle=1, too_many_connections_from_source=2, refused_operation=3, something_new=4))

    assert {
        'mfad_ldap_binds_total{application="wiki",outcome="accepted"} 4.0',
        'mfad_ldap_bind_seconds_total{application="wiki",outcome="rejected"} 0.25',
        "mfad_ldap_connections 3.0",
        "mfad_ldap_connections_accepted_total 7.0",
        'mfad_ldap_connections_ended_total{cause="idle"} 1.0',
        'mfad_ldap_connections_refused_total{cause="source"} 2.0',
        "mfad_ldap_operations_refused_total 3.0",
        'mfad_ldap_events_total{event="something_new"} 4.0',
        'mfad_ldap_upstream_healthy{server="ldap://dc1:389"} 1.0',
        'mfad_ldap_upstream_connections{server="ldap://dc1:389"} 2.0',
        'mfad_ldap_upstream_connections_made_total{how="dialled"} 5.0',
        'mfad_ldap_lookups_total{state="asked"} 8.0',
        "mfad_ldap_remembered 9.0",
        "mfad_ldap_remember_hits_total 10.0",
        "mfad_ldap_processes 1.0",
    } <= found


def test_workers_are_added_up_and_a_server_is_well_where_all_say_so() -> None:
    found = lines(counters(idle=1), counters(idle=2, healthy=False))

    assert {
        'mfad_ldap_binds_total{application="wiki",outcome="accepted"} 8.0',
        'mfad_ldap_bind_seconds_total{application="wiki",outcome="accepted"} 1.0',
        'mfad_ldap_connections_ended_total{cause="idle"} 3.0',
        'mfad_ldap_upstream_healthy{server="ldap://dc1:389"} 0.0',
        'mfad_ldap_upstream_connections{server="ldap://dc1:389"} 4.0',
        "mfad_ldap_connections 6.0",
        "mfad_ldap_processes 2.0",
    } <= found
    assert lines() >= {"mfad_ldap_processes 0.0", "mfad_ldap_connections 0.0"}
