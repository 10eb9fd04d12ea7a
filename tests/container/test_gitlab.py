"""GitLab CI: the commands of the page start proxpi, and jobs with the runner's variables use it."""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path

from tests.support.containers import ROOT, image, network, podman, volume, wait_healthy
from tests.support.distributions import make_wheel
from tests.support.docker import PYTHON, command, python_image, shell
from tests.support.fake_index import FakeIndex
from tests.support.servers import Gate


def test_jobs_of_a_runner(tmp_path: Path) -> None:
    """pip and uv in a job of the runner install through the proxpi of the page."""
    python_image(tmp_path)
    image()
    [runner] = tomllib.loads((ROOT / "docs/ci/gitlab-runner.toml").read_text())["runners"]
    uv = shutil.which("uv", path=str(Path(sys.executable).parent))
    with FakeIndex() as index, network() as jobs, volume() as cache:
        port = index.files_port
        url = f"http://{jobs.host}:{port}/simple/"
        path = index.add(make_wheel("example"))
        start = command("docs/ci.rst", "docker run \\")
        for said, used in {
            runner["docker"]["network_mode"]: jobs.name,
            "proxpi-cache": cache,
            "--detach": f"--detach --env PROXPI_DOWNLOAD_TIMEOUT=60 --env PROXPI_INDEX_URL={url}",
        }.items():
            assert said in start
            start = start.replace(said, used)
        shell(start, tmp_path)
        try:
            options = [f"--env={each}" for each in runner["environment"]]
            options += ["--rm", f"--network={jobs.name}", f"--volume={uv}:/usr/bin/uv:ro"]
            install = "pip install example && uv pip install --system --reinstall example"
            wait_healthy("proxpi")
            with Gate(port, jobs.host, port):
                podman().run("run", *options, runner["docker"]["image"], "sh", "-ec", install)
            log = podman().run("logs", "proxpi")
        finally:
            podman().run("rm", "--force", "--time=0", "proxpi")
    assert runner["docker"]["image"] == PYTHON
    assert [seen.path for seen in index.files_asked()].count(path) == 1
    assert log.count("GET /index/example/example-1.0-py3-none-any.whl 200") == 2
