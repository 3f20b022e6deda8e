"""Do others read what we build, and do we read what they build? The others: sansldap, and pyasn1 with ldap3's specification."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import sansldap
from hypothesis import given, settings
from hypothesis import strategies as st

from ldap_proxy import message
from ldap_proxy.message import Filter, all_of, any_of, equal, present
from tests.fuzz import ldap_wire_fuzz
from tests.ldap_proxy.ldap_vectors import Message, read_messages
from tests.ldap_proxy.second_opinions import PACKING, View, ours, pyasn1s, sansldaps

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # pyasn1 0.6 has other names for what ldap3 2.9.1 imports
    from ldap3.protocol import rfc4511
    from pyasn1.codec.ber import decoder, encoder

EVERY = read_messages()

message_ids = st.one_of(st.integers(0, 300), st.integers(0, 2**31 - 1))
texts = st.text(max_size=200)
oids = st.from_regex(r"[0-2](\.(0|[1-9][0-9]{0,6})){1,8}", fullmatch=True)
octets = st.one_of(st.binary(max_size=200), st.sampled_from([126, 127, 128, 255, 256, 65_536]).map(bytes))
controls = st.lists(st.tuples(oids, st.booleans(), st.none() | octets), max_size=3)
their_controls = controls.map(lambda rows: [sansldap.LDAPControl(oid, critical, value) for oid, critical, value in rows])
codes = st.sampled_from(list(sansldap.LDAPResultCode))
descriptions = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}(;[a-z]{1,8})?", fullmatch=True)
nested_filters = st.recursive(
    st.one_of(st.builds(present, descriptions), st.builds(equal, descriptions, octets)),
    lambda inner: st.lists(inner, min_size=1, max_size=3).flatmap(lambda some: st.sampled_from([all_of(*some), any_of(*some)])),
    max_leaves=6,
)


def packed(rows: list[tuple[str, bool, bytes | None]]) -> bytes:
    """Controls as sansldap writes them, with tag and length."""
    if not rows:
        return b""
    unbind = sansldap.UnbindRequest(1, [sansldap.LDAPControl(oid, critical, value) for oid, critical, value in rows])
    found = message.head(whole := unbind.pack(PACKING), 0, 1 << 20)
    assert found is not None
    return whole[found[4] :]


def named(rows: list[tuple[str, bool, bytes | None]]) -> tuple[tuple[str, bool], ...]:
    """What is told of controls."""
    return tuple((oid, critical) for oid, critical, _ in rows)


def all_read(built: bytes, body: tuple[Any, ...], of_message: int, tag: int, rows: list[Any] | None = None) -> None:
    """See that all three read this in what was built."""
    expected = View(of_message, tag, body, named(rows or []))
    assert ours(built) == expected
    assert sansldaps(built) == expected
    assert pyasn1s(built) == expected


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
def test_the_vectors_are_read_alike(case: Message) -> None:
    """Every vector that we and another read, we read alike; those of OpenLDAP are read by one of the others at least."""
    mine = ours(case.octets)
    theirs = [view for view in (sansldaps(case.octets), pyasn1s(case.octets)) if view is not None]
    assert all(view == mine for view in theirs)
    assert theirs or "2.5.13" not in case.name


@settings(max_examples=50)
@given(message_ids, texts, texts, controls)
def test_a_simple_bind_of_ours_is_read_by_all(message_id: int, name: str, password: str, rows: list[Any]) -> None:
    """Name, password and controls, whatever they hold."""
    built = message.build_bind(message_id, name.encode(), password.encode(), packed(rows))
    all_read(built, (3, name.encode(), password.encode(), "", None), message_id, message.BIND_REQUEST, rows)


@settings(max_examples=50)
@given(message_ids, st.sampled_from(["", "PLAIN", "EXTERNAL", "SCRAM-SHA-256-PLUS"]), st.none() | octets, controls)
def test_a_sasl_bind_of_ours_is_read_by_all(
    message_id: int, mechanism: str, credentials: bytes | None, rows: list[Any]
) -> None:
    """With credentials, empty ones and none."""
    built = message.build_sasl_bind(message_id, b"", mechanism, credentials, packed(rows))
    all_read(built, (3, b"", None, mechanism, credentials), message_id, message.BIND_REQUEST, rows)


@settings(max_examples=50)
@given(message_ids, codes, texts, texts, controls)
def test_a_result_of_ours_is_read_by_all(message_id: int, code: int, text: str, matched: str, rows: list[Any]) -> None:
    """Bind responses and what ends a search."""
    for tag in (message.BIND_RESPONSE, message.SEARCH_DONE):
        built = message.build_result(message_id, tag, code, text, matched=matched.encode(), controls=packed(rows))
        all_read(built, (int(code), matched.encode(), text.encode(), b"", None, None), message_id, tag, rows)


@settings(max_examples=50)
@given(message_ids, oids, st.none() | octets, controls)
def test_an_extended_request_of_ours_is_read_by_all(message_id: int, oid: str, value: bytes | None, rows: list[Any]) -> None:
    """Its OID; and pyasn1 reads its value too."""
    built = message.build_extended_request(message_id, oid, value, packed(rows))
    all_read(built, (oid,), message_id, message.EXTENDED_REQUEST, rows)
    read = decoder.decode(built, asn1Spec=rfc4511.LDAPMessage())[0]["protocolOp"].getComponent()["requestValue"]
    assert (bytes(read) if read.isValue else None) == value


@settings(max_examples=50)
@given(message_ids, codes, texts, st.just("") | oids, st.none() | octets)
def test_an_extended_response_of_ours_is_read_by_all(
    message_id: int, code: int, text: str, oid: str, value: bytes | None
) -> None:
    """With a name or without, with a value or without."""
    built = message.build_extended_response(message_id, code, text, oid=oid, value=value)
    all_read(built, (int(code), b"", text.encode(), oid.encode(), value, None), message_id, message.EXTENDED_RESPONSE)


@settings(max_examples=50)
@given(codes, texts)
def test_a_notice_of_disconnection_of_ours_is_read_by_all(code: int, text: str) -> None:
    """Message ID 0 and its OID."""
    body = (int(code), b"", text.encode(), message.NOTICE_OF_DISCONNECTION.encode(), None, None)
    all_read(message.notice_of_disconnection(code, text), body, 0, message.EXTENDED_RESPONSE)


@settings(max_examples=50)
@given(message_ids, message_ids)
def test_unbind_and_abandon_of_ours_are_read(message_id: int, other: int) -> None:
    """sansldap does not know Abandon."""
    all_read(message.build_unbind(message_id), (), message_id, message.UNBIND_REQUEST)
    abandon = message.build_abandon(message_id, other)
    assert ours(abandon) == pyasn1s(abandon) == View(message_id, message.ABANDON_REQUEST, (other,), ())


@settings(max_examples=50)
@given(message_ids, texts, st.sampled_from(message.Scope), nested_filters, st.lists(descriptions, max_size=4))
def test_a_search_of_ours_is_read_as_it_was_meant(
    message_id: int, base: str, scope: message.Scope, wanted: Filter, attributes: list[str]
) -> None:
    """By sansldap, which makes the same octets of it again; and by pyasn1, up to the filters inside others, which it lacks."""
    built = message.build_search(message_id, base.encode(), scope, wanted, attributes, size_limit=7, time_limit_s=3)
    reader = sansldap.asn1.ASN1Reader(built)
    read = sansldap._messages.unpack_ldap_message(reader, PACKING)
    assert isinstance(read, sansldap.SearchRequest)
    assert (read.message_id, read.base_object, int(read.scope), read.attributes) == (message_id, base, scope, attributes)
    assert (int(read.deref_aliases), read.size_limit, read.time_limit, read.types_only) == (0, 7, 3, False)
    assert read.pack(PACKING) == built
    if wanted[0] in (0x87, 0xA3):
        assert encoder.encode(decoder.decode(built, asn1Spec=rfc4511.LDAPMessage())[0]) == built


@settings(max_examples=50)
@given(message_ids, st.integers(1, 127), texts, texts, their_controls)
def test_a_simple_bind_of_theirs_is_read(message_id: int, version: int, name: str, password: str, rows: list[Any]) -> None:
    """sansldap's, and pyasn1's of what it read in it."""
    built = sansldap.BindRequest(message_id, rows, version, name, sansldap.SimpleCredential(password)).pack(PACKING)
    expected = View(
        message_id,
        message.BIND_REQUEST,
        (version, name.encode(), password.encode(), "", None),
        tuple((row.control_type, row.critical) for row in rows),
    )
    assert ours(built) == expected
    assert ours(encoder.encode(decoder.decode(built, asn1Spec=rfc4511.LDAPMessage())[0])) == expected


@settings(max_examples=50)
@given(message_ids, texts, st.lists(st.tuples(descriptions, st.lists(octets, max_size=3)), max_size=4), their_controls)
def test_an_entry_of_theirs_is_read(
    message_id: int, name: str, attributes: list[tuple[str, list[bytes]]], rows: list[Any]
) -> None:
    """Every value, by descriptions in small letters."""
    parts = [sansldap.PartialAttribute(description, values) for description, values in attributes]
    built = sansldap.SearchResultEntry(message_id, rows, name, parts).pack(PACKING)
    assert ours(built) == sansldaps(built) == pyasn1s(built)
    read_name, read_attributes = message.parse_entry(built)
    assert read_name == name.encode()
    assert sum(map(len, read_attributes.values())) == sum(len(values) for _, values in attributes)


@settings(max_examples=50)
@given(
    message_ids, codes, texts, texts, st.none() | octets, st.lists(texts.filter(bool), min_size=1, max_size=2), their_controls
)
def test_a_result_of_theirs_is_read(
    message_id: int, code: Any, matched: str, text: str, sasl: bytes | None, urls: list[str], rows: list[Any]
) -> None:
    """With referrals, credentials and controls."""
    for referrals in (None, urls):
        result = sansldap.LDAPResult(code, matched, text, referrals)
        expected = (int(code), matched.encode(), text.encode(), b"", None)
        told = tuple((row.control_type, row.critical) for row in rows)
        bind = sansldap.BindResponse(message_id, rows, result, sasl).pack(PACKING)
        assert ours(bind) == View(message_id, message.BIND_RESPONSE, (*expected, sasl), told)
        done = sansldap.SearchResultDone(message_id, rows, result).pack(PACKING)
        assert ours(done) == View(message_id, message.SEARCH_DONE, (*expected, None), told)


@settings(max_examples=50)
@given(message_ids, oids, st.none() | octets)
def test_an_extended_exchange_of_theirs_is_read(message_id: int, oid: str, value: bytes | None) -> None:
    """Request and response."""
    request = sansldap.ExtendedRequest(message_id, [], oid, value).pack(PACKING)
    assert ours(request) == View(message_id, message.EXTENDED_REQUEST, (oid,), ())
    result = sansldap.LDAPResult(sansldap.LDAPResultCode.SUCCESS, "", "")
    response = sansldap.ExtendedResponse(message_id, [], result, oid, value).pack(PACKING)
    assert ours(response) == View(message_id, message.EXTENDED_RESPONSE, (0, b"", b"", oid.encode(), value, None), ())


@pytest.mark.parametrize("kind", ldap_wire_fuzz.KINDS)
def test_a_short_run_of_the_fuzzer(kind: str) -> None:
    """Three thousand mutated inputs of each kind; some of them still have to mean something, or nothing was tried."""
    outcomes = ldap_wire_fuzz.run(kind, 20_260_101, count=3_000)
    assert outcomes.total() == 3_000
    assert outcomes["read"] > 100
    assert outcomes["refused"] > 500
