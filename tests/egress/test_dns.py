"""A DNS server that does not answer for some names: all other requests go on."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest

from proxpi.upstream.dns import LOOKUPS
from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.names import Names
from tests.support.processes import StartProxy, proxies
from tests.support.proxy import Proxy, Reply

#: Seconds that proxpi waits for a name here: more than all else in a test takes.
LONG = 60
#: Seconds for which the C library asks a name server that is silent; no test waits for that.
VERY_LONG = "options timeout:30 attempts:5\n"


@attrs.define(eq=False)
class World:
    """An index with a name, and links to hosts whose names never resolve."""

    index: FakeIndex
    names: Names
    _start: StartProxy
    _clients: ThreadPoolExecutor

    def proxy(self, connect_timeout: int = LONG) -> Proxy:
        port = self.index.origin.rpartition(":")[2]
        return self._start(
            index_url=f"http://index.test:{port}/simple/",
            slow_download="stream",
            connect_timeout=connect_timeout,
            drain_timeout=0.1,
            within=self.names.within,
        )

    def hang(self, proxy: Proxy, count: int) -> list[Future[Reply]]:
        """Request files at hosts whose names hang, until all redirects have been followed."""
        asks = []
        for number in range(count):
            host = f"hanging-{number}.test"
            self.names.hanging.add(host)
            wheel = make_wheel(f"hanging-{number}")
            redirect = Behavior(redirect=f"http://{host}/{wheel.filename}")
            self.index.script(self.index.add(wheel), redirect)
            path = f"/index/{wheel.project}/{wheel.filename}"
            asks.append(self._clients.submit(proxy.get, path))
        self.index.wait_for(lambda _: len(self.index.files_asked()) >= count)
        return asks


@pytest.fixture
def world(stack: ExitStack, tmp_path: Path, fake_index: FakeIndex) -> World:
    """An index, and a name server that keeps some names to itself."""
    names = stack.enter_context(Names(tmp_path, "127.0.0.1"))
    with (tmp_path / "resolv.conf").open("a") as configuration:
        configuration.write(VERY_LONG)
    # The last to be entered is left first: proxpi ends, and its clients get no answer any more.
    clients = stack.enter_context(ThreadPoolExecutor(LOOKUPS + 8))
    return World(fake_index, names, stack.enter_context(proxies(tmp_path)), clients)


def test_others_go_on(world: World) -> None:
    """Pages and files, also from names that were not known yet, come while others hang."""
    proxy = world.proxy()
    hanging = world.hang(proxy, LOOKUPS + 4)
    for number in range(10):
        wheel = make_wheel(f"new-{number}")
        world.index.add(wheel)
        # The connections that there are to the index end: its name is looked up again.
        world.index.close()
        world.index.reopen()
        assert proxy.get(f"/index/new-{number}/").status == 200
        assert proxy.get(f"/index/new-{number}/{wheel.filename}").body == wheel.data
    assert proxy.get("/health").status == 200
    assert not any(ask.done() for ask in hanging)


def test_a_name_takes_no_longer_than_connecting(world: World) -> None:
    """The time to connect includes the name; the error says that it was the name."""
    proxy = world.proxy(connect_timeout=1)
    (hanging,) = world.hang(proxy, 1)
    reply = hanging.result()
    assert reply.status == 503
    assert "hanging-0.test/hanging_0-1.0-py3-none-any.whl: timed out while its name" in reply.text
    assert int(reply.headers["retry-after"]) >= 1


def test_the_end_does_not_wait(world: World) -> None:
    """The process ends while names hang, without waiting for their threads."""
    proxy = world.proxy()
    hanging = world.hang(proxy, 3)
    began = time.monotonic()
    proxy.stop()
    # The C library asks for two minutes and more.
    assert time.monotonic() - began < 60
    for ask in hanging:
        assert ask.exception() is not None or ask.result().status == 503
    assert "Traceback" not in proxy.output
