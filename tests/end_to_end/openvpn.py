"""How does a test dial into a real OpenVPN whose passwords a RADIUS server checks (openvpn-auth-radius)?

Two network namespaces without names, each held open by a process, and a pair of veths between them: the gateway, in which
mfad and the OpenVPN server run, and the laptop, in which the client does. Addresses, ports and tun devices are private to
them, and all of it is gone when the holders end.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pexpect

from tests.end_to_end.programs import PATIENCE_S, clean_environment, run, start, stop, wait_until
from tests.end_to_end.radius_certificates import Authority, Certificate
from tests.end_to_end.radius_programs import Program

OPENVPN = "openvpn"
PLUGIN = "/usr/lib/openvpn/radiusplugin.so"
GATEWAY, LAPTOP = "192.0.2.1", "192.0.2.2"
TUNNEL = "198.51.100.0 255.255.255.0"
AUTHENTICATION, ACCOUNTING = 1812, 1813
CHALLENGE = "Verification code"
CONNECTED = "Initialization Sequence Completed"
REFUSED = "AUTH_FAILED"
_TUN = Path("/dev/net/tun")


class Namespace:
    """A network of its own, with nothing but a loopback that is up."""

    def __init__(self) -> None:
        self._holder = start(
            ["unshare", "--net", "sh", "-euc", "ip link set lo up; echo ready; exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if self._holder.stdout.readline() != b"ready\n":
            said = self._holder.stderr.read().decode()
            stop(self._holder)
            raise AssertionError(f"no network namespace: {said}")

    @property
    def pid(self) -> int:
        return self._holder.pid

    def inside(self, *command: str | Path) -> list[str]:
        """``command``, to be run in this network; it keeps its process id."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *(os.fspath(word) for word in command)]

    def close(self) -> None:
        stop(self._holder)


@dataclass(frozen=True, slots=True)
class Networks:
    """Where a VPN server and its client are."""

    gateway: Namespace
    laptop: Namespace


@contextmanager
def two_networks() -> Iterator[Networks]:
    """A gateway and a laptop that reach one another, and nobody else."""
    gateway = Namespace()
    try:
        laptop = Namespace()
        try:
            run(gateway.inside("ip", "link", "add", "wan", "type", "veth", "peer", "name", "wan", "netns", str(laptop.pid)))
            for network, address in ((gateway, GATEWAY), (laptop, LAPTOP)):
                run(network.inside("ip", "address", "add", f"{address}/24", "dev", "wan"))
                run(network.inside("ip", "link", "set", "wan", "up"))
            yield Networks(gateway, laptop)
        finally:
            laptop.close()
    finally:
        gateway.close()


def _tun_options(directory: Path) -> list[str]:
    """Where the tun device is: a container may have the driver and no file for it."""
    if _TUN.exists():
        return ["dev tun"]
    node = directory / "tun"
    os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(10, 200))
    return ["dev tun", f"dev-node {node}"]


class VpnServer(Program):
    """OpenVPN with the plugin, asking 127.0.0.1 of ``network`` with ``secret``."""

    def __init__(
        self,
        directory: Path,
        network: Namespace,
        authority: Authority,
        own: Certificate,
        *,
        secret: str,
        wait_s: int = 3,
        retries: int = 1,
        options: Sequence[str] = (),
    ) -> None:
        directory.mkdir()
        for name in ("tmp", "clients"):
            (directory / name).mkdir()
        self.directory = directory
        plugin = directory / "radiusplugin.cnf"
        config = directory / "server.conf"
        plugin.touch(0o600)
        plugin.write_text(
            f"""NAS-Identifier=vpn-gateway
Service-Type=5
Framed-Protocol=1
NAS-Port-Type=5
NAS-IP-Address=127.0.0.1
OpenVPNConfig={config}
subnet=255.255.255.0
overwriteccfiles=true
useauthcontrolfile=true
server
{{
\tacctport={ACCOUNTING}
\tauthport={AUTHENTICATION}
\tname=127.0.0.1
\tretry={retries}
\twait={wait_s}
\tsharedsecret={secret}
}}
"""
        )
        lines = [
            f"local {GATEWAY}",
            "proto udp",
            *_tun_options(directory),
            "topology subnet",
            f"server {TUNNEL}",
            f"ca {authority.path}",
            f"cert {own.certificate}",
            f"key {own.key}",
            "dh none",
            "verify-client-cert none",
            "username-as-common-name",
            "auth-gen-token",
            "keepalive 10 60",
            f"status {directory / 'status'} 1",
            "status-version 1",
            f"client-config-dir {directory / 'clients'}",
            f"tmp-dir {directory / 'tmp'}",
            f"plugin {PLUGIN} {plugin}",
            "verb 3",
            *options,
        ]
        config.write_text("\n".join(lines) + "\n")
        log = directory / "log"
        super().__init__(
            network.inside(OPENVPN, "--config", config),
            log,
            lambda: log.exists() and CONNECTED in log.read_text(errors="replace"),
            what="the OpenVPN server",
        )


class VpnClient:
    """OpenVPN as a person starts it at a terminal. A context manager: the tunnel is down afterwards.

    ``static_challenge`` is whether the client was told to ask for a code beside the password (``static-challenge``).
    """

    def __init__(
        self, directory: Path, network: Namespace, authority: Authority, *, static_challenge: bool, options: Sequence[str] = ()
    ) -> None:
        directory.mkdir(exist_ok=True)
        config = directory / "client.conf"
        lines = [
            "client",
            *_tun_options(directory),
            "proto udp",
            f"remote {GATEWAY} 1194",
            "nobind",
            f"ca {authority.path}",
            "remote-cert-tls server",
            "auth-user-pass",
            "auth-retry none",
            "explicit-exit-notify 1",
            "connect-retry-max 1",
            "verb 3",
            *([f'static-challenge "{CHALLENGE}" 1'] if static_challenge else []),
            *options,
        ]
        config.write_text("\n".join(lines) + "\n")
        self._static_challenge = static_challenge
        self._connected = False
        self.child = pexpect.spawn(
            "nsenter",
            network.inside(OPENVPN, "--config", config)[1:],
            env=clean_environment(), encoding="utf-8", codec_errors="replace", timeout=PATIENCE_S, dimensions=(50, 250),
        )  # fmt: skip
        self.child.delaybeforesend = None
        self.child.ptyproc.delayafterclose = self.child.ptyproc.delayafterterminate = 0.02

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.hang_up()

    def log_in(self, name: str, password: str, code: str = "") -> bool:
        """Type what is asked for; whether the tunnel came up. ``code`` answers the static challenge."""
        self._answer("Enter Auth Username:", name)
        self._answer("Enter Auth Password:", password)
        if self._static_challenge:
            self._answer(f"CHALLENGE: {CHALLENGE}", code)
        self._connected = self.see(CONNECTED, REFUSED) == CONNECTED
        return self._connected

    def _answer(self, prompt: str, reply: str) -> None:
        self.see(prompt)
        self.child.sendline(reply)

    def see(self, *texts: str) -> str:
        """Wait for one of ``texts``; which one it was."""
        try:
            return texts[self.child.expect_exact(list(texts))]
        except (pexpect.EOF, pexpect.TIMEOUT) as error:
            raise AssertionError(f"none of {texts} was shown; the screen: {self.child.before}") from error

    def hang_up(self) -> None:
        """End the client as Ctrl-C does: when it is connected it says good-bye to the server."""
        if self._connected and self.child.isalive():
            self.child.sendintr()
            wait_until(lambda: self._drained() and not self.child.isalive(), "the OpenVPN client ends")
        self.child.close(force=True)

    def _drained(self) -> bool:
        """What it still says is read, or it could not end; True."""
        with suppress(pexpect.TIMEOUT, pexpect.EOF):
            self.child.read_nonblocking(65_536, timeout=0)
        return True
