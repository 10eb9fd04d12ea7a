"""What is brought into a process of proxpi: an ear, another clock on the wall, threads that hang.

Python imports ``sitecustomize`` before anything else. The folder ``insertions`` has one that does
what the environment says; nothing of proxpi knows of it.
"""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from tests.support.proxy import measured

_INSERTIONS = Path(__file__).with_name("insertions")


def _environment(**variables: str) -> dict[str, str]:
    paths = [str(_INSERTIONS), *filter(None, [measured().get("PYTHONPATH")])]
    return {**variables, "PYTHONPATH": os.pathsep.join(paths)}


def overheard(notes: Path) -> dict[str, str]:
    """The environment of a process whose connections, datagrams and lookups are lines in a file."""
    return _environment(OVERHEARD=str(notes))


def hung(threads: str) -> dict[str, str]:
    return _environment(HUNG_THREADS=threads)


@attrs.frozen
class WallClock:
    """The clock on the wall of a process, which a test may put forward or back.

    Only Python's own ``time.time`` is meant; the monotonic clock and the timers go on.
    """

    path: Path

    def __attrs_post_init__(self) -> None:
        self.jump(0)

    def jump(self, seconds: float) -> None:
        """Let it be so much fast, or slow, from now on."""
        new = self.path.with_suffix(".new")
        new.write_text(str(seconds), encoding="ascii")
        new.replace(self.path)

    @property
    def environment(self) -> dict[str, str]:
        return _environment(WALL_CLOCK=str(self.path))
