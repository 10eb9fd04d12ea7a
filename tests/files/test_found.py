"""Files that lie in the folder already, as the original or an earlier run left them."""

from __future__ import annotations

import errno
import os
from unittest import mock

from proxpi.files import layout
from proxpi.files.cache_dir import OpenFile
from proxpi.files.mirror import Redirect
from proxpi.files.resolver import file_reference
from proxpi.simple.model import ListedFile
from tests.files.mirrored import DATA, NAME, URL, MirrorCase
from tests.support.agent import Reply
from tests.support.cases import entry


class FoundTests(MirrorCase):
    """A mirror whose folder holds the wheel before anyone asked for it."""

    def lay(self, data: bytes) -> None:
        """Let a file lie where the wheel belongs, and look around as a new process does."""
        place = file_reference(ListedFile(entry(NAME, DATA), False)).cache_path
        assert place is not None
        path = self.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.build()
        self.listed()

    def found(self) -> OpenFile:
        """Give the copy for a client that waits for the check."""
        asked = self.fetch()
        self.run_threads()
        copy = self.result(asked)
        assert isinstance(copy, OpenFile)
        return copy

    def test_version_without_digest(self) -> None:
        """A found file without a digest is revalidated by its time, at most once per TTL."""
        self.clock.advance(1_800_000_000)
        for other in (False, True):
            self.lay(DATA)
            self.locate.lists(entry(NAME, DATA, hashes={}))
            new = bytes(reversed(DATA))
            said = {"Last-Modified": "Sun, 06 Nov 2095 08:49:37 GMT"}
            again = Reply(200, new, said) if other else Reply(304)
            self.internet.at(URL, again)
            self.internet.asked.clear()
            asked = self.fetch()
            self.run_threads()
            self.assert_bytes(self.result(asked), new if other else DATA)
            [first, *more] = self.internet.asked
            assert first.header("If-Modified-Since") and len(more) == other
            self.assert_served(data=new if other else DATA)
            self.mirror.delete("demo", NAME)

    def test_no_descriptor(self) -> None:
        """A process without a free descriptor learns nothing of a file: it is kept, and unread."""
        self.listed(hashes={}, size=None)
        self.result(self.fetch()).close()  # type: ignore[union-attr]
        for number in (errno.EMFILE, errno.ENFILE):
            self.internet.at(URL, Reply(503))
            with mock.patch.object(layout, "open_file", side_effect=OSError(number, "too many")):
                asked = self.fetch()
                self.clock.pump([1] * 4)
                assert self.result(asked) == Redirect(URL)
            self.assert_served()
            assert self.threads == []

    def test_right(self) -> None:
        """The right bytes are served without a question upstream, and that shows."""
        self.lay(DATA)
        copy = self.found()
        assert not copy.fetched
        self.assert_bytes(copy)
        assert self.internet.urls() == []
        self.assert_served()

    def test_wrong(self) -> None:
        """Wrong bytes are replaced by what the upstream has, and that shows, too."""
        self.lay(b"x" * len(DATA))
        copy = self.found()
        assert copy.fetched
        self.assert_bytes(copy)
        assert self.internet.urls() == [URL]
        self.assert_served()

    def test_forgotten_while_it_is_read(self) -> None:
        """A wrong file that is deleted and fetched anew while it is read: the new one stays."""
        self.lay(b"x" * len(DATA))
        first = self.fetch()
        [(read, done)], self.threads = self.threads, []
        looks = iter([None, self.forget_and_fetch])
        look = os.fstat

        def then(descriptor: int) -> os.stat_result:
            if (act := next(looks, None)) is not None:
                act()
            return look(descriptor)

        with mock.patch.object(os, "fstat", then):
            done.callback(read())
        self.run_threads()
        self.assert_served()
        self.assert_bytes(self.result(first))
        assert self.internet.urls() == [URL]

    def forget_and_fetch(self) -> None:
        """Delete the wheel, and fetch it anew."""
        self.mirror.delete("demo", NAME)
        asked = self.fetch()
        self.run_threads()
        self.assert_bytes(self.result(asked))

    def test_forgotten_before_it_is_read(self) -> None:
        """The same if the thread that reads it runs after that, and reads the new one."""
        self.lay(b"x" * len(DATA))
        first = self.fetch()
        reading, self.threads = self.threads, []
        self.forget_and_fetch()
        self.threads = reading
        self.run_threads()
        self.assert_served()
        self.assert_bytes(self.result(first))
        assert self.internet.urls() == [URL]
