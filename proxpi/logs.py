"""What is logged, and where to: the place twistd was told, from a level on.

twistd has options for the place (``--logfile``, ``--syslog``, ``--logger``) and none for the
level. Before it makes an observer it asks the application for one; :class:`Logged`, the
outermost service, hands in one that writes to the same place and drops what is below.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LegacyLogObserverWrapper,
    LogLevel,
    LogLevelFilterPredicate,
    textFileLogObserver,
)
from twisted.python.components import Componentized
from twisted.python.logfile import LogFile
from twisted.python.syslog import SyslogObserver

_LEVELS = {
    "DEBUG": LogLevel.debug,
    "INFO": LogLevel.info,
    "WARNING": LogLevel.warn,
    "ERROR": LogLevel.error,
    "CRITICAL": LogLevel.critical,
}


class Logged(MultiService):
    """The outermost service: its application logs what is of ``level`` or above.

    ``level`` is :attr:`proxpi.settings.Settings.logging_level`. ``twistd`` are twistd's own
    options (the ``parent`` of the plugin's), or None if twistd is not what runs; then, and
    for a ``--logger`` of the user's own, logging is left as it is.
    """

    def __init__(
        self, level: str, twistd: Mapping[str, Any] | None, reactor: IReactorFromThreads
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._level = level
        self._twistd = twistd
        self._reactor = reactor

    def setServiceParent(self, parent: Any) -> None:
        """Join the application, and hand in its log observer."""
        # Only here are twistd's options final and the application known.
        if self._twistd is not None and isinstance(parent, Componentized):
            place = _place(self._twistd, self._reactor)
            if place is not None:
                level = LogLevelFilterPredicate(_LEVELS[self._level])
                # It has a line for every connection to an upstream.
                level.setLogLevelForNamespace("twisted.web.client", LogLevel.warn)
                parent.setComponent(ILogObserver, FilteringLogObserver(place, [level]))
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]


def _place(twistd: Mapping[str, Any], reactor: IReactorFromThreads) -> ILogObserver | None:
    """An observer like the one twistd would make; None for what twistd is to see to itself."""
    if twistd["syslog"]:
        return LegacyLogObserverWrapper(
            SyslogObserver(twistd["prefix"]).emit  # type: ignore[arg-type]  # a plain function
        )
    path = twistd["logfile"] or ("-" if twistd["nodaemon"] else "twistd.log")
    if path == "-":
        # A daemon that is to log to stdout is an error, and twistd's to report.
        return textFileLogObserver(sys.stdout) if twistd["nodaemon"] else None
    file = LogFile.fromFullPath(path)
    signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(file.rotate))
    return textFileLogObserver(file)
