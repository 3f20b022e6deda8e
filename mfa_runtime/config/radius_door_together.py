"""Do the keys of the RADIUS door go together: with one another, with the policy, with the rest of the file?

Room rule: pure functions of what was read, each fault with the path of the key that is to be changed. What a single key may
hold is said in :mod:`mfa_runtime.config.radius_door`.
"""

from __future__ import annotations

from collections.abc import Iterator

from mfa_core.model import Door, SplitMode
from mfa_core.policy import DEFAULT_ID, Action, FromDoors, Policy, Rule, ToServices
from mfa_runtime.config.document import Path
from mfa_runtime.config.fault import Fault
from mfa_runtime.config.listen import Wire
from mfa_runtime.config.radius_door import FREERADIUS, PasswordChecked, RadiusClient, RadiusDoor, RadiusMode, RequireSignature

_DOOR: Path = ("doors", "radius")


def faults(door: RadiusDoor, *, policy: Policy | None, groups_are_known: bool) -> Iterator[Fault]:
    """Find everything that does not go together. ``policy`` is None where it could not be read as a whole."""
    yield from _listeners(door)
    yield from _tls(door)
    yield from _names(door)
    if door.freeradius is not None and door.workers > 1:
        cure = "its socket is served by one process"
        yield Fault((*_DOOR, "freeradius"), f"FreeRADIUS's socket, and {door.workers} workers", "workers: 1", cure)
    for index, client in enumerate(door.clients):
        yield from _client(door, client, (*_DOOR, "clients", index))
    yield from _reply_conditions(door, policy, groups_are_known=groups_are_known)
    if policy is not None:
        yield from _exemptions(door, policy)
        yield from _splits(door, policy)


def _listeners(door: RadiusDoor) -> Iterator[Fault]:
    for index, one in enumerate(door.listen):
        for other in door.listen[:index]:
            if one.collides(other):
                cure = "* holds all addresses of its port"
                yield Fault((*_DOOR, "listen", index), f"{one} beside {other}", "addresses that differ", cure)
                break


def _tls(door: RadiusDoor) -> Iterator[Fault]:
    listens = any(one.wire is Wire.TLS for one in door.listen)
    if listens and door.tls is None:
        yield Fault(
            (*_DOOR, "listen"), "a tls:// address and no certificate", "a section tls beside it",
            "give certificate_file, key_file and client_ca_file under tls",
        )  # fmt: skip
    if door.tls is not None and not listens:
        yield Fault((*_DOOR, "tls"), "certificates and no tls:// address", "a tls:// address", "add tls://*:2083 to listen")
    if listens and not any(client.tls for client in door.clients):
        yield Fault(
            (*_DOOR, "clients"), "no client with tls", "at least one, for the tls:// address",
            "name its certificate: tls: {subject: [vpn.example.org]}",
        )  # fmt: skip
    if door.listen and all(one.wire is Wire.TLS for one in door.listen):
        for index, client in enumerate(door.clients):
            if client.tls is None:
                yield Fault(
                    (*_DOOR, "clients", index, "network"), "a client over UDP", "tls: all addresses of listen are tls://",
                    "name its certificate under tls, or listen on UDP as well",
                )  # fmt: skip


def _names(door: RadiusDoor) -> Iterator[Fault]:
    names: set[str] = set()
    networks: dict[object, str] = {}
    certificates: dict[tuple[str, str], str] = {}
    for index, client in enumerate(door.clients):
        path: Path = (*_DOOR, "clients", index)
        if client.name in names:
            cure = "policy and logs know clients by name"
            yield Fault((*path, "name"), f"{client.name!a} a second time", "names that differ", cure)
        names.add(client.name)
        if client.network in networks:
            yield Fault(
                (*path, "network"), f"{client.network}, which {networks[client.network]!a} has", "each network once",
                "networks may lie inside one another: the longest prefix wins",
            )  # fmt: skip
        if client.network is not None:
            networks.setdefault(client.network, client.name)
        if client.tls is None:
            continue
        if not any(one.wire is Wire.TLS for one in door.listen):
            yield Fault((*path, "tls"), "a client over TLS", "a tls:// address", "add tls://*:2083 to listen")
        marks = [("subject", one.lower()) for one in client.tls.subject]
        marks += [("fingerprint", one) for one in client.tls.fingerprint]
        for kind, mark in marks:
            owner = certificates.setdefault((kind, mark), client.name)
            if owner != client.name:
                yield Fault((*path, "tls", kind), f"a {kind} that {owner!a} has", "each certificate once", "it is one client")


def _client(door: RadiusDoor, client: RadiusClient, path: Path) -> Iterator[Fault]:
    own = client.model_fields_set
    keys = door.settings_for(client)

    def place(key: str) -> Path:
        return (*path, key) if key in own else (*_DOOR, key)

    unsaid = client.preset is not None
    """What a preset says about keys that do not stand at the client is not known here."""
    many = client.network is not None and client.network.num_addresses > 1
    if many and keys.require_message_authenticator is RequireSignature.AUTO:
        yield Fault(
            place("require_message_authenticator"), f"auto for {client.network}",
            "yes or no for a network of more than one host",
            f"say it at {client.name!a}, or name its hosts one by one: one of them must not teach for the others",
        )  # fmt: skip
    if keys.join_retries and door.workers > 1 and not (unsaid and "join_retries" not in own):
        yield Fault(
            place("join_retries"), f"true, and {door.workers} workers", "workers: 1",
            "the retry comes from another port, and may reach another worker, which knows nothing of the first",
        )  # fmt: skip
    if door.checks_passwords and "first_factor" in own and keys.mode is not RadiusMode.MFA_ONLY:
        yield Fault(
            (*path, "first_factor"), f"{keys.first_factor}, and a primary that checks passwords", "mode: mfa_only beside it",
            "take first_factor out where the primary is to check the password",
        )  # fmt: skip
    if keys.mode is RadiusMode.CHALLENGE and not keys.challenges and not (unsaid and "challenges" not in own):
        yield Fault(
            place("challenges"), "false, and mode: challenge", "true, or another mode",
            "a client that knows no Access-Challenge can send the code only with the password: mode: concat",
        )  # fmt: skip


def _reply_conditions(door: RadiusDoor, policy: Policy | None, *, groups_are_known: bool) -> Iterator[Fault]:
    clients = {client.name for client in door.clients} | ({FREERADIUS} if door.freeradius is not None else set())
    rules = {rule.id for rule in policy.rules} | {DEFAULT_ID} if policy is not None else None
    for index, rule in enumerate(door.reply):
        path: Path = (*_DOOR, "reply", index, "when")
        for key, known, seen in (("client", clients, rule.when.client), ("rule", rules, rule.when.rule)):
            for name in seen:
                if known is not None and name not in known:
                    what = "a client of this door" if key == "client" else "the id of a policy rule, or default"
                    yield Fault((*path, key), f"{name[:64]!a}", what, f"there are {_some(known)}")
        if rule.when.group and not groups_are_known:
            cure = "set directory.groups: nss"
            yield Fault((*path, "group"), "a group, and directory.groups: none", "groups that are known", cure)


def _some(names: set[str]) -> str:
    shown = sorted(ascii(name) for name in names)
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")


def _exemptions(door: RadiusDoor, policy: Policy) -> Iterator[Fault]:
    """A rule for this door alone that exempts people whose password nobody checked: the door refuses them all."""
    nobody_checked = set(unchecked(door))
    for index, rule in enumerate(policy.rules):
        doors = [condition.doors for condition in rule.conditions if isinstance(condition, FromDoors)]
        if rule.action is not Action.EXEMPT or not doors or any(one != {Door.RADIUS} for one in doors):
            continue
        clients = set(concerned(door, rule))
        if clients and clients <= nobody_checked:
            yield Fault(
                ("policy", index, "exempt"),
                "an exemption where nobody has checked the password",
                "a first factor at the RADIUS door",
                f"{rule.id}: such logins are refused; set doors.radius.primary, or first_factor: done for clients that check "
                "passwords themselves",
            )


def _splits(door: RadiusDoor, policy: Policy) -> Iterator[Fault]:
    """A rule that lets a password stand before the code where a client's mode says that nothing but a code is typed."""
    if not door.checks_passwords:
        return
    alone = {client.name for client in door.clients if door.settings_for(client).mode is RadiusMode.MFA_ONLY}
    for index, rule in enumerate(policy.rules):
        if rule.grammar is None or rule.grammar.mode in {SplitMode.SEPARATE, SplitMode.OTP_ONLY}:
            continue
        clients = sorted(alone.intersection(concerned(door, rule)))
        if clients:
            yield Fault(
                ("policy", index, "split"),
                f"split: {rule.grammar.mode} for RADIUS client {clients[0]!a}, whose mode is mfa_only",
                "a rule that leaves such clients out",
                "nobody would check the password before the code: name the services of the rule, or set another mode there",
            )


def concerned(door: RadiusDoor, rule: Rule) -> tuple[str, ...]:
    """The clients to whose logins ``rule`` can apply, by name."""
    for condition in rule.conditions:
        if isinstance(condition, FromDoors) and Door.RADIUS not in condition.doors:
            return ()
    globs = [condition.services for condition in rule.conditions if isinstance(condition, ToServices)]
    return tuple(client.name for client in door.clients if all(one.match(client.name) for one in globs))


def unchecked(door: RadiusDoor) -> tuple[str, ...]:
    """The clients whose logins come without a password that anybody is known to have checked, by name."""
    found: list[str] = []
    for client in door.clients:
        keys = door.settings_for(client)
        ours = door.checks_passwords and keys.mode is not RadiusMode.MFA_ONLY
        if not ours and keys.first_factor is PasswordChecked.ELSEWHERE:
            found.append(client.name)
    return tuple(found)
