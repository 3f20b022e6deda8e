"""What happens to a request until it is answered: retransmits, retries from other ports, deadlines, slow and odd gates."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.model import FirstFactor
from mfa_core.verdict import Exempt, Exemption, Pending, Reason, Unready
from radius_plugin.exchange import MAX_JOINED
from radius_plugin.settings import EmptyPassword, Refusal, ReplyRule, RequireSignature
from tests.end_to_end.radius_packets import (
    ACCT_SESSION_ID,
    CALLING_STATION_ID,
    CHAP_CHALLENGE,
    CHAP_PASSWORD,
    FILTER_ID,
    STATE,
    USER_NAME,
    attribute,
    chap,
)
from tests.radius_plugin.door_doubles import (
    CHALLENGED,
    CLIENT,
    EVENT,
    OTHER,
    OTHER_NAS,
    PENDING,
    Bench,
    Sent,
    accepted,
    login,
    rejected,
    request,
    unavailable,
)

Benches = Callable[..., Bench]
ASKS = replace(CLIENT, empty_password=EmptyPassword.CHALLENGE)
JOINS = replace(CLIENT, join_retries=True)
SESSION = (ACCT_SESSION_ID, b"session-1")
STATION = (CALLING_STATION_ID, b"198.51.100.7")


@pytest.fixture
def bench() -> Iterator[Benches]:
    """Makes benches; closes them, and looks whether anything was left lying about."""
    made: list[Bench] = []

    def make(*clients: Any, **more: Any) -> Bench:
        made.append(Bench(*clients, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


def nothing_is_left(one: Bench) -> bool:
    """Whether every request is over and nothing remembers it but the answers."""
    exchange = one.exchange
    left = (exchange._deadlines, exchange._joined, exchange._places, exchange._places_of, exchange._tasks)
    return not exchange.under_way and not any(left)


# Retransmits (rows 36 to 39)


def test_the_same_datagram_while_it_is_pending_is_one_question_and_one_answer(bench: Benches) -> None:
    """Row 36."""
    one = bench()
    asked = login()
    assert [one.hear(asked) for _ in range(3)] == [[], [], []]
    assert one.asked == 1
    (sent,) = one.decide(accepted())
    assert sent.read(asked).what == "Accept"
    assert one.counts()["duplicate_pending"] == 2
    assert nothing_is_left(one)


def test_the_same_datagram_after_its_answer_gets_the_same_octets(bench: Benches) -> None:
    """Rows 37 and 44; BlastRADIUS (f): unsigned ones too."""
    one = bench(replace(CLIENT, require_message_authenticator=RequireSignature.NO))
    for identifier, sign in ((1, True), (2, False)):
        asked = login(identifier=identifier, sign=sign)
        one.hear(asked)
        sent = one.decide(accepted())
        assert one.hear(asked) == sent
    assert one.asked == 2


def test_the_same_code_in_another_packet_is_another_question(bench: Benches) -> None:
    """Row 38: that it is refused is the store's business."""
    one = bench()
    one.gate.at_once = accepted()
    assert one.one(login()).what == "Accept"
    one.gate.at_once = rejected(Reason.REPLAYED)
    assert one.one(login()).what == "Reject"


def test_another_request_under_the_same_number_takes_the_place_of_the_first(bench: Benches) -> None:
    """Row 39."""
    one = bench()
    old, new = login("alice"), login("bob")
    one.hear(old)
    one.hear(new)
    assert one.exchange.under_way == 1
    assert one.decide(accepted("alice"), 0) == []
    (sent,) = one.decide(rejected(), 1)
    assert sent.read(new).what == "Reject"
    assert one.counts()["superseded"] == 1
    assert nothing_is_left(one)


@pytest.mark.parametrize("change", [{"port": 40_001}, {"scope": 1}, {"address": OTHER_NAS}])
def test_the_same_number_from_elsewhere_is_another_request(bench: Benches, change: dict[str, Any]) -> None:
    one = bench(CLIENT, OTHER)
    one.hear(login("alice"))
    one.hear(login("bob"), **change)
    assert one.exchange.under_way == 2
    assert len(one.decide(accepted(), 0)) == 1
    assert len(one.decide(accepted(), 1)) == 1


def test_whoever_can_only_forge_an_address_cancels_nothing_that_is_signed(bench: Benches) -> None:
    one = bench(replace(CLIENT, require_message_authenticator=RequireSignature.NO))
    asked = login("alice")
    one.hear(asked)
    assert one.hear(login("mallory", sign=False)) == []
    assert one.asked == 1
    (sent,) = one.decide(accepted())
    assert sent.read(asked).what == "Accept"
    assert one.counts()["dropped_unsigned_conflict"] == 1


def test_a_forged_answer_cannot_be_laid_into_the_cache(bench: Benches) -> None:
    """What an off-path sender had answered is kept for his own octets alone."""
    one = bench(replace(CLIENT, require_message_authenticator=RequireSignature.NO))
    one.gate.at_once = rejected()
    one.hear(login("mallory", sign=False))
    one.gate.at_once = accepted()
    assert one.one(login("alice")).what == "Accept"


def test_over_the_rate_a_new_request_cancels_nothing(bench: Benches) -> None:
    one = bench(replace(CLIENT, requests_per_s=0.5))
    asked = login("alice")
    one.hear(asked)
    one.hear(login("bob"))
    (sent,) = one.decide(accepted(), 0)
    assert sent.read(asked).what == "Accept"


def test_answers_are_kept_for_the_retry_budget_and_forgotten_after_it(bench: Benches) -> None:
    one = bench(replace(CLIENT, retry_budget_s=50.0))
    one.gate.at_once = accepted()
    asked = login()
    sent = one.hear(asked)
    one.pass_time(49)
    assert one.hear(asked) == sent
    one.pass_time(60)
    assert one.asked == 1
    one.hear(asked)
    assert one.asked == 2


# The same login from a new port (row 40)


def retry(identifier: int = 1, *, session: bytes = b"session-1", **more: Any) -> bytes:
    """As openvpn-auth-radius does: same identifier, new authenticator."""
    return login("alice", "secret", (ACCT_SESSION_ID, session), STATION, identifier=identifier, **more)


def test_retries_from_new_ports_are_one_question_and_each_gets_its_own_answer(bench: Benches) -> None:
    one = bench(JOINS)
    tries = [retry() for _ in range(4)]
    for port, asked in enumerate(tries):
        assert one.hear(asked, port=port) == []
    assert one.asked == 1
    answers = one.decide(accepted())
    assert [sent.read(asked).what for sent, asked in zip(answers, tries, strict=True)] == ["Accept"] * 4
    assert [sent.to for sent in answers] == [("192.0.2.9", port) for port in range(4)]
    late = retry()
    assert one.one(late, port=9).what == "Accept", "within join_s of the answer"
    assert one.asked == 1
    assert one.counts()["joined"] == 4
    one.pass_time(11)
    assert nothing_is_left(one)
    one.hear(retry(), port=10)
    assert one.asked == 2


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(login("alice", "secret", (ACCT_SESSION_ID, b"session-2"), STATION), id="session"),
        pytest.param(login("alice", "secret", SESSION, (CALLING_STATION_ID, b"198.51.100.8")), id="station"),
        pytest.param(login("alice", "Secret", SESSION, STATION), id="password"),
        pytest.param(login("Alice", "secret", SESSION, STATION), id="name"),
        pytest.param(login("alice", "secret", SESSION, STATION, (32, b"gw2")), id="identifier-of-the-nas"),
        pytest.param(login("alice", "secret"), id="neither"),
    ],
)
@pytest.mark.parametrize("is_decided", [False, True])
def test_another_login_does_not_join(bench: Benches, other: bytes, is_decided: bool) -> None:
    one = bench(JOINS)
    one.hear(retry(), port=1)
    if is_decided:
        one.decide(accepted())
    one.hear(other, port=2)
    assert one.asked == 2


def test_the_same_login_at_another_address_of_the_client_does_not_join(bench: Benches) -> None:
    one = bench(replace(JOINS, network=ipaddress.ip_network("192.0.2.0/24")))
    one.hear(retry(), address="192.0.2.1")
    one.hear(retry(), address="192.0.2.2")
    assert one.asked == 2


def test_without_session_or_station_one_code_lets_one_in(bench: Benches) -> None:
    """Two people who typed the same at the same time are two."""
    one = bench(JOINS)
    one.hear(login("alice", "secret"), port=1)
    one.hear(login("alice", "secret"), port=2)
    assert one.asked == 2


def test_without_a_session_nothing_joins_an_answer(bench: Benches) -> None:
    one = bench(JOINS)
    one.hear(login("alice", "secret", STATION), port=1)
    one.hear(login("alice", "secret", STATION), port=2)
    assert one.asked == 1
    assert len(one.decide(accepted())) == 2
    one.hear(login("alice", "secret", STATION), port=3)
    assert one.asked == 2


def test_chap_does_not_join(bench: Benches) -> None:
    """Its digest fits its own challenge alone."""
    one = bench(JOINS)
    for port in (1, 2):
        digest = (CHAP_PASSWORD, chap(1, b"123456", b"c" * 16))
        challenge = (CHAP_CHALLENGE, (b"c" if port == 1 else b"d") * 16)
        one.hear(request((USER_NAME, b"alice"), digest, challenge, SESSION, STATION), port=port)
    assert one.asked == 2


def test_only_who_is_set_to_join_joins(bench: Benches) -> None:
    one = bench(CLIENT)
    one.hear(retry(), port=1)
    one.hear(retry(), port=2)
    assert one.asked == 2


def test_many_retries_are_still_one_question_and_the_newest_are_answered(bench: Benches) -> None:
    one = bench(JOINS)
    tries = [retry() for _ in range(MAX_JOINED + 5)]
    for port, asked in enumerate(tries):
        one.hear(asked, port=port)
    assert one.asked == 1
    answers = one.decide(accepted())
    assert [sent.to for sent in answers] == [("192.0.2.9", port) for port in range(5, MAX_JOINED + 5)]
    one.pass_time(11)
    assert nothing_is_left(one)


def test_the_first_may_be_given_up_while_its_retry_waits(bench: Benches) -> None:
    """The client has used the identifier and the port of the first for another login."""
    one = bench(JOINS)
    second = retry()
    one.hear(retry(), port=1)
    one.hear(second, port=2)
    one.hear(login("bob", "other", (ACCT_SESSION_ID, b"9")), port=1)
    (sent,) = one.decide(accepted(), 0)
    assert sent.read(second).what == "Accept"
    assert len(one.decide(accepted(), 1)) == 1


def test_the_first_may_be_given_up_while_it_is_polled_and_its_retry_hears(bench: Benches) -> None:
    one = bench(JOINS)
    second = retry()
    one.hear(retry(), port=1)
    one.decide(PENDING)
    one.hear(second, port=2)
    one.hear(login("bob", "other", (ACCT_SESSION_ID, b"9")), port=1)
    one.pass_time(2)
    assert one.gate.attempts[-1].challenge_id == PENDING.id
    (sent,) = one.decide(accepted())
    assert sent.read(second).what == "Accept"


def test_who_has_joined_waits_no_longer_than_the_first_would_have(bench: Benches) -> None:
    one = bench(JOINS, decision_s=30.0)
    second = retry()
    one.hear(retry(), port=1)
    one.pass_time(20)
    one.hear(second, port=2)
    one.hear(login("bob", "other"), port=1)
    one.pass_time(9)
    assert one.sent == []
    one.pass_time(2)
    assert [sent.read(second).what for sent in one.sent] == ["Reject"]


def test_an_answer_is_joined_until_its_time_is_over_and_not_until_somebody_looks(bench: Benches) -> None:
    one = bench(JOINS, join_s=10.0)
    one.gate.at_once = accepted()
    one.hear(retry(), port=1)
    one.monotonic.advance(9.99)
    assert one.one(retry(), port=2).what == "Accept"
    assert one.asked == 1
    one.monotonic.advance(0.02)
    one.hear(retry(), port=3)
    assert one.asked == 2


def test_a_login_that_nobody_waits_for_answers_the_retry_that_comes_after(bench: Benches) -> None:
    one = bench(JOINS)
    one.hear(retry(), port=1)
    one.hear(login("bob", "other", (ACCT_SESSION_ID, b"9")), port=1)
    assert one.decide(accepted(), 0) == []
    assert one.one(retry(), port=2).what == "Accept"
    assert one.asked == 2


def test_a_pending_login_that_nobody_waits_for_is_let_go(bench: Benches) -> None:
    one = bench(JOINS)
    one.hear(retry(), port=1)
    one.decide(PENDING)
    one.hear(login("bob", "other"), port=1)
    one.decide(rejected())
    one.pass_time(40)
    assert one.asked == 2, "it is not asked after any more"
    assert nothing_is_left(one)


def test_a_decision_that_was_none_is_asked_again_by_the_retry(bench: Benches) -> None:
    for refusal in Refusal:
        one = bench(replace(JOINS, on_unavailable=refusal))
        one.hear(retry(), port=1)
        one.decide(unavailable())
        one.hear(retry(), port=2)
        assert one.asked == 2


def test_joined_logins_are_bounded(bench: Benches) -> None:
    one = bench(JOINS, max_in_flight=10)
    one.gate.at_once = rejected()
    for number in range(200):
        one.hear(retry(session=b"%d" % number, identifier=number), port=number)
    assert len(one.exchange._joined) <= 10


# Time


def test_a_login_on_another_device_is_one_question_and_one_accept(bench: Benches) -> None:
    """Row 45: 25 s pending, asked after once a second, retransmitted every 5 s."""
    one = bench(replace(CLIENT, wait_s=28.0))
    one.gate.at_once = PENDING
    asked = login()
    answers: list[Sent] = one.hear(asked)
    for _ in range(5):
        one.pass_time(5)
        answers += one.hear(asked)
    assert answers == []
    one.gate.at_once = accepted()
    one.pass_time(2)
    assert [sent.read(asked).what for sent in one.sent] == ["Accept"]
    begins = [attempt for attempt in one.gate.attempts if attempt.challenge_id != PENDING.id]
    assert len(begins) == 1
    assert 24 <= one.asked <= 28
    assert all(attempt.typed is None for attempt in one.gate.attempts[1:]), "what was typed is not asked about again"
    assert nothing_is_left(one)


@pytest.mark.parametrize("joins", [False, True])
@pytest.mark.parametrize("on_timeout", Refusal)
def test_a_device_that_nobody_answers_ends_with_the_clients_patience(
    bench: Benches, on_timeout: Refusal, joins: bool
) -> None:
    """Row 46."""
    one = bench(replace(JOINS, wait_s=5.0, on_timeout=on_timeout, join_retries=joins))
    one.gate.at_once = PENDING
    asked = retry()
    one.hear(asked)
    one.pass_time(4)
    assert one.sent == []
    one.pass_time(2)
    assert [sent.read(asked).what for sent in one.sent] == (["Reject"] if on_timeout is Refusal.REJECT else [])
    assert one.counts()["timed_out"] == 1
    questions = one.asked
    one.pass_time(15)
    assert one.asked == questions, "nobody is asked any more"
    assert nothing_is_left(one)


@pytest.mark.parametrize("joins_before", [True, False])
def test_a_device_may_take_longer_than_a_decision(bench: Benches, joins_before: bool) -> None:
    """``decision_s`` is for backends; a person has ``wait_s``, and so has every retry that has joined."""
    one = bench(replace(JOINS, wait_s=60.0))
    one.gate.at_once = PENDING
    first, second = retry(), retry()
    if joins_before:
        one.gate.at_once = None
        one.hear(first, port=1)
        one.hear(second, port=2)
        one.gate.at_once = PENDING
        one.decide(PENDING)
    else:
        one.hear(first, port=1)
        one.hear(second, port=2)
    one.pass_time(50)
    one.gate.at_once = accepted()
    one.pass_time(2)
    assert [sent.read(asked).what for sent, asked in zip(one.sent, (first, second), strict=True)] == ["Accept"] * 2


@pytest.mark.parametrize("on_timeout", Refusal)
def test_a_gate_that_never_answers_ends_with_the_deadline(bench: Benches, on_timeout: Refusal) -> None:
    one = bench(replace(CLIENT, on_timeout=on_timeout), decision_s=7.0)
    asked = login()
    one.hear(asked)
    one.pass_time(6.5)
    assert one.sent == []
    one.pass_time(1)
    assert [sent.read(asked).what for sent in one.sent] == (["Reject"] if on_timeout is Refusal.REJECT else [])
    one.hear(asked)
    assert one.asked == (1 if on_timeout is Refusal.REJECT else 2), "silence keeps nothing"


def test_a_late_verdict_is_told_to_nobody(bench: Benches) -> None:
    one = bench()
    asked = login()
    one.hear(asked)
    one.pass_time(31)
    (reject,) = one.sent
    assert one.decide(accepted()) == []
    assert one.hear(asked) == [reject]
    assert nothing_is_left(one)


def test_a_second_verdict_is_told_to_nobody(bench: Benches) -> None:
    one = bench()
    asked = login()
    one.hear(asked)
    (reject,) = one.decide(rejected())
    assert one.decide(accepted()) == []
    assert one.hear(asked) == [reject]
    assert one.counts().get("accepted", 0) == 0
    assert nothing_is_left(one)


def test_a_second_verdict_while_the_first_is_worked_on_is_told_to_nobody(bench: Benches) -> None:
    one = bench(reply_rules=(ReplyRule(b"", groups=frozenset({"staff"})),))
    one.hear(login())
    _, answer = one.gate.questions[0]

    async def both() -> None:
        answer(accepted())
        answer(accepted())

    one.run(both())
    one.turn()
    assert len(one.sent) == 1
    assert one.groups.asked == ["alice"]


def test_a_gate_that_raises_leaves_nothing_behind(bench: Benches, caplog: pytest.LogCaptureFixture) -> None:
    one = bench(JOINS)
    one.gate.breaks = RuntimeError("out of order")
    assert one.hear(retry()) == []
    assert nothing_is_left(one)
    assert "out of order" in caplog.text
    one.gate.breaks = None
    one.gate.at_once = accepted()
    assert one.one(retry(), port=2).what == "Accept"


def test_a_gate_that_raises_when_it_is_asked_again_ends_with_the_request(
    bench: Benches, caplog: pytest.LogCaptureFixture
) -> None:
    one = bench()
    one.hear(login())
    one.gate.breaks = RuntimeError("out of order")
    one.decide(PENDING)
    one.pass_time(2)
    assert "could not be asked after" in caplog.text
    assert nothing_is_left(one)


def test_a_verdict_that_cannot_be_told_costs_one_request(
    bench: Benches, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = bench()
    one.hear(login())
    monkeypatch.setattr("radius_plugin.exchange.answer_to", lambda *_, **__: 1 / 0)
    assert one.decide(accepted()) == []
    assert "could not be told" in caplog.text
    assert nothing_is_left(one)


def test_a_deadline_that_breaks_leaves_those_of_others(
    bench: Benches, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = bench()
    one.hear(login(identifier=1))
    second = login(identifier=2)
    one.hear(second)
    real = one.journal.write

    def breaks_once(**fields: object) -> None:
        monkeypatch.setattr(one.journal, "write", real)
        raise ValueError("a journal that breaks")

    monkeypatch.setattr(one.journal, "write", breaks_once)
    one.pass_time(31)
    assert [sent.read(second).what for sent in one.sent] == ["Reject"]
    assert one.exchange.under_way == 0


@pytest.mark.parametrize(
    ("reason", "refusal", "expected"),
    [
        (Unready.STORE, Refusal.SILENCE, None),
        (Unready.STORE, Refusal.REJECT, "Reject"),
        (Unready.OVERLOADED, Refusal.REJECT, None),
        (Unready.BACKEND, Refusal.REJECT, "Reject"),
    ],
)
def test_no_decision_is_silence_or_a_reject(
    bench: Benches, reason: Unready, refusal: Refusal, expected: str | None
) -> None:
    """Row 47. After silence the next copy is asked anew: the store may be back."""
    one = bench(replace(CLIENT, on_unavailable=refusal))
    one.gate.at_once = unavailable(reason)
    asked = login()
    sent = one.hear(asked)
    assert [answer.read(asked).what for answer in sent] == ([] if expected is None else [expected])
    one.gate.at_once = accepted()
    assert one.one(asked).what == ("Accept" if expected is None else "Reject")


# Challenges (rows 42 to 44)


def challenge_of(one: Bench, name: str = "alice", **more: Any) -> bytes:
    """A State for this user."""
    one.gate.at_once = CHALLENGED
    return one.one(login(name, "", identifier=100), **more).state


def test_a_dialogue_asks_again_after_a_wrong_code_with_another_state(bench: Benches) -> None:
    """Row 43."""
    one = bench(replace(ASKS, attempts=3))
    states = [challenge_of(one)]
    one.gate.at_once = rejected()
    for identifier in (1, 2):
        answer = one.one(login("alice", "000000", (STATE, states[-1]), identifier=identifier))
        assert answer.what == "Challenge"
        assert answer.text == "This code was not right. Verification code: "
        states.append(answer.state)
    ids = [attempt.challenge_id for attempt in one.gate.attempts[1:]]
    assert len(set(states)) == 3
    assert len(set(ids)) == 2
    one.gate.at_once = accepted()
    assert one.one(login("alice", "123456", (STATE, states[-1]), identifier=3)).what == "Accept"


def test_a_dialogue_ends_when_its_codes_are_used_up(bench: Benches) -> None:
    """Row 43, n+1."""
    one = bench(replace(ASKS, attempts=3))
    state = challenge_of(one)
    one.gate.at_once = rejected()
    heard = []
    for identifier in range(1, 4):
        answer = one.one(login("alice", "000000", (STATE, state), identifier=identifier))
        heard.append(answer.what)
        if answer.what == "Challenge":
            state = answer.state
    assert heard == ["Challenge", "Challenge", "Reject"]


def test_an_answer_to_a_challenge_is_retransmitted(bench: Benches) -> None:
    """Row 44."""
    one = bench(ASKS)
    asked = login("alice", "123456", (STATE, challenge_of(one)))
    one.gate.at_once = accepted()
    first = one.hear(asked)
    assert one.hear(asked) == first
    assert one.asked == 2


def test_a_state_opens_for_its_client_user_and_time_alone(bench: Benches) -> None:
    """Row 42: that it opens once is the store's business, which is told its id and its end."""
    one = bench(ASKS, replace(OTHER, empty_password=EmptyPassword.CHALLENGE))
    state = challenge_of(one)
    one.gate.at_once = accepted()
    asked = one.asked
    for identifier, (name, address) in enumerate((("bob", "192.0.2.9"), ("Alice", "192.0.2.9"), ("alice", OTHER_NAS))):
        answer = one.one(login(name, "123456", (STATE, state), identifier=identifier), address=address)
        assert answer.what == "Reject"
    assert one.asked == asked
    assert one.counts()["unknown_challenge"] == 2
    one.clock.advance(119)
    assert one.one(login("alice", "123456", (STATE, state), identifier=8)).what == "Accept"
    attempt = one.gate.attempts[-1]
    assert attempt.challenge_id
    assert attempt.challenge_until == one.clock() + 1
    one.clock.advance(1)
    assert one.one(login("alice", "123456", (STATE, state), identifier=9)).what == "Reject"
    assert one.journal.lines[-1]["reason"] == "expired_challenge"


@given(st.binary(max_size=60))
def test_no_state_but_ours_opens(octets: bytes) -> None:
    """Row 31."""
    one = Bench(ASKS)
    try:
        assert one.one(login("alice", "123456", (STATE, octets))).what == "Reject"
        assert one.asked == 0
        assert one.journal.lines[-1]["reason"] == "unknown_challenge"
    finally:
        one.close()


def test_another_worker_opens_the_state(bench: Benches) -> None:
    """Row 48, the part that is the door's."""
    state = challenge_of(bench(ASKS))
    another = bench(ASKS)
    another.gate.at_once = accepted()
    assert another.one(login("alice", "123456", (STATE, state))).what == "Accept"


# Groups


STAFF = ReplyRule(attribute(FILTER_ID, b"staff"), groups=frozenset({"staff"}), last=True)
EVERYBODY = ReplyRule(attribute(FILTER_ID, b"all"))


@pytest.mark.parametrize(("groups", "given_"), [({"staff"}, b"staff"), (set(), b"all"), ({"other"}, b"all")])
def test_reply_attributes_follow_groups(bench: Benches, groups: set[str], given_: bytes) -> None:
    one = bench(reply_rules=(STAFF, EVERYBODY))
    one.groups.by_user = {"alice": frozenset(groups)}
    one.gate.at_once = accepted()
    assert one.one(login()).all(FILTER_ID) == [given_]


@pytest.mark.parametrize(
    "verdict", [accepted(), Exempt(EVENT, Exemption.POLICY, "rule", user="alice")], ids=["accepted", "exempt"]
)
def test_where_groups_are_not_known_nobody_gets_the_attributes_of_all(bench: Benches, verdict: Any) -> None:
    one = bench(
        replace(CLIENT, on_unavailable=Refusal.REJECT, first_factor=FirstFactor.DONE), reply_rules=(STAFF, EVERYBODY)
    )
    one.groups.by_user = None
    one.gate.at_once = verdict
    answer = one.one(login())
    assert answer.what == "Reject"
    assert answer.all(FILTER_ID) == []
    assert one.journal.lines[-1]["reason"] == "groups_unknown"


def test_where_groups_do_not_matter_for_this_login_unknown_ones_do_no_harm(bench: Benches) -> None:
    one = bench(reply_rules=(replace(STAFF, clients=frozenset({"another"})), EVERYBODY))
    one.groups.by_user = None
    one.gate.at_once = accepted()
    assert one.one(login()).all(FILTER_ID) == [b"all"]


def test_a_directory_that_breaks_costs_one_request(bench: Benches, caplog: pytest.LogCaptureFixture) -> None:
    one = bench(reply_rules=(STAFF,))
    one.groups.breaks = RuntimeError("directory out of order")
    one.gate.at_once = accepted()
    assert one.hear(login()) == []
    assert "directory out of order" in caplog.text
    assert nothing_is_left(one)


def test_groups_that_come_after_the_deadline_are_told_to_nobody(bench: Benches) -> None:
    one = bench(reply_rules=(STAFF,))
    asked = login()
    one.hear(asked)
    gone: list[asyncio.Future[None]] = []

    async def slow(name: str) -> frozenset[str]:
        gone.append(asyncio.get_running_loop().create_future())
        await gone[0]
        return frozenset({"staff"})

    one.groups.groups_of = slow  # type: ignore[method-assign]
    one.decide(accepted())
    one.pass_time(31)
    assert [sent.read(asked).what for sent in one.sent] == ["Reject"]

    async def come() -> None:
        gone[0].set_result(None)

    one.run(come())
    one.turn()
    assert len(one.sent) == 1
    assert nothing_is_left(one)


# The end


def test_drain_waits_for_the_answers_under_way(bench: Benches) -> None:
    one = bench()
    asked = login()
    one.hear(asked)

    async def drained() -> None:
        asyncio.get_running_loop().call_soon(one.gate.questions[0][1], accepted())
        await one.exchange.drain(60.0)

    real = one.loop.time
    one.loop.time = lambda: real() + (one.monotonic.advance(0.02) or 0.0)  # type: ignore[method-assign]
    one.run(drained())
    assert [sent.read(asked).what for sent in one.sent] == ["Accept"]


def test_drain_gives_up_on_what_is_never_answered(bench: Benches) -> None:
    one = bench()
    one.hear(login())
    real = one.loop.time
    one.loop.time = lambda: real() + (one.monotonic.advance(0.02) or 0.0)  # type: ignore[method-assign]
    one.run(one.exchange.drain(5.0))
    assert one.exchange.under_way == 1


# All together


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["new", "again", "retry", "decide", "pending", "lost", "time", "reload"]),
            st.integers(0, 3),
            st.integers(0, 2),
        ),
        max_size=40,
    )
)
def test_whatever_happens_answers_are_to_requests_that_came_and_nothing_is_left(steps: list[tuple[str, int, int]]) -> None:
    """And there is never more under way than there is room for."""
    logging.disable(logging.CRITICAL)
    one = Bench(replace(JOINS, wait_s=6.0), max_in_flight=6, decision_s=8.0)
    try:
        logins: list[bytes] = []
        for what, first, second in steps:
            before = len(one.sent)
            match what:
                case "new":
                    logins.append(login(f"user{first}", "secret", (ACCT_SESSION_ID, b"%d" % second), identifier=first))
                    one.hear(logins[-1], port=second)
                case "again" if logins:
                    octets = logins[first % len(logins)]
                    one.hear(octets, port=second)
                case "retry":
                    logins.append(retry(identifier=first))
                    one.hear(logins[-1], port=second)
                case "decide" | "pending" | "lost" if one.asked:
                    verdict = {"decide": accepted(), "pending": Pending("p", "", 0.0), "lost": unavailable()}[what]
                    one.decide(verdict, first * 3 % one.asked)
                case "time":
                    one.pass_time(1 + 4 * second)
                case "reload":
                    one.exchange.reload(one.settings)
            for sent in one.sent[before:]:
                assert any(_is_answer(sent, asked) for asked in logins)
            assert one.exchange.under_way <= 6
            assert one.exchange._places <= 6
        for number in range(one.asked):
            one.decide(rejected(), number)
        one.gate.at_once = rejected()
        one.pass_time(30)
        assert nothing_is_left(one)
    finally:
        logging.disable(logging.NOTSET)
        one.close()


def _is_answer(sent: Sent, asked: bytes) -> bool:
    try:
        sent.read(asked)
    except AssertionError:
        return False
    return True
