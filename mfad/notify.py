"""What systemd is told: READY, RELOADING, STOPPING, WATCHDOG (sd_notify(3)). Nothing when it did not ask."""

from __future__ import annotations

import os
import socket
import time


class Notifier:
    """Sends states to the socket that NOTIFY_SOCKET names; ``address`` is None without systemd."""

    def __init__(self, address: str | None, watchdog_us: str | None = None) -> None:
        self._address = None if address is None else "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_interval_s = int(watchdog_us) / 2e6 if watchdog_us and watchdog_us.isdigit() else 0.0
        """How often :meth:`alive` is wanted, 0: not at all. Half of what systemd waits."""

    def ready(self) -> None:
        """Every door listens."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A reload begins; :meth:`ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The daemon stops."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """The event loop turns."""
        self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if self._address is None:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as peer:
            try:
                peer.sendto(state.encode(), self._address)
            except OSError as err:
                # Told nobody: systemd will say so itself when it waits in vain.
                os.write(2, f"mfad: systemd could not be told {state.splitlines()[0]}: {err.strerror}\n".encode())
