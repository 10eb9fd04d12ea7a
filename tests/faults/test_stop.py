"""SIGTERM while clients are being served."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import sockets
from tests.support.behavior import Behavior
from tests.support.distributions import Distribution, make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy

MIB = 1 << 20
CLIENTS = 10


def refuses(proxy: Proxy) -> None:
    """Wait until it takes no new connection."""
    while True:
        try:
            sockets.connect(proxy.origin).close()
        except ConnectionError:
            return


def file(size: int) -> Distribution:
    """A file of random bytes."""
    return Distribution("large", "1.0", "large-1.0.tar.gz", os.urandom(size), "")


def test_all_come_whole(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Ten downloads that are under way all come whole; who has nothing under way is let go."""
    large = file(16 * MIB)
    fake_index.add(large)
    proxy = start_proxy(fake_index)
    path = f"/index/large/{large.filename}"
    assert proxy.get(path).body == large.data
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
        os.kill(proxy.pid, signal.SIGTERM)
        refuses(proxy)
        assert idle.recv(1) == b""
        assert proxy.returncode is None
        for client in clients:
            assert sockets.body(client, len(large.data)) == large.data
            assert client.recv(1) == b""
        began = time.monotonic()
        assert proxy.wait() == -signal.SIGTERM
        assert time.monotonic() - began < 5


def test_nobody_there(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """With nothing under way it ends at once."""
    proxy = start_proxy(fake_index)
    with sockets.connect(proxy.origin):
        began = time.monotonic()
        assert proxy.stop() == -signal.SIGTERM
        assert time.monotonic() - began < 5


def test_closed_terminal(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """SIGHUP, as from a terminal that is closed, ends it like SIGTERM: nothing is left behind."""
    proxy = start_proxy(fake_index)
    assert list(tmp_path.glob("proxpi-*")) != []
    assert proxy.stop(signal.SIGHUP) == -signal.SIGHUP
    assert list(tmp_path.glob("proxpi-*")) == []


def test_client_that_takes_nothing(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """A client that takes nothing is waited for as long as the setting says, and no longer."""
    large = file(16 * MIB)
    fake_index.add(large)
    proxy = start_proxy(fake_index, drain_timeout=1)
    path = f"/index/large/{large.filename}"
    assert proxy.get(path).body == large.data
    with sockets.connect(proxy.origin, receives=4096) as client:
        sockets.ask(client, path)
        assert sockets.head(client)[0] == 200
        began = time.monotonic()
        assert proxy.stop() == -signal.SIGTERM
        assert 1 <= time.monotonic() - began < 5


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal(
    fake_index: FakeIndex, start_proxy: StartProxy, second: signal.Signals
) -> None:
    """A second signal ends it at once, whatever is under way."""
    wheel = make_wheel("demo")
    fake_index.script(fake_index.add(wheel), Behavior(silent=True))
    proxy = start_proxy(fake_index, drain_timeout=50, read_timeout=50)
    with sockets.connect(proxy.origin) as client:
        sockets.ask(client, f"/index/demo/{wheel.filename}")
        fake_index.wait_for(lambda seen: any(request.is_file for request in seen))
        os.kill(proxy.pid, signal.SIGTERM)
        refuses(proxy)
        began = time.monotonic()
        assert proxy.stop(second) == -signal.SIGTERM
        assert time.monotonic() - began < 5


def test_in_a_container(fake_index: FakeIndex, tmp_path: Path) -> None:
    """As the first process of a container it ends with status 0, its answers given."""
    large = file(4 * MIB)
    fake_index.add(large)
    settings = {"PROXPI_INDEX_URL": fake_index.url, "PROXPI_DOWNLOAD_TIMEOUT": "30"}
    within = ["unshare", "--pid", "--fork", "--mount-proc"]
    with Proxy(settings, folder=tmp_path, within=within) as proxy:
        path = f"/index/large/{large.filename}"
        assert proxy.get(path).body == large.data
        [first] = Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children").read_text().split()
        with sockets.connect(proxy.origin, receives=65536) as client:
            sockets.ask(client, path)
            assert sockets.head(client)[0] == 200
            os.kill(int(first), signal.SIGTERM)
            refuses(proxy)
            assert sockets.body(client, len(large.data)) == large.data
        assert proxy.wait() == 0
