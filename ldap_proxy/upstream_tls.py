"""Is it really the directory that we speak to?

Room rule: what TLS towards the directory must be, and what is wrong with a certificate in words that an administrator can use.
Nothing here falls back to less: a server that shows the wrong certificate is a server that is down.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from dataclasses import dataclass
from typing import Any

from ldap_proxy.settings import Scheme, UpstreamSettings, Verify
from mfa_core.errors import ConfigurationError

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_HOST_NAME_MISMATCH = {62, 64}  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_UNKNOWN_CA = {2, 18, 19, 20, 21}  # no issuer, self-signed, self-signed in the chain, no local issuer, first one unverifiable
_EXPIRED = {10}
_NOT_YET = {9}


class WrongCertificate(Exception):
    """The certificate is not one of those that are pinned. The message names both."""


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """What a handshake with the directory needs."""

    context: ssl.SSLContext
    pins: frozenset[str]

    def check_pin(self, transport: asyncio.BaseTransport) -> None:
        """See that the certificate is a pinned one, if any are. Raises: WrongCertificate."""
        if not self.pins:
            return
        shown = fingerprint_of(transport.get_extra_info("ssl_object"))
        if shown not in self.pins:
            raise WrongCertificate(f"its certificate has the SHA-256 {shown or '(there is none)'}, which is not among `pins`")


def fingerprint_of(secured: Any) -> str:
    """SHA-256 of the certificate that the other side showed, in hexadecimal; "" when there is none.

    ``secured`` is an SSLObject, or None.
    """
    octets = None if secured is None else secured.getpeercert(binary_form=True)
    return hashlib.sha256(octets).hexdigest() if octets else ""


def upstream_tls(settings: UpstreamSettings) -> UpstreamTls | None:
    """TLS as ``settings`` want it; None where no server is spoken to inside TLS.

    Raises: ConfigurationError, when a file cannot be used.
    """
    if not any(needs_tls(server.scheme, start_tls=settings.start_tls) for server in settings.servers):
        return None
    try:
        context = ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
    except OSError as err:
        raise ConfigurationError(
            f"doors.ldap.upstream_tls.ca_file {settings.ca_file}: {_reason(err)}", cure="name a file of PEM certificates"
        ) from err
    context.minimum_version = _VERSIONS[settings.minimum_version]
    if settings.verify is Verify.NONE:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.certificate_file is not None:
        try:
            context.load_cert_chain(settings.certificate_file, settings.key_file)
        except OSError as err:
            raise ConfigurationError(
                f"doors.ldap.upstream_tls: certificate_file and key_file cannot be used: {_reason(err)}",
                cure="give PEM files that mfad may read; `openssl x509 -in FILE -noout -text` shows a certificate",
            ) from err
    pins = frozenset(pin.replace(":", "").lower() for pin in settings.pins)
    return UpstreamTls(context, pins)


def needs_tls(scheme: Scheme, *, start_tls: bool) -> bool:
    """Whether a server of this scheme is spoken to inside TLS."""
    return scheme is Scheme.LDAPS or (scheme is Scheme.LDAP and start_tls)


def what_is_wrong(err: BaseException) -> tuple[str, str]:
    """What went wrong in a handshake, and how to mend it. Nothing that the other side wrote is quoted, names apart."""
    if isinstance(err, WrongCertificate):
        return str(err), "if the certificate was renewed, compare the fingerprint at the server itself and add it to `pins`"
    if isinstance(err, ssl.SSLCertVerificationError):
        said = f"its certificate was refused: {err.verify_message}"
        code = err.verify_code
        if code in _HOST_NAME_MISMATCH:
            return said, "write the server in `upstream` by a name that stands in its certificate"
        if code in _UNKNOWN_CA:
            return said, "name the CA that issued it in `ca_file`"
        if code in _EXPIRED:
            return said, "renew the server's certificate"
        if code in _NOT_YET:
            return said, "compare the clocks of both machines"
        return said, "see `openssl s_client -connect HOST:PORT -showcerts`"
    if isinstance(err, ssl.SSLError):
        cure = "see whether the server speaks TLS on this port (ldaps:// 636, ldap:// 389 with start_tls), and which versions"
        return f"no TLS: {_reason(err)}", cure
    if isinstance(err, TimeoutError):
        return "no TLS handshake in time", "see whether the server speaks TLS on this port, and what is between it and here"
    if isinstance(err, ConnectionError):
        return (
            "it ended the connection during the TLS handshake",
            "see the server's log: it may have no certificate, want one of ours, or take no TLS on this port",
        )
    return f"no TLS: {_reason(err)}", "see the server's log"


def _reason(err: BaseException) -> str:
    found = getattr(err, "reason", None) or getattr(err, "strerror", None) or str(err) or type(err).__name__
    return "".join(c if c.isprintable() else " " for c in str(found)[:200])
