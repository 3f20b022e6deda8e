"""One request through the exchange: which packets are believed, in which order things are done, what is counted and said."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.secret import Secret
from radius_plugin import exchange as exchange_module
from radius_plugin.settings import EmptyPassword, Purpose, RequireSignature, SignReplies
from tests.end_to_end.radius_packets import (
    ACCOUNTING_REQUEST,
    ACCT_SESSION_ID,
    ACCT_STATUS_TYPE,
    EAP_MESSAGE,
    MESSAGE_AUTHENTICATOR,
    PROXY_STATE,
    START,
    STATE,
    USER_NAME,
    attribute,
    packet,
)
from tests.radius_plugin.door_doubles import (
    ACCOUNTING,
    BOTH,
    CHALLENGED,
    CLIENT,
    NAS,
    OTHER,
    OTHER_NAS,
    SECRET,
    STRANGER,
    Bench,
    accepted,
    accounting,
    login,
    new_authenticator,
    rejected,
    request,
    status,
)

LAX = replace(CLIENT, require_message_authenticator=RequireSignature.NO)
LEARNS = replace(CLIENT, require_message_authenticator=RequireSignature.AUTO)
WRONG = b"not the secret of the test"
OLD = b"the secret of last year"

Benches = Callable[..., Bench]


@pytest.fixture
def bench() -> Iterator[Benches]:
    """Makes benches; closes them."""
    made: list[Bench] = []

    def make(*clients: Any, **more: Any) -> Bench:
        made.append(Bench(*clients, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


# The order of checks


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which of the costly steps were taken, by name."""
    taken: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **more: Any) -> Any:
            taken.append(name)
            return real(*arguments, **more)

        return step

    for name in ("parse", "read_login"):
        monkeypatch.setattr(exchange_module, name, counted(name, getattr(exchange_module, name)))
    shared = exchange_module.SharedSecret
    for name in ("signed", "reveal", "reply", "accounting_request_is_good"):
        monkeypatch.setattr(shared, name, counted(name, getattr(shared, name)))
    return taken


def test_nothing_is_done_for_a_stranger(bench: Benches, costs: list[str]) -> None:
    one = bench()
    for _ in range(3):
        assert one.hear(login(), address=STRANGER) == []
    assert costs == []
    assert one.asked == 0
    assert one.exchange.counts == {"unknown_client": 3}
    assert one.counts() == {}


def test_a_retransmit_of_an_answered_request_is_not_even_parsed(bench: Benches, costs: list[str]) -> None:
    one = bench()
    one.gate.at_once = accepted()
    asked = login()
    first = one.hear(asked)
    costs.clear()
    assert one.hear(asked) == first
    assert costs == []
    assert one.asked == 1


def test_what_is_no_packet_costs_no_digest(bench: Benches, costs: list[str]) -> None:
    one = bench()
    assert one.hear(login()[:-1]) == []
    assert costs == ["parse"]


def test_a_wrong_signature_reveals_nothing(bench: Benches, costs: list[str]) -> None:
    one = bench()
    assert one.hear(login(secret=WRONG)) == []
    assert costs == ["parse", "signed"]
    assert one.counts() == {"dropped_bad_message_authenticator": 1}


def test_what_is_over_the_rate_is_not_read(bench: Benches, costs: list[str]) -> None:
    one = bench(replace(CLIENT, requests_per_s=1.0))
    one.gate.at_once = rejected()
    for identifier in range(2):
        assert one.one(login(identifier=identifier)).what == "Reject"
    costs.clear()
    assert one.hear(login(identifier=9)) == []
    assert costs == ["parse", "signed"]
    assert one.counts()["dropped_rate"] == 1


@pytest.mark.parametrize("size", range(20))
def test_what_is_shorter_than_a_header_is_dropped(bench: Benches, size: int) -> None:
    """Row 6."""
    one = bench()
    assert one.hear(login()[:size]) == []
    assert one.counts() == {"dropped_too_short": 1}


# Signatures (rows 2, 13, 16, 30, 34; BlastRADIUS a to f)

SIGNED = pytest.param(True, id="signed")
UNSIGNED = pytest.param(False, id="unsigned")
A_PROXY = (PROXY_STATE, b"p1")


@pytest.mark.parametrize(
    ("client", "sign", "more", "expected"),
    [
        pytest.param(CLIENT, True, (), "Accept", id="yes-signed"),
        pytest.param(CLIENT, False, (), "dropped_unsigned", id="yes-unsigned"),
        pytest.param(LAX, True, (), "Accept", id="no-signed"),
        pytest.param(LAX, False, (), "Accept", id="no-unsigned"),
        pytest.param(LEARNS, True, (), "Accept", id="auto-signed"),
        pytest.param(LEARNS, False, (), "Accept", id="auto-unsigned"),
        pytest.param(CLIENT, True, (A_PROXY,), "Accept", id="yes-signed-proxied"),
        pytest.param(LAX, True, (A_PROXY,), "Accept", id="no-signed-proxied"),
        pytest.param(LAX, False, (A_PROXY,), "dropped_unsigned_proxy_state", id="no-unsigned-proxied"),
        pytest.param(
            replace(LAX, limit_proxy_state=False), False, (A_PROXY,), "Accept", id="no-unsigned-proxied-unlimited"
        ),
        pytest.param(LAX, False, ((EAP_MESSAGE, b"\2\1\0\4"),), "dropped_unsigned", id="eap-unsigned"),
    ],
)
def test_who_must_sign(bench: Benches, client: Any, sign: bool, more: tuple[Any, ...], expected: str) -> None:
    one = bench(client)
    one.gate.at_once = accepted()
    asked = login("alice", "123456", *more, sign=sign)
    sent = one.hear(asked)
    if expected == "Accept":
        answer = sent[0].read(asked)
        assert answer.what == "Accept"
        assert answer.signed_first, "an answer is signed, whatever the request was"
        assert answer.all(PROXY_STATE) == [value for kind, value in more if kind == PROXY_STATE]
    else:
        assert sent == []
        assert one.asked == 0
    assert one.counts().get(expected, 0) == (expected != "Accept")


@pytest.mark.parametrize("client", [CLIENT, LAX, LEARNS], ids=["yes", "no", "auto"])
def test_a_wrong_signature_is_never_answered(bench: Benches, client: Any) -> None:
    one = bench(client)
    good = login()
    at = good.index(b"\x50\x12") + 2
    for bit in range(128):
        spoilt = bytearray(good)
        spoilt[at + bit // 8] ^= 1 << bit % 8
        assert one.hear(bytes(spoilt)) == []
    assert one.asked == 0
    assert one.counts() == {"dropped_bad_message_authenticator": 128}


@pytest.mark.parametrize("verdict", [accepted(), rejected(), CHALLENGED], ids=["accept", "reject", "challenge"])
@pytest.mark.parametrize("sign", [SIGNED, UNSIGNED])
def test_every_answer_is_signed_first(bench: Benches, verdict: Any, sign: bool) -> None:
    one = bench(replace(LAX, mode=CLIENT.mode, empty_password=EmptyPassword.CHALLENGE))
    one.gate.at_once = verdict
    assert one.one(login("alice", "", sign=sign)).signed_first


def test_a_client_that_drops_signatures_gets_none_but_with_eap(bench: Benches) -> None:
    one = bench(replace(CLIENT, reply_message_authenticator=SignReplies.NEVER))
    one.gate.at_once = accepted()
    assert one.one(login()).all(MESSAGE_AUTHENTICATOR) == []
    assert one.one(request((USER_NAME, b"alice"), (EAP_MESSAGE, b"\2\1\0\4"), identifier=2)).signed_first


def test_auto_learns_from_the_first_signed_login_and_never_forgets(bench: Benches) -> None:
    one = bench(LEARNS)
    one.gate.at_once = rejected()
    assert one.one(login(sign=False, identifier=1)).what == "Reject"
    assert one.one(login(identifier=2)).what == "Reject"
    assert one.signers.has_signed("vpn")
    assert one.hear(login(sign=False, identifier=3)) == []
    one.exchange.reload(replace(one.settings, clients=(LEARNS,)))
    assert one.hear(login(sign=False, identifier=4)) == []
    again = bench(LEARNS, signers=one.signers)
    assert again.hear(login(sign=False)) == [], "another worker, or after a restart"


def test_what_everybody_must_sign_teaches_nothing(bench: Benches) -> None:
    """A client that signs Status-Server and EAP (RFC 5997, RFC 3579) may still send unsigned logins."""
    one = bench(LEARNS)
    one.gate.at_once = rejected()
    assert one.one(status(identifier=1)).what == "Accept"
    assert one.one(request((USER_NAME, b"alice"), (EAP_MESSAGE, b"\2\1\0\4"), identifier=2)).what == "Reject"
    assert not one.signers.has_signed("vpn")
    assert one.one(login(sign=False, identifier=3)).what == "Reject"


def test_a_forged_signature_teaches_nothing(bench: Benches) -> None:
    one = bench(LEARNS)
    one.hear(login(secret=WRONG))
    assert not one.signers.has_signed("vpn")


def test_over_tls_no_signature_is_needed_and_none_is_learnt_from(bench: Benches) -> None:
    """RFC 6614: the certificate vouches. A wrong one is still wrong."""
    one = bench(LEARNS)
    one.gate.at_once = accepted()
    (client,) = one.exchange.clients
    for identifier, sign in ((1, False), (2, True)):
        asked = login("alice", "123456", A_PROXY, sign=sign, identifier=identifier)
        (sent,) = one.hear_protected(asked, client)
        assert sent.read(asked).what == "Accept"
    assert not one.signers.has_signed("vpn")
    assert one.hear_protected(login(secret=WRONG, identifier=3), client) == []


def test_a_client_that_shall_sign_must_over_tls_as_well(bench: Benches) -> None:
    """Asked for by the client's own key only: the certificate may be a proxy's, which somebody else's packets pass through."""
    one = bench(replace(CLIENT, require_message_authenticator=RequireSignature.YES))
    one.gate.at_once = accepted()
    (client,) = one.exchange.clients
    assert one.hear_protected(login(sign=False, identifier=1), client) == []
    assert one.counts()["dropped_unsigned"] == 1
    asked = login(identifier=2)
    (sent,) = one.hear_protected(asked, client)
    assert sent.read(asked).what == "Accept"


# Two secrets


@pytest.mark.parametrize("sign", [SIGNED, UNSIGNED])
def test_during_a_rotation_each_secret_is_answered_with_itself(bench: Benches, sign: bool) -> None:
    """Row 53."""
    one = bench(replace(LAX, secrets=(Secret(SECRET), Secret(OLD))))
    one.gate.at_once = accepted()
    for identifier, secret in enumerate((SECRET, OLD)):
        assert one.one(login(secret=secret, sign=sign, identifier=identifier), secret=secret).what == "Accept"
    assert [attempt.typed.reveal() for attempt in one.gate.attempts if attempt.typed] == [b"123456", b"123456"]
    assert one.counts()["previous_secret"] == 1
    account = accounting((ACCT_STATUS_TYPE, START), secret=OLD)
    assert one.one(account, purposes=ACCOUNTING, secret=OLD).what == "Accounting-Response"


def test_the_previous_secret_ends_when_it_is_said_to(bench: Benches) -> None:
    one = bench(replace(CLIENT, secrets=(Secret(SECRET), Secret(OLD))))
    until = one.clock() + 10
    one.exchange.reload(
        replace(one.settings, clients=(replace(one.settings.clients[0], previous_secret_until=until),))
    )
    one.gate.at_once = accepted()
    one.clock.now = until - 0.001
    assert one.one(login(secret=OLD, identifier=1), secret=OLD).what == "Accept"
    one.clock.now = until
    assert one.hear(login(secret=OLD, identifier=2)) == []
    assert one.hear(accounting(secret=OLD), purposes=ACCOUNTING) == []
    assert one.one(login(identifier=3)).what == "Accept"


def test_an_unsigned_password_that_is_noise_is_said_once(bench: Benches, caplog: pytest.LogCaptureFixture) -> None:
    """Row 15."""
    one = bench(LAX)
    one.gate.at_once = rejected()
    for identifier in range(5):
        assert one.one(login(sign=False, secret=WRONG, identifier=identifier, authenticator=bytes([7] * 16)), secret=SECRET)
    one.sweep()
    assert [record for record in caplog.messages if "is its secret wrong" in record] == [
        "5 requests of client vpn whose passwords are no text: is its secret wrong?"
    ]


# Codes and ports (rows 12, 34)


@pytest.mark.parametrize(
    ("purposes", "sends", "expected"),
    [
        pytest.param(frozenset({Purpose.AUTHENTICATION}), status(), "Accept", id="status-authentication"),
        pytest.param(ACCOUNTING, status(), "Accounting-Response", id="status-accounting"),
        pytest.param(BOTH, status(), "Accept", id="status-both"),
        pytest.param(BOTH, login(), "Accept", id="login-both"),
        pytest.param(BOTH, accounting(), "Accounting-Response", id="accounting-both"),
        pytest.param(ACCOUNTING, login(), "dropped_unexpected_code", id="login-at-accounting"),
        pytest.param(
            frozenset({Purpose.AUTHENTICATION}), accounting(), "dropped_unexpected_code", id="accounting-at-authentication"
        ),
        *(
            pytest.param(BOTH, request(code=code), "dropped_unexpected_code", id=f"code-{code}")
            for code in (0, 2, 3, 5, 11, 13, 40, 43, 99, 255)
        ),
    ],
)
def test_each_code_has_its_port(bench: Benches, purposes: Any, sends: bytes, expected: str) -> None:
    one = bench()
    one.gate.at_once = accepted()
    sent = one.hear(sends, purposes=purposes)
    if expected.startswith("dropped"):
        assert sent == []
        assert one.counts() == {expected: 1}
        assert one.exchange.under_way == 0
    else:
        assert sent[0].read(sends).what == expected


def test_an_unsigned_status_server_is_dropped_whoever_sends_it(bench: Benches) -> None:
    one = bench(LAX)
    assert one.hear(status(sign=False)) == []
    assert one.counts() == {"dropped_unsigned": 1}


def test_a_status_server_asks_nobody_and_is_not_kept(bench: Benches) -> None:
    one = bench()
    asked = status()
    assert one.one(asked).what == "Accept"
    assert one.one(asked).what == "Accept"
    assert one.asked == 0
    assert one.counts() == {"status_server": 2}
    assert one.journal.lines == []


# EAP (rows 16, 17)


def test_eap_alone_is_rejected_with_its_own_failure(bench: Benches) -> None:
    one = bench()
    answer = one.one(request((USER_NAME, b"alice"), (EAP_MESSAGE, b"\2\x37\0\x0a\1alice")))
    assert answer.what == "Reject"
    assert answer.all(EAP_MESSAGE) == [b"\4\x37\0\4"]
    assert answer.signed_first
    assert one.asked == 0


@pytest.mark.parametrize("eap", [b"", b"\2"])
def test_eap_without_an_identifier_is_rejected_all_the_same(bench: Benches, eap: bytes) -> None:
    answer = bench().one(request((USER_NAME, b"alice"), (EAP_MESSAGE, eap)))
    assert answer.what == "Reject"
    assert answer.all(EAP_MESSAGE) == []


def test_eap_beside_a_password_is_dropped(bench: Benches) -> None:
    one = bench()
    assert one.hear(login("alice", "123456", (EAP_MESSAGE, b"\2\1\0\4"))) == []
    assert one.asked == 0
    assert one.counts() == {"dropped_eap_and_password": 1}


# Accounting


def test_accounting_is_acknowledged_written_down_and_asks_nobody(bench: Benches) -> None:
    one = bench()
    asked = accounting((ACCT_STATUS_TYPE, START), (USER_NAME, b"al\xffice\n"), (ACCT_SESSION_ID, b"5"))
    assert one.one(asked, purposes=ACCOUNTING).what == "Accounting-Response"
    first = one.sent[-1]
    assert one.hear(asked, purposes=ACCOUNTING) == [first]
    assert one.journal.lines == [
        {"kind": "accounting", "client": "vpn", "status": "start", "user": "al\\xffice\n", "session": "5", "source": None}
    ], "a retransmit is not written twice"
    assert one.asked == 0


def test_accounting_with_another_secret_is_dropped(bench: Benches) -> None:
    one = bench(LAX)
    assert one.hear(accounting(secret=WRONG), purposes=ACCOUNTING) == []
    assert one.counts() == {"dropped_bad_accounting_authenticator": 1}
    assert one.journal.lines == []


def test_accounting_with_a_wrong_signature_is_dropped_though_its_checksum_is_right(bench: Benches) -> None:
    one = bench(LAX)
    assert one.hear(accounting((MESSAGE_AUTHENTICATOR, bytes(16))), purposes=ACCOUNTING) == []


# Rate and room


def test_the_rate_is_a_clients_own_and_comes_back(bench: Benches) -> None:
    one = bench(replace(CLIENT, requests_per_s=2.0), OTHER)
    one.gate.at_once = rejected()
    heard = [len(one.hear(login(identifier=number))) for number in range(6)]
    assert heard == [1, 1, 1, 1, 0, 0]
    assert one.one(login(), address=OTHER_NAS).what == "Reject"
    one.monotonic.advance(0.5)
    assert [len(one.hear(login(identifier=number))) for number in range(10, 12)] == [1, 0]


def test_a_rate_under_one_lets_one_through(bench: Benches) -> None:
    one = bench(replace(CLIENT, requests_per_s=0.1))
    one.gate.at_once = rejected()
    assert [len(one.hear(login(identifier=number))) for number in range(2)] == [1, 0]
    one.monotonic.advance(10)
    assert len(one.hear(login(identifier=3))) == 1


def test_duplicates_and_accounting_do_not_use_up_the_rate(bench: Benches) -> None:
    one = bench(replace(CLIENT, requests_per_s=0.5))
    one.gate.at_once = rejected()
    asked = login()
    assert [len(one.hear(asked)) for _ in range(5)] == [1] * 5
    assert len(one.hear(accounting(), purposes=ACCOUNTING)) == 1


def test_a_client_has_half_of_the_room_where_others_exist(bench: Benches) -> None:
    one = bench(CLIENT, OTHER, max_in_flight=8)
    for number in range(10):
        assert one.hear(login(identifier=number)) == []
    assert one.exchange.under_way == 4
    assert one.counts()["dropped_overloaded"] == 6
    for number in range(10):
        one.hear(login(identifier=number), address=OTHER_NAS)
    assert one.exchange.under_way == 8
    assert one.counts("other")["dropped_overloaded"] == 6
    one.decide(accepted(), 0)
    assert one.hear(login(identifier=77), address=OTHER_NAS) == [], "what one gives back, the other has not got"
    assert one.exchange.under_way == 7
    one.hear(login(identifier=78))
    assert one.exchange.under_way == 8


def test_a_client_alone_has_all_the_room(bench: Benches) -> None:
    one = bench(max_in_flight=8)
    for number in range(10):
        one.hear(login(identifier=number))
    assert one.exchange.under_way == 8
    assert one.asked == 8


def test_the_gate_is_never_asked_more_than_there_is_room_for(bench: Benches) -> None:
    """Neither by one identifier used again and again, nor after deadlines: what it still works on keeps its place."""
    one = bench(max_in_flight=4)
    for _ in range(20):
        one.hear(login(identifier=1))
    assert one.asked == 4
    one.pass_time(31)
    assert one.exchange.under_way == 0
    one.hear(login(identifier=2))
    assert one.asked == 4
    one.decide(accepted(), 0)
    one.hear(login(identifier=3))
    assert one.asked == 5


def test_an_overload_is_silence(bench: Benches) -> None:
    one = bench(max_in_flight=1)
    one.hear(login(identifier=1))
    assert one.hear(login(identifier=2)) == []
    one.decide(accepted())
    one.gate.at_once = accepted()
    assert one.one(login(identifier=2)).what == "Accept", "the next copy is a new request"


# Reload


def test_a_reload_in_the_middle_leaves_requests_and_counts_alone(bench: Benches) -> None:
    one = bench(CLIENT, OTHER)
    asked = login()
    one.hear(asked)
    before = one.counts()
    one.exchange.reload(replace(one.settings, clients=(replace(CLIENT, secrets=(Secret(b"the next secret"),)),)))
    (sent,) = one.decide(accepted())
    assert sent.read(asked).what == "Accept", "it ends as it began"
    assert one.counts() == {**before, "accepted": 1}
    assert one.hear(asked) == [sent], "answers stay"
    assert one.hear(login(), address=OTHER_NAS) == []
    assert one.exchange.counts == {"unknown_client": 1}


def test_a_client_that_came_back_goes_on_with_what_it_may(bench: Benches) -> None:
    one = bench()
    for network in ("198.51.100.0/24", NAS):
        one.exchange.reload(replace(one.settings, clients=(replace(CLIENT, network=ipaddress.ip_network(network)),)))
    one.gate.at_once = accepted()
    assert one.one(login()).what == "Accept"


# What is said


def test_drops_are_said_in_few_lines_and_strangers_do_not_crowd_out_clients(
    bench: Benches, caplog: pytest.LogCaptureFixture
) -> None:
    one = bench()
    for number in range(1000):
        one.hear(b"x" * 30, address=f"198.51.{number // 250}.{number % 250}")
    one.hear(login(secret=WRONG))
    one.hear(login(sign=False))
    with caplog.at_level(logging.WARNING):
        one.sweep()
        one.sweep()
    assert sorted(caplog.messages)[:2] == [
        "dropped 1 packets of client vpn: bad_message_authenticator",
        "dropped 1 packets of client vpn: unsigned",
    ]
    (strangers,) = sorted(caplog.messages)[2:]
    assert strangers.startswith("dropped 1000 packets of unknown clients, such as 198.51.0.0, ")
    assert strangers.count(",") == 8


def test_many_kinds_of_drops_are_summed_up(bench: Benches, caplog: pytest.LogCaptureFixture) -> None:
    clients = [replace(CLIENT, name=f"c{n}", network=ipaddress.ip_network(f"198.51.100.{n}")) for n in range(100)]
    one = bench(*clients)
    for number in range(100):
        one.hear(b"x" * 30, address=f"198.51.100.{number}")
    one.sweep()
    assert len(caplog.messages) == 65
    assert caplog.messages[-1] == "dropped 36 packets more, of other clients or for other reasons"


def test_one_line_for_each_login(bench: Benches) -> None:
    one = bench()
    one.hear(login(b"al\xff\x00ice", "123456", (31, b"198.51.100.7")))
    one.monotonic.advance(0.25)
    one.decide(rejected())
    assert one.journal.lines == [
        {
            "kind": "authentication", "client": "vpn", "nas": NAS, "user": "al\\xff\x00ice", "source": "198.51.100.7",
            "outcome": "rejected", "reason": "mismatch", "event": one.gate.attempts[0].event_id, "milliseconds": 250.0,
        }
    ]  # fmt: skip


PLANTED = b"PLANTED-7351"


def test_no_secret_is_in_what_is_said(bench: Benches, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in lines of the log or the journal, nor in any repr on the way."""
    caplog.set_level(logging.DEBUG)
    secret = b"the shared one PLANTED-7351"
    one = bench(replace(LAX, secrets=(Secret(secret),), join_retries=True, requests_per_s=100.0))
    said: list[str] = []
    state = PLANTED.ljust(51, b"s")
    for number, asked in enumerate(
        (
            login("alice", PLANTED, (ACCT_SESSION_ID, b"1"), secret=secret, identifier=1),
            login("alice", PLANTED, (STATE, state), secret=secret, identifier=2),
            login("alice", b"SCRV1:" + PLANTED + b":x", secret=secret, identifier=3),
            login("alice", PLANTED + b"\0x", secret=secret, identifier=4),
            login("alice", PLANTED, secret=secret, sign=False, identifier=5)[:-3],
            login("alice", PLANTED, secret=WRONG, identifier=6),
        )
    ):
        one.hear(asked, port=50_000 + number)
        said += [repr(attempt) for attempt in one.gate.attempts]
        said += [repr(vars(one.exchange)), repr(list(one.exchange.clients)), repr(one.settings)]
    one.gate.breaks = RuntimeError("broken")
    one.hear(login("alice", PLANTED, secret=secret, identifier=9))
    one.pass_time(40)
    said += [caplog.text, repr(one.journal.lines), *map(repr, one.exchange.clients)]
    assert one.asked >= 2
    assert "broken" in caplog.text
    for text in said:
        assert PLANTED.decode() not in text
        assert PLANTED.hex() not in text


# Whatever comes


@given(st.binary(max_size=300))
def test_whatever_a_client_sends_nothing_is_raised(datagram: bytes) -> None:
    one = Bench(LAX, CLIENT)
    try:
        one.hear(datagram, purposes=BOTH)
        assert "internal" not in str(one.exchange.counts_by_client())
    finally:
        one.close()


@given(st.lists(st.tuples(st.integers(1, 255), st.binary(max_size=40)), max_size=12), st.sampled_from([1, 4, 12]))
def test_whatever_stands_in_a_good_packet_is_answered_or_counted(attributes: list[tuple[int, bytes]], code: int) -> None:
    """Attributes at random behind a right signature: an answer, a question or a counted drop."""
    one = Bench(LAX)
    try:
        body = [(kind, value) for kind, value in attributes if kind != MESSAGE_AUTHENTICATOR]
        asked = accounting(*body) if code == ACCOUNTING_REQUEST else request(*body, code=code)
        sent = one.hear(asked, purposes=BOTH)
        counts = one.counts()
        assert "dropped_internal" not in counts
        dropped = sum(number for word, number in counts.items() if word.startswith("dropped"))
        assert len(sent) + one.asked + dropped == 1
        for answer in sent:
            answer.read(asked)
    finally:
        one.close()


def test_a_bug_costs_one_packet(bench: Benches, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    one = bench()
    one.gate.at_once = accepted()
    with monkeypatch.context() as patched:
        patched.setattr(exchange_module, "read_login", lambda *_, **__: 1 / 0)
        assert one.hear(login(identifier=1)) == []
    assert one.counts()["dropped_internal"] == 1
    assert "could not be handled" in caplog.text
    assert one.one(login(identifier=2)).what == "Accept"


def test_a_reply_that_does_not_fit_is_not_sent(bench: Benches, caplog: pytest.LogCaptureFixture) -> None:
    """Row 54 at run time: only a client's own Proxy-States can do this."""
    one = bench()
    one.gate.at_once = rejected(text="x" * 3000)
    proxies = [(PROXY_STATE, bytes(250))] * 6
    assert one.hear(login("alice", "123456", *proxies)) == []
    assert one.counts()["dropped_reply_too_long"] == 1
    assert one.exchange.under_way == 0


def test_padding_after_the_packet_is_no_other_request(bench: Benches) -> None:
    """Row 3; the octets as they came tell two datagrams apart, and padding makes another one: it is asked anew."""
    one = bench()
    one.gate.at_once = accepted()
    asked = login()
    assert one.one(asked + b"\0\0\0").what == "Accept"


def test_zero_authenticators_are_counted(bench: Benches) -> None:
    """Row 35."""
    one = bench(LAX)
    one.gate.at_once = accepted()
    assert one.one(login(sign=False, authenticator=bytes(16))).what == "Accept"
    assert one.counts()["zero_authenticator"] == 1


def test_a_packet_of_one_attribute_repeated_over_the_limit_is_dropped(bench: Benches) -> None:
    """Row 11."""
    one = bench()
    many = packet(1, 1, new_authenticator(), attribute(1, b"a") * 250)
    assert one.hear(many) == []
    assert one.counts() == {"dropped_too_many_attributes": 1}
