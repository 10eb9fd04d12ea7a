"""Prefetching from a client's request to the upstream's and back, with all of proxpi in memory."""

from __future__ import annotations

import errno
import json
import os
from contextlib import nullcontext
from itertools import pairwise
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from proxpi.index import PageCache
from proxpi.prefetch import candidates, decide, drive
from proxpi.prefetch.drive import MAX_AGE, RUN_TIMEOUT, USE_TIMEOUT
from tests.support.agent import Reply, Silence
from tests.support.cases import FILES, INDEX, MIB, PRIVATE_INDEX, entry, page, sha256
from tests.support.prefetching import ACCEPT, PIP, USER_AGENT, PrefetchCase


class Prefetching(PrefetchCase):
    """One client, and the requests that its own lead to."""

    def cache_app(self, names: list[str]) -> None:
        """Let pages and metadata of a project, and of those that it requires, be cached."""
        self.project("app", *names)
        for name in names:
            self.project(name)
        for name in ["app", *names]:
            self.page(name)
            self.metadata(name)

    def test_the_tree_is_fetched_ahead_of_its_client(self) -> None:
        """One request for a page brings metadata, and the pages that follow, within the window."""
        self.project("app", "one", "two")
        self.project("one", "three")
        self.project("two")
        self.project("three")
        assert self.page("app").status == 200
        assert self.requested() == ["page app", "metadata app", "page one"]
        assert self.metadata("app").status == 200
        assert self.requested() == ["page two", "metadata one", "page three"]
        assert self.page("one").headers["x-cache"] == "HIT"
        assert self.requested() == ["metadata two", "metadata three"]

    def test_an_install_requests_everything_once(self) -> None:
        """Pages, metadata and wheels: each has one upstream request, most before the client's."""
        names = {"app": ("one", "two"), "one": ("three",), "two": ("one",), "three": ()}
        for name, needed in names.items():
            self.project(name, *needed)
        for name in names:
            assert self.page(name).status == 200
            assert self.metadata(name).status == 200
        assert self.wheel("app").body == b"wheel of app"
        before = len(self.agent.asked)
        assert [self.wheel(name).headers["x-cache"] for name in names] == ["HIT"] * 4
        assert len(self.agent.asked) == before
        kinds = ("page", "metadata", "wheel")
        assert sorted(self.requested()) == sorted(f"{kind} {n}" for kind in kinds for n in names)

    def test_a_file_without_a_page(self) -> None:
        """A cached file that a client requests without its page is served, wheel or sdist."""
        for name in ("demo-1.0.tar.gz", "demo-1.0-py3-none-any.whl"):
            self.serve(name, b"content")
            for _ in range(2):
                assert self.get(f"/index/demo/{name}", PIP).body == b"content"
                self.clock.advance(RUN_TIMEOUT + 1)
                self.page("absent")
            assert self.unhandled() == []

    def test_an_error_of_its_own_costs_no_response(self) -> None:
        """A bug in a decision is logged, and the client is served."""
        self.project("app")
        self.put(decide.ClientRun, "next", None)
        assert self.page("app").status == 200
        assert self.metadata("app").status == 200
        assert len(self.flushLoggedErrors(TypeError)) == 2  # type: ignore[no-untyped-call]

    def test_the_switch_turns_it_off(self) -> None:
        """With ``PROXPI_PREFETCH=off`` the upstream gets what clients request."""
        self.build(prefetch=False)
        self.project("app", "one")
        self.project("one")
        self.page("app")
        self.metadata("app")
        assert self.requested() == ["page app", "metadata app"]

    def test_pages_that_are_stale_at_once(self) -> None:
        """Without a time to live each page would be requested twice: nothing is prefetched."""
        self.build(prefetch=True, ttl=0.0)
        self.project("app", "one")
        self.project("one")
        self.page("app")
        assert self.requested() == ["page app"]

    def test_a_folder_without_a_time_to_live(self) -> None:
        """The time to live of a folder does not matter: its pages cost no request upstream."""
        self.build(prefetch=True, index=f"file://{self.new_folder()}", ttl=0.0, extra=INDEX)
        self.project("app", "one")
        self.project("one")
        self.page("app")
        assert self.requested() == ["page app", "metadata app", "page one"]

    def test_the_only_connection_is_for_clients(self) -> None:
        """With one connection to an upstream no client waits for a background request."""
        for connections, ahead in ((1, False), (2, True)):
            self.build(prefetch=True, connections=connections)
            self.project("app", "one")
            self.agent.at(f"{INDEX}one/", Silence())
            self.page("app")
            self.metadata("app")
            assert ("page one" in self.requested()) == ahead
            assert self.page("other").status == 404
            self.ask("DELETE", "/cache")

    def test_statistics_name_what_is_under_way(self) -> None:
        """While requests are under way, the statistics have the names of projects and files."""

        def under_way() -> object:
            return json.loads(self.get("/stats").body)["prefetching"]["under_way"]

        self.project("app", "one")
        self.project("one")
        wheel = "app-1.0-py3-none-any.whl"
        self.agent.silent |= {f"{INDEX}one/", f"{FILES}{wheel}.metadata"}
        self.page("app")
        assert under_way() == [f"{wheel}.metadata"]
        self.agent.release(f"{FILES}{wheel}.metadata")
        assert under_way() == ["one"]
        self.agent.release(f"{INDEX}one/")
        assert under_way() == []

    def test_a_client_joins_the_background_flight(self) -> None:
        """A client's request joins the background flight of a page, and gets its response."""
        self.project("app", "one")
        self.project("one")
        self.agent.silent.add(f"{INDEX}one/")
        before = self.outcomes().get("used", 0.0)
        self.page("app")
        exchange = self.connect()
        exchange.ask("GET", "/index/one/", PIP, ACCEPT)
        assert exchange.answer() is None
        self.agent.release(f"{INDEX}one/")
        answer = exchange.answer()
        assert answer is not None and answer.status == 200
        assert self.requested().count("page one") == 1
        assert self.outcomes()["used"] == before + 1

    def test_expired_pages_are_revalidated_together(self) -> None:
        """After the time to live, one request revalidates the pages of the whole tree."""
        names = [f"p{number}" for number in range(20)]
        self.cache_app(names)
        self.requested()
        self.clock.advance(1801)
        self.page("app")
        assert sorted(self.requested()) == sorted(f"page {name}" for name in ["app", *names])
        assert [self.page(name).headers["x-cache"] for name in names] == ["HIT"] * 20
        assert self.requested() == []

    def test_a_cached_tree_is_followed_in_many_turns(self) -> None:
        """Its hundreds of steps, none of which waits, let other clients have their turns."""
        names = ["app", *(f"p{number}" for number in range(100))]
        self.build(prefetch=False)
        self.project("app", *names[1:])
        for name in names[1:]:
            self.project(name)
        for name in names:
            self.page(name)
            self.metadata(name)
        self.build(prefetch=True)
        self.page("absent")
        read: list[str] = []
        metadata = self.mirror.metadata

        async def note(name: str, filename: str) -> bytes | None:
            read.append(name)
            return await metadata(name, filename)

        self.put(type(self.mirror), "metadata", staticmethod(note))
        turns: list[int] = []
        later = self.clock.callLater

        def call_later(delay: float, call: Any, *arguments: Any) -> Any:
            turns.append(len(read))
            return later(delay, call, *arguments)

        self.put(self.clock, "callLater", call_later)
        self.page("app", "X-Other: head")
        assert sorted(read) == sorted(names)
        assert max(after - before for before, after in pairwise([0, *turns, len(read)])) < 40

    def test_metadata_of_a_restored_folder_is_read(self) -> None:
        """Files that another program put there are verified, not requested upstream."""
        names = [f"p{number}" for number in range(9)]
        self.cache_app(names)
        self.build(prefetch=True, ttl=0.001)  # no usage log was written
        self.clock.advance(1.0)
        self.requested()
        self.page("app")
        assert self.requested() == [f"page {name}" for name in ["app", *names]]

    def test_hits_cost_nothing(self) -> None:
        """While all is fresh and cached, no page is searched and no metadata read."""
        self.project("app", "one")
        self.project("one")
        for name in ("app", "one"):
            self.page(name)
            self.metadata(name)
        self.clock.advance(RUN_TIMEOUT + 1)
        self.put(candidates, "predict", None)
        for name in ("app", "one"):
            assert self.page(name, "X-Other: head").headers["x-cache"] == "HIT"
            assert self.metadata(name).status == 200
        assert self.unhandled() == []

    def test_a_failing_index_gets_no_background_request(self) -> None:
        """A 503 in the background is not repeated; with an open breaker nothing is prefetched."""
        self.project("app", "one", "two")
        self.agent.at(f"{INDEX}one/", Reply(503))
        self.agent.at(f"{INDEX}two/", Reply(503))
        self.page("app")
        self.metadata("app")
        assert sorted(self.requested()) == ["metadata app", "page app", "page one", "page two"]
        self.clock.advance(1.0)
        self.page("app")
        assert self.requested() == []

    def test_a_private_name_is_requested_only_where_a_client_leads(self) -> None:
        """Requirements in a private file are followed once the client has chosen it."""
        self.build(index=PRIVATE_INDEX, prefetch=True)
        self.project("app", "secret")
        self.project("secret")
        self.page("app")
        assert "page secret" not in self.requested()
        self.metadata("app")
        assert "page secret" in self.requested()

    def test_uses_and_waste_are_counted(self) -> None:
        """A prefetched resource is used by a request within ten minutes, and else wasted."""
        self.project("app", "one")
        self.project("one")
        before = {"sent": 0.0, "used": 0.0, "wasted": 0.0} | self.outcomes()
        self.page("app")
        self.metadata("app")
        self.clock.advance(USE_TIMEOUT + 1)
        self.get("/metrics")
        after = self.outcomes()
        changes = {key: after.get(key, 0.0) - value for key, value in before.items()}
        assert changes == {"sent": 3.0, "used": 1.0, "wasted": 2.0}

    def test_each_background_request_is_counted_once(self) -> None:
        """A request that a client joins is used, and one that fails is wasted."""
        self.project("app", "one", "two")
        self.project("one")
        self.project("two")
        self.agent.at(f"{FILES}two-1.0-py3-none-any.whl.metadata", Reply(200, b"other"))
        before = {"sent": 0.0, "used": 0.0, "wasted": 0.0} | self.outcomes()
        self.agent.silent.add(f"{INDEX}one/")
        self.page("app")
        exchange = self.connect()
        exchange.ask("GET", "/index/one/", PIP, ACCEPT)
        self.agent.release(f"{INDEX}one/")
        self.metadata("app")
        self.metadata("one")
        assert len(self.requested()) == 1 + 5
        self.clock.advance(USE_TIMEOUT + 1)
        self.get("/metrics")
        after = self.outcomes()
        changes = {key: after.get(key, 0.0) - value for key, value in before.items()}
        assert changes == {"sent": 5.0, "used": 3.0, "wasted": 2.0}

    def test_prefetched_files_do_not_evict_each_other_unused(self) -> None:
        """With a small quota files are fetched as the client uses them, and each of them once."""
        self.build(prefetch=True, capacity=1500)
        names = [f"p{number}" for number in range(20)]
        self.project("app", *names)
        for name in names:
            self.project(name)
        for name in ["app", *names]:
            self.page(name)
            self.metadata(name)
        self.requested()
        for name in ["app", *names]:
            assert self.wheel(name).status == 200
        assert sorted(self.requested()) == sorted(f"wheel {name}" for name in ["app", *names])

    def test_downloads_that_fail_end_the_prefetching(self) -> None:
        """A disk that takes no byte, and metadata that is advertised in vain, cost few requests."""
        names = [f"p{number}" for number in range(40)]
        full = OSError(errno.ENOSPC, "full")
        refusing = mock.patch.object(os, "pwrite", mock.Mock(side_effect=full))
        for patch, status in ((refusing, 200), (nullcontext(), 404)):
            numbers = []
            for prefetch in (False, True):
                self.build(prefetch=prefetch)
                self.ask("DELETE", "/cache")
                self.project("app", *names)
                for name in names:
                    self.project(name)
                    if status != 200:
                        url = f"{FILES}{name}-1.0-py3-none-any.whl.metadata"
                        self.agent.at(url, Reply(status))
                self.requested()
                with patch:
                    for name in ["app", *names]:
                        self.page(name)
                        self.metadata(name)
                    for name in ["app", *names]:
                        self.wheel(name)
                requested = [each for each in self.requested() if not each.startswith("page")]
                numbers.append(len(requested))
            assert numbers[1] <= numbers[0] + decide.FAILURES + decide.FETCHES

    def test_a_large_file_of_unknown_size_is_for_clients(self) -> None:
        """Where the index states no size, a prefetched file that is large is given up."""
        filename = "one-1.0-py3-none-any.whl"
        for size, ends in ((16 * MIB + 1, True), (16 * MIB, False)):
            self.ask("DELETE", "/cache")
            self.project("app", "one")
            self.project("one")
            metadata = b"Metadata-Version: 2.4\n\n"
            listed = entry(
                filename, b"", hashes={}, size=None, metadata={"sha256": sha256(metadata)}
            )
            self.agent.at(f"{INDEX}one/", page(listed, name="one"))
            self.agent.at(f"{FILES}{filename}.metadata", Reply(200, metadata))
            self.agent.at(f"{FILES}{filename}", large := Reply(200, whole=False, length=size))
            self.build(prefetch=True, capacity=1024 * MIB)
            for name in ("app", "one"):
                self.page(name)
                self.metadata(name)
            self.wheel("app")
            assert "wheel one" in self.requested()
            assert (self.leftovers() == []) == ends
            self.clock.advance(2.0)
            assert large.closed == ends
            if not ends:
                large.cut()

    def test_no_file_is_fetched_for_the_requirements_in_it(self) -> None:
        """Without a cache, a client that reads wheels gets these; none is fetched besides."""
        old = f"User-Agent: {USER_AGENT.replace('26.3', '22.3')}"
        for stream in (False, True):
            self.build(prefetch=True, capacity=0, stream=stream)
            self.project("app", "one")
            self.get("/index/app/", old, ACCEPT)
            self.requested()
            self.get("/index/app/app-1.0-py3-none-any.whl", old)
            assert self.requested() == ["wheel app"] * stream

    def test_an_index_that_refuses_all_pages(self) -> None:
        """Guesses for which nothing is sent cost no recursion, and no time of the others."""
        names = [f"p{number}" for number in range(500)]
        self.build(prefetch=False)
        self.project("app", *names)
        self.page("app")
        self.metadata("app")
        self.build(prefetch=True)
        self.agent.at(f"{INDEX}limited/", Reply(429, headers={"Retry-After": "30"}))
        self.connect().ask("GET", "/index/limited/", PIP, ACCEPT)
        self.requested()
        calls: list[str] = []
        may_prefetch = PageCache.prefetch

        async def prefetch(pages: PageCache, name: str, *variant: Any) -> int | None:
            calls.append(name)
            return await may_prefetch(pages, name, *variant)

        self.put(PageCache, "prefetch", prefetch)
        self.page("app", "X-Other: head")
        assert self.requested() == []
        assert 0 < len(calls) <= 4
        assert self.unhandled() == []

    def test_a_run_has_a_maximal_age(self) -> None:
        """Behind one address, guesses for a client that is gone keep no window closed for ever."""
        for name in ("app", "other"):
            self.project(name, *(f"{name}{number}" for number in range(9)))
            for number in range(9):
                self.project(f"{name}{number}")
        self.page("app")
        for _ in range(int(MAX_AGE / RUN_TIMEOUT) + 2):
            self.clock.advance(RUN_TIMEOUT)
            self.page("absent")
        self.requested()
        self.page("other")
        assert self.requested() == ["page other", "metadata other", "page other0"]

    def test_a_run_ends_after_a_minute(self) -> None:
        """Guesses of an earlier run count no more, and its choices do not either."""
        names = [f"p{number}" for number in range(9)]
        self.project("app", *names)
        for name in ("other", *names):
            self.project(name)
        self.page("app")
        self.metadata("app")
        assert len(self.requested()) == 2 + 4
        self.clock.advance(RUN_TIMEOUT + 1)
        self.page("other")
        assert self.requested() == ["page other", "metadata other"]

    def test_the_memory_of_all_runs_is_bounded(self) -> None:
        """Client runs that keep many requirements end for those that are active later."""
        names = [f"p{number}" for number in range(60)]
        ahead = []
        for most in (1000, 100):
            self.put(drive, "MAX_KEPT", most)
            self.build(prefetch=True)
            self.ask("DELETE", "/cache")
            self.project("app", *names)
            self.page("app")
            self.metadata("app")
            for number in range(2):
                other = PIP.replace("26.3", f"25.{number}")
                self.get(f"/index/absent-{number}/", other, ACCEPT)
                self.get("/index/app/", other, ACCEPT)
            self.requested()
            self.page("p50")
            ahead.append([each for each in self.requested() if each != "page p50"])
        assert ahead[0] != [] == ahead[1]

    def test_a_client_that_crawls_has_one_run_after_the_other(self) -> None:
        """A run with more pages than any resolution is replaced, so that its memory is bounded.

        The next one has a budget of its own.
        """
        self.put(decide, "REQUESTS", 1)
        self.put(decide, "RESOURCES", 5)
        for name in ("app", "one", "two"):
            self.project(name)
        self.page("app")
        self.page("one")
        assert self.requested() == ["page app", "metadata app", "page one"]
        for number in range(5):
            self.page(f"absent-{number}")
        self.requested()
        self.page("two")
        assert self.requested() == ["page two", "metadata two"]


TREE = {"app": ["one", "two"], "one": ["three>=1"], "two": ["one", "gone"], "three": ["app"]}
REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["page", "metadata", "wheel", "wait"]),
        st.sampled_from([*TREE, "gone"]),
    ),
    max_size=30,
)


class SameResponses(PrefetchCase):
    """No response depends on prefetching."""

    def responses(self, traffic: list[tuple[str, str]], *, prefetch: bool) -> list[Any]:
        self.agent.script.clear()
        self.build(prefetch=prefetch)
        assert self.ask("DELETE", "/cache").status == 200
        for name, requires in TREE.items():
            self.project(name, *requires)
        found = []
        for kind, name in traffic:
            if kind == "wait":
                self.clock.advance(1000.0)
            else:
                answer = getattr(self, kind)(name)
                found.append((kind, name, answer.status, answer.body, answer.headers.get("etag")))
        return found

    @settings(max_examples=30, deadline=None)
    @given(REQUESTS)
    def test_the_same_bytes_with_and_without(self, traffic: list[tuple[str, str]]) -> None:
        """Random traffic gets the same statuses, bytes and entity tags, on and off."""
        assert self.responses(traffic, prefetch=True) == self.responses(traffic, prefetch=False)

    @settings(max_examples=30, deadline=None)
    @given(REQUESTS)
    def test_counts_add_up(self, traffic: list[tuple[str, str]]) -> None:
        """In the end each background request was used or wasted, and none was both."""
        before = {"sent": 0.0, "used": 0.0, "wasted": 0.0} | self.outcomes()
        self.responses(traffic, prefetch=True)
        self.clock.advance(USE_TIMEOUT + 1)
        self.get("/metrics")
        after = before | self.outcomes()
        sent, used, wasted = (after[key] - before[key] for key in ("sent", "used", "wasted"))
        assert sent == used + wasted
