"""Scenario for starts: time to the first responses, with an empty cache and with cached files.

The cached files are small and distinct. One start before the measured one has scanned the cache
folder. Seconds count from the start of the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clients import PAGE_HEADERS, get_all, get_cached, get_page, require_body
from corpus import content
from programs import Program, running
from results import Measure, Target
from scenario import SMALL_PAGE, Benchmark, Scenario, Sizes, is_proxpi

#: Files of each project.
FILES = 100


def _measures(sizes: Sizes) -> list[Measure]:
    return [
        Measure("start_health", "start, empty cache: first /health, s"),
        Measure("start_empty", "… first page, s"),
        Measure("start_file", f"start, {sizes.cached_files:,} files cached: first file, s"),
        Measure("start_page", "… first page, s"),
        Measure("many_file", f"start, {sizes.many_cached_files:,} files cached: first file, s"),
        Measure("many_page", "… first page, s"),
    ]


def _projects(files: int) -> list[str]:
    return [f"tiny-{number:03}-of-{FILES}" for number in range(files // FILES)]


def _run(bench: Benchmark, programs: Sequence[Program]) -> None:
    for program in programs:
        folder = bench.new_folder()
        with running(program, bench.index.url(), folder) as server:
            require_body(server, "/health", server.get_when_up("/health"))
            bench.note("start_health", server, server.seconds())
            get_page(server, SMALL_PAGE)
            bench.note("start_empty", server, server.seconds())
        _with_cached_files(bench, program)
        if bench.first and is_proxpi(program):
            _with_many_files(bench, program)


def _with_cached_files(bench: Benchmark, program: Program) -> None:
    """Measure a start with files that the program has cached itself."""
    folder = bench.new_folder()
    settings = {"PROXPI_CACHE_DIR": str(folder / "cache")}
    projects = _projects(bench.sizes.cached_files)
    with bench.started(program, None, settings, folder) as server:
        get_all(server.port, [f"/index/{project}/" for project in projects], 1, PAGE_HEADERS)
        paths = [path for project in projects for path, _ in bench.files(server, project)]
        get_all(server.port, paths, 4, {})
    _timed(bench, program, settings, folder, "start")


def _with_many_files(bench: Benchmark, program: Program) -> None:
    """Measure a start with files written here, in the layout of the original's cache folder."""
    folder = bench.new_folder()
    settings = {"PROXPI_CACHE_DIR": str(folder / "cache")}
    for project in _projects(bench.sizes.many_cached_files):
        for name, path, _ in bench.index.files(project):
            file = folder / "cache/127-0-0-1" / path[1:]
            file.parent.mkdir(parents=True)
            file.write_bytes(content(name) or b"")
    with bench.started(program, None, settings, folder) as server:
        path, _ = bench.file(server, _projects(bench.sizes.many_cached_files)[0])
        get_cached(server, path)
    _timed(bench, program, settings, folder, "many")


def _timed(
    bench: Benchmark, program: Program, settings: dict[str, str], folder: Path, key: str
) -> None:
    """Measure the time to the first cached file, then to its page."""
    with running(program, bench.index.url(), folder, settings) as server:
        path, _ = bench.file(server, _projects(FILES)[0])
        response = server.get_when_up(path)
        bench.note(f"{key}_file", server, server.seconds())
        require_body(server, path, response)
        get_page(server, f"/index/{_projects(FILES)[0]}/")
        bench.note(f"{key}_page", server, server.seconds())


SCENARIOS = [
    Scenario(
        "starts",
        _measures,
        [
            Target("start_file", "≤", 0.5),
            Target("start_page", "≤", 0.5),
            Target("many_file", "≤", 1),
        ],
        _run,
    )
]
