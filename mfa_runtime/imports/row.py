"""What every importer yields: a credential, a note, or a problem, each with its line."""

from __future__ import annotations

from dataclasses import dataclass

from mfa_core.model import Digest, FactorKind
from mfa_core.secret import Secret

MAX_LABEL_CHARS = 128


@dataclass(frozen=True, slots=True)
class ImportedCredential:
    """A credential as a file had it. ``username`` is as written there; ``last_step`` is the highest spent step or counter,
    -1 when none is known; ``period_s`` is 0 for HOTP; ``groups`` are those that the user joins. ``line`` counts from 1."""

    line: int
    username: str
    secret: Secret
    kind: FactorKind = FactorKind.TOTP
    digest: Digest = Digest.SHA1
    digits: int = 6
    period_s: int = 30
    last_step: int = -1
    drift_steps: int = 0
    label: str = ""
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RowProblem:
    """A row that cannot be imported. The message holds nothing of a secret."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class RowNote:
    """Something that was left out on purpose; the administrator should know."""

    line: int
    message: str


ImportRow = ImportedCredential | RowProblem | RowNote
