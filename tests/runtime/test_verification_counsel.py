"""The gate of a host that asks an authority, and the gate of the authority that it asks: two stores, one seam between them."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from mfa_core.audit import Outcome
from mfa_core.mirror import Ruled
from mfa_core.model import (
    Attempt,
    ChapAnswer,
    Door,
    EnrolmentState,
    FactorKind,
    FirstFactor,
    Grammar,
    Interaction,
    Requirement,
    SplitMode,
    chap_response,
)
from mfa_core.oath import step_at
from mfa_core.policy import Action, Enrol, InGroups, Policy, Rule
from mfa_core.secret import Secret
from mfa_core.split import Split
from mfa_core.verdict import Accepted, Challenge, Exempt, Exemption, Reason, Rejected, Unavailable, Unready, Verdict
from mfa_core.verifier import Password
from mfa_runtime.administration import users
from mfa_runtime.administration.recovery import new_recovery_codes
from mfa_runtime.counsel import Alone, Counselled, Referral, Referred
from mfa_runtime.ledger import Ruling, ruled_of
from mfa_runtime.store.schema import credentials
from mfa_runtime.verification import Verification
from tests.doubles import (
    ALICE,
    BOB,
    T0,
    DoorCheck,
    Installation,
    Person,
    ScriptedPrimary,
    as_agent,
    attempt,
    default_policy,
    install,
    wrong,
)

STEP = step_at(T0, 30)
TOKEN = Person("token", FactorKind.HOTP)
EXEMPT = Person("exempt", requirement=Requirement.EXEMPT)
PEOPLE = (ALICE, BOB, TOKEN, EXEMPT, Person("new", kind=None, state=EnrolmentState.INVITED))
AUTO, APPEND = Grammar(SplitMode.AUTO), Grammar(SplitMode.APPEND)
Told = Callable[[Counselled], None]


@dataclass
class Wire:
    """A counsel that asks the gate of an authority in this very process. ``held`` keeps what it has to tell, ``cut`` tells that
    the host is alone. Passwords stop here, as they do before the real wire."""

    authority: Verification
    asked: list[Referred] = field(default_factory=list)
    held: bool = False
    cut: bool = False
    waiting: list[tuple[Told, Counselled]] = field(default_factory=list)

    more: asyncio.Event = field(default_factory=asyncio.Event)

    def ask(self, referred: Referred, told: Told) -> None:
        self.asked.append(referred)
        if self.cut:
            told(Alone(60.0))
            return
        asked = referred.attempt
        bare = replace(asked, username=referred.name, typed=None if asked.typed is None else Secret(b"\0"))
        found = tuple(Split(Secret(b""), one.passcode) for one in referred.found)
        referral = Referral(
            bare, referred.name, found, referred.password, referred.hidden, referred.groups, frozenset({"servers"}), 5, "web1"
        )
        self.authority.refer(referral, lambda ruling: self._ruled(told, ruling))

    def _ruled(self, told: Told, ruling: Ruling | BaseException) -> None:
        counselled = Alone(0.5) if isinstance(ruling, BaseException) else ruled_of(ruling)
        if self.held:
            self.waiting.append((told, counselled))
            self.more.set()
        else:
            told(counselled)

    async def until_held(self, count: int) -> None:
        """Return when so many rulings wait to be told."""
        while len(self.waiting) < count:
            self.more.clear()
            await self.more.wait()

    def tell_all(self, *, backwards: bool = False) -> None:
        """Tell what was held."""
        waiting, self.waiting = self.waiting, []
        for told, counselled in reversed(waiting) if backwards else waiting:
            told(counselled)


@dataclass
class Site:
    """An authority and one of its hosts. Both know the same people, under the same ids."""

    authority: Installation
    host: Installation
    wire: Wire | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[Verification, Wire]]:
        """The host's gate, and the wire to the authority's."""
        async with self.authority.gate() as theirs:
            wire = self.wire = Wire(theirs)
            self.host.counsel = wire
            async with self.host.gate() as mine:
                yield mine, wire

    def in_order(self, *attempts: Attempt | Callable[[], Attempt]) -> list[Verdict]:
        """The host's verdicts on attempts one after another."""

        async def decided() -> list[Verdict]:
            async with self.running() as (gate, _):
                return [await gate.decide(one() if callable(one) else one) for one in attempts]

        return asyncio.run(decided())

    def advance(self, seconds: float) -> None:
        """Time passes for both."""
        self.authority.clock.advance(seconds)
        self.host.clock.advance(seconds)

    def steps(self, name: str = "alice") -> tuple[object, object]:
        """The watermarks, there and here."""
        return self.authority.credential_of(name)["last_step"], self.host.credential_of(name)["last_step"]


def make_site(directory: Path) -> Site:
    """Two stores."""
    for name in ("authority", "host"):
        (directory / name).mkdir()
    return Site(install(directory / "authority", *PEOPLE, records_uses=True), as_agent(install(directory / "host", *PEOPLE)))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """An authority and a host."""
    made = make_site(tmp_path)
    yield made
    made.authority.close()
    made.host.close()


def reason(verdict: Verdict) -> Reason:
    """Why it was refused."""
    assert isinstance(verdict, Rejected), verdict
    return verdict.reason


def failures(installation: Installation, name: str = "alice") -> object:
    """The account's failures in a row."""
    return next((row["consecutive"] for row in installation.rows("throttle") if row["key"] == f"account:{name}"), 0)


def events(installation: Installation) -> list[dict[str, object]]:
    """The attempts in the log."""
    bodies = [json.loads(str(row["body"])) for row in installation.rows("audit")]
    return [body for body in bodies if body["event"] == "attempt"]


# Asked


def by_decide(gate: Verification, asked: Attempt, check: DoorCheck) -> asyncio.Future[Verdict]:
    """As PAM asks."""
    return asyncio.ensure_future(gate.decide(asked))


def by_ask(gate: Verification, asked: Attempt, check: DoorCheck) -> asyncio.Future[Verdict]:
    """As RADIUS asks."""
    future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    gate.ask(asked, future.set_result)
    return future


def by_ask_with(gate: Verification, asked: Attempt, check: DoorCheck) -> asyncio.Future[Verdict]:
    """As LDAP asks."""
    future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    gate.ask_with(asked, check, future.set_result)
    return future


WAYS = {
    "pam": (by_decide, {}, ""),
    "radius": (by_ask, {"interaction": Interaction.ONE_SHOT, "door": Door.RADIUS}, ""),
    "radius, code behind a password that is not ours": (
        by_ask, {"interaction": Interaction.ONE_SHOT, "grammar": APPEND}, "secret",
    ),
    "pam, code behind a password that is not ours": (by_decide, {"grammar": APPEND}, "secret"),
    "ldap": (
        by_ask_with,
        {"interaction": Interaction.ONE_SHOT, "first_factor": FirstFactor.OURS, "grammar": APPEND, "door": Door.LDAP},
        "secret",
    ),
    "a primary of ours": (
        by_decide, {"interaction": Interaction.ONE_SHOT, "first_factor": FirstFactor.OURS, "grammar": APPEND}, "secret",
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=list(WAYS))
def test_every_door_asks_and_what_is_ruled_is_mirrored(site: Site, way: str) -> None:
    """Accepted there and here, once; a wrong code is counted there and here; the password is handed on and never told."""
    ask, how, password = WAYS[way]
    site.host.primary = ScriptedPrimary(alice="secret")
    check = DoorCheck("secret")

    async def decided() -> list[Verdict]:
        async with site.running() as (gate, wire):
            typed = [ALICE.code(T0), ALICE.code(T0), wrong(*(ALICE.code(T0, n) for n in range(-12, 13)))]
            verdicts = [await ask(gate, attempt("Alice", password + one, **how), check) for one in typed]  # type: ignore[arg-type]
            assert [len(one.found) for one in wire.asked] == [1, 1, 1]
            assert {one.name for one in wire.asked} == {"alice"}
            return verdicts

    good, again, bad = asyncio.run(decided())

    assert isinstance(good, Accepted)
    assert (good.password.reveal() if good.password else b"") == password.encode()
    assert (reason(again), reason(bad)) == (Reason.REPLAYED, Reason.MISMATCH)
    assert site.steps() == (STEP, STEP)
    assert (failures(site.authority), failures(site.host)) == (1, 1)
    there, here = events(site.authority), events(site.host)
    assert [one["id"] for one in there] == [one["id"] for one in here]
    assert {one.get("by") for one in here} == {"authority"}
    assert {one.get("host") for one in there} == {"web1"}
    assert "secret" not in json.dumps(there)


def test_a_question_is_answered_here(site: Site) -> None:
    """A dialogue costs one question of the authority, and not two."""

    async def decided() -> tuple[Verdict, Verdict, int]:
        async with site.running() as (gate, wire):
            asked = await gate.decide(attempt("alice"))
            future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
            gate.ask(attempt("nobody", interaction=Interaction.CHALLENGES), future.set_result)
            return asked, await future, len(wire.asked)

    known, unknown, asked = asyncio.run(decided())

    assert isinstance(known, Challenge)
    assert isinstance(unknown, Challenge)
    assert asked == 0


def test_a_question_that_has_another_answer_is_asked(site: Site) -> None:
    """Exempt here, and not any more there: the authority knows better; and the other way round as long as it can be asked."""
    verdicts = site.in_order(attempt("exempt"), attempt("new", interaction=Interaction.ONE_SHOT))
    assert isinstance(verdicts[0], Exempt)
    assert verdicts[0].exemption is Exemption.USER
    assert reason(verdicts[1]) is Reason.FACTOR_REQUIRED

    with site.authority.store.writing() as connection:
        connection.exec_driver_sql("UPDATE users SET requirement = 'required' WHERE name = 'exempt'")
    assert isinstance(site.in_order(attempt("exempt"))[0], Challenge)


def test_a_trust_window_is_the_authoritys(site: Site) -> None:
    """It was opened from another host of the group; here nobody knows of it."""
    site.authority.policy = site.host.policy = default_policy(trust_window_s=3_600)

    first, second = site.in_order(attempt("alice", ALICE.code(T0)), attempt("alice"))

    assert isinstance(first, Accepted)
    assert isinstance(second, Exempt)
    assert second.exemption is Exemption.TRUST_WINDOW
    lanes = [row["scope"] for row in site.authority.rows("throttle") if str(row["key"]).startswith("lane:")]
    known = site.authority.credential_of("alice")["known_scope"]
    assert "servers" in [*lanes, known]


def test_enrolment_at_login_is_for_the_authority_to_offer_some_other_way(site: Site) -> None:
    """No enroller is on an agent: who must enrol hears where to go."""
    site.authority.policy = site.host.policy = default_policy(enrol=Enrol.AT_LOGIN)

    verdict = site.in_order(attempt("new", first_factor=FirstFactor.DONE))[0]

    assert reason(verdict) is Reason.ENROLMENT_OFFERED
    assert isinstance(verdict, Rejected)
    assert "Contact your administrator" in verdict.public_text


def test_letters_are_looked_up_at_the_authority(site: Site) -> None:
    """There is no hash here. Used once, counted there; alone nothing is charged and the text says what works."""
    with site.authority.store.writing() as connection:
        codes = new_recovery_codes(
            connection, site.authority.act(), users.find_user(connection, "alice"), count=3
        ).codes
    first, second = (code.reveal().decode() for code in codes[:2])

    async def decided() -> list[Verdict]:
        async with site.running() as (gate, wire):
            verdicts = [await gate.decide(attempt("alice", text)) for text in (first, first)]
            wire.cut = True
            return [*verdicts, await gate.decide(attempt("alice", second)), await gate.decide(attempt("nobody", second))]

    good, again, alone, nobody = asyncio.run(decided())

    assert isinstance(good, Accepted)
    assert good.factor == FactorKind.RECOVERY
    assert good.notices
    assert [reason(one) for one in (again, alone, nobody)] == [Reason.REPLAYED, Reason.NEEDS_AUTHORITY, Reason.NEEDS_AUTHORITY]
    assert alone.public_text == nobody.public_text  # type: ignore[union-attr]
    assert failures(site.host) == 0


def test_a_code_behind_a_wrong_password_is_charged_where_accounts_are_counted(site: Site) -> None:
    """``hunter123456``: who guesses codes behind a password looks like somebody with a longer one."""
    site.host.primary = ScriptedPrimary(alice="secret")
    how: dict[str, object] = {"interaction": Interaction.ONE_SHOT, "first_factor": FirstFactor.OURS, "grammar": AUTO}
    bad = wrong(*(ALICE.code(T0, n) for n in range(-12, 13)))

    verdicts = site.in_order(attempt("alice", "secret" + bad, **how), attempt("alice", "no-code-in-it", **how))  # type: ignore[arg-type]

    assert [reason(one) for one in verdicts] == [Reason.FIRST_FACTOR_FAILED] * 2
    assert site.wire is not None
    assert [one.hidden for one in site.wire.asked] == [True, False]
    assert {one.password for one in site.wire.asked} == {Password.BAD}
    assert (failures(site.authority), failures(site.host)) == (1, 1)


def test_a_code_that_cannot_be_found_here_is_still_told_from_the_password(site: Site) -> None:
    """A token by counter: nothing of it is here but its length."""
    with site.host.store.writing() as connection:
        connection.execute(update(credentials).where(credentials.c.kind == "hotp").values(material="none", secret=b""))
    site.host.primary = ScriptedPrimary(token="secret")
    how: dict[str, object] = {"interaction": Interaction.ONE_SHOT, "first_factor": FirstFactor.OURS, "grammar": AUTO}

    verdict = site.in_order(attempt("token", "secret" + TOKEN.code_number(0), **how))[0]  # type: ignore[arg-type]

    assert isinstance(verdict, Accepted)
    assert site.steps("token") == (0, 0)


def test_a_chap_answer_travels(site: Site) -> None:
    """As a value: the code is found at the authority, and no code was seen on the way."""
    answer = ChapAnswer(7, b"challenge", chap_response(7, ALICE.code(T0).encode(), b"challenge"))
    veiled = replace(attempt("alice", answer.response, interaction=Interaction.ONE_SHOT), veiled=answer)

    good, again = site.in_order(veiled, replace(veiled, event_id="other"))

    assert isinstance(good, Accepted)
    assert reason(again) is Reason.REPLAYED


def test_the_hosts_clock_ends_its_challenges(site: Site) -> None:
    """Its wall clock is a minute and a half ahead of the authority's, or behind: the challenge is answered, once."""
    for skew, person in ((100.0, ALICE), (-100.0, BOB)):
        site.host.clock.now = T0 + skew
        carried = replace(
            attempt(person.name, person.code(T0), interaction=Interaction.CHALLENGES),
            challenge_id=f"c{person.name}", challenge_until=T0 + skew + 60,
        )  # fmt: skip
        good, again = site.in_order(carried, replace(carried, event_id=f"again{person.name}"))
        assert isinstance(good, Accepted)
        assert reason(again) is Reason.CHALLENGE_EXPIRED


def test_the_same_wrong_code_again_is_no_second_guess(site: Site) -> None:
    """A client that sends again; the authority has only the code, and another one is another guess."""
    bad, other = "000001", "000002"
    how: dict[str, object] = {"interaction": Interaction.ONE_SHOT, "client": "nas"}

    verdicts = site.in_order(*(attempt("alice", text, **how) for text in (bad, bad, other)))  # type: ignore[arg-type]

    assert [reason(one) for one in verdicts] == [Reason.MISMATCH, Reason.REPEATED, Reason.MISMATCH]
    assert failures(site.authority) == 2


def test_guesses_behind_a_wrong_password_are_never_taken_for_a_repetition(site: Site) -> None:
    """The authority does not see what was typed: two of them may be two guesses."""
    site.host.primary = ScriptedPrimary(alice="other")
    how: dict[str, object] = {"interaction": Interaction.ONE_SHOT, "first_factor": FirstFactor.OURS, "grammar": AUTO}

    verdicts = site.in_order(*(attempt("alice", f"secret00000{n}", **how) for n in range(3)))  # type: ignore[arg-type]

    assert [reason(one) for one in verdicts] == [Reason.FIRST_FACTOR_FAILED] * 3
    assert failures(site.authority) == 3


def test_a_credential_of_one_host_answers_for_that_host(site: Site) -> None:
    """The authority knows who asks."""
    with site.authority.store.writing() as connection:
        connection.execute(update(credentials).values(host_id=5))
    assert isinstance(site.in_order(attempt("alice", ALICE.code(T0)))[0], Accepted)

    with site.authority.store.writing() as connection:
        connection.execute(update(credentials).values(host_id=6))
    assert not isinstance(site.in_order(attempt("bob", BOB.code(T0)))[0], Accepted)


def test_the_policy_is_the_authoritys_and_the_groups_are_the_hosts(site: Site) -> None:
    """What the host's directory says decides there."""
    rule = Rule("staff", (InGroups(frozenset({"staff"})),), action=Action.DENY)
    site.authority.policy = site.host.policy = Policy((rule,), Policy().default)

    class Directory:
        async def groups_of(self, name: str) -> frozenset[str] | None:
            return frozenset({"staff"}) if name == "bob" else frozenset()

    async def decided() -> list[Verdict]:
        async with site.running() as (gate, _):
            gate._groups = Directory()
            return [await gate.decide(attempt(one.name, one.code(T0))) for one in (ALICE, BOB)]

    good, denied = asyncio.run(decided())

    assert isinstance(good, Accepted)
    assert reason(denied) is Reason.POLICY_DENIED


def test_a_name_that_is_no_identity_is_not_asked_about(site: Site) -> None:
    """It is refused like any other, and the authority is not troubled."""
    verdict = site.in_order(attempt("a\x00b", "123456"))[0]

    assert isinstance(verdict, Rejected)
    assert site.wire is not None
    assert site.wire.asked == []


# Alone, and in between


def test_alone_it_goes_on_and_back_again(site: Site) -> None:
    """The network is cut between two logins, and mended before the third."""

    async def decided() -> list[Verdict]:
        async with site.running() as (gate, wire):
            verdicts = [await gate.decide(attempt("alice", ALICE.code(T0)))]
            wire.cut = True
            verdicts += [await gate.decide(attempt("alice", ALICE.code(T0, n))) for n in (0, 1)]
            wire.cut = False
            site.advance(60)
            # The journal is not merged: the authority would take the step that was spent here.
            verdicts += [await gate.decide(attempt("alice", ALICE.code(T0, n))) for n in (1, 2)]
            return verdicts

    verdicts = asyncio.run(decided())

    kinds = [type(one) if isinstance(one, Accepted) else reason(one) for one in verdicts]
    assert kinds == [Accepted, Reason.REPLAYED, Accepted, Reason.REPLAYED, Accepted]
    assert verdicts[-1].notices == ("1 offline login since 2023-11-14 22:14 UTC.",)  # type: ignore[union-attr]
    assert site.steps() == (STEP + 2, STEP + 2)


def test_an_authority_that_cannot_decide_is_out_of_reach(site: Site) -> None:
    """Its queue is full: the host hears no verdict, and decides by its own rules."""
    site.authority.capacity = 0

    verdict = site.in_order(attempt("alice", ALICE.code(T0)))[0]

    assert isinstance(verdict, Accepted)
    assert events(site.host)[0]["by"] == "host"
    assert [one["outcome"] for one in events(site.authority)] == ["unavailable"]


def test_one_code_at_two_doors_is_accepted_once_in_whatever_order_the_answers_come(site: Site) -> None:
    """Eight at once, told backwards."""
    code = ALICE.code(T0)

    async def decided() -> list[Verdict]:
        async with site.running() as (gate, wire):
            wire.held = True
            waiting = [asyncio.ensure_future(gate.decide(attempt("alice", code, client=f"tty{n}"))) for n in range(8)]
            await wire.until_held(8)
            wire.tell_all(backwards=True)
            return list(await asyncio.gather(*waiting))

    verdicts = asyncio.run(decided())

    assert sum(isinstance(one, Accepted) for one in verdicts) == 1
    assert {reason(one) for one in verdicts if not isinstance(one, Accepted)} == {Reason.REPLAYED}


def test_an_accept_that_is_overtaken_by_a_login_alone_is_refused(site: Site) -> None:
    """The answer was on its way when the line broke, and somebody typed the code again in time."""
    code = ALICE.code(T0)

    async def decided() -> tuple[Verdict, Verdict]:
        async with site.running() as (gate, wire):
            wire.held = True
            first = asyncio.ensure_future(gate.decide(attempt("alice", code)))
            await wire.until_held(1)
            wire.cut = True
            second = await gate.decide(attempt("alice", code))
            wire.tell_all()
            return await first, second

    first, second = asyncio.run(decided())

    assert reason(first) is Reason.REPLAYED
    assert isinstance(second, Accepted)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_no_code_lets_in_twice_whatever_is_cut_and_whenever_it_is_told(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Answers out of order, the line cut and mended, two people, three codes each."""
    site = make_site(tmp_path_factory.mktemp("site"))
    turns = data.draw(
        st.lists(st.tuples(st.sampled_from([ALICE, BOB]), st.integers(-1, 1), st.booleans(), st.booleans()), max_size=12)
    )

    async def decided() -> list[tuple[str, int]]:
        async with site.running() as (gate, wire):
            wire.held, waiting = True, []
            for person, offset, cut, tell in turns:
                wire.cut = cut
                asked = attempt(person.name, person.code(T0, offset))
                waiting.append((person.name, offset, asyncio.ensure_future(gate.decide(asked))))
                await asyncio.sleep(0)
                if tell:
                    wire.tell_all(backwards=data.draw(st.booleans()))
            while not all(future.done() for _, _, future in waiting):
                await asyncio.sleep(0.001)
                wire.tell_all(backwards=True)
            return [(name, offset) for name, offset, future in waiting if isinstance(future.result(), Accepted)]

    try:
        let_in = asyncio.run(decided())
        assert len(let_in) == len(set(let_in))
        for name in ("alice", "bob"):
            steps = [offset for who, offset in let_in if who == name]
            assert site.host.credential_of(name)["last_step"] == max((STEP + one for one in steps), default=-1)
    finally:
        site.authority.close()
        site.host.close()


def test_who_hangs_up_does_not_unspend_his_code(site: Site) -> None:
    """The authority has accepted it when the caller goes: it is written here all the same."""

    async def decided() -> None:
        async with site.running() as (gate, wire):
            wire.held = True
            waiting = asyncio.ensure_future(gate.decide(attempt("alice", ALICE.code(T0))))
            await wire.until_held(1)
            waiting.cancel()
            await asyncio.sleep(0)
            wire.tell_all()
            wire.cut = True
            assert reason(await gate.decide(attempt("alice", ALICE.code(T0)))) is Reason.REPLAYED

    asyncio.run(decided())
    assert site.steps() == (STEP, STEP)


def test_more_than_the_capacity_does_not_wait(site: Site) -> None:
    """An authority that is slow must not fill this host's memory."""
    site.host.capacity = 3

    async def decided() -> list[Verdict]:
        async with site.running() as (gate, wire):
            wire.held = True
            waiting = [asyncio.ensure_future(gate.decide(attempt("alice", f"{n:06d}"))) for n in range(3)]
            await wire.until_held(3)
            refused = [await gate.decide(attempt("bob", BOB.code(T0)))]
            future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
            gate.ask(attempt("bob", BOB.code(T0), interaction=Interaction.ONE_SHOT), future.set_result)
            refused.append(await future)
            wire.held = False
            wire.tell_all()
            await asyncio.gather(*waiting)
            return [*refused, await gate.decide(attempt("bob", BOB.code(T0)))]

    *full, after = asyncio.run(decided())

    for verdict in full:
        assert isinstance(verdict, Unavailable)
        assert verdict.reason is Unready.OVERLOADED
    assert isinstance(after, Accepted)


class Odd:
    """A counsel that breaks its word: it tells ``times`` times and then raises, if ``raises``."""

    def __init__(self, times: int, *, raises: bool) -> None:
        self.times, self.raises = times, raises

    def ask(self, referred: Referred, told: Told) -> None:
        for _ in range(self.times):
            told(Ruled(Outcome.REJECTED, Reason.MISMATCH, counted=True))
        if self.raises:
            raise RuntimeError("a bug")


@pytest.mark.parametrize(("times", "raises"), list(itertools.product([0, 1, 2], [True, False])))
def test_a_counsel_that_breaks_its_word_lets_nobody_in(
    site: Site, caplog: pytest.LogCaptureFixture, times: int, raises: bool
) -> None:
    """Told twice counts once, and raising refuses; who never tells keeps a caller waiting and nobody else."""
    site.host.counsel = Odd(times, raises=raises)

    async def decided() -> Verdict | None:
        async with site.host.gate() as gate:
            waiting = asyncio.ensure_future(gate.decide(attempt("alice", ALICE.code(T0))))
            if not times and not raises:
                await asyncio.sleep(0.01)
                assert not waiting.done()
                waiting.cancel()
                return None
            return await waiting

    with caplog.at_level(logging.ERROR):
        verdict = asyncio.run(decided())

    if times:
        assert verdict is not None
        assert reason(verdict) is Reason.MISMATCH
        assert failures(site.host) == 1
    elif raises:
        assert isinstance(verdict, Unavailable)
    assert any("told twice" in record.message for record in caplog.records) is (times == 2)


def test_what_cannot_be_decided_is_told_as_an_exception(site: Site) -> None:
    """What the authority cannot decide is told as what it is, and stands in its log."""

    async def decided() -> list[Ruling | BaseException]:
        async with site.authority.gate() as gate:
            await gate.stop()
            told: list[Ruling | BaseException] = []
            gate.refer(Referral(attempt("alice", "x"), "alice"), told.append)
            assert told == []
            await asyncio.sleep(0)
            return told

    (told,) = asyncio.run(decided())
    assert isinstance(told, BaseException)


def test_what_the_policy_does_can_be_asked_before(site: Site) -> None:
    """Where it denies or exempts, nobody has to be entitled."""
    site.authority.policy = default_policy(action=Action.EXEMPT)

    async def decided() -> Action:
        async with site.authority.gate() as gate:
            return gate.action_for(Referral(attempt("alice", "x"), "alice"))

    assert asyncio.run(decided()) is Action.EXEMPT
