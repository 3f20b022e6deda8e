"""Which step a code belongs to: the RFCs' tables, the window, resynchronisation, and no step twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core import oath
from mfa_core.code_generation import codes_of
from mfa_core.errors import InvalidInput
from mfa_core.model import Credential, CredentialState, Digest, FactorKind
from mfa_core.oath import HOTP_LOOK_AHEAD, HOTP_RESYNC_LOOK_AHEAD, MAX_DRIFT, Fit, Match, code_at, match, step_at
from mfa_core.secret import Secret

VECTORS = Path(__file__).parents[1] / "vectors"
RFC4226 = json.loads((VECTORS / "rfc4226.json").read_text())
RFC6238 = json.loads((VECTORS / "rfc6238.json").read_text())

NOW = 1_700_000_040.0
STEP = 56_666_668

TOTP = Credential(1, FactorKind.TOTP, CredentialState.ACTIVE, Secret(b"12345678901234567890"))
HOTP = replace(TOTP, kind=FactorKind.HOTP, period_s=0)


def fit(credential: Credential, step: int, **how: object) -> Match:
    """Match the code of ``step`` at NOW."""
    return match(credential, code_at(credential, step), now=NOW, **how)  # type: ignore[arg-type]


@given(
    st.binary(max_size=200), st.sampled_from(list(Digest)), st.sampled_from(oath.DIGITS), st.integers(0, (1 << 64) - 30),
)  # fmt: skip
def test_the_search_computes_what_pyotp_does(key: bytes, digest: Digest, digits: int, counter: int) -> None:
    """Two ways to one code: pyotp's, and the one that logins take. Keys shorter and longer than the hash's block."""
    credential = replace(HOTP, secret=Secret(key), digest=digest, digits=digits, last_step=counter - 1)

    fast = codes_of(credential)
    for offset in range(3):
        assert fast(counter + offset) == code_at(credential, counter + offset)


def test_a_veiled_code_is_matched_like_a_plain_one() -> None:
    """What a one-way answer was made from is found by trying: every fit, TOTP and HOTP, and always the whole window."""
    tried: list[str] = []

    def veil(code: str) -> Callable[[str], bool]:
        def is_it(candidate: str) -> bool:
            tried.append(candidate)
            return candidate == code

        return is_it

    token = replace(HOTP, last_step=20, resync_step=40)
    phone = replace(TOTP, last_step=STEP - 1, resync_step=STEP + 4)
    for credential, steps in ((token, (5, 15, 21, 30, 35, 41, 500)), (phone, (-100, -1, 0, 1, 4, 5, 100))):
        for step in steps:
            number = step if credential is token else STEP + step
            code = code_at(credential, number)
            tried.clear()
            assert match(credential, veil(code), now=NOW) == match(credential, code, now=NOW)
            assert len(tried) >= (10 if credential is token else 3)
            assert len(set(map(len, tried))) == 1


@pytest.mark.parametrize("vector", RFC4226["vectors"], ids=lambda v: f"counter-{v['counter']}")
@pytest.mark.parametrize("digits", [6, 7, 8])
def test_rfc_4226_appendix_d(vector: dict[str, int | str], digits: int) -> None:
    """Every code of the table, and with 7 and 8 digits what its truncated value gives."""
    credential = replace(HOTP, secret=Secret(bytes.fromhex(RFC4226["secret_hex"])), digits=digits)

    code = code_at(credential, int(vector["counter"]))

    assert code == str(int(vector["truncated"]) % 10**digits).zfill(digits)
    assert code.endswith(str(vector["code"]))


@pytest.mark.parametrize("vector", RFC6238["vectors"], ids=lambda v: f"{v['digest']}-at-{v['time']}")
def test_rfc_6238_appendix_b(vector: dict[str, int | str]) -> None:
    """Every code of the table is computed, and accepted at its time as its step."""
    digest = Digest(vector["digest"])
    credential = replace(
        TOTP, secret=Secret(bytes.fromhex(RFC6238["secrets_hex"][digest])), digest=digest, digits=RFC6238["digits"]
    )
    now = float(vector["time"])

    assert step_at(now, 30) == vector["step"]
    assert code_at(credential, step_at(now, 30)) == vector["code"]
    assert match(credential, str(vector["code"]), now=now) == Match(Fit.NEW, int(vector["step"]), 0)


@pytest.mark.parametrize("bits", [80, 96, 112, 128, 160, 1024])
def test_short_secrets_of_old_imports_verify(bits: int) -> None:
    """pyotp refuses less than 112 bits; google-authenticator wrote 80 for years."""
    credential = replace(TOTP, secret=Secret(bytes(range(bits // 8))))

    assert fit(credential, STEP).fit is Fit.NEW


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"secret": Secret(b"x" * 13)}, "104 bits"),
        ({"secret": Secret(b"")}, "0 bits"),
        ({"secret": Secret(b"x" * 129)}, "129 bytes"),
        ({"digits": 5}, "digits is 5"),
        ({"digits": 9}, "digits is 9"),
        ({"period_s": 29}, "29 s"),
        ({"period_s": -30}, "-30 s"),
    ],
    ids=["short", "empty", "long", "five-digits", "nine-digits", "period-29", "negative-period"],
)
def test_parameters_that_no_credential_may_have_are_refused(change: dict[str, object], seen: str) -> None:
    """core-5-63: with what was seen, and without the secret."""
    given_ = {"secret": Secret(b"x" * 20), "digits": 6, "period_s": 30} | change

    with pytest.raises(InvalidInput, match=seen) as refused:
        oath.check_parameters(given_.pop("secret"), **given_)  # type: ignore[arg-type]

    assert "xxx" not in str(refused.value)


def test_a_legacy_secret_passes_only_where_it_is_asked_for() -> None:
    """80 bits are accepted with the lower bound said aloud, 72 never."""
    oath.check_parameters(Secret(b"x" * 10), digits=6, period_s=30, minimum_bits=oath.MIN_LEGACY_SECRET_BITS)

    with pytest.raises(InvalidInput):
        oath.check_parameters(Secret(b"x" * 9), digits=6, period_s=30, minimum_bits=oath.MIN_LEGACY_SECRET_BITS)


# Time steps


@pytest.mark.parametrize(
    ("now", "period_s", "step"),
    [
        (0.0, 30, 0), (29.999, 30, 0), (30.0, 30, 1), (59.0, 60, 0), (60.0, 60, 1),
        (2.0**31, 30, 71_582_788), (253_402_300_799.0, 30, 8_446_743_359), (-1.0, 30, -1),
    ],
    ids=["epoch", "last-of-0", "first-of-1", "minute-0", "minute-1", "2038", "year-9999", "before-1970"],
)  # fmt: skip
def test_steps_count_from_1970(now: float, period_s: int, step: int) -> None:
    """core-5-21, core-5-22: no time zone, no 32 bits, no end of the calendar."""
    assert step_at(now, period_s) == step


@pytest.mark.parametrize("now", [-1e9, -31.0, 0.0, 2.0**31, 253_402_300_799.0], ids=["1938", "1969", "1970", "2038", "9999"])
def test_a_clock_from_another_age_ends_in_a_clean_answer(now: float) -> None:
    """core-5-22: before 1970 nothing fits; at any other time the code of that time does."""
    if now < 0:
        assert match(TOTP, "000000", now=now).fit is Fit.NONE
    else:
        assert match(TOTP, code_at(TOTP, step_at(now, 30)), now=now).fit is Fit.NEW


def test_a_code_before_the_first_step_is_not_tried() -> None:
    """In the first seconds of 1970 the window holds no negative step, whose bytes would not exist."""
    assert match(TOTP, code_at(TOTP, 1), now=0.0) == Match(Fit.NEW, 1, 0)


@pytest.mark.parametrize("period_s", [30, 60])
@pytest.mark.parametrize("digits", [6, 8])
@pytest.mark.parametrize("digest", list(Digest))
@pytest.mark.parametrize("offset", range(-12, 13))
def test_the_window_holds_three_codes(offset: int, digest: Digest, digits: int, period_s: int) -> None:
    """One step on each side; up to eleven away a code is remembered and refused, beyond it is nothing."""
    credential = replace(TOTP, digest=digest, digits=digits, period_s=period_s)
    present = step_at(NOW, period_s)

    found = fit(credential, present + offset)

    if abs(offset) <= 1:
        assert found == Match(Fit.NEW, present + offset, 0)
    elif abs(offset) <= MAX_DRIFT + 1:
        assert found == Match(Fit.OUTSIDE, present + offset, 0)
    else:
        assert found == Match(Fit.NONE, -1, 0)


@pytest.mark.parametrize(("window", "accepted"), [(0, [0]), (1, [-1, 0, 1]), (2, [-2, -1, 0, 1, 2])])
def test_the_window_is_what_is_asked_for(window: int, accepted: list[int]) -> None:
    """An administrator may narrow it to the present step."""
    assert [o for o in range(-5, 6) if fit(TOTP, STEP + o, window=window).fit is Fit.NEW] == accepted


@pytest.mark.parametrize("drift", [-10, -3, 0, 4, 10])
def test_the_window_moves_with_the_drift(drift: int) -> None:
    """A phone that is minutes off is met where it is."""
    drifted = replace(TOTP, drift_steps=drift)

    assert [o for o in range(-13, 14) if fit(drifted, STEP + o).fit is Fit.NEW] == [drift - 1, drift, drift + 1]


def test_no_spent_step_is_new() -> None:
    """core-5-1, core-5-3: the watermark and everything before it is spent."""
    spent = replace(TOTP, last_step=STEP)

    assert [fit(spent, STEP + o).fit for o in (-11, -1, 0, 1)] == [Fit.SPENT, Fit.SPENT, Fit.SPENT, Fit.NEW]


@pytest.mark.parametrize("code", ["", "1", "12345", "1234567", "12345678", "1234567890", "0" * 10_000])
def test_a_code_of_another_length_is_nothing(code: str) -> None:
    """core-5-8: without any HMAC."""
    for credential in (TOTP, HOTP):
        assert match(credential, code, now=NOW).fit is Fit.NONE


# Drift


def test_two_consecutive_codes_move_the_drift() -> None:
    """The first is refused and remembered, the second is accepted, and the window is then around it."""
    first = fit(TOTP, STEP + 5)
    second = fit(replace(TOTP, resync_step=first.step), STEP + 6)

    assert first.fit is Fit.OUTSIDE
    assert second == Match(Fit.CONSECUTIVE, STEP + 6, 6)
    moved = TOTP.spent_at(second.step, second.drift_steps)
    assert match(moved, code_at(TOTP, STEP + 7), now=NOW + 30).fit is Fit.NEW


@pytest.mark.parametrize("second", [5, 7, 4, -5], ids=["the-same", "one-left-out", "the-one-before", "another"])
def test_only_the_next_code_completes_a_resynchronisation(second: int) -> None:
    """Everything else is another first code."""
    remembered = replace(TOTP, resync_step=STEP + 5)

    assert fit(remembered, STEP + second).fit is Fit.OUTSIDE


@pytest.mark.parametrize("far", [11, -11])
def test_drift_is_bounded(far: int) -> None:
    """The code eleven steps away still fits, because the window around ten holds it."""
    remembered = replace(TOTP, resync_step=STEP + far - 1)

    assert fit(remembered, STEP + far) == Match(Fit.CONSECUTIVE, STEP + far, 10 if far > 0 else -10)


def test_a_spent_code_outside_the_window_begins_no_resynchronisation() -> None:
    """Codes that were seen before the clock went back cannot walk the drift to where they are."""
    spent = replace(TOTP, last_step=STEP + 8)

    assert fit(spent, STEP + 5).fit is Fit.SPENT
    assert fit(replace(spent, resync_step=STEP + 5), STEP + 6).fit is Fit.SPENT


# Codes that two steps share


_TWICE = (125_769, 56_666_672, 56_666_673)
"""The secret SHA-1("125769") gives 208521 in two consecutive steps. Found by search."""


def test_a_code_of_two_steps_spends_the_later_one() -> None:
    """Then neither of them is new: the code could be typed once only, whichever step was meant."""
    salt, first, second = _TWICE
    credential = replace(TOTP, secret=Secret(hashlib.sha1(str(salt).encode()).digest()))
    code = code_at(credential, first)
    assert code == code_at(credential, second)
    now = first * 30.0

    found = match(credential, code, now=now)

    assert code == "208521"
    assert found == Match(Fit.NEW, second, 0)
    assert match(credential.spent_at(second, 0), code, now=now).fit is Fit.SPENT


def test_a_code_of_a_spent_and_a_new_step_is_new_once() -> None:
    """The later step was never accepted; accepting it spends it."""
    salt, first, second = _TWICE
    credential = replace(TOTP, secret=Secret(hashlib.sha1(str(salt).encode()).digest()), last_step=first)

    found = match(credential, code_at(credential, first), now=second * 30.0)

    assert found == Match(Fit.NEW, second, 0)


# HOTP


@pytest.mark.parametrize("last", [-1, 0, 41])
@pytest.mark.parametrize("ahead", [0, 1, HOTP_LOOK_AHEAD - 1])
def test_hotp_looks_ahead(last: int, ahead: int) -> None:
    """Codes that a token showed and nobody typed are passed over (RFC 4226 section 7.4)."""
    token = replace(HOTP, last_step=last)

    assert fit(token, last + 1 + ahead) == Match(Fit.NEW, last + 1 + ahead, 0)


def test_hotp_never_looks_back() -> None:
    """The last counters are known as spent, the ones long before as nothing."""
    token = replace(HOTP, last_step=41)

    assert [fit(token, n).fit for n in (41, 32, 31, 0)] == [Fit.SPENT, Fit.SPENT, Fit.NONE, Fit.NONE]


def test_hotp_resynchronises_by_two_consecutive_codes() -> None:
    """Ten to a hundred ahead, the next one opens; the one after a gap does not."""
    token = replace(HOTP, last_step=9)
    first = fit(token, 60)
    assert first == Match(Fit.OUTSIDE, 60, 0)
    remembered = replace(token, resync_step=first.step)

    assert fit(remembered, 61) == Match(Fit.CONSECUTIVE, 61, 0)
    assert fit(remembered, 62).fit is Fit.OUTSIDE
    assert fit(remembered, 60).fit is Fit.OUTSIDE
    assert fit(token, 10 + HOTP_RESYNC_LOOK_AHEAD).fit is Fit.NONE


def test_hotp_ignores_the_clock() -> None:
    """Whatever it shows."""
    assert match(HOTP, code_at(HOTP, 3), now=-1e12) == match(HOTP, code_at(HOTP, 3), now=1e12)


# Resynchronisation by an administrator


@pytest.mark.parametrize("offset", [-10, -2, 0, 2, 9])
def test_an_administrator_resynchronises_a_totp_by_two_codes(offset: int) -> None:
    """Both are spent, and the drift is where the second one is."""
    step = STEP + offset

    after = oath.resynchronise(TOTP, code_at(TOTP, step), code_at(TOTP, step + 1), now=NOW)

    assert after is not None
    assert (after.last_step, after.drift_steps, after.resync_step) == (step + 1, offset + 1, -1)


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (1, 0), (0, 2)], ids=["the-same", "reversed", "one-left-out"]
)
def test_two_codes_that_do_not_follow_resynchronise_nothing(first: int, second: int) -> None:
    """Nor does one code typed twice."""
    for credential, base in ((TOTP, STEP), (HOTP, 5)):
        codes = code_at(credential, base + first), code_at(credential, base + second)
        assert oath.resynchronise(credential, *codes, now=NOW) is None


def test_spent_codes_resynchronise_nothing() -> None:
    """Two codes that a stranger wrote down when they were typed move nothing."""
    token, phone = replace(HOTP, last_step=50), replace(TOTP, last_step=STEP)

    assert oath.resynchronise(token, code_at(token, 49), code_at(token, 50), now=NOW) is None
    assert oath.resynchronise(token, code_at(token, 50), code_at(token, 51), now=NOW) is None
    assert oath.resynchronise(phone, code_at(phone, STEP - 1), code_at(phone, STEP), now=NOW) is None


def test_codes_of_another_length_resynchronise_nothing() -> None:
    """Eight digits of a six-digit token."""
    assert oath.resynchronise(HOTP, "12345678", "12345678", now=NOW) is None


# Properties

_credentials = st.builds(
    lambda kind, last, drift, resync, digits, period_s: replace(
        TOTP, kind=kind, last_step=last, drift_steps=drift, resync_step=resync, digits=digits,
        period_s=0 if kind is FactorKind.HOTP else period_s,
    ),
    st.sampled_from([FactorKind.TOTP, FactorKind.HOTP]), st.integers(-1, 2**62), st.integers(-10, 10),
    st.integers(-1, 2**40), st.sampled_from([6, 7, 8]), st.sampled_from([30, 60]),
)  # fmt: skip


@given(_credentials, st.from_regex(r"[0-9]{0,12}", fullmatch=True), st.floats(-1e12, 1e12))
def test_digits_never_raise(credential: Credential, code: str, now: float) -> None:
    """At any time, against any credential, there is an answer, and a step that it calls new is above the watermark."""
    found = match(credential, code, now=now)

    assert (found.step == -1) is (found.fit is Fit.NONE)
    if found.fit in {Fit.NEW, Fit.CONSECUTIVE}:
        assert found.step > credential.last_step
        assert abs(found.drift_steps) <= MAX_DRIFT


_moves = st.lists(
    st.tuples(
        st.one_of(st.integers(-120, 120), st.sampled_from([3_600, -3_600, 86_400 * 30])),  # the server's clock moves
        st.integers(-15, 15),  # which code is typed, steps from the server's present
    ),
    min_size=1,
    max_size=40,
)


@given(_moves, st.sampled_from([0, 1, 2]))
def test_no_step_is_ever_accepted_twice(moves: list[tuple[int, int]], window: int) -> None:
    """core-5-1 to core-5-3, core-5-20: under any sequence of codes and clock moves, accepted steps only rise, and the drift
    stays within its bound."""
    credential, now, accepted = TOTP, NOW, []
    for clock, offset in moves:
        now += clock
        code = code_at(credential, max(0, step_at(now, 30) + offset))
        for _ in range(2):
            found = match(credential, code, now=now, window=window)
            if found.fit in {Fit.NEW, Fit.CONSECUTIVE}:
                accepted.append(found.step)
                credential = credential.spent_at(found.step, found.drift_steps)
            elif found.fit is Fit.OUTSIDE:
                credential = replace(credential, resync_step=found.step)
            assert abs(credential.drift_steps) <= MAX_DRIFT

    assert accepted == sorted(set(accepted))


@given(st.lists(st.integers(-12, 130), min_size=1, max_size=40))
def test_no_counter_is_ever_accepted_twice(offsets: list[int]) -> None:
    """The same for tokens that count."""
    credential, accepted = replace(HOTP, last_step=100), []
    for offset in offsets:
        found = fit(credential, credential.last_step + offset)
        if found.fit in {Fit.NEW, Fit.CONSECUTIVE}:
            accepted.append(found.step)
            credential = credential.spent_at(found.step, 0)
        elif found.fit is Fit.OUTSIDE:
            credential = replace(credential, resync_step=found.step)

    assert accepted == sorted(set(accepted))
