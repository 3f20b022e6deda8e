"""An agent: does it belong to an authority, does it reach one, and could it decide alone if it did not?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mfa_core.errors import MfaError
from mfactl.doctor.finding import Finding, Weight
from mfactl.output import counted, moment
from mfactl.spans import span

if TYPE_CHECKING:
    from mfa_runtime.agent.trouble import Trouble
    from mfactl.agent_here import Here, Probe
    from mfactl.session import Session

PLACE = "agent"
CLOCK_OFF_S = 30.0
"""One step of a code: more, and codes fail at random."""
UNSENT_S = 3_600.0
CERTIFICATE_LEFT = 10 * 86_400.0 / 2
"""mfad renews at ten of thirty days: with half of that left it has tried in vain for long."""


def check_agent(session: Session) -> Iterator[Finding]:
    """Look at this host."""
    from mfactl.agent_here import probe, read_here

    try:
        here = read_here(session)
    except MfaError as err:
        yield Finding(Weight.PROBLEM, PLACE, str(err), err.cure)
        return
    if here is None:
        yield Finding(
            Weight.PROBLEM, PLACE, "this host has joined no authority: it lets nobody in",
            "`mfactl agent join https://HOST:PORT`, with the token that `mfactl agent token` prints there",
        )  # fmt: skip
        return
    probes = probe(here)
    yield from _standing(here)
    yield from _reached(here, probes)
    yield from _trouble(here, reached=any(not one.cause for one in probes))
    yield from _lease(here, now=session.now)
    yield from _cache(session, here)
    yield from _key(here)
    yield from _certificate(here, now=session.now)
    yield from _journal(here, now=session.now)


def _standing(here: Here) -> Iterator[Finding]:
    match here.state.standing:
        case "joined":
            yield Finding(Weight.GOOD, PLACE, f"{here.state.host_name} belongs to {', '.join(here.urls)}")
        case "revoked":
            yield Finding(
                Weight.PROBLEM, PLACE, "the authority has revoked this host: it lets nobody in",
                "if that was a mistake, join again with a new token: `mfactl agent join`",
            )  # fmt: skip
        case _:
            yield Finding(
                Weight.PROBLEM, PLACE, "this host is in quarantine at the authority: two machines have shown its key",
                f"find the other one, then at the authority: `mfactl agent release {here.state.host_name}`",
            )  # fmt: skip


def _reached(here: Here, probes: list[Probe]) -> Iterator[Finding]:
    silent = [one for one in probes if one.cause]
    weight = Weight.PROBLEM if len(silent) == len(probes) else Weight.WARNING
    for one in probes:
        if one.cause:
            yield Finding(weight, PLACE, one.cause, one.cure or f"see that mfad runs at {one.url}, and that a firewall lets it")
        elif abs(one.offset_s) > CLOCK_OFF_S:
            ahead = "ahead of" if one.offset_s > 0 else "behind"
            yield Finding(
                Weight.PROBLEM, "clock", f"the clock is {span(one.offset_s)} {ahead} that of {one.url}",
                "`timedatectl set-ntp true`: alone, this host would let nobody in, or look at the wrong codes",
            )  # fmt: skip
        else:
            yield Finding(Weight.GOOD, PLACE, f"{one.url} answers")
    if here.offline_since and len(silent) == len(probes):
        yield Finding(
            Weight.WARNING, PLACE, f"no authority has answered mfad since {moment(here.offline_since)}: it decides alone",
            "mend the way there; `mfactl agent status` says until when it may",
        )  # fmt: skip


def _trouble(here: Here, *, reached: bool) -> Iterator[Finding]:
    from mfa_runtime.agent.trouble import What

    trouble = here.trouble
    if trouble is None:
        return
    if trouble.what is What.UNREACHABLE:
        if reached:
            yield Finding(
                Weight.WARNING, PLACE, f"an authority answers here, and mfad has reached none since {moment(trouble.since)}",
                "see that mfad runs and its log: `systemctl status mfad`",
            )  # fmt: skip
        return
    weight = Weight.WARNING if trouble.what is What.CLOCK else Weight.PROBLEM
    yield Finding(weight, _PLACES.get(trouble.what.value, PLACE), _told(trouble), trouble.cure or "see the log of mfad")


_PLACES = {"clock": "clock", "store": "disk"}


def _told(trouble: Trouble) -> str:
    before = {
        "refused": "the authority refuses this host",
        "answer": "an answer was not the authority's, or not for this host, and was not used",
        "store": "what the authority sent could not be stored, the users of before stay",
        "rules": "the authority's rules cannot be read here, the previous ones stay",
        "clock": "the clock is not the authority's",
    }.get(trouble.what.value, trouble.what.value)
    return f"{before} (since {moment(trouble.since)}): {trouble.text}"


def _lease(here: Here, *, now: float) -> Iterator[Finding]:
    from mfa_core.verdict import Reason
    from mfactl.reasons import REFUSALS

    left, longest = here.state.not_after - now, here.terms.max_offline_s
    match here.refusal:
        case None:
            if left < longest / 4:
                yield Finding(
                    Weight.WARNING, PLACE, f"may decide alone for {span(left)} only, until {moment(here.state.not_after)}",
                    "mend the way to the authority before that: afterwards nobody logs in here",
                )  # fmt: skip
            else:
                yield Finding(Weight.GOOD, PLACE, f"may decide alone until {moment(here.state.not_after)}")
        case Reason.NOT_OFFLINE:
            yield Finding(Weight.GOOD, PLACE, "never decides alone: that is what its host group says")
        case Reason.HOST_REVOKED:
            pass  # told by its standing
        case Reason.CLOCK_ROLLBACK | Reason.CLOCK_JUMPED:
            advice = REFUSALS[here.refusal]
            seen = f"alone, this host would let nobody in: {_short(advice.meaning)}"
            yield Finding(Weight.PROBLEM, "clock", seen, advice.cure)
        case Reason.NEVER_SYNCED:
            yield Finding(
                Weight.PROBLEM, PLACE, "this host has joined, and never had an answer to sync",
                "start mfad; if it runs, see what it says of the authority above, and its log",
            )  # fmt: skip
        case _:
            advice = REFUSALS[here.refusal]
            yield Finding(
                Weight.PROBLEM, PLACE, f"the lease ended at {moment(here.state.not_after)}: alone, nobody logs in",
                advice.cure,
            )  # fmt: skip


def _short(meaning: str) -> str:
    return meaning.removeprefix("no authority could be reached, and ")


def _cache(session: Session, here: Here) -> Iterator[Finding]:
    from mfa_runtime.agent.cache import digest_here

    if here.state.cursor < 0 or not here.state.digest:
        return
    with session.reading() as connection:
        same = digest_here(connection) == here.state.digest
    if not same:
        yield Finding(
            Weight.PROBLEM, PLACE, "the users here are not those that the authority sent: somebody else wrote to the store",
            "see who writes to state_dir; then join again, which fetches everything anew",
        )  # fmt: skip
    elif here.users and not {"seed", "codebook"} & here.held.keys() and here.terms.max_offline_s:
        yield Finding(
            Weight.WARNING, PLACE, f"no code of {counted(here.users, 'user')} can be checked here without the authority",
            "expected where all have HOTP tokens, or where a group of material per_host has no credential for this host;"
            " else see its key below, and `mfactl agent alarms` at the authority",
        )  # fmt: skip


def _key(here: Here) -> Iterator[Finding]:
    try:
        wanted = str(json.loads(here.state.host).get("key_protection", "any")) if here.state.host else "any"
    except ValueError:
        wanted = "any"
    from mfa_runtime.protocol.words import KeyProtection

    if not KeyProtection(here.key_protection).is_enough(wanted):
        yield Finding(
            Weight.PROBLEM, "key", f"the key is in a {here.key_protection}, the group asks for {wanted}: no secrets come here",
            "seal the key file with `systemd-creds encrypt`, set `key: systemd-creds:NAME` (docs/offline.md), restart mfad",
        )  # fmt: skip


def _certificate(here: Here, *, now: float) -> Iterator[Finding]:
    end = here.certificate_until
    if not end:
        yield Finding(Weight.PROBLEM, "tls", "this host has no certificate", "join again: `mfactl agent join`")
    elif end <= now:
        yield Finding(
            Weight.PROBLEM, "tls", f"this host's certificate ended at {moment(end)}: no authority listens to it",
            "join again with a new token: `mfactl agent join`",
        )  # fmt: skip
    elif end - now < CERTIFICATE_LEFT:
        yield Finding(
            Weight.WARNING, "tls", f"this host's certificate ends at {moment(end)}, and mfad has not renewed it",
            "let mfad reach the authority before that; it renews by itself",
        )  # fmt: skip
    else:
        yield Finding(Weight.GOOD, "tls", f"this host's certificate is good until {moment(end)}")


def _journal(here: Here, *, now: float) -> Iterator[Finding]:
    if here.unsent and now - here.oldest_unsent > UNSENT_S:
        since = moment(here.oldest_unsent)
        yield Finding(
            Weight.WARNING, "journal", f"{counted(here.unsent, 'event')} not told to the authority, since {since}",
            "they go when mfad reaches it; if it does (above), see its log",
        )  # fmt: skip
