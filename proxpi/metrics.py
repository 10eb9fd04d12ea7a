"""The metrics of the process, and their exposition for Prometheus (``GET /metrics``).

Counters and histograms belong to the process and are module constants; each is incremented in one
place. Gauges get their values when they are written. Prometheus's library is imported by the first
exposition: until then it would take 1.5 MiB, and 15 ms of the start.

Every label has few values, which the program or its configuration names: none is a project, a file
or a client.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

T = TypeVar("T")
#: Upper bounds of a histogram's buckets, in seconds; one without a bound follows.
BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
#: Values of the labels of one metric, in their order.
Labels = tuple[str, ...]


@attrs.define(eq=False)
class Count:
    """A number that only grows."""

    value: float = 0.0

    def inc(self, more: float = 1.0) -> None:
        self.value += more


@attrs.define(eq=False)
class Distribution:
    """Durations: how many are in each bucket, and their sum in seconds."""

    counts: list[int] = attrs.field(factory=lambda: [0] * (len(BUCKETS) + 1))
    sum: float = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += times
        self.sum += seconds * times

    @property
    def mean(self) -> float:
        """The mean in seconds; 0 of none."""
        return self.sum / (sum(self.counts) or 1)


@attrs.define(eq=False)
class Family(Generic[T]):
    """A counter or histogram, with a value for each combination of the values of its labels."""

    name: str
    explains: str
    label_names: Labels
    _new: Callable[[], T]
    values: dict[Labels, T] = attrs.field(init=False, factory=dict)

    def labels(self, *values: str) -> T:
        value = self.values.get(values)
        if value is None:
            value = self.values[values] = self._new()
        return value


@attrs.frozen
class Gauge:
    """A number that goes up and down; its values are an argument of :func:`exposition`."""

    name: str
    explains: str
    label_names: Labels = ()


#: Values of gauges: of one with labels, a number for each combination of their values.
Gauges = Mapping[Gauge, float | Mapping[Labels, float]]

_COUNTERS: list[Family[Count]] = []
_HISTOGRAMS: list[Family[Distribution]] = []


def _counter(name: str, explains: str, *labels: str) -> Family[Count]:
    counter = Family(f"proxpi_{name}", explains, labels, Count)
    _COUNTERS.append(counter)
    return counter


def _histogram(name: str, explains: str, *labels: str) -> Family[Distribution]:
    histogram = Family(f"proxpi_{name}", explains, labels, Distribution)
    _HISTOGRAMS.append(histogram)
    return histogram


# Responses; :mod:`proxpi.web.accounting` names kinds and outcomes, and counts.
REQUESTS = _counter("requests", "Requests, by kind and outcome.", "kind", "outcome")
REQUEST_SECONDS = _histogram(
    "request_seconds", "Seconds until the head of a response was written.", "kind", "outcome"
)
SENT_BYTES = _counter("sent_bytes", "Bytes of bodies that clients were sent.", "kind")
SAVED_BYTES = _counter("saved_bytes", "Bytes of bodies that were sent from the cache.", "kind")
MISS_SECONDS = _histogram(
    "miss_seconds", "Seconds for which cache misses waited for an upstream.", "index", "kind"
)
SAVED_SECONDS = _counter(
    "saved_seconds",
    "Seconds that misses would have taken in place of hits, by their mean.",
    "index",
)
# Requests to upstreams.
#: ``result``: see :mod:`proxpi.upstream`.
UPSTREAM_REQUESTS = _counter("upstream_requests", "Requests to upstreams.", "index", "result")
UPSTREAM_SECONDS = _histogram(
    "upstream_seconds", "Seconds until an upstream sent the head of a response.", "index"
)
RECEIVED_BYTES = _counter("received_bytes", "Bytes of bodies that upstreams sent.", "index")
#: ``outcome``: kept, kept_unverified (no hash was known), not_kept (deleted or cancelled
#: meanwhile), gone, failed, disk, too_large. Downloads in the background count as any other.
DOWNLOADS = _counter("downloads", "Downloads of files, by outcome.", "outcome")
#: ``cause``: see :mod:`proxpi.files.fetch`.
DISCARDED = _counter("discarded", "Fetched bodies that were discarded, by cause.", "cause")
RESUMED = _counter("resumed", "Downloads that were resumed after a lost connection.").labels()
#: Deletions that a client requested are no evictions.
EVICTED = _counter("evicted", "Files that were evicted from the cache folder.").labels()
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
    "proxpi_cache_bytes", "Bytes of files in the cache folder, and those reserved for downloads."
)
CACHE_CAPACITY = Gauge(
    "proxpi_cache_capacity_bytes", "Bytes of files that the cache folder may hold."
)
CACHE_FILES = Gauge("proxpi_cache_files", "Cached files.")
DOWNLOADS_IN_FLIGHT = Gauge("proxpi_downloads_in_flight", "Downloads of files under way.")
WAITERS = Gauge("proxpi_waiters", "Requests that wait for an upstream.")
BREAKER_STATE = Gauge(
    "proxpi_breaker_state",
    "Circuit breaker of an index: 0 is closed, 1 half-open, 2 open.",
    ("index",),
)
REACTOR_LAG = Gauge(
    "proxpi_reactor_lag_seconds", "Longest delay of a timer in the last minute, on a busy reactor."
)
ADVISORIES = Gauge("proxpi_advisories_entries", "Entries on malicious packages that are known.")
ADVISORIES_AGE = Gauge(
    "proxpi_advisories_age_seconds", "Seconds since all entries on malicious packages were current."
)


@attrs.frozen
class Totals:
    """The sums of the counters since the start; requests of kind ``other`` are left out.

    :ivar from_cache: requests whose response came from the cache: hits, stale and revalidated ones
    :ivar misses: requests that an upstream had to serve, by a redirect or through proxpi
    :ivar errors: requests that failed (5xx)
    :ivar saved_bytes: bytes of bodies that came from the cache
    :ivar saved_seconds: see :data:`SAVED_SECONDS`
    :ivar received_bytes: bytes of bodies that upstreams sent
    """

    requests: float = 0.0
    from_cache: float = 0.0
    misses: float = 0.0
    errors: float = 0.0
    sent_bytes: float = 0.0
    saved_bytes: float = 0.0
    saved_seconds: float = 0.0
    received_bytes: float = 0.0
    upstream_requests: float = 0.0

    @property
    def hit_ratio(self) -> float | None:
        """The part of the requests with content that came from the cache; ``None`` without any."""
        decided = self.from_cache + self.misses
        return self.from_cache / decided if decided else None


#: Outcomes with content that came from the cache, and those with content that did not.
FROM_CACHE = frozenset({"hit", "stale", "revalidated"})
MISSES = frozenset({"miss", "redirect"})


def _sum(counter: Family[Count]) -> float:
    return sum(count.value for count in counter.values.values())


def totals() -> Totals:
    """Sum the counters up; the responses of the response cache as far as it has reported them."""

    def requests(wanted: Callable[[str], bool] = lambda outcome: True) -> float:
        counts = REQUESTS.values.items()
        return sum(
            count.value for (kind, outcome), count in counts if kind != "other" and wanted(outcome)
        )

    return Totals(
        requests=requests(),
        from_cache=requests(FROM_CACHE.__contains__),
        misses=requests(MISSES.__contains__),
        errors=requests("error".__eq__),
        sent_bytes=_sum(SENT_BYTES) - SENT_BYTES.labels("other").value,
        saved_bytes=_sum(SAVED_BYTES),
        saved_seconds=_sum(SAVED_SECONDS),
        received_bytes=_sum(RECEIVED_BYTES),
        upstream_requests=_sum(UPSTREAM_REQUESTS),
    )


def exposition(gauges: Gauges, accept: str = "") -> tuple[bytes, str]:
    """
    Write all counters and histograms, and gauges with their values.

    :param accept: the header field of the request: Prometheus may ask for the OpenMetrics format
    :return: the text and its media type
    """
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Collector(gauges))
    try:
        encode, content_type = choose_encoder(accept)
    except TypeError:  # by a version in `accept` that is no number
        encode, content_type = choose_encoder("")
    return encode(registry), content_type


@attrs.frozen(eq=False)
class _Collector:
    """Gives the metrics to Prometheus's library."""

    _gauges: Gauges

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        for gauge, values in self._gauges.items():
            family = GaugeMetricFamily(gauge.name, gauge.explains, labels=gauge.label_names)
            for labels, value in (values if isinstance(values, Mapping) else {(): values}).items():
                family.add_metric(labels, value)
            yield family
        for counter in _COUNTERS:
            counted = CounterMetricFamily(
                counter.name, counter.explains, labels=counter.label_names
            )
            for labels, count in counter.values.items():
                counted.add_metric(labels, count.value)
            yield counted
        bounds = [*map(str, BUCKETS), "+Inf"]
        for each in _HISTOGRAMS:
            histogram = HistogramMetricFamily(each.name, each.explains, labels=each.label_names)
            for labels, found in each.values.items():
                buckets = list(zip(bounds, accumulate(found.counts), strict=True))
                histogram.add_metric(labels, buckets, found.sum)
            yield histogram
