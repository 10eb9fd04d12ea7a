"""Debian's Chromium without a screen, driven by playwright: pages as an operator sees them.

Each page reports what its browser complains about: errors of the console, violations of the
Content-Security-Policy, exceptions, dialogs, and requests to other origins.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import playwright
from playwright.sync_api import (
    Browser,
    BrowserContext,
    FloatRect,
    Page,
    ViewportSize,
    expect,
    sync_playwright,
)

from tests.support.debian import beside, need, with_library
from tests.support.process import GUARD_SECONDS, plain_environment

Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
#: Widths in pixels: the narrowest telephone, and a wide screen.
WIDTHS = (320, 1600)

#: Where tests leave pictures of pages.
SCREENSHOTS = Path(__file__).parents[2] / "build/screenshots"

OpenPage = Callable[..., Page]

_SHELL = "chromium-headless-shell"
#: The program that drives the browser for playwright.
_NODE = Path(playwright.__file__).with_name("driver") / "node"
#: Names below ``.example`` are this machine's.
_ARGUMENTS = ["--no-proxy-server", "--host-resolver-rules=MAP *.example 127.0.0.1"]
#: Fonts of the system, and those unpacked beside the browser: an unpacked library knows neither.
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
<dir>{}</dir><dir>/usr/share/fonts</dir><cachedir>{}</cachedir>
<selectfont><rejectfont>
<glob>*/DejaVuMath*</glob><glob>*/DejaVuSerif*</glob><glob>*/DejaVuSansCondensed*</glob>
</rejectfont></selectfont>
<alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
"""


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Run a browser; `folder` is its home."""
    program = need(_SHELL, _SHELL, parts=["chromium-common"])
    fonts = folder / "fonts.conf"
    fonts.write_text(_FONTS.format(beside(program) / "usr/share/fonts", folder / "fonts"))
    environment = plain_environment(HOME=str(folder), FONTCONFIG_FILE=str(fonts))
    expect.set_options(timeout=GUARD_SECONDS * 1000)
    os.environ["PLAYWRIGHT_NODEJS_PATH"] = with_library("libatomic1", "atomic", _NODE)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=program, args=_ARGUMENTS, env={**environment}
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def pages(browser: Browser) -> Iterator[OpenPage]:
    """Open pages, each in a context of its own, and fail at the end if one has complained.

    ``at`` is the one origin of its requests, that of its URL by default; ``refused`` are the paths
    whose requests may fail; other keywords are options of playwright's ``new_context``.
    """
    complaints: list[str] = []

    def open_page(
        url: str,
        *,
        at: str = "",
        scheme: Scheme = "light",
        width: int = 1600,
        refused: Sequence[str] = (),
        **options: Any,
    ) -> Page:
        size = ViewportSize(width=width, height=900)
        context = browser.new_context(color_scheme=scheme, viewport=size, **options)
        contexts.append(context)
        context.set_default_timeout(GUARD_SECONDS * 1000)
        page = context.new_page()
        _listen(page, at or url, refused, complaints)
        page.goto(url)
        return page

    contexts: list[BrowserContext] = []
    try:
        yield open_page
    finally:
        for context in contexts:
            context.close()
    assert not complaints, "\n".join(complaints)


def _listen(page: Page, url: str, refused: Sequence[str], complaints: list[str]) -> None:
    """Add to `complaints` what happens on a page, and should not."""
    origin = urlsplit(url)[:2]

    def console(message: Any) -> None:
        where = urlsplit(message.location["url"]).path
        known = message.text.startswith("Failed to load resource") and where in refused
        if message.type in ("error", "warning") and not known:
            complaints.append(f"console: {message.text} ({where})")

    def dialog(shown: Any) -> None:
        complaints.append(f"dialog: {shown.message}")
        shown.dismiss()

    def request(sent: Any) -> None:
        if urlsplit(sent.url)[:2] != origin:
            complaints.append(f"request: {sent.url}")

    page.on("console", console)
    page.on("dialog", dialog)
    page.on("request", request)
    page.on("pageerror", lambda error: complaints.append(f"exception: {error}"))


def screenshot(
    page: Page, name: str, folder: Path = SCREENSHOTS, *, height: int | None = None
) -> None:
    """Keep what a page looks like: its first pixels, or all down to its end."""
    width = (page.viewport_size or ViewportSize(width=0, height=0))["width"]
    clip = None if height is None else FloatRect(x=0, y=0, width=width, height=height)
    path = folder / f"{name}.png"
    page.screenshot(path=path, full_page=True, animations="disabled", clip=clip)


def violations(page: Page) -> list[str]:
    """Return what axe finds wrong with a page: each rule with the elements that break it."""
    script = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
    page.evaluate(script)  # needs a page whose scripts run
    found = page.evaluate("axe.run().then(result => result.violations)")
    return [f"{each['id']}: {node['html']}" for each in found for node in each["nodes"]]


def overflow(page: Page) -> int:
    """Return the pixels by which a page is wider than its window."""
    script = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return int(page.evaluate(script))
