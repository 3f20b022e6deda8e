"""How do messages get from the sockets to the conversations and back?

Room rule: moves bytes. Accepting, reading, writing, deadlines, bounds and hang-ups live here; what a message says is wire.py's
business, what follows from it conversation.py's, and who may come in is nobody's here but the gate's.

One thread, one loop. uvloop and asyncio have no transport for SOCK_SEQPACKET, so sockets are read with ``add_reader``: one
recv() is one message. There is no timer for each connection: one sweep twice a second looks at all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from mfa_core.model import Attempt
from mfa_core.verdict import Unavailable, Unready, Verdict
from mfa_runtime.gate import Gate
from mfa_runtime.seqpacket import peer_uid
from pam_mfa.conversation import Conversation, Event, HangUp, State, Step, Withdrawn
from pam_mfa.listeners import Listeners, open_listeners
from pam_mfa.login import Peer, Trust
from pam_mfa.peers import UidRates, UserNames, look_up_name
from pam_mfa.plain_text import quoted
from pam_mfa.results import Refusal, refusal_ops
from pam_mfa.settings import PamDoorSettings
from pam_mfa.wire import MESSAGE_MAX, WAIT_MAX_S, Begin, MessageRefused, Ops, Wait, decode_from_module, encode_ops

SWEEP_S = 0.5
SLOW_DECISION_S = 3.0
"""After this the module is told to wait: it gives up 5 s after BEGIN (PROTOCOL.md, deadlines)."""
COMPLAINT_INTERVAL_S = 10.0

_log = logging.getLogger("mfad.pam")

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(slots=True)
class PamCounters:
    """What the door has seen since it started."""

    accepted: int = 0
    """Connections, not logins."""
    ended: int = 0
    """Conversations that came to a RESULT."""
    junk: int = 0
    hang_ups: int = 0
    overloaded: int = 0
    rate_limited: int = 0
    deadlines: int = 0
    dropped_verdicts: int = 0
    """Verdicts that came when the module was gone."""
    crashes: int = 0
    """Exceptions that should not be: each has a traceback in the log."""


class PamDoor:
    """The PAM door: give it settings and a gate, ``start`` it, ``stop`` it. Everything runs in the loop that started it."""

    def __init__(
        self,
        settings: PamDoorSettings,
        gate: Gate,
        *,
        monotonic: Callable[[], float],
        new_event_id: Callable[[], str],
        look_up: Callable[[int], bytes | None] = look_up_name,
    ) -> None:
        self.counters = PamCounters()
        self._settings = settings
        self._gate = gate
        self._monotonic = monotonic
        self._new_event_id = new_event_id
        self._names = UserNames(monotonic, look_up)
        self._rates = UidRates(monotonic)
        self._listeners: Listeners | None = None
        self._connections: set[_Connection] = set()
        self._by_uid: Counter[int] = Counter()
        self._by_user: Counter[str] = Counter()
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._complained_at = float("-inf")
        self._unspoken = 0

    # life

    async def start(self, listeners: Listeners | None = None) -> None:
        """Listen, on ``listeners`` or on sockets made in the socket directory. Returns when modules can connect.

        Raises: ConfigurationError when the socket directory cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        self._listeners = listeners or open_listeners(self._settings.socket_dir)
        self._listen(self._listeners.privileged, Trust.ANYBODY)
        self._listen(self._listeners.user, Trust.ITSELF)

    def reload(self, settings: PamDoorSettings) -> None:
        """Use ``settings`` for conversations that begin from now on. The socket directory stays until the next start."""
        self._settings = settings

    async def stop(self, grace_s: float = 5.0) -> None:
        """Stop listening, let conversations finish for ``grace_s`` seconds, then refuse the rest (AUTHINFO_UNAVAIL).

        A decision under way is never cancelled: its spend is durable or it is not, and its verdict is dropped.
        """
        if self._listeners is not None:
            self._loop.remove_reader(self._listeners.privileged)
            self._loop.remove_reader(self._listeners.user)
            self._listeners.close()
            self._listeners = None
        await self._until_idle(grace_s)
        for connection in list(self._connections):
            connection.take(Withdrawn(Refusal.STOPPING, "mfad stops"))
        await self._until_idle(grace_s)
        self._names.close()

    async def _until_idle(self, grace_s: float) -> None:
        try:
            await asyncio.wait_for(self._idle.wait(), grace_s)
        except TimeoutError:
            _log.info("%d conversations still open after %.0f s", len(self._connections), grace_s)

    # accepting

    def _listen(self, listener: socket.socket, trust: Trust) -> None:
        self._loop.add_reader(listener, self._acceptable, listener, trust)

    def _acceptable(self, listener: socket.socket, trust: Trust) -> None:
        """Take one peer; when there are more the loop comes back, which costs less than asking in vain for a second one."""
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            # the peer stays in the queue and the loop would spin on it: look away for a moment
            self._complain(f"cannot accept: {error.strerror}; raise LimitNOFILE or lower max_conversations")
            self._loop.remove_reader(listener)
            self._loop.call_later(SWEEP_S, self._listen_again, listener, trust)
            return
        self.counters.accepted += 1
        self._admit(accepted, trust)

    def _listen_again(self, listener: socket.socket, trust: Trust) -> None:
        if self._listeners is not None:
            self._listen(listener, trust)

    def _admit(self, accepted: socket.socket, trust: Trust) -> None:
        accepted.setblocking(False)
        settings = self._settings
        uid = peer_uid(accepted)
        ordinary = uid not in (0, os.geteuid())
        if trust is Trust.ANYBODY and ordinary:
            self._turn_away(accepted, Refusal.NOT_ITSELF, f"uid {uid} on the privileged socket")
        elif len(self._connections) >= settings.max_conversations:
            self.counters.overloaded += 1
            self._turn_away(accepted, Refusal.OVERLOADED, f"{len(self._connections)} conversations at once")
        elif ordinary and self._ordinary() >= max(1, settings.max_conversations // 2):
            # One uid is no bound: a person has 65,536 subordinate ones (subuid(5)). What is left is for sshd, su and sudo.
            self.counters.overloaded += 1
            self._turn_away(accepted, Refusal.OVERLOADED, f"{self._ordinary()} conversations of ordinary users at once")
        elif ordinary and self._by_uid[uid] >= settings.max_conversations_per_uid:
            self.counters.overloaded += 1
            self._turn_away(accepted, Refusal.OVERLOADED, f"{self._by_uid[uid]} conversations of uid {uid} at once")
        elif ordinary and not self._rates.take(uid, burst=settings.uid_burst, interval_s=settings.uid_interval_s):
            self.counters.rate_limited += 1
            self._turn_away(accepted, Refusal.RATE, f"uid {uid} begins too many conversations")
        elif trust is Trust.ITSELF and uid != 0:
            connection = _Connection(self, accepted, uid, settings)
            self._register(connection)
            connection.task = self._loop.create_task(self._introduce(connection))
        else:
            connection = _Connection(self, accepted, uid, settings)
            self._register(connection)
            connection.begin(Peer(trust, uid), self._new_event_id)

    def _ordinary(self) -> int:
        """Conversations with processes that are neither root's nor of our own uid."""
        return len(self._connections) - sum(self._by_uid[uid] for uid in {0, os.geteuid()})

    async def _introduce(self, connection: _Connection) -> None:
        """Find out whose process it is, then let it speak."""
        name = await self._names.of(connection.uid)
        if connection.open:
            connection.begin(Peer(Trust.ITSELF, connection.uid, name), self._new_event_id)

    def _turn_away(self, accepted: socket.socket, refusal: Refusal, why: str) -> None:
        """Refuse without a conversation. BEGIN is read if it is there: closing on unread bytes would reset the peer."""
        self._complain(f"turned away: {why}")
        with accepted:
            with contextlib.suppress(OSError):
                accepted.recv(MESSAGE_MAX)
            with contextlib.suppress(OSError):
                accepted.send(encode_ops(refusal_ops(refusal, why)))

    def _register(self, connection: _Connection) -> None:
        self._connections.add(connection)
        self._by_uid[connection.uid] += 1
        self._idle.clear()
        if self._sweep_timer is None:
            self._sweep_timer = self._loop.call_later(SWEEP_S, self._sweep_on)

    def forget(self, connection: _Connection) -> None:
        """Give back what ``connection`` held: it is closed and no decision for it is under way."""
        self._connections.discard(connection)
        _give_back(self._by_uid, connection.uid)
        if connection.counted_user is not None:
            _give_back(self._by_user, connection.counted_user)
        if not self._connections:
            self._idle.set()

    def count_user(self, name: str, most: int) -> bool:
        """Count one more conversation about ``name``; False when there are ``most`` already."""
        if self._by_user[name] >= most:
            self.counters.overloaded += 1
            return False
        self._by_user[name] += 1
        return True

    # deciding

    def decide(self, connection: _Connection, attempt: Attempt) -> None:
        """Ask the gate; the verdict goes to ``connection.decided``."""
        connection.task = self._loop.create_task(self._decide(connection, attempt))

    async def _decide(self, connection: _Connection, attempt: Attempt) -> None:
        verdict: Verdict
        try:
            verdict = await self._gate.decide(attempt)
        except Exception:  # noqa: BLE001  the outermost frame of one login
            self.counters.crashes += 1
            _log.exception("the gate raised; event %s", attempt.event_id)
            verdict = Unavailable(attempt.event_id, Unready.INTERNAL)
        connection.decided(verdict)

    # time

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return self._monotonic()

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        """Run ``act`` after a pause."""
        self._loop.call_later(delay_s, act)

    def watch(self, connection: _Connection) -> None:
        """Read from ``connection`` whenever there is something."""
        self._loop.add_reader(connection.socket, connection.readable)

    def unwatch(self, connection: _Connection) -> None:
        """Stop that."""
        self._loop.remove_reader(connection.socket)

    def sweep(self) -> None:
        """Look after all deadlines once."""
        now = self._monotonic()
        for connection in list(self._connections):
            connection.look_at_clock(now)

    def _sweep_on(self) -> None:
        self._sweep_timer = None
        self.sweep()
        if self._connections:
            self._sweep_timer = self._loop.call_later(SWEEP_S, self._sweep_on)

    # complaints

    def complain_of_junk(self, uid: int, refused: MessageRefused) -> None:
        """Count a message that was refused, and log it if nothing was logged for a while."""
        self.counters.junk += 1
        self._complain(f"uid {uid} sent no message of ours: {refused}")

    def _complain(self, text: str) -> None:
        """Log a line about a peer, at most one in ten seconds: peers must not fill the disk."""
        now = self._monotonic()
        if now - self._complained_at < COMPLAINT_INTERVAL_S:
            self._unspoken += 1
            return
        unspoken, self._unspoken, self._complained_at = self._unspoken, 0, now
        _log.warning("%s%s", text, f" ({unspoken} more such lines left out)" if unspoken else "")


def _give_back(counts: Counter[_Key], key: _Key) -> None:
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]


class _Connection:
    """One connected module: its socket, its conversation and its deadlines."""

    __slots__ = (
        "_conversation",
        "_deadline",
        "_deciding_since",
        "_door",
        "_settings",
        "_told_to_wait",
        "counted_user",
        "open",
        "socket",
        "task",
        "uid",
    )

    def __init__(self, door: PamDoor, accepted: socket.socket, uid: int, settings: PamDoorSettings) -> None:
        self.socket = accepted
        self.uid = uid
        self.open = True
        self.counted_user: str | None = None
        self.task: asyncio.Task[None] | None = None
        """The work under way for it: the loop itself keeps only weak references to tasks."""
        self._door = door
        self._conversation: Conversation | None = None
        self._settings = settings
        self._deadline = door.now() + settings.begin_s
        self._deciding_since: float | None = None
        self._told_to_wait = False

    def begin(self, peer: Peer, new_event_id: Callable[[], str]) -> None:
        """Start to read what ``peer`` says."""
        self._conversation = Conversation(self._settings, peer, new_event_id)
        self._door.watch(self)
        self.readable()  # BEGIN is often there already, which saves a turn of the loop

    def readable(self) -> None:
        """Take one message, or the hang-up."""
        event: Event
        try:
            message = self.socket.recv(MESSAGE_MAX + 1)  # one byte more than allowed, to see that it was more
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            message = b""
        if not message:
            self._door.counters.hang_ups += 1
            self.take(HangUp())
            return
        try:
            event = decode_from_module(message)
        except MessageRefused as refused:
            self._door.complain_of_junk(self.uid, refused)
            event = refused
        self.take(event)

    def take(self, event: Event) -> None:
        """Let the conversation take ``event`` and do what it says. Never raises: a mistake of ours costs this login only."""
        if not self.open:
            return
        if self._conversation is None:  # withdrawn while its name was looked up
            self._close()
            return
        try:
            step = self._conversation.receive(event)
            if isinstance(event, Begin):
                step = self._begun(self._conversation, step)
            self._perform(self._conversation, step)
        except Exception:  # noqa: BLE001  the outermost frame of one login
            self._door.counters.crashes += 1
            _log.exception("conversation of uid %d failed", self.uid)
            self._send(refusal_ops(Refusal.INTERNAL, "a mistake in mfad; its log has the traceback"))
            self._close()

    def decided(self, verdict: Verdict) -> None:
        """Take the verdict of the decision under way."""
        self._deciding_since = None
        if self.open:
            self.take(verdict)
        else:
            self._door.counters.dropped_verdicts += 1
            self._door.forget(self)

    def look_at_clock(self, now: float) -> None:
        """End what takes too long; tell the module to wait for a slow decision."""
        settings = self._settings
        if not self.open:
            return
        since = self._deciding_since
        if now >= self._deadline:
            self._door.counters.deadlines += 1
            self.take(Withdrawn(Refusal.DEADLINE, "the login took too long"))
        elif since is not None and now - since >= settings.decision_s:
            self._door.counters.deadlines += 1
            self.take(Withdrawn(Refusal.DEADLINE, f"no decision within {settings.decision_s:.0f} s"))
        elif since is not None and now - since >= SLOW_DECISION_S and not self._told_to_wait:
            self._told_to_wait = True
            self._send((Wait(max(1, min(WAIT_MAX_S, int(settings.decision_s)))),))

    def _begun(self, conversation: Conversation, step: Step) -> Step:
        self._deadline = self._door.now() + conversation.limit_s
        if conversation.state is State.OVER:
            return step
        name = conversation.username
        if not self._door.count_user(name, self._settings.max_conversations_per_user):
            return conversation.receive(Withdrawn(Refusal.OVERLOADED, f"too many conversations about {quoted(name)}"))
        self.counted_user = name
        return step

    def _perform(self, conversation: Conversation, step: Step) -> None:
        if step.ops:
            self._send(step.ops)
        if conversation.state is State.OVER:
            self._door.counters.ended += bool(step.ops)
            self._close()
        elif step.attempt is not None and self.open:
            if step.pause_s > 0.0:
                self._door.later(step.pause_s, partial(self._ask, step.attempt))
            else:
                self._ask(step.attempt)

    def _ask(self, attempt: Attempt) -> None:
        if self.open:  # it may have been closed in the pause
            self._deciding_since = self._door.now()
            self._told_to_wait = False
            self._door.decide(self, attempt)

    def _send(self, ops: Ops) -> None:
        try:
            self.socket.send(encode_ops(ops))
        except OSError:
            # gone, or it reads nothing: a conversation is far smaller than the socket's buffer
            self.take(HangUp())

    def _close(self) -> None:
        if not self.open:
            return
        self.open = False
        self._door.unwatch(self)
        self.socket.close()
        if self._deciding_since is None:
            self._door.forget(self)
