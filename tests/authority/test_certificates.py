"""Certificates of our own: what they are good for, for how long, and whose key they carry."""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from authority.certificate_authority import (
    CertificateAuthority,
    check_files,
    check_request,
    make_authority,
    read_shown,
    server_context,
    server_context_of_files,
    sign_host,
)
from authority.look import Place
from mfa_core.errors import ConfigurationError, InvalidInput, StoreCorrupt
from mfa_core.secret import Secret
from mfa_runtime.agent.identity import read_certificate
from tests.authority.agent_double import HostKey

NOW = 1_800_000_000.0
DAY = 86_400.0


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return make_authority("0123abcd", now=NOW)


def test_the_authority_signs_certificates_and_nothing_below_it_does(authority: CertificateAuthority) -> None:
    certificate = x509.load_der_x509_certificate(authority.certificate)
    certificate.verify_directly_issued_by(certificate)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    years = (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days / 365
    assert 20 <= years < 20.1
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)


def test_a_host_s_certificate_is_for_one_host_and_for_clients(authority: CertificateAuthority) -> None:
    key = HostKey()
    issued = sign_host(authority, key.csr("admin"), host_id=17, now=NOW, lasts_s=30 * DAY)
    certificate = x509.load_pem_x509_certificate(issued.pem.encode())
    certificate.verify_directly_issued_by(x509.load_der_x509_certificate(authority.certificate))
    assert certificate.public_key() == key.key.public_key()
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    shown = read_shown(certificate.public_bytes(serialization.Encoding.DER))
    assert (shown.host_id, shown.fingerprint, shown.not_after) == (17, issued.fingerprint, NOW + 30 * DAY)
    assert shown.not_before < NOW < shown.not_after


@pytest.mark.parametrize("name", ["host", "host ", "host -1", "host 1x", "host \u0661", "host " + "9" * 19, "17", "a host 17"])
def test_another_name_is_of_no_host(authority: CertificateAuthority, name: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    source = x509.load_der_x509_certificate(authority.certificate)
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(1).not_valid_before(source.not_valid_before_utc).not_valid_after(source.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    assert read_shown(made.public_bytes(serialization.Encoding.DER)).host_id == 0


@pytest.mark.parametrize("lasts_s", [3600.0, 4 * 3600.0, DAY, 3 * DAY, 14 * DAY, 30 * DAY, 365 * DAY])
def test_a_host_renews_its_certificate_in_the_second_half_of_its_life(
    authority: CertificateAuthority, lasts_s: float
) -> None:
    """However short that is: who has just got one does not ask for the next."""
    issued = sign_host(authority, HostKey().csr("web1"), host_id=17, now=NOW, lasts_s=lasts_s)
    certificate = x509.load_pem_x509_certificate(issued.pem.encode()).public_bytes(serialization.Encoding.DER)
    read = read_certificate(certificate)
    assert read.not_after == NOW + lasts_s
    assert NOW + lasts_s * 0.49 <= read.renewal_at() <= NOW + lasts_s * 0.68


def test_a_key_of_another_kind_is_not_signed(authority: CertificateAuthority) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    for key in (ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65_537, 2_048)):
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        with pytest.raises(InvalidInput, match="of another kind than ECDSA P-256"):
            sign_host(
                authority, request.public_bytes(serialization.Encoding.PEM).decode(), host_id=1, now=NOW, lasts_s=DAY
            )


@given(st.text(max_size=200))
def test_no_text_breaks_the_reading_of_a_request(text: str) -> None:
    with pytest.raises(InvalidInput):
        check_request(text)


@given(st.binary(max_size=200))
def test_no_octets_break_the_reading_of_a_certificate(octets: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_shown(octets)


@given(at=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_changed_certificate_is_read_or_refused(authority: CertificateAuthority, at: int, value: int) -> None:
    octets = bytearray(authority.certificate)
    octets[at % len(octets)] = value
    with contextlib.suppress(InvalidInput):
        assert read_shown(bytes(octets)).host_id == 0


def test_the_server_s_certificate_is_good_for_its_names(authority: CertificateAuthority) -> None:
    context = server_context(authority, ["mfa.example.org", "192.0.2.7", "2001:db8::1"], now=NOW)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.num_tickets == 0
    assert _names(context) == {"mfa.example.org", ipaddress.ip_address("192.0.2.7"), ipaddress.ip_address("2001:db8::1")}


def _names(context: ssl.SSLContext) -> set[object]:
    """Shake hands in memory, and look at what was shown."""
    client_context = ssl.create_default_context()
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    shown = client.getpeercert(binary_form=True)
    assert shown is not None
    found = x509.load_der_x509_certificate(shown).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*found.get_values_for_type(x509.DNSName), *found.get_values_for_type(x509.IPAddress)}


def test_files_that_cannot_be_used_are_named(authority: CertificateAuthority, tmp_path: Path) -> None:
    (tmp_path / "nothing.pem").write_text("nothing")
    for name in ("absent.pem", "nothing.pem"):
        path = str(tmp_path / name)
        with pytest.raises(ConfigurationError, match=rf"authority.tls: certificate_file .*{name}"):
            server_context_of_files(authority, path, path)


def test_a_damaged_key_of_the_authority_is_named(authority: CertificateAuthority) -> None:
    damaged = CertificateAuthority(Secret(b"nothing"), authority.certificate)
    with pytest.raises(StoreCorrupt, match="key of the certificate authority"):
        sign_host(damaged, HostKey().csr(), host_id=1, now=NOW, lasts_s=DAY)


@given(st.text(max_size=80))
def test_a_place_in_a_sync_is_read_or_none(text: str) -> None:
    place = Place.read(text)
    assert place is None or Place.read(place.text()) == place


@given(
    seq=st.integers(0, 10**17), latest=st.integers(0, 10**17), since=st.integers(-1, 10**17), after=st.integers(0, 10**17),
    short=st.booleans(), generation=st.text("0123456789.-", min_size=1, max_size=20),
)  # fmt: skip
def test_a_place_in_a_sync_comes_back_as_it_went(
    seq: int, latest: int, since: int, after: int, short: bool, generation: str
) -> None:
    place = Place(seq, latest, since, after, short, generation)
    assert Place.read(place.text()) == place


def test_files_are_looked_at_before_anything_is_served(authority: CertificateAuthority, tmp_path: Path) -> None:
    key = HostKey()
    path = tmp_path / "both.pem"
    issued = sign_host(authority, key.csr(), host_id=1, now=NOW, lasts_s=DAY)
    private = key.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + issued.pem.encode())
    check_files(str(path), str(path))
    path.write_bytes(private)
    with pytest.raises(ConfigurationError, match=r"authority\.tls"):
        check_files(str(path), str(path))
