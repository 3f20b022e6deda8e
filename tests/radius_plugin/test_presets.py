"""What each family of clients is given, and that a preset weakens nothing without a reason."""

from __future__ import annotations

import ipaddress
from dataclasses import fields, replace

import pytest

from mfa_core.secret import Secret
from mfa_runtime.config.radius_door import NasFamily
from radius_plugin.attributes import Dictionaries
from radius_plugin.presets import PALO_ALTO_CLIENT_SOURCE_IP, PRESETS, Known
from radius_plugin.settings import ClientSettings, RequireSignature, SignReplies

PLAIN = ClientSettings("nas", ipaddress.ip_network("192.0.2.1"), (Secret(b"0123456789abcdef"),))


def test_the_configuration_knows_the_same_families() -> None:
    """A preset that cannot be written, or a name without values, is found here."""
    assert set(PRESETS) == {family.value for family in NasFamily}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_settings_that_exist(name: str) -> None:
    """With values of the right type, and a reason for each."""
    preset = PRESETS[name]

    with_it = replace(PLAIN, **preset.settings())  # type: ignore[arg-type]

    known = {one.name for one in fields(ClientSettings)}
    assert set(preset.choices) <= known - {"name", "network", "secrets", "first_factor", "mode"}
    for field, choice in preset.choices.items():
        assert type(getattr(with_it, field)) is type(getattr(PLAIN, field))
        assert choice.reason.endswith(".")
    assert all(sentence.endswith(".") for sentence in preset.advice)
    # auto teaches by the first packet, which is for the administrator to allow.
    assert with_it.require_message_authenticator is not RequireSignature.AUTO


def test_only_two_families_weaken_anything() -> None:
    """Check Point drops signed replies, and OpenVPN's plugin signs nothing: it was seen."""
    unsigned = {n for n, p in PRESETS.items() if p.settings().get("require_message_authenticator") is RequireSignature.NO}
    silent = {n for n, p in PRESETS.items() if p.settings().get("reply_message_authenticator") is SignReplies.NEVER}

    assert (unsigned, silent) == ({"openvpn"}, {"checkpoint"})
    assert {choice.known for choice in PRESETS["openvpn"].choices.values()} == {Known.SEEN}
    assert all("limit_proxy_state" not in preset.choices for preset in PRESETS.values())


def test_the_source_of_palo_alto_is_the_dictionarys() -> None:
    """The number stands in two places."""
    assert Dictionaries.load().lookup("PaloAlto-Client-Source-IP") == PALO_ALTO_CLIENT_SOURCE_IP
