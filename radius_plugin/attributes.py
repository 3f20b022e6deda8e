"""What is an attribute called, and how does it stand in a packet?

Room rule: the only file of the door that imports pyrad, for its reader of dictionaries and its encoders of single values. All
of it happens when the configuration is loaded: a reply is made of ready octets, and what cannot be sent is refused here.

pyrad's encoder of octets takes ``0x...`` and ``"1234"`` for numbers, so that a Class of "1234" leaves as 04 d2; here a text is
always text, and octets are bytes. Its encoder of whole packets is not used either: it needs a packet, and groups by type.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import struct
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from pyrad import tools
from pyrad.dictionary import Attribute, Dictionary, ParseError

from mfa_core.errors import ConfigurationError, MfaError
from radius_plugin.settings import AttributeName, ReplyRule

SHIPPED: Final = Path(__file__).parent / "dictionaries"
"""Written from the RFCs and the vendors' documents: what groups, VLANs and privileges need."""

MAX_VALUE_OCTETS: Final = 253
"""RFC 2865 section 5: Length is one octet and counts type and length."""
MAX_VENDOR_VALUE_OCTETS: Final = 247
"""Four octets of vendor, then a type and a length of its own (RFC 2865 section 5.26)."""
MAX_PACKET_OCTETS: Final = 4096
HEADER_OCTETS: Final = 20
MESSAGE_AUTHENTICATOR_OCTETS: Final = 18
REPLY_MESSAGE_OCTETS: Final = 255
PROXY_STATE_OCTETS: Final = 1024
"""Kept for what proxies on the way add to a request and want back: four hops of the greatest size, a dozen of the usual one."""
MAX_REPLY_OCTETS: Final = (
    MAX_PACKET_OCTETS - HEADER_OCTETS - MESSAGE_AUTHENTICATOR_OCTETS - REPLY_MESSAGE_OCTETS - PROXY_STATE_OCTETS
)
"""What all attributes of one Access-Accept may take together."""

VENDOR_SPECIFIC: Final = 26
_MICROSOFT: Final = 311
_NOT_BY_HAND: Final = frozenset(
    {AttributeName(one) for one in (2, 3, 24, 33, 60, 79, 80)}
    | {AttributeName(VENDOR_SPECIFIC)}
    | {AttributeName(one, _MICROSOFT) for one in (1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 16, 17, 25, 26, 27)}
)
"""What only the exchange itself can say: User-Password, CHAP-Password, State, Proxy-State, CHAP-Challenge, EAP-Message,
Message-Authenticator; and Microsoft's keys, MS-CHAP and MS-MPPE. By number: a dictionary may call them something else."""

_NUMBERS: Final = frozenset({"integer", "integer64", "short", "byte", "signed", "date"})
_LITERALS: Final = {
    "ipaddr": "an IPv4 address, such as 192.0.2.1",
    "ipv6addr": "an IPv6 address, such as 2001:db8::1",
    "ipv6prefix": "an IPv6 prefix, such as 2001:db8::/32",
    "ifid": "an interface id, such as 211:22ff:fe33:4455",
    "ether": "a MAC address, such as 00:11:22:aa:bb:cc",
}
_TEXTS: Final = frozenset({"string", "octets"})
_MAX_TAG: Final = 0x1F
_DECIMAL = re.compile(r"-?[0-9]{1,20}").fullmatch
_TAG = re.compile(r"[0-9]{1,2}").fullmatch

Value = str | int | bytes
"""Text, a number (or the name of one, as text), or octets as they are."""


class AttributeRefused(MfaError):
    """An attribute cannot be sent as it is written: say which, what was seen, and what was expected. Nothing was made."""

    def __init__(self, seen: str, expected: str, *, cure: str = "") -> None:
        super().__init__(f"{seen}; expected {expected}", cure=cure)
        self.seen = seen
        self.expected = expected


class Dictionaries:
    """Names of attributes, and what their values are. Case of names does not matter, as in FreeRADIUS."""

    def __init__(self, dictionary: Any) -> None:
        self._dictionary = dictionary
        self._by_folded_name: dict[str, Attribute] = {name.lower(): one for name, one in dictionary.attributes.items()}
        self._by_place: dict[AttributeName, Attribute] = {}
        for one in dictionary.attributes.values():
            with contextlib.suppress(AttributeRefused):
                # Of several names for one place the first holds, which is the RFC's.
                self._by_place.setdefault(self._place(one), one)

    @classmethod
    def load(cls, more: Iterable[Path] = ()) -> Dictionaries:
        """Read the shipped dictionaries, then ``more`` in FreeRADIUS's format; what is named later replaces what was earlier.

        Raises:
            ConfigurationError: a file cannot be read, or pyrad cannot make sense of it.
        """
        dictionary = Dictionary()
        shipped = sorted((path for path in SHIPPED.iterdir() if path.name != "rfc"), key=lambda path: path.name)
        for path in (SHIPPED / "rfc", *shipped, *more):
            try:
                dictionary.ReadDictionary(str(path))
            except OSError as err:
                raise ConfigurationError(
                    f"{path}: cannot be read as a RADIUS dictionary: {err.strerror}",
                    cure="check dictionary_files, and the files that it includes",
                ) from err
            except ParseError as err:
                place = f"{path}:{err.line}" if err.file in ("", path.name) else f"{path}: {err.file}:{err.line}"
                raise ConfigurationError(
                    f"{place}: {err.msg}", cure="write it as FreeRADIUS 3 does: ATTRIBUTE NAME NUMBER TYPE"
                ) from err
            except (ValueError, LookupError, TypeError, struct.error) as err:
                # UnicodeDecodeError is a ValueError. pyrad names neither line nor word for these.
                raise ConfigurationError(
                    f"{path}: is no RADIUS dictionary that can be read", cure="write it as FreeRADIUS 3 does, in UTF-8"
                ) from err
        return cls(dictionary)

    def lookup(self, name: str) -> AttributeName:
        """Where the attribute called ``name`` stands.

        Raises:
            AttributeRefused: no dictionary knows it, or packets cannot carry it.
        """
        return self._place(self._find(name))

    def encode(self, name: str, value: Value | Sequence[Value]) -> bytes:
        """Return ``value`` as one whole attribute, or each of several: type, length, value. ``name`` may end in a tag (``:1``).

        Raises:
            AttributeRefused: it cannot be sent so.
        """
        bare, colon, tag_text = name.partition(":")
        attribute = self._find(bare)
        place = self._place(attribute)
        if place in _NOT_BY_HAND:
            raise AttributeRefused(
                f"{bare}, which belongs to the exchange itself", "another attribute", cure="take it out: mfad sets what it must"
            )
        tag = _read_tag(attribute, tag_text) if colon else None
        values: Sequence[Value] = value if isinstance(value, list | tuple) else (value,)
        return b"".join(_framed(place, _tagged(attribute, tag, one)) for one in values)

    def read(self, kind: int, value: bytes) -> list[tuple[str, str]]:
        """Return what one attribute of a packet says, as names and texts: several where a vendor puts several into one.

        What no dictionary knows, and what does not fit its type, is shown by number and in hexadecimal digits.
        """
        if kind == VENDOR_SPECIFIC and len(value) > 4:
            vendor = int.from_bytes(value[:4], "big")
            inner = _rows(value[4:])
            if inner:
                return [self._read_one(AttributeName(number, vendor), one) for number, one in inner]
        return [self._read_one(AttributeName(kind), value)]

    def _read_one(self, place: AttributeName, value: bytes) -> tuple[str, str]:
        attribute = self._by_place.get(place)
        if attribute is None:
            return (f"Vendor-{place.vendor}-Attr-{place.type}" if place.vendor else f"Attr-{place.type}"), f"0x{value.hex()}"
        name = attribute.name
        # The tag of a number is always there (RFC 2868 section 3.1), that of a text only where the first octet can be one.
        if attribute.has_tag and value and (attribute.type == "integer" or value[0] <= _MAX_TAG):
            name = f"{name}:{value[0]}" if value[0] else name
            value = bytes(1) + value[1:] if attribute.type == "integer" else value[1:]
        try:
            shown = tools.DecodeAttr(attribute.type, value)
        except (ValueError, LookupError, TypeError, struct.error):
            return name, f"0x{value.hex()}"
        if isinstance(shown, bytes):
            readable = shown.isascii() and shown.decode("ascii").isprintable()
            return name, shown.decode("ascii") if readable else f"0x{shown.hex()}"
        return name, str(attribute.values.GetBackward(value) if attribute.values.HasBackward(value) else shown)

    def _find(self, name: str) -> Attribute:
        attribute = self._dictionary.attributes.get(name) or self._by_folded_name.get(name.lower())
        if attribute is not None:
            return attribute
        if name in self._dictionary.skipped_attributes:
            raise AttributeRefused(f"{name[:64]!a}, whose type is not supported", "an attribute of RFC 2865's format")
        near = difflib.get_close_matches(name.lower(), self._by_folded_name, n=3)
        known = [self._by_folded_name[one].name for one in near]
        raise AttributeRefused(
            f"{name[:64]!a}, which no dictionary knows",
            "the name of an attribute",
            cure=f"perhaps {' or '.join(known)} is meant" if known else "name a dictionary that has it in dictionary_files",
        )

    def _place(self, attribute: Attribute) -> AttributeName:
        vendor: int = self._dictionary.vendors.GetForward(attribute.vendor)
        if attribute.is_sub_attribute or attribute.type == "tlv":
            raise AttributeRefused(f"{attribute.name}, which is nested", "an attribute of RFC 2865's format")
        if not 1 <= attribute.code <= 255 or not 0 <= vendor < 1 << 24:
            raise AttributeRefused(
                f"{attribute.name}, whose number {attribute.code} no packet carries",
                "an attribute that travels",
                cure="numbers over 255 exist inside FreeRADIUS only",
            )
        return AttributeName(attribute.code, vendor)


def _rows(octets: bytes) -> list[tuple[int, bytes]]:
    """Vendor attributes in the format that RFC 2865 section 5.26 recommends; none when any part of it is malformed."""
    found = []
    at = 0
    while at < len(octets):
        if at + 1 == len(octets) or octets[at + 1] < 2 or at + octets[at + 1] > len(octets):
            return []
        found.append((octets[at], octets[at + 2 : at + octets[at + 1]]))
        at += octets[at + 1]
    return found


def _read_tag(attribute: Attribute, text: str) -> int:
    if not attribute.has_tag:
        raise AttributeRefused(f"a tag at {attribute.name}", "no tag", cure="only the tunnel attributes of RFC 2868 have one")
    if not _TAG(text) or int(text) > _MAX_TAG:
        raise AttributeRefused(f"the tag {text[:8]!a}", f"a tag from 0 to {_MAX_TAG}", cure=f"write {attribute.name}:1")
    return int(text)


def _tagged(attribute: Attribute, tag: int | None, value: Value) -> bytes:
    """RFC 2868 section 3: the tag of a number is its first octet, that of a text stands before it."""
    if attribute.encrypt:
        raise AttributeRefused(
            f"{attribute.name}, which is encrypted anew in each reply", "an attribute that is sent as it stands"
        )
    if isinstance(value, bytes):
        if tag is not None:
            raise AttributeRefused("a tag beside octets", "one of them", cure="write the tag as the first octet")
        return _sized(value)
    encoded = _encoded(attribute, value)
    if not attribute.has_tag:
        return encoded
    if attribute.type == "integer":
        if encoded[0]:
            raise AttributeRefused(f"{value!a}", "a number under 2 to the 24th: the first octet is the tag")
        return bytes((0 if tag is None else tag,)) + encoded[1:]
    if tag is not None:
        return bytes((tag,)) + encoded
    # A first octet up to 0x1F would be read as a tag.
    return b"\0" + encoded if encoded[0] <= _MAX_TAG else encoded


def _encoded(attribute: Attribute, value: str | int) -> bytes:
    if attribute.type in _TEXTS:
        return _text(value)
    if attribute.type in _NUMBERS:
        return _number(attribute, value)
    expected = _LITERALS.get(attribute.type)
    if expected is None:
        raise AttributeRefused(f"{attribute.name}, of type {attribute.type}", 'its octets, as {octets: "0x0102"}')
    if not isinstance(value, str):
        raise AttributeRefused(f"{value!a}", expected, cure="put it in quotes")
    return _by_pyrad(attribute, value, expected)


def _text(value: str | int) -> bytes:
    if not isinstance(value, str):
        raise AttributeRefused(f"the number {value}", "text", cure="put it in quotes: YAML reads 010 as 8 and 0x10 as 16")
    if not value:
        raise AttributeRefused("an empty text", "at least one character", cure="RFC 2865 section 5 sends no empty text")
    # Reply-Message may hold line ends; nothing that is read by people or compared holds another control character.
    if any(unicodedata.category(c).startswith("C") and c not in "\r\n\t" for c in value):
        cure = 'write binary values as {octets: "0x0102"}'
        raise AttributeRefused("a control character in a text", "printable text", cure=cure)
    return _sized(value.encode("utf-8"))


def _number(attribute: Attribute, value: str | int) -> bytes:
    named: dict[str, bytes] = attribute.values.forward
    if isinstance(value, str):
        if value in named:
            return named[value]
        if _DECIMAL(value) is None:
            folded = {name.lower(): octets for name, octets in named.items()}
            if value.lower() in folded:
                return folded[value.lower()]
            near = difflib.get_close_matches(value, named, n=3)
            raise AttributeRefused(
                f"{value[:64]!a}",
                f"a number, or one of {_some(named)}" if named else "a number",
                cure=f"perhaps {' or '.join(near)} is meant" if near else "",
            )
    return _by_pyrad(attribute, int(value), f"a number that fits into {attribute.type}")


def _some(named: dict[str, bytes]) -> str:
    shown = list(named)[:12]
    return ", ".join(shown) + (f" and {len(named) - 12} more" if len(named) > 12 else "")


def _by_pyrad(attribute: Attribute, value: str | int, expected: str) -> bytes:
    encode: Callable[[str, str | int], bytes] = tools.EncodeAttr
    try:
        return encode(attribute.type, value)
    except (ValueError, TypeError, struct.error):
        raise AttributeRefused(f"{str(value)[:64]!a}", expected) from None


def _sized(value: bytes) -> bytes:
    if not value:
        raise AttributeRefused("no octets", "at least one")
    if len(value) > MAX_VALUE_OCTETS:
        raise AttributeRefused(f"a value of {len(value)} octets", f"at most {MAX_VALUE_OCTETS}")
    return value


def _framed(place: AttributeName, value: bytes) -> bytes:
    if not place.vendor:
        if len(value) > MAX_VALUE_OCTETS:
            raise AttributeRefused(f"a value of {len(value)} octets with its tag", f"at most {MAX_VALUE_OCTETS}")
        return struct.pack("!BB", place.type, len(value) + 2) + value
    if len(value) > MAX_VENDOR_VALUE_OCTETS:
        raise AttributeRefused(f"a value of {len(value)} octets", f"at most {MAX_VENDOR_VALUE_OCTETS} for a vendor's attribute")
    inner = struct.pack("!BB", place.type, len(value) + 2) + value
    return struct.pack("!BBL", VENDOR_SPECIFIC, len(inner) + 6, place.vendor) + inner


def greatest_reply_octets(rules: Sequence[ReplyRule]) -> int:
    """The most that one Access-Accept can get from ``rules``: never less than what a login gets, and seldom more.

    A login has one client, one user and one policy rule, but any number of groups. Each of the three is looked at by itself,
    for each of its values that is named and for one that is not, and the least of the three answers holds.
    """
    sides: tuple[Callable[[ReplyRule], frozenset[str]], ...] = (
        lambda rule: rule.clients,
        lambda rule: rule.users,
        lambda rule: rule.policy_rules,
    )
    return min(
        max(_greatest([rule for rule in rules if not side(rule) or one in side(rule)]) for one in _named(rules, side))
        for side in sides
    )


def _named(rules: Sequence[ReplyRule], side: Callable[[ReplyRule], frozenset[str]]) -> list[str | None]:
    return [None, *sorted({one for rule in rules for one in side(rule)})]


def _greatest(rules: Sequence[ReplyRule]) -> int:
    """The most octets over all choices of which rules hold; those without any condition always do."""
    behind = 0
    for rule in reversed(rules):
        held = len(rule.attributes) + (0 if rule.last else behind)
        always = not (rule.clients or rule.users or rule.groups or rule.policy_rules)
        behind = held if always else max(held, behind)
    return behind
