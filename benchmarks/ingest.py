"""Measures the steps from an index's page to the response body, without any network.

Run it with the Python that has proxpi installed::

    .venv/bin/python benchmarks/ingest.py [FILES ...]

FILES are numbers of files of a page (300 and 20,000). The pages have the form of a large public
index. For each step it prints the CPU time (median) and the maximal delay of another thread that
wakes up every 5 ms, as the reactor thread would notice it. All values are in milliseconds.
"""

from __future__ import annotations

import gc
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import msgspec

from proxpi.index.compression import compress
from proxpi.index.representations import merge
from proxpi.simple import model
from proxpi.simple.parse import parse_project
from proxpi.simple.render import render_html, render_json

URL = "https://index.example/simple/demo-project/"
SWITCH_INTERVAL = 0.001
BEAT = 0.005


def page(files: int) -> bytes:
    """Render a JSON page, the same in every run."""
    drawn = random.Random(files)
    listed, versions = [], dict[str, None]()
    for number in range(files):
        version = f"{number // 100}.{number // 10 % 10}"
        versions[version] = None
        tags = f"cp3{number % 10}-cp3{number % 10}-manylinux_2_17_x86_64.manylinux2014_x86_64"
        wheel = number % 10 > 0
        name = f"demo_project-{version}-{tags}.whl" if wheel else f"demo_project-{version}.tar.gz"
        path, digest, metadata = (f"{drawn.getrandbits(256):064x}" for _ in range(3))
        listed.append(
            {
                "core-metadata": {"sha256": metadata} if wheel else False,
                "data-dist-info-metadata": {"sha256": metadata} if wheel else False,
                "filename": name,
                "hashes": {"sha256": digest},
                "provenance": None,
                "requires-python": ">=3.9",
                "size": drawn.randrange(10**7),
                "upload-time": f"2026-01-{number % 28 + 1:02}T03:04:05.{number:06}Z",
                "url": f"https://files.example/packages/{path[:2]}/{path[2:4]}/{path[4:]}/{name}",
                "yanked": False,
            }
        )
    return msgspec.json.encode(
        {
            "files": listed,
            "meta": {"_last-serial": 1, "api-version": "1.4"},
            "name": "demo-project",
            "versions": list(versions),
        }
    )


def measured(step: Callable[[], object]) -> tuple[float, float]:
    """Return CPU time and maximal delay of another thread, in milliseconds."""
    spent: list[float] = []
    delays, done = [0.0], threading.Event()

    def beat() -> None:
        while not done.is_set():
            due = time.perf_counter() + BEAT
            time.sleep(BEAT)
            delays.append(time.perf_counter() - due)

    probe = threading.Thread(target=beat)
    probe.start()
    began = time.perf_counter()
    while len(spent) < 3 or time.perf_counter() - began < 0.5:
        before = time.thread_time()
        step()
        spent.append(time.thread_time() - before)
    done.set()
    probe.join()
    return statistics.median(spent) * 1000, max(delays) * 1000


def ingest(body: bytes) -> None:
    """Run all steps from the index's page to the compressed JSON."""
    project = parse_project(body, None, URL, "demo-project")
    model.encode(project)
    compress(render_json(project))


def main(sizes: list[int]) -> None:
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.collect()
    gc.freeze()
    for files in sizes:
        body = page(files)
        project = parse_project(body, None, URL, "demo-project")
        html, json, document = render_html(project), render_json(project), model.encode(project)
        last = project.files[-1]["filename"]

        steps: dict[str, Callable[[], object]] = {
            "parse JSON": partial(parse_project, body, None, URL, "demo-project"),
            "parse HTML": partial(parse_project, html, None, URL, "demo-project"),
            "merge with itself": partial(merge, [project, project]),
            "encode": partial(model.encode, project),
            "decode": partial(model.decode, document),
            "find the last": partial(model.find, document, last),
            "render JSON": partial(render_json, project),
            "render HTML": partial(render_html, project),
            "gzip": partial(compress, json),
            "parse to gzip": partial(ingest, body),
        }
        print(f"\n{files} files, {len(body) / 1e6:.1f} MB           CPU     delay")
        for name, step in steps.items():
            spent, delay = measured(step)
            print(f"{name:<20} {spent:>16.2f} {delay:>9.1f}")


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [300, 20_000])
