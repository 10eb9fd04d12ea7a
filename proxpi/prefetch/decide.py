"""The decisions of prefetching, for one client run: events in, steps out. No I/O, no clock.

A *client run* holds the requests of one client until that has been silent for a while. The run
follows the client's resolver down the tree of requirements. Of each project it knows the
requirements on it and, once a page is at hand, the *candidate* that the resolver will choose; the
client's own request replaces that prediction. The metadata of the candidate gives the requirements
on further projects.

A *guess* is a page, core metadata or a file that the client will request. :meth:`ClientRun.next`
turns guesses into steps:

=================================  ================================================================
guess                              step
=================================  ================================================================
page that is fresh in the cache    `Search` for its candidate
page that is stale in the cache    `Search`, and `Fetch`: the same projects will mostly follow again
metadata in the cache              `Read`
file that the client chose         `Fetch`, once the client has requested its first file
metadata, and the client has       `Fetch`, unless more guesses were wrong than right
the page
any other that is not cached       `Fetch`, while the window is open
the client's own request           `Join`, instead of `Fetch`
=================================  ================================================================

*Slow start*: at most 2 + 2 * right - 3 * wrong guesses that the client has not requested yet are
outstanding. A guess is *right* when the client requests it; the metadata of a candidate is *wrong*
when the client requests another file of the project. A client that resolves a list pinned a year
ago chooses older versions: from its choices follows a *cut-off date* (the upload time of the next
newer version that would have fitted), until a choice contradicts it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Protocol, TypeAlias

import attrs
from packaging.requirements import Requirement

from proxpi.prefetch.candidates import Candidate, Wanted
from proxpi.prefetch.client import Client
from proxpi.prefetch.requirements import Required, applicable

#: Requests, and bytes, that prefetching sends and fetches for one client run.
REQUESTS, BYTES = 2000, 2 * 1024**3
#: Bytes of prefetched files that the client has not requested yet.
UNUSED = 256 * 1024**2
#: Bytes of files that are fetched at once: more would slow the file down that the client waits for.
LOADING = 16 * 1024**2
#: Guesses outstanding for a client that resolves alone: it may consider platforms besides its own.
RESOLVE_WINDOW = 8
#: Bytes of a wheel that is fetched for its metadata, since the client or the index has none.
LARGEST_WHEEL = 16 * 1024**2
#: Bytes that a file of unknown size is taken to have.
UNKNOWN_SIZE = 1024**2
#: Requirements that are evaluated for one client run; a large tree has 35,000.
EVALUATIONS = 200_000
#: Pages and files of one run, guessed or requested. A client with more crawls the index.
GUESSES = 5000
#: How often one event lets extras require further extras: markers may contradict each other.
EXTRAS_DEPTH = 8
#: Guesses outstanding beside the window: metadata of pages that the client has.
NEXT = 2
#: Choices of the client that count for the cut-off date: the last ones.
CHOICES = 32

Kind = Enum("Kind", "PAGE METADATA FILE")
State = Enum("State", "ABSENT STALE FRESH")


@attrs.frozen
class Guess:
    """What a client will request.

    :ivar filename: the wheel or sdist; of metadata, the wheel that it belongs to
    :ivar size: bytes, as far as the index states them
    """

    kind: Kind
    project: str
    filename: str = ""
    size: int | None = attrs.field(default=None, eq=False)


@attrs.frozen
class Search:
    """A search for the candidate of a project on its page that is at hand.

    :ivar chosen: the file that the client chose, to be compared with the newer ones
    """

    project: str
    wanted: Wanted
    chosen: str | None = None


@attrs.frozen
class Read:
    """Core metadata to be read from the cache."""

    guess: Guess


@attrs.frozen
class Fetch:
    """An upstream request to be sent in the background."""

    guess: Guess


@attrs.frozen
class Join:
    """A request of the client that is under way, to be awaited."""

    guess: Guess


Step: TypeAlias = Search | Read | Fetch | Join


class Cache(Protocol):
    """The cache, as far as the decisions depend on it; synchronous, without upstream request."""

    def state(self, guess: Guess) -> State: ...


@attrs.define(eq=False)
class _Project:
    """The state of one project in a run.

    :ivar required: by the projects that require it
    :ivar is_root: whether the client requested it while none was known to require it
    :ivar candidate: the prediction; `chosen`: the file that the client requested last
    :ivar requirements: of the files whose metadata was read
    :ivar followed: the requirements of the file in force, by the project that they name
    """

    required: dict[str, Required] = attrs.field(factory=dict)
    is_root: bool = False
    has_page: bool = False
    searched: Wanted | None = None
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

    :ivar right: guesses that the client requested; `wrong`: those that it contradicted
    """

    client: Client
    right: int = 0
    wrong: int = 0
    requests: int = 0
    received: int = 0
    unused: int = 0
    evaluated: int = 0
    _projects: dict[str, _Project] = attrs.field(factory=dict)
    # All guesses so far; those that wait for a step; those that wait for the window; those that
    # were fetched, and not requested by the client yet.
    _guesses: dict[Guess, bool] = attrs.field(factory=dict)
    _new: dict[Guess, None] = attrs.field(factory=dict)
    _held: dict[Guess, None] = attrs.field(factory=dict)
    _outstanding: dict[Guess, int] = attrs.field(factory=dict)
    # Files that are being fetched, with their bytes.
    _loading: dict[Guess, int] = attrs.field(factory=dict)
    _searches: dict[str, Search] = attrs.field(factory=dict)
    _installs: bool = False
    # Files that the client chose, in order.
    _chosen: dict[str, Guess] = attrs.field(factory=dict)
    _cutoff: _Cutoff = attrs.field(factory=lambda: _Cutoff())

    # Events: what the client requests.

    def page_requested(self, name: str) -> None:
        project = self._project(name)
        project.is_root = project.is_root or not project.required
        self._request(Guess(Kind.PAGE, name))

    def metadata_requested(self, name: str, filename: str) -> None:
        guess = Guess(Kind.METADATA, name, filename)
        self._choose(name, filename)
        self._request(guess)

    def file_requested(
        self, name: str, filename: str, has_metadata: bool, whole: bool = True
    ) -> None:
        """
        Note the request for a file.

        :param has_metadata: whether the client could have requested its metadata instead
        :param whole: whether for all of its bytes; a resolver reads metadata by ranges, too
        """
        guess = Guess(Kind.FILE, name, filename)
        for_metadata = not (has_metadata and self.client.reads_metadata)
        if filename.endswith(".whl") and for_metadata:
            self._choose(name, filename)
        self._request(guess, informs=for_metadata and whole)
        if filename.endswith(".whl") and not for_metadata:
            self._install()

    # Events: what the driver has found.

    def page_arrived(self, name: str) -> None:
        """Note that a page is at hand, for the first time or with other content."""
        project = self._project(name)
        project.has_page, project.searched = True, None
        self._search(name)

    def found(self, search: Search, candidate: Candidate | None) -> None:
        """Note the outcome of a search."""
        project = self._project(search.project)
        if search.chosen is not None:
            if candidate is not None:
                self._note_choice(candidate)
        elif project.searched == search.wanted:
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
        project.requirements[filename] = requirements
        if private:
            project.private.add(filename)
        self._follow(name)

    def fetched(self, guess: Guess, size: int) -> None:
        """Note that a fetch has ended, with so many bytes."""
        self.received += size
        self._loading.pop(guess, None)

    def failed(self, guess: Guess) -> None:
        """Note that a fetch has failed: the guess is neither right nor wrong."""
        self._loading.pop(guess, None)
        self._remove_outstanding(guess)

    def needs_metadata(self, guess: Guess) -> bool:
        """Whether requirements may follow from a file, or metadata, that is at hand now."""
        wheel = guess.kind is not Kind.PAGE and guess.filename.endswith(".whl")
        return wheel and not self._is_read(guess)

    def has_requested(self, guess: Guess) -> bool:
        """Whether the client has requested what a guess names."""
        return self._guesses.get(guess, False)

    def next(self, cache: Cache) -> list[Step]:
        """Return the steps that may begin now."""
        steps: list[Step] = []
        new, self._new = self._new, {}
        for guess in new:
            own, state = self._guesses[guess], cache.state(guess)
            is_page = guess.kind is Kind.PAGE
            if is_page and state is not State.ABSENT:
                self.page_arrived(guess.project)
            if state is State.FRESH:
                steps += [] if is_page or self._is_read(guess) else [Read(guess)]
            elif own:
                steps.append(Join(guess))
            elif state is State.STALE:
                steps += self._fetch(guess)
            else:
                self._held[guess] = None
        for guess in list(self._held):
            if self._is_allowed(guess) and not self._exceeds(guess):
                del self._held[guess]
                steps += self._fetch(guess)
        steps += self._searches.values()
        self._searches.clear()
        return steps

    @property
    def is_full(self) -> bool:
        """Whether the run has more pages and files than any resolution."""
        return len(self._guesses) > GUESSES

    @property
    def window(self) -> int:
        """The number of guesses that may be outstanding."""
        size = 2 + 2 * self.right - 3 * self.wrong
        return min(size, RESOLVE_WINDOW) if self.client.resolves_only else size

    def _is_allowed(self, guess: Guess) -> bool:
        """Whether the window is open for a guess."""
        if guess.kind is Kind.FILE and self._is_chosen(guess):
            return True
        if guess.kind is Kind.METADATA and self._guesses.get(Guess(Kind.PAGE, guess.project)):
            # The client has the page, so this comes next.
            return self.window > 0 and len(self._outstanding) < self.window + NEXT
        return len(self._outstanding) < self.window

    def _exceeds(self, guess: Guess) -> bool:
        """Whether a file has to wait until others were fetched, or used."""
        size, loading = _size(guess), sum(self._loading.values())
        too_many = self.unused + size > UNUSED or self.received + size > BYTES
        return size > 0 and (too_many or (loading > 0 and loading + size > LOADING))

    def _fetch(self, guess: Guess) -> list[Step]:
        if self.requests >= REQUESTS or self.received >= BYTES:
            return []
        self.requests += 1
        self._outstanding[guess] = size = _size(guess)
        self.unused += size
        if size:
            self._loading[guess] = size
        return [Fetch(guess)]

    # Predictions.

    def _project(self, name: str) -> _Project:
        return self._projects.setdefault(name, _Project())

    def _is_chosen(self, guess: Guess) -> bool:
        return self._project(guess.project).chosen == guess.filename

    def _is_read(self, guess: Guess) -> bool:
        """Whether the metadata of a guess is known."""
        return guess.filename in self._project(guess.project).requirements

    def _guess(self, guess: Guess) -> None:
        if guess not in self._guesses:
            self._guesses[guess] = False
            self._new[guess] = None

    def _request(self, guess: Guess, *, informs: bool = True) -> None:
        """
        Note a request of the client: a guess was right, or there was none.

        :param informs: whether something follows from its response
        """
        unknown = guess not in self._guesses or guess in self._held
        if not self._guesses.get(guess, True):
            self.right += 1
        self._guesses[guess] = True
        self._held.pop(guess, None)
        self._remove_outstanding(guess)
        if unknown and informs:
            self._new[guess] = None

    def _remove_outstanding(self, guess: Guess) -> None:
        self.unused -= self._outstanding.pop(guess, 0)

    def _guess_metadata(self, name: str, candidate: Candidate) -> None:
        """Guess the request by which the client learns the requirements of a candidate."""
        if not candidate.is_wheel:
            return  # its metadata follows from building it
        if self.client.resolves_only and not candidate.filename.endswith("-none-any.whl"):
            return  # for all platforms: it takes the metadata of any wheel
        if candidate.has_metadata and self.client.reads_metadata:
            self._guess(Guess(Kind.METADATA, name, candidate.filename))
        elif self.client.resolves_only or self.client.ranks is None:
            return
        elif (candidate.size or LARGEST_WHEEL) < LARGEST_WHEEL:
            self._guess(Guess(Kind.FILE, name, candidate.filename, candidate.size))

    def _choose(self, name: str, filename: str) -> None:
        """Note which file of a project the client's resolver chose."""
        project = self._project(name)
        first = project.chosen is None
        if project.chosen == filename:
            return
        for guess in [*self._held, *self._outstanding]:
            is_metadata = guess.kind is not Kind.PAGE and guess.project == name
            if is_metadata and guess.filename != filename:
                self.wrong += 1
                self._held.pop(guess, None)
                self._remove_outstanding(guess)
        project.chosen = filename
        predicted = project.candidate
        size = predicted.size if predicted and predicted.filename == filename else None
        self._chosen.pop(name, None)
        self._chosen[name] = Guess(Kind.FILE, name, filename, size)
        if predicted is not None and predicted.filename == filename:
            self._note_choice(predicted)
        elif first and project.has_page:
            # A resolver that goes back chooses an older version for another reason.
            self._searches[name] = Search(name, Wanted(project.specifiers), filename)
        if self._installs:
            self._guess(self._chosen[name])
        self._follow(name)

    def _install(self) -> None:
        """The client has resolved: guess the files that it chose."""
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
            if name in reachable:  # a resolver that goes back leaves others behind
                self._guess(guess)

    def _search(self, name: str) -> None:
        project = self._project(name)
        wanted = Wanted(project.specifiers, self._cutoff.date)
        if project.has_page and project.chosen is None and project.searched != wanted:
            project.searched = wanted
            self._searches[name] = Search(name, wanted)

    def _follow(self, name: str) -> None:
        """Let the requirements of a project's file in force replace those before."""
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
                    required = self._project(child)
                    extras = required.extras
                    if child in followed:
                        required.required[parent] = followed[child]
                        self._guess(Guess(Kind.PAGE, child))
                    else:
                        required.required.pop(parent, None)
                    self._search(child)
                    if required.extras != extras:
                        pending[child] = None

    def _followed(self, project: _Project) -> dict[str, Required]:
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

    A choice was made before a date if its file was uploaded before that, and the newer versions
    that fit were not; without a date, if no newer one fits. What most choices have in common holds.

    :ivar date: an upload time; ``None``: none
    """

    date: str | None = None
    _choices: deque[Candidate] = attrs.field(factory=lambda: deque(maxlen=CHOICES))

    def note(self, chosen: Candidate) -> None:
        self._choices.append(chosen)
        most = sum(each.newer is None for each in self._choices)
        self.date = None
        for date in {each.newer for each in self._choices if each.newer is not None}:
            before = sum(_is_before(each, date) for each in self._choices)
            if before > most:
                most, self.date = before, date


def _is_before(chosen: Candidate, date: str) -> bool:
    return chosen.uploaded < date and (chosen.newer is None or date <= chosen.newer)


def _size(guess: Guess) -> int:
    return (guess.size or UNKNOWN_SIZE) if guess.kind is Kind.FILE else 0
