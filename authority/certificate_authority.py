"""Whom does a host trust, and who signs for whom?

Room rule: the only file of this package that makes or reads X.509. Keys go in and out as PKCS #8 inside :class:`Secret`;
where they lie, and when a certificate is wanted, is known elsewhere. Of a request to sign nothing counts but its public key:
names, purposes and times are ours.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mfa_core.errors import ConfigurationError, InvalidInput, StoreCorrupt
from mfa_core.secret import Secret

CA_S = 20 * 365 * 86_400.0
"""Hosts pin this certificate when they join; a shorter life would be a day on which all of them join again."""
SERVER_S = 30 * 86_400.0
BACKDATED_S = 7 * 86_400.0
"""How far a certificate begins in the past: a host whose clock is behind must still find its authority, which tells it so.
But not by more than half of the time that it lasts: hosts renew theirs when two thirds are over, counted from its beginning."""
MAX_CSR_CHARS = 8192
HOST_PREFIX = "host "
"""Of the common name of a host's certificate: its id follows."""


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """The key that signs for hosts and for our own servers, and its certificate (DER)."""

    private: Secret
    certificate: bytes

    @property
    def pem(self) -> str:
        """What hosts trust."""
        return ssl.DER_cert_to_PEM_cert(self.certificate)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that was signed. ``fingerprint`` is the SHA-256 of its DER; ``not_after`` Unix seconds."""

    pem: str
    fingerprint: bytes
    not_after: float


@dataclass(frozen=True, slots=True)
class Shown:
    """The certificate that a peer has shown: TLS has proved that it has the key, and that our CA has signed.

    ``host_id`` is 0 where the name is none of a host. Times are Unix seconds.
    """

    fingerprint: bytes
    host_id: int
    not_before: float
    not_after: float


def make_authority(name: str, *, now: float) -> CertificateAuthority:
    """A new key with its self-signed certificate. ``name`` tells people whose it is."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"mfad authority {name}"[:64])])
    public = key.public_key()
    certificate = (
        _begun(public, subject=subject, issuer=subject, now=now, lasts_s=CA_S)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return CertificateAuthority(_as_secret(key), certificate.public_bytes(serialization.Encoding.DER))


def sign_host(authority: CertificateAuthority, csr: str, *, host_id: int, now: float, lasts_s: float) -> Issued:
    """Sign the public key of a host's request, for TLS clients only.

    Raises:
        InvalidInput: it is no request, its signature is wrong, or its key is of another kind.
    """
    return _host_certificate(authority, _requested_key(csr), host_id=host_id, now=now, lasts_s=lasts_s)


def check_request(csr: str) -> None:
    """Raises: InvalidInput, as :func:`sign_host` would: for before anything is spent on the host."""
    _requested_key(csr)


def _requested_key(csr: str) -> ec.EllipticCurvePublicKey:
    cure = "make an ECDSA key on the curve P-256 and a PKCS #10 request with it, in PEM"
    if len(csr) > MAX_CSR_CHARS:
        raise InvalidInput(f"the request to sign has {len(csr)} characters, expected at most {MAX_CSR_CHARS}", cure=cure)
    try:
        request = x509.load_pem_x509_csr(csr.encode("ascii"))
        key = request.public_key()
        good = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as err:
        raise InvalidInput("the request to sign cannot be read", cure=cure) from err
    if not good:
        raise InvalidInput("the signature of the request to sign is wrong: whoever sent it has not the key", cure=cure)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidInput("the key of the request to sign is of another kind than ECDSA P-256", cure=cure)
    return key


def _host_certificate(
    authority: CertificateAuthority, key: ec.EllipticCurvePublicKey, *, host_id: int, now: float, lasts_s: float
) -> Issued:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{HOST_PREFIX}{host_id}")])
    issuer, signer = _opened(authority)
    certificate = (
        _begun(key, subject=subject, issuer=issuer.subject, now=now, lasts_s=lasts_s)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
    return Issued(pem, certificate.fingerprint(hashes.SHA256()), certificate.not_valid_after_utc.timestamp())


def server_context(authority: CertificateAuthority, names: Sequence[str], *, now: float) -> ssl.SSLContext:
    """TLS for our own listener: a new key, and a certificate for it by our CA, good for ``names`` (host names, addresses).

    The key is in no file and in no store: it is made when mfad starts, and again when two thirds of :data:`SERVER_S` are over.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    issuer, signer = _opened(authority)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, (names[0] if names else "mfad")[:64])])
    certificate = (
        _begun(key.public_key(), subject=subject, issuer=issuer.subject, now=now, lasts_s=SERVER_S)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    context = _context(authority)
    # OpenSSL takes a key from a file only; this one has no name and lives as long as the descriptor.
    both = os.memfd_create("mfad-https", os.MFD_CLOEXEC)
    try:
        # With our CA behind it: a host that joins knows that one's digest, and nothing else of us.
        _write_all(both, _as_pem(key) + certificate.public_bytes(serialization.Encoding.PEM) + authority.pem.encode("ascii"))
        context.load_cert_chain(f"/proc/self/fd/{both}")
    finally:
        os.close(both)
    return context


def server_context_of_files(authority: CertificateAuthority, certificate_file: str, key_file: str) -> ssl.SSLContext:
    """TLS with a certificate that somebody else has issued; hosts are still known by ours.

    Raises: ConfigurationError, when a file cannot be used.
    """
    context = _context(authority)
    _load_files(context, certificate_file, key_file)
    return context


def check_files(certificate_file: str, key_file: str) -> None:
    """Raises: ConfigurationError, as :func:`server_context_of_files` would: for when nothing is to be served yet."""
    _load_files(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate_file, key_file)


def _load_files(context: ssl.SSLContext, certificate_file: str, key_file: str) -> None:
    try:
        context.load_cert_chain(certificate_file, key_file)
    except OSError as err:  # ssl.SSLError is one
        reason = getattr(err, "reason", None) or err.strerror or str(err)
        if reason == "KEY_VALUES_MISMATCH":
            reason = "the key is of another certificate"
        raise ConfigurationError(
            f"authority.tls: certificate_file {certificate_file} with key_file {key_file} cannot be used: {reason}",
            cure="give PEM files that mfad may read, or leave `tls` out: mfad then makes a certificate of its own",
        ) from err


def read_shown(der: bytes) -> Shown:
    """What a peer's certificate says. Raises: InvalidInput, for one that cannot be read."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        name = str(names[0].value) if len(names) == 1 else ""
        fingerprint = certificate.fingerprint(hashes.SHA256())
        begins, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    except (ValueError, UnsupportedAlgorithm) as err:
        raise InvalidInput("the certificate cannot be read") from err
    digits = name.removeprefix(HOST_PREFIX)
    known = name.startswith(HOST_PREFIX) and digits.isascii() and digits.isdigit() and len(digits) <= _MAX_ID_DIGITS
    return Shown(fingerprint, int(digits) if known else 0, begins, ends)


_MAX_ID_DIGITS = 18
_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME: what OpenSSL would refuse in the handshake, without a word, we refuse with one. A kept connection
can outlive its certificate, so that the time is looked at for each request anyway."""


def _context(authority: CertificateAuthority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL  # joining and health need none; each other route asks for it
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.verify_flags = ssl.VerifyFlags(context.verify_flags | _NO_CHECK_TIME)
    context.load_verify_locations(cadata=authority.certificate)
    # No session is resumed: a ticket would carry a certificate past its revocation, and saves little on kept connections.
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    return context


def _opened(authority: CertificateAuthority) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_der_x509_certificate(authority.certificate)
        key = serialization.load_der_private_key(authority.private.reveal(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise StoreCorrupt("the key of the certificate authority cannot be read", cure="restore the store") from err
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StoreCorrupt("the key of the certificate authority is of another kind than ECDSA", cure="restore the store")
    return certificate, key


def _begun(
    key: ec.EllipticCurvePublicKey, *, subject: x509.Name, issuer: x509.Name, now: float, lasts_s: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(now) - timedelta(seconds=min(BACKDATED_S, lasts_s / 2)))
        .not_valid_after(_moment(now) + timedelta(seconds=lasts_s))
    )


def _moment(now: float) -> datetime:
    return datetime.fromtimestamp(int(now), UTC)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _as_secret(key: ec.EllipticCurvePrivateKey) -> Secret:
    return Secret(
        key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def _as_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _write_all(descriptor: int, data: bytes) -> None:
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)
