"""What does each family of clients need that differs from the defaults, and how is that known?

Room rule: data. A preset says nothing about passwords and modes, which differ from site to site, and weakens only what its
family cannot do. A key that stands at the client always beats its preset; the preset beats the door's own keys.

What is marked SEEN was observed with the program itself (Debian 12). Everything else is known from the vendors' documents and
from reports of others: nobody has tried it here on a device.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from radius_plugin.settings import AttributeName, RequireSignature, SignReplies

PALO_ALTO_CLIENT_SOURCE_IP: Final = AttributeName(7, vendor=25461)


class Known(enum.StrEnum):
    """Where a choice comes from."""

    SEEN = "seen"
    DOCUMENTS = "documents"


@dataclass(frozen=True, slots=True)
class Choice:
    """One value of :class:`radius_plugin.settings.ClientSettings`, and why this family needs it."""

    value: object
    reason: str
    known: Known = Known.DOCUMENTS


@dataclass(frozen=True, slots=True)
class Preset:
    """What a family of clients needs. ``advice`` is what is to be set on the device, one sentence each."""

    title: str
    choices: Mapping[str, Choice]
    advice: tuple[str, ...] = ()

    def settings(self) -> dict[str, object]:
        """The values alone, by field of ClientSettings."""
        return {name: choice.value for name, choice in self.choices.items()}


PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {
        "fortigate": Preset(
            "Fortinet FortiGate",
            {
                "reply_message_authenticator": Choice(
                    SignReplies.ALWAYS, "FortiOS 7.2.10 and later drops replies that carry no Message-Authenticator."
                ),
                "retry_budget_s": Choice(
                    60.0,
                    "It sends the same request every `timeout` seconds until remoteauthtimeout is over: 5 s by default, and "
                    "60 s where Fortinet's own guide for push has been followed.",
                ),
            },
            (
                "config system global / set remoteauthtimeout 60, and config user radius / set timeout 30: both are 5 s.",
                "FortiOS before 7.2.10 signs no requests; for it say require_message_authenticator: no, or better update it.",
            ),
        ),
        "checkpoint": Preset(
            "Check Point Gaia",
            {
                "reply_message_authenticator": Choice(
                    SignReplies.NEVER,
                    "It drops replies that carry a Message-Authenticator until it is reconfigured (sk182516). Say always once "
                    "that is done.",
                ),
            },
            ("RADIUS version 1.0 cuts passwords at 16 octets, which is too little for password and code: choose 2.0.",),
        ),
        "paloalto": Preset(
            "Palo Alto Networks PAN-OS, GlobalProtect",
            {
                "source_attribute": Choice(
                    PALO_ALTO_CLIENT_SOURCE_IP,
                    "The address of the person's device stands in PaloAlto-Client-Source-IP, not in Calling-Station-Id.",
                ),
            },
            (
                "set authentication radius-vsa-on client-source-ip: PAN-OS sends the address only then.",
                "Choose PAP in the server profile: PAN-OS may try CHAP first, which can carry the code alone.",
                "Timeout times retries of the server profile must exceed the time that an answer may take.",
            ),
        ),
        "cisco_asa": Preset(
            "Cisco ASA and Secure Firewall, AnyConnect",
            {
                "challenges": Choice(True, "AnyConnect shows Access-Challenge as a second prompt."),
                "retry_budget_s": Choice(
                    60.0, "It sends again every retry-interval until `timeout` is over; 60 s is what guides for push recommend."
                ),
            },
            (
                "aaa-server NAME (IF) host ADDRESS / timeout 60: the default of 10 s is over before most people answered.",
                "Set the client profile's Authentication Timeout to 60 s as well.",
            ),
        ),
        "openvpn": Preset(
            "OpenVPN with openvpn-auth-radius",
            {
                "require_message_authenticator": Choice(
                    RequireSignature.NO,
                    "Plugin 2.1 signs no requests and checks no replies. Keep it on loopback, or let radsecproxy carry it; "
                    "over a network nothing else stops a forged answer.",
                    Known.SEEN,
                ),
                "challenges": Choice(
                    False,
                    "The plugin takes an Access-Challenge for an error. The code comes with the password, or by OpenVPN's "
                    "static challenge (SCRV1).",
                    Known.SEEN,
                ),
                "join_retries": Choice(
                    True,
                    "Each retry has a new source port and a new authenticator, and is no retransmit by RFC 5080: unless they "
                    "are joined, a slow first answer turns the second into a replay of the code.",
                    Known.SEEN,
                ),
            },
            (
                "auth-gen-token in the server's configuration, else the client sends the spent code again at renegotiation.",
                "workers: 1, because a retry from another port may reach another worker.",
            ),
        ),
        "juniper": Preset(
            "Juniper Junos",
            {
                "reply_message_authenticator": Choice(
                    SignReplies.ALWAYS,
                    "MAC authentication and the Session Smart Router take an Access-Accept only if it is signed.",
                ),
            },
        ),
        "mikrotik": Preset(
            "MikroTik RouterOS",
            {
                "challenges": Choice(
                    False,
                    "Its manual knows no Access-Challenge for PPP, OpenVPN, L2TP and logins: the code comes with the password.",
                ),
            },
            ("/radius set timeout=3s: the default is a fraction of a second, and ends before most first factors answer.",),
        ),
        "strongswan": Preset(
            "strongSwan eap-radius",
            {
                "require_message_authenticator": Choice(
                    RequireSignature.YES, "It forwards EAP, which is always signed (RFC 3579 section 3.2)."
                ),
            },
            (
                "charon.plugins.eap-radius.station_id_with_port = no: with the port in it Calling-Station-Id is no address.",
                "EAP itself ends in FreeRADIUS, with mfad's module in it.",
            ),
        ),
    }
)
"""By the name that stands in the configuration as ``preset``."""
