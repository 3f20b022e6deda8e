"""kill -9 of authority and agents at any moment, while people log in: nothing is taken twice, nothing written is lost."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.end_to_end.authority_site import Agent, Site, Spec, Station, authority_site
from tests.end_to_end.daemon import CROWD, Person
from tests.pam_mfa.pam_harness import PamCode, ScriptError

PEOPLE = {f"{CROWD}{number:03}": 6 for number in range(120)}
KILLS = 2
EACH = 24
"""People who log in while one thing is killed."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with authority_site(tmp_path_factory.mktemp("site"), {"alpha": Spec(), "beta": Spec()}, people=PEOPLE) as one:
        yield one


class Driver:
    """Logs people in, each with one code, at one host and then at the other, and again until somebody has said yes or no."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.accepted: Counter[tuple[str, str, str]] = Counter()
        self._lock = threading.Lock()

    def log_in(self, person: Person) -> None:
        """The first host may be dead: then the other one, with the same code, until there is an answer. Then twice more."""
        code = person.next_code()
        hosts = list(self._site.agents.values())
        random.Random(person.name).shuffle(hosts)
        give_up_at = time.monotonic() + 30
        answered = 0
        while answered < 3 and time.monotonic() < give_up_at:
            agent = hosts[answered % 2]
            seen = self.ask(agent, person, code)
            if seen == PamCode.SUCCESS:
                with self._lock:
                    self.accepted[(person.name, code, agent.name)] += 1
            if seen == PamCode.AUTHINFO_UNAVAIL:
                time.sleep(0.1)
                hosts.reverse()
            else:
                answered += 1

    @staticmethod
    def ask(agent: Agent, person: Person, code: str) -> int:
        """One login, whatever becomes of it: the daemon may die under it."""
        try:
            return agent.pam(person.name, code).code
        except ScriptError:
            # no prompt came: nobody was there to ask
            return PamCode.AUTHINFO_UNAVAIL


@pytest.mark.parametrize("victim", ["authority", "alpha", "beta"])
def test_killed_at_any_moment_no_code_is_taken_twice_and_the_journals_are_whole(site: Site, victim: str) -> None:
    """Whoever was let in stands in the audit log of the authority once the journals are merged. While the authority is dead,
    hosts cannot hear of each other: a code that was taken at both is an alarm, and happens at no other time."""
    chance = random.Random(victim)
    station: Station = site.authority if victim == "authority" else site[victim]
    driver = Driver(site)
    alarms_before = len(site.authority.alarms())
    people = [site.person() for _ in range(EACH)]
    users_before = site.authority.rows("SELECT count(*) AS n FROM credentials WHERE state = 'active'")
    with ThreadPoolExecutor(4) as crowd:
        waiting = [crowd.submit(driver.log_in, one) for one in people]
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.02, 0.4))
            station.kill()
            station.start()
        for one in waiting:
            one.result()
    site.wait_until_merged()

    assert set(driver.accepted.values()) == {1}, f"{driver.accepted}\n{site.logs()}"
    at_two = {name for name, count in Counter(name for name, _, _ in driver.accepted).items() if count > 1}
    written = {name for name, _, _ in driver.accepted if site.authority.accepts(name)}
    assert written == {name for name, _, _ in driver.accepted}
    assert len(written) > EACH // 2, "there were logins to look at"
    assert site.authority.rows("SELECT count(*) AS n FROM credentials WHERE state = 'active'") == users_before
    for one in (site.authority, *site.agents.values()):
        one.mfactl("audit", "verify")
    alarmed = [one for one in site.authority.alarms() if one["kind"] == "replay_suspected"]
    assert len(alarmed) - alarms_before == len(at_two), f"{at_two}\n{site.logs()}"
    assert victim == "authority" or not at_two, f"{at_two}\n{site.logs()}"
