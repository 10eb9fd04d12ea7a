"""Scenario for large files: cold, warm with one client and eight, and twenty for one cold file.

The time of a cold file ends with its last byte; proxpi has verified the file then. The twenty
clients of one cold file are part of the first round only.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

from clients import download, download_at_once
from programs import Program, Server
from results import NGINX, Measure, Target
from scenario import STREAMING, Benchmark, Scenario, Sizes

#: Concurrent clients of the cached file.
STREAMS = 8
#: Concurrent clients of the cold file.
READERS = 20


def _measures(sizes: Sizes) -> list[Measure]:
    wheel = f"{sizes.wheel_mib} MiB wheel"
    many = f"{sizes.shared_wheel_mib:,} MiB wheel, cold, {READERS} clients"
    return [
        Measure("stream_one", f"{wheel}, warm: 1 stream, MB/s", more_is_better=True),
        Measure("stream_eight", f"… {STREAMS} streams, MB/s", more_is_better=True),
        Measure("stream_cpu", "… CPU s per GB"),
        Measure("stream_cold", f"{wheel}, cold: s"),
        Measure("stream_cold_cpu", "… CPU s"),
        Measure("stream_first", "… first byte, ms"),
        Measure("stream_growth", "… peak memory growth, MiB"),
        Measure("flood_growth", f"{many}: peak memory growth, MiB"),
        Measure("flood_fetched", "… upstream downloads"),
        Measure("flood_last", "… last client complete, s"),
    ]


def _run(bench: Benchmark, programs: Sequence[Program]) -> None:
    for program in programs:
        with bench.started(program, None, STREAMING) as server:
            _single(bench, server)
            if bench.first:
                _shared(bench, server)


def _single(bench: Benchmark, server: Server) -> None:
    path, size = bench.file(server, f"blob-{bench.sizes.wheel_mib}-of-1")
    server.reset_peak_memory()
    memory, before = server.peak_memory(), server.cpu_seconds()
    cold = download(server.port, path, size, name=server.program.name)
    between = server.cpu_seconds()
    bench.note("stream_cold", server, cold.last)
    bench.note("stream_cold_cpu", server, between - before)
    bench.note("stream_first", server, cold.first * 1e3)
    alone = [download(server.port, path, size).last for _ in "1234"]
    bench.note("stream_one", server, size / 1e6 / median(alone))
    began = time.perf_counter()
    done = download_at_once(server, path, size, STREAMS)
    bench.note("stream_eight", server, len(done) * size / 1e6 / (time.perf_counter() - began))
    spent = server.cpu_seconds() - between
    bench.note("stream_cpu", server, spent / ((len(alone) + len(done)) * size / 1e9))
    bench.note("stream_growth", server, bench.memory_growth(server, memory))


def _shared(bench: Benchmark, server: Server) -> None:
    path, size = bench.file(server, f"blob-{bench.sizes.shared_wheel_mib}-of-1")
    downloads = bench.index.download_count()
    server.reset_peak_memory()
    memory = server.peak_memory()
    done = download_at_once(server, path, size, READERS)
    bench.note("flood_growth", server, bench.memory_growth(server, memory))
    bench.note("flood_fetched", server, bench.index.download_count() - downloads)
    if done:
        bench.note("flood_last", server, max(result.last for result in done))


SCENARIOS = [
    Scenario(
        "large-files",
        _measures,
        [
            Target("stream_one", "≥", 1, NGINX),
            Target("stream_eight", "≥", 0.95, NGINX),
            Target("stream_cpu", "≤", 1.2, NGINX),
        ],
        _run,
    )
]
