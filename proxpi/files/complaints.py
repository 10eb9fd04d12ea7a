"""What the log is told of a disk that refuses: clearly, and not once for each request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
from twisted.logger import Logger

#: Seconds from one line to the next.
PAUSE = 60.0

_log = Logger(namespace="proxpi.files")


@attrs.define(eq=False)
class Complaints:
    """Complaints about one folder.

    :ivar seconds: tells the time, from any beginning
    """

    folder: Path
    seconds: Callable[[], float]
    _last: float = attrs.field(init=False, default=float("-inf"))
    _unsaid: int = attrs.field(init=False, default=0)

    def say(self, error: OSError) -> None:
        """Write that a file could not be kept, unless that was written within a minute."""
        now = self.seconds()
        if now < self._last + PAUSE:
            self._unsaid += 1
            return
        _log.error(
            "cache folder {folder}: {error}; what comes passes through without being kept{more}",
            folder=self.folder,
            error=error,
            more=f" ({self._unsaid} more files since this was last said)" if self._unsaid else "",
        )
        self._last, self._unsaid = now, 0
