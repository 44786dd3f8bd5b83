"""Other names for patients, studies and films: the same for the same id, and without the key no way back.

HMAC-SHA256 of the id (RFC 2104), cut to 64 bits: among a million ids, two share a name with odds of 1 in 37 million.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from weakray.errors import DataError

Role = Literal["patient", "study", "film"]
_LEAST_KEY_BYTES = 16
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")


@dataclass(frozen=True)
class Pseudonyms:
    """Renames ids.

    Attributes:
        key: secret of the hospital; b"" makes names that anybody with a list of ids can look up.
        keep: leaves ids as they are, for data that were de-identified before.
    """

    key: bytes = b""
    keep: bool = False

    @classmethod
    def of(cls, identifiers: Literal["pseudonym", "keep"], key_file: Path | None) -> Pseudonyms:
        """By the settings of an ingest verb.

        Raises:
            DataError: if the key's file is missing or too short to be a secret.
        """
        if key_file is None:
            return cls(keep=identifiers == "keep")
        try:
            key = key_file.read_bytes().strip()
        except OSError as error:
            raise DataError(f"{key_file}: expected the key of the pseudonyms, got {error.strerror or error}") from None
        if len(key) < _LEAST_KEY_BYTES:
            raise DataError(
                f"{key_file}: expected a key of {_LEAST_KEY_BYTES} bytes or more, got {len(key)}; make one with "
                "`openssl rand -hex 32`"
            )
        return cls(key, identifiers == "keep")

    def name(self, role: Role, raw: str) -> str:
        """The other name of an id, fit for a file name; ids kept as they are unless they would not be fit for one."""
        if self.keep and _FILE_NAME.fullmatch(raw):
            return raw
        return hmac.new(self.key, f"{role}:{raw}".encode(), hashlib.sha256).hexdigest()[:16]
