"""The tools that check deploy/: where they are, and what to do where they are not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
NEEDED = "TESTS_NEED_DEPLOY_TOOLS"
"""When this is set, a tool that is missing fails the test instead of skipping it."""
FOLDER = "TESTS_DEPLOY_TOOLS"
"""The folder of commands of an environment with tools.txt; otherwise they are on the PATH."""


def tool(name: str) -> str:
    """Return the path of a command; without it, skip the test, or fail it where it is needed."""
    # The environment's own come first: a machine may have another version on its PATH.
    path = os.pathsep.join(
        part for part in (os.environ.get(FOLDER), os.environ.get("PATH", os.defpath)) if part
    )
    found = shutil.which(name, path=path)
    if found is None:
        missing(f"there is no {name} (see tests/deploy/tools.txt)")
    return found


def missing(what: str) -> NoReturn:
    """Skip the test for want of something, or fail it where that is needed."""
    if os.environ.get(NEEDED):
        pytest.fail(f"{NEEDED} is set, and {what}")
    pytest.skip(what)


def run(
    name: str,
    *arguments: str | Path,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    timeout_seconds: float = 60,
    errors_apart: bool = False,
) -> str:
    """Run a tool and return what it printed, warnings too unless they are wanted apart.

    A tool that does not end with 0 fails the test.
    """
    done = subprocess.run(
        [tool(name), *map(str, arguments)],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if errors_apart else subprocess.STDOUT,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )
    said = f"{done.stdout}{done.stderr or ''}"
    assert done.returncode == 0, f"{name} ended with {done.returncode}:\n{said}"
    return done.stdout
