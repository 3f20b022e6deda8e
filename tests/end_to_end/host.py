"""How does a test get a host of its own: /etc/pam.d, users, /run, syslog, and none of it visible outside?

A :class:`Host` is a process that holds a mount namespace (``unshare -m``, private propagation). Over the real ones it binds
/etc/pam.d (the shipped files of config/pam.d in it), passwd, shadow, group and sudoers, /home, the PAM module directory (with
pam_mfa.so in it) and fresh /run, /var/log and /var/lib/sudo; /dev becomes one with a /dev/log that the holder reads, so that
tests see what a syslog would. :meth:`Host.inside` puts a command into the namespace; it keeps its pid, for signals.

So the shipped PAM files run as they are: same module name, same /run/mfad.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from tests.end_to_end.programs import REPOSITORY, run, start, stop, wait_until
from tests.pam_mfa.pam_harness import build

PAM_FILES = REPOSITORY / "config" / "pam.d"
SSHD_FILES = REPOSITORY / "config" / "sshd_config.d"
PASSWORD = "correct horse battery"
FIRST_UID = 54_000
SSHD = "/usr/sbin/sshd"
DEBIAN = ("KbdInteractiveAuthentication no", "UsePAM yes", "PrintMotd no")
"""What Debian 12 has in sshd_config behind its Include."""

_HOLDER = Path(__file__).with_name("holder.py")


@cache
def password_hash() -> str:
    """SHA-512 crypt of PASSWORD: one for all users, made once."""
    return run(["openssl", "passwd", "-6", "-salt", "endtoend", PASSWORD]).strip()


@cache
def module_directory() -> Path:
    """Where libpam of this machine looks for modules."""
    for pattern in ("lib/*/security", "usr/lib/*/security", "lib64/security", "lib/security", "usr/lib/security"):
        for found in Path("/").glob(pattern):
            if (found / "pam_unix.so").exists():
                return found.resolve()
    raise AssertionError("no directory with pam_unix.so")


class Host:
    """One private host. ``pam`` names the shipped file (or the text itself) that each PAM service has; ``network`` is the
    network namespace that it is in (namespaces.py), if not that of everybody."""

    def __init__(
        self,
        directory: Path,
        socket_dir: Path,
        *,
        users: Sequence[str],
        pam: Mapping[str, str],
        tmpfs: Mapping[Path, str] | None = None,
        sudoers: str = "",
        network: Path | None = None,
    ) -> None:
        self.directory = directory
        self._network = network
        self.socket_dir = socket_dir
        self.users = tuple(users)
        self._sshds: list[subprocess.Popen[bytes]] = []
        directory.mkdir(mode=0o755)
        directory.chmod(0o755)
        socket_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._write_pam(pam)
        self._write_users()
        defaults = "Defaults lecture=never, timestamp_timeout=0, !mail_badpass\nroot ALL=(ALL:ALL) ALL\n"
        self._write("sudoers", f"{defaults}{sudoers}\n")
        (directory / "sudoers").chmod(0o440)
        self.private_key = directory / "id_ed25519"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.private_key])
        self._make_homes()
        self._write_ssh()
        mounts = self._mounts(tmpfs or {})
        with (directory / "holder.log").open("wb") as errors:
            self._holder = start(
                ["unshare", "--mount", "--propagation", "private", "sh", "-euc", mounts + '\nexec "$@"', "sh",
                 sys.executable, "-I", "-S", _HOLDER, directory / "syslog"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            stop(self._holder)
            raise AssertionError(f"no private host: {(directory / 'holder.log').read_text()}")

    # what lies under the mounts

    def _write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        return path

    def _write_pam(self, services: Mapping[str, str]) -> None:
        directory = self.directory / "pam.d"
        shutil.copytree("/etc/pam.d", directory)
        for path in directory.iterdir():
            path.write_text(_without_delay(path.read_text()))
        for service, text in services.items():
            self.set_pam(service, text)

    def set_pam(self, service: str, text: str) -> None:
        """Give ``service`` a file of config/pam.d by name, or these lines."""
        if "\n" not in text:
            text = (PAM_FILES / text).read_text()
        (self.directory / "pam.d" / service).write_text(_without_delay(text))

    def _write_users(self) -> None:
        numbered = list(enumerate(self.users, FIRST_UID))
        for name, lines, mode in (
            ("passwd", [f"{user}:x:{uid}:{uid}::/home/{user}:/bin/sh" for uid, user in numbered], 0o644),
            ("group", [f"{user}:x:{uid}:" for uid, user in numbered], 0o644),
            ("shadow", [f"{user}:{password_hash()}:19700:0:99999:7:::" for _, user in numbered], 0o640),
        ):
            # root needs a password too: forbidden logins must be refused for the right reason
            password = password_hash() if name == "shadow" else "x"
            text = re.sub(r"(?m)^root:[^:]*:", f"root:{password}:", Path("/etc", name).read_text())
            self._write(name, text + "\n".join(lines) + "\n").chmod(mode)
        shutil.chown(self.directory / "shadow", group="shadow")

    def _make_homes(self) -> None:
        key = self.private_key.with_suffix(".pub").read_text()
        homes = self.directory / "home"
        homes.mkdir()
        for uid, user in enumerate(self.users, FIRST_UID):
            home = homes / user
            (home / ".ssh").mkdir(parents=True)
            (home / ".ssh" / "authorized_keys").write_text(key)
            for path in (home, home / ".ssh", home / ".ssh" / "authorized_keys"):
                os.chown(path, uid, uid)

    def _write_ssh(self) -> None:
        """Debian's own /etc/ssh/sshd_config, for `sshd -T`."""
        (self.directory / "ssh" / "sshd_config.d").mkdir(parents=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.directory / "ssh" / "ssh_host_ed25519_key"])
        self._write("ssh/sshd_config", "\n".join(["Include /etc/ssh/sshd_config.d/*.conf", *DEBIAN, ""]))

    def install_drop_in(self, recipe: str) -> None:
        """Do as the shipped file says: it becomes /etc/ssh/sshd_config.d/mfad.conf."""
        shutil.copy(SSHD_FILES / recipe, self.directory / "ssh" / "sshd_config.d" / "mfad.conf")

    def _mounts(self, tmpfs: Mapping[Path, str]) -> str:
        modules = self.directory / "security"
        shutil.copytree(module_directory(), modules)
        shutil.copy(build() / "pam_mfa.so", modules)
        here = self.directory
        lines = [
            *(f"mount --bind {here}/{name} /etc/{name}" for name in ("pam.d", "passwd", "shadow", "group", "sudoers", "ssh")),
            f"mount --bind {modules} {module_directory()}",
            f"mount --bind {here}/home /home",
            "mount -t tmpfs -o mode=0755 run /run",
            "mkdir -p /run/sshd /run/lock /run/mfad",
            f"mount --bind {self.socket_dir} /run/mfad",
            "mount -t tmpfs -o mode=0755 log /var/log",
            "if [ -d /var/lib/sudo ]; then mount -t tmpfs -o mode=0700 sudo /var/lib/sudo; fi",
            *(f"mkdir -p {path} && mount -t tmpfs -o {options} state {path}" for path, options in tmpfs.items()),
            f"mkdir {here}/dev",
            f"mount -t tmpfs -o mode=0755 dev {here}/dev",
            "for name in null zero full random urandom tty ptmx; do",
            f"  touch {here}/dev/$name; mount --bind /dev/$name {here}/dev/$name",
            "done",
            f"mkdir {here}/dev/pts {here}/dev/shm",
            f"mount --rbind /dev/pts {here}/dev/pts",
            f"mount -t tmpfs shm {here}/dev/shm",
            f"ln -s /proc/self/fd {here}/dev/fd",
            f"mount --rbind {here}/dev /dev",
        ]
        return "\n".join(lines)

    # life

    def inside(self, *command: str | Path) -> list[str]:
        """``command``, to be run in this host."""
        mounts = f"--mount=/proc/{self._holder.pid}/ns/mnt"
        return ["nsenter", mounts, *self._net(), "--", *(os.fspath(word) for word in command)]

    def beside(self, *command: str | Path) -> list[str]:
        """``command``, to be run where this host's 127.0.0.1 is, with the files of everybody: a client's program."""
        words = [os.fspath(word) for word in command]
        return ["nsenter", *self._net(), "--", *words] if self._network is not None else words

    def _net(self) -> list[str]:
        return [] if self._network is None else [f"--net={self._network}"]

    def as_user(self, user: str, *command: str | Path) -> list[str]:
        """``command``, to be run in this host as ``user``, with nothing of root's left."""
        uid = str(self.uid(user))
        return self.inside("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *command)

    def uid(self, user: str) -> int:
        return FIRST_UID + self.users.index(user)

    def syslog(self) -> str:
        """All that programs of this host have said to syslog."""
        return (self.directory / "syslog").read_text(errors="replace")

    def wait_for_log(self, text: str) -> None:
        """Until syslog has ``text``."""
        wait_until(lambda: text in self.syslog(), f"{text!r} in syslog:\n{self.syslog()}")

    def start_sshd(self, recipe: str, *lines: str) -> Sshd:
        """Run an sshd with the shipped drop-in ``recipe`` ("" for none), before Debian's own settings; ``lines`` come first."""
        number = len(self._sshds)
        folder = self.directory / f"sshd{number}"
        folder.mkdir()
        key = folder / "host_key"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
        port = _free_port()
        log = folder / "log"
        config = folder / "sshd_config"
        config.write_text(
            "\n".join(
                [
                    f"ListenAddress 127.0.0.1:{port}",
                    f"HostKey {key}",
                    f"PidFile {folder / 'pid'}",
                    "MaxStartups 200",
                    "UseDNS no",
                    *lines,
                    *([f"Include {SSHD_FILES / recipe}"] if recipe else []),
                    *DEBIAN,
                    "",
                ]
            )
        )
        program = start(self.inside(SSHD, "-D", "-f", config, "-E", log))
        self._sshds.append(program)

        def listens() -> bool:
            return log.exists() and "Server listening" in log.read_text()

        wait_until(lambda: listens() or program.poll() is not None, "sshd listens")
        assert program.poll() is None, f"sshd ended: {log.read_text()}"
        return Sshd(self, port, log)

    def close(self) -> None:
        """End all of it: the sshds, then the holder, and with it the mounts."""
        for sshd in self._sshds:
            stop(sshd)
        self._sshds.clear()
        stop(self._holder)


class Sshd:
    """A running sshd of a host."""

    def __init__(self, host: Host, port: int, log: Path) -> None:
        self.host = host
        self.port = port
        self._log = log

    def log(self) -> str:
        return self._log.read_text(errors="replace")


def _without_delay(text: str) -> str:
    """Nobody sleeps for 2 s after a wrong password: right on a host, long in a test."""
    text = re.sub(r"(?m)^(auth\s.*pam_unix\.so.*)$", r"\1 nodelay", text)
    return re.sub(r"(?m)^auth\s.*pam_faildelay\.so.*$", "", text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def private_host(
    directory: Path,
    socket_dir: Path,
    *,
    users: Sequence[str],
    pam: Mapping[str, str],
    tmpfs: Mapping[Path, str] | None = None,
    sudoers: str = "",
    network: Path | None = None,
) -> Iterator[Host]:
    """A host that is gone afterwards."""
    host = Host(directory, socket_dir, users=users, pam=pam, tmpfs=tmpfs, sudoers=sudoers, network=network)
    try:
        yield host
    finally:
        host.close()
