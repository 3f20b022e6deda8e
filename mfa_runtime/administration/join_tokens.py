"""Tokens with which a host joins: made for a minute's use, kept as a hash, used once.

Room rule: the only file that reads or writes ``join_tokens``. A token has 160 random bits, so that a plain SHA-256 of it is
enough: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from mfa_core.errors import InvalidInput, NotFound
from mfa_core.secret import Secret
from mfa_runtime.administration.act import Act
from mfa_runtime.administration.host_groups import find_host_group
from mfa_runtime.administration.host_names import check_host_name
from mfa_runtime.store.ids import take
from mfa_runtime.store.schema import join_tokens

TOKEN_BYTES = 20
DEFAULT_TTL_S = 15 * 60.0
MIN_TTL_S = 60.0
MAX_TTL_S = 24 * 3600.0
MAX_OPEN = 1_000
"""Tokens that are neither used nor over."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A token without the token. ``host_name`` "": whatever the host calls itself. Times are Unix seconds; 0: not used."""

    id: int
    host_group: str
    host_name: str
    not_after: float
    created_by: str
    created_at: float
    used_at: float


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """``secret``: twenty octets, shown once."""

    token: JoinToken
    secret: Secret


def issue_token(
    connection: Connection, act: Act, host_group: str, *, host_name: str = "", ttl_s: float = DEFAULT_TTL_S
) -> IssuedToken:
    """Make a token for one host of this group, and, with ``host_name``, for the host of that name alone.

    Raises:
        NotFound: no such group.
        InvalidInput: a time out of its bounds, no name of a host, or too many tokens that nobody has used.
    """
    find_host_group(connection, host_group)
    if host_name:
        check_host_name(host_name)
    if not MIN_TTL_S <= ttl_s <= MAX_TTL_S:
        raise InvalidInput(f"a token for {ttl_s:.0f} s, expected {MIN_TTL_S:.0f} to {MAX_TTL_S:.0f} (24 hours)")
    if len(list_tokens(connection, now=act.now)) >= MAX_OPEN:
        raise InvalidInput(f"there are {MAX_OPEN} tokens that nobody has used", cure="cancel some, or wait until they are over")
    secret = Secret(act.random(TOKEN_BYTES))
    token = JoinToken(take(connection, "join_tokens"), host_group, host_name, act.now + ttl_s, act.actor, act.now, 0.0)
    connection.execute(
        insert(join_tokens).values(
            id=token.id,
            hash=_hash(secret),
            host_group=host_group,
            host_name=host_name,
            not_after=token.not_after,
            created_by=token.created_by[:256],
            created_at=token.created_at,
            used_at=0.0,
        )
    )
    act.record(
        connection, "join_token.issue", host_name, token=token.id, host_group=host_group, not_after=int(token.not_after)
    )
    return IssuedToken(token, secret)


def consume_token(connection: Connection, act: Act, secret: Secret) -> JoinToken | None:
    """Use a token up, compare-and-set; None when there is none, it is over, or somebody was first.

    In the transaction in which the host joins: a join that fails leaves the token as it was.
    """
    used = (
        update(join_tokens)
        .where(join_tokens.c.hash == _hash(secret), join_tokens.c.used_at == 0, join_tokens.c.not_after > act.now)
        .values(used_at=act.now)
        .returning(*_COLUMNS)
    )
    row = connection.execute(used).first()
    return None if row is None else _token(row)


def list_tokens(connection: Connection, *, now: float) -> list[JoinToken]:
    """The tokens that can still be used, oldest first."""
    query = select(*_COLUMNS).where(join_tokens.c.used_at == 0, join_tokens.c.not_after > now).order_by(join_tokens.c.id)
    return [_token(row) for row in connection.execute(query)]


def cancel_token(connection: Connection, act: Act, number: int) -> None:
    """Take a token back. Raises: NotFound: none that can still be used."""
    gone = connection.execute(delete(join_tokens).where(join_tokens.c.id == number, join_tokens.c.used_at == 0)).rowcount
    if not gone:
        raise NotFound(f"there is no unused join token {number}", cure="see `mfactl agent token --list`")
    act.record(connection, "join_token.cancel", "", token=number)


def forget_tokens(connection: Connection, before: float) -> int:
    """Forget tokens that were over before this Unix time; how many went."""
    return connection.execute(delete(join_tokens).where(join_tokens.c.not_after < before)).rowcount


_COLUMNS = (
    join_tokens.c.id, join_tokens.c.host_group, join_tokens.c.host_name, join_tokens.c.not_after, join_tokens.c.created_by,
    join_tokens.c.created_at, join_tokens.c.used_at,
)  # fmt: skip


def _hash(secret: Secret) -> bytes:
    return hashlib.sha256(b"mfad join token\0" + secret.reveal()).digest()


def _token(row: Any) -> JoinToken:
    number, host_group, host_name, not_after, created_by, created_at, used_at = row
    return JoinToken(int(number), host_group, host_name, float(not_after), created_by, float(created_at), float(used_at))
