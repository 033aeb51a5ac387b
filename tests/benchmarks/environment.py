"""Build the benchmark's environment: `python -m tests.benchmarks.environment DIRECTORY`.

Every peer lives in one environment, so that all are measured with the same LangChain. It runs on
Python 3.11, the last one that the arthurai SDK supports. Prints the path of its Python.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.conformance.sdk_env import find_python, run

if TYPE_CHECKING:
    from collections.abc import Mapping

REQUIREMENTS: Final = Path(__file__).with_name("requirements.txt")
ROOT: Final = Path(__file__).parents[2]
STAMP: Final = "arthur-relay-benchmarks"


def fingerprint() -> str:
    """What the environment is made from; when it changes, the environment is made anew."""
    return hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()


def is_built(directory: Path) -> bool:
    """Whether a directory holds the environment, made from what is required now."""
    stamp = directory / STAMP
    return (
        python_of(directory).exists()
        and stamp.is_file()
        and stamp.read_text(encoding="utf-8") == fingerprint()
    )


def python_of(directory: Path) -> Path:
    """The Python of an environment."""
    return directory / "bin" / "python"


def build(directory: Path) -> Path:
    """Make the environment, if it is not there or was made from something else.

    Args:
        directory: Where; what is there is replaced.

    Returns:
        The path of its Python.

    Raises:
        SystemExit: no Python of the SDK's version is there.
        subprocess.CalledProcessError: an installation failed; the next call begins anew.
    """
    python = python_of(directory)
    if is_built(directory):
        return python
    run(find_python(), "-m", "venv", "--clear", str(directory))
    pip = (str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet")
    # Nothing is resolved: the pins of the SDK contradict those of every current LangChain.
    run(*pip, "--no-deps", "-r", str(REQUIREMENTS))
    (directory / STAMP).write_text(fingerprint(), encoding="utf-8")
    return python


def variables(inherited: Mapping[str, str]) -> dict[str, str]:
    """The variables to run the environment's Python with: the project is not installed in it.

    Args:
        inherited: The variables of this process.
    """
    return {**inherited, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}


def main() -> None:
    """Read the directory from the command line, build, and print the path of the Python."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path, help="where the environment is, or will be")
    print(build(parser.parse_args().directory.absolute()))  # noqa: T201  # its business


if __name__ == "__main__":
    main()
