"""Nobody can tell from the time who has a second factor: the work is counted, because clocks in tests lie."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import FrameType

import pytest

from mfa_core import codebook
from mfa_core.model import EnrolmentState, FactorKind, Material, User
from mfa_core.oath import step_at
from mfa_core.passcode import read_passcode
from mfa_core.policy import Decision
from mfa_core.secret import Secret
from mfa_core.throttle import Throttle
from mfa_core.verifier import Settings, Situation, judge
from mfa_runtime.administration.bypass import issue_bypass
from mfa_runtime.administration.recovery import new_recovery_codes
from mfa_runtime.administration.users import find_user
from tests.doubles import ALICE, T0, Installation, attempt, wrong

GUESS = wrong(*(ALICE.code(T0, offset) for offset in range(-12, 13)))


def calls(work: Callable[[], object]) -> Counter[str]:
    """How often each function of ours and of pyotp and argon2 was called."""
    seen: Counter[str] = Counter()

    def look(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            seen[frame.f_code.co_name] += 1

    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(None)
    return seen


def _situation(**changes: object) -> Situation:
    known = Situation("alice", User(1, "alice", EnrolmentState.ACTIVE), (ALICE.credential,), Throttle(), Decision("r"), T0)
    return replace(known, **changes)  # type: ignore[arg-type]


STRANGERS = {
    "unknown": {"user": None, "credentials": ()},
    "refused-name": {"name": "", "user": None, "credentials": ()},
    "not-enrolled": {"credentials": ()},
    "locked": {"user": replace(_situation().user, locked=True)},  # type: ignore[type-var]
    "suspended": {"user": replace(_situation().user, state=EnrolmentState.SUSPENDED)},  # type: ignore[type-var]
}


@pytest.mark.parametrize("who", STRANGERS)
def test_a_wrong_code_costs_the_same_hmacs_for_everybody(who: str) -> None:
    """core-5-18: three of the window and twenty-three of the resynchronisation, with a secret that nobody has."""

    def judged(**changes: object) -> int:
        found = calls(lambda: judge(attempt("alice", GUESS), _situation(**changes), Settings()))
        return found["one_code"]

    assert judged(**STRANGERS[who]) == judged() == 26


BEFORE = step_at(T0, 30) - 1
HELD = {
    "codebook": codebook.as_book(ALICE.credential, BEFORE, Secret(codebook.pack(ALICE.credential, BEFORE, 10))),
    "nothing": replace(ALICE.credential, secret=Secret(b""), material=Material.NONE),
}


@pytest.mark.parametrize("held", HELD)
def test_a_host_that_is_alone_shows_nobody_what_it_holds_of_whom(held: str) -> None:
    """A seed, a book, nothing, or a name that it has not heard of: the same HMACs for a wrong code."""

    def judged(**changes: object) -> int:
        found = calls(lambda: judge(attempt("alice", GUESS), _situation(partial=True, **changes), Settings()))
        return found["one_code"]

    assert judged(credentials=(HELD[held],)) == judged(**STRANGERS["unknown"]) == judged() == 26


@pytest.mark.parametrize("kind", [FactorKind.RECOVERY, FactorKind.RECOVERY_KEY, FactorKind.BYPASS])
def test_a_wrong_letter_code_costs_one_hash_for_everybody(installed: Installation, kind: FactorKind) -> None:
    """core-5-18: a user who has no such code, and one who does not exist, have a dummy of the same cost."""
    with installed.store.writing() as connection:
        act, user = installed.act(), find_user(connection, "alice")
        new_recovery_codes(connection, act, user, count=1)
        issue_bypass(connection, act, user, reason="r", approver="a")
    text = {FactorKind.RECOVERY: "01-ABCD-EFGH-JKMN-PQRS", FactorKind.RECOVERY_KEY: "ABCD-EFGH-JKMN-PQRS-TVWX-YZ23",
            FactorKind.BYPASS: "ABCD-EFGH-JKMN"}[kind]  # fmt: skip

    async def hashes() -> list[int]:
        async with installed.gate() as gate:
            return [calls(lambda name=name: gate._prove(name, kind, read_passcode(text.encode())))["verify_secret"]  # type: ignore[misc]
                    for name in ("alice", "bob", "nobody")]  # fmt: skip

    assert asyncio.run(hashes()) == [1, 1, 1]
