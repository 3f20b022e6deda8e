"""What does an Accounting-Request tell? (RFC 2866)

Room rule: a packet in, the fields of one log line out. Accounting is acknowledged and logged, nothing more: billing and
sessions are for servers that keep them.
"""

from __future__ import annotations

from radius_plugin.wire import Packet, Type

_STATUS = {1: "start", 2: "stop", 3: "interim_update", 7: "accounting_on", 8: "accounting_off", 15: "failed"}
_MAX_TEXT = 128
_NUMBERS = (
    ("session_seconds", Type.ACCT_SESSION_TIME),
    ("input_octets", Type.ACCT_INPUT_OCTETS),
    ("output_octets", Type.ACCT_OUTPUT_OCTETS),
    ("terminate_cause", Type.ACCT_TERMINATE_CAUSE),
)


def accounting_line(packet: Packet, client: str) -> dict[str, object]:
    """The fields of the line. Octets that are no text are escaped, numbers that are none are left out."""
    status = _number(packet, Type.ACCT_STATUS_TYPE)
    line: dict[str, object] = {
        "kind": "accounting",
        "client": client,
        "status": "none" if status is None else _STATUS.get(status, str(status)),
        "user": _text(packet, Type.USER_NAME),
        "session": _text(packet, Type.ACCT_SESSION_ID),
        "source": _text(packet, Type.CALLING_STATION_ID) or None,
    }
    for name, kind in _NUMBERS:
        number = _number(packet, kind)
        if number is not None:
            line[name] = number
    return line


def _text(packet: Packet, kind: int) -> str:
    return (packet.first(kind) or b"")[:_MAX_TEXT].decode("utf-8", "backslashreplace")


def _number(packet: Packet, kind: int) -> int | None:
    value = packet.first(kind)
    return int.from_bytes(value, "big") if value is not None and len(value) == 4 else None
