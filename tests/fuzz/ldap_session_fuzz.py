"""Can a client, or a directory that lies, get through a session what the gate has not allowed?

Both ends of one session of ldap_proxy send messages that are good, changed, cut and joined, in any order, while connections to
the directory come, are refused and go. After each piece: a session is BINDING exactly while a bind is pending, whoever is bound
has a connection, there is never a second one, and when it is over both sides are closed. At the end the directory has seen no
password that the gate had not asked about, unless it came under the name of the exempt account, and none that was empty.
tests/ldap_proxy/test_session_fuzz.py runs a little of this; for longer:
``python -m tests.fuzz.ldap_session_fuzz (--seconds S | --count N) [--seed SEED]``.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter

from ldap_proxy import message
from ldap_proxy.ber import Malformed, head
from ldap_proxy.states import State
from tests.ldap_proxy.door_doubles import (
    BOB,
    SERVICE,
    Stage,
    bind_result,
    compare,
    control,
    done,
    entry,
    modify,
    search,
    who_is,
)

CLIENT = [
    search(3),
    search(4, controls=control("1.2.840.113556.1.4.319")),
    modify(5, 50),
    modify(6, 300, control("1.2.3")),
    compare(7, b"cn"),
    compare(8, b"userPassword"),
    message.build_bind(9, BOB, b"secret,123456"),
    message.build_bind(10, BOB, b"secret"),
    message.build_bind(11, SERVICE, b"secret"),
    message.build_bind(12, b"", b""),
    message.build_bind(13, BOB, b""),
    message.build_abandon(14, 3),
    message.build_extended_request(15, message.WHO_AM_I),
    message.build_extended_request(16, message.START_TLS),
    message.build_extended_request(17, "1.2.3"),
    message.build_sasl_bind(18, b"", "PLAIN", b"\0bob\0secret", b""),
    message.build_unbind(19),
]
DIRECTORY = [
    entry(3),
    done(3),
    done(4),
    message.build_result(5, message.MODIFY_RESPONSE, 0),
    message.build_result(6, message.MODIFY_RESPONSE, 0),
    message.build_result(7, message.COMPARE_RESPONSE, 6),
    *(bind_result(number) for number in (9, 10, 11, 12)),
    bind_result(9, 49),
    bind_result(9, 14),
    who_is(9, b"dn:" + BOB),
    who_is(11, b"dn:" + SERVICE),
    who_is(15, b""),
    message.notice_of_disconnection(52),
]


def changed(octets: bytes, dice: random.Random) -> bytes:
    """The message, or something like it."""
    out = bytearray(octets)
    for _ in range(dice.choice((0, 0, 1, 1, 2, 5))):
        if not out:
            break
        at = dice.randrange(len(out))
        match dice.randrange(5):
            case 0:
                out[at] = dice.randrange(256)
            case 1:
                out[at] ^= 1 << dice.randrange(8)
            case 2:
                del out[at : at + dice.randrange(1, 4)]
            case 3:
                out[at:at] = dice.randbytes(dice.randrange(1, 4))
            case _:
                out[at:at] = out[at : at + dice.randrange(1, 20)]
    return bytes(out)


def play(dice: random.Random, counted: Counter[str]) -> None:
    """One session, from its beginning to its end or until nobody has anything to say. Raises: AssertionError."""
    stage = Stage()
    session = stage.session
    stage.upstreams.stock = dice.random() < 0.8
    clients = dice.choice((0.6, 0.1))
    if stage.upstreams.stock and dice.random() < (0.3 if clients > 0.5 else 0.9):
        stage.bound(dice.choice((BOB, SERVICE)))
    for _ in range(dice.randrange(1, 14)):
        if session.state is State.CLOSING:
            break
        turn = dice.random()
        if turn < clients:
            messages = [changed(dice.choice(CLIENT), dice) for _ in range(dice.choice((1, 1, 1, 2, 3)))]
            octets = b"".join(messages)
            cut = dice.randrange(len(octets) + 1) if dice.random() < 0.3 else 0
            for piece in (octets[:cut], octets[cut:]):
                if piece:
                    session.data_received(piece)
            counted["from clients"] += len(messages)
        elif stage.upstreams.waiting and turn < 0.9:
            if turn < 0.8:
                stage.upstreams.give()
            else:
                stage.upstreams.refuse()
        elif stage.upstreams.links and not stage.link.closed:
            if turn > 0.98:
                stage.link.closed = True
                session.upstream_lost(None)
            else:
                messages = [changed(dice.choice(DIRECTORY), dice) for _ in range(dice.choice((1, 1, 2)))]
                session.upstream_data(b"".join(messages))
                counted["from directories"] += len(messages)
        _check(stage)
        counted[session.state.value] += 1
    for link in stage.upstreams.links:
        _check_binds(stage, link.written)


def _check(stage: Stage) -> None:
    state = stage.session.state
    still_open = [link for link in stage.upstreams.links if not link.closed]
    assert len(still_open) <= 1
    assert (state is State.BINDING) == (stage.session._bind is not None)
    if state is State.BOUND:
        assert still_open
    if state is State.CLOSING:
        assert not still_open
        assert stage.transport.closed


def _check_binds(stage: Stage, octets: bytes) -> None:
    """Look at each bind that a directory was sent. The last message may be a part of one, and is no bind then."""
    asked = {one.attempt.typed.reveal().rpartition(b",")[0] for one in stage.gate.asked if one.attempt.typed is not None}
    at = 0
    while at < len(octets):
        found = head(octets, at, 1 << 30)
        if found is None or found[0] > len(octets):
            assert found is None or found[2] != message.BIND_REQUEST
            break
        if found[2] == message.BIND_REQUEST:
            request = message.parse_bind(octets[at : found[0]])
            assert request.password is not None
            password = request.password.reveal()
            if password:
                assert password in asked or stage.services.names.who(request.name).dn == _SERVICE
            else:
                assert not request.name
        at = found[0]


_SERVICE = Stage().services.names.who(SERVICE).dn


def run(dice: random.Random, *, count: int = 0, seconds: float = 0.0) -> Counter[str]:
    """Play until each side has sent so many messages, or so long. What was sent, and what sessions were after each piece."""
    counted: Counter[str] = Counter()
    until = time.monotonic() + seconds
    while min(counted["from clients"], counted["from directories"]) < count or time.monotonic() < until:
        play(dice, counted)
    return counted


def main() -> None:
    """Read the arguments and go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--count", type=int, default=0, help="messages from each side")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    try:
        counted = run(random.Random(given.seed), count=given.count, seconds=given.seconds)
    except Malformed as err:
        raise SystemExit(f"octets that are no messages went to a directory: {err}") from err
    print(", ".join(f"{number} {what}" for what, number in sorted(counted.items())))


if __name__ == "__main__":
    main()
