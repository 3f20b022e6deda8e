"""``mfad``: the command line of the daemon."""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import resource
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import uvloop

from ldap_proxy.configuration import build_ldap_settings
from ldap_proxy.configuration import warnings as ldap_warnings
from ldap_proxy.door import check_files as check_ldap_files
from mfa_core.errors import ConfigurationError, MfaError
from mfa_runtime.config import Config, ConfigurationProblems, load_config
from mfa_runtime.config.sections import Role
from mfa_runtime.primaries import check_files
from mfad.authority import check_authority_files
from mfad.inherited import Inherited
from mfad.log_bound import BoundedLog
from mfad.notify import Notifier
from mfad.service import serve
from mfad.worker import serve_worker
from radius_plugin.configuration import build_radius_settings, policy_warnings, warnings
from radius_plugin.radsec import tls_context

DEFAULT_CONFIG = "/etc/mfad/mfad.yaml"
EX_CONFIG = 78
EX_UNAVAILABLE = 69
_PR_SET_DUMPABLE = 4
SWITCH_INTERVAL_S = 0.0005
"""The loop and the writer share the interpreter: with Python's 5 ms an answer could wait that long for its turn."""


def main(arguments: list[str] | None = None) -> int:
    """Run mfad in the foreground; the exit code: 0 after SIGTERM, 78 configuration, 69 store or socket unavailable."""
    options = _parser().parse_args(arguments)
    path = Path(options.config or os.environ.get("MFAD_CONFIG") or DEFAULT_CONFIG)

    def load() -> Config:
        return load_config(path)

    try:
        config = load()
        if options.check:
            for told in _check_files(config):
                sys.stderr.write(f"mfad: warning: {told}\n")
            sys.stdout.write(f"{path}: good\n")
            return 0
        _log_to_stderr(config)
        _keep_memory_private()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        notifier = Notifier(os.environ.pop("NOTIFY_SOCKET", None), os.environ.get("WATCHDOG_USEC"))
        if options.worker is not None:
            uvloop.run(serve_worker(config, load, Inherited.read(options.worker)))
        else:
            uvloop.run(serve(config, path, load, notifier))
    except ConfigurationProblems as err:
        sys.stderr.write(f"mfad: {err}\n")
        return EX_CONFIG
    except MfaError as err:
        sys.stderr.write(f"mfad: {err}\n" + (f"mfad: to mend it: {err.cure}\n" if err.cure else ""))
        return EX_CONFIG if isinstance(err, ConfigurationError) else EX_UNAVAILABLE
    return 0


def _check_files(config: Config) -> list[str]:
    """Read what only the files show: secrets, dictionaries, the sizes of replies, certificates. Returns warnings.

    Raises: ConfigurationError, when one of them cannot be used.
    """
    pam, radius = config.doors.pam, config.doors.radius
    for door in (pam, radius):
        if door is not None:
            check_files(door.primary)
    told: list[str] = []
    if radius is not None:
        settings = build_radius_settings(config, radius)
        if settings.tls is not None:
            tls_context(settings.tls)
        told += [*warnings(settings), *policy_warnings(radius, config.policy)]
    if config.doors.ldap is not None:
        ldap_settings = build_ldap_settings(config, config.doors.ldap)
        check_ldap_files(ldap_settings)
        told += ldap_warnings(ldap_settings)
    if config.role is Role.AUTHORITY:
        check_authority_files(config)
    return told


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mfad",
        description="One second factor in front of SSH, RADIUS and LDAP. Runs in the foreground; SIGHUP reloads the "
        "configuration, SIGTERM stops after the logins under way.",
    )
    parser.add_argument(
        "--config", metavar="FILE", help=f"the configuration (else MFAD_CONFIG, else {DEFAULT_CONFIG})"
    )
    parser.add_argument("--check", action="store_true", help="check the configuration, say what is wrong with it, and end")
    parser.add_argument("--worker", help=argparse.SUPPRESS)  # what mfad says to processes of its own
    parser.add_argument("--version", action="version", version=f"mfad {_version()}")
    return parser


def _version() -> str:
    try:
        return version("mfad")
    except PackageNotFoundError:
        return "(not installed)"


def _log_to_stderr(config: Config) -> None:
    logging.basicConfig(
        level=config.log_level.value.upper(), stream=sys.stderr, format="mfad: %(levelname)s %(name)s: %(message)s"
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(BoundedLog(time.monotonic))


def _keep_memory_private() -> None:
    """No core dump, and no other process of this uid may read our memory: it holds unsealed secrets while it compares."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
