"""What does the door answer to binds, and what does the directory see of them? Numbers are the rows of CASES-ldap.md."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.ldap_directory import (
    ADMIN,
    BASE,
    COMMAS_PASSWORD,
    EXPIRED,
    IN_GROUP,
    IN_SUBTREE,
    PASSWORDS,
    PEOPLE,
    SERVICE,
    TAIL_PASSWORD,
    WITH_CODE_SHAPE,
    dn_of,
    password_of,
)
from tests.end_to_end.ldap_door import Setting, full, ldap_setting
from tests.end_to_end.ldap_relay import Relay
from tests.end_to_end.ldap_wire import (
    AUTH_METHOD_NOT_SUPPORTED,
    BIND_REQUEST,
    INAPPROPRIATE_AUTHENTICATION,
    INSUFFICIENT_ACCESS,
    INVALID_CREDENTIALS,
    PROTOCOL_ERROR,
    SUCCESS,
    UNAVAILABLE_CRITICAL_EXTENSION,
    UNWILLING_TO_PERFORM,
    Client,
    bind,
    control,
    modify,
    sasl_bind,
)

DENIED = "127.0.3.2"
"""An application whose anonymous sessions may do nothing."""
TEXTS = "127.0.3.3"
"""One that is told why in Active Directory's words."""
REFUSAL = "80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data 52e, v3839"
PPOLICY = "1.3.6.1.4.1.42.2.27.8.5.1"
UNKNOWN_CONTROL = "1.2.3.4.5.6.7.8"


@pytest.fixture(scope="module")
def setting(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    applications = [
        {"name": "denied", "network": DENIED, "anonymous": "deny"},
        {"name": "texts", "network": TEXTS, "refusal_text": REFUSAL},
    ]
    with ldap_setting(template, tmp_path_factory.mktemp("ldap"), door={"applications": applications}) as one:
        yield one


@pytest.fixture
def seen(setting: Setting) -> Relay:
    """What the directory sees in this test."""
    return setting.relay.forget()


@pytest.fixture
def person(setting: Setting) -> Person:
    return setting.door.person()


def test_password_and_code_are_good_once(setting: Setting, seen: Relay, person: Person) -> None:
    """Rows 1, 4. The directory sees the password alone, and the session is that of the user."""
    typed = full(person)
    with setting.door.client() as client:
        answer = client.bind(dn_of(person.name), typed)
        assert answer.code == SUCCESS
        assert client.whoami() == f"dn:{dn_of(person.name)}"
        assert [one.name for one in client.search(dn_of(person.name))[:-1]] == [dn_of(person.name)]
    assert seen.binds() == [(dn_of(person.name), password_of(person.name).encode())]

    for source in ("", "127.0.0.9"):
        with setting.door.client(source) as client:
            assert client.bind(dn_of(person.name), typed).code == INVALID_CREDENTIALS
            assert client.whoami() == ""


def test_response_of_a_good_bind_is_the_directorys_own(setting: Setting, person: Person) -> None:
    """Row 1: octet by octet."""
    with setting.door.client() as client:
        mine = client.bind(dn_of(person.name), full(person))
    with Client(setting.straight) as client:
        assert client.bind(dn_of(person.name), password_of(person.name)).octets == mine.octets


@pytest.mark.parametrize("what", ["no code", "wrong code", "wrong password", "both wrong", "unknown", "no token"])
def test_refusals_are_alike(setting: Setting, person: Person, what: str) -> None:
    """Row 2: the octets of the directory's own refusal, whatever was wrong."""
    dn, password, right = dn_of(person.name), password_of(person.name), person.next_code()
    typed = {
        "no code": password,
        "wrong code": f"{password},{person.wrong_code()}",
        "wrong password": f"wrong,{right}",
        "both wrong": f"wrong,{person.wrong_code()}",
        "unknown": f"{password},{right}",
        "no token": f"{password_of('tokenless')},{right}",
    }[what]
    dn = {"unknown": dn_of("nobody-of-that-name"), "no token": dn_of("tokenless")}.get(what, dn)
    with Client(setting.straight) as client:
        expected = client.bind(dn, "wrong")
    with setting.door.client() as client:
        refused = client.bind(dn, typed)

        assert refused.code == INVALID_CREDENTIALS
        assert refused.octets == expected.octets
        assert client.whoami() == ""


def test_wrong_password_spends_no_code(setting: Setting, person: Person) -> None:
    """Row 3."""
    code = person.next_code()
    with setting.door.client() as client:
        assert client.bind(dn_of(person.name), f"wrong,{code}").code == INVALID_CREDENTIALS
        assert client.bind(dn_of(person.name), f"{password_of(person.name)},{code}").code == SUCCESS


@pytest.mark.parametrize(("step", "expected"), [(-3, INVALID_CREDENTIALS), (-1, SUCCESS), (0, SUCCESS), (1, SUCCESS)])
def test_window_is_one_step(setting: Setting, step: int, expected: int) -> None:
    """Row 5."""
    while True:
        person, now = setting.door.person(), int(time.time()) // 30
        with setting.door.client() as client:
            code = client.bind(dn_of(person.name), f"{password_of(person.name)},{person.code_at(now + step)}").code
        if int(time.time()) // 30 == now:
            break
    assert code == expected


def test_one_code_in_many_hands_is_good_once(setting: Setting, person: Person) -> None:
    """Row 6."""
    typed, count = full(person), 6
    together = threading.Barrier(count)
    codes: list[int] = []

    def come() -> None:
        with setting.door.client() as client:
            together.wait()
            codes.append(client.bind(dn_of(person.name), typed).code)

    threads = [threading.Thread(target=come) for _ in range(count)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert sorted(codes) == [SUCCESS] + [INVALID_CREDENTIALS] * (count - 1)


@pytest.mark.parametrize(("name", "digits"), [("eight", 8), ("seven", 7)])
def test_codes_of_other_lengths(setting: Setting, seen: Relay, name: str, digits: int) -> None:
    """Row 7."""
    person = setting.door.person(name)
    code = person.next_code()
    assert len(code) == digits
    with setting.door.client() as client:
        assert client.bind(dn_of(name), f"{password_of(name)},{code[-6:]}").code == INVALID_CREDENTIALS
        assert client.bind(dn_of(name), f"{password_of(name)},{code}").code == SUCCESS
    assert seen.binds()[-1] == (dn_of(name), password_of(name).encode())


def test_separators_in_the_password(setting: Setting, seen: Relay) -> None:
    """Row 8: the last one counts."""
    person = setting.door.person("commas")
    with setting.door.client() as client:
        assert client.bind(dn_of("commas"), f"{COMMAS_PASSWORD},{person.next_code()}").code == SUCCESS
    assert seen.binds() == [(dn_of("commas"), COMMAS_PASSWORD.encode())]


def test_password_that_looks_like_one_with_a_code(setting: Setting, seen: Relay) -> None:
    """Row 8: the policy exempts somebody, whose password is not taken apart."""
    with setting.door.client() as client:
        assert client.bind(dn_of(WITH_CODE_SHAPE), TAIL_PASSWORD).code == SUCCESS
    assert seen.binds() == [(dn_of(WITH_CODE_SHAPE), TAIL_PASSWORD.encode())]


def test_half_of_it_is_not_asked_about(setting: Setting, seen: Relay, person: Person) -> None:
    """Row 9: no password is no bind; no code is none either."""
    with setting.door.client() as client:
        for typed in (f",{person.next_code()}", f"{password_of(person.name)},", ","):
            assert client.bind(dn_of(person.name), typed).code == INVALID_CREDENTIALS
            assert client.whoami() == ""
    assert not [one for one in seen.binds() if one[1] in {b"", b","}]
    assert (dn_of(person.name), b"") not in seen.binds()


@pytest.mark.parametrize("dn", [dn_of("person1000"), SERVICE, f"cn=unknown,{BASE}", "no dn at all"])
def test_unauthenticated_bind_does_not_reach_the_directory(setting: Setting, seen: Relay, dn: str) -> None:
    """Row 10 (RFC 4513 section 5.1.2)."""
    with setting.door.client() as client:
        assert client.bind(dn, "").code == UNWILLING_TO_PERFORM
        assert client.whoami() == ""
    assert seen.binds() == []


def test_anonymous_bind(setting: Setting) -> None:
    """Row 11: allowed."""
    with setting.door.client() as client:
        assert client.bind("", "").code == SUCCESS
        assert client.whoami() == ""
        assert [one.code for one in client.search(BASE, scope=2)] == [SUCCESS]
        assert client.bind("", "secret").code == INVALID_CREDENTIALS


def test_anonymous_sessions_can_be_denied(setting: Setting, seen: Relay, person: Person) -> None:
    """Row 11: denied. The root DSE is for everybody, and a bind changes it."""
    with setting.door.client(DENIED) as client:
        assert client.bind("", "").code == INAPPROPRIATE_AUTHENTICATION
        assert [one.code for one in client.search(BASE, scope=2)] == [INSUFFICIENT_ACCESS]
        assert client.search("")[-1].code == SUCCESS
        assert seen.binds() == []
        assert client.bind(dn_of(person.name), full(person)).code == SUCCESS
        assert len(client.search(BASE, scope=2)) > 10


@pytest.mark.parametrize("dn", [SERVICE, "CN=svc, DC=Example, DC=org", r"cn=\73vc,dc=example,dc=org", "2.5.4.3=svc," + BASE])
def test_exempt_dn_in_any_spelling(setting: Setting, seen: Relay, dn: str) -> None:
    """Row 12. The directory sees the DN as it was written, and the whole password."""
    with setting.door.client() as client:
        assert client.bind(dn, PASSWORDS[SERVICE]).code == SUCCESS
        assert client.whoami() == f"dn:{SERVICE}"
        assert len(client.search(BASE, scope=2)) > 10
    assert seen.binds() == [(dn, PASSWORDS[SERVICE].encode())]


@pytest.mark.parametrize("dn", [IN_SUBTREE, IN_GROUP])
def test_exempt_subtree_and_group(setting: Setting, dn: str) -> None:
    """Row 14."""
    with setting.door.client() as client:
        assert client.bind(dn, PASSWORDS[dn]).code == SUCCESS
        assert client.whoami() == f"dn:{dn}"
        assert client.bind(dn, "wrong").code == INVALID_CREDENTIALS
        assert client.whoami() == ""


def test_exempt_is_who_the_directory_says(setting: Setting, person: Person) -> None:
    """Row 12: nobody is exempt by a spelling that only resembles an exempt one."""
    for dn in (f"cn=svc+uid={person.name},{BASE}", f"uid={person.name},{PEOPLE}\\,{SERVICE}", f"uid={person.name},ou=people"):
        with setting.door.client() as client:
            assert client.bind(dn, password_of(person.name)).code != SUCCESS
            assert client.whoami() == ""


@pytest.mark.parametrize("spelling", ["uid={0}, ou=People,DC=example,dc=ORG", "UID=\\70{1},ou=people,dc=example,dc=org"])
def test_other_spelling_of_a_user_is_the_user(setting: Setting, person: Person, spelling: str) -> None:
    """Pitfall 7: a code is wanted however the DN is written, and it is the code of the user."""
    dn = spelling.format(person.name.upper() if "{0}" in spelling else person.name, person.name[1:])
    with setting.door.client() as client:
        assert client.bind(dn, password_of(person.name)).code == INVALID_CREDENTIALS
        code = person.next_code()
        assert client.bind(dn, f"{password_of(person.name)},{code}").code == SUCCESS
        assert client.whoami() == f"dn:{dn_of(person.name)}"
        assert client.bind(dn_of(person.name), f"{password_of(person.name)},{code}").code == INVALID_CREDENTIALS


@pytest.mark.parametrize("version", [1, 2, 4, 127])
def test_other_versions(setting: Setting, seen: Relay, version: int) -> None:
    """Row 24."""
    with setting.door.client() as client:
        assert client.bind(SERVICE, PASSWORDS[SERVICE], version=version).code == PROTOCOL_ERROR
        assert client.whoami() == ""
    assert seen.binds() == []


@pytest.mark.parametrize("mechanism", ["PLAIN", "EXTERNAL", "GSSAPI", "SCRAM-SHA-256", "GSS-SPNEGO", "", "x" * 300])
@pytest.mark.parametrize("credentials", [None, b"", f"\0{SERVICE}\0{PASSWORDS[SERVICE]}".encode()])
def test_sasl_is_no_way_round(setting: Setting, seen: Relay, mechanism: str, credentials: bytes | None) -> None:
    """Row 25: the directory hears nothing, and the session is anonymous afterwards."""
    with setting.door.client() as client:
        assert client.bind(SERVICE, PASSWORDS[SERVICE]).code == SUCCESS
        answer = client.ask(sasl_bind(client.number(), mechanism, credentials))
        assert answer.code == AUTH_METHOD_NOT_SUPPORTED
        assert client.whoami() == ""
    assert len(seen.requests(BIND_REQUEST)) == 1


def test_critical_control_that_nobody_knows(setting: Setting, person: Person) -> None:
    """Row 27: on a bind and on a search; a bind's stands inside its message also when this is made anew."""
    unknown = control(UNKNOWN_CONTROL, critical=True)
    with setting.door.client() as client:
        answer = client.bind(dn_of(person.name), full(person), controls=unknown)
        assert answer.code == UNAVAILABLE_CRITICAL_EXTENSION
        assert client.whoami() == ""
        assert client.bind(SERVICE, PASSWORDS[SERVICE], controls=unknown).code == UNAVAILABLE_CRITICAL_EXTENSION
        assert client.bind(SERVICE, PASSWORDS[SERVICE], controls=control(UNKNOWN_CONTROL)).code == SUCCESS
        assert client.search(BASE, controls=unknown)[-1].code == UNAVAILABLE_CRITICAL_EXTENSION


def test_controls_of_a_bind_come_and_go_unchanged(setting: Setting, person: Person) -> None:
    """Row 28: the password policy control (draft-behera-ldap-password-policy), on success and on refusal."""
    asked = control(PPOLICY)
    with Client(setting.straight) as client:
        good = client.bind(dn_of(person.name), password_of(person.name), controls=asked)
        bad = client.bind(dn_of(person.name), "wrong", controls=asked)
    with setting.door.client() as client:
        assert client.bind(dn_of(person.name), full(person), controls=asked).octets == good.octets
        assert client.bind(dn_of(person.name), f"wrong,{person.next_code()}", controls=asked).octets == bad.octets
    assert PPOLICY.encode() in good.controls


def test_expired_password(setting: Setting) -> None:
    """Row 28: the directory's own octets; and a session that is anonymous, although slapd thinks otherwise.

    OpenLDAP's password policy turns a bind that has succeeded into a refusal: the connection stays bound (2.5.13). Whoever got
    there has shown no code.
    """
    person, asked = setting.door.person("expired"), control(PPOLICY)
    with Client(setting.straight) as client:
        expected = client.bind(EXPIRED, PASSWORDS[EXPIRED], controls=asked)
        assert expected.code == INVALID_CREDENTIALS
        assert client.whoami() == f"dn:{EXPIRED}", "this slapd is better: the test may be weaker"
    for typed in (f"{PASSWORDS[EXPIRED]},{person.next_code()}", f"{PASSWORDS[EXPIRED]},{person.wrong_code()}"):
        with setting.door.client() as client:
            answer = client.bind(EXPIRED, typed, controls=asked)
            assert answer.octets == expected.octets
            assert client.whoami() == ""
            assert len(client.search(BASE, scope=2)) == 1


def test_refusal_has_the_text_that_is_configured(setting: Setting, person: Person) -> None:
    """Row 51: Active Directory's words, for applications that read them."""
    with setting.door.client(TEXTS) as client:
        answer = client.bind(dn_of(person.name), f"{password_of(person.name)},{person.wrong_code()}")
        assert (answer.code, answer.text) == (INVALID_CREDENTIALS, REFUSAL)
        answer = client.bind(dn_of(person.name), f"wrong,{person.next_code()}")
        assert (answer.code, answer.text) == (INVALID_CREDENTIALS, "")


def test_failure_is_not_kept(setting: Setting, person: Person) -> None:
    """Row 50: the very text that was refused is good as soon as the directory takes its password."""
    typed = f"the new password of {person.name},{person.next_code()}"
    with setting.door.client() as client, Client(setting.straight) as admin:
        assert client.bind(dn_of(person.name), typed).code == INVALID_CREDENTIALS
        assert admin.bind(ADMIN, PASSWORDS[ADMIN]).code == SUCCESS
        new = typed.rpartition(",")[0]
        assert admin.ask(modify(admin.number(), dn_of(person.name), "userPassword", new)).code == SUCCESS
        assert client.bind(dn_of(person.name), typed).code == SUCCESS


def test_two_binds_in_one_segment_are_both_answered(setting: Setting, person: Person) -> None:
    """In their order; the second one counts."""
    with setting.door.client() as client:
        client.send(
            bind(1, dn_of(person.name), full(person)),
            bind(2, SERVICE, PASSWORDS[SERVICE]),
            bind(3, SERVICE, "wrong"),
            bind(4, SERVICE, PASSWORDS[SERVICE]),
        )
        answers = [client.receive() for _ in range(4)]
        assert [(one.number, one.code) for one in answers] == [
            (1, SUCCESS),
            (2, SUCCESS),
            (3, INVALID_CREDENTIALS),
            (4, SUCCESS),
        ]
        assert client.whoami() == f"dn:{SERVICE}"
