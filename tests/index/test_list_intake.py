"""An index's list on its way into a file: in a thread, batch by batch, and never held."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from proxpi.index import list_intake
from proxpi.index.list_folder import BLOCK, Draft, Form, ListFile
from proxpi.index.scanner import NameScanner
from proxpi.simple.negotiate import Serialization
from proxpi.upstream.body import Limit, receive
from proxpi.upstream.errors import UpstreamFailed
from proxpi.upstream.pool import LIST_LIMIT
from tests.support.upstreams import Case, Network, run

URL = "http://index.example/simple/"
PLAIN_JSON = (Serialization.JSON, False)
#: Names of the list that shows what memory is needed.
MANY = 150_000

T = TypeVar("T")


class Threads:
    """A pool of threads that works when it is told to.

    :ivar waiting: the jobs that have not been done
    :ivar done: how many have
    """

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.done = 0

    def __call__(self, job: Callable[[], T]) -> Deferred[T]:
        """See `Work`."""
        result: Deferred[T] = Deferred()

        def do() -> None:
            self.done += 1
            maybeDeferred(job).chainDeferred(result)

        self.waiting.append(do)
        return result

    def work(self) -> None:
        """Do all there is to do, and what comes of it."""
        while self.waiting:
            self.waiting.pop(0)()


def listed(count: int) -> bytes:
    """Give a list of so many names."""
    projects = [{"name": f"Project.{number:07}"} for number in range(count)]
    return json.dumps({"meta": {"api-version": "1.0"}, "projects": projects}).encode()


class IntakeCase(Case):
    """Tests with an index at the other end of a connection."""

    limit = LIST_LIMIT

    def setUp(self) -> None:
        """Have threads."""
        super().setUp()
        self.threads = Threads()
        self.heard = 0

    def hear(self, size: int) -> None:
        """Note what comes."""
        self.heard += size

    def take(
        self,
        body: bytes,
        *fields: str,
        wanted: tuple[Form, ...] = (),
        chunk: int = 65536,
        missing: int = 0,
    ) -> Deferred[tuple[ListFile, dict[Form, ListFile]]]:
        """Answer with a body, in chunks, all but the last bytes of it."""
        network = Network()
        network.upstream.list_limit = self.limit

        async def asked() -> tuple[ListFile, dict[Form, ListFile]]:
            async with network.upstream.page(URL, {}) as answer:
                return await list_intake.take(
                    answer,
                    network.upstream,
                    self.threads,
                    lambda: Draft(None),
                    self.hear,
                    wanted,
                )

        taken = run(asked())
        self.line = network.accept()
        head = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *fields]
        self.line.send("\r\n".join(head).encode() + b"\r\n\r\n")
        for place in range(0, len(body) - missing, chunk):
            self.line.send(body[place : min(place + chunk, len(body) - missing)])
        return taken


class BatchTests(IntakeCase):
    """What is done where, and when."""

    def test_nothing_on_the_reactor(self) -> None:
        """While the list comes it is only gathered; all else is for the threads."""
        taken = self.take(listed(10_000))
        self.pending(taken)
        assert self.threads.done == 0
        assert len(self.threads.waiting) == 1
        self.threads.work()
        names, forms = self.result(taken)
        assert (sum(1 for line in b"".join(names.blocks()).splitlines()), forms) == (10_000, {})
        assert self.heard == len(listed(10_000))

    def test_few_batches(self) -> None:
        """What came while a thread was busy is one batch, not one for each chunk."""
        taken = self.take(listed(10_000), chunk=100)
        self.threads.work()
        self.result(taken)
        assert self.threads.done < 5

    def test_forms_on_the_way(self) -> None:
        """A form that is waited for is made of the names while they come."""
        taken = self.take(listed(3), wanted=(PLAIN_JSON, (Serialization.HTML, True)))
        self.threads.work()
        _, forms = self.result(taken)
        page = json.loads(b"".join(forms[PLAIN_JSON].blocks()))
        assert [each["name"] for each in page["projects"]] == [f"project-{n:07}" for n in range(3)]
        html = gzip.decompress(b"".join(forms[Serialization.HTML, True].blocks()))
        assert html.count(b"<a href=") == 3

    def test_error_in_a_thread(self) -> None:
        """What turns out to be no list is not read any further."""
        taken = self.take(b"welcome" * 100_000)
        self.threads.work()
        self.line.send(b"welcome")
        self.threads.work()
        assert self.error(taken, UpstreamFailed).cause == "it is neither JSON nor HTML"

    def test_cut_while_a_thread_works(self) -> None:
        """A list that breaks off is an error once the thread is done with what has come."""
        taken = self.take(listed(1000), missing=10)
        self.line.close()
        self.pending(taken)
        self.threads.work()
        assert self.error(taken, UpstreamFailed).temporary


class CompressedTests(IntakeCase):
    """A list that comes compressed."""

    GZIP = "Content-Encoding: gzip"

    def failure(self, body: bytes) -> str:
        """Give why a body is none."""
        taken = self.take(body, self.GZIP)
        self.threads.work()
        return self.error(taken, UpstreamFailed).cause

    def test_decompressed_in_a_thread(self) -> None:
        """The reactor never sees what is in it."""
        taken = self.take(gzip.compress(listed(10_000)), self.GZIP)
        assert self.threads.done == 0
        self.threads.work()
        names, _ = self.result(taken)
        assert names.size == 10_000 * len("project-0000000\n")

    def test_not_whole(self) -> None:
        """A compressed list has its own end, and must be what it says."""
        whole = gzip.compress(listed(1000))
        assert self.failure(whole[:-9]) == "the answer was cut short"
        assert self.failure(b"\x1f\x8b" + whole[:50]) == "the answer cannot be decompressed"

    def test_bomb(self) -> None:
        """A few bytes that become too many are no list."""
        self.limit = Limit(2_000_000, "X")
        error = self.failure(gzip.compress(b"{" + b" " * 9_000_000))
        assert error == "the answer is too long: X allows 2000000 bytes"


class MemoryTests(IntakeCase):
    """How much is held."""

    def test_bounded(self) -> None:
        """What a list of any length takes on its way does not grow with it."""
        self.threads = _AtOnce()

        def peak(body: bytes) -> int:
            tracemalloc.start()
            try:
                self.result(self.take(body, wanted=(PLAIN_JSON, (Serialization.HTML, True))))
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

        short, long = listed(MANY // 4), listed(MANY)
        assert peak(long) < 1.5 * peak(short)
        assert self.threads.done > 50

    def test_step_is_bounded(self) -> None:
        """However much has come, nobody looks at more than a piece of it in one go."""
        longest = 0
        feed = NameScanner.feed

        def fed(scanner: Any, data: bytes) -> bytes:
            nonlocal longest
            longest = max(longest, len(data))
            return feed(scanner, data)

        self.put(NameScanner, "feed", fed)
        body = listed(MANY)
        for data, *fields in ((body,), (gzip.compress(body, 1), CompressedTests.GZIP)):
            taken = self.take(data, *fields)
            self.threads.work()
            self.result(taken)
        assert longest == BLOCK < len(body) / 8


class _AtOnce(Threads):
    """A pool of threads that are quick."""

    def __call__(self, job: Callable[[], T]) -> Deferred[T]:
        """See `Work`."""
        result = super().__call__(job)
        self.work()
        return result


class RoomTests(Case):
    """An index that is faster than the search for names."""

    def setUp(self) -> None:
        """Have a search that waits, and a body that comes."""
        super().setUp()
        self.threads = Threads()
        self.clock = Clock()
        self.batches = list_intake._Batches(self.threads, self.step)
        self.seen: list[int] = []
        self.transport = StringTransport()

    def step(self, data: bytes) -> None:
        """Look at a batch."""
        self.seen.append(len(data))

    def deliverBody(self, protocol: Any) -> None:
        """See `proxpi.upstream.body.Delivers`."""
        self.protocol = protocol
        protocol.makeConnection(self.transport)

    @property
    def paused(self) -> bool:
        """Whether nothing is read from the connection."""
        return self.transport.producerState == "paused"

    def test_pauses(self) -> None:
        """Nothing more is read while a lot waits, however long that is; then all goes on."""
        ended = receive(self, self.batches.add, clock=self.clock, idle_timeout=20.0)
        size = list_intake.ROOM // 2
        self.protocol.dataReceived(b"x" * size)  # is being looked at
        self.protocol.dataReceived(b"x" * size)
        assert not self.paused
        self.protocol.dataReceived(b"x" * size)
        assert self.paused
        self.protocol.dataReceived(b"x")  # had been read already
        self.clock.advance(1000)
        self.pending(ended)
        self.threads.work()
        assert not self.paused
        assert self.seen == [size, 2 * size + 1]
        self.protocol.dataReceived(b"x")
        self.clock.advance(20)  # from here on silence counts again
        self.failureResultOf(ended)

    def test_closed_while_paused(self) -> None:
        """A connection that is lost meanwhile is not touched any more."""
        ended = receive(self, self.batches.add, clock=self.clock, idle_timeout=20.0)
        for _ in range(3):
            self.protocol.dataReceived(b"x" * list_intake.ROOM)
        assert self.paused
        ended.cancel()
        self.threads.work()
        assert self.paused
        assert not self.clock.getDelayedCalls()
