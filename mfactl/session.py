"""What a command works on: the configuration, the keys and the store, opened when the command asks for them.

Room rule: the only file of this package that opens anything of the installation, and the only one that reads the clock and the
system's randomness.
"""

from __future__ import annotations

import os
import pwd
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mfa_core.identity import normalise

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mfa_runtime.administration.act import Act
    from mfa_runtime.config import Config
    from mfa_runtime.sealing import Keyring
    from mfa_runtime.store.agent_state import AgentState
    from mfa_runtime.store.database import Store

SYSTEM_CONFIG = Path("/etc/mfad/mfad.yaml")
CONFIG_VARIABLE = "MFAD_CONFIG"
_BUILT_IN = "the built-in configuration"
_HEADS = {
    Path(): """\
# mfad. Relative paths start at the folder of this file; config/mfad.yaml of the distribution explains every key.
""",
    SYSTEM_CONFIG: """\
# mfad. config/mfad.yaml of the distribution explains every key.
""",
}
_PLACES = {
    Path(): """\
state_dir: ./var/state          # store, journal, cache
key_file: ./var/kek             # key-encryption key, 0400: keep a copy of it apart from backups
""",
    SYSTEM_CONFIG: """\
state_dir: /var/lib/mfad        # store and journal
key_file: /etc/mfad/kek         # key-encryption key, 0400: keep a copy of it apart from backups
""",
}
_DOORS = {
    Path(): """\
doors:
  pam:
    socket_dir: ./var/run       # priv.sock, user.sock
""",
    SYSTEM_CONFIG: """\
doors:
  pam:
    socket_dir: /run/mfad       # priv.sock, user.sock; where pam_mfa.so looks
""",
}
_MORE_DOORS = """\
  # radius:                     # VPN gateways, switches, Wi-Fi: docs/radius.md; every key: config/radius.yaml
  # ldap:                       # applications that bind to a directory: docs/ldap.md; every key: config/ldap.yaml
"""
_POLICY = """\
policy: []                      # first match wins; the default requires TOTP of everyone
"""
_AUTHORITY = """\
authority:                      # every key: config/authority.yaml; what comes next: docs/offline.md
  listen: ["0.0.0.0:18443"]
  certificate_names: [{names}]
"""
_AGENT = """\
agent: {}                       # every key: config/agent.yaml; users and rules are the authority's
"""


def _skeleton(place: Path, role: str = "standalone", names: str = "localhost") -> str:
    head = f"{_HEADS[place]}role: {role}\n{_PLACES[place]}"
    if role == "authority":
        return head + _AUTHORITY.format(names=names) + _POLICY
    if role == "agent":
        return head + _AGENT + _DOORS[place] + _MORE_DOORS
    return head + _DOORS[place] + _MORE_DOORS + _POLICY


SKELETON = _skeleton(Path())
"""What `mfactl init` writes, and what holds without any configuration file: all lies under the present directory."""
SYSTEM_SKELETON = _skeleton(SYSTEM_CONFIG)
"""What `mfactl init` writes as /etc/mfad/mfad.yaml: where the module and the systemd unit look."""


def skeleton_for(path: Path, role: str = "standalone") -> str:
    """The first configuration for this place: of a role that hosts see by this machine's name."""
    known = socket.gethostname().lower()
    names = ", ".join(dict.fromkeys((known, "localhost"))) if _IS_NAME(known) else "localhost"
    return _skeleton(SYSTEM_CONFIG if path.absolute() == SYSTEM_CONFIG else Path(), role, names)


_IS_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,252})").fullmatch


@dataclass(frozen=True, slots=True)
class Options:
    """What stands before the command. ``config`` is None when neither option nor variable named a file."""

    config: Path | None = None


def options_of(context: typer.Context) -> Options:
    """The global options of this run."""
    found = context.find_object(Options)
    return Options() if found is None else found


def read_configuration(context: typer.Context) -> Config:
    """The configuration: of ``--config`` or ``MFAD_CONFIG``, else of /etc/mfad, else the built-in one.

    Raises:
        ConfigurationError: it cannot be used.
    """
    from mfa_runtime.config import load_config, load_config_text

    path = _configuration_path(context)
    if path is not None:
        return load_config(path)
    return load_config_text(SKELETON, name=_BUILT_IN, base=Path.cwd())


def configuration_name(context: typer.Context) -> str:
    """What :func:`read_configuration` reads, for people."""
    path = _configuration_path(context)
    return _BUILT_IN if path is None else str(path)


def _configuration_path(context: typer.Context) -> Path | None:
    path = options_of(context).config
    return SYSTEM_CONFIG if path is None and SYSTEM_CONFIG.exists() else path


def credentials_directory() -> str | None:
    """Where systemd puts the credentials of this process, if it does."""
    return os.environ.get("CREDENTIALS_DIRECTORY")


@dataclass(frozen=True, slots=True)
class Session:
    """An open installation. ``now`` is Unix seconds, one time for the whole command."""

    config: Config
    store: Store
    keyring: Keyring
    actor: str
    now: float
    clock: Callable[[], float] = time.time

    def name(self, presented: str) -> str:
        """The canonical form of a user name. Raises: UsernameRefused."""
        return normalise(presented, as_told(self.config, self.agent_state).identity)

    def act(self) -> Act:
        """What the administrator does now, for the audit log: on an agent, that is the journal of this epoch."""
        from mfa_runtime.administration.act import LOCAL_NODE, Act
        from mfa_runtime.config.sections import Role

        node = administration_node(self.store)
        if self.config.role is Role.AGENT:
            from mfa_runtime.agent.journal import node_of

            state = self.agent_state()
            node = LOCAL_NODE if state is None else node_of(state.journal_epoch)
        return Act(self.actor, self.clock(), os.urandom, self.keyring, node)

    def agent_state(self) -> AgentState | None:
        """What the authority has told this host; None where it has joined none."""
        from mfa_runtime.store import agent_state

        with self.reading() as connection:
            return agent_state.load(connection)

    def refuse_on_agent(self) -> None:
        """Users, credentials and rules of an agent are its authority's. Raises: Conflict, on an agent."""
        from mfa_core.errors import Conflict
        from mfa_runtime.config.sections import Role

        if self.config.role is not Role.AGENT:
            return
        state = self.agent_state()
        urls = self.config.agent.authorities or (() if state is None else state.authorities)
        raise Conflict(
            "this host is an agent: users, credentials and rules are "
            + (f"administered at {' or '.join(urls)}" if urls else "the authority's, and it has joined none yet"),
            cure="run this command there" if urls else "`mfactl agent join https://HOST:PORT`, with a token from there",
        )

    def only_on_authority(self) -> None:
        """Hosts are administered where they ask. Raises: Conflict, elsewhere."""
        from mfa_core.errors import Conflict
        from mfa_runtime.config.sections import Role

        self.refuse_on_agent()
        if self.config.role is not Role.AUTHORITY:
            raise Conflict(
                "this is no authority (role: standalone), it has no hosts",
                cure="set `role: authority` in the configuration and run `mfactl init`; config/authority.yaml shows the keys",
            )

    @contextmanager
    def changing(self) -> Iterator[tuple[Connection, Act]]:
        """One transaction of changes, with who makes them. Raises: Conflict, on an agent."""
        from mfa_runtime.audit_sinks import STDERR, open_sink

        self.refuse_on_agent()

        act = self.act()
        with self.store.writing() as connection:
            yield connection, act
        # What goes to stderr is mfad's own log; there is none of it here.
        json_file = None if self.config.audit.json_file == STDERR else self.config.audit.json_file
        open_sink(json_file=json_file, syslog=self.config.audit.syslog)(act.told)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view."""
        with self.store.reading() as connection:
            yield connection


@contextmanager
def open_session(context: typer.Context) -> Iterator[Session]:
    """Open the installation for one command; no restore can replace the store meanwhile.

    Raises:
        ConfigurationError, StoreUnavailable, StoreCorrupt: as the parts say.
    """
    from mfa_runtime.key_file import load_key_source
    from mfa_runtime.state_lock import StateLock
    from mfa_runtime.store.key_table import load_keyring
    from mfa_runtime.store.opening import open_store
    from mfa_runtime.store_role import check_role

    config = read_configuration(context)
    with ExitStack() as stack:
        stack.enter_context(StateLock(config.state_dir).shared())
        store = open_store(config.store_place)
        stack.callback(store.close)
        keks = load_key_source(config.key_source, credentials_directory=credentials_directory())
        with store.reading() as connection:
            keyring = load_keyring(connection, keks, random=os.urandom)
            check_role(connection, config.role)
        yield Session(config, store, keyring, actor(), time.time())


def as_told(config: Config, agent_state: Callable[[], AgentState | None]) -> Config:
    """The configuration that decides: an agent's has the rules of its authority, as far as it has heard them.

    Raises:
        ConfigurationError: they cannot be read here.
    """
    from mfa_runtime.config.sections import Role

    if config.role is not Role.AGENT:
        return config
    from mfa_runtime.config.rules_document import read_rules
    from mfa_runtime.lease import lease_of

    state = agent_state()
    if state is None or not state.rules:
        return config
    rules, group = read_rules(state.rules), lease_of(state).terms.host_group
    return replace(
        config, policy=rules.policy, identity=rules.identity, time_zone=rules.time_zone,
        host_groups=frozenset({group} if group else ()),
    )  # fmt: skip


def administration_node(store: Store) -> str:
    """The audit chain that the commands of this machine write."""
    from mfa_runtime.node_name import of_administration

    return of_administration(socket.gethostname(), shared=store.several_writers)


def actor() -> str:
    """Who runs this: the login that started it (``/proc/self/loginuid`` survives sudo and su), and as whom."""
    effective = _login_name(os.geteuid())
    try:
        # 4294967295 (-1): no login, for instance a service or a container.
        login = int(Path("/proc/self/loginuid").read_text("ascii"))
    except (OSError, ValueError):
        login = 2**32 - 1
    if login in {2**32 - 1, os.geteuid()}:
        return effective
    return f"{_login_name(login)} as {effective}"


def _login_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
