"""The ledger of a host that has an authority: what it mirrors, what it decides alone, and what it never does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from mfa_core import codebook
from mfa_core.audit import Outcome
from mfa_core.mirror import Ruled
from mfa_core.model import Attempt, EnrolmentState, FactorKind, FirstFactor, Interaction, Requirement
from mfa_core.oath import step_at
from mfa_core.passcode import read_passcode
from mfa_core.policy import Action, Decision, Enforce
from mfa_core.secret import Secret
from mfa_core.split import Split
from mfa_core.verdict import Accepted, Challenge, Exempt, Exemption, Reason, Rejected, Unavailable, Unready, Verdict
from mfa_core.verifier import Password
from mfa_runtime.counsel import Alone, Counselled
from mfa_runtime.lease import lease_of
from mfa_runtime.ledger import Ledger, Ruling, ruled_of
from mfa_runtime.sitting import Entry, Origin
from mfa_runtime.store import agent_state, audit_log, codebooks
from mfa_runtime.store.codebooks import Codebook
from mfa_runtime.store.schema import credentials, offline_logins, otp_uses
from tests.doubles import ALICE, BOB, NODE, T0, Installation, Person, agent_state_row, as_agent, attempt, install, wrong

STEP = step_at(T0, 30)
ALONE = Alone(60.0)
TOKEN = Person("token", FactorKind.HOTP)
CAROL = Person("carol", digits=8)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    """An agent that knows alice, bob, carol and a token."""
    installed = as_agent(install(tmp_path, ALICE, BOB, CAROL, TOKEN))
    yield installed
    installed.close()


def reading(code: str, password: str = "") -> Split:
    """What was referred."""
    return Split(Secret(password.encode()), read_passcode(code.encode()))


def entry(here: Installation, asked: Attempt, told: Counselled | None, **fields: object) -> Entry:
    """An attempt of a code alone, after the authority was asked."""
    decision = fields.pop("decision", None) or here.policy.default.decision()
    made = Entry(asked, asked.username, decision, here.settings)  # type: ignore[arg-type]
    found = (reading(asked.typed.reveal().decode()),) if asked.typed else ()
    return made if told is None else replace(made.after(told, found), **fields)  # type: ignore[arg-type]


def decide(
    here: Installation, ledger: Ledger, told: Counselled | None, typed: str | None, name: str = "alice", **fields: object
) -> Verdict:
    """The verdict on one attempt."""
    how = {k: fields.pop(k) for k in list(fields) if k in ("service", "interaction", "first_factor", "source")}
    return ledger.process([entry(here, attempt(name, typed, **how), told, **fields)])[0].verdict  # type: ignore[arg-type]


def reason(verdict: Verdict) -> Reason:
    """Why it was refused."""
    assert isinstance(verdict, Rejected), verdict
    return verdict.reason


def accepted(here: Installation, step: int = STEP, name: str = "alice", **fields: object) -> Ruled:
    """What an authority says of a good code."""
    number = here.credential_of(name)["id"]
    return Ruled(Outcome.ACCEPTED, rule="theirs", factor="totp", credential=f"totp:{number}", step=step, **fields)  # type: ignore[arg-type]


def last_event(here: Installation) -> dict[str, object]:
    """What was written down last."""
    return dict(json.loads(str(here.rows("audit")[-1]["body"])))


def offline_rows(here: Installation) -> list[tuple[int, float]]:
    """How often, and since when."""
    with here.store.reading() as connection:
        return [(row.count, row.since) for row in connection.execute(select(offline_logins))]


def floor(here: Installation) -> float:
    """What no right clock can be before."""
    with here.store.reading() as connection:
        state = agent_state.load(connection)
    assert state is not None
    return state.floor


def give_book(here: Installation, person: Person, first: int, count: int) -> None:
    """Take the secret away, and give codes for it."""
    number = here.credential_of(person.name)["id"]
    with here.store.writing() as connection:
        connection.execute(
            update(credentials).where(credentials.c.id == number).values(material="codebook", secret=b"nothing sealed here")
        )
        if count:
            packed = Secret(codebook.pack(person.credential, first, count))
            codebooks.put(connection, here.keyring(), [Codebook(int(str(number)), first, packed)])


# Ruled


def test_what_the_authority_accepts_is_spent_here_too(here: Installation) -> None:
    """One transaction: watermark, lane and event; and it is not accepted alone afterwards."""
    ledger = here.ledger()

    verdict = decide(here, ledger, accepted(here, drift_steps=1), ALICE.code(T0))

    assert isinstance(verdict, Accepted)
    assert (here.credential_of("alice")["last_step"], here.credential_of("alice")["drift_steps"]) == (STEP, 1)
    assert last_event(here) | {"by": "authority", "rule": "theirs", "step": STEP, "outcome": "accepted"} == last_event(here)
    assert reason(decide(here, ledger, ALONE, ALICE.code(T0))) is Reason.REPLAYED


def test_a_code_that_was_spent_alone_is_refused_whatever_the_authority_says(here: Installation) -> None:
    """The journal is not merged yet: nothing is accepted twice."""
    ledger = here.ledger()

    assert isinstance(decide(here, ledger, ALONE, ALICE.code(T0)), Accepted)
    verdict = decide(here, ledger, accepted(here), ALICE.code(T0))

    assert reason(verdict) is Reason.REPLAYED
    assert last_event(here)["by"] == "authority"
    assert isinstance(decide(here, ledger, accepted(here, STEP + 1), ALICE.code(T0, 1)), Accepted)


def test_one_batch_mirrors_one_step_once(here: Installation) -> None:
    """Two rulings on one code that wait together, and one from before it: the first one stands."""
    code = ALICE.code(T0)
    many = [entry(here, attempt("alice", code), accepted(here)) for _ in range(3)]
    older = entry(here, attempt("alice", ALICE.code(T0, -1)), accepted(here, STEP - 1))

    verdicts = [ruling.verdict for ruling in here.ledger().process([*many, older])]

    assert [type(verdict) for verdict in verdicts] == [Accepted, Rejected, Rejected, Rejected]


@settings(max_examples=25)
@given(st.lists(st.tuples(st.booleans(), st.integers(-1, 1)), min_size=1, max_size=12))
def test_no_step_is_accepted_twice_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, turns: list[tuple[bool, int]]
) -> None:
    """Alone and by ruling, newer and older, batch by batch."""
    here = as_agent(install(tmp_path_factory.mktemp("agent"), ALICE))
    try:
        ledger, taken = here.ledger(), []
        for alone, offset in turns:
            told = ALONE if alone else accepted(here, STEP + offset)
            if isinstance(decide(here, ledger, told, ALICE.code(T0, offset)), Accepted):
                taken.append(offset)
        assert taken == sorted(set(taken))
    finally:
        here.close()


def test_failures_are_kept_as_the_authority_counted_them(here: Installation) -> None:
    """They go on from there alone: five are free, then a quarter of an hour."""
    ledger, bad = here.ledger(), wrong(*(ALICE.code(T0, offset) for offset in range(-12, 13)))
    ruled = Ruled(Outcome.REJECTED, Reason.MISMATCH, counted=True)
    for _ in range(4):
        assert reason(decide(here, ledger, ruled, bad)) is Reason.MISMATCH
    here.clock.advance(10)  # more than the authority makes her wait

    assert reason(decide(here, ledger, ALONE, bad)) is Reason.MISMATCH
    verdict = decide(here, ledger, ALONE, ALICE.code(here.clock()))

    assert reason(verdict) is Reason.THROTTLED
    assert isinstance(verdict, Rejected)
    assert verdict.retry_after_s == pytest.approx(900, abs=11)
    # The authority decides about waits of its own, and a success of hers clears what is here.
    assert isinstance(decide(here, ledger, accepted(here), ALICE.code(here.clock())), Accepted)
    assert isinstance(decide(here, ledger, ALONE, ALICE.code(here.clock(), 1)), Accepted)


def test_twenty_failures_alone_lock_until_the_authority_lets_in(here: Installation) -> None:
    """However long one waits."""
    ledger, bad = here.ledger(), "12345678"
    for _ in range(20):
        assert reason(decide(here, ledger, ALONE, bad)) in (Reason.MISMATCH, Reason.THROTTLED)
        here.clock.advance(901)
    while reason(decide(here, ledger, ALONE, bad)) is Reason.MISMATCH:
        here.clock.advance(901)

    assert reason(decide(here, ledger, ALONE, ALICE.code(here.clock()))) is Reason.LOCKED
    assert isinstance(decide(here, ledger, accepted(here, STEP + 5_000), "123456"), Accepted)


def test_a_challenge_is_answered_once_here_too(here: Installation) -> None:
    """Also where the authority that was asked had not heard of the first answer."""
    ledger = here.ledger()
    carried = replace(attempt("alice", ALICE.code(T0), interaction=Interaction.CHALLENGES), challenge_id="c1")
    carried = replace(carried, challenge_until=T0 + 60)

    first = ledger.process([entry(here, carried, Ruled(Outcome.REJECTED, Reason.MISMATCH, counted=True))])[0].verdict
    second = ledger.process([entry(here, replace(carried, event_id="other"), accepted(here))])[0].verdict

    assert reason(first) is Reason.MISMATCH
    assert reason(second) is Reason.CHALLENGE_EXPIRED


def test_grace_that_began_at_the_authority_holds_alone(here: Installation, tmp_path: Path) -> None:
    """Its deadline is written."""
    dora = Person("dora", kind=None, state=EnrolmentState.INVITED)
    theirs = as_agent(install(_made(tmp_path / "b"), dora))
    try:
        ledger = theirs.ledger()
        ruled = Ruled(Outcome.EXEMPT, exemption=Exemption.GRACE, until=T0 + 3_600)

        assert isinstance(decide(theirs, ledger, ruled, None, "dora"), Exempt)
        assert theirs.rows("users")[0]["grace_until"] == T0 + 3_600
        assert isinstance(decide(theirs, ledger, ALONE, None, "dora"), Exempt)
        theirs.clock.advance(3_601)
        assert isinstance(decide(theirs, ledger, ALONE, None, "dora"), Challenge)
    finally:
        theirs.close()


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


# Alone


def test_alone_a_good_code_lets_in_and_leaves_word(here: Installation) -> None:
    """The step is spent, the floor of the clock rises to it, the journal says who decided."""
    here.clock.advance(3_600)

    verdict = decide(here, here.ledger(), ALONE, ALICE.code(here.clock()))

    assert isinstance(verdict, Accepted)
    assert verdict.notices == ()
    assert floor(here) == T0 + 3_600
    assert last_event(here)["by"] == "host"
    assert offline_rows(here) == [(1, T0 + 3_600)]


def test_offline_logins_are_told_until_the_authority_is_back(here: Installation) -> None:
    """At each login, alone as well; an accept of the authority's clears the count, a refusal does not."""
    ledger = here.ledger()
    said = []
    for offset in range(3):
        here.clock.advance(30)
        said.append(decide(here, ledger, ALONE, ALICE.code(here.clock())))
        assert isinstance(decide(here, ledger, ALONE, BOB.code(here.clock()), "bob"), Accepted), offset
    decide(here, ledger, Ruled(Outcome.REJECTED, Reason.MISMATCH, counted=True), "000000")
    last = decide(here, ledger, accepted(here, STEP + 4, notices=("theirs",)), ALICE.code(here.clock(), 1))
    after = decide(here, ledger, accepted(here, STEP + 5), ALICE.code(here.clock(), 2))

    notices = [verdict.notices for verdict in (*said, last, after) if isinstance(verdict, Accepted)]
    since = "since 2023-11-14 22:14 UTC."
    assert notices == [
        (), (f"1 offline login {since}",), (f"2 offline logins {since}",), ("theirs", f"3 offline logins {since}"), (),
    ]  # fmt: skip
    assert offline_rows(here) == [(3, T0 + 30)]


def test_offline_logins_of_one_batch_are_counted_one_by_one(here: Installation) -> None:
    """Two codes of one user that wait together."""
    entries = [entry(here, attempt("alice", ALICE.code(T0, offset)), ALONE) for offset in (0, 1)]

    verdicts = [ruling.verdict for ruling in here.ledger().process(entries)]

    assert [len(verdict.notices) for verdict in verdicts if isinstance(verdict, Accepted)] == [0, 1]
    assert offline_rows(here) == [(2, T0)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"cursor": -1}, Reason.NEVER_SYNCED),
        ({"standing": "revoked"}, Reason.HOST_REVOKED),
        ({"floor": T0 + 100}, Reason.CLOCK_ROLLBACK),
        ({"synced_at": T0 - 100}, Reason.CLOCK_JUMPED),
        ({"not_after": T0 - 1}, Reason.CACHE_EXPIRED),
        ({"offline_services": ["sudo"]}, Reason.NOT_OFFLINE),
        ({"offline_after_s": 61.0}, Reason.TOO_EARLY),
    ],
)
def test_the_lease_is_asked_each_time(here: Installation, fields: dict[str, object], expected: Reason) -> None:
    """What a sync or an administrator wrote a moment ago holds for the next attempt; another process wrote it."""
    ledger = here.ledger()
    assert isinstance(decide(here, ledger, ALONE, ALICE.code(T0)), Accepted)

    with here.store.writing() as connection:
        agent_state.save(connection, agent_state_row(**fields))

    assert reason(decide(here, ledger, ALONE, ALICE.code(T0, 1))) is expected
    assert reason(decide(here, ledger, ALONE, "12", "nobody")) is expected
    assert here.credential_of("alice")["last_step"] == STEP


def test_who_was_not_told_that_it_is_alone_is_not(here: Installation, tmp_path: Path) -> None:
    """A code that reaches the ledger of an agent by another way lets nobody in, and neither does a host without a row."""
    assert reason(decide(here, here.ledger(), None, ALICE.code(T0))) is Reason.TOO_EARLY

    bare = install(_made(tmp_path / "b"))
    try:
        assert reason(decide(bare, bare.ledger(), ALONE, ALICE.code(T0))) is Reason.NEVER_SYNCED
        bare.moment = here.moment
        assert reason(decide(bare, bare.ledger(), ALONE, ALICE.code(T0))) is Reason.NEVER_SYNCED
    finally:
        bare.close()


def test_terms_that_cannot_be_read_let_nobody_in(here: Installation) -> None:
    """The row was damaged: unavailable, and why stands in the log."""
    for terms in ("{", "[]", '{"host_group": "a"}', json.dumps(json.loads(agent_state_row().host) | {"offline_services": "*"})):
        with here.store.writing() as connection:
            agent_state.change(connection, host=terms)
        verdict = decide(here, here.ledger(), ALONE, ALICE.code(T0))
        assert verdict == Unavailable(verdict.event_id, Unready.INTERNAL)  # type: ignore[union-attr]


def test_no_terms_are_terms_that_grant_nothing(here: Installation) -> None:
    """Joined, and nothing heard."""
    assert lease_of(agent_state_row(host="")).terms.max_offline_s == 0


def test_a_rule_of_the_policy_may_forbid_to_decide_alone(here: Installation) -> None:
    """``offline: false``."""
    verdict = decide(here, here.ledger(), ALONE, ALICE.code(T0), decision=Decision("r1", offline=False))

    assert reason(verdict) is Reason.NOT_OFFLINE


def test_alone_exemptions_hold_by_the_lease_and_by_the_policy(here: Installation) -> None:
    """An expired lease takes the first and leaves the second."""
    with here.store.writing() as connection:
        agent_state.change(connection, not_after=T0 - 1)

    exempt = decide(here, here.ledger(), ALONE, None, decision=Decision("r1", Action.EXEMPT))
    unknown = decide(here, here.ledger(), ALONE, None, "nobody", decision=Decision("r1", enforce=Enforce.ENROLLED_ONLY))

    assert isinstance(exempt, Exempt)
    assert reason(unknown) is Reason.CACHE_EXPIRED


def test_a_codebook_verifies_as_its_seed_does(here: Installation) -> None:
    """And once: the row has no secret at all."""
    give_book(here, ALICE, STEP - 1, 100)
    give_book(here, CAROL, STEP - 1, 100)
    ledger = here.ledger()

    assert isinstance(decide(here, ledger, ALONE, ALICE.code(T0)), Accepted)
    assert isinstance(decide(here, ledger, ALONE, CAROL.code(T0), "carol"), Accepted)
    assert isinstance(decide(here, ledger, ALONE, BOB.code(T0), "bob"), Accepted)
    assert reason(decide(here, ledger, ALONE, ALICE.code(T0))) is Reason.REPLAYED
    assert isinstance(decide(here, ledger, ALONE, ALICE.code(T0, 1)), Accepted)


def test_after_the_last_page_of_a_book_nothing_fits(here: Installation) -> None:
    """Whatever the lease says, and whatever is computed in place of a code."""
    give_book(here, ALICE, STEP - 100, 50)

    proved = decide(here, here.ledger(), ALONE, ALICE.code(T0), first_factor=FirstFactor.DONE)
    assert reason(proved) is Reason.CACHE_EXPIRED
    assert here.rows("throttle") == []
    assert reason(decide(here, here.ledger(), ALONE, ALICE.code(T0))) is Reason.MISMATCH  # what a stranger hears of anybody
    assert last_event(here)["reason"] == "cache_expired"


def test_a_new_book_is_seen_at_once(here: Installation) -> None:
    """A sync of another process replaced it."""
    give_book(here, ALICE, STEP - 100, 50)
    ledger = here.ledger()
    assert reason(decide(here, ledger, ALONE, ALICE.code(T0))) is Reason.MISMATCH

    give_book(here, ALICE, STEP - 1, 50)

    assert isinstance(decide(here, ledger, ALONE, ALICE.code(T0)), Accepted)


def test_a_book_that_is_missing_is_nothing(here: Installation) -> None:
    """The row says codebook and there is none."""
    give_book(here, ALICE, 0, 0)

    verdict = decide(here, here.ledger(), ALONE, ALICE.code(T0), first_factor=FirstFactor.DONE)
    assert reason(verdict) is Reason.CACHE_EXPIRED


def test_what_is_not_here_needs_the_authority(here: Installation) -> None:
    """Said to who has proved the first factor, not charged to him."""
    with here.store.writing() as connection:
        connection.execute(update(credentials).values(material="none", secret=b""))
    ledger = here.ledger()

    verdict = decide(here, ledger, ALONE, "123456", "token", first_factor=FirstFactor.DONE)

    assert reason(verdict) is Reason.NEEDS_AUTHORITY
    assert here.rows("throttle") == []
    number = here.credential_of("token")["id"]
    ruled = Ruled(Outcome.ACCEPTED, factor="hotp", credential=f"hotp:{number}", step=17)
    assert isinstance(decide(here, ledger, ruled, "123456", "token"), Accepted)
    assert here.credential_of("token")["last_step"] == 17


def test_a_name_that_is_no_identity_is_refused_without_the_authority(here: Installation) -> None:
    """It was not asked: there is nobody to ask about."""
    nobody = Entry(attempt("a b", "123456"), "", here.policy.default.decision(), here.settings)

    assert reason(here.ledger().process([nobody])[0].verdict) is Reason.USERNAME_REFUSED


# Questions


def test_a_question_is_a_challenge_whoever_asks(here: Installation) -> None:
    """Known and unknown alike, whatever the lease says; what would be something else is left to the authority."""
    with here.store.writing() as connection:
        agent_state.change(connection, not_after=T0 - 1)
    ledger = here.ledger()
    for name in ("alice", "nobody"):
        ruling = ledger.question(entry(here, attempt(name), None))
        assert ruling is not None
        assert isinstance(ruling.verdict, Challenge)
    assert ledger.question(entry(here, attempt("alice"), None, decision=None)) is not None


def test_a_question_about_an_exemption_goes_to_the_authority(here: Installation, tmp_path: Path) -> None:
    """What this host knows of it may be old."""
    theirs = as_agent(install(_made(tmp_path / "b"), Person("dora", requirement=Requirement.EXEMPT)))
    try:
        assert theirs.ledger().question(entry(theirs, attempt("dora"), None)) is None
        assert isinstance(decide(theirs, theirs.ledger(), ALONE, None, "dora"), Exempt)
    finally:
        theirs.close()


# Chains and uses


def test_a_new_chain_begins_between_two_transactions(here: Installation) -> None:
    """After a fork the journal goes on under another name, while logins go on."""
    ledger = here.ledger()
    decide(here, ledger, ALONE, ALICE.code(T0))
    ledger.begin_chain("local:2")
    decide(here, ledger, ALONE, BOB.code(T0), "bob")

    assert ledger.node == "local:2"
    assert [row["node"] for row in here.rows("audit") if "attempt" in str(row["body"])] == ["local:2", NODE]
    with here.store.reading() as connection:
        assert [report.problems for report in audit_log.verify(connection, keyring=here.keyring())] == [(), ()]


def test_chains_change_while_batches_run(here: Installation) -> None:
    """Another thread does it; every event is in one whole chain."""
    ledger, done = here.ledger(), threading.Event()

    def rename() -> None:
        for number in range(2, 30):
            ledger.begin_chain(f"local:{number}")
        done.set()

    thread = threading.Thread(target=rename)
    thread.start()
    count = 0
    while not done.is_set() or count < 5:
        decide(here, ledger, ALONE, "12", "nobody")
        count += 1
    thread.join()

    with here.store.reading() as connection:
        reports = list(audit_log.verify(connection, keyring=here.keyring()))
    assert [problem for report in reports for problem in report.problems] == []
    assert sum(json.loads(str(row["body"])).get("event") == "attempt" for row in here.rows("audit")) == count


def test_an_authority_writes_down_which_code_was_used_where(tmp_path: Path) -> None:
    """In the transaction that accepts it; a door of its own is host 0."""
    authority = install(tmp_path, records_uses=True)
    try:
        ledger = authority.ledger()
        theirs = entry(authority, attempt("alice", ALICE.code(T0)), None)
        theirs = replace(theirs, found=(reading(ALICE.code(T0)),), origin=Origin(5, "web1", False))
        own = entry(authority, attempt("bob", BOB.code(T0)), None)
        again = replace(own, attempt=replace(own.attempt, event_id="again"))
        rulings = ledger.process([theirs, own, again])

        assert [type(ruling.verdict) for ruling in rulings] == [Accepted, Accepted, Rejected]
        with authority.store.reading() as connection:
            rows = [tuple(row) for row in connection.execute(select(otp_uses).order_by(otp_uses.c.credential_id))]
        numbers = [authority.credential_of(name)["id"] for name in ("alice", "bob")]
        assert rows == [
            (numbers[0], STEP, 5, theirs.attempt.event_id, T0), (numbers[1], STEP, 0, own.attempt.event_id, T0),
        ]  # fmt: skip
        assert [json.loads(str(row["body"])).get("host") for row in authority.rows("audit")][-3:] == ["web1", None, None]
    finally:
        authority.close()


def test_a_standalone_host_reads_and_writes_nothing_of_this(tmp_path: Path) -> None:
    """No lease, no counts, no uses."""
    alone = install(tmp_path)
    try:
        assert isinstance(decide(alone, alone.ledger(), None, ALICE.code(T0)), Accepted)
        with alone.store.reading() as connection:
            assert connection.execute(select(otp_uses)).all() == connection.execute(select(offline_logins)).all() == []
        assert "by" not in last_event(alone)
    finally:
        alone.close()


# What travels


def test_what_is_told_of_a_ruling_is_what_was_ruled(tmp_path: Path) -> None:
    """Accept, refusal, exemption, question, and what broke."""
    authority = install(tmp_path, ALICE, Person("dora", requirement=Requirement.EXEMPT))
    try:
        ledger = authority.ledger()

        def rule(asked: Attempt, found: tuple[Split, ...] = (), **fields: object) -> Ruled:
            made = entry(authority, asked, None)
            made = replace(made, **({"found": found, "origin": Origin(5, "web1", False)} | fields))  # type: ignore[arg-type]
            return ruled_of(ledger.process([made])[0])

        two = (reading("12345678"), reading(ALICE.code(T0)))
        good = rule(attempt("alice", "x"), two)
        assert (good.outcome, good.step, good.reading, good.credential) == (
            Outcome.ACCEPTED, STEP, 1, f"totp:{authority.credential_of('alice')['id']}",
        )  # fmt: skip
        bad = rule(attempt("alice", "x"), (reading("000000"),))
        assert (bad.outcome, bad.reason, bad.counted) == (Outcome.REJECTED, Reason.MISMATCH, True)
        spent = rule(attempt("alice", "x"), two)
        assert (spent.reason, spent.counted, spent.text != "", spent.retry_after_s > 0) == (Reason.REPLAYED, False, True, True)
        hidden = rule(
            attempt("alice", "x", first_factor=FirstFactor.OURS), (reading("000000"),), password=Password.BAD,
            origin=Origin(5, "web1", True),
        )  # fmt: skip
        assert (hidden.reason, hidden.counted) == (Reason.FIRST_FACTOR_FAILED, True)
        unknown = rule(attempt("nobody", "x"), (reading("000000"),))
        assert (unknown.reason, unknown.text) == (Reason.UNKNOWN_USER, "Access denied.")
        exempt = rule(attempt("dora"))
        assert (exempt.outcome, exempt.exemption) == (Outcome.EXEMPT, Exemption.USER)
        asked = rule(attempt("alice"))
        assert (asked.outcome, asked.until) == (Outcome.CHALLENGED, T0 + 120)
        assert ruled_of(Ruling(Unavailable("e", Unready.STORE_FULL))) == Ruled(Outcome.UNAVAILABLE, Unready.STORE_FULL)
    finally:
        authority.close()
