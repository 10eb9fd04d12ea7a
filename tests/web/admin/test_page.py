"""The admin page: its lines to copy, and what it does not repeat."""

from __future__ import annotations

from html.parser import HTMLParser

from proxpi import __version__
from tests.support.cases import ProxpiCase

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
