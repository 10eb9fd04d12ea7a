"""Says where the processor time of a server goes, by function: for hits, and for a cold install.

A sampling profiler (py-spy, installed into an environment of its own) starts the server and looks
at the stacks of all its threads, a hundred times a second. Unlike a tracing profiler it sees
worker threads as well, and does not make small functions look slow. It takes no privileges, since
the server is its child. What happens before the reactor runs, and threads that wait for work, are
left out. The time of what is written in C counts for the Python function that called it; the line
beside says which call it was.
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
from bench import SMALL_PAGE, STREAMING, Bench, Sizes
from environments import Unusable, end_gently, environment
from load import PAGE_HEADERS, Load, load_generator, page, shared, warmed
from local import distant, upstream
from programs import GUARD, Running, here
from values import text

RATE = 100
#: Pages of 300 files, each with one file, that a cold install asks for, and its connections.
COLD_PAGES, CLIENTS = 300, 16
_FRAME = re.compile(r"(?P<name>.+) \((?P<file>.+):(?P<line>\d+)\)")
#: What is on every stack of interest: the reactor runs, or it is a thread's.
_ROOTS = {"mainLoop", "run_forever", "_bootstrap"}
#: On top of it, a thread of the pool has nothing to do.
_IDLE = "Condition.wait"


@attrs.frozen
class Spent:
    """What a function took, as shares of all samples.

    :ivar own: in itself, and in what is written in C and was called by it
    :ivar total: in all that it called as well
    :ivar line: the line of it that was seen most often on top of the stack
    """

    name: str
    own: float
    total: float
    line: int


def spent(stacks: Iterable[str]) -> list[Spent]:
    """Read stacks as py-spy writes them, ``outer (file.py:1);inner (file.py:2) 17``.

    :return: all functions, those that took most themselves first
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
    """Write the first of them as text."""
    head = ["own %", "total %", "function", "hottest line"]
    rows = [[f"{row.own:.1%}", f"{row.total:.1%}", row.name, str(row.line)] for row in found[:top]]
    return text([head, *rows])


def _page_hits(bench: Bench, server: Running) -> None:
    reply = page(server, SMALL_PAGE)
    _told(server, bench.load.run(server, SMALL_PAGE, PAGE_HEADERS, len(reply.body)).cpu)


def _file_hits(bench: Bench, server: Running) -> None:
    path, size = bench.file(server, "wheel-of-1")
    warmed(server, path)
    _told(server, bench.load.run(server, path, {}, size).cpu)


def _told(server: Running, cpu: float) -> None:
    print(f"{cpu:.0f} µs of processor time for each request, the profiler's own included")


def _cold(bench: Bench, server: Running) -> None:
    names = [f"bulk-{number:03}-of-300" for number in range(COLD_PAGES)]
    files = [bench.file(server, name)[0] for name in names]
    shared(server.port, [f"/index/{name}/" for name in names], CLIENTS, PAGE_HEADERS)
    shared(server.port, files, CLIENTS, {})


KINDS: dict[str, tuple[str, Callable[[Bench, Running], None]]] = {
    "page": ("a page of 10 files, cached, on 16 connections", _page_hits),
    "file": ("a wheel of 100 KiB, cached, on 16 connections", _file_hits),
    "cold": (f"{COLD_PAGES} pages of 300 files, and a file of each, {CLIENTS} clients", _cold),
}


def profile(kind: str, bench: Bench, spy: Path) -> list[Spent]:
    """Start a server below the profiler, do one of the things, and read what was seen.

    :raises Unusable: if the profiler saw nothing
    """
    output = bench.new_folder() / "stacks"
    usual = here()
    watching = (str(spy), "record", "--format=raw", f"--rate={RATE}", f"--output={output}", "--")
    if kind == "cold":
        bench.prepare([f"bulk-{number:03}-of-300" for number in range(COLD_PAGES)])
    watched = attrs.evolve(usual, command=(*watching, *usual.command))
    settings = {**STREAMING, "PROXPI_CACHE_DIR": str(bench.new_folder())}
    with bench.started(watched, settings=settings) as server:
        try:
            KINDS[kind][1](bench, server)
        finally:
            # The profiler writes when its child has ended, and ends then itself.
            for pid in server.pids()[1:]:
                os.kill(pid, signal.SIGTERM)
        try:
            server.process.wait(2 * GUARD)
        except subprocess.TimeoutExpired:
            raise Unusable("the server below the profiler did not end") from None
    found = spent(output.read_text().splitlines()) if output.exists() else []
    if not found:
        raise Unusable("the profiler saw nothing: it may be forbidden here to look at a process")
    return found


def main() -> None:
    """Read the options, profile, and print the tables."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/profile", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)} (all)")
    parser.add_argument("--seconds", type=int, default=5, help="of load, for hits (5)")
    parser.add_argument("--top", type=int, default=25, help="functions to print (25)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all functions there")
    options = parser.parse_args()
    end_gently()
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"there is no {', '.join(sorted(unknown))}: it takes {', '.join(KINDS)}")
    written = []
    try:
        spy = environment("profiler", ["py-spy"]) / "bin/py-spy"
        with (
            tempfile.TemporaryDirectory(prefix="proxpi-benchmarks-") as folder,
            upstream() as index,
            distant(index) as far,
        ):
            load = Load(options.seconds, load_generator(), Path(folder))
            bench = Bench(Sizes(), load, index, far, Path(folder))
            for kind in options.kinds or KINDS:
                print(f"\n{KINDS[kind][0]}", flush=True)
                found = profile(kind, bench, spy)
                print(table(found, options.top), flush=True)
                written.append(f"{KINDS[kind][0]}\n{table(found, len(found))}\n")
    except Unusable as error:
        sys.exit(f"benchmarks/profile: {error}")
    if options.output:
        options.output.write_text("\n".join(written))
