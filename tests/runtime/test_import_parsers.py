"""Files of other products become rows or problems, whatever their bytes are."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.model import Digest, FactorKind
from mfa_runtime.imports.csv_table import Column, Encoding, parse_csv
from mfa_runtime.imports.google_authenticator import parse_google_authenticator
from mfa_runtime.imports.oath_users import parse_oath_users
from mfa_runtime.imports.otpauth_list import parse_otpauth_list
from mfa_runtime.imports.row import ImportedCredential, ImportRow, RowNote, RowProblem

B32 = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
HEX = "3132333435363738393031323334353637383930"
KEY = b"12345678901234567890"

Parser = Callable[[BinaryIO], Iterator[ImportRow]]


def google(text: str, minimum_bits: int = 112) -> list[ImportRow]:
    return list(parse_google_authenticator(io.BytesIO(text.encode()), "alice", minimum_bits=minimum_bits))


def one(rows: Iterator[ImportRow] | list[ImportRow]) -> ImportedCredential:
    found = list(rows)
    assert len(found) == 1, found
    assert isinstance(found[0], ImportedCredential), found
    return found[0]


def problem(rows: Iterator[ImportRow] | list[ImportRow]) -> RowProblem:
    found = list(rows)
    assert len(found) == 1, found
    assert isinstance(found[0], RowProblem), found
    return found[0]


def test_google_authenticator_keeps_the_highest_used_step() -> None:
    """What was used there is used here."""
    row = one(google(f'{B32}\n" RATE_LIMIT 3 30\n" DISALLOW_REUSE 55 57 56\n" TOTP_AUTH\n" TIME_SKEW -3\n" STEP_SIZE 60\n'))

    assert row.secret.reveal() == KEY
    assert (row.username, row.kind, row.period_s, row.last_step, row.drift_steps) == ("alice", FactorKind.TOTP, 60, 57, -3)


def test_google_authenticator_counts_on_from_its_counter() -> None:
    """The counter in the file is the next one."""
    row = one(google(f'{B32}\n" HOTP_COUNTER 7\n'))

    assert (row.kind, row.last_step, row.period_s) == (FactorKind.HOTP, 6, 0)


def test_scratch_codes_are_noted_and_left_out() -> None:
    """They have 26 bits."""
    rows = google(f'{B32}\n" TOTP_AUTH\n12345678\n87654321\n')

    assert isinstance(rows[0], ImportedCredential)
    assert isinstance(rows[1], RowNote)
    assert "2 scratch codes" in rows[1].message


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("", "first line is empty"),
        (f"{B32}\n", "neither"),
        ('not base32!\n" TOTP_AUTH\n', "base32"),
        (f'{B32}\n" TOTP_AUTH\n" STEP_SIZE 0\n', "STEP_SIZE"),
        (f'{B32}\n" TOTP_AUTH\n" STEP_SIZE 45\n', "45"),
        (f'{B32}\n" HOTP_COUNTER -1\n', "HOTP_COUNTER"),
        (f'{B32}\n" TOTP_AUTH\nroot:x:0:0\n', "expected an option"),
        ('GEZDGNBVGY3TQOJQ\n" TOTP_AUTH\n', "80 bits"),
    ],
)
def test_a_bad_google_authenticator_file_is_one_problem(text: str, seen: str) -> None:
    """With what is wrong, and nothing of the secret."""
    found = problem(google(text))

    assert seen in found.message
    assert B32 not in found.message


def test_a_legacy_secret_is_taken_when_it_is_allowed() -> None:
    """80 bits, as older versions wrote them."""
    assert len(one(google('GEZDGNBVGY3TQOJQ\n" TOTP_AUTH\n', minimum_bits=80)).secret) == 10


def test_uris_are_read_line_by_line() -> None:
    """A bad line is a problem with its number, and the next one is read."""
    text = f"# export\n\notpauth://totp/ACME:alice?secret={B32}&issuer=ACME\nrubbish\notpauth://hotp/bob?secret={B32}&counter=9\n"

    rows = list(parse_otpauth_list(io.BytesIO(text.encode())))

    first, bad, second = rows
    assert isinstance(first, ImportedCredential)
    assert (first.line, first.username, first.label) == (3, "alice", "ACME")
    assert isinstance(bad, RowProblem)
    assert bad.line == 4
    assert isinstance(second, ImportedCredential)
    assert (second.username, second.last_step) == ("bob", 8)


@pytest.mark.parametrize(
    ("line", "kind", "digits", "period_s", "last_step"),
    [
        (f"HOTP alice - {HEX}", FactorKind.HOTP, 6, 0, -1),
        (f"HOTP/E/8 alice - {HEX} 5", FactorKind.HOTP, 8, 0, 4),
        (f"HOTP/E alice - {HEX} 5 328482 2009-12-07T23:23:49L", FactorKind.HOTP, 6, 0, 5),
        (f"HOTP/T30 alice + {HEX}", FactorKind.TOTP, 6, 30, -1),
        (f"HOTP/T60/7\talice\t-\t{HEX}\t0\t328482\t2009-12-07T23:23:49L", FactorKind.TOTP, 7, 60, -1),
    ],
)
def test_the_usersfile_of_pam_oath_is_read(
    line: str, kind: FactorKind, digits: int, period_s: int, last_step: int
) -> None:
    """A counter with a code behind it is used; one without is the next (liboath, usersfile.c)."""
    row = one(parse_oath_users(io.BytesIO(line.encode())))

    assert (row.username, row.kind, row.digits, row.period_s, row.last_step) == ("alice", kind, digits, period_s, last_step)
    assert row.secret.reveal() == KEY


@pytest.mark.parametrize("line", ["HOTP alice -", f"MOTP alice - {HEX}", "HOTP alice - xyz", f"HOTP alice - {HEX} -1",
                                  f"HOTP/T45 alice - {HEX}", "HOTP alice - 3132333435"])  # fmt: skip
def test_a_bad_line_of_a_usersfile_is_a_problem(line: str) -> None:
    """And nothing else."""
    problem(parse_oath_users(io.BytesIO(line.encode())))


def test_a_pin_is_noted() -> None:
    """It is not imported, and the administrator should know."""
    rows = list(parse_oath_users(io.BytesIO(f"HOTP alice 1234 {HEX}".encode())))

    assert isinstance(rows[1], RowNote)
    assert "1234" not in rows[1].message


def test_a_header_names_the_columns_in_any_order() -> None:
    """Spellings of several products, a mark of Windows, and a quoted label."""
    text = f'\ufeffSerial,Login,Algorithm,Secret,OtpLen,Type\n"Key, blue",alice,SHA256,{B32},8,TOTP\n'

    row = one(parse_csv(io.BytesIO(text.encode())))

    assert (row.username, row.label, row.digest, row.digits) == ("alice", "Key, blue", Digest.SHA256, 8)


def test_the_oath_csv_needs_to_be_told_who_the_users_are() -> None:
    """Serial, secret, type, digits, counter: no column is a user."""
    text = f"alice,{HEX},hotp,6,41\n".encode()

    assert "--columns" in problem(parse_csv(io.BytesIO(text))).message
    columns = (Column.USER, Column.SECRET, Column.TYPE, Column.DIGITS, Column.PERIOD_OR_COUNTER)
    row = one(parse_csv(io.BytesIO(text), columns=columns, encoding=Encoding.HEX))
    assert (row.username, row.kind, row.last_step) == ("alice", FactorKind.HOTP, 40)


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        (f"alice,{B32},totp,99,30", "99"),
        (f"alice,{B32},totp,6,0", "period is 0"),
        (f"alice,{B32},motp,6,30", "type"),
        (f"alice,{B32},hotp,6,-5", "counter"),
        (",,,,", "no user"),
        ("alice,,totp,6,30", "no secret"),
        ('alice,"abc,totp', "row with commas"),
        ("alice,GEZDGNBV,totp,6,30", "40 bits"),
    ],
)
def test_a_bad_row_is_a_problem_with_its_line(line: str, seen: str) -> None:
    """The rows around it are read."""
    text = f"user,secret,type,digits,counter\nbob,{B32},totp,6,\n{line}\ncarol,{B32},totp,6,\n"
    if "period" in seen:
        text = text.replace("counter", "period", 1)

    rows = list(parse_csv(io.BytesIO(text.encode())))

    bad = rows[1]
    assert isinstance(bad, RowProblem)
    assert bad.line == 3
    assert seen in bad.message
    assert isinstance(rows[2], ImportedCredential)


@pytest.mark.parametrize("parse", [parse_otpauth_list, parse_oath_users, parse_csv])
def test_an_endless_line_is_one_problem(parse: Parser) -> None:
    """It is never held as a whole, and the next line has the next number."""
    rows = list(parse(io.BytesIO(b"x" * 1_000_000 + b"\nrubbish\n")))

    assert [row.line for row in rows] == [1, 2]


_texts = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=200).map(str.encode),
    st.lists(st.sampled_from([
        b"HOTP/T30/6", b"alice", b"-", HEX.encode(), B32.encode(), b",", b"\n", b" ", b'"', b'" TOTP_AUTH', b'" HOTP_COUNTER',
        b"9" * 30, b"-1", b"otpauth://totp/a?secret=", b"&", b"user,secret", b"\xff", b"\x00", b"12345678",
    ]), max_size=30).map(b"".join),
)  # fmt: skip


@pytest.mark.parametrize(
    "parse",
    [
        lambda stream: parse_google_authenticator(stream, "alice"),
        parse_otpauth_list,
        parse_oath_users,
        parse_csv,
        lambda stream: parse_csv(stream, columns=(Column.USER, Column.SECRET), encoding=Encoding.BASE64),
    ],
)
@given(raw=_texts)
def test_any_bytes_are_rows_and_problems(parse: Parser, raw: bytes) -> None:
    """No exception leaves a parser, and what it yields as a credential is one that the core takes."""
    for row in parse(io.BytesIO(raw)):
        assert row.line >= 1
        if isinstance(row, ImportedCredential):
            assert 14 <= len(row.secret) <= 128
            assert row.digits in {6, 7, 8}
            assert row.last_step >= -1
