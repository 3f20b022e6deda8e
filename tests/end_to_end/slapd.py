"""How does a test get a directory: OpenLDAP's slapd on loopback, with people, a service account and TLS?"""

from __future__ import annotations

import base64
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from tests.end_to_end.programs import run, start, stop, wait_until
from tests.end_to_end.radius_certificates import Certificate

BASE = "dc=example,dc=org"
PEOPLE = f"ou=people,{BASE}"
SERVICE_DN = f"cn=mfad,{BASE}"
SERVICE_PASSWORD = "the service account's own"
MODULES = "/usr/lib/ldap"
SCHEMAS = "/etc/ldap/schema"
PROGRAMS = ("slapd", "slapadd")
"""For `must_have`."""

_CONFIGURATION = """
include {schemas}/core.schema
include {schemas}/cosine.schema
include {schemas}/nis.schema
include {schemas}/inetorgperson.schema
modulepath {modules}
moduleload back_mdb
pidfile {directory}/pid
argsfile {directory}/args
{tls}
{more}
database mdb
suffix "{base}"
directory {directory}/database
index uid eq
{access}
{overlays}
"""
_ACCESS = f"""
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{SERVICE_DN}" read by self read by * none
"""
_SERVICE = """dn: {dn}
objectClass: organizationalRole
objectClass: simpleSecurityObject
userPassword:: {password}
"""


class Slapd:
    """A directory in ``directory``. ``people`` are uid and password; ``more`` goes into slapd.conf before the database.

    Everybody is ``uid=NAME,ou=people,dc=example,dc=org``. Nobody reads it but :data:`SERVICE_DN`, unless ``access`` says
    otherwise; ``overlays`` are lines behind it.
    """

    def __init__(
        self,
        directory: Path,
        people: Mapping[str, str | bytes],
        *,
        certificate: Certificate | None = None,
        ca: Path | None = None,
        ldif: str = "",
        more: str = "",
        access: str = _ACCESS,
        overlays: str = "",
    ) -> None:
        self.directory = directory
        self.port, self.tls_port = _free_port(), _free_port()
        self.socket = directory / "ldapi"
        self.log_path = directory / "log"
        self._program: subprocess.Popen[bytes] | None = None
        (directory / "database").mkdir(parents=True)
        tls = ""
        if certificate is not None:
            tls = f"TLSCertificateFile {certificate.certificate}\nTLSCertificateKeyFile {certificate.key}\n"
            tls += f"TLSCACertificateFile {ca}\n" if ca is not None else ""
        self._tls = certificate is not None
        self._configuration = directory / "slapd.conf"
        values = {"schemas": SCHEMAS, "modules": MODULES, "directory": directory, "base": BASE}
        self._configuration.write_text(_CONFIGURATION.format(**values, tls=tls, more=more, access=access, overlays=overlays))
        entries = [
            f"dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\no: example\n",
            f"dn: {PEOPLE}\nobjectClass: organizationalUnit\n",
            _SERVICE.format(dn=SERVICE_DN, password=_base64(SERVICE_PASSWORD)),
            *(person(name, password) for name, password in people.items()),
            ldif,
        ]
        loaded = directory / "people.ldif"
        loaded.write_text("\n".join(entries))
        run(["slapadd", "-q", "-f", self._configuration, "-l", loaded])

    @property
    def url(self) -> str:
        """Without TLS, or with StartTLS."""
        return f"ldap://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        """Inside TLS. By ``localhost`` (:attr:`named_tls_url`) for certificates that carry the name."""
        return f"ldaps://127.0.0.1:{self.tls_port}"

    @property
    def named_tls_url(self) -> str:
        """Inside TLS, by name."""
        return f"ldaps://localhost:{self.tls_port}"

    @property
    def ipc_url(self) -> str:
        """Over its Unix socket."""
        return f"ldapi://{str(self.socket).replace('/', '%2F')}"

    def start(self) -> Slapd:
        """Run it until it answers."""
        urls = [self.url, self.ipc_url, *([self.tls_url] if self._tls else [])]
        with self.log_path.open("ab") as log:
            self._program = start(
                ["slapd", "-d", "stats", "-f", self._configuration, "-h", " ".join(f"{url}/" for url in urls)], stderr=log
            )
        wait_until(lambda: self._answers() or not self.running, "slapd answers")
        assert self.running, self.log()
        return self

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._program is not None and self._program.poll() is None

    def freeze(self) -> None:
        """From now on connections are taken (by the kernel), and nothing is answered."""
        assert self._program is not None
        self._program.send_signal(signal.SIGSTOP)
        threads = Path(f"/proc/{self._program.pid}/task")
        # A thread that runs on another processor stops when that hears of it.
        wait_until(lambda: all(_state(thread) == "T" for thread in threads.iterdir()), "every thread has stopped")

    def thaw(self) -> None:
        """Answer again, also what came in between."""
        assert self._program is not None
        self._program.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it, frozen or not."""
        if self._program is not None and self.running:
            self.thaw()
            stop(self._program)

    def log(self) -> str:
        """What it said: one line an operation (``BIND dn="..."``, ``SRCH base="..."``, ``RESULT ... err=49``)."""
        return self.log_path.read_text(errors="replace")

    def asked(self, operation: str = "BIND dn=") -> int:
        """How many operations it has seen; ``BIND dn=`` also counts those that failed."""
        return sum(f" {operation}" in line and "mech=" not in line.partition(operation)[2] for line in self.log().splitlines())

    def _answers(self) -> bool:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def person(name: str, password: str | bytes, *, parent: str = PEOPLE, number: int = 1) -> str:
    """The LDIF of somebody. ``name`` must need no escaping in a DN."""
    return (
        f"dn: uid={name},{parent}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: {number}\n"
        f"userPassword:: {_base64(password)}\n"
    )


def _base64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def _free_port() -> int:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _state(thread: Path) -> str:
    """Its state as proc(5) has it; the name before it may hold anything."""
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]
