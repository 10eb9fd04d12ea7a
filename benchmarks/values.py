"""Values by measure, program and round; their ratios, the targets, and the tables of both.

Pure: nothing here measures, reads or writes anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import median

import attrs

#: What the programs are called, in the order of the tables.
OURS, UVLOOP, ORIGINAL, NGINX = "proxpi", "uvloop", "original", "nginx"
PROGRAMS = [OURS, UVLOOP, ORIGINAL, NGINX]
#: What stands in a table where there is nothing to say.
NOTHING = "–"


@attrs.frozen
class Measure:
    """A row of the table.

    :ivar key: what it is called in the JSON file
    :ivar label: what it is called in the table, with its unit
    :ivar more_is_better: or less; None where a program is not better for either
    """

    key: str
    label: str
    more_is_better: bool | None = False

    @property
    def better(self) -> str:
        """Say what is better in a word, if anything is."""
        return NOTHING if self.more_is_better is None else "more" if self.more_is_better else "less"


@attrs.frozen
class Target:
    """What a value is to be, at least or at most.

    :ivar key: of the measure
    :ivar bound: the value, or the factor if it stands beside another program
    :ivar beside: the program whose value is multiplied by the bound; empty for none
    :ivar name: the program that is judged
    """

    key: str
    at_least: bool
    bound: float
    beside: str = ""
    name: str = OURS

    def text(self) -> str:
        """Say it in short, as ``≥ 35 × original``."""
        sign = "≥" if self.at_least else "≤"
        if not self.beside:
            return f"{sign} {self.bound:g}"
        return (
            f"{sign} {self.beside}" if self.bound == 1 else f"{sign} {self.bound:g} × {self.beside}"
        )


@attrs.frozen
class Spread:
    """The values, or the ratios, of all rounds.

    :ivar middle: their median
    """

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, found: Sequence[float]) -> Spread | None:
        """Take what there is; None for nothing."""
        return cls(min(found), median(found), max(found)) if found else None

    def __str__(self) -> str:
        low, middle, high = map(short, (self.low, self.middle, self.high))
        return middle if low == high else f"{middle} ({low} to {high})"


@attrs.frozen
class Verdict:
    """A target beside what was measured.

    :ivar label: of the measure
    :ivar found: the value, or the ratio, that the bound is for; None if nothing was measured
    """

    target: Target
    label: str
    found: Spread | None

    @property
    def holds(self) -> bool | None:
        """Whether the median reaches the bound; None if nothing was measured."""
        if self.found is None:
            return None
        found, bound = self.found.middle, self.target.bound
        return found >= bound if self.target.at_least else found <= bound

    def word(self) -> str:
        """Say whether it holds, and whether it does in each round."""
        if self.found is None:
            return "not measured"
        ends = (self.found.low, self.found.high)
        each = [attrs.evolve(self, found=Spread(end, end, end)).holds for end in ends]
        return ("holds" if self.holds else "misses") + ("" if len(set(each)) == 1 else ", barely")


@attrs.define
class Values:
    """What has been measured: by measure and program, a value a round.

    :ivar round: the number of the round that is under way, from 0
    """

    round: int = 0
    found: dict[str, dict[str, dict[int, float]]] = attrs.field(
        factory=lambda: defaultdict(lambda: defaultdict(dict))
    )

    def note(self, key: str, name: str, value: float) -> None:
        """Keep the value of a program in this round."""
        self.found[key][name][self.round] = value

    def spread(self, key: str, name: str) -> Spread | None:
        """Give the values of a program."""
        return Spread.of(list(self._of(key, name).values()))

    def ratio(self, key: str, name: str, beside: str) -> Spread | None:
        """Give a program's values over another's, round by round.

        What was measured in some rounds only counts in all others with its median.
        """
        ours, theirs = self._of(key, name), self._of(key, beside)
        if not theirs:
            return None
        usual = median(theirs.values())
        pairs = ((value, theirs.get(number, usual)) for number, value in ours.items())
        return Spread.of([value / other for value, other in pairs if other])

    def names(self) -> list[str]:
        """Give the programs that something was measured of, in the order of the tables."""
        seen = {name for by_name in self.found.values() for name in by_name}
        return [name for name in PROGRAMS if name in seen]

    def verdicts(self, measures: Sequence[Measure], targets: Sequence[Target]) -> list[Verdict]:
        """Judge all targets whose measure is one of these."""
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
        """Give for each measure all values by round, their medians, and our ratios."""
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
                    if name != OURS and (ratio := self.ratio(measure.key, OURS, name))
                },
            }
            for measure, (_, label) in zip(measures, _labels(measures), strict=True)
            if (by_name := self.found.get(measure.key))
        ]

    def rows(self, measures: Sequence[Measure]) -> list[list[str]]:
        """Give the table of all values: its head, then a row for each measure."""
        names = self.names()
        others = [name for name in (ORIGINAL, NGINX) if name in names and OURS in names]
        head = ["", *names, *(f"{OURS} : {name}" for name in others), "better"]
        table = [head]
        for measure in measures:
            if not (found := self.found.get(measure.key)):
                continue
            cells = [
                short(median(found[name].values())) if name in found else NOTHING for name in names
            ]
            ratios = [self.ratio(measure.key, OURS, name) for name in others]
            told = [
                str(ratio) if ratio and measure.better != NOTHING else NOTHING for ratio in ratios
            ]
            table.append([measure.label, *cells, *told, measure.better])
        return table

    def _of(self, key: str, name: str) -> dict[int, float]:
        return self.found.get(key, {}).get(name, {})


def _labels(measures: Sequence[Measure]) -> Iterator[tuple[str, str]]:
    """Give keys with labels; one that begins with dots follows what its group has in common."""
    group = ""
    for measure in measures:
        if measure.label.startswith("… "):
            yield measure.key, f"{group}: {measure.label[2:]}"
        else:
            group = measure.label.rpartition(": ")[0] or measure.label
            yield measure.key, measure.label


def judged(verdicts: Sequence[Verdict]) -> list[list[str]]:
    """Give the table of targets: its head, then a row for each."""
    return [
        ["", "of", "target", "measured", ""],
        *(
            [
                verdict.label,
                verdict.target.name,
                verdict.target.text(),
                str(verdict.found or NOTHING),
                verdict.word(),
            ]
            for verdict in verdicts
        ),
    ]


def text(table: Sequence[Sequence[str]]) -> str:
    """Write a table in columns for a terminal."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rows = (zip(line, widths, strict=True) for line in table)
    return "\n".join("  ".join(cell.ljust(width) for cell, width in row).rstrip() for row in rows)


def restructured(table: Sequence[Sequence[str]]) -> str:
    """Write a table in reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in table:
        marks = ["   * -", *["     -"] * (len(row) - 1)]
        lines += [f"{mark} {cell}".rstrip() for mark, cell in zip(marks, row, strict=True)]
    return "\n".join(lines)


def short(value: float) -> str:
    """Three digits that count, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
