"""The running image: users, capabilities, clients that reach only proxpi, restarts, SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from tests.support.containers import (
    Container,
    Network,
    base_image,
    image,
    network,
    run_container,
    volume,
)
from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.proxy import request
from tests.support.servers import Gate

URL = "http://proxpi:5000/index/"
CACHE = "/var/cache/proxpi"
READ_ONLY = ["--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL"]
READ_ONLY += ["--security-opt=no-new-privileges"]
UV = Path(sys.executable).with_name("uv")
WAIT = "trap exit TERM; echo ready; sleep infinity & wait"


def address(network: Network) -> str:
    """Return proxpi's address in a network."""
    return f"{network.host}00"


@attrs.frozen
class Place:
    """An index, a network of clients that do not reach it, and one for proxpi that does."""

    index: FakeIndex
    outside: Network
    jobs: Network
    client: Container

    @contextmanager
    def proxpi(self, *options: str) -> Iterator[Container]:
        settings = {
            "INDEX_URL": f"http://{self.outside.host}:{self.index.files_port}/simple/",
            "SLOW_DOWNLOAD": "stream",
        }
        # A client would look for the hardware address of the container before for a while.
        given = [
            f"--network={each.name}:ip={address(each)},mac=02:00:00:00:00:01"
            for each in (self.jobs, self.outside)
        ]
        given += [f"--env=PROXPI_{name}={value}" for name, value in settings.items()]
        container = run_container(image(), options=[*given, *options])
        port = self.index.files_port
        # This machine has the address as long as a container is in the network.
        with container, Gate(port, self.outside.host, port):
            yield container

    def install(self, *requirements: str) -> None:
        """Install with pip and with uv, each into a new folder, from nothing but proxpi."""
        new = self.client.exec("mktemp", "--directory")
        target = ["--quiet", "--no-cache-dir", f"--target={new}"]
        pip = ["python3", "-m", "pip", "install", f"--index-url={URL}", "--trusted-host=proxpi"]
        self.client.exec(*pip, *target, *requirements)
        uv = ["uv", "pip", "install", f"--default-index={URL}", "--no-cache", "--python=python3"]
        self.client.exec(*uv, f"--target={new}/uv", *requirements)
        for folder in (new, f"{new}/uv"):
            self.client.exec("test", "-f", f"{folder}/{requirements[0]}/__init__.py")


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    # The server for names in networks drops requests whenever a container starts or ends.
    with (
        FakeIndex() as index,
        network("--disable-dns") as outside,
        network("--disable-dns", "--internal") as jobs,
    ):
        options = [f"--volume={UV}:/usr/local/bin/uv:ro", f"--network={jobs.name}"]
        options += [f"--add-host=proxpi:{address(jobs)}"]
        waiting = ["sh", "-c", WAIT]
        with run_container(base_image(), *waiting, options=options, ready="ready") as client:
            yield Place(index, outside, jobs, client)


@pytest.mark.parametrize(
    ("name", "options", "user"),
    [
        pytest.param("plain", [], 1000, id="as root, which drops"),
        pytest.param("hardened", ["--user=1000:1000", *READ_ONLY], 1000, id="non-root, read-only"),
        pytest.param("someone", ["--user=54321:54321", *READ_ONLY], 54321, id="an arbitrary user"),
        pytest.param("bare", READ_ONLY, 0, id="root without capabilities"),
    ],
)
def test_installs(place: Place, name: str, options: Sequence[str], user: int) -> None:
    """
    Clients that reach only proxpi install through it, with each user and set of capabilities.

    They do so again with the upstream gone, and after a restart from the cache. The health check
    succeeds, and SIGTERM to the first process ends it with status 0.
    """
    for project in (name, f"{name}-needed"):
        place.index.add(make_wheel(project, requires=[f"{name}-needed"] if project == name else []))
    with volume() as folder:
        with place.proxpi(f"--volume={folder}:{CACHE}", *options) as proxpi:
            proxpi.wait_healthy()
            assert proxpi.inspect("{{.State.Health.Status}}") == "healthy"
            status = proxpi.exec("cat", "/proc/1/status")
            assert status.partition("\nUid:")[2].split()[:4] == [str(user)] * 4
            place.install(name)
            place.index.close()
            try:
                place.install(name)
            finally:
                place.index.reopen()
            assert proxpi.stop() == 0
        place.index.clear_requests()
        with place.proxpi(f"--volume={folder}:{CACHE}", *options) as proxpi:
            place.install(name)
            assert not place.index.files_asked()
            assert proxpi.stop() == 0
            assert "cannot be" not in proxpi.logs()


def test_no_way_out(place: Place) -> None:
    """The network of the clients is what these tests say."""
    with place.proxpi():
        port = place.index.files_port
        code = f"import socket; socket.create_connection(({place.outside.host!r}, {port}), 10)"
        with pytest.raises(AssertionError, match="Network is unreachable"):
            place.client.exec("python3", "-c", code)


def test_drain(place: Place) -> None:
    """SIGTERM to the first process: a response under way is finished, then it ends with 0."""
    wheel = make_wheel("drained", padding=500_000)
    path = place.index.add(wheel)
    place.index.script(path, Behavior(hold_after=250_000))
    with place.proxpi() as proxpi, ThreadPoolExecutor(1) as pool:
        origin = f"http://{address(place.outside)}:5000"
        target = f"/index/drained/{wheel.filename}"
        try:
            download = pool.submit(request, origin, "GET", target)
            place.index.wait_for(lambda seen: any(each.path == path for each in seen))
            os.kill(proxpi.pid, signal.SIGTERM)
            proxpi.wait_for_line("Received SIGTERM")
        finally:
            place.index.release(path)
        assert download.result().body == wheel.data
        assert proxpi.wait() == 0
