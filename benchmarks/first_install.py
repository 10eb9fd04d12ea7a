"""Scenarios for first installs: a tree of dependencies, by pip and uv, that no cache has yet.

The client gets the root alone and resolves. Its upstream is the slow link at 40 MiB/s. Each program
starts with an empty cache (*nothing cached*). proxpi then starts twice more with that cache: with
fresh pages (*everything cached*), and with a time to live that has passed (*pages expired*). It is
the same folder, for proxpi verifies copied files before their first use. proxpi takes part with
prefetch and without. ``real-trees`` starts with an empty cache for each captured application
(``applications.py``), and runs on request only, for it takes long.

An upstream request is *wasted* if the client never requests the same page, metadata or file; the
client's requests are read from proxpi's access log.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote, urlsplit

import attrs
from applications import CASES, Case
from captures import Captures, default_folder
from clients import LONG_TIMEOUT, MIB, PAGE_HEADERS
from environments import BenchmarkError, environment
from installers import PIP, RATE, UV, Installer, capture
from local_index import TTL, LocalIndex, behind_slow_link, package_index
from programs import EMPTY, Program
from results import DIRECT, OFF, PROXPI, Measure, Target
from scenario import STREAMING, Benchmark, Scenario, Sizes
from tree import items, names, root

KINDS = {UV: "uv", PIP: "pip"}
_REQUEST = re.compile(r" (?:GET|HEAD) /(?:index|simple)/([^/ ?]+)/([^ ?]*)")
#: A resource: ``page``, ``metadata`` or ``file``, its project, its file name.
Item = tuple[str, str, str]


class Client(Protocol):
    """A client that installs; real clients are `Installer`."""

    def run(self, index: str, requirements: Sequence[str], folder: Path) -> float: ...


@attrs.frozen
class SimulatedClient:
    """A client that cannot run here: it repeats requests one after the other, as pip does.

    :ivar items: the requests; those for files are last
    """

    agent: str
    items: Sequence[Item]

    def run(self, index: str, requirements: Sequence[str], folder: Path) -> float:
        """Send all requests; return the seconds that they take."""
        address = urlsplit(index)
        connection = http.client.HTTPConnection(address.netloc, timeout=LONG_TIMEOUT)
        began = time.perf_counter()
        for kind, project, filename in sorted(self.items, key=lambda item: item[0] == "file"):
            suffix = ".metadata" if kind == "metadata" else ""
            path = f"{address.path}{project}/{quote(filename)}{suffix}"
            connection.request("GET", path, headers={**PAGE_HEADERS, "User-Agent": self.agent})
            response = connection.getresponse()
            while response.read(MIB):
                pass
            if response.status != 200:
                raise BenchmarkError(f"status {response.status} for {path}")
        connection.close()
        return time.perf_counter() - began


@attrs.frozen
class Traffic:
    """Upstream requests of one installation, as items with their bytes."""

    requests: Sequence[tuple[Item, int]]

    def wasted(self, requested: set[Item]) -> tuple[float, float]:
        """Return the share of wasted requests and of wasted bytes, in per cent."""
        wasted = [size for item, size in self.requests if item not in requested]
        total = sum(size for _, size in self.requests)
        return 100 * len(wasted) / max(1, len(self.requests)), 100 * sum(wasted) / max(1, total)


def variants(programs: Sequence[Program]) -> list[Program]:
    """Return the programs, with proxpi twice: with prefetch and without."""
    found = []
    for program in programs:
        if program.name == PROXPI:
            for name, mode in ((PROXPI, "on"), (OFF, "off")):
                settings = {**program.settings, "PROXPI_PREFETCH": mode}
                found.append(attrs.evolve(program, name=name, settings=settings))
        else:
            found.append(program)
    return found


def requested(log: str) -> set[Item]:
    """Return what a client requested, from an access log of proxpi."""
    found: set[Item] = set()
    for project, name in _REQUEST.findall(log):
        filename = unquote(name)
        if not filename:
            found.add(("page", project, ""))
        elif filename.endswith(".metadata"):
            found.add(("metadata", project, filename.removesuffix(".metadata")))
        else:
            found.add(("file", project, filename))
    return found


@attrs.frozen
class Installation:
    """Installs a list of requirements through one program after the other.

    :ivar index: the index, which logs its requests
    :ivar far: the same behind the slow link
    :ivar key: part of the names of the measures
    """

    bench: Benchmark
    index: LocalIndex
    far: LocalIndex
    client: Client
    requirements: Sequence[str]
    key: str

    def direct(self) -> None:
        self.bench.values.note(f"first_{self.key}", DIRECT, self._install(self.far.url()))

    def nothing_cached(self, program: Program) -> Path:
        """Measure a program with an empty cache; return its folder."""
        folder = self.bench.new_folder()
        self._log()
        with self._started(program, folder) as url:
            self._note("first", program, self._install(url))
        if program.name in (PROXPI, OFF):
            traffic = self._log()
            log = (folder / f"{program.name}.log").read_text(errors="replace")
            requests, size = traffic.wasted(requested(log))
            self._note("requests", program, len(traffic.requests))
            self._note("wasted_requests", program, requests)
            self._note("wasted_bytes", program, size)
        return folder

    def again(self, name: str, program: Program, folder: Path, settings: Mapping[str, str]) -> None:
        """Measure a program that starts with the cache in a folder."""
        with self._started(program, folder, settings) as url:
            self._note(name, program, self._install(url))

    @contextmanager
    def _started(
        self, program: Program, folder: Path, settings: Mapping[str, str] = EMPTY
    ) -> Iterator[str]:
        cache = {"PROXPI_CACHE_DIR": str(folder / "cache")}
        settings = {**STREAMING, **cache, **settings}
        with self.bench.started(program, self.far, settings, folder) as server:
            yield server.url("/index/")

    def _install(self, url: str) -> float:
        folder = self.bench.new_folder()
        spent = self.client.run(url, self.requirements, folder)
        shutil.rmtree(folder)
        return spent

    def _log(self) -> Traffic:
        """Return the upstream requests since the last call."""
        rows = json.loads(self.index.get("/log", EMPTY).body)
        return Traffic(
            [((kind, project, name), size) for _, _, kind, project, name, _, size in rows]
        )

    def _note(self, name: str, program: Program, value: float) -> None:
        self.bench.values.note(f"{name}_{self.key}", program.name, value)


def _measures(sizes: Sizes) -> list[Measure]:
    found = []
    for kind, client in KINDS.items():
        what = f"first installation of {sizes.packages} packages by {client}, slow link"
        found += [
            Measure(f"first_{kind}", f"{what}: nothing cached, s"),
            Measure(f"cached_{kind}", "… everything cached, s"),
            Measure(f"expired_{kind}", "… files cached, pages expired, s"),
            Measure(f"first_factor_{kind}", "… nothing cached : everything cached"),
            Measure(f"expired_factor_{kind}", "… pages expired : everything cached"),
            Measure(f"requests_{kind}", "… upstream requests"),
            Measure(f"wasted_requests_{kind}", "… wasted requests, %"),
            Measure(f"wasted_bytes_{kind}", "… wasted bytes, %"),
        ]
    return found


def _run(bench: Benchmark, programs: Sequence[Program]) -> None:
    clients = environment("clients", ["pip", "uv"])
    with package_index() as index, behind_slow_link(index, RATE) as far:
        index.prepare(item for name in names() for item in items(name))
        aging: list[tuple[Installation, Program, Path, float]] = []
        for kind in KINDS:
            installation = Installation(
                bench, index, far, Installer(kind, clients), [root(bench.sizes.packages)], kind
            )
            installation.direct()
            for program in variants(programs):
                folder = installation.nothing_cached(program)
                if program.name in (PROXPI, OFF):
                    installation.again("cached", program, folder, EMPTY)
                    aging.append((installation, program, folder, time.monotonic() + TTL))
        for installation, program, folder, expired in aging:
            time.sleep(max(0.0, expired - time.monotonic()))
            installation.again("expired", program, folder, {"PROXPI_INDEX_TTL": str(TTL)})
    for kind in KINDS:
        for name in ("first", "expired"):
            bench.values.note_ratio(f"{name}_factor_{kind}", f"{name}_{kind}", f"cached_{kind}")


def _real_measures(sizes: Sizes) -> list[Measure]:
    found = []
    for case in CASES:
        found += [
            Measure(f"first_{case.name}", f"{case.name}, slow link: nothing cached, s"),
            Measure(f"requests_{case.name}", "… upstream requests"),
            Measure(f"wasted_requests_{case.name}", "… wasted requests, %"),
            Measure(f"wasted_bytes_{case.name}", "… wasted bytes, %"),
        ]
    return found


def _real_trees(bench: Benchmark, programs: Sequence[Program]) -> None:
    ours = [program for program in variants(programs) if program.name in (PROXPI, OFF)]
    failures = []
    for case in CASES:
        print(case.name, file=sys.stderr)
        try:
            _real_tree(bench, ours, case)
        except BenchmarkError as error:
            failures.append(f"{case.name}: {error}")
    if failures:
        raise BenchmarkError("\n".join(failures))


def _real_tree(bench: Benchmark, programs: Sequence[Program], case: Case) -> None:
    captures = Captures(default_folder())
    requirements, installer = case.requirements(captures), case.installer()
    log = sorted(capture(installer, requirements, captures).log)
    requests: list[Item] = [tuple(row[2:5]) for row in log]
    client = SimulatedClient(case.agent(log[0][1]), requests) if case.macos else installer
    with package_index(captures) as index, behind_slow_link(index, RATE) as far:
        index.prepare(requests)
        installation = Installation(bench, index, far, client, requirements, case.name)
        if client is installer:
            installation.direct()
        for program in programs:
            shutil.rmtree(installation.nothing_cached(program))


def _real_targets() -> Iterator[Target]:
    for case in CASES:
        usual = case.installs and not case.pinned
        yield Target(f"wasted_requests_{case.name}", "≤", 10 if usual else 25)
        if case.installs:
            yield Target(f"wasted_bytes_{case.name}", "≤", 5)


SCENARIOS = [
    Scenario(
        "first-install",
        _measures,
        [
            Target("first_factor_pip", "≤", 1.2),
            Target("first_uv", "≤", 0.8, DIRECT),
            Target("expired_factor_pip", "≤", 1.15),
            Target("expired_factor_uv", "≤", 1.15),
            Target("wasted_requests_pip", "≤", 10),
            Target("wasted_requests_uv", "≤", 10),
        ],
        _run,
    ),
    Scenario("real-trees", _real_measures, list(_real_targets()), _real_trees, on_request=True),
]
