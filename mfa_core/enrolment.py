"""How a user comes to have a second factor: the states, the moves between them, and the days of grace.

Room rule: states are a table and time is an argument. Who may make a move, and what else happens with it, is known
elsewhere; this file says whether the move exists and where it leads.

::

    none ----invite----> invited --begin--> pending --confirm--> active <--resume-- suspended
      \\------begin-----------------------/ |  ^ begin             | suspend ----------^
       \\-----provision----------------------------------------> active --revoke--> revoked --invite--> invited
                         invited <--expire--/                     every state --reset--> none

A user with an active credential who begins another one stays active: only the new credential is pending.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from types import MappingProxyType

from mfa_core.errors import Conflict, InvalidInput
from mfa_core.model import CredentialState, EnrolmentState

PENDING_S = 15 * 60
"""Seconds in which a shown secret must be confirmed: long enough to install an app, short enough not to be found later."""
MIN_GRACE_DAYS = 1
MAX_GRACE_DAYS = 365
DEFAULT_GRACE_DAYS = 7
_DAY_S = 86_400


class Move(enum.StrEnum):
    """What may happen to a user's enrolment."""

    INVITE = "invite"
    """An administrator requires the second factor, or invites to it."""
    BEGIN = "begin"
    """A secret was made and shown."""
    CONFIRM = "confirm"
    """A code of the shown secret was verified."""
    PROVISION = "provision"
    """A credential became active without a code: ``enrol --no-confirm``, an import."""
    EXPIRE = "expire"
    """The pending secret was not confirmed in time."""
    SUSPEND = "suspend"
    """The last active credential was suspended."""
    RESUME = "resume"
    """A suspended credential is active again."""
    REVOKE = "revoke"
    """The last credential was revoked."""
    RESET = "reset"
    """An administrator starts from the beginning."""


_S = EnrolmentState

MOVES: Mapping[tuple[EnrolmentState, Move], EnrolmentState] = MappingProxyType(
    {
        (_S.NONE, Move.INVITE): _S.INVITED,
        (_S.NONE, Move.BEGIN): _S.PENDING,
        (_S.NONE, Move.PROVISION): _S.ACTIVE,
        (_S.NONE, Move.RESET): _S.NONE,
        (_S.INVITED, Move.INVITE): _S.INVITED,
        (_S.INVITED, Move.BEGIN): _S.PENDING,
        (_S.INVITED, Move.PROVISION): _S.ACTIVE,
        (_S.INVITED, Move.RESET): _S.NONE,
        (_S.PENDING, Move.INVITE): _S.PENDING,
        (_S.PENDING, Move.BEGIN): _S.PENDING,
        (_S.PENDING, Move.CONFIRM): _S.ACTIVE,
        (_S.PENDING, Move.PROVISION): _S.ACTIVE,
        # Invited, not none: what was begun is still wanted, and a requirement that led here is not forgotten.
        (_S.PENDING, Move.EXPIRE): _S.INVITED,
        (_S.PENDING, Move.RESET): _S.NONE,
        (_S.ACTIVE, Move.INVITE): _S.ACTIVE,
        (_S.ACTIVE, Move.BEGIN): _S.ACTIVE,
        (_S.ACTIVE, Move.CONFIRM): _S.ACTIVE,
        (_S.ACTIVE, Move.PROVISION): _S.ACTIVE,
        (_S.ACTIVE, Move.EXPIRE): _S.ACTIVE,
        (_S.ACTIVE, Move.RESUME): _S.ACTIVE,
        (_S.ACTIVE, Move.SUSPEND): _S.SUSPENDED,
        (_S.ACTIVE, Move.REVOKE): _S.REVOKED,
        (_S.ACTIVE, Move.RESET): _S.NONE,
        # No BEGIN from here on: somebody who knows the password must not enrol over a suspension or a revocation.
        (_S.SUSPENDED, Move.INVITE): _S.SUSPENDED,
        (_S.SUSPENDED, Move.PROVISION): _S.ACTIVE,
        (_S.SUSPENDED, Move.RESUME): _S.ACTIVE,
        (_S.SUSPENDED, Move.REVOKE): _S.REVOKED,
        (_S.SUSPENDED, Move.RESET): _S.NONE,
        (_S.REVOKED, Move.INVITE): _S.INVITED,
        (_S.REVOKED, Move.PROVISION): _S.ACTIVE,
        (_S.REVOKED, Move.RESET): _S.NONE,
    }
)
"""Every move that exists. A pair that is missing is refused."""

_CURES = {
    EnrolmentState.NONE: "begin with `mfactl enrol NAME`",
    EnrolmentState.INVITED: "begin with `mfactl enrol NAME`",
    EnrolmentState.PENDING: "finish with `mfactl confirm NAME CODE`, or start over with `mfactl enrol NAME`",
    EnrolmentState.ACTIVE: "look at `mfactl cred list NAME`",
    EnrolmentState.SUSPENDED: "give it back with `mfactl cred resume ID`, or start over with `mfactl user reset NAME`",
    EnrolmentState.REVOKED: "invite again with `mfactl user require NAME`, or start over with `mfactl user reset NAME`",
}


def moved(state: EnrolmentState, move: Move) -> EnrolmentState:
    """The state after ``move``.

    Raises:
        Conflict: there is no such move from this state.
    """
    following = MOVES.get((state, move))
    if following is None:
        raise Conflict(f"the enrolment is {state}: {move} is not possible", cure=_CURES[state])
    return following


def settled(state: EnrolmentState, credentials: Collection[CredentialState]) -> EnrolmentState:
    """The state of a user whose credentials are now in these states, after one of them was suspended, resumed or revoked.

    Raises:
        Conflict: as :func:`moved`; never for a state that these credentials can have led to.
    """
    if CredentialState.ACTIVE in credentials:
        return state if state is EnrolmentState.ACTIVE else moved(state, Move.RESUME)
    if state not in {EnrolmentState.ACTIVE, EnrolmentState.SUSPENDED}:
        return state
    if CredentialState.SUSPENDED in credentials:
        return state if state is EnrolmentState.SUSPENDED else moved(state, Move.SUSPEND)
    return moved(state, Move.REVOKE)


def grace_deadline(granted_until: float, *, now: float, days: int) -> float:
    """The Unix time in seconds up to which a required user may log in without a second factor.

    ``granted_until`` is the deadline so far, 0 for none. A repeated requirement may shorten it and never extends it:
    otherwise whoever can cause a reminder could put the deadline off for good.

    Raises:
        InvalidInput: ``days`` is not 1 to 365.
    """
    if not MIN_GRACE_DAYS <= days <= MAX_GRACE_DAYS:
        raise InvalidInput(
            f"{days} days of grace, {MIN_GRACE_DAYS} to {MAX_GRACE_DAYS} are possible",
            cure="`--days 1` is the shortest; to require it at once, say `grace: 0` in the policy rule",
        )
    deadline = now + days * _DAY_S
    return min(granted_until, deadline) if granted_until > 0 else deadline


def pending_until(now: float, *, pending_s: int = PENDING_S) -> float:
    """When a secret that is shown now stops being confirmable, Unix seconds."""
    return now + pending_s
