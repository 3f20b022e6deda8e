"""A sealed value opens under its key and in its place, and nowhere else."""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.errors import StoreCorrupt
from mfa_core.secret import Secret
from mfa_runtime.sealing import Keyring, Place, UnknownKey, key_id, sealed_under, unwrap_key, wrap_key

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "sealing.json").read_text())
PLACE = Place("credentials", "secret", 7, 3)
SECRET = Secret(b"12345678901234567890")
SEALS = 1_000_000 if os.environ.get("MFAD_SOAK") else 20_000
"""`MFAD_SOAK=1 pytest tests/runtime/test_sealing.py` tries the full million."""


def keyring(*numbers: int, random: Callable[[int], bytes] = os.urandom) -> Keyring:
    """The keys of the vectors with these numbers, the last one sealing."""
    keys = {n: Secret(bytes.fromhex(VECTORS["data_keys_hex"][str(n)])) for n in numbers}
    return Keyring(
        keys,
        current=numbers[-1],
        pepper=Secret(bytes.fromhex(VECTORS["pepper_hex"])),
        audit_key=Secret(bytes.fromhex(VECTORS["audit_key_hex"])),
        random=random,
    )


BOTH = keyring(1, 2)


@pytest.mark.parametrize("vector", VECTORS["sealed"], ids=lambda v: f"key-{v['key']}-row-{v['row']}")
def test_sealed_vectors(vector: dict[str, str]) -> None:
    """The bytes of the format, both ways."""
    place = Place(*(vector[name] for name in ("table", "column", "row", "owner")))  # type: ignore[arg-type]
    sealed = bytes.fromhex(vector["sealed_hex"])
    sealing = keyring(int(vector["key"]), random=lambda _: bytes.fromhex(vector["nonce_hex"]))

    assert sealing.seal(Secret(bytes.fromhex(vector["secret_hex"])), place) == sealed
    assert BOTH.unseal(sealed, place).reveal() == bytes.fromhex(vector["secret_hex"])
    assert sealed_under(sealed) == int(vector["key"])


def test_derived_vectors() -> None:
    """Tags, the audit key's MAC, wrapped keys and key ids stay what they are: stores and key files hold them."""
    tag, mac, wrapped, named = (VECTORS[name] for name in ("tag", "audit_mac", "wrapped", "key_id"))
    kek, key = Secret(bytes.fromhex(wrapped["kek_hex"])), Secret(bytes.fromhex(wrapped["key_hex"]))

    assert BOTH.tag(tag["label"], bytes.fromhex(tag["data_hex"])).hex() == tag["tag_hex"]
    assert BOTH.audit_mac(bytes.fromhex(mac["data_hex"])).hex() == mac["mac_hex"]
    assert key_id(Secret(bytes.fromhex(named["kek_hex"]))) == named["id"]
    made = wrap_key(kek, key, number=3, purpose="data", random=bytes)
    assert made.hex() == wrapped["wrapped_hex"]
    assert unwrap_key(kek, made, number=3, purpose="data").same_as(key)


@pytest.mark.parametrize(
    "elsewhere",
    [PLACE._replace(table="one_time_codes"), PLACE._replace(column="secret_tag"), PLACE._replace(row=8),
     PLACE._replace(owner=4), PLACE._replace(row=3, owner=7)],
    ids=["table", "column", "row", "owner", "row-and-owner-swapped"],
)  # fmt: skip
def test_a_moved_value_does_not_open(elsewhere: Place) -> None:
    """core-5-25: two users' secrets cannot be exchanged by who can write to the table."""
    sealed = BOTH.seal(SECRET, PLACE)

    with pytest.raises(StoreCorrupt, match="moved"):
        BOTH.unseal(sealed, elsewhere)


def test_no_bit_can_be_changed() -> None:
    """Format, key number, nonce, ciphertext, tag: each flipped bit is found, and told apart from a key that is missing."""
    sealed = BOTH.seal(SECRET, PLACE)
    for bit in range(len(sealed) * 8):
        damaged = bytearray(sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        expected = UnknownKey if 8 <= bit < 40 and sealed_under(bytes(damaged)) not in BOTH.numbers else StoreCorrupt
        with pytest.raises(StoreCorrupt) as refused:
            BOTH.unseal(bytes(damaged), PLACE)
        assert type(refused.value) is expected


def test_no_byte_can_be_cut_or_added() -> None:
    """At any length."""
    sealed = BOTH.seal(SECRET, PLACE)
    for cut in [sealed[:n] for n in range(len(sealed))] + [sealed + b"\0", b"\0" + sealed]:
        with pytest.raises(StoreCorrupt):
            BOTH.unseal(cut, PLACE)


def test_another_key_of_the_same_number_does_not_open() -> None:
    """core-5-59: a store with a foreign key table is damaged, not empty."""
    foreign = Keyring({2: Secret(b"k" * 32)}, current=2, pepper=SECRET, audit_key=SECRET, random=os.urandom)

    with pytest.raises(StoreCorrupt):
        foreign.unseal(BOTH.seal(SECRET, PLACE), PLACE)


def test_a_key_that_is_not_here_is_said_to_be_missing() -> None:
    """The caller then loads the keys again."""
    with pytest.raises(UnknownKey, match="data key 2"):
        keyring(1).unseal(BOTH.seal(SECRET, PLACE), PLACE)


def test_retired_keys_open_and_do_not_seal() -> None:
    """Rotation while logins go on."""
    old = keyring(1).seal(SECRET, PLACE)

    assert BOTH.unseal(old, PLACE).same_as(SECRET)
    assert sealed_under(BOTH.seal(SECRET, PLACE)) == 2


def test_no_nonce_comes_twice() -> None:
    """core-5-26: GCM ends where a nonce is used again under one key."""
    nonces = {BOTH.seal(SECRET, PLACE)[5:17] for _ in range(SEALS)}

    assert len(nonces) == SEALS


@pytest.mark.parametrize("length", [1, 32, 64, 65, 200])
def test_a_tag_is_an_hmac(length: int) -> None:
    """What the hmac module gives, for keys shorter and longer than a block."""
    pepper = bytes(range(length))
    ring = Keyring({}, current=0, pepper=Secret(pepper), audit_key=Secret(b"a"), random=os.urandom)

    assert ring.tag("label", b"data") == hmac.digest(pepper, b"label\0data", "sha256")


def test_labels_keep_tags_apart() -> None:
    """The tag of a code is not the tag of the same bytes elsewhere."""
    assert len({BOTH.tag("a", b"bc"), BOTH.tag("ab", b"c"), BOTH.tag("a", b"b"), BOTH.tag("", b"abc")}) == 4


@pytest.mark.parametrize(
    "change", [{"number": 4}, {"purpose": "audit"}, {"kek": Secret(b"x" * 32)}], ids=["number", "purpose", "kek"]
)
def test_a_wrapped_key_unwraps_as_what_it_is(change: dict[str, object]) -> None:
    """The pepper cannot be made the data key by who can write to the table."""
    kek = Secret(b"k" * 32)
    wrapped = wrap_key(kek, Secret(b"d" * 32), number=3, purpose="data", random=os.urandom)

    with pytest.raises(StoreCorrupt):
        unwrap_key(**({"kek": kek, "wrapped": wrapped, "number": 3, "purpose": "data"} | change))  # type: ignore[arg-type]


def test_a_cut_wrapped_key_is_damaged() -> None:
    """At any length."""
    wrapped = wrap_key(SECRET_KEK, Secret(b"d" * 32), number=3, purpose="data", random=os.urandom)
    for n in range(len(wrapped)):
        with pytest.raises(StoreCorrupt):
            unwrap_key(SECRET_KEK, wrapped[:n], number=3, purpose="data")


SECRET_KEK = Secret(b"k" * 32)


@given(st.binary(max_size=200))
def test_any_bytes_are_damaged(sealed: bytes) -> None:
    """Nothing but StoreCorrupt comes out, and it quotes none of them."""
    with pytest.raises(StoreCorrupt):
        BOTH.unseal(sealed, PLACE)
