"""What is not cached yet: pages near and far, a herd for one file, clients that are sent upstream.

What is far is behind the slow link of ``link.py``: 50 ms round trip, 4 MiB a second for each
connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from bench import SMALL_PAGE, STREAMING, Bench, Scenario, Sizes, ours
from environments import Unusable
from lists import HTML
from load import MIB, PAGE_HEADERS, at_once, complete, page, probing, shared, take, timed
from programs import Program, Running
from values import NGINX, ORIGINAL, Measure, Target

#: Clients that share out the pages that are far.
CLIENTS = 16
#: Seconds after which a client is sent upstream, unless it is set.
TIMEOUT = 0.9


def _pages(sizes: Sizes) -> list[str]:
    return [f"bulk-{number:04}-of-300" for number in range(sizes.pages)]


def _near_measures(sizes: Sizes) -> list[Measure]:
    many = f"{sizes.pages:,} pages of 300 files"
    return [
        Measure("cold_cpu", f"{many}, cold: CPU ms per page"),
        Measure("memory_idle", "memory: idle, MiB"),
        Measure("memory_full", f"… after {many}, MiB"),
        Measure("memory_again", "… after they were asked for again, MiB"),
        Measure("restart_asked", f"restart: index asked for these {sizes.pages:,} pages, times"),
    ]


def _near(bench: Bench, programs: Sequence[Program]) -> None:
    """Ask for many pages one after the other, again, and again after a restart."""
    paths = [f"/index/{name}/" for name in _pages(bench.sizes)]
    bench.prepare(_pages(bench.sizes))
    for program in programs:
        folder = bench.new_folder()
        settings = {"PROXPI_CACHE_DIR": str(folder / "kept")}
        with bench.started(program, None, settings, folder) as server:
            bench.note("memory_idle", server, server.memory() / MIB)
            before = server.cpu_seconds()
            shared(server.port, paths, 1, PAGE_HEADERS)
            spent = server.cpu_seconds() - before
            bench.note("cold_cpu", server, spent / len(paths) * 1e3)
            bench.note("memory_full", server, server.memory() / MIB)
            if bench.first:
                shared(server.port, paths, 1, PAGE_HEADERS)
                bench.note("memory_again", server, server.memory() / MIB)
        if bench.first and program.name != ORIGINAL:
            asked = bench.index.asked()
            with bench.started(program, None, settings, folder) as server:
                shared(server.port, paths, 1, PAGE_HEADERS)
                bench.note("restart_asked", server, bench.index.asked() - asked)


def _far_measures(sizes: Sizes) -> list[Measure]:
    what = f"{sizes.herd} clients, one cold {sizes.herd_blob} MiB wheel, slow link"
    return [
        Measure("far_pages", f"{sizes.distant} cold pages, 50 ms round trip, {CLIENTS} clients: s"),
        Measure("herd_fetched", f"{what}: fetched, times"),
        Measure("herd_last", "… last whole, s"),
        Measure("herd_factor", "… last whole, times one direct download"),
        Measure("herd_first", "… median first byte, s"),
        Measure("herd_cpu", "… CPU s"),
    ]


def _far(bench: Bench, programs: Sequence[Program]) -> None:
    names = [f"far-{number:03}-of-10" for number in range(bench.sizes.distant)]
    bench.prepare(names, bench.distant)
    for program in programs:
        with bench.started(program, bench.distant) as server:
            paths = [f"/index/{name}/" for name in names]
            bench.note("far_pages", server, shared(server.port, paths, CLIENTS, PAGE_HEADERS))
        with bench.started(program, bench.distant, STREAMING) as server:
            _herd(bench, server)


def _herd(bench: Bench, server: Running) -> None:
    project = f"blob-{bench.sizes.herd_blob}-of-1"
    _, direct, size = bench.distant.file(project)
    alone = take(bench.distant.port, direct, size)
    path, _ = bench.file(server, project, bench.distant)
    asked, before = bench.index.fetched(), server.cpu_seconds()
    done = at_once(server, path, size, bench.sizes.herd)
    bench.note("herd_fetched", server, bench.index.fetched() - asked)
    bench.note("herd_cpu", server, server.cpu_seconds() - before)
    if done:
        last = max(taken.last for taken in done)
        bench.note("herd_last", server, last)
        bench.note("herd_factor", server, last / alone.last)
        bench.note("herd_first", server, median(taken.first for taken in done))


def _pause_measures(sizes: Sizes) -> list[Measure]:
    waiting = f"cold page of {sizes.huge:,} files: others wait at most"
    return [
        Measure("pause_json", f"{waiting}, JSON, gzip, ms"),
        Measure("pause_html", f"{waiting}, HTML, ms"),
        Measure("timer_off", "redirect after 0.9 s, under load: off at most, ms"),
    ]


def _pauses(bench: Bench, programs: Sequence[Program]) -> None:
    if not bench.first:
        return
    names = {f"huge-{form}-of-{bench.sizes.huge}": form for form in ("json", "html")}
    bench.prepare(list(names))
    for program in programs:
        with bench.started(program) as server:
            for name, form in names.items():
                path, headers = f"/index/{name}/", HTML if form == "html" else PAGE_HEADERS
                with probing(server, "/health") as probe:
                    reply = page(server, path, headers)
                # nginx passes on what the index has, which is JSON.
                mark = b"</a>" if reply.body.startswith(b"<") else b'"filename"'
                complete(server, reply, mark, bench.sizes.huge)
                bench.note(f"pause_{form}", server, probe.worst)
        if ours(program):
            with bench.started(program, bench.distant) as server:
                _timer(bench, server)


def _timer(bench: Bench, server: Running) -> None:
    """Let clients wait for a file that takes longer than they do, while a page is asked for."""
    small = len(page(server, SMALL_PAGE).body)
    # It is a second and a quarter away at least.
    path, _ = bench.file(server, "blob-5-of-1", bench.distant)
    page(server, f"{path.rpartition('/')[0]}/")  # the page is not what is waited for

    def wait(_: int) -> float:
        spent, reply = timed(server.get, path, {})
        if reply.status != 302:
            raise Unusable(f"{server.program.name} answers {path} with status {reply.status}")
        return spent

    with ThreadPoolExecutor(bench.sizes.herd + 1) as pool:
        load = pool.submit(bench.load.run, server, SMALL_PAGE, PAGE_HEADERS, small)
        waits = list(pool.map(wait, range(bench.sizes.herd)))
        load.result()
    bench.note("timer_off", server, max(abs(wait - TIMEOUT) for wait in waits) * 1e3)


SCENARIOS = [
    Scenario(
        "cold-pages",
        _near_measures,
        [
            Target("cold_cpu", False, 6),
            Target("memory_idle", False, 60),
            Target("memory_full", False, 120),
        ],
        _near,
    ),
    Scenario(
        "far",
        _far_measures,
        [
            Target("far_pages", False, 1, NGINX),
            Target("herd_fetched", False, 1),
            Target("herd_factor", False, 1.1),
        ],
        _far,
    ),
    Scenario("pauses", _pause_measures, [], _pauses),
]
