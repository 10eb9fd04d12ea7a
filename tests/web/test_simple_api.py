"""Pages and the project list as clients see them: representations, caching, failures."""

from __future__ import annotations

import gzip
import json
import re

from twisted.internet.error import ConnectionRefusedError

from proxpi.web import transfer
from tests.support.agent import Reply, Silence
from tests.support.cases import INDEX, JSON, PRIVATE_INDEX, ProxpiCase, entry, page, root_list
from tests.support.exchange import Response

V1_HTML = "application/vnd.pypi.simple.v1+html"
PIP = f"Accept: {JSON}, {V1_HTML}; q=0.1, text/html; q=0.01"
PAGE = "/index/demo/"
VARY = "Accept, Accept-Encoding"
SDIST = entry("demo-1.0.tar.gz", b"sdist")
LONG_LIST = [f"project-{number}" for number in range(20_000)]


class PageCase(ProxpiCase):
    """Tests of an index that has one project with one file."""

    def setUp(self) -> None:
        super().setUp()
        self.agent.at(INDEX + "demo/", page(SDIST))
        self.agent.at(INDEX, root_list(["demo", "Other_One"]))


class Representations(PageCase):
    def test_types(self) -> None:
        """``?format=`` precedes ``Accept``, whose lines are one list; the last one counts."""
        html: list[str] = ["Accept: text/html"]
        for query, headers, expected in (
            *(("", [], "text/html"), ("", [PIP], JSON), ("", [f"Accept: {V1_HTML}"], V1_HTML)),
            ("", ["Accept: text/html;q=0.5", f"Accept: {JSON}"], JSON),
            *((f"?format={JSON.replace('+', '%2B')}", html, JSON), (f"?format={JSON}", html, JSON)),
            *((f"?format=text/html&format={JSON}", html, JSON), ("?format=%ff", html, "text/html")),
        ):
            for path in (PAGE, "/index/", "/simple/demo/"):
                assert self.get(path + query, *headers).headers["content-type"] == expected

    def test_not_acceptable(self) -> None:
        """A client that accepts no representation gets a list of them."""
        for path in (PAGE, "/index/"):
            for method in ("GET", "HEAD"):
                response = self.ask(method, path, "Accept: image/png")
                assert (response.status, response.headers["vary"]) == (406, VARY)
        assert JSON in self.get(PAGE, "Accept: image/png").text
        assert self.agent.urls() == []

    def test_head(self) -> None:
        """``HEAD`` is the ``GET`` without its body."""
        for path in (PAGE, "/index/"):
            for headers in ([], [PIP], ["Accept-Encoding: gzip"]):
                self.get(path, *headers)
                full, head = self.get(path, *headers), self.ask("HEAD", path, *headers)
                head.headers["date"] = full.headers["date"]
                assert (head.status, head.headers) == (200, full.headers)
                assert int(head.headers["content-length"]) == len(full.body)

    def test_gzip(self) -> None:
        """A client that accepts gzip gets it, with a tag of its own."""
        plain, compressed = self.get(PAGE), self.get(PAGE, "Accept-Encoding: br, GZIP")
        assert "content-encoding" not in plain.headers
        assert compressed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(compressed.body) == plain.body
        assert compressed.headers["etag"] != plain.headers["etag"]
        assert self.get(PAGE, "Accept-Encoding: gzip;q=0, *;q=0").body == plain.body


class Caching(PageCase):
    def test_headers(self) -> None:
        """A page states its freshness, what it varies with, and its tag."""
        for path in (PAGE, "/index/"):
            said = [self.get(path).headers["x-cache"] for _ in range(3)]
            assert said == ["MISS", "HIT", "HIT"]
        self.clock.advance(1790)
        headers = self.get(PAGE).headers
        assert headers["cache-control"] == "public, max-age=10"
        assert (headers["vary"], headers["x-cache"]) == (VARY, "HIT")
        assert re.search(r'^"[^"]+"$', headers["etag"])
        assert "date" in headers
        assert not {"last-modified", "age"} & set(headers)

    def test_if_none_match(self) -> None:
        """A client that has the page gets a 304 that repeats the fields, and no type."""
        for path in (PAGE, "/index/"):
            for variant in ([], ["Accept-Encoding: gzip"], [PIP]):
                self.get(path, *variant)
                full = self.get(path, *variant)
                etag = full.headers["etag"]
                same = {
                    key: full.headers[key] for key in ("etag", "cache-control", "vary", "x-cache")
                }
                for tags in ([etag], [f"W/{etag}"], [f'"a", {etag}'], ["*"], ['"a"', etag]):
                    fields = [f"If-None-Match: {tag}" for tag in tags]
                    for method in ("GET", "HEAD"):
                        response = self.ask(method, path, *variant, *fields)
                        assert (response.status, response.body) == (304, b"")
                        assert (
                            response.headers.items() >= same.items() and "date" in response.headers
                        )
                        assert not [
                            name for name in response.headers if name.startswith("content-")
                        ]
        json_tag = self.get(PAGE, PIP).headers["etag"]
        assert self.get(PAGE, f"If-None-Match: {json_tag}").status == 200

    def test_if_match(self) -> None:
        """A page that has changed since is a 412."""
        tag = self.get(PAGE).headers["etag"]
        for _ in range(3):
            assert self.get(PAGE, f"If-Match: {tag}").status == 200
            response = self.get(PAGE, 'If-Match: "a"')
            assert (response.status, response.body) == (412, b"")
            assert self.get(PAGE).status == 200

    def test_stale(self) -> None:
        """In an outage a page is stale, states its age, and is not to be kept."""
        self.get(PAGE)
        self.agent.at(INDEX + "demo/", ConnectionRefusedError())
        self.clock.advance(2000)
        response = self.ask("GET", PAGE, within=1)
        assert (response.status, response.headers["x-cache"]) == (200, "STALE")
        assert response.headers["age"] == "2000"
        assert response.headers["cache-control"] == "max-age=0, must-revalidate"

    def test_refresh(self) -> None:
        """A client that wants a page or list to be revalidated now gets that; others get hits."""
        pip = 'User-Agent: pip/26.1 {"installer":{"name":"pip"}}'
        newer = pip.replace("26.1", "26.2"), "Cache-Control: max-age=0"
        self.agent.at(INDEX + "demo/", page(SDIST).having(ETag='"1"'))
        self.agent.at(INDEX, root_list(["demo"]).having(ETag='"1"'))
        for path, url in ((PAGE, INDEX + "demo/"), ("/index/", INDEX)):
            tag = self.get(path).headers["etag"]
            self.agent.conditional = Reply(304)
            for headers in (
                ["Cache-Control: no-cache"],
                ["Cache-Control: no-cache", f"If-None-Match: {tag}"],
                [*newer],
            ):
                self.clock.advance(10)
                asked = self.agent.count(url)
                for other in (
                    [pip, "Cache-Control: max-age=0"],
                    ["Cache-Control: max-age=0"],
                    ["Pragma: no-cache"],
                ):
                    assert self.get(path, *other).headers["x-cache"] == "HIT"
                assert self.agent.count(url) == asked
                response = self.get(path, *headers)
                assert response.status == (304 if len(headers) == 2 and tag in headers[1] else 200)
                assert response.headers["x-cache"] == "REVALIDATED"
                assert response.headers["cache-control"] == "public, max-age=60"
                assert self.agent.asked[-1].header("If-None-Match") == '"1"'
                assert self.get(path, *headers).headers["x-cache"] == "HIT"
                assert self.agent.count(url) == asked + 1

    def test_refresh_fails(self) -> None:
        """If a refresh fails, its client gets the page or list as a stale one, with its age."""
        for path, url in ((PAGE, INDEX + "demo/"), ("/index/", INDEX)):
            self.get(path)
            self.agent.at(url, ConnectionRefusedError())
            self.clock.advance(10)
            response = self.ask("GET", path, "Cache-Control: no-cache", within=1)
            assert (response.status, response.headers["x-cache"]) == (200, "STALE")
            assert response.headers["age"] == "10"
            assert self.get(path).headers["x-cache"] == "HIT"
            self.clock.advance(30)

    def test_revalidated(self) -> None:
        """A page that the index confirms says so."""
        reply = page(SDIST)
        reply.headers["ETag"] = '"1"'
        self.agent.at(INDEX + "demo/", reply, Reply(304))
        self.get(PAGE)
        self.clock.advance(2000)
        assert self.get(PAGE).headers["x-cache"] == "REVALIDATED"


class UrlsAndMethods(PageCase):
    def test_redirects(self) -> None:
        """Any other spelling is redirected, by a relative URL that keeps the query."""
        for path, location in {
            "/index": "index/",
            "/index/demo": "demo/",
            "/index/De.Mo?format=a%2Bb": "de-mo/?format=a%2Bb",
            "/simple/De_Mo/?x=1&y": "../de-mo/?x=1&y",
            "/index/demo?": "demo/?",
            "http://proxpi.example/index/demo?x=http://y/z": "demo/?x=http://y/z",
        }.items():
            for method in ("GET", "HEAD"):
                response = self.ask(method, path)
                assert (response.status, response.headers["location"]) == (301, location)
                assert response.headers["content-length"] == "0"
        assert self.agent.asked == []
        for url in ("http://proxpi.example:5000/index/demo/", "HTTP://other/index/demo/"):
            assert self.get(url).status == 200

    def test_methods(self) -> None:
        """``OPTIONS`` lists the methods; any other is a 405: no publisher sees a success."""
        for path in ("/index/", "/index", PAGE, "/index/demo", PAGE + "x-1.0.tar.gz", "/simple/"):
            response = self.ask("OPTIONS", path)
            assert (response.status, response.body) == (204, b"")
            assert response.headers["allow"] == "GET, HEAD, OPTIONS"
            for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"):
                response = self.ask(method, path, body="x")
                assert (response.status, response.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert self.agent.asked == []


class Failures(PageCase):
    def failing(self, reply: Reply | Exception, index: str = INDEX) -> Response:
        """Request a page whose index fails so; the response is one plain line."""
        self.agent.at(INDEX + "gone/", reply)
        self.build(index=index)
        response = self.ask("GET", "/index/gone/", within=10)
        self.assert_plain(response)
        return response

    def assert_plain(self, response: Response) -> None:
        """Check that a response is one plain line, of its length."""
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert int(response.headers["content-length"]) == len(response.body)
        assert response.text.count("\n") == 1
        assert response.headers["vary"] == VARY

    def test_not_found(self) -> None:
        """An unknown project is a 404, requested upstream once; a malformed one never."""
        for path in ("/index/-x/", "/index/%ff/", "/index/a%2Fb/", "/index/..%2f/", "/index/a%00/"):
            assert self.get(path).status == 404
        assert self.agent.asked == []
        for _ in range(3):
            response = self.get("/index/gone/")
            assert response.status == 404
            self.assert_plain(response)
        assert self.ask("HEAD", "/index/gone/").status == 404
        assert len(self.agent.asked) == 1

    def test_upstream_fails(self) -> None:
        """An outage is a 503 with ``Retry-After``; what waiting does not mend is a 502."""
        said = {"17": "17", "86400": "30", "nonsense": "5"}
        cases: list[tuple[Reply | Exception, int, str | None]] = [
            *((reply, 503, "5") for reply in (ConnectionRefusedError(), Reply(500), Reply(429))),
            *((Reply(503, headers={"Retry-After": each}), 503, said[each]) for each in said),
            *((Reply(401), 502, None), (Reply(400), 502, None)),
            (Reply(302, headers={"Location": "ftp://x/"}), 502, None),
            (Reply(200, b"hello", {"Content-Type": JSON}), 502, None),
        ]
        for reply, status, retry_after in cases:
            response = self.failing(reply)
            assert (response.status, response.headers.get("retry-after")) == (status, retry_after)
        response = self.failing(Reply(401), PRIVATE_INDEX)
        assert "index.example" in response.text
        assert "secret" not in response.text and "user" not in response.text
        self.agent.at(INDEX, Reply(503))
        response = self.ask("GET", "/index/", within=10)
        assert response.status == 503
        self.assert_plain(response)

    def test_client_disconnects(self) -> None:
        """A client that disconnects cancels nothing for another, and no error is logged."""
        silence = Silence()
        self.agent.at(INDEX + "demo/", silence)
        leaving, staying = self.connect(), self.connect()
        for exchange in (leaving, staying):
            exchange.ask("GET", PAGE)
        leaving.hang_up()
        silence.answer(page(SDIST))
        assert staying.response().status == 200
        assert self.unhandled() == []


class Long(PageCase):
    def test_page(self) -> None:
        """A long page is sent whole, with backpressure."""
        entries = [entry(f"demo-{number}.tar.gz", b"sdist") for number in range(4000)]
        self.agent.at(INDEX + "demo/", page(*entries))
        response = self.get(PAGE, PIP)
        assert len(response.body) > transfer.AT_ONCE
        assert len(json.loads(response.body)["files"]) == 4000
        exchange = self.connect(capacity=4096)
        exchange.ask("GET", PAGE, PIP)
        assert len(exchange.read()) < len(response.body)
        assert exchange.response().body == response.body

    def test_list(self) -> None:
        """A list that is replaced while it is sent is sent as it was, and its file closed."""
        self.agent.at(INDEX, root_list(LONG_LIST), root_list(["other"]))
        self.get("/index/", PIP)
        before = len(self.open_files())
        exchange, leaving = self.connect(), self.connect()
        for each in (exchange, leaving):
            each.ask("GET", "/index/", PIP)
        assert len(self.open_files()) == before + 2
        leaving.hang_up()
        assert len(self.open_files()) == before + 1
        self.projects.invalidate()
        assert json.loads(self.get("/index/", PIP).body)["projects"] == [{"name": "other"}]
        response = exchange.response()
        assert response.whole
        assert len(json.loads(response.body)["projects"]) == 20_000
