"""Hosts whose clock is wrong: online it does not matter, alone they let nobody in, and nothing of it lasts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.authority_site import Agent, Group, Site, Spec, authority_site
from tests.end_to_end.clocks import after_a_suspend
from tests.end_to_end.daemon import CROWD, Person
from tests.end_to_end.namespaces import Cut

PEOPLE = {f"{CROWD}{number:02}": 6 for number in range(16)}
HOUR_S = 3600
LEASE = "2h"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    agents = {"alpha": Spec(), "slow": Spec()}
    groups = {"edge": Group(max_offline=LEASE)}
    with authority_site(tmp_path_factory.mktemp("site"), agents, groups=groups, people=PEOPLE) as one:
        yield one


@pytest.fixture
def alpha(site: Site) -> Iterator[Agent]:
    """With the right clock again, joined and synced, when a test ends."""
    one = site["alpha"]
    yield one
    one.clock.set(site.authority.clock.offset_s)
    one.machine.rejoin()
    site.wait_until_merged("alpha")


@pytest.fixture
def person(site: Site) -> Person:
    return site.person()


@pytest.mark.parametrize(
    ("offset_s", "reason"), [(-HOUR_S, "clock_rollback"), (HOUR_S, "clock_jumped")], ids=["behind", "ahead"]
)
def test_an_hour_off_changes_nothing_online_and_refuses_alone(
    site: Site, alpha: Agent, person: Person, offset_s: float, reason: str
) -> None:
    """Rows 19 and 20: the authority's clock decides online. Alone the cause is named; put right, everything is."""
    alpha.clock.set(offset_s)
    assert alpha.takes(person.name, person.next_code()), f"online:\n{site.logs()}"
    alpha.machine.cut(Cut.UNPLUGGED)
    code = person.next_code()
    future = person.code_at(person.step() + int(offset_s) // 30)
    assert alpha.refusal(person.name, code) == reason, site.logs()
    assert not alpha.takes(person.name, future), "a code of the hour that the host believes in"
    assert "clock" in alpha.mfactl("status")
    doctor = alpha.mfactl_says("doctor")
    assert "clock" in doctor

    alpha.clock.set(0)
    assert alpha.takes(person.name, code), f"the clock is right again, nobody is locked:\n{site.logs()}"
    assert not alpha.takes(person.name, future)


def test_a_clock_that_goes_wrong_while_the_host_is_alone_is_noticed(site: Site, alpha: Agent, person: Person) -> None:
    """Against the clock that counts from boot, which cannot be set."""
    alpha.machine.cut(Cut.UNPLUGGED)
    assert alpha.takes(person.name, person.next_code())
    alpha.clock.set(600)
    ahead = person.code_at(person.step() + 20)

    assert alpha.refusal(person.name, ahead) == "clock_jumped"
    alpha.clock.set(0)
    assert alpha.takes(person.name, person.next_code())


def test_a_suspend_is_no_jump_and_a_long_one_ends_the_lease(site: Site, alpha: Agent, person: Person) -> None:
    """Both clocks have gone on: an hour asleep is good, three are more than the lease. The store goes through all of it."""
    alpha.machine.cut(Cut.UNPLUGGED)
    for hours, reason in ((1, ""), (3, "cache_expired")):
        alpha.stop()
        alpha.clock.set(site.authority.clock.offset_s + hours * HOUR_S)
        later = person.code_at(person.step() + hours * HOUR_S // 30)
        usual = list(alpha.prefix)
        alpha.prefix = [*usual, *after_a_suspend(hours * HOUR_S)]
        alpha.start()
        alpha.prefix = usual
        assert alpha.refusal(person.name, later) == reason, f"{hours} hours\n{site.logs()}"
    alpha.stop()
    alpha.clock.set(site.authority.clock.offset_s)
    alpha.machine.rejoin()
    alpha.start()


def test_a_host_that_was_an_hour_behind_when_it_joined_serves(site: Site, person: Person) -> None:
    """Certificates and tokens do not depend on its clock; the authority is told how far off it is."""
    slow = site["slow"]
    slow.clock.set(-HOUR_S)
    slow.stop()
    slow.start()
    site.until(lambda: site.authority.host("slow")["clock_offset_s"] < -HOUR_S / 2, "the offset is known")
    site.until(lambda: slow.is_connected, "slow asks")

    assert slow.takes(person.name, person.next_code()), site.logs()
