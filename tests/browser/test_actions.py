"""What an operator does on the admin page: each action by its form, errors, and the login."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import OpenPage, violations
from tests.support.distributions import Distribution, make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy
from tests.support.scene import SCRIPT, hostile

TOKEN = "correct-horse-battery-staple"


def _cached(index: FakeIndex, proxy: Proxy, file: Distribution) -> str:
    """Have a file in the cache, and its page; return its path."""
    index.add(file)
    path = f"/index/{file.project}/{quote(file.filename)}"
    assert proxy.get(f"/index/{file.project}/").status == 200
    assert proxy.get_cached(path).status == 200
    return path


def _submit(page: Page, button: str, **fields: str) -> None:
    """Fill in the form that has a button, and press it."""
    form = page.locator("#actions form").filter(has=page.get_by_role("button", name=button))
    for name, value in fields.items():
        form.locator(f"[name={name}]").fill(value)
    form.get_by_role("button", name=button).click()


def _said(page: Page) -> str:
    """Return what the page says of the last action; it is back at its own URL."""
    shown = page.locator("main > .done")
    expect(shown).to_be_visible()
    return shown.inner_text()


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
def test_forget(
    shared_index: FakeIndex, shared_proxy: Proxy, open_page: OpenPage, scripts: bool
) -> None:
    """Lists, pages and files are forgotten, each by its form, which says so."""
    file = make_wheel(f"forgotten-{'live' if scripts else 'plain'}")
    path = _cached(shared_index, shared_proxy, file)
    shared_proxy.get("/index/")
    page = open_page(f"{shared_proxy.origin}/", java_script_enabled=scripts)
    _submit(page, "Forget the page", project=file.project.upper())
    assert file.project in _said(page)
    _submit(page, "Forget the list")
    assert "list" in _said(page)
    shared_index.clear_requests()
    for asked in (f"/index/{file.project}/", "/index/", path):
        assert shared_proxy.get(asked).status == 200
    seen = [each.path for each in shared_index.wait_until_quiet()]
    assert seen == [f"/simple/{file.project}/", "/simple/"], "but the file is cached"
    _submit(page, "Forget the file", project=file.project, file=file.filename)
    assert file.filename in _said(page)
    assert shared_proxy.get(path).headers["x-cache"] == "MISS"


def test_fetch_again(shared_index: FakeIndex, shared_proxy: Proxy, open_page: OpenPage) -> None:
    """A page is fetched now, and the admin page says what the index responded."""
    shared_index.add(make_wheel("refetched"))
    page = open_page(f"{shared_proxy.origin}/")
    shared_index.clear_requests()
    _submit(page, "Fetch again", project="Refetched")
    assert "refetched" in _said(page)
    assert [each.path for each in shared_index.wait_until_quiet()] == ["/simple/refetched/"]
    assert not violations(page)


def test_forget_everything(
    fake_index: FakeIndex, start_proxy: StartProxy, open_page: OpenPage
) -> None:
    """Everything goes once the words are typed; the browser itself refuses others."""
    proxy = start_proxy(fake_index)
    path = _cached(fake_index, proxy, make_wheel("demo-app"))
    page = open_page(f"{proxy.origin}/")
    _submit(page, "Forget everything", confirm="yes")
    assert page.locator("#confirm:invalid").count() == 1
    assert proxy.get(path).headers["x-cache"] == "HIT"
    _submit(page, "Forget everything", confirm="forget everything")
    _said(page)
    expect(page.locator("#cache")).to_contain_text("0 files")
    assert proxy.get(path).headers["x-cache"] == "MISS"


def test_errors_are_pages(shared_proxy: Proxy, open_page: OpenPage) -> None:
    """A bad name gives a page that says what is wrong, and leads back."""
    page = open_page(f"{shared_proxy.origin}/", refused=["/admin/forget-project"])
    _submit(page, "Forget the page", project=SCRIPT)
    expect(page.get_by_text("This is no project name")).to_be_visible()
    assert not violations(page)
    page.get_by_role("link", name="home page").click()
    expect(page).to_have_url(f"{shared_proxy.origin}/")


def test_files_of_a_project(
    shared_index: FakeIndex, shared_proxy: Proxy, open_page: OpenPage
) -> None:
    """A search leads to a project, and a button beside a file removes it, whatever its name is."""
    file = hostile("strange")
    path = _cached(shared_index, shared_proxy, file)
    page = open_page(f"{shared_proxy.origin}/", java_script_enabled=False)
    page.locator("#search").fill("STRANGE")
    page.get_by_role("button", name="Search").click()
    page.locator("#projects").get_by_role("link", name="strange", exact=True).click()
    row = page.locator("#files-table tbody tr")
    expect(row).to_contain_text(SCRIPT)
    row.get_by_role("button").click()
    _said(page)
    assert shared_proxy.get(path).headers["x-cache"] == "MISS"


def test_keyboard(shared_index: FakeIndex, shared_proxy: Proxy, open_page: OpenPage) -> None:
    """The first key leads past the links of the header; forms are used without a mouse."""
    file = make_wheel("typed")
    _cached(shared_index, shared_proxy, file)
    page = open_page(f"{shared_proxy.origin}/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{shared_proxy.origin}/#state")
    focused = "document.activeElement.id"
    for _ in range(300):
        page.keyboard.press("Tab")
        if page.evaluate(focused) == "forget-project":
            break
    page.keyboard.type(file.project)
    page.keyboard.press("Enter")
    assert file.project in _said(page)


def test_login(fake_index: FakeIndex, start_proxy: StartProxy, open_page: OpenPage) -> None:
    """With a token the forms appear after a login, and are gone after the logout."""
    proxy = start_proxy(fake_index, admin_token=TOKEN)
    refused = ["/admin/login", "/admin/forget-list"]
    page = open_page(f"{proxy.origin}/", refused=refused)
    other = open_page(f"{proxy.origin}/", refused=refused)
    expect(page.get_by_role("button", name="Forget the list")).to_have_count(0)
    for token in ("wrong", TOKEN):
        page.get_by_label("Admin token").fill(token)
        page.get_by_role("button", name="Log in").click()
        if token != TOKEN:
            expect(page.get_by_text("The admin token is wrong")).to_be_visible()
            assert not violations(page)
    _submit(page, "Forget the list")
    _said(page)
    assert TOKEN not in page.content()
    expect(other.get_by_role("button", name="Forget the list")).to_have_count(0)
    cookie = page.context.cookies()[0]
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert not page.evaluate("document.cookie")
    stale = page.context.new_page()
    stale.goto(f"{proxy.origin}/")
    _submit(page, "Log out")
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    _submit(stale, "Forget the list")
    expect(stale.get_by_role("button", name="Log in")).to_be_visible()
