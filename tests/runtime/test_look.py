"""What was read before the transaction is not read again where it holds, and is where anything could have changed it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from mfa_core.model import FirstFactor, Grammar, Interaction, SplitMode
from mfa_core.passcode import read_passcode
from mfa_core.policy import Policy
from mfa_core.secret import Secret
from mfa_core.split import Split
from mfa_core.throttle import UNTOUCHED, ThrottleRules
from mfa_core.verdict import Accepted, Rejected
from mfa_core.verifier import Password, Settings
from mfa_runtime import look
from mfa_runtime.administration import users
from mfa_runtime.ledger import Ledger
from mfa_runtime.look import Freshness, Keys, Look, Mark
from mfa_runtime.sitting import Entry
from mfa_runtime.store.schema import credentials
from tests.doubles import ALICE, BOB, SOURCE, T0, Installation, attempt, wrong

STRICT = Settings(throttle=ThrottleRules(free=0, base_s=60.0, source_free=1))
GUESS = wrong(*(one.code(T0, o) for one in (ALICE, BOB) for o in range(-12, 13)))
CODE = ALICE.code(T0)


def bind(name: str, code: str) -> Entry:
    """A bind with a code behind a password that was found good."""
    reading = Split(Secret(b"hunter2"), read_passcode(code.encode()))
    one = attempt(
        name, f"hunter2,{code}", first_factor=FirstFactor.OURS, interaction=Interaction.ONE_SHOT,
        grammar=Grammar(SplitMode.SEPARATOR),
    )  # fmt: skip
    return Entry(one, name, Policy().default.decision(), STRICT, Password.GOOD, reading=reading)


def looked(ledger: Ledger, entry: Entry) -> Entry:
    """The entry with what the store holds now."""
    found = ledger.look([entry])
    assert found is not None
    assert entry.reading is not None
    return entry.read_as(entry.reading, entry.password, found[0])


def outcome(ledger: Ledger, entry: Entry) -> str:
    """What becomes of it now."""
    (ruling,) = ledger.process([entry])
    return ruling.verdict.reason.value if isinstance(ruling.verdict, Rejected) else type(ruling.verdict).__name__.lower()


def started(installed: Installation) -> Ledger:
    """A ledger that has written before: its first transaction meets whoever wrote until then."""
    ledger = installed.ledger()
    ledger.process([bind("bob", BOB.code(T0))])
    return ledger


def statements(ledger: Ledger) -> list[str]:
    """What the writer's connection is told from here on."""
    raw: Any = ledger._session.connect().connection.driver_connection
    told: list[str] = []
    raw.set_trace_callback(told.append)
    return told


def test_what_holds_is_not_read_again(installed: Installation) -> None:
    """Neither the account nor the throttle; the code is spent by its compare-and-set all the same."""
    ledger = started(installed)
    entry = looked(ledger, bind("alice", CODE))
    told = statements(ledger)

    assert outcome(ledger, entry) == "accepted"
    assert not [text for text in told if "FROM list JOIN" in text]
    assert [text for text in told if text.startswith("UPDATE credentials")]
    assert outcome(ledger, bind("alice", CODE)) == "replayed"


def test_what_is_not_there_holds_as_well(installed: Installation) -> None:
    """A name that the store does not know."""
    ledger = started(installed)
    entry = looked(ledger, bind("nobody", GUESS))
    told = statements(ledger)

    assert outcome(ledger, entry) == "mismatch"
    assert not [text for text in told if "FROM list JOIN" in text]


def _spend_here(installed: Installation, ledger: Ledger) -> None:
    assert outcome(ledger, bind("alice", CODE)) == "accepted"


def _spend_there(installed: Installation, ledger: Ledger) -> None:
    assert outcome(installed.ledger(), bind("alice", CODE)) == "accepted"


def _spend_there_and_lose_the_connection(installed: Installation, ledger: Ledger) -> None:
    _spend_there(installed, ledger)
    ledger._session.close()


def _fail_here(installed: Installation, ledger: Ledger) -> None:
    assert outcome(ledger, bind("alice", GUESS)) == "mismatch"


def _fail_there(installed: Installation, ledger: Ledger) -> None:
    assert outcome(installed.ledger(), bind("alice", GUESS)) == "mismatch"


def _fail_as_somebody_else_from_there(installed: Installation, ledger: Ledger) -> None:
    for _ in range(3):
        ledger.process([replace(bind("nobody", GUESS), password=Password.BAD)])


def _lock(installed: Installation, ledger: Ledger) -> None:
    with installed.store.writing() as connection:
        users.lock(connection, installed.act(), "alice")


def _suspend(installed: Installation, ledger: Ledger) -> None:
    with installed.store.writing() as connection:
        connection.execute(update(credentials).values(state="suspended"))


def _forget_what_was_touched(installed: Installation, ledger: Ledger) -> None:
    _spend_here(installed, ledger)
    ledger._freshness.committed(str(n) for n in range(look.MAX_TOUCHED))
    ledger._freshness.committed(())


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        (_spend_here, "replayed"),
        (_spend_there, "replayed"),
        (_spend_there_and_lose_the_connection, "replayed"),
        (_fail_here, "throttled"),
        (_fail_there, "throttled"),
        (_fail_as_somebody_else_from_there, "source_throttled"),
        (_lock, "mismatch"),
        (_suspend, "mismatch"),
        (_forget_what_was_touched, "replayed"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else value,
)
def test_what_changed_since_the_look_counts(
    installed: Installation, between: Callable[[Installation, Ledger], None], expected: str
) -> None:
    """Whoever changed it, and whichever row of it."""
    ledger = started(installed)
    entry = looked(ledger, bind("alice", CODE))

    between(installed, ledger)

    assert outcome(ledger, entry) == expected


def test_looks_of_one_batch_are_judged_one_after_another(installed: Installation) -> None:
    """Two binds with one code, looked up before either was judged."""
    ledger = started(installed)
    both = [looked(ledger, bind("alice", CODE)) for _ in range(2)]

    first, second = ledger.process(both)

    assert isinstance(first.verdict, Accepted)
    assert isinstance(second.verdict, Rejected)


def test_a_look_before_the_first_transaction_is_none(installed: Installation) -> None:
    """Nobody has compared the number of the connection yet."""
    fresh = Freshness()
    before = Look(fresh.mark, Keys("account:alice", "", ""), None, UNTOUCHED)

    fresh.meet((1, 1))

    assert not fresh.holds(before)
    assert fresh.holds(replace(before, mark=fresh.mark))


def test_a_store_that_cannot_tell_who_wrote_is_read_again() -> None:
    """PostgreSQL."""
    fresh = Freshness()
    fresh.meet(None)
    before = Look(fresh.mark, Keys("account:alice", f"lane:alice {SOURCE}", ""), None, UNTOUCHED)
    assert fresh.holds(before)

    fresh.meet(None)

    assert not fresh.holds(before)
    assert before.mark == Mark(1, 0)
