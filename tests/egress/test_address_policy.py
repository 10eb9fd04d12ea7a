"""The address policy with real addresses, in a network of the test's own.

1.2.3.4 and 5.6.7.8 are public in it, other addresses are not. All of them lead to the same fake
index, so that a request that is not blocked would succeed.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest

from tests.egress.network import network
from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.names import Names
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy, Reply
from tests.support.servers import Gate

INDEX, FILES, PRIVATE, METADATA = "1.2.3.4", "5.6.7.8", "10.1.1.1", "169.254.169.254"
IPV6, UNIQUE_LOCAL, METADATA_6 = "2600::1", "fd00::1", "fd00:ec2::254"
ADDRESSES = (INDEX, FILES, PRIVATE, METADATA, IPV6, UNIQUE_LOCAL, METADATA_6)

#: Hosts that are private addresses, or resolve to them (spellings: ``tests/upstream``).
INSIDE = ["127.0.0.1", "2130706433", "localhost", "[::ffff:127.0.0.1]", "mapped.test"]
INSIDE += ["private.test", f"[{UNIQUE_LOCAL}]"]
#: Hosts that are special addresses, or resolve to them.
SPECIAL = [METADATA, "0xa9.0xfea9fe", "metadata.test", f"[{METADATA_6}]", "0.0.0.0"]


@attrs.define(eq=False)
class World:
    index: FakeIndex
    names: Names
    folder: Path
    port: int
    start_proxy: StartProxy

    def proxy(self, host: str = INDEX, **settings: str) -> Proxy:
        """Start proxpi before the index at one of its addresses."""
        given = {
            "index_url": f"http://{host}:{self.port}/simple/",
            "cache_dir": self.folder / "cache",
            "slow_download": "stream",
            "connect_timeout": "20",
        }
        return self.start_proxy(within=self.names.within, **(given | settings))

    def link(self, host: str, project: str = "demo") -> str:
        """Let a project's page link to a file at a host; return the path of it at proxpi."""
        wheel = make_wheel(project)
        url = f"http://{host}:{self.port}/files/{project}/{wheel.filename}"
        self.index.add(wheel, url=url)
        return f"/index/{project}/{wheel.filename}"

    def assert_blocked(self, reply: Reply) -> None:
        """Check that no request was sent, and that the error says what to set."""
        assert_refused(reply)
        assert "\n" not in reply.text.rstrip("\n")
        assert self.index.files_asked() == []


def assert_refused(reply: Reply) -> None:
    assert (reply.status, "PROXPI_ALLOW_HOSTS" in reply.text) == (502, True), reply.text


@pytest.fixture
def world(stack: ExitStack, tmp_path: Path, start_proxy: StartProxy) -> World:
    """An index at several addresses, and a name server that knows them by name."""
    stack.enter_context(network(*ADDRESSES))
    index = stack.enter_context(FakeIndex())
    port = int(index.origin.rpartition(":")[2])
    for address in ADDRESSES:
        stack.enter_context(Gate(port, address, port))
    zone = {
        "index.test": [INDEX],
        "files.test": [FILES],
        "private-index.test": [PRIVATE],
        "localhost": ["127.0.0.1"],
        "mapped.test": ["::ffff:127.0.0.1"],
        "private.test": [PRIVATE],
        "metadata.test": [METADATA],
        "both.test": [PRIVATE, FILES],
    }
    names = stack.enter_context(Names(tmp_path, INDEX, zone=zone))
    return World(index, names, tmp_path, port, start_proxy)


def test_links(world: World) -> None:
    """A link to a private or special address is not followed, a link to a public one is."""
    proxy = world.proxy("index.test")
    for number, host in enumerate([*INSIDE, *SPECIAL]):
        path = world.link(host, f"demo-{number}")
        world.assert_blocked(proxy.get(path))
        world.assert_blocked(proxy.get(path, Range="bytes=0-9"))
    for number, host in enumerate(["files.test", FILES, f"[{IPV6}]", "both.test"], 100):
        reply = proxy.get(world.link(host, f"demo-{number}"))
        assert (reply.status, reply.body) == (200, make_wheel(f"demo-{number}").data)


def test_redirects(world: World) -> None:
    """A redirect there, of a page or of a file, is not followed either."""
    proxy = world.proxy("index.test")
    for number, host in enumerate([*INSIDE, *SPECIAL]):
        name = f"demo-{number}"
        path = world.link("files.test", name)
        inside = f"http://{host}:{world.port}/secret/{name}"
        world.index.script(f"/files/{name}/*", Behavior(redirect=inside))
        assert_refused(proxy.get(path))
        world.index.script(f"/simple/page-{name}/", Behavior(redirect=inside))
        assert_refused(proxy.get(f"/index/page-{name}/"))
    assert not [seen for seen in world.index.requests() if seen.path.startswith("/secret/")]


def test_redirect_mode(world: World) -> None:
    """In redirect mode the client is sent to the blocked URL, which proxpi does not request."""
    proxy = world.proxy("index.test", slow_download="redirect", download_timeout="30")
    path = world.link("private.test")
    reply = proxy.get(path)
    assert reply.status == 302
    assert reply.headers["location"].startswith(f"http://private.test:{world.port}/")
    assert world.index.files_asked() == []


@pytest.mark.parametrize("host", [PRIVATE, "private-index.test", "localhost"])
def test_private_index(world: World, host: str) -> None:
    """A private index may lead to private addresses, but not to special ones."""
    proxy = world.proxy(host)
    for number, inside in enumerate(INSIDE):
        assert proxy.get(world.link(inside, f"demo-{number}")).status == 200, inside
    before = len(world.index.files_asked())
    for number, special in enumerate(SPECIAL, 100):
        assert_refused(proxy.get(world.link(special, f"demo-{number}")))
    assert len(world.index.files_asked()) == before


@pytest.mark.parametrize(("host", "status"), [("index.test", 502), ("private-index.test", 200)])
def test_after_a_restart(world: World, host: str, status: int) -> None:
    """Links of pages from before a restart are checked before a request to any index.

    As long as the index cannot be looked up, the failure is temporary.
    """
    path = world.link(PRIVATE)
    before = world.proxy(host)
    assert before.get("/index/demo/").status == 200
    before.stop()
    world.index.clear_requests()
    world.names.mood = "absent"
    proxy = world.proxy(host)
    assert proxy.get(path).status == 503
    world.names.mood = "known"
    assert proxy.get(path).status == status
    assert "/simple/demo/" not in [seen.path for seen in world.index.requests()]


@pytest.mark.parametrize(
    ("allowed", "opened", "closed"),
    [
        ("Private.TEST", "private.test", PRIVATE),
        (PRIVATE, "private.test", "127.0.0.1"),
        ("metadata.test", "metadata.test", METADATA),
        ("169.254.0.0/16,10.0.0.0/8", PRIVATE, METADATA),
        (f"[{METADATA_6}]", f"[{METADATA_6}]", f"[{UNIQUE_LOCAL}]"),
    ],
)
def test_allowed_hosts(world: World, allowed: str, opened: str, closed: str) -> None:
    """Links and redirects may lead to hosts that the operator has named, and to no others."""
    proxy = world.proxy("index.test", allow_hosts=allowed)
    world.assert_blocked(proxy.get(world.link(closed, "closed")))
    assert proxy.get(world.link(opened, "opened")).status == 200
    path = world.link("files.test", "moved")
    file = make_wheel("moved").filename
    target = f"http://{opened}:{world.port}/files/moved/{file}"
    world.index.script(f"/files/moved/{file}", Behavior(times=1, redirect=target))
    assert proxy.get(path).status == 200


def test_rebinding(world: World) -> None:
    """A name is checked by the addresses that it has when it is connected to (DNS rebinding)."""
    proxy = world.proxy("index.test")
    for turn in range(3):
        world.names.zone["rebinding.test"] = [FILES]
        assert proxy.get(world.link("rebinding.test", f"before-{turn}")).status == 200
        world.index.close()  # a connection that is kept was judged when it was made
        world.index.reopen()
        world.index.clear_requests()
        world.names.zone["rebinding.test"] = ["127.0.0.1"]
        world.assert_blocked(proxy.get(world.link("rebinding.test", f"after-{turn}")))
