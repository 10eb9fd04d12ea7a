"""The throttled log: a disk that refuses is logged once a minute, not once for each request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs
from twisted.logger import Logger

#: Seconds from one line to the next that says the same.
PAUSE = 60.0
#: The consequence of a file that cannot be written, read, or removed.
UNKEPT = "what comes passes through without being kept"
UNREAD = "what lies there is fetched all the same"
STAYS = "the file stays, and counts"

_log = Logger(namespace="proxpi.files")


@attrs.define(eq=False)
class ThrottledLog:
    """What is logged of one cache folder.

    :ivar seconds: tells the time, from any beginning
    """

    folder: Path
    seconds: Callable[[], float]
    _last: dict[str, float] = attrs.field(init=False, factory=dict)
    _unsaid: Counter[str] = attrs.field(init=False, factory=Counter)

    def say(self, error: OSError, consequence: str = UNKEPT) -> None:
        """Log an error and its consequence, unless the same one was logged within a minute."""
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
