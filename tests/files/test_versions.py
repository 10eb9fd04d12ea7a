"""Bytes of two versions of a file are never mixed: what is kept is one that came whole."""

from __future__ import annotations

from typing import Any

from twisted.web.http import PotentialDataLoss

from proxpi.files.cache_dir import OpenFile
from proxpi.files.spool import Reader
from proxpi.upstream.errors import UpstreamFailed
from tests.files.mirrored import NAME, URL, MirrorCase
from tests.support.agent import Reply
from tests.support.cases import entry
from tests.support.reading import Reading

OLD = bytes(range(256)) * 200
NEW = bytes(reversed(OLD))
AT = 50_000
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
UNKNOWN: dict[str, Any] = {"hashes": {}, "size": None}


def whole(data: bytes, headers: dict[str, str] | None = None, *, length: bool = False) -> Reply:
    """Give all of a file, in chunks or with its length."""
    return Reply(200, data, headers or {}, length=len(data) if length else None)


def rest(data: bytes, headers: dict[str, str], start: int = AT, total: str = "") -> Reply:
    """Give what is missing of a file."""
    told = f"bytes {start}-{len(data) - 1}/{total or len(data)}"
    return Reply(206, data[start:], {"Content-Range": told, **headers})


class Versions(MirrorCase):
    """A file of which the index tells nothing, whose first response breaks off."""

    def kept(
        self,
        *later: Reply,
        headers: dict[str, str] | None = None,
        length: bool = False,
        stream: bool = True,
        **keys: Any,
    ) -> bytes | None:
        """Let the old version break off, and the upstream answer so then; give what is kept."""
        self.mirror.delete("demo", NAME)
        self.build(stream=stream)
        self.internet.asked.clear()
        size = len(OLD) if length else None
        first = Reply(200, b"", headers or {}, whole=False, length=size)
        self.locate.lists(entry(NAME, OLD, **{**UNKNOWN, **keys}))
        self.internet.at(URL, first, *later)
        asked = self.fetch()
        first.bring(OLD[:AT])
        first.cut()
        self.clock.advance(0)
        if stream:
            asked.addErrback(lambda _: None)
        copy = self.mirror.ready("demo", NAME)
        if not stream and copy is None:
            self.result(asked)
        if copy is None:
            assert self.leftovers() == []
            return None
        assert isinstance(copy, OpenFile)
        with copy.file:
            data = copy.read(0, copy.size + 1)
        copy.close()
        assert copy.size == len(data)
        return data

    def test_shorter(self) -> None:
        """A complete second response that is shorter is a version of its own."""
        tag = {"ETag": '"x"'}
        for headers in ({}, tag, {"Last-Modified": DATE}, {"ETag": 'W/"x"'}):
            for announced in (False, True):
                for length in (False, True):
                    for other in (NEW[:300], NEW[: AT - 1], OLD[:300], OLD[: AT - 1], OLD[:AT]):
                        second = whole(other, length=length)
                        third = whole(other, length=length)
                        kept = self.kept(second, third, headers=headers, length=announced)
                        assert kept == other, (headers, announced, length, len(other))

    def test_longer(self) -> None:
        """So is one that is longer, with other bytes or with the same beginning."""
        for other in (NEW + b"more", OLD[:AT] + b"x" * 5000, OLD + b"more"):
            for announced in (False, True):
                for length in (False, True):
                    second = whole(other, length=length)
                    kept = self.kept(second, whole(other, length=length), length=announced)
                    assert kept == other

    def test_same_length(self) -> None:
        """So is one of the same length, even where the index tells the size."""
        sizes: list[dict[str, Any]] = [{}, {"size": len(OLD)}]
        for keys in sizes:
            for other in (NEW, OLD[: AT - 1] + NEW[AT - 1 :], OLD[:AT] + NEW[AT:]):
                for announced in (False, True):
                    kept = self.kept(whole(other), whole(other), length=announced, **keys)
                    assert kept == other

    def test_same_version(self) -> None:
        """The same version again is gone on with, and asked for no third time."""
        assert self.kept(whole(OLD)) == OLD
        assert len(self.internet.asked) == 2

    def test_three_versions(self) -> None:
        """A third response is compared with what the second one left, or begins anew."""
        third = whole(NEW[::-1][:-7])
        broken = Reply(200, NEW[:AT], {}, length=len(NEW))
        assert self.kept(broken, third) in (None, third.body)
        assert self.kept(broken, third, whole(third.body)) in (None, third.body)

    def test_breaks_off_in_what_is_compared(self) -> None:
        """A second response that breaks off before the old length proves nothing."""
        for again in (OLD[:300], NEW[:300]):
            broken = Reply(200, again, {}, length=len(OLD))
            assert self.kept(broken, whole(OLD)) in (None, OLD)

    def test_parts(self) -> None:
        """A part is appended only if a strong validator proves that it is of the same version."""
        tag, weak, dated = {"ETag": '"x"'}, {"ETag": 'W/"x"'}, {"Last-Modified": DATE}
        fresh = {**dated, "Date": DATE}
        for mine, theirs in (
            (tag, {"ETag": '"y"'}),
            (tag, weak),
            (tag, {}),
            (tag, dated),
            (weak, weak),
            (weak, tag),
            (dated, weak),
            (dated, {"Last-Modified": "Sun, 06 Nov 1994 08:49:38 GMT"}),
            (fresh, fresh),
            ({}, {}),
            ({}, tag),
        ):
            for announced in (False, True):
                replies = (rest(NEW, theirs), whole(NEW), whole(NEW))
                kept = self.kept(*replies, headers=mine, length=announced)
                assert kept in (NEW, None), (mine, theirs)
                ranged = [asked for asked in self.internet.asked if asked.header("Range")]
                assert not ranged or mine in (tag, dated)

    def test_parts_of_another_size(self) -> None:
        """A part of a file of another size is of another version, whatever its validator says."""
        tag = {"ETag": '"x"'}
        other = NEW + b"more"
        for announced in (False, True):
            odd = rest(other[:-4], tag, total=str(len(other)))
            replies = (odd, whole(other, length=True), whole(other))
            assert self.kept(*replies, headers=tag, length=announced) in (other, None)

    def test_part_of_a_part(self) -> None:
        """A part that does not tell how long the file is may not be all of the rest."""
        tag = {"ETag": '"x"'}
        some = rest(OLD[:-100], tag, total="*")
        assert self.kept(some, whole(OLD), headers=tag) == OLD

    def test_end_not_announced(self) -> None:
        """A version whose end is that of the connection is not known to be whole."""
        self.build(stream=True)
        self.locate.lists(entry(NAME, OLD, **UNKNOWN))
        first, second, third = (Reply(200, b"", whole=False, length=None) for _ in range(3))
        self.internet.at(URL, first, second, third)
        asked = self.fetch()
        for reply, data in ((first, OLD[:AT]), (second, OLD[:300])):
            reply.bring(data)
            reply.end(PotentialDataLoss())
        asked.addErrback(lambda _: None)
        assert self.mirror.ready("demo", NAME) is None
        assert len(self.internet.asked) == 2
        self.clock.advance(0)
        assert self.open_files() == []

    def test_passing_through(self) -> None:
        """Where nothing is kept, a reader of the old version never gets bytes of the new one."""
        for other in (NEW, NEW[:300], OLD[:300], OLD[:AT] + NEW[AT:] + b"more"):
            for announced in (True, False):
                self.build(stream=True, capacity=0)
                self.locate.lists(entry(NAME, OLD, **UNKNOWN))
                size = len(OLD) if announced else None
                first = Reply(200, b"", whole=False, length=size)
                self.internet.at(URL, first, whole(other), Reply(503))
                asked = self.fetch()
                first.bring(OLD[:AT])
                body = self.result(asked)
                assert isinstance(body, Reader)
                reading = Reading(body)
                first.cut()
                data = bytes(reading.data)
                assert OLD.startswith(data) or (data, reading.whole) == (other, True)
                assert reading.cut or other.startswith(OLD[:AT])
                self.clock.advance(0)

    def test_passing_through_longer(self) -> None:
        """A version that turns out longer than announced ends there for its reader."""
        longer = Reply(200, b"", whole=False, length=None)
        self.build(stream=True, capacity=0)
        self.locate.lists(entry(NAME, OLD, **UNKNOWN))
        first = Reply(200, b"", whole=False, length=len(OLD))
        self.internet.at(URL, first, longer)
        asked = self.fetch()
        first.bring(OLD[:AT])
        body = self.result(asked)
        assert isinstance(body, Reader)
        reading = Reading(body)
        first.cut()
        longer.bring(OLD + bytes(500_000))
        assert (reading.cut, longer.closed) == (True, True)
        assert self.clock.getDelayedCalls() == []

    def test_refused_part(self) -> None:
        """A refused rest is asked for once as the whole file, at any status."""
        tag = {"ETag": '"x"'}
        statuses = (400, 401, 403, 404, 405, 406, 410, 412, 416, 422, 429, 500, 501, 502, 503, 504)
        for status in (*statuses, 204, 304):
            kept = self.kept(Reply(status), whole(OLD, tag), headers=tag, length=True)
            assert kept == OLD, status
            ranges = [asked.header("Range") for asked in self.internet.asked]
            assert ranges == [None, f"bytes={AT}-", None]

    def test_unasked_part(self) -> None:
        """A 206 that nobody asked for is taken if it is all of the file, and else is not."""
        for size in (None, len(OLD)):
            self.build()
            self.locate.lists(entry(NAME, OLD, **{**UNKNOWN, "size": size}))
            for start, stop, total, right in (
                (0, len(OLD), str(len(OLD)), True),
                (0, len(OLD), "*", size is not None),
                (0, len(OLD) - 1, str(len(OLD)), False),
                (1, len(OLD), str(len(OLD)), False),
                (0, len(OLD) - 1, "*", False),
            ):
                told = {"Content-Range": f"bytes {start}-{stop - 1}/{total}"}
                self.internet.at(URL, Reply(206, OLD[start:stop], told))
                self.result(self.fetch())
                copy = self.mirror.ready("demo", NAME)
                assert (copy is not None) == right, (start, stop, total, size)
                if copy is not None:
                    assert copy.size == len(OLD)
                    copy.close()
                self.mirror.delete("demo", NAME)

    def test_transformed(self) -> None:
        """Status 203 is a success, and codings that change no bytes are none."""
        for headers in (
            {},
            {"Content-Encoding": "aws-chunked"},
            {"Content-Encoding": "binary"},
            {"Content-Encoding": "utf-8"},
            {"Content-Encoding": "none"},
            {"Content-Encoding": "identity"},
        ):
            for status in (200, 203):
                self.listed(Reply(status, OLD, headers), **UNKNOWN)
                self.assert_bytes(self.result(self.fetch()), OLD)
                self.mirror.delete("demo", NAME)

    def test_says_that_it_is_a_page(self) -> None:
        """``text/html`` is believed unless a file of a package begins so, in however small bits."""
        html = {"Content-Type": "text/html"}
        tar = b"demo/".ljust(257, b"\0") + b"ustar\0" + b"0" * 250
        for data in (
            b"PK\3\4 and so on",
            b"PK\5\6" + bytes(18),
            b"\x1f\x8b\x08",
            b"BZh91AY",
            b"\xfd7zXZ\0",
            b"\x28\xb5\x2f\xfd",
            b"MZ\x90",
            b"Metadata-Version: 2.1\n",
            b"-----BEGIN PGP SIGNATURE-----\n",
            tar,
        ):
            reply = Reply(200, b"", html, whole=False, length=len(data))
            self.listed(reply, **UNKNOWN)
            asked = self.fetch()
            for byte in data:
                reply.bring(bytes([byte]))
            reply.end()
            self.assert_bytes(self.result(asked), data)
            self.mirror.delete("demo", NAME)
        for data in (b"<html>", b"Please log in", b"P", b"x" * 3000, b"<!-- PK\3\4 -->"):
            self.listed(Reply(200, data, html), **UNKNOWN)
            self.assert_sent_to(self.fetch())
            self.assert_nothing_kept()

    def test_failure_is_told(self) -> None:
        """If no version comes whole, a client is told so."""
        self.build(stream=True)
        self.locate.lists(entry(NAME, OLD, **UNKNOWN))
        self.internet.at(URL, Reply(200, b"", length=5))
        self.error(self.fetch(), UpstreamFailed)
