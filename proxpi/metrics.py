"""What proxpi counts: the one place for it, in the terms of Prometheus.

Counters are those of the process, so they need nobody to hand them round; each is counted in one
place. :func:`text` writes all of them down as ``GET /metrics`` gives them. Only then is
Prometheus's own library needed: until somebody asks, it would take 1.5 MiB, and 15 ms of the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

#: What :func:`text` is written in.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@attrs.define(eq=False)
class Count:
    """A number that only grows."""

    value: float = 0.0

    def inc(self, more: float = 1.0) -> None:
        """Count something, or several of it."""
        self.value += more


@attrs.define(eq=False)
class Counter:
    """A counter, or one for each value of a label.

    :ivar label: what tells them apart; empty if there is one
    """

    name: str
    explains: str
    label: str = ""
    counts: dict[str, Count] = attrs.field(factory=dict)

    def labels(self, value: str) -> Count:
        """Give the one of a value."""
        return self.counts.setdefault(value, Count())


@attrs.define(eq=False)
class Gauge:
    """A number that goes up and down.

    :ivar value: gives it
    """

    name: str
    explains: str
    value: Callable[[], float] = lambda: 0.0


_ALL: list[Counter | Gauge] = []


def _counter(name: str, explains: str, label: str) -> Counter:
    counter = Counter(f"proxpi_{name}", explains, label)
    _ALL.append(counter)
    return counter


def _gauge(name: str, explains: str) -> Gauge:
    gauge = Gauge(f"proxpi_{name}", explains)
    _ALL.append(gauge)
    return gauge


_FILES = _counter(
    "file_answers", "Answers to requests for files, by where they came from.", "cache"
)
#: It was here.
FILE_HITS = _FILES.labels("hit")
#: It had to be asked for.
FILE_MISSES = _FILES.labels("miss")
#: The client was sent away.
FILE_REDIRECTS = _FILES.labels("redirect")
#: ``outcome``: kept, kept_unverified (no hash was known), not_kept, gone, failed, disk, too_large.
DOWNLOADS = _counter("downloads", "Downloads of files, by how they ended.", "outcome")
#: ``cause``: what was wrong with it; see :mod:`proxpi.files.fetch`.
DISCARDED = _counter("discarded", "Attempts to fetch a file that were thrown away.", "cause")
RESUMED = _counter("resumed", "Downloads that were gone on with after they broke off.", "").labels(
    ""
)
#: Not those that somebody had removed.
EVICTED = _counter("evicted", "Files that were removed to make room.", "").labels("")
#: What the cache folder holds, unfinished files included, and may hold; set by who knows it.
CACHE_BYTES = _gauge("cache_bytes", "Bytes of files in the cache folder, unfinished ones included.")
CACHE_CAPACITY = _gauge("cache_capacity_bytes", "Bytes of files that the cache folder may hold.")

#: What is called before anything is written down, by who counts for itself until then.
gather: list[Callable[[], object]] = []


def text() -> bytes:
    """Write everything down in Prometheus's text format."""
    from prometheus_client import generate_latest

    for each in gather:
        each()
    return generate_latest(_registry())


@cache
def _registry() -> CollectorRegistry:
    from prometheus_client import CollectorRegistry, ProcessCollector

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Collector())
    return registry


class _Collector:
    """Gives what is counted to Prometheus's library."""

    def collect(self) -> Iterator[Metric]:
        """Give all numbers as they are now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for each in _ALL:
            if isinstance(each, Gauge):
                yield GaugeMetricFamily(each.name, each.explains, value=each.value())
                continue
            labels = [each.label] if each.label else []
            family = CounterMetricFamily(each.name, each.explains, labels=labels)
            for value, count in each.counts.items():
                family.add_metric([value] if labels else [], count.value)
            yield family
