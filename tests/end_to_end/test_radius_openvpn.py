"""People dial into OpenVPN, whose plugin asks mfad: codes beside passwords, accounting, and retries that look like new logins.

The plugin signs nothing, knows no Access-Challenge, and after ``wait`` asks again from a new port with a new authenticator.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.openvpn import (
    ACCOUNTING,
    AUTHENTICATION,
    LAPTOP,
    OPENVPN,
    PLUGIN,
    Networks,
    VpnClient,
    VpnServer,
    two_networks,
)
from tests.end_to_end.programs import must_have, wait_until
from tests.end_to_end.radius_certificates import Authority
from tests.end_to_end.radius_door import SECRET, Door, radius_door

PASSWORD = "the password of a person"
CLIENT = {"name": "vpn", "network": "127.0.0.1", "preset": "openvpn", "require_message_authenticator": "no"}


@dataclass(frozen=True, slots=True)
class Vpn:
    """An OpenVPN server beside its mfad, and everything for a client."""

    door: Door
    networks: Networks
    authority: Authority
    server: VpnServer

    def client(self, directory: Path, *, static_challenge: bool = True) -> VpnClient:
        return VpnClient(directory, self.networks.laptop, self.authority, static_challenge=static_challenge)

    def person(self) -> Person:
        """Somebody enrolled, with a password here."""
        one = self.door.person()
        self.door.set_password(one.name, PASSWORD)
        return one


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def networks() -> Iterator[Networks]:
    must_have(OPENVPN, PLUGIN, "nsenter", "unshare", "ip")
    with two_networks() as both:
        yield both


@pytest.fixture(scope="module")
def door(networks: Networks, template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with radius_door(
        template,
        tmp_path_factory.mktemp("door"),
        [CLIENT],
        door={"primary": {"type": "local"}},
        listen=("127.0.0.1:{auth}", "acct://127.0.0.1:{acct}"),
        ports={"auth": AUTHENTICATION, "acct": ACCOUNTING},
        prefix=networks.gateway.inside(),
    ) as one:
        yield one


@pytest.fixture(scope="module")
def vpn(door: Door, networks: Networks, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vpn]:
    own = authority.issue("vpn.example.org", server=True)
    server = VpnServer(
        tmp_path_factory.mktemp("vpn") / "server", networks.gateway, authority, own, secret=SECRET, wait_s=2, retries=3
    )
    try:
        yield Vpn(door, networks, authority, server)
    finally:
        server.close()


@pytest.fixture
def person(vpn: Vpn) -> Person:
    return vpn.person()


def test_password_and_static_challenge_let_in_once(vpn: Vpn, person: Person, tmp_path: Path) -> None:
    """Row 60: the code that the client asks for beside the password; used, it is refused."""
    code = person.next_code()
    with vpn.client(tmp_path / "first") as client:
        assert client.log_in(person.name, PASSWORD, code)
    with vpn.client(tmp_path / "second") as client:
        assert not client.log_in(person.name, PASSWORD, code)
    line = vpn.door.wait_for_login(user=person.name, outcome="accepted")
    assert line["source"] == LAPTOP
    assert "secret" not in vpn.door.mfad.log().partition("ready")[2]


def test_wrong_password_and_wrong_code_are_refused(vpn: Vpn, person: Person, tmp_path: Path) -> None:
    """A wrong password spends no code."""
    code = person.next_code()
    with vpn.client(tmp_path / "password") as client:
        assert not client.log_in(person.name, "not the password", code)
    with vpn.client(tmp_path / "code") as client:
        assert not client.log_in(person.name, PASSWORD, person.wrong_code())
    with vpn.client(tmp_path / "both") as client:
        assert client.log_in(person.name, PASSWORD, code)


def test_password_and_code_in_one_line(vpn: Vpn, person: Person, tmp_path: Path) -> None:
    """For clients that were not told of a challenge."""
    with vpn.client(tmp_path / "client", static_challenge=False) as client:
        assert client.log_in(person.name, PASSWORD + person.next_code())


def test_password_alone_is_refused(vpn: Vpn, person: Person, tmp_path: Path) -> None:
    """A challenge would be lost on this client: it is refused at once."""
    with vpn.client(tmp_path / "client", static_challenge=False) as client:
        assert not client.log_in(person.name, PASSWORD)


def test_session_is_accounted_for(vpn: Vpn, person: Person, tmp_path: Path) -> None:
    """Start and Stop with the name; OpenVPN would not let in without an acknowledged Start."""
    with vpn.client(tmp_path / "client") as client:
        assert client.log_in(person.name, PASSWORD, person.next_code())
    for status in ("start", "stop"):
        wait_until(
            lambda status=status: vpn.door.logged(kind="accounting", status=status, user=person.name),
            f"{status} in the log",
        )
    (login,) = vpn.door.logged(kind="authentication", user=person.name)
    assert (login["source"], login["outcome"]) == (LAPTOP, "accepted")


def test_retry_from_another_port_joins_the_login(vpn: Vpn, person: Person, tmp_path: Path) -> None:
    """Row 40: mfad is frozen until the plugin has asked twice. One code, one verification, and the tunnel is up."""
    outcome: list[bool] = []

    def dial() -> None:
        with vpn.client(tmp_path / "client") as client:
            outcome.append(client.log_in(person.name, PASSWORD, person.next_code()))

    login = threading.Thread(target=dial)
    with vpn.door.frozen():
        login.start()
        first = vpn.door.wait_for_queue(above=0)
        assert vpn.door.wait_for_queue(above=first) == 2 * first
    login.join()

    assert outcome == [True]
    assert vpn.door.mfad.failures(person.name) == 0
