"""Recorded resolutions replayed against the decisions of prefetching, in simulated time.

A recording holds the requests of one real client in order, and the pages and metadata that it could
have got (``benchmarks/record.py`` writes it). The replay lets the client send each request once
the response to the one before has come; a background request takes one round trip, too.
"""

from __future__ import annotations

import gzip
import heapq
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import attrs

from proxpi.prefetch import candidates
from proxpi.prefetch.client import read_user_agent
from proxpi.prefetch.decide import (
    ClientRun,
    Fetch,
    Join,
    Kind,
    Read,
    Resource,
    Search,
    State,
    Step,
)
from proxpi.prefetch.requirements import Requirement, read_requirements
from proxpi.simple import model

#: Simulated seconds of a round trip, and between a response and the client's next request.
ROUND_TRIP, PAUSE = 0.05, 0.005
CONNECTIONS = 8


@attrs.define(eq=False)
class Replay:
    """One replay.

    :ivar pages: the encoded page of each project
    :ivar metadata: core metadata by wheel
    :ivar stale: projects whose pages are in the cache, and stale
    :ivar sent: background requests, in order
    """

    user_agent: str
    requests: Sequence[Resource]
    times: Sequence[float]
    pages: Mapping[str, bytes]
    metadata: Mapping[str, bytes]
    cached: set[Resource] = attrs.field(factory=set)
    stale: set[Resource] = attrs.field(factory=set)
    sent: list[Resource] = attrs.field(factory=list)
    space: int = 1024**3
    waited: float = 0.0
    now: float = 0.0
    run: ClientRun = attrs.field(init=False)
    _events: list[tuple[float, int, Callable[[], None]]] = attrs.field(factory=list)
    _numbers: Any = attrs.field(factory=count)
    _flights: dict[Resource, float] = attrs.field(factory=dict)
    _queue: list[Resource] = attrs.field(factory=list)
    _busy: int = 0

    def __attrs_post_init__(self) -> None:
        self.run = ClientRun(read_user_agent(self.user_agent))

    @property
    def requested(self) -> set[Resource]:
        return set(self.requests)

    @property
    def wasted(self) -> list[Resource]:
        return [resource for resource in self.sent if resource not in self.requested]

    @property
    def predicted(self) -> float:
        """Part of the client's requests that were sent in the background before."""
        return len([g for g in self.sent if g in self.requested]) / len(self.requested)

    def state(self, resource: Resource) -> State:
        if resource in self.stale:
            return State.STALE
        return State.FRESH if resource in self.cached else State.ABSENT

    def play(self) -> None:
        """Send each request once those have been answered that the client had to wait for."""
        awaited = 0
        for number, request in enumerate(self.requests):
            while self.times[awaited] <= self.times[number] - ROUND_TRIP:
                self._await(self.requests[awaited])
                awaited += 1
            self._run_events(self.now + PAUSE)
            if request in self._queue:  # a background request that waits for a connection
                self._queue.remove(request)
                self._begin(request)
            elif request not in self._flights and request not in self.cached - self.stale:
                self._begin(request)
            self._tell(request)
            self._advance()
        for request in self.requests:
            self._await(request)

    def _await(self, request: Resource) -> None:
        while request in self._flights:
            before = self.now
            self._run_events(self._events[0][0])
            self.waited += self.now - before

    def _tell(self, request: Resource) -> None:
        match request.kind:
            case Kind.PAGE:
                self.run.page_requested(request.project)
            case Kind.METADATA:
                self.run.metadata_requested(request.project, request.filename)
            case Kind.FILE:
                listed = model.find(self.pages.get(request.project, b""), request.filename)
                advertised = listed is not None and bool(model.metadata_hash(listed))
                self.run.file_requested(request.project, request.filename, advertised)

    def _at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), event))

    def _run_events(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = max(self.now, until)

    def _advance(self) -> None:
        while steps := self.run.next(self):
            for step in steps:
                self._execute(step)

    def _execute(self, step: Step) -> None:
        match step:
            case Search():
                self._search(step)
            case Read(resource):
                self._read(resource)
            case Join():
                pass  # the flight of the client's request lands by itself
            case Fetch(resource):
                if resource not in self._flights:
                    self.sent.append(resource)
                    self._flights[resource] = float("inf")
                    self._queue.append(resource)
                    self._begin_queued()

    def _begin_queued(self) -> None:
        while self._queue and self._busy < CONNECTIONS:
            self._busy += 1
            self._begin(self._queue.pop(0), self._leave)

    def _leave(self) -> None:
        self._busy -= 1
        self._begin_queued()

    def _begin(self, request: Resource, then: Callable[[], None] = lambda: None) -> None:
        def land() -> None:
            self._land(request)
            then()

        self._flights[request] = self.now + ROUND_TRIP
        self._at(self.now + ROUND_TRIP, land)

    def _land(self, resource: Resource) -> None:
        self._flights.pop(resource, None)
        self.stale.discard(resource)
        if resource.kind is Kind.PAGE:
            if resource.project in self.pages:
                self.cached.add(resource)
                self.run.page_arrived(resource.project)
        else:
            self.cached.add(resource)
            if self.run.needs_metadata(resource):
                self._read(resource)
        if resource in self.sent:
            self.run.fetched(resource, resource.size or 0, ROUND_TRIP)
        self._advance()

    def _search(self, search: Search) -> None:
        page = self.pages.get(search.project)
        if page is None:
            return
        client, constraints = self.run.client, search.constraints
        if search.chosen is None:
            found = candidates.predict([page], constraints, client)
        else:
            found = candidates.describe([page], constraints, client, search.chosen)
        self.run.found(search, found)

    def _read(self, resource: Resource) -> None:
        data = self.metadata.get(resource.filename)
        if data is not None:
            requirements: list[Requirement] = read_requirements(data)
            self.run.metadata_arrived(resource.project, resource.filename, requirements)


def read_recording(path: Path) -> Replay:
    """Read a recording into a replay."""
    recorded = json.loads(gzip.decompress(path.read_bytes()))
    requests = [
        Resource(Kind[kind.upper()], project, filename)
        for _, kind, project, filename in recorded["requests"]
    ]
    pages = {}
    for name, entries in recorded["pages"].items():
        files = [
            {**entry, "url": f"https://x.example/{entry['filename']}", "hashes": {}}
            for entry in entries
        ]
        pages[name] = model.encode(model.Project(name, files, {}))
    metadata = {name: text.encode() for name, text in recorded["metadata"].items()}
    times = [each[0] for each in recorded["requests"]]
    return Replay(recorded["user_agent"], requests, times, pages, metadata)
