"""A start with nothing cached, and with thousands of files: when is what there?

The files are small, and each is another; with thousands of them the folder was filled before, and a
start has passed in which it was taken stock of. Seconds count from the start of the process.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from bench import SMALL_PAGE, Bench, Scenario, Sizes, links, ours
from load import gunzipped, page, shared, warmed, whole
from programs import Program, Running, running
from stock import content
from values import Measure, Target

#: Files of each project.
FILES = 100


def _measures(sizes: Sizes) -> list[Measure]:
    return [
        Measure("start_health", "start, nothing cached: first /health, s"),
        Measure("start_empty", "… first page, s"),
        Measure("start_file", f"start, {sizes.kept:,} files cached: first file, s"),
        Measure("start_page", "… first page, s"),
        Measure("many_file", f"start, {sizes.many:,} files cached: first file, s"),
        Measure("many_page", "… first page, s"),
    ]


def _projects(files: int) -> list[str]:
    return [f"tiny-{number:03}-of-{FILES}" for number in range(files // FILES)]


def _run(bench: Bench, programs: Sequence[Program]) -> None:
    for program in programs:
        folder = bench.new_folder()
        with running(program, bench.index.url(), folder) as server:
            whole(server, "/health", server.get_when_up("/health"))
            bench.note("start_health", server, server.seconds())
            page(server, SMALL_PAGE)
            bench.note("start_empty", server, server.seconds())
        _kept(bench, program)
        if bench.first and ours(program):
            _many(bench, program)


def _kept(bench: Bench, program: Program) -> None:
    """Start with files that the program cached itself."""
    folder = bench.new_folder()
    settings = {"PROXPI_CACHE_DIR": str(folder / "kept")}
    projects = _projects(bench.sizes.kept)
    with bench.started(program, None, settings, folder) as server:
        paths = []
        for project in projects:
            body = gunzipped(page(server, f"/index/{project}/"))
            paths += _paths(server, project, body)
        shared(server.port, paths, 4, {})
    _timed(bench, program, settings, folder, "start")


def _paths(server: Running, project: str, body: bytes) -> list[str]:
    if server.program.passes_on:
        return [urlsplit(file["url"]).path for file in json.loads(body)["files"]]
    return [f"/index/{project}/{name}" for name in links(body)]


def _many(bench: Bench, program: Program) -> None:
    """Start with files that lie there as the original would have left them."""
    folder = bench.new_folder()
    settings = {"PROXPI_CACHE_DIR": str(folder / "kept")}
    for project in _projects(bench.sizes.many):
        for name, url in _urls(bench, project):
            file = folder / "kept/127-0-0-1" / Path(urlsplit(url).path[1:])
            file.parent.mkdir(parents=True)
            file.write_bytes(content(name) or b"")
    with bench.started(program, None, settings, folder) as server:
        path, _ = bench.file(server, _projects(bench.sizes.many)[0])
        warmed(server, path)
    _timed(bench, program, settings, folder, "many")


def _urls(bench: Bench, project: str) -> list[tuple[str, str]]:
    files = json.loads(bench.index.get(f"/simple/{project}/", {}).body)["files"]
    return [(file["filename"], file["url"]) for file in files]


def _timed(
    bench: Bench, program: Program, settings: dict[str, str], folder: Path, key: str
) -> None:
    """Start, and see when a file that is cached is there, and then its page."""
    with running(program, bench.index.url(), folder, settings) as server:
        path, _ = bench.file(server, _projects(FILES)[0])
        reply = server.get_when_up(path)
        bench.note(f"{key}_file", server, server.seconds())
        whole(server, path, reply)
        page(server, f"/index/{_projects(FILES)[0]}/")
        bench.note(f"{key}_page", server, server.seconds())


SCENARIOS = [
    Scenario(
        "starts",
        _measures,
        [
            Target("start_file", False, 0.5),
            Target("start_page", False, 0.5),
            Target("many_file", False, 1),
        ],
        _run,
    )
]
