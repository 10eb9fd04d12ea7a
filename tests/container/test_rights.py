"""Where containers cannot run, the tests say why: they fail, rather than pass or be skipped."""

from __future__ import annotations

import subprocess
import sys

from tests.support.containers import ROOT


def test_message() -> None:
    """Without the right to mount, which other users lack, too, a sentence says what to do."""
    code = "from tests.support.containers import podman; podman()"
    command = ["setpriv", "--bounding-set=-sys_admin", sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "AssertionError: this test runs containers: it needs root" in ended.stderr
