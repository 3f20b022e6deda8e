"""Who a host is to its authority: a key and the certificate for it, and the key that secrets are sealed to.

Room rule: the only file of an agent that makes or reads X.509, and pure but for the randomness of new keys. Where keys lie is
known to :mod:`mfa_runtime.store.key_pairs`, and who is asked for a certificate to :mod:`mfa_runtime.agent.joining`.
"""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mfa_core.errors import ConfigurationError, StoreCorrupt
from mfa_core.secret import Secret
from mfa_runtime.protocol.message import ProtocolError

RENEW_AFTER = 2 / 3
"""Of a certificate's life: a third of it is left for an authority that cannot be reached."""


@dataclass(frozen=True, slots=True)
class HostKey:
    """A new key pair (PKCS #8, DER) and the request to sign it (PEM)."""

    private: Secret
    public: bytes
    csr: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate (DER) that was found good for a key; times are Unix seconds."""

    der: bytes
    not_before: float
    not_after: float

    def renewal_at(self) -> float:
        """When a new one is to be asked for."""
        return self.not_before + RENEW_AFTER * (self.not_after - self.not_before)


def new_host_key(host_name: str) -> HostKey:
    """A new ECDSA key on P-256, and the request to sign it."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        # RFC 5280: a common name has 64 characters at most. The authority puts its own in its place anyway.
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host_name[:64])]))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return HostKey(Secret(private), _public_octets(key.public_key()), _pem(csr))


def check_certificate(pem: str, *, public: bytes, trust: str) -> Certificate:
    """Find a certificate good: for our key, and signed by somebody in ``trust`` (PEM).

    Raises:
        ProtocolError: it is not.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        anchors = x509.load_pem_x509_certificates(trust.encode())
        ours = _public_octets(certificate.public_key()) == public
    except (ValueError, UnsupportedAlgorithm) as err:
        raise ProtocolError(
            "the certificate for this host, or the authority's own, cannot be read", cure="see the log of the authority"
        ) from err
    if not ours:
        raise ProtocolError("the certificate is for another key than this host's", cure="see the log of the authority")
    if not any(_signed_by(certificate, anchor) for anchor in anchors):
        raise ProtocolError(
            "the certificate for this host was not signed by the authority that is trusted", cure="see who answered"
        )
    return _read(certificate)


def read_certificate(der: bytes) -> Certificate:
    """A certificate from the store. Raises: StoreCorrupt."""
    try:
        return _read(x509.load_der_x509_certificate(der))
    except (ValueError, UnsupportedAlgorithm) as err:
        raise StoreCorrupt("the certificate of this host cannot be read", cure="join again") from err


def certificate_pem(der: bytes) -> bytes:
    """As TLS takes it."""
    return ssl.DER_cert_to_PEM_cert(der).encode("ascii")


def private_pem(private: Secret) -> Secret:
    """A private key as TLS takes it. Raises: StoreCorrupt."""
    try:
        key = serialization.load_der_private_key(private.reveal(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise StoreCorrupt("the key of this host cannot be read", cure="join again") from err
    return Secret(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def pinned(chain: list[bytes], fingerprint: bytes) -> str:
    """The certificate (PEM) among those that a server has shown (DER) whose SHA-256 a join token names.

    Raises:
        ConfigurationError: none of them is it. The token must not be sent there.
    """
    for der in chain:
        if hashlib.sha256(der).digest() == fingerprint:
            return ssl.DER_cert_to_PEM_cert(der)
    seen = ", ".join(hashlib.sha256(der).hexdigest()[:16] for der in chain) or "none"
    raise ConfigurationError(
        f"whoever answers there is not the authority that issued the token: it shows certificates {seen}, expected one "
        f"that begins with {fingerprint.hex()[:16]}",
        cure="check the address, and that nothing on the way ends TLS; the token has not been sent and is still good",
    )


def _read(certificate: x509.Certificate) -> Certificate:
    return Certificate(
        certificate.public_bytes(serialization.Encoding.DER),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def _signed_by(certificate: x509.Certificate, anchor: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(anchor)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _public_octets(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("another kind of key")  # noqa: TRY004  as for any other certificate that is not for this key
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _pem(csr: x509.CertificateSigningRequest) -> str:
    return csr.public_bytes(serialization.Encoding.PEM).decode("ascii")
