"""How does a test put radsecproxy between a RADIUS client and a server: UDP in front, TLS behind, or the reverse?

Every radsecproxy has a free port, a directory of its own, and is stopped by its process id.
"""

from __future__ import annotations

import socket
from pathlib import Path

from tests.end_to_end.radius_certificates import Authority, Certificate
from tests.end_to_end.radius_programs import Program, free_port

RADSECPROXY = "radsecproxy"
RADSEC_SECRET = "radsec"
"""What RFC 6614 section 2.3 fixes."""


class UdpToTls(Program):
    """Listens on UDP, and asks ``server`` over TLS with the certificate ``own``."""

    def __init__(
        self,
        directory: Path,
        server: tuple[str, int],
        authority: Authority,
        own: Certificate,
        *,
        secret: str,
        server_name: str,
        status_server: bool = True,
    ) -> None:
        directory.mkdir()
        self.port = free_port()
        host, port = server
        config = directory / "radsecproxy.conf"
        config.write_text(
            f"""
ListenUDP 127.0.0.1:{self.port}
tls default {{
    CACertificateFile {authority.path}
    CertificateFile {own.certificate}
    CertificateKeyFile {own.key}
}}
client nas {{
    host 127.0.0.0/8
    type udp
    secret {secret}
}}
server mfad {{
    host {host}
    port {port}
    type tls
    secret {RADSEC_SECRET}
    tls default
    CertificateNameCheck on
    MatchCertificateAttribute SubjectAltName:DNS:/^{server_name.replace(".", "[.]")}$/
    StatusServer {"on" if status_server else "off"}
    RetryCount 0
}}
realm * {{
    server mfad
    accountingServer mfad
}}
"""
        )
        super().__init__(
            [RADSECPROXY, "-f", "-d", "2", "-c", config],
            directory / "log",
            lambda: _bound(self.port, socket.SOCK_DGRAM),
            what="radsecproxy",
        )


class TlsToUdp(Program):
    """Listens on TLS, and asks ``server`` over UDP: the other half of a pair, to try :class:`UdpToTls` against."""

    def __init__(
        self, directory: Path, server: tuple[str, int], authority: Authority, own: Certificate, *, secret: str
    ) -> None:
        directory.mkdir()
        self.port = free_port(kind=socket.SOCK_STREAM)
        host, port = server
        config = directory / "radsecproxy.conf"
        config.write_text(
            f"""
ListenTLS 127.0.0.1:{self.port}
tls default {{
    CACertificateFile {authority.path}
    CertificateFile {own.certificate}
    CertificateKeyFile {own.key}
}}
client front {{
    host 127.0.0.0/8
    type tls
    secret {RADSEC_SECRET}
    CertificateNameCheck off
}}
server behind {{
    host {host}
    port {port}
    type udp
    secret {secret}
}}
realm * {{
    server behind
    accountingServer behind
}}
"""
        )
        super().__init__(
            [RADSECPROXY, "-f", "-d", "2", "-c", config],
            directory / "log",
            lambda: _bound(self.port, socket.SOCK_STREAM),
            what="radsecproxy",
        )


def _bound(port: int, kind: socket.SocketKind) -> bool:
    """Whether somebody has ``port`` of 127.0.0.1, as /proc/net tells: no packet is sent to find out."""
    table = Path("/proc/net/udp" if kind is socket.SOCK_DGRAM else "/proc/net/tcp").read_text()
    return f" 0100007F:{port:04X} " in table
