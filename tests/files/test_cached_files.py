"""Cached files: found ones are compared with their page, those without a digest revalidated."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from proxpi.files.cache_dir import OpenFile
from proxpi.files.spool import Reader
from tests.support.agent import Reply, Silence
from tests.support.cases import at_once, entry, sha256
from tests.support.logs import logged
from tests.support.mirrors import DATA, NAME, TIMEOUT, URL, MirrorCase

NEW = b"the bytes of a wheel that was uploaded again"
TTL = 1800.0
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
LATER = "Sun, 06 Nov 1994 09:00:00 GMT"
TAG, OTHER = {"ETag": '"x"'}, {"ETag": '"y"'}


class Found(MirrorCase):
    """A found file is served once it was compared with its page."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.folder / "files-example/packages" / NAME
        self.path.parent.mkdir(parents=True)
        self.lay(DATA)

    def lay(self, data: bytes, **keys: Any) -> None:
        self.path.write_bytes(data)
        self.build()
        self.listed(**keys)

    def serve(self, data: bytes = DATA, *, hit: bool = False) -> None:
        asked = self.fetch()
        self.run_threads()
        file = self.result(asked)
        assert isinstance(file, OpenFile) and file.fetched is not hit
        self.assert_bytes(file, data)

    def test_checked_once(self) -> None:
        """A found file is read in a thread, once for all clients, however long that takes."""
        assert self.mirror.ready("demo", NAME) is None
        asked = [self.fetch() for _ in range(3)]
        self.clock.advance(TIMEOUT + 1)
        self.pending(asked[0])
        assert self.run_threads() == 1
        for one in asked:
            self.assert_bytes(self.result(one))
        self.assert_cached()
        assert (self.threads, self.agent.asked) == ([], [])

    def test_wrong(self) -> None:
        """Wrong bytes are replaced by those of the upstream, and never served without it."""
        self.lay(b"x" * len(DATA))
        self.serve()
        assert (self.path.read_bytes(), self.agent.urls()) == (DATA, [URL])
        self.lay(b"wrong")
        self.agent.at(URL, Reply(503))
        asked = self.fetch()
        self.run_threads()
        self.assert_redirected(asked)
        assert not self.path.exists()

    def test_changed_later(self) -> None:
        """A file that shrinks or vanishes under the process is a miss, and is fetched anew."""
        for change in (lambda: self.path.write_bytes(DATA[:3]), lambda: self.path.unlink()):
            self.serve(hit=self.agent.asked == [])
            change()
            assert self.mirror.ready("demo", NAME) is None
            self.serve()
            assert self.agent.urls().pop() == URL
            self.agent.asked.clear()
            self.lay(DATA)

    def test_without_digest(self) -> None:
        """A found file without a digest is revalidated by its time, at most once per TTL."""
        self.clock.advance(1_800_000_000)
        for other in (False, True):
            self.lay(DATA, hashes={})
            new = bytes(reversed(DATA)) if other else DATA
            modified = {"Last-Modified": "Sun, 06 Nov 2095 08:49:37 GMT"}
            self.agent.at(URL, Reply(200, new, modified) if other else Reply(304))
            asked = self.fetch()
            self.run_threads()
            self.assert_bytes(self.result(asked), new)
            [first, *more] = self.agent.asked
            assert first.header("If-Modified-Since") and len(more) == other
            self.assert_cached(data=new)


class CachedCase(MirrorCase):
    """Tests of a wheel without a digest, which is cached."""

    def in_thread(self, work: Any) -> Deferred[Any]:
        return at_once(work)

    def page(self, data: bytes = DATA, **keys: Any) -> None:
        self.pages.lists(entry(NAME, data, **{"hashes": {}, **keys}))

    def cache(self, headers: dict[str, str] | None = None, filename: str = NAME) -> None:
        self.delete()
        self.agent.at(URL + filename.removeprefix(NAME), Reply(200, DATA, headers or {}))
        self.assert_serves(DATA, filename)

    def assert_serves(self, data: bytes, filename: str = NAME, asked: int | None = None) -> None:
        before = len(self.agent.asked)
        self.assert_bytes(self.result(self.fetch(filename)), data)
        if asked is not None:
            assert len(self.agent.asked) - before == asked

    def restart(self) -> None:
        self.cache_dir.close()
        self.build()


class OnThePage(CachedCase):
    """The page tells that it is another file."""

    def test_another_version(self) -> None:
        """Another size, time, metadata digest or unusable hash means another file, for good."""
        time, later = "2024-01-01T00:00:00Z", "2024-01-01T00:00:01Z"
        stated: dict[str, Any] = {
            "size": None,
            "upload-time": time,
            "metadata": {"sha256": "0" * 64},
            "hashes": {"md4": "0" * 32},
        }
        cases: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
            ("", stated, {"size": len(NEW)}),
            ("", stated, {"upload-time": later}),
            ("", stated, {"metadata": {"sha256": "1" * 64}}),
            ("", stated, {"metadata": {"sha256": "0" * 64, "sha512": "1" * 128}}),
            ("", stated, {"hashes": {"md4": "1" * 32}}),
            ("", stated, {"size": len(NEW), "upload-time": None}),
        ]
        # A companion without a digest of its own goes with the version of its file.
        for suffix, keys in ((".metadata", {"metadata": True}), (".asc", {"gpg-sig": True})):
            hashes = {**keys, "hashes": {"sha256": sha256(DATA)}}
            cases.append((suffix, hashes, {"hashes": {"sha256": sha256(NEW)}}))
            cases.append((suffix, {**keys, "size": 5}, {"size": 6}))
            cases.append((suffix, {**keys, "upload-time": time}, {"upload-time": later}))
        for suffix, before, changed in cases:
            name = NAME + suffix
            for restarted in (False, True):
                self.page(**before)
                self.cache(filename=name)
                if restarted:
                    self.restart()
                self.assert_serves(DATA, name, asked=0)
                self.page(**{**before, **changed})
                self.agent.at(URL + suffix, Reply(200, NEW))
                assert self.mirror.ready("demo", name) is None
                self.assert_serves(NEW, name, asked=1)
                self.assert_serves(NEW, name, asked=0)

    def test_same_version(self) -> None:
        """Keys that say nothing of the bytes, or any key beside a digest, make no other file."""
        digest = {"hashes": {"sha256": sha256(DATA)}}
        cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
            ({}, {"yanked": "broken"}),
            ({}, {"metadata": True}),
            (digest, {**digest, "size": 3, "upload-time": "2024-01-01T00:00:00Z"}),
        ]
        for before, after in cases:
            self.page(**before)
            self.cache()
            self.page(**after)
            self.assert_serves(DATA, asked=0)

    def test_found(self) -> None:
        """A found file is taken for the version that the page names then."""
        path = self.folder / "files-example/packages" / NAME
        path.parent.mkdir(parents=True)
        path.write_bytes(DATA)
        self.page(metadata={"sha256": "0" * 64})
        self.assert_serves(DATA, asked=0)
        self.page(metadata={"sha256": "1" * 64})
        self.agent.at(URL, Reply(200, NEW[: len(DATA)]))
        self.assert_serves(NEW[: len(DATA)], asked=1)


class Revalidated(CachedCase):
    """The page says nothing new: the upstream is asked, at most once per time to live."""

    def setUp(self) -> None:
        super().setUp()
        self.page(size=None)

    def conditions(self) -> tuple[str | None, str | None]:
        asked = self.agent.asked[-1]
        return asked.header("If-None-Match"), asked.header("If-Modified-Since")

    def test_unchanged(self) -> None:
        """A 304 confirms the version for another time to live, also over a restart."""
        cases: list[tuple[dict[str, str], tuple[str | None, str | None]]] = [
            (TAG, ('"x"', None)),
            ({"ETag": 'W/"x y=%"'}, ('W/"x y=%"', None)),
            ({"Last-Modified": DATE}, (None, DATE)),
            ({**TAG, "Last-Modified": DATE}, ('"x"', DATE)),
            ({"Date": DATE}, (None, DATE)),
        ]
        for headers, expected in cases:
            for restarted in (False, True):
                self.cache(headers)
                self.agent.at(URL, Reply(304))
                for _ in range(2):
                    self.clock.advance(TTL - 1)
                    if restarted:
                        self.restart()
                    self.assert_serves(DATA, asked=0)
                    self.clock.advance(1)
                    assert self.mirror.ready("demo", NAME) is None
                    self.assert_serves(DATA, asked=1)
                    assert self.conditions() == expected
        self.assert_bytes(self.result(self.head()))

    def test_changed(self) -> None:
        """Another version is fetched, once, and takes the place of the cached one."""
        for stream in (False, True):
            for old, new in (
                (TAG, OTHER),
                ({"Last-Modified": DATE}, {"Last-Modified": LATER}),
                (TAG, {}),
                # Only the bytes would tell whether it is the same, not even the same second.
                ({"Date": DATE}, {"Date": DATE}),
            ):
                self.build(stream=stream)
                self.cache(old)
                self.clock.advance(TTL)
                self.agent.at(URL, Reply(200, NEW, new))
                self.assert_serves(NEW, asked=2)
                self.assert_serves(NEW, asked=0)
                self.clock.advance(0)
                assert self.open_files() == []

    def test_no_conditions_upstream(self) -> None:
        """An upstream that ignores conditions confirms the version by repeating its validators."""
        self.cache(TAG)
        large = Reply(200, DATA, TAG, whole=False, length=5_000_000)
        self.agent.at(URL, large)
        self.clock.advance(TTL)
        self.assert_serves(DATA, asked=1)
        large.bring(bytes(70_000))
        assert large.closed
        self.assert_serves(DATA, asked=0)

    def test_failing(self) -> None:
        """While the upstream fails, the cached version is served; it is asked once a minute."""
        failures: list[Reply | Exception] = [ConnectionRefusedError(), ConnectionResetError()]
        failures += map(Reply, (401, 403, 404, 410, 412, 429, 451, 500, 503))
        for failure in failures:
            for stream in (False, True):
                self.build(stream=stream)
                self.cache(TAG)
                self.agent.at(URL, failure)
                self.clock.advance(TTL)
                with logged("proxpi.problems") as log:
                    self.assert_serves(DATA, asked=1)
                assert "the cached version is served" in log.text
                self.clock.advance(59)
                self.assert_serves(DATA, asked=0)
                self.clock.advance(1)
                self.assert_serves(DATA, asked=1)
                self.clock.advance(60)
                self.agent.at(URL, Reply(304))
                self.assert_serves(DATA, asked=1)
                self.clock.advance(TTL - 1)
                self.assert_serves(DATA, asked=0)

    def test_silent(self) -> None:
        """A silent upstream is waited for 5 seconds by the first clients, and not by later ones."""
        self.cache(TAG)
        self.agent.at(URL, silence := Silence())
        self.clock.advance(TTL)
        first, second = self.fetch(), self.fetch()
        self.clock.advance(4.9)
        self.pending(first)
        self.clock.advance(0.2)
        for asked in (first, second, self.fetch()):
            self.assert_bytes(self.result(asked))
        assert len(self.agent.asked) == 2
        silence.answer(Reply(304))
        self.assert_serves(DATA, asked=0)

    def test_new_version_fails(self) -> None:
        """If another version is announced and does not arrive, the cached one is served."""
        for stream in (False, True):
            for broken in (Reply(503), Reply(200, b"", length=5), Reply(200, NEW[:9], length=44)):
                self.build(stream=stream)
                self.cache(TAG)
                self.agent.at(URL, Reply(200, NEW, OTHER), broken)
                self.clock.advance(TTL)
                found = self.result(self.fetch())
                if isinstance(found, Reader):  # it has begun
                    assert found.cut
                    found = self.result(self.fetch())
                self.assert_bytes(found, DATA)
                assert self.mirror.ready("demo", NAME) is None, "it is outdated"
                self.agent.at(URL, Reply(200, NEW, OTHER))
                self.assert_serves(NEW, asked=1)

    def test_never_asked(self) -> None:
        """Files without validators, or with a digest, and any file while offline, stay fresh."""
        self.cache()
        self.clock.advance(10 * TTL)
        self.assert_serves(DATA, asked=0)
        self.cache(TAG)
        self.clock.advance(10 * TTL)
        self.cache_dir.close()
        self.build(offline=True)
        self.assert_serves(DATA, asked=0)
        self.build()
        self.pages.lists(entry(NAME, DATA))
        self.assert_serves(DATA, asked=0)

    def test_deleted(self) -> None:
        """A version that was deleted is not served in place of one that does not arrive."""
        self.cache(TAG)
        self.agent.at(URL, Reply(200, NEW, OTHER), Reply(503))
        self.clock.advance(TTL)
        self.assert_serves(DATA)
        self.delete()
        self.assert_redirected(self.fetch())

    def test_fetched_anew_meanwhile(self) -> None:
        """A revalidation that ends after its file was deleted says nothing of a newer one."""
        for late in (Reply(200, NEW, OTHER), Reply(304), Reply(503)):
            self.cache(TAG)
            self.agent.at(URL, silence := Silence())
            self.clock.advance(TTL)
            first = self.fetch()
            self.delete()
            self.agent.at(URL, Reply(200, NEW, OTHER))
            self.assert_serves(NEW)
            before = len(self.agent.asked)
            silence.answer(late)
            self.assert_bytes(self.result(first), NEW)
            assert len(self.agent.asked) == before
            self.clock.advance(TTL - 1)
            self.assert_serves(NEW, asked=0)
