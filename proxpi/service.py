"""The service that twistd runs: start, announcement and stop of the parts, by a deadline.

:class:`Proxpi` is *built*, *listening* (as root if twistd was started so), *started* (the cache
folder is scanned; requests are answered once the reactor runs), *stopping* (nothing listens,
responses under way are drained, then the state of the cache folder is saved) and *stopped*. An
endpoint that refuses ends the start with one line.

:class:`Shutdown` ends the process even if peers, threads, disks or log pipes hang. SIGTERM, SIGINT
and SIGHUP (a terminal was closed) are blocked in every thread but one, which takes them: so they
take effect even if the reactor hangs. That thread has four states:

* *running*: it waits for a signal, and stops the reactor.
* *draining*: until the drain timeout has passed. A second signal aborts the drain.
* *closing*: :data:`CLOSING` seconds for all that follows the drain.
* *overdue*: the process still runs. The thread removes temporary files, in :data:`CLEANING`
  seconds at most, and ends the process by its signal. As the first process of a container, which
  no signal of its own ends, it exits with status 0.

A process that ends in time never reaches the last state: the reactor stops, and twistd ends it.
"""

from __future__ import annotations

import gc
import os
import re
import shlex
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from shutil import rmtree
from typing import Any, Protocol

import attrs
from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, TimeoutError, gatherResults, maybeDeferred
from twisted.internet.endpoints import UNIXServerEndpoint, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import HTTPConnectionPool

from proxpi import __version__, local_files
from proxpi.config import DEFAULT_VIEW
from proxpi.files import CacheDir, Mirror
from proxpi.index import ListEntries, PageEntries
from proxpi.resources import StartFailed, make_folder
from proxpi.settings import Given, Settings, setting
from proxpi.simple import urls
from proxpi.upstream import Netrc, Proxies, UpstreamClient
from proxpi.web import ConnectionLimiter, ResponseCache, Site

#: Seconds between two times that uses of cached responses are counted as uses of their files.
COUNT_INTERVAL = 60.0
#: Seconds for which the stop waits until the state of the cache folder is written.
CLOSE_TIMEOUT = 0.5
#: Connections that may wait to be accepted; the system may allow fewer. With Twisted's 50 most of
#: a thousand clients that connect at once would wait for a second or more.
BACKLOG = 4096

#: Seconds for all that follows the drain. Together with `CLEANING` they stay below the one second
#: that the end may take, and leave some of it to the system.
CLOSING = 0.7
#: Seconds for the removal of temporary files if the reactor hangs.
CLEANING = 0.1
#: Seconds between two checks for a second signal.
POLL = 0.05

_log = Logger(namespace="proxpi")


class Background(Protocol):
    """A part that works without a request: it watches a file, or refreshes what it knows."""

    def start(self) -> None: ...

    def stop(self) -> Deferred[None] | None:
        """End the work; return a Deferred of its end, or ``None`` if it has ended."""


@attrs.define(eq=False, kw_only=True)
class Proxpi(Service):
    """Starts and stops the parts.

    :ivar owner: the user id that the process changes to, if any
    :ivar background: started once proxpi listens, and stopped when it does not any more
    """

    settings: Settings
    reactor: Any
    owner: int | None
    netrc: Netrc
    proxies: Proxies
    pool: HTTPConnectionPool
    upstream: UpstreamClient
    pages: PageEntries
    projects: ListEntries
    cache_dir: CacheDir
    mirror: Mirror
    limiter: ConnectionLimiter
    response_cache: ResponseCache
    site: Site
    background: Sequence[Background] = ()
    _counting: LoopingCall = attrs.field(init=False)
    _ports: list[tuple[str, IListeningPort]] = attrs.field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self._counting = LoopingCall(self.cache_dir.count_uses)
        self._counting.clock = self.reactor

    def privilegedStartService(self) -> None:
        """Make the cache folder and listen; raises :exc:`StartFailed` if either is refused."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        if self.settings.cache_dir is not None:
            make_folder(self.cache_dir.folder, "PROXPI_CACHE_DIR", 0o777, self.owner)
        for description in self.settings.listen:
            failures: list[Failure] = []
            endpoint = serverFromString(self.reactor, description)
            if isinstance(endpoint, UNIXServerEndpoint):
                _remove_abandoned(endpoint._address)
            listening = endpoint.listen(self.site)
            listening.addCallback(self._listening, description)
            listening.addErrback(failures.append)
            if failures:
                raise _cannot_listen(self.settings.given("listen", description), failures[0])

    def _listening(self, port: IListeningPort, description: str) -> None:
        self._ports.append((description, port))
        listener = getattr(port, "socket", None)
        if listener is not None and "backlog=" not in description:
            listener.listen(BACKLOG)

    def startService(self) -> None:
        """Scan the cache folder, and log the settings that matter to an operator."""
        super().startService()  # type: ignore[no-untyped-call]
        if self.settings.cache_dir is None:
            # Not earlier: twistd changes the user before this.
            make_folder(self.cache_dir.folder, "TMPDIR", 0o700)
        self.cache_dir.prepare()
        self._counting.start(COUNT_INTERVAL, now=False)
        self._log_settings()
        for part in self.background:
            part.start()
        # The reactor handles signals once it runs, and a reader of this line may send one.
        self.reactor.callWhenRunning(self._announce)
        # The collector skips all objects made so far. Otherwise each full collection would take
        # longer than any work on a large page. (They hold next to no garbage, and a collection
        # before this would add 25 ms to the start.)
        gc.freeze()

    def _log_settings(self) -> None:
        for warning in (*self.settings.warnings, self.netrc.error):
            if warning is not None:
                _log.warn("{warning}", warning=warning)
        if self.settings.disable_index_ssl_verification:
            _log.warn("PROXPI_DISABLE_INDEX_SSL_VERIFICATION: certificates are NOT checked")
        if self.settings.offline:
            _log.info("PROXPI_OFFLINE: no connection is made upstream")
        for url in filter(local_files.is_local, self.settings.index_urls):
            if not os.path.isdir(local_files.path_of(url)):
                _log.warn("{url} is no folder now: no page can be made of it", url=url)
        for view in self.settings.views:
            if view.name != DEFAULT_VIEW:
                path, indexes = f"/{view.name}/index/", ", ".join(view.indexes)
                _log.info("{path} has the indexes {indexes}", path=path, indexes=indexes)
        for scheme, proxy in (("http", self.proxies.http), ("https", self.proxies.https)):
            if proxy is not None:
                _log.info("{scheme} goes through {proxy}", scheme=scheme, proxy=proxy.name)

    def _announce(self) -> None:
        _log.info(
            "proxpi {version} listening on {addresses} for {indexes} with files in {folder}",
            version=__version__,
            addresses=" and ".join(_address(to, port) for to, port in self._ports),
            indexes=" and ".join(map(urls.loggable, self.settings.index_urls)),
            folder=self.cache_dir.folder.resolve(),
        )

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await gatherResults([maybeDeferred(port.stopListening) for _, port in self._ports])
        ends = [self._end(part) for part in self.background]
        await self.limiter.drain(self.settings.drain_timeout)
        if self._counting.running:
            self._counting.stop()
        # An upstream may leave the close of its connection unanswered: nothing waits for that.
        self.pool.closeCachedConnections()
        closed = self.cache_dir.close()
        with suppress(TimeoutError):  # a disk that hangs does not hold up the stop
            await closed.addTimeout(CLOSE_TIMEOUT, self.reactor)
        await gatherResults(ends)
        self.remove_temporary()

    def _end(self, part: Background) -> Deferred[Any]:
        """Stop a part; the Deferred fires with success, and in time."""
        ended: Deferred[Any] = maybeDeferred(part.stop).addTimeout(CLOSE_TIMEOUT, self.reactor)
        return ended.addErrback(lambda failure: _log.failure("{part}", failure, part=part))

    def abort_drain(self) -> None:
        self.limiter.abort_drain()

    def remove_temporary(self) -> None:
        """Remove the cache folder if it was made for this process alone."""
        if self.settings.cache_dir is None:
            rmtree(self.cache_dir.folder, ignore_errors=True)


@attrs.define(eq=False)
class Shutdown(Service):
    """Takes the signals that end the process, and ends it at the deadline.

    :ivar drain_timeout: seconds for the drain
    :ivar abort_drain: aborts the drain; called on the reactor's thread at a second signal
    :ivar clean: removes temporary files; called in a thread if the reactor hangs
    """

    _reactor: Any
    drain_timeout: float
    abort_drain: Callable[[], object]
    clean: Callable[[], object]
    _signals: set[signal.Signals] = attrs.field(init=False, factory=set)

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        # A process that was started to ignore the others goes on to do so.
        others = (signal.SIGINT, signal.SIGHUP)
        taken = {each for each in others if signal.getsignal(each) != signal.SIG_IGN}
        self._signals = {signal.SIGTERM} | taken
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        threading.Thread(target=self._watch, name="proxpi signals", daemon=True).start()
        # By then the reactor has installed its own handlers.
        self._reactor.callWhenRunning(self._handle_by, signal.SIG_DFL)
        self._reactor.addSystemEventTrigger("after", "shutdown", self._release)

    def _handle_by(self, handler: signal.Handlers) -> None:
        for number in self._signals:
            signal.signal(number, handler)

    def _release(self) -> None:
        # twistd ends the process by the first signal; further ones are dropped.
        self._handle_by(signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)

    def _watch(self) -> None:
        number = signal.sigwait(self._signals)
        stop = self._reactor.sigInt if number == signal.SIGINT else self._reactor.sigTerm
        self._reactor.callFromThread(stop, number)
        deadline = time.monotonic() + self.drain_timeout
        while time.monotonic() < deadline:
            if signal.sigpending() & self._signals:
                self._reactor.callFromThread(self.abort_drain)
                break
            time.sleep(min(POLL, max(0.0, deadline - time.monotonic())))
        time.sleep(CLOSING)
        with suppress(RuntimeError):  # the system has no threads left
            cleaner = threading.Thread(target=self.clean, name="proxpi cleaner", daemon=True)
            cleaner.start()
            cleaner.join(CLEANING)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
        os._exit(0)


def _remove_abandoned(path: str) -> None:
    """
    Remove a unix socket that nothing listens to any more, with its lock.

    Twisted takes a lock for abandoned once no process has its number. That of a container's first
    process is 1 each time.
    """
    with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
        try:
            client.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            os.unlink(f"{path}.lock")


def _cannot_listen(given: Given, failure: Failure) -> StartFailed:
    error, accepted = failure.value, "an endpoint that is free and may be used"
    cause = error.socketError if isinstance(error, CannotListenError) else error
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    why = " ".join(text.split()).rstrip(".").lower()
    match = re.match(r"((?:haproxy:)?(?:tcp6?|ssl|tls):)(\d+)", given.text)
    if match and why == "address already in use":
        free = f"{match[1]}{int(match[2]) % 65535 + 1}{given.text[match.end() :]}"
        why = f"port {match[2]} is in use"
        accepted = f"a free one, such as --listen={shlex.quote(free)},"
    return StartFailed(f"proxpi: {setting('listen').refusal(given, why, accepted)}")


def _address(description: str, port: IListeningPort) -> str:
    host = port.getHost()
    if not isinstance(host, (IPv4Address, IPv6Address)):
        return description
    scheme = "https" if description.startswith(("ssl:", "tls:")) else "http"
    name = f"[{host.host}]" if ":" in host.host else host.host
    return f"{scheme}://{name}:{host.port}/index/"
