"""Can octets from either side break the LDAP codec, or mean one thing to the door and another to a directory?

The inputs are the messages of tests/vectors/ldap.json (those that clients send, then those that directories send), DNs and
PROXY headers, cut, joined and changed. Whatever comes, a reader gives a value or its one documented error; the quick framing
says what the careful one says, whole or in pieces; a bind that is read and built again is the same bind, in one canonical form.
Of every hundredth input, and of the bind that is built from it, sansldap and pyasn1 are asked what they read, and where they
read something it must be the same. tests/ldap_proxy/test_wire_differential.py runs a little of this; for longer:
``python -m tests.fuzz.ldap_wire_fuzz (--seconds S | --count N) [--seed SEED]``, each of the four kinds for itself.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from ldap_proxy import ber, message
from ldap_proxy.ber import Malformed, wrapped
from ldap_proxy.dn import NotADn, parse_dn
from ldap_proxy.message import BindRequest
from ldap_proxy.proxy_header import Header, read
from tests.ldap_proxy.ldap_vectors import read_broken, read_broken_bodies, read_messages, read_names, read_proxy_headers
from tests.ldap_proxy.second_opinions import ours, pyasn1s, sansldaps

LIMIT = 65_536
OPINION_EVERY = 100
_TELLING = bytes(
    (
        0,
        1,
        2,
        3,
        4,
        5,
        0x0A,
        0x1F,
        0x30,
        0x31,
        0x42,
        0x60,
        0x61,
        0x77,
        0x78,
        0x7F,
        0x80,
        0x81,
        0x82,
        0x84,
        0x85,
        0x8A,
        0xA0,
        0xA3,
        0xFF,
    )
)
_BODIES = [one.octets for one in read_broken_bodies() if one.reader != "controls" and one.octets]
_BROKEN = [one.octets for one in read_broken() if len(one.octets) > 5]
REQUESTS = [one.octets for one in read_messages() if one.tag in message.REQUESTS] + [
    octets for octets in _BROKEN + _BODIES if message.RESPONSES.isdisjoint(octets[:12])
]
RESPONSES = [one.octets for one in read_messages() if one.tag in message.RESPONSES] + [
    octets for octets in _BODIES if not message.RESPONSES.isdisjoint(octets[:12])
]
NAMES = [name.text.encode() for name in read_names() if name.text]
HEADERS = [case.octets for case in read_proxy_headers()]
_READERS: tuple[Callable[[bytes], object], ...] = (
    message.parse_bind,
    message.parse_result,
    message.extended_oid,
    message.compare_attribute,
    message.abandoned,
    message.parse_entry,
)


def mutant(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """A seed with some of its octets changed, moved, cut or added."""
    octets = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at = chance.randrange(len(octets) + 1)
        match chance.randrange(7):
            case 0:
                octets[at : at + 1] = bytes([chance.choice(_TELLING)])
            case 1:
                octets[at : at + 1] = chance.randbytes(1)
            case 2:
                del octets[at : at + chance.randint(1, 12)]
            case 3:
                octets[at:at] = chance.randbytes(chance.randint(1, 12))
            case 4:
                other = chance.choice(seeds)
                start = chance.randrange(len(other))
                octets[at:at] = other[start : start + chance.randint(1, 32)]
            case 5 if at < len(octets):
                octets[at] = (octets[at] + chance.choice((-1, 1))) & 0xFF  # a length that just does not fit
            case _:
                octets[at:at] = wrapped(chance.choice(_TELLING), chance.randbytes(chance.randrange(6)))
    return bytes(octets)


def mended(octets: bytes) -> bytes:
    """The octets with the lengths of message and operation made to fit, so that what is inside is looked at."""
    at = 2 if octets[1:2] < b"\x80" else 2 + (octets[1] & 7)
    inside = octets[at:]
    id_size = 2 + (inside[1] & 7) if len(inside) > 1 else 0
    rest = inside[id_size:]
    if len(rest) < 2:
        return wrapped(0x30, inside)
    skip = 2 if rest[1] < 0x80 else 2 + (rest[1] & 7)
    return wrapped(0x30, inside[:id_size] + wrapped(rest[0], rest[skip:]))


def framed(octets: bytes, limit: int = LIMIT) -> ber.Head | tuple[type[Malformed], str] | None:
    """What framing says, and that its two ways say the same."""
    said = []
    for reading in (ber.head, ber._head_carefully):
        try:
            said.append(reading(octets, 0, limit))
        except Malformed as refused:
            said.append((type(refused), refused.text))
    assert said[0] == said[1], said
    return said[0]


def check_message(octets: bytes, chance: random.Random, *, opinion: bool) -> str:
    """Hold the codec to its word on one input; return what became of it. Raises: AssertionError, or what should not escape."""
    whole = framed(octets)
    part = framed(octets[: chance.randrange(len(octets) + 1)])
    if part is not None:
        assert whole is not None
        # What framing said of a part stands, unless what follows the operation then shows that there is no message.
        assert part == whole or whole[0] is (Malformed if len(part) == 5 else part[0])
    read_by = 0
    built = None
    for reader in _READERS:
        try:
            value = reader(octets)
        except Malformed:
            continue
        read_by += 1
        if isinstance(value, BindRequest):
            built = _check_bind(value)
    assert read_by <= 1
    if whole is not None and len(whole) == 5 and whole[0] == len(octets):
        with contextlib.suppress(Malformed):
            message.control_oids(octets[whole[4] :])
    else:
        assert not read_by
    if opinion:
        for one in (octets, built):
            if one is not None:
                mine = ours(one)
                for theirs in (sansldaps(one), pyasn1s(one)):
                    assert mine is None or theirs is None or mine == theirs, (mine, theirs)
    return "read" if read_by else "waits" if whole is None else "framed" if len(whole) == 5 else "refused"


def _check_bind(bind: BindRequest) -> bytes:
    """A bind that was read, built again: the same, in the canonical form."""
    if bind.password is not None:
        built = message.build_bind(bind.message_id, bind.name, bind.password.reveal(), bind.controls)
    else:
        credentials = None if bind.credentials is None else bind.credentials.reveal()
        built = message.build_sasl_bind(bind.message_id, bind.name, bind.mechanism, credentials, bind.controls)
    again = message.parse_bind(built)
    assert (again.message_id, again.name, again.mechanism) == (bind.message_id, bind.name, bind.mechanism)
    assert again.controls == bind.controls
    for one, other in ((again.password, bind.password), (again.credentials, bind.credentials)):
        assert (one is None) == (other is None)
        assert one is None or other is None or one.same_as(other)
    return built


def check_name(octets: bytes, chance: random.Random, *, opinion: bool) -> str:
    """A DN whose normal form is its own, or none."""
    try:
        dn = parse_dn(octets.decode("utf-8", "surrogateescape"))
    except NotADn:
        return "refused"
    assert parse_dn(dn.text) == dn
    return "read"


def check_header(octets: bytes, chance: random.Random, *, opinion: bool) -> str:
    """A header, a wait or a refusal; a part says nothing else."""

    def said(some: bytes) -> Header | str | None:
        try:
            return read(some)
        except Malformed:
            return "refused"

    whole, part = said(octets), said(octets[: chance.randrange(len(octets) + 1)])
    assert part is None or part == whole
    return "read" if isinstance(whole, Header) else whole or "waits"


KINDS: dict[str, tuple[Sequence[bytes], Callable[..., str]]] = {
    "requests": (REQUESTS, check_message),
    "responses": (RESPONSES, check_message),
    "names": (NAMES, check_name),
    "headers": (HEADERS, check_header),
}


def run(kind: str, seed: int, *, count: int = 0, seconds: float = 0.0) -> Counter[str]:
    """So many inputs of a kind, or for so long; how many had which outcome. Raises: what :func:`check_message` raises."""
    seeds, check = KINDS[kind]
    chance = random.Random(f"{kind} {seed}")
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + seconds
    tried = 0
    while tried < count or time.monotonic() < end:
        octets = mutant(chance, seeds)
        if check is check_message and chance.random() < 0.5:
            octets = mended(octets)
        try:
            outcomes[check(octets, chance, opinion=tried % OPINION_EVERY == 0)] += 1
        except BaseException:
            print(f"{kind}, seed {seed}, input {tried}: {octets.hex()}", file=sys.stderr)
            raise
        tried += 1
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description="Mutate LDAP messages, DNs and PROXY headers, and hold the codec to its word.")
    amount = parser.add_mutually_exclusive_group(required=True)
    amount.add_argument("--count", type=int, default=0, help="inputs of each kind")
    amount.add_argument("--seconds", type=float, default=0.0, help="for each kind")
    parser.add_argument("--seed", type=int, default=time.time_ns())
    asked = parser.parse_args()
    for kind in KINDS:
        began = time.monotonic()
        outcomes = run(kind, asked.seed, count=asked.count, seconds=asked.seconds)
        told = ", ".join(f"{number} {what}" for what, number in sorted(outcomes.items()))
        print(f"{kind}: seed {asked.seed}, {outcomes.total()} inputs in {time.monotonic() - began:.0f} s: {told}", flush=True)


if __name__ == "__main__":
    main()
