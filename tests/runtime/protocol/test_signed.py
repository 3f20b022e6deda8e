"""An answer is the authority's, or it is nobody's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.secret import Secret
from mfa_runtime.protocol.message import ProtocolError, decode_octets, encode_octets
from mfa_runtime.protocol.signed import BadSignature, Signer, key_id, new_signing_key, verify
from mfa_runtime.protocol.syncing import read_sync_answer

VECTOR = json.loads((Path(__file__).parents[2] / "vectors" / "authority" / "signed.json").read_text())
SIGNER = Signer(Secret(bytes.fromhex(VECTOR["private_hex"])))
BODY = VECTOR["body"].encode()
SIGNERS = {SIGNER.key_id: SIGNER.public}


def test_the_signature_is_that_of_the_vector() -> None:
    """Ed25519 is deterministic; the id of the key is a piece of its digest."""
    assert SIGNER.public.hex() == VECTOR["public_hex"]
    assert SIGNER.key_id == VECTOR["key_id"] == hashlib.sha256(SIGNER.public).hexdigest()[:16]
    assert SIGNER.sign(BODY) == VECTOR["header"]
    assert verify(VECTOR["header"], BODY, SIGNERS) == SIGNER.key_id
    assert read_sync_answer(BODY).octets() == BODY


def test_a_stranger_can_check_it() -> None:
    """With nothing but RFC 8032 and the words of PROTOCOL.md."""
    signature = decode_octets(VECTOR["header"].partition(":")[2])

    Ed25519PublicKey.from_public_bytes(bytes.fromhex(VECTOR["public_hex"])).verify(signature, b"mfad sync v1\n" + BODY)


@given(at=st.integers(0, len(BODY) - 1), flip=st.integers(1, 255))
def test_another_octet_is_another_answer(at: int, flip: int) -> None:
    """Whichever it is."""
    changed = bytearray(BODY)
    changed[at] ^= flip

    with pytest.raises(BadSignature, match="is not of these"):
        verify(VECTOR["header"], bytes(changed), SIGNERS)


def test_what_the_key_signs_elsewhere_is_no_answer() -> None:
    """The domain stands before the octets."""
    other = Signer(Secret(bytes.fromhex(VECTOR["private_hex"])))
    without = other._key.sign(BODY)

    with pytest.raises(BadSignature):
        verify(f"{other.key_id}:{encode_octets(without)}", BODY, SIGNERS)


def test_an_unknown_key_signs_nothing() -> None:
    """Not even under the name of a known one."""
    other = Signer(new_signing_key())

    with pytest.raises(BadSignature, match="was not given"):
        verify(other.sign(BODY), BODY, SIGNERS)
    with pytest.raises(BadSignature, match="is not of these"):
        verify(f"{SIGNER.key_id}:{other.sign(BODY).partition(':')[2]}", BODY, SIGNERS)
    with pytest.raises(BadSignature):
        verify(other.sign(BODY), BODY, {other.key_id: SIGNER.public})


def test_two_keys_may_sign_for_a_while() -> None:
    """The id says which."""
    other = Signer(new_signing_key())

    assert verify(other.sign(BODY), BODY, SIGNERS | {other.key_id: other.public}) == other.key_id


@given(header=st.text(max_size=120) | st.from_regex(r"[0-9a-f]{16}:[A-Za-z0-9+/]{86}==", fullmatch=True))
def test_any_header_is_refused_or_right(header: str) -> None:
    """Nothing else is raised."""
    with pytest.raises(ProtocolError):
        verify(header, BODY, SIGNERS)


def test_a_header_that_is_cut_is_refused() -> None:
    """After any character."""
    for end in range(len(VECTOR["header"])):
        with pytest.raises(BadSignature):
            verify(VECTOR["header"][:end], BODY, SIGNERS)


def test_a_new_key_is_another_one() -> None:
    """32 octets, and a name."""
    first, second = Signer(new_signing_key()), Signer(new_signing_key())

    assert first.key_id != second.key_id
    assert key_id(first.public) == first.key_id
