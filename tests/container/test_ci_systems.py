"""The jobs of the files for CI systems, run line by line with the image of this clone.

A folder stands for the machine that a CI system assigns to a job: it has the workspace, and the
programs ``docker`` (podman with the images of the tests), ``sudo`` (the tests are root), ``id``
(of the user of the CI system) and ``pip``. The tests do what the CI system does itself: they start
services, and keep the cache folder, by tar, as its own user.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import attrs
import pytest
import yaml

from tests.support.clients import isolated_environment, run
from tests.support.containers import base_image, image, podman
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.process import GUARD_SECONDS

FOLDER = Path(__file__).parents[2] / "docs/ci"
USER = "1001"

_DOCKER = """\
#!{python}
import os, sys

arguments = [{name!r} if each == "proxpi" else each for each in sys.argv[1:]]
if arguments[0] == "ps":
    arguments += ["--filter=name={name}"]
if arguments[0] == "run":
    network = [] if any("--network" in each for each in arguments) else ["--network=host"]
    arguments[1:1] = [*network, "--pull=never", *{settings!r}]
command = [*{command!r}, *arguments]
os.execve(command[0], command, {environment!r})
"""


@attrs.frozen
class Job:
    """A job as its file defines it; the step ``None`` restores the cache folder."""

    steps: Sequence[str | None]
    environment: dict[str, str]
    service: dict[str, Any] | None = None


def github(text: str) -> Job:
    job = yaml.safe_load(text)["jobs"]["test"]
    steps = [
        step.get("run", "").replace("${{ job.services.proxpi.id }}", "proxpi") or None
        for step in job["steps"]
        if "run" in step or step["uses"].startswith("actions/cache@")
    ]
    return Job(steps, job["env"], job["services"]["proxpi"])


def azure(text: str) -> Job:
    pipeline = yaml.safe_load(text)
    [service] = pipeline["resources"]["containers"]
    steps = [
        step.get("script")
        for step in pipeline["steps"]
        if "script" in step or step["task"].startswith("Cache@")
    ]
    return Job(steps, pipeline["variables"], service)


def travis(text: str) -> Job:
    build = yaml.safe_load(text)
    variables = dict(line.split("=", 1) for line in build["env"]["global"])
    steps = [None, *build["before_install"], *build["install"], *build["before_cache"]]
    return Job(steps, variables)


class Machine:
    """A machine of a CI system, for one job after the other."""

    def __init__(self, folder: Path, index: FakeIndex) -> None:
        self.index = index
        self.name = f"test-{uuid4().hex[:12]}"
        self.workspace, self.cache = folder / "workspace", folder / "home/proxpi"
        self._folder, self._saved = folder, folder / "saved.tar"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        settings = {
            "LISTEN": f"tcp:{self._port}:interface=127.0.0.1",
            "INDEX_URL": index.url,
            "DOWNLOAD_TIMEOUT": "30",
        }
        docker = {
            "python": sys.executable,
            "name": self.name,
            "settings": [f"--env=PROXPI_{name}={settings[name]}" for name in settings],
            "command": podman().command,
            "environment": {**podman().environment},
        }
        pip = f'exec {sys.executable} -m pip "$@" --target "$(mktemp -d -p {folder})"'
        programs = {"sudo": 'exec "$@"', "id": f"echo {USER}", "pip": pip}
        programs = {name: f"#!/bin/sh\n{text}\n" for name, text in programs.items()}
        programs["docker"] = _DOCKER.format(**docker)
        for name, text in programs.items():
            path = folder / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        self.workspace.mkdir()
        (self.workspace / "requirements.txt").write_text("sampler==1.0\n")

    def read(self, name: str) -> str:
        """Return the text of a file with the image, the folder and the port of this machine."""
        text = (FOLDER / name).read_text().replace("registry.example.org/proxpi:2", image())
        text = text.replace("/tmp/proxpi", str(self.cache))
        return text.replace("127.0.0.1:5000", f"127.0.0.1:{self._port}")

    def shell(self, line: str, environment: dict[str, str]) -> None:
        path = os.pathsep.join([str(self._folder / "bin"), os.environ["PATH"]])
        own = {"PATH": path, "PIP_NO_CACHE_DIR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        run(
            ["bash", "-ec", line],
            self.workspace,
            isolated_environment(self._folder, **own, **environment),
        )

    def run(self, job: Job) -> str:
        """Run a job as its CI system does; return the log of proxpi, of all its starts."""
        self.cache.parent.mkdir(exist_ok=True)
        os.chown(self.cache.parent, int(USER), int(USER))
        rmtree(self.cache, ignore_errors=True)
        if job.service is not None:
            self.cache.mkdir()  # as Docker makes it
            volumes = " ".join(f"--volume {volume}" for volume in job.service["volumes"])
            options = f"--detach --name proxpi {job.service['options']} {volumes}"
            self.shell(f"docker run {options} {job.service['image']}", {})
            end = time.monotonic() + GUARD_SECONDS
            while podman().ended("healthcheck", "run", self.name).returncode:
                assert time.monotonic() < end, podman().run("logs", self.name)
        for step in job.steps:
            if step is not None:
                self.shell(step, job.environment)
            elif self._saved.exists():
                self._tar("-x", data=self._saved.read_bytes())
        self._saved.write_bytes(self._tar("-c", self.cache.name))
        log = podman().run("logs", self.name)
        podman().run("rm", self.name)
        return log

    def _tar(self, *arguments: str, data: bytes = b"") -> bytes:
        command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "tar"]
        command += ["--posix", "-C", str(self.cache.parent), "-f", "-", *arguments]
        return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


@pytest.fixture
def machine() -> Iterator[Machine]:
    with FakeIndex() as index, TemporaryDirectory() as folder:
        index.add(make_wheel("sampler", requires=["needed"]))
        index.add(make_wheel("needed"))
        Path(folder).chmod(0o755)
        machine = Machine(Path(folder), index)
        try:
            yield machine
        finally:
            podman().run("rm", "--force", "--ignore", "--time=0", machine.name)
            podman().run("volume", "rm", "--force", machine.name)


def test_kept_folder(machine: Machine) -> None:
    """A run installs from the folder that another one has saved, without the index."""
    machine.run(github(machine.read("github-actions.yml")))
    machine.index.close()
    for read, name in [(azure, "azure-pipelines.yml"), (travis, "travis.yml")]:
        *_, last_start, _ = machine.run(read(machine.read(name))).split("Received SIGTERM")
        assert "cannot be written" not in last_start, "it counts the files that it finds"


def test_jenkins(machine: Machine) -> None:
    """A build installs through proxpi in its network; the next one finds the volume filled."""
    text = machine.read("Jenkinsfile").replace("--volume proxpi:", f"--volume {machine.name}:")
    text = text.replace("${proxpi.id}", machine.name)
    patterns = [r"withRun\('(.+)'\)", r'sh "(.+)"', r'inside\("(.+)"\)', r"sh '''([^']+)'''"]
    [[proxpi], [check], [inside], [build]] = [re.findall(pattern, text) for pattern in patterns]
    variables = dict(re.findall(r"(\w+) = '(.+)'", text))
    # The plugin's own options for the container of a build.
    own = f"--rm --user {USER}:{USER} --workdir {machine.workspace}"
    own += f" --volume {machine.workspace}:{machine.workspace}"
    own += "".join(f" --env {name}={variables[name]}" for name in variables)
    os.chown(machine.workspace, int(USER), int(USER))
    build = f"docker run {own} {inside} {base_image()} sh -xec '{build}'"
    # The first build is the one of another container, which takes ten seconds less.
    for each in ("pip install --requirement requirements.txt", build):
        machine.shell(f"docker run --detach --name proxpi {proxpi} {image()}", {})
        machine.shell(check, {})
        machine.shell(each, variables)
        machine.shell("docker stop proxpi", {})
        machine.shell("docker rm proxpi", {})
        machine.index.close()
