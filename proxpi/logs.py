"""The log and the access log, as text or as JSON: in twistd's destination, from a level on.

twistd has options for the destination (``--logfile``, ``--syslog``, ``--logger``) and none for
level and format. Before it makes an observer it asks the application for one: :class:`Logged`, the
outermost service, provides one that writes to the same destination and drops events below the
level. (Twisted keeps earlier events, and hands them to the observer.)

Lines of the access log outnumber all events, and as an event a line would take longer than the rest
of its request. So :class:`LogFile` buffers them as text and writes them together, at the latest
after :data:`DELAY`; an event is written after the lines before it.

A format writes each event in lines of printable characters: as text the event takes one line, and a
traceback further ones, which begin with a tab; as JSON (one object a line) both are in one.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import IO, Any, Protocol

import msgspec
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
from twisted.python.logfile import LogFile as RotatedFile
from twisted.python.syslog import SyslogObserver
from zope.interface import implementer

from proxpi.access_log import AccessLog
from proxpi.simple import printable

#: The namespace of the access log, and the levels of its lines.
ACCESS = "proxpi.access"
ACCESS_LEVELS = ("info", "debug")
#: Seconds after which buffered lines are written at the latest.
DELAY = 0.1

_access = Logger(namespace=ACCESS)
#: Events of twistd on itself, its plugin cache and ports: proxpi announces its start and its ports.
_NOISE = re.compile(
    r"Unable to write to plugin cache|Site.* starting on |\(.* Port .* Closed\)|"
    r"twistd \{version\}|reactor class: |Main loop terminated\.|Server Shut Down\."
)
_LEVELS = {
    "DEBUG": LogLevel.debug,
    "INFO": LogLevel.info,
    "WARNING": LogLevel.warn,
    "ERROR": LogLevel.error,
    "CRITICAL": LogLevel.critical,
}
#: Select Graphic Rendition (ECMA-48) of the levels.
_COLORS = {"debug": "2", "info": "36", "warn": "33", "error": "31", "critical": "1;31"}


class Format(Protocol):
    """Writes events and lines of the access log with their time and level."""

    def event(self, event: LogEvent) -> str | None:
        """Format an event; ``None`` for an empty one."""

    def line(self, line: str, level: str) -> str:
        """Complete a line of the access log with the present time."""


class TextFormat:
    """Events as Twisted writes them.

    :param colored: whether the level has a color
    """

    def __init__(self, *, colored: bool = False) -> None:
        self._colored = colored
        #: The second of the last line, and the beginnings of lines of that second, by level.
        self._second = -1
        self._beginnings: dict[str, str] = {}

    def event(self, event: LogEvent) -> str | None:
        message = {"log_format": "{message}", "message": printable(formatEvent(event))}
        text = eventAsText(
            {**event, **message}, includeTimestamp=False, includeSystem=False
        ).rstrip("\n")
        if not text:
            return None
        level = getattr(event.get("log_level"), "name", "-")
        system = event.get("log_system") or f"{event.get('log_namespace', '-')}#{level}"
        beginning = self._begin(event["log_time"], printable(str(system)), level)
        # Further lines are those of a traceback.
        return beginning + "\n\t".join(map(printable, text.split("\n"))) + "\n"

    def line(self, line: str, level: str) -> str:
        if (second := int(time.time())) != self._second:
            self._second = second
            for each in ACCESS_LEVELS:
                self._beginnings[each] = self._begin(second, f"{ACCESS}#{each}", each)
        return f"{self._beginnings[level]}{line}\n"

    def _begin(self, moment: float, system: str, level: str) -> str:
        color = _COLORS.get(level) if self._colored else None
        shown = f"\x1b[{color}m[{system}]\x1b[0m" if color else f"[{system}]"
        return f"{formatTime(moment)} {shown} "


class JsonFormat:
    """One object a line: time, level, logger, message, and what else an event has."""

    def event(self, event: LogEvent) -> str | None:
        record = {
            "time": _iso_time(event["log_time"]),
            "level": getattr(event.get("log_level"), "name", "info"),
            "logger": event.get("log_namespace", "-"),
            "message": printable(formatEvent(event)),
        }
        if "log_failure" in event:
            text = eventAsText(
                {**event, "log_format": ""}, includeTimestamp=False, includeSystem=False
            )
            record["traceback"] = "\n".join(map(printable, text.strip("\n").split("\n")))
        elif not record["message"]:
            return None
        return msgspec.json.encode(record).decode() + "\n"

    def line(self, line: str, level: str) -> str:
        beginning = f'{{"time":"{_iso_time(time.time())}","level":"{level}","logger":"{ACCESS}"'
        return f"{beginning},{line[1:]}\n"


def _iso_time(moment: float) -> str:
    """Write seconds since the epoch as RFC 3339 does, in UTC, with milliseconds."""
    second = int(moment)
    return f"{_iso_second(second)}.{int((moment - second) * 1000):03d}Z"


@lru_cache(maxsize=2)
def _iso_second(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"


@implementer(ILogObserver)
class LogFile:
    """A log file: events, and the buffered lines of the access log."""

    def __init__(self, file: IO[Any], clock: IReactorTime, format: Format) -> None:
        self._file = file
        self._clock = clock
        self._format = format
        self._observer = FileLogObserver(file, format.event)
        # Lines come from the reactor's thread alone, events from any.
        self._lines: deque[str] = deque()
        self._timer_set = False

    def __call__(self, event: LogEvent) -> None:
        self.write()
        self._observer(event)

    def line(self, line: str, level: str = "info") -> None:
        self._lines.append(self._format.line(line, level))
        if not self._timer_set:
            self._timer_set = True
            self._clock.callLater(DELAY, self._write_later)

    def write(self) -> None:
        lines: list[str] = []
        with suppress(IndexError):  # another thread writes the rest
            for _ in range(len(self._lines)):
                lines.append(self._lines.popleft())
        if lines:
            self._file.write("".join(lines))
            self._file.flush()

    def _write_later(self) -> None:
        self._timer_set = False
        with suppress(OSError, ValueError):  # an error of the log cannot be logged
            self.write()


class Logged(MultiService):
    """The outermost service, whose application logs events of a level and above.

    :param as_json: whether the log is written as JSON; in syslog it is always text
    :param twistd: the options of twistd; ``None`` without twistd, which leaves the log as it is
    :ivar access: the access log
    """

    def __init__(
        self, level: str, as_json: bool, twistd: Mapping[str, Any] | None, reactor: Any
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._level = _LEVELS[level]
        self._as_json = as_json and twistd is not None and not twistd["syslog"]
        self._twistd = twistd
        self._reactor = reactor
        self._file: LogFile | None = None
        self._logs_access = self._level <= LogLevel.info
        self.access = AccessLog(self._write_line, self._write_debug, as_json=self._as_json)

    def _write_line(self, line: str) -> None:
        if self._file is None:
            _access.info("{line}", line=line)
        elif self._logs_access:
            self._file.line(line)

    def _write_debug(self, line: str) -> None:
        if self._file is None:
            _access.debug("{line}", line=line)
        elif self._level <= LogLevel.debug:
            self._file.line(line, "debug")

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await super().stopService()  # type: ignore[no-untyped-call]
        if self._file is not None:
            self._file.write()

    def setServiceParent(self, parent: Any) -> None:
        """Join the application, and provide its log observer."""
        # Only now are twistd's options final and the application known.
        if self._twistd is not None and isinstance(parent, Componentized):
            observer = self._observer(self._twistd)
            if observer is not None:
                if isinstance(observer, LogFile):
                    self._file = observer
                level = LogLevelFilterPredicate(self._level)
                # An event for every connection to an upstream, and for every factory.
                level.setLogLevelForNamespace("twisted.web.client", LogLevel.warn)
                level.setLogLevelForNamespace("twisted.protocols.haproxy", LogLevel.warn)
                predicates: list[Any] = [_noise, level]
                parent.setComponent(ILogObserver, FilteringLogObserver(observer, predicates))
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def _observer(self, twistd: Mapping[str, Any]) -> ILogObserver | None:
        """Make the observer that twistd would make; ``None`` for an error that twistd reports."""
        if twistd["syslog"]:
            return LegacyLogObserverWrapper(
                SyslogObserver(twistd["prefix"]).emit  # type: ignore[arg-type]  # a plain function
            )
        path = twistd["logfile"] or ("-" if twistd["nodaemon"] else "twistd.log")
        if path == "-":
            # It is an error for a daemon to log to stdout.
            return self._log_file(sys.stdout) if twistd["nodaemon"] else None
        file = RotatedFile.fromFullPath(path)
        signal.signal(signal.SIGUSR1, lambda *_: self._reactor.callFromThread(file.rotate))
        return self._log_file(file)

    def _log_file(self, file: Any) -> LogFile:
        colored = file is sys.stdout and _is_colored(file)
        form: Format = JsonFormat() if self._as_json else TextFormat(colored=colored)
        return LogFile(file, self._reactor, form)


def _noise(event: LogEvent) -> Any:
    """Drop what twistd logs of itself."""
    # Some come through the older interface, whose events have a text.
    text = str(event.get("log_text") or event.get("format") or event.get("log_format"))
    return PredicateResult.no if _NOISE.match(text) else PredicateResult.maybe


def _is_colored(file: Any) -> bool:
    """Return whether a file is a terminal that shows colors (https://no-color.org)."""
    return (
        bool(file.isatty()) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )
