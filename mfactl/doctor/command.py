"""Run every check, say what was found, exit 1 if something must be mended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mfa_core.errors import MfaError
from mfactl.doctor.finding import Finding, Weight
from mfactl.doctor.installation import check_clock, check_key, check_sockets, check_store, sshd_settings
from mfactl.doctor.ldap_door import check_ldap
from mfactl.doctor.pam_files import MODULE, check_pam_files, check_sshd
from mfactl.doctor.primaries import check_primaries
from mfactl.doctor.radius_door import check_radius
from mfactl.doctor.radius_listeners import check_listeners
from mfactl.exit_codes import ExitCode
from mfactl.options import Json
from mfactl.output import counted, printable, say, say_json
from mfactl.session import configuration_name, open_session, read_configuration

if TYPE_CHECKING:
    from mfa_runtime.config import Config

PAM_DIRECTORY = Path("/etc/pam.d")
MODULE_DIRECTORIES = ("/lib", "/usr/lib", "/lib64", "/usr/lib64")
_MAX_PAM_FILE_BYTES = 64 * 1024


def doctor(context: typer.Context, json: Json = False) -> None:
    """Look for what goes wrong in practice, and say how to mend it."""
    found = list(_findings(context))
    if json:
        say_json([{"weight": f.weight, "place": f.place, "seen": f.seen, "cure": f.cure} for f in found])
    else:
        for finding in found:
            say(f"{finding.weight:<8} {finding.place:<8} {printable(finding.seen)}")
            if finding.cure:
                say(f"{'':<17} cure: {printable(finding.cure)}")
    if any(finding.weight is Weight.PROBLEM for finding in found):
        raise typer.Exit(ExitCode.REFUSED)


def _findings(context: typer.Context) -> Iterator[Finding]:
    try:
        config = read_configuration(context)
    except MfaError as err:
        for line in str(err).splitlines():
            yield Finding(Weight.PROBLEM, "config", line, err.cure)
        return
    from mfa_runtime.config.sections import PriorFactor, Role

    rules = "the rules are the authority's" if config.role is Role.AGENT else counted(len(config.policy.rules), "rule")
    yield Finding(Weight.GOOD, "config", f"{configuration_name(context)}: {rules}")
    yield from check_key(config)
    yield from check_store(config)
    yield from _hosts_and_authority(context, config)
    yield from check_clock()
    yield from check_sockets(config)
    yield from check_radius(config)
    yield from check_listeners(config)
    yield from check_ldap(config)
    files = _pam_files()
    yield from check_primaries(config, pam_files=files)
    if config.doors.pam is not None:
        yield from check_pam_files(
            files,
            socket_dir=str(config.doors.pam.socket_dir),
            module_found=_module_found(),
            promised={name for name in files if config.doors.pam.settings_for(name).first_factor is PriorFactor.DONE},
        )
        yield from check_sshd(sshd_settings(), pam_file=files.get("sshd", ""))


def _hosts_and_authority(context: typer.Context, config: Config) -> Iterator[Finding]:
    from mfa_runtime.config.sections import Role

    if config.role is Role.STANDALONE:
        return
    try:
        with open_session(context) as session:
            if config.role is Role.AGENT:
                from mfactl.doctor.agent_host import check_agent

                yield from check_agent(session)
            else:
                from mfactl.doctor.authority import check_authority

                yield from check_authority(session)
    except MfaError as err:
        # Where the store does not open, that stands above already, and this says what it keeps from being looked at.
        yield Finding(Weight.UNKNOWN, config.role.value, f"could not be looked at: {err}", err.cure or "mend the store first")


def _pam_files() -> dict[str, str]:
    found: dict[str, str] = {}
    if PAM_DIRECTORY.is_dir():
        for path in sorted(PAM_DIRECTORY.iterdir()):
            if path.is_file() and path.stat().st_size <= _MAX_PAM_FILE_BYTES:
                found[path.name] = path.read_text("utf-8", "replace")
    return found


def _module_found() -> bool:
    folders = [Path(top) / "security" for top in MODULE_DIRECTORIES]
    folders += [folder for top in MODULE_DIRECTORIES for folder in Path(top).glob("*-linux-*/security")]
    return any((folder / MODULE).exists() for folder in folders)
