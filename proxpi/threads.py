"""The threads for what takes a while: some for pages, and others to write and to read files."""

from __future__ import annotations

from threading import Thread
from typing import Any

from twisted.python.threadpool import ThreadPool

#: Threads of each kind.
THREADS = 4


class _Daemon(Thread):
    """A thread that the end of the process does not wait for."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, daemon=True, **named)


def pool(name: str) -> ThreadPool:
    """Make a pool, whose threads begin when they are needed."""
    return ThreadPool(0, THREADS, name)


def daemons(name: str) -> ThreadPool:
    """Make a pool of threads that the end of the process does not wait for."""
    made = pool(f"proxpi {name}")
    made.threadFactory = _Daemon
    return made
