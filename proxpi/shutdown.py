"""The end of the process: signals, and a deadline whatever peers, threads, disks and log pipes do.

SIGTERM, SIGINT and SIGHUP (a terminal was closed) are blocked in every thread but one, which takes
them: so they take effect even if the reactor hangs. That thread has four states:

* *running*: it waits for a signal, and stops the reactor.
* *draining*: until the drain timeout has passed. A second signal aborts the drain.
* *closing*: :data:`CLOSING` seconds for all that follows the drain.
* *overdue*: the process still runs. The thread removes temporary files, in :data:`CLEANING`
  seconds at most, and ends the process by its signal. As the first process of a container, which
  no signal of its own ends, it exits with status 0.

A process that ends in time never reaches the last state: the reactor stops, and twistd ends it.
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

#: Seconds for all that follows the drain. Together with `CLEANING` they stay below the one second
#: that the end may take, and leave some of it to the system.
CLOSING = 0.7
#: Seconds for the removal of temporary files if the reactor hangs.
CLEANING = 0.1
#: Seconds between two checks for a second signal.
POLL = 0.05


@attrs.define(eq=False)
class Shutdown(Service):
    """Takes the signals that end the process, and ends it at the deadline.

    :ivar drain_timeout: seconds for the drain
    :ivar abort_drain: aborts the drain; called on the reactor's thread at a second signal
    :ivar clean: removes temporary files; called in a thread if the reactor hangs
    """

    _reactor: Any
    drain_timeout: float
    abort_drain: Callable[[], object]
    clean: Callable[[], object]
    _signals: set[signal.Signals] = attrs.field(init=False, factory=set)

    def startService(self) -> None:
        """Take SIGTERM, and the others unless the process was started to ignore them."""
        super().startService()  # type: ignore[no-untyped-call]
        others = (signal.SIGINT, signal.SIGHUP)
        taken = {each for each in others if signal.getsignal(each) != signal.SIG_IGN}
        self._signals = {signal.SIGTERM} | taken
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        threading.Thread(target=self._watch, name="proxpi signals", daemon=True).start()
        # By then the reactor has installed its own handlers.
        self._reactor.callWhenRunning(self._handle_by, signal.SIG_DFL)
        self._reactor.addSystemEventTrigger("after", "shutdown", self._release)

    def _handle_by(self, handler: signal.Handlers) -> None:
        for number in self._signals:
            signal.signal(number, handler)

    def _release(self) -> None:
        """Let twistd end the process by the first signal, and drop further ones."""
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
        with suppress(RuntimeError):  # the system has no threads left
            cleaner = threading.Thread(target=self.clean, name="proxpi cleaner", daemon=True)
            cleaner.start()
            cleaner.join(CLEANING)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
        os._exit(0)
