"""One download: what is believed of an upstream's answer, and what is asked for once more."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionRefusedError
from twisted.web.http import PotentialDataLoss

from proxpi.files import fetch
from proxpi.files.resolver import NotUpstream
from proxpi.upstream.errors import UpstreamFailed
from tests.files.mirrored import DATA, NAME, TIMEOUT, URL, MirrorCase
from tests.support.agent import Reply, Silence
from tests.support.cases import FILES, entry, sha256
from tests.support.logs import logged

UNKNOWN: dict[str, Any] = {"hashes": {}, "size": None}


class Waiting(MirrorCase):
    """Downloads whose response has not begun."""

    def test_holds_nothing(self) -> None:
        """A download that waits for a connection or a response holds no file, whoever waits."""
        for stream in (False, True):
            self.build(stream=stream)
            silences = [Silence() for _ in range(10)]
            asked = []
            for at, silence in enumerate(silences):
                name = f"demo-{at}.0-py3-none-any.whl"
                self.locate.lists(entry(name, DATA))
                self.internet.at(FILES + name, silence)
                asked.append(self.fetch(name))
            assert (self.leftovers(), self.open_files()) == ([], [])
            for silence in silences:
                silence.answer(Reply(200, DATA))
                self.run_threads()
            self.clock.advance(0)
            for each in asked:
                self.assert_bytes(self.result(each))
            assert self.open_files() == []
            self.result(self.mirror.clear())

    def test_deleted(self) -> None:
        """A file that is deleted before its response begins is sent, and not kept."""
        silence = Silence()
        self.listed(silence)
        asked = self.fetch()
        self.mirror.delete("demo", NAME)
        silence.answer(Reply(200, DATA))
        self.assert_bytes(self.result(asked))
        self.clock.advance(0)
        self.assert_nothing_kept()


class WithDigest(MirrorCase):
    """A file whose digest the index names."""

    def test_right(self) -> None:
        """Right bytes are kept; they are asked for as they are, without compression."""
        self.listed()
        self.assert_bytes(self.result(self.fetch()))
        [asked] = self.internet.asked
        assert asked.header("Accept-Encoding") == "identity"
        self.assert_served()
        assert self.leftovers() == []
        assert self.open_files() == []

    def test_wrong_then_right(self) -> None:
        """Wrong bytes are thrown away and asked for once more."""
        self.listed(Reply(200, b"something else"), Reply(200, DATA))
        self.assert_bytes(self.result(self.fetch()))
        assert self.internet.urls() == [URL, URL]

    def test_wrong_twice(self) -> None:
        """Wrong bytes, twice: the client is sent upstream, and nothing is kept."""
        self.listed(Reply(200, b"something else"))
        with logged("proxpi.files") as log:
            self.assert_sent_to(self.fetch())
        assert self.internet.urls() == [URL, URL]
        assert sha256(DATA) in log.text
        self.assert_nothing_kept()

    def test_wrong_twice_private(self) -> None:
        """Behind credentials the same is a failure, which waiting may mend."""
        self.listed(Reply(200, b"something else"), private=True)
        error = self.error(self.fetch(), UpstreamFailed)
        assert "wrong bytes" in error.cause
        self.assert_nothing_kept()

    def test_of_the_same_length(self) -> None:
        """Bytes of the right number that are not the right ones are wrong."""
        self.listed(Reply(200, b"T" + DATA[1:]))
        self.assert_sent_to(self.fetch())
        self.assert_nothing_kept()

    def test_wrong_size_on_the_page(self) -> None:
        """The right digest with another size than the page's is served, and logged."""
        self.listed(size=3)
        with logged("proxpi.files") as log:
            self.assert_bytes(self.result(self.fetch()))
        assert "the index says 3 bytes" in log.text
        self.assert_served()

    def test_other_algorithm(self) -> None:
        """The best digest there is decides."""
        self.listed(hashes={"md5": "0" * 32})
        self.assert_sent_to(self.fetch())
        self.assert_nothing_kept()

    def test_short(self) -> None:
        """A body that breaks off is asked for once more."""
        cut = Reply(200, DATA[:5], whole=False, length=len(DATA))
        self.listed(cut, Reply(200, DATA))
        asked = self.fetch()
        self.pending(asked)
        cut.cut()
        self.assert_bytes(self.result(asked))

    def test_silent(self) -> None:
        """A body that goes silent is given up after the read timeout, and closed."""
        silent = Reply(200, DATA[:5], whole=False, length=len(DATA))
        self.listed(silent, Reply(200, DATA))
        self.fetch()
        self.clock.advance(19.9)
        assert not silent.closed
        self.clock.advance(0.2)
        assert silent.closed
        self.assert_served()

    def test_dripping(self) -> None:
        """A body that keeps coming, however slowly, is waited for."""
        slow = Reply(200, b"", whole=False, length=len(DATA))
        self.listed(slow)
        self.fetch()
        for byte in DATA:
            self.clock.advance(15)
            slow.bring(bytes([byte]))
        slow.end()
        self.assert_served()

    def test_without_announced_end(self) -> None:
        """Neither length nor chunks: the digest tells that it is whole."""
        reply = Reply(200, DATA, whole=False, length=None)
        self.listed(reply)
        asked = self.fetch()
        reply.end(PotentialDataLoss())
        self.assert_bytes(self.result(asked))

    def test_encoded(self) -> None:
        """A ``Content-Encoding`` nobody asked for does not matter to the right bytes."""
        self.listed(Reply(200, DATA, {"Content-Encoding": "gzip"}))
        self.assert_bytes(self.result(self.fetch()))

    def test_html_page(self) -> None:
        """A page of a captive portal is not kept as a wheel."""
        self.listed(Reply(200, b"<html>Log in", {"Content-Type": "text/html"}))
        self.assert_sent_to(self.fetch())
        self.assert_nothing_kept()

    def test_empty(self) -> None:
        """No bytes at all are not kept."""
        self.listed(Reply(200, b""))
        self.assert_sent_to(self.fetch())
        self.assert_nothing_kept()

    def test_empty_file(self) -> None:
        """A file that is empty, as its digest says, is a file."""
        self.listed(Reply(200, b""), hashes={"sha256": sha256(b"")}, size=0)
        self.assert_bytes(self.result(self.fetch()), b"")


class WithoutDigest(MirrorCase):
    """A file of which the index tells no hash: only the answer itself can be judged."""

    def test_size(self) -> None:
        """The right number of bytes is kept."""
        self.listed(hashes={})
        self.assert_bytes(self.result(self.fetch()))
        self.assert_served()

    def test_wrong_size(self) -> None:
        """Another number of bytes than the page's is thrown away, twice."""
        self.listed(hashes={}, size=3)
        self.assert_sent_to(self.fetch())
        assert len(self.internet.asked) == 2
        self.assert_nothing_kept()

    def test_nothing_known(self) -> None:
        """An answer that announced its end is believed."""
        self.listed(**UNKNOWN)
        self.assert_bytes(self.result(self.fetch()))
        self.assert_served()

    def test_end_not_announced(self) -> None:
        """An answer that just ends may be cut short: it is not kept."""
        replies = [Reply(200, DATA, whole=False, length=None) for _ in range(2)]
        self.listed(*replies, **UNKNOWN)
        asked = self.fetch()
        for reply in replies:
            reply.end(PotentialDataLoss())
        self.assert_sent_to(asked)
        self.assert_nothing_kept()

    def test_end_not_announced_but_size_known(self) -> None:
        """The page's size tells that an answer is whole."""
        reply = Reply(200, DATA, whole=False, length=None)
        self.listed(reply, hashes={})
        asked = self.fetch()
        reply.end(PotentialDataLoss())
        self.assert_bytes(self.result(asked))

    def test_empty(self) -> None:
        """An empty answer is not kept."""
        self.listed(Reply(200, b""), **UNKNOWN)
        self.assert_sent_to(self.fetch())
        self.assert_nothing_kept()

    def test_encoded(self) -> None:
        """An encoding nobody asked for is not kept: the bytes are not the file's."""
        self.listed(Reply(200, DATA, {"Content-Encoding": "gzip"}), **UNKNOWN)
        self.assert_sent_to(self.fetch())
        self.assert_nothing_kept()

    def test_not_encoded(self) -> None:
        """``identity`` is no encoding."""
        self.listed(Reply(200, DATA, {"Content-Encoding": " Identity"}), **UNKNOWN)
        self.assert_bytes(self.result(self.fetch()))

    def test_html_page(self) -> None:
        """An HTML page instead of a wheel is not kept, but asked for once more."""
        page = Reply(200, b"<html>Log in", {"Content-Type": "Text/HTML; charset=utf-8"})
        self.listed(page, **UNKNOWN)
        self.assert_sent_to(self.fetch())
        assert len(self.internet.asked) == 2
        self.assert_nothing_kept()

    def test_html_file(self) -> None:
        """A file that is an HTML page by its name may be one."""
        url = "https://files.example/demo.html"
        filename = {"filename": "demo.html", "url": url, "hashes": {}}
        self.locate.lists(filename)
        self.internet.at(url, Reply(200, b"<html>", {"Content-Type": "text/html"}))
        self.assert_bytes(self.result(self.fetch("demo.html")), b"<html>")


class Refusals(MirrorCase):
    """What an upstream says instead of the file."""

    def statuses(self, *statuses: int, **keys: Any) -> int:
        """Let it say so, and tell how often it was asked."""
        self.internet.asked.clear()
        self.listed(*(Reply(status) for status in statuses), **keys)
        asked = self.fetch()
        if keys.get("private"):
            self.failure = self.error(asked, UpstreamFailed)
        else:
            self.assert_sent_to(asked)
        self.assert_nothing_kept()
        return len(self.internet.asked)

    def test_asked_once_more(self) -> None:
        """What may pass is asked for once more."""
        for status in (408, 425, 429, 500, 502, 503, 504):
            assert self.statuses(status) == 2, status

    def test_asked_once(self) -> None:
        """What will not pass is not."""
        for status in (206, 204, 304, 400, 401, 405):
            assert self.statuses(status) == 1, status

    def test_private(self) -> None:
        """Behind credentials it is a failure that tells whether waiting helps."""
        self.statuses(503, private=True)
        assert self.failure.temporary
        self.statuses(401, private=True)
        assert not self.failure.temporary
        assert "credentials rejected" in str(self.failure)

    def test_private_retry_after(self) -> None:
        """What the upstream says of when to come again is passed on."""
        self.listed(Reply(503, headers={"Retry-After": "17"}), private=True)
        error = self.error(self.fetch(), UpstreamFailed)
        assert error.retry_after == 17

    def test_too_long_to_wait(self) -> None:
        """An upstream that wants to be left alone for long is not asked once more."""
        self.listed(Reply(503, headers={"Retry-After": "17"}), Reply(200, DATA), private=True)
        self.error(self.fetch(), UpstreamFailed)
        self.clock.advance(20)
        assert len(self.internet.asked) == 1

    def test_left_alone(self) -> None:
        """One that wants it for a few seconds is, while the client's own time runs out."""
        self.listed(Reply(429, headers={"Retry-After": "3"}), Reply(200, DATA))
        asked = self.fetch()
        self.clock.advance(TIMEOUT)
        self.assert_sent_to(asked)
        self.clock.advance(2)
        assert len(self.internet.asked) == 1
        self.clock.advance(0.2)
        self.run_threads()
        self.assert_served()

    def test_pause(self) -> None:
        """A file of which nothing came is asked for again after a pause that varies."""
        self.put(fetch, "PAUSE", 1.0)
        self.listed(Reply(502), Reply(200, DATA))
        self.fetch()
        self.clock.advance(0.4)
        assert len(self.internet.asked) == 1
        self.clock.advance(1.2)
        self.run_threads()
        assert len(self.internet.asked) == 2
        self.assert_served()

    def test_refused_connection(self) -> None:
        """An upstream that is down is asked once more; then the client tries itself."""
        self.listed(ConnectionRefusedError())
        self.assert_sent_to(self.fetch())
        assert len(self.internet.asked) == 2

    def test_not_sticky(self) -> None:
        """The next request asks again, and gets the file."""
        self.listed(Reply(503), Reply(503), Reply(200, DATA))
        self.assert_sent_to(self.fetch())
        self.assert_bytes(self.result(self.fetch()))

    def test_gone_is_not_sticky(self) -> None:
        """A file that was not there may be there the next time."""
        self.listed(Reply(404), Reply(200, DATA))
        self.error(self.fetch(), NotUpstream)
        self.assert_bytes(self.result(self.fetch()))

    def test_no_credentials_in_the_log(self) -> None:
        """A failure is logged without the credentials of its URL."""
        url = f"https://user:secret@files.example/{NAME}"
        self.locate.lists({"filename": NAME, "url": url, "hashes": {}})
        with logged() as log:
            self.error(self.fetch(), NotUpstream)
        assert "files.example" in log.text
        assert "secret" not in log.text
