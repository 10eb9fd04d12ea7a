"""The gates of proxpi: ``nox`` runs all of them, in the environment that nox runs in."""

from __future__ import annotations

import os
import sys

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests"]

# Tests that start processes mostly wait.
_AT_A_TIME = 2 * (os.cpu_count() or 1)
# Each module in one process, for what its tests share, in the order of `tests/conftest.py`.
_SIDE_BY_SIDE = [f"--numprocesses={_AT_A_TIME}", "--dist=loadfile", "--no-loadscope-reorder"]

_WITHOUT_PROCESSES = [f"--ignore=tests/{name}" for name in ("integration", "faults", "egress")]


def _python(session: nox.Session, *arguments: str) -> None:
    # Tests that were compiled once start sooner, whatever the machine says of other programs.
    session.run(sys.executable, "-m", *arguments, env={"PYTHONDONTWRITEBYTECODE": ""})


@nox.session
def format(session: nox.Session) -> None:
    """Write the code as it is to be written, and mend what can be mended by machine."""
    _python(session, "ruff", "check", "--fix-only", ".")
    _python(session, "ruff", "format", ".")


@nox.session
def lint(session: nox.Session) -> None:
    """Check format, code and news fragments; change nothing."""
    _python(session, "ruff", "format", "--check", ".")
    _python(session, "ruff", "check", ".")
    session.run(sys.executable, "-m", "towncrier", "build", "--draft", silent=True)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types."""
    _python(session, "mypy")


@nox.session
def fast(session: nox.Session) -> None:
    """Run the tests that need no process of their own."""
    _python(session, "pytest", "--numprocesses=auto", *_WITHOUT_PROCESSES, *session.posargs)


@nox.session(venv_backend="uv", default=False)
def lowest(session: nox.Session) -> None:
    """Run the tests that need no process of their own, with the oldest dependencies allowed."""
    session.install("--resolution=lowest-direct", "--editable=.[dev]")
    session.run("pytest", "--numprocesses=auto", *_WITHOUT_PROCESSES, *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests, and see what they cover, the real processes included."""
    _python(session, "coverage", "erase")
    _python(session, "coverage", "run", "-m", "pytest", *_SIDE_BY_SIDE, *session.posargs)
    _python(session, "coverage", "combine", "--quiet")
    _python(session, "coverage", "report")
