"""What the commands run in: environments for what is only measured with, and an end that is clean.

The original, its clients and a profiler: each has an environment that is made once, from the index
that pip uses here, below ``~/.cache/proxpi-benchmarks`` (or ``$XDG_CACHE_HOME``). So proxpi's own
environment has nothing in it that proxpi lacks elsewhere. Remove that folder to have them made
anew.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ORIGINAL_RELEASE = "1.3.1"


class Unusable(Exception):
    """Nothing can be measured; the text says why, and what to do about it."""


def end_gently() -> None:
    """Let whatever ends this process end what it started as well, in a background job, too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    signal.signal(signal.SIGINT, signal.default_int_handler)


def environment(name: str, requirements: Sequence[str]) -> Path:
    """Give the folder of an environment in which these are installed.

    :raises Unusable: if they cannot be
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = ".".join(map(str, sys.version_info[:3]))
    folder = cache / "proxpi-benchmarks" / f"{name}-python-{version}"
    complete = folder / "complete"
    if not complete.exists():
        print(f"installing {', '.join(requirements)} into {folder}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        python = folder / "bin/python"
        try:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
        except subprocess.CalledProcessError as error:
            raise Unusable(f"{', '.join(requirements)} cannot be installed: {error}") from None
        complete.touch()
    return folder
