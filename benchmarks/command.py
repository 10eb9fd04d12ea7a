"""Compares proxpi with the original and nginx in one run.

Every scenario runs on 127.0.0.1 with the same local index as upstream, with or without a slow link.
The order of the programs changes with each round. Each scenario starts each program anew with its
default settings; where a redirect upstream would hide the download, with streaming. proxpi and
nginx write an access log; the original, as its container starts it, writes none.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs
import first_install
import hits
import installs
import large_files
import misses
import nginx
import plot
import project_list
import starts
from clients import CONNECTIONS, LoadGenerator, find_wrk
from environments import BenchmarkError, exit_on_sigterm
from local_index import behind_slow_link, local_index
from programs import Program, original, proxpi, proxpi_on_uvloop
from results import NGINX, ORIGINAL, PROXPI, Measure, Values, Verdict, target_table, text, to_rst
from scenario import QUICK, Benchmark, Scenario, Sizes

SCENARIOS: list[Scenario] = [
    scenario
    for family in (hits, project_list, large_files, misses, starts, installs, first_install)
    for scenario in family.SCENARIOS
]
_TOP = Path(__file__).parent.parent
DOCUMENT = _TOP / "docs/performance.rst"
PLOT = _TOP / "docs/performance.svg"
FIRST_INSTALLS = _TOP / "docs/first-install.svg"
#: The marks around the figures in a document.
BEGIN, END = ".. The figures: the option --docs writes them.\n", ".. End of the figures.\n"
#: Errors of a program or its client that end one scenario, not the run.
_FAILURES = (BenchmarkError, OSError, http.client.HTTPException, subprocess.SubprocessError)
_HINT = (
    "Medians of the rounds. A ratio is taken round by round; its range stands in brackets: a\n"
    "range that spans 1 is no difference. Figures of different runs are not comparable."
)


@attrs.frozen
class Result:
    """The result of a run.

    :ivar about: versions, machine and sizes
    :ivar failures: scenarios that failed, with their errors
    """

    about: dict[str, object]
    values: Values
    measures: Sequence[Measure]
    verdicts: Sequence[Verdict]
    failures: Sequence[str] = ()

    def to_json(self) -> str:
        parts = {
            "about": self.about,
            "measures": self.values.summary(self.measures),
            "targets": [
                {**attrs.asdict(verdict), "holds": verdict.holds} for verdict in self.verdicts
            ],
            "failures": self.failures,
        }
        return json.dumps(parts, indent=1, ensure_ascii=False) + "\n"


def measure(sizes: Sizes, scenarios: Sequence[Scenario], folder: Path, with_uvloop: bool) -> Result:
    """Run all rounds; a scenario that fails in one round does not affect the others.

    :param folder: the folder of temporary files
    :raises BenchmarkError: if a program or a tool is missing
    """
    load = LoadGenerator(sizes.seconds, find_wrk(), folder)
    programs = _programs(with_uvloop)
    began, about = time.monotonic(), _describe(programs)
    failures: list[str] = []
    with local_index() as index, behind_slow_link(index) as far:
        bench = Benchmark(sizes, load, index, far, folder)
        for number in range(sizes.repeat):
            bench.values.round = number
            turn = number % len(programs)
            for scenario in scenarios:
                title = f"round {number + 1} of {sizes.repeat}: {scenario.name}"
                print(f"{title}, after {time.monotonic() - began:.0f} s", file=sys.stderr)
                selected = scenario.select(programs[turn:] + programs[:turn], bench.first)
                try:
                    with tempfile.TemporaryDirectory(dir=folder) as own:
                        scenario.run(attrs.evolve(bench, folder=Path(own)), selected)
                except _FAILURES as error:
                    failures.append(f"{scenario.name}, round {number + 1}: {error!r}")
                    print(failures[-1], file=sys.stderr)
    about |= {**attrs.asdict(sizes), "connections": CONNECTIONS}
    about["minutes"] = round((time.monotonic() - began) / 60, 1)
    measures = [row for scenario in scenarios for row in scenario.measures(sizes)]
    targets = [target for scenario in scenarios for target in scenario.targets]
    verdicts = bench.values.verdicts(measures, targets)
    return Result(about, bench.values, measures, verdicts, failures)


def _programs(with_uvloop: bool) -> list[Program]:
    programs = [proxpi(), original()]
    if with_uvloop:
        programs.insert(1, proxpi_on_uvloop())
    if (cache := nginx.nginx()) is not None:
        programs.append(cache)
    else:
        print("nginx is not installed: the run goes on without it (apt-get install nginx-light)")
    return programs


def _describe(programs: Sequence[Program]) -> dict[str, object]:
    """Describe the programs and the machine."""
    by_name = {program.name: program for program in programs}
    ours, theirs, cache = by_name[PROXPI], by_name[ORIGINAL], by_name.get(NGINX)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "proxpi": ours.version("proxpi"),
        "twisted": ours.version("twisted"),
        "original": theirs.version("proxpi"),
        "gunicorn": theirs.version("gunicorn"),
        "nginx": nginx.version(cache) if cache else None,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def processor() -> str:
    """Return the model of the processor."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return models[0] if models else platform.machine()


def figures(result: Result) -> str:
    """Render the figures of the document."""
    facts = ", ".join(f"{name} {value}" for name, value in result.about.items())
    parts = [
        f"Measured with: {facts}.",
        ".. image:: performance.svg\n   :alt: Times better than the original, by scenario",
        "Targets (measured: a ratio, unless the target is a figure):",
        to_rst(target_table(result.verdicts)),
        "All values. " + _HINT.replace("\n", " "),
        to_rst(result.values.rows(result.measures)),
    ]
    return "\n\n".join(parts) + "\n"


def replace_figures(document: str, inner: str) -> str:
    """Replace the figures of a document.

    :raises BenchmarkError: if the document lacks the marks around them
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise BenchmarkError(f"the document lacks the marks {BEGIN.strip()!r}, {END.strip()!r}")
    return f"{before}{begin}\n{inner}\n{end}{after}"


def _write_files(result: Result, options: argparse.Namespace) -> None:
    if options.json:
        options.json.write_text(result.to_json())
    plots = [(options.svg, plot.COMPARISON), (options.first_svg, plot.FIRST_INSTALLS)]
    if options.docs:
        plots += [(PLOT, plot.COMPARISON), (FIRST_INSTALLS, plot.FIRST_INSTALLS)]
    for path, kind in plots:
        if path and (drawn := plot.rows(result.values, result.measures, kind)):
            path.write_text(plot.svg(drawn, kind))
    if options.docs:
        DOCUMENT.write_text(replace_figures(DOCUMENT.read_text(), figures(result)))


def parser() -> argparse.ArgumentParser:
    defaults = Sizes()
    found = argparse.ArgumentParser(
        prog="benchmarks/run", description=(__doc__ or "").partition("\n")[0]
    )
    found.add_argument(
        "--seconds", type=int, help=f"duration of each load measurement ({defaults.seconds})"
    )
    found.add_argument("--repeat", type=int, help=f"rounds ({defaults.repeat})")
    found.add_argument(
        "--quick", action="store_true", help="one short round: does every scenario work?"
    )
    names = [scenario.name for scenario in SCENARIOS]
    found.add_argument(
        "--only", action="append", choices=names, help="one scenario; may be given several times"
    )
    found.add_argument("--uvloop", action="store_true", help="add proxpi on uvloop")
    found.add_argument("--json", type=Path, metavar="FILE", help="write all values as JSON")
    found.add_argument("--svg", type=Path, metavar="FILE", help="write the plot")
    found.add_argument(
        "--first-svg", type=Path, metavar="FILE", help="write the plot of first installations"
    )
    found.add_argument(
        "--docs", action="store_true", help=f"renew the figures and plots of {DOCUMENT.name}"
    )
    return found


def main() -> None:
    options = parser().parse_args()
    exit_on_sigterm()
    sizes = QUICK if options.quick else Sizes()
    for name in ("seconds", "repeat"):
        if (value := getattr(options, name)) is not None:
            if value < 1:
                parser().error(f"--{name} is a whole number from 1 on")
            sizes = attrs.evolve(sizes, **{name: value})
    if options.docs and options.only:
        parser().error("--docs needs all scenarios")
    only = options.only or [row.name for row in SCENARIOS if not row.on_request]
    chosen = [row for row in SCENARIOS if row.name in only]
    try:
        with tempfile.TemporaryDirectory(prefix="proxpi-benchmarks-") as folder:
            result = measure(sizes, chosen, Path(folder), options.uvloop)
            # Printed before the removal of the folder, which may take long.
            print(", ".join(f"{name} {value}" for name, value in result.about.items()))
            print(f"\n{text(result.values.rows(result.measures))}\n\n{_HINT}")
            print(f"\n{text(target_table(result.verdicts))}", flush=True)
            _write_files(result, options)
        if result.failures:
            raise BenchmarkError("scenarios failed:\n" + "\n".join(result.failures))
    except BenchmarkError as error:
        sys.exit(f"benchmarks/run: {error}")
