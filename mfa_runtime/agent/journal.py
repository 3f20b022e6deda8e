"""What this host has decided is told to its authority: its audit chain, in order, once.

Room rule: reads the chain of this host, sends what the authority has not, and remembers how far that goes. What the authority
makes of it is its business. The chain is never changed for it: where the two do not continue each other, a new chain begins.
"""

from __future__ import annotations

from mfa_runtime.administration.act import LOCAL_NODE


def node_of(epoch: int) -> str:
    """The name of the audit chain that is a host's journal in an epoch, from 1 on."""
    return LOCAL_NODE if epoch <= 1 else f"{LOCAL_NODE}:{epoch}"
