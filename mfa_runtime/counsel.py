"""The seam between a host that decides and an authority that knows better.

Room rule: values and one protocol. A counsel is asked on the event loop about what was typed, after passwords were checked here
(they never leave the host), and says what the authority ruled, or that this host is alone. Behind it stand queues, connections
and timeouts, of which the gate knows nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mfa_core.mirror import Ruled
from mfa_core.model import Attempt
from mfa_core.split import Split
from mfa_core.value import hot_value
from mfa_core.verifier import Password

__all__ = ["Alone", "Counsel", "Counselled", "Referral", "Referred", "Ruled"]


@hot_value
class Alone:
    """Nobody answers: this host decides, if it may. ``unreachable_s`` is for how many seconds nobody has answered."""

    unreachable_s: float


Counselled = Ruled | Alone


@hot_value
class Referred:
    """An attempt that this host asks its authority about.

    ``name`` is canonical, "" for a name that is no identity. ``found`` are the readings of what was typed, in order: their
    passwords stay here, and :attr:`Ruled.reading` is a place among them. It is empty where nothing can be read, and for a
    question (``attempt.typed`` is None). ``password`` is what the first-factor backend of this host said. ``hidden``: a code
    may stand in a wrong password, and the account is to be charged too. ``groups`` are those of the user, as this host's
    directory says; None where it does not say.
    """

    attempt: Attempt
    name: str
    found: tuple[Split, ...] = ()
    password: Password = Password.NOT_ASKED
    hidden: bool = False
    groups: frozenset[str] | None = None


class Counsel(Protocol):
    """Asks an authority."""

    def ask(self, referred: Referred, told: Callable[[Counselled], None]) -> None:
        """Ask, and call ``told`` once, always, on the loop: from inside this call or later. Never raises, never blocks.

        What could not be asked or was not answered in time is :class:`Alone`, and so is an answer that the authority could not
        decide: ``told`` comes within the budget of a login.
        """
        ...


@hot_value
class Referral:
    """An attempt that a host asks this authority about: what :class:`Referred` is at the other end.

    ``attempt.typed`` is None for a question, and any secret otherwise: ``found`` says what was typed, without passwords.
    ``host_groups`` holds the one group of the host, and ``host_name`` is for the audit log.
    """

    attempt: Attempt
    name: str
    found: tuple[Split, ...] = ()
    password: Password = Password.NOT_ASKED
    hidden: bool = False
    groups: frozenset[str] | None = None
    host_groups: frozenset[str] = frozenset()
    host_id: int = 0
    host_name: str = ""
