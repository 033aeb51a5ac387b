"""deploy/compose.yaml and its example: the schema and docker compose take them, and they fit."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from arthur_relay.credentials import ENGINE_KEY, means_both, means_engine
from arthur_relay.destinations.engine.task import task_named
from arthur_relay.settings import ENVIRONMENT_PREFIX, RelaySettings

from .settings import DAEMON_PREFIX, daemon_variables
from .tools import DEPLOY, run

FILES = {
    "arthur": ["compose.yaml"],
    "sandbox": ["compose.yaml", "compose.sandbox.yaml"],
    "engine": ["compose.yaml", "compose.engine.yaml"],
    "engine of the sandbox": ["compose.yaml", "compose.sandbox.yaml", "compose.engine.yaml"],
    "both": ["compose.yaml", "compose.both.yaml"],
    "both of the sandbox": ["compose.yaml", "compose.sandbox.yaml", "compose.both.yaml"],
}
ENGINE = "https://engine.example"


def composed(*files: str, **variables: str) -> dict[str, Any]:
    """Return what docker compose makes of files and variables."""
    options = [option for name in files for option in ("--file", str(DEPLOY / name))]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **variables}
    config: dict[str, Any] = json.loads(
        run("docker-compose", *options, "config", "--format=json", env=environment)
    )
    return config


@pytest.fixture(params=FILES)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return composed(*FILES[request.param], ARTHUR_MODEL_ID="the-models-id", ARTHUR_BASE_URL=ENGINE)


def seconds(duration: str) -> float:
    parts = re.findall(r"(\d+)([ms])", duration)
    return sum(float(number) * {"m": 60, "s": 1}[unit] for number, unit in parts)


@pytest.mark.parametrize("name", sorted({name for names in FILES.values() for name in names}))
def test_the_schema_takes_it(name: str) -> None:
    run("check-jsonschema", "--builtin-schema=vendor.compose-spec", DEPLOY / name)


def test_hadolint_has_nothing_to_say_about_the_example() -> None:
    assert json.loads(run("hadolint", "--format=json", DEPLOY / "example" / "Dockerfile")) == []


def test_nothing_has_more_rights_than_it_needs(config: dict[str, Any]) -> None:
    for name, service in config["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert not service.get("privileged"), name
        # What can be reached from outside can be reached from this machine only.
        for port in service.get("ports", ()):
            assert port["host_ip"] == "127.0.0.1", name


def test_images_have_a_version(config: dict[str, Any]) -> None:
    for service in config["services"].values():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])


def test_the_settings_exist(config: dict[str, Any]) -> None:
    environment = config["services"]["relay"]["environment"]
    relay = {}
    for name, value in environment.items():
        if name.startswith(DAEMON_PREFIX):
            assert name in daemon_variables()
        elif name.startswith(ENVIRONMENT_PREFIX):
            relay[name.removeprefix(ENVIRONMENT_PREFIX).lower()] = value
    settings = RelaySettings(**relay)
    stop = seconds(config["services"]["relay"]["stop_grace_period"])
    assert stop >= settings.shutdown_timeout_seconds + 10
    stop = seconds(config["services"]["application"]["stop_grace_period"])
    assert stop >= RelaySettings().shutdown_timeout_seconds + 10
    targets = {volume["target"] for volume in config["services"]["relay"]["volumes"]}
    assert str(settings.spool_dir) in targets


def test_the_key_is_a_file_that_only_the_relay_has(config: dict[str, Any]) -> None:
    with_key = [name for name, service in config["services"].items() if service.get("secrets")]
    assert with_key == ["relay"]
    environment = config["services"]["relay"]["environment"]
    paths = {value for name, value in environment.items() if name.endswith("_KEY_FILE")}
    secrets = [each["source"] for each in config["services"]["relay"]["secrets"]]
    assert paths == {f"/run/secrets/{each}" for each in secrets}
    assert not {"ARTHUR_API_KEY", ENGINE_KEY} & environment.keys()


def test_the_application_has_the_socket_and_no_network(config: dict[str, Any]) -> None:
    relay, application = config["services"]["relay"], config["services"]["application"]
    socket = relay["environment"][f"{DAEMON_PREFIX}SOCKET"]
    assert application["environment"]["ARTHUR_ENDPOINT_URL"] == f"unix://{socket}"
    folder = str(Path(socket).parent)
    (theirs,) = (volume for volume in relay["volumes"] if volume["target"] == folder)
    (ours,) = (volume for volume in application["volumes"] if volume["target"] == folder)
    assert theirs["source"] == ours["source"]
    assert application["network_mode"] == "none"
    assert application["depends_on"]["relay"]["condition"] == "service_healthy"
    user = re.search(
        r"^USER (\d+):", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert user is not None
    assert application["group_add"] == [user[1]]


def test_prometheus_scrapes_the_relay(config: dict[str, Any]) -> None:
    listen = config["services"]["relay"]["environment"][f"{DAEMON_PREFIX}METRICS_LISTEN"]
    target = f"relay:{listen.rpartition(':')[2]}"
    assert f'"{target}"' in (DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in FILES if "both" not in name])
def test_relay_and_application_mean_the_same_product(name: str) -> None:
    services = composed(*FILES[name], ARTHUR_MODEL_ID="m", ARTHUR_BASE_URL=ENGINE)["services"]
    relay, application = services["relay"], services["application"]
    is_engine = "engine" in name
    assert means_engine(relay["environment"]) is is_engine
    assert means_engine(application["environment"]) is is_engine
    if is_engine:
        socket = relay["environment"][f"{DAEMON_PREFIX}SOCKET"]
        assert relay["environment"]["ARTHUR_BASE_URL"] == ENGINE
        assert application["environment"]["ARTHUR_BASE_URL"] == f"unix://{socket}"
        assert task_named(None, None, application["environment"]) == "arthur-relay example"


@pytest.mark.parametrize("name", ["both", "both of the sandbox"])
def test_a_relay_for_both_has_an_application_for_each(name: str) -> None:
    services = composed(*FILES[name], ARTHUR_MODEL_ID="m", ARTHUR_BASE_URL=ENGINE)["services"]
    relay, scope, engine = (
        services[each] for each in ("relay", "application", "tracing-application")
    )
    assert "ARTHUR_API_KEY_FILE" in relay["environment"]
    assert means_both(relay["environment"])
    socket = f"unix://{relay['environment'][f'{DAEMON_PREFIX}SOCKET']}"
    assert not means_engine(scope["environment"])
    assert means_engine(engine["environment"])
    assert engine["environment"]["ARTHUR_BASE_URL"] == socket
    same = ("image", "volumes", "group_add", "network_mode", "depends_on")
    assert {each: engine[each] for each in same} == {each: scope[each] for each in same}


def test_without_an_engines_address_there_is_an_error() -> None:
    with pytest.raises(AssertionError, match="say where Arthur Engine is"):
        composed(*FILES["engine"])


def test_the_sandbox_is_the_arthur_of_the_relay() -> None:
    services = composed(*FILES["sandbox"])["services"]
    arthur, relay, application = services["arthur"], services["relay"], services["application"]
    options = dict(zip(arthur["command"][1::2], arthur["command"][2::2], strict=True))
    assert relay["environment"]["ARTHUR_ENDPOINT_URL"] == f"http://arthur:{options['--port']}"
    assert application["environment"]["ARTHUR_MODEL_ID"] == options["--model-id"]
