"""Two authorities in front of one PostgreSQL: either may die, the database may die, and a code is good once."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.end_to_end.authority_site import Agent, Group, Site, Spec, authority_site
from tests.end_to_end.daemon import CROWD, Person
from tests.end_to_end.postgresql import Cluster, cluster
from tests.pam_mfa.pam_harness import PamCode, ScriptError

PEOPLE = {f"{CROWD}{number:03}": 6 for number in range(90)}
EACH = 30


@pytest.fixture(scope="module")
def database() -> Iterator[Cluster]:
    with cluster() as one:
        yield one


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, database: Cluster) -> Iterator[Site]:
    """alpha and beta never decide alone: whoever gets in was let in by an authority, so that twice is twice."""
    with authority_site(
        tmp_path_factory.mktemp("site"),
        {"alpha": Spec(), "beta": Spec()},
        groups={"edge": Group(max_offline="0")},
        people=PEOPLE,
        cluster=database,
    ) as one:
        yield one


def ask(agent: Agent, person: Person, code: str) -> bool | None:
    """Whether the code let in; None where nobody could say."""
    try:
        seen = agent.pam(person.name, code).code
    except ScriptError:
        return None
    if seen == PamCode.AUTHINFO_UNAVAIL:
        return None
    return seen == PamCode.SUCCESS


def test_hosts_go_on_by_the_other_authority(site: Site) -> None:
    """One is killed, the other has all of its state: a code used through the first is refused by the second."""
    assert site.second is not None
    alpha, beta = site["alpha"], site["beta"]
    person = site.person()
    first, second = person.next_code(), person.next_code()
    assert alpha.takes(person.name, first)
    site.authority.kill()
    try:
        assert [alpha.takes(person.name, first), beta.takes(person.name, first)] == [False, False]
        assert beta.takes(person.name, second), site.logs()
        assert not alpha.takes(person.name, second)
    finally:
        site.authority.start()


def test_the_database_killed_at_any_moment_lets_nobody_in_twice(site: Site, database: Cluster) -> None:
    """Each code is tried at both hosts until somebody has an answer. What was let in is in the audit log of an authority."""
    chance = random.Random(15)
    people = [site.person() for _ in range(EACH)]
    hosts = [site["alpha"], site["beta"]]

    def log_in(person: Person) -> int:
        code = person.next_code()
        accepted = answers = 0
        give_up_at = time.monotonic() + 30
        while answers < 3 and time.monotonic() < give_up_at:
            said = ask(hosts[answers % 2], person, code)
            answers += said is not None
            accepted += said is True
        return accepted

    with ThreadPoolExecutor(4) as crowd:
        waiting = [crowd.submit(log_in, one) for one in people]
        for _ in range(3):
            time.sleep(chance.uniform(0.05, 0.5))
            database.kill()
            database.start()
        counts = {one.name: done.result() for one, done in zip(people, waiting, strict=True)}

    assert max(counts.values()) == 1, f"{counts}\n{site.logs()}"
    accepted = {name for name, count in counts.items() if count}
    assert accepted <= {name for name in counts if site.authority.accepts(name)}
    site.until(lambda: all(one.is_connected for one in hosts), "the hosts ask again")
    again = site.person()
    assert hosts[0].takes(again.name, again.next_code()), f"back to normal:\n{site.logs()}"
    site.wait_until_merged()
    site.authority.mfactl("audit", "verify")
    assert site.authority.alarms() == []
