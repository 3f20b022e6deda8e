"""Which clients have signed a request, ever? (``require_message_authenticator: auto``)

Room rule: one empty file for a client, so that several workers need no lock and a restart forgets nothing. Learning goes
upwards only: an administrator who wants it back removes the file.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

FOLDER = "radius-signers"

log = logging.getLogger(__name__)


class SignersOnDisk:
    """Files under ``folder``, which is made when it is needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: set[str] = set()

    def has_signed(self, client: str) -> bool:
        """Whether a signed request of this client was ever seen."""
        if client in self._known:
            return True
        try:
            known = self.file_of(client).exists()
        except OSError as err:
            log.error("whether client %s signs its requests cannot be read, so that it must: %s", client, err)
            return True
        if known:
            self._known.add(client)
        return known

    def remember(self, client: str) -> None:
        """It was. What cannot be written is said, and known until the restart."""
        self._known.add(client)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.file_of(client).touch(mode=0o600)
        except OSError as err:
            log.error("that client %s signs its requests cannot be kept over a restart: %s", client, err)
        else:
            log.info("client %s signs its requests: from now on it must", client)

    def file_of(self, client: str) -> Path:
        """The file whose presence says it. Names may hold what file names cannot."""
        return self._folder / hashlib.sha256(client.encode("utf-8", "surrogateescape")).hexdigest()[:32]
