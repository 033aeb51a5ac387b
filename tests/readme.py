"""The README's parts, for the tests that run what it says."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def python_block(number: int) -> str:
    """One of the README's programs, from 0, as it is written there."""
    return textwrap.dedent(python_blocks()[number])


def python_blocks() -> list[str]:
    """All of them, with the indentation that they have there."""
    return re.findall(r"^ *```python\n(.*?)^ *```", README, re.DOTALL | re.MULTILINE)


def command(name: str) -> str:
    """The command that the README gives under a name."""
    found = re.search(rf"<!-- command: {name} -->\n```sh\n([^\n]+)\n```", README)
    assert found is not None, f"the README has no command {name}"
    return found[1]


def section(title: str) -> str:
    """The text under a heading, up to the next one of any level."""
    found = re.search(
        rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", README, re.DOTALL | re.MULTILINE
    )
    assert found is not None, f"the README has no section {title}"
    return found[1]


def quoted(text: str) -> set[str]:
    """What stands between backticks."""
    return set(re.findall(r"`([^`]+)`", text))
