"""Files of a folder that is an index: sent from there, as long as they are what the page lists."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from shutil import rmtree
from typing import Any
from unittest import mock

import attrs

from proxpi.files.folder_files import MAX_SIGNATURE, FolderFiles
from proxpi.files.resolver import FileReference, Gone
from proxpi.index import folder
from proxpi.local_files import Identity, url_of
from proxpi.upstream import UpstreamFailed
from tests.support.agent import Reply
from tests.support.cache import refused, replace
from tests.support.cases import MIB, FolderCase, ProxpiCase, at_once, run, sha256
from tests.support.distributions import make_wheel
from tests.support.exchange import Response

WHEEL = make_wheel("demo", padding=50_000)
PATH = f"/index/demo/{WHEEL.filename}"
ACCEPT = "Accept: application/vnd.pypi.simple.v1+json"


class FolderProxpiCase(ProxpiCase):
    """Tests of all of proxpi with a folder of one wheel as its index."""

    def setUp(self) -> None:
        super().setUp()
        self.put(folder, "SETTLED", 0.0)
        self.wheels = Path(tempfile.mkdtemp(prefix="proxpi-test-"))
        self.addCleanup(rmtree, self.wheels)
        self.file = self.wheels / WHEEL.filename
        self.file.write_bytes(WHEEL.data)
        self.start()

    def start(self, **settings: Any) -> None:
        self.build(index=f"file://{self.file.parent}", **settings)

    def listed(self) -> dict[str, Any]:
        """Return what the page says of the file."""
        page: dict[str, Any] = json.loads(self.get("/index/demo/", ACCEPT).body)
        (entry,) = page["files"]
        return dict(entry)

    def is_whole(self, response: Response, data: bytes = WHEEL.data) -> None:
        assert (response.status, response.body) == (200, data)
        assert response.headers["etag"] == f'"{sha256(data)}"'
        assert response.headers["x-cache"] == "HIT"


class ServingTests(FolderProxpiCase):
    """How clients get such a file."""

    def test_whole(self) -> None:
        """It is a hit from the first request on, and never copied to the cache folder."""
        for _ in range(3):
            self.is_whole(self.get(PATH))
        assert not self.agent.asked
        assert not list(self.folder.rglob(f"*{WHEEL.filename}"))
        assert self.cache_dir.quota.used == 0

    def test_parts(self) -> None:
        """Ranges, HEAD and conditions hold for it, with and without a page at hand."""
        etag = f'"{WHEEL.sha256}"'
        for _ in range(2):
            part = self.get(PATH, "Range: bytes=5-9")
            assert (part.status, part.body) == (206, WHEEL.data[5:10])
            head = self.ask("HEAD", PATH)
            assert (head.status, head.headers["content-length"]) == (200, str(WHEEL.size))
            assert self.get(PATH, f"If-None-Match: {etag}").status == 304
            assert self.get(PATH, 'If-Match: "other"').status == 412
            assert self.get(PATH, f"Range: bytes={WHEEL.size}-").status == 416
            self.is_whole(self.get(PATH))

    def test_settings(self) -> None:
        """It is served, never redirected: without a cache, offline, and where clients stream."""
        for settings in ({"capacity": 0}, {"timeout": 0.0}, {"stream": True}, {"prefetch": True}):
            self.start(**settings)
            self.is_whole(self.get(PATH))

    def test_freshness(self) -> None:
        """Clients keep it as long as its page is fresh, as it may be replaced."""
        self.start(ttl=10)
        for left in (10, 4, 0):
            for _ in range(2):
                control = self.get(PATH).headers["cache-control"]
                assert int(control.removeprefix("public, max-age=")) in (left, left - 1)
            self.clock.advance(6)

    def test_metadata(self) -> None:
        """Its core metadata comes out of the wheel, its signature from beside it."""
        metadata = WHEEL.metadata
        assert metadata is not None
        signature = Path(f"{self.file}.asc")
        signature.write_bytes(b"signed")
        assert self.listed()["core-metadata"] == {"sha256": sha256(metadata)}
        for suffix, data in ((".metadata", metadata), (".asc", b"signed")):
            for _ in range(2):
                self.is_whole(self.get(PATH + suffix), data)
        signature.write_bytes(bytes(MAX_SIGNATURE + 1))
        assert self.get(f"{PATH}.asc").status == 404
        signature.unlink()
        assert self.get(f"{PATH}.asc").status == 404

    def test_no_metadata(self) -> None:
        """A wheel that is no archive is served without core metadata."""
        replace(self.file, b"no archive")
        assert "core-metadata" not in self.listed()
        assert self.get(f"{PATH}.metadata").status == 404
        self.is_whole(self.get(PATH), b"no archive")

    def test_prefetched(self) -> None:
        """A prefetch finds it cached, and its requirements in it."""
        self.listed()
        for name in (WHEEL.filename, f"{WHEEL.filename}.metadata"):
            assert self.mirror.is_cached("demo", name)
            assert self.result(run(self.mirror.prefetch("demo", name))) is None
        assert self.result(run(self.mirror.metadata("demo", WHEEL.filename))) == WHEEL.metadata
        replace(self.file, b"no archive")
        assert self.result(run(self.mirror.metadata("demo", WHEEL.filename))) is None

    def test_deletion(self) -> None:
        """``DELETE`` forgets pages, and leaves the operator's files alone."""
        self.is_whole(self.get(PATH))
        for target in (f"/cache/demo/{WHEEL.filename}", "/cache/demo", "/cache"):
            assert self.ask("DELETE", target).status == 200
            assert self.file.read_bytes() == WHEEL.data
            self.is_whole(self.get(PATH))


class ChangeTests(FolderProxpiCase):
    """Bytes that the page does not list are never served."""

    def test_replaced(self) -> None:
        """A file that was replaced is served with its new digest, also by the response cache."""
        other = make_wheel("demo", padding=60_000)
        for _ in range(3):
            self.is_whole(self.get(PATH))
        replace(self.file, other.data)
        for _ in range(3):
            self.is_whole(self.get(PATH), other.data)
        assert self.listed()["hashes"] == {"sha256": other.sha256}
        replace(self.file, WHEEL.data)
        assert self.get(f"{PATH}.metadata").body == WHEEL.metadata

    def test_written(self) -> None:
        """A file of which bytes are overwritten in place is another one."""
        self.is_whole(self.get(PATH))
        with open(self.file, "r+b") as file:
            file.write(b"XX")
        self.is_whole(self.get(PATH), b"XX" + WHEEL.data[2:])

    def test_gone(self) -> None:
        """A file that is gone, or became a pipe or a folder, is a 404."""
        self.is_whole(self.get(PATH))
        self.file.unlink()
        assert self.get(PATH).status == 404
        for make in (os.mkfifo, os.mkdir):
            self.file.write_bytes(WHEEL.data)
            self.ask("DELETE", "/cache/demo")
            self.is_whole(self.get(PATH))
            self.file.unlink()
            make(self.file)
            assert self.get(PATH).status == 404
            self.file.unlink() if make is os.mkfifo else self.file.rmdir()

    def test_unreadable(self) -> None:
        """A file that cannot be opened is a failure of the index, which names it."""
        self.listed()
        with refused(self.file, "open"):
            response = self.get(PATH)
        assert response.status == 503
        assert f"{self.file}: it cannot be read: Permission denied" in response.body.decode()

    def test_shrinks(self) -> None:
        """A file that becomes shorter while it is sent ends in a connection that is cut."""
        self.file.write_bytes(bytes(3 * MIB))
        exchange = self.connect(capacity=1000)
        exchange.ask("GET", PATH)
        with open(self.file, "r+b") as file:
            file.truncate(100)
        exchange.receive()
        assert exchange.aborted
        assert len(exchange.received) < 3 * MIB

    def test_link_replaced(self) -> None:
        """A symbolic link whose file is replaced is another file, also to the response cache."""
        target = self.wheels / "target"
        os.rename(self.file, target)
        self.file.symlink_to(target)
        for _ in range(3):
            self.is_whole(self.get(PATH))
        replace(target, b"other")
        self.is_whole(self.get(PATH), b"other")


class ReferenceTests(FolderCase):
    """References that no page of a folder has."""

    def setUp(self) -> None:
        super().setUp()
        self.file = self.folder / "wheels" / "demo-1.0.zip"
        self.file.parent.mkdir()
        self.file.write_bytes(b"data")
        self.files = FolderFiles([f"{self.file.parent}/"], at_once)
        self.reference = FileReference(self.url(self.file), ("sha256", sha256(b"data")), 4, True)

    def url(self, path: Path) -> str:
        return url_of(str(path), Identity.of(os.stat(path)))

    def test_elsewhere(self) -> None:
        """A file outside of the folders is never opened, wherever a damaged page leads."""
        outside = self.folder / "secret"
        outside.write_bytes(b"data")
        file = self.files.ready(self.reference)
        assert file is not None
        file.close()
        for url in (
            *(self.url(outside), self.url(self.file.parent / "../secret")),
            *("file:///etc/passwd", "file:x", self.url(self.file).partition("?")[0]),
        ):
            other = attrs.evolve(self.reference, url=url)
            assert self.files.ready(other) is None
            self.error(run(self.files.open(other)), Gone)

    def test_no_sha256(self) -> None:
        """A file whose page states no sha256 is not opened."""
        other = attrs.evolve(self.reference, digest=("md5", "0" * 32))
        assert self.files.ready(other) is None

    def test_wrong_metadata(self) -> None:
        """Core metadata with another digest than the page states is gone."""
        wheel = self.file.with_name(WHEEL.filename)
        wheel.write_bytes(WHEEL.data)
        path, mark, query = self.url(wheel).partition("?")
        other = attrs.evolve(
            self.reference,
            url=f"{path}.metadata{mark}{query}",
            is_companion=True,
            requested_as=("demo", f"{WHEEL.filename}.metadata"),
        )
        self.error(run(self.files.open(other)), Gone)
        replace(wheel, WHEEL.data)
        self.error(run(self.files.open(other)), Gone)

    def test_disk_fails(self) -> None:
        """A disk that fails is a failure, not an absence."""
        with mock.patch.object(os, "open", side_effect=OSError(5, "Input/output error")):
            self.error(run(self.files.open(self.reference)), UpstreamFailed)
            assert self.files.ready(self.reference) is None


class LinkTests(ProxpiCase):
    """Pages of web servers."""

    def test_link_to_a_file(self) -> None:
        """A page of a web server cannot list a file of this machine."""
        link = '<a href="file:///etc/passwd?1-2-3#sha256={0}">demo-1.0.zip</a>'
        page = f"<title>Links for demo</title>{link.format('0' * 64)}"
        self.agent.at("https://index.example/simple/demo/", Reply(200, page.encode()))
        assert b"demo-1.0.zip" not in self.get("/index/demo/", ACCEPT).body
        assert self.get("/index/demo/demo-1.0.zip").status == 404
