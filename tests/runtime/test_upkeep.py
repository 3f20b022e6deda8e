"""What is forgotten, what is never forgotten, and how an old copy of the store is known."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
from sqlalchemy import event, update

from mfa_core.errors import StoreCorrupt
from mfa_core.throttle import Record, ThrottleRules
from mfa_runtime.administration import host_groups, join_tokens
from mfa_runtime.store import accounts, alarms, changes, uses
from mfa_runtime.store.alarms import AlarmKind
from mfa_runtime.store.database import STORE_FILE, connect
from mfa_runtime.store.hosts import HostGroup
from mfa_runtime.store.schema import meta
from mfa_runtime.store.uses import Use
from mfa_runtime.upkeep import (
    ALARMS_MEMORY_S,
    CHALLENGE_MEMORY_S,
    CHALLENGES_AT_ONCE,
    CHANGES_MEMORY_S,
    CHECKPOINT_AFTER_S,
    CHECKPOINT_AT_EVENTS,
    HIGH_WATER_FILE,
    LOG_BYTES,
    TOKENS_MEMORY_S,
    USES_MEMORY_S,
    Forgotten,
    HighWater,
    WriteAheadLog,
    forget,
)
from tests.doubles import ALICE, T0, FakeClock, Installation, attempt

DAY = 86_400.0
RULES = ThrottleRules()


def keep(installation: Installation, **records: Record) -> None:
    """Write throttle records."""
    with installation.store.writing() as connection:
        accounts.write_records(connection, {key.replace("_", ":"): one for key, one in records.items()})


def kept(installation: Installation) -> set[str]:
    """The keys that are there."""
    return {str(row["key"]) for row in installation.rows("throttle")}


def test_what_says_nothing_any_more_is_forgotten(installed: Installation) -> None:
    """Lanes without a success for a month, sources that were forgiven; what still makes somebody wait stays."""
    keep(
        installed,
        lane_old=Record(last_success_at=T0 - 31 * DAY),
        lane_fresh=Record(last_success_at=T0 - 29 * DAY),
        lane_waiting=Record(last_success_at=T0 - 31 * DAY, not_before=T0 + 5),
        source_forgiven=Record(failures=5, last_failure_at=T0 - 301),
        source_not_yet=Record(failures=5, last_failure_at=T0 - 299),
        source_waiting=Record(failures=1, last_failure_at=T0 - 301, not_before=T0 + 5),
    )

    assert forget(installed.store, now=T0, rules=RULES) == Forgotten(1, 1)
    assert kept(installed) == {"lane:fresh", "lane:waiting", "source:not:yet", "source:waiting"}


def test_failures_of_an_account_are_never_forgotten(installed: Installation) -> None:
    """core-5-13: NIST SP 800-63B-4 section 3.2.2: consecutive failures do not expire."""
    keep(installed, account_alice=Record(failures=99, consecutive=99, last_failure_at=1.0), unknown_7=Record(consecutive=100))

    forget(installed.store, now=T0 + 3_650 * DAY, rules=RULES)

    assert kept(installed) == {"account:alice", "unknown:7"}


def test_answered_challenges_are_forgotten_long_after_their_end(installed: Installation) -> None:
    """In several transactions where there are many, and never one that could be answered again."""
    over, recent = T0 - CHALLENGE_MEMORY_S - 1, T0 - CHALLENGE_MEMORY_S + 1
    many = CHALLENGES_AT_ONCE + 5
    with installed.store.writing() as connection:
        assert accounts.answer_challenges(connection, {f"over-{n}": over for n in range(many)} | {"recent": recent})

    assert forget(installed.store, now=T0, rules=RULES) == Forgotten(0, 0, many)

    with installed.store.reading() as connection:
        assert accounts.answered_challenges(connection, ["over-0", f"over-{many - 1}", "recent"]) == [("recent",)]


def log_bytes(installation: Installation) -> int:
    """How long the write-ahead log is."""
    assert installation.store.path is not None
    return installation.store.path.with_name(installation.store.path.name + "-wal").stat().st_size


def test_a_checkpoint_is_due_after_many_events_or_a_minute(installed: Installation) -> None:
    """And never when nothing was written."""
    clock, written = FakeClock(), 0
    write_ahead_log = WriteAheadLog(installed.store, written=lambda: written, monotonic=clock)

    due = []
    steps = ((0, 3600.0), (CHECKPOINT_AT_EVENTS - 1, 0.0), (1, 0.0), (1, 0.0), (0, CHECKPOINT_AFTER_S), (0, 3600.0))
    for new, seconds in steps:
        written += new
        clock.advance(seconds)
        due.append(write_ahead_log.checkpoint_if_due())

    assert due == [False, True, False, False, True, False]


def test_logins_write_over_a_log_that_was_made_long(installed: Installation) -> None:
    """It stays as long as it was made, over many times what fits between two checkpoints."""
    ledger = installed.ledger()
    write_ahead_log = WriteAheadLog(installed.store, written=lambda: ledger.written, monotonic=FakeClock())
    write_ahead_log.make_long()
    made = log_bytes(installed)
    for _ in range(10):
        installed.process(ledger, *(attempt("x" * 200, "", service="s" * 200, client="c" * 200) for _ in range(2000)))
        write_ahead_log.checkpoint_if_due()

    assert made >= LOG_BYTES
    assert log_bytes(installed) == made
    assert installed.rows("audit")


def test_a_disk_without_room_for_a_long_log_is_no_reason_not_to_start(
    installed: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    """Logins are refused when there is no room for them, and not before."""
    with installed.store.writing() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    installed.store._engine.dispose()
    event.listen(installed.store._engine, "connect", lambda raw, _: raw.execute(f"PRAGMA max_page_count={pages + 10}"))

    WriteAheadLog(installed.store, written=lambda: 0, monotonic=FakeClock()).make_long()

    assert "could not be lengthened" in caplog.text


# The high water


def copy_of(installation: Installation, to: Path) -> None:
    """Copy the database file, as somebody would by hand."""
    installation.store.checkpoint()
    assert installation.store.path is not None
    shutil.copy(installation.store.path, to)


def test_an_old_copy_is_known(installed: Installation, tmp_path: Path) -> None:
    """core-5-56: a code that was spent since the copy would be good again: mfad does not start on it."""
    high_water = HighWater(tmp_path)
    ledger = installed.ledger()
    copy_of(installed, tmp_path / "copy")
    installed.process(ledger, attempt("alice", ALICE.code(T0)))
    high_water.write(installed.store)
    high_water.check(installed.store)

    installed.close()
    for name in ("-wal", "-shm"):
        (tmp_path / (STORE_FILE + name)).unlink(missing_ok=True)
    shutil.move(tmp_path / "copy", tmp_path / STORE_FILE)
    put_back = connect(tmp_path / STORE_FILE)

    with pytest.raises(StoreCorrupt, match="old copy") as refused:
        high_water.check(put_back)
    assert "mfactl restore" in refused.value.cure
    put_back.close()


def test_the_store_that_a_restore_replaced_is_an_old_copy(installed: Installation, tmp_path: Path) -> None:
    """It has fewer restores behind it, however many events: what was spent since would be good again."""
    high_water = HighWater(tmp_path)
    with installed.store.writing() as connection:
        connection.execute(update(meta).where(meta.c.name == "generation").values(value="10"))
    high_water.write(installed.store)
    installed.process(installed.ledger(), *(attempt("alice", "") for _ in range(20)))
    for generation, is_old in (("9", True), ("10", False), ("11", False)):
        with installed.store.writing() as connection:
            connection.execute(update(meta).where(meta.c.name == "generation").values(value=generation))

        with pytest.raises(StoreCorrupt, match="old copy") if is_old else contextlib.nullcontext():
            high_water.check(installed.store)


def test_a_store_that_went_on_is_good(installed: Installation, tmp_path: Path) -> None:
    """mfad was killed before it could write the file again."""
    high_water = HighWater(tmp_path)
    ledger = installed.ledger()
    installed.process(ledger, attempt("alice", ""))
    high_water.write(installed.store)
    installed.process(ledger, attempt("alice", ""))

    high_water.check(installed.store)


@pytest.mark.parametrize("text", [None, "", "rubbish", "a b", "x y 5", "x y z", "x y -5", "\xff"])
def test_a_file_that_says_nothing_stops_nobody(installed: Installation, tmp_path: Path, text: str | None) -> None:
    """Absent, cut, damaged, or of another store: there is nothing to compare with."""
    if text is not None:
        (tmp_path / HIGH_WATER_FILE).write_text(text, "latin-1")

    HighWater(tmp_path).check(installed.store)


def test_the_file_is_written_in_one_piece_for_its_owner(installed: Installation, tmp_path: Path) -> None:
    """Mode 0600, and nothing beside it."""
    HighWater(tmp_path).write(installed.store)

    assert (tmp_path / HIGH_WATER_FILE).stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / (HIGH_WATER_FILE + ".new")).exists()


def test_what_an_authority_keeps_for_its_hosts_is_forgotten_late(installed: Installation) -> None:
    """Changes, uses, tokens and alarms that somebody has seen; each after its time, and not a second before."""
    with installed.store.writing() as connection:
        changes.begin_clock(connection)
        act = installed.act()
        host_groups.add_host_group(connection, act, HostGroup("web", max_offline_s=2 * DAY))
        changes.note_user(connection, 1, T0)  # 2
        uses.record(connection, [Use(1, 1, 0, "event", T0)])
        join_tokens.issue_token(connection, act, "web", ttl_s=60.0)
        alarms.raise_alarm(connection, AlarmKind.CLOCK_OFFSET, now=T0)
        alarms.raise_alarm(connection, AlarmKind.JOURNAL_FORK, now=T0)
        alarms.acknowledge(connection, 1, T0)

    ends = {
        T0 + CHANGES_MEMORY_S: 1, T0 + USES_MEMORY_S + 2 * DAY: 1, T0 + 60 + TOKENS_MEMORY_S: 1, T0 + ALARMS_MEMORY_S: 1,
    }  # fmt: skip
    for end, rows in sorted(ends.items()):
        assert forget(installed.store, now=end, rules=RULES).hosts == 0
        assert forget(installed.store, now=end + 1, rules=RULES).hosts == rows

    with installed.store.reading() as connection:
        assert changes.oldest(connection) == changes.now_at(connection) == 2
        assert [alarm.kind for alarm in alarms.list_alarms(connection, unseen=False)] == [AlarmKind.JOURNAL_FORK]


def test_a_store_without_an_authority_is_not_written_to_for_hosts(installed: Installation) -> None:
    """There is nothing, and nothing is looked for."""
    assert forget(installed.store, now=T0 + 1000 * DAY, rules=RULES).hosts == 0
