"""``DELETE`` answered with 200, then ``kill -9``: the new process asks before it uses a page."""

from __future__ import annotations

import http.server
import itertools
import json
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from signal import SIGKILL

import attrs
import pytest

from tests.support.behavior import Behavior
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy, Reply

JSON = {"Accept": "application/vnd.pypi.simple.v1+json"}
HTML = {"Accept": "text/html"}
PAGES = {"/index/": "/simple/", "/index/demo/": "/simple/demo/", "/index/other/": "/simple/other/"}
#: What each DELETE is about, in more than one spelling.
DELETES = {
    "/cache/demo": ["/index/demo/"],
    "/cache/DEMO": ["/index/demo/"],
    "/cache/d%65mo": ["/index/demo/"],
    "/cache/list": ["/index/"],
    "/cache": list(PAGES),
}


def _fill(index: FakeIndex) -> None:
    for name in ("demo", "other"):
        index.add(make_wheel(name, "1.0"))


def _delete(proxy: Proxy, path: str) -> None:
    assert proxy.request("DELETE", path).status == 200


def _get(proxy: Proxy, path: str, form: dict[str, str]) -> Reply:
    reply = proxy.request("GET", path, form)
    assert reply.status == 200
    return reply


@pytest.mark.parametrize("path", DELETES)
@pytest.mark.parametrize("under_way", [False, True])
def test_killed(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, path: str, under_way: bool
) -> None:
    """What was deleted is no hit after ``kill -9``, whether or not a request for it was under way.

    All else is a hit.
    """
    _fill(fake_index)
    settings: dict[str, object] = {"cache_dir": tmp_path / "cache"}
    proxy = start_proxy(fake_index, index_ttl=0.000001 if under_way else 1800, **settings)
    for page, form in itertools.product(PAGES, (JSON, HTML)):
        _get(proxy, page, form)
    with ThreadPoolExecutor(len(PAGES)) as clients:
        if under_way:
            fake_index.clear_requests()
            for page in DELETES[path]:
                fake_index.script(PAGES[page], Behavior(hold=True))
                clients.submit(_ignoring, proxy, page)
            _wait_for_requests(fake_index, len(DELETES[path]))
        _delete(proxy, path)
        proxy.stop(SIGKILL)
        for page in DELETES[path] if under_way else []:
            fake_index.release(PAGES[page])
    fake_index.wait_until_quiet()
    proxy = start_proxy(fake_index, index_ttl=1800, **settings)
    for page in PAGES:
        fake_index.clear_requests()
        status = _get(proxy, page, JSON).headers["x-cache"]
        if page in DELETES[path]:
            assert status == "MISS"
            (seen,) = fake_index.requests()
            assert "if-none-match" not in seen.headers
        else:
            assert status == "HIT"
        assert _get(proxy, page, HTML).headers["x-cache"] == "HIT"


def _wait_for_requests(index: FakeIndex, number: int) -> None:
    index.wait_for(lambda requests: len(requests) >= number)


def _ignoring(proxy: Proxy, page: str) -> None:
    with suppress(OSError, HTTPException):
        proxy.request("GET", page, JSON)


@pytest.mark.parametrize("path", DELETES)
def test_killed_in_an_outage(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, path: str
) -> None:
    """After that a forgotten page is the fallback that it was; what was removed is none."""
    _fill(fake_index)
    settings: dict[str, object] = {"cache_dir": tmp_path / "cache"}
    proxy = start_proxy(fake_index, **settings)
    for page in PAGES:
        _get(proxy, page, JSON)
    _delete(proxy, path)
    proxy.stop(SIGKILL)
    proxy = start_proxy(fake_index, offline=1, **settings)
    for page in DELETES[path]:
        reply = proxy.request("GET", page, JSON)
        if path == "/cache":
            assert reply.status == 503
        else:
            assert (reply.status, reply.headers["x-cache"]) == (200, "STALE")


@attrs.define(eq=False)
class _Numbered:
    """An index whose page has another number each time, given as the request arrives."""

    url: str = ""
    given: int = 0

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[_Numbered]:
        """Serve as long as the block lasts."""
        index, numbers = cls(), itertools.count(1)

        class Answers(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                number = index.given = next(numbers)
                page = {"meta": {"api-version": "1.0"}, "name": "demo", "files": [], "n": number}
                body = json.dumps(page).encode()
                self.send_response(200)
                self.send_header("Content-Type", JSON["Accept"])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(ConnectionError):
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
            index.url = f"http://127.0.0.1:{server.server_port}/simple/"
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            try:
                yield index
            finally:
                server.shutdown()
                thread.join()


def _delete_and_ask(proxy: Proxy, index: _Numbered, latest: list[int]) -> None:
    """Delete and ask in turn until the process dies; note the newest page of before a DELETE."""
    with suppress(OSError, HTTPException):
        while True:
            before = index.given
            _delete(proxy, "/cache/demo")
            latest.append(before)
            for form in (JSON, HTML):
                reply = _get(proxy, "/index/demo/", form)
                if form is JSON:
                    assert json.loads(reply.body)["n"] > before


def test_at_any_moment(tmp_path: Path) -> None:
    """Clients delete and ask at once: no page from before a DELETE is used after it, nor kept."""
    moments = random.Random(1)
    with _Numbered.running() as index:
        settings = {"PROXPI_INDEX_URL": index.url, "PROXPI_CACHE_DIR": str(tmp_path / "cache")}
        for _ in range(4):
            latest: list[int] = []
            with Proxy(settings, folder=tmp_path) as proxy, ThreadPoolExecutor(4) as clients:
                asking = [clients.submit(_delete_and_ask, proxy, index, latest) for _ in range(4)]
                # The moment is random on purpose; nothing is waited for.
                threading.Event().wait(moments.uniform(0.3, 0.6))
                proxy.stop(SIGKILL)
                for each in asking:
                    each.result()
            assert latest
            with Proxy(settings, folder=tmp_path) as proxy:
                assert json.loads(_get(proxy, "/index/demo/", JSON).body)["n"] > max(latest)


def test_answers_are_bounded_by_the_upstream(
    fake_index: FakeIndex, start_proxy: StartProxy
) -> None:
    """Hundreds of DELETEs while five clients wait: each gets the answer that it joined."""
    _fill(fake_index)
    proxy = start_proxy(fake_index)
    fake_index.script("/simple/demo/", Behavior(hold=True))
    fake_index.clear_requests()
    with ThreadPoolExecutor(5) as clients:
        asking = []
        for number in range(5):
            asking.append(clients.submit(_get, proxy, "/index/demo/", JSON))
            _wait_for_requests(fake_index, number + 1)
            for _ in range(100):
                _delete(proxy, "/cache/demo")
        fake_index.release("/simple/demo/")
        assert {each.result().headers["x-cache"] for each in asking} == {"MISS"}
    assert len(fake_index.requests()) == 5
