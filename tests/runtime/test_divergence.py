"""Rows that say less than the audit log were put back."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, update

from mfa_core.verdict import Accepted
from mfa_runtime.store import audit_log
from mfa_runtime.store.divergence import find_rolled_back
from mfa_runtime.store.schema import audit, audit_head, credentials
from tests.doubles import ALICE, BOB, T0, Installation, attempt


def found(installation: Installation) -> list[str]:
    """What the comparison finds."""
    with installation.store.reading() as connection:
        return find_rolled_back(connection)


@pytest.fixture
def used(installed: Installation) -> Installation:
    """Alice and bob have logged in."""
    rulings = installed.process(installed.ledger(), attempt("alice", ALICE.code(T0)), attempt("bob", BOB.code(T0)))
    assert all(isinstance(ruling.verdict, Accepted) for ruling in rulings)
    return installed


def test_rows_that_agree_with_the_log_are_no_problem(used: Installation) -> None:
    """Every login moves both in one transaction."""
    assert found(used) == []


def test_a_watermark_that_was_put_back_is_found(used: Installation) -> None:
    """core-5-25: somebody with write access would make a seen code good again."""
    number = used.credential_of("alice")["id"]
    with used.store.writing() as connection:
        connection.execute(update(credentials).where(credentials.c.id == number).values(last_step=-1))

    (problem,) = found(used)

    assert f"credential {number}: its watermark is -1" in problem


def test_an_emptied_log_is_a_problem(used: Installation) -> None:
    """core-5-25: no events is no proof that nothing happened."""
    with used.store.writing() as connection:
        connection.execute(delete(audit))
        connection.execute(delete(audit_head))

    with used.store.reading() as connection:
        (report,) = audit_log.verify(connection, keyring=used.keyring())

    assert "emptied" in report.problems[0]
