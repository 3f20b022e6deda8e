"""Names of binds and confirmed identities, as user names."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldap_proxy.dn import Dn, parse_dn
from ldap_proxy.lookup import MAX_KEY, LookupFailed
from ldap_proxy.mapping import MAX_PATTERN_CHARS, MAX_READ, NOBODY, UNKNOWN, Names, Who
from ldap_proxy.settings import MappingKind, MappingSettings
from tests.ldap_proxy.directories import run, until
from tests.ldap_proxy.known import Known

BASE = parse_dn("ou=people,dc=example,dc=org")
ALICE = b"uid=alice,ou=people,dc=example,dc=org"
RDN = MappingSettings()
BELOW = MappingSettings(bases=(BASE, parse_dn("ou=guests,dc=example,dc=org")))
PATTERN = MappingSettings(
    MappingKind.PATTERN, pattern=re.compile(r"uid=(?P<user>[a-z]+),ou=(people|guests),dc=example,dc=org", re.IGNORECASE)
)
ATTRIBUTE = MappingSettings(MappingKind.ATTRIBUTE, attributes=("sAMAccountName",))
BIND_NAMES = MappingSettings(bind_names=True)


def names(settings: MappingSettings, known: Known | None = None) -> Names:
    return Names(settings, Known() if known is None else known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "name", "user"),
    [
        (RDN, ALICE, "alice"),
        (RDN, b"UID = Alice , ou=People,dc=example,dc=ORG", "alice"),
        (RDN, rb"uid=\61lice,ou=people", "alice"),
        (RDN, b"0.9.2342.19200300.100.1.1=alice,ou=people", "alice"),
        (RDN, b"userid=alice,ou=people", "alice"),
        (RDN, b"cn=alice,ou=people", "alice"),
        (RDN, b"cn=Alice Liddell+uid=alice,ou=people", "alice"),
        (RDN, b"uid=alice+uid=bob,ou=people", None),
        (RDN, b"ou=people,dc=example,dc=org", None),
        (RDN, b"uid=,ou=people", None),
        (RDN, "uid=ålice,ou=people".encode(), "ålice"),
        (RDN, b"alice", None),
        (RDN, b"alice@example.org", None),
        (RDN, rb"EXAMPLE\alice", None),
        (RDN, b"uid=alice\xff", None),
        (RDN, b"", None),
        (MappingSettings(attributes=("userPrincipalName", "UserID")), ALICE, "alice"),
        (MappingSettings(attributes=("cn",)), ALICE, None),
        (BELOW, ALICE, "alice"),
        (BELOW, b"uid=bob,ou=guests,dc=example,dc=org", "bob"),
        (BELOW, b"uid=alice,ou=sales,ou=people,dc=example,dc=org", "alice"),
        (BELOW, b"uid=alice,ou=admins,dc=example,dc=org", None),
        (BELOW, b"uid=alice,dc=example,dc=org", None),
        (BELOW, rb"uid=alice\,ou=people\,dc=example\,dc=org,dc=elsewhere", None),
        (PATTERN, ALICE, "alice"),
        (PATTERN, b"UID=Alice,OU=Guests,DC=example,DC=org", "alice"),
        (PATTERN, b"uid=alice,ou=people,dc=example,dc=org,dc=elsewhere", None),
        (PATTERN, b"cn=x,uid=alice,ou=people,dc=example,dc=org", None),
        (PATTERN, ALICE + b"\n", None),
        (BIND_NAMES, b"alice@example.org", "alice@example.org"),
        (BIND_NAMES, rb"EXAMPLE\Alice", r"EXAMPLE\Alice"),
        (BIND_NAMES, b"alice\xff@example.org", "alice\udcff@example.org"),
        (BIND_NAMES, ALICE, "alice"),
    ],
)
def test_a_name_is_a_user_or_nobody(settings: MappingSettings, name: bytes, user: str | None) -> None:
    """At once, and the same when it is asked again."""
    asked = names(settings)
    assert [asked.name_of(name) for _ in range(2)] == [user] * 2


def test_a_name_that_is_no_dn_has_none_and_no_name_is_nobody() -> None:
    """What is exempt is decided on DNs."""
    asked = names(BIND_NAMES)
    assert asked.who(b"alice@example.org").dn is None
    assert asked.who(ALICE).dn == parse_dn(ALICE.decode())
    assert asked.who(b"") is NOBODY
    assert NOBODY.dn == Dn()


@pytest.mark.parametrize(
    ("settings", "authzid", "dn", "user"),
    [
        (RDN, b"dn:" + ALICE, ALICE, "alice"),
        (BELOW, b"dn:uid=alice,ou=admins,dc=example,dc=org", b"uid=alice,ou=admins,dc=example,dc=org", None),
        (RDN, b"u:alice", None, "alice"),
        (RDN, rb"u:EXAMPLE\alice", None, r"EXAMPLE\alice"),
        (BELOW, b"u:alice", None, "alice"),
        (RDN, b"u:", None, None),
        (RDN, b"", b"", None),
        (RDN, b"dn:", b"", None),
        (BIND_NAMES, b"dn:no dn", None, None),
        (BIND_NAMES, b"alice", None, None),
        (BIND_NAMES, b"DN:" + ALICE, None, None),
        (RDN, b"dn:uid=alice\xff", None, None),
    ],
)
def test_a_confirmed_identity_is_read(
    settings: MappingSettings, authzid: bytes, dn: bytes | None, user: str | None
) -> None:
    """RFC 4513 section 5.2.1.8; what has neither form is no identity, whatever names of binds may be."""
    asked = names(settings)
    for _ in range(2):
        who = asked.confirmed(authzid)
        assert who.dn == (None if dn is None else parse_dn(dn.decode()))
        assert asked.user_of(who) == user


def test_a_name_and_an_identity_of_the_same_octets_are_two() -> None:
    """``u:alice`` as the name of a bind is no DN, and so nobody."""
    asked = names(RDN)
    assert asked.confirmed(b"u:alice").user == "alice"
    assert asked.who(b"u:alice").user is None


# -- attributes -------------------------------------------------------------------------------------------------------------


def test_an_attribute_is_looked_up_where_it_is_not_known() -> None:
    """By the octets as they came, and of names below the bases alone."""
    known = Known(answers={(ALICE, "sAMAccountName"): ("Alice",)})
    asked = names(MappingSettings(MappingKind.ATTRIBUTE, attributes=("sAMAccountName",), bases=(BASE,)), known)

    async def main() -> None:
        who = asked.who(ALICE)
        assert asked.user_of(who) is UNKNOWN
        told: list[Any] = []
        asked.look_up(who, told.append)
        assert not told
        await until(lambda: told)
        assert told == ["Alice"]

    run(main())
    known.kept = known.answers
    assert asked.name_of(ALICE) == "Alice"
    assert asked.user_of(asked.confirmed(b"dn:" + ALICE)) == "Alice"
    assert asked.name_of(b"uid=alice,dc=elsewhere") is None
    assert known.asked == [(ALICE, "sAMAccountName")]


@pytest.mark.parametrize(
    ("values", "user"), [((), None), (("alice", "bob"), None), (("",), ""), (("alice", "alice"), None)]
)
def test_an_attribute_with_no_value_or_several_is_nobody(values: tuple[str, ...], user: str | None) -> None:
    """One person has one name."""
    assert names(ATTRIBUTE, Known(kept={(ALICE, "sAMAccountName"): values})).name_of(ALICE) == user


def test_several_values_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """With the DN, so that somebody can mend it, and without the values."""
    caplog.set_level(logging.WARNING, logger="ldap_proxy.mapping")
    asked = names(ATTRIBUTE, Known(kept={(ALICE, "sAMAccountName"): ("alice", "bob")}))
    for _ in range(3):
        asked.name_of(ALICE)
    said = f"{ALICE.decode()} has 2 values of sAMAccountName: it is nobody"
    assert [record.getMessage() for record in caplog.records] == [said]


def test_a_look_up_that_fails_is_told_as_such_and_can_be_called_off() -> None:
    """It is not nobody: that would be a refusal where 52 is right."""
    known = Known()
    asked = names(ATTRIBUTE, known)

    async def main() -> None:
        told: list[Any] = []
        asked.look_up(asked.who(ALICE), told.append)
        await until(lambda: told)
        assert isinstance(told[0], LookupFailed)
        cancel = asked.look_up(asked.who(ALICE), told.append)
        cancel()
        await until(lambda: known.called_off)
        assert len(told) == 1

    run(main())


# -- bounds -----------------------------------------------------------------------------------------------------------------


def test_a_flood_of_names_takes_no_memory() -> None:
    """Neither by number nor by length."""
    asked = names(RDN)
    for number in range(2 * MAX_READ):
        assert asked.name_of(b"uid=u%d" % number) == f"u{number}"
    assert len(asked._read) <= MAX_READ
    long = b"uid=" + b"x" * MAX_KEY
    assert asked.name_of(long) == "x" * MAX_KEY
    assert long not in asked._read


def test_a_pattern_is_not_tried_on_a_text_without_a_bound() -> None:
    """Patterns can take time that grows faster than the text."""
    asked = names(MappingSettings(MappingKind.PATTERN, pattern=re.compile("(?P<user>.*)")))
    short, long = b"cn=" + b"x" * (MAX_PATTERN_CHARS - 3), b"cn=" + b"x" * (MAX_PATTERN_CHARS - 2)
    assert asked.name_of(short) == short.decode()
    assert asked.name_of(long) is None


def test_a_group_that_took_part_in_nothing_is_nobody() -> None:
    """``(?P<user>...)?`` may be absent from a match."""
    asked = names(MappingSettings(MappingKind.PATTERN, pattern=re.compile("(uid=(?P<user>[a-z]+),)?cn=x")))
    assert asked.name_of(b"uid=a,cn=x") == "a"
    assert asked.name_of(b"cn=x") is None


@given(st.binary(max_size=60), st.sampled_from([RDN, BELOW, PATTERN, ATTRIBUTE, BIND_NAMES]))
def test_whatever_a_name_is_it_is_read(name: bytes, settings: MappingSettings) -> None:
    """Never an exception; and only a name that is no DN is taken as it stands."""
    asked = names(settings)
    who = asked.who(name)
    assert isinstance(who, Who)
    if who.dn is None and who.user is not None:
        assert settings.bind_names
        assert who.user.encode("utf-8", "surrogateescape") == name
    confirmed = asked.confirmed(name)
    if confirmed.user is not None:
        assert name.startswith((b"dn:", b"u:"))
