"""How does a test get an authority and hosts that joined it, each on a machine of its own, and see what each of them knows?

A :class:`Site` is a network with one authority and agents that joined by tokens, as an administrator would do it: everything by
mfactl. Each machine has a wall clock that the test sets. People are enrolled at the authority; their telephones have the right
time, which is that of :attr:`Site.time`.

What a test waits for (a sync, a merged journal) it reads from the stores, because a start of mfactl takes longer than most
of it.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from psycopg.rows import dict_row

from tests.end_to_end.clocks import Clock
from tests.end_to_end.daemon import Mfad, Person
from tests.end_to_end.host import SSHD, Host, Sshd, private_host
from tests.end_to_end.namespaces import Machine, Network
from tests.end_to_end.postgresql import Cluster
from tests.end_to_end.programs import PATIENCE_S, clean_environment, must_have, run, wait_until
from tests.end_to_end.radius_programs import radclient
from tests.pam_mfa.pam_harness import Items, PamCode, Seen, auth_line, run_pam

STORE = "mfad.sqlite"
PORT = 18443
RADIUS_PORT = 18120
RADIUS_SECRET = "a-secret-of-the-test-long-enough"
_EACH = """
import contextlib, ctypes, io, json, os, sys
from mfactl.__main__ import run
said = []
for network, words in json.load(sys.stdin):
    if network:
        with open(network, "rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0x40000000) != 0:  # CLONE_NEWNET
                raise OSError(ctypes.get_errno(), network)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = run(words)
    said.append(out.getvalue())
    if status:
        sys.exit(f"{words}: exit {status}: {said[-1]}")
print(json.dumps(said))
"""
_QUERY = """
import json, sqlite3, sys
store = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, timeout=10)
store.row_factory = sqlite3.Row
print(json.dumps([dict(row) for row in store.execute(sys.argv[2], json.loads(sys.argv[3]))], default=bytes.hex))
"""
_ASKED, _LOST = "the authority is there: it is asked", "the authority is gone"
FROM = Items(rhost="192.0.2.44")
"""Where the person at the PAM door comes from."""


@dataclass(frozen=True, slots=True)
class Group:
    """A host group. ``users`` are the user groups that may log in there."""

    material: str = "seed"
    max_offline: str = "1h"
    offline_after: str = "0"
    services: tuple[str, ...] = ("*",)
    users: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class Spec:
    """An agent to be made. With ``local_users`` it is a whole host with an sshd, and these are its passwd."""

    group: str = "edge"
    local_users: tuple[str, ...] = ()
    radius: bool = False
    doors: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    tmpfs: Mapping[Path, str] = field(default_factory=dict)


def mfactl_each(
    commands: Sequence[tuple[str, Sequence[str]]], *, prefix: Sequence[str] = (), **environment: str
) -> list[str]:
    """Run mfactl with each of these arguments, in one interpreter, in the network namespace of this path ("": the one that it
    is in). What they say."""
    said = run([*prefix, sys.executable, "-c", _EACH], stdin=json.dumps(commands), env=clean_environment(**environment))
    return [str(text) for text in json.loads(said)]


class Station(Mfad):
    """One mfad on one machine: an authority, or what an agent has in common with it."""

    def __init__(
        self, name: str, directory: Path, machine: Machine, settings: Mapping[str, Any], prefix: Sequence[str]
    ) -> None:
        self.name = name
        self.machine = machine
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.clock = Clock(directory / "clock")
        super().__init__(directory, settings, prefix=prefix)
        self.environment = self.clock.environment()

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Write the configuration: where things are, and ``settings``."""
        usual = {"state_dir": "./state", "key_file": "./kek", "log_level": "debug"}
        self.config_path.write_text(yaml.safe_dump({**usual, **settings}))

    def mfactl_says(self, *words: str) -> str:
        """Run mfactl, however it ends; all that it says."""
        command = [*self.prefix, sys.executable, "-m", "mfactl", "--config", str(self.config_path), *words]
        done = subprocess.run(
            command, env=clean_environment(**self.environment), capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout + done.stderr

    def mfactl_each(self, *commands: Sequence[str]) -> list[str]:
        """Run mfactl once for each, in one interpreter, whose start is most of it. What they say."""
        return mfactl_each([("", self.words(*words)) for words in commands], prefix=self.prefix, **self.environment)

    def words(self, *words: str) -> list[str]:
        """Arguments of mfactl here."""
        return ["--config", str(self.config_path), *words]

    # what its store says

    def rows(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        """Rows of its SQLite store, as they are committed now."""
        path = self.state_dir / STORE
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as store:
            store.row_factory = sqlite3.Row
            return [dict(row) for row in store.execute(query, arguments)]

    @property
    def state_dir(self) -> Path:
        configured = Path(yaml.safe_load(self.config_path.read_text())["state_dir"])
        return self.directory / configured

    def events(self, **fields: object) -> list[dict[str, Any]]:
        """The audit events with these fields, oldest first, each with its ``node``."""
        found = [{"node": row["node"], **json.loads(row["body"])} for row in
                 self.rows("SELECT node, body FROM audit ORDER BY at, seq")]  # fmt: skip
        return [one for one in found if fields.items() <= one.items()]

    def reasons(self, name: str) -> list[str]:
        """The reason of each verdict about a user that is no challenge, as written down here, oldest first."""
        found = self.events(event="attempt", user=name)
        return [str(one.get("reason", "")) for one in found if one["outcome"] != "challenged"]

    def accepts(self, name: str) -> list[tuple[str, int]]:
        """Event and step of each login of a user that was let in by a code, as written down here; each event once."""
        found = {one["id"]: one["step"] for one in self.events(event="attempt", user=name, outcome="accepted")}
        return list(found.items())


class Authority(Station):
    """An authority of a site. ``database`` is where its store is, when that is in ``cluster``."""

    cluster: Cluster | None = None
    database: str = ""

    def rows(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        """Rows of its store, wherever that is."""
        if self.cluster is None:
            return super().rows(query, *arguments)
        with self.cluster.admin(self.database) as admin, admin.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query.replace("?", "%s"), arguments).fetchall()

    @property
    def url(self) -> str:
        return f"https://{self.machine.address}:{PORT}"

    def alarms(self) -> list[dict[str, Any]]:
        """All of them, with the name of the host."""
        return self.rows(
            "SELECT alarms.*, hosts.name AS host FROM alarms LEFT JOIN hosts ON hosts.id = alarms.host_id ORDER BY alarms.id"
        )

    def wait_for_alarm(self, kind: str, count: int = 1) -> list[dict[str, Any]]:
        """Until there are ``count`` alarms of this kind; them."""
        wait_until(lambda: len(self.alarms_of(kind)) >= count, lambda: f"alarm {kind}: {self.alarms()}\n{self.log()[-3000:]}")
        return self.alarms_of(kind)

    def alarms_of(self, kind: str) -> list[dict[str, Any]]:
        """Those of one kind."""
        return [one for one in self.alarms() if one["kind"] == kind]

    def host(self, name: str) -> dict[str, Any]:
        """What it knows of a host."""
        (row,) = self.rows("SELECT * FROM hosts WHERE name = ?", name)
        return row


class Agent(Station):
    """A host that joined. ``host`` has its sshd, where it has one."""

    def __init__(self, name: str, directory: Path, machine: Machine, spec: Spec, host: Host | None) -> None:
        self.spec = spec
        self.host = host
        prefix = machine.inside() if host is None else host.inside()
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        super().__init__(name, directory, machine, self.usual(directory, spec, host), prefix)

    def usual(self, directory: Path, spec: Spec, host: Host | None) -> dict[str, Any]:
        """Its configuration: the doors that it has, and no policy."""
        doors: dict[str, Any] = {"pam": {"socket_dir": "./run" if host is None else "/run/mfad"}}
        if spec.radius:
            secret = directory / "radius.secret"
            secret.touch(0o600)
            secret.write_text(RADIUS_SECRET + "\n")
            client = {"name": "vpn", "network": "127.0.0.1", "mode": "mfa_only", "secret_file": str(secret)}
            doors["radius"] = {"listen": [f"127.0.0.1:{RADIUS_PORT}"], "clients": [client]}
        return {"role": "agent", "doors": {**doors, **spec.doors}, "agent": {"sync_wait": "5s"}, **spec.settings}

    def rows(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        """Also where the store is on a file system of the host's own, which only the host sees."""
        if self.host is None or not self.spec.tmpfs:
            return super().rows(query, *arguments)
        words = [sys.executable, "-I", "-c", _QUERY, str(self.state_dir / STORE), query, json.dumps(arguments)]
        return [dict(row) for row in json.loads(run(self.host.inside(*words)))]

    @property
    def is_connected(self) -> bool:
        """Whether it asks the authority about logins, as far as its log tells."""
        said = self.log()
        return said.rfind(_ASKED) > max(said.rfind(_LOST), said.rfind("mfad: ready"))

    def state(self) -> dict[str, Any]:
        """The row that says what it was told."""
        (row,) = self.rows("SELECT * FROM agent_state")
        return row

    def knows(self, name: str) -> bool:
        """Whether its copy has this user."""
        return bool(self.rows("SELECT id FROM users WHERE name = ?", name))

    def holds(self, name: str) -> bool:
        """Whether its copy has a credential of this user that verifies."""
        wanted = "u.name = ? AND c.state = 'active'"
        return bool(self.rows(f"SELECT c.id FROM credentials c JOIN users u ON u.id = c.user_id WHERE {wanted}", name))

    def holds_secret(self, credential: int) -> bool:
        """Whether its copy has something of this credential to verify with."""
        return bool(self.rows("SELECT id FROM credentials WHERE id = ? AND material != 'none'", credential))

    def wait_until_it_holds(self, *names: str) -> None:
        """Until a sync has brought these people."""
        wait_until(lambda: all(self.holds(one) for one in names), lambda: f"{names} at {self.name}:\n{self.log()[-3000:]}")

    # logging in

    def pam(self, name: str, *answers: str, service: str = "sshd") -> Seen:
        """A login at its PAM door by the real libpam and pam_mfa.so."""
        return run_pam([auth_line(socket_dir=self.socket_dir)], name, list(answers), items=FROM, service=service)

    def pam_after_password(self, name: str, *answers: str, service: str = "sshd") -> Seen:
        """The same behind a password: then a refusal says why."""
        return run_pam(
            [auth_line("first_factor=done", socket_dir=self.socket_dir)], name, list(answers), items=FROM, service=service
        )

    def takes(self, name: str, code: str, service: str = "sshd") -> bool:
        """Whether a code lets in at the PAM door."""
        seen = self.pam(name, code, service=service)
        assert seen.code in {PamCode.SUCCESS, PamCode.AUTH_ERR, PamCode.MAXTRIES, PamCode.AUTHINFO_UNAVAIL}, seen
        return seen.code == PamCode.SUCCESS

    def refusal(self, name: str, code: str, service: str = "sshd", *, at: Station | None = None) -> str:
        """The reason why a code is refused at the PAM door, as written down here (or ``at`` another one); "" if it lets in."""
        where = at or self
        before = len(where.reasons(name))
        if self.takes(name, code, service):
            return ""
        # Verdicts that spend and count nothing are written with the next one that does.
        wait_until(lambda: len(where.reasons(name)) > before, f"a refusal of {name} is written down")
        return where.reasons(name)[-1]

    def radius(self, name: str, code: str) -> bool:
        """Whether a code lets in at the RADIUS door, by FreeRADIUS's radclient."""
        words = f'User-Name = "{name}"\nUser-Password = "{code}"'
        server = f"127.0.0.1:{RADIUS_PORT}"
        heard = radclient(server, RADIUS_SECRET, self.directory, words, prefix=self.machine.inside())
        assert heard.what in {"Access-Accept", "Access-Reject"}, f"{heard.screen}\n{self.log()[-3000:]}"
        return heard.what == "Access-Accept"

    def sshd(self) -> Sshd:
        """An sshd that asks for password and code."""
        assert self.host is not None, "this agent is no whole host"
        return self.host.start_sshd("mfad-keyboard-interactive.conf")


class Site:
    """An authority and its agents. Use :func:`authority_site`."""

    def __init__(self, place: Path, stack: ExitStack) -> None:
        self.place = place
        self._stack = stack
        self.network = stack.enter_context(Network())
        self.agents: dict[str, Agent] = {}
        self._offset_s = 0.0

    def __getitem__(self, name: str) -> Agent:
        return self.agents[name]

    def open_authority(self, settings: Mapping[str, Any], name: str = "authority") -> Authority:
        """A new authority, configured and not started."""
        machine = self.network.machine(name)
        section = {"listen": [f"{machine.address}:{PORT}"], "certificate_names": [machine.address, "localhost"], "name": name}
        more = {**settings, "authority": {**section, **settings.get("authority", {})}}
        one = Authority(name, self.place / name, machine, {"role": "authority", **more}, machine.inside())
        self._stack.callback(one.close)
        return one

    def new_agent(self, name: str, spec: Spec) -> Agent:
        """A host with mfad on it that belongs nowhere yet."""
        machine = self.network.machine(name)
        directory = self.place / name
        host = None
        if spec.local_users or spec.tmpfs:
            directory.mkdir(mode=0o755, parents=True)
            host = self._stack.enter_context(private_host(
                self.place / f"{name}-host", directory / "run", users=spec.local_users, tmpfs=spec.tmpfs,
                pam={"sshd": "sshd-keyboard-interactive"}, network=machine.path,
            ))  # fmt: skip
        if self.second is not None:
            both = {"authorities": [self.authority.url, self.second.url], "sync_wait": "5s"}
            spec = replace(spec, settings={**spec.settings, "agent": both})
        one = Agent(name, directory, machine, spec, host)
        self._stack.callback(one.close)
        self.agents[name] = one
        return one

    # time

    @property
    def time(self) -> float:
        """What the right time is, Unix seconds."""
        return time.time() + self._offset_s

    def pass_time(self, seconds: float) -> None:
        """All clocks go on by so much at once, also the telephones."""
        self._offset_s += seconds
        for one in self.stations():
            one.clock.set(one.clock.offset_s + seconds)

    # people

    authority: Authority
    second: Authority | None = None

    def person(self, name: str | None = None) -> Person:
        """Somebody enrolled whom no test has used."""
        one = self.authority.person(name)
        one.clock = lambda: self.time
        return one

    # hosts

    def join(self, tokens: Mapping[str, str]) -> None:
        """Let these agents join, as an administrator does it. Tokens are in files, not among the arguments."""
        plain: list[tuple[str, Sequence[str]]] = []
        for name, token in tokens.items():
            agent = self.agents[name]
            file = agent.directory / "token"
            file.touch(0o600)
            file.write_text(f"{token}\n")
            commands = [("init",), ("agent", "join", self.authority.url, "--name", name, "--token-file", str(file))]
            if agent.host is not None:
                agent.mfactl_each(*commands)
            else:
                plain += [(str(agent.machine.path), agent.words(*words)) for words in commands]
        if plain:
            mfactl_each(plain)

    def wait_until_merged(self, *names: str) -> None:
        """Until the authority has the whole journal of these agents, and they ask it again."""
        for name in names or self.agents:
            self.until(lambda name=name: self._merged(name), f"the journal of {name} is merged")
            self.until(lambda name=name: self.agents[name].is_connected, f"{name} asks again")

    def _merged(self, name: str) -> bool:
        agent = self.agents[name]
        epoch = agent.state()["journal_epoch"]
        node = "local" if epoch <= 1 else f"local:{epoch}"
        (head,) = agent.rows("SELECT coalesce(max(seq), 0) AS seq FROM audit WHERE node = ?", node)
        there = self.authority.host(name)
        return bool((there["journal_epoch"], there["journal_seq"]) == (epoch, head["seq"]))

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for ``condition``; where it does not come, every log is shown."""
        wait_until(condition, lambda: f"{what}\n{self.logs()}", patience_s=2 * PATIENCE_S)

    def logs(self) -> str:
        """The end of every log, for a test that fails."""
        return "\n".join(f"== {one.name}\n{one.log()[-3000:]}" for one in self.stations())

    def stations(self) -> list[Station]:
        """Everybody with a clock."""
        return [self.authority, *([self.second] if self.second else []), *self.agents.values()]


def build(
    place: Path,
    stack: ExitStack,
    agents: Mapping[str, Spec],
    *,
    groups: Mapping[str, Group] | None = None,
    people: Mapping[str, int] | None = None,
    memberships: Mapping[str, Sequence[str]] | None = None,
    settings: Mapping[str, Any] | None = None,
    cluster: Cluster | None = None,
) -> Site:
    """Make all of it and start it. With a ``cluster``, two authorities share a database there."""
    must_have(*([SSHD, "ssh"] if any(one.local_users for one in agents.values()) else []))
    site = Site(place, stack)
    more = dict(settings or {})
    database = ""
    if cluster is not None:
        database = cluster.create()
        more["store"] = {"url": cluster.url(database)}
    site.authority = site.open_authority(more)
    site.authority.cluster, site.authority.database = cluster, database
    file = place / "people.csv"
    file.write_text(site.authority.new_people(people or {}, memberships))
    commands: list[tuple[str, ...]] = [("init",), ("import", "csv", str(file))]
    for name, group in (groups or {"edge": Group()}).items():
        terms = ("--material", group.material, "--max-offline", group.max_offline, "--offline-after", group.offline_after)
        commands.append(("agent", "group", "add", name, *terms, "--services", ",".join(group.services)))
        commands += [("agent", "entitle", name, one) for one in group.users]
    asked = [("agent", "token", one.group, "--name", name, "--json") for name, one in agents.items()]
    said = site.authority.mfactl_each(*commands, *asked)[len(commands) :]
    tokens = {name: str(json.loads(text)["token"]) for name, text in zip(agents, said, strict=True)}
    if cluster is not None:
        site.second = site.open_authority(more, "second")
        site.second.cluster, site.second.database = cluster, database
        shutil.copy(site.authority.directory / "kek", site.second.directory)
        site.second.init()
    made = [site.new_agent(name, spec) for name, spec in agents.items()]
    authorities = [one for one in (site.authority, site.second) if one is not None]
    for one in authorities:
        one.launch()
    for one in authorities:
        one.wait_until_ready()
    site.join(tokens)
    for one in made:
        one.launch()
    for one in made:
        one.wait_until_ready()
    for one in made:
        site.until(lambda one=one: one.is_connected, f"{one.name} asks the authority")
    return site


@contextmanager
def authority_site(place: Path, agents: Mapping[str, Spec], **more: Any) -> Iterator[Site]:
    """A site that is gone afterwards. See :func:`build` for ``more``."""
    with ExitStack() as stack:
        yield build(place, stack, agents, **more)
