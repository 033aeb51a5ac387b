"""Prints the lowest versions that pyproject.toml allows, and what the tests need, for pip.

The gate installs these and runs the tests that need no provider's package, so that a lower bound
is a promise that was tried.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]

TOOLS = (
    "blockbuster",
    "coverage",
    "freezegun",
    "hypothesis",
    "numpy",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "trio",
    "trustme",
)
"""What the tests need that are run with these versions; as the gate pins them."""


def lowest() -> list[str]:
    """Return the lower bounds as pins: `name==version`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["daemon"], *extras["engine"]]
    pins = []
    for requirement in needed:
        bound = re.match(r"([A-Za-z0-9_.-]+)(?:\[.*\])?>=([0-9.]+)", requirement)
        if bound is None:
            raise SystemExit(f"{requirement!r} has no lower bound that can be tried")
        pins.append(f"{bound[1]}=={bound[2]}")
    return pins


def tools() -> list[str]:
    """Return the tools as constraints.txt pins them."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.partition("==")[0] in TOOLS]


if __name__ == "__main__":
    sys.stdout.write("".join(f"{pin}\n" for pin in lowest() + tools()))
