"""Which time step or counter does this code belong to? RFC 4226 (HOTP) and RFC 6238 (TOTP).

Room rule: the only file that imports pyotp, and the only one that knows the 30 of "30 seconds". Steps and counters come in as
integers and go out as integers; whether a step is new is :mod:`mfa_core.replay`'s question. No clock is read here.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import pyotp

from mfa_core import codebook
from mfa_core.code_generation import codes_of
from mfa_core.errors import InvalidInput
from mfa_core.model import Credential, Digest, FactorKind, Material
from mfa_core.secret import Secret
from mfa_core.value import hot_value

DEFAULT_WINDOW = 1
"""Steps accepted on each side of the present one. Three codes; RFC 6238 section 5.2 recommends at most one step of delay."""
MAX_DRIFT = 10
"""How far (steps) two consecutive codes may move the drift: five minutes at 30 s."""
HOTP_LOOK_AHEAD = 10
"""Counters tried after the last spent one (RFC 4226 section 7.4, parameter s)."""
HOTP_RESYNC_LOOK_AHEAD = 100
"""Counters in which two consecutive codes may re-synchronise a token (RFC 4226 section 7.4)."""
MIN_SECRET_BITS = 112
"""NIST SP 800-63B-4 section 3.1.4.1. Shorter secrets come only through imports, marked as legacy."""
MIN_LEGACY_SECRET_BITS = 80
MAX_SECRET_BYTES = 128
DIGITS = (6, 7, 8)
PERIODS_S = (30, 60)

_PYOTP_DIGESTS = {Digest.SHA1: hashlib.sha1, Digest.SHA256: hashlib.sha256, Digest.SHA512: hashlib.sha512}


class _Generator(pyotp.OTP):
    """pyotp's truncation over raw key bytes. The base32 text that pyotp wants would have to be made for every login, and pyotp
    refuses the short secrets of old imports, about which :func:`check_parameters` has its own say."""

    def __init__(self, key: bytes, digits: int, digest: Any) -> None:
        self._key = key
        super().__init__("", digits=digits, digest=digest)

    def byte_secret(self) -> bytes:
        return self._key


def code_at(credential: Credential, counter: int) -> str:
    """The code of a counter (HOTP) or time step (TOTP): RFC 4226 section 5.3."""
    return _Generator(credential.secret.reveal(), credential.digits, _PYOTP_DIGESTS[credential.digest]).generate_otp(counter)


def step_at(now: float, period_s: int) -> int:
    """The time step of a Unix time in seconds: RFC 6238 section 4.2, T0 = 0. Time zones do not enter."""
    return int(now // period_s)


class Fit(enum.Enum):
    """How a code relates to a credential."""

    NEW = "new"
    """It belongs to a step inside the window that is not spent."""
    SPENT = "spent"
    """It belongs to a step inside the window at or below the watermark."""
    OUTSIDE = "outside"
    """It belongs to a step outside the window but within reach of a resynchronisation."""
    CONSECUTIVE = "consecutive"
    """It follows a code remembered as OUTSIDE: the two together move the drift, and this one may be accepted."""
    NONE = "none"


@hot_value
class Match:
    """What :func:`match` found. ``step`` is -1 with ``Fit.NONE``; ``drift_steps`` is the drift after this code."""

    fit: Fit
    step: int
    drift_steps: int


Typed = str | Callable[[str], bool]
"""A code, or what says of a candidate whether it is the one: a one-way answer made from a code (CHAP) is all that some doors
see. It must take the same time for every candidate."""


def match(
    credential: Credential, code: Typed, *, now: float, window: int = DEFAULT_WINDOW, max_drift: int = MAX_DRIFT
) -> Match:
    """Find the step of ``code``, comparing in constant time and always trying the whole window.

    A ``code`` that is text is ASCII digits (:mod:`mfa_core.passcode` saw to that). The steps beyond the window are computed
    only when the window did not hold the code, that is, for a code that is refused anyway unless it completes a
    resynchronisation.
    """
    if isinstance(code, str) and len(code) != credential.digits:
        return Match(Fit.NONE, -1, credential.drift_steps)
    if credential.kind is FactorKind.HOTP:
        return _match_hotp(credential, code)
    present = step_at(now, credential.period_s)
    centre = present + credential.drift_steps
    found = _search(credential, code, range(centre - window, centre + window + 1))
    if found >= 0:
        return Match(Fit.NEW if found > credential.last_step else Fit.SPENT, found, credential.drift_steps)
    found = _search(credential, code, range(present - max_drift - window, present + max_drift + window + 1))
    if found < 0:
        return Match(Fit.NONE, -1, credential.drift_steps)
    if found <= credential.last_step:
        return Match(Fit.SPENT, found, credential.drift_steps)
    if credential.resync_step >= 0 and found == credential.resync_step + 1:
        return Match(Fit.CONSECUTIVE, found, max(-max_drift, min(max_drift, found - present)))
    return Match(Fit.OUTSIDE, found, credential.drift_steps)


def _match_hotp(credential: Credential, code: Typed) -> Match:
    following = credential.last_step + 1
    found = _search(credential, code, range(following, following + HOTP_LOOK_AHEAD))
    if found >= 0:
        return Match(Fit.NEW, found, 0)
    found = _search(credential, code, range(max(0, following - HOTP_LOOK_AHEAD), following))
    if found >= 0:
        return Match(Fit.SPENT, found, 0)
    found = _search(credential, code, range(following + HOTP_LOOK_AHEAD, following + HOTP_RESYNC_LOOK_AHEAD))
    if found < 0:
        return Match(Fit.NONE, -1, 0)
    if credential.resync_step >= 0 and found == credential.resync_step + 1:
        return Match(Fit.CONSECUTIVE, found, 0)
    return Match(Fit.OUTSIDE, found, 0)


def _search(credential: Credential, code: Typed, steps: Iterable[int]) -> int:
    """The highest of ``steps`` whose code this is, or -1. Every step is computed: the time says nothing about which fits."""
    if credential.material is not _SEED:
        return _search_book(credential, code, steps)
    one_code = codes_of(credential)
    fits = partial(hmac.compare_digest, code) if isinstance(code, str) else code
    found = -1
    for step in steps:
        if step >= 0 and fits(one_code(step)):
            found = step
    return found


def _search_book(credential: Credential, code: Typed, steps: Iterable[int]) -> int:
    """As :func:`_search`, where no secret is. What a secret would cost is spent on one that nobody has, and where there is no
    code the comparison is not looked at: a host must not show by its time what it holds of whom."""
    spend = codes_of(replace(credential, secret=_NOBODYS))
    fits = partial(hmac.compare_digest, code) if isinstance(code, str) else code
    held = credential.material is Material.CODEBOOK and credential.kind is FactorKind.TOTP
    found = -1
    for step in steps:
        if step < 0:
            continue
        instead = spend(step)
        known = codebook.code(credential, step) if held else None
        if fits(instead if known is None else known) and known is not None:
            found = step
    return found


_SEED = Material.SEED
_NOBODYS = Secret(b"nobody has this secret")


def resynchronise(
    credential: Credential, first: str, second: str, *, now: float, max_drift: int = MAX_DRIFT
) -> Credential | None:
    """The credential after two consecutive codes typed for an administrator, or None when they do not fit.

    The first is searched ``max_drift`` steps to both sides (TOTP), or in the next 100 counters (HOTP). Both are spent by it.
    """
    if len(first) != credential.digits or len(second) != credential.digits or credential.material is not _SEED:
        return None
    one_code = codes_of(credential)
    totp = credential.kind is FactorKind.TOTP
    present = step_at(now, credential.period_s) if totp else credential.last_step + 1
    reach = max_drift if totp else HOTP_RESYNC_LOOK_AHEAD
    lowest = max(0, present - reach, credential.last_step + 1)
    for step in range(lowest, present + reach + 1):
        if hmac.compare_digest(one_code(step), first) and hmac.compare_digest(one_code(step + 1), second):
            drift = min(max_drift, step + 1 - present) if totp else 0
            return replace(credential, last_step=step + 1, drift_steps=drift, resync_step=-1)
    return None


def check_parameters(secret: Secret, *, digits: int, period_s: int, minimum_bits: int = MIN_SECRET_BITS) -> None:
    """Refuse parameters that no credential of mfad may have.

    Raises:
        InvalidInput: says which, what was seen, and what was expected; never the secret.
    """
    bits = len(secret) * 8
    if bits < minimum_bits:
        raise InvalidInput(f"the secret has {bits} bits, expected at least {minimum_bits} (NIST SP 800-63B-4 section 3.1.4.1)")
    if len(secret) > MAX_SECRET_BYTES:
        raise InvalidInput(f"the secret has {len(secret)} bytes, expected at most {MAX_SECRET_BYTES}")
    if digits not in DIGITS:
        raise InvalidInput(f"digits is {digits}, expected 6, 7 or 8")
    if period_s not in {*PERIODS_S, 0}:
        raise InvalidInput(f"the period is {period_s} s, expected 30 or 60")
