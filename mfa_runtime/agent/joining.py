"""A host joins its authority, and asks it for new certificates.

Room rule: the order of the steps. The token says by a fingerprint whom it is for: what a server shows is held against that
before anything is sent to it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError
from sqlalchemy import delete, func, select

from mfa_core.errors import Conflict, InvalidInput, StoreUnavailable
from mfa_core.secret import Secret
from mfa_runtime.administration.act import Act
from mfa_runtime.agent.http import Authorities, Refused, Unreachable, names_host, trusting_context
from mfa_runtime.agent.identity import Certificate, HostKey, check_certificate, new_host_key, pinned
from mfa_runtime.agent.journal import node_of
from mfa_runtime.protocol.joining import JoinAnswer, JoinRequest, RenewRequest, read_join_answer, read_renew_answer
from mfa_runtime.protocol.message import ProtocolError
from mfa_runtime.protocol.sealed import new_private_key, public_of
from mfa_runtime.protocol.signed import key_id
from mfa_runtime.protocol.words import JOIN, RENEW, KeyProtection
from mfa_runtime.sealing import Keyring, RandomBytes
from mfa_runtime.store import agent_state, key_pairs
from mfa_runtime.store.agent_state import AgentState
from mfa_runtime.store.database import Store
from mfa_runtime.store.key_pairs import KeyPair
from mfa_runtime.store.schema import users

MAGIC = b"mfad1"
TOKEN_OCTETS = 20
FINGERPRINT_OCTETS = 32
JOIN_S = 10.0
"""For each step: somebody stands at a terminal and waits."""
TLS, HPKE = "tls", "hpke"
"""The key pairs of a host: what it shows, and what secrets are sealed to."""
ACTOR = "mfad"
"""Who changes the store of an agent without an administrator."""
DEFAULT_PORT = 443


@dataclass(frozen=True, slots=True)
class Token:
    """A join token: the octets that are sent, and the SHA-256 of the certificate of the only authority that may see them."""

    octets: Secret
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Joined:
    """What the host is from now on. ``certificate_until`` is Unix seconds."""

    host_id: int
    host_name: str
    host_group: str
    authority_id: str
    url: str
    certificate_until: float


def read_token(token: Secret) -> Token:
    """Read ``mfad1.TOKEN.FINGERPRINT``. Raises: InvalidInput; the message never holds a part of it."""
    cure = "copy the whole line that `mfactl agent token` printed at the authority"
    parts = token.reveal().strip().split(b".")
    if len(parts) != 3 or parts[0] != MAGIC:
        raise InvalidInput("this is no join token (expected mfad1.TOKEN.FINGERPRINT)", cure=cure)
    octets, fingerprint = (_from_base64url(part) for part in parts[1:])
    if octets is None or fingerprint is None or len(octets) != TOKEN_OCTETS or len(fingerprint) != FINGERPRINT_OCTETS:
        raise InvalidInput("the join token is damaged", cure=cure)
    return Token(Secret(octets), fingerprint)


def _from_base64url(text: bytes) -> bytes | None:
    try:
        return base64.b64decode(text.rstrip(b"=") + b"=" * (-len(text.rstrip(b"=")) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None


def join(
    store: Store,
    keyring: Keyring,
    url: str,
    token: Secret,
    host_name: str,
    key_protection: KeyProtection,
    random: RandomBytes,
    now: Callable[[], float],
    *,
    software: str = "",
    actor: str = ACTOR,
) -> Joined:
    """Join the authority at ``url`` (``https://HOST[:PORT]``) with a one-time token; blocks, and needs no loop.

    A host that belongs to an authority already leaves it: what it held is forgotten, and its journal begins anew.

    Raises:
        InvalidInput: the address or the token is none.
        ConfigurationError: whoever answers there is not who issued the token; the token was not sent.
        Conflict: this store holds users of its own, or the authority says no.
        StoreUnavailable: the authority or the store cannot be reached now.
        ProtocolError: the authority answers what it may not.
    """
    if not names_host(url):
        raise InvalidInput("the address of the authority is none", cure="give https://HOST:PORT and nothing behind it")
    pin = read_token(token)
    with store.reading() as connection:
        _check_free(connection)
    anchor = pinned(shown_chain(url, timeout_s=JOIN_S), pin.fingerprint)
    key, hpke = new_host_key(host_name), new_private_key()
    try:
        request = JoinRequest(
            token=pin.octets, host_name=host_name, csr=key.csr, hpke_public=public_of(hpke),
            key_protection=key_protection, software=software[:64],
        )  # fmt: skip
    except ValidationError as err:
        raise InvalidInput("a host has a name of 1 to 256 characters", cure="give one with --name") from err
    answer = asyncio.run(_ask(url, anchor, request))
    certificate = check_certificate(answer.certificate, public=key.public, trust=answer.trust)
    wrong = [name for name, public in answer.signers.items() if key_id(public) != name]
    if wrong:
        raise ProtocolError("a signing key of the authority stands under another name", cure="see the log of the authority")
    _remember(store, Act(actor, now(), random, keyring), url, answer, key, hpke, certificate)
    return Joined(
        answer.host_id, answer.host_name, answer.host_group, answer.authority_id, url, certificate.not_after
    )


def _check_free(connection: Any) -> None:
    if agent_state.load(connection) is None and connection.execute(select(func.count()).select_from(users)).scalar():
        raise Conflict(
            "this store holds users of its own, and an agent's users are those of its authority",
            cure="give this host an empty state_dir and run `mfactl init`; `mfactl enrol` the people anew at the authority",
        )


async def _ask(url: str, anchor: str, request: JoinRequest) -> JoinAnswer:
    authorities = Authorities([url], lambda: trusting_context(anchor))
    try:
        answer = await authorities.post(JOIN, request.octets(), try_s=JOIN_S, budget_s=JOIN_S)
    except Unreachable as err:
        raise StoreUnavailable(str(err), cure=err.cure) from err
    except Refused as err:
        raise Conflict(f"the authority does not take this host: {err}", cure=err.cure) from err
    finally:
        await authorities.close()
    return read_join_answer(answer.body)


def _remember(
    store: Store, act: Act, url: str, answer: JoinAnswer, key: HostKey, hpke: Secret, certificate: Certificate
) -> None:
    with store.writing() as connection:
        act.check_keys(connection)
        _check_free(connection)
        before = agent_state.load(connection)
        epoch = 1 if before is None else before.journal_epoch + 1
        act = replace(act, node=node_of(epoch))
        connection.execute(delete(users))  # and with them all that hangs on them
        key_pairs.save(
            connection, act.keyring, KeyPair(TLS, key.private, key.public, certificate.der, act.now, certificate.not_after)
        )
        key_pairs.save(connection, act.keyring, KeyPair(HPKE, hpke, public_of(hpke), b"", act.now))
        agent_state.save(
            connection,
            AgentState(
                host_id=answer.host_id,
                host_name=answer.host_name,
                authority_id=answer.authority_id,
                authorities=(url,),
                trust=answer.trust.encode(),
                signers=answer.signers,
                journal_epoch=epoch,
            ),
        )
        act.record(
            connection, "agent.join", answer.host_name,
            authority=answer.authority_id, url=url, host_group=answer.host_group, host_id=answer.host_id,
        )  # fmt: skip


async def renew(authorities: Authorities, state: AgentState, *, try_s: float) -> tuple[HostKey, Certificate, str]:
    """Ask for a certificate for a new key; the old one stays good until the new one was shown.

    Returns the key, its certificate, and whom to trust from now on (PEM).

    Raises:
        Unreachable, Refused: as asking does.
        ProtocolError: what came is no certificate for the key.
    """
    key = new_host_key(state.host_name)
    answer = await authorities.post(RENEW, RenewRequest(csr=key.csr).octets(), try_s=try_s, budget_s=2 * try_s)
    read = read_renew_answer(answer.body)
    # By the trust of before: a new CA is believed because the old one's server has sent it, not because it says so itself.
    return key, check_certificate(read.certificate, public=key.public, trust=read.trust), read.trust


def shown_chain(url: str, *, timeout_s: float) -> list[bytes]:
    """The certificates (DER) that the server at ``url`` shows in a handshake in which nothing is believed, and nothing sent.

    Raises:
        StoreUnavailable: nobody answers there, or not with TLS 1.3.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORT
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the fingerprint decides, and then a handshake of its own that verifies
    try:
        with (
            socket.create_connection((host, port), timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=host) as tls,
        ):
            return _chain_of(tls)
    except (OSError, ValueError) as err:
        raise StoreUnavailable(
            f"{url} cannot be reached: {err}", cure="see that mfad runs there, and that the network lets this host through"
        ) from err


def _chain_of(tls: ssl.SSLSocket) -> list[bytes]:
    public: Callable[[], list[bytes]] | None = getattr(tls, "get_unverified_chain", None)
    if public is not None:  # Python 3.13
        return list(public())
    inner: Any = tls._sslobj  # type: ignore[attr-defined]  # noqa: SLF001  until 3.13 there is no other way to the chain
    der = 2  # _ssl.ENCODING_DER
    return [bytes(one.public_bytes(der)) for one in inner.get_unverified_chain() or ()]
