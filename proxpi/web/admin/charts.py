"""Charts of the traffic as inline SVG, made by the server: the admin page has no library for them.

Pure: numbers in, markup out. A chart is as wide as its place, and its bars stretch with it, but not
its texts: so the bars have a view box of their own, and all else has percentages. Colors are those
of CSS classes, as the page's policy allows no style attribute. Times count back from now, so that
no time zone is needed. The title and the description say the numbers in words, and the title of a
bar, which browsers show at the pointer, those of its time.

=================  =============================================================
``chart``          the image
``chart-grid``     lines of the scale
``chart-label``    texts of both axes; ``chart-empty`` is the one of no traffic
``chart-cached``   bars of requests from the cache, and their name
``chart-other``    bars of other requests, and their name
``chart-saved``    bars of saved bytes or time
``chart-bars``     the places of bars with their titles, as high as the chart
=================  =============================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import attrs
from markupsafe import Markup

from proxpi import quantities

#: The most bars of a chart: on a phone they can still be distinguished.
MOST_BARS = 96
#: The height of a chart, of the names above its bars, and of the times below them.
HEIGHT, ABOVE, BELOW = 150, 20, 20
#: The height of the bars' own view box.
SCALE = 1000
#: Larger values are drawn as this one: no counter reaches it.
MOST = 1e24
_PARTS_OF_A_MINUTE = (1, 2, 5, 10, 20, 30)
_TIMES = (
    *_PARTS_OF_A_MINUTE,
    *(60 * part for part in _PARTS_OF_A_MINUTE),
    *(3600 * hours for hours in (1, 2, 5, 12)),
)


@attrs.frozen
class _Quantity:
    """A quantity, and how charts show it.

    :ivar layers: class and name of the bars, from the bottom up
    :ivar describe: says the values of a time, one for each layer
    :ivar write: writes a value
    :ivar round_up: gives the top of a scale
    """

    name: str
    title: str
    layers: Sequence[tuple[str, str]]
    describe: Callable[[Sequence[float]], str]
    write: Callable[[float], str]
    round_up: Callable[[float], float]


def _round_number(number: float) -> float:
    """Round up to a number of one digit, or nearly so."""
    if number <= 10.0:
        return max(1, math.ceil(number))
    power = 10.0 ** math.floor(math.log10(number))
    return next(power * each for each in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if number <= power * each)


def _round_time(seconds: float) -> float:
    """Round up to a time that has few digits in its unit."""
    days = _round_number(seconds / 86_400) * 86_400
    return next((each for each in _TIMES if seconds <= each), days)


def _of_requests(parts: Sequence[float]) -> str:
    cached, others = parts
    return (
        f"{quantities.count(cached + others)} requests, {quantities.count(cached)} from the cache"
    )


_REQUESTS = _Quantity(
    name="requests",
    title="Requests",
    layers=(("chart-cached", "from the cache"), ("chart-other", "others")),
    describe=_of_requests,
    write=quantities.count,
    round_up=_round_number,
)
_SAVED_BYTES = _Quantity(
    name="saved-bytes",
    title="Bytes saved",
    layers=(("chart-saved", "not downloaded"),),
    describe=lambda parts: f"{quantities.size(parts[0])} not downloaded",
    write=quantities.size,
    round_up=_round_number,
)
_SAVED_TIME = _Quantity(
    name="saved-time",
    title="Time saved",
    layers=(("chart-saved", "not waited"),),
    describe=lambda parts: f"{quantities.duration(parts[0])} not waited",
    write=quantities.duration,
    round_up=_round_time,
)


def requests(step: float, requests: Sequence[float], from_cache: Sequence[float]) -> Markup:
    """
    Draw requests: those from the cache, and the others on top of them.

    :param step: seconds of a slot; the last slot is the present one
    """
    pairs = zip(_sound(requests), _sound(from_cache), strict=True)
    cached, others = zip(*((min(pair), max(0.0, pair[0] - pair[1])) for pair in pairs), strict=True)
    return _chart(_REQUESTS, step, [cached, others])


def saved_bytes(step: float, values: Sequence[float]) -> Markup:
    """Draw the bytes that were not downloaded."""
    return _chart(_SAVED_BYTES, step, [_sound(values)])


def saved_time(step: float, seconds: Sequence[float]) -> Markup:
    """Draw the time for which no client had to wait."""
    return _chart(_SAVED_TIME, step, [_sound(seconds)])


def _sound(values: Sequence[float]) -> list[float]:
    return [min(value, MOST) if value > 0.0 else 0.0 for value in values]


def _chart(quantity: _Quantity, step: float, layers: Sequence[Sequence[float]]) -> Markup:
    slots = len(layers[0])
    size = max(1, math.ceil(slots / MOST_BARS))
    bars = [*zip(*(_grouped(values, size) for values in layers), strict=True)]
    totals = [sum(bar) for bar in bars]
    highest = max(totals)
    span, name = quantities.duration(step * slots), f"{quantity.name}-{step:.0f}"
    text = f"The last {span}: {quantity.describe([sum(values) for values in layers])}."
    if highest:
        when = _ago(step * size, len(bars) - 1 - totals.index(highest))
        text += f" Most in {quantities.duration(step * size)}: {quantity.write(highest)} ({when})."
    top = quantity.round_up(highest)
    parts = [
        f'<svg class="chart" role="img" width="100%" height="{HEIGHT}"',
        f' aria-labelledby="{name}-title" aria-describedby="{name}-text">',
        f'<title id="{name}-title">{quantity.title}, the last {span}</title>',
        f'<desc id="{name}-text">{text}</desc>',
        *_scale(quantity.write(top) if highest else ""),
        *_names(quantity.layers),
        *(_bars(quantity, bars, top, step * size) if highest else _nothing()),
        *_times(step * slots),
        "</svg>",
    ]
    return Markup("".join(parts))


def _grouped(values: Sequence[float], size: int) -> list[float]:
    """Add up slots to bars; the first bar may have fewer."""
    first = len(values) % size or size
    bounds = [0, *range(first, len(values) + 1, size)]
    return [sum(values[begin:end]) for begin, end in pairwise(bounds)]


def _y(part: float) -> float:
    """Return where a part of the scale's top is."""
    return ABOVE + (HEIGHT - ABOVE - BELOW) * (1 - part)


def _scale(top: str) -> Iterator[str]:
    for part in (0.0, 0.5, 1.0):
        y = _y(part)
        yield f'<line class="chart-grid" x1="0" x2="100%" y1="{y:g}" y2="{y:g}"/>'
    yield f'<text class="chart-label" x="0" y="{_y(1) - 6:g}">{top}</text>'


def _names(layers: Sequence[tuple[str, str]]) -> Iterator[str]:
    names = "\N{EM SPACE}".join(f'<tspan class="{css}">■</tspan> {name}' for css, name in layers)
    yield f'<text class="chart-label" x="100%" y="{_y(1) - 6:g}" text-anchor="end">{names}</text>'


def _bars(
    quantity: _Quantity, bars: Sequence[Sequence[float]], top: float, step: float
) -> Iterator[str]:
    y = _y(1)
    yield (
        f'<svg x="0" y="{y:g}" width="100%" height="{_y(0) - y:g}" '
        f'viewBox="0 0 {len(bars)} {SCALE}" preserveAspectRatio="none">'
    )
    bases = [SCALE] * len(bars)
    for layer, (css, _) in enumerate(quantity.layers):
        path = []
        for n, bar in enumerate(bars):
            if bar[layer]:
                # A small value stays visible.
                height = min(bases[n], max(SCALE // 100, round(bar[layer] / top * SCALE)))
                path.append(f"M{n}.1 {bases[n]}v-{height}h.8v{height}z")
                bases[n] -= height
        yield f'<path class="{css}" d="{"".join(path)}"/>'
    yield '<g class="chart-bars">'
    for n, bar in enumerate(bars):
        if any(bar):
            when = _ago(step, len(bars) - 1 - n)
            title = f"<title>{when}: {quantity.describe(bar)}</title>"
            yield f'<rect x="{n}" width="1" height="{SCALE}">{title}</rect>'
    yield "</g></svg>"


def _nothing() -> Iterator[str]:
    yield (
        f'<text class="chart-label chart-empty" x="50%" y="{_y(0.25):g}" text-anchor="middle">'
        "none yet</text>"
    )


def _times(span: float) -> Iterator[str]:
    """Name the times: four of them fit on a phone."""
    for position, anchor in ((0, "start"), (1 / 3, "middle"), (2 / 3, "middle"), (1, "end")):
        ago = span * (1 - position)
        text = f"−{quantities.duration(ago)}" if ago else "now"
        yield (
            f'<text class="chart-label" x="{position:.2%}" y="{HEIGHT - 5}" '
            f'text-anchor="{anchor}">{text}</text>'
        )


def _ago(step: float, steps: int) -> str:
    """Say when a bar was, by the time since its end."""
    return f"{quantities.duration(step * steps)} ago" if steps else "now"
