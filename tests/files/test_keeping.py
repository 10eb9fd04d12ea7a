"""Files that cannot be kept, and files that lay there before."""

from __future__ import annotations

import shutil

from twisted.internet.defer import CancelledError

from proxpi.files import fetch
from proxpi.upstream.errors import UpstreamFailed
from tests.files.mirrored import DATA, NAME, TIMEOUT, URL, MirrorCase
from tests.support.agent import Reply
from tests.support.cases import FILES, MIB, entry
from tests.support.logs import logged


class FullDisk(MirrorCase):
    """When the folder cannot take a file."""

    def test_writing(self) -> None:
        """A disk that is full while a file comes: the client is sent upstream."""
        self.listed()
        self.fill_disk("write")
        with logged("proxpi.files") as log:
            self.assert_sent_to(self.fetch())
        assert "No space left on device" in log.text
        assert len(self.internet.asked) == 1
        self.assert_nothing_kept()

    def test_finishing(self) -> None:
        """A disk that is full only when the last bytes are written."""
        self.listed()
        self.fill_disk("flush")
        self.assert_sent_to(self.fetch())
        self.assert_nothing_kept()

    def test_renaming_private(self) -> None:
        """Behind credentials nobody is refused: the file is sent, and not kept."""
        (self.folder / "files-example").write_bytes(b"in the way")
        self.listed(private=True)
        self.assert_bytes(self.result(self.fetch()))
        self.clock.advance(0)
        assert self.open_files() == []

    def test_no_folder_private(self) -> None:
        """The same where not even an unfinished file can be made in the folder."""
        self.cache_dir.own.rmdir()
        self.cache_dir.own.write_bytes(b"in the way")
        self.listed(private=True)
        self.assert_bytes(self.result(self.fetch()))
        self.clock.advance(0)
        assert self.open_files() == []

    def test_renaming(self) -> None:
        """A file that cannot be given its name."""
        (self.folder / "files-example").write_bytes(b"in the way")
        self.listed()
        self.assert_sent_to(self.fetch())
        assert self.leftovers() == []
        assert self.open_files() == []

    def test_private(self) -> None:
        """Behind credentials, and where nobody is redirected, it passes through."""
        for stream in (False, True):
            for function in ("write", "flush"):
                self.build(stream=stream)
                self.listed(private=not stream)
                full = self.fill_disk(function)
                self.assert_bytes(self.result(self.fetch()))
                self.clock.advance(0)
                self.assert_nothing_kept()
                full.stop()

    def test_room_again(self) -> None:
        """A disk that has room again is used again."""
        self.listed()
        full = self.fill_disk()
        self.assert_sent_to(self.fetch())
        full.stop()
        self.assert_bytes(self.result(self.fetch()))
        self.assert_served()

    def test_name_too_long(self) -> None:
        """A name that the file system does not take: the client is sent upstream."""
        name = "x" * 300 + ".whl"
        self.locate.lists(entry(name, DATA))
        self.internet.at(FILES + name, Reply(200, DATA))
        self.assert_sent_to(self.fetch(name), FILES + name)
        assert self.leftovers() == []


class Capacity(MirrorCase):
    """Files that may not be kept."""

    def test_nothing_is_kept(self) -> None:
        """With no cache at all the client is sent upstream at once, and nothing is asked there."""
        self.build(capacity=0)
        self.listed()
        self.assert_sent_to(self.fetch())
        assert self.internet.asked == []

    def test_nothing_is_kept_private(self) -> None:
        """Behind credentials the file passes through, for each who asks, and leaves nothing."""
        self.build(capacity=0)
        replies = [Reply(200, b"", whole=False, length=len(DATA)) for _ in range(3)]
        self.listed(*replies, private=True)
        asked = [self.fetch() for _ in range(3)]
        for one, reply in zip(asked, replies, strict=True):
            reply.bring(DATA)
            reply.end()
            self.assert_bytes(self.result(one))
        self.assert_nothing_kept()

    def test_passed_through_with_nobody_there(self) -> None:
        """If nobody waits for it any more, what cannot be kept is asked for no longer."""
        self.build(capacity=0)
        slow = Reply(200, b"", whole=False, length=len(DATA))
        self.listed(slow, private=True)
        asked = self.fetch()
        asked.cancel()
        self.error(asked, CancelledError)
        assert slow.closed
        assert self.clock.getDelayedCalls() == []
        self.assert_nothing_kept()

    def test_too_large(self) -> None:
        """A file larger than the cache is not asked for: the client is sent upstream at once."""
        self.build(capacity=len(DATA) - 1)
        self.listed()
        self.assert_sent_to(self.fetch())
        assert self.internet.asked == []

    def test_turns_out_too_large(self) -> None:
        """A file that turns out to be larger is not read, and its connection is let go of."""
        self.build(capacity=len(DATA) - 1)
        reply = Reply(200, b"", whole=False, length=100_000)
        self.listed(reply, size=None)
        self.assert_sent_to(self.fetch())
        reply.bring(bytes(65_537))
        assert reply.closed
        self.assert_nothing_kept()

    def test_turns_out_too_large_unannounced(self) -> None:
        """A file whose length nobody announced is left as soon as it is larger."""
        self.build(capacity=len(DATA) - 1)
        self.listed(Reply(200, DATA, length=None), size=None)
        self.assert_sent_to(self.fetch())
        self.assert_nothing_kept()

    def test_turns_out_too_large_private(self) -> None:
        """A file behind credentials passes through, since nobody can be sent for it."""
        self.build(capacity=len(DATA) - 1)
        self.listed(Reply(200, DATA, length=None), size=None, private=True)
        self.assert_bytes(self.result(self.fetch()))
        self.clock.advance(0)
        self.assert_nothing_kept()

    def test_far_beyond_its_size(self) -> None:
        """What goes on far beyond the size on the page is not waited for."""
        self.put(fetch, "MARGIN", MIB)
        self.listed(Reply(200, bytes(3 * MIB), length=None), size=10, private=True)
        assert self.error(self.fetch(), UpstreamFailed).cause == "the answer is too long"
        self.assert_nothing_kept()

    def test_far_beyond_a_wrong_size(self) -> None:
        """Far too small a size on the page does no harm to a file of an announced length."""
        self.put(fetch, "MARGIN", 0)
        self.listed(Reply(200, DATA), size=1)
        self.assert_bytes(self.result(self.fetch()))
        self.assert_served()

    def test_emptied_meanwhile(self) -> None:
        """A folder that was emptied under the running program is filled again."""
        shutil.rmtree(self.folder)
        self.listed()
        self.assert_bytes(self.result(self.fetch()))
        self.assert_served()

    def test_same_place_without_hash(self) -> None:
        """Two files that differ in port or query alone are not taken for each other."""
        for number, url in enumerate((f"{URL}?id=1", f"{URL}?id=2")):
            name = f"{number}.whl"
            self.locate.lists(entry(name, DATA, url=url, hashes={}, size=None))
            self.internet.at(url, Reply(200, f"file {number}".encode()))
            self.assert_bytes(self.result(self.fetch(name)), f"file {number}".encode())
            self.assert_served(name, f"file {number}".encode())
        assert self.mirror.ready("demo", "0.whl") is None

    def test_just_fits(self) -> None:
        """A file as large as the cache is kept."""
        self.build(capacity=len(DATA))
        self.listed()
        self.assert_bytes(self.result(self.fetch()))
        self.assert_served()

    def test_no_place(self) -> None:
        """A file whose path may not lie in the folder passes through, every time."""
        url = "https://files.example/../" + NAME
        self.locate.lists(entry(NAME, DATA, url=url))
        self.internet.at(url, Reply(200, DATA))
        for _ in range(2):
            self.assert_bytes(self.result(self.fetch()))
            self.clock.advance(0)
            self.assert_nothing_kept()

    def test_gone_before_it_is_opened(self) -> None:
        """A file that somebody removes as it arrives: the client is sent upstream."""
        slow = Reply(200, DATA, whole=False)
        self.listed(slow)
        asked = self.fetch()
        self.put(self.cache_dir.__class__, "open", lambda *_, **__: None)
        slow.end()
        self.assert_sent_to(asked)


class Found(MirrorCase):
    """Files that lay there before, put there by the original or by an earlier process."""

    def setUp(self) -> None:
        """Lay a file where the original puts it."""
        super().setUp()
        self.path = self.folder / "files-example/packages" / NAME
        self.path.parent.mkdir(parents=True)
        self.path.write_bytes(DATA)
        self.listed()

    def arrive(self) -> None:
        """Let it be checked and served."""
        asked = self.fetch()
        self.run_threads()
        self.assert_bytes(self.result(asked))

    def test_checked_once(self) -> None:
        """A file is checked off the reactor's thread, once for all, and asked of no upstream."""
        assert self.mirror.ready("demo", NAME) is None
        asked = [self.fetch() for _ in range(3)]
        assert self.run_threads() == 1
        for one in asked:
            self.assert_bytes(self.result(one))
        self.assert_served()
        self.assert_bytes(self.result(self.fetch()))
        assert (self.threads, self.internet.asked) == ([], [])

    def test_wrong(self) -> None:
        """A wrong file is removed, and the right one downloaded."""
        self.path.write_bytes(b"wrong")
        asked = self.fetch()
        self.run_threads()
        self.assert_bytes(self.result(asked))
        assert self.path.read_bytes() == DATA
        assert self.internet.urls() == [URL]

    def test_wrong_and_upstream_down(self) -> None:
        """A wrong file is not served even if there is no other."""
        self.path.write_bytes(b"wrong")
        self.internet.at(URL, Reply(503))
        asked = self.fetch()
        self.run_threads()
        self.assert_sent_to(asked)
        assert not self.path.exists()

    def test_check_takes_long(self) -> None:
        """Nobody is sent away for a file that is here, however long its check takes."""
        asked = self.fetch()
        self.clock.advance(TIMEOUT + 1)
        self.pending(asked)
        self.run_threads()
        self.assert_bytes(self.result(asked))
        assert self.internet.urls() == []

    def test_shrunk_later(self) -> None:
        """A file that shrinks under the process is a miss, and comes anew."""
        self.arrive()
        self.path.write_bytes(DATA[:3])
        assert self.mirror.ready("demo", NAME) is None
        asked = self.fetch()
        self.run_threads()
        self.assert_bytes(self.result(asked))
        assert self.internet.urls() == [URL]

    def test_vanished_later(self) -> None:
        """A file that vanishes is a miss, and comes anew."""
        self.arrive()
        self.path.unlink()
        assert self.mirror.ready("demo", NAME) is None
        self.assert_bytes(self.result(self.fetch()))

    def test_offline(self) -> None:
        """A file that lies there is served though its upstream is down."""
        self.internet.at(URL, Reply(503))
        self.arrive()
        assert self.internet.asked == []
