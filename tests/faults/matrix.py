"""Runs the rows of the table, many at a time: most of their time is waiting.

Each row has an upstream, which fails and recovers three times, and a cache folder that three
processes use one after the other; each but the last is killed:

1. With a time to live of half an hour: fills the cache, sees the upstream fail, is asked for fresh
   pages and for projects that are not cached, and sees the upstream recover.
2. With the same time to live, while the upstream fails.
3. With a time to live that ends at once: is asked for stale pages from before the restart, sees
   the upstream recover, fail, and recover.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path

import attrs

from tests.faults.table import SOON, Failure, State
from tests.support.certificates import make_certificate
from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex, Seen
from tests.support.names import Names
from tests.support.processes import EXPIRED_AT_ONCE
from tests.support.proxy import Proxy, Reply
from tests.support.servers import Gate

#: Rows that run at a time, and processes that start at a time.
ROWS = 14
_starting = threading.BoundedSemaphore(2)

JSON, HTML = "application/vnd.pypi.simple.v1+json", "text/html"
PAGE, LIST, COLD, COLD_2 = "/index/known/", "/index/", "/index/cold/", "/index/cold-2/"
WHEEL = make_wheel("known")
FILE = f"/index/known/{WHEEL.filename}"
PASSWORD = "s3cret-w0rd"

#: Responses by path and ``Accept``.
Replies = dict[tuple[str, str], Reply]


@attrs.frozen
class Answer:
    """A response, the seconds that it took, and the response before the failure."""

    reply: Reply
    seconds: float
    old: Reply | None = None


@attrs.frozen
class Outcome:
    """The responses in one state: to the first clients, at the same time, and to later ones.

    :ivar upstream: requests that the upstream has seen meanwhile
    """

    first: list[Answer]
    then: list[Answer] = attrs.field(factory=list)
    upstream: Sequence[Seen] = ()


@attrs.define
class Story:
    """The responses and the log of one row.

    :ivar recoveries: seconds until all responses were new, and these
    :ivar error: the error that ended it early
    """

    outcomes: dict[State, Outcome] = attrs.field(factory=dict)
    recoveries: dict[str, tuple[float, list[Reply]]] = attrs.field(factory=dict)
    files: list[Reply] = attrs.field(factory=list)
    output: str = ""
    error: BaseException | None = None


@attrs.define
class Upstream:
    """An index that fails as its row says, and recovers."""

    failure: Failure
    folder: Path
    index: FakeIndex
    gate: Gate
    names: Names | None
    certificates: dict[str, Path]

    @classmethod
    @contextmanager
    def running(cls, failure: Failure, folder: Path) -> Iterator[Upstream]:
        fault = failure.fault
        with ExitStack() as stack:
            with _starting:
                index = stack.enter_context(FakeIndex())
            gate = stack.enter_context(Gate(int(index.origin.rpartition(":")[2])))
            names = None
            if fault.names != "known":
                names = stack.enter_context(Names(folder, gate.host))
            certificates = {
                name: make_certificate(folder, name, gate.host, expired=name == "expired")
                for name in ("good", "expired", "untrusted")
                if fault.tls
            }
            trusted = [certificates[name] for name in ("good", "expired") if fault.tls]
            (folder / "trusted.pem").write_text("".join(pem.read_text() for pem in trusted))
            if fault.private:
                index.require_auth("user", PASSWORD)
            gate.open(certificates.get("good"))
            for project in ("known", "cold", "cold-2"):
                index.add(make_wheel(project))
            yield cls(failure, folder, index, gate, names, certificates)

    def fail(self) -> None:
        fault = self.failure.fault
        match fault.gate:
            case "closed":
                self.gate.close()
            case "clogged":
                self.gate.clog()
            case "plain":
                self.gate.answer(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            case "expired" | "untrusted":
                self.gate.open(self.certificates[fault.gate])
        if self.names is not None:
            self.names.mood = fault.names
            # An open connection needs no name.
            self.gate.open()
        if fault.behavior != Behavior():
            self.index.script("/simple/*", fault.behavior)

    def recover(self, version: str) -> None:
        """Recover, with a new version of the project and a new project."""
        self.index.add(make_wheel("known", version))
        self.index.add(make_wheel(f"since-{version.replace('.', '-')}"))
        self.index.clear_requests()
        self.index.script("/simple/*")
        if self.names is not None:
            self.names.mood = "known"
        if self.failure.fault.gate != "open":
            self.gate.open(self.certificates.get("good"))

    @contextmanager
    def proxy(self, story: Story, ttl: str) -> Iterator[Proxy]:
        """A proxpi in front of it, with the row's own cache folder; killed at the end."""
        scheme = "https" if self.certificates else "http"
        login = f"user:{PASSWORD}@" if self.failure.fault.private else ""
        host = "index.test" if self.names else self.gate.host
        settings = {
            "PROXPI_INDEX_URL": f"{scheme}://{login}{host}:{self.gate.port}/simple/",
            "PROXPI_INDEX_TTL": ttl,
            "PROXPI_CACHE_DIR": str(self.folder / "cache"),
            "PROXPI_DOWNLOAD_TIMEOUT": "30",
        }
        if self.certificates:
            settings["SSL_CERT_FILE"] = str(self.folder / "trusted.pem")
        within = self.names.within if self.names is not None else ()
        proxy = Proxy(settings, folder=self.folder, within=within)
        with _starting:
            proxy.__enter__()
        try:
            yield proxy
        finally:
            proxy.stop(signal.SIGKILL)
            story.output += proxy.output


def ask(proxy: Proxy, path: str, accept: str, old: Reply | None = None) -> Answer:
    started = time.monotonic()
    reply = proxy.get(path, Accept=accept)
    return Answer(reply, time.monotonic() - started, old)


def _at_the_same_time(proxy: Proxy, *requests: tuple[str, str, Reply | None]) -> list[Answer]:
    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(lambda request: ask(proxy, *request), requests))


def _fill(proxy: Proxy) -> Replies:
    """Request page and list in all representations before anything fails."""
    pages = product((PAGE, LIST), (JSON, HTML))
    return {(path, accept): proxy.get(path, Accept=accept) for path, accept in pages}


def _ask_again(proxy: Proxy, old: Replies) -> list[Answer]:
    return [ask(proxy, path, accept, reply) for (path, accept), reply in old.items()]


def _ask_for_fresh(proxy: Proxy, old: Replies, upstream: Upstream) -> Outcome:
    before = len(upstream.index.requests())
    first = _ask_again(proxy, old)
    return Outcome(first, upstream=upstream.index.requests()[before:])


def _ask_for_stale(proxy: Proxy, old: Replies) -> Outcome:
    first = _at_the_same_time(proxy, (PAGE, JSON, old[PAGE, JSON]), (LIST, HTML, old[LIST, HTML]))
    return Outcome(first, _ask_again(proxy, old))


def _see_recovery(
    proxy: Proxy, upstream: Upstream, version: str, *paths: str
) -> tuple[float, list[Reply]]:
    """Let the upstream recover, and send requests until the responses are new."""
    upstream.recover(version)
    started = time.monotonic()
    replies = []
    for path in paths:
        reply = proxy.get(path, Accept=JSON)
        while _is_old(reply) and time.monotonic() < started + SOON + 1:
            time.sleep(0.2)
            reply = proxy.get(path, Accept=JSON)
        replies.append(reply)
    return time.monotonic() - started, replies


def _is_old(reply: Reply) -> bool:
    return reply.status != 200 or reply.headers["x-cache"] == "STALE"


def _run(story: Story, upstream: Upstream) -> None:
    with upstream.proxy(story, "1800") as proxy:
        old = _fill(proxy)
        story.files.append(proxy.get(FILE))
        upstream.fail()
        story.outcomes["fresh"] = _ask_for_fresh(proxy, old, upstream)
        cold = _at_the_same_time(proxy, (COLD, JSON, None), (COLD_2, HTML, None))
        story.outcomes["cold"] = Outcome(cold)
        story.recoveries["cold"] = _see_recovery(proxy, upstream, "1.1", COLD, COLD_2)
        upstream.fail()
    with upstream.proxy(story, "1800") as proxy:
        story.outcomes["restarted fresh"] = _ask_for_fresh(proxy, old, upstream)
    with upstream.proxy(story, EXPIRED_AT_ONCE) as proxy:
        story.outcomes["restarted expired"] = _ask_for_stale(proxy, old)
        story.files.append(proxy.get(FILE))
        story.recoveries["restarted"] = _see_recovery(proxy, upstream, "1.2", PAGE, LIST)
        old = _fill(proxy)
        upstream.fail()
        story.outcomes["expired"] = _ask_for_stale(proxy, old)
        story.recoveries["expired"] = _see_recovery(proxy, upstream, "1.3", PAGE, LIST)


def run_all(failures: Sequence[Failure], folder: Path) -> dict[str, Story]:
    """Run rows of the table, each in a folder of its own; those that wait longest begin."""

    def run_one(failure: Failure) -> Story:
        own = folder / failure.name
        own.mkdir()
        story = Story()
        try:
            with Upstream.running(failure, own) as upstream:
                _run(story, upstream)
        except Exception as error:  # noqa: BLE001 (a test shows it)
            story.error = error
        return story

    in_turn = sorted(failures, key=lambda failure: not failure.keeps_waiting)
    with ThreadPoolExecutor(ROWS) as pool:
        stories = pool.map(run_one, in_turn)
        return {row.name: story for row, story in zip(in_turn, stories, strict=True)}
