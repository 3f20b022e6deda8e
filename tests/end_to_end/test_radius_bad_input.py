"""A flood of packets that are nearly right, from clients and from strangers: nobody else feels it, and the log stays short."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.end_to_end.daemon import Mfad
from tests.end_to_end.programs import wait_until
from tests.end_to_end.radius_door import Door, radius_door
from tests.end_to_end.radius_packets import (
    ACCESS_CHALLENGE,
    ACCESS_REJECT,
    ACCOUNTING_RESPONSE,
    CHAP_PASSWORD,
    EAP_MESSAGE,
    MESSAGE_AUTHENTICATOR,
    PROXY_STATE,
    STATE,
    Nas,
)

LAX, STRICT, LIMITED, STRANGER = "127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.9.9"
CLIENTS = [
    {"name": "lax", "network": LAX, "mode": "auto", "require_message_authenticator": "no", "limit_proxy_state": False},
    {"name": "strict", "network": STRICT, "mode": "mfa_only"},
    {"name": "limited", "network": LIMITED, "mode": "mfa_only", "requests_per_second": 5},
]
PACKETS = 4_000
LINES = PACKETS // 4
"""What the log may have after it: two looks a second with about twenty reasons, on a slow machine."""
SEED = 20_261_122


@pytest.fixture(scope="module")
def door(template: Mfad, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with radius_door(
        template, tmp_path_factory.mktemp("door"), CLIENTS, listen=("127.0.0.1:{auth}", "acct://127.0.0.1:{acct}")
    ) as one:
        yield one


def mutated(raw: bytes, chance: random.Random) -> bytes:
    """A few octets other than they were, cut, doubled or lengthened."""
    octets = bytearray(raw)
    for _ in range(chance.randrange(4)):
        octets[chance.randrange(len(octets))] = chance.randrange(256)
    match chance.randrange(8):
        case 0:
            del octets[chance.randrange(len(octets)) :]
        case 1:
            octets += chance.randbytes(chance.randrange(300))
        case 2:
            octets[2:4] = chance.randrange(65_536).to_bytes(2, "big")
        case 3:
            octets += octets[20:]
            octets[2:4] = len(octets).to_bytes(2, "big")
    return bytes(octets[:8192])


def a_packet(nas: Nas, chance: random.Random) -> bytes:
    kinds = [CHAP_PASSWORD, EAP_MESSAGE, MESSAGE_AUTHENTICATOR, PROXY_STATE, STATE, chance.randrange(256)]
    more = [(chance.choice(kinds), chance.randbytes(chance.randrange(254))) for _ in range(chance.randrange(4))]
    name, password = (chance.randbytes(chance.randrange(40)) for _ in range(2))
    return nas.login(name, password, *more, sign=chance.random() < 0.5, authenticator=chance.randbytes(16))


@pytest.mark.parametrize("port", ["auth", "acct"])
def test_flood_of_packets_that_are_nearly_right(door: Door, port: str) -> None:
    """None of it lets anybody in, and a good login afterwards is as before."""
    chance = random.Random(SEED)
    person = door.person()
    before = len(door.mfad.log().splitlines())
    with (
        door.nas(LAX, port=port) as lax,
        door.nas(STRICT, port=port) as strict,
        door.nas(STRANGER, port=port) as stranger,
        door.nas(STRICT, port=port) as marker,
    ):
        for number in range(PACKETS):
            nas = (lax, lax, strict, stranger)[number % 4]
            nas.send(mutated(a_packet(nas, chance), chance))
            if number % 50 == 0:
                # so that none is lost for want of room in the kernel
                marker.ask(marker.status())
                while (raw := _waiting(lax)) is not None:
                    assert raw[0] in (ACCESS_REJECT, ACCESS_CHALLENGE, ACCOUNTING_RESPONSE), raw
    with door.nas(STRICT) as nas:
        assert nas.ask(nas.login(person.name, person.next_code())).what == "Accept"

    def new() -> list[str]:
        return door.mfad.log().splitlines()[before:]

    wait_until(lambda: any("unknown clients" in line for line in new()), "what was dropped is told")
    assert "Traceback" not in "\n".join(new())
    assert len(new()) < LINES


def _waiting(nas: Nas) -> bytes | None:
    nas.socket.setblocking(False)
    try:
        return nas.socket.recv(65_535)
    except BlockingIOError:
        return None


def test_client_over_its_rate_is_silent_and_others_are_not(door: Door) -> None:
    """What is over it costs nothing and is not counted against anybody."""
    person, other = door.person(), door.person()
    with door.nas(LIMITED) as limited, door.nas(STRICT) as strict:
        requests = [limited.login(f"nobody{number}", "123456") for number in range(100)]
        for request in requests:
            limited.send(request)
        limited.send(limited.login(person.name, person.next_code()))
        assert strict.ask(strict.login(other.name, other.next_code())).what == "Accept"
        assert strict.ask(strict.login(person.name, person.code_at(person.last_step))).what == "Accept"
        answers = 0
        while _waiting(limited) is not None:
            answers += 1

    assert 1 <= answers < len(requests)
