"""Scenarios for hits: small and large pages, files and ranges on 16 persistent connections.

The load generator has one thread. It needs a core of its own; one row says how much of a core it
used. Each page is JSON with gzip.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from clients import PAGE_HEADERS, get_cached, get_page, gunzip, timed
from programs import Program, Server
from results import NGINX, ORIGINAL, Measure, Target
from scenario import SMALL_PAGE, Benchmark, Scenario, Sizes

#: Requests of one client for the large page.
TIMES = 20
#: Bytes of the range at the end of a wheel, and MiB of the wheel.
RANGE, RANGE_WHEEL = 8192, 10


def _small_measures(_: Sizes) -> list[Measure]:
    rate, cpu = "requests/s", "CPU µs/request"
    client = "cores used by the load generator"
    return [
        Measure("small_rate", f"page of 10 files, warm: {rate}", more_is_better=True),
        Measure("small_cpu", f"… {cpu}"),
        Measure("small_client", f"… {client}", more_is_better=None),
        Measure("unseen_rate", f"… unseen request heads, {rate}", more_is_better=True),
        Measure("unseen_cpu", f"… unseen request heads, {cpu}"),
        Measure("unseen_client", f"… unseen request heads, {client}", more_is_better=None),
        Measure("conditional_rate", f"… If-None-Match, 304, {rate}", more_is_better=True),
        Measure("conditional_share", "… 304, rate relative to 200", more_is_better=True),
        Measure("wheel_rate", f"100 KiB wheel, warm: {rate}", more_is_better=True),
        Measure("wheel_cpu", f"… {cpu}"),
        Measure(
            "range_rate",
            f"last {RANGE:,} bytes of a {RANGE_WHEEL} MiB wheel, warm: {rate}",
            more_is_better=True,
        ),
        Measure("range_cpu", f"… {cpu}"),
    ]


def _large_measures(sizes: Sizes) -> list[Measure]:
    what = f"page of {sizes.large_page:,} files, warm"
    return [
        Measure("large_rate", f"{what}: requests/s", more_is_better=True),
        Measure("large_cpu", "… CPU µs/request"),
        Measure("large_one", "… one client, ms"),
    ]


def _small(bench: Benchmark, programs: Sequence[Program]) -> None:
    for program in programs:
        with bench.started(program) as server:
            _small_page(bench, server)
            path, size = bench.file(server, "wheel-of-1")
            get_cached(server, path)
            loaded = bench.load.run(server, path, {}, size)
            bench.note_load("wheel", server, loaded)
            # Resolvers read the metadata of a large wheel from its end.
            path, _ = bench.file(server, f"blob-{RANGE_WHEEL}-of-1")
            get_cached(server, path)
            end = {"Range": f"bytes=-{RANGE}"}
            if len(get_cached(server, path, end).body) == RANGE:
                loaded = bench.load.run(server, path, end, RANGE)
                bench.note_load("range", server, loaded)


def _small_page(bench: Benchmark, server: Server) -> None:
    response = get_page(server, SMALL_PAGE)
    gunzip(response)
    seen = bench.load.run(server, SMALL_PAGE, PAGE_HEADERS, len(response.body))
    unseen = bench.load.run(server, SMALL_PAGE, PAGE_HEADERS, len(response.body), unseen=True)
    for key, loaded in (("small", seen), ("unseen", unseen)):
        bench.note_load(key, server, loaded)
        bench.note(f"{key}_client", server, loaded.client)
    conditional = {**PAGE_HEADERS, "If-None-Match": response.etag}
    # The original sends no entity tags.
    if response.etag and server.get(SMALL_PAGE, conditional).status == 304:
        loaded = bench.load.run(server, SMALL_PAGE, conditional, 0)
        bench.note("conditional_rate", server, loaded.rate)
        bench.note("conditional_share", server, loaded.rate / seen.rate)


def _large(bench: Benchmark, programs: Sequence[Program]) -> None:
    name = f"large-of-{bench.sizes.large_page}"
    bench.prepare([name])
    for program in programs:
        with bench.started(program) as server:
            path = f"/index/{name}/"
            response = get_page(server, path)
            gunzip(response)
            alone = [timed(get_page, server, path)[0] for _ in range(TIMES)]
            bench.note("large_one", server, median(alone) * 1e3)
            loaded = bench.load.run(server, path, PAGE_HEADERS, len(response.body))
            bench.note_load("large", server, loaded)


SCENARIOS = [
    Scenario(
        "hits",
        _small_measures,
        [
            Target("small_rate", "≥", 35, ORIGINAL),
            Target("small_cpu", "≤", 1, NGINX),
            Target("unseen_rate", "≥", 8, ORIGINAL),
            Target("conditional_share", "≥", 1),
            Target("wheel_rate", "≥", 30, ORIGINAL),
            Target("wheel_cpu", "≤", 1, NGINX),
            Target("range_rate", "≥", 100, ORIGINAL),
        ],
        _small,
        with_uvloop=True,
    ),
    Scenario(
        "large-page",
        _large_measures,
        [Target("large_rate", "≥", 300, ORIGINAL), Target("large_one", "≤", 1, NGINX)],
        _large,
    ),
]
