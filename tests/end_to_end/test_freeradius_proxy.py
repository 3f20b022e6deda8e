"""Debian's FreeRADIUS in front of mfad's own ports, installed as docs/freeradius.md says: what it hands on, what not."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.daemon import Mfad
from tests.end_to_end.freeradius_site import (
    GUIDE,
    PEAP_GTC,
    PROGRAMS,
    SECRET,
    TTLS_GTC,
    TTLS_PAP,
    Ports,
    Site,
    ask_again,
    passable_directory,
)
from tests.end_to_end.programs import PATIENCE_S, must_be_root, must_have, wait_until
from tests.end_to_end.radius_packets import (
    ACCESS_ACCEPT,
    ACCT_SESSION_ID,
    ACCT_STATUS_TYPE,
    CALLING_STATION_ID,
    CHAP_PASSWORD,
    CLASS,
    FILTER_ID,
    GRACE_S,
    MESSAGE_AUTHENTICATOR,
    NAS_IDENTIFIER,
    PROXY_STATE,
    STATE,
    STOP,
    USER_NAME,
    attribute,
    chap,
)
from tests.end_to_end.radius_programs import free_port
from tests.end_to_end.radius_upstream import Upstream, reply
from tests.end_to_end.ttls import Inside, Outside, Tunnel

Change = tuple[str, str, str]
SITE = "sites-available/mfad-proxy"
AVPAIR = struct.pack(">I", 9) + attribute(1, b"shell:priv-lvl=15")
CLIENTS = f"""
client strict {{
	ipaddr = 127.0.0.3
	secret = "{SECRET}"
	require_message_authenticator = yes
}}
client vpn2 {{
	ipaddr = 127.0.0.4
	secret = "{SECRET}"
}}
"""
ANOTHER, CHOOSE = re.findall(r"```\n(.*?)```", GUIDE.read_text().partition("### If one NAS shall differ")[2], re.DOTALL)[:2]
"""How the guide gives one NAS settings of its own: a home server, and when it is asked."""
DOOR: dict[str, Any] = {
    "mode": "mfa_only",
    "empty_password": "challenge",
    "attempts": 2,
    "reply": [
        {
            "attributes": {
                "Filter-Id": ["vpn-users", 'grün \\ "%{x}"'],
                "Class": [{"octets": "0x6f7500ff"}, {"octets": "0x02"}],
                "Cisco-AVPair": "shell:priv-lvl=15",
                "Tunnel-Private-Group-Id:1": "42",
            },
        },
    ],
}


class Pair:
    """A FreeRADIUS that hands on, and the mfad behind it."""

    def __init__(
        self,
        directory: Path,
        template: Mfad,
        *,
        ports: Ports | None = None,
        changes: Sequence[Change] = (),
        **door: Any,
    ) -> None:
        self.ports = ports or Ports(free_port(), free_port())
        self.socket = directory / "mfad" / "run" / "radius" / "radius.sock"
        differs = [
            (SITE, "home_server_pool mfad {", ANOTHER.replace("18120", str(self.ports.auth)) + "home_server_pool mfad {"),
            (SITE, "\t\telse {", CHOOSE + "\t\telse {"),
        ]
        self.site = Site(directory / "site", self.socket, ports=self.ports, clients=CLIENTS, changes=(*differs, *changes))
        secret = str(self.site.secret_file)
        settings = {
            **DOOR,
            "listen": [f"127.0.0.1:{self.ports.auth}", f"acct://127.0.0.1:{self.ports.acct}"],
            "clients": [
                {"name": "freeradius-outside", "network": "127.0.0.1", "secret_file": secret},
                {"name": "freeradius-tunnel", "network": "127.0.0.2", "secret_file": secret, "challenges": False},
                {"name": "vpn2", "network": "127.0.0.3", "secret_file": secret, "prompt": "The other code: "},
            ],
            "authentication_log": "./authentication.log",
            "freeradius": {"socket": "./run/radius/radius.sock"},
            **door,
        }
        self.mfad = Mfad(directory / "mfad", {"doors": {"radius": settings}})
        self.mfad.copy_from(template)

    def start(self) -> Pair:
        self.mfad.start()
        self.site.start()
        return self

    def close(self) -> None:
        self.site.stop()
        self.mfad.close()

    def logged(self, **fields: object) -> list[dict[str, Any]]:
        path = self.mfad.directory / "authentication.log"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return [one for one in found if fields.items() <= one.items()]


@pytest.fixture(scope="module", autouse=True)
def _programs() -> None:
    must_be_root()
    must_have(*PROGRAMS, "eapol_test")


@pytest.fixture(scope="module", name="pair")
def _pair(template: Mfad) -> Iterator[Pair]:
    with passable_directory() as ground:
        one = Pair(ground, template)
        try:
            yield one.start()
        finally:
            one.close()


def test_the_guide_s_own_check_passes(pair: Pair) -> None:
    pair.site.check()
    assert pair.site.user == "freerad"
    assert pair.site.secret_file.stat().st_mode & 0o077 == 0
    assert (pair.site.raddb / "mfad-proxy.secret").stat().st_mode & 0o007 == 0


# PAP and CHAP


def test_a_code_lets_in_once_and_every_answer_is_signed_first(pair: Pair) -> None:
    person = pair.mfad.person()
    code = person.next_code()
    with pair.site.nas() as nas:
        accepted = nas.ask(nas.login(person.name, code, (CALLING_STATION_ID, b"203.0.113.9")))
        assert (accepted.what, accepted.signed_first) == ("Accept", True)
        spent = nas.ask(nas.login(person.name, code))
        assert (spent.what, spent.signed_first) == ("Reject", True)
    wait_until(lambda: len(pair.logged(user=person.name)) == 2, "two lines in the log")
    (line,) = pair.logged(user=person.name, outcome="accepted")
    assert (line["client"], line["source"]) == ("freeradius-outside", "203.0.113.9"), "what the NAS says of the person arrives"
    assert accepted.all(FILTER_ID) == [b"vpn-users", 'grün \\ "%{x}"'.encode()]
    assert accepted.all(CLASS) == [b"ou\0\xff", b"\x02"]
    assert accepted.all(26) == [AVPAIR]
    assert accepted.all(81) == [b"\x0142"]


def test_chap_shows_a_code_alone(pair: Pair) -> None:
    person = pair.mfad.person()
    with pair.site.nas() as nas:
        for sent, what in ((person.wrong_code(), "Reject"), (person.next_code(), "Accept")):
            one = os.urandom(16)
            request = nas.request(
                [(USER_NAME, person.name.encode()), (CHAP_PASSWORD, chap(5, sent.encode(), one))], authenticator=one
            )
            assert nas.ask(request).what == what


def test_a_challenge_is_answered_once(pair: Pair) -> None:
    person, other = pair.mfad.person(), pair.mfad.person()
    with pair.site.nas() as nas:
        asked = nas.ask(nas.login(person.name, ""))
        assert (asked.what, asked.text, asked.signed_first) == ("Challenge", "Verification code: ", True)
        code = other.next_code()
        assert nas.ask(nas.login(other.name, code, (STATE, asked.state))).what == "Reject", "it is somebody else's"
        again = nas.ask(nas.login(person.name, person.wrong_code(), (STATE, asked.state)))
        assert again.what == "Challenge"
        assert nas.ask(nas.login(person.name, person.next_code(), (STATE, again.state))).what == "Accept"
        assert nas.ask(nas.login(person.name, person.next_code(), (STATE, again.state))).what == "Reject", "the State is spent"


def test_a_retransmitted_request_gets_the_same_octets(pair: Pair) -> None:
    person = pair.mfad.person()
    with pair.site.nas() as nas:
        request = nas.login(person.name, person.next_code())
        first = nas.ask(request)
        assert first.what == "Accept"
        assert ask_again(nas, request).raw == first.raw


def test_proxy_states_come_back_in_order_and_the_one_of_freeradius_does_not(pair: Pair) -> None:
    person = pair.mfad.person()
    with pair.site.nas() as nas:
        answer = nas.ask(nas.login(person.name, person.next_code(), (PROXY_STATE, b"one"), (PROXY_STATE, b"two\0")))
    assert (answer.what, answer.all(PROXY_STATE), answer.signed_first) == ("Accept", [b"one", b"two\0"], True)


def test_freeradius_s_own_signature_makes_no_unsigned_request_good(pair: Pair) -> None:
    person = pair.mfad.person()
    code = person.next_code()
    with pair.site.nas() as nas:
        assert nas.is_silent(nas.login(person.name, code, (PROXY_STATE, b"x"), sign=False)), "limit_proxy_state"
        with type(nas)(nas.server, nas.secret, "127.0.0.3") as strict:
            assert strict.is_silent(strict.login(person.name, code, sign=False)), "require_message_authenticator"
        assert nas.ask(nas.login(person.name, code, sign=False)).what == "Accept", "nothing was spent; FreeRADIUS signs"


@pytest.mark.parametrize("tail", [b"\0", b"\0x", b"\0\0", b"\xff", b"\xfcx"], ids=repr)
def test_a_name_is_never_taken_for_the_part_before_an_odd_octet(pair: Pair, tail: bytes) -> None:
    person = pair.mfad.person()
    code = person.next_code()
    with pair.site.nas() as nas:
        assert nas.ask(nas.login(person.name.encode() + tail, code)).what == "Reject"
        assert nas.ask(nas.login(tail + person.name.encode(), code)).what == "Reject"
        assert nas.ask(nas.login(person.name, code, (77, b"\xff"))).what == "Accept", "not spent; odd octets elsewhere pass"


@pytest.mark.parametrize("odd", [b"{code}\0{code}", b"{code}\0x", b"{code}\xff", b"\xff{code}", b"\0{code}"], ids=repr)
def test_a_password_is_never_taken_for_the_part_before_an_odd_octet(pair: Pair, odd: bytes) -> None:
    person = pair.mfad.person()
    code = person.next_code()
    with pair.site.nas() as nas:
        assert nas.ask(nas.login(person.name, odd.replace(b"{code}", code.encode()))).what == "Reject"
        assert nas.ask(nas.login(person.name, code)).what == "Accept"


def test_one_nas_may_differ(pair: Pair) -> None:
    person = pair.mfad.person()
    with pair.site.nas() as nas, type(nas)(nas.server, nas.secret, "127.0.0.4") as other:
        assert nas.ask(nas.login(person.name, "")).text == "Verification code: "
        asked = other.ask(other.login(person.name, ""))
        assert asked.text == "The other code: "
        code = person.next_code()
        assert nas.ask(nas.login(person.name, code, (STATE, asked.state))).what == "Reject", "the State is the other's"
        assert other.ask(other.login(person.name, code, (STATE, asked.state))).what == "Accept"


# tunnels


@pytest.mark.parametrize("tunnel", [TTLS_PAP, TTLS_GTC, PEAP_GTC], ids=["ttls-pap", "ttls-gtc", "peap-gtc"])
def test_a_tunnel_carries_a_code_once(pair: Pair, tunnel: dict[str, str]) -> None:
    person = pair.mfad.person()
    code = person.next_code()
    wrong = pair.site.eapol(tunnel, person.name, person.wrong_code())
    assert wrong.rejected, wrong.screen
    right = pair.site.eapol(tunnel, person.name, code)
    assert right.success, right.screen
    assert "Attribute 11 (" in right.accept, "mfad's reply attributes come out of the tunnel"
    assert f"'{person.name}'" in right.accept, "the Accept names the person"
    again = pair.site.eapol(tunnel, person.name, code)
    assert again.rejected, again.screen
    client = "freeradius-tunnel" if tunnel is TTLS_PAP else "freeradius"
    wait_until(lambda: pair.logged(user=person.name, outcome="accepted", client=client), "the log says which way it came")


@pytest.mark.parametrize("tunnel", [TTLS_PAP, TTLS_GTC], ids=["ttls-pap", "ttls-gtc"])
def test_no_question_is_asked_inside_a_tunnel(pair: Pair, tunnel: dict[str, str]) -> None:
    assert pair.site.eapol(tunnel, pair.mfad.person().name, "").rejected


def test_a_device_cannot_say_where_it_is(pair: Pair) -> None:
    """RFC 5281 section 11.3: beside its password it may send any attribute; whose address counts is the network's to say."""
    person = pair.mfad.person()
    with pair.site.nas() as nas:
        way = Outside(nas, [(CALLING_STATION_ID, b"198.51.100.7")])
        more = [(CALLING_STATION_ID, b"10.1.2.3"), (PROXY_STATE, b"x"), (NAS_IDENTIFIER, b"another")]
        Tunnel(way, pair.site.authority.path).open().log_in(person.name.encode(), person.next_code().encode(), *more)
    assert way.last is not None
    assert (way.last.what, way.last.signed_first, way.last.all(PROXY_STATE)) == ("Accept", True, [])
    wait_until(lambda: pair.logged(user=person.name), "a line in the log")
    (line,) = pair.logged(user=person.name)
    assert line["source"] == "198.51.100.7"


def test_a_refusal_in_a_tunnel_is_signed_first(pair: Pair) -> None:
    person = pair.mfad.person()
    with pair.site.nas() as nas:
        way = Outside(nas)
        Tunnel(way, pair.site.authority.path).open().log_in(person.name.encode(), person.wrong_code().encode())
    assert way.last is not None
    assert (way.last.what, way.last.signed_first) == ("Reject", True)


def test_a_tunnel_in_a_tunnel_lets_nobody_in(pair: Pair) -> None:
    """FreeRADIUS hands nothing on from there."""
    person = pair.mfad.person()
    code = person.next_code()
    with pair.site.nas() as nas:
        way = Outside(nas)
        inside = Tunnel(Inside(Tunnel(way, pair.site.authority.path).open()), pair.site.authority.path).open()
        inside.log_in(person.name.encode(), code.encode())
        assert way.last is not None
        assert way.last.what != "Accept"
        assert nas.ask(nas.login(person.name, code)).what == "Accept", "FreeRADIUS lives, and the code was not spent"


def test_a_name_that_freeradius_itself_cuts_is_the_name_that_is_let_in(pair: Pair) -> None:
    """In TTLS-PAP FreeRADIUS drops a NUL and what follows before any policy: who is verified is who the Accept names."""
    person = pair.mfad.person()
    heard = pair.site.eapol(TTLS_PAP, person.name.encode() + b"\0x", person.next_code())
    assert heard.success, heard.screen
    assert f"'{person.name}'" in heard.accept
    assert pair.site.eapol(TTLS_PAP, person.name.encode() + b"\xff", person.next_code()).rejected


def without_module(pair: Pair) -> None:
    """What docs/freeradius.md says for those who do not use GTC."""
    raddb = pair.site.raddb
    (raddb / "mods-enabled" / "mfad").unlink()
    for name, section in (
        (SITE, r"\t\t#  GTC\n\t\tAuth-Type mfad \{.*?\n\t\t\}\n"),
        ("mods-available/mfad-eap", r"\tgtc \{.*?\n\t\}\n"),
        ("mods-available/mfad-eap", r"\tpeap \{.*?\n\t\}\n"),
        ("mods-available/mfad-eap", r"\t\tdefault_eap_type = gtc\n"),
    ):
        text, times = re.subn(section, "", (raddb / name).read_text(), flags=re.DOTALL)
        assert times == 1, section
        (raddb / name).write_text(text)


def test_without_the_module_all_but_gtc_works(template: Mfad) -> None:
    with passable_directory() as ground:
        pair = Pair(ground, template)
        without_module(pair)
        person, other = pair.mfad.person(), pair.mfad.person()
        try:
            pair.start()
            with pair.site.nas() as nas:
                assert nas.ask(nas.login(person.name, person.next_code())).what == "Accept"
            heard = pair.site.eapol(TTLS_PAP, person.name, person.next_code())
            assert heard.success, heard.screen
            assert pair.site.eapol(TTLS_GTC, other.name, other.next_code()).rejected
        finally:
            pair.close()


# accounting


def test_accounting_is_acknowledged_by_mfad(pair: Pair) -> None:
    with pair.site.nas("acct") as nas:
        record = nas.accounting(
            (ACCT_STATUS_TYPE, STOP),
            (USER_NAME, b"bob\0x\xff"),
            (ACCT_SESSION_ID, b"s-77"),
            (CALLING_STATION_ID, b"203.0.113.9"),
        )
        assert nas.ask(record).what == "Accounting-Response"
    wait_until(lambda: pair.logged(kind="accounting", session="s-77"), "the record is logged")
    (line,) = pair.logged(kind="accounting", session="s-77")
    assert (line["user"], line["status"], line["source"]) == ("bob\0x\\xff", "stop", "203.0.113.9")


# a slow first factor


def test_a_slow_first_factor_holds_up_nobody_else(template: Mfad) -> None:
    """Two passwords are being checked, one outside and one in a tunnel, and everybody else gets in."""
    with passable_directory() as ground, Upstream(b"the secret of the upstream") as upstream, ThreadPoolExecutor(2) as beside:
        pair = Pair(ground, template, primary=upstream.primary(ground), mode="concat")
        slow, inside, *others = (pair.mfad.person() for _ in range(5))
        try:
            pair.start()
            with pair.site.nas() as nas:
                request = nas.login(slow.name, "slow" + slow.next_code())
                nas.send(request)
                waiting = [upstream.next()]
                tunnel = beside.submit(pair.site.eapol, TTLS_PAP, inside.name, "slow" + inside.next_code(), patience_s=20)
                waiting.append(upstream.next())
                fast = nas.login(others[0].name, "fast" + others[0].next_code())
                nas.send(fast)
                upstream.answer(upstream.next())
                assert nas.receive(fast).what == "Accept"
                for person, way in zip(others[1:], (TTLS_PAP, PEAP_GTC), strict=True):
                    heard = beside.submit(pair.site.eapol, way, person.name, "fast" + person.next_code())
                    upstream.answer(upstream.next())
                    assert heard.result().success, heard.result().screen
                assert not tunnel.done()
                upstream.answer_all(waiting)
                assert nas.receive(request).what == "Accept"
                assert tunnel.result().success, tunnel.result().screen
        finally:
            pair.close()


# an mfad that is not there

HASTY: list[Change] = [
    (SITE, "response_window = 28", "response_window = 1"),
    (SITE, "zombie_period = 120", "zombie_period = 1"),
] * 3


@pytest.fixture(scope="module", name="broken")
def _broken(template: Mfad) -> Iterator[Pair]:
    with passable_directory() as ground:
        one = Pair(ground, template)
        try:
            yield one.start()
        finally:
            one.close()


@pytest.fixture(name="own")
def _own(broken: Pair) -> Pair:
    """One to be broken, in which all runs."""
    if not broken.mfad.running:
        broken.mfad.start()
    return broken


def test_nobody_is_let_in_while_mfad_is_down_and_a_retransmit_when_it_is_back(own: Pair) -> None:
    person = own.mfad.person()
    own.mfad.stop()
    with own.site.nas() as nas, own.site.nas("acct") as records:
        request = nas.login(person.name, person.next_code())
        record = records.accounting((ACCT_STATUS_TYPE, STOP))
        assert nas.is_silent(request)
        records.send(record)
        own.mfad.start()
        assert ask_again(nas, request).what == "Accept"
        assert ask_again(records, record).what == "Accounting-Response"


def test_nobody_is_let_in_by_an_mfad_that_is_killed_in_mid_request(own: Pair) -> None:
    person = own.mfad.person()
    with own.site.nas() as nas:
        assert own.mfad._program is not None
        own.mfad._program.send_signal(signal.SIGSTOP)
        assert nas.is_silent(nas.login(person.name, person.next_code()))
        own.mfad.kill()
        assert nas.stays_silent()
        own.mfad.start()
        assert nas.ask(nas.login(person.name, person.next_code())).what == "Accept"


def test_a_tunnel_ends_in_silence_while_mfad_is_down(own: Pair) -> None:
    person = own.mfad.person()
    own.mfad.stop()
    heard = own.site.eapol(TTLS_PAP, person.name, person.next_code(), patience_s=2)
    assert not heard.success
    assert not {"Access-Accept", "Access-Reject"} & set(heard.codes)


def test_nothing_is_answered_while_mfad_is_held_for_dead(template: Mfad) -> None:
    with passable_directory() as ground:
        pair = Pair(ground, template, changes=HASTY)
        try:
            pair.site.start()
            person = pair.mfad.person()
            with pair.site.nas() as nas, pair.site.nas("acct") as records:
                nas.send(nas.login(person.name, person.wrong_code()))
                records.send(records.accounting((ACCT_STATUS_TYPE, STOP)))
                wait_until(lambda: pair.site.log().count("as dead") == 2, "both ports are held for dead")
                records.send(records.accounting((ACCT_STATUS_TYPE, STOP)))
                assert nas.is_silent(nas.login(person.name, person.wrong_code()))
                records.socket.settimeout(GRACE_S)
                with pytest.raises(TimeoutError):
                    records.socket.recv(65_535)
        finally:
            pair.close()


def test_an_answer_that_is_not_signed_is_none(template: Mfad) -> None:
    """What whoever has a collision of MD5 can forge (CVE-2024-3596), and what somebody without the secret can."""
    with passable_directory() as ground, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as impostor:
        impostor.bind(("127.0.0.1", 0))
        impostor.settimeout(PATIENCE_S)
        pair = Pair(ground, template, ports=Ports(impostor.getsockname()[1], free_port()))
        secret = pair.site.secret_file.read_bytes().strip()
        try:
            pair.site.start()
            with pair.site.nas() as nas:
                for key, sign in ((secret, False), (b"another", True), (secret, True)):
                    request = nas.login("alice", "123456")
                    nas.send(request)
                    asked, sender = impostor.recvfrom(65_535)
                    assert MESSAGE_AUTHENTICATOR in [kind for kind, _ in attributes(asked)], "FreeRADIUS signs"
                    body = b"".join(attribute(kind, value) for kind, value in attributes(asked) if kind == PROXY_STATE)
                    impostor.sendto(reply(asked, ACCESS_ACCEPT, key, body, sign=sign), sender)
                    if (key, sign) == (secret, True):
                        assert nas.receive(request).what == "Accept"
                    else:
                        assert nas.stays_silent()
        finally:
            pair.close()


def attributes(raw: bytes) -> Iterator[tuple[int, bytes]]:
    at = 20
    while at < len(raw):
        yield raw[at], raw[at + 2 : at + raw[at + 1]]
        at += raw[at + 1]
