"""How does a test get an Apache with mod_authnz_ldap of its own, and ask it for a page?"""

from __future__ import annotations

import base64
import http.client
import os
import shutil
import socket
import subprocess
from pathlib import Path

from tests.end_to_end.programs import must_have, start, stop, wait_until
from tests.end_to_end.radius_programs import free_port

MODULES = Path("/usr/lib/apache2/modules")
PROGRAM = "/usr/sbin/apache2"
_LOADED = ("mpm_event", "authn_core", "authz_core", "authz_user", "auth_basic", "ldap", "authnz_ldap", "dir", "mime")
_CONFIGURATION = """
ServerRoot {directory}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {directory}/pid
Mutex file:{directory} default
ErrorLog {directory}/error.log
LogLevel warn
DocumentRoot {directory}/pages
StartServers 1
ThreadsPerChild 8
MaxRequestWorkers 8
ServerLimit 1
TypesConfig /dev/null
{modules}
User www-data
Group www-data
<Directory {directory}/pages>
    AuthType Basic
    AuthName directory
    AuthBasicProvider ldap
    AuthLDAPURL "{url}/{base}?uid?sub"
    AuthLDAPBindDN "{service}"
    AuthLDAPBindPassword "{password}"
    Require valid-user
</Directory>
"""


class Apache:
    """A server on loopback, started and stopped by its process; close it."""

    def __init__(self, directory: Path, url: str, *, base: str, service: str, password: str) -> None:
        must_have(PROGRAM, str(MODULES / "mod_authnz_ldap.so"))
        self.port = free_port(kind=socket.SOCK_STREAM)
        self._directory = directory
        pages = directory / "pages"
        pages.mkdir(parents=True)
        (pages / "index.html").write_text("the page\n")
        modules = "\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in _LOADED)
        configuration = directory / "apache.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                directory=directory, port=self.port, modules=modules, url=url, base=base, service=service, password=password
            )
        )
        for path in (directory, pages):
            path.chmod(0o755)
        shutil.chown(directory, "www-data")
        self._program: subprocess.Popen[bytes] = start([PROGRAM, "-X", "-f", os.fspath(configuration)])
        wait_until(lambda: self._listens() or self._program.poll() is not None, "Apache listens")
        assert self._program.poll() is None, self.log()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def get(self, user: str, typed: str) -> tuple[int, str]:
        """Status and text of the page, with HTTP Basic."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            word = base64.b64encode(f"{user}:{typed}".encode()).decode()
            connection.request("GET", "/index.html", headers={"Authorization": f"Basic {word}"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def log(self) -> str:
        path = self._directory / "error.log"
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        stop(self._program)
