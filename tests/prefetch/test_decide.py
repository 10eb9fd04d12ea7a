"""The decisions for one client run, step by step; no I/O, and no clock."""

from __future__ import annotations

from typing import Any
from unittest import mock

import attrs
from hypothesis import given
from hypothesis import strategies as st

from proxpi.prefetch import decide
from proxpi.prefetch.candidates import Candidate, Constraints
from proxpi.prefetch.client import UNKNOWN, Client, platforms_of, wheel_tags
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
from proxpi.prefetch.requirements import Requirement

PIP = Client(
    installer="pip",
    version=(26, 3),
    environment={"python_version": "3.11", "python_full_version": "3.11.7"},
    ranks=wheel_tags("3.11", "CPython", platforms_of("manylinux_2_28_x86_64")),
)
OLD_PIP = attrs.evolve(PIP, version=(22, 3), reads_metadata=False)
LOCKING_UV = attrs.evolve(PIP, installer="uv", resolves_only=True)


def wheel(name: str, version: str = "1.0") -> str:
    return f"{name}-{version}-py3-none-any.whl"


def page(name: str) -> Resource:
    return Resource(Kind.PAGE, name)


def metadata(name: str, version: str = "1.0") -> Resource:
    return Resource(Kind.METADATA, name, wheel(name, version))


def file(name: str, version: str = "1.0") -> Resource:
    return Resource(Kind.FILE, name, wheel(name, version))


def candidate(name: str, version: str = "1.0", **keys: Any) -> Candidate:
    return Candidate(wheel(name, version), 1000, **({"has_metadata": True} | keys))


@attrs.define
class Story:
    """A run with a cache in memory: absent is what `states` does not have."""

    client: Client = PIP
    states: dict[Resource, State] = attrs.field(factory=dict)
    space: int = 1024**3
    run: ClientRun = attrs.field(init=False)
    _fetched: list[Resource] = attrs.field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self.run = ClientRun(self.client)

    def state(self, resource: Resource) -> State:
        return self.states.get(resource, State.ABSENT)

    def next(self) -> list[Step]:
        steps = self.run.next(self)
        self._fetched += [step.resource for step in steps if isinstance(step, Fetch)]
        return steps

    def fetched(self) -> list[Resource]:
        """The guesses that were fetched since the last call."""
        self.next()
        fetched, self._fetched = self._fetched, []
        return fetched

    def fetched_in_turn(self) -> list[Resource]:
        """The same, and those that follow once these have ended."""
        ended: list[Resource] = []
        while fetched := self.fetched():
            for guess in fetched:
                self.run.fetched(guess, 0)
            ended += fetched
        return ended

    def find(self, name: str, version: str = "1.0", **keys: Any) -> None:
        """Let the page of a project arrive, and its candidate be found."""
        self.run.page_arrived(name)
        self.search(name, candidate(name, version, **keys))

    def search(self, name: str, found: Candidate | None) -> Search:
        """Let the search end that is due for a project."""
        steps = self.next()
        (search,) = [step for step in steps if isinstance(step, Search) and step.project == name]
        self.run.found(search, found)
        return search

    def read(self, name: str, *requirements: str, version: str = "1.0", **keys: Any) -> None:
        parsed = list(filter(None, map(Requirement.parse, requirements)))
        self.run.metadata_arrived(name, wheel(name, version), parsed, **keys)

    def resolve(self, name: str, *requirements: str) -> None:
        """Let a client request page and metadata of a project."""
        self.run.page_requested(name)
        self.find(name)
        self.run.metadata_requested(name, wheel(name))
        self.read(name, *requirements)


def test_a_requested_page_leads_to_metadata_and_that_to_pages() -> None:
    """The chain of a first install: page, candidate, metadata, pages of what it requires."""
    story = Story()
    story.run.page_requested("app")
    assert story.next() == [Join(page("app"))]
    story.find("app")
    assert story.fetched() == [metadata("app")]
    story.read("app", "one", "two>=2")
    assert story.fetched() == [page("one")]
    story.run.metadata_requested("app", wheel("app"))
    assert story.fetched() == [page("two")]
    story.run.page_arrived("two")
    assert story.search("two", None).constraints == Constraints(frozenset({">=2"}))


def test_nothing_is_guessed_twice() -> None:
    """A project that several others require has one page, and a cycle ends."""
    story = Story()
    story.run.right = 100
    story.resolve("app", "one", "two")
    assert story.fetched() == [page("one"), page("two")]
    story.find("one")
    story.read("one", "two", "app", "one")
    assert story.fetched() == [metadata("one")]
    story.find("two")
    story.read("two", "app")
    assert story.fetched() == [metadata("two")]
    assert story.next() == []


def test_the_window_opens_with_right_guesses() -> None:
    """Two guesses are outstanding at first; each right one allows two more."""
    story = Story()
    story.resolve("app", *(f"p{number}" for number in range(20)))
    story.run.right = 0
    assert len(story.fetched()) == 2
    story.run.page_requested("p0")
    assert len(story.fetched()) == 3
    story.run.page_requested("p1")
    assert len(story.fetched()) == 3
    assert story.run.right == 2


def test_metadata_of_a_requested_page_does_not_wait_for_the_window() -> None:
    """The metadata of another root may exceed the window, as long as that is positive."""
    story = Story()
    story.run.page_requested("app")
    story.find("app")
    story.read("app", *(f"p{number}" for number in range(9)))
    assert len(story.fetched()) == 2
    story.run.page_requested("root")
    story.find("root")
    assert story.fetched() == [metadata("root")]
    story.run.wrong = 1
    story.run.page_requested("another")
    story.find("another")
    assert story.fetched() == []


def test_a_guess_that_waits_for_the_window_proves_right_too() -> None:
    """A guess that waits is right once the client requests it, and opens the window."""
    story = Story()
    story.run.wrong = 1
    story.resolve("app", "one", "two", "three")
    assert story.run.right == 1
    assert story.fetched() == [page("one")]
    story.run.wrong = 2
    story.run.page_requested("two")
    assert story.next() == [Join(page("two"))]
    assert story.run.right == 2


def test_another_choice_of_the_client_is_a_wrong_guess() -> None:
    """The metadata of another version was wrong; what follows from it is withdrawn."""
    story = Story()
    story.run.right = 10
    story.run.page_requested("app")
    story.find("app", "2.0")
    assert story.fetched() == [metadata("app", "2.0")]
    story.read("app", "new", version="2.0")
    assert story.fetched() == [page("new")]
    story.run.metadata_requested("app", wheel("app"))
    assert story.run.wrong == 1
    story.read("app", "old")
    story.run.page_arrived("new")
    assert story.search("new", None).constraints == Constraints(frozenset())
    assert story.fetched() == [page("old")]


def test_later_requirements_change_the_prediction() -> None:
    """A specifier that comes from another project leads to another search."""
    story = Story()
    story.run.right = 10
    story.resolve("app", "one", "two")
    story.find("one", "2.0")
    story.find("two")
    story.read("two", "one<2")
    assert story.search("one", candidate("one")).constraints == Constraints(frozenset({"<2"}))
    assert story.fetched()[-1] == metadata("one")


def test_a_candidate_that_fits_later_requirements_needs_no_search() -> None:
    """The newest version stays the newest that fits; the page is not read again."""
    story = Story()
    story.run.right = 10
    story.resolve("app", "one", "two")
    story.find("one", "2.0")
    story.find("two")
    story.read("two", "one>1")
    assert not [step for step in story.next() if isinstance(step, Search)]
    story.run.page_arrived("one")
    assert story.search("one", None).constraints == Constraints(frozenset({">1"}))


def test_extras_count_once_an_enclosing_requirement_names_them() -> None:
    """The requirements of a requested extra follow; those of others do not."""
    story = Story()
    story.run.right = 10
    story.resolve("app", "one")
    story.find("one")
    story.read("one", "always", "sometimes; extra == 'more'", "never; extra == 'other'")
    assert story.fetched() == [page("one"), metadata("one"), page("always")]
    story.resolve("app2", "one[more]")
    assert story.fetched() == [page("sometimes")]


def test_an_extra_may_name_other_extras_of_its_own_project() -> None:
    """``demo[all]`` requires ``demo[one,two]``, and these what they say."""
    story = Story()
    story.run.right = 10
    story.resolve("app", "demo[all]")
    story.find("demo")
    both = "demo[one,two]; extra == 'all'", "a; extra == 'one'", "b; extra == 'two'"
    story.read("demo", *both)
    assert {page("a"), page("b")} <= {*story.fetched()}


def test_extras_that_contradict_each_other_end() -> None:
    """Markers by which an extra withdraws itself, or alternates with another, cost a few steps."""
    for app, one in (
        (['app[a]; extra != "a"'], []),
        (['one[x]; extra != "y"'], ['app[y]; extra == "x"']),
        (
            ['one[x]; extra != "a"', 'one[y]; extra == "a"'],
            ['app[a]; extra == "x"', 'app[b]; extra == "y"'],
        ),
    ):
        story = Story()
        story.run.right = 10
        story.resolve("app", *app)
        story.run.page_requested("one")
        story.find("one")
        story.read("one", *one)
        assert story.run.evaluated <= 2 * 2 * 4 * decide.EXTRAS_DEPTH


def test_a_chain_of_extras_is_followed_to_a_depth() -> None:
    """A thousand extras that require each other cost a few evaluations of each requirement."""
    story = Story()
    story.run.right = 10
    chain = [f'app[e{number + 1}]; extra == "e{number}"' for number in range(1000)]
    story.resolve("app", "app[e0]", *chain)
    assert len(chain) < story.run.evaluated <= 2000 * decide.EXTRAS_DEPTH


def test_evaluations_are_bounded() -> None:
    """Requirements beyond the budget of a run are not followed; those before stay in force."""
    story = Story()
    story.run.right = 10
    story.resolve("app", "one", "two")
    assert story.fetched() == [page("one"), page("two")]
    story.run.evaluated = decide.EVALUATIONS
    story.resolve("other", "three")
    assert story.fetched() == []
    story.run.page_arrived("one")
    assert story.search("one", None).constraints == Constraints(frozenset())


def test_what_a_run_keeps_is_bounded() -> None:
    """Beyond its bounds, a run keeps neither requirements nor guesses that metadata leads to."""
    story = Story()
    with mock.patch.object(decide, "KEPT", 10):
        story.resolve("app", *(f"p{number}" for number in range(9)))
        story.resolve("other", *(f"q{number}" for number in range(9)))
        assert story.run.kept == 9
        assert not [guess for guess in story.fetched_in_turn() if guess.project.startswith("q")]
    with mock.patch.object(decide, "RESOURCES", 20):
        story.run.right = 100
        story.resolve("last", *(f"r{number}" for number in range(50)))
        assert story.run.is_full
        assert 0 < len([each for each in story.fetched_in_turn() if each.project > "r"]) < 20


def test_markers_are_evaluated_for_the_client() -> None:
    """A requirement for an older Python leads to no request."""
    story = Story()
    story.run.right = 10
    story.resolve("app", "backport; python_version < '3.11'", "typing; python_version > '3'")
    assert story.fetched() == [page("typing")]


def test_cached_metadata_is_read_and_stale_pages_are_revalidated_at_once() -> None:
    """Stale pages need no window: they follow from the metadata in the cache."""
    names = ["app", *(f"p{number}" for number in range(50))]
    story = Story()
    story.states |= {page(name): State.STALE for name in names}
    story.states |= {metadata(name): State.FRESH for name in names}
    story.run.wrong = 10
    story.run.page_requested("app")
    assert story.next() == [Join(page("app")), Search("app", Constraints(frozenset()))]
    story.run.found(Search("app", Constraints(frozenset())), candidate("app"))
    assert story.next() == [Read(metadata("app"))]
    story.read("app", *names[1:])
    assert story.fetched_in_turn() == [page(name) for name in names[1:]]


def test_files_of_unknown_size_count_with_their_own_once_they_have_arrived() -> None:
    """The bytes of files that the client has not requested yet are bounded without stated sizes."""
    names = [f"p{number}" for number in range(8)]
    story = Story()
    for name in ("app", *names):
        story.run.page_requested(name)
        story.find(name)
        story.run.metadata_requested(name, wheel(name, "0.9"))
    story.run.file_requested("app", wheel("app", "0.9"), has_metadata=True)
    arrived = 0
    while fetched := [guess for guess in story.fetched() if guess.kind is Kind.FILE]:
        for guess in fetched:
            story.run.fetched(guess, decide.UNUSED // 4)
        arrived += len(fetched)
    assert arrived < len(names)


def test_few_searches_are_under_way() -> None:
    """Of a project only the last search waits, however often its constraints change meanwhile."""
    story = Story()
    story.run.right = 1
    names = [f"p{number}" for number in range(50)]
    for name in names:
        story.run.page_requested(name)
        story.run.page_arrived(name)
    begun = [step for step in story.next() if isinstance(step, Search)]
    assert [each.project for each in begun] == names[: decide.SEARCHES]
    for name in names:
        story.run.page_arrived(name)
    assert not [step for step in story.next() if isinstance(step, Search)]
    for each in begun:
        story.run.found(each, None)
    again = [step for step in story.next() if isinstance(step, Search)]
    assert len({each.project for each in again}) == decide.SEARCHES


def test_a_client_that_requests_pages_alone() -> None:
    """Thousands of guesses that wait for the window cost hardly more than a few."""
    story = Story()
    story.run.right = 1
    allowed = ClientRun._is_allowed
    with mock.patch.object(ClientRun, "_is_allowed", autospec=True, side_effect=allowed) as looked:
        for number in range(500):
            story.run.page_requested(f"p{number}")
            story.find(f"p{number}")
            story.next()
    assert looked.call_count < 500


def test_a_fresh_page_needs_no_request() -> None:
    """A page in the cache is searched at once."""
    story = Story(states={page("app"): State.FRESH})
    story.run.page_requested("app")
    assert story.next() == [Search("app", Constraints(frozenset()))]


def test_files_follow_the_first_file_that_the_client_requests() -> None:
    """A client that downloads has resolved: the wheels that it chose follow, window or not."""
    story = Story()
    story.resolve("app", "one")
    story.resolve("one")
    story.resolve("two")
    story.run.wrong = 10
    assert story.fetched() == []
    story.run.file_requested("app", wheel("app"), has_metadata=True)
    assert story.fetched() == [file("one"), file("two")]


def test_a_client_that_only_resolves_gets_no_files_and_a_small_window() -> None:
    """``uv lock`` may follow other platforms than its own, so little is guessed for it."""
    story = Story(LOCKING_UV)
    story.run.right = 100
    story.resolve("app", *(f"p{number}" for number in range(50)))
    assert len(story.fetched()) == decide.RESOLVE_WINDOW
    story.run.file_requested("app", wheel("app"), has_metadata=True)
    assert not [guess for guess in story.fetched() if guess.kind is Kind.FILE]


def test_a_resolver_for_all_platforms_takes_the_metadata_of_any_wheel() -> None:
    """For ``uv lock`` only a wheel for all platforms is guessed, and no wheel is fetched for it."""
    story = Story(LOCKING_UV)
    for name in ("compiled", "bare", "plain"):
        story.run.page_requested(name)
    story.run.page_arrived("compiled")
    tags = "cp311-cp311-manylinux_2_17_x86_64"
    story.search("compiled", Candidate(f"compiled-1.0-{tags}.whl", 9, has_metadata=True))
    story.find("bare", has_metadata=False)
    story.find("plain")
    assert story.fetched() == [metadata("plain")]


def test_uv_requests_its_files_by_itself_all_at_once() -> None:
    """Its wheels are not prefetched: none would arrive earlier."""
    story = Story(attrs.evolve(PIP, installer="uv"))
    story.resolve("app", "one")
    story.resolve("one")
    story.run.file_requested("app", wheel("app"), has_metadata=True)
    assert not [guess for guess in story.fetched() if guess.kind is Kind.FILE]


def test_files_that_a_resolver_left_behind_are_not_fetched() -> None:
    """After a conflict, a project that no choice requires any more gets no file."""
    story = Story()
    story.run.right = 10
    story.run.page_requested("app")
    story.find("app", "2.0")
    story.run.metadata_requested("app", wheel("app", "2.0"))
    story.read("app", "new", version="2.0")
    story.resolve("new")
    story.run.metadata_requested("app", wheel("app"))
    story.read("app", "old")
    story.resolve("old")
    story.fetched()
    story.run.file_requested("app", wheel("app"), has_metadata=True)
    assert story.fetched() == [file("old")]


def test_a_client_without_a_platform_gets_no_files() -> None:
    """Pages and metadata are prefetched for it, wheels are not."""
    story = Story(UNKNOWN)
    story.resolve("app", "one", "two; python_version > '3'")
    assert story.fetched() == [page("one")]
    story.resolve("one")
    story.run.file_requested("app", wheel("app"), has_metadata=True)
    story.find("three", has_metadata=False)
    assert not [guess for guess in story.fetched() if guess.kind is Kind.FILE]


def test_an_older_pip_gets_the_wheel_itself() -> None:
    """pip before 23.2 reads metadata out of the wheel: that is predicted, up to a size."""
    story = Story(OLD_PIP)
    story.run.page_requested("app")
    story.find("app")
    assert story.fetched() == [file("app")]
    assert story.run.needs_metadata(file("app"))
    story.read("app", "large")
    assert not story.run.needs_metadata(file("app"))
    story.run.file_requested("app", wheel("app"), has_metadata=True)
    assert story.fetched() == [page("large")]
    story.run.page_arrived("large")
    story.search("large", attrs.evolve(candidate("large"), size=decide.LARGEST_WHEEL))
    assert story.fetched() == []


def test_an_index_without_metadata_is_resolved_by_wheels() -> None:
    """Where no metadata is advertised, a new pip downloads wheels to resolve."""
    story = Story()
    story.run.page_requested("app")
    story.find("app", has_metadata=False)
    assert story.fetched() == [file("app")]
    story.run.file_requested("app", wheel("app"), has_metadata=False)
    story.read("app", "one")
    story.find("one", has_metadata=False)
    assert story.fetched() == [page("one"), file("one")]


def test_unused_files_are_capped() -> None:
    """Further files wait until the client has used those before."""
    story = Story()
    half = decide.UNUSED // 2
    for name in ("a", "b", "c"):
        story.run.page_requested(name)
        story.run.page_arrived(name)
        story.search(name, attrs.evolve(candidate(name), size=half))
        story.run.metadata_requested(name, wheel(name))
        story.read(name)
    story.run.file_requested("z", wheel("z"), has_metadata=True)
    assert story.fetched() == [file("a")]
    story.run.fetched(file("a"), half)
    assert story.fetched() == [file("b")]
    story.run.fetched(file("b"), half)
    assert story.fetched() == []
    story.run.file_requested("a", wheel("a"), has_metadata=True)
    assert story.fetched() == [file("c")]


def test_large_files_are_fetched_one_after_the_other() -> None:
    """The bytes under way are bounded, so that the client's own download stays fast."""
    story = Story()
    for name in ("a", "b", "c", "d"):
        story.run.page_requested(name)
        story.run.page_arrived(name)
        story.search(name, attrs.evolve(candidate(name), size=decide.FIRST_FILES // 2))
        story.run.metadata_requested(name, wheel(name))
        story.read(name)
    story.run.file_requested("a", wheel("a"), has_metadata=True)
    assert story.fetched() == [file("b"), file("c")]
    story.run.fetched(file("b"), decide.FIRST_FILES // 2)
    assert story.fetched() == [file("d")]


def test_the_rate_of_the_link_bounds_the_files_at_once() -> None:
    """On a slow link one file is fetched after the other; on a fast one, many are."""
    for rate, at_once in ((500_000, 1), (5_000_000, 10)):
        story = Story()
        names = [f"p{number}" for number in range(20)]
        for name in names:
            story.run.page_requested(name)
            story.run.page_arrived(name)
            story.search(name, attrs.evolve(candidate(name), size=200_000))
            story.run.metadata_requested(name, wheel(name))
            story.read(name)
        story.run.file_requested("a", wheel("a"), has_metadata=True)
        first = story.fetched()
        assert len(first) == decide.FIRST_FILES // 200_000
        for left, guess in zip(range(len(first), 0, -1), first, strict=True):
            story.run.fetched(guess, 200_000, left * 200_000 / rate)
        assert len(story.fetched()) == at_once


def test_a_private_file_names_nobody_before_the_client_chose_it() -> None:
    """Requirements in a private file that is only guessed are requested from no index."""
    story = Story()
    story.run.right = 10
    story.run.page_requested("internal")
    story.find("internal", "2.0")
    story.read("internal", "secret", version="2.0", private=True)
    assert story.fetched() == [metadata("internal", "2.0")]
    story.run.metadata_requested("internal", wheel("internal", "2.0"))
    assert story.fetched() == [page("secret")]


def test_a_failed_guess_leaves_the_window() -> None:
    """A failed fetch is not outstanding any more, and is not repeated."""
    story = Story()
    story.resolve("app", "one", "two", "three", "four", "five")
    first = story.fetched()
    assert len(first) == 4
    story.run.failed(first[0])
    assert len(story.fetched()) == 1
    assert story.next() == []


def test_the_budget_of_requests_is_kept() -> None:
    """However right the guesses are, a run sends no more requests than its budget."""
    story = Story()
    story.run.right = 10_000
    story.resolve("app", *(f"p{number}" for number in range(decide.REQUESTS + 5)))
    assert len(story.fetched_in_turn()) == decide.REQUESTS
    assert story.fetched() == []


def test_a_client_that_no_guess_is_right_for_gets_no_more() -> None:
    """A mirror requests page after page: after some, none is searched, until a guess is right."""
    story = Story()
    for number in range(decide.PAGES - 1):
        story.run.page_requested(f"p{number}")
        story.find(f"p{number}")
    story.run.page_requested("last")
    story.run.page_arrived("last")
    assert story.next() == []
    story.run.metadata_requested("p0", wheel("p0"))
    assert Search("last", Constraints(frozenset())) in story.next()


def test_few_fetches_are_begun_at_once() -> None:
    """The next one begins when one has ended: a large tree does not keep the reactor busy."""
    story = Story()
    story.run.right = 100
    story.resolve("app", *(f"p{number}" for number in range(50)))
    first = story.fetched()
    assert len(first) == decide.FETCHES
    story.run.failed(first[0])
    story.run.fetched(first[1], 10)
    assert len(story.fetched()) == 2


def test_the_budget_of_bytes_is_kept() -> None:
    """Once a run has received so many bytes, it fetches no page either."""
    story = Story()
    story.resolve("app", "one", "two")
    first = story.fetched()[0]
    story.run.fetched(first, decide.BYTES)
    story.run.right = 10
    story.resolve("other", "three")
    assert story.fetched() == []


def test_older_choices_give_a_cutoff_date() -> None:
    """Two choices of versions that were the newest a year ago date the list."""
    story = Story()
    for name in ("one", "two"):
        story.run.page_requested(name)
        story.find(name, "2.0", uploaded="2026-06-01")
        story.run.metadata_requested(name, wheel(name))
        older = candidate(name, uploaded="2025-01-01", newer="2025-06-01")
        assert story.search(name, older).chosen == wheel(name)
    story.run.page_requested("three")
    story.run.page_arrived("three")
    assert story.search("three", None).constraints.cutoff == "2025-06-01"


def test_the_cutoff_date_is_what_most_choices_have_in_common() -> None:
    """An older pin gives no date once most choices are the newest versions."""
    cutoff = decide._Cutoff()

    def note(uploaded: str, newer: str | None) -> str | None:
        cutoff.note(candidate("any", uploaded=uploaded, newer=newer))
        return cutoff.date

    assert note("2025-01-01", "2025-06-01") == "2025-06-01"
    assert note("2025-02-01", "2025-05-01") == "2025-05-01"
    assert note("2025-03-01", None) == "2025-05-01"
    assert note("2025-07-01", None) is not None
    assert note("2025-08-01", None) is None


def test_backtracking_gives_no_cutoff_date() -> None:
    """A second choice for a project follows from a conflict, not from a date."""
    story = Story()
    story.run.page_requested("one")
    story.find("one", "2.0", uploaded="2026-06-01")
    story.run.metadata_requested("one", wheel("one", "2.0"))
    story.run.metadata_requested("one", wheel("one"))
    assert not [step for step in story.next() if isinstance(step, Search)]
    assert story.run.wrong == 0


NAMES = st.sampled_from([f"p{number}" for number in range(6)])
VERSIONS = st.sampled_from(["1.0", "2.0"])
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("page_requested"), NAMES),
        st.tuples(st.just("metadata_requested"), NAMES, VERSIONS),
        st.tuples(st.just("file_requested"), NAMES, VERSIONS),
        st.tuples(st.just("page_arrived"), NAMES),
        st.tuples(st.just("metadata_arrived"), NAMES, VERSIONS, st.lists(NAMES, max_size=4)),
        st.tuples(st.just("failed"), NAMES),
        st.tuples(st.just("sdist_requested"), NAMES),
        st.tuples(st.just("cached"), NAMES, VERSIONS, st.sampled_from(State)),
    ),
    max_size=60,
)


@given(EVENTS, st.sampled_from([PIP, OLD_PIP, LOCKING_UV, UNKNOWN]), st.randoms())
def test_any_events_end_within_the_budget(events: list[Any], client: Client, random: Any) -> None:
    """Any events in any order: no resource is fetched twice, counts stay right, steps end."""
    story, fetched = Story(client), list[Resource]()
    run = story.run
    for event, name, *rest in events:
        match event:
            case "page_requested" | "page_arrived":
                getattr(run, event)(name)
            case "metadata_requested":
                run.metadata_requested(name, wheel(name, *rest))
            case "file_requested":
                run.file_requested(name, wheel(name, *rest), random.random() < 0.5)
            case "metadata_arrived":
                story.read(name, *rest[1], version=rest[0])
            case "failed":
                run.failed(page(name))
            case "sdist_requested":
                run.file_requested(name, f"{name}-1.0.tar.gz", has_metadata=False)
            case "cached":
                for guess in (page(name), metadata(name, rest[0]), file(name, rest[0])):
                    story.states[guess] = rest[1]
                story.states[Resource(Kind.FILE, name, f"{name}-1.0.tar.gz")] = rest[1]
        for _ in range(100):
            if not (steps := story.next()):
                break
            for step in steps:
                if isinstance(step, Fetch):
                    fetched.append(step.resource)
                elif isinstance(step, Search):
                    found = candidate(step.project, random.choice(["1.0", "2.0"]))
                    run.found(step, random.choice([found, None]))
        else:
            raise AssertionError("the steps do not end")
    assert len(fetched) == len(set(fetched)) == run.requests <= decide.REQUESTS
    assert run.unused >= 0 and len(fetched) <= 6 * 5
