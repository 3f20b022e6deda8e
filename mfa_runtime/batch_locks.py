"""What must nobody else decide about while a batch is decided, where several processes write to one store?

Room rule: entries in, numbers out; :meth:`mfa_runtime.store.database.Session.writing` takes them. Whoever's rows a judgement
reads, its numbers stand for: the account with its credentials, lanes and codes by the name, sources and challenges by
themselves. Two that share a number by chance only wait for each other. A SQLite store needs none: its writer is alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from mfa_runtime.sealing import Keyring
from mfa_runtime.sitting import UNKNOWN_NAMES, Entry, source_key

_NAMES, _SOURCES, _CHALLENGES = (upper << 32 for upper in (0x6D666165, 0x6D666166, 0x6D666167))


def locks_of(entries: Sequence[Entry], keyring: Keyring) -> set[int]:
    """The numbers of all that these entries depend on."""
    names = {entry.name for entry in entries if entry.name}
    sources = {source_key(entry.attempt.source) for entry in entries if entry.attempt.source is not None}
    challenges = {entry.attempt.challenge_id for entry in entries if entry.attempt.challenge_id}
    return (
        {_NAMES | bucket_of(name, keyring) for name in names}
        | {_SOURCES | zlib.crc32(source.encode("utf-8", "surrogateescape")) for source in sources}
        | {_CHALLENGES | zlib.crc32(one.encode("utf-8", "surrogateescape")) for one in challenges}
    )


def bucket_of(name: str, keyring: Keyring) -> int:
    """Which of the shared throttle records a name has while the store does not know it: its lock covers that one too."""
    return int.from_bytes(keyring.tag("unknown-name", name.encode())[:4], "big") % UNKNOWN_NAMES
