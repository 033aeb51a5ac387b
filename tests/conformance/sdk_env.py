"""Build the conformance tests' environment: `python sdk_env.py DIRECTORY` prints its Python.

The SDK runs on Python 3.11 only, and its pins do not install beside current LangChain, so it gets
an environment of its own. Nothing is done when the directory has it already. The output of what
installs (uv where it is on the path, else pip) goes to standard error, so that standard output is
the path of the interpreter and nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
WITHOUT_DEPENDENCIES = ("arthurai==3.33.3", "langchain-community==0.3.31")
VERSION = (3, 11)
STAMP = "made-from"


def find_python() -> str:
    """A Python of the SDK's version: this one, or one on the path.

    Raises:
        SystemExit: there is none.
    """
    if sys.version_info[:2] == VERSION:
        return sys.executable
    name = "python{}.{}".format(*VERSION)
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"the arthurai SDK needs {name}, which is not on the PATH")
    return found


def made(directory: Path, *installs: Sequence[str], sources: Sequence[str]) -> Path:
    """Make an environment if it is not there, or was made from something else.

    Args:
        directory: Where; what is there is replaced.
        *installs: The arguments of each call of `pip install` (uv's takes the same), in order.
        sources: What it is made from; when that changes, it is made anew.

    Returns:
        The path of its Python.

    Raises:
        SystemExit: no Python of the SDK's version is there.
        subprocess.CalledProcessError: an installation failed; the next call begins anew.
    """
    python = directory / "bin" / "python"
    stamp = directory / STAMP
    wanted = hashlib.sha256("\n".join(sources).encode()).hexdigest()
    if stamp.is_file() and python.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    install: tuple[str, ...]
    if uv := shutil.which("uv"):
        run(uv, "venv", "--quiet", "--clear", "--python", find_python(), str(directory))
        # As pip does: the SDK's code warns when it is compiled, which in a test is an error.
        install = (uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python))
    else:
        run(find_python(), "-m", "venv", "--clear", str(directory))
        pip = (str(python), "-m", "pip", "install", "--disable-pip-version-check")
        install = (*pip, "--quiet")
    for arguments in installs:
        run(*install, *arguments)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def build(directory: Path) -> Path:
    """Make the environment of the conformance tests. See `made`."""
    return made(
        directory,
        ("-r", str(REQUIREMENTS)),
        ("--no-deps", *WITHOUT_DEPENDENCIES),
        sources=[REQUIREMENTS.read_text(encoding="utf-8"), *WITHOUT_DEPENDENCIES],
    )


def run(*command: str) -> None:
    """Run a command, with its output on standard error."""
    subprocess.run(command, check=True, stdout=sys.stderr)


def tell(make: Callable[[Path], Path], description: str) -> None:
    """Read the directory from the command line, make it, and print the path of the Python."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("directory", type=Path, help="where the environment is, or will be")
    print(make(parser.parse_args().directory.absolute()))  # noqa: T201  # its business


if __name__ == "__main__":
    tell(build, (__doc__ or "").splitlines()[0])
