"""Advisories on malicious packages in a real process: feeds that change, fail, and are large."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.advisories import Entries, affected, modified
from tests.support.clients import pip_install
from tests.support.distributions import Distribution, make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy

_JSON = "application/vnd.pypi.simple.v1+json"
_READ = re.compile(r"advisories: (\d+) entries")


@pytest.fixture
def server() -> Iterator[FakeIndex]:
    """The server of a feed."""
    with FakeIndex() as found:
        yield found


@pytest.fixture
def wheels(fake_index: FakeIndex) -> dict[str, Distribution]:
    """Wheels by ``name-version``: two versions each of a good project and of one with malware."""
    found = {}
    for name in ("evil", "good"):
        for version in ("1.0", "2.0"):
            found[f"{name}-{version}"] = wheel = make_wheel(name, version)
            fake_index.add(wheel)
    return found


def variables(folder: Path, index: FakeIndex, feed: str, *lines: str) -> dict[str, object]:
    """Write a configuration file; return the settings that name it, and a cache folder."""
    rules = ["[rules]", 'advisories = "malicious"', f'advisories-url = "{feed}"', *lines]
    text = ["[[index]]", 'name = "public"', f'url = "{index.url}"', *rules]
    path = folder / "proxpi.toml"
    path.write_text("\n".join(text))
    return {"config": path, "cache_dir": folder / "cache", "prefetch": "off"}


def listed(proxy: Proxy, project: str) -> list[str]:
    """Return the versions of a page."""
    reply = proxy.get(f"/index/{project}/", Accept=_JSON)
    if reply.status == 404:
        return []
    page: dict[str, Any] = json.loads(reply.body)
    assert {entry["filename"].split("-")[1] for entry in page["files"]} == {*page["versions"]}
    found: list[str] = page["versions"]
    return found


def excluded(proxy: Proxy, wheel: Distribution) -> str:
    """Return the sentence for which a file is not sent, or nothing if it is."""
    replies = [
        proxy.get(f"/index/{wheel.project}/{wheel.filename}{end}") for end in ("", ".metadata")
    ]
    assert len({reply.status for reply in replies}) == 1
    if replies[0].status == 200:
        assert replies[0].body == wheel.data
        return ""
    assert [reply.status for reply in replies] == [403, 403]
    return replies[0].text


def entries() -> Entries:
    found = Entries()
    found.put("MAL-2026-1", affected("evil", "2.0"))
    found.put("MAL-2026-2", affected("worse"))
    return found


def test_excluded(
    fake_index: FakeIndex,
    server: FakeIndex,
    start_proxy: StartProxy,
    wheels: dict[str, Distribution],
    tmp_path: Path,
) -> None:
    """Files that an entry names are not listed, not sent, and not installed; others are."""
    feed = entries().serve(server)
    proxy = start_proxy(**variables(tmp_path, fake_index, feed))
    assert proxy.wait_for_line(_READ)[1] == "2"
    assert (listed(proxy, "evil"), listed(proxy, "good")) == (["1.0"], ["1.0", "2.0"])
    assert "the advisory MAL-2026-1" in excluded(proxy, wheels["evil-2.0"])
    assert excluded(proxy, wheels["evil-1.0"]) == excluded(proxy, wheels["good-2.0"]) == ""
    installed, _ = pip_install(tmp_path / "pip", proxy.url, "evil")
    assert installed.version_of("evil") == "1.0"
    statistics = json.loads(proxy.get("/stats").body)["advisories"]
    assert statistics["source"] == feed
    assert (statistics["entries"], statistics["projects"], statistics["error"]) == (2, 2, None)
    source = f'<span class="url">{feed}</span>'
    assert re.search(f"2 entries, read [^<]* ago \\({source}\\)\\.<", proxy.get("/").text)
    metrics = proxy.get("/metrics").text
    assert "proxpi_advisories_entries 2.0" in metrics
    assert "proxpi_advisories_age_seconds" in metrics


def test_changes(
    fake_index: FakeIndex,
    server: FakeIndex,
    start_proxy: StartProxy,
    wheels: dict[str, Distribution],
    tmp_path: Path,
) -> None:
    """Added, changed, withdrawn and vanished entries take effect with the next refresh."""
    feed = entries()
    settings = variables(tmp_path, fake_index, feed.serve(server))

    def versions(refreshed: bool = True) -> tuple[list[str], list[str]]:
        """Return what is listed after a restart, which refreshes at once."""
        feed.serve(server)
        server.clear_requests()
        proxy = start_proxy(**settings)
        if refreshed:
            proxy.wait_for_line(r"advisories: \d+ entries; ")
        found = listed(proxy, "evil"), listed(proxy, "good")
        proxy.stop()
        return found

    assert versions() == (["1.0"], ["1.0", "2.0"])
    feed.put("MAL-2026-3", affected("good", "1.0"), day=2)
    assert versions() == (["1.0"], ["2.0"])
    assert [seen.path for seen in server.requests()] == [
        "/PyPI/modified_id.csv",
        "/PyPI/MAL-2026-3.json",
    ]
    feed.put("MAL-2026-1", affected("evil", "1.0"), day=3)
    assert versions() == (["2.0"], ["2.0"])
    feed.put("MAL-2026-3", affected("good", "1.0"), day=4, withdrawn=modified(4))
    assert versions() == (["2.0"], ["1.0", "2.0"])
    del feed.documents["MAL-2026-1"]
    assert versions() == (["1.0", "2.0"], ["1.0", "2.0"])
    assert versions(refreshed=False) == (["1.0", "2.0"], ["1.0", "2.0"])
    assert [seen.status for seen in server.requests()] in ([304], [])


def test_folder(
    fake_index: FakeIndex,
    start_proxy: StartProxy,
    wheels: dict[str, Distribution],
    tmp_path: Path,
) -> None:
    """A change in a local copy takes effect while proxpi runs, on cached files and pages too."""
    feed, folder = entries(), tmp_path / "osv"
    feed.write(folder)
    proxy = start_proxy(**variables(tmp_path, fake_index, folder.as_uri()))
    assert excluded(proxy, wheels["good-1.0"]) == ""
    tag = proxy.get("/index/good/").headers["etag"]
    assert excluded(proxy, wheels["good-1.0"]) == ""
    feed.put("MAL-2026-3", affected("good", "1.0"), day=2)
    feed.write(folder)
    proxy.wait_for_line("advisories: 3 entries")
    assert listed(proxy, "good") == ["2.0"]
    assert proxy.get("/index/good/", If_None_Match=tag).status == 200
    assert "the advisory MAL-2026-3" in excluded(proxy, wheels["good-1.0"])
    after = len(proxy.output.splitlines())
    feed.put("MAL-2026-3", affected("good", "1.0"), day=3, withdrawn=modified(3))
    feed.write(folder)
    proxy.wait_for_line("advisories: 3 entries; projects whose entries have changed: 1", after)
    assert listed(proxy, "good") == ["1.0", "2.0"]
    assert excluded(proxy, wheels["good-1.0"]) == ""


def test_broken_feed(
    fake_index: FakeIndex,
    server: FakeIndex,
    start_proxy: StartProxy,
    wheels: dict[str, Distribution],
    tmp_path: Path,
) -> None:
    """A feed that is down, cut, or no feed leaves what is known, and its age is shown."""
    feed = entries()
    settings = variables(tmp_path, fake_index, feed.serve(server))
    proxy = start_proxy(**settings)
    proxy.wait_for_line(_READ)
    proxy.stop()
    listing, cut = "/PyPI/modified_id.csv", len(feed.listing) - 20
    for behavior in (
        Behavior(truncate_after=cut),
        Behavior(truncate_after=cut, close_delimited=True),
        Behavior(body=feed.listing[:cut]),
        Behavior(body=b"<html>sign in</html>"),
        Behavior(reset=True),
    ):
        server.script(listing, behavior)
        proxy = start_proxy(**settings)
        proxy.wait_for_line("advisories cannot be refreshed")
        assert listed(proxy, "evil") == ["1.0"]
        assert "MAL-2026-1" in excluded(proxy, wheels["evil-2.0"])
        statistics = json.loads(proxy.get("/stats").body)["advisories"]
        assert statistics["error"]
        assert statistics["age"] >= 0
        proxy.stop()


def test_broken_from_the_start(
    fake_index: FakeIndex, server: FakeIndex, start_proxy: StartProxy, tmp_path: Path
) -> None:
    """A feed that was never read stops no build: a line says so, and it is read once it works."""
    wheel = make_wheel("evil", "2.0")
    fake_index.add(wheel)
    feed = entries()
    settings = variables(tmp_path, fake_index, feed.serve(server))
    server.script("/PyPI/all.zip", Behavior(truncate_after=100))
    proxy = start_proxy(**settings)
    proxy.wait_for_line("files are served without them")
    assert excluded(proxy, wheel) == ""
    server.script("/PyPI/all.zip")
    proxy.wait_for_line(_READ)
    assert "MAL-2026-1" in excluded(proxy, wheel)


def test_exceptions(
    fake_index: FakeIndex,
    server: FakeIndex,
    start_proxy: StartProxy,
    wheels: dict[str, Distribution],
    tmp_path: Path,
) -> None:
    """An entry that the operator excepts does not count, in any spelling; others do."""
    feed = entries()
    feed.put("MAL-2026-3", affected("good", "1.0"))
    lines = 'advisories-except = ["mal-2026-1", "MAL-1999-1"]'
    proxy = start_proxy(**variables(tmp_path, fake_index, feed.serve(server), lines))
    proxy.wait_for_line(_READ)
    assert (listed(proxy, "evil"), listed(proxy, "good")) == (["1.0", "2.0"], ["2.0"])
    assert excluded(proxy, wheels["evil-2.0"]) == ""


def test_credentials(
    fake_index: FakeIndex, server: FakeIndex, start_proxy: StartProxy, tmp_path: Path
) -> None:
    """The feed gets the credentials of its own URL, and no other; logs and pages show neither."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login index password secret\n")
    feed = entries().serve(server)
    proxy = start_proxy(**variables(tmp_path, fake_index, feed), NETRC=netrc)
    proxy.wait_for_line(_READ)
    assert proxy.get("/index/good/").status == 404
    assert all("authorization" in seen.headers for seen in fake_index.requests())
    assert not any("authorization" in seen.headers for seen in server.requests())
    proxy.stop()
    server.clear_requests()
    server.require_auth("feed", "hidden")
    with_login = feed.replace("//", "//feed:hidden@")
    settings = variables(tmp_path, fake_index, with_login)
    proxy = start_proxy(**settings | {"cache_dir": tmp_path / "other"}, NETRC=netrc)
    proxy.wait_for_line(_READ)
    assert json.loads(proxy.get("/stats").body)["advisories"]["source"] == feed
    assert "hidden" not in proxy.output
    assert not [path for path in (tmp_path / "other").rglob("*") if is_in(b"hidden", path)]


def is_in(text: bytes, path: Path) -> bool:
    return path.is_file() and text in path.read_bytes()


def test_large_feed(
    fake_index: FakeIndex,
    server: FakeIndex,
    start_proxy: StartProxy,
    wheels: dict[str, Distribution],
    tmp_path: Path,
) -> None:
    """A feed with 20,000 entries takes bounded memory, and pages are served while it is read."""
    feed = Entries()
    for number in range(20_000):
        stated = affected(f"p{number}", "1.0", "1.1", ranges=[{"type": "GIT", "events": []}])
        feed.put(f"MAL-2026-{number}", stated, details="Malicious code. " * 100)
    feed.put("MAL-2026-20000", affected("evil", "2.0"))
    server.document("/PyPI/all.zip", feed.archive)
    server.document("/PyPI/modified_id.csv", feed.listing)
    without = start_proxy(fake_index, prefetch="off")
    assert listed(without, "good") == ["1.0", "2.0"]
    proxy = start_proxy(**variables(tmp_path, fake_index, f"{server.origin}/PyPI/"))
    assert listed(proxy, "good") == ["1.0", "2.0"]
    proxy.wait_for_line("advisories: 20001 entries")
    assert listed(proxy, "evil") == ["1.0"]
    assert proxy.memory() - without.memory() < 64 * 1024 * 1024
