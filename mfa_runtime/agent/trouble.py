"""What is wrong between this host and its authority, for ``mfactl status`` and ``mfactl doctor``.

Room rule: one small text in ``agent_state.trouble``, written when it changes. "" is for nothing.
"""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass


class What(enum.StrEnum):
    """What is wrong."""

    UNREACHABLE = "unreachable"
    """No authority answers: this host decides alone, as far as it may."""
    REFUSED = "refused"
    """The authority says no to this host: revoked, quarantined, or a certificate that is over."""
    ANSWER = "answer"
    """An answer could not be used: tampered with, old, of somebody else."""
    STORE = "store"
    """What the authority sent could not be stored: a full disk, for instance. The old cache holds."""
    RULES = "rules"
    """The authority's rules cannot be read here. The previous ones hold."""
    CLOCK = "clock"
    """This host's clock is not the authority's: alone, it would let nobody in."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One trouble, since when (Unix seconds), what was seen, and how to mend it."""

    what: What
    since: float
    text: str
    cure: str = ""

    def written(self) -> str:
        """As it stands in the store."""
        return json.dumps({**asdict(self), "what": self.what.value}, sort_keys=True, separators=(",", ":"))


def read_trouble(text: str) -> Trouble | None:
    """What :meth:`Trouble.written` wrote; None for nothing, and for what nobody here has written."""
    try:
        row = json.loads(text) if text else None
        return None if row is None else Trouble(What(row["what"]), float(row["since"]), str(row["text"]), str(row["cure"]))
    except (ValueError, KeyError, TypeError):
        return None
