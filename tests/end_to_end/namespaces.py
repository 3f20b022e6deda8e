"""How does a test get machines with a network between them that it can cut, mend and spoil?

A :class:`Network` is a switch (a bridge in a namespace of its own) and a network namespace for each machine, joined by veth
pairs. Nothing of it is visible outside, names hold the pid of the test, and what a killed test left is removed by the next one.

There are two ways to be cut off. UNPLUGGED: the interface is down, every connect fails at once. SILENT: frames vanish at the
switch and neither end is told; neighbours are permanent entries, so that not even ARP finds out.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Self

import pytest

from tests.end_to_end.programs import must_be_root, must_have, run, start, stop

_PREFIX = "mfad-test"
_CLONE_NEWNET = 0x40000000
_WIRE = Path(__file__).with_name("wire.py")


class Cut(StrEnum):
    """How a machine is cut off."""

    UNPLUGGED = "unplugged"
    SILENT = "silent"


def ip(*words: str) -> str:
    """Run ip(8)."""
    return run(["ip", *words])


def must_have_namespaces() -> None:
    """Skip the test where network namespaces cannot be made; in CI that is a failure."""
    must_be_root()
    must_have("ip", "bridge", "nsenter")
    refused = _refused()
    if refused:
        if os.environ.get("CI"):
            pytest.fail(f"CI must run this test: {refused}", pytrace=False)
        pytest.skip(refused)


@cache
def _refused() -> str:
    """Why this machine makes no namespace with a veth pair and a bridge; "" if it does."""
    name = f"{_PREFIX}{os.getpid()}-try"
    tried = [
        ["ip", "netns", "add", name],
        ["ip", "-n", name, "link", "add", "one", "type", "veth", "peer", "name", "two"],
        ["ip", "-n", name, "link", "add", "br0", "type", "bridge"],
    ]
    try:
        for command in tried:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                return f"no network namespaces here: {' '.join(command)}: {done.stderr.strip()}"
        return ""
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


class Network:
    """A switch and its machines. A context manager: all of it is gone afterwards."""

    _made = 0

    def __init__(self) -> None:
        must_have_namespaces()
        _sweep()
        Network._made += 1
        self._name = f"{_PREFIX}{os.getpid()}-{Network._made}"
        self._switch = f"{self._name}-switch"
        self.machines: dict[str, Machine] = {}
        self._stack = contextlib.ExitStack()
        self._add(self._switch)
        ip("-n", self._switch, "link", "add", "br0", "type", "bridge")
        # Nobody waits for its ports to listen and learn.
        ip("-n", self._switch, "link", "set", "br0", "up", "type", "bridge", "stp_state", "0", "forward_delay", "0")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _add(self, namespace: str) -> None:
        ip("netns", "add", namespace)
        self._stack.callback(subprocess.run, ["ip", "netns", "del", namespace], capture_output=True, check=False)
        ip("-n", namespace, "link", "set", "lo", "up")

    def machine(self, name: str) -> Machine:
        """A new machine at the switch, which all others reach."""
        number = len(self.machines) + 1
        one = Machine(f"{self._name}-{name}", self._switch, number)
        self._add(one.namespace)
        one.plug_in()
        for other in self.machines.values():
            other.knows(one)
            one.knows(other)
        self.machines[name] = one
        return one

    def close(self) -> None:
        """End all machines."""
        for one in self.machines.values():
            one.end_wire()
        self._stack.close()


class Machine:
    """One machine: a network namespace with an address on ``eth0`` and a loopback of its own."""

    def __init__(self, namespace: str, switch: str, number: int) -> None:
        self.namespace = namespace
        self.address = f"10.77.0.{number}"
        self._mac = f"02:77:00:00:00:{number:02x}"
        self._switch = switch
        self._number = number
        self._port = f"port{number}"
        self._knows: list[Machine] = []
        self._wire: subprocess.Popen[bytes] | None = None
        self._spoilt = False

    @property
    def path(self) -> Path:
        """The namespace, as nsenter takes it."""
        return Path("/run/netns", self.namespace)

    def inside(self, *command: str | Path) -> list[str]:
        """``command``, to be run on this machine; it keeps its pid."""
        return ["nsenter", f"--net={self.path}", "--", *(os.fspath(word) for word in command)]

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Meanwhile this thread makes its sockets on this machine; they stay there."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/proc/thread-self/ns/net").open("rb") as ours, self.path.open("rb") as theirs:
            _set_namespace(libc, theirs.fileno())
            try:
                yield
            finally:
                _set_namespace(libc, ours.fileno())

    def plug_in(self) -> None:
        """Join the switch."""
        ip("-n", self.namespace, "link", "add", "eth0", "address", self._mac, "type", "veth",
           "peer", "name", self._port, "netns", self._switch)  # fmt: skip
        ip("-n", self._switch, "link", "set", self._port, "master", "br0", "up")
        self._bring_up("eth0")

    def knows(self, other: Machine) -> None:
        """Remember where ``other`` is, for ever."""
        self._knows.append(other)
        self._neighbour(other)

    def _bring_up(self, interface: str) -> None:
        ip("-n", self.namespace, "link", "set", interface, "up")
        ip("-n", self.namespace, "address", "add", f"{self.address}/24", "dev", interface)
        for other in self._knows:
            self._neighbour(other)

    def _neighbour(self, other: Machine) -> None:
        ip("-n", self.namespace, "neighbour", "replace", other.address, "lladdr", other._mac,
           "dev", self._interface, "nud", "permanent")  # fmt: skip

    @property
    def _interface(self) -> str:
        return "air0" if self._wire is not None else "eth0"

    @property
    def _switch_port(self) -> str:
        return f"air{self._number}" if self._wire is not None else self._port

    def cut(self, how: Cut = Cut.SILENT) -> None:
        """Part this machine from all others."""
        if how is Cut.UNPLUGGED:
            ip("-n", self.namespace, "link", "set", self._interface, "down")
        else:
            self._port_state("disabled")

    def rejoin(self) -> None:
        """Mend either cut."""
        ip("-n", self.namespace, "link", "set", self._interface, "up")
        for other in self._knows:
            # A link that goes down forgets its neighbours.
            self._neighbour(other)
        self._port_state("forwarding")

    def _port_state(self, state: str) -> None:
        number = {"disabled": "0", "forwarding": "3"}[state]
        run(["bridge", "-n", self._switch, "link", "set", "dev", self._switch_port, "state", number])

    def spoil(self, *, delay_ms: int, loss_percent: float) -> None:
        """From now on each frame to and from this machine comes ``delay_ms`` late, or with this chance never."""
        assert not self._spoilt, "spoilt already"
        self._spoilt = True
        ends = ((self.namespace, "eth0"), (self._switch, self._port))
        words = ("root", "netem", "delay", f"{delay_ms}ms", "loss", f"{loss_percent}%")
        tried = [subprocess.run(["tc", "-n", where, "qdisc", "add", "dev", end, *words], capture_output=True, check=False)
                 for where, end in ends]  # fmt: skip
        if any(one.returncode != 0 for one in tried):
            self._take_wire(delay_ms, loss_percent)

    def _take_wire(self, delay_ms: int, loss_percent: float) -> None:
        # This kernel has no netem: another cable, which a program of ours carries. The address moves, connections stay.
        near, far = f"mfw{os.getpid() % 1_000_000}a", f"mfw{os.getpid() % 1_000_000}b"
        self._wire = start(
            [sys.executable, "-I", "-S", _WIRE, near, far, str(delay_ms), str(loss_percent)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._wire.stdout is not None
        assert self._wire.stdout.readline() == b"ready\n", "no TAP devices: /dev/net/tun"
        ip("link", "set", near, "netns", self.namespace, "name", "air0", "address", self._mac)
        ip("link", "set", far, "netns", self._switch, "name", self._switch_port)
        ip("-n", self.namespace, "address", "flush", "dev", "eth0")
        ip("-n", self.namespace, "link", "set", "eth0", "down")
        ip("-n", self._switch, "link", "set", self._port, "down")
        ip("-n", self._switch, "link", "set", self._switch_port, "master", "br0", "up")
        self._bring_up("air0")

    def mend(self) -> None:
        """A good cable again."""
        assert self._spoilt, "not spoilt"
        self._spoilt = False
        if self._wire is None:
            for where, end in ((self.namespace, "eth0"), (self._switch, self._port)):
                run(["tc", "-n", where, "qdisc", "del", "dev", end, "root"])
            return
        self.end_wire()
        ip("-n", self._switch, "link", "set", self._port, "up")
        self._bring_up("eth0")

    def end_wire(self) -> None:
        """End the program that carries frames, and its devices with it."""
        if self._wire is not None:
            stop(self._wire)
            self._wire = None


def _set_namespace(libc: ctypes.CDLL, descriptor: int) -> None:
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _sweep() -> None:
    """Remove what tests have left that were killed."""
    for line in ip("netns", "list").splitlines():
        left = re.match(rf"({_PREFIX}(\d+)-\S+)", line)
        if left is not None and not Path("/proc", left[2]).exists():
            subprocess.run(["ip", "netns", "del", left[1]], capture_output=True, check=False)
