"""How the processor time of a piece of work grows with the size of its input."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds below which a measurement is mostly noise.
_NOISE = 0.001


def assert_linear(work: Callable[[T], object], made: Callable[[int], T], size: int) -> None:
    """Check that four times the input takes at most eight times the processor time.

    :param work: may raise; what it does until then counts
    :param made: gives the input of a size
    """
    inputs = {factor: made(factor * size) for factor in (1, 2, 4)}
    times = {factor: min(_seconds(work, inputs[factor]) for _ in range(3)) for factor in inputs}
    assert times[2] <= 4 * max(times[1], _NOISE), times
    assert times[4] <= 8 * max(times[1], _NOISE), times


def _seconds(work: Callable[[Any], object], value: Any) -> float:
    began = time.thread_time()
    with suppress(Exception):  # a refusal is an answer as well
        work(value)
    return time.thread_time() - began
