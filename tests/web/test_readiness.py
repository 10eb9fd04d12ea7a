"""Readiness: a disk that refuses or hangs is a reason, and so is the drain."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from proxpi.web.readiness import SHARED, TIMEOUT, Readiness
from proxpi.web.responses import WholeResponse
from tests.support.cases import FolderCase, ProxpiCase, run

READY = {"status": "success", "data": None}


class Disk:
    """A thread whose jobs run once the disk responds."""

    def __init__(self) -> None:
        self.hangs = False
        self.calls = 0
        self.waiting: list[Callable[[], object]] = []

    def __call__(self, job: Callable[[], Any], /) -> Deferred[Any]:
        self.calls += 1
        done: Deferred[Any] = Deferred()
        self.waiting.append(lambda: done.callback(job()))
        if not self.hangs:
            self.respond()
        return done

    def respond(self) -> None:
        self.waiting.pop(0)()


class ReadinessTests(FolderCase):
    """The responses, with a disk that does what it is told."""

    def setUp(self) -> None:
        super().setUp()
        self.clock, self.disk = Clock(), Disk()
        self.draining = False
        self.cache = self.folder / "cache"
        self.cache.mkdir()
        self.readiness = Readiness(self.cache, self.disk, self.clock, lambda: self.draining)

    def ask(self) -> Deferred[WholeResponse]:
        return run(self.readiness.respond())

    def reasons(self, response: Deferred[WholeResponse]) -> list[str]:
        """Return the reasons of a response; none if it is ready."""
        sent = self.result(response)
        body = json.loads(sent.body)
        assert sent.headers["Cache-Control"] == "no-store"
        if sent.status == 200:
            assert body == READY
            return []
        assert (sent.status, body["status"]) == (503, "error")
        assert "Retry-After" in sent.headers
        assert all(reason in body["message"] for reason in body["reasons"])
        return [*body["reasons"]]

    def test_ready(self) -> None:
        """A folder that can be read is all that it takes."""
        assert self.reasons(self.ask()) == []

    def test_folder(self) -> None:
        """A folder that cannot be read is a reason until it can be."""
        self.cache.rmdir()
        [reason] = self.reasons(self.ask())
        assert reason == "The cache folder cannot be read: No such file or directory."
        self.cache.mkdir()
        self.clock.advance(SHARED)
        assert self.reasons(self.ask()) == []

    def test_drain(self) -> None:
        """A request that is answered during the drain learns of it."""
        self.disk.hangs = True
        response = self.ask()
        self.draining = True
        self.disk.respond()
        assert self.reasons(response) == ["proxpi is stopping."]

    def test_a_disk_that_hangs(self) -> None:
        """A disk that does not respond in time is a reason, with the time for which it has not."""
        self.disk.hangs = True
        first = self.ask()
        self.clock.advance(TIMEOUT - 0.1)
        self.pending(first)
        self.clock.advance(0.1)
        assert self.reasons(first) == ["The disk of the cache folder has not responded for 750 ms."]
        self.clock.advance(60)
        second = self.ask()
        self.clock.advance(TIMEOUT)
        assert "for 1 min 2 s" in self.reasons(second)[0]
        assert self.disk.calls == 1, "one check at a time"
        self.disk.respond()
        assert self.reasons(self.ask()) == []

    def test_shared(self) -> None:
        """Many requests share a check, and its outcome for a moment."""
        self.disk.hangs = True
        asked = [self.ask() for _ in range(10)]
        self.disk.respond()
        assert [self.reasons(each) for each in asked] == [[]] * 10
        self.clock.advance(SHARED / 2)
        assert self.reasons(self.ask()) == []
        assert self.disk.calls == 1
        self.clock.advance(SHARED)
        self.pending(self.ask())
        assert self.disk.calls == 2

    def test_a_client_that_leaves(self) -> None:
        """A client that does not wait ends no check of others."""
        self.disk.hangs = True
        leaves, stays = self.ask(), self.ask()
        leaves.addErrback(lambda _: None)
        leaves.cancel()
        self.disk.respond()
        assert self.reasons(stays) == []


class RouteTests(ProxpiCase):
    """``/ready`` as clients ask for it."""

    def test_spellings(self) -> None:
        """It responds in any spelling, and to ``HEAD`` without a body."""
        for path in ("/ready", "/ready/", "//ready", "/ready?x", "http://h.example/ready"):
            response = self.get(path)
            assert (response.status, json.loads(response.body)) == (200, READY)
        head = self.ask("HEAD", "/ready")
        assert (head.status, head.body) == (200, b"")

    def test_before_klein(self) -> None:
        """The usual request does not need the admin tree, whose import takes a while."""
        self.put(self.site, "_rest", None)
        assert self.get("/ready").status == 200

    def test_upstream(self) -> None:
        """It does not ask the upstream."""
        self.get("/ready")
        assert self.agent.asked == []

    def test_methods(self) -> None:
        """Other methods are refused with those that are allowed."""
        response = self.ask("POST", "/ready")
        assert response.status == 405
        assert "GET" in response.headers["allow"]
