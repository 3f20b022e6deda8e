"""What an agent knows of itself: to whom it belongs, what it holds, and whether it could decide alone now.

Room rule: reads the store of this host, and asks an authority at most for its health. Nothing is changed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mfactl.output import counted, moment, say, seconds_or_none
from mfactl.spans import span

if TYPE_CHECKING:
    from mfa_core.offline import Terms
    from mfa_core.verdict import Reason
    from mfa_runtime.agent.trouble import Trouble
    from mfa_runtime.store.agent_state import AgentState
    from mfactl.session import Session

PROBE_S = 3.0


@dataclass(frozen=True, slots=True)
class Here:
    """This host. ``held`` are credentials by material; times are Unix seconds, 0 for none.

    ``refusal`` is why nobody could log in if the authority were gone now; None where its terms let it decide alone.
    """

    state: AgentState
    urls: tuple[str, ...]
    terms: Terms
    trouble: Trouble | None
    refusal: Reason | None
    users: int
    held: dict[str, int]
    codes_until: float
    certificate_until: float
    unsent: int
    oldest_unsent: float
    key_protection: str

    @property
    def offline_since(self) -> float:
        """Since when mfad has not reached an authority; 0 while it does."""
        from mfa_runtime.agent.trouble import What

        return self.trouble.since if self.trouble is not None and self.trouble.what is What.UNREACHABLE else 0.0


@dataclass(frozen=True, slots=True)
class Probe:
    """What an authority said when asked for its health. ``cause`` "": it answered; ``offset_s`` is our clock less its."""

    url: str
    cause: str = ""
    cure: str = ""
    offset_s: float = 0.0


def read_here(session: Session) -> Here | None:
    """What stands in the store; None where this host has joined no authority. Raises: StoreCorrupt."""
    import json

    from sqlalchemy import func, select

    from mfa_core.offline import may_verify
    from mfa_runtime.agent.cache import codes_until
    from mfa_runtime.agent.clock import HostClock, boot_id
    from mfa_runtime.agent.journal import head, node_of
    from mfa_runtime.agent.trouble import read_trouble
    from mfa_runtime.lease import lease_of
    from mfa_runtime.protocol.words import protection_of
    from mfa_runtime.store import agent_state
    from mfa_runtime.store.schema import audit, credentials, key_pairs, users

    with session.reading() as connection:
        state = agent_state.load(connection)
        if state is None:
            return None
        lease = lease_of(state)
        number = int(connection.execute(select(func.count()).select_from(users)).scalar_one())
        held = connection.execute(select(credentials.c.material, func.count()).group_by(credentials.c.material))
        by_material = {str(material): int(count) for material, count in held}
        tls = connection.execute(select(key_pairs.c.not_after).where(key_pairs.c.name == "tls")).scalar()
        unsent = max(0, head(connection, state.journal_epoch).seq - state.journal_seq)
        first = audit.c.node == node_of(state.journal_epoch), audit.c.seq == state.journal_seq + 1
        oldest = connection.execute(select(audit.c.body).where(*first)).scalar()
        ends = codes_until(connection)
    services = lease.terms.offline_services
    service = services[0] if services else ""
    return Here(
        state=state,
        urls=session.config.agent.authorities or state.authorities,
        terms=lease.terms,
        trouble=read_trouble(state.trouble),
        refusal=may_verify(lease, HostClock(boot_id())(session.now), service, float("inf")),
        users=number,
        held=by_material,
        codes_until=max(0.0, ends),
        certificate_until=0.0 if tls is None else float(tls),
        unsent=unsent,
        oldest_unsent=0.0 if oldest is None else float(json.loads(oldest).get("at", 0.0)),
        key_protection=protection_of(session.config.key_source).value,
    )


def probe(here: Here, *, now: Callable[[], float] = time.time) -> list[Probe]:
    """Ask each authority for its health, as mfad would reach it."""

    async def ask_all() -> list[Probe]:
        return list(await asyncio.gather(*(_ask(url, here.state.trust.decode(), now) for url in here.urls)))

    return asyncio.run(ask_all())


async def _ask(url: str, trust: str, now: Callable[[], float]) -> Probe:
    import ssl

    from mfa_core.errors import MfaError
    from mfa_runtime.agent.http import Authorities, Refused, Unreachable, trusting_context
    from mfa_runtime.protocol.reporting import read_health
    from mfa_runtime.protocol.words import HEALTH

    authorities = Authorities([url], lambda: trusting_context(trust), connections=1)
    try:
        answer = await authorities.get(HEALTH, try_s=PROBE_S, budget_s=PROBE_S)
        health = read_health(answer.body)
    except (Unreachable, Refused, MfaError) as err:
        return Probe(url, str(err), err.cure)
    except ssl.SSLError as err:
        return Probe(url, f"what this host trusts cannot be used: {err.reason}", "join again: `mfactl agent join`")
    finally:
        await authorities.close()
    return Probe(url, offset_s=now() - health.now)


def as_json(here: Here, probes: list[Probe]) -> dict[str, object]:
    """For programs."""
    state, trouble = here.state, here.trouble
    return {
        "joined": True,
        "host": state.host_name,
        "host_id": state.host_id,
        "host_group": here.terms.host_group or None,
        "authority_id": state.authority_id,
        "authorities": list(here.urls),
        "standing": state.standing,
        "online": not here.offline_since,
        "offline_since": seconds_or_none(here.offline_since),
        "synced_at": seconds_or_none(state.synced_at),
        "lease_until": seconds_or_none(state.not_after),
        "alone": here.refusal is None,
        "alone_refused": None if here.refusal is None else here.refusal.value,
        "offline_services": list(here.terms.offline_services),
        "offline_after_s": here.terms.offline_after_s,
        "material": here.terms.material or None,
        "users": here.users,
        "credentials": here.held,
        "codes_until": seconds_or_none(here.codes_until),
        "certificate_until": seconds_or_none(here.certificate_until),
        "key_protection": here.key_protection,
        "journal": {"epoch": state.journal_epoch, "sent": state.journal_seq, "unsent": here.unsent},
        "trouble": None
        if trouble is None
        else {"what": trouble.what.value, "since": trouble.since, "text": trouble.text, "cure": trouble.cure},
        "probes": [
            {"url": one.url, "answers": not one.cause, "cause": one.cause, "cure": one.cure, "clock_offset_s": one.offset_s}
            for one in probes
        ],
    }


def tell(here: Here, *, now: float) -> None:
    """For people."""
    state = here.state
    say(f"host         {state.host_name} (number {state.host_id}), group {here.terms.host_group or 'not known yet'}")
    say(f"authority    {', '.join(here.urls)} ({state.authority_id[:8]})")
    say(f"standing     {STANDINGS.get(state.standing, state.standing)}")
    if here.offline_since:
        say(f"             no authority answers since {moment(here.offline_since)} ({span(now - here.offline_since)})")
    heard = f"{moment(state.synced_at)} ({span(now - state.synced_at)} ago)" if state.synced_at else "never"
    say(f"last sync    {heard}")
    say(f"alone        {alone(here, now=now)}")
    holds = ", ".join(f"{number:,} {WORDS.get(material, material)}" for material, number in sorted(here.held.items()))
    say(f"holds        {counted(here.users, 'user')}; credentials: {holds or 'none'}")
    if here.codes_until:
        say(f"             books of codes reach to {moment(here.codes_until)}")
    say(f"journal      {counted(here.unsent, 'event')} not sent yet" if here.unsent else "journal      all sent")
    say(f"certificate  until {moment(here.certificate_until)}; key: {here.key_protection}")
    if here.trouble is not None:
        say(f"trouble      since {moment(here.trouble.since)}: {here.trouble.text}")
        if here.trouble.cure:
            say(f"             cure: {here.trouble.cure}")


def alone(here: Here, *, now: float) -> str:
    """Whether and until when it could decide alone."""
    from mfactl.reasons import REFUSALS

    if here.refusal is not None:
        return f"no: {REFUSALS[here.refusal].meaning.removeprefix('no authority could be reached, and ')}"
    services = ", ".join(here.terms.offline_services)
    after = f", once no authority has answered for {span(here.terms.offline_after_s)}" if here.terms.offline_after_s else ""
    return f"until {moment(here.state.not_after)} (for {span(here.state.not_after - now)}), for {services}{after}"


STANDINGS = {
    "joined": "joined",
    "revoked": "REVOKED by the authority: it lets nobody in",
    "quarantined": "in QUARANTINE at the authority: it decides nothing alone until it is released",
}
WORDS = {"seed": "by seed", "codebook": "by a book of codes", "none": "at the authority alone"}
