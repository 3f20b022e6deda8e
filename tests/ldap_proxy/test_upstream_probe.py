"""What the probe says of directories that are well, weak, or of no use to the door."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ldap_proxy.message import BIND_REQUEST, EXTENDED_REQUEST, SEARCH_REQUEST, WHO_AM_I, build_extended_response
from ldap_proxy.settings import Confirm, LookupSettings
from ldap_proxy.upstream_probe import ProbeStep, Seen, Weight, probe
from mfa_core.secret import Secret
from tests.ldap_proxy.directories import Behaviour, Caller, directory, done, entry, run, upstream_settings

SERVICE = LookupSettings("cn=mfad,dc=example,dc=org", Secret(b"the service account's own"))
CONTEXT = b"dc=example,dc=org"


def behaving(
    *, root: dict[str, list[bytes]] | None = None, finds: bool = False, who: bytes | None = b"", bind: int = 0
) -> Behaviour:
    """A directory with this root DSE, which lets strangers find entries or not, and says who is bound unless that is None."""

    def behave(caller: Caller, pdu: bytes, number: int, tag: int) -> bytes:
        if tag == SEARCH_REQUEST:
            if b"namingContexts" in pdu:
                found = {"namingContexts": [CONTEXT], "supportedLDAPVersion": [b"3"]} if root is None else root
                return (entry(number, b"", **found) if found else b"") + done(number, tag, 0 if found else 50)
            return (entry(number, CONTEXT) if finds else b"") + done(number, tag, 4 if finds else 0)
        if tag == EXTENDED_REQUEST:
            bound = BIND_REQUEST in caller.tags()
            return build_extended_response(number, 2) if who is None else build_extended_response(
                number, 0, value=who if bound else b""
            )
        return done(number, tag, bind if tag == BIND_REQUEST else 0)

    return behave


def look(behave: Behaviour, lookup: LookupSettings | None = None, confirm: Confirm = Confirm.WHOAMI, **more: Any) -> list[Seen]:
    async def main() -> list[Seen]:
        async with directory(behave) as one:
            return await probe(
                one.server, upstream_settings(one.server, **more), lookup=lookup, confirm=confirm, monotonic=time.monotonic
            )

    return run(main())


def of(step: ProbeStep, seen: list[Seen]) -> Seen:
    (found,) = (one for one in seen if one.step is step)
    assert bool(found.cure) is (found.weight is not Weight.GOOD)
    return found


def test_the_service_account_is_tried() -> None:
    """It may bind: then all is well."""
    seen = of(ProbeStep.SERVICE_ACCOUNT, look(behaving(who=b"dn:cn=mfad,dc=example,dc=org"), SERVICE))
    assert seen == Seen(ProbeStep.SERVICE_ACCOUNT, Weight.GOOD, "cn=mfad,dc=example,dc=org may bind")


def test_a_service_account_that_is_refused_is_a_problem() -> None:
    """With the result in words, and never the password."""
    for lookup, bind, said in (
        (SERVICE, 49, "invalid_credentials (49)"),
        (LookupSettings("cn=mfad", None), 0, "no password"),
        (LookupSettings("cn=mfad", Secret(b"")), 0, "no password"),
    ):
        seen = look(behaving(bind=bind), lookup)
        found = of(ProbeStep.SERVICE_ACCOUNT, seen)
        assert found.weight is Weight.PROBLEM
        assert said in found.said
        assert "bind_password_file" in found.cure
        assert "the service account's own" not in repr(seen)


def test_identities_that_are_no_dn_are_warned_of() -> None:
    """Active Directory says ``u:DOMAIN\\name``: no exemption by DN can be confirmed there."""
    behave = behaving(who=rb"u:EXAMPLE\mfad")
    found = of(ProbeStep.SERVICE_ACCOUNT, look(behave, SERVICE))
    assert found.weight is Weight.WARNING
    assert "as_bound" in found.cure
    assert of(ProbeStep.SERVICE_ACCOUNT, look(behave, SERVICE, Confirm.AS_BOUND)).weight is Weight.GOOD


def test_without_a_service_account_there_is_no_such_step() -> None:
    """Look-ups are anonymous then."""
    for lookup in (None, LookupSettings()):
        assert [one.step for one in look(behaving(), lookup)][-1] is ProbeStep.WHO_AM_I


@pytest.mark.parametrize(
    ("root", "confirm", "weight"),
    [
        (None, Confirm.WHOAMI, Weight.PROBLEM),
        (None, Confirm.AS_BOUND, Weight.WARNING),
        ({"supportedExtension": [WHO_AM_I.encode()]}, Confirm.WHOAMI, Weight.GOOD),
    ],
)
def test_a_directory_that_does_not_say_who_is_bound(root: Any, confirm: Confirm, weight: Weight) -> None:
    """A problem where that is what the door asks; some say it to nobody but those who are bound."""
    assert of(ProbeStep.WHO_AM_I, look(behaving(root=root, who=None), confirm=confirm)).weight is weight


def test_strangers_that_find_entries_are_warned_of() -> None:
    """They need no password, so that no code stands before it."""
    assert of(ProbeStep.ANONYMOUS, look(behaving(finds=True))).weight is Weight.WARNING
    assert of(ProbeStep.ANONYMOUS, look(behaving())).weight is Weight.GOOD


@pytest.mark.parametrize(
    ("root", "weight", "said"),
    [
        ({}, Weight.WARNING, "insufficient_access_rights (50)"),
        ({"supportedLDAPVersion": [b"2"]}, Weight.PROBLEM, "version 3"),
        ({"vendorName": [b"Example\x1b[31m Directory"], "namingContexts": [CONTEXT]}, Weight.WARNING, "Example [31m Directory"),
        ({"supportedExtension": [b"1.3.6.1.4.1.1466.20037"]}, Weight.WARNING, "StartTLS"),
    ],
)
def test_what_the_root_dse_says(root: dict[str, list[bytes]], weight: Weight, said: str) -> None:
    """And nothing of it reaches a terminal that is no text."""
    found = of(ProbeStep.ROOT_DSE, look(behaving(root=root)))
    assert found.weight is weight
    assert said in found.said


def test_a_directory_that_stops_answering_is_left_at_that_step() -> None:
    """What was seen before it stays."""

    def behave(caller: Caller, pdu: bytes, number: int, tag: int) -> bytes | None:
        return None if tag == EXTENDED_REQUEST else bytes(behaving()(caller, pdu, number, tag))  # type: ignore[arg-type]

    seen = look(behave, connect_timeout_s=0.5)
    assert [one.step for one in seen] == [
        ProbeStep.CONNECTION, ProbeStep.ROOT_DSE, ProbeStep.ANONYMOUS, ProbeStep.WHO_AM_I
    ]  # fmt: skip
    assert seen[-1].weight is Weight.PROBLEM
    assert "no answer within" in seen[-1].said
