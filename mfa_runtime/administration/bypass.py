"""Bypass codes: an administrator lets a person in who has lost everything else, once, and answers for it.

Room rule: rows of kind ``bypass`` are written in this file. Reason and approver are mandatory (PCI DSS 8.5.1: documented and
limited in time), and a user has one code at most.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert

from mfa_core.errors import InvalidInput, NotFound
from mfa_core.model import FactorKind, User
from mfa_core.passcode import BYPASS_CODE_BYTES, format_bypass_code, read_passcode
from mfa_core.secret import Secret
from mfa_runtime.administration.act import Act
from mfa_runtime.one_time_hash import hash_code, place_of
from mfa_runtime.store.ids import take
from mfa_runtime.store.schema import one_time_codes

DEFAULT_BYPASS_S = 3_600
MAX_BYPASS_S = 24 * 3_600
MIN_BYPASS_S = 60
MAX_REASON_CHARS = 200


@dataclass(frozen=True, slots=True)
class Bypass:
    """A code that is shown once. ``not_after`` is Unix seconds."""

    code: Secret
    not_after: float


def issue_bypass(
    connection: Connection,
    act: Act,
    user: User,
    *,
    reason: str,
    approver: str,
    valid_s: int = DEFAULT_BYPASS_S,
    uses: int = 1,
) -> Bypass:
    """Issue the one bypass code of a user, for ``uses`` logins within ``valid_s`` seconds. An earlier one stops working.

    Raises:
        InvalidInput: no reason or approver, or more than 24 hours.
    """
    if not reason.strip() or len(reason) > MAX_REASON_CHARS:
        raise InvalidInput(
            f"a bypass code needs a reason of 1 to {MAX_REASON_CHARS} characters", cure="say --reason 'lost phone, ticket 4711'"
        )
    if not approver.strip():
        raise InvalidInput("a bypass code needs an approver", cure="say --approver NAME")
    if not MIN_BYPASS_S <= valid_s <= MAX_BYPASS_S:
        raise InvalidInput(f"a bypass code for {valid_s} s, expected {MIN_BYPASS_S} to {MAX_BYPASS_S} (24 hours)")
    replaced = _forget(connection, user)
    text = format_bypass_code(act.random(BYPASS_CODE_BYTES))
    not_after = act.now + valid_s
    number = take(connection, "one_time_codes")
    connection.execute(
        insert(one_time_codes).values(
            id=number,
            user_id=user.id,
            kind=FactorKind.BYPASS,
            position=0,
            hash=hash_code(read_passcode(text.encode("ascii")).text, place_of(number, user.id), keyring=act.keyring),
            uses_left=uses,
            not_after=not_after,
            created_at=act.now,
            used_at=0.0,
            reason=reason,
            approver=approver,
        )
    )
    act.record(
        connection, "bypass.issue", user.name, reason=reason, approver=approver, not_after=int(not_after), replaced=replaced
    )
    return Bypass(Secret.from_text(text), not_after)


def revoke_bypass(connection: Connection, act: Act, user: User) -> None:
    """Take back a user's bypass code.

    Raises:
        NotFound: there is none.
    """
    if not _forget(connection, user):
        raise NotFound(f"{user.name} has no bypass code", cure="nothing needs to be done")
    act.record(connection, "bypass.revoke", user.name)


def _forget(connection: Connection, user: User) -> int:
    return connection.execute(
        delete(one_time_codes).where(one_time_codes.c.user_id == user.id, one_time_codes.c.kind == FactorKind.BYPASS)
    ).rowcount
