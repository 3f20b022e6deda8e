"""A batch is one transaction: judged one after another, spent once, recorded, and no entry is another one's trouble."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Update, event, update

from mfa_core.model import Attempt, FactorKind, Interaction
from mfa_core.oath import step_at
from mfa_core.policy import Action, Decision, Policy
from mfa_core.secret import Secret
from mfa_core.verdict import Accepted, Challenge, Reason, Rejected, Unavailable, Unready, Verdict
from mfa_core.verifier import Judgement, Settings, Situation, judge
from mfa_runtime.administration import users as users_of
from mfa_runtime.administration.recovery import new_recovery_codes
from mfa_runtime.administration.users import find_user
from mfa_runtime.key_file import KeyEncryptionKeys
from mfa_runtime.ledger import FORESIGHT_BATCHES, Ledger
from mfa_runtime.sealing import Keyring, Place
from mfa_runtime.sitting import UNKNOWN_NAMES, Entry, source_key
from mfa_runtime.store import accounts, audit_log
from mfa_runtime.store.key_table import add_data_key, drop_data_keys
from mfa_runtime.store.schema import credentials, throttle, users
from tests.doubles import (
    ALICE,
    BOB,
    KEK,
    NO_WAITING,
    SOURCE,
    T0,
    Installation,
    Person,
    add_people,
    attempt,
    install,
    wrong,
)

STEP = step_at(T0, 30)


def verdicts(installation: Installation, ledger: Ledger, *attempts: object) -> list[Verdict]:
    """What one batch of these attempts ends in."""
    return [ruling.verdict for ruling in installation.process(ledger, *attempts)]  # type: ignore[arg-type]


def recorded(installation: Installation) -> list[dict[str, object]]:
    """The events of the store, oldest first; the chain is whole."""
    with installation.store.reading() as connection:
        assert all(not r.problems or not r.events for r in audit_log.verify(connection, keyring=installation.keyring()))
        return [json.loads(entry.body) for entry in audit_log.every(connection)]


def reasons(found: list[Verdict]) -> list[str]:
    """Verdicts in a word each."""
    return [
        v.reason.value if isinstance(v, Rejected | Unavailable) else type(v).__name__.lower() for v in found
    ]


# Spending


def test_a_code_is_accepted_once_in_a_batch(installed: Installation) -> None:
    """core-5-4: however often it stands there."""
    code = ALICE.code(T0)

    found = verdicts(installed, installed.ledger(), *(attempt("alice", code) for _ in range(50)))

    assert reasons(found) == ["accepted"] + ["replayed"] * 49
    assert installed.credential_of("alice")["last_step"] == STEP


def test_a_spent_code_stays_spent_for_another_process(installed: Installation) -> None:
    """core-5-1, core-5-2: what one ledger accepted another one refuses, now and in the next step."""
    code = ALICE.code(T0)
    first, second = installed.ledger(), installed.ledger()
    assert reasons(verdicts(installed, first, attempt("alice", code))) == ["accepted"]

    assert reasons(verdicts(installed, second, attempt("alice", code))) == ["replayed"]
    installed.clock.advance(30)
    assert reasons(verdicts(installed, second, attempt("alice", code))) == ["replayed"]


def test_an_older_code_is_spent_by_a_newer_one(installed: Installation) -> None:
    """core-5-3: the watermark moves over both."""
    ledger = installed.ledger()

    found = verdicts(installed, ledger, attempt("alice", ALICE.code(T0, 1)), attempt("alice", ALICE.code(T0)))

    assert reasons(found) == ["accepted", "replayed"]


def test_two_codes_of_one_user_in_one_batch_are_both_spent(installed: Installation) -> None:
    """Two sessions, two codes: each entry is judged on what the one before left."""
    found = verdicts(
        installed, installed.ledger(), attempt("alice", ALICE.code(T0, -1)), attempt("alice", ALICE.code(T0)),
        attempt("alice", ALICE.code(T0, -1)), attempt("alice", ALICE.code(T0)),
    )  # fmt: skip

    assert reasons(found) == ["accepted", "accepted", "replayed", "replayed"]
    assert installed.credential_of("alice")["last_step"] == STEP


def test_failures_in_one_batch_add_up(installed: Installation) -> None:
    """core-5-10: two hundred parallel guesses are four that are looked at."""
    guess = wrong(*(ALICE.code(T0, o) for o in range(-12, 13)))

    found = verdicts(installed, installed.ledger(), *(attempt("alice", guess) for _ in range(200)))

    assert reasons(found) == ["mismatch"] * 4 + ["throttled"] * 196
    record = next(row for row in installed.rows("throttle") if row["key"] == "account:alice")
    assert (record["failures"], record["consecutive"]) == (4, 4)


def test_a_success_in_a_batch_clears_what_the_failures_before_it_left(installed: Installation) -> None:
    """Serial means serial."""
    guess = wrong(*(ALICE.code(T0, o) for o in range(-12, 13)))

    found = verdicts(
        installed, installed.ledger(), attempt("alice", guess), attempt("alice", ALICE.code(T0)), attempt("alice", guess)
    )

    assert reasons(found) == ["mismatch", "accepted", "mismatch"]
    record = next(row for row in installed.rows("throttle") if row["key"] == "account:alice")
    assert record["consecutive"] == 1


def test_another_process_between_reading_and_writing_loses_no_spend(installed: Installation) -> None:
    """core-5-5: the writing transaction holds the lock from its first statement, so that nothing can come between."""
    with installed.store.reading() as snapshot:
        snapshot.execute(users.select()).all()
        assert reasons(verdicts(installed, installed.ledger(), attempt("alice", ALICE.code(T0)))) == ["accepted"]
    assert reasons(verdicts(installed, installed.ledger(), attempt("alice", ALICE.code(T0)))) == ["replayed"]


# Judged before the transaction, because another process is writing


def before_the_next_transaction(ledger: Ledger, change: Callable[[], object]) -> None:
    """What another process does after this ledger has judged, and before it writes."""
    begin = ledger._session.writing

    def writing(meanwhile: Callable[[], None] | None = None, *, locks: Sequence[int] = ()) -> object:
        ledger._session.writing = begin  # type: ignore[method-assign]
        change()
        return begin(meanwhile, locks=locks)

    ledger._crowded = 1
    ledger._session.writing = writing  # type: ignore[method-assign, assignment]


def administer(installation: Installation, statement: Update) -> None:
    """Change a row, as mfactl would."""
    with installation.store.writing() as connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    ("change", "expected", "judged"),
    [
        (lambda _: None, "accepted", 1),
        (lambda i: verdicts(i, i.ledger(), attempt("bob", BOB.code(T0))), "accepted", 1),
        (lambda i: verdicts(i, i.ledger(), attempt("alice", ALICE.code(T0))), "replayed", 2),
        (lambda i: administer(i, update(users).where(users.c.name == "alice").values(locked=True)), "mismatch", 2),
        (lambda i: administer(i, update(credentials).values(state="suspended")), "mismatch", 2),
        (lambda i: administer(i, update(users).where(users.c.name == "alice").values(name="eve")), "mismatch", 2),
        (lambda i: verdicts(i, i.ledger(), *[attempt("alice", "000000", source=None)] * 4), "throttled", 2),
        (lambda i: verdicts(i, i.ledger(), carried("bob", BOB.code(T0))), "challenge_expired", 2),
        (lambda i: i.clock.advance(1.5), "accepted", 2),
    ],
    ids=["nothing", "another-user", "spent", "locked", "suspended", "renamed", "throttled", "answered", "too-late"],
)
def test_what_changed_since_it_was_judged_is_judged_again(
    installed: Installation, told: list[bool], change: Callable[[Installation], object], expected: str, judged: int
) -> None:
    """Rows that are the same give the same judgement; any other row, and the batch is judged in its transaction."""
    ledger = installed.ledger()

    def change_alone() -> None:
        change(installed)
        del told[1:]

    before_the_next_transaction(ledger, change_alone)
    found = verdicts(installed, ledger, carried("alice", ALICE.code(T0)))

    assert reasons(found) == [expected]
    assert len(told) == judged
    accepts = [e for e in recorded(installed) if e["outcome"] == "accepted" and e["user"] == "alice"]
    assert len(accepts) == (expected in {"accepted", "replayed"})


def test_a_batch_is_judged_while_another_process_writes(installed: Installation, told: list[bool]) -> None:
    """It waits with its judgements made, compares, and writes; so do the next ones before they are told to wait."""
    ledger = installed.ledger()
    holder = sqlite3.connect(installed.store.path or "", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    foresee = ledger._foresee

    def foresee_and_let_go(entries: Sequence[Entry]) -> object:
        made = foresee(entries)
        holder.execute("COMMIT")
        return made

    ledger._foresee = foresee_and_let_go  # type: ignore[method-assign, assignment]
    both = (attempt("alice", ALICE.code(T0)), attempt("bob", BOB.code(T0)))
    assert reasons(verdicts(installed, ledger, *both)) == ["accepted"] * 2
    ledger._foresee = foresee  # type: ignore[method-assign]
    assert len(told) == 2
    assert ledger._crowded == FORESIGHT_BATCHES
    assert reasons(verdicts(installed, ledger, attempt("alice", ALICE.code(T0)))) == ["replayed"]
    assert ledger._crowded == FORESIGHT_BATCHES - 1
    holder.close()


# On the loop's own thread, where nothing has to be waited for


def now(installation: Installation, ledger: Ledger, *attempts: Attempt) -> list[Verdict] | None:
    """What one batch ends in that must not wait."""
    chosen = installation.policy.default.decision()
    rulings = ledger.commit_now([Entry(one, one.username, chosen, installation.settings) for one in attempts])
    return None if rulings is None else [ruling.verdict for ruling in rulings]


def test_what_need_not_wait_is_decided_at_once(installed: Installation) -> None:
    """By the same rules, in the same transaction."""
    ledger = installed.ledger()
    found = now(installed, ledger, *(attempt("alice", ALICE.code(T0)) for _ in range(3)), attempt("bob", BOB.code(T0)))

    assert found is not None
    assert reasons(found) == ["accepted", "replayed", "replayed", "accepted"]
    assert len(recorded(installed)) == 4
    ledger.settle()


def test_who_must_not_wait_does_not_wait_for_another_process(
    installed: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is written, and nothing is lost by it: the same connection goes on. The log does not speak of a wait."""
    caplog.set_level("DEBUG")
    ledger = installed.ledger()
    ledger.process([])
    assert now(installed, ledger, attempt("bob", BOB.code(T0))) is not None
    connected = ledger._session._connected
    holder = sqlite3.connect(installed.store.path or "", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert now(installed, ledger, attempt("alice", ALICE.code(T0))) is None
    assert "was not waited for" in caplog.text
    assert "stayed locked" not in caplog.text
    holder.execute("COMMIT")
    found = now(installed, ledger, attempt("alice", ALICE.code(T0)))
    assert found is not None
    assert reasons(found) == ["accepted"]
    assert ledger._session._connected == connected
    holder.close()


def test_who_must_not_wait_does_not_wait_for_the_writers_thread(installed: Installation) -> None:
    """Nor look into its transaction."""
    ledger = installed.ledger()
    chosen = installed.policy.default.decision()
    one = attempt("alice", ALICE.code(T0))
    with ledger._turn:
        assert now(installed, ledger, one) is None
        assert ledger.look([Entry(one, one.username, chosen, installed.settings)]) is not None
    assert now(installed, ledger, one) is not None


def test_what_is_out_of_order_is_left_to_who_finds_out_what(installed: Installation) -> None:
    """A row that does not open refuses its own login, and the others are decided: nothing of them was written before."""
    ledger = installed.ledger()
    _break(installed, "alice", secret=b"rubbish")
    both = (attempt("alice", ALICE.code(T0)), attempt("bob", BOB.code(T0)))
    assert now(installed, ledger, *both) is None
    assert recorded(installed) == []
    assert reasons(verdicts(installed, ledger, *both))[1] == "accepted"



# Durable before it is answered


def test_nothing_is_told_before_the_log_is_on_the_disk(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """One flush for all that was committed, then the sinks, then the answer."""
    order: list[str] = []
    flush = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (flush(fd), order.append("flushed")))
    ledger = Ledger(
        installed.store, keyring=installed.keyring(), reload_keyring=installed.keyring, node="n", clock=installed.clock,
        sink=lambda _: order.append("told"),
    )  # fmt: skip

    for one in (attempt("alice", ALICE.code(T0)), attempt("bob", BOB.code(T0))):
        ledger.commit([Entry(one, one.username, Decision("r"), Settings())])
    assert order == []
    ledger.settle()
    assert order == ["flushed", "told"]
    ledger.settle()
    assert order == ["flushed", "told"]
    ledger._session.close()


def test_a_disk_that_refuses_a_flush_is_not_believed_again(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel forgets what it could not write: later frames would lie behind a gap. mfad has to be started again."""

    def refuse(_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    ledger = installed.ledger()
    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", refuse)
        assert reasons(verdicts(installed, ledger, attempt("alice", ALICE.code(T0)))) == ["cannot_record_use"]
    assert reasons(verdicts(installed, ledger, attempt("bob", BOB.code(T0)))) == ["cannot_record_use"]
    assert installed.sink.lines == []

    another = installed.ledger()
    assert reasons(verdicts(installed, another, attempt("alice", ALICE.code(T0)))) == ["replayed"]
    assert reasons(verdicts(installed, another, attempt("bob", BOB.code(T0)))) == ["accepted"], "no code is eaten in vain"


def test_a_connection_that_does_not_wait_for_the_disk_is_nobody_elses(installed: Installation) -> None:
    """What mfactl writes, and what the daemon writes beside its logins, is durable when its commit returns."""

    def synchronous(connection: Connection) -> object:
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        return raw.execute("PRAGMA synchronous").fetchone()[0]

    ledger = installed.ledger()
    with ledger._session.writing() as connection:
        assert synchronous(connection) == 1
    ledger._session.close()
    for _ in range(10):
        with installed.store.writing() as connection:
            assert synchronous(connection) == 2
    with ledger._asking.reading() as connection:
        assert synchronous(connection) == 2
    ledger._asking.close()


# Challenges that a client carries


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each judgement was told that its challenge is spent."""
    seen: list[bool] = []

    def look(attempt: Attempt, situation: Situation, chosen: Settings) -> Judgement:
        seen.append(situation.challenge_spent)
        return judge(attempt, situation, chosen)

    monkeypatch.setattr("mfa_runtime.sitting.judge", look)
    return seen


def carried(name: str, typed: str | None, challenge: str = "c1", until: float = T0 + 120) -> Attempt:
    """An attempt that answers a challenge which its client carried."""
    return replace(attempt(name, typed, challenge_id=challenge), challenge_until=until)


def test_a_carried_challenge_is_answered_once(installed: Installation, told: list[bool]) -> None:
    """The first answer wins, right or wrong, whoever looks: the same batch, the next one, another process."""
    guess = wrong(*(ALICE.code(T0, o) for o in range(-12, 13)))

    first = (carried("alice", guess), carried("alice", ALICE.code(T0)), carried("bob", guess, "c2"))
    verdicts(installed, installed.ledger(), *first)
    assert told == [False, True, False]
    told.clear()

    verdicts(installed, installed.ledger(), carried("alice", ALICE.code(T0)), carried("bob", guess, "c3"))
    assert told == [True, False]


def test_a_carried_challenge_ends(installed: Installation, told: list[bool]) -> None:
    """At its last moment it is over, and nothing of it is kept."""
    guess = wrong(*(ALICE.code(T0, o) for o in range(-12, 13)))

    verdicts(installed, installed.ledger(), carried("alice", guess, "over", T0), carried("alice", guess, "ends", T0 + 0.5))

    assert told == [True, False]
    with installed.store.reading() as connection:
        assert accounts.answered_challenges(connection, ["over", "ends"]) == [("ends",)]


def test_an_answer_that_was_not_decided_spends_no_challenge(installed: Installation, told: list[bool]) -> None:
    """A store that cannot be written refuses, and the person may try again with the same challenge."""
    ledger = installed.ledger()
    holder = sqlite3.connect(installed.store.path or "", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    ledger._session.patience_s = 0.0
    assert reasons(verdicts(installed, ledger, carried("alice", ALICE.code(T0)))) == ["store_unavailable"]
    holder.execute("ROLLBACK")
    holder.close()
    told.clear()

    assert reasons(verdicts(installed, ledger, carried("alice", ALICE.code(T0)))) == ["accepted"]
    assert told == [False]


def test_other_attempts_do_not_ask_about_challenges(installed: Installation, told: list[bool]) -> None:
    """Doors that keep their dialogue themselves, and questions, cost and write nothing."""
    asked: list[str] = []
    ledger = installed.ledger()
    raw = ledger._session.connect().connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    raw.set_trace_callback(asked.append)

    verdicts(installed, ledger, attempt("alice", ALICE.code(T0), challenge_id="mine"), carried("bob", None))

    assert told.count(True) == 0
    assert asked
    assert not any("spent_challenges" in text for text in asked)


def test_hotp_counts_in_the_store(tmp_path: Path) -> None:
    """A counter is spent as a step is; passed-over ones are gone."""
    token = Person("carol", kind=FactorKind.HOTP, last_step=4)
    installation = install(tmp_path, token)
    ledger = installation.ledger()

    found = verdicts(installation, ledger, *(attempt("carol", token.code_number(n)) for n in (7, 6, 7, 8)))

    assert reasons(found) == ["accepted", "replayed", "replayed", "accepted"]
    assert installation.credential_of("carol")["last_step"] == 8
    installation.close()


def test_a_code_outside_the_window_is_remembered_and_the_next_one_resynchronises(installed: Installation) -> None:
    """Over two transactions, and over a restart."""
    assert reasons(verdicts(installed, installed.ledger(), attempt("alice", ALICE.code(T0, 5)))) == ["mismatch"]
    assert installed.credential_of("alice")["resync_step"] == STEP + 5

    assert reasons(verdicts(installed, installed.ledger(), attempt("alice", ALICE.code(T0, 6)))) == ["accepted"]
    row = installed.credential_of("alice")
    assert (row["last_step"], row["drift_steps"], row["resync_step"]) == (STEP + 6, 6, -1)


# Events


def test_every_verdict_has_exactly_one_event(installed: Installation) -> None:
    """Accepted, refused, asked: in the store and at the sink, in the same words."""
    ledger = installed.ledger()
    tried = [attempt("alice"), attempt("alice", ALICE.code(T0)), attempt("alice", ALICE.code(T0)), attempt("bob", "000000"),
             attempt("nobody", "000000"), attempt("bob"), attempt("bob", ""), attempt("bob", "what?")]  # fmt: skip

    for batch in (tried[:4], tried[4:6], tried[6:]):
        verdicts(installed, ledger, *batch)
    ledger.flush()

    events = recorded(installed)
    assert sorted(str(e["id"]) for e in events) == sorted(one.event_id for one in tried)
    assert [json.loads(line)["id"] for line in installed.sink.lines] == [e["id"] for e in events]


def test_a_question_waits_for_the_next_transaction(installed: Installation) -> None:
    """It gives nothing away, so that its event may wait; it is not lost."""
    ledger = installed.ledger()
    (verdict,) = verdicts(installed, ledger, asked := attempt("alice"))
    assert isinstance(verdict, Challenge)
    assert recorded(installed) == []

    ledger.flush()

    assert [e["id"] for e in recorded(installed)] == [asked.event_id]
    ledger.flush()
    assert len(recorded(installed)) == 1


def test_a_login_writes_the_questions_that_wait(installed: Installation) -> None:
    """In the order in which they were asked."""
    ledger = installed.ledger()
    tried = [attempt("alice"), attempt("bob"), attempt("alice", ALICE.code(T0))]
    for one in tried:
        verdicts(installed, ledger, one)

    assert [e["id"] for e in recorded(installed)] == [one.event_id for one in tried]


def test_an_exemption_is_recorded_before_it_is_answered(installed: Installation) -> None:
    """It lets somebody in: that is not left to wait."""
    installed.process(installed.ledger(), one := attempt("alice"), decision=Decision("open", Action.EXEMPT))

    assert [(e["id"], e["outcome"], e["rule"]) for e in recorded(installed)] == [(one.event_id, "exempt", "open")]


# Names and sources


def test_unknown_names_cannot_fill_the_store(installed: Installation) -> None:
    """core-5-18, core-5-65: they share a fixed number of records, and get the same answers as everybody."""
    installed.settings = NO_WAITING
    ledger = installed.ledger()
    found = verdicts(installed, ledger, *(attempt(f"nobody{n}", "000000") for n in range(256)))

    assert set(reasons(found)) == {"mismatch"}
    keys = {str(row["key"]) for row in installed.rows("throttle")} - {f"source:{SOURCE}"}
    assert all(key.startswith("unknown:") and int(key.removeprefix("unknown:")) < UNKNOWN_NAMES for key in keys)
    assert not any("nobody" in key for key in keys)


def test_an_unknown_name_is_throttled_as_a_known_one(installed: Installation) -> None:
    """core-5-18: after the same number of guesses it waits for the same time."""
    guess = wrong(*(ALICE.code(T0, o) for o in range(-12, 13)))
    ledger = installed.ledger()
    alice = verdicts(installed, ledger, *(attempt("alice", guess, source=None) for _ in range(6)))
    nobody = verdicts(installed, ledger, *(attempt("nobody", guess, source=None) for _ in range(6)))

    assert [(v.public_text, v.retry_after_s) for v in alice] == [(v.public_text, v.retry_after_s) for v in nobody]  # type: ignore[union-attr]


def test_a_lane_is_of_one_user_and_one_source(installed: Installation) -> None:
    """core-5-30: success from one place makes this place known, for this user; the first one needs no row of its own."""
    ledger = installed.ledger()
    for minutes, source in enumerate(["192.0.2.9", "192.0.2.9", "192.0.2.10", "192.0.2.9"]):
        installed.clock.now = T0 + 660 * minutes
        code = ALICE.code(installed.clock())
        assert reasons(verdicts(installed, ledger, attempt("alice", code, source=source))) == ["accepted"]

    assert [row["key"] for row in installed.rows("throttle")] == ["lane:alice 192.0.2.10"]
    assert known(installed) == ("192.0.2.9", T0 + 3 * 660)
    assert known(installed, "bob") == ("", 0.0)


def known(installation: Installation, name: str = "alice") -> tuple[object, object]:
    """The source that a person's credential knows, and when it was used from there."""
    row = installation.credential_of(name)
    return row["known_source"], row["known_at"]


def test_a_failure_gives_a_lane_a_row_that_counts(installed: Installation) -> None:
    """Failures, the time of the last success, and what comes after stand together; the credential has no say any more."""
    guess = wrong(*(ALICE.code(T0, o) for o in range(-12, 60)))
    ledger = installed.ledger()
    found = verdicts(installed, ledger, attempt("alice", ALICE.code(T0)))
    found += verdicts(installed, ledger, *(attempt("alice", guess) for _ in range(5)))
    lane = next(row for row in installed.rows("throttle") if row["key"] == f"lane:alice {SOURCE}")
    assert reasons(found) == ["accepted"] + ["mismatch"] * 4 + ["throttled"]
    assert (lane["failures"], lane["last_success_at"]) == (4, T0)

    installed.clock.advance(60)
    found = verdicts(installed, ledger, attempt("alice", ALICE.code(installed.clock())))

    lane = next(row for row in installed.rows("throttle") if row["key"] == f"lane:alice {SOURCE}")
    assert (reasons(found), lane["failures"], lane["last_success_at"]) == (["accepted"], 0, T0 + 60)
    assert known(installed) == (SOURCE, T0)


def test_accepts_and_failures_of_one_batch_leave_what_they_leave_one_by_one(tmp_path: Path) -> None:
    """The lane is found, lost to a row and cleared again inside one transaction."""
    guess = wrong(*(ALICE.code(T0, o) for o in range(-12, 60)))
    tried = [attempt("alice", text) for text in (guess, ALICE.code(T0), guess, ALICE.code(T0, 1))]
    left = []
    for way in ("together", "apart"):
        (tmp_path / way).mkdir()
        one = install(tmp_path / way)
        ledger = one.ledger()
        batches = [tried] if way == "together" else [[a] for a in tried]
        found = [verdict for batch in batches for verdict in verdicts(one, ledger, *batch)]
        rows = [{**row, "last_tag": b""} for row in one.rows("throttle")]
        left.append((reasons(found), rows, known(one), one.credential_of("alice")["last_step"]))
        one.close()

    assert left[0][0] == ["mismatch", "accepted", "mismatch", "accepted"]
    assert left[0] == left[1]


def test_a_source_that_is_forgotten_makes_room(installed: Installation) -> None:
    """After thirty days the credential may know another one."""
    ledger = installed.ledger()
    verdicts(installed, ledger, attempt("alice", ALICE.code(T0), source="192.0.2.9"))
    installed.clock.advance(30 * 86_400)
    verdicts(installed, ledger, attempt("alice", ALICE.code(installed.clock()), source="192.0.2.10"))

    assert known(installed) == ("192.0.2.10", T0 + 30 * 86_400)
    assert not [row for row in installed.rows("throttle") if str(row["key"]).startswith("lane:")]


def test_a_lane_of_before_keeps_its_row(installed: Installation) -> None:
    """Of a store that was brought up to date: it is known, and stays where it is."""
    ledger = installed.ledger()
    with installed.store.writing() as connection:
        connection.execute(
            throttle.insert().values(
                key=f"lane:alice {SOURCE}", failures=0, consecutive=0, not_before=0.0, last_failure_at=0.0,
                last_success_at=T0 - 86_400, last_tag=b"", scope="web",
            )
        )  # fmt: skip
    verdicts(installed, ledger, attempt("alice", ALICE.code(T0)))

    assert [(row["last_success_at"], row["scope"]) for row in installed.rows("throttle")] == [(T0, "")]
    assert known(installed) == ("", 0.0)


def test_a_recovery_code_makes_a_source_known_without_a_credential(installed: Installation) -> None:
    """It spends no credential, so that the lane has a row; trust windows open with neither."""
    with installed.store.writing() as connection:
        batch = new_recovery_codes(connection, installed.act(), find_user(connection, "alice"), count=1)
    found = installed.decide(attempt("alice", batch.codes[0].reveal().decode()))

    assert reasons(found) == ["accepted"]
    assert [row["key"] for row in installed.rows("throttle")] == [f"lane:alice {SOURCE}"]
    assert known(installed) == ("", 0.0)


def test_a_trust_window_opens_where_the_credential_was_used(installed: Installation) -> None:
    """From the same source, for its time, and not with a credential that is suspended."""
    trusting = replace(Policy().default.decision(), trust_window_s=600)
    ledger = installed.ledger()

    def asked(source: str = SOURCE) -> list[Verdict]:
        return [r.verdict for r in installed.process(ledger, attempt("alice", source=source), decision=trusting)]

    found = asked()
    verdicts(installed, ledger, attempt("alice", ALICE.code(T0)))
    found += asked() + asked("192.0.2.77")
    installed.clock.advance(600)
    found += asked()
    installed.clock.advance(-300)
    _break(installed, "alice", state="suspended")
    found += asked()

    assert reasons(found) == ["challenge", "exempt", "challenge", "challenge", "challenge"]


@pytest.mark.parametrize("how", [users_of.unlock, users_of.reset], ids=["unlock", "reset"])
def test_an_administrator_takes_the_known_source_away(installed: Installation, how: Callable[..., object]) -> None:
    """As the rows of lanes."""
    verdicts(installed, installed.ledger(), attempt("alice", ALICE.code(T0)))
    assert known(installed) == (SOURCE, T0)

    with installed.store.writing() as connection:
        how(connection, installed.act(), "alice")

    assert known(installed) == ("", 0.0)


def test_a_stranger_does_not_stop_the_owner(installed: Installation) -> None:
    """core-5-11: through the store: guesses from elsewhere, and alice still comes in from where she came yesterday."""
    guess = wrong(*(ALICE.code(T0, o) for o in range(-12, 60)))
    ledger = installed.ledger()
    assert reasons(verdicts(installed, ledger, attempt("alice", ALICE.code(T0)))) == ["accepted"]
    for n in range(20):
        verdicts(installed, ledger, attempt("alice", guess, source=f"203.0.113.{n}"))
        installed.clock.advance(1)

    installed.clock.advance(10)
    code = ALICE.code(installed.clock())
    assert reasons(verdicts(installed, ledger, attempt("alice", code, source="203.0.113.99"))) == ["throttled"]
    assert reasons(verdicts(installed, ledger, attempt("alice", code))) == ["accepted"]


def test_a_user_who_is_made_again_inherits_nothing(installed: Installation) -> None:
    """core-5-30: the seal binds a secret to the number of its user; numbers are never given twice."""
    first = installed.credential_of("alice")
    with installed.store.writing() as connection:
        connection.execute(users.delete().where(users.c.name == "alice"))
    with installed.store.writing() as connection:
        add_people(connection, [Person("alice", kind=None)], installed.keyring())
    again = next(row for row in installed.rows("users") if row["name"] == "alice")

    assert again["id"] != first["user_id"]
    assert reasons(verdicts(installed, installed.ledger(), attempt("alice", ALICE.code(T0)))) == ["mismatch"]


@pytest.mark.parametrize(
    ("source", "key"),
    [("192.0.2.1", "192.0.2.1"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
     ("fe80::1%eth0", "fe80::/64"), ("what:ever", "what:ever")],
)  # fmt: skip
def test_failures_count_for_what_one_customer_controls(source: str, key: str) -> None:
    """core-5-11: an IPv6 customer has 2^64 addresses."""
    assert source_key(source) == key


# One row's trouble


def _break(installation: Installation, name: str, **values: object) -> None:
    number = installation.credential_of(name)["id"]
    with installation.store.writing() as connection:
        connection.execute(update(credentials).where(credentials.c.id == number).values(**values))


@pytest.mark.parametrize("batch_of_questions", [False, True], ids=["codes", "questions"])
def test_a_row_that_does_not_open_is_its_own_trouble(installed: Installation, batch_of_questions: bool) -> None:
    """core-5-25: alice's damaged secret refuses alice, closed and on record; bob in the same batch logs in."""
    sealed = bytes(installed.credential_of("alice")["secret"])  # type: ignore[arg-type]
    _break(installed, "alice", secret=sealed[:-1] + bytes([sealed[-1] ^ 1]))
    ledger = installed.ledger()
    typed = (None, None) if batch_of_questions else (ALICE.code(T0), BOB.code(T0))

    alice, bob = verdicts(installed, ledger, attempt("alice", typed[0]), attempt("bob", typed[1]))

    assert isinstance(alice, Unavailable)
    assert alice.reason is Unready.INTERNAL
    assert isinstance(bob, Challenge if batch_of_questions else Accepted)
    ledger.flush()
    assert {e["user"]: e["outcome"] for e in recorded(installed)}["alice"] == "unavailable"


@pytest.mark.parametrize(
    "rubbish",
    [{"digest": "md5"}, {"kind": "magic"}, {"period_s": 0}, {"period_s": -30}, {"secret": b""}, {"last_step": 2**62},
     {"drift_steps": "x"}, {"drift_steps": 2**62}, {"last_step": "x"}, {"digits": -1}],
    ids=lambda values: "-".join(map(str, next(iter(values.items())))),
)  # fmt: skip
def test_a_row_of_rubbish_is_its_own_trouble(installed: Installation, rubbish: dict[str, object]) -> None:
    """core-5-25: whatever somebody wrote into alice's row, she is refused and bob in the same batch is not."""
    _break(installed, "alice", **rubbish)

    alice, bob = verdicts(installed, installed.ledger(), attempt("alice", ALICE.code(T0)), attempt("bob", BOB.code(T0)))

    assert isinstance(alice, Unavailable | Rejected)
    assert isinstance(bob, Accepted)


def test_a_user_of_rubbish_is_his_own_trouble(installed: Installation) -> None:
    """core-5-25: the same for the row of the user."""
    with installed.store.writing() as connection:
        connection.execute(update(users).where(users.c.name == "alice").values(state="what", requirement="ever"))

    found = verdicts(installed, installed.ledger(), attempt("alice", ALICE.code(T0)), attempt("bob", BOB.code(T0)))

    assert reasons(found) == ["internal", "accepted"]


def test_a_secret_from_another_row_does_not_open(installed: Installation) -> None:
    """core-5-25: bob's sealed secret in alice's row opens nothing with bob's codes."""
    _break(installed, "alice", secret=installed.credential_of("bob")["secret"])

    found = verdicts(installed, installed.ledger(), attempt("alice", BOB.code(T0)), attempt("bob", BOB.code(T0)))

    assert reasons(found) == ["internal", "accepted"]


# Keys that change while logins go on


def _rotate(installation: Installation) -> None:
    """A new data key, every row sealed under it, the old one gone: what `mfactl key rotate` does."""
    keks = KeyEncryptionKeys((KEK,))
    old = installation.keyring()
    with installation.store.writing() as connection:
        add_data_key(connection, keks, now=T0, random=os.urandom)
    new = installation.keyring()
    with installation.store.writing() as connection:
        for row in connection.execute(credentials.select()).all():
            place = Place("credentials", "secret", row.id, row.user_id)
            sealed = new.seal(old.unseal(bytes(row.secret), place), place)
            connection.execute(update(credentials).where(credentials.c.id == row.id).values(secret=sealed))
        drop_data_keys(connection, frozenset({old.current}))


@pytest.mark.parametrize("typed", [None, "code"], ids=["question", "code"])
def test_a_key_that_came_after_is_loaded(installed: Installation, typed: str | None) -> None:
    """Online rotation: nobody notices."""
    ledger = installed.ledger()
    before = ledger.keyring.current
    _rotate(installed)

    (verdict,) = verdicts(installed, ledger, attempt("alice", typed and ALICE.code(T0)))

    assert isinstance(verdict, Challenge if typed is None else Accepted)
    assert ledger.keyring.current != before


def test_a_key_that_nobody_has_refuses(installed: Installation) -> None:
    """core-5-59: closed, for its row alone."""
    sealed = bytes(installed.credential_of("alice")["secret"])  # type: ignore[arg-type]
    _break(installed, "alice", secret=sealed[:1] + (77).to_bytes(4, "big") + sealed[5:])

    found = verdicts(installed, installed.ledger(), attempt("alice", ALICE.code(T0)), attempt("bob", BOB.code(T0)))

    assert reasons(found) == ["internal", "accepted"]


# A store that fails


def _on_connect(installation: Installation, *pragmas: str) -> Callable[[], None]:
    """From the next connection on these pragmas hold; the function takes them back."""
    engines = (installation.store._engine, installation.store._settling)

    def configure(connection: sqlite3.Connection, _record: object) -> None:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    for engine in engines:
        event.listen(engine, "connect", configure)
        engine.dispose()

    def undo() -> None:
        for engine in engines:
            event.remove(engine, "connect", configure)
            engine.dispose()
        for ledger in installation._ledgers:
            ledger._session.close()

    return undo


@pytest.mark.parametrize(
    ("pragma", "expected"),
    [("max_page_count=1", Unready.STORE_FULL), ("query_only=ON", Unready.STORE)],
    ids=["full", "read-only"],
)
def test_a_store_that_cannot_be_written_refuses_and_the_next_login_works(
    installed: Installation, pragma: str, expected: Unready
) -> None:
    """core-5-58: a right code whose use cannot be recorded is refused, is not spent, and opens when there is room again. The
    refusal is on record then."""
    undo = _on_connect(installed, pragma, "busy_timeout=50")
    ledger = installed.ledger()
    flood = [attempt("alice", ALICE.code(T0), service="s" * 250, client="c" * 250) for _ in range(40)]

    refused = verdicts(installed, ledger, *flood)

    assert {type(v) for v in refused} == {Unavailable}
    assert {v.reason for v in refused} == {expected}  # type: ignore[union-attr]
    undo()
    assert installed.credential_of("alice")["last_step"] == -1
    assert reasons(verdicts(installed, ledger, attempt("alice", ALICE.code(T0)))) == ["accepted"]
    outcomes = [e["outcome"] for e in recorded(installed)]
    assert outcomes.count("unavailable") == 40
    assert outcomes.count("accepted") == 1


def test_a_store_that_is_held_by_somebody_refuses_after_a_while(installed: Installation) -> None:
    """core-5-58: closed; and the next login works."""
    ledger = installed.ledger()
    ledger._session.patience_s = 0.02
    with installed.store.writing():
        assert reasons(verdicts(installed, ledger, attempt("alice", ALICE.code(T0)))) == ["store_unavailable"]

    assert reasons(verdicts(installed, ledger, attempt("alice", ALICE.code(T0)))) == ["accepted"]


def test_a_store_whose_commit_fails_has_spent_nothing(installed: Installation) -> None:
    """core-5-59: the answer leaves after the commit, so that no accept can leave without one."""
    failing = True

    def refuse_commits(connection: sqlite3.Connection, _record: object) -> None:
        def allows(action: int, what: str | None, *_: object) -> int:
            commits = action == sqlite3.SQLITE_TRANSACTION and what == "COMMIT"
            return sqlite3.SQLITE_DENY if failing and commits else sqlite3.SQLITE_OK

        connection.set_authorizer(allows)

    ledger = installed.ledger()
    event.listen(installed.store._settling, "connect", refuse_commits)

    found = verdicts(installed, ledger, attempt("alice", ALICE.code(T0)), attempt("bob", BOB.code(T0)))

    failing = False
    assert reasons(found) == ["store_unavailable"] * 2
    assert installed.sink.lines == []
    assert reasons(verdicts(installed, ledger, attempt("alice", ALICE.code(T0)))) == ["accepted"]


def test_a_damaged_file_refuses(installed: Installation) -> None:
    """core-5-59: with pages of rubbish there is no accept and no crash."""
    path = installed.store.path
    assert path is not None
    installed.store.checkpoint()
    installed.store.close()
    raw = bytearray(path.read_bytes())
    raw[4096:] = b"\xa5" * (len(raw) - 4096)
    path.write_bytes(raw)
    for name in ("-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)
    ledger = Ledger(
        installed.store, keyring=_RING, reload_keyring=installed.keyring, node="n", clock=installed.clock, sink=installed.sink
    )
    installed._ledgers.append(ledger)

    assert reasons(verdicts(installed, ledger, attempt("alice", ALICE.code(T0)), attempt("bob"))) == ["internal"] * 2


_RING = Keyring({1: Secret(b"k" * 32)}, current=1, pepper=Secret(b"p"), audit_key=Secret(b"a"), random=os.urandom)


# Retransmissions, through the store


def test_a_retransmission_counts_once(installed: Installation) -> None:
    """core-5-15: five times the same wrong code from one NAS within a minute; with another code it counts again."""
    guess = wrong(*(ALICE.code(T0, o) for o in range(-12, 13)))

    def sent(code: str, client: str = "nas1") -> Callable[[], object]:
        return lambda: attempt("alice", code, interaction=Interaction.ONE_SHOT, client=client)

    found = installed.in_order(*[sent(guess)] * 5, sent(guess, "nas2"))  # type: ignore[list-item]

    assert reasons(found) == ["mismatch", *["repeated"] * 4, "mismatch"]


# Properties

_tries = st.lists(
    st.lists(
        st.tuples(st.sampled_from(["alice", "bob"]), st.integers(-12, 12), st.booleans()), min_size=1, max_size=6
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_tries, st.lists(st.integers(-90, 90), min_size=6, max_size=6))
def test_no_step_is_accepted_twice_in_any_order_of_batches(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[str, int, bool]]], moves: list[int]
) -> None:
    """core-5-1 to core-5-5: whatever is batched with what, in two processes, while the clock moves."""
    installation = install(tmp_path_factory.mktemp("store"), settings=NO_WAITING)
    ledgers = installation.ledger(), installation.ledger()
    people = {"alice": ALICE, "bob": BOB}
    try:
        for batch, move in zip(batches, moves, strict=False):
            installation.clock.advance(move)
            now = installation.clock()
            for which in (0, 1):
                verdicts(installation, ledgers[which], *(
                    attempt(name, people[name].code(now, offset)) for name, offset, first in batch if first is (which == 0)
                ))  # fmt: skip
        accepted = [(e["user"], e["step"]) for e in recorded(installation) if e["outcome"] == "accepted"]
    finally:
        installation.close()

    assert len(accepted) == len(set(accepted))
    for name in people:
        steps = [step for user, step in accepted if user == name]
        assert steps == sorted(steps)  # type: ignore[type-var]


def test_reasons_are_words(installed: Installation) -> None:
    """The audit log has the reason; the door hears of nothing that it must not tell by a code of its own."""
    (verdict,) = verdicts(installed, installed.ledger(), attempt("nobody", "000000"))

    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.MISMATCH
    assert recorded(installed)[0]["reason"] == "unknown_user"
