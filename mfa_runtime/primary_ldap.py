"""The `ldap` first-factor backend: a directory says whether a password is right, by a simple bind as the user.

Room rule: the only file that imports ldap3. ldap3 blocks, so calls run in fair threads; a login that is given up on has its
socket shut, which frees the thread. What must hold whatever a user types (RFC 4513 section 5.1.3):

* an empty password, or one that is not UTF-8 or holds a NUL, is wrong before anybody is asked (RFC 4513 section 5.1.2);
* a name gets into a DN or a filter as a value and as nothing else (RFC 4514, RFC 4515);
* a password goes to one server at most: directories count wrong ones, and copy the count to each other.

Connections are kept: those of the service account for searches, and others that are bound again and again, each time as
somebody else, and used for nothing but that. Inside TLS a login then costs us 0.4 ms of processor time by DN and
1.5 ms by search; with fresh connections it was 3.4 and 8.9 ms.
"""

from __future__ import annotations

import logging
import re
import select
import socket
import ssl
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import ldap3
from ldap3.core import results
from ldap3.operation.search import parse_filter
from ldap3.utils.dn import parse_dn

from mfa_core.errors import ConfigurationError
from mfa_core.model import Attempt
from mfa_core.secret import Secret
from mfa_runtime.config.primary import LdapSection, Verify
from mfa_runtime.fair_threads import FairThreads, Shares
from mfa_runtime.primary import PrimaryUnavailable
from mfa_runtime.server_order import ServerOrder

log = logging.getLogger(__name__)

KEPT_S = 30.0
"""An idle connection older than this is not used again: what stands in between may have forgotten it without a word."""
REFUSED_SERVICE_S = 30.0
"""After the service account was refused nobody tries again for so long: the directory would lock it."""
_MAX_SAID_CHARS = 200
_ONE_NAME = re.compile(r"[!-~]{1,256}").fullmatch
"""Directories take blanks around a name away, and other letters for ASCII ones: two names would be one user."""
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")

_REFUSALS = {
    results.RESULT_INVALID_CREDENTIALS,
    results.RESULT_NO_SUCH_OBJECT,
    results.RESULT_INVALID_DN_SYNTAX,
    results.RESULT_INAPPROPRIATE_AUTHENTICATION,  # the entry has no password
    results.RESULT_CONSTRAINT_VIOLATION,  # 389 Directory Server: too many wrong ones
}
"""Results of a user's bind that mean "no"; every other one but success means that nobody knows."""
_BUSY = {results.RESULT_BUSY, results.RESULT_UNAVAILABLE}
"""Not looked at: another server may be asked."""
_AD_DATA = re.compile(r"\bdata ([0-9a-f]{3,4})\b").search
_AD_REASONS = {
    "525": "no such user",
    "52e": "wrong password",
    "530": "not at this time",
    "531": "not from here",
    "532": "the password has expired",
    "533": "the account is disabled",
    "701": "the account has expired",
    "773": "the password must be changed",
    "775": "the account is locked",
}
"""What Active Directory says behind invalidCredentials: for the log of the administrator, never for the user."""


class _Down(Exception):
    """This server cannot be asked; the password was not sent to it, or not looked at."""


class _Errand:
    """One login under way: what must be shut when nobody waits for it any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None
        self.given_up = False

    def works_on(self, connection: Any) -> None:
        """From now on this is the connection that the thread waits at. Raises: _Down, when it should not wait at all."""
        with self._lock:
            self._connection = connection
            given_up = self.given_up
        if given_up:
            _close(connection)
            raise _Down("nobody waits any more")

    def done(self) -> None:
        """The thread waits at no connection: what it had goes to others, and must not be shut."""
        with self._lock:
            self._connection = None

    def give_up(self) -> None:
        """Wake the thread: its socket fails."""
        with self._lock:
            self.given_up = True
            found = getattr(self._connection, "socket", None)
        if found is not None:
            try:
                # Of the plain socket: SSLSocket.shutdown would pull the session away from under the thread.
                socket.socket.shutdown(found, socket.SHUT_RDWR)
            except OSError:
                log.debug("the connection of a login that was given up on is closed already")


class _Tls(ldap3.Tls):  # type: ignore[misc]  # ldap3 ships no types
    """TLS as this process wants it: ldap3's own checks names by itself, after the handshake, and knows no lowest version."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(validate=context.verify_mode)
        self._context = context

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:  # noqa: ARG002  ldap3's shape
        connection.socket = self._context.wrap_socket(connection.socket, server_hostname=connection.server.host)


class _Kept:
    """Connections that wait for their next use, by server."""

    def __init__(self, most: int, monotonic: Callable[[], float]) -> None:
        self._most = most
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._idle: dict[str, list[tuple[float, Any]]] = {}
        self._closed = False

    def take(self, url: str) -> Any:
        """One that is still good as far as can be seen, or None."""
        while True:
            with self._lock:
                waiting = self._idle.get(url)
                if not waiting:
                    return None
                since, connection = waiting.pop()
            if self._monotonic() - since < KEPT_S and not _has_something_to_read(connection):
                return connection
            _close(connection)

    def give_back(self, url: str, connection: Any) -> None:
        """Keep it for the next one, if there is room."""
        with self._lock:
            waiting = self._idle.setdefault(url, [])
            if not self._closed and len(waiting) < self._most:
                waiting.append((self._monotonic(), connection))
                return
        _close(connection)

    def close(self) -> None:
        """Close them all, and those that come back later."""
        with self._lock:
            self._closed = True
            idle = [connection for waiting in self._idle.values() for _, connection in waiting]
            self._idle.clear()
        for connection in idle:
            _close(connection)


class LdapPrimary:
    """Asks the servers of ``section``. ``bind_password`` is that of its ``bind_dn``; ``monotonic`` returns seconds."""

    def __init__(self, section: LdapSection, *, bind_password: Secret | None, monotonic: Callable[[], float]) -> None:
        """Raises: ConfigurationError, when CA file, DN or filter cannot be used."""
        self._section = section
        self._bind_password = bind_password
        self._tls = _Tls(_context(section))
        _check_syntax(section)
        self._order = ServerOrder(section.servers, dead_time_s=section.dead_time, monotonic=monotonic)
        self._threads = FairThreads("primary-ldap", Shares.of(section.connections))
        self._searchers = _Kept(section.connections, monotonic)
        self._binders = _Kept(section.connections, monotonic)
        self._monotonic = monotonic
        self._service_refused_at: float | None = None
        self._timeout_s = float(section.timeout * (len(section.servers) + 1))

    async def check(self, name: str, password: Secret, attempt: Attempt) -> bool:
        """See :class:`mfa_runtime.primary.Primary`.

        Raises:
            PrimaryUnavailable: no server said yes or no in time, or too many calls wait.
        """
        if not _ONE_NAME(name) or not _can_be_asked(password):
            return False
        errand = _Errand()
        return await self._threads.run(
            partial(self._authenticate, name, password, errand),
            user=name,
            source=attempt.source or None,
            timeout_s=self._timeout_s,
            give_up=errand.give_up,
        )

    def probe(self, url: str) -> None:
        """Connect, make TLS and bind as the service account. Blocks. Raises: PrimaryUnavailable, with what went wrong."""
        errand = _Errand()
        try:
            connection = self._open(url, errand)
            try:
                self._bind_as_service(connection, url)
            finally:
                _close(connection)
        except _Down as err:
            raise PrimaryUnavailable(f"{url}: {err}", cure="check the server, its certificate and ca_file") from err

    def close(self) -> None:
        """Take no more calls; those under way are answered."""
        self._threads.close()
        self._searchers.close()
        self._binders.close()

    def _authenticate(self, name: str, password: Secret, errand: _Errand) -> bool:
        reasons: list[str] = []
        for url in self._order.to_ask():
            try:
                answer = self._ask(url, name, password, errand)
            except _Down as err:
                if errand.given_up:
                    break
                reasons.append(f"{url}: {err}")
                if self._order.failed(url):
                    log.warning("%s stands aside for %d s: %s", url, self._section.dead_time, err)
                continue
            if self._order.answered(url):
                log.info("%s answers again", url)
            return answer
        raise PrimaryUnavailable("; ".join(reasons) or "the directory took too long", cure="see `mfactl doctor`")

    def _ask(self, url: str, name: str, password: Secret, errand: _Errand) -> bool:
        if self._section.user_dn is not None:
            dn: str | None = self._section.user_dn.replace("{user}", escaped(name))
        else:
            dn = self._find(url, name, errand)
        if not dn:
            # An empty DN would be an unauthenticated bind.
            return False
        connection = self._binders.take(url)
        if connection is None:
            connection = self._open(url, errand)
        errand.works_on(connection)
        try:
            code, said = _bind(connection, dn, password)
        except _Down as err:
            # It may have been counted there: nobody else is asked with it.
            _close(connection)
            if self._order.failed(url) and not errand.given_up:
                log.warning("%s stands aside for %d s: %s", url, self._section.dead_time, err)
            raise PrimaryUnavailable(f"{url}: {err}") from err
        errand.done()
        self._binders.give_back(url, connection)
        if code == results.RESULT_SUCCESS:
            return True
        if code in _BUSY:
            raise _Down(f"answered {_named(code)}")
        if code in _REFUSALS:
            data = _AD_DATA(said)
            reason = _AD_REASONS.get(data[1], f"data {data[1]}") if data else _named(code)
            log.info("%s refuses the password of %s: %s", url, name, reason)
            return False
        raise PrimaryUnavailable(
            f"{url} answered {_named(code)} to a bind as a user", cure="see the server's log; it may want TLS, or other rights"
        )

    def _find(self, url: str, name: str, errand: _Errand) -> str | None:
        """The DN of the one entry that the filter finds; None when there is none, or another one."""
        kept = self._searchers.take(url)
        if kept is not None:
            try:
                return self._search(url, kept, name, errand)
            except _Down:
                log.debug("a kept connection to %s was not good any more", url)
        connection = self._open(url, errand)
        self._bind_as_service(connection, url)
        return self._search(url, connection, name, errand)

    def _search(self, url: str, connection: Any, name: str, errand: _Errand) -> str | None:
        errand.works_on(connection)
        section = self._section
        try:
            connection.search(
                section.base_dn,
                section.filter.replace("{user}", escaped(name)),
                search_scope=ldap3.SUBTREE,
                dereference_aliases=ldap3.DEREF_NEVER,
                attributes=[ldap3.NO_ATTRIBUTES],
                size_limit=2,
                time_limit=section.timeout,
            )
            code = _result(connection, "searchResDone")
            found = [entry["dn"] for entry in connection.response or () if entry.get("type") == "searchResEntry"]
        except Exception as err:  # what a peer can make ldap3 raise is bounded by no documentation
            _close(connection)
            raise _Down(_said(err)) from err
        errand.done()
        if code not in (results.RESULT_SUCCESS, results.RESULT_SIZE_LIMIT_EXCEEDED):
            _close(connection)
            raise _Down(f"answered {_named(code)} to a search in {section.base_dn}")
        self._searchers.give_back(url, connection)
        if len(found) > 1:
            log.warning("%s: %s has more than one entry that fits %s: refused", url, name, section.filter)
        return str(found[0]) if len(found) == 1 else None

    def _bind_as_service(self, connection: Any, url: str) -> None:
        dn = self._section.bind_dn
        if dn is None or self._bind_password is None:
            return
        cure = "check bind_dn and bind_password_file"
        refused_at = self._service_refused_at
        if refused_at is not None and self._monotonic() < refused_at + REFUSED_SERVICE_S:
            _close(connection)
            raise PrimaryUnavailable(f"the bind as {dn} was refused a moment ago", cure=cure)
        try:
            code, _ = _bind(connection, dn, self._bind_password)
        except _Down:
            _close(connection)
            raise
        if code == results.RESULT_SUCCESS:
            self._service_refused_at = None
            return
        _close(connection)
        if code in _BUSY:
            raise _Down(f"answered {_named(code)}")
        self._service_refused_at = self._monotonic()
        raise PrimaryUnavailable(f"{url} answered {_named(code)} to the bind as {dn}", cure=cure)

    def _open(self, url: str, errand: _Errand) -> Any:
        section = self._section
        connection: Any = None
        try:
            # A server of its own for each connection: ldap3 keeps the state of a connection in it.
            server = ldap3.Server(url, get_info=ldap3.NONE, tls=self._tls, connect_timeout=section.timeout)
            connection = ldap3.Connection(
                server,
                client_strategy=ldap3.SYNC,
                auto_bind=ldap3.AUTO_BIND_NONE,
                auto_referrals=False,
                auto_range=False,
                check_names=False,
                raise_exceptions=False,
                receive_timeout=section.timeout,
            )
            errand.works_on(connection)
            connection.open(read_server_info=False)
            if section.start_tls and not connection.start_tls(read_server_info=False):
                raise _Down("does not start TLS")
        except Exception as err:
            _close(connection)
            if isinstance(err, _Down):
                raise
            raise _Down(_said(err)) from err
        return connection


def escaped(name: str) -> str:
    """A name as a value in a DN (RFC 4514 section 2.4) or in a filter (RFC 4515 section 3): both take ``\\2a`` for an octet."""
    return "".join(chr(octet) if octet in _PLAIN else f"\\{octet:02x}" for octet in name.encode("utf-8", "surrogateescape"))


def _can_be_asked(password: Secret) -> bool:
    raw = password.reveal()
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    # A server written in C may stop at the NUL.
    return bool(raw) and b"\0" not in raw


def _bind(connection: Any, dn: str, password: Secret) -> tuple[int, str]:
    """Bind; the result and what the server said. Raises: _Down, when it did not answer."""
    connection.authentication = ldap3.SIMPLE
    connection.user = dn
    # Bytes go as they are; of text ldap3 would make another one (SASLprep).
    connection.password = password.reveal()
    try:
        connection.bind(read_server_info=False)
        return _result(connection, "bindResponse"), str(connection.result.get("message", ""))
    except Exception as err:  # see _search
        raise _Down(_said(err)) from err
    finally:
        connection.password = None
        connection.request = None


def _result(connection: Any, expected: str) -> int:
    """The result code of the operation. Raises: _Down, for an answer to another one: ldap3 looks at the messageID alone."""
    if connection.result["type"] != expected:
        raise _Down(f"answered with {connection.result['type']}, expected {expected}")
    return int(connection.result["result"])


def _has_something_to_read(connection: Any) -> bool:
    """Whether the server has closed an idle connection, or said that it will."""
    if connection.closed or connection.socket is None:
        return True
    poll = select.poll()
    poll.register(connection.socket, select.POLLIN)
    return bool(poll.poll(0))


def _close(connection: Any) -> None:
    if connection is None:
        return
    found = connection.socket
    try:
        connection.unbind()
    except Exception as err:  # noqa: BLE001  it is gone either way
        log.debug("closing a connection: %s", _said(err))
    if found is not None:
        found.close()


def _context(section: LdapSection) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if section.ca_file is None else str(section.ca_file))
    except OSError as err:
        raise ConfigurationError(f"ca_file {section.ca_file}: {err}", cure="name a file of PEM certificates") from err
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if section.verify is Verify.NONE:
        log.warning("primary: `verify: none`: whoever stands between here and %s reads every password", section.servers[0])
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for url in section.servers:
        if url.startswith("ldap://") and not section.start_tls:
            log.warning("primary: passwords go to %s in clear: use ldaps://, or start_tls", url)
    return context


def _check_syntax(section: LdapSection) -> None:
    """Raises: ConfigurationError, for a DN or a filter that no directory understands."""
    # bind_dn is left to the server: Active Directory takes name@domain as well.
    for key, dn in (("user_dn", section.user_dn), ("base_dn", section.base_dn)):
        try:
            if dn:
                parse_dn(dn.replace("{user}", "name"))
        except Exception as err:
            raise ConfigurationError(f"primary.{key}: {_said(err)}", cure="write it as ou=people,dc=example,dc=org") from err
    try:
        parse_filter(section.filter.replace("{user}", "name"), None, None, None, None, None)
    except Exception as err:
        raise ConfigurationError(f"primary.filter: {_said(err)}", cure="see RFC 4515: (uid={user})") from err


def _named(code: int) -> str:
    return f"{results.RESULT_CODES.get(code, 'a result')} ({code})"


def _said(err: BaseException) -> str:
    """What went wrong, on one line of bounded length that any terminal shows."""
    text = "".join(c if c.isprintable() else " " for c in str(err)[:_MAX_SAID_CHARS])
    return text or type(err).__name__
