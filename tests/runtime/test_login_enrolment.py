"""Enrolment in the dialogue: shown once, confirmed by a code, acknowledged, and never usable before."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from mfa_core import texts
from mfa_core.model import Attempt, Credential, CredentialState, EnrolmentState, FactorKind, FirstFactor, Interaction
from mfa_core.oath import code_at, step_at
from mfa_core.policy import Enrol
from mfa_core.secret import Secret
from mfa_core.verdict import Accepted, Challenge, PromptKind, Reason, Rejected, Unavailable, Unready, Verdict
from mfa_runtime.administration import users
from mfa_runtime.administration.credentials import revoke_credential
from mfa_runtime.administration.enrolment import Parameters, provision_active
from mfa_runtime.key_file import KeyEncryptionKeys
from mfa_runtime.login_enrolment import DIALOGUE_S, MAX_UNDER_WAY, LoginEnrolment
from mfa_runtime.sealing import Place
from mfa_runtime.store import audit_log
from mfa_runtime.store.key_table import add_data_key, drop_data_keys
from mfa_runtime.store.schema import credentials
from mfa_runtime.verification import Verification
from tests.doubles import ALICE, KEK, NO_WAITING, NODE, T0, Installation, Person, attempt, default_policy, install

DAVE = Person("dave", kind=None, state=EnrolmentState.INVITED)


@pytest.fixture
def house(tmp_path: Path) -> Installation:
    """Alice has a factor, dave is invited, and the policy enrols at login."""
    return install(tmp_path, ALICE, DAVE, policy=default_policy(enrol=Enrol.AT_LOGIN), settings=NO_WAITING)


@asynccontextmanager
async def dialogues(house: Installation) -> AsyncIterator[Verification]:
    """A gate whose enroller allows every source but 203.0.113.1."""
    ledger = house.ledger()
    house.enroller = enroller = LoginEnrolment(
        house.store,
        keyring=lambda: ledger.keyring,
        reload_keyring=ledger.reload_keys,
        tell=ledger.tell,
        parameters=Parameters(issuer="mfad"),
        may_enrol_from=lambda source: source is not None and source != "203.0.113.1",
        clock=house.clock,
        random=os.urandom,
        node=NODE,
    )
    async with house.gate(ledger) as gate:
        yield gate
    await enroller.stop()


def login(name: str = "dave", typed: str | None = None, **fields: object) -> Attempt:
    """An attempt behind a password that was verified, at a door that prompts."""
    return replace(attempt(name, typed, first_factor=FirstFactor.DONE), **fields)


def answer(challenge: Verdict, typed: str, name: str = "dave") -> Attempt:
    """The answer to a challenge."""
    assert isinstance(challenge, Challenge), challenge
    return login(name, typed, challenge_id=challenge.id)


def code_of(challenge: Verdict, now: float, offset: int = 0) -> str:
    """The code that the phone shows after the QR was scanned."""
    assert isinstance(challenge, Challenge)
    assert challenge.enrolment is not None
    secret = base64.b32decode(challenge.enrolment.secret_base32.reveal())
    return code_at(Credential(1, FactorKind.TOTP, CredentialState.ACTIVE, Secret(secret)), step_at(now, 30) + offset)


def key_end(challenge: Verdict) -> str:
    """The last four characters of the key that is shown."""
    assert isinstance(challenge, Challenge)
    assert challenge.recovery_key is not None
    return challenge.recovery_key.reveal().decode()[-4:]


def state_of(house: Installation, name: str = "dave") -> tuple[object, list[object]]:
    """A user's state and those of the credentials."""
    user = next(row for row in house.rows("users") if row["name"] == name)
    return user["state"], [row["state"] for row in house.rows("credentials") if row["user_id"] == user["id"]]


def test_from_invitation_to_login(house: Installation) -> None:
    """Secret, code, recovery key, in; the code that confirmed is spent; the next one logs in."""

    async def walk() -> list[Verdict]:
        async with dialogues(house) as gate:
            shown = await gate.decide(login())
            assert state_of(house) == ("pending", ["pending"])
            confirmed = await gate.decide(answer(shown, code_of(shown, T0)))
            entered = await gate.decide(answer(confirmed, key_end(confirmed).lower()))
            again = await gate.decide(login(typed=code_of(shown, T0)))
            following = await gate.decide(login(typed=code_of(shown, T0, 1)))
            return [shown, confirmed, entered, again, following]

    shown, confirmed, entered, again, following = asyncio.run(walk())

    assert isinstance(shown, Challenge)
    assert shown.prompts[0].kind is PromptKind.ENROLMENT_CODE
    assert isinstance(confirmed, Challenge)
    assert confirmed.prompts[0].kind is PromptKind.ACKNOWLEDGEMENT
    assert confirmed.enrolment is None
    assert isinstance(entered, Accepted)
    assert entered.notices == (texts.ENROLLED,)
    assert isinstance(again, Rejected)
    assert again.reason is Reason.REPLAYED
    assert isinstance(following, Accepted)
    assert state_of(house) == ("active", ["active"])
    with house.store.reading() as connection:
        (report,) = audit_log.verify(connection, keyring=house.keyring())
        outcomes = [json.loads(e.body).get("outcome") for e in audit_log.every(connection)]
    assert report.problems == ()
    assert outcomes.count("accepted") == 2


def test_an_unknown_user_may_enrol(house: Installation) -> None:
    """The password was good: he exists somewhere; here he is added."""

    async def walk() -> Verdict:
        async with dialogues(house) as gate:
            return await gate.decide(login("erin"))

    assert isinstance(asyncio.run(walk()), Challenge)
    assert state_of(house, "erin") == ("pending", ["pending"])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"source": "203.0.113.1"}, Reason.ENROLMENT_OFFERED),
        ({"source": None}, Reason.ENROLMENT_OFFERED),
        ({"first_factor": FirstFactor.ELSEWHERE}, None),
        ({"interaction": Interaction.ONE_SHOT}, None),
        ({"interaction": Interaction.ASKS}, None),
    ],
    ids=["forbidden-network", "unknown-source", "password-not-known", "no-prompts", "not-trusted-with-a-secret"],
)
def test_who_may_not_enrol_leaves_nothing_behind(
    house: Installation, fields: dict[str, object], expected: Reason | None
) -> None:
    """core-5-44: only from the enrolment networks, behind a first factor; and no pending secret stays."""

    async def walk() -> Verdict:
        async with dialogues(house) as gate:
            return await gate.decide(login(**fields))

    verdict = asyncio.run(walk())

    if expected is None:
        assert isinstance(verdict, Challenge | Rejected)
        assert getattr(verdict, "enrolment", None) is None
    else:
        assert isinstance(verdict, Rejected)
        assert verdict.reason is expected
    assert state_of(house) == ("invited", [])


def test_an_abandoned_enrolment_opens_nothing(house: Installation) -> None:
    """core-5-45: its codes are wrong in this process and in the next, at once and for ever."""

    async def abandon() -> tuple[Verdict, Verdict]:
        async with dialogues(house) as gate:
            shown = await gate.decide(login())
            return shown, await gate.decide(login(typed=code_of(shown, T0)))

    shown, refused = asyncio.run(abandon())
    (later,) = house.in_order(attempt("dave", code_of(shown, T0)))

    assert isinstance(refused, Rejected)
    assert isinstance(later, Rejected)
    assert state_of(house) == ("pending", ["pending"])


def test_three_wrong_codes_end_the_dialogue(house: Installation) -> None:
    """Two mistakes are answered with a hint, the third ends it, with a line in the audit log; the right code comes too late."""

    async def walk() -> list[Verdict]:
        async with dialogues(house) as gate:
            shown = await gate.decide(login())
            found = [await gate.decide(answer(shown, "000000")) for _ in range(3)]
            return [*found, await gate.decide(answer(shown, code_of(shown, T0)))]

    *hints, ended, late = asyncio.run(walk())

    for hint in hints:
        assert isinstance(hint, Challenge)
        assert hint.prompts[0].notices == (texts.WRONG_ENROLMENT_CODE,)
        assert hint.enrolment is None
    assert isinstance(ended, Rejected)
    assert isinstance(late, Rejected)
    assert state_of(house) == ("pending", ["pending"])
    with house.store.reading() as connection:
        bodies = [json.loads(e.body) for e in audit_log.every(connection)]
    assert [b["reason"] for b in bodies if b.get("id") == ended.event_id] == ["mismatch"]


def test_a_key_that_is_not_acknowledged_lets_nobody_in(house: Installation) -> None:
    """The credential is active, because the phone has it; the login is refused."""

    async def walk() -> list[Verdict]:
        async with dialogues(house) as gate:
            shown = await gate.decide(login())
            confirmed = await gate.decide(answer(shown, code_of(shown, T0)))
            return [await gate.decide(answer(confirmed, "zzzz")) for _ in range(3)]

    *hints, ended = asyncio.run(walk())

    assert all(isinstance(hint, Challenge) and hint.recovery_key is None for hint in hints)
    assert isinstance(ended, Rejected)
    assert ended.reason is Reason.CANCELLED
    assert state_of(house) == ("active", ["active"])


def test_a_dialogue_ends_with_its_time(house: Installation) -> None:
    """An answer after ten minutes is to a challenge that nobody remembers."""

    async def walk() -> Verdict:
        async with dialogues(house) as gate:
            shown = await gate.decide(login())
            house.clock.advance(DIALOGUE_S)
            return await gate.decide(answer(shown, code_of(shown, house.clock())))

    verdict = asyncio.run(walk())
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.CHALLENGE_EXPIRED


def test_nobody_answers_for_somebody_else(house: Installation) -> None:
    """core-5-47: a challenge belongs to the user who was asked."""

    async def walk() -> Verdict:
        async with dialogues(house) as gate:
            shown = await gate.decide(login())
            return await gate.decide(answer(shown, code_of(shown, T0), name="alice"))

    verdict = asyncio.run(walk())
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.CHALLENGE_EXPIRED
    assert state_of(house) == ("pending", ["pending"])


def test_of_two_dialogues_of_one_user_the_latest_counts(house: Installation) -> None:
    """core-5-47: the first one's code confirms nothing, and no secret is exchanged behind anybody's back."""

    async def walk() -> list[Verdict]:
        async with dialogues(house) as gate:
            first, second = await gate.decide(login()), await gate.decide(login())
            answers = [answer(shown, code_of(shown, T0)) for shown in (first, second)]
            return [await gate.decide(one) for one in answers]

    older, newer = asyncio.run(walk())
    assert isinstance(older, Challenge)
    assert older.recovery_key is None
    assert isinstance(newer, Challenge)
    assert newer.recovery_key is not None
    assert state_of(house) == ("active", ["active"])


def test_dialogues_are_bounded(house: Installation) -> None:
    """core-5-65: over the bound they are told to come again, and old ones make room when their time is over."""

    async def walk() -> list[Verdict]:
        async with dialogues(house) as gate:
            found = [await gate.decide(login(f"user{n}")) for n in range(MAX_UNDER_WAY + 1)]
            house.clock.advance(DIALOGUE_S)
            return [*found[-2:], await gate.decide(login("last"))]

    inside, over, later = asyncio.run(walk())
    assert isinstance(inside, Challenge)
    assert isinstance(over, Unavailable)
    assert over.reason is Unready.OVERLOADED
    assert isinstance(later, Challenge)


@pytest.mark.parametrize("moment", ["before", "between"])
def test_key_rotation_is_not_noticed(house: Installation, moment: str) -> None:
    """Whether the keys change before the secret is made, or while it is typed into the phone."""

    def rotate() -> None:
        old = house.keyring()
        with house.store.writing() as connection:
            add_data_key(connection, KeyEncryptionKeys((KEK,)), now=T0, random=os.urandom)
        new = house.keyring()
        with house.store.writing() as connection:
            for row in connection.execute(credentials.select()).all():
                place = Place("credentials", "secret", row.id, row.user_id)
                sealed = new.seal(old.unseal(bytes(row.secret), place), place)
                connection.execute(credentials.update().where(credentials.c.id == row.id).values(secret=sealed))
            drop_data_keys(connection, frozenset({old.current}))

    async def walk() -> Verdict:
        async with dialogues(house) as gate:
            await gate.decide(login("alice"))
            if moment == "before":
                rotate()
            shown = await gate.decide(login())
            if moment == "between":
                rotate()
            confirmed = await gate.decide(answer(shown, code_of(shown, T0)))
            return await gate.decide(answer(confirmed, key_end(confirmed)))

    assert isinstance(asyncio.run(walk()), Accepted)


@pytest.mark.parametrize("state", [EnrolmentState.SUSPENDED, EnrolmentState.REVOKED])
def test_who_was_suspended_does_not_enrol_anew(tmp_path: Path, state: EnrolmentState) -> None:
    """core-5-44: a known password is not enough to get round it."""
    house = install(tmp_path, Person("dave", kind=None, state=state), policy=default_policy(enrol=Enrol.AT_LOGIN))

    async def walk() -> Verdict:
        async with dialogues(house) as gate:
            return await gate.decide(login())

    verdict = asyncio.run(walk())
    assert isinstance(verdict, Challenge)
    assert verdict.enrolment is None
    assert state_of(house) == (state.value, [])
    house.close()


@pytest.mark.parametrize("moment", ["before the code", "before the acknowledgement"])
@pytest.mark.parametrize("act", ["lock", "revoke", "enrol"])
def test_what_an_administrator_does_in_mid_dialogue_holds(house: Installation, moment: str, act: str) -> None:
    """The dialogue takes minutes: who is locked, or has got a factor in another way, does not get in by it."""

    def change() -> None:
        with house.store.writing() as connection:
            user = users.find_user(connection, "dave")
            if act == "lock":
                users.lock(connection, house.act(), "dave")
            elif act == "revoke":
                for number in connection.execute(select(credentials.c.id).where(credentials.c.user_id == user.id)).scalars():
                    revoke_credential(connection, house.act(), number)
            else:
                provision_active(connection, house.act(), user, Parameters(issuer="mfad"))

    async def walk() -> list[Verdict]:
        async with dialogues(house) as gate:
            shown = await gate.decide(login())
            if moment == "before the code":
                change()
                return [await gate.decide(answer(shown, code_of(shown, T0)))]
            confirmed = await gate.decide(answer(shown, code_of(shown, T0)))
            change()
            return [await gate.decide(answer(confirmed, key_end(confirmed)))]

    (verdict,) = asyncio.run(walk())

    # Confirmed and then enrolled again: what he confirmed is his all the same.
    assert isinstance(verdict, Accepted) is (act == "enrol" and moment == "before the acknowledgement")
    if act == "lock" and moment == "before the code":
        assert state_of(house) == ("pending", ["pending"])


def test_a_factor_that_came_before_the_offer_keeps_others_out(house: Installation) -> None:
    """Judged while there was none, begun when there is one: a second one must not be put beside it."""

    async def walk() -> Verdict:
        async with dialogues(house):
            enroller = house.enroller
            assert enroller is not None
            with house.store.writing() as connection:
                user = users.find_user(connection, "dave")
                provision_active(connection, house.act(), user, Parameters(issuer="mfad"))
            return await enroller.offer(login(), "dave")

    assert isinstance(asyncio.run(walk()), Rejected)
    assert state_of(house) == ("active", ["active"])


def test_one_user_does_not_take_all_the_dialogues(house: Installation) -> None:
    """Beginning again and again, without an answer, leaves room for the others."""

    async def walk() -> tuple[Verdict, Verdict, Verdict]:
        async with dialogues(house) as gate:
            for _ in range(MAX_UNDER_WAY):
                shown = await gate.decide(login("mallory"))
            other = await gate.decide(login())
            confirmed = await gate.decide(answer(shown, code_of(shown, T0), "mallory"))
            return shown, other, confirmed

    assert all(isinstance(verdict, Challenge) for verdict in asyncio.run(walk()))
