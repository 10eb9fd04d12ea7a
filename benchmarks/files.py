"""Measures the files of proxpi beside the original program's and nginx's, in one run.

Run it with the Python that has proxpi installed, on a machine that does little else::

    .venv/bin/python benchmarks/files.py
    .venv/bin/python benchmarks/files.py --quick

All stand in front of the same local index, on 127.0.0.1 only, one at a time, in turned order from
round to round. nginx, a cache of answers that checks nothing, is left out if it is not installed.
No client is sent upstream: the original waits for as long as it takes, proxpi streams. The rows:

* a wheel of 100 kB that is cached, asked for over and over on 16 connections that are kept;
* a file of 500 MiB: the first time, then from the cache, by one client, and by how much resident
  memory grew meanwhile;
* ranges of a kibibyte of that file, from the cache, on 16 connections;
* twenty clients at once for a file of 2 GiB that nobody has asked for, in the first round only:
  by how much resident memory grew, and how often the file was fetched;
* of proxpi alone, 64 clients that are to be sent upstream after 0.9 seconds, as it is unless
  something else is set, for a file that takes longer, while cached wheels are asked for on 16
  connections: by how much the answer that is off most is off;
* a herd of 64 clients for one file that nobody has asked for, behind a link of 10 MiB a second
  that all fetches share: until the last one has all of it, until the median one has its first
  byte, and how often the file was fetched.

How to read it: a ratio is the median of proxpi over the median of the program to its left; in
brackets stand the lowest and the highest round. The figures say nothing beside those of another
run.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import attrs
from measuring import CONNECTIONS, Load, Measure, Values, circumstances, load_generator, write_json
from programs import Index, Program, Running, Unusable, here, nginx, original, running, upstream

MIB = 1024 * 1024
RANGE = 1024
PATIENCE = 600.0
#: Seconds after which a client is sent upstream, unless it is set.
TIMEOUT = 0.9
#: MiB of a file that takes longer than that.
SLOW_ENOUGH = 21
#: Clients that want the file of 2 GiB.
READERS = 20
#: What each is told, so that nobody is sent upstream.
SETTINGS = {"PROXPI_DOWNLOAD_TIMEOUT": f"{PATIENCE:.0f}", "PROXPI_SLOW_DOWNLOAD": "stream"}


@attrs.frozen
class Sizes:
    """How much there is of everything.

    :ivar seconds: of one measurement under load
    :ivar large: MiB of the large file
    :ivar slow: MiB of the one behind the slow link
    :ivar herd: clients that want that one
    :ivar flood: MiB of the file that twenty want at once
    """

    seconds: int
    repeat: int
    large: int = 500
    slow: int = 20
    herd: int = 64
    flood: int = 2048

    def measures(self) -> list[Measure]:
        """Give the rows of the table."""
        return [
            Measure("wheel_rate", "wheel of 100 kB: warm, requests/s", more_is_better=True),
            Measure("wheel_cpu", "… CPU µs/request"),
            Measure("large_cold", f"file of {self.large} MiB: cold, s"),
            Measure("large_cold_cpu", "… cold, CPU s"),
            Measure("large_first", "… cold, first byte, ms"),
            Measure("large_warm", "… warm, s"),
            Measure("large_warm_cpu", "… warm, MiB per CPU second", more_is_better=True),
            Measure("large_growth", "… growth of memory at most, MiB"),
            Measure("range_rate", "range of 1 KiB of it: requests/s", more_is_better=True),
            Measure("range_cpu", "… CPU µs/request"),
            Measure("herd_last", f"herd of {self.herd}, {self.slow} MiB, slow link: last whole, s"),
            Measure("herd_first", "… median first byte, s"),
            Measure("herd_fetched", "… fetched, times"),
            Measure("herd_cpu", "… CPU s"),
            Measure("flood_growth", f"20 at once, {self.flood} MiB: growth of memory at most, MiB"),
            Measure("flood_fetched", "… fetched, times"),
            Measure("flood_last", "… last whole, s"),
            Measure("timer_off", "redirect after 0.9 s, under load: off at most, ms"),
        ]


#: For ``--quick``: everything is done, little of it means something.
QUICK = Sizes(seconds=1, repeat=1, large=20, slow=2, herd=16, flood=40)


@attrs.frozen
class Taken:
    """A download: seconds to its first byte and to its last."""

    first: float
    last: float


def take(server: Running, path: str, size: int, headers: Mapping[str, str]) -> Taken:
    """Download something, and keep nothing of it."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        if answer.status not in (200, 206):
            raise Unusable(f"{server.program.name} answers {path} with status {answer.status}")
        buffer = memoryview(bytearray(256 * 1024))
        received, first = 0, 0.0
        while count := answer.readinto(buffer):
            first = first or time.perf_counter() - began
            received += count
    finally:
        connection.close()
    if received != size:
        raise Unusable(f"{server.program.name} gives {received} bytes of {path}, not {size}")
    return Taken(first, time.perf_counter() - began)


def _wait_for_redirect(asked: tuple[Running, str]) -> float:
    """Ask for a file; give the seconds until the client is sent elsewhere."""
    server, path = asked
    began = time.perf_counter()
    reply = server.get(path, {})
    if reply.status != 302:
        raise Unusable(f"{server.program.name} answers {path} with status {reply.status}")
    return time.perf_counter() - began


@attrs.frozen
class Bench:
    """One run of all rounds, and what has been measured so far."""

    sizes: Sizes
    load: Load
    index: Index
    folder: Path
    values: Values = attrs.field(factory=Values)

    def round(self, programs: Sequence[Program]) -> None:
        """Measure everything once."""
        for program in programs:
            folder = Path(tempfile.mkdtemp(dir=self.folder))
            settings = {**SETTINGS, "PROXPI_CACHE_DIR": str(folder / "kept")}
            with running(program, self.index.url(), folder, settings) as server:
                server.get_when_up("/health")
                self._wheel(server)
                self._large(server)
                self._herd(server)
                if not self.values.found["flood_growth"].get(program.name):
                    self._flood(server)
            if program.name == "proxpi":
                folder = Path(tempfile.mkdtemp(dir=self.folder))
                with running(program, self.index.url(), folder, {}) as server:
                    server.get_when_up("/health")
                    self._timer(server)

    def _note(self, key: str, server: Running, value: float) -> None:
        self.values.note(key, server.program.name, value)

    def _path(self, server: Running, project: str) -> tuple[str, int]:
        """Give the path of a project's one file, and its size."""
        page = json.loads(self.index.get(f"/simple/{project}/", {}).body)
        [file] = page["files"]
        if server.program.configuration is not None:
            return urlsplit(file["url"]).path, file["size"]
        return f"/index/{project}/{file['filename']}", file["size"]

    def _loaded(
        self, key: str, server: Running, path: str, headers: dict[str, str], n: int
    ) -> None:
        rate, cpu = self.load.run(server, path, headers, n)
        self._note(f"{key}_rate", server, rate)
        self._note(f"{key}_cpu", server, cpu)

    def _wheel(self, server: Running) -> None:
        path, size = self._path(server, "wheel-of-1")
        take(server, path, size, {})
        self._loaded("wheel", server, path, {}, size)

    def _large(self, server: Running) -> None:
        path, size = self._path(server, f"blob-{self.sizes.large}-of-1")
        server.forget_peak()
        memory, before = server.peak(), server.cpu_seconds()
        cold = take(server, path, size, {})
        between = server.cpu_seconds()
        warm = [take(server, path, size, {}).last for _ in range(3)]
        spent = server.cpu_seconds() - between
        self._note("large_cold", server, cold.last)
        self._note("large_cold_cpu", server, between - before)
        self._note("large_first", server, cold.first * 1e3)
        self._note("large_warm", server, median(warm))
        self._note("large_warm_cpu", server, 3 * self.sizes.large / max(spent, 0.01))
        self._note("large_growth", server, (server.peak() - memory) / MIB)
        start = size // 2
        headers = {"Range": f"bytes={start}-{start + RANGE - 1}"}
        take(server, path, RANGE, headers)
        self._loaded("range", server, path, headers, RANGE)

    def _herd(self, server: Running) -> None:
        asked, before = self._fetched(), server.cpu_seconds()
        done = self._at_once(server, f"slow-{self.sizes.slow}-of-1", self.sizes.herd)
        if done:
            self._note("herd_last", server, max(taken.last for taken in done))
            self._note("herd_first", server, median(taken.first for taken in done))
        self._note("herd_fetched", server, self._fetched() - asked)
        self._note("herd_cpu", server, server.cpu_seconds() - before)

    def _flood(self, server: Running) -> None:
        asked = self._fetched()
        server.forget_peak()
        memory = server.peak()
        done = self._at_once(server, f"blob-{self.sizes.flood}-of-1", READERS)
        self._note("flood_growth", server, (server.peak() - memory) / MIB)
        self._note("flood_fetched", server, self._fetched() - asked)
        if done:
            self._note("flood_last", server, max(taken.last for taken in done))

    def _timer(self, server: Running) -> None:
        warm, size = self._path(server, "wheel-of-1")
        take(server, warm, size, {})
        path, _ = self._path(server, f"slow-{SLOW_ENOUGH}-of-1")
        server.get(path.rpartition("/")[0] + "/", {})  # the page is not what is waited for
        with ThreadPoolExecutor(self.sizes.herd + 1) as pool:
            load = pool.submit(self.load.run, server, warm, {}, size)
            waits = list(pool.map(_wait_for_redirect, [(server, path)] * self.sizes.herd))
            load.result()
        self._note("timer_off", server, max(abs(wait - TIMEOUT) for wait in waits) * 1e3)

    def _at_once(self, server: Running, project: str, clients: int) -> list[Taken]:
        """Let so many clients take the file of a project at the same time."""
        path, size = self._path(server, project)

        def one(_: int) -> Taken | None:
            try:
                return take(server, path, size, {})
            except (OSError, http.client.HTTPException, Unusable) as error:
                what = f"a client of {server.program.name} went away with nothing: {error}"
                print(what, file=sys.stderr)
                return None

        with ThreadPoolExecutor(clients) as pool:
            return [taken for taken in pool.map(one, range(clients)) if taken is not None]

    def _fetched(self) -> int:
        return int(self.index.get("/fetched", {}).body)


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
    else:
        print("nginx is not installed, and left out (apt-get install nginx-light)")
    with tempfile.TemporaryDirectory(prefix="proxpi-benchmarks-") as folder, upstream() as index:
        bench = Bench(sizes, Load(sizes.seconds, wrk, Path(folder)), index, Path(folder))
        for number in range(sizes.repeat):
            print(f"round {number + 1} of {sizes.repeat}", file=sys.stderr)
            turn = number % len(programs)
            bench.round(programs[turn:] + programs[:turn])
    settings: dict[str, object] = {**attrs.asdict(sizes), "connections": CONNECTIONS}
    for facts in (about, settings):
        print(", ".join(f"{name} {value}" for name, value in facts.items()))
    others = [program.name for program in programs[1:]]
    print(f"\n{bench.values.table(sizes.measures(), others)}")
    if output is not None:
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
        sys.exit(f"files.py: {error}")


if __name__ == "__main__":
    main()
