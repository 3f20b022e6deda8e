"""Key pairs of an authority (signing, its certification authority, HTTPS) and of an agent (TLS, HPKE), the private half sealed.

Room rule: the only file that reads or writes ``key_pairs``. What a key is used for, and in which encoding it lies here, its
owner knows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from mfa_core.secret import Secret
from mfa_runtime.sealing import Keyring, Place
from mfa_runtime.store.prepared import Prepared
from mfa_runtime.store.schema import key_pairs


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A key pair. ``certificate`` is DER, b"" for none; ``not_after`` is Unix seconds, 0: does not end."""

    name: str
    private: Secret = field(repr=False)
    public: bytes
    certificate: bytes = b""
    created_at: float = 0.0
    not_after: float = 0.0


def place_of(name: str) -> Place:
    """Where the private half of the pair of this name is sealed. Rows have names here, and places have numbers."""
    return Place("key_pairs", "private", int.from_bytes(hashlib.sha256(name.encode("utf-8")).digest()[:7], "big"), 0)


_COLUMNS = (
    key_pairs.c.name, key_pairs.c.private, key_pairs.c.public, key_pairs.c.certificate, key_pairs.c.created_at,
    key_pairs.c.not_after,
)  # fmt: skip
_LOAD = Prepared(select(*_COLUMNS).where(key_pairs.c.name == bindparam("of")))


def load(connection: Connection, keyring: Keyring, name: str) -> KeyPair | None:
    """The pair of this name, if there is one.

    Raises:
        UnknownKey, StoreCorrupt: as :meth:`Keyring.unseal`.
    """
    rows = _LOAD.rows(connection, {"of": name})
    if not rows:
        return None
    _, sealed, public, certificate, created_at, not_after = rows[0]
    private = keyring.unseal(bytes(sealed), place_of(name))
    return KeyPair(name, private, bytes(public), bytes(certificate), float(created_at), float(not_after))


def save(connection: Connection, keyring: Keyring, pair: KeyPair) -> None:
    """Write a pair in place of another of its name. Callers check their keyring first (:meth:`Act.check_keys`)."""
    values = {
        "private": keyring.seal(pair.private, place_of(pair.name)),
        "public": pair.public,
        "certificate": pair.certificate,
        "created_at": pair.created_at,
        "not_after": pair.not_after,
    }
    if connection.execute(update(key_pairs).where(key_pairs.c.name == pair.name).values(values)).rowcount == 0:
        connection.execute(insert(key_pairs).values(name=pair.name, **values))


def rename(connection: Connection, keyring: Keyring, name: str, new: str) -> bool:
    """Put the pair ``name`` in the place of ``new`` (a renewed certificate comes into use). False when there is none."""
    pair = load(connection, keyring, name)
    if pair is None:
        return False
    save(connection, keyring, KeyPair(new, pair.private, pair.public, pair.certificate, pair.created_at, pair.not_after))
    return remove(connection, name)


def remove(connection: Connection, name: str) -> bool:
    """Forget a pair. Whether there was one."""
    return connection.execute(delete(key_pairs).where(key_pairs.c.name == name)).rowcount > 0


def names(connection: Connection) -> list[str]:
    """The names of the pairs that are here."""
    return list(connection.execute(select(key_pairs.c.name).order_by(key_pairs.c.name)).scalars())


@dataclass(frozen=True, slots=True)
class Public:
    """What is no secret about a pair."""

    name: str
    public: bytes
    created_at: float
    not_after: float


_PUBLICS = Prepared(
    select(key_pairs.c.name, key_pairs.c.public, key_pairs.c.created_at, key_pairs.c.not_after).order_by(key_pairs.c.name)
)


def publics(connection: Connection) -> list[Public]:
    """Every pair that is here, without its private half."""
    return [
        Public(str(name), bytes(public), float(at), float(until)) for name, public, at, until in _PUBLICS.rows(connection, {})
    ]
