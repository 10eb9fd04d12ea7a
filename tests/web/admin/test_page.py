"""The admin page: its sections, its lines to copy, and what it does not repeat."""

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from proxpi import __version__
from proxpi.web.admin import page as admin_page
from tests.support.cases import INDEX, JSON, ProxpiCase, entry, page
from tests.support.statistics import HOSTILE, document, files, projects

EVIL = "<script>alert(1)</script>"


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self._found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._found.append((tag, dict(attrs)))

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self._found if name == tag]


def text_of(html: str) -> str:
    """What a reader sees of some HTML."""
    inline = re.sub(r"</?(a|b|code|span|strong|time)\b[^>]*>", "", html)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", inline)).split())


class AdminPage(ProxpiCase):
    def test_lines_to_copy(self) -> None:
        """The lines name the address under which the client sees the page."""
        text = self.get("/", "Host: proxy.example:8080").text
        assert text.startswith("<!DOCTYPE html>\n")
        for line in (
            "pip install --index-url http://proxy.example:8080/index/ --trusted-host proxy.exampl",
            "uv pip install --default-index http://proxy.example:8080/index/ PROJECT",
            "export PIP_INDEX_URL=http://proxy.example:8080/index/ export PIP_TRUSTED_HOST=proxy",
            "poetry source add --priority=primary proxpi http://proxy.example:8080/index/",
            "pdm config pypi.url http://proxy.example:8080/index/",
            'PIP_INDEX_URL = "http://proxy.example:8080/index/"',
            "index-url = http://proxy.example:8080/index/ trusted-host = proxy.example",
            'url = "http://proxy.example:8080/index/" default = true',
            "ARG UV_DEFAULT_INDEX=http://proxy.example:8080/index/",
            "PIP_INDEX_URL: http://proxy.example:8080/index/",
            __version__,
        ):
            assert line in text_of(text)
        exchange = self.connect()
        exchange.send(b"GET / HTTP/1.0\r\n\r\n")
        assert "http://127.0.0.1:5000/index/" in text_of(exchange.response().text)

    def test_lines_with_tls(self) -> None:
        """With TLS and on this machine, pip needs not trust a host."""
        exchange = self.connect(tls=True)
        exchange.ask("GET", "/", "Host: proxy.example")
        text = exchange.response().text
        assert "PIP_INDEX_URL=https://proxy.example/index/" in text_of(text)
        assert '<span class="insecure">' not in text
        for host in ("[::1]:5000", "127.0.0.1", "localhost:5000", "a.localhost"):
            assert '<span class="insecure">' not in self.get("/", f"Host: {host}").text
        for host in ("[::2]:5000", "localhost.example", "10.0.0.1"):
            text = self.get("/", f"Host: {host}").text
            assert '<span class="insecure"> --trusted-host' in text

    def test_forms(self) -> None:
        """The forms post to relative URLs."""
        tags = Tags(self.get("/").text)
        forms = [form["action"] for form in tags.attributes("form") if form["method"] == "post"]
        assert {*forms} == {
            f"admin/{name}" for name in ("refetch", "forget-project", "forget-file", "forget-list")
        } | {"admin/forget-everything"}
        assert "project" in [field.get("name") for field in tags.attributes("input")]

    def test_injection(self) -> None:
        """Neither ``Host`` nor query get into the page as markup; its script is its own."""
        for target, host in (
            ("/", EVIL),
            ("/", f'h"><img src=x>{EVIL}'),
            ("/", f"h:{EVIL}"),
            (f"/?project={EVIL}", "h"),
            ("/?project=%3Cscript%3Ealert(1)%3C/script%3E", "h"),
            (f"/?list={EVIL}", "h"),
        ):
            tags = Tags(self.get(target, f"Host: {host}").text)
            assert {tag["src"] for tag in tags.attributes("script")} <= {"admin/page.js"}
            assert tags.attributes("img") == []

    def test_head(self) -> None:
        """The page may load its own files alone, and be framed by none; ``HEAD`` equals it."""
        full, head = self.get("/"), self.ask("HEAD", "/")
        assert (head.status, head.body) == (200, b"")
        assert head.headers == {**full.headers, "date": head.headers["date"]}
        assert int(full.headers["content-length"]) == len(full.body)
        policy = full.headers["content-security-policy"]
        for rule in ("default-src 'none'", "form-action 'self'", "frame-ancestors 'none'"):
            assert rule in policy
        assert "unsafe" not in policy
        assert full.headers["cache-control"] == "no-cache"
        assert full.headers["content-type"] == "text/html; charset=utf-8"

    def test_nothing_excluded(self) -> None:
        """Without exclusions the page does not speak of them."""
        assert "Excluded" not in self.get("/").text

    def test_excluded(self) -> None:
        """Excluded files are listed with the rule and the time from which they are available."""
        self.build(rules='exclude-newer = "7 days"\ndeny = ["demo==1.0"]')
        evil = f"demo-3{EVIL.replace('/', '')}.zip"
        self.agent.at(
            f"{INDEX}demo/",
            page(
                entry("demo-1.0.zip", b"x"),
                entry("demo-2.0.zip", b"x", **{"upload-time": "9000-01-01T00:00:00Z"}),
                entry(evil, b"x", **{"upload-time": "9000-01-01T00:00:00Z"}),
            ),
        )
        assert json.loads(self.get("/index/demo/", f"Accept: {JSON}").body)["files"] == []
        text = self.get("/").text
        for part in (
            "3 files of the pages that clients have requested.",
            'demo demo-1.0.zip the rule deny = "demo==1.0"',
            'demo-2.0.zip the rule exclude-newer = "7 days" 9000-01-08',
        ):
            assert part in text_of(text)
        listed = json.loads(self.get("/stats").body)["excluded"]
        assert [each["file"] for each in listed] == ["demo-1.0.zip", "demo-2.0.zip", evil]

    def test_many_excluded(self) -> None:
        """Of many excluded files the page lists the last ones, and says how many there are."""
        self.put(admin_page, "MOST_EXCLUDED", 2)
        self.build(rules='deny = ["demo"]')
        files = [entry(f"demo-{number}.zip", b"x") for number in range(3)]
        self.agent.at(f"{INDEX}demo/", page(*files))
        self.get("/index/demo/")
        text = self.get("/").text
        assert "3 files of the pages that clients have requested, of which these 2 were" in text
        assert text.index("demo-2.zip") < text.index("demo-1.zip")
        assert "demo-0.zip" not in text


class Sections(ProxpiCase):
    """What the page makes of a document of ``/stats``."""

    def setUp(self) -> None:
        super().setUp()
        self.document = document("")

    def read(self) -> str:
        return text_of(admin_page.sections(self.document).body.decode())

    def test_state(self) -> None:
        """The state is said in words: its level, the sentence, version, uptime and memory."""
        text = self.read()
        assert "Degraded Serving; 1 of 2 indexes reachable; 94 % of requests from the" in text
        assert "Version 2.0.0, up 3 d 4 h, 84.0 MB of memory." in text

    def test_traffic(self) -> None:
        """The numbers of three periods have units; a ratio of nothing is none."""
        text = self.read()
        for part in (
            "From the cache 94 % 24 hours – 5 min 91 % 30 days",
            "Not downloaded 12.4 GB 24 hours",
            "Time saved 3 h 20 min 24 hours",
            "Requests 41.2 k 24 hours 0 5 min",
        ):
            assert part in text

    def test_charts(self) -> None:
        """Requests, saved bytes and saved time have charts of a day and of a month."""
        charts = Tags(admin_page.sections(self.document).body.decode()).attributes("svg")
        assert len([each for each in charts if each.get("role") == "img"]) == 6

    def test_indexes(self) -> None:
        """A failing index tells since when, what it said, and when it is tried again."""
        text = self.read()
        assert "root https://index.example/simple/ reachable 41 ms 30 min 1,204 1,100 104" in text
        failing = (
            "failing since 11:42 UTC (18 min ago) connection refused Next try in 12 s – 30 min"
        )
        assert f"internal https://internal.example// {failing}" in text

    def test_downloads(self) -> None:
        """A download has its progress, also one whose size is unknown."""
        text = self.read()
        assert "45 %, 405 MB of 900 MB, 34.2 MB/s from root, 3 clients wait, begun 12 s ago" in text
        assert "scipy.whl ahead of its request 405 MB, 34.2 MB/s from root, 1 client waits" in text
        assert "3 requests wait for an upstream." in text
        bars = Tags(admin_page.sections(self.document).body.decode()).attributes("progress")
        assert [(bar.get("value"), bar.get("max")) for bar in bars] == [
            ("405000000", "900000000"),
            (None, None),
        ]
        self.document["downloads"] *= 30
        assert text_of(self.read()).count("clients wait") == 10 and "40 more." in self.read()
        sent = "812 sent ahead of a request: 745 used, 36 pending, 31 not used within 10 minutes."
        assert f"Under way: numpy. {sent}" in text

    def test_problems(self) -> None:
        """A problem tells what happened, what follows, what to do, how often and when."""
        assert (
            "internal: connection refused 214 times Last 11:59 UTC (2 s ago), first 2026-11-30 "
            "22:01 UTC (13 h 58 min ago) proxpi serves the stale page of 10:42. What to do: Check "
            "that internal.example answers."
        ) in self.read()
        problem = self.document["problems"][0]
        self.document["problems"] = [problem] * 5 + [{**problem, "text": f"not {'ab' * 32}"}] * 2
        assert "2 more not abababababab… 214 times" in self.read()
        self.document["problems"] = [{**problem, "first": None, "last": None}]
        assert "Last – (–), first – (–)" in self.read()
        self.document["problems"] = []
        assert "Problems None since the start." in self.read()

    def test_cache(self) -> None:
        """The cache tells how full it is, and which projects it is full of."""
        text = self.read()
        assert "48.9 GB of 50.0 GB (97 %), 8,123 files, 412 evicted." in text
        assert "Project Uses Size Files torch 520 12.2 GB 14" in text
        assert "Project Size Uses Files torch 12.2 GB 520 14" in text
        assert "cudnn.whl 700 MB 10 min ago" in text
        self.document["cache"]["capacity_bytes"] = 0
        assert "PROXPI_CACHE_SIZE is 0: no file is cached." in self.read()

    def test_advisories(self) -> None:
        """The advisories tell their number and age, and the last error."""
        text = self.read()
        assert (
            "12.0 k entries, read 51 min 40 s ago (https://osv.example/all.zip). Last error:"
            in text
        )
        self.document["advisories"] |= {"age": None, "error": None}
        assert "None are known yet (https://osv.example/all.zip)." in self.read()

    def test_hostile_texts(self) -> None:
        """No text of an index, file, rule or setting is markup; control characters are shown."""
        html = admin_page.sections(document()).body.decode()
        tags = Tags(html)
        assert tags.attributes("script") + tags.attributes("img") == []
        assert not any("onerror" in (tag or {}) for tag in tags.attributes("section"))
        assert "\u202e" not in html and "\x1b" not in html
        assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 12
        assert "torch-2.9.1.whl&lt;script&gt;" in html
        assert "\\u202e\\x1b[31m\\n" in html
        assert HOSTILE not in html


class CachedProjects(ProxpiCase):
    """The list of the cached projects, and of the files of one."""

    def read(self, listing: dict[str, Any] | None, access: admin_page.Access = "open") -> str:
        return admin_page.home(
            "http://127.0.0.1:5000/", document(""), [], listing, access
        ).body.decode()

    def links(self, html: str) -> list[str]:
        hrefs = [str(tag["href"]) for tag in Tags(html).attributes("a")]
        return [href.removesuffix("#projects") for href in hrefs if href.endswith("#projects")]

    def test_projects(self) -> None:
        """The list has numbers of each project, links to its files, and pages."""
        html = self.read(projects())
        text = text_of(html)
        assert "120 projects." in text
        assert "numpy 14 12.2 GB 520 10 min ago stale root" in text
        assert "(no project in the name) 14 12.2 GB 520 unknown" in text
        assert "Previous Page 2 of 3 Next" in text
        links = self.links(html)
        for link in (
            "?project=numpy",
            "?sort=size",
            "?sort=uses",
            "?sort=used",
            "?sort=name&page=1",
            "?sort=name&page=3",
        ):
            assert link in links
        assert '<th scope="col" aria-sort="ascending">Project' in html

    def test_search(self) -> None:
        """Sorting and paging keep what was searched, which is not markup."""
        html = self.read(projects(search='a&b"<i>', sort="uses", page=1))
        assert "Previous" not in text_of(html)
        assert "?search=a%26b%22%3Ci%3E&sort=uses&page=2" in self.links(html)
        assert "?search=a%26b%22%3Ci%3E&sort=size" in self.links(html)
        fields = {tag.get("name"): tag.get("value") for tag in Tags(html).attributes("input")}
        assert (fields["search"], fields["sort"]) == ('a&b"<i>', "uses")
        assert Tags(html).attributes("i") == []
        nothing = text_of(self.read(projects(search="x", projects=[])))
        assert "No cached project has “x” in its name." in nothing
        assert "Cached projects Name contains Search None yet." in text_of(
            self.read(projects(projects=[]))
        )

    def test_files(self) -> None:
        """The files of a project tell whether they are verified, and where they are from."""
        html = self.read(files(""))
        text = text_of(html)
        assert "numpy 14 files, 12.2 GB, 520 uses. The page of root is fresh, confirmed 10" in text
        assert "numpy-2.0.whl 16.0 MB 12 10 min ago yes root" in text
        assert "numpy-2.0.zip 16.0 MB 12 10 min ago no files-example" in text
        assert "?project=numpy&sort=uses" in self.links(html)
        tags = Tags(self.read(files()))
        assert {tag["src"] for tag in tags.attributes("script")} == {"admin/page.js"}
        assert tags.attributes("img") == []

    def test_actions(self) -> None:
        """A project has its actions beside it, unless a login is missing or the name says none."""

        def fields(html: str) -> list[tuple[str | None, str | None]]:
            hidden = [tag for tag in Tags(html).attributes("input") if tag.get("type") == "hidden"]
            return [(tag["name"], tag["value"]) for tag in hidden]

        of_file = [("project", "numpy"), ("file", "numpy-2.0.whl")]
        of_project = [("project", "numpy"), ("project", "numpy")]
        shown = fields(self.read(files("")))
        assert shown[:4] == of_project + of_file
        assert fields(self.read(files(""), "logged in")) == shown
        assert fields(self.read(files(""), "locked")) == []
        assert fields(self.read(files("", project="-"))) == []

    def test_access(self) -> None:
        """Without a login that is needed there is its form alone; with one a form to log out."""

        def posts(access: admin_page.Access) -> set[str | None]:
            forms = Tags(self.read(projects(), access)).attributes("form")
            return {form["action"] for form in forms if form["method"] == "post"}

        assert posts("locked") == {"admin/login"}
        assert posts("logged in") == posts("open") | {"admin/logout"}

    def test_counting(self) -> None:
        """While the projects are being counted, the page says so."""
        assert "Cached projects They are being counted" in text_of(self.read(None))


class Settings(ProxpiCase):
    def test_settings(self) -> None:
        """Settings that differ from their defaults come first, with their sources."""
        text = text_of(self.get("/").text).partition("Settings in force")[2]
        chosen, _, defaults = text.partition("at their defaults")
        assert "PROXPI_INDEX_URL" in chosen and "PROXPI_LOGGING_LEVEL INFO default" in defaults
        assert "PROXPI_LOGGING_LEVEL" not in chosen


class ErrorPages(ProxpiCase):
    def test_error_page(self) -> None:
        """An error has a title, a sentence, advice and a way back, and no markup of others."""
        made = admin_page.error_page(b"/admin/x", 401, f"Not {EVIL}", "Do this.", login=True)
        text = made.body.decode()
        assert made.status == 401
        assert "<title>Unauthorized – proxpi</title>" in text and "<p>Do this.</p>" in text
        assert EVIL not in text
        assert '<a href="../">' in text
        assert Tags(text).attributes("form") == [{"method": "post", "action": "../admin/login"}]
        plain = admin_page.error_page(b"/admin/x", 400, "No").body.decode()
        assert Tags(plain).attributes("form") == []


class Assets(ProxpiCase):
    def test_assets(self) -> None:
        """Style, script and icon are there, with their types, and are revalidated."""
        for tag, key in (("link", "href"), ("script", "src")):
            for each in Tags(self.get("/").text).attributes(tag):
                full = self.get(f"/{each[key]}")
                kind = admin_page.ASSETS[str(each[key]).removeprefix("admin/")]
                assert (full.status, full.headers["content-type"]) == (200, kind)
                assert full.headers["cache-control"] == "no-cache"
                etag = full.headers["etag"]
                again = self.get(f"/{each[key]}", f"If-None-Match: {etag}")
                assert (again.status, again.body) == (304, b"")
        assert self.get("/admin/page.xml").status == 404
        assert self.ask("POST", "/admin/page.js").status == 405
        assert self.get("/admin/forget-list").headers["allow"] == "OPTIONS, POST"

    def test_no_markup_unescaped(self) -> None:
        """No template turns escaping off; no style or handler is inline."""
        for path in (Path(admin_page.__file__).parent / "templates").iterdir():
            text = path.read_text()
            assert not re.search(r"\|\s*safe|autoescape|\sstyle=|\son[a-z]+=|<style", text), path
