"""What may an administrator choose at this door?

Room rule: frozen values with defaults, units in their names, and the reason beside each number. Nothing here reads a file; the
composition root maps the configuration onto these.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mfa_core.errors import InvalidInput
from mfa_core.model import FirstFactor, Grammar, SplitMode
from pam_mfa.wire import Echo

APPENDED = Grammar(SplitMode.APPEND)


class Mode(enum.StrEnum):
    """How a service asks for the code."""

    CODE = "code"
    """One prompt for the code; somebody else asks for the password."""
    COMBINED = "combined"
    """One prompt for password and code in one text."""
    AUTO = "auto"
    """A password that the stack has and that could end in a code is tried once as both; else one prompt for the code."""


class ExemptAnswer(enum.StrEnum):
    """What PAM hears of a user who needs no second factor."""

    IGNORE = "ignore"
    """The rest of the stack decides. libpam refuses when nothing else in the stack says yes: the safe default."""
    SUCCESS = "success"


class QrStyle(enum.StrEnum):
    """How an enrolment is drawn."""

    HALF_BLOCKS = "half_blocks"
    ASCII = "ascii"
    """Two characters a module: for terminals without UTF-8, twice as high."""
    NONE = "none"
    """The otpauth link and the key as text: greeters cut long texts and have no fixed-width font."""


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """One PAM service (the file name in /etc/pam.d). Module arguments on the PAM line override them.

    ``grammar`` is how combined answers are read. ``first_factor`` is OURS when a primary backend of mfad verifies their
    password, DONE when the stack does and ends when it fails. ``attempts`` is how many codes one pam_authenticate() may be
    asked for: sshd itself calls it again (MaxAuthTries), su and sudo may want more here. ``prompt`` replaces the text of the
    code prompt when not empty: OpenVPN and greeters match on it.
    """

    mode: Mode = Mode.CODE
    grammar: Grammar = APPENDED
    first_factor: FirstFactor = FirstFactor.ELSEWHERE
    attempts: int = 1
    prompt: str = ""
    echo: Echo = Echo.OFF
    exempt: ExemptAnswer = ExemptAnswer.IGNORE
    qr: QrStyle = QrStyle.HALF_BLOCKS

    def __post_init__(self) -> None:
        if self.first_factor is FirstFactor.OURS and self.mode is not Mode.COMBINED:
            raise InvalidInput(
                f"a primary backend with mode {self.mode}: no password is typed that it could verify",
                cure="set mode: combined, or remove the primary backend from this service",
            )
        if self.attempts < 1:
            raise InvalidInput(f"attempts: {self.attempts}, expected at least 1", cure="set attempts to 1, 2 or 3")


_GREETER = ServiceSettings(qr=QrStyle.NONE)

GREETERS: Mapping[str, ServiceSettings] = dict.fromkeys(
    ("gdm", "gdm-password", "gdm-launch-environment", "lightdm", "lightdm-greeter", "sddm", "lxdm", "xdm", "greetd", "cockpit"),
    _GREETER,
)

ACCOUNT_EXEMPT = frozenset({"cron", "crond", "anacron", "atd", "systemd-user", "sudo", "sudo-i", "runuser", "runuser-l"})
"""Services whose account phase runs without an authentication of a person (cron) or without a question (sudo NOPASSWD)."""


@dataclass(frozen=True, slots=True)
class PamDoorSettings:
    """The whole door. A conversation keeps the settings that it began with."""

    socket_dir: Path
    services: Mapping[str, ServiceSettings] = field(default_factory=lambda: GREETERS)
    default_service: ServiceSettings = ServiceSettings()
    account_exempt: frozenset[str] = ACCOUNT_EXEMPT
    max_prompts: int = 3
    """Code prompts in one conversation, whatever a service's ``attempts`` says."""
    conversation_s: float = 600.0
    """The longest conversation: the most that the module's ``timeout=`` may be, plus nothing."""
    begin_s: float = 5.0
    """A peer that connects and says nothing is hung up on."""
    decision_s: float = 30.0
    """How long a decision may take (a slow primary backend); the module is told to wait after 3 s."""
    max_conversations: int = 512
    """At most half of a usual file descriptor limit of 1,024."""
    max_conversations_per_uid: int = 8
    """For peers other than root: a screen locker needs one."""
    max_conversations_per_user: int = 64
    """One user name over all peers: above what MaxStartups of one sshd lets through at a time (10:30:100 by default)."""
    uid_burst: int = 10
    """Conversations that one unprivileged uid may start at once,"""
    uid_interval_s: float = 3.0
    """and how long it takes to earn one more."""

    def service(self, name: str) -> ServiceSettings:
        """Return what holds for PAM service ``name``."""
        return self.services.get(name, self.default_service)
