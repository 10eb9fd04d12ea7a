"""Files that are not finished: written under a name of their own, locked, hashed as they grow."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

#: Bytes that are gathered before they are written.
BUFFER = 1 << 20


class Partial:
    """A file that is being written; nobody else sees it, and nobody else may remove it."""

    def __init__(self, folder: Path, algorithms: set[str]) -> None:
        self.path = folder / f"partial-{secrets.token_hex(8)}"
        # Not tempfile's: its files are closed to other users, who may share the folder.
        self._file = open(self.path, "xb", buffering=BUFFER)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._algorithms = algorithms | {"sha256"}
        self._start()

    def _start(self) -> None:
        self.size = 0
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in self._algorithms}

    def write(self, data: bytes) -> None:
        """Add bytes, hashing them as they pass."""
        self._file.write(data)
        self.size += len(data)
        for digest in self._hashes.values():
            digest.update(data)

    def restart(self) -> None:
        """Throw away what was written."""
        self._file.seek(0)
        self._file.truncate()
        self._start()

    def finish(self) -> dict[str, str]:
        """Write all of it, and give its digests."""
        self._file.flush()
        return {name: digest.hexdigest() for name, digest in self._hashes.items()}

    def reopen(self) -> BinaryIO:
        """Open what was written for reading."""
        return open(self.path, "rb", buffering=0)

    def close(self) -> None:
        """End the writing, and remove the file if it still has its partial name."""
        self.unlink()
        with suppress(OSError):  # a full disk may refuse the last buffer, too
            self._file.close()

    def unlink(self) -> None:
        """Remove the file if it still has its partial name."""
        with suppress(OSError):  # it has its own by now, or the folder is for reading only
            os.unlink(self.path)
