"""Who needs no code: by DN, subtree, group and network, and never because something is not known."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from ldap_proxy.dn import Dn, parse_dn
from ldap_proxy.exemptions import MAX_SOURCES, NO, UNKNOWN, YES, Exempt, Exemptions
from ldap_proxy.lookup import LookupFailed
from ldap_proxy.settings import ExemptSettings
from tests.ldap_proxy.directories import run, until
from tests.ldap_proxy.known import Known

SVC = parse_dn("cn=svc,dc=example,dc=org")
APPS = parse_dn("ou=apps,dc=example,dc=org")
GROUP = parse_dn("cn=machines,dc=example,dc=org")
OTHERS = parse_dn("cn=others,dc=example,dc=org")
ALICE = parse_dn("uid=alice,ou=people,dc=example,dc=org")
NEAR = (ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32"))
HERE, THERE = "192.0.2.7", "198.51.100.7"


def exemptions(settings: ExemptSettings, known: Known | None = None) -> Exemptions:
    return Exemptions(settings, Known() if known is None else known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "identity", "source", "expected"),
    [
        (ExemptSettings(), SVC, HERE, NO),
        (ExemptSettings(dns=frozenset({SVC})), SVC, "", YES),
        (ExemptSettings(dns=frozenset({SVC})), parse_dn(r"CN=\53VC, dc=Example, DC=org"), HERE, YES),
        (ExemptSettings(dns=frozenset({SVC})), parse_dn("cn=x,cn=svc,dc=example,dc=org"), HERE, NO),
        (ExemptSettings(dns=frozenset({SVC})), ALICE, HERE, NO),
        (ExemptSettings(subtrees=(APPS,)), parse_dn("cn=a,ou=b,ou=apps,dc=example,dc=org"), HERE, YES),
        (ExemptSettings(subtrees=(APPS,)), parse_dn("cn=a,ou=myapps,dc=example,dc=org"), HERE, NO),
        (ExemptSettings(subtrees=(APPS,)), parse_dn(r"cn=a\,ou=apps\,dc=example\,dc=org"), HERE, NO),
        # networks narrow the others ...
        (ExemptSettings(dns=frozenset({SVC}), networks=NEAR), SVC, HERE, YES),
        (ExemptSettings(dns=frozenset({SVC}), networks=NEAR), SVC, THERE, NO),
        (ExemptSettings(dns=frozenset({SVC}), networks=NEAR), SVC, "", NO),
        (ExemptSettings(dns=frozenset({SVC}), networks=NEAR), ALICE, HERE, NO),
        # ... and exempt by themselves
        (ExemptSettings(networks=NEAR), ALICE, HERE, YES),
        (ExemptSettings(networks=NEAR), ALICE, "::ffff:192.0.2.7", YES),
        (ExemptSettings(networks=NEAR), ALICE, "2001:db8::1%eth0", YES),
        (ExemptSettings(networks=NEAR), ALICE, THERE, NO),
        (ExemptSettings(networks=NEAR), ALICE, "", NO),
        (ExemptSettings(networks=NEAR), ALICE, "/run/socket", NO),
        # somebody without a DN
        (ExemptSettings(networks=NEAR), None, HERE, YES),
        (ExemptSettings(dns=frozenset({SVC}), networks=NEAR), None, HERE, NO),
        (ExemptSettings(groups=(GROUP,)), None, HERE, NO),
        # nobody
        (ExemptSettings(networks=NEAR), Dn(), HERE, NO),
        (ExemptSettings(subtrees=(Dn(),)), Dn(), HERE, NO),
        (ExemptSettings(subtrees=(Dn(),)), ALICE, HERE, YES),
        (ExemptSettings(groups=(GROUP,)), Dn(), HERE, NO),
    ],
)
def test_what_is_known_at_once(settings: ExemptSettings, identity: Dn | None, source: str, expected: Exempt) -> None:
    """The same answer each time."""
    asked = exemptions(settings)
    assert [asked.of(identity, source) for _ in range(2)] == [expected] * 2


def test_groups_are_known_looked_up_or_not_needed() -> None:
    """One yes is enough; a no needs every group; what is not known is not a no either."""
    settings = ExemptSettings(dns=frozenset({SVC}), groups=(GROUP, OTHERS))
    for kept, expected in (
        ({}, UNKNOWN),
        ({(GROUP, ALICE): True}, YES),
        ({(OTHERS, ALICE): True}, YES),
        ({(GROUP, ALICE): False}, UNKNOWN),
        ({(GROUP, ALICE): False, (OTHERS, ALICE): False}, NO),
        ({(GROUP, SVC): True}, UNKNOWN),
    ):
        known = Known(kept=kept)
        assert exemptions(settings, known).of(ALICE, HERE) is expected
        assert exemptions(settings, known).of(SVC, HERE) is YES
        assert not known.asked
    assert exemptions(ExemptSettings(groups=(GROUP,), networks=NEAR), Known(kept={(GROUP, ALICE): True})).of(ALICE, THERE) is NO


AWAY = LookupFailed("away")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (True, False, YES),
        (False, True, YES),
        (True, AWAY, YES),
        (AWAY, True, YES),
        (False, False, NO),
        (False, AWAY, AWAY),
        (AWAY, False, AWAY),
        (AWAY, AWAY, AWAY),
    ],
)
def test_a_group_that_cannot_be_asked_about_exempts_nobody(first: Any, second: Any, expected: Any) -> None:
    """It is told once, whatever else is answered."""
    known = Known(answers={(GROUP, ALICE): first, (OTHERS, ALICE): second})
    asked = exemptions(ExemptSettings(groups=(GROUP, OTHERS)), known)

    async def main() -> None:
        told: list[Any] = []
        asked.look_up(ALICE, told.append)
        assert not told
        await until(lambda: told)
        for _ in range(3):
            await until(lambda: True)
        assert told == [expected]

    run(main())
    assert known.asked == [(GROUP, ALICE), (OTHERS, ALICE)]


def test_what_is_known_is_not_asked_again() -> None:
    """And where all became known meanwhile the answer still comes, later."""
    asked = exemptions(ExemptSettings(groups=(GROUP, OTHERS)), known := Known(kept={(GROUP, ALICE): False}))
    known.answers = {(OTHERS, ALICE): False}

    async def main() -> None:
        told: list[Any] = []
        asked.look_up(ALICE, told.append)
        await until(lambda: told)
        assert (told, known.asked) == ([NO], [(OTHERS, ALICE)])

        known.kept[OTHERS, ALICE] = False
        cancel = asked.look_up(ALICE, told.append)
        assert len(told) == 1
        await until(lambda: len(told) == 2)
        assert told[1] is NO
        cancel()

    run(main())


def test_who_calls_off_hears_nothing() -> None:
    """And no look-up waits for him."""
    known = Known(answers={(GROUP, ALICE): True, (OTHERS, ALICE): True})
    asked = exemptions(ExemptSettings(groups=(GROUP, OTHERS)), known)

    async def main() -> None:
        told: list[Any] = []
        asked.look_up(ALICE, told.append)()
        await until(lambda: len(known.called_off) == 2)
        assert not told

    run(main())


def test_without_settings_there_is_nobody() -> None:
    """What lets the door skip the question."""
    assert exemptions(ExemptSettings()).nobody
    assert not exemptions(ExemptSettings(networks=NEAR)).nobody
    assert not exemptions(ExemptSettings(groups=(GROUP,))).nobody


def test_a_flood_of_sources_takes_no_memory() -> None:
    """The search is done again."""
    asked = exemptions(ExemptSettings(networks=NEAR))
    for number in range(2 * MAX_SOURCES):
        asked.of(ALICE, str(ipaddress.IPv6Address(number)))
    assert len(asked._sources) <= MAX_SOURCES
    assert asked.of(ALICE, HERE) is YES
