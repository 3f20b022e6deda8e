"""What is the audit chain called that a process writes?

Room rule: one name for one writer, so that chains grow beside each other and nobody waits for another's head. A store in a file
has one machine and one chain. In a database that several machines share, each ``mfad`` has a chain by the name of its authority
(``authority.name``, by default the host's name: give two on one host two names), and ``mfactl`` another one on each machine.
Two processes with one name break nothing: they wait for each other at every commit. ``host:ID:EPOCH`` are journals of agents.
"""

from __future__ import annotations

import hashlib

ONLY = "local"
"""The chain of a store that one machine writes."""
MAX_LENGTH = 64


def of_authority(name: str, *, shared: bool) -> str:
    """The chain of an authority's process; ``shared``: the store has several writers."""
    return _named("authority", name) if shared else ONLY


def of_administration(machine: str, *, shared: bool) -> str:
    """The chain of the commands of one machine."""
    return _named("mfactl", machine) if shared else ONLY


def _named(kind: str, name: str) -> str:
    node = f"{kind}:{name}"
    if len(node) <= MAX_LENGTH:
        return node
    # Two long names that begin alike are two names.
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{node[: MAX_LENGTH - 17]}~{digest}"
