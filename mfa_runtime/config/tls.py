"""How is written what TLS has to be: the oldest version, and which certificate is meant.

Room rule: text in, a value in its final form or :class:`Unfit` out. No file is opened.
"""

from __future__ import annotations

import enum
import re
from typing import Annotated

from pydantic import BeforeValidator

from mfa_runtime.config.notation import Unfit


class TlsVersion(enum.StrEnum):
    """The oldest TLS that is spoken."""

    V1_2 = "1.2"
    V1_3 = "1.3"


def _tls_version(value: object) -> object:
    # YAML reads 1.2 without quotes as a number.
    return str(value) if isinstance(value, float) else value


MinimumTls = Annotated[TlsVersion, BeforeValidator(_tls_version)]

_FINGERPRINT = re.compile(r"(?:sha-?256[:/ ])?((?:[0-9a-f]{2}:?){31}[0-9a-f]{2})").fullmatch


def _fingerprints(value: object) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not found:
        raise Unfit("one SHA-256 fingerprint or more")
    read: list[str] = []
    for one in found:
        parts = _FINGERPRINT(one.lower()) if isinstance(one, str) else None
        if parts is None:
            raise Unfit(
                "SHA-256 fingerprints: 64 hexadecimal digits, with or without colons",
                "`openssl x509 -noout -fingerprint -sha256 -in FILE` shows it",
            )
        read.append(parts[1].replace(":", ""))
    return tuple(read)


Fingerprints = Annotated[tuple[str, ...], BeforeValidator(_fingerprints)]
"""SHA-256 of certificates, as hexadecimal digits without colons; one or a list."""
