"""What a host may be called."""

from __future__ import annotations

import re

from mfa_core.errors import InvalidInput

MAX_HOST_NAME_CHARS = 253
_LABELS = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*", re.ASCII)


def check_host_name(name: str) -> str:
    """A name as it stands in the DNS (RFC 1123 section 2.1), in lower case; the bounds are those of RFC 1035 section 2.3.4.

    Raises:
        InvalidInput: it is another text.
    """
    if len(name) > MAX_HOST_NAME_CHARS or not _LABELS.fullmatch(name):
        raise InvalidInput(
            f"{name[:64]!a} is no host name", cure="letters in lower case, digits and dashes, with dots between the parts"
        )
    return name
