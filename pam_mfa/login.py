"""Who is asking to be let in, from where, and what has happened before? (BEGIN -> the fields of an Attempt)

Room rule: everything that interprets what a PAM application says about a login lives here, and how far it is to be believed: a
peer on the user socket can say anything, so of it only the user name counts, and the kernel vouches for that one.
"""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass
from functools import lru_cache

from mfa_core.model import Attempt, Door, FirstFactor, Grammar, Interaction
from mfa_core.secret import Secret
from pam_mfa.arguments import ModuleArguments
from pam_mfa.plain_text import one_line
from pam_mfa.settings import Mode, ServiceSettings
from pam_mfa.wire import Begin

METHODS_MAX = 8
"""Lines of SSH_AUTH_INFO_0 that are looked at; AuthenticationMethods lists are shorter."""


class Trust(enum.Enum):
    """What the kernel says of a peer."""

    ANYBODY = "anybody"
    """Root, or the uid that mfad runs as, on the privileged socket: it may ask about any user."""
    ITSELF = "itself"
    """A process of one user, on the user socket."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end, by SO_PEERCRED. ``name`` is the user name of ``uid``, None when it has none."""

    trust: Trust
    uid: int
    name: bytes | None = None


@dataclass(frozen=True, slots=True)
class Login:
    """The part of an :class:`Attempt` that stays the same over a conversation."""

    service: str
    username: str
    source: str | None
    client: str
    methods: tuple[str, ...]
    first_factor: FirstFactor

    def attempt(
        self,
        event_id: str,
        *,
        interaction: Interaction,
        grammar: Grammar,
        typed: Secret | None = None,
        challenge_id: str = "",
        wait_s: float = 0.0,
    ) -> Attempt:
        """Return the question for the gate."""
        return Attempt(
            event_id=event_id,
            door=Door.PAM,
            service=self.service,
            username=self.username,
            source=self.source,
            typed=typed,
            first_factor=self.first_factor,
            interaction=interaction,
            wait_s=wait_s,
            client=self.client,
            methods=self.methods,
            challenge_id=challenge_id,
            grammar=grammar,
        )


@lru_cache(maxsize=1_024)  # parsing takes longer than the whole of BEGIN, and hosts come again
def canonical_address(text: bytes) -> str | None:
    """Return an IP address literal in its one canonical spelling, None for anything else: a name is never resolved.

    A zone (``fe80::1%eth0``) is dropped and an IPv4-mapped IPv6 address is the IPv4 address, so that one host is one source.
    """
    try:
        address = ipaddress.ip_address(text.partition(b"%")[0].decode("ascii"))
    except ValueError:  # UnicodeDecodeError is one
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def completed_methods(auth_info: bytes) -> tuple[str, ...]:
    """Return what SSH_AUTH_INFO_0 lists as done, without the blobs: ``publickey ssh-ed25519``, ``password`` (sshd(8))."""
    methods = []
    for line in auth_info.split(b"\n")[:METHODS_MAX]:
        words = line.split()[:2]
        if words:
            methods.append(one_line(b" ".join(words).decode("ascii", "replace"), limit=128))
    return tuple(methods)


def read_login(begin: Begin, peer: Peer, service: ServiceSettings, arguments: ModuleArguments) -> Login:
    """Return what BEGIN says about this login, as far as ``peer`` can be believed.

    SSH_CONNECTION comes from sshd's PAM environment and holds the real address even when UseDNS made PAM_RHOST a name. On the
    privileged socket an RHOST that is a literal counts; sudo and su set a host name or nothing there, which counts as unknown.
    """
    name = begin.user.decode("utf-8", "surrogateescape")
    service_name = begin.service.decode("utf-8", "surrogateescape")
    if peer.trust is Trust.ITSELF:
        return Login(service_name, name, None, f"uid {peer.uid}", (), FirstFactor.ELSEWHERE)
    source = canonical_address(begin.ssh_connection.partition(b" ")[0]) or canonical_address(begin.rhost)
    # sshd sets PAM_TTY to "ssh" for everybody: no client of its own
    tty = "" if begin.tty == b"ssh" else one_line(begin.tty.decode("utf-8", "replace"), limit=64)
    methods = completed_methods(begin.ssh_auth_info)
    if service.first_factor is FirstFactor.OURS and (arguments.mode or service.mode) is Mode.COMBINED:
        first_factor = FirstFactor.OURS
    elif methods or arguments.first_factor_done or service.first_factor is FirstFactor.DONE:
        first_factor = FirstFactor.DONE
    else:
        first_factor = FirstFactor.ELSEWHERE
    return Login(service_name, name, source, tty or source or "", methods, first_factor)
