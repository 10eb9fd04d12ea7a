"""Downloads that break off: gone on with where they ended, if the upstream can."""

from __future__ import annotations

from typing import Any

from twisted.web.http import PotentialDataLoss

from proxpi.files.fetch import MIN_PROGRESS
from proxpi.upstream.errors import UpstreamFailed
from tests.files.mirrored import DATA, NAME, URL
from tests.files.test_stream import LARGE, StreamCase
from tests.support.agent import Reply
from tests.support.cases import MIB, entry
from tests.support.reading import Reading

AT = MIN_PROGRESS - 1


class ResumeCase(StreamCase):
    """Tests of a reader whose download breaks off."""

    def break_off(self, *rest: Reply, at: int = AT, **headers: Any) -> Reading:
        """Let a download come so far and break off; the upstream then answers so."""
        self.internet.asked.clear()
        self.reply = self.slow(**headers)
        self.serve(self.reply, *rest)
        asked = self.fetch()
        self.reply.bring(LARGE[:at])
        reading = self.read(asked)
        self.reply.cut()
        return reading

    def asked_for(self) -> list[tuple[str | None, str | None]]:
        """Give what was asked for of the file after that."""
        return [(one.header("Range"), one.header("If-Range")) for one in self.internet.asked[1:]]

    def assert_whole(self, reading: Reading) -> None:
        """Check that the reader got it as if nothing had happened, and that it is kept."""
        assert (reading.data == LARGE, reading.whole) == (True, True)
        self.assert_served(data=LARGE)
        self.assert_clean()
        self.build(stream=True)
        (self.folder / "files-example/packages" / NAME).unlink()


class Resume(ResumeCase):
    """Where the upstream knows ranges, only what is missing is asked for."""

    def test_by_tag(self) -> None:
        """A strong tag tells that the rest belongs to it; a weak one does not, but a date does."""
        date = "Sun, 06 Nov 1994 08:49:37 GMT"
        cases: tuple[tuple[dict[str, Any], str | None], ...] = (
            ({"ETag": '"x"'}, '"x"'),
            ({"ETag": '"x"', "Last-Modified": date}, '"x"'),
            ({"ETag": 'W/"x"', "Last-Modified": date}, date),
            ({"Last-Modified": date}, date),
            ({}, None),
        )
        for headers, validator in cases:
            rest = self.slow(AT)
            reading = self.break_off(rest, **headers)
            assert self.asked_for() == [(f"bytes={AT}-", validator)]
            self.finish(rest, AT)
            self.assert_whole(reading)

    def test_all_again(self) -> None:
        """An upstream that sends all of it again is compared, and nobody notices."""
        again = self.slow()
        reading = self.break_off(again, ETag='"x"')
        again.bring(LARGE[:1000])
        again.bring(LARGE[1000 : AT + 1000])
        self.finish(again, AT + 1000)
        self.assert_whole(reading)

    def test_other_part(self) -> None:
        """A part that does not fit is not believed; all of it is asked for then."""
        other = Reply(206, b"x", {"Content-Range": f"bytes 5-5/{len(LARGE)}"})
        larger = Reply(206, b"x", {"Content-Range": f"bytes {AT}-{AT}/9999999"})
        longer = Reply(206, b"xxx", {"Content-Range": f"bytes {AT}-{AT}/{len(LARGE)}"})
        one = {"Content-Range": f"bytes {AT}-{AT}/{len(LARGE)}"}
        packed = Reply(206, b"x", {"Content-Encoding": "gzip", **one})
        refused = Reply(416, b"", {"Content-Range": "bytes */5"})
        for reply in (other, larger, longer, packed, refused, Reply(206, b"no word of what")):
            again = self.slow()
            reading = self.break_off(reply, again, ETag='"x"')
            assert self.asked_for() == [(f"bytes={AT}-", '"x"'), (None, None)]
            self.finish(again)
            self.assert_whole(reading)

    def test_ends_early(self) -> None:
        """A part that is only some of the rest is followed by another one."""
        some = Reply(206, LARGE[AT:-5], {"Content-Range": f"bytes {AT}-{len(LARGE) - 6}/*"})
        rest = self.slow(len(LARGE) - 5)
        reading = self.break_off(some, rest)
        self.finish(rest, len(LARGE) - 5)
        self.assert_whole(reading)

    def test_again_and_again(self) -> None:
        """A body that comes a good way each time may break off as often as it does."""
        second, third, last = (self.slow(way * MIN_PROGRESS) for way in (1, 2, 2))
        reading = self.break_off(second, third, last, at=MIN_PROGRESS)
        second.bring(LARGE[MIN_PROGRESS : 2 * MIN_PROGRESS])
        second.cut()
        third.cut()
        self.finish(last, 2 * MIN_PROGRESS)
        self.assert_whole(reading)

    def test_no_progress(self) -> None:
        """One that does not is given up."""
        second = self.slow(AT)
        reading = self.break_off(second)
        second.cut()
        assert reading.cut
        assert len(self.asked_for()) == 1
        self.assert_nothing_kept()

    def test_drying_up(self) -> None:
        """Silence is as good as an end."""
        rest = self.slow(AT)
        self.serve(self.reply, rest)
        asked = self.fetch()
        self.reply.bring(LARGE[:AT])
        reading = self.read(asked)
        self.clock.advance(20)
        assert self.reply.closed
        self.finish(rest, AT)
        self.assert_whole(reading)


class Expired(ResumeCase):
    """The reference stops being of use on the way: signed URLs do."""

    NEW = f"{URL}?signature=fresh"

    def expire(self, *replies: Reply, **keys: Any) -> Reading:
        """Let the page name a fresh reference, and the old one be refused from some byte on."""
        self.locate.lists(entry(NAME, LARGE, **{"url": self.NEW, **keys}), cold=True)
        self.internet.at(self.NEW, *replies)
        return self.break_off(Reply(403))

    def test_fresh_link(self) -> None:
        """The page is asked again, and the file gone on with where it ended."""
        rest = self.slow(AT)
        reading = self.expire(rest)
        assert self.locate.asked_again == [("demo", NAME)]
        assert self.asked_for() == [(f"bytes={AT}-", None)] * 2
        assert self.internet.asked[-1].url == self.NEW
        assert not reading.cut
        self.finish(rest, AT)
        self.assert_whole(reading)

    def test_other_file(self) -> None:
        """A reference to other bytes, or one without a hash, is no way to go on."""
        others: list[dict[str, str]] = [{"sha256": "0" * 64}, {}]
        for hashes in others:
            assert self.expire(self.slow(AT), hashes=hashes).cut
            self.assert_clean()
            self.locate.known.clear()

    def test_same_link(self) -> None:
        """Nor is the very reference that is refused; whoever had begun is cut off."""
        assert self.expire(self.slow(AT), url=URL).cut
        self.assert_clean()

    def test_page_not_to_be_had(self) -> None:
        """Nor anything, as long as the page cannot be asked."""
        self.locate.failure = UpstreamFailed("https://index.example/", "connection refused")
        assert self.expire(self.slow(AT)).cut
        self.assert_clean()

    def test_fresh_link_while_passing(self) -> None:
        """What passes through, being too large to be kept, goes on as well."""
        self.build(stream=True, capacity=MIB)
        rest = self.slow(AT)
        reading = self.expire(rest)
        self.finish(rest, AT)
        assert (reading.data == LARGE, reading.whole) == (True, True)
        self.assert_nothing_kept()


class Differing(ResumeCase):
    """What comes later is another file."""

    def test_other_bytes(self) -> None:
        """Other bytes than before: who has begun is cut off, and the file is asked for anew."""
        other, right = self.slow(), self.slow()
        reading = self.break_off(other, right, ETag='"x"')
        other.bring(bytes(AT))
        assert reading.cut
        self.finish(right)
        self.assert_served(data=LARGE)
        self.assert_clean()

    def test_wrong_rest(self) -> None:
        """A rest that fits by all it says, but not by its bytes: the same."""
        rest, right = self.slow(AT), self.slow()
        reading = self.break_off(rest, right, ETag='"x"')
        rest.bring(bytes(len(LARGE) - AT))
        rest.end()
        assert reading.cut
        self.finish(right)
        self.assert_served(data=LARGE)
        self.assert_clean()

    def test_other_length(self) -> None:
        """A file that has another length by now is taken from its start, at once."""
        self.locate.lists(entry(NAME, DATA))
        first = Reply(200, b"", {"ETag": '"x"'}, whole=False, length=100)
        self.internet.at(URL, first, Reply(200, DATA))
        asked = self.fetch()
        first.bring(b"old bytes")
        first.cut()
        self.assert_bytes(self.result(asked))
        assert len(self.internet.asked) == 2

    def test_other_length_while_passing(self) -> None:
        """What passes through, and has another length by now, is cut off: it cannot begin anew."""
        for other in (LARGE[:-1], LARGE + b"more", LARGE[: AT - 1]):
            self.build(stream=True, capacity=MIB)
            assert self.break_off(Reply(200, other)).cut
            self.assert_nothing_kept()

    def test_without_digest(self) -> None:
        """Without digest or validator nothing tells whether a rest fits: all is asked for."""
        self.locate.lists(entry(NAME, DATA, hashes={}))
        first = Reply(200, b"", whole=False, length=len(DATA))
        self.internet.at(URL, first, Reply(200, DATA))
        asked = self.fetch()
        first.bring(DATA[:5])
        first.cut()
        self.assert_bytes(self.result(asked))
        assert self.internet.asked[1].header("Range") is None

    def resume_bare(self, validator: dict[str, str], rest: Reply, **keys: Any) -> None:
        """Let a file without a hash come half, and be gone on with by what says it is the rest."""
        keys = {"hashes": {}, **keys}
        self.internet.asked.clear()
        self.locate.lists(entry(NAME, DATA, **keys))
        first = Reply(200, b"", validator, whole=False, length=len(DATA))
        self.internet.at(URL, first, rest, Reply(200, DATA, validator))
        asked = self.fetch()
        first.bring(DATA[:5])
        first.cut()
        self.assert_bytes(self.result(asked))
        self.assert_clean()
        self.mirror.delete("demo", NAME)

    def test_part_of_another_file(self) -> None:
        """Where there is no hash, a rest that does not prove to be one of the same file is none."""
        span = {"Content-Range": f"bytes 5-{len(DATA) - 1}/{len(DATA)}"}
        date = "Sun, 06 Nov 1994 08:49:37 GMT"
        other = {"Last-Modified": "Sun, 06 Nov 1994 09:00:00 GMT"}
        for keys in ({}, {"size": None}):
            for mine, theirs in (
                ({"ETag": '"x"'}, {"ETag": '"y"'}),
                ({"ETag": '"x"'}, {}),
                ({"ETag": '"x"', "Last-Modified": date}, {"Last-Modified": date}),
                ({"Last-Modified": date}, other),
                ({"Last-Modified": date}, {"ETag": '"y"'}),
            ):
                rest = Reply(206, bytes(len(DATA) - 5), {**span, **theirs})
                self.resume_bare(mine, rest, **keys)
                assert len(self.internet.asked) == 3, (mine, theirs)

    def test_part_of_the_same_file(self) -> None:
        """The tag proves it, and so does the date, which the answer may leave out."""
        span = {"Content-Range": f"bytes 5-{len(DATA) - 1}/{len(DATA)}"}
        date = "Sun, 06 Nov 1994 08:49:37 GMT"
        for mine, theirs in (
            ({"ETag": '"x"'}, {"ETag": '"x"'}),
            ({"Last-Modified": date}, {"Last-Modified": date}),
            ({"Last-Modified": date}, {}),
        ):
            self.resume_bare(mine, Reply(206, DATA[5:], {**span, **theirs}))
            assert len(self.internet.asked) == 2

    def test_other_tag_with_digest(self) -> None:
        """With a hash as well, a rest of another file is not even begun."""
        date = {"Content-Range": f"bytes {AT}-{len(LARGE) - 1}/{len(LARGE)}", "ETag": '"y"'}
        again = self.slow()
        reading = self.break_off(Reply(206, b"", date, length=len(LARGE) - AT), again, ETag='"x"')
        self.finish(again)
        self.assert_whole(reading)

    def test_longer_than_announced(self) -> None:
        """A rest that brings more than there is makes no file of another length."""
        tag = {"ETag": '"x"'}
        span = {"Content-Range": f"bytes 5-{len(DATA) - 1}/{len(DATA)}", **tag}
        rest = Reply(206, DATA[5:] + b"more", span, length=None)
        self.resume_bare(tag, rest, size=None)
        assert len(self.internet.asked) == 3

    def test_endless_rest(self) -> None:
        """A rest that brings more than its Content-Range states ends there, also with a digest."""
        span = {"Content-Range": f"bytes {AT}-{len(LARGE) - 1}/{len(LARGE)}", "ETag": '"x"'}
        rest = Reply(206, b"", span, whole=False, length=None)
        again = self.slow()
        self.break_off(rest, again, ETag='"x"')
        rest.bring(LARGE[AT:])
        assert not rest.closed
        rest.bring(b"x")
        assert rest.closed
        self.finish(again)
        self.assert_served(data=LARGE)
        self.assert_clean()

    def test_refuses_ranges(self) -> None:
        """An upstream that says it knows no ranges is believed, as far as there is no digest."""
        self.locate.lists(entry(NAME, DATA, hashes={}))
        headers = {"ETag": '"x"', "Accept-Ranges": "none"}
        first = Reply(200, b"", headers, whole=False, length=len(DATA))
        self.internet.at(URL, first, Reply(200, DATA))
        asked = self.fetch()
        first.bring(DATA[:5])
        first.cut()
        self.assert_bytes(self.result(asked))
        assert self.internet.asked[1].header("Range") is None

    def test_end_not_announced(self) -> None:
        """A body that may be cut short, without anything to tell by, is not gone on with."""
        replies = [Reply(200, b"", whole=False, length=None) for _ in range(2)]
        self.locate.lists(entry(NAME, DATA, hashes={}, size=None))
        self.internet.at(URL, *replies)
        asked = self.fetch()
        for reply in replies:
            reply.end(PotentialDataLoss())
        self.error(asked, UpstreamFailed)
        assert self.internet.asked[1].header("Range") is None
