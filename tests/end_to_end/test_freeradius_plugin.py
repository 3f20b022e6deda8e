"""Debian's FreeRADIUS with mfad's module, installed as docs/freeradius.md says, in front of a real mfad. (Row 59, and more.)"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.daemon import Mfad
from tests.end_to_end.freeradius_site import (
    NAME,
    PEAP_GTC,
    PROGRAMS,
    SECRET,
    TTLS_GTC,
    TTLS_PAP,
    Site,
    ask_again,
    passable_directory,
)
from tests.end_to_end.programs import must_be_root, must_have, wait_until
from tests.end_to_end.radius_certificates import Authority
from tests.end_to_end.radius_packets import (
    CALLING_STATION_ID,
    CLASS,
    FILTER_ID,
    NAS_IDENTIFIER,
    PROXY_STATE,
    STATE,
    STOP,
    USER_NAME,
    attribute,
    chap,
)
from tests.end_to_end.radius_programs import radclient

VENDOR_SPECIFIC, ACCT_STATUS_TYPE, ACCT_SESSION_ID, ACCT_INPUT_OCTETS, CHAP_PASSWORD = 26, 40, 44, 42, 3
TUNNEL_TYPE, TUNNEL_GROUP, CONNECT_INFO = 64, 81, 77
AVPAIR = struct.pack(">I", 9) + attribute(1, b"shell:priv-lvl=15")
OTHER_CLIENTS = f"""
client latin {{
	ipaddr = 127.0.0.2
	secret = "{SECRET}"
}}
client strict {{
	ipaddr = 127.0.0.3
	secret = "{SECRET}"
	require_message_authenticator = yes
}}
"""
DOOR: dict[str, Any] = {
    "listen": [],
    "clients": [],
    "mode": "mfa_only",
    "empty_password": "challenge",
    "attempts": 2,
    "reply": [
        {
            "attributes": {
                "Filter-Id": ["vpn-users", 'grün \\ "%{x}"'],
                "Class": [{"octets": "0x6f7500ff"}, {"octets": "0x02"}],
                "Session-Timeout": 3600,
                "Framed-IP-Address": "100.65.32.33",
                "Cisco-AVPair": "shell:priv-lvl=15",
                "Tunnel-Type:1": "VLAN",
                "Tunnel-Private-Group-Id:1": "42",
            },
        },
    ],
}


@pytest.fixture(scope="module", name="programs")
def _programs() -> None:
    must_be_root()
    must_have(*PROGRAMS, "eapol_test")


def asked_through(template: Mfad, directory: Path, **door: Any) -> Mfad:
    """An mfad whose RADIUS door is FreeRADIUS's socket alone, and who stands in the template."""
    mfad = Mfad(directory, settings(directory, **door))
    mfad.copy_from(template)
    return mfad


def settings(directory: Path, **door: Any) -> dict[str, Any]:
    log = {"authentication_log": "./authentication.log", "freeradius": {"socket": "./run/radius/radius.sock"}}
    return {"doors": {"radius": {**DOOR, **log, **door}}}


def socket_of(mfad: Mfad) -> Path:
    return mfad.directory / "run" / "radius" / "radius.sock"


def logged(mfad: Mfad, **fields: object) -> list[dict[str, Any]]:
    path = mfad.directory / "authentication.log"
    lines = path.read_text().splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("}")]
    return [one for one in found if fields.items() <= one.items()]


@pytest.fixture(scope="module", name="ground")
def _ground(programs: None) -> Iterator[Path]:
    with passable_directory() as one:
        yield one


@pytest.fixture(scope="module", name="mfad")
def _mfad(ground: Path, template: Mfad) -> Iterator[Mfad]:
    one = asked_through(template, ground / "mfad")
    one.start()
    yield one
    one.close()


@pytest.fixture(scope="module", name="site")
def _site(mfad: Mfad, ground: Path) -> Iterator[Site]:
    one = Site(ground / "site", socket_of(mfad), clients=OTHER_CLIENTS)
    try:
        yield one.start()
    finally:
        one.stop()


# as installed


def test_the_guide_s_own_check_passes_and_freeradius_runs_as_its_own_user(site: Site) -> None:
    site.check()
    assert site.user == "freerad"


def test_only_freeradius_s_group_may_enter_the_socket_s_directory(mfad: Mfad, site: Site) -> None:
    found = socket_of(mfad).parent.stat()
    assert found.st_mode & 0o007 == 0
    assert found.st_gid == (site.raddb / "radiusd.conf").stat().st_gid


# PAP


def test_a_code_lets_in_once(mfad: Mfad, site: Site) -> None:
    person = mfad.person()
    code = person.next_code()
    with site.nas() as nas:
        assert nas.ask(nas.login(person.name, code)).what == "Accept"
        assert nas.ask(nas.login(person.name, code)).what == "Reject", "it is spent"
        assert nas.ask(nas.login(person.name, person.wrong_code())).what == "Reject"
    wait_until(lambda: len(logged(mfad, user=person.name, client="freeradius", nas="127.0.0.1")) == 3, "three lines in the log")
    assert [one["outcome"] for one in logged(mfad, user=person.name)] == ["accepted", "rejected", "rejected"]


def test_radclient_gets_in_with_a_code(mfad: Mfad, site: Site) -> None:
    person = mfad.person()
    words = f'User-Name = "{person.name}", User-Password = "{person.next_code()}"'
    server = f"127.0.0.1:{site.ports['auth']}"
    heard = radclient(server, SECRET, site.directory, words)
    assert heard.what == "Access-Accept", heard.screen
    assert radclient(server, SECRET, site.directory, words).what == "Access-Reject"


def test_a_retransmitted_request_gets_the_same_octets(mfad: Mfad, site: Site) -> None:
    person = mfad.person()
    with site.nas() as nas:
        request = nas.login(person.name, person.next_code())
        first = nas.ask(request)
        assert first.what == "Accept"
        assert ask_again(nas, request).raw == first.raw


def test_every_reply_begins_with_its_signature(mfad: Mfad, site: Site) -> None:
    person = mfad.person()
    with site.nas() as nas:
        for name, password, what in (
            (person.name, person.next_code(), "Accept"),
            (person.name, person.wrong_code(), "Reject"),
            (person.name, "", "Challenge"),
            (None, "123456", "Reject"),
            ("nobody-of-this-name", "123456", "Reject"),
        ):
            answer = nas.ask(nas.login(name, password))
            assert (answer.what, answer.signed_first) == (what, True), (name, answer)


def test_reply_attributes_arrive_octet_by_octet(mfad: Mfad, site: Site) -> None:
    person = mfad.person()
    with site.nas() as nas:
        answer = nas.ask(nas.login(person.name, person.next_code()))
    assert answer.what == "Accept"
    assert answer.all(FILTER_ID) == [b"vpn-users", 'grün \\ "%{x}"'.encode()]
    assert answer.all(CLASS) == [b"ou\0\xff", b"\x02"]
    assert answer.all(27) == [struct.pack(">I", 3600)]
    assert answer.all(8) == [bytes([100, 65, 32, 33])]
    assert answer.all(VENDOR_SPECIFIC) == [AVPAIR]
    assert answer.all(TUNNEL_TYPE) == [b"\1\0\0\x0d"]
    assert answer.all(TUNNEL_GROUP) == [b"\x0142"]


def test_chap_shows_a_code_alone(mfad: Mfad, site: Site) -> None:
    person = mfad.person()
    challenge = os.urandom(16)
    with site.nas() as nas:
        for sent, what in ((person.wrong_code(), "Reject"), (person.next_code(), "Accept")):
            one = os.urandom(16)
            request = nas.request(
                [(USER_NAME, person.name.encode()), (CHAP_PASSWORD, chap(5, sent.encode(), one))], authenticator=one
            )
            assert nas.ask(request).what == what, "the authenticator is the challenge"
        answer = chap(6, person.next_code().encode(), challenge)
        request = nas.request([(USER_NAME, person.name.encode()), (CHAP_PASSWORD, answer), (60, challenge)])
        assert nas.ask(request).what == "Accept", "CHAP-Challenge is"


def test_proxy_states_come_back_in_order(mfad: Mfad, site: Site) -> None:
    person = mfad.person()
    with site.nas() as nas:
        answer = nas.ask(nas.login(person.name, person.next_code(), (PROXY_STATE, b"one"), (PROXY_STATE, b"two\0")))
    assert (answer.what, answer.all(PROXY_STATE), answer.signed_first) == ("Accept", [b"one", b"two\0"], True)


def test_an_unsigned_request_with_proxy_state_is_not_answered(mfad: Mfad, site: Site) -> None:
    person = mfad.person()
    with site.nas() as nas:
        code = person.next_code()
        assert nas.is_silent(nas.login(person.name, code, (PROXY_STATE, b"x"), sign=False))
        assert nas.ask(nas.login(person.name, code, sign=False)).what == "Accept", "nothing was spent"


def test_an_unsigned_request_of_a_client_that_must_sign_is_not_answered(mfad: Mfad, site: Site) -> None:
    person = mfad.person()
    with site.nas() as nas:
        nas.socket.close()
    strict = type(nas)(nas.server, nas.secret, "127.0.0.3")
    with strict:
        code = person.next_code()
        assert strict.is_silent(strict.login(person.name, code, sign=False))
        assert strict.ask(strict.login(person.name, code)).what == "Accept"


# challenges


def test_a_challenge_is_answered_once(mfad: Mfad, site: Site) -> None:
    person = mfad.person()
    with site.nas() as nas:
        asked = nas.ask(nas.login(person.name, ""))
        assert (asked.what, asked.text) == ("Challenge", "Verification code: ")
        again = nas.ask(nas.login(person.name, person.wrong_code(), (STATE, asked.state)))
        assert again.what == "Challenge"
        assert again.state != asked.state
        accepted = nas.ask(nas.login(person.name, person.next_code(), (STATE, again.state)))
        assert accepted.what == "Accept"
        replayed = nas.ask(nas.login(person.name, person.next_code(), (STATE, again.state)))
        assert replayed.what == "Reject", "the State is spent"


def test_a_state_of_somebody_else_is_refused(mfad: Mfad, site: Site) -> None:
    person, other = mfad.person(), mfad.person()
    with site.nas() as nas:
        state = nas.ask(nas.login(other.name, "")).state
        code = person.next_code()
        assert nas.ask(nas.login(person.name, code, (STATE, state))).what == "Reject"
        assert nas.ask(nas.login(person.name, code, (STATE, b"junk\0"))).what == "Reject"
        assert nas.ask(nas.login(person.name, code)).what == "Accept", "no refusal of a State spends a code"


def test_too_many_wrong_codes_end_the_dialogue(mfad: Mfad, site: Site) -> None:
    person = mfad.person()
    with site.nas() as nas:
        first = nas.ask(nas.login(person.name, ""))
        second = nas.ask(nas.login(person.name, person.wrong_code(), (STATE, first.state)))
        assert nas.ask(nas.login(person.name, person.wrong_code(), (STATE, second.state))).what == "Reject"


# octets


@pytest.mark.parametrize("tail", [b"\0", b"\0x", b"\0\0", b"\xff", b"\xfcx"], ids=repr)
def test_a_name_is_never_taken_for_the_part_before_an_odd_octet(mfad: Mfad, site: Site, tail: bytes) -> None:
    person = mfad.person()
    code = person.next_code()
    with site.nas() as nas:
        assert nas.ask(nas.login(person.name.encode() + tail, code)).what == "Reject"
        assert nas.ask(nas.login(tail + person.name.encode(), code)).what == "Reject"
        assert nas.ask(nas.login(person.name, code)).what == "Accept", "the code was not spent, nor the name locked"


@pytest.mark.parametrize("odd", [b"{code}\0{code}", b"{code}\xff", b"\xff{code}", b"\0{code}"], ids=repr)
def test_a_password_is_never_taken_for_the_part_before_an_odd_octet(mfad: Mfad, site: Site, odd: bytes) -> None:
    person = mfad.person()
    code = person.next_code()
    with site.nas() as nas:
        assert nas.ask(nas.login(person.name, odd.replace(b"{code}", code.encode()))).what == "Reject"
        assert nas.ask(nas.login(person.name, code)).what == "Accept"


def test_odd_octets_elsewhere_are_no_obstacle_where_the_policy_hides_them(mfad: Mfad, site: Site) -> None:
    person = mfad.person()
    odd = [(CALLING_STATION_ID, b"\xff\0"), (30, b"aa:caf\xe9"), (NAS_IDENTIFIER, b"n\0"), (ACCT_SESSION_ID, b"\xfe")]
    with site.nas() as nas:
        assert nas.ask(nas.login(person.name, person.next_code(), *odd)).what == "Accept"


def test_odd_octets_elsewhere_are_refused_where_it_does_not(mfad: Mfad, site: Site) -> None:
    """rlm_python3 of 3.2.1 fails on them before any code of ours runs."""
    person = mfad.person()
    code = person.next_code()
    with site.nas() as nas:
        assert nas.ask(nas.login(person.name, code, (CONNECT_INFO, b"\xff"))).what == "Reject"
        assert nas.ask(nas.login(person.name, code)).what == "Accept"


def test_the_longest_name_and_password_are_read_whole(mfad: Mfad, site: Site) -> None:
    person = mfad.person()
    code = person.next_code()
    with site.nas() as nas:
        assert nas.ask(nas.login("x" * 253, code)).what == "Reject"
        assert nas.ask(nas.login(person.name, code + "x" * (128 - len(code)))).what == "Reject"
        assert nas.ask(nas.login(person.name, code)).what == "Accept"


# EAP


@pytest.mark.parametrize("tunnel", [TTLS_PAP, TTLS_GTC, PEAP_GTC], ids=["ttls-pap", "ttls-gtc", "peap-gtc"])
def test_a_tunnel_carries_a_code_once(mfad: Mfad, site: Site, tunnel: dict[str, str]) -> None:
    person = mfad.person()
    code = person.next_code()
    wrong = site.eapol(tunnel, person.name, person.wrong_code())
    assert wrong.rejected, wrong.screen
    right = site.eapol(tunnel, person.name, code)
    assert right.success, right.screen
    assert "Attribute 11 (" in right.accept, "mfad's reply attributes come out of the tunnel"
    assert f"'{person.name}'" in right.accept, "the Accept names the person"
    again = site.eapol(tunnel, person.name, code)
    assert again.rejected, again.screen


@pytest.mark.parametrize("tunnel", [TTLS_PAP, TTLS_GTC, PEAP_GTC], ids=["ttls-pap", "ttls-gtc", "peap-gtc"])
def test_no_question_is_asked_inside_a_tunnel(mfad: Mfad, site: Site, tunnel: dict[str, str]) -> None:
    assert site.eapol(tunnel, mfad.person().name, "").rejected


@pytest.mark.parametrize("tail", [b"\0x", b"\xff"], ids=repr)
@pytest.mark.parametrize("tunnel", [TTLS_GTC, PEAP_GTC], ids=["ttls-gtc", "peap-gtc"])
def test_an_odd_name_inside_a_tunnel_is_nobody(mfad: Mfad, site: Site, tunnel: dict[str, str], tail: bytes) -> None:
    person = mfad.person()
    assert site.eapol(tunnel, person.name.encode() + tail, person.next_code()).rejected


def test_a_name_that_freeradius_itself_cuts_is_the_name_that_is_let_in(mfad: Mfad, site: Site) -> None:
    """In TTLS-PAP FreeRADIUS drops a NUL and what follows before any module: who is verified is who the Accept names."""
    person = mfad.person()
    heard = site.eapol(TTLS_PAP, person.name.encode() + b"\0x", person.next_code())
    assert heard.success, heard.screen
    assert f"'{person.name}'" in heard.accept
    wait_until(lambda: logged(mfad, user=person.name, outcome="accepted"), "the log names the person too")
    assert site.eapol(TTLS_PAP, person.name.encode() + b"\xff", person.next_code()).rejected


def test_a_client_that_trusts_another_authority_gives_no_password_away(mfad: Mfad, site: Site, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    other.issue(NAME, server=True)
    person = mfad.person()
    heard = site.eapol(TTLS_PAP, person.name, person.next_code(), trust=other.path)
    assert not heard.success
    assert not logged(mfad, user=person.name)


# accounting


def test_accounting_is_acknowledged_and_logged(mfad: Mfad, site: Site) -> None:
    with site.nas("acct") as nas:
        record = nas.accounting(
            (ACCT_STATUS_TYPE, STOP),
            (USER_NAME, b"bob\0x\xff"),
            (ACCT_SESSION_ID, b"s-77"),
            (CALLING_STATION_ID, b"203.0.113.9"),
            (ACCT_INPUT_OCTETS, struct.pack(">I", 5)),
            (46, struct.pack(">I", 33)),
            (49, struct.pack(">I", 1)),
        )
        assert nas.ask(record).what == "Accounting-Response"
        assert nas.ask(nas.accounting((ACCT_STATUS_TYPE, struct.pack(">I", 7)))).what == "Accounting-Response"
    wait_until(lambda: logged(mfad, kind="accounting", session="s-77"), "the record is logged")
    (line,) = logged(mfad, kind="accounting", session="s-77")
    assert line["user"] == "bob\0x\\xff"
    assert (line["status"], line["source"], line["session_seconds"], line["input_octets"]) == ("stop", "203.0.113.9", 33, 5)
    assert line["terminate_cause"] == 1


# what is said


def test_no_code_is_in_any_log(mfad: Mfad, site: Site) -> None:
    person = mfad.person()
    code, wrong = person.next_code(), person.wrong_code()
    with site.nas() as nas:
        nas.ask(nas.login(person.name, f"correct horse {wrong}"))
        assert nas.ask(nas.login(person.name, code)).what == "Accept"
    wait_until(lambda: logged(mfad, user=person.name, outcome="accepted"), "the log is written")
    for text in (site.log(), mfad.log(), (mfad.directory / "authentication.log").read_text()):
        assert "correct horse" not in text


# an mfad that is not there


@pytest.fixture(name="own_ground")
def _own_ground(programs: None) -> Iterator[Path]:
    with passable_directory() as one:
        yield one


@pytest.fixture(name="own")
def _own(template: Mfad, own_ground: Path) -> Iterator[tuple[Mfad, Site]]:
    """An mfad and a FreeRADIUS to be broken; the module waits 2 seconds."""
    directory = own_ground
    mfad = asked_through(template, directory / "mfad")
    site = Site(directory / "site", socket_of(mfad), changes=(("mods-available/mfad", "timeout = 5", "timeout = 2"),))
    mfad.start()
    try:
        yield mfad, site.start()
    finally:
        site.stop()
        mfad.close()


def waits_in_vain(site: Site, send: Any, word: str) -> None:
    before = site.log().count(word)
    send()
    wait_until(lambda: site.log().count(word) > before, f"{word!r} in:\n{site.log()}")


def test_nobody_is_let_in_while_mfad_is_down_and_everybody_when_it_is_back(own: tuple[Mfad, Site]) -> None:
    mfad, site = own
    person = mfad.person()
    with site.nas() as nas:
        assert nas.ask(nas.login(person.name, person.next_code())).what == "Accept"
        mfad.stop()
        code = person.next_code()
        waits_in_vain(site, lambda: nas.send(nas.login(person.name, code)), "does mfad run, and may we enter?")
        assert nas.stays_silent()
        with site.nas("acct") as other:
            other.send(other.accounting((ACCT_STATUS_TYPE, STOP)))
        mfad.start()
        assert nas.ask(nas.login(person.name, code)).what == "Accept"
        with site.nas("acct") as other:
            assert other.ask(other.accounting((ACCT_STATUS_TYPE, STOP))).what == "Accounting-Response"


def test_nobody_is_let_in_by_an_mfad_that_hangs(own: tuple[Mfad, Site]) -> None:
    mfad, site = own
    person = mfad.person()
    with site.nas() as nas:
        assert mfad._program is not None
        mfad._program.send_signal(signal.SIGSTOP)
        try:
            waits_in_vain(site, lambda: nas.send(nas.login(person.name, person.next_code())), "mfad said nothing within 2 s")
            assert nas.stays_silent()
        finally:
            mfad._program.send_signal(signal.SIGCONT)
        assert nas.ask(nas.login(person.name, person.next_code())).what == "Accept", "a later request is answered"


def test_nobody_is_let_in_by_an_mfad_that_is_killed_in_mid_request(own: tuple[Mfad, Site]) -> None:
    mfad, site = own
    person = mfad.person()
    with site.nas() as nas:
        assert nas.ask(nas.login(person.name, person.wrong_code())).what == "Reject"
        assert mfad._program is not None
        mfad._program.send_signal(signal.SIGSTOP)
        nas.send(nas.login(person.name, person.next_code()))
        wait_until(lambda: site.waits_for_mfad, "FreeRADIUS has asked")
        waits_in_vain(site, mfad.kill, "mfad closed the connection without an answer")
        assert nas.stays_silent()
        mfad.start()
        assert nas.ask(nas.login(person.name, person.next_code())).what == "Accept"


def test_a_tunnel_ends_in_silence_while_mfad_is_down(own: tuple[Mfad, Site]) -> None:
    mfad, site = own
    person = mfad.person()
    mfad.stop()
    heard = site.eapol(TTLS_PAP, person.name, person.next_code(), patience_s=3)
    assert not heard.success
    assert not {"Access-Accept", "Access-Reject"} & set(heard.codes)


def test_strangers_on_the_socket_change_nothing(own: tuple[Mfad, Site]) -> None:
    mfad, site = own
    person = mfad.person()
    strangers = []
    for junk in (b"x", os.urandom(300), b"MFR1" + bytes(8)):
        one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        one.settimeout(30)
        one.connect(str(socket_of(mfad)))
        one.send(junk)
        strangers.append(one)
    with site.nas() as nas:
        assert nas.ask(nas.login(person.name, person.next_code())).what == "Accept"
    for one in strangers:
        with one:
            assert one.recv(100) == b"", "hung up on"


def test_where_it_is_wanted_the_person_hears_that_mfad_is_down(template: Mfad, own_ground: Path) -> None:
    directory = own_ground
    change = ("mods-available/mfad", "on_unavailable = silence", "on_unavailable = reject")
    site = Site(directory / "site", directory / "no.sock", changes=(change,))
    try:
        site.start()
        with site.nas() as nas:
            answer = nas.ask(nas.login("alice", "123456"))
            assert (answer.what, answer.signed_first) == ("Reject", True)
    finally:
        site.stop()


def test_a_client_of_freeradius_has_the_settings_of_the_client_of_that_name(template: Mfad, own_ground: Path) -> None:
    """Row 28: a password in Latin-1, of a client that says so; another client's is refused."""
    directory = own_ground
    secret = directory / "secret"
    secret.touch(0o600)
    secret.write_text(SECRET + "\n")
    client = {"name": "latin", "network": "192.0.2.1", "secret_file": str(secret), "password_encoding": "latin-1"}
    mfad = asked_through(template, directory / "mfad", mode="concat", clients=[client])
    site = Site(directory / "site", socket_of(mfad), clients=OTHER_CLIENTS)
    try:
        mfad.start()
        site.start()
        person = mfad.person()
        with site.nas() as nas:
            server = nas.server
        with type(nas)(server, SECRET.encode(), "127.0.0.2") as latin:
            typed = "müller".encode("latin-1") + person.next_code().encode()
            assert latin.ask(latin.login(person.name, typed)).what == "Accept"
        wait_until(lambda: logged(mfad, user=person.name, client="latin", nas="127.0.0.2"), "the line names the client")
    finally:
        site.stop()
        mfad.close()
