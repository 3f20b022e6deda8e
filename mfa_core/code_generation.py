"""Which code does a secret give at a counter? RFC 4226 section 5.3, over the HMACs of RFC 6238 section 1.2.

Room rule: arithmetic over a key and a counter, written out because every login pays for it; :mod:`mfa_core.oath` has the same
from pyotp, and the tests hold the two against each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from mfa_core.model import Credential, Digest

_HASHES: dict[Digest, tuple[Callable[..., hashlib._Hash], int]] = {
    Digest.SHA1: (hashlib.sha1, 64),
    Digest.SHA256: (hashlib.sha256, 64),
    Digest.SHA512: (hashlib.sha512, 128),
}
"""The hash of a digest, and its block in bytes (RFC 2104 section 2: B)."""
_INNER = bytes([byte ^ 0x36 for byte in range(256)])
_OUTER = bytes([byte ^ 0x5C for byte in range(256)])


def codes_of(credential: Credential) -> Callable[[int], str]:
    """The codes of a credential whose secret is here, by counter (HOTP) or time step (TOTP): every login tries three.

    HMAC written out (RFC 2104 section 2), because the two padded keys need to be made only once, and the way through pyotp and
    the hmac module costs four times as much as the hashes. The tests hold the two against each other.
    """
    new, block = _HASHES[credential.digest]
    key = credential.secret.reveal()
    if len(key) > block:
        key = new(key).digest()
    padded = key.ljust(block, b"\0")
    inner, outer = padded.translate(_INNER), padded.translate(_OUTER)
    digits = credential.digits
    modulus: int = 10**digits
    written = f"%0{digits}d"

    def one_code(counter: int) -> str:
        mac = new(outer + new(inner + counter.to_bytes(8, "big")).digest()).digest()
        at = mac[-1] & 15
        return written % ((int.from_bytes(mac[at : at + 4], "big") & 0x7FFF_FFFF) % modulus)

    return one_code
