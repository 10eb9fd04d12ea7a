"""Downloads: one for all clients of a file, which goes on for the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from proxpi.files.mirror import Prefetched
from proxpi.files.resolver import MissingUpstream
from proxpi.files.spool import Reader
from proxpi.upstream.connections import BACKGROUND_CONNECTIONS
from tests.support.agent import Reply, Silence
from tests.support.cases import FILES, MIB, entry, run, sha256
from tests.support.counted import Counted
from tests.support.logs import logged
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

    def test_uses(self) -> None:
        """Each client of a download is one use of the file, however small or large."""
        for stream in (False, True):
            for data in (DATA, LARGE):
                self.build(stream=stream)
                self.listed(reply := slow(data), data=data)
                asked = [self.fetch() for _ in range(3)]
                reply.bring(data[:1])
                readings = [self.read(each) for each in asked] if stream and data is LARGE else []
                self.finish(reply, 1, data)
                for reading in readings:
                    self.assert_read(reading, data)
                for each in asked if not readings else ():
                    self.assert_bytes(self.result(each), data)
                _, (file,) = self.cache_dir.eviction_index.snapshot()
                assert file.uses == 3, (stream, len(data))
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


class Background(MirrorCase):
    """A prefetched file is downloaded in the background, until a client joins."""

    def prefetch(self, filename: str = NAME) -> Deferred[Prefetched | None]:
        return run(self.mirror.prefetch("demo", filename))

    def assert_nothing_sent(self, filename: str = NAME) -> None:
        assert self.result(self.prefetch(filename)) is None
        assert self.agent.asked == []

    def assert_failed(self, background: Deferred[Prefetched | None]) -> None:
        """A request was sent, and what it brought is not cached."""
        found = self.result(background)
        assert found is not None and not found.cached

    @property
    def prefetched(self) -> int:
        return self.cache_dir.quota.prefetched

    def test_prefetched(self) -> None:
        """A prefetched file is a hit of its first client, which is its first use."""
        self.listed()
        counted = Counted()
        assert self.result(self.prefetch()) == Prefetched(len(DATA))
        assert counted.since() == {"kept": 1}
        assert self.prefetched == len(DATA)
        assert self.mirror.is_cached("demo", NAME)
        assert self.prefetched == len(DATA)
        self.assert_cached()
        assert self.prefetched == 0
        assert self.agent.urls() == [URL]
        self.assert_clean()

    def test_nothing_sent(self) -> None:
        """No request is sent for a file that is cached, not listed, or not admitted."""
        self.assert_nothing_sent()
        self.listed(cold=True)
        self.assert_nothing_sent()
        self.listed(url="https://../x.whl")
        self.assert_nothing_sent()
        self.listed(metadata=False)
        self.assert_nothing_sent(NAME + ".metadata")
        self.listed()
        self.assert_bytes(self.result(self.fetch()))
        self.agent.asked.clear()
        self.assert_nothing_sent()
        for settings in ({"capacity": 10 * len(DATA) - 1}, {"capacity": 0}, {"offline": True}):
            self.delete()
            self.build(**settings)
            self.listed()
            self.assert_nothing_sent()

    def test_under_way(self) -> None:
        """The download of a client is waited for, without another request if it fails."""
        for reply in (Reply(200, DATA), Reply(503)):
            self.listed(silence := Silence(), reply)
            asked, observed = self.fetch(), self.prefetch()
            silence.answer(reply)
            self.clock.advance(0)
            assert self.result(observed) is None
            assert (self.outcome(asked) == DATA) == (reply.status == 200)
            assert self.agent.urls() == [URL] * (1 if reply.status == 200 else 2)
            self.delete()

    def test_metadata_under_way(self) -> None:
        """Core metadata that is being extracted for a client is waited for as well."""
        name = NAME + ".metadata"
        self.listed(silence := Silence(), Reply(404), metadata=True)
        asked, observed = self.fetch(name), self.prefetch(name)
        assert self.agent.urls() == [URL + ".metadata", URL]
        self.pending(observed)
        silence.answer(Reply(404))
        assert self.result(observed) is None
        self.error(asked, MissingUpstream)
        assert self.agent.urls() == [URL + ".metadata", URL, URL]

    def test_observers(self) -> None:
        """A call that waits for the download of another one neither ends it nor keeps it going."""
        self.listed(silence := Silence())
        first, second, third = self.prefetch(), self.prefetch(), self.prefetch()
        second.cancel()
        self.error(second, CancelledError)
        self.pending(first)
        asked = self.fetch()
        asked.cancel()
        self.error(asked, CancelledError)
        assert not silence.cancelled
        self.delete()
        assert silence.cancelled
        self.assert_failed(first)
        assert self.result(third) is None

    def test_found(self) -> None:
        """A found file is verified as for a client; one with wrong bytes is downloaded."""
        for data, fetched in ((DATA, None), (DATA[:-1] + b"!", Prefetched(len(DATA)))):
            path = self.folder / "files-example/packages" / NAME
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            self.build()
            self.listed()
            asked = self.prefetch()
            self.run_threads()
            assert self.result(asked) == fetched
            assert self.agent.urls() == [URL] * (fetched is not None)
            self.assert_cached()
            self.delete()

    def test_their_part(self) -> None:
        """Files that are prefetched at a time have no more than their part of the quota."""
        self.build(capacity=20 * len(DATA))
        files = [f"demo-{number}.0-py3-none-any.whl" for number in range(3)]
        for name in files:
            self.pages.lists(entry(name, DATA))
            self.agent.at(FILES + name, slow(DATA))
        first, second, third = map(self.prefetch, files)
        self.pending(first)
        self.pending(second)
        assert self.result(third) is None
        assert self.agent.urls() == [FILES + name for name in files[:2]]

    def test_larger_than_listed(self) -> None:
        """A file that turns out to be larger than its part is given up, and nothing is evicted."""
        self.build(capacity=10 * len(DATA))
        self.listed()
        assert self.result(self.prefetch()) is not None
        for length in (None, len(DATA) + 1):
            name = "demo-2.0-py3-none-any.whl"
            self.pages.lists(entry(name, DATA, hashes={}, size=None))
            self.agent.at(FILES + name, Reply(200, bytes(len(DATA) + 1), length=length))
            with logged("proxpi.files") as log:
                self.assert_failed(self.prefetch(name))
            assert set(log.levels) <= {"debug", "info"}
            assert self.prefetched == len(DATA)
        self.assert_cached()
        self.assert_clean()

    def test_a_client_joins(self) -> None:
        """A client that joins gets the bytes of the one request, and its file counts as used."""
        for stream in (False, True):
            self.build(stream=stream)
            self.listed(reply := slow(DATA))
            background = self.prefetch()
            reply.bring(DATA[:5])
            assert self.prefetched == len(DATA)
            asked = self.fetch()
            assert self.prefetched == 0
            self.finish(reply, 5, data=DATA)
            self.assert_bytes(self.result(asked))
            assert self.result(background) == Prefetched(len(DATA))
            assert self.prefetched == 0
            assert self.agent.urls() == [URL]
            self.assert_clean()
            self.delete()

    def test_a_range_joins(self) -> None:
        """A range of the bytes that have arrived lifts the download that it reads."""
        self.listed(reply := slow(LARGE), data=LARGE)
        background = self.prefetch()
        reply.bring(LARGE[:MIB])
        reading = self.read(self.range("100-1999999"))
        assert self.prefetched == 0
        self.finish(reply, MIB)
        assert reading.data == LARGE[100:]
        assert self.result(background) == Prefetched(len(LARGE))

    def test_redirect(self) -> None:
        """A client that joins is redirected at its deadline; the download goes on as any other."""
        self.listed(reply := slow(DATA))
        background = self.prefetch()
        self.clock.advance(10 * TIMEOUT)
        asked = self.fetch()
        self.clock.advance(TIMEOUT - 0.01)
        self.pending(asked)
        self.clock.advance(0.01)
        self.assert_redirected(asked)
        background.cancel()
        self.error(background, CancelledError)
        self.finish(reply, data=DATA)
        self.assert_cached()
        assert self.prefetched == 0

    def test_connections(self) -> None:
        """Downloads beyond those in the background wait; one that a client joins does not."""
        files = [f"demo-{number}.0-py3-none-any.whl" for number in range(10)]
        for name in files:
            self.pages.lists(entry(name, DATA))
            self.agent.at(FILES + name, slow(DATA))
            self.prefetch(name)
        assert len(self.agent.asked) == BACKGROUND_CONNECTIONS
        self.fetch(files[9])
        assert self.agent.urls()[BACKGROUND_CONNECTIONS:] == [FILES + files[9]]

    def test_failures(self) -> None:
        """A failure is not retried, nor logged as an error; the next client gets what it would."""
        replies: list[Reply | Exception] = [
            Reply(503),
            Reply(429, headers={"Retry-After": "1"}),
            Reply(404),
            Reply(200, b"wrong"),
            Reply(200, DATA[:5], length=len(DATA), ends=ConnectionResetError),
            ConnectionRefusedError(),
        ]
        for reply in replies:
            self.listed(reply, Reply(200, DATA))
            with logged("proxpi.files") as log:
                self.assert_failed(self.prefetch())
            assert self.agent.urls() == [URL], reply
            assert set(log.levels) <= {"debug", "info"}, (reply, log.text)
            self.assert_nothing_cached()
            self.assert_bytes(self.result(self.fetch()))
            self.delete()

    def test_failures_for_a_client(self) -> None:
        """A client that joins before a failure gets what it would get without prefetching."""
        scripts: list[list[Reply]] = [
            [Reply(503), Reply(200, DATA)],
            [Reply(503), Reply(503), Reply(200, DATA)],
            [Reply(200, b"wrong"), Reply(200, DATA)],
            [Reply(200, b"wrong"), Reply(200, b"wrong"), Reply(200, DATA)],
            [Reply(404)],
            [Reply(403)],
        ]
        for script in scripts:
            for stream in (False, True):
                outcomes = []
                for prefetched in (False, True):
                    self.build(stream=stream)
                    self.listed(silence := Silence(), *script[1:])
                    background = self.prefetch() if prefetched else None
                    asked = self.fetch()
                    with logged("proxpi.files") as log:
                        silence.answer(script[0])
                    self.clock.advance(1)
                    outcomes.append((self.outcome(asked), log.levels, len(self.agent.asked)))
                    if background is not None:
                        found = self.result(background)
                        assert found is not None and found.cached == (outcomes[1][0] == DATA)
                    self.assert_clean()
                    self.delete()
                assert outcomes[0] == outcomes[1], script

    def outcome(self, asked: Deferred[Any]) -> object:
        """Return the bytes that a client gets, or what it is told."""
        outcome: list[Any] = []
        asked.addErrback(lambda failure: failure.type)
        asked.addCallback(outcome.append)
        [found] = outcome
        if hasattr(found, "close"):
            self.assert_bytes(found)
            return DATA
        return found

    def test_gone(self) -> None:
        """A file that is gone is looked for on a fresh page for a client alone."""
        self.listed(Reply(404))
        self.assert_failed(self.prefetch())
        assert self.pages.refetched == []
        self.listed(silence := Silence())
        background, asked = self.prefetch(), self.fetch()
        silence.answer(Reply(404))
        self.error(asked, MissingUpstream)
        self.assert_failed(background)
        assert self.pages.refetched == [("demo", NAME)]

    def test_metadata(self) -> None:
        """Core metadata that is gone is taken out of its wheel for a client alone."""
        name = NAME + ".metadata"
        self.listed(metadata={"sha256": sha256(DATA)})
        self.agent.at(URL + ".metadata", Reply(200, DATA))
        assert self.result(self.prefetch(name)) == Prefetched(len(DATA))
        self.assert_cached(name)
        self.delete()
        self.agent.at(URL + ".metadata", Reply(404))
        self.agent.asked.clear()
        self.assert_failed(self.prefetch(name))
        assert self.agent.urls() == [URL + ".metadata"]
        assert self.pages.suppressed == []
        self.agent.at(URL + ".metadata", silence := Silence())
        background, asked = self.prefetch(name), self.fetch(name)
        silence.answer(Reply(404))
        self.run_threads()
        self.error(asked, MissingUpstream)
        self.assert_failed(background)
        assert self.pages.suppressed == [("demo", NAME)]

    def abandon(self, end: Callable[[Deferred[Any]], object]) -> Iterator[Deferred[Any]]:
        """End a download before its response, and amid it; no partial file may be left."""
        for reply in (Silence(), slow(LARGE)):
            self.listed(reply, data=LARGE)
            counted = Counted()
            background = self.prefetch()
            if isinstance(reply, Reply):
                reply.bring(LARGE[:MIB])
                assert self.leftovers() != []
            end(background)
            assert reply.closed if isinstance(reply, Reply) else reply.cancelled
            assert counted.since() == {"not_kept": 1}
            self.assert_clean()
            self.assert_nothing_cached()
            assert self.cache_dir.quota.used == 0
            yield background

    def test_deleted(self) -> None:
        """A download in the background ends when its file is deleted."""
        for end in (self.delete, lambda: self.result(self.mirror.clear())):
            for background in self.abandon(lambda _, end=end: end()):  # type: ignore[misc]
                self.assert_failed(background)

    def test_cancelled(self) -> None:
        """A download ends with the call that prefetches it, unless a client has joined."""
        for background in self.abandon(lambda each: each.cancel()):
            self.error(background, CancelledError)
        self.listed(reply := slow(DATA))
        background, asked = self.prefetch(), self.fetch()
        background.cancel()
        self.error(background, CancelledError)
        self.finish(reply, data=DATA)
        self.assert_bytes(self.result(asked))

    def test_full_disk(self) -> None:
        """A full disk ends a download silently; its client is redirected as without prefetching."""
        self.listed(reply := slow(DATA))
        background = self.prefetch()
        full = self.fill_disk()
        with logged("proxpi.files") as log:
            reply.bring(DATA)
        self.assert_failed(background)
        assert set(log.levels) <= {"debug", "info"}
        full.stop()
        self.assert_nothing_cached()
        self.listed(reply := slow(DATA))
        background, asked = self.prefetch(), self.fetch()
        full = self.fill_disk()
        reply.bring(DATA)
        self.assert_redirected(asked)
        self.assert_failed(background)
        full.stop()
        self.assert_clean()
