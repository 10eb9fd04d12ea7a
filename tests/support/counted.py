"""Counts of the metrics, read as Prometheus reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from proxpi import metrics


def samples(text: str) -> dict[str, float]:
    """Return the values by name, with labels: ``proxpi_downloads_total{outcome=kept}``."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


class Counted:
    def __init__(self) -> None:
        self._before = samples(metrics.exposition({}).decode())

    def since(self) -> dict[str, float]:
        """Return the counts of files, by the last word of the name or by label."""
        now = samples(metrics.exposition({}).decode())
        return {
            _short(name): value - self._before.get(name, 0.0)
            for name, value in now.items()
            if name.startswith("proxpi_")
            and name.partition("{")[0].endswith("_total")
            and value != self._before.get(name, 0.0)
        }


def _short(name: str) -> str:
    name, _, labels = name.partition("{")
    return labels.rstrip("}").partition("=")[2] or name.removeprefix("proxpi_")
