"""What is cached already: pages, files and ranges, asked for over and over on 16 connections.

All connections are kept. One thread of the load generator asks; it wants a core of its own, and the
row that says how much of one it took tells whether it left room. Each page is JSON with gzip.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from bench import SMALL_PAGE, Bench, Scenario, Sizes
from load import PAGE_HEADERS, gunzipped, page, timed, warmed
from programs import Program, Running
from values import NGINX, ORIGINAL, Measure, Target

#: How often the large page is asked for by one client.
TIMES = 20
#: Bytes of the range, and MiB of the wheel whose end it is.
RANGE, RANGED = 8192, 10


def _small_measures(_: Sizes) -> list[Measure]:
    rate, cpu = "requests/s", "CPU µs/request"
    client = "cores that the load generator took"
    return [
        Measure("small_rate", f"page of 10 files, warm: {rate}", more_is_better=True),
        Measure("small_cpu", f"… {cpu}"),
        Measure("small_client", f"… {client}", more_is_better=None),
        Measure("unseen_rate", f"… heads never seen before, {rate}", more_is_better=True),
        Measure("unseen_cpu", f"… heads never seen before, {cpu}"),
        Measure("unseen_client", f"… heads never seen before, {client}", more_is_better=None),
        Measure("conditional_rate", f"… If-None-Match, 304, {rate}", more_is_better=True),
        Measure("conditional_share", "… 304, times the rate of 200", more_is_better=True),
        Measure("wheel_rate", f"100 KiB wheel, warm: {rate}", more_is_better=True),
        Measure("wheel_cpu", f"… {cpu}"),
        Measure(
            "range_rate",
            f"last {RANGE:,} bytes of a {RANGED} MiB wheel, warm: {rate}",
            more_is_better=True,
        ),
        Measure("range_cpu", f"… {cpu}"),
    ]


def _large_measures(sizes: Sizes) -> list[Measure]:
    what = f"page of {sizes.large:,} files, warm"
    return [
        Measure("large_rate", f"{what}: requests/s", more_is_better=True),
        Measure("large_cpu", "… CPU µs/request"),
        Measure("large_one", "… one client, ms"),
    ]


def _small(bench: Bench, programs: Sequence[Program]) -> None:
    for program in programs:
        with bench.started(program) as server:
            _small_page(bench, server)
            path, size = bench.file(server, "wheel-of-1")
            warmed(server, path)
            loaded = bench.load.run(server, path, {}, size)
            bench.note("wheel_rate", server, loaded.rate)
            bench.note("wheel_cpu", server, loaded.cpu)
            # Resolvers read what a large wheel is about from its end.
            path, _ = bench.file(server, f"blob-{RANGED}-of-1")
            warmed(server, path)
            end = {"Range": f"bytes=-{RANGE}"}
            if len(warmed(server, path, end).body) == RANGE:
                loaded = bench.load.run(server, path, end, RANGE)
                bench.note("range_rate", server, loaded.rate)
                bench.note("range_cpu", server, loaded.cpu)


def _small_page(bench: Bench, server: Running) -> None:
    reply = page(server, SMALL_PAGE)
    gunzipped(reply)
    seen = bench.load.run(server, SMALL_PAGE, PAGE_HEADERS, len(reply.body))
    unseen = bench.load.run(server, SMALL_PAGE, PAGE_HEADERS, len(reply.body), unseen=True)
    for key, loaded in (("small", seen), ("unseen", unseen)):
        bench.note(f"{key}_rate", server, loaded.rate)
        bench.note(f"{key}_cpu", server, loaded.cpu)
        bench.note(f"{key}_client", server, loaded.client)
    conditional = {**PAGE_HEADERS, "If-None-Match": reply.etag}
    # The original has no entity tags.
    if reply.etag and server.get(SMALL_PAGE, conditional).status == 304:
        loaded = bench.load.run(server, SMALL_PAGE, conditional, 0)
        bench.note("conditional_rate", server, loaded.rate)
        bench.note("conditional_share", server, loaded.rate / seen.rate)


def _large(bench: Bench, programs: Sequence[Program]) -> None:
    name = f"large-of-{bench.sizes.large}"
    bench.prepare([name])
    for program in programs:
        with bench.started(program) as server:
            path = f"/index/{name}/"
            reply = page(server, path)
            gunzipped(reply)
            alone = [timed(page, server, path)[0] for _ in range(TIMES)]
            bench.note("large_one", server, median(alone) * 1e3)
            loaded = bench.load.run(server, path, PAGE_HEADERS, len(reply.body))
            bench.note("large_rate", server, loaded.rate)
            bench.note("large_cpu", server, loaded.cpu)


SCENARIOS = [
    Scenario(
        "hits",
        _small_measures,
        [
            Target("small_rate", True, 35, ORIGINAL),
            Target("small_cpu", False, 1, NGINX),
            Target("unseen_rate", True, 8, ORIGINAL),
            Target("conditional_share", True, 1),
            Target("wheel_rate", True, 30, ORIGINAL),
            Target("wheel_cpu", False, 1, NGINX),
            Target("range_rate", True, 100, ORIGINAL),
        ],
        _small,
        with_variants=True,
        original_once=False,
    ),
    Scenario(
        "large-page",
        _large_measures,
        [Target("large_rate", True, 300, ORIGINAL), Target("large_one", False, 1, NGINX)],
        _large,
        original_once=False,
    ),
]
