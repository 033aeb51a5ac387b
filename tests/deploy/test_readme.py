"""deploy/README.md: what it names is there, and every alert is explained."""

from __future__ import annotations

import re

import yaml

from arthur_relay.broker.settings import BROKER_PREFIX, BrokerSettings
from arthur_relay.settings import ENVIRONMENT_PREFIX, RelaySettings

from .readme import README, anchors
from .settings import daemon_variables
from .tools import DEPLOY, ROOT


def test_every_alert_has_a_section_that_says_what_to_do() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    assert re.findall(r"^### (ArthurRelay\w+)$", README, re.MULTILINE) == alerts
    named = set(re.findall(r"ArthurRelay\w+", README))
    assert named == set(alerts)


def test_every_variable_that_it_names_exists() -> None:
    named = set(re.findall(rf"\b{ENVIRONMENT_PREFIX}[A-Z_]+[A-Z]\b", README))
    own = {f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in RelaySettings.model_fields}
    assert named
    broker = {f"{BROKER_PREFIX}{name.upper()}" for name in BrokerSettings.model_fields}
    assert named <= own | broker | daemon_variables()


def test_every_file_that_it_names_exists() -> None:
    named = re.findall(r"(?:deploy|tests)/[\w./@-]*\w/?", README)
    named += [f"deploy/kubernetes/{name}" for name in re.findall(r"(?<!/)overlays/[\w-]+", README)]
    named += [f"deploy/kubernetes/{name}" for name in re.findall(r"`(base/[\w.-]+)`", README)]
    assert len(named) > 20
    for name in named:
        assert (ROOT / name).exists(), name


def test_every_link_within_it_leads_somewhere() -> None:
    links = re.findall(r"\]\(#([^)]+)\)", README)
    assert links
    assert set(links) <= anchors()


def test_the_hosts_that_it_names_have_a_python_that_is_new_enough() -> None:
    required = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert required is not None
    assert f"Python {required[1]} or newer" in README


def test_a_key_or_an_address_is_given_wherever_a_daemon_is_started_by_hand() -> None:
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL):
        if "docker run " in block:
            assert "ARTHUR_ENDPOINT_URL=" in block
            assert "ARTHUR_API_KEY_FILE=" in block
