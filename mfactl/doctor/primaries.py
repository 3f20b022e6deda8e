"""Can whoever checks passwords be reached, and is he asked in a safe way?

Room rule: backends are opened as mfad opens them, and asked without a user: nobody's wrong passwords are counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from mfa_core.errors import MfaError
from mfactl.doctor.finding import Finding, Weight

if TYPE_CHECKING:
    from mfa_runtime.config import Config
    from mfa_runtime.config.primary import LdapSection, PamSection, RadiusSection

_PLACE = "primary"


def check_primaries(config: Config, *, pam_files: Mapping[str, str]) -> Iterator[Finding]:
    """Look at the backend of every door. ``pam_files`` are the texts under /etc/pam.d by name."""
    from mfa_runtime.config.primary import LdapSection, LocalSection, PamSection, RadiusSection

    sections = [door.primary for door in (config.doors.pam, config.doors.radius) if door is not None]
    for section in dict.fromkeys(sections):
        try:
            match section:
                case LdapSection():
                    yield from _check_ldap(section)
                case RadiusSection():
                    yield from _check_radius(section)
                case PamSection():
                    yield _check_pam(section, pam_files)
                case LocalSection():
                    yield _check_local(config)
                case _:
                    pass  # type none: whoever stands behind the door asks for the password
        except MfaError as err:
            yield Finding(Weight.PROBLEM, _PLACE, str(err), err.cure)


def _check_ldap(section: LdapSection) -> Iterator[Finding]:
    from mfa_runtime.config.primary import Verify
    from mfa_runtime.primary_ldap import LdapPrimary
    from mfa_runtime.secret_file import read_secret_file

    path = section.bind_password_file
    password = None if path is None else read_secret_file(path, key="primary.bind_password_file")
    backend = LdapPrimary(section, bind_password=password, monotonic=time.monotonic)
    try:
        yield from _probed(section.servers, backend.probe)
    finally:
        backend.close()
    if section.verify is Verify.NONE:
        seen = "`verify: none`: whoever stands in between reads every password"
        yield Finding(Weight.WARNING, _PLACE, seen, "name the CA in ca_file, and take verify out")
    for url in section.servers:
        if url.startswith("ldap://") and not section.start_tls:
            yield Finding(Weight.WARNING, _PLACE, f"passwords go to {url} in clear", "use ldaps://, or `start_tls: true`")


def _check_radius(section: RadiusSection) -> Iterator[Finding]:
    from mfa_runtime.primary_radius import RadiusPrimary
    from mfa_runtime.secret_file import read_secret_file

    backend = RadiusPrimary(section, secret=read_secret_file(section.secret_file, key="primary.secret_file"))
    try:
        for server in section.servers:
            try:
                backend.probe(server)
            except MfaError as err:
                # Many servers do not know Status-Server: silence proves nothing.
                yield Finding(Weight.UNKNOWN, _PLACE, f"{err} (Status-Server)", err.cure)
            else:
                yield Finding(Weight.GOOD, _PLACE, f"{server} answers, signed")
    finally:
        backend.close()


def _check_pam(section: PamSection, pam_files: Mapping[str, str]) -> Finding:
    text = pam_files.get(section.service)
    if text is None:
        seen = f"there is no PAM service {section.service}: `other` decides about passwords"
        return Finding(Weight.WARNING, _PLACE, seen, f"write /etc/pam.d/{section.service}")
    if any("pam_mfa.so" in line.partition("#")[0] for line in text.splitlines()):
        seen = f"PAM service {section.service} asks pam_mfa.so, which would ask us again"
        return Finding(Weight.PROBLEM, _PLACE, seen, "let it ask for the password alone")
    return Finding(Weight.GOOD, _PLACE, f"PAM service {section.service}")


def _check_local(config: Config) -> Finding:
    from sqlalchemy import func, select

    from mfa_runtime.store.opening import open_store
    from mfa_runtime.store.schema import passwords

    store = open_store(config.store_place)
    try:
        with store.reading() as connection:
            with_password = int(connection.execute(select(func.count()).select_from(passwords)).scalar_one())
    finally:
        store.close()
    if not with_password:
        return Finding(Weight.WARNING, _PLACE, "no user has a password", "`mfactl user password NAME`")
    return Finding(Weight.GOOD, _PLACE, f"passwords of our own: {with_password}")


def _probed(servers: tuple[str, ...], probe: Callable[[str], None]) -> Iterator[Finding]:
    """One dead server of several is a warning; when all are dead nobody logs in."""
    failed: list[MfaError] = []
    for server in servers:
        try:
            probe(server)
        except MfaError as err:
            failed.append(err)
        else:
            yield Finding(Weight.GOOD, _PLACE, f"{server} answers")
    weight = Weight.PROBLEM if len(failed) == len(servers) else Weight.WARNING
    yield from (Finding(weight, _PLACE, str(err), err.cure) for err in failed)
