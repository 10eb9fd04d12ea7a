"""Core metadata that is advertised, but gone, comes out of the wheel, with as little as may be."""

from __future__ import annotations

import re
import zipfile
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.iweb import IResponse

from proxpi.files import wheel_metadata as wheel_module
from proxpi.files.cache_dir import OpenFile
from proxpi.files.mirror import Head, Redirect
from proxpi.files.resolver import NotUpstream
from proxpi.files.wheel_metadata import TAIL, WheelFailed
from proxpi.upstream.errors import UpstreamFailed
from tests.files.mirrored import NAME, TIMEOUT, URL, MirrorCase
from tests.files.test_wheel import archive
from tests.support.agent import MemoryAgent, Reply, Silence
from tests.support.cases import FILES, at_once, entry, sha256

METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
MEMBER = ("demo-1.0.dist-info/METADATA", METADATA)
PADDING = ("demo/data", bytes(range(256)) * 2000)
PADDING_2 = ("demo/more", b"x")
WHEEL = archive(PADDING, MEMBER, packing=zipfile.ZIP_STORED)
SIDECAR = NAME + ".metadata"


class Ranges(MemoryAgent):
    """An internet whose files come in parts, if that is what is asked for.

    :ivar parts: the files, by their URLs
    :ivar lie: what to change about each part
    :ivar whole: the status of a whole file
    :ivar later: what a file turns into once a part of it was sent
    """

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[str, bytes] = {}
        self.lie: dict[str, Any] = {}
        self.whole = 200
        self.later: dict[str, bytes] = {}
        self.sent = 0

    def request(
        self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None
    ) -> Deferred[IResponse]:
        """See `IAgent`."""
        data = self.parts.get(uri.decode())
        wanted = headers.getRawHeaders("Range", [""])[0]
        if data is not None and wanted:
            found = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted)
            assert found is not None
            first, last = found.groups()
            start = int(first) if first else max(0, len(data) - int(last))
            part = data[start : int(last) + 1 if first and last else None]
            told = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
            self.sent += len(part)
            reply = {"status": 206, "chunks": part, "headers": {"Content-Range": told}, **self.lie}
            self.at(uri.decode(), Reply(**reply))
            self.parts |= self.later
        elif data is not None:
            self.at(uri.decode(), Reply(self.whole, data))
        return super().request(method, uri, headers, bodyProducer)


class TakenCase(MirrorCase):
    """Tests of a wheel whose advertised metadata is gone."""

    def setUp(self) -> None:
        """Let the page list it, and the upstream give parts of it."""
        super().setUp()
        self.internet = self.ranges = Ranges()
        self.build()
        self.advertise()

    def in_thread(self, work: Any) -> Deferred[Any]:
        """Do at once what takes a while."""
        return at_once(work)

    def advertise(
        self, data: bytes = WHEEL, metadata: object = None, *, private: bool = False, **keys: Any
    ) -> None:
        """List a wheel, by default with the digest of its metadata."""
        said = {"sha256": sha256(METADATA)} if metadata is None else metadata
        self.locate.lists(entry(NAME, data, metadata=said, **keys), private=private)
        self.ranges.parts[URL] = data
        self.internet.at(URL, Reply(200, data))
        self.internet.at(URL + ".metadata", Reply(404))

    def taken(self, data: bytes = METADATA) -> None:
        """Check that metadata is served, and that it is here from then on."""
        self.assert_bytes(self.result(self.fetch(SIDECAR)), data)
        self.assert_served(SIDECAR, data)
        assert self.locate.suppressed == []

    def refused(self) -> None:
        """Check that there is none, and that the page is told."""
        self.error(self.fetch(SIDECAR), NotUpstream)
        assert self.locate.suppressed == [("demo", NAME)]
        assert self.mirror.ready("demo", SIDECAR) is None


class Taken(TakenCase):
    """It is there all the same."""

    def test_takes_long(self) -> None:
        """Nobody is sent to where it is known not to be, however long the wheel takes."""
        silence = Silence()
        self.internet = MemoryAgent()
        self.build()
        self.internet.at(URL + ".metadata", Reply(404))
        told = {"Content-Range": f"bytes {len(WHEEL) - TAIL}-{len(WHEEL) - 1}/{len(WHEEL)}"}
        self.internet.at(URL, silence)
        asked = self.fetch(SIDECAR)
        self.clock.advance(10 * TIMEOUT)
        self.pending(asked)
        silence.answer(Reply(206, WHEEL[-TAIL:], told))
        self.assert_bytes(self.result(asked), METADATA)

    def test_sidecar_takes_long(self) -> None:
        """As long as it may come by itself, a client is sent there when its time is up."""
        self.internet.at(URL + ".metadata", Silence())
        asked = self.fetch(SIDECAR)
        self.clock.advance(TIMEOUT)
        self.assert_sent_to(asked, URL + ".metadata")

    def test_head_of_an_error_page(self) -> None:
        """``HEAD`` gives the length of what ``GET`` would, and not that of an error page."""
        page = Reply(200, b"<html>not here</html>", {"Content-Type": "text/html"})
        for reply in (Reply(404), page):
            self.internet.at(URL + ".metadata", reply)
            found = self.result(Deferred.fromCoroutine(self.mirror.head("demo", SIDECAR)))
            self.assert_bytes(found, METADATA)
            self.mirror.delete("demo", SIDECAR)

    def test_gone(self) -> None:
        """Whatever says that it is gone: the end of the wheel tells all, and nothing else comes."""
        for status in (403, 404, 410):
            self.mirror.delete("demo", NAME)
            self.internet.asked.clear()
            self.internet.at(URL + ".metadata", Reply(status))
            self.taken()
            assert self.internet.urls() == [URL + ".metadata", URL]
            size = len(WHEEL)
            wanted = f"bytes={size - wheel_module.TAIL}-{size - 1}"
            assert self.internet.asked[-1].header("Range") == wanted

    def test_wrong(self) -> None:
        """Metadata with other bytes than the advertised ones is no better than none."""
        self.internet.at(URL + ".metadata", Reply(200, b"<html>"))
        self.taken()

    def test_place(self) -> None:
        """It lies where it would have lain."""
        self.taken()
        assert (self.folder / "files-example/packages" / SIDECAR).read_bytes() == METADATA

    def test_without_digest(self) -> None:
        """Where no digest is advertised, what is in the wheel is right."""
        self.advertise(metadata=True)
        self.taken()

    def test_size_unknown(self) -> None:
        """Without a size in the page the end is asked for as such."""
        self.advertise(size=None)
        self.taken()
        assert self.internet.asked[-1].header("Range") == f"bytes=-{wheel_module.TAIL}"

    def test_size_wrong(self) -> None:
        """A wrong size in the page costs another request, and no more."""
        for wrong in (-1000, 1000):
            self.mirror.delete("demo", NAME)
            self.advertise(size=len(WHEEL) + wrong)
            self.taken()

    def test_at_the_start(self) -> None:
        """Far from the end it takes one more part; most of the wheel stays where it is."""
        data = archive(MEMBER, PADDING, packing=zipfile.ZIP_STORED)
        self.advertise(data)
        self.taken()
        assert self.internet.urls() == [URL + ".metadata", URL, URL]
        assert self.ranges.sent <= wheel_module.TAIL + wheel_module.STEP

    def test_on_disk(self) -> None:
        """A wheel that is here is read here, even if nobody can be asked for anything."""
        self.assert_bytes(self.result(self.fetch(NAME)), WHEEL)
        self.internet.asked.clear()
        self.internet.at(URL + ".metadata", Reply(503))
        self.taken()
        assert set(self.internet.urls()) == {URL + ".metadata"}

    def test_found_on_disk(self) -> None:
        """A wheel that an earlier process left here is checked, and read."""
        self.assert_bytes(self.result(self.fetch(NAME)), WHEEL)
        self.build()
        self.internet.asked.clear()
        self.taken()
        assert self.internet.urls() == [URL + ".metadata"]

    def test_no_ranges(self) -> None:
        """An upstream that gives no parts is asked for the wheel, which is kept then."""
        lies: list[dict[str, Any]] = [
            {"status": 200, "chunks": WHEEL, "headers": {}},
            {"status": 416, "chunks": b"", "headers": {}},
            {"headers": {}},
            {"headers": {"Content-Range": "bytes 0-9/*"}},
            {"headers": {"Content-Range": f"bytes 5-4/{len(WHEEL)}"}},
        ]
        for lie in lies:
            self.mirror.delete("demo", NAME)
            self.ranges.lie = lie
            self.internet.asked.clear()
            false = Reply(**{"status": 206, "chunks": b"0123456789", **lie})
            self.ranges.parts.clear()
            self.internet.at(URL, false, Reply(200, WHEEL))
            self.taken()
            self.assert_served(NAME, WHEEL)
            assert self.internet.urls() == [URL + ".metadata", URL, URL]

    def test_once(self) -> None:
        """However many ask, it is taken out once."""
        silence = Silence()
        self.internet.at(URL + ".metadata", silence)
        asked = [self.fetch(SIDECAR) for _ in range(10)]
        silence.answer(Reply(404))
        for one in asked:
            self.assert_bytes(self.result(one), METADATA)
        assert self.internet.urls() == [URL + ".metadata", URL]

    def test_late(self) -> None:
        """A client is not kept waiting for it for ever; the next one finds it here."""
        silence = Silence()
        self.internet.at(URL + ".metadata", silence)
        late = self.fetch(SIDECAR)
        self.clock.advance(1)
        assert self.result(late) == Redirect(URL + ".metadata")
        silence.answer(Reply(404))
        self.assert_served(SIDECAR, METADATA)

    def test_head(self) -> None:
        """``HEAD`` tells the length of what would be served."""
        found = self.result(Deferred.fromCoroutine(self.mirror.head("demo", SIDECAR)))
        assert not isinstance(found, Head)
        self.assert_bytes(found, METADATA)

    def test_no_cache(self) -> None:
        """Without a cache it is taken out for whoever asks."""
        self.build(capacity=0)
        self.assert_bytes(self.result(self.fetch(SIDECAR)), METADATA)

    def test_full_disk(self) -> None:
        """The same where the disk takes nothing, from the start or at the end."""
        for function in ("__init__", "flush"):
            for stream in (False, True):
                self.build(stream=stream)
                full = self.fill_disk(function)
                self.assert_bytes(self.result(self.fetch(SIDECAR)), METADATA)
                assert self.mirror.ready("demo", SIDECAR) is None
                full.stop()
        self.taken()

    def test_full_disk_without_digest(self) -> None:
        """Metadata without a digest is not said to be verified where it cannot be kept."""
        for metadata, expected in ((True, False), ({"sha256": sha256(METADATA)}, True)):
            self.advertise(metadata=metadata)
            full = self.fill_disk()
            found = self.result(self.fetch(SIDECAR))
            full.stop()
            assert isinstance(found, OpenFile)
            assert found.has_digest is expected
            found.close()

    def test_parts_refused(self) -> None:
        """An upstream that refuses parts of a wheel gives the whole wheel."""
        for status in (400, 401, 403, 404, 405, 410, 416, 422, 500, 501, 502, 503):
            self.ranges.lie = {"status": status}
            self.taken()
            self.mirror.delete("demo", NAME)
            self.mirror.delete("demo", SIDECAR)

    def test_streaming(self) -> None:
        """Where nobody is sent upstream it is waited for, and comes whole."""
        self.build(stream=True)
        self.taken()


class NotToBeHad(TakenCase):
    """The page has to stop advertising it."""

    def test_other_digest(self) -> None:
        """A wheel that holds something else than the index advertises gives nothing."""
        self.advertise(metadata={"sha256": sha256(b"other")})
        self.refused()

    def test_no_metadata(self) -> None:
        """A wheel without any gives nothing."""
        self.advertise(archive(PADDING))
        self.refused()

    def test_no_wheel(self) -> None:
        """What is no archive gives nothing."""
        self.advertise(b"x" * 100_000)
        self.refused()

    def test_wheel_gone(self) -> None:
        """If the wheel is gone as well, so be it."""
        for status in (403, 404, 410):
            self.ranges.lie, self.ranges.whole = {"status": status}, status
            self.refused()
            self.locate.suppressed.clear()

    def test_whole_wheel_gone(self) -> None:
        """The same if it has no parts, and is gone when it is asked for."""
        self.ranges.parts.clear()
        self.internet.at(URL, Reply(200, b"x"), Reply(404))
        self.refused()

    def test_no_ranges_no_cache(self) -> None:
        """Where a wheel can be had neither in parts nor be kept whole, it is not fetched."""
        self.build(capacity=0)
        self.ranges.parts.clear()
        self.refused()

    def test_sdist(self) -> None:
        """What is no wheel has nothing to be taken out."""
        name, url = "demo-1.0.tar.gz", URL.replace(NAME, "demo-1.0.tar.gz")
        self.locate.lists(entry(name, WHEEL, metadata={"sha256": sha256(METADATA)}))
        self.error(self.fetch(name + ".metadata"), NotUpstream)
        assert self.locate.suppressed == [("demo", name)]
        assert self.internet.urls() == [url + ".metadata"] * len(self.internet.asked)

    def test_too_much_to_read(self) -> None:
        """An archive that leads from place to place is left."""
        self.put(wheel_module, "TAIL", 22)
        self.put(wheel_module, "STEP", 1)
        self.put(wheel_module, "TURNS", 2)
        self.refused()

    def test_wrong(self) -> None:
        """Metadata with other bytes is as good as gone, whatever they are."""
        page = Reply(200, b"<html>", {"Content-Type": "text/html"})
        for metadata in ({"sha256": sha256(METADATA)}, True):
            self.advertise(archive(PADDING), metadata=metadata)
            self.internet.at(URL + ".metadata", page if metadata is True else Reply(200, b"else"))
            self.refused()
            self.locate.suppressed.clear()

    def test_it_is_tried_again(self) -> None:
        """Nothing of it is remembered here: what turns up is served."""
        self.advertise(archive(PADDING))
        self.refused()
        self.internet.at(URL + ".metadata", Reply(200, METADATA))
        self.assert_bytes(self.result(self.fetch(SIDECAR)), METADATA)


class Trouble(TakenCase):
    """Nobody knows."""

    def failing(self) -> UpstreamFailed:
        """Check that a client is told so, and that the page goes on advertising it."""
        asked = self.fetch(SIDECAR)
        self.clock.pump([1] * 60)
        assert self.locate.suppressed == []
        return self.error(asked, UpstreamFailed)

    def test_fails_and_wheel_is_unfit(self) -> None:
        """Metadata that fails for now, beside a wheel or sdist without it, may come next time."""
        cut = Reply(200, METADATA[:5], length=len(METADATA))
        for reply in (Reply(503), Reply(401), Reply(429), ConnectionResetError(), cut):
            for filename, data in ((NAME, archive(PADDING)), ("demo-1.0.tar.gz", b"x")):
                said = {"sha256": sha256(METADATA)}
                self.locate.lists(entry(filename, data, metadata=said), private=True)
                self.ranges.parts[URL] = data
                self.internet.at(FILES + filename + ".metadata", reply)
                asked = self.fetch(filename + ".metadata")
                self.clock.pump([1] * 60)
                error = self.error(asked, UpstreamFailed)
                assert error.temporary == (getattr(reply, "status", None) != 401)
                assert self.locate.suppressed == []

    def test_wheel_fails(self) -> None:
        """Gone beside a wheel that cannot be read now: no client is sent to where it is gone."""
        for status in (500, 503, 401):
            self.ranges.lie, self.ranges.whole = {"status": status}, status
            error = self.failing()
            assert isinstance(error, WheelFailed)
            assert error.temporary == (status != 401)

    def test_cut(self) -> None:
        """A part that is shorter than it says is none, whether it tells its length or not."""
        self.ranges.whole = 503
        for length, cause in ((100, "status 503"), (None, "a part of another length")):
            self.ranges.lie = {"chunks": WHEEL[-100:], "length": length}
            assert cause in self.failing().cause

    def test_other_wheel_meanwhile(self) -> None:
        """Parts of two wheels are not put together; that there is another one is trouble."""
        self.advertise(archive(MEMBER, PADDING, packing=zipfile.ZIP_STORED))
        self.ranges.later[URL] = archive(MEMBER, PADDING, PADDING_2, packing=zipfile.ZIP_STORED)
        assert "wrong bytes" in self.failing().cause

    def test_both_fail(self) -> None:
        """In an outage a client is sent upstream for it, as for any file."""
        self.internet.at(URL + ".metadata", Reply(503))
        self.ranges.lie, self.ranges.whole = {"status": 503}, 503
        assert self.result(self.fetch(SIDECAR)) == Redirect(URL + ".metadata")
        assert self.locate.suppressed == []

    def test_no_wheel(self) -> None:
        """A file that has no metadata in it goes on advertising it while that fails for a time."""
        name = "demo-1.0.tar.gz"
        url = URL.replace(NAME, name) + ".metadata"
        self.locate.lists(entry(name, WHEEL, metadata={"sha256": sha256(METADATA)}))
        for reply in (Reply(503), Reply(429), ConnectionResetError(), Reply(200, b"", length=9)):
            self.internet.at(url, reply)
            asked = self.fetch(name + ".metadata")
            self.clock.pump([1] * 4)
            assert self.result(asked) == Redirect(url)
        self.internet.at(url, Reply(200, METADATA))
        self.fill_disk()
        assert self.result(self.fetch(name + ".metadata")) == Redirect(url)
        assert self.locate.suppressed == []

    def test_both_fail_private(self) -> None:
        """Behind credentials it is told why it does not come."""
        self.advertise(private=True)
        self.internet.at(URL + ".metadata", Reply(503))
        self.ranges.lie, self.ranges.whole = {"status": 500}, 500
        assert self.failing().cause == "status 503"
