"""deploy/grafana: every metric of the dashboard exists, every expression is PromQL, all fits."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from .metrics import HOST, OTHERS, OWN, names_in
from .tools import DEPLOY, run

GRAFANA = DEPLOY / "grafana"
DASHBOARD: dict[str, Any] = json.loads(
    (GRAFANA / "dashboards" / "arthur-relay.json").read_text(encoding="utf-8")
)
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
# What Grafana puts in place of its own variables.
GRAFANAS = {"$__rate_interval": "1m", "$__range": "3h", "$instance": ".*", "$model": ".*"}


def expressions() -> list[str]:
    """Return the PromQL of all panels and annotations, as Prometheus gets it."""
    found = [target["expr"] for panel in PANELS for target in panel.get("targets", ())]
    found += [item["expr"] for item in DASHBOARD["annotations"]["list"]]
    for name, value in GRAFANAS.items():
        found = [expression.replace(name, value) for expression in found]
    return found


def queries() -> list[str]:
    """Return what the dashboard's variables are asked for with."""
    return [
        item["query"]["query"]
        for item in DASHBOARD["templating"]["list"]
        if item["type"] == "query"
    ]


def test_every_metric_of_the_dashboard_exists() -> None:
    for expression in expressions() + queries():
        names = names_in(expression)
        assert names, expression
        assert names <= OWN | OTHERS, expression


def test_every_metric_of_a_host_is_shown() -> None:
    shown = {name for expression in expressions() for name in names_in(expression)}
    # A histogram is shown by its buckets.
    wanted = {name for name in HOST if not re.search(r"_(count|sum)$", name)}
    assert wanted <= shown


def test_every_expression_is_promql(tmp_path: Path) -> None:
    assert not [expression for expression in expressions() if "$" in expression]
    rules = [
        {"record": f"panel:{number}", "expr": expression}
        for number, expression in enumerate(expressions())
    ]
    path = tmp_path / "rules.yml"
    path.write_text(
        yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8"
    )
    assert f"{len(rules)} rules found" in run("promtool", "check", "rules", path)


def test_panels_have_a_unit_a_place_of_their_own_and_the_chosen_source() -> None:
    assert not [number for number, times in Counter(p["id"] for p in PANELS).items() if times > 1]
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] in ("timeseries", "stat"):
            assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"


def test_the_provisioning_finds_what_is_there() -> None:
    folder = GRAFANA / "provisioning"
    source = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text("utf-8"))
    (prometheus,) = source["datasources"]
    boards = yaml.safe_load((folder / "dashboards" / "arthur-relay.yaml").read_text("utf-8"))
    (provider,) = boards["providers"]
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]
    assert prometheus["url"] == "http://prometheus:9090"
    assert "prometheus" in compose
    mounts = {
        str(item).split(":")[1]: str(item).split(":")[0] for item in compose["grafana"]["volumes"]
    }
    assert (DEPLOY / mounts["/etc/grafana/provisioning"]).samefile(folder)
    assert (DEPLOY / mounts[provider["options"]["path"]] / "arthur-relay.json").is_file()
