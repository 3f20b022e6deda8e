"""An agent in small: it speaks the protocol, keeps what it was told, and checks what an agent must check.

It has no store and decides nothing: a test sees what an authority sends, and sends what a test wants.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mfa_core.audit import GENESIS, AttemptDecided, By, Outcome, canonical, link
from mfa_core.model import Door, FirstFactor, Interaction
from mfa_core.passcode import PasscodeKind
from mfa_core.secret import Secret
from mfa_core.verifier import Password
from mfa_runtime.protocol import sealed, signed
from mfa_runtime.protocol.joining import JoinAnswer, JoinRequest, RenewAnswer, RenewRequest
from mfa_runtime.protocol.message import Message
from mfa_runtime.protocol.reporting import JournalHead, JournalRequest, Refused
from mfa_runtime.protocol.syncing import (
    Cursor,
    SealedEntry,
    SyncAnswer,
    SyncRequest,
    UserDoc,
    manifest_digest,
    read_entries,
    rules_digest,
)
from mfa_runtime.protocol.verifying import Reading, VerifyAnswer, VerifyAttempt, VerifyRequest, VerifyRuling
from mfa_runtime.protocol.words import JOIN, JOURNAL, RENEW, SYNC, VERIFY, KeyProtection


class Refusal(Exception):
    """The authority said no."""

    def __init__(self, status: int, said: Refused) -> None:
        super().__init__(f"{status} {said.error}: {said.text}")
        self.status = status
        self.said = said


@dataclass
class HostKey:
    """A private key, and a certificate for it once there is one."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    certificate: str = ""

    def csr(self, name: str = "whatever") -> str:
        """A request for a certificate."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self.key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM).decode()

    def context(self, trust: str, folder: Path) -> ssl.SSLContext:
        """TLS that shows the certificate, if there is one."""
        context = ssl.create_default_context(cadata=trust)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if self.certificate:
            path = folder / f"{os.urandom(8).hex()}.pem"
            key = self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            path.write_bytes(key + self.certificate.encode())
            context.load_cert_chain(path)
        return context


class AgentDouble:
    """One host."""

    def __init__(self, url: str, trust: str, folder: Path, *, name: str = "web1.example") -> None:
        self.url = url
        self.trust = trust
        self.folder = folder
        self.name = name
        self.key = HostKey()
        self.hpke = sealed.new_private_key()
        self.protection = KeyProtection.FILE
        self.host_id = 0
        self.authority_id = ""
        self.signers: dict[str, bytes] = {}
        self.cursor: Cursor | None = None
        self.seq = 0
        self.users: dict[int, UserDoc] = {}
        self.secrets: dict[int, SealedEntry] = {}
        self.rules = ""
        self.epoch = 1
        self.bodies: list[str] = []
        self.clock: Any = None
        self._session: aiohttp.ClientSession | None = None

    # -- octets ---------------------------------------------------------------------------------------------------------------

    async def connect(self) -> aiohttp.ClientSession:
        """A session over connections that are kept, with the certificate that the host has now."""
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self.key.context(self.trust, self.folder), limit=32)
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session

    async def turn_to(self, url: str) -> None:
        """Ask another authority from now on."""
        await self.close()
        self.url = url

    async def close(self) -> None:
        """Close its connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def post(self, path: str, body: bytes) -> tuple[bytes, Any]:
        """The body and headers of a good answer. Raises: Refusal."""
        session = await self.connect()
        async with session.post(self.url + path, data=body, headers={"Content-Type": "application/json"}) as answer:
            octets = await answer.read()
            if answer.status != 200:
                raise Refusal(answer.status, Refused.read(octets))
            return octets, answer.headers

    # -- the routes -----------------------------------------------------------------------------------------------------------

    async def join(self, token: Secret) -> JoinAnswer:
        """Join with a token."""
        request = JoinRequest(
            token=token, host_name=self.name, csr=self.key.csr(), hpke_public=sealed.public_of(self.hpke),
            key_protection=self.protection, software="test",
        )  # fmt: skip
        octets, _ = await self.post(JOIN, request.octets())
        answer = JoinAnswer.read(octets)
        await self.close()
        self.key.certificate = answer.certificate
        self.trust = answer.trust
        self.host_id, self.authority_id, self.signers = answer.host_id, answer.authority_id, dict(answer.signers)
        return answer

    async def renew(self) -> HostKey:
        """Ask for a new certificate; the caller puts it into use."""
        fresh = HostKey()
        octets, _ = await self.post(RENEW, RenewRequest(csr=fresh.csr()).octets())
        fresh.certificate = RenewAnswer.read(octets).certificate
        return fresh

    async def use(self, key: HostKey) -> None:
        """Show another certificate from now on."""
        await self.close()
        self.key = key

    @property
    def head(self) -> JournalHead:
        """How far its journal goes."""
        digest = GENESIS
        for body in self.bodies:
            digest = link(digest, body)
        return JournalHead(epoch=self.epoch, seq=len(self.bodies), hash=digest)

    @property
    def digest(self) -> str:
        """Of what it holds."""
        return manifest_digest((user.id, user.version) for user in self.users.values())

    def request(self, **changed: Any) -> SyncRequest:
        """A request for news."""
        values: dict[str, Any] = {
            "nonce": os.urandom(16),
            "cursor": self.cursor,
            "seq": self.seq,
            "digest": self.digest if self.cursor is not None else "",
            "rules_digest": rules_digest(self.rules) if self.rules else "",
            "wait_s": 0.0,
            "codes_until": 0.0,
            "journal": self.head,
            "key_protection": self.protection,
            "now": self.clock(),
            "software": "test",
        }
        return SyncRequest(**(values | changed))

    async def ask(self, **changed: Any) -> SyncAnswer:
        """One answer, checked as an agent checks it, and not taken over yet."""
        request = self.request(**changed)
        octets, headers = await self.post(SYNC, request.octets())
        signed.verify(headers[signed.HEADER], octets, self.signers)
        answer = SyncAnswer.read(octets)
        assert (answer.host_id, answer.authority_id, answer.nonce) == (self.host_id, self.authority_id, request.nonce)
        assert answer.seq > self.seq
        self.seq = answer.seq
        return answer

    def take(self, answer: SyncAnswer) -> None:
        """Take a page over."""
        self.users |= {user.id: user for user in answer.users}
        for gone in answer.gone:
            self.users.pop(gone, None)
        if answer.sealed is not None:
            context = sealed.sync_context(
                authority_id=self.authority_id, host_id=self.host_id, seq=answer.seq, nonce=answer.nonce
            )
            opened = sealed.open_sealed(self.hpke, context, answer.sealed)
            self.secrets |= {entry.credential: entry for entry in read_entries(opened)}
        if answer.rules is not None:
            self.rules = answer.rules
        if not answer.more:
            self.cursor = answer.cursor
            if answer.digest is not None:
                assert answer.digest == self.digest

    async def sync(self, **changed: Any) -> list[SyncAnswer]:
        """Ask, and ask on until there is no more; returns the answers."""
        answers = [await self.ask(**changed)]
        if answers[0].full:
            self.users.clear()
            self.secrets.clear()
        self.take(answers[0])
        while answers[-1].more:
            answers.append(await self.ask(page=answers[-1].page))
            self.take(answers[-1])
        return answers

    async def verify(self, *attempts: VerifyAttempt) -> list[VerifyRuling]:
        """The rulings on attempts that go together."""
        octets, _ = await self.post(VERIFY, VerifyRequest(attempts=attempts).octets())
        return list(VerifyAnswer.read(octets).rulings)

    async def upload(self, bodies: Sequence[str] | None = None, *, first: int = 1, previous: bytes = GENESIS) -> JournalHead:
        """Send events of the journal: all of them, unless told otherwise."""
        sent = tuple(self.bodies if bodies is None else bodies)
        request = JournalRequest(epoch=self.epoch, first_seq=first, previous=previous, bodies=sent)
        octets, _ = await self.post(JOURNAL, request.octets())
        return JournalHead.read(octets)

    # -- what it does alone ---------------------------------------------------------------------------------------------------

    def alone(self, event_id: str, at: float, *, user: str = "alice", credential: int = 1, step: int = -1, **more: Any) -> str:
        """Write an event into the journal, as a host does that decides alone: an accept, or with ``outcome`` something else."""
        values: dict[str, Any] = {"outcome": Outcome.ACCEPTED, "by": By.HOST}
        if step >= 0:
            values |= {"factor": "totp", "credential": f"totp:{credential}", "step": step}
        body = canonical(AttemptDecided(event_id, at, "pam", "sshd", user, **(values | more)))
        self.bodies.append(body)
        return body


_NUMBERS = iter(range(1, 1 << 60))


def asks_about(name: str, code: str | None, **changed: Any) -> VerifyAttempt:
    """An attempt as a host sends it; ``code`` None: nothing was typed yet."""
    values: dict[str, Any] = {
        "event_id": f"event{next(_NUMBERS)}",
        "door": Door.PAM,
        "service": "sshd",
        "name": name,
        "source": "192.0.2.9",
        "client": "tty1",
        "first_factor": FirstFactor.ELSEWHERE,
        "interaction": Interaction.PROMPTS,
        "methods": (),
        "wait_s": 0.0,
        "password": Password.NOT_ASKED,
        "hidden": False,
        "asks": code is None,
        "readings": () if code is None else (Reading(kind=PasscodeKind.DIGITS, text=Secret(code.encode())),),
        "veiled": None,
        "challenge_id": "",
        "challenge_until": 0.0,
        "remembered": "",
        "groups": None,
    }
    return VerifyAttempt(**(values | changed))


__all__ = ["AgentDouble", "HostKey", "Message", "Refusal", "asks_about"]
