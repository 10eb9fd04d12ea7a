"""The metrics of a real process agree exactly with what its clients did."""

from __future__ import annotations

import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prometheus_client.openmetrics import parser as openmetrics

from tests.support import configs
from tests.support.counted import samples
from tests.support.debian import need
from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy, Reply

_JSON = "application/vnd.pypi.simple.v1+json"
_OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


class _Run:
    """Requests to a proxy, with the kind and the outcome that each must have."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self.requests: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.saved: Counter[str] = Counter()

    def expect(
        self, kind: str, outcome: str, path: str, method: str = "GET", **fields: str
    ) -> Reply:
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        reply = self._proxy.request(method, path, headers)
        if outcome in ("hit", "miss", "stale", "revalidated"):
            assert reply.headers.get("x-cache") == outcome.upper(), (path, reply)
            assert ("server-timing" in reply.headers) is (outcome != "hit"), (path, reply)
        self.requests[f"kind={kind},outcome={outcome}"] += 1
        self.sent[f"kind={kind}"] += len(reply.body)
        if outcome in ("hit", "stale", "revalidated"):
            self.saved[f"kind={kind}"] += len(reply.body)
        return reply


def _labelled(found: dict[str, float], name: str) -> dict[str, float]:
    """Return the values of one metric by its labels, without zeros."""
    beginning = f"proxpi_{name}{{"
    return {
        sample.removeprefix(beginning).rstrip("}"): value
        for sample, value in found.items()
        if sample.startswith(beginning) and value
    }


def _scripted(run: _Run, index: FakeIndex, internal: FakeIndex) -> None:
    wheel, missing = make_wheel("demo", padding=300_000), make_wheel("absent")
    index.add(wheel)
    internal.add(make_wheel("quick"))
    index.script(index.add(missing), Behavior(status=503))
    index.script("/simple/locked/", Behavior(status=401))
    page, file, like = "/index/demo/", f"/index/demo/{wheel.filename}", {"Accept": _JSON}
    run.expect("page", "miss", page, **like)
    for _ in range(4):
        run.expect("page", "hit", page, **like)
    etag = run.expect("page", "hit", page, **like).headers["etag"]
    for _ in range(2):
        assert run.expect("page", "hit", page, If_None_Match=etag, **like).status == 304
    run.expect("page", "none", "/index/Demo/")
    run.expect("page", "refused", "/index/nothing/")
    run.expect("page", "error", "/index/locked/")
    run.expect("list", "miss", "/index/", **like)
    run.expect("list", "revalidated", "/index/", **like)
    run.expect("page", "miss", "/index/quick/", **like)
    for _ in range(2):
        run.expect("page", "revalidated", "/index/quick/", **like)
    internal.script("/simple/quick/", Behavior(status=500))
    run.expect("page", "stale", "/index/quick/", **like)
    run.expect("file", "miss", file)
    for _ in range(3):
        assert run.expect("file", "hit", file).body == wheel.data
    for _ in range(2):
        assert run.expect("file", "hit", file, Range="bytes=-100").body == wheel.data[-100:]
        run.expect("file", "hit", file, "HEAD")
    run.expect("file", "refused", file, Range="bytes=9999999-")
    run.expect("metadata", "miss", f"{file}.metadata")
    for _ in range(2):
        run.expect("metadata", "hit", f"{file}.metadata")
    assert run.expect("file", "redirect", f"/index/absent/{missing.filename}").status == 302
    run.expect("file", "refused", "/index/demo/none-1.0.zip")
    run.expect("other", "refused", "/nowhere")
    run.expect("other", "none", "/health")
    run.expect("other", "none", "/cache/demo", "DELETE")


def test_scripted_run(
    fake_index: FakeIndex, extra_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path
) -> None:
    """Requests, durations and bytes are those of a scripted run; both formats can be read."""
    config = configs.write(
        tmp_path,
        configs.index("public", fake_index),
        configs.index("internal", extra_index, projects=["quick"], owns=["quick"], ttl=1e-6),
    )
    proxy = start_proxy(config=config, prefetch="off")
    run = _Run(proxy)
    exposition = proxy.get("/metrics")
    before = samples(exposition.text)
    # An exposition is counted once it is sent.
    run.requests["kind=other,outcome=none"] += 1
    run.sent["kind=other"] += len(exposition.body)
    _scripted(run, fake_index, extra_index)
    text = proxy.get("/metrics").text
    now = samples(text)

    def counted(name: str) -> dict[str, float]:
        old = _labelled(before, name)
        found = {key: value - old.get(key, 0.0) for key, value in _labelled(now, name).items()}
        return {key: value for key, value in found.items() if value}

    assert counted("requests_total") == run.requests
    assert counted("request_seconds_count") == run.requests
    assert counted("saved_bytes_total") == {key: size for key, size in run.saved.items() if size}
    assert counted("sent_bytes_total") == run.sent
    misses = {f"index=public,kind={kind}": 1 for kind in ("page", "list", "file", "metadata")}
    assert counted("miss_seconds_count") == {**misses, "index=internal,kind=page": 1}
    assert [*counted("saved_seconds_total")] == ["index=public"]
    for gauge in ("waiters", "downloads_in_flight", "breaker_state{index=public}"):
        assert now[f"proxpi_{gauge}"] == 0, gauge
    assert now["proxpi_cache_files"] == 2
    assert now["proxpi_cache_bytes"] > 300_000
    _lint(text)
    reply = proxy.get("/metrics", Accept=_OPENMETRICS)
    assert reply.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = openmetrics.text_string_to_metric_families(reply.text)  # type: ignore[no-untyped-call]
    (requests,) = (family for family in families if family.name == "proxpi_requests")
    assert sum(sample.value for sample in requests.samples) == 1 + sum(
        _labelled(now, "requests_total").values()
    )


def _lint(exposition: str) -> None:
    """Have promtool check an exposition; it names what is against the conventions."""
    command = [need("prometheus", "promtool"), "check", "metrics"]
    ended = subprocess.run(command, input=exposition, capture_output=True, text=True, check=False)
    assert not ended.returncode and not ended.stdout + ended.stderr, ended


def test_scraped_under_load(fake_index: FakeIndex, start_proxy: StartProxy) -> None:
    """Scrapes meanwhile lose no hit and count none twice; counters only grow."""
    fake_index.add(make_wheel("demo"))
    proxy = start_proxy(fake_index, prefetch="off")
    sample, clients, times = "proxpi_requests_total{kind=page,outcome=hit}", 4, 100
    assert proxy.get("/index/demo/").status == 200

    def hits() -> None:
        for _ in range(times):
            assert proxy.get("/index/demo/").headers["x-cache"] == "HIT"

    scraped = [0.0]
    with ThreadPoolExecutor(clients) as pool:
        loads = [pool.submit(hits) for _ in range(clients)]
        while not all(load.done() for load in loads):
            scraped.append(samples(proxy.get("/metrics").text).get(sample, 0.0))
        for load in loads:
            load.result()
    scraped.append(samples(proxy.get("/metrics").text)[sample])
    assert scraped == sorted(scraped)
    assert scraped[-1] == clients * times
