"""The changelog: towncrier makes it of the news fragments at a release."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from docutils.core import publish_doctree

from proxpi import __version__

TOP = Path(__file__).parent.parent.parent


def test_a_release(tmp_path: Path) -> None:
    """A release has each fragment once in the changelog, which stays valid, and removes it."""
    for name in ("pyproject.toml", "CHANGELOG.rst"):
        shutil.copy(TOP / name, tmp_path)
    shutil.copytree(TOP / "newsfragments", tmp_path / "newsfragments")
    shutil.copytree(TOP / "proxpi", tmp_path / "proxpi")
    fragments = [path.read_text() for path in (tmp_path / "newsfragments").glob("+*.rst")]
    command = [sys.executable, "-m", "towncrier", "build", "--yes", "--date", "2026-12-24"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    changelog = (tmp_path / "CHANGELOG.rst").read_text()
    publish_doctree(changelog, settings_overrides={"halt_level": 2})
    version = re.escape(__version__)
    assert len(re.findall(rf"^proxpi {version} \(2026-12-24\)$", changelog, re.MULTILINE)) == 1
    words = " ".join(changelog.split())
    assert [text for text in fragments if words.count(" ".join(text.split())) != 1] == []
    assert not list((tmp_path / "newsfragments").glob("+*.rst"))
    before, after = (TOP / "CHANGELOG.rst").read_text().split(".. towncrier release notes start\n")
    assert changelog.startswith(before)
    assert changelog.endswith(after)
