"""Upstream metrics: what a script of clients' requests costs each index, to the byte."""

from __future__ import annotations

from proxpi import metrics
from tests.support.agent import Reply
from tests.support.cases import FILES, INDEX, ProxpiCase, entry, page, root_list, sha256
from tests.support.counted import samples

EXTRA = "https://extra.example/simple/"
WHEEL = "demo-1.0-py3-none-any.whl"
DATA = bytes(range(256)) * 512
METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n\n"


class UpstreamMetricsTests(ProxpiCase):
    def setUp(self) -> None:
        super().setUp()
        self.build(extra=EXTRA)
        self.names = [index.name for index in self.pages.indexes]
        self.before = self.values()
        self.totals = metrics.totals()

    def values(self) -> dict[str, float]:
        return samples(metrics.exposition({})[0].decode())

    def counted(self, name: str) -> dict[str, float]:
        """Return by index what a metric has counted since the last look, but for zeros."""
        now, found = self.values(), {}
        for key, value in now.items():
            if key.startswith(f"proxpi_{name}{{") and value != self.before.get(key, 0.0):
                found[key.partition("{")[2][:-1]] = value - self.before.get(key, 0.0)
        return found

    def test_script(self) -> None:
        """Lists, pages, files, metadata, ranges and revalidations count for their own index."""
        root, extra = self.names
        listed = entry(WHEEL, DATA, metadata={"sha256": sha256(METADATA)})
        theirs = entry("demo-2.0.tar.gz", b"sdist")
        replies = {
            INDEX: root_list(["demo"]),
            EXTRA: Reply(404),
            f"{INDEX}demo/": page(listed).having(ETag='"1"'),
            f"{EXTRA}demo/": page(theirs),
            FILES + WHEEL: Reply(206, DATA[:10], {"Content-Range": f"bytes 0-9/{len(DATA)}"}),
            f"{FILES}{WHEEL}.metadata": Reply(200, METADATA),
            f"{FILES}demo-2.0.tar.gz": Reply(200, b"sdist"),
        }
        for url, reply in replies.items():
            self.agent.at(url, reply)
        assert self.get("/index/").status == 200
        for target in (
            f"/index/demo/{WHEEL}.metadata",
            "/index/demo/demo-2.0.tar.gz",
            "/index/demo/demo-2.0.tar.gz",
        ):
            assert self.get(target).status == 200
        assert self.get(f"/index/demo/{WHEEL}", "Range: bytes=0-9").status == 206
        self.agent.at(FILES + WHEEL, Reply(200, DATA))
        assert self.get(f"/index/demo/{WHEEL}").status == 200
        self.clock.advance(3600)
        self.agent.conditional = Reply(304)
        self.agent.at(f"{EXTRA}demo/", Reply(503))
        assert self.ask("GET", "/index/demo/", within=2.0).status == 200
        assert self.counted("upstream_requests_total") == {
            f"index={root},result=ok": 5,
            f"index={root},result=not_modified": 1,
            f"index={extra},result=ok": 2,
            f"index={extra},result=absent": 1,
            f"index={extra},result=server_error": 2,
        }
        bodies = [replies[url].body for url in (INDEX, f"{INDEX}demo/")]
        received = sum(map(len, bodies)) + 10 + len(METADATA) + len(DATA)
        of_extra = len(replies[f"{EXTRA}demo/"].body) + len(b"sdist")
        assert self.counted("received_bytes_total") == {
            f"index={root}": received,
            f"index={extra}": of_extra,
        }
        assert self.counted("upstream_seconds_count") == {
            f"index={root}": 6,
            f"index={extra}": 5,
        }
        now = metrics.totals()
        assert now.upstream_requests - self.totals.upstream_requests == len(self.agent.asked) == 11
        assert now.received_bytes - self.totals.received_bytes == received + of_extra
