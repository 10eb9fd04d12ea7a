"""A share of a pool: how many jobs of one user run at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from proxpi.resources import Share
from tests.support.cases import Case


class ShareTests(Case):
    """Jobs that wait for a thread of their share."""

    def setUp(self) -> None:
        """Prepare a pool whose jobs end when the test says so."""
        self.running: list[Deferred[Any]] = []
        self.share = Share(self.run_job, 2)

    def run_job(self, job: Callable[[], Any]) -> Deferred[Any]:
        """Begin a job."""
        self.running.append(Deferred())
        return self.running[-1].addCallback(lambda _: job())

    def end(self) -> None:
        """End the job that began first."""
        self.running.pop(0).callback(None)

    def test_no_more_than_its_share(self) -> None:
        """The third job begins when one of two has ended, and each gives its own result."""
        results = [self.share(lambda number=number: number) for number in range(4)]  # type: ignore[misc]
        assert len(self.running) == 2
        self.end()
        assert self.result(results[0]) == 0
        assert len(self.running) == 2
        for _ in range(3):
            self.end()
        assert [self.result(each) for each in results[1:]] == [1, 2, 3]

    def test_error(self) -> None:
        """The error of a job goes to who wants its result, and frees its thread."""

        def fails() -> None:
            raise KeyError

        results = [self.share(fails) for _ in range(3)]
        for result in results:
            self.end()
            self.error(result, KeyError)
        assert self.unhandled() == []

    def test_cancelled(self) -> None:
        """A cancelled job keeps its thread until it ends; one that waits does not begin."""
        results = [self.share(lambda: None) for _ in range(4)]
        for result in (results[0], results[2]):
            result.cancel()
            self.error(result, CancelledError)
        assert len(self.running) == 2
        self.end()
        assert len(self.running) == 2
        self.end()
        self.end()
        assert self.running == []
        self.result(results[1])
        self.result(results[3])
