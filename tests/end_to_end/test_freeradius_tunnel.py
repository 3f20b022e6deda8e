"""Who says where a person is: the network, or the person's own device inside the tunnel? (RFC 5281 section 11.3)

FreeRADIUS copies what the network said into the tunnel, except where the device has said it itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.freeradius_site import PROGRAMS, Ports, Site, passable_directory
from tests.end_to_end.programs import must_be_root, must_have, wait_until
from tests.end_to_end.radius_packets import ACCT_SESSION_ID, CALLING_STATION_ID, NAS_IDENTIFIER, Attribute
from tests.end_to_end.radius_programs import free_port
from tests.end_to_end.ttls import Inside, Outside, Tunnel

PASSWORD = "Correct horse"
TRUSTED, TRUE = b"10.1.2.3", b"198.51.100.7"
DOOR: dict[str, Any] = {
    "listen": [],
    "clients": [],
    "mode": "auto",
    "primary": {"type": "local"},
    "authentication_log": "./authentication.log",
    "freeradius": {"socket": "./run/radius/radius.sock"},
}
POLICY = [{"id": "office", "when": {"network": ["10.0.0.0/8"]}, "exempt": True}]


@dataclass(frozen=True, slots=True)
class Pair:
    """A FreeRADIUS, and the mfad behind it."""

    mfad: Mfad
    site: Site


@pytest.fixture(scope="module", name="pair", params=["by the module", "handed on"])
def _pair(request: pytest.FixtureRequest, template: Mfad) -> Iterator[Pair]:
    must_be_root()
    must_have(*PROGRAMS)
    ports = Ports(free_port(), free_port()) if request.param == "handed on" else None
    with passable_directory() as ground:
        site = Site(ground / "site", ground / "mfad" / "run" / "radius" / "radius.sock", ports=ports)
        door = DOOR
        if ports is not None:
            secret = str(site.secret_file)
            door = {
                **DOOR,
                "listen": [f"127.0.0.1:{ports.auth}", f"acct://127.0.0.1:{ports.acct}"],
                "clients": [
                    {"name": "freeradius-outside", "network": "127.0.0.1", "secret_file": secret},
                    {"name": "freeradius-tunnel", "network": "127.0.0.2", "secret_file": secret, "challenges": False},
                ],
            }
        mfad = Mfad(ground / "mfad", {"doors": {"radius": door}, "policy": POLICY})
        mfad.copy_from(template)
        try:
            mfad.start()
            yield Pair(mfad, site.start())
        finally:
            site.stop()
            mfad.close()


@pytest.fixture(name="mfad")
def _mfad(pair: Pair) -> Mfad:
    return pair.mfad


@pytest.fixture(name="site")
def _site(pair: Pair) -> Site:
    return pair.site


@pytest.fixture(name="person")
def _person(mfad: Mfad) -> Person:
    one = mfad.person()
    mfad.mfactl("user", "password", one.name, "--stdin", stdin=f"{PASSWORD}\n")
    return one


def sources_of(mfad: Mfad, person: Person) -> list[Any]:
    """Where each line of the log says that this person was."""
    path = mfad.directory / "authentication.log"
    said = path.read_text().splitlines() if path.exists() else []
    # the last one may be half written
    return [one["source"] for one in (json.loads(line) for line in said if line.endswith("}")) if one["user"] == person.name]


def source_of(mfad: Mfad, person: Person) -> Any:
    """The same of somebody who has logged in once."""
    wait_until(lambda: bool(sources_of(mfad, person)), "a line in the authentication log")
    (source,) = sources_of(mfad, person)
    return source


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
    # What is two tunnels deep FreeRADIUS hands on to nobody.
    assert set(sources_of(mfad, person)) <= {TRUE.decode()}


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
