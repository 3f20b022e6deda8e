"""What do framing, reading and writing LDAP cost, beside sansldap and beside pyasn1 with ldap3's specification, in one run?

The messages are a simple bind, plain and with a control, its answer, and an entry of about three hundred octets, with short
lengths and with those of four octets that Windows writes. The others cannot frame a message without taking it apart,
so reading it is what they do in place of :func:`ldap_proxy.ber.head`. Rounds of the three alternate, and the median of the
ratios counts: a machine that slows down slows all. Run: ``python -m bench.ldap_codec [rounds]``. DNs are compared with ldap3's
parse_dn, which does not bring them to a form that compares.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable

import sansldap
from sansldap._messages import PackingOptions, unpack_ldap_message
from sansldap.asn1 import ASN1Reader

from ldap_proxy.ber import head, integer_octets, wrapped
from ldap_proxy.dn import parse_dn
from ldap_proxy.message import (
    BIND_RESPONSE,
    SEARCH_ENTRY,
    build_bind,
    build_result,
    message,
    parse_bind,
    parse_entry,
    parse_result,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from ldap3.protocol import rfc4511
    from ldap3.utils.dn import parse_dn as ldap3_parse_dn
    from pyasn1.codec.ber import decoder, encoder

CALLS = 2_000
LIMIT = 1 << 20
NAME, PASSWORD = b"uid=user00001,ou=people,dc=example,dc=com", b"correct horse,123456"
DN = NAME.decode()
CONTROL = wrapped(0xA0, wrapped(0x30, wrapped(0x04, b"1.3.6.1.4.1.42.2.27.8.5.1")))
BIND = build_bind(7, NAME, PASSWORD)
BIND_WITH_CONTROL = build_bind(7, NAME, PASSWORD, CONTROL)
ANSWER = build_result(7, BIND_RESPONSE, 0)
ATTRIBUTES = {
    b"objectClass": (b"top", b"person", b"organizationalPerson", b"inetOrgPerson"),
    b"cn": (b"User Number 00001",),
    b"sn": (b"Number",),
    b"uid": (b"user00001",),
    b"mail": (b"user00001@example.com",),
    b"telephoneNumber": (b"+49 30 1234567",),
    b"description": (b"an entry of about three hundred octets",),
}


def _long(tag: int, content: bytes) -> bytes:
    """An element with a length of four octets, as Windows and libldap's older versions write them."""
    return bytes((tag, 0x84)) + len(content).to_bytes(4, "big") + content


ROWS = b"".join(
    wrapped(0x30, wrapped(0x04, name) + wrapped(0x31, b"".join(wrapped(0x04, value) for value in values)))
    for name, values in ATTRIBUTES.items()
)
CONTENT = wrapped(0x04, NAME) + wrapped(0x30, ROWS)
ENTRY = message(7, SEARCH_ENTRY, CONTENT)
LONG_ENTRY = _long(0x30, integer_octets(7) + _long(SEARCH_ENTRY, CONTENT))
PACKING = PackingOptions()
SPEC = rfc4511.LDAPMessage()


def sansldap_reads(octets: bytes) -> Callable[[], object]:
    """Reading with sansldap."""
    return lambda: unpack_ldap_message(ASN1Reader(octets), PACKING)


def pyasn1_reads(octets: bytes) -> Callable[[], object]:
    """Reading with pyasn1."""
    return lambda: decoder.decode(octets, asn1Spec=SPEC)


def rebuilt() -> bytes:
    """A bind as the door hands it on: read, the password cut, built again."""
    bind = parse_bind(BIND)
    if bind.password is None:
        raise AssertionError("the bind is a simple one")
    return build_bind(bind.message_id, bind.name, bind.password.reveal().rpartition(b",")[0], bind.controls)


def sansldap_rebuilt() -> bytes:
    """The same with sansldap."""
    bind = unpack_ldap_message(ASN1Reader(BIND), PACKING)
    password = bind.authentication.password.rpartition(",")[0]
    made: bytes = sansldap.BindRequest(bind.message_id, bind.controls, 3, bind.name, sansldap.SimpleCredential(password)).pack(
        PACKING
    )
    return made


def pyasn1_rebuilt() -> bytes:
    """The same with pyasn1."""
    read = decoder.decode(BIND, asn1Spec=SPEC)[0]
    choice = read["protocolOp"]["bindRequest"]["authentication"]
    choice["simple"] = bytes(choice["simple"]).rpartition(b",")[0]
    made: bytes = encoder.encode(read)
    return made


def steps() -> dict[str, tuple[Callable[[], object], Callable[[], object], Callable[[], object]]]:
    """Each step by ours, by sansldap and by pyasn1 (a DN: by ldap3)."""
    if not rebuilt() == sansldap_rebuilt() == pyasn1_rebuilt():
        raise AssertionError("the three do not build the same bind")
    success = sansldap.LDAPResult(sansldap.LDAPResultCode.SUCCESS, "", "")
    their_answer = decoder.decode(ANSWER, asn1Spec=SPEC)[0]
    framed = {
        f"frame a bind ({len(BIND)})": BIND,
        f"frame one with a control ({len(BIND_WITH_CONTROL)})": BIND_WITH_CONTROL,
        f"frame its answer ({len(ANSWER)})": ANSWER,
        f"frame an entry ({len(ENTRY)})": ENTRY,
        f"frame one of Windows ({len(LONG_ENTRY)})": LONG_ENTRY,
    }
    found: dict[str, tuple[Callable[[], object], Callable[[], object], Callable[[], object]]] = {}
    for name, octets in framed.items():
        found[name] = (lambda octets=octets: head(octets, 0, LIMIT), sansldap_reads(octets), pyasn1_reads(octets))
    found["read a bind"] = (lambda: parse_bind(BIND), sansldap_reads(BIND), pyasn1_reads(BIND))
    found["read and rebuild a bind"] = (rebuilt, sansldap_rebuilt, pyasn1_rebuilt)
    found["read its answer"] = (lambda: parse_result(ANSWER), sansldap_reads(ANSWER), pyasn1_reads(ANSWER))
    found["build an answer"] = (
        lambda: build_result(7, BIND_RESPONSE, 0),
        lambda: sansldap.BindResponse(7, [], success).pack(PACKING),
        lambda: encoder.encode(their_answer),
    )
    found["read an entry"] = (lambda: parse_entry(ENTRY), sansldap_reads(ENTRY), pyasn1_reads(ENTRY))
    found["read a DN (both peers: ldap3)"] = (lambda: parse_dn(DN), lambda: ldap3_parse_dn(DN), lambda: ldap3_parse_dn(DN))
    return found


def cpu_us(call: Callable[[], object], calls: int) -> float:
    """CPU microseconds of one call."""
    start = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - start) / calls * 1e6


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    nothing = min(cpu_us(lambda: None, CALLS) for _ in range(rounds))
    print(f"CPU us of a call, median of {rounds} rounds; {nothing:.2f} of each are the measuring itself")
    print(f"{'':34}{'ours':>8}{'sansldap':>10}{'ratio':>8}{'pyasn1':>10}{'ratio':>8}")
    for name, (ours, *theirs) in steps().items():
        samples = [(cpu_us(ours, CALLS), *(cpu_us(call, CALLS // 20) for call in theirs)) for _ in range(rounds)]
        line = f"{name:34}{statistics.median(sample[0] for sample in samples):8.2f}"
        for peer in (1, 2):
            theirs_us = statistics.median(sample[peer] for sample in samples)
            ratio = statistics.median(sample[peer] / sample[0] for sample in samples)
            line += f"{theirs_us:10.1f}{ratio:7.0f}x"
        print(line)


if __name__ == "__main__":
    main()
