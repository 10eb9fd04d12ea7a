"""The accounting of responses: each is counted once, by kind and outcome."""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionRefusedError

from proxpi import metrics
from proxpi.web import accounting
from tests.support.agent import Reply
from tests.support.cases import FILES, INDEX, MIB, ProxpiCase, entry, page, root_list
from tests.support.counted import samples
from tests.support.exchange import Exchange

NAME, METADATA = "demo-1.0-py3-none-any.whl", b"Metadata-Version: 2.1\n"
DATA = bytes(range(256)) * 400
PAGE, FILE = "/index/demo/", f"/index/demo/{NAME}"
INDEX_PAGE, ORIGIN = f"{INDEX}demo/", FILES + NAME


@pytest.mark.parametrize(
    ("status", "cache", "outcome"),
    [
        (200, "HIT", "hit"),
        (304, "HIT", "hit"),
        (206, "MISS", "miss"),
        (200, "STALE", "stale"),
        (200, "REVALIDATED", "revalidated"),
        (302, "MISS", "redirect"),
        (301, "", "none"),
        (200, "", "none"),
        (404, "", "refused"),
        (416, "HIT", "refused"),
        (503, "", "error"),
        (499, "", "disconnected"),
    ],
)
def test_outcomes(status: int, cache: str, outcome: str) -> None:
    """The outcome follows from status and ``X-Cache``."""
    assert accounting.outcome(status, cache) == outcome


class AccountingCase(ProxpiCase):
    def setUp(self) -> None:
        super().setUp()
        listed = entry(NAME, DATA, metadata={"sha256": "0" * 64})
        self.agent.at(INDEX_PAGE, page(listed).having(ETag='"1"'))
        self.agent.at(ORIGIN, Reply(200, DATA))
        self.index = "root"
        self._before = self._samples()

    def _samples(self) -> dict[str, float]:
        self.cache_dir.count_uses()
        return samples(metrics.exposition({})[0].decode())

    def counted(self, name: str = "requests") -> dict[str, float]:
        """Return what a counter has counted since the last call, by the values of its labels."""
        found, beginning = {}, f"proxpi_{name}{{"
        now = self._samples()
        for sample, value in now.items():
            if sample.startswith(beginning) and value != self._before.get(sample, 0.0):
                labels = sample.removeprefix(beginning).rstrip("}").split(",")
                key = " ".join(label.partition("=")[2] for label in labels)
                found[key] = value - self._before.get(sample, 0.0)
        return found

    def begin(self) -> None:
        self._before = self._samples()

    def slowly(self, target: str, *headers: str, url: str, seconds: float) -> Exchange:
        """Send a request whose upstream responds only after so many seconds."""
        self.agent.silent.add(url)
        client = self.connect()
        client.ask("GET", target, *headers)
        assert client.answer() is None and self.site.waiting == 1
        self.clock.advance(seconds)
        self.agent.release(url)
        return client


class Outcomes(AccountingCase):
    def test_scripted_run(self) -> None:
        """Each request of a run is counted once: from the response cache as well as otherwise."""
        self.agent.at(INDEX, root_list(["demo"]))
        self.get(PAGE)
        for _ in range(5):
            self.get(PAGE)
        self.get("/index/")
        self.get("/index/")
        self.get(FILE)
        for _ in range(4):
            self.get(FILE)
        self.get(FILE, "Range: bytes=0-9")
        self.get(FILE, "Range: bytes=999999-")
        self.ask("HEAD", FILE)
        self.get("/index/demo/none-1.0.zip")
        self.get("/index/Demo/")
        self.get("/nothing")
        self.get("/health")
        self.ask("POST", PAGE)
        self.clock.advance(1801)
        self.agent.conditional = Reply(304)
        self.get(PAGE)
        self.clock.advance(1801)
        self.agent.conditional = None
        self.agent.at(INDEX_PAGE, Reply(500))
        client = self.connect()
        client.ask("GET", PAGE)
        self.clock.pass_time(10)
        assert client.response().headers["x-cache"] == "STALE"
        assert self.counted("requests_total") == {
            "page miss": 1,
            "page hit": 5,
            "page none": 1,
            "page revalidated": 1,
            "page stale": 1,
            "list miss": 1,
            "list hit": 1,
            "file miss": 1,
            "file hit": 6,
            "file refused": 2,
            "other refused": 2,
            "other none": 1,
        }
        durations = self.counted("request_seconds_count")
        assert durations == self.counted("requests_total")

    def test_errors(self) -> None:
        """A redirect upstream, an upstream that fails, and a request that cannot be parsed."""
        self.agent.at(ORIGIN, Reply(503))
        client = self.connect()
        client.ask("GET", FILE)
        self.clock.pass_time(2)
        assert client.response().status == 302
        self.agent.at(f"{INDEX}other/", Reply(500))
        client = self.connect()
        client.ask("GET", "/index/other/")
        self.clock.pass_time(30)
        assert client.response().status == 503
        client = self.connect()
        client.send(b"what is this?\r\n\r\n")
        assert client.receive().startswith(b"HTTP/1.1 400 ")
        outcomes = {"file redirect": 1, "page error": 1, "other refused": 1}
        assert self.counted("requests_total") == outcomes

    def test_bytes(self) -> None:
        """Bytes of bodies count as sent, and those from the cache as saved."""
        self.get(FILE)
        assert (self.counted("sent_bytes_total"), self.counted("saved_bytes_total")) == (
            {"file": len(DATA)},
            {},
        )
        for _ in range(3):
            self.get(FILE)
        for _ in range(2):
            self.get(FILE, "Range: bytes=0-99")
            self.ask("HEAD", FILE)
        assert self.counted("sent_bytes_total") == {"file": len(DATA) * 4 + 200}
        assert self.counted("saved_bytes_total") == {"file": len(DATA) * 3 + 200}

    def test_invalidated_entries(self) -> None:
        """What an entry has sent counts, also if it is removed before the next account."""
        for _ in range(4):
            self.get(PAGE)
        self.pages.invalidate("demo")
        assert not [*self.response_cache]
        assert self.counted("requests_total") == {"page miss": 1, "page hit": 3}


class Disconnected(AccountingCase):
    def test_before_the_response(self) -> None:
        """A client that leaves before its response is counted and logged as such."""
        self.agent.silent.add(INDEX_PAGE)
        client = self.connect()
        client.ask("GET", PAGE)
        self.clock.advance(3)
        assert self.site.waiting == 1
        client.leave()
        self.clock.pass_time(2)
        assert self.site.waiting == 0
        assert self.counted("requests_total") == {"page disconnected": 1}
        assert self.counted("request_seconds_sum")["page disconnected"] > 3.0
        assert len(self.access_log) == 1 and " 499 " in self.access_log[0]

    def test_during_a_response(self) -> None:
        """A client that leaves amid its response is counted with the bytes that it was sent."""
        data = bytes(4 * MIB)
        self.serve("large-1.0.zip", data)
        self.get("/index/demo/large-1.0.zip")
        self.get("/index/demo/large-1.0.zip")
        client = self.connect(capacity=4096)
        client.ask("GET", "/index/demo/large-1.0.zip")
        client.read(1000)
        self.begin()
        client.leave()
        assert self.counted("requests_total") == {"file hit": 1}
        (sent,) = self.counted("sent_bytes_total").values()
        assert 0 < sent < len(data)
        assert f" GET /index/demo/large-1.0.zip 200 {sent:.0f} " in self.access_log[-1]

    def test_late_end(self) -> None:
        """A response from an entry that was removed while it is sent counts all the same."""
        self.serve("large-1.0.zip", bytes(4 * MIB))
        for _ in range(2):
            self.get("/index/demo/large-1.0.zip")
        client = self.connect(capacity=4096)
        client.ask("GET", "/index/demo/large-1.0.zip")
        self.response_cache.invalidate(None)
        self.begin()
        assert len(client.response().body) == 4 * MIB
        assert self.counted("requests_total") == {"file hit": 1}
        assert self.counted("sent_bytes_total") == {"file": 4 * MIB}


class Waits(AccountingCase):
    """What a response waited for an upstream is in its head, its log line, and what hits save."""

    def test_server_timing(self) -> None:
        """A response that waited for an upstream says how long; a hit has no such field."""
        response = self.slowly(PAGE, url=INDEX_PAGE, seconds=0.75).response()
        assert response.headers["server-timing"] == "cache;desc=MISS, upstream;dur=750.0"
        for _ in range(2):
            assert "server-timing" not in self.get(PAGE).headers
        client = self.slowly("/index/none/", url=f"{INDEX}none/", seconds=0.25)
        assert client.response().headers["server-timing"] == "upstream;dur=250.0"
        assert "server-timing" not in self.get("/index/none/").headers
        assert self.site.waiting == 0

    def test_saved_seconds(self) -> None:
        """A hit saves what the misses of its kind and index took by their mean."""
        before = metrics.MISS_SECONDS.labels(self.index, "page")
        number, seconds = sum(before.counts), before.sum
        self.slowly(PAGE, url=INDEX_PAGE, seconds=2.0)
        assert self.counted("miss_seconds_sum") == {f"{self.index} page": 2.0}
        for _ in range(3):
            self.get(PAGE)
        saved = 3 * (seconds + 2.0) / (number + 1)
        assert self.counted("saved_seconds_total") == {self.index: pytest.approx(saved)}

    def test_followed(self) -> None:
        """A file that is sent while it arrives waits for its upstream until that has sent all."""
        self.build(stream=True)
        reply = Reply(200, DATA[:70_000], whole=False, length=len(DATA))
        self.agent.at(ORIGIN, reply)
        client = self.connect(capacity=4096)
        client.ask("GET", FILE)
        assert self.site.waiting == 1
        self.clock.advance(3)
        reply.bring(DATA[70_000:])
        reply.end()
        assert self.site.waiting == 0
        self.clock.advance(5)
        assert client.response().body == DATA
        assert self.counted("miss_seconds_sum") == {f"{self.index} file": 3.0}

    def test_followed_until_cut(self) -> None:
        """An upstream that breaks off ends the wait as well, and so does a client that leaves."""
        self.build(stream=True)
        for ends in ("cut", "left"):
            reply = Reply(200, DATA[:70_000], whole=False, length=len(DATA))
            self.agent.at(ORIGIN, reply, Reply(404))
            client = self.connect()
            client.ask("GET", FILE)
            assert self.site.waiting == 1
            if ends == "cut":
                reply.cut()
                self.clock.pass_time(5)
            else:
                client.leave()
            assert self.site.waiting == 0, ends


class Gauges(AccountingCase):
    def gauge(self, name: str) -> float:
        return samples(self.get("/metrics").text)[f"proxpi_{name}"]

    def test_under_way(self) -> None:
        """Waiting requests and downloads under way count until they have ended."""
        self.get(PAGE)
        assert (self.gauge("waiters"), self.gauge("downloads_in_flight")) == (0, 0)
        self.agent.silent.add(ORIGIN)
        clients = [self.connect() for _ in range(3)]
        for client in clients:
            client.ask("GET", FILE)
        assert (self.gauge("waiters"), self.gauge("downloads_in_flight")) == (3, 1)
        self.clock.pass_time(1)
        assert [client.response().status for client in clients] == [302] * 3
        assert (self.gauge("waiters"), self.gauge("downloads_in_flight")) == (0, 1)
        assert self.gauge("cache_files") == 0
        self.agent.release(ORIGIN)
        assert (self.gauge("downloads_in_flight"), self.gauge("cache_files")) == (0, 1)

    def test_breaker(self) -> None:
        """The breaker of an index that refuses connections is open, and closed after a success."""
        state = "breaker_state{index=root}"
        assert self.gauge(state) == 0
        self.agent.at(INDEX_PAGE, ConnectionRefusedError())
        client = self.connect()
        client.ask("GET", PAGE)
        assert self.gauge(state) == 2
        self.clock.pass_time(60)
        assert client.response().status == 503
        assert self.gauge(state) == 1
        self.agent.at(INDEX_PAGE, page(entry(NAME, DATA)))
        assert self.get(PAGE).status == 200
        assert self.gauge(state) == 0
