"""What does the outcome of a trial at the RADIUS door mean, and what mends it?

Room rule: values in, sentences out. Nothing is sent or read here; what could be looked up in the configuration was looked up
before, and stands in :class:`Circumstances`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from radius_plugin.authenticators import Doubt
from radius_plugin.settings import ClientSettings, Refusal, RequireSignature, SignReplies
from radius_plugin.trial import Believed, Doubted, Protection, Signature, Silence
from radius_plugin.wire import Code


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known about a trial. ``client`` and ``holder`` are None where the configuration was not asked.

    ``client`` is the entry whose secret was used; ``holder`` names the entry that has the address which was sent from, "" for
    none.
    """

    server: str
    source: str
    protection: Protection
    client: ClientSettings | None = None
    holder: str | None = None


@dataclass(frozen=True, slots=True)
class Meaning:
    """One sentence, and what to do, most likely first."""

    sentence: str
    cures: tuple[str, ...] = ()


def meaning_of(answer: Believed | Doubted | Silence, seen: Circumstances) -> Meaning:
    """What an answer (or none) to the last request means."""
    match answer:
        case Believed():
            return _believed(answer, seen)
        case Doubted():
            return _doubted(answer, seen)
        case Silence.NOBODY_LISTENS:
            return Meaning(
                f"nobody listens on UDP at {seen.server} (its host said so)",
                ("start mfad, and see in its log on what it listens: `systemctl status mfad`, or doors.radius.listen",),
            )
        case Silence.TIMED_OUT:
            certain = tuple(_certainly_silent(seen))
            if certain:
                return Meaning(f"no answer from {seen.server}, and there must be none: {certain[0]}", certain[1:])
            return Meaning(f"no answer from {seen.server}; what it can be, most likely first:", tuple(_perhaps_silent(seen)))


def _believed(answer: Believed, seen: Circumstances) -> Meaning:
    match answer.packet.code:
        case Code.ACCESS_ACCEPT:
            return Meaning("accepted", tuple(_signed_badly(answer, seen)))
        case Code.ACCOUNTING_RESPONSE:
            return Meaning("acknowledged")
        case Code.ACCESS_CHALLENGE:
            return Meaning("asked for more, and no answer was given", tuple(_signed_badly(answer, seen)))
        case _:
            return Meaning("rejected", tuple(_signed_badly(answer, seen)))


def _signed_badly(answer: Believed, seen: Circumstances) -> Iterator[str]:
    match answer.signature:
        case Signature.NONE:
            yield (
                "the reply has no Message-Authenticator, as reply_message_authenticator: never says; clients of today drop it, "
                "and none can tell it from a forged one (CVE-2024-3596)"
            )
        case Signature.LATER:
            yield "the Message-Authenticator is not the first attribute of the reply: some clients drop it (mfad puts it first)"
        case Signature.FIRST:
            pass
    if seen.protection is Protection.UNSIGNED:
        yield "the request had no Message-Authenticator, and was answered: say require_message_authenticator: yes if you can"


def _doubted(answer: Doubted, seen: Circumstances) -> Meaning:
    match answer.doubt:
        case Doubt.RESPONSE_AUTHENTICATOR:
            return Meaning(
                "something answered, and not with this secret: the Response Authenticator is wrong",
                (
                    "compare the secrets of both sides, octet by octet (a blank or a line end at the end counts)",
                    *_another_entry(seen),
                    "or the answer was forged or changed on the way: look at what stands between",
                ),
            )
        case Doubt.UNSIGNED:
            return Meaning(
                "the answer is made with this secret, but carries no Message-Authenticator: a client of today drops it",
                (
                    "let the server sign its replies (mfad: reply_message_authenticator: always, which is the default)",
                    "a server older than July 2024 cannot: update it (CVE-2024-3596)",
                ),
            )
        case Doubt.MESSAGE_AUTHENTICATOR:
            return Meaning(
                "the answer's Message-Authenticator is wrong, though its Response Authenticator is right",
                ("what wrote it signs in its own way, or somebody put one packet in the place of another: look at the way",),
            )
        case Doubt.PROXY_STATE:
            return Meaning(
                "the answer carries a Proxy-State that was not sent: this is what a forged answer looks like (CVE-2024-3596)",
                ("find out who stands between client and server",),
            )
        case Doubt.IDENTIFIER | Doubt.CODE | Doubt.MALFORMED:
            return Meaning(
                f"something came back that is no answer to this request ({answer.detail})",
                ("see what else speaks on this port: `ss -ulpn`",),
            )


def _another_entry(seen: Circumstances) -> Iterator[str]:
    if seen.client is not None and seen.holder not in (None, seen.client.name):
        yield f"the server takes {seen.source} for client {seen.holder!a}, the secret was that of {seen.client.name!a}"


def _certainly_silent(seen: Circumstances) -> Iterator[str]:
    """Why mfad must be silent by its configuration: the reason, then what mends it. Nothing where it need not be."""
    client = seen.client
    if seen.holder == "":
        yield f"no client has the address that was sent from, {seen.source}, and strangers are not answered"
        yield f"add a client with `network: {seen.source}` to doors.radius.clients and reload mfad, or say another --source"
    elif client is not None and seen.holder not in (None, client.name):
        yield f"{seen.source} is client {seen.holder!a}, and the secret was that of {client.name!a}"
        yield f"test client {seen.holder!a}, or send from an address of {client.name!a} (--source)"
    elif client is not None and seen.protection is Protection.UNSIGNED and _must_sign(client):
        yield f"client {client.name!a} must sign its requests (require_message_authenticator: yes), and this one was not signed"
        yield "leave --unsigned out; if the real client signs nothing, read *Message-Authenticator* in docs/radius.md"


def _must_sign(client: ClientSettings) -> bool:
    return client.require_message_authenticator is RequireSignature.YES


def _perhaps_silent(seen: Circumstances) -> Iterator[str]:
    if seen.client is None:
        yield f"the server does not know the address that was sent from, {seen.source}"
    if seen.protection is Protection.SIGNED:
        yield "the secret is another one than the server's: a signature that does not fit is not answered"
    else:
        yield "the server wants signed requests: leave --unsigned out"
    if seen.client is not None:
        yield "mfad has not read this configuration yet: `systemctl reload mfad` after a change of clients or secrets"
        if seen.client.require_message_authenticator is RequireSignature.AUTO and seen.protection is Protection.UNSIGNED:
            yield "the client has signed before, and must do so since (require_message_authenticator: auto)"
        if seen.client.on_unavailable is Refusal.SILENCE:
            yield "mfad cannot decide now, and says nothing (on_unavailable: silence): see `mfactl doctor`"
        if seen.client.on_timeout is Refusal.SILENCE:
            yield "the first factor's backend took too long (on_timeout: silence): try a longer --timeout"
        if seen.client.requests_per_s:
            yield f"more than {seen.client.requests_per_s:g} requests a second came from this client (requests_per_second)"
    else:
        yield "another port: authentication is 1812 as a rule, accounting 1813 (--accounting)"
    yield "a packet filter on the way, or the answer took longer than --timeout"
    yield "the log of mfad has a line for what it dropped: `journalctl -u mfad | grep dropped`"


def replies_are_signed(client: ClientSettings | None) -> bool:
    """Whether a reply without a Message-Authenticator is to be doubted."""
    return client is None or client.reply_message_authenticator is SignReplies.ALWAYS
