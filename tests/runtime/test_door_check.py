"""A password that the door has checked itself: the same verdicts, charges and events as from a backend of ours."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from mfa_core.model import Attempt, Door, EnrolmentState, FirstFactor, Grammar, Interaction, Requirement, SplitMode
from mfa_core.policy import Action, Enforce, InGroups, OnMissing, Policy, Rule
from mfa_core.secret import Secret
from mfa_core.throttle import ThrottleRules
from mfa_core.verdict import Accepted, Rejected, Unavailable, Verdict
from mfa_core.verifier import Password, Settings
from mfa_runtime.administration import users
from mfa_runtime.administration.bypass import issue_bypass
from mfa_runtime.administration.recovery import new_recovery_codes
from mfa_runtime.gate import Checked
from mfa_runtime.primary import PrimaryUnavailable
from mfa_runtime.store import audit_log
from mfa_runtime.store.schema import credentials
from tests.doubles import (
    ALICE,
    BOB,
    T0,
    DoorCheck,
    Installation,
    Person,
    ScriptedPrimary,
    attempt,
    default_policy,
    install,
    wrong,
)

SEPARATOR, APPEND, AUTO = Grammar(SplitMode.SEPARATOR), Grammar(SplitMode.APPEND), Grammar(SplitMode.AUTO)
CODE = ALICE.code(T0)
GUESS = wrong(*(one.code(T0, o) for one in (ALICE, BOB) for o in range(-12, 13)))
STRICT = Settings(throttle=ThrottleRules(free=0, base_s=60.0))


def bind(typed: str, name: str = "alice", *, grammar: Grammar = SEPARATOR, source: str | None = "192.0.2.1") -> Attempt:
    """A simple bind, as the LDAP door asks about it."""
    return attempt(
        name, typed, grammar=grammar, first_factor=FirstFactor.OURS, interaction=Interaction.ONE_SHOT, door=Door.LDAP,
        service="wiki", client="ldap", source=source,
    )  # fmt: skip


def reasons(found: list[Verdict]) -> list[str]:
    """Verdicts in a word each."""
    return [v.reason.value if isinstance(v, Rejected | Unavailable) else type(v).__name__.lower() for v in found]


def events(installation: Installation) -> list[dict[str, object]]:
    """The attempts on record, without their ids."""
    with installation.store.reading() as connection:
        bodies = [json.loads(entry.body) for entry in audit_log.every(connection)]
    return [{key: value for key, value in body.items() if key != "id"} for body in bodies if body["event"] == "attempt"]


# The same as a backend of ours


def _people() -> list[Person]:
    return [
        ALICE, BOB,
        Person("exempt", requirement=Requirement.EXEMPT),
        Person("locked", locked=True),
        Person("new", kind=None, state=EnrolmentState.NONE),
        Person("eight", digits=8),
    ]  # fmt: skip


_TYPED = {
    "good": lambda spare: [bind(f"hunter2,{CODE}")],
    "twice": lambda spare: [bind(f"hunter2,{CODE}"), bind(f"hunter2,{CODE}")],
    "wrong-code": lambda spare: [bind(f"hunter2,{GUESS}"), bind(f"hunter2,{GUESS}")],
    "wrong-password": lambda spare: [bind(f"wrong,{CODE}"), bind(f"hunter2,{CODE}")],
    "password-alone": lambda spare: [bind("hunter2")],
    "nothing": lambda spare: [bind("")],
    "junk": lambda spare: [bind("\b\n\r\x7fINCORRECT")],
    "code-alone": lambda spare: [bind(CODE), bind(f",{CODE}")],
    "code-as-the-whole": lambda spare: [bind(CODE, grammar=Grammar())],
    "append": lambda spare: [bind(f"hunter2{CODE}", grammar=APPEND)],
    "auto-with-a-separator": lambda spare: [bind(f"hunter2,{CODE}", grammar=AUTO)],
    "auto-appended": lambda spare: [bind(f"hunter2{CODE}", grammar=AUTO), bind("hunter2", grammar=AUTO)],
    "auto-guessed": lambda spare: [bind(f"hunter2,{GUESS}", grammar=AUTO), bind(f"hunter2,{GUESS}", grammar=AUTO)],
    "recovery": lambda spare: [bind(f"hunter2,{spare}"), bind(f"hunter2,{spare}"), bind(f"wrong,{spare}")],
    "eight-digits": lambda spare: [bind(f"hunter2,{Person('eight', digits=8).code(T0)}", "eight")],
    "stranger": lambda spare: [bind(f"hunter2,{GUESS}", "nobody"), bind(f"wrong,{GUESS}", "nobody")],
    "no-name": lambda spare: [bind(f"hunter2,{GUESS}", "uid=a b,dc=x")],
    "exempt": lambda spare: [bind("hunter2", "exempt"), bind("wrong", "exempt"), bind("hunter2,123456", "exempt")],
    "locked": lambda spare: [bind(f"hunter2,{Person('locked').code(T0)}", "locked"), bind("hunter2", "locked")],
    "not-enrolled": lambda spare: [bind(f"hunter2,{GUESS}", "new"), bind("hunter2", "new")],
    "no-source": lambda spare: [bind(f"wrong,{CODE}", source=None), bind(f"hunter2,{CODE}", source=None)],
}  # fmt: skip
_POLICIES = {
    "default": Policy(),
    "exempt": default_policy(action=Action.EXEMPT),
    "deny": default_policy(action=Action.DENY),
    "enrolled-only": default_policy(enforce=Enforce.ENROLLED_ONLY),
    "grace": default_policy(grace_s=86_400),
    "trusted": default_policy(trust_window_s=600),
    "groups": Policy((Rule("staff", (InGroups(frozenset({"staff"})),), on_missing=OnMissing.SKIP),)),
}


_EVERYWHERE = (
    "good", "wrong-code", "wrong-password", "password-alone", "recovery", "stranger", "no-name", "exempt", "not-enrolled",
)  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "policy"),
    [(typed, policy) for typed in _TYPED for policy in _POLICIES if policy == "default" or typed in _EVERYWHERE],
)
def test_a_check_of_the_door_counts_as_a_backend_of_ours(tmp_path: Path, typed: str, policy: str) -> None:
    """Verdicts, throttle, watermarks and events are the same, and the same passwords are asked about."""
    outcomes = []
    for way in ("backend", "door"):
        (tmp_path / way).mkdir()
        installation = install(
            tmp_path / way, *_people(), primary=ScriptedPrimary(**{p.name: "hunter2" for p in _people()}, nobody="hunter2"),
            policy=_POLICIES[policy],
        )  # fmt: skip
        with installation.store.writing() as connection:
            batch = new_recovery_codes(connection, installation.act(), users.find_user(connection, "alice"), count=1)
        # The words of a recovery code are not the same in both; what becomes of them is.
        tried = _TYPED[typed](batch.codes[0].reveal().decode())
        check = DoorCheck("hunter2")
        found: list[Verdict] = []
        for one in tried:
            found += installation.decide(one) if way == "backend" else installation.ask_with(check, one)
        scripted = installation.primary
        assert isinstance(scripted, ScriptedPrimary)
        outcomes.append(
            (
                reasons(found), [replace(v, event_id="") for v in found if not isinstance(v, Accepted)], events(installation),
                [{**r, "last_tag": b""} for r in installation.rows("throttle") if not str(r["key"]).startswith("unknown")],
                [(row["last_step"], row["drift_steps"]) for row in installation.rows("credentials")],
                len(check.asked) if way == "door" else len(scripted.asked),
            )
        )  # fmt: skip
        installation.close()

    if typed == "no-name":  # a scripted backend knows nobody by no name; the directory knows the DN
        outcomes = [(o[0] if policy == "deny" else [], *o[4:]) for o in outcomes]
    assert outcomes[1] == outcomes[0]


# What is asked, and when


@pytest.mark.parametrize(
    ("one", "asked"),
    [
        (bind(f"hunter2,{CODE}"), [b"hunter2"]),
        (bind(f"a,b,{CODE}"), [b"a,b"]),
        (bind(f",{CODE}"), []),
        (bind(CODE, grammar=Grammar()), []),
        (bind("hunter2"), []),
        (bind(""), []),
        (bind("hunter2,123456", "exempt"), [b"hunter2,123456"]),
        (bind(f"hunter2,{GUESS}", "nobody"), [b"hunter2"]),
    ],
    ids=["code", "separator-in-it", "empty", "code-alone", "no-code", "nothing", "exempt", "stranger"],
)
def test_what_the_directory_is_asked(tmp_path: Path, one: Attempt, asked: list[bytes]) -> None:
    """The part before the code, never nothing (RFC 4513 section 5.1.2), and the whole of it where no code is wanted."""
    installation = install(tmp_path, *_people())
    check = DoorCheck()

    installation.ask_with(check, one)
    installation.close()

    assert check.asked == asked


def test_who_has_to_wait_does_not_reach_the_directory(installed: Installation) -> None:
    """Directories count wrong passwords: a guesser must not lock anybody out there."""
    installed.settings = STRICT
    check = DoorCheck("hunter2")
    installed.ask_with(check, bind(f"hunter2,{GUESS}"))

    assert reasons(installed.ask_with(check, bind(f"hunter2,{CODE}"))) == ["throttled"]
    assert check.asked == [b"hunter2"]


def test_who_is_denied_does_not_reach_the_directory(installed: Installation) -> None:
    """A refusal that is certain charges nothing, so that a flood of them would never end."""
    installed.policy = default_policy(action=Action.DENY)
    check = DoorCheck("hunter2")

    assert reasons(installed.ask_with(check, *[bind(f"hunter2,{CODE}") for _ in range(3)])) == ["policy_denied"] * 3
    assert check.asked == []


def test_one_code_from_many_connections_is_accepted_once(installed: Installation) -> None:
    """Also where all passwords were checked before any of them is judged."""
    check = DoorCheck("hunter2", held=True)

    async def race() -> list[Verdict]:
        async with installed.gate() as gate:
            answers = [asyncio.get_running_loop().create_future() for _ in range(50)]
            for n, future in enumerate(answers):
                gate.ask_with(bind(f"hunter2,{CODE}", source=f"192.0.2.{n}"), check, future.set_result)
            await check.reached.wait()
            check.tell_all()
            return list(await asyncio.gather(*answers))

    assert sorted(reasons(asyncio.run(race()))) == ["accepted"] + ["replayed"] * 49


def test_what_changes_while_the_directory_thinks_counts(installed: Installation) -> None:
    """The reading is from before, the judgement is from after: a lock in between refuses."""
    check = DoorCheck("hunter2", held=True)

    async def decided() -> Verdict:
        async with installed.gate() as gate:
            answer = asyncio.get_running_loop().create_future()
            gate.ask_with(bind(f"hunter2,{CODE}"), check, answer.set_result)
            await check.reached.wait()
            with installed.store.writing() as connection:
                users.lock(connection, installed.act(), "alice")
            check.tell_all()
            found: Verdict = await answer
            return found

    assert reasons([asyncio.run(decided())]) == ["mismatch"]
    assert events(installed)[-1]["reason"] == "locked_by_admin"


def test_a_remembered_login_lasts_as_long_as_its_credential(installed: Installation) -> None:
    """The label of the accepted login is what the door repeats; the password is asked about each time."""
    check = DoorCheck("hunter2")
    (first,) = installed.ask_with(check, bind(f"hunter2,{CODE}"))
    assert isinstance(first, Accepted)

    def again(password: str = "hunter2") -> Attempt:
        return replace(bind(password, grammar=Grammar(SplitMode.PASSWORD)), grammar_is_final=True, remembered=first.credential)

    found = installed.ask_with(check, again(), again("wrong"), again())
    with installed.store.writing() as connection:
        connection.execute(
            update(credentials).where(credentials.c.id == installed.credential_of("alice")["id"]).values(state="revoked")
        )
    found += installed.ask_with(check, again())

    assert reasons(found) == ["exempt", "first_factor_failed", "exempt", "no_code"]
    assert check.asked == [b"hunter2", b"hunter2", b"wrong", b"hunter2", b"hunter2"]


# What goes wrong


@pytest.mark.parametrize(
    ("error", "reason"), [(PrimaryUnavailable("away"), "first_factor_unavailable"), (ValueError("odd"), "internal")]
)
@pytest.mark.parametrize("how", ["tells", "raises"])
@pytest.mark.parametrize("text", ["code", "letters"])
def test_a_check_that_fails_refuses_and_charges_nothing(
    installed: Installation, error: Exception, reason: str, how: str, text: str
) -> None:
    """On record, nothing spent: the same code is good when the directory is back."""
    with installed.store.writing() as connection:
        user = users.find_user(connection, "alice")
        bypass = issue_bypass(connection, installed.act(), user, reason="r", approver="a").code.reveal().decode()
    typed = f"hunter2,{CODE if text == 'code' else bypass}"

    def broken(_password: Secret, tell: Checked) -> None:
        if how == "raises":
            raise error
        tell(error)

    assert reasons(installed.ask_with(broken, bind(typed))) == [reason]
    assert [e["outcome"] for e in events(installed)] == ["unavailable"]
    assert installed.rows("throttle") == []
    assert reasons(installed.ask_with(DoorCheck("hunter2"), bind(typed))) == ["accepted"]


@pytest.mark.parametrize("first", [Password.BAD, Password.GOOD, PrimaryUnavailable("away")], ids=["bad", "good", "error"])
def test_the_first_word_counts(installed: Installation, first: Password | Exception) -> None:
    """A door that tells twice, or tells and raises, gets one answer, and what came first is not taken back."""
    heard: list[Verdict] = []
    answered = asyncio.Event()

    def answer(verdict: Verdict) -> None:
        heard.append(verdict)
        answered.set()

    def twice(_password: Secret, tell: Checked) -> None:
        tell(first)
        tell(Password.GOOD)
        raise ValueError("and more")

    async def decided() -> None:
        async with installed.gate() as gate:
            gate.ask_with(bind(f"hunter2,{CODE}"), twice, answer)
            assert heard == []  # never before the call has returned
            await answered.wait()

    asyncio.run(decided())

    expected = {Password.BAD: "first_factor_failed", Password.GOOD: "accepted"}.get(first, "first_factor_unavailable")  # type: ignore[arg-type]
    assert reasons(heard) == [expected]
    assert len(events(installed)) == 1


def test_a_word_that_is_none_refuses(installed: Installation) -> None:
    """NOT_ASKED is no outcome of a check."""
    found = installed.ask_with(lambda _password, tell: tell(Password.NOT_ASKED), bind(f"hunter2,{CODE}"))

    assert reasons(found) == ["internal"]


@pytest.mark.parametrize(
    "change",
    [{"first_factor": FirstFactor.ELSEWHERE}, {"first_factor": FirstFactor.DONE}, {"typed": None}],
    ids=["elsewhere", "done", "nothing-typed"],
)
def test_a_question_that_is_not_about_a_password_of_ours_refuses(installed: Installation, change: dict[str, object]) -> None:
    """A door that asks so would let a password that nobody checked stand."""
    check = DoorCheck("hunter2")

    assert reasons(installed.ask_with(check, replace(bind(f"hunter2,{CODE}"), **change))) == ["internal"]  # type: ignore[arg-type]
    assert check.asked == []


def test_a_row_that_does_not_open_is_its_owners_trouble(installed: Installation) -> None:
    """Asked in one turn of the loop, read together, answered each for itself."""
    with installed.store.writing() as connection:
        number = installed.credential_of("bob")["id"]
        connection.execute(update(credentials).where(credentials.c.id == number).values(secret=b"\x01" + bytes(60)))

    found = installed.ask_with(DoorCheck("hunter2"), bind(f"hunter2,{CODE}"), bind(f"hunter2,{BOB.code(T0)}", "bob"))

    assert reasons(found) == ["accepted", "internal"]


def test_who_is_told_after_the_end_is_refused(installed: Installation) -> None:
    """A check that is under way when the gate stops: the door hears something, and nothing is spent."""
    check, heard = DoorCheck("hunter2", held=True), []

    async def ended() -> None:
        async with installed.gate() as gate:
            gate.ask_with(bind(f"hunter2,{CODE}"), check, heard.append)
            await check.reached.wait()
        check.tell_all()

    asyncio.run(ended())

    assert reasons(heard) == ["overloaded"]
    assert reasons(installed.ask_with(DoorCheck("hunter2"), bind(f"hunter2,{CODE}"))) == ["accepted"]


@pytest.mark.parametrize(
    ("name", "canonical"), [("Alice", "alice"), ("alice", "alice"), ("a b", ""), ("alice@elsewhere", ""), ("", "")]
)
def test_a_canonical_name(installed: Installation, name: str, canonical: str) -> None:
    """What attempts are counted as; nothing for what is no identity."""

    async def asked() -> str:
        async with installed.gate() as gate:
            return gate.canonical(name)

    assert asyncio.run(asked()) == canonical
