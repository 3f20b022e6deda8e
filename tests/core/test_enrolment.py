"""The enrolment table has no move that it does not show, and grace is never put off."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.enrolment import MOVES, Move, grace_deadline, moved, pending_until, settled
from mfa_core.errors import Conflict, InvalidInput
from mfa_core.model import CredentialState as C
from mfa_core.model import EnrolmentState as E

DAY = 86_400


@pytest.mark.parametrize(("state", "move"), list(itertools.product(E, Move)))
def test_every_pair_is_a_move_or_a_conflict_with_a_cure(state: E, move: Move) -> None:
    """The table is the whole of it."""
    if (state, move) in MOVES:
        assert moved(state, move) is MOVES[state, move]
    else:
        with pytest.raises(Conflict) as caught:
            moved(state, move)
        assert caught.value.cure


def test_only_a_code_or_an_administrator_makes_a_user_active() -> None:
    """Nothing but CONFIRM, PROVISION and RESUME leads into ACTIVE from outside."""
    into = {move for (state, move), after in MOVES.items() if after is E.ACTIVE and state is not E.ACTIVE}

    assert into == {Move.CONFIRM, Move.PROVISION, Move.RESUME}


@pytest.mark.parametrize("state", [E.SUSPENDED, E.REVOKED])
def test_who_was_suspended_or_revoked_cannot_begin_by_himself(state: E) -> None:
    """Else a known password would be enough to enrol over it."""
    with pytest.raises(Conflict):
        moved(state, Move.BEGIN)


def test_every_state_can_be_reset() -> None:
    """There is always a way out."""
    assert {moved(state, Move.RESET) for state in E} == {E.NONE}


@pytest.mark.parametrize(
    ("state", "credentials", "after"),
    [
        (E.ACTIVE, [C.ACTIVE, C.REVOKED], E.ACTIVE),
        (E.ACTIVE, [C.SUSPENDED, C.REVOKED], E.SUSPENDED),
        (E.ACTIVE, [C.REVOKED], E.REVOKED),
        (E.ACTIVE, [], E.REVOKED),
        (E.SUSPENDED, [C.ACTIVE], E.ACTIVE),
        (E.SUSPENDED, [C.REVOKED], E.REVOKED),
        (E.SUSPENDED, [C.SUSPENDED], E.SUSPENDED),
        (E.PENDING, [C.PENDING, C.REVOKED], E.PENDING),
    ],
)
def test_a_user_follows_the_credentials(state: E, credentials: list[C], after: E) -> None:
    """The last one decides."""
    assert settled(state, credentials) is after


def test_grace_starts_now_and_ends_after_whole_days() -> None:
    """Seven days are seven times 86,400 seconds."""
    assert grace_deadline(0, now=1_000.0, days=7) == 1_000 + 7 * DAY


@pytest.mark.parametrize("days", [-1, 0, 366])
def test_grace_outside_its_bounds_is_refused(days: int) -> None:
    """1 to 365 days."""
    with pytest.raises(InvalidInput):
        grace_deadline(0, now=0.0, days=days)


@given(st.lists(st.tuples(st.floats(0, 1e9), st.integers(1, 365)), min_size=1, max_size=8))
def test_a_repeated_requirement_never_extends_grace(calls: list[tuple[float, int]]) -> None:
    """Whatever the order of reminders, the first deadline is the latest one."""
    calls.sort()
    deadlines = []
    granted = 0.0
    for now, days in calls:
        granted = grace_deadline(granted, now=now, days=days)
        deadlines.append(granted)

    assert deadlines == sorted(deadlines, reverse=True)


def test_a_shown_secret_can_be_confirmed_for_fifteen_minutes() -> None:
    """Measured from the moment it was shown."""
    assert pending_until(100.0) == 100.0 + 900
