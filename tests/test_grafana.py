"""The dashboard as it lies in the repository; tests/test_prometheus.py evaluates its queries."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest
import yaml

from alphapulse import metrics
from tests.monitoring import DASHBOARD, GRAFANA, Panel, alerts, metrics_of, panels


def names(panel: Panel) -> Iterator[str]:
    for query in panel.queries:
        yield from metrics_of(query)


def test_every_metric_is_shown_and_every_one_shown_exists() -> None:
    shown = {name for panel in panels() for name in names(panel)}
    assert shown == {declared.name for declared in metrics.ALL}


def test_alerts_are_about_metrics_that_exist() -> None:
    known = {declared.name for declared in metrics.ALL} | {"up"}
    asked = {name for alert in alerts() for name in metrics_of(alert["expr"])}
    assert asked <= known


def test_labels_in_queries_and_legends_are_those_of_the_metric() -> None:
    labels = {declared.name: {*declared.labels, "le"} for declared in metrics.ALL}
    wrong = []
    for panel in panels():
        for target in panel.targets:
            query, legend = target["expr"], target["legendFormat"]
            asked = {
                *re.findall(r"(\w+)=~?\"", query),
                *re.findall(r"\{\{(\w+)\}\}", legend),
                *(name for by in re.findall(r"by \(([\w, ]+)\)", query) for name in by.split(", ")),
            }
            wrong += [
                f"{panel.title}: {metric} has no label {label}"
                for metric in metrics_of(query)
                for label in asked - labels[metric]
            ]
    assert wrong == []


def test_panels_are_told_apart_explained_and_do_not_overlap() -> None:
    found = panels()
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    assert len({(panel.row, panel.title) for panel in found}) == len(found)
    assert [panel.title for panel in found if not panel.description.endswith(".")] == []
    cells = [
        (place["x"] + column, place["y"] + line)
        for place in (panel["gridPos"] for panel in everything)
        for column, line in itertools.product(range(place["w"]), range(place["h"]))
    ]
    assert len(set(cells)) == len(cells)
    assert max(column for column, _ in cells) < 24


def test_rows_are_those_that_an_operator_looks_for() -> None:
    rows = list(dict.fromkeys(panel.row for panel in panels()))
    assert rows == [
        *("Overview", "Books", "Rates", "Latency", "Rings and readers", "Clients"),
        *("History", "REST", "Processes"),
    ]


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: f"{panel.row}: {panel.title}")
def test_queries_go_to_the_datasource_that_is_provisioned(panel: Panel) -> None:
    path = GRAFANA / "provisioning" / "datasources" / "prometheus.yaml"
    [source] = yaml.safe_load(path.read_text(encoding="utf-8"))["datasources"]
    uid = {"type": source["type"], "uid": source["uid"]}
    assert panel.datasource == uid
    assert [target["datasource"] for target in panel.targets] == [uid] * len(panel.targets)
    assert len({target["refId"] for target in panel.targets}) == len(panel.targets)


def test_the_interval_of_scrapes_is_known_to_grafana() -> None:
    path = GRAFANA / "provisioning" / "datasources" / "prometheus.yaml"
    [source] = yaml.safe_load(path.read_text(encoding="utf-8"))["datasources"]
    config = yaml.safe_load((GRAFANA.parent / "prometheus" / "prometheus.yml").read_text("utf-8"))
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
