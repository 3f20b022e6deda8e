"""What is taken away at the authority is gone at the hosts: at connected ones at once, at parted ones when their lease ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.authority_site import Agent, Group, Site, Spec, authority_site
from tests.end_to_end.daemon import CROWD, Person
from tests.end_to_end.namespaces import Cut

PEOPLE = {f"{CROWD}{number:02}": 6 for number in range(16)}
LEASE_S = 60


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """alpha may go on alone for an hour, brief for a minute; doomed will be thrown out, laptop has secrets of its own."""
    with authority_site(
        tmp_path_factory.mktemp("site"),
        {"alpha": Spec(), "brief": Spec("brief"), "doomed": Spec(), "laptop": Spec("laptops")},
        groups={"edge": Group(), "brief": Group(max_offline=f"{LEASE_S}s"), "laptops": Group("per_host")},
        people=PEOPLE,
    ) as one:
        yield one


@pytest.fixture
def person(site: Site) -> Person:
    return site.person()


def credential_of(site: Site, person: Person) -> str:
    (row,) = site.authority.rows("SELECT c.id FROM credentials c JOIN users u ON u.id = user_id WHERE u.name = ?", person.name)
    return str(row["id"])


def test_a_revoked_credential_is_refused_at_connected_hosts_and_taken_from_them(site: Site, person: Person) -> None:
    """By the answer at once; what the host holds goes with the next sync, so that a cut right after changes nothing."""
    alpha = site["alpha"]
    assert alpha.takes(person.name, person.next_code())
    site.authority.mfactl("cred", "revoke", credential_of(site, person))

    assert not alpha.takes(person.name, person.next_code())
    site.until(lambda: not alpha.holds(person.name), "alpha has heard of it")
    alpha.machine.cut(Cut.UNPLUGGED)
    try:
        site.pass_time(30)
        assert not alpha.takes(person.name, person.next_code())
    finally:
        alpha.machine.rejoin()


def test_a_locked_user_is_refused_by_a_host_that_is_cut_off_afterwards(site: Site, person: Person) -> None:
    """A decision against somebody travels like a credential."""
    alpha = site["alpha"]
    site.authority.mfactl("user", "lock", person.name)
    site.until(
        lambda: alpha.rows("SELECT locked FROM users WHERE name = ?", person.name) == [{"locked": 1}], "alpha has heard of it"
    )
    alpha.machine.cut(Cut.UNPLUGGED)
    try:
        assert alpha.refusal(person.name, person.next_code()) == "locked_by_admin"
    finally:
        alpha.machine.rejoin()


def test_a_parted_host_takes_a_revoked_credential_no_longer_than_its_lease(site: Site, person: Person) -> None:
    """Until then it is listed among the holders; the lease ends by the clock, without a word from anybody."""
    brief = site["brief"]
    brief.wait_until_it_holds(person.name)
    brief.machine.cut(Cut.UNPLUGGED)
    try:
        credential = credential_of(site, person)
        site.authority.mfactl("cred", "revoke", credential)
        assert "brief" in site.authority.mfactl("agent", "holders", credential)
        assert brief.takes(person.name, person.next_code()), "cut off before the word came"
        site.pass_time(LEASE_S + 15)
        assert brief.refusal(person.name, person.next_code()) == "cache_expired"
        assert "longer than this host may decide alone" in brief.mfactl("status")
    finally:
        brief.machine.rejoin()


def test_a_lease_that_ended_is_renewed_when_the_authority_is_back(site: Site, person: Person) -> None:
    """Nothing else has to be done."""
    brief = site["brief"]
    brief.wait_until_it_holds(person.name)
    brief.machine.cut(Cut.UNPLUGGED)
    site.pass_time(LEASE_S + 15)
    refused = brief.takes(person.name, person.next_code())
    brief.machine.rejoin()

    assert not refused
    site.until(lambda: brief.state()["not_after"] > site.time + 5, "a new lease")
    assert brief.refusal(person.name, person.next_code()) == "", site.logs()


def test_a_revoked_host_has_nothing_left_and_lets_nobody_in(site: Site, person: Person) -> None:
    """Its certificate is worth nothing from then on, what it held is deleted, and its administrator is told what happened."""
    doomed = site["doomed"]
    doomed.wait_until_it_holds(person.name)
    assert doomed.takes(person.name, person.next_code())
    site.authority.mfactl("agent", "revoke", "doomed")
    site.until(lambda: doomed.state()["standing"] == "revoked", "doomed knows it")

    assert doomed.rows("SELECT count(*) AS n FROM credentials") == [{"n": 0}]
    assert doomed.rows("SELECT count(*) AS n FROM codebooks") == [{"n": 0}]
    assert not doomed.takes(person.name, person.next_code())
    doomed.machine.cut(Cut.UNPLUGGED)
    site.pass_time(30)
    assert not doomed.takes(person.name, person.next_code())
    assert "revoked" in doomed.mfactl("status").lower()
    site.pass_time(60)
    assert site["alpha"].takes(person.name, person.next_code()), "no code of hers was spent by that"


def test_a_new_person_is_at_the_hosts_without_anybody_asking(site: Site) -> None:
    """Enrolled once: connected hosts take her at once, and hold her for when they are cut off."""
    alpha: Agent = site["alpha"]
    newcomer = site.authority.enrol("newcomer1")
    newcomer.clock = lambda: site.time
    alpha.wait_until_it_holds("newcomer1")
    alpha.machine.cut(Cut.UNPLUGGED)
    try:
        assert alpha.takes("newcomer1", newcomer.next_code())
    finally:
        alpha.machine.rejoin()


def test_a_host_with_secrets_of_its_own_knows_no_others(site: Site, person: Person) -> None:
    """Her usual code works there while the authority can be asked; the laptop's own one works there alone, and only there."""
    alpha, laptop = site["alpha"], site["laptop"]
    answer = site.authority.mfactl_json("enrol", person.name, "--host", "laptop", "--no-confirm")
    own = Person(person.name, answer["secret"], clock=lambda: site.time)
    site.until(
        lambda: laptop.rows("SELECT id FROM credentials WHERE id = ? AND material = 'seed'", answer["credential"]),
        "laptop has its secret",
    )
    assert not alpha.holds_secret(answer["credential"])
    assert not alpha.takes(own.name, own.code_at(own.step()))
    assert laptop.takes(person.name, person.next_code())
    laptop.machine.cut(Cut.UNPLUGGED)
    try:
        assert not laptop.takes(person.name, person.next_code())
        assert laptop.refusal(own.name, own.next_code()) == "", site.logs()
    finally:
        laptop.machine.rejoin()


def test_a_host_with_worse_keys_than_its_group_demands_gets_no_material(site: Site, person: Person) -> None:
    """Its key lies in a file: what it held is taken away, an alarm tells, and it still asks about each code."""
    laptop = site["laptop"]
    site.authority.mfactl("agent", "group", "set", "laptops", "--key-protection", "systemd-creds")
    site.until(lambda: site.authority.alarms_of("key_protection"), "the alarm")
    site.until(
        lambda: not laptop.rows("SELECT id FROM credentials WHERE material != 'none'"), "laptop holds nothing"
    )
    assert laptop.takes(person.name, person.next_code())
    laptop.machine.cut(Cut.UNPLUGGED)
    try:
        assert not laptop.takes(person.name, person.next_code())
    finally:
        laptop.machine.rejoin()
