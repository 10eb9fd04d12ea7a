"""The list of all projects from a fast index: the first time, the next time, and who waits.

The form that has targets is measured in each round, the other two in the first. A page that is
cached is asked for every 10 ms meanwhile, and the longest wait for it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from bench import SMALL_PAGE, Bench, Scenario, Sizes
from load import PAGE_HEADERS, PATIENCE, complete, page, probing, timed
from programs import Program
from values import NGINX, Measure, Target

HTML = {"Accept": "text/html", "Accept-Encoding": "identity"}
JSON = {"Accept": PAGE_HEADERS["Accept"], "Accept-Encoding": "identity"}
#: How the list is had: key, what the index gives, what the client takes, how it is called.
LISTS: list[tuple[str, str, Mapping[str, str], str]] = [
    ("list", "json", PAGE_HEADERS, "gzip"),
    ("list_plain", "json", JSON, "not compressed"),
    ("list_html", "html", HTML, "HTML, not compressed"),
]


def _measures(sizes: Sizes) -> list[Measure]:
    rows = []
    for key, _, _, called in LISTS:
        rows += [
            Measure(f"{key}_cold", f"list of {sizes.listed:,} projects, {called}: cold, s"),
            Measure(f"{key}_factor", "… cold, times the index's own"),
            Measure(f"{key}_warm", "… warm, s"),
            Measure(f"{key}_wait", "… other pages wait at most, ms"),
            Measure(f"{key}_growth", "… growth of memory at most, MiB"),
        ]
    return rows


def _run(bench: Bench, programs: Sequence[Program]) -> None:
    for key, kind, headers, _ in LISTS if bench.first else LISTS[:1]:
        root = f"{kind}-of-{bench.sizes.listed}"
        bench.index.get(f"/{root}/", {})
        own = median(timed(bench.index.get, f"/{root}/", {})[0] for _ in range(3))
        for program in programs:
            folder = bench.new_folder()
            settings = {"PROXPI_CACHE_DIR": str(folder / "kept")}
            with bench.started(program, None, settings, folder, root) as server:
                page(server, SMALL_PAGE, JSON)
                server.forget_peak()
                before = server.peak()
                with probing(server, SMALL_PAGE) as probe:
                    cold, reply = timed(server.get, "/index/", headers, PATIENCE)
                    warm = median(timed(page, server, "/index/", headers)[0] for _ in "123")
                mark = b"</a>" if kind == "html" else b'"name"'
                complete(server, reply, mark, bench.sizes.listed)
                bench.note(f"{key}_cold", server, cold)
                bench.note(f"{key}_factor", server, cold / own)
                bench.note(f"{key}_warm", server, warm)
                bench.note(f"{key}_wait", server, probe.worst)
                bench.note(f"{key}_growth", server, bench.growth(server, before))


SCENARIOS = [
    Scenario(
        "list",
        _measures,
        [
            Target("list_cold", False, 2),
            Target("list_warm", False, 3, NGINX),
            Target("list_wait", False, 50),
            Target("list_growth", False, 60),
        ],
        _run,
    )
]
