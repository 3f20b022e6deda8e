"""What BEGIN says about a login, and how far it is believed."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfa_core.model import FirstFactor
from pam_mfa.arguments import ModuleArguments
from pam_mfa.login import Login, Peer, Trust, canonical_address, completed_methods, read_login
from pam_mfa.settings import Mode, ServiceSettings
from tests.pam_mfa.doubles import begin

ROOT = Peer(Trust.ANYBODY, 0)
ALICE = Peer(Trust.ITSELF, 1000, b"alice")
PLAIN = ServiceSettings()
NO_ARGUMENTS = ModuleArguments()


def read(
    peer: Peer = ROOT,
    service: ServiceSettings = PLAIN,
    arguments: ModuleArguments = NO_ARGUMENTS,
    **fields: object,
) -> Login:
    return read_login(begin(**fields), peer, service, arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (b"192.0.2.7", "192.0.2.7"),
        (b"::ffff:192.0.2.7", "192.0.2.7"),
        (b"2001:DB8:0::1", "2001:db8::1"),
        (b"fe80::1%eth0", "fe80::1"),
        (b"UNKNOWN", None),
        (b"client.example.org", None),
        (b"", None),
        (b"localhost", None),
        (b"192.0.2.7.evil.example", None),
        (b"0300.0.2.7", None),
        (b"3221226000", None),
        (b"\xff\xfe", None),
    ],
)
def test_an_address_is_a_literal_in_one_spelling(text: bytes, address: str | None) -> None:
    assert canonical_address(text) == address


@given(st.binary(max_size=50))
def test_any_bytes_are_a_canonical_address_or_none(text: bytes) -> None:
    address = canonical_address(text)
    assert address is None or str(ipaddress.ip_address(address)) == address


def test_the_address_of_sshd_comes_before_rhost() -> None:
    """PAM_RHOST is a name with UseDNS; SSH_CONNECTION always holds the address."""
    login = read(ssh_connection=b"192.0.2.7 51234 192.0.2.1 22", rhost=b"198.51.100.1")

    assert login.source == "192.0.2.7"
    assert login.client == "192.0.2.7"


@pytest.mark.parametrize(("rhost", "source"), [(b"198.51.100.1", "198.51.100.1"), (b"trusted.example.org", None), (b"", None)])
def test_rhost_counts_only_as_a_literal(rhost: bytes, source: str | None) -> None:
    assert read(rhost=rhost).source == source


def test_a_tty_is_the_client_but_for_sshd() -> None:
    assert read(tty=b"/dev/pts/3").client == "/dev/pts/3"
    assert read(tty=b"ssh", rhost=b"192.0.2.7").client == "192.0.2.7"
    assert read(tty=b"\x1b]0;x\x07pts").client == "]0;xpts"


def test_methods_are_listed_without_their_keys() -> None:
    info = b"publickey sk-ssh-ed25519@openssh.com AAAAGnNr\npassword\n\nkeyboard-interactive/pam\n"

    assert completed_methods(info) == ("publickey sk-ssh-ed25519@openssh.com", "password", "keyboard-interactive/pam")


def test_methods_are_bounded_and_printable() -> None:
    methods = completed_methods(b"\n".join([b"x\x1b\xff" * 1_000] * 100))

    assert len(methods) == 8
    assert all(len(method) <= 128 * 3 and "\x1b" not in method for method in methods)


def test_a_completed_method_or_a_promise_of_the_stack_means_done() -> None:
    assert read().first_factor is FirstFactor.ELSEWHERE
    assert read(ssh_auth_info=b"publickey ssh-ed25519 AAAA\n").first_factor is FirstFactor.DONE
    assert read(arguments=ModuleArguments(first_factor_done=True)).first_factor is FirstFactor.DONE
    assert read(service=ServiceSettings(first_factor=FirstFactor.DONE)).first_factor is FirstFactor.DONE


def test_a_primary_backend_makes_it_ours() -> None:
    service = ServiceSettings(mode=Mode.COMBINED, first_factor=FirstFactor.OURS)

    assert read(service=service, ssh_auth_info=b"publickey x\n").first_factor is FirstFactor.OURS


def test_a_user_process_is_believed_nothing() -> None:
    """On the user socket only the name counts, which the kernel vouches for; the rest may be invented."""
    login = read(
        ALICE,
        arguments=ModuleArguments(first_factor_done=True),
        ssh_auth_info=b"publickey sk-ssh\n",
        ssh_connection=b"192.0.2.7 1 2 3",
        rhost=b"192.0.2.7",
        tty=b"/dev/tty1",
    )

    assert login == Login("sshd", "alice", None, "uid 1000", (), FirstFactor.ELSEWHERE)


def test_a_name_that_is_not_utf8_keeps_its_bytes() -> None:
    assert read(user=b"al\xffe").username.encode("utf-8", "surrogateescape") == b"al\xffe"
