"""The files for Prometheus and Grafana: promtool reads them, and they name metrics that exist."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support import configs
from tests.support.advisories import Entries, affected, document
from tests.support.debian import need
from tests.support.distributions import make_wheel
from tests.support.fake_index import Behavior, FakeIndex
from tests.support.processes import StartProxy
from tests.support.proxy import Proxy

_TOP = Path(__file__).parents[2]
_ALERTS = _TOP / "docs/prometheus/alerts.yml"
_DASHBOARD = json.loads((_TOP / "docs/grafana/dashboard.json").read_text())
_MONITORING = _TOP / "docker/monitoring"
_COMPOSE = yaml.safe_load((_MONITORING / "compose.yaml").read_text())
_RULES = {rule["alert"]: rule for rule in yaml.safe_load(_ALERTS.read_text())["groups"][0]["rules"]}

#: Labels that Prometheus adds, and that of a histogram's buckets.
_OTHER_LABELS = {"job", "instance", "le"}
#: Metrics that Prometheus makes.
_OTHER_METRICS = {"up"}


@attrs.frozen
class Query:
    """An expression, and the labels that a legend takes from its result."""

    expression: str
    legend: frozenset[str] = frozenset()

    @property
    def metrics(self) -> set[str]:
        return set(re.findall(r"\b(?:proxpi|process)_\w+|\bup\b", self.expression))

    @property
    def labels(self) -> set[str]:
        listed = re.findall(r"\bby \(([^)]*)\)", self.expression)
        matched = re.findall(r'(\w+)(?:=~|!~|!=|=)"', self.expression)
        return {*matched, *self.legend, *(name for each in listed for name in each.split(", "))}


def _queries() -> Iterator[Query]:
    """Give the expressions of the dashboard, as Grafana sends them, and of the alerts."""
    for panel in _DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "5m").replace("$__range", "6h")
            yield Query(
                re.sub(r"\$\w+", ".+", expression),
                frozenset(re.findall(r"{{(\w+)}}", target["legendFormat"])),
            )
    for rule in _RULES.values():
        text = json.dumps(rule["annotations"])
        yield Query(rule["expr"], frozenset(re.findall(r"\$labels\.(\w+)", text)))


def _promtool(*arguments: str | Path) -> None:
    command = [need("prometheus", "promtool"), *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not ended.returncode, ended.stdout + ended.stderr


def test_expressions_are_valid(tmp_path: Path) -> None:
    """promtool finds no fault with the alerts, nor with the queries of the dashboard."""
    rules = [
        {"record": f"query:{number}", "expr": query.expression}
        for number, query in enumerate(_queries())
    ]
    queries = tmp_path / "queries.yml"
    queries.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    _promtool("check", "rules", _ALERTS, queries)


#: A client for which proxpi prefetches.
_PIP = (
    'pip/26.3 {"cpu":"x86_64","implementation":{"name":"CPython","version":"3.11.7"},'
    '"installer":{"name":"pip","version":"26.3"},"python":"3.11.7","system":{"name":"Linux"}}'
)


def _play(index: FakeIndex, proxy: Proxy) -> None:
    """Have each kind of event happen that has a metric of its own."""
    app, broken, young = (make_wheel(name) for name in ("demo-app", "broken", "young"))
    index.add(app)
    index.script(index.add(broken), Behavior(flip=10))
    index.add(young, upload_time="2126-01-02T03:04:05Z")
    assert proxy.get("/index/demo-app/", User_Agent=_PIP).status == 200
    index.wait_for(lambda seen: any("/files/demo-app/" in each.path for each in seen))
    for path in (f"demo-app/{app.filename}", f"broken/{broken.filename}", "young/", "unknown/"):
        for _ in range(2):
            proxy.get(f"/index/{path}")


def test_metrics_exist(fake_index: FakeIndex, start_proxy: StartProxy, tmp_path: Path) -> None:
    """proxpi exposes each metric that a query names, with the labels that it selects by."""
    feed = tmp_path / "advisories"
    feed.mkdir()
    Entries({"MAL-2026-1": document("MAL-2026-1", affected("evil"))}).write(feed)
    rules = configs.rules(
        advisories="malicious", advisories_url=f"file://{feed}/", exclude_newer="7 days"
    )
    proxy = start_proxy(config=configs.write(tmp_path, configs.index("root", fake_index), rules))
    proxy.wait_for_line("advisories: 1 entries")
    _play(fake_index, proxy)
    exposed: dict[str, set[str]] = {name: set() for name in _OTHER_METRICS}
    for family in text_string_to_metric_families(proxy.get("/metrics").text):
        for sample in family.samples:
            exposed.setdefault(sample.name, set()).update(sample.labels)
    for query in _queries():
        assert query.metrics <= exposed.keys(), query
        labels = set().union(*(exposed[name] for name in query.metrics))
        assert query.labels <= labels | _OTHER_LABELS, query


_AT = 'job="proxpi", instance="a:5000"'

#: Series of each alert: those with which it fires, and those with which it does not.
_CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "ProxpiNotScraped": ({f"up{{{_AT}}}": "0x90"}, {f"up{{{_AT}}}": "1x90"}),
    "ProxpiIndexFailing": (
        {f'proxpi_breaker_state{{{_AT}, index="root"}}': "2 2 1 " * 30},
        {f'proxpi_breaker_state{{{_AT}, index="root"}}': "2 2 1 0 " * 20},
    ),
    "ProxpiErrors": (
        {
            f'proxpi_requests_total{{{_AT}, kind="page", outcome="error"}}': "0+10x90",
            f'proxpi_requests_total{{{_AT}, kind="page", outcome="hit"}}': "0+90x90",
        },
        {
            f'proxpi_requests_total{{{_AT}, kind="page", outcome="error"}}': "0+1x90",
            f'proxpi_requests_total{{{_AT}, kind="page", outcome="hit"}}': "0+90x90",
            f'proxpi_requests_total{{{_AT}, kind="other", outcome="error"}}': "0+90x90",
        },
    ),
    "ProxpiCacheTooSmall": (
        {
            f"proxpi_cache_bytes{{{_AT}}}": "95x90",
            f"proxpi_cache_capacity_bytes{{{_AT}}}": "100x90",
            f"proxpi_cache_files{{{_AT}}}": "10x90",
            f"proxpi_evicted_total{{{_AT}}}": "0+1x90",
        },
        {
            f"proxpi_cache_bytes{{{_AT}}}": "95x90",
            f"proxpi_cache_capacity_bytes{{{_AT}}}": "100x90",
            f"proxpi_cache_files{{{_AT}}}": "1000x90",
            f"proxpi_evicted_total{{{_AT}}}": "0+1x90",
        },
    ),
    "ProxpiCannotCache": (
        {f'proxpi_downloads_total{{{_AT}, outcome="disk"}}': "0+1x90"},
        {f'proxpi_downloads_total{{{_AT}, outcome="kept"}}': "0+1x90"},
    ),
    "ProxpiWrongBytes": (
        {f'proxpi_discarded_total{{{_AT}, cause="hash"}}': "0+1x90"},
        {f'proxpi_discarded_total{{{_AT}, cause="cut"}}': "0+1x90"},
    ),
    "ProxpiReactorLag": (
        {f"proxpi_reactor_lag_seconds{{{_AT}}}": "0.3x90"},
        {f"proxpi_reactor_lag_seconds{{{_AT}}}": "0.3 0.3 0 " * 30},
    ),
    "ProxpiAdvisoriesOld": (
        {f"proxpi_advisories_age_seconds{{{_AT}}}": "180000x90"},
        {f"proxpi_advisories_age_seconds{{{_AT}}}": "170000x90"},
    ),
}


def _annotations(rule: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, str]:
    """Write the annotations of an alert that fires."""
    written: dict[str, str] = {}
    for name, text in rule["annotations"].items():
        text = re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels[found[1]], text)
        written[name] = text.replace("{{ $value | humanizePercentage }}", "10%")
    return written


@pytest.mark.parametrize("alert", sorted(_RULES))
def test_alerts(alert: str, tmp_path: Path) -> None:
    """Each alert fires when it should, with labels that its text names, and not otherwise."""
    labels = {"job": "proxpi", "instance": "a:5000"}
    labels |= {"index": "root"} if alert == "ProxpiIndexFailing" else {}
    tests = []
    for series, fires in zip(_CASES[alert], (True, False), strict=True):
        inputs = [{"series": name, "values": values} for name, values in series.items()]
        rule = _RULES[alert]
        expected = {
            "exp_labels": {**labels, **rule["labels"]},
            "exp_annotations": _annotations(rule, labels),
        }
        alerts = {"eval_time": "85m", "alertname": alert, "exp_alerts": [expected] * fires}
        tests.append({"interval": "1m", "input_series": inputs, "alert_rule_test": [alerts]})
    path = tmp_path / "tests.yml"
    path.write_text(json.dumps({"rule_files": [str(_ALERTS)], "tests": tests}))
    _promtool("test", "rules", path)


def _mounts(service: str) -> dict[str, Path]:
    """Return the files and folders of this repository in a container, by their path there."""
    found = {}
    for mount in _COMPOSE["services"][service]["volumes"]:
        source, target, *_ = mount.split(":")
        if source.startswith("."):
            found[target] = _MONITORING / source
        else:
            assert source in _COMPOSE["volumes"], f"{source} is declared"
    return found


def test_mounts() -> None:
    """The containers have each file at the place where Prometheus and Grafana look for it."""
    prometheus, grafana = _mounts("prometheus"), _mounts("grafana")
    for path in (*prometheus.values(), *grafana.values()):
        assert path.exists(), path
    config = yaml.safe_load(prometheus["/etc/prometheus/prometheus.yml"].read_text())
    for name in config["rule_files"]:
        assert prometheus[f"/etc/prometheus/{name}"].samefile(_ALERTS)
    [scraped] = config["scrape_configs"]
    assert scraped["job_name"] == "proxpi", "the alerts select it"
    assert scraped["static_configs"] == [{"targets": ["proxpi:5000"]}]
    provisioning = grafana["/etc/grafana/provisioning"]
    [datasource] = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert (datasource["url"], datasource["isDefault"]) == ("http://prometheus:9090", True)
    assert {"prometheus", "proxpi"} <= _COMPOSE["services"].keys()
    [provider] = yaml.safe_load((provisioning / "dashboards/proxpi.yaml").read_text())["providers"]
    place = f"{provider['options']['path']}/proxpi.json"
    assert grafana[place].samefile(_TOP / "docs/grafana/dashboard.json")
    home = _COMPOSE["services"]["grafana"]["environment"]
    assert home["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == place


def test_service_of_proxpi() -> None:
    """The example extends the service of the other compose file, with its volume and port."""
    extended = _COMPOSE["services"]["proxpi"]["extends"]
    base = yaml.safe_load((_MONITORING / extended["file"]).read_text())
    service = base["services"][extended["service"]]
    assert "127.0.0.1:5000:5000" in service["ports"]
    assert base["volumes"].keys() <= _COMPOSE["volumes"].keys()
    build = service["build"]
    context = (_MONITORING / extended["file"]).parent / build["context"]
    assert (context / build["dockerfile"]).is_file()


def test_configuration_of_prometheus(tmp_path: Path) -> None:
    """promtool finds no fault with the configuration, with the files as they are mounted."""
    for target, source in _mounts("prometheus").items():
        (tmp_path / Path(target).name).write_text(source.read_text())
    _promtool("check", "config", tmp_path / "prometheus.yml")


def test_dashboard() -> None:
    """Each panel has a number and a place of its own, says what it shows, and has a data source."""
    panels = _DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"].endswith("."), panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"
            references = [target["refId"] for target in panel["targets"]]
            assert references == sorted({*references})
