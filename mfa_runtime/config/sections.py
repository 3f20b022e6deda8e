"""Every key of the file but the policy's, with its default.

Room rule: one class a section, values already in their final form, nothing decided. ``config/mfad.yaml`` explains each key to
administrators; a test holds its values to the defaults here. A section that is empty in the file has its defaults.
"""

from __future__ import annotations

import enum
import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from mfa_core.errors import InvalidInput
from mfa_core.identity import IdentityRules
from mfa_core.model import Digest, Grammar, SplitMode
from mfa_core.policy import FromNetworks
from mfa_core.throttle import ThrottleRules
from mfa_runtime.config.agent_section import Agent
from mfa_runtime.config.authority_section import Authority
from mfa_runtime.config.ldap_door import LdapDoor
from mfa_runtime.config.listen import MaybeEndpoint
from mfa_runtime.config.notation import (
    Flag,
    Names,
    Place,
    PromptText,
    Separator,
    Unfit,
    Zone,
    duration,
    read_networks,
    whole,
)
from mfa_runtime.config.primary import NoneSection, Primary, ServiceName
from mfa_runtime.config.radius_door import RadiusDoor
from mfa_runtime.config.section import Section, written
from mfa_runtime.config.store_section import StoreSection


class Role(enum.StrEnum):
    """What this installation is."""

    STANDALONE = "standalone"
    """It decides by its own store."""
    AUTHORITY = "authority"
    """So does it, and hosts ask it over HTTPS; it may have no doors of its own."""
    AGENT = "agent"
    """It asks an authority, and decides by its own store when that cannot be reached."""


class Identity(Section):
    """Which presented names are one identity."""

    fold_case: Flag = True
    realms: Names = ()

    @field_validator("realms", mode="after")
    @classmethod
    def _realms_can_match(cls, realms: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return IdentityRules(realms=realms).realms
        except InvalidInput as err:
            raise Unfit("realms such as example.org or CORP", err.cure, seen=str(err)) from None

    def rules(self) -> IdentityRules:
        """As the core wants them."""
        return IdentityRules(fold_case=self.fold_case, realms=self.realms)


class Totp(Section):
    """Windows of verification, and what new credentials are made of. ``window`` and ``max_drift`` are time steps."""

    window: Annotated[int, whole(0, 2)] = 1
    max_drift: Annotated[int, whole(0, 10)] = 10
    digits: Annotated[int, whole(6, 8)] = 6
    period: Annotated[int, duration("30s", "60s")] = written("30s")
    digest: Digest = Digest.SHA1

    @field_validator("digits", mode="after")
    @classmethod
    def _apps_show_six_or_eight(cls, digits: int) -> int:
        if digits == 7:
            raise Unfit("6 or 8")
        return digits

    @field_validator("period", mode="after")
    @classmethod
    def _apps_know_two_periods(cls, period: int) -> int:
        if period not in (30, 60):
            raise Unfit("30s or 60s")
        return period


class Throttle(Section):
    """How fast somebody may guess: see :mod:`mfa_core.throttle`. Times are seconds."""

    free: Annotated[int, whole(1, 10)] = 3
    base: Annotated[int, duration("1s", "60s")] = written("1s")
    cap: Annotated[int, duration("1m", "24h")] = written("15m")
    hard_cap: Annotated[int, whole(1, 100)] = 100
    source_free: Annotated[int, whole(1, 10_000)] = 30
    lane_memory: Annotated[int, duration("0", "365d")] = written("30d")
    forgive: Annotated[int, duration("1s", "24h")] = written("60s")

    def rules(self) -> ThrottleRules:
        """As the core wants them."""
        return ThrottleRules(
            free=self.free,
            base_s=float(self.base),
            cap_s=float(self.cap),
            hard_cap=self.hard_cap,
            source_free=self.source_free,
            lane_memory_s=float(self.lane_memory),
            forgive_s=float(self.forgive),
        )


class Enrolment(Section):
    """How users come to have a second factor. ``grace_days`` is days, ``pending`` seconds."""

    grace_days: Annotated[int, whole(1, 365)] = 7
    pending: Annotated[int, duration("1m", "1h")] = written("15m")
    enrol_networks: Names = (
        "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7",
    )  # fmt: skip

    @field_validator("enrol_networks", mode="after")
    @classmethod
    def _networks_can_be_read(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        read_networks(networks)
        return networks

    def networks(self) -> FromNetworks | None:
        """Where enrolment at login may happen; None for nowhere. Ask ``holds(source)``; an unknown source is UNKNOWN."""
        return read_networks(self.enrol_networks) if self.enrol_networks else None


class Recovery(Section):
    """Recovery and bypass codes. ``bypass_ttl`` is seconds."""

    codes: Annotated[int, whole(0, 99)] = 10
    remind_at: Annotated[int, whole(0, 99)] = 3
    bypass_ttl: Annotated[int, duration("1m", "24h")] = written("1h")
    bypass_uses: Annotated[int, whole(1, 10)] = 1


class Limits(Section):
    """Bounds of what is under way at once; over them attempts are refused as Overloaded."""

    connections: Annotated[int, whole(1, 100_000)] = 512
    connections_per_uid: Annotated[int, whole(1, 100_000)] = 16
    connections_per_user: Annotated[int, whole(1, 1_000)] = 256
    verification_queue: Annotated[int, whole(1, 1_000_000)] = 4096


class GroupSource(enum.StrEnum):
    """Who knows a user's groups."""

    NSS = "nss"
    NONE = "none"
    """Nobody: rules with groups follow their on_missing."""


class Directory(Section):
    """Where groups come from. ``timeout`` and ``cache`` are seconds."""

    groups: GroupSource = GroupSource.NSS
    timeout: Annotated[int, duration("1s", "30s")] = written("3s")
    cache: Annotated[int, duration("0", "1h")] = written("60s")
    cache_entries: Annotated[int, whole(1, 1_000_000)] = 10_000
    workers: Annotated[int, whole(1, 64)] = 4


class PamMode(enum.StrEnum):
    """What a PAM dialogue asks."""

    CODE = "code"
    """The code alone; another module asks for the password."""
    COMBINED = "combined"
    """Password and code in one answer."""
    AUTO = "auto"
    """An answer that another module got is used if a code stands in it; else the code is asked."""


class PriorFactor(enum.StrEnum):
    """What the PAM stack has done before our module is asked in mode ``code``."""

    ELSEWHERE = "elsewhere"
    """Not known: texts tell nothing, nobody may enrol."""
    DONE = "done"
    """Verified, and a failure of it ends the stack (``requisite``, or AuthenticationMethods of sshd)."""


class ExemptResult(enum.StrEnum):
    """What PAM hears of somebody who needs no second factor."""

    IGNORE = "ignore"
    """The rest of the stack decides; a stack of our module alone refuses."""
    SUCCESS = "success"


class PamSplit(enum.StrEnum):
    """How password and code share one answer in modes ``combined`` and ``auto``."""

    APPEND = "append"
    SEPARATOR = "separator"


class PamSettings(Section):
    """What may differ from one PAM service to another."""

    mode: PamMode = PamMode.CODE
    prompt: PromptText = "Verification code: "
    combined_prompt: PromptText = "Password and verification code: "
    echo: Flag = False
    split: PamSplit = PamSplit.APPEND
    separator: Separator = ","
    first_factor: PriorFactor = PriorFactor.ELSEWHERE
    attempts: Annotated[int, whole(1, 10)] = 1
    exempt: ExemptResult = ExemptResult.IGNORE

    @property
    def grammar(self) -> Grammar:
        """How a combined answer is read."""
        return Grammar(SplitMode(self.split.value), self.separator)


_MAX_SOCKET_PATH_BYTES = 107
"""unix(7): sun_path has 108 bytes, the last one a NUL."""


class PamDoor(PamSettings):
    """The PAM door: its sockets, and the settings of services that ``services`` does not name.

    ``conversation_timeout`` is seconds, for a whole dialogue.
    """

    socket_dir: Place = written("/run/mfad")
    conversation_timeout: Annotated[int, duration("5s", "10m")] = written("95s")
    max_prompts: Annotated[int, whole(1, 10)] = 3
    account_exempt_services: Names = (
        "cron", "crond", "anacron", "atd", "systemd-user", "sudo", "sudo-i", "runuser", "runuser-l",
    )  # fmt: skip
    primary: Primary = Field(default_factory=NoneSection)
    services: dict[ServiceName, PamSettings] = Field(default_factory=dict)

    @field_validator("socket_dir", mode="after")
    @classmethod
    def _the_kernel_takes_the_path(cls, socket_dir: Path) -> Path:
        if len(os.fsencode(socket_dir / "priv.sock")) > _MAX_SOCKET_PATH_BYTES:
            raise Unfit("a path short enough for a socket", "use at most 97 bytes, the folder of this file included")
        return socket_dir

    @field_validator("services", mode="before")
    @classmethod
    def _nothing_is_no_service(cls, value: object) -> object:
        return {} if value is None else value

    def settings_for(self, service: str) -> PamSettings:
        """Return the settings of ``service``: its own, and the door's where it says nothing."""
        own = self.services.get(service)
        if own is None:
            return self
        return PamSettings.model_construct(
            **{name: getattr(own if name in own.model_fields_set else self, name) for name in PamSettings.model_fields}
        )


class Doors(Section):
    """The enabled doors. An authority may have none: :mod:`mfa_runtime.config.roles_together`."""

    pam: PamDoor | None = None
    radius: RadiusDoor | None = None
    ldap: LdapDoor | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_door_without_settings_is_enabled(cls, data: Any) -> Any:
        if data is None:
            return {"pam": {}}
        if isinstance(data, dict):
            return {name: {} if section is None else section for name, section in data.items()}
        return data


class Metrics(Section):
    """Counters for Prometheus, over HTTP. ``listen`` None: nowhere."""

    listen: MaybeEndpoint = None


class Audit(Section):
    """Where audit events go beside the store. ``json_file`` is a path, "-" for stderr, None for nowhere."""

    json_file: Place | None = None
    syslog: Flag = False

    @field_validator("json_file", mode="wrap")
    @classmethod
    def _a_hyphen_is_stderr(cls, value: object, read: Any) -> Path | None:
        return Path("-") if value == "-" else read(value)


class LogLevel(enum.StrEnum):
    """How much mfad says on stderr."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _issuer(value: object) -> str:
    # Authenticator apps take the label apart at the colon.
    if isinstance(value, str) and 1 <= len(value) <= 64 and value.isprintable() and ":" not in value and value == value.strip():
        return value
    raise Unfit("1 to 64 printable characters without a colon")


def _key(value: object) -> str | None:
    if value is None or (isinstance(value, str) and re.fullmatch(r"systemd-creds:[A-Za-z0-9._-]{1,128}", value)):
        return value
    raise Unfit("systemd-creds:NAME", "a key file is named by key_file; a key itself never stands in this file")


class Settings(Section):
    """The top of the file. ``policy`` is read rule by rule, in :mod:`mfa_runtime.config.rules`."""

    role: Role = Role.STANDALONE
    state_dir: Place = written("/var/lib/mfad")
    store: StoreSection = Field(default_factory=StoreSection)
    authority: Authority = Field(default_factory=Authority)
    agent: Agent = Field(default_factory=Agent)
    key_file: Place | None = None
    key: Annotated[str | None, BeforeValidator(_key)] = None
    issuer: Annotated[str, BeforeValidator(_issuer)] = "mfad"
    time_zone: Zone = written("UTC")
    host_groups: Names = ()
    log_level: LogLevel = LogLevel.INFO
    doors: Doors = Field(default_factory=lambda: Doors.model_validate({"pam": {}}))
    identity: Identity = Field(default_factory=Identity)
    totp: Totp = Field(default_factory=Totp)
    throttle: Throttle = Field(default_factory=Throttle)
    enrolment: Enrolment = Field(default_factory=Enrolment)
    recovery: Recovery = Field(default_factory=Recovery)
    directory: Directory = Field(default_factory=Directory)
    limits: Limits = Field(default_factory=Limits)
    audit: Audit = Field(default_factory=Audit)
    metrics: Metrics = Field(default_factory=Metrics)
    policy: Any = ()

    @model_validator(mode="before")
    @classmethod
    def _an_authority_needs_no_door(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("role") == Role.AUTHORITY.value and data.get("doors") is None:
            return data | {"doors": {}}
        return data

    @model_validator(mode="after")
    def _one_key(self) -> Settings:
        if self.key is not None and self.key_file is not None:
            raise Unfit("one of them", "keep key_file, or key: systemd-creds:NAME", seen="both key and key_file")
        return self
