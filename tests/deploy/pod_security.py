"""The rules of Kubernetes' Pod Security Standard "restricted", as sentences about what breaks them.

Written after kubernetes.io/docs/concepts/security/pod-security-standards: all of "restricted" and
of "baseline" that can be told from a pod's specification alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")


def violations(pod: dict[str, Any]) -> set[str]:
    """Return what a pod's `spec` does that "restricted" does not allow."""
    return {*_of_the_pod(pod), *(found for item in containers(pod) for found in _of(item, pod))}


def containers(pod: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the containers of a pod's `spec`, of every kind."""
    for kind in _CONTAINERS:
        yield from pod.get(kind, ())


def _of_the_pod(pod: dict[str, Any]) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield f"the pod has {name}"
    for volume in pod.get("volumes", ()):
        kinds = set(volume) - {"name"}
        if not kinds <= _VOLUMES:
            yield f"the volume {volume['name']} is of {', '.join(sorted(kinds))}"
    context = pod.get("securityContext", {})
    if context.get("sysctls"):
        yield "the pod sets sysctls"
    if context.get("runAsUser") == 0:
        yield "the pod runs as root"


def _of(container: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    name = container["name"]
    own = container.get("securityContext", {})
    merged = {**pod.get("securityContext", {}), **own}
    capabilities = own.get("capabilities", {})
    if own.get("privileged"):
        yield f"{name} is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name} may escalate its privileges"
    if merged.get("runAsNonRoot") is not True:
        yield f"{name} may be root"
    if merged.get("runAsUser") == 0:
        yield f"{name} runs as root"
    if merged.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield f"{name} has no seccomp profile"
    if "ALL" not in capabilities.get("drop", ()):
        yield f"{name} keeps capabilities"
    for capability in set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield f"{name} adds {capability}"
    if merged.get("procMount", "Default") != "Default":
        yield f"{name} has another procMount"
    if any("hostPort" in port and port["hostPort"] for port in container.get("ports", ())):
        yield f"{name} takes a port of the host"
