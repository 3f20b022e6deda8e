"""What is a mistake between keys, before it has a line?

Room rule: one value, for the files that ask whether keys go together.
"""

from __future__ import annotations

from dataclasses import dataclass

from mfa_runtime.config.document import Path


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that does not go together. ``path`` is that of the key, within the file."""

    path: Path
    seen: str
    expected: str
    cure: str
