"""How a bind is decided: what the directory and the gate are asked, in which order, and what nobody gets by it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ldap_proxy import bind as bind_module
from ldap_proxy import message
from ldap_proxy.dn import parse_dn
from ldap_proxy.lookup import LookupFailed
from ldap_proxy.settings import (
    Anonymous,
    Application,
    Confirm,
    ExemptSettings,
    Limits,
    MappingKind,
    MappingSettings,
    OperationsSettings,
    RememberMode,
    RememberSettings,
)
from ldap_proxy.states import State
from mfa_core.model import Door, FirstFactor, SplitMode
from mfa_core.verdict import Accepted, Exempt, Exemption, Pending, Reason, Rejected, Unavailable, Unready, Verdict
from mfa_core.verifier import Password
from tests.ldap_proxy.door_doubles import (
    BOB,
    EXEMPT,
    REFUSED,
    SERVICE,
    SOURCE,
    Stage,
    bind_result,
    codes,
    control,
    door_settings,
    search,
    tags,
    who_is,
)

PPOLICY = "1.3.6.1.4.1.42.2.27.8.5.1"
LOGIN = message.build_bind(2, BOB, b"secret,123456")
SERVICE_LOGIN = message.build_bind(2, SERVICE, b"all,of,it")


def _application(**given: object) -> Stage:
    values: dict[str, object] = {"exempt": EXEMPT, **given}
    return Stage(door_settings(applications=(Application(**values),)))  # type: ignore[arg-type]


def _bound_as_bob(stage: Stage) -> list[bytes]:
    stage.directory(bind_result(2))
    return stage.directory(who_is(2, b"dn:" + BOB))


# -- with a factor ------------------------------------------------------------------------------------------------------------


def test_a_login_with_password_and_code() -> None:
    """The directory is asked for the password alone, then who it is; the client gets the directory's own octets."""
    stage = Stage()
    granted = bind_result(2, 0, "welcome", control(PPOLICY, critical=False))

    assert stage.client(LOGIN) == []
    assert stage.sent() == [message.build_bind(2, BOB, b"secret")]
    assert stage.directory(granted) == []
    assert stage.sent() == [message.build_extended_request(2, message.WHO_AM_I)]
    assert stage.directory(who_is(2, b"dn:" + BOB)) == [granted]

    assert stage.session.state is State.BOUND
    assert not stage.session.exempt
    assert stage.gate.asked[0].told == [Password.GOOD]


def test_what_the_gate_is_told() -> None:
    """Who, from where, for which application, and that the password is ours to check."""
    stage = _application(name="wiki")
    stage.client(LOGIN)

    attempt = stage.gate.asked[0].attempt
    assert (attempt.door, attempt.service, attempt.username, attempt.source) == (Door.LDAP, "wiki", "bob", SOURCE)
    assert (attempt.first_factor, attempt.wait_s, attempt.grammar_is_final) == (FirstFactor.OURS, 65.0, False)
    assert attempt.typed is not None
    assert attempt.typed.reveal() == b"secret,123456"


def test_a_known_identity_is_not_asked_for_again() -> None:
    """By the octets of the DN, for ``identity_keep_s``."""
    stage = Stage()
    stage.client(LOGIN)
    _bound_as_bob(stage)

    stage.client(LOGIN)

    assert codes(stage.directory(bind_result(2))) == [(2, 0x61, 0)]
    stage.clock.advance(400)
    stage.client(LOGIN)
    assert stage.directory(bind_result(2)) == []


def test_the_controls_of_a_bind_stay_inside_it() -> None:
    """And go with it, as they are."""
    stage = Stage()

    stage.client(message.build_bind(2, BOB, b"secret,123456", control(PPOLICY)))

    assert stage.sent() == [message.build_bind(2, BOB, b"secret", control(PPOLICY))]


def test_a_wrong_password_is_the_directory_s_word() -> None:
    """Verbatim, with text and controls. The connection goes: OpenLDAP's password policy refuses binds that have bound."""
    stage = Stage()
    refusal = bind_result(2, 49, "data 532", control(PPOLICY, critical=False))

    stage.client(LOGIN)

    assert stage.directory(refusal) == [refusal]
    assert stage.link.aborted
    assert stage.gate.asked[0].told == [Password.BAD]
    assert stage.journal.lines[0]["reason"] == "first_factor_failed"


def test_a_wrong_code_and_a_wrong_password_look_alike() -> None:
    """The same octets as those of a directory that adds no text; and the directory's side is gone."""
    stage = Stage()
    stage.client(message.build_bind(2, BOB, b"secret,000000"))
    wrong_code = _bound_as_bob(stage)
    first = stage.link
    stage.client(LOGIN)
    wrong_password = stage.directory(bind_result(2, 49))
    no_code = stage.client(message.build_bind(2, BOB, b"secret"))

    assert wrong_code == wrong_password == no_code
    assert first.aborted
    assert stage.session.state is State.ANONYMOUS


@pytest.mark.parametrize("code", [1, 10, 50, 51, 52, 80])
def test_trouble_of_the_directory_is_no_wrong_password(code: int) -> None:
    """Nothing is counted against the user, and its octets are passed on."""
    stage = Stage()
    refusal = bind_result(2, code, "try elsewhere")
    stage.client(LOGIN)

    assert stage.directory(refusal) == [refusal]
    assert isinstance(stage.gate.asked[0].told[0], Exception)


@pytest.mark.parametrize("code", [49, 32, 34, 48, 19, 53])
def test_what_counts_as_a_wrong_password(code: int) -> None:
    """Whatever a directory says of a name and a password that it does not take."""
    stage = Stage()
    stage.client(LOGIN)
    stage.directory(bind_result(2, code))

    assert stage.gate.asked[0].told == [Password.BAD]


def test_an_empty_password_never_reaches_the_directory() -> None:
    """Also what is left of ``,123456`` (RFC 4513 section 5.1.2)."""
    stage = Stage()

    empty = [message.build_bind(2, BOB, b",123456"), message.build_bind(3, BOB, b""), message.build_bind(4, b"", b"x")]
    told = [answer for one in empty for answer in stage.client(one)]

    assert codes(told) == [(2, 0x61, 49), (3, 0x61, 53), (4, 0x61, 49)]
    assert stage.upstreams.links == []


@pytest.mark.parametrize("authzid", [b"dn:uid=alice,ou=people,dc=example,dc=org", b"dn:dc=org", b"", b"dn:", b"u:eve", b"bob"])
def test_somebody_else_s_identity_is_no_login(authzid: bytes) -> None:
    """The name said bob; who was let in is not: an alias, a rewritten DN, or nobody at all."""
    stage = Stage()
    stage.client(LOGIN)
    stage.directory(bind_result(2))

    told = stage.directory(who_is(2, authzid))

    assert codes(told) == [(2, 0x61, REFUSED)]
    assert told == [bind_result(2, 49)]
    assert stage.link.aborted
    assert stage.gate.asked[0].told == [Password.BAD]
    assert str(stage.journal.lines[0]["reason"]).startswith("identity_")


@pytest.mark.parametrize("authzid", [b"dn:UID=Bob, OU=People, DC=example, DC=org", b"dn:uid=\\62ob,ou=x,dc=y", b"u:BOB"])
def test_an_identity_is_read_however_it_is_written(authzid: bytes) -> None:
    """It is the user that counts."""
    stage = Stage()
    stage.client(LOGIN)
    stage.directory(bind_result(2))

    assert codes(stage.directory(who_is(2, authzid))) == [(2, 0x61, 0)]


def test_a_directory_without_who_am_i() -> None:
    """Nobody is let in where nobody can say who it is; with ``confirm: as_bound`` the name stands as it was written."""
    stage = Stage()
    stage.client(LOGIN)
    stage.directory(bind_result(2))
    assert codes(stage.directory(message.build_extended_response(2, 2))) == [(2, 0x61, 52)]
    assert stage.link.aborted

    stage = Stage(door_settings(confirm=Confirm.AS_BOUND))
    stage.client(LOGIN)
    assert codes(stage.directory(bind_result(2))) == [(2, 0x61, 0)]


def test_somebody_who_is_no_user_takes_the_same_way() -> None:
    """The gate is asked, under the name as it stands; what the directory and the gate say lets nobody in."""
    stage = Stage(door_settings(mapping=MappingSettings(bases=(parse_dn("ou=staff,dc=example,dc=org"),))))
    stage.client(LOGIN)

    assert stage.gate.asked[0].attempt.username == BOB.decode()
    told = _bound_as_bob(stage)

    assert codes(told) == [(2, 0x61, REFUSED)]
    assert stage.gate.asked[0].told == [Password.BAD]


def test_a_verdict_without_a_password_lets_nobody_in() -> None:
    """Whatever the gate says: without the directory's own yes there is none."""
    for verdict in (Accepted("e", "totp", ""), Exempt("e", Exemption.POLICY, "rule")):
        stage = Stage()
        stage.gate.by_itself = False
        stage.client(LOGIN)

        stage.gate.asked[0].say(verdict)

        assert codes(stage.told()) == [(2, 0x61, REFUSED)]


def test_a_verdict_while_the_directory_is_asked_lets_nobody_in() -> None:
    """The same, half way: the bind may be good by now, and its connection goes."""
    stage = Stage()
    stage.gate.by_itself = False
    stage.client(LOGIN)
    stage.gate.asked[0].have_checked(b"secret")

    stage.gate.asked[0].say(Accepted("e", "totp", ""))

    assert codes(stage.told()) == [(2, 0x61, REFUSED)]
    assert stage.link.aborted


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (Rejected("e", Reason.THROTTLED), 49),
        (Rejected("e", Reason.MISMATCH), 49),
        (Rejected("e", Reason.FIRST_FACTOR_FAILED), 49),
        (Unavailable("e", Unready.STORE), 52),
        (Unavailable("e", Unready.OVERLOADED), 51),
        (Unavailable("e", Unready.BACKEND), 52),
    ],
)
def test_a_refusal_after_the_directory_s_yes_leaves_nobody_bound(verdict: Verdict, code: int) -> None:
    """The directory has bound the user; the client never gets there, and its success octets never leave."""
    stage = Stage()
    stage.gate.by_itself = False
    stage.client(LOGIN, search(3))
    asked = stage.gate.asked[0]
    asked.have_checked(b"secret")
    _bound_as_bob(stage)
    first = stage.link

    asked.say(verdict)

    assert codes(stage.told()) == [(2, 0x61, code)]
    assert first.aborted
    assert search(3) not in first.written
    assert stage.sent() == [search(3)]


def test_the_text_of_refusals_is_the_application_s() -> None:
    """As Active Directory's ``data 52e``, for applications that read it."""
    stage = _application(refusal_text="80090308: data 52e")

    told = stage.client(message.build_bind(2, BOB, b"secret"))

    assert message.parse_result(told[0]).diagnostic == b"80090308: data 52e"


def test_no_directory_for_a_bind() -> None:
    """52; 51 where too many wait; the gate hears that nobody knows."""
    for overloaded, code in ((False, 52), (True, 51)):
        stage = Stage()
        stage.upstreams.stock = False
        stage.client(LOGIN)

        stage.upstreams.refuse(overloaded=overloaded)

        assert codes(stage.told()) == [(2, 0x61, code)]
        assert isinstance(stage.gate.asked[0].told[0], Exception)


def test_a_directory_that_is_lost_during_a_bind() -> None:
    """At any step: 52, and the session goes on as nobody."""
    for steps in range(3):
        stage = Stage()
        stage.gate.by_itself = False
        stage.client(LOGIN)
        stage.gate.asked[0].have_checked(b"secret")
        if steps > 0:
            stage.directory(bind_result(2))
        if steps > 1:
            stage.directory(who_is(2, b"dn:" + BOB))
        stage.session.upstream_lost(None)
        if steps < 2:
            assert isinstance(stage.gate.asked[0].told[0], Exception)
            stage.gate.asked[0].say(Unavailable("e", Unready.BACKEND))
        else:
            stage.gate.asked[0].say(Accepted("e", "totp", ""))

        assert codes(stage.told()) == [(2, 0x61, 52)]
        assert not stage.transport.closed


def test_a_name_that_must_be_looked_up() -> None:
    """The gate is asked when the user is known; a directory that does not say is no user's fault."""
    mapping = MappingSettings(kind=MappingKind.ATTRIBUTE, attributes=("sAMAccountName",))
    stage = Stage(door_settings(mapping=mapping))
    stage.client(LOGIN)
    assert stage.gate.asked == []

    stage.lookups.waiting.pop()(("Bob",))
    assert stage.gate.asked[0].attempt.username == "Bob"
    stage.directory(bind_result(2))
    stage.directory(who_is(2, b"dn:" + BOB))
    stage.lookups.waiting.pop()(("bob",))
    assert codes(stage.told()) == [(2, 0x61, 0)]

    stage = Stage(door_settings(mapping=mapping))
    stage.client(LOGIN)
    stage.lookups.waiting.pop()(LookupFailed("no answer", cure="wait"))
    assert codes(stage.told()) == [(2, 0x61, 52)]


# -- a factor that takes its time ---------------------------------------------------------------------------------------------


def test_a_pending_factor_is_asked_after_until_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits, the directory has said yes, and nothing passes."""
    monkeypatch.setattr(bind_module, "POLL_S", 0.001)

    async def main() -> None:
        stage = Stage()
        stage.gate.by_itself = False
        stage.client(LOGIN, search(3))
        first = stage.gate.asked[0]
        first.have_checked(b"secret")
        _bound_as_bob(stage)
        stage.sent()
        first.say(Pending("challenge", "look at your phone", 0.0))
        for number in (1, 2):
            while len(stage.gate.asked) == number:  # noqa: ASYNC110  the gate is a list
                await asyncio.sleep(0.001)
            again = stage.gate.asked[number]
            assert again.attempt == replace(first.attempt, challenge_id="challenge", typed=None)
            assert stage.sent() == []
            assert stage.told() == []
            again.say(Pending("challenge", "", 0.0) if number == 1 else Accepted("e", "push", ""))
        assert codes(stage.told()) == [(2, 0x61, 0)]
        assert stage.sent() == [search(3)]

    asyncio.run(main())


def test_a_pending_factor_ends_with_its_client_or_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked after no more, once nobody waits for it."""
    monkeypatch.setattr(bind_module, "POLL_S", 0.001)

    async def main(*, leaves: bool) -> None:
        stage = Stage()
        stage.gate.by_itself = False
        stage.client(LOGIN)
        stage.gate.asked[0].have_checked(b"secret")
        _bound_as_bob(stage)
        stage.gate.asked[0].say(Pending("challenge", "", 0.0))
        first = stage.link
        if leaves:
            stage.session.data_received(message.build_unbind(3))
            assert stage.outcomes == ["client_gone"]
        else:
            stage.clock.advance(66)
            stage.session.sweep(stage.clock())
            assert codes(stage.told()) == [(2, 0x61, REFUSED)]
            assert stage.outcomes == ["timed_out"]
        assert first.aborted
        await asyncio.sleep(0.01)  # ten times as long as it waits between two questions: nothing is to happen
        assert len(stage.gate.asked) == 1

    asyncio.run(main(leaves=True))
    asyncio.run(main(leaves=False))


# -- exempt -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [SERVICE, b"CN=svc, DC=example, DC=org", b"cn=\\73vc,dc=example,dc=org"])
def test_an_exempt_identity_needs_no_code(name: bytes) -> None:
    """However its name is written: the whole text is its password, and the gate is not asked."""
    stage = Stage()

    stage.client(message.build_bind(2, name, b"all,of,it"))
    assert stage.sent() == [message.build_bind(2, name, b"all,of,it")]
    stage.directory(bind_result(2))
    told = stage.directory(who_is(2, b"dn:cn=svc,dc=example,dc=org"))

    assert codes(told) == [(2, 0x61, 0)]
    assert stage.session.exempt
    assert stage.gate.asked == []
    assert stage.outcomes == ["exempt"]


@pytest.mark.parametrize("authzid", [b"dn:" + BOB, b"", b"u:svc", b"dn:cn=svc,dc=example,dc=com"])
def test_the_spelling_of_a_name_exempts_nobody(authzid: bytes) -> None:
    """Who writes the service account's name and is somebody else to the directory is refused, and nobody there."""
    stage = Stage()
    stage.client(SERVICE_LOGIN)
    stage.directory(bind_result(2))

    told = stage.directory(who_is(2, authzid))

    assert told == [bind_result(2, 49)]
    assert stage.link.aborted
    assert stage.journal.lines[0]["reason"] == "identity_not_exempt"


def test_a_wrong_password_of_an_exempt_identity() -> None:
    """The directory's octets; after ``failed_binds`` of them from one place the directory is not asked any more."""
    stage = Stage(door_settings(limits=Limits(failed_binds=3)))
    for _ in range(3):
        stage.client(SERVICE_LOGIN)
        assert stage.directory(bind_result(2, 49)) == [bind_result(2, 49)]
    stage.sent()

    assert stage.client(SERVICE_LOGIN) == [bind_result(2, 49)]
    assert stage.sent() == []
    assert stage.journal.lines[-1]["reason"] == "too_many_failures"


@pytest.mark.parametrize("end", ["granted", "refused", "client gone", "directory gone"])
def test_attempts_on_exempt_accounts_are_under_way_until_they_end(end: str) -> None:
    """However that is."""
    stage = Stage()
    stage.client(SERVICE_LOGIN)
    assert stage.services.guessing._under_way == {stage.session.source: 1}
    match end:
        case "granted":
            stage.directory(bind_result(2))
            stage.directory(who_is(2, b"dn:" + SERVICE))
        case "refused":
            stage.directory(bind_result(2, 49))
        case "client gone":
            stage.session.eof_received()
        case _:
            stage.session.upstream_lost(None)

    assert stage.services.guessing._under_way == {}


def test_groups_are_asked_for_twice() -> None:
    """By the name as it is written, to know the way, and by the identity, which decides."""
    group = parse_dn("cn=apps,dc=example,dc=org")
    stage = _application(exempt=ExemptSettings(groups=(group,)))
    stage.client(LOGIN)
    assert stage.gate.asked == []
    stage.lookups.waiting.pop()(True)
    assert stage.sent() == [LOGIN]
    stage.directory(bind_result(2))
    stage.directory(who_is(2, b"dn:" + BOB))

    stage.lookups.waiting.pop()(True)

    assert codes(stage.told()) == [(2, 0x61, 0)]
    assert stage.session.exempt


def test_a_group_that_cannot_be_asked_exempts_nobody() -> None:
    """By the name a code is asked for; by the identity it is 52."""
    group = parse_dn("cn=apps,dc=example,dc=org")
    failed = LookupFailed("no answer", cure="wait")
    stage = _application(exempt=ExemptSettings(groups=(group,)))
    stage.client(LOGIN)
    stage.lookups.waiting.pop()(failed)
    assert len(stage.gate.asked) == 1

    stage = _application(exempt=ExemptSettings(groups=(group,)))
    stage.client(LOGIN)
    stage.lookups.waiting.pop()(True)
    stage.directory(bind_result(2))
    stage.directory(who_is(2, b"dn:" + BOB))
    stage.lookups.waiting.pop()(failed)

    assert codes(stage.told()) == [(2, 0x61, 52)]
    assert stage.link.aborted


# -- anonymous and SASL -------------------------------------------------------------------------------------------------------


def test_an_anonymous_bind_is_the_directory_s_matter() -> None:
    """Where it is allowed: relayed, and nobody is bound by it. Who was bound before is not any more."""
    stage = Stage().bound()
    stage.client(message.build_bind(2, b"", b""))
    assert stage.sent() == [message.build_bind(2, b"", b"")]

    assert codes(stage.directory(bind_result(2))) == [(2, 0x61, 0)]

    assert stage.session.state is State.ANONYMOUS
    assert not stage.session.exempt
    assert not stage.link.closed
    assert stage.gate.asked == []


def test_an_anonymous_bind_may_be_denied() -> None:
    """48, and the directory hears nothing of it."""
    stage = _application(anonymous=Anonymous.DENY)

    assert codes(stage.client(message.build_bind(2, b"", b""))) == [(2, 0x61, 48)]
    assert stage.upstreams.links == []


def _sasl(credentials: bytes | None, message_id: int = 2, mechanism: str = "GSSAPI") -> bytes:
    return message.build_sasl_bind(message_id, b"", mechanism, credentials, b"")


def _with_sasl() -> Stage:
    return _application(operations=OperationsSettings(sasl=frozenset({"GSSAPI"})))


def test_a_sasl_bind_in_steps() -> None:
    """Each step is relayed, nothing comes between them, and the identity that it ends in must be exempt."""
    stage = _with_sasl()

    stage.client(_sasl(b"token 1"))
    assert stage.sent() == [_sasl(b"token 1")]
    assert codes(stage.directory(bind_result(2, 14))) == [(2, 0x61, 14)]
    assert codes(stage.client(search(3))) == [(3, 0x65, 1)]
    stage.client(_sasl(b"token 2", 4))
    assert stage.sent() == [_sasl(b"token 2", 4)]
    stage.directory(bind_result(4))
    assert tags(stage.sent()) == [(4, 0x77)]
    assert codes(stage.directory(who_is(4, b"dn:" + SERVICE))) == [(4, 0x61, 0)]

    assert stage.session.exempt
    assert stage.gate.asked == []


def test_sasl_lets_nobody_in_who_needs_a_code() -> None:
    """A good bind of somebody else is refused, and its connection dropped; it is asked each time who it is."""
    stage = _with_sasl()
    for _ in range(2):
        stage.client(_sasl(b"token"))
        stage.directory(bind_result(2))

        told = stage.directory(who_is(2, b"dn:" + BOB))

        assert codes(told) == [(2, 0x61, REFUSED)]
        assert stage.link.aborted


def test_a_refused_sasl_bind_looks_like_one_of_somebody_who_needs_a_code() -> None:
    """Else the directory's text would say that the password was right."""
    stage = _with_sasl()
    stage.client(_sasl(b"token"))
    wrong = stage.directory(bind_result(2, 49, "SASL(-13): authentication failure"))
    stage.client(_sasl(b"token"))
    stage.directory(bind_result(2))

    assert stage.directory(who_is(2, b"dn:" + BOB)) == wrong


def test_a_bind_that_leaves_sasl_half_way_leaves_nobody_bound() -> None:
    """Refused here between two steps: what the directory makes of the first one does not matter any more."""
    stage = _with_sasl()
    stage.client(_sasl(b"token"))
    stage.directory(bind_result(2, 14))
    first = stage.link

    stage.client(message.build_bind(3, BOB, b""))

    assert first.aborted


def test_a_simple_bind_has_no_steps() -> None:
    """A directory that says "go on" to a password is not to be followed."""
    stage = Stage()
    stage.client(LOGIN)
    stage.directory(bind_result(2, 14))

    assert stage.is_over


# -- remembered ---------------------------------------------------------------------------------------------------------------


def _remembering(mode: RememberMode) -> Stage:
    stage = _application(remember=RememberSettings(mode=mode))
    stage.client(LOGIN)
    assert codes(_bound_as_bob(stage)) == [(2, 0x61, 0)]
    stage.sent()
    return stage


@pytest.mark.parametrize(
    ("mode", "again"), [(RememberMode.SAME_CREDENTIAL, b"secret,123456"), (RememberMode.PASSWORD_ONLY, b"secret")]
)
def test_an_accepted_bind_may_be_repeated(mode: RememberMode, again: bytes) -> None:
    """The gate hears of the credential that it was accepted with, and the directory is asked for the password each time."""
    stage = _remembering(mode)

    stage.client(message.build_bind(2, BOB, again))

    attempt = stage.gate.asked[1].attempt
    assert (attempt.remembered, attempt.grammar.mode, attempt.grammar_is_final) == ("totp:12", SplitMode.PASSWORD, True)
    assert attempt.typed is not None
    assert attempt.typed.reveal() == b"secret"
    assert stage.sent() == [message.build_bind(2, BOB, b"secret")]
    assert codes(stage.directory(bind_result(2))) == [(2, 0x61, 0)]


def test_a_refusal_forgets_all_of_the_user() -> None:
    """Whatever it was refused for: the next repetition is a login like any other."""
    stage = _remembering(RememberMode.SAME_CREDENTIAL)
    stage.client(LOGIN)
    stage.directory(bind_result(2, 49))

    stage.client(LOGIN)

    assert stage.gate.asked[-1].attempt.remembered == ""


def test_nothing_is_remembered_unless_it_is_configured() -> None:
    """Off by default."""
    stage = Stage()
    stage.client(LOGIN)
    _bound_as_bob(stage)

    stage.client(LOGIN)

    assert stage.gate.asked[-1].attempt.remembered == ""
    assert len(stage.services.remember) == 0


# -- the log ------------------------------------------------------------------------------------------------------------------


def test_each_bind_has_one_line_and_no_line_a_secret() -> None:
    """Whatever becomes of it."""
    stage = Stage()
    stage.client(LOGIN)
    _bound_as_bob(stage)
    stage.client(message.build_bind(2, BOB, b"secret,000000"))
    stage.directory(bind_result(2))
    stage.client(SERVICE_LOGIN)
    stage.directory(bind_result(2))
    stage.directory(who_is(2, b"dn:" + SERVICE))
    stage.client(message.build_bind(3, b"", b""))
    stage.directory(bind_result(3))
    stage.client(message.build_bind(4, BOB, b""))

    assert [line["outcome"] for line in stage.journal.lines] == ["accepted", "rejected", "exempt", "anonymous", "rejected"]
    assert stage.outcomes == [line["outcome"] for line in stage.journal.lines]
    written = repr(stage.journal.lines)
    for secret in ("secret", "123456", "000000", "all,of,it"):
        assert secret not in written
    assert len({frozenset(line) for line in stage.journal.lines}) == 1
