"""The log and the access log: written to twistd's destination, from the configured level on.

twistd has options for the destination (``--logfile``, ``--syslog``, ``--logger``) and none for the
level. Before it makes an observer it asks the application for one: :class:`Logged`, the outermost
service, provides one that writes to the same destination and drops events below the level.

Lines of the access log outnumber all events, and as an event a line would take longer than the rest
of its request. So :class:`Text` buffers them as text and writes them together, at the latest after
:data:`DELAY`; an event is written after the lines before it.
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

from proxpi.simple import printable

#: The namespace of the access log.
ACCESS = "proxpi.access"
#: Seconds after which buffered lines are written at the latest.
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
    """A log file: events as Twisted writes them, and the buffered lines of the access log."""

    def __init__(self, file: IO[Any], clock: IReactorTime) -> None:
        self._file = file
        self._clock = clock
        self._observer = FileLogObserver(file, _text)
        # Lines come from the reactor's thread alone, events from any.
        self._lines: deque[str] = deque()
        self._timer_set = False

    def __call__(self, event: LogEvent) -> None:
        self.write()
        self._observer(event)

    def line(self, text: str) -> None:
        self._lines.append(f"{_stamp(int(time.time()))}{text}\n")
        if not self._timer_set:
            self._timer_set = True
            self._clock.callLater(DELAY, self._write_later)

    def write(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if lines:
            self._file.write("".join(lines))
            self._file.flush()

    def _write_later(self) -> None:
        self._timer_set = False
        with suppress(OSError, ValueError):  # an error of the log cannot be logged
            self.write()


def _text(event: LogEvent) -> str | None:
    """Format an event as Twisted does, but its message in one line of printable characters."""
    message = {"log_format": "{message}", "message": printable(formatEvent(event))}
    text = eventAsText({**event, **message})
    # Further lines are those of a traceback.
    return "\n\t".join(map(printable, text.rstrip("\n").split("\n"))) + "\n" if text else None


@lru_cache(maxsize=2)
def _stamp(second: int) -> str:
    return f"{formatTime(second)} [{ACCESS}#info] "


class Logged(MultiService):
    """The outermost service, whose application logs events of a level and above.

    :param twistd: the options of twistd; ``None`` without twistd, which leaves the log as it is
    """

    def __init__(self, level: str, twistd: Mapping[str, Any] | None, reactor: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._level = level
        self._twistd = twistd
        self._reactor = reactor
        self._text: Text | None = None
        self._logs_access = _LEVELS[level] <= LogLevel.info

    def access(self, line: str) -> None:
        if self._text is None:
            _access.info("{line}", line=line)
        elif self._logs_access:
            self._text.line(line)

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await super().stopService()  # type: ignore[no-untyped-call]
        if self._text is not None:
            self._text.write()

    def setServiceParent(self, parent: Any) -> None:
        """Join the application, and provide its log observer."""
        # Only now are twistd's options final and the application known.
        if self._twistd is not None and isinstance(parent, Componentized):
            observer = _observer(self._twistd, self._reactor)
            if observer is not None:
                if isinstance(observer, Text):
                    self._text = observer
                level = LogLevelFilterPredicate(_LEVELS[self._level])
                # An event for every connection to an upstream, and for every factory.
                level.setLogLevelForNamespace("twisted.web.client", LogLevel.warn)
                level.setLogLevelForNamespace("twisted.protocols.haproxy", LogLevel.warn)
                predicates: list[Any] = [_noise, level]
                parent.setComponent(ILogObserver, FilteringLogObserver(observer, predicates))
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]


def _noise(event: LogEvent) -> Any:
    """Drop twistd's events on its plugin cache and on ports, which proxpi announces itself."""
    # Both come through the older interface, whose events have a text.
    text = str(event.get("log_text") or event.get("format"))
    return PredicateResult.no if _NOISE.match(text) else PredicateResult.maybe


def _observer(twistd: Mapping[str, Any], reactor: Any) -> ILogObserver | None:
    """Make the observer that twistd would make; ``None`` for an error that twistd reports."""
    if twistd["syslog"]:
        return LegacyLogObserverWrapper(
            SyslogObserver(twistd["prefix"]).emit  # type: ignore[arg-type]  # a plain function
        )
    path = twistd["logfile"] or ("-" if twistd["nodaemon"] else "twistd.log")
    if path == "-":
        # It is an error for a daemon to log to stdout.
        return Text(sys.stdout, reactor) if twistd["nodaemon"] else None
    file = LogFile.fromFullPath(path)
    signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(file.rotate))
    return Text(file, reactor)
