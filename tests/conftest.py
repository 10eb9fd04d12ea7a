"""Fixtures and settings of all tests.

Property tests take the same examples in every run. The programs that tests start heed SIGINT, also
where a shell runs all of this in the background, and has it ignored. And where several tests run
at a time, those that measure what a machine can do have it for themselves.
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("proxpi", derandomize=True, database=None, deadline=None)
settings.load_profile("proxpi")
signal.signal(signal.SIGINT, signal.default_int_handler)

_HERE = Path(__file__).parent
#: By which the processes that tests start are told to count the lines that they run.
_COUNTING = "COVERAGE_PROCESS_CONFIG"
#: The folder of the tests whose processes do: it doubles the time of a start, and the processes of
#: other folders run hardly a line that these and the tests without processes do not.
_COUNTED = _HERE / "integration"
#: The folder of the tests with containers, the first of which builds their images.
_IMAGES = _HERE / "container"
#: The folders of the tests that start processes.
_WITH_PROCESSES = [
    _HERE / folder
    for folder in (
        "container",
        "integration",
        "faults",
        "egress",
        "browser",
        "deployment",
        "release",
    )
]


def _is_alone(item: pytest.Item) -> bool:
    module = item.getparent(pytest.Module)
    return module is not None and module.get_closest_marker("alone") is not None


def _turn(item: pytest.Item) -> int:
    if _is_alone(item):
        return 4
    if _IMAGES in item.path.parents:
        return 0 if item.path.name == "test_image.py" else 2
    return 1 if any(folder in item.path.parents for folder in _WITH_PROCESSES) else 3


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with those that wait, so that others fill the time; end with those that are alone.

    The images are built by the very first module, before the others with containers wait for them.
    """
    items.sort(key=_turn)


def pytest_collection_finish() -> None:
    """Look for garbage among what tests make, not each time among all that was imported, too."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Have the test wait for its turn, and its processes count lines only if that adds coverage."""
    counted = _COUNTED in item.path.parents and not _is_alone(item)
    counting = None if counted else os.environ.pop(_COUNTING, None)
    try:
        with _machine(item):
            return (yield)
    finally:
        if counting is not None:
            os.environ[_COUNTING] = counting


@contextmanager
def _machine(item: pytest.Item) -> Iterator[None]:
    """Let a test that is to be alone begin when no other one runs, and none while it does.

    Since they come last, they need not wait for long.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    machine = os.open(_HERE, os.O_RDONLY)
    try:
        fcntl.flock(machine, fcntl.LOCK_EX if _is_alone(item) else fcntl.LOCK_SH)
        yield
    finally:
        os.close(machine)
