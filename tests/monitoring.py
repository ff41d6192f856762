"""What Prometheus and Grafana are given, for tests: files of the repository, read."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import yaml

from alphapulse import metrics
from tests.support import ROOT

GRAFANA = ROOT / "grafana"
PROMETHEUS = ROOT / "prometheus"
DASHBOARD: dict[str, Any] = json.loads(
    (GRAFANA / "dashboards" / "alphapulse.json").read_text(encoding="utf-8")
)


class Panel(NamedTuple):
    """A panel of the dashboard, with the title of the row that it stands in."""

    row: str
    title: str
    description: str
    datasource: dict[str, str]
    targets: list[dict[str, Any]]

    @property
    def queries(self) -> list[str]:
        """Its queries as Grafana would send them, all venues being chosen."""
        return [
            target["expr"].replace("$__rate_interval", "10s").replace("$exchange", ".*")
            for target in self.targets
        ]


def panels() -> list[Panel]:
    """All panels with queries, in order."""
    found = []
    row = ""
    for panel in DASHBOARD["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
            continue
        fields = (panel["title"], panel["description"], panel["datasource"], panel["targets"])
        found.append(Panel(row, *fields))
    return found


def alerts() -> list[dict[str, Any]]:
    """All alert rules."""
    rules = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in rules["groups"] for rule in group["rules"]]


def measure(alert: dict[str, Any]) -> str:
    """What an alert looks at, without the limit that it compares with."""
    found = re.fullmatch(r"(.+) (?:==|!=|>|<) [\d.e]+", alert["expr"], re.DOTALL)
    assert found, f"{alert['alert']} is no `measure comparison limit`: {alert['expr']}"
    return found[1]


def metrics_of(query: str) -> set[str]:
    """Names of the metrics in a query, as they are declared."""
    histograms = {one.name for one in metrics.ALL if isinstance(one, metrics.Histogram)}
    # Names of functions are followed by a parenthesis, those of labels stand in one or in braces.
    bare = re.sub(r"\{[^}]*\}|by \([^)]*\)|\[[^]]*\]", "", query)
    words = re.findall(r"\b[a-z]\w*_\w+\b(?!\s*\()|\bup\b", bare)
    return {
        name.removesuffix("_bucket") if name.removesuffix("_bucket") in histograms else name
        for name in words
    }
