"""Scenarios for misses: cold pages, a slow link, a thundering herd, redirects under load.

The slow link (``slow_link.py``) has a round trip of 50 ms and 4 MiB/s for each connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from clients import (
    MIB,
    PAGE_HEADERS,
    download,
    download_at_once,
    get_all,
    get_page,
    probing,
    require_count,
    timed,
)
from environments import BenchmarkError
from programs import Program, Server
from project_list import HTML
from results import NGINX, ORIGINAL, Measure, Target
from scenario import SMALL_PAGE, STREAMING, Benchmark, Scenario, Sizes, is_proxpi

#: Concurrent clients of the pages behind the slow link.
CLIENTS = 16
#: Seconds after which proxpi redirects a client upstream by default.
REDIRECT_AFTER = 0.9


def _pages(sizes: Sizes, files: int = 300) -> list[str]:
    return [f"bulk-{number:04}-of-{files}" for number in range(sizes.cold_pages)]


def _cold_measures(sizes: Sizes) -> list[Measure]:
    many = f"{sizes.cold_pages:,} pages of 300 files"
    return [
        Measure("cold_cpu", f"{many}, cold: CPU ms per page"),
        Measure("cold_small_cpu", "… of 10 files"),
        Measure("memory_idle", "memory: idle, MiB"),
        Measure("memory_full", f"… after {many}, MiB"),
        Measure("memory_again", "… after these were requested again, MiB"),
        Measure("restart_asked", f"restart: upstream requests for {many}"),
    ]


def _paths(names: Sequence[str]) -> list[str]:
    return [f"/index/{name}/" for name in names]


def _cpu(server: Server, paths: Sequence[str]) -> float:
    """Request pages in turn; return the CPU time of the server for each, in milliseconds."""
    before = server.cpu_seconds()
    get_all(server.port, paths, 1, PAGE_HEADERS)
    return (server.cpu_seconds() - before) / len(paths) * 1e3


def _cold_pages(bench: Benchmark, programs: Sequence[Program]) -> None:
    """Request many pages in turn, then again, then again after a restart."""
    small = _pages(bench.sizes, 10)
    bench.prepare(small)
    for program in programs:
        with bench.started(program) as server:
            bench.note("cold_small_cpu", server, _cpu(server, _paths(small)))
    names = _pages(bench.sizes)
    paths = _paths(names)
    bench.prepare(names)
    for program in programs:
        folder = bench.new_folder()
        settings = {"PROXPI_CACHE_DIR": str(folder / "cache")}
        with bench.started(program, None, settings, folder) as server:
            bench.note("memory_idle", server, server.memory() / MIB)
            bench.note("cold_cpu", server, _cpu(server, paths))
            bench.note("memory_full", server, server.memory() / MIB)
            if bench.first:
                get_all(server.port, paths, 1, PAGE_HEADERS)
                bench.note("memory_again", server, server.memory() / MIB)
        if bench.first and program.name != ORIGINAL:
            requests = bench.index.request_count()
            with bench.started(program, None, settings, folder) as server:
                get_all(server.port, paths, 1, PAGE_HEADERS)
                bench.note("restart_asked", server, bench.index.request_count() - requests)


def _slow_link_measures(sizes: Sizes) -> list[Measure]:
    what = f"herd of {sizes.herd_clients}, cold {sizes.herd_wheel_mib} MiB wheel, slow link"
    return [
        Measure("far_pages", f"{sizes.distant_pages} cold pages, slow link, {CLIENTS} clients: s"),
        Measure("herd_fetched", f"{what}: upstream downloads"),
        Measure("herd_last", "… last client complete, s"),
        Measure("herd_factor", "… last client complete, relative to a direct download"),
        Measure("herd_first", "… first byte, median, s"),
        Measure("herd_cpu", "… CPU s"),
    ]


def _slow_link(bench: Benchmark, programs: Sequence[Program]) -> None:
    names = [f"far-{number:03}-of-10" for number in range(bench.sizes.distant_pages)]
    bench.prepare(names, bench.distant)
    for program in programs:
        with bench.started(program, bench.distant) as server:
            spent = get_all(server.port, _paths(names), CLIENTS, PAGE_HEADERS)
            bench.note("far_pages", server, spent)
        with bench.started(program, bench.distant, STREAMING) as server:
            _herd(bench, server)


def _herd(bench: Benchmark, server: Server) -> None:
    project = f"blob-{bench.sizes.herd_wheel_mib}-of-1"
    _, direct, size = bench.distant.files(project)[0]
    alone = download(bench.distant.port, direct, size)
    path, _ = bench.file(server, project, bench.distant)
    downloads, before = bench.index.download_count(), server.cpu_seconds()
    done = download_at_once(server, path, size, bench.sizes.herd_clients)
    bench.note("herd_fetched", server, bench.index.download_count() - downloads)
    bench.note("herd_cpu", server, server.cpu_seconds() - before)
    if done:
        last = max(result.last for result in done)
        bench.note("herd_last", server, last)
        bench.note("herd_factor", server, last / alone.last)
        bench.note("herd_first", server, median(result.first for result in done))


def _latency_measures(sizes: Sizes) -> list[Measure]:
    what = f"cold page of {sizes.huge_page:,} files: other requests, maximal latency"
    return [
        Measure("pause_json", f"{what}, JSON, gzip, ms"),
        Measure("pause_html", f"{what}, HTML, ms"),
        Measure("timer_off", f"redirect after {REDIRECT_AFTER} s, load: maximal deviation, ms"),
    ]


def _latency(bench: Benchmark, programs: Sequence[Program]) -> None:
    if not bench.first:
        return
    names = {f"huge-{kind}-of-{bench.sizes.huge_page}": kind for kind in ("json", "html")}
    bench.prepare(list(names))
    for program in programs:
        with bench.started(program) as server:
            for name, kind in names.items():
                path, headers = f"/index/{name}/", HTML if kind == "html" else PAGE_HEADERS
                with probing(server, "/health") as probe:
                    response = get_page(server, path, headers)
                # nginx passes the JSON of the index on, also to clients that prefer HTML.
                mark = b"</a>" if response.body.startswith(b"<") else b'"filename"'
                require_count(server, response, mark, bench.sizes.huge_page)
                bench.note(f"pause_{kind}", server, probe.max_latency)
        if is_proxpi(program):
            with bench.started(program, bench.distant) as server:
                _redirects(bench, server)


def _redirects(bench: Benchmark, server: Server) -> None:
    """Let clients wait for a slow download until their redirect, under load."""
    small = len(get_page(server, SMALL_PAGE).body)
    # 5 MiB take at least 1.25 s over the slow link.
    path, _ = bench.file(server, "blob-5-of-1", bench.distant)
    get_page(server, f"{path.rpartition('/')[0]}/")  # so that only the file is cold

    def wait(_: int) -> float:
        spent, response = timed(server.get, path, {})
        if response.status != 302:
            raise BenchmarkError(f"{server.program.name}: status {response.status} for {path}")
        return spent

    with ThreadPoolExecutor(bench.sizes.herd_clients + 1) as pool:
        load = pool.submit(bench.load.run, server, SMALL_PAGE, PAGE_HEADERS, small)
        waits = list(pool.map(wait, range(bench.sizes.herd_clients)))
        load.result()
    bench.note("timer_off", server, max(abs(wait - REDIRECT_AFTER) for wait in waits) * 1e3)


SCENARIOS = [
    Scenario(
        "cold-pages",
        _cold_measures,
        [
            Target("cold_cpu", "≤", 5),
            Target("memory_idle", "≤", 60),
            Target("memory_full", "≤", 120),
        ],
        _cold_pages,
    ),
    Scenario(
        "slow-link",
        _slow_link_measures,
        [
            Target("far_pages", "≤", 1.15, NGINX),
            Target("herd_fetched", "≤", 1),
            Target("herd_factor", "≤", 1.1),
        ],
        _slow_link,
    ),
    Scenario("latency", _latency_measures, [], _latency),
]
