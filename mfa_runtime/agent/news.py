"""What the gate and the ledger of a process must hear of when the store of an agent says otherwise than before.

Room rule: compares, and calls back; once for each change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from mfa_core.errors import MfaError
from mfa_runtime.agent.journal import node_of
from mfa_runtime.config.rules_document import SharedRules, read_rules
from mfa_runtime.lease import lease_of
from mfa_runtime.store.agent_state import AgentState

log = logging.getLogger(__name__)

RulesCame = Callable[[SharedRules, str], None]
"""Takes rules to decide by, and the group of this host."""


class News:
    """Knows what was told. ``rules_came`` and ``chain_begun`` (with the name of the audit chain) are called where it hears."""

    def __init__(self, *, rules_came: RulesCame, chain_begun: Callable[[str], None]) -> None:
        self._rules_came = rules_came
        self._chain_begun = chain_begun
        self._told: tuple[str, str] | None = None
        self._node = ""

    def hear(self, state: AgentState) -> None:
        """Tell what is new in this. Rules that cannot be read here leave those of before."""
        node = node_of(state.journal_epoch)
        if node != self._node:
            self._node = node
            self._chain_begun(node)
        if not state.rules:
            return
        try:
            found = (state.rules, lease_of(state).terms.host_group)
            if found != self._told:
                self._rules_came(read_rules(state.rules), found[1])
                self._told = found
        except MfaError as err:
            log.error("the authority's rules cannot be used, the previous ones hold: %s; %s", err, err.cure)
