"""What may happen on one connection, and in which order?

Room rule: which octets go where, in each state of the table (:mod:`ldap_proxy.states`); no socket is opened, no timer set and
no clock read here (the server does), and how a bind is decided is :mod:`ldap_proxy.bind`'s. One client has one connection to
the directory, made when it is first needed, and message IDs stay as they are.

Four rules carry the weight. (1) Both directions are framed, and what cannot be framed ends the connection (RFC 4511 section
4.1.1): the directory never sees octets that this file has not understood the extent of. (2) From a BindRequest until its answer
nothing of the client passes (section 4.2.1), and nothing is lost: it waits, and when too much waits the client is not read. (3)
A bind that is not granted leaves the directory's side anonymous too: the connection to it is dropped unless it is known to be.
(4) The directory may answer what was asked, and say goodbye; anything else ends the connection.

What the hot path costs: one :func:`ber.head` and one look into a dict for a message, and one write for what came in one piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from ldap_proxy import message, permits
from ldap_proxy.applications import Applications
from ldap_proxy.ber import Malformed, TooLarge, head
from ldap_proxy.bind import Bind, Services
from ldap_proxy.link import Link
from ldap_proxy.message import ResultCode
from ldap_proxy.permits import Denied, Permits
from ldap_proxy.results import DIRECTORY_AWAY, TLS_FIRST, Outcome
from ldap_proxy.settings import Application, LdapDoorSettings, Limits, Listen
from ldap_proxy.states import MOVES, Event, State
from ldap_proxy.upstream import NoUpstream

# Why the client's messages wait. A word of bits: the hot path asks whether there is any.
_BIND: Final = 1
_DIAL: Final = 2
_TLS: Final = 4
_OPERATIONS: Final = 8
_OVER: Final = 16
_TURN: Final = 32
# Why the client is not read.
_QUEUE: Final = 1
_UPSTREAM: Final = 2
_HANDSHAKE: Final = 4
_CLIENT: Final = 8
_LATER: Final = 16

_WAIT: Final = -1
"""More octets of this message are needed."""
_MOST_AT_ONCE: Final = 16
"""Messages that are looked into before others have their turn. A loop may read megabytes of one client before it looks at the
next, and ten octets that are refused cost it ten microseconds: one client held up all others for seconds."""
_A_BIND: Final = 8
"""Messages that a bind counts for: it makes a line of a log even where it is refused at once."""
_STREAM_FROM: Final = 64 * 1024
"""Octets of a message with controls that are gathered; of a longer one the controls alone are held back."""
_PROGRESS: Final = 64 * 1024
"""Octets that a slow client must bring in ``header_s``, of a message that it does not complete in that time."""
CLOSING_S: Final = 5.0
"""How long a client may take to read the last that it is told."""
_ANSWER_MAX: Final = 256 * 1024
"""Octets in an answer of the directory that the door itself reads: results of binds and of Who am I."""

_BIND_REQUEST: Final = message.BIND_REQUEST
_BIND_RESPONSE: Final = message.BIND_RESPONSE
_UNBIND: Final = message.UNBIND_REQUEST
_SEARCH: Final = message.SEARCH_REQUEST
_ENTRY: Final = message.SEARCH_ENTRY
_DONE: Final = message.SEARCH_DONE
_REFERENCE: Final = message.SEARCH_REFERENCE
_COMPARE: Final = message.COMPARE_REQUEST
_ABANDON: Final = message.ABANDON_REQUEST
_EXTENDED: Final = message.EXTENDED_REQUEST
_EXTENDED_RESPONSE: Final = message.EXTENDED_RESPONSE
_INTERMEDIATE: Final = message.INTERMEDIATE_RESPONSE
_GOES_ON: Final = frozenset({_REFERENCE, _INTERMEDIATE})
_FINAL: Final = message.FINAL
_REQUESTS: Final = message.REQUESTS
_WHOLE: Final = frozenset({_BIND_REQUEST, _EXTENDED, _COMPARE, _ABANDON})
"""Requests that are read, and so gathered first."""
_HEARD_IN_CLEAR: Final = frozenset({_BIND_REQUEST, _EXTENDED})
"""Where TLS is required: a StartTLS, and a bind, which has a line in the log when it is refused."""
_PLAIN: Final = {tag: final for tag, final in _FINAL.items() if tag not in _WHOLE}
"""Requests that pass as they are, and the response that ends each."""
_NOTHING_PASSES: Final[dict[int, int]] = {}
_ABORTED_TRANSACTION: Final = b"1.3.6.1.1.21.4"
"""RFC 5805 section 2.2: the one other thing that a directory says without being asked."""


class Rules:
    """What holds for connections, until the next reload: settings in the form in which they are asked for."""

    __slots__ = ("_applications", "_only", "_permits", "limits", "services", "settings", "tls_required")

    def __init__(self, settings: LdapDoorSettings, services: Services) -> None:
        self.settings = settings
        self.services = services
        self.limits: Limits = settings.limits
        self.tls_required = settings.tls is not None and settings.tls.required
        self._applications = Applications(settings.applications)
        self._only = settings.applications[0] if len(settings.applications) == 1 else None
        self._permits = {
            application.name: Permits(application.operations, application.anonymous) for application in settings.applications
        }

    def application_of(self, source: str, listen: Listen) -> Application:
        """Whose connection it is."""
        return self._applications.find(source, listen) if self._only is None else self._only

    def permits_of(self, application: Application) -> Permits:
        """What the application may do."""
        return self._permits[application.name]


class Host(Protocol):
    """The server, as a session sees it."""

    rules: Rules

    def name_of(self, listen: Listen) -> str:
        """The listener as text: one for all of its connections."""
        ...

    def can_secure(self) -> bool:
        """Whether there is a certificate for StartTLS."""
        ...

    def secure(self, session: Session) -> None:
        """Begin a TLS handshake on the session's transport, then tell :meth:`Session.secured_by`."""
        ...

    def later(self, session: Session) -> None:
        """Tell :meth:`Session.take_turn` when all others had their turn."""
        ...

    def left(self, session: Session) -> None:
        """Its connection is gone."""
        ...

    def count(self, event: str) -> None:
        """Count an event; the words are stable."""
        ...

    def count_bind(self, application: str, outcome: Outcome, seconds: float) -> None:
        """Count how a bind ended."""
        ...

    def note_malformed(self, source: str, whose: str, text: str) -> None:
        """Somebody sent what is no LDAP: "client" or "upstream"."""
        ...


class Session(asyncio.Protocol):
    """One client, and its connection to the directory. It is the protocol of the client's transport."""

    __slots__ = (
        "_abandoned", "_begun_at", "_begun_left", "_bind", "_cancel_dial", "_client_full", "_discard", "_held", "_host", "_in",
        "_later", "_limit", "_link", "_need", "_no_upstream", "_outstanding", "_paused", "_permits", "_plain", "_quiet_since",
        "_rest", "_rules", "_sasl", "_scan", "_tail", "_taking", "_transport", "_up", "_up_need", "_up_rest", "active",
        "application", "exempt", "link_is_anonymous", "listen", "listener", "origin", "secured", "source", "state",
    )  # fmt: skip

    def __init__(self, host: Host, listen: Listen, source: str, *, secured: bool) -> None:
        self._host = host
        self.listen = listen
        self.listener = host.name_of(listen)
        self.source = source
        """An address literal; "" for a local socket."""
        self.origin: object = None
        """What connections are counted under; the server's."""
        self.secured = secured
        """Whether nobody on the way can read it."""
        self.state = State.ANONYMOUS
        self.exempt = False
        """Whether the identity that it is bound as needs no second factor."""
        self.active = True
        self._quiet_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._client_full = False
        self._paused = 0
        self._held = 0

        # From the client
        self._in: bytearray | None = None
        """Octets that are not dealt with yet: they wait, or their message is not complete."""
        self._need = 0
        """Octets that must be there before it is worth looking at them."""
        self._scan = 0
        """Where the first message begins in what waits that was not looked at for an Unbind; 0 when nothing waits."""
        self._rest = 0
        """Octets that are still to come of a message whose beginning was relayed, or discarded."""
        self._tail = 0
        """Of these, the controls at its end: they are held back until all have come."""
        self._discard = False
        self._taking = False
        self._outstanding: dict[int, int] = {}
        """Message ID of each request that the directory has not answered to the end, and the tag that will end it."""
        self._abandoned: dict[int, int] | None = None
        self._begun_at = 0.0
        self._begun_left = 0

        # From the directory
        self._link: Link | None = None
        self._cancel_dial: Callable[[], None] | None = None
        self._no_upstream = False
        self.link_is_anonymous = True
        self._up: bytearray | None = None
        """Octets that are not dealt with yet: their message is not complete."""
        self._up_need = 0
        self._up_rest = 0
        """Octets that are still to come of a message whose beginning the client has."""
        self._later = b""
        """Answers of ours that wait for its end."""

        self._bind: Bind | None = None
        self._sasl = ""
        """The mechanism of a SASL bind that goes on with the client's next request."""
        self._look_at_rules()

    def _look_at_rules(self) -> None:
        """Take what holds now: at the beginning, and at a bind after a reload, which reaches connections that stay so."""
        rules = self._host.rules
        self._rules = rules
        self.application = rules.application_of(self.source, self.listen)
        self._permits = rules.permits_of(self.application)
        self._settle()

    def rules_changed(self) -> None:
        """A reload. Whether TLS is required holds at once in clear, and the other rules with it; a pending bind ends first."""
        if self._bind is None and not self.secured and self._host.rules.tls_required != self._rules.tls_required:
            self._look_at_rules()

    # -- the client's transport -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.Protocol`."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's are of its own class
        if self.state is State.CLOSING:  # it was over before its TLS handshake was
            transport.abort()  # type: ignore[attr-defined]  # the base class names no method of theirs
            return
        transport.set_write_buffer_limits(high=self._rules.limits.write_buffer)  # type: ignore[attr-defined]  # as above

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the protocol's shape
        """The client is gone: so is all that was under way for it. A handshake that fails may tell it twice."""
        if self._transport is None:
            return
        self._end(None)
        self._transport = None
        self._host.left(self)

    def eof_received(self) -> None:
        """The client has said its last: a pending bind is nobody's any more. The transport closes itself."""
        self._end(None)

    def pause_writing(self) -> None:
        """It does not take what it is sent: neither results of the directory nor refusals of ours may pile up."""
        self._client_full = True
        self._pause(_CLIENT)
        if self._link is not None:
            self._link.pause()

    def resume_writing(self) -> None:
        """It does again."""
        self._client_full = False
        if self._link is not None:
            self._link.resume()
        self._resume(_CLIENT)

    def data_received(self, data: bytes) -> None:
        """Octets of the client."""
        self.active = True
        waiting = self._in
        if waiting is None:
            if not self._held:
                self._take(data, 0)
                return
            if self.state is State.CLOSING:
                return
            self._in = bytearray(data)
            self._look_ahead()
            return
        waiting += data
        if self._held:
            self._look_ahead()
        elif len(waiting) >= self._need:
            self._in = None
            self._take(bytes(waiting), 0)

    def take_turn(self) -> None:
        """Others had theirs: go on with what the client has sent."""
        self._release(_TURN)

    @property
    def transport(self) -> asyncio.Transport | None:
        """The client's transport; None when it is gone."""
        return self._transport

    def secured_by(self, transport: asyncio.Transport) -> None:
        """The TLS handshake is done, and ``transport`` carries what is inside."""
        self._transport = transport
        if self.state is State.CLOSING:
            transport.abort()
            return
        self.secured = True
        # The transport that was paused, and the buffer that was full, are no longer ours to start again.
        self._paused, self._client_full = 0, False
        if self._link is not None:
            self._link.resume()
        transport.set_write_buffer_limits(high=self._rules.limits.write_buffer)
        self._settle()
        self._release(_TLS)

    def sweep(self, now: float) -> None:
        """End what takes too long; called about once a second. ``now`` is monotonic, seconds."""
        if self.active:
            self.active = False
            self._quiet_since = now
        limits = self._rules.limits
        if self.state is State.CLOSING:
            if self._transport is not None and now - self._quiet_since > CLOSING_S:
                self._transport.abort()
            return
        bind = self._bind
        if bind is not None:
            if now >= bind.until:
                bind.expire()
            return
        if (self._in is not None and not self._held) or self._rest or self._tail:
            left = self._rest + self._tail if self._in is None else self._need - len(self._in)
            if not self._begun_at or self._paused or left + _PROGRESS <= self._begun_left:
                self._begun_at, self._begun_left = now, left
            elif now - self._begun_at > limits.header_s:
                self._host.count("slow_message")
                self._end(message.notice_of_disconnection(ResultCode.BUSY, "a message took too long to arrive"))
        elif now - self._quiet_since > limits.idle_s and (not self._outstanding or self._client_full):
            self._host.count("idle")
            self._end(message.notice_of_disconnection(ResultCode.BUSY, "idle for too long"))

    def drain(self) -> None:
        """The door closes: say so at once where nothing is under way."""
        if self._bind is None and not self._outstanding and not self._up_rest:
            self.dismiss()

    def dismiss(self) -> None:
        """The door closes: say so."""
        self._end(message.notice_of_disconnection(ResultCode.UNAVAILABLE, "the server is shutting down"), "shutting_down")

    # -- from the client ------------------------------------------------------------------------------------------------------

    def _take(self, data: bytes, late: int) -> None:
        """Deal with octets that begin where a message does, or go on with one; ``late`` of them waited for a bind."""
        self._taking = True
        try:
            at, size = 0, len(data)
            if self._rest or self._tail:
                at = self._go_on(data)
            run = at
            need = self._tail
            looked_into = 0
            plain, outstanding, limit, most = self._plain, self._outstanding, self._limit, self._rules.limits.operations
            while at < size and not self._tail:
                found = head(data, at, limit)
                if found is None:
                    need = 0
                    break
                message_id = found[1]
                final = plain.get(found[2])
                if (
                    final is not None
                    and found[4] == found[0]
                    and message_id
                    and message_id not in outstanding
                    and len(outstanding) < most
                ):
                    outstanding[message_id] = final
                    at = found[0]
                    continue
                if run < at:
                    self._link.write(data[run:at])  # type: ignore[union-attr]  # else nothing would be plain
                after = self._judge(data, at, found, late)
                if after == _WAIT:
                    need = found[0] - at
                    run = at
                    break
                run = at = after
                if self._held:
                    break
                need = self._tail
                looked_into += _A_BIND if found[2] == _BIND_REQUEST else 1
                if looked_into >= _MOST_AT_ONCE and at < size and not need:
                    self._held |= _TURN
                    self._host.later(self)
                    break
                plain, outstanding, limit = self._plain, self._outstanding, self._limit
            if self._held & _OVER:
                return
            if run < at and run < size:
                self._link.write(data[run:at] if run or at < size else data)  # type: ignore[union-attr]  # as above
            if at < size:
                self._in = bytearray(data[at:] if at else data)
                self._need = need
                self._scan = max(0, self._scan - at)
                if at:
                    self._begun_at = 0.0  # else it is the same message still
                if self._held:
                    self._look_ahead()
            elif at > size:
                self._rest = at - size
                self._begun_at = 0.0
        except Malformed as err:
            self._malformed(err, "client")
        finally:
            self._taking = False
            self._no_upstream = False

    def _go_on(self, data: bytes) -> int:
        """Go on with a long message; the offset behind what belongs to it, or to which all controls must come first."""
        at, size = 0, len(data)
        if self._rest:
            at = min(self._rest, size)
            self._rest -= at
            if not self._discard and self._link is not None:
                self._link.write(data if at == size else data[:at])
            if self._rest:
                return size
        self._discard = False
        if self._tail and at < size:
            if size - at < self._tail:
                return at
            controls = data[at : at + self._tail]
            denied = self._permits.controls(message.control_oids(controls), exempt=self.exempt)
            if denied is not None:
                # Its operation is with the directory, all but its end: there is no way back but to drop both.
                raise Malformed(f"a long message with controls that are refused: {denied.text}")
            if self._link is not None:
                self._link.write(controls)
            at += self._tail
            self._tail = 0
        return at

    def _judge(self, data: bytes, at: int, found: tuple[int, int, int, int, int], late: int) -> int:
        """Deal with a request that does not simply pass; the offset behind what was dealt with, or _WAIT.

        Raises: Malformed, when the client is not to be talked to any more.
        """
        end, message_id, tag, start, op_end = found
        size = len(data)
        if tag not in _REQUESTS:
            raise Malformed(f"an operation with the tag 0x{tag:02x}, expected a request")
        if tag == _UNBIND:
            self._unbind()
            return size
        if not message_id:
            raise Malformed("a request with the message ID 0")
        if message_id in self._outstanding:
            raise Malformed("a message ID that another request has")
        if self._rules.tls_required and not self.secured and tag not in _HEARD_IN_CLEAR:
            return self._refuse(found, size, TLS_FIRST.code, TLS_FIRST.text)
        if tag in _WHOLE:
            if end > size:
                return _WAIT
            if tag == _BIND_REQUEST:
                if self._abandoned is not None and self._abandoned.get(message_id) == _EXTENDED_RESPONSE:
                    # What may still be said of that could be taken for the answer to our own Who am I.
                    raise Malformed("a bind with the message ID of an extended operation that was abandoned")
                self._begin_bind(data[at:end])
                return end
            denied = self._look_into(data[at:end], tag, found, late, is_last=end == size)
            if denied is None and self._held & _TLS:
                return end
        elif self.state is State.BOUND or not self._permits.denies_anonymous:
            denied = None
        elif tag == _SEARCH:
            if size - start < permits.ROOT_DSE_OCTETS and end > size:
                return _WAIT
            denied = self._permits.unbound(data[start : start + permits.ROOT_DSE_OCTETS])
        else:
            denied = self._permits.operation(bound=False)
        if denied is None and op_end < end:
            if end > size:
                if end - at <= _STREAM_FROM:
                    return _WAIT
            else:
                denied = self._permits.controls(message.control_oids(data[op_end:end]), exempt=self.exempt)
        if denied is not None:
            return self._refuse(found, size, denied.code, denied.text)
        return self._relay(data, at, found)

    def _relay(self, data: bytes, at: int, found: tuple[int, int, int, int, int]) -> int:
        """Send a request that may pass to the directory: what is there of it; the offset behind that."""
        end, message_id, tag, _, op_end = found
        size = len(data)
        if tag == _ABANDON:
            self._abandon(data[at:end])
            return end
        if self._sasl:
            return self._refuse(found, size, ResultCode.OPERATIONS_ERROR, "a SASL bind is under way")
        if len(self._outstanding) >= self._rules.limits.operations:
            self._held |= _OPERATIONS
            return at
        if self._link is None:
            if self._no_upstream:
                return self._refuse(found, size, DIRECTORY_AWAY.code, DIRECTORY_AWAY.text)
            self._dial()
            return at
        self._outstanding[message_id] = _FINAL[tag]
        if end > size and op_end < end:
            self._tail = end - op_end
            end = op_end
        self._link.write(data[at:end])
        return end

    def _look_into(
        self, pdu: bytes, tag: int, found: tuple[int, int, int, int, int], late: int, *, is_last: bool
    ) -> Denied | None:
        """Judge a request by what stands in it; StartTLS is dealt with here, and its refusals told as any."""
        if tag == _COMPARE:
            denied = self._permits.operation(bound=self.state is State.BOUND)
            return denied or self._permits.compare(message.compare_attribute(pdu))
        if tag == _ABANDON:
            return None
        oid = message.extended_oid(pdu)
        if oid == message.START_TLS:
            return self._start_tls(found, late, is_last=is_last)
        if self._rules.tls_required and not self.secured:
            return Denied(TLS_FIRST.code, TLS_FIRST.text)
        return self._permits.extended(oid, bound=self.state is State.BOUND)

    def _refuse(self, found: tuple[int, int, int, int, int], size: int, code: int, text: str) -> int:
        """Answer a request that does not pass, and nothing else; the offset behind it, of which not all may have come."""
        end, message_id, tag, _, _ = found
        final = _FINAL.get(tag)
        if final is not None:  # else it is an Abandon, which nobody answers
            self._host.count("refused_operation")
            self._say(message.build_result(message_id, final, code, text))
        self._discard = end > size
        return end

    def _abandon(self, pdu: bytes) -> None:
        """Pass on an Abandon of something."""
        target = message.abandoned(pdu)
        final = self._outstanding.pop(target, 0)
        if not final or self._link is None:
            return
        self._expect_no_more({target: final})
        self._link.write(pdu)

    def _expect_no_more(self, operations: dict[int, int]) -> None:
        """Nobody waits for these any more; the directory may answer them all the same (RFC 4511 sections 4.2.1 and 4.11)."""
        if self._abandoned is None:
            self._abandoned = {}
        self._abandoned.update(operations)
        while len(self._abandoned) > self._rules.limits.operations:
            del self._abandoned[next(iter(self._abandoned))]

    def _start_tls(self, found: tuple[int, int, int, int, int], late: int, *, is_last: bool) -> Denied | None:
        """RFC 4511 section 4.14. ``late``: octets that came while a bind was pending; there it was too early."""
        if not self._host.can_secure():
            return Denied(ResultCode.PROTOCOL_ERROR, "unsupported extended operation")
        if self.secured or self._outstanding or self._up_rest or self._sasl or found[0] <= late:
            return Denied(ResultCode.OPERATIONS_ERROR, "TLS is on already, or something is under way")
        if not is_last:
            # Whoever put them there could write into the stream, and they would be read as if TLS had protected them.
            raise Malformed("octets in clear after a StartTLS")
        if self._link is not None and (not self.link_is_anonymous or self._abandoned):
            # Also for what may still be answered: it would fall into the handshake.
            self._drop_link()
        self.exempt = False
        self._move(Event.TLS)
        self._say(message.build_extended_response(found[1], ResultCode.SUCCESS, oid=message.START_TLS))
        self._wait_for_tls()
        return None

    def _wait_for_tls(self) -> None:
        self._held |= _TLS
        self._pause(_HANDSHAKE)
        self._host.secure(self)

    def _unbind(self) -> None:
        """The client takes leave: the directory hears it from us, and a pending bind is nobody's any more."""
        link = self._link
        if link is not None and self._bind is None and not self._rest and not self._tail:
            self._link = None
            link.close()
        self._end(None)

    # -- while it waits -------------------------------------------------------------------------------------------------------

    def _look_ahead(self) -> None:
        """See whether the client takes leave in what waits, and whether that is too much."""
        waiting = self._in
        if waiting is None:
            return
        at, size, limit = self._scan, len(waiting), self._rules.limits.pdu_bound
        try:
            # What waits for its turn alone is dealt with in its order, a leave too.
            while at < size and self._held != _TURN:
                found = head(waiting, at, limit)
                if found is None:
                    break
                if found[2] == _UNBIND:
                    self._unbind()
                    return
                at = found[0]
        except Malformed as err:
            self._malformed(err, "client")
            return
        self._scan = at
        if size > self._rules.limits.queued:
            self._pause(_QUEUE)

    def _release(self, why: int) -> None:
        """One reason to wait is gone: go on with what waits, where no other is left."""
        self._held &= ~why
        if self._held or self._taking:
            return
        waiting, self._in = self._in, None
        if waiting:
            self._take(bytes(waiting), len(waiting) if why & (_BIND | _TURN) else 0)
        if self._in is None:
            self._scan = 0
        self._no_upstream = False
        if not self._held:
            self._resume(_QUEUE)

    def _pause(self, why: int) -> None:
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
        self._paused |= why

    def _resume(self, why: int) -> None:
        if self._paused & why:
            self._paused &= ~why
            if not self._paused and self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    # -- binds ----------------------------------------------------------------------------------------------------------------

    def _begin_bind(self, pdu: bytes) -> None:
        request = message.parse_bind(pdu)
        if self._rules is not self._host.rules:
            self._look_at_rules()
        in_clear = self._rules.tls_required and not self.secured
        denied = None
        if request.controls:
            denied = self._permits.controls(message.control_oids(request.controls), exempt=False)
        self._sasl = ""
        self._move(Event.BIND)
        self.exempt = False
        self._held |= _BIND
        self._settle()
        bind = self._bind = Bind(self, self._rules.services, self._rules.settings, self._permits, request)
        bind.start(denied, in_clear=in_clear)

    def reach(self) -> None:
        """See that there is a connection to the directory, and tell the bind: at once where there is one."""
        if self._link is None:
            self._dial()
        elif self._bind is not None:
            self._bind.reached(None)

    def send(self, octets: bytes) -> None:
        """Send a message of the bind's own to the directory."""
        if self._link is not None:
            self._link.write(octets)

    @property
    def server(self) -> str:
        """The directory server that is spoken to."""
        return "" if self._link is None else self._link.server

    def count_bind(self, outcome: Outcome, seconds: float) -> None:
        """Count how the bind ended."""
        self._host.count_bind(self.application.name, outcome, seconds)

    def conclude(self, event: Event, octets: bytes, *, exempt: bool = False, sasl: str = "") -> None:
        """The bind is over: answer, and let the client go on. What was not granted leaves nobody bound on either side."""
        self._bind = None
        self._up_need = 0
        granted = event in _KEEPS_LINK
        if not granted and self._link is not None and not self.link_is_anonymous:
            self._drop_link()
        if not granted and self._cancel_dial is not None:
            self._call_off()
        if self.state is State.CLOSING:
            return
        self._move(event)
        self.exempt = exempt
        self._sasl = sasl
        if granted and self._outstanding:
            # A directory drops what it was asked before a bind (RFC 4511 section 4.2.1): it would count for ever.
            self._expect_no_more(self._outstanding)
            self._outstanding = {}
        self._settle()
        if self._rules is not self._host.rules:
            self.rules_changed()
        self._say(octets)
        self._release(_BIND)

    # -- the connection to the directory --------------------------------------------------------------------------------------

    def _dial(self) -> None:
        if self._cancel_dial is not None:
            return
        self._held |= _DIAL
        cancel = self._rules.services.upstreams.connect(self, self._dialled)
        if self._held & _DIAL:
            self._cancel_dial = cancel

    def _dialled(self, answer: Link | NoUpstream) -> None:
        self._cancel_dial = None
        if self.state is State.CLOSING:  # it was called off; this is what comes of it all the same
            if isinstance(answer, Link):
                answer.abort()
            return
        error: NoUpstream | None = None
        if isinstance(answer, NoUpstream):
            error = answer
            self._no_upstream = True
        else:
            self._link = answer
            self.link_is_anonymous = True
            if self._client_full:
                answer.pause()
        self._held &= ~_DIAL
        self._settle()
        if self._bind is not None:
            self._no_upstream = False
            self._bind.reached(error)
        else:
            self._release(_DIAL)

    def _call_off(self) -> None:
        cancel, self._cancel_dial = self._cancel_dial, None
        self._held &= ~_DIAL
        if cancel is not None:
            cancel()

    def _drop_link(self) -> None:
        """Leave the directory: what it was asked stays unanswered, and the client is told so (RFC 4511 section 4.2.1: a bind
        ends or abandons what is outstanding)."""
        link, self._link = self._link, None
        if link is not None:
            link.abort()
        self.link_is_anonymous = True
        self._up, self._up_need = None, 0
        self._abandoned = None
        self._resume(_UPSTREAM)
        if self._up_rest:
            # The client has half a message, and its other half will never come.
            self._end(None)
            return
        outstanding, self._outstanding = self._outstanding, {}
        for message_id, final in outstanding.items():
            self._say(message.build_result(message_id, final, ResultCode.OTHER, "abandoned by a bind"))

    def upstream_lost(self, error: Exception | None) -> None:  # noqa: ARG002  the link has told the log
        """The directory is gone. See :class:`ldap_proxy.link.Receiver`."""
        self._link = None
        if self.state is State.CLOSING:
            return
        if self._outstanding or self._up_rest or self._rest or self._tail or self.state is State.BOUND or self._sasl:
            self._host.count("upstream_lost")
            self._end(message.notice_of_disconnection(DIRECTORY_AWAY.code, DIRECTORY_AWAY.text), DIRECTORY_AWAY.reason)
            return
        self.link_is_anonymous = True
        self._up, self._up_need, self._abandoned = None, 0, None
        self._resume(_UPSTREAM)
        self._move(Event.UPSTREAM_LOST)
        self._settle()
        if self._bind is not None:
            self._bind.upstream_lost()

    def upstream_full(self) -> None:
        """The directory does not take what it is sent."""
        self._pause(_UPSTREAM)

    def upstream_drained(self) -> None:
        """It does again."""
        self._resume(_UPSTREAM)

    def upstream_data(self, data: bytes) -> None:
        """Octets of the directory."""
        self.active = True
        waiting = self._up
        if waiting is not None:
            waiting += data
            if len(waiting) < self._up_need:
                return
            data = bytes(waiting)
            self._up, self._up_need = None, 0
        transport = self._transport
        if transport is None:
            return
        link, rest, size = self._link, self._up_rest, len(data)
        if rest:
            if rest > size:
                self._up_rest = rest - size
                transport.write(data)
                return
            self._up_rest = 0
        at, run, outstanding, limit = rest, 0, self._outstanding, self._rules.limits.pdu_upstream
        try:
            while at < size:
                found = head(data, at, limit)
                if found is None:
                    break
                tag = found[2]
                if tag == _ENTRY:
                    if outstanding.get(found[1]) == _DONE:
                        at = found[0]
                        continue
                elif outstanding.get(found[1]) == tag:
                    del outstanding[found[1]]
                    at = found[0]
                    continue
                elif tag in _GOES_ON and found[1] in outstanding:
                    at = found[0]
                    continue
                if run < at:
                    transport.write(data[run:at])
                    self._say_later()
                    run = at
                after = self._heed(data, at, found)
                if after == _WAIT:
                    run = at
                    break
                run = at = after
                if self._link is not link:
                    return  # what the old one has said beyond this counts no more
                outstanding = self._outstanding
        except Malformed as err:
            if run < at:
                transport.write(data[run:at])
            self._malformed(err, "upstream")
            return
        if run < at and run < size:
            transport.write(data[run:at] if run or at < size else data)
        if at > size:
            self._up_rest = at - size
        else:
            if at < size:
                self._up = bytearray(data[at:])
            if self._later:
                self._say_later()
        if self._held & _OPERATIONS and len(outstanding) < self._rules.limits.operations:
            self._release(_OPERATIONS)

    def _heed(self, data: bytes, at: int, found: tuple[int, int, int, int, int]) -> int:
        """Deal with a response that is not simply passed on; the offset behind it, or _WAIT.

        Raises: Malformed, when the directory is not to be believed any more.
        """
        end, message_id, tag, _, _ = found
        bind = self._bind
        if bind is not None and message_id == bind.message_id and tag == bind.expects:
            if not self._is_whole(data, at, end):
                return _WAIT
            bind.heard(data[at:end])
            return end
        if not message_id and tag == _EXTENDED_RESPONSE:
            if not self._is_whole(data, at, end):
                return _WAIT
            if message.parse_result(data[at:end]).oid == _ABORTED_TRANSACTION:
                self._say(data[at:end])
                return end
            self._host.count("upstream_notice")
            self._end(data[at:end], DIRECTORY_AWAY.reason)
            return end
        abandoned = self._abandoned
        if abandoned is not None and message_id in abandoned:
            if abandoned[message_id] == tag:
                del abandoned[message_id]
            if self._transport is not None:
                self._transport.write(data[at:end])
            if end > len(data):
                self._up_rest = end - len(data)
            return end
        raise Malformed(f"an answer with the tag 0x{tag:02x} that nothing was asked for")

    def _is_whole(self, data: bytes, at: int, end: int) -> bool:
        """Whether an answer that the door reads itself is there; if not, it is awaited."""
        if end - at > _ANSWER_MAX:
            raise TooLarge(f"an answer of {end - at} octets, expected at most {_ANSWER_MAX}")
        if end <= len(data):
            return True
        self._up_need = end - at
        return False

    # -- to the client --------------------------------------------------------------------------------------------------------

    def _say(self, octets: bytes) -> None:
        """Send an answer of ours; not into the middle of one of the directory's."""
        if self._up_rest:
            self._later += octets
            if len(self._later) > self._rules.limits.queued:
                self._pause(_LATER)
        elif self._transport is not None and self.state is not State.CLOSING:
            self._transport.write(octets)

    def _say_later(self) -> None:
        octets, self._later = self._later, b""
        if octets and self._transport is not None:
            self._transport.write(octets)
            self._resume(_LATER)

    def _malformed(self, err: Malformed, whose: str) -> None:
        """RFC 4511 section 4.1.1: the stream cannot be followed any more."""
        self._host.note_malformed(self.source, whose, err.text)
        if whose == "client":
            self._end(message.notice_of_disconnection(ResultCode.PROTOCOL_ERROR, "the message could not be understood"))
        else:
            self._end(message.notice_of_disconnection(DIRECTORY_AWAY.code, DIRECTORY_AWAY.text), "directory_malformed")

    def _end(self, notice: bytes | None, why: str = "") -> None:
        """Close both sides. ``notice`` is the last that the client hears, unless it has half a message of the directory;
        ``why``, where it is not the client that has gone, is for the log of a pending bind."""
        if self.state is State.CLOSING:
            return
        self._move(Event.OVER)
        self.active = True  # the time to read the last words runs from here
        self._held |= _OVER
        self._settle()
        self._call_off()
        bind, self._bind = self._bind, None
        if bind is not None:
            bind.give_up(why)
        link, self._link = self._link, None
        if link is not None:
            link.abort()
        self._in = None
        self._rest = self._tail = 0
        self._up, self._outstanding, self._abandoned = None, {}, None
        transport = self._transport
        if transport is not None and not transport.is_closing():
            if notice is not None and not self._up_rest and not self._held & _TLS:
                transport.write(self._later + notice)
            transport.close()
        self._later = b""

    def _move(self, event: Event) -> None:
        self.state = MOVES[self.state][event]

    def _settle(self) -> None:
        """Say what passes without a look, and how long messages may be, in the state as it is."""
        bound = self.state is State.BOUND
        passes = (
            self._link is not None
            and (bound or (self.state is State.ANONYMOUS and not self._permits.denies_anonymous))
            and (self.secured or not self._rules.tls_required)
            and not self._sasl
        )
        self._plain = _PLAIN if passes else _NOTHING_PASSES
        self._limit = self._rules.limits.pdu_bound if bound else self._rules.limits.pdu_anonymous


_KEEPS_LINK: Final = frozenset({Event.GRANTED, Event.GRANTED_TO_NOBODY, Event.STEPPED})
