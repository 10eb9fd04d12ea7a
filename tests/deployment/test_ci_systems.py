"""The files for CI systems are what those accept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from groovy_parser.parser import parse_groovy_content

FOLDER = Path(__file__).parents[2] / "docs/ci"
#: By file, the schema with which its CI system describes it.
SCHEMAS = {
    "github-actions.yml": "github-workflows",
    "azure-pipelines.yml": "azure-pipelines",
    "travis.yml": "travis",
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema(name: str) -> None:
    """The schema of its CI system accepts each file."""
    command = [sys.executable, "-m", "check_jsonschema", "--verbose"]
    command += ["--builtin-schema", f"vendor.{SCHEMAS[name]}", str(FOLDER / name)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not ended.returncode, ended.stdout


def test_groovy() -> None:
    """The file for Jenkins is Groovy."""
    parse_groovy_content((FOLDER / "Jenkinsfile").read_text())


@pytest.mark.parametrize("name", [*SCHEMAS, "Jenkinsfile"])
def test_introduction(name: str) -> None:
    """Each file says first where it goes and what to replace."""
    text = (FOLDER / name).read_text()
    sign = "//" if name == "Jenkinsfile" else "#"
    lines = text.splitlines()
    introduction = lines[: next(i for i, line in enumerate(lines) if not line.startswith(sign))]
    assert any(line.startswith(f"{sign} Where it goes: ") for line in introduction)
    assert any(line.startswith(f"{sign} Replace: ") for line in introduction)
