"""A process that fills a cache folder and kills itself at a step of its work.

A step is before or after a call that changes the folder; the hook that counts them stands here.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred

from proxpi.files import cache_dir, usage_log
from proxpi.files.resolver import FileReference
from proxpi.tap import cache_folder
from tests.support.cache import ref

FILES = 5
#: Calls that change a folder.
CALLS = ["mkdir", "pwrite", "fsync", "rename", "replace", "unlink", "rmdir"]


def contents(number: int) -> bytes:
    return Random(number).randbytes(2000 + 1000 * number)


def name_of(number: int) -> str:
    """Return the name of a file; one of them is of an unknown kind."""
    return f"{number}.whl" if number else f"{number}.kind"


def reference_of(number: int) -> FileReference:
    return ref(f"{number % 3}/{name_of(number)}", contents(number))


def die_at(step: int) -> None:
    """Let this process be killed at the step of this number: before a call, or after it."""
    steps = itertools.count()

    def count() -> None:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def calling(*arguments: Any, **named: Any) -> Any:
            count()
            outcome = call(*arguments, **named)
            count()
            return outcome

        return calling

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    # It follows at once on a file's being made.
    fcntl.flock = counted(fcntl.flock)


def work(folder: str, capacity: int, step: int) -> None:
    """Fill the folder, write down what is known, and end, unless it is killed before."""
    # Small enough that each file takes several steps.
    cache_dir.BUFFER = 3000
    usage_log.CHANGES = 5
    die_at(step)
    cache = cache_folder(Path(folder), capacity)
    cache.prepare()
    numbers = Random(1).sample(range(FILES), FILES)
    for number in numbers:
        reference = reference_of(number)
        if cache.found(reference):
            Deferred.fromCoroutine(cache.check(reference))
        copy = cache.open(reference)
        if copy is not None:
            copy.close()
            continue
        partial = cache.partial(reference)
        data = contents(number)
        for start in range(0, len(data), 500):
            partial.write(data[start : start + 500])
        Deferred.fromCoroutine(cache.adopt(partial, reference))
        cache.discard(partial)
        cache.count_uses()
    cache.delete(reference_of(numbers[0]).cache_path)
    cache.close()
