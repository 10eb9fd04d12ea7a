"""Real pages of 30 projects: as a second, short renderer writes them, with rules and without.

They take longer than half a minute, so they run in a session of their own: ``nox --session real``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from html import escape
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import attrs
import pytest
from packaging.utils import InvalidName, InvalidSdistFilename, parse_sdist_filename
from packaging.version import InvalidVersion, Version

from proxpi.settings import Settings
from tests.support import configs
from tests.support.fake_index import FakeIndex
from tests.support.processes import StartProxy

pytestmark = pytest.mark.real

JSON, HTML = "application/vnd.pypi.simple.v1+json", "text/html"
PROJECTS = [
    *("aiohttp", "attrs", "boto3", "botocore", "certifi", "cryptography", "django", "flask"),
    *("grpcio", "idna", "lxml", "matplotlib", "numpy", "pandas", "pillow", "pip", "protobuf"),
    *("pydantic", "pydantic-core", "pyyaml", "requests", "ruff", "scipy", "setuptools", "six"),
    *("tensorflow", "torch", "twisted", "urllib3", "uv"),
]
_AFTER_VERSION = re.compile(r"-py[0-9.]+\b|\.(?:win|linux|macosx|tar|zip|egg|exe|msi)|-[0-9]\.src")


@attrs.frozen
class RealPage:
    """A page of the default index, and how it is published (PEP 503, 691, 700, 714)."""

    name: str
    document: bytes

    def uploaded_before(self, moment: datetime | None) -> dict[str, Any]:
        """Return what the index states, without later files and versions that had these alone."""
        page: dict[str, Any] = json.loads(self.document)
        if moment is None:
            return page
        kept, files = [], page["files"]
        for file in files:
            if datetime.fromisoformat(file["upload-time"]) < moment:
                kept.append(file)
        with_files = {self._version(file["filename"]) for file in files}
        left = {self._version(file["filename"]) for file in kept}
        gone = with_files - left
        versions = [each for each in page["versions"] if Version(each) not in gone]
        return page | {"files": kept, "versions": versions if kept else []}

    def _version(self, filename: str) -> Version:
        """Read the version in the name of a file, of an old installer for Windows, too."""
        try:
            if filename.endswith(".whl"):
                return Version(filename.split("-")[1])
            return parse_sdist_filename(filename)[1]
        except (InvalidName, InvalidSdistFilename, InvalidVersion):
            return Version(_AFTER_VERSION.split(filename[len(self.name) + 1 :])[0])

    def in_json(self, moment: datetime | None = None) -> bytes:
        page = self.uploaded_before(moment)
        meta = {"api-version": "1.4"}
        files = [self._file(file) for file in page.pop("files")]
        stated = {key: page[key] for key in page if key not in ("meta", "name")}
        document = {"meta": meta, "name": self.name} | stated | {"files": files}
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()

    def in_html(self, moment: datetime | None = None) -> bytes:
        title = f"Links for {self.name}"
        lines = ["<!DOCTYPE html>", '<html lang="en">', "<head>", '<meta charset="utf-8">']
        lines += ['<meta name="pypi:repository-version" content="1.4">']
        lines += [f"<title>{title}</title>", "</head>", "<body>", f"<h1>{title}</h1>"]
        for file in map(self._file, self.uploaded_before(moment)["files"]):
            (digest,) = (f"{name}={value}" for name, value in file["hashes"].items())
            line = f'<a href="{file["url"]}#{digest}"'
            for key in ("requires-python", "provenance", "size", "upload-time"):
                if key in file:
                    line += f' data-{key}="{escape(str(file[key]))}"'
            if "yanked" in file:
                reason = "" if file["yanked"] is True else escape(file["yanked"])
                line += f' data-yanked="{reason}"'
            if metadata := file.get("core-metadata"):
                value = f"sha256={metadata['sha256']}"
                line += f' data-core-metadata="{value}" data-dist-info-metadata="{value}"'
            lines += [f"{line}>{file['filename']}</a><br>"]
        lines = [line.replace("\r", "").replace("\n", "&#10;") for line in lines]
        page = "\n".join([*lines, "</body>", "</html>", ""])
        return page.encode("ascii", "xmlcharrefreplace")

    @staticmethod
    def _file(stated: dict[str, Any]) -> dict[str, Any]:
        """Write an entry with one digest of each thing, a relative link, and no empty value."""
        known = ("filename", "url", "hashes", "core-metadata", "data-dist-info-metadata")
        file = {"filename": stated["filename"], "url": quote(stated["filename"], safe="")}
        file["hashes"] = {"sha256": stated["hashes"]["sha256"]}
        if (metadata := stated.get("core-metadata")) is not None:
            file["core-metadata"] = metadata
        return file | {
            key: value
            for key, value in stated.items()
            if key not in known and value not in (None, False, "")
        }


@pytest.fixture(scope="module")
def pages() -> list[RealPage]:
    """The pages of the default index, each fetched once."""
    (index,) = Settings.read({}, {}).index_urls

    def fetch(name: str) -> RealPage:
        with urlopen(Request(f"{index}{name}/", headers={"Accept": JSON}), timeout=60) as page:
            return RealPage(name, page.read())

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(fetch, PROJECTS))


@pytest.fixture(scope="module")
def real_index(pages: list[RealPage]) -> Iterator[FakeIndex]:
    """An index with these pages, so that all proxies see the same."""
    with FakeIndex() as index:
        for page in pages:
            index.page(page.name, page.document, JSON)
        yield index


def test_no_rules(
    pages: list[RealPage], real_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path
) -> None:
    """Without rules, and with rules that exclude none of its files, a page is as it was before."""
    rules = configs.rules(
        deny=["unknown-*", "attrs==0.0", f"sha256:{'0' * 64}"],
        exclude_newer=datetime.now(UTC).isoformat(),
        exclude_newer_unknown="exclude",
    )
    config = configs.write(tmp_path, configs.index("real", real_index), rules)
    plain, ruled = start_proxy(real_index), start_proxy(config=config)
    for page, accept in product(pages, (JSON, HTML)):
        expected = page.in_json() if accept == JSON else page.in_html()
        for proxy in (plain, ruled):
            assert proxy.get(f"/index/{page.name}/", Accept=accept).body == expected, page.name


@pytest.mark.parametrize("days", [7, 3000])
def test_ages(
    pages: list[RealPage], real_index: FakeIndex, start_proxy: StartProxy, days: int
) -> None:
    """With an age, a page is that with the younger files taken away by hand."""
    proxy = start_proxy(real_index, exclude_newer=f"{days} days")
    for page in pages:
        since = datetime.now(UTC) - timedelta(days=days)
        body = proxy.get(f"/index/{page.name}/", Accept=JSON).body
        until = datetime.now(UTC) - timedelta(days=days)
        assert body in (page.in_json(since), page.in_json(until)), page.name
