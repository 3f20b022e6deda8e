"""For how long is a certificate good yet?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from mfactl.doctor.finding import Finding, Weight

CERTIFICATE = "tls"
"""Where these findings belong."""
EXPIRES_SOON = timedelta(days=30)


def check_key_file(path: Path) -> Iterator[Finding]:
    """Can anybody else read the key?"""
    mode = path.stat().st_mode & 0o777
    if mode & 0o007:
        yield Finding(
            Weight.PROBLEM, CERTIFICATE, f"{path} has mode {mode:04o}: others can read it", f"chmod 0400 {path}"
        )


def check_end(path: Path, *, now: datetime) -> Iterator[Finding]:
    """When does the first certificate of a file end?"""
    from cryptography import x509

    try:
        end = min(one.not_valid_after_utc for one in x509.load_pem_x509_certificates(path.read_bytes()))
    except (OSError, ValueError) as err:
        yield Finding(Weight.PROBLEM, CERTIFICATE, f"{path}: no certificate can be read from it: {err}", "write it in PEM")
        return
    day = end.strftime("%Y-%m-%d")
    if end <= now:
        yield Finding(Weight.PROBLEM, CERTIFICATE, f"{path}: a certificate in it ended on {day}", "renew it, then reload mfad")
    elif end - now < EXPIRES_SOON:
        yield Finding(Weight.WARNING, CERTIFICATE, f"{path}: a certificate in it ends on {day}", "renew it, then reload mfad")
    else:
        yield Finding(Weight.GOOD, CERTIFICATE, f"{path}: good until {day}")
