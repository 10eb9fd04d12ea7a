"""Make the pictures of the admin page in the docs: ``python -m tests.browser.screenshots``."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from playwright.sync_api import expect

from tests.support.browser import SCHEMES, chromium, pages, screenshot
from tests.support.scene import scene

IMAGES = Path(__file__).parents[2] / "docs/images"
#: Pixels from the top of the page that a picture shows.
HEIGHT = 1750


def main() -> None:
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(1) as pool:
        folder = Path(name)
        with scene(folder) as day, chromium(folder) as browser, pages(browser) as open_page:
            pool.submit(day.proxy.get, day.slow)
            for scheme in SCHEMES:
                page = open_page(f"{day.proxy.origin}/", scheme=scheme, width=1280)
                expect(page.locator("#downloads progress")).to_be_visible()
                screenshot(page, f"admin-{scheme}", IMAGES, height=HEIGHT)
            day.release()


if __name__ == "__main__":
    main()
