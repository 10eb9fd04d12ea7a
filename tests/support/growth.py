"""How the processor time of a piece of work grows with the size of its input."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

#: Seconds below which a measurement is mostly noise.
_NOISE = 0.001
#: Measurements of each size, at most.
_ROUNDS = 8


def assert_linear(
    work: Callable[[T], object],
    made: Callable[[int], T],
    size: int,
    refusals: tuple[type[Exception], ...] = (),
) -> None:
    """Check that four times the input takes at most eight times the processor time.

    :param made: gives the input of a size
    :param refusals: what the work may raise; what it does until then counts
    """
    inputs = {factor: made(factor * size) for factor in (1, 2, 4)}
    times = dict.fromkeys(inputs, float("inf"))
    for _ in range(_ROUNDS):
        # The least of several: what other processes do only adds to it.
        times = {each: min(times[each], seconds(work, inputs[each], refusals)) for each in inputs}
        least = max(times[1], _NOISE)
        if times[2] <= 4 * least and times[4] <= 8 * least:
            return
    raise AssertionError(f"seconds by size: {times}")


def seconds(
    work: Callable[[T], object], value: T, refusals: tuple[type[Exception], ...] = ()
) -> float:
    """Measure the processor time of the work on an input."""
    began = time.thread_time()
    with suppress(*refusals):
        work(value)
    return time.thread_time() - began
