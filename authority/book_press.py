"""The process that makes codes for books: secrets come in, codes go out.

Room rule: standard input and output, and the core; it imports little, because it is started when a host waits. It writes
nothing anywhere else, and ends when nobody holds the other end of its pipe any more.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import struct
import sys
from collections.abc import Iterable
from typing import BinaryIO, Final

from mfa_core import codebook
from mfa_core.model import Credential, CredentialState, Digest, FactorKind
from mfa_core.secret import Secret

LENGTH: Final = struct.Struct("!I")
"""Before a job, and before its codes: how many octets follow."""
_PR_SET_DUMPABLE: Final = 4


def written(wanted: Iterable[tuple[Credential, int, int]]) -> bytes:
    """A job: of each credential so many codes from a step on."""
    return json.dumps(
        [
            [base64.b64encode(one.secret.reveal()).decode(), one.digest.value, one.digits, begin, count]
            for one, begin, count in wanted
        ]
    ).encode()


def made(job: bytes) -> bytes:
    """Its codes, one after another."""
    packed = []
    for secret, digest, digits, begin, count in json.loads(job):
        credential = Credential(
            1, FactorKind.TOTP, CredentialState.ACTIVE, Secret(base64.b64decode(secret)), Digest(digest), digits
        )
        packed.append(codebook.pack(credential, begin, count))
    return b"".join(packed)


def serve(asked: BinaryIO, answers: BinaryIO) -> None:
    """Make what is asked for, until nobody asks any more."""
    while len(head := asked.read(LENGTH.size)) == LENGTH.size:
        (size,) = LENGTH.unpack(head)
        job = asked.read(size)
        if len(job) < size:
            return
        octets = made(job)
        answers.write(LENGTH.pack(len(octets)) + octets)
        answers.flush()


def main() -> None:
    """The process. Its one argument says how much it stands back behind others, as nice(1) has it."""
    # No core dump, and no other process of this uid looks into this memory. exec(2) has taken mfad's own setting away.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    with contextlib.suppress(PermissionError):  # a unit may forbid it (@resources): then it is as urgent as logins
        os.nice(int(sys.argv[1]))
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
