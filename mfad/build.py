"""Config in, parts out: the only place that knows which implementation stands behind which port.

Room rule: constructors and mappings. Nothing is decided here that a test of a single part could not see.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from authority.door import AuthorityDoor
from ldap_proxy.configuration import build_ldap_settings
from ldap_proxy.door import LdapDoor, check_files
from mfa_core.errors import MfaError
from mfa_core.model import Door, FirstFactor
from mfa_core.policy import Fit
from mfa_core.verifier import Settings
from mfa_runtime.administration.enrolment import Parameters
from mfa_runtime.agent.follower import Follower
from mfa_runtime.agent.watcher import Watcher
from mfa_runtime.audit_sinks import open_sink
from mfa_runtime.config import Config
from mfa_runtime.config.primary import PrimaryType
from mfa_runtime.config.rules_document import SharedRules
from mfa_runtime.config.sections import GroupSource, PamDoor, PamMode, PamSettings, PriorFactor, Role
from mfa_runtime.directory import CachedGroups, Groups, NoGroups
from mfa_runtime.event_id import new_event_id
from mfa_runtime.key_file import KeyEncryptionKeys, load_key_source
from mfa_runtime.ledger import Ledger
from mfa_runtime.login_enrolment import LoginEnrolment
from mfa_runtime.node_name import of_authority
from mfa_runtime.primaries import OpenPrimary, open_primary
from mfa_runtime.sealing import Keyring
from mfa_runtime.store.database import Store
from mfa_runtime.store.key_table import load_keyring
from mfa_runtime.store.opening import open_store
from mfa_runtime.store_role import check_role
from mfa_runtime.verification import Rules, Verification
from mfad.agent import Part, build_agent, host_clock, node_for, read_state, rules_of, shared_rules
from mfad.authority import build_authority, build_authority_settings
from mfad.ldap import Settings as LdapSettingsOf
from mfad.ldap import build_ldap_door
from mfad.radius import build_radius_door
from pam_mfa.server import PamDoor as PamServer
from pam_mfa.settings import GREETERS, ExemptAnswer, Mode, PamDoorSettings, ServiceSettings
from pam_mfa.wire import Echo
from radius_plugin.configuration import build_radius_settings
from radius_plugin.door import RadiusDoor
from radius_plugin.radsec import tls_context
from radius_plugin.settings import RadiusDoorSettings

log = logging.getLogger(__name__)

ALL_DOORS = frozenset(Door)


def load_keys(config: Config) -> KeyEncryptionKeys:
    """The key-encryption keys that the configuration names."""
    return load_key_source(config.key_source, credentials_directory=os.environ.get("CREDENTIALS_DIRECTORY"))


def load_ring(store: Store, config: Config) -> Keyring:
    """The keyring of the store, from the key file as it is now."""
    keks = load_keys(config)
    with store.reading() as connection:
        return load_keyring(connection, keks, random=os.urandom)


def build_rules(config: Config, heard: tuple[SharedRules, str] | None = None) -> Rules:
    """What a reload replaces in the gate. ``heard`` are the rules of an agent's authority, and the group of this host."""
    if config.role is Role.AGENT:
        return rules_of(config, heard)
    return Rules(
        identity=config.identity,
        policy=config.policy,
        settings=Settings(
            window=config.totp.window,
            max_drift=config.totp.max_drift,
            throttle=config.throttle,
            scope=",".join(sorted(config.host_groups)),
        ),
        host_groups=config.host_groups,
    )


def with_names_of(config: Config, heard: tuple[SharedRules, str] | None) -> Config:
    """The configuration of an agent, whose doors read names as its authority does."""
    return config if heard is None else replace(config, identity=heard[0].identity)


def build_primaries(config: Config, store: Store, ledger: Ledger) -> dict[Door, OpenPrimary]:
    """The backends for passwords that are ours to check, by door.

    Raises:
        ConfigurationError: a file that one of them names cannot be used.
    """
    found: dict[Door, OpenPrimary] = {}
    for door, section in ((Door.PAM, config.doors.pam), (Door.RADIUS, config.doors.radius)):
        if section is None:
            continue
        primary = open_primary(section.primary, store=store, keyring=lambda: ledger.keyring, throttle=config.throttle)
        if primary is not None:
            found[door] = primary
    return found


def build_parameters(config: Config) -> Parameters:
    """What a credential that is enrolled at login is like."""
    totp = config.totp
    return Parameters(
        issuer=config.issuer,
        digest=totp.digest,
        digits=totp.digits,
        period_s=totp.period,
        pending_s=config.enrolment.pending,
    )


def may_enrol_from(config: Config) -> Callable[[str | None], bool]:
    """Whether somebody may enrol from a source. An unknown source may not."""
    networks = config.enrolment.networks()
    return lambda source: networks is not None and networks.holds(source) is Fit.HOLDS


def build_pam_settings(config: Config, door: PamDoor) -> PamDoorSettings:
    """The configuration's section in the door's own terms."""
    ours = door.primary.type is not PrimaryType.NONE
    services = {name: _service(door.settings_for(name), GREETERS.get(name), ours) for name in {*GREETERS, *door.services}}
    return PamDoorSettings(
        socket_dir=door.socket_dir,
        services=services,
        default_service=_service(door, None, ours),
        account_exempt=frozenset(door.account_exempt_services),
        max_prompts=door.max_prompts,
        conversation_s=float(door.conversation_timeout),
        max_conversations=config.limits.connections,
        max_conversations_per_uid=config.limits.connections_per_uid,
        max_conversations_per_user=config.limits.connections_per_user,
    )


def _service(settings: PamSettings, greeter: ServiceSettings | None, ours: bool) -> ServiceSettings:
    base = greeter or ServiceSettings()
    if settings.mode is PamMode.COMBINED:
        first = FirstFactor.OURS if ours else FirstFactor.ELSEWHERE
        prompt = settings.combined_prompt
    else:
        first = FirstFactor.DONE if settings.first_factor is PriorFactor.DONE else FirstFactor.ELSEWHERE
        prompt = settings.prompt
    return ServiceSettings(
        mode=Mode(settings.mode.value),
        grammar=settings.grammar,
        first_factor=first,
        attempts=settings.attempts,
        prompt=prompt,
        echo=Echo.ON if settings.echo else Echo.OFF,
        exempt=ExemptAnswer(settings.exempt.value),
        qr=base.qr,
    )


def build_groups(config: Config) -> Groups:
    """Who knows a user's groups."""
    directory = config.directory
    if directory.groups is GroupSource.NONE:
        return NoGroups()
    return CachedGroups(
        monotonic=time.monotonic,
        workers=directory.workers,
        timeout_s=float(directory.timeout),
        keep_s=float(directory.cache),
        max_entries=directory.cache_entries,
    )


@dataclass(slots=True)
class Parts:
    """What runs. A door that is not configured is None."""

    config: Config
    store: Store
    ledger: Ledger
    gate: Verification
    enrolment: LoginEnrolment
    pam: PamServer | None
    radius: RadiusDoor | None
    ldap: LdapDoor | None
    primaries: dict[Door, OpenPrimary]
    read_ldap: LdapSettingsOf
    agent: Follower | Watcher | None = None
    """What follows the authority, where this host has one."""
    heard: tuple[SharedRules, str] | None = None
    """The rules of that authority, and the group of this host."""
    authority: AuthorityDoor | None = None
    """What answers hosts, where this is their authority."""
    radius_settings: RadiusDoorSettings | None = None
    """Of the RADIUS door where workers serve it, as they were last read."""
    started: Config = field(init=False)
    """What it started with: the keys that need a restart are compared with these."""

    def __post_init__(self) -> None:
        self.started = self.config

    def take_rules(self, shared: SharedRules, host_group: str) -> None:
        """The authority has other rules than before."""
        self.heard = (shared, host_group)
        self.gate.replace_rules(build_rules(self.config, self.heard), self.primaries)
        if shared.identity != self.config.identity:
            try:
                self.reload(self.config)
            except MfaError as err:
                log.error("the doors keep the rules for names of before, not the authority's: %s; %s", err, err.cure)

    def reload(self, config: Config) -> list[str]:
        """Take over what may change while running; return the keys that need a restart and were left alone."""
        fixed = [
            key
            for key, old, new in (
                ("state_dir", self.started.state_dir, config.state_dir),
                ("store", self.started.store, config.store),
                ("limits.verification_queue", self.started.limits.verification_queue, config.limits.verification_queue),
                ("directory", self.started.directory, config.directory),
                ("agent", self.started.agent, config.agent),
                ("authority.listen", self.started.authority.listen, config.authority.listen),
                ("authority.name", self.started.authority.name, config.authority.name),
                ("audit", self.started.audit, config.audit),
                ("metrics", self.started.metrics, config.metrics),
                ("doors.pam.socket_dir", _socket_dir(self.started), _socket_dir(config)),
                ("doors.radius.listen", _radius_listen(self.started), _radius_listen(config)),
                ("doors.ldap.listen", _ldap_listen(self.started), _ldap_listen(config)),
                ("doors.ldap.workers", _ldap_workers(self.started), _ldap_workers(config)),
            )
            if old != new
        ]
        config = with_names_of(config, self.heard)
        # What can be refused comes first: a reload changes everything or nothing.
        radius_settings = None if config.doors.radius is None else build_radius_settings(config, config.doors.radius)
        if radius_settings is not None and radius_settings.tls is not None:
            tls_context(radius_settings.tls)
        ldap_settings = None if config.doors.ldap is None else self.read_ldap(config, config.doors.ldap)
        if ldap_settings is not None:
            check_files(ldap_settings)
        primaries = build_primaries(config, self.store, self.ledger)
        if self.authority is not None:
            self.authority.reload(build_authority_settings(config))
        self.gate.replace_rules(build_rules(config, self.heard), primaries)
        for replaced in self.primaries.values():
            replaced.close()
        self.primaries = primaries
        self.enrolment.replace_settings(build_parameters(config), may_enrol_from(config))
        if self.pam is not None and config.doors.pam is not None:
            self.pam.reload(build_pam_settings(config, config.doors.pam))
        if self.radius is not None and radius_settings is not None:
            self.radius.reload(radius_settings)
        self.radius_settings = radius_settings
        if self.ldap is not None and ldap_settings is not None:
            self.ldap.reload(ldap_settings)
        self.config = config
        return fixed


def _socket_dir(config: Config) -> Path | None:
    return None if config.doors.pam is None else config.doors.pam.socket_dir


def _radius_listen(config: Config) -> object:
    door = config.doors.radius
    return None if door is None else (door.listen, door.workers, door.authentication_log, door.freeradius)


def _ldap_listen(config: Config) -> object:
    return None if config.doors.ldap is None else config.doors.ldap.listen


def _ldap_workers(config: Config) -> object:
    return None if config.doors.ldap is None else config.doors.ldap.workers


def build(
    config: Config,
    *,
    doors: frozenset[Door] = ALL_DOORS,
    read_ldap: LdapSettingsOf = build_ldap_settings,
    part: Part = Part.FOLLOWS,
) -> Parts:
    """Open the store and make every part, of the doors only those in ``doors``. Nothing listens yet.

    ``read_ldap`` makes the LDAP door's settings, now and at each reload. ``part`` is what this process does on an agent.

    Raises:
        ConfigurationError: the key or a setting cannot be used.
        StoreUnavailable, StoreCorrupt: the store cannot be used.
    """
    store = open_store(config.store_place)
    try:
        with store.reading() as connection:
            check_role(connection, config.role)
    except BaseException:
        store.close()
        raise
    reload_keyring = partial(load_ring, store, config)
    is_agent = config.role is Role.AGENT
    told = read_state(store) if is_agent else None
    own = of_authority(config.authority.name or socket.gethostname(), shared=store.several_writers)
    ledger = Ledger(
        store, keyring=reload_keyring(), reload_keyring=reload_keyring, node=node_for(told) if is_agent else own,
        clock=time.time, sink=open_sink(json_file=config.audit.json_file, syslog=config.audit.syslog),
        moment=host_clock() if is_agent else None, records_uses=config.role is Role.AUTHORITY,
    )
    agent = None
    if is_agent:
        def take(shared: SharedRules, host_group: str) -> None:
            parts.take_rules(shared, host_group)  # which come to be below, before it is called

        agent = build_agent(config, part, store, ledger, rules_came=take)
    heard = shared_rules(told)
    config = with_names_of(config, heard)
    enrolment = LoginEnrolment(
        store,
        keyring=lambda: ledger.keyring,
        reload_keyring=ledger.reload_keys,
        tell=ledger.tell,
        parameters=build_parameters(config),
        may_enrol_from=may_enrol_from(config),
        clock=time.time,
        random=os.urandom,
        node=own,
    )
    primaries = build_primaries(config, store, ledger)
    groups = build_groups(config)
    gate = Verification(
        store=store,
        ledger=ledger,
        rules=build_rules(config, heard),
        groups=groups,
        clock=time.time,
        capacity=config.limits.verification_queue,
        primaries=primaries,
        enroller=None if is_agent else enrolment,  # who enrols does so at the authority
        counsel=None if agent is None else agent.link,
    )
    pam = None
    if config.doors.pam is not None and Door.PAM in doors:
        pam = PamServer(
            build_pam_settings(config, config.doors.pam),
            gate,
            monotonic=time.monotonic,
            new_event_id=lambda: new_event_id(time.time(), os.urandom),
        )
    radius = None
    if config.doors.radius is not None and Door.RADIUS in doors:
        radius = build_radius_door(config, config.doors.radius, gate=gate, groups=groups, keyring=lambda: ledger.keyring)
    ldap = None
    if config.doors.ldap is not None and Door.LDAP in doors:
        ldap = build_ldap_door(read_ldap(config, config.doors.ldap), gate=gate)
    authority = None
    if config.role is Role.AUTHORITY and part is Part.FOLLOWS:
        authority = build_authority(config, store, ledger, gate, node=own)
    parts = Parts(config, store, ledger, gate, enrolment, pam, radius, ldap, primaries, read_ldap, agent, heard, authority)
    return parts
