"""The tree of pages as clients see it: forms, caching, redirects, methods, failures."""

from __future__ import annotations

import gzip
import json
import re

from twisted.internet.error import ConnectionRefusedError

from proxpi.web import transfer
from tests.support.exchange import Response
from tests.support.house import INDEX, JSON, PRIVATE_INDEX, HouseCase, entry, page
from tests.support.internet import Reply, Silence

V1_HTML = "application/vnd.pypi.simple.v1+html"
PIP = f"Accept: {JSON}, {V1_HTML}; q=0.1, text/html; q=0.01"
PAGE = "/index/demo/"
VARY = "Accept, Accept-Encoding"


def root_list(*names: str) -> Reply:
    """The answer of an index that has these projects."""
    document = {"meta": {"api-version": "1.1"}, "projects": [{"name": name} for name in names]}
    return Reply(200, json.dumps(document).encode(), {"Content-Type": JSON})


class PageCase(HouseCase):
    """Tests of an index that has one project with one file."""

    def setUp(self) -> None:
        """List it."""
        super().setUp()
        self.internet.at(INDEX + "demo/", page(entry("demo-1.0.tar.gz", b"sdist")))
        self.internet.at(INDEX, root_list("demo", "Other_One"))


class Forms(PageCase):
    """Which form a client gets."""

    def test_types(self) -> None:
        """The form follows ``Accept``, several lines of it being one, and ``?format=``."""
        for headers, expected in [
            ([], "text/html"),
            (["Accept: */*"], "text/html"),
            (["Accept: text/html"], "text/html"),
            ([PIP], JSON),
            ([f"Accept: {V1_HTML}"], V1_HTML),
            (["Accept: application/vnd.pypi.simple.latest+json"], JSON),
            (["Accept: text/html;q=0.5", f"Accept: {JSON}"], JSON),
        ]:
            for path in (PAGE, "/index/", "/simple/demo/"):
                assert self.get(path, *headers).headers["content-type"] == expected

    def test_format(self) -> None:
        """``?format=`` precedes the header; the last one counts."""
        for query in (
            "application/vnd.pypi.simple.v1%2Bjson",
            "application/vnd.pypi.simple.v1+json",
            f"text/html&format={JSON.replace('+', '%2B')}",
        ):
            answer = self.get(f"{PAGE}?format={query}", "Accept: text/html")
            assert answer.headers["content-type"] == JSON
        assert self.get(f"{PAGE}?format=%ff").headers["content-type"] == "text/html"

    def test_content(self) -> None:
        """Both forms list the file, by a link that is relative to the page."""
        [listed] = json.loads(self.get(PAGE, PIP).body)["files"]
        assert listed["url"] == "demo-1.0.tar.gz"
        assert 'href="demo-1.0.tar.gz#sha256=' in self.get(PAGE).text

    def test_none_acceptable(self) -> None:
        """A client that takes none of the forms is told which there are."""
        for path in (PAGE, "/index/"):
            for method in ("GET", "HEAD"):
                answer = self.ask(method, path, "Accept: image/png")
                assert (answer.status, answer.headers["vary"]) == (406, VARY)
        assert JSON in self.get(PAGE, "Accept: image/png").text
        assert self.internet.urls() == []

    def test_gzip(self) -> None:
        """Who takes gzip gets it, under a tag of its own."""
        plain, compressed = self.get(PAGE), self.get(PAGE, "Accept-Encoding: br, GZIP")
        assert "content-encoding" not in plain.headers
        assert compressed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(compressed.body) == plain.body
        assert compressed.headers["etag"] != plain.headers["etag"]
        refusing = self.get(PAGE, "Accept-Encoding: gzip;q=0, *;q=0")
        assert refusing.body == plain.body

    def test_head(self) -> None:
        """``HEAD`` is the ``GET`` without its body, for each form, in each coding."""
        for path in (PAGE, "/index/"):
            for headers in ([], [PIP], ["Accept-Encoding: gzip"]):
                self.get(path, *headers)
                full, head = self.get(path, *headers), self.ask("HEAD", path, *headers)
                date = {"date": full.headers["date"]}  # each is the second in which it was sent
                assert (head.status, {**head.headers, **date}) == (200, full.headers)
                assert int(head.headers["content-length"]) == len(full.body)


class Caching(PageCase):
    """What a client may do with a page."""

    def test_headers(self) -> None:
        """A page says how long it is fresh, how it was chosen, and what it is."""
        self.get(PAGE)
        self.clock.advance(1790)
        answer = self.get(PAGE)
        assert answer.headers["cache-control"] == "public, max-age=10"
        assert answer.headers["vary"] == VARY
        assert answer.headers["x-cache"] == "HIT"
        assert re.search(r'^"[^"]+"$', answer.headers["etag"])
        assert "date" in answer.headers
        assert "last-modified" not in answer.headers
        assert "age" not in answer.headers

    def test_hit_and_miss(self) -> None:
        """What the upstream was asked for is a miss; the rest is a hit."""
        for path in (PAGE, "/index/"):
            said = [self.get(path).headers["x-cache"] for _ in range(3)]
            assert said == ["MISS", "HIT", "HIT"]

    def test_unchanged(self) -> None:
        """A client that has the page gets a 304 that repeats the headers, and no type."""
        for path in (PAGE, "/index/"):
            for form in ([], ["Accept-Encoding: gzip"], [PIP]):
                self.get(path, *form)
                full = self.get(path, *form)
                etag = full.headers["etag"]
                for tag in (etag, f"W/{etag}", f'"a", {etag}', "*"):
                    for method in ("GET", "HEAD"):
                        answer = self.ask(method, path, *form, f"If-None-Match: {tag}")
                        assert (answer.status, answer.body) == (304, b"")
                        for name in ("etag", "cache-control", "vary", "x-cache"):
                            assert answer.headers[name] == full.headers[name]
                        assert "date" in answer.headers
                        for name in ("content-type", "content-length", "content-encoding"):
                            assert name not in answer.headers

    def test_tags_on_two_lines(self) -> None:
        """Two lines of ``If-None-Match`` are one list."""
        etag = self.get(PAGE).headers["etag"]
        for lines in (('"a"', etag), (etag, '"a"')):
            answer = self.get(PAGE, *(f"If-None-Match: {line}" for line in lines))
            assert answer.status == 304

    def test_tag_of_another_form(self) -> None:
        """The tag of one form is not that of another."""
        etag = self.get(PAGE).headers["etag"]
        assert self.get(PAGE, PIP, f"If-None-Match: {etag}").status == 200

    def test_stale(self) -> None:
        """In an outage a page is stale, says so and its age, and is not to be kept."""
        self.get(PAGE)
        self.internet.at(INDEX + "demo/", ConnectionRefusedError())
        self.clock.advance(2000)
        answer = self.ask("GET", PAGE, within=1)
        assert (answer.status, answer.headers["x-cache"]) == (200, "STALE")
        assert answer.headers["age"] == "2000"
        caching = answer.headers["cache-control"]
        assert caching.endswith("max-age=0, must-revalidate"), caching

    def test_revalidated(self) -> None:
        """A page that the index confirms says so."""
        reply = page(entry("demo-1.0.tar.gz", b"sdist"))
        reply.headers["ETag"] = '"1"'
        self.internet.at(INDEX + "demo/", reply, Reply(304))
        self.get(PAGE)
        self.clock.advance(2000)
        assert self.get(PAGE).headers["x-cache"] == "REVALIDATED"


class Moved(PageCase):
    """Pages have one URL."""

    def test_redirects(self) -> None:
        """Any other spelling leads to it, by a relative link that keeps the query."""
        for path, location in [
            ("/index", "index/"),
            ("/index/demo", "demo/"),
            ("/index/De.Mo?format=a%2Bb", "de-mo/?format=a%2Bb"),
            ("/simple/De_Mo/?x=1&y", "../de-mo/?x=1&y"),
            ("/index/demo?", "demo/?"),
        ]:
            for method in ("GET", "HEAD"):
                answer = self.ask(method, path)
                assert (answer.status, answer.headers["location"]) == (301, location)
                assert answer.headers["content-length"] == "0"
        assert self.internet.asked == []

    def test_whole_url(self) -> None:
        """A request with the whole URL, as proxies get it, is the same request."""
        for url in ("http://proxpi.example:5000/index/demo/", "HTTP://other/index/demo/"):
            assert self.get(url).status == 200
        answer = self.get("http://proxpi.example/index/demo?x=http://y/z")
        assert answer.headers["location"] == "demo/?x=http://y/z"


class Methods(PageCase):
    """An index is for reading."""

    PATHS = ("/index/", "/index", PAGE, "/index/demo", PAGE + "demo-1.0.tar.gz", "/simple/")

    def test_options(self) -> None:
        """``OPTIONS`` says what may be done."""
        for path in self.PATHS:
            answer = self.ask("OPTIONS", path)
            assert (answer.status, answer.body) == (204, b"")
            assert answer.headers["allow"] == "GET, HEAD, OPTIONS"

    def test_others(self) -> None:
        """Every other method is refused; a publisher must not believe in a success."""
        for path in self.PATHS:
            for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"):
                answer = self.ask(method, path, body="x")
                assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert self.internet.asked == []


class Failures(PageCase):
    """What a client is told when there is no page."""

    index = INDEX

    def failing(self, *replies: Reply | Exception | Silence) -> Response:
        """Ask for a page whose index answers so."""
        self.internet.at(INDEX + "gone/", *replies)
        self.build(index=self.index)
        return self.ask("GET", "/index/gone/", within=10)

    def assert_plain(self, answer: Response) -> None:
        """Check that it is one plain line, of its length."""
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert int(answer.headers["content-length"]) == len(answer.body)
        assert answer.text.count("\n") == 1
        assert answer.headers["vary"] == VARY

    def test_unknown(self) -> None:
        """A project that no index has is a 404, then without asking."""
        for _ in range(3):
            answer = self.get("/index/gone/")
            assert answer.status == 404
            self.assert_plain(answer)
        assert len(self.internet.asked) == 1
        assert self.ask("HEAD", "/index/gone/").status == 404

    def test_no_name(self) -> None:
        """What cannot be a project is a 404 that no upstream hears of."""
        for path in ("/index/-x/", "/index/%ff/", "/index/a%2Fb/", "/index/..%2f/", "/index/a%00/"):
            assert self.get(path).status == 404
        assert self.internet.asked == []

    def test_outage(self) -> None:
        """An outage is a 503 that says when to come again."""
        for reply in (ConnectionRefusedError(), Reply(500), Reply(503), Reply(429)):
            answer = self.failing(reply)
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
            self.assert_plain(answer)

    def test_retry_after(self) -> None:
        """The upstream's own word is passed on, between a second and thirty."""
        for said, expected in [("17", "17"), ("0", "1"), ("86400", "30"), ("nonsense", "5")]:
            answer = self.failing(Reply(503, headers={"Retry-After": said}))
            assert answer.headers["retry-after"] == expected

    def test_rejected(self) -> None:
        """What waiting does not mend is a 502, without a time to come again."""
        for reply in (Reply(401), Reply(302, headers={"Location": "ftp://x/"}), Reply(400)):
            answer = self.failing(reply)
            assert answer.status == 502
            assert "retry-after" not in answer.headers
            self.assert_plain(answer)

    def test_no_index_page(self) -> None:
        """A page that is none is a 502."""
        assert self.failing(Reply(200, b"hello", {"Content-Type": JSON})).status == 502

    def test_no_credentials(self) -> None:
        """A failure names the index without its credentials."""
        self.index = PRIVATE_INDEX
        answer = self.failing(Reply(401))
        assert "index.example" in answer.text
        assert "secret" not in answer.text
        assert "user" not in answer.text

    def test_list(self) -> None:
        """The list fails like a page."""
        self.internet.at(INDEX, Reply(503))
        answer = self.ask("GET", "/index/", within=10)
        assert answer.status == 503
        self.assert_plain(answer)

    def test_client_goes_away(self) -> None:
        """A client that does not wait for its page stops nothing, and nothing goes wrong."""
        silence = Silence()
        self.internet.at(INDEX + "demo/", silence)
        leaving, staying = self.connect(), self.connect()
        for exchange in (leaving, staying):
            exchange.ask("GET", PAGE)
        leaving.hang_up()
        silence.answer(page(entry("demo-1.0.tar.gz", b"sdist")))
        answer = staying.answer()
        assert answer is not None
        assert answer.status == 200
        assert self.unhandled() == []


class LongPages(PageCase):
    """Pages too long to be written at once."""

    def test_long_page(self) -> None:
        """A long page goes out whole, as fast as the client takes it."""
        entries = [entry(f"demo-{number}.tar.gz", b"sdist") for number in range(4000)]
        self.internet.at(INDEX + "demo/", page(*entries))
        answer = self.get(PAGE, PIP)
        assert len(answer.body) > transfer.AT_ONCE
        assert len(json.loads(answer.body)["files"]) == 4000
        exchange = self.connect()
        exchange.ask("GET", PAGE, PIP)
        assert len(exchange.wire.unsent) < len(answer.body)
        assert exchange.answer().body == answer.body  # type: ignore[union-attr]

    def test_list_replaced_meanwhile(self) -> None:
        """A list that is replaced while it is sent is sent as it was."""
        names = [f"project-{number}" for number in range(20_000)]
        self.internet.at(INDEX, root_list(*names), root_list("other"))
        exchange = self.connect()
        exchange.ask("GET", "/index/", PIP)
        self.projects.invalidate()
        assert json.loads(self.get("/index/", PIP).body)["projects"] == [{"name": "other"}]
        answer = exchange.answer()
        assert answer is not None and answer.whole
        assert len(json.loads(answer.body)["projects"]) == 20_000

    def test_list_to_a_client_that_goes_away(self) -> None:
        """A list of which a client took only a part leaves no file open but its own."""
        self.internet.at(INDEX, root_list(*(f"project-{number}" for number in range(20_000))))
        self.get("/index/")
        before = len(self.open_files())
        exchange = self.connect()
        exchange.ask("GET", "/index/")
        assert len(self.open_files()) == before + 1
        exchange.hang_up()
        assert len(self.open_files()) == before
