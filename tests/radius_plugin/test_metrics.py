"""Every event that the door counts has a name outside, and counts of several processes are one."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from pathlib import Path

import radius_plugin
from mfa_core.secret import Secret
from mfa_runtime.metrics import exposition
from radius_plugin.door import Counters
from radius_plugin.metrics import OTHER, name_of, radius_readings
from radius_plugin.results import Outcome
from radius_plugin.settings import ClientSettings, RadiusDoorSettings, RequireSignature, SignReplies

SOURCES = Path(str(radius_plugin.__path__[0]))
CLIENT = ClientSettings("vpn", ipaddress.ip_network("192.0.2.1"), (Secret(b"a secret of the test"),))
OLD = replace(
    CLIENT,
    name="old",
    require_message_authenticator=RequireSignature.AUTO,
    reply_message_authenticator=SignReplies.NEVER,
    secrets=(Secret(b"new"), Secret(b"old")),
)
SETTINGS = RadiusDoorSettings(listen=(), clients=(CLIENT, OLD))


def counters(**events: int) -> Counters:
    return {
        "strangers": {"unknown_client": 2},
        "clients": {"vpn": events},
        "under_way": 3,
        "answers_forgotten_early": 1,
        "answers_unsent": 0,
        "tls_connections": 4,
    }


def lines(*processes: Counters) -> set[str]:
    text, _ = exposition(list(radius_readings(SETTINGS, processes)))
    return set(text.decode().splitlines())


def test_every_event_in_the_source_has_a_name() -> None:
    """An event that somebody adds without naming it is found here, and read under `events` meanwhile."""
    words = {
        word
        for path in SOURCES.rglob("*.py")
        for word in re.findall(r'client\.count\("([a-z_]+)"\)', path.read_text())
    }

    assert {"access_request", "duplicate", "previous_secret"} <= words
    assert [word for word in sorted(words | set(Outcome)) if name_of(word)[0] is OTHER] == []


def test_names_are_those_that_dashboards_know() -> None:
    """They change only with a note in the changelog."""
    found = lines(counters(access_request=5, accepted=4, dropped_rate=1, duplicate=2, duplicate_pending=1, something_new=1))

    assert {
        'mfad_radius_requests_total{client="vpn",kind="access"} 5.0',
        'mfad_radius_replies_total{client="vpn",outcome="accepted"} 4.0',
        'mfad_radius_dropped_total{client="vpn",reason="rate"} 1.0',
        'mfad_radius_duplicates_total{client="vpn",state="answered"} 2.0',
        'mfad_radius_duplicates_total{client="vpn",state="pending"} 1.0',
        'mfad_radius_events_total{client="vpn",event="something_new"} 1.0',
        'mfad_radius_strangers_total{reason="unknown_client"} 2.0',
        "mfad_radius_in_flight 3.0",
        "mfad_radius_answers_forgotten_early_total 1.0",
        "mfad_radius_answers_unsent_total 0.0",
        "mfad_radius_tls_connections 4.0",
        "mfad_radius_processes 1.0",
    } <= found


def test_clients_that_could_be_lied_to_are_seen() -> None:
    """A gauge for each client, whether or not it has ever asked."""
    assert {
        'mfad_radius_client_requires_signature{client="vpn"} 1.0',
        'mfad_radius_client_requires_signature{client="old"} 0.0',
        'mfad_radius_client_replies_signed{client="vpn"} 1.0',
        'mfad_radius_client_replies_signed{client="old"} 0.0',
        'mfad_radius_client_previous_secret{client="old"} 1.0',
    } <= lines()


def test_workers_are_added_up() -> None:
    """One NAS may be served by several."""
    found = lines(counters(access_request=5), counters(access_request=2, accepted=1))

    assert {
        'mfad_radius_requests_total{client="vpn",kind="access"} 7.0',
        'mfad_radius_replies_total{client="vpn",outcome="accepted"} 1.0',
        'mfad_radius_strangers_total{reason="unknown_client"} 4.0',
        "mfad_radius_in_flight 6.0",
        "mfad_radius_processes 2.0",
    } <= found
