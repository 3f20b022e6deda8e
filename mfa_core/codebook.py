"""The codes of a stretch of time in place of the secret that they come from: what a host may hold that must not hold secrets.

Room rule: how a book is written and read, in this file alone. A book ends by itself: whoever steals it has codes until its last
step, and nothing after it. Codes of up to seven digits take three bytes each, big-endian, and those of eight digits four.
"""

from __future__ import annotations

from dataclasses import replace

from mfa_core.code_generation import codes_of
from mfa_core.errors import InvalidInput
from mfa_core.model import Credential, FactorKind, Material
from mfa_core.secret import Secret

MAX_CODES = 1 << 20
"""A year of 30-second steps: no book is longer."""


def width(digits: int) -> int:
    """How many bytes a code of so many digits takes."""
    return 3 if digits <= 7 else 4


def pack(credential: Credential, first_step: int, count: int) -> bytes:
    """The codes of ``count`` time steps from ``first_step`` on, of a credential whose secret is here.

    Raises:
        InvalidInput: no secret is here, the credential does not go by time, or there are no such steps.
    """
    if credential.kind is not FactorKind.TOTP or credential.material is not Material.SEED:
        raise InvalidInput(f"a codebook of {credential.kind} ({credential.material}), expected a totp whose seed is here")
    if first_step < 0 or not 0 <= count <= MAX_CODES:
        raise InvalidInput(f"a codebook of {count} codes from step {first_step} on, expected at most {MAX_CODES} from 0 on")
    one_code, size = codes_of(credential), width(credential.digits)
    return b"".join([int(one_code(step)).to_bytes(size, "big") for step in range(first_step, first_step + count)])


def as_book(credential: Credential, first_step: int, codes: Secret) -> Credential:
    """The credential with this book in place of whatever stood there.

    Raises:
        InvalidInput: the octets are not a whole number of codes.
    """
    if len(codes) % width(credential.digits):
        raise InvalidInput(f"a codebook of {len(codes)} bytes, expected a multiple of {width(credential.digits)}")
    return replace(credential, secret=codes, first_step=first_step, material=Material.CODEBOOK)


def code(credential: Credential, step: int) -> str | None:
    """The code of a time step; None where the book does not reach, and where what stands there is no code."""
    size = width(credential.digits)
    at = (step - credential.first_step) * size
    octets = credential.secret.reveal()[at : at + size] if at >= 0 else b""
    text = f"{int.from_bytes(octets, 'big'):0{credential.digits}d}"
    return text if len(octets) == size and len(text) == credential.digits else None


def last_step(credential: Credential) -> int:
    """The last time step that the book holds; one before the first, when it is empty."""
    return credential.first_step + len(credential.secret) // width(credential.digits) - 1
