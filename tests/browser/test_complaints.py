"""What a browser complains about fails a test: console, policy, exception, dialog, other origin."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.support.browser import overflow, pages, violations
from tests.support.processes import HttpServer

_POLICY = {"Content-Security-Policy": "default-src 'none'; script-src 'self'"}
_HTML = {"Content-Type": "text/html"}
_PAGES: dict[str, tuple[int, dict[str, str], bytes]] = {
    "/good": (200, _HTML, b"<!DOCTYPE html><html lang=en><title>x</title><main><h1>x</h1></main>"),
    "/console": (200, _HTML, b"<script>console.error('broken')</script>"),
    "/policy": (200, _HTML | _POLICY, b"<script>open()</script>"),
    "/exception": (200, _HTML, b"<script>throw new Error('thrown')</script>"),
    "/dialog": (200, _HTML, b"<script>alert('shown')</script>"),
    "/elsewhere": (200, _HTML, b"<img alt='' src='http://127.0.0.1:9/x.png'>"),
    "/refused": (400, _HTML, b"<p>No.</p>"),
    "/wide": (200, _HTML, b"<p style='width: 1000px'>wide</p>"),
}


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("/console", "console: broken"),
        ("/policy", "Content Security Policy"),
        ("/exception", "exception: thrown"),
        ("/dialog", "dialog: shown"),
        ("/elsewhere", "request: http://127.0.0.1:9/x.png"),
        ("/refused", "status of 400"),
    ],
)
def test_complaints(browser: Browser, path: str, complaint: str) -> None:
    """Each fault of a page fails the test that has opened it."""
    with (
        HttpServer(_PAGES.__getitem__) as server,
        pytest.raises(AssertionError, match=complaint),
        pages(browser) as open_page,
    ):
        open_page(f"{server.origin}{path}")


def test_judgements(browser: Browser) -> None:
    """A page without faults passes; axe's rules and the width of a page are judged."""
    with HttpServer(_PAGES.__getitem__) as server, pages(browser) as open_page:
        good = open_page(f"{server.origin}/good")
        assert not violations(good) and not overflow(good)
        wide = open_page(f"{server.origin}/wide", width=320)
        assert any("html-has-lang" in each for each in violations(wide))
        assert overflow(wide) > 600
        open_page(f"{server.origin}/refused", refused=["/refused"])
