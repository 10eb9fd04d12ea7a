"""What the log is told of a disk that refuses: clearly, and not once for each request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs
from twisted.logger import Logger

#: Seconds from one line to the next that says the same.
PAUSE = 60.0
#: What comes of it that a file cannot be written, not be read, or not be removed.
UNKEPT = "what comes passes through without being kept"
UNREAD = "what lies there is fetched all the same"
STAYS = "it stays, and something else has to go"

_log = Logger(namespace="proxpi.files")


@attrs.define(eq=False)
class ThrottledLog:
    """ThrottledLog about one folder.

    :ivar seconds: tells the time, from any beginning
    """

    folder: Path
    seconds: Callable[[], float]
    _last: dict[str, float] = attrs.field(init=False, factory=dict)
    _unsaid: Counter[str] = attrs.field(init=False, factory=Counter)
    _waiting: bool = attrs.field(init=False, default=False)

    def wait(self) -> None:
        """Write, once, that nothing is kept before the folder has been looked at."""
        if not self._waiting:
            self._waiting = True
            _log.info(
                "cache folder {folder}: there is much to be looked at; until that is done, "
                "what comes passes through",
                folder=self.folder,
            )

    def say(self, error: OSError, consequence: str = UNKEPT) -> None:
        """Write what comes of an error, unless the same was written within a minute."""
        now = self.seconds()
        if now < self._last.get(consequence, float("-inf")) + PAUSE:
            self._unsaid[consequence] += 1
            return
        unsaid = self._unsaid.pop(consequence, 0)
        _log.error(
            "cache folder {folder}: {error}; {consequence}{more}",
            folder=self.folder,
            error=error,
            consequence=consequence,
            more=f" ({unsaid} more files since this was last said)" if unsaid else "",
        )
        self._last[consequence] = now
