"""Which codes does a host get in place of a seed, and from where?

Room rule: books of codes, by credential. A book is made once, kept in the store and lengthened when its end comes near; each
group of hosts gets the part that it is granted. Making one takes a processor for a while: no transaction is open meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Stretch:
    """The time steps from ``first`` to ``last``, both included."""

    first: int
    last: int


def granted(now: float, max_offline_s: float, period_s: int, horizon: float = HORIZON) -> Stretch:
    """The steps that a host of this group gets now."""
    step = int(now // period_s)
    ahead = -(-int(max_offline_s * horizon) // period_s) + 1
    return Stretch(max(0, step - PAST_STEPS), step + ahead)


def cut(credential: Credential, kept: Codebook, wanted: Stretch) -> Codebook:
    """The part of a book that lies in a stretch."""
    size = codebook.width(credential.digits)
    begin = max(0, wanted.first - kept.first_step)
    end = max(begin, wanted.last + 1 - kept.first_step)
    return Codebook(kept.credential_id, kept.first_step + begin, Secret(kept.codes.reveal()[begin * size : end * size]))


def reaches(credential: Credential, kept: Codebook | None, wanted: Stretch) -> bool:
    """Whether a book has all of a stretch."""
    if kept is None or kept.first_step > wanted.first:
        return False
    return kept.first_step + len(kept.codes) // codebook.width(credential.digits) - 1 >= wanted.last


def lengthened(credential: Credential, kept: Codebook | None, wanted: Stretch) -> Codebook:
    """A book that has all of a stretch, and no codes before it: of what is kept, the part that still counts is kept."""
    if kept is not None and kept.first_step <= wanted.first:
        part = cut(credential, kept, Stretch(wanted.first, 1 << 60))
        have = len(part.codes) // codebook.width(credential.digits)
        if have and part.first_step == wanted.first:
            missing = wanted.last - (wanted.first + have - 1)
            if missing <= 0:
                return part
            more = codebook.pack(credential, wanted.first + have, missing)
            return Codebook(credential.id, wanted.first, Secret(part.codes.reveal() + more))
    return Codebook(
        credential.id, wanted.first, Secret(codebook.pack(credential, wanted.first, wanted.last - wanted.first + 1))
    )


@dataclass(frozen=True, slots=True)
class Books:
    """What was kept of the credentials of one page, and what had to be made anew for it."""

    kept: Mapping[int, Codebook]
    made: dict[int, Codebook]

    def of(self, credential: Credential, now: float, max_offline_s: float) -> Codebook:
        """The codes of this credential for a host that may be alone for so long."""
        kept = self.kept.get(credential.id)
        if not reaches(credential, kept, granted(now, max_offline_s, credential.period_s, LEAST_HORIZON)):
            kept = self.made[credential.id] = lengthened(
                credential, kept, granted(now, max_offline_s, credential.period_s)
            )
        assert kept is not None  # noqa: S101  nothing reaches nowhere
        return cut(credential, kept, granted(now, max_offline_s, credential.period_s))
