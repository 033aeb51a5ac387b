"""Build the provider tests' environment: `python -m tests.providers.environment DIRECTORY`.

LangChain's provider packages want newer packages than the others' tests have, and are many, so they
get an environment of their own, on Python 3.11. Prints the path of its Python; the tests are run
with it, and with `src` on the path, because the project itself is not installed in it:

    PYTHONPATH=src .venv-providers/bin/python -m pytest tests/providers
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.conformance.sdk_env import made, tell

REQUIREMENTS: Final = Path(__file__).with_name("requirements.txt")


def build(directory: Path) -> Path:
    """Make the environment. See `made`."""
    text = REQUIREMENTS.read_text(encoding="utf-8")
    return made(directory, ("-r", str(REQUIREMENTS)), sources=[text])


def versions() -> dict[str, str]:
    """Return the version of each package that is pinned, by its name."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    pins = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.strip(): version.strip() for name, version in pins}


if __name__ == "__main__":
    tell(build, (__doc__ or "").splitlines()[0])
