"""Does somebody guess the password of an account that needs no code?

Room rule: counts by origin, in a bounded table, forgotten with time; whoever needs a code is counted by the core, and not
here. An account that an application binds with all day must not be shut out by those who guess at it through the same
application: the password that was right a while ago is let through whatever is counted. Nothing of a password is kept but
an HMAC under a key of this process.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from ldap_proxy.kept import Kept
from ldap_proxy.lookup import MAX_KEY
from ldap_proxy.sources import origin_of
from mfa_core.secret import Secret

FORGIVEN_S: Final = 60.0
"""One failure is forgotten each so many seconds: whoever goes on guessing has 1440 guesses a day."""
MAX_ORIGINS: Final = 4096
GOOD_S: Final = 86_400.0
"""For how long the password that was right is let through."""
REFRESH_S: Final = 300.0
"""How often it is looked whether it is still the same one: an HMAC for each bind would be a twentieth of its cost."""
MAX_GOOD: Final = 1024
MAX_REMEMBERED: Final = 4096


class Guessing:
    """Failed binds of exempt identities, ``most`` from one origin. ``key`` is random; ``monotonic`` returns seconds."""

    def __init__(self, most: int, *, key: Secret, monotonic: Callable[[], float]) -> None:
        self._most = most
        self._key = key
        self._monotonic = monotonic
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._good: Kept[tuple[str, bytes], tuple[bytes, float]] = Kept(max_entries=MAX_GOOD, monotonic=monotonic)
        self._origins: dict[str, str] = {}
        self._under_way: dict[str, int] = {}

    def began(self, source: str) -> None:
        """The directory is asked; :meth:`ended` is to follow."""
        origin = self._origin(source)
        self._under_way[origin] = self._under_way.get(origin, 0) + 1

    def ended(self, source: str) -> None:
        """It has answered, or is not waited for any more."""
        origin = self._origin(source)
        left = self._under_way.pop(origin, 0) - 1
        if left > 0:
            self._under_way[origin] = left

    def may_try(self, source: str, name: bytes, password: Secret) -> bool:
        """Whether the directory may be asked about this password of the exempt ``name``.

        Where somebody has failed, those that are under way count as failures: many at once must not be a way to try more. Where
        nobody has, all may try: an application opens all of its connections when it starts.
        """
        if not self._failures:
            return True
        origin = self._origin(source)
        count = self._count(origin)
        if not count or count + self._under_way.get(origin, 0) <= self._most - 1:
            return True
        good = self._good.get((origin, name))
        return good is not None and hmac.compare_digest(good[0], self._tag(origin, name, password))

    def failed(self, source: str) -> None:
        """The directory said no, or the identity that it confirmed is not exempt."""
        origin = self._origin(source)
        count = self._count(origin)
        self._failures.pop(origin, None)
        self._failures[origin] = (min(count, self._most) + 1, self._monotonic())
        if len(self._failures) > MAX_ORIGINS:
            # The one that failed longest ago: the nearest to being forgotten as a rule.
            self._failures.popitem(last=False)

    def succeeded(self, source: str, name: bytes, password: Secret) -> None:
        """The directory said yes. Failures are not forgotten by it: a guesser may have an account of his own."""
        key = (self._origin(source), name)
        good = self._good.get(key)
        now = self._monotonic()
        if (good is None or now >= good[1] + REFRESH_S) and len(name) <= MAX_KEY:
            self._good.put(key, (self._tag(*key, password), now), GOOD_S)

    def _count(self, origin: str) -> float:
        found = self._failures.get(origin)
        if found is None:
            return 0.0
        left = found[0] - (self._monotonic() - found[1]) / FORGIVEN_S
        if left <= 0:
            del self._failures[origin]
            return 0.0
        return left

    def _origin(self, source: str) -> str:
        found = self._origins.get(source)
        if found is None:
            if len(self._origins) >= MAX_REMEMBERED:
                self._origins.clear()
            found = self._origins[source] = origin_of(source)
        return found

    def _tag(self, origin: str, name: bytes, password: Secret) -> bytes:
        first = origin.encode("utf-8", "surrogateescape")
        framed = b"".join(len(part).to_bytes(4, "big") + part for part in (first, name))
        return hmac.digest(self._key.reveal(), framed + password.reveal(), "sha256")
