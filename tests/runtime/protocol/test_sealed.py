"""A seal opens for one host, in one answer, and gives at most so much."""

from __future__ import annotations

import hmac
import json
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.secret import Secret
from mfa_runtime.protocol.message import ProtocolError
from mfa_runtime.protocol.sealed import MAX_OPENED_OCTETS, new_private_key, open_sealed, public_of, seal, sync_context
from mfa_runtime.protocol.syncing import SealedEntry, read_entries, write_entries

VECTOR = json.loads((Path(__file__).parents[2] / "vectors" / "authority" / "sealed.json").read_text())
PRIVATE = Secret(bytes.fromhex(VECTOR["private_hex"]))
PUBLIC = bytes.fromhex(VECTOR["public_hex"])
CONTEXT = bytes.fromhex(VECTOR["info_hex"])
SEALED = bytes.fromhex(VECTOR["sealed_hex"])
SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def test_the_vector_opens() -> None:
    """What was sealed once opens for ever."""
    context = sync_context(
        authority_id=VECTOR["authority_id"],
        host_id=VECTOR["host_id"],
        seq=VECTOR["seq"],
        nonce=bytes.fromhex(VECTOR["nonce_hex"]),
    )
    opened = open_sealed(PRIVATE, context, SEALED)

    assert context == CONTEXT
    assert public_of(PRIVATE) == PUBLIC
    assert opened.reveal().decode() == VECTOR["plaintext"]
    assert [(one.credential, one.first_step) for one in read_entries(opened)] == [(12, -1), (13, 58_907_518)]
    assert read_entries(opened)[0].secret.reveal() == b"12345678901234567890"


def test_a_stranger_can_open_it() -> None:
    """RFC 9180 sections 4, 5.1 and 5.2 written out, with nothing of ours."""

    def extract(salt: bytes, suite: bytes, label: bytes, ikm: bytes) -> bytes:
        return hmac.digest(salt or b"\0" * 32, b"HPKE-v1" + suite + label + ikm, "sha256")

    def expand(key: bytes, suite: bytes, label: bytes, info: bytes, length: int) -> bytes:
        labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
        return hmac.digest(key, labelled + b"\x01", "sha256")[:length]

    encapsulated, ciphertext = SEALED[:32], SEALED[32:]
    kem, hpke = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"
    own = X25519PrivateKey.from_private_bytes(bytes.fromhex(VECTOR["private_hex"]))
    shared = own.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    secret = expand(
        extract(b"", kem, b"eae_prk", shared), kem, b"shared_secret", encapsulated + bytes.fromhex(VECTOR["public_hex"]), 32
    )
    info = f"mfad sync v1|{VECTOR['authority_id']}|{VECTOR['host_id']}|{VECTOR['seq']}|".encode()
    info += bytes.fromhex(VECTOR["nonce_hex"])
    schedule = b"\0" + extract(b"", hpke, b"psk_id_hash", b"") + extract(b"", hpke, b"info_hash", info)
    root = extract(secret, hpke, b"secret", b"")
    key, nonce = expand(root, hpke, b"key", schedule, 32), expand(root, hpke, b"base_nonce", schedule, 12)

    assert zlib.decompress(AESGCM(key).decrypt(nonce, ciphertext, b"")).decode() == VECTOR["plaintext"]


@given(plaintext=st.binary(max_size=300))
def test_what_is_sealed_opens(plaintext: bytes) -> None:
    """And no two seals are the same."""
    first, second = seal(PUBLIC, CONTEXT, Secret(plaintext)), seal(PUBLIC, CONTEXT, Secret(plaintext))

    assert first != second
    assert open_sealed(PRIVATE, CONTEXT, first).reveal() == plaintext


@given(at=st.integers(0, len(SEALED) - 1), flip=st.integers(1, 255))
def test_a_changed_octet_opens_nothing(at: int, flip: int) -> None:
    """Whichever it is. (X25519 passes over the top bit of the last octet of a public key; the seal does not.)"""
    changed = bytearray(SEALED)
    changed[at] ^= flip

    with pytest.raises(ProtocolError):
        open_sealed(PRIVATE, CONTEXT, bytes(changed))


def test_a_seal_that_is_cut_opens_nothing() -> None:
    """After any octet."""
    for end in range(len(SEALED)):
        with pytest.raises(ProtocolError):
            open_sealed(PRIVATE, CONTEXT, SEALED[:end])


@given(octets=st.binary(max_size=200))
def test_any_octets_open_nothing(octets: bytes) -> None:
    """Nothing but ProtocolError is raised."""
    with pytest.raises(ProtocolError):
        open_sealed(PRIVATE, CONTEXT, octets)


@pytest.mark.parametrize(
    "changed",
    [{"authority_id": "another"}, {"host_id": 8}, {"seq": VECTOR["seq"] + 1}, {"nonce": b"another nonce of"}],
    ids=lambda changed: next(iter(changed)),
)
def test_it_opens_in_its_own_answer_alone(changed: dict[str, object]) -> None:
    """Not for another host, authority or question, and not at another time."""
    place = {key: VECTOR[key] for key in ("authority_id", "host_id", "seq")} | {"nonce": bytes.fromhex(VECTOR["nonce_hex"])}

    with pytest.raises(ProtocolError):
        open_sealed(PRIVATE, sync_context(**(place | changed)), SEALED)


def test_another_host_cannot_open_it() -> None:
    """Its key is another one."""
    with pytest.raises(ProtocolError, match="do not open"):
        open_sealed(new_private_key(), CONTEXT, SEALED)


def test_a_bomb_is_not_unpacked() -> None:
    """A thousandfold of zeros: refused before there is memory for it."""
    bomb = SUITE.encrypt(
        zlib.compress(bytes(MAX_OPENED_OCTETS + 1), 9), X25519PublicKey.from_public_bytes(PUBLIC), info=CONTEXT
    )

    with pytest.raises(ProtocolError, match="no zlib stream of at most"):
        open_sealed(PRIVATE, CONTEXT, bomb)


@pytest.mark.parametrize("packed", [b"", b"plain", zlib.compress(b"x" * 50)[:-1], zlib.compress(b"x") + b"more"])
def test_what_is_not_packed_is_refused(packed: bytes) -> None:
    """Half a stream, none, or something behind it."""
    sealed = SUITE.encrypt(packed, X25519PublicKey.from_public_bytes(PUBLIC), info=CONTEXT)

    with pytest.raises(ProtocolError, match="no zlib stream"):
        open_sealed(PRIVATE, CONTEXT, sealed)


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(32), (1).to_bytes(32, "little"), bytes(33)])
def test_nothing_is_sealed_to_what_is_no_key(public: bytes) -> None:
    """A key of small order would make a seal that anybody opens."""
    with pytest.raises(ProtocolError):
        seal(public, CONTEXT, Secret(b"x"))


def test_more_than_a_host_opens_is_not_sealed() -> None:
    """It is found where it is made."""
    with pytest.raises(ValueError, match="expected at most"):
        seal(PUBLIC, CONTEXT, Secret(bytes(MAX_OPENED_OCTETS + 1)))


@given(
    entries=st.lists(
        st.tuples(st.integers(1, 2**63 - 1), st.integers(-1, 2**40), st.binary(max_size=90)).map(
            lambda one: SealedEntry(credential=one[0], first_step=one[1], secret=Secret(one[2]))
        ),
        max_size=5,
    )
)
def test_entries_are_read_as_they_were_written(entries: list[SealedEntry]) -> None:
    """Every secret as it was."""
    read = read_entries(write_entries(entries))

    assert [(one.credential, one.first_step, one.secret.reveal()) for one in read] == [
        (one.credential, one.first_step, one.secret.reveal()) for one in entries
    ]


@given(octets=st.binary(max_size=100))
def test_any_octets_are_entries_or_an_error(octets: bytes) -> None:
    """Nothing else is raised."""
    with suppress(ProtocolError):
        read_entries(Secret(octets))
