"""``mfactl import``: credentials of other products. Nothing is imported twice, so a broken import is simply run again."""

from __future__ import annotations

import json as json_text
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from mfa_core.errors import InvalidInput
from mfa_core.oath import MIN_LEGACY_SECRET_BITS, MIN_SECRET_BITS
from mfactl.exit_codes import ExitCode
from mfactl.options import Json
from mfactl.output import note, printable, say, say_json

if TYPE_CHECKING:
    from mfa_runtime.administration.importing import RowOutcome
    from mfa_runtime.imports.row import ImportRow

app = typer.Typer(help="Import credentials of other products.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The file to read; - for standard input.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Do all of it and keep nothing.")]
Legacy = Annotated[
    bool, typer.Option("--allow-legacy-secrets", help="Take secrets of 80 to 111 bits too (NIST asks for 112).")
]
Report = Annotated[Path | None, typer.Option("--report", help="A new file for one line of JSON for each row.")]

_SHOWN_PROBLEMS = 20


@app.command("google-authenticator")
def google_authenticator(
    context: typer.Context,
    file: File,
    user: Annotated[str | None, typer.Option(help="Whose file it is; the name of its folder when left out.")] = None,
    dry_run: DryRun = False,
    allow_legacy_secrets: Legacy = False,
    report: Report = None,
    json: Json = False,
) -> None:
    """Import a ~/.google_authenticator."""
    from mfa_runtime.imports.google_authenticator import parse_google_authenticator

    owner = user if user is not None else file.absolute().parent.name
    bits = _minimum_bits(allow_legacy_secrets)
    _run(
        context, file, lambda stream: parse_google_authenticator(stream, owner, minimum_bits=bits), "google-authenticator",
        dry_run=dry_run, report=report, json=json,
    )  # fmt: skip


@app.command("otpauth")
def otpauth(
    context: typer.Context,
    file: File,
    dry_run: DryRun = False,
    allow_legacy_secrets: Legacy = False,
    report: Report = None,
    json: Json = False,
) -> None:
    """Import otpauth:// URIs, one a line; the account in the label is the user."""
    from mfa_runtime.imports.otpauth_list import parse_otpauth_list

    bits = _minimum_bits(allow_legacy_secrets)
    _run(
        context, file, lambda stream: parse_otpauth_list(stream, minimum_bits=bits), "otpauth",
        dry_run=dry_run, report=report, json=json,
    )  # fmt: skip


@app.command("oath-users")
def oath_users(
    context: typer.Context,
    file: File,
    dry_run: DryRun = False,
    allow_legacy_secrets: Legacy = False,
    report: Report = None,
    json: Json = False,
) -> None:
    """Import the usersfile of pam_oath (/etc/users.oath)."""
    from mfa_runtime.imports.oath_users import parse_oath_users

    bits = _minimum_bits(allow_legacy_secrets)
    _run(
        context, file, lambda stream: parse_oath_users(stream, minimum_bits=bits), "oath-users",
        dry_run=dry_run, report=report, json=json,
    )  # fmt: skip


@app.command("csv")
def csv(
    context: typer.Context,
    file: File,
    columns: Annotated[
        str | None,
        typer.Option(
            help="What the columns are, when there is no header: user,secret,type,digest,digits,period,counter,label,groups,"
            "period_or_counter, and - for others."
        ),
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="How secrets are written: base32, hex or base64.")] = None,
    dry_run: DryRun = False,
    allow_legacy_secrets: Legacy = False,
    report: Report = None,
    json: Json = False,
) -> None:
    """Import a table with commas: with a header, or the OATH CSV (serial, secret, type, digits, period or counter)."""
    from mfa_runtime.imports.csv_table import Column, Encoding, parse_csv

    try:
        layout = None if columns is None else tuple(Column(word.strip().lower()) for word in columns.split(","))
        written = None if encoding is None else Encoding(encoding.lower())
    except ValueError as err:
        raise InvalidInput(str(err), cure=f"columns: {', '.join(Column)}; encodings: {', '.join(Encoding)}") from err
    bits = _minimum_bits(allow_legacy_secrets)
    _run(
        context, file, lambda stream: parse_csv(stream, columns=layout, encoding=written, minimum_bits=bits), "csv",
        dry_run=dry_run, report=report, json=json,
    )  # fmt: skip


def _minimum_bits(allow_legacy_secrets: bool) -> int:
    return MIN_LEGACY_SECRET_BITS if allow_legacy_secrets else MIN_SECRET_BITS


def _run(
    context: typer.Context,
    file: Path,
    parse: Callable[[BinaryIO], Iterator[ImportRow]],
    kind: str,
    *,
    dry_run: bool,
    report: Path | None,
    json: bool,
) -> None:
    from mfa_runtime.administration.importing import RowStatus, import_rows
    from mfactl.progress import progress
    from mfactl.session import open_session

    counted: Counter[str] = Counter()
    shown: list[RowOutcome] = []
    with ExitStack() as stack:
        stream, size = stack.enter_context(_opened(file))
        lines = stack.enter_context(_report_file(report)) if report is not None else None
        session = stack.enter_context(open_session(context))
        session.refuse_on_agent()
        advance = stack.enter_context(progress(f"import {kind}", size))

        def hear(outcomes: Sequence[RowOutcome]) -> None:
            for outcome in outcomes:
                counted[outcome.status] += 1
                if outcome.message and len(shown) < _SHOWN_PROBLEMS:
                    shown.append(outcome)
                if lines is not None:
                    lines(outcome)
            advance(stream.tell() if size is not None else 0, f"{sum(counted.values()):,} rows")

        counts = import_rows(
            session.store, session.act, parse(stream), rules=session.config.identity, source=f"{kind} {file.name}",
            dry_run=dry_run, report=hear,
        )  # fmt: skip
    for outcome in shown:
        note(f"{printable(str(file))}:{outcome.line}: {outcome.status}: {printable(outcome.message)}")
    hidden = counted[RowStatus.PROBLEM] + counted[RowStatus.NOTE] - len(shown)
    if hidden > 0:
        note(f"... and {hidden:,} more; --report FILE has every row")
    if any(f"expected at least {MIN_SECRET_BITS}" in outcome.message for outcome in shown):
        note("  cure: --allow-legacy-secrets takes short secrets too; better, enrol these users anew")
    if json:
        say_json(
            {
                "imported": counts.imported,
                "present": counts.present,
                "problems": counts.problems,
                "users_added": counts.users_added,
                "dry_run": dry_run,
            }
        )
    else:
        say(
            f"{'would import' if dry_run else 'imported'} {counts.imported:,} credentials ({counts.users_added:,} new users), "
            f"{counts.present:,} were there already, {counts.problems:,} with problems"
        )
    if counts.problems:
        raise typer.Exit(ExitCode.REFUSED)


@contextmanager
def _opened(file: Path) -> Iterator[tuple[BinaryIO, int | None]]:
    if str(file) == "-":
        yield sys.stdin.buffer, None
        return
    try:
        stream = file.open("rb")
    except OSError as err:
        raise InvalidInput(f"{file}: cannot be read: {err.strerror}", cure="give a file that you may read") from err
    with stream:
        yield stream, file.stat().st_size if file.is_file() else None


@contextmanager
def _report_file(path: Path) -> Iterator[Callable[[RowOutcome], None]]:
    try:
        out = path.open("x", encoding="ascii")
    except OSError as err:
        raise InvalidInput(f"{path}: cannot be written: {err.strerror}", cure="name a file that is not there yet") from err
    with out:
        yield lambda outcome: print(
            json_text.dumps(
                {"line": outcome.line, "status": outcome.status, "user": outcome.user, "message": outcome.message}
            ),
            file=out,
        )
