"""Who says where a person is: the network, or the person's own device inside the tunnel? (RFC 5281 section 11.3)

FreeRADIUS copies what the network said into the tunnel, except where the device has said it itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.freeradius_site import PROGRAMS, Site, passable_directory
from tests.end_to_end.programs import must_be_root, must_have, wait_until
from tests.end_to_end.radius_packets import ACCT_SESSION_ID, CALLING_STATION_ID, NAS_IDENTIFIER, Attribute
from tests.end_to_end.ttls import Inside, Outside, Tunnel

PASSWORD = "Correct horse"
TRUSTED, TRUE = b"10.1.2.3", b"198.51.100.7"
SETTINGS: dict[str, Any] = {
    "doors": {
        "radius": {
            "listen": [],
            "clients": [],
            "mode": "auto",
            "primary": {"type": "local"},
            "authentication_log": "./authentication.log",
            "freeradius": {"socket": "./run/radius/radius.sock"},
        }
    },
    "policy": [{"id": "office", "when": {"network": ["10.0.0.0/8"]}, "exempt": True}],
}


@pytest.fixture(scope="module", name="ground")
def _ground() -> Iterator[Path]:
    must_be_root()
    must_have(*PROGRAMS)
    with passable_directory() as one:
        yield one


@pytest.fixture(scope="module", name="mfad")
def _mfad(ground: Path, template: Mfad) -> Iterator[Mfad]:
    one = Mfad(ground / "mfad", SETTINGS)
    one.copy_from(template)
    one.start()
    yield one
    one.close()


@pytest.fixture(scope="module", name="site")
def _site(mfad: Mfad, ground: Path) -> Iterator[Site]:
    one = Site(ground / "site", mfad.directory / "run" / "radius" / "radius.sock")
    try:
        yield one.start()
    finally:
        one.stop()


@pytest.fixture(name="person")
def _person(mfad: Mfad) -> Person:
    one = mfad.person()
    mfad.mfactl("user", "password", one.name, "--stdin", stdin=f"{PASSWORD}\n")
    return one


def source_of(mfad: Mfad, person: Person) -> Any:
    """Where the log says that this person was."""

    def lines() -> list[Any]:
        path = mfad.directory / "authentication.log"
        said = path.read_text().splitlines() if path.exists() else []
        return [one for one in map(json.loads, said) if one["user"] == person.name]

    wait_until(lambda: bool(lines()), "a line in the authentication log")
    (line,) = lines()
    return line["source"]


def test_what_the_network_says_is_believed(mfad: Mfad, site: Site, person: Person) -> None:
    """So that the tests below are about who says it: the rule for the office exempts."""
    with site.nas() as nas:
        way = Outside(nas, [(CALLING_STATION_ID, TRUSTED)])
        Tunnel(way, site.authority.path).open().log_in(person.name.encode(), PASSWORD.encode())
    assert way.last is not None
    assert way.last.what == "Accept"
    assert source_of(mfad, person) == TRUSTED.decode()


@pytest.mark.parametrize("outer", [[(CALLING_STATION_ID, TRUE)], []], ids=["beside the network's", "alone"])
def test_a_device_cannot_say_where_it_is(mfad: Mfad, site: Site, person: Person, outer: list[Attribute]) -> None:
    """The password alone lets nobody in who says that he is in the office."""
    with site.nas() as nas:
        way = Outside(nas, outer)
        tunnel = Tunnel(way, site.authority.path).open()
        tunnel.log_in(person.name.encode(), PASSWORD.encode(), (CALLING_STATION_ID, TRUSTED))
    assert way.last is not None
    assert way.last.what == "Reject"
    assert source_of(mfad, person) == (TRUE.decode() if outer else None)


def test_a_tunnel_in_a_tunnel_says_no_more_than_one(mfad: Mfad, site: Site, person: Person) -> None:
    """What the first tunnel carries beside the second is its device's as well."""
    with site.nas() as nas:
        way = Outside(nas, [(CALLING_STATION_ID, TRUE)])
        first = Tunnel(way, site.authority.path).open()
        second = Tunnel(Inside(first, [(CALLING_STATION_ID, TRUSTED)]), site.authority.path).open()
        second.log_in(person.name.encode(), PASSWORD.encode(), (CALLING_STATION_ID, TRUSTED))
    assert way.last is not None
    assert way.last.what != "Accept"
    assert source_of(mfad, person) == TRUE.decode()


def test_other_attributes_of_the_tunnel_change_nothing(mfad: Mfad, site: Site, person: Person) -> None:
    """Two factors let in, whatever else stands beside them."""
    more = [(NAS_IDENTIFIER, b"another"), (ACCT_SESSION_ID, b"another")]
    with site.nas() as nas:
        way = Outside(nas, [(CALLING_STATION_ID, TRUE), (NAS_IDENTIFIER, b"ap1")])
        secret = (PASSWORD + person.next_code()).encode()
        Tunnel(way, site.authority.path).open().log_in(person.name.encode(), secret, *more)
    assert way.last is not None
    assert way.last.what == "Accept"
    assert source_of(mfad, person) == TRUE.decode()
