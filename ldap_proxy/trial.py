"""What does a directory, or whoever stands before it, answer to an application that logs somebody in?

Room rule: an application in small. Sockets, TLS and waiting are here; octets are made and read by :mod:`ldap_proxy.message`,
and what the outcome means to an administrator is :mod:`mfactl.ldap_meaning`'s. Nothing here knows that the server may be mfad.
"""

from __future__ import annotations

import enum
import hashlib
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ldap_proxy import ber, message
from ldap_proxy.message import Result, ResultCode
from ldap_proxy.settings import Scheme, Server
from mfa_core.errors import InvalidInput
from mfa_core.secret import Secret

NO_ATTRIBUTES = ("1.1",)
"""RFC 4511 section 4.5.1.8: the names of entries alone."""
_SPECIAL = frozenset('"+,;<>\\=')
MAX_PDU = 1024 * 1024
MAX_ENTRIES = 2
"""Entries of the search that are asked for: an application wants one, and the second says that it is not enough."""
MAX_ADDRESSES = 4
"""Addresses of one name that are tried."""
_READ = 65_536


@dataclass(frozen=True, slots=True)
class Tls:
    """How the server's certificate is judged, and what is shown to it.

    ``ca_file`` None stands for the system's. ``exactly``, a PEM file, says which certificate it must be, in place of a CA and
    a name; ``pins``, SHA-256 in hexadecimal, which ones it may be, beside them. ``name`` is looked for in it, "" for the host
    that is asked. ``certificate`` and ``key`` are the application's own.
    """

    start: bool = False
    """StartTLS, for servers of scheme ldap."""
    ca_file: Path | None = None
    exactly: Path | None = None
    pins: frozenset[str] = frozenset()
    verify: bool = True
    name: str = ""
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """Who searches. A ``dn`` of "" is nobody: an anonymous search, without a bind."""

    dn: str = ""
    password: Secret | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """Where and by which attribute the person's entry is looked for."""

    base: str
    attribute: str
    value: str


@dataclass(frozen=True, slots=True)
class Login:
    """What an application does for one person. ``name`` is what it binds as; with ``search`` it is the DN that was found."""

    name: str = ""
    account: Account = Account()
    search: Search | None = None
    again: bool = False
    """Bind once more with the same text on a new connection, as applications do that keep it."""


class Act(enum.Enum):
    """What was tried."""

    CONNECT = "connect"
    TLS = "tls"
    SERVICE_BIND = "service bind"
    SEARCH = "search"
    BIND = "bind"
    WHO_AM_I = "who am i"
    BIND_AGAIN = "bind again"


class Failure(enum.Enum):
    """Why there is no result."""

    NO_ADDRESS = "no_address"
    NOBODY_LISTENS = "nobody_listens"
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed_out"
    CLOSED = "closed"
    """The other side ended the connection without a word."""
    DISCONNECTED = "disconnected"
    """It said why: a Notice of Disconnection (RFC 4511 section 4.4.1)."""
    NOT_LDAP = "not_ldap"
    UNTRUSTED = "untrusted"
    """Its certificate is not to be believed."""
    HANDSHAKE = "handshake"
    """TLS could not begin for another reason."""
    NOT_FOUND = "not_found"
    """The search gave no entry."""
    AMBIGUOUS = "ambiguous"
    """It gave several."""


@dataclass(frozen=True, slots=True)
class Failed:
    """No result. ``result`` is that of a Notice of Disconnection."""

    failure: Failure
    detail: str = ""
    result: Result | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """It went well, or the server says what it thinks: then ``result`` has another code than 0. ``seen`` is for people."""

    milliseconds: float
    seen: str = ""
    result: Result | None = None

    @property
    def is_good(self) -> bool:
        """Whether the next step can be taken."""
        return self.result is None or self.result.code == ResultCode.SUCCESS


Answer = Done | Failed


@dataclass(frozen=True, slots=True)
class Step:
    """One thing an application does, in words, and what came of it."""

    act: Act
    words: str
    answer: Answer

    @property
    def is_good(self) -> bool:
        """Whether the next step can be taken."""
        return isinstance(self.answer, Done) and self.answer.is_good


class _Ended(Exception):
    """Nothing more comes over this connection."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.failure.value)
        self.failed = failed


class Connection:
    """One connection of an application to one server. Use it as a context manager; nothing is opened by making it.

    ``timeout_s`` bounds each step.
    """

    def __init__(self, server: Server, *, timeout_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        self._message_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()

    def open(self) -> Answer:
        """Connect; without TLS yet."""
        began = self._monotonic()
        try:
            self._socket = self._connected()
        except _Ended as err:
            return err.failed
        return Done(self._since(began), "" if self._server.scheme is Scheme.LDAPI else f"from {self._source()}")

    def secure(self, tls: Tls) -> Answer:
        """Begin TLS: after StartTLS where that is asked for.

        Raises:
            InvalidInput: a file of ``tls`` cannot be used.
        """
        context = _context(tls)
        expected = None if tls.exactly is None else _certificate_in(tls.exactly)
        began = self._monotonic()
        if tls.start:
            request = message.build_extended_request(self._next_id(), message.START_TLS)
            asked = self._asked(request, message.EXTENDED_RESPONSE, began)
            if isinstance(asked, Failed) or not asked.is_good:
                return asked
            if self._buffer:
                return Failed(Failure.NOT_LDAP, "octets in clear behind the answer to StartTLS: somebody put them there")
        plain = self._open_socket()
        try:
            plain.settimeout(self._left(began))
            secured = context.wrap_socket(plain, server_hostname=tls.name or self._server.host)
        except ssl.SSLCertVerificationError as err:
            return Failed(Failure.UNTRUSTED, err.verify_message)
        except TimeoutError:
            return Failed(Failure.TIMED_OUT)
        except (ssl.SSLError, OSError) as err:
            return Failed(Failure.HANDSHAKE, err.reason if isinstance(err, ssl.SSLError) and err.reason else str(err))
        self._socket = secured
        shown = secured.getpeercert(binary_form=True) or b""
        if expected is not None and shown != expected:
            return Failed(Failure.UNTRUSTED, f"the certificate is another one than the first of {tls.exactly}")
        if tls.pins and hashlib.sha256(shown).hexdigest() not in tls.pins:
            return Failed(Failure.UNTRUSTED, "the certificate is none of those that are pinned")
        judged = "not looked at" if not tls.verify else "the configured one" if expected is not None else "good"
        return Done(self._since(began), f"{secured.version()}, certificate {judged}")

    def bind(self, name: str, password: Secret) -> Answer:
        """A simple bind."""
        began = self._monotonic()
        pdu = message.build_bind(self._next_id(), _octets(name), password.reveal())
        return self._asked(pdu, message.BIND_RESPONSE, began)

    def who_am_i(self) -> Answer:
        """RFC 4532. ``seen`` is the authorization identity, "" for anonymous."""
        return self._asked(
            message.build_extended_request(self._next_id(), message.WHO_AM_I), message.EXTENDED_RESPONSE, self._monotonic()
        )

    def find(self, search: Search) -> tuple[Answer, str]:
        """The DN of the one entry that fits; "" where there is none, or several."""
        wanted = message.equal(search.attribute, _octets(search.value))
        answer, found = self._searched(search.base, message.Scope.SUBTREE, wanted)
        if len(found) > 1:
            # whether or not the server says that there are more still (sizeLimitExceeded)
            return Failed(Failure.AMBIGUOUS, " and ".join(found)), ""
        if isinstance(answer, Failed) or not answer.is_good:
            return answer, ""
        if not found:
            return Failed(Failure.NOT_FOUND), ""
        return Done(answer.milliseconds, found[0], answer.result), found[0]

    def look(self, dn: str) -> Answer:
        """Is there such an entry, for whoever is bound? NOT_FOUND also where it is hidden from him."""
        answer, found = self._searched(dn, message.Scope.BASE, message.present("objectClass"))
        return Failed(Failure.NOT_FOUND) if isinstance(answer, Done) and answer.is_good and not found else answer

    def _searched(self, base: str, scope: message.Scope, wanted: message.Filter) -> tuple[Answer, list[str]]:
        began = self._monotonic()
        request = message.build_search(
            self._next_id(), _octets(base), scope, wanted, NO_ATTRIBUTES, size_limit=MAX_ENTRIES
        )
        found: list[str] = []

        def entry(pdu: bytes) -> None:
            found.append(message.parse_entry(pdu)[0].decode("utf-8", "backslashreplace"))

        return self._asked(request, message.SEARCH_DONE, began, entry=entry), found

    # Octets

    def _asked(self, pdu: bytes, wanted: int, began: float, *, entry: Callable[[bytes], None] | None = None) -> Answer:
        """Send a request, read until its result."""
        try:
            self._send(pdu, began)
            result = self._result(wanted, began, entry)
        except _Ended as err:
            return err.failed
        except (ber.Malformed, UnicodeDecodeError) as err:
            return Failed(Failure.NOT_LDAP, str(err))
        seen = "" if result.value is None else result.value.decode("utf-8", "backslashreplace")
        return Done(self._since(began), seen, result)

    def _result(self, wanted: int, began: float, entry: Callable[[bytes], None] | None) -> Result:
        entries = 0
        while True:
            number, tag, pdu = self._receive(began)
            if number == 0:
                notice = message.parse_result(pdu)
                raise _Ended(Failed(Failure.DISCONNECTED, notice.diagnostic.decode("utf-8", "backslashreplace"), notice))
            if number != self._message_id:
                raise _Ended(Failed(Failure.NOT_LDAP, f"an answer to message {number}, which was not sent"))
            if tag == wanted:
                return message.parse_result(pdu)
            if entry is not None and tag == message.SEARCH_ENTRY and entries < MAX_ENTRIES:
                entries += 1
                entry(pdu)
            elif entry is None or tag not in (message.SEARCH_REFERENCE, message.INTERMEDIATE_RESPONSE):
                raise _Ended(Failed(Failure.NOT_LDAP, f"an answer of another kind (0x{tag:02x}) than the request's"))

    def _receive(self, began: float) -> tuple[int, int, bytes]:
        while True:
            head = ber.head(self._buffer, 0, MAX_PDU)
            if head is not None and head[0] <= len(self._buffer):
                pdu = bytes(self._buffer[: head[0]])
                del self._buffer[: head[0]]
                return head[1], head[2], pdu
            source = self._open_socket()
            try:
                source.settimeout(self._left(began))
                octets = source.recv(_READ)
            except TimeoutError:
                raise _Ended(Failed(Failure.TIMED_OUT)) from None
            except OSError as err:
                raise _Ended(Failed(Failure.CLOSED, err.strerror or type(err).__name__)) from err
            if not octets:
                raise _Ended(Failed(Failure.CLOSED))
            self._buffer += octets

    def _send(self, pdu: bytes, began: float) -> None:
        target = self._open_socket()
        try:
            target.settimeout(self._left(began))
            target.sendall(pdu)
        except TimeoutError:
            raise _Ended(Failed(Failure.TIMED_OUT)) from None
        except OSError as err:
            raise _Ended(Failed(Failure.CLOSED, err.strerror or type(err).__name__)) from err

    def _connected(self) -> socket.socket:
        if self._server.scheme is Scheme.LDAPI:
            return self._reached(socket.AF_UNIX, self._server.host)
        try:
            found = socket.getaddrinfo(self._server.host, self._server.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as err:
            raise _Ended(Failed(Failure.NO_ADDRESS)) from err
        last = _Ended(Failed(Failure.NO_ADDRESS))
        for family, _, _, _, address in found[:MAX_ADDRESSES]:
            try:
                return self._reached(family, address)
            except _Ended as err:
                last = err
        raise last

    def _reached(self, family: int, address: Any) -> socket.socket:
        opened = socket.socket(family, socket.SOCK_STREAM)
        opened.settimeout(self._timeout_s)
        if family != socket.AF_UNIX:
            # Questions are small, and each waits for the answer to the one before.
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            opened.connect(address)
        except OSError as err:
            opened.close()
            raise _Ended(_not_reached(err)) from err
        return opened

    def _open_socket(self) -> socket.socket:
        if self._socket is None:
            raise _Ended(Failed(Failure.CLOSED, "it was not opened"))
        return self._socket

    def _source(self) -> str:
        name = self._open_socket().getsockname()
        return str(name[0])

    def _next_id(self) -> int:
        self._message_id += 1
        return self._message_id

    def _left(self, began: float) -> float:
        """Seconds of this step that are left; never 0, which would mean not to wait at all."""
        return max(self._timeout_s - (self._monotonic() - began), 0.001)

    def _since(self, began: float) -> float:
        return (self._monotonic() - began) * 1000


def _octets(text: str) -> bytes:
    """As it was typed: undecodable bytes came in as surrogates."""
    return text.encode("utf-8", "surrogateescape")


def _not_reached(err: OSError) -> Failed:
    if isinstance(err, TimeoutError):
        return Failed(Failure.TIMED_OUT)
    if isinstance(err, ConnectionRefusedError | FileNotFoundError):
        return Failed(Failure.NOBODY_LISTENS)
    return Failed(Failure.UNREACHABLE, err.strerror or type(err).__name__)


def _context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if tls.ca_file is None else str(tls.ca_file))
        if tls.exactly is not None or not tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if tls.certificate is not None:
            context.load_cert_chain(str(tls.certificate), None if tls.key is None else str(tls.key))
    except (OSError, ssl.SSLError) as err:
        # of three files: the error says which, where the system does
        raise InvalidInput(f"a file for TLS cannot be used: {err}", cure="CA, certificate and key are files in PEM") from err
    return context


def _certificate_in(path: Path) -> bytes:
    try:
        text = path.read_text("ascii", "replace")
        first = text[text.index(ssl.PEM_HEADER) : text.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)]
        return ssl.PEM_cert_to_DER_cert(first)
    except (OSError, ValueError) as err:
        raise InvalidInput(f"no certificate can be read from {path}", cure="it is a file in PEM") from err


@dataclass(frozen=True, slots=True)
class Trial:
    """One login at ``server`` as an application makes it. ``told`` hears each step; ``tls`` None is a connection in clear."""

    server: Server
    told: Callable[[Step], None]
    tls: Tls | None = None
    timeout_s: float = 30.0
    monotonic: Callable[[], float] = time.monotonic

    def log_in(self, login: Login, typed: Callable[[str], Secret]) -> Step:
        """Connect, find the person, bind, ask who we are. ``typed`` is asked for the text when it is needed, by the name.

        Returns the step that decides: the last one, or the bind where only WhoAmI failed after it.

        Raises:
            InvalidInput: a file of ``tls`` cannot be used, or what ``typed`` raises.
        """
        with self._connection() as connection:
            step = self._opened(connection)
            if not step.is_good:
                return step
            name = login.name
            if login.search is not None:
                if login.account.dn:
                    password = login.account.password or Secret(b"")
                    step = self._tell(
                        Act.SERVICE_BIND, f"as {login.account.dn}", connection.bind(login.account.dn, password)
                    )
                    if not step.is_good:
                        return step
                answer, name = connection.find(login.search)
                words = f"({login.search.attribute}={login.search.value}) under {login.search.base or 'the root'}"
                step = self._tell(Act.SEARCH, words, answer)
                if not step.is_good:
                    return step
            text = typed(name)
            step = self._tell(Act.BIND, f"as {name}", connection.bind(name, text))
            if not step.is_good:
                return step
            self._tell(Act.WHO_AM_I, "the identity of this connection", connection.who_am_i())
        return self._bound_again(name, text) if login.again else step

    def _bound_again(self, name: str, text: Secret) -> Step:
        with self._connection() as connection:
            step = self._opened(connection)
            if not step.is_good:
                return step
            return self._tell(Act.BIND_AGAIN, f"as {name}, with the same text", connection.bind(name, text))

    def _connection(self) -> Connection:
        return Connection(self.server, timeout_s=self.timeout_s, monotonic=self.monotonic)

    def _opened(self, connection: Connection) -> Step:
        step = self._tell(Act.CONNECT, f"to {self.server}", connection.open())
        if step.is_good and self.tls is not None:
            words = "StartTLS" if self.tls.start else "from the first octet"
            step = self._tell(Act.TLS, words, connection.secure(self.tls))
        return step

    def _tell(self, act: Act, words: str, answer: Answer) -> Step:
        step = Step(act, words, answer)
        self.told(step)
        return step


def dn_of(attribute: str, value: str, base: str) -> str:
    """The DN of a person under ``base``, as applications make it that do not search. RFC 4514 section 2.4."""
    escaped = "".join(f"\\{char}" if char in _SPECIAL else "\\00" if char == "\0" else char for char in value)
    if escaped[:1] in (" ", "#"):
        escaped = "\\" + escaped
    if value.endswith(" ") and len(value) > 1:
        escaped = escaped[:-1] + "\\ "
    return f"{attribute}={escaped},{base}"
