"""Whose bind is it, by other ways than a DN with a uid in front: attributes, patterns, aliases, networks, SASL?"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.ldap_directory import (
    BASE,
    BY_NAME,
    IN_GROUP,
    NAMED,
    PASSWORDS,
    PEOPLE,
    SERVICE,
    dn_of,
    password_of,
)
from tests.end_to_end.ldap_door import LdapDoor, Setting, full, ldap_door, ldap_setting
from tests.end_to_end.ldap_relay import Relay
from tests.end_to_end.ldap_wire import (
    AUTH_METHOD_NOT_SUPPORTED,
    INVALID_CREDENTIALS,
    SUCCESS,
    Client,
    Pdu,
    extended,
    modify,
    sasl_bind,
    search,
)

TRUSTED, MACHINES = "127.0.9.2", "127.0.9.3"
"""A network that needs no code; and one from which certain entries do not."""
SASL = "127.0.9.4"
"""An application that may bind by CRAM-MD5."""
SASL_BIND_IN_PROGRESS = 14
MECHANISM = "CRAM-MD5"
REGEXP = (
    'authz-regexp "uid=svc,cn=[^,]*,cn=auth" "cn=svc,dc=example,dc=org"\n'
    'authz-regexp "uid=([^,]*),cn=[^,]*,cn=auth" "uid=$1,ou=people,dc=example,dc=org"\n'
    "sasl-secprops none\n"
)


@pytest.fixture(scope="module")
def setting(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    applications = [
        {"name": "trusted", "network": TRUSTED, "exempt": {"network": TRUSTED}},
        {"name": "machines", "network": MACHINES, "exempt": {"network": MACHINES, "dn": IN_GROUP}},
        {"name": "sasl", "network": SASL, "sasl_mechanisms": [MECHANISM]},
    ]
    with ldap_setting(
        template, tmp_path_factory.mktemp("ldap"), door={"applications": applications}, slapd=REGEXP
    ) as one:  # fmt: skip
        yield one


@pytest.fixture
def seen(setting: Setting) -> Relay:
    """What the directory sees in this test."""
    return setting.relay.forget()


@pytest.fixture
def person(setting: Setting) -> Person:
    return setting.door.person()


def test_network_that_needs_no_code(setting: Setting, person: Person) -> None:
    """From there the password is enough, and the directory checks it; from elsewhere it is not."""
    for source, code in ((TRUSTED, SUCCESS), ("127.0.9.9", INVALID_CREDENTIALS)):
        with setting.door.client(source) as client:
            assert client.bind(dn_of(person.name), password_of(person.name)).code == code
            assert client.whoami() == (f"dn:{dn_of(person.name)}" if code == SUCCESS else "")
            assert client.bind(dn_of(person.name), "wrong").code == INVALID_CREDENTIALS
            assert client.whoami() == ""


def test_network_narrows_who_is_exempt(setting: Setting, person: Person) -> None:
    """Only these entries, only from there."""
    with setting.door.client(MACHINES) as client:
        assert client.bind(IN_GROUP, PASSWORDS[IN_GROUP]).code == SUCCESS
        assert client.bind(dn_of(person.name), password_of(person.name)).code == INVALID_CREDENTIALS
    with setting.door.client(TRUSTED[:-1] + "8") as client:
        assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS, "the door's own exemptions hold for others"


def cram(client: Client, user: str, password: str) -> Pdu:
    """Both steps of CRAM-MD5 (RFC 2195); the second answer."""
    number = client.number()
    challenge = client.ask(sasl_bind(number, MECHANISM))
    assert (challenge.number, challenge.code) == (number, SASL_BIND_IN_PROGRESS)
    proof = hmac.new(password.encode(), challenge.sasl, "md5").hexdigest()
    return client.ask(sasl_bind(client.number(), MECHANISM, f"{user} {proof}".encode()))


def test_sasl_is_relayed_where_it_is_configured(setting: Setting, seen: Relay) -> None:
    """Row 25: for an exempt identity, as the directory confirms it; no other mechanism."""
    with setting.door.client(SASL) as client:
        assert cram(client, "svc", PASSWORDS[SERVICE]).code == SUCCESS
        assert client.whoami() == f"dn:{SERVICE}"
        assert len(client.search(BASE, scope=2)) > 400
        assert client.ask(sasl_bind(50, "DIGEST-MD5")).code == AUTH_METHOD_NOT_SUPPORTED
        assert client.whoami() == ""
    with setting.door.client() as client:
        assert client.ask(sasl_bind(51, MECHANISM)).code == AUTH_METHOD_NOT_SUPPORTED


def test_sasl_lets_nobody_in_who_needs_a_code(setting: Setting, seen: Relay, person: Person) -> None:
    """Row 25: the directory has let the user in; we have not, and the session is nobody's on both sides."""
    with setting.door.client(SASL) as client:
        assert cram(client, person.name, password_of(person.name)).code == INVALID_CREDENTIALS
        assert client.whoami() == ""
        assert len(client.search(BASE, scope=2)) == 1
        assert cram(client, "svc", "wrong").code == INVALID_CREDENTIALS
        assert client.whoami() == ""


def test_between_the_steps_of_sasl_somebody_is_nobody(setting: Setting, seen: Relay, person: Person) -> None:
    """Also who was bound before; and another bind ends the steps (RFC 4511 section 4.2.1)."""
    with setting.door.client(SASL) as client:
        assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
        assert client.ask(sasl_bind(60, MECHANISM)).code == SASL_BIND_IN_PROGRESS
        client.send(search(61, BASE, scope=2), modify(62, BASE, "o", "mine"), extended(63, "1.3.6.1.4.1.4203.1.11.3"))
        answers = [client.receive() for _ in range(3)]
        assert not [one for one in answers if one.tag == 0x64]
        assert {one.number for one in answers} == {61, 62, 63}
        assert answers[1].code != SUCCESS
        assert client.bind(dn_of(person.name), full(person)).code == SUCCESS
        assert client.whoami() == f"dn:{dn_of(person.name)}"


def test_name_is_read_from_the_entry(template: Mfad, setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> None:
    """``mapping: attribute``: the code is that of the uid, whatever the DN; also after a look-up that is kept."""
    user = {"mapping": "attribute", "attribute": "uid", "base_dn": PEOPLE}
    with by_mapping(template, setting, tmp_path_factory, user) as door:
        person = door.person(NAMED)
        with door.client() as client:
            assert client.bind(BY_NAME, PASSWORDS[BY_NAME]).code == INVALID_CREDENTIALS
            code = person.next_code()
            assert client.bind(BY_NAME, f"{PASSWORDS[BY_NAME]},{code}").code == SUCCESS
            assert client.whoami() == f"dn:{BY_NAME}"
            assert client.bind(dn_of(NAMED), f"{password_of(NAMED)},{code}").code == INVALID_CREDENTIALS, "the same person"
            assert client.bind(dn_of(NAMED), f"{password_of(NAMED)},{person.next_code()}").code == SUCCESS
            assert client.bind(SERVICE, f"{PASSWORDS[SERVICE]},123456").code == INVALID_CREDENTIALS, "no uid, no user"
        assert door.wait_for_bind(dn=BY_NAME, outcome="accepted")["user"] == NAMED


def test_name_is_read_by_a_pattern(template: Mfad, setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> None:
    """``mapping: pattern`` over the normalised DN, and over the whole of it."""
    user = {"mapping": "pattern", "pattern": f"uid=(?P<user>person[0-9]+),{PEOPLE}"}
    with by_mapping(template, setting, tmp_path_factory, user) as door, door.client() as client:
        person = door.person(NAMED)
        code = person.next_code()
        for dn in (BY_NAME, f"ou=x,{dn_of(NAMED)}", f"{dn_of(NAMED)},dc=more"):
            assert client.bind(dn, f"{PASSWORDS[BY_NAME]},{code}").code == INVALID_CREDENTIALS
        dn = f"UID={NAMED.upper()} , OU=people, DC=example,DC=org"
        assert client.bind(dn, f"{password_of(NAMED)},{code}").code == SUCCESS


def by_mapping(
    template: Mfad, setting: Setting, tmp_path_factory: pytest.TempPathFactory, user: dict[str, object]
) -> AbstractContextManager[LdapDoor]:
    """A door with another mapping, in front of the same directory."""
    return ldap_door(template, tmp_path_factory.mktemp("door"), [setting.relay.url], people=391, door={"user": user})
