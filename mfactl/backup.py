"""``mfactl backup`` and ``mfactl restore``."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mfa_core.errors import InvalidInput
from mfactl.options import Json
from mfactl.output import moment, printable, say, say_json
from mfactl.session import actor, credentials_directory, open_session, read_configuration

File = Annotated[Path, typer.Argument(metavar="FILE")]


def backup(
    context: typer.Context,
    file: File,
    json: Json = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
) -> None:
    """Write the whole store to FILE while mfad runs. The key file is not in it: keep that elsewhere."""
    from mfa_runtime.administration.backup import back_up

    with open_session(context) as session:
        report = back_up(session.store, session.act(), file, force=force)
        source = session.config.key_source
    if json:
        say_json(
            {"file": str(file), "bytes": report.bytes, "store_id": report.store_id, "generation": report.generation}
        )
    else:
        say(f"{file}: {report.bytes:,} bytes. It opens only with the key of {source}, which is not in it.")


def restore(context: typer.Context, file: File, json: Json = False) -> None:
    """Put a backup in the place of the store; mfad must be stopped. No code that was used comes back to life."""
    from mfa_runtime.administration.restore import restore as put_back
    from mfa_runtime.key_file import load_key_source
    from mfa_runtime.state_lock import StateLock

    config = read_configuration(context)
    if not config.store_place.is_file:
        raise InvalidInput(
            f"the store is a database: {config.store_place}",
            cure="put the dump back with pg_restore, then run `mfactl store restored`, which spends old codes",
        )
    keks = load_key_source(config.key_source, credentials_directory=credentials_directory())
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with StateLock(config.state_dir).exclusive():
        report = put_back(
            config.state_dir,
            file,
            keks,
            actor=actor(),
            now=time.time(),
            random=os.urandom,
            window=config.totp.window,
            max_drift=config.totp.max_drift,
        )
    if json:
        say_json(
            {
                "generation": report.generation,
                "users": report.users,
                "replaced_store_was_read": report.present_known,
                "totp_usable_from": int(report.usable_from),
                "suspended": list(report.suspended),
                "without_recovery_codes": list(report.without_codes),
                "without_factor": list(report.without_factor),
                "bypass_codes_revoked": report.bypass_revoked,
                "hosts_in_quarantine": list(report.quarantined),
                "replaced_store": None if report.kept is None else str(report.kept),
            }
        )
        return
    say(f"Restored {report.users:,} users (generation {report.generation}). TOTP works from {moment(report.usable_from)}.")
    if not report.present_known:
        say("The store as it was could not be read: all recovery and bypass codes are revoked, counter tokens suspended.")
    _users("Counter tokens to bring back with `mfactl cred resync ID`", report.suspended)
    _users("Users without recovery codes (`mfactl recovery new NAME`)", report.without_codes)
    _users("Users whose factor is newer than the backup (`mfactl enrol NAME`)", report.without_factor)
    _users("Hosts in quarantine (`mfactl agent release HOST`)", report.quarantined)
    if report.bypass_revoked:
        say(f"{report.bypass_revoked} bypass codes are revoked.")
    if report.kept is not None:
        say(f"The store as it was: {report.kept}")


def _users(what: str, names: Sequence[str]) -> None:
    if names:
        say(f"{what}: {len(names):,}")
        for name in names:
            say(f"  {printable(name)}")
