"""The root list when there is none yet, and its index is in trouble, or slow."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from proxpi.index import revalidation
from proxpi.index.list_store import ListStore
from proxpi.index.project_list import ProjectList, Projects
from proxpi.simple.negotiate import Serialization
from proxpi.upstream.connections import CONNECTIONS
from proxpi.upstream.errors import UpstreamFailed
from tests.index.test_project_list import ListCase, names
from tests.support.agent import Reply
from tests.support.cases import at_once, run
from tests.support.indexes import ROOT, Network, project_page, root_list, source

PLAIN = "http://index.example/simple/"


class ColdTests(ListCase):
    """Nothing to fall back on."""

    def test_tries_again(self) -> None:
        """What may help is tried: an index that fails once does not fail a client."""
        self.put(revalidation, "PAUSES", (1.0, 1.0, 1.0))
        self.indexes.says(ROOT, Reply(503))
        ask = self.ask()
        self.indexes.says(ROOT, root_list(["a"]))
        self.clock.pump([0.5] * 4)
        assert names(self.result(ask)) == ["a"]
        assert self.agents.count(ROOT) == 2

    def test_hopeless(self) -> None:
        """What cannot help is not: a client is told at once."""
        self.indexes.says(ROOT, Reply(401))
        assert not self.error(self.ask(), UpstreamFailed).temporary
        assert self.agents.count(ROOT) == 1

    def test_gives_up(self) -> None:
        """After ten seconds without a word a client is told so, and not before."""
        self.agents.silent.add(ROOT)
        ask = self.ask()
        self.clock.pump([1.0] * 9)
        self.pending(ask)
        self.clock.pump([1.0] * 2)
        error = self.error(ask, UpstreamFailed)
        assert (error.cause, error.temporary) == ("timed out", True)

    def test_recovery(self) -> None:
        """A failure is not sticky: the next client has the list at once."""
        self.indexes.says(ROOT, Reply(503))
        self.error(self.ask(), UpstreamFailed)
        self.indexes.says(ROOT, root_list(["a"]))
        assert self.list().status == "MISS"


class SlotTests(ListCase):
    """A list that has to wait for a slot of its index."""

    def test_all_leave(self) -> None:
        """Once all clients have left it is not asked for; a later client has it as ever."""
        (index,) = self.indexes.sources
        pages = [f"{ROOT}p-{number}/" for number in range(CONNECTIONS)]
        for page in pages:
            self.agents.silent.add(page)
            self.indexes.says(page, project_page("p.zip"))
        slow = [run(index.project(f"p-{number}", None, int)) for number in range(CONNECTIONS)]
        self.indexes.says(ROOT, root_list(["a"]))
        asks = [self.ask() for _ in range(3)]
        for ask in asks:
            ask.cancel()
            self.error(ask, CancelledError)
        for page in pages:
            self.agents.release(page)
        assert all(self.result(each).content for each in slow)
        assert self.agents.count(ROOT) == 0
        assert names(self.list()) == ["a"]
        assert not self.unhandled()


class PaceTests(ListCase):
    """How fast a list comes, over a connection."""

    def setUp(self) -> None:
        """Have a connection."""
        super().setUp()
        self.network = Network(PLAIN)
        index = source(PLAIN, 60.0, self.network.upstream)
        store, network = ListStore(self.place, self.network.reactor), self.network
        self.slow = Projects([index], network.upstream, network.reactor, store, at_once)

    def send(self, size: int) -> Deferred[ProjectList]:
        """Ask for a list, and let so many bytes of it come in a second."""
        whole = root_list(f"p{number}" for number in range(8_000)).chunks[0]
        ask = run(self.slow.fetch(Serialization.JSON, False))
        line = self.network.accept()
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(whole))
        for place in range(0, len(whole), size):
            if ask.called or not line.open:
                break
            line.send(whole[place : place + size])
            self.network.advance(1)
        return ask

    def test_slow(self) -> None:
        """A list that comes steadily is waited for, however long it takes."""
        assert len(names(self.result(self.send(4000)))) == 8_000
        assert self.network.reactor.seconds() > 20

    def test_dripping(self) -> None:
        """One of which a few bytes come now and then is not."""
        assert self.error(self.send(1), UpstreamFailed).cause == "timed out"
        assert self.network.reactor.seconds() < 16
