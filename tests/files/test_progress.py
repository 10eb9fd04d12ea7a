"""The status of downloads: progress, rate, waiting clients, and the problem of one that failed."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from proxpi import quantities
from proxpi.files.progress import INTERVAL, DownloadStatus, Rate
from proxpi.problems import MOST
from proxpi.simple import Span
from tests.support.agent import Reply
from tests.support.cases import FILES, MIB, entry, run
from tests.support.logs import Log, logged
from tests.support.mirrors import DATA, LARGE, NAME, URL, MirrorCase, part, slow

PRIVATE = URL.replace("//", "//user:secret@")


def progress(log: Log) -> list[tuple[str, str]]:
    """Return the lines on progress, with their levels."""
    lines = zip(log.levels, log.lines, strict=True)
    return [(level, line) for level, line in lines if "clients: " in line]


def test_rate() -> None:
    """The rate is that of the last 10 to 20 seconds; a restart is no negative one."""
    rate = Rate(100.0)
    assert rate.bytes_per_second(100.0, 0) == 0.0
    assert rate.bytes_per_second(105.0, 500) == 100.0
    for second in range(1, 5):
        rate.sample(100.0 + 10 * second, 1000 * second)
    assert rate.bytes_per_second(145.0, 4000) == 1000 / 15
    assert rate.bytes_per_second(145.0, 0) == 0.0


class Status(MirrorCase):
    def setUp(self) -> None:
        super().setUp()
        self.build(stream=True)

    def status(self) -> list[DownloadStatus]:
        return self.mirror.downloads()

    def test_under_way(self) -> None:
        """A download states its file, its progress, its rate and its clients, until it ends."""
        assert self.status() == []
        self.listed(reply := slow(LARGE), data=LARGE)
        self.clock.advance(50)
        asked = [self.fetch() for _ in range(3)]
        expected: dict[str, Any] = {
            "project": "demo",
            "filename": NAME,
            "index": "",
            "size": len(LARGE),
            "arrived": 0,
            "bytes_per_second": 0.0,
            "waiting": 3,
            "started": 50.0,
            "background": False,
        }
        assert self.status() == [DownloadStatus(**expected)]
        reply.bring(LARGE[:MIB])
        self.clock.advance(4)
        now = {"arrived": MIB, "bytes_per_second": MIB / 4}
        assert self.status() == [DownloadStatus(**expected | now)]
        readings = [self.read(each) for each in asked]
        readings.pop().hang_up()
        assert self.status() == [DownloadStatus(**expected | now | {"waiting": 2})]
        self.finish(reply, MIB)
        assert self.status() == []
        self.assert_clean()

    def test_pass_through(self) -> None:
        """A file that passes through is listed, too, and so is a range, by its own bytes."""
        self.build(capacity=0, stream=True)
        self.listed(reply := slow(LARGE), data=LARGE)
        reading = self.begin(reply, MIB)
        assert [(each.size, each.arrived, each.waiting) for each in self.status()] == [
            (len(LARGE), MIB, 1)
        ]
        reading.hang_up()
        assert self.status() == []
        self.listed(reply := part(LARGE, MIB, 2 * MIB, arrived=False), data=LARGE)
        asked = self.range(Span(MIB, 2 * MIB))
        reply.bring(LARGE[MIB : MIB + 1000])
        reading = self.read(asked)
        assert [(each.size, each.arrived) for each in self.status()] == [(MIB, 1000)]
        reply.bring(LARGE[MIB + 1000 : 2 * MIB])
        reply.end()
        assert self.status() == []
        self.assert_clean()

    def test_disk_full(self) -> None:
        """The rate of a download that goes on in memory counts no byte of the time before."""
        self.listed(reply := slow(LARGE), data=LARGE)
        reading = self.begin(reply, MIB)
        self.clock.advance(9)
        self.agent.at(URL, rest := part(LARGE, MIB, arrived=False))
        full = self.fill_disk()
        reply.bring(b"more")
        full.stop()
        rest.bring(LARGE[MIB : MIB + 4000])
        self.clock.advance(4)
        (status,) = self.status()
        assert (status.arrived, status.bytes_per_second) == (MIB + 4000, 1000)
        reading.hang_up()
        self.assert_clean()

    def test_deleted(self) -> None:
        """A deleted download is listed as long as a client reads it."""
        self.listed(reply := slow(LARGE), data=LARGE)
        reading = self.begin(reply, MIB)
        self.delete()
        assert [each.waiting for each in self.status()] == [1]
        reading.hang_up()
        assert self.status() == []

    def test_redirected(self) -> None:
        """A client that was redirected waits no longer; its download goes on."""
        self.build()
        self.listed(reply := slow(DATA))
        asked = self.fetch()
        assert [each.waiting for each in self.status()] == [1]
        self.clock.advance(1)
        self.assert_redirected(asked)
        assert [each.waiting for each in self.status()] == [0]
        self.finish(reply, data=DATA)

    def test_unknown_size(self) -> None:
        """The size is that of the upstream, else that of the index, or is not known."""
        for announced, stated, known in ((None, None, None), (len(LARGE), None, len(LARGE))):
            reply = Reply(200, b"", whole=False, length=announced)
            self.listed(reply, data=LARGE, size=stated)
            self.fetch()
            assert [each.size for each in self.status()] == [known]
            self.finish(reply)
            self.delete()

    def test_background(self) -> None:
        """A prefetched file is in the background until a client joins, and is logged at DEBUG."""
        self.build()
        self.listed(reply := slow(DATA))
        prefetched = run(self.mirror.prefetch("demo", NAME))
        with logged("proxpi.files") as log:
            self.clock.advance(INTERVAL)
            assert [each.background for each in self.status()] == [True]
            assert progress(log) == [
                ("debug", f"{URL}: 0 B of {quantities.size(len(DATA))} (0 %), 0 B/s; clients: 0")
            ]
            asked = self.fetch()
            assert [each.background for each in self.status()] == [False]
            self.clock.advance(INTERVAL)
        assert [level for level, _ in progress(log)] == ["debug", "info"]
        self.assert_redirected(asked)
        self.finish(reply, data=DATA)
        self.result(prefetched)

    def test_log(self) -> None:
        """Every 10 seconds a line tells the progress of a download, while it lasts."""
        reply = Reply(200, b"", whole=False, length=len(LARGE))
        self.listed(reply, url=PRIVATE, data=LARGE)
        self.agent.at(URL, reply)
        with logged("proxpi.files") as log:
            asked = self.fetch()
            for second in range(25):
                reply.bring(LARGE[second * 100_000 :][:100_000])
                self.clock.advance(1)
            self.finish(reply, 2_500_000)
            self.clock.advance(60)
        assert progress(log) == [
            ("info", f"{URL}: 1.0 MB of 3.1 MB (31 %), 100 kB/s; clients: 1"),
            ("info", f"{URL}: 2.0 MB of 3.1 MB (63 %), 100 kB/s; clients: 1"),
        ]
        assert "secret" not in log.text
        self.read(asked).hang_up()

    def test_short(self) -> None:
        """A download that ends within 10 seconds has no line."""
        self.listed(reply := slow(DATA))
        with logged("proxpi.files") as log:
            asked = self.fetch()
            self.clock.advance(INTERVAL - 1)
            self.finish(reply, data=DATA)
            self.clock.advance(INTERVAL)
        assert progress(log) == []
        self.assert_bytes(self.result(asked))


class Failures(MirrorCase):
    def ask(self, name: str = NAME) -> Deferred[Any]:
        return self.fetch(name).addErrback(lambda _: None)

    def test_consequence(self) -> None:
        """The problem says what clients get: a redirect, or an error."""
        for stream, private, reply, expected in (
            (False, False, Reply(500), "clients are redirected upstream"),
            (True, False, Reply(500), "clients get 503"),
            (False, True, Reply(500), "clients get 503"),
            (True, False, Reply(401), "clients get 502"),
        ):
            self.build(stream=stream)
            self.listed(reply, private=private)
            with logged("proxpi.problems") as log:
                self.ask()
                self.clock.advance(60)
            assert log.levels == ["error"]
            assert f"file not downloaded: {URL}: " in log.text
            assert f"; {expected}; " in log.text

    def test_throttled(self) -> None:
        """However many files fail, an index has one line a minute for a kind of failure."""
        with logged("proxpi.problems") as log:
            for number in range(2 * MOST):
                name = f"demo-{number}-py3-none-any.whl"
                self.pages.lists(entry(name, DATA))
                self.agent.at(FILES + name, Reply(200, b"else"))
                self.ask(name)
        assert len(log.lines) == 1
        (problem,) = self.problems
        assert (problem.count, problem.remedy.split(";")[0]) == (
            2 * MOST,
            "check the file at its URL",
        )

    def test_pass_through_failed(self) -> None:
        """A file that passes through has a problem, too; a client that leaves is none."""
        for cut in (True, False):
            self.build(capacity=0, stream=True)
            self.listed(reply := slow(LARGE), Reply(500), Reply(500), data=LARGE)
            with logged("proxpi.problems") as log:
                reading = self.begin(reply, MIB // 2)
                if cut:
                    reply.cut()
                else:
                    reading.hang_up()
                self.clock.advance(60)
            assert log.text.count("its client gets no whole file") == cut

    def test_credentials(self) -> None:
        """No credentials are in a line, a problem or a status."""
        self.listed(url=PRIVATE, private=True)
        self.agent.at(URL, Reply(503))
        with logged() as log:
            self.ask()
            self.clock.advance(60)
        assert "file not downloaded" in log.text
        assert "secret" not in log.text + repr(list(self.problems))
