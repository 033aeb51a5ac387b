"""Build these tests' environment: `python -m tests.engine_conformance.environment DIRECTORY`.

The instrumentor patches LangChain for the whole process, so it gets an environment of its own, on
Python 3.11. Prints the path of its Python; the tests are run with it, and with `src` on the path:

    PYTHONPATH=src .venv-openinference/bin/python -m pytest tests/engine_conformance
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
