"""Fixtures for containers; the scripts of the image, in no package, can be imported."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.processes import fake_index  # noqa: F401 (fixture)

sys.path.insert(0, str(Path(__file__).parents[2] / "docker"))
