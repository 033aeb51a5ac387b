"""deploy/prometheus: promtool takes the files, each alert is tested, and all metrics exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from arthur_relay.daemon.metrics import _OF_THE_WHOLE
from tests.readme import example

from .metrics import OTHERS, OWN, names_in
from .readme import GUIDE, anchors
from .tools import DEPLOY, run

_WHOLE = {f"{name}_total" for name in _OF_THE_WHOLE} | _OF_THE_WHOLE
"""Metrics that have no label for the product."""

PROMETHEUS = DEPLOY / "prometheus"


def load(name: str) -> Any:
    return yaml.safe_load((PROMETHEUS / name).read_text(encoding="utf-8"))


RULES: list[dict[str, Any]] = load("alerts.yml")["groups"][0]["rules"]


def test_promtool_takes_the_configuration_and_the_rules() -> None:
    out = run("promtool", "check", "config", PROMETHEUS / "prometheus.yml")
    assert f"{len(RULES)} rules found" in out
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", PROMETHEUS / "alerts.yml")


def test_promtool_takes_the_configuration_of_the_page(tmp_path: Path) -> None:
    text = example("scrape", "deploy/README.md")
    assert yaml.safe_load(text)["scrape_configs"][0]["job_name"] == "arthur-relay"
    (tmp_path / "prometheus.yml").write_text(text, encoding="utf-8")
    assert "SUCCESS" in run("promtool", "check", "config", tmp_path / "prometheus.yml")


def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    assert "SUCCESS" in run("promtool", "test", "rules", "alerts_test.yml", cwd=PROMETHEUS)


def test_every_alert_is_tested_to_fire_and_not_to_fire() -> None:
    cases = [case for test in load("alerts_test.yml")["tests"] for case in test["alert_rule_test"]]
    names = {rule["alert"] for rule in RULES}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_metrics_that_exist(rule: dict[str, Any]) -> None:
    names = names_in(rule["expr"])
    assert names
    assert names <= OWN | OTHERS


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_leads_to_its_section_of_the_guide(rule: dict[str, Any]) -> None:
    guide, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert guide == GUIDE
    assert anchor == rule["alert"].lower()
    assert anchor in anchors()


def test_no_alert_offers_what_is_gone() -> None:
    texts = {rule["alert"]: " ".join(rule["annotations"].values()) for rule in RULES}
    assert [name for name, text in texts.items() if "replay" in text] == []
    offered = {name for name, text in texts.items() if "sent again" in text}
    assert all("still kept" in texts[name] for name in offered)
    assert "gone for good" in texts["ArthurRelayDeadLettersLost"]


def test_an_alert_names_the_product_that_it_is_of() -> None:
    named = {rule["alert"] for rule in RULES if "$labels.product" in rule["annotations"]["summary"]}
    assert named == {rule["alert"] for rule in RULES if _has_product(rule["expr"])}


def _has_product(expression: str) -> bool:
    """Return whether an expression's result has a label for the product."""
    if groupings := re.findall(r"\bby \(([^)]*)\)", expression):
        return any("product" in grouping for grouping in groupings)
    return not names_in(expression) <= OTHERS | _WHOLE


def test_the_job_is_the_one_that_the_alerts_go_by() -> None:
    (job,) = load("prometheus.yml")["scrape_configs"]
    for rule in RULES:
        if "job=" in rule["expr"]:
            assert f'job="{job["job_name"]}"' in rule["expr"]
