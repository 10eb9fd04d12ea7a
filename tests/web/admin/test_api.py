"""The Klein resource: cache API, forms, health, metrics, and URLs that name nothing."""

from __future__ import annotations

import json
import os
import warnings
from typing import Any, ClassVar

from tests.support.agent import Reply, Silence
from tests.support.cases import FILES, INDEX, ProxpiCase, entry, page, root_list, sha256
from tests.support.counted import Counted, samples
from tests.support.exchange import HOST

SUCCESS = {"status": "success", "data": None}
REBOUND = ("Origin: http://evil.example:5000", "Host: evil.example:5000")
OTHER_SITES = (
    *(["Sec-Fetch-Site: cross-site"], ["Origin: http://evil.example"], [f"Origin: http://{HOST}0"]),
    *([*REBOUND], ["Sec-Fetch-Site: same-origin", REBOUND[1]]),
)
OWN_SITE: tuple[list[str], ...] = (
    *([], [REBOUND[1]], ["Sec-Fetch-Site: same-origin"], [f"Origin: http://{HOST}"]),
)
FORM = "Content-Type: application/x-www-form-urlencoded"
NAME = "demo-1.0-py3-none-any.whl"
DATA = b"a wheel " * 1000
METADATA = b"Metadata-Version: 2.1\n"
PATH = f"/index/demo/{NAME}"
OTHER, LOCAL = "demo-1.0+local.tar.gz", "demo/demo-1.0%2Blocal.tar.gz"
PATHS = (PATH, f"{PATH}.metadata", f"{PATH}.asc", f"/index/demo/{OTHER}")
PAGES = ("/index/", "/index/demo/", "/index/de-mo/", "/index/list/")


class ApiCase(ProxpiCase):
    """Tests of an index with three projects; one has a wheel, its metadata and its signature."""

    def setUp(self) -> None:
        super().setUp()
        self.agent.at(INDEX, root_list(["demo", "list"]))
        for name in ("list", "de-mo"):
            self.agent.at(f"{INDEX}{name}/", page(entry("x.whl", b"x"), name=name))
        keys: dict[str, Any] = {"metadata": {"sha256": sha256(METADATA)}, "gpg-sig": True}
        other = entry(OTHER, b"other", url=FILES + "demo-1.0%2Blocal.tar.gz")
        self.agent.at(INDEX + "demo/", page(entry(NAME, DATA, **keys), other))
        for suffix, data in (("", DATA), (".metadata", METADATA), (".asc", b"signed")):
            self.agent.at(FILES + NAME + suffix, Reply(200, data))
        self.agent.at(other["url"], Reply(200, b"other"))

    def fill(self) -> None:
        for path in (*PAGES, *PATHS):
            assert self.get(path).status == 200, path

    def asked(self, path: str) -> bool:
        self.agent.asked.clear()
        assert self.get(path).status == 200
        return bool(self.agent.asked)

    def cached(self) -> list[bool]:
        return [self.mirror.ready("demo", path[12:]) is not None for path in PATHS]

    def files(self) -> list[str]:
        """Return the names of all files in the folder but those of proxpi's own state."""
        found = [path for path in self.folder.rglob("*") if path.is_file()]
        return sorted(path.name for path in found if path.suffix != ".json")

    def delete(self, path: str, *headers: str, status: int = 200) -> str:
        """Send a ``DELETE``; return the message of the error, if it is one."""
        response = self.ask("DELETE", path, *headers)
        assert response.status == status, path
        assert response.headers["content-type"] == "application/json"
        assert int(response.headers["content-length"]) == len(response.body)
        said = json.loads(response.body)
        if status == 200:
            assert said == SUCCESS
            return ""
        assert said["status"] == "error"
        return str(said["message"])


class DeletePages(ApiCase):
    def test_invalidated(self) -> None:
        """A project in any spelling, or the list, is requested anew; nothing else is."""
        for path, invalidated in {
            "/cache/de-mo": {"/index/de-mo/"},
            "/cache/De.Mo": {"/index/de-mo/"},
            "/cache/%64E__MO": {"/index/de-mo/"},
            "/cache/list": {"/index/", "/index/list/"},
            "/cache/unknown": set[str](),
        }.items():
            self.fill()
            self.delete(path)
            assert {each for each in PAGES if self.asked(each)} == invalidated, path
        self.agent.at(INDEX, Reply(503))
        self.delete("/cache/list")

    def test_no_name(self) -> None:
        """A text that can be no name is an error, which does not repeat it."""
        for name in ("-x", "a%20b", "x" * 10_000, "%00", "<b>", "-x/x.whl", "a%20b/x.whl"):
            assert "<b>" not in self.delete(f"/cache/{name}", status=404)
        for name in ("demo/%00", "demo/a%5Cb", "demo/" + "x" * 3000):
            self.delete(f"/cache/{name}", status=404)
        assert "project name" in self.delete("/cache/-x", status=404)

    def test_not_quite(self) -> None:
        """A URL that is almost one of the cache API deletes nothing."""
        paths = (
            *("/cache/", "/cache//", "//cache", "/cache?", "/cache?x", "/cache/?x", "/%63ache"),
            *("/cache/%20", "/cache/%2F", "/cache/%2f%2F", "/cache/.", "/cache/./", "/cache/.."),
            *("/cache//demo", "/cache/demo/", "/cache/demo//", "/cache/demo%2F", "//cache/demo"),
            *("/cache/list/", "/cache/list%2F", "/cache//list", "/x/../cache", "/cache/a/b/c"),
            *("/cache/demo/x.whl/", "/cache/demo//x.whl", "/cache/demo/%2F", "/cache/demo/."),
            *("/cache/demo/..", "/cache/demo/../", "/cache/%2e", "/cache/*"),
        )
        self.fill()
        for path in paths:
            assert self.ask("DELETE", path).status == 404, path
        assert not any(self.asked(path) for path in (*PAGES, *PATHS))

    def test_other_sites(self) -> None:
        """A page of another site changes nothing by any request; this site's pages may."""
        changes = [
            *(("DELETE", path) for path in ("/cache", "/cache/demo", "/cache/list")),
            ("DELETE", f"/cache/demo/{NAME}"),
            *(("POST", path) for path in ("/admin/forget-project", "/admin/forget-list")),
        ]
        self.fill()
        for headers in OTHER_SITES:
            for method, path in changes:
                response = self.ask(method, path, FORM, *headers, body="project=demo")
                assert (response.status, json.loads(response.body)["status"]) == (403, "error")
                assert ("PROXPI_HOSTS" in response.text) == (REBOUND[1] in headers)
        assert not any(self.asked(path) for path in (*PAGES, *PATHS))
        for headers in OWN_SITE:
            for method, path in changes:
                self.fill()
                response = self.ask(method, path, FORM, *headers, body="project=demo")
                assert response.status in (200, 303), headers
                assert any(self.asked(path) for path in ("/index/", "/index/demo/", PATH))


class DeleteFile(ApiCase):
    def test_deleted(self) -> None:
        """A file in any spelling goes, with its metadata and signature; nothing else does."""
        for path, cached in {
            f"demo/{NAME}": [False, False, False, True],
            f"%64Emo/{NAME}": [False, False, False, True],
            f"demo/{NAME}.metadata": [True, False, True, True],
            f"demo/{OTHER}": [True, True, True, False],
            LOCAL: [True, True, True, False],
            "demo/x.whl": [True] * 4,
            "unknown/x.whl": [True] * 4,
        }.items():
            self.fill()
            self.agent.asked.clear()
            self.delete(f"/cache/{path}")
            assert (self.cached(), self.agent.asked) == (cached, []), path
            assert (NAME in self.files()) == cached[0]
        assert not self.asked("/index/demo/")

    def test_page_unknown(self) -> None:
        """Without its page a file is found by its name, encoded or not, and on earlier hosts."""
        earlier = self.folder / "old-example" / NAME
        for name in (NAME, OTHER, "demo-1.0%2blocal.tar.gz"):
            self.fill()
            earlier.parent.mkdir(exist_ok=True)
            earlier.write_bytes(DATA)
            self.cache_dir.prepare()
            self.result(self.pages.clear())
            self.delete(f"/cache/demo/{name}")
            found = [name == NAME, name != NAME]
            assert [any(part in file for file in self.files()) for part in ("local", NAME)] == found

    def test_during_the_download(self) -> None:
        """Its waiting clients get it, it is not cached, and the next client starts anew."""
        first, second = Silence(), Silence()
        self.agent.at(FILES + NAME, first, second)
        waiting, later = self.connect(), self.connect()
        waiting.ask("GET", PATH)
        self.delete(f"/cache/demo/{NAME}")
        later.ask("GET", PATH)
        assert self.agent.urls().count(FILES + NAME) == 2
        first.answer(Reply(200, DATA))
        assert waiting.response().body == DATA
        assert later.answer() is None
        assert self.cached() == [False] * 4
        second.answer(Reply(200, DATA))
        assert later.response().body == DATA
        assert self.cached()[0]
        self.clock.advance(0)

    def test_disk_refuses(self) -> None:
        """If the disk refuses, the message says so."""
        self.fill()

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        self.put(os, "rename", refuse)
        assert "Permission denied" in self.delete(f"/cache/demo/{NAME}", status=503)


class DeleteAll(ApiCase):
    def test_for_good(self) -> None:
        """Pages, list and files go, and none is a fallback, after a restart neither."""
        self.fill()
        foreign = [self.folder / "readme.txt", self.folder / "Their Folder" / "x.whl"]
        for file in foreign:
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(b"x")
        self.delete("/cache")
        assert self.files() == ["readme.txt", "x.whl"]
        for path in (*PAGES, *PATHS):
            assert self.asked(path), path
        self.delete("/cache")
        for url in (INDEX, INDEX + "demo/", FILES + NAME):
            self.agent.at(url, Reply(503))
        for _ in range(2):
            for path in ("/index/", "/index/demo/", PATH):
                assert self.ask("GET", path, within=20).status == 503
            self.build()

    def test_requests_under_way(self) -> None:
        """A waiting client gets its old response, which is not stored."""
        for url, path, old, new in (
            (INDEX, "/index/", root_list(["old"]), root_list(["new"])),
            (INDEX + "demo/", "/index/demo/", page(entry("old", b"x")), page(entry("new", b"x"))),
            (FILES + NAME, PATH, Reply(200, DATA), Reply(200, DATA)),
        ):
            self.setUp()
            if path == PATH:
                self.get("/index/demo/")
            silence = Silence()
            self.agent.at(url, silence, new)
            waiting = self.connect()
            waiting.ask("GET", path)
            self.delete("/cache")
            silence.answer(old)
            self.clock.pump([0.5] * 8)
            body = waiting.response().body
            assert body == DATA if path == PATH else b"old" in body
            assert self.files() == []
            response = self.get(path)
            assert response.headers["x-cache"] == "MISS"
            assert path == PATH or b"new" in response.body


class Forms(ApiCase):
    def test_redirects(self) -> None:
        """A form does what ``DELETE`` does, and redirects to the page by a relative URL."""
        for path, body, asked in (
            ("forget-project", "project=+De.Mo+", "/index/de-mo/"),
            ("forget-list", "", "/index/"),
        ):
            self.fill()
            response = self.ask("POST", f"/admin/{path}", FORM, body=body)
            assert (response.status, response.headers["location"][:9]) == (303, "../?done=")
            assert self.asked(asked)

    def test_no_name(self) -> None:
        """A text that can be no project's name is an error."""
        for body in ("", "project=", "other=demo", "project=-x", "project=%FF", "x" * 60_000):
            response = self.ask("POST", "/admin/forget-project", FORM, body=body)
            assert (response.status, json.loads(response.body)["status"]) == (400, "error")


class HealthAndMetrics(ApiCase):
    def test_health(self) -> None:
        """``/health`` responds at once, in any spelling, even if the upstream is silent."""
        self.agent.at(INDEX + "demo/", Silence())
        waiting = self.connect()
        waiting.ask("GET", "/index/demo/")
        for path in ("/health", "/health/", "//health", "/health?x", "http://h.example/health"):
            response, head = self.get(path), self.ask("HEAD", path)
            assert (response.status, json.loads(response.body)) == (200, SUCCESS)
            assert response.headers["content-type"] == "application/json"
            assert int(response.headers["content-length"]) == len(response.body)
            assert (head.status, head.headers) == (200, response.headers)
        assert waiting.answer() is None

    def test_metrics(self) -> None:
        """The metrics are text for Prometheus, and count hits, misses and redirects of files."""
        before = samples(self.get("/metrics").text)
        for _ in range(3):
            assert self.get(PATH).status == 200
        response = self.get("/metrics")
        assert (response.status, response.headers["content-type"][:10]) == (200, "text/plain")
        now = samples(response.text)
        for cache, count in (("hit", 2), ("miss", 1)):
            name = f"proxpi_requests_total{{kind=file,outcome={cache}}}"
            assert now[name] - before.get(name, 0.0) == count
        assert now["process_open_fds"] > 0
        counted = Counted()
        self.serve("x-1.0.whl", b"bytes", Reply(503))
        self.pages.invalidate("demo")
        assert self.get("/index/demo/x-1.0.whl").status == 302
        assert counted.since() == {"server_error": 2, "failed": 1}
        redirects = "proxpi_requests_total{kind=file,outcome=redirect}"
        later = samples(self.get("/metrics").text)
        assert later[redirects] - now.get(redirects, 0.0) == 1


class Methods(ApiCase):
    """Every URL has its methods, and ``OPTIONS`` lists them."""

    ALLOWED: ClassVar = {
        **dict.fromkeys(["/", "/health", "/ready", "/metrics"], "GET, HEAD, OPTIONS"),
        **dict.fromkeys(["/cache", "/cache/", "/cache/demo", "/cache/list"], "DELETE, OPTIONS"),
        f"/cache/demo/{NAME}": "DELETE, OPTIONS",
        **dict.fromkeys(["/admin/forget-list", "/admin/forget-project"], "OPTIONS, POST"),
    }

    def test_methods(self) -> None:
        """Any other method is a 405, and changes nothing; Klein ends each response once."""
        self.fill()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for path, allowed in self.ALLOWED.items():
                response = self.ask("OPTIONS", path)
                assert (response.status, response.headers["allow"]) == (204, allowed), path
                assert "content-type" not in response.headers
                others = ("PUT", "PATCH", "BREW", "get", "delete", "Post", "options", "!")
                for method in ("GET", "HEAD", "POST", "DELETE", *others):
                    if method not in allowed:
                        response = self.ask(method, path, body="project=demo")
                        assert (response.status, response.headers["allow"]) == (405, allowed), path
        assert [str(warning.message) for warning in caught] == []
        assert not any(self.asked(path) for path in (*PAGES, *PATHS))

    def test_not_found(self) -> None:
        """An unknown path is a 404 in one line that repeats nothing of it."""
        for path in ("/no", "/<b>", "/cache/a/b/c", "/admin", "/a%2Fb", "/%00", "/..", "/x" * 5000):
            for method in ("GET", "POST", "HEAD", "post"):
                response = self.ask(method, path)
                assert response.status == 404, path[:20]
                kind = "application/json" if path.startswith("/cache") else "text/plain"
                assert response.headers["content-type"].partition(";")[0] == kind
                assert b"<b>" not in response.body


class Malformed(ApiCase):
    def test_not_text(self) -> None:
        """Bytes that are no UTF-8, in path or field (RFC 9110, 5.5), cause no error in the log."""
        for path in ("/%ff", "/%ff/demo/", "/cache/%ff", "/health/%ff", "/admin/%c3%28"):
            for method in ("GET", "DELETE"):
                assert self.ask(method, path).status in (400, 404)
        for field in (
            *("Accept", "Accept-Encoding", "If-None-Match", "Range", "If-Range", "Host", "Origin"),
            *("Sec-Fetch-Site", "User-Agent", "Cookie"),
        ):
            line = f"{field}: ".encode() + b"\xff\xfe"
            for path in ("/", "/health", "/index/demo/", PATH):
                status = self.get(path, line, *(["Range: bytes=0-"] if field == "If-Range" else []))
                assert status.status in (200, 206, 400, 406), f"{field} {path}"
            assert self.ask("DELETE", "/cache/demo", line).status in (200, 400, 403), field
        assert self.unhandled() == []

    def test_hosts(self) -> None:
        """A malformed ``Host`` causes no error in the log."""
        for host in ("a..b", "x" * 100, "", "-", "[::1]:5000", "[", "a b", "é.example", "x:port"):
            for path in ("/", "/health", "/index/demo/", "/nothing"):
                status = self.get(path, f"Host: {host}").status
                assert status in (200, 400, 404), f"{host[:20]!r} {path}"
        assert self.unhandled() == []
