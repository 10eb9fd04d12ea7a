"""The exposition of the metrics."""

from __future__ import annotations

from proxpi import metrics
from tests.support.counted import samples


def test_exposition() -> None:
    """Counters by label, gauges by value, and the process, as Prometheus reads them."""
    before = samples(metrics.exposition({}).decode())
    metrics.FILE_HITS.inc(3)
    metrics.EVICTED.inc()
    values = samples(metrics.exposition({metrics.CACHE_BYTES: 7.0}).decode())
    assert values["proxpi_cache_bytes"] == 7.0
    for name, more in (("file_answers_total{cache=hit}", 3), ("evicted_total", 1)):
        assert values[f"proxpi_{name}"] == before[f"proxpi_{name}"] + more
    assert values["process_open_fds"] > 0
