"""The end of the process has a deadline, whatever peers, threads, disks and log pipes do.

Theory of operation
-------------------
SIGTERM, SIGINT and SIGHUP (a terminal was closed) are blocked in every thread but one, which takes
them: a reactor that hangs cannot keep them from being heeded. That thread has four states:

* *running*: it waits for a signal, and has the reactor stop.
* *draining*: until the drain time-out has passed. One more signal has the drain aborted.
* *closing*: :data:`CLOSING` seconds for all that comes after the drain.
* *overdue*: the process still runs. What must not stay is removed, in :data:`CLEANING` seconds at
  most, and the process is ended by its signal. As the first process of a container, which no
  signal of its own ends, it exits with status 0.

A process that ends in time never comes to the last state: the reactor stops, and twistd ends it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import attrs
from twisted.application.service import Service

#: Seconds for what comes after the drain. With those for cleaning, they stay below the one second
#: that the end may take, and leave some to the system.
CLOSING = 0.7
#: Seconds for the removal of what must not stay, if the reactor has not come to it.
CLEANING = 0.1
#: Seconds between two looks at whether one more signal came.
POLL = 0.05


@attrs.define(eq=False)
class Shutdown(Service):
    """Takes the signals that end the process, and ends it at the deadline.

    :ivar drain_timeout: seconds for the drain
    :ivar abort_drain: called on the reactor's thread when one more signal came
    :ivar clean: removes what must not stay; called in a thread if the reactor hangs
    """

    _reactor: Any
    drain_timeout: float
    abort_drain: Callable[[], object]
    clean: Callable[[], object]
    _signals: set[signal.Signals] = attrs.field(init=False, factory=set)

    def startService(self) -> None:
        """Take SIGTERM over, and the others unless the process was started to ignore them."""
        super().startService()  # type: ignore[no-untyped-call]
        others = (signal.SIGINT, signal.SIGHUP)
        heeded = {each for each in others if signal.getsignal(each) != signal.SIG_IGN}
        self._signals = {signal.SIGTERM} | heeded
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        threading.Thread(target=self._watch, name="proxpi signals", daemon=True).start()
        # The reactor has put its own handlers there by then.
        self._reactor.callWhenRunning(self._handle_by, signal.SIG_DFL)
        self._reactor.addSystemEventTrigger("after", "shutdown", self._release)

    def _handle_by(self, handler: signal.Handlers) -> None:
        for number in self._signals:
            signal.signal(number, handler)

    def _release(self) -> None:
        """Let twistd end the process by the first signal; the further ones are dropped."""
        self._handle_by(signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)

    def _watch(self) -> None:
        number = signal.sigwait(self._signals)
        stop = self._reactor.sigInt if number == signal.SIGINT else self._reactor.sigTerm
        self._reactor.callFromThread(stop, number)
        deadline = time.monotonic() + self.drain_timeout
        while time.monotonic() < deadline:
            if signal.sigpending() & self._signals:
                self._reactor.callFromThread(self.abort_drain)
                break
            time.sleep(min(POLL, max(0.0, deadline - time.monotonic())))
        time.sleep(CLOSING)
        with suppress(RuntimeError):  # the system has no thread to give
            cleaner = threading.Thread(target=self.clean, name="proxpi cleaner", daemon=True)
            cleaner.start()
            cleaner.join(CLEANING)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
        os._exit(0)
