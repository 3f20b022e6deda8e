"""Who logs in by EAP-TTLS with PAP inside (RFC 5281), often and cheaply enough to keep a server busy?

eapol_test is a process for each login and takes longer for it than the server. This client keeps several conversations under
way in one process, and OpenSSL does what is costly. It knows the one method, no fragments of its own (what it sends fits into
one packet), and no retransmission: on loopback with a handful of packets under way a missing answer is a fault to be told. It
does not ask who the server is: that would cost the client time, and the server none.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import selectors
import socket
import ssl
import struct
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from bench.radius_stage import ACCESS_REQUEST, Login, signed

ACCESS_ACCEPT, ACCESS_CHALLENGE = 2, 11
_USER_NAME, _STATE, _CALLING_STATION_ID, _EAP_MESSAGE = 1, 24, 31, 79
_EAP_RESPONSE, _EAP_SUCCESS = 2, 3
_IDENTITY, _TTLS = 1, 21
_MORE, _LENGTH_INCLUDED = 0x40, 0x80
_MANDATORY = 0x40
_PATIENCE_S = 10.0

Conversation = Generator[bytes, bytes, None]
"""Yields EAP packets to send, is sent those that came, and ends with EAP-Success."""


class Refused(Exception):
    """Somebody was not let in, or the server broke a rule; the text says which."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Logins a second, milliseconds from the first packet of a login to its last, and this process's share of its core."""

    rate: float
    latencies_ms: tuple[float, ...]
    cpu_share: float


def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # as the shipped configuration has it
    return context


def converse(login: Login, context: ssl.SSLContext) -> Conversation:
    """One login. Raises: Refused, ssl.SSLError."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    request = yield _response(0, bytes((_IDENTITY,)) + b"anonymous")
    shaken = sent = False
    while request[0] != _EAP_SUCCESS:
        if len(request) < 6 or request[4] != _TTLS:
            raise Refused(f"an EAP packet of code {request[0]} that is no TTLS")
        flags = request[5]
        incoming.write(request[10:] if flags & _LENGTH_INCLUDED else request[6:])
        if not flags & _MORE and not sent:
            shaken = shaken or _shake(tls)
            if shaken:
                tls.write(_avp(_USER_NAME, login.name.encode()) + _avp(2, login.password.encode()))
                sent = True
        request = yield _response(request[1], bytes((_TTLS, 0)) + outgoing.read())


def _shake(tls: ssl.SSLObject) -> bool:
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _response(identifier: int, data: bytes) -> bytes:
    return struct.pack(">BBH", _EAP_RESPONSE, identifier, 4 + len(data)) + data


def _avp(code: int, value: bytes) -> bytes:
    # RFC 5281 section 10.1; the password is not padded, which section 11.2.5 leaves to the client
    size = 8 + len(value)
    return struct.pack(">II", code, _MANDATORY << 24 | size) + value + bytes(-size % 4)


class _Lane:
    """One socket with one conversation at a time."""

    def __init__(self, port: int, secret: bytes, number: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(("127.0.0.1", port))
        self.started = self.asked = 0.0
        self._secret = secret
        self._identity = _attribute(_USER_NAME, b"anonymous") + _attribute(_CALLING_STATION_ID, f"10.0.0.{number}".encode())
        self._identifier, self._authenticator = 0, b""

    def begin(self, conversation: Conversation) -> None:
        """Send the first packet."""
        self._conversation = conversation
        self.started = time.monotonic()
        self._send(next(conversation), b"")

    def proceed(self) -> bool:
        """Take an answer; whether it was the last, and somebody is let in. Raises: Refused."""
        reply = self.socket.recv(4096)
        expected = hashlib.md5(reply[:4] + self._authenticator + reply[20:] + self._secret).digest()
        if reply[1] != self._identifier or not hmac.compare_digest(expected, reply[4:20]):
            raise Refused("an answer to something else")
        eap, state = b"", b""
        at = 20
        while at < len(reply):
            kind, value = reply[at], reply[at + 2 : at + reply[at + 1]]
            eap += value if kind == _EAP_MESSAGE else b""
            state += reply[at : at + reply[at + 1]] if kind == _STATE else b""
            at += reply[at + 1]
        if reply[0] not in (ACCESS_ACCEPT, ACCESS_CHALLENGE) or not eap:
            raise Refused(f"code {reply[0]} with {len(eap)} octets of EAP")
        try:
            answer = self._conversation.send(eap)
        except StopIteration:
            if reply[0] != ACCESS_ACCEPT:
                raise Refused("EAP-Success without Access-Accept") from None
            return True
        self._send(answer, state)
        return False

    def _send(self, eap: bytes, state: bytes) -> None:
        self._identifier = (self._identifier + 1) % 256
        self._authenticator = secrets.token_bytes(16)
        self.asked = time.monotonic()
        parts = b"".join(_attribute(_EAP_MESSAGE, eap[i : i + 253]) for i in range(0, len(eap), 253))
        packet = signed(ACCESS_REQUEST, self._identifier, self._authenticator, self._identity + parts + state, self._secret)
        self.socket.send(packet)


def _attribute(kind: int, value: bytes) -> bytes:
    return bytes((kind, 2 + len(value))) + value


def log_in(port: int, secret: bytes, logins: Sequence[Login], *, at_once: int) -> Outcome:
    """Log everybody in, ``at_once`` conversations under way. Raises: Refused as soon as somebody is not let in."""
    waiting, context = list(reversed(logins)), _trusting()
    latencies: list[float] = []
    cpu, started = time.process_time(), time.monotonic()
    with selectors.DefaultSelector() as selector:
        lanes = [_Lane(port, secret, number) for number in range(1, min(at_once, len(logins)) + 1)]
        try:
            for lane in lanes:
                selector.register(lane.socket, selectors.EVENT_READ, lane)
                lane.begin(converse(waiting.pop(), context))
            while len(latencies) < len(logins):
                for key, _ in selector.select(timeout=1):
                    lane = key.data
                    if lane.proceed():
                        latencies.append((time.monotonic() - lane.started) * 1e3)
                        if waiting:
                            lane.begin(converse(waiting.pop(), context))
                        else:
                            selector.unregister(lane.socket)
                oldest = min((key.data.asked for key in selector.get_map().values()), default=time.monotonic())
                if time.monotonic() - oldest > _PATIENCE_S:
                    raise Refused(f"no answer within {_PATIENCE_S:.0f} s")
        finally:
            for lane in lanes:
                lane.socket.close()
    took = time.monotonic() - started
    return Outcome(len(logins) / took, tuple(latencies), (time.process_time() - cpu) / took)
