"""What does one directory server offer to this door, and what stands in its way?

Room rule: looks, step by step, and says what was seen with a cure; changes nothing there and sends no user's password. For
``mfactl doctor`` and ``mfactl ldap test``. Each step needs the one before it, and the first problem with a connection ends
the probe.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from ldap_proxy.dialling import Addresses, DialFailed, Stage, dial
from ldap_proxy.directory_client import Answer, DirectoryClient, NoAnswer, result_name
from ldap_proxy.link import Link
from ldap_proxy.message import (
    BIND_REQUEST,
    EXTENDED_REQUEST,
    SEARCH_REQUEST,
    START_TLS,
    WHO_AM_I,
    ResultCode,
    Scope,
    build_bind,
    build_extended_request,
    build_search,
    present,
)
from ldap_proxy.settings import Confirm, LookupSettings, Scheme, Server, UpstreamSettings
from ldap_proxy.upstream_tls import fingerprint_of, needs_tls, upstream_tls

WRITE_BUFFER = 64 * 1024
_ROOT_DSE = ("namingContexts", "supportedExtension", "supportedLDAPVersion", "vendorName", "vendorVersion")
_CONNECTION_STAGES = {Stage.NAME, Stage.CONNECTION, Stage.TLS_CONNECTION}


class ProbeStep(enum.StrEnum):
    """What is looked at, in this order."""

    CONNECTION = "connection"
    TLS = "tls"
    ROOT_DSE = "root dse"
    ANONYMOUS = "anonymous"
    WHO_AM_I = "who am i"
    SERVICE_ACCOUNT = "service account"


class Weight(enum.Enum):
    """How much it matters."""

    GOOD = "good"
    WARNING = "warning"
    """It works, and is weak or will surprise somebody."""
    PROBLEM = "problem"
    """Nobody can log in like this, or look-ups fail."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one step showed. ``cure`` is empty where all is well."""

    step: ProbeStep
    weight: Weight
    said: str
    cure: str = ""


class _NobodysOwner:
    """The probe keeps no account of connections."""

    def link_closing(self, link: Link) -> None:
        """See :class:`ldap_proxy.link.Owner`."""

    def link_ended(self, link: Link) -> None:
        """See :class:`ldap_proxy.link.Owner`."""


async def probe(
    server: Server,
    settings: UpstreamSettings,
    *,
    lookup: LookupSettings | None = None,
    confirm: Confirm = Confirm.WHOAMI,
    monotonic: Callable[[], float],
) -> list[Seen]:
    """Look at ``server`` as the door would use it. Each step waits ``settings.connect_timeout_s`` at most.

    With ``lookup`` the service account is tried as well.

    Raises: ConfigurationError, when a CA file or a certificate cannot be used.
    """
    seen: list[Seen] = []
    wants_tls = needs_tls(server.scheme, start_tls=settings.start_tls)
    tls = upstream_tls(settings)
    try:
        link = await dial(
            server, _NobodysOwner(), addresses=Addresses(server, monotonic=monotonic), tls=tls, start_tls=settings.start_tls,
            timeout_s=settings.connect_timeout_s, write_buffer=WRITE_BUFFER,
        )  # fmt: skip
    except DialFailed as err:
        if err.stage in _CONNECTION_STAGES:
            return [Seen(ProbeStep.CONNECTION, Weight.PROBLEM, str(err), err.cure)]
        return [
            Seen(ProbeStep.CONNECTION, Weight.GOOD, f"{server} takes connections"),
            Seen(ProbeStep.TLS, Weight.PROBLEM, str(err), err.cure),
        ]
    seen.append(Seen(ProbeStep.CONNECTION, Weight.GOOD, f"{server} takes connections"))
    if wants_tls:
        seen.append(_tls_of(link, pinned=bool(settings.pins)))
    client = DirectoryClient(link)
    look = _Look(client, settings.connect_timeout_s, seen)
    try:
        await look.at_root_dse(clear=server.scheme is Scheme.LDAP and not wants_tls)
        await look.at_anonymous()
        await look.at_who_am_i(confirm)
        if lookup is not None and lookup.bind_dn:
            await look.at_service_account(lookup, confirm)
    except NoAnswer as err:
        seen.append(Seen(look.step, Weight.PROBLEM, str(err), "see the server's log"))
    finally:
        client.close()
    return seen


def _tls_of(link: Link, *, pinned: bool) -> Seen:
    secured = link.about("ssl_object")
    cipher = secured.cipher()
    said = f"{secured.version()}, {cipher[0] if cipher else 'unknown cipher'}"
    certificate = secured.getpeercert() or {}
    if "notAfter" in certificate:
        said += f"; its certificate ends {certificate['notAfter']}"
    said += f"; SHA-256 {fingerprint_of(secured)}"
    if not certificate and not pinned:
        # Python tells nothing of a certificate that it did not verify.
        cure = "take `verify: none` away, and name the CA in ca_file"
        return Seen(ProbeStep.TLS, Weight.WARNING, f"{said}; not verified", cure)
    return Seen(ProbeStep.TLS, Weight.GOOD, said)


class _Look:
    """The steps over one connection. ``step`` is the one under way. All raise NoAnswer."""

    def __init__(self, client: DirectoryClient, timeout_s: float, seen: list[Seen]) -> None:
        self.step = ProbeStep.ROOT_DSE
        self._client = client
        self._timeout_s = timeout_s
        self._seen = seen
        self._contexts: list[bytes] = []
        self._extensions: frozenset[str] = frozenset()

    async def at_root_dse(self, *, clear: bool) -> None:
        """What the server says of itself (RFC 4512 section 5.1)."""
        answer = await self._client.asked(
            lambda message_id: build_search(message_id, b"", Scope.BASE, present("objectClass"), _ROOT_DSE),
            SEARCH_REQUEST,
            timeout_s=self._timeout_s,
        )
        found = answer.entries[0][1] if answer.entries else {}
        if not found:
            self._tell(
                Weight.WARNING,
                f"nobody but somebody bound may read its root DSE ({_named(answer)})",
                "applications that look at it before they bind will not find the directory's base",
            )
            return
        self._contexts = found.get("namingcontexts", [])
        self._extensions = frozenset(_text(one) for one in found.get("supportedextension", ()))
        versions = {_text(one) for one in found.get("supportedldapversion", ())}
        name = " ".join(_text(one) for kind in ("vendorname", "vendorversion") for one in found.get(kind, ())[:1])
        said = f"{name or 'a server'} with {', '.join(map(_text, self._contexts)) or 'no naming context'}"
        if versions and "3" not in versions:
            self._tell(Weight.PROBLEM, f"{said}; it does not speak LDAP version 3", "use a server that does")
        elif clear and START_TLS in self._extensions:
            self._tell(Weight.WARNING, f"{said}; it offers StartTLS, which is not used", "set upstream_tls.start_tls")
        elif clear:
            self._tell(Weight.WARNING, f"{said}; passwords go to it in clear", "use ldaps://, or give it a certificate")
        else:
            self._tell(Weight.GOOD, said)

    async def at_anonymous(self) -> None:
        """Whether somebody who is not bound may search."""
        self.step = ProbeStep.ANONYMOUS
        if not self._contexts:
            self._tell(Weight.GOOD, "no naming context to search in is known")
            return
        base = self._contexts[0]
        answer = await self._client.asked(
            lambda message_id: build_search(
                message_id, base, Scope.SUBTREE, present("objectClass"), ("1.1",), size_limit=1,
                time_limit_s=max(1, int(self._timeout_s)),
            ),
            SEARCH_REQUEST,
            timeout_s=self._timeout_s,
        )  # fmt: skip
        if answer.entries:
            self._tell(
                Weight.WARNING,
                f"whoever is not bound finds entries in {_text(base)}",
                "forbid it there, or set `anonymous: deny` for those who come through this door",
            )
        else:
            self._tell(Weight.GOOD, f"whoever is not bound finds nothing in {_text(base)} ({_named(answer)})")

    async def at_who_am_i(self, confirm: Confirm) -> None:
        """Whether it says who somebody is (RFC 4532)."""
        self.step = ProbeStep.WHO_AM_I
        answer = await self._ask_who_am_i()
        if answer.result.code == ResultCode.SUCCESS or WHO_AM_I in self._extensions:
            self._tell(Weight.GOOD, "it says who is bound (RFC 4532)")
        elif confirm is Confirm.AS_BOUND:
            said = f"it does not say who is bound ({_named(answer)})"
            self._tell(Weight.WARNING, said, "nothing to mend; aliases of a DN are not seen through")
        else:
            self._tell(
                Weight.PROBLEM,
                f"it does not say who is bound ({_named(answer)}), and `confirm: whoami` lets nobody in without",
                "load or permit the WhoAmI operation there, or set `confirm: as_bound`",
            )

    async def at_service_account(self, lookup: LookupSettings, confirm: Confirm) -> None:
        """Whether look-ups are possible, and in which form it names identities."""
        self.step = ProbeStep.SERVICE_ACCOUNT
        password = lookup.bind_password
        if password is None or not password:
            self._tell(Weight.PROBLEM, f"there is no password for {lookup.bind_dn}", "give lookup.bind_password_file")
            return
        answer = await self._client.asked(
            lambda message_id: build_bind(message_id, lookup.bind_dn.encode(), password.reveal()),
            BIND_REQUEST,
            timeout_s=self._timeout_s,
        )
        if answer.result.code != ResultCode.SUCCESS:
            self._tell(
                Weight.PROBLEM,
                f"it answers {_named(answer)} to the bind as {lookup.bind_dn}",
                "check lookup.bind_dn and lookup.bind_password_file",
            )
            return
        who = await self._ask_who_am_i()
        said = f"{lookup.bind_dn} may bind"
        value = who.result.value or b""
        if who.result.code == ResultCode.SUCCESS and value.startswith(b"u:") and confirm is Confirm.WHOAMI:
            self._tell(
                Weight.WARNING,
                f"{said}; the directory calls it {_text(value)}: no exemption by DN, subtree or group can be confirmed",
                "set `confirm: as_bound` where such exemptions are needed, and list the domain in identity.realms",
            )
        else:
            self._tell(Weight.GOOD, said)

    async def _ask_who_am_i(self) -> Answer:
        return await self._client.asked(
            lambda message_id: build_extended_request(message_id, WHO_AM_I), EXTENDED_REQUEST, timeout_s=self._timeout_s
        )

    def _tell(self, weight: Weight, said: str, cure: str = "") -> None:
        self._seen.append(Seen(self.step, weight, said, cure))


def _named(answer: Answer) -> str:
    return result_name(answer.result.code)


def _text(octets: bytes) -> str:
    """On one line of bounded length that any terminal shows."""
    text = octets.decode("utf-8", "replace")[:200]
    return "".join(c if c.isprintable() else " " for c in text)
