"""How is every message read and written?

Room rule: JSON in UTF-8, read strictly: a number is no text, a text is no number, nothing is guessed, everything has a bound.
Keys that are not known are passed over, so that an older side understands a newer one. What was seen is never quoted: it may
be a code.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

from mfa_core.errors import PeerProtocolError
from mfa_core.secret import Secret

MAX_TIME_S = 1e12
"""No time on the wire lies later than this, Unix seconds."""
MAX_ID = 2**63 - 1
_SHOWN_CHARS = 80


class ProtocolError(PeerProtocolError):
    """The other side sent what this protocol has not: say so, and use nothing of it."""


class Message(BaseModel):
    """One message, or a part of one. Frozen; made by calling it, or by :meth:`read` from octets.

    Calling it with values that cannot travel is a mistake of ours: pydantic's ``ValidationError``, a ``ValueError``.
    """

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
    )

    LIMIT: ClassVar[int] = 64 * 1024
    """A whole message of this kind has no more octets."""

    @classmethod
    def read(cls, octets: bytes) -> Self:
        """The message in ``octets``. Raises: ProtocolError."""
        if len(octets) > cls.LIMIT:
            raise ProtocolError(
                f"{cls.__name__}: seen {len(octets)} octets, expected at most {cls.LIMIT}",
                cure="ask whether both sides are mfad of the same version",
            )
        try:
            return cls.model_validate_json(octets)
        except ValidationError as err:
            raise unfit(cls.__name__, err) from None

    def octets(self) -> bytes:
        """The message as it travels."""
        return self.__pydantic_serializer__.to_json(self)


def unfit(kind: str, err: ValidationError) -> ProtocolError:
    """The first thing that is wrong, without the value that was seen."""
    detail = err.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ascii(".".join(map(str, detail["loc"])))[1:-1][:_SHOWN_CHARS]
    return ProtocolError(
        f"{kind}{f': {place}' if place else ''}: {detail['msg']}",
        cure="ask whether both sides are mfad of the same version",
    )


def wire_text(text: str, limit: int) -> str:
    """A text from outside as it may travel: undecodable bytes escaped, at most ``limit`` characters."""
    return text.encode("utf-8", "backslashreplace").decode()[:limit]


def encode_octets(octets: bytes) -> str:
    """Base64 with padding, on one line (RFC 4648 section 4)."""
    return base64.b64encode(octets).decode("ascii")


def decode_octets(text: str) -> bytes:
    """The octets of a base64 text; each string of octets has one spelling. Raises: ValueError."""
    try:
        octets = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("expected base64") from None
    if encode_octets(octets) != text:
        # RFC 4648 section 3.5: bits behind the end that are not zero.
        raise ValueError("expected base64 in its one spelling")
    return octets


@dataclass(frozen=True, slots=True)
class Octets:
    """Says of a field of bytes how many there may be; base64 on the wire."""

    minimum: int
    maximum: int

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        write = core_schema.plain_serializer_function_ser_schema(encode_octets, when_used="json")
        return core_schema.no_info_plain_validator_function(self.read, serialization=write)

    def read(self, value: object) -> bytes:
        """The octets of base64, or octets as they are. Raises: ValueError."""
        octets = decode_octets(value) if isinstance(value, str) and len(value) <= _base64_chars(self.maximum) else value
        if not isinstance(octets, bytes) or not self.minimum <= len(octets) <= self.maximum:
            raise ValueError(f"expected base64 of {self.minimum} to {self.maximum} octets")
        return octets


@dataclass(frozen=True, slots=True)
class SecretOctets:
    """Says of a field of :class:`Secret` how many octets there may be; base64 on the wire, and no string form here."""

    maximum: int

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        write = core_schema.plain_serializer_function_ser_schema(_reveal, when_used="json")
        return core_schema.no_info_plain_validator_function(self.read, serialization=write)

    def read(self, value: object) -> Secret:
        """The octets of base64, or a secret as it is. Raises: ValueError."""
        if isinstance(value, str) and len(value) <= _base64_chars(self.maximum):
            value = Secret(decode_octets(value))
        if not isinstance(value, Secret) or len(value) > self.maximum:
            raise ValueError(f"expected base64 of at most {self.maximum} octets")
        return value


def _reveal(value: Secret) -> str:
    return encode_octets(value.reveal())


def _base64_chars(octets: int) -> int:
    return (octets + 2) // 3 * 4


def chars(maximum: int, minimum: int = 0) -> Any:
    """Says of a field of text how many characters there may be."""
    return Field(min_length=minimum, max_length=maximum)


def plain(maximum: int, minimum: int = 0) -> Any:
    """Says of a field of text that it is printable ASCII, and how long: it is kept, looked up, and shown to administrators."""
    return Field(min_length=minimum, max_length=maximum, pattern=r"\A[ -~]*\z")


def between(minimum: int, maximum: int) -> Any:
    """Says of a field between which numbers it lies."""
    return Field(ge=minimum, le=maximum)


def _no_bars(value: str) -> str:
    # It stands in what a seal is bound to, between bars.
    if not value.isascii() or not value.isprintable() or "|" in value or " " in value:
        raise ValueError("expected printable ASCII without blanks and bars")
    return value


Id = Annotated[int, Field(ge=1, le=MAX_ID)]
Rising = Annotated[int, Field(ge=0, le=MAX_ID)]
Step = Annotated[int, Field(ge=-1, le=MAX_ID)]
Time = Annotated[float, Field(ge=0.0, le=MAX_TIME_S)]
"""Unix seconds; 0 for none."""
Label = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_no_bars)]
"""An identifier of an authority or of a generation of its store."""
Pem = Annotated[str, Field(min_length=1, max_length=16_384)]
HexDigest = Annotated[str, Field(pattern=r"\A(?:[0-9a-f]{64})?\z")]
"""SHA-256 in hexadecimal; empty for none."""
