"""How does a test get a FreeRADIUS of its own: a private configuration, users, clients, modules, on loopback?

Debian's 3.2.1 does not sign its replies; a site that says ``update reply { &Message-Authenticator := 0x00 }`` does.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from tests.end_to_end.programs import start, stop, wait_until

PROGRAMS = ("freeradius",)
"""For `must_have`."""
SECRET = "a secret of sufficient length"

_SIGN = "update reply { &Message-Authenticator := 0x00 }"
_MAIN = """
prefix = /usr
libdir = /usr/lib/freeradius
name = {name}
confdir = {directory}
logdir = {directory}
run_dir = {directory}
db_dir = {directory}
hostname_lookups = no
max_request_time = 30
cleanup_delay = {cleanup_delay_s}
log {{
    destination = stdout
    auth = yes
}}
security {{
    max_attributes = 200
    reject_delay = 0
    status_server = yes
}}
proxy_requests = {proxies}
thread pool {{
    start_servers = 2
    max_servers = 8
    min_spare_servers = 1
    max_spare_servers = 4
    max_requests_per_server = 0
}}
modules {{
    pap {{
    }}
    always reject {{
        rcode = reject
    }}
    always ok {{
        rcode = ok
    }}
    files {{
        usersfile = {directory}/users
    }}
    {modules}
}}
{clients}
{site}
{more}
"""
_SITE = """
server default {{
    listen {{
        type = auth
        ipaddr = 127.0.0.1
        port = {port}
    }}
    authorize {{
        Autz-Type Status-Server {{
            {sign}
            ok
        }}
        files
        pap
    }}
    authenticate {{
        Auth-Type PAP {{
            pap
        }}
    }}
    post-auth {{
        {sign}
        Post-Auth-Type REJECT {{
            {sign}
        }}
    }}
}}
"""


class FreeRadius:
    """A server in ``directory``.

    ``users`` are names and passwords; ``users_text`` is appended to the users file as it is. ``clients`` are addresses or
    networks and secrets. ``modules`` stands inside the ``modules`` section, ``more`` at the end. ``site`` replaces the one that
    answers PAP (signed with Message-Authenticator where ``signs``); ``{port}`` in it is :attr:`port`, other braces are kept.
    """

    def __init__(
        self,
        directory: Path,
        users: Mapping[str, str] | None = None,
        *,
        users_text: str = "",
        clients: Mapping[str, str] | None = None,
        modules: str = "",
        site: str | None = None,
        more: str = "",
        signs: bool = True,
        proxies: bool = False,
        cleanup_delay_s: int = 5,
        port: int | None = None,
        name: str = "upstream",
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.name = name
        self.port = _free_port() if port is None else port
        self.log_path = directory / "log"
        self._program: subprocess.Popen[bytes] | None = None
        lines = [f'{user} Cleartext-Password := "{_quoted(password)}"' for user, password in (users or {}).items()]
        (directory / "users").write_text("\n".join([*lines, users_text]) + "\n")
        (directory / "dictionary").touch()
        sections = [
            f'client test{index} {{\n ipaddr = {address}\n secret = "{_quoted(secret)}"\n}}'
            for index, (address, secret) in enumerate((clients or {"127.0.0.1": SECRET}).items())
        ]
        standard = _SITE.format(port=self.port, sign=_SIGN if signs else "")
        text = _MAIN.format(
            name=name,
            directory=directory,
            cleanup_delay_s=cleanup_delay_s,
            proxies="yes" if proxies else "no",
            modules=modules,
            clients="\n".join(sections),
            site=standard if site is None else site.replace("{port}", str(self.port)),
            more=more,
        )
        configuration = directory / f"{name}.conf"
        configuration.write_text(text)
        configuration.chmod(0o600)

    @property
    def address(self) -> str:
        """As clients name it."""
        return f"127.0.0.1:{self.port}"

    def start(self, *words: str, prefix: Sequence[str] = (), ready: str = "Ready to process requests") -> FreeRadius:
        """Run it until it says that it is ready. ``words`` are more arguments, ``-X`` for instance."""
        before = self.log().count(ready)
        with self.log_path.open("ab") as log:
            self._program = start(
                [*prefix, "freeradius", "-f", "-l", "stdout", "-d", self.directory, "-n", self.name, *words],
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: self.log().count(ready) > before or not self.running, f"FreeRADIUS is ready:\n{self.log()}")
        assert self.running, f"FreeRADIUS ended:\n{self.log()}"
        return self

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._program is not None
        return self._program.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._program is not None and self._program.poll() is None

    def stop(self) -> None:
        """End it."""
        if self._program is not None:
            stop(self._program)

    def log(self) -> str:
        """What it said: with ``auth = yes`` one line a decision."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _free_port() -> int:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
