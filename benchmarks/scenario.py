"""Scenarios, and what they share: sizes, the local index, running programs, recorded values."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
from clients import MIB, PAGE_HEADERS, LoadGenerator, LoadResult, require_body
from local_index import LocalIndex
from programs import EMPTY, Program, Server, running
from results import ORIGINAL, PROXPI, UVLOOP, Measure, Target, Values

SMALL = "small-of-10"
SMALL_PAGE = f"/index/{SMALL}/"
#: Settings without redirects upstream: proxpi streams, the original waits for the whole download.
STREAMING = {"PROXPI_DOWNLOAD_TIMEOUT": "600", "PROXPI_SLOW_DOWNLOAD": "stream"}


@attrs.frozen
class Sizes:
    """The size of each scenario.

    :ivar seconds: duration of one measurement under load
    :ivar repeat: number of rounds
    :ivar large_page: files of the warm large page
    :ivar huge_page: files of the cold page whose effect on other requests is measured
    :ivar projects: length of the project list
    :ivar wheel_mib: MiB of the large wheel
    :ivar shared_wheel_mib: MiB of the cold wheel that many clients download at once
    :ivar cold_pages: number of cold pages of 300 files
    :ivar distant_pages: number of cold pages behind the slow link
    :ivar herd_clients: clients of the thundering herd
    :ivar herd_wheel_mib: MiB of the wheel that the herd requests
    :ivar packages: number of packages to install
    :ivar cached_files: files in the cache of one start
    :ivar many_cached_files: files in the cache of the other start
    """

    seconds: int = 2
    repeat: int = 3
    large_page: int = 5_000
    huge_page: int = 10_000
    projects: int = 600_000
    wheel_mib: int = 500
    shared_wheel_mib: int = 512
    cold_pages: int = 1_000
    distant_pages: int = 200
    herd_clients: int = 64
    herd_wheel_mib: int = 10
    packages: int = 100
    cached_files: int = 2_000
    many_cached_files: int = 50_000


#: For ``--quick``: every scenario runs, the values mean little.
QUICK = Sizes(
    seconds=1,
    repeat=1,
    large_page=500,
    huge_page=1_000,
    projects=20_000,
    wheel_mib=20,
    shared_wheel_mib=40,
    cold_pages=40,
    distant_pages=32,
    herd_clients=16,
    herd_wheel_mib=5,
    packages=10,
    cached_files=100,
    many_cached_files=1_000,
)


@attrs.frozen
class Benchmark:
    """One run of all rounds.

    :ivar distant: the local index behind the slow link
    :ivar folder: the folder of temporary files
    """

    sizes: Sizes
    load: LoadGenerator
    index: LocalIndex
    distant: LocalIndex
    folder: Path
    values: Values = attrs.field(factory=Values)

    @property
    def first(self) -> bool:
        """Whether this is the first round: slow measurements are part of it alone."""
        return self.values.round == 0

    def note(self, key: str, server: Server, value: float) -> None:
        self.values.note(key, server.program.name, value)

    def note_load(self, key: str, server: Server, loaded: LoadResult) -> None:
        self.note(f"{key}_rate", server, loaded.rate)
        self.note(f"{key}_cpu", server, loaded.cpu)

    def new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))

    @contextmanager
    def started(
        self,
        program: Program,
        index: LocalIndex | None = None,
        settings: Mapping[str, str] = EMPTY,
        folder: Path | None = None,
        root: str = "simple",
    ) -> Iterator[Server]:
        """Run a program and wait until it is up.

        :param index: its upstream; by default the local index without the slow link
        """
        url = (index or self.index).url(root)
        with running(program, url, folder or self.new_folder(), settings) as server:
            require_body(server, "/health", server.get_when_up("/health"))
            yield server

    def prepare(self, names: Sequence[str], index: LocalIndex | None = None) -> None:
        """Make the index render pages, so that it only sends them from now on."""
        host = f"127.0.0.1:{(index or self.index).port}"
        for name in names:
            self.index.get(f"/simple/{name}/", {**PAGE_HEADERS, "Host": host})

    def file(
        self, server: Server, project: str, index: LocalIndex | None = None
    ) -> tuple[str, int]:
        """Return the path of a project's first file at a server, and its size in bytes."""
        return self.files(server, project, index)[0]

    def files(
        self, server: Server, project: str, index: LocalIndex | None = None
    ) -> list[tuple[str, int]]:
        """Return the paths of a project's files at a server, with their sizes in bytes."""
        return [
            (path if server.program.keeps_links else f"/index/{project}/{name}", size)
            for name, path, size in (index or self.index).files(project)
        ]

    def memory_growth(self, server: Server, before: int) -> float:
        """Return the peak growth of resident memory in MiB.

        :param before: the peak in bytes after its reset
        """
        return (server.peak_memory() - before) / MIB


@attrs.frozen
class Scenario:
    """Measurements that are done together.

    :ivar name: its name for ``--only``
    :ivar measures: gives the rows of the table for some sizes
    :ivar run: measures the programs once, in the given order
    :ivar with_uvloop: whether proxpi on uvloop takes part
    :ivar on_request: whether it runs with ``--only`` alone, for it takes long
    """

    name: str
    measures: Callable[[Sizes], list[Measure]]
    targets: Sequence[Target]
    run: Callable[[Benchmark, Sequence[Program]], None]
    with_uvloop: bool = False
    on_request: bool = False

    def select(self, programs: Sequence[Program], first_round: bool) -> list[Program]:
        """Return the programs to measure.

        The original is slow: without a target that compares with it, it takes part in the first
        round only.
        """
        excluded = set[str]() if self.with_uvloop else {UVLOOP}
        if not first_round and all(target.beside != ORIGINAL for target in self.targets):
            excluded.add(ORIGINAL)
        return [program for program in programs if program.name not in excluded]


def is_proxpi(program: Program) -> bool:
    """Whether a program is proxpi, on either reactor."""
    return program.name in (PROXPI, UVLOOP)
