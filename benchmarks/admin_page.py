"""Time of the admin page and of ``/stats`` with a large cache, beside those with an empty one.

Both programs run at once, so that the machine is the same for both. Probes from other processes
request ``/health`` of both every 10 ms meanwhile: the maximal latency is how long the reactor was
occupied. The first page, for which modules are imported and everything is counted, has its own row.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from statistics import median

from clients import probing, timed
from programs import Server, proxpi, running
from twisted.internet.task import Clock

from proxpi.index.index_response import StoredResponse
from proxpi.index.page_store import DOCUMENT, PageStore
from proxpi.problems import Problems

#: Nothing listens there: all pages are those of the cache.
INDEX = "http://127.0.0.1:9/"
#: What a person opens, and what the page's script and a monitor request.
PATHS = {
    "page": "/",
    "live sections": "/stats?format=html",
    "/stats": "/stats",
    "list by size": "/stats/projects?sort=size&page=7",
    "search": "/stats/projects?search=9",
    "files of a project": "/stats/projects/project-77",
}
PROBED = "/health"
REQUESTS = 15


def fill(folder: Path, files: int, projects: int) -> None:
    """Write a cache folder: files of two bytes, and pages of one index."""
    host = folder / "files-example/packages"
    for number in range(files):
        project = number % projects
        path = host / f"{number % 256:02x}" / f"project_{project}-{number // projects}.tar.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"xy")
    clock = Clock()
    problems = Problems(clock.seconds, time.time)
    store = PageStore(folder / ".proxpi/pages", clock, problems=problems)
    identity = sha256(INDEX.encode()).hexdigest()[:16]
    for project in range(projects):
        responses = {identity: StoredResponse(True, 0.0, '"etag"', served=True)}
        store.save(f"project-{project}", responses, {DOCUMENT + identity: b"{}\n", "json": b"{}"})


def until_scanned(server: Server, files: int) -> None:
    server.get_when_up(PROBED)
    while f"proxpi_cache_files {files}.0" not in server.get("/metrics").body.decode():
        time.sleep(0.1)


def measure(large: Server, empty: Server, name: str, path: str, requests: int) -> None:
    """Request a path of both, in turn, and print a row."""
    spent: dict[int, list[float]] = {large.port: [], empty.port: []}
    with probing(large, PROBED) as ours_probe, probing(empty, PROBED) as other_probe:
        for _ in range(requests):
            for server in (large, empty):
                spent[server.port].append(timed(server.get, path)[0] * 1e3)
    ours, other = (median(each) for each in spent.values())
    waits = f"{ours_probe.max_latency:>13.1f} {other_probe.max_latency:>12.1f}"
    print(f"{name:<20} {ours:>8.1f} {other:>12.1f} {ours / other:>6.1f} {waits}")


def main(files: int, projects: int) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fill(folder / "large", files, projects)
        servers = []
        for name in ("large", "empty"):
            (folder / f"of-{name}").mkdir()
            settings = {"PROXPI_CACHE_DIR": str(folder / name)}
            servers.append(
                stack.enter_context(running(proxpi(), INDEX, folder / f"of-{name}", settings))
            )
        large, empty = servers
        until_scanned(large, files)
        until_scanned(empty, 0)
        print(f"{files:,} files, {projects:,} projects; milliseconds")
        heads = f"{'large':>8} {'empty cache':>12} {'ratio':>6}"
        print(f"{'':<20} {heads} {'longest wait':>13} {'empty cache':>12}")
        measure(large, empty, "first page", "/", 1)
        for name, path in PATHS.items():
            measure(large, empty, name, path, REQUESTS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--projects", type=int, default=10_000)
    arguments = parser.parse_args()
    main(arguments.files, arguments.projects)
