"""The reactor lag: how late timers are called, while the reactor's thread is busy.

All clients wait for that thread. A timer is due each second. Its longest delay in the last minute
counts, so that no scrape misses it.
"""

from __future__ import annotations

from collections import deque

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Seconds between two calls of the timer, and how many of its delays are kept.
INTERVAL = 1.0
REMEMBERED = 60


@attrs.define(eq=False)
class ReactorLag:
    _clock: IReactorTime
    _delays: deque[float] = attrs.field(init=False, factory=lambda: deque(maxlen=REMEMBERED))
    _due: float = attrs.field(init=False, default=0.0)
    _timer: IDelayedCall | None = attrs.field(init=False, default=None)

    @property
    def seconds(self) -> float:
        """The longest delay of the last minute, that of a timer that is due now included."""
        if self._timer is None:
            return 0.0
        return max(0.0, self._clock.seconds() - self._due, *self._delays)

    def start(self) -> None:
        self._due = self._clock.seconds() + INTERVAL
        self._timer = self._clock.callLater(INTERVAL, self._measure)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _measure(self) -> None:
        self._delays.append(self._clock.seconds() - self._due)
        self.start()
