"""Does the RADIUS door listen, is it mfad who does, does the kernel keep a burst for it, and do its certificates last?

Room rule: looks at what the kernel and the files show; sends nothing and changes nothing.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mfa_core.errors import MfaError
from mfactl.doctor.certificates import CERTIFICATE, check_end, check_key_file
from mfactl.doctor.finding import Finding, Weight
from mfactl.doctor.installation import answers, output_of
from mfactl.doctor.kernel_sockets import PROC, SOCKET, Bound, Owner, check_held, holders, owners, tables, text_of

if TYPE_CHECKING:
    from mfa_runtime.config import Config
    from mfa_runtime.config.listen import ListenAt
    from mfa_runtime.config.radius_door import RadiusDoor, Tls

FREERADIUS = "radius"
"""Where a finding about it belongs."""
SIGNS_SINCE = (3, 2, 5)
"""The first FreeRADIUS 3 that puts Message-Authenticator first into all replies and knows limit_proxy_state (CVE-2024-3596)."""
_NET_ADMIN = 12
_VERSION = re.compile(r"FreeRADIUS Version ([0-9]+)\.([0-9]+)\.([0-9]+)").search


def check_listeners(config: Config) -> Iterator[Finding]:
    """Everything about the door that shows only while mfad runs, and what wears out meanwhile."""
    door = config.doors.radius
    if door is None:
        return
    from mfa_runtime.config.listen import Wire

    bound, known = tables(), owners()
    for listen in door.listen:
        yield from check_listener(listen, bound, known)
    if any(listen.wire is not Wire.TLS for listen in door.listen):
        rmem_max = text_of(PROC / "sys" / "net" / "core" / "rmem_max")
        yield from check_buffer(door.limits.receive_buffer_bytes, rmem_max, known.values())
    if door.tls is not None:
        yield from check_certificates(door.tls, now=datetime.now(UTC))
    if door.freeradius is not None:
        yield from _check_freeradius(door.freeradius.socket)


def held(door: RadiusDoor) -> dict[str, bool]:
    """Each address of the door, and whether somebody listens there: mfad, as a rule; the doctor tells who."""
    from mfa_runtime.config.listen import Wire

    bound = tables()
    return {str(one): bool(holders(bound[one.wire is Wire.TLS], one.host, one.port)) for one in door.listen}


def check_listener(listen: ListenAt, bound: Mapping[bool, list[Bound]], known: Mapping[int, Owner]) -> Iterator[Finding]:
    """Who has this address? ``bound`` by whether it is TCP, ``known`` by inode of sockets."""
    from mfa_runtime.config.listen import Wire

    found = holders(bound[listen.wire is Wire.TLS], listen.host, listen.port)
    cure = "stop it (`systemctl disable --now freeradius`, for instance), or choose another port"
    yield from check_held(str(listen), found, known, cure=cure)
    drops = sum(one.drops for one in found)
    if drops:
        yield Finding(
            Weight.WARNING, SOCKET, f"{drops:,} packets to {listen} found the receive buffer full since mfad started",
            "raise net.core.rmem_max and limits.receive_buffer_bytes, or let more workers share the port",
        )  # fmt: skip


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
    yield from check_key_file(tls.key_file)
    for path in (tls.certificate_file, tls.client_ca_file):
        yield from check_end(path, now=now)


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
