"""The authority has ruled: what that means on this host.

Room rule: a pure function of values, and nothing is let in that the authority has not let in. What it accepted is held against
what was accepted here: a step that is spent on this host stays spent, also when the authority has not heard of it yet.
"""

from __future__ import annotations

from mfa_core.audit import Outcome
from mfa_core.model import Attempt
from mfa_core.split import Split
from mfa_core.value import hot_value
from mfa_core.verifier import Judgement, Settings, Situation


@hot_value
class Ruled:
    """What an authority said about an attempt: a verdict without what is this host's own.

    ``outcome`` is ACCEPTED, EXEMPT, CHALLENGED, REJECTED or UNAVAILABLE. ``reason`` is a :class:`~mfa_core.verdict.Reason`,
    :class:`~mfa_core.verdict.Unready` or "" (the true one: what the door may hear of it is worked out here), ``exemption`` an
    :class:`~mfa_core.verdict.Exemption` or "". ``text`` is what may be shown, "" for the ordinary one. ``credential`` is a
    label ("totp:12"), ``step`` the step or counter that it was accepted at, -1 for none, ``drift_steps`` the drift after it.
    ``reading`` says which of the readings that were referred was accepted. ``until`` is the deadline of a grace, Unix seconds,
    0 for none. ``counted``: the account was charged.
    """

    outcome: Outcome
    reason: str = ""
    exemption: str = ""
    rule: str = ""
    text: str = ""
    retry_after_s: float = 0.0
    factor: str = ""
    credential: str = ""
    step: int = -1
    drift_steps: int = 0
    reading: int = 0
    notices: tuple[str, ...] = ()
    until: float = 0.0
    counted: bool = False
    note: str = ""


def mirror(attempt: Attempt, situation: Situation, settings: Settings, ruled: Ruled, found: tuple[Split, ...]) -> Judgement:
    """The judgement of this host on an attempt that the authority has ruled about; ``found`` is what was referred."""
    raise NotImplementedError
