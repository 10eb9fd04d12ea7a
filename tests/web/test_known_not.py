"""When it is not enough to know the bytes of a request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from proxpi.index.page_cache import PageCache
from proxpi.simple import caching
from tests.support.cases import entry, page
from tests.support.exchange import request as written
from tests.web.knowing import DATA, INDEX_PAGE, JSON, PAGE, SMALL, KnownCase


class NotGiven(KnownCase):
    """When it is not enough to know the bytes of a request."""

    def learned(self, target: str = PAGE + SMALL) -> bytes:
        """Give a head that is known."""
        head = written("GET", target, JSON)
        self.ask_with(self.client(), head, head)
        assert self.known(head)
        return head

    def test_forgotten_page(self) -> None:
        """After a page is forgotten, neither it nor its files are given unasked."""
        heads = self.learned(PAGE), self.learned()
        self.pages.invalidate("demo")
        assert not any(map(self.known, heads))

    def test_forgotten_meanwhile(self) -> None:
        """A page that is forgotten while one of its forms is made is not known by that form."""
        head = written("GET", PAGE, JSON, "Accept-Encoding: gzip")
        fetch = PageCache.fetch

        async def forget(*given: Any) -> Any:
            made = await fetch(*given)
            self.pages.invalidate("demo")
            return made

        self.put(PageCache, "fetch", forget)
        self.ask_with(self.client(), head)
        assert not self.known(head)
        asked = len(self.internet.urls())
        self.ask_with(self.client(), head)
        assert len(self.internet.urls()) > asked

    def test_all_forgotten(self) -> None:
        """After everything is forgotten, nothing is."""
        heads = self.learned(PAGE), self.learned()
        self.successResultOf(self.pages.clear())
        assert not any(map(self.known, heads))

    def test_changed_page(self) -> None:
        """A page that was asked for anew is given as it is now."""
        head = self.learned(PAGE)
        self.clock.advance(1801)
        self.internet.at(INDEX_PAGE, page(entry("demo-3.0.tar.gz", b"3")))
        answer = self.ask_with(self.client(), head)
        assert b"X-Cache: MISS" in answer and b"demo-3.0" in answer
        assert b"demo-3.0" in self.ask_with(self.client(), head, head)
        assert self.known(head)

    def test_expired(self) -> None:
        """A page is given until it is no longer fresh, and says how much is left."""
        head = self.learned(PAGE)
        self.clock.advance(1800 - caching.MAX_AGE)
        assert b"max-age=60\r\n" in self.ask_with(self.client(), head)
        self.clock.advance(50)
        assert b"max-age=10\r\n" in self.ask_with(self.client(), head)
        assert self.known(head)
        self.clock.advance(10)
        assert not self.known(head)

    def test_stale(self) -> None:
        """What an outage leaves is found in the ordinary way."""
        head = self.learned(PAGE)
        self.clock.advance(1801)
        self.internet.at(INDEX_PAGE, OSError())
        for _ in range(2):
            assert not self.known(head)

    def place(self, name: str = SMALL) -> Path:
        """Give where a file lies."""
        return self.folder / "files-example/packages" / name

    def test_vanished(self) -> None:
        """A file that is gone from the disk is not sent, though it is open."""
        heads = self.learned(), written("HEAD", PAGE + SMALL, JSON)
        self.ask_with(self.client(), heads[1], heads[1])
        self.place().unlink()
        assert not any(map(self.known, heads))
        assert self.open_files() == []

    def test_replaced(self) -> None:
        """Nor is one in whose place another lies, or that was written to."""
        head = self.learned()
        other = self.folder / "other"
        other.write_bytes(DATA[SMALL])
        other.rename(self.place())
        assert not self.known(head)
        head = self.learned()
        with self.place().open("r+b") as file:
            file.write(b"X")
        assert not self.known(head)
        assert DATA[SMALL] in self.ask_with(self.client(), head)

    def test_forgotten_file(self) -> None:
        """A file that is removed is closed at once: its bytes are to be free."""
        head = self.learned()
        assert self.open_files() != []
        self.mirror.delete("demo", SMALL)
        assert self.open_files() == []
        assert not self.known(head)

    def test_other_bytes(self) -> None:
        """A page that names other bytes takes the file with it."""
        head = self.learned()
        self.clock.advance(1801)
        self.fill(**{SMALL: b"other"})
        assert b"other" in self.ask_with(self.client(), head)

    def test_closing(self) -> None:
        """Heads after which the connection closes are never known."""
        for head in (
            written("GET", PAGE, "Connection: close"),
            written("GET", PAGE).replace(b"HTTP/1.1", b"HTTP/1.0"),
        ):
            for _ in range(3):
                client = self.client()
                answer = self.ask_with(client, head)
                assert answer.startswith(b"HTTP/1.") and client.closed
                assert not self.known(head)

    def test_with_a_body(self) -> None:
        """Nor are those that bring something, or may."""
        for field in ("Content-Length: 0", "Transfer-Encoding: chunked", "Expect: 100-continue"):
            head = written("GET", PAGE, field)
            body = b"0\r\n\r\n" if "chunked" in field else b""
            for _ in range(3):
                self.ask_with(self.client(), head + body)
            assert not self.known(head + body)

    def test_several(self) -> None:
        """Each of several heads in one packet gets an answer; together they are no head."""
        head = self.learned(PAGE)
        for _ in range(3):
            answers = self.ask_with(self.client(), head + head + head)
            assert answers.count(b"HTTP/1.1 200 OK") == 3
        assert self.site.response_cache.by_head(head + head + head, self.clock.seconds()) is None

    def test_within_another(self) -> None:
        """What looks like a head, and is the body of another, is not answered."""
        head = self.learned(PAGE)
        post = written("POST", PAGE, f"Content-Length: {len(head)}")
        client = self.client()
        client.send(post)
        client.send(head)
        assert client.settle().count(b"HTTP/1.1") == 1

    def test_not_admitted(self) -> None:
        """Who came when there was no room is refused, as before."""
        head = self.learned(PAGE)
        client = self.client()
        client.transport.protocol.admitted = False
        assert self.ask_with(client, head).startswith(b"HTTP/1.1 503")

    def test_draining(self) -> None:
        """Nothing is begun at the end."""
        head = self.learned(PAGE)
        client = self.client()
        self.site.drain(5)
        assert self.ask_with(client, head) == b""

    def test_over_tls(self) -> None:
        """Over TLS the bytes of an answer never go to the socket itself."""
        head = self.learned(PAGE)
        exchange = self.connect(tls=True)
        for _ in range(3):
            exchange.ask("GET", PAGE, JSON)
            answer = exchange.answer()
            assert answer is not None and answer.status == 200
        assert not exchange.wire.protocol._can_send_cached()
        assert self.known(head)
