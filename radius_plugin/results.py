"""Which packet does a verdict become?

Room rule: the one file that maps verdicts to RADIUS. What leaves is the code, a public text, a State and the reply attributes
that the configuration gives; reasons stay here, as the ``outcome`` of the log line.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Sequence
from typing import assert_never

from mfa_core import texts
from mfa_core.model import FirstFactor
from mfa_core.value import hot_value
from mfa_core.verdict import Accepted, Challenge, Exempt, Pending, Reason, Rejected, Unavailable, Unready, Verdict
from radius_plugin.request import Login, Unasked
from radius_plugin.settings import ClientSettings, Refusal, ReplyRule
from radius_plugin.state import ATTEMPTS_MAX, Carried, StateSeal
from radius_plugin.wire import Code, Type, attribute, text_attributes

_AGAIN = {
    Reason.MISMATCH, Reason.REPLAYED, Reason.MALFORMED, Reason.EMPTY, Reason.JUNK, Reason.NO_CODE, Reason.NEEDS_AUTHORITY,
}  # fmt: skip
"""Refusals of a code after which the same dialogue may try another one."""


NOBODY_CHECKED = "exempt_but_no_first_factor"
"""The reason in the log for an exempt person whose password nobody is known to have checked."""
GROUPS_UNKNOWN = "groups_unknown"
"""The reason in the log where the reply depends on groups, and the directory did not say."""
_UNSAID = Unavailable("", Unready.INTERNAL).public_text


class Outcome(enum.StrEnum):
    """How a request ended: stable words for counters and logs."""

    ACCEPTED = "accepted"
    EXEMPT = "exempt"
    CHALLENGED = "challenged"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"
    TIMED_OUT = "timed_out"


@hot_value
class Answer:
    """What is sent. ``attributes`` are encoded; ``code`` is None for silence. ``reason`` never leaves the machine."""

    code: Code | None
    attributes: bytes
    outcome: Outcome
    reason: str = ""
    event_id: str = ""
    user: str = ""


def needs_groups(rules: Sequence[ReplyRule]) -> bool:
    """Whether the groups of an accepted user must be looked up."""
    return any(rule.groups for rule in rules)


def reply_attributes(
    rules: Sequence[ReplyRule], *, client: str, user: str, groups: Collection[str] | None, policy_rule: str
) -> bytes | None:
    """The attributes of every rule that matches, in order, up to one that is the last.

    None where it depends on groups and ``groups`` are not known: a later rule might give more than the one that was meant.
    """
    found = b""
    for rule in rules:
        if (
            (not rule.clients or client in rule.clients)
            and (not rule.users or user in rule.users)
            and (not rule.policy_rules or policy_rule in rule.policy_rules)
        ):
            if rule.groups:
                if groups is None:
                    return None
                if rule.groups.isdisjoint(groups):
                    continue
            found += rule.attributes
            if rule.last:
                break
    return found


@hot_value
class Dialogue:
    """What a challenge needs. ``new_id`` names the next one, ``now`` is Unix seconds, its State is bound to ``owner``."""

    seal: StateSeal
    owner: str
    new_id: Callable[[], str]
    now: float
    lifetime_s: float


def answer_to(
    verdict: Verdict,
    login: Login,
    client: ClientSettings,
    dialogue: Dialogue,
    *,
    rules: Sequence[ReplyRule] = (),
    groups: Collection[str] | None = (),
) -> Answer | None:
    """Return the packet for a verdict; None where the question has to be asked again later (an out-of-band factor).

    ``groups`` are those of the accepted user, None when they are not known.
    """
    event_id = login.attempt.event_id
    match verdict:
        case Accepted():
            attributes = _accepted(verdict, client, rules, groups)
            if attributes is None:
                return _unavailable(client, _UNSAID, GROUPS_UNKNOWN, event_id)
            return Answer(Code.ACCESS_ACCEPT, attributes, Outcome.ACCEPTED, verdict.factor, event_id, verdict.user)
        case Exempt():
            if not _first_factor_is_known(login):
                return _rejected(texts.DENIED, NOBODY_CHECKED, event_id)
            attributes = _accepted(verdict, client, rules, groups)
            if attributes is None:
                return _unavailable(client, _UNSAID, GROUPS_UNKNOWN, event_id)
            return Answer(Code.ACCESS_ACCEPT, attributes, Outcome.EXEMPT, verdict.exemption, event_id, verdict.user)
        case Challenge():
            return challenge(login, client, dialogue, attempts=0, before="")
        case Rejected():
            carried = login.carried
            most = min(client.attempts, ATTEMPTS_MAX + 1)
            if carried is not None and verdict.reason in _AGAIN and carried.attempts + 1 < most:
                said = texts.WRONG_CODE if verdict.public_text == texts.DENIED else verdict.public_text
                again = challenge(login, client, dialogue, attempts=carried.attempts + 1, before=said)
                return Answer(again.code, again.attributes, Outcome.CHALLENGED, verdict.reason, event_id)
            return _rejected(verdict.public_text, verdict.reason, event_id)
        case Pending():
            return None
        case Unavailable():
            return _unavailable(client, verdict.public_text, verdict.reason, event_id)
        case _:
            assert_never(verdict)


def _accepted(
    verdict: Accepted | Exempt, client: ClientSettings, rules: Sequence[ReplyRule], groups: Collection[str] | None
) -> bytes | None:
    """The attributes of an Access-Accept; None where they cannot be known."""
    attributes = b"".join([text_attributes(Type.REPLY_MESSAGE, notice) for notice in verdict.notices])
    if not rules:
        return attributes
    given = reply_attributes(rules, client=client.name, user=verdict.user, groups=groups, policy_rule=verdict.rule)
    return None if given is None else attributes + given


def _unavailable(client: ClientSettings, text: str, reason: str, event_id: str) -> Answer:
    # An answer that is not one would cost a queue that is full already: the client asks its next server.
    if client.on_unavailable is Refusal.SILENCE or reason == Unready.OVERLOADED:
        return Answer(None, b"", Outcome.UNAVAILABLE, reason, event_id)
    return Answer(Code.ACCESS_REJECT, text_attributes(Type.REPLY_MESSAGE, text), Outcome.UNAVAILABLE, reason, event_id)


def _first_factor_is_known(login: Login) -> bool:
    """Whether somebody has checked a password. No second factor is wanted of the exempt; that is not no factor."""
    attempt = login.attempt
    if attempt.first_factor is FirstFactor.OURS:
        return attempt.typed is not None
    return attempt.first_factor is FirstFactor.DONE


def challenge(login: Login, client: ClientSettings, dialogue: Dialogue, *, attempts: int, before: str) -> Answer:
    """An Access-Challenge that asks for a code; ``before`` is said first. pam_radius_auth wants State and Reply-Message."""
    carried = Carried(
        dialogue.new_id(),
        int(dialogue.now + dialogue.lifetime_s),
        attempts,
        login.attempt.first_factor is not FirstFactor.ELSEWHERE,
    )
    state = dialogue.seal.seal(carried, client=dialogue.owner, user_name=login.user_name)
    text = f"{before} {client.prompt}" if before else client.prompt
    attributes = text_attributes(Type.REPLY_MESSAGE, text) + attribute(Type.STATE, state)
    return Answer(Code.ACCESS_CHALLENGE, attributes, Outcome.CHALLENGED, "", login.attempt.event_id)


def timed_out(client: ClientSettings, event_id: str) -> Answer:
    """There was no verdict within the client's time."""
    if client.on_timeout is Refusal.SILENCE:
        return Answer(None, b"", Outcome.TIMED_OUT, "no verdict in time", event_id)
    said = text_attributes(Type.REPLY_MESSAGE, texts.DENIED)
    return Answer(Code.ACCESS_REJECT, said, Outcome.TIMED_OUT, "no verdict in time", event_id)


_EAP_FAILURE = 4


def refused(why: Unasked, eap: bytes | None = None) -> Answer:
    """A request that asks nothing that could be verified. EAP hears its own Failure (RFC 3748 section 4.2)."""
    attributes = text_attributes(Type.REPLY_MESSAGE, texts.DENIED)
    if why is Unasked.EAP_NOT_SPOKEN and eap is not None and len(eap) >= 2:
        attributes = attribute(Type.EAP_MESSAGE, bytes((_EAP_FAILURE, eap[1], 0, 4)))
    return Answer(Code.ACCESS_REJECT, attributes, Outcome.REJECTED, why)


def _rejected(text: str, reason: str, event_id: str) -> Answer:
    return Answer(Code.ACCESS_REJECT, text_attributes(Type.REPLY_MESSAGE, text), Outcome.REJECTED, reason, event_id)
