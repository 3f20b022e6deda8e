"""What may never be printed: the one type that carries passwords, codes and keys.

Room rule: everything that keeps a secret out of logs, tracebacks and serialisers lives here. Python cannot wipe memory
(SECURITY.md says so); what this type does is make leaking one an act that a reader can grep for: ``reveal()``.
"""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Bytes that have no string form, no ordering, no ``==`` and no pickle. The only way out is :meth:`reveal`."""

    __slots__ = ("__value",)

    def __init__(self, value: bytes) -> None:
        self.__value = value

    @classmethod
    def from_text(cls, text: str) -> Secret:
        """Wrap ``text`` as UTF-8; undecodable bytes that came in as surrogates go out as the bytes they were."""
        return cls(text.encode("utf-8", "surrogateescape"))

    def reveal(self) -> bytes:
        """Return the bytes. Call it in the expression that uses them, never into a variable that lives on."""
        return self.__value

    def same_as(self, other: Secret) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(self.__value, other.__value)

    def __len__(self) -> int:
        return len(self.__value)

    def __bool__(self) -> bool:
        return bool(self.__value)

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("a Secret has no ==; use same_as(), which takes constant time")

    __hash__ = None  # type: ignore[assignment]  # unhashable on purpose: a dict keyed by secrets keeps them alive

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied into another process")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self
