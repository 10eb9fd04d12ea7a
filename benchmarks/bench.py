"""What all scenarios work with: sizes, the local index, started programs, and where values go."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
from load import MIB, PAGE_HEADERS, Load, whole
from local import Index
from programs import NOTHING_SAID, Program, Running, running
from values import ORIGINAL, OURS, UVLOOP, Measure, Target, Values

SMALL = "small-of-10"
SMALL_PAGE = f"/index/{SMALL}/"
#: So that nobody is sent upstream: the original waits for as long as it takes, proxpi streams.
STREAMING = {"PROXPI_DOWNLOAD_TIMEOUT": "600", "PROXPI_SLOW_DOWNLOAD": "stream"}


@attrs.frozen
class Sizes:
    """How much there is of everything.

    :ivar seconds: of one measurement under load
    :ivar repeat: rounds
    :ivar large: files of a large page
    :ivar huge: files of a larger one, for the pause that it makes
    :ivar listed: projects in the list of all
    :ivar blob: MiB of the large file
    :ivar flood: MiB of the file that twenty want at once
    :ivar pages: those of 300 files each that are asked for the first time
    :ivar distant: pages behind the slow link
    :ivar herd: clients that want one file behind the slow link
    :ivar herd_blob: MiB of that file
    :ivar packages: that are installed
    :ivar kept: files in the cache at a start
    :ivar many: files in it at another
    """

    seconds: int = 2
    repeat: int = 3
    large: int = 5_000
    huge: int = 10_000
    listed: int = 600_000
    blob: int = 500
    flood: int = 512
    pages: int = 1_000
    distant: int = 200
    herd: int = 64
    herd_blob: int = 10
    packages: int = 100
    kept: int = 2_000
    many: int = 50_000


#: For ``--quick``: everything is done, little of it means something.
QUICK = Sizes(
    seconds=1,
    repeat=1,
    large=500,
    huge=1_000,
    listed=20_000,
    blob=20,
    flood=40,
    pages=40,
    distant=32,
    herd=16,
    herd_blob=5,
    packages=10,
    kept=100,
    many=1_000,
)


@attrs.frozen
class Bench:
    """One run of all rounds.

    :ivar index: the local index
    :ivar distant: the same behind a slow link
    :ivar folder: for temporary files
    """

    sizes: Sizes
    load: Load
    index: Index
    distant: Index
    folder: Path
    values: Values = attrs.field(factory=Values)

    @property
    def first(self) -> bool:
        """Whether this is the first round: what takes long is measured in that one only."""
        return self.values.round == 0

    def note(self, key: str, server: Running, value: float) -> None:
        """Keep what was measured of a program."""
        self.values.note(key, server.program.name, value)

    def new_folder(self) -> Path:
        """Make a folder that nobody else uses."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    @contextmanager
    def started(
        self,
        program: Program,
        index: Index | None = None,
        settings: Mapping[str, str] = NOTHING_SAID,
        folder: Path | None = None,
        root: str = "simple",
    ) -> Iterator[Running]:
        """Run a program before an index, the fast one if none is named, and wait until it is up."""
        url = (index or self.index).url(root)
        with running(program, url, folder or self.new_folder(), settings) as server:
            whole(server, "/health", server.get_when_up("/health"))
            yield server

    def prepare(self, names: Sequence[str], index: Index | None = None) -> None:
        """Have pages made by the index, so that it only sends them from now on."""
        host = f"127.0.0.1:{(index or self.index).port}"
        for name in names:
            self.index.get(f"/simple/{name}/", {**PAGE_HEADERS, "Host": host})

    def file(self, server: Running, project: str, index: Index | None = None) -> tuple[str, int]:
        """Give the path of a project's first file at a program, and its size."""
        name, path, size = (index or self.index).file(project)
        return (path if server.program.passes_on else f"/index/{project}/{name}"), size

    def growth(self, server: Running, before: int) -> float:
        """Give the MiB by which resident memory grew at most since it was so many bytes."""
        return (server.peak() - before) / MIB


@attrs.frozen
class Scenario:
    """Some measurements that are done together.

    :ivar name: for ``--only``
    :ivar measures: the rows of the table, for given sizes
    :ivar targets: what they are to be
    :ivar run: measures the programs once, in the given order
    :ivar with_variants: whether proxpi's other way to run (uvloop) is measured, too
    :ivar original_once: whether the original is measured in the first round only: it takes it long,
        and no target stands beside it
    """

    name: str
    measures: Callable[[Sizes], list[Measure]]
    targets: Sequence[Target]
    run: Callable[[Bench, Sequence[Program]], None]
    with_variants: bool = False
    original_once: bool = True

    def chosen(self, programs: Sequence[Program], first: bool) -> list[Program]:
        """Leave out the programs that it does not measure, in the first round or in another."""
        left_out = set[str]() if self.with_variants else {UVLOOP}
        if self.original_once and not first:
            left_out.add(ORIGINAL)
        return [program for program in programs if program.name not in left_out]


def ours(program: Program) -> bool:
    """Whether a program is proxpi, in whichever way."""
    return program.name in (OURS, UVLOOP)


def links(page: bytes) -> list[str]:
    """Give the names of the files of a page in JSON."""
    return [file["filename"] for file in json.loads(page)["files"]]
