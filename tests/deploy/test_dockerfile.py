"""deploy/Dockerfile: hadolint takes it, and its pins are those of the gate."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .tools import DEPLOY, ROOT, run

DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_PIN = re.compile(r"^([a-z0-9._-]+)==([^ ]+)(?: ; ([^\\]+))? \\$", re.MULTILINE | re.IGNORECASE)


def pins(name: str) -> dict[str, str]:
    """Return what a file of hashes pins, by name."""
    text = (DEPLOY / "image" / name).read_text(encoding="utf-8")
    return {str(canonicalize_name(match[1])): match[2] for match in _PIN.finditer(text)}


def closure(requirements: list[str]) -> set[str]:
    """Return the names that requirements stand for in this environment, all the way down."""
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [Requirement(text) for text in requirements]
    while todo:
        requirement = todo.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            needs = distribution(requirement.name).requires or []
        except PackageNotFoundError:  # of another platform
            continue
        for text in needs:
            need = Requirement(text)
            extras = requirement.extras or {""}
            if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras):
                todo.append(need)
    return {name for name, _ in seen}


def test_hadolint_has_nothing_to_say() -> None:
    assert json.loads(run("hadolint", "--format=json", DEPLOY / "Dockerfile")) == []


def test_all_that_the_daemon_needs_is_pinned_by_hash() -> None:
    extras = PROJECT["optional-dependencies"]
    needed = closure([*PROJECT["dependencies"], *extras["daemon"], *extras["engine"]])
    assert {"uvicorn", "opentelemetry-proto"} <= needed
    missing = needed - set(pins("requirements.txt"))
    assert not missing, "write deploy/image/ anew, see deploy/README.md"


def test_the_pins_are_those_of_the_gate() -> None:
    constraints = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    )
    gate = {str(canonicalize_name(name)): version for name, version in constraints.items()}
    for name in ("requirements.txt", "build-requirements.txt"):
        found = pins(name)
        shared = set(found) & set(gate)
        assert shared
        assert {key: found[key] for key in shared} == {key: gate[key] for key in shared}


def test_the_base_is_pinned_by_digest_and_the_user_is_a_number() -> None:
    assert re.search(r"^ARG PYTHON=\S+@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${PYTHON}"}
    assert re.search(r"^USER [1-9]\d+:[1-9]\d+$", DOCKERFILE, re.MULTILINE)


def test_the_version_is_the_packages() -> None:
    assert f"ARG VERSION={PROJECT['version']}" in DOCKERFILE
