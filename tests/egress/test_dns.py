"""A DNS server that does not answer for some names: all other requests go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest

from proxpi.upstream.dns import LOOKUPS
from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.names import Names
from tests.support.proxy import Proxy, Reply

#: Seconds that proxpi waits for a name here: more than all else in a test takes.
LONG = 60
#: Seconds for which the C library asks a name server that is silent; nobody waits for that.
VERY_LONG = "options timeout:30 attempts:5\n"


@attrs.define(eq=False)
class World:
    """An index with a name, and links to hosts whose names never resolve."""

    index: FakeIndex
    names: Names
    folder: Path
    _stack: ExitStack
    _clients: ThreadPoolExecutor

    def proxy(self, **settings: object) -> Proxy:
        port = self.index.origin.rpartition(":")[2]
        given = {
            "index_url": f"http://index.test:{port}/simple/",
            "slow_download": "stream",
            "connect_timeout": LONG,
            "drain_timeout": 0.1,
        } | settings
        variables = {f"PROXPI_{name.upper()}": str(value) for name, value in given.items()}
        proxy = Proxy(variables, folder=self.folder, within=self.names.within)
        return self._stack.enter_context(proxy)

    def links_to(self, project: str, host: str) -> str:
        """List a file whose bytes are at a host; give the path of it at proxpi."""
        wheel = make_wheel(project)
        path = self.index.add(wheel)
        self.index.script(path, Behavior(redirect=f"http://{host}/{wheel.filename}"))
        return f"/index/{project}/{wheel.filename}"

    def later(self, ask: Callable[[], Reply]) -> Future[Reply]:
        """Ask while other things are done."""
        return self._clients.submit(ask)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An index, and a name server that keeps some names to itself."""
    with ExitStack() as stack:
        index = stack.enter_context(FakeIndex())
        names = stack.enter_context(Names(tmp_path, "127.0.0.1"))
        with (tmp_path / "resolv.conf").open("a") as configuration:
            configuration.write(VERY_LONG)
        # The last to be entered is left first: what waits for an answer gets none any more.
        clients = stack.enter_context(ThreadPoolExecutor(LOOKUPS + 8))
        yield World(index, names, tmp_path, stack.enter_context(ExitStack()), clients)


def _hang(world: World, proxy: Proxy, count: int) -> list[Future[Reply]]:
    """Request files at hosts whose names hang, until all redirects have been followed."""
    asks = []
    for number in range(count):
        host = f"hanging-{number}.test"
        world.names.hanging.add(host)
        path = world.links_to(f"hanging-{number}", host)
        asks.append(world.later(lambda path=path: proxy.get(path)))  # type: ignore[misc]
    world.index.wait_for(lambda _: len(world.index.files_asked()) >= count)
    return asks


def test_others_go_on(world: World) -> None:
    """Pages and files, also from names that were not known yet, come while others hang."""
    proxy = world.proxy()
    hanging = _hang(world, proxy, LOOKUPS + 4)
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
    (hanging,) = _hang(world, proxy, 1)
    reply = hanging.result()
    assert reply.status == 503
    assert "hanging-0.test/hanging_0-1.0-py3-none-any.whl: timed out while its name" in reply.text
    assert int(reply.headers["retry-after"]) >= 1


def test_the_end_does_not_wait(world: World) -> None:
    """The process ends while names hang, without waiting for their threads."""
    proxy = world.proxy()
    hanging = _hang(world, proxy, 3)
    began = time.monotonic()
    proxy.stop()
    # The C library asks for two minutes and more.
    assert time.monotonic() - began < 60
    for ask in hanging:
        assert ask.exception() is not None or ask.result().status == 503
    assert "Traceback" not in proxy.output
