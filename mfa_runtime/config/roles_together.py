"""Do the keys of the file go with the role: standalone, authority or agent?

Room rule: pure functions of what was read, each fault with the path of the key that is to be changed. A key that would say
nothing in this role is a fault: somebody who writes it believes that it does.
"""

from __future__ import annotations

from collections.abc import Iterator

from mfa_core.identity import IdentityRules
from mfa_runtime.config.document import Document, Path
from mfa_runtime.config.fault import Fault
from mfa_runtime.config.primary import PrimaryType
from mfa_runtime.config.sections import Role, Settings


def faults(document: Document, settings: Settings) -> Iterator[Fault]:
    """Find everything that does not go together."""
    role = settings.role
    yield from _sections_of_others(document, role)
    if role is not Role.AUTHORITY and not any((settings.doors.pam, settings.doors.radius, settings.doors.ldap)):
        yield Fault(("doors",), "no door", "at least one door", "add `pam: {}` under doors")
    match role:
        case Role.AUTHORITY:
            yield from _authority(settings)
        case Role.AGENT:
            yield from _agent(document, settings)
        case Role.STANDALONE:
            pass


def _sections_of_others(document: Document, role: Role) -> Iterator[Fault]:
    for other in (Role.AUTHORITY, Role.AGENT):
        if other is not role and document.root.get(other.value) is not None:
            yield Fault((other.value,), f"settings of an {other}, and role: {role}", f"role: {other}",
                        "change the role, or take the section out")  # fmt: skip


def _authority(settings: Settings) -> Iterator[Fault]:
    authority = settings.authority
    for index, one in enumerate(authority.listen):
        if one in authority.listen[:index]:
            yield Fault(("authority", "listen", index), f"{one} twice", "addresses that differ", "take one of them out")
    if authority.tls is not None and authority.trust_file is None:
        yield Fault(
            ("authority", "tls"), "a certificate of somebody else, and no CA to check it against", "trust_file beside it",
            "name the file (PEM) of the CA that signed it: a host trusts what it is told when it joins, and nothing else",
        )  # fmt: skip
    if authority.trust_file is not None and authority.tls is None:
        yield Fault(
            ("authority", "trust_file"), "trust_file, and no certificate of somebody else", "a section tls beside it",
            "without tls hosts trust the authority's own CA: take trust_file out",
        )  # fmt: skip


def _agent(document: Document, settings: Settings) -> Iterator[Fault]:
    rules = document.root.get("policy")
    if isinstance(rules, list) and rules:
        yield Fault(
            ("policy",), f"a policy of {len(rules)} on an agent", "no policy: it is the authority's",
            "write the rules at the authority; this host gets them from there",
        )  # fmt: skip
    if settings.identity.rules() != IdentityRules():
        yield Fault(
            ("identity",), "rules for names on an agent", "none: they are the authority's",
            "write them at the authority; this host and its doors get them from there",
        )  # fmt: skip
    if settings.host_groups:
        yield Fault(
            ("host_groups",), "host groups on an agent", "none: the authority knows this host's group",
            "rules name that group; `mfactl agent status` shows it",
        )  # fmt: skip
    if settings.store.url:
        yield Fault(
            ("store", "url"), "a database on an agent", "nothing: an agent decides alone when the network is gone",
            "its store is SQLite in state_dir",
        )  # fmt: skip
    if settings.agent.attempt_s > settings.agent.budget:
        yield Fault(
            ("agent", "try"), f"{settings.agent.attempt_s:g}s, and a budget of {settings.agent.budget:g}s",
            "at most the budget", "one authority's part cannot be longer than the whole",
        )  # fmt: skip
    for path in _local_passwords(settings):
        yield Fault(
            path, "passwords of mfad's own store on an agent", "pam, ldap, radius or none",
            "an authority sends no passwords to its hosts",
        )  # fmt: skip


def _local_passwords(settings: Settings) -> Iterator[Path]:
    doors = settings.doors
    if doors.pam is not None and doors.pam.primary.type is PrimaryType.LOCAL:
        yield ("doors", "pam", "primary", "type")
    if doors.radius is not None and doors.radius.primary.type is PrimaryType.LOCAL:
        yield ("doors", "radius", "primary", "type")
