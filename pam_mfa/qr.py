"""What does a person see who enrols at a login prompt?

Room rule: the drawing of an enrolment lives here, and the door's only import of segno. One text comes out: OpenSSH 9.4 to 10.2
abort a login that shows many messages between two prompts.
"""

from __future__ import annotations

import io

import segno

from mfa_core.secret import Secret
from mfa_core.verdict import EnrolmentOffer
from pam_mfa.plain_text import one_line, paragraph
from pam_mfa.settings import QrStyle
from pam_mfa.wire import SHOWN_MAX

COLUMNS = 80
BORDER = 1
"""Modules of quiet zone. ISO/IEC 18004 wants 4; with 1, version 5 (106 bytes of URI) is 39 columns and 20 rows of half blocks,
and 24 rows hold it with a line above, the key and the prompt; of version 6 (134 bytes) the line above has scrolled away.
Light modules are drawn, so a dark terminal extends the zone's rim."""


def grouped(text: str, size: int = 4) -> str:
    """Return ``text`` in groups, as people type it."""
    return " ".join(text[at : at + size] for at in range(0, len(text), size))


def draw_enrolment(offer: EnrolmentOffer, style: QrStyle) -> str:
    """Return the one text that shows ``offer``: a line to read first, the QR code, the key in groups of four.

    The first line is not the code's first row, because sshd glues the text to the prompt, and ssh puts ``(user@host)`` before.
    """
    key = grouped(offer.secret_base32.reveal().decode("ascii", "replace"))
    account = one_line(f"{offer.issuer}: {offer.account}", limit=128)
    code = _draw(offer.otpauth_uri, style)
    if code:
        return paragraph(f"Scan with an authenticator app ({account}):\n{code}\nKey: {key}", limit=SHOWN_MAX)
    uri = offer.otpauth_uri.reveal().decode("ascii", "replace")
    return paragraph(f"Add this to an authenticator app ({account}):\n{uri}\nKey: {key}", limit=SHOWN_MAX)


def draw_recovery_key(key: Secret) -> str:
    """Return the text that shows the recovery key, once."""
    shown = grouped(key.reveal().decode("ascii", "replace").replace("-", "").replace(" ", ""))
    return paragraph(f"Recovery key, shown only now. Write it down and keep it safe:\n{shown}", limit=SHOWN_MAX)


def _draw(uri: Secret, style: QrStyle) -> str:
    """Return the code without a last line end, or nothing when it cannot be drawn so that a terminal shows it whole."""
    if style is QrStyle.NONE:
        return ""
    try:
        code = segno.make_qr(uri.reveal().decode("ascii", "replace"), error="l", boost_error=False)
    except segno.DataOverflowError:
        return ""
    if style is QrStyle.ASCII:
        drawn = "\n".join("".join("  " if dark else "##" for dark in row) for row in code.matrix_iter(border=BORDER))
    else:
        out = io.StringIO()
        code.terminal(out, border=BORDER, compact=True)
        drawn = out.getvalue().rstrip("\n")
    fits = max(map(len, drawn.split("\n"))) <= COLUMNS and len(drawn.encode()) <= SHOWN_MAX - 1_024
    return drawn if fits else ""
