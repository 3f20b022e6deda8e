"""What does a login by PAP, and by EAP-TTLS with PAP inside, cost through FreeRADIUS: with the module, and handed on to mfad?

The peer is FreeRADIUS with files and pap: by PAP on the wire, and by the same EAP-TTLS with files and pap inside the tunnel. In
either case FreeRADIUS and mfad share one core, and the client has another.

FreeRADIUS declares rlm_python3 unsafe for threads and calls it once at a time: through the module one login is under way, and
each is a commit of its own. Handed on to mfad's own port, many are under way.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.eap_ttls import Refused, log_in
from bench.figures import Spread, bottlenecks, conclude, ratios
from bench.processes import free_port, processors
from bench.radius_stage import (
    OUTSTANDING,
    PEER,
    SOCKETS,
    Generator,
    Login,
    PeerRoster,
    Run,
    Server,
    Shared,
    all_accepted,
    freeradius,
    freeradius_files,
    login_book,
    mfad_radius,
    new_secret,
)
from bench.stage import ROOT, Stage, percentile, stage
from tests.end_to_end.radius_certificates import Authority

BAR_PAP = 0.25
BAR_EAP_PER_S = 300.0
PLUGIN, PROXY, PEER_EAP = "FreeRADIUS, plugin, mfad", "FreeRADIUS, proxy, mfad", "FreeRADIUS EAP, files+pap"
SHIPPED = ROOT / "radius_plugin" / "freeradius"
SERVER_NAME = "radius.example.org"

_STOCK_MODULES = """
    always ok {
        rcode = ok
    }
    always reject {
        rcode = reject
    }
    always handled {
        rcode = handled
    }
"""
"""Of those that every FreeRADIUS has, what the shipped sites use."""
_PEER_SITES = """
server peer {{
    listen {{
        type = auth
        ipaddr = 127.0.0.1
        port = {port}
    }}
    authorize {{
        peer-eap {{
            ok = return
        }}
    }}
    authenticate {{
        peer-eap
    }}
}}
server peer-inner {{
    authorize {{
        files
        pap
    }}
    authenticate {{
        Auth-Type PAP {{
            pap
        }}
    }}
}}
"""


# Servers


def shipped(name: str, changes: Mapping[str, str]) -> str:
    """A file of the plugin's configuration, with what an administrator changes in it changed."""
    text = (SHIPPED / name).read_text()
    for before, after in changes.items():
        if before not in text:
            raise SystemExit(f"{name} says {before!r} no more: what stands here has to follow")
        text = text.replace(before, after)
    return text


def issue(folder: Path, authority: Authority) -> None:
    """The certificate that EAP shows, where the shipped configuration has it."""
    certificate = authority.issue(SERVER_NAME, server=True)
    shutil.copy(certificate.certificate, folder / "mfad.pem")
    shutil.copy(certificate.key, folder / "mfad.key")


@contextlib.contextmanager
def in_front(
    folder: Path,
    shared: Shared,
    authority: Authority,
    path: Path,
    sites: str,
    *,
    policies: Sequence[str],
    port: int,
    cpus: Sequence[int],
) -> Iterator[int]:
    """FreeRADIUS with the shipped modules and policies; mfad behind it listens at ``path``. Its process id."""
    (folder / "mods-config" / "python3").mkdir(parents=True, mode=0o700)
    shutil.copy(SHIPPED / "mfad_freeradius.py", folder / "mods-config" / "python3")
    issue(folder, authority)
    module = {"/run/mfad/radius/radius.sock": str(path), 'server_user = "root"': f'server_user = "{os.getuid()}"'}
    policy = "policy {\n" + "\n".join(shipped(f"policy.d/{name}", {}) for name in policies) + "\n}\n"
    with freeradius(
        folder,
        shared,
        modules=_STOCK_MODULES + shipped("mods-available/mfad", module) + shipped("mods-available/mfad-eap", {}),
        sites=policy + sites,
        port=port,
        cpus=cpus,
    ) as pid:
        yield pid


@contextlib.contextmanager
def through_plugin(
    here: Stage, shared: Shared, authority: Authority, mfad: Server, path: Path, *, cpus: Sequence[int]
) -> Iterator[Server]:
    """Everything through the module."""
    port = free_port()
    addresses = {"ipaddr = *": "ipaddr = 127.0.0.1", "port = 1812": f"port = {port}", "port = 1813": f"port = {free_port()}"}
    sites = shipped("sites-available/mfad", addresses) + shipped("sites-available/mfad-inner", {})
    with in_front(here.folder / "plugin", shared, authority, path, sites, policies=["mfad"], port=port, cpus=cpus) as pid:
        yield Server(PLUGIN, (pid, *mfad.pids), port, mfad.logins)


@contextlib.contextmanager
def through_proxy(
    here: Stage, shared: Shared, authority: Authority, mfad: Server, path: Path, *, cpus: Sequence[int]
) -> Iterator[Server]:
    """What can be handed on is handed on to mfad's own port."""
    folder, port = here.folder / "proxy", free_port()
    folder.mkdir(mode=0o700)
    (folder / "mfad-proxy.secret").write_text(f"secret = {shared.value.decode()}\n")
    addresses = {
        "port = 18120\n": f"port = {mfad.port}\n",
        "ipaddr = *": "ipaddr = 127.0.0.1",
        "port = 1812\n": f"port = {port}\n",
        "port = 1813\n": f"port = {free_port()}\n",
    }
    sites = "proxy_requests = yes\nproxy server {\n}\n" + shipped("sites-available/mfad-proxy", addresses)
    with in_front(folder, shared, authority, path, sites, policies=["mfad", "mfad-proxy"], port=port, cpus=cpus) as pid:
        yield Server(PROXY, (pid, *mfad.pids), port, mfad.logins)


@contextlib.contextmanager
def peer_eap(
    here: Stage, shared: Shared, authority: Authority, *, users: int, cpus: Sequence[int]
) -> Iterator[Server]:
    """FreeRADIUS with the same tunnel, and files and pap inside it. Its users are those of the other peer."""
    folder = here.folder / "peer-eap"
    folder.mkdir(mode=0o700)
    issue(folder, authority)
    port = free_port()
    eap = {
        "eap mfad-eap": "eap peer-eap",
        "virtual_server = mfad-inner": "virtual_server = peer-inner",
        "auth_type = mfad": "auth_type = PAP",
    }
    with freeradius(
        folder,
        shared,
        modules=f"files {{\n filename = {here.folder}/freeradius/users\n}}\npap {{\n}}\n"
        + shipped("mods-available/mfad-eap", eap),
        sites=_PEER_SITES.format(port=port),
        port=port,
        cpus=cpus,
    ) as pid:
        yield Server(PEER_EAP, (pid,), port, PeerRoster(users))


# EAP


@dataclass(frozen=True, slots=True)
class Tunnels:
    """Some logins by EAP-TTLS/PAP. ``cpu_ms`` is the servers' processor time for each, milliseconds."""

    rate: float
    cpu_ms: float
    p50_ms: float
    p99_ms: float
    cpu_share: float


def tunnels(server: Server, logins: Sequence[Login], shared: Shared, *, at_once: int, cpu: int) -> Tunnels:
    """Log everybody in. Ends the program when somebody is not let in."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    before = server.cpu_s()
    try:
        seen = log_in(server.port, shared.value, logins, at_once=at_once)
    except Refused as err:
        raise SystemExit(f"{server.label}: {err}") from err
    finally:
        os.sched_setaffinity(0, allowed)
    cpu_ms = (server.cpu_s() - before) / len(logins) * 1e3
    times = list(seen.latencies_ms)
    return Tunnels(seen.rate, cpu_ms, percentile(times, 0.5), percentile(times, 0.99), seen.cpu_share)


# Figures


def report_pap(seen: dict[str, list[Run]]) -> list[str]:
    """Print a table; the bars that were missed."""
    print(f"  {'PAP':28} {'logins/s':>26} {'CPU us/login':>20} {'p50 ms':>8} {'p99 ms':>8}")
    for label, runs in seen.items():
        p50, p99 = Spread.of(runs, "p50_ms").median, Spread.of(runs, "p99_ms").median
        rate, cpu = Spread.of(runs, "rate").text(",.0f"), Spread.of(runs, "cpu_us").text(".0f")
        print(f"  {label:28} {rate:>26} {cpu:>20} {p50:8.2f} {p99:8.2f}")
    for label in (PLUGIN, PROXY):
        inside, behind = (Spread(tuple(run.server_parts_s[part] / run.taken * 1e6 for run in seen[label])) for part in (0, 1))
        print(f"  {label}: FreeRADIUS {inside.text('.0f')} us of a login, mfad {behind.text('.0f')} us")
    ratio = ratios(seen[PLUGIN], seen[PEER], "rate")
    print(f"  with the plugin: {ratio.text('.2f')}x the logins of files+pap (bar {BAR_PAP}x)")
    print(f"  with the proxy: {ratios(seen[PROXY], seen[PEER], 'rate').text('.2f')}x")
    missed = bottlenecks([run for runs in seen.values() for run in runs])
    return [*missed, f"PAP through the plugin at {ratio.median:.2f}x"] if ratio.median < BAR_PAP else missed


def report_eap(seen: dict[str, list[Tunnels]]) -> list[str]:
    """Print a table; the bars that were missed."""
    print(f"  {'EAP-TTLS/PAP':28} {'logins/s':>26} {'CPU ms/login':>20} {'p50 ms':>8} {'p99 ms':>8}")
    for label, runs in seen.items():
        p50, p99 = Spread.of(runs, "p50_ms").median, Spread.of(runs, "p99_ms").median
        rate, cpu = Spread.of(runs, "rate").text(",.0f"), Spread.of(runs, "cpu_ms").text(".2f")
        print(f"  {label:28} {rate:>26} {cpu:>20} {p50:8.2f} {p99:8.2f}")
    missed: list[str] = []
    for label in (PLUGIN, PROXY):
        each_s = Spread.of(seen[label], "rate").median
        print(
            f"  {label}: {ratios(seen[label], seen[PEER_EAP], 'rate').text('.2f')}x the peer's logins,"
            f" {each_s:,.0f} a second on one core (bar {BAR_EAP_PER_S:.0f})"
        )
        if each_s < BAR_EAP_PER_S:
            missed.append(f"EAP-TTLS/PAP by {label} at {each_s:.0f} logins/s")
    # a client that is slower than the servers makes the figure smaller than it is, not larger
    return [*bottlenecks([run for runs in seen.values() for run in runs]), *missed] if missed else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=32_768)
    parser.add_argument("--logins", type=int, default=5_000, help="by PAP, each round")
    parser.add_argument("--tunnels", type=int, default=1_000, help="logins by EAP, each round")
    parser.add_argument("--at-once", type=int, default=8, help="conversations by EAP under way")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    server_cpu, client_cpu = processors()[:2]
    with stage(options.users) as here, ExitStack() as running:
        shared, authority = new_secret(here.folder), Authority(here.folder / "pki")
        cpus, users, path = [server_cpu], options.users, here.folder / "run" / "radius.sock"
        tunnelled = f"{{name: tunnel, network: 127.0.0.2/32, secret_file: {shared.file}, mode: auto, challenges: false}}"
        peer = running.enter_context(freeradius_files(here.folder / "freeradius", shared, users=users, cpus=cpus))
        eap = running.enter_context(peer_eap(here, shared, authority, users=users, cpus=cpus))
        mfad = running.enter_context(
            mfad_radius(here, shared, users=users, cpus=cpus, clients=[tunnelled], more=f"freeradius: {{socket: {path}}}")
        )
        plugin = running.enter_context(through_plugin(here, shared, authority, mfad, path, cpus=cpus))
        proxy = running.enter_context(through_proxy(here, shared, authority, mfad, path, cpus=cpus))
        generator = Generator(here.folder, shared, cpu=client_cpu)
        by_pap: dict[str, list[Run]] = {PEER: [], PLUGIN: [], PROXY: []}
        by_eap: dict[str, list[Tunnels]] = {PEER_EAP: [], PLUGIN: [], PROXY: []}
        for number in range(options.rounds + 1):  # the first is for the caches
            for server in (peer, plugin, proxy):
                run = generator.run(server, login_book(here.folder / "book", server.logins.take(options.logins), shared.value))
                all_accepted(run, server.label)
                if number:
                    by_pap[server.label].append(run)
            for server in (eap, plugin, proxy):
                logins = server.logins.take(options.tunnels)
                seen = tunnels(server, logins, shared, at_once=options.at_once, cpu=client_cpu)
                if number:
                    by_eap[server.label].append(seen)
    print(
        f"{options.rounds} rounds of {options.logins:,} logins by PAP ({SOCKETS} sockets with {OUTSTANDING} requests under way)"
        f" and {options.tunnels} by EAP (TLS 1.2, a P-256 certificate, {options.at_once} under way); FreeRADIUS and mfad on one"
        " core; median (least..most) of the rounds"
    )
    return conclude(report_pap(by_pap) + report_eap(by_eap))


if __name__ == "__main__":
    raise SystemExit(main())
