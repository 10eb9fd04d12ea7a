"""The checks of proxpi. ``nox`` runs lint, types and tests in the environment that has nox."""

from __future__ import annotations

import os
import sys

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests"]

# Tests with real processes mostly wait: two test processes per core. Fixtures are shared within a
# module, hence `loadfile`; `tests/conftest.py` defines the order of the modules.
_PARALLEL = [f"--numprocesses={2 * (os.cpu_count() or 1)}", "--dist=loadfile"]
_PARALLEL += ["--no-loadscope-reorder"]
_WITHOUT_PROCESSES = [
    f"--ignore=tests/{name}" for name in ("integration", "faults", "egress", "browser")
]


def _python(session: nox.Session, *arguments: str) -> None:
    # Bytecode of the tests is cached even where the machine disables it: they start faster.
    session.run(sys.executable, "-m", *arguments, env={"PYTHONDONTWRITEBYTECODE": ""})


@nox.session
def format(session: nox.Session) -> None:
    """Format the code and apply the automatic fixes of the linter."""
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
    """Run the tests without real processes."""
    _python(session, "pytest", "--numprocesses=auto", *_WITHOUT_PROCESSES, *session.posargs)


@nox.session(venv_backend="uv", default=False)
def lowest(session: nox.Session) -> None:
    """Run the tests without real processes with the minimum versions of the dependencies."""
    session.install("--resolution=lowest-direct", "--editable=.[dev]")
    session.run("pytest", "--numprocesses=auto", *_WITHOUT_PROCESSES, *session.posargs)


@nox.session(default=False)
def real(session: nox.Session) -> None:
    """Run the tests with large pages of the default index."""
    _python(session, "pytest", "-m", "real", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests and report their coverage, including that of real processes."""
    _python(session, "coverage", "erase")
    _python(session, "coverage", "run", "-m", "pytest", *_PARALLEL, *session.posargs)
    _python(session, "coverage", "combine", "--quiet")
    _python(session, "coverage", "report")
