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
import gzip
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import attrs
from programs import GUARD, Program, Reply, Running, Unusable, here, original, running, upstream

CONNECTIONS = 16
SMALL_PAGE = "/index/small-of-10/"
BIG_PAGES = [f"/index/bulk-{number:03}-of-300/" for number in range(100)]
PAGE_HEADERS = {"Accept": "application/vnd.pypi.simple.v1+json", "Accept-Encoding": "gzip"}
FILE_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity"}

#: What is measured: key, as the table calls it, whether more of it is better.
MEASURES = [
    ("page_rate", "warm page, requests/s", True),
    ("page_cpu", "warm page, CPU µs/request", False),
    ("file_rate", "warm 100 kB wheel, requests/s", True),
    ("file_cpu", "warm 100 kB wheel, CPU µs/request", False),
    ("cold_cpu", "first page of 300 files, CPU ms", False),
    ("idle_memory", "memory idle, MB", False),
    ("full_memory", "memory after 100 pages of 300 files, MB", False),
    ("health_seconds", "start to first /health, s", False),
    ("first_page_seconds", "start to first page, s", False),
]

# Only runs once it is over, so it does not slow wrk down.
_REPORT = """
done = function(summary, latency, requests)
  local errors = summary.errors
  local lost = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("\\nreport: %d %d %d %d %d\\n",
    summary.requests, summary.bytes, summary.duration, errors.status, lost))
end
"""

#: Values by measure and program, one a round.
Values = dict[str, dict[str, list[float]]]


@attrs.frozen
class Bench:
    """One run of all rounds, and what has been measured so far.

    :ivar seconds: of one measurement under load
    :ivar wrk: the load generator
    :ivar folder: for temporary files
    """

    seconds: int
    wrk: str
    folder: Path
    values: Values = attrs.field(factory=lambda: defaultdict(lambda: defaultdict(list)))

    def round(self, programs: Sequence[Program], index_url: str) -> None:
        """Measure everything once, the programs taking turns."""
        with ExitStack() as stack:
            servers = [self._started(stack, program, index_url) for program in programs]
            for server in servers:
                self._fill(server)
            for server in servers:
                self._load("page", server, SMALL_PAGE, PAGE_HEADERS)
            for server in servers:
                page = json.loads(_gunzipped(server.get(SMALL_PAGE, PAGE_HEADERS)))
                path = f"{SMALL_PAGE}{page['files'][0]['filename']}"
                self._load("file", server, path, FILE_HEADERS)

    def _note(self, measure: str, server: Running, value: float) -> None:
        self.values[measure][server.program.name].append(value)

    def _started(self, stack: ExitStack, program: Program, index_url: str) -> Running:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        server = stack.enter_context(running(program, index_url, folder))
        _whole(server, "/health", server.get_when_up("/health"))
        self._note("health_seconds", server, server.seconds())
        page = server.get(SMALL_PAGE, PAGE_HEADERS)
        self._note("first_page_seconds", server, server.seconds())
        _whole(server, SMALL_PAGE, page)
        self._note("idle_memory", server, server.memory() / 1e6)
        return server

    def _fill(self, server: Running) -> None:
        before = server.cpu_seconds()
        for path in BIG_PAGES:
            _whole(server, path, server.get(path, PAGE_HEADERS))
        spent = server.cpu_seconds() - before
        self._note("cold_cpu", server, spent / len(BIG_PAGES) * 1e3)
        self._note("full_memory", server, server.memory() / 1e6)

    def _load(self, kind: str, server: Running, path: str, headers: Mapping[str, str]) -> None:
        """Ask for the same over and over."""
        size = len(_warmed(server, path, headers).body)
        script = self.folder / "report.lua"
        script.write_text(_REPORT)
        command = [self.wrk, "--threads=1", f"--connections={CONNECTIONS}", "--timeout=10s"]
        command += [f"--duration={self.seconds}s", f"--script={script}"]
        command += [f"--header={name}: {value}" for name, value in headers.items()]
        before = server.cpu_seconds()
        done = subprocess.run(
            [*command, server.url(path)],
            capture_output=True,
            text=True,
            timeout=self.seconds + GUARD,
            check=True,
        )
        spent = server.cpu_seconds() - before
        report = done.stdout.rpartition("report: ")[2].split()
        requests, received, microseconds, refused, lost = map(int, report)
        if refused or not requests or received < requests * size:
            raise Unusable(f"{server.program.name} did not answer {path} as it should under load")
        if lost:
            print(f"{server.program.name}: {lost} connections lost on {path}", file=sys.stderr)
        self._note(f"{kind}_rate", server, requests / microseconds * 1e6)
        self._note(f"{kind}_cpu", server, spent / requests * 1e6)


def _whole(server: Running, path: str, reply: Reply) -> Reply:
    if reply.status != 200 or not reply.body:
        raise Unusable(f"{server.program.name} answers {path} with status {reply.status}")
    return reply


def _gunzipped(reply: Reply) -> bytes:
    if reply.coding != "gzip":
        raise Unusable("a page was not compressed, although gzip was asked for")
    return gzip.decompress(reply.body)


def _warmed(server: Running, path: str, headers: Mapping[str, str]) -> Reply:
    """Ask until it comes from the cache: a download that takes long is a redirect at first."""
    until = time.monotonic() + GUARD
    while (reply := server.get(path, headers)).status == 302 and time.monotonic() < until:
        time.sleep(0.1)
    return _whole(server, path, reply)


def summary(values: Values) -> list[dict[str, object]]:
    """Give for each measure the medians, all values in order of rounds, and the ratio."""
    rows: list[dict[str, object]] = []
    for key, label, more_is_better in MEASURES:
        medians = {name: median(found) for name, found in values[key].items()}
        rows.append(
            {
                "measure": key,
                "label": label,
                "better": "more" if more_is_better else "less",
                "median": medians,
                "values": {name: list(found) for name, found in values[key].items()},
                "ratio": medians["proxpi"] / medians["original"],
            }
        )
    return rows


def table(values: Values) -> str:
    """Write medians, lowest and highest, and ratios as text."""
    lines = [("", "proxpi", "original", "ratio", "better")]
    for row in summary(values):
        found = values[str(row["measure"])]
        cells = (_spread(found["proxpi"]), _spread(found["original"]))
        lines.append((str(row["label"]), *cells, f"{row['ratio']:.2f}", str(row["better"])))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = (zip(line, widths, strict=True) for line in lines)
    return "\n".join("  ".join(cell.ljust(width) for cell, width in row).rstrip() for row in rows)


def _spread(found: Sequence[float]) -> str:
    return f"{_short(median(found))} ({_short(min(found))} to {_short(max(found))})"


def _short(value: float) -> str:
    """Three digits that count, or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def circumstances(ours: Program, theirs: Program) -> dict[str, object]:
    """Say what is compared, and on what."""
    return {
        "proxpi": ours.version("proxpi"),
        "twisted": ours.version("twisted"),
        "original": theirs.version("proxpi"),
        "gunicorn": theirs.version("gunicorn"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
    }


def measure(seconds: int, repeat: int, output: Path | None) -> None:
    """Run all rounds, and print the table.

    :raises Unusable: if something that it takes is missing or does not work
    """
    if not Path("/proc/self/smaps_rollup").exists():
        raise Unusable("it reads /proc, as Linux has it")
    wrk = shutil.which("wrk")
    if wrk is None:
        raise Unusable("it takes wrk: install the package of that name (apt-get install wrk)")
    ours, theirs = here(), original()
    about = circumstances(ours, theirs)
    with tempfile.TemporaryDirectory(prefix="proxpi-benchmarks-") as folder, upstream() as index:
        bench = Bench(seconds, wrk, Path(folder))
        for number in range(repeat):
            print(f"round {number + 1} of {repeat}", file=sys.stderr)
            bench.round([ours, theirs] if number % 2 == 0 else [theirs, ours], index)
    settings = {"seconds": seconds, "repeat": repeat, "connections": CONNECTIONS}
    for facts in (about, settings):
        print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"\n{table(bench.values)}")
    if output is not None:
        measures = summary(bench.values)
        document = {"about": about, "settings": settings, "measures": measures}
        output.write_text(json.dumps(document, indent=2) + "\n")


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
