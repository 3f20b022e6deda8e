"""Configuration, key file, store, room on disk, clock, sockets."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mfa_core.errors import MfaError
from mfactl.doctor.finding import Finding, Weight

if TYPE_CHECKING:
    from mfa_runtime.config import Config

ROOM_BYTES = 256 * 1024 * 1024
"""Less free space than this is worth a word: every login writes."""
BEGINNING_OF_TIME = 1_735_689_600
"""2025-01-01: a clock before it was never set."""


def check_key(config: Config) -> Iterator[Finding]:
    """Is the key there, and can nobody else read it?"""
    from mfa_runtime.key_file import load_key_source
    from mfactl.session import credentials_directory

    try:
        keks = load_key_source(config.key_source, credentials_directory=credentials_directory())
    except MfaError as err:
        yield Finding(Weight.PROBLEM, "key", str(err), err.cure)
        return
    if len(keks.keys) > 1:
        yield Finding(Weight.WARNING, "key", "a key rotation broke off", "run `mfactl key rotate` to finish it")
    else:
        yield Finding(Weight.GOOD, "key", config.key_source)


def check_store(config: Config) -> Iterator[Finding]:
    """Does the store open under this key, and is it private?"""
    from mfa_runtime.key_file import load_key_source
    from mfa_runtime.store.key_table import load_keyring
    from mfa_runtime.store.opening import open_store
    from mfa_runtime.store_role import check_role
    from mfactl.session import credentials_directory

    place = config.store_place
    try:
        store = open_store(place)
        try:
            keks = load_key_source(config.key_source, credentials_directory=credentials_directory())
            with store.reading() as connection:
                load_keyring(connection, keks, random=os.urandom)
                check_role(connection, config.role)
        finally:
            store.close()
    except MfaError as err:
        yield Finding(Weight.PROBLEM, "store", str(err), err.cure)
        return
    path = place.file
    mode = 0 if path is None else stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield Finding(Weight.WARNING, "store", f"{path} has mode {mode:04o}: others can read it", f"chmod 0600 {path}")
    else:
        yield Finding(Weight.GOOD, "store", str(place))
    free = shutil.disk_usage(config.state_dir).free
    if free < ROOM_BYTES:
        yield Finding(
            Weight.WARNING, "disk", f"{free // 2**20} MiB are free for the store", "a full disk refuses every login: make room"
        )


def check_clock() -> Iterator[Finding]:
    """Is the time set by somebody who knows it?"""
    if time.time() < BEGINNING_OF_TIME:
        yield Finding(Weight.PROBLEM, "clock", "the clock was never set", "set it: `timedatectl set-ntp true`")
        return
    answer = output_of("timedatectl", "show", "--property=NTPSynchronized", "--value")
    if answer is None:
        yield Finding(Weight.UNKNOWN, "clock", "nobody here says whether the clock is synchronised", "look at chronyc or ntpq")
    elif answer.strip() == "yes":
        yield Finding(Weight.GOOD, "clock", "synchronised")
    else:
        yield Finding(
            Weight.WARNING, "clock", "the clock is not synchronised: codes are about to fail", "`timedatectl set-ntp true`"
        )


def check_sockets(config: Config) -> Iterator[Finding]:
    """Does mfad listen where pam_mfa.so will look, and are the sockets as private as they must be?"""
    door = config.doors.pam
    if door is None:
        return
    for name, wanted in (("priv.sock", 0o600), ("user.sock", 0o666)):
        path = door.socket_dir / name
        try:
            found = path.lstat()
        except OSError:
            yield Finding(Weight.PROBLEM, "socket", f"{path} is not there: mfad is not running", "`systemctl start mfad`")
            continue
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISSOCK(found.st_mode):
            yield Finding(Weight.PROBLEM, "socket", f"{path} is no socket", "remove it and restart mfad")
        elif mode & ~wanted & 0o777:
            yield Finding(Weight.PROBLEM, "socket", f"{path} has mode {mode:04o}: too open", f"restart mfad ({wanted:04o})")
        elif not answers(path):
            yield Finding(Weight.PROBLEM, "socket", f"nobody answers at {path}", "`systemctl restart mfad`")
        else:
            yield Finding(Weight.GOOD, "socket", str(path))
    for parent in (door.socket_dir, *door.socket_dir.parents):
        with _unless_gone():
            if parent.stat().st_mode & stat.S_IWOTH and not parent.stat().st_mode & stat.S_ISVTX:
                yield Finding(
                    Weight.PROBLEM, "socket", f"everybody may write to {parent} and replace the sockets", f"chmod o-w {parent}"
                )


@contextmanager
def _unless_gone() -> Iterator[None]:
    try:
        yield
    except OSError:
        return


def answers(path: Path) -> bool:
    """Does somebody accept connections there? A socket without a daemon stays behind after ``kill -9``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def output_of(program: str, *arguments: str) -> str | None:
    """What a program of the system prints, or None when it is not there or fails."""
    found = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603  a fixed program of the system, no shell, no text from outside
            [found, *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _complaint(program: str, *arguments: str) -> str:
    """The last line that a failing program of the system writes to stderr."""
    found = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        return ""
    try:
        done = subprocess.run(  # noqa: S603  as above
            [found, *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if done.returncode != 0 and lines else ""


def sshd_settings() -> dict[str, str] | str:
    """What ``sshd -T`` says; or what it complains of, empty when it is not there or may not look."""
    text = output_of("sshd", "-T")
    if text is None:
        return _complaint("sshd", "-t") if os.geteuid() == 0 else ""
    # The first of several lines with one key counts: sshd_config(5).
    settings: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        settings.setdefault(key.lower(), value)
    return settings
