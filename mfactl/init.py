"""``mfactl init``: make what is missing (configuration, key, store), bring an older store up to date, overwrite nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import typer

from mfactl.options import Json
from mfactl.output import say, say_json
from mfactl.session import SYSTEM_CONFIG, actor, credentials_directory, options_of, read_configuration, skeleton_for


def init(context: typer.Context, json: Json = False) -> None:
    """Make configuration, key and store where they are missing; bring an older store up to date."""
    done = {"config": _ensure_configuration(context)}
    config = read_configuration(context)
    from mfa_core.errors import ConfigurationError
    from mfa_runtime.key_file import KeyEncryptionKeys, load_key_source, new_key, write_key_file
    from mfa_runtime.store.creation import Created, ensure_store
    from mfa_runtime.store.database import STORE_FILE

    store_path = config.state_dir / STORE_FILE
    if config.key_source.startswith("systemd-creds:") or Path(config.key_source).exists():
        done["key"] = "present"
    elif store_path.exists():
        # A new key would open nothing and would hide that the right one is missing.
        raise ConfigurationError(
            f"{config.key_source}: there is no key file, but there is a store that needs one ({store_path})",
            cure="restore the key file from where it was kept; or move the store away to begin anew",
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
        store, created = ensure_store(config.state_dir, keks, now=now, random=os.urandom)
        done["store"] = created.value
        from mfa_runtime.administration.act import Act
        from mfa_runtime.store.key_table import load_keyring

        with store.writing() as connection:
            keyring = load_keyring(connection, keks, random=os.urandom)
            if created is Created.NEW:
                Act(actor(), now, os.urandom, keyring).record(connection, "store.create", str(store_path))
        store.close()
        belong_like(store_path, config.state_dir.stat())
    if json:
        say_json(done | {"state_dir": str(config.state_dir), "key_source": config.key_source})
        return
    say(f"configuration  {done['config']}")
    say(f"key            {config.key_source} ({done['key']})")
    say(f"store          {store_path} ({done['store']})")
    if done["key"] == "new":
        say("Copy the key file to a safe place apart from backups: without it the store cannot be read.")


def _ensure_configuration(context: typer.Context) -> str:
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
            out.write(skeleton_for(path))
    except FileExistsError:
        return f"{path} (present)"
    except OSError as err:
        raise ConfigurationError(
            f"{path}: cannot be written: {err.strerror}", cure="choose another place with --config"
        ) from err
    return f"{path} (new)"
