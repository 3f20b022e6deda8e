"""``mfactl key``: which keys there are, and new ones, while mfad runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mfa_core.errors import Conflict, InvalidInput
from mfactl.options import Json
from mfactl.output import moment, say, say_columns, say_json
from mfactl.progress import progress
from mfactl.session import credentials_directory, open_session

app = typer.Typer(help="Keys: status, rotate.", no_args_is_help=True)


@app.command()
def status(context: typer.Context, json: Json = False) -> None:
    """Show the keys of the store, without the keys, and how many secrets each seals."""
    from mfa_runtime.administration.keys import report_keys
    from mfa_runtime.key_file import load_key_source

    with open_session(context) as session, session.reading() as connection:
        source = session.config.key_source
        keks = load_key_source(source, credentials_directory=credentials_directory())
        report = report_keys(connection, keks)
    if json:
        say_json(
            {
                "key_source": source,
                "key_encryption_keys": list(report.kek_ids),
                "unfinished_rotation": report.unfinished,
                "keys": [
                    {
                        "number": key.number,
                        "purpose": key.purpose,
                        "state": key.state,
                        "wrapped_under": key.kek_id,
                        "created_at": int(key.created_at),
                        "secrets": report.rows.get(key.number, 0),
                    }
                    for key in report.keys
                ],
            }
        )
        return
    say(f"key-encryption key  {', '.join(report.kek_ids)} ({source})")
    say_columns(
        ("KEY", "PURPOSE", "STATE", "WRAPPED UNDER", "CREATED", "SECRETS"),
        (
            (str(k.number), k.purpose, k.state, k.kek_id, moment(k.created_at), str(report.rows.get(k.number, 0)))
            for k in report.keys
        ),
    )
    if report.unfinished:
        say("A rotation broke off: run `mfactl key rotate` (with --data, if secrets stand under a retired key) to finish it.")


@app.command()
def rotate(
    context: typer.Context,
    data: Annotated[bool, typer.Option("--data", help="A new data key too: every secret is sealed anew.")] = False,
    save_old: Annotated[
        Path | None, typer.Option("--save-old", help="Keep the present key file here: older backups need it.")
    ] = None,
    json: Json = False,
) -> None:
    """Replace the key-encryption key while mfad runs. A rotation that broke off is finished by running it again."""
    from mfa_runtime.administration.act import Act
    from mfa_runtime.administration.keys import rotate_data_key, rotate_kek
    from mfa_runtime.key_file import load_key_source, write_key_file
    from mfa_runtime.sealing import key_id
    from mfa_runtime.state_lock import ROTATION_LOCK_FILE, StateLock

    with open_session(context) as session, StateLock(session.config.state_dir, ROTATION_LOCK_FILE).exclusive():
        source, shared = session.config.key_source, session.store.several_writers
        if source.startswith("systemd-creds:"):
            raise Conflict(
                f"key: {source} is kept by systemd and cannot be replaced from here",
                cure="write a key file, make a new credential of it with `systemd-creds encrypt`, and restart mfad",
            )
        keks = load_key_source(source, credentials_directory=credentials_directory())
        if save_old is not None:
            if save_old.exists():
                raise InvalidInput(f"{save_old}: is there already", cure="name a file that is not there yet")
            write_key_file(save_old, keks)
        resumed = len(keks.keys) > 1
        after = rotate_kek(session.store, session.act(), keks, Path(source))
        number = None
        if data:
            with progress("sealing secrets anew", 1.0) as advance:
                number = rotate_data_key(
                    session.store,
                    after,
                    lambda ring: Act(session.actor, session.clock(), os.urandom, ring),
                    random=os.urandom,
                    advance=lambda done, total: advance(done / max(1, total), f"{done:,} of {total:,}"),
                )
    if json:
        say_json({"key_encryption_key": key_id(after.current), "data_key": number, "finished_an_earlier_rotation": resumed})
        return
    say(f"key-encryption key {key_id(after.current)}{' (finished an earlier rotation)' if resumed else ''}: copy {source} away")
    if number is not None:
        say(f"data key {number}: every secret is sealed under it")
    if shared:
        say(f"Copy {source} to every other authority of this store now: with the old one mfad does not start there.")
    if save_old is None:
        say("Backups made before this need the key file as it was before: make a new backup now.")
