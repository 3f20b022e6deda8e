"""How does a host come to belong, and to a new certificate?

Room rule: the routes join and renew. A token is used up in the transaction in which the host appears, so that a join that fails
leaves it as it was. What is wrong with a token is not said.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select

from authority.acts import Acts
from authority.certificate_authority import check_request, sign_host
from authority.hosts_at_the_door import HostsAtTheDoor
from authority.own_keys import OwnKeys
from authority.requests import Answer, Asked, Refuse
from mfa_core.errors import Conflict
from mfa_runtime.administration.act import Act
from mfa_runtime.administration.hosts import admit_host, reserve_host
from mfa_runtime.administration.join_tokens import consume_token
from mfa_runtime.protocol.joining import JoinAnswer, JoinRequest, RenewAnswer, read_join_request, read_renew_request
from mfa_runtime.protocol.words import Refusal
from mfa_runtime.store import hosts
from mfa_runtime.store.hosts import HostState
from mfa_runtime.store.schema import hosts as hosts_table

TRIES: Final = 100
"""Joins that one address may try in :data:`TRIES_S`, good or not. A token cannot be guessed; each try costs a transaction."""
TRIES_S: Final = 60.0
ADDRESSES_REMEMBERED: Final = 4096
AT_ONCE: Final = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JoinSettings:
    """``host_certificate_s`` is the life of a host's certificate. ``trust`` is what hosts check our server's against, PEM."""

    host_certificate_s: float
    max_hosts: int
    trust: str


class Joining:
    """Takes hosts in. ``monotonic`` is seconds."""

    def __init__(
        self,
        acts: Acts,
        at_the_door: HostsAtTheDoor,
        keys: OwnKeys,
        settings: Callable[[], JoinSettings],
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._acts = acts
        self._at_the_door = at_the_door
        self._keys = keys
        self._settings = settings
        self._monotonic = monotonic
        self._tries: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._room = asyncio.Semaphore(AT_ONCE)

    async def join(self, asked: Asked) -> Answer:
        """``POST /v1/join``. Raises: Refuse, and what the store raises."""
        self._count(asked.address)
        request = read_join_request(await asked.body())
        check_request(request.csr)
        try:
            async with self._room:
                joined = await self._acts.do(lambda connection, act: self._join(connection, act, request, asked.address))
        except Refuse as refused:
            # No event in the audit log, which whoever guesses could fill; so many lines a minute as tries are taken.
            log.warning("%s may not join as %a: %s", asked.address, request.host_name, refused)
            raise
        return Answer(joined.octets())

    def _join(self, connection: Connection, act: Act, request: JoinRequest, address: str) -> JoinAnswer:
        settings = self._settings()
        token = consume_token(connection, act, request.token)
        if token is None or (token.host_name and token.host_name != request.host_name):
            raise Refuse(
                Refusal.BAD_TOKEN, "this token does not let this host join",
                cure="a token is good once, for its minutes, and for the host whose name it was made for, if for one "
                f"(this host says {request.host_name}): make a new one at the authority: `mfactl agent token GROUP`",
            )  # fmt: skip
        active = select(func.count()).select_from(hosts_table).where(hosts_table.c.state != HostState.REVOKED.value)
        if int(connection.execute(active).scalar_one()) >= settings.max_hosts:
            raise Refuse(
                Refusal.NO_ROOM, f"{settings.max_hosts} hosts have joined already",
                cure="raise authority.max_hosts, or revoke hosts that are gone",
            )  # fmt: skip
        number = reserve_host(connection)
        issued = sign_host(
            self._keys.ca, request.csr, host_id=number, now=act.now, lasts_s=settings.host_certificate_s
        )
        try:
            host = admit_host(
                connection, act, number=number, name=request.host_name, host_group=token.host_group,
                certificate=issued.fingerprint, hpke_public=request.hpke_public,
                key_protection=request.key_protection.value, software=request.software, address=address[:64],
            )  # fmt: skip
        except Conflict as err:
            raise Refuse(Refusal.NAME_TAKEN, str(err), cure=err.cure) from err
        signer = self._keys.signer
        return JoinAnswer(
            host_id=host.id,
            host_name=host.name,
            host_group=host.host_group,
            authority_id=self._keys.authority_id,
            certificate=issued.pem,
            trust=settings.trust,
            signers={signer.key_id: signer.public},
        )

    def _count(self, address: str) -> None:
        """Raises: Refuse, when this address has tried too often."""
        now = self._monotonic()
        began, tries = self._tries.pop(address, (now, 0))
        if now - began >= TRIES_S:
            began, tries = now, 0
        self._tries[address] = (began, tries + 1)
        if len(self._tries) > ADDRESSES_REMEMBERED:
            self._tries.popitem(last=False)
        if tries >= TRIES:
            raise Refuse(
                Refusal.OVERLOADED, f"{TRIES} joins were tried from this address within a minute", cure="wait a minute"
            )

    async def renew(self, asked: Asked) -> Answer:
        """``POST /v1/renew``. Raises: Refuse, and what the store raises."""
        present = await self._at_the_door.who(asked)
        request = read_renew_request(await asked.body())
        settings = self._settings()

        def work(connection: Connection, act: Act) -> RenewAnswer:
            issued = sign_host(
                self._keys.ca, request.csr, host_id=present.host.id, now=act.now, lasts_s=settings.host_certificate_s
            )
            hosts.set_next_certificate(connection, present.host.id, issued.fingerprint)
            act.record(connection, "host.renew", present.host.name, host=present.host.id, until=int(issued.not_after))
            return RenewAnswer(certificate=issued.pem, trust=settings.trust)

        return Answer((await self._acts.do(work)).octets())
