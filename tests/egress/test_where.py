"""Where links and redirects lead, tried with real addresses in a network of the test's own.

In it 1.2.3.4 and 5.6.7.8 are addresses that the world knows, and a few others are not. Behind all
of them is the same fake index, so that whatever is led to would be had if it were asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest

from tests.support.behavior import Behavior
from tests.support.distributions import Distribution, make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.gate import Gate
from tests.support.names import Names
from tests.support.network import Network
from tests.support.proxy import Proxy, Reply

INDEX, FILES, PRIVATE, METADATA = "1.2.3.4", "5.6.7.8", "10.1.1.1", "169.254.169.254"
IPV6, UNIQUE_LOCAL, METADATA_6 = "2600::1", "fd00::1", "fd00:ec2::254"
ADDRESSES = (INDEX, FILES, PRIVATE, METADATA, IPV6, UNIQUE_LOCAL, METADATA_6)
JSON_TYPE = "application/vnd.pypi.simple.v1+json"
EXPIRED_AT_ONCE = "0.000001"

#: Hosts that are addresses inside, or say that they are, in every spelling.
INSIDE = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "2130706433",
    "0x7f.1",
    "0x7f000001",
    "0177.0.0.1",
    "localhost",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "this-machine.test",
    "mapped.test",
    PRIVATE,
    "private.test",
    f"[{UNIQUE_LOCAL}]",
]
#: The same for addresses that are link-local, or as dangerous.
SPECIAL = [
    METADATA,
    "2852039166",
    "0xa9.0xfea9fe",
    f"[::ffff:{METADATA}]",
    "metadata.test",
    f"[{METADATA_6}]",
    "0.0.0.0",
    "0",
    "[::]",
]


@attrs.define(eq=False)
class World:
    """The index in its network.

    :ivar port: of each address
    """

    index: FakeIndex
    names: Names
    folder: Path
    port: int
    wheel: Distribution = attrs.field(factory=lambda: make_wheel("demo"))
    _stack: ExitStack = attrs.field(factory=ExitStack)

    def proxy(self, host: str = INDEX, **settings: str) -> Proxy:
        """Start proxpi before the index at one of its addresses."""
        given = {
            "index_url": f"http://{host}:{self.port}/simple/",
            "cache_dir": str(self.folder / "cache"),
            "slow_download": "stream",
            "connect_timeout": "20",
        } | settings
        variables = {f"PROXPI_{name.upper()}": value for name, value in given.items()}
        proxy = Proxy(variables, folder=self.folder, within=self.names.within)
        return self._stack.enter_context(proxy)

    def link(self, host: str, project: str = "demo") -> str:
        """Let a project's page link to a file at a host; give the path of it at proxpi."""
        wheel = make_wheel(project)
        path = self.index.add(wheel)
        url = f"http://{host}:{self.port}{path}"
        file = {"filename": wheel.filename, "url": url, "hashes": {"sha256": wheel.sha256}}
        page = {"meta": {"api-version": "1.0"}, "name": project, "files": [file]}
        self.index.page(project, json.dumps(page).encode(), JSON_TYPE)
        return f"/index/{project}/{wheel.filename}"

    def assert_barred(self, reply: Reply) -> None:
        """Check that nothing was asked for, and that the error says what to set."""
        assert reply.status == 502, (reply, self.index.files_asked())
        assert "PROXPI_ALLOW_HOSTS" in reply.text
        assert "\n" not in reply.text.rstrip("\n")
        assert self.index.files_asked() == []


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An index at several addresses, and a name server that knows them by name."""
    with ExitStack() as stack:
        stack.enter_context(Network(ADDRESSES))
        index = stack.enter_context(FakeIndex())
        port = int(index.origin.rpartition(":")[2])
        for address in ADDRESSES:
            stack.enter_context(Gate(port, address, port))
        zone = {
            "index.test": [INDEX],
            "files.test": [FILES],
            "private-index.test": [PRIVATE],
            "localhost": ["127.0.0.1"],
            "this-machine.test": ["127.0.0.1"],
            "mapped.test": ["::ffff:127.0.0.1"],
            "private.test": [PRIVATE],
            "metadata.test": [METADATA],
            "both.test": [PRIVATE, FILES],
        }
        names = stack.enter_context(Names(tmp_path, INDEX, zone=zone))
        world = World(index, names, tmp_path, port)
        stack.enter_context(world._stack)
        yield world


def project(number: int) -> str:
    """A name for a project."""
    return f"demo-{number}"


def test_links_of_an_index_outside(world: World) -> None:
    """A link to an address inside is not followed, however it is spelled or named."""
    proxy = world.proxy("index.test")
    for number, host in enumerate([*INSIDE, *SPECIAL]):
        path = world.link(host, project(number))
        world.assert_barred(proxy.get(path))
        world.assert_barred(proxy.get(path, Range="bytes=0-9"))
    for number, host in enumerate(["files.test", FILES, f"[{IPV6}]", "both.test"], 100):
        reply = proxy.get(world.link(host, project(number)))
        assert (reply.status, reply.body) == (200, make_wheel(project(number)).data)


def test_redirects_of_an_index_outside(world: World) -> None:
    """A redirect there, of a page or of a file, is not followed either."""
    proxy = world.proxy("index.test")
    for number, host in enumerate([*INSIDE, *SPECIAL]):
        name = project(number)
        path = world.link("files.test", name)
        inside = f"http://{host}:{world.port}/secret/{name}"
        world.index.script(f"/files/{name}/*", Behavior(redirect=inside))
        reply = proxy.get(path)
        assert (reply.status, "PROXPI_ALLOW_HOSTS" in reply.text) == (502, True), reply.text
        world.index.script(f"/simple/page-{name}/", Behavior(redirect=inside))
        reply = proxy.get(f"/index/page-{name}/")
        assert (reply.status, "PROXPI_ALLOW_HOSTS" in reply.text) == (502, True), reply.text
    assert not [seen for seen in world.index.requests() if seen.path.startswith("/secret/")]


def test_a_page_that_is_redirected_inside(world: World) -> None:
    """What the index said before stands in for a page that leads inside now."""
    proxy = world.proxy("index.test", index_ttl=EXPIRED_AT_ONCE)
    world.index.add(world.wheel)
    before = proxy.get("/index/demo/")
    assert before.status == 200
    world.index.script("/simple/demo/", Behavior(redirect=f"http://{METADATA}/latest/"))
    after = proxy.get("/index/demo/")
    assert (after.status, after.headers["x-cache"]) == (200, "STALE")
    assert after.body == before.body
    assert "PROXPI_ALLOW_HOSTS has 169.254.169.254" in proxy.output


def test_a_client_is_sent_there(world: World) -> None:
    """In redirect mode the client is sent where the link leads: it is no insider."""
    proxy = world.proxy("index.test", slow_download="redirect", download_timeout="30")
    path = world.link("private.test")
    reply = proxy.get(path)
    assert reply.status == 302
    assert reply.headers["location"].startswith(f"http://private.test:{world.port}/")
    assert world.index.files_asked() == []


@pytest.mark.parametrize("host", [PRIVATE, "private-index.test", "localhost", "127.0.0.1"])
def test_links_of_an_index_inside(world: World, host: str) -> None:
    """An index inside may lead to others there, but not to what is link-local."""
    proxy = world.proxy(host)
    for number, inside in enumerate(INSIDE):
        assert proxy.get(world.link(inside, project(number))).status == 200, inside
    before = len(world.index.files_asked())
    for number, special in enumerate(SPECIAL, 100):
        reply = proxy.get(world.link(special, project(number)))
        assert (reply.status, "PROXPI_ALLOW_HOSTS" in reply.text) == (502, True), special
    assert len(world.index.files_asked()) == before


def test_an_index_at_a_special_address(world: World) -> None:
    """An index may be where nobody may be led to; its own files are at its own door."""
    proxy = world.proxy(METADATA)
    assert proxy.get(world.link(METADATA)).status == 200


@pytest.mark.parametrize(("host", "status"), [("index.test", 502), ("private-index.test", 200)])
def test_after_a_restart(world: World, host: str, status: int) -> None:
    """Links of pages from before a restart are judged before any index was asked."""
    path = world.link("private.test")
    page = "/index/demo/"
    before = world.proxy(host)
    assert before.get(page).status == 200
    before.stop()
    world.index.clear_requests()
    reply = world.proxy(host).get(path)
    assert reply.status == status
    assert "/simple/demo/" not in [seen.path for seen in world.index.requests()]


def test_after_a_restart_without_names(world: World) -> None:
    """As long as nobody knows where the index lives, that is trouble that may pass."""
    path = world.link(PRIVATE)
    before = world.proxy("private-index.test")
    assert before.get("/index/demo/").status == 200
    before.stop()
    world.names.mood = "absent"
    proxy = world.proxy("private-index.test")
    assert proxy.get(path).status == 503
    world.names.mood = "known"
    assert proxy.get(path).status == 200


@pytest.mark.parametrize(
    ("allowed", "opened", "closed"),
    [
        ("Private.TEST", "private.test", PRIVATE),
        (PRIVATE, "private.test", "127.0.0.1"),
        ("10.0.0.0/8", PRIVATE, "127.0.0.1"),
        ("metadata.test", "metadata.test", METADATA),
        (METADATA, "metadata.test", PRIVATE),
        ("169.254.0.0/16,10.0.0.0/8", PRIVATE, METADATA),
        (f"[{METADATA_6}]", f"[{METADATA_6}]", f"[{UNIQUE_LOCAL}]"),
        ("localhost", "localhost", "127.0.0.1"),
    ],
)
def test_allowed_hosts(world: World, allowed: str, opened: str, closed: str) -> None:
    """What the operator has named may be led to, by links and redirects, and nothing else."""
    proxy = world.proxy("index.test", allow_hosts=allowed)
    world.assert_barred(proxy.get(world.link(closed, "closed")))
    assert proxy.get(world.link(opened, "opened")).status == 200
    path = world.link("files.test", "moved")
    file = make_wheel("moved").filename
    target = f"http://{opened}:{world.port}/files/moved/{file}"
    world.index.script(f"/files/moved/{file}", Behavior(times=1, redirect=target))
    assert proxy.get(path).status == 200


def test_a_name_that_changes(world: World) -> None:
    """A name is judged by what it stands for when it is connected to, not by what it was."""
    proxy = world.proxy("index.test")
    for turn in range(3):
        world.names.zone["rebinding.test"] = [FILES]
        assert proxy.get(world.link("rebinding.test", project(2 * turn))).status == 200
        world.index.close()  # a connection that is kept was judged when it was made
        world.index.reopen()
        world.index.clear_requests()
        world.names.zone["rebinding.test"] = ["127.0.0.1"]
        world.assert_barred(proxy.get(world.link("rebinding.test", project(2 * turn + 1))))


def test_an_index_that_changes(world: World) -> None:
    """Nor does an index open a door by naming itself an address inside for a while."""
    proxy = world.proxy("index.test")
    assert proxy.get(world.link("files.test", "first")).status == 200
    world.index.close()
    world.index.reopen()
    world.index.clear_requests()
    world.names.zone["index.test"] = ["127.0.0.1"]
    world.assert_barred(proxy.get(world.link("private.test", "second")))
