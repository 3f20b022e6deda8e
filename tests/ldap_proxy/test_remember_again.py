"""What an application sends that goes on with the password alone: the text that it was given, and then the password."""

from __future__ import annotations

import pytest

from ldap_proxy.remember import Remember
from ldap_proxy.settings import Application, RememberMode, RememberSettings
from mfa_core.secret import Secret

TYPED, PASSWORD = Secret(b"secret,123456"), Secret(b"secret")


def remembering(mode: RememberMode, *, max_uses: int = 0) -> tuple[Remember, Application]:
    remember = Remember(key=Secret(bytes(32)), monotonic=lambda: 0.0)
    application = Application(remember=RememberSettings(mode, max_uses=max_uses))
    remember.store(
        application, listener="l", source="s", user="alice", typed=TYPED, password=PASSWORD, credential="totp:1"
    )
    return remember, application


def recalled(remember: Remember, application: Application, typed: Secret) -> bytes | None:
    found = remember.recall(application, listener="l", source="s", user="alice", typed=typed)
    return None if found is None else found.password.reveal()


@pytest.mark.parametrize(
    ("mode", "typed", "password"),
    [
        (RememberMode.PASSWORD_ONLY, TYPED, b"secret"),
        (RememberMode.PASSWORD_ONLY, PASSWORD, b"secret"),
        (RememberMode.PASSWORD_ONLY, Secret(b"secret,654321"), None),
        (RememberMode.SAME_CREDENTIAL, TYPED, b"secret"),
        (RememberMode.SAME_CREDENTIAL, PASSWORD, None),
    ],
)
def test_texts_that_are_good_again(mode: RememberMode, typed: Secret, password: bytes | None) -> None:
    """In each the directory is asked about the password alone."""
    assert recalled(*remembering(mode), typed) == password


def test_uses_are_counted_together() -> None:
    """Whatever was sent."""
    remember, application = remembering(RememberMode.PASSWORD_ONLY, max_uses=2)

    assert recalled(remember, application, TYPED) == b"secret"
    assert recalled(remember, application, PASSWORD) == b"secret"
    assert recalled(remember, application, TYPED) is None
    assert recalled(remember, application, PASSWORD) is None


def test_both_are_forgotten_together() -> None:
    """By any refusal."""
    remember, application = remembering(RememberMode.PASSWORD_ONLY)
    remember.forget("alice")

    assert (recalled(remember, application, TYPED), recalled(remember, application, PASSWORD), len(remember)) == (None, None, 0)
