"""Measured values by measure, program and round; ratios, targets and tables. Pure, without I/O."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Literal

import attrs

#: The names of the programs, in the order of the tables.
PROXPI, UVLOOP, ORIGINAL, NGINX = "proxpi", "uvloop", "original", "nginx"
#: proxpi without prefetch, and no program: the client uses the index itself.
OFF, DIRECT = "prefetch off", "direct"
#: The states of a job in CI, besides the last one (``savings.py``).
CLIENT_CACHE, EMPTY_SIDECAR = "client cache", "empty sidecar"
WARM_SIDECAR, RESTORED_FOLDER = "warm sidecar", "restored folder"
PROGRAMS = [PROXPI, UVLOOP, OFF, ORIGINAL, NGINX, DIRECT]
#: An empty cell of a table.
DASH = "–"


@attrs.frozen
class Measure:
    """A row of the table.

    :ivar key: name in the JSON file
    :ivar label: name in the table, with the unit
    :ivar more_is_better: None if neither more nor less is better
    """

    key: str
    label: str
    more_is_better: bool | None = False

    @property
    def better(self) -> str:
        return DASH if self.more_is_better is None else "more" if self.more_is_better else "less"


@attrs.frozen
class Target:
    """A lower or upper bound for a value.

    :ivar key: key of the measure
    :ivar bound: a value, or a factor of another program's value
    :ivar beside: the other program; empty for none
    :ivar name: the program to which the target applies
    """

    key: str
    relation: Literal["≥", "≤"]
    bound: float
    beside: str = ""
    name: str = PROXPI

    def text(self) -> str:
        """Format it as in ``≥ 35 × original``."""
        factors = [f"{self.bound:g}"] if self.bound != 1 or not self.beside else []
        factors += [self.beside] if self.beside else []
        return f"{self.relation} {' × '.join(factors)}"


@attrs.frozen
class Spread:
    """Range and median of the values, or the ratios, of all rounds."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, found: Sequence[float]) -> Spread | None:
        """Summarise values; None if there are none."""
        return cls(min(found), median(found), max(found)) if found else None

    def __str__(self) -> str:
        low, median, high = map(format_number, (self.low, self.median, self.high))
        return median if low == high else f"{median} ({low} to {high})"


@attrs.frozen
class Verdict:
    """A target and the measured value.

    :ivar label: label of the measure
    :ivar found: the value or ratio to which the bound applies; None if it was not measured
    """

    target: Target
    label: str
    found: Spread | None

    @property
    def holds(self) -> bool | None:
        """Whether the median is within the bound; None if it was not measured."""
        if self.found is None:
            return None
        found, bound = self.found.median, self.target.bound
        return found >= bound if self.target.relation == "≥" else found <= bound

    def word(self) -> str:
        """Return whether it holds; "barely" if the rounds disagree."""
        if self.found is None:
            return "not measured"
        ends = (self.found.low, self.found.high)
        each = [attrs.evolve(self, found=Spread(end, end, end)).holds for end in ends]
        return ("holds" if self.holds else "misses") + ("" if len(set(each)) == 1 else ", barely")


@attrs.define
class Values:
    """Measured values by measure, program and round.

    :ivar round: number of the current round, from 0
    """

    round: int = 0
    found: dict[str, dict[str, dict[int, float]]] = attrs.field(
        factory=lambda: defaultdict(lambda: defaultdict(dict))
    )

    def note(self, key: str, name: str, value: float) -> None:
        """Record the value of a program in the current round."""
        self.found[key][name][self.round] = value

    def note_ratio(self, key: str, dividend: str, divisor: str) -> None:
        """Record the ratio of two measures of each program in the current round."""
        for name, values in self.found[dividend].items():
            if self.round in values and (base := self._of(divisor, name).get(self.round)):
                self.note(key, name, values[self.round] / base)

    def spread(self, key: str, name: str) -> Spread | None:
        return Spread.of(list(self._of(key, name).values()))

    def ratio(self, key: str, name: str, beside: str) -> Spread | None:
        """Return the ratios of a program's values to another's, round by round.

        In a round without a value of the other program, its median counts.
        """
        ours, theirs = self._of(key, name), self._of(key, beside)
        if not theirs:
            return None
        fallback = median(theirs.values())
        pairs = ((value, theirs.get(number, fallback)) for number, value in ours.items())
        return Spread.of([value / other for value, other in pairs if other])

    def names(self) -> list[str]:
        """Return the measured programs in the order of the tables."""
        seen = {name for by_name in self.found.values() for name in by_name}
        return [name for name in PROGRAMS if name in seen]

    def verdicts(self, measures: Sequence[Measure], targets: Sequence[Target]) -> list[Verdict]:
        """Compare the targets of these measures with their values."""
        labels = dict(_labels(measures))
        return [
            Verdict(
                target,
                labels[target.key],
                self.ratio(target.key, target.name, target.beside)
                if target.beside
                else self.spread(target.key, target.name),
            )
            for target in targets
            if target.key in labels
        ]

    def summary(self, measures: Sequence[Measure]) -> list[dict[str, object]]:
        """Return for each measure the values by round, their medians, and proxpi's ratios."""
        return [
            {
                "measure": measure.key,
                "label": label,
                "better": measure.better,
                "values": {name: dict(values) for name, values in by_name.items()},
                "median": {name: median(values.values()) for name, values in by_name.items()},
                "ratio": {
                    name: attrs.asdict(ratio)
                    for name in by_name
                    if name != PROXPI and (ratio := self.ratio(measure.key, PROXPI, name))
                },
            }
            for measure, (_, label) in zip(measures, _labels(measures), strict=True)
            if (by_name := self.found.get(measure.key))
        ]

    def rows(self, measures: Sequence[Measure]) -> list[list[str]]:
        """Return the table of all values: its header, then a row for each measure."""
        names = self.names()
        beside = (OFF, ORIGINAL, NGINX, DIRECT)
        others = [name for name in beside if name in names and PROXPI in names]
        head = ["", *names, *(f"{PROXPI} : {name}" for name in others), "better"]
        table = [head]
        for measure in measures:
            if not (found := self.found.get(measure.key)):
                continue
            cells = [
                format_number(median(found[name].values())) if name in found else DASH
                for name in names
            ]
            ratios = [self.ratio(measure.key, PROXPI, name) for name in others]
            cells += [str(ratio) if ratio and measure.better != DASH else DASH for ratio in ratios]
            table.append([measure.label, *cells, measure.better])
        return table

    def _of(self, key: str, name: str) -> dict[int, float]:
        return self.found.get(key, {}).get(name, {})


def _labels(measures: Sequence[Measure]) -> Iterator[tuple[str, str]]:
    """Return keys with full labels: "…" stands for the common part of the group's first label."""
    group = ""
    for measure in measures:
        if measure.label.startswith("… "):
            yield measure.key, f"{group}: {measure.label[2:]}"
        else:
            group = measure.label.rpartition(": ")[0] or measure.label
            yield measure.key, measure.label


def target_table(verdicts: Sequence[Verdict]) -> list[list[str]]:
    """Return the table of targets: its header, then a row for each."""
    return [
        ["", "program", "target", "measured", "verdict"],
        *(
            [
                verdict.label,
                verdict.target.name,
                verdict.target.text(),
                str(verdict.found or DASH),
                verdict.word(),
            ]
            for verdict in verdicts
        ),
    ]


def text(table: Sequence[Sequence[str]]) -> str:
    """Format a table for a terminal."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rows = (zip(line, widths, strict=True) for line in table)
    return "\n".join("  ".join(cell.ljust(width) for cell, width in row).rstrip() for row in rows)


def to_rst(table: Sequence[Sequence[str]]) -> str:
    """Format a table in reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in table:
        marks = ["   * -", *["     -"] * (len(row) - 1)]
        lines += [f"{mark} {cell}".rstrip() for mark, cell in zip(marks, row, strict=True)]
    return "\n".join(lines)


def format_number(value: float) -> str:
    """Format a number with three significant digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
