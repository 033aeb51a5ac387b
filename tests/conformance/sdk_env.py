"""Build the conformance tests' environment: `python sdk_env.py DIRECTORY` prints its Python.

The SDK runs on Python 3.11 only, and its pins do not install beside current LangChain, so it gets
an environment of its own. Nothing is done when the directory has it already. The output of pip goes
to standard error, so that standard output is the path of the interpreter and nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
WITHOUT_DEPENDENCIES = ("arthurai==3.33.3", "langchain-community==0.3.31")
VERSION = (3, 11)


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


def fingerprint() -> str:
    """What the environment is made from; when it changes, the environment is made anew."""
    sources = [REQUIREMENTS.read_text(encoding="utf-8"), *WITHOUT_DEPENDENCIES]
    return hashlib.sha256("\n".join(sources).encode()).hexdigest()


def build(directory: Path) -> Path:
    """Make the environment if it is not there, or was made from something else.

    Args:
        directory: Where; what is there is replaced.

    Returns:
        The path of its Python.

    Raises:
        SystemExit: no Python of the SDK's version is there.
        subprocess.CalledProcessError: an installation failed; the next call begins anew.
    """
    python = directory / "bin" / "python"
    stamp = directory / "arthur-relay-conformance"
    wanted = fingerprint()
    if stamp.is_file() and python.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    run(find_python(), "-m", "venv", "--clear", str(directory))
    install = (str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet")
    run(*install, "-r", str(REQUIREMENTS))
    run(*install, "--no-deps", *WITHOUT_DEPENDENCIES)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def run(*command: str) -> None:
    """Run a command, with its output on standard error."""
    subprocess.run(command, check=True, stdout=sys.stderr)


def main() -> None:
    """Read the directory from the command line, build, and print the path of the Python."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path, help="where the environment is, or will be")
    print(build(parser.parse_args().directory.absolute()))  # noqa: T201  # its business


if __name__ == "__main__":
    main()
