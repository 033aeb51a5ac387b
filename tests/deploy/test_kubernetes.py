"""deploy/kubernetes: every overlay renders, is valid, is restricted, and its parts fit together."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from arthur_relay.settings import ENVIRONMENT_PREFIX, RelaySettings

from .pod_security import containers, violations
from .settings import DAEMON_PREFIX, daemon_variables
from .tools import DEPLOY, run, tool

KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = sorted({path.name for path in (KUBERNETES / "overlays").iterdir()} - {"fleet"})
"""Those of a host; see `test_kubernetes_fleet` for the other."""
WORKLOADS = {"DaemonSet", "Deployment", "StatefulSet"}
OPERATORS = {"PrometheusRule", "ServiceMonitor"}
SCALES = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


class Rendered:
    """What an overlay applies."""

    def __init__(self, overlay: str) -> None:
        self.text = run("kubectl", "kustomize", KUBERNETES / "overlays" / overlay)
        self.manifests: list[dict[str, Any]] = list(yaml.safe_load_all(self.text))

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        return [manifest for manifest in self.manifests if manifest["kind"] in kinds]

    @property
    def workload(self) -> dict[str, Any]:
        (found,) = self.of(*WORKLOADS)
        return found

    @property
    def pod(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.workload["spec"]["template"]["spec"]
        return spec

    @property
    def pod_labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.workload["spec"]["template"]["metadata"]["labels"]
        return labels

    @property
    def relay(self) -> dict[str, Any]:
        (found,) = (item for item in containers(self.pod) if item["name"] == "relay")
        return found

    @property
    def settings(self) -> dict[str, str]:
        (source,) = self.relay["envFrom"]
        (found,) = (
            item
            for item in self.of("ConfigMap")
            if item["metadata"]["name"] == source["configMapRef"]["name"]
        )
        data: dict[str, str] = found["data"]
        return data


@pytest.fixture(scope="module", params=OVERLAYS)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return Rendered(request.param)


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def in_bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([KMG]i)", quantity).groups()  # type: ignore[union-attr] # matches
    return int(number) * SCALES[unit]


def test_kubernetes_takes_it(rendered: Rendered, tmp_path: Path) -> None:
    path = tmp_path / "rendered.yaml"
    path.write_text(rendered.text, encoding="utf-8")
    out = run("kubernetes-validate", "--strict", path)
    passed = out.count(" passed for resource ")
    assert passed == len(rendered.manifests) - len(rendered.of(*OPERATORS))


def test_the_prometheus_operator_takes_all_that_is_for_it() -> None:
    python = str(Path(tool("kubernetes-validate")).with_name("python"))
    manifests = [found for name in OVERLAYS for found in Rendered(name).of(*OPERATORS)]
    assert {manifest["kind"] for manifest in manifests} == OPERATORS
    assert len(manifests) == len(OVERLAYS) * len(OPERATORS)
    done = subprocess.run(
        [python, Path(__file__).with_name("custom_resources.py")],
        input=json.dumps(manifests),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == ""


def test_pods_are_restricted(rendered: Rendered, request: pytest.FixtureRequest) -> None:
    found = violations(rendered.pod)
    (namespace,) = rendered.of("Namespace")
    enforced = namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    if "host-spool" in request.node.callspec.id:
        assert enforced == "privileged"
        assert found == {
            "the volume spool is of hostPath",
            "own-the-spool adds CHOWN",
            "own-the-spool may be root",
            "own-the-spool runs as root",
        }
    else:
        assert enforced == "restricted"
        assert found == set()
    for container in containers(rendered.pod):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["resources"]["limits"]["memory"]
    assert rendered.pod["automountServiceAccountToken"] is False


def test_what_is_selected_is_there(rendered: Rendered) -> None:
    labels = rendered.pod_labels
    ports = {port["name"] for item in containers(rendered.pod) for port in item.get("ports", ())}
    assert selects(rendered.workload["spec"]["selector"]["matchLabels"], labels)
    for service in rendered.of("Service"):
        assert selects(service["spec"]["selector"], labels)
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for policy in rendered.of("NetworkPolicy"):
        assert selects(policy["spec"]["podSelector"]["matchLabels"], labels)
        named = [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]]
        assert set(named) <= ports
    for budget in rendered.of("PodDisruptionBudget"):
        assert selects(budget["spec"]["selector"]["matchLabels"], labels)
    (monitor,) = rendered.of("ServiceMonitor")
    watched = [
        service
        for service in rendered.of("Service")
        if selects(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])
    ]
    (service,) = watched
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    # The job, by which the alerts go.
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "arthur-relay"


def test_everything_is_in_one_namespace(rendered: Rendered) -> None:
    (namespace,) = rendered.of("Namespace")
    for manifest in rendered.manifests:
        if manifest is not namespace:
            assert manifest["metadata"]["namespace"] == namespace["metadata"]["name"]


def test_the_settings_exist_and_their_files_are_mounted(rendered: Rendered) -> None:
    settings = rendered.settings
    mounts = {mount["mountPath"] for mount in rendered.relay["volumeMounts"]}
    own = {f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in RelaySettings.model_fields}
    for name, value in settings.items():
        if name.startswith(DAEMON_PREFIX):
            assert name in daemon_variables()
        elif name.startswith(ENVIRONMENT_PREFIX):
            assert name in own
        if value.startswith("/"):
            assert value in mounts or str(Path(value).parent) in mounts
    relay = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower(): value
        for name, value in settings.items()
        if name in own
    }
    assert RelaySettings(**relay).spool_dir == Path("/var/lib/arthur-relay")
    volumes = {volume["name"] for volume in rendered.pod["volumes"]} | {
        claim["metadata"]["name"]
        for claim in rendered.workload["spec"].get("volumeClaimTemplates", ())
    }
    for container in containers(rendered.pod):
        assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes


def test_the_ports_are_those_of_the_settings(rendered: Rendered) -> None:
    ports = {port["name"]: port["containerPort"] for port in rendered.relay["ports"]}
    listen = rendered.settings[f"{DAEMON_PREFIX}METRICS_LISTEN"]
    assert listen == f"0.0.0.0:{ports['relay-metrics']}"
    intake = rendered.settings.get(f"{DAEMON_PREFIX}LISTEN")
    assert intake == (f"0.0.0.0:{ports['relay-intake']}" if "relay-intake" in ports else None)


def test_the_spool_fits_into_its_volume(rendered: Rendered) -> None:
    spool = int(rendered.settings["ARTHUR_RELAY_SPOOL_BYTES"])
    (mount,) = (
        mount
        for mount in rendered.relay["volumeMounts"]
        if mount["mountPath"] == rendered.settings["ARTHUR_RELAY_SPOOL_DIR"]
    )
    claims = rendered.workload["spec"].get("volumeClaimTemplates", ())
    sizes = [
        claim["spec"]["resources"]["requests"]["storage"]
        for claim in claims
        if claim["metadata"]["name"] == mount["name"]
    ] or [
        volume["emptyDir"]["sizeLimit"]
        for volume in rendered.pod["volumes"]
        if volume["name"] == mount["name"] and "emptyDir" in volume
    ]
    # An emptyDir over its limit has the pod evicted. Beside the spool are its log and dead letters.
    for size in sizes:
        assert spool <= 0.8 * in_bytes(size)
    if not sizes:
        assert "hostPath" in str(rendered.pod["volumes"])


def test_the_end_is_given_longer_than_the_drain(rendered: Rendered) -> None:
    drain = float(rendered.settings["ARTHUR_RELAY_SHUTDOWN_TIMEOUT_SECONDS"])
    assert rendered.pod["terminationGracePeriodSeconds"] >= drain + 15


def test_probes_never_ask_for_more_than_they_should(rendered: Rendered) -> None:
    relay = rendered.relay
    assert relay["livenessProbe"]["httpGet"]["path"] == "/healthz"
    if rendered.workload["kind"] == "Deployment":
        # A sidecar: the pod's readiness is the application's, which does not wait for its logging.
        assert relay in rendered.pod["initContainers"]
        assert relay["restartPolicy"] == "Always"
        assert "readinessProbe" not in relay
        assert "startupProbe" not in relay
    else:
        assert relay["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert relay["startupProbe"]["httpGet"]["path"] == "/healthz"


def test_images_have_a_version(rendered: Rendered) -> None:
    version = re.search(
        r"^ARG VERSION=(.+)$", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert version is not None
    for container in containers(rendered.pod):
        assert container["image"].endswith(f":{version[1]}")


def test_the_applications_use_the_socket_that_the_sidecar_makes() -> None:
    rendered = Rendered("sidecar")
    (application,) = rendered.pod["containers"]
    environment = {item["name"]: item["value"] for item in application["env"]}
    socket = rendered.settings[f"{DAEMON_PREFIX}SOCKET"]
    assert environment["ARTHUR_ENDPOINT_URL"] == f"unix://{socket}"
    (name,) = (
        mount["name"]
        for mount in rendered.relay["volumeMounts"]
        if mount["mountPath"] == str(Path(socket).parent)
    )
    assert {"name": name, "mountPath": str(Path(socket).parent), "readOnly": True} in application[
        "volumeMounts"
    ]
    # Another user, but in the group of the socket.
    assert application["securityContext"]["runAsUser"] != relay_user(rendered)
    assert rendered.pod["securityContext"]["fsGroup"] == relay_user(rendered)


def relay_user(rendered: Rendered) -> int:
    user: int = rendered.relay["securityContext"]["runAsUser"]
    return user


def test_there_is_one_relay_a_spool() -> None:
    update = Rendered("daemonset").workload["spec"]["updateStrategy"]["rollingUpdate"]
    assert update == {"maxSurge": 0, "maxUnavailable": 1}
    assert Rendered("gateway").of("PodDisruptionBudget")


def prometheus_rule() -> str:
    """Return components/prometheus-operator/alerts.yaml, as it has to be."""
    lines = (DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8").splitlines()
    start = lines.index("groups:")
    return "\n".join(
        [
            "# The same as deploy/prometheus/alerts.yml, which is where they are tested.",
            "apiVersion: monitoring.coreos.com/v1",
            "kind: PrometheusRule",
            "metadata:",
            "  name: arthur-relay",
            "  labels:",
            "    app.kubernetes.io/name: arthur-relay",
            "spec:",
            *(f"  {line}" if line else "" for line in lines[start:]),
            "",
        ]
    )


def test_the_alerts_are_those_of_prometheus() -> None:
    path = KUBERNETES / "components" / "prometheus-operator" / "alerts.yaml"
    assert path.read_text(encoding="utf-8") == prometheus_rule(), "replace it by prometheus_rule()"
