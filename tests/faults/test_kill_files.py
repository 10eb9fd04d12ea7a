"""``kill -9`` and files: every file in the cache folder is whole and right, and none is lost."""

from __future__ import annotations

import itertools
import multiprocessing
import signal
import threading
import time
from functools import partial
from pathlib import Path
from random import Random

import pytest
from twisted.internet.defer import Deferred

from proxpi.files.layout import RESERVED
from proxpi.tap import cache_folder
from tests.faults.sweep import FILES, contents, name_of, reference_of, work
from tests.support.cases import sha256
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.process import GUARD_SECONDS
from tests.support.processes import StartProxy, kill_at
from tests.support.proxy import Proxy

AMPLE, SCANTY = 10**6, 12_000
REAL_ROUNDS, REAL_FILES = 6, 60
#: Responses after which the real program is killed, at most.
REAL_ANSWERS = 60

# Forked from a process that has imported all of it: hundreds of them are to be started.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.faults.sweep"])


def _check(folder: Path, capacity: int) -> None:
    """Check that each file is right, and that the next process finds it and no other."""
    right = {name_of(number): contents(number) for number in range(FILES)}
    files = [path for path in (folder / "h-example").rglob("*") if path.is_file()]
    named = {path.name: path.read_bytes() for path in files if RESERVED not in path.name}
    assert all(data == right[name] for name, data in named.items())
    cache = cache_folder(folder, capacity)
    cache.prepare()
    assert not list(cache.own.glob("partial-*"))
    assert not list(folder.rglob(f"{RESERVED}*"))
    assert cache.quota.used == sum(map(len, named.values())) <= capacity
    for number in range(FILES):
        reference = reference_of(number)
        copy = cache.open(reference)  # if it is remembered that it was checked
        if cache.found(reference):
            Deferred.fromCoroutine(cache.check(reference))
            copy = cache.open(reference)
        assert (copy is not None) == (name_of(number) in named)
        if copy is not None:
            assert copy.read(0, copy.size) == contents(number)
            copy.close()


def _sweep(folder: Path, capacity: int) -> int:
    """Kill at every step of the work; count them."""
    for step in itertools.count():
        at = folder / str(step)
        at.mkdir(parents=True)
        process = _processes.Process(target=work, args=(str(at), capacity, step))
        process.start()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        _check(at, capacity)
        if process.exitcode == 0:
            return step
    raise AssertionError


def test_at_every_step(tmp_path: Path) -> None:
    """A kill before and after each call that changes the folder, with and without evictions."""
    assert sum(_sweep(tmp_path / str(capacity), capacity) for capacity in (AMPLE, SCANTY)) > 130


@pytest.mark.parametrize("churn", [False, True])
def test_real_program(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path, churn: bool
) -> None:
    """A file that a client has received is a hit after the kill.

    With deletions and evictions at the same time: right bytes, and the right sum.
    """
    wheels = [make_wheel("demo", f"1.{number}", padding=30_000) for number in range(REAL_FILES)]
    digests = {f"/index/demo/{wheel.filename}": wheel.sha256 for wheel in wheels}
    for wheel in wheels:
        fake_index.add(wheel)
    capacity = sum(wheel.size for wheel in wheels) // (4 if churn else 1)
    moments, received, cache = Random(2 + churn), set[str](), tmp_path / "cache"
    for number in range(REAL_ROUNDS):
        # Prefetched metadata would have no space beside the wheels.
        settings = {"cache_size": capacity, "prefetch": "off"}
        proxy = start_proxy(fake_index, cache_dir=cache, **settings)
        assert not list(cache.rglob(f"{RESERVED}*"))
        files = [path for path in cache.rglob("*.whl") if path.is_file()]
        told = proxy.get("/metrics").text.partition("\nproxpi_cache_bytes ")[2].split()[0]
        assert float(told) == sum(path.stat().st_size for path in files) <= capacity
        for path in () if churn else received:
            reply = proxy.get(path)
            assert (reply.headers["x-cache"], sha256(reply.body)) == ("HIT", digests[path])

        served = threading.Semaphore(0)

        def client(order: Random, proxy: Proxy, served: threading.Semaphore) -> None:
            path, act = order.choice(sorted(digests)), order.random()
            if churn and act < 0.2:
                deleted = "/cache" if act < 0.02 else path.replace("/index/", "/cache/")
                assert proxy.request("DELETE", deleted).status == 200
                return
            reply = proxy.get(path)
            # A file for which nothing can be evicted is a redirect.
            if not (churn and reply.status == 302):
                assert (reply.status, sha256(reply.body)) == (200, digests[path])
                received.add(path)
            served.release()

        def moment(served: threading.Semaphore = served) -> None:
            for _ in range(moments.randint(1, REAL_ANSWERS)):
                assert served.acquire(timeout=GUARD_SECONDS)
            # Not just when a response has come; nothing is waited for.
            time.sleep(moments.uniform(0, 0.02))

        orders = [Random(4 * number + lane) for lane in range(4)]
        kill_at(moment, proxy, [partial(client, order, proxy, served) for order in orders])
    assert len(received) > REAL_ROUNDS


def test_deleted(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """A file that was deleted before the kill is a miss after it."""
    wheel = make_wheel("demo")
    fake_index.add(wheel)
    for path in (f"/cache/demo/{wheel.filename}", "/cache", ""):
        proxy = start_proxy(fake_index, cache_dir=tmp_path / "cache")
        for expected in ("MISS", "HIT"):
            reply = proxy.get(f"/index/demo/{wheel.filename}")
            assert (reply.body, reply.headers["x-cache"]) == (wheel.data, expected)
        if path:
            assert proxy.request("DELETE", path).status == 200
        proxy.stop(signal.SIGKILL)
