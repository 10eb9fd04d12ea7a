"""The twistd plugin's service, and the only place where the parts meet.

``twistd proxpi`` finds :class:`Options` and :func:`makeService` here.
"""

from __future__ import annotations

import gc
import os
import re
import secrets
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from shutil import rmtree
from typing import Any

import attrs
from twisted.application.service import IService, Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, TimeoutError, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource

from proxpi import __version__, metrics
from proxpi.files.cache_dir import CacheDir
from proxpi.files.mirror import Mirror
from proxpi.index.breaker import Breakers
from proxpi.index.client import IndexClient, Root
from proxpi.index.list_store import ListStore
from proxpi.index.page_cache import PageCache
from proxpi.index.page_store import PageStore
from proxpi.index.project_list import Projects
from proxpi.logs import Logged
from proxpi.options import Options
from proxpi.process import (
    THREADS,
    Share,
    Shutdown,
    StartFailed,
    make_folder,
    pool,
    room,
    temporary_place,
)
from proxpi.settings import Given, Settings, SettingsError, setting
from proxpi.simple import urls
from proxpi.single_flight import Flights
from proxpi.upstream import credentials, tls
from proxpi.upstream.address_policy import AddressPolicy
from proxpi.upstream.client import LIST_LIMIT, PAGE_LIMIT, USER_AGENT, UpstreamClient
from proxpi.upstream.connections import persistent_pool
from proxpi.upstream.connector import Connector
from proxpi.upstream.credentials import Credentials
from proxpi.upstream.dns import DNSResolver
from proxpi.upstream.proxies import Proxies
from proxpi.upstream.proxy_agent import ProxyAgent
from proxpi.web.admin.csrf import machine_names
from proxpi.web.files import Files
from proxpi.web.server import Site
from proxpi.web.simple_api import SimpleApi

__all__ = ["Options", "makeService"]

#: Seconds for which a thread may keep the others waiting. (Python's own 5 ms would be paid by the
#: reactor each time that it comes back from the system: several times for one request.)
TURN = 0.0005
#: Seconds between two times that the uses of ready answers are counted as those of their files.
COUNTING = 60.0
#: Seconds for which the end waits until the state of the cache folder is written.
CLOSING = 0.5
#: Connections that may wait to be accepted; the system may allow fewer.
BACKLOG = 4096

_log = Logger(namespace="proxpi")


class Proxpi(Service):
    """Builds the house from its settings, opens its doors, and closes them.

    :param access: writes a line of the access log
    :param owner: the number of the user that the process is going to be; ``None``: who it is now
    :raises SettingsError: for certificates that cannot be used
    """

    def __init__(
        self,
        settings: Settings,
        proxies: Proxies,
        reactor: Any,
        access: Callable[[str], object],
        owner: int | None = None,
    ) -> None:
        self._settings = settings
        self._access = access
        self._owner = owner
        self._proxies = proxies
        self._reactor = reactor
        self._pool = persistent_pool(reactor, settings.upstream_connections)
        self._index_urls = (settings.index_url, *settings.extra_index_urls)
        # Read here, while the process still is who, and where, it was started.
        self._netrc = credentials.read(os.environ)
        self._credentials = Credentials.gather(
            self._index_urls, self._netrc, certificate=settings.client_cert is not None
        )
        self._tls = tls.policy(
            verify=not settings.disable_index_ssl_verification,
            environment=os.environ,
            ca_bundle=settings.path("ca_bundle"),
            client_cert=settings.path("client_cert"),
            shown_to=self._credentials.certificate_for,
        )
        # What is done with files takes as long as the disk: pages do not wait for it. And a disk
        # that writes slowly may still read well.
        self._pools = [pool(name) for name in ("pages", "writes", "reads")]
        self._in_thread, self._writing, self._reading = (
            partial(deferToThreadPool, reactor, each) for each in self._pools
        )
        self._ports: list[tuple[str, IListeningPort]] = []
        self._temporary: Path | None = None
        if settings.cache_dir is None:
            self._temporary = Path(temporary_place(), f"proxpi-{secrets.token_hex(8)}")
        folder = self._temporary or Path(str(settings.cache_dir))
        self._cache_dir = CacheDir(folder, settings.cache_size, self._writing)
        metrics.CACHE_BYTES.value = lambda: self._cache_dir.used
        metrics.CACHE_CAPACITY.value = lambda: settings.cache_size

    def privilegedStartService(self) -> None:
        """
        Make the cache folder and listen, as root if twistd was started so.

        :raises StartFailed: with one line, if the folder cannot be made, or an address cannot be
            listened on
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        if self._temporary is None:
            make_folder(self._cache_dir.folder, "PROXPI_CACHE_DIR", 0o777, self._owner)
        site = self._built = self._site()
        for description in self._settings.listen:
            failures: list[Failure] = []
            listening = serverFromString(self._reactor, description).listen(site)
            listening.addCallback(lambda port, to=description: self._open(to, port))
            listening.addErrback(failures.append)
            if failures:
                raise _cannot_listen(self._settings.given("listen", description), failures[0])

    def _open(self, description: str, port: IListeningPort) -> None:
        self._ports.append((description, port))
        listener = getattr(port, "socket", None)
        if listener is not None and "backlog=" not in description:
            # Of a crowd that comes at once, Twisted's 50 would let most wait for a second or more.
            listener.listen(BACKLOG)

    def startService(self) -> None:
        """
        Look at the cache folder, and say where everything is.

        :raises StartFailed: with one line, if a temporary one cannot be made
        """
        super().startService()  # type: ignore[no-untyped-call]
        if self._temporary is not None:
            # Not earlier: twistd may have been told to become another user by now.
            make_folder(self._temporary, "TMPDIR", 0o700)
        for each in self._pools:
            each.start()
        self._cache_dir.prepare()
        self._counting.start(COUNTING, now=False)
        for warning in self._settings.warnings:
            _log.warn("{warning}", warning=warning)
        if self._settings.disable_index_ssl_verification:
            _log.warn("PROXPI_DISABLE_INDEX_SSL_VERIFICATION: certificates are NOT checked")
        if self._settings.offline:
            _log.info("PROXPI_OFFLINE: no connection is made upstream")
        if self._netrc.trouble is not None:
            _log.warn("{trouble}", trouble=self._netrc.trouble)
        for scheme, proxy in (("http", self._proxies.http), ("https", self._proxies.https)):
            if proxy is not None:
                _log.info("{scheme} goes through {proxy}", scheme=scheme, proxy=proxy.name)
        # Once the reactor runs, it also heeds signals: whoever waits for this line may send one.
        self._reactor.callWhenRunning(self._announce)
        # What is there by now stays: it need not be looked at whenever garbage is collected, which
        # would take longer than anything that a large page does. (There is next to no garbage among
        # it, and to collect that first would take 25 ms of the start.)
        gc.freeze()

    def _announce(self) -> None:
        _log.info(
            "proxpi {version} listening on {addresses} for {indexes} with files in {folder}",
            version=__version__,
            addresses=" and ".join(_address(to, port) for to, port in self._ports),
            indexes=" and ".join(urls.loggable(source.url) for source in self._sources),
            folder=self._cache_dir.folder.resolve(),
        )

    async def _stop(self) -> None:
        await gatherResults([maybeDeferred(port.stopListening) for _, port in self._ports])
        await self._built.drain(self._settings.drain_timeout)
        if self._counting.running:
            self._counting.stop()
        # Idle connections say goodbye; the answer of an upstream is not waited for.
        self._pool.closeCachedConnections()
        closed = self._cache_dir.close()
        with suppress(TimeoutError):  # a disk that hangs does not hold up the end
            await closed.addTimeout(CLOSING, self._reactor)
        self.remove_temporary()

    def abort_drain(self) -> None:
        """End the waiting for what is being sent."""
        self._built.abort_drain()

    def stopService(self) -> Deferred[None]:
        """Close the doors once all is sent, and remove what was made for this run alone."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    def _way_out(self) -> UpstreamClient:
        settings, reactor = self._settings, self._reactor
        hosts = {urls.origin(url)[1] for url in self._index_urls}
        hosts |= {proxy.host for proxy in (self._proxies.http, self._proxies.https) if proxy}
        resolver = DNSResolver(reactor, settings.connect_timeout, frozenset(hosts))
        address_policy = AddressPolicy(
            self._index_urls,
            settings.allow_hosts,
            resolver.look_up,
            lambda url: self._proxies.to(*urls.origin(url)) is None,
        )
        connector = Connector(reactor, settings.connect_timeout, resolver.look_up, address_policy)
        return UpstreamClient(
            agent=ProxyAgent(
                reactor=reactor,
                pool=self._pool,
                tls=self._tls,
                connector=connector,
                proxies=self._proxies,
                user_agent=USER_AGENT,
            ),
            clock=reactor,
            credentials=self._credentials,
            address_policy=address_policy,
            proxies=self._proxies,
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
            offline=settings.offline,
            connections=settings.upstream_connections,
            page_limit=attrs.evolve(PAGE_LIMIT, size=settings.page_limit),
            list_limit=attrs.evolve(LIST_LIMIT, size=settings.list_limit),
        )

    def _site(self) -> Site:
        settings, reactor = self._settings, self._reactor
        upstream = self._way_out()
        ttls = (settings.index_ttl, *settings.extra_index_ttls)
        self._sources = [
            IndexClient(
                url,
                ttl,
                upstream,
                Share(self._in_thread, THREADS // 2),
                Breakers(urls.public(url), reactor),
                Root(url, upstream, reactor, Flights(reactor)),
            )
            for url, ttl in zip(self._index_urls, ttls, strict=True)
        ]
        store = PageStore(self._cache_dir.own / "pages", reactor)
        pages = PageCache(self._sources, reactor, store, self._in_thread)
        lists = ListStore(self._cache_dir.own / "projects", time.time() - reactor.seconds())
        projects = Projects(self._sources, upstream, reactor, lists, self._in_thread)
        mirror = Mirror(
            pages,
            upstream,
            self._cache_dir,
            reactor,
            settings.download_timeout,
            self._reading,
            settings.slow_download == "stream",
            settings.index_ttl,
        )
        files = Files(mirror, reactor, settings.binary_file_mime_type)
        tree = SimpleApi(pages, projects, files, reactor)
        clients, held = room(len(self._index_urls), settings.upstream_connections)
        hosts = machine_names().union(settings.hosts)

        @cache
        def rest() -> IResource:
            # Klein, of which pages and files know nothing, takes 35 ms and 2 MiB: not at the start.
            from proxpi.web.admin.api import AdminApi

            resource: IResource = AdminApi(pages, projects, mirror, hosts).app.resource()
            return resource

        site = Site(tree, rest, reactor, clients)
        site.access = self._access
        site.response_cache.files = held
        pages.changed = self._cache_dir.changed = site.response_cache.invalidate

        def count_uses() -> None:
            for place, uses in site.response_cache.uses():
                metrics.FILE_HITS.inc(uses)
                self._cache_dir.count(place, uses)

        self._cache_dir.count_uses_by(count_uses)
        metrics.gather.append(count_uses)
        self._counting = LoopingCall(count_uses)
        self._counting.clock = reactor
        return site

    def remove_temporary(self) -> None:
        """Remove the folder that was made for this run alone."""
        if self._temporary is not None:
            rmtree(self._temporary, ignore_errors=True)


def makeService(options: Options) -> IService:
    """
    Make the service for the options of one ``twistd proxpi``.

    :raises StartFailed: with one line, if the certificates that are to be trusted or shown cannot
        be used
    """
    from twisted.internet import reactor  # only now: twistd may have been told which to install

    # Twisted counts time by the wall clock: one that is set back would stop every timer.
    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    sys.setswitchinterval(TURN)
    settings = options.settings
    if settings.cache_dir is not None:
        # Absolute from the start: a daemon changes its working folder.
        settings = attrs.evolve(settings, cache_dir=str(Path(settings.cache_dir).absolute()))
    service = Logged(settings.logging_level, options.parent, reactor)
    try:
        owner = options.parent.get("uid") if options.parent is not None else None
        proxpi = Proxpi(settings, options.proxies, reactor, service.access, owner)
    except SettingsError as error:
        raise StartFailed(f"proxpi: {error}") from None
    if options.parent is not None:
        # twistd runs, so signals are for this service. It starts first.
        shutdown = Shutdown(
            reactor, settings.drain_timeout, proxpi.abort_drain, proxpi.remove_temporary
        )
        shutdown.setServiceParent(service)  # type: ignore[no-untyped-call]
    proxpi.setServiceParent(service)  # type: ignore[no-untyped-call]
    return service


def _cannot_listen(given: Given, failure: Failure) -> StartFailed:
    """Make the error for an endpoint that cannot be listened on."""
    why, accepted = _why(failure), "an endpoint that is free and may be used"
    match = re.match(r"((?:haproxy:)?(?:tcp6?|ssl|tls):)(\d+)", given.text)
    if match and why == "address already in use":
        free = f"{match[1]}{int(match[2]) % 65535 + 1}{given.text[match.end() :]}"
        why = f"port {match[2]} is in use"
        accepted = f"a free one, such as --listen={shlex.quote(free)},"
    return StartFailed(f"proxpi: {setting('listen').refusal(given, why, accepted)}")


def _why(failure: Failure) -> str:
    """Write why an address cannot be listened on, as a part of a sentence."""
    error = failure.value
    cause = error.socketError if isinstance(error, CannotListenError) else error
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return " ".join(text.split()).rstrip(".").lower()


def _address(description: str, port: IListeningPort) -> str:
    """Write an address as people would type it."""
    host = port.getHost()
    if not isinstance(host, (IPv4Address, IPv6Address)):
        return description
    scheme = "https" if description.startswith(("ssl:", "tls:")) else "http"
    name = f"[{host.host}]" if ":" in host.host else host.host
    return f"{scheme}://{name}:{host.port}/index/"
