"""pyrad's own client: the third opinion on signatures, both ways."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

import pytest
from pyrad.client import Client, Timeout
from pyrad.dictionary import Dictionary
from pyrad.packet import AccessAccept, AccessChallenge, AccessReject, StatusServer

from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.radius_door import SECRET, Door, radius_door

LAX, NEVER, CHALLENGED = "127.0.1.2", "127.0.1.5", "127.0.1.6"
CLIENTS = [
    {"name": "strict", "network": "127.0.0.0/8", "mode": "mfa_only"},
    {"name": "lax", "network": LAX, "mode": "mfa_only", "require_message_authenticator": "no"},
    {"name": "never", "network": NEVER, "mode": "mfa_only", "reply_message_authenticator": "never"},
    {"name": "challenged", "network": CHALLENGED, "mode": "mfa_only", "empty_password": "challenge"},
]
WORDS = """
ATTRIBUTE User-Name 1 string
ATTRIBUTE User-Password 2 string encrypt=1
ATTRIBUTE CHAP-Password 3 octets
ATTRIBUTE Reply-Message 18 string
ATTRIBUTE State 24 octets
ATTRIBUTE Proxy-State 33 octets
ATTRIBUTE Acct-Status-Type 40 integer
ATTRIBUTE Acct-Session-Id 44 string
ATTRIBUTE Message-Authenticator 80 octets
"""


@pytest.fixture(scope="module")
def door(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with radius_door(
        template, tmp_path_factory.mktemp("door"), CLIENTS, listen=("127.0.0.1:{auth}", "acct://127.0.0.1:{acct}")
    ) as one:
        yield one


@pytest.fixture
def person(door: Door) -> Person:
    return door.person()


def pyrad_client(
    door: Door, source: str = "127.0.0.1", *, secret: str = SECRET, enforce: bool = True, retries: int = 3
) -> Client:
    """One that refuses replies without a signature, unless told otherwise."""
    one = Client(
        server="127.0.0.1",
        authport=door.ports["auth"],
        acctport=door.ports["acct"],
        secret=secret.encode(),
        dict=Dictionary(StringIO(WORDS)),
        retries=retries,
        timeout=5,
        enforce_ma=enforce,
    )
    one.bind((source, 0))
    return one


def ask(client: Client, name: str, typed: str, **more: object) -> object:
    packet = client.CreateAuthPacket(User_Name=name, **more)
    packet["User-Password"] = packet.PwCrypt(typed)
    return client.SendPacket(packet)


def test_signed_login_is_accepted_once_by_a_client_that_insists(door: Door, person: Person) -> None:
    """Row 1: Accept and Reject alike are signed so that pyrad believes them."""
    client, code = pyrad_client(door), person.next_code()
    try:
        assert ask(client, person.name, code).code == AccessAccept
        assert ask(client, person.name, code).code == AccessReject
    finally:
        client._CloseSocket()


def test_challenge_is_signed_and_answered(door: Door, person: Person) -> None:
    client = pyrad_client(door, CHALLENGED)
    try:
        challenge = ask(client, person.name, "")
        assert challenge.code == AccessChallenge
        assert ask(client, person.name, person.next_code(), State=challenge["State"][0]).code == AccessAccept
    finally:
        client._CloseSocket()


def test_unsigned_login_is_heard_only_where_that_is_allowed(door: Door, person: Person) -> None:
    """Row 2: and is answered with a signature nevertheless."""
    client = pyrad_client(door, LAX)
    try:
        assert ask(client, person.name, person.next_code(), message_authenticator=False).code == AccessAccept
    finally:
        client._CloseSocket()
    strict = pyrad_client(door, retries=1)
    strict.timeout = 0.3
    try:
        with pytest.raises(Timeout):
            ask(strict, person.name, person.next_code(), message_authenticator=False)
    finally:
        strict._CloseSocket()


@pytest.mark.parametrize("source", [LAX, "127.0.0.1"])
def test_wrong_signature_is_silence(door: Door, person: Person, source: str) -> None:
    """Row 13."""
    client = pyrad_client(door, source, secret="some other secret entirely", retries=1)
    client.timeout = 0.3
    try:
        with pytest.raises(Timeout):
            ask(client, person.name, person.next_code())
    finally:
        client._CloseSocket()


def test_client_that_insists_does_not_believe_an_unsigned_answer(door: Door, person: Person) -> None:
    """That ``never`` leaves the signature out is seen from outside: so the tests above could fail."""
    insists, trusts = pyrad_client(door, NEVER, retries=1), pyrad_client(door, NEVER, enforce=False)
    insists.timeout = 0.3
    try:
        with pytest.raises(Timeout):
            ask(insists, person.name, person.next_code())
        assert ask(trusts, person.name, person.next_code()).code == AccessAccept
    finally:
        insists._CloseSocket()
        trusts._CloseSocket()


def test_proxy_states_come_back(door: Door, person: Person) -> None:
    """Row 29: pyrad refuses replies with other ones."""
    client = pyrad_client(door)
    states = [b"first", b"second", b"third"]
    try:
        assert ask(client, person.name, person.next_code(), Proxy_State=states)["Proxy-State"] == states
    finally:
        client._CloseSocket()


def test_status_server_and_accounting(door: Door) -> None:
    client = pyrad_client(door)
    try:
        assert client.SendPacket(client.CreateAuthPacket(code=StatusServer)).code == AccessAccept
        packet = client.CreateAcctPacket(User_Name="somebody", Acct_Status_Type=1, Acct_Session_Id="pyrad")
        assert client.SendPacket(packet).code == 5
    finally:
        client._CloseSocket()
