"""The chain tells of every change that was made to it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, func, insert, select, update

from mfa_core.audit import GENESIS, Administered, canonical, link
from mfa_core.errors import StoreCorrupt, StoreUnavailable
from mfa_runtime.store import audit_log
from mfa_runtime.store.schema import audit, audit_head
from mfa_runtime.upkeep import HighWater
from tests.doubles import NODE, T0, Installation

EVENTS = 10


def events(first: int = 1, count: int = EVENTS) -> list[Administered]:
    """Numbered events."""
    return [Administered(f"e{n}", T0 + n, "root", "user.lock", f"user{n}", {"n": n}) for n in range(first, first + count)]


@pytest.fixture
def chain(installed: Installation) -> Installation:
    """Ten events in two transactions."""
    with installed.store.writing() as connection:
        audit_log.append(connection, events(1, 4), node=NODE, keyring=installed.keyring())
    with installed.store.writing() as connection:
        audit_log.append(connection, events(5, 6), node=NODE, keyring=installed.keyring())
    return installed


def problems(installation: Installation) -> tuple[str, ...]:
    """What verification finds in the chain of this node."""
    with installation.store.reading() as connection:
        return next(
            r.problems for r in audit_log.verify(connection, keyring=installation.keyring()) if r.node == NODE
        )


def test_a_whole_chain_has_no_problem(chain: Installation) -> None:
    """And is counted."""
    with chain.store.reading() as connection:
        (report,) = audit_log.verify(connection, keyring=chain.keyring())

    assert (report.node, report.events, report.problems) == (NODE, EVENTS, ())


def test_the_texts_for_the_sinks_are_those_of_the_store(chain: Installation) -> None:
    """In order."""
    with chain.store.writing() as connection:
        bodies = audit_log.append(connection, events(11, 2), node=NODE, keyring=chain.keyring())
    with chain.store.reading() as connection:
        stored = [entry.body for entry in audit_log.every(connection)]

    assert stored[-2:] == bodies
    assert [json.loads(body)["id"] for body in stored] == [f"e{n}" for n in range(1, 13)]


def _row(connection: Connection, seq: int) -> dict[str, object]:
    return dict(connection.execute(select(audit).where(audit.c.seq == seq)).one()._mapping)


def change_a_text(connection: Connection) -> None:
    body = str(_row(connection, 5)["body"]).replace("user5", "user6")
    connection.execute(update(audit).where(audit.c.seq == 5).values(body=body))


def change_a_text_and_its_hash(connection: Connection) -> None:
    body = str(_row(connection, 5)["body"]).replace("user5", "user6")
    before = bytes(_row(connection, 4)["hash"])  # type: ignore[arg-type]
    connection.execute(update(audit).where(audit.c.seq == 5).values(body=body, hash=link(before, body)))


def remove_one(connection: Connection) -> None:
    connection.execute(delete(audit).where(audit.c.seq == 5))


def remove_one_and_close_the_gap(connection: Connection) -> None:
    remove_one(connection)
    for seq in range(6, EVENTS + 1):
        connection.execute(update(audit).where(audit.c.seq == seq).values(seq=seq - 1))


def remove_the_first(connection: Connection) -> None:
    connection.execute(delete(audit).where(audit.c.seq == 1))


def exchange_two(connection: Connection) -> None:
    for old, new in ((4, 99), (5, 4), (99, 5)):
        connection.execute(update(audit).where(audit.c.seq == old).values(seq=new))


def cut_the_tail(connection: Connection) -> None:
    connection.execute(delete(audit).where(audit.c.seq > 7))


def cut_the_tail_and_move_the_head(connection: Connection) -> None:
    cut_the_tail(connection)
    connection.execute(update(audit_head).values(seq=7, hash=_row(connection, 7)["hash"]))


def add_one(connection: Connection) -> None:
    body = canonical(events(11, 1)[0])
    previous = bytes(_row(connection, 10)["hash"])  # type: ignore[arg-type]
    connection.execute(
        insert(audit).values(node=NODE, seq=11, event_id="e11", at=T0, body=body, hash=link(previous, body))
    )


def rewrite_the_whole(connection: Connection) -> None:
    previous = GENESIS
    for seq in range(1, EVENTS + 1):
        body = str(_row(connection, seq)["body"]).replace("user5", "user6")
        previous = link(previous, body)
        connection.execute(update(audit).where(audit.c.seq == seq).values(body=body, hash=previous))
    connection.execute(update(audit_head).values(hash=previous))


def give_another_id(connection: Connection) -> None:
    connection.execute(update(audit).where(audit.c.seq == 5).values(event_id="e6"))


def write_no_json(connection: Connection) -> None:
    connection.execute(update(audit).where(audit.c.seq == 5).values(body="}{"))


def remove_the_head(connection: Connection) -> None:
    connection.execute(delete(audit_head))


def remove_all_events(connection: Connection) -> None:
    connection.execute(delete(audit))


def put_back_an_older_head(connection: Connection) -> None:
    connection.execute(update(audit_head).values(seq=4, hash=_row(connection, 4)["hash"]))


TAMPERING = [
    (change_a_text, "event 5"), (change_a_text_and_its_hash, "event 6"), (remove_one, "events 5 to 5 are missing"),
    (remove_one_and_close_the_gap, "event 5"), (remove_the_first, "events 1 to 1 are missing"), (exchange_two, "event 4"),
    (cut_the_tail, "the tail was cut"), (cut_the_tail_and_move_the_head, "signature"), (add_one, "added to"),
    (rewrite_the_whole, "signature"), (give_another_id, "another id"), (write_no_json, "event 5"),
    (remove_the_head, "head is missing"), (remove_all_events, "the tail was cut"),
    (put_back_an_older_head, "signed head says 4"),
]  # fmt: skip


@pytest.mark.parametrize(("tamper", "seen"), TAMPERING, ids=[t.__name__ for t, _ in TAMPERING])
def test_tampering_is_seen(chain: Installation, tamper: Callable[[Connection], None], seen: str) -> None:
    """core-5-25: who can write to the store, and has not the key file, cannot hide it."""
    with chain.store.writing() as connection:
        tamper(connection)

    found = problems(chain)

    assert any(seen in problem for problem in found), found


def test_a_removed_chain_is_seen_by_the_high_water(chain: Installation) -> None:
    """Where nothing is left to verify, the file beside the store knows how much there was."""
    high_water = HighWater(chain.store.path.parent)  # type: ignore[union-attr]
    high_water.write(chain.store)
    with chain.store.writing() as connection:
        connection.execute(delete(audit))
        connection.execute(delete(audit_head))

    with pytest.raises(StoreCorrupt, match="0 audit events, but 10"):
        high_water.check(chain.store)


def test_a_high_water_that_cannot_be_written_says_where(chain: Installation, tmp_path: Path) -> None:
    """As any other trouble with the store, for those who look after it."""
    with pytest.raises(StoreUnavailable, match="No such file") as seen:
        HighWater(tmp_path / "gone").write(chain.store)
    assert "file system of state_dir" in seen.value.cure


def test_a_long_list_of_problems_is_cut(installed: Installation) -> None:
    """A rewritten log of a million events must not fill the terminal."""
    with installed.store.writing() as connection:
        audit_log.append(connection, events(1, 60), node=NODE, keyring=installed.keyring())
        connection.execute(update(audit).values(body=func.replace(audit.c.body, "root", "nobody")))

    assert 20 <= len(problems(installed)) <= 22


def test_an_event_that_is_rolled_back_leaves_the_chain_whole(chain: Installation) -> None:
    """The next one follows the last that is there."""
    def break_off() -> None:
        with chain.store.writing() as connection:
            audit_log.append(connection, events(11, 1), node=NODE, keyring=chain.keyring())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    with chain.store.writing() as connection:
        audit_log.append(connection, events(12, 1), node=NODE, keyring=chain.keyring())

    assert problems(chain) == ()


def test_each_node_has_a_chain_of_its_own(chain: Installation) -> None:
    """Tampering with one is told of that one."""
    with chain.store.writing() as connection:
        audit_log.append(connection, events(1, 3), node="other", keyring=chain.keyring())
        connection.execute(update(audit).where(audit.c.node == "other", audit.c.seq == 2).values(event_id="x"))
    with chain.store.reading() as connection:
        found = {r.node: bool(r.problems) for r in audit_log.verify(connection, keyring=chain.keyring())}

    assert found == {NODE: False, "other": True}


def test_the_tail_is_the_newest_oldest_first(chain: Installation) -> None:
    """And can be followed."""
    with chain.store.reading() as connection:
        newest = audit_log.tail(connection, limit=3)
        following = audit_log.tail(connection, limit=100, after=(NODE, 8))

    assert [entry.seq for entry in newest] == [8, 9, 10]
    assert [entry.seq for entry in following] == [9, 10]


def test_no_events_append_nothing(chain: Installation) -> None:
    """An idle flush is no write."""
    with chain.store.writing() as connection:
        assert audit_log.append(connection, [], node=os.urandom(4).hex(), keyring=chain.keyring()) == []

    assert problems(chain) == ()
