"""Measures proxpi beside the original program of the same name and nginx, in one run.

Every scenario runs on 127.0.0.1 only, before the same local index, near or behind a slow link. The
programs take turns, each round in another order; each is started anew for each scenario, with its
default settings (where nobody is to be sent upstream, with those that stream), and writes what it
writes by default: proxpi its access log, the original, by its container's command, none. nginx is a
cache of answers with an access log.
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
import hits
import installs
import lists
import misses
import nginx
import plot
import starts
import streams
from bench import QUICK, Bench, Scenario, Sizes
from environments import Unusable, end_gently
from load import CONNECTIONS, Load, load_generator
from local import distant, upstream
from programs import Program, here, on_uvloop, original
from values import NGINX, ORIGINAL, OURS, Measure, Values, Verdict, judged, restructured, text

SCENARIOS: list[Scenario] = [
    scenario
    for family in (hits, lists, streams, misses, starts, installs)
    for scenario in family.SCENARIOS
]
_TOP = Path(__file__).parent.parent
DOCUMENT = _TOP / "docs/performance.rst"
PLOT = _TOP / "docs/performance.svg"
#: What stands around the figures in the document.
BEGIN, END = ".. The figures: benchmarks/run --docs writes them.\n", ".. End of the figures.\n"
#: What a program, or a client of it, may come to.
_FAILURES = (Unusable, OSError, http.client.HTTPException, subprocess.SubprocessError)
_READ = (
    "Medians; a ratio is that of the rounds, each by itself, with the lowest and the highest in "
    "brackets:\nwhere that range spans 1 there is no difference to speak of. The figures say "
    "nothing beside those of another run."
)


@attrs.frozen
class Result:
    """All that came of a run.

    :ivar about: what was compared, on what, and how
    :ivar failures: what could not be measured, and why
    """

    about: dict[str, object]
    values: Values
    measures: Sequence[Measure]
    verdicts: Sequence[Verdict]
    failures: Sequence[str] = ()

    def document(self) -> str:
        """Write it as JSON."""
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
    """Run all rounds; a scenario that fails in one of them costs no other.

    :param folder: for temporary files
    :raises Unusable: if something that it takes is missing
    """
    load = Load(sizes.seconds, load_generator(), folder)
    programs = _programs(with_uvloop)
    began, about = time.monotonic(), _circumstances(programs)
    failures: list[str] = []
    with upstream() as index, distant(index) as far:
        bench = Bench(sizes, load, index, far, folder)
        for number in range(sizes.repeat):
            bench.values.round = number
            turn = number % len(programs)
            for scenario in scenarios:
                after = f"after {time.monotonic() - began:.0f} s"
                told = f"round {number + 1} of {sizes.repeat}: {scenario.name}, {after}"
                print(told, file=sys.stderr)
                chosen = scenario.chosen(programs[turn:] + programs[:turn], bench.first)
                try:
                    with tempfile.TemporaryDirectory(dir=folder) as own:
                        scenario.run(attrs.evolve(bench, folder=Path(own)), chosen)
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
    programs = [here(), original()]
    if with_uvloop:
        programs.insert(1, on_uvloop())
    if (cache := nginx.nginx()) is not None:
        programs.append(cache)
    else:
        print("nginx is not installed, and left out (apt-get install nginx-light)")
    return programs


def _circumstances(programs: Sequence[Program]) -> dict[str, object]:
    """Say what is compared, and on what."""
    by_name = {program.name: program for program in programs}
    ours, theirs, cache = by_name[OURS], by_name[ORIGINAL], by_name.get(NGINX)
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "proxpi": ours.version("proxpi"),
        "twisted": ours.version("twisted"),
        "original": theirs.version("proxpi"),
        "gunicorn": theirs.version("gunicorn"),
        "nginx": nginx.version(cache) if cache else None,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def figures(result: Result) -> str:
    """Write the part of the document that has the figures."""
    facts = ", ".join(f"{name} {value}" for name, value in result.about.items())
    parts = [
        f"Measured with: {facts}.",
        ".. image:: performance.svg\n   :alt: Times better than the original, by scenario",
        "The targets, and what was measured of each (a ratio, unless the target is a figure):",
        restructured(judged(result.verdicts)),
        "All that was measured. " + _READ.replace("\n", " "),
        restructured(result.values.rows(result.measures)),
    ]
    return "\n\n".join(parts) + "\n"


def replaced(document: str, inner: str) -> str:
    """Put the figures into the document, instead of those in it.

    :raises Unusable: if it has no place for them
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise Unusable(f"{DOCUMENT} has no place for figures: {BEGIN.strip()!r}, {END.strip()!r}")
    return f"{before}{begin}\n{inner}\n{end}{after}"


def _written(result: Result, options: argparse.Namespace) -> None:
    """Write what was asked for."""
    drawn = plot.rows(result.values, result.measures)
    if options.json:
        options.json.write_text(result.document())
    for path in filter(None, [options.svg, PLOT if options.docs else None]):
        if drawn:
            path.write_text(plot.svg(drawn))
    if options.docs:
        DOCUMENT.write_text(replaced(DOCUMENT.read_text(), figures(result)))


def parser() -> argparse.ArgumentParser:
    """Give the options."""
    usual = Sizes()
    found = argparse.ArgumentParser(
        prog="benchmarks/run", description=(__doc__ or "").partition("\n")[0]
    )
    found.add_argument(
        "--seconds", type=int, help=f"of each measurement under load ({usual.seconds})"
    )
    found.add_argument("--repeat", type=int, help=f"rounds ({usual.repeat})")
    found.add_argument("--quick", action="store_true", help="small numbers, once: does it work?")
    names = [scenario.name for scenario in SCENARIOS]
    found.add_argument(
        "--only", action="append", choices=names, help="one scenario; may be given several times"
    )
    found.add_argument("--uvloop", action="store_true", help="measure proxpi on uvloop as well")
    found.add_argument("--json", type=Path, metavar="FILE", help="write all values there")
    found.add_argument("--svg", type=Path, metavar="FILE", help="draw the plot there")
    found.add_argument(
        "--docs", action="store_true", help=f"renew figures and plot of {DOCUMENT.name}"
    )
    return found


def main() -> None:
    """Read the options, measure, and print the tables."""
    options = parser().parse_args()
    end_gently()
    sizes = QUICK if options.quick else Sizes()
    for name in ("seconds", "repeat"):
        if (value := getattr(options, name)) is not None:
            if value < 1:
                parser().error(f"--{name} takes a whole number from 1 on")
            sizes = attrs.evolve(sizes, **{name: value})
    if options.docs and options.only:
        parser().error("--docs takes all scenarios")
    chosen = [row for row in SCENARIOS if not options.only or row.name in options.only]
    try:
        with tempfile.TemporaryDirectory(prefix="proxpi-benchmarks-") as folder:
            result = measure(sizes, chosen, Path(folder), options.uvloop)
            # Before the folder is removed, which may take long.
            print(", ".join(f"{name} {value}" for name, value in result.about.items()))
            print(f"\n{text(result.values.rows(result.measures))}\n\n{_READ}")
            print(f"\n{text(judged(result.verdicts))}", flush=True)
            _written(result, options)
        if result.failures:
            raise Unusable("not all could be measured:\n" + "\n".join(result.failures))
    except Unusable as error:
        sys.exit(f"benchmarks/run: {error}")
