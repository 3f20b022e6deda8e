"""How does a test get a directory with something in it: people, services, groups, an administrator, overlays, referrals?

Who may read tells who is bound: a search of an anonymous session succeeds with no entry, anybody else's finds some.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.end_to_end.daemon import CROWD
from tests.end_to_end.radius_certificates import Certificate
from tests.end_to_end.slapd import BASE, PEOPLE, Slapd, person

ADMIN = f"cn=admin,{BASE}"
SERVICE = f"cn=svc,{BASE}"
SERVICES = f"ou=services,{BASE}"
IN_SUBTREE = f"cn=jenkins,{SERVICES}"
GROUPS = f"ou=groups,{BASE}"
EXEMPT_GROUP = f"cn=exempt,{GROUPS}"
IN_GROUP = f"uid=grouped,{PEOPLE}"
THINGS = f"ou=things,{BASE}"
THING_COUNT = 25
ELSEWHERE = f"ou=elsewhere,{BASE}"
EXPIRED = f"uid=expired,{PEOPLE}"
BY_NAME, NAMED = f"cn=By Name,{PEOPLE}", "person1390"
"""An entry whose DN does not hold its uid, and the uid, which is another entry's RDN."""
WITH_CODE_SHAPE = "tail"
"""Somebody without an authenticator whose password ends as if a code stood in it. ``tokenless`` has none either."""
TAIL_PASSWORD, COMMAS_PASSWORD = "half of it,123456", "a,b,c"
NUMBER_OF_PEOPLE = 400
PASSWORDS = {
    ADMIN: "the administrator's",
    SERVICE: "the application's own",
    IN_SUBTREE: "of a service in a subtree",
    IN_GROUP: "of somebody in a group",
    EXPIRED: "of somebody who was away",
    BY_NAME: "of somebody with another DN",
}
"""Of those who are known by name. The crowd's are :func:`password_of`."""

ACCESS = f"""
maxsize 268435456
access to attrs=userPassword by dn.exact="{ADMIN}" write by self write by anonymous auth by * none
access to * by dn.exact="{ADMIN}" write by users read by anonymous search
"""
OVERLAYS = f"""
overlay ppolicy
ppolicy_default "cn=policy,{BASE}"
overlay sssvlv
sssvlv-max 64
overlay deref
overlay syncprov
"""
MODULES = "moduleload ppolicy\nmoduleload sssvlv\nmoduleload deref\nmoduleload syncprov\nmoduleload memberof\nsizelimit 2000"


def password_of(name: str) -> str:
    """The first factor of somebody of the crowd."""
    return f"pw-{name}-q"


def dn_of(name: str) -> str:
    return f"uid={name},{PEOPLE}"


def crowd() -> dict[str, str]:
    """Names and passwords of all people."""
    names = [f"{CROWD}{number}" for number in range(1000, 1000 + NUMBER_OF_PEOPLE)]
    usual = {name: password_of(name) for name in [*names, "eight", "seven", "tokenless"]}
    return {**usual, "commas": COMMAS_PASSWORD, WITH_CODE_SHAPE: TAIL_PASSWORD}


def directory(
    place: Path, *, certificate: Certificate | None = None, ca: Path | None = None, more: str = "", people: bool = True
) -> Slapd:
    """A slapd in ``place`` with all of this in it, not started."""
    return Slapd(
        place,
        crowd() if people else {},
        certificate=certificate,
        ca=ca,
        ldif="\n".join(_entries()),
        more=f"{MODULES}\n{more}",
        access=ACCESS,
        overlays=OVERLAYS,
    )


def _entries() -> Iterable[str]:
    yield _account(ADMIN)
    yield _account(SERVICE)
    yield f"dn: {SERVICES}\nobjectClass: organizationalUnit\n"
    yield _account(IN_SUBTREE)
    named = f"dn: {BY_NAME}\nobjectClass: inetOrgPerson\nuid: {NAMED}\ncn: By Name\nsn: Name\n"
    yield f"{named}userPassword: {PASSWORDS[BY_NAME]}\n"
    yield f"dn: {GROUPS}\nobjectClass: organizationalUnit\n"
    yield person("grouped", PASSWORDS[IN_GROUP])
    yield f"dn: {EXEMPT_GROUP}\nobjectClass: groupOfNames\nmember: {IN_GROUP}\nmember: {SERVICE}\n"
    yield f"dn: cn=policy,{BASE}\nobjectClass: applicationProcess\nobjectClass: pwdPolicy\npwdAttribute: userPassword\n"
    yield (
        f"dn: cn=ages,{BASE}\nobjectClass: applicationProcess\nobjectClass: pwdPolicy\npwdAttribute: userPassword\n"
        "pwdMaxAge: 60\n"
    )
    yield (
        person("expired", PASSWORDS[EXPIRED]).rstrip("\n")
        + f"\npwdPolicySubentry: cn=ages,{BASE}\npwdChangedTime: 20200101000000Z\n"
    )
    yield f"dn: {THINGS}\nobjectClass: organizationalUnit\n"
    for number in range(THING_COUNT):
        name = f"thing{number:02}"
        yield f"dn: cn={name},{THINGS}\nobjectClass: device\ncn: {name}\nserialNumber: {97 * number % 100:02}\n"
    yield (
        f"dn: {ELSEWHERE}\nobjectClass: referral\nobjectClass: extensibleObject\nou: elsewhere\n"
        "ref: ldap://elsewhere.example.org/dc=elsewhere\n"
    )


def _account(dn: str) -> str:
    return (
        f"dn: {dn}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\n"
        f"cn: {dn.partition('=')[2].partition(',')[0]}\nuserPassword: {PASSWORDS[dn]}\n"
    )
