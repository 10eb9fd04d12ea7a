"""Scenario for the project list: cold, warm, and its effect on other requests.

The representation with targets is measured in each round, the other two in the first. A probe
requests a cached page every 10 ms meanwhile; its maximal latency is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from clients import LONG_TIMEOUT, PAGE_HEADERS, get_page, probing, require_count, timed
from programs import Program
from results import NGINX, Measure, Target
from scenario import SMALL_PAGE, Benchmark, Scenario, Sizes

HTML = {"Accept": "text/html", "Accept-Encoding": "identity"}
JSON = {"Accept": PAGE_HEADERS["Accept"], "Accept-Encoding": "identity"}
#: Representations: key, format of the index, request headers, label.
LISTS: list[tuple[str, str, Mapping[str, str], str]] = [
    ("list", "json", PAGE_HEADERS, "gzip"),
    ("list_plain", "json", JSON, "not compressed"),
    ("list_html", "html", HTML, "HTML, not compressed"),
]


def _measures(sizes: Sizes) -> list[Measure]:
    rows = []
    for key, _, _, label in LISTS:
        rows += [
            Measure(f"{key}_cold", f"list of {sizes.projects:,} projects, {label}: cold, s"),
            Measure(f"{key}_factor", "… cold, relative to the index itself"),
            Measure(f"{key}_warm", "… warm, s"),
            Measure(f"{key}_wait", "… other requests, maximal latency, ms"),
            Measure(f"{key}_growth", "… peak memory growth, MiB"),
        ]
    return rows


def _run(bench: Benchmark, programs: Sequence[Program]) -> None:
    for key, kind, headers, _ in LISTS if bench.first else LISTS[:1]:
        root = f"{kind}-of-{bench.sizes.projects}"
        bench.index.get(f"/{root}/", {})
        own = median(timed(bench.index.get, f"/{root}/", {})[0] for _ in range(3))
        for program in programs:
            folder = bench.new_folder()
            settings = {"PROXPI_CACHE_DIR": str(folder / "cache")}
            with bench.started(program, None, settings, folder, root) as server:
                get_page(server, SMALL_PAGE, JSON)
                server.reset_peak_memory()
                before = server.peak_memory()
                with probing(server, SMALL_PAGE) as probe:
                    cold, response = timed(server.get, "/index/", headers, LONG_TIMEOUT)
                    warm = median(timed(get_page, server, "/index/", headers)[0] for _ in "123")
                mark = b"</a>" if kind == "html" else b'"name"'
                require_count(server, response, mark, bench.sizes.projects)
                bench.note(f"{key}_cold", server, cold)
                bench.note(f"{key}_factor", server, cold / own)
                bench.note(f"{key}_warm", server, warm)
                bench.note(f"{key}_wait", server, probe.max_latency)
                bench.note(f"{key}_growth", server, bench.memory_growth(server, before))


SCENARIOS = [
    Scenario(
        "project-list",
        _measures,
        [
            Target("list_cold", "≤", 2),
            Target("list_warm", "≤", 3, NGINX),
            Target("list_wait", "≤", 50),
            Target("list_growth", "≤", 60),
        ],
        _run,
    )
]
