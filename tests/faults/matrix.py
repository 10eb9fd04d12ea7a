"""Runs the lines of the table, many at a time: what they do most is to wait.

For each line there is an upstream, broken and mended three times, and a cache folder that three
processes use one after the other, each of which but the last is killed:

1. With a time to live of half an hour: fills the cache, sees the upstream fail, is asked for what
   is fresh and for what nobody has asked for yet, and sees the upstream come back.
2. The same again while the upstream fails.
3. With a time to live of next to nothing: is asked for pages past their time from before the
   restart, sees the upstream come back, and fail, and come back.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from tests.faults.table import SOON, Failure, State
from tests.support.behavior import Behavior, Seen
from tests.support.certificates import make_certificate
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.gate import Gate
from tests.support.names import Names
from tests.support.proxy import Proxy, Reply

#: Lines that run at a time, and processes that start at a time.
LINES = 14
_starting = threading.BoundedSemaphore(2)

LONG, NEXT_TO_NOTHING = "1800", "0.000001"
JSON = {"Accept": "application/vnd.pypi.simple.v1+json"}
HTML = {"Accept": "text/html"}
FORMS = {form["Accept"]: form for form in (JSON, HTML)}
PAGE, LIST, COLD, COLD_2 = "/index/known/", "/index/", "/index/cold/", "/index/cold-2/"
PASSWORD = "s3cret-w0rd"


@attrs.frozen
class Asked:
    """A question, what came, after how many seconds, and what would have come before."""

    what: str
    reply: Reply
    seconds: float
    old: Reply | None = None


@attrs.frozen
class Outcome:
    """What became of a state.

    :ivar first: what was asked for when the upstream had just failed, all at the same time
    :ivar then: what was asked for afterwards
    :ivar upstream: requests that the upstream saw meanwhile
    """

    first: list[Asked]
    then: list[Asked] = attrs.field(factory=list)
    upstream: Sequence[Seen] = ()


@attrs.frozen
class Return:
    """How the upstream came back.

    :ivar seconds: until clients got nothing old any more
    :ivar replies: what they got then
    """

    seconds: float
    replies: list[Reply]


@attrs.define
class Story:
    """What became of a line; ``trouble`` is what kept it from its end."""

    outcomes: dict[State, Outcome] = attrs.field(factory=dict)
    returns: dict[str, Return] = attrs.field(factory=dict)
    written: list[str] = attrs.field(factory=list)
    trouble: BaseException | None = None


@attrs.define
class Upstream:
    """An index that fails as a line has it, and comes back."""

    failure: Failure
    folder: Path
    index: FakeIndex
    gate: Gate
    names: Names | None
    certificates: dict[str, Path]

    @classmethod
    @contextmanager
    def running(cls, failure: Failure, folder: Path) -> Iterator[Upstream]:
        """Start it; it is well."""
        trouble = failure.trouble
        with ExitStack() as stack:
            with _starting:
                index = stack.enter_context(FakeIndex())
            gate = stack.enter_context(Gate(int(index.origin.rpartition(":")[2])))
            names = None
            if trouble.names != "known":
                names = stack.enter_context(Names(folder, gate.host))
            certificates = {}
            if trouble.tls:
                for name in ("good", "expired", "untrusted"):
                    certificates[name] = make_certificate(
                        folder, name, gate.host, expired=name == "expired"
                    )
                trusted = certificates["good"], certificates["expired"]
                (folder / "trusted.pem").write_text("".join(pem.read_text() for pem in trusted))
            if trouble.private:
                index.require_auth("user", PASSWORD)
            upstream = cls(failure, folder, index, gate, names, certificates)
            gate.open(certificates.get("good"))
            for project in ("known", "cold", "cold-2"):
                index.add(make_wheel(project))
            yield upstream

    @property
    def url(self) -> str:
        """Its root."""
        trouble = self.failure.trouble
        scheme = "https" if trouble.tls else "http"
        login = f"user:{PASSWORD}@" if trouble.private else ""
        host = "index.test" if self.names else self.gate.host
        return f"{scheme}://{login}{host}:{self.gate.own_port}/simple/"

    def fail(self) -> None:
        """Fail from now on."""
        trouble = self.failure.trouble
        match trouble.gate:
            case "closed":
                self.gate.close()
            case "clogged":
                self.gate.clog()
            case "plain":
                self.gate.answer(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            case "expired" | "untrusted":
                self.gate.open(self.certificates[trouble.gate])
        if self.names is not None:
            self.names.mood = trouble.names
            # A connection that is open needs no name.
            self.gate.open()
        if trouble.behavior != Behavior():
            self.index.script("/simple/*", trouble.behavior)

    def come_back(self, version: str) -> None:
        """Be well again, with a new version of the project and a new project."""
        self.index.add(make_wheel("known", version))
        self.index.add(make_wheel(f"since-{version.replace('.', '-')}"))
        self.index.clear_requests()
        self.index.script("/simple/*")
        if self.names is not None:
            self.names.mood = "known"
        if self.failure.trouble.gate != "open":
            self.gate.open(self.certificates.get("good"))

    @contextmanager
    def proxy(self, ttl: str) -> Iterator[Proxy]:
        """A proxpi in front of it, with the line's own cache folder; killed at the end."""
        settings = {
            "PROXPI_INDEX_URL": self.url,
            "PROXPI_INDEX_TTL": ttl,
            "PROXPI_CACHE_DIR": str(self.folder / "cache"),
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


def ask(proxy: Proxy, path: str, form: dict[str, str], old: Reply | None = None) -> Asked:
    """One question, and how long the answer took."""
    started = time.monotonic()
    reply = proxy.request("GET", path, form)
    return Asked(f"{path} as {form['Accept']}", reply, time.monotonic() - started, old)


def _at_the_same_time(*questions: Callable[[], Asked]) -> list[Asked]:
    with ThreadPoolExecutor(len(questions)) as pool:
        return [each.result() for each in [pool.submit(question) for question in questions]]


Old = dict[tuple[str, str], Reply]


def _old(proxy: Proxy, *paths: str) -> Old:
    """What there is in all forms before anything fails."""
    return {
        (path, form["Accept"]): proxy.request("GET", path, form)
        for path in paths
        for form in FORMS.values()
    }


def _ask_for_fresh(proxy: Proxy, old: Old, upstream: Upstream) -> Outcome:
    """Ask for everything that there is, in all forms."""
    before = len(upstream.index.requests())
    first = [ask(proxy, path, FORMS[name], reply) for (path, name), reply in old.items()]
    return Outcome(first, upstream=upstream.index.requests()[before:])


def _ask_for_all(proxy: Proxy, old: Old) -> Outcome:
    """Ask for a page and the list at the same time, then for everything that there is."""
    first = _at_the_same_time(
        lambda: ask(proxy, PAGE, JSON, old[PAGE, JSON["Accept"]]),
        lambda: ask(proxy, LIST, HTML, old[LIST, HTML["Accept"]]),
    )
    then = [ask(proxy, path, FORMS[name], reply) for (path, name), reply in old.items()]
    return Outcome(first, then)


def _see_return(proxy: Proxy, upstream: Upstream, version: str, *paths: str) -> Return:
    """See the upstream come back: clients ask now and then, until they get what is new."""
    upstream.come_back(version)
    started = time.monotonic()
    replies = []
    for path in paths:
        reply = proxy.request("GET", path, JSON)
        while _is_old(reply) and time.monotonic() < started + SOON + 1:
            time.sleep(0.2)
            reply = proxy.request("GET", path, JSON)
        replies.append(reply)
    return Return(time.monotonic() - started, replies)


def _is_old(reply: Reply) -> bool:
    return reply.status != 200 or reply.headers["x-cache"] == "STALE"


def tell(failure: Failure, folder: Path) -> Story:
    """Run one line of the table."""
    story = Story()
    try:
        with Upstream.running(failure, folder) as upstream:
            _tell(story, upstream)
    except Exception as error:  # noqa: BLE001 (a test will show it)
        story.trouble = error
    return story


def _tell(story: Story, upstream: Upstream) -> None:
    with upstream.proxy(LONG) as proxy:
        old = _old(proxy, PAGE, LIST)
        upstream.fail()
        story.outcomes["fresh"] = _ask_for_fresh(proxy, old, upstream)
        cold = _at_the_same_time(lambda: ask(proxy, COLD, JSON), lambda: ask(proxy, COLD_2, HTML))
        story.outcomes["cold"] = Outcome(cold)
        story.returns["cold"] = _see_return(proxy, upstream, "1.1", COLD, COLD_2)
        upstream.fail()
    story.written.append(proxy.output)
    with upstream.proxy(LONG) as proxy:
        story.outcomes["restarted fresh"] = _ask_for_fresh(proxy, old, upstream)
    story.written.append(proxy.output)
    with upstream.proxy(NEXT_TO_NOTHING) as proxy:
        story.outcomes["restarted expired"] = _ask_for_all(proxy, old)
        story.returns["restarted"] = _see_return(proxy, upstream, "1.2", PAGE, LIST)
        old = _old(proxy, PAGE, LIST)
        upstream.fail()
        story.outcomes["expired"] = _ask_for_all(proxy, old)
        story.returns["expired"] = _see_return(proxy, upstream, "1.3", PAGE, LIST)
    story.written.append(proxy.output)


def tell_all(failures: Sequence[Failure], folder: Path) -> dict[str, Story]:
    """Run lines of the table, each in a folder of its own."""

    def tell_one(failure: Failure) -> Story:
        own = folder / failure.name
        own.mkdir()
        return tell(failure, own)

    in_turn = sorted(failures, key=lambda failure: not failure.keeps_waiting)
    with ThreadPoolExecutor(LINES) as pool:
        stories = pool.map(tell_one, in_turn)
        return {line.name: story for line, story in zip(in_turn, stories, strict=True)}
