"""What does the RADIUS codec cost? CPU microseconds of each step of a login packet, ours and pyrad's in the same run.

The packet is a PAP login of about 100 octets with eight attributes, Message-Authenticator first. Rounds of the two codecs
alternate, and the median of the ratios counts: a machine that slows down slows both. Run: ``python -m bench.radius_codec
[rounds]``. The last line bounds what a datagram of nothing but empty attributes costs before it is refused.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import OrderedDict
from collections.abc import Callable

from pyrad import packet as pyrad_packet
from pyrad.dictionary import Dictionary

from mfa_core.secret import Secret
from radius_plugin.authenticators import SharedSecret, chap_answer, chap_in
from radius_plugin.state import Carried, StateSeal
from radius_plugin.wire import Code, Malformed, attribute, frame, integer_attribute, parse

SECRET = b"testing123 and more"
AUTHENTICATOR = bytes(range(16))
OURS = SharedSecret(Secret(SECRET))
LOGIN = OURS.request(
    Code.ACCESS_REQUEST,
    7,
    attribute(1, b"user00001")
    + attribute(2, OURS.hide(b"hello123456", AUTHENTICATOR))
    + attribute(4, b"\xc0\x00\x02\x01")
    + integer_attribute(5, 3)
    + attribute(32, b"vpn")
    + attribute(31, b"192.0.2.7")
    + integer_attribute(61, 5),
    authenticator=AUTHENTICATOR,
)
EMPTIES = frame(Code.ACCESS_REQUEST, 7, AUTHENTICATOR, attribute(25, b"") * 2_038)
CHAP = OURS.request(
    Code.ACCESS_REQUEST,
    7,
    attribute(1, b"user00001") + attribute(3, b"\x01" + chap_answer(1, b"123456", AUTHENTICATOR)),
    authenticator=AUTHENTICATOR,
)
CALLS = 2_000
EMPTY = Dictionary()


def cpu_us(call: Callable[[], object], calls: int) -> float:
    """CPU microseconds of one call."""
    start = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - start) / calls * 1e6


def refused() -> None:
    """A packet of empty attributes, stopped at the limit."""
    try:
        parse(EMPTIES)
    except Malformed:
        return
    raise AssertionError("2,038 attributes were accepted")


def pairs() -> dict[str, tuple[Callable[[], object], Callable[[], object] | None]]:
    """Each step by ours and, where it has the step, by pyrad."""
    packet = parse(LOGIN)
    hidden = packet.first(2)
    assert hidden is not None
    chap = chap_in(parse(CHAP))
    assert chap is not None
    theirs = pyrad_packet.AuthPacket(secret=SECRET, dict=EMPTY, packet=LOGIN)
    theirs_chap = pyrad_packet.AuthPacket(secret=SECRET, dict=EMPTY, packet=CHAP)

    def their_reply() -> bytes:
        reply = theirs.CreateReply()
        reply.add_message_authenticator()
        made: bytes = reply.ReplyPacket()
        return made

    def our_login() -> bytes:
        request = parse(LOGIN)
        assert OURS.signed(request)
        OURS.reveal(request.first(2) or b"", request.authenticator)
        return OURS.reply(Code.ACCESS_ACCEPT, request)

    def their_login() -> bytes:
        request = pyrad_packet.AuthPacket(secret=SECRET, dict=EMPTY, packet=LOGIN)
        assert request.verify_message_authenticator()
        request.PwDecrypt(OrderedDict.__getitem__(request, 2)[0])
        reply = request.CreateReply()
        reply.add_message_authenticator()
        made: bytes = reply.ReplyPacket()
        return made

    seal = StateSeal([Secret(bytes(32))], random=bytes)  # a fixed nonce: this measures, it protects nothing
    carried = Carried("01ARZ3NDEKTSV4RRFFQ69G5FAV", 2_000_000_000)
    state = seal.seal(carried, client="vpn", user_name=b"user00001")
    return {
        "parse": (lambda: parse(LOGIN), lambda: pyrad_packet.AuthPacket(secret=SECRET, dict=EMPTY, packet=LOGIN)),
        "Message-Authenticator": (lambda: OURS.signed(packet), theirs.verify_message_authenticator),
        "User-Password": (lambda: OURS.reveal(hidden, packet.authenticator), lambda: theirs.PwDecrypt(hidden)),
        "CHAP": (lambda: chap("123456"), lambda: theirs_chap.VerifyChapPasswd(b"123456")),
        "signed reply": (lambda: OURS.reply(Code.ACCESS_ACCEPT, packet), their_reply),
        "all of a PAP login": (our_login, their_login),
        "State sealed": (lambda: seal.seal(carried, client="vpn", user_name=b"user00001"), None),
        "State opened": (lambda: seal.open(state, client="vpn", user_name=b"user00001", now=0), None),
        "2,038 attributes": (refused, lambda: pyrad_packet.AuthPacket(secret=SECRET, dict=EMPTY, packet=EMPTIES)),
    }


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    print(f"{len(LOGIN)} octets, {parse(LOGIN).count} attributes; CPU us, median of {rounds} rounds")
    print(f"{'':24}{'ours':>9}{'pyrad':>9}{'pyrad/ours':>13}")
    for name, (ours, theirs) in pairs().items():
        calls = CALLS // 100 if ours is refused else CALLS
        samples = [(cpu_us(ours, calls), cpu_us(theirs, calls) if theirs else 0.0) for _ in range(rounds)]
        mine = statistics.median(sample[0] for sample in samples)
        line = f"{name:24}{mine:9.2f}"
        if theirs:
            other = statistics.median(sample[1] for sample in samples)
            ratio = statistics.median(sample[1] / sample[0] for sample in samples)
            line += f"{other:9.2f}{ratio:12.1f}x"
        print(line)


if __name__ == "__main__":
    main()
