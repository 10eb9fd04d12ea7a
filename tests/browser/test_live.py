"""The page follows what happens, without a reload: while its tab is visible, and proxpi answers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from playwright.sync_api import Page, expect

from tests.support.browser import OpenPage, violations
from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.processes import StartProxy

_HIDE = """hidden => {
    Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def _mark(page: Page) -> None:
    page.evaluate("window.marked = true")


def _is_marked(page: Page) -> bool:
    """Return whether it is still the document that was marked: not loaded again."""
    return bool(page.evaluate("window.marked === true"))


def test_download(fake_index: FakeIndex, start_proxy: StartProxy, open_page: OpenPage) -> None:
    """A slow download appears, moves on, and is a cached file in the end."""
    file = make_wheel("slow-demo", padding=3_000_000)
    path = fake_index.add(file)
    fake_index.script(path, Behavior(hold_after=1_000_000))
    proxy = start_proxy(fake_index)
    page = open_page(f"{proxy.origin}/")
    _mark(page)
    downloads, cache = page.locator("#downloads"), page.locator("#cache")
    expect(cache).to_contain_text("0 files")
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(proxy.get, f"/index/slow-demo/{file.filename}")
        expect(downloads).to_contain_text(file.filename)
        expect(downloads).to_contain_text("1 client waits")
        bar = downloads.get_by_role("progressbar")
        expect(bar).to_have_attribute("max", str(file.size))
        expect(bar).not_to_have_attribute("value", "0")
        assert not violations(page)
        fake_index.release(path)
        assert reply.result().body == file.data
    expect(cache).to_contain_text("1 file")
    expect(downloads).not_to_contain_text(file.filename)
    assert _is_marked(page)


def test_hidden_tab(fake_index: FakeIndex, start_proxy: StartProxy, open_page: OpenPage) -> None:
    """A hidden tab requests nothing; shown again, it is up to date at once."""
    proxy = start_proxy(fake_index)
    page = open_page("about:blank", at=proxy.origin)
    page.clock.install()
    page.goto(f"{proxy.origin}/")
    polls: list[str] = []
    page.on("request", lambda request: polls.append(request.url))
    with page.expect_response("**/stats?format=html"):
        page.clock.run_for(3000)
    page.evaluate(_HIDE, True)
    polls.clear()
    page.clock.run_for(600_000)
    assert not polls
    with page.expect_response("**/stats?format=html"):
        page.evaluate(_HIDE, False)


def test_lost_connection(
    fake_index: FakeIndex, start_proxy: StartProxy, open_page: OpenPage
) -> None:
    """While proxpi is gone, a note says that what the page shows is old."""
    proxy = start_proxy(fake_index)
    page = open_page(f"{proxy.origin}/", refused=["/stats"])
    note = page.locator("#connection")
    expect(note).to_be_hidden()
    proxy.stop()
    expect(note).to_contain_text("Not connected to proxpi since")
    assert not violations(page)


def test_reader(fake_index: FakeIndex, start_proxy: StartProxy, open_page: OpenPage) -> None:
    """A refresh leaves alone what the reader opened, typed, and has in focus."""
    proxy = start_proxy(fake_index)
    page = open_page(f"{proxy.origin}/")
    expect(page.locator("#indexes tbody tr")).not_to_contain_text("reachable")
    page.get_by_text("poetry", exact=True).click()
    field = page.locator("#forget-project")
    field.fill("half a na")
    fake_index.add(make_wheel("demo-app"))
    proxy.get("/index/demo-app/")
    expect(page.locator("#indexes tbody tr")).to_contain_text("reachable")
    expect(page.get_by_text("poetry source add")).to_be_visible()
    expect(field).to_have_value("half a na")
    expect(field).to_be_focused()


def test_copy(fake_index: FakeIndex, start_proxy: StartProxy, open_page: OpenPage) -> None:
    """A button copies its line, with the URL under which the page was opened."""
    proxy = start_proxy(fake_index)
    url = proxy.origin.replace("127.0.0.1", "localhost")
    page = open_page(f"{url}/", permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy (pip on the command line)").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"pip install --index-url {url}/index/ PROJECT"
