"""The workflow of a release: linted, with least permissions, and its commands exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxpi import __version__

TOP = Path(__file__).parent.parent.parent
PATH = TOP / ".github/workflows/release.yml"
JOBS: dict[str, dict[str, Any]] = yaml.safe_load(PATH.read_text())["jobs"]


def steps(job: str) -> dict[str, str]:
    """Return the commands of a job's steps by their names."""
    return {step["name"]: step["run"] for step in JOBS[job]["steps"] if "run" in step}


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_zizmor() -> None:
    """zizmor finds no fault in it, pedantic ones included."""
    program = Path(sys.executable).with_name("zizmor")
    ended = run(str(program), "--offline", "--pedantic", "--strict-collection", str(PATH))
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_schema() -> None:
    """It is valid by GitHub's schema of workflows."""
    schema = ["--builtin-schema", "vendor.github-workflows"]
    ended = run(sys.executable, "-m", "check_jsonschema", *schema, str(PATH))
    assert ended.returncode == 0, ended.stdout


def test_permissions() -> None:
    """A job may write nothing but what it publishes, and secrets are those of an environment."""
    assert yaml.safe_load(PATH.read_text())["permissions"] == {}
    allowed = {
        job: {name for name, access in each["permissions"].items() if access == "write"}
        for job, each in JOBS.items()
    }
    assert {job: names for job, names in allowed.items() if names} == {
        "publish-image": {"attestations", "id-token"},
        "publish-distributions": {"id-token"},
        "publish-files": {"attestations", "contents", "id-token"},
    }
    with_secrets = {job for job, each in JOBS.items() if "secrets." in yaml.safe_dump(each)}
    assert with_secrets == {"image", "publish-image"}
    assert all(JOBS[job]["environment"] == "release" for job in with_secrets)


def test_nothing_is_published_before_the_tests() -> None:
    """The jobs that publish follow the tests, one after another; the index is no first one."""
    assert {job: each.get("needs", []) for job, each in JOBS.items()} == {
        "test": [],
        "distributions": [],
        "image": ["test", "distributions"],
        "publish-image": ["image"],
        "publish-distributions": ["publish-image"],
        "publish-files": ["publish-distributions"],
    }


def test_architectures() -> None:
    """Both architectures are built, each on its own machines, and joined."""
    built = {each["architecture"] for each in JOBS["image"]["strategy"]["matrix"]["include"]}
    assert built == {"amd64", "arm64"}
    [join] = steps("publish-image").values()
    assert set(re.findall(r'"\$IMAGE:\$version-(\w+)"', join)) == built


def test_commands() -> None:
    """Shell can parse each command; arguments of the image and sessions of nox are known."""
    commands = [command for job in JOBS for command in steps(job).values()]
    for command in commands:
        subprocess.run(["bash", "-n"], input=command, text=True, check=True)
    used = "\n".join(commands)
    image = (TOP / "docker/Dockerfile").read_text()
    for argument in re.findall(r"--build-arg (\w+)=", used):
        assert re.search(rf"^ARG {argument}\b", image, re.MULTILINE), argument
    for session in re.findall(r"nox --session (\w+)", used):
        assert f"\ndef {session}(session: nox.Session)" in (TOP / "noxfile.py").read_text()
    for program in (".ci/run", "docker/sbom.py", "docker/Dockerfile"):
        assert program in used
        assert (TOP / program).is_file()


@pytest.mark.parametrize(("tag", "final"), [("v2.1.0", True), ("v2.1.0rc1", False)])
def test_pre_releases(tag: str, final: bool, tmp_path: Path) -> None:
    """A pre-release is marked as one, and is not the image of its major version."""
    for program in ("docker", "gh"):
        (tmp_path / program).write_text('#!/bin/sh\necho "$@" >> called\n')
        (tmp_path / program).chmod(0o755)
    for job in ("publish-image", "publish-files"):
        [command] = steps(job).values()
        variables = {"GITHUB_REF_NAME": tag, "GITHUB_OUTPUT": "output", "IMAGE": "r.example/p"}
        variables |= {"IMAGE_USER": "", "IMAGE_PASSWORD": ""}
        path = f"{tmp_path}:{os.environ['PATH']}"
        ended = run("bash", "-ec", f"cd {tmp_path}; {command}", PATH=path, **variables)
        assert ended.returncode == 0, ended.stderr
    called = (tmp_path / "called").read_text().split()
    assert called.count(f"r.example/p:{tag[1:]}") == 2
    assert ("r.example/p:2" in called) is final
    assert ("--prerelease" in called) is not final


@pytest.mark.parametrize(
    ("tag", "changelog", "agree"),
    [
        (f"v{__version__}", f"proxpi {__version__} (2026-12-24)\n", True),
        ("v1.0.0", f"proxpi {__version__} (2026-12-24)\n", False),
        (f"v{__version__}", "proxpi 1.0.0 (2026-12-24)\n", False),
    ],
)
def test_tag(tag: str, changelog: str, agree: bool, tmp_path: Path) -> None:
    """No release is built unless its tag is the version, and the changelog has it."""
    shutil.copytree(TOP / "proxpi", tmp_path / "proxpi")
    (tmp_path / "CHANGELOG.rst").write_text(changelog)
    command = steps("distributions")["Compare tag, version and changelog"]
    ended = run("bash", "-e", "-c", f"cd {tmp_path}; {command}", GITHUB_REF_NAME=tag)
    assert (ended.returncode == 0) is agree
