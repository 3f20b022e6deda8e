"""States that come back: restored machines, cloned hosts, a restored authority, certificates of the past, and a thief."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mfa_core.errors import StoreCorrupt
from mfa_runtime.key_file import load_key_source
from mfa_runtime.sealing import Keyring, Place
from mfa_runtime.store.key_table import load_keyring
from mfa_runtime.store.opening import open_store
from mfa_runtime.store.schema import metadata
from tests.end_to_end.authority_site import STORE, Agent, Group, Site, Spec, authority_site
from tests.end_to_end.clocks import after_a_suspend
from tests.end_to_end.daemon import CROWD, Person
from tests.end_to_end.namespaces import Cut

PEOPLE = {f"{CROWD}{number:02}": 6 for number in range(16)}
MAX_OFFLINE_S = 3600
HORIZON_S = MAX_OFFLINE_S * 5 // 4
CERTIFICATE_S = 4 * 3600


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One host for each misfortune. Certificates of hosts last four hours."""
    group = Group(max_offline=f"{MAX_OFFLINE_S}s")
    with authority_site(
        tmp_path_factory.mktemp("site"),
        {"restored": Spec(), "cloned": Spec(), "jump": Spec("jump"), "plain": Spec()},
        groups={"edge": group, "jump": Group("codebook", max_offline=f"{MAX_OFFLINE_S}s")},
        people=PEOPLE,
        settings={"authority": {"host_certificate": f"{CERTIFICATE_S // 3600}h"}},
    ) as one:
        yield one


@pytest.fixture
def person(site: Site) -> Person:
    return site.person()


def copy_of(agent: Agent, to: Path) -> Path:
    """What a snapshot of the stopped machine holds."""
    shutil.copytree(agent.state_dir, to)
    return to


def put_back(agent: Agent, copy: Path) -> None:
    shutil.rmtree(agent.state_dir)
    shutil.copytree(copy, agent.state_dir)


def until_it_renews(site: Site, name: str) -> None:
    """Let so much time pass that a host gets a new certificate, and shows it to the authority."""
    before = site.authority.host(name)["certificate"]
    site.pass_time(CERTIFICATE_S * 0.75)
    site.until(lambda: site.authority.host(name)["next_certificate"] != b"", f"{name} has a new certificate")
    site.pass_time(60)  # every process of a host has read it by then
    site.until(lambda: site.authority.host(name)["certificate"] != before, f"{name} shows it")


def test_a_thief_with_a_codebook_and_its_key_has_no_secret_and_no_code_beyond_the_horizon(
    site: Site, person: Person, tmp_path: Path
) -> None:
    """He opens whatever opens with the host's own key, and gives himself any lease that he likes."""
    jump = site["jump"]
    site.until(
        lambda: jump.rows("SELECT count(*) AS n FROM codebooks")[0]["n"] >= len(PEOPLE), "jump has all books"
    )
    assert jump.takes(person.name, person.next_code())
    jump.stop()
    loot = shutil.copytree(jump.directory, tmp_path / "loot", ignore=shutil.ignore_patterns("*.sock"))
    taken_at = site.time
    jump.start()

    octets = {str(path.relative_to(loot)): path.read_bytes() for path in loot.rglob("*") if path.is_file()}
    opened = open_everything(loot)
    assert any(where.startswith("codebooks.codes") for where in opened), "the thief has opened what there is"
    assert any(where.startswith("key_pairs.private") for where in opened)
    people = [person, *site.authority._unused]
    for one in people:
        for form in forms_of(one.secret):
            assert not [where for where, text in {**octets, **opened}.items() if form in text], one.name

    thief = Thief(loot, jump, lease_until=taken_at + 30 * 24 * 3600)
    within, beyond = HORIZON_S - 120, HORIZON_S + 120
    assert thief.takes(people[1], taken_at, within), "what a stolen book gives away"
    assert not thief.takes(people[2], taken_at, beyond)
    assert not thief.takes(people[3], taken_at, 24 * 3600)


def forms_of(secret: str) -> list[bytes]:
    """A TOTP secret as it may stand somewhere."""
    raw = base64.b32decode(secret)
    return [raw, secret.encode(), secret.lower().encode(), raw.hex().encode(), raw.hex().upper().encode(),
            base64.b64encode(raw).rstrip(b"="), base64.urlsafe_b64encode(raw).rstrip(b"=")]  # fmt: skip


def open_everything(loot: Path) -> dict[str, bytes]:
    """Every column of octets of every row, opened with the keys of the host wherever they fit."""
    store = open_store(loot / "state")
    try:
        with store.writing() as connection:
            keyring = load_keyring(
                connection, load_key_source(str(loot / "kek"), credentials_directory=None), random=os.urandom
            )
    finally:
        store.close()
    found: dict[str, bytes] = {}
    with closing(sqlite3.connect(loot / "state" / STORE)) as raw:
        raw.row_factory = sqlite3.Row
        for table in metadata.sorted_tables:
            columns = [column.name for column in table.columns]
            for number, row in enumerate(raw.execute(f"SELECT * FROM {table.name}")):
                for column in columns:
                    if isinstance(row[column], bytes):
                        plain = unsealed(keyring, row, table.name, column)
                        if plain is not None:
                            found[f"{table.name}.{column}.{number}"] = plain
    return found


def unsealed(keyring: Keyring, row: sqlite3.Row, table: str, column: str) -> bytes | None:
    """The value, at whichever place it opens: rows name themselves and their owners in several ways."""
    named = {int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") for text in tuple(row) if isinstance(text, str)}
    numbers = sorted({0, 1, *named, *(key for key in tuple(row) if isinstance(key, int) and 0 <= key < 1_000)})
    for at in numbers:
        for owner in numbers:
            try:
                return bytes(keyring.unseal(row[column], Place(table, column, at, owner)).reveal())
            except StoreCorrupt:
                continue
    return None


class Thief:
    """Runs the stolen copy where nobody sees it, with a lease that he has written into it himself."""

    def __init__(self, loot: Path, victim: Agent, lease_until: float) -> None:
        self._loot = loot
        self._victim = victim
        with closing(sqlite3.connect(loot / "state" / STORE)) as store:
            store.execute("UPDATE agent_state SET not_after = ?", (lease_until,))
            store.commit()

    def takes(self, person: Person, since: float, after_s: float) -> bool:
        """Whether the copy lets in with the code of that time, on a machine whose clocks say so."""
        agent = Agent("thief", self._loot, self._victim.machine, self._victim.spec, None)
        agent.prefix = ["unshare", "--net", "--", *after_a_suspend(int(after_s))]
        agent.clock.set(self._victim.clock.offset_s + after_s)
        agent.start()
        try:
            return agent.takes(person.name, person.code_at(int(since + after_s) // 30))
        finally:
            agent.stop()


def test_a_restored_machine_is_noticed_and_the_second_time_thrown_out(site: Site, person: Person, tmp_path: Path) -> None:
    """Its journal has forked: an alarm, a full sync and a new journal. Once more: quarantine, until released."""
    agent = site["restored"]
    agent.stop()
    snapshot = copy_of(agent, tmp_path / "snapshot")
    agent.start()
    first = person.next_code()
    assert agent.takes(person.name, first)
    site.wait_until_merged("restored")

    agent.stop()
    put_back(agent, snapshot)
    agent.start()
    (alarm,) = site.authority.wait_for_alarm("journal_fork")
    assert alarm["host"] == "restored"
    site.until(lambda: agent.state()["journal_epoch"] == 2, "a new journal")
    agent.wait_until_it_holds(person.name)
    assert not agent.takes(person.name, first), "used before, whatever this host remembers"
    site.wait_until_merged("restored")
    assert agent.takes(person.name, person.next_code())
    site.wait_until_merged("restored")

    agent.stop()
    put_back(agent, snapshot)
    agent.start()
    site.until(lambda: site.authority.host("restored")["state"] == "quarantined", "quarantine")
    site.pass_time(60)
    assert not agent.takes(person.name, person.next_code())
    site.until(lambda: agent.state()["standing"] == "quarantined", "the host knows it")
    assert "quarantine" in agent.mfactl("status")
    site.authority.mfactl("agent", "release", "restored")
    site.until(lambda: agent.state()["standing"] == "joined", "released")
    agent.wait_until_it_holds(person.name)
    site.wait_until_merged("restored")
    assert agent.takes(person.name, person.next_code())


def test_a_restored_authority_takes_no_used_code_and_its_hosts_follow(site: Site, person: Person, tmp_path: Path) -> None:
    """From a backup, as docs/operations.md says: what was spent since is refused, at hosts that were there and at others."""
    plain, jump = site["plain"], site["jump"]
    backup = tmp_path / "backup"
    site.authority.mfactl("backup", str(backup))
    first, second = person.next_code(), person.next_code()
    assert plain.takes(person.name, first)
    assert plain.takes(person.name, second)
    site.wait_until_merged("plain")
    generation = plain.state()["generation"]
    site.authority.stop()
    site.authority.mfactl("restore", str(backup))
    site.authority.start()

    for one in (plain, jump):
        # A host that is still alone knows of no use elsewhere: that is so in every outage.
        site.until(lambda one=one: one.state()["generation"] != generation, f"{one.name} has synced anew")
        site.until(lambda one=one: one.is_connected, f"{one.name} asks")
        assert [one.takes(person.name, code) for code in (first, second)] == [False, False], one.name
    site.pass_time(15 * 60)
    site.wait_until_merged("plain", "jump")
    assert jump.refusal(person.name, person.next_code()) == "", f"codes of later are good again\n{site.logs()}"
    site.wait_until_merged("plain")
    assert site.authority.mfactl("audit", "verify")


def test_a_certificate_of_the_past_is_a_clone(site: Site, person: Person, tmp_path: Path) -> None:
    """After the host has renewed its certificate, a copy of before shows the old one."""
    agent = site["cloned"]
    agent.stop()
    copy = copy_of(agent, tmp_path / "copy")
    agent.start()
    until_it_renews(site, "cloned")
    assert agent.takes(person.name, person.next_code())

    twin = site.new_agent("twin", Spec())
    twin.state_dir.mkdir()
    put_back(twin, copy)
    shutil.copy(agent.directory / "kek", twin.directory / "kek")
    twin.clock.set(agent.clock.offset_s)
    twin.start()
    site.until(lambda: site.authority.host("cloned")["state"] == "quarantined", "quarantine")
    assert "cloned" in {one["host"] for one in site.authority.alarms_of("clone_suspected")}
    site.pass_time(30)
    assert not twin.takes(person.name, person.next_code())
    twin.stop()
    del site.agents["twin"]


def test_a_host_whose_certificate_ran_out_says_how_to_join_again(site: Site, person: Person) -> None:
    """It was off for longer than its certificate lasts. It decides nothing, and tells the cure. The others have new ones."""
    agent = site["plain"]
    agent.stop()
    for _ in range(2):
        until_it_renews(site, "jump")
    agent.start()
    assert not agent.takes(person.name, person.next_code())
    said = agent.mfactl_says("doctor") + agent.mfactl_says("status")
    assert "certificate" in said
    assert "mfactl agent join" in said
    agent.machine.rejoin()


def test_a_cut_is_not_needed_for_any_of_this(site: Site) -> None:
    """Nothing above has left the others behind: they are connected, and their journals are whole."""
    jump = site["jump"]
    jump.machine.cut(Cut.SILENT)
    site.until(lambda: not jump.is_connected, "it is noticed while nobody logs in and every frame gets lost")
    jump.machine.rejoin()
    site.wait_until_merged("jump")
    site.authority.mfactl("audit", "verify")
