"""Users are required, exempted, locked and reset in one transaction each, with one audit event each."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import insert

from mfa_core.errors import Conflict, NotFound
from mfa_core.model import CredentialState, EnrolmentState, Requirement
from mfa_core.throttle import Record
from mfa_runtime.administration import users
from mfa_runtime.administration.enrolment import Parameters, begin, provision_active
from mfa_runtime.administration.recovery import new_recovery_codes
from mfa_runtime.administration.users import Group, UserFilter
from mfa_runtime.store.schema import throttle
from tests.doubles import Installation

DAY = 86_400


def events(installed: Installation) -> list[tuple[str, str]]:
    """Action and subject of every administrative event."""
    bodies = [json.loads(str(row["body"])) for row in installed.rows("audit")]
    return [(body["action"], body.get("subject", "")) for body in bodies if body["event"] == "admin"]


def put_throttle(installed: Installation, *keys: str) -> None:
    with installed.store.writing() as connection:
        for key in keys:
            connection.execute(
                insert(throttle).values(
                    key=key, failures=9, consecutive=100, not_before=1e12, last_failure_at=1.0, last_success_at=1.0,
                    last_tag=b"", scope="",
                )
            )


def names(installed: Installation, wanted: UserFilter, limit: int | None = None) -> list[str]:
    with installed.store.reading() as connection:
        return [user.name for user in users.list_users(connection, wanted, now=installed.clock(), limit=limit)]


def test_every_change_stands_in_the_audit_log_once(installed: Installation) -> None:
    """Add, require, exempt, lock, unlock, reset: one event each, in the order of the changes."""
    with installed.store.writing() as connection:
        act = installed.act()
        users.add_user(connection, act, "carol")
        users.require(connection, act, "carol", days=7)
        users.exempt(connection, act, "carol", reason="service account")
        users.follow_policy(connection, act, "carol")
        users.lock(connection, act, "carol")
        users.unlock(connection, act, "carol")
        users.reset(connection, act, "carol")

    assert [action for action, _ in events(installed)] == [
        "user.add", "user.require", "user.exempt", "user.inherit", "user.lock", "user.unlock", "user.reset",
    ]  # fmt: skip


def test_a_change_that_fails_leaves_neither_row_nor_event(installed: Installation) -> None:
    """Both stand in one transaction."""
    def add_twice() -> None:
        with installed.store.writing() as connection:
            users.add_user(connection, installed.act(), "carol")
            users.add_user(connection, installed.act(), "carol")

    with pytest.raises(Conflict):
        add_twice()

    assert events(installed) == []
    assert "carol" not in names(installed, UserFilter())


def test_requiring_again_does_not_extend_the_grace(installed: Installation) -> None:
    """The deadline of the first call stands; a shorter one may replace it."""
    with installed.store.writing() as connection:
        act = installed.act()
        users.add_user(connection, act, "carol")
        first = users.require(connection, act, "carol", days=7).grace_until
        installed.clock.advance(5 * DAY)
        again = users.require(connection, installed.act(), "carol", days=30)
        shorter = users.require(connection, installed.act(), "carol", days=1)

    assert again.grace_until == first
    assert again.requirement is Requirement.REQUIRED
    assert again.state is EnrolmentState.INVITED
    assert shorter.grace_until == installed.clock() + DAY


def test_unlock_clears_the_throttle_of_this_user_only(installed: Installation) -> None:
    """Names with wildcards of SQL in them are names; a user whose name begins alike keeps the wait."""
    with installed.store.writing() as connection:
        users.add_user(connection, installed.act(), "a_b")
        users.lock(connection, installed.act(), "a_b")
    put_throttle(installed, "account:a_b", "lane:a_b 192.0.2.1", "account:axb", "lane:axb 192.0.2.1", "account:a_bc")

    with installed.store.writing() as connection:
        user = users.unlock(connection, installed.act(), "a_b")

    assert not user.locked
    assert [row["key"] for row in installed.rows("throttle")] == ["account:a_bc", "account:axb", "lane:axb 192.0.2.1"]


def test_reset_revokes_everything_and_keeps_the_lock(installed: Installation) -> None:
    """Credentials, codes, trust and grace are gone; who was locked stays locked."""
    with installed.store.writing() as connection:
        act = installed.act()
        user = users.add_user(connection, act, "carol")
        provision_active(connection, act, user, Parameters("ACME"))
        new_recovery_codes(connection, act, user)
        users.require(connection, act, "carol", days=7)
        users.lock(connection, act, "carol")
    put_throttle(installed, "account:carol", "lane:carol 192.0.2.1")

    with installed.store.writing() as connection:
        after = users.reset(connection, installed.act(), "carol")

    assert (after.state, after.grace_until, after.locked) == (EnrolmentState.NONE, 0.0, True)
    assert installed.credential_of("carol")["state"] == CredentialState.REVOKED
    assert installed.rows("one_time_codes") == []
    assert installed.rows("throttle") == []


def test_an_unknown_user_is_not_found_with_a_cure(installed: Installation) -> None:
    """The error says where to look."""
    with pytest.raises(NotFound) as caught, installed.store.writing() as connection:
        users.lock(connection, installed.act(), "nobody")

    assert "user list" in caught.value.cure


def test_the_list_is_filtered_and_limited(installed: Installation) -> None:
    """By state, by factor, by lock, by pattern; ``_`` in a pattern is no wildcard."""
    with installed.store.writing() as connection:
        for name in ("a_b", "axb", "zoe"):
            users.add_user(connection, installed.act(), name)
        users.lock(connection, installed.act(), "zoe")

    assert names(installed, UserFilter()) == ["a_b", "alice", "axb", "bob", "zoe"]
    assert names(installed, UserFilter(name="a_*")) == ["a_b"]
    assert names(installed, UserFilter(name="a?b")) == ["a_b", "axb"]
    assert names(installed, UserFilter(locked=True)) == ["zoe"]
    assert names(installed, UserFilter(factor=Group.NO_FACTOR)) == ["a_b", "axb", "zoe"]
    assert names(installed, UserFilter(state=EnrolmentState.ACTIVE)) == ["alice", "bob"]
    assert names(installed, UserFilter(), limit=2) == ["a_b", "alice"]


def test_a_list_longer_than_a_page_has_everybody_once(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages follow each other by name, without a gap and without a repetition."""
    monkeypatch.setattr(users, "_PAGE", 3)
    with installed.store.writing() as connection:
        for number in range(10):
            users.add_user(connection, installed.act(), f"user{number}")

    assert names(installed, UserFilter(name="user*")) == [f"user{number}" for number in range(10)]


def test_a_pending_enrolment_that_ran_out_is_listed_as_an_invitation(installed: Installation) -> None:
    """Nobody has to come by for the list to be true."""
    with installed.store.writing() as connection:
        begin(connection, installed.act(), users.add_user(connection, installed.act(), "carol"), Parameters("ACME"))

    assert names(installed, UserFilter(state=EnrolmentState.PENDING)) == ["carol"]
    installed.clock.advance(901)
    assert names(installed, UserFilter(state=EnrolmentState.PENDING)) == []
    assert names(installed, UserFilter(state=EnrolmentState.INVITED)) == ["carol"]


def test_the_account_throttle_can_be_shown(installed: Installation) -> None:
    """For ``mfactl user show``."""
    put_throttle(installed, "account:alice")

    with installed.store.reading() as connection:
        assert users.throttle_of(connection, "alice").consecutive == 100
        assert users.throttle_of(connection, "bob") == Record()
