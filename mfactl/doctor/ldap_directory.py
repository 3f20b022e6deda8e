"""The directory behind the LDAP door: can it be reached, does it say what the door needs, and are the exempt accounts there?

Room rule: asks as the door itself asks, with the account for look-ups or with none; no user's password is sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mfa_core.errors import MfaError
from mfactl.doctor.finding import Finding, Weight

if TYPE_CHECKING:
    from ldap_proxy.dn import Dn
    from ldap_proxy.settings import LdapDoorSettings, Server
    from ldap_proxy.upstream_probe import Seen
    from mfa_runtime.config import Config

DIRECTORY = "upstream"
"""Where these findings belong."""
MAX_EXEMPT = 50
"""Entries that are looked for."""


def check_directory(config: Config, settings: LdapDoorSettings) -> Iterator[Finding]:
    """Every server, and then who is exempt."""
    well: list[Server] = []
    findings: list[Finding] = []
    for server in settings.upstream.servers:
        try:
            seen = asyncio.run(_probed(server, settings))
        except MfaError as err:
            yield Finding(Weight.PROBLEM, DIRECTORY, str(err), err.cure)
            return
        findings += _told(server, seen, among=len(settings.upstream.servers))
        if not _is_dead(seen):
            well.append(server)
    if not well:
        # each of them is a warning beside the others; together they are a problem
        findings = [
            Finding(Weight.PROBLEM, one.place, one.seen, one.cure) if one.weight is Weight.WARNING else one for one in findings
        ]
    yield from findings
    if well:
        yield from _check_exempt(config, settings, well[0])


async def _probed(server: Server, settings: LdapDoorSettings) -> list[Seen]:
    from ldap_proxy.upstream_probe import probe

    return await probe(
        server, settings.upstream, lookup=settings.lookup, confirm=settings.confirm, monotonic=time.monotonic
    )


def _is_dead(seen: Sequence[Seen]) -> bool:
    from ldap_proxy.upstream_probe import ProbeStep
    from ldap_proxy.upstream_probe import Weight as Gravity

    reaching = (ProbeStep.CONNECTION, ProbeStep.TLS)
    return any(one.weight is Gravity.PROBLEM and one.step in reaching for one in seen)


def _told(server: Server, seen: Sequence[Seen], *, among: int) -> Iterator[Finding]:
    """One dead server of several is a warning: the others do its work."""
    from ldap_proxy.upstream_probe import Weight as Gravity

    weights = {Gravity.GOOD: Weight.GOOD, Gravity.WARNING: Weight.WARNING, Gravity.PROBLEM: Weight.PROBLEM}
    dead = among > 1 and _is_dead(seen)
    for one in seen:
        said = one.said if str(server) in one.said else f"{server}: {one.said}"
        weight = Weight.WARNING if dead and one.weight is Gravity.PROBLEM else weights[one.weight]
        yield Finding(weight, DIRECTORY, said, one.cure)


# Who needs no code


def _check_exempt(config: Config, settings: LdapDoorSettings, server: Server) -> Iterator[Finding]:
    exempt = [one.exempt for one in settings.applications]
    dns = list(dict.fromkeys(dn for one in exempt for dn in sorted(one.dns, key=str)))
    places = list(dict.fromkeys(dn for one in exempt for dn in (*one.subtrees, *one.groups)))
    if dns or places:
        yield from _check_there(settings, server, dns, places)
    yield from _check_nobody_enrolled(config, settings, dns)


def _check_there(settings: LdapDoorSettings, server: Server, dns: Sequence[Dn], places: Sequence[Dn]) -> Iterator[Finding]:
    """Whoever may create an entry where an exempt one is missing makes himself exempt."""
    from ldap_proxy.message import ResultCode
    from ldap_proxy.settings import Verify
    from ldap_proxy.trial import Connection, Done, Failed, Failure, Tls
    from ldap_proxy.upstream_tls import needs_tls

    upstream, lookup = settings.upstream, settings.lookup
    tls = Tls(
        upstream.start_tls, upstream.ca_file, pins=upstream.pins, verify=upstream.verify is Verify.FULL,
        certificate=upstream.certificate_file, key=upstream.key_file,
    )  # fmt: skip
    with Connection(server, timeout_s=upstream.connect_timeout_s) as connection:
        ready = _is_good(connection.open())
        if ready and needs_tls(server.scheme, start_tls=upstream.start_tls):
            ready = _is_good(connection.secure(tls))
        if ready and lookup.bind_dn and lookup.bind_password is not None:
            ready = _is_good(connection.bind(lookup.bind_dn, lookup.bind_password))
        if not ready:
            return  # which the probe has told
        hidden = 0
        for dn in [*dns, *places][:MAX_EXEMPT]:
            answer = connection.look(str(dn))
            match answer:
                case Done() if answer.is_good:
                    continue
                case Done(result=result) if result is not None and result.code == ResultCode.NO_SUCH_OBJECT and lookup.bind_dn:
                    yield Finding(
                        Weight.WARNING, DIRECTORY, f"{dn} is exempt, and there is no such entry",
                        "spell it as the directory does, or take it out of `exempt`: whoever may create it would need no code",
                    )  # fmt: skip
                case Done() | Failed(failure=Failure.NOT_FOUND):
                    hidden += 1
                case Failed():
                    return
        total = min(len(dns) + len(places), MAX_EXEMPT)
        if hidden:
            yield Finding(
                Weight.UNKNOWN, DIRECTORY, f"{hidden} of {total} exempt entries cannot be seen from here",
                "give lookup.bind_dn an account that may read them",
            )  # fmt: skip


def _is_good(answer: object) -> bool:
    from ldap_proxy.trial import Done

    return isinstance(answer, Done) and answer.is_good


def _check_nobody_enrolled(config: Config, settings: LdapDoorSettings, dns: Sequence[Dn]) -> Iterator[Finding]:
    """An exempt DN that is a person's, who has a factor and is not asked for it."""
    from ldap_proxy.settings import MappingKind
    from mfa_core.identity import normalise
    from mfa_core.model import EnrolmentState
    from mfa_runtime.administration.users import find_user
    from mfa_runtime.store.opening import open_store

    if settings.mapping.kind is not MappingKind.RDN or not dns:
        return
    named = {dn: [value for kind, value in dn.leaf if kind in settings.mapping.attributes] for dn in dns}
    try:
        store = open_store(config.store_place)
    except MfaError:
        return  # which the store's own check has told
    try:
        with store.reading() as connection:
            for dn, names in named.items():
                for name in names:
                    try:
                        user = find_user(connection, normalise(name, config.identity))
                    except MfaError:
                        continue  # nobody here has this name: an account of a program, as it should be
                    if user.state is EnrolmentState.ACTIVE:
                        yield Finding(
                            Weight.WARNING, DIRECTORY, f"{dn} is exempt, and {user.name} has a factor: nobody asks for it here",
                            "give the program an account of its own, and take the person out of `exempt`",
                        )  # fmt: skip
    finally:
        store.close()
