"""The counters, and their exposition in both formats, as Prometheus reads them."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest
from prometheus_client.openmetrics import parser as openmetrics

from proxpi import metrics
from proxpi.metrics import Totals
from proxpi.web import accounting
from tests.support.counted import samples

DOCUMENT = (Path(__file__).parents[1] / "docs/metrics.rst").read_text()
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def test_exposition() -> None:
    """Counters by label, gauges by value and label, and the process, as Prometheus reads them."""
    before = samples(metrics.exposition({})[0].decode())
    metrics.DOWNLOADS.labels("kept").inc(3)
    metrics.EVICTED.inc()
    labelled = metrics.Gauge("proxpi_of_indexes", "A gauge with a label.", ("index",))
    gauges: metrics.Gauges = {metrics.CACHE_BYTES: 7.0, labelled: {("a",): 1.0, ("b",): 2.0}}
    body, content_type = metrics.exposition(gauges)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    values = samples(body.decode())
    assert values["proxpi_cache_bytes"] == 7.0
    assert values["proxpi_of_indexes{index=a}"] == 1.0
    assert values["proxpi_of_indexes{index=b}"] == 2.0
    for name, more in (("downloads_total{outcome=kept}", 3), ("evicted_total", 1)):
        assert values[f"proxpi_{name}"] == before.get(f"proxpi_{name}", 0.0) + more
    assert values["process_open_fds"] > 0


def test_openmetrics() -> None:
    """The same samples in the format of OpenMetrics, if it is accepted."""
    metrics.REQUEST_SECONDS.labels("page", "miss").observe(0.3)
    text, _ = metrics.exposition({})
    body, content_type = metrics.exposition({}, f"text/html, {OPENMETRICS};q=0.5, */*;q=0.1")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in openmetrics.text_string_to_metric_families(body.decode())  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.name.startswith("proxpi_")
    }
    own = {name: value for name, value in samples(text.decode()).items() if name[:7] == "proxpi_"}
    assert len(own) == len(found) and sorted(own.values()) == sorted(found.values())


@pytest.mark.parametrize("kind", ["application/openmetrics-text", "text/plain"])
@pytest.mark.parametrize("version", ["x", "1.", "1.0.x", "2.x", "", "\xff", "1.0.0.0", "9" * 5000])
def test_odd_versions(kind: str, version: str) -> None:
    """A version of a format that does not exist is no error."""
    body, content_type = metrics.exposition({}, f"{kind};version={version}")
    assert b"# TYPE proxpi_requests" in body
    assert content_type.startswith((kind, "text/plain; version=0.0.4"))


def test_documented() -> None:
    """The documentation lists each metric with its labels."""
    rows = re.findall(r"^``(proxpi_\w+)`` {2,}((?:``\w+``(?:, )?)*)", DOCUMENT, re.MULTILINE)
    stated = {name: tuple(re.findall(r"\w+", labels)) for name, labels in rows}
    gauges = [each for each in vars(metrics).values() if isinstance(each, metrics.Gauge)]
    actual = {f"{each.name}_total": each.label_names for each in metrics._COUNTERS}
    actual |= {each.name: each.label_names for each in metrics._HISTOGRAMS}
    actual |= {each.name: each.label_names for each in gauges}
    assert stated == actual


def test_histogram() -> None:
    """Buckets are cumulative, and a duration at a bound is in its bucket."""
    histogram = metrics.REQUEST_SECONDS.labels("page", "stale")
    name, label = "proxpi_request_seconds", "kind=page,outcome=stale"
    before = samples(metrics.exposition({})[0].decode())
    for seconds, times in ((0.0, 5), (0.1, 1), (0.2, 1), (61.0, 2)):
        histogram.observe(seconds, times)
    now = samples(metrics.exposition({})[0].decode())

    def change(sample: str) -> float:
        return now[sample] - before[sample]

    found = [
        change(f"{name}_bucket{{kind=page,le={bound},outcome=stale}}")
        for bound in ("0.001", "0.1", "0.25", "60.0", "+Inf")
    ]
    assert found == [5, 6, 7, 7, 9]
    assert change(f"{name}_count{{{label}}}") == 9
    assert change(f"{name}_sum{{{label}}}") == pytest.approx(122.3)


def test_totals() -> None:
    """The totals leave out requests of kind ``other``; a hit saves the mean time of a miss."""
    before = metrics.totals()
    accounting.count("page", "miss", "some", sent=10, seconds=2.0, upstream=2.0)
    accounting.count("page", "miss", "some", sent=10, seconds=4.0, upstream=4.0)
    accounting.count("page", "hit", "some", sent=20, times=2)
    accounting.count("page", "hit", "other index", sent=10)
    accounting.count("file", "hit", "some", sent=5)
    accounting.count("page", "revalidated", "some", sent=10, seconds=1.0, upstream=1.0)
    accounting.count("file", "redirect", "", sent=0)
    accounting.count("list", "error", "", sent=7)
    accounting.count("page", "refused", "", sent=7)
    accounting.count("other", "none", "", sent=1000)
    metrics.UPSTREAM_REQUESTS.labels("some", "success").inc(4)
    metrics.RECEIVED_BYTES.labels("some").inc(33)
    now = metrics.totals()
    found = {name: getattr(now, name) - getattr(before, name) for name in attrs.fields_dict(Totals)}
    assert Totals(**found) == Totals(
        requests=10,
        from_cache=5,
        misses=3,
        errors=1,
        sent_bytes=79,
        saved_bytes=45,
        saved_seconds=6.0,
        received_bytes=33,
        upstream_requests=4,
    )
    assert Totals(**found).hit_ratio == 5 / 8
    assert Totals().hit_ratio is None
