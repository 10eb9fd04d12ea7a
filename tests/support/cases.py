"""Base cases: synchronous tests, tests with a folder, and tests of all of proxpi.

:class:`ProxpiCase` builds proxpi as ``proxpi.tap`` does, with a clock, an agent in memory and
threads that run at once.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from shutil import rmtree
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.trial.unittest import SynchronousTestCase

from proxpi.access_log import AccessLog
from proxpi.files import fetch
from proxpi.problems import Problems
from proxpi.resources import Resources
from proxpi.settings import Settings
from proxpi.tap import build
from proxpi.web.response_cache import ResponseCache
from tests.support.agent import MemoryAgent, Reply
from tests.support.exchange import PEER, Exchange, Readiness, Response

T = TypeVar("T")
E = TypeVar("E", bound=Exception)

INDEX = "https://index.example/simple/"
PRIVATE_INDEX = "https://user:secret@index.example/simple/"
FILES = "https://files.example/packages/"
MIB = 1 << 20
HOST = "proxpi.example"
JSON = "application/vnd.pypi.simple.v1+json"


def problems_at(clock: IReactorTime) -> Problems:
    """Make an empty list of problems, whose epoch is the beginning of the clock."""
    return Problems(clock.seconds, clock.seconds)


def run(work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    return Deferred.fromCoroutine(work)


def at_once(job: Callable[[], T]) -> Deferred[T]:
    return maybeDeferred(job)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(
    filename: str, data: bytes, *, url: str = "", metadata: Any = None, **keys: Any
) -> dict[str, Any]:
    """
    Return what an index says of a file; ``hashes={}`` and ``size=None`` take these away.

    :param metadata: ``core-metadata``
    """
    said: dict[str, Any] = {
        "filename": filename,
        "url": url or FILES + filename,
        "hashes": {"sha256": sha256(data)},
        "size": len(data),
        "core-metadata": metadata,
        **keys,
    }
    return {key: value for key, value in said.items() if value is not None}


def page(*entries: dict[str, Any], name: str = "demo") -> Reply:
    document = {"meta": {"api-version": "1.1"}, "name": name, "versions": [], "files": entries}
    return Reply(200, json.dumps(document).encode(), {"Content-Type": JSON})


def root_list(names: Iterable[str]) -> Reply:
    document = {"meta": {"api-version": "1.4"}, "projects": [{"name": name} for name in names]}
    return Reply(200, json.dumps(document).encode(), {"Content-Type": JSON})


class Case(SynchronousTestCase):
    """Synchronous tests, with what they ask of Deferreds in typed words."""

    def result(self, deferred: Deferred[T]) -> T:
        return self.successResultOf(deferred)

    def error(self, deferred: Deferred[Any], kind: type[E]) -> E:
        failure = self.failureResultOf(deferred, kind)  # type: ignore[no-untyped-call]
        error: E = failure.value
        return error

    def pending(self, deferred: Deferred[Any]) -> None:
        self.assertNoResult(deferred)  # type: ignore[no-untyped-call]

    def put(self, owner: object, name: str, value: object) -> None:
        self.patch(owner, name, value)  # type: ignore[no-untyped-call]

    def unhandled(self) -> list[Any]:
        """Return the errors that went to the log, those of forgotten Deferreds among them."""
        gc.collect()
        return list(self.flushLoggedErrors())  # type: ignore[no-untyped-call]


class FolderCase(Case):
    """Tests with a folder of their own, which must not leave a file open."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(tempfile.mkdtemp(prefix="proxpi-test-"))
        self.addCleanup(rmtree, self.folder)

    def open_files(self) -> list[str]:
        """Return the open files of this process below the folder, deleted ones included."""
        found = []
        for descriptor in {*os.listdir("/proc/self/fd")} - {*map(str, self.kept_descriptors())}:
            try:
                path = os.readlink(f"/proc/self/fd/{descriptor}")
            except FileNotFoundError:  # the one by which the list was read
                continue
            if path.startswith(f"{self.folder}/"):
                found.append(path)
        return found

    def new_folder(self) -> Path:
        """Make a folder outside of the cache folder, which the end of the test removes."""
        folder = Path(tempfile.mkdtemp(prefix="proxpi-test-"))
        self.addCleanup(rmtree, folder)
        return folder

    def kept_descriptors(self) -> list[int]:
        return []

    def leftovers(self) -> list[str]:
        own = self.folder / ".proxpi"
        return [path.name for path in own.glob("partial-*")]


class ProxpiCase(FolderCase):
    """Tests of all of proxpi; :meth:`build` makes one with other settings."""

    def setUp(self) -> None:
        super().setUp()
        self.put(fetch, "PAUSE", 0.0)
        self.clock = Readiness()
        self.agent = MemoryAgent()
        self.response_cache = ResponseCache()
        self.build()

    def build(
        self,
        *,
        index: str = INDEX,
        ttl: float = 1800.0,
        capacity: int = 100 * MIB,
        timeout: float = 0.9,
        any_type: bool = False,
        stream: bool = False,
        prefetch: bool = False,
        connections: int = 32,
        client_descriptors: int = 1000,
        open_files: int = 100,
        rules: str = "",
        extra: str = "",
        trusted_proxies: str = "",
        token: str = "",
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        Build proxpi anew.

        :param rules: lines of the table of rules, and any tables behind it
        :param extra: the URLs of extra indexes
        :param trusted_proxies: the text of that setting
        :param token: the admin token
        :param wall: gives the seconds since the epoch
        """
        config = self.new_folder() / "proxpi.toml"
        config.write_text(f"[rules]\n{rules}\n")
        settings = {
            "CONFIG": str(config),
            "INDEX_URL": index,
            "INDEX_TTL": str(ttl),
            "EXTRA_INDEX_URLS": extra,
            "CACHE_SIZE": str(capacity),
            "CACHE_DIR": str(self.folder),
            "DOWNLOAD_TIMEOUT": str(timeout),
            "BINARY_FILE_MIME_TYPE": "on" if any_type else "off",
            "SLOW_DOWNLOAD": "stream" if stream else "redirect",
            "HOSTS": HOST,
            "TRUSTED_PROXIES": trusted_proxies,
            "ADMIN_TOKEN": token,
            "PREFETCH": "on" if prefetch else "off",
            "UPSTREAM_CONNECTIONS": str(connections),
        }
        self.response_cache.invalidate(None)
        self.access_log: list[str] = []
        self.health_log: list[str] = []
        proxpi = build(
            Settings.read({f"PROXPI_{name}": text for name, text in settings.items()}, {}),
            self.clock,
            environment={"HOME": str(self.folder)},
            resources=Resources(
                pages=at_once,
                writes=at_once,
                reads=at_once,
                checks=at_once,
                client_descriptors=client_descriptors,
                open_files=open_files,
            ),
            access=AccessLog(self.access_log.append, self.health_log.append),
            agent=self.agent,
            wall=wall,
        )
        self.upstream, self.cache_dir = proxpi.upstream, proxpi.cache_dir
        self.mirror, self.site = proxpi.mirror, proxpi.site
        self.pages, self.projects = proxpi.pages, proxpi.projects
        self.limiter, self.response_cache = proxpi.limiter, proxpi.response_cache
        self.addCleanup(self.response_cache.invalidate, None)
        self.cache_dir.prepare()

    def kept_descriptors(self) -> list[int]:
        return [entry.held.file.fileno() for entry in self.response_cache if entry.held is not None]

    def serve(
        self, filename: str, data: bytes, *replies: Any, project: str = "demo", **keys: Any
    ) -> None:
        """Let the index list one file, and the upstream have it."""
        listed = entry(filename, data, **keys)
        self.agent.at(f"{INDEX}{project}/", page(listed, name=project))
        self.agent.at(listed["url"], *(replies or [Reply(200, data)]))

    def connect(
        self, *, peer: IAddress = PEER, tls: bool = False, capacity: int | None = None
    ) -> Exchange:
        exchange = Exchange(self.site, self.clock, peer, tls=tls, capacity=capacity)
        self.addCleanup(exchange.hang_up)
        return exchange

    def ask(
        self,
        method: str,
        target: str | bytes,
        *headers: str | bytes,
        body: str = "",
        within: float = 0.0,
    ) -> Response:
        """Ask on a connection of its own, and give the answer, which has to come in time."""
        exchange = self.connect()
        exchange.ask(method, target, *headers, body=body)
        self.clock.pump([0.25] * int(within * 4))
        answer = exchange.answer()
        assert answer is not None, "no answer yet"
        exchange.hang_up()
        return answer

    def get(self, target: str | bytes, *headers: str | bytes) -> Response:
        return self.ask("GET", target, *headers)
