"""Folders of distributions as indexes: what their pages say, when they change, and what fails."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from shutil import rmtree
from typing import Any, TypeVar
from unittest import mock

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from proxpi import archives, local_files
from proxpi.index import folder as module
from proxpi.index.breaker import Breakers
from proxpi.index.client import ABSENT_TTL
from proxpi.index.folder import SETTLED, SHARED, FolderIndex, scan
from proxpi.index.index_response import IndexPage, IndexResponse, StoredResponse
from proxpi.index.list_store import ListFile, ListStore
from proxpi.problems import Problems
from proxpi.upstream import UpstreamFailed
from tests.support.cache import refused, replace
from tests.support.cases import FolderCase, at_once, run, sha256
from tests.support.distributions import Distribution, make_sdist, make_wheel
from tests.support.logs import logged

T = TypeVar("T")
TTL = 10.0
WHEEL, SDIST = make_wheel("Demo"), make_sdist("Demo", "0.9")


class FolderIndexCase(FolderCase):
    """Tests of an index of a folder, whose clock and threads they control.

    :ivar wall: the seconds since the epoch; by default so late that all files are settled
    :ivar held: whether threads wait for :meth:`run_thread`
    """

    def setUp(self) -> None:
        super().setUp()
        self.wheels = self.folder / "wheels"
        self.wheels.mkdir()
        self.clock = Clock()
        self.wall: Callable[[], float] = lambda: time.time() + 1000
        self.held = False
        self.jobs: list[tuple[Any, Deferred[Any]]] = []
        self.bytes: list[int] = []
        self.start()

    def start(self, ttl: float = TTL) -> None:
        """Begin with what lies in the folder, as after a restart."""
        url = local_files.url_of(f"{self.wheels}/", local_files.Identity(0, 0, 0)).partition("?")[0]
        self.index = FolderIndex(
            name="wheels",
            url=url,
            ttl=ttl,
            breakers=Breakers(url, self.clock),
            clock=self.clock,
            wall=lambda: self.wall(),
            in_thread=self.in_thread,
            store=self.folder / "own/folders",
            problems=Problems(self.clock.seconds, lambda: self.wall()),
        )

    def in_thread(self, job: Callable[[], T]) -> Deferred[T]:
        if not self.held:
            return at_once(job)
        self.jobs.append((job, Deferred()))
        return self.jobs[-1][1]

    def run_thread(self) -> None:
        job, done = self.jobs.pop(0)
        at_once(job).chainDeferred(done)

    def add(self, *files: Distribution, within: str = "") -> None:
        folder = self.wheels / within
        folder.mkdir(exist_ok=True)
        for file in files:
            (folder / file.filename).write_bytes(file.data)

    def ask(
        self, name: str = "demo", stored: StoredResponse | None = None
    ) -> Deferred[IndexResponse[IndexPage]]:
        return run(self.index.project(name, stored, self.bytes.append))

    def get(
        self, name: str = "demo", stored: StoredResponse | None = None
    ) -> IndexResponse[IndexPage]:
        return self.result(self.ask(name, stored))

    def later(self, name: str = "demo") -> IndexResponse[IndexPage]:
        """Request a page when no earlier scan counts."""
        self.clock.advance(SHARED + 0.1)
        return self.get(name)

    def fails(self, name: str = "demo") -> UpstreamFailed:
        self.clock.advance(SHARED + 0.1)
        return self.error(self.ask(name), UpstreamFailed)

    def files(self, name: str = "demo") -> dict[str, dict[str, Any]]:
        content = self.later(name).content
        return {} if content is None else {each["filename"]: each for each in content.project.files}

    def reads(self) -> Any:
        """Count the files that are opened in the folder."""
        return mock.patch.object(local_files, "open_regular", wraps=local_files.open_regular)


class PageTests(FolderIndexCase):
    """The entries of a page."""

    def test_entries(self) -> None:
        """A page has digests, sizes, times, requires-python and core metadata of its files."""
        self.add(WHEEL, SDIST)
        os.utime(self.wheels / WHEEL.filename, (0, 1_700_000_000.25))
        os.utime(self.wheels / SDIST.filename, (0, 1_600_000_000))
        content = self.get().content
        assert content is not None and WHEEL.metadata is not None
        assert dict(content.project.keys) == {"versions": ["0.9", "1.0"]}
        sdist, wheel = content.project.files
        path = self.wheels / WHEEL.filename
        identity = local_files.Identity.of(path.stat())
        expected = {
            "filename": WHEEL.filename,
            "url": local_files.url_of(str(path), identity),
            "hashes": {"sha256": WHEEL.sha256},
            "size": WHEEL.size,
            "requires-python": ">=3.8",
            "core-metadata": {"sha256": sha256(WHEEL.metadata)},
            "upload-time": "2023-11-14T22:13:20.250000Z",
        }
        assert wheel == expected
        sdist.pop("url")
        expected = {
            "filename": SDIST.filename,
            "hashes": {"sha256": SDIST.sha256},
            "size": SDIST.size,
            "requires-python": ">=3.8",
            "upload-time": "2020-09-13T12:26:40Z",
        }
        assert sdist == expected

    def test_layouts(self) -> None:
        """A file belongs to the project in its name, in the folder itself and in those within."""
        self.add(make_wheel("Demo", "1.0"))
        self.add(make_wheel("demo", "2.0"), make_wheel("other"), within="Demo")
        self.add(make_wheel("demo", "3.0"), within="team-a")
        assert [name.split("-")[1] for name in self.files()] == ["1.0", "2.0", "3.0"]
        assert len(self.files("other")) == 1

    def test_first_of_two(self) -> None:
        """Of two files with one name, that in the folder itself counts, then the first folder's."""
        for number, within in enumerate(("b", "a", "")):
            file = make_wheel("demo", padding=number)
            self.add(file, within=within)
            assert self.files()[file.filename]["size"] == file.size

    def test_odd_names(self) -> None:
        """In the folder of a project, a distribution without a version in its name is listed."""
        for name in ("latest.zip", "latest.exe", "notes.txt", "index.html"):
            (self.wheels / name).write_bytes(b"")
            (self.wheels / "Odd.Name").mkdir(exist_ok=True)
            (self.wheels / "Odd.Name" / name).write_bytes(b"")
        assert list(self.files("odd-name")) == ["latest.exe", "latest.zip"]
        assert self.files("latest") == {}

    def test_companions(self) -> None:
        """Signatures are stated, not listed; neither are metadata, hidden and unfinished files."""
        self.add(WHEEL, SDIST)
        for suffix in (".asc", ".metadata", ".tmp", ".part"):
            (self.wheels / f"{WHEEL.filename}{suffix}").write_bytes(b"")
        (self.wheels / f".{WHEEL.filename}").write_bytes(b"")
        (self.wheels / ".hidden").mkdir()
        self.add(make_wheel("demo", "3.0"), within=".hidden")
        files = self.files()
        assert list(files) == [SDIST.filename, WHEEL.filename]
        assert [each.get("gpg-sig") for each in files.values()] == [None, True]

    def test_links(self) -> None:
        """Symbolic links are followed; broken ones and loops are left out."""
        outside = self.folder / "outside"
        outside.mkdir()
        (outside / WHEEL.filename).write_bytes(WHEEL.data)
        (self.wheels / "linked").symlink_to(outside)
        (self.wheels / SDIST.filename).symlink_to(outside / WHEEL.filename)
        (self.wheels / "demo-3.0.tar.gz").symlink_to(outside / "nothing")
        (self.wheels / "demo-4.0.tar.gz").symlink_to("demo-4.0.tar.gz")
        (self.wheels / "self").symlink_to(self.wheels)
        assert list(self.files()) == [SDIST.filename, WHEEL.filename]

    def test_hostile_files(self) -> None:
        """Pipes, devices and folders are no files, and a damaged archive only lacks metadata."""
        os.mkfifo(self.wheels / "demo-1.0.tar.gz")
        os.mkdir(self.wheels / "demo-1.1.tar.gz")
        (self.wheels / "demo-1.2.tar.gz").symlink_to("/dev/zero")
        (self.wheels / os.fsdecode(b"demo-1.3-\xff.tar.gz")).write_bytes(b"")
        (self.wheels / "demo-1.4-a\nb.tar.gz").write_bytes(b"")
        for name in (
            "demo-2.0-py3-none-any.whl",
            "demo-2.1.zip",
            "demo-2.2.tar.gz",
            "demo-2.3.rpm",
        ):
            (self.wheels / name).write_bytes(b"PK\x05\x06 damaged")
        files = self.files()
        assert [name[5:8] for name in files] == ["2.0", "2.1", "2.2", "2.3"]
        for each in files.values():
            assert not ({"requires-python", "core-metadata"} & each.keys())

    def test_time_out_of_range(self) -> None:
        """A file whose time no calendar has is listed without one."""
        self.add(WHEEL)
        identity = local_files.Identity.of((self.wheels / WHEEL.filename).stat())
        listed = module.Found(WHEEL.filename, WHEEL.filename, False, identity, 1 << 80)
        details = module.Details(identity, WHEEL.sha256)
        page = module.page_of(f"{self.wheels}/", "demo", {WHEEL.filename: (listed, details)})
        assert "upload-time" not in page.project.files[0]

    def test_ten_thousand_files(self) -> None:
        """A page reads the files of its project, and no other of ten thousand."""
        for number in range(10_000):
            (self.wheels / f"project{number}-1.0.tar.gz").write_bytes(b"")
        with self.reads() as opened:
            assert len(self.files("project77")) == 1
        assert opened.call_count == 1


class ChangeTests(FolderIndexCase):
    """When a page is made anew, and what is read again for it."""

    def test_confirmed(self) -> None:
        """An unchanged page is confirmed without content, unless it was invalidated."""
        self.add(WHEEL)
        first = self.get().stored
        self.clock.advance(TTL)
        second = self.get(stored=first)
        assert second.content is None
        assert second.supersedes(first)
        assert second.stored.requested_at == TTL
        assert self.get(stored=first.invalidate()).content is not None

    def test_changed(self) -> None:
        """A file that is added, replaced, written, touched or removed changes the page."""
        path = self.wheels / WHEEL.filename
        before = self.later().stored
        changes: list[Callable[[], object]] = [
            lambda: self.add(WHEEL),
            lambda: self.add(SDIST),
            lambda: replace(path, b"other bytes"),
            lambda: path.write_bytes(b"Other bytes"),
            lambda: os.utime(path, (0, 0)),
            lambda: (self.wheels / f"{WHEEL.filename}.asc").touch(),
            lambda: path.unlink(),
        ]
        for change in changes:
            change()
            self.clock.advance(TTL)
            response = self.get(stored=before)
            assert response.content is not None
            before = response.stored
        (self.wheels / SDIST.filename).unlink()
        self.clock.advance(TTL)
        absent = self.get(stored=before)
        assert (absent.stored.present, absent.stored.served) == (False, True)

    def test_fresh(self) -> None:
        """A response is fresh for the time to live, counted from its scan."""
        self.add(WHEEL)
        stored = self.get().stored
        assert self.index.remaining(stored) == TTL
        self.clock.advance(SHARED / 2)
        assert self.index.remaining(self.get("absent").stored) == TTL - SHARED / 2
        assert self.index.remaining(stored.invalidate()) == 0
        assert self.index.remaining(None) == 0
        self.start(ttl=1800)
        assert self.index.remaining(self.get("absent").stored) == ABSENT_TTL

    def test_scans(self) -> None:
        """Requests within a second share a scan; one that wants what is new has its own."""
        self.add(WHEEL)
        with mock.patch.object(module, "scan", wraps=module.scan) as scans:
            for name in ("demo", "other", "demo"):
                self.get(name)
            assert scans.call_count == 1
            self.clock.advance(SHARED + 0.1)
            self.get()
            assert scans.call_count == 2
            self.clock.advance(0.1)
            stored = self.get(stored=StoredResponse(True, 0.0).invalidate()).stored
            assert scans.call_count == 3
            self.clock.advance(0.1)
            self.get(stored=stored)
            assert scans.call_count == 4
            self.start(ttl=0)
            self.get()
            self.clock.advance(0.001)
            self.get()
            assert scans.call_count == 6

    def test_scans_of_a_large_folder(self) -> None:
        """A scan that takes long is shared for longer, though not beyond the time to live."""
        self.start(ttl=5)
        with mock.patch.object(module, "scan", wraps=module.scan) as scans:
            scans.side_effect = lambda *given: attrs.evolve(scan(*given), took=0.1)
            self.get()
            self.clock.advance(1.9)
            self.get()
            assert scans.call_count == 1
            self.clock.advance(0.2)
            scans.side_effect = lambda *given: attrs.evolve(scan(*given), took=100.0)
            self.get()
            assert scans.call_count == 2
            self.clock.advance(5.1)
            self.get()
            assert scans.call_count == 3

    def test_one_scan_at_a_time(self) -> None:
        """Requests that come while a scan runs share the next one, if that one is too old."""
        self.start(ttl=0.1)
        self.held = True
        first = self.ask()
        self.clock.advance(0.2)
        rest = [self.ask(), self.ask()]
        assert len(self.jobs) == 1
        self.add(WHEEL)
        while self.jobs:
            self.run_thread()
        self.result(first)
        assert all(self.result(each).stored.present for each in rest)

    def test_remembered(self) -> None:
        """A file is read once, also over a restart, until it changes."""
        self.add(WHEEL, SDIST, within="demo")
        with self.reads() as opened:
            before = self.files()
            assert opened.call_count == 2
            assert self.files() == before
            self.start()
            assert self.files() == before
            assert opened.call_count == 2
            (self.wheels / "demo" / SDIST.filename).touch()
            self.files()
            assert opened.call_count == 3

    def test_memory_damaged(self) -> None:
        """Details that cannot be stored, or not read after a restart, cost another reading."""
        self.add(WHEEL)
        expected = self.files()
        (remembered,) = (self.folder / "own/folders").rglob("demo.json")
        for content in (b"", b"{}", remembered.read_bytes().replace(b'"format":1', b'"format":0')):
            remembered.write_bytes(content)
            self.start()
            with self.reads() as opened:
                assert self.files() == expected
            assert opened.call_count == 1
        self.start()
        rmtree(self.folder / "own/folders")
        (self.folder / "own/folders").write_bytes(b"")
        with logged() as log:
            assert self.files() == expected
        assert len(log.events) == 1

    def test_unsettled(self) -> None:
        """The page of a file that changed a moment ago is fresh for two seconds, then made anew."""
        self.wall = time.time
        self.add(WHEEL)
        stored = self.get().stored
        assert self.index.remaining(stored) == SETTLED
        with self.reads() as opened:
            self.files()
            assert opened.call_count == 0
            self.wall = lambda: time.time() + SETTLED
            self.clock.advance(SETTLED)
            stored = self.get(stored=stored).stored
            assert opened.call_count == 1
        assert self.index.remaining(stored) == TTL

    def test_written_meanwhile(self) -> None:
        """A file that is written while it is read is not listed, but by the next page."""
        self.add(WHEEL, SDIST)
        path = self.wheels / SDIST.filename
        metadata = archives.source_metadata

        def writing(*arguments: Any) -> bytes:
            path.write_bytes(b"more")
            return metadata(*arguments)

        with mock.patch.object(module, "source_metadata", writing):
            response = self.get()
        assert response.content is not None
        assert [each["size"] for each in response.content.project.files] == [WHEEL.size]
        assert self.index.remaining(response.stored) <= SETTLED
        assert list(self.files()) == [SDIST.filename, WHEEL.filename]

    def test_gone_meanwhile(self) -> None:
        """A file that goes, or becomes a pipe, between the steps is not listed."""
        self.add(WHEEL, SDIST)
        self.held = True
        asked = self.ask()
        self.run_thread()  # the scan
        (self.wheels / WHEEL.filename).unlink()
        self.run_thread()  # the inspection
        (self.wheels / SDIST.filename).unlink()
        os.mkfifo(self.wheels / SDIST.filename)
        while self.jobs:
            self.run_thread()
        content = self.result(asked).content
        assert (content and list(content.project.files)) == []


class ReadingTests(FolderIndexCase):
    """Large folders: threads and progress."""

    def test_no_work_on_the_reactors_thread(self) -> None:
        """The reactor's thread looks at no file: a disk that hangs keeps threads alone."""
        self.add(WHEEL, SDIST, within="demo")
        inside = False

        def guarded(call: Callable[..., Any]) -> Callable[..., Any]:
            def calling(*arguments: Any, **named: Any) -> Any:
                assert inside, arguments
                return call(*arguments, **named)

            return calling

        def in_thread(job: Callable[[], T]) -> Deferred[T]:
            nonlocal inside
            inside = True
            try:
                return at_once(job)
            finally:
                inside = False

        self.put(self, "in_thread", in_thread)
        self.start()
        for name in ("scandir", "stat", "open", "mkdir", "fstat"):
            patch = mock.patch.object(os, name, guarded(getattr(os, name)))
            patch.start()
            self.addCleanup(patch.stop)
        response = self.get()
        assert response.content is not None
        self.clock.advance(TTL)
        assert self.get(stored=response.stored).content is None
        self.get("absent")

    def test_progress(self) -> None:
        """Clients learn of the bytes that are read, so that they wait for a large file."""
        self.put(module, "TURN", 0.0)
        self.put(module, "CHUNK", 100)
        self.add(WHEEL)
        self.get()
        assert len(self.bytes) > WHEEL.size // 100
        assert sum(self.bytes) == WHEEL.size

    def test_shared_reading(self) -> None:
        """Requests for one project share the reading of its files; each learns of the bytes."""
        self.put(module, "TURN", 0.0)
        self.put(module, "CHUNK", 100)
        self.add(WHEEL)
        self.held = True
        asked, other = [self.ask()], list[int]()
        for _ in range(4):
            self.run_thread()
        asked.append(run(self.index.project("demo", None, other.append)))
        with self.reads() as opened:
            while self.jobs:
                self.run_thread()
        assert opened.call_count == 0
        for each in asked:
            assert self.result(each).content is not None
        assert 0 < sum(other) < WHEEL.size

    def test_file_of_a_later_request(self) -> None:
        """A request that joins a reading gets a file that the reading did not begin with."""
        self.add(WHEEL)
        self.held = True
        first = self.ask()
        self.run_thread()
        self.run_thread()
        self.add(SDIST)
        self.clock.advance(SHARED + 0.1)
        second = self.ask()
        reading = self.jobs.pop(0)
        self.run_thread()
        self.run_thread()
        self.jobs.insert(0, reading)
        while self.jobs:
            self.run_thread()
        content = [self.result(each).content for each in (first, second)]
        assert [each and len(each.project.files) for each in content] == [1, 2]


class FailureTests(FolderIndexCase):
    """A folder that cannot be read is never an absence."""

    def test_no_folder(self) -> None:
        """A folder that is gone, is none, or may not be read is a failure that a retry keeps."""
        self.add(WHEEL)
        self.later()
        self.wheels.rename(self.folder / "elsewhere")
        error = self.fails()
        assert not error.temporary
        assert "No such file or directory" in str(error)
        self.error(run(self.index.project_list(None, self.lists(), print)), UpstreamFailed)
        self.wheels.write_bytes(b"")
        assert "Not a directory" in str(self.fails())
        with refused(self.wheels, "scandir"):
            assert "Permission denied" in str(self.fails("absent"))

    def test_disk_fails(self) -> None:
        """A disk that fails is a failure that a retry may mend."""
        self.add(WHEEL)
        for call in ("scandir", "stat", "open"):
            with refused(self.wheels, call, number=errno.EIO):
                failure = self.fails()
                assert (failure.temporary, failure.kind) == (True, "folder"), call
        assert len(self.files()) == 1

    def test_folder_within(self) -> None:
        """A folder within that cannot be read fails the page of its project alone."""
        self.add(WHEEL, within="Demo")
        self.add(make_wheel("other"))
        with refused(self.wheels / "Demo", "scandir"), logged() as log:
            self.fails()
            self.fails()
            assert len(self.files("other")) == 1
        assert len(log.events) == 1
        assert len(self.files()) == 1

    def test_project_in_another_folder(self) -> None:
        """A project whose files lay in a folder that cannot be read, of any name, is not absent."""
        self.add(WHEEL, within="bundle")
        self.add(make_wheel("other"))
        self.add(SDIST)
        assert len(self.files()) == 2
        with refused(self.wheels / "bundle", "scandir"):
            self.fails()
            self.start()
            self.fails()
            assert len(self.files("other")) == 1
            assert not self.later("new").stored.present
        assert len(self.files()) == 2

    def test_no_file_before_a_file(self) -> None:
        """A pipe, or a link that leads nowhere, hides no file of its name in another folder."""
        self.add(WHEEL, SDIST, within="demo")
        os.mkfifo(self.wheels / WHEEL.filename)
        (self.wheels / SDIST.filename).symlink_to("nowhere")
        assert len(self.files()) == 2

    def test_link_within(self) -> None:
        """A link that cannot be followed hides its project; one in a circle leads nowhere."""
        self.add(WHEEL, within="demo")
        assert len(self.files()) == 1
        (self.wheels / "demo").rename(self.folder / "elsewhere")
        (self.wheels / "demo").symlink_to("x" * 300)
        self.fails()
        (self.wheels / "demo").unlink()
        (self.wheels / "demo").symlink_to("demo")
        assert self.files() == {}

    def test_unreadable_file(self) -> None:
        """A file that proxpi may not read is left out, with one line in the log."""
        self.add(WHEEL, SDIST)
        path = self.wheels / WHEEL.filename
        with refused(path, "open"), logged() as log:
            for _ in range(3):
                assert list(self.files()) == [SDIST.filename]
        assert len(log.events) == 1
        path.touch()
        assert len(self.files()) == 2

    def test_no_readable_file(self) -> None:
        """A project is not absent because proxpi may read none of its files."""
        self.add(WHEEL)
        for call in ("open", "stat"):
            with refused(self.wheels / WHEEL.filename, call):
                assert "Permission denied" in str(self.fails()), call
            self.start()
        assert len(self.files()) == 1

    def test_timeout_error(self) -> None:
        """The error of a page that is late is its last failure, else that it is late."""
        assert "not read in time" in str(self.index.timeout_error("demo", 0.0))
        self.index.breakers.failed("demo", UpstreamFailed(self.index.url, "broken"), 0.0)
        assert "broken" in str(self.index.timeout_error("demo", 0.0))

    def lists(self) -> ListStore:
        return ListStore(self.folder / "own/projects", self.clock)


class IndexTests(FolderIndexCase):
    """The port of an index, as a folder has it."""

    def test_properties(self) -> None:
        """It needs no connection, and no client can fetch its files by itself."""
        assert not (self.index.offline or self.index.private)
        assert self.index.guards("file:///anything")
        assert re.search("^[0-9a-f]{16}$", self.index.identity)

    def test_odd_path(self) -> None:
        """The path of the folder may have any characters."""
        self.wheels = self.folder / os.fsdecode(b"w@h #?%41\xff")
        self.wheels.mkdir()
        self.start()
        self.add(WHEEL)
        (entry,) = self.files().values()
        assert local_files.path_and_identity(entry["url"])[0] == f"{self.wheels}/{WHEEL.filename}"

    def test_project_list(self) -> None:
        """The list has all names, sorted, and is confirmed as long as these are the same."""
        store = ListStore(self.folder / "own/projects", self.clock)

        def ask(stored: StoredResponse | None = None) -> IndexResponse[ListFile]:
            self.clock.advance(SHARED + 0.1)
            return self.result(run(self.index.project_list(stored, store, self.bytes.append)))

        self.add(make_wheel("other"), WHEEL, SDIST)
        response = ask()
        assert response.content is not None
        assert next(response.content.lines()) == [b"demo\n", b"other\n"]
        assert ask(response.stored).content is None
        assert ask(response.stored.invalidate()).content is not None
        self.add(make_wheel("third"))
        assert ask(response.stored).content is not None
