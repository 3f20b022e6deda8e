"""What an authority is set up to do, in its own terms.

Room rule: values. Which key of the configuration each comes from :mod:`mfad.authority` knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mfa_runtime.config.listen import Endpoint


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A certificate from somebody else, and its key. ``trust`` is what hosts check it against, PEM; "": what they have."""

    certificate_file: Path
    key_file: Path
    trust: str = ""


@dataclass(frozen=True, slots=True)
class AuthoritySettings:
    """``names`` stand in our own certificate. ``rules`` is the text that hosts get. Times are seconds.

    ``suspends``: a code that was used twice suspends its credential. ``hard_cap`` is that of failures in a row.
    """

    listen: tuple[Endpoint, ...]
    names: tuple[str, ...]
    tls: TlsFiles | None
    rules: str
    host_certificate_s: float
    long_poll_s: float
    suspends: bool
    hard_cap: int
    max_hosts: int
    max_verifications: int
