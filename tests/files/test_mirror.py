"""The mirror: hit, join, start; the timer; what happens when a file is gone."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from proxpi.files.resolver import NotUpstream
from proxpi.simple.model import NotListed
from proxpi.upstream.errors import UpstreamFailed
from tests.files.mirrored import DATA, NAME, TIMEOUT, URL, MirrorCase
from tests.support.agent import Reply, Silence
from tests.support.cases import FILES, entry

NEW = FILES + "signed/anew/" + NAME


class Timer(MirrorCase):
    """A client waits for so long, and no longer."""

    def begin(self, private: bool = False) -> Reply:
        """Let a download begin that does not end by itself."""
        slow = Reply(200, b"", whole=False, length=len(DATA))
        self.listed(slow, private=private)
        return slow

    def finish(self, slow: Reply) -> None:
        """Let the rest of it come."""
        slow.bring(DATA)
        slow.end()

    def test_redirect_at_the_timeout(self) -> None:
        """The client is sent upstream when its time is up, not before; the download goes on."""
        slow = self.begin()
        asked = self.fetch()
        self.clock.advance(TIMEOUT - 0.01)
        self.pending(asked)
        self.clock.advance(0.01)
        self.assert_sent_to(asked)
        self.finish(slow)
        self.assert_served()
        assert self.internet.urls() == [URL]
        assert self.clock.getDelayedCalls() == []

    def test_each_has_its_own(self) -> None:
        """A client that comes later waits later, for the same download."""
        slow = self.begin()
        first = self.fetch()
        self.clock.advance(0.5)
        second = self.fetch()
        self.clock.advance(0.5)
        self.assert_sent_to(first)
        self.pending(second)
        self.finish(slow)
        self.assert_bytes(self.result(second))
        assert self.internet.urls() == [URL]

    def test_signed_anew_each_time(self) -> None:
        """A page that signs its URLs anew each time names the same file: it is fetched once."""
        self.locate.lists(entry(NAME, DATA, url=f"{URL}?signature=1"))
        slow = Reply(200, b"", whole=False, length=len(DATA))
        self.internet.at(f"{URL}?signature=1", slow)
        first = self.fetch()
        self.locate.lists(entry(NAME, DATA, url=f"{URL}?signature=2"))
        second = self.fetch()
        self.finish(slow)
        for asked in (first, second):
            self.assert_bytes(self.result(asked))
        assert self.internet.urls() == [f"{URL}?signature=1"]

    def test_queries_that_tell_files_apart(self) -> None:
        """Without a hash, or with another one, another query is another file."""
        others: list[dict[str, str]] = [{}, {"sha256": "0" * 64}]
        for digests in others:
            self.build()
            self.internet.asked.clear()
            for number in (1, 2):
                slow = Reply(200, b"", whole=False, length=len(DATA))
                self.internet.at(f"{URL}?file={number}", slow)
                hashes = digests if number == 1 else {}
                self.locate.lists(entry(NAME, DATA, url=f"{URL}?file={number}", hashes=hashes))
                self.pending(self.fetch())
            assert len(self.internet.urls()) == 2

    def test_page_counts(self) -> None:
        """What the page took is not waited for again."""
        self.listed(Reply(200, b"", whole=False), cold=True)
        self.locate.slow = Deferred()
        asked = self.fetch()
        self.clock.advance(0.8)
        self.locate.slow.callback(None)
        self.pending(asked)
        self.clock.advance(0.1)
        self.assert_sent_to(asked)

    def test_page_takes_all(self) -> None:
        """A page that takes longer than the timeout: the redirect comes as soon as it can."""
        slow = Reply(200, b"", whole=False, length=len(DATA))
        self.listed(slow, cold=True)
        self.locate.slow = Deferred()
        asked = self.fetch()
        self.clock.advance(7)
        self.pending(asked)
        self.locate.slow.callback(None)
        self.clock.advance(0)
        self.assert_sent_to(asked)
        self.finish(slow)
        self.assert_served()

    def test_no_patience(self) -> None:
        """A timeout of 0 sends each client upstream that would have to wait."""
        self.build(timeout=0)
        slow = self.begin()
        asked = self.fetch()
        self.clock.advance(0)
        self.assert_sent_to(asked)
        self.finish(slow)
        self.assert_served()

    def test_private_waits(self) -> None:
        """Behind credentials the client waits for the whole download."""
        slow = self.begin(private=True)
        asked = self.fetch()
        for _ in range(50):
            self.clock.advance(15)
            slow.bring(b"")
        self.pending(asked)
        self.finish(slow)
        self.assert_bytes(self.result(asked))

    def test_many_wait_for_one(self) -> None:
        """However many ask, there is one download, and all get its bytes."""
        slow = self.begin()
        asked = [self.fetch() for _ in range(20)]
        self.finish(slow)
        for one in asked:
            self.assert_bytes(self.result(one))
        assert self.internet.urls() == [URL]
        assert self.open_files() == []

    def test_one_goes_away(self) -> None:
        """A client that goes away stops nothing, neither for the others nor for the cache."""
        slow = self.begin()
        first, second = self.fetch(), self.fetch()
        first.cancel()
        self.error(first, CancelledError)
        assert not slow.closed
        self.finish(slow)
        self.assert_bytes(self.result(second))

    def test_all_go_away(self) -> None:
        """A download that nobody waits for any more is finished for the next one."""
        slow = self.begin()
        asked = self.fetch()
        asked.cancel()
        self.error(asked, CancelledError)
        self.finish(slow)
        self.assert_served()
        assert self.clock.getDelayedCalls() == []

    def test_fails_with_nobody_there(self) -> None:
        """A download that fails when all were sent away is forgotten, without a fuss."""
        cut = self.begin()
        asked = self.fetch()
        self.clock.advance(TIMEOUT)
        self.assert_sent_to(asked)
        self.internet.at(URL, Reply(503))
        cut.cut()
        self.assert_nothing_kept()
        self.internet.at(URL, Reply(200, DATA))
        self.assert_bytes(self.result(self.fetch()))


class Gone(MirrorCase):
    """A file that the upstream does not have is asked for on a fresh page first."""

    def test_same_url(self) -> None:
        """A fresh page that still leads there: it is not there."""
        for status in (404, 410):
            self.listed(Reply(status))
            self.error(self.fetch(), NotUpstream)
        assert self.locate.asked_again == [("demo", NAME)] * 2
        assert self.internet.urls() == [URL] * 2
        self.assert_nothing_kept()

    def test_same_url_private(self) -> None:
        """Behind credentials as well."""
        self.listed(Reply(404), private=True)
        self.error(self.fetch(), NotUpstream)

    def test_changed_url(self) -> None:
        """A URL that changed meanwhile, as signed ones do, is used."""
        for status in (403, 404, 410):
            self.listed(Reply(status))
            self.locate.lists(entry(NAME, DATA, url=NEW), cold=True)
            self.internet.at(NEW, Reply(200, DATA))
            self.assert_bytes(self.result(self.fetch()))
            self.assert_served()
            (self.folder / "files-example/packages/signed/anew" / NAME).unlink()

    def test_changed_url_gone_too(self) -> None:
        """If it is not there either, it is not there."""
        self.listed(Reply(404))
        self.locate.lists(entry(NAME, DATA, url=NEW), cold=True)
        self.error(self.fetch(), NotUpstream)
        assert self.internet.urls() == [URL, NEW]

    def test_changed_url_slow(self) -> None:
        """The client's time goes on; it is sent to the new URL."""
        self.listed(Reply(404))
        self.locate.lists(entry(NAME, DATA, url=NEW), cold=True)
        self.internet.at(NEW, Silence())
        asked = self.fetch()
        self.clock.advance(TIMEOUT)
        self.assert_sent_to(asked, NEW)

    def test_changed_url_failing(self) -> None:
        """If the new URL fails, the client is sent there, and not to the one that is gone."""
        self.listed(Reply(404))
        self.locate.lists(entry(NAME, DATA, url=NEW), cold=True)
        self.internet.at(NEW, Reply(503))
        self.assert_sent_to(self.fetch(), NEW)

    def test_not_listed_any_more(self) -> None:
        """A file that the fresh page does not list is not there."""
        self.listed(Reply(404), cold=True)
        asked = self.fetch()
        self.error(asked, NotUpstream)
        self.listed(Reply(404))
        silence = Silence()
        self.internet.at(URL, silence)
        asked = self.fetch()
        del self.locate.known["demo", NAME], self.locate.fresh["demo", NAME]
        silence.answer(Reply(404))
        self.error(asked, NotUpstream)

    def test_page_not_to_be_had(self) -> None:
        """If the page cannot be asked, the client is sent upstream: its view may be better."""
        self.listed(Reply(404))
        self.locate.failure = UpstreamFailed("https://index.example/", "down")
        self.assert_sent_to(self.fetch())

    def test_page_not_to_be_had_private(self) -> None:
        """Behind credentials that is a failure, and no 404."""
        self.listed(Reply(404), private=True)
        self.locate.failure = UpstreamFailed("https://index.example/", "down")
        self.error(self.fetch(), UpstreamFailed)

    def test_forbidden(self) -> None:
        """A 403 is no 404: the client is sent upstream."""
        self.listed(Reply(403))
        self.assert_sent_to(self.fetch())
        assert self.locate.asked_again == [("demo", NAME)]

    def test_forbidden_private(self) -> None:
        """Behind credentials a 403 is a failure that does not pass by itself."""
        self.listed(Reply(403), private=True)
        error = self.error(self.fetch(), UpstreamFailed)
        assert not error.temporary

    def test_not_listed(self) -> None:
        """What no page lists is asked of no upstream."""
        self.error(self.fetch(), NotListed)
        assert self.internet.asked == []
