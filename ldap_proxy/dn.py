"""Which entry does a DN name, however it is spelt? (RFC 4514, with the older spellings of RFC 2253 section 4)

Room rule: text in, a value that compares, or :class:`NotADn`. Nothing is decided on it alone: the directory confirms.

Two texts give one value only where every directory takes them for one entry: capitals and small letters (character by
character: "ß" is not "ss" here), blanks that do not count (RFC 4518 section 2.6.1), composed and decomposed characters, the
ways to escape, names and OIDs of the same attribute, the order within an RDN. Whatever a directory may tell apart, or read in
another way than this file, differs here or is no DN: who is not recognised gains nothing by it.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

TEXT_MAX: Final = 8192
"""Characters of a DN; slapd's bound (in octets)."""

Rdn = tuple[tuple[str, str], ...]
"""Sorted pairs of attribute type and value."""

_NAMES: Final = {
    "2.5.4.3": "cn",
    "2.5.4.4": "sn",
    "2.5.4.5": "serialnumber",
    "2.5.4.6": "c",
    "2.5.4.7": "l",
    "2.5.4.8": "st",
    "2.5.4.9": "street",
    "2.5.4.10": "o",
    "2.5.4.11": "ou",
    "2.5.4.12": "title",
    "2.5.4.42": "givenname",
    "2.5.4.46": "dnqualifier",
    "2.5.4.65": "pseudonym",
    "0.9.2342.19200300.100.1.1": "uid",
    "0.9.2342.19200300.100.1.3": "mail",
    "0.9.2342.19200300.100.1.25": "dc",
    "1.2.840.113549.1.9.1": "email",
    "1.2.840.113556.1.4.221": "samaccountname",
    "1.2.840.113556.1.4.656": "userprincipalname",
    "2.16.840.1.113730.3.1.3": "employeenumber",
    "commonname": "cn",
    "surname": "sn",
    "countryname": "c",
    "localityname": "l",
    "stateorprovincename": "st",
    "organizationname": "o",
    "organizationalunitname": "ou",
    "gn": "givenname",
    "userid": "uid",
    "rfc822mailbox": "mail",
    "domaincomponent": "dc",
    "emailaddress": "email",
    "pkcs9email": "email",
}
"""OIDs and long names of the types that DNs are made of (RFC 4514 section 3, RFC 4519, RFC 4524), to the name used here."""

_NUMBER: Final = r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))+"
_KEYWORD: Final = r"[A-Za-z][A-Za-z0-9-]*"
_SIMPLE_TYPE: Final = re.compile(_KEYWORD)
_TYPE: Final = re.compile(rf" *(?:(?:[Oo][Ii][Dd]\.)?({_NUMBER})|({_KEYWORD})) *= *")
_HEXADECIMAL: Final = re.compile(r"#((?:[0-9A-Fa-f]{2})+) *")
_SPECIAL: Final = r'\\[ "#+,;<=>\\]'
# RFC 2253 has octets in hexadecimal in quotes too. OpenLDAP reads "\2C" there as the text 2C, so nobody can mean either.
_QUOTED: Final = re.compile(rf'"([^"\\\x00-\x1f\x7f]*(?:{_SPECIAL}[^"\\\x00-\x1f\x7f]*)*)" *')
_PLAIN: Final = re.compile(rf'([^"\\,+;<>\x00-\x1f\x7f]*(?:(?:{_SPECIAL}|\\[0-9A-Fa-f]{{2}})[^"\\,+;<>\x00-\x1f\x7f]*)*)')
_NOT_SIMPLE: Final = re.compile(r'[^ -~]|["\\+;<>#]')
_ESCAPE: Final = re.compile(r"((?:\\[0-9A-Fa-f]{2})+)|\\(.)")
_ESCAPE_IN_QUOTES: Final = re.compile(r"\\(.)")
_TO_ESCAPE: Final = re.compile(r'["+,;<>\\\x00-\x1f\x7f]|^#')
_STRING_TAGS: Final = frozenset({0x04, 0x0C, 0x13, 0x16})
"""OCTET STRING, UTF8String, PrintableString, IA5String: those that are UTF-8 as they stand."""


class NotADn(ValueError):
    """The text is no DN. The message quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Dn:
    """A DN, normalised. ``rdns``: from the leaf up, each the sorted pairs of type and value of one RDN."""

    rdns: tuple[Rdn, ...] = ()

    @property
    def leaf(self) -> Rdn:
        """The pairs of the entry's own RDN; none for the root."""
        return self.rdns[0] if self.rdns else ()

    @property
    def text(self) -> str:
        """The DN as RFC 4514 writes it, in its normal form: equal DNs have equal texts, and parsing it gives the DN again."""
        return ",".join("+".join(f"{kind}={_escaped(value)}" for kind, value in rdn) for rdn in self.rdns)

    def is_under(self, base: Dn) -> bool:
        """Whether this is ``base`` or an entry somewhere below it. All are under the root."""
        above = len(self.rdns) - len(base.rdns)
        return above >= 0 and self.rdns[above:] == base.rdns

    def __str__(self) -> str:
        return self.text


def parse_dn(text: str) -> Dn:
    """Read a DN. Raises: NotADn."""
    if len(text) > TEXT_MAX:
        raise NotADn(f"{len(text)} characters, expected at most {TEXT_MAX}")
    if not text:
        return Dn()
    if _NOT_SIMPLE.search(text) is None:
        return Dn(tuple([_simple_rdn(part) for part in text.split(",")]))

    rdns: list[Rdn] = []
    pairs: list[tuple[str, str]] = []
    at = 0
    while True:
        pair, at = _pair(text, at)
        pairs.append(pair)
        follows = text[at : at + 1]
        at += 1
        if follows == "+":
            continue
        rdns.append(_rdn(pairs))
        if not follows:
            return Dn(tuple(rdns))
        if follows not in ",;":
            raise NotADn(f"a character at {at} that must be escaped or quoted")
        pairs = []


def _simple_rdn(part: str) -> Rdn:
    """An RDN of one pair, ASCII and nothing escaped: what nearly all are. Raises: NotADn."""
    kind, equals, value = part.partition("=")
    kind = kind.strip(" ").lower()
    if not equals or _SIMPLE_TYPE.fullmatch(kind) is None:
        return _rdn([_pair(part, 0)[0]])  # an OID, or the right complaint
    value = value.strip(" ").lower()
    if "  " in value:
        value = _squeezed(value)
    elif not value:
        raise NotADn("a value with nothing in it")
    return ((_NAMES.get(kind, kind), value),)


def _rdn(pairs: list[tuple[str, str]]) -> Rdn:
    """The pairs of one RDN, in their order. Raises: NotADn when a type stands there twice (RFC 4512 section 2.3.1)."""
    if len(pairs) > 1:
        pairs = sorted(pairs)
        if len({kind for kind, _ in pairs}) != len(pairs):
            raise NotADn("an RDN in which a type stands twice")
    return tuple(pairs)


def _pair(text: str, at: int) -> tuple[tuple[str, str], int]:
    """Type and value at ``at``, and the offset behind them. Raises: NotADn."""
    found = _TYPE.match(text, at)
    if found is None:
        raise NotADn(f"no attribute type and '=' at {at + 1}")
    kind = (found[1] or found[2]).lower()
    start = found.end()
    first = text[start : start + 1]
    if first == "#":
        found = _HEXADECIMAL.match(text, start)
        value = _decoded(found[1]) if found else ""
    else:
        found = (_QUOTED if first == '"' else _PLAIN).match(text, start)
        value = found[1] if found else ""
        if "\\" in value:
            value = _ESCAPE_IN_QUOTES.sub(r"\1", value) if first == '"' else _ESCAPE.sub(_unescaped, value)
    if found is None:
        raise NotADn(f"a value at {start + 1} that is not as RFC 4514 has it")
    value = _folded(value)
    if not value:
        raise NotADn("a value with nothing in it")
    return (_NAMES.get(kind, kind), value), found.end()


def _unescaped(found: re.Match[str]) -> str:
    """What an escaped character, or a row of octets in hexadecimal, stands for. Raises: NotADn."""
    if found[2] is not None:
        return str(found[2])
    try:
        return bytes.fromhex(found[1].replace("\\", "")).decode()
    except UnicodeDecodeError:
        raise NotADn("escaped octets that are not UTF-8") from None


def _decoded(octets: str) -> str:
    """The text in a value that is written as the BER of a string (RFC 4514 section 2.4). Raises: NotADn for any other."""
    value = bytes.fromhex(octets)
    # One octet of length: a longer value has nothing to do in a name, and two ways to say a length would be one too many.
    if len(value) < 2 or value[0] not in _STRING_TAGS or value[1] >= 0x80 or value[1] != len(value) - 2:
        raise NotADn("a value in hexadecimal that is not a short string")
    try:
        return value[2:].decode()
    except UnicodeDecodeError:
        raise NotADn("a value in hexadecimal that is not UTF-8") from None


def _folded(value: str) -> str:
    """A value as it compares. Raises: NotADn for half a character (a lone surrogate)."""
    if value.isascii():
        return _squeezed(value.lower())
    try:
        value.encode()
    except UnicodeEncodeError:
        raise NotADn("a character that UTF-8 cannot carry") from None
    # By character, because str.lower() writes the last sigma of a word in another way than the others; composed afterwards,
    # because a small letter may compose where its capital does not (omega with a perispomeni).
    return _squeezed(unicodedata.normalize("NFC", "".join([character.lower() for character in value])))


def _squeezed(value: str) -> str:
    """Without blanks at the ends, and with one where there were several."""
    return " ".join([part for part in value.split(" ") if part])


def _escaped(value: str) -> str:
    """A value as it stands in a DN (RFC 4514 section 2.4); control characters in hexadecimal, so that a log line stays one."""
    return _TO_ESCAPE.sub(
        lambda found: f"\\{found[0]}" if found[0] >= " " and found[0] != "\x7f" else f"\\{ord(found[0]):02x}", value
    )
