"""Answers that are ready: what they are, and how much of them is kept."""

from __future__ import annotations

import errno
import os
import re
import time

from proxpi.web import response_cache
from tests.support.cases import entry, page
from tests.support.exchange import request as written
from tests.web.knowing import DATA, INDEX_PAGE, JSON, LARGE, PAGE, SMALL, KnownCase, undated


class Given(KnownCase):
    """What is known, and how it looks."""

    HEADS = (
        written("GET", PAGE, JSON),
        written("GET", PAGE, JSON, "Accept-Encoding: gzip"),
        written("GET", PAGE),
        written("HEAD", PAGE, JSON),
        written("GET", PAGE + SMALL),
        written("GET", PAGE + LARGE),
        written("HEAD", PAGE + LARGE),
        written("GET", PAGE + LARGE, "Range: bytes=-8192"),
        written("GET", PAGE + LARGE, "Range: bytes=5-9"),
    )

    def test_same(self) -> None:
        """The first answer from the cache, and those without a look, are the same bytes."""
        for head in self.HEADS:
            client = self.client()
            self.ask_with(client, head)
            first = self.ask_with(client, head)
            assert self.known(head)
            again = self.ask_with(client, head)
            assert undated(again) == undated(first), head
            assert b" HIT\r\n" in again.partition(b"\r\n\r\n")[0].replace(b"X-Cache: HIT", b" HIT")

    def test_another_head(self) -> None:
        """A client whose head was never seen gets the same bytes, too."""
        client = self.client()
        first = self.ask_with(client, *[written("GET", PAGE, JSON)] * 2)
        other = self.ask_with(client, written("GET", PAGE, JSON, "User-Agent: another"))
        assert undated(other) == undated(first)

    def test_unchanged(self) -> None:
        """Who has it already is told so, and from then on without a look."""
        answer = self.ask_with(self.client(), written("GET", PAGE, JSON))
        found = re.search(rb'ETag: ("[^"]+")', answer)
        assert found is not None
        head = written("GET", PAGE, JSON, f"If-None-Match: {found[1].decode()}")
        answer = self.ask_with(self.client(), head, head)
        assert answer.startswith(b"HTTP/1.1 304 ")
        assert self.known(head)
        assert undated(self.ask_with(self.client(), head)) == undated(answer)

    def test_time(self) -> None:
        """The time is that of the answer."""
        head = written("GET", PAGE, JSON)
        client = self.client()
        self.ask_with(client, head, head)
        self.put(time, "time", lambda: 86_400.0)
        assert b"\r\nDate: Fri, 02 Jan 1970 00:00:00 GMT\r\n" in self.ask_with(client, head)

    def test_logged(self) -> None:
        """The log has a line for each, like that of any other."""
        head = written("GET", PAGE + SMALL + "?token=secret")
        client = self.client()
        self.ask_with(client, head, head, head)
        assert self.access_log[-3:] == [f"192.0.2.1 GET {PAGE}{SMALL} 200 500 HIT 0.000s"] * 3

    def test_uses(self) -> None:
        """Each is a use of its file, told once, the latest last."""
        for name in (LARGE, SMALL):
            self.ask_with(self.client(), *[written("GET", PAGE + name)] * 3)
            self.clock.advance(1)
        self.ask_with(self.client(), written("GET", PAGE + LARGE))
        assert self.site.response_cache.uses() == [
            (f"files-example/packages/{SMALL}", 2),
            (f"files-example/packages/{LARGE}", 3),
        ]
        assert self.site.response_cache.uses() == []


class Bounds(KnownCase):
    """How much is kept."""

    def test_answers(self) -> None:
        """Of more answers than there is room for, those go that are not asked for."""
        self.put(response_cache, "ENTRIES", 3)
        wanted = written("GET", PAGE)
        self.ask_with(self.client(), wanted, wanted)
        for number in range(10):
            head = written("GET", f"{PAGE}?{number}")
            self.ask_with(self.client(), head, head, wanted)
        assert len(list(self.site.response_cache)) == 3
        assert self.known(wanted)

    def test_memory(self) -> None:
        """Heads count, too: a client with a new one each time drives out nothing else."""
        self.put(response_cache, "ALIASES", 4)
        wanted = written("GET", PAGE + SMALL)
        self.ask_with(self.client(), wanted, wanted)
        for number in range(20):
            self.ask_with(self.client(), written("GET", PAGE, f"User-Agent: {number}"))
        [answer] = [each for each in self.site.response_cache if each.held is None]
        assert len(answer.heads) == 4
        assert self.known(wanted)
        cost = sum(each.cost for each in self.site.response_cache)
        assert self.site.response_cache._cost == cost
        self.put(response_cache, "MEMORY", cost)
        self.ask_with(self.client(), *[written("GET", PAGE, JSON)] * 2)
        assert self.site.response_cache._cost <= cost

    def test_files(self) -> None:
        """No more files are kept open than may be."""
        self.build(open_files=1)
        for target in (PAGE + SMALL, PAGE + LARGE):
            self.ask_with(self.client(), *[written("GET", target)] * 2)
        assert len(self.open_files()) == 1

    def test_nothing_left(self) -> None:
        """What is dropped is gone from everywhere."""
        for target in (PAGE, PAGE + SMALL, PAGE + LARGE):
            self.ask_with(self.client(), *[written("GET", target)] * 2)
        table = self.site.response_cache
        table.invalidate("demo")
        assert not (
            table._by_head or table._by_key or table._built_from or table._cost or table._open
        )

    def test_not_while_it_is_given(self) -> None:
        """An answer that has to go for want of room is given first, to whoever just asked."""
        for target in (PAGE + LARGE, PAGE + SMALL):
            self.ask_with(self.client(), written("GET", target))
        self.put(response_cache, "MEMORY", sum(each.cost for each in self.site.response_cache))
        answer = self.ask_with(self.client(), written("GET", PAGE + LARGE, "User-Agent: another"))
        assert answer.endswith(DATA[LARGE])
        assert self.site.response_cache._cost <= response_cache.MEMORY

    def test_no_descriptor(self) -> None:
        """What cannot be kept open is given in the ordinary way, to the last byte."""

        def refuse(*_: object) -> int:
            raise OSError(errno.EMFILE, "no descriptors")

        names = [f"demo-{number}.tar.gz" for number in range(2000)]
        self.clock.advance(1801)
        self.internet.at(INDEX_PAGE, page(*(entry(name, b"") for name in names)))
        head = written("GET", PAGE, JSON)
        whole = self.ask_with(self.client(), head)
        self.put(os, "memfd_create", refuse)
        self.put(os, "dup", refuse)
        for _ in range(3):
            assert self.ask_with(self.client(), head).endswith(whole.partition(b"\r\n\r\n")[2])
        assert not self.known(head)
