"""``docker build`` through proxpi, by the commands of the page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.containers import podman
from tests.support.docker import command, python_image, shell
from tests.support.proxy import Proxy, way_out

_SECRET = "hunter2"
_PIP = "[global]\nindex-url = {url}\n"
_UV = '[[index]]\nurl = "{url}"\ndefault = true\n'


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxpi before the default index, which has uv."""
    folder = tmp_path_factory.mktemp("proxy")
    python_image(folder)
    with Proxy(way_out(), ["--download-timeout=60"], folder=folder) as started:
        yield started


@contextmanager
def _built(build: str, proxy: Proxy, folder: Path) -> Iterator[str]:
    """Build an image; give its name, once proxpi was asked by pip and by uv."""
    name, seen = f"localhost/test-{uuid4().hex}", len(proxy.output)
    shell(f"{build} --tag {name}", folder)
    try:
        log = proxy.output[seen:]
        assert "GET /index/uv/ 200" in log, "by pip"
        assert "GET /index/requests/ 200" in log, "by uv"
        yield name
    finally:
        podman().run("rmi", "--force", name)


@pytest.mark.parametrize("option", ["--network=host --build-arg", "--add-host="])
def test_arguments(option: str, proxy: Proxy, tmp_path: Path) -> None:
    """With build arguments, pip and uv ask proxpi; the image has no variables of them."""
    build = command("docs/ci.rst", f"docker build {option}").replace(":5000", f":{_port(proxy)}")
    # Debian's podman does not know the word: the name leads to proxpi in the machine's own network.
    build = build.replace(
        "--add-host=host.docker.internal:host-gateway",
        "--network=host --add-host=host.docker.internal:127.0.0.1",
    )
    with _built(build, proxy, tmp_path) as name:
        variables = podman().run("image", "inspect", "--format", "{{.Config.Env}}", name)
    assert "INDEX" not in variables
    assert "TRUSTED" not in variables


def test_secrets(proxy: Proxy, tmp_path: Path) -> None:
    """With secrets, pip and uv ask proxpi; the image and its history have no password."""
    url = f"http://user:{_SECRET}@127.0.0.1:{_port(proxy)}/index/"
    build = command("docs/ci.rst", "docker build --network=host --secret")
    for name, text in {"pip.conf": _PIP, "uv.toml": _UV}.items():
        (tmp_path / name).write_text(text.format(url=url))
        assert f"src={name}" in build
        build = build.replace(f"src={name}", f"src={tmp_path / name}")
    with _built(build, proxy, tmp_path) as image:
        history = podman().run("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
        find = ["grep", "-rls", _SECRET, "/etc", "/opt", "/root", "/run", "/tmp", "/usr", "/var"]
        found = podman().ended("run", "--rm", "--network=none", image, *find)
    assert "--mount=type=secret" in history
    assert _SECRET not in history
    assert (found.returncode, found.stdout) == (1, "")


def _port(proxy: Proxy) -> str:
    return proxy.origin.rpartition(":")[2]
