"""The RADIUS door: do its files hold what the daemon needs, and what is weak about its clients?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mfactl.doctor.finding import Finding, Weight
from mfactl.output import counted

if TYPE_CHECKING:
    from mfa_runtime.config import Config


def check_radius(config: Config) -> Iterator[Finding]:
    """Secrets, dictionaries, reply attributes; clients whose packets could be forged; exemptions that let nobody in."""
    door = config.doors.radius
    if door is None:
        return
    from mfa_runtime.config import ConfigurationProblems
    from radius_plugin.configuration import build_radius_settings, policy_warnings, warnings

    try:
        settings = build_radius_settings(config, door)
    except ConfigurationProblems as err:
        for line in str(err).splitlines():
            yield Finding(Weight.PROBLEM, "radius", line, err.cure)
        return
    found = [*warnings(settings), *policy_warnings(door, config.policy)]
    for told in found:
        seen, _, cure = told.rpartition("; ")
        yield Finding(Weight.WARNING, "radius", seen, cure)
    if not found:
        yield Finding(Weight.GOOD, "radius", f"{counted(len(door.clients), 'client')}, all packets signed")
