"""What the words in the audit log mean to an administrator, and what mends it.

Room rule: one entry for each reason and each action; tests hold the tables against the enums and the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mfa_core.audit import By
from mfa_core.model import Door
from mfa_core.verdict import Exemption, Reason, Unready
from mfactl.output import moment, printable


@dataclass(frozen=True, slots=True)
class Advice:
    """A sentence, and a cure (empty when there is nothing to mend)."""

    meaning: str
    cure: str = ""


_R, _U, _E = Reason, Unready, Exemption

REFUSALS: Mapping[str, Advice] = {
    _R.MISMATCH: Advice(
        "the code is none that this user's credentials give now",
        "compare the phone's clock with `timedatectl` here; for a hardware token try `mfactl cred resync`",
    ),
    _R.REPLAYED: Advice(
        "the code was right, and used before (or before a restore)",
        "wait for the next code; an application that binds twice over LDAP needs `remember`; if the user did not use the code,"
        " `mfactl user reset NAME`",
    ),
    _R.MALFORMED: Advice(
        "what was typed cannot be a code of any kind that this user has",
        "if a password stood before the code: see `mode` of the PAM service or RADIUS client, `split` of the LDAP application",
    ),
    _R.NO_CODE: Advice(
        "password and code were expected in one text, and there was no code",
        "see `mode` and `split` of the PAM service or RADIUS client, `split` of the LDAP application",
    ),
    _R.EMPTY: Advice("nothing was typed"),
    _R.JUNK: Advice("sshd refuses this user by itself (AllowUsers, a missing account) and typed filler", "see sshd's own log"),
    _R.THROTTLED: Advice("too many wrong codes lately: not even looked at", "wait, or `mfactl user unlock NAME`"),
    _R.LOCKED: Advice("100 wrong codes in a row", "find out who guesses (source), then `mfactl user unlock NAME`"),
    _R.LOCKED_BY_ADMIN: Advice("an administrator locked this user", "`mfactl user unlock NAME`"),
    _R.SOURCE_THROTTLED: Advice("too many wrong codes from this address, over all users", "look at what runs there"),
    _R.REPEATED: Advice("the same wrong code again from the same client: a retransmission, not counted"),
    _R.UNKNOWN_USER: Advice("nobody here has this name", "`mfactl user add NAME`, if there should be such a user"),
    _R.USERNAME_REFUSED: Advice("the name is not one identity", "see identity.realms and identity.fold_case"),
    _R.NOT_ENROLLED: Advice("the user has no factor that the rule accepts", "`mfactl enrol NAME`"),
    _R.GRACE_ENDED: Advice("the days to enrol are over", "`mfactl enrol NAME`, or `mfactl bypass issue NAME` for today"),
    _R.ENROLMENT_OFFERED: Advice("the user must enrol, and may not from here", "see enrolment.enrol_networks"),
    _R.FACTOR_NOT_ALLOWED: Advice("the rule does not accept this kind of code", "see `mfactl policy explain`"),
    _R.EXPIRED: Advice("the one-time code is past its end", "issue a new one"),
    _R.FACTOR_REQUIRED: Advice(
        "a code is required, and could not be asked for here: a key alone, or sudo with NOPASSWD",
        "see *Keys without a code* in docs/pam.md",
    ),
    _R.POLICY_DENIED: Advice("a rule denies this login", "see `mfactl policy explain`"),
    _R.FIRST_FACTOR_FAILED: Advice(
        "the password is wrong, or its backend refused the account",
        "`mfactl user password NAME --check DOOR` tries it, or `mfactl ldap test --server DIRECTORY`; where `mode` of a RADIUS"
        " client is auto, a wrong code behind a right password counts as part of the password",
    ),
    _R.CANCELLED: Advice("the person or the program gave up"),
    _R.CHALLENGE_EXPIRED: Advice("the answer came too late", "try again"),
    _R.NOT_ENTITLED: Advice(
        "none of this user's groups may log in on hosts of this group; no code was looked at, and nothing counted",
        "at the authority: `mfactl user group NAME add GROUP`, or `mfactl agent entitle HOSTGROUP GROUP`",
    ),
    _R.NEEDS_AUTHORITY: Advice(
        "no authority could be reached, and nothing on this host checks such a code: HOTP, codes of letters, a credential whose"
        " secret is not here",
        "try again when the authority is back (`mfactl agent status`); for outages give the user a time-based credential",
    ),
    _R.NEVER_SYNCED: Advice(
        "no authority could be reached, and this host has no complete answer of one",
        "`mfactl doctor` says what is in the way",
    ),
    _R.HOST_REVOKED: Advice(
        "the authority has revoked or quarantined this host",
        "at the authority `mfactl agent release HOST`, or join again with a new token",
    ),
    _R.CLOCK_ROLLBACK: Advice(
        "no authority could be reached, and this host's clock shows a time that has passed already",
        "put the clock right: `timedatectl set-ntp true`",
    ),
    _R.CLOCK_JUMPED: Advice(
        "no authority could be reached, and this host's clock was set by more than 90 s since one last answered",
        "put the clock back, or wait until the authority answers: it then knows the time again",
    ),
    _R.CACHE_EXPIRED: Advice(
        "no authority could be reached for longer than this host may decide alone, or than it has codes for",
        "mend the way to the authority (`mfactl doctor`); the time is --max-offline of the host group",
    ),
    _R.NOT_OFFLINE: Advice(
        "no authority could be reached, and this service lets nobody in without one",
        "mend the way to the authority; the list is --services of `mfactl agent group set`",
    ),
    _R.TOO_EARLY: Advice(
        "no authority could be reached, but not for as long yet as must be before this host decides alone",
        "try again in a while; the time is --offline-after of the host group",
    ),
}

UNREADY: Mapping[str, Advice] = {
    _U.STORE: Advice("the store could not be read or written", "`mfactl doctor`"),
    _U.STORE_FULL: Advice("the use of a code could not be recorded", "free space on the file system of state_dir"),
    _U.BACKEND: Advice(
        "the backend for passwords did not answer",
        "see `primary` of the door (of the LDAP door: `upstream`) and its server; `mfactl doctor`",
    ),
    _U.OVERLOADED: Advice("a bound was reached", "see `limits`, and who sends so much"),
    _U.CONFIGURATION: Advice("the configuration cannot be used", "`mfactl policy check`"),
    _U.CLOCK: Advice("the clock stands before a step that was accepted", "`timedatectl`, and wait until it is synchronised"),
    _U.INTERNAL: Advice("an error that nobody foresaw", "see mfad's log at that time, and report it"),
}

EXEMPTIONS: Mapping[str, Advice] = {
    _E.POLICY: Advice("a rule asks no second factor here"),
    _E.USER: Advice("an administrator exempted this user", "`mfactl user exempt --undo NAME`, if that should end"),
    _E.GRACE: Advice("the user still has days to enrol", "`mfactl enrol NAME`"),
    _E.TRUST_WINDOW: Advice("the user logged in from here with a code lately"),
    _E.REMEMBERED: Advice(
        "the directory accepted the password, and the door remembers a login with a code (the note names the credential)",
        "see `remember` of the application; `mfactl cred revoke` ends it",
    ),
    _E.ENROLLED_ONLY: Advice("the rule asks enrolled users only, and this one is not", "`mfactl enrol NAME`"),
}

_NOBODYS_DN = Advice(
    "this DN gives no user here and is not exempt, whatever password and code were",
    "for a person compare `user` of doors.ldap (base_dn, mapping, attributes, lookup) with it and see that the entry exists;"
    " for the account of an application name it in exempt.dn; `mfactl doctor`",
)
"""Over LDAP a name that is a DN is one that the mapping made no user name of."""
_OF_NOBODY = frozenset({_R.FIRST_FACTOR_FAILED, _R.NO_CODE, _R.EMPTY, _R.MALFORMED, _R.MISMATCH, _R.UNKNOWN_USER})

_ALONE: Mapping[str, Advice] = {
    _R.UNKNOWN_USER: Advice(
        "this host holds nobody of this name: there is no such user, or the user may not log in here",
        "at the authority `mfactl user show NAME`, `mfactl agent group list`; what changes there comes here with the network",
    ),
}
"""What means something else where a host decides without its authority."""

_OUTCOMES = {
    "accepted": Advice("the second factor was verified, and its use recorded"),
    "challenged": Advice("a code was asked for"),
    "pending": Advice("an answer from another device was awaited"),
}


DEEDS: Mapping[str, str] = {
    "agent.answer_refused": "({}) refused an answer that is not its authority's, or not for it",
    "agent.full_sync": "({}) fetched everything anew from its authority",
    "agent.join": "made {} an agent",
    "agent.journal_fork": "({}) began a new journal: the authority has another one than this host",
    "agent.quarantined": "({}) heard from its authority that it is in quarantine",
    "agent.renew": "({}) got a new certificate",
    "agent.revoked": "({}) heard from its authority that it is revoked, and wiped what it held",
    "agent.rules_refused": "({}) could not read its authority's rules, and keeps the previous ones",
    "agent.sync_not_stored": "({}) could not store what its authority sent, and keeps what it had",
    "alarm.acknowledge": "acknowledged the alarm {}",
    "authority.create": "made the keys of an authority ({})",
    "backup.make": "made the backup {}",
    "bypass.issue": "issued a bypass code to {}",
    "bypass.revoke": "revoked the bypass code of {}",
    "credential.resume": "resumed a credential of {}",
    "credential.resync": "re-synchronised a credential of {}",
    "credential.revoke": "revoked a credential of {}",
    "credential.suspend": "suspended a credential of {}",
    "enrolment.begin": "began an enrolment of {}",
    "enrolment.confirm": "confirmed the new factor of {}",
    "enrolment.expire": "removed an enrolment of {} that nobody confirmed in time",
    "enrolment.provision": "gave {} a factor that is active without a confirmation",
    "host.forget": "removed the revoked host {}",
    "host.join": "let the host {} join",
    "host.new_journal": "saw that the host {} began a new journal",
    "host.quarantine": "put the host {} into quarantine",
    "host.release": "released the host {} from quarantine",
    "host.renew": "gave the host {} a new certificate",
    "host.revoke": "revoked the host {}",
    "host_group.add": "made the host group {}",
    "host_group.entitle": "let users log in on the hosts of {}",
    "host_group.remove": "removed the host group {}",
    "host_group.set": "changed what the hosts of {} may hold and decide alone",
    "host_group.withdraw": "let users no longer log in on the hosts of {}",
    "import.batch": "imported rows of {}",
    "import.done": "finished the import of {}",
    "join_token.cancel": "took a join token back for {}",
    "join_token.issue": "issued a join token for {}",
    "key.data.add": "added the data key {}",
    "key.data.done": "sealed every secret anew under the data key {}",
    "key.rotate": "changed the key-encryption key to {}",
    "recovery.new": "made new recovery codes for {}",
    "recovery.replace_key": "replaced the recovery key of {}, which had been used",
    "replay.suspected": "found that one code was accepted in two places, at last on the host {}",
    "store.create": "made the store {}",
    "store.migrate": "moved the store to {}",
    "store.restore": "restored the store {} from a backup",
    "user.add": "added the user {}",
    "user.exempt": "exempted {} from the second factor",
    "user.group.add": "put {} into groups",
    "user.group.remove": "took {} out of groups",
    "user.inherit": "put {} under the policy again",
    "user.invite": "let {} enrol anew",
    "user.lock": "locked {}",
    "user.password.remove": "took the password of {} away",
    "user.password.set": "set the password of {}",
    "user.require": "required a second factor of {}",
    "user.reset": "reset {}: factors revoked, codes and trust gone",
    "user.unlock": "unlocked {}",
}
"""What was done, by the action in the log; the braces stand for the subject."""
_MOMENTS = frozenset({"grace_until", "lease_until", "not_after", "until"})


def _deed(body: Mapping[str, Any]) -> str:
    """Who did what to whom."""
    action = str(body.get("action", ""))
    done = DEEDS.get(action, f"did {action} to {{}}").replace("{}", str(body.get("subject", "")) or "nobody in particular")
    told = ", ".join(
        f"{key.replace('_', ' ')} {moment(float(value)) if key in _MOMENTS else value}"
        for key, value in body.get("details", {}).items()
        if value != ""
    )
    return printable(f"{body.get('actor')} {done}{f' ({told})' if told else ''}")


def advice(body: Mapping[str, Any]) -> Advice:
    """What an event of the log means."""
    if body.get("event") == "admin":
        return Advice(_deed(body))
    told = _of_attempt(body)
    if body.get("by") == By.HOST:
        told = _ALONE.get(str(body.get("reason", "")), told)
        return Advice(f"no authority answered, this host decided alone: {told.meaning}", told.cure)
    return told


def _of_attempt(body: Mapping[str, Any]) -> Advice:
    reason, outcome = str(body.get("reason", "")), str(body.get("outcome", ""))
    if body.get("door") == Door.LDAP and reason in _OF_NOBODY and "=" in str(body.get("user", "")):
        return _NOBODYS_DN
    for table in (REFUSALS, UNREADY, EXEMPTIONS):
        if reason in table:
            return table[reason]
    return _OUTCOMES.get(outcome, Advice("not explained in this version"))
