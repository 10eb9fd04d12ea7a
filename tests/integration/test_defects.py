"""What the program that proxpi replaces got wrong, each as a test against the real process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest

from tests.integration.conftest import EXPIRED_AT_ONCE, StartProxy
from tests.support.behavior import Behavior
from tests.support.distributions import Distribution, make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.proxy import Proxy

_JSON = "application/vnd.pypi.simple.v1+json"


@pytest.fixture
def other_index() -> Iterator[FakeIndex]:
    """A second index, for extra ones."""
    with FakeIndex() as index:
        yield index


@pytest.fixture
def third_index() -> Iterator[FakeIndex]:
    """A third one."""
    with FakeIndex() as index:
        yield index


def _file(wheel: Distribution) -> str:
    """Where proxpi serves a file."""
    return f"/index/{wheel.project}/{wheel.filename}"


def _listed(proxy: Proxy, project: str) -> list[dict[str, object]]:
    """The entries of a project's page."""
    files: list[dict[str, object]] = json.loads(proxy.get(f"/index/{project}/", Accept=_JSON).body)[
        "files"
    ]
    return files


def test_p1_a_failed_download_is_tried_again(
    fake_index: FakeIndex, start_proxy: StartProxy
) -> None:
    """An upstream that failed for a file once is asked again at the next request."""
    wheel = make_wheel("demo")
    path = fake_index.add(wheel)
    fake_index.script(path, Behavior(status=503))
    proxy = start_proxy(fake_index)
    failed = proxy.get(_file(wheel))
    assert (failed.status, failed.headers["location"]) == (302, fake_index.origin + path)
    fake_index.script(path)
    recovered = proxy.get(_file(wheel))
    assert (recovered.status, recovered.body) == (200, wheel.data)


def test_p2_wrong_bytes_are_never_served(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Bytes that are not those of the page's hash are thrown away, and not remembered."""
    wheel = make_wheel("demo")
    path = fake_index.add(wheel)
    fake_index.script(path, Behavior(flip=100))
    proxy = start_proxy(fake_index)
    refused = proxy.get(_file(wheel))
    assert (refused.status, refused.headers["location"]) == (302, fake_index.origin + path)
    assert len(fake_index.files_asked()) == 2
    fake_index.script(path)
    reply = proxy.get(_file(wheel))
    assert (reply.status, reply.body) == (200, wheel.data)


@pytest.mark.parametrize(
    "behavior",
    [
        Behavior(times=1, flip=100),
        Behavior(times=1, truncate_after=100),
        Behavior(times=1, truncate_after=100, chunked=True),
        Behavior(times=1, truncate_after=100, reset=True),
        Behavior(times=1, length=100),
        Behavior(times=1, body=b""),
        Behavior(
            times=1, body=b"<html>Please log in</html>", headers={"Content-Type": "text/html"}
        ),
    ],
)
def test_p2_bad_bytes_are_asked_once_more(
    fake_index: FakeIndex, start_proxy: StartProxy, behavior: Behavior
) -> None:
    """A download that came wrong or short is tried once more before anybody is told."""
    wheel = make_wheel("demo")
    fake_index.script(fake_index.add(wheel), behavior)
    reply = start_proxy(fake_index).get(_file(wheel))
    assert (reply.status, reply.body) == (200, wheel.data)
    assert len(fake_index.files_asked()) == 2


@pytest.mark.parametrize(
    "content_type",
    [f"{_JSON}; charset=utf-8", f"{_JSON};charset=UTF-8", _JSON.upper(), "application/json", None],
)
def test_p3_a_json_page_is_known_by_any_content_type(
    fake_index: FakeIndex, start_proxy: StartProxy, content_type: str | None
) -> None:
    """JSON lists its files also with a parameter, in capitals, or with no type of its own."""
    wheel = make_wheel("demo")
    fake_index.add(wheel)
    entry = {
        "filename": wheel.filename,
        "url": f"../../files/demo/{wheel.filename}",
        "hashes": {"sha256": wheel.sha256},
    }
    page = {"meta": {"api-version": "1.0"}, "name": "demo", "files": [entry]}
    fake_index.page("demo", json.dumps(page).encode(), content_type)
    proxy = start_proxy(fake_index)
    assert [one["filename"] for one in _listed(proxy, "demo")] == [wheel.filename]
    assert proxy.get(_file(wheel)).body == wheel.data


def test_p4_listing_and_bytes_are_from_one_index(
    fake_index: FakeIndex,
    other_index: FakeIndex,
    third_index: FakeIndex,
    start_proxy: StartProxy,
) -> None:
    """A file name in two extra indexes is taken from the first of them, hash and bytes."""
    first = make_wheel("demo", padding=10)
    second = attrs.evolve(first, data=make_wheel("demo", padding=20).data)
    other_index.add(first)
    third_index.add(second)
    urls = f"{other_index.url},{third_index.url}"
    proxy = start_proxy(fake_index, extra_index_urls=urls)
    (entry,) = _listed(proxy, "demo")
    body = proxy.get(_file(first)).body
    assert entry["hashes"] == {"sha256": hashlib.sha256(body).hexdigest()}
    assert body == first.data
    assert third_index.files_asked() == []


def test_p4_an_index_that_fails_is_not_answered_for(
    fake_index: FakeIndex, other_index: FakeIndex, start_proxy: StartProxy
) -> None:
    """While the first index is down a later one never answers alone."""
    fake_index.add(make_wheel("demo"))
    other_index.add(make_wheel("demo", "99"))
    proxy = start_proxy(fake_index, extra_index_urls=other_index.url)
    fake_index.close()
    reply = proxy.get("/index/demo/")
    assert reply.status == 503
    assert "demo-99" not in reply.text
    fake_index.reopen()
    assert "demo-1.0" in proxy.get("/index/demo/").text.replace("_", "-")


def test_p5_an_old_page_is_better_than_none(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """A page past its time to live is served while the upstream is down, and renewed after."""
    fake_index.add(make_wheel("demo"))
    proxy = start_proxy(fake_index, index_ttl=EXPIRED_AT_ONCE)
    assert proxy.get("/index/demo/").headers["x-cache"] == "MISS"
    fake_index.close()
    stale = proxy.get("/index/demo/")
    assert (stale.status, stale.headers["x-cache"]) == (200, "STALE")
    assert "demo-1.0" in stale.text.replace("_", "-")
    assert stale.headers["cache-control"] == "max-age=0, must-revalidate"
    assert int(stale.headers["age"]) >= 0


def test_p6_one_download_for_all_who_ask(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Ten requests for one cold file are one download, and ten whole answers."""
    wheel = make_wheel("demo", padding=300_000)
    path = fake_index.add(wheel)
    fake_index.script(path, Behavior(hold_after=1000))
    proxy = start_proxy(fake_index)
    with ThreadPoolExecutor(10) as threads:
        replies = [threads.submit(proxy.get, _file(wheel)) for _ in range(10)]
        fake_index.wait_for(lambda requests: any(seen.path == path for seen in requests))
        fake_index.release(path)
        assert {(reply.result().status, reply.result().body) for reply in replies} == {
            (200, wheel.data)
        }
    requests = fake_index.requests()
    assert [seen.path for seen in requests] == ["/simple/demo/", path]


def test_p7_a_slow_download_redirects_and_goes_on(
    fake_index: FakeIndex, start_proxy: StartProxy
) -> None:
    """Past the time-out a client is sent upstream; the download it began serves the next one."""
    wheel = make_wheel("demo", padding=300_000)
    path = fake_index.add(wheel)
    fake_index.script(path, Behavior(hold_after=1000))
    proxy = start_proxy(fake_index, download_timeout=0.1)
    late = proxy.get(_file(wheel))
    assert (late.status, late.headers["location"]) == (302, fake_index.origin + path)
    assert proxy.get(_file(wheel)).status == 302
    fake_index.release(path)
    reply = proxy.get_cached(_file(wheel))
    assert (reply.status, reply.body) == (200, wheel.data)
    assert len(fake_index.files_asked()) == 1


@pytest.mark.parametrize("harm", ["removed", "shortened"])
def test_p8_a_file_lost_from_the_folder_is_fetched_again(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, harm: str
) -> None:
    """A cached file that vanished or shrank on disk is a miss, not an error."""
    wheel = make_wheel("demo")
    fake_index.add(wheel)
    proxy = start_proxy(fake_index, cache_dir=tmp_path / "cache")
    assert proxy.get(_file(wheel)).status == 200
    (cached,) = (tmp_path / "cache").rglob(wheel.filename)
    if harm == "removed":
        cached.unlink()
    else:
        cached.write_bytes(wheel.data[:100])
    reply = proxy.get(_file(wheel))
    assert (reply.status, reply.body) == (200, wheel.data)
    assert reply.headers["x-cache"] == "MISS"
    assert len(fake_index.files_asked()) == 2


def test_p9_any_spelling_of_a_name_works(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Other spellings lead to the normal one, and the upstream is asked for that alone."""
    wheel = make_wheel("demo-app")
    fake_index.add(wheel)
    proxy = start_proxy(fake_index)
    for spelling in ("Demo_App/", "demo.app", "DEMO--app/", "demo-app"):
        reply = proxy.get(f"/index/{spelling}")
        assert reply.status in (301, 302, 307, 308)
        assert reply.headers["location"].endswith("demo-app/")
        assert not reply.headers["location"].startswith(("http:", "//"))
    reply = proxy.get(f"/index/Demo.App/{wheel.filename}")
    assert (reply.status, reply.body) == (200, wheel.data)
    assert {seen.path for seen in fake_index.requests() if not seen.is_file} == {
        "/simple/demo-app/"
    }


def test_p10_a_cold_file_costs_two_requests(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """One page with its slash and one download: no redirect, no HEAD before."""
    wheel = make_wheel("demo")
    path = fake_index.add(wheel)
    proxy = start_proxy(fake_index)
    assert proxy.get(_file(wheel)).status == 200
    asked = [(seen.method, seen.path) for seen in fake_index.requests()]
    assert asked == [("GET", "/simple/demo/"), ("GET", path)]


def test_p10_answers_say_how_long_they_keep(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Pages and files carry validators and freshness, and a known tag is answered with 304."""
    wheel = make_wheel("demo")
    fake_index.add(wheel)
    proxy = start_proxy(fake_index)
    page = proxy.get("/index/demo/")
    assert page.headers["cache-control"] == "public, max-age=60"
    same = proxy.get("/index/demo/", If_None_Match=page.headers["etag"])
    assert (same.status, same.headers["etag"], same.body) == (304, page.headers["etag"], b"")
    file = proxy.get(_file(wheel))
    assert file.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert wheel.sha256 in file.headers["etag"]
    assert proxy.get(_file(wheel), If_None_Match=file.headers["etag"]).status == 304
