"""Was this very bind accepted a moment ago, so that its factor need not be asked for again?

Room rule: what is remembered, for whom, how long and how often. Kept is an HMAC under a random key of this process, never a
text; a hit says what the password is and which credential had stood behind it, and nothing more: the directory is asked
about that password each time, and the core whether the credential is still good. Any refusal of a user forgets all that is
remembered of him.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ldap_proxy.settings import Application, RememberMode, RememberScope, RememberSettings
from mfa_core.secret import Secret

MAX_ENTRIES: Final = 10_000
MAX_PER_USER: Final = 64
"""Of one user: he binds from many places, and others want room too."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """A hit. ``credential`` is what the accepted login was accepted with, such as ``totp:12``."""

    password: Secret
    credential: str


@dataclass(slots=True, eq=False)
class _Entry:
    """One accepted login; two texts may lead to it, and use it up together."""

    user: str
    password_length: int
    credential: str
    since: float
    uses: int = 0


class Remember:
    """Accepted binds of one process. ``key`` is 32 random octets; ``monotonic`` returns seconds.

    ``user`` is a canonical name everywhere.
    """

    def __init__(self, *, key: Secret, monotonic: Callable[[], float], max_entries: int = MAX_ENTRIES) -> None:
        self._key = key
        self._monotonic = monotonic
        self._max_entries = max_entries
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._by_user: dict[str, dict[bytes, None]] = {}
        self.hits = 0
        """How often something was recalled, since the start."""

    def __len__(self) -> int:
        return len(self._entries)

    def recall(self, application: Application, *, listener: str, source: str, user: str, typed: Secret) -> Remembered | None:
        """What is known of this bind, which counts as a use of it; None where it is an ordinary one."""
        settings = application.remember
        if settings.mode is RememberMode.OFF or user not in self._by_user:
            return None
        tag = self._tag(application, listener, source, user, typed)
        entry = self._entries.get(tag)
        if entry is None:
            return None
        if self._monotonic() >= entry.since + settings.ttl_s or (settings.max_uses and entry.uses >= settings.max_uses):
            self._drop(tag)
            return None
        entry.uses += 1
        self.hits += 1
        return Remembered(Secret(typed.reveal()[: entry.password_length]), entry.credential)

    def store(
        self,
        application: Application,
        *,
        listener: str,
        source: str,
        user: str,
        typed: Secret,
        password: Secret,
        credential: str,
    ) -> None:
        """Remember a bind that was accepted for its factor: ``password`` is the part of ``typed`` that the directory took.

        Not for one that was let in because it was remembered: the time runs from the factor.
        """
        settings = application.remember
        if settings.mode is RememberMode.OFF or not user or not password or not credential:
            return
        if not typed.reveal().startswith(password.reveal()):
            return  # nothing says where the password stands in a text like this one
        entry = _Entry(user, len(password), credential, self._monotonic())
        # An application that goes on with the password alone may still send the text that it was given, as Nextcloud does.
        for text in (password, typed) if settings.mode is RememberMode.PASSWORD_ONLY else (typed,):
            self._keep(self._tag(application, listener, source, user, text), entry)

    def _keep(self, tag: bytes, entry: _Entry) -> None:
        self._drop(tag)
        of_user = self._by_user.setdefault(entry.user, {})
        if len(of_user) >= MAX_PER_USER:
            self._drop(next(iter(of_user)))
            of_user = self._by_user.setdefault(entry.user, {})
        if len(self._entries) >= self._max_entries:
            self._drop(next(iter(self._entries)))
            of_user = self._by_user.setdefault(entry.user, {})
        of_user[tag] = None
        self._entries[tag] = entry

    def forget(self, user: str) -> None:
        """The user was refused, for whatever reason and wherever: nothing stands any more."""
        for tag in self._by_user.pop(user, ()):
            del self._entries[tag]

    def clear(self) -> None:
        """Forget everybody: the settings have changed."""
        self._entries.clear()
        self._by_user.clear()

    def _drop(self, tag: bytes) -> None:
        entry = self._entries.pop(tag, None)
        if entry is None:
            return
        of_user = self._by_user[entry.user]
        del of_user[tag]
        if not of_user:
            del self._by_user[entry.user]

    def _tag(self, application: Application, listener: str, source: str, user: str, text: Secret) -> bytes:
        settings: RememberSettings = application.remember
        scope = settings.scope
        parts = (
            settings.mode.value,
            application.name,
            listener if RememberScope.LISTENER in scope else "",
            source if RememberScope.SOURCE in scope else "",
            user,
        )
        # Each part with its length: "ab" + "c" is not "a" + "bc".
        octets = (part.encode("utf-8", "surrogateescape") for part in parts)
        framed = b"".join(len(part).to_bytes(4, "big") + part for part in octets)
        return hmac.digest(self._key.reveal(), framed + text.reveal(), "sha256")
