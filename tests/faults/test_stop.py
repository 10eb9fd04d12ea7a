"""The end: responses under way are finished; nothing that hangs outlasts the drain and a second."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support import sockets
from tests.support.certificates import Authority
from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.inside import hung
from tests.support.processes import StartProxy, serve_large
from tests.support.proxy import Proxy
from tests.support.servers import Connection, Conversations

MIB = 1 << 20
CLIENTS = 10
#: More than a loaded machine adds to the second after the drain, far less than any time-out.
SOON = 5.0
#: A time-out, in seconds, that no test waits for.
LONG = 50
#: A pipe takes no longer line once it holds so many bytes (pipe(7): 65,536, a page at a time).
FULL = 56 * 1024
CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc"]
SILENT = Behavior(hold=True)


@contextmanager
def ends_within(seconds: float, at_least: float = 0) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert at_least <= time.monotonic() - began < seconds


def terminate(proxy: Proxy, within: list[str]) -> None:
    """Send SIGTERM to the process, or to the first one of the container that `unshare` has made."""
    children = Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children")
    pid = int(children.read_text()) if within == CONTAINER else proxy.pid
    os.kill(pid, signal.SIGTERM)


def wait_until_it_refuses(proxy: Proxy) -> None:
    while True:
        try:
            sockets.connect(proxy.origin).close()
        except ConnectionError:
            return


@pytest.mark.parametrize("within", [[], CONTAINER])
def test_responses_under_way(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, within: list[str]
) -> None:
    """Downloads under way are finished; idle connections and the temporary folder go at once."""
    proxy = start_proxy(fake_index, within=within)
    data, path = serve_large(fake_index, proxy, 16 * MIB)
    assert list(tmp_path.glob("proxpi-*")) != []
    with ExitStack() as stack:
        idle = stack.enter_context(sockets.connect(proxy.origin))
        sockets.ask(idle, "/health")
        _, fields = sockets.head(idle)
        sockets.body(idle, int(fields["content-length"]))
        clients = []
        for _ in range(CLIENTS):
            client = stack.enter_context(sockets.connect(proxy.origin, receives=65536))
            sockets.ask(client, path)
            assert sockets.head(client)[0] == 200
            clients.append(client)
        terminate(proxy, within)
        wait_until_it_refuses(proxy)
        assert idle.recv(1) == b""
        assert proxy.returncode is None
        for client in clients:
            assert sockets.body(client, len(data)) == data
            assert client.recv(1) == b""
        with ends_within(SOON):
            assert proxy.wait() == (0 if within else -signal.SIGTERM)
    assert list(tmp_path.glob("proxpi-*")) == []


def test_client_that_reads_nothing(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """A client that reads nothing is waited for until the drain time-out."""
    proxy = start_proxy(fake_index, drain_timeout=1)
    _, path = serve_large(fake_index, proxy, 16 * MIB)
    with sockets.connect(proxy.origin, receives=4096) as client:
        sockets.ask(client, path)
        assert sockets.head(client)[0] == 200
        with ends_within(1 + SOON, at_least=1):
            assert proxy.stop() == -signal.SIGTERM


@pytest.mark.parametrize(
    ("drain_timeout", "signals"),
    [
        (0, [signal.SIGTERM]),
        (1, [signal.SIGHUP]),
        (LONG, [signal.SIGTERM, signal.SIGTERM]),
        (LONG, [signal.SIGTERM, signal.SIGINT]),
    ],
)
def test_silent_upstream(
    fake_index: FakeIndex,
    start_proxy: StartProxy,
    tmp_path: Path,
    drain_timeout: int,
    signals: list[signal.Signals],
) -> None:
    """A silent download is waited for until the drain time-out, or the second signal.

    The usage log is written all the same.
    """
    cached, wheel = make_wheel("cached"), make_wheel("demo")
    fake_index.add(cached)
    fake_index.script(fake_index.add(wheel), SILENT)
    settings = {"drain_timeout": drain_timeout, "read_timeout": LONG}
    proxy = start_proxy(fake_index, cache_dir=tmp_path / "cache", **settings)
    assert proxy.get_cached(f"/index/cached/{cached.filename}").status == 200
    with sockets.connect(proxy.origin) as client:
        sockets.ask(client, f"/index/demo/{wheel.filename}")
        fake_index.wait_for(lambda seen: any("demo-" in request.path for request in seen))
        for number in signals[:-1]:
            os.kill(proxy.pid, number)
            wait_until_it_refuses(proxy)
        waits = drain_timeout if len(signals) == 1 else 0
        with ends_within(waits + SOON, at_least=waits):
            assert proxy.stop(signals[-1]) == -signals[0]
    assert cached.filename in (tmp_path / "cache/.proxpi/uses.json").read_text()


@pytest.mark.parametrize("within", [[], CONTAINER])
def test_idle_tls_connection(tmp_path: Path, start_proxy: StartProxy, within: list[str]) -> None:
    """An upstream that does not answer the closure of an idle TLS connection is not waited for."""
    authority, ended = Authority(tmp_path), threading.Event()

    def silent_after_a_page(connection: Connection) -> None:
        while connection.request() is not None:
            page = b'{"meta": {"api-version": "1.0"}, "name": "demo", "files": []}'
            connection.answer(page, "Content-Type: application/vnd.pypi.simple.v1+json")
            ended.wait()

    with Conversations(silent_after_a_page, authority.issue("server", "127.0.0.1")) as index:
        settings = {"ca_bundle": authority.path, "drain_timeout": LONG}
        proxy = start_proxy(index_url=f"{index.origin}/", within=within, **settings)
        assert proxy.get("/index/demo/").status == 200
        with ends_within(SOON):
            terminate(proxy, within)
            assert proxy.wait() == (0 if within else -signal.SIGTERM)
        ended.set()


@pytest.mark.parametrize("threads", ["writes", "reads", "pages", "writes|reads|pages"])
def test_hung_threads(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, threads: str
) -> None:
    """Threads that never end, on a disk that hangs or with a page, are not waited for."""
    wheel = make_wheel("demo")
    fake_index.add(wheel)
    environment = hung(f"proxpi ({threads})")
    settings = {"drain_timeout": 1, "download_timeout": LONG}
    proxy = start_proxy(fake_index, **environment, **settings)
    with sockets.connect(proxy.origin) as client, sockets.connect(proxy.origin) as other:
        sockets.ask(client, f"/index/demo/{wheel.filename}")
        sockets.ask(other, "/index/demo/")
        fake_index.wait_for(lambda seen: bool(seen))
        with ends_within(1 + SOON):
            assert proxy.stop() == -signal.SIGTERM
    assert list(tmp_path.glob("proxpi-*")) == []


def test_hung_resolver(start_proxy: StartProxy) -> None:
    """A DNS resolver that never answers is not waited for."""
    settings = {"index_url": "http://index.example/", "connect_timeout": LONG, "drain_timeout": 0}
    proxy = start_proxy(**hung("proxpi names"), **settings)
    with sockets.connect(proxy.origin) as client:
        sockets.ask(client, "/index/demo/")
        assert proxy.get("/health").status == 200
        with ends_within(SOON):
            assert proxy.stop() == -signal.SIGTERM


def fill_the_log(proxy: Proxy) -> None:
    """Leave its log unread, and let it write until it hangs."""
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


IGNORING = ["sh", "-c", 'trap "" TERM HUP; exec "$@"', "sh"]


@pytest.mark.parametrize(
    ("within", "drain_timeout", "signals"),
    [
        ([], 1, [signal.SIGTERM]),
        ([], 1, [signal.SIGHUP]),
        ([], LONG, [signal.SIGTERM, signal.SIGTERM]),
        ([], LONG, [signal.SIGTERM, signal.SIGINT]),
        (CONTAINER, 0, [signal.SIGTERM]),
        (IGNORING, 0, [signal.SIGTERM]),
    ],
)
def test_full_log_pipe(
    start_proxy: StartProxy,
    tmp_path: Path,
    within: list[str],
    drain_timeout: int,
    signals: list[signal.Signals],
) -> None:
    """While the reactor hangs in a write to the log, a signal, or the second, ends the process.

    SIGTERM does so even if the process was started with it ignored; SIGHUP stays ignored then.
    """
    proxy = start_proxy(within=within, offline="on", drain_timeout=drain_timeout)
    if within == IGNORING:
        os.kill(proxy.pid, signal.SIGHUP)
        assert proxy.get("/health").status == 200
    fill_the_log(proxy)
    if len(signals) > 1:
        os.kill(proxy.pid, signals[0])
        # Two signals that arrive at once are one: wait until the first is no longer pending.
        status = Path(f"/proc/{proxy.pid}/status")
        while "ShdPnd:\t0000000000000000" not in status.read_text():
            pass
    waits = drain_timeout if len(signals) == 1 else 0
    with ends_within(waits + SOON, at_least=waits):
        if within == CONTAINER:
            terminate(proxy, within)
            assert proxy.wait() == 0
        else:
            assert proxy.stop(signals[-1]) == -signals[0]
    assert list(tmp_path.glob("proxpi-*")) == []
