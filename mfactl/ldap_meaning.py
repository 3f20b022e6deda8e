"""What does the outcome of a trial at the LDAP door mean, and what mends it?

Room rule: values in, sentences out. Nothing is sent or read here; what could be looked up in the configuration was looked up
before, and stands in :class:`Circumstances`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ldap_proxy.message import Result, ResultCode
from ldap_proxy.settings import RememberMode
from ldap_proxy.trial import Act, Done, Failed, Failure, Step


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known about a trial. All but ``server`` and ``in_clear`` are of the configuration, and None without it.

    ``application`` is the entry that mfad takes us for, ``exempt`` whether the account that searches is named there as needing
    no code (by DN or subtree: groups cannot be seen from here), ``is_person_exempt`` the same of the person.
    """

    server: str
    in_clear: bool
    application: str | None = None
    exempt: bool | None = None
    is_person_exempt: bool | None = None
    remember: RememberMode | None = None
    separator: str | None = None
    """What stands between password and code, "" where nothing does."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """One sentence, and what to do, most likely first."""

    sentence: str
    cures: tuple[str, ...] = ()


def meaning_of(step: Step, seen: Circumstances) -> Meaning:
    """What the step that decided means."""
    match step.answer:
        case Failed():
            return _failed(step.act, step.answer, seen)
        case Done():
            result = step.answer.result
            return Meaning("it answers") if result is None else _result(step.act, result, seen)


# There was no result

def _failed(act: Act, answer: Failed, seen: Circumstances) -> Meaning:
    match answer.failure:
        case Failure.NO_ADDRESS:
            return Meaning(f"no address is known for {seen.server}", ("look at the name, or give an address literal",))
        case Failure.NOBODY_LISTENS:
            cure = "start mfad, and see in its log on what it listens: `systemctl status mfad`, or doors.ldap.listen"
            return Meaning(f"nobody listens at {seen.server}", (cure,))
        case Failure.UNREACHABLE:
            return Meaning(f"{seen.server} cannot be reached ({answer.detail})", ("look at routes and packet filters",))
        case Failure.TIMED_OUT:
            return Meaning(f"no answer from {seen.server} in time; what it can be, most likely first:", tuple(_slow(act)))
        case Failure.CLOSED:
            return Meaning(f"{seen.server} ended the connection without a word", tuple(_closed(act, seen)))
        case Failure.DISCONNECTED:
            return _disconnected(answer, seen)
        case Failure.NOT_LDAP:
            cure = "see what speaks on this port: `ss -tlnp`; a port for LDAPS wants --server ldaps://..."
            return Meaning(f"what came back is no answer ({answer.detail})", (cure,))
        case Failure.UNTRUSTED:
            return Meaning(f"the certificate is not to be believed: {answer.detail}", tuple(_untrusted(seen)))
        case Failure.HANDSHAKE:
            return Meaning(f"TLS could not begin ({answer.detail})", tuple(_no_handshake()))
        case Failure.NOT_FOUND:
            return Meaning(
                "the search found nobody: the application says that the user does not exist",
                (
                    "look at --search-base and --search-attribute, and compare with the application's own settings",
                    "the account that searches may not see the entry: give its DN with --bind-dn",
                ),
            )
        case Failure.AMBIGUOUS:
            cure = "an application takes the first one, or none: search by what is unique, under a narrower base"
            return Meaning(f"the search found more than one: {answer.detail}", (cure,))


def _slow(act: Act) -> Iterator[str]:
    if act in (Act.BIND, Act.BIND_AGAIN):
        yield "a factor that waits for an answer of the person, who gave none: see the application's own timeout, too"
    if act is Act.CONNECT:
        yield "a packet filter on the way drops what is sent"
    else:
        yield "the directory behind it does not answer: `mfactl doctor`"
        yield "the port wants TLS from the first octet: --server ldaps://..., or the other way round"
    yield "it takes longer than --timeout"


def _closed(act: Act, seen: Circumstances) -> Iterator[str]:
    if act is Act.TLS or not seen.in_clear:
        yield "the port may speak without TLS, or with StartTLS alone: --server ldap://..., --start-tls"
        yield "the server may want a certificate of the application: --certificate and --key"
    else:
        yield "the port may want TLS from the first octet: --server ldaps://..."
    yield "too many connections come from this address (limits.connections_per_source), or from all (limits.connections)"
    yield "the address is in proxy_protocol, and a PROXY header was waited for"


def _disconnected(answer: Failed, seen: Circumstances) -> Meaning:
    said = f" ({answer.detail})" if answer.detail else ""
    code = None if answer.result is None else answer.result.code
    if code == ResultCode.UNAVAILABLE:
        cures = ("the directory behind it went away, or mfad is being stopped: `mfactl doctor`, then try again",)
        return Meaning(f"{seen.server} gave the connection up: unavailable{said}", cures)
    if code == ResultCode.BUSY:
        cures = ("a bound of limits was reached: too many connections, or too slow: see the log of mfad",)
        return Meaning(f"{seen.server} gave the connection up: busy{said}", cures)
    if code == ResultCode.PROTOCOL_ERROR:
        cures = ("something on the way changes what is sent, or the directory answered what cannot be: see the log of mfad",)
        return Meaning(f"{seen.server} gave the connection up: protocol error{said}", cures)
    return Meaning(f"{seen.server} gave the connection up with {named(code)}{said}", ("see the log of mfad at this time",))


def _untrusted(seen: Circumstances) -> Iterator[str]:
    if seen.application is not None:
        yield "mfad has not read its new certificate yet: `systemctl reload mfad`; or something else has this port: `ss -tlnp`"
    yield "name the CA with --ca-file; the name that the application uses must stand in the certificate (--tls-name)"
    yield "an application with this trust would not come as far as this: it needs the same CA file and name"


def _no_handshake() -> Iterator[str]:
    yield "the port may speak without TLS: --server ldap://..., with --start-tls if it offers that"
    yield "client and server know no common version of TLS (doors.ldap.tls.minimum_version)"
    yield "the server wants a certificate of the application (client_certificate: require): --certificate and --key"


# There was a result

_AD_DATA = re.compile(r"\bdata ([0-9a-f]{3,4})\b", re.IGNORECASE).search
AD_DATA: Mapping[str, str] = {
    "525": "there is no such user",
    "52e": "wrong password, or refused by mfad in the same words",
    "530": "not at this hour",
    "531": "not from this computer",
    "532": "the password has expired",
    "533": "the account is disabled",
    "568": "the account is in too many groups",
    "701": "the account has expired",
    "773": "the password must be changed first",
    "775": "the account is locked",
}
"""What Active Directory means by the number behind ``data`` in its text."""


def _result(act: Act, result: Result, seen: Circumstances) -> Meaning:
    if result.code == ResultCode.SUCCESS:
        return _success(act, seen)
    text = result.diagnostic.decode("utf-8", "backslashreplace")
    said = f" ({text})" if text else ""
    cures = list(_cures(act, result.code, text, seen))
    return Meaning(f"{_WHO[act]}: {named(result.code)}{said}", tuple(cures))


_WHO = {
    Act.CONNECT: "the connection was refused",
    Act.TLS: "StartTLS was refused",
    Act.SERVICE_BIND: "the account that searches was refused",
    Act.SEARCH: "the search was refused",
    Act.BIND: "refused",
    Act.WHO_AM_I: "the question who we are was refused",
    Act.BIND_AGAIN: "let in, and refused when the same text came again",
}


def _success(act: Act, seen: Circumstances) -> Meaning:
    if act is Act.BIND_AGAIN:
        if seen.is_person_exempt:
            return Meaning("let in, and again with the same text: this DN needs no code")
        return Meaning("let in, and again with the same text: an application that keeps it will go on working meanwhile")
    if act is Act.BIND and seen.is_person_exempt:
        return Meaning("let in, without a code: this DN is exempt (exempt)")
    return Meaning("let in")


def _cures(act: Act, code: int, text: str, seen: Circumstances) -> Iterator[str]:
    found = _AD_DATA(text)
    if found is not None and found[1].lower() in AD_DATA:
        yield f"Active Directory means: {AD_DATA[found[1].lower()]}"
    match code:
        case ResultCode.INVALID_CREDENTIALS:
            yield from _invalid_credentials(act, seen)
        case ResultCode.CONFIDENTIALITY_REQUIRED:
            yield "nothing is accepted in clear here (tls.required): --start-tls, or an ldaps:// address"
            yield "or it is the directory that says so to mfad: upstream with ldaps://, or start_tls"
        case ResultCode.STRONGER_AUTH_REQUIRED:
            yield "the directory takes no password over a connection in clear: upstream with ldaps://, or start_tls"
        case ResultCode.UNWILLING_TO_PERFORM:
            yield "a DN with an empty password is never a login (RFC 4513 section 5.1.2): was anything typed?"
            yield "else the directory says why in its own log: a policy for passwords, a frozen account"
        case ResultCode.INAPPROPRIATE_AUTHENTICATION:
            yield "nobody may come without a name here (anonymous: deny): give the application an account"
            yield "or the entry has no password in the directory"
        case ResultCode.AUTH_METHOD_NOT_SUPPORTED:
            yield "only simple binds can carry a code: let the application bind with DN and password"
        case ResultCode.BUSY:
            yield "more logins wait than mfad takes (limits): look who sends so much"
        case ResultCode.UNAVAILABLE:
            yield "the directory, or mfad's own store, cannot be used now: `mfactl doctor`, and the log of mfad"
        case ResultCode.NO_SUCH_OBJECT:
            yield f"there is no such entry: look at {'--search-base' if act is Act.SEARCH else 'the DN'}"
            if act is Act.SEARCH:
                yield "or whoever searches may not see it: give the application's account with --bind-dn"
        case ResultCode.INVALID_DN_SYNTAX:
            yield "this is no DN for the directory; names such as user@realm are for Active Directory (user.bind_names)"
        case ResultCode.INSUFFICIENT_ACCESS_RIGHTS | ResultCode.OPERATIONS_ERROR if act is Act.SEARCH:
            yield "who is not bound may not search here: give the application's account with --bind-dn"
        case ResultCode.OPERATIONS_ERROR if act is Act.TLS:
            yield "TLS is on already: leave --start-tls out with ldaps://"
        case ResultCode.PROTOCOL_ERROR if act is Act.TLS:
            yield "there is no certificate for StartTLS (doors.ldap.tls)"
        case ResultCode.CONSTRAINT_VIOLATION:
            yield "the directory has locked the account, or wants another password: see its own log"
        case ResultCode.REFERRAL:
            yield "the directory sends us to another one: upstream must be the one that has these entries"
        case _:
            yield "see the log of the directory, and that of mfad"


def _invalid_credentials(act: Act, seen: Circumstances) -> Iterator[str]:
    if act is Act.SERVICE_BIND:
        if seen.exempt is False:
            yield "this DN is not exempt, so a code is asked of it: name it in exempt.dn of doors.ldap, or of its application"
        yield "compare the password of the account with the directory: `ldapwhoami -x -D DN -W` there"
        if seen.exempt is None:
            yield "an account of a program has no code: mfad must have its DN in exempt.dn"
    elif act is Act.BIND_AGAIN:
        yield "the code was spent by the first bind, as it must be"
        if seen.remember in (None, RememberMode.OFF):
            yield "an application that binds again with the text it keeps needs `remember`: see *Remember* in docs/ldap.md"
        else:
            yield "`remember` is on, and did not help: too late (ttl), too often (max_uses), or another worker"
    elif seen.separator is None:
        yield "what stands in the password field must be password and code, in the form that the application has"
    elif seen.separator:
        yield f"what stands in the password field must be password{seen.separator}code, such as secret{seen.separator}123456"
    else:
        yield "what stands in the password field must be password and code, such as secret123456"


def named(code: int | None) -> str:
    """A result code as people look it up: ``invalidCredentials (49)``."""
    if code is None:
        return "no code"
    try:
        first, *more = ResultCode(code).name.lower().split("_")
    except ValueError:
        return f"result {code}"
    return f"{first}{''.join(word.capitalize() for word in more)} ({int(code)})"
