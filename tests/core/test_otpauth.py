"""Key URIs are written so that every app reads them alike, and read strictly."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.errors import InvalidInput
from mfa_core.model import Digest, FactorKind
from mfa_core.otpauth import OathKey, decode_base32, decode_key_uri, encode_base32, encode_key_uri
from mfa_core.secret import Secret

GOOD = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"


def _uri(**changes: str) -> str:
    values = {"secret": GOOD, "issuer": "ACME", "algorithm": "SHA1", "digits": "6", "period": "30"} | changes
    return "otpauth://totp/ACME:alice?" + "&".join(f"{k}={v}" for k, v in values.items() if v != "absent")


def test_issuer_and_account_are_escaped_and_defaults_are_left_out() -> None:
    """Blanks become %20 (a plus is shown as a plus by several apps); what all apps take for granted makes no QR code larger."""
    key = OathKey(FactorKind.TOTP, Secret(b"12345678901234567890"), "al&ice?x=1", "ACME & Co #1")

    uri = encode_key_uri(key).reveal().decode()

    assert uri == (
        "otpauth://totp/ACME%20%26%20Co%20%231:al%26ice%3Fx%3D1?secret=" + GOOD + "&issuer=ACME%20%26%20Co%20%231"
    )


@pytest.mark.parametrize("part", ["account", "issuer"])
def test_a_colon_in_a_label_is_refused(part: str) -> None:
    """``a:b`` as an account would read as issuer ``a``."""
    names = {"account": "alice", "issuer": "ACME"} | {part: "a:b"}

    with pytest.raises(InvalidInput, match=part):
        encode_key_uri(OathKey(FactorKind.TOTP, Secret(b"x" * 20), names["account"], names["issuer"]))


@pytest.mark.parametrize(
    ("uri", "seen"),
    [
        (_uri(period="0"), "period is 0"),
        (_uri(period="-30"), "period"),
        (_uri(period="45"), "45"),
        (_uri(digits="99"), "99"),
        (_uri(digits="6.0"), "digits"),
        (_uri(digits="٦"), "digits"),
        (_uri(algorithm="MD5"), "algorithm"),
        (_uri(secret="GEZDGNBV"), "40 bits"),
        (_uri(secret="absent"), "no secret"),
        (_uri(secret="0189!"), "base32"),
        (_uri() + "&secret=" + GOOD, "twice"),
        (_uri() + "&DIGITS=8", "twice"),
        (_uri() + "#x", "fragment"),
        (_uri(secret="%FF"), "UTF-8"),
        (f"otpauth://totp/?secret={GOOD}", "account"),
        (f"otpauth://hotp/alice?secret={GOOD}", "no counter"),
        (f"otpauth://hotp/alice?secret={GOOD}&counter=-5", "counter"),
        (f"otpauth://hotp/alice?secret={GOOD}&counter=9223372036854775808", "counter"),
        (f"otpauth://steam/alice?secret={GOOD}", "neither"),
        (f"https://totp/alice?secret={GOOD}", "not a key URI"),
        ("otpauth://totp/a?" + "x" * 4000, "characters"),
    ],
)
def test_a_bad_uri_is_refused_with_what_is_wrong_and_without_its_secret(uri: str, seen: str) -> None:
    """Each refusal names the parameter."""
    with pytest.raises(InvalidInput, match=seen) as caught:
        decode_key_uri(uri)

    assert GOOD not in str(caught.value)


@pytest.mark.parametrize("name", ["sha256", "SHA256", "Sha-256", "HmacSHA256"])
def test_digest_names_are_read_in_any_case(name: str) -> None:
    """Apps write them in four ways."""
    assert decode_key_uri(_uri(algorithm=name)).digest is Digest.SHA256


def test_a_secret_in_groups_is_read() -> None:
    """People copy what the screen shows: groups of four in lower case."""
    assert decode_base32("gezd gnbv-gy3t qojq GEZDGNBVGY3TQOJQ").reveal() == b"12345678901234567890"


def test_letters_outside_ascii_do_not_become_ascii() -> None:
    """``str.upper`` makes SS of a sharp s."""
    with pytest.raises(InvalidInput):
        decode_base32("ß" * 16)


def test_a_legacy_secret_needs_a_lower_bound_said_aloud() -> None:
    """80 bits are what google-authenticator wrote for years."""
    uri = _uri(secret="GEZDGNBVGY3TQOJQ")

    with pytest.raises(InvalidInput, match="80 bits"):
        decode_key_uri(uri)

    assert len(decode_key_uri(uri, minimum_bits=80).secret) == 10


_names = st.text(st.characters(codec="utf-8", exclude_characters=":"), min_size=1, max_size=60).filter(
    lambda t: t == t.strip() and t != ""
)
_keys = st.builds(
    lambda kind, raw, account, issuer, digest, digits, number: OathKey(
        kind, Secret(raw), account, issuer, digest, digits,
        period_s=0 if kind is FactorKind.HOTP else 30, counter=number if kind is FactorKind.HOTP else 0,
    ),
    st.sampled_from([FactorKind.TOTP, FactorKind.HOTP]), st.binary(min_size=14, max_size=64), _names,
    st.one_of(st.just(""), _names), st.sampled_from(Digest), st.sampled_from([6, 7, 8]), st.integers(0, 2**63 - 1),
)


@given(_keys)
def test_what_is_written_reads_back(key: OathKey) -> None:
    """Decode after encode is the identity."""
    back = decode_key_uri(encode_key_uri(key).reveal().decode())

    assert back.secret.same_as(key.secret)
    assert (back.kind, back.account, back.issuer, back.digest, back.digits, back.period_s, back.counter) == (
        key.kind, key.account, key.issuer, key.digest, key.digits, key.period_s, key.counter
    )


@given(st.one_of(st.text(max_size=200), st.text(max_size=120).map(lambda t: "otpauth://totp/a?secret=" + GOOD + "&" + t)))
def test_any_text_is_a_key_or_a_refusal(text: str) -> None:
    """No other exception leaves the parser."""
    with contextlib.suppress(InvalidInput):
        decode_key_uri(text)


@given(st.binary(max_size=80))
def test_base32_reads_back(raw: bytes) -> None:
    """For every length."""
    assert decode_base32(encode_base32(Secret(raw)).reveal().decode()).reveal() == raw
