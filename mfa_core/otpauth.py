"""The text that carries a new secret into an app: ``otpauth://`` key URIs.

Room rule: the Key URI format (github.com/google/google-authenticator/wiki/Key-Uri-Format) is written and read in this file
only. Reading is strict: of two readings of one text, apps take one and we would take the other.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from mfa_core.errors import InvalidInput
from mfa_core.model import Digest, FactorKind
from mfa_core.oath import MIN_SECRET_BITS, check_parameters
from mfa_core.secret import Secret

MAX_URI_CHARS = 2048
MAX_LABEL_CHARS = 128
MAX_COUNTER = 2**63 - 1
"""What the store's column holds; RFC 4226 has 64 bits without a sign, which no token reaches."""

_NUMBER = re.compile(r"[0-9]{1,19}").fullmatch
_KNOWN = frozenset({"secret", "issuer", "algorithm", "digits", "period", "counter", "image"})
# RFC 3986 section 2.3; "@" is left out of what is escaped because apps show labels raw when they fail to unescape.
_SAFE = "@-._~"


@dataclass(frozen=True, slots=True)
class OathKey:
    """What a key URI says. ``period_s`` is 0 for HOTP, ``counter`` (the next one to be used) 0 for TOTP."""

    kind: FactorKind
    secret: Secret
    account: str
    issuer: str = ""
    digest: Digest = Digest.SHA1
    digits: int = 6
    period_s: int = 30
    counter: int = 0


def encode_key_uri(key: OathKey) -> Secret:
    """Write the URI. What is the format's default (SHA1, 6 digits, 30 s) is left out: all apps agree on it, and with a short
    name the QR code is four rows lower, which lets it fit a terminal of 24 rows together with what is said under it.

    Raises:
        InvalidInput: a label with a colon in the account or issuer (the format has no way to say which part is which), or
            an empty account.
    """
    for what, text in (("account", key.account), ("issuer", key.issuer)):
        if ":" in text:
            raise InvalidInput(f"the {what} in a key URI cannot hold a colon", cure="leave the colon out")
        if len(text) > MAX_LABEL_CHARS:
            raise InvalidInput(f"the {what} has {len(text)} characters, expected at most {MAX_LABEL_CHARS}")
    if not key.account:
        raise InvalidInput("a key URI needs an account name")
    label = _quoted(key.account)
    if key.issuer:
        label = f"{_quoted(key.issuer)}:{label}"
    parts = [f"secret={encode_base32(key.secret).reveal().decode('ascii')}"]
    if key.issuer:
        parts.append(f"issuer={_quoted(key.issuer)}")
    if key.digest is not Digest.SHA1:
        parts.append(f"algorithm={key.digest.upper()}")
    if key.digits != 6:
        parts.append(f"digits={key.digits}")
    if key.kind is FactorKind.HOTP:
        parts.append(f"counter={key.counter}")  # the format has no default for it
    elif key.period_s != 30:
        parts.append(f"period={key.period_s}")
    return Secret.from_text(f"otpauth://{key.kind}/{label}?{'&'.join(parts)}")


def decode_key_uri(text: str, *, minimum_bits: int = MIN_SECRET_BITS) -> OathKey:
    """Read a URI.

    Raises:
        InvalidInput: not a key URI, a parameter twice or out of range, a secret shorter than ``minimum_bits``. The message
            names the parameter and never holds the secret.
    """
    if len(text) > MAX_URI_CHARS:
        raise InvalidInput(f"the URI has {len(text)} characters, expected at most {MAX_URI_CHARS}")
    scheme, mark, rest = text.strip().partition("://")
    if not mark or scheme.lower() != "otpauth":
        raise InvalidInput("not a key URI (expected otpauth://totp/... or otpauth://hotp/...)")
    path, mark, query = rest.partition("?")
    kind_text, _, label = path.partition("/")
    if kind_text.lower() not in {"totp", "hotp"}:
        raise InvalidInput("the type of the key URI is neither totp nor hotp")
    if "#" in query:
        raise InvalidInput("the key URI has a fragment (#), expected none", cure="write # as %23")
    kind = FactorKind(kind_text.lower())
    values = _parameters(query)
    issuer_of_label, account = _label(label)
    digest = read_digest(values.get("algorithm", "SHA1"))
    digits = _number(values, "digits", 6)
    period_s = _number(values, "period", 30)
    if "secret" not in values:
        raise InvalidInput("the key URI has no secret")
    if kind is FactorKind.HOTP:
        if "counter" not in values:
            raise InvalidInput("the key URI of a counter-based token has no counter (the format requires it)")
        period_s = 0
    elif period_s == 0:
        raise InvalidInput("the period is 0 s, expected 30 or 60")
    secret = decode_base32(values["secret"])
    check_parameters(secret, digits=digits, period_s=period_s, minimum_bits=minimum_bits)
    counter = _number(values, "counter", 0) if kind is FactorKind.HOTP else 0
    issuer = values.get("issuer", issuer_of_label)
    return OathKey(kind, secret, account, issuer, digest, digits, period_s, counter)


def read_digest(name: str) -> Digest:
    """The digest of a name such as ``SHA1``, ``sha-256`` or ``HmacSHA512``.

    Raises:
        InvalidInput: another one (MD5 is in the format of some apps, and in no RFC).
    """
    plain = name.strip().lower().removeprefix("hmac").replace("-", "")
    try:
        return Digest(plain)
    except ValueError as err:
        raise InvalidInput("the algorithm is unknown, expected SHA1, SHA256 or SHA512") from err


def encode_base32(secret: Secret) -> Secret:
    """The secret as people type it: base32 (RFC 4648 section 6) without padding."""
    return Secret(base64.b32encode(secret.reveal()).rstrip(b"="))


def decode_base32(text: str) -> Secret:
    """Read base32 in any case, with blanks or hyphens between groups, with or without padding.

    Raises:
        InvalidInput: other characters, or a length that no bytes have. The message holds nothing of the text.
    """
    plain = text.replace(" ", "").replace("-", "").rstrip("=")
    try:
        # Encoded first: str.upper() turns some letters outside ASCII into ASCII ones.
        typed = plain.encode("ascii").upper()
        return Secret(base64.b32decode(typed + b"=" * (-len(typed) % 8)))
    except (binascii.Error, ValueError) as err:
        raise InvalidInput(
            "the secret is not base32 (letters A to Z and digits 2 to 7)", cure="copy it again, whole"
        ) from err


def _quoted(text: str) -> str:
    return quote(text, safe=_SAFE, errors="surrogateescape")


def _parameters(query: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in query.split("&"):
        if not pair:
            continue
        name, _, value = pair.partition("=")
        name = name.lower()
        if name not in _KNOWN:
            continue  # apps add their own (color, icon); they change no code
        if name in values:
            raise InvalidInput(f"the parameter {name} stands in the key URI twice")
        values[name] = _text(value, plus_is_blank=True)
    return values


def _label(label: str) -> tuple[str, str]:
    text = _text(label, plus_is_blank=False)
    issuer, mark, account = text.partition(":")
    if not mark:
        issuer, account = "", text
    account = account.strip()
    if not account:
        raise InvalidInput("the key URI names no account")
    if len(account) > MAX_LABEL_CHARS or len(issuer) > MAX_LABEL_CHARS:
        raise InvalidInput(f"the label has more than {MAX_LABEL_CHARS} characters")
    return issuer.strip(), account


def _text(quoted: str, *, plus_is_blank: bool) -> str:
    try:
        return unquote_to_bytes(quoted.replace("+", " ") if plus_is_blank else quoted).decode("utf-8")
    except ValueError as err:
        raise InvalidInput("the key URI holds bytes that are not UTF-8") from err


def _number(values: dict[str, str], name: str, default: int) -> int:
    text = values.get(name)
    if text is None:
        return default
    if not _NUMBER(text) or int(text) > MAX_COUNTER:
        raise InvalidInput(f"{name} is not a whole number from 0")
    return int(text)
