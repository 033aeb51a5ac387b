"""deploy/kubernetes/overlays/fleet: it renders, is valid, is restricted, and its parts fit."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import yaml

from arthur_relay.broker.packets import HEADER_BYTES
from arthur_relay.daemon.configuration import Configuration, load, unknown_variables
from arthur_relay.daemon.metrics import PREFIX
from arthur_relay.daemon.settings import DaemonSettings, RoleName

from .pod_security import containers, violations
from .test_kubernetes import KUBERNETES, OPERATORS, Rendered, in_bytes, selects
from .tools import DEPLOY, run

if TYPE_CHECKING:
    from pathlib import Path

OVERLAY = KUBERNETES / "overlays" / "fleet"
ROLES = ("gateway", "worker")


@pytest.fixture(scope="module")
def rendered() -> Rendered:
    return Rendered("fleet")


def workload(rendered: Rendered, role: str) -> dict[str, Any]:
    (found,) = (
        each
        for each in rendered.of("Deployment")
        if each["metadata"]["labels"]["app.kubernetes.io/component"] == role
    )
    return found


def pod_of(rendered: Rendered, role: str) -> dict[str, Any]:
    found: dict[str, Any] = workload(rendered, role)["spec"]["template"]
    return found


def relay_of(rendered: Rendered, role: str) -> dict[str, Any]:
    (found,) = containers(pod_of(rendered, role)["spec"])
    return found


def environment(rendered: Rendered, role: str) -> dict[str, str]:
    relay = relay_of(rendered, role)
    (source,) = relay["envFrom"]
    (found,) = (
        each
        for each in rendered.of("ConfigMap")
        if each["metadata"]["name"] == source["configMapRef"]["name"]
    )
    own = {each["name"]: each["value"] for each in relay.get("env", ())}
    return {**found["data"], **own}


def loaded(rendered: Rendered, role: str) -> Configuration:
    variables = environment(rendered, role)
    assert not list(unknown_variables(variables))
    arguments = relay_of(rendered, role)["args"]
    variables["ARTHUR_API_KEY_FILE"] = str(DEPLOY / "example" / "sandbox-api-key")
    with mock.patch.dict(os.environ, variables, clear=True):
        return load(given={"ARTHUR_RELAY_DAEMON_ROLE": arguments[arguments.index("--role") + 1]})


def test_kubernetes_takes_it(rendered: Rendered, tmp_path: Path) -> None:
    path = tmp_path / "rendered.yaml"
    path.write_text(rendered.text, encoding="utf-8")
    out = run("kubernetes-validate", "--strict", path)
    others = rendered.of("ScaledObject", *OPERATORS)
    assert out.count(" passed for resource ") == len(rendered.manifests) - len(others)


@pytest.mark.parametrize("role", ROLES)
def test_pods_are_restricted_and_have_no_disk(rendered: Rendered, role: str) -> None:
    pod = pod_of(rendered, role)["spec"]
    assert violations(pod) == set()
    assert pod["automountServiceAccountToken"] is False
    relay = relay_of(rendered, role)
    assert relay["securityContext"]["readOnlyRootFilesystem"] is True
    assert relay["resources"]["limits"]["memory"]
    assert all(set(volume) == {"name", "secret"} for volume in pod["volumes"])
    assert {mount["name"] for mount in relay["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }


@pytest.mark.parametrize("role", ROLES)
def test_the_settings_make_that_role(rendered: Rendered, role: str) -> None:
    found = loaded(rendered, role)
    assert found.daemon.role is RoleName(role)
    assert found.broker is not None
    assert found.broker.replicas == 3
    mounts = [mount["mountPath"] for mount in relay_of(rendered, role)["volumeMounts"]]
    for value in environment(rendered, role).values():
        if value.startswith("/"):
            assert any(value.startswith(f"{mount}/") for mount in mounts), value
    ports = {each["name"]: each["containerPort"] for each in relay_of(rendered, role)["ports"]}
    assert found.daemon.metrics_listen == f"0.0.0.0:{ports['relay-metrics']}"
    intake = ports.get("relay-intake")
    assert found.daemon.listen == (None if intake is None else f"0.0.0.0:{intake}")
    assert (intake is None) == (role == "worker")
    grace = pod_of(rendered, role)["spec"]["terminationGracePeriodSeconds"]
    assert grace >= found.relay.shutdown_timeout_seconds + 15


def test_what_is_selected_is_there(rendered: Rendered) -> None:
    labels = {role: pod_of(rendered, role)["metadata"]["labels"] for role in ROLES}
    for role in ROLES:
        selector = workload(rendered, role)["spec"]["selector"]["matchLabels"]
        assert [each for each in ROLES if selects(selector, labels[each])] == [role]
        (budget,) = (
            each
            for each in rendered.of("PodDisruptionBudget")
            if each["metadata"]["name"].endswith(role)
        )
        assert budget["spec"]["selector"]["matchLabels"] == selector
    by_name = {each["metadata"]["name"]: each["spec"] for each in rendered.of("Service")}
    selected = {
        name: [role for role in ROLES if selects(spec["selector"], labels[role])]
        for name, spec in by_name.items()
    }
    assert selected == {"arthur-relay": ["gateway"], "arthur-relay-metrics": list(ROLES)}


def test_what_scales_is_there(rendered: Rendered) -> None:
    names = {role: workload(rendered, role)["metadata"]["name"] for role in ROLES}
    (gateways,) = rendered.of("HorizontalPodAutoscaler")
    assert gateways["spec"]["scaleTargetRef"]["name"] == names["gateway"]
    (metric,) = gateways["spec"]["metrics"]
    assert metric["containerResource"]["container"] == "relay"
    (workers,) = rendered.of("ScaledObject")
    assert workers["spec"]["scaleTargetRef"]["name"] == names["worker"]
    (trigger,) = workers["spec"]["triggers"]
    assert trigger["metadata"]["query"] == f"max({PREFIX}broker_waiting_packets)"
    for role in ROLES:  # else each rollout would undo what was scaled
        assert "replicas" not in workload(rendered, role)["spec"]


def test_the_network_lets_through_what_is_needed_and_no_more(rendered: Rendered) -> None:
    everything, intake = sorted(
        rendered.of("NetworkPolicy"), key=lambda each: len(each["spec"]["policyTypes"])
    )[::-1]
    labels = {role: pod_of(rendered, role)["metadata"]["labels"] for role in ROLES}
    assert all(
        selects(everything["spec"]["podSelector"]["matchLabels"], labels[role]) for role in ROLES
    )
    selector = intake["spec"]["podSelector"]["matchLabels"]
    assert [role for role in ROLES if selects(selector, labels[role])] == ["gateway"]
    egress = everything["spec"]["egress"]
    assert {each["port"] for rule in egress for each in rule["ports"]} == {53, 443, 4222, 8222}
    broker = loaded(rendered, "worker").broker
    assert broker is not None
    assert broker.servers == ["tls://nats.nats.svc.cluster.local:4222"]
    # The chart's pods, by the names that its service without an address gives them.
    assert broker.monitoring_urls == [
        f"http://nats-{number}.nats-headless.nats.svc.cluster.local:8222" for number in range(3)
    ]


def test_the_broker_keeps_what_it_acknowledges_and_takes_any_row() -> None:
    values = yaml.safe_load((OVERLAY / "values.nats.yaml").read_text(encoding="utf-8"))
    config = values["config"]
    assert config["cluster"] == {"enabled": True, "replicas": 3}
    assert config["jetstream"]["merge"] == {"sync_interval": "always"}
    assert config["nats"]["tls"]["enabled"] is True
    # Within << >>, the chart writes it as it is, without quotes.
    payload = config["merge"]["max_payload"].removeprefix("<< ").removesuffix("MB >>")
    assert int(payload) << 20 > DaemonSettings().max_row_bytes + HEADER_BYTES
    assert in_bytes(config["jetstream"]["fileStore"]["pvc"]["size"]) > 2 * 10 << 30
    compose = (DEPLOY / "compose.fleet.yaml").read_text(encoding="utf-8")
    assert f"image: nats:{values['container']['image']['tag']}" in compose
