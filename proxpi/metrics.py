"""What proxpi counts: the one place for it, in the terms of Prometheus.

Counters are those of the process, so they need nobody to hand them round; each is counted in one
place. :func:`text` writes all of them down as ``GET /metrics`` gives them.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    generate_latest,
)

#: What :func:`text` is written in.
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_REGISTRY = CollectorRegistry()
ProcessCollector(registry=_REGISTRY)


def _counter(name: str, explains: str, *labels: str) -> Counter:
    return Counter(f"proxpi_{name}", explains, labels, registry=_REGISTRY)


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
#: ``cause``: what was wrong with it; see :mod:`proxpi.files.reception`.
DISCARDED = _counter("discarded", "Attempts to fetch a file that were thrown away.", "cause")
RESUMED = _counter("resumed", "Downloads that were gone on with after they broke off.")
#: Not those that somebody had removed.
EVICTED = _counter("evicted", "Files that were removed to make room.")


def _gauge(name: str, explains: str) -> Gauge:
    return Gauge(f"proxpi_{name}", explains, registry=_REGISTRY)


#: What the cache folder holds, unfinished files included, and may hold; set by who knows it.
CACHE_BYTES = _gauge("cache_bytes", "Bytes of files in the cache folder, unfinished ones included.")
CACHE_CAPACITY = _gauge("cache_capacity_bytes", "Bytes of files that the cache folder may hold.")


#: What is called before anything is written down, by who counts for itself until then.
gather: list[Callable[[], object]] = []


def text() -> bytes:
    """Write everything down in Prometheus's text format."""
    for each in gather:
        each()
    return generate_latest(_REGISTRY)
