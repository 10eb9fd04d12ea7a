"""Files that no digest tells apart: which version is cached, and whether it is current."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from proxpi.files.cache_dir import OpenFile
from proxpi.files.mirror import Redirect
from proxpi.files.spool import Reader
from tests.files.mirrored import DATA, NAME, URL, MirrorCase
from tests.support.agent import Reply, Silence
from tests.support.cases import at_once, entry, sha256
from tests.support.logs import logged

NEW = b"the bytes of a wheel that was uploaded again"
TTL = 1800.0
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
LATER = "Sun, 06 Nov 1994 09:00:00 GMT"
SIDECAR, SIGNATURE = NAME + ".metadata", NAME + ".asc"
TAG = {"ETag": '"x"'}


class IdentityCase(MirrorCase):
    """Tests of a wheel without a digest, which is cached."""

    def in_thread(self, work: Any) -> Deferred[Any]:
        """Check found files at once."""
        return at_once(work)

    def page(self, data: bytes = DATA, **keys: Any) -> None:
        """Let the page list the wheel so."""
        self.locate.lists(entry(NAME, data, **{"hashes": {}, **keys}))

    def cache(self, data: bytes = DATA, filename: str = NAME, **headers: Any) -> None:
        """Let a file be cached, with validators."""
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        self.internet.at(URL + filename.removeprefix(NAME), Reply(200, data, told))
        self.assert_gives(data, filename)
        self.internet.asked.clear()

    def assert_gives(self, data: bytes, filename: str = NAME, asked: int | None = None) -> None:
        """Check that a client gets these bytes, and how many requests that takes."""
        before = len(self.internet.asked)
        self.assert_bytes(self.result(self.fetch(filename)), data)
        if asked is not None:
            assert len(self.internet.asked) - before == asked

    def restart(self, **keys: Any) -> None:
        """Let another process go on with the folder."""
        self.cache_dir.close()
        self.build(**keys)


class OnThePage(IdentityCase):
    """The page says that it is another file."""

    def test_another_version(self) -> None:
        """Another size, time, metadata digest or unusable hash means another file, for good."""
        told: dict[str, Any] = {
            "size": None,
            "upload-time": "2024-01-01T00:00:00Z",
            "metadata": {"sha256": "0" * 64},
            "hashes": {"md4": "0" * 32},
        }
        changes: list[dict[str, Any]] = [
            {"size": len(NEW)},
            {"upload-time": "2024-01-01T00:00:01Z"},
            {"metadata": {"sha256": "1" * 64}},
            {"metadata": {"sha256": "0" * 64, "sha512": "1" * 128}},
            {"hashes": {"md4": "1" * 32}},
            {"size": len(NEW), "upload-time": None},
        ]
        for changed in changes:
            for restarted in (False, True):
                self.page(**told)
                self.mirror.delete("demo", NAME)
                self.cache()
                self.assert_gives(DATA, asked=0)
                if restarted:
                    self.restart()
                    self.assert_gives(DATA, asked=0)
                self.page(**{**told, **changed})
                self.internet.at(URL, Reply(200, NEW))
                assert self.mirror.ready("demo", NAME) is None
                self.assert_gives(NEW, asked=1)
                self.assert_gives(NEW, asked=0)

    def test_same_version(self) -> None:
        """What says nothing of the bytes makes no other file."""
        self.page()
        self.cache()
        told: list[dict[str, Any]] = [{"yanked": "broken"}, {"metadata": True}]
        for same in told:
            self.page(**same)
            self.assert_gives(DATA, asked=0)

    def test_beside_another_version(self) -> None:
        """What lies beside a file without a digest of its own goes with the file's version."""
        told: list[tuple[str, dict[str, Any]]] = [
            (SIDECAR, {"metadata": True}),
            (SIGNATURE, {"gpg-sig": True}),
        ]
        for filename, beside in told:
            versions: list[tuple[dict[str, Any], dict[str, Any]]] = [
                ({"hashes": {"sha256": sha256(DATA)}}, {"hashes": {"sha256": sha256(NEW)}}),
                ({"size": 5}, {"size": 6}),
                ({"upload-time": "2024-01-01T00:00:00Z"}, {"upload-time": "2025-01-01T00:00:00Z"}),
            ]
            for old, new in versions:
                self.page(**{**beside, **old})
                self.mirror.delete("demo", NAME)
                self.cache(b"Version: 1\n", filename)
                self.assert_gives(b"Version: 1\n", filename, asked=0)
                self.restart()
                self.assert_gives(b"Version: 1\n", filename, asked=0)
                self.page(**{**beside, **new})
                self.internet.at(URL + filename.removeprefix(NAME), Reply(200, b"Version: 1.1\n"))
                self.assert_gives(b"Version: 1.1\n", filename, asked=1)
                self.assert_gives(b"Version: 1.1\n", filename, asked=0)

    def test_found(self) -> None:
        """A file that was found is taken for the version that the page names then."""
        path = self.folder / "files-example/packages" / NAME
        path.parent.mkdir(parents=True)
        path.write_bytes(DATA)
        self.page(metadata={"sha256": "0" * 64})
        self.assert_gives(DATA, asked=0)
        self.page(metadata={"sha256": "1" * 64})
        self.internet.at(URL, Reply(200, NEW[: len(DATA)]))
        self.assert_gives(NEW[: len(DATA)], asked=1)

    def test_with_a_digest(self) -> None:
        """What has a digest is the same file whatever else the page says of it."""
        self.listed()
        self.assert_gives(DATA)
        told: dict[str, Any] = {"size": 3, "upload-time": "2024-01-01T00:00:00Z"}
        self.locate.lists(entry(NAME, DATA, **told))
        self.assert_gives(DATA, asked=0)


class Revalidation(IdentityCase):
    """The page says nothing new: the upstream is asked, at most once per time to live."""

    def setUp(self) -> None:
        """List it."""
        super().setUp()
        self.page(size=None)

    def conditions(self) -> tuple[str | None, str | None]:
        """Give the conditions of the last request."""
        asked = self.internet.asked[-1]
        assert asked.method == "GET"
        return asked.header("If-None-Match"), asked.header("If-Modified-Since")

    def test_unchanged(self) -> None:
        """A 304 confirms the cached version for another time to live, also over a restart."""
        cases: list[tuple[dict[str, Any], tuple[str | None, str | None]]] = [
            ({"ETag": '"x"'}, ('"x"', None)),
            ({"ETag": 'W/"x y=%"'}, ('W/"x y=%"', None)),
            ({"Last_Modified": DATE}, (None, DATE)),
            ({"ETag": '"x"', "Last_Modified": DATE}, ('"x"', DATE)),
        ]
        for headers, expected in cases:
            for restarted in (False, True):
                self.mirror.delete("demo", NAME)
                self.cache(**headers)
                self.internet.at(URL, Reply(304))
                for _ in range(3):
                    self.clock.advance(TTL - 1)
                    if restarted:
                        self.restart()
                    self.assert_gives(DATA, asked=0)
                    self.clock.advance(1)
                    assert self.mirror.ready("demo", NAME) is None
                    self.assert_gives(DATA, asked=1)
                    assert self.conditions() == expected
                    self.assert_gives(DATA, asked=0)

    def test_no_validators(self) -> None:
        """A file that came without validators is revalidated by the date of its response."""
        self.cache(Date=DATE)
        self.clock.advance(TTL - 1)
        self.assert_gives(DATA, asked=0)
        self.clock.advance(1)
        self.internet.at(URL, Reply(304))
        self.assert_gives(DATA, asked=1)
        assert self.conditions() == (None, DATE)
        self.clock.advance(TTL)
        # Nothing but the bytes tells whether it is the same, not even the same second.
        self.internet.at(URL, Reply(200, NEW, {"Date": DATE}))
        self.assert_gives(NEW, asked=2)
        self.assert_gives(NEW, asked=0)

    def test_changed(self) -> None:
        """Another version is fetched, once, and takes the place of the cached one."""
        for stream in (False, True):
            cases: list[tuple[dict[str, Any], dict[str, str]]] = [
                ({"ETag": '"x"'}, {"ETag": '"y"'}),
                ({"Last_Modified": DATE}, {"Last-Modified": LATER}),
                ({"ETag": '"x"'}, {}),
            ]
            for old, new in cases:
                self.build(stream=stream)
                self.mirror.delete("demo", NAME)
                self.cache(**old)
                self.clock.advance(TTL)
                self.internet.at(URL, Reply(200, NEW, new))
                self.assert_gives(NEW)
                self.assert_gives(NEW, asked=0)
                self.clock.advance(0)
                assert self.open_files() == []

    def test_no_conditions_upstream(self) -> None:
        """An upstream that ignores conditions confirms the version by repeating its validators."""
        self.cache(ETag='"x"')
        large = Reply(200, DATA, TAG, whole=False, length=5_000_000)
        self.internet.at(URL, large)
        self.clock.advance(TTL)
        self.assert_gives(DATA, asked=1)
        large.bring(bytes(70_000))
        assert large.closed
        self.assert_gives(DATA, asked=0)

    def test_failing(self) -> None:
        """While the upstream fails, the cached version is served; it is asked once a minute."""
        failures: list[Reply | Exception] = [ConnectionRefusedError(), ConnectionResetError()]
        failures += map(Reply, (401, 403, 404, 410, 412, 429, 451, 500, 503))
        for failure in failures:
            for stream in (False, True):
                self.build(stream=stream)
                self.mirror.delete("demo", NAME)
                self.cache(ETag='"x"')
                self.internet.at(URL, failure)
                self.clock.advance(TTL)
                with logged("proxpi.files") as log:
                    self.assert_gives(DATA, asked=1)
                assert "the cached version is served" in log.text
                self.clock.advance(59)
                self.assert_gives(DATA, asked=0)
                self.clock.advance(1)
                self.assert_gives(DATA, asked=1)
                self.clock.advance(60)
                self.internet.at(URL, Reply(304))
                self.assert_gives(DATA, asked=1)
                self.clock.advance(TTL - 1)
                self.assert_gives(DATA, asked=0)

    def test_silent(self) -> None:
        """A silent upstream is waited for 5 seconds by the first clients, and not by later ones."""
        self.cache(ETag='"x"')
        self.internet.at(URL, silence := Silence())
        self.clock.advance(TTL)
        first, second = self.fetch(), self.fetch()
        self.clock.advance(4.9)
        self.pending(first)
        self.clock.advance(0.2)
        for asked in (first, second, self.fetch()):
            self.assert_bytes(self.result(asked))
        assert len(self.internet.asked) == 1
        silence.answer(Reply(304))
        self.assert_gives(DATA, asked=0)

    def test_new_version_not_to_be_had(self) -> None:
        """If another version is announced and does not come, the cached one is served."""
        for stream in (False, True):
            for broken in (Reply(503), Reply(200, b"", length=5), Reply(200, NEW[:9], length=44)):
                self.build(stream=stream)
                self.mirror.delete("demo", NAME)
                self.cache(ETag='"x"')
                self.internet.at(URL, Reply(200, NEW, {"ETag": '"y"'}), broken)
                self.clock.advance(TTL)
                found = self.result(self.fetch())
                if isinstance(found, Reader):  # it has begun
                    assert found.cut
                    found = self.result(self.fetch())
                self.assert_bytes(found, DATA)
                self.internet.at(URL, Reply(200, NEW, {"ETag": '"y"'}))
                self.assert_gives(NEW, asked=1)

    def test_takes_long(self) -> None:
        """A client does not wait for another version longer than for any file."""
        self.cache(ETag='"x"')
        slow = Reply(200, b"", {"ETag": '"y"'}, whole=False, length=len(NEW))
        self.internet.at(URL, Reply(200, NEW, {"ETag": '"y"'}), slow)
        self.clock.advance(TTL)
        asked = self.fetch()
        self.clock.advance(1)
        assert self.result(asked) == Redirect(URL)
        slow.bring(NEW)
        slow.end()
        self.assert_gives(NEW, asked=0)

    def test_never_asked(self) -> None:
        """What has no validators, or a digest, is not asked for, nor is anything while offline."""
        self.cache()
        self.clock.advance(10 * TTL)
        self.assert_gives(DATA, asked=0)
        self.mirror.delete("demo", NAME)
        self.cache(ETag='"x"')
        self.clock.advance(10 * TTL)
        self.upstream.offline = True
        self.assert_gives(DATA, asked=0)
        self.upstream.offline = False
        self.locate.lists(entry(NAME, DATA))
        self.assert_gives(DATA, asked=0)

    def test_head(self) -> None:
        """``HEAD`` tells of the current version."""
        self.cache(ETag='"x"')
        self.internet.at(URL, Reply(304))
        self.clock.advance(TTL)
        found = self.result(Deferred.fromCoroutine(self.mirror.head("demo", NAME)))
        assert isinstance(found, OpenFile)
        self.assert_bytes(found)

    def test_forgotten(self) -> None:
        """A version that was deleted is not served in place of the one that does not come."""
        self.cache(ETag='"x"')
        self.internet.at(URL, Reply(200, NEW, {"ETag": '"y"'}), Reply(503))
        self.clock.advance(TTL)
        self.assert_gives(DATA)
        self.mirror.delete("demo", NAME)
        self.assert_sent_to(self.fetch())

    def test_fetched_anew_meanwhile(self) -> None:
        """A revalidation that ends after its file was deleted says nothing of a newer one."""
        for late in (Reply(200, NEW, {"ETag": '"y"'}), Reply(304), Reply(503)):
            self.mirror.delete("demo", NAME)
            self.cache(ETag='"x"')
            self.internet.at(URL, silence := Silence())
            self.clock.advance(TTL)
            first = self.fetch()
            self.mirror.delete("demo", NAME)
            self.internet.at(URL, Reply(200, NEW, {"ETag": '"y"'}))
            self.assert_gives(NEW)
            before = len(self.internet.asked)
            silence.answer(late)
            self.assert_bytes(self.result(first), NEW)
            assert len(self.internet.asked) == before
            self.clock.advance(TTL - 1)
            self.assert_gives(NEW, asked=0)
