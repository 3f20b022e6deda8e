"""Look-ups whose answers the test gives: at once, when it likes, or never."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ldap_proxy.dn import Dn
from ldap_proxy.lookup import LookupFailed


@dataclass
class Known:
    """Stands in for :class:`ldap_proxy.lookup.Lookups`. ``answers`` by question; ``kept`` those that are known beforehand."""

    answers: dict[Any, Any] = field(default_factory=dict)
    kept: dict[Any, Any] = field(default_factory=dict)
    asked: list[Any] = field(default_factory=list)
    called_off: list[Any] = field(default_factory=list)

    def kept_values(self, name: bytes, attribute: str) -> Any:
        return self.kept.get((name, attribute))

    def values(self, name: bytes, attribute: str, done: Callable[[Any], None]) -> Callable[[], None]:
        return self._ask((name, attribute), done)

    def kept_membership(self, group: Dn, member: Dn) -> Any:
        return self.kept.get((group, member))

    def membership(
        self, group: Dn, member: Dn, attributes: tuple[str, ...], done: Callable[[Any], None]
    ) -> Callable[[], None]:
        return self._ask((group, member), done)

    def _ask(self, question: Any, done: Callable[[Any], None]) -> Callable[[], None]:
        self.asked.append(question)
        answer = self.answers.get(question, LookupFailed("the directory is away"))
        handle = asyncio.get_running_loop().call_soon(done, answer)

        def call_off() -> None:
            self.called_off.append(question)
            handle.cancel()

        return call_off
