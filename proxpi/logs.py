"""What is logged, and where to: the place twistd was told, from a level on.

twistd has options for the place (``--logfile``, ``--syslog``, ``--logger``) and none for the
level. Before it makes an observer it asks the application for one; :class:`Logged`, the
outermost service, hands in one that writes to the same place and drops what is below.

The access log is most of it, and costs most: as an event of Twisted's, a line takes longer than
all else that a request does. So its lines are written as text, some at a time (:class:`Text`); what
is logged otherwise comes after the lines that were there before.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import IO, Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LegacyLogObserverWrapper,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
    eventAsText,
    formatEvent,
    formatTime,
)
from twisted.python.components import Componentized
from twisted.python.logfile import LogFile
from twisted.python.syslog import SyslogObserver
from zope.interface import implementer

from proxpi.simple.names import printable

#: The namespace of the access log.
ACCESS = "proxpi.access"
#: Seconds after which its lines are written at the latest.
DELAY = 0.1

_access = Logger(namespace=ACCESS)
_NOISE = re.compile(r"Unable to write to plugin cache|Site.* starting on ")
_LEVELS = {
    "DEBUG": LogLevel.debug,
    "INFO": LogLevel.info,
    "WARNING": LogLevel.warn,
    "ERROR": LogLevel.error,
    "CRITICAL": LogLevel.critical,
}


@implementer(ILogObserver)
class Text:
    """A log of lines in a file, the access log among them.

    :ivar clock: whose timers write down lines that nothing else does; none is set without lines
    """

    def __init__(self, file: IO[Any], clock: IReactorTime) -> None:
        self._file = file
        self._clock = clock
        self._observer = FileLogObserver(file, _text)
        # Events come from other threads as well, lines from the reactor's alone.
        self._lines: deque[str] = deque()
        self._due = False

    def __call__(self, event: LogEvent) -> None:
        """Write an event; see `ILogObserver`."""
        self.write()
        self._observer(event)

    def line(self, text: str) -> None:
        """Write a line of the access log, soon."""
        self._lines.append(f"{_stamp(int(time.time()))}{text}\n")
        if not self._due:
            self._due = True
            self._clock.callLater(DELAY, self._write_due)

    def write(self) -> None:
        """Write the lines that are there."""
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if lines:
            self._file.write("".join(lines))
            self._file.flush()

    def _write_due(self) -> None:
        self._due = False
        with suppress(OSError, ValueError):  # there is no place to tell of it
            self.write()


def _text(event: LogEvent) -> str | None:
    """Write an event as Twisted does, but its message in one line of printable characters."""
    message = {"log_format": "{message}", "message": printable(formatEvent(event))}
    text = eventAsText({**event, **message})
    # What other lines there are are those of a traceback.
    return "\n\t".join(map(printable, text.rstrip("\n").split("\n"))) + "\n" if text else None


@lru_cache(maxsize=2)
def _stamp(second: int) -> str:
    """Give what a line of the access log begins with, as Twisted has it for its events."""
    return f"{formatTime(second)} [{ACCESS}#info] "


class Logged(MultiService):
    """The outermost service: its application logs what is of ``level`` or above.

    ``level`` is :attr:`proxpi.settings.Settings.logging_level`. ``twistd`` are twistd's own
    options (the ``parent`` of the plugin's), or None if twistd is not what runs; then, and
    for a ``--logger`` of the user's own, logging is left as it is.
    """

    def __init__(self, level: str, twistd: Mapping[str, Any] | None, reactor: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._level = level
        self._twistd = twistd
        self._reactor = reactor
        self._text: Text | None = None
        self._tells_access = _LEVELS[level] <= LogLevel.info

    def access(self, line: str) -> None:
        """Write a line of the access log."""
        if self._text is None:
            _access.info("{line}", line=line)
        elif self._tells_access:
            self._text.line(line)

    def stopService(self) -> Deferred[Any]:
        """Stop, and write down what is left."""
        stopped: Deferred[Any] = super().stopService()  # type: ignore[no-untyped-call]
        if self._text is not None:
            write = self._text.write
            stopped.addBoth(lambda result: (write(), result)[1])
        return stopped

    def setServiceParent(self, parent: Any) -> None:
        """Join the application, and hand in its log observer."""
        # Only here are twistd's options final and the application known.
        if self._twistd is not None and isinstance(parent, Componentized):
            place = _place(self._twistd, self._reactor)
            if place is not None:
                if isinstance(place, Text):
                    self._text = place
                level = LogLevelFilterPredicate(_LEVELS[self._level])
                # It has a line for every connection to an upstream.
                level.setLogLevelForNamespace("twisted.web.client", LogLevel.warn)
                # It has one for each factory that starts or stops.
                level.setLogLevelForNamespace("twisted.protocols.haproxy", LogLevel.warn)
                predicates: list[Any] = [_noise, level]
                parent.setComponent(ILogObserver, FilteringLogObserver(place, predicates))
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]


def _noise(event: LogEvent) -> Any:
    """Drop what twistd says of its list of plugins, and of each port, which proxpi names itself."""
    # Both are logged by the older interface, whose events have a text.
    text = str(event.get("log_text") or event.get("format"))
    return PredicateResult.no if _NOISE.match(text) else PredicateResult.maybe


def _place(twistd: Mapping[str, Any], reactor: Any) -> ILogObserver | None:
    """An observer like the one twistd would make; None for what twistd is to see to itself."""
    if twistd["syslog"]:
        return LegacyLogObserverWrapper(
            SyslogObserver(twistd["prefix"]).emit  # type: ignore[arg-type]  # a plain function
        )
    path = twistd["logfile"] or ("-" if twistd["nodaemon"] else "twistd.log")
    if path == "-":
        # A daemon that is to log to stdout is an error, and twistd's to report.
        return Text(sys.stdout, reactor) if twistd["nodaemon"] else None
    file = LogFile.fromFullPath(path)
    signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(file.rotate))
    return Text(file, reactor)
