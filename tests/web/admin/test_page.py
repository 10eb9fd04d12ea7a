"""The admin page: its lines to copy, and what it does not repeat."""

from __future__ import annotations

import json
from html.parser import HTMLParser

from proxpi import __version__
from proxpi.web.admin import page as admin_page
from tests.support.cases import INDEX, JSON, ProxpiCase, entry, page

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


class AdminPage(ProxpiCase):
    def test_lines_to_copy(self) -> None:
        """The lines name the address under which the client sees the page."""
        text = self.get("/", "Host: proxy.example:8080").text
        assert text.startswith("<!DOCTYPE html>\n")
        for line in (
            "pip install --index-url http://proxy.example:8080/index/ PROJECT",
            "uv pip install --default-index http://proxy.example:8080/index/ PROJECT",
            "export PIP_INDEX_URL=http://proxy.example:8080/index/",
            "poetry source add --priority=primary proxpi http://proxy.example:8080/index/",
            "--trusted-host proxy.example</code>",
            __version__,
        ):
            assert line in text
        for host in ("[::1]:5000", "[::1]", "a.example"):
            trusted = host.removesuffix(":5000")
            assert f"--trusted-host {trusted}</code>" in self.get("/", f"Host: {host}").text
        exchange = self.connect()
        exchange.send(b"GET / HTTP/1.0\r\n\r\n")
        assert "http://127.0.0.1:5000/index/" in exchange.response().text
        exchange = self.connect(tls=True)
        exchange.ask("GET", "/", "Host: proxy.example")
        assert "PIP_INDEX_URL=https://proxy.example/index/" in exchange.response().text

    def test_forms(self) -> None:
        """The forms post to relative URLs; a form that did something leads to a sentence on it."""
        nothing = self.get("/").text
        tags = Tags(nothing)
        forms = [(form["method"], form["action"]) for form in tags.attributes("form")]
        assert forms == [("post", "admin/forget-list"), ("post", "admin/forget-project")]
        assert "project" in [field.get("name") for field in tags.attributes("input")]
        assert "is invalidated:" not in nothing
        assert "project list is invalidated:" in self.get("/?list=forgotten").text
        assert "de-mo is invalidated:" in self.get("/?project=De.Mo").text
        for query in ("?project=-x", "?project=%ff", "?project=", "?other=demo"):
            assert self.get("/" + query).text == nothing

    def test_injection(self) -> None:
        """Neither ``Host`` nor query get into the page as markup; it has no script at all."""
        for target, host in (
            ("/", EVIL),
            ("/", f'h"><img src=x>{EVIL}'),
            ("/", f"h:{EVIL}"),
            (f"/?project={EVIL}", "h"),
            ("/?project=%3Cscript%3Ealert(1)%3C/script%3E", "h"),
            (f"/?list={EVIL}", "h"),
        ):
            tags = Tags(self.get(target, f"Host: {host}").text)
            assert tags.attributes("script") + tags.attributes("img") == []

    def test_head(self) -> None:
        """The page may load nothing, be framed by no site, and is not kept; ``HEAD`` equals it."""
        full, head = self.get("/"), self.ask("HEAD", "/")
        assert (head.status, head.body) == (200, b"")
        assert head.headers == {**full.headers, "date": head.headers["date"]}
        assert int(full.headers["content-length"]) == len(full.body)
        policy = full.headers["content-security-policy"]
        for rule in ("default-src 'none'", "form-action 'self'", "frame-ancestors 'none'"):
            assert rule in policy
        assert "script-src" not in policy
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
            '<td>demo</td><td>demo-1.0.zip</td><td>the rule deny = "demo==1.0"</td><td></td>',
            '<td>the rule exclude-newer = "7 days"</td><td>9000-01-08T00:00:00Z</td>',
        ):
            assert part in text
        assert Tags(text).attributes("script") == []
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
