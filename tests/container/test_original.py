"""A volume of the original: its files are root's, proxpi uses them and goes on filling it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.containers import Container, image, run_container
from tests.support.distributions import Distribution, make_sdist, make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.original import Original
from tests.support.proxy import Reply, request

#: Where the volume is mounted: in a folder of root's, rather than where the image has its own.
CACHE = "/root/proxpi"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def files(fake_index: FakeIndex, folder: Path, tmp_path: Path) -> list[Distribution]:
    """Run the original, as root, until its cache folder has files; return them."""
    files = [make_wheel("demo"), make_sdist("demo"), make_wheel("other", padding=100_000)]
    for file in files:
        fake_index.add(file)
    settings = {"INDEX_URL": fake_index.url, "CACHE_DIR": str(folder), "DOWNLOAD_TIMEOUT": "30"}
    environment = {f"PROXPI_{name}": value for name, value in settings.items()}
    with Original(environment, folder=tmp_path) as original:
        for file in files:
            reply = original.get(f"/index/{file.project}/{file.filename}")
            assert (reply.status, reply.body) == (200, file.data)
    assert owners(folder) == {0}
    fake_index.clear_requests()
    return files


@contextmanager
def proxpi(folder: Path, index: FakeIndex, *options: str) -> Iterator[tuple[Container, str]]:
    """Run the image in the network of this machine, where the original was; give its origin."""
    settings = {
        "CACHE_DIR": CACHE,
        "INDEX_URL": index.url,
        "LISTEN": "tcp:0:interface=127.0.0.1",
        "DOWNLOAD_TIMEOUT": "30",
    }
    given = ["--network=host", f"--volume={folder}:{CACHE}", *options]
    given += [f"--env=PROXPI_{name}={value}" for name, value in settings.items()]
    with run_container(image(), options=given) as container:
        url = container.wait_for_line(r"listening on (http://[\d.:]+)")
        yield container, url.group(1)


def get(origin: str, file: Distribution) -> Reply:
    return request(origin, "GET", f"/index/{file.project}/{file.filename}")


def owners(folder: Path) -> set[int]:
    return {path.lstat().st_uid for path in [folder, *folder.rglob("*")]}


def test_goes_on(folder: Path, fake_index: FakeIndex, files: list[Distribution]) -> None:
    """No file is fetched again; new ones are stored, and everything belongs to the user then."""
    new = make_wheel("new")
    fake_index.add(new)
    with proxpi(folder, fake_index) as (container, origin):
        for file in files:
            assert get(origin, file).body == file.data
        assert not fake_index.files_asked()
        assert get(origin, new).body == new.data
        assert container.stop() == 0
    assert owners(folder) == {1000}
    fake_index.clear_requests()
    with proxpi(folder, fake_index) as (container, origin):
        for file in [*files, new]:
            assert get(origin, file).body == file.data
        assert not fake_index.files_asked()
        assert not re.search("giving|cannot", container.logs())


def test_only_read(folder: Path, fake_index: FakeIndex, files: list[Distribution]) -> None:
    """With a user who may not write there, the files are served, and a line says what to do."""
    new = make_wheel("new")
    fake_index.add(new)
    before = owners(folder)
    with proxpi(folder, fake_index, "--user=1000:1000") as (container, origin):
        for file in files:
            assert get(origin, file).body == file.data
        assert not fake_index.files_asked()
        assert get(origin, new).status in (200, 302)
        assert "--user" in container.logs()
    assert owners(folder) == before
