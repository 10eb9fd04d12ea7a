"""``POST /prefetch``: the files of a lock, their outcomes as lines, limits, clients that leave."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from proxpi.web import server
from proxpi.web.channel import MAX_BODY, MAX_LOCK
from proxpi.web.transfer import BUFFER
from tests.support.agent import Reply, Silence
from tests.support.cases import FILES, INDEX, ProxpiCase, entry, page, sha256
from tests.support.exchange import HOST, Exchange

LINUX = "/prefetch?python=3.12&platform=manylinux_2_28_x86_64"
EVERY = "/prefetch?all=1"
WHEEL, MAC, SDIST = (
    *("demo-1.0-py3-none-any.whl", "demo-1.0-cp312-cp312-macosx_11_0_arm64.whl"),
    "demo-1.0.tar.gz",
)
DATA = {WHEEL: b"a wheel " * 1000, MAC: b"another", SDIST: b"a source"}
METADATA = b"Metadata-Version: 2.1\n"


def pylock(*files: str, digests: Mapping[str, str] | None = None) -> str:
    """Write a lock of these files of the project; their digests are those of the index or these."""
    lines = ['lock-version = "1.0"', "[[packages]]", 'name = "demo"', "wheels = ["]
    for each in files:
        digest = digests[each] if digests is not None else sha256(DATA[each])
        lines.append(f'{{name = "{each}", hashes = {{sha256 = "{digest}"}}}},')
    return "\n".join([*lines, "]"])


class PrefetchCase(ProxpiCase):
    """Tests of an index with one project of three files."""

    def setUp(self) -> None:
        super().setUp()
        self.list_files()
        for filename, data in DATA.items():
            self.agent.at(FILES + filename, Reply(200, data))
        self.agent.at(f"{FILES}{WHEEL}.metadata", Reply(200, METADATA))

    def list_files(self, **keys: Any) -> None:
        metadata = {"sha256": sha256(METADATA)}
        entries = [
            entry(each, data, metadata=metadata if each == WHEEL else None, **keys)
            for each, data in DATA.items()
        ]
        self.agent.at(INDEX + "demo/", page(*entries))

    def prefetch(self, lock: str, target: str = LINUX) -> tuple[list[dict[str, Any]], Any]:
        """Send a lock; return the lines of the files, and the last one."""
        response = self.ask("POST", target, body=lock, within=10)
        assert (response.status, response.whole) == (200, True), response
        assert response.headers["content-type"] == "application/x-ndjson"
        *lines, summary = lines_of(response.body)
        assert summary["files"] == len(lines)
        assert summary["bytes"] == sum(line["bytes"] for line in lines)
        for outcome in ("cached", "fetched", "failed"):
            assert summary[outcome] == [line["outcome"] for line in lines].count(outcome)
        return lines, summary

    def cause(self, lock: str, target: str = LINUX) -> str:
        """Send a lock whose one file fails; return the cause."""
        [line], _ = self.prefetch(lock, target)
        assert (line["outcome"], line["bytes"]) == ("failed", 0)
        assert line.keys() == {"file", "outcome", "bytes", "cause"}
        return str(line["cause"])

    def refusal(self, lock: str, target: str = LINUX, *headers: str, status: int = 400) -> str:
        """Send a lock that is refused; return the message."""
        response = self.ask("POST", target, *headers, body=lock)
        assert response.status == status, response
        said = json.loads(response.body)
        assert said["status"] == "error"
        assert self.agent.asked == []
        return str(said["message"])


def lines_of(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.splitlines()]


class Outcomes(PrefetchCase):
    def test_fetched_and_cached(self) -> None:
        """The file that fits is fetched, with page and metadata; clients then hit the cache."""
        lock = pylock(*DATA)
        line = {"file": WHEEL, "outcome": "fetched", "bytes": len(DATA[WHEEL])}
        sums = {"files": 1, "cached": 0, "fetched": 1, "failed": 0, "bytes": len(DATA[WHEEL])}
        assert self.prefetch(lock) == ([line], sums)
        assert self.agent.urls() == [*(f"{INDEX}demo/", FILES + WHEEL, f"{FILES}{WHEEL}.metadata")]
        self.agent.asked.clear()
        accepts = "Accept: application/vnd.pypi.simple.v1+json", "Accept-Encoding: gzip"
        assert self.get("/index/demo/", *accepts).headers["x-cache"] == "HIT"
        for path, data in ((WHEEL, DATA[WHEEL]), (f"{WHEEL}.metadata", METADATA)):
            response = self.get(f"/index/demo/{path}")
            assert (response.body, response.headers["x-cache"]) == (data, "HIT")
        again = self.prefetch(lock)
        assert again == ([line | {"outcome": "cached"}], sums | {"cached": 1, "fetched": 0})
        assert self.agent.asked == []

    def test_all(self) -> None:
        """With all=1 every file is fetched."""
        lines, _ = self.prefetch(pylock(*DATA), EVERY)
        assert {line["file"]: line["outcome"] for line in lines} == dict.fromkeys(DATA, "fetched")

    def test_requirements(self) -> None:
        """Where a lock names no files, the page does, and the digests decide."""
        assert self.prefetch("demo==1.0")[0][0]["file"] == WHEEL
        digests = f"--hash=sha256:{sha256(DATA[SDIST])}"
        assert self.prefetch(f"demo==1.0 {digests}")[0][0]["file"] == SDIST
        assert "fits" in self.cause("demo==2.0")
        assert "fits" in self.cause(f"demo==1.0 --hash=sha256:{'0' * 64}")
        assert len(self.prefetch("demo==1.0", EVERY)[0]) == 3

    def test_view(self) -> None:
        """The files are those of the view in the query, and of the default view without one."""
        other, views = "https://other.example/simple/", {"default": "root", "cu126": "extra-1"}
        tables = [f'[[view]]\nname = "{name}"\nindexes = ["{views[name]}"]' for name in views]
        self.build(extra=other, rules="\n".join(tables))
        self.agent.at(f"{other}demo/", page(entry("demo-2.0.tar.gz", b"another")))
        self.agent.at(f"{FILES}demo-2.0.tar.gz", Reply(200, b"another"))
        for query, file in {f"{EVERY}&view=cu126": "demo-2.0.tar.gz", EVERY: WHEEL}.items():
            lines, _ = self.prefetch("demo==2.0" if "view" in query else pylock(WHEEL), query)
            assert [(each["file"], each["outcome"]) for each in lines] == [(file, "fetched")]

    def test_urls_of_the_lock(self) -> None:
        """No URL of a lock is requested."""
        url = f"https://elsewhere.example/{WHEEL}"
        lock = f'lock-version="1"\n[[packages]]\nname="demo"\nwheels=[{{url="{url}"}}]\n'
        assert self.prefetch(lock)[1]["fetched"] == 1
        assert not [url for url in self.agent.urls() if "elsewhere" in url]

    def test_skipped(self) -> None:
        """Packages from no index are named in the last line."""
        lines, summary = self.prefetch("-e .\n" * 1000 + "demo==1.0")
        assert len(lines) == 1
        assert summary["skipped"][0] == "line 1: '-e .' is from no index"
        assert len(summary["skipped"]) == 100

    def test_other_digest(self) -> None:
        """A file whose digest on the page is not that of the lock is not fetched."""
        other = sha256(b"other")
        cause = self.cause(pylock(WHEEL, digests={WHEEL: other}))
        assert other in cause and sha256(DATA[WHEEL]) in cause
        assert self.agent.urls() == [f"{INDEX}demo/"]

    def test_index_without_digest(self) -> None:
        """A file of which the index states no SHA-256 is compared once it is fetched."""
        self.list_files(hashes={})
        assert self.prefetch(pylock(WHEEL))[1]["fetched"] == 1
        other = sha256(b"other")
        assert other in self.cause(pylock(SDIST, digests={SDIST: other}))

    def test_failures(self) -> None:
        """A project, a page or a file that cannot be had fails with its cause, alone."""
        lock = "demo==1.0\nmissing==1\nbroken==1\n"
        self.agent.at(INDEX + "broken/", Reply(503))
        lines, summary = self.prefetch(lock)
        causes = {line["file"]: line.get("cause", "") for line in lines}
        assert causes[WHEEL] == ""
        assert causes["missing==1"] == "No index has this project."
        assert "503" in causes["broken==1"]
        assert (summary["fetched"], summary["failed"]) == (1, 2)
        self.agent.at(FILES + SDIST, Reply(404))
        assert "not there" in self.cause(pylock(SDIST))
        self.agent.at(FILES + MAC, Reply(200, b"wrong bytes"))
        assert MAC in self.cause(pylock(MAC), EVERY)
        unlisted = "demo-3-py3-none-any.whl"
        assert "No index lists" in self.cause(pylock(unlisted, digests={unlisted: sha256(b"")}))

    def test_metadata_gone(self) -> None:
        """A wheel whose advertised metadata is gone is fetched all the same."""
        self.agent.at(f"{FILES}{WHEEL}.metadata", Reply(404))
        assert self.prefetch(pylock(WHEEL))[1]["fetched"] == 1

    def test_larger_than_the_cache(self) -> None:
        """A file that is larger than the cache fails with that cause."""
        self.build(capacity=1000)
        assert "larger than the cache" in self.cause(pylock(WHEEL))


class Refusals(PrefetchCase):
    def test_queries(self) -> None:
        """Python and platform are required, unless all files are; wrong ones are named."""
        lock, platform = pylock(WHEEL), "platform=win_amd64"
        for query, named in {
            "": "python is missing",
            "?python=3.12": "platform is missing",
            f"?{platform}": "python is missing",
            f"?python=2.7&{platform}": "python=2.7",
            "?python=3.12&platform=linux%0a": "platform",
            "?all=0": "all=1",
            f"?all=1&{platform}": "all=1",
            f"?python=3.12&{platform}&%00=": "\\x00",
            "?python=%ff&platform=%ff": "python",
            "?all=1&view=cu126": "view=cu126: there is no such view; accepted is one of default",
        }.items():
            assert named in self.refusal(lock, f"/prefetch{query}"), query

    def test_locks(self) -> None:
        """The refusal of a body that is no lock names the accepted formats."""
        assert "Line 2" in self.refusal("demo==1\ndemo>2\n")
        for body in ("", "<html>", "[tool]\n", "\x00"):
            assert "uv.lock" in self.refusal(body)

    def test_no_cache(self) -> None:
        """Without a cache one error says so."""
        self.build(capacity=0)
        assert "PROXPI_CACHE_SIZE" in self.refusal(pylock(WHEEL), status=409)

    def test_other_sites(self) -> None:
        """A page of another site cannot send a lock; this site's can."""
        for header in ("Sec-Fetch-Site: cross-site", "Origin: http://evil.example"):
            self.refusal(pylock(WHEEL), LINUX, header, status=403)
        response = self.ask("POST", LINUX, f"Origin: http://{HOST}", body=pylock(WHEEL))
        assert response.status == 200

    def test_other_requests(self) -> None:
        """Only POST, and only at exactly this path."""
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            response = self.ask(method, LINUX)
            assert (response.status, response.headers["allow"]) == (405, "OPTIONS, POST")
        for path in ("/prefetch/", "//prefetch", "/%70refetch", "/prefetch/x", "/prefetch//"):
            expected = 200 if path == "/%70refetch" else 404
            response = self.ask("POST", path + LINUX.partition("prefetch")[2], body="demo==1.0")
            assert response.status == expected, path


class Bodies(PrefetchCase):
    def test_large(self) -> None:
        """A lock has up to 16 MiB, in chunks as well."""
        lock = f"demo==1.0\n{'#' * (MAX_BODY + 1)}\n"
        assert self.prefetch(lock)[1]["files"] == 1
        chunks = f"{len(lock):x}\r\n{lock}\r\n0\r\n\r\n"
        exchange = self.connect()
        exchange.ask("POST", LINUX, "Transfer-Encoding: chunked")
        exchange.send(chunks.encode())
        response = exchange.response()
        assert lines_of(response.body)[-1]["cached"] == 1

    def test_too_large(self) -> None:
        """More is a 413, by the head alone if that says it; elsewhere far less is."""
        for path, size in ((LINUX, MAX_LOCK), ("/prefetch/x", MAX_BODY), ("/cache", MAX_BODY)):
            exchange = self.connect()
            exchange.ask("POST", path, f"Content-Length: {size + 1}")
            response = exchange.response()
            assert response.status in (404, 405, 413)
            assert response.headers["connection"] == "close"
            assert (response.status == 413) == (path == LINUX)
        assert str(MAX_LOCK) in response.text or path != LINUX
        exchange = self.connect()
        exchange.ask("POST", LINUX, "Transfer-Encoding: chunked")
        chunk = b"100000\r\n" + b"#" * (1 << 20) + b"\r\n"
        for _ in range(16):
            exchange.send(chunk)
            assert exchange.answer() is None
        exchange.send(chunk)
        response = exchange.response()
        assert (response.status, str(MAX_LOCK) in response.text) == (413, True)

    def test_memory(self) -> None:
        """The memory of all bodies is bounded; a further one is a 503 until one has been read."""
        self.put(server, "MAX_BODIES", 2 * MAX_BODY + 2)
        body = ("demo==1.0\n#" + "x" * MAX_BODY)[: MAX_BODY + 1]
        waiting = [self.begin(len(body)) for _ in range(2)]
        small = self.ask("POST", LINUX, body="demo==1.0")
        assert small.status == 200
        refused = self.begin(len(body))
        response = refused.response()
        assert (response.status, response.headers["retry-after"]) == (503, "5")
        waiting[0].send(body.encode())
        assert waiting[0].response().status == 200
        waiting[1].leave()
        for _ in range(2):
            again = self.begin(len(body))
            assert again.answer() is None
            again.send(b"\0" * len(body))
            assert again.response().status == 400

    def begin(self, length: int) -> Exchange:
        exchange = self.connect()
        exchange.ask("POST", LINUX, f"Content-Length: {length}")
        return exchange


class Streaming(PrefetchCase):
    """A lock of many projects, with one file each."""

    def setUp(self) -> None:
        super().setUp()
        self.names = [f"p{number}" for number in range(20)]
        self.silences = {}
        for name in self.names:
            filename = f"{name}-1-py3-none-any.whl"
            self.silences[name] = silence = Silence()
            self.agent.at(INDEX + f"{name}/", page(entry(filename, b"x"), name=name))
            self.agent.at(FILES + filename, silence)
        self.lock = "".join(f"{name}==1\n" for name in self.names)

    def downloads(self) -> int:
        return len([url for url in self.agent.urls() if url.startswith(FILES)])

    def test_lines_come_at_once(self) -> None:
        """Each line is sent when its file has ended, and the next file begins."""
        exchange = self.connect()
        exchange.ask("POST", LINUX, body=self.lock)
        for ended, name in enumerate(self.names):
            assert self.downloads() == min(8 + ended, 20)
            self.silences[name].answer(Reply(200, b"x"))
            last = exchange.receive().decode().rstrip().rpartition('{"file"')[2]
            assert f'"{name}-1-py3-none-any.whl","outcome":"fetched"' in last
        assert lines_of(exchange.response().body)[-1]["files"] == 20

    def test_same_connection(self) -> None:
        """The connection takes the next request afterwards."""
        exchange = self.connect()
        for _ in range(2):
            exchange.ask("POST", LINUX, body="demo==1.0")
            assert exchange.response().status == 200
        assert not exchange.closed

    def test_old_client(self) -> None:
        """A client of HTTP/1.0 gets the same lines, up to the end of the connection."""
        exchange = self.connect()
        body = b"demo==1.0"
        head = f"POST {LINUX} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
        exchange.send(head.encode() + body)
        response = exchange.response()
        assert (lines_of(response.body)[-1]["files"], exchange.closed) == (1, True)

    def test_joined(self) -> None:
        """A file that a client waits for already is downloaded once."""
        waiting = self.connect()
        waiting.ask("GET", "/index/p0/p0-1-py3-none-any.whl")
        exchange = self.connect()
        exchange.ask("POST", LINUX, body="p0==1")
        assert self.downloads() == 1
        self.silences["p0"].answer(Reply(200, b"x"))
        assert waiting.response().body == b"x"
        assert lines_of(exchange.response().body)[0]["bytes"] == 1

    def test_client_leaves(self) -> None:
        """Once the client has left, no further file is fetched; downloads under way go on."""
        exchange = self.connect()
        exchange.ask("POST", LINUX, body=self.lock)
        exchange.hang_up()
        for name in self.names[:8]:
            self.silences[name].answer(Reply(200, b"x"))
        assert self.downloads() == 8
        assert self.mirror.ready("p0", "p0-1-py3-none-any.whl") is not None
        assert self.unhandled() == []

    def test_a_bug(self) -> None:
        """An error of proxpi's own breaks the response off, and ends the fetching."""

        async def fail(*_: object) -> None:
            raise ZeroDivisionError

        exchange = self.connect()
        exchange.ask("POST", LINUX, body=self.lock)
        self.put(type(self.mirror), "whole", fail)
        self.silences["p0"].answer(Reply(200, b"x"))
        assert exchange.aborted
        assert self.downloads() == 8
        [failure] = self.unhandled()
        assert failure.check(ZeroDivisionError)

    def test_client_that_does_not_read(self) -> None:
        """A client that reads no lines gets no more fetched, costs little, and delays no other."""
        names = [f"demo-1.0-{number}-py3-none-{'any' * 50}.whl" for number in range(5000)]
        lock = pylock(*names, digests=dict.fromkeys(names, sha256(b"")))
        exchange = self.connect(capacity=4096)
        exchange.ask("POST", EVERY, body=lock)
        assert BUFFER < exchange.channel.output.unsent < 2 * BUFFER
        assert self.prefetch("demo==1.0")[1]["fetched"] == 1
        assert BUFFER < exchange.channel.output.unsent < 2 * BUFFER
        lines = lines_of(exchange.response().body)
        assert {line["file"] for line in lines[:-1]} == {*names}
        assert lines[-1]["failed"] == 5000
