"""The metrics of the process, and their exposition in Prometheus's text format (``GET /metrics``).

Counters belong to the process and are module constants; each is incremented in one place. Gauges
get their values when they are written. Prometheus's library is imported by the first exposition:
until then it would take 1.5 MiB, and 15 ms of the start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

#: The media type of :func:`exposition`.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@attrs.define(eq=False)
class Count:
    """A number that only grows."""

    value: float = 0.0

    def inc(self, more: float = 1.0) -> None:
        self.value += more


@attrs.define(eq=False)
class Counter:
    """A counter with a count for each value of its label; without a label it has one count."""

    name: str
    explains: str
    label: str
    counts: dict[str, Count] = attrs.field(factory=dict)

    def labels(self, value: str) -> Count:
        return self.counts.setdefault(value, Count())


@attrs.frozen
class Gauge:
    """A number that goes up and down; its value is an argument of :func:`exposition`."""

    name: str
    explains: str


_COUNTERS: list[Counter] = []


def _counter(name: str, explains: str, label: str) -> Counter:
    counter = Counter(f"proxpi_{name}", explains, label)
    _COUNTERS.append(counter)
    return counter


_FILES = _counter(
    "file_answers", "Responses to requests for files, by the use of the cache.", "cache"
)
FILE_HITS = _FILES.labels("hit")
FILE_MISSES = _FILES.labels("miss")
#: Redirects upstream.
FILE_REDIRECTS = _FILES.labels("redirect")
#: ``outcome``: kept, kept_unverified (no hash was known), not_kept (deleted or cancelled
#: meanwhile), gone, failed, disk, too_large. Downloads in the background count as any other.
DOWNLOADS = _counter("downloads", "Downloads of files, by outcome.", "outcome")
#: ``cause``: see :mod:`proxpi.files.fetch`.
DISCARDED = _counter("discarded", "Fetched bodies that were discarded, by cause.", "cause")
RESUMED = _counter("resumed", "Downloads that were resumed after a lost connection.", "").labels("")
#: Deletions that a client requested are no evictions.
EVICTED = _counter("evicted", "Files that were evicted from the cache folder.", "").labels("")
#: ``outcome``: sent, used (by a client within ten minutes), wasted. A request that is not counted
#: as used or wasted is younger.
PREFETCH_REQUESTS = _counter(
    "prefetch_requests", "Background requests ahead of those of clients, by outcome.", "outcome"
)
PREFETCH_BYTES = _counter(
    "prefetch_bytes", "Bytes that background requests brought, by outcome.", "outcome"
)
#: ``rule``: deny, advisory, allow, age. A file is counted once for each.
EXCLUDED = _counter("files_excluded", "Files that rules have excluded from pages.", "rule")
CACHE_BYTES = Gauge(
    "proxpi_cache_bytes", "Bytes of files in the cache folder, unfinished ones included."
)
CACHE_CAPACITY = Gauge(
    "proxpi_cache_capacity_bytes", "Bytes of files that the cache folder may hold."
)
ADVISORIES = Gauge("proxpi_advisories_entries", "Entries on malicious packages that are known.")
ADVISORIES_AGE = Gauge(
    "proxpi_advisories_age_seconds", "Seconds since all entries on malicious packages were current."
)


def exposition(gauges: Mapping[Gauge, float]) -> bytes:
    """Write all counters, and gauges with their values, in Prometheus's text format."""
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Collector(gauges))
    return generate_latest(registry)


@attrs.frozen(eq=False)
class _Collector:
    """Gives the counters and gauges to Prometheus's library."""

    _gauges: Mapping[Gauge, float]

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for gauge, value in self._gauges.items():
            yield GaugeMetricFamily(gauge.name, gauge.explains, value=value)
        for counter in _COUNTERS:
            labels = [counter.label] if counter.label else []
            family = CounterMetricFamily(counter.name, counter.explains, labels=labels)
            for label, count in counter.counts.items():
                family.add_metric([label] if labels else [], count.value)
            yield family


@attrs.frozen
class Totals:
    """What was counted since the process was started.

    :ivar from_cache: the requests of them that needed no upstream
    :ivar saved_bytes: bytes of bodies that were sent from the cache
    :ivar saved_seconds: the hits, times the mean latency of the misses of their index
    """

    requests: float = 0
    from_cache: float = 0
    misses: float = 0
    errors: float = 0
    sent_bytes: float = 0
    saved_bytes: float = 0
    saved_seconds: float = 0
    received_bytes: float = 0
    upstream_requests: float = 0


def totals() -> Totals:
    """Return what was counted up to now."""
    return Totals()
