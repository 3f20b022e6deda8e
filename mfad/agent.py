"""The parts of an agent: who follows its authority, and what a change that it hears of does to the gate and the ledger.

Room rule: constructors and mappings, as in :mod:`mfad.build`.
"""

from __future__ import annotations

import enum
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version

from mfa_core.errors import MfaError
from mfa_core.policy import Policy
from mfa_core.verifier import Settings
from mfa_runtime.agent.clock import HostClock, boot_id
from mfa_runtime.agent.contact import Contact, Habits
from mfa_runtime.agent.follower import Counted, Follower
from mfa_runtime.agent.journal import node_of
from mfa_runtime.agent.news import News, RulesCame
from mfa_runtime.agent.watcher import Watcher
from mfa_runtime.config import Config
from mfa_runtime.config.rules_document import SharedRules, read_rules
from mfa_runtime.lease import lease_of
from mfa_runtime.ledger import Ledger
from mfa_runtime.metrics import Family, Kind, Reading
from mfa_runtime.protocol.words import protection_of
from mfa_runtime.store import agent_state
from mfa_runtime.store.agent_state import AgentState
from mfa_runtime.store.database import Store
from mfa_runtime.verification import Rules

REACHABLE = Family("mfad_authority_reachable", Kind.GAUGE, "1 while logins ask the authority, else 0.")
UNREACHABLE_S = Family("mfad_authority_unreachable_seconds", Kind.GAUGE, "For how long no authority has answered.")
ASKED = Family("mfad_authority_asked_total", Kind.COUNTER, "Logins that the authority was asked about.")
ALONE = Family("mfad_decided_alone_total", Kind.COUNTER, "Logins that this host had to decide without the authority.")
LOSSES = Family("mfad_authority_losses_total", Kind.COUNTER, "How often the authority was lost.")
SYNCS = Family("mfad_syncs_total", Kind.COUNTER, "Syncs and leases that were stored.")
FULL_SYNCS = Family("mfad_full_syncs_total", Kind.COUNTER, "Of these, how many brought everything anew.")
ANSWERS_REFUSED = Family("mfad_sync_answers_refused_total", Kind.COUNTER, "Answers that nothing was used of.")
JOURNAL = Family("mfad_journal_events_sent_total", Kind.COUNTER, "Audit events that the authority has taken.")
FORKS = Family("mfad_journal_forks_total", Kind.COUNTER, "How often the journal had to begin anew.")

log = logging.getLogger("mfad.agent")


class Part(enum.Enum):
    """What a process of an agent does beside its doors."""

    FOLLOWS = "follows"
    """It syncs and uploads the journal: one process of a host."""
    WATCHES = "watches"
    """It reads in the store what the other one has written."""


def read_state(store: Store) -> AgentState | None:
    """What this host was told; None where it has not joined."""
    with store.reading() as connection:
        return agent_state.load(connection)


def node_for(state: AgentState | None) -> str:
    """The audit chain of this host."""
    return node_of(1 if state is None else state.journal_epoch)


def host_clock() -> HostClock:
    """The clocks of this host."""
    return HostClock(boot_id())


def shared_rules(state: AgentState | None) -> tuple[SharedRules, str] | None:
    """The rules that this host was told, and its group; None where there are none, or none that can be used."""
    if state is None or not state.rules:
        return None
    try:
        return read_rules(state.rules), lease_of(state).terms.host_group
    except MfaError as err:
        log.error("the authority's rules cannot be used, nobody is let in before it is reached: %s; %s", err, err.cure)
        return None


def rules_of(config: Config, heard: tuple[SharedRules, str] | None) -> Rules:
    """The authority's rules, with the settings of this host's own. Before any were heard, a code is asked of everybody, and the
    lease lets nobody in."""
    if heard is None:
        settings = Settings(throttle=config.throttle)
        return Rules(identity=config.identity, policy=Policy(), settings=settings)
    shared, host_group = heard
    return Rules(
        identity=shared.identity,
        policy=shared.policy,
        settings=Settings(
            window=shared.window, max_drift=shared.max_drift, throttle=config.throttle, scope=host_group
        ),
        host_groups=frozenset({host_group} if host_group else ()),
    )


def build_agent(
    config: Config,
    part: Part,
    store: Store,
    ledger: Ledger,
    *,
    rules_came: RulesCame,
) -> Follower | Watcher:
    """Make the part that follows or watches. Nothing is asked yet."""
    clock: Callable[[], float] = time.time
    contact = Contact(
        store,
        keyring=lambda: ledger.keyring,
        reload_keyring=ledger.reload_keys,
        habits=build_habits(config),
        clock=clock,
    )
    news = News(rules_came=rules_came, chain_begun=ledger.begin_chain)
    if part is Part.WATCHES:
        return Watcher(
            contact, clock=clock, monotonic=time.monotonic, random=os.urandom, news=news, tell=ledger.tell
        )
    return Follower(
        contact,
        clock=clock,
        monotonic=time.monotonic,
        moment=host_clock(),
        random=os.urandom,
        news=news,
        tell=ledger.tell,
    )


def build_habits(config: Config) -> Habits:
    """The section ``agent`` in the terms of those who ask."""
    section = config.agent
    return Habits(
        authorities=section.authorities,
        budget_s=section.budget,
        try_s=section.attempt_s,
        retry_s=section.retry,
        sync_wait_s=float(section.sync_wait),
        key_protection=protection_of(config.key_source),
        software=f"mfad {_version()}",
    )


def _version() -> str:
    try:
        return version("mfad")
    except PackageNotFoundError:
        return "(not installed)"


def link_counters(agent: Follower | Watcher) -> dict[str, int]:
    """How the logins of one process were decided."""
    return {"asked": agent.link.asked, "alone": agent.link.alone}


def agent_readings(agent: Follower | Watcher, workers: Iterable[Mapping[str, int]]) -> list[Reading]:
    """The numbers of an agent; ``workers`` are the :func:`link_counters` of its other processes."""
    link = agent.link
    logins = [link_counters(agent), *workers]
    counted = agent.counted if isinstance(agent, Follower) else Counted()
    return [
        Reading(REACHABLE, int(link.breaker.asks)),
        Reading(UNREACHABLE_S, link.unreachable_s),
        Reading(ASKED, sum(one["asked"] for one in logins)),
        Reading(ALONE, sum(one["alone"] for one in logins)),
        Reading(LOSSES, counted.losses),
        Reading(SYNCS, counted.syncs),
        Reading(FULL_SYNCS, counted.full_syncs),
        Reading(ANSWERS_REFUSED, counted.refused_answers),
        Reading(JOURNAL, counted.journal_events),
        Reading(FORKS, counted.forks),
    ]
