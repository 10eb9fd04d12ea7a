"""The admin page behind a real nginx: with TLS and a prefix, and as a novice configures it.

Pages are closed before nginx ends: they refresh themselves, and load their icon late.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.support.browser import pages, violations
from tests.support.certificates import make_certificate
from tests.support.clients import isolated_environment, run
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.nginx import FORWARDED, Nginx
from tests.support.processes import StartProxy

_PREFIX = {"X-Forwarded-Prefix": "/pypi"}


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
def test_prefix_and_tls(
    fake_index: FakeIndex,
    start_proxy: StartProxy,
    browser: Browser,
    tmp_path: Path,
    scripts: bool,
) -> None:
    """URLs are those of the browser, buttons work, and the line for pip does, too."""
    fake_index.add(make_wheel("demo-app"))
    certificate = make_certificate(tmp_path)
    proxy = start_proxy(fake_index, trusted_proxies="127.0.0.1")
    headers = FORWARDED | _PREFIX
    with (
        Nginx(
            proxy.origin, folder=tmp_path, prefix="/pypi", certificate=certificate, headers=headers
        ) as nginx,
        pages(browser) as open_page,
    ):
        options = {"ignore_https_errors": True, "java_script_enabled": scripts}
        page = open_page(nginx.url, **options)
        shown = page.locator("#use code").first.inner_text()
        assert shown == f"{nginx.url}index/"
        pip, *line = page.locator("pre code").first.inner_text().split()
        assert (pip, line.pop()) == ("pip", "PROJECT")
        client = tmp_path / "client"
        client.mkdir()
        variables = {"PIP_CERT": str(certificate), "PIP_TARGET": str(client / "installed")}
        command = [sys.executable, "-m", pip, *line, "demo-app"]
        run(command, client, isolated_environment(client, **variables))
        assert (client / "installed/demo_app").is_dir()
        page.get_by_role("button", name="Forget the list").click()
        expect(page.locator(".done")).to_contain_text("list")
        expect(page).to_have_url(re.compile(re.escape(f"{nginx.url}?done=")))


def test_login_behind_tls(
    fake_index: FakeIndex, start_proxy: StartProxy, browser: Browser, tmp_path: Path
) -> None:
    """The cookie of a login is for TLS and for the prefix alone, and lets one in."""
    certificate = make_certificate(tmp_path)
    proxy = start_proxy(fake_index, trusted_proxies="127.0.0.1", admin_token="t0ken-of-the-test")
    headers = FORWARDED | _PREFIX
    with (
        Nginx(
            proxy.origin, folder=tmp_path, prefix="/pypi", certificate=certificate, headers=headers
        ) as nginx,
        pages(browser) as open_page,
    ):
        page = open_page(nginx.url, ignore_https_errors=True)
        page.get_by_label("Admin token").fill("t0ken-of-the-test")
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("button", name="Forget the list").click()
        expect(page.locator(".done")).to_contain_text("list")
        [cookie] = page.context.cookies()
        assert (cookie["secure"], cookie["path"]) == (True, "/pypi/")


def test_plain(
    fake_index: FakeIndex, start_proxy: StartProxy, browser: Browser, tmp_path: Path
) -> None:
    """With nginx's own headers the page has the right URLs, and its buttons work or say why not.

    An address is a trustworthy origin, for which a browser states that a form is of the same site.
    For a name it does not: there the page of the error says what to configure.
    """
    proxy = start_proxy(fake_index)
    with Nginx(proxy.origin, folder=tmp_path) as nginx, pages(browser) as open_page:
        page = open_page(nginx.url)
        assert page.locator("#use code").first.inner_text() == f"{nginx.url}index/"
        page.get_by_role("button", name="Forget the list").click()
        expect(page.locator(".done")).to_contain_text("list")
        named = nginx.url.replace("127.0.0.1", "packages.example")
        page = open_page(named, refused=["/admin/forget-list"])
        assert page.locator("#use code").first.inner_text() == f"{named}index/"
        page.get_by_role("button", name="Forget the list").click()
        expect(page.get_by_text("Host $http_host")).to_be_visible()
        assert not violations(page)
        page.get_by_role("link", name="home page").click()
        expect(page).to_have_url(named)


def test_hostile_forwarding(
    fake_index: FakeIndex, start_proxy: StartProxy, browser: Browser, tmp_path: Path
) -> None:
    """What a client states through an nginx that passes it on is neither URL nor markup."""
    proxy = start_proxy(fake_index, trusted_proxies="127.0.0.1")
    with (
        Nginx(proxy.origin, folder=tmp_path, headers={"Host": "$http_host"}) as nginx,
        pages(browser) as open_page,
    ):
        strange = {"X-Forwarded-Prefix": '/x"><script>alert(1)</script>', "X-Forwarded-Proto": "x"}
        page = open_page(nginx.url, extra_http_headers=strange, java_script_enabled=False)
        assert page.locator("#use code").first.inner_text() == f"{nginx.url}index/"
