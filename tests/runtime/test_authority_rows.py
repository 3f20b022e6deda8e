"""What an authority and an agent keep beside users: uses of codes, alarms, key pairs, codebooks, the state of an agent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import func, select, text

from mfa_core.errors import StoreCorrupt
from mfa_core.secret import Secret
from mfa_runtime.store import agent_state, alarms, codebooks, key_pairs, uses
from mfa_runtime.store.agent_state import AgentState
from mfa_runtime.store.alarms import AlarmKind, raise_alarm
from mfa_runtime.store.codebooks import Codebook
from mfa_runtime.store.ids import peek, take
from mfa_runtime.store.key_pairs import KeyPair
from mfa_runtime.store.schema import otp_uses
from mfa_runtime.store.uses import Clash, Use
from tests.doubles import ALICE, BOB, T0, Installation

DAY = 86_400.0

New = Callable[..., Installation]
"""Makes a store with these people, wherever the tests run."""


# uses


def test_the_same_step_by_two_events_is_a_clash(installed: Installation) -> None:
    """The first use stays, and both are told; the same event again (an upload repeated) is none."""
    first, second = Use(1, 100, 0, "event-a", T0), Use(1, 100, 7, "event-b", T0 + 5)
    with installed.store.writing() as connection:
        assert uses.record(connection, [first, Use(1, 101, 7, "event-c", T0)]) == []
        assert uses.record(connection, [first]) == []
        assert uses.record(connection, [Use(1, 102, 7, "event-d", T0), second]) == [Clash(first, second)]
        assert uses.find(connection, 1, 100) == first
        assert uses.find(connection, 1, 102) is not None
        assert uses.find(connection, 2, 100) is None


def test_two_hosts_that_made_the_same_event_id_clash(installed: Installation) -> None:
    """A copy of a virtual machine: an id that is random proves nothing between two hosts."""
    with installed.store.writing() as connection:
        uses.record(connection, [Use(1, 100, 7, "event", T0)])
        assert len(uses.record(connection, [Use(1, 100, 8, "event", T0)])) == 1


def test_uses_of_a_login_are_written_in_its_transaction(installed: Installation) -> None:
    """Prepared statements only."""
    session = installed.store.session()
    with session.writing() as connection:
        uses.record(connection, [Use(1, 100, 0, "event-a", T0)])
        assert raise_alarm(connection, AlarmKind.REPLAY_SUSPECTED, now=T0, user_id=1)
    session.close()

    with installed.store.reading() as connection:
        assert connection.execute(select(func.count()).select_from(otp_uses)).scalar() == 1
        assert len(list(alarms.list_alarms(connection))) == 1


def test_old_uses_are_forgotten_in_pieces(installed: Installation) -> None:
    """The oldest first, so many at a time."""
    with installed.store.writing() as connection:
        uses.record(connection, [Use(1, step, 0, "event", T0 + step) for step in range(500)])
        assert uses.forget(connection, T0 + 450, limit=300) == 300
        assert uses.forget(connection, T0 + 450, limit=300) == 150
        assert uses.forget(connection, T0 + 450, limit=300) == 0
        assert connection.execute(select(func.min(otp_uses.c.step))).scalar() == 450


# alarms


def test_an_alarm_is_raised_once_a_day(installed: Installation) -> None:
    """Of one kind, host and user; when somebody has seen it, the next one is new."""
    with installed.store.writing() as connection:
        fork = AlarmKind.JOURNAL_FORK
        assert raise_alarm(connection, fork, now=T0, host_id=1, details={"epoch": 1})
        assert not raise_alarm(connection, fork, now=T0 + 100, host_id=1)
        assert raise_alarm(connection, fork, now=T0 + 100, host_id=2)
        assert raise_alarm(connection, fork, now=T0 + DAY, host_id=1)
        newest, *_ = alarms.list_alarms(connection)
        assert (newest.kind, newest.host_id, newest.at) == (fork, 1, T0 + DAY)

        assert alarms.acknowledge(connection, newest.id, T0 + DAY + 1)
        assert not alarms.acknowledge(connection, newest.id, T0 + DAY + 1)
        assert len(list(alarms.list_alarms(connection))) == 2
        assert len(list(alarms.list_alarms(connection, unseen=False))) == 3
        assert raise_alarm(connection, fork, now=T0 + DAY + 2, host_id=1)


def test_alarms_are_bounded(installed: Installation) -> None:
    """Those that were seen go by age, and of the rest the oldest go."""
    with installed.store.writing() as connection:
        for host in range(10):
            raise_alarm(connection, AlarmKind.CLOCK_OFFSET, now=T0 + host, host_id=host)
        alarms.acknowledge(connection, 1, T0)
        assert alarms.forget(connection, T0 + 1) == 1
        assert alarms.forget(connection, T0 + 1) == 0
        assert alarms.forget(connection, T0, keep=4) == 5
        assert [alarm.id for alarm in alarms.list_alarms(connection)] == [10, 9, 8, 7]


def test_details_are_bounded(installed: Installation) -> None:
    """Whoever causes an alarm does not fill the store with it."""
    with installed.store.writing() as connection:
        raise_alarm(connection, AlarmKind.CLOCK_OFFSET, now=T0, details={"name": "x" * 100_000})
        (alarm,) = alarms.list_alarms(connection)

    assert len(str(alarm.details)) < 1_000


# key pairs and codebooks


def test_a_key_pair_opens_under_its_own_name_alone(installed: Installation) -> None:
    """Rows that somebody swapped do not open."""
    ring = installed.keyring()
    pair = KeyPair("tls", Secret(b"private"), b"public", b"certificate", T0, T0 + DAY)
    with installed.store.writing() as connection:
        key_pairs.save(connection, ring, replace(pair, private=Secret(b"old")))
        key_pairs.save(connection, ring, pair)
        loaded = key_pairs.load(connection, ring, "tls")
        assert loaded is not None
        assert loaded.private.same_as(pair.private)
        assert replace(loaded, private=pair.private) == pair
        assert key_pairs.load(connection, ring, "hpke") is None
        assert key_pairs.names(connection) == ["tls"]

        connection.execute(text("UPDATE key_pairs SET name = 'ca'"))
        with pytest.raises(StoreCorrupt):
            key_pairs.load(connection, ring, "ca")


def test_a_renewed_pair_takes_the_place_of_the_old_one(installed: Installation) -> None:
    """It is sealed for its new name."""
    ring = installed.keyring()
    with installed.store.writing() as connection:
        key_pairs.save(connection, ring, KeyPair("tls", Secret(b"old"), b""))
        key_pairs.save(connection, ring, KeyPair("tls.next", Secret(b"new"), b"n"))
        assert key_pairs.rename(connection, ring, "tls.next", "tls")
        assert not key_pairs.rename(connection, ring, "tls.next", "tls")
        loaded = key_pairs.load(connection, ring, "tls")
        assert loaded is not None
        assert loaded.private.same_as(Secret(b"new"))
        assert key_pairs.names(connection) == ["tls"]


def test_codebooks_are_replaced_and_open_for_their_credential_alone(new_installed: New) -> None:
    """A later book takes the place of an earlier one; a book that was moved does not open."""
    installed = new_installed(ALICE, BOB)
    ring = installed.keyring()
    with installed.store.writing() as connection:
        codebooks.put(connection, ring, [Codebook(1, 100, Secret(b"old")), Codebook(2, 200, Secret(b"two"))])
        codebooks.put(connection, ring, [Codebook(1, 300, Secret(b"new"))])
        found = codebooks.get(connection, ring, [1, 2, 3])
        assert {number: (book.first_step, book.codes.reveal()) for number, book in found.items()} == {
            1: (300, b"new"), 2: (200, b"two"),
        }  # fmt: skip
        assert {n: one.first_step for n, one in codebooks.lengths(connection).items()} == {1: 300, 2: 200}
        assert codebooks.forget(connection, [1]) == 1
        connection.execute(text("UPDATE codebooks SET credential_id = 1"))
        with pytest.raises(StoreCorrupt):
            codebooks.get(connection, ring, [1])
        assert codebooks.clear(connection) == 1
    installed.close()


# the state of an agent

STATE = AgentState(
    host_id=7, host_name="web1.example", authority_id="a" * 32, authorities=("https://a.example", "https://b.example"),
    trust=b"-----BEGIN", signers={"k1": b"\x00" * 32}, host='{"material": "seed"}', rules="[]",
)  # fmt: skip


def test_the_state_of_an_agent_is_kept_whole_and_changed_in_parts(installed: Installation) -> None:
    """What was not named stays."""
    with installed.store.writing() as connection:
        assert agent_state.load(connection) is None
        assert not agent_state.change(connection, cursor=5)
        agent_state.save(connection, STATE)
        assert agent_state.load(connection) == STATE
        assert agent_state.change(connection, cursor=5, signers={"k2": b"\x01"}, authorities=["https://c.example"])
        assert agent_state.load(connection) == replace(
            STATE, cursor=5, signers={"k2": b"\x01"}, authorities=("https://c.example",)
        )
        agent_state.save(connection, STATE)
        assert agent_state.load(connection) == STATE
        with pytest.raises(TypeError):
            agent_state.change(connection, curser=5)


def test_the_floor_of_the_clock_only_rises(installed: Installation) -> None:
    """Also in a login's transaction."""
    with installed.store.writing() as connection:
        agent_state.save(connection, replace(STATE, floor=100.0))
    session = installed.store.session()
    with session.writing() as connection:
        assert not agent_state.raise_floor(connection, 99.0)
        assert agent_state.raise_floor(connection, 101.0)
        state = agent_state.load(connection)
    session.close()

    assert state is not None
    assert state.floor == 101.0


@pytest.mark.parametrize(
    "spoilt", ["signers = 'x'", "signers = '[]'", "signers = '{\"k\": \"!\"}'", "authorities = 'x'", "authorities = '7'"]
)
def test_a_state_that_cannot_be_read_is_named(installed: Installation, spoilt: str) -> None:
    """And cured by joining again."""
    with installed.store.writing() as connection:
        agent_state.save(connection, STATE)
        connection.execute(text(f"UPDATE agent_state SET {spoilt}"))
        with pytest.raises(StoreCorrupt) as caught:
            agent_state.load(connection)

    assert "join" in caught.value.cure


# numbers


def test_numbers_are_taken_in_one_statement(installed: Installation) -> None:
    """The first of a counter as well, and in a login's transaction."""
    session = installed.store.session()
    with session.writing() as connection:
        assert take(connection, "things") == 1
        assert take(connection, "things", 5) == 2
        assert take(connection, "things") == 7
    session.close()
    with installed.store.reading() as connection:
        assert peek(connection, "things") == 8
