"""The section ``store``: a file of this host, or a PostgreSQL database that several authorities share.

Room rule: text in, checked keys out. Nothing is opened or asked here; how a connection is made of these keys is the business of
:mod:`mfa_runtime.store.place`.
"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BeforeValidator, model_validator

from mfa_runtime.config.notation import Place, Unfit, duration, whole
from mfa_runtime.config.section import Section, written

SCHEMES = ("postgresql", "postgres")
PARAMETERS = ("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "channel_binding", "host", "port")
"""What may stand behind the question mark: where the server is, and how it proves who it is. The rest is mfad's to set."""
SSL_MODES = ("disable", "require", "verify-ca", "verify-full")
MAX_URL = 1024
_EXPECTED = "a URL such as postgresql://mfad@db.example.org/mfad, or nothing for SQLite in state_dir"
_HOSTS = re.compile(r"(?:(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?(?:,(?=.)|$)){0,16}").fullmatch


def _url(value: object) -> str:
    if value is None or value == "":
        return ""
    # What is shown of a URL that is no good must not hold a password: no part of it is.
    if not isinstance(value, str) or len(value) > MAX_URL or not value.isprintable() or any(c.isspace() for c in value):
        raise Unfit(_EXPECTED, seen="something else")
    try:
        parts = urlsplit(value)
    except ValueError:
        raise Unfit(_EXPECTED, seen="no URL") from None
    if parts.scheme not in SCHEMES:
        raise Unfit(_EXPECTED, "mfad keeps its store in SQLite or PostgreSQL", seen=f"{parts.scheme or 'no'} scheme")
    user, at, hosts = parts.netloc.rpartition("@")
    if ":" in user:
        raise Unfit("no password in the URL", "write it to a file that only mfad can read, and name that in password_file",
                    seen="a password")  # fmt: skip
    if at and not user:
        raise Unfit(_EXPECTED, seen="an empty user")
    if not _HOSTS(hosts):
        raise Unfit("hosts such as db.example.org:5432, or several with commas between", seen="no such host")
    if any(not 1 <= int(port) <= 65_535 for port in re.findall(r":([0-9]{1,5})(?=,|$)", hosts)):
        raise Unfit("a port from 1 to 65535", seen="another port")
    if parts.fragment or not unquote(parts.path).strip("/") or "/" in unquote(parts.path)[1:]:
        raise Unfit(_EXPECTED, "name the database behind the host: .../mfad", seen="no database")
    _check_parameters(parts.query)
    return value


def _check_parameters(query: str) -> None:
    try:
        given = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=len(PARAMETERS))
    except ValueError:
        raise Unfit("NAME=VALUE behind the question mark", seen="something else") from None
    for name, value in given:
        if name in {"password", "passfile", "service", "sslpassword"}:
            raise Unfit("no password in the URL", "name the file that holds it in password_file", seen=name)
        if name not in PARAMETERS:
            shown = name if name.replace("_", "").isalpha() else "another"
            raise Unfit(f"one of {', '.join(PARAMETERS)} behind the question mark", seen=shown)
        if not value:
            raise Unfit(f"a value for {name}", seen=f"an empty {name}")
        if name == "sslmode" and value not in SSL_MODES:
            # prefer and allow look safe and are not: whoever stands in between turns TLS off.
            raise Unfit(f"sslmode={', '.join(SSL_MODES)}", seen="another sslmode")


class StoreSection(Section):
    """Where users, credentials and the audit log are kept. ``url`` "" is SQLite in ``state_dir``; ``timeout`` is seconds.

    ``connections`` is how many PostgreSQL connections this process keeps for administration and synchronisation; the logins
    have two of their own. ``timeout`` bounds connecting, waiting for a lock and each statement of a login.
    """

    url: Annotated[str, BeforeValidator(_url)] = ""
    password_file: Place | None = None
    connections: Annotated[int, whole(2, 100)] = 8
    timeout: Annotated[int, duration("1s", "60s")] = written("3s")

    @model_validator(mode="after")
    def _a_password_is_for_a_server(self) -> StoreSection:
        if self.password_file is not None and not self.url:
            raise Unfit("a url beside it", "SQLite has no password: take password_file out", seen="password_file without url")
        return self
