"""Who holds which socket of this host?

Room rule: looks at what the kernel shows; sends nothing and changes nothing. Tables of /proc are read by functions of their
text.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mfactl.doctor.finding import Finding, Weight

SOCKET = "socket"
"""Where these findings belong."""
PROC = Path("/proc")
_TABLES = {False: (("udp", 4), ("udp6", 6)), True: (("tcp", 4), ("tcp6", 6))}
_TCP_LISTEN = "0A"
_UDP_UNCONNECTED = "07"
_WILD = {4: "0.0.0.0", 6: "::"}  # noqa: S104  compared, not bound


@dataclass(frozen=True, slots=True)
class Bound:
    """One socket that waits for others. ``drops`` are datagrams that found its buffer full."""

    host: str
    port: int
    inode: int
    drops: int


def read_table(text: str, version: int, *, tcp: bool) -> list[Bound]:
    """The sockets of one table of /proc/net that wait for others; lines that cannot be read are passed over (proc(5))."""
    found: list[Bound] = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        try:
            host, _, port = fields[1].partition(":")
            drops = 0 if tcp else int(fields[12])
            if fields[3] == (_TCP_LISTEN if tcp else _UDP_UNCONNECTED):
                found.append(Bound(_address(host, version), int(port, 16), int(fields[9]), drops))
        except (IndexError, ValueError, OSError):
            continue
    return found


def _address(digits: str, version: int) -> str:
    """An address as /proc writes it: 32 bits at a time, in the order of the processor."""
    octets = bytes.fromhex(digits)
    words = struct.unpack(f"={len(octets) // 4}I", octets)
    return socket.inet_ntop(socket.AF_INET if version == 4 else socket.AF_INET6, struct.pack(f"!{len(words)}I", *words))


def holders(bound: Iterable[Bound], host: str, port: int) -> list[Bound]:
    """The sockets that get what is sent to ``host`` and ``port``; ``*`` is every address of both families."""
    versions = (4, 6) if host == "*" else ((6,) if ":" in host else (4,))
    wanted = {host if host != "*" else _WILD[version] for version in versions}
    wild = {_WILD[version] for version in versions}
    return [one for one in bound if one.port == port and one.host in wanted | wild]


def tables() -> dict[bool, list[Bound]]:
    """All sockets of this host that wait for others, by whether they are TCP."""
    return {
        tcp: [one for name, version in names for one in read_table(text_of(PROC / "net" / name), version, tcp=tcp)]
        for tcp, names in _TABLES.items()
    }


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that has a socket. ``capabilities`` are its effective ones, as the kernel's bits."""

    pid: int
    name: str
    is_mfad: bool
    capabilities: int


def owners() -> dict[int, Owner]:
    """Who has which socket, of the processes that we may look into."""
    found: dict[int, Owner] = {}
    for process in PROC.iterdir():
        if not process.name.isdigit():
            continue
        try:
            links = [str(entry.readlink()) for entry in (process / "fd").iterdir()]
            inodes = [int(link[8:-1]) for link in links if link.startswith("socket:[")]
            if inodes:
                owner = _owner(process)
                found.update(dict.fromkeys(inodes, owner))
        except (OSError, ValueError):
            # Gone meanwhile, or not ours to look at.
            continue
    return found


def _owner(process: Path) -> Owner:
    words = (process / "cmdline").read_bytes().split(b"\0")
    # /usr/lib/mfad/bin/python /usr/lib/mfad/bin/mfad --config ..., or python -m mfad ...
    is_mfad = any(word == b"mfad" or word.endswith(b"/mfad") for word in words[:4])
    status = (process / "status").read_text("ascii", "replace")
    bits = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    name = words[0].rpartition(b"/")[2].decode("utf-8", "backslashreplace")
    return Owner(int(process.name), name, is_mfad, int(bits[1], 16) if bits else 0)


def check_held(place: str, bound: Iterable[Bound], owners: Mapping[int, Owner], *, cure: str) -> Iterator[Finding]:
    """Who has this address? ``bound`` are the sockets that get what is sent there, ``owners`` by inode of sockets."""
    found = list(bound)
    if not found:
        yield Finding(Weight.PROBLEM, SOCKET, f"nobody listens on {place}: mfad is not running", "`systemctl start mfad`")
        return
    known = [owners[one.inode] for one in found if one.inode in owners]
    others = sorted({f"{one.name} (pid {one.pid})" for one in known if not one.is_mfad})
    if others:
        yield Finding(Weight.PROBLEM, SOCKET, f"{place} is held by {', '.join(others)}", cure)
    elif not known:
        yield Finding(Weight.UNKNOWN, SOCKET, f"somebody listens on {place}; only root sees who", "run the doctor as root")
    else:
        yield Finding(Weight.GOOD, SOCKET, f"mfad listens on {place}")


def text_of(path: Path) -> str:
    """A file of /proc, empty where there is none."""
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
