"""The compose files, as podman-compose starts them."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.containers import ROOT, Network, image, network, wait_healthy
from tests.support.distributions import make_wheel
from tests.support.docker import docker, execute, python_image
from tests.support.fake_index import FakeIndex
from tests.support.proxy import request
from tests.support.servers import Gate


def _file(name: str, networks: Mapping[str, Network]) -> dict[str, Any]:
    """Return a file of this clone whose networks are those of the test."""
    file: dict[str, Any] = yaml.safe_load((ROOT / "docker" / name).read_text())
    assert networks.keys() == file.get("networks", {"default": None}).keys()
    known = {each: {"name": networks[each].name, "external": True} for each in networks}
    return {**file, "networks": known}


@contextmanager
def _compose(file: Mapping[str, Any], folder: Path) -> Iterator[Callable[..., str]]:
    """Give the command of compose for a file; what it starts ends with the block."""
    image()
    (folder / "compose.yaml").write_text(yaml.safe_dump({**file, "name": folder.name}))
    command = [sys.executable, "-m", "podman_compose", "--in-pod=false"]
    command += ["--podman-path", str(docker(folder)), "--file", str(folder / "compose.yaml")]
    try:
        yield lambda *arguments: execute([*command, *arguments])
    finally:
        execute([*command, "down", "--volumes"])


def _set_index(file: dict[str, Any], outside: Network, index: FakeIndex, **variables: str) -> None:
    url = f"http://{outside.host}:{index.files_port}/simple/"
    known = file["services"]["proxpi"].setdefault("environment", {})
    known.update(PROXPI_INDEX_URL=url, **variables)


def test_job_without_a_way_out(tmp_path: Path) -> None:
    """A job installs through proxpi, which streams, and reaches nothing else."""
    python_image(tmp_path)
    known = yaml.safe_load((ROOT / "docker/compose.ci.yaml").read_text())["networks"]["jobs"]
    internal = ["--internal"] if known["internal"] else []
    with FakeIndex() as index, network() as outside, network(*internal) as jobs:
        file = _file("compose.ci.yaml", {"default": outside, "jobs": jobs})
        # Without stream mode each file is redirected at once.
        off = {"PROXPI_DOWNLOAD_TIMEOUT": "0", "PROXPI_PREFETCH": "off"}
        _set_index(file, outside, index, **off)
        index.add(make_wheel("requests", padding=100_000))
        port = index.files_port
        with _compose(file, tmp_path) as run:
            run("up", "--detach", "proxpi")
            wait_healthy(f"{tmp_path.name}_proxpi_1")
            with Gate(port, outside.host, port):
                assert "Successfully installed requests" in run("run", "--rm", "job")
            assert index.files_asked()
            # This machine has the address as long as proxpi runs.
            reach = f"import socket; socket.create_connection(({outside.host!r}, {port}))"
            with pytest.raises(AssertionError, match="Network is unreachable"):
                run("run", "--rm", "job", "python", "-c", reach)


def test_restart_keeps_the_cache(tmp_path: Path) -> None:
    """The service is published for this machine, and keeps its cache when it is made again."""
    wheel = make_wheel("example")
    with FakeIndex() as index, network() as outside:
        file = _file("compose.yaml", {"default": outside})
        _set_index(file, outside, index, PROXPI_DOWNLOAD_TIMEOUT="60")
        index.add(wheel)
        port, path = index.files_port, f"/index/example/{wheel.filename}"
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        [published] = file["services"]["proxpi"]["ports"]
        file["services"]["proxpi"]["ports"] = [published.replace("127.0.0.1:5000", address)]
        with _compose(file, tmp_path) as run:
            for cached in ("MISS", "HIT"):
                run("up", "--detach")
                with Gate(port, outside.host, port):
                    wait_healthy(f"{tmp_path.name}_proxpi_1")
                    reply = request(f"http://{address}", "GET", path)
                assert (reply.status, reply.headers["x-cache"]) == (200, cached)
                run("down")
    assert len(index.files_asked()) == 1
