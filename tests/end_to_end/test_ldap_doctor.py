"""The doctor at an LDAP door that runs, that does not, and before directories that are not as they should be."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import redirect_stdout

import pytest

from mfactl.__main__ import run as mfactl
from tests.end_to_end.daemon import Mfad
from tests.end_to_end.ldap_directory import ADMIN, BASE, PEOPLE, SERVICE
from tests.end_to_end.ldap_door import LdapDoor, Setting, ldap_setting
from tests.end_to_end.radius_programs import free_port
from tests.end_to_end.slapd import SERVICE_DN

PLACES = ("ldap", "socket", "upstream", "tls")


@pytest.fixture(scope="module")
def setting(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    door = {"user": {"base_dn": PEOPLE}, "exempt": {"dn": [SERVICE, ADMIN]}}
    with ldap_setting(template, tmp_path_factory.mktemp("ldap"), door=door) as one:
        yield one


@pytest.fixture
def door(setting: Setting) -> LdapDoor:
    return setting.door


def seen(door: LdapDoor) -> dict[str, str]:
    """What the doctor says of the door and its directory, and how much it weighs."""
    out = io.StringIO()
    with redirect_stdout(out):
        mfactl(["--config", str(door.mfad.config_path), "doctor", "--json"])
    return {one["seen"]: one["weight"] for one in json.loads(out.getvalue()) if one["place"] in PLACES}


def configured(door: LdapDoor, **keys: object) -> dict[str, str]:
    """The same with other settings, which mfad need not have read."""
    kept = door.mfad.config_path.read_text()
    before = door.door
    try:
        door.door = {**before, **keys}
        door.mfad.configure(door.settings())
        return seen(door)
    finally:
        door.door = before
        door.mfad.config_path.write_text(kept)


def weight_of(found: dict[str, str], *words: str) -> set[str]:
    return {weight for one, weight in found.items() if all(word in one for word in words)}


def test_door_that_is_well_has_no_problem(door: LdapDoor) -> None:
    """Listener, server, WhoAmI, the account for look-ups."""
    found = seen(door)

    assert weight_of(found, f"mfad listens on {door.url}") == {"ok"}
    assert weight_of(found, "says who is bound") == {"ok"}
    assert weight_of(found, f"{SERVICE_DN} may bind") == {"ok"}
    assert "problem" not in found.values(), found
    assert door.mfad.mfactl_json("status")["sockets"][door.url] is True


def test_exempt_entries_are_looked_for(door: LdapDoor) -> None:
    """One that is not there, one that is a person with an authenticator, and groups like accounts."""
    person = f"uid=person1000,{PEOPLE}"
    found = configured(door, exempt={"dn": [SERVICE, f"cn=gone,{BASE}", person], "group": f"cn=none,{BASE}"})

    assert weight_of(found, f"cn=gone,{BASE}", "no such entry") == {"warning"}
    assert weight_of(found, f"cn=none,{BASE}", "no such entry") == {"warning"}
    assert weight_of(found, person, "has a factor") == {"warning"}
    assert weight_of(found, SERVICE, "exempt") == set()


def test_wrong_password_of_the_account_is_a_problem(door: LdapDoor) -> None:
    """Look-ups would fail, and logins with them."""
    kept = door.lookup_password.read_text()
    door.lookup_password.write_text("another one\n")
    try:
        found = seen(door)
    finally:
        door.lookup_password.write_text(kept)

    assert weight_of(found, SERVICE_DN, "49") == {"problem"}


def test_one_dead_server_of_two_is_a_warning_and_all_are_a_problem(setting: Setting, door: LdapDoor) -> None:
    """The other one does its work."""
    dead = f"ldap://127.0.0.1:{free_port()}"
    some = configured(door, upstream=[setting.relay.url, dead])
    none = configured(door, upstream=[dead])

    assert weight_of(some, dead) == {"warning"}
    assert weight_of(none, dead) == {"problem"}


def test_listener_of_an_mfad_that_does_not_run(door: LdapDoor) -> None:
    """Told as nobody's."""
    door.mfad.stop()
    try:
        assert weight_of(seen(door), f"nobody listens on {door.url}") == {"problem"}
    finally:
        door.mfad.start()
