"""The plots of the documentation: factors relative to one program, as SVG. Pure, without I/O.

It needs no plotting library: bars are rectangles, and the maintained libraries take 100 MB and
cannot follow the reader's light or dark colour scheme.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from statistics import median

import attrs
from results import (
    CLIENT_CACHE,
    DIRECT,
    EMPTY_SIDECAR,
    NGINX,
    OFF,
    ORIGINAL,
    PROGRAMS,
    PROXPI,
    RESTORED_FOLDER,
    UVLOOP,
    WARM_SIDECAR,
    Measure,
    Values,
)


@attrs.frozen
class Plot:
    """A plot.

    :ivar labels: keys of its measures, with their labels
    :ivar base: the program that the factors are relative to
    :ivar base_keys: keys of the measures of that program, where they differ
    """

    title: str
    unit: str
    labels: Mapping[str, str]
    base: str
    base_keys: Mapping[str, str] = attrs.field(factory=dict)


COMPARISON = Plot(
    "Times better than the original",
    "requests or bytes per second, or seconds; median; logarithmic scale; longer is better",
    {
        "small_rate": "small page, warm",
        "unseen_rate": "small page, unseen request heads",
        "large_rate": "large page, warm",
        "wheel_rate": "wheel of 100 KiB, warm",
        "range_rate": "last bytes of a wheel, warm",
        "stream_eight": "large wheel, warm, 8 streams",
        "list_cold": "project list, cold",
        "list_warm": "project list, warm",
        "far_pages": "cold pages, slow link",
        "install_uv": "installation by uv (nginx: static files)",
        "install_pip": "installation by pip (nginx: static files)",
        "start_page": "start with files cached, first page",
    },
    ORIGINAL,
)
FIRST_INSTALLS = Plot(
    "Times faster than a first installation without a proxy",
    "100 packages, upstream 50 ms away; median; logarithmic scale; longer is better",
    {
        f"{state}_{kind}": f"{kind}, {what}"
        for kind in ("pip", "uv")
        for state, what in (
            ("first", "nothing cached"),
            ("expired", "files cached, pages expired"),
            ("cached", "everything cached"),
        )
    },
    DIRECT,
    {
        f"{state}_{kind}": f"first_{kind}"
        for kind in ("pip", "uv")
        for state in ("expired", "cached")
    },
)
_LEFT, _RIGHT, _WIDTH, _TOP = 250, 60, 800, 84
_BAR, _GAP = 11, 12
_COLOURS = {
    PROXPI: ("#1f6feb", "#58a6ff"),
    UVLOOP: ("#2da198", "#56d4c8"),
    OFF: ("#a475f9", "#be8fff"),
    ORIGINAL: ("#bf8700", "#d29922"),
    NGINX: ("#8c959f", "#848d97"),
    CLIENT_CACHE: ("#8c959f", "#848d97"),
    EMPTY_SIDECAR: ("#bf8700", "#d29922"),
    WARM_SIDECAR: ("#1f6feb", "#58a6ff"),
    RESTORED_FOLDER: ("#2da198", "#56d4c8"),
}
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.small { font-size: 11px; fill: #59636e }
.title { font-size: 16px; font-weight: 600 }
.ground { fill: #ffffff }
.grid { stroke: #d1d9e0 }
.one { stroke: #1f2328; stroke-width: 1.5 }
"""
_DARK = """
text { fill: #f0f6fc }
.small { fill: #9198a1 }
.ground { fill: #0d1117 }
.grid { stroke: #3d444d }
.one { stroke: #f0f6fc }
"""


@attrs.frozen
class Row:
    """A measure, and by program the factor by which it is better than the plot's base."""

    label: str
    times: dict[str, float]


def rows(values: Values, measures: Sequence[Measure], plot: Plot = COMPARISON) -> list[Row]:
    """Return the rows of all measures with a value of the base."""
    more = {measure.key: measure.more_is_better for measure in measures}
    found = []
    for key, label in plot.labels.items():
        medians = {name: median(of.values()) for name, of in values.found.get(key, {}).items()}
        medians.pop(plot.base, None)
        own = values.found.get(plot.base_keys.get(key, key), {}).get(plot.base)
        base = median(own.values()) if own else 0
        times = {
            name: medians[name] / base if more[key] else base / medians[name]
            for name in PROGRAMS
            if base and medians.get(name)
        }
        if times:
            found.append(Row(label, times))
    return found


def svg(drawn: Sequence[Row], plot: Plot = COMPARISON) -> str:
    """Render the plot of at least one row."""
    every = [times for row in drawn for times in row.times.values()]
    low, high = floor(log10(min(1, *every))), ceil(log10(max(10, *every)))
    height = _TOP + sum(len(row.times) * _BAR + _GAP for row in drawn) + 40

    def position(times: float) -> float:
        share = (log10(times) - low) / (high - low)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    lines = [*_head(plot, height), *_legend(drawn)]
    for power in range(low, high + 1):
        x = position(10**power)
        kind = "grid" if power else "one"
        lines.append(f'<line class="{kind}" x1="{x}" x2="{x}" y1="{_TOP - 8}" y2="{height - 34}"/>')
        lines.append(_text(x, height - 18, f"{10**power:,g} ×", "small", "middle"))
    y = _TOP
    for row in drawn:
        lines.append(_text(_LEFT - 10, y + len(row.times) * _BAR / 2 + 4, row.label, "", "end"))
        for name, times in row.times.items():
            left, right = sorted((position(1), position(times)))
            width = max(right - left, 1)
            lines.append(
                f'<rect class="{_kind(name)}" x="{left}" y="{y}" width="{width:.1f}" '
                f'height="{_BAR - 1}"><title>{escape(name)}: {times:.3g} ×</title></rect>'
            )
            lines.append(_text(right + 4, y + _BAR - 2, f"{_figure(times)} ×", "small"))
            y += _BAR
        y += _GAP
    return "\n".join([*lines, "</svg>\n"])


def _figure(times: float) -> str:
    return f"{times:,.0f}" if times >= 10 else f"{times:.2g}"


def _head(plot: Plot, height: float) -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img" aria-label="{plot.title}">'
    )
    colours = (
        "".join(f".{_kind(name)} {{ fill: {both[dark]} }}\n" for name, both in _COLOURS.items())
        for dark in (0, 1)
    )
    light, dark = colours
    yield f"<style>{_STYLE}{light}@media (prefers-color-scheme: dark) {{{_DARK}{dark}}}</style>"
    yield f'<rect class="ground" width="{_WIDTH}" height="{height}" rx="6"/>'
    yield _text(16, 26, plot.title, "title")
    yield _text(16, 44, plot.unit, "small")


def _legend(drawn: Sequence[Row]) -> Iterator[str]:
    x = 16
    for name in _COLOURS:
        if any(name in row.times for row in drawn):
            yield f'<rect class="{_kind(name)}" x="{x}" y="54" width="12" height="10"/>'
            yield _text(x + 17, 63, name, "small")
            x += 40 + 7 * len(name)


def _kind(name: str) -> str:
    return name.replace(" ", "-")


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
