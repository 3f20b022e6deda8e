"""An authority for tests of agents: HTTPS with the real messages, signatures and seals, a few users, and faults on demand.

It says what a test tells it to say. What a real one says is tested where both meet.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mfa_core import codebook
from mfa_core.audit import GENESIS, Outcome, link
from mfa_core.model import CredentialState, EnrolmentState, FactorKind, Requirement
from mfa_core.oath import match
from mfa_core.secret import Secret
from mfa_core.verdict import Reason
from mfa_runtime.protocol.joining import JoinAnswer, RenewAnswer, read_join_request, read_renew_request
from mfa_runtime.protocol.reporting import Health, JournalHead, read_journal_request
from mfa_runtime.protocol.reporting import Refused as RefusedMessage
from mfa_runtime.protocol.sealed import seal, sync_context
from mfa_runtime.protocol.signed import HEADER, Signer, new_signing_key
from mfa_runtime.protocol.syncing import (
    CredentialDoc,
    Cursor,
    SealedEntry,
    SyncAnswer,
    SyncRequest,
    TermsDoc,
    UserDoc,
    manifest_digest,
    read_sync_request,
    rules_digest,
    write_entries,
)
from mfa_runtime.protocol.verifying import VerifyAnswer, VerifyAttempt, VerifyRuling, read_verify_request
from mfa_runtime.protocol.words import HEALTH, JOIN, JOURNAL, RENEW, STATUS, SYNC, VERIFY, Refusal
from tests.doubles import FakeClock, Person
from tests.runtime.agent.certificates import Ca

RULES = json.dumps({"format": 1, "policy": []}, sort_keys=True, separators=(",", ":"))
TOKEN = bytes(range(20))
HOST_ID = 7
AUTHORITY_ID = "authority-one"
DAY_S = 86_400.0

Fault = Callable[[web.Request, bytes], Awaitable[web.StreamResponse | None]]
"""Is asked before a path answers: an answer of its own, or None to go on."""


@dataclass
class Kept:
    """A user at the authority."""

    person: Person
    id: int
    version: int
    material: str = "seed"
    state: CredentialState = CredentialState.ACTIVE
    last_step: int = -1
    label: str = ""

    @property
    def doc(self) -> UserDoc:
        one = self.person.credential if self.person.kind is not None else None
        credentials = () if one is None else (
            CredentialDoc(
                id=self.id + 1000, kind=one.kind, state=self.state, digest=one.digest, digits=one.digits,
                period_s=one.period_s, drift_steps=one.drift_steps, last_step=self.last_step, label=self.label,
                material="none" if one.kind is FactorKind.HOTP else self.material,  # type: ignore[arg-type]
            ),
        )  # fmt: skip
        return UserDoc(
            id=self.id, name=self.person.name, state=EnrolmentState.ACTIVE, requirement=Requirement.INHERIT,
            grace_until=0.0, locked=self.person.locked, version=self.version, credentials=credentials,
        )  # fmt: skip


@dataclass
class FakeAuthority:
    """State that a test may change at any time; :meth:`serve` listens."""

    folder: Path
    clock: FakeClock
    ca: Ca = field(default_factory=Ca)
    signer: Signer = field(default_factory=lambda: Signer(new_signing_key()))
    authority_id: str = AUTHORITY_ID
    host_id: int = HOST_ID
    users: dict[str, Kept] = field(default_factory=dict)
    rules: str = RULES
    terms: TermsDoc = field(
        default_factory=lambda: TermsDoc(
            host_group="edge", material="seed", max_offline_s=DAY_S, offline_after_s=0.0, offline_services=("*",),
            key_protection="any",
        )
    )
    page_users: int = 500
    generation: str = "store:1"
    seq: int = 10
    """Of changes."""
    signed: int = 0
    """Of the last signed answer."""
    taken: int = 0
    """The highest number of a user."""
    gone: list[int] = field(default_factory=list)
    refusal: Refusal | None = None
    fork: bool = False
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    standing_faults: dict[str, Fault] = field(default_factory=dict)
    twist: Callable[[SyncAnswer], SyncAnswer] = lambda answer: answer
    """Applied to an answer before it is signed."""
    spoil: Callable[[bytes], bytes] = lambda body: body
    """Applied to it after that."""
    asked: list[str] = field(default_factory=list)
    """The paths of all requests, in order."""
    attempts: list[VerifyAttempt] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    ruled: dict[str, VerifyRuling] = field(default_factory=dict)
    journal: dict[int, list[str]] = field(default_factory=dict)
    sync_requests: list[SyncRequest] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    """Fingerprints of the certificates that requests came with."""
    hpke_public: bytes = b""
    port: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def token(self) -> Secret:
        parts = (TOKEN, hashlib.sha256(self.ca.der).digest())
        return Secret(b".".join([b"mfad1", *(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)]))

    def add(self, person: Person, **values: Any) -> Kept:
        """A user, or other facts about one; hosts hear of it."""
        self.seq += 1
        if person.name in self.users:
            number = self.users[person.name].id
        else:
            self.taken = number = self.taken + 1
        kept = Kept(person, number, self.seq, values.pop("material", self.terms.material), **values)
        self.users[person.name] = kept
        self.changed.set()
        return kept

    def remove(self, name: str) -> None:
        self.seq += 1
        self.gone.append(self.users.pop(name).id)
        self.changed.set()

    def events(self, epoch: int = 1) -> list[dict[str, Any]]:
        """What came as journal."""
        return [json.loads(body) for body in self.journal.get(epoch, [])]

    # -- the paths

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.asked.append(request.path)
        queued = self.faults.get(request.path)
        fault = queued.pop(0) if queued else self.standing_faults.get(request.path)
        if fault is not None:
            answer = await fault(request, body)
            if answer is not None:
                return answer
        if request.path == HEALTH:
            return self._json(Health(authority_id=self.authority_id, now=self.clock()).octets())
        if request.path == JOIN:
            return self._join(body)
        certificate = request.transport and request.transport.get_extra_info("peercert")
        if not certificate:
            return self.refuse(Refusal.NO_CERTIFICATE)
        der = request.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        self.shown.append(hashlib.sha256(der).hexdigest())
        if self.refusal is not None:
            return self.refuse(self.refusal)
        match request.path:
            case "/v1/sync":
                return await self._sync(read_sync_request(body))
            case "/v1/verify":
                return self._verify(body)
            case "/v1/journal":
                return self._take_journal(body)
            case "/v1/renew":
                csr = x509.load_pem_x509_csr(read_renew_request(body).csr.encode())
                signed = self.ca.sign(f"host {self.host_id}", csr.public_key(), server=False)
                answer_ = RenewAnswer(certificate=signed.public_bytes(Encoding.PEM).decode(), trust=self.ca.pem)
                return self._json(answer_.octets())
        return self.refuse(Refusal.NOT_FOUND)

    @staticmethod
    def _json(octets: bytes, **headers: str) -> web.Response:
        return web.Response(body=octets, content_type="application/json", headers=headers)

    @staticmethod
    def refuse(refusal: Refusal, text: str = "the test says so", *, journal: JournalHead | None = None) -> web.Response:
        message = RefusedMessage(error=refusal.value, text=text, cure="none", journal=journal)
        return web.Response(status=STATUS[refusal], body=message.octets(), content_type="application/json")

    def _join(self, body: bytes) -> web.Response:
        asked = read_join_request(body)
        if asked.token.reveal() != TOKEN:
            return self.refuse(Refusal.BAD_TOKEN)
        self.hpke_public = asked.hpke_public
        csr = x509.load_pem_x509_csr(asked.csr.encode())
        certificate = self.ca.sign(f"host {self.host_id}", csr.public_key(), server=False)
        return self._json(
            JoinAnswer(
                host_id=self.host_id, host_name=asked.host_name, host_group=self.terms.host_group,
                authority_id=self.authority_id, certificate=certificate.public_bytes(Encoding.PEM).decode(),
                trust=self.ca.pem, signers={self.signer.key_id: self.signer.public},
            ).octets()
        )  # fmt: skip

    async def _sync(self, asked: SyncRequest) -> web.Response:
        self.sync_requests.append(asked)
        if asked.wait_s and asked.cursor is not None and asked.cursor.seq >= self.seq and not self.fork:
            self.changed.clear()
            with_time = asyncio.ensure_future(self.changed.wait())
            await asyncio.wait({with_time}, timeout=asked.wait_s)
            with_time.cancel()
        answer = self.twist(self.sync_answer(asked))
        body = answer.octets()
        return self._json(self.spoil(body), **{HEADER: self.signer.sign(body)})

    def sync_answer(self, asked: SyncRequest) -> SyncAnswer:
        """What an authority answers."""
        self.signed = max(int(self.clock() * 1e6), self.signed + 1, asked.seq + 1)
        cursor = asked.cursor
        ends = asked.codes_until and asked.codes_until < self.clock() + self.terms.max_offline_s
        full = cursor is None or cursor.generation != self.generation or bool(ends)
        kept = sorted(self.users.values(), key=lambda one: one.id)
        start = int(asked.page or 0)
        chosen = kept if full else [one for one in kept if cursor is not None and one.version > cursor.seq]
        page = chosen[start : start + self.page_users]
        more = start + self.page_users < len(chosen)
        entries = [entry for one in page for entry in self.entries_of(one)]
        sealed = None
        if entries:
            context = sync_context(
                authority_id=self.authority_id, host_id=self.host_id, seq=self.signed, nonce=asked.nonce
            )
            sealed = seal(self.hpke_public, context, write_entries(entries))
        return SyncAnswer(
            host_id=self.host_id, authority_id=self.authority_id, nonce=asked.nonce, seq=self.signed,
            server_time=self.clock(), not_after=self.clock() + self.terms.max_offline_s, full=full, more=more,
            page=str(start + self.page_users) if more else None,
            cursor=Cursor(generation=self.generation, seq=self.seq), users=tuple(one.doc for one in page),
            gone=() if full else tuple(self.gone), sealed=sealed,
            digest=None if more else manifest_digest((one.id, one.version) for one in kept),
            rules=self.rules if asked.rules_digest != rules_digest(self.rules) else None, terms=self.terms,
            journal="fork" if self.fork else self.head(asked.journal.epoch),
        )  # fmt: skip

    def entries_of(self, kept: Kept) -> list[SealedEntry]:
        """The secrets of a user, as the material of this host wants them."""
        found = []
        for one in kept.doc.credentials:
            if one.material == "seed":
                found.append(SealedEntry(credential=one.id, first_step=-1, secret=Secret(kept.person.secret)))
            elif one.material == "codebook":
                first = int(self.clock() // one.period_s) - 2
                count = int(1.25 * self.terms.max_offline_s // one.period_s)
                codes = Secret(codebook.pack(kept.person.credential, first, count))
                found.append(SealedEntry(credential=one.id, first_step=first, secret=codes))
        return found

    def head(self, epoch: int) -> JournalHead:
        bodies = self.journal.get(epoch, [])
        previous = GENESIS
        for body in bodies:
            previous = link(previous, body)
        return JournalHead(epoch=epoch, seq=len(bodies), hash=previous)

    def _take_journal(self, body: bytes) -> web.Response:
        piece = read_journal_request(body)
        newest = max(self.journal, default=0)
        if piece.epoch < newest:
            return self.refuse(Refusal.JOURNAL_FORK, journal=self.head(newest))
        bodies = self.journal.setdefault(piece.epoch, [])
        if piece.first_seq > len(bodies) + 1:
            return self._json(self.head(piece.epoch).octets())
        known = bodies[: piece.first_seq - 1]
        previous = GENESIS
        for one in known:
            previous = link(previous, one)
        if len(known) != piece.first_seq - 1 or previous != piece.previous:
            return self.refuse(Refusal.JOURNAL_FORK, journal=self.head(piece.epoch))
        fresh = list(piece.bodies)[len(bodies) - len(known) :]
        for one in map(json.loads, fresh):
            kept = self.users.get(one.get("user", ""))
            if one.get("outcome") == "accepted" and kept is not None:
                kept.last_step = max(kept.last_step, one.get("step", -1))
        bodies.extend(fresh)
        return self._json(self.head(piece.epoch).octets())

    def _verify(self, body: bytes) -> web.Response:
        asked = read_verify_request(body).attempts
        self.attempts += asked
        self.batches.append(len(asked))
        return self._json(VerifyAnswer(rulings=tuple(self.rule(one) for one in asked)).octets())

    def rule(self, attempt: VerifyAttempt) -> VerifyRuling:
        """A ruling, the same for the same event."""
        if attempt.event_id not in self.ruled:
            self.ruled[attempt.event_id] = self._rule(attempt)
        return self.ruled[attempt.event_id]

    def _rule(self, attempt: VerifyAttempt) -> VerifyRuling:
        kept = self.users.get(attempt.name)
        if kept is None:
            return VerifyRuling(event_id=attempt.event_id, outcome=Outcome.REJECTED, reason=Reason.NOT_ENTITLED.value)
        code = attempt.readings[0].text.reveal().decode()
        found = match(kept.person.credential, code, now=self.clock())
        credential = f"totp:{kept.id + 1000}"
        if found.step > kept.last_step:
            kept.last_step = found.step
            return VerifyRuling(
                event_id=attempt.event_id, outcome=Outcome.ACCEPTED, rule="default", factor="totp", credential=credential,
                step=found.step, reading=0,
            )  # fmt: skip
        reason = Reason.MISMATCH if found.step < 0 else Reason.REPLAYED
        return VerifyRuling(
            event_id=attempt.event_id, outcome=Outcome.REJECTED, reason=reason.value, rule="default", counted=True
        )

    # -- life

    async def start(self) -> None:
        """Listen, on the port of before if there was one."""
        app = web.Application(client_max_size=1 << 24)
        app.router.add_get(HEALTH, self._answer)
        for path in (JOIN, SYNC, VERIFY, JOURNAL, RENEW):
            app.router.add_post(path, self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, "127.0.0.1", self.port, ssl_context=self.ca.server_context(self.folder), reuse_address=True
        )
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Be gone: nobody listens, and every connection is closed."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[FakeAuthority]:
        await self.start()
        try:
            yield self
        finally:
            await self.stop()


# -- faults


def answers(status: int = 200, body: bytes = b"", **headers: str) -> Fault:
    """Answer this."""

    async def fault(request: web.Request, _body: bytes) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    return fault


async def drops(request: web.Request, _body: bytes) -> web.StreamResponse | None:
    """Close the connection without a word."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def hangs(request: web.Request, _body: bytes) -> web.StreamResponse | None:
    """Say nothing for a long time."""
    await asyncio.sleep(3600)
    return None


async def halves(request: web.Request, _body: bytes) -> web.StreamResponse | None:
    """Begin an answer and close the connection."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"rulings":[')
    assert request.transport is not None
    request.transport.abort()
    return response


def trusting(ca: Ca) -> ssl.SSLContext:
    """A client that shows no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca.pem)
    return context
