"""The checks of proxpi. ``nox`` runs lint, types and tests in the environment that has nox."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests"]

# Tests with real processes mostly wait: two test processes per core. Fixtures are shared within a
# module, hence `loadfile`; `tests/conftest.py` defines the order of the modules.
_PARALLEL = [f"--numprocesses={2 * (os.cpu_count() or 1)}", "--dist=loadfile"]
_PARALLEL += ["--no-loadscope-reorder"]
_WITH_PROCESSES = ["container", "integration", "faults", "egress", "browser"]
_WITH_PROCESSES += ["deployment", "release"]
_WITHOUT_PROCESSES = [f"--ignore=tests/{name}" for name in _WITH_PROCESSES]


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
def lock(session: nox.Session) -> None:
    """Lock the image's dependencies; ``-- --upgrade`` raises their versions, too."""
    build = Path(session.create_tmp(), "build.in")
    build.write_text("\n".join(nox.project.load_toml()["build-system"]["requires"]))
    for name, sources in (
        ("build-requirements", [str(build)]),
        ("requirements", ["pyproject.toml"]),
        ("requirements-s3", ["pyproject.toml", "--extra=s3"]),
    ):
        command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version=3.11"]
        command += ["--generate-hashes", "--no-annotate", "--no-header", "--no-emit-index-url"]
        command += [f"--output-file=docker/{name}.txt", *session.posargs, *sources]
        _python(session, *command)


@nox.session(default=False)
def release(session: nox.Session) -> None:
    """Build and check wheel and source distribution, and write the wheel's bill of materials."""
    dist, environment, sbom = Path("dist"), Path("build/release"), Path("build/sbom")
    for folder in (dist, environment, sbom):
        shutil.rmtree(folder, ignore_errors=True)
    locked = {"UV_CONSTRAINT": "docker/build-requirements.txt"}
    session.run(sys.executable, "-m", "build", "--installer=uv", env=locked)
    built = sorted(str(path) for path in dist.iterdir())
    _python(session, "twine", "check", "--strict", *built)
    _python(session, "uv", "venv", "--quiet", str(environment))
    install = ["uv", "pip", "install", "--quiet", f"--python={environment}"]
    _python(session, *install, "--require-hashes", "--requirement=docker/requirements.txt")
    _python(session, *install, "--no-deps", built[0])
    sbom.mkdir(parents=True)
    bill = f"tar -c -C {environment} . | {sys.executable} docker/sbom.py > {sbom}/wheel.cdx.json"
    session.run("sh", "-c", bill, external=True)


@nox.session(default=False)
def real(session: nox.Session) -> None:
    """Run the tests with large pages of the default index."""
    _python(session, "pytest", "-m", "real", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests and report their coverage, including that of processes in ``integration``."""
    _python(session, "coverage", "erase")
    _python(session, "coverage", "run", "-m", "pytest", *_PARALLEL, *session.posargs)
    _python(session, "coverage", "combine", "--quiet")
    _python(session, "coverage", "report")
