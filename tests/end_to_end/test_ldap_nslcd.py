"""A Linux login through nslcd and pam_ldap, whose directory is the door: the person types password and code at one prompt.

nslcd reads /etc/nslcd.conf and listens below /run: it runs in the mount namespace of a private host. pam_ldap.so comes from
where it is installed, or from the package that packaging/prerequisites.sh has unpacked; installed, it puts itself into every
PAM stack of the machine.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.host import Host, module_directory, private_host
from tests.end_to_end.ldap_directory import BASE, PASSWORDS, PEOPLE, SERVICE, dn_of, password_of
from tests.end_to_end.ldap_door import Setting, full, ldap_setting
from tests.end_to_end.programs import PATIENCE_S, REPOSITORY, _missing, clean_environment, must_have, start, stop, wait_until

UNPACKED = REPOSITORY / "build" / "libpam-ldapd"
USERS = tuple(f"person{number}" for number in range(1000, 1008))
PAM = """
auth requisite pam_ldap.so
account required pam_ldap.so
session required pam_permit.so
"""
NSLCD = """
uid nslcd
gid nslcd
uri {url}
base {base}
base passwd {people}
binddn {service}
bindpw {password}
filter passwd (objectClass=inetOrgPerson)
pam_authc_search NONE
reconnect_retrytime 1
"""


def pam_ldap() -> Path:
    """The module, installed or unpacked."""
    places = [module_directory() / "pam_ldap.so", *UNPACKED.glob("**/security/pam_ldap.so")]
    found = [one for one in places if one.exists()]
    if not found:
        _missing("pam_ldap.so is neither installed nor unpacked: packaging/prerequisites.sh test")
    return found[0]


@pytest.fixture(scope="module")
def setting(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with ldap_setting(template, tmp_path_factory.mktemp("ldap")) as one:
        yield one


@pytest.fixture(scope="module")
def host(setting: Setting, place: Path) -> Iterator[Host]:
    """A private host with nslcd in it."""
    must_have("nslcd", "pamtester", "unshare", "nsenter")
    module = pam_ldap()
    with private_host(place / "nslcd-host", place / "nslcd-run", users=USERS, pam={"vpn": PAM}) as one:
        shutil.copy(module, one.directory / "security" / "pam_ldap.so")
        configuration = one.directory / "nslcd.conf"
        configuration.write_text(
            NSLCD.format(url=setting.door.url, base=BASE, people=PEOPLE, service=SERVICE, password=PASSWORDS[SERVICE])
        )
        configuration.chmod(0o640)
        shutil.chown(configuration, group="nslcd")
        script = f"mount --bind {configuration} /etc/nslcd.conf && install -d -o nslcd /run/nslcd && exec nslcd -n -d"
        log = one.directory / "nslcd.log"
        with log.open("wb") as errors:
            program = start(one.inside("sh", "-c", script), stderr=errors)
        try:
            wait_until(lambda: "accepting connections" in log.read_text() or program.poll() is not None, "nslcd listens")
            assert program.poll() is None, log.read_text()
            yield one
        finally:
            stop(program)


def login(host: Host, user: str, typed: str) -> tuple[int, str]:
    """pamtester at one prompt: exit status, and what it said."""
    done = subprocess.run(
        host.inside("pamtester", "vpn", user, "authenticate", "acct_mgmt"),
        input=f"{typed}\n", capture_output=True, text=True, check=False, timeout=2 * PATIENCE_S, env=clean_environment(),
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_password_and_code_log_somebody_in(setting: Setting, host: Host) -> None:
    """Row 60; the code is good once, and the password alone is not."""
    person = setting.door.person("person1001")
    seen = setting.relay.forget()
    typed = full(person)

    assert login(host, person.name, password_of(person.name))[0] != 0
    status, screen = login(host, person.name, typed)
    assert status == 0, screen + (host.directory / "nslcd.log").read_text()[-3000:]
    assert login(host, person.name, typed)[0] != 0
    assert seen.binds().count((dn_of(person.name), password_of(person.name).encode())) >= 1


def test_wrong_code_and_wrong_password(setting: Setting, host: Host) -> None:
    """Row 60."""
    person: Person = setting.door.person("person1002")
    for typed in (f"{password_of(person.name)},{person.wrong_code()}", f"wrong,{person.next_code()}", ""):
        assert login(host, person.name, typed)[0] != 0
    assert login(host, person.name, f"{password_of(person.name)},{person.next_code()}")[0] == 0
