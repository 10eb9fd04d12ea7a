"""Files as clients see them: whole, conditional, a range, a redirect, or while they arrive."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import unquote

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError

from proxpi.web.transfer import BUFFER, CHUNK
from tests.support.agent import Reply
from tests.support.archives import METADATA, WHEEL
from tests.support.cases import FILES, INDEX, JSON, MIB, PRIVATE_INDEX, ProxpiCase, sha256
from tests.support.exchange import Exchange, Response

NAME = "demo-1.0-py3-none-any.whl"
PATH = f"/index/demo/{NAME}"
DATA = bytes(range(256)) * 4
SIZE = len(DATA)
ETAG = f'"{sha256(DATA)}"'
CACHING = {"etag": ETAG, "cache-control": "public, max-age=31536000, immutable"}
LARGE = os.urandom(2 * MIB)
LARGE_ETAG = f'"{sha256(LARGE)}"'
WRONG = LARGE[:-1] + bytes([LARGE[-1] ^ 1])


class FileCase(ProxpiCase):
    """Tests of an index that lists one wheel, which the upstream has."""

    def setUp(self) -> None:
        super().setUp()
        self.serve(NAME, DATA)

    def warm(self) -> None:
        assert self.get(PATH).body == DATA
        self.agent.asked.clear()

    def start(self, method: str = "GET", *headers: str, capacity: int | None = None) -> Exchange:
        exchange = self.connect(capacity=capacity)
        exchange.ask(method, PATH, *headers)
        return exchange

    def assert_caching(self, response: Response) -> None:
        """Check the header fields of a file that never changes."""
        assert response.headers | CACHING == response.headers

    def assert_nothing_left(self) -> None:
        """Check that no file is open, no timer runs, and no error was logged."""
        self.clock.advance(0)
        assert self.open_files() == []
        assert self.clock.getDelayedCalls() == []
        assert self.unhandled() == []


class Whole(FileCase):
    def test_miss_then_hit(self) -> None:
        """The first client gets it through the cache, the next ones from it; an empty one too."""
        for data in (b"", DATA):
            self.pages.invalidate("demo")
            self.mirror.delete("demo", NAME)
            self.serve(NAME, data)
            self.agent.asked.clear()
            for expected in ("MISS", "HIT", "HIT"):
                response = self.get(PATH)
                assert (response.status, response.body) == (200, data)
                assert response.headers["x-cache"] == expected
                assert response.headers["content-length"] == str(len(data))
                assert response.headers["accept-ranges"] == "bytes"
            assert self.agent.urls() == [INDEX + "demo/", FILES + NAME]
        self.assert_caching(response)
        assert self.open_files() == []

    def test_unverified(self) -> None:
        """A file without a hash says so, cold and warm, and to ``HEAD``."""
        self.serve("bare-1.0.whl", DATA, hashes={})
        self.pages.invalidate("demo")
        for method in ("HEAD", "GET", "GET", "HEAD"):
            response = self.ask(method, "/index/demo/bare-1.0.whl")
            assert (response.status, response.headers["x-verified"]) == (200, "no")
            assert response.headers["cache-control"] == "public, max-age=60"
            tag = response.headers.get("etag")
        unchanged = self.get("/index/demo/bare-1.0.whl", f"If-None-Match: {tag}")
        assert (unchanged.status, unchanged.headers["cache-control"]) == (304, "public, max-age=60")
        self.serve(NAME, DATA)
        self.pages.invalidate("demo")
        assert "x-verified" not in self.get(PATH).headers

    def test_unverified_beside_a_folder(self) -> None:
        """A file without a hash is revalidated at the pace of web servers, not of folders."""
        self.build(index=f"file://{self.new_folder()}", ttl=10.0, extra=INDEX)
        self.serve("bare-1.0.whl", DATA, Reply(200, DATA, {"ETag": '"1"'}), hashes={})
        self.get("/index/demo/bare-1.0.whl")
        self.clock.advance(100)
        self.agent.asked.clear()
        assert self.get("/index/demo/bare-1.0.whl").headers["x-cache"] == "HIT"
        assert FILES + "bare-1.0.whl" not in self.agent.urls()

    def test_types(self) -> None:
        """The type is guessed by the name, or fixed; a file never has a ``Content-Encoding``."""
        octets = "application/octet-stream"
        for name, expected in {
            "demo-1.0.tar.gz": "application/x-tar+gzip",
            "demo-1.0.tar.bz2": "application/x-tar+bzip2",
            "demo-1.0.zip": "application/zip",
            "demo-1.0.egg": octets,
            "demo-1.0.gz": octets,
            "Demo%201.0%20(new).exe": None,
            "d%c3%a9mo": octets,
            "README": octets,
        }.items():
            for any_type in (False, True):
                self.build(any_type=any_type)
                self.pages.invalidate("demo")
                self.serve(unquote(name), DATA, url=f"{FILES}{sha256(name.encode())}")
                response = self.get(f"/index/demo/{name}", "Accept-Encoding: gzip, br")
                assert response.body == DATA, name
                assert "content-encoding" not in response.headers
                if any_type or expected:
                    assert response.headers["content-type"] == (octets if any_type else expected)

    def test_metadata(self) -> None:
        """Advertised core metadata is served with its digest as tag; else it is a 404."""
        assert self.get(f"{PATH}.metadata").status == 404
        self.pages.invalidate("demo")
        self.serve(NAME, DATA, metadata={"sha256": sha256(METADATA)})
        self.agent.at(f"{FILES}{NAME}.metadata", Reply(200, METADATA))
        tag = f'"{sha256(METADATA)}"'
        assert self.get(f"{PATH}.metadata", f"If-None-Match: {tag}").status == 304
        for expected in ("MISS", "HIT"):
            response = self.get(f"{PATH}.metadata")
            assert (response.status, response.body) == (200, METADATA)
            assert (response.headers["x-cache"], response.headers["etag"]) == (expected, tag)
        head = self.ask("HEAD", f"{PATH}.metadata")
        assert head.headers["content-length"] == str(len(METADATA))


class Changing(ProxpiCase):
    """A file that may change under its name: the description of the variants of wheels."""

    NAME = "demo-1.0-variants.json"
    PATH = f"/index/demo/{NAME}"
    OLD, NEW = b'{"variants": {}}', b'{"variants": {"x": {}}}'

    def setUp(self) -> None:
        super().setUp()
        self.serve(self.NAME, self.OLD)
        assert self.get(self.PATH).body == self.OLD
        self.agent.asked.clear()

    def assert_kept(self, response: Response, seconds: int, data: bytes) -> None:
        """Check that a client may use these bytes for so long."""
        assert response.headers["cache-control"] == f"public, max-age={seconds}"
        assert response.headers["etag"] == f'"{sha256(data)}"'

    def test_fresh(self) -> None:
        """While its page is fresh it is a hit, for as long as the page is, and a minute at most."""
        for advance, left in ((0, 60), (1750, 50), (49.5, 0)):
            self.clock.advance(advance)
            for _ in range(2):
                response = self.get(self.PATH)
                assert (response.body, response.headers["x-cache"]) == (self.OLD, "HIT")
                assert response.headers["content-type"] == "application/json"
                self.assert_kept(response, left, self.OLD)
        for conditions in (("If-None-Match: *",), ("Range: bytes=0-0",)):
            self.assert_kept(self.get(self.PATH, *conditions), 0, self.OLD)
        self.assert_kept(self.ask("HEAD", self.PATH), 0, self.OLD)
        assert self.agent.asked == []

    def test_changed(self) -> None:
        """Once its page is stale, each kind of request finds the new bytes, cached or not."""
        for method, headers, status, size in (
            ("GET", [], 200, len(self.NEW)),
            ("HEAD", [], 200, 0),
            ("GET", ["Range: bytes=-4"], 206, 4),
            ("GET", [f'If-None-Match: "{sha256(self.OLD)}"'], 200, len(self.NEW)),
            ("GET", [f'If-None-Match: "{sha256(self.NEW)}"'], 304, 0),
        ):
            self.serve(self.NAME, self.OLD)
            self.pages.invalidate("demo")
            self.get(self.PATH)
            for _ in range(2):  # the second is answered by the response cache
                self.ask(method, self.PATH, *headers)
            self.serve(self.NAME, self.NEW)
            self.clock.advance(1799)
            self.assert_kept(self.get(self.PATH), 1, self.OLD)
            self.clock.advance(1)
            response = self.ask(method, self.PATH, *headers)
            assert (response.status, len(response.body)) == (status, size)
            self.assert_kept(response, 60, self.NEW)

    def test_unchanged(self) -> None:
        """A page that is confirmed confirms the file, which is not fetched again."""
        self.clock.advance(1800)
        response = self.get(self.PATH)
        assert (response.body, response.headers["x-cache"]) == (self.OLD, "HIT")
        self.assert_kept(response, 60, self.OLD)
        assert self.agent.urls() == [INDEX + "demo/"]

    def test_outage(self) -> None:
        """While its index fails, the cached bytes are served, and no client keeps them."""
        self.agent.at(INDEX + "demo/", ConnectionRefusedError())
        self.clock.advance(1800)
        for _ in range(2):
            response = self.ask("GET", self.PATH, within=5)
            assert response.body == self.OLD
            self.assert_kept(response, 0, self.OLD)

    def test_ahead_of_its_page(self) -> None:
        """An upstream with newer bytes than the page says has the page revalidated."""
        for stream, headers, body in (
            (False, [], self.NEW),
            (True, [], self.NEW),
            (False, ["Range: bytes=-4"], self.NEW[-4:]),
            (True, ["Range: bytes=-4"], self.NEW[-4:]),
        ):
            self.build(stream=stream)
            self.serve(self.NAME, self.OLD)
            self.pages.invalidate("demo")
            self.mirror.delete("demo", self.NAME)
            assert self.get("/index/demo/").status == 200
            self.serve(self.NAME, self.NEW)
            response = self.get(self.PATH, *headers)
            assert response.body == body
            self.assert_kept(response, 60, self.NEW)
            self.serve(self.NAME, self.OLD, Reply(200, self.NEW))
            self.pages.invalidate("demo")
            response = self.get(self.PATH)
            assert response.status == (503 if stream else 302)

    def test_without_a_digest(self) -> None:
        """Without a digest it is as fresh as its page as well, and says that it is unverified."""
        self.serve(self.NAME, self.OLD, hashes={})
        self.pages.invalidate("demo")
        for advance, left in ((0, 60), (1790, 10)):
            self.clock.advance(advance)
            response = self.get(self.PATH)
            assert response.headers["cache-control"] == f"public, max-age={left}"
            assert response.headers["x-verified"] == "no"


class NewKinds(FileCase):
    def test_served(self) -> None:
        """A kind of file that is not known yet is listed and served like any other."""
        for name in ("demo-1.0-1-py3-none-any-x86.whlx", "demo-1.0.future", "demo-1.0.json"):
            self.serve(name, DATA)
            self.pages.invalidate("demo")
            listed = json.loads(self.get("/index/demo/", f"Accept: {JSON}").body)["files"]
            assert [each["filename"] for each in listed] == [name]
            for expected in ("MISS", "HIT"):
                response = self.get(f"/index/demo/{name}")
                assert (response.body, response.headers["x-cache"]) == (DATA, expected)
                self.assert_caching(response)


class Extracted(FileCase):
    """Core metadata out of wheels whose index has none, as clients see it."""

    def page(self) -> Response:
        return self.get("/index/demo/", f"Accept: {JSON}")

    def test_advertised(self) -> None:
        """Metadata of a cached wheel is advertised and served, after DELETE and restart as well."""
        url = f"{FILES}{NAME}"
        self.serve(NAME, WHEEL)
        before = [self.page() for _ in range(2)][-1]  # a hit, from the response cache
        assert self.get(PATH).body == WHEEL
        digest = sha256(METADATA)
        for restarts in (False, True):
            if restarts:
                self.build()
            page = self.page()
            (file,) = json.loads(page.body)["files"]
            assert file["core-metadata"] == {"sha256": digest}
            assert page.headers["etag"] != before.headers["etag"]
            html = self.get("/index/demo/").body.decode()
            assert f'data-core-metadata="sha256={digest}"' in html
            assert f'data-dist-info-metadata="sha256={digest}"' in html
            for expected in ("MISS", "HIT"):
                served = self.get(f"{PATH}.metadata")
                assert (served.body, served.headers["x-cache"]) == (METADATA, expected)
                assert served.headers["etag"] == f'"{digest}"'
            assert restarts or self.agent.urls().count(url) == 1
            assert self.ask("DELETE", f"/cache/demo/{NAME}").status == 200
        assert self.agent.urls().count(f"{url}.metadata") == 0


class Preconditions(FileCase):
    def test_if_none_match(self) -> None:
        """A matching tag is a 304 with the caching fields; nothing is fetched for it."""
        lists = (ETAG, f"W/{ETAG}", f'"a", W/{ETAG}')
        for capacity, cached in ((MIB, True), (MIB, False), (0, False)):
            self.build(capacity=capacity)
            self.result(Deferred.fromCoroutine(self.cache_dir.clear()))
            if cached:
                self.warm()
                for tag in ('"a"', "a", "", '"'):
                    assert self.get(PATH, f"If-None-Match: {tag}").status == 200, tag
                assert self.get(PATH, "If-None-Match: *").status == 304
            for tag in lists:
                for method in ("GET", "HEAD"):
                    asked = (f"If-None-Match: {tag}", "Range: bytes=0-1")
                    response = self.ask(method, PATH, *asked)
                    assert (response.status, response.body) == (304, b"")
                    self.assert_caching(response)
                    assert "content-type" not in response.headers
            assert FILES + NAME not in self.agent.urls() + self.agent.urls("HEAD")
        assert self.open_files() == []

    def test_if_match(self) -> None:
        """The file is sent if its tag matches strongly; otherwise it is a 412, without a fetch."""
        for cached in (False, True):
            for tag in ('"a"', f"W/{ETAG}", '"a", "b"', "a", ETAG.strip('"')[:9]):
                for more in ("X: y", "Range: bytes=0-1", f"If-None-Match: {ETAG}"):
                    for method in ("GET", "HEAD", "GET"):
                        response = self.ask(method, PATH, f"If-Match: {tag}", more)
                        assert response.status == 412, (cached, tag, more)
                        assert "max-age=31536000" not in response.headers.get("cache-control", "")
            assert FILES + NAME not in self.agent.urls()
            for tag in ("*", ETAG, f'"a", {ETAG}', f'{ETAG} , W/"a"'):
                assert self.get(PATH, f"If-Match: {tag}").body == DATA
                part = self.get(PATH, f"If-Match: {tag}", "Range: bytes=1-2")
                assert (part.status, part.body) == (206, DATA[1:3])
                assert self.ask("HEAD", PATH, f"If-Match: {tag}").status == 200
            self.agent.asked.clear()
        assert self.open_files() == []

    def test_several_lines(self) -> None:
        """Several lines of a field are one list."""
        self.warm()
        for field, tags, status in (
            ("If-None-Match", (ETAG, '"a"'), 304),
            ("If-Match", ('"a"', ETAG), 200),
            ("If-Match", ('"a"', '"b"'), 412),
        ):
            assert self.get(PATH, *(f"{field}: {tag}" for tag in tags)).status == status
        # A file has no date here, so this field is ignored (RFC 9110, 13.1.4).
        assert self.get(PATH, "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT").body == DATA


class Ranges(FileCase):
    def test_ranges(self) -> None:
        """One range gets its bytes, clamped; none of the file is a 416; others are ignored."""
        self.warm()
        cases = [
            *(("bytes=0-0", 206, 0, 1), ("bytes=10-19", 206, 10, 20), ("bytes=0-", 206, 0, SIZE)),
            *(("bytes=1000-", 206, 1000, SIZE), ("bytes=1000-99999", 206, 1000, SIZE)),
            *(("bytes=-10", 206, SIZE - 10, SIZE), ("bytes=-99999", 206, 0, SIZE)),
            *((asked, 416, 0, 0) for asked in (f"bytes={SIZE}-", "bytes=9999-10000", "bytes=-0")),
            *((asked, 200, 0, SIZE) for asked in ("bytes=0-1,5-6", "bytes=5-2", "lines=0-1", "")),
        ]
        for asked, status, start, stop in cases:
            response = self.get(PATH, f"Range: {asked}")
            assert response.status == status, asked
            content_range = response.headers.get("content-range")
            if status == 416:
                assert content_range == f"bytes */{SIZE}"
                assert "max-age=31536000" not in response.headers.get("cache-control", "")
                continue
            assert response.body == DATA[start:stop], asked
            assert content_range == (f"bytes {start}-{stop - 1}/{SIZE}" if status == 206 else None)
            self.assert_caching(response)
        for condition, status in {ETAG: 206, '"other"': 200, f"W/{ETAG}": 200}.items():
            response = self.get(PATH, "Range: bytes=0-1", f"If-Range: {condition}")
            assert response.status == status, condition
        assert self.open_files() == []


class Heads(FileCase):
    """``HEAD`` equals the ``GET`` of a cached file without the body."""

    def test_equals_get(self) -> None:
        """``HEAD`` equals ``GET``, cold and warm, without a download, also with ``Range``."""
        heads = [self.ask("HEAD", PATH)]
        assert self.agent.urls() == [INDEX + "demo/"]
        expected = dict(self.get(PATH).headers)
        heads += [self.ask("HEAD", PATH), self.ask("HEAD", PATH, "Range: bytes=0-1")]
        for head in heads:
            assert (head.status, head.body) == (200, b"")
            for varying in ("x-cache", "date"):
                head.headers[varying] = expected[varying]
            assert head.headers == expected
        self.build(capacity=0)
        assert self.ask("HEAD", PATH).headers["content-length"] == str(SIZE)
        assert self.open_files() == []


class Redirects(FileCase):
    """When a client is redirected upstream, and when it gets a status."""

    def test_timeout(self) -> None:
        """At its deadline the client is redirected; the download continues."""
        url = FILES + NAME + "?signature=a%2Fb"
        slow = Reply(200, b"", whole=False, length=SIZE)
        self.serve(NAME, DATA, slow, url=url)
        exchange = self.start()
        assert exchange.answer() is None
        self.clock.advance(0.9)
        response = exchange.response()
        assert (response.status, response.headers["location"]) == (302, url)
        assert response.headers["content-length"] == "0"
        assert response.headers["cache-control"] == "no-store"
        slow.bring(DATA)
        slow.end()
        assert self.get(PATH).headers["x-cache"] == "HIT"

    def test_upstream_fails(self) -> None:
        """If the upstream fails, the client is redirected, without credentials."""
        for reply in (Reply(503), Reply(403), ConnectionRefusedError()):
            self.serve(NAME, DATA, url=f"https://user:secret@files.example/{NAME}")
            self.agent.at(f"https://files.example/{NAME}", reply)
            response = self.get(PATH)
            assert response.status == 302
            assert response.headers["location"] == f"https://files.example/{NAME}"

    def test_behind_credentials(self) -> None:
        """Behind credentials there is no redirect: the client waits, or gets a status."""
        self.build(index=PRIVATE_INDEX)
        for reply, status in ((Reply(503), 503), (Reply(401), 502), (Reply(403), 502)):
            self.serve(NAME, DATA, reply)
            response = self.get(PATH)
            assert (response.status, "location" in response.headers) == (status, False)
            assert "secret" not in response.text
        slow = Reply(200, b"", whole=False, length=SIZE)
        self.serve(NAME, DATA, slow)
        exchange = self.start()
        self.clock.advance(10)
        assert exchange.answer() is None
        slow.bring(DATA)
        slow.end()
        assert exchange.response().body == DATA

    def test_not_found(self) -> None:
        """A file that no server has, no page lists, or no name can be, is a 404."""
        for name in ("..%2f..%2fetc%2fpasswd", "a%00.whl", "x" * 10_000, "%ff", "a/b", "%2e%2e"):
            assert self.get(f"/index/demo/{name}").status == 404, name[:20]
        assert self.agent.asked == []
        self.serve(NAME, DATA, Reply(404))
        for method in ("GET", "HEAD"):
            for path in ("/index/demo/other.whl", "/index/other/other.whl"):
                assert self.ask(method, path).status == 404
        gone = self.get(PATH)
        assert (gone.status, "not there" in gone.text) == (404, True)

    def test_page_fails(self) -> None:
        """A file whose page cannot be had is a 503."""
        self.agent.at(INDEX + "demo/", Reply(503))
        for method in ("GET", "HEAD"):
            response = self.ask(method, PATH, within=10)
            assert (response.status, response.headers["retry-after"]) == (503, "5")

    def test_client_disconnects(self) -> None:
        """The download goes on without its client, and no error is logged."""
        slow = Reply(200, b"", whole=False, length=SIZE)
        self.serve(NAME, DATA, slow)
        self.start().hang_up()
        slow.bring(DATA)
        slow.end()
        self.assert_nothing_left()
        assert self.get(PATH).headers["x-cache"] == "HIT"


class StreamCase(FileCase):
    """Tests without redirects, of a large file that arrives piece by piece."""

    def setUp(self) -> None:
        super().setUp()
        self.build(stream=True)
        self.serve_slowly()

    def serve_slowly(self, *more: Reply, size: int | None = len(LARGE), **keys: Any) -> None:
        self.reply = Reply(200, b"", whole=False, length=size)
        self.pages.invalidate("demo")
        self.serve(NAME, LARGE, self.reply, *more, size=size, **keys)

    def begin(self, *headers: str, version: str = "1.1") -> Exchange:
        """Send a request for it, and let the first 1000 bytes arrive."""
        exchange = self.connect()
        lines = (f"GET {PATH} HTTP/{version}", "Host: proxpi.example", *headers, "", "")
        exchange.send("\r\n".join(lines).encode())
        self.reply.bring(LARGE[:1000])
        return exchange

    def finish(self, data: bytes = LARGE) -> None:
        self.reply.bring(data[1000:])
        self.reply.end()

    def assert_whole(self, exchange: Exchange) -> None:
        """Check that the response is whole, and no file is left open."""
        response = exchange.response()
        assert (response.status, response.body == LARGE, response.whole) == (200, True, True)
        self.clock.advance(0)
        assert self.open_files() == []

    def assert_cut(self, exchange: Exchange) -> None:
        """Check that the client cannot take the response for a whole one."""
        response = exchange.answer()
        self.clock.advance(0)
        assert exchange.aborted
        assert response is None or not response.whole
        assert self.open_files() == []


class Streaming(StreamCase):
    """The head and the first bytes are sent with the first bytes from upstream."""

    def test_at_once(self) -> None:
        """The head of a whole file, and its first bytes; the connection serves on."""
        exchange = self.begin()
        head, _, body = exchange.receive().partition(b"\r\n\r\n")
        assert body == LARGE[:1000]
        lines = ("HTTP/1.1 200 OK", f"Content-Length: {len(LARGE)}", f"ETag: {LARGE_ETAG}")
        for line in (*lines, "X-Cache: MISS", "Accept-Ranges: bytes"):
            assert line.encode() in head.splitlines(), line
        assert self.get(PATH, f"If-None-Match: {LARGE_ETAG}").status == 304
        self.finish()
        self.assert_whole(exchange)
        exchange.ask("GET", "/health")
        assert exchange.response().status == 200
        assert self.get(PATH).headers["x-cache"] == "HIT"
        exchange.hang_up()
        self.assert_nothing_left()

    def test_wrong(self) -> None:
        """A wrong file is never a whole response, whether its length was announced or not."""
        for length, version in ((len(LARGE), "1.1"), (len(LARGE), "1.0"), (None, "1.1")):
            self.serve_slowly(Reply(503), size=length)
            exchange = self.begin(version=version)
            self.clock.advance(0)
            self.finish(WRONG)
            self.assert_cut(exchange)
            assert self.leftovers() == []

    def test_length_unknown(self) -> None:
        """Without a length the response is chunked; a client of HTTP/1.0 waits for the whole."""
        self.serve_slowly(size=None)
        exchange = self.begin()
        assert b"transfer-encoding: chunked" in exchange.receive().lower()
        self.finish()
        self.assert_whole(exchange)
        for data, status in ((LARGE, 200), (WRONG, 503)):
            self.mirror.delete("demo", NAME)
            self.serve_slowly(Reply(503), size=None)
            exchange = self.begin(version="1.0")
            assert exchange.receive() == b""
            self.finish(data)
            assert exchange.response().status == status
        self.build(stream=True, capacity=0)
        self.serve_slowly(size=None)
        exchange = self.begin(version="1.0")
        self.finish()
        assert exchange.response().status == 502

    def test_if_match(self) -> None:
        """Another file is a 412 without a fetch; so is one whose digest is not known yet."""
        response = self.get(PATH, 'If-Match: "other"')
        assert (response.status, self.agent.urls()[1:]) == (412, [])
        self.serve_slowly(hashes={})
        assert self.begin(f"If-Match: {LARGE_ETAG}").response().status == 412
        self.finish()
        assert self.get(PATH, f"If-Match: {LARGE_ETAG}").status == 200
        assert self.open_files() == []


class Backpressure(StreamCase):
    def test_bounded(self) -> None:
        """The unsent bytes of a slow client are at most a buffer and a chunk."""
        slow, fast = self.start(capacity=4096), self.start()
        self.reply.bring(LARGE[:-1])
        assert slow.channel.output.unsent <= BUFFER + CHUNK
        fast.receive()
        self.reply.bring(LARGE[-1:])
        self.reply.end()
        assert slow.channel.output.unsent <= BUFFER + CHUNK
        self.assert_whole(slow)
        assert fast.response().body == LARGE

    def test_slow_upstream(self) -> None:
        """A client that waits for a slow upstream does not stall."""
        exchange = self.begin()
        for sent in range(1000, 1200, 10):
            exchange.receive()
            self.clock.pump([1.0] * 15)
            self.reply.bring(LARGE[sent : sent + 10])
        assert (exchange.receive()[-10:], exchange.closed) == (LARGE[1190:1200], False)


class RangeMisses(StreamCase):
    def serve_range(self, start: int, stop: int) -> None:
        headers = {"Content-Range": f"bytes {start}-{stop - 1}/{len(LARGE)}"}
        self.serve(NAME, LARGE, Reply(206, LARGE[start:stop], headers))

    def test_pass_through(self) -> None:
        """Every single range is requested with both ends, and passes through, in both modes."""
        size = len(LARGE)
        for stream in (False, True):
            self.build(stream=stream)
            for asked, start, stop in (
                *(("0-0", 0, 1), ("1000-1999", 1000, 2000), (f"{size - 10}-", size - 10, size)),
                *((f"{size - 10}-99999999", size - 10, size), ("-16384", size - 16384, size)),
            ):
                self.serve_range(start, stop)
                response = self.get(PATH, f"Range: bytes={asked}", f"If-Range: {LARGE_ETAG}")
                assert (response.status, response.body == LARGE[start:stop]) == (206, True), asked
                assert response.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
                assert response.headers["content-length"] == str(stop - start)
                assert (response.headers["etag"], response.headers["x-cache"]) == (
                    LARGE_ETAG,
                    "MISS",
                )
                assert self.agent.asked[-1].header("Range") == f"bytes={start}-{stop - 1}"
            self.serve(NAME, LARGE)
            self.agent.asked.clear()
            for asked in (f"{size}-", f"{size + 5}-{size + 9}", "-0"):
                response = self.get(PATH, f"Range: bytes={asked}")
                assert response.status == 416, asked
                assert response.headers["content-range"] == f"bytes */{size}"
            assert self.agent.urls() == []
        self.assert_nothing_left()

    def test_cut(self) -> None:
        """A range whose rest never arrives is cut off."""
        self.build()
        headers = {"Content-Range": f"bytes 0-1999/{len(LARGE)}"}
        self.reply = Reply(206, b"", headers, whole=False, length=2000)
        self.serve(NAME, LARGE, self.reply)
        exchange = self.begin("Range: bytes=0-1999")
        self.reply.cut()
        self.assert_cut(exchange)
