"""Measures proxpi beside the original program of the same name, in one run.

Run it with the Python that has proxpi installed, on a machine that does little else::

    .venv/bin/python benchmarks/compare.py

It takes Linux and the load generator ``wrk``. The first run installs the original into an
environment of its own below ``~/.cache/proxpi-benchmarks``. Both programs stand in front of the
same local index, on 127.0.0.1 only, with their default settings and nothing cached. Each round
starts both anew and measures one after the other, in turned order from round to round:

* seconds from the start of the process to the first answer of ``/health``, and to the first page,
  that of a project with 10 files;
* memory that is resident then, and once 100 pages of 300 files each were asked for, as JSON with
  gzip; and what such a page costs the first time (processor time of the server, all processes);
* a warm page (10 files, JSON, gzip) and a warm wheel of 100 kB, asked for over and over on 16
  connections that are kept: requests per second, and processor time of the server for each.

How to read it: the ratios (median of proxpi : median of the original) say something, the
figures beside them do not. Those depend on the machine, on its other work and on the load
generator, which wants a processor of its own; compare them with no other run. In brackets stand
the lowest and the highest round: where the ranges of the two overlap, there is no difference to
speak of. Processor time moves least. proxpi writes its access log meanwhile, as it always does;
the original, started by its container's command, writes none.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs
from measuring import (
    CONNECTIONS,
    PAGE_HEADERS,
    Load,
    Measure,
    Values,
    circumstances,
    gunzipped,
    load_generator,
    whole,
    write_json,
)
from programs import GUARD, Program, Reply, Running, Unusable, here, original, running, upstream

SMALL_PAGE = "/index/small-of-10/"
BIG_PAGES = [f"/index/bulk-{number:03}-of-300/" for number in range(100)]
FILE_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity"}

MEASURES = [
    Measure("page_rate", "warm page, requests/s", more_is_better=True),
    Measure("page_cpu", "warm page, CPU µs/request"),
    Measure("file_rate", "warm 100 kB wheel, requests/s", more_is_better=True),
    Measure("file_cpu", "warm 100 kB wheel, CPU µs/request"),
    Measure("cold_cpu", "first page of 300 files, CPU ms"),
    Measure("idle_memory", "memory idle, MB"),
    Measure("full_memory", "memory after 100 pages of 300 files, MB"),
    Measure("health_seconds", "start to first /health, s"),
    Measure("first_page_seconds", "start to first page, s"),
]


@attrs.frozen
class Bench:
    """One run of all rounds, and what has been measured so far.

    :ivar folder: for temporary files
    """

    load: Load
    folder: Path
    values: Values = attrs.field(factory=Values)

    def round(self, programs: Sequence[Program], index_url: str) -> None:
        """Measure everything once, the programs taking turns."""
        with ExitStack() as stack:
            servers = [self._started(stack, program, index_url) for program in programs]
            for server in servers:
                self._fill(server)
            for server in servers:
                self._load("page", server, SMALL_PAGE, PAGE_HEADERS)
            for server in servers:
                page = json.loads(gunzipped(server.get(SMALL_PAGE, PAGE_HEADERS)))
                path = f"{SMALL_PAGE}{page['files'][0]['filename']}"
                self._load("file", server, path, FILE_HEADERS)

    def _note(self, measure: str, server: Running, value: float) -> None:
        self.values.note(measure, server.program.name, value)

    def _started(self, stack: ExitStack, program: Program, index_url: str) -> Running:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        server = stack.enter_context(running(program, index_url, folder))
        whole(server, "/health", server.get_when_up("/health"))
        self._note("health_seconds", server, server.seconds())
        page = server.get(SMALL_PAGE, PAGE_HEADERS)
        self._note("first_page_seconds", server, server.seconds())
        whole(server, SMALL_PAGE, page)
        self._note("idle_memory", server, server.memory() / 1e6)
        return server

    def _fill(self, server: Running) -> None:
        before = server.cpu_seconds()
        for path in BIG_PAGES:
            whole(server, path, server.get(path, PAGE_HEADERS))
        spent = server.cpu_seconds() - before
        self._note("cold_cpu", server, spent / len(BIG_PAGES) * 1e3)
        self._note("full_memory", server, server.memory() / 1e6)

    def _load(self, kind: str, server: Running, path: str, headers: Mapping[str, str]) -> None:
        """Ask for the same over and over."""
        size = len(_warmed(server, path, headers).body)
        rate, cpu = self.load.run(server, path, headers, size)
        self._note(f"{kind}_rate", server, rate)
        self._note(f"{kind}_cpu", server, cpu)


def _warmed(server: Running, path: str, headers: Mapping[str, str]) -> Reply:
    """Ask until it comes from the cache: a download that takes long is a redirect at first."""
    until = time.monotonic() + GUARD
    while (reply := server.get(path, headers)).status == 302 and time.monotonic() < until:
        time.sleep(0.1)
    return whole(server, path, reply)


def measure(seconds: int, repeat: int, output: Path | None) -> None:
    """Run all rounds, and print the table.

    :raises Unusable: if something that it takes is missing or does not work
    """
    wrk = load_generator()
    ours, theirs = here(), original()
    about = circumstances(ours, theirs)
    with tempfile.TemporaryDirectory(prefix="proxpi-benchmarks-") as folder, upstream() as index:
        bench = Bench(Load(seconds, wrk, Path(folder)), Path(folder))
        for number in range(repeat):
            print(f"round {number + 1} of {repeat}", file=sys.stderr)
            bench.round([ours, theirs] if number % 2 == 0 else [theirs, ours], index.url())
    settings = {"seconds": seconds, "repeat": repeat, "connections": CONNECTIONS}
    for facts in (about, settings):
        print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"\n{bench.values.table(MEASURES, ['original'])}")
    if output is not None:
        write_json(output, about, settings, bench.values.summary(MEASURES))


def main() -> None:
    """Read the options, and measure."""
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--seconds", type=int, default=5, help="of a measurement under load (5)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values there as well")
    options = parser.parse_args()
    if options.seconds < 1 or options.repeat < 1:
        parser.error("--seconds and --repeat take whole numbers from 1 on")
    try:
        measure(options.seconds, options.repeat, options.json)
    except Unusable as error:
        sys.exit(f"compare.py: {error}")


if __name__ == "__main__":
    main()
