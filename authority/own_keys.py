"""What is this authority known by? Its id, the key that signs for hosts, and the key that signs what hosts are told.

Room rule: the only file of this package that reads or writes ``key_pairs``. All authorities of one store have the same keys:
each host that has joined one of them knows all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from authority.certificate_authority import CertificateAuthority, make_authority
from mfa_core.errors import StoreCorrupt
from mfa_runtime.administration.act import Act
from mfa_runtime.protocol.signed import Signer, new_signing_key
from mfa_runtime.sealing import Keyring
from mfa_runtime.store import changes, key_pairs
from mfa_runtime.store.database import Store, read_meta
from mfa_runtime.store.key_pairs import KeyPair

CA, SIGNING = "ca", "signing"


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """The keys of an authority. ``authority_id`` is the id of its store."""

    authority_id: str
    ca: CertificateAuthority
    signer: Signer


def ensure_authority(store: Store, act: Act) -> bool:
    """Make this store that of an authority: the clock of changes begins, and the keys are there. Whether anything was new.

    ``act`` says when, with which keyring, and by whom.

    Raises:
        UnknownKey: the keyring is older than the store's: load it again.
        StoreFull, StoreUnavailable, StoreCorrupt: as :meth:`Store.writing`.
    """
    with store.writing() as connection:
        begun = changes.begin_clock(connection)
        missing = [name for name in (CA, SIGNING) if name not in key_pairs.names(connection)]
        if missing:
            act.check_keys(connection)
            for name in missing:
                key_pairs.save(connection, act.keyring, _new(name, _authority_id(connection), now=act.now))
            act.record(connection, "authority.create", ", ".join(missing))
    return begun or bool(missing)


def load_own_keys(connection: Connection, keyring: Keyring) -> OwnKeys:
    """The keys that :func:`ensure_authority` has made.

    Raises:
        UnknownKey: the keyring is older than the store's.
        StoreCorrupt: a key is missing or damaged.
    """
    ca, signing = (key_pairs.load(connection, keyring, name) for name in (CA, SIGNING))
    if ca is None or signing is None:
        raise StoreCorrupt("the store has no keys of an authority", cure="run `mfactl init` with `role: authority`")
    try:
        signer = Signer(signing.private)
    except ValueError as err:
        raise StoreCorrupt("the signing key is damaged", cure="restore the store from a backup") from err
    return OwnKeys(_authority_id(connection), CertificateAuthority(ca.private, ca.certificate), signer)


def _authority_id(connection: Connection) -> str:
    found = read_meta(connection, "store_id")
    if not found:
        raise StoreCorrupt("the store has no id", cure="restore it from a backup")
    return found


def _new(name: str, authority_id: str, *, now: float) -> KeyPair:
    if name == CA:
        made = make_authority(authority_id[:8], now=now)
        return KeyPair(CA, made.private, b"", made.certificate, now)
    private = new_signing_key()
    return KeyPair(SIGNING, private, Signer(private).public, b"", now)
