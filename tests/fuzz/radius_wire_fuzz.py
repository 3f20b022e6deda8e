"""Can octets from the network break the RADIUS codec, or pass for ones that somebody with the secret made?

The inputs are the packets of tests/vectors/radius.json, cut, joined and changed. Whatever comes, the codec gives values or one
of its documented errors, never any other; what parses makes the same octets again; and what counts as signed is, octet for
octet, a packet that was signed. tests/radius_plugin/test_fuzz.py runs a little of this; for longer:
``python -m tests.fuzz.radius_wire_fuzz SECONDS [SEED]``.
"""

from __future__ import annotations

import contextlib
import random
import sys
import time

from mfa_core.secret import Secret
from radius_plugin.authenticators import BadCredential, ReplyRefused, SharedSecret, chap_in
from radius_plugin.state import Carried, StateRefused, StateSeal
from radius_plugin.wire import Code, Malformed, Packet, Type, attribute, frame, packet_length, parse
from tests.radius_plugin.packet_vectors import SECRET, read_accounting, read_cases, read_exchanges

OURS = SharedSecret(Secret(SECRET))
SEAL = StateSeal([Secret(bytes(range(32)))], random=bytes)
STATE = SEAL.seal(Carried("01ARZ3NDEKTSV4RRFFQ69G5FAV", 2_000_000_000), client="vpn", user_name=b"bench")
REQUEST = OURS.request(Code.ACCESS_REQUEST, 0x2A, attribute(33, b"state") + attribute(24, STATE), authenticator=bytes(16))
REPLY = OURS.reply(Code.ACCESS_ACCEPT, parse(REQUEST), attribute(18, b"welcome") + attribute(24, STATE))

SEEDS = [
    *(case.octets for case in read_cases() if case.octets),
    *(case.octets for case in read_accounting()),
    *(octets for exchange in read_exchanges() for octets in (exchange.request, exchange.reply)),
    REQUEST,
    REPLY,
]
_TELLING = (0, 1, 2, 3, 18, 19, 20, 24, 26, 33, 79, 80, 127, 128, 254, 255)


def is_ours(packet: Packet) -> bool:
    """Whether a server would believe that the holder of the secret made this request."""
    return OURS.signed(packet) and (packet.code != Code.ACCOUNTING_REQUEST or OURS.accounting_request_is_good(packet))


def _read(octets: bytes) -> Packet | None:
    try:
        return parse(octets)
    except Malformed:
        return None


GENUINE = {packet.octets for packet in map(_read, SEEDS) if packet is not None and is_ours(packet)}


def mutant(chance: random.Random) -> bytes:
    """A packet of the seeds with some of its octets changed, moved, cut or added; half of the time with a Length that fits."""
    octets = bytearray(chance.choice(SEEDS))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(octets) + 1)
        match chance.randrange(6):
            case 0:
                octets[at : at + 1] = bytes([chance.choice(_TELLING)])
            case 1:
                octets[at : at + 1] = chance.randbytes(1)
            case 2:
                del octets[at : at + chance.randint(1, 24)]
            case 3:
                octets[at:at] = chance.randbytes(chance.randint(1, 24))
            case 4:
                other = chance.choice(SEEDS)
                start = chance.randrange(len(other))
                octets[at:at] = other[start : start + chance.randint(1, 64)]
            case _:
                octets[at:at] = attribute(chance.choice(_TELLING[1:]), chance.randbytes(chance.randrange(20)))
    if chance.random() < 0.5 and 4 <= len(octets) <= 0xFFFF:
        octets[2:4] = len(octets).to_bytes(2, "big")
    return bytes(octets)


def check(octets: bytes) -> bool:
    """Hold the codec to its word on one input; return whether it parsed. Raises: AssertionError, or what should not escape."""
    with contextlib.suppress(Malformed):
        packet_length(octets)
    with contextlib.suppress(StateRefused):
        SEAL.open(octets, client="vpn", user_name=b"bench", now=0)
        assert octets == STATE
    try:
        believed = OURS.verify_reply(REQUEST, octets)
        assert believed.octets == REPLY
    except ReplyRefused:
        pass
    packet = _read(octets)
    if packet is None:
        return False
    again = b"".join(attribute(kind, value) for kind, value in packet.attributes())
    assert frame(packet.code, packet.identifier, packet.authenticator, again) == packet.octets == octets[: len(packet.octets)]
    if is_ours(packet):
        assert packet.octets in GENUINE
    for hidden in packet.all(Type.USER_PASSWORD):
        try:
            assert len(OURS.reveal_padded(hidden, packet.authenticator)) == len(hidden)
        except BadCredential:
            assert len(hidden) not in range(16, 129, 16)
    answer = packet.first(Type.CHAP_PASSWORD)
    try:
        assert (chap_in(packet) is None) == (answer is None)
    except BadCredential:
        assert answer is not None
        assert len(answer) != 17
    for vendor in (9, 311):
        packet.vendor_all(vendor, 1)
    if len(packet.octets) < 3_000:
        answered = parse(OURS.reply(Code.ACCESS_REJECT, packet))
        assert answered.proxy_states == packet.proxy_states
    return True


def main() -> None:
    seconds = float(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns()
    chance = random.Random(seed)
    tried = parsed = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        octets = mutant(chance)
        try:
            parsed += check(octets)
        except BaseException:
            print(f"seed {seed}, input {tried}: {octets.hex()}", file=sys.stderr)
            raise
        tried += 1
    print(f"seed {seed}: {tried} inputs, {parsed} parsed")


if __name__ == "__main__":
    main()
