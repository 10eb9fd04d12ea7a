"""A plugin of coverage.py: saves what was measured before a process kills itself.

A twistd that is told to stop ends, once all is closed, by the same signal from its own hand,
and so leaves out everything that a Python process does at its end.
"""

from __future__ import annotations

import os

from coverage import Coverage
from coverage.plugin_support import Plugins
from coverage.types import TConfigSectionOut


def coverage_init(registry: Plugins, options: TConfigSectionOut) -> None:
    """Called by coverage.py in each process that it measures."""
    kill = os.kill

    def save_and_kill(pid: int, signal: int) -> None:
        current = Coverage.current()
        if pid == os.getpid() and signal and current is not None:
            current.save()
        kill(pid, signal)

    os.kill = save_and_kill
