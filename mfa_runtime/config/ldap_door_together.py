"""Do the keys of the LDAP door go together: with one another, and with the policy?

Room rule: pure functions of what was read, each fault with the path of the key that is to be changed. What a single key may
hold is said in :mod:`mfa_runtime.config.ldap_door`.
"""

from __future__ import annotations

from collections.abc import Iterator

from mfa_core.model import Door, SplitMode
from mfa_core.policy import Enrol, FromDoors, Globs, Policy, Rule, ToServices
from mfa_runtime.config.document import Path
from mfa_runtime.config.fault import Fault
from mfa_runtime.config.ldap_address import LdapScheme
from mfa_runtime.config.ldap_door import OWN_NAME, LdapApplication, LdapDoor, RememberWhat

_DOOR: Path = ("doors", "ldap")
_TLS_KEYS = ("ca_file", "verify", "pins", "minimum_version", "certificate_file", "key_file")
"""Of `upstream_tls`: they mean nothing where nothing is inside TLS."""


def faults(door: LdapDoor, *, policy: Policy | None) -> Iterator[Fault]:
    """Find everything that does not go together. ``policy`` is None where it could not be read as a whole."""
    yield from _listeners(door)
    yield from _tls(door)
    yield from _upstream(door)
    yield from _applications(door)
    yield from _remember(door)
    yield from _limits(door)
    if policy is not None:
        yield from _splits(door, policy)
        yield from _enrolments(policy)


def _listeners(door: LdapDoor) -> Iterator[Fault]:
    for index, one in enumerate(door.listen):
        for other in door.listen[:index]:
            if one.collides(other):
                cure = "* holds all addresses of its port; ldap:// and ldaps:// need ports of their own"
                yield Fault((*_DOOR, "listen", index), f"{one} beside {other}", "addresses that differ", cure)
                break
    for index, one in enumerate(door.listen):
        if one in door.upstream:
            cure = "the door would ask itself: name the directory's own address"
            yield Fault((*_DOOR, "upstream"), f"{one}, where the door listens", "the directory", cure)
        if one.scheme is LdapScheme.LDAPI and door.workers > 1:
            cure = "a local socket is served by one process"
            yield Fault((*_DOOR, "listen", index), f"{one}, and {door.workers} workers", "workers: 1", cure)


def _tls(door: LdapDoor) -> Iterator[Fault]:
    for index, one in enumerate(door.listen):
        if one.scheme is LdapScheme.LDAPS and door.tls is None:
            yield Fault(
                (*_DOOR, "listen", index), f"{one} and no certificate", "a section tls beside it",
                "give certificate_file and key_file under tls",
            )  # fmt: skip


def _upstream(door: LdapDoor) -> Iterator[Fault]:
    tls = door.upstream_tls
    path: Path = (*_DOOR, "upstream_tls")
    for index, server in enumerate(door.upstream):
        if server in door.upstream[:index]:
            cure = "they are tried in this order"
            yield Fault((*_DOOR, "upstream", index), f"{server} a second time", "each server once", cure)
    other = [server for server in door.upstream if server.scheme is not LdapScheme.LDAP]
    if tls.start_tls and other:
        why = "is inside TLS from the first byte" if other[0].scheme is LdapScheme.LDAPS else "is a socket of this host"
        yield Fault(
            (*path, "start_tls"), f"true, and {other[0]}", "ldap:// servers alone", f"{other[0].scheme}:// {why}: say false"
        )
    if tls.start_tls or any(server.scheme is LdapScheme.LDAPS for server in door.upstream):
        return
    said = [key for key in _TLS_KEYS if key in tls.model_fields_set and getattr(tls, key) not in (None, ())]
    if said:
        cure = "say start_tls: true, name ldaps:// servers, or take these keys out"
        yield Fault((*path, said[0]), f"{', '.join(said)}, and no TLS to the directory", "TLS", cure)


def _applications(door: LdapDoor) -> Iterator[Fault]:
    names: set[str] = {OWN_NAME}
    places: dict[tuple[object, object], str] = {}
    for index, one in enumerate(door.applications):
        path: Path = (*_DOOR, "applications", index)
        if one.name in names:
            cure = "policy and logs know applications by name"
            if one.name == OWN_NAME:
                cure += ", and whoever no application knows has this one"
            yield Fault((*path, "name"), f"{one.name!a} a second time", "names that differ", cure)
        names.add(one.name)
        for listen in one.listen:
            if listen not in door.listen:
                cure = f"there are {', '.join(map(str, door.listen))}"
                yield Fault((*path, "listen"), str(listen), "a listener of this door", cure)
        for place in [(network, listen) for network in one.network or (None,) for listen in one.listen or (None,)]:
            owner = places.setdefault(place, one.name)
            if owner != one.name:
                key = "network" if one.network else "listen"
                told = " on ".join(str(part) for part in place if part is not None)
                cure = "networks may lie inside one another: the longest prefix wins"
                yield Fault((*path, key), f"{told}, which {owner!a} has", "each once", cure)
                break


def _remember(door: LdapDoor) -> Iterator[Fault]:
    """What one process remembers the others do not know, and could not forget."""
    if door.workers == 1:
        return
    cure = "each process remembers by itself: the next connection may reach one that knows nothing"
    places: list[tuple[Path, RememberWhat]] = [((*_DOOR, "remember"), door.remember.mode)]
    for index, one in enumerate(door.applications):
        if "remember" in one.model_fields_set:
            places.append(((*_DOOR, "applications", index, "remember"), one.remember.mode))
    for path, mode in places:
        if mode is not RememberWhat.OFF:
            yield Fault(path, f"{mode}, and {door.workers} workers", "workers: 1", cure)


def _limits(door: LdapDoor) -> Iterator[Fault]:
    limits = door.limits
    if limits.pdu_bound < limits.pdu_anonymous:
        path: Path = (*_DOOR, "limits", "pdu_bound" if "pdu_bound" in limits.model_fields_set else "pdu_anonymous")
        seen = f"pdu_bound {limits.pdu_bound}, and pdu_anonymous {limits.pdu_anonymous}"
        yield Fault(path, seen, "at least as much once somebody is bound", "raise pdu_bound, or lower pdu_anonymous")


def _splits(door: LdapDoor, policy: Policy) -> Iterator[Fault]:
    """A rule that leaves no password to bind with."""
    for index, rule in enumerate(policy.rules):
        if rule.grammar is None or rule.grammar.mode not in {SplitMode.SEPARATE, SplitMode.OTP_ONLY}:
            continue
        names = concerned(door, rule)
        if names:
            yield Fault(
                ("policy", index, "split"),
                f"split: {rule.grammar.mode} for LDAP application {names[0]!a}",
                "separator, append or keyword",
                "a bind needs the directory's password beside the code: name the doors or the services of the rule",
            )


def _enrolments(policy: Policy) -> Iterator[Fault]:
    """A rule for this door alone that lets people enrol where nothing can be shown to them."""
    for index, rule in enumerate(policy.rules):
        doors = [condition.doors for condition in rule.conditions if isinstance(condition, FromDoors)]
        if rule.enrol is Enrol.AT_LOGIN and any(one == {Door.LDAP} for one in doors):
            yield Fault(
                ("policy", index, "enrol"), "enrol: at_login for the LDAP door alone", "enrol: refuse",
                "a bind can show nobody anything: let people enrol over SSH, or use `mfactl enrol`",
            )  # fmt: skip


def concerned(door: LdapDoor, rule: Rule) -> tuple[str, ...]:
    """The applications to whose binds ``rule`` can apply, by name."""
    globs: list[Globs] = []
    for condition in rule.conditions:
        if isinstance(condition, FromDoors) and Door.LDAP not in condition.doors:
            return ()
        if isinstance(condition, ToServices):
            globs.append(condition.services)
    return tuple(name for name in application_names(door) if all(one.match(name) for one in globs))


def application_names(door: LdapDoor) -> tuple[str, ...]:
    """All of them, the door's own first."""
    return (OWN_NAME, *(one.name for one in door.applications))


def exemptions(door: LdapDoor) -> Iterator[tuple[Path, LdapApplication | LdapDoor]]:
    """Whoever says who is exempt, with the path of the key."""
    yield (*_DOOR, "exempt"), door
    for index, one in enumerate(door.applications):
        if "exempt" in one.model_fields_set:
            yield (*_DOOR, "applications", index, "exempt"), one
