"""A key URI as a QR code in a terminal of 80 columns and 24 rows.

Room rule: segno is imported here only.
"""

from __future__ import annotations

import io

from mfa_core.secret import Secret

MAX_COLUMNS = 80
MAX_ROWS = 22
"""24, less the prompt and one line of text."""
BORDER = 1
"""Modules of quiet zone. ISO/IEC 18004 asks for 4; phones read 1, and more would push the code off the screen."""


def draw(uri: Secret) -> str:
    """The code in half blocks, without a last line end; empty when it would not fit the terminal."""
    import segno

    try:
        code = segno.make_qr(uri.reveal().decode("ascii"), error="l", boost_error=False)
    except segno.DataOverflowError:
        return ""
    out = io.StringIO()
    code.terminal(out, border=BORDER, compact=True)
    rows = out.getvalue().rstrip("\n").split("\n")
    return "\n".join(rows) if len(rows) <= MAX_ROWS and max(map(len, rows)) <= MAX_COLUMNS else ""
