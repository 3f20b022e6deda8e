"""The section ``doors.ldap`` in the door's own terms: DNs taken apart, secrets read, applications with all of their keys.

Room rule: mappings, and what can be found wrong only here. Everything that is wrong is told at once, each with its line; what
is allowed and yet weak is told by :func:`warnings`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from ldap_proxy.dn import Dn, NotADn, parse_dn
from ldap_proxy.settings import (
    STANDARD_EXTENDED,
    Anonymous,
    Application,
    ClientCertificate,
    Confirm,
    ExemptSettings,
    LdapDoorSettings,
    Limits,
    Listen,
    LookupSettings,
    MappingKind,
    MappingSettings,
    OperationsSettings,
    RememberMode,
    RememberScope,
    RememberSettings,
    Scheme,
    Server,
    ServerTls,
    UpstreamSettings,
    Verify,
)
from mfa_core.errors import ConfigurationError
from mfa_core.secret import Secret
from mfa_runtime.config import Config, ConfigurationProblems, Problem
from mfa_runtime.config.document import Document
from mfa_runtime.config.document import Path as Place
from mfa_runtime.config.ldap_address import LdapAddress, LdapScheme
from mfa_runtime.config.ldap_door import OWN_NAME, ApplicationKeys, LdapDoor, LdapExempt, LdapLimits, LdapUser
from mfa_runtime.config.problem import key_of
from mfa_runtime.secret_file import read_secret_file

_DOOR: Final[Place] = ("doors", "ldap")
_PASSES_A_PASSWORD: Final = {
    "1.3.6.1.4.1.4203.666.6.5": "Verify Credentials",
    "1.2.840.113556.1.4.1781": "Fast Bind",
}
"""Extended operations in which a password is checked and no code can stand."""
_SUFFIX_TYPES: Final = {"dc", "o", "c"}
"""What the names of whole directories are made of."""


@dataclass(slots=True)
class _Building:
    places: Document
    door: LdapDoor
    problems: list[Problem] = field(default_factory=list)

    def note(self, path: Place, seen: str, expected: str, cure: str = "") -> None:
        problem = Problem(self.places.name, self.places.line_of(path), key_of(path), seen, expected, cure)
        # What the door says for all of its applications is met at each of them.
        if problem not in self.problems:
            self.problems.append(problem)

    def dns(self, path: Place, texts: tuple[str, ...]) -> tuple[Dn, ...]:
        found: list[Dn] = []
        for index, text in enumerate(texts):
            try:
                found.append(parse_dn(text))
            except NotADn as err:
                # A single name needs no list: then the line is that of the key.
                cure = "a comma, plus or quote inside a value has a backslash before it"
                self.note((*path, index), f"{text[:64]!a}: {err}", "a DN as RFC 4514 writes it", cure)
        return tuple(found)


def build_ldap_settings(config: Config, door: LdapDoor) -> LdapDoorSettings:
    """Take DNs apart, read the secret file, and make the settings of the door.

    Raises:
        ConfigurationProblems: with everything that is wrong.
    """
    building = _Building(config.places, door)
    applications = [_application(building, OWN_NAME, door, _DOOR, own=frozenset(ApplicationKeys.model_fields))]
    for index, one in enumerate(door.applications):
        path: Place = (*_DOOR, "applications", index)
        application = _application(building, one.name, door.settings_for(one), path, own=frozenset(one.model_fields_set))
        applications.append(replace(application, networks=one.network, listens=tuple(map(_listen, one.listen))))
    mapping = _mapping(building, door.user)
    lookup = _lookup(building)
    if not config.identity.fold_case and (mapping.kind is not MappingKind.ATTRIBUTE or mapping.bind_names):
        # Directories compare the names in DNs without case, so that all of Alice's spellings are "alice" here. Enrolled as
        # "Alice" she would be a user whom nobody knows, and whoever is not known may be one who needs no factor.
        building.note(
            ("identity", "fold_case"), "false", "true beside doors.ldap: in a DN Alice and alice are one entry",
            "leave fold_case out, or take users by the attribute that they are enrolled under (doors.ldap.user.mapping: "
            "attribute, without bind_names)",
        )  # fmt: skip
    if building.problems:
        raise ConfigurationProblems(building.problems)
    return LdapDoorSettings(
        listens=tuple(map(_listen, door.listen)),
        upstream=_upstream(door),
        applications=tuple(applications),
        mapping=mapping,
        lookup=lookup,
        tls=None if door.tls is None else ServerTls(
            certificate_file=door.tls.certificate_file,
            key_file=door.tls.key_file,
            client_ca_file=door.tls.client_ca_file,
            client_certificate=ClientCertificate(door.tls.client_certificate.value),
            minimum_version=door.tls.minimum_version.value,
            required=door.tls.required,
        ),
        proxy_protocol=door.proxy_protocol,
        confirm=Confirm(door.confirm.value),
        identity_keep_s=float(door.identity_cache),
        workers=door.workers,
        bind_log=door.bind_log,
        limits=_limits(door.limits),
    )  # fmt: skip


def _listen(address: LdapAddress) -> Listen:
    return Listen(Scheme(address.scheme.value), address.host, address.port)


def _server(address: LdapAddress) -> Server:
    return Server(Scheme(address.scheme.value), address.host, address.port)


def _upstream(door: LdapDoor) -> UpstreamSettings:
    tls = door.upstream_tls
    return UpstreamSettings(
        servers=tuple(map(_server, door.upstream)),
        start_tls=tls.start_tls,
        ca_file=tls.ca_file,
        verify=Verify(tls.verify.value),
        pins=frozenset(tls.pins),
        minimum_version=tls.minimum_version.value,
        certificate_file=tls.certificate_file,
        key_file=tls.key_file,
        connect_timeout_s=float(door.connect_timeout),
        health_interval_s=float(door.health_interval),
        dead_time_s=float(door.dead_time),
        spread=door.spread,
        warm=door.warm,
    )


def _application(
    building: _Building, name: str, keys: ApplicationKeys, path: Place, *, own: frozenset[str]
) -> Application:
    """As ``keys`` want it; ``own`` are those that stand at ``path``, the others stand at the door."""
    exempt: Place = (*(path if "exempt" in own else _DOOR), "exempt")
    remember = keys.remember
    return Application(
        name=name,
        grammar=keys.grammar,
        exempt=_exempt(building, keys.exempt, exempt),
        anonymous=Anonymous(keys.anonymous.value),
        remember=RememberSettings(
            mode=RememberMode(remember.mode.value),
            scope=frozenset(RememberScope(one.value) for one in remember.scope),
            ttl_s=float(remember.ttl),
            max_uses=remember.max_uses,
        ),
        operations=OperationsSettings(
            extended=STANDARD_EXTENDED | frozenset(keys.extended_operations),
            sasl=frozenset(keys.sasl_mechanisms),
            compare_password=keys.compare_password,
            proxied_authorization=keys.proxied_authorization,
        ),
        refusal_text=keys.refusal_text,
    )


def _exempt(building: _Building, section: LdapExempt, path: Place) -> ExemptSettings:
    return ExemptSettings(
        dns=frozenset(building.dns((*path, "dn"), section.dn)),
        subtrees=building.dns((*path, "subtree"), section.subtree),
        groups=building.dns((*path, "group"), section.group),
        networks=section.network,
        member_attributes=section.member_attributes,
    )


def _mapping(building: _Building, user: LdapUser) -> MappingSettings:
    return MappingSettings(
        kind=MappingKind(user.mapping.value),
        # Names of attributes know no case, and normalised DNs have small letters.
        attributes=tuple(name.lower() for name in user.attributes),
        bases=building.dns((*_DOOR, "user", "base_dn"), user.base_dn),
        pattern=user.pattern,
        bind_names=user.bind_names,
    )


def _lookup(building: _Building) -> LookupSettings:
    section = building.door.lookup
    path: Place = (*_DOOR, "lookup")
    password: Secret | None = None
    if section.bind_dn is not None and "=" in section.bind_dn:
        # Active Directory takes names that are no DN as well; whatever has an equals sign is meant as one.
        try:
            parse_dn(section.bind_dn)
        except NotADn as err:
            building.note((*path, "bind_dn"), f"{section.bind_dn[:64]!a}: {err}", "a DN as RFC 4514 writes it")
    if section.bind_password_file is not None:
        try:
            password = read_secret_file(section.bind_password_file)
        except ConfigurationError as err:
            building.note((*path, "bind_password_file"), str(err), "", err.cure)
    return LookupSettings(
        bind_dn=section.bind_dn or "",
        bind_password=password,
        timeout_s=float(section.timeout),
        keep_s=float(section.cache),
        max_entries=section.cache_entries,
        connections=section.connections,
    )


def _limits(limits: LdapLimits) -> Limits:
    return Limits(
        connections=limits.connections,
        connections_per_source=limits.connections_per_source,
        pdu_anonymous=limits.pdu_anonymous,
        pdu_bound=limits.pdu_bound,
        pdu_upstream=limits.pdu_upstream,
        queued=limits.queued,
        write_buffer=limits.write_buffer,
        header_s=float(limits.header),
        tls_handshake_s=float(limits.tls_handshake),
        idle_s=float(limits.idle),
        bind_s=float(limits.bind),
        operations=limits.operations,
        drain_s=float(limits.drain),
        failed_binds=limits.failed_binds,
    )


def warnings(settings: LdapDoorSettings) -> list[str]:
    """What is allowed and yet weak, a line each, the cure behind its last semicolon: said at start, and by the doctor."""
    of_applications = (told for one in settings.applications for told in _of(one, settings))
    return [*_wires(settings), *_confirmation(settings), *of_applications]


def _stays_here(place: Listen | Server) -> bool:
    return LdapAddress(LdapScheme(place.scheme.value), place.host, place.port).is_of_this_host


def _wires(settings: LdapDoorSettings) -> Iterator[str]:
    required = settings.tls is not None and settings.tls.required
    for listen in settings.listens:
        if listen.scheme is Scheme.LDAP and not required and not _stays_here(listen):
            cure = "say tls.required: true"
            if settings.tls is None:
                cure = "give certificates under tls, and say required: true"
            yield f"LDAP listener {listen}: passwords and codes may come in clear; {cure}"
    upstream = settings.upstream
    for server in upstream.servers:
        if server.scheme is Scheme.LDAP and not upstream.start_tls and not _stays_here(server):
            yield f"LDAP directory {server}: passwords go there in clear; use ldaps://, or upstream_tls: {{start_tls: true}}"
    in_tls = upstream.start_tls or any(server.scheme is Scheme.LDAPS for server in upstream.servers)
    if in_tls and upstream.verify is Verify.NONE and not upstream.pins:
        yield (
            f"LDAP directory {upstream.servers[0]}: its certificate is not looked at (upstream_tls.verify: none): whoever "
            "stands between reads every password; name its CA in ca_file, or its certificate under pins"
        )
    for network in settings.proxy_protocol:
        if network.prefixlen == 0:
            yield (
                f"LDAP door: whoever connects may say whose connection it is (proxy_protocol: {network}), and so choose his "
                "application and his exemptions; name the load balancers"
            )


def _confirmation(settings: LdapDoorSettings) -> Iterator[str]:
    if settings.confirm is Confirm.AS_BOUND:
        yield (
            "LDAP door: who is behind a DN is not asked (confirm: as_bound): an alias may pass for another user; say whoami "
            "where the directory knows WhoAmI (RFC 4532)"
        )
    if not settings.lookup.bind_dn:
        needs = ["user.mapping: attribute"] if settings.mapping.kind is MappingKind.ATTRIBUTE else []
        needs += [f"exempt.group of application {one.name!a}" for one in settings.applications if one.exempt.groups]
        if needs:
            yield f"LDAP door: {needs[0]} looks entries up anonymously, which few directories allow; give lookup.bind_dn"


def _of(application: Application, settings: LdapDoorSettings) -> Iterator[str]:
    who = f"LDAP application {application.name!a}"
    exempt, operations = application.exempt, application.operations
    for subtree in exempt.subtrees:
        below = [base for base in settings.mapping.bases if base.is_under(subtree)]
        looks_whole = not settings.mapping.bases and all(kind in _SUFFIX_TYPES for rdn in subtree.rdns for kind, _ in rdn)
        if below or looks_whole:
            what = f"all users under {str(below[0])!a}" if below else "what looks like the whole directory"
            yield f"{who}: exempt.subtree {str(subtree)!a} frees {what} of the second factor; name the accounts that are meant"
    if application.remember.mode is RememberMode.PASSWORD_ONLY and RememberScope.SOURCE not in application.remember.scope:
        yield (
            f"{who}: after one login with a code the password alone is enough from everywhere (remember: password_only without "
            "source_ip); add source_ip to remember.scope"
        )
    if operations.compare_password:
        yield f"{who}: passwords can be tried without a code (compare_password: true); say false"
    for oid in sorted(operations.extended & _PASSES_A_PASSWORD.keys()):
        yield (
            f"{who}: passwords can be tried without a code by {_PASSES_A_PASSWORD[oid]} (extended_operations: {oid}); "
            "take it out"
        )
    nobody = not (exempt.dns or exempt.subtrees or exempt.groups or exempt.networks)
    if nobody and (operations.sasl or operations.proxied_authorization):
        key = "sasl_mechanisms" if operations.sasl else "proxied_authorization"
        yield f"{who}: {key} is for those who are exempt, and nobody is; name them under exempt, or take {key} out"
