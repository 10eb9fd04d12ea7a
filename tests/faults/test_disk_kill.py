"""Killed while it fills the cache folder: what is under a name afterwards is whole and right."""

from __future__ import annotations

import itertools
import multiprocessing
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

from twisted.internet.defer import Deferred

from proxpi.files.layout import RESERVED
from proxpi.tap import cache_folder
from tests.faults.sweep import FILES, contents, name_of, reference_of, work
from tests.support.cases import sha256
from tests.support.distributions import make_wheel
from tests.support.fake_index import FakeIndex
from tests.support.process import GUARD_SECONDS
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy

KILLS_AT_RANDOM = 60
AMPLE, SCANTY = 10**6, 12_000
REAL_ROUNDS, REAL_FILES = 6, 60
#: Answers after which the real program is killed, at most.
REAL_ANSWERS = 40

# Forked from a process that has imported all of it: hundreds of them are to be started.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.faults.sweep"])


def _named(folder: Path) -> dict[str, bytes]:
    """What lies under names, by these; what is proxpi's own is not among it."""
    files = [path for path in (folder / "h-example").rglob("*") if path.is_file()]
    named = [path for path in files if not path.name.startswith(RESERVED)]
    return {path.name: path.read_bytes() for path in named}


def _run(
    folder: Path, capacity: int, step: int | None, order: int, after: float | None = None
) -> bool:
    """Let a process do its work on the folder; whether it was killed before its end."""
    process = _processes.Process(target=work, args=(str(folder), capacity, step, order))
    process.start()
    if after is not None:
        process.join(after)
        process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def _check(folder: Path, capacity: int) -> None:
    """Check that each name stands for the right bytes, and what the next process makes of it."""
    right = {name_of(number): contents(number) for number in range(FILES)}
    named = _named(folder)
    assert all(data == right[name] for name, data in named.items())
    disk = cache_folder(folder, capacity)
    disk.prepare()
    assert not list(disk.own.glob("partial-*"))
    assert not list(folder.rglob(f"{RESERVED}*"))
    assert disk.quota.used == sum(map(len, named.values())) <= capacity
    for number in range(FILES):
        reference = reference_of(number)
        copy = disk.open(reference)  # if it is remembered that it was checked
        if disk.found(reference):
            Deferred.fromCoroutine(disk.check(reference))
            copy = disk.open(reference)
        assert (copy is not None) == (name_of(number) in named)
        if copy is not None:
            assert copy.read(0, copy.size) == contents(number)
            copy.close()


def _sweep(folder: Path, capacity: int) -> int:
    """Kill at every step of the work there is; how many these are."""
    for step in itertools.count():
        at = folder / str(step)
        at.mkdir(parents=True)
        killed = _run(at, capacity, step, order=1)
        _check(at, capacity)
        if not killed:
            return step
    raise AssertionError


def test_at_every_step(tmp_path: Path) -> None:
    """Before and after each call that changes the folder, with room enough and with too little."""
    steps = sum(
        _sweep(tmp_path / name, capacity)
        for name, capacity in [("ample", AMPLE), ("scanty", SCANTY)]
    )
    assert steps > 140


def test_at_any_moment(tmp_path: Path) -> None:
    """One after the other on one folder: nothing that had its name is lost, but to eviction."""
    moments = random.Random(1)
    killed = 0
    for order in range(KILLS_AT_RANDOM):
        before = set(_named(tmp_path))
        # The moment is random on purpose; nothing is waited for.
        killed += _run(tmp_path, AMPLE, None, order, after=moments.uniform(0, 0.03))
        _check(tmp_path, AMPLE)
        # Each of them forgets one file at its end.
        assert len(before - set(_named(tmp_path))) <= 1
        if len(before) >= FILES - 1:
            for path in (tmp_path / "h-example").rglob("*.*"):
                path.unlink()
    assert killed > KILLS_AT_RANDOM // 4


def _fetch(
    proxy: Proxy, paths: dict[str, str], first: int, seen: set[str], served: threading.Semaphore
) -> None:
    """Ask for files until the proxy dies; note what was served, and count it."""
    order = random.Random(first).sample(sorted(paths), len(paths))
    with suppress(OSError, HTTPException):
        for path in order:
            reply = proxy.get(path)
            assert (reply.status, sha256(reply.body)) == (200, paths[path])
            seen.add(path)
            served.release()


def test_the_whole_program(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """The same with real downloads: what a client has got is in the cache of the next process."""
    paths = {}
    for number in range(REAL_FILES):
        file = make_wheel("demo", f"1.{number}", padding=30_000)
        fake_index.add(file)
        paths[f"/index/demo/{file.filename}"] = file.sha256
    moments = random.Random(2)
    seen: set[str] = set()
    for number in range(REAL_ROUNDS):
        proxy = start_proxy(fake_index, cache_dir=tmp_path / "cache")
        for path in seen:
            reply = proxy.get(path)
            assert (reply.headers["x-cache"], sha256(reply.body)) == ("HIT", paths[path])
        served = threading.Semaphore(0)
        with ThreadPoolExecutor(4) as pool:
            asking = [
                pool.submit(_fetch, proxy, paths, 4 * number + lane, seen, served)
                for lane in range(4)
            ]
            for _ in range(moments.randint(1, REAL_ANSWERS)):
                assert served.acquire(timeout=GUARD_SECONDS)
            # Not just when an answer has come; nothing is waited for.
            threading.Event().wait(moments.uniform(0, 0.02))
            proxy.stop(signal.SIGKILL)
            for each in asking:
                each.result()
    assert 0 < len(seen)
    asked = [request.path for request in fake_index.files_asked()]
    assert len(asked) >= len(seen)


def _churn(
    proxy: Proxy, paths: dict[str, str], first: int, served: threading.Semaphore, stop: list[bool]
) -> int:
    """Ask for files, and delete some and all of them, until the proxy dies; count the answers."""
    chosen, answers = random.Random(first), 0
    with suppress(OSError, HTTPException):
        while not stop:
            path = chosen.choice(sorted(paths))
            act = chosen.random()
            if act < 0.2:
                deleted = "/cache" if act < 0.02 else path.replace("/index/", "/cache/")
                assert proxy.request("DELETE", deleted).status == 200
                continue
            reply = proxy.get(path)
            # One for which nothing can be evicted is redirected.
            assert reply.status == 302 or (reply.status, sha256(reply.body)) == (200, paths[path])
            answers += reply.status == 200
            served.release()
    return answers


def test_removals_of_the_whole_program(
    fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path
) -> None:
    """Deletions, evictions and downloads at once, and a kill: right bytes, and the right sum."""
    paths = {}
    for number in range(REAL_FILES):
        file = make_wheel("demo", f"1.{number}", padding=30_000)
        fake_index.add(file)
        paths[f"/index/demo/{file.filename}"] = file.sha256
    size = max(len(make_wheel("demo", "1.10", padding=30_000).data), 30_000)
    capacity = size * REAL_FILES // 4
    cache = tmp_path / "cache"
    moments, answers = random.Random(3), 0
    for number in range(REAL_ROUNDS):
        proxy = start_proxy(fake_index, cache_dir=cache, cache_size=capacity)
        assert not list(cache.rglob(f"{RESERVED}*"))
        files = [path for path in cache.rglob("*.whl") if path.is_file()]
        told = proxy.get("/metrics").text.partition("\nproxpi_cache_bytes ")[2].split()[0]
        assert float(told) == sum(path.stat().st_size for path in files) <= capacity
        served, stop = threading.Semaphore(0), list[bool]()
        with ThreadPoolExecutor(4) as pool:
            asking = [
                pool.submit(_churn, proxy, paths, 4 * number + lane, served, stop)
                for lane in range(4)
            ]
            for _ in range(moments.randint(1, 3 * REAL_ANSWERS)):
                assert served.acquire(timeout=GUARD_SECONDS)
            # Not just when an answer has come; nothing is waited for.
            threading.Event().wait(moments.uniform(0, 0.02))
            proxy.stop(signal.SIGKILL)
            stop.append(True)
            answers += sum(each.result() for each in asking)
    assert answers > REAL_ROUNDS
