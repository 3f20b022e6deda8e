"""What are the counters of the RADIUS door called outside?

Room rule: names. The exchange counts under words of its own, without a thought of metrics; here each word gets the name, the
help and the labels under which it is read. Labels are names of clients and words of this program: the configuration bounds how
many there can be. Counts of several processes are added up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from mfa_runtime.metrics import Family, Kind, Reading
from radius_plugin.door import Counters
from radius_plugin.results import Outcome
from radius_plugin.settings import ClientSettings, RadiusDoorSettings, RequireSignature, SignReplies


def _counter(name: str, text: str, *labels: str) -> Family:
    return Family(f"mfad_radius_{name}_total", Kind.COUNTER, text, ("client", *labels))


def _gauge(name: str, text: str, *labels: str) -> Family:
    return Family(f"mfad_radius_{name}", Kind.GAUGE, text, labels)


REQUESTS: Final = _counter("requests", "Requests that were taken, by kind.", "kind")
REPLIES: Final = _counter("replies", "Logins that were decided, by outcome.", "outcome")
DROPPED: Final = _counter("dropped", "Packets that were not answered, by reason.", "reason")
DUPLICATES: Final = _counter("duplicates", "Retransmits: answered from the cache, or while the first is pending.", "state")
JOINED: Final = _counter("joined", "Logins from a new port that were taken for a retry of one under way (join_retries).")
SUPERSEDED: Final = _counter("superseded", "Requests whose identifier the client used again before they were answered.")
UNSIGNED: Final = _counter("unsigned", "Requests without a Message-Authenticator that were taken all the same.")
ZERO: Final = _counter("zero_authenticator", "Unsigned requests whose Request Authenticator was all zeros.")
PREVIOUS: Final = _counter("previous_secret", "Requests made with the previous secret: zero for a while ends a rotation.")
UNKNOWN_CHALLENGE: Final = _counter("unknown_challenge", "Answers to a challenge that is not of this client and user.")
UNREADABLE: Final = _counter("unreadable_passwords", "Unsigned requests whose password is no text: a wrong secret, mostly.")
TLS_REFUSED: Final = _counter("tls_connections_refused", "RADIUS/TLS connections over the bound of this client, or of all.")
OTHER: Final = _counter("events", "Events that have no name of their own.", "event")

STRANGERS: Final = Family(
    "mfad_radius_strangers_total", Kind.COUNTER, "Packets and connections of nobody who is configured.", ("reason",)
)
FORGOTTEN: Final = Family(
    "mfad_radius_answers_forgotten_early_total",
    Kind.COUNTER,
    "How often the cache of answers was full: raise limits.cached_replies.",
)
UNSENT: Final = Family("mfad_radius_answers_unsent_total", Kind.COUNTER, "Answers that the kernel did not take.")
IN_FLIGHT: Final = _gauge("in_flight", "Requests that wait for their answer.")
TLS_CONNECTIONS: Final = _gauge("tls_connections", "RADIUS/TLS connections that are open.")
PROCESSES: Final = _gauge("processes", "Processes that answer.")

REQUIRES: Final = _gauge(
    "client_requires_signature", "1 where requests must carry a Message-Authenticator, 0 for no and auto.", "client"
)
SIGNS: Final = _gauge("client_replies_signed", "1 where replies carry a Message-Authenticator.", "client")
ROTATING: Final = _gauge("client_previous_secret", "1 where a previous secret is configured beside the present one.", "client")

_NAMES: Final[dict[str, tuple[Family, tuple[str, ...]]]] = {
    "access_request": (REQUESTS, ("access",)),
    "accounting_request": (REQUESTS, ("accounting",)),
    "status_server": (REQUESTS, ("status",)),
    "duplicate": (DUPLICATES, ("answered",)),
    "duplicate_pending": (DUPLICATES, ("pending",)),
    "joined": (JOINED, ()),
    "superseded": (SUPERSEDED, ()),
    "unsigned": (UNSIGNED, ()),
    "zero_authenticator": (ZERO, ()),
    "previous_secret": (PREVIOUS, ()),
    "unknown_challenge": (UNKNOWN_CHALLENGE, ()),
    "unreadable_password": (UNREADABLE, ()),
    "tls_too_many_connections": (TLS_REFUSED, ()),
    **{one.value: (REPLIES, (one.value,)) for one in Outcome},
}
_DROPPED: Final = "dropped_"


def name_of(event: str) -> tuple[Family, tuple[str, ...]]:
    """The family of an event of a client, and the labels behind the client's name."""
    if event.startswith(_DROPPED):
        return DROPPED, (event.removeprefix(_DROPPED),)
    return _NAMES.get(event, (OTHER, (event,)))


def radius_readings(settings: RadiusDoorSettings, processes: Sequence[Counters]) -> Iterator[Reading]:
    """Everything that is known of the door. ``processes`` are the counters of each process that answers."""
    clients: dict[str, Counter[str]] = {}
    strangers: Counter[str] = Counter()
    for one in processes:
        strangers.update(one["strangers"])
        for name, events in one["clients"].items():
            clients.setdefault(name, Counter()).update(events)
    for name, events in sorted(clients.items()):
        for event, count in events.items():
            family, labels = name_of(event)
            yield Reading(family, count, (name, *labels))
    for reason, count in strangers.items():
        yield Reading(STRANGERS, count, (reason,))
    yield Reading(FORGOTTEN, sum(one["answers_forgotten_early"] for one in processes))
    yield Reading(UNSENT, sum(one["answers_unsent"] for one in processes))
    yield Reading(IN_FLIGHT, sum(one["under_way"] for one in processes))
    yield Reading(TLS_CONNECTIONS, sum(one["tls_connections"] for one in processes))
    yield Reading(PROCESSES, len(processes))
    for client in settings.clients:
        yield from _protection(client)


def _protection(client: ClientSettings) -> Iterator[Reading]:
    """A client whose packets could be forged (CVE-2024-3596) is seen from outside."""
    name = (client.name,)
    yield Reading(REQUIRES, float(client.require_message_authenticator is RequireSignature.YES), name)
    yield Reading(SIGNS, float(client.reply_message_authenticator is SignReplies.ALWAYS), name)
    yield Reading(ROTATING, float(len(client.secrets) > 1), name)
