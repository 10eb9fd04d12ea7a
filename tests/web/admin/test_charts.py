"""Charts: their markup says in bars and in words what the numbers are, whatever these are."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from proxpi.web.admin import charts
from proxpi.web.admin.charts import MOST_BARS, SCALE

DAY = 288


class Chart:
    """The parsed markup of a chart."""

    def __init__(self, markup: Markup) -> None:
        self.markup = markup
        self.svg = ElementTree.fromstring(markup)

    def text(self, of: str) -> str:
        """Return the text of the element that an ARIA attribute refers to."""
        found = [each for each in self.svg if each.get("id") == self.svg.get(of)]
        return str(found[0].text)

    def layer(self, css: str) -> dict[int, tuple[int, int]]:
        """Return the bars of a layer, by number: bottom and height, of the scale."""
        path = next(each for each in self.svg.iter("path") if each.get("class") == css)
        bars = re.findall(r"M(\d+)\.1 (\d+)v-(\d+)h\.8v\3z", path.get("d") or "")
        return {int(n): (int(bottom), int(height)) for n, bottom, height in bars}

    @property
    def titles(self) -> list[str]:
        return [str(rect[0].text) for rect in self.svg.iter("rect")]

    @property
    def labels(self) -> list[str]:
        return ["".join(each.itertext()) for each in self.svg.iter("text")]


def last(*values: float) -> list[float]:
    """Return a day that ends in these slots."""
    return [0.0] * (DAY - len(values)) + [*values]


def test_requests() -> None:
    """Requests are stacked: below those from the cache, the others above."""
    chart = Chart(charts.requests(3600, [0, 100, 50], [0, 75, 50]))
    assert chart.layer("chart-cached") == {
        1: (SCALE, 750),
        2: (SCALE, 500),
    }
    assert chart.layer("chart-other") == {1: (250, 250)}
    assert chart.titles == [
        "1 h ago: 100 requests, 75 from the cache",
        "now: 50 requests, 50 from the cache",
    ]
    assert chart.labels == [
        "100",
        "■ from the cache\N{EM SPACE}■ others",
        "−3 h",
        "−2 h",
        "−1 h",
        "now",
    ]


def test_words() -> None:
    """Title and description say the numbers in words, for screen readers."""
    chart = Chart(charts.requests(300, last(200, 0, 0, 300, 40, 2), last(150, 0, 0, 300, 40, 1)))
    assert chart.svg.get("role") == "img"
    assert chart.text("aria-labelledby") == "Requests, the last 24 h"
    assert chart.text("aria-describedby") == (
        "The last 24 h: 542 requests, 491 from the cache. Most in 15 min: 342 (now)."
    )


def test_saved() -> None:
    """Saved bytes and saved time have their units in each text."""
    chart = Chart(charts.saved_bytes(300, last(2e9, 0, 0)))
    assert chart.titles == ["now: 2.0 GB not downloaded"]
    assert chart.text("aria-describedby").startswith("The last 24 h: 2.0 GB not downloaded.")
    chart = Chart(charts.saved_time(300, last(500, 0, 0, 0, 0, 0)))
    assert chart.titles == ["15 min ago: 8 min 20 s not waited"]
    assert chart.labels[0] == "10 min"


@pytest.mark.parametrize("slots", [1, 2, 95, 96, 97, 288, 720])
def test_every_slot_counts_once(slots: int) -> None:
    """However many slots there are, few bars have all of them; the last bar ends now."""
    chart = Chart(charts.saved_bytes(60, [1.0] * slots))
    bars = [float(re.findall(r": ([\d,]+) B", title)[0]) for title in chart.titles]
    assert sum(bars) == slots
    assert len(bars) <= MOST_BARS
    assert chart.titles[-1].startswith("now: ")
    assert bars[-1] == max(bars)


def test_little() -> None:
    """A single request is seen beside many."""
    chart = Chart(charts.requests(3600, [1, 1_000_000], [1, 1_000_000]))
    assert chart.layer("chart-cached")[0] == (SCALE, SCALE // 100)


@pytest.mark.parametrize("slots", [1, DAY])
def test_empty(slots: int) -> None:
    """Without traffic there are no bars, and the chart says so."""
    for chart in (
        Chart(charts.requests(300, [0] * slots, [0] * slots)),
        Chart(charts.saved_bytes(300, [0] * slots)),
        Chart(charts.saved_time(300, [0] * slots)),
    ):
        assert not chart.titles
        assert "none yet" in chart.labels
        assert "Most" not in chart.text("aria-describedby")


@pytest.mark.parametrize(
    "values",
    [
        [math.nan, -5.0, math.inf, -math.inf],
        [1e308] * DAY,
        [5e-324],
        [0.1, 1e-9],
        [9.999999999e17, 1e18],
    ],
)
def test_odd_numbers(values: Sequence[float]) -> None:
    """No number breaks a chart or leaves it."""
    for chart, css in (
        (Chart(charts.saved_bytes(300, values)), "chart-saved"),
        (Chart(charts.saved_time(300, values)), "chart-saved"),
        (Chart(charts.requests(300, values, values)), "chart-cached"),
        (Chart(charts.requests(300, [1.0] * len(values), values)), "chart-cached"),
        (Chart(charts.requests(300, values, [0] * len(values))), "chart-other"),
    ):
        assert "nan" not in chart.markup
        assert "inf" not in chart.markup
        bars = chart.layer(css) if chart.titles else {}
        assert all(0 < height <= bottom <= SCALE for bottom, height in bars.values())


def test_names_are_unique() -> None:
    """Charts of one page refer to their own texts."""
    made = [
        chart(step, [1.0])
        for step in (300, 3600)
        for chart in (charts.saved_bytes, charts.saved_time)
    ]
    made += [charts.requests(step, [1.0], [1.0]) for step in (300, 3600)]
    names = [name for chart in made for name in re.findall(r' id="([^"]+)"', chart)]
    assert len(names) == len({*names}) == 12


def test_policy() -> None:
    """A strict content security policy leaves a chart as it is; and it is small enough to poll."""
    chart = charts.requests(300, [123.0] * DAY, [120.0] * DAY)
    assert not re.search(r"style|script|\son\w+=|href|url\(", chart)
    assert len(chart) < 20_000
