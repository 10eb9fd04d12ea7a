"""Views with real clients: CUDA and CPU builds of the same projects, side by side on one proxpi."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import attrs
import pytest

from tests.support import configs
from tests.support.clients import Environment, pip_install, uv_install
from tests.support.distributions import Distribution, make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy

JSON = "application/vnd.pypi.simple.v1+json"
Install = Callable[..., tuple[Environment, str]]
#: A wheel that both indexes of builds list, with equal bytes.
SHARED = make_wheel("triton", "3.0", padding=20_000)
#: A wheel that has one name in both, and bytes of its own in each.
REBUILT = {
    "cu126": make_wheel("torch-tools", "1.0", requires=["nvidia-cublas"]),
    "cpu": make_wheel("torch-tools", "1.0"),
}
#: The files of each index; the public one has builds for no view.
FILES: dict[str, list[Distribution]] = {
    "cu126": [
        make_wheel("torch", "2.0+cu126", requires=["typing-shim", "nvidia-cublas", "triton"]),
        make_wheel("torch", "1.9+cu126", requires=["nvidia-cublas"]),
        make_wheel("torchvision", "0.15+cu126", requires=["torch==2.0", "torch-tools"]),
        make_wheel("nvidia-cublas", "12.6.4", padding=30_000),
        make_wheel("typing-shim", "5.0"),
        REBUILT["cu126"],
        SHARED,
    ],
    "cpu": [
        make_wheel("torch", "2.0+cpu", requires=["typing-shim", "triton"]),
        make_wheel("torch", "1.9+cpu"),
        make_wheel("torchvision", "0.15+cpu", requires=["torch==2.0", "torch-tools"]),
        REBUILT["cpu"],
        SHARED,
    ],
    "pypi": [
        make_wheel("torch", "2.0", requires=["typing-shim"]),
        make_wheel("torchvision", "0.14"),
        make_wheel("typing-shim", "4.0"),
    ],
}
#: What is installed from each view by ``torchvision``.
VIEWS = {
    "cu126": {"torch": "2.0+cu126", "torchvision": "0.15+cu126", "nvidia_cublas": "12.6.4"},
    "cpu": {"torch": "2.0+cpu", "torchvision": "0.15+cpu"},
}
BOTH = {"torch_tools": "1.0", "triton": "3.0", "typing_shim": "4.0"}
BUILDS = ["torch*", "nvidia-*", "triton"]


@attrs.frozen
class Side:
    """Indexes by name, and a proxpi with a view for each kind of builds."""

    indexes: dict[str, FakeIndex]
    proxy: Proxy

    def install(self, install: Install, folder: Path, view: str, *required: str) -> Environment:
        return install(folder, f"{self.proxy.origin}/{view}/index/", *required)[0]

    def requests(self, *, files: bool) -> Counter[str]:
        """Count the requests by the index and the path."""
        return Counter(
            f"{name}{seen.path}"
            for name, index in self.indexes.items()
            for seen in index.wait_until_quiet()
            if seen.is_file is files
        )


@pytest.fixture
def side(start_proxy: StartProxy, tmp_path: Path) -> Iterator[Side]:
    with ExitStack() as stack:
        indexes = {name: stack.enter_context(FakeIndex()) for name in FILES}
        for name, files in FILES.items():
            for file in files:
                indexes[name].add(file)
        config = configs.write(
            tmp_path,
            configs.index("cu126", indexes["cu126"], projects=BUILDS),
            configs.index("cpu", indexes["cpu"], projects=BUILDS),
            configs.index("pypi", indexes["pypi"]),
            configs.view("default", "pypi"),
            configs.view("cu126", "cu126", "pypi"),
            configs.view("cpu", "cpu", "pypi"),
        )
        yield Side(indexes, start_proxy(config=config))


def _assert_installed(environment: Environment, expected: dict[str, str]) -> None:
    assert {module: environment.version_of(module) for module in expected} == expected


@pytest.mark.parametrize("first", VIEWS)
def test_installs(side: Side, tmp_path: Path, first: str) -> None:
    """pip and uv install from both views; a page is requested once, and a file downloaded once."""
    for view in sorted(VIEWS, key=lambda view: view != first):
        for name, install in {"uv": uv_install, "pip": pip_install}.items():
            environment = side.install(install, tmp_path / f"{view}-{name}", view, "torchvision")
            _assert_installed(environment, VIEWS[view] | BOTH)
    pages, files = side.requests(files=False), side.requests(files=True)
    assert {*pages.values()} == {1}, pages
    assert {*files.values()} == {1}, files
    shared = [path for path in files if path.endswith(SHARED.filename)]
    assert len(shared) == 1
    assert not [path for path in pages if "typing-shim" in path and not path.startswith("pypi")]
    assert not [path for path in files if path.startswith("pypi") and "/torch" in path]


def test_default_view(side: Side, tmp_path: Path) -> None:
    """The view called ``default`` is at ``/index/``; an unknown view is a 404."""
    environment, _ = uv_install(tmp_path, side.proxy.url, "torch")
    assert environment.version_of("torch") == "2.0"
    for path in ("/cu128/index/torch/", "/cu126/torch/", "/cu126/", "/index/cu126/torch/"):
        assert side.proxy.get(path).status == 404, path


def test_one_name_two_files(side: Side, tmp_path: Path) -> None:
    """Each view sends its own bytes of a file that both indexes have under one name."""
    assert REBUILT["cu126"].filename == REBUILT["cpu"].filename
    for _ in range(2):
        for view, wheel in REBUILT.items():
            for root in ("index", "simple"):
                path = f"/{view}/{root}/torch-tools/{wheel.filename}"
                assert side.proxy.get_cached(path).body == wheel.data
                assert side.proxy.get(f"{path}.metadata").body == wheel.metadata
                part = side.proxy.get_cached(path)
                assert part.headers["etag"] == f'"{wheel.sha256}"'
    for view in VIEWS:
        environment = side.install(pip_install, tmp_path / view, view, "torch-tools")
        installed = {path.name for path in environment.folder.rglob("*.dist-info")}
        assert ("nvidia_cublas-12.6.4.dist-info" in installed) is (view == "cu126")


def test_locks(side: Side) -> None:
    """A lock is prefetched from the view that is named: its clients get the files as hits."""
    for view, modules in VIEWS.items():
        target = f"/prefetch?python=3.12&platform=manylinux_2_28_x86_64&view={view}"
        pins = f"torch=={modules['torch']}\ntorch-tools==1.0\n"
        reply = side.proxy.request("POST", target, body=pins.encode())
        *lines, _ = [json.loads(line) for line in reply.text.splitlines()]
        assert [line["outcome"] for line in lines] == ["fetched", "fetched"], reply.text
        wheel = f"torch-{modules['torch']}-py3-none-any.whl"
        hit = side.proxy.get(f"/{view}/index/torch/{wheel}")
        assert (hit.status, hit.headers["x-cache"]) == (200, "HIT")
        assert side.proxy.get(f"/index/torch/{wheel}").status == 404


def test_lines_of_clients(side: Side) -> None:
    """The page at ``/`` has the lines of clients for each view."""
    page = re.sub("<[^>]*>", "", side.proxy.get("/").text)
    for view in ("", "cu126/", "cpu/"):
        assert f"--index-url {side.proxy.origin}/{view}index/" in page
        assert f"--default-index {side.proxy.origin}/{view}index/" in page


def test_forgotten_everywhere(side: Side) -> None:
    """``DELETE`` of a project, or of a file, holds in every view."""
    wheels = {view: f"torch-{VIEWS[view]['torch']}-py3-none-any.whl" for view in VIEWS}

    def fetch() -> None:
        for view, wheel in wheels.items():
            page = side.proxy.get(f"/{view}/index/torch/", Accept=JSON)
            assert wheel in [file["filename"] for file in json.loads(page.body)["files"]]
            assert side.proxy.get(f"/{view}/index/torch/{wheel}").status == 200

    def requests(*, files: bool) -> Counter[str]:
        found = side.requests(files=files)
        return Counter({path: count for path, count in found.items() if "/torch/" in path})

    fetch()
    pages, files = requests(files=False), requests(files=True)
    assert pages == {f"{name}/simple/torch/": 1 for name in FILES}
    fetch()
    assert (requests(files=False), requests(files=True)) == (pages, files)
    assert side.proxy.request("DELETE", "/cache/torch").status == 200
    fetch()
    assert requests(files=False) == {f"{name}/simple/torch/": 2 for name in FILES}
    assert requests(files=True) == files
    paths = {view: f"{view}/files/torch/{quote(wheel)}" for view, wheel in wheels.items()}
    assert side.proxy.request("DELETE", f"/cache/torch/{wheels['cpu']}").status == 200
    fetch()
    files = requests(files=True)
    assert (files[paths["cpu"]], files[paths["cu126"]]) == (2, 1)
    assert side.proxy.request("DELETE", "/cache").status == 200
    fetch()
    files = requests(files=True)
    assert (files[paths["cpu"]], files[paths["cu126"]]) == (3, 2)
