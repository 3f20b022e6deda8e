"""Codes without their secret: a book says what the seed says inside its steps, and nothing outside them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core import codebook
from mfa_core.errors import InvalidInput
from mfa_core.model import Credential, CredentialState, Digest, FactorKind, Material
from mfa_core.oath import DIGITS, Fit, code_at, match
from mfa_core.secret import Secret

NOW = 1_700_000_040.0
STEP = 56_666_668
SEED = Credential(1, FactorKind.TOTP, CredentialState.ACTIVE, Secret(b"12345678901234567890"))


def book(credential: Credential, first_step: int, count: int) -> Credential:
    """The same credential as a host holds it that must not hold secrets."""
    return codebook.as_book(credential, first_step, Secret(codebook.pack(credential, first_step, count)))


@given(
    st.binary(min_size=1, max_size=64), st.sampled_from(list(Digest)), st.sampled_from(DIGITS), st.integers(0, 1 << 40),
    st.integers(0, 40), st.integers(-60, 60),
)  # fmt: skip
def test_a_book_says_what_the_seed_says(
    key: bytes, digest: Digest, digits: int, first: int, count: int, offset: int
) -> None:
    """Every digest and length; None one step before the book and one step after it."""
    seed = replace(SEED, secret=Secret(key), digest=digest, digits=digits)
    held = book(seed, first, count)

    step = first + offset
    inside = 0 <= offset < count
    assert codebook.code(held, step) == (code_at(seed, step) if inside else None)
    assert codebook.last_step(held) == first + count - 1
    assert len(held.secret) == count * codebook.width(digits)


def test_the_width_is_three_bytes_up_to_seven_digits() -> None:
    """9,999,999 fits into 24 bits, 99,999,999 does not."""
    assert [codebook.width(digits) for digits in DIGITS] == [3, 3, 4]


@given(st.integers(-12, 12), st.integers(-1, 3), st.integers(-3, 3), st.integers(-1, 25))
def test_matching_by_a_book_is_matching_by_the_seed(offset: int, spent: int, drift: int, reach: int) -> None:
    """As far as the book reaches, every fit is the same; what lies outside is no fit at all."""
    seed = replace(SEED, last_step=STEP + spent if spent >= 0 else -1, drift_steps=drift)
    held = book(seed, STEP - reach, 2 * reach + 1) if reach >= 0 else book(seed, STEP, 0)
    typed = code_at(seed, STEP + offset)

    by_seed, by_book = match(seed, typed, now=NOW), match(held, typed, now=NOW)

    if abs(offset) <= reach:
        assert by_book == by_seed
    else:
        assert by_book.fit is Fit.NONE


def test_what_a_code_is_compared_with_where_the_book_ends_opens_nothing() -> None:
    """The work that is spent there has an outcome; typing it must not be a way in."""
    nobody = replace(SEED, secret=Secret(b"nobody has this secret"))
    for held in (book(SEED, STEP - 100, 3), replace(SEED, secret=Secret(b""), material=Material.NONE)):
        for offset in range(-1, 2):
            assert match(held, code_at(nobody, STEP + offset), now=NOW).fit is Fit.NONE
            assert match(held, lambda candidate: True, now=NOW).fit is Fit.NONE


def test_every_material_takes_the_same_comparisons() -> None:
    """What a host holds of whom does not show in how often a veiled code is tried."""
    tried: dict[Material, int] = dict.fromkeys(Material, 0)
    held = {
        Material.SEED: SEED,
        Material.CODEBOOK: book(SEED, STEP - 1, 3),
        Material.NONE: replace(SEED, secret=Secret(b""), material=Material.NONE),
    }
    for material, credential in held.items():

        def count(candidate: str, material: Material = material) -> bool:
            assert len(candidate) == 6
            tried[material] += 1
            return False

        assert match(credential, count, now=NOW).fit is Fit.NONE
    assert len(set(tried.values())) == 1


def test_a_token_by_counter_has_no_book() -> None:
    """HOTP is never taken offline: neither packed, nor believed when a row says so."""
    token = replace(SEED, kind=FactorKind.HOTP, period_s=0)
    with pytest.raises(InvalidInput, match="expected a totp"):
        codebook.pack(token, 0, 10)

    forged = replace(book(SEED, 0, 200), kind=FactorKind.HOTP, period_s=0)
    assert match(forged, code_at(SEED, 0), now=NOW).fit is Fit.NONE


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (0, -1), (0, codebook.MAX_CODES + 1)])
def test_books_without_such_steps_are_refused(first: int, count: int) -> None:
    """Bounded, and no step before 1970."""
    with pytest.raises(InvalidInput, match="a codebook of"):
        codebook.pack(SEED, first, count)


def test_a_book_is_no_seed() -> None:
    """No book is made of a book, and half a code is refused."""
    with pytest.raises(InvalidInput, match="whose seed is here"):
        codebook.pack(book(SEED, 0, 3), 0, 3)
    with pytest.raises(InvalidInput, match="a multiple of 3"):
        codebook.as_book(SEED, 0, Secret(b"1234"))


def test_octets_that_are_no_code_fit_nothing() -> None:
    """Three bytes hold up to 16,777,215: what has more digits than the code is no code."""
    damaged = codebook.as_book(SEED, STEP, Secret(b"\xff\xff\xff" * 3))

    assert codebook.code(damaged, STEP) is None
    assert match(damaged, "777215", now=NOW).fit is Fit.NONE


def test_a_book_shows_nothing_when_printed() -> None:
    """It holds codes that are still to come."""
    held = book(SEED, STEP, 3)

    assert code_at(SEED, STEP) not in repr(held)
    assert "Secret(...)" in repr(held)
