"""Insertions of tests into a process of proxpi: a record of its calls, a wall clock, hung threads.

Python imports ``sitecustomize`` before anything else. The folder ``insertions`` has one that does
what the environment says; nothing of proxpi knows of it.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.proxy import measured

_INSERTIONS = Path(__file__).with_name("insertions")


def inserted(**variables: str) -> dict[str, str]:
    """Return the environment of a process with insertions, which these variables control."""
    paths = [str(_INSERTIONS), *filter(None, [measured().get("PYTHONPATH")])]
    return {**variables, "PYTHONPATH": os.pathsep.join(paths)}


def overheard(notes: Path) -> dict[str, str]:
    """The environment of a process whose connections, datagrams and lookups are lines in a file."""
    return inserted(OVERHEARD=str(notes))


def hung(threads: str) -> dict[str, str]:
    return inserted(HUNG_THREADS=threads)
