"""Which codes does a host get in place of a seed, and what of them must be made?

Room rule: pure; stretches of time steps and books of codes, one credential at a time. A book is made once, kept in the store
and lengthened when its end comes near; each group of hosts gets the part that it is granted. Making one takes a processor for
a while: who does that is :mod:`authority.book_making`'s question, and when is :mod:`authority.bookkeeping`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from mfa_core import codebook
from mfa_core.model import Credential
from mfa_core.secret import Secret
from mfa_runtime.store.codebooks import Codebook

PAST_STEPS: Final = 14
"""Steps before the present one: two, and as many as a telephone's clock may be off."""
HORIZON: Final = 1.25
"""A book goes so much further than a host may be alone: it comes again when a quarter is over."""
LEAST_HORIZON: Final = 1.1
"""A book that is kept is lengthened when it goes no further than this."""
SHORT_S: Final = 1800.0
"""A host that has no codes gets those of so long first: for a thousand people they are made in a third of a second."""
AT_ONCE: Final = 20_000
"""Codes that are made while a host waits, if that gives it all that it is granted: a tenth of a second."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The time steps from ``first`` to ``last``, both included."""

    first: int
    last: int


def granted(now: float, max_offline_s: float, period_s: int, horizon: float = HORIZON) -> Stretch:
    """The steps that a host of this group gets now."""
    return _ahead(now, period_s, int(max_offline_s * horizon))


def short(now: float, max_offline_s: float, period_s: int) -> Stretch:
    """Those that it gets first."""
    return _ahead(now, period_s, min(int(max_offline_s * HORIZON), int(SHORT_S)))


def _ahead(now: float, period_s: int, ahead_s: int) -> Stretch:
    step = int(now // period_s)
    return Stretch(max(0, step - PAST_STEPS), step + -(-ahead_s // period_s) + 1)


def cut(credential: Credential, kept: Codebook, wanted: Stretch) -> Codebook:
    """The part of a book that lies in a stretch."""
    size = codebook.width(credential.digits)
    begin = max(0, wanted.first - kept.first_step)
    end = max(begin, wanted.last + 1 - kept.first_step)
    return Codebook(kept.credential_id, kept.first_step + begin, Secret(kept.codes.reveal()[begin * size : end * size]))


def reaches(credential: Credential, kept: Codebook | None, wanted: Stretch) -> bool:
    """Whether a book has all of a stretch."""
    return kept is not None and kept.first_step <= wanted.first and last_step(credential, kept) >= wanted.last


def last_step(credential: Credential, book: Codebook) -> int:
    """The last step of a book."""
    return book.first_step + len(book.codes) // codebook.width(credential.digits) - 1


@dataclass(frozen=True, slots=True)
class Lack:
    """What a book needs to have all of a stretch: ``count`` codes from step ``begin`` on, behind ``head``."""

    credential: Credential
    first_step: int
    head: Secret = field(repr=False)
    begin: int
    count: int

    def filled(self, codes: Secret) -> Codebook:
        """The book, with what was made."""
        return Codebook(self.credential.id, self.first_step, Secret(self.head.reveal() + codes.reveal()))


def lack(credential: Credential, kept: Codebook | None, wanted: Stretch) -> Lack | None:
    """What must be made for a book that has all of a stretch; None for nothing. Of what is kept, what still counts is kept."""
    if reaches(credential, kept, wanted):
        return None
    if kept is not None and kept.first_step <= wanted.first <= last_step(credential, kept):
        part = cut(credential, kept, wanted)
        begin = last_step(credential, part) + 1
        return Lack(credential, wanted.first, part.codes, begin, wanted.last - begin + 1)
    return Lack(credential, wanted.first, Secret(b""), wanted.first, wanted.last - wanted.first + 1)


def lack_of_all(credential: Credential, kept: Codebook | None, now: float, max_offline_s: float) -> Lack | None:
    """What must be made for all that a host of this group is granted; None where what is kept goes far enough."""
    if reaches(credential, kept, granted(now, max_offline_s, credential.period_s, LEAST_HORIZON)):
        return None
    return lack(credential, kept, granted(now, max_offline_s, credential.period_s))


def lack_for_now(
    credential: Credential, kept: Codebook | None, now: float, max_offline_s: float, *, most: int
) -> Lack | None:
    """What must be made while a host waits: at most ``most`` codes where that is all of it, else those that come first."""
    whole = lack_of_all(credential, kept, now, max_offline_s)
    if whole is None or whole.count <= most:
        return whole
    return lack(credential, kept, short(now, max_offline_s, credential.period_s))
