"""Large files: the first time and from the cache, one client and eight, and twenty for a cold one.

The first time it is timed until the last byte is here, and verified, where a program verifies. The
twenty ask for a file that nobody has asked for, in the first round only.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

from bench import STREAMING, Bench, Scenario, Sizes
from load import at_once, take
from programs import Program, Running
from values import NGINX, Measure, Target

#: Clients that take the file at once, from the cache.
STREAMS = 8
#: Clients that want the cold one.
READERS = 20


def _measures(sizes: Sizes) -> list[Measure]:
    many = f"{sizes.flood:,} MiB wheel, cold, {READERS} clients"
    return [
        Measure("stream_one", f"{sizes.blob} MiB wheel, warm: 1 stream, MB/s", more_is_better=True),
        Measure("stream_eight", f"… {STREAMS} streams, MB/s", more_is_better=True),
        Measure("stream_cpu", "… CPU s per GB"),
        Measure("stream_cold", f"{sizes.blob} MiB wheel, cold: s"),
        Measure("stream_cold_cpu", "… CPU s"),
        Measure("stream_first", "… first byte, ms"),
        Measure("stream_growth", "… growth of memory at most, MiB"),
        Measure("flood_growth", f"{many}: growth of memory at most, MiB"),
        Measure("flood_fetched", "… fetched, times"),
        Measure("flood_last", "… last whole, s"),
    ]


def _run(bench: Bench, programs: Sequence[Program]) -> None:
    for program in programs:
        with bench.started(program, None, STREAMING) as server:
            _blob(bench, server)
            if bench.first:
                _flood(bench, server)


def _blob(bench: Bench, server: Running) -> None:
    path, size = bench.file(server, f"blob-{bench.sizes.blob}-of-1")
    server.forget_peak()
    memory, before = server.peak(), server.cpu_seconds()
    cold = take(server.port, path, size, name=server.program.name)
    between = server.cpu_seconds()
    bench.note("stream_cold", server, cold.last)
    bench.note("stream_cold_cpu", server, between - before)
    bench.note("stream_first", server, cold.first * 1e3)
    alone = [take(server.port, path, size).last for _ in "1234"]
    bench.note("stream_one", server, size / 1e6 / median(alone))
    began = time.perf_counter()
    done = at_once(server, path, size, STREAMS)
    bench.note("stream_eight", server, len(done) * size / 1e6 / (time.perf_counter() - began))
    spent = server.cpu_seconds() - between
    bench.note("stream_cpu", server, spent / ((len(alone) + len(done)) * size / 1e9))
    bench.note("stream_growth", server, bench.growth(server, memory))


def _flood(bench: Bench, server: Running) -> None:
    path, size = bench.file(server, f"blob-{bench.sizes.flood}-of-1")
    asked = bench.index.fetched()
    server.forget_peak()
    memory = server.peak()
    done = at_once(server, path, size, READERS)
    bench.note("flood_growth", server, bench.growth(server, memory))
    bench.note("flood_fetched", server, bench.index.fetched() - asked)
    if done:
        bench.note("flood_last", server, max(taken.last for taken in done))


SCENARIOS = [
    Scenario(
        "streams",
        _measures,
        [
            Target("stream_one", True, 1, NGINX),
            Target("stream_eight", True, 0.95, NGINX),
            Target("stream_cpu", False, 1.2, NGINX),
        ],
        _run,
    )
]
