"""Profiles the CPU time of a server by function, for hits and for cold requests.

The sampling profiler py-spy starts the server and samples the stacks of all threads 100 times a
second. Unlike a tracing profiler it includes worker threads and does not slow small functions down.
It needs no privileges, since the server is its child process. Samples before the reactor runs and
those of idle threads are ignored. Time in C code counts for the calling Python function; the
hottest line tells the call.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import attrs
from clients import PAGE_HEADERS, LoadGenerator, find_wrk, get_all, get_cached, get_page
from environments import BenchmarkError, environment, exit_on_sigterm
from local_index import behind_slow_link, local_index
from programs import TIMEOUT, Server, proxpi
from results import text
from scenario import SMALL_PAGE, STREAMING, Benchmark, Sizes

RATE = 100
#: Number of cold pages of 300 files, with one file each, and of clients.
COLD_PAGES, CLIENTS = 300, 16
_FRAME = re.compile(r"(?P<name>.+) \((?P<file>.+):(?P<line>\d+)\)")
#: Functions of which one is on every stack of the running reactor or of a thread.
_ROOTS = {"mainLoop", "run_forever", "_bootstrap"}
#: The innermost function of an idle thread.
_IDLE = "Condition.wait"


@attrs.frozen
class Spent:
    """The time of a function, as shares of all samples.

    :ivar own: time in itself and in C code that it calls
    :ivar total: own time and time in Python functions that it calls
    :ivar line: the line with most samples
    """

    name: str
    own: float
    total: float
    line: int


def spent(stacks: Iterable[str]) -> list[Spent]:
    """Parse the raw format of py-spy, ``outer (file.py:1);inner (file.py:2) 17``.

    :return: all functions, the one with most own time first
    """
    own, total, count = Counter[str](), Counter[str](), 0
    lines = defaultdict[str, Counter[int]](Counter)
    for stack in stacks:
        frames, _, samples = stack.rpartition(" ")
        found = [match for frame in frames.split(";") if (match := _FRAME.fullmatch(frame))]
        roots = {match["name"].rpartition(".")[2] for match in found}
        if not roots & _ROOTS or found[-1]["name"] == _IDLE:
            continue
        names = [f"{match['name']} ({match['file']})" for match in found]
        count += int(samples)
        own[names[-1]] += int(samples)
        lines[names[-1]][int(found[-1]["line"])] += int(samples)
        for name in set(names):
            total[name] += int(samples)
    return [
        Spent(name, mine / count, total[name] / count, lines[name].most_common(1)[0][0])
        for name, mine in own.most_common()
    ]


def table(found: Sequence[Spent], top: int) -> str:
    head = ["own %", "total %", "function", "hottest line"]
    rows = [[f"{row.own:.1%}", f"{row.total:.1%}", row.name, str(row.line)] for row in found[:top]]
    return text([head, *rows])


def _page_hits(bench: Benchmark, server: Server) -> None:
    response = get_page(server, SMALL_PAGE)
    _print_cpu(bench.load.run(server, SMALL_PAGE, PAGE_HEADERS, len(response.body)).cpu)


def _file_hits(bench: Benchmark, server: Server) -> None:
    path, size = bench.file(server, "wheel-of-1")
    get_cached(server, path)
    _print_cpu(bench.load.run(server, path, {}, size).cpu)


def _print_cpu(cpu: float) -> None:
    print(f"CPU time per request, including the profiler: {cpu:.0f} µs")


def _cold(bench: Benchmark, server: Server) -> None:
    names = [f"bulk-{number:03}-of-300" for number in range(COLD_PAGES)]
    files = [bench.file(server, name)[0] for name in names]
    get_all(server.port, [f"/index/{name}/" for name in names], CLIENTS, PAGE_HEADERS)
    get_all(server.port, files, CLIENTS, {})


KINDS: dict[str, tuple[str, Callable[[Benchmark, Server], None]]] = {
    "page": ("a page of 10 files, cached, on 16 connections", _page_hits),
    "file": ("a wheel of 100 KiB, cached, on 16 connections", _file_hits),
    "cold": (f"{COLD_PAGES} pages of 300 files, and a file of each, {CLIENTS} clients", _cold),
}


def profile(kind: str, bench: Benchmark, spy: Path) -> list[Spent]:
    """Run one kind of requests on a server under the profiler.

    :raises BenchmarkError: if the profiler took no samples
    """
    output = bench.new_folder() / "stacks"
    default = proxpi()
    watching = (str(spy), "record", "--format=raw", f"--rate={RATE}", f"--output={output}", "--")
    if kind == "cold":
        bench.prepare([f"bulk-{number:03}-of-300" for number in range(COLD_PAGES)])
    watched = attrs.evolve(default, command=(*watching, *default.command))
    settings = {**STREAMING, "PROXPI_CACHE_DIR": str(bench.new_folder())}
    with bench.started(watched, settings=settings) as server:
        try:
            KINDS[kind][1](bench, server)
        finally:
            # The profiler writes its samples and ends once its child has ended.
            for pid in server.pids()[1:]:
                os.kill(pid, signal.SIGTERM)
        try:
            server.process.wait(2 * TIMEOUT)
        except subprocess.TimeoutExpired:
            raise BenchmarkError("the server under the profiler did not end") from None
    found = spent(output.read_text().splitlines()) if output.exists() else []
    if not found:
        raise BenchmarkError("the profiler took no samples: ptrace may be forbidden")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks/profile", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)} (all)")
    parser.add_argument("--seconds", type=int, default=5, help="duration of the load for hits (5)")
    parser.add_argument("--top", type=int, default=25, help="functions to print (25)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all functions")
    options = parser.parse_args()
    exit_on_sigterm()
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(KINDS)}")
    written = []
    try:
        spy = environment("profiler", ["py-spy"]) / "bin/py-spy"
        with (
            tempfile.TemporaryDirectory(prefix="proxpi-benchmarks-") as folder,
            local_index() as index,
            behind_slow_link(index) as far,
        ):
            load = LoadGenerator(options.seconds, find_wrk(), Path(folder))
            bench = Benchmark(Sizes(), load, index, far, Path(folder))
            for kind in options.kinds or KINDS:
                print(f"\n{KINDS[kind][0]}", flush=True)
                found = profile(kind, bench, spy)
                print(table(found, options.top), flush=True)
                written.append(f"{KINDS[kind][0]}\n{table(found, len(found))}\n")
    except BenchmarkError as error:
        sys.exit(f"benchmarks/profile: {error}")
    if options.output:
        options.output.write_text("\n".join(written))
