"""What passes, what waits and what ends a session: seen from the client and from the directory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldap_proxy import message
from ldap_proxy.ber import head, wrapped
from ldap_proxy.message import ResultCode
from ldap_proxy.session import Rules
from ldap_proxy.settings import Anonymous, Application, Limits, OperationsSettings
from ldap_proxy.states import MOVES, Event, State
from mfa_core.verdict import Accepted
from tests.ldap_proxy.door_doubles import (
    BOB,
    EXEMPT,
    REFUSED,
    SERVICE,
    TLS,
    FakeTransport,
    Stage,
    bind_result,
    codes,
    compare,
    control,
    done,
    door_settings,
    entry,
    is_notice,
    modify,
    search,
    split,
    tags,
    who_is,
)

PROXIED = "2.16.840.1.113730.3.4.18"
START_TLS = message.build_extended_request(1, message.START_TLS)
UNBIND = message.build_unbind(99)


def _with(**operations: object) -> Stage:
    application = Application(exempt=EXEMPT, operations=OperationsSettings(**operations))  # type: ignore[arg-type]
    return Stage(door_settings(applications=(application,)))


# -- the table ----------------------------------------------------------------------------------------------------------------


def test_every_state_can_end_but_the_last() -> None:
    """Whatever is under way, a session can be over; nothing comes after that."""
    for state in State:
        moves = MOVES[state]
        assert (Event.OVER in moves) is (state is not State.CLOSING)
        assert all(after in MOVES for after in moves.values())


def test_nobody_is_bound_but_by_a_granted_bind() -> None:
    """One move leads to BOUND, and it begins where a bind is pending."""
    assert [(state, event) for state in State for event, after in MOVES[state].items() if after is State.BOUND] == [
        (State.BINDING, Event.GRANTED)
    ]


# -- what passes --------------------------------------------------------------------------------------------------------------


def test_a_search_is_relayed_as_the_octets_it_is() -> None:
    """Both ways, in one write each."""
    stage = Stage()

    assert stage.client(search(5), search(6)) == []

    assert stage.link.written == search(5) + search(6)
    assert stage.directory(entry(5), done(5)) == [entry(5), done(5)]
    assert stage.directory(done(6)) == [done(6)]


def test_what_comes_in_one_piece_is_sent_in_one_piece() -> None:
    """One write for a chunk, and none of it is copied."""
    stage = Stage().bound()
    before = stage.link.writes

    stage.client(*(search(number) for number in range(10, 20)))

    assert stage.link.writes == before + 1


def test_octets_one_by_one_say_the_same() -> None:
    """Where the pieces are cut changes nothing, either way."""
    stage = Stage()
    octets = message.build_bind(1, BOB, b"secret,123456") + search(2) + modify(3, controls=control("1.2.3"))

    for octet in octets:
        stage.session.data_received(bytes((octet,)))
    for octet in bind_result(1) + who_is(1, b"dn:" + BOB):
        stage.session.upstream_data(bytes((octet,)))
    for octet in entry(2) + done(2) + message.build_result(3, message.MODIFY_RESPONSE, 0):
        stage.session.upstream_data(bytes((octet,)))

    assert tags(stage.told()) == [(1, 0x61), (2, 0x64), (2, 0x65), (3, 0x67)]
    assert tags(stage.sent()) == [(1, 0x60), (1, 0x77), (2, 0x63), (3, 0x66)]


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(1, 400), min_size=1, max_size=30), back=st.lists(st.integers(1, 400), min_size=1, max_size=30))
def test_pieces_of_any_size_say_the_same(cuts: list[int], back: list[int]) -> None:
    """As above, for big messages too."""
    stage = Stage().bound()
    octets = search(2) + modify(3, 1000) + modify(4, 200, control("1.2.3")) + search(5)
    answers = entry(2, 700) + done(2) + message.build_result(3, message.MODIFY_RESPONSE, 0) + entry(5) + done(5)

    for piece in _cut(octets, cuts):
        stage.session.data_received(piece)
    assert b"".join(stage.sent()) == octets
    for piece in _cut(answers, back):
        stage.session.upstream_data(piece)

    assert b"".join(stage.told()) == answers


def _cut(octets: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at, turn = [], 0, 0
    while at < len(octets):
        pieces.append(octets[at : at + sizes[turn % len(sizes)]])
        at += len(pieces[-1])
        turn += 1
    return pieces


def test_a_big_request_passes_while_it_comes() -> None:
    """Nothing of it is kept: each piece goes on as it is."""
    stage = Stage().bound()
    octets = modify(7, 1_000_000)

    for at in range(0, len(octets), 10_000):
        stage.session.data_received(octets[at : at + 10_000])
        assert len(stage.link.written) == stage._sent[1] + min(at + 10_000, len(octets))

    assert stage.sent() == [octets]


def test_a_big_answer_passes_while_it_comes() -> None:
    """The same from the directory."""
    stage = Stage().bound()
    stage.client(search(7))
    octets = entry(7, 1_000_000)

    for at in range(0, len(octets), 10_000):
        stage.session.upstream_data(octets[at : at + 10_000])

    assert stage.directory(done(7)) == [octets, done(7)]


def test_controls_go_on_inside_their_message() -> None:
    """Of requests and of answers, verbatim (the paged results of RFC 2696, say)."""
    stage = Stage().bound()
    asked = search(7, controls=control("1.2.840.113556.1.4.319"))

    stage.client(asked)

    assert stage.sent() == [asked]


def test_an_abandon_of_nothing_is_dropped() -> None:
    """And one of something goes on; its answer may still come."""
    stage = Stage().bound()
    stage.client(search(7))
    stage.sent()

    assert stage.client(message.build_abandon(8, 3)) == []
    assert stage.sent() == []
    stage.client(message.build_abandon(9, 7))

    assert stage.sent() == [message.build_abandon(9, 7)]
    assert stage.directory(entry(7), done(7)) == [entry(7), done(7)]
    assert stage.directory(done(7))[:-1] == []
    assert stage.is_over


def test_intermediate_responses_and_references_pass() -> None:
    """RFC 4511 sections 4.13 and 4.5.3."""
    stage = Stage().bound()
    stage.client(search(7))
    reference = message.message(7, 0x73, wrapped(0x04, b"ldap://other/"))
    intermediate = message.message(7, 0x79, wrapped(0x80, b"1.3.6.1.4.1.4203.1.9.1.4"))

    assert stage.directory(reference, intermediate, done(7)) == [reference, intermediate, done(7)]


# -- while a bind is pending --------------------------------------------------------------------------------------------------


def test_nothing_passes_while_a_bind_is_pending_and_nothing_is_lost() -> None:
    """Reads and writes wait for the bind's answer, then go, as who it made them."""
    stage = Stage().bound()
    stage.gate.by_itself = False

    stage.client(message.build_bind(2, BOB, b"secret,123456"), search(3), modify(4))
    asked = stage.gate.asked[0]
    asked.have_checked(b"secret")
    stage.client(search(5))
    assert tags(stage.sent()) == [(2, 0x60)]
    stage.directory(bind_result(2))
    stage.directory(who_is(2, b"dn:" + BOB))
    assert tags(stage.sent()) == [(2, 0x77)]
    asked.say(Accepted("event", "totp", "totp:12"))

    assert codes(stage.told()) == [(2, 0x61, 0)]
    assert tags(stage.sent()) == [(3, 0x63), (4, 0x66), (5, 0x63)]


def test_what_waited_for_a_refused_bind_goes_to_another_connection() -> None:
    """As nobody: the service account's identity does not survive somebody else's failure (RFC 4513 section 4)."""
    stage = Stage().bound()
    first = stage.link

    told = stage.client(message.build_bind(2, BOB, b"secret"), search(3))

    assert codes(told) == [(2, 0x61, REFUSED)]
    assert first.aborted
    assert len(stage.upstreams.links) == 2
    assert stage.sent() == [search(3)]
    assert stage.session.state is State.ANONYMOUS


@pytest.mark.parametrize(
    "refused",
    [
        message.build_bind(2, BOB, b""),
        message.build_bind(2, b"", b"secret"),
        message.build_bind(2, BOB, b"secret"),
        message.build_bind(2, BOB, b",123456"),
        message.build_sasl_bind(2, b"", "PLAIN", b"\0bob\0secret", b""),
        message.build_sasl_bind(2, b"", "EXTERNAL", None, b""),
        message.build_bind(2, BOB, b"secret,123456", control(PROXIED)),
        message.build_bind(2, BOB, b"secret,123456").replace(b"\x02\x01\x03\x04", b"\x02\x01\x02\x04"),
    ],
    ids=["no password", "no name", "no code", "no password before the code", "SASL", "EXTERNAL", "control", "version 2"],
)
def test_every_local_refusal_leaves_nobody_bound(refused: bytes) -> None:
    """Wherever it is decided: the connection that was bound is gone, and what follows is asked as nobody."""
    stage = Stage().bound()
    first = stage.link
    before = first.written

    told = stage.client(refused)

    assert len(told) == 1
    assert codes(told)[0][2] != 0
    assert first.aborted
    assert first.written == before
    stage.client(search(3))
    assert stage.link is not first


def test_binds_in_one_piece_are_answered_in_their_order() -> None:
    """Three of them, of which the second is refused here."""
    stage = Stage()
    stage.upstreams.stock = True

    stage.client(
        message.build_bind(1, SERVICE, b"secret"), message.build_bind(2, BOB, b"nothing"), message.build_bind(3, SERVICE, b"s")
    )
    first = stage.directory(bind_result(1))
    first += stage.directory(who_is(1, b"dn:" + SERVICE))
    second = stage.directory(bind_result(3))

    assert codes(first) == [(1, 0x61, 0), (2, 0x61, REFUSED)]
    assert codes(second) == [(3, 0x61, 0)]


@pytest.mark.parametrize("how", ["unbind", "unbind at once", "end of stream", "lost"])
def test_a_client_that_leaves_ends_its_bind(how: str) -> None:
    """The directory is left, the gate is told, no grant is logged, and the log says who has gone."""
    stage = Stage()
    stage.gate.by_itself = False
    request = message.build_bind(2, BOB, b"secret,123456")

    stage.client(request, *([UNBIND] if how == "unbind at once" else []))
    asked = stage.gate.asked[0]
    if how == "unbind at once":
        asked.have_checked(b"secret")
    else:
        asked.have_checked(b"secret")
        if how == "unbind":
            stage.session.data_received(search(3) + UNBIND)
        elif how == "end of stream":
            stage.session.eof_received()
        else:
            stage.session.connection_lost(None)

    assert stage.is_over
    assert [isinstance(told, Exception) for told in asked.told] == [True]
    asked.say(Accepted("event", "totp", "totp:12"))
    assert stage.told() == []
    assert stage.outcomes == ["client_gone"]
    assert [line["outcome"] for line in stage.journal.lines] == ["client_gone"]


def test_too_much_that_waits_stops_the_reading() -> None:
    """``queued`` octets are kept; then the client is not read, until the bind is over. Nothing is dropped."""
    stage = Stage(door_settings(limits=Limits(queued=1000))).bound()
    stage.gate.by_itself = False
    requests = [modify(number, 100) for number in range(3, 20)]

    stage.client(message.build_bind(2, BOB, b"secret"))
    for one in requests:
        if not stage.transport.reading:
            break
        stage.session.data_received(one)
    assert not stage.transport.reading
    given = stage.session._in
    assert given is not None
    assert len(given) < 1000 + len(requests[0])
    stage.gate.asked[0].say(Accepted("event", "totp", "totp:12"))

    assert stage.transport.reading
    assert codes(stage.told()) == [(2, 0x61, REFUSED)]
    assert b"".join(stage.sent()) == bytes(given)


def test_an_abandoned_who_am_i_is_no_answer_to_ours() -> None:
    """The directory may answer it all the same, with the identity of before."""
    stage = Stage().bound()
    stage.client(message.build_extended_request(7, message.WHO_AM_I), message.build_abandon(8, 7))

    told = stage.client(message.build_bind(7, BOB, b"secret,123456"))

    assert is_notice(told, ResultCode.PROTOCOL_ERROR)
    assert stage.is_over


def test_the_message_id_of_an_abandoned_search_may_be_a_bind_s() -> None:
    """Nothing that is said of a search is an answer to a bind."""
    stage = Stage().bound()
    stage.client(search(7), message.build_abandon(8, 7))
    stage.client(message.build_bind(7, BOB, b"secret,123456"))

    assert stage.directory(entry(7), done(7), bind_result(7)) == [entry(7), done(7)]
    assert codes(stage.directory(who_is(7, b"dn:" + BOB))) == [(7, 0x61, 0)]


def test_a_flood_of_messages_leaves_others_their_turn() -> None:
    """What is looked into, and not just passed on, is so a few at a time; nothing is dropped, and the order stays."""
    stage = Stage().bound()
    requests = [modify(100) if number == 100 else compare(number, b"userPassword") for number in range(10, 110)]

    told = stage.client(*requests, UNBIND)
    assert 1 <= len(told) <= 20
    rounds = 1
    while stage.turns:
        assert not stage.is_over
        told += stage.turn()
        rounds += 1

    assert codes(told) == [(number, 0x6F, ResultCode.UNWILLING_TO_PERFORM) for number in range(10, 110) if number != 100]
    assert stage.sent() == [modify(100)]
    assert rounds >= 5
    assert stage.is_over


def test_a_flood_of_binds_leaves_others_their_turn() -> None:
    """Those that are refused at once: each makes a line of a log."""
    stage = Stage()

    told = stage.client(*(message.build_bind(number, BOB, b"") for number in range(1, 31)))
    assert 1 <= len(told) <= 3
    while stage.turns:
        told += stage.turn()

    assert codes(told) == [(number, 0x61, ResultCode.UNWILLING_TO_PERFORM) for number in range(1, 31)]


def test_a_flood_that_nobody_answers_stops_the_reading() -> None:
    """Abandons of nothing: what waits for its turn is bounded as what waits for a bind is."""
    stage = Stage(door_settings(limits=Limits(queued=1000)))
    octets = message.build_abandon(5, 77) * 1000

    stage.client(octets)
    assert not stage.transport.reading
    while stage.turns:
        assert stage.turn() == []

    assert stage.transport.reading
    assert stage.session._in is None


def test_the_end_ends_the_waiting_for_a_turn() -> None:
    """The client goes while it waits for its turn."""
    stage = Stage()

    stage.client(*(compare(number, b"userPassword") for number in range(10, 110)))
    stage.session.eof_received()

    assert stage.turns
    assert stage.turn() == []
    assert stage.is_over


def test_start_tls_that_waited_for_its_turn_came_too_early() -> None:
    """It was sent while others were unanswered (RFC 4511 section 4.14.1)."""
    stage = Stage(door_settings(tls=TLS))

    told = stage.client(*(compare(number, b"userPassword") for number in range(10, 110)), START_TLS)
    while stage.turns:
        told += stage.turn()

    assert codes(told)[-1] == (1, 0x78, ResultCode.OPERATIONS_ERROR)
    assert not stage.handshakes


def test_what_waits_is_looked_over_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Binds in a row, each of which has to wait: the rest of the row is not measured again for each."""
    measured = 0

    def counted(*given: Any) -> Any:
        nonlocal measured
        measured += 1
        return head(*given)

    stage = Stage()
    stage.gate.by_itself = False
    monkeypatch.setattr("ldap_proxy.session.head", counted)
    stage.client(*(message.build_bind(number, BOB, b"secret") for number in range(1, 101)))
    for number in range(100):
        stage.gate.asked[number].say(Accepted("event", "totp", "totp:12"))

    assert codes(stage.told()) == [(number, 0x61, REFUSED) for number in range(1, 101)]
    assert measured < 400


def test_what_was_asked_before_a_bind_may_be_answered_during_it() -> None:
    """RFC 4511 section 4.2.1: operations that are outstanding end, or are abandoned."""
    stage = Stage()
    stage.client(search(7))
    stage.client(message.build_bind(8, BOB, b"secret,123456"))

    assert stage.directory(entry(7), done(7), bind_result(8)) == [entry(7), done(7)]
    assert codes(stage.directory(who_is(8, b"dn:" + BOB))) == [(8, 0x61, 0)]


def test_what_a_granted_bind_abandons_counts_no_more() -> None:
    """Neither as an operation, nor as something under way: the connection is idle. Its answer may come all the same."""
    stage = Stage(door_settings(limits=Limits(operations=2, idle_s=100))).bound()
    stage.client(search(7), search(8))
    stage.bound(BOB, 9)

    stage.client(search(10), search(11))
    assert stage.sent() == [search(10), search(11)]
    assert stage.directory(entry(7), done(7), done(10), done(11)) == [entry(7), done(7), done(10), done(11)]
    stage.session.sweep(1000.0)
    stage.session.sweep(1101.0)
    assert stage.is_over


def test_what_binds_abandon_is_bounded() -> None:
    """An answer to what is not remembered ends the connection, as any that nobody has asked for."""
    stage = Stage(door_settings(limits=Limits(operations=2))).bound(BOB)
    for first in (10, 20, 30):
        stage.client(search(first), search(first + 1), message.build_bind(first + 2, BOB, b"secret,123456"))
        assert codes(stage.directory(bind_result(first + 2))) == [(first + 2, 0x61, 0)]

    assert stage.session._abandoned == {30: 0x65, 31: 0x65}
    assert stage.directory(done(31)) == [done(31)]
    stage.directory(done(11))
    assert stage.is_over


def test_start_tls_takes_no_answer_to_what_a_bind_has_abandoned() -> None:
    """It would be written in the midst of the handshake: that connection to the directory is left."""
    stage = Stage(door_settings(tls=TLS))
    stage.client(search(7), message.build_bind(8, b"", b""))
    stage.directory(bind_result(8))

    assert codes(stage.client(START_TLS)) == [(1, 0x78, 0)]
    assert stage.link.closed


def test_what_a_refused_bind_abandons_is_told() -> None:
    """A search that was under way gets an end: its client would wait for ever."""
    stage = Stage().bound()
    stage.client(search(7))

    told = stage.client(message.build_bind(8, BOB, b""))

    assert codes(told) == [(7, 0x65, ResultCode.OTHER), (8, 0x61, ResultCode.UNWILLING_TO_PERFORM)]


def test_a_refusal_waits_for_the_end_of_a_message_of_the_directory() -> None:
    """An answer of ours does not fall into the middle of one of the directory's."""
    stage = Stage()
    stage.client(search(7))
    octets = entry(7, 500)
    stage.session.upstream_data(octets[:100])

    stage.session.data_received(compare(8, b"userPassword"))
    stage.session.upstream_data(octets[100:])

    told = stage.told()
    assert told[0] == octets
    assert codes(told[1:]) == [(8, 0x6F, ResultCode.UNWILLING_TO_PERFORM)]


def test_refusals_that_wait_are_bounded() -> None:
    """The client is not read while too many of them wait for a long message of the directory."""
    stage = Stage(door_settings(limits=Limits(queued=1000)))
    stage.client(search(7))
    octets = entry(7, 500)
    stage.session.upstream_data(octets[:100])

    for number in range(8, 100):
        if stage.transport.reading:
            stage.session.data_received(compare(number, b"userPassword"))
    assert len(stage.session._later) < 1200
    stage.session.upstream_data(octets[100:])

    assert stage.transport.reading
    assert stage.told()[0] == octets


def test_half_an_answer_that_can_never_be_whole_ends_the_connection() -> None:
    """A bind is refused while the client has half a message of a directory that is left for it."""
    stage = Stage().bound()
    stage.client(search(7))
    stage.session.upstream_data(entry(7, 500)[:100])

    stage.session.data_received(message.build_bind(8, BOB, b""))

    assert stage.is_over
    assert len(stage.transport.written[stage._told :]) == 100


# -- what ends it -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "octets",
    [
        b"\x30\x80\x02\x01\x01",
        b"\x30\x84\x7f\xff\xff\xff",
        b"\x30\x88\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x30\x00",
        b"GET / HTTP/1.0\r\n\r\n",
        search(0),
        done(5),
        message.build_result(5, message.BIND_RESPONSE, 0),
        message.message(5, 0x7E, b""),
        message.build_bind(5, BOB, b"secret")[:-1] + b"x\x05",
        message.build_abandon(0, 4),
        START_TLS[:-1] + b"\xff",
    ],
    ids=[
        "indefinite", "huge", "eight octets of length", "empty", "HTTP", "message ID 0", "a response", "a bind's response",
        "unknown operation", "octets behind", "abandon 0", "an OID that is none",
    ],
)  # fmt: skip
def test_what_is_no_request_ends_both_sides(octets: bytes) -> None:
    """A Notice of Disconnection with protocolError; of what was wrong the directory sees nothing."""
    if octets.startswith(b"\x30") and octets[1] < 0x80 and octets[1] > 0:
        octets = octets[:1] + bytes((len(octets) - 2,)) + octets[2:]
    stage = Stage().bound()

    told = stage.client(search(3), octets)

    assert is_notice(told, ResultCode.PROTOCOL_ERROR)
    assert stage.is_over
    assert stage.link.written.endswith((search(3), who_is_request()))
    assert stage.malformed
    assert stage.client(search(4)) == []


def who_is_request() -> bytes:
    """The last that the directory was sent when the service account had bound."""
    return message.build_extended_request(1, message.WHO_AM_I)


def test_a_message_id_that_is_in_use_ends_it() -> None:
    """RFC 4511 section 4.1.1.1: it must be unique among the requests in progress."""
    stage = Stage()
    stage.client(search(3))

    assert is_notice(stage.client(search(3)), ResultCode.PROTOCOL_ERROR)

    other = Stage()
    other.client(search(3))
    assert is_notice(other.client(message.build_bind(3, BOB, b"s,123456")), ResultCode.PROTOCOL_ERROR)


@pytest.mark.parametrize(
    "octets",
    [done(4), entry(4), message.build_result(3, message.MODIFY_RESPONSE, 0), bind_result(3), search(3), b"\x30\x80", b"HTTP"],
    ids=["another message", "an entry of another", "the wrong end", "a bind's result", "a request", "indefinite", "no LDAP"],
)
def test_a_directory_that_answers_something_else_ends_it(octets: bytes) -> None:
    """What it said before is passed on; then both sides are closed, with 52."""
    stage = Stage()
    stage.client(search(3))

    told = stage.directory(entry(3), octets)

    assert told[0] == entry(3)
    assert is_notice(told, ResultCode.UNAVAILABLE)
    assert len(told) == 2
    assert stage.is_over
    assert stage.malformed[0].startswith("upstream")


@pytest.mark.parametrize(
    "octets",
    [bind_result(3), who_is(2, b"dn:" + BOB), done(2), entry(2), who_is(0, b"")],
    ids=["another message", "no bind's result", "a search's result", "an entry", "a notice"],
)
def test_while_a_bind_is_pending_the_directory_may_answer_it_alone(octets: bytes) -> None:
    """Whatever else it says, nobody is let in by it."""
    stage = Stage()
    stage.client(message.build_bind(2, BOB, b"secret,123456"))

    told = stage.directory(octets)

    assert stage.is_over
    assert all(one[0] == 0 for one in codes(told))
    assert isinstance(stage.gate.asked[0].told[0], Exception)
    assert stage.outcomes == ["unavailable"]


def test_a_result_for_a_bind_that_asks_who_it_is_is_too_early() -> None:
    """While the identity is asked for, another BindResponse is no answer."""
    stage = Stage()
    stage.client(message.build_bind(2, BOB, b"secret,123456"))

    told = stage.directory(bind_result(2), bind_result(2))

    assert is_notice(told, ResultCode.UNAVAILABLE)
    assert stage.is_over


def test_a_notice_of_the_directory_is_passed_on() -> None:
    """Verbatim, and both sides are closed."""
    stage = Stage()
    stage.client(search(3))
    notice = message.notice_of_disconnection(ResultCode.UNAVAILABLE, "the directory goes down")

    assert stage.directory(notice) == [notice]
    assert stage.is_over


def test_a_transaction_that_the_directory_ends_is_told() -> None:
    """RFC 5805 section 2.2: unsolicited, and no end of the session."""
    stage = Stage().bound()
    aborted = message.build_extended_response(0, ResultCode.OTHER, oid="1.3.6.1.1.21.4", value=b"7")

    assert stage.directory(aborted) == [aborted]
    assert not stage.is_over


def test_an_answer_of_the_door_s_own_has_a_bound() -> None:
    """A BindResponse of many megabytes is not gathered."""
    stage = Stage()
    stage.client(message.build_bind(2, BOB, b"secret,123456"))

    told = stage.directory(bind_result(2, 49, "x" * 300_000)[:1000])

    assert is_notice(told, ResultCode.UNAVAILABLE)


def test_a_directory_that_is_gone_with_work_undone_ends_it() -> None:
    """Nobody can answer what is outstanding: 52, and the client may try again."""
    for stage in (Stage(), Stage().bound()):
        stage.client(search(3))

        stage.session.upstream_lost(ConnectionResetError())

        assert is_notice(stage.told(), ResultCode.UNAVAILABLE)
        assert stage.transport.closed


def test_a_directory_that_hangs_up_on_nobody_is_called_again() -> None:
    """Nothing depended on the connection: the next request makes another one."""
    stage = Stage()
    stage.client(search(3))
    stage.directory(done(3))

    stage.session.upstream_lost(None)
    assert stage.client(search(4)) == []

    assert stage.sent() == [search(4)]
    assert len(stage.upstreams.links) == 2


def test_an_identity_is_not_carried_to_another_connection() -> None:
    """Bound, idle, and the directory is gone: the client must bind again."""
    stage = Stage().bound()

    stage.session.upstream_lost(None)

    assert is_notice(stage.told(), ResultCode.UNAVAILABLE)


def test_no_directory_is_52_for_each_request() -> None:
    """And the next one tries again."""
    stage = Stage()
    stage.upstreams.stock = False

    stage.client(search(3), modify(4))
    stage.client(search(5))
    stage.upstreams.refuse()

    assert codes(stage.told()) == [(3, 0x65, 52), (4, 0x67, 52), (5, 0x65, 52)]
    stage.client(search(6))
    stage.upstreams.give()
    assert stage.sent() == [search(6)]


def test_a_big_request_without_a_directory_is_refused_once() -> None:
    """What is still to come of it is thrown away, and the next request is understood."""
    stage = Stage()
    stage.upstreams.stock = False
    octets = modify(3, 10_000)

    stage.client(octets[:5000])
    stage.upstreams.refuse()
    assert codes(stage.told()) == [(3, 0x67, 52)]
    stage.upstreams.stock = True
    stage.client(octets[5000:] + search(4))

    assert stage.sent() == [search(4)]


def test_a_client_that_leaves_before_the_directory_is_there() -> None:
    """The call is called off."""
    stage = Stage()
    stage.upstreams.stock = False
    stage.client(search(3))

    stage.session.connection_lost(None)

    assert stage.upstreams.called_off == 1
    assert stage.gone == 1


def test_an_unbind_takes_leave_of_the_directory() -> None:
    """Gracefully, where nothing is pending."""
    stage = Stage().bound()

    stage.client(search(3), UNBIND)

    assert stage.link.closed
    assert not stage.link.aborted
    assert stage.transport.closed
    assert stage.told() == []


# -- what is refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attribute", [b"userPassword", b"USERPASSWORD", b"2.5.4.35", b"userPassword;x-a", b"authPassword"])
def test_a_password_is_not_compared(attribute: bytes) -> None:
    """It would be a bind without a factor."""
    stage = Stage().bound()

    assert codes(stage.client(compare(3, attribute))) == [(3, 0x6F, ResultCode.UNWILLING_TO_PERFORM)]
    assert stage.sent() == []
    stage.client(compare(4, b"cn"))
    assert tags(stage.sent()) == [(4, 0x6E)]


def test_a_password_may_be_compared_where_that_is_configured() -> None:
    """``compare_password``."""
    stage = _with(compare_password=True).bound()

    stage.client(compare(3, b"userPassword"))

    assert tags(stage.sent()) == [(3, 0x6E)]


@pytest.mark.parametrize("oid", [PROXIED, "2.16.840.1.113730.3.4.12"])
@pytest.mark.parametrize("make", [search, modify])
def test_nobody_acts_for_another(oid: str, make: type) -> None:
    """Proxied authorization is refused, whatever its criticality, and the session goes on."""
    for critical in (True, False):
        stage = Stage().bound()

        told = stage.client(make(3, controls=control(oid, critical=critical)), search(4))

        assert [one[0::2] for one in codes(told)] == [(3, 123)]
        assert stage.sent() == [search(4)]


def test_proxied_authorization_is_for_exempt_sessions_that_may() -> None:
    """``proxied_authorization``: the service account, and nobody with a factor."""
    stage = _with(proxied_authorization=True).bound()
    asked = search(3, controls=control(PROXIED))

    stage.client(asked)
    assert stage.sent() == [asked]
    other = _with(proxied_authorization=True).bound(BOB)
    assert [one[2] for one in codes(other.client(asked))] == [123]
    stage.client(message.build_bind(4, BOB, b"secret,123456"))
    stage.directory(bind_result(4))
    stage.directory(who_is(4, b"dn:" + BOB))
    assert [one[2] for one in codes(stage.client(search(5, controls=control(PROXIED))))] == [123]


def test_the_controls_of_a_long_message_are_held_back_until_they_are_judged() -> None:
    """Its operation passes while it comes; its end does not, and an operation without its end is none."""
    stage = Stage().bound()
    octets = modify(3, 200_000, control(PROXIED))

    stage.client(octets[:100_000])
    stage.client(octets[100_000:-10])
    told = stage.client(octets[-10:])

    assert is_notice(told, ResultCode.PROTOCOL_ERROR)
    assert stage.is_over
    sent = stage.link.written[stage._sent[1] :]
    assert octets.startswith(sent)
    assert PROXIED.encode() not in sent


def test_the_controls_of_a_long_message_pass_when_they_may() -> None:
    """Whole, with what follows."""
    stage = Stage().bound()
    octets = modify(3, 200_000, control("1.2.3"))

    stage.client(octets[:-10])
    stage.client(octets[-10:], search(4))

    assert stage.sent() == [octets, search(4)]


def test_extended_operations_pass_by_their_oid() -> None:
    """Those of the list, for somebody who is bound; the others look as if the directory did not know them."""
    stage = Stage()
    modify_password = message.build_extended_request(3, "1.3.6.1.4.1.4203.1.11.1", b"")
    verify = message.build_extended_request(4, "1.3.6.1.4.1.4203.666.6.5", b"")
    fast_bind = message.build_extended_request(5, "1.2.840.113556.1.4.1781")

    told = stage.client(modify_password, verify, fast_bind, message.build_extended_request(6, message.WHO_AM_I))

    assert codes(told) == [(3, 0x78, 50), (4, 0x78, 2), (5, 0x78, 2)]
    assert tags(stage.sent()) == [(6, 0x77)]
    other = Stage().bound()
    told = other.client(modify_password, verify, fast_bind, message.build_extended_request(6, "1.2.3.4"))
    assert codes(told) == [(4, 0x78, 2), (5, 0x78, 2), (6, 0x78, 2)]
    assert tags(other.sent()) == [(3, 0x77)]


def test_who_is_not_bound_sees_the_root_dse_alone_where_that_is_denied() -> None:
    """``anonymous: deny``."""
    application = Application(exempt=EXEMPT, anonymous=Anonymous.DENY)
    stage = Stage(door_settings(applications=(application,)))
    root = message.build_search(5, b"", 0, message.present("objectClass"), ())
    below = message.build_search(6, b"", 2, message.present("objectClass"), ())

    told = stage.client(
        search(3), modify(4), root, below, compare(7, b"cn"),
        message.build_extended_request(8, message.WHO_AM_I), message.build_bind(9, b"", b""),
    )  # fmt: skip

    assert codes(told) == [(3, 0x65, 50), (4, 0x67, 50), (6, 0x65, 50), (7, 0x6F, 50), (8, 0x78, 50), (9, 0x61, 48)]
    assert stage.sent() == [root]
    stage.directory(done(5))
    stage.bound(message_id=10)
    stage.client(search(11))
    assert stage.sent() == [search(11)]


def test_a_message_may_be_longer_for_who_is_bound() -> None:
    """``pdu_anonymous`` and ``pdu_bound``, as soon as the length shows it."""
    limits = Limits(pdu_anonymous=1000, pdu_bound=5000)
    stage = Stage(door_settings(limits=limits))
    assert is_notice(stage.client(modify(3, 2000)[:10]), ResultCode.PROTOCOL_ERROR)

    other = Stage(door_settings(limits=limits)).bound()
    other.client(modify(3, 2000))
    assert tags(other.sent()) == [(3, 0x66)]
    assert is_notice(other.client(modify(4, 6000)[:10]), ResultCode.PROTOCOL_ERROR)


def test_a_message_of_the_directory_has_a_bound() -> None:
    """``pdu_upstream``."""
    stage = Stage(door_settings(limits=Limits(pdu_upstream=1000)))
    stage.client(search(3))

    assert is_notice(stage.directory(entry(3, 2000)[:10]), ResultCode.UNAVAILABLE)


def test_operations_beyond_the_limit_wait() -> None:
    """``operations`` are outstanding; the next one goes when one of them has ended, and nothing is lost."""
    stage = Stage(door_settings(limits=Limits(operations=2))).bound()

    stage.client(search(3), search(4), search(5), modify(6))
    assert tags(stage.sent()) == [(3, 0x63), (4, 0x63)]
    stage.directory(done(4))
    assert tags(stage.sent()) == [(5, 0x63)]
    stage.directory(done(3), done(5))

    assert tags(stage.sent()) == [(6, 0x66)]


# -- TLS ----------------------------------------------------------------------------------------------------------------------


def _tls(*, required: bool = False) -> Stage:
    return Stage(door_settings(tls=replace(TLS, required=required)))


def test_start_tls_makes_the_session_secure() -> None:
    """RFC 4511 section 4.14: answered in clear, then the handshake; nothing is taken meanwhile."""
    stage = _tls()

    told = stage.client(START_TLS)

    assert message.parse_result(told[0]).oid == message.START_TLS.encode()
    assert codes(told) == [(1, 0x78, 0)]
    assert stage.handshakes == 1
    assert not stage.transport.reading
    stage.session.secured_by(stage.transport)  # type: ignore[arg-type]
    assert stage.session.secured
    assert codes(stage.client(message.build_extended_request(2, message.START_TLS))) == [(2, 0x78, 1)]


def test_a_full_buffer_is_left_behind_with_the_transport() -> None:
    """What the client had not taken in clear does not stop the directory inside TLS: nobody would start it again."""
    stage = _tls()
    stage.client(search(2))
    stage.directory(done(2))
    stage.session.pause_writing()

    stage.client(START_TLS)
    inside = FakeTransport()
    stage.session.secured_by(inside)  # type: ignore[arg-type]

    assert stage.link.reading
    assert inside.reading
    stage.session.pause_writing()
    assert not inside.reading
    stage.session.resume_writing()
    assert inside.reading


def test_octets_behind_a_start_tls_end_it() -> None:
    """Somebody on the way may have put them there (CVE-2011-0411)."""
    stage = _tls()

    assert is_notice(stage.client(START_TLS, search(2)), ResultCode.PROTOCOL_ERROR)
    assert stage.handshakes == 0
    assert stage.upstreams.links == []


def test_start_tls_comes_alone() -> None:
    """With something outstanding, or sent while a bind was pending, it is an operationsError; without a certificate unknown."""
    stage = _tls()
    stage.client(search(2))
    assert codes(stage.client(START_TLS)) == [(1, 0x78, 1)]

    stage = _tls()
    stage.gate.by_itself = False
    stage.client(message.build_bind(2, BOB, b"secret"), START_TLS)
    stage.gate.asked[0].say(Accepted("event", "totp", ""))
    assert codes(stage.told()) == [(2, 0x61, REFUSED), (1, 0x78, 1)]

    assert codes(Stage().client(START_TLS)) == [(1, 0x78, 2)]


def test_who_was_bound_in_clear_is_nobody_inside_tls() -> None:
    """And nobody to the directory too."""
    stage = _tls().bound()
    first = stage.link

    stage.client(message.build_extended_request(2, message.START_TLS))

    assert stage.session.state is State.ANONYMOUS
    assert first.aborted


def test_where_tls_is_required_nothing_else_is_done() -> None:
    """13 for each, nothing reaches the directory, and of the credential nothing is logged."""
    stage = _tls(required=True)

    told = stage.client(
        message.build_bind(2, BOB, b"secret,123456"), search(3), message.build_extended_request(4, message.WHO_AM_I),
        message.build_abandon(5, 3),
    )  # fmt: skip

    assert codes(told) == [(2, 0x61, 13), (3, 0x65, 13), (4, 0x78, 13)]
    assert stage.upstreams.links == []
    assert stage.gate.asked == []
    stage.client(START_TLS)
    stage.session.secured_by(stage.transport)  # type: ignore[arg-type]
    stage.client(message.build_bind(6, BOB, b"secret,123456"))
    assert len(stage.gate.asked) == 1


@pytest.mark.parametrize("version", [2, 3])
def test_a_bind_in_clear_where_tls_is_required_has_its_line(version: int) -> None:
    """As any that is refused: with the name, and nothing of what proves it."""
    stage = _tls(required=True)
    octets = message.build_bind(2, BOB, b"secret,123456", control(PROXIED)).replace(b"\x02\x01\x03", bytes((2, 1, version)), 1)

    assert stage.client(octets[:20]) == []
    assert codes(stage.client(octets[20:])) == [(2, 0x61, 13)]
    [line] = stage.journal.lines
    assert (line["way"], line["outcome"], line["reason"], line["code"]) == ("none", "rejected", "tls_required", 13)
    assert (line["dn"], line["user"], line["server"]) == (BOB.decode(), "", "")
    assert "secret" not in repr(line)
    assert stage.outcomes == ["rejected"]


def test_a_reload_that_requires_tls_takes_no_more_bind_in_clear() -> None:
    """Nor does one that no longer does go on refusing: the rules are looked at first."""
    stage = _tls().bound()
    before = stage.rules
    stage.rules = Rules(door_settings(tls=replace(TLS, required=True)), stage.services)

    assert codes(stage.client(message.build_bind(2, SERVICE, b"secret"))) == [(2, 0x61, 13)]
    assert stage.sent() == []
    assert stage.link.closed  # a bind that is refused leaves nobody bound
    stage.rules = before
    stage.client(message.build_bind(3, BOB, b"secret,123456"))
    assert len(stage.gate.asked) == 1


def test_a_reload_that_requires_tls_is_for_every_request_in_clear() -> None:
    """What was asked before is answered; TLS is the way on."""
    stage = _tls().bound()
    stage.client(search(2))
    stage.rules = Rules(door_settings(tls=replace(TLS, required=True)), stage.services)
    stage.session.rules_changed()
    stage.sent()

    assert codes(stage.client(search(3))) == [(3, 0x65, 13)]
    assert stage.sent() == []
    assert stage.directory(done(2)) == [done(2)]
    assert codes(stage.client(START_TLS)) == [(1, 0x78, 0)]


def test_a_reload_that_requires_tls_lets_a_pending_bind_end() -> None:
    """It is judged by the rules that it began under; what follows it in clear is not."""
    stage = _tls().bound()
    stage.client(message.build_bind(2, BOB, b"secret,123456"), search(3))
    stage.directory(bind_result(2))
    stage.sent()
    stage.rules = Rules(door_settings(tls=replace(TLS, required=True)), stage.services)
    stage.session.rules_changed()

    assert codes(stage.directory(who_is(2, b"dn:" + BOB))) == [(2, 0x61, 0), (3, 0x65, 13)]
    assert stage.sent() == []


def test_a_long_message_in_clear_is_refused_once_where_tls_is_required() -> None:
    """The rest of it is thrown away."""
    stage = _tls(required=True)
    octets = modify(3, 10_000)

    told = stage.client(octets[:100])
    told += stage.client(octets[100:], search(4))

    assert codes(told) == [(3, 0x67, 13), (4, 0x65, 13)]


def test_an_unbind_in_clear_is_quiet() -> None:
    """Some clients take leave so after TLS, or where it is required."""
    stage = _tls(required=True)

    assert stage.client(UNBIND) == []
    assert stage.transport.closed
    assert stage.malformed == []


def test_a_connection_that_was_over_before_its_handshake_is_hung_up() -> None:
    """An ldaps:// listener gives a session its transport when TLS is there; the door may have closed meanwhile."""
    stage = _tls(required=True)

    stage.session.dismiss()
    stage.session.connection_made(stage.transport)  # type: ignore[arg-type]

    assert stage.transport.closed


# -- back-pressure and time ---------------------------------------------------------------------------------------------------


def test_a_client_that_does_not_read_stops_the_directory_and_itself() -> None:
    """``write_buffer``: neither results nor refusals pile up."""
    stage = Stage().bound()

    stage.session.pause_writing()
    assert (stage.link.reading, stage.transport.reading) == (False, False)
    stage.session.resume_writing()

    assert (stage.link.reading, stage.transport.reading) == (True, True)


def test_a_directory_that_does_not_read_stops_the_client() -> None:
    """The other way round."""
    stage = Stage().bound()

    stage.session.upstream_full()
    assert not stage.transport.reading
    stage.session.upstream_drained()

    assert stage.transport.reading


def test_a_new_connection_waits_for_a_client_that_does_not_read() -> None:
    """What one connection was stopped for holds for the next one."""
    stage = Stage().bound()
    stage.session.pause_writing()

    stage.session.data_received(message.build_bind(2, BOB, b"") + search(3))

    assert not stage.link.reading


def _sweep(stage: Stage, seconds: int) -> None:
    for _ in range(seconds):
        stage.clock.advance(1)
        stage.session.sweep(stage.clock())


def test_a_message_that_does_not_come_ends_it() -> None:
    """``header_s``: an octet now and then does not help."""
    stage = Stage()
    octets = modify(3, 500)

    for octet in octets[:24]:
        stage.session.data_received(bytes((octet,)))
        _sweep(stage, 1)

    assert is_notice(stage.told(), ResultCode.BUSY)
    assert stage.is_over
    assert stage.counted == {"slow_message": 1}


def test_a_long_message_over_a_slow_line_may_take_its_time() -> None:
    """64 KiB in ``header_s`` are enough."""
    stage = Stage().bound()
    octets = modify(3, 1_000_000)

    for at in range(0, len(octets), 20_000):
        stage.session.data_received(octets[at : at + 20_000])
        _sweep(stage, 1)

    assert not stage.is_over
    stage.session.data_received(modify(4, 100_000)[:1000])
    _sweep(stage, 15)
    assert stage.is_over


def test_an_idle_connection_ends() -> None:
    """``idle_s``, unless something is outstanding."""
    stage = Stage(door_settings(limits=Limits(idle_s=60))).bound()
    stage.client(search(3))
    _sweep(stage, 100)
    assert not stage.is_over

    stage.directory(done(3))
    _sweep(stage, 58)
    assert not stage.is_over
    _sweep(stage, 5)

    assert is_notice(stage.told(), ResultCode.BUSY)
    assert stage.is_over


def test_a_client_that_does_not_take_the_last_words_is_hung_up_on() -> None:
    """A transport that cannot be flushed is not kept."""
    stage = Stage()
    stage.client(b"\x30\x80")
    assert stage.transport.closed

    _sweep(stage, 10)

    assert stage.transport.aborted


def test_a_bind_has_its_time() -> None:
    """``bind_s``: then 52, the gate is told, and the session goes on as nobody."""
    stage = Stage()
    stage.client(message.build_bind(2, BOB, b"secret,123456"), search(3))
    first = stage.link

    _sweep(stage, 66)

    assert codes(stage.told()) == [(2, 0x61, 52)]
    assert isinstance(stage.gate.asked[0].told[0], Exception)
    assert first.aborted
    assert stage.sent() == [search(3)]
    assert stage.outcomes == ["timed_out"]


def test_a_door_that_closes_lets_work_end() -> None:
    """Idle sessions hear it at once, the others when their work is done or the time is over."""
    stage = Stage().bound()
    stage.client(search(3))
    stage.session.drain()
    assert not stage.is_over

    stage.directory(done(3))
    stage.session.drain()

    assert is_notice([split(stage.transport.written)[-1]], ResultCode.UNAVAILABLE)
    assert stage.is_over


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_no_octets_of_a_client_do_harm(octets: bytes) -> None:
    """Anything at all: no exception but a proper end, and no bind reaches the directory that the gate was not asked about."""
    stage = Stage().bound()

    stage.session.data_received(search(2) + octets)

    assert all(tag != message.BIND_REQUEST for _, tag in tags(stage.sent())) or stage.gate.asked


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_no_octets_of_a_directory_do_harm(octets: bytes) -> None:
    """While a bind is pending, nothing but its own result counts."""
    stage = Stage()
    stage.client(message.build_bind(2, BOB, b"secret,123456"))

    stage.session.upstream_data(octets)

    assert stage.session.state is not State.BOUND
