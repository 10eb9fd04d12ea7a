"""Several processes that serve: real ones, which are killed, stopped and asked all at once."""

from __future__ import annotations

import http.client
import os
import re
import signal
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.integration.conftest import StartProxy
from tests.support import sockets
from tests.support.certificates import make_certificate
from tests.support.distributions import Distribution, make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.proxy import Proxy, Reply

WORKERS = 2
JSON = {"Accept": "application/vnd.pypi.simple.v1+json"}
_SERVES = r"worker {}: process (\d+) serves"


def processes(proxy: Proxy) -> list[int]:
    """Wait until all workers serve, and give their numbers as the log has them."""
    return [
        int(proxy.wait_for_line(_SERVES.format(number)).group(1))
        for number in range(1, WORKERS + 1)
    ]


@pytest.fixture
def crew(fake_index: FakeIndex, start_proxy: StartProxy) -> Proxy:
    """A proxpi with two workers, all of which serve."""
    proxy = start_proxy(fake_index, workers=WORKERS)
    processes(proxy)
    return proxy


def listed(index: FakeIndex, distribution: Distribution) -> str:
    """List a file, and give where proxpi has it."""
    index.add(distribution)
    return f"/index/{distribution.project}/{distribution.filename}"


class Connection:
    """One connection of a client, that is kept."""

    def __init__(self, origin: str) -> None:
        parts = urlsplit(origin)
        self._connection = http.client.HTTPConnection(parts.netloc, timeout=60)

    def get(self, path: str, headers: dict[str, str] | None = None) -> Reply:
        """Ask."""
        self._connection.request("GET", path, headers=headers or JSON)
        response = self._connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, named, response.read())

    def close(self) -> None:
        """Be gone."""
        self._connection.close()


@contextmanager
def connected(proxy: Proxy, count: int) -> Iterator[list[Connection]]:
    """So many connections at the same time."""
    connections = [Connection(proxy.origin) for _ in range(count)]
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()


def cpu(pid: int) -> int:
    """Give what a process has used of processors."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_all_of_them_serve(crew: Proxy, fake_index: FakeIndex) -> None:
    """What is known is answered by the workers, and counted, logged and the same everywhere."""
    path = listed(fake_index, make_wheel("demo"))
    before = {pid: cpu(pid) for pid in [*processes(crew), crew.pid]}
    with connected(crew, 8) as connections:
        bodies = {connection.get(path).body for connection in connections for _ in range(500)}
    used = {pid: cpu(pid) - before[pid] for pid in before}
    assert bodies == {make_wheel("demo").data}
    assert min(used[pid] for pid in processes(crew)) > 0
    assert sum(used[pid] for pid in processes(crew)) > used[crew.pid]
    metrics = crew.get("/metrics").text
    assert answers(metrics) == {"hit": 3999.0, "miss": 1.0, "redirect": 0.0}
    crew.stop()
    assert len(re.findall(rf" GET {path} 200 \d+ (HIT|MISS) ", crew.output)) == 4000


def answers(metrics: str) -> dict[str, float]:
    """Give how often files were answered, by where they came from."""
    found = re.findall(r'^proxpi_file_answers_total\{cache="(\w+)"\} (\S+)', metrics, re.MULTILINE)
    return {kind: float(count) for kind, count in found}


def test_one_request_upstream(crew: Proxy, fake_index: FakeIndex) -> None:
    """However many ask whichever worker at once, page and file are asked for once."""
    wheel = make_wheel("demo")
    path = listed(fake_index, wheel)
    page = path.rpartition("/")[0] + "/"
    fake_index.clear_requests()
    with ThreadPoolExecutor(32) as pool:
        assert {reply.status for reply in pool.map(crew.get, [page] * 32)} == {200}
        assert {reply.body for reply in pool.map(crew.get, [path] * 64)} == {wheel.data}
    asked = [seen.path for seen in fake_index.requests()]
    assert len(asked) == 2 and asked[0] == "/simple/demo/" and asked[1].endswith(wheel.filename)


def test_forgotten_by_all(crew: Proxy, fake_index: FakeIndex) -> None:
    """What is forgotten is asked for again, whichever worker is asked, from that moment on."""
    path = listed(fake_index, make_wheel("demo"))
    with connected(crew, 6) as connections:
        for _ in range(20):
            for connection in connections:
                assert connection.get("/index/demo/").headers["x-cache"] in ("HIT", "MISS")
                assert connection.get(path).status == 200
            fake_index.add(make_wheel("demo", "2.0"))
            assert crew.request("DELETE", "/cache/demo").status == 200
            fake_index.clear_requests()
            replies = [connection.get("/index/demo/") for connection in connections]
            assert all(b"2.0" in reply.body for reply in replies)
            assert len(fake_index.requests()) == 1
            assert crew.request("DELETE", "/cache" + path.removeprefix("/index")).status == 200
            fake_index.clear_requests()
            assert all(connection.get(path).status == 200 for connection in connections)
            assert len(fake_index.requests()) == 1


def test_killed(crew: Proxy, fake_index: FakeIndex) -> None:
    """A worker that is killed is replaced; what is cached stays, and nobody is refused."""
    wheel = make_wheel("demo")
    path = listed(fake_index, wheel)
    for _ in range(6):
        assert crew.get(path).body == wheel.data
    fake_index.clear_requests()
    for round in range(3):
        pid = int(re.findall(_SERVES.format(1), crew.output)[-1])
        os.kill(pid, signal.SIGKILL)
        crew.wait_for_line(r"worker 1 has ended .*")
        while len(re.findall(_SERVES.format(1), crew.output)) < round + 2:
            assert crew.get(path).body == wheel.data
    assert fake_index.requests() == []


def test_all_killed(crew: Proxy, fake_index: FakeIndex) -> None:
    """With no worker left, the main process serves."""
    wheel = make_wheel("demo")
    path = listed(fake_index, wheel)
    for pid in processes(crew):
        os.kill(pid, signal.SIGKILL)
    for number in range(1, WORKERS + 1):
        crew.wait_for_line(f"worker {number} has ended")
    assert crew.get(path).body == wheel.data


def gone(pid: int) -> bool:
    """Tell whether a process has ended, or is about to."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def test_stopped(crew: Proxy, fake_index: FakeIndex) -> None:
    """A signal ends all of them, each once it has sent what it is sending."""
    wheel = Distribution("large", "1.0", "large-1.0.tar.gz", os.urandom(5 << 20), "")
    path = listed(fake_index, wheel)
    for _ in range(8):
        assert crew.get(path).body == wheel.data
    pids = processes(crew)
    with sockets.connect(crew.origin, receives=4096) as slow:
        sockets.ask(slow, path)
        status, _ = sockets.head(slow)
        assert status == 200
        os.kill(crew.pid, signal.SIGTERM)
        for pid in pids:  # as a terminal or a service manager does
            os.kill(pid, signal.SIGTERM)
        crew.wait_for_line("Received SIGTERM")
        assert sockets.body(slow, wheel.size) == wheel.data
    assert crew.wait() == -signal.SIGTERM
    assert all(map(gone, pids))


def test_main_process_killed(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path
) -> None:
    """When the main process is killed its workers end, and another can listen there at once."""
    wheel = make_wheel("demo")
    path = listed(fake_index, wheel)
    settings = {"workers": WORKERS, "cache_dir": tmp_path / "cache"}
    proxy = start_proxy(fake_index, **settings)
    processes(proxy)
    port = urlsplit(proxy.origin).port
    for _ in range(6):
        assert proxy.get(path).body == wheel.data
    proxy.stop(signal.SIGKILL)
    fake_index.clear_requests()
    again = start_proxy(fake_index, listen=f"tcp:{port}:interface=127.0.0.1", **settings)
    assert again.get(path).body == wheel.data
    assert fake_index.requests() == []


def test_over_tls(fake_index: FakeIndex, tmp_path: Path) -> None:
    """What is listened on with TLS is the main process's alone, beside what the workers share."""
    wheel = make_wheel("demo")
    path = listed(fake_index, wheel)
    certificate = make_certificate(tmp_path)
    plain = "tcp:0:interface=127.0.0.1"
    secure = f"ssl:0:interface=127.0.0.1:privateKey={certificate}:certKey={certificate}"
    settings = {"PROXPI_INDEX_URL": fake_index.url, "PROXPI_WORKERS": str(WORKERS)}
    with Proxy(settings, ["--listen", plain, "--listen", secure], folder=tmp_path) as proxy:
        processes(proxy)
        netloc = proxy.wait_for_line(r"and https://([^/]+)/").group(1)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(netloc, timeout=60, context=context)
        for _ in range(5):
            connection.request("GET", path)
            assert connection.getresponse().read() == wheel.data
            assert proxy.get(path).body == wheel.data
        connection.close()


def test_bad_number(fake_index: FakeIndex, tmp_path: Path) -> None:
    """A number that is none is refused in one line."""
    settings = {"PROXPI_INDEX_URL": fake_index.url, "PROXPI_WORKERS": "many"}
    with Proxy(settings, folder=tmp_path, listens=False) as proxy:
        assert proxy.wait() == 1
        assert "PROXPI_WORKERS='many'" in proxy.output
        assert "1 or more, or auto is accepted" in proxy.output
