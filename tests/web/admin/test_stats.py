"""The statistics: the state in words, and the document that ``/stats`` sends."""

from __future__ import annotations

import errno
import json
import os
from typing import Any
from unittest import mock

import pytest

from proxpi import __version__
from proxpi.index import IndexStatus
from proxpi.metrics import Totals
from proxpi.web.admin import stats
from tests.support.agent import Reply
from tests.support.cases import INDEX, PRIVATE_INDEX, ProxpiCase

SERVED = Totals(requests=1000, from_cache=940, misses=60, saved_bytes=12_400_000_000)


def index(name: str, state: Any) -> IndexStatus:
    return IndexStatus(name, INDEX, "http", state, None, None, None, None, 1800.0)


def indexes(states: str) -> list[IndexStatus]:
    """Return indexes a, b, c by the first letters of their states."""
    of_letter = {"r": "reachable", "f": "failing", "u": "unknown", "o": "offline"}
    return [index(name, of_letter[each]) for name, each in zip("abc", states, strict=False)]


@pytest.mark.parametrize(
    ("states", "writable", "problems", "level", "sentence"),
    [
        ("r", True, 0, "ok", "Serving; the index is reachable"),
        ("rr", True, 0, "ok", "Serving; 2 of 2 indexes reachable"),
        ("u", True, 0, "ok", "Serving; the index was not asked yet"),
        ("uu", True, 0, "ok", "Serving; no index was asked yet"),
        ("rru", True, 0, "ok", "Serving; 2 of 3 indexes reachable, 1 not asked yet"),
        ("oo", True, 0, "ok", "Serving what is cached; offline"),
        ("or", True, 0, "ok", "Serving what is cached; offline"),
        ("of", True, 0, "degraded", "Serving what is cached; offline; b fails"),
        ("rrf", True, 0, "degraded", "Serving; 2 of 3 indexes reachable (c fails)"),
        (
            "ffu",
            True,
            1,
            "degraded",
            "Serving; 0 of 3 indexes reachable (a, b fail), 1 not asked yet",
        ),
        (
            "r",
            False,
            3,
            "degraded",
            "Serving; the index is reachable; the cache folder cannot be written",
        ),
        (
            "r",
            True,
            1,
            "degraded",
            "Serving; the index is reachable; 1 problem in the last 10 minutes",
        ),
        (
            "r",
            True,
            2,
            "degraded",
            "Serving; the index is reachable; 2 problems in the last 10 minutes",
        ),
        ("f", True, 1, "failing", "Serving only what is cached; the index is not reachable"),
        ("ff", True, 1, "failing", "Serving only what is cached; no index is reachable"),
    ],
)
def test_state(states: str, writable: bool, problems: int, level: str, sentence: str) -> None:
    """The level is the worst of all situations, and the sentence tells why."""
    found = stats.state(indexes(states), writable=writable, problems=problems, day=Totals())
    assert (found.level, found.sentence) == (level, sentence)


def test_state_with_traffic() -> None:
    """The sentence ends with the savings of the cache."""
    sentence = stats.state(indexes("rrf"), writable=True, problems=0, day=SERVED).sentence
    assert sentence == (
        "Serving; 2 of 3 indexes reachable (c fails); "
        "94 % of requests from the cache in the last 24 hours; 12.4 GB not downloaded"
    )


class Stats(ProxpiCase):
    """The document as ``/stats`` sends it."""

    def document(self) -> Any:
        response = self.get("/stats")
        assert (response.status, response.headers["content-type"]) == (200, "application/json")
        assert response.headers["cache-control"] == "no-store"
        return json.loads(response.body)

    def test_not_ready(self) -> None:
        """The state says why the cache folder cannot be read, as ``/ready`` does."""
        with mock.patch(
            "os.scandir", side_effect=PermissionError(errno.EACCES, "Permission denied")
        ):
            reasons = json.loads(self.get("/ready").body)["reasons"]
            found = self.document()["state"]
        assert reasons == ["The cache folder cannot be read: Permission denied."]
        assert found["level"] == "degraded"
        assert found["sentence"] == (
            "Serving; the index was not asked yet; "
            "the cache folder cannot be read: Permission denied"
        )

    def test_nothing_yet(self) -> None:
        """Without traffic the numbers are zero, and the ratio is unknown."""
        found = self.document()
        assert found["version"] == stats.VERSION == 1
        assert found["proxpi"]["version"] == __version__
        assert found["proxpi"]["memory_bytes"] > 1_000_000
        assert found["state"] == {
            "level": "ok",
            "sentence": "Serving; the index was not asked yet",
        }
        for period in ("now", "day", "month"):
            traffic = found["traffic"][period]
            assert traffic.pop("hit_ratio") is None
            assert set(traffic.values()) == {0}
        for period, steps in (("day", 288), ("month", 720)):
            series = found["history"][period]
            assert {len(row) for row in series.values() if isinstance(row, list)} == {steps}
        assert (found["downloads"], found["problems"], found["excluded"]) == ([], [], [])
        assert found["cache"]["folder"] == str(self.folder)
        assert found["views"] == [{"name": "default", "indexes": ["root"]}]

    def test_pages_and_files(self) -> None:
        """Indexes have their pages, and the cache its files, most used and biggest projects."""
        self.serve("demo-1.0.zip", b"12345")
        assert self.get("/index/demo/demo-1.0.zip").status == 200
        found = self.document()
        index = found["indexes"][0]
        assert (index["state"], index["ttl_seconds"]) == ("reachable", 1800.0)
        assert index["pages"] == {"cached": 1, "fresh": 1, "stale": 0}
        cache = found["cache"]
        assert (cache["files"], cache["used_bytes"]) == (1, 5)
        assert [each["project"] for each in cache["biggest"]] == ["demo"]
        assert [each["uses"] for each in cache["most_used"]] == [1]
        assert found["traffic"]["now"]["requests"] == 1
        assert found["state"]["sentence"].startswith("Serving; the index is reachable; 0 % of")

    def test_failing_index(self) -> None:
        """The operator sees which index fails, since when, why, and what to do."""
        self.agent.at(f"{INDEX}demo/", Reply(500))
        assert self.ask("GET", "/index/demo/", within=10).status == 503
        found = self.document()
        index = found["indexes"][0]
        assert (index["state"], found["state"]["level"]) == ("failing", "failing")
        assert "500" in index["error"]
        assert index["failing_since"].endswith("Z")
        assert found["problems"][0]["remedy"]
        assert found["problems"][0]["count"] == 1

    def test_waiting(self) -> None:
        """The document has the number of requests that wait for an upstream."""
        self.agent.silent.add(f"{INDEX}demo/")
        client = self.connect()
        client.ask("GET", "/index/demo/")
        assert client.answer() is None
        assert self.document()["waiting"] == 1
        client.hang_up()
        assert self.document()["waiting"] == 0

    def test_folder_that_refuses_files(self) -> None:
        """A full disk is part of the state until a file is cached again."""
        self.serve("demo-1.0.zip", b"12345")
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with mock.patch("proxpi.atomic_files.begin", side_effect=full):
            self.get("/index/demo/demo-1.0.zip")
        found = self.document()
        assert found["state"]["level"] == "degraded"
        assert "the cache folder cannot be written" in found["state"]["sentence"]
        assert "free space" in found["problems"][0]["remedy"]
        assert self.get("/index/demo/demo-1.0.zip").status == 200
        assert "cannot be written" not in self.document()["state"]["sentence"]

    def test_evicted(self) -> None:
        """The files that were evicted last are named, the latest first."""
        self.build(capacity=10)
        for number in "123":
            self.serve(f"demo-{number}.0.zip", bytes(6))
            assert self.get(f"/index/demo/demo-{number}.0.zip").status == 200
            assert self.ask("DELETE", "/cache/demo").status == 200
        cache = self.document()["cache"]
        assert [each["file"] for each in cache["last_evicted"]] == ["demo-2.0.zip", "demo-1.0.zip"]
        assert [each["bytes"] for each in cache["last_evicted"]] == [6, 6]

    def test_no_secrets(self) -> None:
        """Neither indexes nor settings show credentials."""
        self.build(index=PRIVATE_INDEX, extra="https://you:hush@extra.example/")
        body = self.get("/stats").text + self.get("/").text
        assert "secret" not in body
        assert "hush" not in body
        settings = {
            each["variable"]: each for each in json.loads(self.get("/stats").body)["settings"]
        }
        assert settings["PROXPI_INDEX_URL"]["value"] == INDEX
        assert settings["PROXPI_INDEX_URL"]["source"] == "environment"

    def test_live_sections(self) -> None:
        """The live sections of the admin page are the same document as HTML."""
        response = self.get("/stats?format=html")
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert "the index was not asked yet" in response.text
