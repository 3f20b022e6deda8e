"""Options and arguments that several commands share, spelled once."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The user's login name.")]
Force = Annotated[bool, typer.Option("--force", help="Even if it leaves a required user without a factor.")]
CredentialId = Annotated[int, typer.Argument(metavar="ID", help="The number that `mfactl cred list` shows.")]
