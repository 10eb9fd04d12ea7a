"""The mirror: from where a client gets a file, when it is redirected, and what fails how."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from proxpi.files.cache_dir import CacheDir
from proxpi.files.mirror import FileHead, RangeStep, Step, plan, plan_range
from proxpi.files.resolver import MissingUpstream
from proxpi.simple.caching import Span, Unsatisfiable
from proxpi.upstream.errors import Offline, UpstreamFailed
from tests.support.agent import Reply, Silence
from tests.support.cases import FILES, entry, run, sha256
from tests.support.logs import logged
from tests.support.mirrors import DATA, NAME, TIMEOUT, URL, MirrorCase, slow

NEW = FILES + "signed/anew/" + NAME


@pytest.mark.parametrize(
    ("facts", "redirected", "otherwise"),
    [
        ("", Step.REDIRECT, Step.PASS_THROUGH),
        ("admitted", Step.WAIT, Step.FOLLOW),
        ("metadata", Step.WAIT, Step.WAIT_LONG),
        ("admitted metadata", Step.WAIT, Step.WAIT_LONG),
        ("admitted failed", Step.REDIRECT, Step.PASS_THROUGH),
        ("metadata failed", Step.REDIRECT, Step.PASS_THROUGH),
    ],
)
def test_plan(facts: str, redirected: Step, otherwise: Step) -> None:
    """The table of :func:`plan`, with redirects on and off."""
    given = {name: name in facts for name in ("admitted", "metadata", "failed")}
    assert plan(redirects=True, **given) is redirected
    assert plan(redirects=False, **given) is otherwise


@pytest.mark.parametrize(
    ("size", "span", "download", "confirmed", "otherwise"),
    [
        (None, None, {}, RangeStep.CUT, RangeStep.LENGTH),
        (9, Unsatisfiable(9), {}, RangeStep.REFUSE, RangeStep.LENGTH),
        (9, None, {}, RangeStep.WHOLE, RangeStep.WHOLE),
        (9, Span(0, 9), {}, RangeStep.CUT, RangeStep.CUT),
        (9, Span(3, 9), {}, RangeStep.RANGE, RangeStep.RANGE),
        (9, Span(3, 9), {"end": 9, "readable": 4}, RangeStep.JOIN, RangeStep.JOIN),
        (9, Span(0, 9), {"end": 9, "readable": 4}, RangeStep.JOIN, RangeStep.JOIN),
        (9, Span(3, 9), {"end": 9, "readable": 3}, RangeStep.RANGE, RangeStep.RANGE),
        (9, Span(3, 9), {"end": 8, "readable": 4}, RangeStep.RANGE, RangeStep.RANGE),
        (9, Span(3, 9), {"readable": 4}, RangeStep.RANGE, RangeStep.RANGE),
    ],
)
def test_plan_range(
    size: int | None, span: Any, download: Any, confirmed: RangeStep, otherwise: RangeStep
) -> None:
    """The table of :func:`plan_range`, for sizes that the upstream confirmed, and others."""
    assert plan_range(size, span, size_from_upstream=True, **download) is confirmed
    assert plan_range(size, span, **download) is otherwise


class Deadline(MirrorCase):
    """A client waits for a file until its deadline."""

    def start(self, **keys: Any) -> Reply:
        self.listed(reply := slow(DATA), **keys)
        return reply

    def complete(self, reply: Reply) -> None:
        self.finish(reply, data=DATA)
        self.assert_cached()
        assert self.agent.urls() == [URL]
        assert self.clock.getDelayedCalls() == []

    def test_redirect(self) -> None:
        """Each client is redirected at its own deadline, not before; the download continues."""
        reply = self.start()
        first = self.fetch()
        self.clock.advance(TIMEOUT - 0.01)
        self.pending(first)
        second = self.fetch()
        self.clock.advance(0.01)
        self.assert_redirected(first)
        self.pending(second)
        self.complete(reply)
        self.assert_bytes(self.result(second))

    def test_none(self) -> None:
        """Without time each client is redirected; a download that fails later is not remembered."""
        self.build(timeout=0)
        for fails in (True, False):
            reply = self.start()
            asked = self.fetch()
            self.clock.advance(0)
            self.assert_redirected(asked)
            if fails:
                self.agent.at(URL, Reply(503))
                reply.cut()
                self.assert_nothing_cached()
            else:
                self.complete(reply)

    def test_page(self) -> None:
        """The time that the page takes counts; a redirect comes as soon as its URL is known."""
        for page_takes, rest in ((0.8, 0.1), (7, 0)):
            reply = self.start(cold=True)
            self.pages.slow = Deferred()
            asked = self.fetch()
            self.clock.advance(page_takes)
            self.pending(asked)
            self.pages.slow.callback(None)
            self.clock.advance(rest)
            self.assert_redirected(asked)
            self.complete(reply)
            self.delete()
            self.pages.known.clear()

    def test_private(self) -> None:
        """Behind credentials the client waits for the whole download."""
        reply = self.start(private=True)
        asked = self.fetch()
        for _ in range(50):
            self.clock.advance(15)
            reply.bring(b"")
        self.pending(asked)
        self.complete(reply)
        self.assert_bytes(self.result(asked))


class Failing(MirrorCase):
    """A file that cannot be fetched: its client is redirected, or told."""

    def test_outcomes(self) -> None:
        """Without redirects the client is told if waiting helps; the next request tries again."""
        cases: list[tuple[Reply | Exception, bool | None]] = [
            (Reply(503), True),
            (Reply(200, b"wrong"), True),
            (ConnectionRefusedError(), True),
            (Reply(401), False),
            (Reply(403), False),
            (Reply(404), None),
            (Reply(410), None),
        ]
        for reply, temporary in cases:
            status = reply.status if isinstance(reply, Reply) else None
            for stream, private in ((False, False), (False, True), (True, False)):
                self.build(stream=stream)
                self.pages.refetched.clear()
                self.listed(reply, private=private)
                asked = self.fetch()
                if temporary is None:
                    self.error(asked, MissingUpstream)
                elif stream or private:
                    error = self.error(asked, UpstreamFailed)
                    assert error.temporary == temporary
                    assert ("credentials rejected" in str(error)) == (status == 401)
                else:
                    self.assert_redirected(asked)
                # A fresh page that names the same URL tells that it has not expired.
                gone = status in (403, 404, 410)
                assert self.pages.refetched == [("demo", NAME)] * gone
                self.assert_nothing_cached()
                self.agent.at(URL, Reply(200, DATA))
                self.assert_bytes(self.result(self.fetch()))
                self.delete()

    def test_offline(self) -> None:
        """Offline, cached files are served; no request is sent for others, nor a redirect."""
        self.listed()
        self.assert_bytes(self.result(self.fetch()))
        self.cache_dir.close()
        self.build(offline=True)
        self.assert_cached()
        self.delete()
        self.agent.asked.clear()
        for asked in (self.fetch(), self.head(), self.range("-5")):
            self.error(asked, Offline)
        assert self.agent.asked == []


class Gone(MirrorCase):
    """A file that the upstream does not have is looked up on a fresh page first."""

    def test_changed_url(self) -> None:
        """A URL that changed meanwhile is used, for a file as for its head."""
        for status in (403, 404, 410):
            for size in (len(DATA), None):
                for ask in (self.head, self.fetch):
                    self.listed(Reply(status), size=size)
                    self.pages.lists(entry(NAME, DATA, url=NEW, size=size), cold=True)
                    self.agent.at(NEW, Reply(200, DATA))
                    found = self.result(ask())
                    if isinstance(found, FileHead):
                        assert found.size == len(DATA)
                    else:
                        self.assert_bytes(found)
                        self.assert_cached()
                self.delete()

    def test_changed_url_fails(self) -> None:
        """If the new URL is slow or fails, the client is redirected there; or it is gone, too."""
        for reply in (Silence(), Reply(503), Reply(404)):
            self.listed(Reply(404))
            self.pages.lists(entry(NAME, DATA, url=NEW), cold=True)
            self.agent.at(NEW, reply)
            asked = self.fetch()
            self.clock.advance(TIMEOUT)
            if getattr(reply, "status", 0) == 404:
                self.error(asked, MissingUpstream)
            else:
                self.assert_redirected(asked, NEW)
            self.delete()

    def test_page(self) -> None:
        """A file that a fresh page does not list is not there; a page that fails tells nothing."""
        self.listed(silence := Silence())
        asked = self.fetch()
        self.pages.known.clear()
        silence.answer(Reply(404))
        self.error(asked, MissingUpstream)
        self.pages.failure = UpstreamFailed("https://index.example/", "down")
        self.listed(Reply(404))
        self.assert_redirected(self.fetch())
        self.listed(Reply(404), private=True)
        self.error(self.fetch(), UpstreamFailed)


class Changing(MirrorCase):
    """A file that may change under its name."""

    VARIANTS = "demo-1.0-variants.json"

    def test_range(self) -> None:
        """A range is cut out of the verified file: one passed through could be of other bytes."""
        for stream in (False, True):
            self.build(stream=stream)
            self.pages.lists(entry(self.VARIANTS, DATA))
            self.agent.at(FILES + self.VARIANTS, Reply(200, DATA))
            self.agent.asked.clear()
            self.assert_bytes(self.result(self.range("2-3", self.VARIANTS)))
            assert self.ranges() == [None]
            self.result(self.mirror.delete("demo", self.VARIANTS))


class Companions(MirrorCase):
    """Core metadata and signatures are fetched, verified and cached as files are."""

    METADATA = b"Metadata-Version: 2.1\nName: demo\n"
    SIDECAR = NAME + ".metadata"

    def test_cached(self) -> None:
        """Companions are cached, advertised or not, whether the page is in memory or not."""
        digest = {"sha256": sha256(self.METADATA)}
        for suffix, keys in (
            (".metadata", {"metadata": digest}),
            (".metadata", {"metadata": True}),
            (".metadata", {}),
            (".asc", {"gpg-sig": True}),
        ):
            for cold in (False, True):
                self.listed(cold=cold, **keys)
                self.agent.at(URL + suffix, Reply(200, self.METADATA))
                assert self.mirror.ready("demo", NAME + suffix) is None
                self.assert_bytes(self.result(self.fetch(NAME + suffix)), self.METADATA)
                self.assert_cached(NAME + suffix, self.METADATA)
                assert self.agent.urls() == [URL + suffix]
                self.delete()
                self.pages.known.clear()

    def test_wrong(self) -> None:
        """Metadata without the advertised digest is never served, but suppressed."""
        for private in (False, True):
            self.listed(private=private, metadata={"sha256": sha256(self.METADATA)})
            self.agent.at(URL + ".metadata", Reply(200, b"other"))
            self.error(self.fetch(self.SIDECAR), MissingUpstream)
            assert self.agent.urls().count(URL + ".metadata") == 2
            assert self.pages.suppressed.pop() == ("demo", NAME)
        # What is not advertised is looked up, and nothing is suppressed.
        self.pages.refetched.clear()
        self.listed()
        self.agent.at(URL + ".metadata", Reply(404))
        self.error(self.fetch(self.SIDECAR), MissingUpstream)
        assert (self.pages.refetched, self.pages.suppressed) == ([("demo", NAME)], [])


class Uncached(MirrorCase):
    """Files that cannot be cached: their clients are redirected; or the files pass through."""

    def assert_not_cached(self, *, redirect: bool = True, requests: int = 1) -> None:
        """Check what a client gets, and how many requests it takes, and that nothing is left."""
        self.agent.asked.clear()
        if redirect:
            self.assert_redirected(self.fetch())
        else:
            self.assert_bytes(self.result(self.fetch()))
        self.clock.advance(0)
        assert len(self.agent.asked) == requests
        assert (self.leftovers(), self.open_files()) == ([], [])

    def test_full_disk(self) -> None:
        """A disk that takes no file, or not all of one, is logged, and used again once it does."""
        requests = {"write": (1, 2), "flush": (1, 1), "__init__": (0, 1)}
        for function in requests:
            for stream, private in ((False, False), (False, True), (True, False)):
                self.build(stream=stream)
                self.listed(private=private)
                full = self.fill_disk(function)
                with logged("proxpi.files", "proxpi.problems") as log:
                    self.assert_not_cached(
                        redirect=not (stream or private),
                        requests=requests[function][stream or private],
                    )
                assert "No space left on device" in log.text
                full.stop()
                self.assert_bytes(self.result(self.fetch()))
                self.assert_cached()
                self.delete()

    def test_no_folder(self) -> None:
        """A file that cannot be renamed, or even begun, is sent all the same, or redirected."""
        (self.folder / "files-example").write_bytes(b"in the way")
        self.listed()
        self.assert_not_cached()
        self.listed(private=True)
        self.assert_not_cached(redirect=False)
        (self.folder / "files-example").unlink()
        shutil.rmtree(self.cache_dir.own)
        self.cache_dir.own.write_bytes(b"in the way")
        self.assert_not_cached(redirect=False)
        name = "x" * 300 + ".whl"
        self.cache_dir.own.unlink()
        self.pages.lists(entry(name, DATA))
        self.agent.at(FILES + name, Reply(200, DATA))
        self.assert_redirected(self.fetch(name), FILES + name)
        assert self.leftovers() == []
        shutil.rmtree(self.folder)  # emptied under the running process, it is filled again
        self.listed()
        self.assert_bytes(self.result(self.fetch()))
        self.assert_cached()

    def test_capacity(self) -> None:
        """A file larger than the cache is never requested for it; one that just fits is cached."""
        for capacity in (0, len(DATA) - 1):
            self.build(capacity=capacity)
            self.listed()
            self.assert_not_cached(requests=0)
            for reply, size in (
                (Reply(200, DATA), len(DATA)),
                (Reply(200, DATA, length=None), None),
            ):
                self.listed(reply, size=size, private=True)
                self.assert_not_cached(redirect=False)
                self.assert_nothing_cached()
        self.build(capacity=len(DATA))
        self.assert_bytes(self.result(self.fetch()))
        self.assert_cached()

    def test_clients_without_a_cache(self) -> None:
        """Each client has a request of its own, which ends with it."""
        self.build(capacity=0)
        replies = [slow(DATA) for _ in range(3)]
        self.listed(*replies, private=True)
        asked = [self.fetch() for _ in replies]
        asked[0].cancel()
        self.error(asked[0], CancelledError)
        assert replies[0].closed
        for one, reply in zip(asked[1:], replies[1:], strict=True):
            self.finish(reply, data=DATA)
            self.assert_bytes(self.result(one))
        self.assert_nothing_cached()

    def test_same_cache_path(self) -> None:
        """Two files that differ in port or query alone are not taken for each other."""
        for number, url in enumerate((f"{URL}?id=1", f"{URL}?id=2")):
            name = f"{number}.whl"
            self.pages.lists(entry(name, DATA, url=url, hashes={}, size=None))
            self.agent.at(url, Reply(200, f"file {number}".encode()))
            self.assert_bytes(self.result(self.fetch(name)), f"file {number}".encode())
            self.assert_cached(name, f"file {number}".encode())
        assert self.mirror.ready("demo", "0.whl") is None

    def test_vanishes(self) -> None:
        """A file that vanishes as it arrives: the client is redirected."""
        self.listed(reply := Reply(200, DATA, whole=False))
        asked = self.fetch()
        self.put(CacheDir, "open", lambda *_, **__: None)
        reply.end()
        self.assert_redirected(asked)


class Heads(MirrorCase):
    """``HEAD`` gives the size of a file without a download, and without a redirect."""

    def assert_size(self, size: int | None, digest: str | None = sha256(DATA)) -> None:
        found = self.result(self.head())
        assert isinstance(found, FileHead)
        assert (found.size, found.reference.sha256) == (size, digest)

    def test_page(self) -> None:
        """The size on the page suffices; a cached file tells it itself."""
        for capacity in (len(DATA), 0):
            self.build(capacity=capacity)
            self.listed(private=not capacity)
            self.assert_size(len(DATA))
            assert self.agent.asked == []
        self.build()
        self.assert_bytes(self.result(self.fetch()))
        self.assert_bytes(self.result(self.head()))

    def test_upstream(self) -> None:
        """Without a size on the page, or one of 0, the upstream is asked for nothing else."""
        for size, hashes in ((None, {"sha256": sha256(DATA)}), (0, {})):
            self.listed(Reply(200, b"", length=12345), size=size, hashes=hashes)
            self.assert_size(12345, hashes.get("sha256"))
            [asked] = self.agent.asked
            assert (asked.method, asked.url) == ("HEAD", URL)
            assert asked.header("Accept-Encoding") == "identity"

    def test_file(self) -> None:
        """If the upstream states no length, the file is downloaded for it, and cached."""
        silent: list[Reply | Exception] = [ConnectionResetError(), Reply(200, b"", length=0)]
        for refusal in (*silent, *map(Reply, (401, 403, 404, 405, 500, 501))):
            self.listed(refusal, Reply(200, DATA), size=None)
            self.assert_bytes(self.result(self.head()))
            self.assert_cached()
            self.delete()

    def test_unknown(self) -> None:
        """If no response states the length, and nothing can be cached, HEAD has no length."""
        for capacity, function in ((0, "read"), (1000, "__init__")):
            self.build(capacity=capacity)
            full = self.fill_disk(function)
            self.listed(Reply(405), Reply(200, DATA, length=None), size=None)
            self.assert_size(None)
            full.stop()

    def test_failing(self) -> None:
        """A file that cannot be fetched is a failure, as for ``GET``; its request ends with it."""
        for status in (429, 500, 503, 401, 403):
            temporary = status not in (401, 403)
            self.listed(Reply(status), size=None, private=not temporary)
            assert self.error(self.head(), UpstreamFailed).temporary == temporary, status
        for status in (404, 410):
            self.listed(Reply(status), size=None)
            self.error(self.head(), MissingUpstream)
        self.listed(Reply(200, b"", length=None), size=None)
        self.error(self.head(), UpstreamFailed)
        self.build(capacity=0)
        self.listed(Reply(405), size=None)
        assert self.error(self.head(), UpstreamFailed).cause == "status 405"
        self.listed(silence := Silence(), size=None)
        asked = self.head()
        asked.cancel()
        self.error(asked, Exception)
        assert silence.cancelled
        self.assert_clean()

    def test_whole(self) -> None:
        """A client that needs a length waits for the whole file, which must be cacheable."""
        self.listed()
        self.assert_bytes(self.result(run(self.mirror.whole("demo", NAME))))
        self.assert_bytes(self.result(run(self.mirror.whole("demo", NAME))))
        self.build(capacity=len(DATA) - 1)
        self.listed(Reply(200, DATA, length=None), size=None, hashes={})
        error = self.error(run(self.mirror.whole("demo", NAME)), UpstreamFailed)
        assert not error.temporary
