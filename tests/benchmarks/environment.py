"""Build the benchmark's environment: `python -m tests.benchmarks.environment DIRECTORY`.

Every peer lives in one environment, so that all are measured with the same LangChain. It runs on
Python 3.11, the last one that the arthurai SDK supports. Prints the path of its Python.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.conformance.sdk_env import made, tell

if TYPE_CHECKING:
    from collections.abc import Mapping

REQUIREMENTS: Final = Path(__file__).with_name("requirements.txt")
ROOT: Final = Path(__file__).parents[2]


def build(directory: Path) -> Path:
    """Make the environment. See `made`."""
    # Nothing is resolved: the pins of the SDK contradict those of every current LangChain.
    return made(
        directory,
        ("--no-deps", "-r", str(REQUIREMENTS)),
        sources=[REQUIREMENTS.read_text(encoding="utf-8")],
    )


def variables(inherited: Mapping[str, str]) -> dict[str, str]:
    """The variables to run the environment's Python with: the project is not installed in it.

    Args:
        inherited: The variables of this process.
    """
    return {**inherited, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}


if __name__ == "__main__":
    tell(build, (__doc__ or "").splitlines()[0])
