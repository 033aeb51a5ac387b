"""`arthur-relay settings`: values, and where they came from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from arthur_relay.broker.settings import BrokerSettings
from arthur_relay.daemon.settings import DaemonSettings
from arthur_relay.settings import RelaySettings

if TYPE_CHECKING:
    from .conftest import Run

pytestmark = pytest.mark.one_python

KEY = "a-key-that-nobody-may-see"


def told(run: Run, *arguments: str) -> dict[str, dict[str, Any]]:
    ended = run("settings", "--json", *arguments)
    assert ended.exit_code == 0, ended.stderr
    return {each["variable"]: each for each in json.loads(ended.stdout)}


def test_every_setting_has_a_value_and_a_description(run: Run) -> None:
    found = told(run, "--daemon")
    for model in (RelaySettings, DaemonSettings, BrokerSettings):
        prefix = model.model_config["env_prefix"]
        for name, field in model.model_fields.items():
            setting = found[prefix + name.upper()]
            assert setting["description"] == field.description
            assert (setting["value"], setting["source"]) == (setting["default"], "default")


def test_a_value_names_where_it_came_from(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "relay.env"
    file.write_text("ARTHUR_RELAY_BATCH_SIZE=7\nARTHUR_RELAY_QUEUE_SIZE=8\n")
    monkeypatch.setenv("ARTHUR_RELAY_BATCH_SIZE", "6")
    monkeypatch.setenv("arthur_relay_disabled", "true")
    before = dict(os.environ)
    found = told(run, "--env-file", str(file))
    assert dict(os.environ) == before
    values = {
        name: (each["value"], each["source"])
        for name, each in found.items()
        if each["source"] != "default"
    }
    assert values == {
        "ARTHUR_RELAY_BATCH_SIZE": ("7", f"file {file}"),
        "ARTHUR_RELAY_QUEUE_SIZE": ("8", f"file {file}"),
        "ARTHUR_RELAY_DISABLED": ("true", "environment"),
    }


def test_the_engines_defaults_are_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTHUR_BASE_URL", "https://user:secret@arthur.example")
    monkeypatch.setenv("ARTHUR_RELAY_MAX_IN_FLIGHT", "3")
    found = told(run)
    batch, in_flight = found["ARTHUR_RELAY_BATCH_SIZE"], found["ARTHUR_RELAY_MAX_IN_FLIGHT"]
    assert (batch["value"], batch["source"]) == ("50", "default for Arthur Engine")
    assert (in_flight["value"], in_flight["source"]) == ("3", "environment")
    assert found["ARTHUR_BASE_URL"]["value"] == "https://***@arthur.example"


def test_secrets_are_not_shown(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ARTHUR_API_KEY", KEY)
    monkeypatch.setenv("ARTHUR_PASSWORD_FILE", str(tmp_path / "password"))
    monkeypatch.setenv("ARTHUR_RELAY_BROKER_URL", f"nats://name:{KEY}@127.0.0.1:4222")
    ended = run("settings", "--daemon")
    assert KEY not in ended.stdout + ended.stderr
    line = next(each for each in ended.stdout.splitlines() if "ARTHUR_PASSWORD_FILE" in each)
    assert line.split() == ["ARTHUR_PASSWORD_FILE", str(tmp_path / "password"), "environment"]


def test_what_is_no_setting_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTHUR_RELAY_BATC_SIZE", "3")
    ended = run("settings")
    assert ended.exit_code == 0
    assert "did you mean ARTHUR_RELAY_BATCH_SIZE?" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [((), "batch_size"), (("--env-file", "nowhere.env"), "nowhere.env can't be read")],
)
def test_what_can_not_be_used_is_one_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    monkeypatch.setenv("ARTHUR_RELAY_BATCH_SIZE", "many")
    ended = run("settings", *arguments)
    assert ended.exit_code == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
