"""SIGTERM while something hangs: the process ends at the drain time-out and a second, at most."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import sockets
from tests.support.behavior import Behavior
from tests.support.certificates import Authority, serving
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.inside import hung
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy

#: Above what a loaded machine adds to the second after the drain, and far below any time-out.
SOON = 5.0
#: A time-out, in seconds, that no test waits for.
LONG = 50
#: A pipe takes no longer line once it holds so many bytes (pipe(7): 65,536, a page at a time).
FULL = 56 * 1024
JSON = "application/vnd.pypi.simple.v1+json"
CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc"]


def first_in(proxy: Proxy) -> int:
    """Give the number of the first process of a container that `unshare` has made."""
    [number] = Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children").read_text().split()
    return int(number)


@contextmanager
def silent_after_a_page(context: ssl.SSLContext) -> Iterator[str]:
    """Run an index that answers one request of a connection and then never reads again."""
    page = json.dumps({"meta": {"api-version": "1.0"}, "name": "demo", "files": []}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nContent-Length: {len(page)}\r\n\r\n"
    open_connections = []

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:  # closed
                return
            connection = context.wrap_socket(plain, server_side=True)
            while b"\r\n\r\n" not in connection.recv(65536):
                pass
            connection.sendall(head.encode() + page)
            open_connections.append(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in open_connections:
        connection.close()


def test_idle_tls_connection(tmp_path: Path) -> None:
    """An upstream that does not answer the end of an idle TLS connection is not waited for."""
    authority = Authority(tmp_path)
    context = serving(authority.issue("server", "127.0.0.1"))
    with silent_after_a_page(context) as index:
        settings = {
            "PROXPI_INDEX_URL": index,
            "PROXPI_CA_BUNDLE": str(authority.path),
            "PROXPI_DRAIN_TIMEOUT": str(LONG),
        }
        with Proxy(settings, folder=tmp_path) as proxy:
            assert proxy.get("/index/demo/").status == 200
            began = time.monotonic()
            assert proxy.stop() == -signal.SIGTERM
            assert time.monotonic() - began < SOON


def test_idle_tls_connection_in_a_container(tmp_path: Path) -> None:
    """As the first process of a container it ends as fast, with status 0."""
    authority = Authority(tmp_path)
    context = serving(authority.issue("server", "127.0.0.1"))
    with silent_after_a_page(context) as index:
        settings = {"PROXPI_INDEX_URL": index, "PROXPI_CA_BUNDLE": str(authority.path)}
        with Proxy(settings, folder=tmp_path, within=CONTAINER) as proxy:
            assert proxy.get("/index/demo/").status == 200
            began = time.monotonic()
            os.kill(first_in(proxy), signal.SIGTERM)
            assert proxy.wait() == 0
            assert time.monotonic() - began < SOON


@pytest.mark.parametrize("drain_timeout", [0, 1])
def test_silent_upstream(
    fake_index: FakeIndex, start_proxy: StartProxy, drain_timeout: int
) -> None:
    """A download that does not go on is waited for as long as the setting says, and no longer."""
    wheel = make_wheel("demo")
    fake_index.script(fake_index.add(wheel), Behavior(silent=True))
    proxy = start_proxy(fake_index, drain_timeout=drain_timeout, read_timeout=LONG)
    with sockets.connect(proxy.origin) as client:
        sockets.ask(client, f"/index/demo/{wheel.filename}")
        fake_index.wait_for(lambda seen: any(request.is_file for request in seen))
        began = time.monotonic()
        assert proxy.stop() == -signal.SIGTERM
        assert drain_timeout <= time.monotonic() - began < drain_timeout + SOON


@pytest.mark.parametrize("threads", ["writes", "reads", "pages", "writes|reads|pages"])
def test_hung_threads(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, threads: str
) -> None:
    """Threads that never end, on a disk that hangs or with a page that does, hold up nothing."""
    wheel = make_wheel("demo")
    fake_index.add(wheel)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = hung(f"proxpi ({threads})") | {"TMPDIR": str(temporary)}
    proxy = start_proxy(fake_index, environment=environment, drain_timeout=1, download_timeout=LONG)
    with sockets.connect(proxy.origin) as client, sockets.connect(proxy.origin) as other:
        sockets.ask(client, f"/index/demo/{wheel.filename}")
        sockets.ask(other, "/index/demo/")
        fake_index.wait_for(lambda seen: bool(seen))
        began = time.monotonic()
        assert proxy.stop() == -signal.SIGTERM
        assert time.monotonic() - began < 1 + SOON
    assert list(temporary.iterdir()) == []


def test_usage_log(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """Which files were used is written down although a download hangs and a page is parsed."""
    cached, other = make_wheel("cached"), make_wheel("other")
    fake_index.add(cached)
    fake_index.script(fake_index.add(other), Behavior(silent=True))
    proxy = start_proxy(fake_index, cache_dir=tmp_path / "cache", drain_timeout=0)
    assert proxy.get_cached(f"/index/cached/{cached.filename}").status == 200
    with sockets.connect(proxy.origin) as client:
        sockets.ask(client, f"/index/other/{other.filename}")
        fake_index.wait_for(lambda seen: any("other" in request.path for request in seen))
        assert proxy.stop() == -signal.SIGTERM
    assert cached.filename in (tmp_path / "cache/.proxpi/uses.json").read_text()


def test_hung_resolver(start_proxy: StartProxy, fake_index: FakeIndex) -> None:
    """A resolver of names that never answers holds up nothing."""
    proxy = start_proxy(
        fake_index,
        environment=hung("proxpi names"),
        index_url="http://index.example/",
        connect_timeout=LONG,
        drain_timeout=0,
    )
    with sockets.connect(proxy.origin) as client:
        sockets.ask(client, "/index/demo/")
        assert proxy.get("/health").status == 200
        began = time.monotonic()
        assert proxy.stop() == -signal.SIGTERM
        assert time.monotonic() - began < SOON


def fill_the_log(proxy: Proxy) -> None:
    """Read nothing of what it writes, and have it write until it hangs."""
    proxy.stop_reading()
    path = "/index/" + "a" * 2000 + "/"
    while True:
        with sockets.connect(proxy.origin) as client:
            client.settimeout(1)
            try:
                for _ in range(100):
                    sockets.ask(client, path)
                    _, fields = sockets.head(client)
                    sockets.body(client, int(fields["content-length"]))
            except TimeoutError:
                if proxy.unread > FULL:  # and not just slow
                    return


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_full_log_pipe(tmp_path: Path, number: signal.Signals) -> None:
    """Where nobody reads the log, the reactor hangs, and the end comes in time all the same."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    settings = {"PROXPI_OFFLINE": "on", "PROXPI_DRAIN_TIMEOUT": "1", "TMPDIR": str(temporary)}
    with Proxy(settings, folder=tmp_path) as proxy:
        fill_the_log(proxy)
        began = time.monotonic()
        assert proxy.stop(number) == -number
        assert 1 <= time.monotonic() - began < 1 + SOON
    assert list(temporary.iterdir()) == []


def test_started_to_ignore_signals(tmp_path: Path) -> None:
    """SIGTERM ends it in time even if it was started to ignore that; SIGHUP then stays ignored."""
    settings = {"PROXPI_OFFLINE": "on", "PROXPI_DRAIN_TIMEOUT": "0"}
    within = ["sh", "-c", 'trap "" TERM HUP; exec "$@"', "sh"]
    with Proxy(settings, folder=tmp_path, within=within) as proxy:
        os.kill(proxy.pid, signal.SIGHUP)
        assert proxy.get("/health").status == 200
        fill_the_log(proxy)
        began = time.monotonic()
        assert proxy.stop() == -signal.SIGTERM
        assert time.monotonic() - began < SOON


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_while_the_reactor_hangs(tmp_path: Path, second: signal.Signals) -> None:
    """One more signal ends the waiting then, too."""
    settings = {"PROXPI_OFFLINE": "on", "PROXPI_DRAIN_TIMEOUT": str(LONG)}
    with Proxy(settings, folder=tmp_path) as proxy:
        fill_the_log(proxy)
        os.kill(proxy.pid, signal.SIGTERM)
        # Two that come at once are one.
        pending = f"/proc/{proxy.pid}/status"
        while int(_field(pending, "ShdPnd"), 16):
            pass
        began = time.monotonic()
        assert proxy.stop(second) == -signal.SIGTERM
        assert time.monotonic() - began < SOON


def _field(path: str, name: str) -> str:
    lines = Path(path).read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))


def test_full_log_pipe_in_a_container(tmp_path: Path) -> None:
    """The first process of a container ends in time, too, with status 0."""
    settings = {"PROXPI_OFFLINE": "on", "PROXPI_DRAIN_TIMEOUT": "0"}
    with Proxy(settings, folder=tmp_path, within=CONTAINER) as proxy:
        fill_the_log(proxy)
        began = time.monotonic()
        os.kill(first_in(proxy), signal.SIGTERM)
        assert proxy.wait() == 0
        assert time.monotonic() - began < SOON
