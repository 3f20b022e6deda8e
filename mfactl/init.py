"""``mfactl init``: make what is missing (configuration, key, store), bring an older store up to date, overwrite nothing."""

from __future__ import annotations

import enum
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mfa_core.errors import Conflict
from mfactl.options import Json
from mfactl.output import say, say_json
from mfactl.session import (
    SYSTEM_CONFIG,
    actor,
    administration_node,
    configuration_name,
    credentials_directory,
    options_of,
    read_configuration,
    skeleton_for,
)

if TYPE_CHECKING:
    from mfa_runtime.config import Config


class RoleWord(enum.StrEnum):
    """Of :class:`mfa_runtime.config.sections.Role`."""

    STANDALONE = "standalone"
    AUTHORITY = "authority"
    AGENT = "agent"


def init(
    context: typer.Context,
    role: Annotated[RoleWord | None, typer.Option(help="For a new configuration: what this installation is.")] = None,
    json: Json = False,
) -> None:
    """Make configuration, key and store where they are missing; bring an older store up to date."""
    done = {"config": _ensure_configuration(context, role or RoleWord.STANDALONE)}
    config = read_configuration(context)
    if role is not None and config.role.value != role.value:
        raise Conflict(
            f"{configuration_name(context)} says role: {config.role}, and --role says {role}",
            cure="change `role` in the file (config/authority.yaml and config/agent.yaml show the keys), then run this again",
        )
    from mfa_core.errors import ConfigurationError
    from mfa_runtime.config.sections import Role
    from mfa_runtime.key_file import KeyEncryptionKeys, load_key_source, new_key, write_key_file
    from mfa_runtime.store.creation import Created, ensure_store

    place = config.store_place
    if config.key_source.startswith("systemd-creds:") or Path(config.key_source).exists():
        done["key"] = "present"
    elif place.file is not None and place.file.exists():
        # A new key would open nothing and would hide that the right one is missing.
        raise ConfigurationError(
            f"{config.key_source}: there is no key file, but there is a store that needs one ({place})",
            cure="restore the key file from where it was kept; or move the store away to begin anew",
        )
    elif not place.is_file and _is_there(config):
        raise ConfigurationError(
            f"{config.key_source}: there is no key file, but there is a store that needs one ({place})",
            cure="copy the key file from the machine that made the store; or name an empty database to begin anew",
        )
    else:
        path = Path(config.key_source)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_key_file(path, KeyEncryptionKeys((new_key(os.urandom),)))
        done["key"] = "new"
    from mfa_runtime.ownership import belong_like
    from mfa_runtime.state_lock import StateLock

    keks = load_key_source(config.key_source, credentials_directory=credentials_directory())
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with StateLock(config.state_dir).shared():
        now = time.time()
        store, created = ensure_store(place, keks, now=now, random=os.urandom)
        done["store"] = created.value
        from mfa_runtime.administration.act import Act
        from mfa_runtime.store.key_table import load_keyring
        from mfa_runtime.store_role import check_role

        node = administration_node(store)
        with store.writing() as connection:
            keyring = load_keyring(connection, keks, random=os.urandom)
            check_role(connection, config.role)
            if created is Created.NEW:
                Act(actor(), now, os.urandom, keyring, node).record(connection, "store.create", str(place))
        if config.role is Role.AUTHORITY:
            from authority.own_keys import ensure_authority

            new = ensure_authority(store, Act(actor(), now, os.urandom, keyring, node))
            done["authority"] = "new" if new else "present"
        store.close()
        if place.file is not None:
            belong_like(place.file, config.state_dir.stat())
    if json:
        say_json(done | {"state_dir": str(config.state_dir), "key_source": config.key_source})
        return
    say(f"configuration  {done['config']}")
    say(f"key            {config.key_source} ({done['key']})")
    say(f"store          {place} ({done['store']})")
    if "authority" in done:
        say(f"authority      CA and signing key ({done['authority']})")
    if done["key"] == "new":
        say("Copy the key file to a safe place apart from backups: without it the store cannot be read.")
    if config.role is Role.AGENT:
        say("Next: mfactl agent join https://NAME:PORT, with the token that `mfactl agent token` prints at the authority")


def _is_there(config: Config) -> bool:
    """Whether the database holds a store, of whichever version."""
    from mfa_runtime.store.database import connect_to
    from mfa_runtime.store.versions import has_schema

    store = connect_to(config.store_place)
    try:
        return has_schema(store)
    finally:
        store.close()


def _ensure_configuration(context: typer.Context, role: RoleWord) -> str:
    wanted = options_of(context).config
    if wanted is None and SYSTEM_CONFIG.exists():
        return f"{SYSTEM_CONFIG} (present)"
    path = Path("mfad.yaml") if wanted is None else wanted
    if path.exists():
        return f"{path} (present)"
    from mfa_core.errors import ConfigurationError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as out:
            out.write(skeleton_for(path, role))
    except FileExistsError:
        return f"{path} (present)"
    except OSError as err:
        raise ConfigurationError(
            f"{path}: cannot be written: {err.strerror}", cure="choose another place with --config"
        ) from err
    return f"{path} (new)"
