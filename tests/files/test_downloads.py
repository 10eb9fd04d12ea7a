"""Downloads: one for all clients of a file, which goes on for the cache."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from proxpi.files.spool import Reader
from tests.support.agent import Reply, Silence
from tests.support.cases import FILES, MIB, entry, run
from tests.support.counted import Counted
from tests.support.mirrors import DATA, LARGE, NAME, TIMEOUT, URL, MirrorCase, slow


class Joined(MirrorCase):
    """Clients join the download of a file."""

    def start(self) -> Reply:
        self.listed(reply := slow(DATA))
        return reply

    def test_one_for_all(self) -> None:
        """However many clients there are, there is one download, and all get its bytes."""
        reply = self.start()
        asked = [self.fetch() for _ in range(20)]
        self.finish(reply, data=DATA)
        for one in asked:
            self.assert_bytes(self.result(one))
        assert self.agent.urls() == [URL]
        assert self.open_files() == []

    def test_clients_leave(self) -> None:
        """A client that leaves stops nothing, neither for others nor for the cache."""
        for others in (1, 0):
            reply = self.start()
            first, rest = self.fetch(), [self.fetch() for _ in range(others)]
            first.cancel()
            self.error(first, CancelledError)
            assert not reply.closed
            self.finish(reply, data=DATA)
            for one in rest:
                self.assert_bytes(self.result(one))
            self.assert_cached()
            self.assert_clean()
            self.delete()

    def test_signed_urls(self) -> None:
        """With a digest, a page that signs its URLs anew names the same file; else another one."""
        for hashes, same in ((None, True), ({}, False), ({"sha256": "0" * 64}, False)):
            self.build()
            self.agent.asked.clear()
            replies = [slow(DATA), slow(DATA)]
            asked = []
            for number, reply in enumerate(replies):
                keys = {} if hashes is None or number else {"hashes": hashes}
                url = f"{URL}?signature={number}"
                self.agent.at(url, reply)
                if number and not same:
                    keys = {"hashes": {}}
                self.pages.lists(entry(NAME, DATA, url=url, **keys))
                asked.append(self.fetch())
            assert len(self.agent.asked) == 2 - same
            if same:
                self.finish(replies[0], data=DATA)
                for one in asked:
                    self.assert_bytes(self.result(one))
                self.delete()

    def test_no_descriptor_while_waiting(self) -> None:
        """A download that waits for its response holds no descriptor."""
        for stream in (False, True):
            self.build(stream=stream)
            silences, asked = [Silence() for _ in range(5)], []
            for at, silence in enumerate(silences):
                name = f"demo-{at}.0-py3-none-any.whl"
                self.pages.lists(entry(name, DATA))
                self.agent.at(FILES + name, silence)
                asked.append(self.fetch(name))
            assert (self.leftovers(), self.open_files()) == ([], [])
            for silence in silences:
                silence.answer(Reply(200, DATA))
            self.clock.advance(0)
            for each in asked:
                self.assert_bytes(self.result(each))
            assert self.open_files() == []
            self.result(self.mirror.clear())

    def test_small_file(self) -> None:
        """A small file is followed once it is whole, or at the deadline: wrong bytes don't show."""
        self.build(stream=True)
        self.listed(Reply(200, b"wrong"), Reply(200, DATA))
        self.assert_bytes(self.result(self.fetch()))
        self.delete()
        data = LARGE[:1600]
        self.listed(reply := slow(data), data=data)
        first, second = self.fetch(), self.fetch()
        reply.bring(data[:1590])
        self.pending(first)
        self.clock.advance(TIMEOUT)
        reading = self.read(first)
        assert reading.data == data[:1500]
        late = self.result(second)
        assert isinstance(late, Reader)
        late.close()
        self.finish(reply, 1590, data=data)
        self.assert_read(reading, data)
        self.assert_clean()

    def test_outcomes(self) -> None:
        """Files that are gone, too large, or not taken by the disk are counted as such."""
        self.listed(Reply(404))
        counted = Counted()
        self.error(self.fetch(), Exception)
        assert counted.since() == {"gone": 1}
        full, counted = self.fill_disk(), Counted()
        self.listed()
        self.assert_redirected(self.fetch())
        assert counted.since() == {"disk": 1}
        full.stop()
        self.build(capacity=len(DATA) - 1)
        for reply in (Reply(200, DATA, length=None), Reply(200, b"", whole=False, length=100_000)):
            counted = Counted()
            self.listed(reply, size=None)
            self.assert_redirected(self.fetch())
            assert counted.since() == {"too_large": 1}
            self.assert_nothing_cached()
        reply.bring(bytes(65_537))
        assert reply.closed


class Deleted(MirrorCase):
    """A download that is deleted goes on for its clients alone."""

    def test_without_clients(self) -> None:
        """A deleted download ends with its last reader, or at once if there is none."""
        self.build(stream=True)
        for left in (False, True):
            self.listed(reply := slow(LARGE), data=LARGE)
            first, second = self.begin(reply, MIB), self.read()
            first.hang_up()
            if left:
                second.hang_up()
            assert not reply.closed
            if left:
                self.result(self.mirror.clear())
            else:
                self.delete()
            second.hang_up()
            assert reply.closed
            self.assert_clean()
            assert self.cache_dir.quota.used == 0

    def test_waited_for(self) -> None:
        """A deleted download continues for a client that waits for the file; it is not cached."""
        self.build(stream=True)
        self.listed(reply := slow(LARGE), data=LARGE)
        reading = self.begin(reply, MIB)
        whole = run(self.mirror.whole("demo", NAME))
        counted = Counted()
        self.delete()
        reading.hang_up()
        self.finish(reply, MIB)
        self.assert_bytes(self.result(whole), LARGE)
        self.assert_clean()
        assert counted.since() == {"not_kept": 1}
        self.assert_nothing_cached()

    def test_before_its_response(self) -> None:
        """A download deleted before its response is not cached; the next request starts anew."""
        self.listed(silence := Silence())
        asked = self.fetch()
        self.delete()
        self.agent.at(URL, other := slow(DATA))
        self.pending(self.fetch())
        silence.answer(Reply(200, DATA))
        self.assert_bytes(self.result(asked))
        self.clock.advance(0)
        assert self.mirror.ready("demo", NAME) is None
        self.finish(other, data=DATA)
        self.assert_cached()
