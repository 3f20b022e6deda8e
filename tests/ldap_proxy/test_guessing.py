"""Who guesses at accounts that need no code, and who is not kept out by it."""

from __future__ import annotations

import ipaddress

import pytest

from ldap_proxy.guessing import FORGIVEN_S, GOOD_S, MAX_ORIGINS, MAX_REMEMBERED, REFRESH_S, Guessing
from mfa_core.secret import Secret
from tests.doubles import FakeClock

MOST = 5
SVC = b"cn=svc,dc=example,dc=org"
GOOD, WRONG = Secret(b"right"), Secret(b"wrong")
HERE, THERE = "192.0.2.1", "192.0.2.2"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def guessing(clock: FakeClock) -> Guessing:
    return Guessing(MOST, key=Secret(bytes(32)), monotonic=clock)


def fail(guessing: Guessing, source: str, times: int = MOST) -> None:
    for _ in range(times):
        guessing.failed(source)


def test_so_many_failures_and_no_more(guessing: Guessing) -> None:
    """From one source, whatever the account; others are not concerned."""
    for _ in range(MOST):
        assert guessing.may_try(HERE, SVC, WRONG)
        guessing.failed(HERE)
    assert not guessing.may_try(HERE, SVC, WRONG)
    assert not guessing.may_try(HERE, b"cn=other", GOOD)
    assert guessing.may_try(THERE, SVC, WRONG)


def test_failures_are_forgotten_one_by_one(guessing: Guessing, clock: FakeClock) -> None:
    """Who waits may try once for each time; who has waited long enough starts afresh."""
    fail(guessing, HERE)
    clock.advance(FORGIVEN_S - 1)
    assert not guessing.may_try(HERE, SVC, WRONG)
    clock.advance(2)
    assert guessing.may_try(HERE, SVC, WRONG)
    guessing.failed(HERE)
    assert not guessing.may_try(HERE, SVC, WRONG)

    clock.advance(FORGIVEN_S * (MOST + 1))
    for _ in range(MOST):
        assert guessing.may_try(HERE, SVC, WRONG)
        guessing.failed(HERE)
    assert not guessing.may_try(HERE, SVC, WRONG)


def test_failures_beyond_the_bound_do_not_pile_up(guessing: Guessing, clock: FakeClock) -> None:
    """Binds that were under way already may fail too; nobody waits for days because of them."""
    fail(guessing, HERE, 1000)
    clock.advance(FORGIVEN_S * 2 + 1)
    assert guessing.may_try(HERE, SVC, WRONG)


def test_what_is_under_way_counts_where_somebody_has_failed(guessing: Guessing, clock: FakeClock) -> None:
    """Many guesses at once are no way to have more of them."""
    fail(guessing, HERE)
    clock.advance(FORGIVEN_S * 3 + 1)
    for _ in range(3):
        assert guessing.may_try(HERE, SVC, WRONG)
        guessing.began(HERE)
    assert not guessing.may_try(HERE, SVC, WRONG)
    assert guessing.may_try(THERE, SVC, WRONG)

    guessing.ended(HERE)
    assert guessing.may_try(HERE, SVC, WRONG)


def test_an_application_may_open_all_its_connections_at_once(guessing: Guessing, clock: FakeClock) -> None:
    """Nobody has failed there, or not for long; afterwards nothing is under way."""
    fail(guessing, THERE)
    for _ in range(MOST * 3):
        assert guessing.may_try(HERE, SVC, GOOD)
        guessing.began(HERE)
    for _ in range(MOST * 3):
        guessing.ended(HERE)
    assert not guessing._under_way


def test_one_host_has_a_64_of_ipv6(guessing: Guessing) -> None:
    """Another address of the same /64 is the same guesser."""
    fail(guessing, "2001:db8::1")
    assert not guessing.may_try("2001:db8::ffff:1", SVC, WRONG)
    assert guessing.may_try("2001:db8:0:1::1", SVC, WRONG)
    fail(guessing, "::ffff:192.0.2.1")
    assert not guessing.may_try(HERE, SVC, WRONG)


def test_the_password_that_was_right_is_let_through(guessing: Guessing, clock: FakeClock) -> None:
    """An application's account is not shut out by those who guess at it through the application."""
    guessing.succeeded(HERE, SVC, GOOD)
    fail(guessing, HERE)
    assert guessing.may_try(HERE, SVC, GOOD)
    assert not guessing.may_try(HERE, SVC, WRONG)
    assert not guessing.may_try(HERE, b"cn=other", GOOD)

    fail(guessing, THERE)
    assert not guessing.may_try(THERE, SVC, GOOD)  # there it was never right

    clock.advance(GOOD_S)
    fail(guessing, HERE)
    assert not guessing.may_try(HERE, SVC, GOOD)


def test_a_password_that_was_changed_takes_the_place_of_the_old_one(guessing: Guessing, clock: FakeClock) -> None:
    """At the first look after a while."""
    guessing.succeeded(HERE, SVC, GOOD)
    clock.advance(REFRESH_S)
    guessing.succeeded(HERE, SVC, Secret(b"new"))
    fail(guessing, HERE)
    assert guessing.may_try(HERE, SVC, Secret(b"new"))
    assert not guessing.may_try(HERE, SVC, GOOD)


def test_a_success_forgives_nothing(guessing: Guessing) -> None:
    """A guesser may have an account of his own to bind with in between."""
    for _ in range(MOST):
        guessing.failed(HERE)
        guessing.succeeded(HERE, b"cn=mine", Secret(b"mine"))
    assert not guessing.may_try(HERE, SVC, WRONG)


def test_the_tables_are_bounded(guessing: Guessing) -> None:
    """A flood of origins pushes the oldest out, and takes no memory."""
    fail(guessing, HERE)
    for number in range(2 * MAX_ORIGINS):
        source = str(ipaddress.IPv4Address(number))
        guessing.failed(source)
        guessing.succeeded(source, b"cn=%d" % number, GOOD)
        guessing.succeeded(source, bytes(5000), GOOD)
    assert len(guessing._failures) <= MAX_ORIGINS
    assert len(guessing._origins) <= MAX_REMEMBERED
    assert len(guessing._good) <= 1024
    assert all(len(name) < 5000 for _, name in guessing._good._kept)


def test_nothing_of_a_password_is_kept(guessing: Guessing) -> None:
    """Not even under its own hash: an HMAC under a key of the process."""
    guessing.succeeded(HERE, SVC, Secret(b"correct horse"))
    assert b"correct horse" not in repr(guessing._good._kept).encode()
    other = Guessing(MOST, key=Secret(bytes(31) + b"\1"), monotonic=FakeClock())
    other.succeeded(HERE, SVC, Secret(b"correct horse"))
    assert [tag for _, (tag, _) in guessing._good._kept.values()] != [tag for _, (tag, _) in other._good._kept.values()]
