"""Ready answers on connections of every kind: not a byte of them is another."""

from __future__ import annotations

from proxpi.web.transfer import POLL, STALL_TIMEOUT
from tests.support.cases import entry, page
from tests.support.exchange import request as written
from tests.web.knowing import DATA, INDEX_PAGE, JSON, LARGE, PAGE, SMALL, KnownCase, undated


class SlowClients(KnownCase):
    """Clients that do not take at once what is given."""

    def test_large_file(self) -> None:
        """What the kernel does not take follows, whole, and the next answer after it."""
        head = written("GET", PAGE + LARGE)
        self.ask_with(self.client(), head, head)
        client = self.client(room=4096)
        client.send(head)
        client.send(written("GET", PAGE + SMALL))
        received = client.settle()
        assert received.count(b"HTTP/1.1 200 OK") == 2
        assert DATA[LARGE] in received and received.endswith(DATA[SMALL])
        assert self.site.busy == set()

    def test_large_page(self) -> None:
        """The same goes for a page."""
        names = [f"demo-{number}.tar.gz" for number in range(2000)]
        self.clock.advance(1801)
        self.internet.at(INDEX_PAGE, page(*(entry(name, b"") for name in names)))
        head = written("GET", PAGE, JSON)
        whole = self.ask_with(self.client(), head, head)
        assert self.known(head)
        client = self.client(room=4096)
        client.send(head)
        client.send(head)
        assert undated(client.settle()) == undated(whole) * 2
        assert self.site.response_cache.uses() == []  # it is none of a file

    def test_nothing_taken(self) -> None:
        """A client that takes nothing is dropped, and its file is let go of."""
        head = written("GET", PAGE + LARGE)
        self.ask_with(self.client(), head, head)
        client = self.client(room=4096)
        client.send(head)
        for _ in range(80):
            self.clock.advance(1)
            self.clock.turn()
        assert not client.transport.connected
        assert self.cache_dir.index.in_use == {}

    def test_takes_little_answers_nothing(self) -> None:
        """A client that leaves all in the kernel is looked after as well."""
        head = written("GET", PAGE + SMALL)
        client = self.client()
        self.ask_with(client, head, head)
        self.clock.advance(POLL)
        client.send(head)
        for _ in range(int(POLL + STALL_TIMEOUT + 6)):
            self.clock.advance(1)
            self.clock.turn()
        assert not client.transport.connected

    def test_gone(self) -> None:
        """A client that goes away in the middle leaves nothing behind."""
        head = written("GET", PAGE + LARGE)
        self.ask_with(self.client(), head, head)
        client = self.client(room=4096)
        client.send(head)
        client._socket.close()
        for _ in range(10):
            self.clock.turn()
        assert self.cache_dir.index.in_use == {}
        assert self.site.busy == set()

    def test_pipelined_without_reading(self) -> None:
        """Who asks a thousand times and takes nothing is not read from for long."""
        head = written("GET", PAGE + SMALL)
        client = self.client(room=4096)
        self.ask_with(client, head, head)
        sent = 0
        while sent < 100_000 and client.transport in self.clock.readers:
            client.send(head)
            sent += 1
        buffered = len(client.transport.dataBuffer) + client.transport._tempDataLen
        assert sent < 1000 and buffered < 200_000
