"""How does a test get Debian's FreeRADIUS with mfad's module in it, installed by the commands of docs/freeradius.md?

The configuration is a copy of /etc/freeradius/3.0 with other directories, ports and clients; the module, the sites, the policy
and everything else are as an administrator would have them, and FreeRADIUS runs as its own user.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.end_to_end.programs import PATIENCE_S, REPOSITORY, clean_environment, run, start, stop, wait_until
from tests.end_to_end.radius_certificates import Authority
from tests.end_to_end.radius_packets import Answer, Nas
from tests.end_to_end.radius_programs import free_port

STOCK = Path("/etc/freeradius/3.0")
PROGRAMS = ("freeradius", "radclient", "/usr/lib/freeradius/rlm_python3.so", str(STOCK / "radiusd.conf"))
"""For `must_have`."""
GUIDE = REPOSITORY / "docs" / "freeradius.md"
SECRET = "a secret of the test, long enough"
NAME = "radius.example.org"
_POLL = {"x86_64": "7", "aarch64": "73"}[os.uname().machine]
"""The number of poll(2), or of the ppoll(2) that stands for it."""
_BLOCK = re.compile(r"<!-- tried: (\w+) -->\n```sh\n(.*?)```", re.DOTALL)


@contextmanager
def passable_directory() -> Iterator[Path]:
    """A directory that FreeRADIUS's own user can reach; those of pytest are for their owner alone."""
    with tempfile.TemporaryDirectory(prefix="mfad-freeradius-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def commands(name: str) -> str:
    """What docs/freeradius.md tells an administrator to type."""
    blocks = dict(_BLOCK.findall(GUIDE.read_text()))
    return str(blocks[name])


@dataclass(frozen=True, slots=True)
class Ports:
    """Where mfad listens on 127.0.0.1 for a FreeRADIUS that hands requests on to it."""

    auth: int
    acct: int


class Site:
    """A FreeRADIUS in ``directory`` that asks the mfad behind ``socket``; with ``ports``, it hands on to them what it can.

    Their shared secret is then made by the commands of the guide, in :attr:`secret_file`. ``changes`` are replaced in the
    installed files: (file below the configuration, what stands there, what shall).
    """

    def __init__(
        self,
        directory: Path,
        socket: Path,
        *,
        ports: Ports | None = None,
        changes: tuple[tuple[str, str, str], ...] = (),
        clients: str = "",
    ) -> None:
        directory.mkdir(mode=0o755)
        self.directory = directory
        self.raddb = directory / "raddb"
        self.log_path = directory / "log"
        self.ports = {"auth": free_port(), "acct": free_port()}
        self.authority = Authority(directory / "ca")
        self._program: subprocess.Popen[bytes] | None = None
        self._etc = directory / "etc-mfad"
        self._copy()
        self._install("plugin" if ports is None else "proxy")
        self._change("mods-available/mfad", "/run/mfad/radius/radius.sock", str(socket))
        site = "sites-available/mfad" if ports is None else "sites-available/mfad-proxy"
        for usual, port in (("1812", self.ports["auth"]), ("1813", self.ports["acct"])):
            self._change(site, f"ipaddr = *\n\t\tport = {usual}", f"ipaddr = 127.0.0.1\n\t\tport = {port}")
        if ports is not None:
            for usual, port in (("18120", ports.auth), ("18120", ports.auth), ("18130", ports.acct)):
                self._change(site, f"\tport = {usual}\n", f"\tport = {port}\n")
        for name, before, after in changes:
            self._change(name, before, after)
        (self.raddb / "clients.conf").write_text(
            f'client vpn1 {{\n\tipaddr = 127.0.0.1\n\tsecret = "{SECRET}"\n\trequire_message_authenticator = no\n}}\n{clients}'
        )
        self._give_away()

    def _copy(self) -> None:
        shutil.copytree(STOCK, self.raddb, symlinks=True)
        places = {
            "raddbdir": self.raddb,
            "logdir": self.directory / "logs",
            "run_dir": self.directory / "run",
            "db_dir": self.directory,
        }
        text = (self.raddb / "radiusd.conf").read_text()
        for key, place in places.items():
            text, times = re.subn(rf"^{key} = .*$", f"{key} = {place}", text, flags=re.MULTILINE)
            assert times == 1, key
        # a refusal waits a second: not in tests
        text, times = re.subn(r"^\treject_delay = 1$", "\treject_delay = 0", text, flags=re.MULTILINE)
        assert times == 1
        (self.raddb / "radiusd.conf").write_text(text)
        (self.directory / "logs").mkdir()
        (self.directory / "run").mkdir()

    @property
    def secret_file(self) -> Path:
        """What mfad and FreeRADIUS share, made by the guide's commands."""
        return self._etc / "radius" / "freeradius.secret"

    def _install(self, way: str) -> None:
        certificate = self.authority.issue(NAME, server=True)
        here = f"{sys.executable} -c 'import radius_plugin.freeradius as here; print(*here.__path__)'"
        script = (commands("install") + commands("certificate") + commands(way)).replace(str(STOCK), str(self.raddb))
        script, times = re.subn(r"/usr/lib/mfad/bin/python -c '.*?'", here, script)
        assert times == 1
        script = script.replace("/root/radius.pem", str(certificate.certificate)).replace(
            "/root/radius.key", str(certificate.key)
        )
        script = script.replace("/etc/mfad", str(self._etc))
        run(["sh", "-euc", script])

    def _change(self, name: str, before: str, after: str) -> None:
        path = self.raddb / name
        text = path.read_text()
        assert before in text, f"{before!r} in {name}"
        path.write_text(text.replace(before, after, 1))

    def _give_away(self) -> None:
        """FreeRADIUS's own user owns what it has to read and to write, as in /etc/freeradius."""
        for place in (self.raddb, self.directory / "logs", self.directory / "run"):
            run(["chown", "-R", "-h", "freerad:freerad", place])
        self.directory.chmod(stat.S_IMODE(self.directory.stat().st_mode) | 0o055)

    def check(self) -> str:
        """What the guide's check says."""
        return run(["sh", "-euc", commands("check").replace("freeradius -C", f"freeradius -C -d {self.raddb} -l stdout")])

    def start(self) -> Site:
        before = self.log().count("Ready to process requests")
        with self.log_path.open("ab") as log:
            self._program = start(["freeradius", "-f", "-l", "stdout", "-d", self.raddb], stdout=log, stderr=log)
        wait_until(
            lambda: self.log().count("Ready to process requests") > before or not self.running,
            f"FreeRADIUS is ready:\n{self.log()}",
        )
        assert self.running, f"FreeRADIUS ended:\n{self.log()}"
        return self

    @property
    def running(self) -> bool:
        return self._program is not None and self._program.poll() is None

    @property
    def user(self) -> str:
        """Whom it runs as."""
        assert self._program is not None
        status = Path(f"/proc/{self._program.pid}/status").read_text()
        return run(["id", "-un", next(line.split()[2] for line in status.splitlines() if line.startswith("Uid:"))]).strip()

    @property
    def waits_for_mfad(self) -> bool:
        """Whether one of its threads waits for a socket with a time limit, which only the module does: poll(2)."""
        assert self._program is not None
        calls = [path.read_text().split()[0] for path in Path(f"/proc/{self._program.pid}/task").glob("*/syscall")]
        return _POLL in calls

    def stop(self) -> None:
        if self._program is not None:
            stop(self._program)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def nas(self, port: str = "auth") -> Nas:
        """A client that sends packets octet by octet."""
        return Nas(("127.0.0.1", self.ports[port]), SECRET.encode())

    def eapol(
        self,
        tunnel: Mapping[str, str],
        identity: str | bytes,
        password: str,
        *,
        trust: Path | None = None,
        patience_s: int = 8,
    ) -> Wpa:
        """Log in as a Wi-Fi client does, with wpa_supplicant's own code, which believes our CA (or ``trust``) and no other."""
        name = identity.hex() if isinstance(identity, bytes) else f'"{identity}"'
        words = {
            "ssid": '"test"',
            "key_mgmt": "WPA-EAP",
            **tunnel,
            "identity": name,
            "anonymous_identity": '"anonymous"',
            "password": f'"{password}"',
            "ca_cert": f'"{trust or self.authority.path}"',
            "domain_match": f'"{NAME}"',
        }
        path = self.directory / f"eapol-{os.urandom(4).hex()}.conf"
        path.touch(0o600)
        path.write_text("network={\n" + "".join(f"\t{key}={value}\n" for key, value in words.items()) + "}\n")
        server = ["-a", "127.0.0.1", "-p", str(self.ports["auth"]), "-s", SECRET]
        done = subprocess.run(
            ["eapol_test", "-c", path, *server, "-r", "0", "-t", str(patience_s)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=60,
            env=clean_environment(),
        )
        return Wpa(done)


TTLS_PAP = {"eap": "TTLS", "phase2": '"auth=PAP"'}
TTLS_GTC = {"eap": "TTLS", "phase2": '"autheap=GTC"'}
PEAP_GTC = {"eap": "PEAP", "phase2": '"auth=GTC"'}


def ask_again(nas: Nas, request: bytes) -> Answer:
    """Send it until it is answered, as clients do: for a moment after its reply FreeRADIUS takes a request for unfinished."""
    for _ in range(int(PATIENCE_S)):
        nas.send(request)
        with contextlib.suppress(AssertionError):
            return nas.receive(request, patience_s=1.0)
    raise AssertionError("no answer to a retransmitted request")


class Wpa:
    """How eapol_test ended, and what it showed."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.screen = done.stdout + done.stderr
        self.success = done.returncode == 0 and done.stdout.rstrip().endswith("SUCCESS")
        self.codes = re.findall(r"RADIUS message: code=\d+ \((\S+)\)", self.screen)

    @property
    def rejected(self) -> bool:
        """Whether an answer came, and it was no."""
        return not self.success and "Access-Reject" in self.codes

    @property
    def accept(self) -> str:
        """What stands in the Access-Accept."""
        return self.screen.rpartition("(Access-Accept)")[2]
