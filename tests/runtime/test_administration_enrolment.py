"""A secret counts only after its code, the code is spent by that, and what was begun ends by itself."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from mfa_core.errors import Conflict, InvalidInput
from mfa_core.model import CredentialState, EnrolmentState, FactorKind, User
from mfa_core.oath import code_at, step_at
from mfa_core.otpauth import decode_base32, decode_key_uri
from mfa_core.verdict import Accepted, Reason, Rejected
from mfa_runtime.administration import credentials, users
from mfa_runtime.administration.bypass import issue_bypass, revoke_bypass
from mfa_runtime.administration.enrolment import (
    Begun,
    Confirmed,
    NotConfirmed,
    Parameters,
    begin,
    confirm,
    expire_pending,
    provision_active,
)
from mfa_runtime.administration.recovery import new_recovery_codes
from mfa_runtime.key_file import KeyEncryptionKeys
from mfa_runtime.one_time_hash import matches, place_of
from mfa_runtime.sealing import UnknownKey
from mfa_runtime.store.key_table import add_data_key
from tests.doubles import ALICE, KEK, Installation, attempt

ACME = Parameters("ACME")


def start(installed: Installation, name: str = "carol", parameters: Parameters = ACME) -> Begun:
    with installed.store.writing() as connection:
        act = installed.act()
        return begin(connection, act, users.find_or_add_user(connection, act, name), parameters)


def answer(installed: Installation, typed: str, name: str = "carol") -> Confirmed | NotConfirmed:
    with installed.store.writing() as connection:
        return confirm(connection, installed.act(), users.find_user(connection, name), typed)


def code_of(installed: Installation, begun: Begun, offset: int = 0) -> str:
    secret = decode_base32(begun.secret_base32.reveal().decode())
    return code_at(replace(ALICE.credential, secret=secret), step_at(installed.clock(), 30) + offset)


def user(installed: Installation, name: str = "carol") -> User:
    with installed.store.reading() as connection:
        return users.find_user(connection, name)


def test_a_confirmed_credential_is_active_and_its_code_is_spent(installed: Installation) -> None:
    """The confirming code logs nobody in; the next one does (RFC 6238 section 5.2)."""
    begun = start(installed)
    code = code_of(installed, begun)

    outcome = answer(installed, code)

    assert isinstance(outcome, Confirmed)
    assert user(installed).state is EnrolmentState.ACTIVE
    installed.clock.advance(30)
    (again, after) = installed.in_order(attempt("carol", code), lambda: attempt("carol", code_of(installed, begun)))
    assert isinstance(again, Rejected)
    assert again.reason is Reason.REPLAYED
    assert isinstance(after, Accepted)


def test_a_pending_credential_logs_nobody_in(installed: Installation) -> None:
    """Abandoning an enrolment is no way round it (authentik#2330)."""
    begun = start(installed)

    (verdict,) = installed.decide(attempt("carol", code_of(installed, begun)))

    assert isinstance(verdict, Rejected)


@pytest.mark.parametrize(
    ("typed", "outcome"), [("000000x", NotConfirmed.MISMATCH), ("", NotConfirmed.MISMATCH), ("12345", NotConfirmed.MISMATCH)]
)
def test_what_is_no_code_confirms_nothing(installed: Installation, typed: str, outcome: NotConfirmed) -> None:
    """And the credential can still be confirmed."""
    begun = start(installed)

    assert answer(installed, typed) is outcome
    assert isinstance(answer(installed, code_of(installed, begun)), Confirmed)


def test_a_code_of_another_time_tells_of_the_clock(installed: Installation) -> None:
    """Five steps away: right secret, wrong clock."""
    begun = start(installed)

    assert answer(installed, code_of(installed, begun, offset=5)) is NotConfirmed.CLOCK


def test_only_the_latest_secret_can_be_confirmed(installed: Installation) -> None:
    """A second begin replaces the first: its secret is gone."""
    first = start(installed)
    second = start(installed)

    assert answer(installed, code_of(installed, first)) is NotConfirmed.MISMATCH
    assert isinstance(answer(installed, code_of(installed, second)), Confirmed)


def test_a_dialogue_confirms_its_own_credential_only(installed: Installation) -> None:
    """What another dialogue began in between is not this one's."""
    first = start(installed)
    second = start(installed)

    with installed.store.writing() as connection:
        carol = users.find_user(connection, "carol")
        outcome = confirm(
            connection, installed.act(), carol, code_of(installed, second), credential_id=first.credential_id
        )

    assert outcome is NotConfirmed.NOTHING_PENDING


def test_after_fifteen_minutes_nothing_can_be_confirmed(installed: Installation) -> None:
    """The row and its secret are gone, and the user may begin again."""
    begun = start(installed)
    installed.clock.advance(900)

    assert answer(installed, code_of(installed, begun)) is NotConfirmed.EXPIRED
    assert answer(installed, code_of(installed, begun)) is NotConfirmed.NOTHING_PENDING
    assert user(installed).state is EnrolmentState.INVITED
    with installed.store.writing() as connection:
        assert expire_pending(connection, installed.act(), users.find_user(connection, "carol")) == 0


def test_a_second_device_does_not_stop_the_first(installed: Installation) -> None:
    """The user stays active, and both codes work after the confirmation."""
    begun = start(installed, "alice")

    assert user(installed, "alice").state is EnrolmentState.ACTIVE
    assert isinstance(answer(installed, code_of(installed, begun), "alice"), Confirmed)
    assert isinstance(installed.decide(attempt("alice", ALICE.code(installed.clock())))[0], Accepted)


def test_a_counting_token_is_confirmed_by_its_first_code(installed: Installation) -> None:
    """Counter 0 is spent then."""
    begun = start(installed, parameters=replace(ACME, kind=FactorKind.HOTP))
    key = decode_key_uri(begun.uri.reveal().decode())
    typed = code_at(replace(ALICE.credential, kind=FactorKind.HOTP, secret=key.secret), 0)

    outcome = answer(installed, typed)

    assert isinstance(outcome, Confirmed)
    assert installed.credential_of("carol")["last_step"] == 0


def test_a_provisioned_credential_works_at_once(installed: Installation) -> None:
    """And the recovery key that came with it, once."""
    with installed.store.writing() as connection:
        act = installed.act()
        begun, key = provision_active(connection, act, users.add_user(connection, act, "carol"), ACME)

    code, spare = installed.in_order(
        attempt("carol", code_of(installed, begun)), attempt("carol", key.reveal().decode())
    )

    assert isinstance(code, Accepted)
    assert isinstance(spare, Accepted)


def test_sealing_with_keys_that_rotation_has_overtaken_is_refused(installed: Installation) -> None:
    """Else the row would be lost when the old key is dropped."""
    act = installed.act()
    with installed.store.writing() as connection:
        carol = users.add_user(connection, act, "carol")
        add_data_key(connection, KeyEncryptionKeys((KEK,)), now=act.now, random=os.urandom)

    with pytest.raises(UnknownKey), installed.store.writing() as connection:
        begin(connection, act, carol, ACME)


def test_the_last_factor_of_a_required_user_stays_unless_forced(installed: Installation) -> None:
    """authentik#16209: users removed every factor despite the policy."""
    number = int(str(installed.credential_of("alice")["id"]))
    with installed.store.writing() as connection:
        users.require(connection, installed.act(), "alice", days=7)

    with pytest.raises(Conflict, match="last factor"), installed.store.writing() as connection:
        credentials.revoke_credential(connection, installed.act(), number)
    with pytest.raises(Conflict, match="last factor"), installed.store.writing() as connection:
        credentials.suspend_credential(connection, installed.act(), number)
    with installed.store.writing() as connection:
        after = credentials.revoke_credential(connection, installed.act(), number, force=True)

    assert after.state is EnrolmentState.REVOKED
    with pytest.raises(Conflict), installed.store.writing() as connection:
        begin(connection, installed.act(), after, ACME)


def test_a_suspended_credential_comes_back_by_resuming(installed: Installation) -> None:
    """The user's state goes with it, there and back."""
    number = int(str(installed.credential_of("alice")["id"]))

    with installed.store.writing() as connection:
        suspended = credentials.suspend_credential(connection, installed.act(), number)
    (refused,) = installed.decide(attempt("alice", ALICE.code(installed.clock())))
    with installed.store.writing() as connection:
        resumed = credentials.resume_credential(connection, installed.act(), number)
    (accepted,) = installed.decide(attempt("alice", ALICE.code(installed.clock())))

    assert (suspended.state, resumed.state) == (EnrolmentState.SUSPENDED, EnrolmentState.ACTIVE)
    assert isinstance(refused, Rejected)
    assert isinstance(accepted, Accepted)


def test_two_consecutive_codes_bring_a_token_back_and_are_spent(installed: Installation) -> None:
    """Eight steps off; one code alone, or two that do not follow each other, change nothing."""
    number = int(str(installed.credential_of("alice")["id"]))
    now = installed.clock()
    codes = [ALICE.code(now, offset) for offset in (8, 9, 10)]

    with installed.store.writing() as connection:
        apart = credentials.resynchronise_credential(connection, installed.act(), number, codes[0], codes[2])
        after = credentials.resynchronise_credential(connection, installed.act(), number, codes[0], codes[1])
        again = credentials.resynchronise_credential(connection, installed.act(), number, codes[0], codes[1])

    assert apart is None
    assert after is not None
    assert after.drift_steps == 9
    assert again is None
    assert installed.credential_of("alice")["last_step"] == step_at(now, 30) + 9


def test_new_recovery_codes_replace_the_old_batch(installed: Installation) -> None:
    """A code of the old batch is refused, one of the new batch works, once."""
    with installed.store.writing() as connection:
        alice = users.find_user(connection, "alice")
        old = new_recovery_codes(connection, installed.act(), alice)
        new = new_recovery_codes(connection, installed.act(), alice)

    verdicts = installed.in_order(
        *(attempt("alice", code.reveal().decode()) for code in (old.codes[2], new.codes[2], new.codes[2], old.key, new.key))
    )

    assert [type(verdict) for verdict in verdicts] == [Rejected, Accepted, Rejected, Rejected, Accepted]
    assert len({code.reveal() for code in new.codes}) == 10


def test_one_time_codes_are_stored_as_hashes(installed: Installation) -> None:
    """Nothing of a code stands in its row."""
    with installed.store.writing() as connection:
        batch = new_recovery_codes(connection, installed.act(), users.find_user(connection, "alice"))

    rows = installed.rows("one_time_codes")
    assert all(str(row["hash"]).startswith("$argon2id$") for row in rows)
    place = place_of(int(str(rows[0]["id"])), int(str(rows[0]["user_id"])))
    assert not matches(str(rows[0]["hash"]), batch.codes[1], place, keyring=installed.keyring())


def test_a_new_bypass_code_replaces_the_one_before_and_can_be_taken_back(installed: Installation) -> None:
    """One active code a user; one use."""
    def issue(reason: str = "lost phone") -> str:
        with installed.store.writing() as connection:
            alice = users.find_user(connection, "alice")
            made = issue_bypass(connection, installed.act(), alice, reason=reason, approver="root")
            return made.code.reveal().decode()

    first, second = issue(), issue()
    verdicts = installed.in_order(*(attempt("alice", code) for code in (first, second, second)))
    third = issue()
    with installed.store.writing() as connection:
        revoke_bypass(connection, installed.act(), users.find_user(connection, "alice"))
    verdicts += installed.in_order(attempt("alice", third))

    assert [type(verdict) for verdict in verdicts] == [Rejected, Accepted, Rejected, Rejected]


@pytest.mark.parametrize(
    ("reason", "approver", "valid_s"),
    [("", "root", 60), ("  ", "root", 60), ("x", " ", 60), ("x", "root", 86_401), ("x", "root", 0)],
)
def test_a_bypass_code_needs_reason_approver_and_an_end(
    installed: Installation, reason: str, approver: str, valid_s: int
) -> None:
    """PCI DSS 8.5.1; at most 24 hours."""
    alice = user(installed, "alice")
    with pytest.raises(InvalidInput), installed.store.writing() as connection:
        issue_bypass(connection, installed.act(), alice, reason=reason, approver=approver, valid_s=valid_s)


def test_no_secret_stands_in_the_audit_log(installed: Installation) -> None:
    """Secrets and codes of every kind, as written and without separators."""
    with installed.store.writing() as connection:
        act = installed.act()
        carol = users.add_user(connection, act, "carol")
        begun, key = provision_active(connection, act, carol, ACME)
        batch = new_recovery_codes(connection, act, carol)
        bypass = issue_bypass(connection, act, carol, reason="test", approver="root")
    log = " ".join(str(row["body"]) for row in installed.rows("audit"))

    for secret in (begun.secret_base32, key, batch.key, bypass.code, *batch.codes):
        text = secret.reveal().decode()
        assert text not in log
        assert text.replace("-", "") not in log


def test_states_of_credentials_are_what_they_are_called(installed: Installation) -> None:
    """The list shows them without a secret."""
    start(installed)
    with installed.store.reading() as connection:
        (listed,) = credentials.list_credentials(connection, users.find_user(connection, "carol"))

    assert listed.state is CredentialState.PENDING
    assert listed.expires_at == installed.clock() + 900
