"""Core metadata that no index states: it is extracted from cached wheels, once, and advertised."""

from __future__ import annotations

import hashlib
from typing import Any
from unittest import mock

from proxpi.files import extraction
from proxpi.files.eviction_index import EvictionIndex
from tests.support.agent import Reply
from tests.support.archives import METADATA, PADDING, WHEEL, archive
from tests.support.cases import FILES, entry, sha256
from tests.support.logs import Log, logged
from tests.support.mirrors import NAME, TIMEOUT, MirrorCase, slow

ADVERTISED = {(NAME, sha256(WHEEL)): sha256(METADATA)}


class ExtractionCase(MirrorCase):
    """Tests of wheels without core metadata on their page; threads run when a test says so."""

    def setUp(self) -> None:
        super().setUp()
        self.build(extracts=self.in_thread)

    def get(self, data: bytes = WHEEL, **keys: Any) -> None:
        """Download a wheel that is listed so, and read what of it is read."""
        self.listed(data=data, **keys)
        self.assert_bytes(self.result(self.fetch()), data)
        self.run_threads()

    def assert_advertised(self) -> None:
        assert self.pages.advertised == ADVERTISED
        self.assert_clean()


class Extracted(ExtractionCase):
    def test_downloaded(self) -> None:
        """A client has its wheel before a thread reads it; once for all clients."""
        self.listed(data=WHEEL)
        for _ in range(3):
            self.assert_bytes(self.result(self.fetch()), WHEEL)
        assert self.pages.advertised == {}
        assert self.run_threads() == 1
        self.assert_advertised()

    def test_false(self) -> None:
        """An index that denies core metadata has none."""
        self.get(metadata=False)
        self.assert_advertised()

    def test_redirected(self) -> None:
        """So is that of a wheel whose client was redirected meanwhile."""
        reply = slow(WHEEL)
        self.listed(reply, data=WHEEL)
        asked = self.fetch()
        self.clock.advance(TIMEOUT)
        self.assert_redirected(asked)
        reply.bring(WHEEL)
        reply.end()
        assert self.run_threads() == 1
        self.assert_advertised()

    def test_followed(self) -> None:
        """So is that of a wheel that was sent while it arrived."""
        self.build(stream=True, extracts=self.in_thread)
        reply = slow(WHEEL)
        self.listed(reply, data=WHEEL)
        reading = self.begin(reply, 100_000, WHEEL)
        self.finish(reply, 100_000, WHEEL)
        self.assert_read(reading, WHEEL)
        assert self.run_threads() == 1
        self.assert_advertised()

    def test_cached_before(self) -> None:
        """A wheel that was cached before, by proxpi or another program, is read at its next use."""
        self.get(metadata={"sha256": "0" * 64})
        self.listed(data=WHEEL)
        self.assert_cached(data=WHEEL)
        assert self.run_threads() == 1
        self.assert_advertised()
        self.build(extracts=self.in_thread)  # with a folder whose files are not known
        self.listed(data=WHEEL)
        self.pages.advertised.clear()
        asked = self.fetch()
        assert self.run_threads() == 1  # the wheel is verified
        self.assert_bytes(self.result(asked), WHEEL)
        assert self.run_threads() == 1
        self.assert_advertised()

    def test_one_at_a_time(self) -> None:
        """One thread reads the wheels, one after the other; that is no use of them."""
        names = [f"demo-1.{number}-py3-none-any.whl" for number in range(3)]
        with mock.patch.object(EvictionIndex, "use") as use:
            for name in names:
                data = archive((f"{name[:8]}.dist-info/METADATA", name.encode()))
                self.pages.lists(entry(name, data))
                self.agent.at(FILES + name, Reply(200, data))
                self.assert_bytes(self.result(self.fetch(name)), data)
            assert use.call_count == len(names)
            assert [self.run_threads() for _ in range(4)] == [1, 1, 1, 0]
            assert use.call_count == len(names)
        assert set(self.pages.advertised.values()) == {sha256(name.encode()) for name in names}
        self.assert_clean()


class NotExtracted(ExtractionCase):
    def test_never(self) -> None:
        """Not if the page advertises some, without a sha256, of other files, or without a cache."""
        stated: list[dict[str, Any]] = [
            {"metadata": True},
            {"metadata": {"sha256": sha256(METADATA)}},
            {"hashes": {}},
            {"hashes": {"sha512": hashlib.sha512(WHEEL).hexdigest()}},
        ]
        for keys in stated:
            self.listed(data=WHEEL, **keys)
            self.result(self.fetch())
            self.delete()
        for name in ("demo-1.0.zip", NAME + ".metadata"):
            self.pages.lists(entry(name, WHEEL))
            self.agent.at(FILES + name, Reply(200, WHEEL))
            self.assert_bytes(self.result(self.fetch(name)), WHEEL)
        self.build(capacity=0, stream=True, extracts=self.in_thread)
        self.get()
        assert (self.run_threads(), self.pages.advertised) == (0, {})

    def test_changed_meanwhile(self) -> None:
        """Not if the page, or the cached file, is another one by then."""
        self.get(archive(PADDING))
        other = WHEEL + b"\0"

        def delete() -> None:
            self.delete()

        def list_other() -> None:
            self.listed(data=other)

        def advertise() -> None:
            self.listed(data=WHEEL, metadata=True)

        def unlist() -> None:
            self.pages.known.clear()

        for change in (delete, list_other, advertise, unlist):
            busy = "demo-0.9-py3-none-any.whl"
            self.pages.lists(entry(busy, busy.encode() * 2))
            self.agent.at(FILES + busy, Reply(200, busy.encode() * 2))
            self.assert_bytes(self.result(self.fetch(busy)), busy.encode() * 2)
            self.listed(data=WHEEL)
            self.assert_bytes(self.result(self.fetch()), WHEEL)
            change()
            self.run_threads()
            assert (self.threads, self.pages.advertised) == ([], {})
            self.result(self.mirror.clear())
            self.build(extracts=self.in_thread)
        self.assert_clean()

    def unfit(self, data: bytes) -> Log:
        with logged() as log:
            self.get(data)
            self.assert_cached(data=data)
            assert (self.run_threads(), self.pages.advertised) == (0, {})
        self.delete()
        return log

    def test_unfit(self) -> None:
        """A wheel without metadata, or that is none, is read once, and is no error."""
        for data in (archive(PADDING), b"", b"PK\5\6", b"x" * 100_000):
            log = self.unfit(data)
            assert sum("no core metadata is advertised" in line for line in log.lines) == 1
            assert {*log.levels} <= {"debug", "info"}
        self.assert_clean()

    def test_many_unfit(self) -> None:
        """So many of them are remembered, and no more."""
        self.put(extraction, "UNFIT", 2)
        for data in (b"a", b"b", b"c"):
            self.unfit(data)
        for data, reads in ((b"c", 0), (b"a", 1)):
            self.listed(data=data)
            self.assert_bytes(self.result(self.fetch()), data)
            assert self.run_threads() == reads

    def test_own_error(self) -> None:
        """An error of proxpi's own is logged, and the next wheel is read."""
        with mock.patch.object(extraction, "core_metadata", side_effect=KeyError), logged() as log:
            self.get()
        assert log.levels[-1] == "critical"
        assert len(self.unhandled()) == 1
        self.assert_cached(data=WHEEL)
        self.run_threads()
        self.assert_advertised()
