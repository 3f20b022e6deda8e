"""FreeRADIUS's requests through the same exchange as packets: what is asked of the gate, and what FreeRADIUS hears."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pytest

from mfa_core.model import Attempt, Interaction
from mfa_core.secret import Secret
from mfa_core.verdict import Accepted, Challenge, Pending, Reason, Rejected, Unavailable, Unready, Verdict
from radius_plugin.exchange import Exchange
from radius_plugin.freeradius.messages import PluginAccounting, PluginReply, PluginRequest, ReplyKind
from radius_plugin.freeradius.through_exchange import ThroughExchange
from radius_plugin.settings import (
    ClientSettings,
    EmptyPassword,
    Mode,
    RadiusDoorSettings,
    Refusal,
    ReplyRule,
)
from radius_plugin.state import KEY_SIZE, StateSeal

PATIENCE_S = 30.0
T = TypeVar("T")
HERE = ClientSettings("freeradius", ipaddress.ip_network("::/0"), (), empty_password=EmptyPassword.CHALLENGE)
KNOWN = replace(
    HERE,
    name="wifi",
    network=ipaddress.ip_network("192.0.2.9"),
    secrets=(Secret(b"nobody uses this"),),
    mode=Mode.MFA_ONLY,
    on_unavailable=Refusal.REJECT,
)
ASKED = PluginRequest(user_name=b"alice", source="192.0.2.1", wait_s=25, client="vpn", password=Secret(b"123456"))
FILTER = b"\x0b\x05vpn"


@dataclass
class Gate:
    """Answers with what it is told to, in turn; asked for more, it never answers."""

    verdicts: list[Verdict] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)

    async def decide(self, attempt: Attempt) -> Verdict:
        raise NotImplementedError

    def ask(self, attempt: Attempt, answer: Callable[[Verdict], None]) -> None:
        self.attempts.append(attempt)
        if self.verdicts:
            asyncio.get_running_loop().call_soon(answer, self.verdicts.pop(0))


class Groups:
    async def groups_of(self, user: str) -> frozenset[str] | None:
        return frozenset()


class Signers:
    def has_signed(self, client: str) -> bool:
        return False

    def remember(self, client: str) -> None:
        raise AssertionError("nothing is signed here")


@dataclass
class Journal:
    lines: list[dict[str, object]] = field(default_factory=list)

    def write(self, **fields: object) -> None:
        self.lines.append(fields)


class Setting:
    """An exchange, what stands before and behind it, and the clock of its deadlines."""

    def __init__(self, *verdicts: Verdict, **more: Any) -> None:
        self.gate = Gate(list(verdicts))
        self.journal = Journal()
        self.now = 1000.0
        rules = (ReplyRule(FILTER),)
        self.settings = RadiusDoorSettings(listen=(), clients=(KNOWN,), reply_rules=rules, **more)
        numbers = iter(range(1, 1000))
        journal: Any = self.journal
        self.exchange = Exchange(
            self.settings,
            self.gate,
            seal=StateSeal([Secret(bytes(KEY_SIZE))], random=lambda size: bytes(size)),
            groups=Groups(),
            signers=Signers(),
            clock=lambda: 1_700_000_000.0,
            monotonic=lambda: self.now,
            new_event_id=lambda: f"{next(numbers):026d}",
            journal=journal,
        )
        self.through = ThroughExchange(self.exchange, HERE)

    def answer(self, request: PluginRequest = ASKED) -> PluginReply:
        return run(self.through.answer(request))


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(coroutine, PATIENCE_S)

    return asyncio.run(bounded())


def accepted(**more: Any) -> Accepted:
    return Accepted("0" * 26, "totp", "1", user="alice", **more)


def test_an_accepted_login_brings_the_reply_attributes_and_the_notices() -> None:
    setting = Setting(accepted(notices=("3 codes left",)))
    assert setting.answer() == PluginReply(ReplyKind.ACCEPT, ("3 codes left",), b"", FILTER)
    (attempt,) = setting.gate.attempts
    assert (attempt.username, attempt.service, attempt.client) == ("alice", "freeradius", "freeradius")
    assert attempt.typed is not None
    assert attempt.typed.reveal() == b"123456"
    assert setting.journal.lines[0]["nas"] == "192.0.2.1"
    assert setting.through.counts["accepted"] == 1


def test_a_refused_login_brings_the_public_text_alone() -> None:
    assert Setting(Rejected("0" * 26, Reason.LOCKED)).answer() == PluginReply(ReplyKind.REJECT, ("Access denied.",))


def test_silence_is_told_at_once_and_not_waited_for() -> None:
    """The clock of the exchange stands still: no deadline of its own ends this."""
    setting = Setting(Unavailable("0" * 26, Unready.STORE))
    assert setting.answer() == PluginReply(ReplyKind.NO_ANSWER)
    assert setting.exchange.under_way == 0


def test_a_dropped_request_is_told_at_once() -> None:
    setting = Setting(accepted(), max_in_flight=0)
    assert setting.answer() == PluginReply(ReplyKind.NO_ANSWER)
    assert setting.gate.attempts == []


def test_a_verdict_that_does_not_come_is_the_exchange_s_deadline() -> None:
    setting = Setting()

    async def test() -> PluginReply:
        answering = asyncio.create_task(setting.through.answer(ASKED))
        while not setting.gate.attempts:  # noqa: ASYNC110  the gate is no event
            await asyncio.sleep(0)
        setting.now += 31.0
        setting.exchange.sweep()
        return await answering

    assert run(test()).kind is ReplyKind.REJECT


def test_an_out_of_band_factor_is_waited_for_less_long_than_the_module_waits() -> None:
    setting = Setting(Pending("p", "look at your phone", 0.0), accepted())
    assert setting.answer(replace(ASKED, wait_s=10)).kind is ReplyKind.ACCEPT
    first, second = setting.gate.attempts
    assert first.wait_s == 9.0
    assert second.challenge_id == "p"


def test_a_challenge_is_asked_and_its_answer_read() -> None:
    setting = Setting(Challenge("c", (), 0.0), accepted())
    asked = setting.answer(replace(ASKED, password=Secret(b"")))
    assert (asked.kind, asked.messages, asked.attributes) == (ReplyKind.CHALLENGE, ("Verification code: ",), b"")
    assert setting.answer(replace(ASKED, state=asked.state)).kind is ReplyKind.ACCEPT
    assert setting.gate.attempts[1].challenge_id == "0" * 24 + "02"


def test_where_no_question_can_be_asked_the_gate_hears_of_it() -> None:
    setting = Setting(accepted(), accepted())
    setting.answer()
    setting.answer(replace(ASKED, challenges=False, inner=True))
    assert [one.interaction for one in setting.gate.attempts] == [Interaction.CHALLENGES, Interaction.ONE_SHOT]


def test_an_empty_password_in_a_tunnel_is_refused_unasked() -> None:
    setting = Setting()
    assert setting.answer(replace(ASKED, password=Secret(b""), challenges=False)).kind is ReplyKind.REJECT
    assert setting.gate.attempts == []


@pytest.mark.parametrize(
    "request_",
    [
        replace(ASKED, user_name=b""),
        replace(ASKED, password=None),
        replace(ASKED, password=Secret(b"x" * 129)),
        replace(ASKED, password=Secret(b"1\x0023456")),
        replace(ASKED, password=None, chap_password=Secret(bytes(17))),
        replace(ASKED, chap_password=Secret(bytes(17)), chap_challenge=bytes(16)),
        replace(ASKED, state=b"junk"),
    ],
    ids=["nobody", "nothing", "long", "nul", "chap-without-challenge", "pap-and-chap", "state"],
)
def test_what_cannot_be_a_login_is_refused_unasked(request_: PluginRequest) -> None:
    setting = Setting(accepted())
    assert setting.answer(replace(request_, challenges=False)).kind is ReplyKind.REJECT
    assert setting.gate.attempts == []


def test_chap_is_verified_by_the_code_that_the_gate_tries() -> None:
    setting = Setting(accepted())
    answer = hashlib.md5(b"\x05" + b"123456" + bytes(16)).digest()
    setting.answer(
        replace(ASKED, client="wifi", password=None, chap_password=Secret(b"\x05" + answer), chap_challenge=bytes(16))
    )
    (attempt,) = setting.gate.attempts
    assert attempt.veiled is not None
    assert attempt.veiled("123456")
    assert not attempt.veiled("123457")


def test_a_client_of_ours_by_name_has_its_own_settings() -> None:
    setting = Setting(Unavailable("0" * 26, Unready.STORE))
    reply = setting.answer(replace(ASKED, client="wifi"))
    assert reply.kind is ReplyKind.REJECT, "it wants to hear of it"
    assert setting.gate.attempts[0].service == "wifi"
    assert setting.exchange.counts_by_client()["wifi"]["unavailable"] == 1


def test_other_settings_hold_from_the_next_request_on() -> None:
    setting = Setting(Unavailable("0" * 26, Unready.STORE), Unavailable("0" * 26, Unready.STORE))
    assert setting.answer().kind is ReplyKind.NO_ANSWER
    setting.through.reload(replace(HERE, on_unavailable=Refusal.REJECT))
    assert setting.answer().kind is ReplyKind.REJECT


def test_the_device_s_address_is_known_to_the_gate() -> None:
    setting = Setting(accepted())
    setting.answer(replace(ASKED, calling_station=b"203.0.113.9", nas_address="2001:db8::1"))
    assert setting.gate.attempts[0].source == "203.0.113.9"


def test_no_two_requests_are_taken_for_one() -> None:
    setting = Setting(accepted(), Rejected("0" * 26, Reason.REPLAYED))
    assert setting.answer().kind is ReplyKind.ACCEPT
    assert setting.answer().kind is ReplyKind.REJECT


def test_an_accounting_record_is_logged_with_its_numbers() -> None:
    setting = Setting()
    record = PluginAccounting(
        status=2,
        source="192.0.2.1",
        user_name=b"alice",
        session_id=b"s1",
        calling_station=b"203.0.113.9",
        session_time_s=33,
        input_octets=(1 << 32) + 5,
        terminate_cause=1,
        framed_address="10.0.0.1",
    )
    assert run(setting.through.account(record))
    (line,) = setting.journal.lines
    assert {
        "kind": "accounting",
        "client": "freeradius",
        "status": "stop",
        "user": "alice",
        "session": "s1",
    }.items() <= line.items()
    assert (line["session_seconds"], line["terminate_cause"]) == (33, 1)
    assert run(setting.through.account(PluginAccounting(status=7, source="2001:db8::2", framed_address="2001:db8::3")))
