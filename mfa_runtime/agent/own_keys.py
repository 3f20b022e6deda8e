"""Which certificate does this host show, now?

Room rule: the key pairs of a joined host as TLS wants them. A renewed certificate lies beside the old one for a while and is
shown by every process of this host from one moment on: once it was shown, the authority takes the old one for a clone's.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from mfa_core.errors import StoreCorrupt
from mfa_core.secret import Secret
from mfa_runtime.agent.http import client_context
from mfa_runtime.agent.identity import Certificate, HostKey, certificate_pem, private_pem, read_certificate
from mfa_runtime.agent.joining import HPKE, TLS
from mfa_runtime.sealing import Keyring
from mfa_runtime.store import agent_state, key_pairs
from mfa_runtime.store.key_pairs import KeyPair

Stamp = tuple[tuple[str, bytes, float], ...]
NEXT = "tls-next"
SWITCH_S = 10.0
"""So long after it was stored a renewed certificate is shown: every process has read it by then."""


@dataclass(frozen=True, slots=True)
class _Shown:
    context: ssl.SSLContext = field(repr=False)
    certificate: Certificate
    since: float


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """What a joined host has: the key that secrets are sealed to, and one or two certificates, the older one first."""

    host_id: int
    hpke: Secret = field(repr=False)
    shown: tuple[_Shown, ...]
    stamp: Stamp = ()
    """What says that the store has other keys by now."""

    def now(self, now: float) -> _Shown:
        """What is shown at ``now``, Unix seconds. Of two, the newer one from its moment on."""
        return next((one for one in reversed(self.shown) if one.since <= now), self.shown[0])


def load(connection: Connection, keyring: Keyring) -> OwnKeys | None:
    """The keys in the store; None where this host has not joined.

    Raises:
        UnknownKey, StoreCorrupt: as unsealing does, or what is here are no keys.
    """
    state = agent_state.load(connection)
    if state is None:
        return None
    pairs = [key_pairs.load(connection, keyring, name) for name in (TLS, NEXT)]
    hpke = key_pairs.load(connection, keyring, HPKE)
    if pairs[0] is None or hpke is None:
        raise StoreCorrupt("this host has joined, and its keys are not here", cure="join again with `mfactl agent join`")
    shown = tuple(_read(pair, state.trust.decode(), 0.0 if pair.name == TLS else SWITCH_S) for pair in pairs if pair)
    return OwnKeys(state.host_id, hpke.private, shown, stamp(connection))


def stamp(connection: Connection) -> Stamp:
    """What changes when the keys in the store do, without opening one."""
    return tuple((pair.name, pair.public, pair.created_at) for pair in key_pairs.publics(connection))


def _read(pair: KeyPair, trust: str, wait_s: float) -> _Shown:
    try:
        context = client_context(trust=trust, certificate=certificate_pem(pair.certificate), key=private_pem(pair.private))
    except (ssl.SSLError, ValueError) as err:
        raise StoreCorrupt(f"the key and certificate of this host cannot be used: {err}", cure="join again") from err
    return _Shown(context, read_certificate(pair.certificate), pair.created_at + wait_s)


def keep_renewed(
    connection: Connection, keyring: Keyring, key: HostKey, certificate: Certificate, trust: str, now: float
) -> None:
    """Write a renewed certificate beside the one that is shown."""
    key_pairs.save(connection, keyring, KeyPair(NEXT, key.private, key.public, certificate.der, now, certificate.not_after))
    agent_state.change(connection, trust=trust.encode())


def drop_older(connection: Connection, keyring: Keyring, now: float) -> bool:
    """Put the renewed certificate in the place of the old one, when all show it. Whether it did."""
    following = key_pairs.load(connection, keyring, NEXT)
    if following is None or now < following.created_at + 2 * SWITCH_S:
        return False
    return key_pairs.rename(connection, keyring, NEXT, TLS)


class ShownContext:
    """The TLS context for a request that begins now. ``keys`` may be replaced at any time."""

    def __init__(self, keys: OwnKeys, clock: Callable[[], float]) -> None:
        self.keys = keys
        self._clock = clock

    def __call__(self) -> ssl.SSLContext:
        """The context to connect with."""
        return self.keys.now(self._clock()).context
