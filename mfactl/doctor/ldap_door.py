"""The LDAP door: do its files hold what the daemon needs, what is weak, does it listen, and do its certificates last?"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mfa_core.errors import MfaError
from mfactl.doctor.certificates import check_end, check_key_file
from mfactl.doctor.finding import Finding, Weight
from mfactl.doctor.kernel_sockets import SOCKET, check_held, holders, owners, tables
from mfactl.doctor.ldap_directory import check_directory
from mfactl.output import counted

if TYPE_CHECKING:
    from ldap_proxy.settings import LdapDoorSettings, ServerTls
    from mfa_runtime.config import Config
    from mfa_runtime.config.ldap_door import LdapDoor

LDAP = "ldap"
"""Where a finding about the door belongs."""
USUAL_PATIENCE_S = 10.0
"""What applications give a login, as a rule: Jenkins, GitLab and Grafana have 10 s, some have 5."""


def check_ldap(config: Config) -> Iterator[Finding]:
    """Settings, listeners, certificates, and the directory behind."""
    door = config.doors.ldap
    if door is None:
        return
    from ldap_proxy.configuration import build_ldap_settings, warnings
    from mfa_runtime.config import ConfigurationProblems

    try:
        settings = build_ldap_settings(config, door)
    except ConfigurationProblems as err:
        for line in str(err).splitlines():
            yield Finding(Weight.PROBLEM, LDAP, line, err.cure)
        return
    found = warnings(settings)
    for told in found:
        seen, _, cure = told.rpartition("; ")
        yield Finding(Weight.WARNING, LDAP, seen, cure)
    if not found:
        yield Finding(Weight.GOOD, LDAP, f"{counted(len(settings.applications), 'application')}, nothing weak")
    yield from check_patience(settings)
    yield from _check_listeners(door)
    if settings.tls is not None:
        yield from check_tls(settings.tls, now=datetime.now(UTC))
    yield from check_directory(config, settings)


def held(door: LdapDoor) -> dict[str, bool]:
    """Each address of the door, and whether somebody listens there."""
    from mfa_runtime.config.ldap_address import LdapScheme

    bound = tables()[True]
    return {
        str(one): _answers(Path(one.host)) if one.scheme is LdapScheme.LDAPI else bool(holders(bound, one.host, one.port))
        for one in door.listen
    }


def check_patience(settings: LdapDoorSettings) -> Iterator[Finding]:
    """Is a login over before applications give up, also while servers are down?"""
    upstream = settings.upstream
    longest = upstream.connect_timeout_s * len(upstream.servers)
    if longest > USUAL_PATIENCE_S:
        yield Finding(
            Weight.WARNING, LDAP,
            f"while its servers do not answer, a bind may take {longest:g} s (connect_timeout for each of "
            f"{len(upstream.servers)}): most applications give up after {USUAL_PATIENCE_S:g} s",
            "lower connect_timeout",
        )  # fmt: skip


def _check_listeners(door: LdapDoor) -> Iterator[Finding]:
    from mfa_runtime.config.ldap_address import LdapScheme

    bound, known = tables()[True], owners()
    for one in door.listen:
        if one.scheme is LdapScheme.LDAPI:
            yield from _check_local(Path(one.host))
            continue
        cure = "stop it (`systemctl disable --now slapd`, for instance), or choose another port"
        yield from check_held(str(one), holders(bound, one.host, one.port), known, cure=cure)


def _check_local(path: Path) -> Iterator[Finding]:
    if _answers(path):
        yield Finding(Weight.GOOD, SOCKET, f"mfad listens on ldapi://{path}")
    else:
        yield Finding(Weight.PROBLEM, SOCKET, f"nobody answers at ldapi://{path}", "`systemctl restart mfad`")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def check_tls(tls: ServerTls, *, now: datetime) -> Iterator[Finding]:
    """Can certificate, key and CA be used together, and for how long yet?"""
    from ldap_proxy.server import tls_context

    try:
        tls_context(tls)
    except MfaError as err:
        yield Finding(Weight.PROBLEM, LDAP, str(err), err.cure)
        return
    yield from check_key_file(tls.key_file)
    yield from check_end(tls.certificate_file, now=now)
    if tls.client_ca_file is not None:
        yield from check_end(tls.client_ca_file, now=now)
