"""Build the Engine SDK's environment: `python -m tests.engine_sdk.environment DIRECTORY`.

The SDK and its instrumentor patch LangChain for a whole process, so they get an environment of
their own, on Python 3.11. Prints the path of its Python; the tests are run with it, and with `src`
on the path, because the project itself is not installed in it:

    PYTHONPATH=src .venv-engine-sdk/bin/python -m pytest tests/engine_sdk tests/engine_conformance
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


if __name__ == "__main__":
    tell(build, (__doc__ or "").splitlines()[0])
