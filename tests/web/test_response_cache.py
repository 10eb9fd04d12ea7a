"""Responses from the cache: byte for byte those of the resources, as long as they are right."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from unittest.mock import Mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IAddress

from proxpi.index.page_cache import PageCache
from proxpi.simple import caching
from proxpi.web import response_cache
from proxpi.web.response_cache import ResponseCache
from proxpi.web.transfer import POLL, STALL_TIMEOUT
from tests.support.agent import Reply
from tests.support.cases import FILES, ProxpiCase, entry, page
from tests.support.exchange import PEER, Exchange, settle
from tests.support.exchange import request as written

PAGE = "/index/demo/"
SMALL, LARGE, EMPTY = "demo-1.0.tar.gz", "demo-2.0.tar.gz", "demo-3.0.tar.gz"
DATA = {SMALL: b"small" * 100, LARGE: os.urandom(700_000), EMPTY: b""}
JSON = "Accept: application/vnd.pypi.simple.v1+json"
INDEX_PAGE = "https://index.example/simple/demo/"
LONG_PAGE = page(*(entry(f"demo-{number}.tar.gz", b"") for number in range(2000)))


def undated(data: bytes) -> bytes:
    """Take the time of day out of responses."""
    return re.sub(rb"\r\nDate: [^\r]*", b"", data)


class CacheCase(ProxpiCase):
    """Tests with a project whose page and files are cached."""

    def setUp(self) -> None:
        super().setUp()
        self.fill()

    def fill(self, **files: bytes) -> None:
        data = {**DATA, **files}
        self.agent.at(INDEX_PAGE, page(*(entry(name, body) for name, body in data.items())))
        for name, body in data.items():
            self.agent.at(FILES + name, Reply(200, body))
        for target in (PAGE, *(PAGE + name for name in data)):
            assert self.get(target).status == 200

    def place(self, name: str = SMALL) -> Any:
        return self.folder / "files-example/packages" / name

    def receive(self, *heads: bytes, client: Exchange | None = None) -> bytes:
        """Send heads one at a time, and give the last response."""
        client = client or self.connect()
        before = 0
        for head in heads:
            before = len(client.received)
            client.send(head)
            client.receive()
        return client.received[before:]

    def aliases(self) -> int:
        return sum(len(entry.aliases) for entry in self.response_cache)

    def is_cached(self, head: bytes, peer: IAddress = PEER) -> bool:
        """Return whether the response cache answers: then no request is made."""
        client = self.connect(peer=peer)
        client.channel._make_request = make = Mock(side_effect=client.channel._make_request)
        client.send(head)
        client.hang_up()
        return not make.called

    def stored(self, target: str = PAGE + SMALL) -> bytes:
        """Return a head whose response is stored."""
        head = written("GET", target, JSON)
        self.receive(head, head)
        assert self.is_cached(head)
        return head


class Responses(CacheCase):
    def test_same(self) -> None:
        """The response of a resource and those from the cache are the same bytes."""
        etag = re.search(rb'ETag: ("[^"]+")', self.receive(written("GET", PAGE, JSON)))
        assert etag is not None
        for head in (
            written("GET", PAGE, JSON),
            written("GET", PAGE, JSON, "Accept-Encoding: gzip"),
            written("GET", PAGE),
            written("HEAD", PAGE, JSON),
            written("GET", PAGE, JSON, f"If-None-Match: {etag[1].decode()}"),
            written("GET", PAGE + SMALL),
            written("GET", PAGE + EMPTY),
            written("GET", PAGE + LARGE),
            written("HEAD", PAGE + LARGE),
            written("GET", PAGE + LARGE, "Range: bytes=-8192"),
            written("GET", PAGE + LARGE, "Range: bytes=5-9"),
        ):
            client = self.connect()
            self.receive(head, client=client)
            first = self.receive(head, client=client)
            assert self.is_cached(head), head
            assert undated(self.receive(head, client=client)) == undated(first), head
            assert b"X-Cache: HIT\r\n" in first

    def test_new_head(self) -> None:
        """A new head finds the response by its cache key, and becomes an alias."""
        self.stored(PAGE)
        other = written("GET", PAGE, JSON, "User-Agent: another")
        assert self.is_cached(other)
        assert any(other in entry.aliases for entry in self.response_cache)

    def test_cache_control(self) -> None:
        """``max-age=0`` of an older pip, and any ``Cache-Control`` of files, are hits as before."""
        for target, agent, value in (
            (PAGE, "pip/26.1 {}", "max-age=0"),
            (PAGE, "Mozilla/5.0", "max-age=0"),
            (PAGE + SMALL, "pip/26.3 {}", "max-age=0"),
            (PAGE + SMALL, "uv/0.13.9 {}", "no-cache"),
        ):
            self.stored(target)
            head = written("GET", target, JSON, f"User-Agent: {agent}", f"Cache-Control: {value}")
            assert self.is_cached(head), head
            assert self.is_cached(head), "by its bytes"

    def test_refresh(self) -> None:
        """A refresh of a page is no hit, neither by its bytes nor by its cache key."""
        head = written("GET", PAGE, JSON, "Cache-Control: no-cache")
        self.stored(PAGE)
        for _ in range(2):
            self.receive(head)
            assert not self.is_cached(head)
        assert self.is_cached(written("GET", PAGE, JSON))

    def test_date_and_log(self) -> None:
        """Each response has its own date, and its line in the access log."""
        head = written("GET", PAGE + SMALL + "?token=secret")
        self.receive(head, head)
        self.put(time, "time", lambda: 86_400.0)
        assert b"\r\nDate: Fri, 02 Jan 1970 00:00:00 GMT\r\n" in self.receive(head)
        lines = [line.rpartition("-")[0] for line in self.access_log[-3:]]
        assert lines[0].startswith(f"192.0.2.1 GET {PAGE}{SMALL} 200 500 0ms HIT id=")
        assert lines == [lines[0]] * 3
        assert len({*self.access_log[-3:]}) == 3, "each request has its own ID"

    def test_request_ids(self) -> None:
        """The ID of a request is logged, and keeps it neither from a hit nor from an alias."""
        self.stored()
        count = self.aliases()
        for number in range(3):
            for name, value in (
                ("X-Request-ID", f"a-{number}"),
                ("x-request-id", f" b-{number}\t"),
            ):
                head = written("GET", PAGE + SMALL, JSON, f"{name}:{value}", "Via: x")
                assert self.is_cached(head)
                assert self.access_log[-1].endswith(f" HIT id={value.strip()}")
        assert self.aliases() == count + 1
        assert self.is_cached(written("GET", PAGE + SMALL, JSON, "Via: x")), "the same alias"
        assert self.is_cached(written("GET", PAGE + SMALL, JSON, "X-Request-ID: a b"))
        assert re.search(" id=[0-9a-f]{6}-[0-9]+$", self.access_log[-1])

    def test_forwarded(self) -> None:
        """Behind a trusted proxy, hits are logged with their client, and share an alias."""
        other = IPv4Address("TCP", "192.0.2.9", 1)
        for trusted in ("192.0.2.1", ""):
            self.build(trusted_proxies=trusted)
            self.fill()
            self.stored()
            count = self.aliases()
            for fields, client in (
                (["X-Forwarded-For: 203.0.113.1, 192.0.2.77"], "192.0.2.77"),
                (["X-Forwarded-For: 203.0.113.1", "x-forwarded-for: 192.0.2.78"], "192.0.2.78"),
                (["Forwarded: for=192.0.2.79"], "192.0.2.79"),
                (["Forwarded: for=192.0.2.79", "X-Forwarded-For: 192.0.2.80"], "192.0.2.80"),
                (["X-Forwarded-For: unknown"], "192.0.2.1"),
                ([], "192.0.2.1"),
            ):
                head = written("GET", PAGE + SMALL, JSON, *fields)
                for _ in range(2):
                    assert self.is_cached(head)
                    found = self.access_log[-1].split()[0]
                    assert found == (client if trusted else "192.0.2.1"), fields
                    assert self.is_cached(head, peer=other)
                    assert self.access_log[-1].split()[0] == "192.0.2.9"
            assert self.aliases() == count
            proto = "X-Forwarded-Proto: https"
            head = written("GET", PAGE + SMALL, JSON, proto, "Forwarded: for=192.0.2.79")
            assert self.is_cached(head)
            assert self.access_log[-1].startswith("192.0.2.1 ")

    def test_malformed_origin(self) -> None:
        """A head that is not whole and valid with the fields of its origin is no hit."""
        head = self.stored()
        for line in (b"X-Request-ID : a", b"X-Request-ID: a\x00", b"X-Request-ID: a\nb: c", b"X-F"):
            assert b" 200 OK" not in self.receive(head[:-2] + line + b"\r\n\r\n"), line
        assert not self.is_cached(head[:-2] + b"\r\nX-Request-ID: a\r\n")
        assert not self.is_cached(head + b"X-Request-ID: a\r\n\r\n")
        for data in (head[:-2] + b"X-Request-ID: a\r\n", b"\r\nX-Request-ID: a" + head):
            assert b" 200 OK" not in self.receive(data)

    def test_large_origin(self) -> None:
        """The fields of its origin make no head a hit that is too large for one."""
        self.build(trusted_proxies="192.0.2.1")
        self.fill()
        head = self.stored()
        many = b"X-Request-ID:\r\n" * 501
        for fields in (many, b"X-Forwarded-For: 192.0.2.77" + b" " * 20_000 + b"\r\n"):
            response = self.receive(head[:-2] + fields + b"\r\n")
            assert response.startswith(b"HTTP/1.1 431 "), fields[:20]

    def test_uses(self) -> None:
        """Each is a use of its file, told once, the latest last."""
        for name in (LARGE, SMALL):
            self.receive(*[written("GET", PAGE + name)] * 3)
        self.receive(written("GET", PAGE + LARGE), written("GET", PAGE))
        assert self.response_cache.uses() == [
            (f"files-example/packages/{SMALL}", 2),
            (f"files-example/packages/{LARGE}", 3),
        ]
        assert self.response_cache.uses() == []

    def test_slow_client(self) -> None:
        """Bytes that the kernel does not take follow, whole, before the next response."""
        for target in (PAGE + LARGE, PAGE):
            if target == PAGE:
                self.clock.advance(1801)
                self.agent.at(INDEX_PAGE, LONG_PAGE)
            head = self.stored(target)
            whole = undated(self.receive(head))
            client = self.connect(capacity=4096)
            client.send(head)
            client.send(head)
            assert undated(client.receive()) == whole * 2
            assert not client.closed

    def test_left_in_the_kernel(self) -> None:
        """A client that takes none of such a response is dropped after a minute."""
        head = self.stored()
        client = self.connect()
        self.receive(head, client=client)
        self.clock.pass_time(2 * POLL)
        client.send(head)
        self.clock.pass_time(STALL_TIMEOUT + 2 * POLL + 1)
        assert client.aborted

    def test_client_gone(self) -> None:
        """A client that goes away in the middle leaves nothing behind."""
        head = self.stored(PAGE + LARGE)
        client = self.connect(capacity=4096)
        client.send(head)
        client.hang_up()
        assert dict(self.cache_dir.eviction_index.in_use) == {} and self.open_files() == []
        client = self.connect()
        client.socket.send(head)
        client.socket.close()  # so the first write fails
        settle(self.clock)
        assert not client.transport.connected


class Bounds(CacheCase):
    def cost(self) -> int:
        return sum(each.cost for each in self.response_cache)

    def test_entries(self) -> None:
        """Of more entries than there may be, those go that are not asked for."""
        self.put(response_cache, "ENTRIES", 3)
        wanted = self.stored(PAGE)
        for number in range(10):
            self.receive(*[written("GET", f"{PAGE}?{number}")] * 2, wanted)
        assert len(list(self.response_cache)) == 3
        assert self.is_cached(wanted)

    def test_memory(self) -> None:
        """Heads count: a client with a new one each time displaces its own, and nothing else."""
        self.put(response_cache, "ALIASES", 4)
        wanted = self.stored()
        for number in range(20):
            self.receive(written("GET", PAGE, f"User-Agent: {number}"))
        [found] = [each for each in self.response_cache if each.held is None]
        assert len(found.aliases) == 4
        assert self.is_cached(wanted)
        assert self.response_cache._cost == self.cost()
        self.put(response_cache, "MEMORY", self.cost())
        self.receive(*[written("GET", PAGE, "Accept-Encoding: gzip")] * 2)
        assert self.cost() <= response_cache.MEMORY

    def test_evicted_by_its_own_head(self) -> None:
        """A new head evicts other responses, not the one that it finds."""
        for target in (PAGE + LARGE, PAGE + SMALL):
            self.receive(written("GET", target))
        self.put(response_cache, "MEMORY", self.cost())
        answer = self.receive(written("GET", PAGE + LARGE, "User-Agent: another"))
        assert answer.endswith(DATA[LARGE])
        assert self.cost() <= response_cache.MEMORY

    def test_files(self) -> None:
        """Open files are limited; a deleted file is closed at once, so that its bytes are free."""
        self.build(open_files=1)
        for name in (SMALL, LARGE):
            self.receive(*[written("GET", PAGE + name)] * 2)
        assert len(self.kept_descriptors()) == 1
        self.mirror.delete("demo", LARGE)
        assert self.kept_descriptors() == []

    def test_no_descriptor(self) -> None:
        """A file that cannot be kept open is sent by its resource, to the last byte."""

        def refuse(*_: object) -> int:
            raise OSError(errno.EMFILE, "no descriptors")

        self.clock.advance(1801)
        self.agent.at(INDEX_PAGE, LONG_PAGE)
        head = written("GET", PAGE, JSON)
        whole = self.receive(head)
        self.put(os, "memfd_create", refuse)
        self.put(os, "dup", refuse)
        for _ in range(3):
            assert self.receive(head).endswith(whole.partition(b"\r\n\r\n")[2])
        assert not self.is_cached(head)


class NotCached(CacheCase):
    def test_invalidated(self) -> None:
        """Invalidating a page or a file removes every response built from it, and its file."""
        forget: list[tuple[Callable[[], object], list[bool]]] = [
            (lambda: self.pages.invalidate("demo"), [False, False, False]),
            (lambda: self.pages.clear(), [False, False, False]),
            (lambda: self.mirror.delete("demo", SMALL), [True, False, True]),
            (lambda: self.place().unlink(), [True, False, True]),
            (lambda: self.place().write_bytes(b"X"), [True, False, True]),
            (lambda: os.utime(self.place()), [True, False, True]),
        ]
        for act, cached in forget:
            self.fill()
            heads = [self.stored(path) for path in (PAGE, PAGE + SMALL, PAGE + LARGE)]
            act()
            assert [self.is_cached(head) for head in heads] == cached
        assert DATA[SMALL] in self.receive(heads[1])
        self.pages.invalidate("demo")
        assert not any((list(cache := self.response_cache), cache._by_head, cache._cost))

    def test_invalidated_meanwhile(self) -> None:
        """A page that is invalidated while it is rendered is not stored."""
        head = written("GET", PAGE, JSON, "Accept-Encoding: gzip")
        fetch = PageCache.fetch

        async def invalidate(*given: Any, **named: Any) -> Any:
            made = await fetch(*given, **named)
            self.pages.invalidate("demo")
            return made

        self.put(PageCache, "fetch", invalidate)
        self.receive(head)
        assert not self.is_cached(head)
        asked = len(self.agent.urls())
        self.receive(head)
        assert len(self.agent.urls()) > asked

    def test_changed(self) -> None:
        """A page that has changed upstream is sent as it is now, and so are its files."""
        heads = self.stored(PAGE), self.stored()
        self.clock.advance(1801)
        self.fill(**{SMALL: b"other"})
        assert b"other" in self.receive(heads[1])
        self.clock.advance(1801)
        self.agent.at(INDEX_PAGE, page(entry("demo-4.0.tar.gz", b"4")))
        answer = self.receive(heads[0])
        assert b"X-Cache: MISS" in answer and b"demo-4.0" in answer
        assert b"demo-4.0" in self.receive(heads[0], heads[0])
        assert self.is_cached(heads[0])

    def test_expired(self) -> None:
        """A page is sent until it is stale, and says how much is left; a stale one never is."""
        head = self.stored(PAGE)
        self.clock.advance(1800 - caching.MAX_AGE)
        assert b"max-age=60\r\n" in self.receive(head)
        self.clock.advance(50)
        assert b"max-age=10\r\n" in self.receive(head)
        assert self.is_cached(head)
        self.clock.advance(10)
        self.agent.at(INDEX_PAGE, OSError())
        for _ in range(3):
            assert not self.is_cached(head)

    def test_heads(self) -> None:
        """No head is stored after which the connection closes, or with which something comes."""
        for head in (
            written("GET", PAGE, "Connection: close"),
            written("GET", PAGE).replace(b"HTTP/1.1", b"HTTP/1.0"),
            written("GET", PAGE, "Content-Length: 0"),
            written("GET", PAGE, "Expect: 100-continue"),
            written("GET", PAGE, "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        ):
            for _ in range(3):
                assert b" 200 OK\r\n" in self.receive(head)
            assert not self.is_cached(head), head

    def test_several(self) -> None:
        """Several heads in one packet get a response each; the body of a request gets none."""
        head = self.stored(PAGE)
        for _ in range(3):
            assert self.receive(head + head + head).count(b"HTTP/1.1 200 OK") == 3
        assert self.response_cache.find(head * 3, self.clock.seconds()) is None
        post = written("POST", PAGE, f"Content-Length: {len(head)}")
        client = self.connect()
        self.receive(post, head, client=client)
        assert client.received.count(b"HTTP/1.1") == 1
        assert self.receive(head, client=client).startswith(b"HTTP/1.1 200 ")

    def test_connections(self) -> None:
        """Refused connections, those during a drain, and TLS get nothing from the cache."""
        head = self.stored(PAGE)
        over_tls = self.connect(tls=True)
        self.put(ResponseCache, "count", None)  # it would fail
        assert self.receive(head, client=over_tls).startswith(b"HTTP/1.1 200 ")
        refused = self.connect()
        refused.channel.admitted = False
        assert self.receive(head, client=refused).startswith(b"HTTP/1.1 503 ")
        late = self.connect()
        self.limiter.drain(5)
        assert self.receive(head, client=late) == b""


targets = *(PAGE, PAGE + SMALL, PAGE + LARGE) * 2, "/index/none/", "/health", "/simple/demo"
fields = (
    *(JSON, "Accept-Encoding: gzip", "If-None-Match: *", "User-Agent: pip/99"),
    *("Range: bytes=0-99", "Range: bytes=-8192", "Range: bytes=9999999-"),
)
heads = st.builds(
    lambda method, target, fields, end: written(method, target, *fields) + end,
    st.sampled_from(("GET", "GET", "GET", "GET", "HEAD", "OPTIONS")),
    st.sampled_from(targets),
    st.lists(st.sampled_from(fields), max_size=2, unique=True),
    st.sampled_from((b"", b"", b"", b"", b"\r\n")),
)
cuts = st.sampled_from(((), (), (), (), (1,), (30, 50), (9, 40, 90)))
events = st.sampled_from(
    ("", "", "", "", "", "read", "read", "invalidate", "remove", "touch", "expire", "connect")
)
# Of few heads, so that they find what is stored.
traffics = st.lists(heads, min_size=2, max_size=3).flatmap(
    lambda few: st.lists(st.tuples(st.sampled_from(few), cuts, events), min_size=10, max_size=30)
)


class SameBytes(CacheCase):
    def play(self, traffic: list[Any], capacity: int | None, *, stores: bool) -> list[bytes]:
        """Send all of it to a new proxpi, and give what each connection received."""
        self.tearDown()
        self.doCleanups()
        if not stores:
            self.put(ResponseCache, "store", lambda *_, **__: None)
        self.setUp()
        clients, unread = [self.connect(capacity=capacity)], 0.0
        for head, cut_at, event in traffic:
            for begin, end in pairwise((0, *cut_at, len(head))):
                clients[-1].send(head[begin:end])
            match event:
                case "read":
                    clients[-1].read(1000)
                case "connect":
                    clients.append(self.connect(capacity=capacity))
                case "invalidate":
                    self.pages.invalidate("demo")
                case "remove":
                    self.mirror.delete("demo", SMALL)
                case "touch":
                    os.utime(self.place(LARGE))
                case "expire":
                    unread += 9
                    if unread >= STALL_TIMEOUT:  # clients that read nothing are dropped then
                        for client in clients:
                            client.receive()
                        unread = 9
                    self.clock.advance(9)
                case _:
                    clients[-1].receive()
        for client in clients:
            client.receive()
        return [undated(client.received) for client in clients]

    @settings(max_examples=16, deadline=None)
    @given(traffics, st.sampled_from((None, 4096)))
    def test_same_bytes(self, traffic: list[Any], capacity: int | None) -> None:
        """Cut anywhere, on connections that are read at any rate."""
        with_cache = self.play(traffic * 2, capacity, stores=True)
        assert with_cache == self.play(traffic * 2, capacity, stores=False)
