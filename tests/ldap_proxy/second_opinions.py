"""What do two other implementations read in an LDAP message: sansldap, and ldap3's specification through pyasn1?

Each reading becomes a :class:`View`, ours too, so that they compare. None: that reader refuses the octets, or does not know the
operation. Both are slow, recurse, and take what we refuse (indefinite lengths, octets that are left over): where they read a
message that we read, though, it must be the same one.
"""

from __future__ import annotations

import re
import struct
import warnings
from typing import Any, NamedTuple

from sansldap import (
    BindRequest,
    BindResponse,
    ExtendedRequest,
    ExtendedResponse,
    SaslCredential,
    SearchResultDone,
    SearchResultEntry,
    SimpleCredential,
    UnbindRequest,
)
from sansldap._messages import PackingOptions, unpack_ldap_message  # no public function takes one message, whoever sends it
from sansldap.asn1 import ASN1Reader, NotEnougData

from ldap_proxy import message
from ldap_proxy.ber import Malformed, head

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # pyasn1 0.6 has other names for what ldap3 2.9.1 imports
    from ldap3.protocol import rfc4511
    from pyasn1.codec.ber import decoder
    from pyasn1.error import PyAsn1Error

PACKING = PackingOptions()
_PYASN1_TAGS = {
    "bindRequest": 0x60, "bindResponse": 0x61, "unbindRequest": 0x42, "searchRequest": 0x63, "searchResEntry": 0x64,
    "searchResDone": 0x65, "searchResRef": 0x73, "modifyRequest": 0x66, "modifyResponse": 0x67, "addRequest": 0x68,
    "addResponse": 0x69, "delRequest": 0x4A, "delResponse": 0x6B, "modDNRequest": 0x6C, "modDNResponse": 0x6D,
    "compareRequest": 0x6E, "compareResponse": 0x6F, "abandonRequest": 0x50, "extendedReq": 0x77, "extendedResp": 0x78,
    "intermediateResponse": 0x79,
}  # fmt: skip


class View(NamedTuple):
    """A message as it compares; ``body`` is empty for operations whose inside is nobody's business here."""

    message_id: int
    tag: int
    body: tuple[Any, ...]
    controls: tuple[tuple[str, bool], ...]


def ours(octets: bytes) -> View | None:
    """Our own reading, all of it: a message that any of its readers refuses is refused."""
    try:
        found = head(octets, 0, len(octets))
        if found is None or found[0] != len(octets):
            return None
        _, message_id, tag, _, op_end = found
        if tag not in message.REQUESTS and tag not in message.RESPONSES:
            return None
        controls = octets[op_end:]
        body: tuple[Any, ...] = ()
        if tag == message.BIND_REQUEST:
            bind = message.parse_bind(octets)
            password, credentials = bind.password, bind.credentials
            body = (
                bind.version,
                bind.name,
                None if password is None else password.reveal(),
                bind.mechanism,
                None if credentials is None else credentials.reveal(),
            )
        elif tag == message.EXTENDED_REQUEST:
            body = (message.extended_oid(octets),)
        elif tag == message.COMPARE_REQUEST:
            body = (message.compare_attribute(octets),)
        elif tag == message.ABANDON_REQUEST:
            body = (message.abandoned(octets),)
        elif tag == message.SEARCH_ENTRY:
            name, attributes = message.parse_entry(octets)
            body = (name, attributes)
        elif tag in message.FINAL.values():
            result = message.parse_result(octets)
            body = (result.code, result.matched, result.diagnostic, result.oid, result.value, result.sasl)
            controls = result.controls
        return View(message_id, tag, body, message.control_oids(controls))
    except Malformed:
        return None


def _merged(attributes: Any) -> dict[str, list[bytes]]:
    """Pairs of description and values, by descriptions in small letters."""
    merged: dict[str, list[bytes]] = {}
    for description, values in attributes:
        merged.setdefault(description.lower(), []).extend(values)
    return merged


def sansldaps(octets: bytes) -> View | None:
    """What sansldap reads. It knows binds, searches, extended operations and Unbind."""
    reader = ASN1Reader(octets)
    try:
        read = unpack_ldap_message(reader, PACKING)
        if reader.get_remaining_data():
            return None
    except (ValueError, NotImplementedError, NotEnougData, IndexError, struct.error):  # ValueError: ASN.1 and UTF-8 too
        return None
    tag = message.UNBIND_REQUEST if isinstance(read, UnbindRequest) else 0x60 | read.tag_number
    body: tuple[Any, ...] = ()
    match read:
        case BindRequest(authentication=SimpleCredential() as simple):
            body = (read.version, read.name.encode(), simple.password.encode(), "", None)
        case BindRequest(authentication=SaslCredential() as sasl):
            body = (read.version, read.name.encode(), None, _mechanism(sasl.mechanism), sasl.credentials)
        case ExtendedRequest():
            body = (read.name,)
        case SearchResultEntry():
            body = (read.object_name.encode(), _merged((one.name, one.values) for one in read.attributes))
        case BindResponse() | SearchResultDone() | ExtendedResponse():
            oid = (read.name or "") if isinstance(read, ExtendedResponse) else ""
            body = (
                read.result.result_code.value,
                read.result.matched_dn.encode(),
                read.result.diagnostics_message.encode(),
                oid.encode(),
                read.value if isinstance(read, ExtendedResponse) else None,
                read.server_sasl_creds if isinstance(read, BindResponse) else None,
            )
    return View(read.message_id, tag, body, tuple((one.control_type, one.critical) for one in read.controls))


def _mechanism(name: str) -> str:
    """A mechanism; what is none of RFC 4422 has no name with us."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]{1,20}", name) else ""


def _octets(value: Any) -> bytes | None:
    """An optional OCTET STRING of pyasn1."""
    return bytes(value) if value.isValue else None


def pyasn1s(octets: bytes) -> View | None:
    """What pyasn1 reads by ldap3's specification of RFC 4511."""
    try:
        read, rest = decoder.decode(octets, asn1Spec=rfc4511.LDAPMessage())
        if rest:
            return None
        return _view(read)
    except (PyAsn1Error, ValueError, IndexError, OverflowError, RecursionError):  # OverflowError: a length of eight octets
        return None


def _view(read: Any) -> View:
    kind = read["protocolOp"].getName()
    operation = read["protocolOp"].getComponent()
    body: tuple[Any, ...] = ()
    if kind == "bindRequest":
        choice, chosen = operation["authentication"].getName(), operation["authentication"].getComponent()
        body = (int(operation["version"]), bytes(operation["name"]), None, "", None)
        if choice == "simple":
            body = (*body[:2], bytes(chosen), "", None)
        elif choice == "sasl":
            body = (*body[:2], None, _mechanism(bytes(chosen["mechanism"]).decode()), _octets(chosen["credentials"]))
    elif kind == "extendedReq":
        body = (bytes(operation["requestName"]).decode(),)
    elif kind == "compareRequest":
        body = (bytes(operation["ava"]["attributeDesc"]).decode(),)
    elif kind == "abandonRequest":
        body = (int(operation),)
    elif kind == "searchResEntry":
        pairs = ((bytes(one["type"]).decode(), [bytes(value) for value in one["vals"]]) for one in operation["attributes"])
        body = (bytes(operation["object"]), _merged(pairs))
    elif _PYASN1_TAGS[kind] in message.FINAL.values():
        extended = kind == "extendedResp"
        body = (
            int(operation["resultCode"]),
            bytes(operation["matchedDN"]),
            bytes(operation["diagnosticMessage"]),
            (_octets(operation["responseName"]) if extended else None) or b"",
            _octets(operation["responseValue"]) if extended else None,
            _octets(operation["serverSaslCreds"]) if kind == "bindResponse" else None,
        )
    controls = read["controls"] if read["controls"].isValue else ()
    named = tuple((bytes(one["controlType"]).decode(), bool(one["criticality"])) for one in controls)
    return View(int(read["messageID"]), _PYASN1_TAGS[kind], body, named)
