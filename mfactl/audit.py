"""``mfactl audit`` and ``mfactl why``: what happened, is the record whole, and why was somebody refused?"""

from __future__ import annotations

import json as json_text
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfa_core.errors import InvalidInput, NotFound
from mfactl.exit_codes import ExitCode
from mfactl.options import Json
from mfactl.output import counted, moment, note, printable, say, say_json, say_json_list

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mfa_runtime.store.audit_log import Entry

app = typer.Typer(help="The audit log: tail, verify, export.", no_args_is_help=True)

FOLLOW_EVERY_S = 0.5
_PAGE = 500


@app.command()
def tail(
    context: typer.Context,
    number: Annotated[int, typer.Option("-n", "--number", min=1, max=100_000, help="How many events.")] = 20,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Wait for more.")] = False,
    json: Json = False,
) -> None:
    """Show the newest events."""
    from mfa_runtime.store import audit_log
    from mfactl.session import open_session

    with open_session(context) as session:
        with session.reading() as connection:
            entries = audit_log.tail(connection, limit=number)
            of_host = {entry.node: _from_host(connection, entry.node) for entry in entries}
            # Chains that come up later (another machine's, a host's journal) are followed from their beginning.
            places = _heads(connection)
        if json and not follow:
            say_json_list(json_text.loads(entry.body) for entry in entries)
            return
        while True:
            for entry in entries:
                places[entry.node] = entry.seq
                # Followed, JSON comes a line an event: a list has no end.
                say(entry.body if json else _line(entry, of_host[entry.node]))
            if not follow:
                return
            sys.stdout.flush()
            if not entries:
                time.sleep(FOLLOW_EVERY_S)
            with session.reading() as connection:
                grown = [node for node, seq in _heads(connection).items() if seq > places.get(node, 0)]
                entries = [
                    entry
                    for node in grown
                    for entry in audit_log.tail(connection, limit=_PAGE, after=(node, places.get(node, 0)))
                ]
                of_host = {entry.node: _from_host(connection, entry.node) for entry in entries}


@app.command()
def verify(context: typer.Context, json: Json = False) -> None:
    """Walk every chain of events: nothing missing, changed, moved or cut off; and no watermark lies behind what it tells."""
    from mfa_runtime.store import audit_log
    from mfa_runtime.store.divergence import find_rolled_back
    from mfactl.session import open_session

    with open_session(context) as session, session.reading() as connection:
        chains = list(audit_log.verify(connection, keyring=session.keyring))
        if rolled_back := find_rolled_back(connection):
            chains.append(audit_log.ChainReport("(rows)", 0, tuple(rolled_back)))
    if json:
        say_json_list({"node": c.node, "events": c.events, "problems": list(c.problems)} for c in chains)
    else:
        for chain in chains:
            say(f"{chain.node}: {counted(chain.events, 'event')}, {'whole' if not chain.problems else 'BROKEN'}")
            for problem in chain.problems:
                note(f"  {problem}")
    if any(chain.problems for chain in chains):
        raise typer.Exit(ExitCode.REFUSED)


@app.command()
def export(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A new file; standard output when left out.")] = None,
) -> None:
    """Write every event as one line of JSON, with its place in the chain and its hash."""
    from mfa_runtime.store import audit_log
    from mfactl.session import open_session

    try:
        out = sys.stdout if file is None else file.open("x", encoding="ascii")
    except OSError as err:
        raise InvalidInput(f"{file}: cannot be written: {err.strerror}", cure="name a file that is not there yet") from err
    count = 0
    try:
        with open_session(context) as session, session.reading() as connection:
            for entry in audit_log.every(connection):
                # The body stands in as it is: its hash is over this very text.
                out.write(
                    f'{{"node":{json_text.dumps(entry.node)},"seq":{entry.seq},"hash":"{entry.hash.hex()}","body":{entry.body}}}\n'
                )
                count += 1
    finally:
        if out is not sys.stdout:
            out.close()
    if file is not None:
        say(counted(count, "event"))


def why(
    context: typer.Context,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The id that the log or the refused person has.")],
    json: Json = False,
) -> None:
    """Say what happened in one attempt or change, and what to do about it."""
    from mfa_runtime.store import audit_log
    from mfactl.reasons import advice
    from mfactl.session import open_session

    with open_session(context) as session, session.reading() as connection:
        entries = list(audit_log.find(connection, event.strip().upper())) or list(audit_log.find(connection, event.strip()))
        found = [_from_host(connection, entry.node) | json_text.loads(entry.body) for entry in entries]
    if not found:
        raise NotFound(
            f"there is no event {event[:64]!a}",
            cure="see `mfactl audit tail`; binds over LDAP of which no code was asked stand in bind_log alone",
        )
    if json:
        say_json([body | {"advice": advice(body).meaning, "cure": advice(body).cure} for body in found])
        return
    for index, body in enumerate(found):
        if index:
            say()
        for key, value in body.items():
            shown = moment(float(value)) if key == "at" else printable(_words(value) if isinstance(value, dict) else str(value))
            say(f"{key:<12}{shown}")
        told = advice(body)
        say(f"{'meaning':<12}{told.meaning}")
        if told.cure:
            say(f"{'cure':<12}{told.cure}")


def _heads(connection: Connection) -> dict[str, int]:
    """How far each chain goes."""
    from sqlalchemy import select

    from mfa_runtime.store.schema import audit_head

    return {node: int(seq) for node, seq in connection.execute(select(audit_head.c.node, audit_head.c.seq))}


def _from_host(connection: Connection, node: str) -> dict[str, Any]:
    """Whose journal an event came with, at an authority; nothing for an event of this machine."""
    from mfa_runtime.store import hosts

    number = node.removeprefix("host:").partition(":")[0]
    if number == node or not number.isdigit():
        return {}
    host = hosts.find(connection, int(number))
    return {"host": f"number {number}" if host is None else host.name}


def _words(details: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in details.items())


def _line(entry: Entry, of_host: dict[str, Any]) -> str:
    body: dict[str, Any] = json_text.loads(entry.body)
    at, ident = moment(float(body.get("at", 0))), str(body.get("id", ""))
    if body.get("event") == "admin":
        words = f"{body.get('actor')} {body.get('action')} {body.get('subject', '')} {_words(body.get('details', {}))}"
    else:
        words = (
            f"{body.get('outcome')} {body.get('reason', '')} {body.get('user')} {body.get('door')}/{body.get('service')}"
            f" {body.get('source', '')} {body.get('factor', '')} {body.get('rule', '')}"
        )
    journal = f" (journal of {of_host['host']})" if of_host else ""
    return printable(f"{at}  {ident}  {' '.join(words.split())}{journal}")
