"""Whose store is this: may an installation of this role decide by it?

Room rule: reads one row. An agent's store is a cache that ends with its lease: opened in another role it would have no end, and
no authority to ask.
"""

from __future__ import annotations

from sqlalchemy import Connection

from mfa_core.errors import ConfigurationError
from mfa_runtime.config.sections import Role
from mfa_runtime.store import agent_state


def check_role(connection: Connection, role: Role) -> None:
    """Raises: ConfigurationError, when this is the store of an agent, and ``role`` is another."""
    state = None if role is Role.AGENT else agent_state.load(connection)
    if state is not None:
        raise ConfigurationError(
            f"role: {role}, and the store is that of the agent {state.host_name} of {' or '.join(state.authorities)}",
            cure="set `role: agent` again; to begin anew, name an empty state_dir and run `mfactl init`",
        )
