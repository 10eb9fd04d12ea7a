"""Measures the pages of proxpi beside the original program's and nginx's, in one run.

Run it with the Python that has proxpi installed, on a machine that does little else::

    .venv/bin/python benchmarks/index.py
    .venv/bin/python benchmarks/index.py --quick

All stand in front of the same local index, on 127.0.0.1 only, one at a time, in turned order from
round to round. nginx, a cache of answers that knows nothing of packages, is left out if it is not
installed. A page is asked for as JSON with gzip unless a row says otherwise. The rows:

* a page of 10 files and one of thousands, asked for over and over on 16 connections that are
  kept; the large one also the first time, and by one client alone (the median of several times);
* memory that is resident: after the start, after so many projects of 300 files each, and after
  all of them were asked for once more;
* the same folder and a new process: seconds from its start to the first page, and how often the
  index was asked while all these projects were asked for, which were still fresh;
* how long a probe, ``GET /health`` every 10 ms, waited at worst: with nothing else to do, while
  the page of a large project was fetched and made, and around the list of all projects;
* the list of all projects: the first time, that as a multiple of what the index takes to hand
  over the same bytes directly, and the next time; and by how much resident memory grew at most.

How to read it: a ratio is the median of proxpi over the median of the program to its left, and
below 1 proxpi needs less. In brackets stand the lowest and the highest round; where the ranges of
two overlap, there is no difference to speak of. What the probe waits includes what the machine
itself makes everybody wait: see its first row. The figures say nothing beside those of another
run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

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
    probing,
    whole,
    write_json,
)
from programs import (
    Index,
    Program,
    Reply,
    Running,
    Unusable,
    here,
    nginx,
    original,
    running,
    upstream,
)

MIB = 1024 * 1024
SMALL_PAGE = "/index/small-of-10/"
HTML = {"Accept": "text/html", "Accept-Encoding": "identity"}
JSON = {"Accept": PAGE_HEADERS["Accept"], "Accept-Encoding": "identity"}
#: Seconds that an answer may take; one of the programs needs many for a long list.
PATIENCE = 300.0
#: Different pages of thousands of files that are asked for the first time.
LARGE_PAGES = 5
#: How often something warm is asked for by one client.
TIMES = 10
#: How the list of all projects is had: key, what the index gives, what the client takes.
LISTS: list[tuple[str, str, Mapping[str, str]]] = [
    ("JSON", "json", JSON),
    ("JSON, gzip", "json", PAGE_HEADERS),
    ("HTML", "html", HTML),
]

_READ = (
    "A ratio is proxpi's median over that of the program to its left, from this run alone; in "
    "brackets the\nlowest and the highest round: where two ranges overlap, there is no difference "
    "to speak of."
)


@attrs.frozen
class Sizes:
    """How much there is of everything.

    :ivar seconds: of one measurement under load
    :ivar large: files of a large page, for its speed
    :ivar huge: files of a larger one, for its pause
    :ivar projects: those of 300 files each
    :ivar listed: projects in the list of all
    """

    seconds: int
    repeat: int
    large: int = 5_000
    huge: int = 10_000
    projects: int = 1_000
    listed: int = 600_000

    def measures(self) -> list[Measure]:
        """Give the rows of the table."""
        many, large, huge = f"{self.projects:,}", f"{self.large:,}", f"{self.huge:,}"
        rows = [
            Measure("small_rate", "page of 10 files: warm, requests/s", more_is_better=True),
            Measure("small_cpu", "… CPU µs/request"),
            Measure("large_cold", f"page of {large} files: cold, ms"),
            Measure("large_cold_cpu", "… cold, CPU ms"),
            Measure("large_rate", "… warm, requests/s", more_is_better=True),
            Measure("large_cpu", "… warm, CPU µs/request"),
            Measure("large_warm", "… warm, one client, ms"),
            Measure("memory_idle", "memory: idle, MiB"),
            Measure("memory_full", f"… after {many} projects of 300 files, MiB"),
            Measure("memory_again", "… after they were asked for again, MiB"),
            Measure("restart", "restart: start to first fresh page, s"),
            Measure("restart_asked", f"… index asked for all {many} pages, times"),
            Measure("pause_idle", "longest pause: idle, ms"),
            Measure("pause_json", f"… page of {huge} files made, JSON, gzip, ms"),
            Measure("pause_html", f"… page of {huge} files made, HTML, ms"),
        ]
        for name, _, _ in LISTS:
            rows += [
                Measure(f"list_cold {name}", f"list of {self.listed:,}, {name}: cold, s"),
                Measure(f"list_factor {name}", "… cold, times the index's own"),
                Measure(f"list_warm {name}", "… warm, s"),
                Measure(f"list_pause {name}", "… longest pause, ms"),
                Measure(f"list_growth {name}", "… growth of memory at most, MiB"),
            ]
        return rows


#: For ``--quick``: everything is done, little of it means something.
QUICK = Sizes(seconds=1, repeat=1, large=500, huge=1_000, projects=40, listed=20_000)


@attrs.frozen
class Bench:
    """One run of all rounds, and what has been measured so far.

    :ivar index: the local index
    :ivar folder: for temporary files
    :ivar own: seconds that the index itself takes to give a list, by its root
    """

    sizes: Sizes
    load: Load
    index: Index
    folder: Path
    values: Values = attrs.field(factory=Values)
    own: dict[str, list[float]] = attrs.field(factory=dict)

    def prepare(self) -> None:
        """Have everything made that the index gives, so that it only sends it from now on."""
        for coding, names in (("gzip", self._all_pages()), ("identity", self._huge())):
            for name in names:
                self.index.get(f"/simple/{name}/", {"Accept-Encoding": coding})
        for _, kind, _ in LISTS:
            self.index.get(self._root(kind), {})

    def round(self, programs: Sequence[Program]) -> None:
        """Measure everything once."""
        for program in programs:
            folder = self._new_folder()
            self._pages(program, folder)
            self._restart(program, folder)
        for program in programs:
            self._pauses(program)
        for name, kind, headers in LISTS:
            own = self.own.setdefault(kind, [])
            own.append(median(self._straight(kind) for _ in range(3)))
            for program in programs:
                self._list(program, name, kind, headers, own[-1])

    def _note(self, key: str, server: Running, value: float) -> None:
        self.values.note(key, server.program.name, value)

    def _new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))

    def _settings(self, folder: Path) -> dict[str, str]:
        return {"PROXPI_CACHE_DIR": str(folder / "kept")}

    def _root(self, kind: str) -> str:
        return f"/{kind}-of-{self.sizes.listed}/"

    def _projects(self) -> list[str]:
        return [f"bulk-{number:04}-of-300" for number in range(self.sizes.projects)]

    def _large(self) -> list[str]:
        return [f"large-{number}-of-{self.sizes.large}" for number in range(LARGE_PAGES)]

    def _huge(self) -> list[str]:
        return [f"huge-{form}-of-{self.sizes.huge}" for form in ("json", "html")]

    def _all_pages(self) -> list[str]:
        return ["small-of-10", *self._projects(), *self._large(), *self._huge()]

    def _pages(self, program: Program, folder: Path) -> None:
        """Measure pages, and leave a folder with many of them."""
        with running(program, self.index.url(), folder, self._settings(folder)) as server:
            whole(server, SMALL_PAGE, server.get_when_up(SMALL_PAGE, PAGE_HEADERS))
            self._note("memory_idle", server, server.memory() / MIB)
            for key in ("memory_full", "memory_again"):
                for project in self._projects():
                    _page(server, project)
                self._note(key, server, server.memory() / MIB)
            self._load("small", server, SMALL_PAGE)
            before = server.cpu_seconds()
            cold = [_timed(server, f"/index/{name}/", PAGE_HEADERS)[0] for name in self._large()]
            spent = server.cpu_seconds() - before
            self._note("large_cold", server, median(cold) * 1e3)
            self._note("large_cold_cpu", server, spent / LARGE_PAGES * 1e3)
            path = f"/index/{self._large()[0]}/"
            _complete(server, server.get(path, PAGE_HEADERS), b'"filename"', self.sizes.large)
            warm = [_timed(server, path, PAGE_HEADERS)[0] for _ in range(TIMES)]
            self._note("large_warm", server, median(warm) * 1e3)
            self._load("large", server, path)

    def _load(self, kind: str, server: Running, path: str) -> None:
        page = whole(server, path, server.get(path, PAGE_HEADERS))
        gunzipped(page)
        rate, cpu = self.load.run(server, path, PAGE_HEADERS, len(page.body))
        self._note(f"{kind}_rate", server, rate)
        self._note(f"{kind}_cpu", server, cpu)

    def _restart(self, program: Program, folder: Path) -> None:
        """Start again in a folder that has been filled."""
        before = self.index.asked()
        with running(program, self.index.url(), folder, self._settings(folder)) as server:
            first, *others = self._projects()
            path = f"/index/{first}/"
            reply = server.get_when_up(path, PAGE_HEADERS)
            self._note("restart", server, server.seconds())
            whole(server, path, reply)
            for project in others:
                _page(server, project)
            self._note("restart_asked", server, self.index.asked() - before)

    def _pauses(self, program: Program) -> None:
        """Probe a server at rest, and while it makes the page of a large project."""
        with running(program, self.index.url(), self._new_folder()) as server:
            whole(server, SMALL_PAGE, server.get_when_up(SMALL_PAGE, PAGE_HEADERS))
            with probing(server) as probe:
                time.sleep(self.load.seconds)
            self._note("pause_idle", server, probe.worst)
            for form, headers, project in zip(
                ("json", "html"), (PAGE_HEADERS, HTML), self._huge(), strict=True
            ):
                with probing(server) as probe:
                    _, reply = _timed(server, f"/index/{project}/", headers)
                # nginx passes on what the index has, which is JSON.
                html = form == "html" and reply.body.startswith(b"<")
                _complete(server, reply, b"</a>" if html else b'"filename"', self.sizes.huge)
                self._note(f"pause_{form}", server, probe.worst)

    def _straight(self, kind: str) -> float:
        began = time.perf_counter()
        reply = self.index.get(self._root(kind), {})
        if reply.status != 200:
            raise Unusable(f"the local index answers with status {reply.status}")
        return time.perf_counter() - began

    def _list(
        self, program: Program, name: str, kind: str, headers: Mapping[str, str], own: float
    ) -> None:
        """Ask for the list of all projects, which nobody has asked for before."""
        folder, root = self._new_folder(), self._root(kind).strip("/")
        settings = self._settings(folder)
        with running(program, self.index.url(root), folder, settings) as server:
            whole(server, "/health", server.get_when_up("/health"))
            server.forget_peak()
            before = server.peak()
            with probing(server) as probe:
                cold, reply = _timed(server, "/index/", headers)
                warm = median(_timed(server, "/index/", headers)[0] for _ in range(3))
            _complete(server, reply, b"</a>" if kind == "html" else b'"name"', self.sizes.listed)
            self._note(f"list_cold {name}", server, cold)
            self._note(f"list_factor {name}", server, cold / own)
            self._note(f"list_warm {name}", server, warm)
            self._note(f"list_pause {name}", server, probe.worst)
            self._note(f"list_growth {name}", server, (server.peak() - before) / MIB)


def _page(server: Running, project: str) -> None:
    path = f"/index/{project}/"
    whole(server, path, server.get(path, PAGE_HEADERS))


def _complete(server: Running, reply: Reply, mark: bytes, count: int) -> None:
    """See whether everything is listed: fast answers are easily had of nothing."""
    body = gunzipped(reply) if reply.coding == "gzip" else reply.body
    if body.count(mark) != count:
        found = f"{body.count(mark)} of {count}"
        raise Unusable(f"{server.program.name} lists {found} projects or files")


def _timed(server: Running, path: str, headers: Mapping[str, str]) -> tuple[float, Reply]:
    began = time.perf_counter()
    reply = server.get(path, headers, PATIENCE)
    spent = time.perf_counter() - began
    return spent, whole(server, path, reply)


def _nginx_version(program: Program) -> str:
    done = subprocess.run([program.command[0], "-v"], capture_output=True, text=True, check=True)
    return done.stderr.strip().rpartition("/")[2]


def measure(sizes: Sizes, output: Path | None) -> None:
    """Run all rounds, and print the table.

    :raises Unusable: if something that it takes is missing or does not work
    """
    wrk = load_generator()
    ours, theirs, cache = here(), original(), nginx()
    about = circumstances(ours, theirs)
    programs = [ours, theirs]
    if cache is not None:
        programs.append(cache)
        about["nginx"] = _nginx_version(cache)
    else:
        print("nginx is not installed, and left out (apt-get install nginx-light)")
    with tempfile.TemporaryDirectory(prefix="proxpi-benchmarks-") as folder, upstream() as index:
        load = Load(sizes.seconds, wrk, Path(folder))
        bench = Bench(sizes, load, index, Path(folder))
        bench.prepare()
        for number in range(sizes.repeat):
            print(f"round {number + 1} of {sizes.repeat}", file=sys.stderr)
            turn = number % len(programs)
            bench.round(programs[turn:] + programs[:turn])
    settings: dict[str, object] = {**attrs.asdict(sizes), "connections": CONNECTIONS}
    for facts in (about, settings):
        print(", ".join(f"{name} {value}" for name, value in facts.items()))
    own = {kind: round(median(found), 3) for kind, found in bench.own.items()}
    print(", ".join(f"the index's own list, {kind} {spent} s" for kind, spent in own.items()))
    others = [program.name for program in programs[1:]]
    print(f"\n{bench.values.table(sizes.measures(), others)}\n\n{_READ}")
    if output is not None:
        settings["index_list_seconds"] = own
        write_json(output, about, settings, bench.values.summary(sizes.measures()))


def main() -> None:
    """Read the options, and measure."""
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--seconds", type=int, default=3, help="of a measurement under load (3)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds (3)")
    parser.add_argument(
        "--quick", action="store_true", help="small numbers and one round: does it still work?"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values there as well")
    options = parser.parse_args()
    if options.seconds < 1 or options.repeat < 1:
        parser.error("--seconds and --repeat take whole numbers from 1 on")
    sizes = QUICK if options.quick else Sizes(options.seconds, options.repeat)
    try:
        measure(sizes, options.json)
    except Unusable as error:
        sys.exit(f"index.py: {error}")


if __name__ == "__main__":
    main()
