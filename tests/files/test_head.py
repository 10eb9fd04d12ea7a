"""What is known of a file without fetching it, as ``HEAD`` wants it."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from proxpi.files.cache_dir import OpenFile
from proxpi.files.mirror import Head
from proxpi.files.resolver import NotUpstream
from proxpi.simple.model import NotListed
from proxpi.upstream.errors import UpstreamFailed
from tests.files.mirrored import DATA, NAME, URL, MirrorCase
from tests.support.agent import Reply, Silence
from tests.support.cases import FILES, entry, sha256


class HeadOfAFile(MirrorCase):
    """Its length is told without a download, and without a wait for one."""

    def head(self, filename: str = NAME) -> Deferred[OpenFile | Head]:
        """Ask as a client does."""
        return Deferred.fromCoroutine(self.mirror.head("demo", filename))

    def assert_told(self, size: int | None, sha256: str | None) -> None:
        """Check what is told of a file that is not here."""
        found = self.result(self.head())
        assert isinstance(found, Head)
        assert (found.size, found.reference.sha256) == (size, sha256)

    def test_here(self) -> None:
        """A file that is here is given itself."""
        self.listed()
        self.assert_bytes(self.result(self.fetch()))
        self.assert_bytes(self.result(self.head()))

    def test_size_of_the_page(self) -> None:
        """The page's size is believed, and no upstream is asked."""
        self.listed()
        self.assert_told(len(DATA), sha256(DATA))
        assert self.internet.asked == []

    def test_no_size_at_all(self) -> None:
        """A size of nothing is none: the upstream is asked."""
        self.listed(Reply(200, b"", length=len(DATA)), size=0)
        self.assert_told(len(DATA), sha256(DATA))

    def test_larger_than_the_cache(self) -> None:
        """It is told also of what will never be kept."""
        self.build(capacity=0)
        self.listed(private=True)
        self.assert_told(len(DATA), sha256(DATA))

    def test_asked_upstream(self) -> None:
        """Without a size on the page the upstream is asked for it, and for nothing else."""
        self.listed(Reply(200, b"", length=12345), size=None)
        self.assert_told(12345, sha256(DATA))
        [asked] = self.internet.asked
        assert (asked.method, asked.url) == ("HEAD", URL)
        assert asked.header("Accept-Encoding") == "identity"

    def test_digest_unknown(self) -> None:
        """What is not known of it is not made up."""
        self.listed(Reply(200, b"", length=5), size=None, hashes={})
        self.assert_told(5, None)

    def test_no_head(self) -> None:
        """Where the upstream knows no ``HEAD``, or no length for it, the file itself tells."""
        no_answer = ConnectionResetError()
        refusals: list[Reply | Exception] = [
            *map(Reply, (401, 403, 404, 405, 500, 501)),
            Reply(200, b"", length=0),
            no_answer,
        ]
        for refusal in refusals:
            self.listed(refusal, Reply(200, DATA), size=None)
            self.assert_bytes(self.result(self.head()))
            self.assert_served()
            self.build()
            (self.folder / "files-example/packages" / NAME).unlink()

    def test_no_length_anywhere(self) -> None:
        """Where nobody tells it, and nothing can be kept to find out, there is none."""
        self.build(capacity=0)
        self.listed(Reply(405), Reply(200, DATA, length=None), size=None)
        self.assert_told(None, sha256(DATA))
        self.build()
        self.fill_disk("__init__")
        self.listed(Reply(405), Reply(200, DATA, length=None), size=None)
        self.assert_told(None, sha256(DATA))

    def test_nothing_to_be_had(self) -> None:
        """A file that does not come at all is a failure, as for a ``GET``."""
        self.build(capacity=0)
        self.listed(Reply(405), size=None)
        error = self.error(self.head(), UpstreamFailed)
        assert (error.cause, error.temporary) == ("status 405", False)

    def test_not_there(self) -> None:
        """A file that is not there, by a fresh page too, is not there."""
        for status in (404, 410):
            self.listed(Reply(status), size=None)
            self.error(self.head(), NotUpstream)
        assert self.locate.asked_again == [("demo", NAME)] * 2

    def test_expired_url(self) -> None:
        """A URL that is gone is looked up anew, as for a ``GET``."""
        for status in (403, 404, 410):
            self.listed(Reply(status), size=None)
            new = FILES + f"signed/{status}/" + NAME
            self.locate.lists(entry(NAME, DATA, url=new, size=None), cold=True)
            self.internet.at(new, Reply(200, b"", length=len(DATA)))
            self.assert_told(len(DATA), sha256(DATA))

    def test_failing(self) -> None:
        """An upstream that fails for now is a failure that may pass."""
        for status in (429, 500, 503):
            self.listed(Reply(status), size=None)
            error = self.error(self.head(), UpstreamFailed)
            assert error.temporary, status

    def test_refused(self) -> None:
        """Rejected credentials are a failure that does not pass by itself."""
        for status in (401, 403):
            self.listed(Reply(status), size=None, private=True)
            error = self.error(self.head(), UpstreamFailed)
            assert not error.temporary, status

    def test_no_length(self) -> None:
        """An upstream that does not tell the length gives no length."""
        self.listed(Reply(200, b"", length=None), size=None)
        self.error(self.head(), UpstreamFailed)

    def test_client_goes_away(self) -> None:
        """Nothing is asked any more for a client that is gone."""
        silence = Silence()
        self.listed(silence, size=None)
        asked = self.head()
        asked.cancel()
        self.error(asked, Exception)
        assert silence.cancelled
        assert self.clock.getDelayedCalls() == []

    def test_not_listed(self) -> None:
        """What no page lists is asked of no upstream."""
        self.error(self.head(), NotListed)
        assert self.internet.asked == []
