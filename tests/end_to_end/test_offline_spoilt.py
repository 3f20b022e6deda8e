"""Agents on bad lines and with a full disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.authority_site import Agent, Site, Spec, authority_site
from tests.end_to_end.daemon import CROWD, Person
from tests.end_to_end.namespaces import Cut
from tests.end_to_end.programs import run

PEOPLE = {f"{CROWD}{number:02}": 6 for number in range(24)}
SMALL = Path("/var/lib/mfad-small")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """alpha has a bad line; the state of small is on a file system of its own."""
    with authority_site(
        tmp_path_factory.mktemp("site"),
        {"alpha": Spec(), "small": Spec(tmpfs={SMALL: "size=48m,mode=0700"}, settings={"state_dir": str(SMALL)})},
        people=PEOPLE,
    ) as one:
        yield one


@pytest.fixture
def person(site: Site) -> Person:
    return site.person()


def test_logins_go_on_over_a_line_that_loses_and_delays(site: Site) -> None:
    """A fifth of all frames lost, 200 ms there and back: everybody gets in, no code works twice, nothing is an alarm."""
    alpha = site["alpha"]
    alpha.machine.spoil(delay_ms=100, loss_percent=20)
    try:
        codes = {one.name: one.next_code() for one in (site.person() for _ in range(8))}
        taken = {name: alpha.takes(name, code) for name, code in codes.items()}
        again = {name: alpha.takes(name, code) for name, code in codes.items()}
    finally:
        alpha.machine.mend()
    site.wait_until_merged("alpha")

    assert all(taken.values()), f"{taken}\n{site.logs()}"
    assert not any(again.values())
    assert all(len({step for _, step in site.authority.accepts(name)}) == 1 for name in codes)
    assert site.authority.alarms() == []


class Disk:
    """The file system under an agent's state, seen from inside its host."""

    def __init__(self, agent: Agent) -> None:
        assert agent.host is not None
        self._host = agent.host
        self._file = SMALL / "filler"

    def fill(self) -> None:
        # dd ends with 1 when nothing goes in any more: that is what is wanted
        run(self._host.inside("sh", "-c", f"dd if=/dev/zero of={self._file} bs=4k 2>/dev/null || true; sync -f {SMALL}"))

    def free(self) -> None:
        run(self._host.inside("rm", "-f", str(self._file)))


def test_a_full_disk_during_a_sync_keeps_the_old_copy_and_is_named(site: Site, person: Person) -> None:
    """What was held is whole, and logins go on in the room that is kept for them. Status and doctor say what and how.
    Where even that room is used up, nobody is let in without a trace: the tests of the store have that."""
    small = site["small"]
    small.wait_until_it_holds(person.name)
    disk = Disk(small)
    disk.fill()
    try:
        late = [f"late{number}" for number in range(400)]
        site.authority.import_people(dict.fromkeys(late, 6))
        site.until(lambda: small.events(action="agent.sync_not_stored"), "the event is audited")
        assert "full" in small.log()
        assert not small.rows("SELECT name FROM users WHERE name LIKE 'late%'")
        assert small.holds(person.name)
        assert small.takes(person.name, person.next_code()), f"online\n{site.logs()}"
        small.machine.cut(Cut.UNPLUGGED)
        assert small.takes(person.name, person.next_code()), f"alone\n{site.logs()}"
        small.machine.rejoin()
        site.until(lambda: "full" in small.state()["trouble"], "it is tried again")
        said = {command: small.mfactl_says(command) for command in ("status", "doctor")}
    finally:
        disk.free()
    for command, text in said.items():
        assert "the file system of the store is full" in text, f"{command}: {text}"
        assert "free space" in text, f"{command}: {text}"

    small.wait_until_it_holds(late[-1])
    site.wait_until_merged("small")
    assert not small.state()["trouble"]
    site.pass_time(60)
    assert small.takes(person.name, person.next_code()), site.logs()
