"""State: opens for the client and the user it was made for, in time, under a key we have; and for nothing else."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mfa_core.secret import Secret
from mfa_runtime.event_id import new_event_id
from radius_plugin.state import ATTEMPTS_MAX, STATE_SIZE, Carried, StateRefused, StateSeal, Why
from tests.radius_plugin.packet_vectors import State, read_states

OLD, NEW = Secret(bytes(range(32))), Secret(bytes(range(32, 64)))
ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
CARRIED = Carried(ID, expires_at=1_000, attempts=2, first_factor_done=True)


def nonces() -> Callable[[int], bytes]:
    """Another nonce each time, the same ones in each run."""
    numbers = count()
    return lambda size: next(numbers).to_bytes(size, "big")


def seal_of(*keys: Secret) -> StateSeal:
    """A seal over these keys."""
    return StateSeal(keys, random=nonces())


def why(seal: StateSeal, state: bytes, *, client: str = "vpn", user_name: bytes = b"alice", now: float = 900.0) -> Why:
    """Why this State does not open."""
    with pytest.raises(StateRefused) as caught:
        seal.open(state, client=client, user_name=user_name, now=now)
    return caught.value.why


@pytest.fixture
def state() -> bytes:
    """What alice carries away from the client vpn."""
    return seal_of(NEW).seal(CARRIED, client="vpn", user_name=b"alice")


@given(
    st.floats(0, 2**40 / 1000),
    st.binary(min_size=10, max_size=10),
    st.integers(0, 2**32 - 1),
    st.integers(0, ATTEMPTS_MAX),
    st.booleans(),
    st.text(max_size=40),
    st.binary(max_size=253),
)
@example(0.0, bytes(10), 2**32 - 1, 255, False, "", b"")
@example(281474976710.655, b"\xff" * 10, 1, 0, True, "vpn", b"\xff\x00")
def test_what_goes_in_comes_out(
    made: float, noise: bytes, expires_at: int, attempts: int, done: bool, client: str, user_name: bytes
) -> None:
    """Any event id, time, count, client and name."""
    carried = Carried(new_event_id(made, lambda size: noise), expires_at, attempts, done)
    seal = seal_of(NEW)
    state = seal.seal(carried, client=client, user_name=user_name)
    assert len(state) == STATE_SIZE <= 64
    assert seal.open(state, client=client, user_name=user_name, now=expires_at - 1) == carried


@pytest.mark.parametrize("vector", read_states(), ids=lambda vector: vector.client)
def test_states_to_the_octet(vector: State) -> None:
    """The format holds: workers of two versions, one before and one after an upgrade, read each other's."""
    seal = StateSeal([Secret(vector.key)], random=lambda size: vector.nonce[:size])
    carried = Carried(vector.challenge, vector.expires_at, vector.attempts, vector.first_factor_done)
    assert seal.seal(carried, client=vector.client, user_name=vector.user_name) == vector.octets
    assert seal.open(vector.octets, client=vector.client, user_name=vector.user_name, now=vector.expires_at - 1) == carried


def test_another_process_with_the_key_opens_it(state: bytes) -> None:
    """Nothing but the key is needed: not the process that made it, nor its memory."""
    assert seal_of(NEW).open(state, client="vpn", user_name=b"alice", now=999.9) == CARRIED


def test_a_new_key_seals_and_the_old_one_opens(state: bytes) -> None:
    """While keys change, challenges that are out go on."""
    assert seal_of(OLD, NEW).open(state, client="vpn", user_name=b"alice", now=900) == CARRIED
    assert why(seal_of(OLD), state) == Why.UNKNOWN
    newer = seal_of(OLD, NEW).seal(CARRIED, client="vpn", user_name=b"alice")
    assert seal_of(OLD).open(newer, client="vpn", user_name=b"alice", now=900) == CARRIED
    assert why(seal_of(NEW), newer) == Why.UNKNOWN


@pytest.mark.parametrize(("now", "open_still"), [(999.999, True), (1_000.0, False), (2e9, False)])
def test_a_state_ends_at_its_second(state: bytes, now: float, open_still: bool) -> None:
    """The second that it names is the first in which it is void."""
    seal = seal_of(NEW)
    if open_still:
        assert seal.open(state, client="vpn", user_name=b"alice", now=now) == CARRIED
    else:
        assert why(seal, state, now=now) == Why.EXPIRED


@pytest.mark.parametrize(
    ("client", "user_name"),
    [
        ("vpn2", b"alice"),
        ("vp", b"alice"),
        ("", b"vpnalice"),
        ("vpn", b"bob"),
        ("vpn", b"Alice"),
        ("vpn", b""),
        ("vpn|5", b"alice"),
    ],
)
def test_it_opens_for_nobody_else(state: bytes, client: str, user_name: bytes) -> None:
    """Another client or another user name cannot answer this challenge, and does not learn that it is a real one."""
    assert why(seal_of(NEW), state, client=client, user_name=user_name) == Why.UNKNOWN
    assert why(seal_of(NEW), state, client=client, user_name=user_name, now=5_000) == Why.UNKNOWN


def test_client_and_name_do_not_run_into_one_another() -> None:
    """Moving letters or separators from the one to the other makes another binding."""
    seal = seal_of(NEW)
    state = seal.seal(CARRIED, client="a|1", user_name=b"b")
    assert why(seal, state, client="a", user_name=b"1|b") == Why.UNKNOWN
    assert why(seal, state, client="a|1|", user_name=b"b") == Why.UNKNOWN


def test_every_changed_bit_shows(state: bytes) -> None:
    """Nonce, body, tag and format alike."""
    seal = seal_of(NEW, OLD)
    for at in range(len(state)):
        for bit in range(8):
            assert why(seal, state[:at] + bytes([state[at] ^ 1 << bit]) + state[at + 1 :]) == Why.UNKNOWN


def test_every_other_length_shows(state: bytes) -> None:
    """Cut anywhere, or longer."""
    seal = seal_of(NEW)
    for size in range(len(state)):
        assert why(seal, state[:size]) == Why.UNKNOWN
    for more in (b"\0", state):
        assert why(seal, state + more) == Why.UNKNOWN


@given(st.binary(max_size=253) | st.binary(min_size=50, max_size=50).map(lambda rest: b"\x01" + rest))
def test_no_other_octets_open(octets: bytes) -> None:
    """Whatever a client sends is refused by the one documented error."""
    assert why(seal_of(NEW), octets) == Why.UNKNOWN


def test_two_states_of_one_challenge_differ() -> None:
    """Each carries a nonce of its own, so that they cannot be told apart, nor compared, from outside."""
    seal = seal_of(NEW)
    one, two = (seal.seal(CARRIED, client="vpn", user_name=b"alice") for _ in range(2))
    assert one[13:] != two[13:]
    assert ID.encode() not in one


@pytest.mark.parametrize(
    "carried",
    [
        Carried("", 1),
        Carried("event", 1),
        Carried(ID + "0", 1),
        Carried(ID.lower(), 1),
        Carried("U" + ID[1:], 1),
        Carried("8" + ID[1:], 1),
        Carried(ID[:-1] + "é", 1),
        Carried(ID, -1),
        Carried(ID, 2**32),
        Carried(ID, 1, attempts=-1),
        Carried(ID, 1, attempts=256),
    ],
    ids=repr,
)
def test_what_a_state_cannot_carry(carried: Carried) -> None:
    """An id that is no ULID would come back as another one; such mistakes are ours and show at once."""
    with pytest.raises(ValueError, match="expected"):
        seal_of(NEW).seal(carried, client="vpn", user_name=b"alice")


@pytest.mark.parametrize("keys", [(), (Secret(b"short"),), (NEW, Secret(bytes(33)))], ids=["none", "short", "long"])
def test_keys_have_32_octets(keys: tuple[Secret, ...]) -> None:
    """And at least one is needed."""
    with pytest.raises(ValueError, match="expected at least one"):
        seal_of(*keys)
