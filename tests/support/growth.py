"""How the processor time of a piece of work grows with the size of its input."""

from __future__ import annotations

import sys
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
    # Coverage counts no lines meanwhile: to count them takes most of the time that is measured.
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        times = _times(work, made, size, refusals)
    finally:
        sys.settrace(tracer)
    assert _is_linear(times), f"seconds by size: {times}"


def _times(
    work: Callable[[T], object],
    made: Callable[[int], T],
    size: int,
    refusals: tuple[type[Exception], ...],
) -> dict[int, float]:
    """Measure the processor time by factor of the size, until it is linear."""
    inputs = {factor: made(factor * size) for factor in (1, 2, 4)}
    times = dict.fromkeys(inputs, float("inf"))
    for _ in range(_ROUNDS):
        # The least of several: what other processes do only adds to it.
        times = {each: min(times[each], seconds(work, inputs[each], refusals)) for each in inputs}
        if _is_linear(times):
            break
    return times


def _is_linear(times: dict[int, float]) -> bool:
    least = max(times[1], _NOISE)
    return times[2] <= 4 * least and times[4] <= 8 * least


def seconds(
    work: Callable[[T], object], value: T, refusals: tuple[type[Exception], ...] = ()
) -> float:
    """Measure the processor time of the work on an input."""
    began = time.thread_time()
    with suppress(*refusals):
        work(value)
    return time.thread_time() - began
