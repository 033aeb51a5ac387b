"""The tools that check deploy/: where they are, and what to do where they are not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    accept: Sequence[int] = (0,),
) -> str:
    """Run a tool and return what it printed on both streams; any other exit status is a failure."""
    done = subprocess.run(
        [tool(name), *map(str, arguments)],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in accept, f"{name} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout
