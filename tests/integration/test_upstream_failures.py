"""What clients get while an upstream fails: an old page, or a plain reason."""

from __future__ import annotations

import json

import attrs
import pytest

from tests.integration.conftest import EXPIRED_AT_ONCE, StartProxy
from tests.support.behavior import Behavior
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex

_JSON = "application/vnd.pypi.simple.v1+json"
_LOGIN = b"""<!DOCTYPE html><html><head><title>Sign in</title></head><body>
<form action="/login" method="post"><input name="user"><input type="password" name="password">
</form><p>No account yet? Ask your administrator.</p></body></html>"""


@attrs.frozen
class Failure:
    """One way to fail: how the upstream behaves, and what a client is told."""

    name: str
    behavior: Behavior | None
    status: int


_FAILURES = [
    Failure("refused", None, 503),
    Failure("silent", Behavior(silent=True), 503),
    Failure("stalled", Behavior(hold_after=20), 503),
    Failure("error-500", Behavior(status=500, body=b"oops"), 503),
    Failure("error-503", Behavior(status=503, body=b"later"), 503),
    Failure("error-504", Behavior(status=504, body=b"later"), 503),
    Failure("busy-429", Behavior(status=429, headers={"Retry-After": "3600"}), 503),
    Failure("truncated", Behavior(truncate_after=30), 503),
    Failure("truncated-chunks", Behavior(truncate_after=30, chunked=True), 503),
    Failure("reset", Behavior(truncate_after=30, reset=True), 503),
    Failure("reset-at-once", Behavior(reset=True), 503),
    Failure("rejected-401", Behavior(status=401), 502),
    Failure("login-page", Behavior(body=_LOGIN, headers={"Content-Type": "text/html"}), 502),
    Failure("broken-json", Behavior(body=b'{"meta": {', headers={"Content-Type": _JSON}), 502),
    Failure("wrong-json", Behavior(body=b"[1, 2]", headers={"Content-Type": _JSON}), 502),
    Failure(
        "next-major-version",
        Behavior(
            body=json.dumps({"meta": {"api-version": "2.0"}, "files": []}).encode(),
            headers={"Content-Type": _JSON},
        ),
        502,
    ),
    Failure("redirects-in-a-circle", Behavior(redirect="./"), 502),
]


_FILE = "/index/known/known-1.0-py3-none-any.whl"


def _is_old_page(text: str) -> bool:
    return "known-1.0-py3-none-any.whl" in text


@pytest.mark.parametrize("failure", _FAILURES, ids=lambda failure: failure.name)
def test_an_upstream_that_fails(
    fake_index: FakeIndex, start_proxy: StartProxy, failure: Failure
) -> None:
    """With nothing cached: 503 or 502 with one plain line; else the old page, marked as stale."""
    for project in ("known", "unknown"):
        fake_index.add(make_wheel(project))
    proxy = start_proxy(fake_index, index_ttl=EXPIRED_AT_ONCE, connect_timeout=1, read_timeout=1)
    assert _is_old_page(proxy.get("/index/known/").text)
    assert proxy.get(_FILE).status == 200
    if failure.behavior is None:
        fake_index.close()
    else:
        fake_index.script("/simple/*", failure.behavior)

    nothing = proxy.get("/index/unknown/")
    assert nothing.status == failure.status
    assert nothing.headers["content-type"].startswith("text/plain")
    assert len(nothing.text.strip().splitlines()) == 1
    assert "Traceback" not in nothing.text
    if failure.status == 503:
        assert 1 <= int(nothing.headers["retry-after"]) <= 30
    else:
        assert "retry-after" not in nothing.headers

    stale = proxy.get("/index/known/")
    assert (stale.status, stale.headers["x-cache"]) == (200, "STALE")
    assert stale.headers["cache-control"] == "max-age=0, must-revalidate"
    assert _is_old_page(stale.text)

    file = proxy.get(_FILE)
    assert (file.status, file.headers["x-cache"]) == (200, "HIT")
    assert file.body == make_wheel("known").data
    assert "Traceback" not in proxy.output


def test_not_here_is_no_failure(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """404, 410, and 403 without credentials all mean that an index lacks a project."""
    for status in (404, 410, 403):
        fake_index.script(f"/simple/absent-{status}/", Behavior(status=status, body=b"no"))
    proxy = start_proxy(fake_index)
    statuses = [proxy.get(f"/index/absent-{status}/").status for status in (404, 410, 403)]
    assert statuses == [404, 404, 404]


def test_403_for_a_known_project_is_a_failure(
    fake_index: FakeIndex, start_proxy: StartProxy
) -> None:
    """An index that served a project cannot take it away by forbidding it: the old page stays."""
    fake_index.add(make_wheel("known"))
    proxy = start_proxy(fake_index, index_ttl=EXPIRED_AT_ONCE)
    assert proxy.get("/index/known/").status == 200
    fake_index.script("/simple/known/", Behavior(status=403))
    assert proxy.get("/index/known/").headers["x-cache"] == "STALE"


def test_a_forgotten_page_is_asked_for_again(
    fake_index: FakeIndex, start_proxy: StartProxy
) -> None:
    """After an invalidation the page is fetched anew; while that fails the old one still serves."""
    fake_index.add(make_wheel("known"))
    proxy = start_proxy(fake_index)
    assert proxy.get("/index/known/").headers["x-cache"] == "MISS"
    assert proxy.get("/index/known/").headers["x-cache"] == "HIT"
    fake_index.add(make_wheel("known", "2.0"))
    fake_index.close()
    assert proxy.request("DELETE", "/cache/known").status == 200
    stale = proxy.get("/index/known/")
    assert (stale.status, stale.headers["x-cache"]) == (200, "STALE")
    fake_index.reopen()
    assert proxy.request("DELETE", "/cache/known").status == 200
    assert "known-2.0-py3-none-any.whl" in proxy.get("/index/known/").text


def test_an_expired_page_is_renewed(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """A page past its time is asked for with its validator, and a 304 renews it."""
    fake_index.add(make_wheel("known"))
    proxy = start_proxy(fake_index, index_ttl=EXPIRED_AT_ONCE)
    assert proxy.get("/index/known/").headers["x-cache"] == "MISS"
    assert proxy.get("/index/known/").headers["x-cache"] == "REVALIDATED"
    assert [seen.status for seen in fake_index.requests()] == [200, 304]
