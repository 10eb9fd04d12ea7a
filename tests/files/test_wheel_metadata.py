"""Core metadata that is advertised, of wheels whose companion is gone."""

from __future__ import annotations

import re
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.web.iweb import IResponse

from proxpi import archives
from proxpi.files import wheel_metadata
from proxpi.files.cache_dir import OpenFile
from proxpi.files.fetch import GONE
from proxpi.files.resolver import MissingUpstream
from proxpi.files.wheel_metadata import ARCHIVE_TAIL, WheelFailed
from proxpi.upstream.errors import Offline, UpstreamFailed
from tests.support.agent import MemoryAgent, Reply, Silence
from tests.support.archives import AT_THE_START, MEMBER, METADATA, PADDING, WHEEL, archive
from tests.support.cases import FILES, at_once, entry, run, sha256
from tests.support.logs import logged
from tests.support.mirrors import NAME, TIMEOUT, URL, MirrorCase, part

SIDECAR = NAME + ".metadata"


class RangeAgent(MemoryAgent):
    """An agent that serves ranges of some files, by their URLs.

    :ivar lie: changes of each response with a range
    :ivar whole: the status of a whole file
    :ivar later: the files once a range was served
    """

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.lie: dict[str, Any] = {}
        self.whole = 200
        self.later: dict[str, bytes] = {}

    def request(
        self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None
    ) -> Deferred[IResponse]:
        url = uri.decode()
        if (data := self.files.get(url)) is not None:
            self.at(url, Reply(self.whole, data))
            wanted = headers.getRawHeaders("Range", [""])[0]
            if found := re.fullmatch(r"bytes=(\d*)-(\d*)", wanted):
                first, last = found.groups()
                start = int(first) if first else max(0, len(data) - int(last))
                reply = part(data, start, int(last) + 1 if first and last else None)
                self.at(url, attrs.evolve(reply, **{"length": -1, **self.lie}))
                self.files |= self.later
        return super().request(method, uri, headers, bodyProducer)


GONE_REPLY, PAGE = Reply(404), Reply(200, b"<html>", {"Content-Type": "text/html"})


class RangeCase(MirrorCase):
    """Tests of an upstream that serves ranges; wheels are read at once."""

    agent: RangeAgent

    def setUp(self) -> None:
        super().setUp()
        self.agent = RangeAgent()
        self.build()

    def in_thread(self, work: Any) -> Deferred[Any]:
        return at_once(work)


class Advertised(RangeCase):
    """Metadata that is advertised and cannot be downloaded is extracted, or suppressed."""

    def ask(
        self,
        companion: Reply | Silence | Exception = GONE_REPLY,
        *wheel: Reply | Silence,
        data: bytes = WHEEL,
        metadata: object = None,
        private: bool = False,
        lie: dict[str, Any] | None = None,
        whole: int = 200,
        **keys: Any,
    ) -> Deferred[Any]:
        """Advertise metadata, by default with its digest, and request it.

        :param wheel: what its URL responds, in place of the ranges of `data`
        """
        self.delete()
        stated = {"sha256": sha256(METADATA)} if metadata is None else metadata
        self.pages.lists(entry(NAME, data, metadata=stated, **keys), private=private)
        self.pages.suppressed.clear()
        self.agent.files = {} if wheel else {URL: data}
        self.agent.lie, self.agent.whole = lie or {}, whole
        self.agent.at(URL, *wheel)
        self.agent.at(URL + ".metadata", companion)
        self.agent.asked.clear()
        return self.fetch(SIDECAR)

    def assert_extracted(self, asked: Deferred[Any]) -> None:
        self.assert_bytes(self.result(asked), METADATA)
        self.assert_cached(SIDECAR, METADATA)
        assert self.pages.suppressed == []

    def assert_suppressed(self, asked: Deferred[Any]) -> None:
        self.error(asked, MissingUpstream)
        assert self.pages.suppressed == [("demo", NAME)]
        assert self.mirror.ready("demo", SIDECAR) is None

    def failure(self, asked: Deferred[Any]) -> UpstreamFailed:
        """Return the failure of the client; the page goes on advertising metadata."""
        self.clock.pump([1] * 60)
        assert self.pages.suppressed == []
        return self.error(asked, UpstreamFailed)

    def test_extracted(self) -> None:
        """If it is gone or wrong, the end of the wheel is requested, and no other byte."""
        last = f"bytes={len(WHEEL) - ARCHIVE_TAIL}-{len(WHEEL) - 1}"
        for companion in (*map(Reply, (403, 404, 410)), Reply(200, b"<html>")):
            self.assert_extracted(self.ask(companion))
            assert self.agent.urls()[-1] == URL and self.agent.urls().count(URL) == 1
            assert self.agent.asked[-1].header("Range") == last
        # Without a digest any metadata is right; a size may be wrong, or missing.
        self.assert_extracted(self.ask(metadata=True))
        for size in (len(WHEEL) - 1000, len(WHEEL) + 1000, None):
            self.assert_extracted(self.ask(size=size))
        assert self.agent.asked[-1].header("Range") == f"bytes=-{ARCHIVE_TAIL}"
        # Far from the end it takes one more range.
        self.assert_extracted(self.ask(data=AT_THE_START))
        assert self.agent.urls() == [URL + ".metadata", URL, URL]

    def test_head(self) -> None:
        """``HEAD`` gives the length of the metadata, not that of an error page; so does a range."""
        for companion in (GONE_REPLY, PAGE):
            self.ask(companion)
            for ranged in (False, True):
                self.result(self.mirror.delete("demo", SIDECAR))
                again = self.range("0-4", SIDECAR) if ranged else self.head(SIDECAR)
                self.assert_bytes(self.result(again), METADATA)

    def test_cached_wheel(self) -> None:
        """A cached wheel, found or not, is read from the cache, even if the upstream fails."""
        for found in (False, True):
            self.ask()
            self.assert_bytes(self.result(self.fetch()), WHEEL)
            self.result(self.mirror.delete("demo", SIDECAR))
            if found:
                self.build()
            self.agent.asked.clear()
            self.agent.at(URL + ".metadata", Reply(503))
            self.assert_extracted(self.fetch(SIDECAR))
            assert set(self.agent.urls()) == {URL + ".metadata"}

    def test_no_ranges(self) -> None:
        """An upstream that serves no ranges of a wheel serves the wheel, which is cached then."""
        for reply in (
            Reply(200, WHEEL),
            Reply(206, b"0123456789"),
            Reply(206, b"0123456789", {"Content-Range": "bytes 0-9/*"}),
            Reply(206, b"0123456789", {"Content-Range": f"bytes 5-4/{len(WHEEL)}"}),
            *map(Reply, (400, 401, 403, 404, 405, 410, 416, 422, 500, 501, 502, 503)),
        ):
            self.assert_extracted(self.ask(GONE_REPLY, reply, Reply(200, WHEEL)))
            self.assert_cached(NAME, WHEEL)
            assert self.agent.urls() == [URL + ".metadata", URL, URL]

    def test_deadline(self) -> None:
        """A client is redirected while its metadata may arrive, and never once it is extracted."""
        late = self.ask(silence := Silence())
        self.clock.advance(TIMEOUT)
        self.assert_redirected(late, URL + ".metadata")
        others = [self.fetch(SIDECAR) for _ in range(10)]
        silence.answer(Reply(404))
        for other in others:  # for all of them it is extracted once
            self.assert_extracted(other)
        assert self.agent.urls() == [URL + ".metadata", URL]
        asked = self.ask(GONE_REPLY, silence := Silence())
        self.clock.advance(10 * TIMEOUT)
        self.pending(asked)
        silence.answer(part(WHEEL, len(WHEEL) - ARCHIVE_TAIL))
        self.assert_extracted(asked)

    def test_uncached(self) -> None:
        """Metadata that cannot be cached is served, and says whether a digest verifies it.

        So it is if it is larger than the cache. It counts as fetched. What lies upstream is not
        extracted for want of space.
        """
        for stream, capacity in product((False, True), (0, len(METADATA) - 1)):
            self.build(capacity=capacity, stream=stream)
            found = self.result(self.ask())
            self.assert_bytes(found, METADATA)
            assert isinstance(found, OpenFile) and found.fetched
            asked = self.ask(Reply(200, METADATA))
            if stream:
                self.assert_bytes(self.result(asked), METADATA)
            else:
                self.assert_redirected(asked, URL + ".metadata")
            assert set(self.agent.urls()) == {URL + ".metadata"}
        for function in ("__init__", "flush"):
            for stream in (False, True):
                for metadata, has_digest in ((True, False), ({"sha256": sha256(METADATA)}, True)):
                    self.build(stream=stream)
                    full = self.fill_disk(function)
                    found = self.result(self.ask(metadata=metadata))
                    full.stop()
                    assert isinstance(found, OpenFile) and found.has_digest is has_digest
                    self.assert_bytes(found, METADATA)
                    assert self.mirror.ready("demo", SIDECAR) is None
        self.assert_extracted(self.fetch(SIDECAR))

    def test_deleted(self) -> None:
        """Metadata that is deleted while it is extracted is extracted anew for the next client."""
        first = self.ask(GONE_REPLY, Silence())
        self.result(self.mirror.clear())
        self.assert_extracted(self.ask())
        self.pending(first)

    def test_suppressed(self) -> None:
        """The wheel has other metadata, none, is no archive, takes too much reading, or is gone."""
        for data, metadata in (
            (WHEEL, {"sha256": sha256(b"other")}),
            (archive(PADDING), None),
            (b"x" * 100_000, None),
            (archive(PADDING), True),
        ):
            for companion in (GONE_REPLY, PAGE if metadata is True else Reply(200, b"else")):
                self.assert_suppressed(self.ask(companion, data=data, metadata=metadata))
        for status in GONE:
            self.assert_suppressed(self.ask(lie={"status": status}, whole=status))
        self.assert_suppressed(self.ask(GONE_REPLY, Reply(200, b"x"), Reply(404)))
        self.agent.at(URL + ".metadata", Reply(200, METADATA))  # the next request tries again
        self.assert_bytes(self.result(self.fetch(SIDECAR)), METADATA)
        for name, value in (("ARCHIVE_TAIL", 22), ("STEP", 1), ("MAX_RANGES", 2)):
            self.put(wheel_metadata, name, value)
        self.assert_suppressed(self.ask())
        self.build(capacity=0)  # neither read by ranges nor cached, it is not downloaded
        self.assert_suppressed(self.ask(GONE_REPLY, Reply(200, WHEEL)))

    def test_sdist(self) -> None:
        """A file that is no wheel holds no metadata; a failure of its companion is temporary."""
        name = "demo-1.0.tar.gz"
        url = FILES + name + ".metadata"
        self.pages.lists(entry(name, WHEEL, metadata={"sha256": sha256(METADATA)}))
        self.error(self.fetch(name + ".metadata"), MissingUpstream)
        assert self.pages.suppressed == [("demo", name)]
        assert set(self.agent.urls()) == {url}
        self.pages.suppressed.clear()
        for reply in (Reply(503), Reply(429), ConnectionResetError(), Reply(200, b"", length=9)):
            self.agent.at(url, reply)
            asked = self.fetch(name + ".metadata")
            self.clock.pump([1] * 4)
            self.assert_redirected(asked, url)
        self.agent.at(url, Reply(200, METADATA))
        self.fill_disk()
        self.assert_redirected(self.fetch(name + ".metadata"), url)
        assert self.pages.suppressed == []

    def test_wheel_fails(self) -> None:
        """Gone beside a wheel that cannot be read now: logged, and no client is redirected."""
        for status in (500, 503, 401):
            with logged("proxpi.files") as log:
                error = self.failure(self.ask(lie={"status": status}, whole=status))
            assert f"core metadata not served: {error}" in log.lines
            assert isinstance(error, WheelFailed)
            assert error.temporary == (status != 401)
        for length, cause in ((100, "status 503"), (None, "a part of another length")):
            lie = {"chunks": WHEEL[-100:], "length": length}
            assert cause in self.failure(self.ask(lie=lie, whole=503)).cause
        # Ranges of two wheels are not put together.
        self.agent.later[URL] = archive((MEMBER, METADATA), PADDING, ("demo/more", b"x"))
        assert "wrong bytes" in self.failure(self.ask(data=AT_THE_START)).cause

    def test_companion_fails(self) -> None:
        """A companion that fails now, beside a wheel without metadata, may come next time."""
        cut, padding = Reply(200, METADATA[:5], length=len(METADATA)), archive(PADDING)
        for reply in (Reply(503), Reply(401), Reply(429), ConnectionResetError(), cut):
            with logged("proxpi.files") as log:
                error = self.failure(self.ask(reply, data=padding, private=True))
            assert log.levels[-1] == "error", "after any lines about the companion"
            assert error.temporary == (getattr(reply, "status", None) != 401)
        # In an outage a client is redirected for it as for any file, or told why it fails.
        outage: dict[str, Any] = {"lie": {"status": 500}, "whole": 500}
        assert self.failure(self.ask(Reply(503), private=True, **outage)).cause == "status 503"
        self.assert_redirected(self.ask(Reply(503), **outage), URL + ".metadata")
        assert self.pages.suppressed == []


class Cached(MirrorCase):
    """Metadata that is cached, or in a cached wheel, is read without a request or a use."""

    def in_thread(self, work: Any) -> Deferred[Any]:
        return at_once(work)

    def prefetch(self, wheel: bytes | None, companion: bytes | None, advertised: object) -> None:
        """List a wheel, and cache it and its companion, if given."""
        self.delete()
        self.pages.lists(entry(NAME, wheel or WHEEL, metadata=advertised))
        for name, data in ((NAME, wheel), (SIDECAR, companion)):
            self.agent.at(FILES + name, Reply(404) if data is None else Reply(200, data))
            if advertised or name == NAME:
                self.result(run(self.mirror.prefetch("demo", name)))
            elif data is not None:
                self.assert_bytes(self.result(self.fetch(name)), data)
        self.agent.asked.clear()

    def metadata(self) -> bytes | None:
        """Read metadata; nothing may be requested, used, or stay open."""
        quota = self.cache_dir.quota
        before = quota.prefetched
        data = self.result(run(self.mirror.metadata("demo", NAME)))
        assert (self.agent.asked, self.threads, self.open_files()) == ([], [], [])
        assert quota.prefetched == before
        return data

    def test_sources(self) -> None:
        """The advertised companion is read if it is cached, else the wheel."""
        other = METADATA + b"Summary: other\n"
        for wheel, companion, advertised, found in (
            (None, other, True, other),
            (WHEEL, other, True, other),
            (WHEEL, other, {"sha256": sha256(METADATA)}, METADATA),
            (WHEEL, None, True, METADATA),
            (WHEEL, other, None, METADATA),
            (None, other, None, None),
            (None, None, True, None),
        ):
            self.prefetch(wheel, companion, advertised)
            assert self.metadata() == found, (wheel, companion, advertised)

    def test_copies(self) -> None:
        """In a copied folder, as CI systems restore it, files are verified and read."""
        for companion in (METADATA, None):
            self.prefetch(WHEEL, companion, True)
            for path in filter(Path.is_file, self.folder.rglob("demo-*")):
                copy = path.with_name("copy")
                shutil.copy(path, copy)
                copy.replace(path)
            asked = run(self.mirror.metadata("demo", NAME))
            self.run_threads()
            assert self.result(asked) == METADATA
            assert self.agent.asked == []

    def test_unusable(self) -> None:
        """No metadata is read of a wheel that is odd, gone, not listed, or too long."""
        for wheel in (b"no archive", archive(PADDING), WHEEL[: len(WHEEL) // 2]):
            self.prefetch(wheel, None, None)
            assert self.metadata() is None
        self.prefetch(WHEEL, METADATA, True)
        self.put(archives, "LIMIT", len(METADATA) - 1)
        assert self.metadata() is None
        self.put(archives, "LIMIT", len(WHEEL))
        self.pages.known.clear()
        assert self.metadata() is None
        assert not self.mirror.is_cached("demo", NAME)
        self.prefetch(WHEEL, None, None)
        (self.folder / "files-example/packages" / NAME).unlink()
        assert self.mirror.is_cached("demo", NAME)
        assert self.result(run(self.mirror.metadata("demo", NAME))) is None
        assert not self.mirror.is_cached("demo", NAME)


class Extracted(RangeCase):
    """Core metadata that no index has is served out of the wheel, and never requested."""

    def build(self, **settings: Any) -> None:
        super().build(**settings)
        metadata = {"sha256": sha256(METADATA)}
        self.pages.lists(entry(NAME, WHEEL, metadata=metadata), extracted=True)
        self.agent.files = {URL: WHEEL}

    def test_cached_wheel(self) -> None:
        """Out of a cached wheel no request is needed, then or later, and no line above DEBUG."""
        self.assert_bytes(self.result(self.fetch()), WHEEL)
        for _ in range(2):
            assert self.mirror.ready("demo", SIDECAR) is None
            with logged("proxpi.files") as log:
                self.assert_bytes(self.result(self.fetch(SIDECAR)), METADATA)
            assert set(log.levels) == {"debug"}
            self.assert_cached(SIDECAR, METADATA)
            self.result(self.mirror.delete("demo", SIDECAR))
        assert self.agent.urls() == [URL]

    def test_evicted_wheel(self) -> None:
        """Without the wheel, its ranges are requested; no client is redirected for the metadata."""
        self.agent.files = {}
        self.agent.at(URL, silence := Silence())
        asked = self.fetch(SIDECAR)
        self.clock.advance(10 * TIMEOUT)
        self.pending(asked)
        silence.answer(part(WHEEL, len(WHEEL) - ARCHIVE_TAIL))
        self.assert_bytes(self.result(asked), METADATA)
        assert self.agent.urls() == [URL]

    def test_failing(self) -> None:
        """If the wheel cannot be read now, that is a failure; the page goes on advertising."""
        self.agent.files = {}
        self.agent.at(URL, Reply(503))
        asked = self.fetch(SIDECAR)
        self.clock.pump([1] * 60)
        assert isinstance(self.error(asked, UpstreamFailed), WheelFailed)
        assert (self.pages.suppressed, self.agent.count(URL + ".metadata")) == ([], 0)

    def test_offline(self) -> None:
        """Offline, a cached wheel suffices; else the error says so, and the log is quiet."""
        self.assert_bytes(self.result(self.fetch()), WHEEL)
        self.build(offline=True)
        self.assert_bytes(self.result(self.fetch(SIDECAR)), METADATA)
        self.delete()
        with logged("proxpi.files") as log:
            self.error(self.fetch(SIDECAR), Offline)
        assert "error" not in log.levels

    def test_gone(self) -> None:
        """If the wheel is gone, the page stops to advertise its metadata."""
        self.agent.files = {}
        self.agent.at(URL, Reply(404))
        self.error(self.fetch(SIDECAR), MissingUpstream)
        assert self.pages.suppressed == [("demo", NAME)]

    def test_prefetch(self) -> None:
        """It is not prefetched: no upstream has it."""
        assert self.result(run(self.mirror.prefetch("demo", SIDECAR))) is None
        assert self.agent.asked == []
