"""One bind, from the request to its result: in which order is everything done?

Room rule: sequence. Each step is somebody else's: whose name it is, who is exempt, what was typed, what the verdict means. The
session has seen to it that nothing of the client passes meanwhile, and drops the directory's side of whatever is refused here.

    what needs no look at a credential (version, method, controls, empty names and passwords)
    exempt as the name is written?  -> the whole text to the directory -> who is it? -> exempt as that, or refused
    else                            -> the gate, which takes the text apart and asks for its password to be checked:
                                       the directory's bind -> who is it? -> the same user? -> GOOD or BAD; then the verdict

The check runs on the very connection that the client will use, so that a granted bind costs the directory one bind. No task and
no future: each step is called by the answer to the one before. Whatever ends it, the gate is told, and the log has one line.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol, assert_never

from ldap_proxy import exemptions as exempt
from ldap_proxy import mapping, message, results
from ldap_proxy.ber import Malformed
from ldap_proxy.exemptions import Exempt, Exemptions
from ldap_proxy.guessing import Guessing
from ldap_proxy.lookup import Identities, LookupFailed
from ldap_proxy.mapping import Names, Who
from ldap_proxy.message import BindRequest, Result, ResultCode
from ldap_proxy.permits import Denied, Permits
from ldap_proxy.remember import Remember
from ldap_proxy.results import Answer, Outcome
from ldap_proxy.settings import Application, Confirm, LdapDoorSettings, RememberMode
from ldap_proxy.states import Event
from ldap_proxy.upstream import NoUpstream, Upstreams
from mfa_core.model import Attempt, Door, FirstFactor, Grammar, Interaction, SplitMode
from mfa_core.secret import Secret
from mfa_core.verdict import Accepted, Pending, Rejected, Verdict
from mfa_core.verifier import Password
from mfa_runtime.gate import Checked, Gate
from mfa_runtime.primary import PrimaryUnavailable

POLL_S: Final = 1.0
"""How often an out-of-band factor is asked after."""
_NOTHING_SHOWN: Final = Secret(b"")
_PASSWORD: Final = Grammar(SplitMode.PASSWORD)


class Journal(Protocol):
    """Where each bind gets its line: see :meth:`ldap_proxy.bind_log.BindLog.write`."""

    def write(
        self, *, event: str, listener: str, application: str, source: str, dn: str, user: str, way: str, outcome: str,
        reason: str, code: int, server: str, directory_s: float, took_s: float,
    ) -> None:  # fmt: skip
        """Add one line. Must not block."""
        ...


@dataclass(slots=True)
class Services:
    """What binds and sessions need of the rest of the door. ``exemptions`` are by the application's name."""

    gate: Gate
    upstreams: Upstreams
    names: Names
    exemptions: Mapping[str, Exemptions]
    identities: Identities
    guessing: Guessing
    remember: Remember
    journal: Journal | None
    monotonic: Callable[[], float]
    new_event_id: Callable[[], str]


class Holder(Protocol):
    """The session, as its bind sees it."""

    source: str
    listener: str
    application: Application
    link_is_anonymous: bool

    @property
    def server(self) -> str:
        """The directory server that is spoken to; "" for none."""
        ...

    def reach(self) -> None:
        """See that there is a connection to the directory, and tell :meth:`Bind.reached`, perhaps before this returns."""
        ...

    def send(self, octets: bytes) -> None:
        """Send a message to the directory."""
        ...

    def conclude(self, event: Event, octets: bytes, *, exempt: bool = False, sasl: str = "") -> None:
        """It is over: ``octets`` are the client's answer."""
        ...

    def count_bind(self, outcome: Outcome, seconds: float) -> None:
        """Count how it ended, and how long it took."""
        ...


class _Way(enum.StrEnum):
    """How a bind is judged."""

    NONE = "none"
    ANONYMOUS = "anonymous"
    EXEMPT = "exempt"
    GATE = "factor"
    SASL = "sasl"


class Bind:
    """One bind of one session."""

    __slots__ = (
        "_attempt", "_call_off", "_checked", "_decisive", "_event_id", "_good", "_over", "_password", "_pending", "_permits",
        "_poll", "_refusal", "_refusal_code", "_request", "_sent_at", "_services", "_session", "_settings", "_started",
        "_trouble", "_trying", "_user", "_way", "directory_s", "expects", "message_id", "until",
    )  # fmt: skip

    def __init__(
        self, session: Holder, services: Services, settings: LdapDoorSettings, permits: Permits, request: BindRequest
    ) -> None:
        self._session = session
        self._services = services
        self._settings = settings
        self._permits = permits
        self._request = request
        self.message_id = request.message_id
        self.expects = 0
        """The tag of the directory's answer that is awaited now, under the bind's message ID; 0 for none."""
        self._started = services.monotonic()
        self.until = self._started + settings.limits.bind_s
        """When it is over at the latest; monotonic, seconds."""
        self._event_id = services.new_event_id()
        self._way = _Way.NONE
        self._over = False
        self._user: str | None = None
        self._attempt: Attempt | None = None
        self._password: Secret | None = None
        self._checked: Checked | None = None
        self._call_off: Callable[[], None] | None = None
        self._poll: asyncio.TimerHandle | None = None
        self._pending = False
        self._good = b""
        """The directory's answer to a bind that it granted."""
        self._decisive = False
        """Whether the gate was told GOOD: without it no verdict lets anybody in."""
        self._refusal = b""
        """The directory's answer to a bind that it refused, and its code."""
        self._refusal_code = 0
        self._trouble: Answer | None = None
        """What the client is to hear in place of what the gate makes of it."""
        self._trying = False
        """Whether it counts as an attempt on an exempt account that is under way."""
        self._sent_at = 0.0
        self.directory_s = 0.0

    # -- before anything is asked ---------------------------------------------------------------------------------------------

    def start(self, denied: Denied | None, *, in_clear: bool = False) -> None:
        """Begin. ``denied``: what its controls are refused for, if they are; ``in_clear``: it came so where TLS is required."""
        answer = results.TLS_FIRST if in_clear else self._refused_at_once(denied)
        if answer is not None:
            self._refuse(answer)
            return
        request, session = self._request, self._session
        if request.password is None:
            self._take_exempt_way(_Way.SASL)
            return
        if not request.name:
            self._way = _Way.ANONYMOUS
            session.reach()
            return
        exemptions = self._services.exemptions[session.application.name]
        if not exemptions.nobody:
            dn = self._services.names.who(request.name).dn
            found = exemptions.of(dn, session.source)
            if found is exempt.YES:
                self._take_exempt_way(_Way.EXEMPT)
                return
            if found is exempt.UNKNOWN and dn is not None:
                self._call_off = exemptions.look_up(dn, self._candidate)
                return
        self._take_gate_way()

    def _refused_at_once(self, denied: Denied | None) -> Answer | None:
        """What needs no look at who it is (RFC 4511 section 4.2, RFC 4513 section 5.1)."""
        request = self._request
        if request.version != 3:
            return results.VERSION
        if denied is not None:
            return Answer(denied.code, denied.text, Outcome.REJECTED, "controls")
        if request.password is None:
            denied = self._permits.sasl(request.mechanism)
            return None if denied is None else Answer(denied.code, denied.text, Outcome.REJECTED, "method")
        if not request.password:
            if request.name:
                return results.NO_PASSWORD
            return results.NO_ANONYMOUS if self._permits.denies_anonymous else None
        return None if request.name else self._refused("password_without_name")

    def _candidate(self, found: Exempt | LookupFailed) -> None:
        """What the directory says of the groups of the name as it is written. No answer exempts nobody: a code is asked for."""
        self._call_off = None
        if found is exempt.YES:
            self._take_exempt_way(_Way.EXEMPT)
        else:
            self._take_gate_way()

    def _take_exempt_way(self, way: _Way) -> None:
        """Without the gate: what it ends in is judged by the identity that the directory confirms. Failures count here."""
        self._way = way
        request, session = self._request, self._session
        shown = request.password or request.credentials or _NOTHING_SHOWN
        if not self._services.guessing.may_try(session.source, request.name, shown):
            self._refuse(self._refused("too_many_failures"))
            return
        self._services.guessing.began(session.source)
        self._trying = True
        session.reach()

    def _take_gate_way(self) -> None:
        self._way = _Way.GATE
        names = self._services.names
        who = names.who(self._request.name)
        user = names.user_of(who)
        if user is mapping.UNKNOWN:
            self._call_off = names.look_up(who, self._named)
        else:
            self._ask(user)

    def _named(self, user: str | LookupFailed | None) -> None:
        self._call_off = None
        if isinstance(user, LookupFailed):
            self._refuse(results.DIRECTORY_AWAY)
        else:
            self._ask(user)

    # -- the gate -------------------------------------------------------------------------------------------------------------

    def _ask(self, user: str | None) -> None:
        """Ask the gate. Somebody who maps to no user is asked about under the name as it stands, and takes the same time."""
        session, request = self._session, self._request
        application = session.application
        self._user = user
        typed, grammar, credential = request.password, application.grammar, ""
        if application.remember.mode is not RememberMode.OFF and user is not None and typed is not None:
            known = self._services.remember.recall(
                application,
                listener=session.listener,
                source=session.source,
                user=self._services.gate.canonical(user),
                typed=typed,
            )
            if known is not None:
                credential, typed, grammar = known.credential, known.password, _PASSWORD
        attempt = self._attempt = Attempt(
            self._event_id,
            Door.LDAP,
            application.name,
            request.name.decode("utf-8", "surrogateescape") if user is None else user,
            session.source or None,
            typed,
            FirstFactor.OURS,
            Interaction.ONE_SHOT,
            self._settings.limits.bind_s,
            application.name,
            grammar=grammar,
            grammar_is_final=bool(credential),
            remembered=credential,
        )
        self._services.gate.ask_with(attempt, self._check, self._decided)

    def _check(self, password: Secret, checked: Checked) -> None:
        """The gate asks whether the directory takes this password."""
        if self._over:
            checked(PrimaryUnavailable("the client has gone", cure="nothing is to be done"))
        elif not password:
            # RFC 4513 section 5.1.2: the directory would take it for somebody without a name, and say yes.
            checked(Password.BAD)
        else:
            self._checked, self._password = checked, password
            self._session.reach()

    def _tell(self, answer: Password | Exception) -> None:
        checked, self._checked = self._checked, None
        if checked is not None:
            self._decisive = answer is Password.GOOD
            checked(answer)

    def _decided(self, verdict: Verdict) -> None:
        """The gate's answer."""
        if self._over:
            return
        if isinstance(verdict, Pending):
            self._ask_again_later(verdict)
            return
        refusal_text = self._session.application.refusal_text
        answer = results.answer_to(verdict, refusal_text)
        if answer is None:
            self._refuse(self._refused("pending"))
        elif answer.code == ResultCode.SUCCESS:
            if not self._decisive or not self._good:
                # A verdict about a password that the directory was not asked about, or did not take.
                self._refuse(self._refused("first_factor_unproved"))
            else:
                self._remember(verdict)
                self._grant(answer)
        else:
            self._forget(verdict)
            if self._trouble is not None:
                self._refuse(replace(self._trouble, outcome=answer.outcome))
            else:
                self._refuse(answer)

    def _ask_again_later(self, verdict: Pending) -> None:
        if self._attempt is None:
            return
        self._pending = True
        attempt = replace(self._attempt, challenge_id=verdict.id, challenge_until=0.0, typed=None)
        self._poll = asyncio.get_running_loop().call_later(POLL_S, self._ask_again, attempt)

    def _ask_again(self, attempt: Attempt) -> None:
        self._poll = None
        if not self._over:
            self._services.gate.ask(attempt, self._decided)

    def _remember(self, verdict: Verdict) -> None:
        """Remember a login that has shown its factor; one that was let in without it has nothing to be remembered for."""
        session, typed = self._session, self._request.password
        application = session.application
        if (
            application.remember.mode is not RememberMode.OFF
            and isinstance(verdict, Accepted)
            and typed is not None
            and self._password is not None
            and self._user is not None
        ):
            self._services.remember.store(
                application,
                listener=session.listener,
                source=session.source,
                user=self._services.gate.canonical(self._user),
                typed=typed,
                password=self._password,
                credential=verdict.credential,
            )

    def _forget(self, verdict: Verdict) -> None:
        if self._session.application.remember.mode is not RememberMode.OFF and isinstance(verdict, Rejected) and self._user:
            self._services.remember.forget(self._services.gate.canonical(self._user))

    # -- the directory --------------------------------------------------------------------------------------------------------

    def reached(self, error: NoUpstream | None) -> None:
        """There is a connection to the directory, or there is none to be had."""
        if self._over:
            return
        request = self._request
        if error is not None:
            self._no_answer(results.DIRECTORY_BUSY if error.overloaded else results.DIRECTORY_AWAY)
            return
        match self._way:
            case _Way.ANONYMOUS:
                octets = message.build_bind(self.message_id, b"", b"", request.controls)
            case _Way.SASL:
                octets = message.build_sasl_bind(
                    self.message_id, request.name, request.mechanism,
                    None if request.credentials is None else request.credentials.reveal(), request.controls,
                )  # fmt: skip
            case _Way.EXEMPT | _Way.GATE:
                password = request.password if self._way is _Way.EXEMPT else self._password
                if not password:
                    return
                octets = message.build_bind(self.message_id, request.name, password.reveal(), request.controls)
            case _Way.NONE:
                return
            case _:
                assert_never(self._way)
        self._session.link_is_anonymous = False
        self._await(message.BIND_RESPONSE, octets)

    def _await(self, tag: int, octets: bytes) -> None:
        self.expects = tag
        self._sent_at = self._services.monotonic()
        self._session.send(octets)

    def heard(self, pdu: bytes) -> None:
        """The directory's answer under the bind's message ID. Raises: Malformed, when it is none."""
        if self._over:
            return
        result = message.parse_result(pdu)
        expected, self.expects = self.expects, 0
        self.directory_s += self._services.monotonic() - self._sent_at
        if expected == message.BIND_RESPONSE:
            self._bound(result, pdu)
        else:
            self._who_am_i(result)

    def _bound(self, result: Result, pdu: bytes) -> None:
        way = self._way
        if result.code == ResultCode.SUCCESS:
            self._good = pdu
            if way is _Way.ANONYMOUS:
                self._session.link_is_anonymous = True
                self._grant(Answer(ResultCode.SUCCESS, "", Outcome.ANONYMOUS))
            else:
                self._confirm()
            return
        if result.code == ResultCode.SASL_BIND_IN_PROGRESS:
            if way is not _Way.SASL:
                raise Malformed("a simple bind that is to go on")
            self._stop()
            self._write(Answer(result.code, "", Outcome.STEP))
            self._session.conclude(Event.STEPPED, pdu, sasl=self._request.mechanism)
            return
        # RFC 4513 section 4: a bind that failed leaves nobody bound. Not so at OpenLDAP (2.5.13), whose password policy makes a
        # refusal of a bind that has succeeded: the connection stays that of the user. So it is not known to be anonymous.
        self._refusal, self._refusal_code = pdu, result.code
        refused = result.code in results.PASSWORD_REFUSED
        if way is _Way.GATE:
            if refused:
                self._tell(Password.BAD)
            else:
                self._tell(PrimaryUnavailable(f"the directory answered a bind with {result.code}", cure="see its log"))
            return
        if way is not _Way.ANONYMOUS and refused:
            self._services.guessing.failed(self._session.source)
        if way is _Way.SASL and result.code == ResultCode.INVALID_CREDENTIALS:
            # In the directory's own words a wrong password would differ from the right one of somebody who is not exempt.
            self._refuse(self._refused("directory"))
        else:
            self._refuse(Answer(result.code, "", Outcome.REJECTED, "directory", by_directory=True))

    def _confirm(self) -> None:
        """Ask who it is that the directory has let in: a DN may be written in many ways, and name an alias."""
        services, name = self._services, self._request.name
        if self._way is not _Way.SASL:
            if self._settings.confirm is Confirm.AS_BOUND:
                self._identified(services.names.who(name))
                return
            authzid = services.identities.get(name)
            if authzid is not None:
                self._identified(services.names.confirmed(authzid))
                return
        self._await(message.EXTENDED_RESPONSE, message.build_extended_request(self.message_id, message.WHO_AM_I))

    def _who_am_i(self, result: Result) -> None:
        if result.code != ResultCode.SUCCESS:
            self._no_answer(results.NO_IDENTITY)
            return
        authzid = b"" if result.value is None else result.value
        if authzid and self._way is not _Way.SASL:
            self._services.identities.put(self._request.name, authzid)
        self._identified(self._services.names.confirmed(authzid))

    def _identified(self, who: Who) -> None:
        services, session = self._services, self._session
        if self._way is _Way.GATE:
            user = services.names.user_of(who)
            if user is mapping.UNKNOWN:
                self._call_off = services.names.look_up(who, self._identified_user)
            else:
                self._identified_user(user)
            return
        exemptions = services.exemptions[session.application.name]
        found = exemptions.of(who.dn, session.source)
        if found is exempt.UNKNOWN and who.dn is not None:
            self._call_off = exemptions.look_up(who.dn, self._is_exempt)
        else:
            self._is_exempt(found)

    def _identified_user(self, user: str | LookupFailed | None) -> None:
        """Whether the identity is the user whose factor is asked for. Who maps to no user is let in by exemptions alone."""
        self._call_off = None
        if isinstance(user, LookupFailed):
            self._no_answer(results.DIRECTORY_AWAY)
            return
        canonical = self._services.gate.canonical
        name = "" if self._user is None or user is None else canonical(user)
        if name and self._user is not None and name == canonical(self._user):
            self._tell(Password.GOOD)
        else:
            self._trouble = self._refused("identity_mismatch" if user is not None else "identity_unknown")
            self._tell(Password.BAD)

    def _is_exempt(self, found: Exempt | LookupFailed) -> None:
        """Whether the identity that the directory has confirmed is exempt: the only question that exempts anybody."""
        self._call_off = None
        session, request = self._session, self._request
        if isinstance(found, LookupFailed):
            self._refuse(results.DIRECTORY_AWAY)
        elif found is exempt.YES:
            if request.password is not None:
                self._services.guessing.succeeded(session.source, request.name, request.password)
            self._grant(Answer(ResultCode.SUCCESS, "", Outcome.EXEMPT, str(self._way)))
        else:
            self._services.guessing.failed(session.source)
            self._refuse(self._refused("identity_not_exempt"))

    def _no_answer(self, answer: Answer) -> None:
        """The directory cannot say whether it is he."""
        if self._way is _Way.GATE and self._checked is not None:
            self._trouble = answer
            self._tell(PrimaryUnavailable(answer.text, cure="see `mfactl doctor`"))
        else:
            self._refuse(answer)

    def upstream_lost(self) -> None:
        """The directory is gone, and whoever was bound there."""
        if self._over:
            return
        self.expects = 0
        if self._way is not _Way.GATE or self._checked is not None:
            self._no_answer(results.DIRECTORY_AWAY)
        elif self._good:
            self._refuse(results.DIRECTORY_AWAY)

    # -- the end --------------------------------------------------------------------------------------------------------------

    def expire(self) -> None:
        """It takes too long."""
        if not self._over:
            self._refuse(results.not_confirmed("no verdict in time", self._text()) if self._pending else results.TOO_LATE)

    def give_up(self, why: str) -> None:
        """Nobody waits for the answer any more; ``why`` is "" where the client has left, else what ended its connection."""
        if self._over:
            return
        self._stop()
        outcome = Outcome.UNAVAILABLE if why else Outcome.CLIENT_GONE
        self._write(Answer(ResultCode.OTHER, "", outcome, why))

    def _grant(self, answer: Answer) -> None:
        self._stop()
        self._write(answer)
        if self._way is _Way.ANONYMOUS:
            self._session.conclude(Event.GRANTED_TO_NOBODY, self._good)
        else:
            self._session.conclude(Event.GRANTED, self._good, exempt=self._way is not _Way.GATE)

    def _refuse(self, answer: Answer) -> None:
        octets = self._refusal if answer.by_directory else b""
        if octets:
            answer = replace(answer, code=self._refusal_code)
        else:
            octets = message.build_result(self.message_id, message.BIND_RESPONSE, answer.code, answer.text)
        self._stop()
        self._write(answer)
        self._session.conclude(Event.REFUSED, octets)

    def _stop(self) -> None:
        """Call off what is under way: the gate is told, so that it keeps nothing for this bind."""
        self._over = True
        self.expects = 0
        if self._trying:
            self._trying = False
            self._services.guessing.ended(self._session.source)
        if self._poll is not None:
            self._poll.cancel()
        call_off, self._call_off = self._call_off, None
        if call_off is not None:
            call_off()
        if self._checked is not None:
            self._tell(PrimaryUnavailable("nobody waits for the answer any more", cure="nothing is to be done"))

    def _text(self) -> str:
        return self._session.application.refusal_text

    def _refused(self, reason: str) -> Answer:
        return results.refused(reason, self._text())

    def _write(self, answer: Answer) -> None:
        session, services = self._session, self._services
        seconds = services.monotonic() - self._started
        session.count_bind(answer.outcome, seconds)
        if services.journal is not None:
            services.journal.write(
                event=self._event_id,
                listener=session.listener,
                application=session.application.name,
                source=session.source,
                dn=self._request.name.decode("utf-8", "backslashreplace"),
                user=self._user or "",
                way=self._way,
                outcome=answer.outcome,
                reason=answer.reason,
                code=answer.code,
                server=session.server,
                directory_s=self.directory_s,
                took_s=seconds,
            )
