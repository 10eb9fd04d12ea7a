"""The plot shows the factors and is valid SVG."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from plot import FIRST_INSTALLS, Row, rows, svg
from results import Measure, Values

SVG = "{http://www.w3.org/2000/svg}"


def bars(image: str) -> dict[str, float]:
    """Return the widths of the bars by their title."""
    found = ElementTree.fromstring(image).iter(f"{SVG}rect")
    titled = ((bar.find(f"{SVG}title"), bar) for bar in found)
    return {
        title.text or "": float(bar.attrib["width"]) for title, bar in titled if title is not None
    }


def test_better_is_a_larger_factor() -> None:
    """Twice the rate and half the seconds are both a factor of two."""
    values = Values()
    for name, rate, seconds in (("original", 10, 8), ("proxpi", 20, 4)):
        values.note("small_rate", name, rate)
        values.note("list_cold", name, seconds)
    measures = [Measure("small_rate", "", more_is_better=True), Measure("list_cold", "")]
    assert [row.times for row in rows(values, measures)] == [{"proxpi": 2}, {"proxpi": 2}]


def test_measures_without_the_original_are_left_out() -> None:
    """A measure without a value of the original has no bar."""
    values = Values()
    values.note("small_rate", "proxpi", 20)
    assert not rows(values, [Measure("small_rate", "", more_is_better=True)])


def test_the_base_may_be_another_measure() -> None:
    """An installation from the cache is compared with the first one without a proxy."""
    values = Values()
    values.note("first_uv", "direct", 6)
    values.note("cached_uv", "proxpi", 2)
    [row] = rows(values, [Measure("first_uv", ""), Measure("cached_uv", "")], FIRST_INSTALLS)
    assert row == Row("uv, everything cached", {"proxpi": 3})


def test_bars() -> None:
    """The scale is logarithmic; the bar of a factor below 1 ends at the line of the original."""
    found = bars(svg([Row("page", {"proxpi": 100, "nginx": 10})]))
    assert found["proxpi: 100 ×"] == pytest.approx(2 * found["nginx: 10 ×"], abs=0.2)
    image = ElementTree.fromstring(svg([Row("page", {"proxpi": 0.5, "nginx": 2})]))
    slower, faster = (
        bar for bar in image.iter(f"{SVG}rect") if bar.find(f"{SVG}title") is not None
    )
    line = float(faster.attrib["x"])
    assert float(slower.attrib["x"]) + float(slower.attrib["width"]) == pytest.approx(line, abs=0.2)


def test_the_plot_has_both_colour_schemes_and_its_texts() -> None:
    """The image has a style for dark mode, a title, a legend and escaped labels."""
    image = svg([Row("<page> & file", {"proxpi": 3})])
    assert "prefers-color-scheme: dark" in image
    texts = [text.text for text in ElementTree.fromstring(image).iter(f"{SVG}text")]
    assert {"Times better than the original", "proxpi", "<page> & file", "3 ×"} <= set(texts)
