"""The reactor lag."""

from __future__ import annotations

from twisted.internet.task import Clock

from proxpi.reactor_lag import INTERVAL, REMEMBERED, ReactorLag


def test_longest_delay() -> None:
    """The longest delay counts until it is a minute old; one under way counts at once."""
    clock = Clock()
    lag = ReactorLag(clock)
    assert lag.seconds == 0.0
    lag.start()
    clock.advance(INTERVAL)
    assert lag.seconds == 0.0
    clock.rightNow += INTERVAL + 2.5  # the reactor is busy, and calls nothing
    assert lag.seconds == 2.5
    clock.advance(0)
    clock.advance(INTERVAL + 0.5)
    assert lag.seconds == 2.5
    for _ in range(REMEMBERED - 1):
        clock.advance(INTERVAL)
    assert lag.seconds == 0.5
    clock.advance(INTERVAL)
    assert lag.seconds == 0.0
    lag.stop()
    assert not clock.getDelayedCalls()
