"""The image as it is built: what it adds to its base, and what it does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.containers import SECRET, base_image, image, podman, run_container

MIB = 1 << 20
#: Build tools, tests and the source tree, which the image does not contain.
UNWANTED = ["/pip", "/setuptools", "/wheel", "/hatchling", "/tests", "/test", "/build", "/src"]


def inspected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(podman().run("image", "inspect", name))[0]
    return found


@pytest.fixture(scope="module")
def added() -> list[str]:
    """Return the paths that the image adds to its base, or changes."""
    changes = json.loads(podman().run("diff", "--format=json", image(), base_image()))
    return [path for kind in ("added", "changed") for path in changes.get(kind, [])]


@pytest.mark.parametrize(("extras", "limit"), [("", 75), ("s3", 110)])
def test_size(extras: str, limit: int) -> None:
    """The image takes no more above its base than what is promised."""
    base, built = inspected(base_image())["Size"], inspected(image(extras))["Size"]
    assert built - base < limit * MIB


def test_no_secrets() -> None:
    """No secret of the build is in the history, the configuration or the files."""
    everything = podman().run("history", "--no-trunc", "--format=json", image())
    everything += json.dumps(inspected(image()))
    assert SECRET not in everything
    assert "PIP_" not in everything
    with run_container(
        image(),
        "-rlI",
        SECRET,
        "/etc",
        "/opt",
        "/root",
        "/tmp",
        "/usr/local",
        "/var",
        options=["--network=none", "--entrypoint=grep"],
        ready="",
    ) as search:
        assert search.wait() == 1, search.output


def test_files(added: list[str]) -> None:
    """The image adds proxpi and its dependencies to the base, in one folder."""
    outside = {path for path in added if not path.startswith(("/opt/proxpi/", "/etc/"))}
    folders = {"/etc", "/opt", "/opt/proxpi", "/root", "/var", "/var/cache", "/var/cache/proxpi"}
    assert outside <= folders
    names = [path.partition("/site-packages")[2] for path in added if path.endswith(".py")]
    assert "/proxpi/values.py" in names
    for unwanted in UNWANTED:
        assert not [name for name in names if f"{unwanted}/" in name]


def test_bytecode(added: list[str]) -> None:
    """Each module has its bytecode: a read-only file system cannot take it."""
    modules = [path for path in added if path.endswith(".py") and "/site-packages/" in path]
    compiled = [path for path in added if path.endswith(".pyc") and "/site-packages/" in path]
    assert len(modules) > 500
    assert len(compiled) >= len(modules)


def test_licenses(added: list[str]) -> None:
    """Each distribution keeps its metadata and the licenses beside it."""
    packages = {path for path in added if path.endswith(".dist-info/METADATA")}
    licenses = [path for path in added if ".dist-info/" in path and "LICEN" in path.upper()]
    assert len(licenses) >= len(packages) * 0.9
    assert any("/proxpi-" in path for path in licenses)


def test_configuration() -> None:
    """The configuration has the defaults of a container: user, port, volume, variables, labels."""
    found = inspected(image())["Config"]
    assert "User" not in found  # root, who gives the folder away and drops to uid 1000
    assert found["ExposedPorts"] == {"5000/tcp": {}}
    assert found["Volumes"] == {"/var/cache/proxpi": {}}
    assert inspected(image())["Healthcheck"]["Test"][0] == "CMD"
    own = {name: value for name, _, value in (each.partition("=") for each in found["Env"])}
    own.pop("PATH")
    assert own == {"PROXPI_LISTEN": "tcp:5000", "PROXPI_CACHE_DIR": "/var/cache/proxpi"}
    labels = found["Labels"]
    assert labels["org.opencontainers.image.title"] == "proxpi"
    assert labels["org.opencontainers.image.licenses"] == "MIT"
