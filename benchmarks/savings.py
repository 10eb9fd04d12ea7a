"""What proxpi saves in CI: a job that installs 100 packages, without a proxy and with a sidecar.

The packages are real: pages, metadata and files are captured from the default index
(``captures.py``), and served over slow links. Each job begins like a fresh container: nothing is
installed, and the client's own cache is empty, unless the job restores it. A job lasts until its
packages are installed. It includes unpacking what it restores, and the start of its own sidecar;
the CI system's transfers, and the start of containers, come on top.

The states of a job:

*direct*
   No proxy, as in most CI jobs.
*client cache*
   No proxy; the client's cache is restored from an archive, as the CI system's cache does it.
*empty sidecar*
   A new proxpi without a cached file.
*warm sidecar*
   A proxpi that runs on; the same job has gone before.
*restored folder*
   A new proxpi; its cache folder is restored from an archive.

Where something is restored, all pages have expired (:data:`local_index.TTL`). proxpi has its
default settings. Rounds alternate between the job without a proxy first and those with one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs
from applications import APPLICATIONS
from captures import Captures, default_folder
from command import processor, replace_figures
from environments import BenchmarkError, environment, exit_on_sigterm
from installers import CACHE, PIP, RATE, UV, Installer, capture
from local_index import TTL, LocalIndex, behind_slow_link, package_index
from plot import Plot, Row, svg
from programs import EMPTY, proxpi, running
from results import (
    CLIENT_CACHE,
    DASH,
    DIRECT,
    EMPTY_SIDECAR,
    RESTORED_FOLDER,
    WARM_SIDECAR,
    Values,
    format_number,
    text,
    to_rst,
)

_TOP = Path(__file__).parent.parent
DOCUMENT = _TOP / "docs/savings.rst"
PLOT = _TOP / "docs/savings.svg"
REQUIREMENTS = [*APPLICATIONS["notebook"], "pytest", "pytest-cov"]
CLIENTS = (PIP, UV)
#: Milliseconds of a round trip to the index: far away, and as near as a content delivery network.
LINKS = (50, 10)
STATES = (DIRECT, CLIENT_CACHE, EMPTY_SIDECAR, WARM_SIDECAR, RESTORED_FOLDER)
SIDECARS = (EMPTY_SIDECAR, WARM_SIDECAR, RESTORED_FOLDER)
#: Where files are in memory: the delays of a busy disk would hide those of the link.
MEMORY = Path("/dev/shm")
MB = 1_000_000
FIGURE = Plot(
    "Times faster than the same job without a proxy",
    "100 packages; median; logarithmic scale; longer is better",
    {},
    DIRECT,
)
_KEPT, _COSTS = ("archive", "pack", "unpack"), ("start", "cpu", "memory")


@attrs.frozen
class Archive:
    """A folder that a CI system keeps between jobs, as ``tar`` and ``zstd`` pack it.

    :ivar began: when it was packed, on the clock of ``time.perf_counter``
    :ivar packed_in: seconds
    """

    path: Path
    began: float
    packed_in: float

    @classmethod
    def pack(cls, folder: Path, path: Path) -> Archive:
        began = time.perf_counter()
        _tar("--create", path, folder)
        return cls(path, began, time.perf_counter() - began)

    def unpack(self, folder: Path) -> float:
        """Unpack it to a new folder; return the seconds that it took."""
        folder.mkdir()
        began = time.perf_counter()
        _tar("--extract", self.path, folder)
        return time.perf_counter() - began


def _tar(action: str, path: Path, folder: Path) -> None:
    command = ["tar", action, "--zstd", "--file", str(path), "--directory", str(folder)]
    subprocess.run([*command, "."] if action == "--create" else command, check=True)


@attrs.frozen
class Jobs:
    """The jobs of one client over one link.

    :ivar index: the index, which logs its requests
    :ivar far: the same behind the link
    :ivar link: milliseconds of a round trip
    :ivar folder: the folder of temporary files
    """

    values: Values
    index: LocalIndex
    far: LocalIndex
    link: int
    client: str
    folder: Path

    def without_proxy(self) -> Archive:
        """Run the job without a proxy; return the client's cache."""
        home = self._new_folder()
        self._run(DIRECT, self.far.url(), home, 0)
        return self._pack(CLIENT_CACHE, home / CACHE)

    def with_client_cache(self, archive: Archive) -> None:
        home = self._new_folder()
        spent = archive.unpack(home / CACHE)
        self._note("unpack", CLIENT_CACHE, spent)
        self._run(CLIENT_CACHE, self.far.url(), home, spent)

    def with_sidecar(self) -> Archive:
        """Run the job with an empty sidecar, and again; return the sidecar's cache folder."""
        folder = self._new_folder()
        self._sidecar((EMPTY_SIDECAR, WARM_SIDECAR), folder, 0, EMPTY)
        return self._pack(RESTORED_FOLDER, folder / "cache")

    def with_restored_folder(self, archive: Archive) -> None:
        folder = self._new_folder()
        spent = archive.unpack(folder / "cache")
        self._note("unpack", RESTORED_FOLDER, spent)
        # All pages have expired, and stay fresh once they are revalidated.
        ttl = int(time.perf_counter() - archive.began)
        self._sidecar((RESTORED_FOLDER,), folder, spent, {"PROXPI_INDEX_TTL": str(ttl)})

    def _sidecar(
        self, states: Sequence[str], folder: Path, spent: float, settings: Mapping[str, str]
    ) -> None:
        """Start a sidecar, and run a job for each state.

        :param spent: seconds that the first job had to wait before
        """
        settings = {"PROXPI_CACHE_DIR": str(folder / "cache"), **settings}
        with running(proxpi(), self.far.url(), folder, settings) as server:
            server.get_when_up("/health")
            start = server.seconds()
            self._note("start", states[0], start)
            spent += start
            for state in states:
                before = server.cpu_seconds()
                self._run(state, server.url("/index/"), self._new_folder(), spent)
                self._note("cpu", state, server.cpu_seconds() - before)
                self._note("memory", state, server.memory() / MB)
                spent = 0

    def _run(self, state: str, url: str, home: Path, spent: float) -> None:
        """Run the job.

        :param url: the index of the client
        :param home: its home folder
        :param spent: seconds that the job had to wait before
        """
        self._log()
        installer = Installer(self.client, _clients(), caches=True)
        spent += installer.run(url, REQUIREMENTS, home)
        print(f"{self.client}, {self.link} ms, {state}: {spent:.1f} s", file=sys.stderr)
        self._note("seconds", state, spent)
        log = self._log()
        self._note("requests", state, len(log))
        self._note("upstream", state, sum(size for *_, size in log) / MB)
        if state == DIRECT:
            self._note("packages", state, sum(kind == "file" for _, _, kind, *_ in log))
        shutil.rmtree(home / "installed")

    def _log(self) -> list[tuple[float, str, str, str, str, int, int]]:
        """Return the upstream requests since the last call."""
        found: list[tuple[float, str, str, str, str, int, int]]
        found = json.loads(self.index.get("/log", {}).body)
        return found

    def _pack(self, state: str, folder: Path) -> Archive:
        archive = Archive.pack(folder, self._new_folder() / "archive")
        self._note("pack", state, archive.packed_in)
        self._note("archive", state, archive.path.stat().st_size / MB)
        return archive

    def _note(self, what: str, state: str, value: float) -> None:
        self.values.note(key(what, self.client, self.link), state, value)

    def _new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))


def key(what: str, client: str, link: int) -> str:
    return f"{what}_{client}_{link}"


def _clients() -> Path:
    return environment("clients", ["pip", "uv"])


def measure(rounds: int, folder: Path) -> Values:
    """Run all jobs.

    :param folder: the folder of temporary files
    :raises BenchmarkError: if a tool is missing, or a client fails
    """
    if shutil.which("zstd") is None:
        raise BenchmarkError("zstd is not installed (apt-get install zstd)")
    captures = Captures(default_folder().with_name("captures-with-files"), files=True)
    # pip chooses the same releases, and takes much longer.
    requests = capture(Installer(UV, _clients()), REQUIREMENTS, captures).log
    values = Values()
    with package_index(captures) as index:
        index.prepare({tuple(row[2:5]) for row in requests})
        for number in range(rounds):
            values.round = number
            for link in LINKS:
                print(f"round {number + 1} of {rounds}", file=sys.stderr)
                with (
                    behind_slow_link(index, RATE, link) as far,
                    tempfile.TemporaryDirectory(dir=folder) as own,
                ):
                    _round(values, index, far, link, Path(own))
        if index.get("/captured", {}).body != b"0":
            raise BenchmarkError("pages or files were missing, and are captured now: start again")
    return values


def _round(values: Values, index: LocalIndex, far: LocalIndex, link: int, own: Path) -> None:
    all_jobs = [Jobs(values, index, far, link, client, own) for client in CLIENTS]
    kept: list[tuple[Archive, Archive]] = []
    for jobs in all_jobs:
        if values.round % 2:
            folder = jobs.with_sidecar()
            kept.append((jobs.without_proxy(), folder))
        else:
            kept.append((jobs.without_proxy(), jobs.with_sidecar()))
    time.sleep(TTL)
    for jobs, (cache, folder) in zip(all_jobs, kept, strict=True):
        jobs.with_client_cache(cache)
        jobs.with_restored_folder(folder)


def tables(values: Values) -> list[tuple[str, list[list[str]]]]:
    """Return the tables with their titles."""

    def found(what: str, client: str, state: str, link: int = LINKS[0]) -> str:
        spread = values.spread(key(what, client, link), state)
        return format_number(spread.median) if spread else DASH

    def job(client: str, link: int, state: str) -> str:
        ratio = values.ratio(key("seconds", client, link), state, DIRECT)
        return f"{found('seconds', client, state, link)} s: {ratio}"

    def upstream(client: str, state: str) -> str:
        size = found("upstream", client, state)
        return f"{found('requests', client, state)}, {size} MB"

    runs = [(client, link) for client in CLIENTS for link in LINKS]
    jobs = [["", *(f"{client}, {link} ms" for client, link in runs)]]
    jobs += [[state, *(job(client, link, state) for client, link in runs)] for state in STATES]
    requests = [["", *CLIENTS]]
    requests += [[state, *(upstream(client, state) for client in CLIENTS)] for state in STATES]
    kept = [["", "MB", "seconds to pack", "seconds to unpack"]]
    kept += [
        [f"{state}, {client}", *(found(what, client, state) for what in _KEPT)]
        for state in (CLIENT_CACHE, RESTORED_FOLDER)
        for client in CLIENTS
    ]
    costs = [["", "seconds to start", "CPU seconds in the job", "MB of memory after it"]]
    costs += [
        [f"{state}, {client}", *(found(what, client, state) for what in _COSTS)]
        for state in SIDECARS
        for client in CLIENTS
    ]
    return [
        ("Seconds of the job, and the ratio to *direct* with its range", jobs),
        ("Upstream requests and bytes", requests),
        ("Archives that the CI system keeps, packed with zstd", kept),
        ("Costs of the sidecar", costs),
    ]


def rows(values: Values) -> list[Row]:
    """Return the rows of the plot."""
    found = []
    for client in CLIENTS:
        for link in LINKS:
            ratios = {
                state: values.ratio(key("seconds", client, link), state, DIRECT)
                for state in STATES[1:]
            }
            times = {state: 1 / ratio.median for state, ratio in ratios.items() if ratio}
            found.append(Row(f"{client}, index {link} ms away", times))
    return found


def figures(about: str, values: Values) -> str:
    """Render the figures of the document."""
    parts = [f"Measured with: {about}."]
    parts.append(".. image:: savings.svg\n   :alt: Times faster than without a proxy, by job")
    for title, table in tables(values):
        parts += [f"{title}:", to_rst(table)]
    return "\n\n".join(parts) + "\n"


def _describe(values: Values, rounds: int) -> str:
    ours, clients = proxpi(), attrs.evolve(proxpi(), python=_clients() / "bin/python")
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "proxpi": ours.version("proxpi"),
        "pip": clients.version("pip"),
        "uv": clients.version("uv"),
        "python": platform.python_version(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load average": round(os.getloadavg()[0], 2),
        "packages": values.spread(key("packages", PIP, LINKS[0]), DIRECT),
        "rounds": rounds,
    }
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="benchmarks/savings", description=(__doc__ or "").partition("\n")[0]
    )
    found.add_argument("--rounds", type=int, default=3, help="number of rounds (3)")
    found.add_argument(
        "--docs", action="store_true", help=f"renew the figures and the plot of {DOCUMENT.name}"
    )
    return found


def main() -> None:
    options = parser().parse_args()
    if options.rounds < 1:
        parser().error("--rounds is a whole number from 1 on")
    exit_on_sigterm()
    try:
        memory = MEMORY if os.access(MEMORY, os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="proxpi-benchmarks-", dir=memory) as folder:
            values = measure(options.rounds, Path(folder))
        about = _describe(values, options.rounds)
        print(about)
        for title, table in tables(values):
            print(f"\n{title}\n\n{text(table)}")
        if options.docs:
            PLOT.write_text(svg(rows(values), FIGURE))
            DOCUMENT.write_text(replace_figures(DOCUMENT.read_text(), figures(about, values)))
    except BenchmarkError as error:
        sys.exit(f"benchmarks/savings: {error}")
