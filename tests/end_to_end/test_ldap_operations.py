"""Can an application tell the door from the directory? OpenLDAP's tools, with the same question to both."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.ldap_directory import (
    ADMIN,
    BASE,
    ELSEWHERE,
    EXEMPT_GROUP,
    GROUPS,
    PASSWORDS,
    PEOPLE,
    SERVICE,
    THING_COUNT,
    THINGS,
    dn_of,
    password_of,
)
from tests.end_to_end.ldap_door import Setting, full, ldap_setting
from tests.end_to_end.ldap_programs import Said, as_who, ldif, tool
from tests.end_to_end.ldap_relay import Relay
from tests.end_to_end.ldap_wire import (
    CANCEL,
    COMPARE_FALSE,
    COMPARE_RESPONSE,
    COMPARE_TRUE,
    EXTENDED_RESPONSE,
    INTERMEDIATE_RESPONSE,
    MODIFY_RESPONSE,
    REFERRAL,
    SEARCH_DONE,
    SEARCH_ENTRY,
    SEARCH_REFERENCE,
    SUCCESS,
    UNWILLING_TO_PERFORM,
    Client,
    abandon,
    compare,
    control,
    extended,
    integer,
    modify,
    search,
    tlv,
)
from tests.end_to_end.programs import must_have

COMPARING = "127.0.4.2"
"""An application that may compare passwords."""
SYNC_REQUEST = "1.3.6.1.4.1.4203.1.9.1.1"
CANCELED = 118


@pytest.fixture(scope="module")
def setting(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    must_have("ldapsearch", "ldapwhoami", "ldappasswd", "ldapmodify", "ldapcompare", "ldapadd", "ldapdelete", "ldapmodrdn")
    applications = [{"name": "comparing", "network": COMPARING, "compare_password": True}]
    with ldap_setting(template, tmp_path_factory.mktemp("ldap"), door={"applications": applications}) as one:
        yield one


@pytest.fixture
def seen(setting: Setting) -> Relay:
    """What the directory sees in this test."""
    return setting.relay.forget()


@pytest.fixture
def person(setting: Setting) -> Person:
    return setting.door.person()


SEARCHES = {
    "one entry": ["-b", EXEMPT_GROUP, "-s", "base"],
    "everything": ["-b", BASE, "*", "+"],
    "filter": ["-b", BASE, "(&(objectClass=device)(|(serialNumber>=50)(cn=*1*))(!(cn=thing03)))"],
    "names only": ["-b", BASE, "-A", "(uid=person10*)"],
    "nothing found": ["-b", BASE, "(cn=nobody at all)"],
    "no such base": ["-b", f"ou=nowhere,{BASE}"],
    "broken filter value": ["-b", BASE, "(objectClass=\\28\\29\\00\\ff)"],
    "size limit": ["-b", BASE, "-z", "7"],
    "dereferencing": ["-b", BASE, "-a", "always", "(objectClass=groupOfNames)"],
    "paged": ["-b", BASE, "-E", "pr=100/noprompt"],
    "paged, two at once": ["-b", THINGS, "-E", "pr=2/noprompt"],
    "paged, critical": ["-b", THINGS, "-E", "!pr=7/noprompt"],
    "sorted": ["-b", THINGS, "-E", "sss=serialNumber:2.5.13.3"],
    "sorted backwards": ["-b", THINGS, "-E", "!sss=-serialNumber:2.5.13.3"],
    "virtual list view": ["-b", THINGS, "-s", "one", "-E", "sss=serialNumber:2.5.13.3", "-E", "vlv=2/2/5/0"],
    "virtual list view by value": ["-b", THINGS, "-s", "one", "-E", "sss=serialNumber:2.5.13.3", "-E", "vlv=1/3:42"],
    "dereference control": ["-b", GROUPS, "-E", "deref=member:uid,sn"],
    "synchronisation": ["-b", THINGS, "-E", "sync=ro"],
    "subentries": ["-b", BASE, "-E", "subentries=true"],
    "manage DSA IT": ["-b", BASE, "-MM", "(objectClass=referral)"],
    "assertion that fails": ["-b", BASE, "-e", "!assert=(o=other)"],
    "matched values": ["-b", EXEMPT_GROUP, "-E", "mv=((member=cn=*))"],
    "search reference": ["-b", BASE, "(objectClass=organizationalUnit)"],
    "referral": ["-b", f"cn=x,{ELSEWHERE}"],
    "root DSE": ["-b", "", "-s", "base", "*", "+"],
    "schema": ["-b", "cn=Subschema", "-s", "base", "+"],
}


BUSY = 51
"""slapd's list view, for a moment after the last one was closed."""
BUSY_TRIES = 100


@pytest.mark.parametrize("what", SEARCHES)
def test_search_is_identical_to_direct(setting: Setting, what: str) -> None:
    """Rows 29, 30: what ldapsearch prints, and its exit status."""
    arguments = ["-LLL", *SEARCHES[what]] if "pr=" in " ".join(SEARCHES[what]) else SEARCHES[what]

    said: list[Said] = []
    for url in (setting.directory.url, setting.door.url):
        for _ in range(BUSY_TRIES):
            found = tool("ldapsearch", *as_who(url, SERVICE, PASSWORDS[SERVICE]), "-o", "ldif-wrap=no", *arguments)
            if found.status != BUSY:
                break
        said.append(found)

    assert said[1].status == said[0].status
    assert _without_context(said[1].screen) == _without_context(said[0].screen)
    assert said[0].screen


def _without_context(screen: str) -> str:
    """slapd's context of a virtual list view is an address in its memory; the control that carries it is told too."""
    return re.sub(r"(?m)^(control: 2\.16\.840\.1\.113730\.3\.4\.10 .*|(vlvResult: .*)context=\S+)", r"\2", screen)


def test_user_finds_what_the_user_finds(setting: Setting, person: Person) -> None:
    """With a code, and a search behind it."""
    arguments = ["-b", BASE, "-o", "ldif-wrap=no"]
    direct = tool("ldapsearch", *as_who(setting.directory.url, dn_of(person.name), password_of(person.name)), *arguments)
    mine = tool("ldapsearch", *as_who(setting.door.url, dn_of(person.name), full(person)), *arguments)

    assert (mine.status, ldif(mine.output)) == (direct.status, ldif(direct.output))
    assert mine.output.count("\nuserPassword::") == 1, "his own"
    assert mine.output.count("\ndn: ") > 400


def test_anonymous_search_finds_nothing(setting: Setting) -> None:
    said = tool("ldapsearch", *as_who(setting.door.url), "-b", BASE)

    assert (said.status, "numEntries" in said.output) == (0, False)


def test_ldapwhoami(setting: Setting, person: Person) -> None:
    """Row 1, with OpenLDAP's own client."""
    good = tool("ldapwhoami", *as_who(setting.door.url, dn_of(person.name), full(person)))
    bad = tool("ldapwhoami", *as_who(setting.door.url, dn_of(person.name), password_of(person.name)))

    assert (good.status, good.output) == (SUCCESS, f"dn:{dn_of(person.name)}\n")
    assert (bad.status, bad.screen) == (49, "ldap_bind: Invalid credentials (49)\n")


@pytest.mark.parametrize(("value", "expected"), [("example", COMPARE_TRUE), ("other", COMPARE_FALSE)])
def test_ldapcompare(setting: Setting, value: str, expected: int) -> None:
    """Row 31."""
    said = [
        tool("ldapcompare", *as_who(url, SERVICE, PASSWORDS[SERVICE]), BASE, f"o:{value}")
        for url in (setting.directory.url, setting.door.url)
    ]

    assert said[1] == said[0]
    assert said[1].status == expected


@pytest.mark.parametrize("attribute", ["userPassword", "USERPASSWORD", "2.5.4.35", "userPassword;x-option"])
def test_passwords_cannot_be_compared(setting: Setting, seen: Relay, attribute: str) -> None:
    """Row 31: it would be a bind without a code."""
    with setting.door.client() as client:
        assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
        answer = client.ask(compare(9, SERVICE, attribute, PASSWORDS[SERVICE]))
        assert (answer.tag, answer.number, answer.code) == (COMPARE_RESPONSE, 9, UNWILLING_TO_PERFORM)
    assert attribute.encode() not in seen.sent()


def test_passwords_can_be_compared_where_that_is_allowed(setting: Setting) -> None:
    """Row 31."""
    with setting.door.client(COMPARING) as client:
        assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
        answer = client.ask(compare(9, SERVICE, "userPassword", PASSWORDS[SERVICE]))
        assert answer.code != UNWILLING_TO_PERFORM


def test_add_modify_rename_delete(setting: Setting) -> None:
    """Row 32, as the administrator."""
    who = as_who(setting.door.url, ADMIN, PASSWORDS[ADMIN])
    dn = f"cn=printer,{THINGS}"

    added = tool("ldapadd", *who, stdin=f"dn: {dn}\nobjectClass: device\ncn: printer\n")
    assert added.status == SUCCESS, added.screen
    assert tool("ldapadd", *who, stdin=f"dn: {dn}\nobjectClass: device\ncn: printer\n").status == 68
    changed = tool("ldapmodify", *who, stdin=f"dn: {dn}\nchangetype: modify\nadd: description\ndescription:: w6TDtsO8\n")
    assert changed.status == SUCCESS, changed.screen
    assert tool("ldapmodrdn", *who, "-r", dn, "cn=plotter").status == SUCCESS
    found = tool("ldapsearch", *as_who(setting.directory.url, SERVICE, PASSWORDS[SERVICE]), "-LLL", "-b", THINGS, "cn=plotter")
    assert f"dn: cn=plotter,{THINGS}" in found.output
    assert "description:: w6TDtsO8" in found.output
    assert tool("ldapdelete", *who, f"cn=plotter,{THINGS}").status == SUCCESS
    assert tool("ldapdelete", *who, f"cn=plotter,{THINGS}").status == 32


def test_user_may_not_write(setting: Setting, person: Person) -> None:
    """The directory's own refusal."""
    who = as_who(setting.door.url, dn_of(person.name), full(person))
    said = tool("ldapmodify", *who, stdin=f"dn: {BASE}\nchangetype: modify\nreplace: o\no: mine\n")

    assert said.status == 50


def test_ldappasswd_of_oneself(setting: Setting, person: Person) -> None:
    """Row 33 (RFC 3062). The next bind takes the new password."""
    old, new = password_of(person.name), f"the next of {person.name}"
    changed = tool("ldappasswd", *as_who(setting.door.url, dn_of(person.name), full(person)), "-a", old, "-s", new)
    assert changed.status == SUCCESS, changed.screen

    said = tool("ldapwhoami", *as_who(setting.door.url, dn_of(person.name), f"{new},{person.next_code()}"))
    assert said.output == f"dn:{dn_of(person.name)}\n"


def test_ldappasswd_of_nobody(setting: Setting, seen: Relay, person: Person) -> None:
    """Row 33: it checks a password, and is no way round for somebody who is not bound."""
    who = as_who(setting.door.url)
    said = tool("ldappasswd", *who, "-a", password_of(person.name), "-s", "stolen", dn_of(person.name))

    assert said.status != SUCCESS
    assert b"stolen" not in seen.sent()


def test_referral_and_search_reference_are_octets(setting: Setting) -> None:
    """Row 30."""
    answers = []
    for client in (Client(setting.straight), setting.door.client()):
        with client:
            assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
            answers.append([*client.search(ELSEWHERE), *client.search(BASE, scope=2)])
    assert [one.octets for one in answers[1]] == [one.octets for one in answers[0]]
    assert answers[1][0].code == REFERRAL
    assert SEARCH_REFERENCE in {one.tag for one in answers[1]}


def test_intermediate_responses_pass(setting: Setting) -> None:
    """Row 30: a search that does not end (RFC 4533), a change that is told in it, and an abandon that ends it."""
    persistent = control(SYNC_REQUEST, tlv(0x30, integer(3, 0x0A)), critical=True)
    with setting.door.client() as client, setting.door.client() as admin:
        assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
        assert admin.bind(ADMIN, PASSWORDS[ADMIN]).code == SUCCESS
        client.send(search(20, THINGS, scope=1, controls=persistent))
        entries = client.until(INTERMEDIATE_RESPONSE, 20)
        assert len(entries) == THING_COUNT + 1
        assert admin.ask(modify(9, f"cn=thing00,{THINGS}", "description", "changed")).code == SUCCESS
        told = client.receive()
        assert (told.tag, told.number, told.name) == (SEARCH_ENTRY, 20, f"cn=thing00,{THINGS}")
        client.send(abandon(21, 20))
        assert client.search(THINGS)[-1].code == SUCCESS


def test_cancel(setting: Setting) -> None:
    """RFC 3909, of a search that would not end."""
    persistent = control(SYNC_REQUEST, tlv(0x30, integer(3, 0x0A)), critical=True)
    with setting.door.client() as client:
        assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
        client.send(search(20, THINGS, scope=1, controls=persistent))
        client.until(INTERMEDIATE_RESPONSE, 20)
        client.send(extended(21, CANCEL, tlv(0x30, integer(20))))
        codes = {(one.tag, one.number): one.code for one in (client.receive(), client.receive())}
        assert codes == {(SEARCH_DONE, 20): CANCELED, (EXTENDED_RESPONSE, 21): SUCCESS}


def test_operations_side_by_side(setting: Setting) -> None:
    """Answers of many outstanding operations come to whom they belong, large ones too."""
    with setting.door.client() as client:
        assert client.bind(ADMIN, PASSWORDS[ADMIN]).code == SUCCESS
        numbers = range(100, 140)
        client.send(
            *(search(one, BASE, scope=2) for one in numbers), modify(999, f"cn=thing01,{THINGS}", "description", "x" * 50_000)
        )
        counted = dict.fromkeys([*numbers, 999], 0)
        done = 0
        while done < len(numbers) + 1:
            one = client.receive()
            counted[one.number] += one.tag == SEARCH_ENTRY
            done += one.tag in {SEARCH_DONE, MODIFY_RESPONSE}
        assert {counted[one] for one in numbers} == {counted[numbers[0]]}
        assert counted[numbers[0]] > 400
        assert counted[999] == 0


def test_search_for_people_only_is_the_users_right(setting: Setting, person: Person) -> None:
    """A DN's search with a bind of the same connection, as nslcd does."""
    with setting.door.client() as client:
        assert client.bind(dn_of(person.name), full(person)).code == SUCCESS
        assert client.search(PEOPLE, scope=0)[0].name == PEOPLE
