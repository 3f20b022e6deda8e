"""The commands of ``mfactl``, put together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mfactl import agent, audit, backup, creds, imports, init, keys, ldap, pam, policy, radius, recovery, status, store, users
from mfactl.doctor.command import doctor
from mfactl.enrol import confirm, enrol
from mfactl.session import CONFIG_VARIABLE, Options

app = typer.Typer(
    name="mfactl",
    help="Administer mfad: users, second factors, policy, audit, keys.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def configure(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", envvar=CONFIG_VARIABLE, help="The configuration file of mfad.")
    ] = None,
) -> None:
    """Administer mfad: users, second factors, policy, audit, keys."""
    context.obj = Options(config)


app.command("init")(init.init)
app.add_typer(users.app, name="user")
app.add_typer(creds.app, name="cred")
app.add_typer(imports.app, name="import")
app.add_typer(pam.app, name="pam")
app.add_typer(radius.app, name="radius")
app.add_typer(ldap.app, name="ldap")
app.add_typer(recovery.app, name="recovery")
app.add_typer(recovery.bypass_app, name="bypass")
app.add_typer(policy.app, name="policy")
app.add_typer(audit.app, name="audit")
app.add_typer(keys.app, name="key")
app.add_typer(store.app, name="store")
app.add_typer(agent.app, name="agent")
app.command("enrol")(enrol)
app.command("confirm")(confirm)
app.command("why")(audit.why)
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.command("status")(status.status)
app.command("doctor")(doctor)
