"""What the comparisons have in common: load, a probe, values by round, and the table of them."""

from __future__ import annotations

import gzip
import json
import os
import platform
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import attrs
from programs import GUARD, Program, Reply, Running, Unusable

CONNECTIONS = 16
PAGE_HEADERS = {"Accept": "application/vnd.pypi.simple.v1+json", "Accept-Encoding": "gzip"}
#: What stands in the table where there is nothing to say.
NOTHING = "-"

# Only runs once it is over, so it does not slow wrk down.
_REPORT = """
done = function(summary, latency, requests)
  local errors = summary.errors
  local lost = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("\\nreport: %d %d %d %d %d\\n",
    summary.requests, summary.bytes, summary.duration, errors.status, lost))
end
"""


@attrs.frozen
class Measure:
    """A row of the table.

    :ivar key: what it is called in the JSON file
    :ivar label: what it is called in the table, with its unit
    :ivar more_is_better: or less
    """

    key: str
    label: str
    more_is_better: bool = False


@attrs.frozen
class Values:
    """What has been measured: by measure and program, one value a round."""

    found: dict[str, dict[str, list[float]]] = attrs.field(
        factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def note(self, key: str, name: str, value: float) -> None:
        """Add a value of a program of this name."""
        self.found[key][name].append(value)

    def summary(self, measures: Sequence[Measure]) -> list[dict[str, object]]:
        """Give for each measure the medians, all values in order of rounds, and the ratios."""
        return [
            {
                "measure": measure.key,
                "label": measure.label,
                "better": "more" if measure.more_is_better else "less",
                "median": {
                    name: median(values) for name, values in self.found[measure.key].items()
                },
                "values": {name: list(values) for name, values in self.found[measure.key].items()},
                "ratio": self._ratios(measure),
            }
            for measure in measures
            if self.found.get(measure.key)
        ]

    def table(self, measures: Sequence[Measure], others: Sequence[str]) -> str:
        """Write medians, lowest and highest, and ratios as text.

        :param others: the programs beside proxpi, by name
        """
        heads = [cell for name in others for cell in (name, "ratio")]
        lines = [("", "proxpi", *heads, "better")]
        for measure in measures:
            found = self.found.get(measure.key)
            if not found:
                continue
            ratios = self._ratios(measure)
            cells = [_spread(found.get("proxpi"))]
            for name in others:
                cells.append(_spread(found.get(name)))
                cells.append(f"{ratios[name]:.2f}" if name in ratios else NOTHING)
            lines.append((measure.label, *cells, "more" if measure.more_is_better else "less"))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rows = (zip(line, widths, strict=True) for line in lines)
        texts = ("  ".join(cell.ljust(width) for cell, width in row).rstrip() for row in rows)
        return "\n".join(texts)

    def _ratios(self, measure: Measure) -> dict[str, float]:
        """Give the ratio of proxpi to each of the others, as far as there is one."""
        medians = {name: median(values) for name, values in self.found[measure.key].items()}
        ours = medians.pop("proxpi", None)
        return {
            name: ours / theirs for name, theirs in medians.items() if ours is not None and theirs
        }


def _spread(found: Sequence[float] | None) -> str:
    if not found:
        return NOTHING
    if len(found) == 1:
        return _short(found[0])
    return f"{_short(median(found))} ({_short(min(found))} to {_short(max(found))})"


def _short(value: float) -> str:
    """Three digits that count, or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


@attrs.frozen
class Load:
    """The load generator.

    :ivar seconds: of one measurement
    :ivar wrk: where the program is
    :ivar folder: for its script
    """

    seconds: int
    wrk: str
    folder: Path

    def run(
        self, server: Running, path: str, headers: Mapping[str, str], size: int
    ) -> tuple[float, float]:
        """Ask for the same over and over.

        :param size: of the body of one answer
        :return: requests per second, and microseconds of the server's processor time for each
        """
        script = self.folder / "report.lua"
        script.write_text(_REPORT)
        command = [self.wrk, "--threads=1", f"--connections={CONNECTIONS}", "--timeout=10s"]
        command += [f"--duration={self.seconds}s", f"--script={script}"]
        command += [f"--header={name}: {value}" for name, value in headers.items()]
        before = server.cpu_seconds()
        done = subprocess.run(
            [*command, server.url(path)],
            capture_output=True,
            text=True,
            timeout=self.seconds + GUARD,
            check=True,
        )
        spent = server.cpu_seconds() - before
        report = done.stdout.rpartition("report: ")[2].split()
        requests, received, microseconds, refused, lost = map(int, report)
        if refused or not requests or received < requests * size:
            raise Unusable(f"{server.program.name} did not answer {path} as it should under load")
        if lost:
            print(f"{server.program.name}: {lost} connections lost on {path}", file=sys.stderr)
        return requests / microseconds * 1e6, spent / requests * 1e6


@attrs.define
class Probe:
    """Asks a server for ``/health`` every 10 ms; see ``probe.py``.

    :ivar worst: the longest that it waited for an answer, in milliseconds, once it has ended
    """

    worst: float = 0.0


@contextmanager
def probing(server: Running) -> Iterator[Probe]:
    """Probe a server meanwhile, from a process of its own, so that nothing here delays it."""
    command = [sys.executable, str(Path(__file__).with_name("probe.py")), str(server.port)]
    probe = Probe()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            if process.stdout.readline() != "ready\n":
                raise Unusable(f"{server.program.name} cannot be probed")
            yield probe
            process.stdin.close()
            answer = process.stdout.readline()
            if not answer:
                raise Unusable(f"{server.program.name} left the probe without an answer")
            probe.worst = float(answer)
        finally:
            process.kill()


def whole(server: Running, path: str, reply: Reply) -> Reply:
    """Give an answer back that is as it should be."""
    if reply.status != 200 or not reply.body:
        raise Unusable(f"{server.program.name} answers {path} with status {reply.status}")
    return reply


def gunzipped(reply: Reply) -> bytes:
    """Give what is in a body that is to be compressed."""
    if reply.coding != "gzip":
        raise Unusable("a page was not compressed, although gzip was asked for")
    return gzip.decompress(reply.body)


def load_generator() -> str:
    """Say where wrk is.

    :raises Unusable: if it or what else it takes is missing
    """
    if not Path("/proc/self/smaps_rollup").exists():
        raise Unusable("it reads /proc, as Linux has it")
    wrk = shutil.which("wrk")
    if wrk is None:
        raise Unusable("it takes wrk: install the package of that name (apt-get install wrk)")
    return wrk


def circumstances(ours: Program, theirs: Program) -> dict[str, object]:
    """Say what is compared, and on what."""
    return {
        "proxpi": ours.version("proxpi"),
        "twisted": ours.version("twisted"),
        "original": theirs.version("proxpi"),
        "gunicorn": theirs.version("gunicorn"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
    }


def write_json(
    output: Path,
    about: Mapping[str, object],
    settings: Mapping[str, object],
    measures: Sequence[Mapping[str, object]],
) -> None:
    """Write every value of every round to a file, with what was compared and how."""
    document = {"about": about, "settings": settings, "measures": measures}
    output.write_text(json.dumps(document, indent=2) + "\n")
