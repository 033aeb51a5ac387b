"""deploy/grafana: every metric of the dashboard exists, every expression is PromQL, all fits."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from .metrics import FLEET, HOST, OTHERS, OWN, names_in
from .tools import DEPLOY, run

GRAFANA = DEPLOY / "grafana"
DASHBOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((GRAFANA / "dashboards").glob("*.json"))
}
SHOWN = {"arthur-relay": HOST, "arthur-relay-fleet": FLEET - HOST}
"""The metrics that each has to show; it may show others."""

each_dashboard = pytest.mark.parametrize("name", DASHBOARDS)
# What Grafana puts in place of its own variables.
GRAFANAS = {"$__rate_interval": "1m", "$__range": "3h", "$instance": ".*", "$model": ".*"}


def expressions(name: str) -> list[str]:
    """Return the PromQL of all panels and annotations, as Prometheus gets it."""
    board = DASHBOARDS[name]
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    found += [item["expr"] for item in board["annotations"]["list"]]
    for variable, value in GRAFANAS.items():
        found = [expression.replace(variable, value) for expression in found]
    return found


def queries(name: str) -> list[str]:
    """Return what a dashboard's variables are asked for with."""
    variables = DASHBOARDS[name]["templating"]["list"]
    return [item["query"]["query"] for item in variables if item["type"] == "query"]


def test_there_is_one_for_a_host_and_one_for_a_fleet() -> None:
    assert DASHBOARDS.keys() == SHOWN.keys()
    assert [(board["uid"], board["id"]) for board in DASHBOARDS.values()] == [
        (name, None) for name in DASHBOARDS
    ]


@each_dashboard
def test_every_metric_of_a_dashboard_exists(name: str) -> None:
    for expression in expressions(name) + queries(name):
        names = names_in(expression)
        assert names, expression
        assert names <= OWN | OTHERS, expression


@each_dashboard
def test_every_metric_is_shown(name: str) -> None:
    shown = {each for expression in expressions(name) for each in names_in(expression)}
    # A histogram is shown by its buckets.
    wanted = {each for each in SHOWN[name] if not re.search(r"_(count|sum)$", each)}
    assert wanted <= shown


@each_dashboard
def test_every_expression_is_promql(name: str, tmp_path: Path) -> None:
    assert not [expression for expression in expressions(name) if "$" in expression]
    rules = [
        {"record": f"panel:{number}", "expr": expression}
        for number, expression in enumerate(expressions(name))
    ]
    path = tmp_path / "rules.yml"
    path.write_text(
        yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8"
    )
    assert f"{len(rules)} rules found" in run("promtool", "check", "rules", path)


@each_dashboard
def test_panels_have_a_unit_a_place_of_their_own_and_the_chosen_source(name: str) -> None:
    panels = DASHBOARDS[name]["panels"]
    assert not [number for number, times in Counter(p["id"] for p in panels).items() if times > 1]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
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


@pytest.mark.parametrize(
    ("file", "first"),
    [("compose.yaml", "arthur-relay"), ("compose.fleet.yaml", "arthur-relay-fleet")],
)
def test_the_provisioning_finds_what_is_there(file: str, first: str) -> None:
    folder = GRAFANA / "provisioning"
    source = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text("utf-8"))
    (prometheus,) = source["datasources"]
    boards = yaml.safe_load((folder / "dashboards" / "arthur-relay.yaml").read_text("utf-8"))
    (provider,) = boards["providers"]
    compose = yaml.safe_load((DEPLOY / file).read_text("utf-8"))["services"]
    assert prometheus["url"] == "http://prometheus:9090"
    assert "prometheus" in compose
    mounts = {
        str(item).split(":")[1]: str(item).split(":")[0] for item in compose["grafana"]["volumes"]
    }
    assert (DEPLOY / mounts["/etc/grafana/provisioning"]).samefile(folder)
    folder = provider["options"]["path"]
    for name in DASHBOARDS:
        assert (DEPLOY / mounts[folder] / f"{name}.json").is_file()
    home = compose["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{folder}/{first}.json"
