"""Counts of the metrics, read as Prometheus reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from proxpi import metrics

_NAMES = ("downloads", "discarded", "resumed", "evicted", "files_excluded")
#: The counters of what becomes of files.
OF_FILES = tuple(f"proxpi_{name}_total" for name in _NAMES)


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
        self._before = samples(metrics.exposition({})[0].decode())

    def since(self) -> dict[str, float]:
        """Return the counts of files, by the last word of the name or by label."""
        now = samples(metrics.exposition({})[0].decode())
        return {
            _short(name): value - self._before.get(name, 0.0)
            for name, value in now.items()
            if name.startswith(OF_FILES) and value != self._before.get(name, 0.0)
        }


def _short(name: str) -> str:
    name, _, labels = name.partition("{")
    return labels.rstrip("}").partition("=")[2] or name.removeprefix("proxpi_")
