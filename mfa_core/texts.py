"""What may be said to the person: the only texts that leave the machine.

Room rule: every public sentence stands here. A refusal is one sentence for every cause, except where the person has proved the
first factor or sits at a prompt: there "already used" and the waiting time help the owner, and tell a guesser nothing that the
next code would not (the reasons themselves are for ``mfactl why``).
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

DENIED = "Access denied."
WRONG_CODE = "This code was not right."
CODE_PROMPT = "Verification code: "
COMBINED_PROMPT = "Password and verification code: "
ENROLMENT_PROMPT = "Code shown by your authenticator: "
ACKNOWLEDGE_PROMPT = "Last four characters of the recovery key: "
LOCKED = "Too many wrong codes: this account is locked. Use a recovery code, or contact your administrator."
LOCKED_BY_ADMIN = "This account is locked. Contact your administrator."
MUST_ENROL = "A second factor is required and none is set up. Contact your administrator."
GRACE_ENDED = "A second factor is required and the time to set it up has passed. Contact your administrator."
ENROLLED = "Your second factor is set up. Keep the recovery key apart from your phone."
WRONG_ENROLMENT_CODE = "This is not the code of the new entry. Check the clock of your phone."
WRONG_ACKNOWLEDGEMENT = "These are not the last four characters of the recovery key above."
NOT_ACKNOWLEDGED = "Log in again with a code. If the recovery key is lost, ask your administrator for another one."
CANNOT_RECORD = "The use of the code cannot be recorded (cannot record use). Try again later."

NOT_ENTITLED = "You may not log in here. Contact your administrator."
RECOVERY_NEEDS_NETWORK = (
    "Recovery codes and temporary codes need the network, which this host cannot reach: type a code of your authenticator."
)
HELD_ELSEWHERE = "The codes of your token need the network, which this host cannot reach. Try again later."
LOCKED_OFFLINE = "Too many wrong codes: this account is locked until this host reaches the network again."
NEVER_SYNCED = "This host cannot reach the network and has heard of nobody yet. Contact your administrator."
HOST_REVOKED = "This host may not check codes any more. Contact your administrator."
CLOCK_NOT_TRUSTED = "This host cannot reach the network and its clock may be wrong. Contact your administrator."
CACHE_EXPIRED = "This host cannot reach the network and has not for too long. Contact your administrator."
NOT_OFFLINE = "This host cannot reach the network, and nobody is let in here without it. Try again later."
TOO_EARLY = "This host cannot reach the network at the moment. Try again in a minute."


def already_used(wait_s: float) -> str:
    """For a code that was right and is spent. ``wait_s`` is 0 when no other one will come (a recovery code)."""
    if wait_s <= 0:
        return "This code was already used."
    return f"This code was already used: wait {_seconds(wait_s)} for the next one."


def retry_in(wait_s: float) -> str:
    """For an account or source that has to wait."""
    if wait_s >= 120:
        return f"Too many wrong codes. Try again in {math.ceil(wait_s / 60)} minutes."
    return f"Too many wrong codes. Try again in {_seconds(wait_s)}."


def grace_notice(until: float, now: float) -> str:
    """The deadline of enrolment, as days left and as a date in UTC."""
    days = max(0, math.ceil((until - now) / 86_400))
    day = datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%d")
    return f"A second factor will be required in {days} day{'' if days == 1 else 's'} (from {day} UTC). Please set one up."


def offline_notice(count: int, since: float) -> str:
    """How often this user's codes were taken here without the authority. ``since`` is the first time, Unix seconds."""
    day = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%d %H:%M")
    return f"{count} offline login{'' if count == 1 else 's'} since {day} UTC."


def recovery_notice(left: int) -> str:
    """What remains after a recovery code was used."""
    return f"{left} of your recovery codes {'is' if left == 1 else 'are'} left."


RECOVERY_KEY_USED = "Your recovery key is spent. Get a new one from your administrator."
RECOVERY_KEY_REPLACED = "Your recovery key is spent. This is the new one."
BYPASS_USED = "You used a temporary code. Set up your authenticator again, or contact your administrator."


def _seconds(wait_s: float) -> str:
    seconds = max(1, math.ceil(wait_s))
    return f"{seconds} second{'' if seconds == 1 else 's'}"
