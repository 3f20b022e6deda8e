"""Books of codes: as long as a host may be alone and a quarter more, made once, lengthened, and cut for each group."""

from __future__ import annotations

import pytest

from authority.books import HORIZON, Books, granted, lengthened, reaches
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


@pytest.mark.parametrize("person", [ALICE, EIGHT])
def test_a_new_book_holds_what_is_granted(person: Person) -> None:
    books = Books({}, {})
    book = books.of(person.credential, T0, HOUR)
    wanted = granted(T0, HOUR, person.period_s)
    held = codes_of(person, book)
    assert (min(held), max(held)) == (wanted.first, wanted.last)
    assert max(held) * person.period_s >= T0 + HORIZON * HOUR
    assert held[step_at(T0, person.period_s)] == person.code(T0)
    assert held[max(held)] == person.code(max(held) * float(person.period_s))
    assert list(books.made) == [1]


def test_a_kept_book_is_used_again_and_cut() -> None:
    long = Books({}, {}).of(ALICE.credential, T0, 10 * HOUR)
    books = Books({1: long}, {})
    book = books.of(ALICE.credential, T0 + HOUR, HOUR)
    assert books.made == {}
    held = codes_of(ALICE, book)
    wanted = granted(T0 + HOUR, HOUR, 30)
    # A group that may be alone for an hour gets no codes of ten.
    assert (min(held), max(held)) == (wanted.first, wanted.last)
    assert held[step_at(T0 + HOUR, 30)] == ALICE.code(T0 + HOUR)


def test_a_book_that_ends_soon_is_lengthened_and_not_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Books({}, {}).of(ALICE.credential, T0, HOUR)
    later = T0 + 0.2 * HOUR
    packed = []
    pack = codebook.pack

    def counted(credential: Credential, first_step: int, count: int) -> bytes:
        packed.append(count)
        return pack(credential, first_step, count)

    monkeypatch.setattr(codebook, "pack", counted)
    books = Books({1: first}, {})
    book = books.of(ALICE.credential, later, HOUR)
    assert packed == [24]  # the fifth of an hour that is new
    assert codes_of(ALICE, book)[step_at(later + HOUR, 30)] == ALICE.code(later + HOUR)
    assert codes_of(ALICE, books.made[1]) == codes_of(ALICE, book)


@pytest.mark.parametrize("kept", [None, Codebook(1, 1 << 40, Secret(b"")), Codebook(1, 0, Secret(b"123"))])
def test_a_book_that_is_of_no_use_is_made_anew(kept: Codebook | None) -> None:
    wanted = granted(T0, HOUR, 30)
    assert not reaches(ALICE.credential, kept, wanted)
    book = lengthened(ALICE.credential, kept, wanted)
    assert reaches(ALICE.credential, book, wanted)
    assert codes_of(ALICE, book)[step_at(T0, 30)] == ALICE.code(T0)


def test_a_counter_has_no_book() -> None:
    hotp = Credential(1, FactorKind.HOTP, ALICE.credential.state, Secret(ALICE.secret), period_s=30)
    with pytest.raises(InvalidInput):
        Books({}, {}).of(hotp, T0, HOUR)
