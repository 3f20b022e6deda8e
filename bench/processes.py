"""How does a measurement find programs, ports and processors, count what a process costs, and end it?"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

_PORTS = range(20_000, 32_000)
"""Below those that Linux gives to clients (ip_local_port_range)."""


def processors() -> list[int]:
    """The processors that this process may use. Ends the program when there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise SystemExit("two processors are needed: one for the server, one for the generator")
    return allowed


def need(program: str, package: str) -> str:
    """The path of a program. Ends this one, naming the Debian package, when it is missing."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise SystemExit(f"{program} is missing: apt-get install --no-install-recommends {package}")
    return found


def processor_s(root: int) -> float:
    """Processor seconds that a process and all that it started have used so far, exact to the nanosecond (/proc counts in
    hundredths)."""
    return sum(_own_s(pid) for pid in _tree(root))


def _own_s(pid: int) -> float:
    # The kernel's number for a process's own clock: clock_getcpuclockid(3).
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:  # ended in between
        return 0.0


def _tree(root: int) -> list[int]:
    found = [root]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # a thread that ended in between
                found += [int(word) for word in children.read_text().split()]
    return found


def free_port() -> int:
    """A UDP and TCP port of 127.0.0.1 that nobody has now, and that the kernel gives to no client before it is bound."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """The first of ``count`` such ports in a row."""
    while True:
        first = secrets.choice(_PORTS)
        with ExitStack() as held:
            try:
                for port in range(first, first + count):
                    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                        held.enter_context(socket.socket(socket.AF_INET, kind)).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first


def pin_tree(root: int, cpus: Sequence[int]) -> None:
    """Let a process use these processors from now on, and its threads and children as well."""
    for pid in _tree(root):
        command = ["taskset", "--all-tasks", "--cpu-list", "--pid", listed(cpus), str(pid)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that this program started."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def listed(cpus: Sequence[int]) -> str:
    """Processors as taskset wants them."""
    return ",".join(map(str, cpus))
