"""Files as clients see them: whole, in part, unchanged, or elsewhere."""

from __future__ import annotations

import pytest

from proxpi.web.files import content_type
from tests.support.house import FILES, INDEX, PRIVATE_INDEX, HouseCase, sha256
from tests.support.internet import Reply, Silence

NAME = "demo-1.0-py3-none-any.whl"
PATH = f"/index/demo/{NAME}"
DATA = bytes(range(256)) * 4
SIZE = len(DATA)
CACHING = {
    "etag": f'"{sha256(DATA)}"',
    "cache-control": "public, max-age=31536000, immutable",
    "accept-ranges": "bytes",
}


class FileCase(HouseCase):
    """Tests of an index that lists one wheel, which the upstream has."""

    def setUp(self) -> None:
        """List it."""
        super().setUp()
        self.serve(NAME, DATA)

    def warm(self) -> None:
        """Let it be on disk."""
        assert self.get(PATH).body == DATA
        self.internet.asked.clear()


class Whole(FileCase):
    """The file, all of it."""

    def test_cold_then_warm(self) -> None:
        """The first client gets it through the cache, the next ones from it."""
        for expected in ("MISS", "HIT", "HIT"):
            answer = self.get(PATH)
            assert (answer.status, answer.body) == (200, DATA)
            assert answer.headers["x-cache"] == expected
            assert answer.headers | CACHING == answer.headers
            assert "content-encoding" not in answer.headers
        assert self.internet.urls() == [INDEX + "demo/", FILES + NAME]
        assert self.open_files() == []

    def test_unverified(self) -> None:
        """A file that no hash vouches for says so, cold and warm, and to ``HEAD``."""
        self.serve("bare-1.0.whl", DATA, hashes={})
        self.pages.invalidate("demo")
        for method in ("HEAD", "GET", "GET", "HEAD"):
            answer = self.ask(method, "/index/demo/bare-1.0.whl")
            assert (answer.status, answer.headers["x-verified"]) == (200, "no")
            assert answer.headers["cache-control"] == "public, max-age=60"
            tag = answer.headers.get("etag")
        unchanged = self.get("/index/demo/bare-1.0.whl", f"If-None-Match: {tag}")
        assert unchanged.status == 304
        assert unchanged.headers["cache-control"] == "public, max-age=60"
        self.serve(NAME, DATA)
        self.pages.invalidate("demo")
        assert "x-verified" not in self.get(PATH).headers

    def test_stateless(self) -> None:
        """No page has to be asked first, whatever the spelling, and no spelling is redirected."""
        self.serve("demo-1.0+cpu.whl", DATA, url=FILES + "demo-1.0%2Bcpu.whl")
        for path in (
            "/index/demo/demo-1.0+cpu.whl",
            "/index/demo/demo-1.0%2Bcpu.whl",
            "/simple/demo/demo-1.0%2bcpu.whl",
            "//index//Demo//demo-1.0+cpu.whl",
            "/index/DEMO/demo-1.0+cpu.whl?x=y",
            "http://proxpi.example/index/demo/demo-1.0+cpu.whl",
        ):
            answer = self.get(path)
            assert (answer.status, answer.body) == (200, DATA), path

    def test_no_coding(self) -> None:
        """A file is never encoded, whatever the client would take."""
        for name, kind in [("demo-1.0.tar.gz", "application/x-tar+gzip"), (NAME, None)]:
            self.serve(name, DATA)
            self.pages.invalidate("demo")
            answer = self.get(f"/index/demo/{name}", "Accept-Encoding: gzip, br")
            assert "content-encoding" not in answer.headers
            assert answer.body == DATA
            if kind is not None:
                assert answer.headers["content-type"] == kind

    def test_one_type_for_all(self) -> None:
        """On request every file has the type of bytes."""
        self.build(any_type=True)
        self.serve("demo-1.0.tar.gz", DATA)
        answer = self.get("/index/demo/demo-1.0.tar.gz")
        assert answer.headers["content-type"] == "application/octet-stream"

    def test_empty_file(self) -> None:
        """A file without bytes is an answer without bytes."""
        self.serve("demo-0.tar.gz", b"")
        for _ in range(2):
            answer = self.get("/index/demo/demo-0.tar.gz")
            assert (answer.status, answer.headers["content-length"]) == (200, "0")
        assert self.open_files() == []

    def test_unknown_kind(self) -> None:
        """Files of an unknown kind, and with odd names, are served like any other."""
        for name in ("demo-1.0.egg", "Demo 1.0 (new).exe", "démo", "README"):
            self.serve(name, DATA, url=f"{FILES}odd/{sha256(name.encode())}")
            self.pages.invalidate("demo")
            path = b"/index/demo/" + name.encode().replace(b" ", b"%20")
            quoted = b"".join(b"%%%02x" % byte if byte > 0x7F else bytes([byte]) for byte in path)
            assert self.get(quoted).body == DATA, name


class Unchanged(FileCase):
    """A client that has the file already."""

    def test_matching(self) -> None:
        """It gets a 304 that repeats the headers, and the file is let go of."""
        self.warm()
        for tag in (CACHING["etag"], "*", f'"a", W/{CACHING["etag"]}'):
            for method in ("GET", "HEAD"):
                answer = self.ask(method, PATH, f"If-None-Match: {tag}", "Range: bytes=0-1")
                assert (answer.status, answer.body) == (304, b"")
                for name in ("etag", "cache-control"):
                    assert answer.headers[name] == CACHING[name]
                assert "content-type" not in answer.headers
        assert self.open_files() == []

    def test_on_two_lines(self) -> None:
        """Two lines of ``If-None-Match`` are one list."""
        self.warm()
        lines = (f"If-None-Match: {CACHING['etag']}", 'If-None-Match: "a"')
        assert self.get(PATH, *lines).status == 304

    def test_not_cached(self) -> None:
        """A file that is not cached is not fetched for that, as the page names its digest."""
        for capacity in (100_000, 0):
            self.build(capacity=capacity)
            for tag in (CACHING["etag"], f"W/{CACHING['etag']}", f'"a", {CACHING["etag"]}'):
                for method in ("GET", "HEAD"):
                    answer = self.ask(method, PATH, f"If-None-Match: {tag}", "Range: bytes=0-1")
                    assert (answer.status, answer.body) == (304, b"")
                    for name in ("etag", "cache-control"):
                        assert answer.headers[name] == CACHING[name]
        assert FILES + NAME not in self.internet.urls() + self.internet.urls("HEAD")

    def test_not_cached_sidecar(self) -> None:
        """The same for core metadata whose digest is advertised."""
        metadata = b"Metadata-Version: 2.1\n"
        self.serve(NAME, DATA, metadata={"sha256": sha256(metadata)})
        answer = self.get(PATH + ".metadata", f'If-None-Match: "{sha256(metadata)}"')
        assert (answer.status, self.internet.urls()[1:]) == (304, [])

    def test_other(self) -> None:
        """Another tag, or something odd, is no match."""
        self.warm()
        for tag in ('"a"', "a", "", '"'):
            assert self.get(PATH, f"If-None-Match: {tag}").status == 200


class Matching(FileCase):
    """``If-Match`` (RFC 9110, 13.1.1): a client that wants this very file, or none."""

    def test_match(self) -> None:
        """This file, cached or not, is sent."""
        for tag in ("*", CACHING["etag"], f'"a", {CACHING["etag"]}', f'{CACHING["etag"]} , W/"a"'):
            for _ in ("cold", "warm", "warm"):
                assert self.get(PATH, f"If-Match: {tag}").body == DATA
                part = self.get(PATH, f"If-Match: {tag}", "Range: bytes=1-2")
                assert (part.status, part.body) == (206, DATA[1:3])
                assert self.ask("HEAD", PATH, f"If-Match: {tag}").status == 200
            self.mirror.forget("demo", NAME)

    def test_no_match(self) -> None:
        """Another file is a 412, cached or not, whatever else is asked for; none is fetched."""
        for cached in (False, True):
            if cached:
                self.warm()
                self.get(PATH)
            for tag in (
                '"a"',
                f"W/{CACHING['etag']}",
                '"a", "b"',
                "a",
                CACHING["etag"].strip('"')[:9],
            ):
                for more in ("X: y", "Range: bytes=0-1", f"If-None-Match: {CACHING['etag']}"):
                    for method in ("GET", "HEAD", "GET"):
                        answer = self.ask(method, PATH, f"If-Match: {tag}", more)
                        assert answer.status == 412, (cached, tag, more)
                        assert "max-age=31536000" not in answer.headers.get("cache-control", "")
            assert FILES + NAME not in self.internet.urls()
            if cached:
                assert self.get(PATH).body == DATA
        assert self.open_files() == []

    def test_several_lines(self) -> None:
        """Several lines are one list."""
        self.warm()
        for status, lines in ((200, ('"a"', CACHING["etag"])), (412, ('"a"', '"b"'))):
            assert self.get(PATH, *(f"If-Match: {tag}" for tag in lines)).status == status

    def test_unmodified_since(self) -> None:
        """A file has no date here, so ``If-Unmodified-Since`` is ignored (RFC 9110, 13.1.4)."""
        for date in ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 2094 08:49:37 GMT", "odd"):
            for _ in ("cold", "warm", "warm"):
                assert self.get(PATH, f"If-Unmodified-Since: {date}").body == DATA

    def test_page(self) -> None:
        """A page that is another one by now is a 412 as well."""
        tag = self.get("/index/demo/").headers["etag"]
        for _ in range(3):
            assert self.get("/index/demo/", f"If-Match: {tag}").status == 200
            answer = self.get("/index/demo/", 'If-Match: "a"')
            assert (answer.status, answer.body) == (412, b"")
            assert self.get("/index/demo/").status == 200


class Parts(FileCase):
    """Ranges (RFC 9110, section 14)."""

    def test_ranges(self) -> None:
        """A range is answered with exactly its bytes, clamped to the file."""
        self.warm()
        for asked, start, stop in [
            ("0-0", 0, 1),
            ("10-19", 10, 20),
            ("1000-", 1000, SIZE),
            ("1000-99999", 1000, SIZE),
            ("-10", SIZE - 10, SIZE),
            ("-99999", 0, SIZE),
            ("0-", 0, SIZE),
        ]:
            answer = self.get(PATH, f"Range: bytes={asked}")
            assert (answer.status, answer.body) == (206, DATA[start:stop]), asked
            assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}", asked
            assert answer.headers | CACHING == answer.headers
        assert self.open_files() == []

    def test_behind_the_end(self) -> None:
        """A range behind the end is a 416 that tells the length, and is not to be kept."""
        self.warm()
        for asked in (f"{SIZE}-", "99999-100000", "-0"):
            answer = self.get(PATH, f"Range: bytes={asked}")
            assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{SIZE}")
            assert "max-age=31536000" not in answer.headers.get("cache-control", "")
        assert self.open_files() == []

    def test_not_understood(self) -> None:
        """What is no single range of bytes is overlooked."""
        self.warm()
        for asked in ("bytes=0-1,5-6", "bytes=5-2", "bytes=a-b", "lines=0-1", "bytes", ""):
            answer = self.get(PATH, f"Range: {asked}")
            assert (answer.status, answer.body) == (200, DATA), asked
            assert "content-range" not in answer.headers

    def test_if_range(self) -> None:
        """A range is for those who have this very file."""
        self.warm()
        for condition, status in [
            (CACHING["etag"], 206),
            ('"other"', 200),
            (f"W/{CACHING['etag']}", 200),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 200),
        ]:
            answer = self.get(PATH, "Range: bytes=0-1", f"If-Range: {condition}")
            assert answer.status == status, condition

    def test_cold(self) -> None:
        """From an upstream that knows no ranges the file is had, and then the part of it."""
        answer = self.get(PATH, "Range: bytes=-2")
        assert (answer.status, answer.body) == (206, DATA[-2:])


class Heads(FileCase):
    """``HEAD`` equals the ``GET`` of a cached file without the body."""

    def assert_head(self, *headers: str) -> None:
        """Check that."""
        head = self.ask("HEAD", PATH, *headers)
        assert (head.status, head.body) == (200, b"")
        expected = dict(self.get(PATH).headers)
        for fields in (head.headers, expected):
            for varying in ("x-cache", "date"):
                fields.pop(varying)
        assert head.headers == expected

    def test_warm(self) -> None:
        """It is not a range, either."""
        self.warm()
        self.assert_head()
        self.assert_head("Range: bytes=0-1")
        assert self.open_files() == []

    def test_cold(self) -> None:
        """A file that is not here yet has its true length, and no download begins."""
        head = self.ask("HEAD", PATH)
        assert (head.status, head.headers["content-length"]) == (200, str(SIZE))
        assert self.internet.urls() == [INDEX + "demo/"]
        self.assert_head()

    def test_never_a_redirect(self) -> None:
        """Not even for a file that cannot be kept, or takes long."""
        self.build(capacity=0)
        assert self.ask("HEAD", PATH).headers["content-length"] == str(SIZE)

    def test_asked_upstream(self) -> None:
        """Without a size on the page the upstream tells it, however long that takes."""
        silence = Silence()
        self.serve(NAME, DATA, silence, size=None)
        exchange = self.connect()
        exchange.ask("HEAD", PATH)
        self.clock.advance(5)
        assert exchange.answer() is None
        silence.answer(Reply(200, b"", length=SIZE))
        answer = exchange.answer()
        assert answer is not None
        assert (answer.status, answer.headers["content-length"]) == (200, str(SIZE))
        assert answer.headers | CACHING == answer.headers

    def test_digest_unknown(self) -> None:
        """A tag that is not known is not made up."""
        self.serve(NAME, DATA, hashes={})
        assert "etag" not in self.ask("HEAD", PATH).headers

    def test_client_goes_away(self) -> None:
        """A client that does not wait leaves nothing behind, and nothing went wrong."""
        silence = Silence()
        self.serve(NAME, DATA, silence, size=None)
        exchange = self.connect()
        exchange.ask("HEAD", PATH)
        exchange.hang_up()
        assert self.clock.getDelayedCalls() == []
        assert self.unhandled() == []

    def test_failing(self) -> None:
        """An upstream that fails is a failure here."""
        for reply, status in [(Reply(404), 404), (Reply(503), 503), (Reply(403), 502)]:
            self.build(index=PRIVATE_INDEX)
            self.serve(NAME, DATA, reply, size=None)
            assert self.ask("HEAD", PATH).status == status


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("x.tar.gz", "application/x-tar+gzip"),
        ("x.tgz", "application/x-tar+gzip"),
        ("x.tar.bz2", "application/x-tar+bzip2"),
        ("x.tar.xz", "application/x-tar+xz"),
        ("x.zip", "application/zip"),
        ("x.whl.metadata", "application/octet-stream"),
        ("x.gz", "application/octet-stream"),
        ("noname", "application/octet-stream"),
    ],
)
def test_content_type(filename: str, expected: str) -> None:
    """The type is guessed by the name, and never as an encoding."""
    assert content_type(filename) == expected
