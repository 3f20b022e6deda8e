"""Books of codes: as long as they must be, made once, lengthened in time, and never longer than a host is granted."""

from __future__ import annotations

import pytest

from authority.books import HORIZON, SHORT_S, Lack, cut, granted, lack, lack_for_now, lack_of_all, last_step, reaches, short
from mfa_core import codebook
from mfa_core.errors import InvalidInput
from mfa_core.model import Credential, FactorKind
from mfa_core.oath import step_at
from mfa_core.secret import Secret
from mfa_runtime.store.codebooks import Codebook
from tests.doubles import ALICE, T0, Person

HOUR = 3600.0
EIGHT = Person("eight", digits=8, period_s=60)


def codes_of(person: Person, book: Codebook) -> dict[int, str | None]:
    """The codes by their step."""
    credential = codebook.as_book(person.credential, book.first_step, book.codes)
    return {
        step: codebook.code(credential, step) for step in range(book.first_step, codebook.last_step(credential) + 1)
    }


def made(one: Lack | None) -> Codebook:
    """The book that lacks nothing any more."""
    assert one is not None
    return one.filled(Secret(codebook.pack(one.credential, one.begin, one.count)))


@pytest.mark.parametrize("person", [ALICE, EIGHT])
def test_a_new_book_holds_what_is_granted(person: Person) -> None:
    book = made(lack_of_all(person.credential, None, T0, HOUR))
    wanted = granted(T0, HOUR, person.period_s)
    held = codes_of(person, book)
    assert (min(held), max(held)) == (wanted.first, wanted.last)
    assert max(held) * person.period_s >= T0 + HORIZON * HOUR
    assert held[step_at(T0, person.period_s)] == person.code(T0)
    assert held[max(held)] == person.code(max(held) * float(person.period_s))


def test_a_kept_book_is_used_again_and_cut() -> None:
    long = made(lack_of_all(ALICE.credential, None, T0, 10 * HOUR))
    assert lack_of_all(ALICE.credential, long, T0 + HOUR, HOUR) is None
    wanted = granted(T0 + HOUR, HOUR, 30)
    held = codes_of(ALICE, cut(ALICE.credential, long, wanted))
    # A group that may be alone for an hour gets no codes of ten.
    assert (min(held), max(held)) == (wanted.first, wanted.last)
    assert held[step_at(T0 + HOUR, 30)] == ALICE.code(T0 + HOUR)


def test_a_book_that_ends_soon_is_lengthened_and_not_made_anew() -> None:
    first = made(lack_of_all(ALICE.credential, None, T0, HOUR))
    later = T0 + 0.2 * HOUR
    more = lack_of_all(ALICE.credential, first, later, HOUR)
    assert more is not None
    assert more.count == 24  # the fifth of an hour that is new
    book = made(more)
    assert codes_of(ALICE, book)[step_at(later + HOUR, 30)] == ALICE.code(later + HOUR)
    assert codes_of(ALICE, book)[step_at(later, 30)] == ALICE.code(later)
    assert (book.first_step, last_step(ALICE.credential, book)) == (
        granted(later, HOUR, 30).first, granted(later, HOUR, 30).last,
    )  # fmt: skip


@pytest.mark.parametrize("kept", [None, Codebook(1, 1 << 40, Secret(b"")), Codebook(1, 0, Secret(b"123"))])
def test_a_book_that_is_of_no_use_is_made_anew(kept: Codebook | None) -> None:
    wanted = granted(T0, HOUR, 30)
    assert not reaches(ALICE.credential, kept, wanted)
    book = made(lack(ALICE.credential, kept, wanted))
    assert reaches(ALICE.credential, book, wanted)
    assert codes_of(ALICE, book)[step_at(T0, 30)] == ALICE.code(T0)


def test_while_a_host_waits_a_part_is_made_where_all_of_it_would_be_much() -> None:
    whole = lack_of_all(ALICE.credential, None, T0, 24 * HOUR)
    assert whole is not None
    at_once = lack_for_now(ALICE.credential, None, T0, 24 * HOUR, most=whole.count)
    assert at_once is not None
    assert (at_once.begin, at_once.count) == (whole.begin, whole.count)
    first = made(lack_for_now(ALICE.credential, None, T0, 24 * HOUR, most=whole.count - 1))
    assert reaches(ALICE.credential, first, short(T0, 24 * HOUR, 30))
    assert T0 + SHORT_S <= last_step(ALICE.credential, first) * 30.0 < T0 + SHORT_S + 90.0
    # What is there is enough for now, and the rest of it is made behind it.
    assert lack_for_now(ALICE.credential, first, T0, 24 * HOUR, most=0) is None
    rest = lack_of_all(ALICE.credential, first, T0, 24 * HOUR)
    assert rest is not None
    assert (rest.begin, rest.count) == (last_step(ALICE.credential, first) + 1, whole.count - len(first.codes) // 3)
    assert codes_of(ALICE, made(rest)) == codes_of(ALICE, made(whole))


def test_the_first_part_is_no_more_than_a_group_is_granted() -> None:
    assert short(T0, 600.0, 30) == granted(T0, 600.0, 30)


def test_a_counter_has_no_book() -> None:
    hotp = Credential(1, FactorKind.HOTP, ALICE.credential.state, Secret(ALICE.secret), period_s=30)
    with pytest.raises(InvalidInput):
        made(lack_of_all(hotp, None, T0, HOUR))
