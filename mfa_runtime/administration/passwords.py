"""Passwords of our own (`primary: local`): set one, take one away.

Room rule: what a password must be like is decided here, after NIST SP 800-63B-4 section 3.1.1.2: a length, no common one, and
no rule about which characters stand in it. Eight characters do, because it is never the only factor.
"""

from __future__ import annotations

from sqlalchemy import Connection

from mfa_core.errors import InvalidInput, NotFound
from mfa_core.secret import Secret
from mfa_core.throttle import CLEAN
from mfa_runtime.administration.act import Act
from mfa_runtime.administration.users import find_user
from mfa_runtime.password_hash import hash_password
from mfa_runtime.primary_local import MAX_PASSWORD_BYTES
from mfa_runtime.store.accounts import write_records
from mfa_runtime.store.passwords import drop_password, password_key, write_password

MIN_PASSWORD_CHARS = 8
_COMMON = frozenset({
    "123456789", "1234567890", "12345678", "123123123", "987654321", "1q2w3e4r", "1q2w3e4r5t", "1qaz2wsx", "abcd1234",
    "abc12345", "adminadmin", "admin123", "baseball", "basketball", "changeme", "computer", "football", "iloveyou",
    "internet", "letmein1", "michelle", "password", "password1", "password12", "password123", "passw0rd", "p@ssw0rd",
    "princess", "q1w2e3r4", "qwerty12", "qwerty123", "qwertyuiop", "qwertzuiop", "sunshine", "superman", "trustno1",
    "welcome1", "welcome123", "whatever", "zaq12wsx",
})  # fmt: skip
"""The head of every list of leaked passwords, as far as eight characters and more go."""


def set_password(connection: Connection, act: Act, name: str, password: Secret) -> None:
    """Give a user this password in place of any other. Some 30 ms of hashing.

    Raises:
        NotFound: no such user.
        InvalidInput: too short, too long, too common, or of bytes that nobody can type.
    """
    user = find_user(connection, name)
    check_password(password, name=name)
    write_records(connection, {password_key(user.name): CLEAN})  # who guessed at the old one does not hold up the new one
    write_password(connection, user.id, hash_password(password, user.id, keyring=act.keyring), now=act.now)
    act.record(connection, "user.password.set", name)


def remove_password(connection: Connection, act: Act, name: str) -> None:
    """Take the password of a user away: from now on none is right.

    Raises:
        NotFound: no such user, or no password.
    """
    user = find_user(connection, name)
    if not drop_password(connection, user.id):
        raise NotFound(f"{name} has no password here", cure="see `mfactl user list`; a directory keeps passwords of its own")
    act.record(connection, "user.password.remove", name)


def check_password(password: Secret, *, name: str) -> None:
    """Raises: InvalidInput, which never quotes it."""
    raw = password.reveal()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput("the password is not UTF-8", cure="use a terminal with UTF-8, and try again") from None
    if len(text) < MIN_PASSWORD_CHARS:
        raise InvalidInput(f"the password has {len(text)} characters, expected {MIN_PASSWORD_CHARS} or more", cure="use more")
    if len(raw) > MAX_PASSWORD_BYTES:
        raise InvalidInput(f"the password has {len(raw)} bytes, expected at most {MAX_PASSWORD_BYTES}", cure="a shorter one")
    if any(ord(c) < 0x20 or ord(c) == 0x7F for c in text):
        raise InvalidInput("the password holds a control character", cure="use characters that every client can send")
    folded = text.lower()
    if folded in _COMMON or folded == name.lower() or len(set(folded)) == 1:
        raise InvalidInput("the password is one of the first that anybody tries", cure="choose several words")
