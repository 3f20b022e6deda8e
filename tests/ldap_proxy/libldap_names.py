"""What does OpenLDAP's own library read in a DN? Run by the system's Python, which has python-ldap; see test_dn.py.

One text a line comes in as JSON; out goes its RDNs, each a list of [type, value], or null where libldap refuses it, or where
what it read is no UTF-8. Values that it leaves as BER (``#hex``) are null too: it does not decode them.
"""

from __future__ import annotations

import json
import sys

import ldap
import ldap.dn

_BINARY = 2  # LDAP_AVA_BINARY


def read(text: str) -> list[list[list[str]]] | None:
    """The RDNs, as libldap has them."""
    try:
        rdns = ldap.dn.str2dn(text)
    except (ldap.DECODING_ERROR, ValueError):  # ValueError: octets that are no UTF-8
        return None
    if any(flags & _BINARY for rdn in rdns for _, _, flags in rdn):
        return None
    return [[[kind, value] for kind, value, _ in rdn] for rdn in rdns]


for line in sys.stdin:
    print(json.dumps(read(json.loads(line))), flush=True)
