"""A cable with delay and loss: run by namespaces.py where the kernel has no netem, never imported.

Makes two TAP devices, says that they are there, and carries the frames of each to the other, late or not at all, until its
standard input ends. Usage: wire.py NAME NAME DELAY_MS LOSS_PERCENT. Delay and loss are of one direction; the same frames are
lost in each run, as far as they come in the same order.
"""

import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_FRAME = 65_536
_QUEUE = 10_000
"""Frames under way; what comes on top is lost, as in a switch."""


def tap(name: str) -> int:
    """A new TAP device."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return device


def main() -> None:
    """Carry frames."""
    ends = [tap(sys.argv[1]), tap(sys.argv[2])]
    delay_s, loss = float(sys.argv[3]) / 1000, float(sys.argv[4]) / 100
    chance = random.Random(4711)
    waiting: list[tuple[float, int, int, bytes]] = []
    number = 0
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        patience = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        readable, _, _ = select.select([*ends, 0], [], [], patience)
        if 0 in readable:
            return
        for end in readable:
            try:
                frame = os.read(end, _FRAME)
            except OSError:
                # The device is down: it moves to its namespace.
                time.sleep(0.001)
                continue
            if chance.random() >= loss and len(waiting) < _QUEUE:
                number += 1
                heapq.heappush(waiting, (time.monotonic() + delay_s, number, ends[1 - ends.index(end)], frame))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, to, frame = heapq.heappop(waiting)
            try:
                os.write(to, frame)
            except OSError:
                # As above: a cable whose other end is out loses what is in it.
                continue


main()
