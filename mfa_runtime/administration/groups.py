"""Groups of users: who is in which. A host group's scope names them; a policy may as well.

Room rule: the only file that writes ``memberships``. A group exists as long as somebody is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import ClauseElement, Connection, delete, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect

from mfa_core.errors import InvalidInput
from mfa_core.model import User
from mfa_runtime.administration.act import Act
from mfa_runtime.administration.users import find_user
from mfa_runtime.store import changes
from mfa_runtime.store.prepared import Prepared
from mfa_runtime.store.schema import memberships, users

MAX_GROUP_CHARS = 128
_RESERVED = frozenset({"*", "yes", "no"})


@dataclass(frozen=True, slots=True)
class ListedGroup:
    """A group and how many users are in it."""

    name: str
    users: int


def check_group(name: str) -> str:
    """The name of a group of users or of hosts, as it is kept.

    Raises:
        InvalidInput: nobody could type it, or it means something else.
    """
    if not 1 <= len(name) <= MAX_GROUP_CHARS:
        raise InvalidInput(f"a group's name of {len(name)} characters, expected 1 to {MAX_GROUP_CHARS}", cure="a shorter name")
    if name in _RESERVED or name != name.strip() or not name.isprintable():
        raise InvalidInput(f"{name!a} cannot be a group's name", cure="choose one of letters, digits, dots and dashes")
    return name


def add_to_groups(connection: Connection, act: Act, name: str, groups: Sequence[str]) -> list[str]:
    """Put a user into these groups; return those that he was not in before.

    Raises:
        NotFound: no such user.
        InvalidInput: as :func:`check_group`.
    """
    user = find_user(connection, name)
    had = set(groups_of(connection, user))
    new = [group for group in dict.fromkeys(map(check_group, groups)) if group not in had]
    if new:
        connection.execute(insert(memberships), [{"user_id": user.id, "user_group": group} for group in new])
        changes.note_user(connection, user.id, act.now)
        act.record(connection, "user.group.add", name, groups=" ".join(new))
    return new


def remove_from_groups(connection: Connection, act: Act, name: str, groups: Sequence[str]) -> list[str]:
    """Take a user out of these groups; return those that he was in.

    Raises:
        NotFound: no such user.
    """
    user = find_user(connection, name)
    had = set(groups_of(connection, user))
    gone = [group for group in dict.fromkeys(groups) if group in had]
    if gone:
        connection.execute(
            delete(memberships).where(memberships.c.user_id == user.id, memberships.c.user_group.in_(gone))
        )
        # The hosts of these groups hear of it as well: they have to forget him.
        changes.note_user(connection, user.id, act.now, also=[changes.group_topic(group) for group in gone])
        act.record(connection, "user.group.remove", name, groups=" ".join(gone))
    return gone


def groups_of(connection: Connection, user: User) -> list[str]:
    """The groups that a user is in, by name."""
    query = select(memberships.c.user_group).where(memberships.c.user_id == user.id).order_by(memberships.c.user_group)
    return list(connection.execute(query).scalars())


def list_groups(connection: Connection) -> list[ListedGroup]:
    """Every group that somebody is in, by name."""
    query = (
        select(memberships.c.user_group, func.count())
        .group_by(memberships.c.user_group)
        .order_by(memberships.c.user_group)
    )
    return [ListedGroup(name, int(number)) for name, number in connection.execute(query)]


def members(connection: Connection, group: str) -> Iterator[str]:
    """The names of the users in a group, by number."""
    query = (
        select(users.c.name)
        .join(memberships, memberships.c.user_id == users.c.id)
        .where(memberships.c.user_group == group)
        .order_by(memberships.c.user_id)
    )
    yield from connection.execute(query, execution_options={"yield_per": 2_000}).scalars()


def _insert_once(dialect: Dialect) -> ClauseElement:
    insert_ = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
    return insert_(memberships).on_conflict_do_nothing(index_elements=["user_id", "user_group"])


_JOIN = Prepared(_insert_once)


def join_groups(connection: Connection, pairs: Iterable[tuple[int, str]]) -> None:
    """Put users (by number) into groups, as part of a change that the caller notes and records (an import)."""
    rows = list(dict.fromkeys(pairs))
    if rows:
        _JOIN.run_rows(connection, ("user_id", "user_group"), rows)
