"""The authority as mfad runs it: its settings out of the configuration, its parts out of ours.

Room rule: mappings. What an authority does stands in :mod:`authority`.
"""

from __future__ import annotations

import os
import socket
import time

from authority.certificate_authority import check_files
from authority.door import AuthorityDoor
from authority.settings import AuthoritySettings, TlsFiles
from mfa_core.errors import ConfigurationError
from mfa_runtime.config import Config
from mfa_runtime.config.authority_section import OnReplay
from mfa_runtime.ledger import Ledger
from mfa_runtime.protocol.syncing import rules_digest
from mfa_runtime.store import shared_rules
from mfa_runtime.store.database import Store
from mfa_runtime.verification import Verification

MAX_TRUST_OCTETS = 64 * 1024


class RulesNote:
    """Says in a store that other authorities share by which rules this one goes, so that the doctor can compare them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._said = ("", 0.0)

    def say(self, config: Config, now: float) -> None:
        """Say it when it has changed, and every hour; ``now`` is Unix seconds. Raises: as writing to the store does."""
        digest = rules_digest(config.rules)
        before, at = self._said
        if not self._store.several_writers or (digest == before and 0.0 <= now - at < shared_rules.EVERY_S):
            return
        name = config.authority.name or socket.gethostname()
        with self._store.writing() as connection:
            shared_rules.note(connection, name, digest, now)
        self._said = (digest, now)


def build_authority_settings(config: Config) -> AuthoritySettings:
    """The section in the authority's own terms. Raises: ConfigurationError, when ``trust_file`` cannot be read."""
    section = config.authority
    tls = None
    if section.tls is not None:
        trust = ""
        if section.trust_file is not None:
            try:
                with section.trust_file.open("rb") as file:
                    trust = file.read(MAX_TRUST_OCTETS + 1).decode("ascii")
            except (OSError, UnicodeDecodeError) as err:
                raise ConfigurationError(
                    f"authority.trust_file: {section.trust_file} cannot be read: {err}", cure="give a PEM file of CAs"
                ) from err
            if len(trust) > MAX_TRUST_OCTETS:
                raise ConfigurationError(
                    f"authority.trust_file: {section.trust_file} is larger than {MAX_TRUST_OCTETS} octets",
                    cure="give the one CA that has signed the certificate",
                )
        tls = TlsFiles(section.tls.certificate_file, section.tls.key_file, trust)
    return AuthoritySettings(
        listen=section.listen,
        names=section.certificate_names,
        tls=tls,
        rules=config.rules,
        host_certificate_s=float(section.host_certificate),
        long_poll_s=float(section.long_poll),
        suspends=section.on_replay is OnReplay.SUSPEND,
        hard_cap=config.throttle.hard_cap,
        max_hosts=section.max_hosts,
        max_verifications=section.max_verifications,
    )


def check_authority_files(config: Config) -> None:
    """Read the certificate and what hosts check it against. Raises: ConfigurationError, when one of them cannot be used."""
    tls = build_authority_settings(config).tls
    if tls is not None:
        check_files(str(tls.certificate_file), str(tls.key_file))


def build_authority(config: Config, store: Store, ledger: Ledger, gate: Verification, *, node: str) -> AuthorityDoor:
    """Nothing listens yet. ``node`` names the audit chain of this process.

    Raises: ConfigurationError, as :func:`build_authority_settings`.
    """
    return AuthorityDoor(
        build_authority_settings(config),
        store,
        gate,
        keyring=lambda: ledger.keyring,
        reload_keyring=ledger.reload_keys,
        note=ledger.note,
        tell=ledger.tell,
        node=node,
        clock=time.time,
        monotonic=time.monotonic,
        random=os.urandom,
    )
