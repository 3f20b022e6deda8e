"""The gate: whatever comes in, a verdict goes out, its event is written, and nothing that breaks lets anybody in."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update

from mfa_core.model import EnrolmentState, FirstFactor, Grammar, Interaction, Requirement, SplitMode
from mfa_core.policy import Action, Enforce, FromNetworks, InGroups, OnMissing, Policy, Rule
from mfa_core.secret import Secret
from mfa_core.verdict import Accepted, Challenge, Exempt, Rejected, Unavailable, Unready, Verdict
from mfa_runtime.administration import users
from mfa_runtime.administration.bypass import issue_bypass
from mfa_runtime.administration.recovery import new_recovery_codes
from mfa_runtime.administration.users import find_user
from mfa_runtime.key_file import KeyEncryptionKeys
from mfa_runtime.sealing import Place
from mfa_runtime.store import audit_log
from mfa_runtime.store.key_table import add_data_key, drop_data_keys
from mfa_runtime.store.schema import credentials, one_time_codes
from mfa_runtime.verification import MAX_HASHES_OF_ONE, MAX_WAITING_HASHES, Verification
from tests.doubles import (
    ALICE,
    BOB,
    KEK,
    NO_WAITING,
    T0,
    Installation,
    Person,
    ScriptedPrimary,
    attempt,
    default_policy,
    install,
    wrong,
)

APPEND, SEPARATOR = Grammar(SplitMode.APPEND), Grammar(SplitMode.SEPARATOR)
GUESS = wrong(*(one.code(T0, o) for one in (ALICE, BOB) for o in range(-12, 13)))


def reasons(found: list[Verdict]) -> list[str]:
    """Verdicts in a word each."""
    return [v.reason.value if isinstance(v, Rejected | Unavailable) else type(v).__name__.lower() for v in found]


def events(installation: Installation) -> list[dict[str, object]]:
    """The attempts on record."""
    with installation.store.reading() as connection:
        bodies = [json.loads(entry.body) for entry in audit_log.every(connection)]
    return [body for body in bodies if body["event"] == "attempt"]


def issue(installation: Installation, name: str = "alice") -> tuple[list[str], str, str]:
    """Ten recovery codes, a key and a bypass code."""
    act = installation.act()
    with installation.store.writing() as connection:
        user = find_user(connection, name)
        batch = new_recovery_codes(connection, act, user)
        bypass = issue_bypass(connection, act, user, reason="lost phone", approver="carol")
    return [c.reveal().decode() for c in batch.codes], batch.key.reveal().decode(), bypass.code.reveal().decode()


# Ways in


def test_a_question_then_a_code(installed: Installation) -> None:
    """The dialogue of sshd."""
    found = installed.in_order(attempt("alice"), attempt("alice", ALICE.code(T0)))

    assert isinstance(found[0], Challenge)
    assert isinstance(found[1], Accepted)


def test_one_code_from_everywhere_at_once_is_accepted_once(installed: Installation) -> None:
    """core-5-4, core-5-6: two hundred sessions, in whatever batches they form."""
    code = ALICE.code(T0)

    found = installed.decide(*(attempt("alice", code, source=f"192.0.2.{n}") for n in range(200)))

    assert sorted(reasons(found)) == ["accepted"] + ["replayed"] * 199


def test_two_gates_on_one_store_accept_a_code_once(installed: Installation) -> None:
    """core-5-5: as two processes do, each with a ledger of its own."""
    code = ALICE.code(T0)

    async def race() -> list[Verdict]:
        async with installed.gate() as here, installed.gate() as there:
            return list(await asyncio.gather(*(g.decide(attempt("alice", code)) for g in [here, there] * 50)))

    assert sorted(reasons(asyncio.run(race()))) == ["accepted"] + ["replayed"] * 99


@pytest.mark.parametrize("spelled", ["ALICE", "Alice", "alice"])
def test_spellings_of_a_name_share_one_counter(installed: Installation, spelled: str) -> None:
    """core-5-28: ASCII case is folded before anything is looked up."""
    installed.in_order(*(attempt(name, GUESS) for name in ("alice", "ALICE", spelled)))

    assert [row["failures"] for row in installed.rows("throttle") if row["key"] == "account:alice"] == [3]


@pytest.mark.parametrize(
    "name",
    ["\u0410lice", "\uff21\uff2c\uff29\uff23\uff25", "\ufb01", "ali\u200bce", "\u0130", "alice\x00", "alice@elsewhere", "a b",
     "", "x" * 300],
    ids=["cyrillic", "full-width", "ligature", "zero-width", "dotted-I", "nul", "foreign-realm", "blank", "empty", "long"],
)  # fmt: skip
def test_names_that_are_no_identity_are_refused(installed: Installation, name: str) -> None:
    """core-5-28, core-5-27: with the same prompt, and also where everybody else is exempt."""
    for policy in (Policy(), default_policy(action=Action.EXEMPT), default_policy(enforce=Enforce.ENROLLED_ONLY)):
        installed.policy = policy
        found = installed.in_order(attempt(name), attempt(name, ALICE.code(T0)))

        assert reasons(found) == ["challenge", "username_refused"]


# Letters


@pytest.mark.parametrize("grammar", [Grammar(), APPEND, SEPARATOR], ids=lambda g: g.mode)
@pytest.mark.parametrize("kind", ["recovery", "key", "bypass"])
def test_a_one_time_code_opens_once(installed: Installation, kind: str, grammar: Grammar) -> None:
    """core-5-39, core-5-40: alone or behind a password; the second time it is used."""
    codes, key, bypass = issue(installed)
    text = {"recovery": codes[6], "key": key, "bypass": bypass}[kind]
    typed = {SplitMode.SEPARATE: "", SplitMode.APPEND: "hunter2", SplitMode.SEPARATOR: "hunter2,"}[grammar.mode] + text

    found = installed.in_order(*(attempt("alice", typed, grammar=grammar) for _ in range(2)))

    assert reasons(found) == ["accepted", "replayed"]
    assert events(installed)[0]["factor"] == {"key": "recovery_key"}.get(kind, kind)


@pytest.mark.parametrize("kind", ["recovery", "key", "bypass"])
def test_one_time_codes_race_and_one_wins(installed: Installation, kind: str) -> None:
    """core-5-38: two processes, twenty sessions."""
    codes, key, bypass = issue(installed)
    text = {"recovery": codes[0], "key": key, "bypass": bypass}[kind]

    async def race() -> list[Verdict]:
        async with installed.gate() as here, installed.gate() as there:
            return list(await asyncio.gather(*(g.decide(attempt("alice", text)) for g in [here, there] * 10)))

    assert sorted(reasons(asyncio.run(race()))) == ["accepted"] + ["replayed"] * 19


def test_codes_of_an_old_batch_are_nothing(installed: Installation) -> None:
    """core-5-39: also those with the same number."""
    old, old_key, _ = issue(installed)
    new, _, _ = issue(installed)

    found = installed.in_order(attempt("alice", old[3]), attempt("alice", old_key), attempt("alice", new[3]))

    assert reasons(found) == ["mismatch", "mismatch", "accepted"]


def test_a_code_of_somebody_else_is_nothing(installed: Installation) -> None:
    """And one under another number neither."""
    codes, _, _ = issue(installed)
    renumbered = "02" + codes[0][2:]

    assert reasons(installed.in_order(attempt("bob", codes[0]), attempt("alice", renumbered))) == ["mismatch"] * 2


def test_a_bypass_code_ends(installed: Installation) -> None:
    """core-5-41: after its hour it is expired, and that counts as a guess."""
    _, _, bypass = issue(installed)
    installed.clock.advance(3_600)

    assert reasons(installed.in_order(attempt("alice", bypass))) == ["expired"]
    assert [row["consecutive"] for row in installed.rows("throttle") if row["key"] == "account:alice"] == [1]


def test_a_lock_takes_a_bypass_code_back_that_came_before_it(installed: Installation) -> None:
    """It was issued to somebody who may be the reason for the lock; one that is issued after it is meant."""
    _, _, earlier = issue(installed)
    with installed.store.writing() as connection:
        users.lock(connection, installed.act(), "alice")
    found = installed.in_order(attempt("alice", earlier))
    _, _, later = issue(installed)

    assert reasons([*found, *installed.in_order(attempt("alice", later))]) == ["mismatch", "accepted"]


def test_a_bypass_code_has_as_many_uses_as_it_was_given(installed: Installation) -> None:
    """core-5-41: also when they come at once."""
    with installed.store.writing() as connection:
        act, user = installed.act(), find_user(connection, "alice")
        code = issue_bypass(connection, act, user, reason="r", approver="a", uses=3).code.reveal()

    found = installed.decide(*(attempt("alice", code) for _ in range(10)))

    assert sorted(reasons(found)) == ["accepted"] * 3 + ["replayed"] * 7


def test_a_recovery_code_clears_the_hard_lock(installed: Installation) -> None:
    """core-5-13: and nothing else that a person can type does."""
    codes, _, _ = issue(installed)
    installed.settings = replace(installed.settings, throttle=replace(installed.settings.throttle, hard_cap=3))
    found = installed.in_order(*(attempt("alice", GUESS) for _ in range(4)), attempt("alice", ALICE.code(T0)))
    assert reasons(found) == ["mismatch"] * 3 + ["locked"] * 2

    assert reasons(installed.in_order(attempt("alice", codes[0]), attempt("alice", ALICE.code(T0)))) == ["accepted"] * 2


def test_a_flood_of_long_codes_is_bounded_and_hurts_nobody_else(installed: Installation) -> None:
    """core-5-65: over the bound they are told to come again; digits need no hash and are answered all the same."""
    installed.settings = NO_WAITING
    flood = [attempt("bob", f"{n % 99 + 1:02d}-ABCD-EFGH-JKMN-PQRS") for n in range(500)]

    found = installed.decide(*flood, attempt("alice", ALICE.code(T0)))

    assert isinstance(found[-1], Accepted)
    evaluated, refused = reasons(found).count("mismatch"), reasons(found).count("overloaded")
    assert evaluated + refused == len(flood)
    assert evaluated >= MAX_HASHES_OF_ONE
    assert refused
    assert len(events(installed)) == len(found)


def test_a_flood_of_long_codes_for_one_leaves_places_to_the_others(installed: Installation) -> None:
    """Whoever has lost a phone gets in, whoever's name others flood."""
    codes, _, _ = issue(installed)
    flood = [attempt("bob", f"{n % 99 + 1:02d}-ABCD-EFGH-JKMN-PQRS") for n in range(500)]
    found = installed.decide(*flood, attempt("alice", codes[0]))
    assert isinstance(found[-1], Accepted)


def test_a_flood_of_long_codes_for_many_is_bounded(installed: Installation) -> None:
    """Over the bound for all they are told to come again."""
    installed.settings = NO_WAITING
    flood = [attempt(f"nobody{n}", "01-ABCD-EFGH-JKMN-PQRS") for n in range(500)]
    found = reasons(installed.decide(*flood))
    assert found.count("mismatch") >= MAX_WAITING_HASHES
    assert found.count("mismatch") + found.count("overloaded") == len(flood)
    assert "overloaded" in found


# The first factor


def test_password_and_code_are_checked_once_each(installed: Installation) -> None:
    """Directories count wrong passwords themselves: one question for one attempt."""
    installed.primary = primary = ScriptedPrimary(alice="hunter2")

    found = installed.in_order(
        attempt("alice", "hunter2" + ALICE.code(T0), grammar=APPEND, first_factor=FirstFactor.OURS),
    )

    assert reasons(found) == ["accepted"]
    assert primary.asked == ["alice"]


def test_a_wrong_password_leaves_the_code_good(installed: Installation) -> None:
    """core-5-14: a hundred of them, and the account's counter is where it was."""
    installed.primary = ScriptedPrimary(alice="hunter2")
    installed.settings = replace(installed.settings, throttle=replace(installed.settings.throttle, source_free=1_000))
    code = ALICE.code(T0)

    def tried(password: str) -> Callable[[], object]:
        return lambda: attempt("alice", password + code, grammar=APPEND, first_factor=FirstFactor.OURS)

    found = installed.in_order(*[tried("wrong")] * 100, tried("hunter2"))  # type: ignore[list-item]

    assert reasons(found) == ["first_factor_failed"] * 100 + ["accepted"]
    assert not [row for row in installed.rows("throttle") if row["key"] == "account:alice"]


def test_an_empty_password_is_never_asked_about(installed: Installation) -> None:
    """RFC 4513 section 5.1.2: a directory would say yes."""
    installed.primary = primary = ScriptedPrimary(alice="")

    found = installed.in_order(
        attempt("alice", ALICE.code(T0), first_factor=FirstFactor.OURS),
        attempt("alice", "," + ALICE.code(T0), grammar=SEPARATOR, first_factor=FirstFactor.OURS),
    )

    assert reasons(found) == ["first_factor_failed", "no_code"]
    assert primary.asked == []


@pytest.mark.parametrize("primary", [None, "down"])
def test_a_first_factor_that_nobody_can_check_refuses(installed: Installation, primary: str | None) -> None:
    """core-5-59: neither counted nor spent, and on record; the next attempt works."""
    backend = ScriptedPrimary(alice="hunter2")
    backend.down = True
    installed.primary = backend if primary else None
    one = attempt("alice", "hunter2" + ALICE.code(T0), grammar=APPEND, first_factor=FirstFactor.OURS)

    assert reasons(installed.in_order(one)) == ["first_factor_unavailable"]
    assert [(e["id"], e["outcome"]) for e in events(installed)] == [(one.event_id, "unavailable")]
    assert installed.rows("throttle") == []
    backend.down = False
    installed.primary = backend
    assert reasons(installed.in_order(replace(one, event_id="again"))) == ["accepted"]


def test_a_password_that_ends_in_digits_comes_apart_where_the_code_fits(tmp_path: Path) -> None:
    """With credentials of six and of eight digits the password of the reading that fits now is the one that is asked about."""
    installation = install(tmp_path, ALICE, Person("other", digits=8))
    eight = installation.credential_of("other")
    secret = installation.keyring().seal(Secret(Person("other").secret), Place("credentials", "secret", 2, 1))
    with installation.store.writing() as connection:
        connection.execute(update(credentials).where(credentials.c.id == eight["id"]).values(user_id=1, secret=secret))
    installation.primary = primary = ScriptedPrimary(alice="hunter12")

    typed = "hunter12" + ALICE.code(T0)
    found = installation.in_order(attempt("alice", typed, grammar=APPEND, first_factor=FirstFactor.OURS))

    assert reasons(found) == ["accepted"]
    assert primary.asked == ["alice"]
    installation.close()


# What breaks


def test_too_many_at_once_are_told_to_come_again(installed: Installation) -> None:
    """core-5-65: the queue has a bound; those inside it are served."""
    installed.capacity = 10
    installed.settings = NO_WAITING

    found = installed.decide(*(attempt("alice", GUESS) for _ in range(50)))

    assert sorted(reasons(found)) == ["mismatch"] * 10 + ["overloaded"] * 40
    assert len(events(installed)) == 50


def test_a_gate_that_has_stopped_refuses(installed: Installation) -> None:
    """Nothing hangs, nothing is let in."""

    async def late() -> Verdict:
        async with installed.gate() as gate:
            pass
        return await asyncio.wait_for(gate.decide(attempt("alice", ALICE.code(T0))), 5)

    assert reasons([asyncio.run(late())]) == ["overloaded"]


def test_what_waits_when_the_gate_stops_is_answered(installed: Installation) -> None:
    """A verdict under way is never cut off: its spend is durable, and its caller hears of it."""

    async def stopped() -> list[Verdict]:
        async with installed.gate() as gate:
            tasks = [asyncio.ensure_future(gate.decide(attempt("alice", ALICE.code(T0)))) for _ in range(5)]
            await asyncio.sleep(0)
        return list(await asyncio.gather(*tasks))

    found = reasons(asyncio.run(stopped()))
    assert sorted(found) == ["accepted"] + ["replayed"] * 4


class BrokenGroups:
    """A directory that does what none should."""

    async def groups_of(self, name: str) -> frozenset[str] | None:
        raise RuntimeError(f"no groups of {name}")


def _with_broken_groups(installation: Installation) -> Callable[[Verification], None]:
    def break_it(gate: Verification) -> None:
        gate._groups = BrokenGroups()

    installation.policy = Policy((Rule("r", (InGroups(frozenset({"wheel"})),), action=Action.EXEMPT),))
    return break_it


def test_a_bug_refuses_one_login(installed: Installation, caplog: pytest.LogCaptureFixture) -> None:
    """core-5-59: internal, with a traceback in the log and a line in the audit; never an exception and never a way in."""
    break_it = _with_broken_groups(installed)
    one = attempt("alice", ALICE.code(T0))

    async def broken() -> Verdict:
        async with installed.gate() as gate:
            break_it(gate)
            return await gate.decide(one)

    verdict = asyncio.run(broken())

    assert isinstance(verdict, Unavailable)
    assert verdict.reason is Unready.INTERNAL
    assert "Traceback" in caplog.text
    assert [(e["id"], e["outcome"], e["reason"]) for e in events(installed)] == [(one.event_id, "unavailable", "internal")]


@pytest.mark.parametrize("on_missing", list(OnMissing))
def test_a_source_that_is_not_known_is_what_the_rule_says(installed: Installation, on_missing: OnMissing) -> None:
    """core-5-60: deny unless it says otherwise; the audit names the condition."""
    rule = Rule("office", (FromNetworks(("192.0.2.0/24",)),), action=Action.EXEMPT, on_missing=on_missing)
    installed.policy = Policy((rule,))

    (verdict,) = installed.in_order(attempt("alice", source=None))

    expected = {OnMissing.DENY: Rejected, OnMissing.SKIP: Challenge, OnMissing.MATCH: Exempt}[on_missing]
    assert isinstance(verdict, expected)
    if on_missing is OnMissing.DENY:
        assert events(installed)[0]["note"] == "network"


def test_the_grace_of_the_policy_is_written_once(tmp_path: Path) -> None:
    """core-5-44: the first login starts it, the second finds it, and when it is over the door is closed."""
    dave = Person("dave", kind=None, state=EnrolmentState.INVITED)
    installation = install(tmp_path, dave, policy=default_policy(grace_s=7 * 86_400))

    for _ in range(3):
        assert reasons(installation.in_order(attempt("dave"))) == ["exempt"]
        assert installation.rows("users")[0]["grace_until"] == T0 + 7 * 86_400
        installation.clock.advance(86_400)
    installation.clock.advance(5 * 86_400)
    assert reasons(installation.in_order(attempt("dave", "123456"))) == ["mismatch"]
    assert events(installation)[-1]["reason"] == "grace_ended"
    installation.close()


def _rotate(installation: Installation) -> None:
    old = installation.keyring()
    with installation.store.writing() as connection:
        add_data_key(connection, KeyEncryptionKeys((KEK,)), now=T0, random=os.urandom)
    new = installation.keyring()
    with installation.store.writing() as connection:
        for row in connection.execute(credentials.select()).all():
            place = Place("credentials", "secret", row.id, row.user_id)
            sealed = new.seal(old.unseal(bytes(row.secret), place), place)
            connection.execute(update(credentials).where(credentials.c.id == row.id).values(secret=sealed))
        drop_data_keys(connection, frozenset({old.current}))


@pytest.mark.parametrize("how", ["asked", "code", "spaced", "recovery", "combined"])
def test_key_rotation_is_not_noticed(installed: Installation, how: str) -> None:
    """Whatever kind of answer is the first after it: also those that are read before they reach the ledger."""
    installed.primary = ScriptedPrimary(alice="hunter2")
    codes, _, _ = issue(installed)
    code = ALICE.code(T0)
    first = {
        "asked": attempt("alice"),
        "code": attempt("alice", code),
        "spaced": attempt("alice", f"{code[:3]} {code[3:]}"),
        "recovery": attempt("alice", codes[0]),
        "combined": attempt("alice", "hunter2" + code, grammar=APPEND, first_factor=FirstFactor.OURS),
    }[how]

    async def rotated() -> list[Verdict]:
        async with installed.gate() as gate:
            before = await gate.decide(attempt("bob"))
            _rotate(installed)
            return [before, await gate.decide(first)]

    assert reasons(asyncio.run(rotated())) == ["challenge", "challenge" if how == "asked" else "accepted"]


# Clocks


def test_an_hour_ahead_and_back_locks_nobody_out(installed: Installation) -> None:
    """core-5-20: while the server is an hour ahead the right codes are wrong and are counted; when it is right again they open
    at once, and the codes of the future that it believed in do not."""
    installed.clock.advance(3_600)
    ahead = installed.in_order(*(attempt("alice", ALICE.code(T0)) for _ in range(6)))
    assert reasons(ahead) == ["mismatch"] * 4 + ["throttled"] * 2

    installed.clock.advance(-3_600)
    found = installed.in_order(attempt("alice", ALICE.code(T0 + 3_600)), attempt("bob", BOB.code(T0)))
    assert reasons(found) == ["mismatch", "accepted"]
    installed.clock.advance(60)
    assert reasons(installed.in_order(attempt("alice", ALICE.code(installed.clock())))) == ["accepted"]


def test_a_clock_that_steps_back_brings_no_code_back(installed: Installation) -> None:
    """core-5-20: what was spent stays spent at any time of day."""
    code = ALICE.code(T0)
    assert reasons(installed.in_order(attempt("alice", code))) == ["accepted"]
    for back in (-30, -60, -3_600, 3_690):
        installed.clock.advance(back)
        assert reasons(installed.in_order(attempt("alice", code))) in (["replayed"], ["mismatch"])


@pytest.mark.parametrize("now", [-1e9, -100.0, 0.0, 1.0, 2.0**31, 2.0**33, 253_402_300_799.0, 1e12])
def test_any_year_ends_in_a_clean_answer(installed: Installation, now: float) -> None:
    """core-5-22: before 1970, after 2038, after 9999: a verdict, recorded, and never an error."""
    installed.clock.now = now
    typed = "123456" if now < 0 else ALICE.code(now)

    found = installed.in_order(attempt("alice"), attempt("alice", typed), attempt("nobody", "123456"))

    assert reasons(found) == ["challenge", "mismatch" if now < 0 else "accepted", "mismatch"]
    assert len(events(installed)) == 3


def test_time_zones_do_not_matter(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """core-5-21: steps are Unix time: a change of the server's zone, or of summer time, changes no code."""
    for zone in ("Europe/Berlin", "America/New_York", "Pacific/Kiritimati"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert reasons(installed.in_order(attempt("alice", ALICE.code(installed.clock())))) == ["accepted"]
        installed.clock.advance(30)
    monkeypatch.undo()
    time.tzset()


# Secrets


def test_no_secret_reaches_a_log_an_event_or_a_repr(
    installed: Installation, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """core-5-62, core-5-23: flows that end in every way, with secrets that are known; then every place is searched for them."""
    caplog.set_level(logging.DEBUG)
    codes, key, bypass = issue(installed)
    installed.primary = ScriptedPrimary(alice="hunter2-password")
    code, guess = ALICE.code(T0), "mySecretGuess"
    tried = [
        attempt("alice", code), attempt("alice", code), attempt("alice", guess), attempt("alice", codes[0]),
        attempt("alice", codes[0]), attempt("alice", key), attempt("alice", bypass),
        attempt("alice", "hunter2-password" + ALICE.code(T0, 1), grammar=APPEND, first_factor=FirstFactor.OURS),
        attempt("alice", "wrong-password" + ALICE.code(T0, 1), grammar=APPEND, first_factor=FirstFactor.OURS),
        attempt("bob", "hunter2-password" + BOB.code(T0), grammar=APPEND),
    ]  # fmt: skip
    found = installed.in_order(*tried)
    installed.primary = None
    typed = "hunter2-password" + BOB.code(T0)
    found += installed.in_order(attempt("bob", typed, grammar=APPEND, first_factor=FirstFactor.OURS))
    break_it = _with_broken_groups(installed)

    async def broken() -> Verdict:
        async with installed.gate() as gate:
            break_it(gate)
            return await gate.decide(attempt("bob", typed, grammar=APPEND))

    found.append(asyncio.run(broken()))
    with installed.store.writing() as connection:
        connection.execute(update(credentials).values(secret=b"\x01damaged"))
    found += installed.in_order(attempt("alice", code))
    installed.store.checkpoint()

    secrets = [code, ALICE.code(T0, 1), BOB.code(T0), guess, "hunter2-password", "wrong-password", bypass, key, *codes]
    secrets += [text.replace("-", "") for text in (bypass, key, *codes)] + [codes[0][3:].replace("-", "")]
    places = {
        "log": caplog.text,
        "log records": " ".join(repr(vars(record)) for record in caplog.records),
        "verdicts": repr(found),
        "attempts": repr(tried),
        "sink": "\n".join(installed.sink.lines),
        "stderr": "".join(capsys.readouterr()),
        "store": installed.store.path.read_bytes().decode("latin-1"),  # type: ignore[union-attr]
    }
    assert "accepted" in places["sink"]
    assert "Traceback" in places["log"]
    for place, text in places.items():
        for secret in secrets:
            if len(secret) == 6 and place == "store":
                continue  # six digits stand in a binary file by chance
            assert secret not in text, (place, secret)
    raw = installed.store.path.read_bytes()  # type: ignore[union-attr]
    assert all(one.secret not in raw and one.secret.hex().encode() not in raw for one in (ALICE, BOB))


def test_what_lies_in_the_store_gives_no_code_away(installed: Installation) -> None:
    """core-5-23: codes are argon2 hashes over a keyed tag: without the key file there is nothing to guess against."""
    codes, _, _ = issue(installed)
    from mfa_runtime import one_time_hash
    from mfa_runtime.sealing import Keyring

    foreign = Keyring({1: Secret(b"k" * 32)}, current=1, pepper=Secret(b"x"), audit_key=Secret(b"x"), random=os.urandom)
    plain = Secret(codes[0][3:].replace("-", "").encode())
    row = next(r for r in installed.rows("one_time_codes") if r["kind"] == "recovery" and r["position"] == 1)

    assert str(row["hash"]).startswith("$argon2id$")
    place = one_time_hash.place_of(int(str(row["id"])), int(str(row["user_id"])))
    assert one_time_hash.matches(str(row["hash"]), plain, place, keyring=installed.keyring())
    assert not one_time_hash.matches(str(row["hash"]), plain, place, keyring=foreign)
    assert not one_time_hash.matches("no hash", plain, place, keyring=foreign)


@pytest.mark.parametrize("how", ["hash copied", "row moved"])
@pytest.mark.parametrize("kind", ["recovery", "recovery_key", "bypass"])
def test_a_code_of_ones_own_in_the_row_of_another_is_nothing(installed: Installation, kind: str, how: str) -> None:
    """core-5-25: who can write to the database has a code of his own, and puts its hash, or its row, under another name."""
    codes, key, bypass = issue(installed, "alice")
    issue(installed, "bob")
    rows = {(r["user_id"], r["kind"], r["position"]): r for r in installed.rows("one_time_codes")}
    owner, position = installed.credential_of("bob")["user_id"], 1 if kind == "recovery" else 0
    mine, his = rows[installed.credential_of("alice")["user_id"], kind, position], rows[owner, kind, position]
    with installed.store.writing() as connection:
        if how == "hash copied":
            connection.execute(update(one_time_codes).where(one_time_codes.c.id == his["id"]).values(hash=mine["hash"]))
        else:
            connection.execute(delete(one_time_codes).where(one_time_codes.c.id == his["id"]))
            connection.execute(update(one_time_codes).where(one_time_codes.c.id == mine["id"]).values(user_id=owner))
    typed = {"recovery": codes[0], "recovery_key": key, "bypass": bypass}[kind]

    assert reasons(installed.in_order(attempt("bob", typed))) == ["mismatch"]


def test_a_client_whose_name_is_no_text_is_a_client(installed: Installation) -> None:
    """Found by the property below: the tag of a retransmission was made of text that cannot be encoded."""
    guesses = [attempt("alice", GUESS, interaction=Interaction.ONE_SHOT, client="\udc80", source=None) for _ in range(2)]

    assert reasons(installed.in_order(*guesses)) == ["mismatch", "repeated"]


def test_both_ways_of_asking_decide_alike(tmp_path: Path) -> None:
    """A code, the same again, a wrong one, a stranger, a recovery code twice, a question, and a password of ours."""
    found = []
    for way in ("decide", "ask"):
        (tmp_path / way).mkdir()
        installation = install(tmp_path / way, ALICE, BOB, primary=ScriptedPrimary(alice="hello"), settings=NO_WAITING)
        spare = issue(installation)[0][3]
        asked = {"interaction": Interaction.CHALLENGES}
        tried = [
            attempt("alice", ALICE.code(T0)), attempt("alice", ALICE.code(T0)), attempt("alice", "000000"),
            attempt("nobody", "000000"), attempt("alice", spare), attempt("alice", spare), attempt("bob", None, **asked),
            attempt("alice", "hello", first_factor=FirstFactor.OURS, grammar=Grammar(SplitMode.AUTO), **asked),
        ]  # fmt: skip
        found.append([reasons(getattr(installation, way)(one))[0] for one in tried])
        installation.close()

    assert found[0] == ["accepted", "replayed", "mismatch", "mismatch", "accepted", "replayed", "challenge", "challenge"]
    assert found[1] == found[0]


# Properties

_bytes = st.one_of(
    st.binary(max_size=300),
    st.sampled_from([b"alice", b"ALICE", b"alice@x", b"\\", b"@", b"123456", b"\b\n\r\x7fINCORRECT",
                     b"01-ABCD-EFGH-JKMN-PQRS"]),
)
_any_attempt = st.builds(
    lambda name, typed, service, client, source, first, interaction, grammar, challenge: replace(
        attempt(
            name.decode("utf-8", "surrogateescape"),
            typed,
            service=service.decode("utf-8", "surrogateescape"),
            client=client.decode("utf-8", "surrogateescape"), source=source, first_factor=first, interaction=interaction,
            grammar=grammar, challenge_id=challenge,
        )
    ),
    _bytes, st.one_of(st.none(), _bytes), _bytes, _bytes,
    st.sampled_from([None, "192.0.2.1", "2001:db8::1", "fe80::1%eth0", "no address", ""]),
    st.sampled_from(FirstFactor), st.sampled_from(Interaction),
    st.builds(Grammar, st.sampled_from(SplitMode), st.sampled_from([",", "", "++", "\udcff"])),
    st.sampled_from(["", "event-1", "x"]),
)  # fmt: skip


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_any_attempt, min_size=1, max_size=12))
def test_any_bytes_are_a_verdict(tmp_path_factory: pytest.TempPathFactory, tried: list[object]) -> None:
    """core-5-8, core-5-27: never an exception, never an accept, one event each, and the chain is whole."""
    installation = install(
        tmp_path_factory.mktemp("store"),
        Person("alice", requirement=Requirement.REQUIRED),
        primary=ScriptedPrimary(alice="x"),
        settings=NO_WAITING,
    )
    try:
        found = [*installation.decide(*tried[::2]), *installation.ask(*tried[1::2])]  # type: ignore[arg-type]
        with installation.store.reading() as connection:
            (report,) = audit_log.verify(connection, keyring=installation.keyring())
    finally:
        installation.close()

    assert not [v for v in found if isinstance(v, Accepted | Exempt)]
    assert not [v for v in found if isinstance(v, Unavailable) and v.reason is Unready.INTERNAL]
    assert (report.events, report.problems) == (len(tried), ())


