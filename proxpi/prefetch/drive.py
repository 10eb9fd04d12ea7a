"""The driver of prefetching: client requests in, background requests to the indexes out.

It notes each request for a page or file that is no hit of the response cache in the
:class:`~proxpi.prefetch.decide.ClientRun` of its client, and executes the steps of that run through
page cache and mirror. Their single flights are shared with clients, so nothing is requested
twice, and a client that joins lifts the priority of a background flight.

A client run is known by address and ``User-Agent``. It is *idle* until a request misses the cache,
then *active*. It has *ended* after :data:`RUN_TIMEOUT` seconds without a request, and after
:data:`MAX_AGE` seconds in any case: no step follows. A run that is full is replaced at the next
request.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxpi import metrics
from proxpi.files import METADATA, Prefetched
from proxpi.prefetch import candidates
from proxpi.prefetch.client import read_user_agent
from proxpi.prefetch.decide import ClientRun, Fetch, Join, Kind, Read, Resource, Search, State, Step
from proxpi.prefetch.requirements import read_requirements
from proxpi.simple import ListedFile, Serialization, model
from proxpi.single_flight import InThread

#: Bytes of the fields of core metadata up to which no thread reads the requirements.
SMALL = 8 * 1024
#: Seconds without a request after which a client run has ended.
RUN_TIMEOUT = 60.0
#: Seconds after which a client run ends in any case: behind one address may be many clients.
MAX_AGE = 900.0
#: Steps of a client run that begin in one turn of the reactor, half a millisecond each: a tree that
#: is cached has thousands.
STEPS = 32
#: Client runs that are remembered.
MAX_RUNS = 1000
#: Requirements that they keep together; those of 200 packages are some thousands.
MAX_KEPT = 400_000
#: Seconds after which a prefetched resource that no client has used counts as wasted.
USE_TIMEOUT = 600.0

T = TypeVar("T")
_log = Logger(namespace="proxpi.prefetch")


class Pages(Protocol):
    """The page cache, as far as the driver needs it; projects by normalized name."""

    def ready_file(self, name: str, filename: str) -> ListedFile | None: ...
    def is_fresh(self, name: str) -> bool: ...
    def digests(self, name: str) -> Collection[str]: ...
    async def prefetch(
        self, name: str, serialization: Serialization, compressed: bool
    ) -> int | None: ...
    async def search(self, name: str, find: Callable[[Sequence[bytes]], T]) -> T | None: ...


class Files(Protocol):
    """The mirror, as far as the driver needs it."""

    @property
    def prefetch_capacity(self) -> int: ...
    def is_cached(self, name: str, filename: str) -> bool: ...
    async def prefetch(self, name: str, filename: str) -> Prefetched | None: ...
    async def landed(self, name: str, filename: str) -> None: ...
    async def metadata(self, name: str, filename: str) -> bytes | None: ...


@attrs.define(eq=False)
class _Run:
    """A client run with its state outside the decisions.

    :ivar began: the clock's seconds at the client's first request; `last`: at its last one
    :ivar variant: the representation of pages that the client requests: its serialization, and
        whether it is compressed
    """

    decisions: ClientRun
    began: float
    last: float
    variant: tuple[Serialization, bool] = (Serialization.JSON, True)
    active: bool = False
    # Steps that have not begun; whether others may be possible; whether steps are being begun, or
    # wait for the next turn of the reactor.
    steps: deque[Step] = attrs.field(init=False, factory=deque)
    due: bool = attrs.field(init=False, default=False)
    beginning: bool = attrs.field(init=False, default=False)
    waits: bool = attrs.field(init=False, default=False)


@contextmanager
def _contained() -> Iterator[None]:
    """Log an error of prefetching's own: no client's request may fail because of it."""
    try:
        yield
    except Exception:  # noqa: BLE001 (an error of any kind is contained)
        _log.failure("while prefetching")


@attrs.define(eq=False, kw_only=True)
class Prefetcher:
    """The client runs.

    :ivar in_thread: reads requirements, which may take milliseconds
    """

    _pages: Pages
    _files: Files
    _clock: IReactorTime
    _in_thread: InThread
    # By address and User-Agent, the least recently active first.
    _runs: OrderedDict[tuple[str, str], _Run] = attrs.field(init=False, factory=OrderedDict)
    # Prefetched resources that no client has used yet, with time and bytes, the oldest first.
    _unused: OrderedDict[Resource, tuple[float, int]] = attrs.field(init=False, factory=OrderedDict)
    # The bytes of the files and metadata among them.
    _unused_bytes: int = attrs.field(init=False, default=0)
    # The resources that are being fetched.
    _under_way: list[Resource] = attrs.field(init=False, factory=list)

    @property
    def under_way(self) -> list[str]:
        """The names of the projects, for their pages, and of the files that are being fetched."""
        return [_filename(each) or each.project for each in self._under_way]

    def page_requested(
        self,
        client: tuple[str, str],
        name: str,
        variant: tuple[Serialization, bool],
        *,
        hit: bool,
    ) -> None:
        """
        Note a client's request for a page; if it is no hit, its flight is under way.

        :param client: address and ``User-Agent``
        """
        with _contained():
            run = self._run(client, hit)
            run.variant = variant
            self._use(Resource(Kind.PAGE, name))
            run.decisions.page_requested(name)
            self._advance(run)

    def file_requested(
        self, client: tuple[str, str], name: str, filename: str, *, hit: bool, whole: bool
    ) -> None:
        """
        Note a client's request for a file, or for core metadata (``.metadata``).

        :param whole: whether for all bytes of it
        """
        with _contained():
            run = self._run(client, hit)
            if filename.endswith(METADATA):
                filename = filename.removesuffix(METADATA)
                self._use(Resource(Kind.METADATA, name, filename))
                run.decisions.metadata_requested(name, filename)
            else:
                self._use(Resource(Kind.FILE, name, filename))
                listed = self._pages.ready_file(name, filename)
                advertised = listed is not None and bool(model.metadata_hash(listed.entry))
                run.decisions.file_requested(name, filename, advertised, whole)
            self._advance(run)

    def count_wasted(self) -> None:
        """Count the prefetched resources that no client has used in time."""
        now = self._clock.seconds()
        while self._unused:
            resource, (at, _) = next(iter(self._unused.items()))
            if now - at < USE_TIMEOUT:
                return
            self._end(resource, "wasted")

    def _run(self, client: tuple[str, str], hit: bool) -> _Run:
        now, run = self._clock.seconds(), self._runs.pop(client, None)
        if run is not None:
            ended = now - run.last > RUN_TIMEOUT or now - run.began > MAX_AGE
            run = None if ended or run.decisions.is_full else run
        run = run or _Run(ClientRun(read_user_agent(client[1])), now, now)
        self._runs[client] = run
        run.last = now
        run.active = run.active or not hit
        while (
            len(self._runs) > MAX_RUNS or next(iter(self._runs.values())).last < now - RUN_TIMEOUT
        ):
            self._end_oldest_run()
        return run

    def _end_oldest_run(self) -> None:
        self._runs.popitem(last=False)[1].active = False

    def _use(self, resource: Resource) -> None:
        """Count the first use of a prefetched resource."""
        self.count_wasted()
        self._end(resource, "used")

    def _end(self, resource: Resource, outcome: str) -> None:
        """Count the outcome of a prefetched resource, if it has none yet."""
        if (found := self._unused.pop(resource, None)) is not None:
            _count(outcome, found[1])
            self._unused_bytes -= found[1] if resource.kind is not Kind.PAGE else 0

    def _advance(self, run: _Run) -> None:
        """Begin the steps that are possible now."""
        run.due = True
        if not (run.beginning or run.waits):
            self._begin_steps(run)

    def _begin_steps(self, run: _Run) -> None:
        """Begin some steps, without recursion for those that end at once, and others later."""
        run.beginning, run.waits = True, False
        try:
            for _ in range(STEPS):
                if not run.steps and run.due:
                    run.due = False
                    if run.active and self._clock.seconds() - run.last <= RUN_TIMEOUT:
                        run.steps.extend(run.decisions.next(self))
                if not run.steps:
                    return
                self._begin(run, run.steps.popleft())
            run.waits = True
            self._clock.callLater(0, self._continue, run)
        finally:
            run.beginning = False

    def _continue(self, run: _Run) -> None:
        with _contained():
            self._begin_steps(run)

    def _begin(self, run: _Run, step: Step) -> None:
        work: Coroutine[Deferred[Any], Any, None]
        match step:
            case Search():
                work = self._search(run, step)
            case Read(resource):
                work = self._read(run, resource)
            case Fetch(resource) | Join(resource) if resource.kind is Kind.PAGE:
                work = self._fetch_page(run, resource)
            case Fetch(resource):
                work = self._fetch_file(run, resource)
            case Join(resource):
                work = self._join_file(run, resource)
        Deferred.fromCoroutine(work).addErrback(
            lambda failure: _log.failure("while prefetching", failure=failure)
        )

    @property
    def space(self) -> int:
        """Tell the decisions how many bytes of files may be fetched beside the unused ones."""
        return self._files.prefetch_capacity - self._unused_bytes

    def state(self, resource: Resource) -> State:
        """Tell the decisions whether the cache has a resource; an absence that is fresh, too."""
        if resource.kind is Kind.PAGE:
            if self._pages.is_fresh(resource.project):
                return State.FRESH
            return State.STALE if self._pages.digests(resource.project) else State.ABSENT
        cached = self._files.is_cached(resource.project, _filename(resource))
        return State.FRESH if cached else State.ABSENT

    async def _search(self, run: _Run, search: Search) -> None:
        find = partial(
            candidates.predict, constraints=search.constraints, client=run.decisions.client
        )
        if search.chosen is not None:
            find = partial(
                candidates.describe,
                constraints=search.constraints,
                client=run.decisions.client,
                filename=search.chosen,
            )
        candidate = None
        try:
            candidate = await self._pages.search(search.project, find)
        finally:
            run.decisions.found(search, candidate)
        self._advance(run)

    async def _read(self, run: _Run, resource: Resource) -> None:
        data = await self._files.metadata(resource.project, resource.filename)
        if data is None:
            return
        parse = partial(read_requirements, data)
        # A thread would take longer for a few requirements.
        requirements = parse() if 0 < data.find(b"\n\n") <= SMALL else await self._in_thread(parse)
        listed = self._pages.ready_file(resource.project, resource.filename)
        private = listed is None or listed.private
        run.decisions.metadata_arrived(resource.project, resource.filename, requirements, private)
        while sum(each.decisions.kept for each in self._runs.values()) > MAX_KEPT:
            self._end_oldest_run()
        self._advance(run)

    async def _fetch_page(self, run: _Run, resource: Resource) -> None:
        """Fetch a page in the background, or wait for the flight of the client's request."""
        name = resource.project
        before = self._pages.digests(name)
        began = self._clock.seconds()
        with self._fetching(resource):
            size = await self._pages.prefetch(name, *run.variant)
        self._note_fetched(run, resource, size, began)
        after = self._pages.digests(name)
        if after and (after != before or not run.decisions.has_page(name)):
            run.decisions.page_arrived(name)
        self._advance_after(run, resource, size)

    async def _fetch_file(self, run: _Run, resource: Resource) -> None:
        began = self._clock.seconds()
        with self._fetching(resource):
            got = await self._files.prefetch(resource.project, _filename(resource))
        size = got.size if got is not None else None
        self._note_fetched(run, resource, size, began, cached=got is not None and got.cached)
        if run.decisions.needs_metadata(resource):
            await self._read(run, resource)
        self._advance_after(run, resource, size)

    @contextmanager
    def _fetching(self, resource: Resource) -> Iterator[None]:
        self._under_way.append(resource)
        try:
            yield
        finally:
            self._under_way.remove(resource)

    def _advance_after(self, run: _Run, resource: Resource, size: int | None) -> None:
        """Begin the steps after a fetch; if it was refused, the next one would be as well."""
        refused = size is None and run.beginning and self.state(resource) is not State.FRESH
        if not refused:
            self._advance(run)

    async def _join_file(self, run: _Run, resource: Resource) -> None:
        """Wait for a file that the client has requested."""
        await self._files.landed(resource.project, _filename(resource))
        await self._read(run, resource)

    def _note_fetched(
        self,
        run: _Run,
        resource: Resource,
        size: int | None,
        began: float,
        *,
        cached: bool = True,
    ) -> None:
        """
        Note the end of a fetch.

        :param size: bytes that it brought; ``None`` if it sent no request
        :param began: the clock's seconds at its beginning
        """
        if size is None or not cached:
            run.decisions.failed(resource, size or 0, sent=size is not None)
        else:
            run.decisions.fetched(resource, size, self._clock.seconds() - began)
        if size is None:
            return
        _count("sent", size)
        if not cached:
            _count("wasted", size)
        elif run.decisions.has_requested(resource):  # the client has joined
            _count("used", size)
        else:
            self._end(resource, "wasted")  # it was fetched before, and has expired since
            self._unused[resource] = self._clock.seconds(), size
            self._unused_bytes += size if resource.kind is not Kind.PAGE else 0


def _count(outcome: str, size: int) -> None:
    """Count a background request, and the bytes that it brought."""
    metrics.PREFETCH_REQUESTS.labels(outcome).inc()
    metrics.PREFETCH_BYTES.labels(outcome).inc(size)


def _filename(resource: Resource) -> str:
    return resource.filename + (METADATA if resource.kind is Kind.METADATA else "")
