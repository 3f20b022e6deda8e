"""Which operations may pass, for a session as it stands."""

from __future__ import annotations

import pytest

from ldap_proxy.message import START_TLS, WHO_AM_I, ResultCode
from ldap_proxy.permits import (
    AUTHORIZATION_DENIED,
    CANCEL,
    FAST_BIND,
    NEVER,
    PROXIED_AUTHORIZATION,
    VERIFY_CREDENTIALS,
    Permits,
    is_password,
)
from ldap_proxy.settings import STANDARD_EXTENDED, Anonymous, OperationsSettings

PLAIN = Permits(OperationsSettings(), Anonymous.ALLOW)
STRICT = Permits(OperationsSettings(), Anonymous.DENY)


def _code(denied: object) -> int | None:
    return None if denied is None else denied.code  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("oid", sorted(STANDARD_EXTENDED))
def test_standard_operations_are_for_those_who_are_bound(oid: str) -> None:
    """Somebody who is not bound may ask who he is, and cancel."""
    assert PLAIN.extended(oid, bound=True) is None
    expected = None if oid in {WHO_AM_I, CANCEL} else ResultCode.INSUFFICIENT_ACCESS_RIGHTS
    assert _code(PLAIN.extended(oid, bound=False)) == expected
    assert _code(STRICT.extended(oid, bound=False)) == ResultCode.INSUFFICIENT_ACCESS_RIGHTS


@pytest.mark.parametrize("oid", [VERIFY_CREDENTIALS, FAST_BIND, START_TLS])
def test_no_configuration_lets_a_second_bind_through(oid: str) -> None:
    """What checks a password as a bind does, and what changes the stream, stay here."""
    permits = Permits(OperationsSettings(extended=STANDARD_EXTENDED | {oid}), Anonymous.ALLOW)

    assert oid in NEVER
    assert _code(permits.extended(oid, bound=True)) == ResultCode.PROTOCOL_ERROR


def test_an_operation_that_is_not_listed_looks_unknown() -> None:
    """protocolError, as a directory answers (RFC 4511 section 4.12); one that is listed passes."""
    assert _code(PLAIN.extended("1.2.3.4", bound=True)) == ResultCode.PROTOCOL_ERROR
    assert Permits(OperationsSettings(extended=frozenset({"1.2.3.4"})), Anonymous.ALLOW).extended("1.2.3.4", bound=True) is None


@pytest.mark.parametrize(
    "attribute",
    ["userPassword", "USERpassword", "userPassword;lang-de;x", "2.5.4.35", "2.5.4.35;x", " userPassword", "oid.2.5.4.35",
     "OID.2.5.4.35", "authPassword", "1.3.6.1.4.1.4203.1.3.4"],
)  # fmt: skip
def test_passwords_by_all_their_names(attribute: str) -> None:
    """However it is written, it is not compared."""
    assert is_password(attribute)
    assert _code(PLAIN.compare(attribute)) == ResultCode.UNWILLING_TO_PERFORM


@pytest.mark.parametrize("attribute", ["cn", "userPasswordHint", "2.5.4.3", "2.5.4.351", ""])
def test_other_attributes_are_compared(attribute: str) -> None:
    """The rest is the directory's."""
    assert PLAIN.compare(attribute) is None


@pytest.mark.parametrize("oid", sorted(PROXIED_AUTHORIZATION))
def test_proxied_authorization_needs_both(oid: str) -> None:
    """That it is allowed, and that the session is exempt."""
    allowed = Permits(OperationsSettings(proxied_authorization=True), Anonymous.ALLOW)
    controls = (("1.2.3", False), (oid, False))

    assert allowed.controls(controls, exempt=True) is None
    for permits, exempt in ((allowed, False), (PLAIN, True), (PLAIN, False)):
        assert _code(permits.controls(controls, exempt=exempt)) == AUTHORIZATION_DENIED
    assert PLAIN.controls((("1.2.3", True),), exempt=False) is None


def test_sasl_by_its_mechanism_and_never_external() -> None:
    """EXTERNAL would be the identity of the door's own connection."""
    permits = Permits(OperationsSettings(sasl=frozenset({"GSSAPI", "external"})), Anonymous.ALLOW)

    assert permits.sasl("GSSAPI") is None
    assert permits.sasl("gssapi") is None
    for mechanism in ("EXTERNAL", "External", "PLAIN", ""):
        assert _code(permits.sasl(mechanism)) == ResultCode.AUTH_METHOD_NOT_SUPPORTED
    assert _code(PLAIN.sasl("GSSAPI")) == ResultCode.AUTH_METHOD_NOT_SUPPORTED


def test_the_root_dse_is_for_everybody() -> None:
    """Base empty and scope baseObject, and nothing else, where the unbound are denied."""
    assert STRICT.unbound(b"\x04\x00\x0a\x01\x00") is None
    for other in (b"\x04\x00\x0a\x01\x02", b"\x04\x02\x0a\x01\x00", b"\x04\x00\x0a\x01", b""):
        assert _code(STRICT.unbound(other)) == ResultCode.INSUFFICIENT_ACCESS_RIGHTS
        assert PLAIN.unbound(other) is None


def test_other_operations_of_the_unbound() -> None:
    """As the application says."""
    assert _code(STRICT.operation(bound=False)) == ResultCode.INSUFFICIENT_ACCESS_RIGHTS
    assert STRICT.operation(bound=True) is None
    assert PLAIN.operation(bound=False) is None
