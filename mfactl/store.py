"""``mfactl store``: where the store is; how it comes into another database; what to do after a database was restored."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mfa_core.errors import Conflict, InvalidInput
from mfactl.options import Json
from mfactl.output import moment, say, say_json
from mfactl.progress import progress
from mfactl.session import actor, administration_node, credentials_directory, open_session, read_configuration

if TYPE_CHECKING:
    from mfa_runtime.store.database import Store
    from mfa_runtime.store.place import StorePlace

app = typer.Typer(help="Where the store is, and how to move it to another database.", no_args_is_help=True)
SQLITE = "sqlite"


@app.command()
def status(context: typer.Context, json: Json = False) -> None:
    """Show where the store is, how large it is, and what its server says of itself."""
    from mfa_runtime.administration.census import count
    from mfa_runtime.store.database import STORE_FILE
    from mfa_runtime.store.versions import SCHEMA

    with open_session(context) as session:
        began = time.monotonic()
        with session.reading() as connection:
            census = count(connection)
        took_ms = (time.monotonic() - began) * 1000
        found: dict[str, object] = {
            "store": str(session.store),
            "kind": SQLITE if session.store.path else "postgresql",
            "store_id": census.store_id,
            "generation": census.generation,
            "schema": SCHEMA,
            "users": sum(census.users.values()),
            "audit_events": census.events,
            "read_ms": round(took_ms, 1),
        }
        if session.store.path is not None:
            files = [session.store.path.with_name(STORE_FILE + end) for end in ("", "-wal")]
            found["bytes"] = sum(file.stat().st_size for file in files if file.exists())
        else:
            found |= _server(session.store) | {"sslmode": session.config.store_place.ssl_mode}
    if json:
        say_json(found)
        return
    for name, value in found.items():
        shown = f"{value:,}" if isinstance(value, int) else ", ".join(value) if isinstance(value, list) else value
        say(f"{name.replace('_', ' '):19} {shown if shown != '' else 'none'}")


def _server(store: Store) -> dict[str, object]:
    from mfa_runtime.store.postgresql import ServerStore

    if not isinstance(store, ServerStore):
        return {}
    facts = store.facts()
    return {
        "bytes": facts.bytes,
        "server": facts.version,
        "synchronous_commit": facts.synchronous_commit,
        "others": list(facts.others),
        "standbys": [f"{name} ({state})" for name, state in facts.standbys],
    }


@app.command()
def migrate(
    context: typer.Context,
    to: Annotated[str, typer.Option("--to", metavar="URL", help="postgresql://USER@HOST/DATABASE, or `sqlite`.")],
    password_file: Annotated[Path | None, typer.Option(help="The file that holds the password of the new database.")] = None,
    json: Json = False,
) -> None:
    """Copy the store into another database; mfad must be stopped. Run it again if it broke off."""
    from mfa_runtime.administration.act import Act
    from mfa_runtime.key_file import load_key_source
    from mfa_runtime.ownership import belong_like
    from mfa_runtime.state_lock import StateLock
    from mfa_runtime.store.creation import make_schema
    from mfa_runtime.store.key_table import load_keyring
    from mfa_runtime.store.opening import open_store
    from mfa_runtime.store.transfer import transfer
    from mfa_runtime.upkeep import HighWater

    config = read_configuration(context)
    old, new = config.store_place, _target(config.store_place, to, password_file)
    if old.url == new.url:
        raise InvalidInput(f"{new}: is the store itself", cure="name another database; `mfactl store status` shows this one")
    keks = load_key_source(config.key_source, credentials_directory=credentials_directory())
    with StateLock(config.state_dir).exclusive(), ExitStack() as stack:
        source = stack.enter_context(closing(open_store(old)))
        _refuse_others(source)
        target = stack.enter_context(closing(make_schema(new)))
        with progress("copying", 1.0) as advance:
            done = transfer(
                source,
                target,
                advance=lambda table, rows, total: advance(rows / max(1, total), f"{table} {rows:,} of {total:,}"),
            )
        with target.writing() as connection:
            keyring = load_keyring(connection, keks, random=os.urandom)
            act = Act(actor(), time.time(), os.urandom, keyring, administration_node(target))
            act.record(connection, "store.migrate", str(target), source=str(source), rows=done.total)
        # The old store has fewer events from here on: mfad of this machine does not start on it any more.
        HighWater(config.state_dir).write(target)
        if new.file is not None:
            belong_like(new.file, config.state_dir.stat())
    if json:
        say_json({"from": str(old), "to": str(new), "rows": done.rows, "resumed_at": done.resumed})
        return
    say(f"Copied and compared {done.total:,} rows" + (f" ({done.resumed:,} from an earlier run)." if done.resumed else "."))
    say(f"Now set store.url to {to!r}{_and_password(password_file)} on every authority, then start mfad."
        if new.file is None else "Now take store.url out of the configuration, then start mfad.")  # fmt: skip
    say(f"The old store stays where it is ({old}). No mfad may run on it again: codes used since then would count once more.")


def _and_password(password_file: Path | None) -> str:
    return "" if password_file is None else f" and store.password_file to {str(password_file)!r}"


def _target(old: StorePlace, to: str, password_file: Path | None) -> StorePlace:
    from pydantic import ValidationError

    from mfa_runtime.config.notation import Unfit
    from mfa_runtime.config.store_section import StoreSection
    from mfa_runtime.store.place import StorePlace

    try:
        given = {} if password_file is None else {"password_file": str(password_file.absolute())}
        section = StoreSection.model_validate({"url": "" if to == SQLITE else to} | given)
    except ValidationError as err:
        for one in err.errors():
            unfit = one.get("ctx", {}).get("error")
            if isinstance(unfit, Unfit):
                raise InvalidInput(f"--to: saw {unfit.seen}, expected {unfit.expected}", cure=unfit.cure) from None
        raise
    return StorePlace(old.state_dir, section.url, section.password_file, old.connections, old.timeout_s)


def _refuse_others(store: Store) -> None:
    """A lock of this machine knows nothing of mfads on other ones."""
    others = _server(store).get("others")
    if isinstance(others, list) and others:
        raise Conflict(f"{store}: is in use by {', '.join(others)}", cure="stop mfad on every authority, then try again")


@app.command()
def restored(context: typer.Context, json: Json = False) -> None:
    """After a restore of the database by its own tools: spend what may have been used since. mfad must be stopped."""
    from mfa_runtime.administration.restore import settle_restored
    from mfa_runtime.key_file import load_key_source
    from mfa_runtime.state_lock import StateLock
    from mfa_runtime.store.opening import open_store
    from mfa_runtime.upkeep import HighWater

    config = read_configuration(context)
    if config.store_place.is_file:
        raise InvalidInput("the store is a file", cure="put a backup back with `mfactl restore FILE`, which does this as well")
    keks = load_key_source(config.key_source, credentials_directory=credentials_directory())
    with StateLock(config.state_dir).exclusive(), closing(open_store(config.store_place)) as store:
        _refuse_others(store)
        report = settle_restored(
            store, keks, actor=actor(), now=time.time(), random=os.urandom, node=administration_node(store),
            window=config.totp.window, max_drift=config.totp.max_drift,
        )  # fmt: skip
        HighWater(config.state_dir).write(store)
    if json:
        say_json(
            {
                "generation": report.generation,
                "users": report.users,
                "totp_usable_from": int(report.usable_from),
                "suspended": list(report.suspended),
                "without_recovery_codes": list(report.without_codes),
                "bypass_codes_revoked": report.bypass_revoked,
                "quarantined_hosts": list(report.quarantined),
            }
        )
        return
    say(f"{report.users:,} users (generation {report.generation}). TOTP works from {moment(report.usable_from)}.")
    say("What the database held before is not known: all recovery and bypass codes are revoked, counter tokens suspended.")
    if report.suspended:
        say(f"Counter tokens to bring back with `mfactl cred resync ID`: {', '.join(report.suspended)}")
    if report.quarantined:
        say(f"Hosts in quarantine until `mfactl agent release HOST`: {', '.join(report.quarantined)}")
