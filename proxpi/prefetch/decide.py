"""The decisions of prefetching, for one client run: events in, steps out. No I/O, no clock.

A *client run* is the requests of one client up to a long pause. It follows the client's resolver
down the tree of requirements: a *root* is a project that the client requires itself. A *resource*
is a page, core metadata or a file. From the page of a project follows its *candidate*: the file
that the resolver will choose. Once a request shows which file it has *chosen*, that one is
*current* instead. From the metadata of the current file follow requirements on further projects.

A *guess* is a resource that the client is predicted to request. :meth:`ClientRun.next` makes steps
of guesses and of the client's requests:

====================================  =============================================================
resource                              step
====================================  =============================================================
page in the cache, fresh or stale     `Search` for its candidate
metadata, or a wheel, in the cache    `Read` its requirements
stale or absent, and requested        `Join` the request of the client
guessed stale page                    `Fetch`: mostly the same projects follow as before
guessed file that is the chosen one   `Fetch`; guessed once the client has requested its first file
guessed metadata, and the client has  `Fetch`, up to :data:`BEYOND_WINDOW` beyond the window, if
requested the page                    that is positive: the client requests the metadata next
any other guess                       `Fetch`, while fewer guesses are outstanding than the window
====================================  =============================================================

*Slow start*: the window is 2 + 2 * right - 3 * wrong guesses. A guess is *outstanding* from its
`Fetch` until the client requests it, it is wrong, or it has failed. It is *right* when the client
requests it; metadata, or a file, is *wrong* when the client chooses another file of the project.
Every `Fetch` waits while :data:`FETCHES` others run; that of a file also waits while as many bytes
are being fetched as arrive in :data:`ARRIVAL` seconds, while :data:`UNUSED` bytes are unused, or
while the cache has no space. Once the budget of a run (:data:`REQUESTS`, :data:`BYTES`) is spent,
no `Fetch` follows.

A client that resolves a list pinned a year ago chooses older versions. From its choices follows a
*cut-off date*, the upload time of the next newer version that would have fitted, as long as most
choices agree with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Protocol, TypeAlias

import attrs

from proxpi.prefetch.candidates import Candidate, Constraints, remains
from proxpi.prefetch.client import Client
from proxpi.prefetch.requirements import Required, Requirement, applicable

#: Requests, and bytes, of the prefetching for one client run.
REQUESTS, BYTES = 2000, 2 * 1024**3
#: Bytes of prefetched files that the client has not requested yet.
UNUSED = 256 * 1024**2
#: Fetches at once: those on the connections for background requests, and as many that wait.
FETCHES = 16
#: Seconds in which the files that are fetched at once should arrive: they share the link with the
#: file that the client waits for, which may become a redirect after 0.9 seconds.
ARRIVAL = 0.4
#: Searches at once: a later one of the same project replaces one that waits.
SEARCHES = 16
#: Bytes of files that are fetched at once: until the rate of the link is known, and the most ever.
FIRST_FILES, MOST_FILES = 1024**2, 16 * 1024**2
#: The largest window of a client that resolves alone: it may consider platforms besides its own.
RESOLVE_WINDOW = 8
#: Guesses of metadata that may be outstanding beyond the window.
BEYOND_WINDOW = 2
#: Bytes of a wheel that is fetched for its metadata, since the client or the index has none.
LARGEST_WHEEL = 16 * 1024**2
#: Bytes that a file of unknown size is taken to have.
UNKNOWN_SIZE = 1024**2
#: Files and metadata that may fail, besides a tenth of all fetches: a full disk takes none of them.
FAILURES = 3
#: Requirements that are evaluated for one client run; a large tree has 35,000.
EVALUATIONS = 200_000
#: Requirements that one client run keeps; the same tree has 12,000 different ones.
KEPT = 50_000
#: Requests for pages after which a run without a right guess has no further steps: its client
#: is no resolver, but perhaps a mirror.
PAGES = 20
#: Resources of one run. A client with more crawls the index.
RESOURCES = 5000
#: How often one event lets extras require further extras: markers may contradict each other.
EXTRAS_DEPTH = 8
#: The last choices of the client, which count for the cut-off date.
CHOICES = 32

Kind = Enum("Kind", "PAGE METADATA FILE")
#: Whether the cache has a resource; only a page is ever stale.
State = Enum("State", "ABSENT STALE FRESH")


@attrs.frozen
class Resource:
    """A page, core metadata or a file, which a client requests or may request.

    :ivar project: the normalized name
    :ivar filename: the wheel or sdist; of metadata, the wheel that it belongs to
    :ivar size: bytes, as far as the index states them
    """

    kind: Kind
    project: str
    filename: str = ""
    size: int | None = attrs.field(default=None, eq=False)


@attrs.frozen
class Search:
    """A search on the page of a project: for its candidate, or for what is newer than a choice.

    :ivar chosen: the file that the client chose, to be compared with the newer ones
    """

    project: str
    constraints: Constraints
    chosen: str | None = None


@attrs.frozen
class Read:
    """Core metadata to be read from the cache, where a wheel may hold it."""

    resource: Resource


@attrs.frozen
class Fetch:
    """An upstream request to be sent in the background."""

    resource: Resource


@attrs.frozen
class Join:
    """A request of the client that is under way, to be awaited."""

    resource: Resource


Step: TypeAlias = Search | Read | Fetch | Join


class Cache(Protocol):
    """The cache, as far as the decisions depend on it; synchronous, without upstream request."""

    def state(self, resource: Resource) -> State: ...

    @property
    def space(self) -> int:
        """Bytes of files that may be fetched now without evicting prefetched ones."""


@attrs.define(eq=False)
class _Project:
    """The state of one project in a run.

    :ivar required: the requirements on it, by the project that states them
    :ivar is_root: whether the client requested it while none was known to require it
    :ivar searching: the constraints of a search on its page that is due, or under way
    :ivar searched: those for which the candidate was found
    :ivar candidate: the result of the last search
    :ivar chosen: the name of the file that the client chose last
    :ivar requirements: those that the metadata of a file states, by file name
    :ivar private: names of files whose requirements count only once the client has chosen them
    :ivar followed: the requirements of the current file that apply, by the project that they name
    """

    required: dict[str, Required] = attrs.field(factory=dict)
    is_root: bool = False
    has_page: bool = False
    searching: Constraints | None = None
    searched: Constraints | None = None
    candidate: Candidate | None = None
    chosen: str | None = None
    requirements: dict[str, Sequence[Requirement]] = attrs.field(factory=dict)
    private: set[str] = attrs.field(factory=set)
    followed: dict[str, Required] = attrs.field(factory=dict)

    @property
    def extras(self) -> frozenset[str]:
        return frozenset().union(*(each.extras for each in self.required.values()))

    @property
    def specifiers(self) -> frozenset[str]:
        return frozenset().union(*(each.specifiers for each in self.required.values()))

    @property
    def current(self) -> str | None:
        return self.chosen or (self.candidate.filename if self.candidate is not None else None)


@attrs.define(eq=False)
class ClientRun:
    """The state of one client run.

    :ivar right: number of guesses that the client requested; `wrong`: of those that were wrong
    :ivar requests: number of fetches so far; `failures`: of files or metadata that failed;
        `received`: bytes that they brought
    :ivar unused: bytes of the files that are outstanding
    :ivar evaluated: number of requirements that were evaluated so far; `kept`: that were read
    """

    client: Client
    right: int = 0
    wrong: int = 0
    requests: int = 0
    failures: int = 0
    received: int = 0
    unused: int = 0
    evaluated: int = 0
    kept: int = 0
    _projects: dict[str, _Project] = attrs.field(factory=dict)
    # The client's requests for pages.
    _pages: int = 0
    # All resources so far, and whether the client has requested them.
    _resources: dict[Resource, bool] = attrs.field(factory=dict)
    # Guesses and requests that the next call of `next` looks at for the first time.
    _new: dict[Resource, None] = attrs.field(factory=dict)
    # Guesses that wait for the window, or for other fetches, with the state that they had first.
    _waiting: dict[Resource, State] = attrs.field(factory=dict)
    # Outstanding guesses, with their bytes; of pages and metadata: 0.
    _outstanding: dict[Resource, int] = attrs.field(factory=dict)
    # Guesses that are being fetched; those for files with their bytes.
    _fetching: dict[Resource, int] = attrs.field(factory=dict)
    # Bytes per second of all files that were fetched at once when the last one arrived.
    _rate: float | None = None
    # Searches that are due, by project; and those that are under way.
    _searches: dict[str, Search] = attrs.field(factory=dict)
    _searching: set[Search] = attrs.field(factory=set)
    # Whether the client has requested its first file to install.
    _installs: bool = False
    # The chosen file of each project, in the order of the choices.
    _chosen: dict[str, Resource] = attrs.field(factory=dict)
    _cutoff: _Cutoff = attrs.field(factory=lambda: _Cutoff())

    # Events: what the client requests.

    def page_requested(self, name: str) -> None:
        self._pages += 1
        project = self._project(name)
        project.is_root = project.is_root or not project.required
        self._request(Resource(Kind.PAGE, name))

    def metadata_requested(self, name: str, filename: str) -> None:
        self._choose(name, filename)
        self._request(Resource(Kind.METADATA, name, filename))

    def file_requested(
        self, name: str, filename: str, has_metadata: bool, whole: bool = True
    ) -> None:
        """
        Note the request for a file.

        :param has_metadata: whether its page advertises its metadata
        :param whole: whether for all of its bytes; a resolver reads metadata by ranges, too
        """
        for_metadata = not (has_metadata and self.client.reads_metadata)
        if filename.endswith(".whl") and for_metadata:
            self._choose(name, filename)
        self._request(Resource(Kind.FILE, name, filename), informs=for_metadata and whole)
        if filename.endswith(".whl") and not for_metadata:
            self._install()

    # Events: what the steps have found.

    def page_arrived(self, name: str) -> None:
        """Note that a page is at hand, for the first time or with other content."""
        project = self._project(name)
        project.has_page, project.searched, project.searching = True, None, None
        self._search(name)

    def found(self, search: Search, candidate: Candidate | None) -> None:
        """Note the result of a search; ``None`` if no file fits."""
        self._searching.discard(search)
        project = self._project(search.project)
        if search.chosen is not None:
            if candidate is not None:
                self._note_choice(candidate)
        elif project.searching == search.constraints:
            project.searched, project.searching = search.constraints, None
            project.candidate = candidate
            if project.chosen is None and candidate is not None:
                self._guess_metadata(search.project, candidate)
            self._follow(search.project)

    def metadata_arrived(
        self, name: str, filename: str, requirements: Sequence[Requirement], private: bool = False
    ) -> None:
        """
        Note the requirements of a file.

        :param private: whether only proxpi may fetch the file. Then no name in it is requested
            from any index before the client has chosen the file.
        """
        project = self._project(name)
        self.kept -= len(project.requirements.get(filename, ()))
        if self.kept + len(requirements) > KEPT:
            requirements = ()
        self.kept += len(requirements)
        project.requirements[filename] = requirements
        if private:
            project.private.add(filename)
        self._follow(name)

    def fetched(self, resource: Resource, size: int, seconds: float = 0.0) -> None:
        """Note that a fetch has ended, with so many bytes after so many seconds."""
        self.received += size
        if resource in self._fetching and resource.kind is Kind.FILE and seconds > 0:
            self._rate = sum(self._fetching.values()) / seconds
        self._fetching.pop(resource, None)
        if resource.kind is Kind.FILE and resource in self._outstanding:
            self.unused += size - self._outstanding[resource]  # the index may not state a size
            self._outstanding[resource] = size

    def failed(self, resource: Resource, size: int = 0, *, sent: bool = False) -> None:
        """
        Note that a fetch has failed after so many bytes: the guess is neither right nor wrong.

        :param sent: whether a request was sent
        """
        self.received += size
        self.failures += sent
        self._fetching.pop(resource, None)
        self._remove_outstanding(resource)

    def needs_metadata(self, resource: Resource) -> bool:
        """Whether requirements may follow from a file, or metadata, that is in the cache now."""
        wheel = resource.kind is not Kind.PAGE and resource.filename.endswith(".whl")
        return wheel and not self._is_read(resource)

    def has_page(self, name: str) -> bool:
        """Whether a project's page was in the cache in this run."""
        return self._project(name).has_page

    def has_requested(self, resource: Resource) -> bool:
        """Whether the client has requested a resource."""
        return self._resources.get(resource, False)

    # Steps.

    def next(self, cache: Cache) -> list[Step]:
        """Return the steps that may begin now."""
        if self.right == 0 and self._pages >= PAGES:
            return []  # until a guess is right after all
        steps: list[Step] = []
        new, self._new = self._new, {}
        for resource in new:
            requested, state = self._resources[resource], cache.state(resource)
            is_page = resource.kind is Kind.PAGE
            if is_page and state is not State.ABSENT:
                self.page_arrived(resource.project)
            if state is State.FRESH:
                steps += [] if is_page or self._is_read(resource) else [Read(resource)]
            elif requested:
                steps.append(Join(resource))
            else:
                self._waiting[resource] = state
        steps += self._fetches(cache)
        for name in list(self._searches)[: max(0, SEARCHES - len(self._searching))]:
            search = self._searches.pop(name)
            self._searching.add(search)
            steps.append(search)
        return steps

    def _fetches(self, cache: Cache) -> Iterator[Step]:
        """Begin the fetches of waiting guesses that are possible now."""
        most = self.window + BEYOND_WINDOW
        if len(self._fetching) >= FETCHES or self._is_spent:
            return
        for guess, state in list(self._waiting.items()):
            # Of a client that requests nothing but pages, thousands of guesses wait for the window.
            by_window = state is State.ABSENT and guess.kind is not Kind.FILE
            if by_window and len(self._outstanding) >= most:
                continue
            if self._is_allowed(guess) and not self._exceeds(guess, cache):
                del self._waiting[guess]
                yield self._fetch(guess)
                if len(self._fetching) >= FETCHES or self._is_spent:
                    return

    @property
    def is_full(self) -> bool:
        """Whether the run has more resources than any resolution."""
        return len(self._resources) > RESOURCES

    @property
    def window(self) -> int:
        """The number of guesses that may be outstanding; 0 or negative: none."""
        size = 2 + 2 * self.right - 3 * self.wrong
        return min(size, RESOLVE_WINDOW) if self.client.resolves_only else size

    @property
    def _is_spent(self) -> bool:
        """Whether the budget of the run is spent, or too much of what it fetches fails."""
        fails = self.failures > FAILURES + self.requests // 10
        return fails or self.requests >= REQUESTS or self.received >= BYTES

    def _is_allowed(self, guess: Resource) -> bool:
        """Whether the window allows a guess."""
        if self._waiting[guess] is State.STALE:
            return True
        if guess.kind is Kind.FILE and self._is_chosen(guess):
            return True
        if guess.kind is Kind.METADATA and self._resources.get(Resource(Kind.PAGE, guess.project)):
            return self.window > 0 and len(self._outstanding) < self.window + BEYOND_WINDOW
        return len(self._outstanding) < self.window

    def _exceeds(self, guess: Resource, cache: Cache) -> bool:
        """Whether a file has to wait until others were fetched, or requested by the client."""
        size, fetching = _size(guess), sum(self._fetching.values())
        if size == 0:
            return False
        too_many = self.unused + size > UNUSED or self.received + size > BYTES
        most = FIRST_FILES if self._rate is None else min(self._rate * ARRIVAL, MOST_FILES)
        at_once = fetching + size
        return too_many or (fetching > 0 and at_once > most) or at_once > cache.space

    def _fetch(self, guess: Resource) -> Fetch:
        self.requests += 1
        self._outstanding[guess] = self._fetching[guess] = size = _size(guess)
        self.unused += size
        return Fetch(guess)

    # Guesses.

    def _project(self, name: str) -> _Project:
        return self._projects.setdefault(name, _Project())

    def _is_chosen(self, file: Resource) -> bool:
        return self._project(file.project).chosen == file.filename

    def _is_read(self, resource: Resource) -> bool:
        """Whether the requirements of a file, or in metadata, are known."""
        return resource.filename in self._project(resource.project).requirements

    def _guess(self, resource: Resource) -> None:
        if resource not in self._resources and not self.is_full:
            self._resources[resource] = False
            self._new[resource] = None

    def _request(self, resource: Resource, *, informs: bool = True) -> None:
        """
        Note a request of the client: a guess was right, or there was none.

        :param informs: whether requirements or a candidate follow from its response
        """
        unfetched = resource not in self._resources or resource in self._waiting
        if not self._resources.get(resource, True):
            self.right += 1
        self._resources[resource] = True
        self._waiting.pop(resource, None)
        self._remove_outstanding(resource)
        if unfetched and informs:
            self._new[resource] = None

    def _remove_outstanding(self, resource: Resource) -> None:
        self.unused -= self._outstanding.pop(resource, 0)

    def _guess_metadata(self, name: str, candidate: Candidate) -> None:
        """Guess the request by which the client learns the requirements of a candidate."""
        if not candidate.is_wheel:
            return  # its metadata follows from building it
        if self.client.resolves_only and not candidate.filename.endswith("-none-any.whl"):
            return  # for all platforms: it may request the metadata of any other wheel
        if candidate.has_metadata and self.client.reads_metadata:
            self._guess(Resource(Kind.METADATA, name, candidate.filename))
        elif self.client.resolves_only or self.client.ranks is None:
            return
        elif (candidate.size or LARGEST_WHEEL) < LARGEST_WHEEL:
            self._guess(Resource(Kind.FILE, name, candidate.filename, candidate.size))

    def _choose(self, name: str, filename: str) -> None:
        """Note which file of a project the client's resolver chose."""
        project = self._project(name)
        first = project.chosen is None
        if project.chosen == filename:
            return
        for guess in [*self._waiting, *self._outstanding]:
            of_file = guess.kind is not Kind.PAGE and guess.project == name
            if of_file and guess.filename != filename:
                self.wrong += 1
                self._waiting.pop(guess, None)
                self._remove_outstanding(guess)
        project.chosen = filename
        predicted = project.candidate
        if predicted is not None and predicted.filename != filename:
            predicted = None
        size = predicted.size if predicted is not None else None
        self._chosen.pop(name, None)
        self._chosen[name] = Resource(Kind.FILE, name, filename, size)
        if predicted is not None:
            self._note_choice(predicted)
        elif first and project.has_page:
            # A resolver that backtracks chooses an older version for another reason.
            self._searches[name] = Search(name, Constraints(project.specifiers), filename)
        if self._installs:
            self._guess(self._chosen[name])
        self._follow(name)

    def _install(self) -> None:
        """Guess the chosen files: the client has resolved, and downloads one after the other."""
        if self._installs or not self.client.downloads_in_turn or self.client.ranks is None:
            return
        self._installs = True
        reachable = {name for name, project in self._projects.items() if project.is_root}
        pending = [*reachable]
        while pending:
            for child in self._projects[pending.pop()].followed.keys() - reachable:
                reachable.add(child)
                pending.append(child)
        for name, guess in self._chosen.items():
            if name in reachable:  # a resolver that backtracks leaves others behind
                self._guess(guess)

    # Requirements.

    def _search(self, name: str) -> None:
        """Let a candidate be searched for, if the constraints have changed."""
        project = self._project(name)
        constraints = Constraints(project.specifiers, self._cutoff.date)
        if not project.has_page or project.chosen is not None:
            return
        if constraints == (project.searching or project.searched):
            return
        known = project.candidate if project.searching is None else None
        if known and project.searched and remains(known, project.searched, constraints):
            project.searched = constraints
            return
        project.searching = constraints
        self._searches[name] = Search(name, constraints)

    def _follow(self, name: str) -> None:
        """Let the requirements of a project's current file replace those before."""
        pending = {name: None}
        for _ in range(EXTRAS_DEPTH):
            parents, pending = pending, {}
            for parent in parents:
                project = self._project(parent)
                followed = self._followed(project)
                before, project.followed = project.followed, followed
                for child in {**before, **followed}:
                    if before.get(child) == followed.get(child):
                        continue
                    project = self._project(child)
                    extras = project.extras
                    if child in followed:
                        project.required[parent] = followed[child]
                        self._guess(Resource(Kind.PAGE, child))
                    else:
                        project.required.pop(parent, None)
                    self._search(child)
                    if project.extras != extras:
                        pending[child] = None

    def _followed(self, project: _Project) -> dict[str, Required]:
        """Return the requirements of a project's current file that apply to the client."""
        current = project.current
        if current is None or current not in project.requirements:
            return {}
        if current in project.private and project.chosen != current:
            return {}
        requirements = project.requirements[current]
        self.evaluated += len(requirements)
        if self.evaluated > EVALUATIONS:
            return project.followed
        return applicable(requirements, self.client.environment, project.extras)

    # The cut-off date.

    def _note_choice(self, chosen: Candidate) -> None:
        before = self._cutoff.date
        self._cutoff.note(chosen)
        if self._cutoff.date != before:
            for name in self._projects:
                self._search(name)


@attrs.define(eq=False)
class _Cutoff:
    """The cut-off date, as far as it follows from the client's choices.

    A choice agrees with a date if its file was uploaded before that, and the newer versions that
    fit were not; it agrees with no date if no newer version fits. The date is the one with which
    most choices agree, if those are more than agree with none.

    :ivar date: an upload time; ``None``: there is none
    """

    date: str | None = None
    _choices: deque[Candidate] = attrs.field(factory=lambda: deque(maxlen=CHOICES))

    def note(self, chosen: Candidate) -> None:
        self._choices.append(chosen)
        most = sum(each.newer is None for each in self._choices)
        self.date = None
        for date in {each.newer for each in self._choices if each.newer is not None}:
            before = sum(_agrees(each, date) for each in self._choices)
            if before > most:
                most, self.date = before, date


def _agrees(chosen: Candidate, date: str) -> bool:
    return chosen.uploaded < date and (chosen.newer is None or date <= chosen.newer)


def _size(resource: Resource) -> int:
    """Return the bytes of a file that count against the limits; of any other resource: 0."""
    return (resource.size or UNKNOWN_SIZE) if resource.kind is Kind.FILE else 0
