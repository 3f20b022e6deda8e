"""Logins on hosts that are cut off from their authority, and what is left of it when they are back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.end_to_end.authority_site import Agent, Group, Site, Spec, authority_site
from tests.end_to_end.daemon import CROWD, Person
from tests.end_to_end.host import PASSWORD, SSHD, Sshd
from tests.end_to_end.namespaces import Cut
from tests.end_to_end.programs import clean_environment, must_be_root, must_have
from tests.end_to_end.slapd import PEOPLE as DIRECTORY
from tests.end_to_end.slapd import PROGRAMS, Slapd
from tests.end_to_end.ssh import CODE_PROMPT, PASSWORD_PROMPT, Outcome, log_in
from tests.pam_mfa.pam_harness import PamCode

PEOPLE = {f"{CROWD}{number:02}": 6 for number in range(20)}
OUTSIDER = "outsider1"
"""Enrolled, in a group that may not log in on these hosts."""
TOKENLESS = "tokenless1"
POLICY = [{"id": "soft", "when": {"service": ["soft"]}, "enforce": "enrolled_only"}]


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    """A directory that everybody is in, with the same password. Its socket is a file, so it is on every machine."""
    must_have(*PROGRAMS, "ldapwhoami")
    one = Slapd(tmp_path_factory.mktemp("slapd") / "one", dict.fromkeys(PEOPLE, PASSWORD)).start()
    yield one
    one.stop()


def ldap_door(slapd: Slapd) -> dict[str, object]:
    return {"listen": "ldap://127.0.0.1:13890", "upstream": slapd.ipc_url, "user": {"base_dn": DIRECTORY}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, slapd: Slapd) -> Iterator[Site]:
    """Two hosts of one group; alpha has sshd, beta a RADIUS door and an LDAP door."""
    must_be_root()
    must_have(SSHD, "ssh", "nsenter", "unshare", "radclient")
    with authority_site(
        tmp_path_factory.mktemp("site"),
        {"alpha": Spec(local_users=tuple(PEOPLE)), "beta": Spec(radius=True, doors={"ldap": ldap_door(slapd)})},
        groups={"edge": Group(services=("sshd", "soft", "vpn", "ldap"), users=("staff",))},
        people={**PEOPLE, OUTSIDER: 6},
        memberships={name: ["staff"] for name in PEOPLE} | {OUTSIDER: ["elsewhere"]},
        settings={"policy": POLICY},
    ) as one:
        yield one


@pytest.fixture(scope="module")
def sshd(site: Site) -> Sshd:
    return site["alpha"].sshd()


@pytest.fixture
def alpha(site: Site) -> Iterator[Agent]:
    """Joined when a test ends, however it does."""
    yield site["alpha"]
    site["alpha"].machine.rejoin()


@pytest.fixture
def beta(site: Site) -> Iterator[Agent]:
    yield site["beta"]
    site["beta"].machine.rejoin()


@pytest.fixture
def person(site: Site) -> Person:
    """Somebody whom no test has used."""
    return site.person()


def enter(sshd: Sshd, person: Person, code: str) -> Outcome:
    return log_in(sshd, person.name, (PASSWORD_PROMPT, PASSWORD), (CODE_PROMPT, code))


def test_an_outage_from_beginning_to_end(site: Site, sshd: Sshd, alpha: Agent, person: Person) -> None:
    """Through sshd: online, cut off, a replay, and back: the journal is at the authority, and she is told."""
    first, second = person.next_code(), person.next_code()
    online = enter(sshd, person, first)
    alpha.machine.cut(Cut.SILENT)
    offline = enter(sshd, person, second)
    again = [enter(sshd, person, code) for code in (second, first)]

    assert (online.accepted, offline.accepted, [one.accepted for one in again]) == (True, True, [False, False]), site.logs()
    assert "already used" in again[0].screen
    assert len(site.authority.accepts(person.name)) == 1

    alpha.machine.rejoin()
    site.wait_until_merged("alpha")
    here, there = alpha.accepts(person.name), site.authority.accepts(person.name)
    assert sorted(step for _, step in here) == sorted(step for _, step in there) == [person.last_step - 1, person.last_step]
    assert site["beta"].takes(person.name, second) is False
    site.pass_time(30)
    told = enter(sshd, person, person.next_code())
    assert told.accepted
    assert "1 offline login since" in told.screen
    site.pass_time(30)
    assert "offline login" not in enter(sshd, person, person.next_code()).screen
    assert site.authority.alarms() == []


def test_a_code_used_by_ssh_is_spent_at_the_radius_door_of_another_host(
    site: Site, alpha: Agent, beta: Agent, person: Person
) -> None:
    """And the other way round, while both are connected: all doors of all hosts are one."""
    first, second = person.next_code(), person.next_code()

    assert (alpha.takes(person.name, first), beta.radius(person.name, first)) == (True, False)
    assert (beta.radius(person.name, second), alpha.takes(person.name, second)) == (True, False)
    assert len(site.authority.accepts(person.name)) == 2


def test_the_radius_door_goes_on_alone_like_the_others(site: Site, beta: Agent, person: Person) -> None:
    """By radclient, online, cut off and back: each code is taken once, whoever decides."""
    first, second = person.next_code(), person.next_code()
    online = [beta.radius(person.name, code) for code in (first, first)]
    beta.machine.cut(Cut.SILENT)
    alone = [beta.radius(person.name, code) for code in (second, second, first)]
    beta.machine.rejoin()
    site.wait_until_merged("beta")

    assert (online, alone) == ([True, False], [True, False, False]), site.logs()
    assert not beta.radius(person.name, second)
    assert sorted(step for _, step in site.authority.accepts(person.name)) == [person.last_step - 1, person.last_step]


def test_the_ldap_door_goes_on_alone_like_the_others(site: Site, beta: Agent, person: Person) -> None:
    """Password and code in one bind, online and cut off; a code of the one is spent for the other."""
    first, second = person.next_code(), person.next_code()
    online = [bind(beta, person, code) for code in (first, first)]
    beta.machine.cut(Cut.UNPLUGGED)
    alone = [bind(beta, person, code) for code in (second, second, first)]

    assert (online, alone) == ([True, False], [True, False, False]), site.logs()


def bind(agent: Agent, person: Person, code: str) -> bool:
    """As an application does, by OpenLDAP's own client."""
    dn = f"uid={person.name},{DIRECTORY}"
    words = ["ldapwhoami", "-x", "-H", "ldap://127.0.0.1:13890", "-D", dn, "-w", f"{PASSWORD},{code}"]
    done = subprocess.run(
        agent.machine.inside(*words), env=clean_environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in {0, 49}, done.stdout + done.stderr
    return done.returncode == 0


def test_one_code_at_two_parted_hosts_is_taken_once_on_each_and_found_out(
    site: Site, alpha: Agent, beta: Agent, person: Person
) -> None:
    """Nothing can prevent it; it is an alarm as soon as both journals are there. Later the code is spent everywhere."""
    for one in (alpha, beta):
        one.machine.cut(Cut.UNPLUGGED)
    code = person.next_code()
    taken = [(one.takes(person.name, code), one.takes(person.name, code)) for one in (alpha, beta)]
    assert taken == [(True, False), (True, False)], site.logs()
    for one in (alpha, beta):
        one.machine.rejoin()
    site.wait_until_merged()

    (alarm,) = site.authority.wait_for_alarm("replay_suspected")
    assert alarm["host"] in {"alpha", "beta"}
    assert person.name in site.authority.mfactl("agent", "alarms")
    assert [one.takes(person.name, code) for one in (alpha, beta)] == [False, False]


def test_services_that_are_not_listed_are_refused_alone(site: Site, alpha: Agent, person: Person) -> None:
    """The same person, the same code: sudo is not in the list of the host group, sshd is."""
    alpha.machine.cut(Cut.UNPLUGGED)
    code = person.next_code()

    assert alpha.refusal(person.name, code, service="sudo") == "not_offline"
    assert alpha.takes(person.name, code), "the refusal has spent nothing"
    alpha.machine.rejoin()


def test_wrong_codes_are_counted_harder_alone_and_not_forgotten(site: Site, alpha: Agent, person: Person) -> None:
    """Five, then a right one has to wait; the authority hears of them."""
    alpha.machine.cut(Cut.UNPLUGGED)
    wrong = person.wrong_code()
    numbers = [f"{(int(wrong) + number) % 1_000_000:06}" for number in range(0, 500_000, 1_111)]
    near = {person.code_at(person.step() + offset) for offset in range(-15, 16)}
    for code in [one for one in numbers if one not in near][:5]:
        assert not alpha.takes(person.name, code)
    right = person.next_code()

    assert alpha.refusal(person.name, right) == "throttled"
    alpha.machine.rejoin()
    site.wait_until_merged("alpha")
    assert site.authority.failures(person.name) >= 5


def test_strangers_and_people_of_other_groups_are_refused_and_look_alike(site: Site, alpha: Agent, person: Person) -> None:
    """Alone: a name that is not in the copy is never taken for somebody without a second factor. Online: not entitled."""
    outsider = site.person(OUTSIDER)
    assert alpha.knows(OUTSIDER) is False
    online = alpha.refusal(OUTSIDER, outsider.next_code(), at=site.authority)
    alpha.machine.cut(Cut.UNPLUGGED)
    seen = {name: alpha.pam(name, "123456") for name in (person.name, OUTSIDER, "nobody-at-all")}
    soft = {name: alpha.takes(name, "123456", service="soft") for name in (OUTSIDER, "nobody-at-all")}
    alpha.machine.rejoin()

    assert online == "not_entitled"
    assert {one.code for one in seen.values()} == {PamCode.AUTH_ERR}
    assert len({(tuple(one.prompts), tuple(one.errors)) for one in seen.values()}) == 1, seen
    assert soft == {OUTSIDER: False, "nobody-at-all": False}
    assert outsider.last_step > 0
    (row,) = site.authority.rows("SELECT last_step FROM credentials c JOIN users u ON u.id = user_id WHERE name = ?", OUTSIDER)
    assert row == {"last_step": -1}, "no code of hers was looked at"


def test_factors_that_need_the_authority_say_what_works_instead(site: Site, alpha: Agent, person: Person) -> None:
    """A recovery code: good online, and alone she is told to take the app. It is not spent by the try."""
    printed = site.authority.mfactl_json("recovery", "new", person.name)["recovery_codes"]
    alpha.machine.cut(Cut.UNPLUGGED)
    refused = alpha.pam_after_password(person.name, printed[0])
    by_app = alpha.takes(person.name, person.next_code())
    alpha.machine.rejoin()
    site.wait_until_merged("alpha")

    assert (refused.code, alpha.reasons(person.name)[-2:-1]) == (PamCode.AUTH_ERR, ["needs_authority"])
    assert "authenticator" in " ".join(refused.errors + refused.infos), refused
    assert by_app
    assert alpha.takes(person.name, printed[0])


def test_the_administrator_sees_which_host_decides_alone(site: Site, alpha: Agent, person: Person) -> None:
    """`mfactl status` on the host: since when, and until when."""
    alpha.machine.cut(Cut.UNPLUGGED)
    assert alpha.takes(person.name, person.next_code())
    alone = alpha.mfactl("status")
    alpha.machine.rejoin()
    site.wait_until_merged("alpha")

    assert "alone" in alone or "not reachable" in alone, alone
    assert "alpha" in site.authority.mfactl("agent", "status")
