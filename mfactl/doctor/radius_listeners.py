"""Does the RADIUS door listen, is it mfad who does, does the kernel keep a burst for it, and do its certificates last?

Room rule: looks at what the kernel and the files show; sends nothing and changes nothing. Tables of /proc are read by functions
of their text.
"""

from __future__ import annotations

import re
import shutil
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mfa_core.errors import MfaError
from mfactl.doctor.finding import Finding, Weight
from mfactl.doctor.installation import answers, output_of

if TYPE_CHECKING:
    from mfa_runtime.config import Config
    from mfa_runtime.config.listen import ListenAt
    from mfa_runtime.config.radius_door import RadiusDoor, Tls

SOCKET, CERTIFICATE, FREERADIUS = "socket", "tls", "radius"
"""Where a finding belongs."""
EXPIRES_SOON = timedelta(days=30)
SIGNS_SINCE = (3, 2, 5)
"""The first FreeRADIUS 3 that puts Message-Authenticator first into all replies and knows limit_proxy_state (CVE-2024-3596)."""
PROC = Path("/proc")
_TABLES = {False: (("udp", 4), ("udp6", 6)), True: (("tcp", 4), ("tcp6", 6))}
_TCP_LISTEN = "0A"
_UDP_UNCONNECTED = "07"
_NET_ADMIN = 12
_VERSION = re.compile(r"FreeRADIUS Version ([0-9]+)\.([0-9]+)\.([0-9]+)").search
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


def check_listeners(config: Config) -> Iterator[Finding]:
    """Everything about the door that shows only while mfad runs, and what wears out meanwhile."""
    door = config.doors.radius
    if door is None:
        return
    from mfa_runtime.config.listen import Wire

    tables, owners = _tables(), _owners()
    for listen in door.listen:
        yield from check_listener(listen, tables, owners)
    if any(listen.wire is not Wire.TLS for listen in door.listen):
        rmem_max = _read(PROC / "sys" / "net" / "core" / "rmem_max")
        yield from check_buffer(door.limits.receive_buffer_bytes, rmem_max, owners.values())
    if door.tls is not None:
        yield from check_certificates(door.tls, now=datetime.now(UTC))
    if door.freeradius is not None:
        yield from _check_freeradius(door.freeradius.socket)


def _tables() -> dict[bool, list[Bound]]:
    """All sockets of this host that wait for others, by whether they are TCP."""
    return {
        tcp: [one for name, version in names for one in read_table(_read(PROC / "net" / name), version, tcp=tcp)]
        for tcp, names in _TABLES.items()
    }


def held(door: RadiusDoor) -> dict[str, bool]:
    """Each address of the door, and whether somebody listens there: mfad, as a rule; the doctor tells who."""
    from mfa_runtime.config.listen import Wire

    tables = _tables()
    return {str(one): bool(holders(tables[one.wire is Wire.TLS], one.host, one.port)) for one in door.listen}


def check_listener(listen: ListenAt, tables: Mapping[bool, list[Bound]], owners: Mapping[int, Owner]) -> Iterator[Finding]:
    """Who has this address? ``tables`` by whether they are TCP, ``owners`` by inode of their sockets."""
    from mfa_runtime.config.listen import Wire

    tcp = listen.wire is Wire.TLS
    found = holders(tables[tcp], listen.host, listen.port)
    if not found:
        yield Finding(Weight.PROBLEM, SOCKET, f"nobody listens on {listen}: mfad is not running", "`systemctl start mfad`")
        return
    known = [owners[one.inode] for one in found if one.inode in owners]
    others = sorted({f"{one.name} (pid {one.pid})" for one in known if not one.is_mfad})
    if others:
        yield Finding(
            Weight.PROBLEM, SOCKET, f"{listen} is held by {', '.join(others)}",
            "stop it (`systemctl disable --now freeradius`, for instance), or choose another port",
        )  # fmt: skip
    elif not known:
        yield Finding(Weight.UNKNOWN, SOCKET, f"somebody listens on {listen}; only root sees who", "run the doctor as root")
    else:
        yield Finding(Weight.GOOD, SOCKET, f"mfad listens on {listen}")
    drops = sum(one.drops for one in found)
    if drops:
        yield Finding(
            Weight.WARNING, SOCKET, f"{drops:,} packets to {listen} found the receive buffer full since mfad started",
            "raise net.core.rmem_max and limits.receive_buffer_bytes, or let more workers share the port",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that has a socket. ``capabilities`` are its effective ones, as the kernel's bits."""

    pid: int
    name: str
    is_mfad: bool
    capabilities: int


def _owners() -> dict[int, Owner]:
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


def check_buffer(wanted: int, rmem_max: str, owners: Iterable[Owner]) -> Iterator[Finding]:
    """May the receive buffers be as large as is configured? ``rmem_max`` is the text of net.core.rmem_max, octets."""
    may_have_more = any(one.is_mfad and one.capabilities >> _NET_ADMIN & 1 for one in owners)
    text = rmem_max.strip()
    if text.isdigit() and int(text) < wanted and not may_have_more:
        yield Finding(
            Weight.WARNING,
            SOCKET,
            f"net.core.rmem_max is {int(text):,}, under limits.receive_buffer_bytes ({wanted:,}): bursts are lost earlier",
            f"echo 'net.core.rmem_max = {wanted}' > /etc/sysctl.d/60-mfad.conf && sysctl --system, then restart mfad",
        )


def check_certificates(tls: Tls, *, now: datetime) -> Iterator[Finding]:
    """Can the certificate, its key and the CA be used together, and for how long yet?"""
    from radius_plugin.radsec import tls_context
    from radius_plugin.settings import TlsSettings

    try:
        tls_context(
            TlsSettings(str(tls.certificate_file), str(tls.key_file), str(tls.client_ca_file), tls.minimum_version.value)
        )
    except MfaError as err:
        yield Finding(Weight.PROBLEM, CERTIFICATE, str(err), err.cure)
        return
    mode = tls.key_file.stat().st_mode & 0o777
    if mode & 0o007:
        seen = f"{tls.key_file} has mode {mode:04o}: others can read it"
        yield Finding(Weight.PROBLEM, CERTIFICATE, seen, f"chmod 0400 {tls.key_file}")
    for path in (tls.certificate_file, tls.client_ca_file):
        yield from _check_end(path, now)


def _check_end(path: Path, now: datetime) -> Iterator[Finding]:
    from cryptography import x509

    try:
        end = min(one.not_valid_after_utc for one in x509.load_pem_x509_certificates(path.read_bytes()))
    except (OSError, ValueError) as err:
        yield Finding(Weight.PROBLEM, CERTIFICATE, f"{path}: no certificate can be read from it: {err}", "write it in PEM")
        return
    day = end.strftime("%Y-%m-%d")
    if end <= now:
        yield Finding(Weight.PROBLEM, CERTIFICATE, f"{path}: a certificate in it ended on {day}", "renew it, then reload mfad")
    elif end - now < EXPIRES_SOON:
        yield Finding(Weight.WARNING, CERTIFICATE, f"{path}: a certificate in it ends on {day}", "renew it, then reload mfad")
    else:
        yield Finding(Weight.GOOD, CERTIFICATE, f"{path}: good until {day}")


def _check_freeradius(path: Path) -> Iterator[Finding]:
    if not answers(path):
        yield Finding(Weight.PROBLEM, FREERADIUS, f"nobody answers FreeRADIUS at {path}", "`systemctl restart mfad`")
    for program in ("freeradius", "radiusd"):
        if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin"):
            yield from check_version(output_of(program, "-v") or "")
            return
    yield Finding(Weight.UNKNOWN, FREERADIUS, "FreeRADIUS is not installed here, and doors.radius.freeradius waits for it")


def check_version(said: str) -> Iterator[Finding]:
    """Is this FreeRADIUS (what ``freeradius -v`` says) new enough to sign its replies by itself?"""
    found = _VERSION(said)
    if found is None:
        yield Finding(Weight.UNKNOWN, FREERADIUS, "FreeRADIUS does not say its version", "see `freeradius -v`")
        return
    version = tuple(map(int, found.groups()))
    shown = ".".join(found.groups())
    if version < SIGNS_SINCE:
        yield Finding(
            Weight.WARNING, FREERADIUS,
            f"FreeRADIUS {shown} has no protection of its own against forged packets (CVE-2024-3596)",
            "use 3.2.5 or later, or see *What is guarded* in docs/freeradius.md",
        )  # fmt: skip
    else:
        yield Finding(Weight.GOOD, FREERADIUS, f"FreeRADIUS {shown}")


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
