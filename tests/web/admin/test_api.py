"""What is neither page nor file: the cache API, health, forms, and the rest."""

from __future__ import annotations

import json
import warnings

from tests.support.counted import Counted, samples
from tests.support.exchange import HOST
from tests.support.house import INDEX, HouseCase, entry, page
from tests.support.internet import Reply, Silence
from tests.web.test_simple_api import root_list

SUCCESS = {"status": "success", "data": None}
REBOUND = ("Origin: http://evil.example:5000", "Host: evil.example:5000")
OTHER_SITES = (
    ["Sec-Fetch-Site: cross-site"],
    ["Sec-Fetch-Site: same-site"],
    ["Origin: http://evil.example"],
    ["Origin: null"],
    [f"Origin: http://{HOST}0"],
)
OWN_SITE: tuple[list[str], ...] = (
    [],
    ["Sec-Fetch-Site: same-origin"],
    ["Sec-Fetch-Site: none"],
    [f"Origin: http://{HOST}"],
)
FORM = "Content-Type: application/x-www-form-urlencoded"


class AppCase(HouseCase):
    """Tests of an index with a list and two projects."""

    def setUp(self) -> None:
        """List them."""
        super().setUp()
        self.internet.at(INDEX, root_list("demo", "list"))
        for name in ("demo", "list", "de-mo"):
            self.internet.at(f"{INDEX}{name}/", page(entry("x.whl", b"x"), name=name))

    def asked(self, path: str) -> bool:
        """Tell whether the index is asked for a page that was at hand."""
        self.internet.asked.clear()
        assert self.get(path).status == 200
        return bool(self.internet.asked)


class Metrics(AppCase):
    """What was counted."""

    def test_metrics(self) -> None:
        """It is text as Prometheus reads it, and files are in it."""
        self.serve("x-1.0.whl", b"bytes")
        before = samples(self.get("/metrics").body.decode())
        for _ in range(3):
            assert self.get("/index/demo/x-1.0.whl").status == 200
        answer = self.get("/metrics")
        assert (answer.status, answer.headers["content-type"][:10]) == (200, "text/plain")
        now = samples(answer.body.decode())
        for cache, count in (("hit", 2), ("miss", 1)):
            name = f"proxpi_file_answers_total{{cache={cache}}}"
            assert now[name] - before[name] == count
        assert now["process_open_fds"] > 0

    def test_redirects(self) -> None:
        """So are clients that were sent away."""
        self.serve("x-1.0.whl", b"bytes", Reply(503))
        counted = Counted()
        assert self.get("/index/demo/x-1.0.whl").status == 302
        assert counted.since() == {"redirect": 1, "upstream": 2, "failed": 1}


class Health(AppCase):
    """Whether it lives."""

    def test_health(self) -> None:
        """It answers at once, though the upstream says nothing."""
        self.internet.at(INDEX + "demo/", Silence())
        waiting = self.connect()
        waiting.ask("GET", "/index/demo/")
        for path in ("/health", "/health/", "//health", "/health?x", "http://h.example/health"):
            answer = self.get(path)
            assert (answer.status, json.loads(answer.body)) == (200, SUCCESS)
            assert answer.headers["content-type"] == "application/json"
            assert int(answer.headers["content-length"]) == len(answer.body)
        assert waiting.answer() is None

    def test_head(self) -> None:
        """``HEAD`` works as well."""
        full, head = self.get("/health"), self.ask("HEAD", "/health")
        assert (head.status, head.headers) == (200, full.headers)


class CacheApi(AppCase):
    """``DELETE /cache/…``."""

    def test_project(self) -> None:
        """A project is forgotten in any spelling, and is asked for again; no other is."""
        for spelling in ("de-mo", "De.Mo", "DE__MO", "%64e-mo"):
            self.get("/index/de-mo/")
            self.get("/index/demo/")
            answer = self.ask("DELETE", f"/cache/{spelling}")
            assert (answer.status, json.loads(answer.body)) == (200, SUCCESS)
            assert self.asked("/index/de-mo/"), spelling
            assert not self.asked("/index/demo/"), spelling

    def test_list(self) -> None:
        """``list`` is the list, and the project of that name."""
        self.get("/index/")
        self.get("/index/list/")
        assert not (self.asked("/index/") or self.asked("/index/list/"))
        answer = self.ask("DELETE", "/cache/list")
        assert (answer.status, json.loads(answer.body)) == (200, SUCCESS)
        assert self.asked("/index/")
        assert self.asked("/index/list/")

    def test_unknown(self) -> None:
        """To forget what is not known is no error."""
        assert self.ask("DELETE", "/cache/unknown").status == 200

    def test_no_name(self) -> None:
        """What can be no project is an error, in the API's own form."""
        for name in ("-x", "a%20b", "x" * 10_000, "..", "%00", "<b>"):
            answer = self.ask("DELETE", f"/cache/{name}")
            assert answer.status == 404, name[:20]
            assert b"<b>" not in answer.body
        said = json.loads(self.ask("DELETE", "/cache/-x").body)
        assert said["status"] == "error"
        assert "project name" in said["message"]

    def test_other_sites(self) -> None:
        """A page of another site forgets nothing."""
        for path in ("/cache/demo", "/cache/list"):
            for headers in OTHER_SITES:
                self.get("/index/demo/")
                answer = self.ask("DELETE", path, *headers)
                assert (answer.status, json.loads(answer.body)["status"]) == (403, "error")
                assert not self.asked("/index/demo/")

    def test_own_site(self) -> None:
        """This site's own pages may, and so may who is no browser."""
        for headers in OWN_SITE:
            self.get("/index/demo/")
            assert self.ask("DELETE", "/cache/demo", *headers).status == 200
            assert self.asked("/index/demo/")

    def test_rebound_name(self) -> None:
        """Nor does a page whose name was made to lead here; a browser is told which setting may."""
        for origin in (REBOUND, ("Sec-Fetch-Site: same-origin", REBOUND[1])):
            for path in ("/cache", "/cache/demo", "/cache/list", "/cache/demo/x.whl"):
                self.get("/index/demo/")
                answer = self.ask("DELETE", path, *origin)
                assert answer.status == 403
                assert "PROXPI_HOSTS" in json.loads(answer.body)["message"]
                assert not self.asked("/index/demo/")
        assert self.ask("DELETE", "/cache/demo", REBOUND[1]).status == 200

    def test_not_quite(self) -> None:
        """What is not quite the URL of something removes nothing."""
        paths = (
            *("/cache/", "/cache//", "//cache", "/cache?", "/cache?x", "/cache/?x", "/%63ache"),
            *("/cache/%20", "/cache/%2F", "/cache/%2f%2F", "/cache/.", "/cache/./", "/cache/.."),
            *("/cache//demo", "/cache/demo/", "/cache/demo//", "/cache/demo%2F", "//cache/demo"),
            *("/cache/list/", "/cache/list%2F", "/cache//list", "/cache/demo/%20", "/x/../cache"),
            *("/cache/demo/x.whl/", "/cache/demo//x.whl", "/cache/demo/%2F", "/cache/demo/."),
            *("/cache/demo/..", "/cache/demo/../", "/cache/%2e", "/cache/*", "/cache/a/b/c"),
        )
        self.get("/index/demo/")
        self.get("/index/")
        for path in paths:
            expected = (200,) if path == "/cache/demo/%20" else (404,)
            assert self.ask("DELETE", path).status in expected, path
        assert not (self.asked("/index/demo/") or self.asked("/index/"))


class FormPosts(AppCase):
    """What the home page's forms do."""

    def test_project(self) -> None:
        """A project is forgotten, and the browser led home by a relative link."""
        self.get("/index/de-mo/")
        answer = self.ask("POST", "/admin/forget-project", FORM, body="project=+De.Mo+")
        assert (answer.status, answer.headers["location"]) == (303, "../?project=de-mo")
        assert self.asked("/index/de-mo/")

    def test_list(self) -> None:
        """The list is forgotten, and the browser led home by a relative link."""
        self.get("/index/")
        answer = self.ask("POST", "/admin/forget-list", FORM)
        assert (answer.status, answer.headers["location"]) == (303, "../?list=forgotten")
        assert self.asked("/index/")

    def test_no_name(self) -> None:
        """What is no project's name is an error."""
        for body in ("", "project=", "other=demo", "project=-x", "project=%FF", "x" * 60_000):
            answer = self.ask("POST", "/admin/forget-project", FORM, body=body)
            assert (answer.status, json.loads(answer.body)["status"]) == (400, "error")

    def test_other_sites(self) -> None:
        """A form on another site's page does nothing."""
        for headers in OTHER_SITES:
            for path in ("/admin/forget-project", "/admin/forget-list"):
                self.get("/index/demo/")
                answer = self.ask("POST", path, FORM, *headers, body="project=demo")
                assert answer.status == 403
                assert not self.asked("/index/demo/")

    def test_own_site(self) -> None:
        """A form on this site's page works, unless its name was made to lead here."""
        answer = self.ask("POST", "/admin/forget-project", FORM, *REBOUND, body="project=demo")
        assert answer.status == 403
        for headers in OWN_SITE:
            self.get("/index/demo/")
            path = "/admin/forget-project"
            assert self.ask("POST", path, FORM, *headers, body="project=demo").status == 303
            assert self.asked("/index/demo/")


class Methods(AppCase):
    """Each URL takes its methods, tells which, and no other."""

    ALLOWED = (
        ("/", "GET, HEAD, OPTIONS"),
        ("/health", "GET, HEAD, OPTIONS"),
        ("/cache/demo", "DELETE, OPTIONS"),
        ("/cache/list", "DELETE, OPTIONS"),
        ("/admin/forget-list", "OPTIONS, POST"),
        ("/admin/forget-project", "OPTIONS, POST"),
    )

    def test_options(self) -> None:
        """``OPTIONS`` says what may be done."""
        for path, allowed in self.ALLOWED:
            answer = self.ask("OPTIONS", path)
            assert (answer.status, answer.headers["allow"]) == (204, allowed), path
            assert "content-type" not in answer.headers

    def test_others(self) -> None:
        """Any other method is refused, and nothing is done."""
        for path, allowed in self.ALLOWED:
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "BREW"):
                if method not in allowed:
                    answer = self.ask(method, path, body="project=demo")
                    assert (answer.status, answer.headers["allow"]) == (405, allowed), path

    def test_finished_once(self) -> None:
        """An answer that Klein did not choose is finished once, like any other."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for method, path in [("BREW", "/"), ("OPTIONS", "/"), ("GET", "/nothing")]:
                self.ask(method, path)
        assert [str(warning.message) for warning in caught] == []


class NothingThere(AppCase):
    """URLs that mean nothing."""

    def test_unknown(self) -> None:
        """They are a 404, in one plain line that repeats nothing of them."""
        for path in (
            "/nothing",
            "/<b>",
            "/cache/a/b/c",
            "/admin",
            "/a%2Fb",
            "/%00",
            "/..",
            "/x" * 5000,
        ):
            for method in ("GET", "POST"):
                answer = self.ask(method, path)
                assert answer.status == 404, path[:20]
                kind = "application/json" if path.startswith("/cache") else "text/plain"
                assert answer.headers["content-type"].partition(";")[0] == kind
                assert b"<b>" not in answer.body
        assert self.ask("HEAD", "/nothing").status == 404

    def test_no_text(self) -> None:
        """A path that is no text is a refusal, and no error in the log."""
        for path in ("/%ff", "/%ff/demo/", "/cache/%ff", "/health/%ff", "/admin/%c3%28"):
            for method in ("GET", "DELETE"):
                assert self.ask(method, path).status in (400, 404)
        assert self.unhandled() == []


class Unlikely(AppCase):
    """Requests that no honest client sends."""

    FIELDS = ("Accept", "Accept-Encoding", "If-None-Match", "Range", "If-Range", "Host", "Origin")

    def test_fields_that_are_no_text(self) -> None:
        """Bytes that are no UTF-8 in a field make no error of a request (RFC 9110, 5.5)."""
        self.serve("x.whl", b"x")
        for field in (*self.FIELDS, "Sec-Fetch-Site", "User-Agent", "Cookie"):
            line = f"{field}: ".encode() + b"\xff\xfe"
            for path in ("/", "/health", "/index/demo/", "/index/demo/x.whl"):
                status = self.get(path, line, *(["Range: bytes=0-"] if field == "If-Range" else []))
                assert status.status in (200, 206, 400, 406), f"{field} {path}"
            assert self.ask("DELETE", "/cache/demo", line).status in (200, 400, 403), field
        assert self.unhandled() == []

    def test_hosts(self) -> None:
        """A ``Host`` that is none makes no error of a request."""
        for host in ("a..b", "x" * 100, "", "-", "[::1]:5000", "[", "a b", "é.example", "x:port"):
            for path in ("/", "/health", "/index/demo/", "/nothing"):
                status = self.get(path, f"Host: {host}").status
                assert status in (200, 400, 404), f"{host[:20]!r} {path}"
        assert self.unhandled() == []

    def test_failing_list(self) -> None:
        """An upstream that fails does not keep anything from being forgotten."""
        self.internet.at(INDEX, Reply(503))
        assert self.ask("DELETE", "/cache/list").status == 200
