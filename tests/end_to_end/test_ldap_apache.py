"""HTTP Basic of Apache: mod_authnz_ldap searches by a service account, binds as the user, and keeps what was typed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.daemon import Mfad
from tests.end_to_end.ldap_apache import Apache
from tests.end_to_end.ldap_directory import PASSWORDS, PEOPLE, SERVICE, dn_of, password_of
from tests.end_to_end.ldap_door import Setting, full, ldap_setting


@pytest.fixture(scope="module")
def setting(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with ldap_setting(template, tmp_path_factory.mktemp("ldap")) as one:
        yield one


@pytest.fixture(scope="module")
def apache(setting: Setting) -> Iterator[Apache]:
    # not below the folders that pytest makes: nobody else may enter them, and Apache runs as www-data
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        one = Apache(Path(place, "server"), setting.door.url, base=PEOPLE, service=SERVICE, password=PASSWORDS[SERVICE])
        yield one
        one.close()


def test_pages_are_had_with_one_bind_of_the_user(setting: Setting, apache: Apache) -> None:
    """Row 58: five requests with the text of the first; Apache keeps it, and the code is spent once."""
    person, seen = setting.door.person(), setting.relay.forget()
    typed = full(person)

    assert [apache.get(person.name, typed) for _ in range(5)] == [(200, "the page\n")] * 5

    binds = [one for one in seen.binds() if one[0] == dn_of(person.name)]
    assert binds == [(dn_of(person.name), password_of(person.name).encode())]


def test_wrong_code_is_401(setting: Setting, apache: Apache) -> None:
    """Row 58; and Apache's next user is served."""
    person = setting.door.person()
    assert apache.get(person.name, f"{password_of(person.name)},{person.wrong_code()}")[0] == 401
    assert apache.get(person.name, password_of(person.name))[0] == 401
    assert apache.get("nobody-here", "x,123456")[0] == 401
    assert apache.get(person.name, full(person))[0] == 200
