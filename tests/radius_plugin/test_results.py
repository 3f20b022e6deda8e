"""Which packet does a verdict become? Every verdict, every kind of client; what is given, to whom, and how much."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest

from mfa_core import texts
from mfa_core.model import Attempt, Door, FirstFactor
from mfa_core.secret import Secret
from mfa_core.verdict import Accepted, Challenge, Exempt, Exemption, Pending, Reason, Rejected, Unavailable, Unready, Verdict
from radius_plugin.request import Login, Unasked
from radius_plugin.results import (
    GROUPS_UNKNOWN,
    NOBODY_CHECKED,
    Answer,
    Dialogue,
    Outcome,
    answer_to,
    needs_groups,
    refused,
    reply_attributes,
    timed_out,
)
from radius_plugin.settings import ClientSettings, Refusal, ReplyRule
from radius_plugin.state import ATTEMPTS_MAX, KEY_SIZE, STATE_SIZE, Carried, StateSeal
from radius_plugin.wire import Code, Packet, Type, attribute, frame, parse
from tests.doubles import T0
from tests.radius_plugin.door_doubles import CLIENT, EVENT

SEAL = StateSeal([Secret(bytes(KEY_SIZE))], random=os.urandom)
OWNER = "vpn|192.0.2.9"
OURS, DONE, ELSEWHERE = FirstFactor.OURS, FirstFactor.DONE, FirstFactor.ELSEWHERE
_numbers = itertools.count(1)


def login(first: FirstFactor = ELSEWHERE, *, typed: bytes | None = b"x", carried: Carried | None = None) -> Login:
    secret = None if typed is None else Secret(typed)
    return Login(Attempt(EVENT, Door.RADIUS, "vpn", "alice", typed=secret, first_factor=first), b"alice", carried)


def answer(
    verdict: Verdict,
    client: ClientSettings = CLIENT,
    one: Login | None = None,
    *,
    rules: Collection[ReplyRule] = (),
    groups: Collection[str] | None = (),
) -> Answer:
    dialogue = Dialogue(SEAL, OWNER, lambda: f"{next(_numbers):026d}", T0, 120.0)
    found = answer_to(verdict, login() if one is None else one, client, dialogue, rules=tuple(rules), groups=groups)
    assert found is not None
    return found


def packet(one: Answer) -> Packet:
    """The attributes of an answer, as a packet that can be read."""
    assert one.code is not None
    return parse(frame(one.code, 1, bytes(16), one.attributes))


def said(one: Answer) -> str:
    return b"".join(packet(one).all(Type.REPLY_MESSAGE)).decode()


def carried_by(one: Answer) -> Carried:
    (state,) = packet(one).all(Type.STATE)
    assert len(state) == STATE_SIZE
    return SEAL.open(state, client=OWNER, user_name=b"alice", now=T0)


def test_an_accept_has_the_notices_and_the_attributes() -> None:
    rules = [ReplyRule(attribute(25, b"a") + attribute(25, b"b"))]
    one = answer(Accepted(EVENT, "totp", "totp:1", ("9 codes are left.",), Secret(b"pw"), user="alice"), rules=rules)
    assert (one.code, one.outcome, one.reason, one.user) == (Code.ACCESS_ACCEPT, Outcome.ACCEPTED, "totp", "alice")
    assert list(packet(one).attributes()) == [(18, b"9 codes are left."), (25, b"a"), (25, b"b")]
    assert "pw" not in repr(one)


@pytest.mark.parametrize("exemption", Exemption)
@pytest.mark.parametrize(
    ("first", "typed", "is_in"),
    [
        (DONE, b"x", True),
        (DONE, None, True),
        (OURS, b"x", True),
        (OURS, None, False),
        (ELSEWHERE, b"x", False),
        (ELSEWHERE, None, False),
    ],
)
def test_the_exempt_come_in_where_somebody_has_checked_a_password(
    first: FirstFactor, typed: bytes | None, is_in: bool, exemption: Exemption
) -> None:
    """No second factor is wanted of them; that is not no factor."""
    rules = [ReplyRule(attribute(25, b"a"))]
    one = answer(Exempt(EVENT, exemption, "rule", user="alice"), one=login(first, typed=typed), rules=rules)
    if is_in:
        assert (one.code, one.outcome, one.reason) == (Code.ACCESS_ACCEPT, Outcome.EXEMPT, exemption)
        assert packet(one).all(25) == [b"a"]
    else:
        assert (one.code, one.outcome, one.reason) == (Code.ACCESS_REJECT, Outcome.REJECTED, NOBODY_CHECKED)
        assert list(packet(one).attributes()) == [(18, texts.DENIED.encode())]


@pytest.mark.parametrize(("first", "done"), [(OURS, True), (DONE, True), (ELSEWHERE, False)])
def test_a_challenge_carries_what_was_proved(first: FirstFactor, done: bool) -> None:
    one = answer(Challenge(EVENT, (), 0.0), replace(CLIENT, prompt="Kode: "), login(first))
    assert (one.code, one.outcome) == (Code.ACCESS_CHALLENGE, Outcome.CHALLENGED)
    assert said(one) == "Kode: ", "pam_radius_auth wants State and Reply-Message"
    carried = carried_by(one)
    assert (carried.attempts, carried.first_factor_done, carried.expires_at) == (0, done, T0 + 120)
    assert carried_by(answer(Challenge(EVENT, (), 0.0), one=login(first))).challenge != carried.challenge


AGAIN = {
    Reason.MISMATCH, Reason.REPLAYED, Reason.MALFORMED, Reason.EMPTY, Reason.JUNK, Reason.NO_CODE, Reason.NEEDS_AUTHORITY,
}  # fmt: skip


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal_is_a_reject_and_in_a_dialogue_another_try_where_a_code_was_wrong(reason: Reason) -> None:
    verdict = Rejected(EVENT, reason, "Public text.")
    one = answer(verdict)
    assert (one.code, one.outcome, one.reason, said(one)) == (Code.ACCESS_REJECT, Outcome.REJECTED, reason, "Public text.")
    assert packet(one).all(Type.STATE) == []
    again = answer(verdict, one=login(DONE, carried=Carried("0" * 26, int(T0) + 9, 0, True)))
    if reason in AGAIN:
        assert (again.code, again.outcome, again.reason) == (Code.ACCESS_CHALLENGE, Outcome.CHALLENGED, reason)
        assert said(again) == "Public text. Verification code: "
        assert carried_by(again) == Carried(carried_by(again).challenge, int(T0) + 120, 1, True)
    else:
        assert again.code is Code.ACCESS_REJECT


def test_the_general_refusal_is_no_beginning_of_a_prompt() -> None:
    """"Access denied. Verification code:" contradicts itself. Unknown users get the same reason and text from the gate."""
    again = answer(Rejected(EVENT, Reason.MISMATCH), one=login(carried=Carried("0" * 26, int(T0) + 9)))
    assert said(again) == f"{texts.WRONG_CODE} Verification code: "


@pytest.mark.parametrize(
    ("most", "tried", "goes_on"), [(1, 0, False), (3, 0, True), (3, 1, True), (3, 2, False), (2, 9, False)]
)
def test_a_dialogue_tries_so_many_codes(most: int, tried: int, goes_on: bool) -> None:
    one = login(carried=Carried("0" * 26, int(T0) + 9, tried))
    found = answer(Rejected(EVENT, Reason.MISMATCH), replace(CLIENT, attempts=most), one)
    assert found.code is (Code.ACCESS_CHALLENGE if goes_on else Code.ACCESS_REJECT)


def test_a_dialogue_ends_where_the_state_cannot_count_on() -> None:
    for tried in (ATTEMPTS_MAX - 1, ATTEMPTS_MAX):
        one = login(carried=Carried("0" * 26, int(T0) + 9, tried))
        found = answer(Rejected(EVENT, Reason.MISMATCH), replace(CLIENT, attempts=10_000), one)
        assert found.code is (Code.ACCESS_CHALLENGE if tried < ATTEMPTS_MAX else Code.ACCESS_REJECT)


@pytest.mark.parametrize("refusal", Refusal)
@pytest.mark.parametrize("reason", Unready)
def test_no_decision_is_what_the_client_is_set_to_hear(refusal: Refusal, reason: Unready) -> None:
    one = answer(Unavailable(EVENT, reason), replace(CLIENT, on_unavailable=refusal))
    assert (one.outcome, one.reason) == (Outcome.UNAVAILABLE, reason)
    if refusal is Refusal.SILENCE or reason is Unready.OVERLOADED:
        assert (one.code, one.attributes) == (None, b"")
    else:
        assert one.code is Code.ACCESS_REJECT
        assert reason not in said(one)


@pytest.mark.parametrize("refusal", Refusal)
def test_no_verdict_in_time_is_what_the_client_is_set_to_hear(refusal: Refusal) -> None:
    one = timed_out(replace(CLIENT, on_timeout=refusal), EVENT)
    assert one.code is (Code.ACCESS_REJECT if refusal is Refusal.REJECT else None)
    assert one.outcome is Outcome.TIMED_OUT


def test_a_login_on_another_device_is_no_answer_yet() -> None:
    dialogue = Dialogue(SEAL, OWNER, lambda: EVENT, T0, 120.0)
    assert answer_to(Pending("p", "look", 0.0), login(), CLIENT, dialogue) is None


@pytest.mark.parametrize("why", Unasked)
def test_what_asks_nothing_hears_one_sentence(why: Unasked) -> None:
    one = refused(why)
    assert (one.code, one.reason) == (Code.ACCESS_REJECT, why)
    assert said(one) == texts.DENIED


# Reply attributes


def given(*rules: ReplyRule, **more: Any) -> bytes | None:
    asked: dict[str, Any] = {"client": "vpn", "user": "alice", "groups": {"staff"}, "policy_rule": "default", **more}
    return reply_attributes(rules, **asked)


@pytest.mark.parametrize(
    ("condition", "fits"),
    [
        ({}, True),
        ({"clients": {"vpn"}}, True),
        ({"clients": {"wifi"}}, False),
        ({"users": {"alice", "bob"}}, True),
        ({"users": {"Alice"}}, False),
        ({"groups": {"staff", "admins"}}, True),
        ({"groups": {"admins"}}, False),
        ({"policy_rules": {"default"}}, True),
        ({"policy_rules": {"strict"}}, False),
        ({"clients": {"vpn"}, "users": {"alice"}, "groups": {"staff"}, "policy_rules": {"default"}}, True),
        ({"clients": {"vpn"}, "users": {"bob"}, "groups": {"staff"}}, False),
    ],
)
def test_a_rule_gives_when_all_that_it_names_holds(condition: dict[str, set[str]], fits: bool) -> None:
    rule = ReplyRule(b"A", **{name: frozenset(values) for name, values in condition.items()})
    assert given(rule) == (b"A" if fits else b"")


def test_rules_give_in_order_up_to_one_that_is_the_last() -> None:
    a, b, c = ReplyRule(b"A"), ReplyRule(b"B", last=True), ReplyRule(b"C")
    assert given(a, b, c) == b"AB"
    assert given(replace(b, users=frozenset({"bob"})), a, c) == b"AC", "one that does not match ends nothing"


def test_unknown_groups_end_it_where_they_would_decide() -> None:
    """A rule for all that stands behind the one for a group may give more than that one was meant to."""
    staff, everybody = ReplyRule(b"S", groups=frozenset({"staff"}), last=True), ReplyRule(b"E")
    assert given(staff, everybody, groups=None) is None
    assert given(everybody, staff, groups=None) is None
    assert given(replace(everybody, last=True), staff, groups=None) == b"E", "it is not reached"
    assert given(replace(staff, clients=frozenset({"wifi"})), everybody, groups=None) == b"E"
    assert given(staff, everybody, groups=frozenset()) == b"E", "a user whom the directory does not know is in no group"


def test_an_accept_whose_attributes_are_not_known_is_none() -> None:
    rules = [ReplyRule(b"", groups=frozenset({"staff"}))]
    for verdict in (Accepted(EVENT, "totp", "totp:1", user="alice"), Exempt(EVENT, Exemption.USER, "", user="alice")):
        one = answer(verdict, replace(CLIENT, on_unavailable=Refusal.REJECT), login(DONE), rules=rules, groups=None)
        assert (one.code, one.outcome, one.reason) == (Code.ACCESS_REJECT, Outcome.UNAVAILABLE, GROUPS_UNKNOWN)


def test_groups_are_needed_where_a_rule_names_some() -> None:
    assert needs_groups([ReplyRule(b""), ReplyRule(b"", groups=frozenset({"g"}))])
    assert not needs_groups([ReplyRule(b"", users=frozenset({"u"}))])


def test_a_long_text_is_as_many_attributes_as_it_needs() -> None:
    one = answer(Rejected(EVENT, Reason.LOCKED, "ü" * 300))
    assert said(one) == "ü" * 300
    assert len(packet(one).all(Type.REPLY_MESSAGE)) == 3
