"""The composition root: :func:`build` makes every part of proxpi and connects it to the others.

Parts are made through their constructors, each after those that it uses; nothing is set on a part
afterwards. Tests build proxpi with the same function and replace what lies outside the process:
the agent, the reactor and the threads. ``twistd proxpi`` finds :class:`Options` and
:func:`makeService` here.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import attrs
from twisted.application.service import IService
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IReactorTime
from twisted.python.util import switchUID
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IAgent
from twisted.web.resource import IResource

from proxpi import metrics
from proxpi import options as command_line
from proxpi.access_log import AccessLog
from proxpi.config import DEFAULT_VIEW as DEFAULT
from proxpi.config import IndexSettings
from proxpi.files import (
    OWN_FOLDER,
    CachedFiles,
    CacheDir,
    CachedResponses,
    DeletionQueue,
    Downloads,
    EvictionIndex,
    Extraction,
    FolderFiles,
    IndexedFile,
    Mirror,
    Progress,
    ProjectPages,
    Quota,
    RangeClient,
    Resolver,
    UsageLog,
    WheelMetadata,
)
from proxpi.history import History
from proxpi.index import (
    Breakers,
    Index,
    IndexClient,
    ListEntries,
    ListStore,
    Member,
    Members,
    PageCache,
    PageEntries,
    PageStore,
    ProjectListCache,
    Root,
    View,
)
from proxpi.local_files import is_local, path_of
from proxpi.logs import Logged
from proxpi.prefetch import Prefetcher
from proxpi.problems import Problems
from proxpi.reactor_lag import ReactorLag
from proxpi.resources import (
    THREADS,
    Resources,
    Share,
    StartFailed,
    allocate,
    temporary_path,
    use_monotonic_time,
)
from proxpi.rules import DenyFiles, Exclusions, Rules
from proxpi.service import Proxpi, Shutdown
from proxpi.settings import Settings
from proxpi.simple import urls
from proxpi.single_flight import Flights, InThread
from proxpi.upstream import (
    LIST_LIMIT,
    PAGE_LIMIT,
    USER_AGENT,
    AddressPolicy,
    ConnectionLimits,
    Connector,
    Credentials,
    DNSResolver,
    Netrc,
    Proxies,
    ProxyAgent,
    UpstreamClient,
    connection_pool,
    credentials,
    tls,
)
from proxpi.values import SettingsError
from proxpi.web import (
    FILES,
    ConnectionLimiter,
    Files,
    Readiness,
    ResponseCache,
    SimpleApi,
    Site,
    TrustedProxies,
    machine_names,
)

if TYPE_CHECKING:
    from proxpi.rules.advisories import Advisories

__all__ = ["Options", "makeService"]

_CHECKS = (
    "Try the settings, the cache folder, each index and each forward proxy once, print a table, "
    "and exit with status 0 if nothing failed."
)

#: Seconds after which a thread has to release the interpreter lock. With Python's own 5 ms the
#: reactor would wait that long after each system call: several times for one request.
SWITCH_INTERVAL = 0.0005


def build(
    settings: Settings,
    reactor: Any,
    *,
    environment: Mapping[str, str],
    resources: Resources,
    access: AccessLog,
    agent: IAgent | None = None,
    owner: int | None = None,
    wall: Callable[[], float] = time.time,
) -> Proxpi:
    """
    Make the service with all of its parts. No connection is made and no folder is written yet.

    :param environment: names forward proxies, netrc and certificates of other programs
    :param access: the access log
    :param agent: sends requests to upstreams in place of the real agent
    :param wall: gives the seconds since the epoch, for the rules
    :raises SettingsError: for a proxy, certificates, a file of rules, or the folder of an index
        that cannot be used
    """
    started = reactor.seconds()
    # Those of folders do not count: their pages and files cost no request upstream.
    ttls = [index.ttl for index in settings.indexes if not is_local(index.url)]
    # A page that is stale at once would be requested again, and clients need the only connection.
    spares = min(ttls, default=0.0) > 0 and settings.upstream_connections > 1
    prefetches = settings.prefetch and not settings.offline and spares
    proxies, netrc = Proxies.read(environment), credentials.read_netrc(environment)
    pool = connection_pool(reactor, settings.upstream_connections)
    response_cache = ResponseCache(resources.open_files)
    upstream_for = partial(
        _upstream, settings, reactor, environment, proxies=proxies, pool=pool, agent=agent
    )
    index_urls = [url for url in settings.index_urls if not is_local(url)]
    upstream = upstream_for(index_urls, netrc=netrc, certificate=settings.client_cert is not None)
    # Absolute from the start: a daemon changes its working folder.
    folder = Path(settings.cache_dir).absolute() if settings.cache_dir else temporary_path()
    folders = index_folders(settings, folder)
    problems = Problems(reactor.seconds, wall)
    cache_dir = cache_folder(
        folder,
        settings.cache_size,
        writes=resources.writes,
        reads=resources.reads,
        seconds=reactor.seconds,
        response_cache=response_cache,
        prefetches=prefetches,
        wall=wall,
        problems=problems,
    )
    # More threads at work would only contend with the reactor for the interpreter lock.
    in_thread = Share(resources.pages, THREADS // 2)
    members = _members(
        settings, reactor, upstream, in_thread, cache_dir.own, problems, resources, wall
    )
    by_name = {index.name: index for index in members.indexes}
    views = [
        View(each.name, tuple(by_name[name] for name in each.indexes), members)
        for each in settings.views
    ]
    deny_files = DenyFiles.open(settings.rules.deny_files, reactor, resources.reads, problems)
    advisories = _advisories(
        settings, reactor, upstream_for, netrc, cache_dir.own, problems, resources, wall
    )
    rules = Rules(settings.rules, deny_files, advisories)
    exclusions = Exclusions(rules, wall)
    page_store = PageStore(cache_dir.own / "pages", reactor, problems=problems)
    entries = PageEntries(
        indexes=members.indexes,
        clock=reactor,
        wall=wall,
        store=page_store,
        in_thread=in_thread,
        problems=problems,
        rules=rules,
        exclusions=exclusions,
        changed=response_cache.invalidate,
    )
    rules.changed.append(entries.rules_changed)
    lists = ListEntries(
        indexes=members.indexes,
        clock=reactor,
        store=ListStore(cache_dir.own / "projects", reactor),
        in_thread=resources.pages,
        problems=problems,
    )

    def totals() -> metrics.Totals:
        cache_dir.count_uses()
        return metrics.totals()

    history = History(
        path=cache_dir.own / "history" if settings.cache_dir else None,
        totals=totals,
        clock=reactor,
        in_thread=resources.writes,
        wall=wall,
    )
    pages = {view.name: PageCache(view, entries) for view in views}
    mirror = file_mirror(
        pages[DEFAULT],
        upstream,
        cache_dir,
        reactor,
        in_thread=resources.reads,
        timeout=settings.download_timeout,
        stream=settings.slow_download == "stream",
        ttl=ttls[0] if ttls else 0.0,
        problems=problems,
        folders=folders,
    )
    mirrors = {name: mirror.in_view(Resolver(each)) for name, each in pages.items()}
    prefetchers = {
        name: Prefetcher(
            pages=pages[name],
            files=mirrors[name],
            clock=reactor,
            in_thread=Share(resources.pages, 1),
        )
        for name in (pages if prefetches else ())
    }

    def exposition(accept: str) -> tuple[bytes, str]:
        cache_dir.count_uses()
        for prefetcher in prefetchers.values():
            prefetcher.count_wasted()
        gauges: metrics.Gauges = {
            metrics.CACHE_BYTES: cache_dir.quota.used,
            metrics.CACHE_CAPACITY: settings.cache_size,
            metrics.CACHE_FILES: len(cache_dir.eviction_index),
            metrics.DOWNLOADS_IN_FLIGHT: len(mirror.downloads()),
            metrics.WAITERS: site.waiting,
            metrics.BREAKER_STATE: {
                (each.name,): float(each.breakers.index_state) for each in members.indexes
            },
            metrics.REACTOR_LAG: lag.seconds,
            **(advisories.gauges() if advisories else {}),
        }
        return metrics.exposition(gauges, accept)

    @cache
    def admin() -> IResource:
        # Pages and files do without Klein, whose import takes 35 ms and 2 MiB: not at the start.
        from proxpi.web.admin.actions import Actions, Results
        from proxpi.web.admin.api import AdminApi
        from proxpi.web.admin.auth import AdminToken, Authentication, FailedTries
        from proxpi.web.admin.inventory import IndexTtl, Inventory
        from proxpi.web.admin.prefetch import LockPrefetch
        from proxpi.web.admin.stats import Statistics

        hosts, authentication = machine_names().union(settings.hosts), None
        if settings.admin_token is not None:
            token = AdminToken(settings.admin_token, wall)
            authentication = Authentication(token, FailedTries(reactor, problems))

        def cached_files() -> tuple[list[str], list[IndexedFile]]:
            cache_dir.count_uses()
            return cache_dir.eviction_index.snapshot()

        inventory = Inventory(
            cached_files=cached_files,
            stored_pages=page_store.scan,
            origins=entries.origins,
            indexes=[
                IndexTtl(by_name[each.name].identity, each.name, each.ttl)
                for each in settings.indexes
            ],
            clock=reactor,
            wall=wall,
            in_thread=Share(resources.pages, 2),
        )
        statistics = Statistics(
            indexes=members.indexes,
            views=settings.views,
            settings=settings.in_force,
            history=history,
            inventory=inventory,
            cache_dir=cache_dir,
            problems=problems,
            waiting=lambda: site.waiting,
            downloads=mirror.downloads,
            prefetching=lambda: chain(*(each.under_way for each in prefetchers.values())),
            exclusions=exclusions,
            in_thread=resources.pages,
            advisories=advisories.status if advisories else None,
            folder_reason=readiness.folder_reason,
            started=started,
            seconds=reactor.seconds,
            wall=wall,
        )
        api = AdminApi(
            actions=Actions(entries, pages, lists, mirror),
            results=Results(),
            mirror=mirror,
            prefetch=LockPrefetch(pages, mirrors, resources.pages),
            hosts=hosts,
            authentication=authentication,
            views=[view.name for view in views if view.name != DEFAULT],
            readiness=readiness,
            exposition=exposition,
            statistics=statistics,
            inventory=inventory,
            in_thread=Share(resources.pages, 1),
        )
        return api.resource()

    lag = ReactorLag(reactor)
    limiter = ConnectionLimiter(reactor, resources.client_descriptors)
    readiness = Readiness(folder, resources.checks, reactor, lambda: limiter.draining)
    names = frozenset(view.name.encode() for view in views)
    trees = {
        view.name.encode(): SimpleApi(
            names,
            pages[view.name],
            ProjectListCache(view, lists),
            Files(mirrors[view.name], reactor, settings.binary_file_mime_type),
            reactor,
            prefetchers.get(view.name),
        )
        for view in views
    }
    site = Site(
        {b"": trees[DEFAULT.encode()], **trees},
        admin,
        clock=reactor,
        limiter=limiter,
        response_cache=response_cache,
        readiness=readiness,
        access=access,
        trusted_proxies=TrustedProxies(settings.trusted_proxies),
    )
    return Proxpi(
        settings=settings,
        reactor=reactor,
        owner=owner,
        netrc=netrc,
        proxies=proxies,
        pool=pool,
        upstream=upstream,
        pages=entries,
        projects=lists,
        cache_dir=cache_dir,
        mirror=mirror,
        limiter=limiter,
        response_cache=response_cache,
        site=site,
        background=[deny_files, *([advisories] if advisories else []), history, lag],
    )


def cache_folder(
    folder: Path,
    capacity: int,
    *,
    writes: InThread = execute,
    reads: InThread = execute,
    seconds: Callable[[], float] = time.monotonic,
    response_cache: CachedResponses | None = None,
    prefetches: bool = False,
    wall: Callable[[], float] = time.time,
    problems: Problems | None = None,
) -> CacheDir:
    """
    Make the cache folder with its parts.

    :param capacity: bytes of its files; 0 keeps no file
    :param prefetches: whether evictions leave space for prefetched files
    """
    problems = problems or Problems(seconds, wall)
    eviction_index = EvictionIndex(response_cache, wall)
    queue = DeletionQueue(folder, eviction_index, problems, writes)
    return CacheDir(
        folder=folder,
        eviction_index=eviction_index,
        quota=Quota(capacity, eviction_index, queue, prefetches),
        queue=queue,
        usage_log=UsageLog(folder / OWN_FOLDER, eviction_index, writes, seconds),
        problems=problems,
        writes=writes,
        reads=reads,
    )


def file_mirror(
    pages: ProjectPages,
    upstream: UpstreamClient,
    cache_dir: CacheDir,
    clock: Any,
    *,
    in_thread: InThread,
    timeout: float,
    stream: bool,
    ttl: float,
    problems: Problems,
    folders: Sequence[str] = (),
) -> Mirror:
    """
    Make the file mirror with its parts.

    :param timeout: seconds that a client waits for a file before a redirect; `stream` allows none
    :param ttl: seconds for which a cached file without a digest is fresh
    :param folders: paths of the folders that are indexes, each with a slash at its end
    """
    progress = Progress(clock, problems.wall)
    ranges = RangeClient(upstream, problems, progress)
    extraction = Extraction(cache_dir=cache_dir, in_thread=in_thread, flights=Flights(clock))
    cached = CachedFiles(
        upstream=upstream,
        cache_dir=cache_dir,
        extraction=extraction,
        folder_files=FolderFiles(folders, in_thread),
        clock=clock,
        problems=problems,
        checks=Flights(clock),
        revalidations=Flights(clock),
        ttl=ttl,
    )
    downloads = Downloads(
        upstream=upstream,
        cache_dir=cache_dir,
        cached=cached,
        extraction=extraction,
        clock=clock,
        problems=problems,
        progress=progress,
        redirects=not (stream or upstream.offline),
        flights=Flights(clock),
    )
    return Mirror(
        resolver=Resolver(pages),
        cache_dir=cache_dir,
        cached=cached,
        downloads=downloads,
        progress=progress,
        ranges=ranges,
        metadata=WheelMetadata(
            downloads=downloads,
            cached=cached,
            ranges=ranges,
            cache_dir=cache_dir,
            clock=clock,
            in_thread=in_thread,
            flights=Flights(clock),
        ),
        clock=clock,
        timeout=timeout,
        stream=stream,
        offline=upstream.offline,
    )


def index_folders(settings: Settings, cache: Path) -> list[str]:
    """
    Return the paths of the folders that are indexes, each with a slash at its end.

    :raises SettingsError: for one in the cache folder, since evictions and ``DELETE`` remove files
        there
    """
    folders = [path_of(url) for url in settings.index_urls if is_local(url)]
    for each in folders:
        if Path(each).resolve().is_relative_to(cache.resolve()):
            raise SettingsError(
                f"the folder {each!r} of an index lies in the cache folder {str(cache)!r}, "
                "where proxpi removes files; one outside of it is accepted"
            )
    return folders


def _members(
    settings: Settings,
    clock: Any,
    upstream: UpstreamClient,
    in_thread: InThread,
    own: Path,
    problems: Problems,
    resources: Resources,
    wall: Callable[[], float],
) -> Members:
    """
    Make the indexes, on web servers and in folders.

    :param in_thread: parses pages of web servers
    :param own: the folder where those in folders remember what they have read
    """
    # A folder on a disk that hangs must not keep the threads for cached files.
    folder_threads = Share(resources.reads, THREADS // 2)

    def index(stated: IndexSettings) -> Index:
        breakers = Breakers(urls.public(stated.url), clock, wall)
        if is_local(stated.url):
            # Most processes do without: not imported at their start.
            from proxpi.index.folder import FolderIndex

            return FolderIndex(
                name=stated.name,
                url=stated.url,
                ttl=stated.ttl,
                breakers=breakers,
                clock=clock,
                wall=wall,
                in_thread=folder_threads,
                store=own / "folders",
                problems=problems,
            )
        return IndexClient(
            name=stated.name,
            url=stated.url,
            ttl=stated.ttl,
            upstream=upstream,
            in_thread=in_thread,
            breakers=breakers,
            root=Root(stated.name, stated.url, upstream, clock, problems),
        )

    return Members([Member(index(each), each.projects, each.owns) for each in settings.indexes])


def _advisories(
    settings: Settings,
    clock: Any,
    upstream_for: Callable[..., UpstreamClient],
    netrc: Netrc,
    own: Path,
    problems: Problems,
    resources: Resources,
    wall: Callable[[], float],
) -> Advisories | None:
    """Make the advisories with their feed, unless the rules are without."""
    rules = settings.rules
    if rules.advisories == "off":
        return None
    # Most processes do without: not imported at their start.
    from proxpi.rules.advisories import Advisories
    from proxpi.rules.advisory_feed import open_feed
    from proxpi.rules.advisory_store import AdvisoryStore

    # A client of its own: neither the login of indexes nor a way into their network is for it.
    urls_of_feed = () if is_local(rules.advisories_url) else (rules.advisories_url,)
    upstream = upstream_for(urls_of_feed, netrc=attrs.evolve(netrc, default=None))
    feed = open_feed(rules.advisories_url, upstream, resources.reads)
    return Advisories(
        feed=feed,
        store=AdvisoryStore(own / "advisories", feed.url),
        clock=clock,
        in_thread=Share(resources.pages, 1),
        problems=problems,
        excepted=frozenset(rules.advisories_except),
        wall=wall,
    )


def _upstream(
    settings: Settings,
    reactor: Any,
    environment: Mapping[str, str],
    index_urls: Iterable[str],
    *,
    netrc: Netrc,
    certificate: bool = False,
    proxies: Proxies,
    pool: HTTPConnectionPool,
    agent: IAgent | None,
) -> UpstreamClient:
    """
    Make the client of some indexes, or of a feed.

    :param certificate: whether the client certificate is shown to them
    """
    logins = Credentials.gather(index_urls, netrc, certificate=certificate)
    hosts = {urls.origin(url).host for url in index_urls}
    hosts |= {proxy.host for proxy in (proxies.http, proxies.https) if proxy}
    resolver = DNSResolver(reactor, settings.connect_timeout, frozenset(hosts))
    policy = AddressPolicy(
        index_urls,
        settings.allow_hosts,
        resolver.look_up,
        lambda origin: proxies.to(origin) is None,
    )
    if agent is None:
        trust = tls.policy(
            verify=not settings.disable_index_ssl_verification,
            environment=environment,
            ca_bundle=settings.path("ca_bundle"),
            client_cert=settings.path("client_cert"),
            shown_to=logins.certificate_for,
        )
        connector = Connector(reactor, settings.connect_timeout, resolver.look_up, policy)
        agent = ProxyAgent(
            clock=reactor,
            pool=pool,
            tls=trust,
            connector=connector,
            proxies=proxies,
            user_agent=USER_AGENT,
        )
    return UpstreamClient(
        agent=agent,
        clock=reactor,
        credentials=logins,
        address_policy=policy,
        proxies=proxies,
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
        offline=settings.offline,
        connections=ConnectionLimits.of(settings.upstream_connections),
        page_limit=attrs.evolve(PAGE_LIMIT, size=settings.page_limit),
        list_limit=attrs.evolve(LIST_LIMIT, size=settings.list_limit),
    )


class Options(command_line.Options):
    """The options of ``twistd proxpi``; ``--check`` ends the process before twistd starts it."""

    optFlags: ClassVar[list[list[str | None]]] = [["check", None, _CHECKS]]

    def postOptions(self) -> None:
        super().postOptions()
        if self["check"]:
            raise SystemExit(_check(self.settings, self.parent or {}))


def _check(settings: Settings, parent: Mapping[str, int | None]) -> int:
    """
    Make the parts as for a start, check their dependencies; return the exit status.

    :param parent: the options of twistd: the user that it would change to
    """
    from twisted.internet import reactor

    from proxpi.check import Check, Finding, report

    use_monotonic_time(reactor)
    resources = _allocate(settings, reactor)
    proxpi = _build(settings, reactor, resources, access=AccessLog(str, str))
    if settings.cache_dir is None or proxpi.cache_dir.folder.exists():  # a start makes it as root
        uid, gid = parent.get("uid"), parent.get("gid")
        if uid is not None or gid is not None:
            switchUID(uid, gid)
    proxies = proxpi.proxies
    check = Check(
        settings=settings,
        folder=proxpi.cache_dir.folder,
        upstream=proxpi.upstream,
        proxies=proxies,
        to_proxies=_upstream(
            settings,
            reactor,
            os.environ,
            [f"{each.url}/" for each in (proxies.http, proxies.https) if each is not None],
            netrc=Netrc(),
            proxies=Proxies(),
            pool=proxpi.pool,
            agent=None,
        ),
        in_thread=resources.checks,
        clock=cast(IReactorTime, reactor),
    )
    found: list[Sequence[Finding]] = []

    async def run() -> None:
        try:
            findings = await check.run()
            if reactor.running:  # otherwise a signal has ended the requests
                found.append(findings)
        finally:
            if reactor.running:
                reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(run()))
    reactor.run()
    for findings in found:
        warnings = [*settings.warnings, *filter(None, [proxpi.netrc.error])]
        print(report(settings, warnings, findings))
        return int(any(each.verdict == "FAILED" for each in findings))
    return 1


def makeService(options: Options) -> IService:
    """Make the service of ``twistd proxpi``; :exc:`StartFailed` for a wrong setting."""
    from twisted.internet import reactor  # only now: twistd chooses which one to install

    use_monotonic_time(reactor)
    sys.setswitchinterval(SWITCH_INTERVAL)
    settings = options.settings
    as_json = settings.log_format == "json"
    service = Logged(settings.logging_level, as_json, options.parent, reactor)
    proxpi = _build(
        settings,
        reactor,
        _allocate(settings, reactor),
        access=service.access,
        owner=options.parent.get("uid") if options.parent is not None else None,
    )
    if options.parent is not None:
        # twistd runs, so signals are for this service. It starts first.
        shutdown = Shutdown(
            reactor, settings.drain_timeout, proxpi.abort_drain, proxpi.remove_temporary
        )
        service.addService(shutdown)  # type: ignore[no-untyped-call]
    service.addService(proxpi)  # type: ignore[no-untyped-call]
    return service


def _allocate(settings: Settings, reactor: Any) -> Resources:
    return allocate(
        reactor,
        indexes=len(settings.indexes),
        connections=settings.upstream_connections,
        open_files=FILES,
    )


def _build(
    settings: Settings,
    reactor: Any,
    resources: Resources,
    *,
    access: AccessLog,
    owner: int | None = None,
) -> Proxpi:
    """Build proxpi in this process's environment; :exc:`StartFailed` for a wrong setting."""
    try:
        return build(
            settings,
            reactor,
            environment=os.environ,
            resources=resources,
            access=access,
            owner=owner,
        )
    except SettingsError as error:
        raise StartFailed(f"proxpi: {error}") from None
